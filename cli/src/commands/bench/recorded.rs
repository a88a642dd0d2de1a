//! The accounts of `meridian bench transfer --history`, where every row names who wrote it, and what
//! clients did and saw is written down.

use super::failed;
use crate::exit::Exit;
use crate::history::Recorder;
use ::history::file::{Header, transaction};
use ::history::{Cell, Ending, Kind, Operation};
use client::{CommitReceipt, Database, SqlError, TimestampBound, Transaction, Universe, params};
use proto::request::{Body, LockMode, Outcome, ReplyBody};
use proto::{GroupId, NodeId, TxnId};
use sql::{ErrorKind, Row, Value};
use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

const TABLE: &str = "bench_recorded";
const SCHEMA: &str = "CREATE TABLE bench_recorded (
  carrier STRING(2) NOT NULL,
  balance INT64 NOT NULL,
  writer STRING(40) NOT NULL,
) PRIMARY KEY (carrier)";
/// How long leaders may take to change.
const SPREAD_WITHIN: Duration = Duration::from_secs(10);
const SPREAD_EVERY: Duration = Duration::from_millis(100);
/// How often an outcome that a client never heard is asked for, with the router's patience each time.
const SETTLE_ROUNDS: u32 = 3;

/// A transaction as far as it is known while it runs.
type Draft = Arc<Mutex<Operation>>;

/// Writes down all that happens; cheap to clone.
#[derive(Clone)]
pub struct Recorded {
    database: Arc<Database>,
    recorder: Arc<Recorder>,
    carriers: &'static [&'static str],
    /// Transactions whose clients never heard how they ended.
    unknown: Arc<Mutex<Vec<Operation>>>,
    /// Numbers of read-only transactions, which have no ids of their own.
    next_reader: Arc<AtomicU64>,
}

impl Recorded {
    /// Spreads the leaders over the replicas, so that every clock counts, and opens the accounts
    /// anew: that is the first transaction of the history.
    ///
    /// # Errors
    /// When the universe fails or the file cannot be written.
    pub async fn begin(
        universe: &Universe,
        file: &Path,
        carriers: &'static [&'static str],
        opening_balance: i64,
    ) -> Result<Recorded, Exit> {
        let database = universe.database();
        if database.catalog().await.table(TABLE).is_err() {
            database.session().execute(SCHEMA).await.map_err(failed)?;
        }
        let leaders = spread(universe).await;
        let header = Header {
            universe: universe.id().to_owned(),
            accounts: carriers.len(),
            total: opening_balance * carriers.len() as i64,
            clocks: universe
                .clocks()
                .iter()
                .map(|clock| (clock.whose.to_string(), clock.spec.to_string()))
                .collect(),
            leaders: leaders.iter().map(|(g, n)| (g.to_string(), n.to_string())).collect(),
            ..Header::default()
        };
        let recorder = Recorder::create(file, header)
            .map_err(|error| Exit::failed(format!("{}: {error}", file.display())))?;
        let recorded = Recorded {
            database,
            recorder: Arc::new(recorder),
            carriers,
            unknown: Arc::default(),
            next_reader: Arc::default(),
        };
        let opened = recorded.run(0, |txn, draft| async move {
            carriers.iter().try_for_each(|carrier| put(&txn, &draft, carrier, opening_balance))
        });
        opened.await.map_err(failed)?;
        Ok(recorded)
    }

    /// Moves one unit; which attempt did, and what it was answered.
    ///
    /// # Errors
    /// As any transaction. One whose outcome is not known is remembered, for [`settle`](Self::settle).
    pub async fn transfer(
        &self,
        client: u32,
        from: &str,
        to: &str,
        attempts: &AtomicU64,
    ) -> Result<(TxnId, CommitReceipt), SqlError> {
        self.run(client, |txn, draft| async move {
            attempts.fetch_add(1, Ordering::Relaxed);
            let table = txn.catalog().table(TABLE)?;
            let key = |carrier: &str| {
                let row: Row = vec![carrier.into(), 0.into(), "".into()];
                table.encode_key(&row)
            };
            let keys = [key(from)?, key(to)?];
            let values = txn.inner().get_many(&keys, LockMode::Exclusive).await?;
            for ((key, value), (carrier, change)) in
                keys.iter().zip(values).zip([(from, -1), (to, 1)])
            {
                let stored = value.map(|value| table.decode(key, &value)).transpose()?.flatten();
                let account = stored.as_deref().map(account).transpose()?.ok_or_else(|| {
                    let message = format!("the account of {carrier} is gone");
                    SqlError::new(ErrorKind::NotFound, message)
                })?;
                put(&txn, &draft, carrier, balance(&account) + change)?;
                lock(&draft).reads.insert(carrier.to_owned().into(), Some(account));
            }
            Ok(())
        })
        .await
    }

    /// Reads all accounts at one timestamp after all that was acknowledged; their sum.
    ///
    /// # Errors
    /// As any read.
    pub async fn audit(&self, client: u32) -> Result<i64, SqlError> {
        let began_ns = self.recorder.now_ns();
        let read = self.database.read_only(TimestampBound::Strong).await?;
        let all = "SELECT carrier, balance, writer FROM bench_recorded";
        let rows = read.query(all, &params(&[])).await?.collect().await?;
        let mut reads: BTreeMap<_, _> =
            self.carriers.iter().map(|carrier| (carrier.as_bytes().into(), None)).collect();
        for row in &rows {
            if let Some(Value::String(carrier)) = row.first() {
                reads.insert(carrier.to_string().into(), Some(account(row)?));
            }
        }
        let total = reads.values().flatten().map(balance).sum();
        // Client 0 of all ids is nobody's: those of transactions are drawn at random.
        let txn = TxnId { client: 0, seq: self.next_reader.fetch_add(1, Ordering::Relaxed) };
        self.record(&Operation {
            client,
            txn,
            kind: Kind::Strong,
            began_ns,
            ended_ns: self.recorder.now_ns(),
            ending: Ending::At(read.timestamp()),
            writes: BTreeMap::new(),
            reads,
        })?;
        Ok(total)
    }

    /// Asks how those transactions ended that nobody heard of, and completes the file. How many
    /// remain unknown.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub async fn settle(&self) -> Result<usize, Exit> {
        let unknown = std::mem::take(&mut *lock(&self.unknown));
        let mut left = 0;
        for mut op in unknown {
            op.ending = self.resolve(&op).await;
            left += usize::from(op.ending == Ending::Unknown);
            self.record(&op).map_err(failed)?;
        }
        self.recorder.finish().map_err(Exit::failed)?;
        Ok(left)
    }

    /// The group that coordinated it knows, and any other says that it has aborted.
    async fn resolve(&self, op: &Operation) -> Ending {
        let client = self.database.client();
        let catalog = self.database.catalog().await;
        let Ok(table) = catalog.table(TABLE) else { return Ending::Unknown };
        let mut groups: Vec<GroupId> = Vec::new();
        for carrier in op.writes.keys() {
            let carrier = String::from_utf8_lossy(carrier).into_owned();
            let row: Row = vec![carrier.as_str().into(), 0.into(), "".into()];
            let Ok(key) = table.encode_key(&row) else { return Ending::Unknown };
            groups.push(client.placement().group_of(&key));
        }
        groups.sort_unstable();
        groups.dedup();
        let mut aborted = 0;
        for group in &groups {
            for _ in 0..SETTLE_ROUNDS {
                let body = Body::Resolve { txn: op.txn };
                match client.router().ask(*group, body).await.map(|reply| reply.body) {
                    Ok(ReplyBody::Outcome(Outcome::Committed(at))) => return Ending::At(at),
                    Ok(ReplyBody::Outcome(Outcome::Aborted)) => {
                        aborted += 1;
                        break;
                    }
                    _ => {}
                }
            }
        }
        if aborted == groups.len() { Ending::Nothing } else { Ending::Unknown }
    }

    /// Runs a transaction to its end and records it.
    async fn run<F, Fut>(
        &self,
        client: u32,
        mut work: F,
    ) -> Result<(TxnId, CommitReceipt), SqlError>
    where
        F: FnMut(Transaction, Draft) -> Fut,
        Fut: Future<Output = Result<(), SqlError>>,
    {
        let draft: Draft = Arc::new(Mutex::new(Operation {
            client,
            txn: TxnId::default(),
            kind: Kind::ReadWrite,
            began_ns: self.recorder.now_ns(),
            ended_ns: u64::MAX,
            ending: Ending::Unknown,
            writes: BTreeMap::new(),
            reads: BTreeMap::new(),
        }));
        let ended = self.database.run(|txn| {
            let draft = draft.clone();
            {
                // Of an earlier attempt, nothing happened.
                let mut op = lock(&draft);
                op.txn = txn.inner().id();
                op.reads.clear();
                op.writes.clear();
            }
            work(txn, draft)
        });
        let ended = ended.await;
        let mut op = lock(&draft).clone();
        match ended {
            Ok(((), receipt)) => {
                op.ended_ns = self.recorder.now_ns();
                op.ending = Ending::At(receipt.timestamp);
                self.record(&op)?;
                Ok((op.txn, receipt))
            }
            Err(error) => {
                // After anything else it has certainly not happened, and is no part of the history.
                if error.kind == ErrorKind::OutcomeUnknown {
                    lock(&self.unknown).push(op);
                }
                Err(error)
            }
        }
    }

    fn record(&self, op: &Operation) -> Result<(), SqlError> {
        let failed = |error: io::Error| {
            SqlError::new(ErrorKind::Internal, format!("the history cannot be written: {error}"))
        };
        self.recorder.record(op).map_err(failed)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

/// Buffers an account's new balance, signed with the transaction's id.
fn put(txn: &Transaction, draft: &Draft, carrier: &str, balance: i64) -> Result<(), SqlError> {
    let table = txn.catalog().table(TABLE)?;
    let writer = txn.inner().id();
    let row: Row = vec![carrier.into(), balance.into(), writer.to_string().into()];
    txn.inner().put(table.encode_key(&row)?, table.encode_row(&row)?);
    lock(draft).writes.insert(carrier.to_owned().into(), Cell::number(writer, balance));
    Ok(())
}

fn balance(account: &Cell) -> i64 {
    account.as_number().expect("every row of the table has a balance")
}

/// From a row of the table.
fn account(row: &[Value]) -> Result<Cell, SqlError> {
    let (Some(Value::Int64(balance)), Some(Value::String(writer))) = (row.get(1), row.get(2))
    else {
        return Err(SqlError::new(ErrorKind::Internal, format!("{row:?} is no account")));
    };
    let writer = transaction(writer).map_err(|what| SqlError::new(ErrorKind::Internal, what))?;
    Ok(Cell::number(writer, *balance))
}

/// Has the groups led by one node after the other, as far as that can be had; who leads them then.
async fn spread(universe: &Universe) -> BTreeMap<GroupId, NodeId> {
    let replicas = universe.stats().replicas;
    let began = Instant::now();
    loop {
        let mut leaders = BTreeMap::new();
        for status in universe.status().await.iter().filter(|status| status.lease_end.is_some()) {
            leaders.insert(status.group, status.node);
        }
        let wanted = |group: GroupId| NodeId(1 + group.0 % replicas);
        let groups = (0..universe.stats().groups).map(GroupId);
        let astray: Vec<GroupId> =
            groups.filter(|group| leaders.get(group) != Some(&wanted(*group))).collect();
        if astray.is_empty() || began.elapsed() >= SPREAD_WITHIN {
            return leaders;
        }
        let router = universe.client();
        for group in astray {
            // One that is under way, or not possible now, is asked for again.
            let _ = router.router().ask(group, Body::Transfer { to: wanted(group) }).await;
        }
        tokio::time::sleep(SPREAD_EVERY).await;
    }
}
