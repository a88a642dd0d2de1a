//! What replicas say, and what a step puts out.

use crate::acceptor::HardState;
use bytes::Bytes;
use proto::{Ballot, NodeId, Slot};
use serde::{Deserialize, Serialize};
use truetime::Timestamp;

/// A value in the log. An empty payload is a no-op.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// The ballot under which it was accepted last.
    pub ballot: Ballot,
    /// The value, opaque to Paxos.
    pub payload: Bytes,
}

/// Between replicas of one group. Any may be lost, repeated, late or out of order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Message {
    /// To voters, before a campaign: would you promise this ballot? Changes nothing, so a replica
    /// that cannot win disturbs nobody (P8).
    Canvass {
        /// The ballot the sender would campaign with.
        ballot: Ballot,
    },
    /// Answer to `Canvass`.
    Canvassed {
        /// Echo of `Canvass::ballot`.
        ballot: Ballot,
        /// Whether it would be promised now.
        free: bool,
        /// What the voter has promised.
        promised: Ballot,
    },
    /// Candidate to voters: promise me this ballot and grant me your timed vote.
    Prepare {
        /// The candidate's ballot.
        ballot: Ballot,
        /// What the candidate knows chosen; it wants to hear of everything after.
        chosen: Slot,
        /// `now().earliest` at the candidate before it asked (L2).
        sent: Timestamp,
    },
    /// Voter to candidate, after its disk: promised and granted.
    Promise {
        /// The promised ballot.
        ballot: Ballot,
        /// Echo of `Prepare::sent`.
        sent: Timestamp,
        /// The ballot under which the voter accepted last: its log is a prefix of that leader's.
        accepted: Ballot,
        /// The slot of `entries[0]`.
        first: Slot,
        /// The voter's log from `first` on.
        entries: Vec<Entry>,
    },
    /// Voter to sender: not under this ballot.
    Reject {
        /// The ballot that was refused.
        ballot: Ballot,
        /// What the voter has promised; equal or lower when a lease vote is the reason.
        promised: Ballot,
    },
    /// Leader to voters: accept these; also the heartbeat, when empty.
    Accept {
        /// The leader's ballot.
        ballot: Ballot,
        /// The slot of `payloads[0]`; with none, the slot that would follow.
        first: Slot,
        /// The values, in slot order.
        payloads: Vec<Bytes>,
        /// What the leader knows chosen.
        chosen: Slot,
        /// The no-op that opens the ballot: a voter takes what was recovered up to it whole, or
        /// not at all (P3).
        opening: Slot,
        /// Slots up to this one are applied everywhere and may leave the log.
        truncate: Slot,
        /// `now().earliest` at the leader before it asked (L2).
        sent: Timestamp,
    },
    /// Voter to leader, after its disk: everything up to `upto` is accepted under the ballot or
    /// chosen, and the timed vote is renewed.
    Accepted {
        /// The leader's ballot.
        ballot: Ballot,
        /// See above.
        upto: Slot,
        /// What the voter has applied.
        applied: Slot,
        /// Echo of `Accept::sent`.
        sent: Timestamp,
    },
    /// Voter to leader: something before `Accept::first` is missing here.
    Gap {
        /// The leader's ballot.
        ballot: Ballot,
        /// Go on from this slot.
        expect: Slot,
    },
    /// A replica to itself, after its disk: the log is durable up to `last`, unless entries were
    /// overwritten since (`rewrites` tells).
    Durable {
        /// How often accepted entries had been overwritten when this was said.
        rewrites: u64,
        /// Last slot of the log then.
        last: Slot,
    },
}

/// What goes to the disk, in this order, as one atomic batch with everything else of the step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Write {
    /// Replaces the hard state.
    HardState(HardState),
    /// Writes, or overwrites, an entry.
    Entry {
        /// Where.
        slot: Slot,
        /// What.
        entry: Entry,
    },
    /// Removes the entries up to a slot, included: they are applied everywhere.
    Truncate {
        /// The last slot removed.
        upto: Slot,
    },
    /// Removes the entries after a slot: they were never chosen.
    CutTail {
        /// The last slot that stays.
        after: Slot,
    },
}

/// What a step asks of the world.
#[derive(Debug, Default)]
pub struct Output {
    /// To the disk.
    pub writes: Vec<Write>,
    /// To send now.
    pub send: Vec<(NodeId, Message)>,
    /// To send once `writes`, and all writes before them, are on disk (P1). A message to the
    /// replica itself is delivered like any other.
    pub send_after: Vec<(NodeId, Message)>,
}
