//! # The clock laboratory
//!
//! What does a bound on a clock's error buy, and what breaks without it? A paper can say it; here it
//! is measured. An **experiment** builds a world ([`crate::world`]): production servers and clients
//! on simulated clocks, network and disks. The world knows absolute time, which no real cluster
//! does, so it can put beside each other what a node believed and what was true: when a write was
//! acknowledged, who read what afterwards, which intervals did not contain the time.
//!
//! ```text
//!   Parameter ──► Setup ──► Experiment::run ──► Report ──► terminal
//!   (name, unit,  (seed,     │                   │         report.html
//!    range)       values)    └─► Progress        │         data.csv, parameters.json
//!                                                └─ findings: measured beside expected
//! ```
//!
//! - [`Experiment`]: a name, a question in plain words, parameters, and a run from a [`Setup`].
//!   Equal setups give equal reports, on any machine.
//! - [`Parameter`], [`Setup`]: what can be chosen, with units and ranges; wrong choices are named.
//! - [`Report`]: the answer. Its **findings** are sentences that can be wrong: a number that was
//!   measured, what theory says it must be, and whether it is. An experiment that shows a failure
//!   on purpose (a lying clock) *expects* violations, and finds fault when there are none.
//! - [`Progress`]: how far a run is, and whether somebody wants it to stop.
//! - [`experiments()`]: the list, in reading order: first how a bound comes about, then what it
//!   costs, then what happens without it.
//!
//! ## What is absent, on purpose
//! Real time: nothing here waits or measures how fast this machine is, so a report says what the
//! protocol does and not what the hardware does (`meridian bench` does that). Planted faults: what
//! an experiment breaks is chosen in its world, so that experiments can run side by side.

pub mod experiments;
mod parameters;
pub mod report;

pub use parameters::{Parameter, Setup, SetupError, nearest};
pub use report::Report;

use std::panic::{self, AssertUnwindSafe};

/// A question about clocks, and a run that answers it.
///
/// Experiments hold no state: everything a run depends on is in its [`Setup`], and two runs of
/// equal setups give equal reports.
pub trait Experiment: Sync {
    /// What it is called on the command line: lower case words joined by `-`.
    fn name(&self) -> &'static str;

    /// What it answers, as one plain question.
    fn question(&self) -> &'static str;

    /// What can be chosen.
    fn parameters(&self) -> &'static [Parameter];

    /// Runs it. It says how many steps there are once, with [`Progress::begin`], calls
    /// [`Progress::step`] after each, and looks at [`Progress::stopped`] at least that often.
    ///
    /// # Errors
    /// [`LabError::Stopped`] when it was asked to stop; [`LabError::Failed`] when the run itself
    /// went wrong. A finding that does not hold is *not* an error: the report says so.
    fn run(&self, setup: &Setup, progress: &dyn Progress) -> Result<Report, LabError>;
}

/// How far a run is. Whoever waits for it implements this; experiments call it.
pub trait Progress: Sync {
    /// A run begins and will take so many steps.
    fn begin(&self, steps: u64);

    /// One of them is done.
    fn step(&self);

    /// Whether the run should end now, with [`LabError::Stopped`].
    fn stopped(&self) -> bool;
}

/// Nobody looks, and the run is never stopped: for tests.
#[derive(Clone, Copy, Debug, Default)]
pub struct Silent;

impl Progress for Silent {
    fn begin(&self, _steps: u64) {}

    fn step(&self) {}

    fn stopped(&self) -> bool {
        false
    }
}

/// Why there is no report.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LabError {
    /// Somebody asked for it, through [`Progress::stopped`].
    #[error("stopped before its end")]
    Stopped,
    /// The run went wrong in a way that no finding speaks of: a server failed an assertion, a world
    /// stood still.
    #[error("{0}")]
    Failed(String),
}

impl LabError {
    /// [`LabError::Failed`], with these words.
    pub fn failed(what: impl Into<String>) -> LabError {
        LabError::Failed(what.into())
    }
}

/// All experiments, in reading order.
pub fn experiments() -> &'static [&'static dyn Experiment] {
    experiments::ALL
}

/// The experiment of a name.
pub fn find(name: &str) -> Option<&'static dyn Experiment> {
    experiments().iter().copied().find(|experiment| experiment.name() == name)
}

/// Runs an experiment; an assertion that fails inside ends the run and not the caller.
///
/// # Errors
/// As [`Experiment::run`].
pub fn run(
    experiment: &dyn Experiment,
    setup: &Setup,
    progress: &dyn Progress,
) -> Result<Report, LabError> {
    let result = panic::catch_unwind(AssertUnwindSafe(|| experiment.run(setup, progress)));
    result.unwrap_or_else(|payload| {
        let text = payload.downcast_ref::<String>().cloned();
        let text = text.or_else(|| payload.downcast_ref::<&str>().map(|text| text.to_string()));
        Err(LabError::Failed(text.unwrap_or_else(|| "a panic without words".into())))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    struct Faulty;

    impl Experiment for Faulty {
        fn name(&self) -> &'static str {
            "faulty"
        }

        fn question(&self) -> &'static str {
            "What if a run fails?"
        }

        fn parameters(&self) -> &'static [Parameter] {
            &[]
        }

        fn run(&self, setup: &Setup, _: &dyn Progress) -> Result<Report, LabError> {
            match setup.seed() {
                0 => panic!("P1: seed {} is unlucky", setup.seed()),
                _ => Err(LabError::Stopped),
            }
        }
    }

    #[test]
    fn a_panic_is_a_failure_of_the_run() {
        let setup = |seed| Setup::new(&[], seed, &[]).unwrap();
        let failed = run(&Faulty, &setup(0), &Silent).unwrap_err();
        assert_eq!(failed, LabError::failed("P1: seed 0 is unlucky"));
        assert_eq!(run(&Faulty, &setup(1), &Silent).unwrap_err(), LabError::Stopped);
    }

    #[test]
    fn names_are_unique_and_parameters_in_range() {
        let mut names = BTreeSet::new();
        for experiment in experiments() {
            let name = experiment.name();
            assert!(names.insert(name), "{name} is there twice");
            assert!(name.chars().all(|c| c.is_ascii_lowercase() || c == '-'), "{name}");
            assert!(experiment.question().ends_with('?'), "{name} asks nothing");
            assert_eq!(find(name).map(|found| found.name()), Some(name));
            // Asserts what parameters promise.
            Setup::new(experiment.parameters(), 0, &[]).unwrap();
        }
        assert!(find("no-such-thing").is_none());
    }
}
