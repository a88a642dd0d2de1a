//! `meridian sim`: simulated clusters, many seeds or one.

use crate::exit::Exit;
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use proto::plant::{self, Plant};
use sim::history::Violation;
use sim::plants::CONTROLS;
use sim::run::{self, Summary};
use sim::scenario::{self, Scenario};
use sim::tally::Fault;
use std::io::IsTerminal;
use std::ops::Range;
use std::time::{Duration, Instant};

/// What is simulated.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Clients move units between accounts of four groups on three servers while nodes crash,
    /// links break and messages are lost, and every promise is checked.
    #[command(after_help = AFTER_HELP)]
    Bank(Arguments),
    /// One or two groups on three or five servers, with short leases: leaders come and go under
    /// every kind of fault, and hand over on request; a minority may stay broken.
    #[command(after_help = AFTER_HELP)]
    Paxos(Arguments),
    /// A group on five servers whose members change all the time, whose disks are lost and
    /// damaged, and whose leaders are cut off at the worst moments.
    #[command(after_help = AFTER_HELP)]
    Membership(Arguments),
    /// The faults that can be planted, and which checker must notice each.
    #[command(name = "plants", long_flag = "list-plants")]
    ListPlants,
}

const AFTER_HELP: &str = "\
A seed decides everything: the options of the run (clock uncertainty, latencies, loss, crashes), the
faults and the clients. The same seed repeats the same run exactly.

Examples:
  meridian sim paxos --seeds 0..10000        ten thousand clusters, on all cores
  meridian sim paxos --seed 42 --trace       one of them, one line per event
  meridian sim --list-plants                 faults on purpose, and who must notice
  meridian sim bank --seeds 0..200 --plant commit-wait-off
                                             one of them (builds with --features plants): a
                                             checker must notice

The exit code is 1 when a promise was broken; the checker, its rule and the seed are named.";

/// Arguments of `meridian sim bank`, `paxos` and `membership`.
#[derive(Debug, Args)]
pub struct Arguments {
    /// The seeds to run, the last one left out.
    #[arg(long, value_name = "A..B", value_parser = parse_seeds, default_value = "0..200")]
    seeds: Range<u64>,
    /// One seed only, with its options and counts.
    #[arg(long, value_name = "N", conflicts_with = "seeds")]
    seed: Option<u64>,
    /// Print one line per event (with --seed).
    #[arg(long, requires = "seed")]
    trace: bool,
    /// Break a rule on purpose; a checker must notice.
    #[arg(long, value_name = "NAME", value_parser = parse_plant)]
    plant: Option<Plant>,
    /// How many seeds run at once; each runs on one thread [default: one per core].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    threads: Option<u16>,
}

/// How many broken seeds are looked for before a run stops.
const VIOLATIONS_MAX: usize = 3;

/// Runs the command.
///
/// # Errors
/// When a promise was broken, or a fault is to be planted and this build cannot.
pub fn run(command: Command) -> Result<(), Exit> {
    let (scenario, arguments) = match command {
        Command::Bank(arguments) => (Scenario::Bank, arguments),
        Command::Paxos(arguments) => (Scenario::Paxos, arguments),
        Command::Membership(arguments) => (Scenario::Membership, arguments),
        Command::ListPlants => {
            list_plants();
            return Ok(());
        }
    };
    if let Some(fault) = arguments.plant {
        plant_fault(fault)?;
        println!("planted: {}", fault.name());
    }
    match arguments.seed {
        Some(seed) => one(scenario, seed, &arguments),
        None => many(scenario, &arguments),
    }
}

fn list_plants() {
    println!("{:26} {:5} {:11} {:15} within", "plant", "rule", "scenario", "checker");
    for control in CONTROLS {
        println!(
            "{:26} {:5} {:11} {:15} {} seeds",
            control.plant.name(),
            control.rule,
            control.scenario.name(),
            control.checker,
            control.within
        );
    }
}

#[cfg(feature = "plants")]
fn plant_fault(fault: Plant) -> Result<(), Exit> {
    debug_assert!(plant::AVAILABLE);
    plant::plant(Some(fault));
    Ok(())
}

#[cfg(not(feature = "plants"))]
fn plant_fault(fault: Plant) -> Result<(), Exit> {
    debug_assert!(!plant::planted(fault));
    Err(Exit::Usage(format!(
        "this build cannot plant {}: the checks are constants in ordinary builds; build it with \
         `cargo build --profile quick -p cli --features plants`",
        fault.name()
    )))
}

fn one(scenario: Scenario, seed: u64, arguments: &Arguments) -> Result<(), Exit> {
    if !arguments.trace {
        // A traced run says it itself.
        println!("seed {seed}: {}", scenario::options(scenario, seed));
    }
    let began = Instant::now();
    match run::one(scenario, seed, arguments.trace) {
        Ok(report) => {
            let mut summary = Summary { seeds: 1, ..Summary::default() };
            summary.add(&report);
            tell_summary(&summary, began.elapsed());
            println!("trace hash      {:016x}", report.trace_hash);
            Ok(())
        }
        Err(violation) => {
            tell_violation(scenario, seed, &violation, arguments);
            Err(Exit::Failed("a promise was broken".into()))
        }
    }
}

fn many(scenario: Scenario, arguments: &Arguments) -> Result<(), Exit> {
    let seeds = arguments.seeds.clone();
    let threads = arguments.threads.map_or_else(
        || std::thread::available_parallelism().map_or(1, |cores| cores.get()),
        usize::from,
    );
    let bar = bar(seeds.end - seeds.start);
    let began = Instant::now();
    let summary = run::many(scenario, seeds, threads, VIOLATIONS_MAX, &|done, _| {
        bar.set_position(done);
        true
    });
    bar.finish_and_clear();
    tell_summary(&summary, began.elapsed());
    for (seed, violation) in &summary.violations {
        tell_violation(scenario, *seed, violation, arguments);
    }
    match summary.violations.len() {
        0 => {
            println!("every promise held");
            Ok(())
        }
        1 => Err(Exit::Failed("a promise was broken in one seed".into())),
        n => Err(Exit::Failed(format!("promises were broken in {n} seeds; the run stopped there"))),
    }
}

fn bar(seeds: u64) -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("{bar:40} {pos}/{len} seeds, {per_sec}, {eta} left");
    ProgressBar::new(seeds).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}

fn tell_summary(summary: &Summary, took: Duration) {
    let seconds = took.as_secs_f64().max(1e-6);
    let per_minute = summary.seeds as f64 / seconds * 60.0;
    let (tally, operator) = (&summary.tally, &summary.operator);
    println!("seeds           {} in {seconds:.1} s ({per_minute:.0} per minute)", summary.seeds);
    println!("simulated       {:.1} s", tally.simulated_us as f64 / 1e6);
    println!("events          {}", tally.events);
    println!(
        "transactions    {} committed, {} unknown until settled",
        summary.committed, summary.unknown
    );
    println!("snapshots       {} read", summary.snapshots);
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
    for (place, line) in Fault::ALL.chunks(5).enumerate() {
        let title = if place == 0 { "faults" } else { "" };
        let counts = line.iter().map(|(f, name)| format!("{} {name}", summary.faults().of(*f)));
        println!("{title:15} {}", counts.collect::<Vec<_>>().join(", "));
    }
}

fn tell_violation(scenario: Scenario, seed: u64, violation: &Violation, arguments: &Arguments) {
    let plant = arguments.plant.map(|fault| format!(" --plant {}", fault.name()));
    println!();
    println!("VIOLATION in seed {seed}");
    println!("  checker   {}", violation.checker);
    println!("  rule      {}", violation.rule);
    println!("  seen      {}", violation.what);
    println!("  options   {}", scenario::options(scenario, seed));
    println!(
        "  again     meridian sim {scenario} --seed {seed} --trace{}",
        plant.unwrap_or_default()
    );
}

fn parse_plant(text: &str) -> Result<Plant, String> {
    let found = Plant::ALL.into_iter().find(|plant| plant.name() == text);
    found.ok_or_else(|| {
        let names: Vec<&str> = Plant::ALL.iter().map(|plant| plant.name()).collect();
        format!("one of: {}", names.join(", "))
    })
}

fn parse_seeds(text: &str) -> Result<Range<u64>, String> {
    let wanted = "two numbers, the first below the second: 0..1000";
    let (from, to) = text.split_once("..").ok_or(wanted)?;
    let number = |text: &str| text.trim().replace('_', "").parse::<u64>().map_err(|_| wanted);
    let range = number(from)?..number(to)?;
    if range.is_empty() { Err(wanted.into()) } else { Ok(range) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seeds_are_a_range() {
        assert_eq!(parse_seeds("3..10"), Ok(3..10));
        assert_eq!(parse_seeds("0..1_000"), Ok(0..1_000));
        for wrong in ["", "7", "5..5", "9..2", "a..b", "-1..2"] {
            assert!(parse_seeds(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn every_plant_can_be_named() {
        for plant in Plant::ALL {
            assert_eq!(parse_plant(plant.name()), Ok(plant));
        }
        assert!(parse_plant("gremlin").is_err());
    }
}
