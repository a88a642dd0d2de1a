//! What the group has agreed on takes effect: the same on every replica, in slot order.

use super::{Effects, Manager};
use proto::command::{CommitRecord, PrepareRecord};
use proto::keys::Write;
use proto::peer::PeerBody;
use proto::plant::{Plant, planted};
use proto::request::Outcome;
use proto::{Command, GroupId, TxnId};
use serde::{Deserialize, Serialize};
use truetime::{Interval, Timestamp};

/// What became of a transaction, as it is kept (X9).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OutcomeRecord {
    /// The outcome.
    pub outcome: Outcome,
    /// The group's time when it was decided: an outcome leaves the table some time after.
    pub decided_at: Timestamp,
    /// At the coordinator: who has to hear of it. At a participant: empty.
    pub participants: Vec<GroupId>,
}

/// A change of the replicated state, for the disk; all of one command form one atomic batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StateChange {
    /// A version.
    Version {
        /// Key and value.
        write: Write,
        /// The commit timestamp.
        at: Timestamp,
    },
    /// A transaction is prepared.
    Prepared(PrepareRecord),
    /// A prepared transaction is settled.
    Settled(TxnId),
    /// An outcome is recorded.
    Outcome(TxnId, OutcomeRecord),
    /// An outcome is forgotten.
    Forgotten(TxnId),
}

impl Manager {
    /// When a command may take effect (X8): writes are visible to nobody, on no replica, before
    /// `after` this. `None`: at once.
    pub fn wait_for(command: &Command) -> Option<Timestamp> {
        match command {
            Command::Commit(record) => Some(record.timestamp),
            Command::Decide { outcome: Outcome::Committed(at), .. } => Some(*at),
            _ => None,
        }
    }

    /// Applies the next command of the log.
    pub fn apply(
        &mut self,
        now: Interval,
        command: Command,
        out: &mut Effects,
    ) -> Vec<StateChange> {
        if let Some(at) = command.timestamp() {
            // R1: the timestamps this group assigns grow with the slots; only a decision carries
            // another group's.
            let own = !matches!(command, Command::Decide { .. });
            assert!(
                !own || at > self.replicated.applied_at,
                "L4: {at} after {}",
                self.replicated.applied_at
            );
            self.replicated.applied_at = self.replicated.applied_at.max(at);
            if let Some(leading) = self.leading.as_mut().filter(|_| own) {
                let first = leading.in_flight.pop_front();
                assert_eq!(first, Some(at), "entries are applied in the order they were proposed");
            }
        }
        let changes = match command {
            Command::Noop => Vec::new(),
            Command::Commit(record) => self.apply_commit(now, record, out),
            Command::Abort { txn, at, participants } => {
                self.apply_abort(now, txn, at, participants, out)
            }
            Command::Prepare(record) => {
                self.replicated.prepared.insert(record.txn, record.clone());
                self.prepared(&record, out);
                vec![StateChange::Prepared(record)]
            }
            Command::Decide { txn, outcome } => self.apply_decide(now, txn, outcome, out),
            Command::Forget { txns } => {
                for txn in &txns {
                    self.replicated.outcomes.remove(txn);
                }
                txns.into_iter().map(StateChange::Forgotten).collect()
            }
        };
        self.serve_reads(now, out);
        self.answer_reading(now, out);
        changes
    }

    fn record(&mut self, txn: TxnId, record: OutcomeRecord) -> StateChange {
        let before = self.replicated.outcomes.insert(txn, record.clone());
        if let Some(before) = before {
            assert_eq!(before.outcome, record.outcome, "X9: {txn} was decided twice");
        }
        StateChange::Outcome(txn, record)
    }

    fn apply_commit(
        &mut self,
        now: Interval,
        record: CommitRecord,
        out: &mut Effects,
    ) -> Vec<StateChange> {
        let participants = record.participants.iter().map(|(group, _)| *group).collect();
        let outcome = OutcomeRecord {
            outcome: Outcome::Committed(record.timestamp),
            decided_at: record.timestamp,
            participants,
        };
        let mut changes = Vec::new();
        if !planted(Plant::OutcomeForgotten) {
            changes.push(self.record(record.txn, outcome));
        }
        self.drop_unapplied(&record.writes, record.timestamp);
        self.committed(now, &record, out);
        self.unlock(now, record.txn, out);
        let at = record.timestamp;
        changes.extend(record.writes.into_iter().map(|write| StateChange::Version { write, at }));
        changes
    }

    fn apply_abort(
        &mut self,
        now: Interval,
        txn: TxnId,
        at: Timestamp,
        participants: Vec<GroupId>,
        out: &mut Effects,
    ) -> Vec<StateChange> {
        self.aborted(txn, &participants, out);
        self.unlock(now, txn, out);
        vec![
            self.record(
                txn,
                OutcomeRecord { outcome: Outcome::Aborted, decided_at: at, participants },
            ),
        ]
    }

    fn apply_decide(
        &mut self,
        now: Interval,
        txn: TxnId,
        outcome: Outcome,
        out: &mut Effects,
    ) -> Vec<StateChange> {
        if let Some(leading) = &mut self.leading {
            leading.settling.remove(&txn);
        }
        let Some(prepared) = self.replicated.prepared.remove(&txn) else {
            return Vec::new(); // a repeated decision, proposed by two leaders
        };
        let decided_at = match outcome {
            Outcome::Committed(at) => at,
            Outcome::Aborted => prepared.timestamp,
        };
        let record = OutcomeRecord { outcome, decided_at, participants: Vec::new() };
        let mut changes = vec![self.record(txn, record), StateChange::Settled(txn)];
        if let Outcome::Committed(at) = outcome {
            assert!(
                at >= prepared.timestamp,
                "X7: {txn} committed at {at}, prepared at {}",
                prepared.timestamp
            );
            self.drop_unapplied(&prepared.writes, at);
            let writes = prepared.writes.into_iter();
            changes.extend(writes.map(|write| StateChange::Version { write, at }));
        }
        if self.leading.is_some() {
            out.send.push(self.to(prepared.coordinator, txn, PeerBody::Acknowledged));
            self.unlock(now, txn, out);
        }
        changes
    }
}
