//! Reads: under locks (X1), and at a timestamp, at leaders and followers alike (R1, R3, R5).

use super::safe_time::{MinNext, Words};
use super::{Effects, Manager, Replicated, RequestId, Then, tickets_of};
use proto::keys::{Span, Write};
use proto::plant::{Plant, planted};
use proto::request::{Age, Found, LockMode, ReadAt, ReadSet, ReplyBody};
use proto::{Ballot, Error, NodeId, TxnId};
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
    /// Under locks: the newest of [`ReadJob::unapplied`].
    pub ahead: Timestamp,
    /// Which tablet it was started on: a snapshot that is installed meanwhile makes another one.
    pub tablet: u64,
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
    pub at: Timestamp,
    what: ReadSet,
    deadline: Timestamp,
}

/// Reads at timestamps, whoever leads. A read that waits here goes on waiting when this replica
/// begins or ceases to lead: what it waits for is the same.
#[derive(Debug, Default)]
pub(super) struct Reads {
    pub pending: Vec<PendingRead>,
    pub words: Words,
    /// Counts the tablets that were here.
    tablet: u64,
    /// The tablet is being replaced: on disk there may be the one before, or half of this.
    unsettled: bool,
    /// The leadership is being handed on.
    pub retiring: bool,
}

/// What a read is of, as spans.
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
        let (tablet, unapplied) = (self.reads.tablet, self.unapplied_in(&what));
        let ahead = unapplied.iter().map(|newer| newer.at).max().unwrap_or_default();
        let tag = ReadTag { id, txn: Some(txn), ballot, at: Timestamp::MAX, ahead, tablet };
        out.read.push(ReadJob { tag, what, unapplied });
    }

    /// A read at a timestamp. The group has checked that there is a tablet.
    pub(super) fn on_snapshot(
        &mut self,
        now: Interval,
        id: RequestId,
        at: ReadAt,
        (what, deadline): (ReadSet, Timestamp),
        out: &mut Effects,
    ) {
        let horizon = self.horizon(now);
        let at = match at {
            ReadAt::Exactly(at) => at,
            ReadAt::Newest { at_least } => {
                at_least.max(self.safe_time(now, &what).min(now.latest()))
            }
        };
        if at < horizon {
            out.reply.push((id, Err(Error::SnapshotTooOld { at, horizon })));
        } else if at > now.latest().plus_micros(FUTURE_US_MAX) {
            let error = Error::TimestampInFuture { at, now: now.latest() };
            out.reply.push((id, Err(error)));
        } else if self.reads.pending.len() >= self.config.waiting_max {
            let max = self.config.waiting_max;
            let what = format!("{max} reads wait for their timestamps in {}", self.group);
            out.reply.push((id, Err(Error::ResourceExhausted(what))));
        } else {
            self.reads.pending.push(PendingRead { id, at, what, deadline });
            self.serve_reads(now, out);
        }
    }

    /// No older version may be asked for (R5). Engines keep a little more, which covers how far
    /// apart the clocks are of who reads and of who has collected.
    fn horizon(&self, now: Interval) -> Timestamp {
        now.earliest().minus_micros(self.config.retention_ms * 1_000)
    }

    /// Starts the reads whose timestamp is safe by now (R1), and ends those that have waited for
    /// too long.
    pub fn serve_reads(&mut self, now: Interval, out: &mut Effects) {
        if self.reads.pending.is_empty() {
            return;
        }
        let horizon = self.horizon(now);
        let may_vow = self.vow_max(now);
        let wanted = self.reads.pending.iter().map(|read| read.at);
        let wanted = wanted.filter(|at| may_vow.is_some_and(|max| *at <= max)).max();
        let t_paxos = match self.reads.unsettled {
            true => Timestamp::MIN,
            false => self.t_paxos(wanted),
        };
        let safe = |manager: &Manager, read: &PendingRead| {
            read.at <= t_paxos && manager.prepared_in(&read.what).is_none_or(|at| read.at < at)
        };
        for read in std::mem::take(&mut self.reads.pending) {
            if read.at < horizon {
                // It has waited for so long that what it wants may be collected by now.
                let error = Error::SnapshotTooOld { at: read.at, horizon };
                out.reply.push((read.id, Err(error)));
            } else if safe(self, &read) {
                let PendingRead { id, at, what, .. } = read;
                let (ballot, tablet) = (self.serving().unwrap_or_default(), self.reads.tablet);
                let ahead = Timestamp::MIN;
                let tag = ReadTag { id, txn: None, ballot, at, ahead, tablet };
                out.read.push(ReadJob { tag, what, unapplied: Vec::new() });
            } else if now.after(read.deadline) {
                let waited = match read.at <= t_paxos {
                    true => "a transaction that may write there is not settled",
                    false => "it is not known here that nothing is written there any more",
                };
                out.reply.push((read.id, Err(Error::DeadlineExceeded(waited.into()))));
            } else {
                self.reads.pending.push(read);
            }
        }
    }

    /// Once `after` this, [`serve_reads`](Self::serve_reads): a client stops waiting, or a
    /// timestamp has come near. `None`: no read waits.
    pub fn reads_due(&self, now: Interval) -> Option<Timestamp> {
        let due = |read: &PendingRead| {
            MinNext::near_after(now, read.at).map_or(read.deadline, |near| near.min(read.deadline))
        };
        self.reads.pending.iter().map(due).min()
    }

    /// Sends reads elsewhere that wait here.
    pub fn refuse_reads(
        &mut self,
        hint: Option<NodeId>,
        which: impl Fn(RequestId) -> bool,
        out: &mut Effects,
    ) {
        let refused = self.reads.pending.extract_if(.., |read| which(read.id));
        out.reply.extend(refused.map(|read| (read.id, Err(Error::NotLeader { hint }))));
    }

    /// The tablet is being replaced, by a snapshot or by nothing. Reads wait until it is
    /// [settled](Self::settled); those that are under way come to nothing.
    pub fn replaced(&mut self, replicated: Replicated) {
        self.replicated = replicated;
        self.leading = None;
        self.reads.tablet += 1;
        self.reads.unsettled = true;
        self.reads.words = Words::default();
    }

    /// The tablet is dropped: this replica has left the group. Reads under way come to nothing.
    pub fn dropped(&mut self) {
        self.reads.tablet += 1;
    }

    /// What has replaced the tablet is on disk.
    pub fn settled(&mut self) {
        self.reads.unsettled = false;
    }

    /// A read has run. Under locks, these and the lease are checked again (L6). What was read at a
    /// safe timestamp stays true, whoever leads by now, if it was read from one tablet.
    pub fn read_done(&mut self, now: Interval, tag: ReadTag, found: Found, out: &mut Effects) {
        let ReadTag { id, txn, ballot, at, ahead, tablet } = tag;
        let horizon = self.horizon(now);
        let answer = match txn {
            _ if tablet != self.reads.tablet => Err(Error::NotLeader { hint: None }),
            None if at < horizon => Err(Error::SnapshotTooOld { at, horizon }),
            None => Ok(ReplyBody::Snapshot { at, found }),
            Some(txn) => {
                self.still_locked(now, txn, ballot).map(|()| ReplyBody::Read { found, ahead })
            }
        };
        out.reply.push((id, answer));
    }

    fn still_locked(&self, now: Interval, txn: TxnId, ballot: Ballot) -> Result<(), Error> {
        let Some(leading) = &self.leading else { return Err(Error::NotLeader { hint: None }) };
        if !now.before(leading.lease_end) && !planted(Plant::LeaseAtStartOnly) {
            Err(Error::NotLeader { hint: None })
        } else if ballot != leading.ballot {
            Err(Error::aborted("the group changed its leader while reading (X3)"))
        } else if leading.active.get(&txn).is_none_or(|active| active.wounded) {
            Err(Error::aborted("wounded, or ended, while reading (X2)"))
        } else {
            Ok(())
        }
    }
}
