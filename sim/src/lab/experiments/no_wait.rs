//! What commit wait is for: the same clocks, the same timestamps, and nobody waits.

use super::support::relay::{self, Race, Track};
use super::support::stage::{Stage, in_turn, steady};
use super::support::story::{self, Story};
use super::support::sweep::{failed, seed_of, sweep};
use super::support::{mean, ms_ns, ms_us, per_thousand};
use crate::checkers::{external_consistency, snapshot};
use crate::history::Violation;
use crate::lab::report::{Axis, Chart, Report, Style, Table, number};
use crate::lab::{Experiment, LabError, Parameter, Progress, Setup};
use crate::options::Options;
use crate::run::guarded;
use parking_lot::Mutex;
use std::sync::Arc;
use truetime::providers::Skew;

/// Of the largest ε, which are tried.
const STEPS: [f64; 8] = [0.0, 0.1, 0.2, 0.3, 0.4, 0.6, 0.8, 1.0];

/// How far off the clocks of the three nodes are, of their ε: well within it.
const OFFSETS: [f64; 3] = [0.9, 0.0, -0.9];

const PARAMETERS: &[Parameter] = &[
    Parameter::measure(
        "epsilon_max",
        "ms",
        10.0,
        (1.0, 100.0),
        "the largest half-width of a clock",
    ),
    Parameter::measure("delay", "ms", 0.2, (0.01, 20.0), "one way of every message"),
    Parameter::count(
        "transactions",
        "",
        2_000,
        (100, 100_000),
        "transactions at each ε, with and without the wait",
    ),
];

/// See the [module](self).
pub struct NoWait;

/// One world.
#[derive(Clone, Copy, Debug)]
pub struct Point {
    /// Half-width of every clock, in milliseconds.
    pub epsilon_ms: f64,
    /// One way of every message, in milliseconds.
    pub delay_ms: f64,
    /// How many transactions.
    pub transactions: u64,
    /// Whether commits wait.
    pub wait: bool,
    /// Of the world.
    pub seed: u64,
}

/// What it came to.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Transactions that committed or read.
    pub transactions: u64,
    /// Those that are out of order.
    pub violations: u64,
    /// How long a commit took, in milliseconds.
    pub commit_ms: f64,
    /// Changes of leaders, once the relays ran.
    pub leader_changes: u64,
    /// The first violation, told.
    pub story: Option<Story>,
}

/// Runs relays over three groups, each led by another node.
///
/// # Errors
/// What a checker saw where nothing is to be seen, or that the relays did not end.
pub fn measure(point: Point) -> Result<Outcome, Violation> {
    let (epsilon_ns, delay_us) = (ms_ns(point.epsilon_ms), ms_us(point.delay_ms));
    let options = Options {
        groups: 3,
        epsilon_us: ms_us(point.epsilon_ms),
        latency_us: (delay_us, delay_us),
        client_latency_us: (delay_us, delay_us),
        ..Options::quiet()
    };
    let off = |part: f64| (part * epsilon_ns as f64) as i64;
    let clocks: Vec<Skew> = OFFSETS.iter().map(|part| steady(off(*part), epsilon_ns)).collect();
    let leaders = in_turn(options.groups, options.nodes);
    let mut stage = Stage::open(point.seed, options, &clocks, &leaders)?;
    if !point.wait {
        stage.world.collect_violations();
        for node in stage.world.nodes() {
            stage.world.skew(node).set(|skew| skew.hasty = true);
        }
    }
    let changes = stage.world.tally().leader_changes;
    let race = Race { relays: 4, ..Race::default() };
    let race = Race { transactions: point.transactions.div_ceil(4), ..race };
    let track = Arc::new(Mutex::new(Track::default()));
    relay::start(&mut stage, point.seed, race, &track);
    if !stage.world.run(3_600_000_000)? {
        return Err(Violation::new("progress", "P8", "the relays did not end"));
    }
    let track = track.lock();
    if point.wait {
        snapshot::check(&track.history)?;
    }
    let disorders = external_consistency::disorders(&track.history);
    Ok(Outcome {
        transactions: track.done(),
        violations: disorders.len() as u64,
        commit_ms: mean(&track.commit_ms()),
        leader_changes: stage.world.tally().leader_changes - changes,
        story: story::first(&track, &stage.world),
    })
}

impl Experiment for NoWait {
    fn name(&self) -> &'static str {
        "no-wait"
    }

    fn question(&self) -> &'static str {
        "What is commit wait for: what happens when nobody waits, although all clocks are honest?"
    }

    fn parameters(&self) -> &'static [Parameter] {
        PARAMETERS
    }

    fn run(&self, setup: &Setup, progress: &dyn Progress) -> Result<Report, LabError> {
        let mut points = Vec::new();
        for wait in [true, false] {
            for step in STEPS {
                points.push(Point {
                    epsilon_ms: step * setup.get("epsilon_max"),
                    delay_ms: setup.get("delay"),
                    transactions: setup.count("transactions"),
                    wait,
                    seed: seed_of(setup.seed(), points.len() as u64),
                });
            }
        }
        progress.begin(points.len() as u64);
        let outcomes =
            sweep(&points, progress, |point| guarded(|| measure(*point)).map_err(failed))?;
        let measured: Vec<(Point, Outcome)> = points.into_iter().zip(outcomes).collect();
        Ok(self.report(setup, &measured))
    }
}

impl NoWait {
    fn report(&self, setup: &Setup, measured: &[(Point, Outcome)]) -> Report {
        let mut report = Report::new(self, "Commit wait off", setup);
        let of = |wait: bool| measured.iter().filter(move |(point, _)| point.wait == wait);
        let sums = |wait: bool| {
            of(wait).fold((0, 0), |(done, bad), (_, outcome)| {
                (done + outcome.transactions, bad + outcome.violations)
            })
        };
        let ((waited, waited_bad), (hasty, hasty_bad)) = (sums(true), sums(false));
        let rate = |(point, outcome): &(Point, Outcome)| {
            (point.epsilon_ms, per_thousand(outcome.violations, outcome.transactions))
        };
        let latency = |(point, outcome): &(Point, Outcome)| (point.epsilon_ms, outcome.commit_ms);
        let epsilon = || Axis::new("ε", "ms");
        report.draw(
            Chart::new("Violations", epsilon(), Axis::new("violations per 1,000 transactions", ""))
                .caption(
                    "Out of order: acknowledged before the other began, with a higher timestamp.",
                )
                .series("without the wait", Style::Line, of(false).map(rate).collect())
                .series("with it", Style::Line, of(true).map(rate).collect()),
        );
        report.draw(
            Chart::new("Commit latency", epsilon(), Axis::new("mean commit latency", "ms"))
                .caption("What the wait costs.")
                .series("without the wait", Style::Line, of(false).map(latency).collect())
                .series("with it", Style::Line, of(true).map(latency).collect()),
        );
        let columns =
            ["ε (ms)", "commits wait", "transactions", "violations", "per 1,000", "commit (ms)"];
        let mut table = Table::new("External consistency", &columns);
        for (point, outcome) in measured {
            table.row(vec![
                format!("{:.1}", point.epsilon_ms),
                if point.wait { "yes" } else { "no" }.into(),
                outcome.transactions.to_string(),
                outcome.violations.to_string(),
                format!("{:.1}", per_thousand(outcome.violations, outcome.transactions)),
                format!("{:.2}", outcome.commit_ms),
            ]);
        }
        report.tabulate(table);
        let per = per_thousand(hasty_bad, hasty);
        report.summarize(format!(
            "Honest clocks alone order nothing: without commit wait {per:.0} of 1,000 transactions \
             come out of order, with it {waited_bad} of {}.",
            number(waited as f64, 0)
        ));
        let none = format!("{waited_bad} of {} transactions", number(waited as f64, 0));
        report.find("violations with commit wait", none, "none", waited_bad == 0);
        // Two clocks differ by 1.8 ε; a commit takes two hops to replicate, and two from client to
        // client.
        let clocks_ms = (OFFSETS[0] - OFFSETS[2]) * setup.get("epsilon_max");
        let possible = clocks_ms > 1.2 * (4.0 * setup.get("delay") + 0.1);
        let some =
            format!("{} of {} transactions", number(hasty_bad as f64, 0), number(hasty as f64, 0));
        let expected = match possible {
            true => "some",
            false => "any: messages take about as long as clocks differ",
        };
        report.find("violations without commit wait", some, expected, hasty_bad > 0 || !possible);
        let still: u64 = measured.iter().map(|(_, outcome)| outcome.leader_changes).sum();
        report.find("changes of leaders meanwhile", still.to_string(), "none", still == 0);
        let (_, largest) = of(false).next_back().map_or((0.0, 0.0), rate);
        let (_, smallest) = of(false).next().map_or((0.0, 0.0), rate);
        report.find(
            "violations without the wait at the largest ε, and at none",
            format!("{largest:.0} and {smallest:.0} of 1,000"),
            "more, and none: clocks that agree need no wait",
            (largest > 0.0 || !possible) && smallest == 0.0,
        );
        report.note(
            "Three groups, each led by another node, whose clocks are 0.9 ε ahead, right, and 0.9 ε \
             behind: all within their bound. Relays of clients write one row after the other, each \
             in a group drawn at random, and each begins when the one before has been acknowledged; \
             two of ten transactions are strong reads of what the relay wrote.",
        );
        report.note(
            "The servers are the same in both. Without the wait, clocks give their latest time as \
             their earliest too: timestamps are chosen as before, and after(s) holds as soon as s is \
             chosen. A write then becomes visible when it is replicated, while other leaders may \
             still hand out lower timestamps for up to twice ε.",
        );
        let mut told = of(false).filter_map(|(point, o)| Some((point, o.story.as_ref()?)));
        let plain = told.clone().find(|(_, story)| story.is_plain);
        if let Some((point, story)) = plain.or(told.next()) {
            let title = format!("A violation without the wait, at ε = {:.1} ms", point.epsilon_ms);
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
    fn honest_clocks_keep_ten_thousand_transactions_in_order_but_only_if_commits_wait() {
        let setup = Setup::new(PARAMETERS, 1, &[]).unwrap();
        let report = NoWait.run(&setup, &Silent).unwrap();
        assert!(report.holds(), "{:#?}", report.findings);
        let waited = report.tables[0].rows.iter().filter(|row| row[1] == "yes");
        let done: u64 = waited.clone().map(|row| row[2].parse::<u64>().unwrap()).sum();
        assert!(done >= 10_000, "{done} transactions");
        assert!(waited.clone().all(|row| row[3] == "0"));
        let story = report.history.unwrap().lines;
        assert!(story.iter().any(|line| line.contains("acknowledges T1")), "{story:#?}");
        assert!(story.iter().any(|line| line.contains("begins T2")), "{story:#?}");
    }
}
