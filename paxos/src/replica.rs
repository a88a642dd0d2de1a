//! One replica of a group: the voter, and whatever role it plays besides.

use crate::acceptor::{Acceptor, HardState};
use crate::ballot::Position;
use crate::catch_up::Receiving;
use crate::config::Config;
use crate::configuration::Configuration;
use crate::election::Candidacy;
use crate::log::Log;
use crate::message::{Base, Entry, Invitation, Message, Output, Payload, Write};
use crate::proposer::Leading;
use proto::{Ballot, NodeId, Seat, Slot};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use std::collections::BTreeSet;
use truetime::{Interval, Timestamp};

/// What a replica's disk holds.
#[derive(Clone, Debug, Default)]
pub struct Stored {
    /// Which life of the node's replica this is.
    pub seat: Seat,
    /// It was removed from the group.
    pub removed: bool,
    /// Under which invitation it got its seat; the default: none.
    pub invited: Invitation,
    /// Promises and votes.
    pub hard: HardState,
    /// What the log has forgotten.
    pub base: Base,
    /// The log, without holes, as far as it is undamaged.
    pub entries: Vec<Entry>,
    /// The last slot whose effect the tablet holds; everything up to it is chosen.
    pub applied: Slot,
    /// Entries behind `entries` are damaged: the last slot that is on the disk at all.
    pub damaged_until: Option<Slot>,
}

#[derive(Clone, Debug)]
pub(crate) enum Role {
    Follower,
    /// Asks whether a campaign could succeed (P8): who said yes.
    Canvassing(Ballot, BTreeSet<NodeId>),
    Candidate(Candidacy),
    Leader(Box<Leading>),
}

/// A replica. See the [crate](crate) for the protocol.
///
/// Invariant, asserted after every change: `base ≤ applied ≤ chosen ≤ last`.
#[derive(Clone, Debug)]
pub struct Replica {
    pub(crate) config: Config,
    pub(crate) seat: Seat,
    /// Removed from the group for good, under this seat (P9).
    pub(crate) removed: bool,
    /// The configuration it has applied has no place for it; buried as soon as it does not lead.
    pub(crate) leaving: bool,
    /// Under which invitation it got its seat; the default: founded, or blank.
    pub(crate) invited: Invitation,
    pub(crate) acceptor: Acceptor,
    pub(crate) role: Role,
    /// Who was last heard leading.
    pub(crate) leader: Option<NodeId>,
    pub(crate) chosen: Slot,
    pub(crate) applied: Slot,
    /// The highest round seen anywhere, so that the next campaign goes above it.
    pub(crate) highest_round: u64,
    pub(crate) unflushed: bool,
    /// The group's other parts have nothing under way.
    pub(crate) idle: bool,
    /// A follower that sleeps.
    pub(crate) asleep: bool,
    pub(crate) receiving: Option<Receiving>,
    pub(crate) election_at: Timestamp,
    rng: SmallRng,
}

impl Replica {
    /// A replica from what its disk holds.
    ///
    /// # Panics
    /// When the log ends before what is applied: the disk lost entries that it had synced, which
    /// is not survivable by pretending.
    pub fn recover(config: Config, stored: Stored) -> Replica {
        let Stored { seat, removed, invited, hard, base, entries, applied, damaged_until } = stored;
        let mut log = Log::empty(base);
        for entry in entries {
            log.append(entry);
        }
        let (base, last) = (log.base().slot, log.last_slot());
        assert!(base <= applied, "P1: the log begins behind {base}, applied is {applied}");
        assert!(last >= applied, "P1: applied {applied} is beyond the log's end {last}");
        let rng = SmallRng::seed_from_u64(config.seed);
        let mut acceptor = Acceptor::new(hard, log, applied, config.lease_ms * 1_000);
        if let Some(until) = damaged_until {
            acceptor.damaged(until);
        }
        let mut replica = Replica {
            seat,
            removed,
            leaving: false,
            invited,
            acceptor,
            role: Role::Follower,
            leader: None,
            chosen: applied,
            applied,
            highest_round: 0,
            unflushed: false,
            idle: false,
            asleep: false,
            receiving: None,
            election_at: Timestamp::MIN,
            config,
            rng,
        };
        // A crash may have lost the burial; what led to it was applied.
        replica.leaving = replica.has_left() && !replica.removed;
        replica
    }

    /// A message from a peer, of which life of its replica; or from itself after its disk.
    ///
    /// Answers count for this replica's purposes only when they come from members (P9); questions
    /// are answered whoever asks.
    pub fn step(
        &mut self,
        now: Interval,
        (from, seat): (NodeId, Seat),
        message: Message,
        out: &mut Output,
    ) {
        if !message.is_sane() {
            return;
        }
        let own = from == self.config.node;
        let counts = own || self.acceptor.log.configuration().1.has(from, seat);
        match message {
            Message::Canvass { ballot, last } => {
                self.on_canvass(now, (from, seat), (ballot, last), out);
            }
            Message::Prepare { ballot, last, sent, released } => {
                self.on_prepare(now, (from, seat), (ballot, last), sent, released, out);
            }
            Message::Accept { ballot, prev, entries, chosen, truncate, sleep, sent } => {
                let positions = (chosen, truncate, sleep);
                self.on_accept(now, from, (ballot, sent), (prev, entries), positions, out);
            }
            Message::Chunk { ballot, chunk } => self.on_chunk(now, from, ballot, chunk, out),
            Message::Reject { ballot, promised } if counts => {
                self.on_reject(now, ballot, promised, out);
            }
            Message::Release { ballot } => self.on_release(now, ballot),
            Message::TimeoutNow { ballot } => self.on_timeout_now(now, ballot, out),
            Message::Greet { invitation } => self.on_greet(now, from, invitation, out),
            Message::Greeted { invitation } => self.on_greeted(now, from, seat, invitation, out),
            Message::Removed { seat, at } => self.on_removed(now, seat, at, out),
            Message::Durable { cuts, last } if own => self.acceptor.disk_answered(cuts, last),
            Message::Canvassed { ballot, free, promised } if counts => {
                self.on_canvassed(now, from, ballot, (free, promised), out);
            }
            Message::Promise { ballot, sent } if counts => {
                self.on_promise(now, from, (ballot, sent), out);
            }
            Message::Accepted { ballot, upto, applied, asleep, sent } if counts => {
                self.on_accepted(now, from, (ballot, sent), (upto, applied, asleep), out);
            }
            Message::Gap { ballot, prev, hint, sent } if counts => {
                self.on_gap(now, from, (ballot, sent), (prev, hint), out);
            }
            Message::ChunkTaken { ballot, id, next } if counts => {
                self.on_chunk_taken(now, from, (ballot, id, next), out);
            }
            Message::Canvassed { .. }
            | Message::Reject { .. }
            | Message::Promise { .. }
            | Message::Accepted { .. }
            | Message::Gap { .. }
            | Message::ChunkTaken { .. }
            | Message::Durable { .. } => {}
        }
    }

    /// Time has come. Call at [`wake_at`](Self::wake_at) or any time.
    pub fn tick(&mut self, now: Interval, out: &mut Output) {
        if self.asleep().is_some() {
            return;
        }
        if let Role::Leader(leading) = &self.role {
            let configuration = &self.acceptor.log.configuration().1;
            let forsaken = leading.lease.forsaken_after(self.config.node, configuration);
            if now.after(forsaken) {
                return self.follow(now, None, out);
            }
            if now.after(leading.heartbeat_at) {
                self.own_accepted(now, out);
                self.send_accepts(now, true, out);
                self.greet(out);
                self.drive_change(now, out);
                self.tick_transfer(now);
            }
            return self.send_chunks(now, out);
        }
        if self.leaving {
            self.bury(out);
        }
        if !self.may_campaign() {
            return;
        }
        if self.election_at == Timestamp::MIN {
            self.reset_election_timer(now);
        }
        // A vote in force makes a campaign pointless: not even its own voter would promise (L1).
        if now.after(self.election_at) && now.after(self.acceptor.vote.granted) {
            self.canvass(now, out);
        }
    }

    /// Call [`tick`](Self::tick) once `after` this.
    pub fn wake_at(&self) -> Timestamp {
        if self.asleep().is_some() {
            return Timestamp::MAX;
        }
        match &self.role {
            Role::Leader(leading) => leading.heartbeat_at.min(self.chunks_at()),
            _ if self.leaving => Timestamp::MIN,
            _ if self.may_campaign() => self.election_at.max(self.acceptor.vote.granted),
            _ => Timestamp::MAX,
        }
    }

    /// Whether its own answers matter: a voter of the configuration in force, in possession of
    /// all that it ever said.
    pub(crate) fn may_campaign(&self) -> bool {
        let me = self.config.node;
        let voter = |(_, configuration): &(Position, Configuration)| {
            configuration.is_voter(me) && configuration.has(me, self.seat)
        };
        // Also one whose removal is in its log and not known chosen: nobody may have it but this
        // replica, whose log is then the most complete. Its own vote does not count.
        let log = &self.acceptor.log;
        let voter = voter(log.configuration()) || voter(log.configuration_at(self.chosen));
        voter && !self.removed && self.acceptor.hard.repair.is_none()
    }

    /// The tablet holds everything up to this slot.
    pub fn applied(&mut self, now: Interval, slot: Slot, out: &mut Output) {
        assert!(slot <= self.chosen, "P2: applied {slot} before it was chosen ({})", self.chosen);
        assert!(slot == self.applied.next(), "P2: applied {slot} after {}", self.applied);
        self.applied = slot;
        if let Some(Payload::Configuration(after)) = self.entry(slot).map(|e| &e.payload) {
            let log = &self.acceptor.log;
            let before = &log.configuration_at(slot.prev().max(log.base().slot)).1;
            self.configured(before, after, out);
            self.leaving = self.has_left() && !self.removed;
            if self.leaving && self.leading().is_none() {
                self.bury(out);
            }
        }
        self.drive_change(now, out);
    }

    /// The next value to apply: chosen, in slot order, and on this replica's own disk, so that
    /// what is applied never runs ahead of the log after a crash.
    pub fn next_to_apply(&self) -> Option<(Slot, &Payload)> {
        let slot = self.applied.next();
        Some((slot, self.chosen_at(slot)?))
    }

    /// What is chosen in a slot that is not applied yet, and on this replica's own disk.
    pub fn chosen_at(&self, slot: Slot) -> Option<&Payload> {
        if slot <= self.applied || slot > self.chosen || slot > self.acceptor.durable {
            return None;
        }
        let entry = self.entry(slot).expect("chosen entries are in the log until applied");
        Some(&entry.payload)
    }

    /// The ballot this replica leads under, lease or not.
    pub fn leading(&self) -> Option<Ballot> {
        match &self.role {
            Role::Leader(leading) => Some(leading.ballot),
            _ => None,
        }
    }

    /// Whether the no-op that opens the ballot is applied, and with it everything that earlier
    /// leaders may have had chosen (P3).
    pub fn opened(&self) -> bool {
        matches!(&self.role, Role::Leader(leading) if self.applied >= leading.opening)
    }

    /// When this leader's lease began (L2).
    pub fn lease_start(&self) -> Option<Timestamp> {
        match &self.role {
            Role::Leader(leading) => Some(leading.lease.start),
            _ => None,
        }
    }

    /// When the lease of this leader ends (L2); valid while `before(end)`.
    pub fn lease_end(&self) -> Option<Timestamp> {
        match &self.role {
            Role::Leader(leading) => Some(leading.lease.end(&self.acceptor.log.configuration().1)),
            _ => None,
        }
    }

    /// Who leads, as far as is known here.
    pub fn leader_hint(&self) -> Option<NodeId> {
        self.leader
    }

    /// The highest ballot promised.
    pub fn promised(&self) -> Ballot {
        self.acceptor.hard.promised
    }

    /// Positions: (first slot in the log, last, chosen, applied).
    pub fn positions(&self) -> (Slot, Slot, Slot, Slot) {
        let log = &self.acceptor.log;
        (log.first(), log.last_slot(), self.chosen, self.applied)
    }

    /// The entry of a slot, while it is in the log.
    pub fn entry(&self, slot: Slot) -> Option<&Entry> {
        self.acceptor.log.get(slot)
    }

    /// Where the log ends.
    pub fn last(&self) -> Position {
        self.acceptor.log.last()
    }

    /// The ballot of a slot that is in the log or the last one forgotten.
    pub fn ballot_at(&self, slot: Slot) -> Option<Ballot> {
        self.acceptor.log.ballot_at(slot)
    }

    /// The configuration in force, and where it was appended.
    pub fn configuration(&self) -> (Position, &Configuration) {
        let (at, configuration) = self.acceptor.log.configuration();
        (*at, configuration)
    }

    /// Which life of the node's replica this is.
    pub fn seat(&self) -> Seat {
        self.seat
    }

    /// Under which invitation it got its seat.
    pub fn invited(&self) -> Invitation {
        self.invited
    }

    /// Removed from the group.
    pub fn is_removed(&self) -> bool {
        self.removed
    }

    /// Keeps no tablet. A witness that has just removed itself has none either, though the
    /// configuration in force does not know it any more.
    pub fn is_witness(&self) -> bool {
        let me = self.config.node;
        self.acceptor.log.configuration_naming(me).is_some_and(|known| known.is_witness(me))
    }

    /// What its disk has forgotten is being sent again.
    pub fn is_in_repair(&self) -> bool {
        self.acceptor.hard.repair.is_some()
    }

    /// Whether the disk holds the tablet that belongs to what is applied: not while a snapshot is on
    /// its way into its place.
    pub fn is_settled(&self) -> bool {
        self.acceptor.settled
    }

    /// The leader of this ballot says that everything up to this slot is chosen.
    pub fn told_chosen(&mut self, ballot: Ballot, upto: Slot) {
        if ballot == self.acceptor.hard.promised && matches!(self.role, Role::Follower) {
            self.chosen = self.chosen.max(upto.min(self.acceptor.held));
            self.check();
        }
    }

    /// The hard state as it goes to the disk.
    pub fn hard_state(&self) -> HardState {
        self.acceptor.hard
    }

    fn on_reject(&mut self, now: Interval, ballot: Ballot, promised: Ballot, out: &mut Output) {
        self.highest_round = self.highest_round.max(promised.round);
        let current = match &self.role {
            Role::Leader(leading) => leading.ballot == ballot,
            Role::Candidate(candidacy) => candidacy.ballot == ballot,
            Role::Follower | Role::Canvassing(..) => false,
        };
        if current && promised > ballot {
            self.follow(now, None, out);
        }
    }

    /// Gives up any other role. `leader`: who is leading, when that is known.
    pub(crate) fn follow(&mut self, now: Interval, leader: Option<NodeId>, out: &mut Output) {
        if let Role::Leader(leading) = &mut self.role {
            let sent = leading.peers.values_mut().filter_map(|peer| peer.sending());
            out.forget.extend(sent.map(|sending| sending.id));
            if self.leaving {
                self.bury(out);
            }
        }
        self.role = Role::Follower;
        self.leader = leader;
        self.asleep = false;
        self.unflushed = false;
        self.reset_election_timer(now);
    }

    /// Nothing was ever said under this seat.
    pub(crate) fn is_blank(&self) -> bool {
        let nothing = self.acceptor.log.last() == Position::ORIGIN;
        nothing
            && !self.removed
            && self.acceptor.hard == HardState::default()
            && self.configuration().1.members.is_empty()
    }

    pub(crate) fn reset_election_timer(&mut self, now: Interval) {
        let configuration = &self.acceptor.log.configuration().1;
        let alone = configuration.voters.len() == 1 && !configuration.is_joint();
        let mut jitter_us = match alone {
            true => 0,
            false => self.rng.random_range(0..=self.config.election_jitter_ms * 1_000),
        };
        if self.is_witness() {
            // It can lead only to hand over: somebody with a tablet first.
            jitter_us += 2 * self.config.election_jitter_ms * 1_000;
        }
        self.election_at = now.latest().max(self.acceptor.vote.granted).plus_micros(jitter_us);
    }

    /// Forgets everything and takes a new seat (P9).
    pub(crate) fn rebirth(&mut self, now: Interval, out: &mut Output) {
        let cuts = self.acceptor.cuts + 1;
        let lease_us = self.config.lease_ms * 1_000;
        let log = Log::empty(Base::default());
        self.seat = new_seat(&mut self.rng);
        self.removed = false;
        self.leaving = false;
        self.acceptor = Acceptor::new(HardState::default(), log, Slot::ZERO, lease_us);
        self.acceptor.cuts = cuts;
        self.acceptor.settled = false;
        self.chosen = Slot::ZERO;
        self.applied = Slot::ZERO;
        self.receiving = None;
        self.follow(now, None, out);
        out.writes.push(Write::Rebirth(self.seat, self.invited));
    }

    /// The order of positions, asserted after every change.
    pub(crate) fn check(&self) {
        let (first, last, chosen, applied) = self.positions();
        assert!(first <= applied.next(), "P2: first {first} > applied {applied} + 1");
        assert!(
            applied <= chosen && chosen <= last,
            "P2: applied {applied}, chosen {chosen}, last {last}"
        );
    }
}

/// A seat for a replica whose disk is blank.
pub fn new_seat(rng: &mut impl Rng) -> Seat {
    Seat(rng.random_range(Seat::FOUNDER.0 + 1..=u64::MAX))
}
