//! What a group replicates. A tablet changes by applying these in slot order and in no other way.

use crate::ids::{GroupId, TxnId};
use crate::keys::{Span, Write};
use crate::request::{Age, Outcome};
use serde::{Deserialize, Serialize};
use truetime::Timestamp;

/// One entry of a group's log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Command {
    /// Nothing: fills holes and opens a ballot (P3).
    Noop,
    /// The commit record of a one-group transaction or of a coordinator (X9): the single commit
    /// point. Carries the writes of this group.
    Commit(CommitRecord),
    /// A coordinator's decision to abort, also the fence against an unknown transaction (X9).
    Abort {
        /// The attempt.
        txn: TxnId,
        /// Above every timestamp the group assigned before.
        at: Timestamp,
        /// Who must hear of it; empty when nobody is known.
        participants: Vec<GroupId>,
    },
    /// A participant is ready to go either way (X6).
    Prepare(PrepareRecord),
    /// What the coordinator decided, at a participant.
    Decide {
        /// The attempt.
        txn: TxnId,
        /// The decision.
        outcome: Outcome,
    },
    /// Outcomes that nobody can ask for any more.
    Forget {
        /// The attempts.
        txns: Vec<TxnId>,
    },
}

impl Command {
    /// The timestamp this group assigned to the entry; all later assignments are larger (L4).
    /// For `Decide` it is the coordinator's, which the group's own `s_max` is raised to.
    pub fn timestamp(&self) -> Option<Timestamp> {
        match self {
            Command::Noop | Command::Forget { .. } => None,
            Command::Commit(record) => Some(record.timestamp),
            Command::Abort { at, .. } => Some(*at),
            Command::Prepare(record) => Some(record.timestamp),
            Command::Decide { outcome: Outcome::Committed(at), .. } => Some(*at),
            Command::Decide { outcome: Outcome::Aborted, .. } => None,
        }
    }
}

/// See [`Command::Commit`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommitRecord {
    /// The attempt.
    pub txn: TxnId,
    /// The commit timestamp s.
    pub timestamp: Timestamp,
    /// What this group writes at s.
    pub writes: Vec<Write>,
    /// The other groups, each with its prepare timestamp.
    pub participants: Vec<(GroupId, Timestamp)>,
}

/// See [`Command::Prepare`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PrepareRecord {
    /// The attempt.
    pub txn: TxnId,
    /// Its age.
    pub age: Age,
    /// The prepare timestamp.
    pub timestamp: Timestamp,
    /// Who decides.
    pub coordinator: GroupId,
    /// What this group will write.
    pub writes: Vec<Write>,
    /// What was read under shared locks: a new leader locks it again before it serves (X10), for
    /// a write below the commit timestamp must not slip under a read.
    pub reads: Vec<Span>,
}
