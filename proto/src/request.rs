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
    /// Read versions at a timestamp, without locks (R1).
    Snapshot {
        /// The timestamp.
        at: Timestamp,
        /// What to read.
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

/// The kinds of answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ReplyBody {
    /// To a read of keys: one place for each key; `None`: no row.
    Values(Vec<Option<Versioned>>),
    /// To a read of a range.
    Page(Page),
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

/// What proves a commit (X13).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Receipt {
    /// The commit timestamp.
    pub timestamp: Timestamp,
    /// The prepare timestamp of each participant (not of the coordinator, which logs none).
    pub prepared: Vec<(GroupId, Timestamp)>,
    /// The coordinator's clock when the commit request arrived; `None` when the answer comes from
    /// the outcome table (a retried commit).
    pub arrived: Option<Interval>,
    /// The interval that ended the commit wait; `None` as above.
    pub waited: Option<Interval>,
    /// The coordinating group.
    pub group: GroupId,
    /// The ballot under which it was led when it answered.
    pub ballot: Ballot,
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
}
