//! Errors by what the caller does about them (X11).

use crate::ids::{Ballot, NodeId};
use crate::universe::Descriptor;
use serde::{Deserialize, Serialize};
use thiserror::Error;
use truetime::Timestamp;

/// Why a request was not carried out.
#[derive(Clone, Debug, PartialEq, Eq, Error, Serialize, Deserialize)]
pub enum Error {
    /// Retry the whole transaction, with the same age. Nothing of this attempt happened.
    #[error("transaction aborted: {reason}")]
    Aborted {
        /// Wounded, lease changed, timed out …
        reason: String,
    },
    /// Ask the hinted node, or another one. Nothing happened.
    #[error("not the leader of the group (hint: {hint:?})")]
    NotLeader {
        /// Who may lead.
        hint: Option<NodeId>,
    },
    /// The request named no ballot or an old one and holds no locks: repeat it with this one.
    #[error("the group is led under {ballot}")]
    StaleBallot {
        /// The current ballot.
        ballot: Ballot,
    },
    /// The group is not here, or not where the client thinks: repeat it with this descriptor, or look
    /// for a newer one. Nothing happened (X12).
    #[error("the group is elsewhere{}", descriptor.as_ref().map_or(String::new(), |d| format!(": {} {:?}", d.group, d.nodes())))]
    StaleRoute {
        /// Where it is; `None`: unknown here.
        descriptor: Option<Box<Descriptor>>,
    },
    /// The node has no clock bound, so no timestamps (T5). Retry elsewhere or later.
    #[error("clock unavailable: {reason}")]
    ClockUnavailable {
        /// What the provider said.
        reason: String,
    },
    /// The commit may or may not have happened; `Resolve` tells.
    #[error("outcome unknown: {reason}")]
    OutcomeUnknown {
        /// What was lost.
        reason: String,
    },
    /// The timestamp lies below the retention horizon (R5).
    #[error("read timestamp {at} is older than the oldest version kept ({horizon})")]
    SnapshotTooOld {
        /// What was asked.
        at: Timestamp,
        /// What could be asked.
        horizon: Timestamp,
    },
    /// The timestamp has not come yet (R5).
    #[error("read timestamp {at} lies in the future (now is {now})")]
    TimestampInFuture {
        /// What was asked.
        at: Timestamp,
        /// `now().latest` where it was judged.
        now: Timestamp,
    },
    /// The state does not allow it; retrying does not help.
    #[error("{0}")]
    FailedPrecondition(String),
    /// The request makes no sense.
    #[error("{0}")]
    InvalidArgument(String),
    /// A queue or a limit is full; retry with back-off.
    #[error("resource exhausted: {0}")]
    ResourceExhausted(String),
    /// No answer in time.
    #[error("deadline exceeded: {0}")]
    DeadlineExceeded(String),
}

impl Error {
    /// Shorthand for [`Error::Aborted`].
    pub fn aborted(reason: impl Into<String>) -> Error {
        Error::Aborted { reason: reason.into() }
    }

    /// Whether running the whole transaction again may succeed.
    pub fn is_aborted(&self) -> bool {
        matches!(self, Error::Aborted { .. })
    }
}
