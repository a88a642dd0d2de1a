//! One replica of one group: a Paxos replica, a transaction manager, and the tablet they change.

use crate::meta;
use crate::server::{Message, Output};
use crate::storage::{Engine, StorageError, WriteOp};
use bytes::Bytes;
use paxos::Replica;
use proto::plant::{Plant, planted};
use proto::request::{Body, GroupStatus, Reply, ReplyBody, Request};
use proto::{Ballot, Command, Error, GroupId, NodeId, Slot, TxnId, codec};
use truetime::{Interval, Timestamp};
use txn::server::{Effects, Manager, ReadResult, RequestId};

/// A request whose deadline lies further ahead is refused: what refuses a late repetition is
/// remembered only for some multiple of it.
const DEADLINE_US_MAX: u64 = 20_000_000;

/// How often a leader looks after silent clients, unanswered messages and its log's length.
const TICK_US: u64 = 100_000;

/// What all groups of a server are told.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The nodes that host replicas, ascending.
    pub voters: Vec<NodeId>,
    /// See [`paxos::Config`].
    pub lease_ms: u64,
    /// See [`paxos::Config`].
    pub heartbeat_ms: u64,
    /// See [`paxos::Config`].
    pub election_jitter_ms: u64,
    /// See [`txn::server::Config`].
    pub txn: txn::server::Config,
    /// Seed of what is random.
    pub seed: u64,
}

impl Settings {
    /// Settings for these voters.
    pub fn new(voters: Vec<NodeId>) -> Settings {
        Settings {
            voters,
            lease_ms: 500,
            heartbeat_ms: 100,
            election_jitter_ms: 150,
            txn: txn::server::Config::default(),
            seed: 0,
        }
    }

    /// Refuses settings that cannot work (L7).
    ///
    /// # Errors
    /// Says which setting, and why.
    pub fn validate(&self, epsilon_us_worst: u64) -> Result<(), String> {
        let node = self.voters.first().copied().ok_or("a group needs a voter")?;
        self.paxos(GroupId::ROOT, node).validate(epsilon_us_worst)
    }

    fn paxos(&self, group: GroupId, node: NodeId) -> paxos::Config {
        paxos::Config {
            node,
            voters: self.voters.clone(),
            lease_ms: self.lease_ms,
            heartbeat_ms: self.heartbeat_ms,
            election_jitter_ms: self.election_jitter_ms,
            seed: self.seed ^ (u64::from(group.0) << 32) ^ u64::from(node.0),
        }
    }
}

/// What one step of a group puts out, before the server sorts it by what waits for the disk.
#[derive(Debug, Default)]
pub(crate) struct GroupOutput {
    pub log: Vec<WriteOp>,
    pub apply: Vec<WriteOp>,
    pub send: Vec<(NodeId, paxos::Message)>,
    pub send_after: Vec<(NodeId, paxos::Message)>,
}

/// See the [module](self).
#[derive(Debug)]
pub struct Group {
    id: GroupId,
    node: NodeId,
    replica: Replica,
    manager: Manager,
    /// The next command to apply, decoded, while it waits for its timestamp to pass.
    head: Option<(Slot, Command)>,
    /// While leading: when the manager is ticked next.
    tick_at: Timestamp,
}

impl Group {
    /// A replica from its disk.
    ///
    /// # Errors
    /// I/O and corruption.
    pub fn recover(
        id: GroupId,
        node: NodeId,
        settings: &Settings,
        engine: &dyn Engine,
    ) -> Result<Group, StorageError> {
        let recovered = meta::recover(engine, id)?;
        let hard = recovered.hard;
        let replica =
            Replica::recover(settings.paxos(id, node), hard, recovered.entries, recovered.applied);
        let manager = Manager::new(id, settings.txn, recovered.replicated);
        Ok(Group { id, node, replica, manager, head: None, tick_at: Timestamp::MIN })
    }

    /// The Paxos replica, for checkers and status.
    pub fn replica(&self) -> &Replica {
        &self.replica
    }

    /// The transaction manager, for checkers and status.
    pub fn manager(&self) -> &Manager {
        &self.manager
    }

    /// A message of this group's Paxos.
    pub(crate) fn paxos(
        &mut self,
        now: Interval,
        from: NodeId,
        message: paxos::Message,
        out: &mut Output,
        mine: &mut GroupOutput,
    ) {
        let mut px = paxos::Output::default();
        self.replica.step(now, from, message, &mut px);
        self.take(px, mine);
        self.settle(now, out, mine);
    }

    /// A message of another group's transaction manager.
    pub(crate) fn peer(
        &mut self,
        now: Interval,
        message: proto::peer::PeerMessage,
        out: &mut Output,
        mine: &mut GroupOutput,
    ) {
        let mut fx = Effects::default();
        self.manager.peer(now, message, &mut fx);
        self.carry_out(fx, out, mine);
    }

    /// A client's request.
    pub(crate) fn request(
        &mut self,
        now: Interval,
        id: RequestId,
        request: Request,
        out: &mut Output,
        mine: &mut GroupOutput,
    ) {
        let Request { ballot, deadline, body, .. } = request;
        if matches!(body, Body::Status) {
            let body = ReplyBody::Status(self.status());
            out.reply.push((id, Ok(Reply { ballot: self.replica.promised(), body })));
            return;
        }
        let refusal = if now.after(deadline) {
            Some(Error::DeadlineExceeded("the request arrived after its deadline".into()))
        } else if deadline > now.latest().plus_micros(DEADLINE_US_MAX) {
            Some(Error::InvalidArgument("the deadline lies too far in the future".into()))
        } else if !self.serves(now) {
            let hint = self.replica.leader_hint().filter(|leader| *leader != self.node);
            Some(Error::NotLeader { hint })
        } else {
            None
        };
        if let Some(error) = refusal {
            out.reply.push((id, Err(error)));
            return;
        }
        let mut fx = Effects::default();
        self.manager.request(now, id, (ballot, deadline), body, &mut fx);
        self.carry_out(fx, out, mine);
    }

    /// A read has run.
    pub(crate) fn read_done(
        &mut self,
        now: Interval,
        id: RequestId,
        locked: (Option<TxnId>, Ballot),
        result: ReadResult,
        out: &mut Output,
        mine: &mut GroupOutput,
    ) {
        let mut fx = Effects::default();
        self.manager.read_done(now, id, locked, result, &mut fx);
        self.carry_out(fx, out, mine);
    }

    /// Time has come for something.
    pub(crate) fn tick(&mut self, now: Interval, out: &mut Output, mine: &mut GroupOutput) {
        if now.after(self.replica.wake_at()) {
            let mut px = paxos::Output::default();
            self.replica.tick(now, &mut px);
            self.take(px, mine);
        }
        // Apart from heartbeats, which a busy leader has no need of.
        if self.manager.serving().is_some() && now.after(self.tick_at) {
            self.tick_at = now.latest().plus_micros(TICK_US);
            let mut px = paxos::Output::default();
            self.replica.advance_truncation(&mut px);
            self.take(px, mine);
            let mut fx = Effects::default();
            self.manager.tick(now, &mut fx);
            self.carry_out(fx, out, mine);
        }
        self.settle(now, out, mine);
    }

    /// Sends out what was proposed in this step (P5), and tells when to tick: `after` this.
    pub(crate) fn finish(
        &mut self,
        now: Interval,
        out: &mut Output,
        mine: &mut GroupOutput,
    ) -> Timestamp {
        let mut px = paxos::Output::default();
        self.replica.flush(now, &mut px);
        self.take(px, mine);
        self.settle(now, out, mine);
        let head = self.head.as_ref().and_then(|(_, command)| Manager::wait_for(command));
        let tick = self.manager.serving().map(|_| self.tick_at);
        let wakes = [head, tick].into_iter().flatten();
        wakes.fold(self.replica.wake_at(), Timestamp::min)
    }

    /// Leads, has opened its ballot, and has a valid lease (L6, P3).
    fn serves(&self, now: Interval) -> bool {
        let lease = self.replica.lease_end().is_some_and(|end| now.before(end));
        lease
            && self.manager.serving().is_some()
            && self.manager.serving() == self.replica.leading()
    }

    /// Brings the parts into step with each other: applies what is chosen, follows changes of
    /// leadership.
    fn settle(&mut self, now: Interval, out: &mut Output, mine: &mut GroupOutput) {
        self.follow_role(now, out, mine);
        while let Some((slot, command)) = self.next_command() {
            let early = Manager::wait_for(&command).is_some_and(|at| !now.after(at));
            if early && !planted(Plant::CommitWaitOff) {
                self.head = Some((slot, command)); // X8, at leaders and followers alike
                break;
            }
            let mut fx = Effects::default();
            let changes = self.manager.apply(now, command, &mut fx);
            let applied_at = self.manager.replicated().applied_at;
            meta::apply_ops(self.id, slot, applied_at, changes, &mut mine.apply);
            self.replica.applied(slot);
            self.carry_out(fx, out, mine);
            self.follow_role(now, out, mine);
        }
    }

    fn next_command(&mut self) -> Option<(Slot, Command)> {
        if let Some(head) = self.head.take() {
            return Some(head);
        }
        let (slot, payload) = self.replica.next_to_apply()?;
        if payload.is_empty() {
            return Some((slot, Command::Noop));
        }
        let command = codec::decode(&payload);
        // Every replica holds these bytes; they were encoded by a leader and checked on the way.
        let command =
            command.unwrap_or_else(|e| panic!("P2: {} {slot} is not a command: {e}", self.id));
        Some((slot, command))
    }

    fn follow_role(&mut self, now: Interval, out: &mut Output, mine: &mut GroupOutput) {
        let leading = self.replica.leading();
        if self.manager.serving().is_some() && self.manager.serving() != leading {
            let mut fx = Effects::default();
            self.manager.follow(&mut fx);
            self.carry_out(fx, out, mine);
        }
        let (Some(ballot), Some(start), Some(end)) =
            (leading, self.replica.lease_start(), self.replica.lease_end())
        else {
            return;
        };
        if self.manager.serving().is_some() {
            self.manager.lease(end);
        } else if self.replica.opened() && now.before(end) {
            self.manager.lead(ballot, start, end);
        }
    }

    fn carry_out(&mut self, fx: Effects, out: &mut Output, mine: &mut GroupOutput) {
        let Effects { propose, reply, read, send } = fx;
        for command in propose {
            let mut px = paxos::Output::default();
            let slot = self.replica.propose(Bytes::from(codec::encode(&command)), &mut px);
            assert!(slot.is_some(), "only a leader's manager proposes");
            self.take(px, mine);
        }
        let ballot = self.replica.leading().unwrap_or_default();
        for (id, answer) in reply {
            out.reply.push((id, answer.map(|body| Reply { ballot, body })));
        }
        out.read.extend(read.into_iter().map(|job| (self.id, job)));
        // To the own node first: whichever of its groups it is for knows its leader.
        out.send.extend(send.into_iter().map(|message| (self.node, Message::Txn(message))));
    }

    fn take(&mut self, px: paxos::Output, mine: &mut GroupOutput) {
        mine.log.extend(px.writes.into_iter().map(|write| meta::log_op(self.id, write)));
        mine.send.extend(px.send);
        mine.send_after.extend(px.send_after);
    }

    fn status(&self) -> GroupStatus {
        let (first, last, chosen, applied) = self.replica.positions();
        let replicated = self.manager.replicated();
        GroupStatus {
            group: self.id,
            node: self.node,
            leader: self.replica.leader_hint(),
            ballot: self.replica.promised(),
            lease_end: self.replica.lease_end(),
            last,
            chosen,
            applied,
            first,
            safe_time: replicated.applied_at,
            prepared: replicated.prepared.len() as u64,
            lock_holders: self.manager.lock_holders() as u64,
        }
    }
}
