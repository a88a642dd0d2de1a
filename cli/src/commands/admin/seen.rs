//! What a cluster says of itself at one look, and what follows from it.
//!
//! A look is a map and the answers of all nodes that it names. Nodes answer one after the other
//! while the cluster goes on, so two answers may differ by what happened between them: a group may
//! be seen with two leaders, of which the one with the higher ballot is the newer. Nothing here asks
//! anybody; what it is told may be made up.

use proto::control::NodeReport;
use proto::request::{GroupStatus, Members};
use proto::universe::{Descriptor, NodeInfo, NodeState, UniverseMap};
use proto::{GroupId, NodeId};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use truetime::{Interval, Timestamp};

/// One look at a cluster.
#[derive(Clone, Debug)]
pub struct Seen {
    /// Where everything is, according to whoever was asked first.
    pub map: UniverseMap,
    /// What each node said that is not removed; or why it said nothing.
    pub answers: BTreeMap<NodeId, Result<Answer, String>>,
}

/// What one node said.
#[derive(Clone, Debug)]
pub struct Answer {
    /// How it is.
    pub report: NodeReport,
    /// Every group at it.
    pub groups: Vec<GroupStatus>,
    /// What time it was there; `None`: it has no bound (T5).
    pub now: Option<Interval>,
}

impl Seen {
    /// A node's answer, if there is one.
    pub fn answer(&self, node: NodeId) -> Option<&Answer> {
        self.answers.get(&node)?.as_ref().ok()
    }

    /// A node's zone, `?` where the map does not know it.
    pub fn zone(&self, node: NodeId) -> &str {
        self.map.nodes.get(&node).map_or("?", |info| info.zone.as_str())
    }

    /// Nodes that are there to have replicas.
    pub fn present(&self) -> impl Iterator<Item = &NodeInfo> {
        self.map.nodes.values().filter(|info| info.state != NodeState::Removed)
    }

    /// All groups, in order.
    pub fn groups(&self) -> Vec<Group<'_>> {
        self.groups_where(|_| true)
    }

    /// One group.
    pub fn group(&self, id: GroupId) -> Option<Group<'_>> {
        self.groups_where(|group| group == id).pop()
    }

    fn groups_where(&self, wanted: impl Fn(GroupId) -> bool) -> Vec<Group<'_>> {
        let mut statuses: BTreeMap<GroupId, Vec<(&GroupStatus, Option<Interval>)>> =
            BTreeMap::new();
        for answer in self.answers.values().flatten() {
            for status in answer.groups.iter().filter(|status| wanted(status.group)) {
                statuses.entry(status.group).or_default().push((status, answer.now));
            }
        }
        let descriptors = self.map.groups.values().filter(|one| wanted(one.group));
        descriptors
            .map(|descriptor| {
                let at = statuses.remove(&descriptor.group).unwrap_or_default();
                Group::of(descriptor, at)
            })
            .collect()
    }

    /// Every node answers, every group is led and has its replicas, and none is between two sets of
    /// members.
    pub fn is_settled(&self, replicas: usize) -> bool {
        let all_answer = !self.answers.is_empty() && self.answers.values().all(Result::is_ok);
        let is_settled = |group: &Group<'_>| {
            group.leader.is_some()
                && !group.is_changing()
                && group.members.voters.len() >= replicas
                && group.members.learners.is_empty()
                && group.replicas.iter().all(|replica| replica.status.is_some())
        };
        let groups = self.groups();
        all_answer && !groups.is_empty() && groups.iter().all(is_settled)
    }
}

/// What a replica is to its group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Its answers count.
    Voter,
    /// They count, and it keeps no tablet.
    Witness,
    /// It only follows.
    Learner,
    /// It has one, and does not belong to it, or not any more.
    Outside,
}

impl Role {
    /// As tables and objects name it.
    pub fn name(self) -> &'static str {
        match self {
            Role::Voter => "voter",
            Role::Witness => "witness",
            Role::Learner => "learner",
            Role::Outside => "outside",
        }
    }
}

/// A replica of a group.
#[derive(Clone, Copy, Debug)]
pub struct Replica<'s> {
    /// Where it is.
    pub node: NodeId,
    /// What it is.
    pub role: Role,
    /// What it says; `None`: the node does not answer, or knows nothing of the group.
    pub status: Option<&'s GroupStatus>,
    /// What time it was there.
    now: Option<Interval>,
}

impl Replica<'_> {
    /// What time it was where it is, when it said that; `None`: it has no bound, or does not answer.
    pub fn now(&self) -> Option<Interval> {
        self.now
    }

    /// For how long its lease holds still; zero: it has ended. `None`: it does not lead, or nobody
    /// can tell, for want of a clock.
    pub fn lease_left(&self) -> Option<Duration> {
        let end = self.status?.lease_end?;
        Some(end.since(self.now?.latest()))
    }

    /// How long ago the newest write was that it has applied. `None`: there is none yet.
    pub fn age(&self) -> Option<Duration> {
        let at = self.status?.safe_time;
        (at > Timestamp::MIN).then_some(self.now?.latest().since(at))
    }
}

/// A group, as all of its replicas tell it.
#[derive(Clone, Debug)]
pub struct Group<'s> {
    /// Which.
    pub id: GroupId,
    /// Who belongs to it: what its leader says, or the map where nobody leads.
    pub members: Members,
    /// Its replicas, by node.
    pub replicas: Vec<Replica<'s>>,
    /// The node that leads it and answers.
    pub leader: Option<NodeId>,
    /// The newest change of its members that anybody here knows.
    pub generation: u64,
}

impl<'s> Group<'s> {
    fn of(
        descriptor: &Descriptor,
        statuses: Vec<(&'s GroupStatus, Option<Interval>)>,
    ) -> Group<'s> {
        let leading = statuses
            .iter()
            .filter(|(status, _)| status.leader == Some(status.node) && !status.removed)
            .filter(|(status, now)| leads(status, *now))
            .max_by_key(|(status, _)| status.ballot);
        let members = leading.map_or(&descriptor.members, |(status, _)| &status.members).clone();
        let mut nodes: BTreeSet<NodeId> =
            members.voters.union(&members.learners).copied().collect();
        nodes.extend(statuses.iter().map(|(status, _)| status.node));
        let replicas = nodes.into_iter().filter_map(|node| {
            let said = statuses.iter().find(|(status, _)| status.node == node);
            let replica = Replica {
                node,
                role: role(&members, node),
                status: said.map(|(status, _)| *status),
                now: said.and_then(|(_, now)| *now),
            };
            // What a removed replica has left on its disk is no part of the group.
            let is_left = replica.role == Role::Outside;
            (!is_left || replica.status.is_some_and(|status| !status.removed)).then_some(replica)
        });
        let replicas: Vec<Replica<'s>> = replicas.collect();
        let generations = replicas.iter().filter_map(|replica| Some(replica.status?.generation));
        Group {
            id: descriptor.group,
            leader: leading.map(|(status, _)| status.node),
            generation: generations.fold(descriptor.generation, u64::max),
            members,
            replicas,
        }
    }

    /// What the leader says.
    pub fn leading(&self) -> Option<&Replica<'s>> {
        let leader = self.leader?;
        self.replicas.iter().find(|replica| replica.node == leader)
    }

    /// Between two sets of members, or on the way there.
    pub fn is_changing(&self) -> bool {
        self.statuses().any(|status| status.changing || status.joint)
    }

    /// Between two sets of voters.
    pub fn is_joint(&self) -> bool {
        self.statuses().any(|status| status.joint)
    }

    /// Its leader says that nothing happens in it.
    pub fn is_asleep(&self) -> bool {
        self.leading().and_then(|leader| leader.status).is_some_and(|status| status.asleep)
    }

    /// Replicas that are being sent what their disk has lost.
    pub fn repairing(&self) -> impl Iterator<Item = NodeId> {
        self.statuses().filter(|status| status.repairing).map(|status| status.node)
    }

    /// Voters that do not answer.
    pub fn silent_voters(&self) -> Vec<NodeId> {
        let is_silent = |replica: &&Replica<'_>| {
            matches!(replica.role, Role::Voter | Role::Witness) && replica.status.is_none()
        };
        self.replicas.iter().filter(is_silent).map(|replica| replica.node).collect()
    }

    /// Enough of its voters answer to agree on anything.
    pub fn has_majority(&self) -> bool {
        let voters = self.members.voters.len();
        voters - self.silent_voters().len() > voters / 2
    }

    /// How many entries a replica has still to apply of those that somebody knows chosen.
    pub fn lag(&self, replica: &Replica<'_>) -> Option<u64> {
        let chosen = self.statuses().map(|status| status.chosen.0).max()?;
        Some(chosen.saturating_sub(replica.status?.applied.0))
    }

    fn statuses(&self) -> impl Iterator<Item = &'s GroupStatus> {
        self.replicas.iter().filter_map(|replica| replica.status)
    }
}

/// Whether a replica that thinks it leads does: its lease has not ended by its own clock. While a
/// group sleeps, its lease is kept with those of others, and the group does not know of it.
fn leads(status: &GroupStatus, now: Option<Interval>) -> bool {
    let Some(end) = status.lease_end else { return false };
    status.asleep || now.is_some_and(|now| end > now.latest())
}

fn role(members: &Members, node: NodeId) -> Role {
    if members.witnesses.contains(&node) {
        Role::Witness
    } else if members.voters.contains(&node) {
        Role::Voter
    } else if members.learners.contains(&node) {
        Role::Learner
    } else {
        Role::Outside
    }
}
