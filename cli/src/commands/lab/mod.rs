//! `meridian lab`: experiments on clocks, one or all, and their reports.

mod bars;
mod tell;

use crate::exit::Exit;
use bars::{Bar, Bars};
use clap::Args;
use sim::lab::report::{files, json};
use sim::lab::{self, Experiment, LabError, Report, Setup};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// What is done in the laboratory.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Name the experiments, each with its question.
    List {
        /// Their parameters, too.
        #[arg(long, short)]
        verbose: bool,
    },
    /// Show what can be chosen in an experiment.
    Show {
        /// The experiment (meridian lab list).
        name: String,
    },
    /// Run one experiment.
    #[command(after_help = AFTER_HELP_RUN)]
    Run(RunArguments),
    /// Run all experiments, and write a page that lists their reports.
    #[command(after_help = AFTER_HELP_RUN_ALL)]
    RunAll(RunAllArguments),
}

const AFTER_HELP_RUN: &str = "\
An experiment runs production servers on simulated clocks, disks and network, where absolute time is
known. It prints what was measured beside what was expected, and writes into DIR/NAME:

  report.html       everything, with charts; one file, opens without a network
  data.csv          every point of the charts: chart, series, x, y
  tables.csv        every cell of the tables, when there are tables
  parameters.json   the seed and parameters, and the command that repeats the run

The same seed and parameters give the same report, number for number.

Examples:
  meridian lab list                                   what there is
  meridian lab show sawtooth                          what can be chosen in it
  meridian lab run sawtooth                           into lab-out/sawtooth
  meridian lab run sawtooth --seed 7 --set poll=10    with other parameters

The exit code is 1 when a finding is not as expected, 2 when a parameter cannot be, 130 after Ctrl-C,
which leaves no half-written file.";

const AFTER_HELP_RUN_ALL: &str = "\
Each report is as `meridian lab run` would write it, into DIR/NAME; DIR/index.html lists them with
their findings. Experiments run side by side, each on one thread.

The exit code is 1 when a finding is not as expected or an experiment did not end, 130 after Ctrl-C.";

/// Arguments of `meridian lab run`.
#[derive(Debug, Args)]
pub struct RunArguments {
    /// The experiment (meridian lab list).
    name: String,
    /// What all random choices come from.
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    /// Choose a parameter (meridian lab show NAME); may be repeated.
    #[arg(long = "set", value_name = "KEY=VALUE", value_parser = parse_choice)]
    choices: Vec<(String, String)>,
    /// The folder to write to: files go into DIR/NAME.
    #[arg(long, value_name = "DIR", default_value = "lab-out")]
    out: PathBuf,
    /// Print the findings as one JSON object instead.
    #[arg(long)]
    json: bool,
}

/// Arguments of `meridian lab run-all`.
#[derive(Debug, Args)]
pub struct RunAllArguments {
    /// What all random choices come from.
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    /// The folder to write to.
    #[arg(long, value_name = "DIR", default_value = "lab-out")]
    out: PathBuf,
    /// How many experiments run at once [default: one per core].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    threads: Option<u16>,
    /// Print the findings as JSON instead: one object a line for each experiment.
    #[arg(long)]
    json: bool,
}

/// Runs the command.
///
/// # Errors
/// When there is no such experiment or parameter, a finding is not as expected, a file cannot be
/// written, or somebody pressed Ctrl-C.
pub fn run(command: Command) -> Result<(), Exit> {
    match command {
        Command::List { verbose } => tell::list(&mut io::stdout(), verbose),
        Command::Show { name } => tell::experiment(&mut io::stdout(), named(&name)?),
        Command::Run(arguments) => one(&arguments),
        Command::RunAll(arguments) => all(&arguments),
    }
}

fn one(arguments: &RunArguments) -> Result<(), Exit> {
    let experiment = named(&arguments.name)?;
    let name = experiment.name();
    let setup = Setup::new(experiment.parameters(), arguments.seed, &arguments.choices);
    let setup = setup.map_err(|error| {
        Exit::Usage(format!("{error}\nHint: `meridian lab show {name}` says what can be chosen"))
    })?;
    // First Ctrl-C is heard, then anything is written.
    let bars = Bars::new();
    let folder = make_folder(&arguments.out.join(name))?;
    let bar = bars.bar(name);
    let began = Instant::now();
    let result = lab::run(experiment, &setup, &bar);
    bar.end();
    let report = match result {
        Ok(report) => report,
        Err(LabError::Stopped) => return Err(Exit::Interrupted("nothing was written".into())),
        Err(LabError::Failed(why)) => {
            return Err(Exit::failed(format!(
                "{name} did not run to its end: {why}\nAgain: {}",
                Report::new(experiment, "", &setup).command
            )));
        }
    };
    let written = files::write(&report, &folder).map_err(Exit::failed)?;
    let mut out = io::stdout();
    if arguments.json {
        print_json(&mut out, &report, &written)?;
    } else {
        tell::report(&mut out, &report, &written, began.elapsed())?;
    }
    conclude(&report)
}

/// What a report means for the exit code.
fn conclude(report: &Report) -> Result<(), Exit> {
    if report.holds() { Ok(()) } else { Err(Exit::Failed(tell::broken(report))) }
}

/// How an experiment of `run-all` ended.
struct Ended {
    name: &'static str,
    result: Result<(Report, Vec<PathBuf>), String>,
    took: Duration,
}

fn all(arguments: &RunAllArguments) -> Result<(), Exit> {
    let bars = Bars::new();
    let folder = make_folder(&arguments.out)?;
    let experiments = lab::experiments();
    let threads = arguments.threads.map_or_else(
        || std::thread::available_parallelism().map_or(1, |cores| cores.get()),
        usize::from,
    );
    let next = AtomicUsize::new(0);
    // By the place of the experiment in the list.
    let ended: Mutex<Vec<(usize, Ended)>> = Mutex::new(Vec::new());
    let began = Instant::now();
    let worker = || {
        while !bars.stopped() {
            let place = next.fetch_add(1, Ordering::Relaxed);
            let Some(experiment) = experiments.get(place) else { return };
            let bar = bars.bar(experiment.name());
            let end = run_one_of_all(*experiment, arguments.seed, &folder, &bar);
            bar.end();
            if let Some(end) = end {
                ended.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).push((place, end));
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..threads.min(experiments.len()) {
            scope.spawn(worker);
        }
    });
    let mut ended = ended.into_inner().unwrap_or_else(|poisoned| poisoned.into_inner());
    if ended.len() < experiments.len() {
        return Err(Exit::Interrupted(format!(
            "{} of {} reports are in {}",
            ended.len(),
            experiments.len(),
            folder.display()
        )));
    }
    ended.sort_by_key(|(place, _)| *place);
    let ended: Vec<Ended> = ended.into_iter().map(|(_, ended)| ended).collect();
    let reports: Vec<&Report> =
        ended.iter().filter_map(|ended| Some(&ended.result.as_ref().ok()?.0)).collect();
    let failed: Vec<(&str, String)> = ended
        .iter()
        .filter_map(|ended| Some((ended.name, ended.result.as_ref().err()?.clone())))
        .collect();
    let index = files::write_index(&reports, &failed, &folder).map_err(Exit::failed)?;
    let mut out = io::stdout();
    if arguments.json {
        for Ended { name, result, .. } in &ended {
            match result {
                Ok((report, written)) => print_json(&mut out, report, written)?,
                Err(why) => {
                    writeln!(out, "{}", serde_json::json!({ "experiment": name, "failed": why }))?;
                }
            }
        }
    } else {
        tell::summary(&mut out, &ended, &index, began.elapsed())?;
    }
    let broken: Vec<&str> =
        ended.iter().filter(|ended| !ended.holds()).map(|ended| ended.name).collect();
    match broken.as_slice() {
        [] => Ok(()),
        names => Err(Exit::Failed(format!("not as expected: {}", names.join(", ")))),
    }
}

impl Ended {
    fn holds(&self) -> bool {
        self.result.as_ref().is_ok_and(|(report, _)| report.holds())
    }
}

/// Runs an experiment and writes its report; `None` when it was stopped.
fn run_one_of_all(
    experiment: &'static dyn Experiment,
    seed: u64,
    folder: &Path,
    bar: &Bar,
) -> Option<Ended> {
    let name = experiment.name();
    let began = Instant::now();
    let setup = Setup::new(experiment.parameters(), seed, &[]).expect("defaults are in range");
    let result = match lab::run(experiment, &setup, bar) {
        Ok(report) => match files::write(&report, &folder.join(name)) {
            Ok(written) => Ok((report, written)),
            Err(error) => Err(error.to_string()),
        },
        Err(LabError::Stopped) => return None,
        Err(LabError::Failed(why)) => Err(why),
    };
    Some(Ended { name, result, took: began.elapsed() })
}

fn print_json(out: &mut dyn Write, report: &Report, written: &[PathBuf]) -> io::Result<()> {
    let mut outcome = json::outcome(report);
    outcome["files"] = written.iter().map(|path| path.display().to_string()).collect();
    writeln!(out, "{outcome}")
}

/// Finds out that a folder cannot be made before an experiment takes its time.
fn make_folder(folder: &Path) -> Result<PathBuf, Exit> {
    std::fs::create_dir_all(folder)
        .map_err(|error| Exit::failed(format!("cannot make {}: {error}", folder.display())))?;
    Ok(folder.to_path_buf())
}

fn named(name: &str) -> Result<&'static dyn Experiment, Exit> {
    lab::find(name).ok_or_else(|| {
        let names: Vec<&str> = lab::experiments().iter().map(|known| known.name()).collect();
        let nearest =
            lab::nearest(name, &names).map(|nearest| format!(" (did you mean '{nearest}'?)"));
        Exit::Usage(format!(
            "no experiment is called '{name}'{}; there are: {}",
            nearest.unwrap_or_default(),
            names.join(", ")
        ))
    })
}

fn parse_choice(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.trim().is_empty() && !value.trim().is_empty() => {
            Ok((key.trim().into(), value.trim().into()))
        }
        _ => Err("a name and a number: poll=30".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn choices_are_a_name_and_a_value() {
        assert_eq!(parse_choice(" poll = 30 "), Ok(("poll".into(), "30".into())));
        assert_eq!(parse_choice("a=b=c"), Ok(("a".into(), "b=c".into())));
        for wrong in ["", "poll", "=30", "poll=", " = "] {
            assert!(parse_choice(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn what_is_not_as_expected_is_said_and_fails() {
        let experiment = lab::experiments()[0];
        let setup = Setup::new(experiment.parameters(), 0, &[]).unwrap();
        let mut report = Report::new(experiment, "title", &setup);
        report.summarize("All is well.");
        report.find("violations", "0", "none", true);
        let told = |report: &Report| {
            let mut out = Vec::new();
            tell::report(&mut out, report, &[], Duration::ZERO).unwrap();
            String::from_utf8(out).unwrap()
        };
        assert!(conclude(&report).is_ok());
        assert!(told(&report).contains("✓ yes") && !told(&report).contains('✗'));
        report.find("leaders", "2", "1", false);
        let Err(Exit::Failed(message)) = conclude(&report) else { panic!("it holds") };
        assert_eq!(message, "one finding is not as expected");
        assert!(told(&report).contains("✗ NO") && told(&report).contains("If they were"));
        report.findings.clear();
        assert!(conclude(&report).is_err(), "nothing measured is nothing shown");
    }

    #[test]
    fn what_is_not_there_is_a_wrong_command_line() {
        assert!(matches!(named("no-such-thing"), Err(Exit::Usage(_))));
    }
}
