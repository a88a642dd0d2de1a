//! What a provider of bounded time promises.

use crate::Interval;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::time::Duration;
use thiserror::Error;

/// How far a provider's bound can be relied on (T5).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Status {
    /// The bound is backed by a recent synchronisation, or by the host's single clock.
    Synchronized,
    /// No recent synchronisation; the bound holds, and grows by the applied drift rate (T3).
    Holdover,
    /// There is no bound: nothing to synchronise with has been heard yet, or for too long.
    Unsynchronized,
    /// There is no bound: the clock has been seen to break what it promised (T5).
    Broken,
}

impl Status {
    /// All of them.
    pub const ALL: [Status; 4] =
        [Status::Synchronized, Status::Holdover, Status::Unsynchronized, Status::Broken];

    /// Whether there is a bound.
    pub fn has_bound(self) -> bool {
        matches!(self, Status::Synchronized | Status::Holdover)
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Status::Synchronized => "synchronized",
            Status::Holdover => "holdover",
            Status::Unsynchronized => "unsynchronized",
            Status::Broken => "broken",
        })
    }
}

/// An interval together with where it came from (T6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reading {
    /// Contains absolute time.
    pub interval: Interval,
    /// What backs the bound: [`Status::Synchronized`] or [`Status::Holdover`].
    pub status: Status,
    /// The provider's name, as `--clock` spells it.
    pub provider: &'static str,
}

/// There is no bound: not a large one, none (T5).
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{provider} clock is {status}: {reason}")]
pub struct ClockError {
    /// [`Status::Unsynchronized`] or [`Status::Broken`].
    pub status: Status,
    /// What the provider saw.
    pub reason: String,
    /// The provider's name, as `--clock` spells it.
    pub provider: &'static str,
}

/// A source of bounded time, read by [`TrueTime`](crate::TrueTime).
pub trait Clock: Send + Sync {
    /// The interval that is now, or why there is none. It takes no lock and less than a
    /// microsecond: every request reads it.
    ///
    /// # Errors
    /// [`ClockError`] when the provider has no bound; callers refuse leadership and timestamps.
    fn read(&self) -> Result<Reading, ClockError>;

    /// Lets about this much time pass. A clock of a simulated world does not wait for the host's.
    fn rest(&self, duration: Duration) {
        crate::providers::rest(duration);
    }

    /// What is known about where the time comes from, for people.
    fn sources(&self) -> Sources {
        Sources::default()
    }
}

/// Where a clock's time comes from.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Sources {
    /// The rate of the local oscillator that the bound allows for, in microseconds per second;
    /// `None`: the provider does not measure by one.
    pub drift_applied_ppm: Option<f64>,
    /// Between which rates the oscillator certainly runs, against the masters, in microseconds per
    /// second; `None`: not measured yet.
    pub drift_measured_ppm: Option<(f64, f64)>,
    /// Since the last synchronisation; `None`: there was none, or there is nothing to do it with.
    pub synchronized_ago: Option<Duration>,
    /// The masters that are polled.
    pub masters: Vec<MasterSeen>,
}

/// What one time master's last answer looked like.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MasterSeen {
    /// Its address or name.
    pub name: String,
    /// What it says it stands on (`gps`, `atomic`); `None`: it never answered.
    pub kind: Option<String>,
    /// The middle of what it says less the middle of the local clock, at the time it answered, in
    /// nanoseconds.
    pub offset_ns: Option<i64>,
    /// Round-trip time, in nanoseconds.
    pub delay_ns: Option<u64>,
    /// Half the width that it says its time has, in nanoseconds.
    pub uncertainty_ns: Option<u64>,
    /// Since its last answer.
    pub answered_ago: Option<Duration>,
    /// Whether the last round counted on it, and why (not).
    pub verdict: Verdict,
}

/// What a round of polls made of one master (T4).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Verdict {
    /// It is among the majority that agree.
    Accepted,
    /// It excludes what a majority agree on: it lies.
    Rejected,
    /// It answered, but no majority agree: nobody is believed.
    NoMajority,
    /// It says itself that it has no time to give.
    Unsynchronized,
    /// It did not answer within the round.
    Silent,
    /// It was not polled yet.
    Unknown,
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Verdict::Accepted => "accepted",
            Verdict::Rejected => "rejected: outside of what a majority agree on",
            Verdict::NoMajority => "not believed: no majority agree",
            Verdict::Unsynchronized => "not counted: it says it has no time",
            Verdict::Silent => "silent",
            Verdict::Unknown => "not polled yet",
        })
    }
}
