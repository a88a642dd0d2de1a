//! `meridian bench transfer`: transactions over two groups, and an auditor.

use super::recorded::Recorded;
use super::{Random, failed, percentile};
use crate::certificates::{Recorder, Told};
use crate::clock::fault::{self, Fault};
use crate::clock::{Faults, show};
use crate::data::Data;
use crate::exit::Exit;
use clap::Args;
use client::{
    CommitReceipt, Database, Mutation, MutationKind, TimestampBound, Transaction, Universe, params,
};
use history::certificates::Header;
use proto::TxnId;
use proto::request::LockMode;
use sql::{ErrorKind, Row, SqlError, Value};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

pub const AFTER_HELP: &str = "\
Each of sixteen airlines has one row in a table `bench_accounts`, which is created when it is
missing; the rows are spread over the groups, so most transfers are two-phase commits. Latency is
from the first attempt of a transaction to its acknowledged commit, retries and commit wait included.

With --history, the accounts are those of another table, `bench_recorded`, whose rows name the
transaction that wrote them; it is opened anew, and the leaders of the groups are spread over the
replicas first. Every transaction is written down as its client saw it: when it began and ended, what
it read and wrote, and its timestamp. `meridian check history FILE` judges that.

With --certificates, what every commit is answered with is written down: it proves, without the
database, that its timestamp was rightly chosen. `meridian check certificates FILE` verifies it.

The exit code is 1 when a sum was seen that differs from the first.

Examples:
  meridian bench transfer --data ./universe --replicas 3
  meridian bench transfer --data ./universe --clients 64 --seconds 30
  meridian bench transfer --data ./universe --sql        the same through SQL statements
  meridian bench transfer --data ./universe --history h.jsonl && meridian check history h.jsonl
  meridian bench transfer --data ./wrong --replicas 3 --history h.jsonl \\
    --clock n2=simulated:epsilon=5ms,drift=2000,evict=off     with a clock that is wrong
  meridian bench transfer --data ./wrong --replicas 3 --seconds 20 --clock simulated:epsilon=5ms \\
    --allow-clock-faults --fault '5s n2 drift=2000' --fault '12s n2 honest'";

/// Arguments of `meridian bench transfer`.
#[derive(Debug, Args)]
pub struct Arguments {
    #[command(flatten)]
    data: Data,
    /// Clients at work at once.
    #[arg(long, value_name = "N", default_value = "16", value_parser = clap::value_parser!(u16).range(1..=4096))]
    clients: u16,
    /// How long.
    #[arg(long, value_name = "S", default_value = "10", value_parser = clap::value_parser!(u32).range(1..))]
    seconds: u32,
    /// With UPDATE statements instead of reads and writes of rows.
    #[arg(long)]
    sql: bool,
    /// Write down what every client did and saw, as JSON lines.
    #[arg(long, value_name = "FILE", conflicts_with = "sql")]
    history: Option<PathBuf>,
    /// Write down every commit's certificate, as JSON lines.
    #[arg(long, value_name = "FILE")]
    certificates: Option<PathBuf>,
    #[command(flatten)]
    faults: Faults,
    /// Changes a simulated clock while clients are at work: when, whose, and what, in the words of
    /// `\clock` at the prompt. May be repeated.
    #[arg(long = "fault", value_name = "'TIME NODE CHANGE'", requires = "allow_clock_faults")]
    fault: Vec<Fault>,
}

const TABLE: &str = "bench_accounts";
const SCHEMA: &str = "CREATE TABLE bench_accounts (
  carrier STRING(2) NOT NULL,
  balance INT64 NOT NULL,
) PRIMARY KEY (carrier)";
/// The airlines that fly out of New York City.
const CARRIERS: [&str; 16] = [
    "9E", "AA", "AS", "B6", "DL", "EV", "F9", "FL", "HA", "MQ", "OO", "UA", "US", "VX", "WN", "YV",
];
const OPENING_BALANCE: i64 = 1_000;

/// Runs the command.
///
/// # Errors
/// When the universe fails, or the sum was not constant.
pub async fn run(arguments: Arguments) -> Result<(), Exit> {
    let builder = Universe::builder().allow_clock_faults(arguments.faults.allow_clock_faults);
    let universe = arguments.data.open_with(builder).await?;
    let result = transfer(&universe, &arguments).await;
    universe.close();
    result
}

async fn transfer(universe: &Universe, arguments: &Arguments) -> Result<(), Exit> {
    let database = universe.database();
    let recorded = match &arguments.history {
        Some(file) => Some(Recorded::begin(universe, file, &CARRIERS, OPENING_BALANCE).await?),
        None => None,
    };
    let certificates = certificates(universe, arguments)?;
    let accounts = Accounts { database: database.clone(), recorded: recorded.clone() };
    accounts.prepare().await.map_err(failed)?;
    let wanted = accounts.audit().await.map_err(failed)?;
    let before = universe.stats();
    let began = Instant::now();
    let until = began + Duration::from_secs(u64::from(arguments.seconds));

    let attempts = Arc::new(AtomicU64::new(0));
    let is_over = Arc::new(AtomicBool::new(false));
    let faults = tokio::spawn(fault::make(arguments.fault.clone(), universe.clock_handle()));
    let auditor = tokio::spawn(watch(accounts.clone(), wanted, is_over.clone()));
    let clients: Vec<_> = (0..arguments.clients)
        .map(|number| {
            let client = Client {
                number: u32::from(number) + 1,
                accounts: accounts.clone(),
                attempts: attempts.clone(),
                certificates: certificates.clone(),
                random: Random(u64::from(number) + 1),
                with_sql: arguments.sql,
            };
            tokio::spawn(client.work(until))
        })
        .collect();
    let mut latencies = Vec::new();
    let mut unknown = 0;
    for client in clients {
        let work = client.await.map_err(Exit::failed)?.map_err(failed)?;
        latencies.extend(work.latencies);
        unknown += work.unknown;
    }
    let took = began.elapsed();
    let after = universe.stats();
    is_over.store(true, Ordering::Relaxed);
    if faults.is_finished() {
        faults.await.map_err(Exit::failed)??;
    } else {
        faults.abort(); // what was to come later than the end
    }
    let audits = auditor.await.map_err(Exit::failed)?.map_err(failed)?;
    let last = accounts.audit().await.map_err(failed)?;
    if let Some(recorded) = &recorded {
        recorded.settle().await?;
    }
    if let Some(certificates) = &certificates {
        certificates.finish().map_err(Exit::failed)?;
    }

    latencies.sort_unstable();
    let commits = latencies.len() as u64;
    let seconds = took.as_secs_f64();
    let at = |share: f64| percentile(&latencies, share).as_secs_f64() * 1e3;
    let retries = attempts.load(Ordering::Relaxed).saturating_sub(commits + unknown);
    let syncs = after.syncs - before.syncs;
    println!("universe        {} replicas, {} groups", after.replicas, after.groups);
    println!(
        "clients         {}{}",
        arguments.clients,
        if arguments.sql { ", with SQL" } else { "" }
    );
    println!(
        "committed       {commits} in {seconds:.1} s ({:.0} per second)",
        commits as f64 / seconds
    );
    println!(
        "latency         p50 {:.2} ms, p95 {:.2} ms, p99 {:.2} ms",
        at(0.50),
        at(0.95),
        at(0.99)
    );
    println!(
        "retries         {retries} attempts aborted ({:.2} per commit), {unknown} outcomes unknown",
        retries as f64 / commits.max(1) as f64
    );
    println!(
        "disk            {syncs} syncs ({:.2} per commit, all replicas together)",
        syncs as f64 / commits.max(1) as f64
    );
    println!("audits          {} read-only transactions", audits.count);
    if arguments.data.clocks.is_given() {
        for (place, line) in show::lines(&universe.clocks()).iter().enumerate() {
            println!("{:<16}{line}", if place == 0 { "clocks" } else { "" });
        }
    }
    if let Some(file) = &arguments.history {
        println!("history         {}", file.display());
    }
    if let Some(file) = &arguments.certificates {
        println!("certificates    {}", file.display());
    }
    match audits.wrong.or((last != wanted).then_some(last)) {
        None => {
            println!("sum constant    yes, {wanted} every time");
            Ok(())
        }
        Some(seen) => {
            println!("sum constant    NO: {seen} instead of {wanted}");
            Err(Exit::Failed("the sum of all accounts changed".into()))
        }
    }
}

/// Begins the file of certificates, where one is wanted.
fn certificates(universe: &Universe, arguments: &Arguments) -> Result<Option<Arc<Recorder>>, Exit> {
    let Some(file) = &arguments.certificates else { return Ok(None) };
    let (universe, key) = (universe.id().to_owned(), universe.key_fingerprint().to_owned());
    let header = Header { universe, key, ..Header::default() };
    let recorder = Recorder::create(file, header)
        .map_err(|error| Exit::failed(format!("{}: {error}", file.display())))?;
    Ok(Some(Arc::new(recorder)))
}

/// The accounts, written down or not.
#[derive(Clone)]
struct Accounts {
    database: Arc<Database>,
    recorded: Option<Recorded>,
}

impl Accounts {
    async fn prepare(&self) -> Result<(), SqlError> {
        match &self.recorded {
            Some(_) => Ok(()),
            None => prepare(&self.database).await,
        }
    }

    /// The sum of all accounts at one timestamp after all that was acknowledged.
    async fn audit(&self) -> Result<i64, SqlError> {
        match &self.recorded {
            Some(recorded) => recorded.audit(0).await,
            None => audit(&self.database).await,
        }
    }
}

/// Creates what is missing; balances of an earlier run are left.
async fn prepare(database: &Arc<Database>) -> Result<(), SqlError> {
    if database.catalog().await.table(TABLE).is_err() {
        database.session().execute(SCHEMA).await?;
    }
    let prepared = database.run(|txn| async move {
        for carrier in CARRIERS {
            if txn.read(TABLE, &[carrier.into()]).await?.is_none() {
                let row: Row = vec![carrier.into(), OPENING_BALANCE.into()];
                let columns = ["carrier", "balance"];
                txn.buffer(Mutation::new(MutationKind::Insert, TABLE, &columns, row)).await?;
            }
        }
        Ok::<_, SqlError>(())
    });
    prepared.await.map(|_| ())
}

async fn audit(database: &Database) -> Result<i64, SqlError> {
    let read = database.read_only(TimestampBound::Strong).await?;
    let sum = "SELECT SUM(balance) AS total FROM bench_accounts";
    let rows = read.query(sum, &params(&[])).await?.collect().await?;
    match rows.first().and_then(|row| row.first()) {
        Some(Value::Int64(total)) => Ok(*total),
        other => Err(SqlError::new(ErrorKind::Internal, format!("the sum is {other:?}"))),
    }
}

/// What the auditor saw.
#[derive(Default)]
struct Audits {
    count: u64,
    /// A sum that was not the first.
    wrong: Option<i64>,
}

async fn watch(
    accounts: Accounts,
    wanted: i64,
    is_over: Arc<AtomicBool>,
) -> Result<Audits, SqlError> {
    let mut audits = Audits::default();
    while !is_over.load(Ordering::Relaxed) && audits.wrong.is_none() {
        let total = accounts.audit().await?;
        audits.count += 1;
        audits.wrong = (total != wanted).then_some(total);
    }
    Ok(audits)
}

/// One of many who transfer.
struct Client {
    /// From 1; the auditor is 0.
    number: u32,
    accounts: Accounts,
    /// Of all clients.
    attempts: Arc<AtomicU64>,
    certificates: Option<Arc<Recorder>>,
    random: Random,
    with_sql: bool,
}

/// What a client did.
#[derive(Default)]
struct Work {
    /// Of each committed transaction.
    latencies: Vec<Duration>,
    /// Transactions that may have committed or not.
    unknown: u64,
}

impl Client {
    async fn work(mut self, until: Instant) -> Result<Work, SqlError> {
        let mut work = Work::default();
        while Instant::now() < until {
            let from = self.random.below(CARRIERS.len());
            let to = (from + 1 + self.random.below(CARRIERS.len() - 1)) % CARRIERS.len();
            let (from, to) = (CARRIERS[from], CARRIERS[to]);
            let began = Instant::now();
            let began_ns = self.certificates.as_ref().map_or(0, |recorder| recorder.now_ns());
            let moved = match &self.accounts.recorded {
                Some(recorded) => recorded.transfer(self.number, from, to, &self.attempts).await,
                None => self.transfer(from, to).await,
            };
            match moved {
                Ok((txn, receipt)) => {
                    work.latencies.push(began.elapsed());
                    self.write_down(txn, began_ns, receipt)?;
                }
                // Either way the sum must hold, so the work goes on.
                Err(error) if error.kind == ErrorKind::OutcomeUnknown => work.unknown += 1,
                Err(error) => return Err(error),
            }
        }
        Ok(work)
    }

    /// Moves one unit; which attempt did, and what it was answered.
    async fn transfer(&self, from: &str, to: &str) -> Result<(TxnId, CommitReceipt), SqlError> {
        let (attempts, with_sql) = (&self.attempts, self.with_sql);
        let moved = self.accounts.database.run(|txn| async move {
            attempts.fetch_add(1, Ordering::Relaxed);
            let id = txn.inner().id();
            if with_sql {
                move_with_sql(txn, from, to).await?;
            } else {
                move_unit(txn, from, to).await?;
            }
            Ok::<_, SqlError>(id)
        });
        moved.await
    }

    fn write_down(
        &self,
        txn: TxnId,
        began_ns: u64,
        receipt: CommitReceipt,
    ) -> Result<(), SqlError> {
        let Some(recorder) = &self.certificates else { return Ok(()) };
        let acknowledged_ns = recorder.now_ns();
        let told = Told { client: self.number, txn, began_ns, acknowledged_ns, receipt };
        let what = "the certificates cannot be written";
        let failed = |error| SqlError::new(ErrorKind::Internal, format!("{what}: {error}"));
        recorder.record(told).map_err(failed)
    }
}

/// One round of reads with the locks that the writes need, then the writes.
async fn move_unit(txn: Transaction, from: &str, to: &str) -> Result<(), SqlError> {
    let table = txn.catalog().table(TABLE)?;
    let row = |carrier: &str, balance: i64| -> Row { vec![carrier.into(), balance.into()] };
    let keys = [table.encode_key(&row(from, 0))?, table.encode_key(&row(to, 0))?];
    let values = txn.inner().get_many(&keys, LockMode::Exclusive).await?;
    for ((key, value), (carrier, change)) in keys.iter().zip(values).zip([(from, -1), (to, 1)]) {
        let stored = value.map(|value| table.decode(key, &value)).transpose()?.flatten();
        let Some(Value::Int64(balance)) = stored.and_then(|row| row.into_iter().nth(1)) else {
            let message = format!("the account of {carrier} is gone");
            return Err(SqlError::new(ErrorKind::NotFound, message));
        };
        txn.inner().put(key.clone(), table.encode_row(&row(carrier, balance + change))?);
    }
    Ok(())
}

async fn move_with_sql(txn: Transaction, from: &str, to: &str) -> Result<(), SqlError> {
    for (carrier, change) in [(from, -1_i64), (to, 1)] {
        let values = params(&[("carrier", carrier.into()), ("change", change.into())]);
        let update =
            "UPDATE bench_accounts SET balance = balance + @change WHERE carrier = @carrier";
        txn.execute(update, &values).await?;
    }
    Ok(())
}
