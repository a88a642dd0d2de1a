//! Reads at timestamps at this replica, and what leader and followers say for them (R2).
//!
//! ```text
//!   follower                                 leader, awake or asleep
//!     │ a read at t, beyond what is known       │
//!     │ AskMinNext { at: t } ─────────────────▶ │ s_max ≥ t; the last slot up to t is chosen
//!     │ ◀──────── MinNext { slot, at ≥ t }      │
//!   slot is applied: the read begins
//! ```
//! One question for all reads that wait, asked again now and then until they end. It is no business
//! of Paxos: a group that is asleep answers, and sleeps on. While it is awake, its leader says as
//! much on its own with every tick, so that reads which may be a little old need not ask; for groups
//! that are asleep the servers' beats do.

use super::{Group, GroupOutput};
use crate::server::{Answer, Message, Output};
use proto::request::Body;
use proto::{Ballot, Error, NodeId};
use std::collections::BTreeMap;
use truetime::{Interval, Timestamp};
use txn::server::{Effects, MinNext, RequestId};

/// A leader that has not answered is asked again after this long.
const ASK_AGAIN_US: u64 = 50_000;

/// Reads at later timestamps than the leader was asked for are asked for together, so often.
const ASK_MORE_US: u64 = 1_000;

/// Questions under way.
#[derive(Debug, Default)]
pub(super) struct Questions {
    /// At the leader: members that wait for its word, and up to where.
    asked: BTreeMap<NodeId, Timestamp>,
    /// At a follower: the last one, until it is answered.
    asking: Option<Asking>,
}

#[derive(Clone, Copy, Debug)]
struct Asking {
    whom: NodeId,
    upto: Timestamp,
    sent: Timestamp,
}

impl Group {
    /// The clock has been wrong: what was asked for by it, and when, means nothing (T5).
    pub(super) fn forget_questions(&mut self) {
        self.questions = Questions::default();
    }

    /// Whether there is anything to read here: not at a witness, nor at one that was removed, or
    /// belongs to no group yet.
    fn has_tablet(&self) -> bool {
        let blank = self.replica.configuration().1.members.is_empty();
        !blank && !self.replica.is_witness() && !self.replica.is_removed()
    }

    /// A read at a timestamp, or the question for one. Any replica with a tablet answers.
    pub(super) fn read(
        &mut self,
        now: Interval,
        (id, deadline): (RequestId, Timestamp),
        body: Body,
        out: &mut Output,
        mine: &mut GroupOutput,
    ) {
        if !self.has_tablet() {
            let error = Error::NotLeader { hint: self.hint() };
            return out.reply.push(Answer { id, result: Err(error), lease_end: None });
        }
        let mut fx = Effects::default();
        self.manager.retiring(self.replica.transferring().is_some());
        self.manager.request(now, id, (None, deadline), body, &mut fx);
        let alone = self.replica.leading().is_none() && self.replica.leader_hint().is_none();
        if alone && self.manager.wants_word(now).is_some() {
            // Nobody to ask just now; the client may know better. Earlier ones have stayed.
            self.manager.refuse_reads(None, |read| read == id, &mut fx);
        }
        self.carry_out(fx, out, mine);
    }

    /// A member wants the leader's word up to a timestamp.
    pub(crate) fn asked(&mut self, from: NodeId, at: Timestamp) {
        let member = self.replica.configuration().1.members.contains_key(&from);
        if member && self.manager.serving().is_some() {
            // The newest question is for everything that is wanted there.
            self.questions.asked.insert(from, at);
        }
    }

    /// A leader gives its word. That stays true under any other ballot; what is chosen can be told
    /// only under this one.
    pub(crate) fn told(
        &mut self,
        now: Interval,
        from: NodeId,
        (ballot, word): (Ballot, MinNext),
        out: &mut Output,
        mine: &mut GroupOutput,
    ) {
        if ballot.node != from {
            return;
        }
        self.replica.told_chosen(ballot, word.slot);
        self.settle(now, out, mine);
        self.hear(MinNext { at: MinNext::believed(now, word.at), ..word });
        self.questions.asking.take_if(|asking| asking.upto <= word.at);
    }

    /// A word of the leader's has come, by whatever way.
    pub(crate) fn hear(&mut self, word: MinNext) {
        let (_, _, _, applied) = self.replica.positions();
        self.manager.hear(word, applied);
    }

    /// What was promised for this group while it slept here, where it is led.
    pub(crate) fn vow(&mut self, at: Timestamp) {
        self.manager.vow(at);
    }

    /// At a tick of the leader: what costs nothing to promise.
    pub(super) fn tell_members(&mut self, now: Interval, out: &mut Output) {
        let (_, _, chosen, applied) = self.replica.positions();
        self.manager.retiring(self.replica.transferring().is_some());
        let Some(word) = self.manager.min_next(now, None, (applied, chosen)) else { return };
        let (_, configuration) = self.replica.configuration();
        let me = self.node;
        let members = configuration.members.iter().filter(|(node, _)| **node != me);
        for (node, _) in members.filter(|(_, member)| !member.witness) {
            self.tell(*node, word, out);
        }
    }

    fn tell(&self, to: NodeId, word: MinNext, out: &mut Output) {
        if let Some(ballot) = self.replica.leading() {
            out.send.push((to, Message::MinNext { group: self.id, ballot, word }));
        }
    }

    /// Reads that can go on do so; what the others need is asked for, or said. After what is
    /// returned, once more.
    pub(super) fn finish_reads(
        &mut self,
        now: Interval,
        out: &mut Output,
        mine: &mut GroupOutput,
    ) -> Timestamp {
        let mut fx = Effects::default();
        if !self.has_tablet() {
            self.manager.refuse_reads(self.hint(), |_| true, &mut fx);
        }
        if self.replica.is_settled() {
            self.manager.settled();
        }
        self.manager.retiring(self.replica.transferring().is_some());
        let (_, _, _, applied) = self.replica.positions();
        self.manager.level(now, applied, &mut fx);
        self.carry_out(fx, out, mine);
        let due = self.manager.reads_due(now).unwrap_or(Timestamp::MAX);
        due.min(self.answer(now, out)).min(self.ask(now, out))
    }

    /// Members that have asked are answered as soon as that is possible.
    fn answer(&mut self, now: Interval, out: &mut Output) -> Timestamp {
        if self.questions.asked.is_empty() {
            return Timestamp::MAX;
        }
        let mut asked = std::mem::take(&mut self.questions.asked);
        if self.manager.serving().is_none() {
            return Timestamp::MAX; // they will find the next leader
        }
        let (_, _, chosen, applied) = self.replica.positions();
        let mut answers = Vec::new();
        asked.retain(|member, at| {
            let word = self.manager.min_next(now, Some(*at), (applied, chosen));
            answers.extend(word.map(|word| (*member, word)));
            word.is_none()
        });
        for (member, word) in answers {
            self.tell(member, word, out);
        }
        let due = asked.values().filter_map(|at| MinNext::near_after(now, *at)).min();
        self.questions.asked = asked;
        due.unwrap_or(Timestamp::MAX)
    }

    /// Asks the leader for what reads here wait for, if they wait for that.
    fn ask(&mut self, now: Interval, out: &mut Output) -> Timestamp {
        let leader = self.replica.leader_hint().filter(|leader| *leader != self.node);
        let (Some(at), Some(leader)) = (self.manager.wants_word(now), leader) else {
            self.questions.asking = None;
            return Timestamp::MAX;
        };
        if let Some(last) = self.questions.asking.filter(|last| last.whom == leader) {
            let pause_us = if at > last.upto { ASK_MORE_US } else { ASK_AGAIN_US };
            let not_before = last.sent.plus_micros(pause_us);
            if !now.after(not_before) {
                return not_before;
            }
        }
        let sent = now.latest();
        self.questions.asking = Some(Asking { whom: leader, upto: at, sent });
        out.send.push((leader, Message::AskMinNext { group: self.id, at }));
        sent.plus_micros(ASK_AGAIN_US)
    }
}
