//! Groups in memory that take their time: requests and answers are under way for a while drawn from
//! a seed, in a time of their own that stands still while anybody works. Transactions are
//! serialisable: a commit aborts when something has changed that it read. One node, exact clocks;
//! what real groups do is tested end to end elsewhere.

#![allow(dead_code)] // each test file uses its part

use bytes::Bytes;
use futures::future::BoxFuture;
use parking_lot::Mutex;
use proto::keys::{Row, Write};
use proto::request::{Body, Found, ReadAt, ReadSet, Receipt, Reply, ReplyBody, Request};
use proto::{Ballot, Error, GroupId, Key, KeyRange, NodeId, Page, TxnId};
use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::Duration;
use truetime::{Interval, Timestamp};
use txn::client::{Client, ClientClock, ClientConfig, HashPlacement, Placement, Transport};

/// How often everybody may be asked before it counts as quiet.
const QUIET_TURNS: u32 = 12;

/// Time that passes when nobody can do anything else.
pub struct Time {
    now_us: AtomicU64,
    next: AtomicU64,
    /// Grows whenever somebody does something.
    stirs: AtomicU64,
    sleepers: Mutex<BTreeMap<(u64, u64), Waker>>,
}

impl Time {
    /// A timestamp that nobody else gets.
    pub fn tick(&self) -> Timestamp {
        self.stirs.fetch_add(1, Ordering::SeqCst);
        Timestamp::from_micros(self.now_us.fetch_add(1, Ordering::SeqCst))
    }

    /// Ends after so many microseconds.
    pub fn sleep(self: &Arc<Self>, us: u64) -> Sleep {
        let until = self.now_us.load(Ordering::SeqCst) + us;
        Sleep { time: self.clone(), place: (until, self.next.fetch_add(1, Ordering::SeqCst)) }
    }

    /// Runs something to its end; time goes on to the next who sleeps when all is quiet.
    pub async fn drive<T>(&self, work: impl Future<Output = T>) -> T {
        let mut work = pin!(work);
        loop {
            let (mut seen, mut quiet) = (self.stirs.load(Ordering::SeqCst), 0);
            while quiet < QUIET_TURNS {
                if let Poll::Ready(done) = futures::poll!(work.as_mut()) {
                    return done;
                }
                tokio::task::yield_now().await;
                let stirs = self.stirs.load(Ordering::SeqCst);
                quiet = if stirs == seen { quiet + 1 } else { 0 };
                seen = stirs;
            }
            let first = self.sleepers.lock().pop_first();
            let ((until, _), waker) = first.expect("somebody waits for something else than time");
            self.now_us.fetch_max(until, Ordering::SeqCst);
            self.stirs.fetch_add(1, Ordering::SeqCst);
            waker.wake();
        }
    }
}

/// See [`Time::sleep`].
pub struct Sleep {
    time: Arc<Time>,
    place: (u64, u64),
}

impl Future for Sleep {
    type Output = ();

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        if self.time.now_us.load(Ordering::SeqCst) >= self.place.0 {
            self.time.stirs.fetch_add(1, Ordering::SeqCst);
            return Poll::Ready(());
        }
        self.time.sleepers.lock().insert(self.place, context.waker().clone());
        Poll::Pending
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        self.time.sleepers.lock().remove(&self.place);
    }
}

struct Clock(Arc<Time>);

impl ClientClock for Clock {
    fn now(&self) -> Result<Interval, Error> {
        let now = self.0.tick();
        Ok(Interval::new(now, now))
    }

    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()> {
        Box::pin(self.0.sleep(u64::try_from(duration.as_micros()).expect("not for ever")))
    }
}

/// Numbers from a seed (xorshift).
pub struct Dice(u64);

impl Dice {
    /// Those of a seed.
    pub fn new(seed: u64) -> Dice {
        Dice(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// A number below `end`.
    pub fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % end
    }
}

/// All versions of all rows.
pub type History = BTreeMap<Key, BTreeMap<Timestamp, Option<Bytes>>>;

#[derive(Default)]
struct State {
    rows: History,
    read: BTreeMap<TxnId, Vec<(GroupId, ReadSet, Found)>>,
    prepared: BTreeMap<(TxnId, GroupId), Vec<Write>>,
    /// Commits that came too late for the bound they named.
    late: u64,
    /// Reads in the root group.
    root_reads: u64,
}

/// See the [module](self).
pub struct Groups {
    /// Theirs, and that of their clients.
    pub time: Arc<Time>,
    state: Mutex<State>,
    placement: HashPlacement,
    dice: Mutex<Dice>,
    delay_us: u64,
    /// Whether commits keep to the bound they name.
    bounds: bool,
}

impl Groups {
    /// New ones; messages take up to `delay_us`.
    pub fn new(seed: u64, delay_us: u64, bounds: bool) -> Arc<Groups> {
        let time = Time {
            now_us: AtomicU64::new(1_700_000_000_000_000),
            next: AtomicU64::new(0),
            stirs: AtomicU64::new(0),
            sleepers: Mutex::default(),
        };
        let placement = HashPlacement {
            groups: 2,
            root_prefix: Bytes::from_static(&sql::CATALOG_PREFIX),
            directory: sql::directory_of,
        };
        let (state, dice) = (Mutex::default(), Mutex::new(Dice::new(seed)));
        Arc::new(Groups { time: Arc::new(time), state, placement, dice, delay_us, bounds })
    }

    /// A client in another process than all others.
    pub fn client(self: &Arc<Self>, id: u64) -> Client {
        let config = ClientConfig { client: id, seed: id, ..ClientConfig::default() };
        let clock = Arc::new(Clock(self.time.clone()));
        Client::new(Arc::new(Wire(self.clone())), clock, Arc::new(self.placement.clone()), config)
    }

    /// What was ever written.
    pub fn history(&self) -> History {
        self.state.lock().rows.clone()
    }

    /// How many commits came too late for the bound they named.
    pub fn late(&self) -> u64 {
        self.state.lock().late
    }

    /// How many reads there were in the root group.
    pub fn root_reads(&self) -> u64 {
        self.state.lock().root_reads
    }

    async fn delay(&self) {
        let us = self.dice.lock().below(self.delay_us + 1);
        self.time.sleep(us).await;
    }

    fn find(&self, rows: &History, group: GroupId, at: Timestamp, what: &ReadSet) -> Found {
        let newest = |key: &Key| {
            let (written, value) = rows.get(key)?.range(..=at).next_back()?;
            Some((*written, value.clone()?))
        };
        let range = match what {
            ReadSet::Keys(keys) => return Found::Values(keys.iter().map(newest).collect()),
            ReadSet::Range { range, .. } => range,
        };
        let within = |key: &&Key| range.contains(key) && self.placement.group_of(key) == group;
        let rows = rows.keys().filter(within).filter_map(|key| {
            let (written, value) = newest(key)?;
            Some(Row { key: key.clone(), value, written })
        });
        Found::Page(Page { rows: rows.collect(), resume: None })
    }

    async fn commit(
        &self,
        txn: TxnId,
        writes: Vec<Write>,
        participants: &[GroupId],
        before: Option<Timestamp>,
    ) -> Result<Timestamp, Error> {
        let ready =
            |state: &State| participants.iter().all(|p| state.prepared.contains_key(&(txn, *p)));
        while !ready(&self.state.lock()) {
            self.time.sleep(1_000).await;
        }
        let mut state = self.state.lock();
        let state = &mut *state;
        let prepared = participants.iter().filter_map(|p| state.prepared.remove(&(txn, *p)));
        let writes: Vec<Write> = prepared.flatten().chain(writes).collect();
        let read = state.read.remove(&txn).unwrap_or_default();
        let same = read.iter().all(|(group, what, found)| {
            self.find(&state.rows, *group, Timestamp::MAX, what) == *found
        });
        if !same {
            return Err(Error::aborted("what it read has changed"));
        }
        let at = self.time.tick();
        if before.is_some_and(|before| at >= before) {
            state.late += 1;
            if self.bounds {
                return Err(Error::aborted("it came too late"));
            }
        }
        for write in writes {
            state.rows.entry(write.key).or_default().insert(at, write.value);
        }
        Ok(at)
    }

    async fn answer(&self, group: GroupId, body: Body) -> Result<ReplyBody, Error> {
        Ok(match body {
            Body::Read { txn, what, .. } => {
                let mut state = self.state.lock();
                let found = self.find(&state.rows, group, Timestamp::MAX, &what);
                state.read.entry(txn).or_default().push((group, what, found.clone()));
                ReplyBody::Read { found, ahead: Timestamp::MIN }
            }
            Body::Snapshot { at, what } => {
                self.state.lock().root_reads += u64::from(group == GroupId::ROOT);
                let (ReadAt::Exactly(at) | ReadAt::Newest { at_least: at }) = at;
                while self.time.tick() <= at {} // what comes later is later
                ReplyBody::Snapshot {
                    at,
                    found: self.find(&self.state.lock().rows, group, at, &what),
                }
            }
            Body::SafeTime { .. } => ReplyBody::SafeTime(self.time.tick()),
            Body::Prepare { txn, writes, .. } => {
                self.state.lock().prepared.insert((txn, group), writes);
                ReplyBody::Done
            }
            Body::Commit { txn, writes, participants, before, .. } => {
                let at = self.commit(txn, writes, &participants, before).await?;
                ReplyBody::Committed(Receipt::plain(at, group))
            }
            Body::Rollback { .. } | Body::KeepAlive { .. } => ReplyBody::Done,
            other => unreachable!("not asked by these tests: {other:?}"),
        })
    }
}

struct Wire(Arc<Groups>);

impl Transport for Wire {
    fn call(&self, _: NodeId, request: Request) -> BoxFuture<'static, Result<Reply, Error>> {
        let groups = self.0.clone();
        Box::pin(async move {
            groups.delay().await;
            let body = groups.answer(request.group, request.body).await;
            groups.delay().await;
            Ok(Reply { ballot: Ballot::default(), body: body? })
        })
    }

    fn cast(&self, _: NodeId, _: Request) {}

    fn nodes(&self) -> Vec<NodeId> {
        vec![NodeId(1)]
    }
}

/// The timestamps at which rows of a range were written.
pub fn written(history: &History, range: &KeyRange) -> BTreeSet<Timestamp> {
    let rows = history.iter().filter(|(key, _)| range.contains(key));
    rows.flat_map(|(_, versions)| versions.keys().copied()).collect()
}
