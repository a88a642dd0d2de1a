//! A reading of a bounded clock.

use crate::Timestamp;
use serde::{Deserialize, Serialize};
use std::fmt;

/// `[earliest, latest]`: contains absolute time at some instant during the reading (T1).
///
/// Invariant: `earliest ≤ latest`, asserted where an interval is made.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Interval {
    earliest: Timestamp,
    latest: Timestamp,
}

impl Interval {
    /// An interval from its ends.
    ///
    /// # Panics
    /// When `earliest > latest`: a provider that computes that is broken.
    pub fn new(earliest: Timestamp, latest: Timestamp) -> Self {
        assert!(earliest <= latest, "T1: earliest {earliest} > latest {latest}");
        Interval { earliest, latest }
    }

    /// The interval around `middle_ns` (nanoseconds since the epoch) with half-width `epsilon_ns`,
    /// rounded outwards to microseconds (T2).
    pub fn around_ns(middle_ns: u64, epsilon_ns: u64) -> Self {
        let earliest = middle_ns.saturating_sub(epsilon_ns) / 1_000;
        let latest = middle_ns.saturating_add(epsilon_ns).div_ceil(1_000);
        Interval::new(Timestamp::from_micros(earliest), Timestamp::from_micros(latest))
    }

    /// No absolute time before this is possible.
    pub fn earliest(&self) -> Timestamp {
        self.earliest
    }

    /// No absolute time after this is possible.
    pub fn latest(&self) -> Timestamp {
        self.latest
    }

    /// `t` has certainly passed: `t < earliest` (T1).
    pub fn after(&self, t: Timestamp) -> bool {
        t < self.earliest
    }

    /// `t` has certainly not arrived: `latest < t` (T1).
    pub fn before(&self, t: Timestamp) -> bool {
        self.latest < t
    }

    /// Half the width, in microseconds, rounded up.
    pub fn epsilon_us(&self) -> u64 {
        (self.latest.micros() - self.earliest.micros()).div_ceil(2)
    }
}

impl fmt::Display for Interval {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[{}, {}]", self.earliest, self.latest)
    }
}

impl fmt::Debug for Interval {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounds_outwards() {
        let i = Interval::around_ns(10_500, 100);
        assert_eq!((i.earliest().micros(), i.latest().micros()), (10, 11));
        assert_eq!(i.epsilon_us(), 1);
    }

    #[test]
    fn after_and_before_exclude_the_ends() {
        let i = Interval::new(Timestamp::from_micros(5), Timestamp::from_micros(7));
        assert!(i.after(Timestamp::from_micros(4)) && !i.after(Timestamp::from_micros(5)));
        assert!(i.before(Timestamp::from_micros(8)) && !i.before(Timestamp::from_micros(7)));
    }

    #[test]
    #[should_panic(expected = "T1")]
    fn refuses_an_inverted_interval() {
        Interval::new(Timestamp::from_micros(7), Timestamp::from_micros(5));
    }
}
