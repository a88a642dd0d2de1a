//! Phase 1: becoming the leader.

use crate::message::{Entry, Message, Output};
use crate::quorum::majority;
use crate::replica::{Replica, Role};
use crate::replication::Leading;
use bytes::Bytes;
use proto::{Ballot, NodeId, Slot};
use std::collections::{BTreeMap, BTreeSet};
use truetime::{Interval, Timestamp};

/// A candidate's collected promises.
#[derive(Debug)]
pub(crate) struct Candidacy {
    ballot: Ballot,
    /// What was known chosen when the prepare was sent; promises speak of the slots after.
    chosen: Slot,
    /// The instant before asking, by each voter that promised (L2).
    promised: BTreeMap<NodeId, Timestamp>,
    /// The longest log of the highest accepted ballot among the promises: that ballot, the slot
    /// of the first entry, the entries.
    best: (Ballot, Slot, Vec<Entry>),
}

impl Replica {
    /// Asks everyone whether a campaign could succeed (P8).
    pub(crate) fn canvass(&mut self, now: Interval, out: &mut Output) {
        let round = self.acceptor.hard.promised.round.max(self.highest_round) + 1;
        let ballot = Ballot { round, node: self.config.node };
        self.role = Role::Canvassing(ballot, BTreeSet::new());
        self.reset_election_timer(now);
        for peer in self.peers() {
            out.send.push((peer, Message::Canvass { ballot }));
        }
        let promised = self.acceptor.hard.promised;
        let free = self.acceptor.may_promise(now, ballot);
        self.on_canvassed(now, self.config.node, ballot, (free, promised), out);
    }

    pub(crate) fn on_canvass(
        &mut self,
        now: Interval,
        from: NodeId,
        ballot: Ballot,
        out: &mut Output,
    ) {
        let free = self.acceptor.may_promise(now, ballot);
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
        let voters = self.config.voters.len();
        let Role::Canvassing(asked, yes) = &mut self.role else { return };
        if *asked != ballot || !free {
            return;
        }
        yes.insert(from);
        if yes.contains(&self.config.node) && yes.len() >= majority(voters) {
            self.campaign(now, out);
        }
    }

    /// Asks everyone for a promise, itself included.
    pub(crate) fn campaign(&mut self, now: Interval, out: &mut Output) {
        let round = self.acceptor.hard.promised.round.max(self.highest_round) + 1;
        self.highest_round = round;
        let ballot = Ballot { round, node: self.config.node };
        let chosen = self.chosen;
        self.role = Role::Candidate(Candidacy {
            ballot,
            chosen,
            promised: BTreeMap::new(),
            best: (Ballot::default(), chosen.next(), Vec::new()),
        });
        let sent = now.earliest();
        let prepare = Message::Prepare { ballot, chosen, sent };
        // P1: after its own promise is on disk, or a restart could use the ballot once more.
        for peer in self.peers() {
            out.send_after.push((peer, prepare.clone()));
        }
        self.on_prepare(now, self.config.node, ballot, chosen, sent, out);
        self.reset_election_timer(now);
    }

    pub(crate) fn on_prepare(
        &mut self,
        now: Interval,
        from: NodeId,
        ballot: Ballot,
        chosen: Slot,
        sent: Timestamp,
        out: &mut Output,
    ) {
        if !self.acceptor.may_promise(now, ballot) {
            let promised = self.acceptor.hard.promised;
            out.send.push((from, Message::Reject { ballot, promised }));
            return;
        }
        if from != self.config.node {
            self.follow(now, None);
        }
        self.acceptor.promise(ballot, self.chosen, out);
        self.acceptor.grant(now, out);
        self.reset_election_timer(now);
        let first = chosen.next().max(self.acceptor.log.first());
        let entries = self.acceptor.log.from(first).map(|(_, entry)| entry.clone()).collect();
        let accepted = self.acceptor.hard.accepted;
        out.send_after.push((from, Message::Promise { ballot, sent, accepted, first, entries }));
    }

    pub(crate) fn on_promise(
        &mut self,
        now: Interval,
        from: NodeId,
        (ballot, sent): (Ballot, Timestamp),
        log: (Ballot, Slot, Vec<Entry>),
        out: &mut Output,
    ) {
        let voters = self.config.voters.len();
        let Role::Candidate(candidacy) = &mut self.role else { return };
        if candidacy.ballot != ballot {
            return;
        }
        candidacy.promised.insert(from, sent);
        // P3: compare by ballot, then by the last slot.
        let rank = |log: &(Ballot, Slot, Vec<Entry>)| (log.0, log.1.0 + log.2.len() as u64);
        if rank(&log) > rank(&candidacy.best) {
            candidacy.best = log;
        }
        // Its own promise comes from its own disk, like everyone's (P1), so a quorum with it
        // knows that the promise below is durable.
        let own = candidacy.promised.contains_key(&self.config.node);
        if own && candidacy.promised.len() >= majority(voters) {
            self.lead(now, out);
        }
    }

    /// A quorum has promised: re-propose what may be chosen, open the ballot with a no-op (P3).
    fn lead(&mut self, now: Interval, out: &mut Output) {
        let Role::Candidate(candidacy) = std::mem::replace(&mut self.role, Role::Follower) else {
            unreachable!("only a candidate is elected");
        };
        assert_eq!(
            candidacy.ballot, self.acceptor.hard.promised,
            "P1: elected under {}",
            candidacy.ballot
        );
        let (_, first, entries) = candidacy.best;
        // What the best voter has truncated was applied everywhere, so the own log has it.
        let start = candidacy.chosen.next();
        let own = self.acceptor.log.from(start).take_while(|(slot, _)| *slot < first);
        let mut payloads: Vec<Bytes> = own.map(|(_, entry)| entry.payload.clone()).collect();
        let truncated = Slot(start.0 + payloads.len() as u64);
        assert!(
            truncated >= first,
            "P3: {truncated} is missing here, the best voter begins at {first}"
        );
        payloads.extend(entries.into_iter().map(|entry| entry.payload));
        let first = start;
        payloads.push(Bytes::new());
        let opening = Slot(first.0 + payloads.len() as u64 - 1);
        self.leader = Some(self.config.node);
        // L2: the lease begins when the quorum has answered.
        self.role = Role::Leader(Leading::new(
            candidacy.ballot,
            now.latest(),
            opening,
            self.peers().map(|peer| (peer, candidacy.chosen.next())).collect(),
            candidacy.promised,
            self.acceptor.log.first().prev(),
        ));
        // `accept` leaves alone what is chosen here by now.
        self.acceptor.accept(first, payloads, (self.chosen, opening), out);
        self.own_accepted(now, out);
        self.send_accepts(now, out);
    }
}
