//! The clock trait: what a provider promises.

use crate::Interval;
use serde::{Deserialize, Serialize};
use std::fmt;
use thiserror::Error;

/// How far a provider's bound can be relied on (T5).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Status {
    /// The bound is backed by a recent synchronisation, or by the host's single clock.
    Synchronized,
    /// No recent synchronisation; the bound grows by the applied drift rate (T3).
    Holdover,
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Status::Synchronized => "synchronized",
            Status::Holdover => "holdover",
        })
    }
}

/// An interval together with where it came from (T6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reading {
    /// Contains absolute time.
    pub interval: Interval,
    /// What backs the bound.
    pub status: Status,
    /// The provider's name, as `--clock` spells it.
    pub provider: &'static str,
}

/// There is no bound: not a large one, none (T5).
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("clock has no bound: {reason}")]
pub struct ClockError {
    /// What the provider saw.
    pub reason: String,
}

/// A source of bounded time. Leases, commit wait and timestamps of one node use one clock (T6).
pub trait Clock: Send + Sync {
    /// The interval that is now, or why there is none.
    ///
    /// # Errors
    /// [`ClockError`] when the provider has no bound; callers refuse leadership and timestamps.
    fn now(&self) -> Result<Reading, ClockError>;
}
