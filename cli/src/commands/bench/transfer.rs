//! `meridian bench transfer`: transactions over two groups, and an auditor.

use super::recorded::Recorded;
use super::tally::{Tally, Totals, passed, patiently};
use super::{Random, create, failed};
use crate::certificates::{Recorder, Told};
use crate::clock::Faults;
use crate::clock::fault::{self, Fault};
use crate::exit::Exit;
use crate::interrupt::{self, or_stopped};
use crate::target::{Counts, Opened, Target};
use clap::Args;
use client::{
    CommitReceipt, Database, Mutation, MutationKind, TimestampBound, Transaction, Universe, params,
};
use history::certificates::Header;
use proto::TxnId;
use proto::request::LockMode;
use serde_json::json;
use sql::{ErrorKind, Row, SqlError, Value};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
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

Servers may die, pause and come back meanwhile: clients try again what they may, and go on. `failures`
counts the transactions that were not committed in time, by what their clients were told; `longest
stall` is the longest time in which no client at all committed.

The exit code is 1 when a sum was seen that differs from the first, or nothing was committed.

Examples:
  meridian bench transfer --data ./universe --replicas 3
  meridian bench transfer --data ./universe --clients 64 --seconds 30
  meridian bench transfer --data ./universe --sql        the same through SQL statements
  meridian bench transfer --data ./universe --history h.jsonl && meridian check history h.jsonl
  meridian bench transfer --connect db1:7100,db2:7100 --seconds 60 --json    servers elsewhere
  meridian bench transfer --data ./wrong --replicas 3 --history h.jsonl \\
    --clock n2=simulated:epsilon=5ms,drift=2000,evict=off     with a clock that is wrong
  meridian bench transfer --data ./wrong --replicas 3 --seconds 20 --clock simulated:epsilon=5ms \\
    --allow-clock-faults --fault '5s n2 drift=2000' --fault '12s n2 honest'";

/// Arguments of `meridian bench transfer`.
#[derive(Debug, Args)]
pub struct Arguments {
    #[command(flatten)]
    target: Target,
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
    /// Print one JSON object instead of lines.
    #[arg(long)]
    json: bool,
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
    arguments.faults.check(arguments.target.is_remote())?;
    interrupt::take_over();
    let builder = Universe::builder().allow_clock_faults(arguments.faults.allow_clock_faults);
    let opened = arguments.target.open_with(builder).await?;
    let result = transfer(&opened, &arguments).await;
    opened.close();
    result
}

async fn transfer(opened: &Opened, arguments: &Arguments) -> Result<(), Exit> {
    let setting = or_stopped(prepare(opened, arguments)).await?;
    let tally = Arc::new(Tally::begin());
    let is_over = Arc::new(AtomicBool::new(false));
    let faults = tokio::spawn(make_faults(arguments.fault.clone(), opened));
    let accounts = setting.accounts.clone();
    let auditor = tokio::spawn(watch(accounts, setting.wanted, is_over.clone()));
    let worked = work(arguments, &setting, &tally).await;
    is_over.store(true, Ordering::Relaxed);
    let audits = or_stopped(async { auditor.await.map_err(Exit::failed)?.map_err(failed) }).await?;
    if faults.is_finished() {
        faults.await.map_err(Exit::failed)??;
    } else {
        faults.abort(); // what was to come later than the end
    }
    // The clients have ended, and with them all other owners.
    let totals = Arc::into_inner(tally).map(Tally::end);
    let totals = totals.ok_or_else(|| Exit::failed("a client is still at work"))?;
    let report = or_stopped(finish(opened, setting, audits, totals)).await?;
    worked?; // what was written down until then is complete
    if arguments.json {
        println!("{}", report.object(arguments));
    } else {
        report.tell(arguments, opened).await;
    }
    match report.wrong {
        Some(_) => Err(Exit::Failed("the sum of all accounts changed".into())),
        None if report.totals.commits() == 0 => Err(Exit::Failed("nothing was committed".into())),
        None => Ok(()),
    }
}

/// What clients find when they begin.
struct Setting {
    accounts: Accounts,
    certificates: Option<Arc<Recorder>>,
    /// What all accounts add up to.
    wanted: i64,
    before: Counts,
}

async fn prepare(opened: &Opened, arguments: &Arguments) -> Result<Setting, Exit> {
    let recorded = match &arguments.history {
        Some(file) => Some(Recorded::begin(opened, file, &CARRIERS, OPENING_BALANCE).await?),
        None => None,
    };
    let certificates = certificates(opened, arguments)?;
    let accounts = Accounts { database: opened.database(), recorded };
    patiently(async || accounts.prepare().await).await.map_err(failed)?;
    let wanted = patiently(async || accounts.audit().await).await.map_err(failed)?;
    Ok(Setting { accounts, certificates, wanted, before: opened.counts().await })
}

/// Adds up once more, and completes the files.
async fn finish(
    opened: &Opened,
    setting: Setting,
    audits: Audits,
    totals: Totals,
) -> Result<Report, Exit> {
    let Setting { accounts, certificates, wanted, before } = setting;
    let after = opened.counts().await;
    let last = patiently(async || accounts.audit().await).await.map_err(failed)?;
    let unsettled = match &accounts.recorded {
        Some(recorded) => recorded.settle().await?,
        None => 0,
    };
    if let Some(certificates) = &certificates {
        certificates.finish().map_err(Exit::failed)?;
    }
    let wrong = audits.wrong.or((last != wanted).then_some(last));
    Ok(Report { totals, before, after, audits: audits.count, wanted, wrong, unsettled })
}

/// Changes of clocks while clients are at work; only those of this process are changed here.
fn make_faults(
    faults: Vec<Fault>,
    opened: &Opened,
) -> impl Future<Output = Result<(), Exit>> + use<> {
    let clocks = match opened {
        Opened::Folder(universe) => Some(universe.clock_handle()),
        Opened::Servers(_) => None,
    };
    async move {
        match clocks {
            Some(clocks) => fault::make(faults, clocks).await,
            None => Ok(()), // --fault wants --allow-clock-faults, which is refused then
        }
    }
}

/// Has all clients at work until the time is over.
async fn work(arguments: &Arguments, setting: &Setting, tally: &Arc<Tally>) -> Result<(), Exit> {
    let until = Instant::now() + Duration::from_secs(u64::from(arguments.seconds));
    // Dropped, and with it all clients aborted, when this is.
    let mut clients = tokio::task::JoinSet::new();
    for number in 0..arguments.clients {
        let client = Client {
            number: u32::from(number) + 1,
            accounts: setting.accounts.clone(),
            tally: tally.clone(),
            certificates: setting.certificates.clone(),
            random: Random(u64::from(number) + 1),
            with_sql: arguments.sql,
        };
        clients.spawn(client.work(until));
    }
    let all = async {
        while let Some(ended) = clients.join_next().await {
            ended.map_err(Exit::failed)?.map_err(failed)?;
        }
        Ok(())
    };
    let ended = or_stopped(all).await;
    clients.shutdown().await;
    ended
}

/// All that there is to tell.
struct Report {
    totals: Totals,
    before: Counts,
    after: Counts,
    audits: u64,
    wanted: i64,
    /// A sum that was not the first.
    wrong: Option<i64>,
    /// Outcomes that nobody knows, asked for in the end.
    unsettled: usize,
}

impl Report {
    /// `None`: not all servers have told, or one has started anew.
    fn syncs(&self) -> Option<u64> {
        self.after.syncs?.checked_sub(self.before.syncs?)
    }

    async fn tell(&self, arguments: &Arguments, opened: &Opened) {
        let with_sql = if arguments.sql { ", with SQL" } else { "" };
        println!("universe        {} replicas, {} groups", self.after.replicas, self.after.groups);
        println!("clients         {}{with_sql}", arguments.clients);
        self.totals.lines().iter().for_each(|line| println!("{line}"));
        if let Some(syncs) = self.syncs() {
            let each = syncs as f64 / self.totals.commits().max(1) as f64;
            println!("disk            {syncs} syncs ({each:.2} per commit, all replicas together)");
        }
        println!("audits          {} read-only transactions", self.audits);
        if arguments.target.clocks.is_given() {
            for (place, line) in opened.clock_lines().await.iter().enumerate() {
                println!("{:<16}{line}", if place == 0 { "clocks" } else { "" });
            }
        }
        if let Some(file) = &arguments.history {
            println!("history         {}", file.display());
        }
        if let Some(file) = &arguments.certificates {
            println!("certificates    {}", file.display());
        }
        match self.wrong {
            None => println!("sum constant    yes, {} every time", self.wanted),
            Some(seen) => println!("sum constant    NO: {seen} instead of {}", self.wanted),
        }
    }

    fn object(&self, arguments: &Arguments) -> serde_json::Value {
        let mut object = self.totals.object();
        let more = [
            ("workload", json!("transfer")),
            ("clients", json!(arguments.clients)),
            ("replicas", json!(self.after.replicas)),
            ("groups", json!(self.after.groups)),
            ("syncs", json!(self.syncs())),
            ("audits", json!(self.audits)),
            ("sum", json!(self.wanted)),
            ("sum_wrong", json!(self.wrong)),
            ("outcomes_unsettled", json!(self.unsettled)),
        ];
        object.extend(more.into_iter().map(|(name, value)| (name.to_owned(), value)));
        object.into()
    }
}

/// Begins the file of certificates, where one is wanted.
fn certificates(opened: &Opened, arguments: &Arguments) -> Result<Option<Arc<Recorder>>, Exit> {
    let Some(file) = &arguments.certificates else { return Ok(None) };
    let (universe, key) = (opened.id(), opened.key_fingerprint());
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
            None => open_accounts(&self.database).await,
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
async fn open_accounts(database: &Arc<Database>) -> Result<(), SqlError> {
    create(database, TABLE, SCHEMA).await?;
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
        match accounts.audit().await {
            Ok(total) => {
                audits.count += 1;
                audits.wrong = (total != wanted).then_some(total);
            }
            Err(error) => passed(error).await?,
        }
    }
    Ok(audits)
}

/// One of many who transfer.
struct Client {
    /// From 1; the auditor is 0.
    number: u32,
    accounts: Accounts,
    tally: Arc<Tally>,
    certificates: Option<Arc<Recorder>>,
    random: Random,
    with_sql: bool,
}

impl Client {
    async fn work(mut self, until: Instant) -> Result<(), SqlError> {
        while Instant::now() < until {
            let from = self.random.below(CARRIERS.len());
            let to = (from + 1 + self.random.below(CARRIERS.len() - 1)) % CARRIERS.len();
            let (from, to) = (CARRIERS[from], CARRIERS[to]);
            let began = Instant::now();
            let began_ns = self.certificates.as_ref().map_or(0, |recorder| recorder.now_ns());
            let attempts = self.tally.attempts();
            let moved = match &self.accounts.recorded {
                Some(recorded) => recorded.transfer(self.number, from, to, attempts).await,
                None => self.transfer(from, to).await,
            };
            match moved {
                Ok((txn, receipt)) => {
                    self.tally.committed(began.elapsed());
                    self.write_down(txn, began_ns, receipt)?;
                }
                // Whatever became of it, the sum must hold, so the work goes on.
                Err(error) => self.tally.failed(error).await?,
            }
        }
        Ok(())
    }

    /// Moves one unit; which attempt did, and what it was answered.
    async fn transfer(&self, from: &str, to: &str) -> Result<(TxnId, CommitReceipt), SqlError> {
        let (attempts, with_sql) = (self.tally.attempts(), self.with_sql);
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
