//! The time daemon: one for each server, keeps the server's clock within its bound (T4, T5).
//!
//! Every poll interval it asks *all* its masters what time it is. A round of answers becomes
//! intervals ([`Answer`]), the intervals an agreement of the majority ([`crate::marzullo`]), and
//! two agreements a measure of how fast the local clock runs ([`Rate`]). What comes out is a
//! [`Bound`], which somebody else publishes: the daemon touches no clock and no socket. It is given
//! the local clock's time and the answers that have come, and says whom to ask and when to wake it.
//!
//! ```text
//!             ask all                 answers, or half a second
//!   ┌─────┐ ──────────► ┌─────────┐ ─────────────────────────────► majority?
//!   │ idle │            │  round   │                                 │ no: the bound grows on,
//!   └─────┘ ◄────────── └─────────┘                                 │     ask again soon
//!      ▲    poll interval, or 1, 2, 4 … s at first                   │ yes
//!      │                                                             ▼
//!      │            the clock broke its rate, or agreement and bound exclude each other?
//!      │                  │ yes: broken, no bound          │ no: a new bound
//!      └──────────────────┴────────────────────────────────┘
//! ```
//!
//! **What an answer means.** The master looked at its clock after it was asked and before the
//! answer came. So absolute time, as the answer comes, is not before what the master's `earliest`
//! was, and not after its `latest` plus the whole round trip: half the round trip on either side of
//! the middle.
//!
//! **How ε grows.** By the applied drift rate, 200 µs/s (T3), which is how far an oscillator in
//! order is off at worst. Whether this one is in order is not assumed but measured: the first bound
//! comes with the second agreement, and until the rate is known to be within the applied one, the
//! bound grows by the most that it may be. So a clock that runs wrongly from the start never gives
//! out a wrong interval. One that begins to run wrongly later is believed until polls prove it: with
//! the next poll if it exceeds the applied rate by much, with a later one if by little. Its poll
//! interval, or a few, is what a node risks.
//!
//! **Broken.** A clock that certainly ran faster or slower than the applied rate, or whose bound
//! excludes what a majority of masters agree on, has no bound any more (T5): not a larger one. It is
//! believed again, with the masters' time, when it has kept its promise for four poll intervals, for
//! three rounds, and for as long as it took to prove that it had not. If it is the majority of
//! masters who lie alike, a node cannot know that; it stands still first, so that people may.
//!
//! **A bound never shrinks by averaging.** The new bound is what the majority agreed on, or the old
//! one grown, whichever will be narrower until the next poll; both hold.

mod rate;
mod round;

pub use rate::Rate;
pub use round::{Answer, Ask};

use crate::bound::{Bound, Known, Synchronization};
use crate::clock::{MasterSeen, Sources, Status, Verdict};
use crate::marzullo::agree;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use rate::Meter;
use round::Round;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::time::Duration;

/// Pause before the second round, in nanoseconds; it doubles up to the poll interval.
const PAUSE_FIRST_NS: u64 = 1_000_000_000;
/// A clock whose rate nobody has measured is assumed to be off by at most this, in microseconds per
/// second, for the milliseconds of its first round: no oscillator is.
const UNMEASURED_PPM: u32 = 10_000;
/// Rounds in a row that a broken clock has to do well in to be believed.
const GOOD_ROUNDS: u32 = 3;
/// Poll intervals for which it has to.
const GOOD_POLLS: u64 = 4;
/// The rate is measured over this time at least, in nanoseconds, and over [`GOOD_POLLS`].
const MEASURED_NS: u64 = 120_000_000_000;
/// The longest time of the configuration, in nanoseconds: a day.
const TIME_MAX_NS: u64 = 86_400_000_000_000;

/// What a master stands on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum MasterKind {
    /// A satellite receiver.
    Gps,
    /// An atomic clock: for the day on which satellites fail all at once (the paper's "Armageddon"
    /// masters).
    Atomic,
}

impl fmt::Display for MasterKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            MasterKind::Gps => "gps",
            MasterKind::Atomic => "atomic",
        })
    }
}

/// What a daemon is told when it is made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DaemonConfig {
    /// The names of the masters; all are polled always.
    pub masters: Vec<String>,
    /// From one round to the next, in nanoseconds; each is drawn up to a twentieth shorter, so that
    /// the servers of a data centre do not ask all at once.
    pub poll_ns: u64,
    /// The applied drift rate, in microseconds per second (T3).
    pub drift_ppm: u32,
    /// How long a round waits for answers, in nanoseconds; who is silent is asked once more in the
    /// middle of it.
    pub answer_within_ns: u64,
    /// A wider bound than this is none, in nanoseconds.
    pub epsilon_max_ns: u64,
    /// Whether it watches its own rate (T5). Without, it believes that its clock is in order,
    /// whatever the masters say: for experiments.
    pub evict: bool,
    /// Jitter and the ids of requests come from it.
    pub seed: u64,
}

impl DaemonConfig {
    /// The usual settings: 30 s, 200 µs/s, and no bound beyond half a second.
    pub fn new(masters: Vec<String>, seed: u64) -> DaemonConfig {
        DaemonConfig {
            masters,
            poll_ns: 30_000_000_000,
            drift_ppm: 200,
            answer_within_ns: 500_000_000,
            epsilon_max_ns: 500_000_000,
            evict: true,
            seed,
        }
    }
}

/// What a step asks of the world.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Output {
    /// Send these, now. The time of the step counts as the time they were sent.
    pub ask: Vec<Ask>,
    /// The clock goes by this from now on; `None`: as before.
    pub bound: Option<Bound>,
    /// Step again when the local clock shows this, or as soon as an answer comes.
    pub wake_at_ns: u64,
}

/// See the [module](self).
#[derive(Clone, Debug)]
pub struct Daemon {
    config: DaemonConfig,
    rng: SmallRng,
    round: Option<Round>,
    /// When the next round begins, by the local clock, and the pause after it.
    next_ns: u64,
    pause_ns: u64,
    /// The last round came to nothing.
    in_vain: bool,
    meter: Meter,
    bound: Bound,
    /// Rounds that a broken clock has done well in, and from when on, by the local clock, that is
    /// enough.
    good_rounds: u32,
    good_at_ns: u64,
    seen: Vec<MasterSeen>,
    /// When each master's last answer came, by the local clock.
    answered_ns: Vec<Option<u64>>,
}

impl Daemon {
    /// A daemon that has asked nobody yet. Times beyond a day count as a day.
    pub fn new(mut config: DaemonConfig) -> Daemon {
        config.poll_ns = config.poll_ns.clamp(1, TIME_MAX_NS);
        config.answer_within_ns = config.answer_within_ns.clamp(1, TIME_MAX_NS);
        let seen = |name: &String| MasterSeen {
            name: name.clone(),
            kind: None,
            offset_ns: None,
            delay_ns: None,
            uncertainty_ns: None,
            answered_ago: None,
            verdict: Verdict::Unknown,
        };
        Daemon {
            rng: SmallRng::seed_from_u64(config.seed),
            round: None,
            next_ns: 0,
            pause_ns: PAUSE_FIRST_NS.min(config.poll_ns),
            in_vain: false,
            meter: Meter::new(MEASURED_NS.max(GOOD_POLLS * config.poll_ns)),
            bound: Bound::none("no majority of the time masters has answered yet"),
            good_rounds: 0,
            good_at_ns: 0,
            seen: config.masters.iter().map(seen).collect(),
            answered_ns: vec![None; config.masters.len()],
            config,
        }
    }

    /// Takes what has come until the local clock showed `local_ns`.
    pub fn step(&mut self, local_ns: u64, answers: Vec<Answer>) -> Output {
        let mut out = Output::default();
        if let Some(round) = &mut self.round {
            answers.into_iter().for_each(|answer| round.take(answer));
            if round.is_over(local_ns) {
                self.judge(local_ns, &mut out);
            } else if let Some(round) = &mut self.round {
                out.ask = round.ask_again(local_ns, &mut self.rng);
            }
        }
        if self.round.is_none() && local_ns >= self.next_ns {
            let mut round = Round::new(self.seen.len(), local_ns, self.config.answer_within_ns);
            out.ask = round.ask_all(local_ns, &mut self.rng);
            self.round = Some(round);
        }
        out.wake_at_ns = self.round.as_ref().map_or(self.next_ns, |round| round.wake_at_ns());
        out
    }

    /// What is known about the masters and the clock, when the local clock shows `local_ns`.
    pub fn sources(&self, local_ns: u64) -> Sources {
        let ago = |then_ns: u64| Duration::from_nanos(local_ns.saturating_sub(then_ns));
        let masters = self.seen.iter().zip(&self.answered_ns);
        Sources {
            drift_applied_ppm: Some(f64::from(self.bound.drift_ppm.max(self.config.drift_ppm))),
            drift_measured_ppm: self.meter.rate().map(|rate| (rate.low_ppm, rate.high_ppm)),
            synchronized_ago: self.since().map(|since| ago(since.local_ns)),
            masters: masters
                .map(|(seen, then_ns)| MasterSeen {
                    answered_ago: then_ns.map(ago),
                    ..seen.clone()
                })
                .collect(),
        }
    }

    fn since(&self) -> Option<&Synchronization> {
        match &self.bound.known {
            Known::Since(since) => Some(since),
            Known::Nothing { .. } => None,
        }
    }

    /// The round is over: what does it say?
    fn judge(&mut self, local_ns: u64, out: &mut Output) {
        let Some(round) = self.round.take() else { return };
        // Of the instant at which the last answer came, not of when the silent were given up: that
        // would widen every interval by the drift of a clock that nobody may have measured.
        let at_ns = round.answered_ns().unwrap_or(local_ns);
        let applied_ppm = self.config.drift_ppm;
        let drift_ppm = match (self.config.evict, self.meter.rate()) {
            (false, _) => applied_ppm,
            (true, None) => applied_ppm.max(UNMEASURED_PPM),
            // Twice what it may be, for this round may measure a little more; the milliseconds of
            // a round trip grow by less than a microsecond for that.
            (true, Some(rate)) => applied_ppm.max(rate.worst_ppm()).saturating_mul(2),
        };
        let times = round.times(at_ns, drift_ppm);
        let agreement = agree(&times);
        self.note(&round, &times, agreement.as_ref().map(|agreement| &agreement.accepted[..]));
        let Some(agreement) = agreement else {
            // T4: the bound grows on. Soon again; less and less so, while it is in vain.
            if !std::mem::replace(&mut self.in_vain, true) {
                self.pause_ns = PAUSE_FIRST_NS.min(self.config.poll_ns);
            }
            return self.rest(local_ns);
        };
        self.in_vain = false;
        let was_broken = matches!(self.bound.known, Known::Nothing { status: Status::Broken, .. });
        let bound = match self.broke_its_promise(agreement.time) {
            Some((reason, proof_ns)) => {
                self.good_rounds = 0;
                let on_trial_ns = proof_ns.max(GOOD_POLLS * self.config.poll_ns);
                self.good_at_ns = at_ns.saturating_add(on_trial_ns);
                self.meter.begin_anew();
                Some(Bound::without(Status::Broken, reason))
            }
            None if was_broken => {
                self.good_rounds += 1;
                let good = self.good_rounds >= GOOD_ROUNDS && at_ns >= self.good_at_ns;
                if good { self.renewed(agreement.time, drift_ppm) } else { None }
            }
            None => {
                if self.meter.rate().is_none() {
                    // After an outage as at the start: a second agreement soon.
                    self.pause_ns = PAUSE_FIRST_NS.min(self.config.poll_ns);
                }
                self.renewed(agreement.time, drift_ppm)
            }
        };
        if let Some(bound) = bound {
            self.bound = bound.clone();
            out.bound = Some(bound);
        }
        self.rest(local_ns);
    }

    /// T5: why the clock cannot be believed, after what the masters have agreed on, and how long it
    /// took to prove it, in nanoseconds.
    fn broke_its_promise(&mut self, agreed: Synchronization) -> Option<(String, u64)> {
        let allowed = self.since().map(|since| since.at(agreed.local_ns, self.bound.drift_ppm));
        let fast = self.meter.add(agreed, self.config.drift_ppm);
        if !self.config.evict {
            return None;
        }
        if let Some((Rate { low_ppm, high_ppm }, proof_ns)) = fast {
            let applied = self.config.drift_ppm;
            let reason = format!(
                "it runs {low_ppm:+.0} to {high_ppm:+.0} µs/s off its masters, applied are \
                 ±{applied} µs/s"
            );
            return Some((reason, proof_ns));
        }
        let allowed = allowed?;
        if allowed.intersect(&agreed).is_some() {
            return None;
        }
        let ahead = allowed.earliest_ns > agreed.latest_ns;
        let gap_ns = match ahead {
            true => allowed.earliest_ns - agreed.latest_ns,
            false => agreed.earliest_ns.saturating_sub(allowed.latest_ns),
        };
        let (gap_us, side) = (gap_ns / 1_000, if ahead { "ahead of" } else { "behind" });
        let reason =
            format!("its bound lies at least {gap_us} µs {side} what a majority of masters allow");
        Some((reason, 0))
    }

    /// A bound from the masters' agreement or from the bound before, whichever will be narrower at
    /// the next poll; `None`: as before. `assumed_ppm`: what the clock was taken to gain or lose at
    /// most while the answers came.
    fn renewed(&self, agreed: Synchronization, assumed_ppm: u32) -> Option<Bound> {
        let DaemonConfig { poll_ns, drift_ppm, answer_within_ns, epsilon_max_ns, evict, .. } =
            self.config;
        let bound = |since, drift_ppm| Bound {
            known: Known::Since(since),
            drift_ppm,
            holdover_after_ns: poll_ns + 2 * answer_within_ns,
            epsilon_max_ns,
        };
        if !evict {
            return Some(bound(agreed, drift_ppm));
        }
        let grown = self.since().map(|since| since.at(agreed.local_ns, self.bound.drift_ppm));
        // Measured, and not to run faster than the answers were stretched for.
        let rate = self.meter.rate().map(|rate| drift_ppm.max(rate.worst_ppm()));
        let Some(worst_ppm) = rate.filter(|worst_ppm| *worst_ppm <= assumed_ppm.max(drift_ppm))
        else {
            let first = grown.is_none().then(|| Bound::none("its rate is being measured"));
            return first.filter(|first| *first != self.bound);
        };
        let next_ns = agreed.local_ns.saturating_add(poll_ns);
        let later_ns = |since: &Synchronization, ppm| since.at(next_ns, ppm).epsilon_ns();
        match grown {
            Some(old) if later_ns(&old, self.bound.drift_ppm) < later_ns(&agreed, worst_ppm) => {
                Some(bound(old, self.bound.drift_ppm))
            }
            _ => Some(bound(agreed, worst_ppm)),
        }
    }

    /// Until the next round: a poll interval, less while there is something to be found out.
    fn rest(&mut self, local_ns: u64) {
        let DaemonConfig { poll_ns, .. } = self.config;
        let pause_ns = self.pause_ns.min(poll_ns);
        let jitter_ns = self.rng.random_range(0..=pause_ns / 20);
        self.next_ns = local_ns.saturating_add(pause_ns - jitter_ns);
        self.pause_ns = (pause_ns * 2).min(poll_ns);
    }

    /// Keeps what the round saw of each master.
    fn note(&mut self, round: &Round, times: &[Option<Synchronization>], ok: Option<&[bool]>) {
        let since = self.since().copied();
        let middle = |of: &Synchronization| of.earliest_ns / 2 + of.latest_ns / 2;
        for (place, seen) in self.seen.iter_mut().enumerate() {
            let Some(heard) = round.heard(place) else {
                seen.verdict = Verdict::Silent;
                continue;
            };
            self.answered_ns[place] = Some(heard.received_ns);
            seen.kind = Some(heard.kind.to_string());
            seen.delay_ns = Some(heard.delay_ns);
            let Some((time, (earliest_ns, latest_ns))) = times[place].zip(heard.content) else {
                seen.verdict = Verdict::Unsynchronized;
                continue;
            };
            seen.uncertainty_ns = Some((latest_ns - earliest_ns).div_ceil(2));
            let mine = since.map(|since| since.at(time.local_ns, self.bound.drift_ppm));
            seen.offset_ns = mine.map(|mine| middle(&time).wrapping_sub(middle(&mine)) as i64);
            seen.verdict = match ok.map(|accepted| accepted[place]) {
                None => Verdict::NoMajority,
                Some(true) => Verdict::Accepted,
                Some(false) => Verdict::Rejected,
            };
        }
    }
}

#[cfg(test)]
mod tests;
