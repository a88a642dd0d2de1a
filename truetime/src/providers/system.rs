//! The kernel's clock.

use super::follower::{Followed, Rule, Window};
use super::host::Bracket;
use crate::{Clock, ClockError, Reading, Sources};
use std::io;
use std::time::Duration;

const NAME: &str = "system";

/// What the kernel lets itself be slewed by, and how fast it lets its error grow, in microseconds
/// per second (`MAXFREQ`).
const KERNEL_DRIFT_PPM: u32 = 500;

/// From this long before a leap second until this long after it there is no bound, in seconds:
/// longer than the pause between two looks, so that the first comes in time.
const LEAP_GUARD_S: u64 = 3;

const DAY_S: u64 = 86_400;

/// See [`System::start`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SystemConfig {
    /// From one look at the kernel's word to the next, in milliseconds, less than three seconds.
    pub every_ms: u64,
    /// A wider bound than this is none, in milliseconds.
    pub epsilon_max_ms: u64,
}

impl Default for SystemConfig {
    fn default() -> SystemConfig {
        SystemConfig { every_ms: 1_000, epsilon_max_ms: 500 }
    }
}

/// The kernel's clock, and what the kernel says about it.
///
/// A time daemon of the host (`chronyd`, `ntpd`, `ptp4l`) sets the kernel's clock and tells the
/// kernel by how much it may be off; the kernel adds 500 µs for each second that passes and
/// declares the clock unsynchronised in the end. `adjtimex` tells both. That is the whole bound:
/// it is as good as that daemon. (`systemd-timesyncd` claims to be off by nothing after each poll,
/// whatever the way to its server: no bound can be built on it.)
///
/// *Leap seconds.* A host that steps them in has one wall-clock time twice, or one never, for a
/// second. Around that there is no bound. Hosts that smear them never notice.
#[derive(Debug)]
pub struct System(Followed);

impl System {
    /// Looks at the kernel's word now, and then again and again until it is dropped.
    ///
    /// # Errors
    /// There is no thread for it. (A kernel without a bound is no error: it may have one later.)
    pub fn start(config: SystemConfig) -> io::Result<System> {
        let every_ms = config.every_ms.clamp(1, LEAP_GUARD_S * 1_000 - 1);
        let epsilon_max_ns = config.epsilon_max_ms.saturating_mul(1_000_000);
        let rule = Rule {
            source: "kernel",
            kind: "adjtimex",
            drift_ppm: KERNEL_DRIFT_PPM,
            holdover_after_ns: 3 * every_ms * 1_000_000,
            epsilon_max_ns,
        };
        let look = move || {
            let look = Bracket::around(adjtimex);
            let value = match &look.value {
                Ok(word) => word.window(epsilon_max_ns),
                Err(error) => Err(format!("the kernel does not tell about its clock: {error}")),
            };
            Bracket { before_ns: look.before_ns, value, after_ns: look.after_ns }
        };
        let every = Duration::from_millis(every_ms);
        Ok(System(Followed::start((NAME, "system-clock"), rule, every, look)?))
    }
}

impl Clock for System {
    fn read(&self) -> Result<Reading, ClockError> {
        self.0.read()
    }

    fn sources(&self) -> Sources {
        self.0.sources()
    }
}

/// What `adjtimex` tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Word {
    /// What it returned: `TIME_OK` … `TIME_ERROR`.
    state: i32,
    /// `STA_…` bits.
    status: i32,
    /// By how much the clock may be off, in microseconds.
    error_max_us: i64,
    /// What the clock showed, in nanoseconds since the epoch, and how coarsely.
    time_ns: u64,
    coarse_ns: u64,
}

impl Word {
    fn new(state: i32, timex: &libc::timex) -> Word {
        let fine = timex.status & libc::STA_NANO != 0;
        let unit_ns = if fine { 1 } else { 1_000 };
        let seconds = u64::try_from(timex.time.tv_sec).unwrap_or(0);
        let fraction = u64::try_from(timex.time.tv_usec).unwrap_or(0);
        Word {
            state,
            status: timex.status,
            error_max_us: timex.maxerror,
            time_ns: seconds * 1_000_000_000 + fraction * unit_ns,
            coarse_ns: unit_ns - 1,
        }
    }

    /// What the kernel says that time it is; otherwise why it says nothing that can be relied on
    /// (T5).
    fn window(&self, epsilon_max_ns: u64) -> Result<Window, String> {
        if self.state == libc::TIME_ERROR || self.status & libc::STA_UNSYNC != 0 {
            return Err("the kernel says that its clock is not synchronized (STA_UNSYNC); is \
                        chronyd, ntpd or ptp4l running?"
                .to_owned());
        }
        if self.status & libc::STA_CLOCKERR != 0 {
            return Err("the kernel reports a fault of its clock (STA_CLOCKERR)".to_owned());
        }
        if self.is_leaping() {
            return Err("a leap second is being stepped in".to_owned());
        }
        let epsilon_ns = u64::try_from(self.error_max_us).ok().map(|us| us.saturating_mul(1_000));
        let Some(epsilon_ns) = epsilon_ns else {
            return Err(format!(
                "the kernel's error is {} µs, which is nonsense",
                self.error_max_us
            ));
        };
        if epsilon_ns > epsilon_max_ns {
            let (ms, max) = (epsilon_ns / 1_000_000, epsilon_max_ns / 1_000_000);
            return Err(format!(
                "the kernel says that its clock may be {ms} ms off, {max} at most"
            ));
        }
        Ok(Window {
            earliest_ns: self.time_ns.saturating_sub(epsilon_ns),
            latest_ns: self.time_ns + self.coarse_ns + epsilon_ns,
            holdover: false,
        })
    }

    fn is_leaping(&self) -> bool {
        let of_day_s = self.time_ns / 1_000_000_000 % DAY_S;
        match self.state {
            libc::TIME_OOP => true,
            libc::TIME_INS | libc::TIME_DEL => of_day_s >= DAY_S - LEAP_GUARD_S,
            libc::TIME_WAIT => !(LEAP_GUARD_S..DAY_S - LEAP_GUARD_S).contains(&of_day_s),
            _ => false,
        }
    }
}

/// Asks the kernel, and changes nothing.
#[allow(unsafe_code)]
fn adjtimex() -> io::Result<Word> {
    // SAFETY: `timex` consists of integers, for all of which zero is a value. With `modes` zero the
    // call only writes into the structure it is given, which outlives it.
    let (state, timex) = unsafe {
        let mut timex: libc::timex = std::mem::zeroed();
        (libc::adjtimex(&mut timex), timex)
    };
    if state < 0 { Err(io::Error::last_os_error()) } else { Ok(Word::new(state, &timex)) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Status;

    const MS: u64 = 1_000_000;
    /// Noon of some day.
    const NOON_S: u64 = 20_000 * DAY_S + DAY_S / 2;

    fn word(state: i32, status: i32, error_max_us: i64) -> Word {
        let time_ns = NOON_S * 1_000_000_000;
        Word { state, status, error_max_us, time_ns, coarse_ns: 0 }
    }

    fn window(word: Word) -> Result<Window, String> {
        word.window(500 * MS)
    }

    #[test]
    fn the_bound_is_the_greatest_error_the_kernel_admits() {
        let now_ns = NOON_S * 1_000_000_000;
        let (earliest_ns, latest_ns) = (now_ns - 1_500_000, now_ns + 1_500_000);
        let word = word(libc::TIME_OK, libc::STA_PLL | libc::STA_NANO, 1_500);
        assert_eq!(window(word), Ok(Window { earliest_ns, latest_ns, holdover: false }));
    }

    /// T5: not a large bound, none.
    #[test]
    fn an_unsynchronized_kernel_has_no_bound_however_small_it_says_it_is() {
        for (state, status) in [
            (libc::TIME_ERROR, 0),
            (libc::TIME_OK, libc::STA_UNSYNC),
            (libc::TIME_ERROR, libc::STA_UNSYNC | libc::STA_NANO),
            (libc::TIME_OK, libc::STA_CLOCKERR),
        ] {
            assert!(window(word(state, status, 1)).is_err(), "{state} {status:#x}");
        }
        assert!(window(word(libc::TIME_OK, 0, 1)).is_ok());
        assert!(window(word(libc::TIME_OK, 0, -1)).is_err());
        assert!(window(word(libc::TIME_OK, 0, 500_000)).is_ok());
        assert!(window(word(libc::TIME_OK, 0, 500_001)).is_err());
        assert!(window(word(libc::TIME_OK, 0, i64::MAX)).is_err());
    }

    #[test]
    fn there_is_no_bound_around_a_leap_second() {
        let at = |state: i32, of_day_s: u64| {
            let time_ns = (20_000 * DAY_S + of_day_s) * 1_000_000_000;
            window(Word { time_ns, ..word(state, 0, 1) }).is_ok()
        };
        for state in [libc::TIME_INS, libc::TIME_DEL] {
            assert!(at(state, 0) && at(state, DAY_S / 2) && at(state, DAY_S - 4));
            assert!(!at(state, DAY_S - 3) && !at(state, DAY_S - 1));
        }
        assert!(!at(libc::TIME_OOP, DAY_S - 1));
        assert!(!at(libc::TIME_WAIT, DAY_S - 1) && !at(libc::TIME_WAIT, 2));
        assert!(at(libc::TIME_WAIT, 3) && at(libc::TIME_OK, DAY_S - 1));
    }

    #[test]
    #[allow(unsafe_code)]
    fn times_are_read_in_the_unit_they_are_given_in() {
        // SAFETY: integers only.
        let mut timex: libc::timex = unsafe { std::mem::zeroed() };
        (timex.time.tv_sec, timex.time.tv_usec, timex.maxerror) = (7, 123_456, 42);
        let coarse = Word::new(libc::TIME_OK, &timex);
        assert_eq!((coarse.time_ns, coarse.coarse_ns), (7_123_456_000, 999));
        timex.status = libc::STA_NANO;
        let fine = Word::new(libc::TIME_OK, &timex);
        assert_eq!((fine.time_ns, fine.coarse_ns, fine.error_max_us), (7_000_123_456, 0, 42));
    }

    /// Whichever this machine is.
    #[test]
    fn this_machine_has_a_bound_if_its_kernel_says_so() {
        let before = adjtimex().unwrap();
        let system = System::start(SystemConfig::default()).unwrap();
        let read = system.read();
        let after = adjtimex().unwrap();
        let (had, has) = (window(before), window(after));
        if had.is_err() && has.is_err() {
            let error = read.unwrap_err();
            assert_eq!((error.status, error.provider), (Status::Unsynchronized, NAME));
            assert_eq!(system.sources().synchronized_ago, None);
        } else if let (Ok(had), Ok(has)) = (had, has) {
            let now = read.unwrap().interval;
            assert!(now.earliest().micros() * 1_000 <= has.latest_ns);
            assert!(now.latest().micros() * 1_000 >= had.earliest_ns);
            assert!(system.sources().synchronized_ago.is_some());
        }
        assert_eq!(system.sources().masters[0].name, "kernel");
    }

    #[test]
    fn looks_again_and_again() {
        let config = SystemConfig { every_ms: 1, ..SystemConfig::default() };
        let system = System::start(config).unwrap();
        let looked = || system.0.looked_ns.load(std::sync::atomic::Ordering::Relaxed);
        let first = looked();
        while looked() == first {
            std::thread::yield_now();
        }
    }
}
