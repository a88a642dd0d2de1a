//! Several databases over the same groups, each with its own idea of the schema for as long as its
//! lease lasts (S1): whatever they do at the same time, no row is written by a catalog that does not
//! count, and no row of a child table is left without its parent.

mod slow;

use proto::KeyRange;
use proto::codec;
use slow::{Dice, Groups, History, written};
use sql::catalog::timeline::Timeline;
use sql::catalog::{Catalog, Descriptor, Table};
use sql::{Database, ErrorKind, Mutation, MutationKind, Options, SqlError, Value};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use truetime::Timestamp;

const LEASE: Duration = Duration::from_millis(200);
const DELAY_US: u64 = 30_000;
const PARENTS: u64 = 3;
/// How often each child table is made and dropped.
const ROUNDS: usize = 4;
const CHILDREN: [&str; 2] = ["c", "d"];

/// What is wrong on purpose.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Fault {
    None,
    /// Commits do not keep to the bound they name.
    BoundsIgnored,
    /// Some believe that their lease is longer than those who change the schema wait.
    LeaseTooLong,
}

struct Run {
    seed: u64,
    fault: Fault,
    groups: Arc<Groups>,
    /// Rows of child tables written, and changes of the schema made.
    rows: AtomicU64,
    changes: AtomicU64,
}

impl Run {
    fn new(seed: u64, fault: Fault) -> Run {
        let groups = Groups::new(seed, DELAY_US, fault != Fault::BoundsIgnored);
        Run { seed, fault, groups, rows: AtomicU64::new(0), changes: AtomicU64::new(0) }
    }

    async fn open(&self, id: u64, lease: Duration) -> Arc<Database> {
        let options = Options { schema_lease: Some(lease), ..Options::default() };
        Database::open_with(self.groups.client(id), options).await.expect("it opens")
    }

    async fn pause(&self, dice: &mut Dice, longest: Duration) {
        self.groups.time.sleep(dice.below(longest.as_micros() as u64)).await;
    }

    /// Makes and drops a child table, again and again.
    async fn change(&self, id: u64, child: &str) {
        let database = self.open(id, LEASE).await;
        let (mut session, mut dice) = (database.session(), Dice::new(self.seed ^ (id << 32)));
        let create = format!(
            "CREATE TABLE {child} (k INT64, n INT64) PRIMARY KEY (k, n),
             INTERLEAVE IN PARENT p ON DELETE NO ACTION"
        );
        for sql in [&create[..], &format!("DROP TABLE {child}")].repeat(ROUNDS) {
            self.pause(&mut dice, LEASE * 2).await;
            session
                .execute(sql)
                .await
                .unwrap_or_else(|error| panic!("seed {}: {error}", self.seed));
            self.changes.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Writes and deletes parents and children for as long as the schema changes.
    async fn write(&self, id: u64) {
        let lease = if self.fault == Fault::LeaseTooLong { LEASE * 20 } else { LEASE };
        let database = self.open(id, lease).await;
        let mut dice = Dice::new(self.seed ^ (id << 32));
        while self.changes.load(Ordering::Relaxed) < 4 * ROUNDS as u64 {
            let key = Value::from(dice.below(PARENTS) as i64);
            let child = CHILDREN[dice.below(2) as usize];
            let mutation = match dice.below(8) {
                0..2 => Mutation::new(MutationKind::InsertOrUpdate, "p", &["k"], vec![key]),
                2 => Mutation::new(MutationKind::Delete, "p", &["k"], vec![key]),
                _ => {
                    let values = vec![key, Value::from(dice.below(4) as i64)];
                    Mutation::new(MutationKind::InsertOrUpdate, child, &["k", "n"], values)
                }
            };
            let think = dice.below(6) == 0;
            let pause_us = if think { dice.below(LEASE.as_micros() as u64 * 2) } else { 0 };
            let (mutation, time) = (&mutation, &self.groups.time);
            let done = database.run(|txn| async move {
                txn.buffer(mutation.clone()).await?;
                time.sleep(pause_us).await;
                Ok::<(), SqlError>(())
            });
            match done.await {
                Ok(_) if mutation.table != "p" => {
                    self.rows.fetch_add(1, Ordering::Relaxed);
                }
                Ok(_) => {}
                Err(error) => assert!(
                    matches!(
                        error.kind,
                        ErrorKind::UnknownTable
                            | ErrorKind::ParentMissing
                            | ErrorKind::ChildrenExist
                            | ErrorKind::Aborted
                    ),
                    "seed {}: {error}",
                    self.seed
                ),
            }
            self.pause(&mut dice, LEASE / 8).await;
        }
    }

    /// What is wrong with what was written, if anything.
    async fn judge(&self) -> Result<(), String> {
        let work = async {
            let database = self.open(1, LEASE).await;
            let mut session = database.session();
            session.execute("CREATE TABLE p (k INT64) PRIMARY KEY (k)").await.expect("it is new");
            futures::join!(
                self.change(2, "c"),
                self.change(3, "d"),
                self.write(4),
                self.write(5),
                self.write(6),
                self.write(7),
                self.write(8)
            );
        };
        self.groups.time.drive(work).await;
        judge(&self.groups.history())
    }
}

/// The catalog at a timestamp, from what the history has of its rows.
fn catalog_at(history: &History, at: Timestamp) -> Arc<Catalog> {
    let prefix = [&sql::CATALOG_PREFIX[..], b"t"].concat();
    let (mut since, mut descriptors) = (Timestamp::MIN, Vec::<Descriptor>::new());
    for (_, versions) in history.iter().filter(|(key, _)| key.starts_with(&prefix)) {
        let Some((written, row)) = versions.range(..=at).next_back() else { continue };
        since = since.max(*written);
        descriptors.extend(row.as_ref().map(|row| codec::decode(row).expect("a descriptor")));
    }
    Timeline::new(since, &descriptors).expect("whole").at(at).clone()
}

/// Whether each row was written under a schema that has its table, and children have their parents
/// whenever something was written.
fn judge(history: &History) -> Result<(), String> {
    let catalogs: BTreeMap<Timestamp, Arc<Catalog>> = written(history, &KeyRange::all())
        .into_iter()
        .map(|at| (at, catalog_at(history, at)))
        .collect();
    // Descriptors are there before they count, and after.
    let tables: BTreeMap<u32, Arc<Table>> = catalogs
        .values()
        .flat_map(|catalog| catalog.tables())
        .map(|table| (table.id(), table.clone()))
        .collect();
    for table in tables.values().filter(|table| table.interleave().is_some()) {
        for (key, versions) in history {
            let Some(values) = table.layout().decode(key) else { continue };
            for (at, catalog) in &catalogs {
                let row = versions.range(..=at).next_back();
                let Some((written, Some(_))) = row else { continue };
                let counts = catalog.by_id(table.id()).is_some();
                if written == at && !counts {
                    return Err(format!(
                        "{} {values:?} was written at {at}, when there was no such table",
                        table.name()
                    ));
                }
                let parent = catalog.parent(table).filter(|_| counts);
                let Some(parent) = parent else { continue };
                let parent = parent.layout().encode(&values[..1]).expect("short");
                let parent = history.get(&parent).and_then(|row| row.range(..=at).next_back());
                if parent.is_none_or(|(_, row)| row.is_none()) {
                    return Err(format!("{} {values:?} has no parent at {at}", table.name()));
                }
            }
        }
    }
    Ok(())
}

#[tokio::test]
async fn nothing_is_written_by_a_schema_that_does_not_count() {
    let (mut rows, mut late) = (0, 0);
    for seed in 0..20 {
        let run = Run::new(seed, Fault::None);
        if let Err(wrong) = run.judge().await {
            panic!("seed {seed}: {wrong}");
        }
        rows += run.rows.load(Ordering::Relaxed);
        late += run.groups.late();
    }
    assert!(rows > 100, "the tables were in use: {rows}");
    assert!(late > 5, "and some commits came too late: {late}");
}

#[tokio::test]
async fn the_judge_notices_commits_beyond_their_bound() {
    assert!(noticed(Fault::BoundsIgnored).await);
}

#[tokio::test]
async fn the_judge_notices_leases_that_nobody_waits_for() {
    assert!(noticed(Fault::LeaseTooLong).await);
}

async fn noticed(fault: Fault) -> bool {
    for seed in 0..20 {
        if Run::new(seed, fault).judge().await.is_err() {
            return true;
        }
    }
    false
}

#[tokio::test]
async fn the_same_seed_is_the_same_run() {
    let run = async || {
        let run = Run::new(7, Fault::None);
        run.judge().await.expect("right");
        run.groups.history()
    };
    assert_eq!(run().await, run().await);
}
