//! Schema changes: `CREATE TABLE`, `DROP TABLE`, and the rows that a dropped table leaves behind.
//!
//! ```text
//!   alone in this process ─ lock the catalog ─ (another change is pending: let it pass, again)
//!     ─ write what counts from f on, commit at s with s + lease < f ─ learn of it ─ let others in
//!     ─ wait until f has certainly passed ─ answered; a dropped table's rows are deleted
//! ```
//!
//! Without a lease, and for a root table, which nobody can do wrong by not knowing it, f is s.
//! Changes of several clients are in the order of the locks, and one is pending at a time. What the
//! lease is for is told in [`schema`](super::schema).

use super::result::{ResultSet, Tag};
use super::schema::{Schema, plus};
use crate::catalog::Table;
use crate::catalog::store::{self, Locked};
use crate::error::{Result, SqlError};
use crate::parse::{CreateTable, Name};
use proto::request::Receipt;
use proto::{Key, KeyRange};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;
use truetime::{Interval, Timestamp};
use txn::client::{ReadWrite, TimestampBound};

/// Rows of a dropped table deleted by one transaction.
const BATCH_ROWS: u32 = 1_000;
/// How long a change that is announced may take to commit, at least, and as a fraction of the lease;
/// twice as long after each attempt that took longer.
const COMMIT_TIME_MIN: Duration = Duration::from_millis(20);
const COMMIT_TIME: u32 = 6;
const DOUBLINGS_MAX: u32 = 8;

/// A change that has been made, or was not needed.
pub(crate) struct Changed {
    pub(crate) result: ResultSet,
    /// What reads at or above this sees it; [`Timestamp::MIN`]: from its commit on.
    pub(crate) from: Timestamp,
}

/// What came of one attempt.
enum Step {
    /// It is made, and counts from here on.
    Made(Timestamp),
    /// There was nothing to do.
    Nothing,
    /// First this must pass: another change is on its way.
    Wait(Timestamp),
}

impl Schema {
    pub(crate) async fn create(&self, statement: &CreateTable) -> Result<Changed> {
        // Nobody's catalog is wrong about a table that it does not have, but for those who delete
        // parent rows and would not look for children.
        let announced = statement.interleave.is_some();
        let work =
            |txn: &ReadWrite, locked: &Locked, from| store::create(txn, locked, statement, from);
        let (from, receipt) = self.change(announced, work).await?;
        let result = ResultSet::done(Tag::CreateTable).committed(receipt);
        Ok(Changed { result, from: from.unwrap_or(Timestamp::MIN) })
    }

    pub(crate) async fn drop_table(&self, name: &Name, if_exists: bool) -> Result<Changed> {
        let work = |txn: &ReadWrite, locked: &Locked, until| {
            store::start_drop(txn, locked, (&name.text, if_exists), until)
        };
        let dropped = self.change(true, work).await;
        let (until, receipt) = dropped.map_err(|error| error.at(name.position))?;
        if until.is_some() {
            // The table is gone; rows that stay behind are deleted at the next opening.
            let _ = self.clean().await;
        }
        let result = ResultSet::done(Tag::DropTable).committed(receipt);
        Ok(Changed { result, from: until.unwrap_or(Timestamp::MIN) })
    }

    /// Makes a change and waits until it counts for everybody; from when on it does, if it was made.
    async fn change(
        &self,
        announced: bool,
        work: impl Fn(&ReadWrite, &Locked, Timestamp) -> Result<bool>,
    ) -> Result<(Option<Timestamp>, Receipt)> {
        let tries = AtomicU32::new(0);
        loop {
            let alone = self.alone().await?;
            let step = self.step(announced.then_some(&tries), &work).await;
            // Also after a change of which nobody knows whether it happened.
            self.renew().await?;
            drop(alone);
            let (step, receipt) = step?;
            match step {
                Step::Wait(at) => self.client.passed(at).await?,
                Step::Made(from) => {
                    self.client.passed(from).await?;
                    return Ok((Some(from), receipt));
                }
                Step::Nothing => return Ok((None, receipt)),
            }
        }
    }

    /// A change of the catalog's rows in one transaction. `tries`: it is to be announced, and this
    /// counts how often that was tried.
    async fn step(
        &self,
        tries: Option<&AtomicU32>,
        work: &impl Fn(&ReadWrite, &Locked, Timestamp) -> Result<bool>,
    ) -> Result<(Step, Receipt)> {
        let change = |txn: ReadWrite| async move {
            let locked = store::lock(&txn).await?;
            let now = self.client.now()?;
            if let Some(at) = locked.timeline.pending(now) {
                return Ok(Step::Wait(at));
            }
            let mut from = Timestamp::MIN;
            if let (Some(lease), Some(tries)) = (self.lease, tries) {
                let before = commit_before(now, lease, tries.fetch_add(1, Ordering::Relaxed));
                txn.commit_before(before);
                from = plus(before, lease);
            }
            Ok::<_, SqlError>(match work(&txn, &locked, from)? {
                true => Step::Made(from),
                false => Step::Nothing,
            })
        };
        self.client.run(change).await
    }

    /// Deletes the rows of dropped tables, children first, then forgets the tables. What a crash
    /// leaves is done at the next opening, and what another process does at the same time is done
    /// once.
    pub(crate) async fn clean(&self) -> Result<()> {
        let _one = self.cleaner.lock().await;
        let timeline = store::load(&self.client.snapshot(TimestampBound::Strong)?).await?;
        for (table, until) in timeline.dropping() {
            // What was committed by a catalog with the table lies below, and the reads that find
            // the rows above: none comes later.
            self.client.passed(until).await?;
            self.delete_rows(&table).await?;
            let work = |txn: &ReadWrite, locked: &Locked, _| {
                store::finish_drop(txn, locked, table.id());
                Ok(true)
            };
            while let (Step::Wait(at), _) = self.step(None, &work).await? {
                self.client.passed(at).await?;
            }
        }
        Ok(())
    }

    /// Deletes the rows of a table that nobody can use any more.
    async fn delete_rows(&self, table: &Table) -> Result<()> {
        let (client, range) = (&self.client, table.range());
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
}

/// Below which timestamp a change must commit that is tried for the nth time (from 0) now.
fn commit_before(now: Interval, lease: Duration, tried: u32) -> Timestamp {
    let time = (lease / COMMIT_TIME).max(COMMIT_TIME_MIN);
    plus(now.latest(), time * 2u32.pow(tried.min(DOUBLINGS_MAX)))
}
