//! The daemon against masters and an oscillator whose errors are known.

use super::*;
use proptest::prelude::{ProptestConfig, prop_assert, proptest};

const S: u64 = 1_000_000_000;
const MS: u64 = 1_000_000;
const US: u64 = 1_000;

/// A master, and the way to it.
#[derive(Clone, Copy, Debug)]
struct Master {
    off_ns: i64,
    uncertainty_ns: u64,
    silent: bool,
}

const HONEST: Master = Master { off_ns: 0, uncertainty_ns: US, silent: false };

/// A daemon, the local clock it is given, and the truth.
struct Bench {
    daemon: Daemon,
    rng: SmallRng,
    absolute_ns: u64,
    /// What the local clock shows, and what it gains, in microseconds per second.
    local_ns: f64,
    rate_ppm: f64,
    masters: Vec<Master>,
    /// Each way, between these.
    delay_ns: (u64, u64),
    /// Exactly these, there and back.
    ways: Option<(u64, u64)>,
    /// How often a question or its answer is lost.
    loss: f64,
    /// Answers on their way: when they come, by absolute time.
    coming: Vec<(u64, Answer)>,
    wake_at_ns: u64,
    bound: Bound,
    /// By absolute time.
    published: Vec<(u64, Bound)>,
}

impl Bench {
    fn new(masters: &[Master], change: impl FnOnce(&mut DaemonConfig)) -> Bench {
        let names = (1..=masters.len()).map(|n| format!("m{n}")).collect();
        let mut config = DaemonConfig::new(names, 7);
        change(&mut config);
        Bench {
            daemon: Daemon::new(config),
            rng: SmallRng::seed_from_u64(8),
            absolute_ns: 1_000_000 * S,
            local_ns: 5e9,
            rate_ppm: 0.0,
            masters: masters.to_vec(),
            delay_ns: (MS, MS),
            ways: None,
            loss: 0.0,
            coming: Vec::new(),
            wake_at_ns: 0,
            bound: Bound::none("not stepped"),
            published: Vec::new(),
        }
    }

    fn local(&self) -> u64 {
        self.local_ns as u64
    }

    /// Lets time pass in steps of a tenth of a millisecond at most, looking after each.
    fn run(&mut self, seconds: u64, mut look: impl FnMut(&Bench)) {
        let end = self.absolute_ns + seconds * S;
        while self.absolute_ns < end {
            let mut answers = Vec::new();
            self.coming.retain(|(at, answer)| {
                let come = *at <= self.absolute_ns;
                if come {
                    answers.push(Answer { received_ns: self.local_ns as u64, ..*answer });
                }
                !come
            });
            if !answers.is_empty() || self.local() >= self.wake_at_ns {
                let out = self.daemon.step(self.local(), answers);
                self.wake_at_ns = out.wake_at_ns;
                out.ask.into_iter().for_each(|ask| self.ask(ask));
                if let Some(bound) = out.bound {
                    self.published.push((self.absolute_ns, bound.clone()));
                    self.bound = bound;
                }
            }
            look(self);
            let next = self.coming.iter().map(|(at, _)| *at).min().unwrap_or(u64::MAX);
            let step = next.saturating_sub(self.absolute_ns).clamp(10 * US, 20 * MS);
            self.absolute_ns += step;
            self.local_ns += step as f64 * (1.0 + self.rate_ppm / 1e6);
        }
    }

    fn ask(&mut self, ask: Ask) {
        let Master { off_ns, uncertainty_ns, silent } = self.masters[ask.master];
        if silent || self.rng.random_bool(self.loss) {
            return;
        }
        let (shortest, longest) = self.delay_ns;
        let mut way = || self.rng.random_range(shortest..=longest);
        let (go, come) = self.ways.unwrap_or_else(|| (way(), way()));
        let there = self.absolute_ns + go;
        let back = there + come;
        let says = there.saturating_add_signed(off_ns);
        let content = Some((says - uncertainty_ns, says + uncertainty_ns));
        let Ask { master, id } = ask;
        let answer = Answer { master, id, received_ns: 0, kind: MasterKind::Gps, content };
        self.coming.push((back, answer));
    }

    fn reading(&self) -> Result<Synchronization, Status> {
        let read = self.bound.read(self.local(), "masters");
        read.map_err(|error| error.status)?;
        let since = match &self.bound.known {
            Known::Since(since) => since,
            Known::Nothing { .. } => unreachable!("it could be read"),
        };
        Ok(since.at(self.local(), self.bound.drift_ppm))
    }

    fn epsilon_us(&self) -> u64 {
        self.reading().unwrap().epsilon_ns() / US
    }

    /// T1: a reading, if there is one, contains absolute time.
    fn assert_honest(&self) {
        if let Ok(now) = self.reading() {
            let truth = self.absolute_ns;
            assert!(
                now.earliest_ns <= truth && truth <= now.latest_ns,
                "T1: {truth} outside of {now:?} at {} µs/s",
                self.rate_ppm
            );
        }
    }

    fn verdicts(&self) -> Vec<Verdict> {
        self.daemon.sources(self.local()).masters.iter().map(|master| master.verdict).collect()
    }
}

/// T3: 30 s poll, 200 µs/s, 1 ms delay: a sawtooth from 1 to 7 ms, mean 4.
#[test]
fn epsilon_is_a_sawtooth() {
    let mut bench = Bench::new(&[HONEST; 3], |_| {});
    bench.run(120, Bench::assert_honest); // until the rate is known
    let (mut least, mut most, mut sum, mut count) = (u64::MAX, 0, 0, 0);
    bench.published.clear();
    bench.run(600, |bench| {
        let epsilon = bench.epsilon_us();
        (least, most) = (least.min(epsilon), most.max(epsilon));
        sum += epsilon;
        count += 1;
    });
    assert!((1_000..1_010).contains(&least), "{least}");
    assert!((6_600..7_030).contains(&most), "{most}");
    let mean = sum / count;
    assert!((3_800..4_100).contains(&mean), "{mean}");
    assert!((20..=22).contains(&bench.published.len()), "{}", bench.published.len());
}

#[test]
fn the_first_bound_comes_when_the_rate_is_known_and_grows_as_far_as_it_is_not() {
    let mut bench = Bench::new(&[HONEST; 3], |_| {});
    bench.run(30, Bench::assert_honest);
    let rates: Vec<u32> = bench.published.iter().map(|(_, bound)| bound.drift_ppm).collect();
    assert!(matches!(bench.published[0].1.known, Known::Nothing { .. }));
    assert!((1_900..2_300).contains(&rates[1]), "±2 ms in a second: {rates:?}");
    assert!(rates[1..].windows(2).all(|pair| pair[0] > pair[1]), "{rates:?}");
    bench.run(30, Bench::assert_honest);
    assert_eq!(bench.bound.drift_ppm, 200);
}

/// T5: whatever it gains or loses from the start, it never gives out a wrong interval.
#[test]
fn a_clock_that_never_ran_well_is_never_wrong() {
    for rate_ppm in [-20_000.0, -2_000.0, -400.0, -250.0, 190.0, 230.0, 300.0, 1_000.0, 2_000.0] {
        let mut bench = Bench::new(&[HONEST; 3], |_| {});
        bench.rate_ppm = rate_ppm;
        bench.run(300, Bench::assert_honest);
        let broken = bench.reading() == Err(Status::Broken);
        assert_eq!(broken, rate_ppm.abs() > 200.0, "{rate_ppm} µs/s");
        let measured = bench.daemon.sources(bench.local()).drift_measured_ppm;
        if let Some((low, high)) = measured {
            assert!(low <= rate_ppm && rate_ppm <= high, "{low} {rate_ppm} {high}");
        }
    }
}

/// At the very edge the measured rate goes a little up and down: no poll is lost for that.
#[test]
fn a_clock_at_the_applied_rate_keeps_its_sawtooth() {
    let mut bench = Bench::new(&[HONEST; 3], |_| {});
    bench.rate_ppm = -200.0;
    bench.run(300, Bench::assert_honest);
    bench.run(900, |bench| {
        bench.assert_honest();
        assert!(bench.epsilon_us() < 8_000, "{}", bench.epsilon_us());
    });
}

/// The positive control of the one above: with eviction off, T1 breaks.
#[test]
fn without_eviction_a_fast_clock_leaves_its_bound() {
    let mut bench = Bench::new(&[HONEST; 3], |config| config.evict = false);
    bench.rate_ppm = 2_000.0;
    let mut outside = 0;
    bench.run(60, |bench| {
        let now = bench.reading().ok();
        outside += u64::from(now.is_some_and(|now| now.earliest_ns > bench.absolute_ns));
    });
    assert!(outside > 1_000, "{outside}");
}

#[test]
fn a_clock_that_begins_to_run_wrongly_is_found_out_with_the_next_poll_and_believed_again_later() {
    let mut bench = Bench::new(&[HONEST; 3], |_| {});
    bench.run(200, Bench::assert_honest);
    bench.rate_ppm = 2_000.0;
    bench.run(31, |_| {});
    assert_eq!(bench.reading(), Err(Status::Broken));
    let error = bench.bound.read(bench.local(), "masters").unwrap_err().to_string();
    assert!(error.contains("µs/s off its masters"), "{error}");
    bench.rate_ppm = 0.0;
    bench.run(150, Bench::assert_honest);
    assert_eq!(bench.reading(), Err(Status::Broken), "what it did wrong is still remembered");
    bench.run(120, Bench::assert_honest);
    assert!(bench.reading().is_ok());
}

/// The less it exceeds the applied rate, the later that can be proved; what it gives out until then
/// is wrong by little.
#[test]
fn a_clock_that_begins_to_run_a_little_too_fast_is_found_out_within_a_few_polls() {
    let mut bench = Bench::new(&[HONEST; 3], |_| {});
    bench.run(400, Bench::assert_honest);
    bench.rate_ppm = 250.0;
    let mut wrong_us = 0;
    bench.run(130, |bench| {
        let now = bench.reading().ok();
        let ahead = now.map_or(0, |now| now.earliest_ns.saturating_sub(bench.absolute_ns));
        wrong_us = wrong_us.max(ahead / US);
    });
    assert_eq!(bench.reading(), Err(Status::Broken));
    assert!(wrong_us < 2_000, "{wrong_us}");
}

/// An average over an hour hides what the last two minutes were.
#[test]
fn a_clock_that_went_wrong_during_an_outage_is_measured_before_it_is_believed() {
    let mut bench = Bench::new(&[HONEST; 3], |_| {});
    bench.run(400, Bench::assert_honest);
    bench.masters.iter_mut().for_each(|master| master.silent = true);
    bench.run(3_480, |_| {});
    bench.rate_ppm = 3_000.0;
    bench.run(120, |_| {});
    bench.masters.iter_mut().for_each(|master| master.silent = false);
    bench.run(120, Bench::assert_honest);
}

/// Its own rate is within bounds, but its time is not where it was: as after a resume on a machine
/// whose boot clock does not count suspended time.
#[test]
fn a_clock_that_jumps_is_broken() {
    let mut bench = Bench::new(&[HONEST; 3], |_| {});
    bench.run(200, Bench::assert_honest);
    bench.local_ns -= 50e6;
    bench.run(31, |_| {});
    assert_eq!(bench.reading(), Err(Status::Broken));
}

#[test]
fn masters_lost_make_it_grow_and_then_there_is_no_bound() {
    let mut bench = Bench::new(&[HONEST; 3], |config| config.epsilon_max_ns = 40 * MS);
    bench.run(100, Bench::assert_honest);
    let good = bench.masters.clone();
    bench.masters.iter_mut().for_each(|master| master.silent = true);
    bench.run(60, Bench::assert_honest);
    let status = |bench: &Bench| bench.bound.read(bench.local(), "masters").map(|r| r.status);
    assert_eq!(status(&bench).unwrap(), Status::Holdover);
    assert!(bench.epsilon_us() > 12_000, "{}", bench.epsilon_us());
    assert_eq!(bench.verdicts(), [Verdict::Silent; 3]);
    bench.run(180, Bench::assert_honest);
    assert_eq!(status(&bench).unwrap_err().status, Status::Unsynchronized);
    bench.masters = good;
    bench.run(31, Bench::assert_honest);
    assert_eq!(status(&bench).unwrap(), Status::Synchronized);
}

#[test]
fn a_minority_of_liars_is_rejected_and_does_no_harm() {
    let mut bench = Bench::new(&[HONEST; 5], |_| {});
    bench.run(100, Bench::assert_honest);
    bench.masters[1].off_ns = 50_000_000;
    bench.masters[3].off_ns = -300_000_000;
    bench.run(31, Bench::assert_honest);
    let (good, bad) = (Verdict::Accepted, Verdict::Rejected);
    assert_eq!(bench.verdicts(), [good, bad, good, bad, good]);
    let offset_ns = bench.daemon.sources(bench.local()).masters[1].offset_ns.unwrap();
    assert!((offset_ns - 50_000_000).unsigned_abs() < 7 * MS, "{offset_ns}");
    bench.run(60, Bench::assert_honest);
    assert!(bench.epsilon_us() <= 7_030);
}

/// Of two that answer one may be the liar, and the silent one honest.
#[test]
fn a_liar_and_a_silent_master_of_three_do_not_move_the_clock() {
    let mut bench = Bench::new(&[HONEST; 3], |_| {});
    bench.run(200, Bench::assert_honest);
    bench.masters[0].off_ns = -1_500_000; // within the round trip of an honest one
    bench.masters[1].silent = true;
    bench.run(31, Bench::assert_honest);
    bench.delay_ns = (10 * MS, 10 * MS);
    for round in 0..20 {
        bench.masters[1].silent = round % 2 == 0;
        bench.masters[0].off_ns = if round % 4 < 2 { -19_000_000 } else { 19_000_000 };
        bench.run(31, |bench| {
            bench.assert_honest();
            assert!(bench.reading().is_ok(), "{:?}", bench.bound);
        });
    }
}

/// What it has measured and what it has known is not lost in a round that says little.
#[test]
fn one_slow_round_does_not_make_epsilon_grow_faster() {
    let mut bench = Bench::new(&[HONEST; 3], |_| {});
    bench.run(400, Bench::assert_honest);
    let count = bench.published.len();
    bench.delay_ns = (200 * MS, 200 * MS);
    while bench.published.len() == count {
        bench.run(1, Bench::assert_honest);
    }
    bench.delay_ns = (MS, MS);
    let mut worst_us = 0;
    bench.run(300, |bench| {
        bench.assert_honest();
        assert_eq!(bench.bound.drift_ppm, 200);
        worst_us = worst_us.max(bench.epsilon_us());
    });
    assert!(worst_us < 14_000, "two polls' worth: {worst_us}");
}

#[test]
fn an_agreement_that_says_little_does_not_take_the_bound_away() {
    let mut bench = Bench::new(&[HONEST; 3], |config| config.poll_ns = S);
    bench.run(100, Bench::assert_honest);
    bench.masters.iter_mut().for_each(|master| master.uncertainty_ns = 3 * S);
    bench.run(60, |bench| {
        bench.assert_honest();
        assert!(bench.epsilon_us() < 20_000);
    });
}

/// Polls that come more often than answers, or nearly: no poll says much, all of them do.
#[test]
fn a_healthy_clock_polled_often_keeps_its_bound() {
    for (poll_ms, delay_ms) in [(1, 1), (1, 5), (10, 20), (100, 20), (1_000, 20), (1_000, 100)] {
        let mut bench = Bench::new(&[HONEST; 3], |config| config.poll_ns = poll_ms * MS);
        bench.delay_ns = (delay_ms * MS, delay_ms * MS);
        bench.run(150, Bench::assert_honest);
        let mut most_us = 0;
        bench.run(50, |bench| {
            bench.assert_honest();
            most_us = most_us.max(bench.epsilon_us());
        });
        let expected_us = delay_ms * 1_000 + poll_ms;
        assert!(most_us < 2 * expected_us, "every {poll_ms} ms, {delay_ms} ms away: {most_us} µs");
    }
}

#[test]
fn the_end_of_the_local_clock_is_no_panic() {
    let mut config = DaemonConfig::new(vec!["m1".into()], 1);
    (config.poll_ns, config.answer_within_ns) = (u64::MAX, u64::MAX);
    let mut daemon = Daemon::new(config);
    daemon.step(u64::MAX, Vec::new());
    daemon.step(u64::MAX, Vec::new());
}

/// An oscillator that no machine has, and a way back that takes all the time.
#[test]
fn a_clock_far_beyond_all_bounds_gives_out_nothing_wrong() {
    for rate_ppm in [-50_000.0, -20_000.0, 20_000.0] {
        for there_ms in [0, 390] {
            let mut bench = Bench::new(&[HONEST], |_| {});
            bench.rate_ppm = rate_ppm;
            bench.ways = Some((there_ms * MS, (390 - there_ms) * MS));
            bench.run(60, Bench::assert_honest);
        }
    }
}

#[test]
fn a_majority_of_liars_who_differ_are_not_believed() {
    let mut bench = Bench::new(&[HONEST; 3], |_| {});
    bench.run(100, Bench::assert_honest);
    bench.masters[0].off_ns = 50_000_000;
    bench.masters[1].off_ns = -50_000_000;
    bench.run(60, Bench::assert_honest);
    assert_eq!(bench.verdicts(), [Verdict::NoMajority; 3]);
    assert!(bench.epsilon_us() > 12_000);
}

#[test]
fn a_majority_of_liars_who_agree_breaks_a_clock_that_knows_better() {
    let mut bench = Bench::new(&[HONEST; 3], |_| {});
    bench.run(100, Bench::assert_honest);
    bench.masters[0].off_ns = 50_000_000;
    bench.masters[1].off_ns = 50_000_000;
    bench.run(150, Bench::assert_honest);
    assert_eq!(bench.reading(), Err(Status::Broken));
    let (good, bad) = (Verdict::Accepted, Verdict::Rejected);
    assert_eq!(bench.verdicts(), [good, good, bad]);
}

#[test]
fn answers_that_are_late_repeated_or_of_another_round_count_for_nothing() {
    let mut bench = Bench::new(&[HONEST], |_| {});
    let ask = bench.daemon.step(0, Vec::new()).ask[0];
    let answer = |id, received_ns| Answer {
        master: 0,
        id,
        received_ns,
        kind: MasterKind::Atomic,
        content: Some((5 * S, 5 * S)),
    };
    assert_eq!(bench.daemon.step(MS, vec![answer(ask.id ^ 1, MS)]).bound, None);
    assert!(bench.daemon.step(MS, vec![answer(ask.id, MS)]).bound.is_some());
    assert_eq!(bench.daemon.step(2 * MS, vec![answer(ask.id, 2 * MS)]).bound, None);
}

#[test]
fn nonsense_of_a_master_is_no_time() {
    for content in [None, Some((9, 3)), Some((u64::MAX, u64::MAX)), Some((0, u64::MAX))] {
        let mut bench = Bench::new(&[HONEST], |_| {});
        let ask = bench.daemon.step(0, Vec::new()).ask[0];
        let answer =
            Answer { master: 0, id: ask.id, received_ns: MS, kind: MasterKind::Gps, content };
        bench.daemon.step(MS, vec![answer]);
        assert!(bench.reading().is_err());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// T1, with delays that are not the same both ways, losses that turn a minority of liars into
    /// half of those who answer, and silence at times.
    #[test]
    fn a_bound_contains_the_truth_while_a_majority_is_honest(
        seed: u64,
        rate_ppm in -200.0..200.0,
        honest in 1usize..4,
        lies in proptest::collection::vec(-400_000_000i64..400_000_000, 0..3),
        longest_us in 100u64..60_000,
        poll_s in 2u64..40,
        loss in 0.0..0.5,
    ) {
        let mut masters = vec![HONEST; honest];
        for off_ns in lies.into_iter().take(honest - 1) {
            masters.insert(0, Master { off_ns, ..HONEST });
        }
        let mut bench = Bench::new(&masters, |config| {
            config.seed = seed;
            config.poll_ns = poll_s * S;
        });
        bench.rate_ppm = rate_ppm;
        bench.rng = SmallRng::seed_from_u64(seed);
        bench.delay_ns = (50 * US, longest_us * US);
        bench.loss = if seed % 2 == 0 { loss } else { 0.0 };
        let mut read = 0u64;
        bench.run(200, |bench| {
            bench.assert_honest();
            read += u64::from(bench.reading().is_ok());
        });
        prop_assert!(read > 0 || bench.loss > 0.0, "it had a bound for some of the time");
        prop_assert!(bench.reading() != Err(Status::Broken), "honest clocks are not evicted");
    }
}
