//! The voter: promises, accepted entries, timed votes. The part of a replica that is always there.

use crate::ballot::Position;
use crate::lease::TimedVote;
use crate::log::Log;
use crate::message::{Entry, Output, Payload, Write};
use proto::plant::{Plant, planted};
use proto::{Ballot, Slot};
use serde::{Deserialize, Serialize};
use truetime::{Interval, Timestamp};

/// What a voter must remember across restarts besides its log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct HardState {
    /// The highest ballot promised.
    pub promised: Ballot,
    /// The ballot that holds the timed vote.
    pub vote: Ballot,
    /// No vote given before a restart runs beyond this (L1); runs ahead of what was granted.
    pub vote_until: Timestamp,
    /// The disk has damaged entries that this replica once accepted; see [`Repair`].
    pub repair: Option<Repair>,
}

/// A replica whose log was damaged on disk has forgotten something it said. Until its log is whole
/// again it promises only to logs that reach beyond all it ever accepted, so that no promise quorum
/// counts on its memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Repair {
    /// The log is known good before this slot. What stands behind stays on disk until a leader
    /// has sent it again: it is not used, and not thrown away.
    pub from: Slot,
    /// The last slot that was on disk: nothing beyond was ever accepted.
    pub until: Slot,
    /// What was promised then: a log that has an entry of a newer ballot needs no more.
    pub promised: Ballot,
}

/// Invariants:
/// 1. `promised` never falls; nothing is accepted below it (P1).
/// 2. `vote.granted ≤ hard.vote_until`: what is granted is covered on disk before it is said (L1).
/// 3. Up to `held`, the log equals that of the leader of `promised`, or is chosen.
/// 4. The log is a prefix of the log that the leader of its last entry's ballot had. So among a
///    promise quorum, the log whose last position is highest holds every value that may be chosen,
///    and only its like is promised anything (P3, P8).
#[derive(Clone, Debug)]
pub(crate) struct Acceptor {
    pub hard: HardState,
    pub vote: TimedVote,
    pub log: Log,
    /// See invariant 3.
    pub held: Slot,
    /// How often entries were cut off, or replaced by a snapshot.
    pub cuts: u64,
    /// Log positions up to this one are on disk.
    pub durable: Slot,
    /// The disk holds the snapshot that was installed last, or the seat that was taken last.
    pub settled: bool,
    lease_us: u64,
}

impl Acceptor {
    pub fn new(hard: HardState, log: Log, chosen: Slot, lease_us: u64) -> Acceptor {
        let durable = log.last_slot();
        let vote = TimedVote { granted: hard.vote_until, released: Ballot::default() };
        Acceptor { vote, hard, log, held: chosen, cuts: 0, durable, settled: true, lease_us }
    }

    /// Whether the voter may promise a new ballot: above the last one, no vote in force that was
    /// not handed on (L1, P10), a log at least as complete (P3, P8), and no memory lost.
    pub fn may_promise(
        &self,
        now: Interval,
        ballot: Ballot,
        last: Position,
        released: Option<Ballot>,
    ) -> bool {
        let free = now.after(self.vote.granted) || released == Some(self.hard.vote);
        let complete = last >= self.log.last();
        // All that a replica in repair ever accepted is at or below this.
        let remembered = self
            .hard
            .repair
            .is_none_or(|repair| last >= Position { ballot: repair.promised, slot: repair.until });
        ballot > self.hard.promised && free && complete && remembered
    }

    /// Raises the promise. What was held under the old ballot no longer counts under the new one.
    pub fn promise(&mut self, ballot: Ballot, chosen: Slot, out: &mut Output) {
        assert!(ballot > self.hard.promised, "P1: promise {ballot} after {}", self.hard.promised);
        self.hard.promised = ballot;
        self.held = chosen;
        out.writes.push(Write::HardState(self.hard));
    }

    /// Grants the timed vote to the promised ballot until `now().latest + lease` (L1).
    pub fn grant(&mut self, now: Interval, out: &mut Output) {
        if self.hard.promised <= self.vote.released {
            return; // its leader has given the lease up: a late message of it binds nobody
        }
        let until = now.latest().plus_micros(self.lease_us);
        self.vote.granted = self.vote.granted.max(until);
        if planted(Plant::LeaseVoteUnsynced) {
            return;
        }
        let covered =
            self.hard.vote == self.hard.promised && self.vote.granted <= self.hard.vote_until;
        if !covered {
            self.hard.vote = self.hard.promised;
            // Ahead of what is granted, so that an idle group does not write at each heartbeat.
            self.hard.vote_until = self.vote.granted.plus_micros(self.lease_us / 2);
            out.writes.push(Write::HardState(self.hard));
        }
        assert!(self.vote.granted <= self.hard.vote_until, "L1: a grant the disk does not cover");
    }

    /// The vote is granted until then, and its server has that on disk (L1).
    pub fn extend(&mut self, until: Timestamp) {
        if self.hard.promised > self.vote.released && self.hard.vote == self.hard.promised {
            self.vote.granted = self.vote.granted.max(until);
            self.hard.vote_until = self.hard.vote_until.max(until);
        }
    }

    /// Takes the entries that follow `prev` in the leader's log.
    ///
    /// # Errors
    /// `prev` is not in this log: the position up to which the logs may agree (P6).
    pub fn accept(
        &mut self,
        prev: Position,
        entries: Vec<Entry>,
        chosen: Slot,
        out: &mut Output,
    ) -> Result<(), Position> {
        let base = self.log.base().slot;
        // What is forgotten here was chosen: the leader's log has the same there.
        let known = usize::try_from(base.0.saturating_sub(prev.slot.0)).unwrap_or(usize::MAX);
        if known == 0 && self.log.ballot_at(prev.slot) != Some(prev.ballot) {
            let before = prev.slot.prev().min(self.log.last_slot());
            return Err(self.log.may_agree(before, prev.ballot).unwrap_or(self.log.base()));
        }
        let end = Slot(prev.slot.0 + entries.len() as u64);
        let mut slot = Slot(prev.slot.0.max(base.0)).next();
        for entry in entries.into_iter().skip(known) {
            match self.log.ballot_at(slot) {
                Some(ballot) if ballot == entry.ballot => {}
                Some(_) => {
                    assert!(slot > chosen, "P2: {slot} is chosen, the leader has another value");
                    self.cut_tail(slot.prev(), out);
                    self.put(entry, out);
                }
                None => {
                    self.put(entry, out);
                }
            }
            slot = slot.next();
        }
        self.held = self.held.max(end);
        self.check_repaired(out);
        Ok(())
    }

    /// Appends a value of the own ballot.
    pub fn propose(&mut self, payload: Payload, out: &mut Output) -> Slot {
        let slot = self.put(Entry { ballot: self.hard.promised, payload }, out);
        self.held = slot;
        slot
    }

    fn put(&mut self, entry: Entry, out: &mut Output) -> Slot {
        let slot = self.log.append(entry.clone());
        out.writes.push(Write::Entry { slot, entry });
        slot
    }

    fn cut_tail(&mut self, after: Slot, out: &mut Output) {
        self.log.cut_tail(after);
        out.writes.push(Write::CutTail { after });
        self.cuts += 1;
        self.durable = self.durable.min(after);
    }

    /// The disk has damaged entries. Nothing is cut off; nothing is promised.
    pub fn damaged(&mut self, until: Slot) {
        let from = self.log.last_slot().next();
        let (until, promised) = match self.hard.repair {
            Some(repair) => (until.max(repair.until), repair.promised),
            None => (until, self.hard.promised),
        };
        self.hard.repair = Some(Repair { from, until, promised });
    }

    /// Whole again: all that was accepted has been sent once more, or a newer leader, whose log
    /// holds everything that was chosen, has put an entry of its own behind it.
    fn check_repaired(&mut self, out: &mut Output) {
        let Some(repair) = &mut self.hard.repair else { return };
        let last = self.log.last();
        if self.held == last.slot && (last.slot >= repair.until || last.ballot > repair.promised) {
            self.hard.repair = None;
            out.writes.push(Write::CutTail { after: last.slot });
        } else if self.held >= repair.from {
            repair.from = self.held.next();
        } else {
            return;
        }
        out.writes.push(Write::HardState(self.hard));
    }

    /// A snapshot replaces what is applied and, unless the log goes on from it, the log.
    pub fn install(&mut self, base: crate::message::Base, out: &mut Output) {
        let position = base.position;
        let keep_log = self.log.ballot_at(position.slot) == Some(position.ballot);
        out.writes.push(Write::Install { base: base.clone(), keep_log });
        if keep_log {
            self.log.truncate(position.slot);
        } else {
            self.log = Log::empty(base);
        }
        self.cuts += 1;
        // Nothing is applied before the disk has taken the snapshot's place.
        self.durable = position.slot;
        self.settled = false;
        self.held = self.held.max(position.slot);
        self.check_repaired(out);
    }

    /// The disk has answered for the log as it was at `last`, after so many cuts.
    pub fn disk_answered(&mut self, cuts: u64, last: Slot) {
        if cuts == self.cuts {
            self.durable = self.durable.max(last);
            self.settled = true;
        }
    }
}
