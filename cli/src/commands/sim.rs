//! `meridian sim`: simulated clusters, many seeds or one.

use crate::exit::Exit;
use clap::{Args, ValueEnum};
use indicatif::{ProgressBar, ProgressStyle};
use proto::plant::{self, Plant};
use sim::history::Violation;
use sim::options::Options;
use sim::run::{self, Summary};
use sim::world::stream;
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
}

const AFTER_HELP: &str = "\
A seed decides everything: the options of the run (clock uncertainty, latencies, loss, crashes), the
faults and the clients. The same seed repeats the same run exactly.

Examples:
  meridian sim bank --seeds 0..10000         ten thousand clusters, on all cores
  meridian sim bank --seed 42 --trace        one of them, one line per event
  meridian sim bank --seeds 0..200 --plant commit-wait-off
                                             a fault on purpose (builds with --features plants):
                                             a checker must notice

The exit code is 1 when a promise was broken; the checker, its rule and the seed are named.";

/// Arguments of `meridian sim bank`.
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
    #[arg(long, value_enum, value_name = "NAME")]
    plant: Option<Fault>,
    /// How many seeds run at once; each runs on one thread [default: one per core].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    threads: Option<u16>,
}

/// A fault that can be planted.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Fault {
    /// Writes are shown before their timestamp has passed (breaks X8).
    CommitWaitOff,
    /// The disk is reported as having answered before it did (breaks P1).
    LogUnsynced,
}

impl Fault {
    fn plant(self) -> Plant {
        match self {
            Fault::CommitWaitOff => Plant::CommitWaitOff,
            Fault::LogUnsynced => Plant::LogUnsynced,
        }
    }
}

/// How many broken seeds are looked for before a run stops.
const VIOLATIONS_MAX: usize = 3;

/// Runs the command.
///
/// # Errors
/// When a promise was broken, or a fault is to be planted and this build cannot.
pub fn run(command: Command) -> Result<(), Exit> {
    let Command::Bank(arguments) = command;
    if let Some(fault) = arguments.plant {
        plant_fault(fault.plant())?;
        println!("planted: {}", fault.plant().name());
    }
    match arguments.seed {
        Some(seed) => one(seed, &arguments),
        None => many(&arguments),
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

fn one(seed: u64, arguments: &Arguments) -> Result<(), Exit> {
    if !arguments.trace {
        // A traced run says it itself.
        println!("seed {seed}: {}", options(seed));
    }
    let began = Instant::now();
    match run::bank_seed(seed, arguments.trace) {
        Ok(report) => {
            let mut summary = Summary { seeds: 1, ..Summary::default() };
            summary.events = report.events;
            summary.simulated_us = report.simulated_us;
            summary.committed = report.committed as u64;
            summary.snapshots = report.snapshots as u64;
            summary.unknown = report.unknown as u64;
            let faults = report.faults;
            summary.faults =
                [faults.crashes, faults.power_cuts, faults.cuts, faults.lost, faults.duplicated];
            tell_summary(&summary, began.elapsed());
            println!("trace hash      {:016x}", report.trace_hash);
            Ok(())
        }
        Err(violation) => {
            tell_violation(seed, &violation, arguments);
            Err(Exit::Failed("a promise was broken".into()))
        }
    }
}

fn many(arguments: &Arguments) -> Result<(), Exit> {
    let seeds = arguments.seeds.clone();
    let threads = arguments.threads.map_or_else(
        || std::thread::available_parallelism().map_or(1, |cores| cores.get()),
        usize::from,
    );
    let bar = bar(seeds.end - seeds.start);
    let began = Instant::now();
    let summary = run::bank(seeds, threads, VIOLATIONS_MAX, &|done| {
        bar.set_position(done);
        true
    });
    bar.finish_and_clear();
    tell_summary(&summary, began.elapsed());
    for (seed, violation) in &summary.violations {
        tell_violation(*seed, violation, arguments);
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

/// The options of a run, drawn as the run itself draws them.
fn options(seed: u64) -> Options {
    Options::draw(&mut stream(seed, 1))
}

fn tell_summary(summary: &Summary, took: Duration) {
    let seconds = took.as_secs_f64().max(1e-6);
    let per_minute = summary.seeds as f64 / seconds * 60.0;
    let [crashes, power_cuts, cuts, lost, duplicated] = summary.faults;
    println!("seeds           {} in {seconds:.1} s ({per_minute:.0} per minute)", summary.seeds);
    println!("simulated       {:.1} s", summary.simulated_us as f64 / 1e6);
    println!("events          {}", summary.events);
    println!(
        "transactions    {} committed, {} unknown until settled",
        summary.committed, summary.unknown
    );
    println!("snapshots       {} read", summary.snapshots);
    println!(
        "faults          {crashes} crashes, {power_cuts} power cuts, {cuts} links cut, {lost} \
         messages lost, {duplicated} duplicated"
    );
}

fn tell_violation(seed: u64, violation: &Violation, arguments: &Arguments) {
    let plant = arguments.plant.map(|fault| format!(" --plant {}", fault.plant().name()));
    println!();
    println!("VIOLATION in seed {seed}");
    println!("  checker   {}", violation.checker);
    println!("  rule      {}", violation.rule);
    println!("  seen      {}", violation.what);
    println!("  options   {}", options(seed));
    println!("  again     meridian sim bank --seed {seed} --trace{}", plant.unwrap_or_default());
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
    fn every_fault_can_be_named() {
        for fault in Fault::value_variants() {
            let name = fault.to_possible_value().expect("none is hidden");
            assert_eq!(name.get_name(), fault.plant().name());
        }
        assert_eq!(Fault::value_variants().len(), Plant::ALL.len());
    }
}
