//! How long commits take as ε grows, and as replication takes longer.

use super::support::stage::{Stage, in_turn, steady};
use super::support::sweep::{failed, seed_of, sweep};
use super::support::{as_ms, mean, ms_ns, ms_us};
use crate::history::Violation;
use crate::lab::report::{Axis, Chart, Report, Style, Table};
use crate::lab::{Experiment, LabError, Parameter, Progress, Setup};
use crate::options::Options;
use crate::run::guarded;
use crate::world::stream;
use bytes::Bytes;
use futures::FutureExt;
use parking_lot::Mutex;
use rand::Rng;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use truetime::providers::Skew;

/// Time of a disk sync, in milliseconds.
const SYNC_MS: f64 = 0.1;

const PARAMETERS: &[Parameter] = &[
    Parameter::measure(
        "epsilon_max",
        "ms",
        20.0,
        (2.0, 100.0),
        "the largest half-width of a clock",
    ),
    Parameter::count("points", "", 20, (4, 200), "steps from no ε to the largest"),
    Parameter::measure("client_delay", "ms", 0.5, (0.01, 50.0), "one way from client to server"),
    Parameter::measure(
        "replica_delay",
        "ms",
        2.0,
        (0.05, 50.0),
        "one way between servers, also tried at a quarter and at four times of it",
    ),
    Parameter::count(
        "commits",
        "",
        40,
        (5, 10_000),
        "commits measured at each point, one after the other",
    ),
];

/// See the [module](self).
pub struct CommitWait;

/// One point of the measurement; all times in milliseconds.
#[derive(Clone, Copy, Debug)]
pub struct Point {
    /// Half-width of every clock.
    pub epsilon_ms: f64,
    /// One way between servers.
    pub replica_delay_ms: f64,
    /// One way between client and server.
    pub client_delay_ms: f64,
    /// How many commits.
    pub commits: u32,
    /// Of the world.
    pub seed: u64,
}

impl Point {
    /// How long it takes until a quorum holds a write: to a follower, its disk, and back. The
    /// leader's own disk is done before that.
    pub fn replication_ms(&self) -> f64 {
        2.0 * self.replica_delay_ms + SYNC_MS
    }

    /// To the leader and back; between them replication (X5) and commit wait (X8) at the same time.
    /// The timestamp is the leader's `latest` as the request arrives (X7), and over when its
    /// `earliest` is beyond that: twice ε later.
    pub fn predicted_ms(&self) -> f64 {
        2.0 * self.client_delay_ms + self.replication_ms().max(2.0 * self.epsilon_ms)
    }

    /// Whether the wait is what a commit waits for.
    pub fn waits(&self) -> bool {
        2.0 * self.epsilon_ms > self.replication_ms()
    }
}

/// How long commits of one client took on the average, one after the other, in milliseconds of
/// absolute time.
///
/// # Errors
/// What a checker saw, or that they did not end.
pub fn measure(point: Point) -> Result<f64, Violation> {
    let options = Options {
        epsilon_us: ms_us(point.epsilon_ms),
        latency_us: (ms_us(point.replica_delay_ms), ms_us(point.replica_delay_ms)),
        client_latency_us: (ms_us(point.client_delay_ms), ms_us(point.client_delay_ms)),
        sync_us: (ms_us(SYNC_MS), ms_us(SYNC_MS)),
        ..Options::quiet()
    };
    let mut rng = stream(point.seed, 40);
    let epsilon_ns = ms_ns(point.epsilon_ms);
    let clocks: Vec<Skew> = (0..options.nodes)
        .map(|_| steady((rng.random_range(-0.9..=0.9) * epsilon_ns as f64) as i64, epsilon_ns))
        .collect();
    let leaders = in_turn(options.groups, options.nodes);
    let mut stage = Stage::open(point.seed, options, &clocks, &leaders)?;
    let (client, absolute) = (stage.client(), stage.world.absolute());
    let took = Arc::new(Mutex::new(Vec::new()));
    let taken = took.clone();
    let work = async move {
        for number in 0..=point.commits {
            let began_ns = absolute.load(Ordering::Relaxed);
            let Ok(txn) = client.begin() else { return };
            txn.put(Bytes::from_static(b"row"), Bytes::from(number.to_string()));
            // The first one has to find the leader.
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
    Ok(mean(&took))
}

/// The increase of y with x, by least squares.
fn slope(points: &[(f64, f64)]) -> f64 {
    let (xs, ys): (Vec<f64>, Vec<f64>) = points.iter().copied().unzip();
    let (x, y) = (mean(&xs), mean(&ys));
    let rise: f64 = points.iter().map(|(a, b)| (a - x) * (b - y)).sum();
    rise / points.iter().map(|(a, _)| (a - x) * (a - x)).sum::<f64>()
}

impl Experiment for CommitWait {
    fn name(&self) -> &'static str {
        "commit-wait"
    }

    fn question(&self) -> &'static str {
        "What does an uncertain clock cost: how long does a commit take as ε grows?"
    }

    fn parameters(&self) -> &'static [Parameter] {
        PARAMETERS
    }

    fn run(&self, setup: &Setup, progress: &dyn Progress) -> Result<Report, LabError> {
        let steps = setup.count("points");
        let delays: Vec<f64> =
            [0.25, 1.0, 4.0].iter().map(|times| times * setup.get("replica_delay")).collect();
        let mut points = Vec::new();
        for delay in &delays {
            for step in 0..=steps {
                points.push(Point {
                    epsilon_ms: setup.get("epsilon_max") * step as f64 / steps as f64,
                    replica_delay_ms: *delay,
                    client_delay_ms: setup.get("client_delay"),
                    commits: setup.count("commits") as u32,
                    seed: seed_of(setup.seed(), points.len() as u64),
                });
            }
        }
        progress.begin(points.len() as u64);
        let took = sweep(&points, progress, |point| guarded(|| measure(*point)).map_err(failed))?;
        let measured: Vec<(Point, f64)> = points.into_iter().zip(took).collect();
        Ok(self.report(setup, &delays, &measured))
    }
}

impl CommitWait {
    fn report(&self, setup: &Setup, delays: &[f64], measured: &[(Point, f64)]) -> Report {
        let mut report = Report::new(self, "Commit wait: hidden, then 2ε̄", setup);
        let error = |(point, ms): &(Point, f64)| (ms / point.predicted_ms() - 1.0).abs() * 100.0;
        let worst = measured.iter().map(error).fold(0.0, f64::max);
        let waiting: Vec<_> = measured.iter().filter(|(point, _)| point.waits()).copied().collect();
        let hidden: Vec<_> = measured.iter().filter(|(point, _)| !point.waits()).copied().collect();
        let worst_waiting = waiting.iter().map(error).fold(0.0, f64::max);
        let mut slopes = Vec::new();
        let (epsilon, latency) = (Axis::new("ε̄", "ms"), Axis::new("commit latency", "ms"));
        let mut chart = Chart::new("Commit latency against ε", epsilon, latency).caption(
            "Flat while replication takes longer than the wait, which runs beside it; then two \
             milliseconds more for each millisecond of ε.",
        );
        let columns =
            ["replication (ms)", "ε̄ (ms)", "measured (ms)", "predicted (ms)", "difference (%)"];
        let mut table = Table::new("Commit latency", &columns);
        for delay in delays {
            let mine: Vec<_> =
                measured.iter().filter(|(point, _)| point.replica_delay_ms == *delay).collect();
            let line = |y: fn(&(Point, f64)) -> f64| {
                mine.iter().map(|at| (at.0.epsilon_ms, y(at))).collect::<Vec<_>>()
            };
            let (took, said) = (line(|at| at.1), line(|at| at.0.predicted_ms()));
            let replication = mine.first().map_or(0.0, |at| at.0.replication_ms());
            let name = format!("replication {replication:.1} ms");
            chart = chart.series(&name, Style::Points, took);
            chart = chart.series(format!("{name}, predicted"), Style::Dashed, said);
            let beyond: Vec<(f64, f64)> =
                mine.iter().filter(|at| at.0.waits()).map(|at| (at.0.epsilon_ms, at.1)).collect();
            if beyond.len() > 1 {
                slopes.push(slope(&beyond));
            }
            for at in mine.iter().step_by((mine.len() / 5).max(1)) {
                let (point, ms) = at;
                let cells = [replication, point.epsilon_ms, *ms, point.predicted_ms(), error(at)];
                table.row(cells.iter().map(|cell| format!("{cell:.2}")).collect());
            }
        }
        report.draw(chart);
        report.tabulate(table);
        let steepness = mean(&slopes);
        let flat = hidden.iter().map(error).fold(0.0, f64::max);
        report.summarize(match slopes.is_empty() {
            false => format!(
                "A commit waits 2ε̄, beside its replication: the wait costs nothing until 2ε̄ is \
                 longer than that, and {steepness:.2} ms for each ms of ε from there."
            ),
            true => "The wait is shorter than replication at all points, and costs nothing.".into(),
        });
        if !waiting.is_empty() {
            report.find(
                "commit latency where the wait is longer than replication",
                format!("at most {worst_waiting:.1} % off"),
                "round trip + 2ε̄, within 10 %",
                worst_waiting <= 10.0,
            );
        }
        if !hidden.is_empty() {
            report.find(
                "commit latency where replication is longer than the wait",
                format!("at most {flat:.1} % off"),
                "round trip + replication, within 10 %",
                flat <= 10.0,
            );
        }
        report.find(
            "commit latency at all points",
            format!("at most {worst:.1} % off"),
            "round trip + max(replication, 2ε̄), within 10 %",
            worst <= 10.0,
        );
        if !slopes.is_empty() {
            report.find(
                "increase with each ms of ε where the wait is longer",
                format!("{steepness:.3} ms"),
                "2 ms, within 5 %",
                (steepness - 2.0).abs() <= 0.1,
            );
        }
        report.note(
            "One client commits blind writes to one group of three replicas, one after the other. \
             Predicted: to the leader and back, and between them the longer of replication (to a \
             follower, its disk, and back) and commit wait. The commit timestamp s is the leader's \
             latest as the request arrives (X7), so earliest passes it 2ε later (X8); a request that \
             finds an s of an earlier one still ahead would wait longer, but a client that waits for \
             each commit never brings one.",
        );
        report.note(
            "Every clock is off by some constant within ε. The error itself costs nothing: what a \
             commit waits for is how wrong its leader's clock may be, not how wrong it is.",
        );
        report
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lab::Silent;

    #[test]
    fn the_wait_is_hidden_by_replication_and_then_twice_epsilon() {
        let overrides = [("points".into(), "10".into()), ("commits".into(), "10".into())];
        let setup = Setup::new(PARAMETERS, 1, &overrides).unwrap();
        let report = CommitWait.run(&setup, &Silent).unwrap();
        assert!(report.holds(), "{:#?}", report.findings);
        let point = |epsilon_ms| Point {
            epsilon_ms,
            replica_delay_ms: 2.0,
            client_delay_ms: 0.5,
            commits: 10,
            seed: 3,
        };
        let took = |epsilon_ms| measure(point(epsilon_ms)).unwrap();
        let (none, little, much) = (took(0.0), took(1.0), took(10.0));
        assert!((none - 5.1).abs() < 0.1, "{none}");
        assert!((little - none).abs() < 0.05, "{little} is {none}: hidden");
        assert!((much - 21.0).abs() < 0.1, "{much}: 1 ms of round trip, 20 ms of wait");
    }
}
