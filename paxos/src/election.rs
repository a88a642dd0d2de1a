//! Phase 1: becoming the leader.
//!
//! ```text
//!   follower ──vote expired──▶ canvassing ──a quorum is free──▶ candidate ──promised──▶ leader
//!      ▲                           │ changes nothing                │                      │
//!      └───────────────────────────┴── a leader speaks, or time ────┴── forsaken, deposed ─┘
//! ```

use crate::ballot::Position;
use crate::lease::Lease;
use crate::message::{Message, Output, Payload};
use crate::proposer::Leading;
use crate::replica::{Replica, Role};
use proto::plant::{Plant, planted};
use proto::{Ballot, NodeId, Seat};
use std::collections::{BTreeMap, BTreeSet};
use truetime::{Interval, Timestamp};

/// A candidate's collected promises.
#[derive(Clone, Debug)]
pub(crate) struct Candidacy {
    pub ballot: Ballot,
    /// When it asked. A promise given to an earlier life of this replica, which may have used the
    /// same ballot under another seat, was asked for at another time.
    sent: Timestamp,
    /// The instant before asking, by each voter that promised (L2).
    promised: BTreeMap<NodeId, Timestamp>,
}

impl Replica {
    /// Asks everyone whether a campaign could succeed (P8).
    pub(crate) fn canvass(&mut self, now: Interval, out: &mut Output) {
        let ballot = self.next_ballot();
        let last = self.acceptor.log.last();
        self.role = Role::Canvassing(ballot, BTreeSet::new());
        self.leader = None; // its lease is over, as far as can be seen from here
        self.reset_election_timer(now);
        for peer in self.voting_peers() {
            out.send.push((peer, Message::Canvass { ballot, last }));
        }
        let promised = self.acceptor.hard.promised;
        let free = self.acceptor.may_promise(now, ballot, last, None);
        self.on_canvassed(now, self.config.node, ballot, (free, promised), out);
    }

    fn next_ballot(&self) -> Ballot {
        let round = self.acceptor.hard.promised.round.max(self.highest_round) + 1;
        Ballot { round, node: self.config.node }
    }

    pub(crate) fn on_canvass(
        &mut self,
        now: Interval,
        (from, seat): (NodeId, Seat),
        (ballot, last): (Ballot, Position),
        out: &mut Output,
    ) {
        self.tell_removed(from, seat, out);
        let free = self.acceptor.may_promise(now, ballot, last, None);
        let promised = self.acceptor.hard.promised;
        out.send.push((from, Message::Canvassed { ballot, free, promised }));
    }

    pub(crate) fn on_canvassed(
        &mut self,
        now: Interval,
        from: NodeId,
        ballot: Ballot,
        (free, promised): (bool, Ballot),
        out: &mut Output,
    ) {
        self.highest_round = self.highest_round.max(promised.round);
        let Role::Canvassing(asked, yes) = &mut self.role else { return };
        if *asked != ballot || !free {
            return;
        }
        yes.insert(from);
        // Not without its own vote: it would have to promise as well.
        let own = yes.contains(&self.config.node);
        if own && self.acceptor.log.configuration().1.is_quorum(|node| yes.contains(&node)) {
            self.campaign(now, None, out);
        }
    }

    /// Asks everyone for a promise, itself included. `released`: whose lease was handed to it.
    pub(crate) fn campaign(&mut self, now: Interval, released: Option<Ballot>, out: &mut Output) {
        let ballot = self.next_ballot();
        let last = self.acceptor.log.last();
        if !self.acceptor.may_promise(now, ballot, last, released) {
            return; // not without its own promise
        }
        let sent = now.earliest();
        self.highest_round = ballot.round;
        self.role = Role::Candidate(Candidacy { ballot, sent, promised: BTreeMap::new() });
        let prepare = Message::Prepare { ballot, last, sent, released };
        // P1: after its own promise is on disk, or a restart could use the ballot once more.
        for peer in self.voting_peers() {
            out.send_after.push((peer, prepare.clone()));
        }
        let me = (self.config.node, self.seat);
        self.on_prepare(now, me, (ballot, last), sent, released, out);
        self.reset_election_timer(now);
    }

    pub(crate) fn on_prepare(
        &mut self,
        now: Interval,
        (from, seat): (NodeId, Seat),
        (ballot, last): (Ballot, Position),
        sent: Timestamp,
        released: Option<Ballot>,
        out: &mut Output,
    ) {
        self.tell_removed(from, seat, out);
        if !self.acceptor.may_promise(now, ballot, last, released) {
            let promised = self.acceptor.hard.promised;
            out.send.push((from, Message::Reject { ballot, promised }));
            return;
        }
        if from != self.config.node {
            self.follow(now, None, out);
        }
        if let Some(released) = released {
            self.acceptor.vote.release(released, self.acceptor.hard.vote);
        }
        self.acceptor.promise(ballot, self.chosen, out);
        self.acceptor.grant(now, out);
        self.reset_election_timer(now);
        let promise = Message::Promise { ballot, sent };
        if planted(Plant::VoteUnsynced) {
            return out.send.push((from, promise));
        }
        out.send_after.push((from, promise));
    }

    pub(crate) fn on_promise(
        &mut self,
        now: Interval,
        from: NodeId,
        (ballot, sent): (Ballot, Timestamp),
        out: &mut Output,
    ) {
        let Role::Candidate(candidacy) = &mut self.role else { return };
        if candidacy.ballot != ballot || candidacy.sent != sent {
            return;
        }
        candidacy.promised.insert(from, sent);
        let promised = &candidacy.promised;
        // Its own promise comes from its own disk, like everyone's (P1), so a quorum with it
        // knows that the ballot is durable here.
        let own = promised.contains_key(&self.config.node);
        let configuration = &self.acceptor.log.configuration().1;
        if own && configuration.is_quorum(|node| promised.contains_key(&node)) {
            let promised = promised.clone();
            self.lead(now, ballot, promised, out);
        }
    }

    /// A quorum has promised, none of whose logs is more complete: every value that may be chosen
    /// is in this log (P3). It is proposed as it stands, and a no-op opens the ballot behind it.
    fn lead(
        &mut self,
        now: Interval,
        ballot: Ballot,
        promised: BTreeMap<NodeId, Timestamp>,
        out: &mut Output,
    ) {
        assert_eq!(ballot, self.acceptor.hard.promised, "P1: elected under another ballot");
        self.leader = Some(self.config.node);
        self.acceptor.held = self.acceptor.log.last_slot();
        // L2: the lease begins when the quorum has answered.
        let lease = Lease::new(now.latest(), promised, self.config.lease_ms * 1_000);
        let opening = self.acceptor.held.next();
        let truncate = self.acceptor.log.base().slot;
        let mut leading = Leading::new(ballot, lease, opening, truncate);
        leading.heartbeat_at = now.latest().plus_micros(self.config.heartbeat_ms * 1_000);
        self.role = Role::Leader(Box::new(leading));
        self.append(Payload::Noop, out);
        self.meet_peers(now, out);
        self.flush(now, out);
    }
}
