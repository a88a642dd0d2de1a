//! The coordinator, and the one-group commit, which is a coordinator without participants
//! (X5–X9).

use super::early::Asked;
use super::{Effects, Manager, RequestId, Then, exclusive, tickets_of};
use bytes::Bytes;
use proto::command::CommitRecord;
use proto::keys::Write;
use proto::peer::PeerBody;
use proto::plant::{Plant, planted};
use proto::request::{Age, Certificate, Outcome, Provenance, Receipt, ReplyBody, Timing};
use proto::{Command, Error, GroupId, TxnId};
use std::collections::{BTreeMap, BTreeSet};
use truetime::{Interval, Timestamp};

/// A commit request.
#[derive(Debug)]
pub(super) struct Commit {
    pub id: RequestId,
    pub age: Age,
    pub writes: Vec<Write>,
    pub participants: Vec<GroupId>,
    /// The commit timestamp must lie below.
    pub before: Option<Timestamp>,
}

/// Why a commit is refused that would be at or beyond the timestamp it had to stay below (S1).
pub(super) const TOO_LATE: &str = "it came later than its schema was certain to be in force (S1)";

/// A transaction this leader coordinates and has not seen the end of.
#[derive(Debug)]
pub(super) struct Deciding {
    /// When it was first heard of.
    since: Timestamp,
    /// Who is ready, and for which timestamps; may run ahead of the commit request.
    prepared: BTreeMap<GroupId, Ready>,
    /// Who asked for the outcome.
    resolvers: Vec<RequestId>,
    /// The commit request, once it is here.
    commit: Option<Requested>,
    /// Will be aborted, as soon as a timestamp for the abort can be had, for this reason.
    doomed: Option<String>,
    /// The decision is in the log, on its way.
    proposed: bool,
    /// The participants have been told.
    told: bool,
}

#[derive(Debug)]
struct Requested {
    /// The client's request and its repetitions.
    ids: Vec<RequestId>,
    arrived: Interval,
    writes: Vec<Write>,
    participants: BTreeSet<GroupId>,
    before: Option<Timestamp>,
    locked: bool,
    course: Course,
}

/// When what happened, by `now().latest`, for the certificate.
#[derive(Clone, Copy, Debug, Default)]
struct Course {
    locked: Timestamp,
    decided: Timestamp,
    chosen: Timestamp,
}

impl Course {
    fn timing(self, arrived: Interval, s: Timestamp, waited: Interval) -> Timing {
        let us = |from: Timestamp, to: Timestamp| to.micros().saturating_sub(from.micros());
        // `after(s)` was true when `earliest` had passed it: that instant, on the scale of `latest`.
        let width = us(waited.earliest(), waited.latest());
        let passed = s.next().plus_micros(width).max(self.decided);
        Timing {
            locks_us: us(arrived.latest(), self.locked),
            prepare_us: us(self.locked, self.decided),
            replicate_us: us(self.decided, self.chosen),
            wait_us: us(self.decided, passed),
            overlap_us: us(self.decided, passed.min(self.chosen)),
            epsilon_us: width.div_ceil(2),
        }
    }
}

/// What a participant has said of the commit timestamp.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ready {
    /// It must be at or above this: the prepare timestamp.
    pub at: Timestamp,
    /// And at or below this, where the participant only read and has logged nothing.
    pub until: Option<Timestamp>,
}

impl Deciding {
    fn new(now: Interval) -> Deciding {
        Deciding {
            since: now.latest(),
            prepared: BTreeMap::new(),
            resolvers: Vec::new(),
            commit: None,
            doomed: None,
            proposed: false,
            told: false,
        }
    }

    /// Whether the decision is made, be it on its way or still to come.
    pub fn is_closed(&self) -> bool {
        self.proposed || self.doomed.is_some()
    }

    /// The commit record is chosen.
    pub fn chosen(&mut self, now: Interval) {
        if let Some(commit) = &mut self.commit {
            commit.course.chosen = now.latest();
        }
    }

    /// Whether it is time to tell the participants: the first time it is asked.
    pub fn tell(&mut self) -> bool {
        !std::mem::replace(&mut self.told, true)
    }

    /// The timestamp at or above which each participant wanted the commit.
    fn timestamps(&self) -> Vec<(GroupId, Timestamp)> {
        let commit = self.commit.iter().flat_map(|commit| &commit.participants);
        commit.filter_map(|group| Some((*group, self.prepared.get(group)?.at))).collect()
    }

    /// The participants that have logged nothing.
    pub fn only_read(&self) -> impl Iterator<Item = GroupId> {
        let groups = self.prepared.iter().filter(|(_, ready)| ready.until.is_some());
        groups.map(|(group, _)| *group)
    }

    /// Everyone who waits for the outcome.
    pub fn requests(&self) -> Vec<RequestId> {
        let ids = self.commit.iter().flat_map(|commit| commit.ids.iter());
        ids.chain(&self.resolvers).copied().collect()
    }

    fn ready(&self) -> bool {
        let complete = |commit: &Requested| {
            commit.locked && commit.participants.iter().all(|g| self.prepared.contains_key(g))
        };
        !self.is_closed() && self.commit.as_ref().is_some_and(complete)
    }
}

impl Manager {
    pub(super) fn on_commit(
        &mut self,
        now: Interval,
        txn: TxnId,
        holds_locks: bool,
        current: bool,
        commit: Commit,
        out: &mut Effects,
    ) {
        let Commit { id, age, writes, participants, before } = commit;
        // X9: a repeated commit hears what was recorded.
        if let Some(outcome) = self.outcome(txn) {
            out.reply.push((id, self.recorded(outcome)));
            return;
        }
        if participants.contains(&self.group) {
            let what = format!("{} cannot be coordinator and participant of {txn}", self.group);
            out.reply.push((id, Err(Error::InvalidArgument(what))));
            return;
        }
        if self.refuse_as_participant(id, txn, out)
            || self.repeats_commit_of_reads(id, txn, Asked::Commit, out)
        {
            return;
        }
        let Some(leading) = &mut self.leading else { return };
        if let Some(requested) = leading.deciding.get_mut(&txn).and_then(|d| d.commit.as_mut()) {
            requested.ids.push(id);
            return;
        }
        if !current && !holds_locks {
            out.reply.push((id, Err(Error::StaleBallot { ballot: leading.ballot })));
            return;
        }
        let lost = holds_locks && !current && !planted(Plant::ReadLocksSurvive);
        let alive = match lost {
            true => Err(Error::aborted("the group changed its leader; read locks are gone (X3)")),
            false => self.touch(now, txn, holds_locks),
        };
        if alive.is_ok() && holds_locks && writes.is_empty() && participants.is_empty() {
            if let Err(error) = self.commit_of_reads(now, id, txn, before, out) {
                out.reply.push((id, Err(error)));
            }
            return;
        }
        let Some(leading) = &mut self.leading else { return };
        let deciding = leading.deciding.entry(txn).or_insert_with(|| Deciding::new(now));
        let spans = exclusive(writes.iter().map(|write| write.key.clone()));
        deciding.commit = Some(Requested {
            ids: vec![id],
            arrived: now,
            writes,
            participants: participants.into_iter().collect(),
            before,
            locked: false,
            course: Course::default(),
        });
        let late = before.is_some_and(|before| now.latest().next() >= before);
        let locked = alive.and_then(|()| match late {
            true => Err(Error::aborted(TOO_LATE)), // no need to wait for locks
            false => self.lock(now, txn, age, spans, Then::Decide, out),
        });
        match locked {
            Ok(()) => {}
            Err(Error::Aborted { reason }) => self.abort_deciding(now, txn, &reason, out),
            // Nothing has been promised: the same commit may come again.
            Err(error) => {
                let Some(leading) = &mut self.leading else { return };
                if let Some(deciding) = leading.deciding.get_mut(&txn) {
                    deciding.commit = None;
                    if deciding.prepared.is_empty() && deciding.resolvers.is_empty() {
                        leading.deciding.remove(&txn);
                    }
                }
                out.reply.push((id, Err(error)));
            }
        }
    }

    pub(super) fn locked_decide(&mut self, now: Interval, txn: TxnId, out: &mut Effects) {
        let Some(leading) = &mut self.leading else { return };
        if let Some(commit) = leading.deciding.get_mut(&txn).and_then(|d| d.commit.as_mut()) {
            commit.locked = true;
            commit.course.locked = now.latest();
        }
        self.decide(now, txn, out);
    }

    pub(super) fn on_prepared(
        &mut self,
        now: Interval,
        from: GroupId,
        txn: TxnId,
        ready: Ready,
        out: &mut Effects,
    ) {
        if let Some(outcome) = self.outcome(txn) {
            out.send.push(self.to(from, txn, PeerBody::Decided(outcome)));
            return;
        }
        let Some(leading) = &mut self.leading else { return };
        let deciding = leading.deciding.entry(txn).or_insert_with(|| Deciding::new(now));
        let known = deciding.prepared.entry(from).or_insert(ready);
        known.until = known.until.max(ready.until); // a late message says less
        self.decide(now, txn, out);
    }

    pub(super) fn on_refused(
        &mut self,
        now: Interval,
        from: GroupId,
        txn: TxnId,
        out: &mut Effects,
    ) {
        if self.outcome(txn).is_some() {
            return;
        }
        let Some(leading) = &mut self.leading else { return };
        leading.deciding.entry(txn).or_insert_with(|| Deciding::new(now));
        self.abort_deciding(now, txn, &format!("{from} refused to prepare"), out);
    }

    pub(super) fn on_resolve(
        &mut self,
        now: Interval,
        id: RequestId,
        txn: TxnId,
        out: &mut Effects,
    ) {
        if let Some(outcome) = self.outcome(txn) {
            out.reply.push((id, Ok(ReplyBody::Outcome(outcome))));
            return;
        }
        if self.refuse_as_participant(id, txn, out)
            || self.repeats_commit_of_reads(id, txn, Asked::Outcome, out)
        {
            return;
        }
        let Some(leading) = &mut self.leading else { return };
        let deciding = leading.deciding.entry(txn).or_insert_with(|| Deciding::new(now));
        deciding.resolvers.push(id);
        if deciding.commit.is_none() {
            // X9: nobody has heard of a commit: fence it before saying so.
            self.abort_deciding(now, txn, "its outcome was asked for before its commit came", out);
        }
    }

    /// A group that has prepared cannot answer for the outcome: it is the one who waits for it.
    fn refuse_as_participant(&self, id: RequestId, txn: TxnId, out: &mut Effects) -> bool {
        if !self.promised(txn) {
            return false;
        }
        let what = format!("{} is a participant of {txn}; its coordinator decides", self.group);
        out.reply.push((id, Err(Error::FailedPrecondition(what))));
        true
    }

    pub(super) fn on_acknowledged(&mut self, from: GroupId, txn: TxnId) {
        let Some(leading) = &mut self.leading else { return };
        if let Some(participants) = leading.unacknowledged.get_mut(&txn) {
            participants.remove(&from);
            if participants.is_empty() {
                leading.unacknowledged.remove(&txn);
            }
        }
    }

    /// Chooses the commit timestamp and proposes the commit record, when all is there (X7).
    fn decide(&mut self, now: Interval, txn: TxnId, out: &mut Effects) {
        let Some(leading) = &self.leading else { return };
        let Some(deciding) = leading.deciding.get(&txn).filter(|d| d.ready()) else { return };
        let Some(commit) = &deciding.commit else { return };
        let ready = || commit.participants.iter().filter_map(|g| deciding.prepared.get(g));
        let prepared = ready().map(|ready| ready.at).max().unwrap_or_default();
        let until = ready().filter_map(|ready| ready.until).min();
        // X7: at or above every prepare timestamp, above now().latest at arrival; `assign` keeps
        // it above s_max and inside the lease.
        let arrived = match planted(Plant::SFromEarliest) {
            true => commit.arrived.earliest(),
            false => commit.arrived.latest(),
        };
        let at_least = prepared.max(arrived.next());
        // S1. Every later attempt would be later still: `s_max` and prepare timestamps only grow.
        if commit.before.is_some_and(|before| leading.s_max.next().max(at_least) >= before) {
            return self.abort_deciding(now, txn, TOO_LATE, out);
        }
        if until.is_some_and(|until| leading.s_max.next().max(at_least) > until) {
            let why = "its read locks in another group do not hold for long enough (X6)";
            return self.abort_deciding(now, txn, why, out);
        }
        let Some(timestamp) = self.assign(now, at_least) else { return };
        let Some(leading) = &mut self.leading else { return };
        assert!(leading.locks.knows(txn), "X3: {txn} decides without its locks");
        let Some(deciding) = leading.deciding.get_mut(&txn) else { return };
        let Some(commit) = &mut deciding.commit else { return };
        deciding.proposed = true;
        commit.course.decided = now.latest();
        leading.locks.make_immune(txn);
        leading.active.remove(&txn);
        let writes = std::mem::take(&mut commit.writes);
        let logged = commit.participants.iter().map(|g| (*g, deciding.prepared[g]));
        let logged = logged.filter(|(_, ready)| ready.until.is_none());
        let participants = logged.map(|(group, ready)| (group, ready.at)).collect();
        out.propose.push(Command::Commit(CommitRecord { txn, timestamp, writes, participants }));
    }

    /// Decisions that waited for a longer lease.
    pub(super) fn decide_ready(&mut self, now: Interval, out: &mut Effects) {
        let Some(leading) = &self.leading else { return };
        let ready: Vec<TxnId> =
            leading.deciding.iter().filter(|(_, d)| d.ready()).map(|(txn, _)| *txn).collect();
        for txn in ready {
            self.decide(now, txn, out);
        }
    }

    pub(super) fn expire_deciding(&mut self, now: Interval, silent: Timestamp, out: &mut Effects) {
        let grace = now.earliest().minus_micros(self.config.commit_grace_ms * 1_000);
        let late = |d: &Deciding| d.since < silent || (d.commit.is_none() && d.since < grace);
        let Some(leading) = &self.leading else { return };
        let expired: Vec<TxnId> = leading
            .deciding
            .iter()
            .filter(|(_, d)| !d.proposed && (d.doomed.is_some() || late(d)))
            .map(|(txn, _)| *txn)
            .collect();
        for txn in expired {
            self.abort_deciding(now, txn, "a participant or the commit request did not come", out);
        }
    }

    /// Decides "abort", unless the decision is on its way already. Where a participant may have
    /// prepared, or somebody asked, the abort is logged before it is answered (X9); a one-group
    /// transaction is simply forgotten with its locks, and its id refused from then on.
    pub(super) fn abort_deciding(
        &mut self,
        now: Interval,
        txn: TxnId,
        reason: &str,
        out: &mut Effects,
    ) {
        let Some(leading) = &mut self.leading else { return };
        let Some(deciding) = leading.deciding.get_mut(&txn).filter(|d| !d.proposed) else { return };
        // From here on it cannot commit, even when the abort has to wait: its locks may be gone.
        deciding.doomed.get_or_insert_with(|| reason.to_owned());
        let named = deciding.commit.iter().flat_map(|commit| commit.participants.iter());
        let participants: BTreeSet<GroupId> =
            named.chain(deciding.prepared.keys()).copied().collect();
        let alone = participants.is_empty() && deciding.resolvers.is_empty();
        // A commit that comes without its locks' ballot may come again under a later leader, and
        // must find the fence there; one whose locks were taken under this ballot cannot.
        let requested = deciding.commit.is_some();
        if alone && requested && leading.active.get(&txn).is_some_and(|a| a.wounded) {
            let requests = deciding.requests();
            leading.deciding.remove(&txn);
            for id in requests {
                out.reply.push((id, Err(Error::aborted(reason))));
            }
            return;
        }
        let Some(at) = self.assign(now, Timestamp::MIN) else { return }; // the next tick tries again
        let Some(leading) = &mut self.leading else { return };
        if let Some(deciding) = leading.deciding.get_mut(&txn) {
            deciding.proposed = true;
        }
        let participants = participants.into_iter().collect();
        out.propose.push(Command::Abort { txn, at, participants });
        self.release_undecided(now, txn, out);
    }

    /// Locks of a transaction whose abort is on its way serve nobody.
    fn release_undecided(&mut self, now: Interval, txn: TxnId, out: &mut Effects) {
        let Some(leading) = &mut self.leading else { return };
        let waiting = leading.waiting.range(tickets_of(txn));
        let deciding = waiting.filter(|(_, then)| matches!(then, Then::Decide));
        for key in deciding.map(|(key, _)| *key).collect::<Vec<_>>() {
            leading.waiting.remove(&key);
        }
        self.give_up(now, txn, "the transaction was aborted", out);
    }

    /// The commit record is chosen, applied and waited for: answer, and tell the participants.
    pub(super) fn committed(&mut self, now: Interval, record: &CommitRecord, out: &mut Effects) {
        if self.leading.is_none() {
            return;
        }
        self.tell_participants(record, out);
        let Some(leading) = &mut self.leading else { return };
        let Some(deciding) = leading.deciding.remove(&record.txn) else { return };
        let certificate = deciding.commit.as_ref().map(|commit| {
            Box::new(Certificate {
                txn: record.txn,
                timestamp: record.timestamp,
                prepared: deciding.timestamps(),
                arrived: commit.arrived,
                waited: now,
                provenance: Provenance::default(),
                group: self.group,
                ballot: leading.ballot,
                timing: commit.course.timing(commit.arrived, record.timestamp, now),
                seal: Bytes::new(),
            })
        });
        let receipt = Receipt { timestamp: record.timestamp, group: self.group, certificate };
        for id in deciding.commit.iter().flat_map(|commit| commit.ids.iter()) {
            out.reply.push((*id, Ok(ReplyBody::Committed(receipt.clone()))));
        }
        for id in deciding.resolvers {
            let outcome = Outcome::Committed(record.timestamp);
            out.reply.push((id, Ok(ReplyBody::Outcome(outcome))));
        }
    }

    /// The abort is chosen and applied.
    pub(super) fn aborted(&mut self, txn: TxnId, participants: &[GroupId], out: &mut Effects) {
        for group in participants {
            out.send.push(self.to(*group, txn, PeerBody::Decided(Outcome::Aborted)));
        }
        let Some(leading) = &mut self.leading else { return };
        if !participants.is_empty() {
            leading.unacknowledged.insert(txn, participants.iter().copied().collect());
        }
        let Some(deciding) = leading.deciding.remove(&txn) else { return };
        let reason =
            deciding.doomed.as_deref().unwrap_or("the coordinator aborted the transaction");
        for id in deciding.commit.iter().flat_map(|commit| commit.ids.iter()) {
            out.reply.push((*id, Err(Error::aborted(reason))));
        }
        for id in deciding.resolvers {
            out.reply.push((id, Ok(ReplyBody::Outcome(Outcome::Aborted))));
        }
    }

    /// The answer to a commit whose outcome is in the table.
    fn recorded(&self, outcome: Outcome) -> Result<ReplyBody, Error> {
        match outcome {
            Outcome::Committed(timestamp) => {
                Ok(ReplyBody::Committed(Receipt::plain(timestamp, self.group)))
            }
            Outcome::Aborted => Err(Error::aborted("the transaction was aborted before")),
        }
    }
}
