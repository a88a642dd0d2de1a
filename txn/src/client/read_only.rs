//! Read-only transactions: one timestamp over all groups, no locks (R3, R4, R6).
//!
//! | bound | its timestamp |
//! |---|---|
//! | strong | `now().latest` here: above all that was acknowledged before, in every group (R3) |
//! | exact timestamp, exact staleness | what it says |
//! | bounded staleness, session | open: fixed by the first read, as new as can be had without waiting |
//!
//! An open bound is fixed once, by whoever reads first. A read in one group asks the nearest replica
//! for the newest it has, in one message. One in several groups asks each for its safe time first,
//! all at once, and takes the smallest, but nothing older than the bound. From then on every read is
//! at exactly that timestamp, wherever it is sent.
//!
//! What is left out: the paper also lets a strong read in one group be at the group's last commit,
//! if nothing is prepared there. That saves a wait of at most ε, but a client does not know at its
//! first read that it will stay in one group, and a replica cannot tell it that nothing is prepared.

use super::batch::{Batches, KEYS_MAX, Values};
use super::options::{Limits, TransactionOptions};
use super::{Inner, SessionToken};
use futures::future::try_join_all;
use proto::keys::{Row, Value};
use proto::plant::{Plant, planted};
use proto::request::{Body, Found, ReadAt, ReadSet, ReplyBody};
use proto::{Error, GroupId, Key, KeyRange, Page};
use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use truetime::{Interval, Timestamp};

/// A session token may be so far ahead of this client's clock, as another client's may have been
/// when it read; a read at it waits (R5).
const TOKEN_AHEAD_US_MAX: u64 = 1_000_000;

/// How fresh a read must be (R4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimestampBound {
    /// Sees everything that was acknowledged before the read began.
    Strong,
    /// At exactly this timestamp.
    ReadTimestamp(Timestamp),
    /// At exactly this long ago.
    ExactStaleness(Duration),
    /// At most this long ago, as fresh as is possible without waiting.
    MaxStaleness(Duration),
    /// At this timestamp or later, as fresh as is possible without waiting.
    MinReadTimestamp(Timestamp),
    /// Sees everything that a session has seen or written, and is as fresh as is possible without
    /// waiting for more than that.
    Session(SessionToken),
}

/// A read-only transaction; cheap to clone, all clones read at one timestamp, needs no end.
#[derive(Clone)]
pub struct Snapshot {
    shared: Arc<Shared>,
}

struct Shared {
    inner: Arc<Inner>,
    limits: Limits,
    /// No read is older than this.
    at_least: Timestamp,
    /// The timestamp of all reads, once it is known; it never changes.
    at: OnceLock<Timestamp>,
    /// Whose turn it is to fix it.
    turn: futures::lock::Mutex<()>,
    batches: Batches<GroupId>,
}

/// What is read where.
type Parts = BTreeMap<GroupId, (Vec<usize>, Vec<Key>)>;

impl Snapshot {
    pub(super) fn choose(
        inner: Arc<Inner>,
        bound: TimestampBound,
        options: &TransactionOptions,
    ) -> Result<Snapshot, Error> {
        let now = inner.clock.now()?;
        let limits = Limits::of(options, inner.config.operation_ms, now);
        let retention = inner.config.retention;
        let (at_least, is_open) = bound.oldest(now, retention)?;
        let at = OnceLock::new();
        if !is_open {
            let _ = at.set(at_least); // it is empty
        }
        let (turn, batches) = (futures::lock::Mutex::new(()), Batches::default());
        Ok(Snapshot { shared: Arc::new(Shared { inner, limits, at_least, at, turn, batches }) })
    }

    /// The timestamp all reads of this transaction are at. While a bound is open, before the first
    /// read: the oldest it may become; see [`fixed`](Self::fixed) and [`settle`](Self::settle).
    pub fn timestamp(&self) -> Timestamp {
        self.fixed().unwrap_or(self.shared.at_least)
    }

    /// The timestamp all reads are at, once it is fixed.
    pub fn fixed(&self) -> Option<Timestamp> {
        self.shared.at.get().copied()
    }

    /// Fixes the timestamp now, for reads of anything. With a bound that is open this asks the
    /// nearest replica of every group; with another it does nothing. For those who need to know the
    /// timestamp before they know what they will read.
    ///
    /// # Errors
    /// Transient ones after retries.
    pub async fn settle(&self) -> Result<Timestamp, Error> {
        let all = KeyRange::all();
        let groups = self.groups_of(&all).into_iter();
        let what = ReadSet::Range { range: all, max_rows: 0 };
        self.fix(groups.map(|group| (group, what.clone())).collect()).await
    }

    /// The value of a key, `None` when there is no row.
    ///
    /// # Errors
    /// `SnapshotTooOld` when the horizon has passed the timestamp; transient ones after retries.
    pub async fn get(&self, key: &Key) -> Result<Option<Value>, Error> {
        let mut values = self.get_many(std::slice::from_ref(key)).await?;
        Ok(values.pop().flatten())
    }

    /// The values of keys, in their order. One message to each group, for all that is asked for at
    /// the same time, up to 1,024 keys.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub async fn get_many(&self, keys: &[Key]) -> Result<Vec<Option<Value>>, Error> {
        let by_group = self.shared.inner.split_keys(keys.iter().enumerate());
        let mut found = vec![None; keys.len()];
        let parts = match self.fixed() {
            Some(at) => self.read_keys(at, &by_group).await?,
            None => self.read_first(&by_group).await?,
        };
        for (places, values) in parts {
            for (place, value) in places.iter().zip(values) {
                found[*place] = value.map(|(_, value)| value);
            }
        }
        Ok(found)
    }

    /// The groups whose pages together make up a range.
    pub fn groups_of(&self, range: &KeyRange) -> Vec<GroupId> {
        self.shared.inner.placement.groups_of(range)
    }

    /// One page of a range at one group, in key order. Go on with `start = page.resume`.
    ///
    /// As the first read under an open bound it fixes the timestamp for all groups by this one
    /// alone; who goes on to others calls [`settle`](Self::settle) first.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub async fn scan_page(
        &self,
        group: GroupId,
        range: &KeyRange,
        max_rows: u32,
    ) -> Result<Page, Error> {
        let what = ReadSet::Range { range: range.clone(), max_rows };
        let found = match self.fixed() {
            Some(at) => self.shared.read(group, ReadAt::Exactly(at), what).await?.1,
            None => self.newest(group, what).await?,
        };
        match found {
            Found::Page(page) => Ok(page),
            other @ Found::Values(_) => Err(other_kind(&other)),
        }
    }

    /// All rows of a range over all groups, in key order. For ranges known to be small.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub async fn scan_all(&self, range: &KeyRange) -> Result<Vec<Row>, Error> {
        let groups = self.groups_of(range);
        if groups.len() > 1 {
            let what = ReadSet::Range { range: range.clone(), max_rows: u32::MAX };
            self.fix(groups.iter().map(|group| (*group, what.clone())).collect()).await?;
        }
        let mut rows = Vec::new();
        for group in groups {
            let mut rest = Some(range.clone());
            while let Some(part) = rest.take() {
                let page = self.scan_page(group, &part, u32::MAX).await?;
                rows.extend(page.rows);
                rest = page.resume.map(|start| KeyRange { start, end: range.end.clone() });
            }
        }
        rows.sort_by(|a, b| a.key.cmp(&b.key));
        Ok(rows)
    }

    async fn read_keys<'a>(
        &self,
        at: Timestamp,
        parts: &'a Parts,
    ) -> Result<Vec<(&'a [usize], Values)>, Error> {
        let messages = parts.iter().flat_map(|(group, (places, keys))| {
            let parts = places.chunks(KEYS_MAX).zip(keys.chunks(KEYS_MAX));
            parts.map(|(places, keys)| (*group, places, keys.to_vec()))
        });
        let calls = messages.map(|(group, places, keys)| async move {
            let shared = self.shared.clone();
            let send = move |keys| async move {
                let (_, found) =
                    shared.read(group, ReadAt::Exactly(at), ReadSet::Keys(keys)).await?;
                values(found)
            };
            Ok((places, self.shared.batches.read(group, keys, send).await?))
        });
        try_join_all(calls).await
    }

    /// The read that fixes an open bound, unless another one has done so meanwhile.
    async fn read_first<'a>(&self, parts: &'a Parts) -> Result<Vec<(&'a [usize], Values)>, Error> {
        let mut groups = parts.iter();
        if let (Some((group, (places, keys))), None) = (groups.next(), groups.next())
            && keys.len() <= KEYS_MAX
        {
            let found = self.newest(*group, ReadSet::Keys(keys.clone())).await?;
            let found = values(found)?;
            if found.len() != keys.len() {
                return Err(other_kind(&Found::Values(found)));
            }
            return Ok(vec![(places, found)]);
        }
        let asks = parts.iter().map(|(group, (_, keys))| (*group, ReadSet::Keys(keys.clone())));
        let at = self.fix(asks.collect()).await?;
        self.read_keys(at, parts).await
    }

    /// Reads in one group, as new as its nearest replica has it, and keeps to that timestamp.
    async fn newest(&self, group: GroupId, what: ReadSet) -> Result<Found, Error> {
        let shared = &self.shared;
        let turn = shared.turn.lock().await;
        let at = match shared.at.get() {
            Some(at) => ReadAt::Exactly(*at),
            None => ReadAt::Newest { at_least: shared.at_least },
        };
        if shared.at.get().is_some() {
            drop(turn); // others need not wait for it
        }
        let (at, found) = shared.read(group, at, what).await?;
        shared.at.get_or_init(|| at);
        Ok(found)
    }

    /// Fixes an open bound for reads of several groups.
    async fn fix(&self, reads: Vec<(GroupId, ReadSet)>) -> Result<Timestamp, Error> {
        let shared = &self.shared;
        if let Some(at) = self.fixed() {
            return Ok(at);
        }
        let _turn = shared.turn.lock().await;
        if let Some(at) = self.fixed() {
            return Ok(at);
        }
        let at = match planted(Plant::OneGroupSread) {
            true => shared.last_commit(&reads).await?,
            false => shared.safe_everywhere(reads).await?,
        };
        Ok(*shared.at.get_or_init(|| at))
    }
}

impl Shared {
    /// The newest timestamp at which none of the reads has to wait at its nearest replica, but
    /// none below the bound and none in the future.
    async fn safe_everywhere(&self, reads: Vec<(GroupId, ReadSet)>) -> Result<Timestamp, Error> {
        let latest = self.inner.clock.now()?.latest();
        let asks = reads.into_iter().map(|(group, what)| async move {
            let body = Body::SafeTime { what };
            let reply = self.inner.router.ask_nearest(group, body, self.limits).await?;
            match reply.body {
                ReplyBody::SafeTime(at) => Ok(at),
                other => Err(unexpected(&other)),
            }
        });
        let safe = try_join_all(asks).await?.into_iter().min();
        Ok(safe.unwrap_or(latest).min(latest).max(self.at_least))
    }

    /// The planted fault: what one group has last committed.
    async fn last_commit(&self, reads: &[(GroupId, ReadSet)]) -> Result<Timestamp, Error> {
        let Some((group, what)) = reads.first() else { return Ok(self.at_least) };
        let at = ReadAt::Newest { at_least: self.at_least };
        let body = Body::Snapshot { at, what: what.clone() };
        match self.inner.router.ask_within(*group, body, None, self.limits).await?.body {
            ReplyBody::Snapshot { at, .. } => Ok(at),
            other => Err(unexpected(&other)),
        }
    }

    /// Reads at the nearest replica; the timestamp, and what is there.
    async fn read(
        &self,
        group: GroupId,
        at: ReadAt,
        what: ReadSet,
    ) -> Result<(Timestamp, Found), Error> {
        let body = Body::Snapshot { at, what };
        let reply = self.inner.router.ask_nearest(group, body, self.limits).await?;
        let ReplyBody::Snapshot { at: served, found } = reply.body else {
            return Err(unexpected(&reply.body));
        };
        let right = match at {
            ReadAt::Exactly(at) => served == at,
            ReadAt::Newest { at_least } => served >= at_least,
        };
        if !right {
            let what = format!("{group} was asked for a read at {at:?} and served {served}");
            return Err(Error::FailedPrecondition(what)); // R4
        }
        Ok((served, found))
    }
}

impl TimestampBound {
    /// The oldest timestamp that it allows, and whether newer ones are as good.
    fn oldest(self, now: Interval, retention: Duration) -> Result<(Timestamp, bool), Error> {
        let (at, is_open) = match self {
            TimestampBound::Strong if planted(Plant::OneGroupSread) => (Timestamp::MIN, true),
            TimestampBound::Strong => (now.latest(), false),
            TimestampBound::ReadTimestamp(at) => (at, false),
            TimestampBound::ExactStaleness(age) => (now.latest().minus(age), false),
            TimestampBound::MaxStaleness(age) => (now.latest().minus(age), true),
            TimestampBound::MinReadTimestamp(at) => (at, true),
            TimestampBound::Session(token) => (token.timestamp(), true),
        };
        let ahead_us = match self {
            TimestampBound::Session(_) => TOKEN_AHEAD_US_MAX,
            _ => 0,
        };
        if at > now.latest().plus_micros(ahead_us) {
            return Err(Error::TimestampInFuture { at, now: now.latest() });
        }
        // R5. What may as well be newer keeps away from the horizon, which moves.
        let horizon = now.earliest().minus(retention);
        if is_open {
            return Ok((at.max(now.earliest().minus(retention / 4 * 3)), true));
        }
        if at < horizon {
            return Err(Error::SnapshotTooOld { at, horizon });
        }
        Ok((at, false))
    }
}

fn values(found: Found) -> Result<Values, Error> {
    match found {
        Found::Values(values) => Ok(values),
        other @ Found::Page(_) => Err(other_kind(&other)),
    }
}

fn other_kind(found: &Found) -> Error {
    Error::FailedPrecondition(format!("the server found something else than was asked: {found:?}"))
}

/// A server that answers something else than it was asked is broken; the caller only hears so.
pub(super) fn unexpected(body: &ReplyBody) -> Error {
    Error::FailedPrecondition(format!("unexpected answer from the server: {body:?}"))
}
