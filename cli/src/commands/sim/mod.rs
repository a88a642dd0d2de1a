//! `meridian sim`: simulated clusters, many seeds or one, of one scenario or of all.

mod tell;

use crate::exit::Exit;
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use proto::plant::{self, Plant};
use sim::history::Violation;
use sim::plants::CONTROLS;
use sim::run::{self, Summary};
use sim::scenario::{self, Scenario};
use std::io::IsTerminal;
use std::ops::Range;
use std::time::Instant;
use tell::Done;

/// What is simulated.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Every scenario, one after the other, and a table of what each did.
    #[command(after_help = AFTER_HELP)]
    All(Arguments),
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
    /// Transactions append themselves to lists in several groups: who reads a list, reads who wrote
    /// it, all of them, in order.
    #[command(after_help = AFTER_HELP)]
    ListAppend(Arguments),
    /// Writers of single keys, readers of many: no two readers may disagree about which of two writes
    /// came first.
    #[command(after_help = AFTER_HELP)]
    LongFork(Arguments),
    /// Who writes has heard of the write before, in another group: nobody may see the second one
    /// without the first.
    #[command(after_help = AFTER_HELP)]
    CausalReverse(Arguments),
    /// Pairs of keys in two groups that may not fall below zero together: each transaction reads both
    /// and takes from one.
    #[command(after_help = AFTER_HELP)]
    WriteSkew(Arguments),
    /// Reads of all kinds at any replica, leader or not: at now, soon, long ago, and once more
    /// elsewhere.
    #[command(after_help = AFTER_HELP)]
    FollowerReads(Arguments),
    /// All clients increment one row: no increment is lost, and nobody sees the number fall.
    #[command(after_help = AFTER_HELP)]
    HotRow(Arguments),
    /// Leaders that coordinate a commit are struck at one of its nine points: they crash, pause for
    /// longer than their lease, or are cut off.
    #[command(after_help = AFTER_HELP)]
    CoordinatorCrash(Arguments),
    /// Leaders that take part in a commit are struck at one of its seven points.
    #[command(after_help = AFTER_HELP)]
    ParticipantCrash(Arguments),
    /// Clients die after any message of a transaction: what they leave behind settles by itself.
    #[command(after_help = AFTER_HELP)]
    ClientCrash(Arguments),
    /// The faults that can be planted, and which checker must notice each.
    #[command(name = "plants", long_flag = "list-plants")]
    ListPlants,
}

const AFTER_HELP: &str = "\
A seed decides everything: the options of the run (clock uncertainty, latencies, loss, crashes), the
faults and the clients. The same seed repeats the same run exactly.

Examples:
  meridian sim all                           every scenario, 200 seeds each
  meridian sim all --seeds 0..1000 --json    the same as JSON, for scripts
  meridian sim paxos --seeds 0..10000        ten thousand clusters, on all cores
  meridian sim paxos --seed 42 --trace       one of them, one line per event
  meridian sim --list-plants                 faults on purpose, and who must notice
  meridian sim bank --seeds 0..200 --plant commit-wait-off
                                             one of them (builds with --features plants): a
                                             checker must notice

The exit code is 1 when a promise was broken; the checker, its rule and the seed are named.";

/// Arguments of `meridian sim all` and of each scenario.
#[derive(Debug, Args)]
pub struct Arguments {
    /// The seeds to run, the last one left out.
    #[arg(long, value_name = "A..B", value_parser = parse_seeds, default_value = "0..200")]
    seeds: Range<u64>,
    /// One seed only, with its options and counts.
    #[arg(long, value_name = "N", conflicts_with = "seeds")]
    seed: Option<u64>,
    /// Print one line per event (with --seed).
    #[arg(long, requires = "seed", conflicts_with = "json")]
    trace: bool,
    /// Print one JSON object for each scenario, and nothing else.
    #[arg(long)]
    json: bool,
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
    let (scenarios, arguments): (&[Scenario], _) = match command {
        Command::All(arguments) => (&Scenario::ALL, arguments),
        Command::Bank(arguments) => (&[Scenario::Bank], arguments),
        Command::Paxos(arguments) => (&[Scenario::Paxos], arguments),
        Command::Membership(arguments) => (&[Scenario::Membership], arguments),
        Command::ListAppend(arguments) => (&[Scenario::ListAppend], arguments),
        Command::LongFork(arguments) => (&[Scenario::LongFork], arguments),
        Command::CausalReverse(arguments) => (&[Scenario::CausalReverse], arguments),
        Command::WriteSkew(arguments) => (&[Scenario::WriteSkew], arguments),
        Command::FollowerReads(arguments) => (&[Scenario::FollowerReads], arguments),
        Command::HotRow(arguments) => (&[Scenario::HotRow], arguments),
        Command::CoordinatorCrash(arguments) => (&[Scenario::CoordinatorCrash], arguments),
        Command::ParticipantCrash(arguments) => (&[Scenario::ParticipantCrash], arguments),
        Command::ClientCrash(arguments) => (&[Scenario::ClientCrash], arguments),
        Command::ListPlants => {
            list_plants();
            return Ok(());
        }
    };
    if let Some(fault) = arguments.plant {
        plant_fault(fault)?;
        if !arguments.json {
            println!("planted: {}", fault.name());
        }
    }
    match arguments.seed {
        Some(seed) => scenarios.iter().try_for_each(|scenario| one(*scenario, seed, &arguments)),
        None => many(scenarios, &arguments),
    }
}

fn list_plants() {
    println!("{:26} {:5} {:17} {:20} within", "plant", "rule", "scenario", "checker");
    for control in CONTROLS {
        println!(
            "{:26} {:5} {:17} {:20} {} seeds",
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
    if !arguments.trace && !arguments.json {
        // A traced run says it itself.
        println!("seed {seed}: {}", scenario::options(scenario, seed));
    }
    let began = Instant::now();
    let mut done =
        Done { scenario, summary: Summary { seeds: 1, ..Summary::default() }, seconds: 0.0 };
    let result = run::one(scenario, seed, arguments.trace);
    done.seconds = began.elapsed().as_secs_f64();
    match result {
        Ok(report) => {
            done.summary.add(&report);
            match arguments.json {
                true => println!("{}", tell::json(&done)),
                false => {
                    tell::summary(&done);
                    println!("trace hash      {:016x}", report.trace_hash);
                }
            }
            Ok(())
        }
        Err(violation) => {
            match arguments.json {
                true => {
                    done.summary.violations.insert(seed, violation);
                    println!("{}", tell::json(&done));
                }
                false => tell::violation(scenario, seed, &violation, arguments.plant),
            }
            Err(Exit::Failed("a promise was broken".into()))
        }
    }
}

fn many(scenarios: &[Scenario], arguments: &Arguments) -> Result<(), Exit> {
    let seeds = arguments.seeds.clone();
    let threads = arguments.threads.map_or_else(
        || std::thread::available_parallelism().map_or(1, |cores| cores.get()),
        usize::from,
    );
    let count = seeds.end - seeds.start;
    let bar = bar(count * scenarios.len() as u64);
    let mut all = Vec::new();
    for (place, scenario) in (0..).zip(scenarios) {
        let began = Instant::now();
        bar.set_message(scenario.name());
        let tell = |done: u64, _: Option<&Violation>| {
            bar.set_position(place * count + done);
            true
        };
        let summary = run::many(*scenario, seeds.clone(), threads, VIOLATIONS_MAX, &tell);
        let done = Done { scenario: *scenario, summary, seconds: began.elapsed().as_secs_f64() };
        match (arguments.json, scenarios.len()) {
            (true, _) => println!("{}", tell::json(&done)),
            (false, 1) => bar.suspend(|| tell::summary(&done)),
            (false, _) => bar.suspend(|| tell::row(&done, place == 0)),
        }
        if !arguments.json {
            for (seed, violation) in &done.summary.violations {
                bar.suspend(|| tell::violation(*scenario, *seed, violation, arguments.plant));
            }
        }
        all.push(done);
    }
    bar.finish_and_clear();
    if scenarios.len() > 1 && !arguments.json {
        tell::totals(&all);
    }
    match all.iter().map(|done| done.summary.violations.len()).sum::<usize>() {
        0 if arguments.json => Ok(()),
        0 => {
            println!("every promise held");
            Ok(())
        }
        1 => Err(Exit::Failed("a promise was broken in one seed".into())),
        n => Err(Exit::Failed(format!(
            "promises were broken in {n} seeds; a scenario stops after {VIOLATIONS_MAX}"
        ))),
    }
}

fn bar(seeds: u64) -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let template = "{bar:40} {pos}/{len} seeds, {per_sec}, {eta} left {msg}";
    let style = ProgressStyle::with_template(template);
    ProgressBar::new(seeds).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
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
    fn every_scenario_is_a_command() {
        let command = <Command as clap::Subcommand>::augment_subcommands(clap::Command::new("sim"));
        for scenario in Scenario::ALL {
            assert!(command.find_subcommand(scenario.name()).is_some(), "{scenario}");
        }
        assert!(command.find_subcommand("all").is_some());
    }

    #[test]
    fn every_plant_can_be_named() {
        for plant in Plant::ALL {
            assert_eq!(parse_plant(plant.name()), Ok(plant));
        }
        assert!(parse_plant("gremlin").is_err());
    }
}
