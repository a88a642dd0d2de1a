//! The server half: one group's transaction manager.
//!
//! [`Manager`] is a pure machine beside the group's Paxos replica; neither sees the other. Requests
//! and peers' messages go in with the interval that is now; [`Effects`] come out: commands to
//! replicate, answers, reads to run, messages to other groups. What the group has agreed on comes
//! back through [`Manager::apply`], on every replica alike.
//!
//! ```text
//!   Commit ─► locks ─► (prepared by all participants) ─► s chosen ─► replicated ─► after(s) ─► applied
//!             locks/            coordinator.rs               timestamps (X7)      group (X8)   apply.rs
//!   Prepare ─► locks ─► prepare timestamp ─► replicated ─► Prepared ─► Decided ─► replicated ─► applied
//!                              participant.rs
//! ```
//!
//! What is replicated ([`Replicated`]) is on every replica and survives; what only a leader has
//! (`Leading`: locks, timestamps handed out, requests under way) is made anew by each leader
//! from the replicated part, before it serves (X10).

mod apply;
mod coordinator;
mod early;
mod housekeeping;
pub mod locks;
mod participant;
mod reads;
mod safe_time;
#[cfg(test)]
mod tests;

pub use apply::{OutcomeRecord, StateChange};
pub use reads::{ReadJob, ReadTag, Unapplied};
pub use safe_time::MinNext;

use coordinator::{Deciding, Ready};
use early::ReadingCommit;
use locks::{Changes, LockReport, LockTable, Ticket};
use participant::Validated;
use proto::command::PrepareRecord;
use proto::keys::Span;
use proto::peer::{PeerBody, PeerMessage};
use proto::plant::{Plant, planted};
use proto::request::{Age, Body, LockMode, Outcome, ReplyBody};
use proto::{Ballot, Command, Error, GroupId, Key, TxnId};
use reads::Reads;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::RangeInclusive;
use truetime::{Interval, Timestamp};

/// Names a request of a client within one server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct RequestId(pub u64);

/// What a manager is told when it is made.
#[derive(Clone, Copy, Debug)]
pub struct Config {
    /// A client silent for this long loses its locks unless prepared (X4); a transaction whose
    /// coordinator heard nothing of it for this long is fenced (X9).
    pub txn_timeout_ms: u64,
    /// A participant has prepared and the commit request, which the client sent at the same time,
    /// has not come after this long: the client has died, or will be told to try again. Short,
    /// for what is prepared blocks readers; a start after a crash finds such transactions.
    pub commit_grace_ms: u64,
    /// How far ahead a participant that only read promises its read locks, at most; it does so
    /// again and again, for a transaction's time-out. A decision that comes later aborts.
    pub read_hold_ms: u64,
    /// Locks end when a commit is chosen, and not when it takes effect. Off: for comparison.
    pub early_release: bool,
    /// How often a message to another group is repeated until it is answered (X10).
    pub resend_ms: u64,
    /// How long an outcome can be asked for (X9).
    pub outcome_keep_ms: u64,
    /// How far back versions are kept (R5).
    pub retention_ms: u64,
    /// Requests that may wait for locks at one time.
    pub waiting_max: usize,
    /// Locks that one transaction may take by reading, each key or range counted once; more is
    /// refused. What it writes is not counted here: a commit's size is bounded.
    pub locks_max: usize,
}

impl Config {
    /// Until when read locks are kept for a decision, as of now.
    fn read_hold(&self, now: Interval) -> Timestamp {
        now.latest().plus_micros(self.read_hold_ms * 1_000)
    }
}

impl Default for Config {
    fn default() -> Self {
        Config {
            txn_timeout_ms: 10_000,
            commit_grace_ms: 400,
            read_hold_ms: 2_000,
            early_release: true,
            resend_ms: 500,
            outcome_keep_ms: 300_000,
            retention_ms: 3_600_000,
            waiting_max: 10_000,
            locks_max: 100_000,
        }
    }
}

/// What a step asks of the group.
#[derive(Debug, Default)]
pub struct Effects {
    /// To replicate, in this order.
    pub propose: Vec<Command>,
    /// Answers to clients.
    pub reply: Vec<(RequestId, Result<ReplyBody, Error>)>,
    /// Reads to run; their results come back through [`Manager::read_done`].
    pub read: Vec<ReadJob>,
    /// Messages to other groups' leaders; may be lost.
    pub send: Vec<PeerMessage>,
}

/// What every replica of the group holds alike, changed only by [`Manager::apply`].
#[derive(Debug, Default)]
pub struct Replicated {
    /// Prepared here, outcome not known yet.
    pub prepared: BTreeMap<TxnId, PrepareRecord>,
    /// Decided; kept for the retry window (X9).
    pub outcomes: BTreeMap<TxnId, OutcomeRecord>,
    /// The highest timestamp among the applied entries: `t_paxos` (R1).
    pub applied_at: Timestamp,
}

/// A transaction that has locks here and is not prepared.
#[derive(Debug)]
struct Active {
    last_seen: Timestamp,
    /// Lost its locks, or has ended without a record; remembered so that later requests of it are
    /// refused (X3).
    wounded: bool,
    /// Ended so, by committing what it had read at this timestamp: a repetition hears it (X9).
    read_at: Option<Timestamp>,
}

impl Active {
    fn new(now: Interval, wounded: bool) -> Active {
        Active { last_seen: now.latest(), wounded, read_at: None }
    }
}

/// What to do once locks are held.
#[derive(Debug)]
enum Then {
    Read(reads::LockedRead),
    Prepare(participant::Preparing),
    Decide,
}

/// What only a leader has.
#[derive(Debug)]
struct Leading {
    ballot: Ballot,
    /// No timestamp at or beyond this may be handed out (L4).
    lease_end: Timestamp,
    /// Every timestamp handed out so far is at or below (L4).
    s_max: Timestamp,
    locks: LockTable,
    ticket: Ticket,
    /// What to do once a ticket is granted.
    waiting: BTreeMap<(TxnId, Ticket), Then>,
    active: BTreeMap<TxnId, Active>,
    /// Timestamps of the entries proposed and not applied yet, in log order.
    in_flight: VecDeque<Timestamp>,
    /// Prepares proposed and not applied yet, with the requests that wait for them.
    preparing: BTreeMap<TxnId, Vec<RequestId>>,
    /// Only read here, and told their coordinators so: their read locks are immune.
    validated: BTreeMap<TxnId, Validated>,
    /// Decides proposed and not applied yet.
    settling: BTreeSet<TxnId>,
    /// Transactions coordinated here, commit requested or at least one prepare heard of.
    deciding: BTreeMap<TxnId, Deciding>,
    /// Decided here; these participants have not acknowledged yet.
    unacknowledged: BTreeMap<TxnId, BTreeSet<GroupId>>,
    /// Entries proposed under this ballot that carry timestamps, and may not be applied yet.
    proposed: VecDeque<MinNext>,
    /// The newest write of each key that is chosen and not applied yet, where its locks are gone.
    unapplied: BTreeMap<Key, Unapplied>,
    /// Commits of transactions that only read.
    reading: Vec<ReadingCommit>,
    resend_at: Timestamp,
    forget_at: Timestamp,
}

/// See the [module](self).
#[derive(Debug)]
pub struct Manager {
    group: GroupId,
    config: Config,
    replicated: Replicated,
    leading: Option<Leading>,
    reads: Reads,
}

impl Manager {
    /// The manager of a group, from what the disk holds.
    pub fn new(group: GroupId, config: Config, replicated: Replicated) -> Manager {
        Manager { group, config, replicated, leading: None, reads: Reads::default() }
    }

    /// What was promised here about timestamps while leading is over after this (L5): those given
    /// out, and those up to which read locks were said to hold.
    pub fn bound_until(&self) -> Option<Timestamp> {
        let leading = self.leading.as_ref()?;
        let validated = leading.validated.values().map(|validated| validated.until);
        Some(validated.fold(leading.s_max, Timestamp::max))
    }

    /// What is replicated.
    pub fn replicated(&self) -> &Replicated {
        &self.replicated
    }

    /// How many transactions hold or wait for locks here.
    pub fn lock_holders(&self) -> usize {
        self.leading.as_ref().map_or(0, |leading| leading.locks.transactions())
    }

    /// Who holds locks here and who waits, for people; in at most `spans_max` keys and ranges.
    /// Empty where this manager does not serve.
    pub fn lock_report(&self, spans_max: usize) -> LockReport {
        self.leading.as_ref().map_or_else(LockReport::default, |l| l.locks.report(spans_max))
    }

    /// The ballot this manager serves under.
    pub fn serving(&self) -> Option<Ballot> {
        self.leading.as_ref().map(|leading| leading.ballot)
    }

    /// Every timestamp handed out here while leading is at or below (L4, L5).
    pub fn s_max(&self) -> Option<Timestamp> {
        self.leading.as_ref().map(|leading| leading.s_max)
    }

    /// Begins to serve as leader. Everything of earlier leaders is applied (P3); the locks of
    /// prepared transactions are rebuilt here, before the first request (X10).
    pub fn lead(&mut self, ballot: Ballot, lease_start: Timestamp, lease_end: Timestamp) {
        let mut locks = LockTable::default();
        for (txn, record) in &self.replicated.prepared {
            let writes =
                record.writes.iter().map(|w| (Span::Key(w.key.clone()), LockMode::Exclusive));
            let reads = record.reads.iter().map(|span| (span.clone(), LockMode::Shared));
            locks.restore(*txn, record.age, reads.chain(writes), lease_start);
        }
        let outcomes = self.replicated.outcomes.iter();
        let unacknowledged = outcomes
            .filter(|(_, record)| !record.participants.is_empty())
            .map(|(txn, record)| (*txn, record.participants.iter().copied().collect()))
            .collect();
        self.leading = Some(Leading {
            ballot,
            lease_end,
            // L4: above every timestamp of every predecessor. Theirs lie inside their leases,
            // which ended before this one began, and below what is applied.
            s_max: lease_start.max(self.replicated.applied_at),
            locks,
            ticket: 0,
            waiting: BTreeMap::new(),
            active: BTreeMap::new(),
            in_flight: VecDeque::new(),
            preparing: BTreeMap::new(),
            validated: BTreeMap::new(),
            settling: BTreeSet::new(),
            deciding: BTreeMap::new(),
            unacknowledged,
            proposed: VecDeque::new(),
            unapplied: BTreeMap::new(),
            reading: Vec::new(),
            resend_at: Timestamp::MIN,
            forget_at: Timestamp::MIN,
        });
    }

    /// The lease was renewed, or is about to end.
    pub fn lease(&mut self, lease_end: Timestamp) {
        if let Some(leading) = &mut self.leading {
            leading.lease_end = lease_end;
        }
    }

    /// Stops serving; who waits is sent to the next leader, which knows or can find out.
    pub fn follow(&mut self, out: &mut Effects) {
        let Some(leading) = self.leading.take() else { return };
        let mut requests: Vec<RequestId> = Vec::new();
        for then in leading.waiting.into_values() {
            match then {
                Then::Read(read) => requests.push(read.id),
                Then::Prepare(preparing) => requests.push(preparing.id),
                Then::Decide => {}
            }
        }
        requests.extend(leading.preparing.into_values().flatten());
        requests.extend(leading.deciding.into_values().flat_map(|d| d.requests()));
        requests.extend(leading.reading.into_iter().flat_map(ReadingCommit::into_ids));
        for id in requests {
            out.reply.push((id, Err(Error::NotLeader { hint: None })));
        }
    }

    /// A client's request. The group has checked that this replica leads and that its lease is
    /// valid, or that all that is asked for is a read at a timestamp and there is a tablet; and
    /// that the deadline has not passed; `ballot` is what the client named (X12).
    pub fn request(
        &mut self,
        now: Interval,
        id: RequestId,
        (ballot, deadline): (Option<Ballot>, Timestamp),
        body: Body,
        out: &mut Effects,
    ) {
        let body = match body {
            Body::Snapshot { at, what } => {
                return self.on_snapshot(now, id, at, (what, deadline), out);
            }
            Body::SafeTime { what } => {
                let at = self.safe_time(now, &what);
                return out.reply.push((id, Ok(ReplyBody::SafeTime(at))));
            }
            body => body,
        };
        let Some(leading) = &self.leading else {
            out.reply.push((id, Err(Error::NotLeader { hint: None })));
            return;
        };
        let current = ballot == Some(leading.ballot);
        let stale = Err(Error::StaleBallot { ballot: leading.ballot });
        let lost = Err(Error::aborted("the group changed its leader; read locks are gone (X3)"));
        match body {
            Body::Read { holds_locks: true, .. } | Body::KeepAlive { .. }
                if !current && !planted(Plant::ReadLocksSurvive) =>
            {
                out.reply.push((id, lost));
            }
            Body::Read { .. }
                if ballot.is_some() && !current && !planted(Plant::ReadLocksSurvive) =>
            {
                out.reply.push((id, stale));
            }
            Body::Read { txn, age, holds_locks, mode, what } => {
                let read = reads::LockedRead { id, what, mode, deadline };
                self.on_read(now, read, txn, age, holds_locks, out);
            }
            Body::Prepare { holds_locks: false, .. } if !current => out.reply.push((id, stale)),
            Body::Prepare { txn, age, holds_locks, coordinator, writes } => {
                let preparing = participant::Preparing { id, age, coordinator, writes };
                self.on_prepare(now, txn, holds_locks, current, preparing, out);
            }
            Body::Commit { txn, age, holds_locks, writes, participants, before } => {
                let commit = coordinator::Commit { id, age, writes, participants, before };
                self.on_commit(now, txn, holds_locks, current, commit, out);
            }
            Body::Rollback { txn } => {
                self.on_rollback(now, txn, out);
                out.reply.push((id, Ok(ReplyBody::Done)));
            }
            Body::KeepAlive { txn } => {
                let answer = self.touch(now, txn, true).map(|()| ReplyBody::Done);
                out.reply.push((id, answer));
            }
            Body::Resolve { txn } => self.on_resolve(now, id, txn, out),
            Body::Snapshot { .. }
            | Body::SafeTime { .. }
            | Body::Status
            | Body::Members(_)
            | Body::Transfer { .. } => {
                let error =
                    Error::InvalidArgument("that is for the group, not for its data".into());
                out.reply.push((id, Err(error)));
            }
        }
    }

    /// A message from another group's leader. Not leading: dropped, it will be repeated.
    pub fn peer(&mut self, now: Interval, message: PeerMessage, out: &mut Effects) {
        if self.leading.is_none() {
            return;
        }
        let PeerMessage { from, txn, body, .. } = message;
        match body {
            PeerBody::Prepared(at) => {
                self.on_prepared(now, from, txn, Ready { at, until: None }, out);
            }
            PeerBody::Validated { at, until } => {
                self.on_prepared(now, from, txn, Ready { at, until: Some(until) }, out);
            }
            PeerBody::Refused => self.on_refused(now, from, txn, out),
            PeerBody::Decided(outcome) => self.on_decided(now, from, txn, outcome, out),
            PeerBody::Wound => {
                self.abort_deciding(now, txn, "wounded by an older transaction (X2)", out);
            }
            PeerBody::Acknowledged => self.on_acknowledged(from, txn),
        }
    }

    fn to(&self, group: GroupId, txn: TxnId, body: PeerBody) -> PeerMessage {
        PeerMessage { from: self.group, to: group, txn, body }
    }

    /// Notes that a transaction lives. `held`: it claims to have locks here, so it must be known.
    fn touch(&mut self, now: Interval, txn: TxnId, held: bool) -> Result<(), Error> {
        let Some(leading) = &mut self.leading else {
            return Err(Error::NotLeader { hint: None });
        };
        let deciding = leading.deciding.get(&txn).is_some_and(Deciding::is_closed);
        let preparing = leading.preparing.contains_key(&txn);
        let preparing = preparing || leading.validated.contains_key(&txn);
        let prepared = self.replicated.prepared.contains_key(&txn);
        if preparing || prepared || deciding || self.replicated.outcomes.contains_key(&txn) {
            return Err(Error::aborted("the transaction has ended, or is about to"));
        }
        match leading.active.get_mut(&txn) {
            Some(active) if active.wounded => {
                Err(Error::aborted("wounded by an older transaction, given up, or over (X2)"))
            }
            Some(active) => {
                active.last_seen = now.latest();
                Ok(())
            }
            None if held && !planted(Plant::ReadLocksSurvive) => {
                Err(Error::aborted("the locks of the transaction are gone (X3)"))
            }
            None => {
                leading.active.insert(txn, Active::new(now, false));
                Ok(())
            }
        }
    }

    /// Asks for locks and goes on with `then` once they are held.
    fn lock(
        &mut self,
        now: Interval,
        txn: TxnId,
        age: Age,
        spans: Vec<(Span, LockMode)>,
        then: Then,
        out: &mut Effects,
    ) -> Result<(), Error> {
        let Some(leading) = &mut self.leading else {
            return Err(Error::NotLeader { hint: None });
        };
        let max = self.config.locks_max;
        if matches!(then, Then::Read(_)) && !leading.locks.fits(txn, &spans, max) {
            return Err(Error::FailedPrecondition(format!(
                "{txn} would hold more than {max} locks in {}: read ranges instead of single keys, \
                 or at a snapshot, or do the work in several transactions",
                self.group
            )));
        }
        leading.ticket += 1;
        let ticket = leading.ticket;
        leading.waiting.insert((txn, ticket), then);
        let mut changes = Changes::default();
        leading.locks.request(ticket, txn, age, spans, now.latest(), &mut changes);
        // Who need not wait is never refused: the others may wait for just that transaction.
        let max = self.config.waiting_max;
        let refused = leading.locks.waiting() > max && leading.locks.waits(ticket);
        if refused {
            leading.waiting.remove(&(txn, ticket));
            leading.locks.withdraw(ticket, now.latest(), &mut changes);
        }
        self.after_locks(now, changes, out);
        if refused {
            let what = format!("{max} requests wait for locks in {}; try again later", self.group);
            return Err(Error::ResourceExhausted(what));
        }
        Ok(())
    }

    /// Ends a transaction's locks and lets others go on.
    fn unlock(&mut self, now: Interval, txn: TxnId, out: &mut Effects) {
        let Some(leading) = &mut self.leading else { return };
        leading.active.remove(&txn);
        let mut changes = Changes::default();
        leading.locks.release(txn, now.latest(), &mut changes);
        self.after_locks(now, changes, out);
    }

    /// Ends the locks of a transaction that leaves no record in the log. That it has ended is
    /// remembered for longer than any request of it can be under way, so that a late copy of one
    /// takes no locks again (X12).
    fn end_without_record(
        &mut self,
        now: Interval,
        txn: TxnId,
        read_at: Option<Timestamp>,
        out: &mut Effects,
    ) {
        self.unlock(now, txn, out);
        let Some(leading) = &mut self.leading else { return };
        leading.active.insert(txn, Active { read_at, ..Active::new(now, true) });
    }

    fn after_locks(&mut self, now: Interval, changes: Changes, out: &mut Effects) {
        for txn in changes.hindering {
            let prepared = self.replicated.prepared.get(&txn).map(|record| record.coordinator);
            let validated = || Some(self.leading.as_ref()?.validated.get(&txn)?.coordinator);
            if let Some(coordinator) = prepared.or_else(validated) {
                out.send.push(self.to(coordinator, txn, PeerBody::Wound));
            }
        }
        for txn in changes.wounded {
            self.wounded(now, txn, "wounded by an older transaction (X2)", out);
        }
        for (txn, ticket) in changes.granted {
            let Some(leading) = &mut self.leading else { return };
            let Some(then) = leading.waiting.remove(&(txn, ticket)) else { continue };
            match then {
                Then::Read(read) => self.locked_read(read, txn, out),
                Then::Prepare(preparing) => self.locked_prepare(now, txn, preparing, out),
                Then::Decide => self.locked_decide(now, txn, out),
            }
        }
    }

    /// Takes the locks of a transaction that is not immune, for good.
    fn give_up(&mut self, now: Interval, txn: TxnId, reason: &str, out: &mut Effects) {
        assert!(
            !self.promised(txn),
            "X2: {txn} is prepared at {} and gave up its locks",
            self.group
        );
        let Some(leading) = &mut self.leading else { return };
        let mut changes = Changes::default();
        leading.locks.release(txn, now.latest(), &mut changes);
        self.wounded(now, txn, reason, out);
        self.after_locks(now, changes, out);
    }

    /// The locks of a transaction are gone: everything of it that waits here fails.
    fn wounded(&mut self, now: Interval, txn: TxnId, reason: &str, out: &mut Effects) {
        let Some(leading) = &mut self.leading else { return };
        leading.active.insert(txn, Active::new(now, true));
        let mine: Vec<(TxnId, Ticket)> =
            leading.waiting.range(tickets_of(txn)).map(|(key, _)| *key).collect();
        for key in mine {
            let Some(leading) = &mut self.leading else { return };
            match leading.waiting.remove(&key) {
                Some(Then::Read(read)) => out.reply.push((read.id, Err(Error::aborted(reason)))),
                Some(Then::Prepare(preparing)) => {
                    out.reply.push((preparing.id, Err(Error::aborted(reason))));
                    out.send.push(self.to(preparing.coordinator, txn, PeerBody::Refused));
                }
                Some(Then::Decide) | None => {}
            }
        }
        self.abort_deciding(now, txn, reason, out);
    }

    fn on_rollback(&mut self, now: Interval, txn: TxnId, out: &mut Effects) {
        let Some(leading) = &self.leading else { return };
        let under_way = leading.deciding.contains_key(&txn) || self.promised(txn);
        if !under_way && leading.active.contains_key(&txn) {
            // Remembered as given up, so that a read of it still under way takes no locks.
            self.give_up(now, txn, "rolled back", out);
        }
    }

    /// Whether the transaction is prepared here or about to be: its locks stay until its
    /// coordinator has decided (X2).
    fn promised(&self, txn: TxnId) -> bool {
        self.replicated.prepared.contains_key(&txn)
            || self.leading.as_ref().is_some_and(|leading| {
                leading.preparing.contains_key(&txn) || leading.validated.contains_key(&txn)
            })
    }

    /// Hands out a timestamp: at or above `at_least`, above everything before, inside the lease
    /// (X7, L4). `None`: the lease is too short just now.
    fn assign(&mut self, now: Interval, at_least: Timestamp) -> Option<Timestamp> {
        let leading = self.leading.as_mut()?;
        let s = at_least.max(leading.s_max.next());
        if !now.before(leading.lease_end) || s >= leading.lease_end {
            return None;
        }
        leading.s_max = s;
        leading.in_flight.push_back(s);
        Some(s)
    }

    /// The outcome recorded for a transaction.
    fn outcome(&self, txn: TxnId) -> Option<Outcome> {
        self.replicated.outcomes.get(&txn).map(|record| record.outcome)
    }
}

/// The places in `Leading::waiting` of one transaction.
fn tickets_of(txn: TxnId) -> RangeInclusive<(TxnId, Ticket)> {
    (txn, Ticket::MIN)..=(txn, Ticket::MAX)
}

fn exclusive(keys: impl Iterator<Item = Key>) -> Vec<(Span, LockMode)> {
    keys.map(|key| (Span::Key(key), LockMode::Exclusive)).collect()
}
