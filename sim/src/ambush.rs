//! Strikes leaders at bad moments: when they are elected, when the first entry of theirs is chosen,
//! when they have appended a configuration.

use crate::node::{Action, Trap};
use crate::strikes::Strike;
use crate::tally::Fault;
use crate::watch::Sighting;
use crate::world::World;
use proto::{GroupId, NodeId};
use rand::Rng;

impl World {
    /// How likely an ambush is. By the plot of the membership scenario, a leader is cut off with
    /// new voters that nobody else knows of, the next one with too few, and then nobody, so that
    /// the first may come back.
    fn chance(&mut self, sighting: Sighting) -> f64 {
        if !self.plots_members() {
            let opened = matches!(sighting, Sighting::Opened(..));
            return if self.options.plot && opened { 0.9 } else { self.options.ambush };
        }
        match sighting {
            Sighting::Configured(node, group) => {
                self.faults.second_act = self.changes_voters(node, group);
                if self.faults.second_act { 0.8 } else { 0.1 }
            }
            Sighting::Elected(..) if std::mem::take(&mut self.faults.second_act) => 0.9,
            Sighting::Elected(..) | Sighting::Opened(..) => 0.1,
        }
    }

    fn plots_members(&self) -> bool {
        self.options.plot && self.options.change_every_us > 0
    }

    /// Whether a leader has voters in mind that differ from those of all others.
    fn changes_voters(&self, leader: NodeId, group: GroupId) -> bool {
        let voters = |node| Some(&self.replica(node, group)?.configuration().1.voters);
        let mut others = self.node_ids();
        others.retain(|node| *node != leader);
        !others.into_iter().any(|node| voters(node) == voters(leader))
    }

    /// Strikes a leader at a bad moment.
    pub(crate) fn ambush(&mut self, sighting: Sighting) {
        if !self.faults.injecting {
            return;
        }
        let chance = self.chance(sighting);
        if !self.faults.rng.random_bool(chance) {
            return;
        }
        self.faults.count(Fault::Ambush);
        let (node, group) = match sighting {
            Sighting::Elected(node, group)
            | Sighting::Opened(node, group)
            | Sighting::Configured(node, group) => (node, group),
        };
        let pause_ns = self.leases_ns(0.5, 3.0);
        match self.faults.rng.random_range(0..10) {
            _ if self.options.plot => self.cut_leader_off(node, group),
            0 => self
                .set_trap(node, Trap { effects: 2, strike: Strike::Pause(pause_ns), point: None }),
            1..=2 => {
                let effects = self.faults.rng.random_range(0..12);
                self.set_trap(node, Trap { effects, strike: Strike::Crash, point: None });
            }
            _ => self.cut_leader_off(node, group),
        }
    }

    /// Leaves a leader with one other node, with just too few for a quorum, with newcomers only,
    /// or with some.
    fn cut_leader_off(&mut self, node: NodeId, group: GroupId) {
        let mut others = self.node_ids();
        others.retain(|other| *other != node);
        let mut side = self.newcomers(node, group);
        if side.is_empty() || self.faults.rng.random_bool(0.3) {
            side.clear();
            let voters = self.replica(node, group).map(|r| r.configuration().1.voters.clone());
            let voters = voters.unwrap_or_default();
            let too_few = (voters.len() / 2 + 1).saturating_sub(2);
            if self.options.plot {
                others.retain(|other| voters.contains(other));
            }
            let company = match self.faults.rng.random_range(0..6) {
                0 if !self.options.plot => self.faults.rng.random_range(0..others.len()),
                0 | 1 => 1,
                _ => too_few,
            };
            for _ in 0..company.min(others.len()) {
                side.push(others.swap_remove(self.faults.rng.random_range(0..others.len())));
            }
        }
        side.push(node);
        let (_, long) = self.options.latency_us;
        let window_us = 4 * long + 2 * self.options.sync_us.1;
        let for_ns = self.leases_ns(1.5, 6.0);
        let at_once = if self.plots_members() { 0.9 } else { 0.6 };
        if self.faults.rng.random_bool(at_once) {
            return self.part(side, for_ns); // before what the step says leaves
        }
        let after_us = self.faults.rng.random_range(0..window_us);
        self.schedule(after_us * 1_000, Action::Part { side, for_ns });
    }

    /// Voters by a leader's configuration that are none by any other replica's.
    fn newcomers(&self, leader: NodeId, group: GroupId) -> Vec<NodeId> {
        let Some(replica) = self.replica(leader, group) else { return Vec::new() };
        let nodes = self.node_ids();
        let others: Vec<_> = nodes
            .iter()
            .filter(|node| **node != leader)
            .filter_map(|node| Some(self.replica(*node, group)?.configuration().1))
            .collect();
        let known = |node: &NodeId| others.iter().any(|c| c.voters.contains(node));
        let voters = replica.configuration().1.voters.iter();
        voters.copied().filter(|node| *node != leader && !known(node)).collect()
    }

    pub(crate) fn part(&mut self, side: Vec<NodeId>, for_ns: u64) {
        if self.faults.injecting {
            self.note(|| format!("cut {side:?} off for {} ms", for_ns / 1_000_000));
            let partition = self.network.part(side.into_iter().collect());
            self.schedule(for_ns, Action::Join { partition });
        }
    }
}
