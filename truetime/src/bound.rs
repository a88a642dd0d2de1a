//! From one synchronisation to the next: how ε grows (T3).
//!
//! ```text
//!   ε
//!   7 ms ┤        ╱│       ╱│       ╱
//!        │      ╱  │     ╱  │     ╱     slope: the applied drift rate, 200 µs/s
//!        │    ╱    │   ╱    │   ╱
//!   1 ms ┤  ╱      │ ╱      │ ╱         floor: the masters' uncertainty and half the round trip
//!        └──┴──────┴─┴──────┴─┴──────► time
//!           └ 30 s ┘
//! ```

use crate::{ClockError, Interval, Reading, Status, Timestamp};

/// What is known of absolute time at one instant of the local clock. All in nanoseconds.
///
/// Invariant: `earliest_ns ≤ latest_ns`, asserted where one is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Synchronization {
    /// The local clock: one that nobody sets, that runs on through a suspension, and whose rate is
    /// off by at most the applied drift rate. Its zero means nothing.
    pub local_ns: u64,
    /// Absolute time was not before this then.
    pub earliest_ns: u64,
    /// Absolute time was not after this then.
    pub latest_ns: u64,
}

impl Synchronization {
    /// What is known, when the local clock shows `local_ns`.
    ///
    /// # Panics
    /// When `earliest_ns > latest_ns`.
    pub fn new(local_ns: u64, earliest_ns: u64, latest_ns: u64) -> Synchronization {
        assert!(earliest_ns <= latest_ns, "T1: earliest {earliest_ns} ns > latest {latest_ns} ns");
        Synchronization { local_ns, earliest_ns, latest_ns }
    }

    /// What is known from this when the local clock shows `local_ns`, given that it gains or loses
    /// at most `drift_ppm` microseconds per second. Of an earlier instant than its own it knows as
    /// much: time passed backwards is time that may not have passed.
    pub fn at(&self, local_ns: u64, drift_ppm: u32) -> Synchronization {
        let passed_ns = local_ns.saturating_sub(self.local_ns);
        let back_ns = self.local_ns.saturating_sub(local_ns);
        let slack_ns = drift_ns(passed_ns.max(back_ns), drift_ppm);
        Synchronization {
            local_ns,
            earliest_ns: self
                .earliest_ns
                .saturating_add(passed_ns)
                .saturating_sub(back_ns.saturating_add(slack_ns)),
            latest_ns: self
                .latest_ns
                .saturating_add(passed_ns.saturating_add(slack_ns))
                .saturating_sub(back_ns),
        }
    }

    /// What both allow, at the local instant both are of; `None`: they contradict each other.
    pub fn intersect(&self, other: &Synchronization) -> Option<Synchronization> {
        let earliest_ns = self.earliest_ns.max(other.earliest_ns);
        let latest_ns = self.latest_ns.min(other.latest_ns);
        (earliest_ns <= latest_ns).then_some(Synchronization {
            local_ns: self.local_ns,
            earliest_ns,
            latest_ns,
        })
    }

    /// Half the width, in nanoseconds, rounded up.
    pub fn epsilon_ns(&self) -> u64 {
        (self.latest_ns - self.earliest_ns).div_ceil(2)
    }

    /// The same in microseconds, rounded outwards (T2).
    pub fn interval(&self) -> Interval {
        let earliest = Timestamp::from_micros(self.earliest_ns / 1_000);
        Interval::new(earliest, Timestamp::from_micros(self.latest_ns.div_ceil(1_000)))
    }
}

/// By how much absolute time may differ from what a local clock says has passed, when that gains or
/// loses at most `drift_ppm` with each second of absolute time; rounded up.
pub fn drift_ns(passed_ns: u64, drift_ppm: u32) -> u64 {
    let drift = u128::from(drift_ppm.min(999_999));
    let slack = (u128::from(passed_ns) * drift).div_ceil(1_000_000 - drift);
    u64::try_from(slack).unwrap_or(u64::MAX)
}

/// What a clock goes by until its next synchronisation: published by whoever synchronises, read by
/// everybody.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bound {
    /// What is known.
    pub known: Known,
    /// The applied drift rate, in microseconds per second (T3).
    pub drift_ppm: u32,
    /// From this age on a synchronisation is old: [`Status::Holdover`]. In nanoseconds.
    pub holdover_after_ns: u64,
    /// A wider bound than this is none: [`Status::Unsynchronized`]. In nanoseconds.
    pub epsilon_max_ns: u64,
}

/// See [`Bound::known`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Known {
    /// The last synchronisation.
    Since(Synchronization),
    /// No bound, and why (T5).
    Nothing {
        /// [`Status::Unsynchronized`] or [`Status::Broken`].
        status: Status,
        /// For people.
        reason: String,
    },
}

impl Bound {
    /// No bound, because nothing has been heard yet.
    pub fn none(reason: impl Into<String>) -> Bound {
        Bound::without(Status::Unsynchronized, reason)
    }

    /// No bound.
    pub fn without(status: Status, reason: impl Into<String>) -> Bound {
        let known = Known::Nothing { status, reason: reason.into() };
        Bound { known, drift_ppm: 0, holdover_after_ns: 0, epsilon_max_ns: 0 }
    }

    /// A reading when the local clock shows `local_ns`.
    ///
    /// # Errors
    /// [`ClockError`]: there is no bound, or none any more.
    pub fn read(&self, local_ns: u64, provider: &'static str) -> Result<Reading, ClockError> {
        let since = match &self.known {
            Known::Since(since) => since,
            Known::Nothing { status, reason } => {
                return Err(ClockError { status: *status, reason: reason.clone(), provider });
            }
        };
        let now = since.at(local_ns, self.drift_ppm);
        let age_ns = local_ns.saturating_sub(since.local_ns);
        if now.epsilon_ns() > self.epsilon_max_ns {
            let (age_s, ms) = (age_ns / 1_000_000_000, self.epsilon_max_ns / 1_000_000);
            let reason = format!("last synchronized {age_s} s ago, and ε has grown past {ms} ms");
            return Err(ClockError { status: Status::Unsynchronized, reason, provider });
        }
        let old = age_ns > self.holdover_after_ns;
        let status = if old { Status::Holdover } else { Status::Synchronized };
        Ok(Reading { interval: now.interval(), status, provider })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: u64 = 1_000_000_000;

    fn bound() -> Bound {
        let since = Synchronization::new(5 * S, 1_000 * S - 1_000_000, 1_000 * S + 1_000_000);
        Bound {
            known: Known::Since(since),
            drift_ppm: 200,
            holdover_after_ns: 60 * S,
            epsilon_max_ns: 100_000_000,
        }
    }

    #[test]
    fn epsilon_grows_by_the_applied_drift_rate() {
        for (after_s, epsilon_us) in [(0, 1_000), (15, 4_001), (30, 7_002)] {
            let now = bound().read((5 + after_s) * S, "masters").unwrap().interval;
            assert_eq!(now.epsilon_us(), epsilon_us, "{after_s} s later");
            assert!(!now.after(Timestamp::from_micros((1_000 + after_s) * 1_000_000)));
            assert!(!now.before(Timestamp::from_micros((1_000 + after_s) * 1_000_000)));
        }
    }

    #[test]
    fn an_old_bound_is_holdover_and_then_none() {
        let status = |after_s: u64| bound().read((5 + after_s) * S, "masters").map(|r| r.status);
        assert_eq!(status(60).unwrap(), Status::Synchronized);
        assert_eq!(status(61).unwrap(), Status::Holdover);
        assert_eq!(status(494).unwrap(), Status::Holdover);
        assert_eq!(status(496).unwrap_err().status, Status::Unsynchronized);
    }

    #[test]
    fn a_local_clock_read_before_the_synchronisation_knows_no_less() {
        let since = Synchronization::new(5 * S, 1_000 * S, 1_000 * S + 2_000);
        let before = since.at(4 * S, 200);
        assert!(before.earliest_ns < 999 * S && before.latest_ns > 999 * S + 2_000);
    }

    #[test]
    #[should_panic(expected = "T1")]
    fn refuses_an_inverted_synchronisation() {
        Synchronization::new(0, 2, 1);
    }
}
