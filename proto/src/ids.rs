//! Names of things.

use serde::{Deserialize, Serialize};
use std::fmt;

macro_rules! short_debug {
    ($name:ident) => {
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }
    };
}

/// A server process. Never reused for another disk (P9). Prints as `n3`.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct NodeId(pub u32);

/// Which life of a node's replica of one group is meant: drawn at random when its disk is blank, so
/// a replica that lost its disk, or was removed and comes back, never answers for the one before
/// it (P9). Prints as `r5f`.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Seat(pub u64);

impl Seat {
    /// The seat of every replica that a group is founded with.
    pub const FOUNDER: Seat = Seat(1);
}

/// A Paxos group. `g0` is the root group. Prints as `g17`.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct GroupId(pub u32);

impl GroupId {
    /// The root group: catalog and universe-wide state (S4).
    pub const ROOT: GroupId = GroupId(0);
}

/// A position in a group's log; the first is 1. Slot 0 is "before the log". Prints as `#12`.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Slot(pub u64);

impl Slot {
    /// Before the first slot.
    pub const ZERO: Slot = Slot(0);

    /// The following slot.
    #[must_use]
    pub fn next(self) -> Slot {
        Slot(self.0.checked_add(1).expect("slots do not run out"))
    }

    /// The slot before this; slot 0 has none and stays.
    #[must_use]
    pub fn prev(self) -> Slot {
        Slot(self.0.saturating_sub(1))
    }
}

/// A ballot: ordered by round, then by node, so two nodes never own the same. The default is
/// smaller than any real ballot. Prints as `b4.n2`.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Ballot {
    /// Grows with every election.
    pub round: u64,
    /// Who leads in this ballot.
    pub node: NodeId,
}

/// A transaction *attempt*. A retry of an aborted transaction has a new id and keeps its age
/// (X2). Prints as `t5.12`.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct TxnId {
    /// Which client; unique per client instance (drawn at random when it starts).
    pub client: u64,
    /// Counts the client's attempts.
    pub seq: u64,
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "n{}", self.0)
    }
}

impl fmt::Display for Seat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "r{:x}", self.0)
    }
}

impl fmt::Display for GroupId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "g{}", self.0)
    }
}

impl fmt::Display for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "#{}", self.0)
    }
}

impl fmt::Display for Ballot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "b{}.{}", self.round, self.node)
    }
}

impl fmt::Display for TxnId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "t{:x}.{}", self.client, self.seq)
    }
}

short_debug!(NodeId);
short_debug!(Seat);
short_debug!(GroupId);
short_debug!(Slot);
short_debug!(Ballot);
short_debug!(TxnId);
