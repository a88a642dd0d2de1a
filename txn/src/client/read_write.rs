//! Read-write transactions at the client (X1, X5, X6, X9).
//!
//! Reads take locks at the groups' leaders; writes stay here until the commit, and the
//! transaction's own reads see them (the *overlay*). The commit names a coordinator, sends
//! prepare to every other group, and waits for the coordinator's word.

use super::read_only::unexpected;
use super::{Inner, Placement};
use futures::future::{self, Either, join_all, try_join_all};
use parking_lot::Mutex;
use proto::keys::{Row, Value, Write};
use proto::request::{Age, Body, Found, LockMode, Outcome, ReadSet, Receipt, ReplyBody};
use proto::{Ballot, Error, GroupId, Key, KeyRange, Page, TxnId};
use std::collections::{BTreeMap, BTreeSet};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use truetime::Timestamp;

/// Largest sum of keys and values one commit may write, in bytes (as Cloud Spanner publishes).
pub const COMMIT_BYTES_MAX: usize = 100 << 20;
/// How often an unknown outcome is asked for before it is handed to the caller.
const RESOLVE_ATTEMPTS: u32 = 6;
/// Pause before asking again when there is no time (T5), which a client may learn at once.
const TIMELESS_PAUSE: Duration = Duration::from_secs(1);

/// A read-write transaction; cheap to clone, all clones are one transaction. Dropping the last
/// clone without a commit releases its locks.
#[derive(Clone)]
pub struct ReadWrite {
    shared: Arc<Shared>,
}

struct Shared {
    inner: Arc<Inner>,
    txn: TxnId,
    age: Age,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Buffered writes; `None` deletes.
    writes: BTreeMap<Key, Option<Value>>,
    /// What each write replaced in `writes`, in order, for savepoints.
    undo: Vec<(Key, Option<Option<Value>>)>,
    /// Groups where locks are held, and the ballot under which they were taken (X3).
    locked: BTreeMap<GroupId, Ballot>,
    /// Groups that were asked for locks, whether or not their answer came.
    asked: BTreeSet<GroupId>,
    /// Committed, rolled back or given up: nothing may follow.
    ended: bool,
}

impl Drop for Shared {
    fn drop(&mut self) {
        let state = self.state.get_mut();
        if !state.ended {
            for group in &state.asked {
                self.inner.router.tell(*group, Body::Rollback { txn: self.txn });
            }
        }
    }
}

/// A position in a transaction's buffered writes; see [`ReadWrite::savepoint`].
#[derive(Clone, Copy, Debug)]
pub struct Savepoint(usize);

impl Inner {
    /// Keys by the group that holds them, each with its place in the caller's list.
    pub(super) fn split_keys<'a>(
        &self,
        keys: impl Iterator<Item = (usize, &'a Key)>,
    ) -> BTreeMap<GroupId, (Vec<usize>, Vec<Key>)> {
        let mut by_group: BTreeMap<GroupId, (Vec<usize>, Vec<Key>)> = BTreeMap::new();
        for (place, key) in keys {
            let entry = by_group.entry(self.placement.group_of(key)).or_default();
            entry.0.push(place);
            entry.1.push(key.clone());
        }
        by_group
    }
}

impl ReadWrite {
    pub(super) fn new(inner: Arc<Inner>, txn: TxnId, age: Age) -> ReadWrite {
        let state = Mutex::new(State::default());
        ReadWrite { shared: Arc::new(Shared { inner, txn, age, state }) }
    }

    /// This attempt's id.
    pub fn id(&self) -> TxnId {
        self.shared.txn
    }

    /// The age, to be kept by the next attempt (X2).
    pub fn age(&self) -> Age {
        self.shared.age
    }

    /// The value of a key under a shared lock, `None` when there is no row.
    ///
    /// # Errors
    /// `Aborted`: run the whole transaction again.
    pub async fn get(&self, key: &Key) -> Result<Option<Value>, Error> {
        let mut values = self.get_many(std::slice::from_ref(key), LockMode::Shared).await?;
        Ok(values.pop().flatten())
    }

    /// The values of keys, in their order; own writes included. One message to each group.
    ///
    /// # Errors
    /// `Aborted`: run the whole transaction again.
    pub async fn get_many(
        &self,
        keys: &[Key],
        mode: LockMode,
    ) -> Result<Vec<Option<Value>>, Error> {
        let mut found: Vec<Option<Value>> = vec![None; keys.len()];
        let mut missing = Vec::new();
        {
            let state = self.open_state()?;
            for (place, key) in keys.iter().enumerate() {
                match state.writes.get(key) {
                    Some(own) => found[place] = own.clone(),
                    None => missing.push((place, key)),
                }
            }
        }
        let by_group = self.shared.inner.split_keys(missing.into_iter());
        let calls = by_group.into_iter().map(|(group, (places, keys))| async move {
            match self.read(group, mode, ReadSet::Keys(keys)).await? {
                ReplyBody::Read(Found::Values(values)) => Ok((places, values)),
                other => Err(unexpected(&other)),
            }
        });
        for (places, values) in try_join_all(calls).await? {
            for (place, value) in places.into_iter().zip(values) {
                found[place] = value.map(|(_, value)| value);
            }
        }
        Ok(found)
    }

    /// The groups whose pages together make up a range.
    pub fn groups_of(&self, range: &KeyRange) -> Vec<GroupId> {
        self.shared.inner.placement.groups_of(range)
    }

    /// One page of a range at one group, in key order, own writes merged in. Locks the whole
    /// range, keys that do not exist included (X1). Go on with `start = page.resume`.
    ///
    /// Rows of the transaction's own writes carry [`Timestamp::MAX`] as `written`.
    ///
    /// # Errors
    /// `Aborted`: run the whole transaction again.
    pub async fn scan_page(
        &self,
        group: GroupId,
        range: &KeyRange,
        max_rows: u32,
        mode: LockMode,
    ) -> Result<Page, Error> {
        let what = ReadSet::Range { range: range.clone(), max_rows };
        let page = match self.read(group, mode, what).await? {
            ReplyBody::Read(Found::Page(page)) => page,
            other => return Err(unexpected(&other)),
        };
        let end = page.resume.clone().unwrap_or_else(|| range.end.clone());
        let covered = KeyRange { start: range.start.clone(), end };
        Ok(self.overlay(group, page, &covered))
    }

    fn overlay(&self, group: GroupId, page: Page, covered: &KeyRange) -> Page {
        let placement: &dyn Placement = self.shared.inner.placement.as_ref();
        let state = self.shared.state.lock();
        let mut own = state
            .writes
            .range(covered.start.clone()..)
            .take_while(|(key, _)| covered.contains(key))
            .filter(|(key, _)| placement.group_of(key) == group)
            .peekable();
        if own.peek().is_none() {
            return page;
        }
        let mut rows: BTreeMap<Key, Row> =
            page.rows.into_iter().map(|row| (row.key.clone(), row)).collect();
        for (key, value) in own {
            match value {
                Some(value) => {
                    let row =
                        Row { key: key.clone(), value: value.clone(), written: Timestamp::MAX };
                    rows.insert(key.clone(), row);
                }
                None => {
                    rows.remove(key);
                }
            }
        }
        Page { rows: rows.into_values().collect(), resume: page.resume }
    }

    /// Buffers a write.
    pub fn put(&self, key: Key, value: Value) {
        self.buffer(key, Some(value));
    }

    /// Buffers a deletion.
    pub fn delete(&self, key: Key) {
        self.buffer(key, None);
    }

    fn buffer(&self, key: Key, value: Option<Value>) {
        let mut state = self.shared.state.lock();
        let before = state.writes.insert(key.clone(), value);
        state.undo.push((key, before));
    }

    /// Where the buffered writes stand now, so that a failed statement can be taken back.
    pub fn savepoint(&self) -> Savepoint {
        Savepoint(self.shared.state.lock().undo.len())
    }

    /// Takes back the writes buffered since the savepoint. Locks stay.
    pub fn rollback_to(&self, savepoint: Savepoint) {
        let mut state = self.shared.state.lock();
        while state.undo.len() > savepoint.0 {
            let Some((key, before)) = state.undo.pop() else { break };
            match before {
                Some(value) => state.writes.insert(key, value),
                None => state.writes.remove(&key),
            };
        }
    }

    /// Tells every group where locks are held that the client lives (X4). Call it every few
    /// seconds while a person thinks.
    ///
    /// # Errors
    /// `Aborted` when some group has given the transaction up.
    pub async fn keep_alive(&self) -> Result<(), Error> {
        let locked: Vec<_> = self.open_state()?.locked.iter().map(|(g, b)| (*g, *b)).collect();
        let router = &self.shared.inner.router;
        let txn = self.shared.txn;
        try_join_all(
            locked.into_iter().map(|(group, ballot)| {
                router.ask_under(group, Body::KeepAlive { txn }, Some(ballot))
            }),
        )
        .await?;
        Ok(())
    }

    /// Releases the locks; the buffered writes are gone.
    pub async fn rollback(&self) {
        let asked = {
            let mut state = self.shared.state.lock();
            if std::mem::replace(&mut state.ended, true) {
                return;
            }
            std::mem::take(&mut state.asked)
        };
        for group in asked {
            self.shared.inner.router.tell(group, Body::Rollback { txn: self.shared.txn });
        }
    }

    /// Commits. A transaction that read and wrote nothing commits at `now().latest`.
    ///
    /// # Errors
    /// `Aborted`: nothing happened, run it again. `OutcomeUnknown`: it may have happened, and the
    /// coordinator could not be asked in time. `ClockUnavailable`: the client has no time, so
    /// nothing was sent and nothing happened (T5).
    pub async fn commit(&self) -> Result<Receipt, Error> {
        let inner = &self.shared.inner;
        let now = inner.clock.now()?;
        let parts = self.take_parts()?;
        let Some(coordinator) = choose_coordinator(&parts) else {
            return Ok(Receipt::plain(now.latest(), GroupId::ROOT));
        };
        let participants: Vec<GroupId> =
            parts.keys().copied().filter(|g| *g != coordinator).collect();
        let prepares = participants.iter().map(|group| self.prepare(*group, coordinator, &parts));
        let commit = self.commit_at(coordinator, participants.clone(), &parts);
        // The coordinator hears from the participants themselves, so only its answer counts; a
        // participant that cannot be reached shows there as a refusal or a time-out.
        let prepares = join_all(prepares);
        match future::select(pin!(commit), pin!(prepares)).await {
            Either::Left((answer, _)) => answer,
            Either::Right((_, commit)) => commit.await,
        }
    }

    /// What each group has to do with this transaction: locks under a ballot, and writes.
    fn take_parts(&self) -> Result<BTreeMap<GroupId, Part>, Error> {
        let mut state = self.open_state()?;
        let size = |(key, value): (&Key, &Option<Value>)| {
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

    async fn prepare(&self, group: GroupId, coordinator: GroupId, parts: &BTreeMap<GroupId, Part>) {
        let part = &parts[&group];
        let body = Body::Prepare {
            txn: self.shared.txn,
            age: self.shared.age,
            holds_locks: part.locked.is_some(),
            coordinator,
            writes: part.writes.clone(),
        };
        // A refusal reaches the coordinator too; nothing is left to do with it here.
        let _ = self.shared.inner.router.ask_under(group, body, part.locked).await;
    }

    async fn commit_at(
        &self,
        group: GroupId,
        participants: Vec<GroupId>,
        parts: &BTreeMap<GroupId, Part>,
    ) -> Result<Receipt, Error> {
        let part = &parts[&group];
        let body = Body::Commit {
            txn: self.shared.txn,
            age: self.shared.age,
            holds_locks: part.locked.is_some(),
            writes: part.writes.clone(),
            participants,
        };
        let answer = self.shared.inner.router.ask_under(group, body, part.locked).await;
        match answer {
            Ok(reply) => match reply.body {
                ReplyBody::Committed(receipt) => Ok(receipt),
                other => Err(unexpected(&other)),
            },
            // "Aborted" is certain: a commit that happened is found by its id and told again.
            Err(error @ (Error::Aborted { .. } | Error::InvalidArgument(_))) => Err(error),
            Err(error) => self.resolve(group, error.to_string()).await,
        }
    }

    /// Asks for the outcome of a commit whose answer was lost (X9).
    async fn resolve(&self, group: GroupId, reason: String) -> Result<Receipt, Error> {
        for _ in 0..RESOLVE_ATTEMPTS {
            let body = Body::Resolve { txn: self.shared.txn };
            match self.shared.inner.router.ask(group, body).await {
                Ok(reply) => match reply.body {
                    ReplyBody::Outcome(Outcome::Committed(timestamp)) => {
                        return Ok(Receipt::plain(timestamp, group));
                    }
                    ReplyBody::Outcome(Outcome::Aborted) => {
                        return Err(Error::aborted("the commit was given up"));
                    }
                    other => return Err(unexpected(&other)),
                },
                Err(Error::DeadlineExceeded(_) | Error::FailedPrecondition(_)) => {}
                Err(Error::ClockUnavailable { .. }) => {
                    self.shared.inner.clock.sleep(TIMELESS_PAUSE).await;
                }
                Err(error) => return Err(Error::OutcomeUnknown { reason: error.to_string() }),
            }
        }
        Err(Error::OutcomeUnknown { reason })
    }

    async fn read(
        &self,
        group: GroupId,
        mode: LockMode,
        what: ReadSet,
    ) -> Result<ReplyBody, Error> {
        let held = {
            let mut state = self.open_state()?;
            state.asked.insert(group);
            state.locked.get(&group).copied()
        };
        let body = Body::Read {
            txn: self.shared.txn,
            age: self.shared.age,
            holds_locks: held.is_some(),
            mode,
            what,
        };
        let reply = self.shared.inner.router.ask_under(group, body, held).await?;
        let first = *self.shared.state.lock().locked.entry(group).or_insert(reply.ballot);
        if first != reply.ballot {
            // X3: two reads of one group under different leaders; the first one's locks are gone.
            return Err(Error::aborted(format!("{group} changed its leader")));
        }
        Ok(reply.body)
    }

    fn open_state(&self) -> Result<parking_lot::MutexGuard<'_, State>, Error> {
        let state = self.shared.state.lock();
        if state.ended {
            return Err(Error::FailedPrecondition("the transaction has ended".into()));
        }
        Ok(state)
    }
}

/// One group's share of a transaction.
#[derive(Default)]
struct Part {
    locked: Option<Ballot>,
    writes: Vec<Write>,
}

/// The group with the most writes, so that the fewest bytes are logged twice.
fn choose_coordinator(parts: &BTreeMap<GroupId, Part>) -> Option<GroupId> {
    parts.iter().max_by_key(|(_, part)| part.writes.len()).map(|(group, _)| *group)
}
