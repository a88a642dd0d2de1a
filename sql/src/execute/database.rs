//! A database: the catalog, DataFusion, and a client of the groups below.

use super::engine::Engine;
use super::mutation::Mutation;
use super::schema::Schema;
use super::session::Session;
use super::transaction::{ReadOnlyTransaction, Transaction};
use crate::catalog::Catalog;
use crate::error::{Result, SqlError};
use parking_lot::Mutex;
use proto::request::Receipt;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;
use txn::client::{Client, ReadWrite, Retryable, TimestampBound, TransactionOptions};

/// For how long what is known of the schema counts in a universe of several processes: the same for
/// all of them.
pub const SCHEMA_LEASE: Duration = Duration::from_millis(600);

/// How a database behaves.
#[derive(Clone, Debug)]
pub struct Options {
    /// How long a schema change waits for open transactions before it fails.
    pub schema_wait: Duration,
    /// For how long what this database has read of the schema counts, where other databases over the
    /// same groups may change it (S1). A change takes somewhat longer than that, but for a new root
    /// table; a database at work reads one small row of the root group three times in it. It must be
    /// the same for all of them: see [`shared`](Self::shared). `None`: this is the only database over
    /// these groups.
    pub schema_lease: Option<Duration>,
}

impl Options {
    /// Those of a database that is not the only one over its groups.
    pub fn shared() -> Options {
        Options { schema_lease: Some(SCHEMA_LEASE), ..Options::default() }
    }
}

impl Default for Options {
    fn default() -> Options {
        Options { schema_wait: Duration::from_secs(10), schema_lease: None }
    }
}

/// A database; shared by all its sessions and transactions.
pub struct Database {
    pub(crate) client: Client,
    pub(crate) engine: Arc<Engine>,
    pub(crate) schema: Arc<Schema>,
}

impl Database {
    /// Opens the database behind a client: reads the catalog, and has the rows of dropped tables
    /// that a crash left behind deleted.
    ///
    /// # Errors
    /// What the catalog's read says.
    pub async fn open(client: Client) -> Result<Arc<Database>> {
        Database::open_with(client, Options::default()).await
    }

    /// As [`open`](Self::open), with options.
    ///
    /// # Errors
    /// What the catalog's read says.
    pub async fn open_with(client: Client, options: Options) -> Result<Arc<Database>> {
        let engine = Arc::new(Engine::new()?);
        let schema = Schema::load(&client, options.schema_wait, options.schema_lease).await?;
        if schema.has_dropped() {
            let schema = schema.clone();
            // Nobody sees these rows; a failure is tried again at the next opening.
            tokio::spawn(async move { schema.clean().await });
        }
        Ok(Arc::new(Database { client, engine, schema }))
    }

    /// A new session.
    pub fn session(self: &Arc<Self>) -> Session {
        Session::new(self.clone())
    }

    /// The client below.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// The schema now; where it cannot be read, as it was last known.
    pub async fn catalog(&self) -> Arc<Catalog> {
        self.schema.newest().await
    }

    /// Runs a read-write transaction to its commit, again and again while it is aborted.
    ///
    /// The closure is called once for each attempt and must not keep anything of an earlier one.
    /// When it fails with anything but `Aborted`, the transaction is rolled back.
    ///
    /// # Errors
    /// The closure's own, or the commit's.
    pub async fn run<T, E, F, Fut>(&self, work: F) -> Result<(T, Receipt), E>
    where
        E: Retryable + From<SqlError>,
        F: FnMut(Transaction) -> Fut,
        Fut: Future<Output = Result<T, E>>,
    {
        self.run_with(TransactionOptions::default(), work).await
    }

    /// As [`run`](Self::run), with a deadline for all attempts together, or other limits.
    ///
    /// # Errors
    /// The closure's own, or the commit's; `DeadlineExceeded` when the time is over.
    pub async fn run_with<T, E, F, Fut>(
        &self,
        options: TransactionOptions,
        work: F,
    ) -> Result<(T, Receipt), E>
    where
        E: Retryable + From<SqlError>,
        F: FnMut(Transaction) -> Fut,
        Fut: Future<Output = Result<T, E>>,
    {
        // Each attempt sees the schema of its own time.
        let work = Mutex::new(work);
        let attempt = |txn: ReadWrite| {
            let work = &work;
            async move {
                let footing = self.schema.enter().await?;
                let transaction = Transaction { txn, footing, engine: self.engine.clone() };
                let working = (work.lock())(transaction.clone());
                let value = working.await?;
                transaction.settle().await?;
                Ok(value)
            }
        };
        self.client.run_with(options, attempt).await
    }

    /// Applies mutations in one transaction.
    ///
    /// # Errors
    /// As the like statements; then none is applied.
    pub async fn apply(&self, mutations: Vec<Mutation>) -> Result<Receipt> {
        let mutations = &mutations;
        let applied = self.run(|txn| async move { txn.buffer_all(mutations).await }).await;
        applied.map(|((), receipt)| receipt)
    }

    /// A read-only transaction.
    ///
    /// # Errors
    /// `FutureTimestamp`, `SnapshotTooOld`.
    pub async fn read_only(&self, bound: TimestampBound) -> Result<ReadOnlyTransaction> {
        // The snapshot is chosen under the guard: no schema change commits between the two.
        let _guard = self.schema.guard().await;
        let snapshot = self.client.snapshot(bound)?;
        // Which schema counts must be known before the statement is understood (R6).
        snapshot.settle().await?;
        let catalog = self.schema.at(&snapshot).await?;
        let (schema, engine) = (self.schema.clone(), self.engine.clone());
        Ok(ReadOnlyTransaction { snapshot, catalog, schema, engine })
    }

    /// A read-write transaction that its owner ends.
    pub(crate) async fn begin(&self) -> Result<Transaction> {
        let footing = self.schema.enter().await?;
        let txn = self.client.begin()?;
        Ok(Transaction { txn, footing, engine: self.engine.clone() })
    }
}
