//! A clock whose errors are chosen: absolute time is known, the node sees only the interval.

use crate::{Clock, ClockError, Interval, Reading, Status};
use rand::Rng;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// How a simulated clock deviates from absolute time, as data.
#[derive(Clone, Debug, PartialEq)]
pub enum Drift {
    /// Always off by this much.
    Constant {
        /// Nanoseconds added to absolute time (negative: behind).
        offset_ns: i64,
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

/// A bounded clock around a shared simulated absolute time.
///
/// T1 holds exactly when the drift stays within `±epsilon_ns`; a schedule that leaves it is a
/// *liar*, which is what experiments are made of.
#[derive(Clone, Debug)]
pub struct Simulated {
    absolute_ns: Arc<AtomicU64>,
    drift: Drift,
    epsilon_ns: u64,
}

impl Simulated {
    /// A clock that reads `absolute_ns` with this drift and claims half-width `epsilon_ns`.
    pub fn new(absolute_ns: Arc<AtomicU64>, drift: Drift, epsilon_ns: u64) -> Self {
        Simulated { absolute_ns, drift, epsilon_ns }
    }
}

impl Clock for Simulated {
    fn now(&self) -> Result<Reading, ClockError> {
        let absolute = self.absolute_ns.load(Ordering::Relaxed);
        let middle = absolute.saturating_add_signed(self.drift.offset_ns(absolute));
        Ok(Reading {
            interval: Interval::around_ns(middle, self.epsilon_ns),
            status: Status::Synchronized,
            provider: "simulated",
        })
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
                let i = clock.now().unwrap().interval;
                let now = Timestamp::from_micros(now_ns / 1_000);
                assert!(i.earliest() <= now && now <= i.latest(), "seed {seed} step {step}");
            }
        }
    }

    #[test]
    fn a_liar_leaves_its_interval() {
        let absolute = Arc::new(AtomicU64::new(1_000_000_000));
        let clock = Simulated::new(absolute, Drift::Constant { offset_ns: 9_000_000 }, 1_000_000);
        assert!(clock.now().unwrap().interval.after(Timestamp::from_micros(1_000_000)));
    }
}
