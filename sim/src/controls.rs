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

    /// Changes what servers are told when they start: those that have started stay as they are.
    pub fn change_settings(&mut self, change: impl FnOnce(&mut spanserver::Settings)) {
        change(&mut self.settings);
    }

    /// From now on nobody is listened to but this checker; see [`Verdicts::listen_to`].
    pub fn listen_to(&mut self, only: Option<&'static str>) {
        self.watch.verdicts.listen_to(only);
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lab::experiments::support::stage::{Stage, steady};
    use crate::options::Options;
    use futures::FutureExt;
    use parking_lot::Mutex;
    use proto::Error;
    use proto::request::Body;
    use std::sync::Arc;

    const GROUP: GroupId = GroupId(1);
    const OLD: NodeId = NodeId(1);

    /// What a node says when it is asked for the group's status.
    fn status(stage: &mut Stage, node: NodeId) -> Result<(), Error> {
        let (client, said) = (stage.client(), Arc::new(Mutex::new(None)));
        let heard = said.clone();
        let ask = async move {
            let reply = client.router().ask_node(node, GROUP, Body::Status).await;
            *heard.lock() = Some(reply.map(|_| ()));
        };
        stage.world.spawn(ask.boxed());
        stage.world.run(1_000_000).unwrap();
        said.lock().take().unwrap()
    }

    #[test]
    fn a_leader_without_a_bound_refuses_and_another_one_leads_until_it_is_back() {
        let clocks = [steady(0, 1_000_000); 3];
        let options = Options { epsilon_us: 1_000, ..Options::quiet() };
        let mut stage = Stage::open(1, options, &clocks, &[OLD]).unwrap();
        stage.world.skew(OLD).set(|skew| skew.lost = true);
        let refused = status(&mut stage, OLD);
        assert!(matches!(refused, Err(Error::ClockUnavailable { .. })), "{refused:?}");
        stage.world.run_for(3_000_000).unwrap();
        assert!(!stage.world.serves(OLD, GROUP));
        assert_ne!(stage.world.leader(GROUP), Some(OLD));
        stage.world.skew(OLD).set(|skew| skew.lost = false);
        stage.world.run_for(1_000_000).unwrap();
        assert_eq!(status(&mut stage, OLD), Ok(()));
        stage.place(&[OLD]).unwrap();
        assert!(stage.world.serves(OLD, GROUP));
    }

    #[test]
    fn who_is_killed_stays_down_until_it_is_revived() {
        let clocks = [steady(0, 0); 3];
        let mut stage = Stage::open(2, Options::quiet(), &clocks, &[OLD]).unwrap();
        stage.world.kill(OLD);
        stage.world.run_for(10_000_000).unwrap();
        assert!(!stage.world.up(OLD));
        stage.world.revive(OLD).unwrap();
        assert!(stage.world.up(OLD));
    }
}
