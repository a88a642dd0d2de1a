//! What servers are asked and told by a test: how they are, and what is to go wrong.

use crate::nodes::{Cluster, LOOK_EVERY, PATIENCE};
use proto::control::{ControlReply, ControlRequest, LinkFault, NodeReport};
use proto::request::GroupStatus;
use proto::universe::UniverseMap;
use proto::{GroupId, NodeId};
use rpc::Target;
use std::collections::{BTreeMap, BTreeSet};
use std::thread::sleep;
use std::time::{Duration, Instant};

const ANSWER_WITHIN: Duration = Duration::from_secs(2);

impl Cluster {
    pub fn ask(&self, node: u32, request: ControlRequest) -> Result<ControlReply, String> {
        let target = Target::node(NodeId(node), &self.members[&node].address);
        let call = self.connections.control(&target, &request, ANSWER_WITHIN);
        self.runtime.block_on(call).map_err(|error| error.to_string())
    }

    /// Orders something of whoever leads the root group, until it is done.
    #[track_caller]
    pub fn order(&self, request: ControlRequest) {
        self.until("the root group's leader does it", |cluster| {
            let mut last = String::new();
            for node in cluster.running() {
                match cluster.ask(node, request.clone()) {
                    Ok(_) => return Ok(()),
                    Err(error) => last = error,
                }
            }
            Err(format!("{request:?}: {last}"))
        });
    }

    pub fn map(&self, node: u32) -> Result<UniverseMap, String> {
        match self.ask(node, ControlRequest::Map)? {
            ControlReply::Map(map) => Ok(*map),
            other => Err(format!("{other:?}")),
        }
    }

    pub fn report(&self, node: u32) -> Result<NodeReport, String> {
        match self.ask(node, ControlRequest::Node)? {
            ControlReply::Node(report) => Ok(*report),
            other => Err(format!("{other:?}")),
        }
    }

    pub fn groups(&self, node: u32) -> Result<Vec<GroupStatus>, String> {
        match self.ask(node, ControlRequest::Groups)? {
            ControlReply::Groups(groups) => Ok(groups),
            other => Err(format!("{other:?}")),
        }
    }

    /// The replica of each group that leads it, as far as those who run and answer know. Who was cut
    /// off may not have noticed: the highest ballot counts.
    pub fn leaders(&self) -> BTreeMap<GroupId, GroupStatus> {
        let mut leaders: BTreeMap<GroupId, GroupStatus> = BTreeMap::new();
        let all = self.running().into_iter().filter_map(|node| self.groups(node).ok()).flatten();
        for group in all {
            let leads =
                group.leader == Some(group.node) && (group.lease_end.is_some() || group.asleep);
            let known = leaders.get(&group.group);
            if leads && known.is_none_or(|known| known.ballot < group.ballot) {
                leaders.insert(group.group, group);
            }
        }
        leaders
    }

    pub fn leader(&self, group: GroupId) -> u32 {
        let mut found = None;
        self.until(&format!("{group} has a leader"), |cluster| {
            found = cluster.leaders().get(&group).map(|status| status.node.0);
            found.map(|_| ()).ok_or_else(|| "nobody leads it".to_owned())
        });
        found.expect("it has just been found")
    }

    /// The server that leads most groups.
    pub fn busiest(&self) -> u32 {
        let leaders = self.leaders();
        let leads =
            |node: &u32| leaders.values().filter(|group| group.node == NodeId(*node)).count();
        self.running().into_iter().max_by_key(leads).expect("somebody runs")
    }

    /// Until every group has these voters and a leader, as all say that run.
    #[track_caller]
    pub fn settled(&self, voters: &[u32]) {
        // As many as a group has replicas: which ones, where there are more servers, is open.
        let wanted: BTreeSet<NodeId> = voters.iter().copied().map(NodeId).collect();
        let replicas = self.plan.replicas as usize;
        self.until(&format!("the voters are of {voters:?}, and every group is led"), |cluster| {
            for node in cluster.running() {
                let map = cluster.map(node)?;
                let placed = |voters: &BTreeSet<NodeId>| {
                    voters.is_subset(&wanted) && voters.len() == replicas.min(wanted.len())
                };
                let astray = map.groups.values().find(|group| !placed(&group.members.voters));
                if let Some(group) = astray {
                    return Err(format!("n{node}: {group:?}"));
                }
            }
            let led = cluster.leaders().len();
            match led == cluster.plan.groups as usize + 1 {
                true => Ok(()),
                false => Err(format!("{led} groups are led")),
            }
        });
    }

    #[track_caller]
    pub fn until(&self, what: &str, mut check: impl FnMut(&Cluster) -> Result<(), String>) {
        let begun = Instant::now();
        while let Err(why) = check(self) {
            assert!(begun.elapsed() < PATIENCE, "not so after {PATIENCE:?}: {what}: {why}");
            sleep(LOOK_EVERY);
        }
    }

    /// Has a server lead nothing, or lead again.
    pub fn drain(&self, node: u32, on: bool) {
        self.order(ControlRequest::Drain { node: NodeId(node), on });
        if on {
            self.until(&format!("n{node} leads nothing"), |cluster| {
                let leaders = cluster.leaders();
                let led = leaders.values().filter(|group| group.node == NodeId(node)).count();
                match led == 0 && leaders.len() == cluster.plan.groups as usize + 1 {
                    true => Ok(()),
                    false => Err(format!("{led} of {} groups", leaders.len())),
                }
            });
        }
    }

    /// Nothing that a server sends to these arrives.
    pub fn mute(&self, node: u32, to: &[u32]) {
        let lost =
            |to: &u32| LinkFault { to: NodeId(*to), drop_permille: 1_000, ..LinkFault::default() };
        self.fault(node, to.iter().map(lost).collect());
    }

    /// Nothing passes between the two sides.
    pub fn part(&self, one: &[u32], other: &[u32]) {
        one.iter().for_each(|node| self.mute(*node, other));
        other.iter().for_each(|node| self.mute(*node, one));
    }

    pub fn fault(&self, node: u32, faults: Vec<LinkFault>) {
        let done = self.ask(node, ControlRequest::Faults(faults));
        assert_eq!(done, Ok(ControlReply::Done), "n{node}");
    }

    pub fn heal(&self) {
        self.running().into_iter().for_each(|node| self.fault(node, Vec::new()));
    }

    pub fn others(&self, than: u32) -> Vec<u32> {
        self.members.keys().copied().filter(|node| *node != than).collect()
    }
}
