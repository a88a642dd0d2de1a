//! AWS ClockBound.

use super::follower::{Followed, Rule, Window};
use super::host::Bracket;
use crate::{Clock, ClockError, Reading, Sources};
use clock_bound::nix::sys::time::TimeSpec;
use clock_bound::{Client, ClockStatus, TimeWindow};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::panic::{self, AssertUnwindSafe};
use std::time::Duration;

const NAME: &str = "clockbound";

/// See [`ClockBound::start`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClockBoundConfig {
    /// The shared memory of ClockBound's daemon.
    pub path: String,
    /// The shared memory in which a hypervisor tells that the machine was moved, where the daemon
    /// says that there is one.
    pub vmclock_path: String,
    /// From one look to the next, in milliseconds.
    pub every_ms: u64,
    /// The applied drift rate from one look to the next, in microseconds per second (T3).
    pub drift_ppm: u32,
    /// A wider bound than this is none, in milliseconds.
    pub epsilon_max_ms: u64,
}

impl Default for ClockBoundConfig {
    fn default() -> ClockBoundConfig {
        ClockBoundConfig {
            path: clock_bound::SHM_DEFAULT_PATH.to_owned(),
            vmclock_path: clock_bound::VMCLOCK_DEFAULT_PATH.to_owned(),
            every_ms: 50,
            drift_ppm: 200,
            epsilon_max_ms: 500,
        }
    }
}

/// AWS ClockBound: a daemon of the host that keeps a bounded clock in shared memory.
///
/// Its permissively licensed client reads that memory; what it answers is followed as it stands:
///
/// | ClockBound says | here |
/// |---|---|
/// | `Synchronized` | [`Status::Synchronized`](crate::Status) |
/// | `FreeRunning` | [`Status::Holdover`](crate::Status): the bound holds, and grows |
/// | `Unknown`, `Disrupted` | no bound (T5) |
/// | nothing: no file, or not one that it wrote | no bound, until there is one |
///
/// Between two looks `CLOCK_BOOTTIME` carries on, so that a reading takes no lock. A virtual
/// machine that was stopped and moved is therefore believed until the next look, 50 ms by default.
#[derive(Debug)]
pub struct ClockBound(Followed);

impl ClockBound {
    /// Looks at the daemon's word now, and then again and again until this is dropped.
    ///
    /// # Errors
    /// There is no thread for it. (No daemon is no error: it may be started later.)
    pub fn start(config: ClockBoundConfig) -> io::Result<ClockBound> {
        let every_ms = config.every_ms.max(1);
        let rule = Rule {
            source: "clockbound",
            kind: "shared memory",
            drift_ppm: config.drift_ppm,
            // A thread may be held up for a while without anything being wrong.
            holdover_after_ns: (10 * every_ms).max(1_000) * 1_000_000,
            epsilon_max_ns: config.epsilon_max_ms.saturating_mul(1_000_000),
        };
        let mut segment = Segment { config, open: None };
        let look = move || Bracket::around(|| segment.window());
        let every = Duration::from_millis(every_ms);
        Ok(ClockBound(Followed::start((NAME, "clockbound"), rule, every, look)?))
    }
}

impl Clock for ClockBound {
    fn read(&self) -> Result<Reading, ClockError> {
        self.0.read()
    }

    fn sources(&self) -> Sources {
        self.0.sources()
    }
}

/// The shared memory, as long as it is the same file.
struct Segment {
    config: ClockBoundConfig,
    open: Option<(Identity, Client)>,
}

/// What tells a file from one that has taken its place. Memory that was mapped stays readable when
/// the file is gone, and says for ever what it said last.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Identity {
    device: u64,
    inode: u64,
    length: u64,
}

impl Segment {
    fn window(&mut self) -> Result<Window, String> {
        let window = self.read().and_then(|window| judge(&window));
        if window.is_err() {
            // Whatever it was: the next look begins anew.
            self.open = None;
        }
        window
    }

    fn read(&mut self) -> Result<TimeWindow, String> {
        let path = &self.config.path;
        let told = std::fs::metadata(path);
        let told = told.map_err(|error| format!("{path}: {error}; does clockbound run?"))?;
        let identity = Identity { device: told.dev(), inode: told.ino(), length: told.len() };
        let open = self.open.take().filter(|(before, _)| *before == identity);
        let vmclock_path = &self.config.vmclock_path;
        // The client trusts the numbers that it finds: absurd ones overflow.
        let read = panic::catch_unwind(AssertUnwindSafe(|| {
            let mut client = match open {
                Some((_, client)) => client,
                None => Client::new_with_paths(path, vmclock_path)?,
            };
            client.now().map(|window| (client, window))
        }));
        let read = read.map_err(|_| format!("{path}: holds numbers that cannot be"))?;
        let (client, window) = read.map_err(|error| {
            let detail = error.detail.trim_end_matches('.');
            format!("{path}: {detail}; is it clockbound's, of version 3?")
        })?;
        self.open = Some((identity, client));
        Ok(window)
    }
}

/// What the daemon's word is worth (T5).
fn judge(window: &TimeWindow) -> Result<Window, String> {
    let holdover = match window.clock_status {
        ClockStatus::Synchronized => false,
        ClockStatus::FreeRunning => true,
        ClockStatus::Unknown => {
            return Err("clockbound does not know how wrong the clock may be (unknown)".to_owned());
        }
        ClockStatus::Disrupted => {
            return Err("clockbound says that the clock was disrupted".to_owned());
        }
    };
    let (earliest_ns, latest_ns) = (nanoseconds(&window.earliest), nanoseconds(&window.latest));
    match earliest_ns.zip(latest_ns).filter(|(earliest_ns, latest_ns)| earliest_ns <= latest_ns) {
        Some((earliest_ns, latest_ns)) => Ok(Window { earliest_ns, latest_ns, holdover }),
        None => Err("clockbound tells a time that cannot be".to_owned()),
    }
}

/// Since the epoch; `None`: before it.
fn nanoseconds(time: &TimeSpec) -> Option<u64> {
    let seconds = u64::try_from(time.tv_sec()).ok()?.checked_mul(1_000_000_000)?;
    seconds.checked_add(u64::try_from(time.tv_nsec()).ok()?)
}

#[cfg(test)]
mod tests;
