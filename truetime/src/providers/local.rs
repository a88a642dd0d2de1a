//! One host, one clock.
// The only place outside the other providers that may read an operating-system clock (T1).
#![allow(clippy::disallowed_types, clippy::disallowed_methods)]

use crate::{Clock, ClockError, Interval, Reading, Status};
use rustix::time::{ClockId, clock_gettime};
use std::sync::atomic::{AtomicU64, Ordering};

/// All processes of one host share one clock, so they agree without synchronisation; ε is a
/// small configured constant that covers the time between reading and use.
///
/// `CLOCK_REALTIME` gives the epoch at start, `CLOCK_BOOTTIME` the progress since then: a step of
/// the wall clock while the process runs is not seen, and suspended time is counted (T3).
/// `earliest` never goes backwards within one process. Across restarts a wall clock that was
/// stepped back would; leases and the recorded timestamps of the log guard that (L4).
#[derive(Debug)]
pub struct Local {
    epsilon_ns: u64,
    /// Realtime minus boottime when the clock was made, in nanoseconds.
    offset_ns: u64,
    floor_ns: AtomicU64,
}

impl Local {
    /// The default half-width, in microseconds.
    pub const EPSILON_US_DEFAULT: u64 = 50;

    /// A local clock with half-width `epsilon_us`.
    pub fn new(epsilon_us: u64) -> Self {
        let offset_ns = read_ns(ClockId::Realtime).saturating_sub(read_ns(ClockId::Boottime));
        Local { epsilon_ns: epsilon_us * 1_000, offset_ns, floor_ns: AtomicU64::new(0) }
    }
}

impl Default for Local {
    fn default() -> Self {
        Local::new(Local::EPSILON_US_DEFAULT)
    }
}

impl Clock for Local {
    fn now(&self) -> Result<Reading, ClockError> {
        let now_ns = read_ns(ClockId::Boottime) + self.offset_ns;
        let middle_ns = self.floor_ns.fetch_max(now_ns, Ordering::Relaxed).max(now_ns);
        Ok(Reading {
            interval: Interval::around_ns(middle_ns, self.epsilon_ns),
            status: Status::Synchronized,
            provider: "local",
        })
    }
}

fn read_ns(id: ClockId) -> u64 {
    let t = clock_gettime(id);
    let seconds = u64::try_from(t.tv_sec).unwrap_or(0);
    seconds * 1_000_000_000 + u64::try_from(t.tv_nsec).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn never_goes_back_and_is_as_wide_as_configured() {
        let clock = Local::new(50);
        let mut last = clock.now().unwrap().interval;
        for _ in 0..10_000 {
            let now = clock.now().unwrap().interval;
            assert!(now.earliest() >= last.earliest());
            assert!((50..=51).contains(&now.epsilon_us()));
            last = now;
        }
    }
}
