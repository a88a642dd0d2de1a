//! The front of the crate: one node's clock.

use crate::{Clock, ClockError, Interval, Reading, Sources, Status, Timestamp};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// The clock of one node. Leases, commit wait and timestamps of the node all read this one (T6);
/// clones share what it remembers.
///
/// Guarantees, while the provider keeps T1:
/// 1. A reading contains absolute time at some instant during the call (T1).
/// 2. `latest` never goes back, whatever the provider does: nobody on this node is given a
///    timestamp below one that somebody was given before.
/// 3. `earliest` never goes back either, so what is `after` stays so.
///
/// 3 costs nothing: absolute time was not before the earlier `earliest` then, and is not now. A
/// provider that later says that absolute time is before it has been wrong at one of the two
/// readings: that is [`Status::Broken`], for as long as the contradiction lasts.
#[derive(Clone)]
pub struct TrueTime {
    inner: Arc<Inner>,
}

struct Inner {
    clock: Box<dyn Clock>,
    /// The highest `earliest` and `latest` given out, in microseconds.
    earliest: AtomicU64,
    latest: AtomicU64,
}

impl TrueTime {
    /// The clock of a node, by this provider.
    pub fn new(clock: impl Clock + 'static) -> TrueTime {
        TrueTime::from_boxed(Box::new(clock))
    }

    /// The clock of a node, by this provider.
    pub fn from_boxed(clock: Box<dyn Clock>) -> TrueTime {
        let (earliest, latest) = (AtomicU64::new(0), AtomicU64::new(0));
        TrueTime { inner: Arc::new(Inner { clock, earliest, latest }) }
    }

    /// The interval that is now.
    ///
    /// # Errors
    /// [`ClockError`]: there is no bound (T5).
    pub fn now(&self) -> Result<Interval, ClockError> {
        self.read().map(|reading| reading.interval)
    }

    /// The interval that is now, and where it came from.
    ///
    /// # Errors
    /// [`ClockError`]: there is no bound (T5).
    pub fn read(&self) -> Result<Reading, ClockError> {
        let Inner { clock, earliest, latest } = self.inner.as_ref();
        // Before the clock: what others learn while this call is held up is none of its business.
        let floor = earliest.load(Ordering::Relaxed);
        let highest = latest.load(Ordering::Relaxed);
        let reading = clock.read()?;
        let (from, to) = (reading.interval.earliest().micros(), reading.interval.latest().micros());
        if to < floor {
            return Err(self.contradiction(reading, floor));
        }
        let (from, to) = (from.max(floor), to.max(highest));
        earliest.fetch_max(from, Ordering::Relaxed);
        latest.fetch_max(to, Ordering::Relaxed);
        let interval = Interval::new(Timestamp::from_micros(from), Timestamp::from_micros(to));
        Ok(Reading { interval, ..reading })
    }

    fn contradiction(&self, reading: Reading, floor: u64) -> ClockError {
        let floor = Timestamp::from_micros(floor);
        let back = floor.since(reading.interval.latest());
        let reason = format!(
            "it said before that absolute time is not below {floor}, and now that it is at least \
             {back:?} below"
        );
        ClockError { status: Status::Broken, reason, provider: reading.provider }
    }

    /// Whether `t` has certainly passed.
    ///
    /// # Errors
    /// [`ClockError`]: there is no bound (T5).
    pub fn after(&self, t: Timestamp) -> Result<bool, ClockError> {
        Ok(self.now()?.after(t))
    }

    /// Whether `t` has certainly not arrived.
    ///
    /// # Errors
    /// [`ClockError`]: there is no bound (T5).
    pub fn before(&self, t: Timestamp) -> Result<bool, ClockError> {
        Ok(self.now()?.before(t))
    }

    /// Blocks until `t` has certainly passed, which for a `t` just taken from `latest` is about
    /// twice ε: *commit wait*. The reading that ended it.
    ///
    /// # Errors
    /// [`ClockError`]: the bound was lost meanwhile (T5).
    pub fn wait_until_after(&self, t: Timestamp) -> Result<Interval, ClockError> {
        loop {
            let now = self.now()?;
            if now.after(t) {
                return Ok(now);
            }
            self.inner.clock.rest(left(now, t));
        }
    }

    /// How long it takes at least until `t` has certainly passed, zero when it has: for those who
    /// wait otherwise than by blocking a thread.
    ///
    /// # Errors
    /// [`ClockError`]: there is no bound (T5).
    pub fn until_after(&self, t: Timestamp) -> Result<Duration, ClockError> {
        let now = self.now()?;
        Ok(if now.after(t) { Duration::ZERO } else { left(now, t) })
    }

    /// Where the time comes from, for people.
    pub fn sources(&self) -> Sources {
        self.inner.clock.sources()
    }
}

/// From `now` until `t` is over, by a clock that runs at its proper rate.
fn left(now: Interval, t: Timestamp) -> Duration {
    t.next().since(now.earliest())
}

impl fmt::Debug for TrueTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TrueTime").field("now", &self.read()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::providers::{Drift, Simulated};

    const S: u64 = 1_000_000_000;

    fn t(us: u64) -> Timestamp {
        Timestamp::from_micros(us)
    }

    /// A clock at one second, ε 1 ms, this many nanoseconds off, and the absolute time under it.
    fn clock(offset_ns: i64) -> (Arc<AtomicU64>, Simulated) {
        let absolute = Arc::new(AtomicU64::new(S));
        let drift = Drift::Constant { offset_ns };
        (absolute.clone(), Simulated::new(absolute, drift, 1_000_000))
    }

    #[test]
    fn after_and_before_leave_a_time_between_them() {
        let tt = TrueTime::new(clock(0).1);
        assert!(tt.after(t(998_999)).unwrap() && !tt.after(t(999_000)).unwrap());
        assert!(tt.before(t(1_001_001)).unwrap() && !tt.before(t(1_001_000)).unwrap());
    }

    #[test]
    fn commit_wait_takes_twice_epsilon() {
        let (absolute, simulated) = clock(0);
        let tt = TrueTime::new(simulated);
        let s = tt.now().unwrap().latest();
        assert_eq!(tt.until_after(s).unwrap(), Duration::from_micros(2_001));
        assert!(tt.wait_until_after(s).unwrap().after(s));
        assert_eq!(absolute.load(Ordering::Relaxed), S + 2_001_000);
        assert_eq!(tt.until_after(s).unwrap(), Duration::ZERO);
    }

    #[test]
    fn neither_end_goes_back_when_the_clock_is_set_back_within_its_bound() {
        let (absolute, simulated) = clock(900_000);
        let tt = TrueTime::new(simulated.clone());
        let before = tt.now().unwrap();
        simulated.set(|skew| skew.drift = Drift::Constant { offset_ns: -900_000 });
        let now = tt.now().unwrap();
        assert_eq!(now, before);
        absolute.fetch_add(10_000_000, Ordering::Relaxed);
        assert_eq!(tt.now().unwrap(), Interval::new(t(1_008_100), t(1_010_100)));
    }

    #[test]
    fn a_clock_that_contradicts_itself_is_broken_until_it_does_not() {
        let (absolute, simulated) = clock(0);
        let tt = TrueTime::new(simulated.clone());
        tt.now().unwrap();
        simulated.set(|skew| skew.drift = Drift::Constant { offset_ns: -5_000_000 });
        assert_eq!(tt.now().unwrap_err().status, Status::Broken);
        absolute.fetch_add(4_000_000, Ordering::Relaxed);
        assert!(tt.now().is_ok());
    }
}
