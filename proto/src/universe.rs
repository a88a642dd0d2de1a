//! Where things are: nodes, zones, groups and their replicas (S4). Kept by the root group, cached by
//! nodes and clients, corrected by `StaleRoute`.
//!
//! The paper's universe master, zonemasters and location proxies are roles, not programs, here: the
//! leader of the root group keeps [`UniverseMap`] and hears of every node; every node answers with
//! the copy it has; nobody asks for a location on the way of a transaction.

use crate::ids::{GroupId, NodeId};
use crate::request::Members;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use truetime::Timestamp;

/// Where a group is, and since when (X12).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Descriptor {
    /// The group.
    pub group: GroupId,
    /// Grows with every change of the group's members: the slot of the log in which it stands; 0 for
    /// those it was founded with.
    pub generation: u64,
    /// Who has a replica.
    pub members: Members,
}

impl Descriptor {
    /// The nodes that can be asked: all members that keep a tablet, voters first.
    pub fn nodes(&self) -> Vec<NodeId> {
        let Members { voters, witnesses, learners } = &self.members;
        let voters = voters.iter().filter(|node| !witnesses.contains(node));
        voters.chain(learners).copied().collect()
    }
}

/// What is meant to become of a node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum NodeState {
    /// It has replicas, and leads.
    #[default]
    Active,
    /// It keeps its replicas, and leads nothing: it is about to stop.
    Draining,
    /// It is gone for good; its number is never used again (P9).
    Removed,
}

/// A node, as the root group knows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeInfo {
    /// Its number.
    pub node: NodeId,
    /// Of its data folder, drawn at random when that was made: a node that comes back without it
    /// has lost its disk, and is another node (P9).
    pub instance: String,
    /// Where others reach it, `host:port`.
    pub address: String,
    /// The zone it stands in: what fails together.
    pub zone: String,
    /// What is meant to become of it.
    pub state: NodeState,
    /// Who takes the place of one that is removed; `None`: whoever fits.
    pub replaced_by: Option<NodeId>,
    /// Which boot of which host it runs on; where its clock is the host's own, also what that showed
    /// when it was read first. Equal for nodes that go by the same time.
    pub host: String,
    /// Its clock's provider: one that is right on one host only must not meet another host (T6).
    pub clock: String,
}

/// What was chosen when a universe was made; never changes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Founding {
    /// Tells universes apart: 16 hexadecimal digits.
    pub cluster: String,
    /// Data groups, besides the root group, over which directories are spread by their hash.
    pub data_groups: u32,
    /// Replicas each group is to have, where there are as many nodes.
    pub replicas: u32,
    /// How far back versions are kept, in seconds.
    pub retention_s: u64,
}

/// The universe as of one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct UniverseMap {
    /// The timestamp of the newest of the root group's rows that it was made of.
    pub version: Timestamp,
    /// What was chosen when it was made.
    pub founding: Founding,
    /// Every node that ever joined.
    pub nodes: BTreeMap<NodeId, NodeInfo>,
    /// Every group.
    pub groups: BTreeMap<GroupId, Descriptor>,
}
