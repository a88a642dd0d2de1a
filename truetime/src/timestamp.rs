//! A point in time, in microseconds (T2).

use serde::{Deserialize, Serialize};
use std::fmt;
use std::time::Duration;

/// Microseconds since the Unix epoch.
///
/// Invariants: none beyond the range of `u64`; arithmetic that would leave it saturates at
/// [`Timestamp::MAX`] or [`Timestamp::MIN`], which no clock ever reaches.
/// Prints short (`s1700000000000000`).
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Timestamp(u64);

impl Timestamp {
    /// Before everything: no version is this old.
    pub const MIN: Timestamp = Timestamp(0);
    /// After everything: a read at `MAX` sees the newest version.
    pub const MAX: Timestamp = Timestamp(u64::MAX);

    /// From microseconds since the Unix epoch.
    pub const fn from_micros(micros: u64) -> Self {
        Timestamp(micros)
    }

    /// Microseconds since the Unix epoch.
    pub const fn micros(self) -> u64 {
        self.0
    }

    /// The next representable timestamp (one microsecond later).
    #[must_use]
    pub const fn next(self) -> Self {
        Timestamp(self.0.saturating_add(1))
    }

    /// The previous representable timestamp (one microsecond earlier).
    #[must_use]
    pub const fn prev(self) -> Self {
        Timestamp(self.0.saturating_sub(1))
    }

    /// This timestamp plus a number of microseconds.
    #[must_use]
    pub const fn plus_micros(self, micros: u64) -> Self {
        Timestamp(self.0.saturating_add(micros))
    }

    /// This timestamp minus a number of microseconds.
    #[must_use]
    pub const fn minus_micros(self, micros: u64) -> Self {
        Timestamp(self.0.saturating_sub(micros))
    }

    /// This timestamp minus a duration, rounded down to microseconds.
    #[must_use]
    pub fn minus(self, duration: Duration) -> Self {
        self.minus_micros(u64::try_from(duration.as_micros()).unwrap_or(u64::MAX))
    }

    /// The time from `earlier` to this, zero when `earlier` is not earlier.
    pub fn since(self, earlier: Timestamp) -> Duration {
        Duration::from_micros(self.0.saturating_sub(earlier.0))
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Timestamp::MAX => write!(f, "s∞"),
            Timestamp(micros) => write!(f, "s{micros}"),
        }
    }
}

impl fmt::Debug for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
