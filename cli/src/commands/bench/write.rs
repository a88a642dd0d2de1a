//! `meridian bench write`: transactions of one row, and what each costs the disk.

use super::disk::{Syncs, TemporaryFolder};
use super::{Random, create, failed, millis, percentile};
use crate::clock::Clocks;
use crate::data::refused;
use crate::exit::Exit;
use crate::interrupt::{self, ctrl_c};
use crate::target::{Counts, Opened, Tls, connect};
use clap::{Args, value_parser};
use client::{Database, Mutation, MutationKind, SqlError, TimestampBound, Universe, Value, params};
use indicatif::{ProgressBar, ProgressStyle};
use sql::ErrorKind;
use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::task::JoinSet;
use truetime::providers::real_ns;

pub const AFTER_HELP: &str = "\
A new universe is made in a temporary folder and removed at the end, also after Ctrl-C; or, with
--connect, rows are written to servers that run, and stay there. Each writer
commits one row after the other, each under a key of its own and in a transaction of its own; a row
lives in one group, so there is no two-phase commit. Values are random bytes: compressing them wins
nothing. Before the writers begin, the folder's disk is measured by itself: appends of 4 KiB, each
followed by fdatasync, to one file and to as many at once as there are replicas.

Columns:
  p50, p99        from the call to the acknowledged commit, commit wait included
  syncs/commit    disk syncs of the log, of all replicas together, and of one on average
  written         bytes that RocksDB wrote (log, memory tables that became files, compaction) for
                  each byte of a row's key and value: write amplification, of all replicas together,
                  and of one on average; servers elsewhere do not tell (-)

The exit code is 1 when the rows found at the end are not those that were acknowledged.

Examples:
  meridian bench write                                   1, 16 and 64 writers, five seconds each
  meridian bench write --replicas 3 --seconds 20         steadier figures, with replication
  meridian bench write --writers 256 --value-bytes 1000  many writers, larger rows
  meridian bench write --folder /mnt/nvme                on another disk
  meridian bench write --connect db1:7100,db2:7100       servers elsewhere";

/// Arguments of `meridian bench write`.
#[derive(Debug, Args)]
pub struct Arguments {
    /// Writers at work at once: one number, or several to measure one after the other.
    #[arg(long, value_name = "N,N", default_value = "1,16,64", value_delimiter = ',',
          value_parser = value_parser!(u16).range(1..=4096))]
    writers: Vec<u16>,
    /// How long each number of writers works.
    #[arg(long, value_name = "S", default_value = "5", value_parser = value_parser!(u32).range(1..))]
    seconds: u32,
    /// Replicas of every group, all in this process: 1 or 3.
    #[arg(long, value_name = "N", default_value = "1", conflicts_with = "connect")]
    replicas: u32,
    /// Servers of a universe to write to, instead of one of its own; one that answers is enough.
    #[arg(long, value_name = "HOST:PORT,…", value_delimiter = ',')]
    connect: Vec<String>,
    #[command(flatten)]
    tls: Tls,
    #[command(flatten)]
    clocks: Clocks,
    /// Bytes of each row's value, besides the eight of its key.
    #[arg(long, value_name = "N", default_value = "100",
          value_parser = value_parser!(u32).range(0..=1_000_000))]
    value_bytes: u32,
    /// Where the temporary folder is made [default: the system's folder for such].
    #[arg(long, value_name = "DIR", conflicts_with = "connect")]
    folder: Option<PathBuf>,
}

const TABLE: &str = "bench_rows";
const SCHEMA: &str = "CREATE TABLE bench_rows (
  id INT64 NOT NULL,
  value BYTES(MAX) NOT NULL,
) PRIMARY KEY (id)";
const KEY_BYTES: u64 = 8;
/// A run may write so many; those of another one begin behind them.
const ROWS_OF_RUN: u64 = 1 << 28;
/// Written first and not measured, so that every group has a leader.
const WARMING_UP: u64 = 64;
const BAR_EVERY: Duration = Duration::from_millis(100);

/// Runs the command.
///
/// # Errors
/// When the disk or the universe fails, or rows are missing, or Ctrl-C is pressed.
pub async fn run(arguments: Arguments) -> Result<(), Exit> {
    if arguments.replicas != 1 && arguments.replicas != 3 {
        return Err(Exit::Usage(format!("--replicas {}: choose 1 or 3", arguments.replicas)));
    }
    interrupt::take_over();
    let mut stopped = tokio::spawn(ctrl_c());
    let (opened, _folder) = open(&arguments).await?;
    let bar = bar(&arguments);
    let ended = tokio::select! {
        ended = measure(&opened, &arguments, &bar) => ended,
        _ = &mut stopped => Err(Exit::Interrupted("stopped".into())),
    };
    bar.finish_and_clear();
    opened.close();
    ended
}

/// A universe in a temporary folder, on a disk that is measured first; or servers elsewhere.
async fn open(arguments: &Arguments) -> Result<(Opened, Option<TemporaryFolder>), Exit> {
    if !arguments.connect.is_empty() {
        let opened = connect(&arguments.connect, &arguments.tls, &arguments.clocks).await?;
        return Ok((opened, None));
    }
    arguments.tls.refuse()?;
    let parent = arguments.folder.clone().unwrap_or_else(std::env::temp_dir);
    let folder = TemporaryFolder::inside(&parent)
        .map_err(|error| Exit::failed(format!("{}: {error}", parent.display())))?;
    tell_disk(folder.path(), arguments.replicas).await?;
    let builder = arguments.clocks.apply(Universe::builder().replicas(arguments.replicas))?;
    let universe = builder.open(folder.path().join("universe")).await.map_err(refused)?;
    Ok((Opened::Folder(Box::new(universe)), Some(folder)))
}

async fn tell_disk(folder: &Path, replicas: u32) -> Result<(), Exit> {
    let mut files = vec![1, replicas];
    files.dedup();
    println!("disk            {}: append 4 KiB, fdatasync", folder.display());
    for files in files {
        let folder = folder.to_owned();
        let measured = tokio::task::spawn_blocking(move || Syncs::measure(&folder, files));
        let syncs = measured.await.map_err(Exit::failed)?.map_err(Exit::failed)?;
        let what = if files == 1 { "one file".to_owned() } else { format!("{files} at once") };
        println!("  {what:<14}{}", syncs.describe());
    }
    Ok(())
}

async fn measure(opened: &Opened, arguments: &Arguments, bar: &ProgressBar) -> Result<(), Exit> {
    let database = opened.database();
    create(&database, TABLE, SCHEMA).await.map_err(failed)?;
    // Whole seconds: no two runs have rows in common.
    let first = real_ns() / 1_000_000_000 * ROWS_OF_RUN;
    let rows = Rows {
        database: database.clone(),
        next: Arc::new(AtomicU64::new(first)),
        value_bytes: arguments.value_bytes as usize,
    };
    let mut random = Random(0);
    for _ in 0..WARMING_UP {
        rows.write(&mut random).await.map_err(failed)?;
    }
    let counts = opened.counts().await;
    let row_bytes = KEY_BYTES + u64::from(arguments.value_bytes);
    println!("universe        replicas: {}, groups: {}", counts.replicas, counts.groups);
    println!("rows            {row_bytes} bytes: a key of 8, a value of {}", arguments.value_bytes);
    println!();
    println!("{HEADER}");
    let (mut acknowledged, mut unknown) = (WARMING_UP, 0);
    for writers in &arguments.writers {
        bar.set_message(format!("{writers} writers"));
        let before = opened.counts().await;
        let began = Instant::now();
        let work = write_for(&rows, *writers, arguments.seconds, bar).await?;
        let cost = Cost::of(&before, &opened.counts().await, work.commits() * row_bytes);
        bar.suspend(|| println!("{}", line(*writers, &work, began.elapsed(), &cost)));
        acknowledged += work.commits();
        unknown += work.unknown;
    }
    bar.finish_and_clear();
    let found = count(&database, first).await.map_err(failed)?;
    let verdict =
        if (acknowledged..=acknowledged + unknown).contains(&found) { "yes" } else { "NO" };
    println!();
    println!("rows intact     {verdict}, {found} found, {acknowledged} acknowledged");
    if unknown > 0 {
        println!("                {unknown} outcomes unknown");
    }
    match verdict {
        "yes" => Ok(()),
        _ => Err(Exit::Failed("the rows found are not those that were acknowledged".into())),
    }
}

/// Bounds of a row, and how the next one is named.
#[derive(Clone)]
struct Rows {
    database: Arc<Database>,
    next: Arc<AtomicU64>,
    value_bytes: usize,
}

impl Rows {
    /// Commits one more.
    async fn write(&self, random: &mut Random) -> Result<(), SqlError> {
        let id = self.next.fetch_add(1, Ordering::Relaxed) as i64;
        let row = vec![id.into(), random.bytes(self.value_bytes).into()];
        let kind = MutationKind::InsertOrUpdate;
        let mutation = Mutation::new(kind, TABLE, &["id", "value"], row);
        self.database.apply(vec![mutation]).await.map(|_| ())
    }
}

/// What writers did.
#[derive(Default)]
struct Work {
    /// Of each committed transaction.
    latencies: Vec<Duration>,
    /// Transactions that may have committed or not.
    unknown: u64,
}

impl Work {
    fn commits(&self) -> u64 {
        self.latencies.len() as u64
    }
}

/// So many writers at once, so long.
async fn write_for(
    rows: &Rows,
    writers: u16,
    seconds: u32,
    bar: &ProgressBar,
) -> Result<Work, Exit> {
    let until = Instant::now() + Duration::from_secs(u64::from(seconds));
    // Dropped, and with it all writers aborted, when this is.
    let mut tasks = JoinSet::new();
    for number in 0..writers {
        tasks.spawn(write_until(rows.clone(), u64::from(number) + 1, until));
    }
    let mut all = Work::default();
    let mut tick = tokio::time::interval(BAR_EVERY);
    let done = bar.position();
    let began = Instant::now();
    loop {
        tokio::select! {
            _ = tick.tick() => bar.set_position(done + began.elapsed().as_secs()),
            ended = tasks.join_next() => {
                let Some(ended) = ended else { break };
                let work = ended.map_err(Exit::failed)?.map_err(failed)?;
                all.latencies.extend(work.latencies);
                all.unknown += work.unknown;
            }
        }
    }
    bar.set_position(done + u64::from(seconds));
    all.latencies.sort_unstable();
    Ok(all)
}

async fn write_until(rows: Rows, seed: u64, until: Instant) -> Result<Work, SqlError> {
    let mut random = Random(seed);
    let mut work = Work::default();
    while Instant::now() < until {
        let began = Instant::now();
        match rows.write(&mut random).await {
            Ok(()) => work.latencies.push(began.elapsed()),
            Err(error) if error.kind == ErrorKind::OutcomeUnknown => work.unknown += 1,
            Err(error) => return Err(error),
        }
    }
    Ok(work)
}

/// What writing cost the disks of all replicas together.
struct Cost {
    replicas: u32,
    syncs: Option<u64>,
    /// Bytes written for each byte of a row.
    written: Option<f64>,
}

impl Cost {
    fn of(before: &Counts, after: &Counts, user_bytes: u64) -> Cost {
        // A server that has started anew counts anew.
        let more = |before: Option<u64>, after: Option<u64>| after?.checked_sub(before?);
        let written = more(before.bytes_written, after.bytes_written);
        Cost {
            replicas: after.replicas,
            syncs: more(before.syncs, after.syncs),
            written: written.map(|bytes| bytes as f64 / user_bytes.max(1) as f64),
        }
    }
}

/// Two lines; see `--help`.
const HEADER: &str = concat!(
    "                                        syncs/commit  written per byte\n",
    "writers  commits/s   p50 ms   p99 ms      all     each      all     each"
);

fn line(writers: u16, work: &Work, took: Duration, cost: &Cost) -> String {
    let per_second = work.commits() as f64 / took.as_secs_f64();
    let syncs = cost.syncs.map(|syncs| syncs as f64 / work.commits().max(1) as f64);
    let replicas = f64::from(cost.replicas);
    let cell = |value: Option<f64>, decimals: usize| {
        value.map_or_else(|| "-".to_owned(), |value| format!("{value:.decimals$}"))
    };
    let at = |share| millis(percentile(&work.latencies, share));
    format!(
        "{writers:>7} {per_second:>10.0} {:>8.2} {:>8.2} {:>8} {:>8} {:>8} {:>8}",
        at(0.50),
        at(0.99),
        cell(syncs, 2),
        cell(syncs.map(|syncs| syncs / replicas), 2),
        cell(cost.written, 1),
        cell(cost.written.map(|written| written / replicas), 1),
    )
}

/// The rows of this run, after all that was acknowledged.
async fn count(database: &Database, first: u64) -> Result<u64, SqlError> {
    let read = database.read_only(TimestampBound::Strong).await?;
    let all = "SELECT COUNT(*) AS n FROM bench_rows WHERE id >= @first AND id < @end";
    let ends = [("first", (first as i64).into()), ("end", ((first + ROWS_OF_RUN) as i64).into())];
    let rows = read.query(all, &params(&ends)).await?;
    match rows.collect().await?.first().and_then(|row| row.first()) {
        Some(Value::Int64(n)) => Ok(*n as u64),
        other => Err(SqlError::new(ErrorKind::Internal, format!("the count is {other:?}"))),
    }
}

fn bar(arguments: &Arguments) -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let seconds = u64::from(arguments.seconds) * arguments.writers.len() as u64;
    let style = ProgressStyle::with_template("{bar:40} {pos}/{len} s, {msg}");
    ProgressBar::new(seconds).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        arguments: Arguments,
    }

    fn parse(line: &str) -> Result<Arguments, clap::Error> {
        let words = std::iter::once("write").chain(line.split_whitespace());
        Line::try_parse_from(words).map(|line| line.arguments)
    }

    #[test]
    fn writers_are_a_list() {
        assert_eq!(parse("").map(|a| a.writers).ok(), Some(vec![1, 16, 64]));
        assert_eq!(parse("--writers 8,2").map(|a| a.writers).ok(), Some(vec![8, 2]));
        for wrong in ["0", "1,,2", "4097", "many"] {
            assert!(parse(&format!("--writers {wrong}")).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_line_stands_below_its_header() {
        let work = Work { latencies: vec![Duration::from_millis(2); 500], unknown: 0 };
        let stats = |syncs, bytes| Counts {
            replicas: 3,
            syncs: Some(syncs),
            bytes_written: Some(bytes),
            ..Counts::default()
        };
        let cost = Cost::of(&stats(10, 1_000), &stats(1_510, 541_000), 500 * 108);
        let line = super::line(1, &work, Duration::from_secs(1), &cost);
        let words: Vec<&str> = line.split_whitespace().collect();
        assert_eq!(words, ["1", "500", "2.00", "2.00", "3.00", "1.00", "10.0", "3.3"]);
        assert_eq!(Some(line.len()), HEADER.lines().last().map(str::len));
        let remote = Counts { bytes_written: None, ..stats(1_510, 0) };
        let cost = Cost::of(&stats(10, 0), &remote, 500 * 108);
        assert!(
            super::line(1, &work, Duration::from_secs(1), &cost)
                .ends_with("1.00        -        -")
        );
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_short_run_finds_its_rows_and_leaves_nothing() {
        let parent = std::env::temp_dir();
        let mine = parent.join(format!("meridian-bench-{}", std::process::id()));
        let words = format!("--writers 2 --seconds 1 --folder {}", parent.display());
        let arguments = parse(&words).expect("a valid command line");
        run(arguments).await.expect("every row is found");
        assert!(!mine.exists());
    }
}
