//! What replicas say, and what a step puts out. `docs/messages.md` has the table.

use crate::acceptor::HardState;
use crate::ballot::Position;
use crate::configuration::Configuration;
use bytes::Bytes;
use proto::{Ballot, NodeId, Seat, Slot};
use serde::{Deserialize, Serialize};
use truetime::Timestamp;

/// What stands in a slot.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Payload {
    /// Nothing; opens a ballot (P3).
    Noop,
    /// A command of the group, opaque to Paxos.
    Command(Bytes),
    /// The group's members from here on (P9).
    Configuration(Configuration),
}

impl Payload {
    /// About how many bytes it takes in a message; none for a no-op.
    #[allow(clippy::len_without_is_empty)] // a size, not a collection
    pub fn len(&self) -> usize {
        match self {
            Payload::Noop => 0,
            Payload::Command(bytes) => bytes.len(),
            Payload::Configuration(c) => 24 * (c.members.len() + c.voters.len() + c.outgoing.len()),
        }
    }
}

/// A value in the log.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Entry {
    /// The ballot under which it was first proposed; whoever proposes it again keeps it.
    pub ballot: Ballot,
    /// The value.
    pub payload: Payload,
}

/// What a log that has forgotten its beginning knows of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Base {
    /// The last entry forgotten.
    pub position: Position,
    /// Where the configuration in force at `position` was appended.
    pub configured_at: Position,
    /// That configuration.
    pub configuration: Configuration,
}

/// A leader's word to a node that it is to become a member (P9). Each one that is new is answered
/// with a seat of its own, unless the replica is blank and was never invited: so what a replica was
/// before never speaks for what it becomes.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct Invitation {
    /// The leader's ballot.
    pub ballot: Ballot,
    /// Where its configuration stands: chosen, and without a place for the receiver.
    pub at: Position,
}

/// Names a snapshot on its way: which leader's, and which of them.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct SnapshotId {
    /// The leader's ballot.
    pub ballot: Ballot,
    /// Counts the leader's snapshots.
    pub number: u64,
}

/// A part of a snapshot (P7).
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Chunk {
    /// Of which snapshot.
    pub id: SnapshotId,
    /// Which part; the first is 0.
    pub index: u64,
    /// What the snapshot holds: everything applied up to `base.position`, and the configuration.
    pub base: Base,
    /// The content, opaque to Paxos.
    pub data: Bytes,
    /// CRC-32 of `data`.
    pub checksum: u32,
    /// No part follows.
    pub last: bool,
}

/// Between replicas of one group. Any may be lost, repeated, late or out of order.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Message {
    /// To voters, before a campaign: would you promise this ballot? Changes nothing, so a replica
    /// that cannot win disturbs nobody (P8).
    Canvass {
        /// The ballot the sender would campaign with.
        ballot: Ballot,
        /// Its last entry.
        last: Position,
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
        /// Its last entry: only the log-complete is promised anything (P8).
        last: Position,
        /// `now().earliest` at the candidate before it asked (L2).
        sent: Timestamp,
        /// The ballot whose leader has handed its lease to this candidate (P10).
        released: Option<Ballot>,
    },
    /// Voter to candidate, after its disk: promised and granted.
    Promise {
        /// The promised ballot.
        ballot: Ballot,
        /// Echo of `Prepare::sent`.
        sent: Timestamp,
    },
    /// Voter to sender: not under this ballot.
    Reject {
        /// The ballot that was refused.
        ballot: Ballot,
        /// What the voter has promised; equal or lower when a lease vote or the log is the reason.
        promised: Ballot,
    },
    /// Leader to members: accept these; also the heartbeat, when empty.
    Accept {
        /// The leader's ballot.
        ballot: Ballot,
        /// The entry before the first of `entries` in the leader's log.
        prev: Position,
        /// The entries, in slot order.
        entries: Vec<Entry>,
        /// What the leader knows chosen.
        chosen: Slot,
        /// Slots up to this one may leave the log once they are applied.
        truncate: Slot,
        /// Nothing will follow for a while: whoever has all of it may sleep.
        sleep: bool,
        /// `now().earliest` at the leader before it asked (L2).
        sent: Timestamp,
    },
    /// Member to leader, after its disk: its log equals the leader's up to `upto`, and the timed
    /// vote is renewed.
    Accepted {
        /// The leader's ballot.
        ballot: Ballot,
        /// See above.
        upto: Slot,
        /// What the member has applied.
        applied: Slot,
        /// The member sleeps from now on, until the leader or its own server wakes it.
        asleep: bool,
        /// Echo of `Accept::sent`.
        sent: Timestamp,
    },
    /// Member to leader: `Accept::prev` is not in this log. The timed vote is renewed all the same.
    Gap {
        /// The leader's ballot.
        ballot: Ballot,
        /// Echo of the slot of `Accept::prev`.
        prev: Slot,
        /// The logs may agree here, and agree nowhere behind it (P6).
        hint: Position,
        /// Echo of `Accept::sent`.
        sent: Timestamp,
    },
    /// A replica to itself, after its disk: the log is durable up to `last`, unless it was cut
    /// since (`cuts` tells).
    Durable {
        /// How often the log had been cut when this was said.
        cuts: u64,
        /// Last slot of the log then.
        last: Slot,
    },
    /// Leader to member: a part of a snapshot, for what follows is all the leader's log has (P6).
    Chunk {
        /// The leader's ballot.
        ballot: Ballot,
        /// The part.
        chunk: Chunk,
    },
    /// Member to leader, after its disk: go on with this part. When the last part is in its place,
    /// an `Accepted` follows.
    ChunkTaken {
        /// The leader's ballot.
        ballot: Ballot,
        /// Of which snapshot.
        id: SnapshotId,
        /// The next part wanted; 0 when nothing is known of the snapshot.
        next: u64,
    },
    /// Leader to everyone: I have given up my lease; my votes are free (P10, L5).
    Release {
        /// The leader's ballot.
        ballot: Ballot,
    },
    /// Leader to its successor: campaign now, my lease is yours (P10).
    TimeoutNow {
        /// The leader's ballot.
        ballot: Ballot,
    },
    /// Leader to a node that is to become a member: which seat is yours? A replica that was
    /// removed takes a new one (P9).
    Greet {
        /// By whom, and when.
        invitation: Invitation,
    },
    /// Answer to `Greet`, after its disk; the seat is the sender's.
    Greeted {
        /// Echo of `Greet`.
        invitation: Invitation,
    },
    /// To a replica that does not belong to the group any more (P9).
    Removed {
        /// Which life of the replica.
        seat: Seat,
        /// Where the configuration without it stands; chosen.
        at: Position,
    },
}

impl Message {
    /// Whether a replica can take it at its word: what no correct peer says, however late, is
    /// turned away at the gate, so that beyond it the same conditions can be asserted.
    pub fn is_sane(&self) -> bool {
        match self {
            Message::Accept { ballot, prev, entries, chosen, truncate, .. } => {
                let ballots = entries.iter().map(|entry| entry.ballot);
                let rise = ballots.clone().is_sorted() && ballots.clone().all(|b| b >= prev.ballot);
                let configurations = entries.iter().all(|entry| match &entry.payload {
                    Payload::Configuration(configuration) => configuration.is_sound(),
                    Payload::Noop | Payload::Command(_) => true,
                });
                rise && ballots.max().is_none_or(|last| last <= *ballot)
                    && configurations
                    && [prev.slot, *chosen, *truncate].iter().all(|slot| *slot <= SLOT_MAX)
            }
            Message::Accepted { upto, applied, .. } => *upto <= SLOT_MAX && *applied <= SLOT_MAX,
            Message::Gap { prev, hint, .. } => *prev <= SLOT_MAX && hint.slot <= SLOT_MAX,
            Message::Chunk { ballot, chunk } => {
                let Base { position, configured_at, configuration } = &chunk.base;
                let ordered = configured_at.slot <= position.slot && position.ballot <= *ballot;
                // A leader that has not applied its own joining yet knows of nobody there.
                let sound = configuration.members.is_empty() || configuration.is_sound();
                ordered && position.slot <= SLOT_MAX && sound
            }
            _ => true,
        }
    }
}

/// No log gets that long.
const SLOT_MAX: Slot = Slot(u64::MAX / 2);

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
    /// Removes the entries up to `position`, included: they are applied here.
    Truncate(Base),
    /// Removes the entries after a slot: they were never chosen.
    CutTail {
        /// The last slot that stays.
        after: Slot,
    },
    /// The first part of a snapshot: forget what was staged before, keep this beside the tablet.
    StageFirst(Bytes),
    /// A further part.
    StageMore(Bytes),
    /// What is staged replaces the tablet and all that was applied; entries up to its position
    /// leave the log, and with `keep_log` false all others too (P6: either state, whole).
    Install {
        /// What the snapshot holds.
        base: Base,
        /// Whether the entries behind its position stay.
        keep_log: bool,
    },
    /// The replica does not belong to the group any more, and never will under this seat (P9).
    Bury(Seat),
    /// The replica is to become a member under its seat (P9).
    Invited(Seat, Invitation),
    /// Everything of this replica is forgotten; it begins anew with this seat (P9).
    Rebirth(Seat, Invitation),
}

/// A part of a snapshot to be read from the tablet; the answer is
/// [`Replica::chunk_read`](crate::Replica::chunk_read).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChunkWanted {
    /// Which snapshot. One that is new here begins with what is applied now.
    pub id: SnapshotId,
    /// Which part.
    pub index: u64,
    /// The receiver keeps no tablet: no content is needed.
    pub empty: bool,
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
    /// Parts of snapshots to read.
    pub read: Vec<ChunkWanted>,
    /// Snapshots nobody needs any more.
    pub forget: Vec<SnapshotId>,
}
