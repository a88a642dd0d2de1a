//! What `meridian sim` says: of one scenario at length, of several in a table, as JSON.

use proto::plant::Plant;
use serde_json::{Map, Value, json};
use sim::crash_points::Point;
use sim::history::Violation;
use sim::run::Summary;
use sim::scenario::{self, Scenario};
use sim::tally::{Fault, FaultCount};

/// What was run of one scenario.
pub struct Done {
    pub scenario: Scenario,
    pub summary: Summary,
    pub seconds: f64,
}

/// One scenario, at length.
pub fn summary(Done { summary, seconds, .. }: &Done) {
    let seconds = seconds.max(1e-6);
    let per_minute = summary.seeds as f64 / seconds * 60.0;
    let (tally, operator) = (&summary.tally, &summary.operator);
    println!("seeds           {} in {seconds:.1} s ({per_minute:.0} per minute)", summary.seeds);
    println!("simulated       {:.1} s", tally.simulated_us as f64 / 1e6);
    println!("events          {}", tally.events);
    println!(
        "transactions    {} committed, {} unknown until settled",
        summary.committed, summary.unknown
    );
    println!(
        "snapshots       {} read, {} parts of them by who did not lead",
        summary.snapshots, tally.follower_reads
    );
    println!("elections       {}, {} of another node", tally.elections, tally.leader_changes);
    println!(
        "transfers       {} begun, {} refused",
        operator.transfers, operator.transfers_refused
    );
    println!(
        "memberships     {} changes completed, {} given up",
        operator.changes, operator.changes_given_up
    );
    println!("catching up     {} snapshots installed", tally.snapshots_installed);
    faults(summary.faults());
    points(&[summary]);
}

fn faults(faults: &FaultCount) {
    for (place, line) in Fault::ALL.chunks(5).enumerate() {
        let title = if place == 0 { "faults" } else { "" };
        let counts = line.iter().map(|(f, name)| format!("{} {name}", faults.of(*f)));
        println!("{title:15} {}", counts.collect::<Vec<_>>().join(", "));
    }
}

/// How often leaders were struck at which point; nothing, where that is not what is simulated.
fn points(summaries: &[&Summary]) {
    let all = Point::COORDINATOR.into_iter().chain(Point::PARTICIPANT);
    let count = |point| summaries.iter().map(|summary| summary.tally.points.of(point)).sum::<u64>();
    let struck = all.map(|point| (point, count(point))).filter(|(_, count)| *count > 0);
    for (place, (point, count)) in struck.enumerate() {
        let title = if place == 0 { "struck" } else { "" };
        println!("{title:15} {count:>5} {point}");
    }
}

/// One scenario in a line; the first one below a heading.
pub fn row(done: &Done, first: bool) {
    if first {
        println!(
            "{:18} {:>6} {:>8} {:>10} {:>10} {:>8} {:>9} {:>7} {:>9} {:>7}",
            "scenario",
            "seeds",
            "seconds",
            "committed",
            "snapshots",
            "unknown",
            "leaders",
            "faults",
            "messages",
            "struck"
        );
    }
    let summary = &done.summary;
    let all = Point::COORDINATOR.into_iter().chain(Point::PARTICIPANT);
    let struck: u64 = all.map(|point| summary.tally.points.of(point)).sum();
    let (faults, messages) = sums(summary.faults());
    println!(
        "{:18} {:>6} {:>8.1} {:>10} {:>10} {:>8} {:>9} {:>7} {:>9} {:>7}",
        done.scenario.name(),
        summary.seeds,
        done.seconds,
        summary.committed,
        summary.snapshots,
        summary.unknown,
        summary.tally.leader_changes,
        faults,
        messages,
        struck
    );
}

/// Faults of processes, links, disks, clocks and clients; and messages lost or doubled.
fn sums(faults: &FaultCount) -> (u64, u64) {
    let messages = faults.of(Fault::Lost) + faults.of(Fault::Duplicated);
    let all: u64 = Fault::ALL.iter().map(|(fault, _)| faults.of(*fault)).sum();
    (all - messages, messages)
}

/// Below the lines of all scenarios.
pub fn totals(all: &[Done]) {
    let sum = |of: fn(&Summary) -> u64| all.iter().map(|done| of(&done.summary)).sum::<u64>();
    let seconds: f64 = all.iter().map(|done| done.seconds).sum();
    let mut injected = FaultCount::default();
    all.iter().for_each(|done| injected.merge(done.summary.faults()));
    println!();
    println!("seeds           {} in {seconds:.1} s", sum(|s| s.seeds));
    println!("simulated       {:.1} s", sum(|s| s.tally.simulated_us) as f64 / 1e6);
    println!("events          {}", sum(|s| s.tally.events));
    println!(
        "checked         {} transactions, {} snapshots",
        sum(|s| s.committed),
        sum(|s| s.snapshots)
    );
    faults(&injected);
    points(&all.iter().map(|done| &done.summary).collect::<Vec<_>>());
}

/// A broken promise, and the command that repeats it.
pub fn violation(scenario: Scenario, seed: u64, violation: &Violation, plant: Option<Plant>) {
    let plant = plant.map(|fault| format!(" --plant {}", fault.name()));
    println!();
    println!("VIOLATION in seed {seed}");
    println!("  checker   {}", violation.checker);
    println!("  rule      {}", violation.rule);
    println!("  seen      {}", violation.what.replace('\n', "\n            "));
    println!("  options   {}", scenario::options(scenario, seed));
    println!(
        "  again     meridian sim {scenario} --seed {seed} --trace{}",
        plant.unwrap_or_default()
    );
}

/// One scenario as JSON, on one line.
pub fn json(Done { scenario, summary, seconds }: &Done) -> Value {
    let (tally, operator) = (&summary.tally, &summary.operator);
    let faults = Fault::ALL
        .iter()
        .map(|(fault, name)| (name.to_string(), Value::from(summary.faults().of(*fault))));
    let points = Point::COORDINATOR.into_iter().chain(Point::PARTICIPANT);
    let points = points.map(|point| (point.to_string(), Value::from(tally.points.of(point))));
    let violations: Vec<Value> = summary
        .violations
        .iter()
        .map(|(seed, violation)| {
            json!({
                "seed": seed,
                "checker": violation.checker,
                "rule": violation.rule,
                "seen": violation.what,
                "options": scenario::options(*scenario, *seed).to_string(),
            })
        })
        .collect();
    json!({
        "scenario": scenario.name(),
        "seeds": summary.seeds,
        "seconds": seconds,
        "simulated_us": tally.simulated_us,
        "events": tally.events,
        "committed": summary.committed,
        "snapshots": summary.snapshots,
        "unknown": summary.unknown,
        "follower_reads": tally.follower_reads,
        "elections": tally.elections,
        "leader_changes": tally.leader_changes,
        "snapshots_installed": tally.snapshots_installed,
        "transfers": { "begun": operator.transfers, "refused": operator.transfers_refused },
        "members": { "changed": operator.changes, "given_up": operator.changes_given_up },
        "faults": faults.collect::<Map<_, _>>(),
        "struck": points.collect::<Map<_, _>>(),
        "violations": violations,
    })
}
