//! Reads and writes while a server is killed: the paper's Figure 5.

use super::support::ms_us;
use super::support::stage::{Stage, key_in, steady};
use super::support::sweep::{failed, seed_of, sweep};
use crate::history::Violation;
use crate::lab::report::{Axis, Chart, Report, Style, Table};
use crate::lab::{Experiment, LabError, Parameter, Progress, Setup};
use crate::options::Options;
use crate::run::guarded;
use crate::world::stream;
use bytes::Bytes;
use futures::FutureExt;
use parking_lot::Mutex;
use proto::request::Body;
use proto::{GroupId, NodeId};
use rand::Rng;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use truetime::providers::Skew;
use txn::client::{ClientClock, ClientConfig, TimestampBound};

/// When the blow falls.
const KILL_S: f64 = 5.0;

/// Width of the steps in which operations are counted.
const BIN_MS: u64 = 100;

/// How long a leader that is asked to step down is given before its process ends.
const NOTICE_MS: u64 = 2_000;

/// Leads everything at first.
const LEADER: NodeId = NodeId(1);

const PARAMETERS: &[Parameter] = &[
    Parameter::measure("lease", "s", 10.0, (0.5, 20.0), "length of a lease"),
    Parameter::count("groups", "", 10, (1, 50), "groups, all led by one server at first"),
    Parameter::count("servers", "", 5, (3, 7), "servers with a replica of each group"),
    Parameter::measure(
        "length",
        "s",
        25.0,
        (10.0, 120.0),
        "how long it is watched, or longer if leases are; the blow falls after 5 s",
    ),
    Parameter::measure(
        "pause",
        "ms",
        20.0,
        (1.0, 50.0),
        "mean pause of a client between two operations",
    ),
    Parameter::measure("epsilon", "ms", 4.0, (0.0, 50.0), "half-width of every clock"),
];

/// See the [module](self).
pub struct Failover;

/// What happens to whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Blow {
    /// A server that leads nothing is killed.
    NonLeader,
    /// The leader is killed.
    Hard,
    /// The leader is asked to hand all its groups on, and killed when it has.
    Soft,
}

impl Blow {
    const ALL: [Blow; 3] = [Blow::NonLeader, Blow::Soft, Blow::Hard];

    /// As the paper calls it.
    fn name(self) -> &'static str {
        match self {
            Blow::NonLeader => "non-leader",
            Blow::Hard => "leader-hard",
            Blow::Soft => "leader-soft",
        }
    }
}

/// One world; times as the unit says.
#[derive(Clone, Copy, Debug)]
pub struct Point {
    /// What happens.
    pub blow: Blow,
    /// Length of a lease.
    pub lease_s: f64,
    /// Groups.
    pub groups: u32,
    /// Servers.
    pub servers: u32,
    /// Until when it is watched.
    pub length_s: f64,
    /// Mean pause of a client.
    pub pause_ms: f64,
    /// Half-width of every clock.
    pub epsilon_ms: f64,
    /// Of the world.
    pub seed: u64,
}

/// When operations ended, in seconds since it is watched; in order.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// Reads.
    pub reads_s: Vec<f64>,
    /// Writes.
    pub writes_s: Vec<f64>,
    /// Operations of each group.
    pub groups_s: Vec<Vec<f64>>,
}

impl Outcome {
    /// The longest time in which no operation of one group ended, of all groups.
    pub fn longest_gap_s(&self, until_s: f64) -> f64 {
        self.groups_s.iter().map(|ended| longest_gap(ended, until_s)).fold(0.0, f64::max)
    }

    /// Operations per second between two instants.
    pub fn rate(&self, from_s: f64, to_s: f64) -> f64 {
        let all = self.reads_s.iter().chain(&self.writes_s);
        let within = all.filter(|at_s| (from_s..to_s).contains(*at_s)).count();
        within as f64 / (to_s - from_s)
    }
}

fn longest_gap(ended_s: &[f64], until_s: f64) -> f64 {
    let ends = ended_s.iter().copied().chain([until_s]);
    let mut last_s = 0.0;
    let mut longest: f64 = 0.0;
    for at_s in ends {
        longest = longest.max(at_s - last_s);
        last_s = at_s;
    }
    longest
}

/// Runs one reader and one writer for each group, and lets the blow fall.
///
/// # Errors
/// What a checker saw, or that the leader did not lead.
pub fn measure(point: Point) -> Result<Outcome, Violation> {
    let epsilon_ns = ms_us(point.epsilon_ms) * 1_000;
    let options = Options {
        nodes: point.servers,
        founders: point.servers,
        groups: point.groups,
        epsilon_us: ms_us(point.epsilon_ms),
        lease_ms: (point.lease_s * 1_000.0) as u64,
        latency_us: (1_000, 1_000),
        client_latency_us: (1_000, 1_000),
        sync_us: (500, 500),
        ..Options::quiet()
    };
    let mut rng = stream(point.seed, 41);
    let clocks: Vec<Skew> = (0..point.servers)
        .map(|_| steady((rng.random_range(-0.9..=0.9) * epsilon_ns as f64) as i64, epsilon_ns))
        .collect();
    let leaders = vec![LEADER; point.groups as usize];
    let mut stage = Stage::open(point.seed, options, &clocks, &leaders)?;
    let zero_ns = stage.world.absolute_ns();
    let outcome = Arc::new(Mutex::new(Outcome {
        groups_s: vec![Vec::new(); point.groups as usize],
        ..Outcome::default()
    }));
    for group in (1..=point.groups).map(GroupId) {
        for writes in [false, true] {
            start_client(&mut stage, point, (group, writes), zero_ns, &outcome);
        }
    }
    stage.world.run_for(ms_us(KILL_S * 1_000.0))?;
    let led = |stage: &Stage| {
        let groups = (1..=point.groups).map(GroupId);
        groups.filter(|group| stage.world.leader(*group) == Some(LEADER)).collect::<Vec<_>>()
    };
    if led(&stage).len() != point.groups as usize {
        return Err(Violation::new("progress", "P8", format!("{LEADER} does not lead all groups")));
    }
    match point.blow {
        Blow::NonLeader => stage.world.kill(NodeId(2)),
        Blow::Hard => stage.world.kill(LEADER),
        Blow::Soft => {
            let operator = stage.client();
            for group in led(&stage) {
                let to = NodeId(2 + group.0 % (point.servers - 1));
                let operator = operator.clone();
                let ask = async move {
                    let _ = operator.router().ask(group, Body::Transfer { to }).await;
                };
                stage.world.spawn(ask.boxed());
            }
            let mut notice_ms = 0;
            while notice_ms < NOTICE_MS && !led(&stage).is_empty() {
                stage.world.run_for(10_000)?;
                notice_ms += 10;
            }
            stage.world.kill(LEADER);
        }
    }
    let end_ns = zero_ns + (point.length_s * 1e9) as u64;
    stage.world.run_for(end_ns.saturating_sub(stage.world.absolute_ns()) / 1_000)?;
    let outcome = outcome.lock().clone();
    Ok(outcome)
}

/// A client that reads or writes one row of a group, one after the other, as long as the world runs.
fn start_client(
    stage: &mut Stage,
    point: Point,
    (group, writes): (GroupId, bool),
    zero_ns: u64,
    outcome: &Arc<Mutex<Outcome>>,
) {
    let config = ClientConfig { attempt_ms: 300, operation_ms: 15_000, ..ClientConfig::default() };
    let nodes = stage.world.nodes();
    let (client, port) = stage.client_of(nodes, config);
    let mut rng = stream(point.seed, 300 + 2 * u64::from(group.0) + u64::from(writes));
    let row = key_in(group, point.groups, "row");
    let (absolute, outcome) = (stage.world.absolute(), outcome.clone());
    let work = async move {
        loop {
            let pause_us = rng.random_range(0..=ms_us(2.0 * point.pause_ms));
            port.sleep(Duration::from_micros(pause_us)).await;
            let done = match writes {
                true => match client.begin() {
                    Ok(txn) => {
                        txn.put(row.clone(), Bytes::from_static(b"something"));
                        txn.commit().await.is_ok()
                    }
                    Err(_) => false,
                },
                false => match client.snapshot(TimestampBound::Strong) {
                    Ok(snapshot) => snapshot.get(&row).await.is_ok(),
                    Err(_) => false,
                },
            };
            if done {
                let at_s = (absolute.load(Ordering::Relaxed) - zero_ns) as f64 / 1e9;
                let mut outcome = outcome.lock();
                outcome.groups_s[group.0 as usize - 1].push(at_s);
                let ended_s = if writes { &mut outcome.writes_s } else { &mut outcome.reads_s };
                ended_s.push(at_s);
            }
        }
    };
    stage.world.spawn(work.boxed());
}

/// How many had ended by each tenth of a second.
fn cumulated(ended_s: &[f64], length_s: f64) -> Vec<(f64, f64)> {
    let bins = (length_s * 1_000.0) as u64 / BIN_MS;
    let mut done = 0;
    let mut points = Vec::new();
    for bin in 0..=bins {
        let at_s = (bin * BIN_MS) as f64 / 1_000.0;
        while ended_s.get(done).is_some_and(|ended_s| *ended_s <= at_s) {
            done += 1;
        }
        points.push((at_s, done as f64));
    }
    points
}

/// Until everybody can lead again, and five seconds more.
fn length_s(setup: &Setup) -> f64 {
    setup.get("length").max(KILL_S + 1.5 * setup.get("lease") + 6.0)
}

impl Experiment for Failover {
    fn name(&self) -> &'static str {
        "failover"
    }

    fn question(&self) -> &'static str {
        "What do clients feel when a server dies, and what when it steps down first?"
    }

    fn parameters(&self) -> &'static [Parameter] {
        PARAMETERS
    }

    fn run(&self, setup: &Setup, progress: &dyn Progress) -> Result<Report, LabError> {
        let point = |blow| Point {
            blow,
            lease_s: setup.get("lease"),
            groups: setup.count("groups") as u32,
            servers: setup.count("servers") as u32,
            length_s: length_s(setup),
            pause_ms: setup.get("pause"),
            epsilon_ms: setup.get("epsilon"),
            // The same for all: they differ in what happens only.
            seed: seed_of(setup.seed(), 0),
        };
        let points = Blow::ALL.map(point);
        progress.begin(points.len() as u64);
        let outcomes =
            sweep(&points, progress, |point| guarded(|| measure(*point)).map_err(failed))?;
        let measured: Vec<(Point, Outcome)> = points.into_iter().zip(outcomes).collect();
        Ok(self.report(setup, &measured))
    }
}

impl Failover {
    fn report(&self, setup: &Setup, measured: &[(Point, Outcome)]) -> Report {
        let mut report = Report::new(self, "Killing a server (Figure 5)", setup);
        let (length_s, lease_s) = (length_s(setup), setup.get("lease"));
        let chart = |title: &str, of: fn(&Outcome) -> &Vec<f64>| {
            let chart = Chart::new(title, Axis::new("time", "s"), Axis::new("operations done", ""))
                .mark(KILL_S, "killed");
            measured.iter().fold(chart, |chart, (point, outcome)| {
                let points = cumulated(of(outcome), length_s);
                chart.series(point.blow.name(), Style::Line, points)
            })
        };
        let reads = chart("Strong reads, cumulated", |outcome| &outcome.reads_s);
        report.draw(
            reads.caption("Flat is where nobody is answered. Steps are groups that lead again."),
        );
        report.draw(chart("Commits, cumulated", |outcome| &outcome.writes_s));
        let columns = [
            "killed",
            "longest gap of reads (s)",
            "of commits (s)",
            "of one group (s)",
            "per second before",
            "in the last 5 s",
        ];
        let mut table = Table::new("What clients feel", &columns);
        let (mut gaps, mut back) = (Vec::new(), true);
        for (point, outcome) in measured {
            let (before, after) =
                (outcome.rate(0.0, KILL_S), outcome.rate(length_s - 5.0, length_s));
            let gap_s = outcome.longest_gap_s(length_s);
            gaps.push((point.blow, gap_s));
            back &= after >= 0.9 * before;
            table.row(vec![
                point.blow.name().into(),
                format!("{:.3}", longest_gap(&outcome.reads_s, length_s)),
                format!("{:.3}", longest_gap(&outcome.writes_s, length_s)),
                format!("{gap_s:.3}"),
                format!("{before:.0}"),
                format!("{after:.0}"),
            ]);
        }
        report.tabulate(table);
        let gap = |blow| gaps.iter().find(|(of, _)| *of == blow).map_or(f64::NAN, |(_, gap)| *gap);
        let (other, hard, soft) = (gap(Blow::NonLeader), gap(Blow::Hard), gap(Blow::Soft));
        report.summarize(format!(
            "Nobody notices that a follower dies. A leader that dies keeps its groups waiting for \
             {hard:.1} s, until its leases of {lease_s:.0} s are over; one that steps down first, \
             for {soft:.2} s."
        ));
        report.find(
            "longest gap of a group when a follower is killed",
            format!("{other:.3} s"),
            "under half a second",
            other < 0.5,
        );
        report.find(
            "longest gap of a group when its leader is killed",
            format!("{hard:.2} s"),
            format!(
                "from {:.1} to {:.1} s: the lease, and an election",
                0.7 * lease_s,
                1.5 * lease_s + 1.0
            ),
            (0.7 * lease_s..1.5 * lease_s + 1.0).contains(&hard),
        );
        report.find(
            "longest gap of a group when its leader steps down first",
            format!("{soft:.3} s"),
            "under half a second",
            soft < 0.5,
        );
        report.find(
            "the rate in the last five seconds",
            if back { "as before" } else { "lower" },
            "within 10 % of what it was before",
            back,
        );
        report.note(
            "All groups are led by one server at first. One client reads a row of each group, strongly, \
             and one writes it, one operation after the other. After five seconds a server is killed, \
             for good: one that leads nothing; the leader, hard; or the leader after it was asked to \
             hand on all its groups (P10), which wait for nothing but that their timestamps have \
             passed (L5).",
        );
        report.note(
            "A voter is bound to a dead leader until its timed vote has run out (L1): a lease after it \
             was last renewed, by heartbeats or writes. Then the groups elect, each after a random \
             pause. The paper's servers, with leases of 10 s too, come back in the same way: all of \
             them within about ten seconds of the kill.",
        );
        report
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lab::Silent;

    #[test]
    fn a_dead_leader_costs_a_lease_and_one_that_steps_down_next_to_nothing() {
        let overrides = [("lease", "2"), ("groups", "3"), ("length", "15")];
        let overrides = overrides.map(|(name, value)| (name.to_string(), value.to_string()));
        let setup = Setup::new(PARAMETERS, 1, &overrides).unwrap();
        let report = Failover.run(&setup, &Silent).unwrap();
        assert!(report.holds(), "{:#?}", report.findings);
    }

    #[test]
    fn gaps_reach_to_the_end() {
        assert_eq!(longest_gap(&[1.0, 2.0, 2.5], 9.0), 6.5);
        assert_eq!(longest_gap(&[], 3.0), 3.0);
    }
}
