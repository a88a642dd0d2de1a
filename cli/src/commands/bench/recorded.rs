//! The accounts of `meridian bench transfer --history`, where every row names who wrote it, and what
//! clients did and saw is written down.

use super::recording::{Draft, Recording, Seen};
use super::tally::patiently;
use super::{create, failed};
use crate::exit::Exit;
use crate::target::Opened;
use ::history::file::{Header, transaction};
use ::history::{Cell, Kind};
use client::{CommitReceipt, SqlError, TimestampBound, Transaction, Universe, params};
use proto::request::{Body, LockMode};
use proto::{GroupId, NodeId, TxnId};
use sql::{ErrorKind, Row, Value};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
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

/// Accounts whose every change is written down; cheap to clone.
#[derive(Clone)]
pub struct Recorded {
    recording: Recording,
    carriers: &'static [&'static str],
}

impl Recorded {
    /// Spreads the leaders over the replicas, so that every clock counts, and opens the accounts
    /// anew: that is the first transaction of the history. Servers elsewhere are led as they are.
    ///
    /// # Errors
    /// When the universe fails or the file cannot be written.
    pub async fn begin(
        opened: &Opened,
        file: &Path,
        carriers: &'static [&'static str],
        opening_balance: i64,
    ) -> Result<Recorded, Exit> {
        let database = opened.database();
        create(&database, TABLE, SCHEMA).await.map_err(failed)?;
        let (leaders, clocks) = match opened {
            Opened::Folder(universe) => {
                let clocks = universe.clocks();
                let clocks = clocks.iter().map(|c| (c.whose.to_string(), c.spec.to_string()));
                (spread(universe).await, clocks.collect())
            }
            Opened::Servers(_) => (leaders(&opened.status().await), BTreeMap::new()),
        };
        let header = Header {
            universe: opened.id(),
            accounts: carriers.len(),
            total: opening_balance * carriers.len() as i64,
            clocks,
            leaders: leaders.iter().map(|(g, n)| (g.to_string(), n.to_string())).collect(),
            ..Header::default()
        };
        let recording = Recording::begin(database, file, header)?;
        let recorded = Recorded { recording, carriers };
        let opened = patiently(async || {
            let put = |txn: Transaction, draft: Draft| async move {
                carriers.iter().try_for_each(|carrier| put(&txn, &draft, carrier, opening_balance))
            };
            recorded.recording.run(0, put).await
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
        let work = |txn: Transaction, draft: Draft| async move {
            attempts.fetch_add(1, Ordering::Relaxed);
            let table = txn.catalog().table(TABLE)?;
            let keys = [table.encode_key(&row(from, 0, ""))?, table.encode_key(&row(to, 0, ""))?];
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
                draft.read(carrier.to_owned(), Some(account));
            }
            Ok(())
        };
        self.recording.run(client, work).await
    }

    /// Reads all accounts at one timestamp after all that was acknowledged; their sum.
    ///
    /// # Errors
    /// As any read.
    pub async fn audit(&self, client: u32) -> Result<i64, SqlError> {
        let began_ns = self.recording.now_ns();
        let read = self.recording.database().read_only(TimestampBound::Strong).await?;
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
        let at = read.timestamp();
        self.recording.saw(client, Seen { kind: Kind::Strong, began_ns, at, reads })?;
        Ok(total)
    }

    /// Asks how those transactions ended that nobody heard of, and completes the file. How many
    /// remain unknown.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub async fn settle(&self) -> Result<usize, Exit> {
        let catalog = self.recording.database().catalog().await;
        let key_of = |carrier: &[u8]| {
            let carrier = String::from_utf8_lossy(carrier);
            catalog.table(TABLE).ok()?.encode_key(&row(&carrier, 0, "")).ok()
        };
        self.recording.settle(key_of).await
    }
}

fn row(carrier: &str, balance: i64, writer: &str) -> Row {
    vec![carrier.into(), balance.into(), writer.into()]
}

/// Buffers an account's new balance, signed with the transaction's id.
fn put(txn: &Transaction, draft: &Draft, carrier: &str, balance: i64) -> Result<(), SqlError> {
    let table = txn.catalog().table(TABLE)?;
    let writer = txn.inner().id();
    let row = row(carrier, balance, &writer.to_string());
    txn.inner().put(table.encode_key(&row)?, table.encode_row(&row)?);
    draft.write(carrier.to_owned(), Cell::number(writer, balance));
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

/// Who leads which group.
fn leaders(status: &[client::GroupStatus]) -> BTreeMap<GroupId, NodeId> {
    let led = status.iter().filter(|status| status.lease_end.is_some());
    led.map(|status| (status.group, status.node)).collect()
}

/// Has the groups led by one node after the other, as far as that can be had; who leads them then.
async fn spread(universe: &Universe) -> BTreeMap<GroupId, NodeId> {
    let replicas = universe.stats().replicas;
    let began = Instant::now();
    loop {
        let leaders = leaders(&universe.status().await);
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
