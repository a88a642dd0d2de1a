//! The log of a replica, in memory as on disk.
//!
//! ```text
//!    base      first                          last
//!      │         │                              │
//!   ───┴─────────┬────┬────┬────┬────┬────┬─────┤
//!    forgotten   │ b1 │ b1 │ b3 │ b3 │ b3 │ b4  │   ballots never fall along the log
//! ```
//!
//! Two logs that have the same ballot in a slot are equal up to that slot: an entry is only ever
//! appended behind what its leader had before it. So one comparison, of the position before a
//! message's first entry, tells whether a message fits.

use crate::ballot::Position;
use crate::configuration::Configuration;
use crate::message::{Base, Entry, Payload};
use proto::{Ballot, NodeId, Slot};
use std::collections::VecDeque;

/// The entries after `base`.
///
/// Invariants:
/// 1. Slots are contiguous from `base.slot + 1`; ballots do not fall.
/// 2. What is at or below `base` was chosen and applied.
/// 3. `configurations` holds the one in force at `base` and each one behind it, ascending.
#[derive(Clone, Debug)]
pub(crate) struct Log {
    base: Position,
    entries: VecDeque<Entry>,
    bytes: usize,
    configurations: Vec<(Position, Configuration)>,
}

impl Log {
    /// An empty log.
    pub fn empty(base: Base) -> Log {
        let Base { position, configured_at, configuration } = base;
        Log {
            base: position,
            entries: VecDeque::new(),
            bytes: 0,
            configurations: vec![(configured_at, configuration)],
        }
    }

    /// What is forgotten.
    pub fn base(&self) -> Position {
        self.base
    }

    pub fn first(&self) -> Slot {
        self.base.slot.next()
    }

    /// The last entry; the base when there is none.
    pub fn last(&self) -> Position {
        match self.entries.back() {
            Some(entry) => Position { ballot: entry.ballot, slot: self.last_slot() },
            None => self.base,
        }
    }

    pub fn last_slot(&self) -> Slot {
        Slot(self.base.slot.0 + self.entries.len() as u64)
    }

    /// Bytes of the entries.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    pub fn get(&self, slot: Slot) -> Option<&Entry> {
        let index = slot.0.checked_sub(self.base.slot.0 + 1)?;
        self.entries.get(usize::try_from(index).ok()?)
    }

    /// Also of the base.
    pub fn ballot_at(&self, slot: Slot) -> Option<Ballot> {
        if slot == self.base.slot {
            return Some(self.base.ballot);
        }
        self.get(slot).map(|entry| entry.ballot)
    }

    /// The highest position at or below a slot whose ballot is not above `ballot`: where another
    /// log that ends there may agree with this one (P6). `None`: only what is forgotten could.
    pub fn may_agree(&self, slot: Slot, ballot: Ballot) -> Option<Position> {
        if slot < self.base.slot {
            return None;
        }
        let upto = usize::try_from(slot.0 - self.base.slot.0).unwrap_or(usize::MAX);
        // Invariant 1: ballots do not fall.
        let within = upto.min(self.entries.len());
        let count = self.entries.partition_point(|entry| entry.ballot <= ballot).min(within);
        let slot = Slot(self.base.slot.0 + count as u64);
        let found = self.ballot_at(slot)?;
        (found <= ballot).then_some(Position { ballot: found, slot })
    }

    /// Appends an entry.
    pub fn append(&mut self, entry: Entry) -> Slot {
        assert!(entry.ballot >= self.last().ballot, "P3: ballots fall after {}", self.last());
        self.bytes += entry.payload.len();
        let slot = self.last_slot().next();
        if let Payload::Configuration(configuration) = &entry.payload {
            configuration.check();
            let position = Position { ballot: entry.ballot, slot };
            self.configurations.push((position, configuration.clone()));
        }
        self.entries.push_back(entry);
        slot
    }

    /// The entries from a slot on.
    pub fn from(&self, slot: Slot) -> impl Iterator<Item = (Slot, &Entry)> {
        let first = self.first();
        let skip = slot.0.saturating_sub(first.0);
        let skip = usize::try_from(skip).unwrap_or(usize::MAX).min(self.entries.len());
        let slots = (first.0 + skip as u64..).map(Slot);
        slots.zip(self.entries.range(skip..))
    }

    /// Drops the entries after a slot, and the configurations among them (P9).
    pub fn cut_tail(&mut self, after: Slot) {
        let keep = usize::try_from(after.0.saturating_sub(self.base.slot.0)).unwrap_or(usize::MAX);
        while self.entries.len() > keep {
            if let Some(entry) = self.entries.pop_back() {
                self.bytes -= entry.payload.len();
            }
        }
        self.configurations.retain(|(position, _)| position.slot <= after.max(self.base.slot));
    }

    /// Forgets the entries up to a slot, included; the new base, if that changed anything.
    pub fn truncate(&mut self, upto: Slot) -> Option<Base> {
        let upto = upto.min(self.last_slot());
        if upto <= self.base.slot {
            return None;
        }
        let ballot = self.ballot_at(upto).expect("between base and last");
        while self.base.slot < upto {
            let entry = self.entries.pop_front().expect("between base and last");
            self.bytes -= entry.payload.len();
            self.base.slot = self.base.slot.next();
        }
        self.base.ballot = ballot;
        let in_force = self.configurations.partition_point(|(p, _)| p.slot <= upto);
        self.configurations.drain(..in_force.saturating_sub(1));
        let (configured_at, configuration) = self.configurations[0].clone();
        Some(Base { position: self.base, configured_at, configuration })
    }

    /// The configuration in force: the last one appended (P9).
    pub fn configuration(&self) -> &(Position, Configuration) {
        self.configurations.last().expect("invariant 3")
    }

    /// The last configuration appended that knows the node, if none of those is forgotten.
    pub fn configuration_naming(&self, node: NodeId) -> Option<&Configuration> {
        let all = self.configurations.iter().rev().map(|(_, configuration)| configuration);
        all.into_iter().find(|configuration| configuration.members.contains_key(&node))
    }

    /// The configuration in force at a slot that is not forgotten.
    pub fn configuration_at(&self, slot: Slot) -> &(Position, Configuration) {
        let upto = self.configurations.partition_point(|(position, _)| position.slot <= slot);
        &self.configurations[upto.saturating_sub(1)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ballot(round: u64) -> Ballot {
        Ballot { round, node: NodeId(1) }
    }

    fn log(ballots: &[u64]) -> Log {
        let mut log = Log::empty(Base::default());
        for round in ballots {
            log.append(Entry { ballot: ballot(*round), payload: Payload::Noop });
        }
        log
    }

    #[test]
    fn finds_where_logs_may_agree() {
        let log = log(&[1, 1, 3, 3, 4]);
        let agree = |slot, round| log.may_agree(Slot(slot), ballot(round)).unwrap().slot.0;
        assert_eq!(agree(9, 9), 5);
        assert_eq!(agree(4, 9), 4);
        assert_eq!(agree(9, 3), 4);
        assert_eq!(agree(9, 2), 2);
        assert_eq!(agree(9, 0), 0);
    }

    #[test]
    fn configurations_come_and_go_with_their_entries() {
        let mut log = log(&[1, 1]);
        let founded = Configuration::founding([NodeId(1), NodeId(2)]);
        let payload = Payload::Configuration(founded.clone());
        log.append(Entry { ballot: ballot(2), payload: payload.clone() });
        assert_eq!(log.configuration().1, founded);
        let without = Payload::Configuration(Configuration::founding([NodeId(2)]));
        log.append(Entry { ballot: ballot(2), payload: without });
        assert_eq!(log.configuration_naming(NodeId(1)), Some(&founded), "the last that knows it");
        assert_eq!(log.configuration_naming(NodeId(3)), None);
        log.cut_tail(Slot(2));
        assert_eq!(log.configuration().1, Configuration::default());
        log.append(Entry { ballot: ballot(3), payload });
        log.append(Entry { ballot: ballot(3), payload: Payload::Noop });
        let base = log.truncate(Slot(4)).unwrap();
        assert_eq!((base.position.slot, base.configured_at.slot), (Slot(4), Slot(3)));
        assert_eq!(base.configuration, founded);
        assert_eq!(log.truncate(Slot(4)), None);
        assert_eq!(log.bytes(), 0);
    }
}
