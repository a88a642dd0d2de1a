//! Time masters that lie: one, several, alike and each for itself.

use super::support::sweep::{failed, seed_of, sweep};
use super::support::{as_ms, ms_ns};
use crate::history::Violation;
use crate::lab::report::{Axis, Chart, Report, Style, Table};
use crate::lab::{Experiment, LabError, Parameter, Progress, Setup};
use crate::options::Options;
use crate::run::guarded;
use crate::timekeeping::{Master, Timekeeping};
use crate::world::World;
use proto::NodeId;
use truetime::daemon::DaemonConfig;
use truetime::providers::Drift;
use truetime::{Sources, Status, Timestamp, Verdict};

/// How often the clock is looked at, in milliseconds.
const LOOK_MS: u64 = 100;

/// Polls until the rate of the clock is known well.
const WARM_UP_POLLS: f64 = 8.0;

/// Polls that are watched: long enough for a clock that was found broken to be believed again.
const WATCHED_POLLS: f64 = 14.0;

const NODE: NodeId = NodeId(1);

const PARAMETERS: &[Parameter] = &[
    Parameter::measure("poll", "s", 30.0, (2.0, 60.0), "from one round of polls to the next"),
    Parameter::measure(
        "applied_drift",
        "µs/s",
        200.0,
        (10.0, 500.0),
        "the drift that the bound allows for",
    ),
    Parameter::measure("delay", "ms", 1.0, (0.01, 2.0), "one way to a master"),
    Parameter::measure(
        "lie",
        "ms",
        50.0,
        (50.0, 10_000.0),
        "by how much a lying master is off; no master claims any uncertainty",
    ),
];

/// See the [module](self).
pub struct Masters;

/// What masters do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Case {
    /// Nobody lies.
    Honest,
    /// One of three is ahead.
    OneOfThree,
    /// One of three stands still.
    Frozen,
    /// Two of five are ahead by the same.
    TwoOfFiveAlike,
    /// Two of five lie, in different directions.
    TwoOfFive,
    /// Two of three lie, in different directions.
    TwoOfThree,
    /// Two of three are ahead by the same, all at once.
    TwoOfThreeAlike,
    /// The same, before the clock was ever synchronized.
    AlikeFromTheStart,
    /// Two of three drift alike, by less than the applied rate.
    AlikeSlowly,
}

impl Case {
    const ALL: [Case; 9] = [
        Case::Honest,
        Case::OneOfThree,
        Case::Frozen,
        Case::TwoOfFiveAlike,
        Case::TwoOfFive,
        Case::TwoOfThree,
        Case::TwoOfThreeAlike,
        Case::AlikeFromTheStart,
        Case::AlikeSlowly,
    ];

    fn name(self) -> &'static str {
        match self {
            Case::Honest => "none of 3 lies",
            Case::OneOfThree => "1 of 3 lies",
            Case::Frozen => "1 of 3 stands still",
            Case::TwoOfFiveAlike => "2 of 5 lie alike",
            Case::TwoOfFive => "2 of 5 lie, each for itself",
            Case::TwoOfThree => "2 of 3 lie, each for itself",
            Case::TwoOfThreeAlike => "2 of 3 lie alike, all at once",
            Case::AlikeFromTheStart => "2 of 3 lie alike from the start",
            Case::AlikeSlowly => "2 of 3 drift away alike",
        }
    }

    fn masters(self) -> usize {
        if matches!(self, Case::TwoOfFive | Case::TwoOfFiveAlike) { 5 } else { 3 }
    }

    /// How many lie.
    pub fn liars(self) -> usize {
        match self {
            Case::Honest => 0,
            Case::OneOfThree | Case::Frozen => 1,
            _ => 2,
        }
    }

    /// Whether the honest ones are a majority.
    pub fn is_minority(self) -> bool {
        2 * self.liars() < self.masters()
    }

    fn begins_at_the_start(self) -> bool {
        self == Case::AlikeFromTheStart
    }

    /// What the first and the second liar do from an absolute time on.
    fn lies(self, lie_ns: i64, applied_ppm: f64, now_ns: u64) -> [Master; 2] {
        let (ahead, behind) = (Master::lying(lie_ns), Master::lying(-lie_ns));
        let rate_ppm = 0.75 * applied_ppm;
        let drift = Drift::Linear { offset_ns: 0, rate_ppm, since_ns: now_ns };
        let slow = Master { drift, ..Master::honest() };
        match self {
            Case::TwoOfFive | Case::TwoOfThree => [ahead, behind],
            Case::Frozen => [Master { frozen_ns: Some(now_ns), ..Master::honest() }; 2],
            Case::AlikeSlowly => [slow; 2],
            _ => [ahead; 2],
        }
    }
}

/// One world; units as in the parameters.
#[derive(Clone, Copy, Debug)]
pub struct Point {
    /// Who lies, how.
    pub case: Case,
    /// See the parameters.
    pub poll_s: f64,
    /// See the parameters.
    pub applied_ppm: u32,
    /// See the parameters.
    pub delay_ms: f64,
    /// See the parameters.
    pub lie_ms: f64,
    /// Of the world.
    pub seed: u64,
}

/// What came of it.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// Masters that were accepted, and rejected, one and a half polls after the lies began.
    pub accepted: usize,
    /// See `accepted`.
    pub rejected: usize,
    /// Since the lies began in seconds, ε, and how far the middle was off, in milliseconds; not
    /// finite while there was no bound.
    pub looks: Vec<(f64, f64, f64)>,
    /// How long the interval was without absolute time, in seconds, and since when.
    pub wrong_s: f64,
    /// See `wrong_s`.
    pub wrong_since_s: Option<f64>,
    /// The status and since when it was so, one after the other.
    pub statuses: Vec<(f64, Status)>,
}

impl Outcome {
    fn epsilon_max_ms(&self) -> f64 {
        self.looks.iter().map(|look| look.1).filter(|ms| ms.is_finite()).fold(0.0, f64::max)
    }

    fn error_max_ms(&self) -> f64 {
        self.looks.iter().map(|look| look.2).filter(|ms| ms.is_finite()).fold(0.0, f64::max)
    }

    /// Since when it first had this status.
    fn since_s(&self, wanted: Status) -> Option<f64> {
        self.statuses.iter().find(|(_, status)| *status == wanted).map(|(at_s, _)| *at_s)
    }
}

/// Watches the clock of one node from the time on at which masters begin to lie.
///
/// # Errors
/// What a checker saw while the honest masters are a majority.
pub fn measure(point: Point) -> Result<Outcome, Violation> {
    let case = point.case;
    let names = (1..=case.masters()).map(|n| format!("m{n}")).collect();
    let config = DaemonConfig::new(names, point.seed);
    let answer_within_ns = config.answer_within_ns.max(3 * ms_ns(point.delay_ms));
    let poll_ns = ms_ns(point.poll_s * 1_000.0);
    let daemon = DaemonConfig { poll_ns, drift_ppm: point.applied_ppm, answer_within_ns, ..config };
    let applied_ppm = f64::from(point.applied_ppm);
    let rate_ppm = 0.3 * applied_ppm;
    let oscillators = vec![Drift::Linear { offset_ns: 0, rate_ppm, since_ns: 0 }];
    let options = Options { nodes: 1, founders: 1, ..Options::quiet() };
    let mut world = World::new(point.seed, options, false);
    world.allow_events(u64::MAX);
    if !case.is_minority() {
        world.collect_violations();
    }
    let how = Timekeeping { daemon, delay_ns: ms_ns(point.delay_ms), oscillators };
    world.keep_time(vec![Master::honest(); case.masters()], &how);
    let lie = |world: &mut World| {
        let now_ns = world.absolute_ns();
        let lies = case.lies(ms_ns(point.lie_ms) as i64, applied_ppm, now_ns);
        let masters = world.masters().iter_mut().zip(lies).take(case.liars());
        masters.for_each(|(master, lie)| *master = lie);
    };
    if case.begins_at_the_start() {
        lie(&mut world);
    }
    world.run_for((WARM_UP_POLLS * point.poll_s * 1e6) as u64)?;
    if !case.begins_at_the_start() {
        lie(&mut world);
    }
    watch(&mut world, point)
}

fn watch(world: &mut World, point: Point) -> Result<Outcome, Violation> {
    let zero_ns = world.absolute_ns();
    let mut outcome = Outcome::default();
    let steps = (WATCHED_POLLS * point.poll_s * 1_000.0) as u64 / LOOK_MS;
    let judged = (1.5 * point.poll_s * 1_000.0) as u64 / LOOK_MS;
    for step in 0..steps {
        world.run_for(LOOK_MS * 1_000)?;
        let now_ns = world.absolute_ns();
        let at_s = as_ms(now_ns - zero_ns) / 1_000.0;
        let status = match world.reading(NODE) {
            Ok(reading) => {
                let (from, to) = (reading.interval.earliest(), reading.interval.latest());
                let now = Timestamp::from_micros(now_ns / 1_000);
                if now < from || to < now {
                    outcome.wrong_s += LOOK_MS as f64 / 1e3;
                    outcome.wrong_since_s.get_or_insert(at_s);
                }
                let epsilon_ms = (to.micros() - from.micros()) as f64 / 2_000.0;
                let middle_ms = (from.micros() + to.micros()) as f64 / 2_000.0;
                let error_ms = (middle_ms - now_ns as f64 / 1e6).abs();
                outcome.looks.push((at_s, epsilon_ms, error_ms));
                reading.status
            }
            Err(error) => {
                outcome.looks.push((at_s, f64::NAN, f64::NAN));
                error.status
            }
        };
        if outcome.statuses.last().is_none_or(|(_, last)| *last != status) {
            outcome.statuses.push((at_s, status));
        }
        if step == judged {
            let sources = world.sources(NODE);
            outcome.accepted = with(&sources, Verdict::Accepted);
            outcome.rejected = with(&sources, Verdict::Rejected);
        }
    }
    Ok(outcome)
}

fn with(sources: &Sources, verdict: Verdict) -> usize {
    sources.masters.iter().filter(|master| master.verdict == verdict).count()
}

impl Experiment for Masters {
    fn name(&self) -> &'static str {
        "masters"
    }

    fn question(&self) -> &'static str {
        "How many time masters may lie before a clock is wrong, and what does it do about them?"
    }

    fn parameters(&self) -> &'static [Parameter] {
        PARAMETERS
    }

    fn run(&self, setup: &Setup, progress: &dyn Progress) -> Result<Report, LabError> {
        let point = |case| Point {
            case,
            poll_s: setup.get("poll"),
            applied_ppm: setup.get("applied_drift").round() as u32,
            delay_ms: setup.get("delay"),
            lie_ms: setup.get("lie"),
            seed: seed_of(setup.seed(), 0),
        };
        let points = Case::ALL.map(point);
        progress.begin(points.len() as u64);
        let outcomes =
            sweep(&points, progress, |point| guarded(|| measure(*point)).map_err(failed))?;
        let measured: Vec<(Case, Outcome)> = Case::ALL.into_iter().zip(outcomes).collect();
        Ok(self.report(setup, &measured))
    }
}

impl Masters {
    fn report(&self, setup: &Setup, measured: &[(Case, Outcome)]) -> Report {
        let mut report = Report::new(self, "Masters that lie", setup);
        let high_ms = setup.get("delay") + setup.get("poll") * setup.get("applied_drift") / 1_000.0;
        let of = |wanted: Case| measured.iter().find(|(case, _)| *case == wanted).map(|(_, o)| o);
        let since = || Axis::new("since the lies began", "s");
        let draw = |title: &str, axis: Axis, cases: &[Case], value: fn(&(f64, f64, f64)) -> f64| {
            let chart = Chart::new(title, since(), axis);
            let found = cases.iter().filter_map(|case| Some((case, of(*case)?)));
            found.fold(chart, |chart, (case, outcome)| {
                let points = outcome.looks.iter().map(|look| (look.0, value(look))).collect();
                chart.series(case.name(), Style::Line, points)
            })
        };
        let some = [Case::OneOfThree, Case::TwoOfThree, Case::TwoOfThreeAlike];
        report.draw(
            draw("ε", Axis::new("ε", "ms"), &some, |look| look.1)
                .caption("A gap is a clock without a bound: its node serves nobody."),
        );
        let some = [Case::OneOfThree, Case::TwoOfThreeAlike, Case::AlikeSlowly];
        report.draw(
            draw("Actual error", Axis::new("error", "ms"), &some, |look| look.2)
                .caption("How far the middle of the interval is from absolute time."),
        );
        let columns = [
            "masters",
            "accepted",
            "rejected",
            "largest ε (ms)",
            "largest error (ms)",
            "wrong for (s)",
            "status",
        ];
        let mut table = Table::new("Who lies, and what the clock does", &columns);
        for (case, outcome) in measured {
            let statuses = outcome.statuses.iter().take(4);
            let statuses: Vec<String> =
                statuses.map(|(at_s, status)| format!("{status} from {at_s:.0} s")).collect();
            table.row(vec![
                case.name().into(),
                outcome.accepted.to_string(),
                outcome.rejected.to_string(),
                format!("{:.2}", outcome.epsilon_max_ms()),
                format!("{:.2}", outcome.error_max_ms()),
                format!("{:.1}", outcome.wrong_s),
                statuses.join(", "),
            ]);
        }
        report.tabulate(table);
        let wrong = |outcome: &Outcome| match outcome.wrong_s {
            0.0 => "never wrong".to_string(),
            seconds => format!("wrong for {seconds:.1} s"),
        };
        for (case, outcome) in measured.iter().filter(|(case, _)| case.is_minority()) {
            let (rejected, liars, epsilon_ms) =
                (outcome.rejected, case.liars(), outcome.epsilon_max_ms());
            report.find(
                case.name(),
                format!("{rejected} rejected, ε ≤ {epsilon_ms:.2} ms, {}", wrong(outcome)),
                format!("{liars} rejected, ε ≤ {high_ms:.1} ms as without lies, never wrong"),
                rejected == liars
                    && outcome.accepted == case.masters() - liars
                    && epsilon_ms <= 1.06 * high_ms
                    && outcome.wrong_s == 0.0,
            );
        }
        let none = Outcome::default();
        let apart = of(Case::TwoOfThree).unwrap_or(&none);
        let grown_ms = apart.epsilon_max_ms();
        report.find(
            Case::TwoOfThree.name(),
            format!("{} accepted, ε ≤ {grown_ms:.1} ms, {}", apart.accepted, wrong(apart)),
            format!("0 accepted, ε far above {high_ms:.1} ms for it grows on, never wrong"),
            apart.accepted == 0 && grown_ms > 4.0 * high_ms && apart.wrong_s == 0.0,
        );
        let alike = of(Case::TwoOfThreeAlike).unwrap_or(&none);
        let broken_s = alike.since_s(Status::Broken).unwrap_or(f64::INFINITY);
        let stood_s = alike.wrong_since_s.unwrap_or(WATCHED_POLLS * setup.get("poll")) - broken_s;
        report.find(
            Case::TwoOfThreeAlike.name(),
            format!("broken after {broken_s:.1} s, for {stood_s:.0} s"),
            format!("broken after at most {:.0} s, for at least 3 polls", setup.get("poll") + 1.0),
            broken_s <= setup.get("poll") + 1.0 && stood_s >= 3.0 * setup.get("poll"),
        );
        let fooled: f64 = [Case::AlikeFromTheStart, Case::AlikeSlowly]
            .into_iter()
            .filter_map(of)
            .map(|o| o.wrong_s)
            .fold(f64::INFINITY, f64::min);
        report.find(
            "2 of 3 lie alike, from the start or slowly",
            format!("wrong for {fooled:.0} s at least"),
            "wrong: nobody can see through a majority that agrees",
            fooled > 0.0 && fooled.is_finite(),
        );
        report.summarize(format!(
            "A minority of liars is rejected and costs nothing. A majority that does not agree is not \
             believed, and ε grows on, to {grown_ms:.0} ms here. One that agrees, all at once, stops \
             the node after {broken_s:.0} s; only one that agrees from the start, or moves away \
             slowly, makes it wrong."
        ));
        report.note(
            "A round of answers is believed when more than half of all masters, silent ones counted, \
             agree (Marzullo's algorithm). A majority that contradicts the bound from before means \
             that the clock has broken its rate, or that the majority lies; either way the node has \
             no bound (T5). After a few polls without a new contradiction it is believed again, for \
             what is most likely is that it was the clock; by then somebody should have looked.",
        );
        report
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lab::Silent;

    #[test]
    fn minorities_of_liars_are_rejected_and_majorities_are_not_believed_at_once() {
        let setup = Setup::new(PARAMETERS, 1, &[]).unwrap();
        let report = Masters.run(&setup, &Silent).unwrap();
        assert!(report.holds(), "{:#?}", report.findings);
    }
}
