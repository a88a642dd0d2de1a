//! One round of polls: who was asked, who has answered what.

use super::MasterKind;
use crate::bound::{Synchronization, drift_ns};
use rand::Rng;

/// A question for a master.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ask {
    /// Its place among the masters of the configuration.
    pub master: usize,
    /// The answer has to repeat it.
    pub id: u64,
}

/// What a master answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Its place among the masters of the configuration. Whoever received the answer has made sure
    /// that it is from that one.
    pub master: usize,
    /// From [`Ask::id`].
    pub id: u64,
    /// What the local clock showed when it came, in nanoseconds.
    pub received_ns: u64,
    /// What the master stands on.
    pub kind: MasterKind,
    /// Between what it says absolute time lay when it looked, in nanoseconds since the epoch;
    /// `None`: it has no time to give.
    pub content: Option<(u64, u64)>,
}

/// The best answer of a master: the one that took the least time.
#[derive(Clone, Copy, Debug)]
pub(super) struct Heard {
    pub received_ns: u64,
    pub delay_ns: u64,
    pub kind: MasterKind,
    /// See [`Answer::content`]; never inverted.
    pub content: Option<(u64, u64)>,
}

/// See the [module](self).
#[derive(Clone, Debug)]
pub(super) struct Round {
    /// Questions that were asked, and when.
    asked: Vec<(Ask, u64)>,
    heard: Vec<Option<Heard>>,
    again_at_ns: Option<u64>,
    ends_at_ns: u64,
}

impl Round {
    pub fn new(masters: usize, local_ns: u64, answer_within_ns: u64) -> Round {
        Round {
            asked: Vec::new(),
            heard: vec![None; masters],
            again_at_ns: Some(local_ns.saturating_add(answer_within_ns / 2)),
            ends_at_ns: local_ns.saturating_add(answer_within_ns),
        }
    }

    pub fn ask_all(&mut self, local_ns: u64, rng: &mut impl Rng) -> Vec<Ask> {
        self.ask(local_ns, rng, |_| true)
    }

    /// A datagram may be lost: in the middle of the round, the silent are asked once more.
    pub fn ask_again(&mut self, local_ns: u64, rng: &mut impl Rng) -> Vec<Ask> {
        if self.again_at_ns.is_none_or(|at_ns| local_ns < at_ns) {
            return Vec::new();
        }
        self.again_at_ns = None;
        self.ask(local_ns, rng, |heard| heard.is_none())
    }

    fn ask(
        &mut self,
        local_ns: u64,
        rng: &mut impl Rng,
        whom: impl Fn(&Option<Heard>) -> bool,
    ) -> Vec<Ask> {
        let masters = self.heard.iter().enumerate().filter(|(_, heard)| whom(heard));
        let asks: Vec<Ask> = masters.map(|(master, _)| Ask { master, id: rng.random() }).collect();
        self.asked.extend(asks.iter().map(|ask| (*ask, local_ns)));
        asks
    }

    /// Takes an answer, if it is one to this round and better than what there is.
    pub fn take(&mut self, answer: Answer) {
        let Answer { master, id, received_ns, kind, content } = answer;
        let question = self.asked.iter().find(|(ask, _)| (ask.master, ask.id) == (master, id));
        let Some((_, asked_ns)) = question.copied() else { return };
        let delay_ns = received_ns.saturating_sub(asked_ns);
        let content = content.filter(|(earliest, latest)| earliest <= latest);
        let better = |heard: Heard| match (heard.content, content) {
            (None, Some(_)) => true,
            (Some(_), None) => false,
            _ => delay_ns < heard.delay_ns,
        };
        if self.heard[master].is_some_and(|heard| !better(heard)) {
            return;
        }
        self.heard[master] = Some(Heard { received_ns, delay_ns, kind, content });
    }

    pub fn heard(&self, master: usize) -> Option<&Heard> {
        self.heard[master].as_ref()
    }

    pub fn is_over(&self, local_ns: u64) -> bool {
        local_ns >= self.ends_at_ns || self.heard.iter().all(Option::is_some)
    }

    pub fn wake_at_ns(&self) -> u64 {
        self.again_at_ns.unwrap_or(self.ends_at_ns)
    }

    /// When the last answer came that counts.
    pub fn answered_ns(&self) -> Option<u64> {
        self.heard.iter().flatten().map(|heard| heard.received_ns).max()
    }

    /// What each answer means for absolute time at `at_ns` by the local clock, which gains or loses
    /// at most `drift_ppm`.
    pub fn times(&self, at_ns: u64, drift_ppm: u32) -> Vec<Option<Synchronization>> {
        let time = |heard: &Heard| {
            let (earliest_ns, latest_ns) = heard.content?;
            // One more: both ends of the trip were rounded down to nanoseconds.
            let trip_ns = heard.delay_ns.saturating_add(drift_ns(heard.delay_ns, drift_ppm) + 1);
            let latest_ns = latest_ns.saturating_add(trip_ns);
            let then = Synchronization::new(heard.received_ns, earliest_ns, latest_ns);
            Some(then.at(at_ns, drift_ppm))
        };
        self.heard.iter().map(|heard| heard.as_ref().and_then(time)).collect()
    }
}
