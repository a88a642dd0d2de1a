//! The clocks of the host: the one place that asks the operating system what time it is (T1).

use crate::bound::{Synchronization, drift_ns};
use rustix::fs::{FlockOperation, flock};
use rustix::time::{ClockId, clock_gettime};
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// `CLOCK_BOOTTIME` in nanoseconds: nobody sets it, and it runs on while the host is suspended (T3).
/// Its rate is the oscillator's as the kernel corrects it: an NTP daemon that slews makes it faster
/// or slower, by up to 500 µs/s with the kernel's own means. To a time daemon that is drift.
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

/// What was read at one instant, and between which readings of `CLOCK_BOOTTIME` that instant was:
/// whoever reads two clocks may be held up in between.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Bracket<T> {
    /// `CLOCK_BOOTTIME` before, in nanoseconds.
    pub before_ns: u64,
    /// What was read.
    pub value: T,
    /// `CLOCK_BOOTTIME` after, in nanoseconds.
    pub after_ns: u64,
}

impl<T> Bracket<T> {
    /// Reads a few times, and keeps what was held up the least.
    pub fn around(mut read: impl FnMut() -> T) -> Bracket<T> {
        const READINGS: usize = 5;
        let mut once = || Bracket { before_ns: boot_ns(), value: read(), after_ns: boot_ns() };
        let mut best = once();
        for _ in 1..READINGS {
            let next = once();
            if next.width_ns() < best.width_ns() {
                best = next;
            }
        }
        best
    }

    /// How long it took.
    pub fn width_ns(&self) -> u64 {
        self.after_ns.saturating_sub(self.before_ns)
    }

    /// What is known as of `before_ns`, if what was read says that absolute time was between these
    /// at that instant, and `CLOCK_BOOTTIME` is off by at most `drift_ppm`.
    pub fn synchronization(
        &self,
        earliest_ns: u64,
        latest_ns: u64,
        drift_ppm: u32,
    ) -> Synchronization {
        let width_ns = self.width_ns();
        let back_ns = width_ns + drift_ns(width_ns, drift_ppm);
        Synchronization::new(self.before_ns, earliest_ns.saturating_sub(back_ns), latest_ns)
    }
}

/// The host's wall clock as it was when this was made, carried on by `CLOCK_BOOTTIME`: a step of
/// the wall clock since then is not seen.
#[derive(Clone, Copy, Debug)]
pub struct HostTime {
    /// Realtime minus boottime, in nanoseconds.
    offset_ns: u64,
    error_ns: u64,
}

impl HostTime {
    /// As of now.
    pub fn new() -> HostTime {
        let real = Bracket::around(real_ns);
        let middle_ns = real.before_ns + real.width_ns() / 2;
        HostTime {
            offset_ns: real.value.saturating_sub(middle_ns),
            error_ns: real.width_ns().div_ceil(2),
        }
    }

    /// Nanoseconds since the epoch.
    pub fn now_ns(&self) -> u64 {
        boot_ns() + self.offset_ns
    }

    /// The difference between the host's two clocks that this goes by, in nanoseconds: equal for those
    /// who go by the same.
    pub fn offset_ns(&self) -> u64 {
        self.offset_ns
    }

    /// By how much it may differ from what the wall clock showed when this was made, in
    /// nanoseconds: the two clocks of the host cannot be read at once.
    pub fn error_ns(&self) -> u64 {
        self.error_ns
    }
}

/// The host's time as all processes of one user on this host go by it: the difference between its two
/// clocks is read by the first of them and kept in a file in memory for as long as one of them runs.
/// So a step of the wall clock between the starts of two does not come between them.
///
/// The file is locked: *shared* by whoever goes by it, *exclusively* by whoever writes it. It cannot
/// be written while anybody goes by it.
#[derive(Debug)]
pub struct SharedHostTime {
    host: HostTime,
    _shared: File,
}

impl SharedHostTime {
    /// Joins the other processes, or is the first.
    ///
    /// # Errors
    /// The file cannot be had, or is somebody else's.
    pub fn join() -> io::Result<SharedHostTime> {
        let user = rustix::process::getuid().as_raw();
        let memory = Path::new("/dev/shm");
        let folder = if memory.is_dir() { memory.to_owned() } else { std::env::temp_dir() };
        SharedHostTime::join_at(folder.join(format!("meridian-host-time-{user}")))
    }

    /// The same, over a file of one's own choice.
    ///
    /// # Errors
    /// As [`join`](Self::join).
    pub fn join_at(path: PathBuf) -> io::Result<SharedHostTime> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false).mode(0o600);
        let mut file = options.open(&path)?;
        if file.metadata()?.uid() != rustix::process::getuid().as_raw() {
            let what = format!("{} belongs to another user", path.display());
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, what));
        }
        loop {
            if flock(&file, FlockOperation::NonBlockingLockExclusive).is_ok() {
                // Nobody goes by what stands there.
                let host = HostTime::new();
                file.set_len(0)?;
                file.rewind()?;
                write!(file, "{} {} {}", boot_id()?, host.offset_ns, host.error_ns)?;
                flock(&file, FlockOperation::Unlock)?;
            }
            flock(&file, FlockOperation::LockShared)?;
            // Whatever stands there now stays for as long as this lock is held.
            let mut text = String::new();
            file.rewind()?;
            file.read_to_string(&mut text)?;
            let boot = boot_id()?;
            let mut words = text.split(' ');
            let same_boot = words.next() == Some(boot.as_str());
            let mut number = || words.next().and_then(|word| word.parse().ok());
            if let (true, Some(offset_ns), Some(error_ns)) = (same_boot, number(), number()) {
                let host = HostTime { offset_ns, error_ns };
                return Ok(SharedHostTime { host, _shared: file });
            }
            // Half a file, or one of an earlier boot: written anew, by whoever comes first.
            flock(&file, FlockOperation::Unlock)?;
        }
    }

    /// The host's time.
    pub fn host(&self) -> HostTime {
        self.host
    }
}

/// Tells this boot of this host from all others.
///
/// # Errors
/// What the system says.
pub fn boot_id() -> io::Result<String> {
    Ok(std::fs::read_to_string("/proc/sys/kernel/random/boot_id")?.trim().to_owned())
}

impl Default for HostTime {
    fn default() -> Self {
        HostTime::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_several_readings_the_one_that_was_held_up_least_counts() {
        let mut readings = [50, 0, 50, 50, 50].into_iter();
        let best = Bracket::around(|| {
            let ms = readings.next().unwrap();
            rest(Duration::from_millis(ms));
            ms
        });
        assert_eq!(best.value, 0);
        assert!(best.width_ns() < 50_000_000);
    }

    #[test]
    fn what_was_read_late_may_have_been_read_early() {
        let read = Bracket { before_ns: 1_000, value: (), after_ns: 1_100 };
        let then = read.synchronization(50_000, 50_010, 1_000);
        assert_eq!(then, Synchronization::new(1_000, 50_000 - 101, 50_010));
    }

    #[test]
    fn processes_of_one_host_go_by_what_the_first_has_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("shared");
        let of = |shared: &SharedHostTime| (shared.host().offset_ns, shared.host().error_ns);
        std::fs::write(&path, "an-earlier-boot 5 5").unwrap();
        let first = SharedHostTime::join_at(path.clone()).unwrap();
        assert_ne!(of(&first), (5, 5));
        // As if the wall clock had been set since: what stands there counts, not what it shows now.
        std::fs::write(&path, format!("{} 77 7", boot_id().unwrap())).unwrap();
        let second = SharedHostTime::join_at(path.clone()).unwrap();
        assert_eq!(of(&second), (77, 7));
        drop(first);
        assert_eq!(of(&SharedHostTime::join_at(path.clone()).unwrap()), (77, 7));
        drop(second);
        let alone = SharedHostTime::join_at(path).unwrap();
        assert_ne!(of(&alone), (77, 7), "nobody was left: it is read anew");
    }

    #[test]
    fn host_time_is_the_wall_clock_within_its_error() {
        let host = HostTime::new();
        let error_ns = host.error_ns() + 1_000_000;
        let (before_ns, real_ns, after_ns) = (host.now_ns(), real_ns(), host.now_ns());
        assert!(before_ns <= real_ns + error_ns && real_ns <= after_ns + error_ns, "{host:?}");
    }
}
