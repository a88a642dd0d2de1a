//! Locks end when the commit record is chosen, not when it takes effect: early lock release.
//!
//! ```text
//!   T1  locks ── s1 chosen ── record chosen ─────────── after(s1) ── applied, answered
//!                                  │ locks released
//!   T2                             └ locks, reads T1's write ── s2 > s1 ── … ── after(s2) ── answered
//! ```
//!
//! A row that everybody writes is then limited by replication, not by twice ε. What makes it safe:
//!
//! 1. The record is *chosen*: no crash and no later leader takes it back, so T2 never reads what
//!    aborts. A later leader applies it before it serves (P3), and waits for it too (X8).
//! 2. T2's timestamp is above `s_max`, which is at or above s1: the order of timestamps is the order
//!    of the locks (X7, L4).
//! 3. Whoever read what was released waits for it: a writer, because `after(s2)` implies
//!    `after(s1)`; a transaction that only read, in [`Manager::commit_of_reads`] or with its prepare
//!    timestamp above s1. So no client hears of an end that depends on T1 before `after(s1)` (X8).
//!
//! Reads without locks see none of it: they read applied versions only, and wait at `in_flight`.
//! The proof is written out in `docs/decisions/0009-locks-end-when-the-commit-is-chosen.md`.

use super::coordinator::TOO_LATE;
use super::reads::{Unapplied, spans};
use super::{Effects, Leading, Manager, RequestId};
use proto::command::CommitRecord;
use proto::keys::{Span, Write};
use proto::peer::{PeerBody, PeerMessage};
use proto::plant::{Plant, planted};
use proto::request::{Outcome, ReadSet, Receipt, ReplyBody};
use proto::{Command, Error, GroupId, Key, TxnId};
use std::collections::BTreeSet;
use truetime::{Interval, Timestamp};

/// The commit of a transaction that only read: its answer waits for what it saw.
#[derive(Debug)]
pub(super) struct ReadingCommit {
    txn: TxnId,
    /// The request, its repetitions, and who asked for the outcome meanwhile.
    asked: Vec<(RequestId, Asked)>,
    timestamp: Timestamp,
    /// The newest write it may have read: to have passed before the answer leaves.
    seen: Timestamp,
}

impl ReadingCommit {
    pub fn into_ids(self) -> impl Iterator<Item = RequestId> {
        self.asked.into_iter().map(|(id, _)| id)
    }
}

/// What somebody wants to know of a commit of reads.
#[derive(Clone, Copy, Debug)]
pub(super) enum Asked {
    Commit,
    Outcome,
}

impl Asked {
    fn answer(self, at: Timestamp, group: GroupId) -> ReplyBody {
        match self {
            Asked::Commit => ReplyBody::Committed(Receipt::plain(at, group)),
            Asked::Outcome => ReplyBody::Outcome(Outcome::Committed(at)),
        }
    }
}

impl Leading {
    /// The unapplied writes in a span, in key order.
    fn unapplied_in(&self, span: &Span) -> impl Iterator<Item = &Unapplied> {
        let (start, key) = match span {
            Span::Key(key) => (key, Some(key)),
            Span::Range(range) => (&range.start, None),
        };
        let within = move |at: &Key| match span {
            Span::Key(_) => Some(at) == key,
            Span::Range(range) => range.contains(at),
        };
        let from = self.unapplied.range(start.clone()..);
        from.take_while(move |(at, _)| within(at)).map(|(_, unapplied)| unapplied)
    }
}

impl Manager {
    /// A command of the log is chosen; it takes effect later, through [`apply`](Self::apply), when
    /// its timestamp has passed. Call it in slot order, at the leader.
    pub fn chosen(&mut self, now: Interval, command: &Command, out: &mut Effects) {
        let Some(leading) = &mut self.leading else { return };
        match command {
            Command::Commit(record) => {
                if let Some(deciding) = leading.deciding.get_mut(&record.txn) {
                    deciding.chosen(now);
                }
                if self.config.early_release {
                    self.tell_participants(record, out);
                    self.release_early(now, record.txn, &record.writes, record.timestamp, out);
                }
            }
            Command::Decide { txn, outcome: Outcome::Committed(at) }
                if self.config.early_release =>
            {
                let Some(prepared) = self.replicated.prepared.get(txn) else { return };
                let writes = prepared.writes.clone();
                self.release_early(now, *txn, &writes, *at, out);
            }
            _ => {}
        }
    }

    /// Where the timestamp has passed already the entry takes effect at once, or after what is ahead
    /// of it in the log: then its locks may as well stay until then.
    fn release_early(
        &mut self,
        now: Interval,
        txn: TxnId,
        writes: &[Write],
        at: Timestamp,
        out: &mut Effects,
    ) {
        if now.after(at) {
            return;
        }
        let Some(leading) = &mut self.leading else { return };
        for write in writes {
            let unapplied = Unapplied { write: write.clone(), at };
            leading.unapplied.insert(write.key.clone(), unapplied);
        }
        self.unlock(now, txn, out);
    }

    /// These writes are among the versions now.
    pub(super) fn drop_unapplied(&mut self, writes: &[Write], at: Timestamp) {
        let Some(leading) = &mut self.leading else { return };
        for write in writes {
            if leading.unapplied.get(&write.key).is_some_and(|newest| newest.at == at) {
                leading.unapplied.remove(&write.key);
            }
        }
    }

    /// What a read under locks must see besides the versions: chosen, and released early.
    pub(super) fn unapplied_in(&self, what: &ReadSet) -> Vec<Unapplied> {
        let Some(leading) = &self.leading else { return Vec::new() };
        if leading.unapplied.is_empty() {
            return Vec::new();
        }
        let spans: BTreeSet<Span> = spans(what).into_iter().collect();
        spans.iter().flat_map(|span| leading.unapplied_in(span)).cloned().collect()
    }

    /// Tells the participants of a chosen commit. They wait for its timestamp by their own clocks
    /// before it takes effect (X8), and may log it meanwhile. Once, but for what housekeeping
    /// repeats.
    pub(super) fn tell_participants(&mut self, record: &CommitRecord, out: &mut Effects) {
        let logged: BTreeSet<GroupId> = record.participants.iter().map(|(g, _)| *g).collect();
        let Some(leading) = &mut self.leading else { return };
        let deciding = leading.deciding.get_mut(&record.txn);
        let mut told = logged.clone();
        if let Some(deciding) = deciding {
            if !deciding.tell() {
                return;
            }
            // Who only read has logged nothing, and lets go of its locks by itself if this is lost.
            told.extend(deciding.only_read());
        }
        for to in told {
            let body = PeerBody::Decided(Outcome::Committed(record.timestamp));
            out.send.push(PeerMessage { from: self.group, to, txn: record.txn, body });
        }
        if !logged.is_empty() {
            leading.unacknowledged.insert(record.txn, logged);
        }
    }

    /// X5 for a transaction that wrote nothing, and read in this group only: nothing is logged.
    ///
    /// Its locks are held now, so what it has read is the newest there is; everything written there
    /// later comes after `s_max`, which is raised to the timestamp given. It is what a snapshot at
    /// that timestamp would have read, and like one it waits for no clock; but what it read may be
    /// newer than any snapshot could have seen, and for that it waits (X8).
    pub(super) fn commit_of_reads(
        &mut self,
        now: Interval,
        id: RequestId,
        txn: TxnId,
        before: Option<Timestamp>,
        out: &mut Effects,
    ) -> Result<(), Error> {
        let Some(leading) = &mut self.leading else {
            return Err(Error::NotLeader { hint: None });
        };
        let read = leading.locks.spans_besides(txn, &BTreeSet::new());
        let seen = read.iter().flat_map(|span| leading.unapplied_in(span));
        let seen = seen.map(|unapplied| unapplied.at).max().unwrap_or_default();
        let timestamp = now.latest().max(seen);
        if before.is_some_and(|before| timestamp >= before) {
            self.give_up(now, txn, TOO_LATE, out);
            return Err(Error::aborted(TOO_LATE));
        }
        if timestamp >= leading.lease_end {
            return Err(Error::ResourceExhausted("the lease is being renewed".into()));
        }
        leading.s_max = leading.s_max.max(timestamp);
        leading.reading.push(ReadingCommit {
            txn,
            asked: vec![(id, Asked::Commit)],
            timestamp,
            seen,
        });
        self.end_without_record(now, txn, Some(timestamp), out);
        self.answer_reading(now, out);
        Ok(())
    }

    /// A commit of reads that comes again, or whose outcome is asked for: waits with the first
    /// request, or hears what that one heard, which no record tells (X9). Whether it is one.
    pub(super) fn repeats_commit_of_reads(
        &mut self,
        id: RequestId,
        txn: TxnId,
        asked: Asked,
        out: &mut Effects,
    ) -> bool {
        let group = self.group;
        let Some(leading) = &mut self.leading else { return false };
        if let Some(waiting) = leading.reading.iter_mut().find(|commit| commit.txn == txn) {
            waiting.asked.push((id, asked));
            return true;
        }
        let Some(at) = leading.active.get(&txn).and_then(|ended| ended.read_at) else {
            return false;
        };
        out.reply.push((id, Ok(asked.answer(at, group))));
        true
    }

    /// Answers those who have waited for what they saw.
    pub(super) fn answer_reading(&mut self, now: Interval, out: &mut Effects) {
        let group = self.group;
        let Some(leading) = &mut self.leading else { return };
        let planted = planted(Plant::EarlyReleaseWithoutWait);
        leading.reading.retain(|commit| {
            let passed = now.after(commit.seen) || planted;
            if passed {
                let asked = commit.asked.iter();
                out.reply.extend(
                    asked.map(|(id, asked)| (*id, Ok(asked.answer(commit.timestamp, group)))),
                );
            }
            !passed
        });
    }
}
