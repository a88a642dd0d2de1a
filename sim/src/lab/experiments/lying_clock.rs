//! One node's oscillator runs faster than the bound allows for.

use super::support::relay::{self, Race, SharedTrack, Track};
use super::support::stage::Stage;
use super::support::story::{self, Story};
use super::support::sweep::{failed, seed_of, sweep};
use super::support::{as_ms, ms_ns, ms_us, per_thousand};
use crate::checkers::external_consistency;
use crate::history::Violation;
use crate::lab::report::{Axis, Chart, Report, Style, Table, number};
use crate::lab::{Experiment, LabError, Parameter, Progress, Setup};
use crate::options::Options;
use crate::run::guarded;
use crate::timekeeping::{Master, Timekeeping};
use crate::world::World;
use parking_lot::Mutex;
use proto::NodeId;
use std::sync::Arc;
use truetime::daemon::DaemonConfig;
use truetime::providers::Drift;
use truetime::{Interval, Status};

/// Of the applied rate, how fast the liar's oscillator runs in turn.
const STEPS: [f64; 8] = [0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 5.0, 10.0];

/// What the oscillators of the two others do, of the applied rate.
const OTHERS: [f64; 2] = [-0.8, 0.4];

/// One that goes wrong while it runs.
const LATE: f64 = 10.0;

/// The one that lies.
const LIAR: NodeId = NodeId(1);

/// Polls until clocks have a bound that can be worked with.
const WARM_UP_POLLS: f64 = 5.0;

/// After so many looks, leaders are asked to go back to where they were.
const RETURN_LOOKS: u64 = 50;

/// How often the liar's clock is looked at, in milliseconds.
const LOOK_MS: u64 = 20;

const PARAMETERS: &[Parameter] = &[
    Parameter::measure("poll", "s", 10.0, (2.0, 60.0), "from one round of polls to the next"),
    Parameter::measure(
        "applied_drift",
        "µs/s",
        200.0,
        (10.0, 2_000.0),
        "the drift that the bound allows for",
    ),
    Parameter::measure(
        "delay",
        "ms",
        0.2,
        (0.01, 20.0),
        "one way of every message, and to the masters",
    ),
    Parameter::measure("length", "s", 60.0, (10.0, 600.0), "how long clients work at each drift"),
    Parameter::measure(
        "pause",
        "ms",
        60.0,
        (0.0, 1_000.0),
        "mean pause of a client before a transaction",
    ),
];

/// See the [module](self).
pub struct LyingClock;

/// One world; units as in the parameters.
#[derive(Clone, Copy, Debug)]
pub struct Point {
    /// Drift of the liar, of the applied rate.
    pub times: f64,
    /// Whether it drifts like this only from the middle of the work on; it is right before that.
    pub late: bool,
    /// Whether daemons watch their own rate (T5).
    pub evict: bool,
    /// See the parameters.
    pub poll_s: f64,
    /// See the parameters.
    pub applied_ppm: u32,
    /// See the parameters.
    pub delay_ms: f64,
    /// See the parameters.
    pub length_s: f64,
    /// See the parameters.
    pub pause_ms: f64,
    /// Of the world.
    pub seed: u64,
}

/// What came of it.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// Transactions that committed or read.
    pub transactions: u64,
    /// Those out of order.
    pub violations: u64,
    /// Time that the liar's clock spent outside of its own interval, in seconds (T1).
    pub wrong_s: f64,
    /// How far it was outside at most, in milliseconds.
    pub worst_ms: f64,
    /// The liar's status at the end.
    pub status: Option<Status>,
    /// From when it began to lie until it evicted itself, in seconds.
    pub evicted_s: Option<f64>,
    /// An assertion of a server that failed.
    pub assertion: Option<String>,
    /// The first violation, told.
    pub story: Option<Story>,
}

impl Point {
    /// Whether the liar keeps what its bound promises.
    pub fn honest(&self) -> bool {
        self.times.abs() <= 1.0
    }
}

/// Runs relays over three groups, one of which the liar leads, if it has a bound.
///
/// # Errors
/// What a checker saw where all clocks are honest, or that relays did not end.
pub fn measure(point: Point) -> Result<Outcome, Violation> {
    let track = Arc::new(Mutex::new(Track::default()));
    let mut outcome = Outcome::default();
    let result = guarded(|| work(point, &track, &mut outcome));
    match result {
        Err(violation) if point.honest() || violation.checker == "progress" => {
            return Err(violation);
        }
        // Servers may assert what a lying clock makes false; what was done till then counts.
        Err(violation) => outcome.assertion = Some(violation.what),
        Ok(()) => {}
    }
    let track = track.lock();
    outcome.transactions = track.done();
    outcome.violations = external_consistency::disorders(&track.history).len() as u64;
    Ok(outcome)
}

fn work(point: Point, track: &SharedTrack, outcome: &mut Outcome) -> Result<(), Violation> {
    let mut world = open(point)?;
    world.run_for((WARM_UP_POLLS * point.poll_s * 1e6) as u64)?;
    // Who has a bound leads; with the liar, if that has one.
    let nodes = world.nodes();
    let able: Vec<NodeId> =
        nodes.iter().copied().filter(|node| world.reading(*node).is_ok()).collect();
    let leaders: Vec<NodeId> =
        nodes.iter().map(|node| if able.contains(node) { *node } else { able[0] }).collect();
    let mut stage = Stage::around(point.seed, world, &leaders)?;
    let began_ns = stage.world.absolute_ns();
    let end_ns = began_ns + ms_ns(point.length_s * 1_000.0);
    let race =
        Race { relays: 4, until_ns: end_ns, pause_us: ms_us(point.pause_ms), ..Race::default() };
    relay::start(&mut stage, point.seed, race, track);
    let mut looks = 0;
    let mut lies_since_ns = (!point.late).then_some(began_ns);
    let watched_ns = end_ns + ms_ns(1_000.0 * (point.poll_s + 2.0));
    while stage.world.absolute_ns() < watched_ns {
        if lies_since_ns.is_none() && stage.world.absolute_ns() >= (began_ns + end_ns) / 2 {
            lies_since_ns = Some(stage.world.absolute_ns());
            stage.world.set_oscillator(LIAR, point.times * f64::from(point.applied_ppm));
        }
        looks += 1;
        if looks % RETURN_LOOKS == 0 && !point.evict {
            stage.ask_for(&leaders);
        }
        stage.world.run_for(LOOK_MS * 1_000)?;
        look(&stage.world, lies_since_ns, outcome);
    }
    let track = track.lock();
    outcome.story = story::first(&track, &stage.world);
    Ok(())
}

fn open(point: Point) -> Result<World, Violation> {
    let delay_us = ms_us(point.delay_ms);
    let options = Options {
        groups: 3,
        epsilon_us: 0, // of the clients: they are right
        latency_us: (delay_us, delay_us),
        client_latency_us: (delay_us, delay_us),
        ..Options::quiet()
    };
    let names = (1..=3).map(|n| format!("m{n}")).collect();
    let daemon = DaemonConfig {
        poll_ns: ms_ns(point.poll_s * 1_000.0),
        drift_ppm: point.applied_ppm,
        evict: point.evict,
        ..DaemonConfig::new(names, point.seed)
    };
    let applied_ppm = f64::from(point.applied_ppm);
    let first = if point.late { 0.0 } else { point.times };
    let oscillators = [first, OTHERS[0], OTHERS[1]].map(|times| Drift::Linear {
        offset_ns: 0,
        rate_ppm: times * applied_ppm,
        since_ns: 0,
    });
    let how =
        Timekeeping { daemon, delay_ns: ms_ns(point.delay_ms), oscillators: oscillators.to_vec() };
    let mut world = World::new(point.seed, options, false);
    world.allow_events(u64::MAX);
    world.keep_time(vec![Master::honest(); 3], &how);
    if !point.honest() {
        world.collect_violations();
    }
    Ok(world)
}

/// How wrong the liar is just now, and whether it knows.
fn look(world: &World, lies_since_ns: Option<u64>, outcome: &mut Outcome) {
    let now_ns = world.absolute_ns();
    let reading = world.reading(LIAR);
    outcome.status = Some(match &reading {
        Ok(reading) => reading.status,
        Err(error) => error.status,
    });
    match &reading {
        Ok(reading) => {
            let off_ms = outside_ms(now_ns, reading.interval);
            outcome.worst_ms = outcome.worst_ms.max(off_ms);
            outcome.wrong_s += if off_ms > 0.0 { LOOK_MS as f64 / 1e3 } else { 0.0 };
        }
        // One that is set right by a poll contradicts itself for some milliseconds: not that.
        Err(error) if error.reason.contains("off its masters") => {
            let since_s = lies_since_ns.map(|since_ns| as_ms(now_ns - since_ns) / 1e3);
            outcome.evicted_s = outcome.evicted_s.or(since_s);
        }
        Err(_) => {}
    }
}

/// How far absolute time is outside of an interval.
fn outside_ms(now_ns: u64, said: Interval) -> f64 {
    let (from_ns, to_ns) = (said.earliest().micros() * 1_000, said.latest().micros() * 1_000);
    as_ms(from_ns.saturating_sub(now_ns).max(now_ns.saturating_sub(to_ns)))
}

impl Experiment for LyingClock {
    fn name(&self) -> &'static str {
        "lying-clock"
    }

    fn question(&self) -> &'static str {
        "What does one clock that drifts faster than it promised do to all, and does it find out?"
    }

    fn parameters(&self) -> &'static [Parameter] {
        PARAMETERS
    }

    fn run(&self, setup: &Setup, progress: &dyn Progress) -> Result<Report, LabError> {
        let mut points = Vec::new();
        let mut add = |times, late, evict| {
            points.push(Point {
                times,
                late,
                evict,
                poll_s: setup.get("poll"),
                applied_ppm: setup.get("applied_drift").round() as u32,
                delay_ms: setup.get("delay"),
                length_s: setup.get("length"),
                pause_ms: setup.get("pause"),
                seed: seed_of(setup.seed(), points.len() as u64),
            });
        };
        for evict in [false, true] {
            STEPS.iter().for_each(|times| add(*times, false, evict));
            add(LATE, true, evict);
        }
        progress.begin(points.len() as u64);
        let outcomes = sweep(&points, progress, |point| measure(*point).map_err(failed))?;
        let measured: Vec<(Point, Outcome)> = points.into_iter().zip(outcomes).collect();
        Ok(self.report(setup, &measured))
    }
}

impl LyingClock {
    fn report(&self, setup: &Setup, measured: &[(Point, Outcome)]) -> Report {
        let mut report = Report::new(self, "A clock that drifts too fast", setup);
        let of = |evict: bool| {
            measured.iter().filter(move |(point, _)| point.evict == evict && !point.late)
        };
        let rate = |(point, outcome): &(Point, Outcome)| {
            (point.times, per_thousand(outcome.violations, outcome.transactions))
        };
        let worst = |(point, outcome): &(Point, Outcome)| (point.times, outcome.worst_ms);
        let drift = || Axis::new("drift of one clock", "× the applied rate");
        report.draw(
            Chart::new("Violations", drift(), Axis::new("violations per 1,000 transactions", ""))
                .caption("Up to the applied rate there are none, whatever else is wrong.")
                .series("eviction off", Style::Line, of(false).map(rate).collect())
                .series("eviction on", Style::Line, of(true).map(rate).collect())
                .mark(1.0, "applied rate"),
        );
        report.draw(
            Chart::new(
                "How wrong the clock is",
                drift(),
                Axis::new("absolute time outside of its interval", "ms"),
            )
            .caption("At most, just before a poll sets it right.")
            .series("eviction off", Style::Line, of(false).map(worst).collect())
            .series("eviction on", Style::Line, of(true).map(worst).collect()),
        );
        let columns = [
            "drift (× applied)",
            "eviction",
            "transactions",
            "violations",
            "per 1,000",
            "wrong for (s)",
            "wrong by (ms)",
            "status at the end",
            "evicted after (s)",
        ];
        let mut table = Table::new("What one clock does", &columns);
        for (point, outcome) in measured {
            let late = if point.late { ", from the middle on" } else { "" };
            table.row(vec![
                format!("{}×{late}", point.times),
                if point.evict { "on" } else { "off" }.into(),
                outcome.transactions.to_string(),
                outcome.violations.to_string(),
                format!("{:.1}", per_thousand(outcome.violations, outcome.transactions)),
                format!("{:.1}", outcome.wrong_s),
                format!("{:.2}", outcome.worst_ms),
                outcome.status.map_or_else(|| "none".into(), |status| status.to_string()),
                match outcome.evicted_s {
                    None => "–".into(),
                    Some(0.0..0.1) => "before it served".into(),
                    Some(after_s) => format!("{after_s:.1}"),
                },
            ]);
        }
        report.tabulate(table);
        let sums = |which: &dyn Fn(&Point) -> bool| {
            let those = measured.iter().filter(|(point, _)| which(point));
            those.fold((0, 0), |(all, bad), (_, o)| (all + o.transactions, bad + o.violations))
        };
        let (honest, honest_bad) = sums(&|point| point.honest());
        let (lied, lied_bad) = sums(&|point| !point.honest() && !point.evict);
        let (safe, safe_bad) = sums(&|point| point.evict && !point.late);
        let top = of(false).map(rate).map(|(_, rate)| rate).fold(0.0, f64::max);
        report.summarize(format!(
            "While every clock drifts within the applied rate, {honest_bad} of {} transactions are \
             out of order. Beyond it, one clock brings up to {top:.0} of 1,000 out of order; with \
             eviction on, {safe_bad} of {}, for its node finds out before it serves.",
            number(honest as f64, 0),
            number(safe as f64, 0)
        ));
        report.find(
            "violations with a drift within the applied rate",
            format!("{honest_bad} of {}", number(honest as f64, 0)),
            "none",
            honest_bad == 0 && honest > 0,
        );
        let grown_ms =
            STEPS[STEPS.len() - 1] * setup.get("applied_drift") * setup.get("poll") / 1e3;
        let possible = grown_ms > 8.0 * setup.get("delay") + 2.0;
        report.find(
            "violations beyond it, eviction off",
            format!("{lied_bad} of {}", number(lied as f64, 0)),
            if possible { "some" } else { "any: messages take about as long as the clock is off" },
            lied_bad > 0 || !possible,
        );
        report.find(
            "violations with eviction on, of a clock that drifts from the start",
            format!("{safe_bad} of {}", number(safe as f64, 0)),
            "none: its rate is known before it serves",
            safe_bad == 0 && safe > 0,
        );
        let late = measured.iter().find(|(point, _)| point.late && point.evict);
        if let Some((point, outcome)) = late {
            let after = outcome.evicted_s.unwrap_or(f64::INFINITY);
            // What it gains until the next poll must be more than round trips leave open.
            let provable = (LATE - 1.0) * setup.get("applied_drift") * point.poll_s / 1e3
                > 8.0 * point.delay_ms;
            if provable {
                report.find(
                    format!("until a clock that begins to drift at {LATE}× evicts itself"),
                    format!("{after:.1} s"),
                    format!("at most {:.0} s: the next poll, and its answers", point.poll_s + 1.0),
                    after <= point.poll_s + 1.0,
                );
            }
            report.note(format!(
                "A clock that begins to drift while it serves is believed until the next poll, for \
                 nobody can know before: {:.1} s here, of which its interval was wrong for {:.1} s, \
                 and {} of {} transactions were out of order. The poll interval is what that risks; \
                 the paper's answer is that oscillators fail less often than processors.",
                after, outcome.wrong_s, outcome.violations, outcome.transactions
            ));
        }
        let asserted = measured.iter().find_map(|(_, outcome)| outcome.assertion.clone());
        if let Some(what) = asserted {
            report.note(format!(
                "In at least one run with a lying clock a server asserted and stopped: {what}."
            ));
        }
        report.note(
            "Three nodes with production time daemons and three masters that are right; each node \
             leads a group. The oscillators of two drift at −0.8 and 0.4 of the applied rate, the \
             third as shown. Relays of clients write one after the other, with clocks that are right. \
             A poll sets the clock right, and ε with it: what is wrong grows from poll to poll.",
        );
        report.note(
            "Also without eviction a node notices when a poll sets its clock back by more than twice \
             ε: it has contradicted itself, and gives its leases up (T5). Here its group is handed \
             back to it every second, as an operator would who believes in the clock.",
        );
        let mut told = of(false).filter_map(|(point, o)| Some((point, o.story.as_ref()?)));
        let plain = told.clone().find(|(_, story)| story.is_plain);
        if let Some((point, story)) = plain.or(told.next()) {
            let times = point.times;
            let title = format!("A violation, at {times}× the applied rate, eviction off");
            report.tell(title, story.lines.clone());
        }
        report
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lab::Silent;

    #[test]
    fn a_drift_beyond_the_applied_rate_breaks_order_unless_the_node_evicts_itself() {
        let overrides = [("length".into(), "30".into()), ("poll".into(), "6".into())];
        let setup = Setup::new(PARAMETERS, 1, &overrides).unwrap();
        let report = LyingClock.run(&setup, &Silent).unwrap();
        assert!(report.holds(), "{:#?}", report.findings);
        assert!(report.history.is_some());
        let violations = |times: &str, eviction: &str| {
            let rows = report.tables[0].rows.iter();
            let mut rows = rows.filter(|row| row[0] == times && row[1] == eviction);
            rows.next().unwrap()[3].parse::<u64>().unwrap()
        };
        assert_eq!(violations("1×", "off"), 0);
        assert!(violations("10×", "off") > 0);
        assert_eq!(violations("10×", "on"), 0);
    }
}
