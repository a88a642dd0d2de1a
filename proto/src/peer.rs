//! What groups tell one another in two-phase commit. Any of these may be lost, repeated, late.

use crate::ids::{GroupId, TxnId};
use crate::request::Outcome;
use serde::{Deserialize, Serialize};
use truetime::Timestamp;

/// From one group's leader to another's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerMessage {
    /// Who speaks.
    pub from: GroupId,
    /// To whom.
    pub to: GroupId,
    /// About which transaction.
    pub txn: TxnId,
    /// What.
    pub body: PeerBody,
}

/// The kinds of peer messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum PeerBody {
    /// Participant to coordinator: prepared at this timestamp, logged. Repeated until the
    /// outcome comes; it is also the question "what became of it?" (X10).
    Prepared(Timestamp),
    /// Participant to coordinator: only read here, so nothing was logged; the read locks hold for
    /// every commit timestamp from `at` up to `until` (X6).
    Validated {
        /// Above every timestamp that was given out here.
        at: Timestamp,
        /// Until then nobody else writes what was read, whoever leads: it lies within the lease.
        until: Timestamp,
    },
    /// Participant to coordinator: will not prepare.
    Refused,
    /// Coordinator to participant: decided. Repeated until acknowledged (X10).
    Decided(Outcome),
    /// Participant to coordinator: an older transaction waits for locks of this one, which is
    /// prepared here and so not wounded: abort it, unless it is decided (X2).
    Wound,
    /// Participant to coordinator: the outcome is applied here, or was never needed.
    Acknowledged,
}
