//! ε from poll to poll, and while no master answers.

use super::support::sweep::{failed, seed_of};
use super::support::{as_ms, mean, ms_ns};
use crate::history::Violation;
use crate::lab::report::{Axis, Chart, Report, Style, Table, number};
use crate::lab::{Experiment, LabError, Parameter, Progress, Setup};
use crate::options::Options;
use crate::run::guarded;
use crate::timekeeping::{Master, Timekeeping};
use crate::world::World;
use proto::NodeId;
use truetime::daemon::DaemonConfig;
use truetime::providers::Drift;
use truetime::{Status, Timestamp};

/// How often the clock is looked at, in milliseconds.
const LOOK_MS: u64 = 50;

/// Polls until the rate is known well: a daemon begins with short pauses.
const WARM_UP_POLLS: f64 = 8.0;

/// Polls that are watched in peace.
const PEACE_POLLS: f64 = 6.0;

/// Polls that are watched when the masters are back.
const AFTER_POLLS: f64 = 2.0;

const NODE: NodeId = NodeId(1);

const PARAMETERS: &[Parameter] = &[
    Parameter::measure("poll", "s", 30.0, (5.0, 120.0), "from one round of polls to the next"),
    Parameter::measure(
        "applied_drift",
        "µs/s",
        200.0,
        (1.0, 1_000.0),
        "the drift that the bound allows for",
    ),
    Parameter::measure("delay", "ms", 1.0, (0.01, 20.0), "one way to a master"),
    Parameter::measure(
        "real_drift",
        "µs/s",
        60.0,
        (-150.0, 150.0),
        "what the oscillator really gains",
    ),
    Parameter::measure("outage", "s", 60.0, (0.0, 300.0), "how long no master answers"),
    Parameter::count("masters", "", 3, (1, 9), "time masters, all of them right"),
];

/// See the [module](self).
pub struct Sawtooth;

/// One look at the clock; times since it is watched, in seconds; the rest in milliseconds.
#[derive(Clone, Copy, Debug)]
pub struct Look {
    /// When.
    pub at_s: f64,
    /// Half the width of the interval.
    pub epsilon_ms: f64,
    /// How far its middle was from absolute time.
    pub error_ms: f64,
    /// Whether it contained absolute time (T1).
    pub contains: bool,
    /// What backed it.
    pub status: Status,
}

/// What is to be measured; units as in the parameters.
#[derive(Clone, Copy, Debug)]
pub struct Run {
    /// See the parameters.
    pub poll_s: f64,
    /// See the parameters.
    pub applied_ppm: u32,
    /// See the parameters.
    pub delay_ms: f64,
    /// See the parameters.
    pub real_ppm: f64,
    /// See the parameters.
    pub outage_s: f64,
    /// See the parameters.
    pub masters: u32,
    /// Of the world.
    pub seed: u64,
}

impl Run {
    /// When the masters fall silent.
    pub fn lost_s(&self) -> f64 {
        PEACE_POLLS * self.poll_s
    }

    /// When they answer again.
    pub fn back_s(&self) -> f64 {
        self.lost_s() + self.outage_s
    }

    /// Until when it is watched.
    pub fn end_s(&self) -> f64 {
        self.back_s() + AFTER_POLLS * self.poll_s
    }

    /// ε as the daemon has heard the masters: half of the round trip.
    pub fn low_ms(&self) -> f64 {
        self.delay_ms
    }

    /// ε before the next poll.
    pub fn high_ms(&self) -> f64 {
        self.delay_ms + self.poll_s * self.grows_ppm() / 1_000.0
    }

    /// How fast the bound grows: by the applied drift, unless the clock cannot be shown to keep to
    /// it, for a round trip is not known to better than itself (T5; four polls are measured over).
    pub fn grows_ppm(&self) -> f64 {
        let unsure_ppm = self.delay_ms * 1e3 / (2.0 * self.poll_s);
        f64::from(self.applied_ppm).max(self.real_ppm.abs() + unsure_ppm)
    }

    /// Whether the bound grows by the applied drift, and not by more for a rate that is not known
    /// well enough.
    pub fn is_plain(&self) -> bool {
        self.grows_ppm() <= f64::from(self.applied_ppm)
    }
}

/// Looks at the clock of a node with a time daemon, again and again.
///
/// # Errors
/// What a checker saw: above all an interval without absolute time in it.
pub fn measure(run: Run, tell: &dyn Fn()) -> Result<Vec<Look>, Violation> {
    let names = (1..=run.masters).map(|n| format!("m{n}")).collect();
    let poll_ns = ms_ns(run.poll_s * 1_000.0);
    let config = DaemonConfig::new(names, run.seed);
    let answer_within_ns = config.answer_within_ns.max(3 * ms_ns(run.delay_ms));
    let daemon = DaemonConfig { poll_ns, drift_ppm: run.applied_ppm, answer_within_ns, ..config };
    let oscillator = Drift::Linear { offset_ns: 0, rate_ppm: run.real_ppm, since_ns: 0 };
    let options = Options { nodes: 1, founders: 1, ..Options::quiet() };
    let mut world = World::new(run.seed, options, false);
    world.allow_events(u64::MAX);
    let how = Timekeeping { daemon, delay_ns: ms_ns(run.delay_ms), oscillators: vec![oscillator] };
    world.keep_time(vec![Master::honest(); run.masters as usize], &how);
    world.run_for((WARM_UP_POLLS * run.poll_s * 1e6) as u64)?;
    let zero_ns = world.absolute_ns();
    let mut looks = Vec::new();
    for step in 0..(run.end_s() * 1_000.0) as u64 / LOOK_MS {
        let at_s = (step * LOOK_MS) as f64 / 1_000.0;
        let silent = (run.lost_s()..run.back_s()).contains(&at_s);
        world.masters().iter_mut().for_each(|master| master.silent = silent);
        if let Ok(reading) = world.reading(NODE) {
            let (from, to) = (reading.interval.earliest(), reading.interval.latest());
            let now_ns = world.absolute_ns();
            let middle_us = (from.micros() + to.micros()) as f64 / 2.0;
            let now = Timestamp::from_micros(now_ns / 1_000);
            looks.push(Look {
                at_s: as_ms(now_ns - zero_ns) / 1_000.0,
                epsilon_ms: (to.micros() - from.micros()) as f64 / 2_000.0,
                error_ms: (middle_us / 1e3 - now_ns as f64 / 1e6).abs(),
                contains: from <= now && now <= to,
                status: reading.status,
            });
        }
        world.run_for(LOOK_MS * 1_000)?;
        if step % 100 == 0 {
            tell();
        }
    }
    Ok(looks)
}

/// When ε falls: a poll has been answered. It falls within some time, for the latest time of a node
/// does not go back.
fn polls(looks: &[Look], poll_s: f64) -> Vec<f64> {
    let fell = |pair: &&[Look]| pair[1].epsilon_ms < pair[0].epsilon_ms - 0.05;
    let mut found: Vec<f64> = Vec::new();
    for pair in looks.windows(2).filter(fell) {
        if found.last().is_none_or(|last| pair[1].at_s - last > poll_s / 2.0) {
            found.push(pair[1].at_s);
        }
    }
    found
}

impl Experiment for Sawtooth {
    fn name(&self) -> &'static str {
        "sawtooth"
    }

    fn question(&self) -> &'static str {
        "How uncertain is a clock between two polls of its masters, and when they do not answer?"
    }

    fn parameters(&self) -> &'static [Parameter] {
        PARAMETERS
    }

    fn run(&self, setup: &Setup, progress: &dyn Progress) -> Result<Report, LabError> {
        let run = Run {
            poll_s: setup.get("poll"),
            applied_ppm: setup.get("applied_drift").round() as u32,
            delay_ms: setup.get("delay"),
            real_ppm: setup.get("real_drift"),
            outage_s: setup.get("outage"),
            masters: setup.count("masters") as u32,
            seed: seed_of(setup.seed(), 0),
        };
        let steps = (run.end_s() * 1_000.0) as u64 / LOOK_MS;
        progress.begin(steps.div_ceil(100));
        if progress.stopped() {
            return Err(LabError::Stopped);
        }
        let looks = guarded(|| measure(run, &|| progress.step())).map_err(failed)?;
        if progress.stopped() {
            return Err(LabError::Stopped);
        }
        if looks.is_empty() {
            let what = "the clock never had a bound: its oscillator drifts beyond the applied rate";
            return Err(LabError::failed(what));
        }
        Ok(self.report(setup, run, &looks))
    }
}

impl Sawtooth {
    fn report(&self, setup: &Setup, run: Run, looks: &[Look]) -> Report {
        let mut report = Report::new(self, "The sawtooth of ε", setup);
        let between = |from_s: f64, to_s: f64| {
            looks.iter().filter(move |look| (from_s..to_s).contains(&look.at_s))
        };
        let epsilons =
            |looks: &[&Look]| looks.iter().map(|look| look.epsilon_ms).collect::<Vec<_>>();
        let calm: Vec<&Look> = between(0.0, run.lost_s()).collect();
        let calm_ms = epsilons(&calm);
        let low = calm_ms.iter().copied().fold(f64::INFINITY, f64::min);
        let high = calm_ms.iter().copied().fold(0.0, f64::max);
        let average = mean(&calm_ms);
        let calm_looks: Vec<Look> = calm.iter().map(|look| **look).collect();
        let falls = polls(&calm_looks, run.poll_s);
        let periods: Vec<f64> = falls.windows(2).map(|pair| pair[1] - pair[0]).collect();
        let period = mean(&periods);
        let outage: Vec<&Look> = between(run.lost_s(), run.back_s() + 2.0).collect();
        let top = epsilons(&outage).into_iter().fold(0.0, f64::max);
        let after: Vec<&Look> = between(run.back_s() + run.poll_s, run.end_s()).collect();
        let after_top = epsilons(&after).into_iter().fold(0.0, f64::max);
        let chart = Chart::new(
            "ε over time",
            Axis::new("time", "s"),
            Axis::new("ε, and the actual error", "ms"),
        )
        .caption("Up by the applied drift, down with each poll. The real error stays below.")
        .series("ε", Style::Line, looks.iter().map(|look| (look.at_s, look.epsilon_ms)).collect())
        .series(
            "actual error",
            Style::Line,
            looks.iter().map(|look| (look.at_s, look.error_ms)).collect(),
        )
        .mark(run.lost_s(), "masters lost")
        .mark(run.back_s(), "masters back");
        report.draw(chart);
        let mut table = Table::new("ε (ms)", &["phase", "least", "mean", "most", "status"]);
        for (phase, of) in
            [("masters answer", &calm), ("masters lost", &outage), ("masters are back", &after)]
        {
            let ms = epsilons(of);
            let mut seen: Vec<String> = Vec::new();
            for look in of {
                let status = look.status.to_string();
                if !seen.contains(&status) {
                    seen.push(status);
                }
            }
            table.row(vec![
                phase.into(),
                format!("{:.2}", ms.iter().copied().fold(f64::INFINITY, f64::min)),
                format!("{:.2}", mean(&ms)),
                format!("{:.2}", ms.iter().copied().fold(0.0, f64::max)),
                seen.join(", "),
            ]);
        }
        report.tabulate(table);
        let (low_ms, high_ms) = (run.low_ms(), run.high_ms());
        let middle_ms = (low_ms + high_ms) / 2.0;
        report.summarize(format!(
            "ε is a sawtooth from {low:.1} to {high:.1} ms, {average:.1} ms on the average; without \
             masters it grows on, to {top:.1} ms after {:.0} s, and is right all the time.",
            run.outage_s
        ));
        // Where the rate is not known well, what can be said of ε is how wide it is at most.
        let plain = run.is_plain();
        let near = |is: f64, should: f64, part: f64| {
            let slack = part * should + 0.05;
            if plain { (is - should).abs() <= slack } else { is <= should + slack }
        };
        report.find(
            "ε after a poll",
            format!("{low:.2} ms"),
            format!("{low_ms:.1} ms, within 10 %: half of the round trip"),
            near(low, low_ms, 0.1),
        );
        report.find(
            "ε before a poll",
            format!("{high:.2} ms"),
            format!("{high_ms:.1} ms, within 6 %: polls come up to a twentieth early"),
            near(high, high_ms, 0.06),
        );
        report.find(
            "mean ε",
            format!("{average:.2} ms"),
            format!("{middle_ms:.1} ms, within 5 %"),
            near(average, middle_ms, 0.05),
        );
        report.find(
            "from one poll to the next",
            format!("{period:.1} s"),
            format!("{:.1} to {:.1} s", 0.95 * run.poll_s, run.poll_s + 0.1),
            (0.95 * run.poll_s..=run.poll_s + 0.1).contains(&period),
        );
        if run.outage_s > 0.0 {
            // Lost at any time between two polls.
            let grown_ms = run.outage_s * run.grows_ppm() / 1_000.0;
            let least = if plain { low_ms + 0.95 * grown_ms } else { low_ms };
            let most = high_ms + 1.05 * grown_ms + 1.0;
            report.find(
                "ε when the masters come back",
                format!("{top:.1} ms"),
                format!("{least:.1} to {most:.1} ms: it grows on by the applied drift"),
                (least..=most).contains(&top),
            );
            let held = outage.iter().any(|look| look.status == Status::Holdover);
            let expected = run.outage_s > run.poll_s + 2.0;
            report.find(
                "status while they are lost",
                if held { "holdover" } else { "synchronized" },
                if expected { "holdover, once a poll is overdue" } else { "any" },
                held || !expected,
            );
            report.find(
                "ε once they are back",
                format!("at most {after_top:.2} ms"),
                format!("at most {high_ms:.1} ms"),
                after_top <= 1.06 * high_ms,
            );
        }
        let wrong = looks.iter().filter(|look| !look.contains).count();
        report.find(
            "readings without absolute time in them",
            format!("{wrong} of {}", number(looks.len() as f64, 0)),
            "none (T1)",
            wrong == 0 && !looks.is_empty(),
        );
        report.note(
            "The production time daemon polls simulated masters, all at once: an answer says what \
             the time was at some instant of the round trip, so half of that is what is not known, \
             plus what the master itself does not know (here nothing). From there the bound grows by \
             the applied drift, whatever the oscillator really does, until the next poll.",
        );
        report
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lab::Silent;

    #[test]
    fn epsilon_saws_between_one_and_seven_milliseconds_and_its_mean_is_four() {
        let setup = Setup::new(PARAMETERS, 1, &[]).unwrap();
        let report = Sawtooth.run(&setup, &Silent).unwrap();
        assert!(report.holds(), "{:#?}", report.findings);
        let points = &report.charts[0].series[0].points;
        let calm: Vec<f64> = points.iter().filter(|(s, _)| *s < 180.0).map(|(_, ms)| *ms).collect();
        let (low, high) = calm.iter().fold((f64::MAX, 0.0_f64), |(l, h), e| (l.min(*e), h.max(*e)));
        assert!((0.9..1.2).contains(&low) && (6.5..7.1).contains(&high), "{low} to {high}");
        assert!((mean(&calm) - 4.0).abs() < 0.2, "{}", mean(&calm));
    }

    #[test]
    fn an_oscillator_beyond_the_applied_rate_has_no_sawtooth() {
        let overrides = [("applied_drift", "50"), ("real_drift", "150")];
        let overrides = overrides.map(|(name, value)| (name.to_string(), value.to_string()));
        let setup = Setup::new(PARAMETERS, 1, &overrides).unwrap();
        assert!(matches!(Sawtooth.run(&setup, &Silent), Err(LabError::Failed(_))));
    }
}
