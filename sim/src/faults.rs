//! What goes wrong: drawn from a stream of its own, injected while the safety phase lasts, counted.
//!
//! | fault | what happens |
//! |---|---|
//! | crash | a process ends between two steps, or between two effects of one; some of what was on its way to the disk arrives |
//! | power cut | all processes at once, or all but one |
//! | cut, isolation, chain | a link in one direction; all links of a node; everyone talks to neighbours only |
//! | ambush | a leader is cut off with too few others, crashes or pauses as soon as it is elected, or has appended a configuration |
//! | pause | a process stands still, for longer than a lease at times, between two steps or two effects |
//! | slow disk | syncs take up to 300 ms for a while |
//! | clock step | a clock jumps to another place within its bound |
//! | clock lost | a clock has no bound for a while (T5) |
//! | rot, wipe | an entry of the log is damaged, or the whole disk is lost, while the process is down |

use crate::history::Violation;
use crate::node::{Action, Trap};
use crate::options::Lasting;
use crate::strikes::Strike;
use crate::tally::{Fault, FaultCount};
use crate::world::World;
use proto::NodeId;
use rand::Rng;
use rand::rngs::SmallRng;
use spanserver::storage::{Durability, Engine};
use std::collections::BTreeSet;
use truetime::providers::Drift;

/// What comes again and again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Crash,
    Cut,
    Pause,
    SlowDisk,
    ClockStep,
    ClockLoss,
}

/// What happens to a disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Damage {
    /// Everything is lost.
    Wiped,
    /// An entry of a log cannot be read any more.
    Rotten,
}

/// The state of the injection.
pub(crate) struct Faults {
    pub rng: SmallRng,
    /// For clocks that lose their bound.
    clocks: SmallRng,
    pub injecting: bool,
    counts: FaultCount,
    /// Down for good.
    pub buried: BTreeSet<NodeId>,
    /// Cannot talk to all others, for good.
    pub lasting: BTreeSet<(NodeId, NodeId)>,
    /// Its log is to rot when it comes back.
    rotting: BTreeSet<NodeId>,
    /// The leader before was cut off with a configuration of its own.
    pub second_act: bool,
    /// May not have all it once had.
    damaged: BTreeSet<NodeId>,
}

impl Faults {
    pub fn new(rng: SmallRng, clocks: SmallRng) -> Faults {
        Faults {
            rng,
            clocks,
            injecting: false,
            counts: FaultCount::default(),
            buried: BTreeSet::new(),
            lasting: BTreeSet::new(),
            rotting: BTreeSet::new(),
            second_act: false,
            damaged: BTreeSet::new(),
        }
    }

    pub fn count(&mut self, fault: Fault) {
        self.counts.add(fault, 1);
    }

    pub fn count_many(&mut self, fault: Fault, times: u64) {
        self.counts.add(fault, times);
    }

    pub fn counts(&self) -> FaultCount {
        self.counts
    }
}

impl World {
    /// Faults begin.
    pub fn begin_faults(&mut self) {
        self.faults.injecting = true;
        for kind in [Kind::Crash, Kind::Cut, Kind::Pause, Kind::SlowDisk, Kind::ClockStep] {
            self.schedule_fault(kind);
        }
        self.schedule_fault(Kind::ClockLoss);
    }

    fn schedule_fault(&mut self, kind: Kind) {
        let mean = match kind {
            Kind::Crash => self.options.crash_every_us,
            Kind::Cut => self.options.cut_every_us,
            Kind::Pause => self.options.pause_every_us,
            Kind::SlowDisk => self.options.slow_disk_every_us,
            Kind::ClockStep => self.options.clock_step_every_us,
            Kind::ClockLoss => self.options.clock_loss_every_us,
        };
        if mean > 0 && self.faults.injecting {
            let rng = match kind {
                Kind::ClockLoss => &mut self.faults.clocks,
                _ => &mut self.faults.rng,
            };
            let after_us = rng.random_range(mean / 4..=mean * 7 / 4);
            self.schedule(after_us * 1_000, Action::Fault(kind));
        }
    }

    fn any_node(&mut self) -> NodeId {
        let nodes = self.node_ids();
        nodes[self.faults.rng.random_range(0..nodes.len())]
    }

    pub(crate) fn inject(&mut self, kind: Kind) {
        if !self.faults.injecting {
            return;
        }
        if kind == Kind::ClockLoss {
            self.lose_clock();
            return self.schedule_fault(kind);
        }
        let one = self.any_node();
        match kind {
            Kind::Crash if self.options.power_cuts && self.faults.rng.random_bool(0.3) => {
                self.power_cut(one);
            }
            Kind::Crash if self.faults.rng.random_bool(0.6) => {
                let effects = self.faults.rng.random_range(0..12);
                self.set_trap(one, Trap { effects, strike: Strike::Crash, point: None });
            }
            Kind::Crash => {
                self.faults.count(Fault::Crash);
                self.crash(one);
            }
            Kind::Cut => self.cut_links(one),
            Kind::Pause => {
                let pause_ns = self.leases_ns(0.1, 3.0);
                if self.faults.rng.random_bool(0.6) {
                    let effects = self.faults.rng.random_range(0..12);
                    self.set_trap(
                        one,
                        Trap { effects, strike: Strike::Pause(pause_ns), point: None },
                    );
                } else {
                    self.faults.count(Fault::Pause);
                    self.stall(one, pause_ns, Default::default());
                }
            }
            Kind::SlowDisk => {
                self.faults.count(Fault::SlowDisk);
                let for_us = self.faults.rng.random_range(20_000..1_000_000);
                let until = self.now_ns() + for_us * 1_000;
                self.node(one).slow_until_ns = until;
                self.note(|| format!("{one} has a slow disk for {} ms", for_us / 1_000));
            }
            Kind::ClockStep => self.step_clock(one),
            Kind::ClockLoss => {}
        }
        self.schedule_fault(kind);
    }

    /// A random time, in lengths of a lease.
    pub(crate) fn leases_ns(&mut self, from: f64, to: f64) -> u64 {
        let lease_ns = (self.options.lease_ms * 1_000_000) as f64;
        (self.faults.rng.random_range(from..to) * lease_ns) as u64
    }

    pub(crate) fn set_trap(&mut self, node: NodeId, trap: Trap) {
        if self.up(node) {
            self.node(node).trap = Some(trap);
        }
    }

    /// All, or all but one.
    fn power_cut(&mut self, spared: NodeId) {
        self.faults.count(Fault::PowerCut);
        let spare = self.faults.rng.random_bool(0.6);
        for node in self.node_ids() {
            if !spare || node != spared {
                self.crash(node);
            }
        }
    }

    /// Cuts one link of a node, all that lead to it, all that lead away, all, or makes a chain.
    fn cut_links(&mut self, one: NodeId) {
        let nodes = self.node_ids();
        let others: Vec<NodeId> = nodes.iter().copied().filter(|node| *node != one).collect();
        let picked = others[self.faults.rng.random_range(0..others.len())];
        let (fault, links): (Fault, Vec<(NodeId, NodeId)>) =
            match self.faults.rng.random_range(0..6) {
                0 => (Fault::Cut, vec![(one, picked)]),
                1 => (Fault::Cut, others.iter().map(|other| (one, *other)).collect()),
                2 => (Fault::Cut, others.iter().map(|other| (*other, one)).collect()),
                3 => {
                    let around = others.iter().flat_map(|other| [(one, *other), (*other, one)]);
                    (Fault::Isolation, around.collect())
                }
                4 => (Fault::Chain, self.chain(true)),
                _ => (Fault::Chain, self.chain(false)),
            };
        self.faults.counts.add(fault, if fault == Fault::Cut { links.len() as u64 } else { 1 });
        let for_us = self.faults.rng.random_range(10_000..self.options.outage_us.max(20_000));
        for (from, to) in links {
            self.network.cut(from, to);
            self.note(|| format!("cut {from} -> {to}"));
            self.schedule(for_us * 1_000, Action::Mend { from, to });
        }
    }

    /// The links that a chain lacks: everyone talks to the neighbours; or, as a bridge, the node
    /// in the middle to all, and the two sides not to each other.
    fn chain(&mut self, bridge: bool) -> Vec<(NodeId, NodeId)> {
        let mut order = self.node_ids();
        for place in (1..order.len()).rev() {
            order.swap(place, self.faults.rng.random_range(0..=place));
        }
        let middle = order.len() / 2;
        let apart = |a: usize, b: usize| match bridge {
            true => (a < middle && b > middle) || (a > middle && b < middle),
            false => a.abs_diff(b) > 1,
        };
        let places = 0..order.len();
        let pairs = places.clone().flat_map(|a| places.clone().map(move |b| (a, b)));
        pairs.filter(|(a, b)| apart(*a, *b)).map(|(a, b)| (order[a], order[b])).collect()
    }

    fn step_clock(&mut self, node: NodeId) {
        self.faults.count(Fault::ClockStep);
        let bound = (self.options.epsilon_us * 1_000) as i64;
        let offset_ns = self.faults.rng.random_range(-bound..=bound);
        let drift = Drift::Constant { offset_ns };
        self.node(node).skew.set(|skew| skew.drift = drift);
        self.note(|| format!("{node} has its clock set to {offset_ns} ns off"));
    }

    /// A clock has no bound, for up to three leases.
    fn lose_clock(&mut self) {
        self.faults.count(Fault::ClockLost);
        let nodes = self.node_ids();
        let node = nodes[self.faults.clocks.random_range(0..nodes.len())];
        let for_us = self.faults.clocks.random_range(1_000..self.options.lease_ms * 3_000);
        self.node(node).skew.set(|skew| skew.lost = true);
        self.note(|| format!("{node} loses its clock for {} ms", for_us / 1_000));
        self.schedule(for_us * 1_000, Action::ClockBack { node });
    }

    /// A process stands still, with these effects of its last step to go.
    pub(crate) fn stall(
        &mut self,
        node: NodeId,
        for_ns: u64,
        effects: std::collections::VecDeque<crate::effects::Effect>,
    ) {
        if !self.up(node) || self.node(node).stalled.is_some() {
            return;
        }
        self.note(|| format!("{node} pauses for {} ms", for_ns / 1_000_000));
        let this = self.node(node);
        this.stalled = Some(Vec::new());
        let life = this.life;
        self.schedule(for_ns, Action::Resume { node, life, effects });
    }

    /// A crash: of what was on its way to the disk, some arrived, and a batch that was half
    /// written counts as not written; of what was not synced, the first part survives.
    pub(crate) fn crash(&mut self, node: NodeId) {
        if !self.up(node) {
            return;
        }
        let writing = self.node(node).writing.len();
        let arrived = self.disk.random_range(0..=writing);
        if arrived < writing {
            self.faults.count(Fault::TornWrite);
        }
        let reached: Vec<_> = self.node(node).writing.drain(..).take(arrived).collect();
        let engine = self.node(node).engine.clone();
        for (_, ops) in reached {
            engine.write(&ops, Durability::Buffered).expect("memory writes");
        }
        let unsynced = engine.unsynced();
        let keep = self.disk.random_range(0..=unsynced);
        if keep < unsynced {
            self.faults.count(Fault::LostTail);
        }
        engine.crash(keep);
        self.node(node).stop();
        self.note(|| format!("{node} crashes, {arrived} batches arrived, {keep} unsynced stay"));
        let down_us = self.faults.rng.random_range(1_000..self.options.outage_us);
        self.schedule(down_us * 1_000, Action::Restart { node });
    }

    /// Lets an entry of a log rot before its process starts, if that is its turn and the others
    /// can bear it.
    pub(crate) fn rot(&mut self, node: NodeId) {
        self.mended();
        let chance = self.faults.injecting && self.faults.rng.random_bool(self.options.rot);
        let others = self.faults.damaged.iter().filter(|other| **other != node).count();
        let bearable = others < (self.options.nodes as usize - 1) / 2;
        let asked_for = self.faults.rotting.remove(&node);
        if !asked_for && (!chance || !bearable) {
            return;
        }
        let engine = self.node(node).engine.clone();
        let groups = self.groups.clone();
        let group = groups[self.faults.rng.random_range(0..groups.len())];
        let slots = engine.log_slots(group);
        if slots.is_empty() {
            return;
        }
        let slot = slots[self.faults.rng.random_range(0..slots.len())];
        if engine.rot_log(group, slot) {
            self.faults.count(Fault::Rot);
            self.faults.damaged.insert(node);
            self.note(|| format!("{node} finds {group} {slot} damaged"));
        }
    }

    /// Those whose logs are whole again, or whose places others have taken, are not damaged.
    fn mended(&mut self) {
        let damaged = std::mem::take(&mut self.faults.damaged);
        let still = |node: &NodeId| {
            let whole = |group| self.replica(*node, group).is_some_and(|r| !r.is_in_repair());
            !self.groups.iter().all(|group| whole(*group)) || self.has_lost_seat(*node)
        };
        let left: BTreeSet<NodeId> = damaged.into_iter().filter(still).collect();
        self.faults.damaged = left;
    }

    /// Loses or damages a disk, if every group can bear it: nothing is being changed, all agree
    /// on who belongs to it, and the others are a quorum. Whether it was done.
    pub(crate) fn damage(&mut self, node: NodeId, what: Damage) -> bool {
        self.mended();
        let without = [node].into_iter().collect();
        if !self.faults.injecting
            || !self.faults.damaged.is_empty()
            || !self.all_agree_on_members()
            || !self.bearable(&without)
        {
            return false;
        }
        self.crash(node);
        match what {
            Damage::Rotten => {
                self.faults.rotting.insert(node);
            }
            Damage::Wiped => {
                self.faults.count(Fault::Wipe);
                self.faults.damaged.insert(node);
                self.node(node).engine.wipe();
                self.note(|| format!("{node} loses its disk"));
            }
        }
        true
    }

    /// Ends the faults: processes run, links are mended.
    ///
    /// # Errors
    /// What the checkers see when processes start.
    pub fn heal(&mut self) -> Result<(), Violation> {
        self.faults.injecting = false;
        self.network.heal();
        for node in self.node_ids() {
            self.node(node).trap = None;
            self.node(node).slow_until_ns = 0;
            self.node(node).skew.set(|skew| skew.lost = false);
            self.restart(node)?;
        }
        self.note(|| "heal".into());
        Ok(())
    }

    /// A minority stays out of the rest of the run, as far as every group can bear that. Who is
    /// well.
    pub fn leave_out(&mut self, lasting: Lasting) -> Vec<NodeId> {
        self.mended();
        let mut out = BTreeSet::new();
        if lasting != Lasting::Nothing {
            for _ in 0..(self.options.nodes - 1) / 2 {
                let one = self.any_node();
                out.insert(one);
                if !self.bearable(&out) {
                    out.remove(&one);
                }
            }
        }
        self.note(|| format!("lasting: {lasting:?} {out:?}"));
        let mut well = self.node_ids();
        well.retain(|node| !out.contains(node) || lasting == Lasting::Chain);
        match lasting {
            Lasting::Nothing => {}
            Lasting::Crashed => {
                for node in out {
                    self.faults.buried.insert(node);
                    self.crash(node);
                }
            }
            Lasting::CutOff => {
                let links = out.iter().flat_map(|a| self.node_ids().into_iter().map(|b| (*a, b)));
                self.faults.lasting = links.filter(|(a, b)| a != b).collect();
            }
            // The one in the middle must be good.
            Lasting::Chain if self.faults.damaged.is_empty() => {
                self.faults.lasting = self.chain(true).into_iter().collect();
            }
            Lasting::Chain => {}
        }
        for (a, b) in self.faults.lasting.clone() {
            self.network.cut(a, b);
            self.network.cut(b, a);
        }
        well
    }
}
