//! How long things may take: what a caller says of one transaction, and what follows for each of
//! its requests.

use proto::Error;
use std::time::Duration;
use truetime::{Interval, Timestamp};

/// What a caller may say of one transaction, read-only ones included. The default says nothing:
/// then [`ClientConfig`](super::ClientConfig) decides.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TransactionOptions {
    /// How long the whole transaction may take, attempts after `Aborted` and the pauses between
    /// them included. When it is over, reads, commits that have not been sent and further attempts
    /// fail with `DeadlineExceeded` and the locks are released; a commit that is under way ends
    /// with `OutcomeUnknown`, and its coordinator is asked to settle it. `None`: no limit.
    pub timeout: Option<Duration>,
    /// How long one read, or one step of a commit, is tried. `None`: as the client is configured.
    pub operation_timeout: Option<Duration>,
    /// How often [`Client::run_with`](super::Client::run_with) starts over after `Aborted`. `None`:
    /// as the client is configured.
    pub retries_max: Option<u32>,
}

/// When to stop asking.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// How long one operation is tried.
    pub operation: Duration,
    /// When the transaction must have ended. `None`: whenever it likes.
    pub deadline: Option<Timestamp>,
}

impl Limits {
    /// The limits of a transaction that begins now.
    pub fn of(options: &TransactionOptions, operation_ms: u64, now: Interval) -> Limits {
        let operation = options.operation_timeout.unwrap_or(Duration::from_millis(operation_ms));
        let deadline = options.timeout.map(|timeout| now.latest().plus_micros(micros(timeout)));
        Limits { operation, deadline }
    }

    /// The same deadline for an operation that may take no longer than this.
    pub fn at_most(self, operation: Duration) -> Limits {
        Limits { operation: self.operation.min(operation), ..self }
    }

    /// When an operation that begins now is given up.
    ///
    /// # Errors
    /// `DeadlineExceeded`: it need not begin.
    pub fn give_up_at(&self, now: Interval) -> Result<Timestamp, Error> {
        let operation = now.latest().plus_micros(micros(self.operation));
        match self.deadline {
            Some(deadline) if now.latest() >= deadline => Err(too_late(deadline)),
            Some(deadline) => Ok(operation.min(deadline)),
            None => Ok(operation),
        }
    }

    /// Whether the deadline has passed, as far as this clock can tell.
    pub fn is_over(&self, now: Interval) -> bool {
        self.deadline.is_some_and(|deadline| now.latest() >= deadline)
    }
}

/// The transaction's own deadline has passed.
pub(crate) fn too_late(deadline: Timestamp) -> Error {
    Error::DeadlineExceeded(format!("the transaction had to end by {deadline}"))
}

/// A duration in microseconds; one that does not fit is for ever.
pub(crate) fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}
