//! How often a row that everybody writes can be written, as ε grows.

use super::support::stage::{Stage, in_turn, key_in, steady};
use super::support::sweep::{failed, seed_of, sweep};
use super::support::{ms_ns, ms_us};
use crate::history::Violation;
use crate::lab::report::{Axis, Chart, Report, Style, Table, number};
use crate::lab::{Experiment, LabError, Parameter, Progress, Setup};
use crate::options::Options;
use crate::run::guarded;
use crate::world::{World, stream};
use bytes::Bytes;
use futures::FutureExt;
use proto::request::LockMode;
use proto::{Error, GroupId};
use rand::Rng;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use truetime::providers::Skew;

/// Time of a disk sync, in milliseconds.
const SYNC_MS: f64 = 0.1;
/// The half-width that the findings speak of, in milliseconds.
const EPSILON_MS: f64 = 5.0;

const PARAMETERS: &[Parameter] = &[
    Parameter::measure("epsilon_max", "ms", 7.0, (5.0, 50.0), "the largest half-width of a clock"),
    Parameter::count("points", "", 7, (1, 50), "steps from no ε to the largest"),
    Parameter::count("clients", "", 8, (2, 100), "clients that increment the row"),
    Parameter::measure("client_delay", "ms", 0.2, (0.01, 50.0), "one way from client to server"),
    Parameter::measure("replica_delay", "ms", 0.5, (0.05, 50.0), "one way between servers"),
    Parameter::measure("seconds", "s", 2.0, (0.5, 600.0), "simulated time at each point"),
];

/// See the [module](self).
pub struct HotRow;

#[derive(Clone, Copy, Debug)]
struct Point {
    epsilon_ms: f64,
    early_release: bool,
    clients: u32,
    client_delay_ms: f64,
    replica_delay_ms: f64,
    seconds: f64,
    seed: u64,
}

/// Increments per second of simulated time, by clients that read the row under an exclusive lock
/// and write it.
fn measure(point: Point) -> Result<f64, Violation> {
    let options = Options {
        epsilon_us: ms_us(point.epsilon_ms),
        latency_us: (ms_us(point.replica_delay_ms), ms_us(point.replica_delay_ms)),
        client_latency_us: (ms_us(point.client_delay_ms), ms_us(point.client_delay_ms)),
        sync_us: (ms_us(SYNC_MS), ms_us(SYNC_MS)),
        ..Options::quiet()
    };
    let mut rng = stream(point.seed, 40);
    let epsilon_ns = ms_ns(point.epsilon_ms);
    let mut world = World::new(point.seed, options.clone(), false);
    world.change_settings(|settings| settings.txn.early_release = point.early_release);
    world.allow_events(u64::MAX);
    for node in world.nodes() {
        let offset_ns = (rng.random_range(-0.9..=0.9) * epsilon_ns as f64) as i64;
        let skew: Skew = steady(offset_ns, epsilon_ns);
        world.skew(node).set(|now| *now = skew);
    }
    let mut stage = Stage::around(point.seed, world, &in_turn(1, options.nodes))?;
    let row = key_in(GroupId(1), 1, "row");
    let until_ns = stage.world.absolute().load(Ordering::Relaxed) + (point.seconds * 1e9) as u64;
    let done = Arc::new(AtomicU64::new(0));
    for _ in 0..point.clients {
        let (client, absolute) = (stage.client(), stage.world.absolute());
        let (row, done) = (row.clone(), done.clone());
        let work = async move {
            while absolute.load(Ordering::Relaxed) < until_ns {
                let increment = client.run(|txn| {
                    let row = row.clone();
                    async move {
                        let found =
                            txn.get_many(std::slice::from_ref(&row), LockMode::Exclusive).await?;
                        let text = found.into_iter().flatten().next().unwrap_or_default();
                        let before: u64 = String::from_utf8_lossy(&text).parse().unwrap_or(0);
                        txn.put(row, Bytes::from((before + 1).to_string()));
                        Ok::<u64, Error>(before + 1)
                    }
                });
                if let Ok((count, _)) = increment.await {
                    done.fetch_max(count, Ordering::Relaxed);
                }
            }
        };
        stage.world.spawn(work.boxed());
    }
    if !stage.world.run(60_000_000 + (point.seconds * 1e6) as u64)? {
        return Err(Violation::new("progress", "P8", "the clients did not end"));
    }
    // The row counts its increments, and an increment that is lost is not counted.
    Ok(done.load(Ordering::Relaxed) as f64 / point.seconds)
}

impl Experiment for HotRow {
    fn name(&self) -> &'static str {
        "hot-row"
    }

    fn question(&self) -> &'static str {
        "Must a row that everybody writes wait for the clocks?"
    }

    fn parameters(&self) -> &'static [Parameter] {
        PARAMETERS
    }

    fn run(&self, setup: &Setup, progress: &dyn Progress) -> Result<Report, LabError> {
        let steps = setup.count("points");
        let mut widths: Vec<f64> = (0..=steps)
            .map(|step| setup.get("epsilon_max") * step as f64 / steps as f64)
            .chain([EPSILON_MS])
            .collect();
        widths.sort_by(f64::total_cmp);
        widths.dedup();
        let mut points = Vec::new();
        for early_release in [false, true] {
            for epsilon_ms in &widths {
                points.push(Point {
                    epsilon_ms: *epsilon_ms,
                    early_release,
                    clients: setup.count("clients") as u32,
                    client_delay_ms: setup.get("client_delay"),
                    replica_delay_ms: setup.get("replica_delay"),
                    seconds: setup.get("seconds"),
                    seed: seed_of(setup.seed(), points.len() as u64),
                });
            }
        }
        progress.begin(points.len() as u64);
        let rates = sweep(&points, progress, |point| guarded(|| measure(*point)).map_err(failed))?;
        let measured: Vec<(Point, f64)> = points.into_iter().zip(rates).collect();
        Ok(self.report(setup, &measured))
    }
}

impl HotRow {
    fn report(&self, setup: &Setup, measured: &[(Point, f64)]) -> Report {
        let mut report = Report::new(self, "A hot row: limited by replication, not by ε̄", setup);
        let rate = |early: bool, epsilon_ms: f64| {
            let at =
                |(p, _): &&(Point, f64)| p.early_release == early && p.epsilon_ms == epsilon_ms;
            measured.iter().find(at).map_or(0.0, |(_, rate)| *rate)
        };
        let (axis, rates) = (Axis::new("ε̄", "ms"), Axis::new("increments", "1/s"));
        let mut chart = Chart::new("One row, incremented by all clients", axis, rates).caption(
            "Locks that are held until the timestamp has passed cost 2ε̄ each time; locks that end \
             when the commit is chosen cost its replication.",
        );
        for (early, name) in [(true, "released when chosen"), (false, "held until applied")] {
            let mine = measured.iter().filter(|(point, _)| point.early_release == early);
            let line: Vec<_> = mine.map(|(point, rate)| (point.epsilon_ms, *rate)).collect();
            chart = chart.series(name, Style::Line, line);
        }
        report.draw(chart);
        let mut table = Table::new(
            "Increments per second",
            &["ε̄ (ms)", "held until applied", "released when chosen"],
        );
        for (point, _) in measured.iter().filter(|(point, _)| point.early_release) {
            let ms = point.epsilon_ms;
            let (held, released) = (rate(false, ms), rate(true, ms));
            table.row(vec![number(ms, 1), number(held, 0), number(released, 0)]);
        }
        report.tabulate(table);
        let (off, on, exact) = (rate(false, EPSILON_MS), rate(true, EPSILON_MS), rate(true, 0.0));
        report.summarize(format!(
            "With ε̄ = 5 ms one row takes {} increments per second when locks end as the commit is \
             chosen, and {} when they are held until its timestamp has passed.",
            number(on, 0),
            number(off, 0)
        ));
        let share = on / exact * 100.0;
        report.find(
            "increments per second at ε̄ = 5 ms, of those without any ε",
            format!("{share:.0} %"),
            "at least 90 %: limited by replication",
            share >= 90.0,
        );
        let gain = on / off;
        report.find(
            "gain by early release at ε̄ = 5 ms",
            format!("{gain:.1} times"),
            "at least 2 times",
            gain >= 2.0,
        );
        report.note(
            "Every client reads the row under an exclusive lock and writes it, incremented by one, \
             again and again. The lock is held from the read over the client to the commit record, \
             and, without early release, until its timestamp has certainly passed (X8). Each commit \
             is still answered only after its own timestamp has passed; what gets shorter is how \
             long the others wait.",
        );
        report
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lab::Silent;

    #[test]
    fn a_hot_row_is_limited_by_replication_and_not_by_epsilon() {
        let overrides = [("points".into(), "1".into()), ("seconds".into(), "1".into())];
        let setup = Setup::new(PARAMETERS, 1, &overrides).unwrap();
        let report = HotRow.run(&setup, &Silent).unwrap();
        assert!(report.holds(), "{:#?}", report.findings);
    }
}
