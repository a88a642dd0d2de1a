//! Groups that have nothing to do (P5: idle groups cost nothing).
//!
//! ```text
//!   leader                                       member
//!     │ all members level for two heartbeats        │
//!     │ Accept(sleep) ────────────────────────────▶ │ asleep: no timers
//!     │ ◀────────────────────── Accepted(asleep)    │
//!   all asleep: no heartbeats
//! ```
//! From then on the two *servers* keep the vote and the lease alive for all such groups at once, by
//! one beat for each pair of nodes: a beat that the member's server takes is as good as an accept
//! taken by each sleeping group ([`Replica::vouched`], [`Replica::extend_vote`]). Whoever has
//! something to say wakes the group by saying it; when beats stop, the servers wake it
//! ([`Replica::wake`]), and the usual timers run.

use crate::replica::{Replica, Role};
use proto::{Ballot, NodeId, Slot};
use truetime::{Interval, Timestamp};

/// Heartbeats without news before a leader asks its members to sleep.
const QUIET_HEARTBEATS: u32 = 2;

/// A group that is asleep at this replica.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asleep {
    /// The ballot under which it is led.
    pub ballot: Ballot,
    /// The end of the log, applied here; at the leader, by all members.
    pub level: Slot,
    /// The other members, at the leader; the leader alone, at a member.
    pub peers: Vec<NodeId>,
}

impl Replica {
    /// Whether the group's other parts have nothing under way, so that it may sleep.
    pub fn set_idle(&mut self, idle: bool) {
        self.idle = idle;
    }

    /// Whether the replica is asleep: it has no timers, and its server beats for it.
    pub fn asleep(&self) -> Option<Asleep> {
        let ballot = self.acceptor.hard.promised;
        let level = self.acceptor.log.last_slot();
        match &self.role {
            Role::Leader(leading) => {
                let all = !leading.peers.is_empty() && leading.peers.values().all(|p| p.asleep);
                let peers = || leading.peers.keys().copied().collect();
                all.then(|| Asleep { ballot, level, peers: peers() })
            }
            Role::Follower if self.asleep => {
                self.leader.map(|leader| Asleep { ballot, level, peers: vec![leader] })
            }
            _ => None,
        }
    }

    /// At the leader: this member's server (or the own one, with its disk) has taken a beat sent
    /// after `sent`, while the group was asleep on both sides (L2).
    pub fn vouched(&mut self, member: NodeId, sent: Timestamp) {
        if let Role::Leader(leading) = &mut self.role {
            leading.lease.count(member, sent);
        }
    }

    /// The server has granted its vote to the leader's server until then, for all groups that are
    /// asleep; that is on disk (L1).
    pub fn extend_vote(&mut self, until: Timestamp) {
        self.acceptor.extend(until);
    }

    /// Ends the sleep from outside: the usual timers run again.
    pub fn wake(&mut self, now: Interval) {
        self.asleep = false;
        match &mut self.role {
            Role::Leader(leading) => {
                leading.quiet = 0;
                leading.heartbeat_at = Timestamp::MIN;
                leading.peers.values_mut().for_each(|peer| peer.asleep = false);
            }
            _ => self.reset_election_timer(now),
        }
    }

    /// At a heartbeat of the leader: whether to ask the members to sleep.
    pub(crate) fn time_to_sleep(&mut self) -> bool {
        let last = self.acceptor.log.last_slot();
        let done = self.idle && self.applied == last;
        let Role::Leader(leading) = &mut self.role else { return false };
        let busy = leading.change.is_some() || leading.transfer.is_some();
        let level =
            leading.peers.values().all(|peer| peer.accepted == last && peer.applied == last);
        leading.quiet = if done && level && !busy { leading.quiet + 1 } else { 0 };
        leading.quiet > QUIET_HEARTBEATS
    }

    /// At a member: the leader has asked it to sleep, and its log is the leader's.
    pub(crate) fn fall_asleep(&mut self) -> bool {
        let last = self.acceptor.log.last_slot();
        self.asleep = self.applied == last && self.acceptor.held == last && self.leader.is_some();
        self.asleep
    }
}
