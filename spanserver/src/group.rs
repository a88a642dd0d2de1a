//! One replica of one group: a Paxos replica, a transaction manager, and the tablet they change.

mod safe_time;

use crate::meta;
use crate::server::{Answer, Message, Output};
use crate::settings::Settings;
use crate::snapshot::Arriving;
use crate::storage::{Durability, Engine, StorageError, WriteOp};
use bytes::Bytes;
use paxos::{Base, Configuration, Payload, Position, Replica, SnapshotId, Stored, Wanted};
use proto::plant::{Plant, planted};
use proto::request::{Body, Found, GroupStatus, Members, Reply, ReplyBody, Request};
use proto::universe::Descriptor;
use proto::{Command, Error, GroupId, NodeId, Seat, Slot, codec};
use rand::SeedableRng;
use rand::rngs::SmallRng;
use safe_time::Questions;
use std::collections::{BTreeMap, VecDeque};
use truetime::{Interval, Timestamp};
use txn::server::{Effects, Manager, ReadTag, Replicated, RequestId};

/// A request whose deadline lies further ahead is refused: what refuses a late repetition is
/// remembered only for some multiple of it.
const DEADLINE_US_MAX: u64 = 20_000_000;

/// How often a leader looks after silent clients, unanswered messages and its log's length.
const TICK_US: u64 = 100_000;

/// Chosen entries that are decoded ahead of their turn.
const HEADS_MAX: usize = 256;

/// What one step of a group puts out, before the server sorts it by what waits for the disk.
#[derive(Debug, Default)]
pub(crate) struct GroupOutput {
    pub log: Vec<WriteOp>,
    pub apply: Vec<WriteOp>,
    pub send: Vec<(NodeId, paxos::Message)>,
    pub send_after: Vec<(NodeId, paxos::Message)>,
    pub chunks: Vec<paxos::ChunkWanted>,
    pub forget: Vec<paxos::SnapshotId>,
}

/// The next entry to apply.
#[derive(Debug)]
enum Head {
    Noop,
    Command(Command),
    Configuration(Box<Configuration>),
}

impl Head {
    /// When it may take effect (X8).
    fn wait_for(&self) -> Option<Timestamp> {
        match self {
            Head::Command(command) => Manager::wait_for(command),
            Head::Noop | Head::Configuration(_) => None,
        }
    }
}

/// See the [module](self).
#[derive(Debug)]
pub struct Group {
    id: GroupId,
    node: NodeId,
    replica: Replica,
    manager: Manager,
    /// What is chosen and not applied yet, decoded, in slot order: it waits for its timestamp to
    /// pass, or for what is ahead of it.
    heads: VecDeque<(Slot, Head)>,
    /// A snapshot on its way here.
    arriving: Arriving,
    /// Who has replicas, as of what is applied.
    descriptor: Descriptor,
    /// While leading: when the manager is ticked next.
    tick_at: Timestamp,
    questions: Questions,
}

impl Group {
    /// A replica from its disk; a disk that has never seen the group makes one that belongs to
    /// nobody, with a seat of its own (P9). `granted`: see [`meta::granted`].
    ///
    /// # Errors
    /// I/O and corruption.
    pub fn recover(
        id: GroupId,
        node: NodeId,
        settings: &Settings,
        engine: &dyn Engine,
        granted: &BTreeMap<NodeId, Timestamp>,
    ) -> Result<Group, StorageError> {
        let recovered = meta::recover(engine, id)?;
        let config = settings.paxos(id, node);
        let stored = match recovered.stored {
            Some(mut stored) => {
                // L1: what was granted while the group slept.
                let holder = granted.get(&stored.hard.vote.node).copied().unwrap_or_default();
                stored.hard.vote_until = stored.hard.vote_until.max(holder);
                stored
            }
            None => {
                let seat = paxos::new_seat(&mut SmallRng::seed_from_u64(config.seed));
                let identity = meta::Identity { seat, ..meta::Identity::default() };
                engine.write(&[meta::identity_op(id, identity)], Durability::Synced)?;
                Stored { seat, ..Stored::default() }
            }
        };
        let hard = stored.hard;
        let replica = Replica::recover(config, stored);
        if replica.hard_state() != hard {
            // A log in repair: noted before anything in it is written again.
            engine.write(&[meta::hard_state_op(id, replica.hard_state())], Durability::Synced)?;
        }
        let manager = Manager::new(id, settings.txn, recovered.replicated);
        let (at, configuration) = meta::configuration(engine, id)?;
        Ok(Group {
            id,
            node,
            replica,
            manager,
            heads: VecDeque::new(),
            arriving: Arriving::default(),
            descriptor: describe(id, at, &configuration),
            tick_at: Timestamp::MIN,
            questions: Questions::default(),
        })
    }

    /// The Paxos replica, for checkers and status.
    pub fn replica(&self) -> &Replica {
        &self.replica
    }

    /// The transaction manager, for checkers and status.
    pub fn manager(&self) -> &Manager {
        &self.manager
    }

    /// A message of this group's Paxos, from which life of the peer's replica.
    pub(crate) fn paxos(
        &mut self,
        now: Interval,
        from: (NodeId, Seat),
        message: paxos::Message,
        out: &mut Output,
        mine: &mut GroupOutput,
    ) {
        if let paxos::Message::Chunk { chunk, .. } = &message
            && !Arriving::is_part(&chunk.data)
        {
            return; // a peer's nonsense, which its checksum fits
        }
        let mut px = paxos::Output::default();
        self.replica.step(now, from, message, &mut px);
        self.follow_role(now, out, mine);
        self.take(px, mine);
        self.settle(now, out, mine);
    }

    /// A part of a snapshot that a member wants has been read.
    pub(crate) fn chunk_read(
        &mut self,
        now: Interval,
        part: (SnapshotId, u64),
        base: Base,
        content: (Bytes, bool),
        mine: &mut GroupOutput,
    ) {
        let mut px = paxos::Output::default();
        self.replica.chunk_read(now, part, base, content, &mut px);
        self.take(px, mine);
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
        let Request { ballot, deadline, body, generation, .. } = request;
        let body = match body {
            Body::Status => {
                let body = ReplyBody::Status(self.status());
                let reply = Reply { ballot: self.replica.promised(), body };
                return out.reply.push(Answer { id, result: Ok(reply), lease_end: None });
            }
            Body::Members(_) | Body::Transfer { .. } => {
                return self.govern(now, id, body, out, mine);
            }
            body => body,
        };
        let refusal = if self.replica.is_removed() {
            Some(Error::StaleRoute { descriptor: None })
        } else if generation < self.descriptor.generation {
            Some(Error::StaleRoute { descriptor: Some(Box::new(self.descriptor.clone())) }) // X12
        } else if now.after(deadline) {
            Some(Error::DeadlineExceeded("the request arrived after its deadline".into()))
        } else if deadline > now.latest().plus_micros(DEADLINE_US_MAX) {
            Some(Error::InvalidArgument("the deadline lies too far in the future".into()))
        } else if matches!(body, Body::Snapshot { .. } | Body::SafeTime { .. }) {
            return self.read(now, (id, deadline), body, out, mine);
        } else if !self.serves(now) {
            Some(Error::NotLeader { hint: self.hint() })
        } else if !self.replica.admits()
            && matches!(body, Body::Prepare { .. } | Body::Commit { .. })
        {
            let what = format!("{} has too much to replicate already; try again", self.id);
            Some(Error::ResourceExhausted(what))
        } else {
            None
        };
        if let Some(error) = refusal {
            return out.reply.push(Answer { id, result: Err(error), lease_end: None });
        }
        let mut fx = Effects::default();
        self.manager.request(now, id, (ballot, deadline), body, &mut fx);
        self.carry_out(fx, out, mine);
    }

    /// A request about the group itself: its members (P9), its leader (P10).
    fn govern(
        &mut self,
        now: Interval,
        id: RequestId,
        body: Body,
        out: &mut Output,
        mine: &mut GroupOutput,
    ) {
        let Some(ballot) = self.replica.leading() else {
            let error = Error::NotLeader { hint: self.hint() };
            return out.reply.push(Answer { id, result: Err(error), lease_end: None });
        };
        let mut px = paxos::Output::default();
        let begun = match body {
            Body::Members(Members { voters, witnesses, learners }) => {
                self.replica.change(now, Wanted { voters, witnesses, learners }, &mut px)
            }
            Body::Transfer { to } => self.replica.transfer(now, to),
            _ => Err("not about the group".into()),
        };
        self.take(px, mine);
        let result = match begun {
            Ok(()) => Ok(Reply { ballot, body: ReplyBody::Done }),
            Err(why) => Err(Error::FailedPrecondition(format!("{}: {why}", self.id))),
        };
        out.reply.push(Answer { id, result, lease_end: None });
    }

    fn hint(&self) -> Option<NodeId> {
        let hint = self.replica.transferring().or(self.replica.leader_hint());
        hint.filter(|leader| *leader != self.node)
    }

    /// A read has run.
    pub(crate) fn read_done(
        &mut self,
        now: Interval,
        tag: ReadTag,
        found: Found,
        out: &mut Output,
        mine: &mut GroupOutput,
    ) {
        let mut fx = Effects::default();
        self.manager.read_done(now, tag, found, &mut fx);
        self.carry_out(fx, out, mine);
    }

    /// See [`Replica::vouched`].
    pub(crate) fn vouched(&mut self, member: NodeId, sent: Timestamp) {
        self.replica.vouched(member, sent);
        if let Some(end) = self.replica.lease_end() {
            self.manager.lease(end);
        }
    }

    /// See [`Replica::extend_vote`].
    pub(crate) fn extend_vote(&mut self, until: Timestamp) {
        self.replica.extend_vote(until);
    }

    /// See [`Replica::clock_mended`].
    pub(crate) fn clock_mended(&mut self, now: Interval, out: &mut Output, mine: &mut GroupOutput) {
        let mut px = paxos::Output::default();
        self.replica.clock_mended(now, &mut px);
        self.tick_at = Timestamp::MIN;
        self.forget_questions();
        self.follow_role(now, out, mine);
        self.take(px, mine);
    }

    /// See [`Replica::wake`].
    pub(crate) fn wake(&mut self, now: Interval) {
        self.replica.wake(now);
        self.tick_at = Timestamp::MIN;
    }

    /// Time has come for something.
    pub(crate) fn tick(&mut self, now: Interval, out: &mut Output, mine: &mut GroupOutput) {
        self.replica.set_idle(self.manager.quiet_until().is_some());
        if now.after(self.replica.wake_at()) {
            let mut px = paxos::Output::default();
            self.replica.tick(now, &mut px);
            self.take(px, mine);
            self.follow_role(now, out, mine);
        }
        // Apart from heartbeats, which a busy leader has no need of.
        if self.manager.serving().is_some() && now.after(self.tick_at) {
            self.tick_at = now.latest().plus_micros(TICK_US);
            let mut px = paxos::Output::default();
            self.replica.advance_truncation(now, &mut px);
            self.take(px, mine);
            let mut fx = Effects::default();
            self.manager.tick(now, &mut fx);
            self.carry_out(fx, out, mine);
            if self.replica.asleep().is_none() {
                self.tell_members(now, out);
            }
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
        let head = self.heads.front().and_then(|(_, head)| head.wait_for());
        let quiet = self.manager.quiet_until().filter(|_| self.replica.asleep().is_some());
        let tick = self.manager.serving().map(|_| quiet.unwrap_or(self.tick_at).max(self.tick_at));
        let hand_over = self.replica.may_hand_over().then(|| self.manager.bound_until()).flatten();
        let wakes = [head, tick, hand_over].into_iter().flatten();
        let reads = self.finish_reads(now, out, mine);
        wakes.fold(self.replica.wake_at().min(reads), Timestamp::min)
    }

    /// Leads, has opened its ballot, has a valid lease (L6, P3), and is not handing over (P10).
    fn serves(&self, now: Interval) -> bool {
        let lease = self.replica.lease_end().is_some_and(|end| now.before(end));
        lease
            && self.manager.serving().is_some()
            && self.manager.serving() == self.replica.leading()
            && self.replica.transferring().is_none()
    }

    /// Brings the parts into step with each other: applies what is chosen, follows changes of
    /// leadership.
    fn settle(&mut self, now: Interval, out: &mut Output, mine: &mut GroupOutput) {
        self.follow_role(now, out, mine);
        loop {
            self.take_chosen(now, out, mine);
            let Some((slot, head)) = self.heads.pop_front() else { break };
            let early = head.wait_for().is_some_and(|at| !now.after(at));
            let follows = self.manager.serving().is_none();
            let rash =
                planted(Plant::CommitWaitOff) || (planted(Plant::FollowerAppliesEarly) && follows);
            if early && !rash && !self.replica.is_witness() {
                self.heads.push_front((slot, head)); // X8, at leaders and followers alike
                break;
            }
            self.apply(now, slot, head, out, mine);
            self.follow_role(now, out, mine);
        }
        self.hand_over(now, out, mine);
    }

    /// One entry takes effect. A witness only notes that it was there.
    fn apply(
        &mut self,
        now: Interval,
        slot: Slot,
        head: Head,
        out: &mut Output,
        mine: &mut GroupOutput,
    ) {
        let ballot = self.replica.ballot_at(slot).expect("what is applied is in the log");
        let position = Position { ballot, slot };
        let mut fx = Effects::default();
        let mut changes = Vec::new();
        match head {
            Head::Command(command) if !self.replica.is_witness() => {
                changes = self.manager.apply(now, command, &mut fx);
            }
            Head::Configuration(configuration) => {
                self.descriptor = describe(self.id, position, &configuration);
                mine.apply.push(meta::configuration_op(self.id, position, &configuration));
            }
            Head::Command(_) | Head::Noop => {}
        }
        let applied = meta::Applied { position, at: self.manager.replicated().applied_at };
        meta::apply_ops(self.id, applied, changes, &mut mine.apply);
        let mut px = paxos::Output::default();
        self.replica.applied(now, slot, &mut px);
        self.take(px, mine);
        self.carry_out(fx, out, mine);
    }

    /// P10: the target is level and nothing is left to do here; L5: every timestamp handed out has
    /// passed.
    fn hand_over(&mut self, now: Interval, out: &mut Output, mine: &mut GroupOutput) {
        if !self.replica.may_hand_over() {
            return;
        }
        let passed = self.manager.bound_until().is_none_or(|bound| now.after(bound));
        if !passed && !planted(Plant::AbdicateEarly) {
            return;
        }
        let mut px = paxos::Output::default();
        self.replica.hand_over(now, &mut px);
        self.take(px, mine);
        self.follow_role(now, out, mine);
    }

    /// Decodes what is chosen, and tells the manager of it, in slot order.
    fn take_chosen(&mut self, now: Interval, out: &mut Output, mine: &mut GroupOutput) {
        let (_, _, _, applied) = self.replica.positions();
        let mut slot = self.heads.back().map_or(applied, |(slot, _)| *slot).next();
        // Only a leader has somebody to tell.
        let ahead = if self.manager.serving().is_some() { HEADS_MAX } else { 1 };
        while self.heads.len() < ahead
            && let Some(payload) = self.replica.chosen_at(slot)
        {
            let head = match payload {
                Payload::Noop => Head::Noop,
                Payload::Configuration(configuration) => {
                    Head::Configuration(Box::new(configuration.clone()))
                }
                // Every replica holds these bytes; they were encoded by a leader and checked on
                // the way.
                Payload::Command(bytes) => Head::Command(
                    codec::decode(bytes)
                        .unwrap_or_else(|e| panic!("P2: {} {slot} is not a command: {e}", self.id)),
                ),
            };
            if let Head::Command(command) = &head
                && self.manager.serving().is_some()
            {
                let mut fx = Effects::default();
                self.manager.chosen(now, command, &mut fx);
                self.carry_out(fx, out, mine);
            }
            self.heads.push_back((slot, head));
            slot = slot.next();
        }
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
        // A witness leads until somebody with a tablet can; it has nothing to serve from.
        if self.manager.serving().is_some() {
            self.manager.lease(end);
        } else if self.replica.opened() && now.before(end) && !self.replica.is_witness() {
            self.manager.lead(ballot, start, end);
        }
    }

    fn carry_out(&mut self, fx: Effects, out: &mut Output, mine: &mut GroupOutput) {
        let Effects { propose, reply, read, send } = fx;
        for command in propose {
            let mut px = paxos::Output::default();
            let slot = self.replica.propose(Bytes::from(codec::encode(&command)), &mut px);
            let slot = slot.expect("only a leader's manager proposes");
            self.manager.proposed(slot, &command);
            self.take(px, mine);
        }
        let ballot = self.replica.promised();
        for (id, answer) in reply {
            // L6: what was read under locks is told under the lease, and so is what a leader takes
            // for the newest timestamp. What was read at a safe one stays true (R2).
            let leased = matches!(answer, Ok(ReplyBody::Read { .. } | ReplyBody::SafeTime(_)));
            let lease_end = self.replica.lease_end().filter(|_| leased);
            let result = answer.map(|body| Reply { ballot, body });
            out.reply.push(Answer { id, result, lease_end });
        }
        out.read.extend(read.into_iter().map(|job| (self.id, job)));
        // To the own node first: whichever of its groups it is for knows its leader.
        out.send.extend(send.into_iter().map(|message| (self.node, Message::Txn(message))));
    }

    fn take(&mut self, px: paxos::Output, mine: &mut GroupOutput) {
        for write in px.writes {
            self.write(write, mine);
        }
        mine.chunks.extend(px.read);
        mine.forget.extend(px.forget);
        mine.send.extend(px.send);
        mine.send_after.extend(px.send_after);
    }

    /// Turns a write of the replica into storage operations; snapshots change the manager too.
    fn write(&mut self, write: paxos::Write, mine: &mut GroupOutput) {
        match &write {
            paxos::Write::StageFirst(_) => self.arriving = Arriving::default(),
            paxos::Write::Install { .. } | paxos::Write::Rebirth(..) => self.heads.clear(),
            _ => {}
        }
        match write {
            paxos::Write::StageFirst(data) => {
                mine.log.push(WriteOp::DropStage { group: self.id });
                self.arriving.take(&data, self.id, &mut mine.log);
            }
            paxos::Write::StageMore(data) => self.arriving.take(&data, self.id, &mut mine.log),
            paxos::Write::Install { base, keep_log } => {
                let replicated = std::mem::take(&mut self.arriving).replicated;
                meta::install_ops(self.id, &base, keep_log, &replicated, &mut mine.log);
                self.manager.replaced(replicated);
                self.descriptor = describe(self.id, base.configured_at, &base.configuration);
            }
            paxos::Write::Bury(seat) => {
                self.manager.dropped();
                let identity = meta::Identity { seat, removed: true, ..self.identity() };
                mine.log.push(WriteOp::DropTablet { group: self.id });
                mine.log.push(meta::identity_op(self.id, identity));
            }
            paxos::Write::Invited(seat, invited) => {
                let identity = meta::Identity { seat, removed: false, invited };
                mine.log.push(meta::identity_op(self.id, identity));
            }
            paxos::Write::Rebirth(seat, invited) => {
                let identity = meta::Identity { seat, removed: false, invited };
                meta::rebirth_ops(self.id, identity, &mut mine.log);
                self.manager.replaced(Replicated::default());
                self.descriptor = Descriptor { group: self.id, ..Descriptor::default() };
            }
            other => meta::log_ops(self.id, other, &mut mine.log),
        }
    }

    fn identity(&self) -> meta::Identity {
        let replica = &self.replica;
        meta::Identity {
            seat: replica.seat(),
            removed: replica.is_removed(),
            invited: replica.invited(),
        }
    }

    /// Who has replicas, as of what is applied here.
    pub fn descriptor(&self) -> &Descriptor {
        &self.descriptor
    }

    /// The group at a glance.
    pub fn status(&self) -> GroupStatus {
        let (_, configuration) = self.replica.configuration();
        let members = members_of(configuration);
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
            members,
            joint: configuration.is_joint(),
            changing: self.replica.changing(),
            repairing: self.replica.is_in_repair(),
            generation: self.descriptor.generation,
            asleep: self.replica.asleep().is_some(),
            removed: self.replica.is_removed(),
        }
    }
}

fn members_of(configuration: &Configuration) -> Members {
    let witness = |node: &NodeId| configuration.is_witness(*node);
    Members {
        voters: configuration.voters.clone(),
        witnesses: configuration.voters.iter().copied().filter(witness).collect(),
        learners: configuration.learners().collect(),
    }
}

fn describe(group: GroupId, at: Position, configuration: &Configuration) -> Descriptor {
    Descriptor { group, generation: at.slot.0, members: members_of(configuration) }
}
