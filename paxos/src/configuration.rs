//! Who belongs to a group (P9).
//!
//! ```text
//!   simple    voters {1,2,3}                      learners {4}
//!   joint     voters {1,2,4}  outgoing {1,2,3}    a quorum: a majority of both
//!   simple    voters {1,2,4}                      n3 is gone
//! ```
//!
//! A configuration is an entry of the log and counts from the moment it is appended, chosen or not;
//! it disappears with the entry if that is cut off.

use crate::quorum::jointly_reached;
use proto::{NodeId, Seat};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// A replica that belongs to the group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Member {
    /// Which life of the node's replica; answers of another one do not count.
    pub seat: Seat,
    /// Keeps the log and votes, but no tablet: it cannot serve, only help others to.
    pub witness: bool,
}

/// The members of a group, and whose answers make a quorum.
///
/// Invariants ([`check`](Self::check)): voters and outgoing voters are members; there is at least
/// one voter that is no witness. The default has no members: what a replica knows that belongs to
/// no group yet.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Configuration {
    /// Everybody. Members that are neither voters nor outgoing are *learners*: they receive the
    /// log and count for nothing.
    pub members: BTreeMap<NodeId, Member>,
    /// The voters; while joint, the future ones.
    pub voters: BTreeSet<NodeId>,
    /// While joint, the voters before the change; else empty.
    pub outgoing: BTreeSet<NodeId>,
}

impl Configuration {
    /// What a group is founded with.
    pub fn founding(voters: impl IntoIterator<Item = NodeId>) -> Configuration {
        let founder = Member { seat: Seat::FOUNDER, witness: false };
        let members: BTreeMap<_, _> = voters.into_iter().map(|node| (node, founder)).collect();
        let voters = members.keys().copied().collect();
        Configuration { members, voters, outgoing: BTreeSet::new() }
    }

    /// Between two sets of voters.
    pub fn is_joint(&self) -> bool {
        !self.outgoing.is_empty()
    }

    /// Whether the node's answers count.
    pub fn is_voter(&self, node: NodeId) -> bool {
        self.voters.contains(&node) || self.outgoing.contains(&node)
    }

    /// Whether this life of the node's replica belongs to the group.
    pub fn has(&self, node: NodeId, seat: Seat) -> bool {
        self.members.get(&node).is_some_and(|member| member.seat == seat)
    }

    /// Whether the node keeps no tablet.
    pub fn is_witness(&self, node: NodeId) -> bool {
        self.members.get(&node).is_some_and(|member| member.witness)
    }

    /// The members that are no voters.
    pub fn learners(&self) -> impl Iterator<Item = NodeId> {
        self.members.keys().copied().filter(|node| !self.is_voter(*node))
    }

    /// The largest value that a quorum has reached.
    pub fn reached<T: Ord + Copy>(&self, value: impl Fn(NodeId) -> T) -> T {
        jointly_reached(&self.voters, &self.outgoing, value)
    }

    /// Whether those who said yes are a quorum.
    pub fn is_quorum(&self, yes: impl Fn(NodeId) -> bool) -> bool {
        !self.voters.is_empty() && self.reached(yes)
    }

    /// Whether one voter at most would come or go: then majorities before and after always share
    /// a node, and no joint step is needed.
    pub fn differs_by_one(&self, voters: &BTreeSet<NodeId>) -> bool {
        self.voters.symmetric_difference(voters).count() <= 1
    }

    /// Whether the invariants hold.
    pub fn is_sound(&self) -> bool {
        let members = self.voters.union(&self.outgoing).all(|node| self.members.contains_key(node));
        members && self.voters.iter().any(|node| !self.is_witness(*node))
    }

    /// Asserts the invariants, wherever a configuration comes into force.
    pub fn check(&self) {
        assert!(self.is_sound(), "P9: strangers vote, or nobody with a tablet: {self}");
    }
}

/// `voters n1 n2 n3, outgoing n1 n2, learners n4`; a witness has a `w` behind it.
impl fmt::Display for Configuration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let learners: Vec<NodeId> = self.learners().collect();
        let parts: [(&str, Vec<NodeId>); 3] = [
            ("voters", self.voters.iter().copied().collect()),
            (", outgoing", self.outgoing.iter().copied().collect()),
            (", learners", learners),
        ];
        for (name, nodes) in parts {
            if nodes.is_empty() {
                continue;
            }
            f.write_str(name)?;
            for node in nodes {
                let witness = if self.is_witness(node) { "w" } else { "" };
                write!(f, " {node}{witness}")?;
            }
        }
        if self.members.is_empty() { f.write_str("nobody") } else { Ok(()) }
    }
}

/// What a group's membership is to become.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wanted {
    /// The voters.
    pub voters: BTreeSet<NodeId>,
    /// Which of the voters keep no tablet. What a member is, it stays: to change it, remove it
    /// first.
    pub witnesses: BTreeSet<NodeId>,
    /// The learners.
    pub learners: BTreeSet<NodeId>,
}

impl Wanted {
    /// These voters, all with a tablet, and nobody else.
    pub fn voters(nodes: impl IntoIterator<Item = NodeId>) -> Wanted {
        Wanted { voters: nodes.into_iter().collect(), ..Wanted::default() }
    }

    /// Whether the group could go there from `now`.
    ///
    /// # Errors
    /// Says what cannot be.
    pub fn validate(&self, now: &Configuration) -> Result<(), String> {
        if let Some(node) = self.voters.intersection(&self.learners).next() {
            return Err(format!("{node} cannot be voter and learner at once"));
        }
        if let Some(node) = self.witnesses.difference(&self.voters).next() {
            return Err(format!("{node} is named as a witness but not as a voter"));
        }
        if self.voters.difference(&self.witnesses).next().is_none() {
            return Err("a group needs a voter that keeps a tablet".into());
        }
        if let Some(node) = self.learners.iter().find(|node| now.is_voter(**node)) {
            return Err(format!("{node} is a voter: remove it before it comes back as a learner"));
        }
        for (node, member) in &now.members {
            let stays = self.voters.contains(node);
            if stays && self.witnesses.contains(node) != member.witness {
                return Err(format!("{node} cannot change what it keeps: remove it first"));
            }
        }
        Ok(())
    }

    /// Everybody who is to belong to the group.
    pub fn everyone(&self) -> BTreeSet<NodeId> {
        self.voters.union(&self.learners).copied().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nodes(of: &[u32]) -> BTreeSet<NodeId> {
        of.iter().copied().map(NodeId).collect()
    }

    #[test]
    fn a_joint_quorum_needs_both_majorities() {
        let mut c = Configuration::founding((1..=5).map(NodeId));
        c.outgoing = nodes(&[1, 2, 3]);
        c.voters = nodes(&[3, 4, 5]);
        let quorum = |of: &[u32]| {
            let yes = nodes(of);
            c.is_quorum(|node| yes.contains(&node))
        };
        assert!(quorum(&[2, 3, 4]));
        assert!(!quorum(&[1, 2, 3]));
        assert!(!quorum(&[3, 4, 5]));
        assert!(!Configuration::default().is_quorum(|_| true), "nobody is no quorum");
    }

    #[test]
    fn what_cannot_be_wanted_is_refused() {
        let now = Configuration::founding((1..=3).map(NodeId));
        let wanted = |v: &[u32], w: &[u32], l: &[u32]| {
            Wanted { voters: nodes(v), witnesses: nodes(w), learners: nodes(l) }.validate(&now)
        };
        assert!(wanted(&[1, 2, 4], &[4], &[5]).is_ok());
        for (v, w, l) in [
            (&[1, 2][..], &[][..], &[2][..]),
            (&[1], &[2], &[]),
            (&[4], &[4], &[]),
            (&[], &[], &[]),
            (&[1, 2], &[], &[3]),
            (&[1, 2, 3], &[3], &[]),
        ] {
            assert!(wanted(v, w, l).is_err(), "{v:?} {w:?} {l:?}");
        }
    }
}
