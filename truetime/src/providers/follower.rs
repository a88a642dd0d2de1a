//! Keeps a clock level with another one of this host that says how wrong it may be.

use super::host::{self, Bracket};
use super::steered::{Oscillator, Steered};
use super::worker::Worker;
use crate::bound::{Bound, Known, Synchronization};
use crate::clock::{MasterSeen, Sources, Verdict};
use crate::{Clock, ClockError, Reading};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// What the followed clock says: absolute time is between these.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Window {
    /// In nanoseconds since the epoch.
    pub earliest_ns: u64,
    /// In nanoseconds since the epoch.
    pub latest_ns: u64,
    /// It says itself that it runs on by its own now.
    pub holdover: bool,
}

/// How to follow.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rule {
    /// What is followed, and where it is found: for people.
    pub source: &'static str,
    pub kind: &'static str,
    /// By how much `CLOCK_BOOTTIME` may be off from one look to the next, in microseconds per
    /// second.
    pub drift_ppm: u32,
    /// Without a look for so long, it is holdover, in nanoseconds.
    pub holdover_after_ns: u64,
    /// A wider bound than this is none, in nanoseconds.
    pub epsilon_max_ns: u64,
}

/// See the [module](self).
#[derive(Debug)]
pub(super) struct Follower {
    rule: Rule,
    steered: Steered,
    last: Option<Synchronization>,
    steps: u64,
    looked_ns: Arc<AtomicU64>,
}

impl Follower {
    /// Publishes to this clock.
    pub fn new(rule: Rule, steered: Steered) -> Follower {
        Follower { rule, steered, last: None, steps: 0, looked_ns: Arc::default() }
    }

    /// What a look at the followed clock has shown, or why it says nothing.
    ///
    /// Its own word is what counts, even if it contradicts what it said before: it has been set.
    /// That is counted. The one or the other was wrong, of which
    /// [`TrueTime`](crate::TrueTime) makes what is to be made of it.
    pub fn take(&mut self, look: &Bracket<Result<Window, String>>) {
        let Rule { drift_ppm, holdover_after_ns, epsilon_max_ns, .. } = self.rule;
        self.looked_ns.store(look.after_ns, Ordering::Relaxed);
        let window = match &look.value {
            Ok(window) => window,
            Err(reason) => {
                self.last = None;
                self.steered.publish(Bound::none(reason.clone()));
                return self.tell(look, None, Verdict::Unsynchronized);
            }
        };
        let now = look.synchronization(window.earliest_ns, window.latest_ns, drift_ppm);
        let before = self.last.map(|last| last.at(now.local_ns, drift_ppm));
        if before.is_some_and(|before| before.intersect(&now).is_none()) {
            self.steps += 1;
        }
        let middle = |of: &Synchronization| of.earliest_ns.midpoint(of.latest_ns);
        let offset_ns = before.map(|before| middle(&now).wrapping_sub(middle(&before)) as i64);
        self.last = Some(now);
        self.steered.publish(Bound {
            known: Known::Since(now),
            drift_ppm,
            holdover_after_ns: if window.holdover { 0 } else { holdover_after_ns },
            epsilon_max_ns,
        });
        let uncertainty_ns = (window.latest_ns - window.earliest_ns).div_ceil(2);
        self.tell(look, Some((uncertainty_ns, offset_ns)), Verdict::Accepted);
    }

    fn tell<T>(&self, look: &Bracket<T>, time: Option<(u64, Option<i64>)>, verdict: Verdict) {
        let name = match self.steps {
            0 => self.rule.source.to_owned(),
            1 => format!("{}, set once", self.rule.source),
            steps => format!("{}, set {steps} times", self.rule.source),
        };
        let seen = MasterSeen {
            name,
            kind: Some(self.rule.kind.to_owned()),
            offset_ns: time.and_then(|(_, offset_ns)| offset_ns),
            delay_ns: Some(look.width_ns()),
            uncertainty_ns: time.map(|(uncertainty_ns, _)| uncertainty_ns),
            answered_ago: None,
            verdict,
        };
        self.steered.tell(Sources {
            drift_applied_ppm: Some(f64::from(self.rule.drift_ppm)),
            drift_measured_ppm: None,
            synchronized_ago: None,
            masters: vec![seen],
        });
    }
}

/// A clock that a thread keeps level with another one of this host.
#[derive(Debug)]
pub(super) struct Followed {
    steered: Steered,
    /// When the last look was, by `CLOCK_BOOTTIME`.
    pub looked_ns: Arc<AtomicU64>,
    _worker: Worker,
}

impl Followed {
    /// Looks now, and then again and again until this is dropped. The names are those of the
    /// provider and of its thread.
    pub fn start(
        (provider, thread): (&'static str, &'static str),
        rule: Rule,
        every: Duration,
        mut look: impl FnMut() -> Bracket<Result<Window, String>> + Send + 'static,
    ) -> io::Result<Followed> {
        let steered = Steered::new(provider, Oscillator::Boot);
        let mut follower = Follower::new(rule, steered.clone());
        let looked_ns = follower.looked_ns.clone();
        let mut turn = move || {
            follower.take(&look());
            every
        };
        turn();
        Ok(Followed { steered, looked_ns, _worker: Worker::start(thread, turn)? })
    }
}

impl Clock for Followed {
    fn read(&self) -> Result<Reading, ClockError> {
        self.steered.read()
    }

    fn sources(&self) -> Sources {
        let mut sources = self.steered.sources();
        let passed_ns = host::boot_ns().saturating_sub(self.looked_ns.load(Ordering::Relaxed));
        let ago = Some(Duration::from_nanos(passed_ns));
        for master in &mut sources.masters {
            master.answered_ago = ago;
            if master.verdict == Verdict::Accepted {
                sources.synchronized_ago = ago;
            }
        }
        sources
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::providers::{Absolute, Drift, Oscillator};
    use crate::{Clock, Status, TrueTime};
    use arc_swap::ArcSwap;

    const S: u64 = 1_000_000_000;
    const RULE: Rule = Rule {
        source: "kernel",
        kind: "test",
        drift_ppm: 500,
        holdover_after_ns: 5 * S,
        epsilon_max_ns: S / 2,
    };

    /// A clock by an oscillator that shows what is stored here, and its follower.
    fn followed() -> (Arc<AtomicU64>, Steered, Follower) {
        let local = Arc::new(AtomicU64::new(10 * S));
        let drift = Arc::new(ArcSwap::from_pointee(Drift::Constant { offset_ns: 0 }));
        let oscillator = Oscillator::Simulated { absolute: Absolute::World(local.clone()), drift };
        let steered = Steered::new("system", oscillator);
        (local, steered.clone(), Follower::new(RULE, steered))
    }

    fn look(local_ns: u64, middle_ns: u64, epsilon_ns: u64) -> Bracket<Result<Window, String>> {
        let (earliest_ns, latest_ns) = (middle_ns - epsilon_ns, middle_ns + epsilon_ns);
        let window = Window { earliest_ns, latest_ns, holdover: false };
        Bracket { before_ns: local_ns, value: Ok(window), after_ns: local_ns }
    }

    #[test]
    fn carries_on_between_looks_and_takes_each_at_its_word() {
        let (local, clock, mut follower) = followed();
        assert_eq!(clock.read().unwrap_err().status, Status::Unsynchronized);
        follower.take(&look(10 * S, 1_000 * S, 100_000));
        local.store(11 * S, Ordering::Relaxed);
        let now = clock.read().unwrap().interval;
        assert!((600..=602).contains(&now.epsilon_us()), "100 µs, and 500 µs of drift: {now}");
        assert!((now.earliest().micros() + 601).abs_diff(1_001_000_000) <= 1);
        follower.take(&look(11 * S, 1_001 * S, 90_000));
        assert_eq!(clock.read().unwrap().interval.epsilon_us(), 90);
        assert_eq!(clock.read().unwrap().status, Status::Synchronized);
        assert_eq!(clock.sources().masters[0].verdict, Verdict::Accepted);
    }

    #[test]
    fn what_runs_on_by_its_own_is_holdover_and_what_is_not_looked_at_becomes_it() {
        let (local, clock, mut follower) = followed();
        let mut alone = look(10 * S, 1_000 * S, 100_000);
        alone.value = alone.value.map(|window| Window { holdover: true, ..window });
        follower.take(&alone);
        local.store(10 * S + 1, Ordering::Relaxed);
        assert_eq!(clock.read().unwrap().status, Status::Holdover);
        follower.take(&look(10 * S, 1_000 * S, 100_000));
        assert_eq!(clock.read().unwrap().status, Status::Synchronized);
        local.store(15 * S + 1, Ordering::Relaxed);
        assert_eq!(clock.read().unwrap().status, Status::Holdover);
        local.store(2_000 * S, Ordering::Relaxed);
        assert_eq!(clock.read().unwrap_err().status, Status::Unsynchronized);
    }

    #[test]
    fn no_bound_is_none_and_comes_back() {
        let (_, clock, mut follower) = followed();
        follower.take(&look(10 * S, 1_000 * S, 100_000));
        let nothing = Err("it says so".to_owned());
        follower.take(&Bracket { before_ns: 10 * S, value: nothing, after_ns: 10 * S });
        let error = clock.read().unwrap_err();
        assert_eq!((error.status, error.reason.as_str()), (Status::Unsynchronized, "it says so"));
        assert_eq!(clock.sources().masters[0].verdict, Verdict::Unsynchronized);
        follower.take(&look(10 * S, 1_000 * S, 100_000));
        assert!(clock.read().is_ok());
    }

    #[test]
    fn a_clock_that_was_set_is_counted_and_its_new_word_holds() {
        let (local, clock, mut follower) = followed();
        follower.take(&look(10 * S, 1_000 * S, 100_000));
        let tt = TrueTime::new(clock.clone());
        tt.now().unwrap();
        // Within what both say: a slew, no step.
        local.store(11 * S, Ordering::Relaxed);
        follower.take(&look(11 * S, 1_001 * S + 500_000, 100_000));
        assert_eq!((follower.steps, clock.sources().masters[0].offset_ns), (0, Some(500_000)));
        tt.now().unwrap();
        // Back by a second. The provider says so; the node's clock is broken until time has caught
        // up with what it said.
        local.store(12 * S, Ordering::Relaxed);
        follower.take(&look(12 * S, 1_001 * S, 100_000));
        assert_eq!(follower.steps, 1);
        assert_eq!(clock.sources().masters[0].name, "kernel, set once");
        assert_eq!(clock.read().unwrap().interval.latest().micros(), 1_001_000_100);
        assert_eq!(tt.now().unwrap_err().status, Status::Broken);
        local.store(13 * S, Ordering::Relaxed);
        follower.take(&look(13 * S, 1_002 * S, 100_000));
        assert!(tt.now().is_ok());
        assert_eq!(follower.steps, 1);
    }
}
