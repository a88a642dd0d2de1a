//! How long a commit takes as more groups take part in it.

use super::support::stage::{Stage, in_turn, key_in, steady};
use super::support::sweep::{failed, seed_of, sweep};
use super::support::{as_ms, mean, ms_ns, ms_us};
use crate::history::Violation;
use crate::lab::report::{Axis, Chart, Report, Style, Table, number};
use crate::lab::{Experiment, LabError, Parameter, Progress, Setup};
use crate::options::Options;
use crate::run::guarded;
use crate::world::stream;
use bytes::Bytes;
use futures::FutureExt;
use parking_lot::Mutex;
use proto::request::LockMode;
use proto::{GroupId, Key};
use rand::Rng;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use truetime::providers::Skew;

/// Groups that take part, and how long the paper's commits took, in milliseconds (Table 4).
const TABLE_4: [(u32, f64); 5] = [(1, 17.0), (2, 24.5), (5, 31.5), (10, 30.0), (50, 42.7)];

const PARAMETERS: &[Parameter] = &[
    Parameter::measure("epsilon", "ms", 4.0, (0.0, 50.0), "half-width of every clock"),
    Parameter::measure("client_delay", "ms", 0.5, (0.01, 50.0), "one way from client to server"),
    Parameter::measure(
        "replica_delay",
        "ms",
        1.0,
        (0.05, 50.0),
        "shortest time one way between servers; the longest usual one is three times that",
    ),
    Parameter::measure(
        "sync",
        "ms",
        2.0,
        (0.1, 50.0),
        "longest time of a disk sync; the shortest is a tenth of it",
    ),
    Parameter::count("commits", "", 30, (3, 1_000), "commits measured at each point"),
];

/// See the [module](self).
pub struct Participants;

#[derive(Clone, Copy, Debug)]
struct Point {
    /// Groups that take part.
    groups: u32,
    /// All but one of them are only read.
    only_read: bool,
    epsilon_ms: f64,
    client_delay_ms: f64,
    replica_delay_ms: f64,
    sync_ms: f64,
    commits: u32,
    seed: u64,
}

/// Mean and standard deviation of how long commits took, one after the other, in milliseconds of
/// absolute time from the call of commit to its answer.
fn measure(point: Point) -> Result<(f64, f64), Violation> {
    let delay_us = ms_us(point.replica_delay_ms);
    let options = Options {
        groups: point.groups,
        epsilon_us: ms_us(point.epsilon_ms),
        latency_us: (delay_us, 3 * delay_us),
        client_latency_us: (ms_us(point.client_delay_ms), ms_us(point.client_delay_ms)),
        sync_us: (ms_us(point.sync_ms / 10.0), ms_us(point.sync_ms)),
        ..Options::quiet()
    };
    let mut rng = stream(point.seed, 40);
    let epsilon_ns = ms_ns(point.epsilon_ms);
    let clocks: Vec<Skew> = (0..options.nodes)
        .map(|_| steady((rng.random_range(-0.9..=0.9) * epsilon_ns as f64) as i64, epsilon_ns))
        .collect();
    let leaders = in_turn(options.groups, options.nodes);
    let mut stage = Stage::open(point.seed, options, &clocks, &leaders)?;
    let keys: Vec<Key> = (1..=point.groups)
        .map(|group| key_in(GroupId(group), point.groups, &format!("row-{group}")))
        .collect();
    let (client, absolute) = (stage.client(), stage.world.absolute());
    let took = Arc::new(Mutex::new(Vec::new()));
    let taken = took.clone();
    let work = async move {
        for number in 0..=point.commits {
            let Ok(txn) = client.begin() else { return };
            let (first, others) = keys.split_first().expect("a group at least");
            let value = Bytes::from(number.to_string());
            txn.put(first.clone(), value.clone());
            if point.only_read {
                if txn.get_many(others, LockMode::Shared).await.is_err() {
                    return;
                }
            } else {
                others.iter().for_each(|key| txn.put(key.clone(), value.clone()));
            }
            let began_ns = absolute.load(Ordering::Relaxed);
            // The first one has to find the leaders.
            if txn.commit().await.is_ok() && number > 0 {
                taken.lock().push(as_ms(absolute.load(Ordering::Relaxed) - began_ns));
            }
        }
    };
    stage.world.spawn(work.boxed());
    let ended = stage.world.run(600_000_000)?;
    let took = took.lock();
    if !ended || took.len() != point.commits as usize {
        let what = format!("{} of {} commits ended", took.len(), point.commits);
        return Err(Violation::new("progress", "P8", what));
    }
    let middle = mean(&took);
    let squares: Vec<f64> = took.iter().map(|ms| (ms - middle) * (ms - middle)).collect();
    Ok((middle, mean(&squares).sqrt()))
}

impl Experiment for Participants {
    fn name(&self) -> &'static str {
        "participants"
    }

    fn question(&self) -> &'static str {
        "What does it cost when many groups take part in one commit?"
    }

    fn parameters(&self) -> &'static [Parameter] {
        PARAMETERS
    }

    fn run(&self, setup: &Setup, progress: &dyn Progress) -> Result<Report, LabError> {
        let mut points = Vec::new();
        for only_read in [false, true] {
            for (groups, _) in TABLE_4 {
                points.push(Point {
                    groups,
                    only_read,
                    epsilon_ms: setup.get("epsilon"),
                    client_delay_ms: setup.get("client_delay"),
                    replica_delay_ms: setup.get("replica_delay"),
                    sync_ms: setup.get("sync"),
                    commits: setup.count("commits") as u32,
                    seed: seed_of(setup.seed(), points.len() as u64),
                });
            }
        }
        progress.begin(points.len() as u64);
        let took = sweep(&points, progress, |point| guarded(|| measure(*point)).map_err(failed))?;
        let measured: Vec<(Point, (f64, f64))> = points.into_iter().zip(took).collect();
        Ok(self.report(setup, &measured))
    }
}

impl Participants {
    fn report(&self, setup: &Setup, measured: &[(Point, (f64, f64))]) -> Report {
        let mut report = Report::new(self, "Two-phase commit over many groups", setup);
        let took = |groups: u32, only_read: bool| {
            let at = |(point, _): &&(Point, (f64, f64))| {
                point.groups == groups && point.only_read == only_read
            };
            measured.iter().find(at).map_or((0.0, 0.0), |(_, took)| *took)
        };
        let line = |y: &dyn Fn(u32, f64) -> f64| -> Vec<(f64, f64)> {
            TABLE_4.iter().map(|(n, paper)| (f64::from(*n), y(*n, *paper))).collect()
        };
        let (groups, latency) = (Axis::new("groups", ""), Axis::new("commit latency", "ms"));
        let chart = Chart::new("Commit latency against groups that take part", groups, latency)
            .caption(
                "Prepares run side by side, so a commit waits for the slowest of them: more groups \
                 cost a little more each, and not a round trip each.",
            )
            .series("all groups written", Style::Line, line(&|n, _| took(n, false).0))
            .series("one written, the others read", Style::Line, line(&|n, _| took(n, true).0))
            .series("the paper's Table 4", Style::Dashed, line(&|_, paper| paper));
        report.draw(chart);
        let columns = ["groups", "all written (ms)", "± (ms)", "one written (ms)", "paper (ms)"];
        let mut table = Table::new("Mean commit latency", &columns);
        for (n, paper) in TABLE_4 {
            let ((all, deviation), (one, _)) = (took(n, false), took(n, true));
            let cells = [all, deviation, one, paper].map(|ms| number(ms, 1));
            table.row([vec![n.to_string()], cells.to_vec()].concat());
        }
        report.tabulate(table);
        let (one, two, fifty) = (took(1, false).0, took(2, false).0, took(50, false).0);
        report.summarize(format!(
            "One group commits in {} ms, two in {}, fifty in {}: the second phase costs once, and \
             each further group next to nothing.",
            number(one, 1),
            number(two, 1),
            number(fifty, 1)
        ));
        report.find(
            "fifty groups, compared with one",
            format!("{:.1} times", fifty / one),
            "at most 3 times (the paper: 2.5)",
            fifty <= 3.0 * one,
        );
        report.find(
            "fifty groups, compared with two",
            format!("{:.1} times", fifty / two),
            "at most 2 times (the paper: 1.7)",
            fifty <= 2.0 * two,
        );
        let read = took(50, true).0;
        report.find(
            "fifty groups of which one is written, compared with all written",
            format!("{:.2} times", read / fifty),
            "less: groups that were only read log nothing (X6)",
            read < fifty,
        );
        report.note(
            "One client commits one transaction after the other; measured is the time from the call \
             to its answer. Delays between servers and times of syncs vary, as they do anywhere: \
             with more groups the slowest is slower. The paper's figures are from one machine for \
             each replica, with 1 ms between them; what is compared is the shape.",
        );
        report
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lab::Silent;

    #[test]
    fn more_participants_cost_little_and_those_that_only_read_less() {
        let overrides = [("commits".into(), "10".into())];
        let setup = Setup::new(PARAMETERS, 1, &overrides).unwrap();
        let report = Participants.run(&setup, &Silent).unwrap();
        assert!(report.holds(), "{:#?}", report.findings);
    }
}
