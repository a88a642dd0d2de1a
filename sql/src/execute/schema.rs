//! Which schema counts: the catalog in memory, how long it may be gone by, and how it is kept.
//!
//! Where one process has the universe to itself, its schema changes are the only ones: the catalog
//! in memory is the newest, and the *guard* keeps it so while somebody relies on it. Where several
//! processes use a universe, each holds a *schema lease* (S1, R6):
//!
//! ```text
//!   this client    read at v ── the catalog as of v counts for every timestamp up to v + lease ──┤
//!   another one                 change commits at s                        counts from f on
//!                               └── s + lease < f ─────────────────────────┘
//! ```
//!
//! - Whoever changes the schema sees to it that the change commits at an s with `s + lease < f`. A
//!   client that has read at v < s has not heard of it, and relies on what it knows below
//!   `v + lease < f` only; one that has read at v ≥ s knows of f. Nobody needs to ask on the way: a
//!   client that works reads the catalog again in the background.
//! - A commit names the timestamp below which it must lie, and its coordinator keeps to that. So no
//!   clock is trusted but for when a change is acknowledged: when f has certainly passed.
//! - Reads at timestamps below v use the catalog of that timestamp, read at it if need be (R6).
//! - What a transaction relies on is an [`Era`]: catalogs one after the other that differ in nothing
//!   it could do wrong. A root table that is new begins no other era, so it counts at once, and a
//!   transaction that is open for long goes on as long as the era does.
//!
//! `docs/decisions/0010-schema-leases.md` has the reasons.

use crate::catalog::Catalog;
use crate::catalog::store;
use crate::catalog::timeline::Timeline;
use crate::error::{ErrorKind, Result, SqlError};
use arc_swap::ArcSwap;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::{OwnedRwLockReadGuard, OwnedRwLockWriteGuard, RwLock};
use truetime::Timestamp;
use txn::client::{Client, Snapshot, TimestampBound};

/// A lease is used up by this fraction when the catalog is read again in the background.
const RENEWED_AFTER: u32 = 3;
/// And a commit that would be left with less than this fraction of it reads the catalog first.
const COMMIT_NEEDS: u32 = 4;
/// How many catalogs of the past are kept for reads at old timestamps.
const PAST_MAX: usize = 64;
/// How often a catalog is read again that was out of date by the time it came.
const READS_MAX: u32 = 8;

/// Held by whoever relies on the current catalog.
pub(crate) type Guard = Arc<OwnedRwLockReadGuard<()>>;

/// A timestamp that only grows.
#[derive(Debug, Default)]
struct Mark(AtomicU64);

impl Mark {
    fn get(&self) -> Timestamp {
        Timestamp::from_micros(self.0.load(Ordering::Acquire))
    }

    fn raise(&self, to: Timestamp) {
        self.0.fetch_max(to.micros(), Ordering::AcqRel);
    }
}

/// Up to when catalogs may be relied on that differ in nothing one could do wrong.
///
/// Invariants: the bound only grows, and never beyond the timestamp from which another era counts;
/// whoever relies on a catalog of the era and commits below the bound does so under one that
/// [extends](Catalog::extends) it.
#[derive(Debug, Default)]
pub(crate) struct Era {
    /// [`Timestamp::MAX`]: nobody changes the schema without this process knowing.
    before: Mark,
}

/// What is known of the catalog.
struct Known {
    timeline: Timeline,
    /// One for each entry of the timeline; neighbours may share one.
    eras: Vec<Arc<Era>>,
    /// The rows are known to be as they are up to here.
    read_at: Mark,
}

impl Known {
    /// What follows when the rows have changed.
    fn succeeded(&self, timeline: Timeline) -> Known {
        let mut eras: Vec<Arc<Era>> = Vec::new();
        for (place, entry) in timeline.entries().iter().enumerate() {
            let (earlier, era) = match place.checked_sub(1) {
                Some(before) => (&timeline.entries()[before], eras[before].clone()),
                None => {
                    let then = self.timeline.place_at(entry.since);
                    (&self.timeline.entries()[then], self.eras[then].clone())
                }
            };
            eras.push(if entry.extends(earlier) { era } else { Arc::default() });
        }
        Known { timeline, eras, read_at: Mark::default() }
    }

    /// The rows were the same when they were read at this timestamp, and count below `before`: each
    /// era up to the next one.
    fn confirm(&self, read_at: Timestamp, before: Timestamp) {
        let entries = self.timeline.entries();
        let mut end = before;
        for place in (0..entries.len()).rev() {
            let next = self.eras.get(place + 1);
            if next.is_some_and(|next| !Arc::ptr_eq(next, &self.eras[place])) {
                end = before.min(entries[place + 1].since);
            }
            self.eras[place].before.raise(end);
        }
        self.read_at.raise(read_at);
    }

    fn current(&self, place: usize) -> (Arc<Catalog>, Arc<Era>) {
        (self.timeline.entries()[place].clone(), self.eras[place].clone())
    }
}

/// The catalog in memory, and those of the past that were asked for.
pub(crate) struct Schema {
    pub(super) client: Client,
    lock: Arc<RwLock<()>>,
    known: ArcSwap<Known>,
    /// Held while `known` is replaced.
    turn: Mutex<()>,
    /// A background read is under way.
    renewing: AtomicBool,
    /// By the timestamp they were read at.
    past: Mutex<BTreeMap<Timestamp, Arc<Catalog>>>,
    /// For how long what was read counts; `None`: for ever, as nobody else changes the schema.
    pub(super) lease: Option<Duration>,
    /// How long a change waits for open transactions.
    wait: Duration,
    /// One cleaner of dropped tables at a time.
    pub(super) cleaner: tokio::sync::Mutex<()>,
}

impl Schema {
    pub(crate) async fn load(
        client: &Client,
        wait: Duration,
        lease: Option<Duration>,
    ) -> Result<Arc<Schema>> {
        let snapshot = client.snapshot(TimestampBound::Strong)?;
        let timeline = store::load(&snapshot).await?;
        let eras = timeline.entries().iter().map(|_| Arc::default()).collect();
        let known = Known { timeline, eras, read_at: Mark::default() };
        let schema = Schema {
            client: client.clone(),
            lock: Arc::new(RwLock::new(())),
            known: ArcSwap::from_pointee(known),
            turn: Mutex::new(()),
            renewing: AtomicBool::new(false),
            past: Mutex::new(BTreeMap::new()),
            lease,
            wait,
            cleaner: tokio::sync::Mutex::new(()),
        };
        let at = snapshot.timestamp();
        schema.known.load().confirm(at, schema.before(at));
        Ok(Arc::new(schema))
    }

    /// What was read at this timestamp counts below that one.
    fn before(&self, read_at: Timestamp) -> Timestamp {
        self.lease.map_or(Timestamp::MAX, |lease| plus(read_at, lease))
    }

    /// Keeps this process from changing the schema.
    pub(crate) async fn guard(&self) -> Guard {
        Arc::new(self.lock.clone().read_owned().await)
    }

    /// What to rely on from now on: the current catalog, and the guard that keeps this process from
    /// changing it.
    ///
    /// # Errors
    /// Under a lease that has run out: what the read says. `ClockUnavailable`.
    pub(crate) async fn enter(self: &Arc<Self>) -> Result<Footing> {
        let guard = self.guard().await;
        let (catalog, era) = self.current().await?;
        Ok(Footing { catalog, era, schema: self.clone(), _guard: guard })
    }

    async fn current(self: &Arc<Self>) -> Result<(Arc<Catalog>, Arc<Era>)> {
        for _ in 0..READS_MAX {
            let known = self.known.load_full();
            if self.lease.is_none() {
                return Ok(known.current(known.eras.len() - 1));
            }
            let now = self.client.now()?;
            if now.latest() >= self.before(known.read_at.get()) {
                self.renew().await?;
                continue;
            }
            let place = known.timeline.place_at(now.latest());
            let since = known.timeline.entries()[place].since;
            if place > 0 && !now.after(since) {
                // A commit from here might still be given an earlier timestamp.
                self.client.passed(since).await?;
                continue;
            }
            self.renew_soon(&known, now.latest());
            return Ok(known.current(place));
        }
        Err(too_slow())
    }

    /// The catalog now; where it cannot be read, as it was last known.
    pub(crate) async fn newest(self: &Arc<Self>) -> Arc<Catalog> {
        let _guard = self.guard().await;
        let read = match self.lease {
            Some(_) => self.renew().await,
            None => Ok(()),
        };
        match (read, self.current().await) {
            (Ok(()), Ok((catalog, _))) => catalog,
            _ => self.known.load().timeline.last().clone(),
        }
    }

    /// Whether rows of dropped tables are left, or will be.
    pub(crate) fn has_dropped(&self) -> bool {
        self.known.load().timeline.dropping().next().is_some()
    }

    /// The catalog at a snapshot's timestamp (R6). One that was only added to by root tables of
    /// other clients may be taken for the same; [`fresh_at`](Self::fresh_at) tells them apart.
    pub(crate) async fn at(self: &Arc<Self>, snapshot: &Snapshot) -> Result<Arc<Catalog>> {
        let (at, known) = (snapshot.timestamp(), self.known.load_full());
        match at >= self.before(known.read_at.get()) {
            true => self.fresh_at(snapshot).await,
            false => {
                self.renew_soon(&known, at);
                self.exactly_at(&known, snapshot).await
            }
        }
    }

    /// The catalog at a snapshot's timestamp, read no earlier than that.
    pub(crate) async fn fresh_at(&self, snapshot: &Snapshot) -> Result<Arc<Catalog>> {
        if self.lease.is_some() && snapshot.timestamp() > self.known.load().read_at.get() {
            self.learn(snapshot).await?;
        }
        self.exactly_at(&self.known.load_full(), snapshot).await
    }

    async fn exactly_at(&self, known: &Known, snapshot: &Snapshot) -> Result<Arc<Catalog>> {
        let at = snapshot.timestamp();
        if at >= known.timeline.since() {
            return Ok(known.timeline.at(at).clone());
        }
        if let Some(past) = self.past.lock().get(&at) {
            return Ok(past.clone());
        }
        let catalog = store::load(snapshot).await?.at(at).clone();
        let mut past = self.past.lock();
        if past.len() >= PAST_MAX {
            past.clear();
        }
        past.insert(at, catalog.clone());
        Ok(catalog)
    }

    /// Reads the catalog as it is now.
    pub(super) async fn renew(&self) -> Result<()> {
        self.learn(&self.client.snapshot(TimestampBound::Strong)?).await
    }

    /// Sees to it that the catalog is read again before the lease runs out; nobody waits for it.
    fn renew_soon(self: &Arc<Self>, known: &Known, now: Timestamp) {
        let Some(lease) = self.lease else { return };
        if now < plus(known.read_at.get(), lease / RENEWED_AFTER)
            || self.renewing.swap(true, Ordering::AcqRel)
        {
            return;
        }
        let schema = self.clone();
        tokio::spawn(async move {
            // Whoever finds the lease run out reads again, and hears of what is wrong.
            let _ = schema.renew().await;
            schema.renewing.store(false, Ordering::Release);
        });
    }

    /// Compares what is known with the rows of a snapshot: one small read, while they are the same.
    async fn learn(&self, snapshot: &Snapshot) -> Result<()> {
        let (at, written) = (snapshot.timestamp(), store::written(snapshot).await?);
        let newer = match written > self.known.load().timeline.since() {
            true => Some(store::load(snapshot).await?),
            false => None,
        };
        let _turn = self.turn.lock();
        let known = self.known.load_full();
        match newer {
            Some(timeline) if written > known.timeline.since() => {
                let known = known.succeeded(timeline);
                known.confirm(at, self.before(at));
                self.known.store(Arc::new(known));
            }
            _ if written == known.timeline.since() => known.confirm(at, self.before(at)),
            _ => {} // a read of the past, or overtaken: it says nothing new
        }
        Ok(())
    }

    /// Waits until no statement of this process relies on the schema, and keeps them from beginning.
    pub(super) async fn alone(&self) -> Result<OwnedRwLockWriteGuard<()>> {
        let waiting = tokio::time::timeout(self.wait, self.lock.clone().write_owned());
        waiting.await.map_err(|_| {
            SqlError::new(
                ErrorKind::Schema,
                format!(
                    "the schema cannot change now: a transaction is open since {} s or longer",
                    self.wait.as_secs_f64()
                ),
            )
            .with_hint("end the transactions of all sessions with COMMIT or ROLLBACK")
        })
    }
}

/// What a statement or a transaction relies on. Clones are the same.
#[derive(Clone)]
pub(crate) struct Footing {
    pub(crate) catalog: Arc<Catalog>,
    era: Arc<Era>,
    schema: Arc<Schema>,
    _guard: Guard,
}

impl Footing {
    /// Fails when the schema has changed, so that nobody goes on for nothing. Costs a look at the
    /// clock while the lease is fresh.
    ///
    /// # Errors
    /// `Aborted`: the schema has changed. What the read of the catalog says.
    pub(crate) async fn check(&self) -> Result<()> {
        self.hold(Duration::ZERO).await
    }

    /// Below which timestamp the transaction must commit; `None`: at any.
    ///
    /// # Errors
    /// As [`check`](Self::check).
    pub(crate) async fn commit_before(&self) -> Result<Option<Timestamp>> {
        let Some(lease) = self.schema.lease else { return Ok(None) };
        self.hold(lease / COMMIT_NEEDS).await?;
        Ok(Some(self.era.before.get()))
    }

    async fn hold(&self, rest: Duration) -> Result<()> {
        let schema = &self.schema;
        if schema.lease.is_none() {
            return Ok(());
        }
        for read in 0..READS_MAX {
            let latest = schema.client.now()?.latest();
            let rest = if read == 0 { rest } else { Duration::ZERO };
            let known = schema.known.load_full();
            if plus(latest, rest) < self.era.before.get() {
                schema.renew_soon(&known, latest);
                return Ok(());
            }
            if latest < schema.before(known.read_at.get()) {
                let (_, era) = known.current(known.timeline.place_at(latest));
                if !Arc::ptr_eq(&era, &self.era) {
                    return Err(changed());
                }
            }
            schema.renew().await?;
        }
        Err(too_slow())
    }

    /// A newer catalog than this one that the transaction may go on under, after a statement has
    /// failed for what it did not find here: somebody may just have made it.
    ///
    /// # Errors
    /// The error itself, where there is none; `Aborted`: what there is, is another schema.
    pub(crate) async fn newer(&self, catalog: &Catalog, error: SqlError) -> Result<Arc<Catalog>> {
        let schema = &self.schema;
        if error.kind != ErrorKind::UnknownTable || schema.lease.is_none() {
            return Err(error);
        }
        let (mut newest, mut era) = schema.current().await?;
        if newest.since == catalog.since {
            schema.renew().await?;
            (newest, era) = schema.current().await?;
        }
        match (newest.since > catalog.since, Arc::ptr_eq(&era, &self.era)) {
            (true, true) => Ok(newest),
            (true, false) => Err(changed()),
            (false, _) => Err(error),
        }
    }

    /// The newest catalog that the transaction may go on under, for those who look at the schema
    /// itself.
    ///
    /// # Errors
    /// As [`check`](Self::check).
    pub(crate) async fn newest(&self) -> Result<Arc<Catalog>> {
        if self.schema.lease.is_none() {
            return Ok(self.catalog.clone());
        }
        self.schema.renew().await?;
        let (newest, era) = self.schema.current().await?;
        match Arc::ptr_eq(&era, &self.era) {
            true => Ok(newest),
            false => Err(changed()),
        }
    }
}

pub(super) fn plus(at: Timestamp, duration: Duration) -> Timestamp {
    at.plus_micros(u64::try_from(duration.as_micros()).unwrap_or(u64::MAX))
}

fn changed() -> SqlError {
    SqlError::new(ErrorKind::Aborted, "the schema has changed since the transaction began")
        .with_hint("nothing was written; run the whole transaction again")
}

fn too_slow() -> SqlError {
    let what = "reading the schema takes longer than it may be relied on";
    SqlError::new(ErrorKind::Unavailable, what).with_hint("try again later")
}
