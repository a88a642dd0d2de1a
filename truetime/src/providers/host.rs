//! The clocks of the host: the one place that asks the operating system what time it is (T1).

use rustix::time::{ClockId, clock_gettime};
use std::time::Duration;

/// `CLOCK_BOOTTIME` in nanoseconds: runs on at one rate, suspended time included (T3), and nobody
/// sets it.
pub fn boot_ns() -> u64 {
    read_ns(ClockId::Boottime)
}

/// `CLOCK_REALTIME` in nanoseconds since the epoch: what the host takes for the time; it may be
/// stepped.
pub fn real_ns() -> u64 {
    read_ns(ClockId::Realtime)
}

/// Blocks the thread.
pub fn rest(duration: Duration) {
    std::thread::sleep(duration);
}

fn read_ns(id: ClockId) -> u64 {
    let t = clock_gettime(id);
    let seconds = u64::try_from(t.tv_sec).unwrap_or(0);
    seconds * 1_000_000_000 + u64::try_from(t.tv_nsec).unwrap_or(0)
}

/// The host's wall clock as it was when this was made, carried on by `CLOCK_BOOTTIME`: a step of
/// the wall clock since then is not seen.
#[derive(Clone, Copy, Debug)]
pub struct HostTime {
    /// Realtime minus boottime, in nanoseconds.
    offset_ns: u64,
}

impl HostTime {
    /// As of now. Of a few readings of both clocks the closest pair counts, for the thread may be
    /// held up between the two.
    pub fn new() -> HostTime {
        let pair = |_| {
            let (before, real, after) = (boot_ns(), real_ns(), boot_ns());
            (after - before, real.saturating_sub(before))
        };
        let closest = (0..5).map(pair).min();
        HostTime { offset_ns: closest.map_or(0, |(_, offset_ns)| offset_ns) }
    }

    /// Nanoseconds since the epoch.
    pub fn now_ns(&self) -> u64 {
        boot_ns() + self.offset_ns
    }
}

impl Default for HostTime {
    fn default() -> Self {
        HostTime::new()
    }
}
