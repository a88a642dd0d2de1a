//! The participant's half of two-phase commit (X6, X10).

use super::{Effects, Manager, RequestId, Then, exclusive, tickets_of};
use proto::command::PrepareRecord;
use proto::keys::Write;
use proto::peer::PeerBody;
use proto::plant::{Plant, planted};
use proto::request::{Age, Outcome, ReplyBody};
use proto::{Command, Error, GroupId, TxnId};
use truetime::{Interval, Timestamp};

/// A prepare request on its way to the log.
#[derive(Debug)]
pub(super) struct Preparing {
    pub id: RequestId,
    pub age: Age,
    pub coordinator: GroupId,
    pub writes: Vec<Write>,
}

/// A transaction that has only read here.
#[derive(Clone, Copy, Debug)]
pub(super) struct Validated {
    pub coordinator: GroupId,
    /// Its commit timestamp lies at or above, for what it has read was written below.
    at: Timestamp,
    /// And at or below: until then the read locks hold, whoever leads. Inside the lease.
    pub until: Timestamp,
    /// When that was first said.
    since: Timestamp,
}

impl Validated {
    pub fn body(&self) -> PeerBody {
        PeerBody::Validated { at: self.at, until: self.until }
    }
}

impl Manager {
    pub(super) fn on_prepare(
        &mut self,
        now: Interval,
        txn: TxnId,
        holds_locks: bool,
        current: bool,
        preparing: Preparing,
        out: &mut Effects,
    ) {
        let id = preparing.id;
        if preparing.coordinator == self.group {
            let what = format!("{} cannot be coordinator and participant of {txn}", self.group);
            out.reply.push((id, Err(Error::InvalidArgument(what))));
            return;
        }
        let Some(leading) = &mut self.leading else { return };
        // A repeated request: prepared, being prepared, or over.
        let recorded = self.replicated.outcomes.get(&txn).map(|record| record.outcome);
        if recorded.is_some() || self.replicated.prepared.contains_key(&txn) {
            if recorded == Some(Outcome::Aborted) {
                out.send.push(self.to(preparing.coordinator, txn, PeerBody::Refused));
            }
            out.reply.push((id, Ok(ReplyBody::Done)));
            return;
        }
        if let Some(requests) = leading.preparing.get_mut(&txn) {
            requests.push(id);
            return;
        }
        let mut waiting = leading.waiting.range(tickets_of(txn));
        if waiting.any(|(_, then)| matches!(then, Then::Prepare(_))) {
            out.reply.push((id, Ok(ReplyBody::Done))); // the coordinator hears how it ends
            return;
        }
        if let Some(validated) = leading.validated.get(&txn) {
            let body = validated.body();
            out.send.push(self.to(preparing.coordinator, txn, body));
            out.reply.push((id, Ok(ReplyBody::Done)));
            return;
        }
        let lost = holds_locks && !current && !planted(Plant::ReadLocksSurvive);
        let alive = match lost {
            true => Err(Error::aborted("the group changed its leader; read locks are gone (X3)")),
            false => self.touch(now, txn, holds_locks),
        };
        let coordinator = preparing.coordinator;
        let age = preparing.age;
        let spans = exclusive(preparing.writes.iter().map(|write| write.key.clone()));
        let locked = alive.and_then(|()| match preparing.writes.is_empty() {
            true => self.validate(now, txn, &preparing, out),
            false => self.lock(now, txn, age, spans, Then::Prepare(preparing), out),
        });
        if let Err(error) = locked {
            if error.is_aborted() {
                out.send.push(self.to(coordinator, txn, PeerBody::Refused));
            }
            out.reply.push((id, Err(error)));
        }
    }

    /// X6 for a group that was only read: nothing is logged. What the coordinator needs is that
    /// nobody writes what was read at or below its commit timestamp. This leader sees to that with
    /// the locks, and the next one gives out timestamps beyond this one's lease only (L3, L4): so it
    /// is true of every timestamp up to the end of the lease, whoever crashes.
    fn validate(
        &mut self,
        now: Interval,
        txn: TxnId,
        preparing: &Preparing,
        out: &mut Effects,
    ) -> Result<(), Error> {
        let Some(leading) = &mut self.leading else {
            return Err(Error::NotLeader { hint: None });
        };
        let validated = Validated {
            coordinator: preparing.coordinator,
            // What was read may have been written at s_max, and not be visible yet (X8).
            at: leading.s_max.next(),
            until: self.config.read_hold(now).min(leading.lease_end.prev()),
            since: now.latest(),
        };
        if validated.until < validated.at {
            return Err(Error::ResourceExhausted("the lease is being renewed".into()));
        }
        leading.locks.make_immune(txn);
        leading.active.remove(&txn);
        let body = validated.body();
        leading.validated.insert(txn, validated);
        let hinders = leading.locks.hinders_senior(txn);
        out.send.push(self.to(preparing.coordinator, txn, body));
        if hinders {
            out.send.push(self.to(preparing.coordinator, txn, PeerBody::Wound));
        }
        out.reply.push((preparing.id, Ok(ReplyBody::Done)));
        Ok(())
    }

    /// Extends what was promised of read locks, as far as the lease does, while their coordinators
    /// may be waiting for others; and says so, which also repeats what was lost (X10).
    pub(super) fn hold_validated(&mut self, now: Interval, out: &mut Effects) {
        let Some(leading) = &mut self.leading else { return };
        if !now.before(leading.lease_end) || self.reads.retiring {
            return; // a hand-over waits until all that was promised has passed (L5)
        }
        let longest_us = self.config.txn_timeout_ms * 1_000;
        let mut messages = Vec::new();
        for (txn, validated) in &mut leading.validated {
            let until = self.config.read_hold(now).min(leading.lease_end.prev());
            let until = until.min(validated.since.plus_micros(longest_us));
            if until > validated.until && !now.after(validated.until) {
                validated.until = until;
                let hinders = leading.locks.hinders_senior(*txn);
                messages.push((validated.coordinator, *txn, validated.body(), hinders));
            }
        }
        for (coordinator, txn, body, hinders) in messages {
            out.send.push(self.to(coordinator, txn, body));
            if hinders {
                out.send.push(self.to(coordinator, txn, PeerBody::Wound));
            }
        }
    }

    /// Read locks that have been kept for as long as was promised serve nobody any more: a decision
    /// at a later timestamp aborts.
    pub(super) fn expire_validated(&mut self, now: Interval, out: &mut Effects) {
        let Some(leading) = &self.leading else { return };
        let over = leading.validated.iter().filter(|(_, validated)| now.after(validated.until));
        for txn in over.map(|(txn, _)| *txn).collect::<Vec<_>>() {
            self.settle_validated(now, txn, None, out);
        }
    }

    /// The decision is known, or too late: the read locks go. Whether there were any.
    fn settle_validated(
        &mut self,
        now: Interval,
        txn: TxnId,
        committed: Option<Timestamp>,
        out: &mut Effects,
    ) -> bool {
        let Some(leading) = &mut self.leading else { return false };
        let Some(validated) = leading.validated.remove(&txn) else { return false };
        if let Some(at) = committed {
            assert!(at <= validated.until, "X6: {txn} committed at {at}, beyond its read locks");
            // What is written here from now on comes after the transaction.
            leading.s_max = leading.s_max.max(at);
        } else if now.after(validated.until) {
            leading.s_max = leading.s_max.max(validated.until);
        }
        self.end_without_record(now, txn, None, out);
        true
    }

    /// The locks are held: pick the prepare timestamp and log it.
    pub(super) fn locked_prepare(
        &mut self,
        now: Interval,
        txn: TxnId,
        preparing: Preparing,
        out: &mut Effects,
    ) {
        let Preparing { id, age, coordinator, writes } = preparing;
        let Some(timestamp) = self.assign(now, now.latest().next()) else {
            let error = Error::ResourceExhausted("the lease is being renewed".into());
            out.reply.push((id, Err(error)));
            return;
        };
        let Some(leading) = &mut self.leading else { return };
        if !planted(Plant::PreparedWounded) {
            leading.locks.make_immune(txn);
        }
        leading.preparing.insert(txn, vec![id]);
        leading.active.remove(&txn);
        let written = writes.iter().map(|write| &write.key).collect();
        let reads = leading.locks.spans_besides(txn, &written);
        let record = PrepareRecord { txn, age, timestamp, coordinator, writes, reads };
        if planted(Plant::PrepareUnlogged) {
            out.send.push(self.to(coordinator, txn, PeerBody::Prepared(timestamp)));
        }
        out.propose.push(Command::Prepare(record));
    }

    /// The prepare record is chosen and applied: tell the coordinator, and the client.
    pub(super) fn prepared(&mut self, record: &PrepareRecord, out: &mut Effects) {
        let Some(leading) = &mut self.leading else { return };
        let requests = leading.preparing.remove(&record.txn).unwrap_or_default();
        let hinders = leading.locks.hinders_senior(record.txn);
        out.send.push(self.to(
            record.coordinator,
            record.txn,
            PeerBody::Prepared(record.timestamp),
        ));
        if hinders {
            out.send.push(self.to(record.coordinator, record.txn, PeerBody::Wound));
        }
        for id in requests {
            out.reply.push((id, Ok(ReplyBody::Done)));
        }
    }

    /// The coordinator has decided.
    pub(super) fn on_decided(
        &mut self,
        now: Interval,
        from: GroupId,
        txn: TxnId,
        outcome: Outcome,
        out: &mut Effects,
    ) {
        let recorded = self.outcome(txn);
        let committed = match outcome {
            Outcome::Committed(at) => Some(at),
            Outcome::Aborted => None,
        };
        if self.settle_validated(now, txn, committed, out) {
            out.send.push(self.to(from, txn, PeerBody::Acknowledged));
            return;
        }
        let Some(leading) = &mut self.leading else { return };
        if self.replicated.prepared.contains_key(&txn) {
            if committed.is_some_and(|at| at >= leading.lease_end) {
                return; // L4: not before the lease is longer; the decision is repeated
            }
            if !leading.settling.insert(txn) {
                return; // proposed already
            }
            // Later entries of this group must lie above, so that `t_paxos` may pass it.
            leading.s_max = leading.s_max.max(committed.unwrap_or_default());
            out.propose.push(Command::Decide { txn, outcome });
        } else if leading.preparing.contains_key(&txn) {
            // The prepare record is still on its way into the log; the decision is repeated.
        } else {
            if let Some(recorded) = recorded {
                assert_eq!(recorded, outcome, "X9: {txn} was decided twice");
            } else if leading.active.contains_key(&txn) {
                // Aborted; or committed, and it only read here under an earlier leader: a late copy
                // of a request has brought it back.
                self.give_up(now, txn, "the transaction is over", out);
            }
            out.send.push(self.to(from, txn, PeerBody::Acknowledged));
        }
    }
}
