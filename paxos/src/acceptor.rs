//! The voter: promises, accepted entries, timed votes. The part of a replica that is always there.

use crate::log::Log;
use crate::message::{Entry, Output, Write};
use bytes::Bytes;
use proto::{Ballot, Slot};
use serde::{Deserialize, Serialize};
use truetime::{Interval, Timestamp};

/// What a voter must remember across restarts besides its log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HardState {
    /// The highest ballot promised.
    pub promised: Ballot,
    /// The ballot under which entries were accepted last. The log is a prefix of the log of that
    /// ballot's leader.
    pub accepted: Ballot,
    /// The ballot that holds the timed vote.
    pub vote: Ballot,
    /// No vote given before a restart runs beyond this (L1); runs ahead of what was granted.
    pub vote_until: Timestamp,
}

/// Invariants:
/// 1. `promised` never falls; nothing is accepted below it (P1).
/// 2. `granted ≤ hard.vote_until`: what is granted is covered on disk before it is said (L1).
/// 3. Slots up to `held` are chosen or accepted under `promised`.
/// 4. The log is a prefix of the log that the leader of `hard.accepted` had, and holds everything
///    that was chosen under lower ballots. So among a promise quorum, the longest log of the
///    highest accepted ballot holds every value that may be chosen (P3). This is why a new
///    leader's recovered entries are taken whole or not at all, and the old tail after them cut.
#[derive(Debug)]
pub(crate) struct Acceptor {
    pub hard: HardState,
    pub log: Log,
    /// The end of the vote that was really granted; after a restart, the bound on disk.
    granted: Timestamp,
    /// See invariant 3.
    pub held: Slot,
    /// How often accepted entries were overwritten.
    pub rewrites: u64,
    /// Log positions up to this one are on disk.
    pub durable: Slot,
    lease_us: u64,
}

impl Acceptor {
    pub fn new(hard: HardState, log: Log, chosen: Slot, lease_us: u64) -> Acceptor {
        let durable = log.last();
        // Invariant 4: under the ballot accepted last, the whole log counts.
        let held = if hard.accepted == hard.promised { durable } else { chosen };
        Acceptor { granted: hard.vote_until, hard, log, held, rewrites: 0, durable, lease_us }
    }

    /// When the vote in force has certainly expired, a `now` after this is free to promise.
    pub fn granted(&self) -> Timestamp {
        self.granted
    }

    /// Whether the voter may promise a new ballot: above the last, and no vote in force (L1).
    pub fn may_promise(&self, now: Interval, ballot: Ballot) -> bool {
        ballot > self.hard.promised && now.after(self.granted)
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
        let until = now.latest().plus_micros(self.lease_us);
        self.granted = self.granted.max(until);
        let covered = self.hard.vote == self.hard.promised && self.granted <= self.hard.vote_until;
        if !covered {
            self.hard.vote = self.hard.promised;
            self.hard.vote_until = self.granted.plus_micros(self.lease_us / 2);
            out.writes.push(Write::HardState(self.hard));
        }
        assert!(self.granted <= self.hard.vote_until, "L1: a grant beyond what the disk covers");
    }

    /// Accepts values under the promised ballot, from `first` on, which must not leave a gap.
    ///
    /// Before the first acceptance under a ballot, chosen values may come in any portions; the
    /// rest only together, up to `opening` at least (invariant 4).
    pub fn accept(
        &mut self,
        first: Slot,
        payloads: Vec<Bytes>,
        (chosen, opening): (Slot, Slot),
        out: &mut Output,
    ) {
        assert!(first <= self.held.next(), "accept at {first} leaves a gap after {}", self.held);
        let end = Slot(first.0 + payloads.len() as u64);
        let joined = self.hard.accepted == self.hard.promised;
        let joins = !joined && end > opening;
        let mut slot = first;
        for payload in payloads {
            if slot > self.held && (joined || joins || slot <= chosen) {
                self.put(slot, payload, out);
                self.held = slot;
            }
            slot = slot.next();
        }
        if joins {
            self.hard.accepted = self.hard.promised;
            out.writes.push(Write::HardState(self.hard));
            self.cut_tail(self.held, out);
        }
    }

    fn put(&mut self, slot: Slot, payload: Bytes, out: &mut Output) {
        if let Some(old) = self.log.get(slot)
            && old.payload != payload
        {
            // What followed another value under an older ballot was not chosen either.
            self.cut_tail(slot.prev(), out);
        }
        let entry = Entry { ballot: self.hard.promised, payload };
        out.writes.push(Write::Entry { slot, entry: entry.clone() });
        if self.log.put(slot, entry) {
            self.rewrites += 1;
            self.durable = self.durable.min(slot.prev());
        }
    }

    fn cut_tail(&mut self, after: Slot, out: &mut Output) {
        if self.log.cut_tail(after) {
            out.writes.push(Write::CutTail { after });
            self.rewrites += 1;
            self.durable = self.durable.min(after);
        }
    }

    /// The disk has answered for the log as it was at `last`, `rewrites`.
    pub fn disk_answered(&mut self, rewrites: u64, last: Slot) {
        if rewrites == self.rewrites {
            self.durable = self.durable.max(last);
        }
    }
}
