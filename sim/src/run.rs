//! Many seeds, on several threads; each seed is one thread's business from beginning to end.

use crate::bank::{self, Report};
use crate::history::Violation;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::ops::Range;
use std::panic::{self, AssertUnwindSafe};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// What many seeds did.
#[derive(Clone, Debug, Default)]
pub struct Summary {
    /// Seeds that ran.
    pub seeds: u64,
    /// Sums over all seeds.
    pub events: u64,
    /// See `events`.
    pub simulated_us: u64,
    /// See `events`.
    pub committed: u64,
    /// See `events`.
    pub snapshots: u64,
    /// See `events`.
    pub unknown: u64,
    /// Crashes, power cuts, cut links, lost and duplicated messages.
    pub faults: [u64; 5],
    /// What was broken, by seed.
    pub violations: BTreeMap<u64, Violation>,
}

impl Summary {
    fn add(&mut self, report: &Report) {
        self.events += report.events;
        self.simulated_us += report.simulated_us;
        self.committed += report.committed as u64;
        self.snapshots += report.snapshots as u64;
        self.unknown += report.unknown as u64;
        let f = report.faults;
        let counts = [f.crashes, f.power_cuts, f.cuts, f.lost, f.duplicated];
        for (sum, count) in self.faults.iter_mut().zip(counts) {
            *sum += count;
        }
    }
}

/// Runs one seed of the bank; a failed assertion of the protocol is a violation like any other.
///
/// # Errors
/// The first promise that was broken.
pub fn bank_seed(seed: u64, trace: bool) -> Result<Report, Violation> {
    match panic::catch_unwind(AssertUnwindSafe(|| bank::run(seed, trace))) {
        Ok(result) => result,
        Err(payload) => {
            let text = payload.downcast_ref::<String>().cloned();
            let text = text.or_else(|| payload.downcast_ref::<&str>().map(|s| s.to_string()));
            let what = text.unwrap_or_else(|| "a panic without words".into());
            Err(broken_assertion(what))
        }
    }
}

/// The protocol's assertions begin with the rule they guard ("P1: …").
fn broken_assertion(what: String) -> Violation {
    let rule = what.split(':').next().filter(|rule| rule.len() <= 3).unwrap_or("?").to_string();
    let checker = match rule.as_str() {
        "P1" => "durability",
        "P2" => "agreement",
        "X9" => "atomicity",
        _ => "assertion",
    };
    Violation::new(checker, &rule, what)
}

/// Runs a range of seeds on `threads` threads; `tell` hears of each seed done, and stops the run
/// by returning false. After `violations_max` violations the rest is left out.
pub fn bank(
    seeds: Range<u64>,
    threads: usize,
    violations_max: usize,
    tell: &(dyn Fn(u64) -> bool + Sync),
) -> Summary {
    let next = AtomicU64::new(seeds.start);
    let stop = AtomicBool::new(false);
    let summary = Mutex::new(Summary::default());
    let worker = || {
        while !stop.load(Ordering::Relaxed) {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= seeds.end {
                return;
            }
            let result = bank_seed(seed, false);
            let mut summary = summary.lock();
            summary.seeds += 1;
            match result {
                Ok(report) => summary.add(&report),
                Err(violation) => {
                    summary.violations.insert(seed, violation);
                }
            }
            let enough = summary.violations.len() >= violations_max;
            if enough || !tell(summary.seeds) {
                stop.store(true, Ordering::Relaxed);
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..threads.max(1) {
            scope.spawn(worker);
        }
    });
    summary.into_inner()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_few_seeds_hold_all_promises() {
        let summary = bank(0..24, 2, 1, &|_| true);
        assert!(summary.violations.is_empty(), "{:?}", summary.violations);
        assert!(summary.committed > 0 && summary.snapshots > 0);
        assert!(summary.faults.iter().all(|count| *count > 0), "{:?}", summary.faults);
    }

    #[test]
    fn equal_seeds_have_equal_traces() {
        for seed in [3, 4] {
            let (a, b) = (bank_seed(seed, false).unwrap(), bank_seed(seed, false).unwrap());
            assert_eq!((a.trace_hash, a.events), (b.trace_hash, b.events));
        }
        let other = bank_seed(5, false).unwrap().trace_hash;
        assert_ne!(bank_seed(3, false).unwrap().trace_hash, other);
    }
}
