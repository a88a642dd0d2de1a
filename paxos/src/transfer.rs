//! Handing the leadership on (P10), with an early release of the lease.
//!
//! ```text
//!   leader          target                    voters
//!     │ stops admitting requests
//!     │ Accept ... ──▶ level, and all of it applied here
//!     │ waits until after(s_max)  (L5, the caller)
//!     │ TimeoutNow ──▶ campaigns at once: Prepare(released) ──▶ promise, though the vote still runs
//!     │ Release ───────────────────────────────────────────────▶ free, should the target be dead
//! ```
//! A target that does not get level within one election time-out is given up: the leader goes on.

use crate::message::{Message, Output};
use crate::replica::{Replica, Role};
use proto::{Ballot, NodeId};
use truetime::{Interval, Timestamp};

/// A leadership on its way to another node.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Transfer {
    pub to: NodeId,
    /// Then the leader gives up handing over.
    give_up_after: Timestamp,
}

impl Replica {
    /// Begins to hand the leadership to a voter. From now on [`admits`](Self::admits) is false;
    /// once [`may_hand_over`](Self::may_hand_over), the caller hands over, or time ends it.
    ///
    /// # Errors
    /// Says why not.
    pub fn transfer(&mut self, now: Interval, to: NodeId) -> Result<(), String> {
        let configuration = &self.acceptor.log.configuration().1;
        let fit = configuration.voters.contains(&to) && !configuration.is_witness(to);
        let give_up_us = (self.config.lease_ms + self.config.election_jitter_ms) * 1_000;
        let me = self.config.node;
        let Role::Leader(leading) = &mut self.role else {
            return Err(format!("{me} does not lead"));
        };
        if to == me {
            return Err(format!("{to} leads already"));
        }
        if !fit {
            return Err(format!("{to} cannot lead: it is no voter with a tablet"));
        }
        if leading.transfer.is_some() {
            return Err("a transfer is under way".into());
        }
        let give_up_after = now.latest().plus_micros(give_up_us);
        leading.transfer = Some(Transfer { to, give_up_after });
        self.wake(now);
        Ok(())
    }

    /// Whether the target has everything, and this replica has applied all it proposed.
    pub fn may_hand_over(&self) -> bool {
        let Role::Leader(leading) = &self.role else { return false };
        let Some(transfer) = &leading.transfer else { return false };
        let last = self.acceptor.log.last_slot();
        let level = leading.peers.get(&transfer.to).is_some_and(|peer| peer.accepted == last);
        level && self.applied == last
    }

    /// Gives the lease up and tells the target to campaign. The caller has seen to L5: it serves
    /// nobody any more, and every timestamp it handed out has passed.
    pub fn hand_over(&mut self, now: Interval, out: &mut Output) {
        assert!(self.may_hand_over(), "P10: the target is not level");
        let Role::Leader(leading) = &self.role else { return };
        let (ballot, to) = (leading.ballot, leading.transfer.map(|transfer| transfer.to));
        for peer in self.peers() {
            let message = match Some(peer) == to {
                true => Message::TimeoutNow { ballot },
                false => Message::Release { ballot },
            };
            out.send.push((peer, message));
        }
        self.follow(now, None, out);
        self.acceptor.vote.release(ballot, self.acceptor.hard.vote);
        // The target first: what is in the way of its campaign is another one.
        self.election_at = now.latest().plus_micros(self.config.lease_ms * 1_000);
    }

    /// Whether a transfer is under way.
    pub fn transferring(&self) -> Option<NodeId> {
        match &self.role {
            Role::Leader(leading) => leading.transfer.map(|transfer| transfer.to),
            _ => None,
        }
    }

    /// Gives up a transfer that takes too long; begins one from a leader that is not to lead: a
    /// witness, which does so only until somebody with a tablet can, or one that is no voter any
    /// more.
    pub(crate) fn tick_transfer(&mut self, now: Interval) {
        let (at, configuration) = self.acceptor.log.configuration();
        let gone = !configuration.is_voter(self.config.node) && at.slot <= self.applied;
        let witness = self.is_witness();
        let Role::Leader(leading) = &mut self.role else { return };
        if leading.transfer.is_some_and(|transfer| now.after(transfer.give_up_after)) {
            leading.transfer = None;
        }
        if leading.transfer.is_some() || !(witness || gone) {
            return;
        }
        let fit =
            |node: &NodeId| configuration.voters.contains(node) && !configuration.is_witness(*node);
        let candidates = leading.peers.iter().filter(|(node, _)| fit(node));
        if let Some((to, _)) = candidates.max_by_key(|(_, peer)| (peer.accepted, peer.heard)) {
            let to = *to;
            let _ = self.transfer(now, to);
        }
    }

    pub(crate) fn on_release(&mut self, now: Interval, ballot: Ballot) {
        self.acceptor.vote.release(ballot, self.acceptor.hard.vote);
        if ballot == self.acceptor.hard.promised && matches!(self.role, Role::Follower) {
            // Should the successor be dead; it has a head start of two heartbeats.
            self.asleep = false;
            self.reset_election_timer(now);
            let start_us = 2 * self.config.heartbeat_ms * 1_000;
            self.election_at = self.election_at.plus_micros(start_us);
        }
    }

    pub(crate) fn on_timeout_now(&mut self, now: Interval, ballot: Ballot, out: &mut Output) {
        let current = ballot == self.acceptor.hard.promised && ballot.node != self.config.node;
        if current && self.may_campaign() && matches!(self.role, Role::Follower) {
            self.campaign(now, Some(ballot), out);
        }
    }
}
