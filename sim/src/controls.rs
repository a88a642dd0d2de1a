//! What an experiment does to a world while it runs: one node's clock, links, process, leadership,
//! at the time it chooses.

use crate::executor::ClientPort;
use crate::history::Violation;
use crate::verdicts::Verdicts;
use crate::world::{Handled, World};
use proto::{GroupId, NodeId, TxnId};
use truetime::providers::{Absolute, Simulated, Skew};
use truetime::{Timestamp, TrueTime};

impl World {
    /// From now on violations are collected, and end nothing; and as many events may happen as
    /// will. For worlds whose clocks lie.
    pub fn collect_violations(&mut self) {
        self.watch.verdicts.collect();
        self.allow_events(u64::MAX);
    }

    /// How many events may happen before the run is taken for one that goes round in circles.
    pub fn allow_events(&mut self, events_max: u64) {
        self.events_max = events_max;
    }

    /// Compares tablets at every so many slots only: that takes as long as they are large.
    pub fn compare_tablets_every(&mut self, slots: u64) {
        self.contents_every = slots;
    }

    /// What was collected.
    pub fn verdicts(&self) -> &Verdicts {
        &self.watch.verdicts
    }

    /// Absolute time, in nanoseconds.
    pub fn absolute_ns(&self) -> u64 {
        self.now_ns()
    }

    /// The nodes, in order.
    pub fn nodes(&self) -> Vec<NodeId> {
        self.node_ids()
    }

    /// What is wrong with a node's clock, to be changed at will.
    pub fn skew(&self, node: NodeId) -> Simulated {
        self.nodes[&node].skew.clone()
    }

    /// A port for a client whose clock is off as `skew` has it, and that asks the nodes in this
    /// order as long as it knows no leader.
    pub fn port(&mut self, nodes: Vec<NodeId>, skew: Skew) -> ClientPort {
        let clock = Simulated::with(Absolute::World(self.absolute()), skew, None);
        self.open_port(nodes, TrueTime::new(clock))
    }

    /// Which node was asked for a commit, and when.
    pub fn handled(&self, txn: TxnId) -> Option<Handled> {
        self.handled.get(&txn).copied()
    }

    /// Cuts a node off from all others; clients reach it still.
    pub fn cut_off(&mut self, node: NodeId) {
        self.note(|| format!("{node} is cut off"));
        for other in self.others(node) {
            self.network.cut(node, other);
            self.network.cut(other, node);
        }
    }

    /// Undoes [`cut_off`](World::cut_off).
    pub fn rejoin(&mut self, node: NodeId) {
        self.note(|| format!("{node} is cut off no more"));
        for other in self.others(node) {
            self.network.mend(node, other);
            self.network.mend(other, node);
        }
    }

    /// Ends a node's process; it stays down until it is [revived](World::revive).
    pub fn kill(&mut self, node: NodeId) {
        self.faults.buried.insert(node);
        self.crash(node);
    }

    /// Starts a node's process from its disk.
    ///
    /// # Errors
    /// What the checkers see.
    pub fn revive(&mut self, node: NodeId) -> Result<(), Violation> {
        self.faults.buried.remove(&node);
        self.restart(node)
    }

    /// Who leads a group, by its own knowledge; of several who believe it, the one elected last.
    pub fn leader(&self, group: GroupId) -> Option<NodeId> {
        let serving = self.servers().filter_map(|(node, server)| {
            let (_, group) = server.groups().find(|(id, _)| *id == group)?;
            Some((group.manager().serving()?, node))
        });
        serving.max().map(|(_, node)| node)
    }

    /// Whether a node would serve a request of a group now: it leads, and by its own clock its
    /// lease is not over (L2).
    pub fn serves(&self, node: NodeId, group: GroupId) -> bool {
        let Ok(now) = self.nodes[&node].clock.now() else { return false };
        let mut servers = self.servers();
        let Some((_, server)) = servers.find(|(id, _)| *id == node) else { return false };
        let group = server.groups().find(|(id, _)| *id == group);
        group.is_some_and(|(_, group)| {
            let end = group.replica().lease_end();
            group.manager().serving().is_some() && end.is_some_and(|end| now.before(end))
        })
    }

    /// Until when a node's lease of a group lasts, by its own clock, if it leads (L2).
    pub fn lease_end(&self, node: NodeId, group: GroupId) -> Option<Timestamp> {
        self.replica(node, group)?.lease_end()
    }

    fn others(&self, node: NodeId) -> Vec<NodeId> {
        self.node_ids().into_iter().filter(|other| *other != node).collect()
    }
}
