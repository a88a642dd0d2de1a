//! # Placement: which replicas go where
//!
//! The leader of the root group calls [`plan`] again and again with what it knows ([`Situation`]),
//! and carries out what comes back ([`Step`]): it proposes, the groups decide (S4). Each plan is made
//! anew from what is there, so nothing is lost when the leader changes, and a step that failed is
//! simply planned once more.
//!
//! ```text
//!   nodes: zone, state, alive ─┐
//!   groups: members, leader  ──┼──► plan ──► Members { g3: n1 n2 n4 }   learner, joint change (P9)
//!   under way: groups        ──┘             Lead    { g7: n2 }         transfer (P10)
//! ```
//!
//! - A group is to have as many voters as the universe was founded for, or the largest odd number of
//!   nodes there are: a second replica without a third only adds a way to stop.
//! - Voters stand in different zones where there are enough, then on the nodes with the fewest
//!   replicas.
//! - A node that was given up ([`NodeState::Removed`]) is replaced, in one change of its group, by
//!   the node that was named for it, or by the fittest. Nothing is taken from a group whose place
//!   nobody can take.
//! - Leaderships leave nodes that drain; the others lead equally many groups, give or take one.
//! - A group of which a change is under way is left alone, and so is one that nobody leads; only so
//!   many are changed at a time, those first with which that has not failed before.
//!
//! ## What is absent, on purpose
//! No clock and no socket: who is alive is an argument. Wishes of tables and directories, splits,
//! merges and moves are not built yet; a node that is dead and not given up keeps its place.

#![deny(clippy::disallowed_types, clippy::disallowed_methods)]

use proto::request::Members;
use proto::universe::NodeState;
use proto::{GroupId, NodeId};
use std::collections::{BTreeMap, BTreeSet};

/// Changes of members under way at a time, over all groups.
pub const CHANGES_MAX: usize = 16;
/// Leaderships moved by one plan.
const MOVES_MAX: usize = 4;

/// A node, as far as placement is concerned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// What fails together.
    pub zone: String,
    /// What is meant to become of it.
    pub state: NodeState,
    /// It was heard of lately, and knows the time.
    pub alive: bool,
    /// Who is to take its place, once it is removed.
    pub replaced_by: Option<NodeId>,
}

/// A group, as far as placement is concerned.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Group {
    /// Who has replicas.
    pub members: Members,
    /// Who leads; `None`: unknown.
    pub leader: Option<NodeId>,
    /// A change of it is under way: nothing else is begun.
    pub changing: bool,
    /// How often a change was begun in vain.
    pub tried: u32,
}

/// What is known.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Situation {
    /// Voters that each group is to have.
    pub replicas: u32,
    /// Every node that ever joined.
    pub nodes: BTreeMap<NodeId, Node>,
    /// Every group.
    pub groups: BTreeMap<GroupId, Group>,
}

/// Something to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// These are to be the members of the group.
    Members(GroupId, Members),
    /// The leadership of the group is to go to this node.
    Lead(GroupId, NodeId),
}

/// What to do next; nothing, when all is as it should be or cannot be made better.
pub fn plan(situation: &Situation) -> Vec<Step> {
    let mut steps = Vec::new();
    let mut load = Load::new(situation);
    let under_way = situation.groups.values().filter(|group| group.changing).count();
    let mut room = CHANGES_MAX.saturating_sub(under_way);
    // Those that could not be changed come last: they must not keep the others waiting.
    let mut able: Vec<_> = situation.groups.iter().filter(|(_, g)| !g.changing).collect();
    able.sort_by_key(|(id, group)| (group.tried, **id));
    for (id, group) in able.into_iter().filter(|(_, group)| group.leader.is_some()) {
        if room == 0 {
            break;
        }
        if let Some(members) = wanted(situation, &load, group) {
            load.replace(&group.members, &members);
            steps.push(Step::Members(*id, members));
            room -= 1;
        }
    }
    let changed: BTreeSet<GroupId> = steps.iter().map(Step::group).collect();
    steps.extend(leaders(situation, &changed));
    steps
}

impl Step {
    /// Of which group.
    pub fn group(&self) -> GroupId {
        match self {
            Step::Members(group, _) | Step::Lead(group, _) => *group,
        }
    }
}

/// How many replicas each node has, those included that are on their way.
struct Load(BTreeMap<NodeId, usize>);

impl Load {
    fn new(situation: &Situation) -> Load {
        let mut load = Load(BTreeMap::new());
        for group in situation.groups.values() {
            for node in &group.members.voters {
                *load.0.entry(*node).or_default() += 1;
            }
        }
        load
    }

    fn of(&self, node: NodeId) -> usize {
        self.0.get(&node).copied().unwrap_or(0)
    }

    fn replace(&mut self, old: &Members, new: &Members) {
        for node in new.voters.difference(&old.voters) {
            *self.0.entry(*node).or_default() += 1;
        }
        for node in old.voters.difference(&new.voters) {
            *self.0.entry(*node).or_default() -= 1;
        }
    }
}

/// The members a group should have, if they are others than it has.
fn wanted(situation: &Situation, load: &Load, group: &Group) -> Option<Members> {
    let given_up = |node: &NodeId| {
        situation.nodes.get(node).is_some_and(|node| node.state == NodeState::Removed)
    };
    let (lost, kept): (BTreeSet<NodeId>, BTreeSet<NodeId>) =
        group.members.voters.iter().partition(|node| given_up(node));
    let fit = situation.nodes.values().filter(|node| node.alive && node.state == NodeState::Active);
    let goal = target(situation.replicas as usize, fit.count().max(kept.len()));
    let mut voters = kept.clone();
    for node in &lost {
        let named = situation.nodes.get(node).and_then(|node| node.replaced_by);
        let named = named.filter(|node| is_fit(situation, *node) && !voters.contains(node));
        if let Some(node) = named.or_else(|| fittest(situation, load, group, &voters)) {
            voters.insert(node);
        } else {
            voters.insert(*node); // nobody can take its place yet
        }
    }
    while voters.len() < goal
        && let Some(node) = fittest(situation, load, group, &voters)
    {
        voters.insert(node);
    }
    if voters.len() > group.members.voters.len() && voters.len().is_multiple_of(2) {
        return None; // an even number is no better than one less: wait for one more
    }
    let members = Members { voters, ..Members::default() };
    let same = members.voters == group.members.voters && group.members.learners.is_empty();
    (!same && members.witnesses == group.members.witnesses).then_some(members)
}

/// The largest odd number of voters up to `replicas` that so many nodes can carry.
fn target(replicas: usize, nodes: usize) -> usize {
    let most = replicas.min(nodes).max(1);
    if most.is_multiple_of(2) { most - 1 } else { most }
}

fn is_fit(situation: &Situation, node: NodeId) -> bool {
    let node = situation.nodes.get(&node);
    node.is_some_and(|node| node.alive && node.state == NodeState::Active)
}

/// Who should have the next replica of a group: a learner that is there already, a zone with the
/// fewest of its voters, the fewest replicas, the lowest number.
fn fittest(
    situation: &Situation,
    load: &Load,
    group: &Group,
    voters: &BTreeSet<NodeId>,
) -> Option<NodeId> {
    let in_zone = |zone: &str| {
        let zone_of = |node: &NodeId| situation.nodes.get(node).map(|node| node.zone.as_str());
        voters.iter().filter(|node| zone_of(node) == Some(zone)).count()
    };
    let fit = situation.nodes.iter().filter(|(id, _)| is_fit(situation, **id));
    let free = fit.filter(|(id, _)| !voters.contains(*id) && !group.members.voters.contains(*id));
    free.min_by_key(|(id, node)| {
        (in_zone(&node.zone), !group.members.learners.contains(*id), load.of(**id), **id)
    })
    .map(|(id, _)| *id)
}

/// Leaderships that should be elsewhere.
fn leaders(situation: &Situation, changed: &BTreeSet<GroupId>) -> Vec<Step> {
    let mut leads: BTreeMap<NodeId, usize> = BTreeMap::new();
    for (id, _) in situation.nodes.iter().filter(|(id, _)| is_fit(situation, **id)) {
        leads.insert(*id, 0);
    }
    for leader in situation.groups.values().filter_map(|group| group.leader) {
        *leads.entry(leader).or_default() += 1;
    }
    let mut steps = Vec::new();
    for (id, group) in &situation.groups {
        if steps.len() >= MOVES_MAX {
            break;
        }
        let Some(leader) = group.leader.filter(|_| !group.changing && !changed.contains(id)) else {
            continue;
        };
        let Members { voters, witnesses, .. } = &group.members;
        let able = voters.difference(witnesses).filter(|node| is_fit(situation, **node));
        let Some(to) = able.min_by_key(|node| (leads.get(*node).copied(), **node)) else {
            continue;
        };
        let count = |node: NodeId| leads.get(&node).copied().unwrap_or(0);
        let leaves = situation.nodes.get(&leader).is_some_and(|n| n.state != NodeState::Active);
        if *to != leader && (leaves || count(leader) > count(*to) + 1) {
            *leads.entry(leader).or_default() -= 1;
            *leads.entry(*to).or_default() += 1;
            steps.push(Step::Lead(*id, *to));
        }
    }
    steps
}

#[cfg(test)]
mod tests;
