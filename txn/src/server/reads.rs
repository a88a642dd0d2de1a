//! Reads: under locks (X1), and at a timestamp (R1, R3, R5).

use super::{Effects, Manager, RequestId, Then, tickets_of};
use proto::keys::{Span, Write};
use proto::plant::{Plant, planted};
use proto::request::{Age, Found, LockMode, ReadAt, ReadSet, ReplyBody};
use proto::{Ballot, Error, TxnId};
use truetime::{Interval, Timestamp};

/// A timestamp further ahead of this server's clock is refused (R5).
const FUTURE_US_MAX: u64 = 1_000_000;

/// Which read it is: goes with a job, and comes back with what was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReadTag {
    /// Whom the answer is for.
    pub id: RequestId,
    /// Under locks of this transaction; `None`: at a timestamp.
    pub txn: Option<TxnId>,
    /// The ballot under which it was allowed; locks taken under another one are gone (X3).
    pub ballot: Ballot,
    /// The timestamp; `MAX` under locks.
    pub at: Timestamp,
}

/// A read to run against the versions, outside the core.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReadJob {
    /// Which it is.
    pub tag: ReadTag,
    /// What to read.
    pub what: ReadSet,
    /// Chosen writes that are not among the versions yet; they take the place of what is there.
    pub unapplied: Vec<Unapplied>,
}

/// A write of a commit that is chosen, and waits for its timestamp to pass before it is applied
/// (X8). Whoever reads it under locks waits too, at the latest with its own commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unapplied {
    /// The write.
    pub write: Write,
    /// The commit timestamp.
    pub at: Timestamp,
}

#[derive(Debug)]
pub(super) struct LockedRead {
    pub id: RequestId,
    pub what: ReadSet,
    pub mode: LockMode,
    pub deadline: Timestamp,
}

/// A read at a timestamp that is not safe yet.
#[derive(Debug)]
pub(super) struct PendingRead {
    id: RequestId,
    at: Timestamp,
    what: ReadSet,
    deadline: Timestamp,
}

impl PendingRead {
    pub fn id(&self) -> RequestId {
        self.id
    }
}

pub(super) fn spans(what: &ReadSet) -> Vec<Span> {
    match what {
        ReadSet::Keys(keys) => keys.iter().cloned().map(Span::Key).collect(),
        ReadSet::Range { range, .. } => vec![Span::Range(range.clone())],
    }
}

impl Manager {
    pub(super) fn on_read(
        &mut self,
        now: Interval,
        read: LockedRead,
        txn: TxnId,
        age: Age,
        holds_locks: bool,
        out: &mut Effects,
    ) {
        let (id, mode) = (read.id, read.mode);
        if self.supersede(now, txn, &read, out) {
            return;
        }
        let spans = spans(&read.what).into_iter().map(|span| (span, mode)).collect();
        let locked = self
            .touch(now, txn, holds_locks)
            .and_then(|()| self.lock(now, txn, age, spans, Then::Read(read), out));
        if let Err(error) = locked {
            out.reply.push((id, Err(error)));
        }
    }

    /// A repetition takes the place of the same read that still waits; nobody listens for that
    /// one's answer any more.
    fn supersede(
        &mut self,
        now: Interval,
        txn: TxnId,
        read: &LockedRead,
        out: &mut Effects,
    ) -> bool {
        let Some(leading) = &mut self.leading else { return false };
        for (_, then) in leading.waiting.range_mut(tickets_of(txn)) {
            if let Then::Read(old) = then
                && old.what == read.what
                && old.mode == read.mode
            {
                old.deadline = read.deadline;
                if let Some(active) = leading.active.get_mut(&txn) {
                    active.last_seen = now.latest(); // X4: its client waits, and is alive
                }
                if old.id == read.id {
                    return true;
                }
                let error = Error::DeadlineExceeded("the client has asked again".into());
                out.reply.push((std::mem::replace(&mut old.id, read.id), Err(error)));
                return true;
            }
        }
        false
    }

    pub(super) fn locked_read(&mut self, read: LockedRead, txn: TxnId, out: &mut Effects) {
        // The locks keep every later version away, so the newest is the right one.
        let ballot = self.serving().unwrap_or_default();
        let (id, what) = (read.id, read.what);
        let tag = ReadTag { id, txn: Some(txn), ballot, at: Timestamp::MAX };
        let unapplied = self.unapplied_in(&what);
        out.read.push(ReadJob { tag, what, unapplied });
    }

    pub(super) fn on_snapshot(
        &mut self,
        now: Interval,
        id: RequestId,
        at: ReadAt,
        (what, deadline): (ReadSet, Timestamp),
        out: &mut Effects,
    ) {
        let horizon = now.earliest().minus_micros(self.config.retention_ms * 1_000);
        let at = match at {
            ReadAt::Exactly(at) => at,
            ReadAt::Newest { at_least } => at_least.max(self.safe_time(&what)),
        };
        let Some(leading) = &mut self.leading else { return };
        if at < horizon {
            out.reply.push((id, Err(Error::SnapshotTooOld { at, horizon })));
        } else if at > now.latest().plus_micros(FUTURE_US_MAX) {
            let error = Error::TimestampInFuture { at, now: now.latest() };
            out.reply.push((id, Err(error)));
        } else {
            leading.reads.push(PendingRead { id, at, what, deadline });
            self.serve_reads(now, out);
        }
    }

    /// The newest timestamp at which such a read need not wait here (R1).
    pub(super) fn safe_time(&self, what: &ReadSet) -> Timestamp {
        let spans = spans(what);
        let prepared = self.replicated.prepared.values();
        let conflicts = prepared.filter(|record| {
            let mut writes = record.writes.iter().map(|write| Span::Key(write.key.clone()));
            writes.any(|key| spans.iter().any(|span| span.overlaps(&key)))
        });
        let t_tm = conflicts.map(|record| record.timestamp.prev()).min();
        t_tm.unwrap_or(Timestamp::MAX).min(self.replicated.applied_at)
    }

    /// Starts the reads whose timestamp is safe by now (R1).
    pub(super) fn serve_reads(&mut self, now: Interval, out: &mut Effects) {
        let horizon = now.earliest().minus_micros(self.config.retention_ms * 1_000);
        let Some(leading) = &mut self.leading else { return };
        if leading.reads.is_empty() {
            return;
        }
        for read in std::mem::take(&mut leading.reads) {
            if read.at < horizon {
                // It has waited for so long that what it wants may be collected by now.
                let error = Error::SnapshotTooOld { at: read.at, horizon };
                out.reply.push((read.id, Err(error)));
            } else if self.safe(now, &read) {
                let ballot = self.serving().unwrap_or_default();
                let PendingRead { id, at, what, .. } = read;
                let tag = ReadTag { id, txn: None, ballot, at };
                out.read.push(ReadJob { tag, what, unapplied: Vec::new() });
            } else if now.after(read.deadline) {
                let waited = "a transaction that may write there is not settled";
                out.reply.push((read.id, Err(Error::DeadlineExceeded(waited.into()))));
            } else if let Some(leading) = &mut self.leading {
                leading.reads.push(read);
            }
        }
    }

    /// R1 at the leader: nothing at or below `at` can be assigned any more (`s_max` is raised, so
    /// `t_paxos ≥ at` once what is under way there is applied), and no prepared transaction that
    /// could still commit there writes what is read (`t_tm`).
    fn safe(&mut self, now: Interval, read: &PendingRead) -> bool {
        let Some(leading) = &mut self.leading else { return false };
        if !now.before(leading.lease_end) || read.at >= leading.lease_end {
            return false; // L4: the promise not to write below `at` needs the lease
        }
        leading.s_max = leading.s_max.max(read.at);
        if leading.in_flight.front().is_some_and(|first| *first <= read.at) {
            return false;
        }
        let spans = spans(&read.what);
        !self.replicated.prepared.values().any(|record| {
            record.timestamp <= read.at
                && record.writes.iter().any(|write| {
                    let key = Span::Key(write.key.clone());
                    spans.iter().any(|span| span.overlaps(&key))
                })
        })
    }

    /// A read has run. The lease is checked again (L6), and for a locking read the locks.
    pub fn read_done(&mut self, now: Interval, tag: ReadTag, found: Found, out: &mut Effects) {
        let ReadTag { id, txn, ballot, at } = tag;
        let Some(leading) = &self.leading else {
            out.reply.push((id, Err(Error::NotLeader { hint: None })));
            return;
        };
        let over = !now.before(leading.lease_end) && !planted(Plant::LeaseAtStartOnly);
        let answer = if over {
            Err(Error::NotLeader { hint: None })
        } else if txn.is_some() && ballot != leading.ballot {
            Err(Error::aborted("the group changed its leader while reading (X3)"))
        } else if txn.is_some_and(|t| leading.active.get(&t).is_none_or(|active| active.wounded)) {
            Err(Error::aborted("wounded, or ended, while reading (X2)"))
        } else {
            Ok(match txn {
                Some(_) => ReplyBody::Read(found),
                None => ReplyBody::Snapshot { at, found },
            })
        };
        out.reply.push((id, answer));
    }
}
