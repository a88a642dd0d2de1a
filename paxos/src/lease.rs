//! Leases by timed votes (Spanner §4.1.1, appendix A).
//!
//! ```text
//!   leader      sent=earliest                                lease end = sent + lease
//!      │────────────●──────────────────────────────────────────────●─────────────▶
//!      │             ╲ asks
//!   voter             ●──────────────────────────────────────────────────●───────▶
//!                  grants                        free again: after(latest + lease)
//! ```
//!
//! The leader reckons from an instant *before* it asked, the voter from one *after* it was asked,
//! each with its own clock's bound on the safe side: so when a quorum is free to promise another
//! ballot, the lease is over for every clock (L3).

use crate::configuration::Configuration;
use crate::message::Output;
use crate::replica::Replica;
use proto::{Ballot, NodeId};
use std::collections::BTreeMap;
use truetime::{Interval, Timestamp};

/// The leader's half.
#[derive(Clone, Debug)]
pub(crate) struct Lease {
    /// The quorum had answered by then: every timestamp of this leader lies after it (L2, L4).
    pub start: Timestamp,
    /// For each voter, the instant before the newest request it answered (L2).
    counted: BTreeMap<NodeId, Timestamp>,
    length_us: u64,
}

impl Lease {
    pub fn new(start: Timestamp, counted: BTreeMap<NodeId, Timestamp>, length_us: u64) -> Lease {
        Lease { start, counted, length_us }
    }

    /// A voter has answered a request sent after `sent`.
    pub fn count(&mut self, voter: NodeId, sent: Timestamp) {
        let counted = self.counted.entry(voter).or_default();
        *counted = sent.max(*counted);
    }

    /// The lease is valid while `before(end)` (L2): a quorum's answers go back to a request that
    /// was sent at most a lease before. `Timestamp::MIN`: there is none.
    pub fn end(&self, configuration: &Configuration) -> Timestamp {
        let counted = |voter| self.counted.get(&voter).copied().unwrap_or_default();
        match configuration.reached(counted) {
            Timestamp::MIN => Timestamp::MIN,
            instant => instant.plus_micros(self.length_us),
        }
    }

    /// After this the leader has been without a quorum, or without its own disk, for a whole lease
    /// beyond its lease: its heartbeats only keep the followers' votes from a better one (P8).
    pub fn forsaken_after(&self, me: NodeId, configuration: &Configuration) -> Timestamp {
        let own = self.counted.get(&me).copied().unwrap_or_default().plus_micros(self.length_us);
        self.end(configuration).min(own).plus_micros(self.length_us)
    }
}

/// The voter's half: until when its vote is bound.
///
/// Invariant (L1): `granted` never runs beyond `HardState::vote_until` on disk.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TimedVote {
    /// The end of the vote that was really granted; after a restart, the bound on disk.
    pub granted: Timestamp,
    /// Leaders up to this ballot have given their leases up (P10).
    pub released: Ballot,
}

impl TimedVote {
    /// The leader of `ballot` has given up its lease. `holder`: who has the vote.
    pub fn release(&mut self, ballot: Ballot, holder: Ballot) {
        self.released = self.released.max(ballot);
        if holder == ballot {
            self.granted = Timestamp::MIN;
        }
    }
}

impl Replica {
    /// The clock had been found wrong, by however much, and is right again at `now` (T5): whatever
    /// was reckoned by it counts no more. A lease that seems to run may have been over for as long
    /// as the clock was wrong: it is given up. A vote that seems to have run out may be bound: it
    /// is granted once more, for a whole lease from now, and whoever has it is done by then (L1).
    pub fn clock_mended(&mut self, now: Interval, out: &mut Output) {
        self.follow(now, None, out);
        if self.acceptor.hard.promised > Ballot::default() {
            self.acceptor.grant(now, out);
            self.reset_election_timer(now);
        }
    }
}
