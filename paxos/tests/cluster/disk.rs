//! A simulated disk: what one replica finds again after a crash.

use bytes::Bytes;
use paxos::{Base, Entry, HardState, Payload, Position, Stored, Write};
use proto::{Ballot, NodeId, Seat, Slot};
use std::collections::{BTreeMap, BTreeSet};
use truetime::Timestamp;

/// What has been applied: the commands, by slot, and what they stand on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tablet {
    /// The last slot applied, and the configuration there.
    pub base: Base,
    pub values: Vec<(Slot, Bytes)>,
}

impl Tablet {
    pub fn apply(&mut self, slot: Slot, entry: &Entry) {
        assert_eq!(slot, self.base.position.slot.next(), "P2: applied out of order");
        self.base.position = Position { ballot: entry.ballot, slot };
        match &entry.payload {
            Payload::Noop => {}
            Payload::Command(bytes) => self.values.push((slot, bytes.clone())),
            Payload::Configuration(configuration) => {
                self.base.configured_at = self.base.position;
                self.base.configuration = configuration.clone();
            }
        }
    }

    /// The content of a snapshot.
    pub fn content(&self) -> Bytes {
        proto::codec::encode(&self.values).into()
    }
}

/// One step towards the disk, in the order in which it was asked for.
#[derive(Clone, Debug)]
pub enum Op {
    Write(Write),
    Apply(Slot, Entry),
}

/// Invariant: what is here was synced; what is on its way waits in the node's queue.
#[derive(Clone, Debug, Default)]
pub struct Disk {
    pub seat: Seat,
    pub removed: bool,
    pub invited: paxos::Invitation,
    pub hard: HardState,
    pub base: Base,
    pub entries: BTreeMap<Slot, Entry>,
    pub damaged: BTreeSet<Slot>,
    pub tablet: Tablet,
    /// Until when the server has granted this replica's vote while it slept.
    pub beaten_until: Timestamp,
    staged: Vec<u8>,
}

impl Disk {
    /// A disk on which nothing was ever written.
    pub fn blank(seat: Seat) -> Disk {
        Disk { seat, ..Disk::default() }
    }

    /// The disk of a member that the group is founded with.
    pub fn founder(configuration: &paxos::Configuration) -> Disk {
        let mut disk = Disk::blank(Seat::FOUNDER);
        disk.base.configuration = configuration.clone();
        disk.tablet.base = disk.base.clone();
        disk
    }

    /// A log written as if by earlier leaders: one entry for each ballot, promised the last.
    pub fn write_log(&mut self, ballots: &[Ballot]) {
        for ballot in ballots {
            let slot = self.last().next();
            let value = format!("{}.{}", ballot.round, slot.0);
            let payload = Payload::Command(value.into());
            self.entries.insert(slot, Entry { ballot: *ballot, payload });
        }
        self.hard.promised = ballots.last().copied().unwrap_or_default();
    }

    pub fn last(&self) -> Slot {
        self.entries.keys().next_back().copied().unwrap_or(self.base.position.slot)
    }

    pub fn take(&mut self, op: Op) {
        match op {
            Op::Apply(slot, entry) => self.tablet.apply(slot, &entry),
            Op::Write(write) => self.write(write),
        }
    }

    fn write(&mut self, write: Write) {
        match write {
            Write::HardState(hard) => self.hard = hard,
            Write::Entry { slot, entry } => {
                self.damaged.remove(&slot);
                self.entries.insert(slot, entry);
            }
            Write::Truncate(base) => {
                assert!(
                    base.position.slot <= self.tablet.base.position.slot,
                    "P6: truncated what the tablet lacks"
                );
                self.entries.retain(|slot, _| *slot > base.position.slot);
                self.base = base;
            }
            Write::CutTail { after } => {
                self.entries.retain(|slot, _| *slot <= after);
                self.damaged.retain(|slot| *slot <= after);
            }
            Write::StageFirst(data) => self.staged = data.to_vec(),
            Write::StageMore(data) => self.staged.extend(data),
            Write::Install { base, keep_log } => {
                let content = std::mem::take(&mut self.staged);
                // A witness is sent no content.
                let values = match content.is_empty() {
                    true => Vec::new(),
                    false => proto::codec::decode(&content).expect("all parts, in order"),
                };
                self.tablet = Tablet { base: base.clone(), values };
                let kept = |slot: Slot| keep_log && slot > base.position.slot;
                self.entries.retain(|slot, _| kept(*slot));
                self.damaged.retain(|slot| kept(*slot));
                self.base = base;
            }
            Write::Bury(_) => self.removed = true,
            Write::Invited(_, invited) => self.invited = invited,
            Write::Rebirth(seat, invited) => *self = Disk { invited, ..Disk::blank(seat) },
        }
    }

    /// What a replica starts from. Nothing behind a damaged entry is used, nor behind the place
    /// where an unfinished repair stands.
    pub fn stored(&self) -> Stored {
        // What is applied needs no log.
        let applied = self.tablet.base.position.slot;
        let below = self.damaged.first().is_some_and(|slot| *slot <= applied);
        let base = if below { &self.tablet.base } else { &self.base };
        let first = base.position.slot.next();
        let end = self.damaged.range(first..).next().copied().unwrap_or(Slot(u64::MAX));
        let end = self.hard.repair.map_or(end, |repair| end.min(repair.from));
        let good = self.entries.range(first..end.max(first)).map(|(_, entry)| entry.clone());
        Stored {
            seat: self.seat,
            removed: self.removed,
            invited: self.invited,
            hard: HardState {
                vote_until: self.hard.vote_until.max(self.beaten_until),
                ..self.hard
            },
            base: base.clone(),
            entries: good.collect(),
            applied,
            damaged_until: (!self.damaged.is_empty()).then(|| self.last()),
        }
    }
}

/// A node's name as scripts write it: `n3`, or `3`.
pub fn node(name: &str) -> Result<NodeId, String> {
    let digits = name.strip_prefix('n').unwrap_or(name);
    digits.parse().map(NodeId).map_err(|_| format!("no node: {name}"))
}

/// A list of them: `n1/n2`.
pub fn nodes(names: &str) -> Result<Vec<NodeId>, String> {
    names.split('/').filter(|name| !name.is_empty()).map(node).collect()
}
