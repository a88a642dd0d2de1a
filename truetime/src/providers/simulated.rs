//! A clock whose errors are chosen: absolute time is known, the node sees only the interval.

use super::guard::Guard;
use super::host::{self, HostTime};
use crate::{Clock, ClockError, Interval, Reading, Sources, Status};
use arc_swap::ArcSwap;
use rand::Rng;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

const NAME: &str = "simulated";

/// What the clock is off by.
#[derive(Clone, Debug)]
pub enum Absolute {
    /// A simulated world's time, in nanoseconds, moved by whoever runs the world.
    World(Arc<AtomicU64>),
    /// The host's time: for clocks that are wrong on purpose in a program that really runs.
    Host(HostTime),
}

impl Absolute {
    /// Absolute time, in nanoseconds.
    pub fn now_ns(&self) -> u64 {
        match self {
            Absolute::World(now) => now.load(Ordering::Relaxed),
            Absolute::Host(host) => host.now_ns(),
        }
    }
}

/// How a simulated clock deviates from absolute time, as data.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Drift {
    /// Always off by this much.
    Constant {
        /// Nanoseconds added to absolute time (negative: behind).
        offset_ns: i64,
    },
    /// Runs too fast or too slow.
    Linear {
        /// The deviation at `since_ns`.
        offset_ns: i64,
        /// Microseconds gained (negative: lost) with each second.
        rate_ppm: f64,
        /// Absolute time at which it was `offset_ns`.
        since_ns: u64,
    },
    /// A triangle wave between `-amplitude_ns` and `+amplitude_ns`.
    Periodic {
        /// Largest deviation.
        amplitude_ns: u64,
        /// Time of one full wave.
        period_ns: u64,
        /// Where in the wave absolute time zero lies.
        phase_ns: u64,
    },
}

impl Drift {
    /// A schedule that stays within `±epsilon_ns`, drawn from `rng`.
    pub fn honest(rng: &mut impl Rng, epsilon_ns: u64) -> Drift {
        let bound = i64::try_from(epsilon_ns).unwrap_or(i64::MAX);
        if rng.random_bool(0.5) {
            Drift::Constant { offset_ns: rng.random_range(-bound..=bound) }
        } else {
            let period_ns = rng.random_range(1_000_000_000..20_000_000_000);
            let phase_ns = rng.random_range(0..period_ns);
            Drift::Periodic { amplitude_ns: epsilon_ns, period_ns, phase_ns }
        }
    }

    /// The deviation at an absolute time, in nanoseconds.
    pub fn offset_ns(&self, absolute_ns: u64) -> i64 {
        match *self {
            Drift::Constant { offset_ns } => offset_ns,
            Drift::Linear { offset_ns, rate_ppm, since_ns } => {
                let passed_ns = absolute_ns as f64 - since_ns as f64;
                offset_ns.saturating_add((passed_ns * rate_ppm / 1e6) as i64)
            }
            Drift::Periodic { amplitude_ns, period_ns, phase_ns } => {
                let at = (absolute_ns + phase_ns) % period_ns;
                let half = period_ns / 2;
                let up = if at < half { at } else { period_ns - at };
                let span = i128::from(amplitude_ns) * 2;
                let wave = span * i128::from(up.min(half)) / i128::from(half.max(1));
                i64::try_from(wave - i128::from(amplitude_ns)).unwrap_or(0)
            }
        }
    }
}

/// What is wrong with a simulated clock, and what it says about itself. It keeps T1 exactly while
/// the drift stays within `±(epsilon_ns − lie_ns)` and it is not `hasty`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Skew {
    /// How it deviates.
    pub drift: Drift,
    /// The half-width that it should claim.
    pub epsilon_ns: u64,
    /// By how much it claims less, down to nothing.
    pub lie_ns: u64,
    /// Whether it gives its latest time as its earliest too: timestamps are what they were, and no
    /// wait for one to pass takes any time. Commit wait off, by the clock's doing.
    pub hasty: bool,
    /// Whether it has no bound: nothing is wrong with what it says, for it says nothing (T5).
    pub lost: bool,
}

impl Skew {
    /// A clock that claims half-width `epsilon_ns`, and deviates as `drift` has it.
    pub fn new(drift: Drift, epsilon_ns: u64) -> Skew {
        Skew { drift, epsilon_ns, lie_ns: 0, hasty: false, lost: false }
    }

    /// The half-width that it claims, in nanoseconds.
    pub fn claims_ns(&self) -> u64 {
        self.epsilon_ns.saturating_sub(self.lie_ns)
    }

    /// What a clock like this says at an absolute time.
    pub fn interval(&self, absolute_ns: u64) -> Interval {
        let middle_ns = absolute_ns.saturating_add_signed(self.drift.offset_ns(absolute_ns));
        let interval = Interval::around_ns(middle_ns, self.claims_ns());
        if self.hasty { Interval::new(interval.latest(), interval.latest()) } else { interval }
    }

    /// Has it gain this much with each second from now on; what it is off by now, it stays.
    pub fn set_rate(&mut self, absolute_ns: u64, rate_ppm: f64) {
        let offset_ns = self.drift.offset_ns(absolute_ns);
        self.drift = Drift::Linear { offset_ns, rate_ppm, since_ns: absolute_ns };
    }

    /// Puts it off by this much now; its rate, if it has one, stays.
    pub fn set_offset(&mut self, absolute_ns: u64, offset_ns: i64) {
        self.drift = match self.drift {
            Drift::Linear { rate_ppm, .. } => {
                Drift::Linear { offset_ns, rate_ppm, since_ns: absolute_ns }
            }
            _ => Drift::Constant { offset_ns },
        };
    }
}

/// A bounded clock whose deviation from absolute time is chosen, and can be changed while it runs.
/// Clones are the same clock.
#[derive(Clone)]
pub struct Simulated {
    absolute: Absolute,
    skew: Arc<ArcSwap<Skew>>,
    guard: Option<Arc<Guard>>,
}

impl Simulated {
    /// A clock of a simulated world that reads `absolute_ns` with this drift and claims half-width
    /// `epsilon_ns`.
    pub fn new(absolute_ns: Arc<AtomicU64>, drift: Drift, epsilon_ns: u64) -> Self {
        Simulated::with(Absolute::World(absolute_ns), Skew::new(drift, epsilon_ns), None)
    }

    /// A clock that is off as `skew` has it; with a guard it may find out.
    pub fn with(absolute: Absolute, skew: Skew, guard: Option<Guard>) -> Self {
        let skew = Arc::new(ArcSwap::from_pointee(skew));
        Simulated { absolute, skew, guard: guard.map(Arc::new) }
    }

    /// What is wrong with it.
    pub fn skew(&self) -> Skew {
        **self.skew.load()
    }

    /// Changes what is wrong with it, from the next reading on.
    pub fn set(&self, change: impl Fn(&mut Skew)) {
        self.skew.rcu(|skew| {
            let mut skew = **skew;
            change(&mut skew);
            skew
        });
    }

    /// Absolute time.
    pub fn absolute_ns(&self) -> u64 {
        self.absolute.now_ns()
    }

    /// The node that it belongs to evicts itself when the clock breaks its promise.
    pub fn guard(&self) -> Option<&Guard> {
        self.guard.as_deref()
    }
}

impl Clock for Simulated {
    fn read(&self) -> Result<Reading, ClockError> {
        let absolute_ns = self.absolute.now_ns();
        let skew = match &self.guard {
            None => self.skew(),
            Some(guard) => {
                let resynchronize = || self.set(|skew| skew.set_offset(absolute_ns, 0));
                let broken = |reason| ClockError { status: Status::Broken, reason, provider: NAME };
                guard.look(absolute_ns, || self.skew(), resynchronize).map_err(broken)?
            }
        };
        if skew.lost {
            let reason = "it has been told to have no bound".into();
            return Err(ClockError { status: Status::Unsynchronized, reason, provider: NAME });
        }
        let interval = skew.interval(absolute_ns);
        Ok(Reading { interval, status: Status::Synchronized, provider: NAME })
    }

    fn rest(&self, duration: Duration) {
        match &self.absolute {
            Absolute::World(now) => {
                let ns = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
                now.fetch_add(ns, Ordering::Relaxed);
            }
            Absolute::Host(_) => host::rest(duration),
        }
    }

    fn sources(&self) -> Sources {
        let measured = self.guard.as_ref().and_then(|guard| guard.measured_ppm());
        Sources {
            drift_applied_ppm: self.guard.as_ref().map(|guard| guard.applied_ppm),
            drift_measured_ppm: measured.map(|rate| (rate, rate)),
            ..Sources::default()
        }
    }
}

impl fmt::Debug for Simulated {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Simulated").field("skew", &self.skew()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Timestamp;
    use rand::SeedableRng;
    use rand::rngs::SmallRng;

    #[test]
    fn honest_schedules_contain_absolute_time() {
        for seed in 0..200 {
            let mut rng = SmallRng::seed_from_u64(seed);
            let drift = Drift::honest(&mut rng, 4_000_000);
            let absolute = Arc::new(AtomicU64::new(0));
            let clock = Simulated::new(absolute.clone(), drift, 4_000_000);
            for step in 0..1_000u64 {
                let now_ns = 1_000_000_000_000 + step * 37_000_000;
                absolute.store(now_ns, Ordering::Relaxed);
                let i = clock.read().unwrap().interval;
                let now = Timestamp::from_micros(now_ns / 1_000);
                assert!(i.earliest() <= now && now <= i.latest(), "seed {seed} step {step}");
            }
        }
    }

    #[test]
    fn liars_leave_their_interval() {
        let absolute = Arc::new(AtomicU64::new(1_000_000_000));
        let now = Timestamp::from_micros(1_000_000);
        let ahead = Drift::Constant { offset_ns: 900_000 };
        let clock = Simulated::new(absolute.clone(), ahead, 1_000_000);
        let read = || clock.read().unwrap().interval;
        assert!(!read().after(now) && !read().before(now));
        clock.set(|skew| skew.lie_ns = 500_000);
        assert!(read().after(now), "claims less than it is off by");
        clock.set(|skew| (skew.lie_ns, skew.hasty) = (0, true));
        assert!(read().after(now), "gives its latest as its earliest");
        clock.set(|skew| skew.hasty = false);
        clock.set(|skew| skew.set_rate(1_000_000_000, 200.0));
        absolute.store(2_000_000_000, Ordering::Relaxed);
        assert_eq!(clock.skew().drift.offset_ns(2_000_000_000), 1_100_000);
        assert!(read().after(Timestamp::from_micros(2_000_000)), "gains 200 µs a second");
    }
}
