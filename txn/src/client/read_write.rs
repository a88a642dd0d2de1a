//! Read-write transactions at the client: reads under locks, and buffered writes (X1).
//!
//! Reads take locks at the groups' leaders; writes stay here until the commit
//! ([`commit`](super::commit)), and the transaction's own reads see them (the *overlay*).

use super::batch::{Batches, KEYS_MAX, Values};
use super::options::{Limits, TransactionOptions};
use super::read_only::unexpected;
use super::{Inner, Placement};
use futures::future::try_join_all;
use parking_lot::Mutex;
use proto::keys::{Row, Value};
use proto::request::{Age, Body, Found, LockMode, ReadSet, ReplyBody};
use proto::{Ballot, Error, GroupId, Key, KeyRange, Page, TxnId};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;
use truetime::Timestamp;

/// How often a clock is looked at, at most, until what was read has passed.
const LOOKS_MAX: u32 = 4;
/// Longest pause between two looks.
const LOOK_PAUSE_MAX: Duration = Duration::from_secs(1);

/// A read-write transaction; cheap to clone, all clones are one transaction. Dropping the last
/// clone without a commit releases its locks.
#[derive(Clone)]
pub struct ReadWrite {
    pub(super) shared: Arc<Shared>,
}

pub(super) struct Shared {
    pub inner: Arc<Inner>,
    pub txn: TxnId,
    pub age: Age,
    pub options: TransactionOptions,
    pub limits: Limits,
    pub state: Mutex<State>,
    /// Reads of keys under way to a group; `true`: under exclusive locks.
    batches: Batches<(GroupId, bool)>,
}

#[derive(Default)]
pub(super) struct State {
    /// Buffered writes; `None` deletes.
    pub writes: BTreeMap<Key, Option<Value>>,
    /// What each write replaced in `writes`, in order, for savepoints.
    pub undo: Vec<(Key, Option<Option<Value>>)>,
    /// Groups where locks are held, and the ballot under which they were taken (X3).
    pub locked: BTreeMap<GroupId, Ballot>,
    /// Groups that were asked for locks, whether or not their answer came.
    pub asked: BTreeSet<GroupId>,
    /// Committed, rolled back or given up: nothing may follow.
    pub ended: bool,
    /// The commit timestamp must lie below.
    pub before: Option<Timestamp>,
    /// Who decides about the commit that was asked for.
    pub coordinator: Option<GroupId>,
    /// The largest commit timestamp among what was read. It may not have passed yet: locks can be
    /// released before the commit wait is over, to those who wait in turn.
    seen: Timestamp,
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
    pub(super) fn new(
        inner: Arc<Inner>,
        age: Option<Age>,
        options: TransactionOptions,
        limits: Limits,
        now: Timestamp,
    ) -> ReadWrite {
        let txn = inner.next_txn();
        let age = age.unwrap_or(Age { start: now, first: txn });
        let (state, batches) = (Mutex::default(), Batches::default());
        let shared = Shared { inner, txn, age, options, limits, state, batches };
        ReadWrite { shared: Arc::new(shared) }
    }

    /// Another attempt of this transaction, which was aborted: a new id, the same age (X2), so that
    /// it grows older than its rivals and finally wins; the same options and the same deadline.
    #[must_use]
    pub fn again(&self) -> ReadWrite {
        let Shared { inner, age, options, limits, .. } = &*self.shared;
        ReadWrite::new(inner.clone(), Some(*age), *options, *limits, age.start)
    }

    /// This attempt's id.
    pub fn id(&self) -> TxnId {
        self.shared.txn
    }

    /// The age, to be kept by the next attempt (X2).
    pub fn age(&self) -> Age {
        self.shared.age
    }

    /// When it must have ended, if it must.
    pub fn deadline(&self) -> Option<Timestamp> {
        self.shared.limits.deadline
    }

    /// The value of a key under a shared lock, `None` when there is no row.
    ///
    /// # Errors
    /// `Aborted`: run the whole transaction again.
    pub async fn get(&self, key: &Key) -> Result<Option<Value>, Error> {
        let mut values = self.get_many(std::slice::from_ref(key), LockMode::Shared).await?;
        Ok(values.pop().flatten())
    }

    /// The values of keys, in their order; own writes included. One message to each group, for
    /// all that is asked for at the same time, up to 1,024 keys.
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
        let messages = by_group.iter().flat_map(|(group, (places, keys))| {
            let parts = places.chunks(KEYS_MAX).zip(keys.chunks(KEYS_MAX));
            parts.map(|(places, keys)| (*group, places, keys.to_vec()))
        });
        let calls = messages.map(|(group, places, keys)| async move {
            let to = (group, mode == LockMode::Exclusive);
            let txn = self.clone();
            let send = move |keys| async move { txn.read_keys(group, mode, keys).await };
            Ok((places, self.shared.batches.read(to, keys, send).await?))
        });
        for (places, values) in try_join_all(calls).await? {
            for (place, value) in places.iter().zip(values) {
                found[*place] = value.map(|(_, value)| value);
            }
        }
        Ok(found)
    }

    async fn read_keys(
        &self,
        group: GroupId,
        mode: LockMode,
        keys: Vec<Key>,
    ) -> Result<Values, Error> {
        match self.read(group, mode, ReadSet::Keys(keys)).await? {
            ReplyBody::Read { found: Found::Values(values), .. } => Ok(values),
            other => Err(unexpected(&other)),
        }
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
            ReplyBody::Read { found: Found::Page(page), .. } => page,
            other => return Err(unexpected(&other)),
        };
        let end = page.resume.clone().unwrap_or_else(|| range.end.clone());
        let covered = KeyRange { start: range.start.clone(), end };
        Ok(self.overlay(group, page, &covered, max_rows))
    }

    /// All rows of a range over all groups, in key order, own writes merged in; locks as
    /// [`scan_page`](Self::scan_page). For ranges known to be small.
    ///
    /// # Errors
    /// `Aborted`: run the whole transaction again.
    pub async fn scan_all(&self, range: &KeyRange, mode: LockMode) -> Result<Vec<Row>, Error> {
        let mut rows = Vec::new();
        for group in self.groups_of(range) {
            let mut rest = Some(range.clone());
            while let Some(part) = rest.take() {
                let page = self.scan_page(group, &part, u32::MAX, mode).await?;
                rows.extend(page.rows);
                rest = page.resume.map(|start| KeyRange { start, end: range.end.clone() });
            }
        }
        rows.sort_by(|a, b| a.key.cmp(&b.key));
        Ok(rows)
    }

    /// A page as the transaction sees it: what it has written in place of what is stored, what it
    /// has deleted left out, and no more rows than were asked for.
    fn overlay(&self, group: GroupId, page: Page, covered: &KeyRange, max_rows: u32) -> Page {
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
        let max = usize::try_from(max_rows).unwrap_or(usize::MAX);
        let resume = match rows.keys().nth(max).cloned() {
            Some(beyond) => {
                rows.split_off(&beyond);
                Some(beyond)
            }
            None => page.resume,
        };
        Page { rows: rows.into_values().collect(), resume }
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

    /// The commit timestamp must lie below this, or the commit aborts. For what a transaction relies
    /// on and no lock keeps as it is: the schema, which is certain up to some timestamp only (S1).
    /// The last word before [`commit`](Self::commit) counts.
    pub fn commit_before(&self, before: Timestamp) {
        self.shared.state.lock().before = Some(before);
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

    /// Releases the locks; the buffered writes are gone.
    ///
    /// Ends when everything that was read has certainly been committed in the past (X8), a few ε at
    /// most: a caller that tells somebody what it has read, and that it changed nothing, has then
    /// told nobody of anything that is still to come. The locks go first.
    pub async fn rollback(&self) {
        if self.shared.state.lock().ended {
            return;
        }
        self.release();
        self.wait_out().await;
    }

    /// Releases the locks, without a word to anybody about what was read.
    pub(super) fn release(&self) {
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

    async fn wait_out(&self) {
        let seen = self.shared.state.lock().seen;
        let clock = &self.shared.inner.clock;
        for _ in 0..LOOKS_MAX {
            let pause = match clock.now() {
                Ok(now) if now.after(seen) => return,
                Ok(now) => seen.next().since(now.earliest()).max(Duration::from_micros(1)),
                Err(_) => LOOK_PAUSE_MAX,
            };
            clock.sleep(pause.min(LOOK_PAUSE_MAX)).await;
        }
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
        let router = &self.shared.inner.router;
        let reply = router.ask_within(group, body, held, self.shared.limits).await?;
        let mut state = self.shared.state.lock();
        if let ReplyBody::Read { ahead, .. } = &reply.body {
            state.seen = state.seen.max(*ahead);
        }
        let first = *state.locked.entry(group).or_insert(reply.ballot);
        if first != reply.ballot {
            // X3: two reads of one group under different leaders; the first one's locks are gone.
            return Err(Error::aborted(format!("{group} changed its leader")));
        }
        Ok(reply.body)
    }

    pub(super) fn open_state(&self) -> Result<parking_lot::MutexGuard<'_, State>, Error> {
        let state = self.shared.state.lock();
        if state.ended {
            return Err(Error::FailedPrecondition("the transaction has ended".into()));
        }
        Ok(state)
    }
}
