//! Carries out what a step asks for, one effect after the other: between any two of them the
//! process may crash or be paused.

use crate::checkers::{lease_disjoint, receipt, visibility};
use crate::history::Violation;
use crate::node::{Action, SimNode, Trap};
use crate::world::World;
use paxos::{ChunkWanted, Message as Paxos, Position, SnapshotId};
use proto::request::{Reply, ReplyBody};
use proto::{Error, GroupId, NodeId, Seat};
use rand::Rng;
use spanserver::storage::{Durability, Engine, WriteOp};
use spanserver::{Answer, Event, Message, Output, Persist};
use std::collections::VecDeque;
use truetime::{ClockError, Status};
use txn::server::{ReadJob, RequestId};

/// Longest sync of a slow disk.
const SLOW_SYNC_NS: u64 = 300_000_000;

/// How often a clock without a bound is asked again.
const CLOCK_RETRY_NS: u64 = 5_000_000;

/// One thing a step asks for.
pub(crate) enum Effect {
    Apply(Vec<WriteOp>),
    Persist(Persist),
    Send(NodeId, Message),
    Forget(GroupId, SnapshotId),
    Chunk(GroupId, ChunkWanted),
    Read(GroupId, ReadJob),
    Reply(Answer),
}

/// The effects of an output, in the order they have to be carried out.
pub(crate) fn in_order(out: Output) -> VecDeque<Effect> {
    let Output { apply, persist, send, forget, chunks, read, reply, wake_after: _ } = out;
    let mut effects = VecDeque::new();
    if !apply.is_empty() {
        effects.push_back(Effect::Apply(apply));
    }
    effects.extend(persist.map(Effect::Persist));
    effects.extend(send.into_iter().map(|(to, message)| Effect::Send(to, message)));
    effects.extend(forget.into_iter().map(|(group, id)| Effect::Forget(group, id)));
    effects.extend(chunks.into_iter().map(|(group, wanted)| Effect::Chunk(group, wanted)));
    effects.extend(read.into_iter().map(|(group, job)| Effect::Read(group, job)));
    effects.extend(reply.into_iter().map(Effect::Reply));
    effects
}

/// What a client hears from a node whose clock has no bound (X11).
fn unavailable(error: &ClockError) -> Error {
    Error::ClockUnavailable { reason: error.to_string() }
}

impl World {
    pub(crate) fn carry_out(
        &mut self,
        node: NodeId,
        mut effects: VecDeque<Effect>,
    ) -> Result<(), Violation> {
        while let Some(effect) = effects.pop_front() {
            match self.node(node).spring_trap() {
                None => self.effect(node, effect)?,
                Some(Trap { strike, point, .. }) => {
                    effects.push_front(effect);
                    if !self.strike(node, strike, point, &mut effects) {
                        return Ok(());
                    }
                }
            }
        }
        Ok(())
    }

    fn effect(&mut self, node: NodeId, effect: Effect) -> Result<(), Violation> {
        let now_ns = self.now_ns();
        let life = self.node(node).life;
        match effect {
            Effect::Apply(ops) => {
                self.judge(visibility::check(now_ns, node, &ops))?;
                self.node(node).engine.write(&ops, Durability::Buffered).expect("memory writes");
                self.compare_contents(node, self.contents_every)
            }
            Effect::Persist(Persist { batch, ops }) => {
                let sync_ns = self.sync_ns(node);
                let installs = ops.iter().filter(|op| matches!(op, WriteOp::InstallStage { .. }));
                self.tally.snapshots_installed += installs.count() as u64;
                let this = self.node(node);
                let done = this.syncs.take(now_ns, sync_ns);
                this.writing.push_back((batch, ops));
                self.schedule(done - now_ns, Action::DiskDone { node, life, batch });
                Ok(())
            }
            Effect::Send(to, message) => {
                self.remember_said(node, &message);
                for delay in self.network.carry(&self.options, Some((node, to))) {
                    let message = message.clone();
                    self.schedule(delay, Action::Deliver { to, from: node, message });
                }
                Ok(())
            }
            Effect::Forget(group, id) => {
                self.node(node).pins.forget(group, id);
                Ok(())
            }
            Effect::Chunk(group, wanted) => {
                let SimNode { pins, engine, .. } = self.node(node);
                let event = pins.read(engine.as_ref(), group, wanted).expect("memory reads");
                let delay = self.disk.random_range(5_000..500_000);
                self.schedule(delay, Action::Come { node, life, event });
                Ok(())
            }
            Effect::Read(group, job) => {
                let delay = self.disk.random_range(5_000..200_000);
                self.schedule(delay, Action::Read { node, life, group, job });
                Ok(())
            }
            Effect::Reply(answer) => self.reply(node, answer),
        }
    }

    fn sync_ns(&mut self, node: NodeId) -> u64 {
        let slow = self.node(node).slow_until_ns > self.now_ns();
        let (shortest_us, longest_us) = self.options.sync_us;
        let longest = if slow { SLOW_SYNC_NS } else { longest_us * 1_000 };
        self.disk.random_range(shortest_us * 1_000..=longest)
    }

    fn reply(&mut self, node: NodeId, answer: Answer) -> Result<(), Violation> {
        // L6: the clock is read as the answer leaves, not when it was made.
        let lease_end = answer.lease_end;
        let (id, answer) = match self.read_clock(node)? {
            Ok(now) => answer.leave(now),
            Err(error) => {
                self.node(node).clock_was_wrong |= error.status == Status::Broken;
                (answer.id, Err(unavailable(&error)))
            }
        };
        if let (Some(lease_end), Ok(_)) = (lease_end, &answer) {
            self.judge(lease_disjoint::leaves(self.now_ns(), node, lease_end))?;
        }
        if let Ok(Reply { body: ReplyBody::Committed(given), .. }) = &answer {
            self.judge(receipt::check(given))?;
        }
        self.answer(node, id, answer);
        Ok(())
    }

    /// An answer sets out for its client.
    fn answer(&mut self, node: NodeId, id: RequestId, answer: Result<Reply, Error>) {
        self.answered(node, id, &answer);
        for delay in self.network.carry(&self.options, None) {
            self.schedule(delay, Action::Reply { id, answer: answer.clone() });
        }
    }

    /// A node whose clock has no bound decides nothing, as its shards in production (T5): clients
    /// are refused, what peers say is as good as lost on the way, and what the disk and the readers
    /// say waits. The clock is asked again soon.
    pub(crate) fn refuse(&mut self, node: NodeId, events: Vec<Event>, error: &ClockError) {
        for event in events {
            match event {
                Event::Message { .. } => {}
                Event::Request { id, .. } => self.answer(node, id, Err(unavailable(error))),
                other => self.node(node).deferred.push(other),
            }
        }
        self.node(node).clock_was_wrong |= error.status == Status::Broken;
        self.wake_in(node, CLOCK_RETRY_NS);
    }

    /// P1: what leaves the process is remembered, to be asked about after a restart.
    fn remember_said(&mut self, node: NodeId, message: &Message) {
        let Message::Paxos { group, seat, message } = message else { return };
        let (group, seat) = (*group, *seat);
        match message {
            Paxos::Promise { ballot, .. } => {
                self.watch.durability.promised(node, group, seat, *ballot);
            }
            Paxos::Accepted { ballot, upto, .. } => {
                let position = self.position(node, group, seat, *upto);
                // The entry may have been replaced since: that is not what was said.
                if let Some(position) = position.filter(|position| position.ballot <= *ballot) {
                    self.watch.durability.accepted(node, group, seat, position);
                }
            }
            _ => {}
        }
    }

    fn position(
        &self,
        node: NodeId,
        group: GroupId,
        seat: Seat,
        slot: proto::Slot,
    ) -> Option<Position> {
        let replica = self.replica(node, group).filter(|replica| replica.seat() == seat)?;
        Some(Position { ballot: replica.ballot_at(slot)?, slot })
    }
}
