//! The participant's half of two-phase commit (X6, X10).

use super::{Effects, Manager, RequestId, Then, exclusive, tickets_of};
use proto::command::PrepareRecord;
use proto::keys::Write;
use proto::peer::PeerBody;
use proto::request::{Age, Outcome, ReplyBody};
use proto::{Command, Error, GroupId, TxnId};
use truetime::Interval;

/// A prepare request on its way to the log.
#[derive(Debug)]
pub(super) struct Preparing {
    pub id: RequestId,
    pub age: Age,
    pub coordinator: GroupId,
    pub writes: Vec<Write>,
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
        let alive = match holds_locks && !current {
            true => Err(Error::aborted("the group changed its leader; read locks are gone (X3)")),
            false => self.touch(now, txn, holds_locks),
        };
        let coordinator = preparing.coordinator;
        let age = preparing.age;
        let spans = exclusive(preparing.writes.iter().map(|write| write.key.clone()));
        let locked =
            alive.and_then(|()| self.lock(now, txn, age, spans, Then::Prepare(preparing), out));
        if let Err(error) = locked {
            if error.is_aborted() {
                out.send.push(self.to(coordinator, txn, PeerBody::Refused));
            }
            out.reply.push((id, Err(error)));
        }
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
        leading.locks.make_immune(txn);
        leading.preparing.insert(txn, vec![id]);
        leading.active.remove(&txn);
        let written = writes.iter().map(|write| &write.key).collect();
        let reads = leading.locks.spans_besides(txn, &written);
        let record = PrepareRecord { txn, age, timestamp, coordinator, writes, reads };
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
        let Some(leading) = &mut self.leading else { return };
        if self.replicated.prepared.contains_key(&txn) {
            if !leading.settling.insert(txn) {
                return; // proposed already
            }
            if let Outcome::Committed(at) = outcome {
                // Later entries of this group must lie above, so that `t_paxos` may pass it. The
                // commit wait is over (X8), so `at` is in the past of a valid lease (L4).
                leading.s_max = leading.s_max.max(at);
            }
            out.propose.push(Command::Decide { txn, outcome });
        } else if leading.preparing.contains_key(&txn) {
            // The prepare record is still on its way into the log; the decision is repeated.
        } else {
            if let Some(recorded) = recorded {
                assert_eq!(recorded, outcome, "X9: {txn} was decided twice");
            } else if let Some(active) = leading.active.get(&txn) {
                let lost = active.wounded || outcome == Outcome::Aborted;
                assert!(lost, "X9: {txn} committed at {from} without {} prepared", self.group);
                self.give_up(now, txn, "the coordinator aborted the transaction", out);
            }
            out.send.push(self.to(from, txn, PeerBody::Acknowledged));
        }
    }
}
