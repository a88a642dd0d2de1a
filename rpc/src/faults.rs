//! Faults on purpose: what the network does to messages and calls of this process.
//!
//! A rule ([`LinkFault`]) applies where something is *sent*, so one rule is a one-way fault, and two
//! processes with a rule each are cut off from one another. The links themselves are made and kept
//! as ever, whoever of the two dials: only so can one direction work without the other. Every
//! decision comes from a seed and the order of the questions.
//!
//! | fault | message of a link | call to a node |
//! |---|---|---|
//! | drop | is not sent | never ends; with 1000 ‰ not even a connection is made |
//! | duplicate | is sent twice | – |
//! | reorder | is held back while later ones pass | – |
//! | delay, jitter | is held back, and what follows with it | begins later |

use parking_lot::Mutex;
use proto::NodeId;
use proto::control::LinkFault;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// How long a reordered message is held back.
const REORDER: Duration = Duration::from_millis(20);
/// All of them.
const PERMILLE: u32 = 1_000;

/// The rules of one process, for its links and its calls.
#[derive(Debug)]
pub struct Faults {
    seed: u64,
    /// There are rules. Without any, that is all a message pays.
    active: AtomicBool,
    rules: Mutex<BTreeMap<NodeId, Rule>>,
}

#[derive(Debug)]
struct Rule {
    fault: LinkFault,
    rng: SmallRng,
    /// When the message before is due: what follows is not due earlier.
    due: Option<Instant>,
}

/// What becomes of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// It is lost.
    Lost,
    /// It is sent so many times.
    Sent {
        /// One or two.
        copies: u32,
        /// When; `None`: now.
        due: Option<Instant>,
    },
}

impl Faults {
    /// No rules.
    pub fn new(seed: u64) -> Faults {
        Faults { seed, active: AtomicBool::new(false), rules: Mutex::default() }
    }

    /// Replaces all rules. A rule that does nothing is none.
    pub fn set(&self, faults: Vec<LinkFault>) {
        let mut rules = self.rules.lock();
        rules.clear();
        for fault in faults {
            let harmless = LinkFault { to: fault.to, ..LinkFault::default() };
            if fault != harmless {
                let seed = self.seed ^ u64::from(fault.to.0).wrapping_mul(0x9e37_79b9_7f4a_7c15);
                let rng = SmallRng::seed_from_u64(seed);
                rules.insert(fault.to, Rule { fault, rng, due: None });
            }
        }
        self.active.store(!rules.is_empty(), Ordering::Release);
    }

    /// The rules.
    pub fn rules(&self) -> Vec<LinkFault> {
        self.rules.lock().values().map(|rule| rule.fault.clone()).collect()
    }

    /// What becomes of the next message to a node.
    pub(crate) fn message(&self, to: NodeId, now: Instant) -> Fate {
        let sent = Fate::Sent { copies: 1, due: None };
        self.with(to, |rule| rule.message(now)).unwrap_or(sent)
    }

    /// What becomes of the next call to a node: when it begins; `None`: it is lost.
    pub(crate) fn call(&self, to: NodeId) -> Option<Duration> {
        self.with(to, Rule::call).unwrap_or(Some(Duration::ZERO))
    }

    fn with<T>(&self, to: NodeId, decide: impl FnOnce(&mut Rule) -> T) -> Option<T> {
        if !self.active.load(Ordering::Acquire) {
            return None;
        }
        self.rules.lock().get_mut(&to).map(decide)
    }
}

impl Rule {
    fn happens(&mut self, permille: u32) -> bool {
        self.rng.random_range(0..PERMILLE) < permille
    }

    fn held_up(&mut self) -> Duration {
        let jitter_us = self.rng.random_range(0..=u64::from(self.fault.jitter_ms) * 1_000);
        Duration::from_millis(self.fault.delay_ms.into()) + Duration::from_micros(jitter_us)
    }

    fn message(&mut self, now: Instant) -> Fate {
        // Always as many draws, so that one rule's number does not move the others' decisions.
        let (drop, duplicate, reorder) = (
            self.happens(self.fault.drop_permille),
            self.happens(self.fault.duplicate_permille),
            self.happens(self.fault.reorder_permille),
        );
        let held_up = self.held_up();
        if drop {
            return Fate::Lost;
        }
        let copies = if duplicate { 2 } else { 1 };
        if reorder {
            return Fate::Sent { copies, due: Some(now + held_up + REORDER) };
        }
        let due = self.due.filter(|due| *due > now).unwrap_or(now).max(now + held_up);
        self.due = Some(due);
        Fate::Sent { copies, due: (due > now).then_some(due) }
    }

    fn call(&mut self) -> Option<Duration> {
        let (drop, held_up) = (self.happens(self.fault.drop_permille), self.held_up());
        (!drop).then_some(held_up)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TO: NodeId = NodeId(2);

    fn faults(fault: LinkFault) -> Faults {
        let faults = Faults::new(7);
        faults.set(vec![LinkFault { to: TO, ..fault }]);
        faults
    }

    fn fates(fault: LinkFault, count: usize, now: Instant) -> Vec<Fate> {
        let faults = faults(fault);
        (0..count).map(|_| faults.message(TO, now)).collect()
    }

    #[test]
    fn without_rules_nothing_happens() {
        let (faults, now) = (Faults::new(7), Instant::now());
        let sent = Fate::Sent { copies: 1, due: None };
        assert_eq!(faults.message(TO, now), sent);
        assert_eq!(faults.call(TO), Some(Duration::ZERO));
        faults.set(vec![LinkFault { to: TO, drop_permille: 1_000, ..LinkFault::default() }]);
        assert_eq!(faults.message(TO, now), Fate::Lost);
        assert_eq!(faults.message(NodeId(3), now), sent, "a rule is for one node");
        faults.set(vec![LinkFault { to: TO, ..LinkFault::default() }]);
        assert_eq!(faults.rules(), [], "a rule that does nothing is none");
        assert_eq!(faults.message(TO, now), sent);
    }

    #[test]
    fn the_same_seed_decides_the_same() {
        let now = Instant::now();
        let fault = LinkFault {
            drop_permille: 300,
            duplicate_permille: 200,
            reorder_permille: 100,
            jitter_ms: 9,
            ..LinkFault::default()
        };
        let fates = |seed| {
            let faults = Faults::new(seed);
            faults.set(vec![LinkFault { to: TO, ..fault.clone() }]);
            (0..500).map(|_| faults.message(TO, now)).collect::<Vec<_>>()
        };
        assert_eq!(fates(1), fates(1));
        assert_ne!(fates(1), fates(2));
    }

    #[test]
    fn probabilities_are_thousandths() {
        let now = Instant::now();
        let count = |fault, wanted: fn(&Fate) -> bool| {
            fates(fault, 10_000, now).iter().filter(|fate| wanted(fate)).count()
        };
        let dropped = LinkFault { drop_permille: 100, ..LinkFault::default() };
        let lost = count(dropped, |fate| *fate == Fate::Lost);
        assert!((900..1_100).contains(&lost), "{lost}");
        let twice = LinkFault { duplicate_permille: 250, ..LinkFault::default() };
        let twice = count(twice, |fate| matches!(fate, Fate::Sent { copies: 2, .. }));
        assert!((2_300..2_700).contains(&twice), "{twice}");
        let cut = LinkFault { drop_permille: 1_000, ..LinkFault::default() };
        assert_eq!(count(cut.clone(), |fate| *fate == Fate::Lost), 10_000);
        assert!((0..100).all(|_| faults(cut.clone()).call(TO).is_none()));
    }

    #[test]
    fn jitter_keeps_the_order_and_reordering_does_not() {
        let now = Instant::now();
        let dues = |reorder_permille| {
            let fault =
                LinkFault { delay_ms: 50, jitter_ms: 10, reorder_permille, ..LinkFault::default() };
            let due = |fate| match fate {
                Fate::Sent { due: Some(due), .. } => due,
                fate => panic!("{fate:?}"),
            };
            fates(fault, 200, now).into_iter().map(due).collect::<Vec<_>>()
        };
        let delayed = dues(0);
        assert!(delayed.is_sorted());
        let (least, most) = (Duration::from_millis(50), Duration::from_millis(60));
        assert!(delayed.iter().all(|due| (least..=most).contains(&(*due - now))));
        assert!(!dues(300).is_sorted());
    }
}
