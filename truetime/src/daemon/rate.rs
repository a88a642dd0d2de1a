//! How fast the local clock runs, against what the masters agreed on (T5).

use crate::bound::Synchronization;
use std::collections::VecDeque;

/// Agreements that are kept to measure by.
const KEPT: usize = 12;

/// Between which rates a clock certainly ran on average, in microseconds gained per second of
/// absolute time.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rate {
    /// It gained at least this (negative: it lost at most this).
    pub low_ppm: f64,
    /// It gained at most this.
    pub high_ppm: f64,
}

impl Rate {
    /// From one agreement to a later one.
    ///
    /// Absolute time went on by at least `later.earliest − earlier.latest` and at most
    /// `later.latest − earlier.earliest` while the local clock went on by what it shows; `None`:
    /// too little to say anything.
    pub fn between(earlier: &Synchronization, later: &Synchronization) -> Option<Rate> {
        let local = later.local_ns.checked_sub(earlier.local_ns)? as f64;
        let least = later.earliest_ns.checked_sub(earlier.latest_ns).filter(|ns| *ns > 0)? as f64;
        let most = (later.latest_ns - earlier.earliest_ns) as f64;
        let gained = |passed: f64| (local - passed) / passed * 1e6;
        Some(Rate { low_ppm: gained(most), high_ppm: gained(least) })
    }

    /// Whether it certainly gained or lost more than this.
    pub fn exceeds(&self, ppm: u32) -> bool {
        self.low_ppm > f64::from(ppm) || self.high_ppm < -f64::from(ppm)
    }

    /// The most that it may have gained or lost, rounded up.
    pub fn worst_ppm(&self) -> u32 {
        let worst = self.low_ppm.abs().max(self.high_ppm.abs()).ceil();
        if worst < f64::from(u32::MAX) { worst as u32 } else { u32::MAX }
    }
}

/// The last few agreements, oldest first.
#[derive(Clone, Debug)]
pub(super) struct Meter {
    kept: VecDeque<Synchronization>,
    /// How far back they go, in nanoseconds: a rate over longer than this hides what it is now.
    span_ns: u64,
}

impl Meter {
    pub fn new(span_ns: u64) -> Meter {
        Meter { kept: VecDeque::new(), span_ns }
    }

    /// Takes a new agreement, and tells whether the clock certainly broke the applied rate since
    /// any that is kept: by how much.
    pub fn add(&mut self, agreed: Synchronization, applied_ppm: u32) -> Option<Rate> {
        let rates = self.kept.iter().filter_map(|earlier| Rate::between(earlier, &agreed));
        let broken = rates.filter(|rate| rate.exceeds(applied_ppm)).last();
        self.kept.push_back(agreed);
        let span_ns = self.span_ns;
        let old = |kept: &VecDeque<Synchronization>| {
            // One beyond the span stays: what is left must reach across it.
            let second = kept.get(1).map_or(u64::MAX, |second| second.local_ns);
            kept.len() > KEPT || second.saturating_add(span_ns) <= agreed.local_ns
        };
        while old(&self.kept) {
            self.kept.pop_front();
        }
        broken
    }

    /// The rate over all that is kept; `None` before there are two.
    pub fn rate(&self) -> Option<Rate> {
        Rate::between(self.kept.front()?, self.kept.back()?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: u64 = 1_000_000_000;
    const MS: u64 = 1_000_000;

    /// An agreement at absolute second `at_s`, ±1 ms, by a clock that gains `ppm`.
    fn agreed(at_s: u64, ppm: f64) -> Synchronization {
        let gained = (at_s as f64 * 1e9 * ppm / 1e6) as i64;
        let at = at_s * S;
        Synchronization::new((100 * S + at).saturating_add_signed(gained), at - MS, at + MS)
    }

    #[test]
    fn the_measured_range_holds_the_rate_and_shrinks_with_time() {
        for ppm in [-2_000.0, -150.0, 0.0, 199.0, 2_000.0] {
            let mut width = f64::INFINITY;
            for at_s in [11, 20, 40, 130] {
                let rate = Rate::between(&agreed(10, ppm), &agreed(at_s, ppm)).unwrap();
                assert!(rate.low_ppm <= ppm && ppm <= rate.high_ppm, "{ppm}: {rate:?}");
                assert!(rate.high_ppm - rate.low_ppm < width);
                width = rate.high_ppm - rate.low_ppm;
            }
            assert!(width < 40.0);
        }
    }

    #[test]
    fn a_clock_within_its_rate_is_never_caught_one_beyond_it_is_in_time() {
        for (ppm, caught) in [(-200.0, None), (0.0, None), (200.0, None), (300.0, Some(60))] {
            let mut meter = Meter::new(120 * S);
            let first = (1..20u64).map(|n| n * 20).find(|at_s| {
                let rate = meter.add(agreed(*at_s, ppm), 200);
                rate.is_some()
            });
            assert_eq!(first, caught, "{ppm} µs/s");
        }
    }

    #[test]
    fn old_agreements_do_not_hide_what_the_rate_is_now() {
        let mut meter = Meter::new(120 * S);
        for at_s in (30..=3_000).step_by(30) {
            meter.add(agreed(at_s, 0.0), 200);
        }
        let late = agreed(3_030, 0.0);
        let late = Synchronization { local_ns: late.local_ns + 15 * MS, ..late };
        assert!(meter.add(late, 200).is_some(), "500 µs/s in the last half minute");
    }

    #[test]
    fn two_agreements_at_once_say_nothing() {
        assert_eq!(Rate::between(&agreed(10, 0.0), &agreed(10, 0.0)), None);
    }
}
