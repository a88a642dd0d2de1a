//! Self-eviction of a clock whose errors are chosen (T5).

use super::simulated::Skew;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

/// Good looks in a row after which a broken clock is believed again.
const GOOD_LOOKS: u32 = 3;

/// Looks every so often, as a time daemon with a master that is never wrong would, whether a
/// simulated clock keeps its promise: whether it gains or loses more than the applied drift rate,
/// and whether what it claims excludes absolute time. A clock that does is broken until it has
/// looked good a few times; then it is set right.
///
/// Between two looks nobody knows: a clock that goes wrong is believed until the next one, as a
/// real one is until the daemon's next polls. Unlike other clocks, one with a guard takes a lock for
/// a reading.
#[derive(Debug)]
pub struct Guard {
    /// What the rate may be off by, in microseconds per second.
    pub applied_ppm: f64,
    /// From one look to the next, in nanoseconds.
    pub every_ns: u64,
    next_ns: AtomicU64,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Absolute time of the last look, and what the clock was off by then.
    last: Option<(u64, i64)>,
    rate_ppm: Option<f64>,
    /// Why it is broken, and how often it has looked good since.
    broken: Option<(String, u32)>,
}

impl Guard {
    /// A guard that looks every `every_ns`, and allows for this drift.
    pub fn new(applied_ppm: f64, every_ns: u64) -> Guard {
        Guard { applied_ppm, every_ns, next_ns: AtomicU64::new(0), state: Mutex::default() }
    }

    /// The rate at the last look, in microseconds per second.
    pub fn measured_ppm(&self) -> Option<f64> {
        self.lock().rate_ppm
    }

    /// What is wrong with the clock at `absolute_ns`, if it can be believed all the same; `Err`:
    /// why it is broken. `load` is asked within the lock: who was held up since before the clock
    /// was set right must not come with what it was.
    pub(super) fn look(
        &self,
        absolute_ns: u64,
        load: impl FnOnce() -> Skew,
        resynchronize: impl FnOnce(),
    ) -> Result<Skew, String> {
        let mut state = self.lock();
        let skew = load();
        if absolute_ns >= self.next_ns.load(Ordering::Relaxed) {
            self.next_ns.store(absolute_ns + self.every_ns, Ordering::Relaxed);
            self.judge(&mut state, absolute_ns, &skew);
            if state.broken.as_ref().is_some_and(|(_, good)| *good >= GOOD_LOOKS) {
                resynchronize();
                *state = State { last: None, rate_ppm: state.rate_ppm, broken: None };
                // What was loaded is what it was: believed from the next reading.
                return Err("it was broken, and has just been set right".into());
            }
        }
        match &state.broken {
            Some((reason, _)) => Err(reason.clone()),
            None => Ok(skew),
        }
    }

    fn judge(&self, state: &mut State, absolute_ns: u64, skew: &Skew) {
        let off_ns = skew.drift.offset_ns(absolute_ns);
        let last = state.last.replace((absolute_ns, off_ns));
        let rate_ppm = last.filter(|(then_ns, _)| *then_ns < absolute_ns).map(|(then_ns, was)| {
            (off_ns as f64 - was as f64) / (absolute_ns - then_ns) as f64 * 1e6
        });
        state.rate_ppm = rate_ppm.or(state.rate_ppm);
        let fast = rate_ppm.filter(|rate| rate.abs() > self.applied_ppm);
        let was_broken = state.broken.take();
        state.broken = match fast {
            Some(rate) => {
                let allowed = self.applied_ppm;
                Some((format!("it drifts at {rate:.0} µs/s, allowed are {allowed:.0}"), 0))
            }
            // Once broken it is off, whatever the rate is now; it will be set right.
            None if was_broken.is_some() => was_broken.map(|(why, good)| (why, good + 1)),
            None if off_ns.unsigned_abs() > skew.claims_ns() => {
                let (off_us, claims_us) = (off_ns / 1_000, skew.claims_ns() / 1_000);
                Some((format!("it is off by {off_us} µs, and claims ±{claims_us} µs"), 0))
            }
            None => None,
        };
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

#[cfg(test)]
mod tests {
    use super::super::simulated::{Absolute, Drift, Simulated};
    use super::*;
    use crate::Clock;
    use std::sync::Arc;

    const S: u64 = 1_000_000_000;

    #[test]
    fn a_clock_that_gains_too_much_is_evicted_and_comes_back_when_it_runs_well() {
        let absolute = Arc::new(AtomicU64::new(100 * S));
        let skew = Skew::new(Drift::Constant { offset_ns: 0 }, 5_000_000);
        let guard = Guard::new(200.0, S / 4);
        let clock = Simulated::with(Absolute::World(absolute.clone()), skew, Some(guard));
        let pass = || absolute.fetch_add(S / 4, Ordering::Relaxed);
        for _ in 0..8 {
            assert!(clock.read().is_ok());
            pass();
        }
        clock.set(|skew| skew.set_rate(absolute.load(Ordering::Relaxed), 2_000.0));
        assert!(clock.read().is_ok(), "nobody knows yet");
        pass();
        let error = clock.read().unwrap_err();
        assert!(error.reason.contains("drifts at 2000 µs/s"), "{error}");
        pass();
        assert!(clock.read().is_err());
        clock.set(|skew| skew.set_rate(absolute.load(Ordering::Relaxed), 0.0));
        let mut looks = 0;
        while clock.read().is_err() {
            pass();
            looks += 1;
            assert!(looks < 10);
        }
        assert!(looks >= 3);
        assert_eq!(clock.skew().drift.offset_ns(absolute.load(Ordering::Relaxed)), 0);
    }

    #[test]
    fn a_clock_that_is_set_beyond_its_claim_is_evicted() {
        let absolute = Arc::new(AtomicU64::new(100 * S));
        let skew = Skew::new(Drift::Constant { offset_ns: 0 }, 5_000_000);
        let guard = Guard::new(200.0, S / 4);
        let clock = Simulated::with(Absolute::World(absolute.clone()), skew, Some(guard));
        assert!(clock.read().is_ok());
        clock.set(|skew| skew.lie_ns = 5_000_000);
        clock.set(|skew| skew.set_offset(100 * S, 10_000));
        absolute.fetch_add(S / 4, Ordering::Relaxed);
        assert!(clock.read().is_err());
    }

    #[test]
    fn a_reading_begun_before_the_clock_was_set_right_is_not_of_what_it_was() {
        let guard = Guard::new(200.0, S);
        let bad = Skew::new(Drift::Constant { offset_ns: 50_000_000 }, 5_000_000);
        let good = Skew::new(Drift::Constant { offset_ns: 0 }, 5_000_000);
        let (mut at, mut set) = (100 * S, false);
        while !set {
            let _ = guard.look(at, || bad, || set = true);
            at += S;
        }
        // Another thread, which took the time before that, and is let into the lock after it.
        assert_eq!(guard.look(at - S - 1, || good, || ()), Ok(good));
    }
}
