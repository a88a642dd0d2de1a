//! `meridian bench endure`: clients at work until somebody kills the process, as often as somebody
//! does.
//!
//! What clients did and saw goes to a journal: a history of which every line is one `write`, so what has
//! been written is with the operating system and stays when the process is gone. An attempt is
//! written down before its commit leaves, as one whose end is unknown, and once more with its end. Of
//! the lines of one attempt, the last counts ([`finish`]).

use super::{Random, failed};
use crate::data::Data;
use crate::exit::Exit;
use ::history::file::{Header, Lines, transaction, write_header, write_operation};
use ::history::{Cell, Ending, Kind, Operation};
use clap::Args;
use client::{Database, TimestampBound, Transaction, Universe, params};
use proto::TxnId;
use proto::request::LockMode;
use sql::{ErrorKind, Row, SqlError, Value};
use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};
use truetime::providers::HostTime;

pub const AFTER_HELP: &str = "\
Clients move units between sixteen accounts, and one more reads all of them again and again, until the
process ends, which it never does by itself: kill it with `kill -9` at any moment, and start it again
with the same universe and journal, as often as you like. A line `ready` says when clients are at work.

With --finish, no client works. When no transaction holds a lock or is prepared any more, all accounts
are read once more, and the journal becomes a history, in which the last line of every attempt counts.

Examples:
  timeout -s KILL 20 meridian bench endure --data ./u --replicas 3 journal
  timeout -s KILL 20 meridian bench endure --data ./u journal
  meridian bench endure --data ./u journal --finish h.jsonl && meridian check history h.jsonl

The exit code is 1 when locks stay, or accounts do not add up.";

/// Arguments of `meridian bench endure`.
#[derive(Debug, Args)]
pub struct Arguments {
    #[command(flatten)]
    data: Data,
    /// What clients did and saw; one that exists is continued.
    #[arg(value_name = "JOURNAL")]
    journal: PathBuf,
    /// Clients at work at once.
    #[arg(long, value_name = "N", default_value = "32", value_parser = clap::value_parser!(u16).range(1..=4096))]
    clients: u16,
    /// Do not work, but make a history of the journal.
    #[arg(long, value_name = "FILE")]
    finish: Option<PathBuf>,
}

const ACCOUNTS: usize = 16;
const OPENING_BALANCE: i64 = 1_000;
const TABLE: &str = "bench_endured";
const SCHEMA: &str = "CREATE TABLE bench_endured (
  id INT64 NOT NULL,
  balance INT64 NOT NULL,
  writer STRING(40) NOT NULL,
) PRIMARY KEY (id)";
/// How long locks of clients that are gone may stay.
const SETTLE_WITHIN: Duration = Duration::from_secs(60);
const SETTLE_EVERY: Duration = Duration::from_millis(20);

/// Runs the command.
///
/// # Errors
/// When the universe or the journal fails.
pub async fn run(arguments: Arguments) -> Result<(), Exit> {
    let universe = arguments.data.open().await?;
    let shown = arguments.journal.display();
    let journal = Journal::open(&arguments.journal, universe.id());
    let journal = journal.map_err(|what| Exit::failed(format!("{shown}: {what}")))?;
    let clients = Clients { database: universe.database(), journal: Arc::new(journal) };
    let result = match &arguments.finish {
        None => clients.work(arguments.clients).await,
        Some(history) => {
            let settled = settle(&universe).await?;
            clients.audit().await.map_err(failed)?;
            finish(&arguments.journal, history).map(|lines| {
                println!("no lock left after {:.1} s, {lines} transactions", settled.as_secs_f64());
            })
        }
    };
    universe.close();
    result
}

/// Waits until no group has a lock or a prepared transaction; how long that took.
async fn settle(universe: &Universe) -> Result<Duration, Exit> {
    let began = Instant::now();
    loop {
        let status = universe.status().await;
        let led = status.iter().filter(|group| group.lease_end.is_some()).count();
        let held: u64 = status.iter().map(|group| group.lock_holders + group.prepared).sum();
        if held == 0 && led == universe.stats().groups as usize {
            return Ok(began.elapsed());
        }
        if began.elapsed() > SETTLE_WITHIN {
            let seconds = SETTLE_WITHIN.as_secs();
            return Err(Exit::failed(format!(
                "after {seconds} s, {held} transactions hold locks or are prepared, and {led} groups \
                 are led"
            )));
        }
        tokio::time::sleep(SETTLE_EVERY).await;
    }
}

/// Makes a history of a journal; how many transactions it has. What a process did not come to write
/// whole before it was killed is cut off when the next one opens the journal.
fn finish(journal: &Path, history: &Path) -> Result<usize, Exit> {
    let at = |path: &Path| {
        let shown = path.display().to_string();
        move |error: io::Error| Exit::failed(format!("{shown}: {error}"))
    };
    let malformed = |error| Exit::failed(format!("{}:{error}", journal.display()));
    let file = File::open(journal).map_err(at(journal))?;
    let mut lines = Lines::open(BufReader::new(file)).map_err(malformed)?;
    let mut last: BTreeMap<TxnId, Operation> = BTreeMap::new();
    for op in &mut lines {
        let op = op.map_err(malformed)?;
        last.insert(op.txn, op);
    }
    let out = File::create(history).map_err(at(history))?;
    let mut out = BufWriter::new(out);
    let mut write = || {
        write_header(&mut out, lines.header())?;
        last.values().try_for_each(|op| write_operation(&mut out, op))?;
        out.flush()
    };
    write().map_err(at(history))?;
    Ok(last.len())
}

/// A history that survives its writer.
struct Journal {
    file: File,
    host: HostTime,
    zero_ns: u64,
}

impl Journal {
    /// Begins a journal, or continues one.
    fn open(path: &Path, universe: &str) -> Result<Journal, String> {
        let told = |error: io::Error| error.to_string();
        let host = HostTime::new();
        let options = || OpenOptions::new().append(true).create(true).open(path).map_err(told);
        if fs::metadata(path).is_ok_and(|found| found.len() > 0) {
            let lines = Lines::open(BufReader::new(File::open(path).map_err(told)?));
            let header = lines.map_err(|error| error.to_string())?.header().clone();
            if header.universe != universe {
                return Err(format!("it is of the universe {}", header.universe));
            }
            cut(path).map_err(told)?;
            return Ok(Journal { file: options()?, host, zero_ns: header.zero_us * 1_000 });
        }
        let zero_us = host.now_ns() / 1_000;
        let header = Header {
            universe: universe.to_owned(),
            zero_us,
            accounts: ACCOUNTS,
            total: OPENING_BALANCE * ACCOUNTS as i64,
            ..Header::default()
        };
        let journal = Journal { file: options()?, host, zero_ns: zero_us * 1_000 };
        let mut line = Vec::new();
        write_header(&mut line, &header).map_err(told)?;
        (&journal.file).write_all(&line).map_err(told)?;
        Ok(journal)
    }

    fn now_ns(&self) -> u64 {
        self.host.now_ns().saturating_sub(self.zero_ns)
    }

    fn write(&self, op: &Operation) -> Result<(), SqlError> {
        let mut line = Vec::new();
        let written = write_operation(&mut line, op).and_then(|()| (&self.file).write_all(&line));
        written.map_err(|error| {
            SqlError::new(ErrorKind::Internal, format!("the journal cannot be written: {error}"))
        })
    }
}

/// Cuts off a last line that is not whole.
fn cut(path: &Path) -> io::Result<()> {
    let text = fs::read(path)?;
    let whole = text.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
    OpenOptions::new().write(true).open(path)?.set_len(whole as u64)
}

/// An attempt that has come as far as its commit, until its end is written down.
type Draft = Arc<Mutex<Option<Operation>>>;

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

#[derive(Clone)]
struct Clients {
    database: Arc<Database>,
    journal: Arc<Journal>,
}

impl Clients {
    /// Until somebody kills the process.
    async fn work(&self, clients: u16) -> Result<(), Exit> {
        self.open().await.map_err(failed)?;
        println!("ready");
        let mut working = tokio::task::JoinSet::new();
        for client in 1..=clients {
            let clients = self.clone();
            working.spawn(async move { clients.transfers(u32::from(client)).await });
        }
        let clients = self.clone();
        working.spawn(async move {
            loop {
                clients.audit().await?;
            }
        });
        match working.join_next().await {
            Some(ended) => ended.map_err(Exit::failed)?.map_err(failed),
            None => Ok(()),
        }
    }

    /// Makes the accounts where there are none.
    async fn open(&self) -> Result<(), SqlError> {
        if self.database.catalog().await.table(TABLE).is_err() {
            self.database.session().execute(SCHEMA).await?;
        }
        let opened = self.run(0, |txn, draft| async move {
            let first = txn.catalog().table(TABLE)?.encode_key(&row(1, 0, ""))?;
            if txn.inner().get_many(&[first], LockMode::Exclusive).await? == [None] {
                let accounts = 1..=ACCOUNTS as i64;
                return accounts
                    .into_iter()
                    .try_for_each(|id| put(&txn, &draft, id, OPENING_BALANCE));
            }
            Ok(())
        });
        opened.await
    }

    async fn transfers(self, client: u32) -> Result<(), SqlError> {
        let mut random = Random(self.journal.now_ns() ^ u64::from(client) << 48);
        loop {
            let from = random.below(ACCOUNTS);
            let to = (from + 1 + random.below(ACCOUNTS - 1)) % ACCOUNTS;
            let (from, to) = (from as i64 + 1, to as i64 + 1);
            let moved = self.run(client, |txn, draft| async move {
                let table = txn.catalog().table(TABLE)?;
                let keys =
                    [table.encode_key(&row(from, 0, ""))?, table.encode_key(&row(to, 0, ""))?];
                let values = txn.inner().get_many(&keys, LockMode::Exclusive).await?;
                let changes = [(from, -1), (to, 1)];
                for ((key, value), (id, change)) in keys.iter().zip(values).zip(changes) {
                    let stored = value.map(|value| table.decode(key, &value)).transpose()?;
                    let account = account(&stored.flatten().unwrap_or_default())?;
                    put(&txn, &draft, id, account.as_number().unwrap_or_default() + change)?;
                    if let Some(op) = lock(&draft).as_mut() {
                        op.reads.insert(name(id), Some(account));
                    }
                }
                Ok(())
            });
            match moved.await {
                Err(error) if error.kind != ErrorKind::OutcomeUnknown => return Err(error),
                _ => {}
            }
        }
    }

    /// Reads all accounts at one timestamp after all that was acknowledged.
    async fn audit(&self) -> Result<(), SqlError> {
        let began_ns = self.journal.now_ns();
        let read = self.database.read_only(TimestampBound::Strong).await?;
        let all = "SELECT id, balance, writer FROM bench_endured";
        let rows = read.query(all, &params(&[])).await?.collect().await?;
        let mut reads: BTreeMap<_, _> = (1..=ACCOUNTS as i64).map(|id| (name(id), None)).collect();
        for row in &rows {
            if let Some(Value::Int64(id)) = row.first() {
                reads.insert(name(*id), Some(account(row)?));
            }
        }
        self.journal.write(&Operation {
            client: 0,
            // Client 0 of all ids is nobody's: those of transactions are drawn at random.
            txn: TxnId { client: 0, seq: began_ns },
            kind: Kind::Strong,
            began_ns,
            ended_ns: self.journal.now_ns(),
            ending: Ending::At(read.timestamp()),
            writes: BTreeMap::new(),
            reads,
        })
    }

    /// Runs a transaction to its end; every attempt that comes as far as its commit is written down.
    async fn run<F, Fut>(&self, client: u32, mut work: F) -> Result<(), SqlError>
    where
        F: FnMut(Transaction, Draft) -> Fut,
        Fut: Future<Output = Result<(), SqlError>>,
    {
        let (journal, began_ns, draft) = (&self.journal, self.journal.now_ns(), Draft::default());
        let end = |ending| match lock(&draft).take() {
            Some(op) => journal.write(&Operation { ending, ended_ns: journal.now_ns(), ..op }),
            None => Ok(()),
        };
        let ended = self.database.run(|txn| {
            // An attempt that is followed by another one has not happened.
            let before = end(Ending::Nothing);
            *lock(&draft) = Some(Operation {
                client,
                txn: txn.inner().id(),
                kind: Kind::ReadWrite,
                began_ns,
                ended_ns: u64::MAX,
                ending: Ending::Unknown,
                writes: BTreeMap::new(),
                reads: BTreeMap::new(),
            });
            let (mine, working) = (draft.clone(), work(txn, draft.clone()));
            async move {
                before?;
                working.await?;
                lock(&mine).as_ref().map_or(Ok(()), |op| journal.write(op))
            }
        });
        match ended.await {
            Ok(((), receipt)) => end(Ending::At(receipt.timestamp)),
            Err(error) if error.kind == ErrorKind::OutcomeUnknown => Err(error),
            // After anything else it has certainly not happened.
            Err(error) => end(Ending::Nothing).and(Err(error)),
        }
    }
}

fn name(id: i64) -> bytes::Bytes {
    format!("a{id:02}").into()
}

fn row(id: i64, balance: i64, writer: &str) -> Row {
    vec![id.into(), balance.into(), writer.into()]
}

/// Buffers an account's new balance, signed with the transaction's id.
fn put(txn: &Transaction, draft: &Draft, id: i64, balance: i64) -> Result<(), SqlError> {
    let table = txn.catalog().table(TABLE)?;
    let writer = txn.inner().id();
    let row = row(id, balance, &writer.to_string());
    txn.inner().put(table.encode_key(&row)?, table.encode_row(&row)?);
    if let Some(op) = lock(draft).as_mut() {
        op.writes.insert(name(id), Cell::number(writer, balance));
    }
    Ok(())
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

#[cfg(test)]
mod tests {
    use super::*;
    use truetime::Timestamp;

    fn op(seq: u64, ending: Ending) -> Operation {
        let txn = TxnId { client: 0x1f, seq };
        Operation {
            client: 1,
            txn,
            kind: Kind::ReadWrite,
            began_ns: 1,
            ended_ns: u64::MAX,
            ending,
            writes: [(name(1), Cell::number(txn, 7))].into(),
            reads: BTreeMap::new(),
        }
    }

    #[test]
    fn a_journal_goes_on_after_half_a_line_and_its_last_word_counts() {
        let folder = tempfile::tempdir().unwrap();
        let (path, out) = (folder.path().join("journal"), folder.path().join("history"));
        let at = Ending::At(Timestamp::from_micros(9));
        let first = Journal::open(&path, "u").unwrap();
        first.write(&op(1, Ending::Unknown)).unwrap();
        first.write(&op(2, Ending::Unknown)).unwrap();
        first.write(&op(2, at)).unwrap();
        (&first.file).write_all(b"{\"client\":1,\"tx").unwrap();
        let second = Journal::open(&path, "u").unwrap();
        assert_eq!(second.zero_ns, first.zero_ns, "one clock for all of it");
        assert!(second.now_ns() < 60_000_000_000);
        second.write(&op(3, Ending::Nothing)).unwrap();
        assert_eq!(finish(&path, &out).unwrap(), 3);
        let lines = Lines::open(BufReader::new(File::open(&out).unwrap())).unwrap();
        assert_eq!(lines.header().total, 16_000);
        let endings: Vec<Ending> = lines.map(|op| op.unwrap().ending).collect();
        assert_eq!(endings, [Ending::Unknown, at, Ending::Nothing]);
        let other = Journal::open(&path, "v").err().expect("another universe's");
        assert_eq!(other, "it is of the universe u");
    }
}
