//! The client half: reads, buffered writes, two-phase commit as its driver, retries.
//!
//! Straight-line `async` code over three traits, so that production polls it with tokio and the
//! simulator with its own scheduler: [`Transport`] carries a request to a node, [`ClientClock`]
//! tells and waits for time, [`Placement`] says which group holds a key.
//!
//! - [`Client::begin`] and [`Client::run`]: read-write transactions ([`ReadWrite`], X1–X9), with a
//!   deadline if need be ([`TransactionOptions`]).
//! - [`Client::snapshot`]: reads at one timestamp without locks ([`Snapshot`], R3–R6), as fresh as a
//!   [`TimestampBound`] says; a [`SessionToken`] carries what a session has seen elsewhere.
//! - [`router`]: finds a group's leader, or its nearest replica, and repeats what may be repeated.
//!
//! ## Whoever stops waiting
//! Every future here may be dropped at any time. A read that is dropped leaves the transaction as it
//! was; a transaction whose last clone is dropped releases its locks; a commit that is dropped half
//! way is settled by the groups, soon (X9). What is released this way is told in one message that
//! may be lost: then the locks go when the servers have heard nothing for ten seconds (X4).

mod batch;
mod commit;
mod keep_alive;
mod options;
mod placement;
mod read_only;
mod read_write;
pub mod router;
mod token;

pub use commit::COMMIT_BYTES_MAX;
pub use options::TransactionOptions;
pub use placement::{HashPlacement, Placement};
pub use read_only::{Snapshot, TimestampBound};
pub use read_write::{ReadWrite, Savepoint};
pub use token::SessionToken;

use futures::FutureExt;
use futures::future::BoxFuture;
use options::{Limits, too_late};
use parking_lot::Mutex;
use proto::request::{Age, Receipt, Reply, Request};
use proto::universe::Descriptor;
use proto::{Error, GroupId, NodeId, TxnId};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use router::Router;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use truetime::{Interval, Timestamp};

/// Longest pause between two looks at the clock while a timestamp passes.
const PASSED_PAUSE_MAX: Duration = Duration::from_secs(1);

/// Carries requests to nodes. A lost request or reply shows as a future that does not end; the
/// router stops waiting by itself.
pub trait Transport: Send + Sync {
    /// Sends a request and waits for its answer.
    fn call(&self, node: NodeId, request: Request) -> BoxFuture<'static, Result<Reply, Error>>;
    /// The same, for a transport that notices when an answer will not come any more: then `None`, at
    /// once. The request may have been carried out (X9).
    fn attempt(
        &self,
        node: NodeId,
        request: Request,
    ) -> BoxFuture<'static, Option<Result<Reply, Error>>> {
        self.call(node, request).map(Some).boxed()
    }
    /// Sends a request whose answer nobody waits for.
    fn cast(&self, node: NodeId, request: Request);
    /// The nodes that may be asked; never empty.
    fn nodes(&self) -> Vec<NodeId>;
    /// The node that this client lives beside, if there is one: it is asked first for what any
    /// replica can answer. How far the others are is measured.
    fn local(&self) -> Option<NodeId> {
        None
    }
    /// Where a group is, as far as that is known without asking. `None`: any node may have it.
    fn locate(&self, group: GroupId) -> Option<Descriptor> {
        let _ = group;
        None
    }
    /// What is known of places has led nowhere: newer knowledge should be fetched, in the background.
    fn lost(&self) {}
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
    /// How far that grows, twice as long with each time that nobody answers, so that whoever is slow,
    /// and not gone, comes to an end. Below `attempt_ms`: not at all.
    pub attempt_ms_max: u64,
    /// How long an operation is tried altogether.
    pub operation_ms: u64,
    /// How far back versions are kept (R5).
    pub retention: Duration,
    /// How often [`Client::run`] starts over after `Aborted`.
    pub retries_max: u32,
    /// How often [`Client::run`] tells the groups that an open transaction lives (X4); a third of
    /// the servers' transaction time-out.
    pub keep_alive_ms: u64,
}

impl Default for ClientConfig {
    fn default() -> Self {
        ClientConfig {
            client: 0,
            seed: 0,
            attempt_ms: 2_000,
            attempt_ms_max: 0,
            operation_ms: 10_000,
            retention: Duration::from_secs(3_600),
            retries_max: 64,
            keep_alive_ms: 3_000,
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

    /// Ends when a timestamp has certainly passed, by this client's clock.
    ///
    /// # Errors
    /// `ClockUnavailable`.
    pub async fn passed(&self, at: Timestamp) -> Result<(), Error> {
        loop {
            let now = self.now()?;
            if now.after(at) {
                return Ok(());
            }
            let rest = at.next().since(now.earliest());
            let pause = rest.clamp(Duration::from_micros(1), PASSED_PAUSE_MAX);
            self.inner.clock.sleep(pause).await;
        }
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
        self.begin_with(TransactionOptions::default())
    }

    /// A new read-write transaction with a deadline, or other limits.
    ///
    /// # Errors
    /// As [`begin`](Self::begin).
    pub fn begin_with(&self, options: TransactionOptions) -> Result<ReadWrite, Error> {
        let now = self.now()?;
        let limits = Limits::of(&options, self.inner.config.operation_ms, now);
        Ok(ReadWrite::new(self.inner.clone(), None, options, limits, now.latest()))
    }

    /// Another attempt of an aborted transaction: a new id, the same age (X2), so that it grows
    /// older than its rivals and finally wins. One with a deadline is kept to it by
    /// [`ReadWrite::again`].
    pub fn begin_again(&self, age: Age) -> ReadWrite {
        let operation = Duration::from_millis(self.inner.config.operation_ms);
        let limits = Limits { operation, deadline: None };
        let options = TransactionOptions::default();
        ReadWrite::new(self.inner.clone(), Some(age), options, limits, age.start)
    }

    /// A read-only transaction: one timestamp, no locks (R3, R4). With an open bound (at most so
    /// old, not older than this, a session's) the first read fixes it.
    ///
    /// # Errors
    /// `TimestampInFuture`, `SnapshotTooOld` below the horizon (R5).
    pub fn snapshot(&self, bound: TimestampBound) -> Result<Snapshot, Error> {
        self.snapshot_with(bound, &TransactionOptions::default())
    }

    /// A read-only transaction with a deadline, or other limits.
    ///
    /// # Errors
    /// As [`snapshot`](Self::snapshot).
    pub fn snapshot_with(
        &self,
        bound: TimestampBound,
        options: &TransactionOptions,
    ) -> Result<Snapshot, Error> {
        Snapshot::choose(self.inner.clone(), bound, options)
    }

    /// Runs a transaction to its commit, again and again while it is aborted (X2, X11).
    ///
    /// The closure is called once for each attempt and must not keep anything of an earlier one.
    /// When it fails with anything but `Aborted`, the transaction is rolled back. While it works,
    /// its locks are kept alive (X4).
    ///
    /// # Errors
    /// The closure's own, or the commit's.
    pub async fn run<T, E, F, Fut>(&self, work: F) -> Result<(T, Receipt), E>
    where
        E: Retryable,
        F: FnMut(ReadWrite) -> Fut,
        Fut: Future<Output = Result<T, E>>,
    {
        self.run_with(TransactionOptions::default(), work).await
    }

    /// As [`run`](Self::run), with a deadline for all attempts together, or other limits.
    ///
    /// # Errors
    /// The closure's own, or the commit's; `DeadlineExceeded` when the time is over between two
    /// attempts.
    pub async fn run_with<T, E, F, Fut>(
        &self,
        options: TransactionOptions,
        mut work: F,
    ) -> Result<(T, Receipt), E>
    where
        E: Retryable,
        F: FnMut(ReadWrite) -> Fut,
        Fut: Future<Output = Result<T, E>>,
    {
        let retries_max = options.retries_max.unwrap_or(self.inner.config.retries_max);
        let mut txn = self.begin_with(options)?;
        let mut attempt = 0;
        loop {
            let failed = match txn.alive_while(work(txn.clone())).await {
                Ok(value) => match txn.commit().await {
                    Ok(receipt) => return Ok((value, receipt)),
                    Err(error) => E::from(error),
                },
                Err(error) if error.is_aborted() => {
                    txn.release(); // nobody is told anything: there is nothing to wait for
                    error
                }
                Err(error) => {
                    txn.rollback().await;
                    error
                }
            };
            if !failed.is_aborted() || attempt >= retries_max {
                return Err(failed);
            }
            attempt += 1;
            self.inner.back_off(attempt).await;
            if let Some(deadline) = txn.deadline().filter(|_| txn.is_late()) {
                return Err(E::from(too_late(deadline)));
            }
            txn = txn.again();
        }
    }
}

#[cfg(test)]
mod tests;
