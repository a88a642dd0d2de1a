//! Changing who belongs to the group (P9): the leader's part.
//!
//! ```text
//!   wanted: n4 instead of n3
//!     Greet ─▶ n4, which names its seat
//!     learner    {1,2,3} + learner 4      chosen; then n4 catches up, in rounds
//!     joint      {1,2,4} and {1,2,3}      chosen by both majorities
//!     simple     {1,2,4}                  chosen; n3 is told that it is removed
//! ```
//! Where one voter only comes or goes, the joint step is left out: majorities before and after
//! share a node. Both ways rest on the same guards: one change at a time, and none before an entry
//! of the leader's own ballot is applied. A leader that finds itself in a joint configuration ends
//! it; one that finds anything less leaves it to whoever asked for it to ask again.

use crate::ballot::Position;
use crate::configuration::{Configuration, Member, Wanted};
use crate::message::{Invitation, Message, Output, Payload, Write};
use crate::progress::Progress;
use crate::replica::{Replica, Role};
use proto::plant::{Plant, planted};
use proto::{NodeId, Seat, Slot};
use std::collections::{BTreeMap, BTreeSet};
use truetime::{Interval, Timestamp};

/// Rounds in which a learner may catch up before it is taken as it is.
const ROUNDS_MAX: u32 = 10;
/// A change that has not got to its joint step after so many leases is given up.
const GIVE_UP_LEASES: u64 = 60;

/// A change under way.
#[derive(Clone, Debug)]
pub(crate) struct Change {
    wanted: Wanted,
    /// Seats of those who are to come, as they named them.
    seats: BTreeMap<NodeId, Seat>,
    /// Learners catch up to this slot, since then, for the how-manieth time.
    round: Option<(Slot, Timestamp, u32)>,
    give_up_after: Timestamp,
}

impl Replica {
    /// Begins to change the members. [`changing`](Self::changing) tells when it has ended,
    /// [`configuration`](Self::configuration) what has become of it.
    ///
    /// # Errors
    /// Says why not: not leading, not yet, another change is under way, or not possible.
    pub fn change(
        &mut self,
        now: Interval,
        wanted: Wanted,
        out: &mut Output,
    ) -> Result<(), String> {
        let (at, configuration) = self.acceptor.log.configuration().clone();
        let opened = self.opened() || planted(Plant::ConfigWithoutOwnBallot);
        let give_up_us = GIVE_UP_LEASES * self.config.lease_ms * 1_000;
        let chosen = self.chosen;
        let Role::Leader(leading) = &mut self.role else {
            return Err(format!("{} does not lead", self.config.node));
        };
        wanted.validate(&configuration)?;
        if !opened {
            return Err("this leader has not opened its ballot yet: try again".into());
        }
        if leading.change.is_some() || configuration.is_joint() || at.slot > chosen {
            return Err("another change is under way".into());
        }
        if leading.transfer.is_some() {
            return Err("the leadership is being handed over".into());
        }
        leading.change = Some(Change {
            wanted,
            seats: BTreeMap::new(),
            round: None,
            give_up_after: now.latest().plus_micros(give_up_us),
        });
        self.wake(now);
        self.greet(out);
        self.drive_change(now, out);
        Ok(())
    }

    /// Whether a change is under way here.
    pub fn changing(&self) -> bool {
        let joint = self.acceptor.log.configuration().1.is_joint();
        matches!(&self.role, Role::Leader(leading) if joint || leading.change.is_some())
    }

    /// Takes the next step of a change, if it is time for one.
    pub(crate) fn drive_change(&mut self, now: Interval, out: &mut Output) {
        if !self.changing() {
            return; // as nearly always
        }
        let (at, configuration) = self.acceptor.log.configuration().clone();
        let opened = self.opened() || planted(Plant::ConfigWithoutOwnBallot);
        let Role::Leader(leading) = &mut self.role else { return };
        if at.slot > self.chosen || !opened {
            return; // one step at a time, and not before the ballot is open
        }
        if configuration.is_joint() {
            return self.leave_joint(now, configuration, out);
        }
        let Some(change) = &mut leading.change else { return };
        let everyone = change.wanted.everyone();
        let done = everyone.iter().eq(configuration.members.keys())
            && change.wanted.voters == configuration.voters;
        if done || now.after(change.give_up_after) {
            leading.change = None;
            return;
        }
        let strangers = everyone.iter().filter(|node| !configuration.members.contains_key(node));
        let strangers: Vec<NodeId> = strangers.copied().collect();
        if strangers.iter().any(|node| !change.seats.contains_key(node)) {
            return; // greeted at every heartbeat
        }
        if !strangers.is_empty() {
            return self.add_learners(now, configuration, &strangers, out);
        }
        if self.caught_up(now) {
            self.change_voters(now, configuration, out);
        }
    }

    /// Asks those who are to come for their seats; again at every heartbeat.
    pub(crate) fn greet(&mut self, out: &mut Output) {
        let (at, configuration) = self.acceptor.log.configuration();
        let Role::Leader(leading) = &self.role else { return };
        let Some(change) = &leading.change else { return };
        for node in change.wanted.everyone() {
            if !configuration.members.contains_key(&node) && !change.seats.contains_key(&node) {
                let invitation = Invitation { ballot: leading.ballot, at: *at };
                out.send.push((node, Message::Greet { invitation }));
            }
        }
    }

    pub(crate) fn on_greeted(
        &mut self,
        now: Interval,
        from: NodeId,
        seat: Seat,
        invitation: Invitation,
        out: &mut Output,
    ) {
        let (at, configuration) = self.acceptor.log.configuration();
        let current = |ballot| invitation == Invitation { ballot, at: *at };
        let stranger = !configuration.members.contains_key(&from);
        let Role::Leader(leading) = &mut self.role else { return };
        let Some(change) = &mut leading.change else { return };
        if current(leading.ballot) && stranger && change.wanted.everyone().contains(&from) {
            change.seats.insert(from, seat);
            self.drive_change(now, out);
        }
    }

    fn add_learners(
        &mut self,
        now: Interval,
        mut configuration: Configuration,
        strangers: &[NodeId],
        out: &mut Output,
    ) {
        let Role::Leader(leading) = &self.role else { return };
        let Some(change) = &leading.change else { return };
        for node in strangers {
            let witness = change.wanted.witnesses.contains(node);
            let Some(seat) = change.seats.get(node) else { return };
            configuration.members.insert(*node, Member { seat: *seat, witness });
        }
        self.configure(now, configuration, out);
    }

    /// Whether the voters to be have the log. They are given rounds: each ends where the log did
    /// when it began, so a round that was short leaves little to catch up.
    fn caught_up(&mut self, now: Interval) -> bool {
        let last = self.acceptor.log.last_slot();
        let short_us = self.config.lease_ms * 1_000 / 2;
        let me = self.config.node;
        let Role::Leader(leading) = &mut self.role else { return false };
        let Some(change) = &mut leading.change else { return false };
        let (target, began, count) = *change.round.get_or_insert((last, now.latest(), 1));
        let has = |node: &NodeId| {
            *node == me || leading.peers.get(node).is_some_and(|peer| peer.accepted >= target)
        };
        // Those who vote already are taken as they are: one of them may be why there is a change.
        let voters = &self.acceptor.log.configuration().1.voters;
        if !change.wanted.voters.difference(voters).all(has) {
            return false;
        }
        let short = !now.after(began.plus_micros(short_us));
        if short || count >= ROUNDS_MAX {
            return true;
        }
        change.round = Some((last, now.latest(), count + 1));
        false
    }

    fn change_voters(&mut self, now: Interval, old: Configuration, out: &mut Output) {
        let Role::Leader(leading) = &self.role else { return };
        let Some(change) = &leading.change else { return };
        let wanted = change.wanted.clone();
        let mut new = old.clone();
        new.voters = wanted.voters.clone();
        if !old.differs_by_one(&wanted.voters) && !planted(Plant::SingleStepMembership) {
            new.outgoing = old.voters;
            // Learners that are not wanted go at once, old voters with the next step.
            let keep = wanted.everyone();
            new.members.retain(|node, _| keep.contains(node) || new.outgoing.contains(node));
        } else {
            new.members.retain(|node, _| wanted.everyone().contains(node));
        }
        if self.is_alive(now, &new) && self.leaves_a_tablet(&new) {
            self.configure(now, new, out);
        }
    }

    /// Whether one of the voters to be has a tablet and all that is chosen. A witness may be elected
    /// next, which has nothing to send to a voter that lacks what has left the logs.
    fn leaves_a_tablet(&self, configuration: &Configuration) -> bool {
        let Role::Leader(leading) = &self.role else { return false };
        let full = configuration.voters.iter().filter(|node| !configuration.is_witness(**node));
        full.into_iter().any(|node| match leading.peers.get(node) {
            Some(peer) => peer.accepted >= self.chosen,
            None => *node == self.config.node,
        })
    }

    /// Whether the configuration would have a quorum that was heard lately: one that has none
    /// could neither be chosen nor undone.
    fn is_alive(&self, now: Interval, configuration: &Configuration) -> bool {
        let lately_us = 2 * self.config.lease_ms * 1_000;
        let Role::Leader(leading) = &self.role else { return false };
        configuration.is_quorum(|node| match leading.peers.get(&node) {
            Some(peer) => peer.answered && !now.after(peer.heard.plus_micros(lately_us)),
            None => node == self.config.node,
        })
    }

    fn leave_joint(&mut self, now: Interval, mut configuration: Configuration, out: &mut Output) {
        let outgoing = std::mem::take(&mut configuration.outgoing);
        let voters = &configuration.voters;
        configuration.members.retain(|node, _| voters.contains(node) || !outgoing.contains(node));
        self.configure(now, configuration, out);
    }

    /// Appends a configuration; it is in force at once.
    fn configure(&mut self, now: Interval, configuration: Configuration, out: &mut Output) {
        self.append(Payload::Configuration(configuration), out);
        self.meet_peers(now, out);
        self.flush(now, out);
    }

    /// Makes the leader's list of members that of the configuration in force.
    pub(crate) fn meet_peers(&mut self, now: Interval, out: &mut Output) {
        let configuration = &self.acceptor.log.configuration().1;
        let me = self.config.node;
        // A new peer is first asked about what stands before the last entry: likely it has that.
        let next = self.acceptor.log.last_slot();
        let Role::Leader(leading) = &mut self.role else { return };
        leading.peers.retain(|node, peer| {
            let stays = configuration.members.contains_key(node);
            out.forget.extend(peer.sending().filter(|_| !stays).map(|sending| sending.id));
            stays
        });
        for node in configuration.members.keys().filter(|node| **node != me) {
            leading.peers.entry(*node).or_insert_with(|| Progress::new(next, now.latest()));
        }
    }

    /// A configuration has been applied: members that it leaves out are told.
    pub(crate) fn configured(
        &self,
        before: &Configuration,
        after: &Configuration,
        out: &mut Output,
    ) {
        let at = self.acceptor.log.configuration_at(self.applied).0;
        if self.leading().is_none() {
            return;
        }
        let gone = before.members.iter().filter(|(node, _)| !after.members.contains_key(node));
        // Not itself: it first hands over.
        for (node, member) in gone.filter(|(node, _)| **node != self.config.node) {
            out.send.push((*node, Message::Removed { seat: member.seat, at }));
        }
    }

    /// A replica that asks for votes although it was removed is told so (P9).
    pub(crate) fn tell_removed(&self, node: NodeId, seat: Seat, out: &mut Output) {
        let (at, applied) = self.acceptor.log.configuration_at(self.applied);
        let belongs =
            applied.has(node, seat) || self.acceptor.log.configuration().1.has(node, seat);
        if !belongs && !applied.members.is_empty() {
            out.send.push((node, Message::Removed { seat, at: *at }));
        }
    }

    pub(crate) fn on_removed(&mut self, now: Interval, seat: Seat, at: Position, out: &mut Output) {
        // Who said it may be behind: then the own configuration, or the invitation, is the newer.
        let (own_at, own) = self.acceptor.log.configuration();
        let outside = at == *own_at && !own.has(self.config.node, self.seat);
        let newer = (at > *own_at || outside) && at > self.invited.at;
        if seat == self.seat && newer && !self.removed {
            self.follow(now, None, out);
            self.bury(out);
        }
    }

    /// The configuration applied last has no place for this replica, and is newer than what
    /// invited it.
    pub(crate) fn has_left(&self) -> bool {
        let (at, applied) = self.acceptor.log.configuration_at(self.applied);
        let belongs = applied.has(self.config.node, self.seat);
        !applied.members.is_empty() && !belongs && *at > self.invited.at
    }

    pub(crate) fn bury(&mut self, out: &mut Output) {
        self.leaving = false;
        self.removed = true;
        out.writes.push(Write::Bury(self.seat));
    }

    pub(crate) fn on_greet(
        &mut self,
        now: Interval,
        from: NodeId,
        invitation: Invitation,
        out: &mut Output,
    ) {
        // A leader of the past: whatever made this replica a member since, came with a newer one.
        if invitation < self.invited {
            return;
        }
        if invitation != self.invited {
            let never_invited = self.invited == Invitation::default();
            self.invited = invitation;
            if never_invited && self.is_blank() {
                out.writes.push(Write::Invited(self.seat, invitation));
            } else {
                self.rebirth(now, out);
            }
        }
        out.send_after.push((from, Message::Greeted { invitation }));
    }

    /// The nodes that receive the log, but for this one.
    pub(crate) fn peers(&self) -> BTreeSet<NodeId> {
        let me = self.config.node;
        let members = self.acceptor.log.configuration().1.members.keys();
        members.copied().filter(|node| *node != me).collect()
    }

    /// The nodes whose votes count, but for this one.
    pub(crate) fn voting_peers(&self) -> BTreeSet<NodeId> {
        let configuration = &self.acceptor.log.configuration().1;
        let me = self.config.node;
        let voters = configuration.voters.union(&configuration.outgoing);
        voters.copied().filter(|node| *node != me).collect()
    }
}
