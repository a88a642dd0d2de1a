//! One replica of a group: the voter, and whatever role it plays besides.

use crate::acceptor::{Acceptor, HardState};
use crate::election::Candidacy;
use crate::log::Log;
use crate::message::{Entry, Message, Output};
use crate::replication::Leading;
use bytes::Bytes;
use proto::{Ballot, NodeId, Slot};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use std::collections::BTreeSet;
use truetime::{Interval, Timestamp};

/// What a replica is told when it is made.
#[derive(Clone, Debug)]
pub struct Config {
    /// This node.
    pub node: NodeId,
    /// All voters, this node among them, ascending.
    pub voters: Vec<NodeId>,
    /// How long a timed vote runs (L1).
    pub lease_ms: u64,
    /// How often a leader that has nothing to say says so.
    pub heartbeat_ms: u64,
    /// A replica whose vote has expired waits a random time up to this before it campaigns.
    pub election_jitter_ms: u64,
    /// Seed of that randomness.
    pub seed: u64,
}

impl Config {
    /// Refuses settings that cannot work (L7).
    ///
    /// # Errors
    /// Says which setting, and why.
    pub fn validate(&self, epsilon_us_worst: u64) -> Result<(), String> {
        if !self.voters.contains(&self.node) {
            return Err(format!("{} is not among the voters {:?}", self.node, self.voters));
        }
        if self.lease_ms * 1_000 <= 2 * epsilon_us_worst {
            return Err(format!(
                "lease of {} ms is not above twice the clock bound of {epsilon_us_worst} µs (L7)",
                self.lease_ms
            ));
        }
        if self.heartbeat_ms * 2 > self.lease_ms {
            return Err(format!(
                "heartbeat of {} ms leaves no second try within the lease of {} ms (L7)",
                self.heartbeat_ms, self.lease_ms
            ));
        }
        Ok(())
    }
}

#[derive(Debug)]
pub(crate) enum Role {
    Follower,
    /// Asks whether a campaign could succeed (P8): who said yes.
    Canvassing(Ballot, BTreeSet<NodeId>),
    Candidate(Candidacy),
    Leader(Leading),
}

/// A replica. See the [crate](crate) for the protocol.
#[derive(Debug)]
pub struct Replica {
    pub(crate) config: Config,
    pub(crate) acceptor: Acceptor,
    pub(crate) role: Role,
    /// Who was last heard leading.
    pub(crate) leader: Option<NodeId>,
    pub(crate) chosen: Slot,
    pub(crate) applied: Slot,
    /// The highest round seen anywhere, so that the next campaign goes above it.
    pub(crate) highest_round: u64,
    pub(crate) unflushed: bool,
    election_at: Timestamp,
    rng: SmallRng,
}

impl Replica {
    /// A replica from what its disk holds; an empty disk makes a new one.
    ///
    /// `entries` are contiguous; `applied` is the last slot whose effect the tablet holds, and
    /// everything up to it is known chosen.
    ///
    /// # Panics
    /// When the log has a hole, or begins beyond what is applied: the disk lost entries, which is
    /// not survivable by pretending.
    pub fn recover(
        config: Config,
        hard: HardState,
        entries: Vec<(Slot, Entry)>,
        applied: Slot,
    ) -> Replica {
        let first = entries.first().map_or(applied.next(), |(slot, _)| *slot);
        assert!(first <= applied.next(), "the log begins at {first}, applied is {applied}");
        let mut log = Log::empty(first);
        for (slot, entry) in entries {
            assert_eq!(slot, log.last().next(), "the log has a hole");
            log.put(slot, entry);
        }
        assert!(
            log.last() >= applied,
            "P1: applied {applied} is beyond the log's end {}",
            log.last()
        );
        let rng = SmallRng::seed_from_u64(config.seed);
        let acceptor = Acceptor::new(hard, log, applied, config.lease_ms * 1_000);
        Replica {
            acceptor,
            role: Role::Follower,
            leader: None,
            chosen: applied,
            applied,
            highest_round: 0,
            unflushed: false,
            election_at: Timestamp::MIN,
            config,
            rng,
        }
    }

    /// A message from a peer, or from itself after its disk.
    pub fn step(&mut self, now: Interval, from: NodeId, message: Message, out: &mut Output) {
        if !self.config.voters.contains(&from) {
            return;
        }
        match message {
            Message::Canvass { ballot } => self.on_canvass(now, from, ballot, out),
            Message::Canvassed { ballot, free, promised } => {
                self.on_canvassed(now, from, ballot, (free, promised), out);
            }
            Message::Prepare { ballot, chosen, sent } => {
                self.on_prepare(now, from, ballot, chosen, sent, out);
            }
            Message::Promise { ballot, sent, accepted, first, entries } => {
                self.on_promise(now, from, (ballot, sent), (accepted, first, entries), out);
            }
            Message::Reject { ballot, promised } => self.on_reject(now, ballot, promised),
            Message::Accept { ballot, first, payloads, chosen, opening, truncate, sent } => {
                let positions = (chosen, opening, truncate);
                self.on_accept(now, from, (ballot, sent), (first, payloads), positions, out);
            }
            Message::Accepted { ballot, upto, applied, sent } => {
                self.on_accepted(now, from, (ballot, sent), (upto, applied), out);
            }
            Message::Gap { ballot, expect } => self.on_gap(now, from, ballot, expect, out),
            Message::Durable { rewrites, last } if from == self.config.node => {
                self.acceptor.disk_answered(rewrites, last);
            }
            Message::Durable { .. } => {}
        }
    }

    /// Time has come. Call at [`wake_at`](Self::wake_at) or any time.
    pub fn tick(&mut self, now: Interval, out: &mut Output) {
        if let Role::Leader(leading) = &self.role {
            let lease_us = self.config.lease_ms * 1_000;
            if leading.is_forsaken(now, self.config.node, &self.config.voters, lease_us) {
                self.follow(now, None);
            } else if now.after(leading.heartbeat_at) {
                self.own_accepted(now, out);
                self.send_accepts(now, out);
            }
            return;
        }
        if self.election_at == Timestamp::MIN {
            self.reset_election_timer(now);
        }
        // A vote in force makes a campaign pointless: not even its own voter would promise (L1).
        if now.after(self.election_at) && now.after(self.acceptor.granted()) {
            self.canvass(now, out);
        }
    }

    /// Call [`tick`](Self::tick) once `after` this.
    pub fn wake_at(&self) -> Timestamp {
        match &self.role {
            Role::Leader(leading) => leading.heartbeat_at,
            _ => self.election_at.max(self.acceptor.granted()),
        }
    }

    /// The tablet holds everything up to this slot.
    pub fn applied(&mut self, slot: Slot) {
        assert!(slot <= self.chosen, "P2: applied {slot} before it was chosen ({})", self.chosen);
        self.applied = self.applied.max(slot);
    }

    /// The next value to apply: chosen, in slot order, and on this replica's own disk, so that
    /// what is applied never runs ahead of the log after a crash.
    pub fn next_to_apply(&self) -> Option<(Slot, Bytes)> {
        let slot = self.applied.next();
        if slot > self.chosen || slot > self.acceptor.durable {
            return None;
        }
        let entry =
            self.acceptor.log.get(slot).expect("chosen entries are in the log until applied");
        Some((slot, entry.payload.clone()))
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
            Role::Leader(leading) => Some(leading.lease_start),
            _ => None,
        }
    }

    /// When the lease of this leader ends (L2); valid while `before(end)`.
    pub fn lease_end(&self) -> Option<Timestamp> {
        match &self.role {
            Role::Leader(leading) => {
                Some(leading.lease_end(&self.config.voters, self.config.lease_ms * 1_000))
            }
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
        (self.acceptor.log.first(), self.acceptor.log.last(), self.chosen, self.applied)
    }

    /// The entry of a slot, while it is in the log.
    pub fn entry(&self, slot: Slot) -> Option<&Entry> {
        self.acceptor.log.get(slot)
    }

    fn on_reject(&mut self, now: Interval, ballot: Ballot, promised: Ballot) {
        let mine = match &self.role {
            Role::Leader(leading) => leading.ballot == ballot,
            Role::Candidate(_) => ballot.node == self.config.node,
            Role::Follower | Role::Canvassing(..) => false,
        };
        if mine && promised > ballot {
            self.highest_round = self.highest_round.max(promised.round);
            self.follow(now, None);
        }
    }

    /// Gives up any other role. `leader`: who is leading, when that is known.
    pub(crate) fn follow(&mut self, now: Interval, leader: Option<NodeId>) {
        self.role = Role::Follower;
        self.leader = leader;
        self.unflushed = false;
        self.reset_election_timer(now);
    }

    pub(crate) fn reset_election_timer(&mut self, now: Interval) {
        let jitter_us = match self.config.voters.len() {
            1 => 0,
            _ => self.rng.random_range(0..=self.config.election_jitter_ms * 1_000),
        };
        self.election_at = now.latest().max(self.acceptor.granted()).plus_micros(jitter_us);
    }

    pub(crate) fn peers(&self) -> impl Iterator<Item = NodeId> + use<> {
        let me = self.config.node;
        self.config.voters.clone().into_iter().filter(move |voter| *voter != me)
    }

    /// The order of positions, asserted after every change.
    pub(crate) fn check(&self) {
        let (first, last, chosen, applied) = self.positions();
        assert!(first <= applied.next(), "first {first} > applied {applied} + 1");
        assert!(
            applied <= chosen && chosen <= last,
            "applied {applied}, chosen {chosen}, last {last}"
        );
    }
}
