//! The clock of somebody who has no bound of their own, and asks those who have one.
//!
//! Whoever is asked what time it is answers with an interval that contained absolute time when the
//! answer was made (T1). That was at some moment between the question and the answer, by the local
//! clock of whoever asks:
//!
//! ```text
//!   local clock   ──┬── question leaves ─────────── answer is here ──►
//!                   │      └───────── [e, l] was right ──┘
//!   as of the question:  not before  e − round trip,  not after  l
//! ```
//!
//! So half of the round trip is added to ε, and from then on the applied drift rate (T3). What was
//! known before goes on counting: both are true, so their intersection is.
//!
//! ## Who is believed
//! One node at a time. A database's client has no choice: timestamps, commit waits and snapshots are
//! what servers say they are, and a server whose clock breaks its promise breaks external consistency
//! with or without the client's help (T6). Two answers that cannot both be true show that somebody
//! broke it; from then on until one answer agrees with the one before, either may be right, and the
//! clock says no more than that, or has no bound at all (T5).

use super::host::{self, Bracket};
use super::steered::{Oscillator, Steered};
use crate::bound::{Bound, Known, Synchronization};
use crate::clock::{MasterSeen, Sources, Verdict};
use crate::{Clock, ClockError, Interval, Reading, Status};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// The provider's name.
const PROVIDER: &str = "nodes";

/// How a [`Nodes`] clock judges what it hears.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NodesConfig {
    /// By how much `CLOCK_BOOTTIME` may be off from one answer to the next, in microseconds per
    /// second (T3).
    pub drift_ppm: u32,
    /// Without an answer for so long, it is holdover, in milliseconds.
    pub holdover_after_ms: u64,
    /// A wider bound than this is none, in milliseconds.
    pub epsilon_max_ms: u64,
}

impl Default for NodesConfig {
    fn default() -> NodesConfig {
        // An oscillator may be off by 200 µs/s, and while the kernel slews the clock, by 500 more.
        NodesConfig { drift_ppm: 700, holdover_after_ms: 5_000, epsilon_max_ms: 500 }
    }
}

/// A clock that is fed with what nodes answer when they are asked what time it is. Half of the round
/// trip is added to ε, then the applied drift rate (T3); what was known before goes on counting. One
/// node is believed at a time, and two that contradict each other both may be right, until one is
/// confirmed (T5). Clones are the same clock.
#[derive(Clone, Debug)]
pub struct Nodes {
    config: NodesConfig,
    steered: Steered,
    heard: Arc<Mutex<Heard>>,
}

/// What the clock goes by.
#[derive(Debug, Default)]
struct Heard {
    last: Option<Synchronization>,
    /// Who said so.
    from: String,
    /// How often two answers could not both be true.
    contradictions: u64,
}

/// A question that is under way; see [`Nodes::ask`].
#[derive(Clone, Copy, Debug)]
pub struct Asked {
    before_ns: u64,
}

impl Nodes {
    /// A clock that has heard nothing yet.
    pub fn new(config: NodesConfig) -> Nodes {
        let steered = Steered::new(PROVIDER, Oscillator::Boot);
        Nodes { config, steered, heard: Arc::default() }
    }

    /// To be called before the question leaves.
    pub fn ask(&self) -> Asked {
        Asked { before_ns: host::boot_ns() }
    }

    /// The answer is here: what `from` says the time was.
    pub fn take(&self, asked: Asked, from: &str, answer: Interval) {
        let Asked { before_ns } = asked;
        self.learn(from, &Bracket { before_ns, value: answer, after_ns: host::boot_ns() });
    }

    fn learn(&self, from: &str, answer: &Bracket<Interval>) {
        let ns = |at: crate::Timestamp| at.micros().saturating_mul(1_000);
        let drift_ppm = self.config.drift_ppm;
        let (earliest_ns, latest_ns) = (ns(answer.value.earliest()), ns(answer.value.latest()));
        let new = answer.synchronization(earliest_ns, latest_ns, drift_ppm);
        let mut heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        let before = heard.last.map(|last| last.at(new.local_ns, drift_ppm));
        let (known, verdict) = match before.map(|before| (before, before.intersect(&new))) {
            None => (Ok(new), Verdict::Accepted),
            Some((_, Some(both))) => (Ok(both), Verdict::Accepted),
            Some((before, None)) => {
                heard.contradictions += 1;
                let known = self.either(before, new, &heard.from, from);
                (known, Verdict::NoMajority)
            }
        };
        // After a contradiction the newer word is what the next one is held against.
        heard.last =
            Some(if verdict == Verdict::Accepted { known.clone().unwrap_or(new) } else { new });
        from.clone_into(&mut heard.from);
        self.steered.publish(match known {
            Ok(since) => Bound {
                known: Known::Since(since),
                drift_ppm,
                holdover_after_ns: self.config.holdover_after_ms.saturating_mul(1_000_000),
                epsilon_max_ns: self.epsilon_max_ns(),
            },
            Err(reason) => Bound::without(Status::Broken, reason),
        });
        self.tell(&heard, &new, before, answer, verdict);
    }

    /// One of the two is right: absolute time is within what either allows.
    fn either(
        &self,
        before: Synchronization,
        new: Synchronization,
        earlier: &str,
        later: &str,
    ) -> Result<Synchronization, String> {
        let hull = Synchronization::new(
            new.local_ns,
            before.earliest_ns.min(new.earliest_ns),
            before.latest_ns.max(new.latest_ns),
        );
        if hull.epsilon_ns() <= self.epsilon_max_ns() {
            return Ok(hull);
        }
        let gap_ns = before.earliest_ns.max(new.earliest_ns) - before.latest_ns.min(new.latest_ns);
        Err(format!(
            "{later} and, before it, {earlier} said what time it is, and that is at least {} ms apart",
            gap_ns / 1_000_000
        ))
    }

    fn epsilon_max_ns(&self) -> u64 {
        self.config.epsilon_max_ms.saturating_mul(1_000_000)
    }

    fn tell(
        &self,
        heard: &Heard,
        new: &Synchronization,
        before: Option<Synchronization>,
        answer: &Bracket<Interval>,
        verdict: Verdict,
    ) {
        let middle = |of: &Synchronization| of.earliest_ns.midpoint(of.latest_ns);
        let name = match heard.contradictions {
            0 => heard.from.clone(),
            count => format!("{} ({count} contradictions so far)", heard.from),
        };
        let seen = MasterSeen {
            name,
            kind: Some("node".to_owned()),
            offset_ns: before.map(|before| middle(new).wrapping_sub(middle(&before)) as i64),
            delay_ns: Some(answer.width_ns()),
            uncertainty_ns: Some(answer.value.epsilon_us().saturating_mul(1_000)),
            answered_ago: None,
            verdict,
        };
        self.steered.tell(Sources {
            drift_applied_ppm: Some(f64::from(self.config.drift_ppm)),
            drift_measured_ppm: None,
            synchronized_ago: None,
            masters: vec![seen],
        });
    }
}

impl Clock for Nodes {
    fn read(&self) -> Result<Reading, ClockError> {
        self.steered.read()
    }

    fn sources(&self) -> Sources {
        let mut sources = self.steered.sources();
        let heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        let since = heard.last.map(|last| host::boot_ns().saturating_sub(last.local_ns));
        sources.synchronized_ago = since.map(Duration::from_nanos);
        sources
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Timestamp;
    use rand::rngs::StdRng;
    use rand::{Rng, SeedableRng};

    const MS: u64 = 1_000_000;

    fn interval(earliest_us: u64, latest_us: u64) -> Interval {
        Interval::new(Timestamp::from_micros(earliest_us), Timestamp::from_micros(latest_us))
    }

    /// What is known when the local clock shows this.
    fn at(clock: &Nodes, local_ns: u64) -> Result<Interval, ClockError> {
        let bound = clock.steered.bound();
        bound.read(local_ns, PROVIDER).map(|reading| reading.interval)
    }

    #[test]
    fn the_round_trip_is_part_of_the_bound() {
        let clock = Nodes::new(NodesConfig::default());
        let (before_ns, after_ns) = (1_000 * MS, 1_010 * MS);
        clock.learn("n1", &Bracket { before_ns, value: interval(5_000_000, 5_000_100), after_ns });
        let then = at(&clock, before_ns).unwrap();
        // 10 ms of round trip, and 700 µs/s of drift over it.
        assert_eq!(then.earliest().micros(), 5_000_000 - 10_000 - 8);
        assert_eq!(then.latest().micros(), 5_000_100);
        let later = at(&clock, before_ns + 1_000 * MS).unwrap();
        assert_eq!(later.latest().micros(), 6_000_100 + 701, "T3");
    }

    #[test]
    fn without_an_answer_there_is_no_bound_and_one_that_is_too_old_is_none() {
        let clock = Nodes::new(NodesConfig::default());
        assert_eq!(clock.read().unwrap_err().status, Status::Unsynchronized);
        clock.take(clock.ask(), "n1", interval(7, 8));
        let reading = clock.read().unwrap();
        assert_eq!((reading.provider, reading.status), ("nodes", Status::Synchronized));
        assert_eq!(clock.sources().masters[0].name, "n1");
        let hour_ns = host::boot_ns() + 3_600_000 * MS;
        assert_eq!(
            clock.steered.bound().read(hour_ns, "").unwrap_err().status,
            Status::Unsynchronized
        );
    }

    #[test]
    fn nodes_that_contradict_each_other_are_both_possible_until_one_is_confirmed() {
        let clock = Nodes::new(NodesConfig::default());
        let hear = |from, local_ns, middle_us: u64| {
            let value = interval(middle_us - 50, middle_us + 50);
            clock.learn(from, &Bracket { before_ns: local_ns, value, after_ns: local_ns });
        };
        hear("n1", 0, 1_000_000);
        hear("n2", 1_000 * MS, 2_100_000); // 100 ms ahead of n1
        let both = at(&clock, 1_000 * MS).unwrap();
        assert!(both.earliest().micros() <= 2_000_000 && both.latest().micros() >= 2_100_000);
        hear("n2", 2_000 * MS, 3_100_000);
        assert!(at(&clock, 2_000 * MS).unwrap().epsilon_us() < 1_000, "it said so twice");
        hear("n3", 3_000 * MS, 9_000_000); // five seconds ahead
        let broken = at(&clock, 3_000 * MS).unwrap_err();
        assert_eq!(broken.status, Status::Broken, "T5");
        assert!(broken.reason.contains("n3 and, before it, n2"), "{broken}");
        hear("n3", 4_000 * MS, 10_000_000);
        assert!(at(&clock, 4_000 * MS).is_ok());
        assert!(clock.sources().masters[0].name.contains("2 contradictions"));
    }

    /// Honest nodes, made-up delays, and an oscillator as bad as it may be: absolute time is never
    /// outside of what the clock says.
    #[test]
    fn absolute_time_is_always_inside() {
        let seed: u64 = rand::rng().random();
        println!("seed {seed}");
        let mut random = StdRng::seed_from_u64(seed);
        for _ in 0..200 {
            let config = NodesConfig::default();
            let clock = Nodes::new(config);
            // What absolute time gains on the local clock.
            let ppm = random.random_range(-0.95..0.95) * f64::from(config.drift_ppm);
            let absolute_ns = |local_ns: u64| {
                let gained_ns = (local_ns as f64 * ppm / 1e6) as i64;
                (1_700_000_000_000 * MS + local_ns).saturating_add_signed(gained_ns)
            };
            let mut local_ns = random.random_range(0..1_000 * MS);
            for _ in 0..20 {
                let before_ns = local_ns;
                let answered_ns = before_ns + random.random_range(0..80 * MS);
                let after_ns = answered_ns + random.random_range(0..80 * MS);
                let epsilon_ns = random.random_range(1_000..5 * MS);
                let off_ns = random.random_range(0..2 * epsilon_ns);
                let middle_ns = absolute_ns(answered_ns) + epsilon_ns - off_ns;
                let value = Interval::around_ns(middle_ns, epsilon_ns);
                clock.learn("n1", &Bracket { before_ns, value, after_ns });
                for _ in 0..5 {
                    local_ns = after_ns + random.random_range(0..3_000 * MS);
                    let now = at(&clock, local_ns).expect("a bound");
                    let absolute_us = absolute_ns(local_ns) / 1_000;
                    let inside = now.earliest().micros() <= absolute_us
                        && absolute_us <= now.latest().micros();
                    assert!(inside, "T1: {absolute_us} is not in {now:?} (seed {seed})");
                }
            }
            assert_eq!(clock.heard.lock().unwrap().contradictions, 0, "seed {seed}");
        }
    }
}
