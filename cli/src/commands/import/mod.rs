//! `meridian import`: a CSV file into a table.
//!
//! ```text
//!  a thread: file ─► rows ─► batches ──(bounded)──► transactions, some at once ─► in order: report
//! ```
//!
//! Each batch is one transaction of `InsertOrUpdate`, so an import that was stopped anywhere can
//! be run again. Several batches are under way at once; what is reported is always a prefix of the
//! file, for batches are waited for in their order.

mod file;

use crate::exit::Exit;
use crate::interrupt;
use crate::target;
use clap::Args;
use client::Database;
use file::{CsvFile, Progress, Target};
use futures::StreamExt;
use futures::stream::FuturesOrdered;
use indicatif::{ProgressBar, ProgressStyle};
use sql::{ErrorKind, Mutation, MutationKind, Row, SqlError};
use std::io::{self, IsTerminal, Write};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::mpsc;
use tokio::task::JoinError;

const AFTER_HELP: &str = "\
The first line of the file names the columns, in any order and case; a column of the table that may
be NULL may be missing. Gzipped files are unpacked on the way. Values are read strictly: what is not
a value of the column's type stops the import, with the line and the column.

Every batch is one transaction that inserts rows or replaces those with the same key, so an import
that was stopped (by an error, by Ctrl-C, by a power cut) can be run again as it is.

Examples:
  meridian import --data ./universe --table airlines airlines.csv
  meridian import --data ./universe --table flights --null NA flights.csv.gz
  meridian import --connect db1:7100,db2:7100 --table flights --null NA flights.csv.gz
  meridian import --data ./universe --table flights --null NA --batch 5000 --stats flights.csv.gz";

/// Arguments of `meridian import`.
#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP)]
pub struct Arguments {
    #[command(flatten)]
    target: target::Target,
    /// The table to write to.
    #[arg(long, value_name = "NAME")]
    table: String,
    /// The cell that stands for NULL; without it an empty cell does.
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    null: String,
    /// Rows of one transaction.
    #[arg(long, value_name = "ROWS", default_value = "1000", value_parser = clap::value_parser!(u32).range(1..=20_000))]
    batch: u32,
    /// Print `committed ROWS` after every batch: so many rows from the beginning of the file are
    /// committed, for good.
    #[arg(long)]
    report_batches: bool,
    /// Print the memory this process needed at most.
    #[arg(long)]
    stats: bool,
    /// The file, plain or gzipped.
    #[arg(value_name = "FILE")]
    file: PathBuf,
}

/// Batches under way at once.
const BATCHES_AT_ONCE: usize = 6;
/// Batches read ahead of those.
const BATCHES_AHEAD: usize = 2;
/// How often a batch is tried: it may be written twice without harm.
const ATTEMPTS_MAX: u32 = 5;
/// How often somebody without a terminal hears of the progress.
const REPORT_EVERY: Duration = Duration::from_secs(5);

/// Runs the command.
///
/// # Errors
/// When the file does not fit the table, or a batch is refused; rows before it are committed.
pub async fn run(arguments: Arguments) -> Result<(), Exit> {
    let opened = arguments.target.open_existing().await?;
    let result = import(&opened.database(), &arguments).await;
    opened.close();
    result
}

async fn import(database: &Arc<Database>, arguments: &Arguments) -> Result<(), Exit> {
    let targets = targets(database, &arguments.table).await?;
    let null = arguments.null.clone();
    let (file, progress) = CsvFile::open(&arguments.file, &arguments.table, &targets, null)?;
    let began = Instant::now();
    let columns = file.columns();
    let writer = Writer { database: database.clone(), table: arguments.table.clone(), columns };
    let mut report = Report::new(progress, arguments.report_batches);
    let ended = write_all(writer, read_ahead(file, arguments.batch as usize), &mut report).await;
    let committed = report.committed;
    report.end();
    let so_far = format!("{committed} rows were committed before");
    match ended {
        Ended::AtEnd => {}
        Ended::Stopped => {
            return Err(Exit::Interrupted(format!(
                "stopped; {committed} rows are committed, the same command run again continues"
            )));
        }
        Ended::BadRow(message) => return Err(Exit::failed(format!("{message}\n{so_far}"))),
        Ended::Refused { from, to, error } => {
            let path = arguments.file.display();
            let hint = error.hint.map_or(String::new(), |hint| format!("\nHint: {hint}"));
            let message = error.message;
            return Err(Exit::failed(format!(
                "{path}, rows {from} to {to}: {message}{hint}\n{so_far}; of those behind, up to \
                 {} batches may be",
                BATCHES_AT_ONCE - 1
            )));
        }
    }
    let seconds = began.elapsed().as_secs_f64();
    let rate = committed as f64 / seconds.max(1e-6);
    let table = &arguments.table;
    println!("imported {committed} rows into {table} in {seconds:.1} s ({rate:.0} rows/s)");
    if arguments.stats {
        println!("peak memory {}", peak_memory().unwrap_or_else(|| "unknown".into()));
    }
    Ok(())
}

/// How the writing of a file ended.
enum Ended {
    /// Everything is committed.
    AtEnd,
    /// Ctrl-C.
    Stopped,
    /// A row of the file is none; everything before its batch is committed.
    BadRow(String),
    /// The database refused a batch, of these rows of the file, from 1.
    Refused { from: u64, to: u64, error: SqlError },
}

/// Rows to commit together, or why there are none.
type Batch = Result<Vec<Row>, String>;

/// Reads batches on a thread of its own, a few ahead.
fn read_ahead(mut file: CsvFile, rows_max: usize) -> mpsc::Receiver<Batch> {
    let (sender, batches) = mpsc::channel(BATCHES_AHEAD);
    std::thread::spawn(move || {
        let mut rows = Vec::with_capacity(rows_max);
        loop {
            match file.row() {
                Ok(Some(row)) => rows.push(row),
                Ok(None) => break,
                // The rows before it are not written either: a batch is whole or not at all.
                Err(message) => return drop(sender.blocking_send(Err(message))),
            }
            if rows.len() == rows_max {
                let full = std::mem::replace(&mut rows, Vec::with_capacity(rows_max));
                if sender.blocking_send(Ok(full)).is_err() {
                    return;
                }
            }
        }
        if !rows.is_empty() {
            drop(sender.blocking_send(Ok(rows)));
        }
    });
    batches
}

/// Writes batches, several at once, and reports them in the order of the file.
async fn write_all(
    writer: Writer,
    mut batches: mpsc::Receiver<Batch>,
    report: &mut Report,
) -> Ended {
    let mut under_way = FuturesOrdered::new();
    let mut ended: Option<Ended> = None;
    let mut tick = tokio::time::interval(REPORT_EVERY);
    let ctrl_c = interrupt::ctrl_c();
    tokio::pin!(ctrl_c);
    loop {
        if ended.is_some() && under_way.is_empty() {
            break;
        }
        let may_begin = ended.is_none() && under_way.len() < BATCHES_AT_ONCE;
        tokio::select! {
            _ = &mut ctrl_c, if ended.is_none() => ended = Some(Ended::Stopped),
            _ = tick.tick() => report.tell(),
            Some((rows, result)) = under_way.next(), if !under_way.is_empty() => match result {
                // Behind a refused batch nothing counts: it would not be a prefix.
                Ok(()) if !matches!(ended, Some(Ended::Refused { .. })) => report.add(rows),
                Ok(()) => {}
                Err(error) if !matches!(ended, Some(Ended::Refused { .. })) => {
                    let (from, to) = (report.committed + 1, report.committed + rows);
                    ended = Some(Ended::Refused { from, to, error });
                }
                Err(_) => {}
            },
            batch = batches.recv(), if may_begin => match batch {
                Some(Ok(rows)) => {
                    let count = rows.len() as u64;
                    let commit = tokio::spawn(writer.clone().write(rows));
                    under_way.push_back(async move { (count, joined(commit.await)) });
                }
                Some(Err(message)) => ended = Some(Ended::BadRow(message)),
                None => ended = Some(Ended::AtEnd),
            },
        }
    }
    ended.unwrap_or(Ended::AtEnd)
}

fn joined(result: Result<Result<(), SqlError>, JoinError>) -> Result<(), SqlError> {
    result.unwrap_or_else(|error| Err(SqlError::new(ErrorKind::Internal, error.to_string())))
}

/// Turns rows into transactions.
#[derive(Clone)]
struct Writer {
    database: Arc<Database>,
    table: String,
    columns: Vec<String>,
}

impl Writer {
    async fn write(self, rows: Vec<Row>) -> Result<(), SqlError> {
        let columns: Vec<&str> = self.columns.iter().map(String::as_str).collect();
        let change = |row| Mutation::new(MutationKind::InsertOrUpdate, &self.table, &columns, row);
        let mutations: Vec<Mutation> = rows.into_iter().map(change).collect();
        let mut attempt = 1;
        loop {
            let error = match self.database.apply(mutations.clone()).await {
                Ok(_) => return Ok(()),
                Err(error) => error,
            };
            // Writing it twice leaves the same rows, so an unknown outcome may be tried again too.
            let is_passing = matches!(
                error.kind,
                ErrorKind::Aborted
                    | ErrorKind::OutcomeUnknown
                    | ErrorKind::Unavailable
                    | ErrorKind::DeadlineExceeded
            );
            if !is_passing || attempt == ATTEMPTS_MAX {
                return Err(error);
            }
            attempt += 1;
        }
    }
}

/// Tells of the progress.
struct Report {
    /// Rows from the beginning of the file that are committed.
    committed: u64,
    progress: Progress,
    /// `None`: nobody is looking, lines are written now and then.
    bar: Option<ProgressBar>,
    each_batch: bool,
    told: u64,
}

impl Report {
    fn new(progress: Progress, each_batch: bool) -> Report {
        let template = "{bar:40} {percent}% of {total_bytes}, {msg}, {eta} left";
        let style = ProgressStyle::with_template(template);
        let bar = io::stderr().is_terminal().then(|| {
            let style = style.unwrap_or_else(|_| ProgressStyle::default_bar());
            ProgressBar::new(progress.total).with_style(style)
        });
        Report { committed: 0, progress, bar, each_batch, told: 0 }
    }

    fn add(&mut self, rows: u64) {
        self.committed += rows;
        if self.each_batch {
            let mut out = io::stdout().lock();
            // Whoever reads this may have gone; the import goes on.
            let _ = writeln!(out, "committed {}", self.committed).and_then(|()| out.flush());
        }
        if let Some(bar) = &self.bar {
            bar.set_position(self.progress.read());
            bar.set_message(format!("{} rows", self.committed));
        }
    }

    /// A line for whoever reads standard error later.
    fn tell(&mut self) {
        if self.bar.is_none() && self.committed > self.told {
            let percent = self.progress.read() * 100 / self.progress.total.max(1);
            eprintln!("{percent}% of the file read, {} rows committed", self.committed);
            self.told = self.committed;
        }
    }

    fn end(self) {
        if let Some(bar) = self.bar {
            bar.finish_and_clear();
        }
    }
}

/// The columns of the table, as an import needs to know them.
async fn targets(database: &Database, name: &str) -> Result<Vec<Target>, Exit> {
    let failed = |error: SqlError| {
        let hint = error.hint.map_or(String::new(), |hint| format!("\nHint: {hint}"));
        Exit::failed(format!("{}{hint}", error.message))
    };
    let catalog = database.catalog().await;
    let table = catalog.table(name).map_err(failed)?;
    let places = table.key_places();
    let columns = table.columns().iter().zip(places);
    let target = |(column, place): (&sql::catalog::Column, &Option<usize>)| Target {
        name: column.name.clone(),
        data_type: column.data_type,
        // A column of the key has to be named even where it may be NULL.
        required: column.not_null || place.is_some(),
        not_null: column.not_null,
    };
    Ok(columns.map(target).collect())
}

/// The most memory this process has had, as the kernel counts it.
fn peak_memory() -> Option<String> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kib: u64 = line.trim().strip_suffix(" kB")?.trim().parse().ok()?;
    Some(format!("{} MiB", kib / 1024))
}
