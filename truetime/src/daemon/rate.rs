//! How fast the local clock runs, against what the masters agreed on (T5).

use crate::bound::Synchronization;
use std::collections::VecDeque;

/// Agreements that are kept to measure by.
const KEPT: usize = 16;
/// How many of the latest are always among them.
const RECENT: usize = 5;

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

    /// What both allow; inverted when they exclude each other.
    fn intersect(&self, other: &Rate) -> Rate {
        let low_ppm = self.low_ppm.max(other.low_ppm);
        Rate { low_ppm, high_ppm: self.high_ppm.min(other.high_ppm) }
    }

    /// What either allows.
    fn unite(&self, other: &Rate) -> Rate {
        let low_ppm = self.low_ppm.min(other.low_ppm);
        Rate { low_ppm, high_ppm: self.high_ppm.max(other.high_ppm) }
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
    /// How far back they go, in nanoseconds.
    span_ns: u64,
}

impl Meter {
    pub fn new(span_ns: u64) -> Meter {
        Meter { kept: VecDeque::new(), span_ns }
    }

    /// Takes a new agreement. If the clock certainly broke the applied rate since one that is kept:
    /// by how much, and over which time, in nanoseconds; the shortest that proves it.
    pub fn add(&mut self, agreed: Synchronization, applied_ppm: u32) -> Option<(Rate, u64)> {
        let gap_ns = self.kept.back().map_or(0, |last| agreed.local_ns - last.local_ns);
        let broken = self.kept.iter().rev().find_map(|earlier| {
            let rate = Rate::between(earlier, &agreed).filter(|rate| rate.exceeds(applied_ppm))?;
            Some((rate, agreed.local_ns - earlier.local_ns))
        });
        if gap_ns > self.span_ns {
            self.kept.clear(); // an average over a long outage hides what it has come to
        }
        self.kept.push_back(agreed);
        while self.kept.front().is_some_and(|first| agreed.local_ns - first.local_ns > self.span_ns)
        {
            self.kept.pop_front();
        }
        if self.kept.len() > KEPT {
            self.thin();
        }
        broken
    }

    /// Leaves out one that its neighbours are closest to; the first and the last few stay.
    fn thin(&mut self) {
        let gap = |place: &usize| self.kept[place + 1].local_ns - self.kept[place - 1].local_ns;
        if let Some(place) = (1..self.kept.len() - RECENT).min_by_key(gap) {
            self.kept.remove(place);
        }
    }

    /// Between which rates the clock runs, if it has run at one rate; `None` before two agreements
    /// can tell. Every two of them enclose the rate, so it lies in what all enclose: a slow round
    /// of polls, which encloses little, takes nothing away. If nothing is left the rate has
    /// changed: all that it may have been.
    pub fn rate(&self) -> Option<Rate> {
        let mut common: Option<Rate> = None;
        let mut all: Option<Rate> = None;
        for (place, later) in self.kept.iter().enumerate() {
            for earlier in self.kept.iter().take(place) {
                let Some(rate) = Rate::between(earlier, later) else { continue };
                common = Some(common.map_or(rate, |common| common.intersect(&rate)));
                all = Some(all.map_or(rate, |all| all.unite(&rate)));
            }
        }
        common.filter(|rate| rate.low_ppm <= rate.high_ppm).or(all)
    }

    /// Forgets all but the last: what the clock did before is known to have been wrong.
    pub fn begin_anew(&mut self) {
        self.kept.drain(..self.kept.len().saturating_sub(1));
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
        for (ppm, caught) in [(-199.0, None), (0.0, None), (199.0, None), (300.0, Some(60))] {
            let mut meter = Meter::new(120 * S);
            let first = (1..20u64)
                .map(|n| n * 20)
                .find(|at_s| meter.add(agreed(*at_s, ppm), 200).is_some());
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
    fn many_agreements_are_thinned_and_reach_as_far_back() {
        let mut meter = Meter::new(120 * S);
        for at_s in 1..=500 {
            meter.add(agreed(at_s, 100.0), 200);
            assert!(meter.kept.len() <= KEPT);
        }
        let (first, last) = (meter.kept[0].local_ns, meter.kept[meter.kept.len() - 1].local_ns);
        assert!((100 * S..=121 * S).contains(&(last - first)), "{}", last - first);
        let rate = meter.rate().unwrap();
        assert!(rate.low_ppm > 80.0 && rate.high_ppm < 120.0, "{rate:?}");
    }

    #[test]
    fn two_agreements_at_once_say_nothing() {
        assert_eq!(Rate::between(&agreed(10, 0.0), &agreed(10, 0.0)), None);
    }
}
