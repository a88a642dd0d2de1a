//! What time alone brings about: silent clients lose their locks (X4), waits end with their
//! deadlines, unanswered messages are repeated (X10), old outcomes leave the table (X9).

use super::locks::{Changes, Ticket};
use super::{Effects, Manager, Then};
use proto::peer::PeerBody;
use proto::{Command, Error, TxnId};
use truetime::{Interval, Timestamp};

impl Manager {
    /// Time passes: silent clients lose their locks, unanswered messages are repeated. Call it
    /// every heartbeat or so.
    pub fn tick(&mut self, now: Interval, out: &mut Effects) {
        if self.leading.is_none() {
            return;
        }
        self.expire_validated(now, out);
        self.hold_validated(now, out);
        self.expire(now, out);
        self.withdraw_late(now, out);
        self.decide_ready(now, out);
        self.serve_reads(now, out);
        self.answer_reading(now, out);
        let Some(leading) = &mut self.leading else { return };
        if now.after(leading.resend_at) {
            leading.resend_at = now.latest().plus_micros(self.config.resend_ms * 1_000);
            self.resend(out);
        }
        self.forget(now, out);
    }

    /// Whether nothing is under way, so that [`tick`](Self::tick) has nothing to do before the
    /// time returned. `None`: something is.
    pub fn quiet_until(&self) -> Option<Timestamp> {
        let leading = self.leading.as_ref()?;
        let quiet = leading.active.values().all(|active| active.wounded)
            && leading.waiting.is_empty()
            && self.reads.pending.is_empty()
            && leading.reading.is_empty()
            && leading.in_flight.is_empty()
            && leading.preparing.is_empty()
            && leading.validated.is_empty()
            && leading.settling.is_empty()
            && leading.deciding.is_empty()
            && leading.unacknowledged.is_empty()
            && self.replicated.prepared.is_empty();
        let forget = !self.replicated.outcomes.is_empty();
        quiet.then_some(if forget { leading.forget_at } else { Timestamp::MAX })
    }

    /// X4: silent clients.
    fn expire(&mut self, now: Interval, out: &mut Effects) {
        let Some(leading) = &mut self.leading else { return };
        let silent = now.earliest().minus_micros(self.config.txn_timeout_ms * 1_000);
        // The wounded are remembered longer than any request of theirs can be under way.
        let forgotten = silent.minus_micros(self.config.txn_timeout_ms * 2_000);
        leading.active.retain(|_, active| !active.wounded || active.last_seen >= forgotten);
        let expired: Vec<TxnId> = leading
            .active
            .iter()
            .filter(|(txn, active)| {
                !active.wounded && active.last_seen < silent && !leading.deciding.contains_key(txn)
            })
            .map(|(txn, _)| *txn)
            .collect();
        for txn in expired {
            // One that ends may let another one, that waited just as long, prepare or decide.
            let held = self.leading.as_ref().is_some_and(|leading| {
                leading.active.contains_key(&txn) && !leading.deciding.contains_key(&txn)
            });
            if held && !self.promised(txn) {
                self.give_up(now, txn, "the client was silent for too long (X4)", out);
            }
        }
        self.expire_deciding(now, silent, out);
    }

    /// Ends the waits of reads whose clients have stopped waiting.
    fn withdraw_late(&mut self, now: Interval, out: &mut Effects) {
        let Some(leading) = &mut self.leading else { return };
        let late = |then: &Then| matches!(then, Then::Read(read) if now.after(read.deadline));
        let waiting = leading.waiting.iter();
        let keys: Vec<(TxnId, Ticket)> =
            waiting.filter(|(_, then)| late(then)).map(|(key, _)| *key).collect();
        for (txn, ticket) in keys {
            let Some(leading) = &mut self.leading else { return };
            if let Some(Then::Read(read)) = leading.waiting.remove(&(txn, ticket)) {
                let error = Error::DeadlineExceeded("the locks were not free in time".into());
                out.reply.push((read.id, Err(error)));
            }
            let mut changes = Changes::default();
            leading.locks.withdraw(ticket, now.latest(), &mut changes);
            self.after_locks(now, changes, out);
        }
    }

    fn resend(&mut self, out: &mut Effects) {
        let Some(leading) = &self.leading else { return };
        for (txn, record) in &self.replicated.prepared {
            if !leading.settling.contains(txn) {
                out.send.push(self.to(
                    record.coordinator,
                    *txn,
                    PeerBody::Prepared(record.timestamp),
                ));
                // After that, for a coordinator that has not heard of it has nothing to abort.
                if leading.locks.hinders_senior(*txn) {
                    out.send.push(self.to(record.coordinator, *txn, PeerBody::Wound));
                }
            }
        }
        for (txn, participants) in &leading.unacknowledged {
            if let Some(record) = self.replicated.outcomes.get(txn) {
                for group in participants {
                    out.send.push(self.to(*group, *txn, PeerBody::Decided(record.outcome)));
                }
            }
        }
    }

    /// X9: outcomes beyond the retry window leave the table, by a command, on all replicas alike.
    fn forget(&mut self, now: Interval, out: &mut Effects) {
        const BATCH: usize = 4_096;
        let Some(leading) = &mut self.leading else { return };
        if !now.after(leading.forget_at) {
            return;
        }
        leading.forget_at = now.latest().plus_micros(self.config.outcome_keep_ms * 100);
        let old = now.earliest().minus_micros(self.config.outcome_keep_ms * 1_000);
        let txns: Vec<TxnId> = self
            .replicated
            .outcomes
            .iter()
            .filter(|(txn, record)| {
                record.decided_at < old && !leading.unacknowledged.contains_key(txn)
            })
            .take(BATCH)
            .map(|(txn, _)| *txn)
            .collect();
        if txns.len() == BATCH {
            leading.forget_at = now.latest(); // there is more: go on at the next tick
        }
        if !txns.is_empty() {
            out.propose.push(Command::Forget { txns });
        }
    }
}
