//! The schema guard, and schema changes under it.
//!
//! Every statement and every transaction holds the guard for reading while it relies on a
//! catalog; a schema change holds it for writing. So a transaction sees one schema from its
//! first statement to its commit, and a change sees no transaction half done. The universe lives
//! in one process; see `docs/decisions/0003-schema-guard.md`.

use super::result::{ResultSet, Tag};
use crate::catalog::{Catalog, Table, store};
use crate::error::{ErrorKind, Result, SqlError};
use crate::parse::{CreateTable, Name};
use arc_swap::ArcSwap;
use parking_lot::Mutex;
use proto::{Key, KeyRange};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{OwnedRwLockReadGuard, RwLock};
use truetime::Timestamp;
use txn::client::{Client, Snapshot, TimestampBound};

/// Rows of a dropped table deleted by one transaction.
const BATCH_ROWS: u32 = 1_000;
/// How many catalogs of the past are kept for reads at old timestamps.
const PAST_MAX: usize = 64;

/// Held by whoever relies on the current catalog.
pub(crate) type Guard = Arc<OwnedRwLockReadGuard<()>>;

/// The catalog now, and those of the past that were asked for.
pub(crate) struct Schema {
    lock: Arc<RwLock<()>>,
    current: ArcSwap<Catalog>,
    /// By the timestamp they were read at.
    past: Mutex<BTreeMap<Timestamp, Arc<Catalog>>>,
    /// How long a change waits for open transactions.
    wait: Duration,
    /// One cleaner of dropped tables at a time.
    cleaner: tokio::sync::Mutex<()>,
}

impl Schema {
    pub(crate) async fn load(client: &Client, wait: Duration) -> Result<Schema> {
        let catalog = store::load(&client.snapshot(TimestampBound::Strong)?).await?;
        Ok(Schema {
            lock: Arc::new(RwLock::new(())),
            current: ArcSwap::from_pointee(catalog),
            past: Mutex::new(BTreeMap::new()),
            wait,
            cleaner: tokio::sync::Mutex::new(()),
        })
    }

    /// The current catalog, and the guard that keeps it current.
    pub(crate) async fn enter(&self) -> (Guard, Arc<Catalog>) {
        let guard = Arc::new(self.lock.clone().read_owned().await);
        (guard, self.current.load_full())
    }

    /// The catalog at a snapshot's timestamp (R6).
    pub(crate) async fn at(&self, snapshot: &Snapshot) -> Result<Arc<Catalog>> {
        let current = self.current.load_full();
        if snapshot.timestamp() >= current.since {
            return Ok(current);
        }
        if let Some(known) = self.past.lock().get(&snapshot.timestamp()) {
            return Ok(known.clone());
        }
        let catalog = Arc::new(store::load(snapshot).await?);
        let mut past = self.past.lock();
        if past.len() >= PAST_MAX {
            past.clear();
        }
        past.insert(snapshot.timestamp(), catalog.clone());
        Ok(catalog)
    }

    pub(crate) async fn create(
        &self,
        client: &Client,
        statement: &CreateTable,
    ) -> Result<ResultSet> {
        let _alone = self.alone().await?;
        let created = client.run(|txn| async move { store::create(&txn, statement).await }).await;
        self.reload(client).await?;
        let (_, receipt) = created?;
        Ok(ResultSet::done(Tag::CreateTable).committed(receipt))
    }

    pub(crate) async fn drop_table(
        &self,
        client: &Client,
        name: &Name,
        if_exists: bool,
    ) -> Result<ResultSet> {
        let alone = self.alone().await?;
        let dropped = client
            .run(|txn| async move { store::start_drop(&txn, &name.text, if_exists).await })
            .await;
        self.reload(client).await?;
        drop(alone);
        let (dropped, receipt) = dropped.map_err(|error| error.at(name.position))?;
        if dropped {
            // The table is gone; rows that stay behind are deleted at the next opening.
            let _ = self.clean(client).await;
        }
        Ok(ResultSet::done(Tag::DropTable).committed(receipt))
    }

    async fn alone(&self) -> Result<tokio::sync::OwnedRwLockWriteGuard<()>> {
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

    /// Reads the catalog after a change, also after one of which nobody knows whether it happened.
    async fn reload(&self, client: &Client) -> Result<()> {
        let catalog = store::load(&client.snapshot(TimestampBound::Strong)?).await?;
        self.current.store(Arc::new(catalog));
        Ok(())
    }

    /// Deletes the rows of dropped tables, children first, then forgets the tables. What a crash
    /// leaves is done at the next opening.
    pub(crate) async fn clean(&self, client: &Client) -> Result<()> {
        let _one = self.cleaner.lock().await;
        let catalog = store::load(&client.snapshot(TimestampBound::Strong)?).await?;
        for table in catalog.dropping() {
            delete_rows(client, &table).await?;
            let id = table.id();
            client.run(|txn| async move { store::finish_drop(&txn, id).await }).await?;
        }
        Ok(())
    }
}

/// Deletes the rows of a table that nobody can use any more.
async fn delete_rows(client: &Client, table: &Table) -> Result<()> {
    let range = table.range();
    let snapshot = client.snapshot(TimestampBound::Strong)?;
    for group in snapshot.groups_of(&range) {
        let mut rest = Some(range.clone());
        while let Some(part) = rest.take() {
            let snapshot = client.snapshot(TimestampBound::Strong)?;
            let page = snapshot.scan_page(group, &part, BATCH_ROWS).await?;
            let rows = page.rows.iter().map(|row| &row.key);
            let keys: Vec<Key> =
                rows.filter(|key| table.layout().decode(key).is_some()).cloned().collect();
            if !keys.is_empty() {
                let keys = &keys;
                let batch = client.run(|txn| async move {
                    keys.iter().for_each(|key| txn.delete(key.clone()));
                    Ok::<(), SqlError>(())
                });
                batch.await?;
            }
            rest = page.resume.map(|start| KeyRange { start, end: range.end.clone() });
        }
    }
    Ok(())
}
