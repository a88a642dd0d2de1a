//! Commit, as its driver (X5, X6, X9).
//!
//! The client names a coordinator, sends prepare to every other group, and waits for the
//! coordinator's word. Everything sent carries the attempt's id, so everything may be repeated,
//! and a repeated commit is told what was recorded. What the client hears:
//!
//! | answer | what it means |
//! |---|---|
//! | a receipt | it is committed, and `after(timestamp)` holds (X8) |
//! | `Aborted` | nothing happened and nothing will: logged, or never promised |
//! | `OutcomeUnknown` | asked, and not told in time; [`ReadWrite::outcome`] asks again |
//! | anything else | nothing was sent |
//!
//! A commit whose future is dropped half way is settled by those who are left: see [`Undecided`].

use super::read_only::unexpected;
use super::read_write::ReadWrite;
use super::{Inner, Limits};
use futures::future::{self, Either, join_all};
use proto::keys::{Key, Write};
use proto::plant::{Plant, planted};
use proto::request::{Age, Body, Outcome, Receipt, ReplyBody};
use proto::{Ballot, Error, GroupId, TxnId};
use std::collections::BTreeMap;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use truetime::Timestamp;

/// Largest sum of keys and values one commit may write, in bytes (as Cloud Spanner publishes).
pub const COMMIT_BYTES_MAX: usize = 100 << 20;
/// How often an unknown outcome is asked for before it is handed to the caller.
const RESOLVE_ATTEMPTS: u32 = 6;
/// Before a group that refused to prepare is asked again.
const REFUSED_PAUSE: Duration = Duration::from_millis(300);
/// Pause before asking again when there is no time (T5), which a client may learn at once.
const TIMELESS_PAUSE: Duration = Duration::from_secs(1);

/// One group's share of a transaction.
#[derive(Default)]
struct Part {
    /// The ballot under which locks are held there.
    locked: Option<Ballot>,
    writes: Vec<Write>,
}

/// A commit as it is asked for; the same however often that happens.
struct Request {
    txn: TxnId,
    age: Age,
    coordinator: GroupId,
    participants: Vec<GroupId>,
    before: Option<Timestamp>,
    parts: BTreeMap<GroupId, Part>,
}

/// A commit that has been sent. Dropped before its outcome is known, it sees to it that locks do
/// not have to wait for a time-out:
///
/// - The coordinator is asked for the outcome. Has the commit not reached it, it fences the
///   transaction, tells those who have prepared, and refuses the commit should it still come (X9).
///   Otherwise it decides as it would have; the question changes nothing.
/// - Participants are told to roll back. One that has prepared pays no attention (X2), and waits
///   for its coordinator; one that has not will refuse to prepare, so nothing commits without it.
///
/// So the locks go soon, and the outcome, whatever it is, is one for all groups.
struct Undecided<'a> {
    inner: &'a Inner,
    request: &'a Request,
    known: bool,
}

impl Drop for Undecided<'_> {
    fn drop(&mut self) {
        if !self.known {
            let (router, txn) = (&self.inner.router, self.request.txn);
            router.tell(self.request.coordinator, Body::Resolve { txn });
            for participant in &self.request.participants {
                router.tell(*participant, Body::Rollback { txn });
            }
        }
    }
}

impl ReadWrite {
    /// Commits. A transaction that read and wrote nothing commits at `now().latest`.
    ///
    /// The future may be dropped: the outcome is then known to the groups soon, and to whoever
    /// asks with [`outcome`](Self::outcome).
    ///
    /// # Errors
    /// `Aborted`: nothing happened, run it again. `OutcomeUnknown`: it may have happened, and the
    /// coordinator could not be asked in time. `ClockUnavailable`: the client has no time, so
    /// nothing was sent and nothing happened (T5). `DeadlineExceeded`: the transaction's own
    /// deadline had passed before; nothing was sent, the locks are released. `InvalidArgument`: it
    /// writes too much.
    pub async fn commit(&self) -> Result<Receipt, Error> {
        let inner = &self.shared.inner;
        let now = inner.clock.now()?;
        self.shared.limits.give_up_at(now).inspect_err(|_| self.release())?;
        let before = self.shared.state.lock().before;
        let parts = self.take_parts()?;
        // The group with the most writes, so that the fewest bytes are logged twice.
        let coordinator = parts.iter().max_by_key(|(_, part)| part.writes.len());
        let Some(coordinator) = coordinator.map(|(group, _)| *group) else {
            return match before.is_some_and(|before| now.latest() >= before) {
                true => Err(Error::aborted("what it was made by may be out of date (S1)")),
                false => Ok(Receipt::plain(now.latest(), GroupId::ROOT)),
            };
        };
        self.shared.state.lock().coordinator = Some(coordinator);
        let participants = parts.keys().copied().filter(|group| *group != coordinator).collect();
        let (txn, age) = (self.shared.txn, self.shared.age);
        let request = Request { txn, age, coordinator, participants, before, parts };
        if planted(Plant::RetryNewId) {
            return retry_under_new_ids(inner, request, self.shared.limits).await;
        }
        let mut undecided = Undecided { inner, request: &request, known: false };
        let answer = match request.send(inner, self.shared.limits).await {
            Ok(receipt) => Ok(receipt),
            // "Aborted" is certain: a commit that happened is found by its id and told again.
            Err(error @ Error::Aborted { .. }) => Err(error),
            // An earlier try may have been taken, and its answer lost.
            Err(error @ Error::InvalidArgument(_)) => {
                let limits = self.shared.limits;
                match resolve(inner, limits, txn, coordinator, error.clone()).await {
                    Err(Error::Aborted { .. }) => Err(error),
                    settled => settled,
                }
            }
            Err(error) => resolve(inner, self.shared.limits, txn, coordinator, error).await,
        };
        undecided.known = !matches!(answer, Err(Error::OutcomeUnknown { .. }));
        answer
    }

    /// What became of a commit that was asked for: after `OutcomeUnknown`, or when its future was
    /// dropped. Asking settles it: one that never reached its coordinator is aborted for good (X9).
    /// Tried as long as the client's operations are; the transaction's own deadline is not asked.
    ///
    /// # Errors
    /// `OutcomeUnknown`: still; ask again. `FailedPrecondition`: no commit was asked for that could
    /// have done anything.
    pub async fn outcome(&self) -> Result<Outcome, Error> {
        let inner = &self.shared.inner;
        let coordinator = self.shared.state.lock().coordinator;
        let Some(coordinator) = coordinator else {
            let what = "no commit was asked for: there is no outcome";
            return Err(Error::FailedPrecondition(what.into()));
        };
        let limits = Limits { deadline: None, ..self.shared.limits };
        let asked = Error::DeadlineExceeded("the coordinator was not asked".into());
        match resolve(inner, limits, self.shared.txn, coordinator, asked).await {
            Ok(receipt) => Ok(Outcome::Committed(receipt.timestamp)),
            Err(Error::Aborted { .. }) => Ok(Outcome::Aborted),
            Err(error) => Err(error),
        }
    }

    /// What each group has to do with this transaction: locks under a ballot, and writes.
    fn take_parts(&self) -> Result<BTreeMap<GroupId, Part>, Error> {
        let mut state = self.open_state()?;
        let size = |(key, value): (&Key, &Option<proto::Value>)| {
            key.len() + value.as_ref().map_or(0, |value| value.len())
        };
        let bytes: usize = state.writes.iter().map(size).sum();
        if bytes > COMMIT_BYTES_MAX {
            return Err(Error::InvalidArgument(format!(
                "the transaction writes {bytes} bytes; one commit may write {COMMIT_BYTES_MAX}"
            )));
        }
        state.ended = true;
        state.undo.clear();
        let mut parts: BTreeMap<GroupId, Part> = BTreeMap::new();
        for (group, ballot) in &state.locked {
            parts.entry(*group).or_default().locked = Some(*ballot);
        }
        for (key, value) in std::mem::take(&mut state.writes) {
            let group = self.shared.inner.placement.group_of(&key);
            parts.entry(group).or_default().writes.push(Write { key, value });
        }
        // Groups whose answer never came may hold locks that nothing else would end.
        for group in std::mem::take(&mut state.asked) {
            if !parts.contains_key(&group) {
                self.shared.inner.router.tell(group, Body::Rollback { txn: self.shared.txn });
            }
        }
        Ok(parts)
    }
}

impl Request {
    /// Sends it all, and waits for the coordinator.
    async fn send(&self, inner: &Inner, limits: Limits) -> Result<Receipt, Error> {
        let prepares = self.participants.iter().map(|group| self.prepare(inner, limits, *group));
        let commit = self.commit(inner, limits);
        // The coordinator hears from the participants themselves, so only its answer counts; a
        // participant that cannot be reached shows there as a refusal or a time-out.
        match future::select(pin!(commit), pin!(join_all(prepares))).await {
            Either::Left((answer, _)) => answer,
            Either::Right((_, commit)) => commit.await,
        }
    }

    async fn prepare(&self, inner: &Inner, limits: Limits, group: GroupId) {
        let part = &self.parts[&group];
        let body = Body::Prepare {
            txn: self.txn,
            age: self.age,
            holds_locks: part.locked.is_some(),
            coordinator: self.coordinator,
            writes: part.writes.clone(),
        };
        // A refusal goes to the coordinator too, once, and may be lost on its way: whoever asks again
        // has it said again. Without that the coordinator would wait until the transaction is timed
        // out, and its locks with it. Dropped when the coordinator has answered.
        while let Err(Error::Aborted { .. } | Error::StaleBallot { .. }) =
            inner.router.ask_within(group, body.clone(), part.locked, limits).await
        {
            inner.clock.sleep(REFUSED_PAUSE).await;
        }
    }

    async fn commit(&self, inner: &Inner, limits: Limits) -> Result<Receipt, Error> {
        let part = &self.parts[&self.coordinator];
        let body = Body::Commit {
            txn: self.txn,
            age: self.age,
            holds_locks: part.locked.is_some(),
            writes: part.writes.clone(),
            participants: self.participants.clone(),
            before: self.before,
        };
        let reply = inner.router.ask_within(self.coordinator, body, part.locked, limits).await?;
        match reply.body {
            ReplyBody::Committed(receipt) => Ok(receipt),
            other => Err(unexpected(&other)),
        }
    }
}

/// Asks for the outcome of a commit whose answer was lost (X9).
async fn resolve(
    inner: &Inner,
    limits: Limits,
    txn: TxnId,
    coordinator: GroupId,
    lost: Error,
) -> Result<Receipt, Error> {
    for _ in 0..RESOLVE_ATTEMPTS {
        let body = Body::Resolve { txn };
        match inner.router.ask_within(coordinator, body, None, limits).await {
            Ok(reply) => match reply.body {
                ReplyBody::Outcome(Outcome::Committed(timestamp)) => {
                    return Ok(Receipt::plain(timestamp, coordinator));
                }
                ReplyBody::Outcome(Outcome::Aborted) => {
                    return Err(Error::aborted("the commit was given up"));
                }
                other => return Err(unexpected(&other)),
            },
            Err(Error::DeadlineExceeded(_) | Error::FailedPrecondition(_)) => {}
            Err(Error::ClockUnavailable { .. }) => inner.clock.sleep(TIMELESS_PAUSE).await,
            Err(error) => return Err(Error::OutcomeUnknown { reason: error.to_string() }),
        }
    }
    Err(Error::OutcomeUnknown { reason: lost.to_string() })
}

/// The planted fault: what was not answered in one attempt is asked for as if it were another
/// transaction.
async fn retry_under_new_ids(
    inner: &Arc<Inner>,
    mut request: Request,
    limits: Limits,
) -> Result<Receipt, Error> {
    let attempt = limits.at_most(Duration::from_millis(inner.config.attempt_ms));
    let mut answer = request.send(inner, attempt).await;
    for _ in 0..RESOLVE_ATTEMPTS {
        if !matches!(answer, Err(Error::DeadlineExceeded(_))) {
            break;
        }
        request.txn = inner.next_txn();
        request.parts.values_mut().for_each(|part| part.locked = None);
        answer = request.send(inner, attempt).await;
    }
    match answer {
        Ok(receipt) => Ok(receipt),
        Err(error @ Error::Aborted { .. }) => Err(error),
        Err(error) => Err(Error::OutcomeUnknown { reason: error.to_string() }),
    }
}
