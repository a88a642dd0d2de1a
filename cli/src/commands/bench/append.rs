//! `meridian bench append`: lists that transactions append themselves to (as Elle does it).
//!
//! A list is a row that names all who have written it, in order: whoever reads it, sees every earlier
//! writer, and two readers must agree as far as the shorter of what they saw goes. Transactions take a
//! few lists of different groups, read them, and append to some; others only read, under locks, at
//! once, or some time ago. So each kind of anomaly would show in what was read.

use super::recording::{Draft, Recording, Seen};
use super::tally::{Tally, Totals};
use super::{Random, create, failed};
use crate::exit::Exit;
use crate::interrupt::{self, or_stopped};
use crate::target::{Opened, Target};
use ::history::file::Header;
use ::history::{Cell, Kind};
use bytes::Bytes;
use clap::{Args, value_parser};
use client::{CommitReceipt, SqlError, TimestampBound, Transaction, params};
use indicatif::{ProgressBar, ProgressStyle};
use proto::TxnId;
use proto::request::LockMode;
use serde_json::json;
use sql::catalog::Table;
use sql::{ErrorKind, Row, Value};
use std::collections::{BTreeMap, BTreeSet};
use std::io::IsTerminal;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::task::JoinSet;
use truetime::providers::real_ns;

pub const AFTER_HELP: &str = "\
A list is a row of the table `bench_lists`; rows are spread over the groups. A transaction takes one to
four lists: mostly it reads them under locks and appends to some; one in five reads them at one timestamp
without locks, up to half a second old, and one in ten reads under locks and writes nothing. A list that
has grown long is left alone, and a new one takes its place. Lists of earlier runs stay in the table.

Every transaction is written down as its client saw it. `meridian check history FILE` judges that.
Servers may die, pause and come back meanwhile: clients try again what they may, and go on.

The exit code is 1 when nothing was committed.

Examples:
  meridian bench append --data ./universe --replicas 3 --history h.jsonl
  meridian bench append --connect db1:7100 --seconds 60 --history h.jsonl && meridian check history h.jsonl
  meridian bench append --connect db1:7100 --keys 4 --clients 64 --seed 7    more of them want the same";

/// Arguments of `meridian bench append`.
#[derive(Debug, Args)]
pub struct Arguments {
    #[command(flatten)]
    target: Target,
    /// Clients at work at once.
    #[arg(long, value_name = "N", default_value = "16", value_parser = value_parser!(u16).range(1..=4096))]
    clients: u16,
    /// How long.
    #[arg(long, value_name = "S", default_value = "10", value_parser = value_parser!(u32).range(1..))]
    seconds: u32,
    /// Lists in use at once.
    #[arg(long, value_name = "N", default_value = "12", value_parser = value_parser!(u32).range(1..=10_000))]
    keys: u32,
    /// Of what clients choose [default: drawn at random, and printed].
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// Write down what every client did and saw, as JSON lines.
    #[arg(long, value_name = "FILE")]
    history: PathBuf,
    /// Print one JSON object instead of lines.
    #[arg(long)]
    json: bool,
}

const TABLE: &str = "bench_lists";
const SCHEMA: &str = "CREATE TABLE bench_lists (
  id INT64 NOT NULL,
  writers BYTES(MAX) NOT NULL,
) PRIMARY KEY (id)";
/// A list with so many writers is left alone.
const LENGTH_MAX: usize = 64;
/// Lists that one transaction takes at most.
const LISTS_MAX: usize = 4;
/// How old reads of the past are at most.
const AGO_MS_MAX: usize = 500;
/// A run may have so many lists; those of another one begin behind them.
const LISTS_OF_RUN: u64 = 1 << 24;
const BAR_EVERY: Duration = Duration::from_millis(100);

/// Runs the command.
///
/// # Errors
/// When the universe fails, nothing was committed, or Ctrl-C is pressed.
pub async fn run(arguments: Arguments) -> Result<(), Exit> {
    interrupt::take_over();
    let opened = arguments.target.open().await?;
    let bar = bar(arguments.seconds);
    let ended = append(&opened, &arguments, &bar).await;
    bar.finish_and_clear();
    opened.close();
    ended
}

async fn append(opened: &Opened, arguments: &Arguments, bar: &ProgressBar) -> Result<(), Exit> {
    let database = opened.database();
    create(&database, TABLE, SCHEMA).await.map_err(failed)?;
    let seed = arguments.seed.unwrap_or_else(real_ns);
    let header = Header { universe: opened.id(), ..Header::default() };
    let lists = Lists {
        recording: Recording::begin(database, &arguments.history, header)?,
        tally: Arc::new(Tally::begin()),
        // Whole seconds: no two runs have lists in common.
        first: real_ns() / 1_000_000_000 * LISTS_OF_RUN,
        turns: (0..arguments.keys).map(|_| AtomicU64::new(0)).collect(),
    };
    let worked = or_stopped(work(&lists, arguments, seed, bar)).await;
    let unsettled = or_stopped(lists.settle()).await?;
    worked?; // what was written down until then is complete
    bar.finish_and_clear();
    let totals = Arc::into_inner(lists.tally).map(Tally::end);
    let totals = totals.ok_or_else(|| Exit::failed("a client is still at work"))?;
    tell(&totals, arguments, seed, unsettled);
    if totals.commits() == 0 {
        return Err(Exit::Failed("nothing was committed".into()));
    }
    Ok(())
}

/// Has all clients at work until the time is over.
async fn work(
    lists: &Lists,
    arguments: &Arguments,
    seed: u64,
    bar: &ProgressBar,
) -> Result<(), Exit> {
    let began = Instant::now();
    let until = began + Duration::from_secs(u64::from(arguments.seconds));
    // Dropped, and with it all clients aborted, when this is.
    let mut clients = JoinSet::new();
    for number in 1..=u32::from(arguments.clients) {
        let random = Random(seed.wrapping_add(u64::from(number) << 32));
        clients.spawn(Client { number, lists: lists.clone(), random }.work(until));
    }
    let mut tick = tokio::time::interval(BAR_EVERY);
    loop {
        tokio::select! {
            _ = tick.tick() => bar.set_position(began.elapsed().as_secs()),
            ended = clients.join_next() => match ended {
                Some(ended) => ended.map_err(Exit::failed)?.map_err(failed)?,
                None => return Ok(()),
            },
        }
    }
}

fn tell(totals: &Totals, arguments: &Arguments, seed: u64, unsettled: usize) {
    if arguments.json {
        let mut object = totals.object();
        let more = [
            ("workload", json!("append")),
            ("clients", json!(arguments.clients)),
            ("keys", json!(arguments.keys)),
            ("seed", json!(seed)),
            ("outcomes_unsettled", json!(unsettled)),
        ];
        object.extend(more.into_iter().map(|(name, value)| (name.to_owned(), value)));
        println!("{}", serde_json::Value::from(object));
        return;
    }
    println!("clients         {}, {} lists, seed {seed}", arguments.clients, arguments.keys);
    totals.lines().iter().for_each(|line| println!("{line}"));
    println!("history         {}", arguments.history.display());
}

fn bar(seconds: u32) -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("{bar:40} {pos}/{len} s");
    let style = style.unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::new(u64::from(seconds)).with_style(style)
}

/// The lists of a run; cheap to clone.
#[derive(Clone)]
struct Lists {
    recording: Recording,
    tally: Arc<Tally>,
    /// Number of the first one.
    first: u64,
    /// For each list in use, how many had its place before.
    turns: Arc<[AtomicU64]>,
}

impl Lists {
    /// The one that has a place now.
    fn at(&self, place: usize) -> i64 {
        let turn = self.turns[place].load(Ordering::Relaxed);
        let number = turn * self.turns.len() as u64 + place as u64;
        i64::try_from(self.first + number % LISTS_OF_RUN).unwrap_or(i64::MAX)
    }

    /// A list has been seen so long: when that is enough, another one takes its place.
    fn seen(&self, id: i64, length: usize) {
        let number = (id as u64).wrapping_sub(self.first);
        let (places, place) = (self.turns.len() as u64, number % self.turns.len() as u64);
        if length >= LENGTH_MAX {
            let turn = number / places;
            self.turns[place as usize].fetch_max(turn + 1, Ordering::Relaxed);
        }
    }

    async fn settle(&self) -> Result<usize, Exit> {
        let catalog = self.recording.database().catalog().await;
        let key_of = |name: &[u8]| {
            let id: i64 = std::str::from_utf8(name).ok()?.parse().ok()?;
            catalog.table(TABLE).ok()?.encode_key(&row(id, &[])).ok()
        };
        self.recording.settle(key_of).await
    }
}

fn name(id: i64) -> Bytes {
    id.to_string().into()
}

fn row(id: i64, writers: &[u8]) -> Row {
    vec![id.into(), Value::Bytes(writers.to_vec())]
}

/// What a row holds.
fn cell(row: &[Value]) -> Result<Cell, SqlError> {
    let strange = |what: String| SqlError::new(ErrorKind::Internal, what);
    match row.get(1) {
        Some(Value::Bytes(bytes)) => {
            Cell::decode(bytes).map_err(|error| strange(format!("{row:?}: {error}")))
        }
        _ => Err(strange(format!("{row:?} is no list"))),
    }
}

/// What a transaction is to do.
struct Plan {
    ids: Vec<i64>,
    /// So many of them, from the first, are appended to.
    appended: usize,
    mode: LockMode,
}

struct Client {
    /// From 1.
    number: u32,
    lists: Lists,
    random: Random,
}

impl Client {
    async fn work(mut self, until: Instant) -> Result<(), SqlError> {
        while Instant::now() < until {
            let ids = self.choose();
            let done = match self.random.below(10) {
                0 => self.look(&ids, None).await,
                1 => {
                    // Before the table was there, nobody can look.
                    let ago = Duration::from_millis(self.random.below(AGO_MS_MAX) as u64);
                    let ago = ago.min(self.lists.tally.elapsed() / 2);
                    self.look(&ids, Some(ago)).await
                }
                kind => {
                    let appended = if kind == 2 { 0 } else { 1 + self.random.below(ids.len()) };
                    let mode = [LockMode::Shared, LockMode::Exclusive][self.random.below(2)];
                    self.append(Plan { ids, appended, mode }).await
                }
            };
            if let Err(error) = done {
                self.lists.tally.failed(error).await?;
            }
        }
        Ok(())
    }

    /// One to four lists, none of them twice.
    fn choose(&mut self) -> Vec<i64> {
        let places = self.lists.turns.len();
        let count = 1 + self.random.below(LISTS_MAX.min(places));
        let mut chosen = BTreeSet::new();
        while chosen.len() < count {
            chosen.insert(self.random.below(places));
        }
        // In any order: those that are appended to come first.
        let mut ids: Vec<i64> = chosen.into_iter().map(|place| self.lists.at(place)).collect();
        let turn = self.random.below(count);
        ids.rotate_left(turn);
        ids
    }

    /// Reads under locks, and appends.
    async fn append(&self, plan: Plan) -> Result<(), SqlError> {
        let (plan, tally) = (&plan, &self.lists.tally);
        let began = Instant::now();
        let work = |txn: Transaction, draft: Draft| async move {
            tally.attempts().fetch_add(1, Ordering::Relaxed);
            self.append_once(&txn, &draft, plan).await
        };
        let (_, _): (TxnId, CommitReceipt) = self.lists.recording.run(self.number, work).await?;
        tally.committed(began.elapsed());
        Ok(())
    }

    async fn append_once(
        &self,
        txn: &Transaction,
        draft: &Draft,
        plan: &Plan,
    ) -> Result<(), SqlError> {
        let table = txn.catalog().table(TABLE)?;
        let key = |id: &i64| table.encode_key(&row(*id, &[]));
        let keys = plan.ids.iter().map(key).collect::<Result<Vec<_>, _>>()?;
        let values = txn.inner().get_many(&keys, plan.mode).await?;
        for (place, ((id, key), value)) in plan.ids.iter().zip(&keys).zip(values).enumerate() {
            let before = value.map(|value| decoded(table, key, &value)).transpose()?.flatten();
            if place < plan.appended {
                let after = Cell::append(txn.inner().id(), before.as_ref());
                txn.inner().put(key.clone(), table.encode_row(&row(*id, &after.encode()))?);
                draft.write(name(*id), after);
            }
            self.saw(*id, before.as_ref());
            draft.read(name(*id), before);
        }
        Ok(())
    }

    /// Reads at one timestamp without locks: now, or so long ago.
    async fn look(&self, ids: &[i64], ago: Option<Duration>) -> Result<(), SqlError> {
        let recording = &self.lists.recording;
        let (began, began_ns) = (Instant::now(), recording.now_ns());
        let (kind, bound) = match ago {
            None => (Kind::Strong, TimestampBound::Strong),
            Some(ago) => (Kind::Stale, TimestampBound::ExactStaleness(ago)),
        };
        self.lists.tally.attempts().fetch_add(1, Ordering::Relaxed);
        let read = recording.database().read_only(bound).await?;
        let mut reads: BTreeMap<Bytes, Option<Cell>> =
            ids.iter().map(|id| (name(*id), None)).collect();
        let wanted: Vec<String> = ids.iter().map(ToString::to_string).collect();
        let all = format!("SELECT id, writers FROM {TABLE} WHERE id IN ({})", wanted.join(", "));
        for row in read.query(&all, &params(&[])).await?.collect().await? {
            if let Some(Value::Int64(id)) = row.first() {
                let cell = cell(&row)?;
                self.saw(*id, Some(&cell));
                reads.insert(name(*id), Some(cell));
            }
        }
        let at = read.timestamp();
        recording.saw(self.number, Seen { kind, began_ns, at, reads })?;
        self.lists.tally.committed(began.elapsed());
        Ok(())
    }

    fn saw(&self, id: i64, cell: Option<&Cell>) {
        let length = cell.and_then(Cell::as_list).map_or(0, <[_]>::len);
        self.lists.seen(id, length);
    }
}

fn decoded(table: &Table, key: &proto::Key, value: &Bytes) -> Result<Option<Cell>, SqlError> {
    table.decode(key, value)?.as_deref().map(cell).transpose()
}
