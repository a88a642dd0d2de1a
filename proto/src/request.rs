//! What a client asks a group, and what it hears.

use crate::ids::{Ballot, GroupId, NodeId, Slot, TxnId};
use crate::keys::{Key, KeyRange, Page, Write};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use truetime::{Interval, Timestamp};

/// A request to the leader of one group (X12).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    /// Which group is meant; a server that does not host it refuses.
    pub group: GroupId,
    /// Of the descriptor that the client goes by; 0: it has none, or that of the founding. A replica
    /// that knows a newer one refuses (X12).
    pub generation: u64,
    /// The ballot under which the client last saw the group led. `None`: never seen. Writes
    /// must name the current one, so that a delayed duplicate cannot run under a later leader.
    pub ballot: Option<Ballot>,
    /// When the client stops waiting. A server refuses a request after this instant (X12).
    pub deadline: Timestamp,
    /// What is asked.
    pub body: Body,
}

/// The age of a transaction: smaller is older (X2). Kept across retries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Age {
    /// `now().latest` at the client when the first attempt started.
    pub start: Timestamp,
    /// Breaks ties: the first attempt's id.
    pub first: TxnId,
}

/// How strongly a locking read holds what it read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum LockMode {
    /// Others may read, nobody may write.
    Shared,
    /// Nobody else may lock: the reader means to write.
    Exclusive,
}

/// What to read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ReadSet {
    /// These keys; the answer has one place for each, in this order.
    Keys(Vec<Key>),
    /// A range, one page of it.
    Range {
        /// The range.
        range: KeyRange,
        /// No more rows than this in the page.
        max_rows: u32,
    },
}

/// At which timestamp a read without locks is wanted (R4).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ReadAt {
    /// At exactly this one, waiting for it to be safe.
    Exactly(Timestamp),
    /// At the newest one at which the asked replica need not wait, if that is this or later;
    /// otherwise at this one, waiting.
    Newest {
        /// No older than this.
        at_least: Timestamp,
    },
}

/// The kinds of requests.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Body {
    /// Read the latest committed versions under locks (X1).
    Read {
        /// The attempt.
        txn: TxnId,
        /// Its age.
        age: Age,
        /// Whether this attempt already holds locks here, under `Request::ballot` (X3).
        holds_locks: bool,
        /// How to lock.
        mode: LockMode,
        /// What to read.
        what: ReadSet,
    },
    /// Read versions at a timestamp, without locks (R1). Any replica with a tablet answers, leader
    /// or not.
    Snapshot {
        /// The timestamp.
        at: ReadAt,
        /// What to read.
        what: ReadSet,
    },
    /// Up to which timestamp can the asked replica serve such a read without waiting (R1)?
    SafeTime {
        /// What would be read.
        what: ReadSet,
    },
    /// Ask a participant to prepare (X6).
    Prepare {
        /// The attempt.
        txn: TxnId,
        /// Its age.
        age: Age,
        /// Whether this attempt already holds locks here.
        holds_locks: bool,
        /// Who decides.
        coordinator: GroupId,
        /// The buffered writes of this group; empty for a group that was only read.
        writes: Vec<Write>,
    },
    /// Ask the coordinator, or the only group, to commit (X5, X6).
    Commit {
        /// The attempt.
        txn: TxnId,
        /// Its age.
        age: Age,
        /// Whether this attempt already holds locks here.
        holds_locks: bool,
        /// The buffered writes of this group.
        writes: Vec<Write>,
        /// The other groups of the transaction; empty: one-group commit.
        participants: Vec<GroupId>,
        /// The commit timestamp must lie below this, or the transaction aborts: from then on what it
        /// was made by may be out of date (S1). `None`: it may be any.
        before: Option<Timestamp>,
    },
    /// Give up locks that are not prepared.
    Rollback {
        /// The attempt.
        txn: TxnId,
    },
    /// The client is alive (X4).
    KeepAlive {
        /// The attempt.
        txn: TxnId,
    },
    /// What became of a transaction this group coordinates? Unknown ones are fenced (X9).
    Resolve {
        /// The attempt.
        txn: TxnId,
    },
    /// How is the group? Answered by leaders and followers.
    Status,
    /// Change who belongs to the group (P9); answered when the change has begun, `Status` tells
    /// when it has ended.
    Members(Members),
    /// Hand the leadership to a voter (P10); answered when that has begun.
    Transfer {
        /// The voter.
        to: NodeId,
    },
}

/// Who belongs to a group.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Members {
    /// Those whose answers count.
    pub voters: BTreeSet<NodeId>,
    /// Which of the voters keep no tablet.
    pub witnesses: BTreeSet<NodeId>,
    /// Those who only follow.
    pub learners: BTreeSet<NodeId>,
}

/// A good answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reply {
    /// The ballot under which the group is led.
    pub ballot: Ballot,
    /// The answer.
    pub body: ReplyBody,
}

/// A value with the timestamp that wrote it.
pub type Versioned = (Timestamp, Bytes);

/// What a read found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Found {
    /// For keys: one place for each; `None`: no row.
    Values(Vec<Option<Versioned>>),
    /// For a range.
    Page(Page),
}

/// The kinds of answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ReplyBody {
    /// To a read under locks.
    Read {
        /// What is there.
        found: Found,
        /// Of what is chosen and has not passed yet, the newest that made a difference, be it that a
        /// row is not there any more; a client that tells somebody of it waits for that (X8).
        ahead: Timestamp,
    },
    /// To a read at a timestamp.
    Snapshot {
        /// The timestamp, as it was asked for or chosen.
        at: Timestamp,
        /// What is there.
        found: Found,
    },
    /// To `SafeTime`: every read of that kind at or below is served without waiting.
    SafeTime(Timestamp),
    /// To `Prepare`: logged; to `Rollback`, `KeepAlive`: done; to `Members`, `Transfer`: begun.
    Done,
    /// To `Commit`.
    Committed(Receipt),
    /// To `Resolve`.
    Outcome(Outcome),
    /// To `Status`.
    Status(GroupStatus),
}

/// What became of a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    /// It committed at this timestamp.
    Committed(Timestamp),
    /// It aborted, for good.
    Aborted,
}

/// What a client hears of its commit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Receipt {
    /// The commit timestamp.
    pub timestamp: Timestamp,
    /// The group that decided.
    pub group: GroupId,
    /// What proves it (X13). `None` when the answer comes from the outcome table: a commit that was
    /// asked for again, or under another leader; and where nothing was committed at a server.
    pub certificate: Option<Box<Certificate>>,
}

impl Receipt {
    /// A receipt without a certificate.
    pub fn plain(timestamp: Timestamp, group: GroupId) -> Receipt {
        Receipt { timestamp, group, certificate: None }
    }
}

/// What proves a commit (X13): made by the leader of the group that decided, as its answer leaves.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Certificate {
    /// The attempt.
    pub txn: TxnId,
    /// The commit timestamp s.
    pub timestamp: Timestamp,
    /// The prepare timestamp of each participant (not of the coordinator, which logs none).
    pub prepared: Vec<(GroupId, Timestamp)>,
    /// The coordinator's clock when the commit request arrived.
    pub arrived: Interval,
    /// The interval that ended the commit wait.
    pub waited: Interval,
    /// Which clock said so.
    pub provenance: Provenance,
    /// The coordinating group.
    pub group: GroupId,
    /// The ballot under which it was led when it answered.
    pub ballot: Ballot,
    /// Where the time went.
    pub timing: Timing,
    /// Made with the universe's key over all of the above; empty where servers have no key.
    pub seal: Bytes,
}

/// Whose intervals these are (T6).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Provenance {
    /// The server.
    pub node: NodeId,
    /// The clock's provider, as the command line spells it.
    pub provider: String,
    /// What the clock said of itself.
    pub status: String,
}

/// Where the time of a commit went, by the coordinator's clock, in microseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Timing {
    /// From the request's arrival until the locks were held.
    pub locks_us: u64,
    /// From then until every participant had prepared and the timestamp was chosen.
    pub prepare_us: u64,
    /// From then until the commit record was chosen.
    pub replicate_us: u64,
    /// From the choice of the timestamp until it had certainly passed.
    pub wait_us: u64,
    /// How much of the wait lay within the replication (X8).
    pub overlap_us: u64,
    /// Half the width of the interval that ended the wait.
    pub epsilon_us: u64,
}

/// A group at one replica, at a glance.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupStatus {
    /// The group.
    pub group: GroupId,
    /// The replica that answers.
    pub node: NodeId,
    /// Who leads, as far as this replica knows.
    pub leader: Option<NodeId>,
    /// The highest ballot promised.
    pub ballot: Ballot,
    /// End of the lease, at the leader.
    pub lease_end: Option<Timestamp>,
    /// Last slot in the log.
    pub last: Slot,
    /// Last slot known chosen.
    pub chosen: Slot,
    /// Last slot applied.
    pub applied: Slot,
    /// First slot still in the log.
    pub first: Slot,
    /// Timestamp of the highest applied write.
    pub safe_time: Timestamp,
    /// Prepared transactions that wait for their outcome.
    pub prepared: u64,
    /// Transactions that hold locks.
    pub lock_holders: u64,
    /// Who belongs to the group, as far as this replica knows.
    pub members: Members,
    /// Between two sets of voters.
    pub joint: bool,
    /// A change of the members is under way at this replica, which leads.
    pub changing: bool,
    /// What this replica's disk has lost of the log is being sent again.
    pub repairing: bool,
    /// Of the descriptor, as of what is applied here.
    pub generation: u64,
    /// Nothing happens in the group, so it has no timers and sends nothing of its own.
    pub asleep: bool,
    /// This replica does not belong to the group any more (P9).
    pub removed: bool,
}
