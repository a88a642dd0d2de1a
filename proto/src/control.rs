//! What is said about the universe itself: between nodes and the root group's leader, by clients that
//! look for places, and by whoever operates it.

use crate::ids::{GroupId, NodeId};
use crate::request::GroupStatus;
use crate::universe::{Descriptor, NodeInfo, UniverseMap};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use truetime::{Interval, Timestamp};

/// A question or an order. Every node answers those marked *any*; the others are for the leader of
/// the root group, and elsewhere answered with `NotLeader`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ControlRequest {
    /// *Any.* Where is everything? The answer is the copy of whoever is asked.
    Map,
    /// *Any.* What time is it? For clients without a bound of their own.
    Now,
    /// *Any.* How is the node that is asked?
    Node,
    /// *Any.* Every group at the node that is asked.
    Groups,
    /// *Any.* Who holds and waits for locks in a group, at the node that is asked, as text.
    Locks(GroupId),
    /// *Any.* Let the messages and calls to other nodes suffer; replaces what was said before. Only
    /// where the server was started with `--allow-faults`.
    Faults(Vec<LinkFault>),
    /// *Any.* Change what is wrong with the node's simulated clock, in the words of `\clock`. Only
    /// where the server was started with `--allow-faults`.
    Clock(String),
    /// May I come in? From a node that is new, or that comes back.
    Join(JoinRequest),
    /// I am here; every second or so.
    Heartbeat(Heartbeat),
    /// Take the leaderships from a node, and give it none from now on; `false`: it may lead again.
    Drain {
        /// Which.
        node: NodeId,
        /// Whether it drains.
        on: bool,
    },
    /// A node is lost for good: its replicas go to another, or to whoever has room.
    Replace {
        /// The lost one.
        lost: NodeId,
        /// Who takes its place; `None`: whoever fits.
        by: Option<NodeId>,
    },
    /// Hand the leadership of a group to a node (P10).
    MoveLeader {
        /// The group.
        group: GroupId,
        /// The node.
        to: NodeId,
    },
}

/// The answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ControlReply {
    /// To `Map`, and to `Heartbeat` where the sender's copy is old.
    Map(Box<UniverseMap>),
    /// To `Now`.
    Now(Interval),
    /// To `Node`.
    Node(Box<NodeReport>),
    /// To `Groups`.
    Groups(Vec<GroupStatus>),
    /// To `Locks`.
    Locks(String),
    /// To `Join`: welcome.
    Joined(Box<Joined>),
    /// To `Join` and `Heartbeat`: this universe does not take the node, and never will as it is.
    Refused {
        /// Which universe says so.
        cluster: String,
        /// Why, for people.
        reason: String,
    },
    /// Done, or begun: `Node`, `Groups` and `Map` tell how it goes.
    Done,
}

/// See [`ControlRequest::Join`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JoinRequest {
    /// Who comes; its state is not looked at.
    pub info: NodeInfo,
    /// Of which universe its folder is, if of any.
    pub cluster: Option<String>,
}

/// See [`ControlReply::Joined`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Joined {
    /// Where everything is.
    pub map: UniverseMap,
    /// The key that seals certificates, in hexadecimal (X13).
    pub certificate_key: String,
}

/// See [`ControlRequest::Heartbeat`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Heartbeat {
    /// Of which universe.
    pub cluster: String,
    /// Who.
    pub node: NodeId,
    /// Of its data folder.
    pub instance: String,
    /// Where it is reached now.
    pub address: String,
    /// The version of its copy of the map.
    pub version: Timestamp,
    /// Groups it leads whose descriptor differs from its copy of the map.
    pub changed: Vec<Descriptor>,
    /// The groups it leads.
    pub leads: Vec<GroupId>,
    /// It has a bound on its clock (T5).
    pub has_time: bool,
    /// It is about to stop, and wants to lead nothing.
    pub stopping: bool,
}

/// How a node is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeReport {
    /// Which.
    pub node: NodeId,
    /// Where it is reached.
    pub address: String,
    /// Its zone.
    pub zone: String,
    /// Version of the program.
    pub program: String,
    /// Since when it runs, in milliseconds.
    pub up_ms: u64,
    /// Its clock's provider and status.
    pub clock: String,
    /// ε now, in microseconds; `None`: no bound (T5).
    pub epsilon_us: Option<u64>,
    /// Replicas of groups that it has.
    pub replicas: u32,
    /// Groups that it leads under a valid lease.
    pub leads: u32,
    /// Bytes its storage takes.
    pub disk_bytes: u64,
    /// Bytes free where its storage is; 0 where that is not known.
    pub disk_free_bytes: u64,
    /// Memory of the process, in bytes; 0 where that is not known.
    pub memory_bytes: u64,
    /// Syncs of its log since the start.
    pub syncs: u64,
    /// Requests of clients it works on.
    pub in_flight: u64,
    /// The other nodes, as it sees them.
    pub peers: BTreeMap<NodeId, PeerReport>,
}

/// A link to another node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerReport {
    /// There is a link now.
    pub connected: bool,
    /// Messages sent and received since the start.
    pub sent: u64,
    /// See `sent`.
    pub received: u64,
    /// Messages that found no place in the queue, or no link.
    pub dropped: u64,
    /// How often a link was made.
    pub connects: u64,
    /// Why there is none.
    pub error: String,
}

/// What goes wrong on the way to one node, on purpose. Probabilities are in thousandths.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LinkFault {
    /// To which node.
    pub to: NodeId,
    /// So many are lost; 1000: nothing arrives, not even a connection.
    pub drop_permille: u32,
    /// So many arrive twice.
    pub duplicate_permille: u32,
    /// So many arrive behind later ones.
    pub reorder_permille: u32,
    /// Each is held up for so long, in milliseconds.
    pub delay_ms: u32,
    /// And for up to so long more, at random.
    pub jitter_ms: u32,
}
