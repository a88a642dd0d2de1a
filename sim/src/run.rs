//! Many seeds, on several threads; each seed is one thread's business from beginning to end.

use crate::history::Violation;
use crate::operator::Done;
use crate::scenario::{self, Report, Scenario};
use crate::tally::{FaultCount, Tally};
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::ops::Range;
use std::panic::{self, AssertUnwindSafe};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// What many seeds did: sums over all of them.
#[derive(Clone, Debug, Default)]
pub struct Summary {
    /// Seeds that ran.
    pub seeds: u64,
    /// What happened in the worlds.
    pub tally: Tally,
    /// What the operators did.
    pub operator: Done,
    /// Transactions committed.
    pub committed: u64,
    /// Snapshots read.
    pub snapshots: u64,
    /// Attempts whose ending no client heard.
    pub unknown: u64,
    /// What was broken, by seed.
    pub violations: BTreeMap<u64, Violation>,
}

impl Summary {
    /// Adds a run.
    pub fn add(&mut self, report: &Report) {
        let Tally {
            events,
            simulated_us,
            elections,
            leader_changes,
            snapshots_installed,
            follower_reads,
            faults,
            points,
        } = report.tally;
        let sum = &mut self.tally;
        sum.events += events;
        sum.simulated_us += simulated_us;
        sum.elections += elections;
        sum.leader_changes += leader_changes;
        sum.snapshots_installed += snapshots_installed;
        sum.follower_reads += follower_reads;
        sum.faults.merge(&faults);
        sum.points.merge(&points);
        self.operator.transfers += report.operator.transfers;
        self.operator.transfers_refused += report.operator.transfers_refused;
        self.operator.changes += report.operator.changes;
        self.operator.changes_given_up += report.operator.changes_given_up;
        self.committed += report.committed as u64;
        self.snapshots += report.snapshots as u64;
        self.unknown += report.unknown as u64;
    }

    /// The faults that were injected.
    pub fn faults(&self) -> &FaultCount {
        &self.tally.faults
    }
}

/// Runs one seed; a failed assertion of the protocol is a violation like any other.
///
/// # Errors
/// The first promise that was broken.
pub fn one(scenario: Scenario, seed: u64, trace: bool) -> Result<Report, Violation> {
    guarded(|| scenario::run(scenario, seed, trace))
}

/// Does something with a world; a failed assertion of the protocol is a violation like any other.
///
/// # Errors
/// What `work` says, or the assertion.
pub fn guarded<T>(work: impl FnOnce() -> Result<T, Violation>) -> Result<T, Violation> {
    match panic::catch_unwind(AssertUnwindSafe(work)) {
        Ok(result) => result,
        Err(payload) => {
            let text = payload.downcast_ref::<String>().cloned();
            let text = text.or_else(|| payload.downcast_ref::<&str>().map(|s| s.to_string()));
            let what = text.unwrap_or_else(|| "a panic without words".into());
            Err(broken_assertion(what))
        }
    }
}

/// The protocol's assertions begin with the rule they guard ("P1: …"), behind what the language puts
/// before the words of some.
fn broken_assertion(what: String) -> Violation {
    let said = what.split_once(" failed: ").map_or(what.as_str(), |(_, said)| said);
    let rule = said.split(':').next().filter(|rule| rule.len() <= 3).unwrap_or("?").to_string();
    let checker = match rule.as_str() {
        "P1" => "durability",
        "P2" => "agreement",
        "X9" => "atomicity",
        _ => "assertion",
    };
    Violation::new(checker, &rule, what)
}

/// Runs a range of seeds on `threads` threads; `tell` hears of each seed done and what was broken
/// in it, and stops the run by returning false. After `violations_max` violations the rest is left
/// out.
pub fn many(
    scenario: Scenario,
    seeds: Range<u64>,
    threads: usize,
    violations_max: usize,
    tell: &(dyn Fn(u64, Option<&Violation>) -> bool + Sync),
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
            let result = one(scenario, seed, false);
            let mut summary = summary.lock();
            summary.seeds += 1;
            let go_on = tell(summary.seeds, result.as_ref().err());
            match result {
                Ok(report) => summary.add(&report),
                Err(violation) => {
                    summary.violations.insert(seed, violation);
                }
            }
            if summary.violations.len() >= violations_max || !go_on {
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

    /// A witness led, removed itself, and served from a tablet that it never had; another one led
    /// when the only voter with a tablet lacked what had left its log.
    #[test]
    fn seeds_that_once_failed_hold() {
        for (scenario, seed) in [(Scenario::Membership, 2932), (Scenario::Membership, 4392)] {
            assert_eq!(one(scenario, seed, false).map(|_| ()), Ok(()), "{scenario} {seed}");
        }
    }

    #[test]
    fn equal_seeds_have_equal_traces() {
        for scenario in Scenario::ALL {
            let run = |seed| one(scenario, seed, false).unwrap();
            for seed in [3, 4] {
                let (a, b) = (run(seed), run(seed));
                assert_eq!((a.trace_hash, a.tally.events), (b.trace_hash, b.tally.events));
            }
            assert_ne!(run(3).trace_hash, run(5).trace_hash);
        }
    }
}
