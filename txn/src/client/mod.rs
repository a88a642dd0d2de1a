//! The client half: reads, buffered writes, two-phase commit as its driver, retries.
//!
//! Straight-line `async` code over three traits, so that production polls it with tokio and the
//! simulator with its own scheduler: [`Transport`] carries a request to a node, [`ClientClock`]
//! tells and waits for time, [`Placement`] says which group holds a key.
//!
//! - [`Client::begin`] and [`Client::run`]: read-write transactions ([`ReadWrite`], X1–X9).
//! - [`Client::snapshot`]: reads at one timestamp without locks ([`Snapshot`], R3–R6).
//! - [`router`]: finds a group's leader, and repeats what may be repeated.

mod read_only;
mod read_write;
pub mod router;

pub use read_only::{Snapshot, TimestampBound};
pub use read_write::ReadWrite;

use futures::future::BoxFuture;
use parking_lot::Mutex;
use proto::request::{Age, Receipt, Reply, Request};
use proto::{Error, GroupId, Key, KeyRange, NodeId, TxnId};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use router::Router;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use truetime::Interval;

/// Carries requests to nodes. A lost request or reply shows as a future that does not end; the
/// router stops waiting by itself.
pub trait Transport: Send + Sync {
    /// Sends a request and waits for its answer.
    fn call(&self, node: NodeId, request: Request) -> BoxFuture<'static, Result<Reply, Error>>;
    /// Sends a request whose answer nobody waits for.
    fn cast(&self, node: NodeId, request: Request);
    /// The nodes that may be asked; never empty.
    fn nodes(&self) -> Vec<NodeId>;
}

/// Time for clients.
pub trait ClientClock: Send + Sync {
    /// The interval that is now.
    ///
    /// # Errors
    /// `ClockUnavailable` when there is no bound (T5).
    fn now(&self) -> Result<Interval, Error>;
    /// Ends after the duration.
    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()>;
}

/// Which group holds a key.
pub trait Placement: Send + Sync {
    /// The group of a key.
    fn group_of(&self, key: &[u8]) -> GroupId;
    /// The groups that may hold keys of a range, in ascending order.
    fn groups_of(&self, range: &KeyRange) -> Vec<GroupId>;
}

/// What a client is told when it is made.
#[derive(Clone, Debug)]
pub struct ClientConfig {
    /// Distinguishes this client's transactions from all others', also from those of an earlier
    /// life of the same process: drawn at random by whoever makes the client.
    pub client: u64,
    /// Seed of the back-off jitter.
    pub seed: u64,
    /// How long one request may go unanswered before it is repeated.
    pub attempt_ms: u64,
    /// How long an operation is tried altogether.
    pub operation_ms: u64,
    /// How far back versions are kept (R5).
    pub retention: Duration,
    /// How often [`Client::run`] starts over after `Aborted`.
    pub retries_max: u32,
}

impl Default for ClientConfig {
    fn default() -> Self {
        ClientConfig {
            client: 0,
            seed: 0,
            attempt_ms: 2_000,
            operation_ms: 10_000,
            retention: Duration::from_secs(3_600),
            retries_max: 64,
        }
    }
}

/// Errors that [`Client::run`] can tell apart: those that ask for another attempt, and others.
pub trait Retryable: From<Error> {
    /// Whether the whole transaction should be run again (X11).
    fn is_aborted(&self) -> bool;
}

impl Retryable for Error {
    fn is_aborted(&self) -> bool {
        Error::is_aborted(self)
    }
}

/// A handle on a universe of groups; cheap to clone.
#[derive(Clone)]
pub struct Client {
    inner: Arc<Inner>,
}

pub(crate) struct Inner {
    pub(crate) router: Router,
    pub(crate) clock: Arc<dyn ClientClock>,
    pub(crate) placement: Arc<dyn Placement>,
    pub(crate) config: ClientConfig,
    seq: AtomicU64,
    rng: Mutex<SmallRng>,
}

impl Inner {
    fn next_txn(&self) -> TxnId {
        let seq = self.seq.fetch_add(1, Ordering::Relaxed);
        TxnId { client: self.config.client, seq }
    }

    /// A pause that grows with the attempt, with jitter so that rivals do not meet again.
    pub(crate) fn back_off(&self, attempt: u32) -> BoxFuture<'static, ()> {
        let ceiling_us = 500u64 << attempt.min(8);
        let pause_us = self.rng.lock().random_range(ceiling_us / 4..=ceiling_us);
        self.clock.sleep(Duration::from_micros(pause_us))
    }
}

impl Client {
    /// A client over these parts.
    pub fn new(
        transport: Arc<dyn Transport>,
        clock: Arc<dyn ClientClock>,
        placement: Arc<dyn Placement>,
        config: ClientConfig,
    ) -> Client {
        let router = Router::new(transport, clock.clone(), &config);
        let rng = Mutex::new(SmallRng::seed_from_u64(config.seed));
        let seq = AtomicU64::new(1);
        Client { inner: Arc::new(Inner { router, clock, placement, config, seq, rng }) }
    }

    /// The interval that is now, by this client's clock.
    ///
    /// # Errors
    /// `ClockUnavailable`.
    pub fn now(&self) -> Result<Interval, Error> {
        self.inner.clock.now()
    }

    /// The placement this client uses.
    pub fn placement(&self) -> &dyn Placement {
        self.inner.placement.as_ref()
    }

    /// The router, for questions outside transactions (status).
    pub fn router(&self) -> &Router {
        &self.inner.router
    }

    /// A new read-write transaction.
    ///
    /// # Errors
    /// `ClockUnavailable`: without time a transaction has no age.
    pub fn begin(&self) -> Result<ReadWrite, Error> {
        let txn = self.inner.next_txn();
        let age = Age { start: self.now()?.latest(), first: txn };
        Ok(ReadWrite::new(self.inner.clone(), txn, age))
    }

    /// Another attempt of an aborted transaction: a new id, the same age (X2), so that it grows
    /// older than its rivals and finally wins.
    pub fn begin_again(&self, age: Age) -> ReadWrite {
        ReadWrite::new(self.inner.clone(), self.inner.next_txn(), age)
    }

    /// A read-only transaction: one timestamp, no locks (R3, R4).
    ///
    /// # Errors
    /// `TimestampInFuture`, `SnapshotTooOld` below the horizon (R5).
    pub fn snapshot(&self, bound: TimestampBound) -> Result<Snapshot, Error> {
        Snapshot::choose(self.inner.clone(), bound)
    }

    /// Runs a transaction to its commit, again and again while it is aborted (X2, X11).
    ///
    /// The closure is called once for each attempt and must not keep anything of an earlier one.
    /// When it fails with anything but `Aborted`, the transaction is rolled back.
    ///
    /// # Errors
    /// The closure's own, or the commit's.
    pub async fn run<T, E, F, Fut>(&self, mut work: F) -> Result<(T, Receipt), E>
    where
        E: Retryable,
        F: FnMut(ReadWrite) -> Fut,
        Fut: Future<Output = Result<T, E>>,
    {
        let mut txn = self.begin()?;
        let mut attempt = 0;
        loop {
            let failed = match work(txn.clone()).await {
                Ok(value) => match txn.commit().await {
                    Ok(receipt) => return Ok((value, receipt)),
                    Err(error) => E::from(error),
                },
                Err(error) => {
                    txn.rollback().await;
                    error
                }
            };
            if !failed.is_aborted() || attempt >= self.inner.config.retries_max {
                return Err(failed);
            }
            attempt += 1;
            self.inner.back_off(attempt).await;
            txn = self.begin_again(txn.age());
        }
    }
}

/// Keys spread over groups by a stable hash of their directory (S2).
///
/// Keys under `root_prefix` live in the root group; all others in groups `1..=groups`.
#[derive(Clone)]
pub struct HashPlacement {
    /// How many data groups there are.
    pub groups: u32,
    /// Keys with this prefix live in the root group. Empty: none do.
    pub root_prefix: Key,
    /// The directory of a key: the prefix that all keys of the directory share. `None`: the key
    /// is shorter than a directory (a bound of a wider range).
    pub directory: fn(&[u8]) -> Option<&[u8]>,
}

impl HashPlacement {
    fn is_root(&self, key: &[u8]) -> bool {
        !self.root_prefix.is_empty() && key.starts_with(&self.root_prefix)
    }
}

impl Placement for HashPlacement {
    fn group_of(&self, key: &[u8]) -> GroupId {
        if self.is_root(key) {
            return GroupId::ROOT;
        }
        let directory = (self.directory)(key).unwrap_or(key);
        GroupId(1 + stable_hash(directory) % self.groups)
    }

    fn groups_of(&self, range: &KeyRange) -> Vec<GroupId> {
        if range.is_empty() {
            return Vec::new();
        }
        if let Some(directory) = (self.directory)(&range.start) {
            let whole = KeyRange::prefix(directory);
            let ends_inside =
                !range.end.is_empty() && (whole.end.is_empty() || range.end <= whole.end);
            if ends_inside {
                return vec![self.group_of(&range.start)];
            }
        }
        let root = KeyRange::prefix(&self.root_prefix);
        let only_root =
            self.is_root(&range.start) && !range.end.is_empty() && range.end <= root.end;
        if only_root {
            return vec![GroupId::ROOT];
        }
        let touches_root = !self.root_prefix.is_empty() && range.overlaps(&root);
        let first = if touches_root { 0 } else { 1 };
        (first..=self.groups).map(GroupId).collect()
    }
}

/// FNV-1a: the rule that places directories, so it may never change for an existing universe.
fn stable_hash(bytes: &[u8]) -> u32 {
    let mut hash: u64 = 0xcbf2_9ce4_8422_2325;
    for byte in bytes {
        hash = (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
    }
    (hash >> 32) as u32 ^ hash as u32
}
