//! One host, one clock.

use super::host::HostTime;
use crate::{Clock, ClockError, Interval, Reading, Status};

/// All processes of one host share one clock, so they agree without synchronisation; ε is a
/// small configured constant that covers the time between reading and use.
///
/// `CLOCK_REALTIME` gives the epoch at start, `CLOCK_BOOTTIME` the progress since then: a step of
/// the wall clock while the process runs is not seen, and suspended time is counted (T3). Across
/// restarts a wall clock that was stepped back goes back; leases and the recorded timestamps of
/// the log guard that (L4). *Two processes that were started before and after a step differ by it*:
/// between them ε says nothing, so do not step the wall clock of a host that several run on.
#[derive(Clone, Debug)]
pub struct Local {
    host: HostTime,
    epsilon_ns: u64,
}

impl Local {
    /// The default half-width, in microseconds.
    pub const EPSILON_US_DEFAULT: u64 = 50;

    /// A local clock with half-width `epsilon_us`.
    pub fn new(epsilon_us: u64) -> Self {
        Local::with(HostTime::new(), epsilon_us)
    }

    /// The same, by a host's time that others of the process go by too: when the time at the start
    /// is read twice, the two may be apart by as long as a thread can be held up in between.
    pub fn with(host: HostTime, epsilon_us: u64) -> Self {
        Local { host, epsilon_ns: epsilon_us.saturating_mul(1_000) }
    }
}

impl Default for Local {
    fn default() -> Self {
        Local::new(Local::EPSILON_US_DEFAULT)
    }
}

impl Clock for Local {
    fn read(&self) -> Result<Reading, ClockError> {
        Ok(Reading {
            interval: Interval::around_ns(self.host.now_ns(), self.epsilon_ns),
            status: Status::Synchronized,
            provider: "local",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn never_goes_back_and_is_as_wide_as_configured() {
        let clock = Local::new(50);
        let mut last = clock.read().unwrap().interval;
        for _ in 0..10_000 {
            let now = clock.read().unwrap().interval;
            assert!(now.earliest() >= last.earliest());
            assert!((50..=51).contains(&now.epsilon_us()));
            last = now;
        }
    }
}
