//! Statements and commands of the shell, executed one after the other, and what they print.
//!
//! A [`Shell`] is one session. It is fed [`Piece`]s that [`script::Cutter`] makes of lines, either
//! of scripts (`commands::sql`) or of a person ([`prompt`]); the first failure ends a script, while
//! a person reads the message and goes on.

mod certificate;
mod clocks;
pub mod prompt;
pub mod script;
mod variables;

use crate::interrupt::ctrl_c;
use crate::output::{Format, Heading, Printer};
use clap::ValueEnum;
use client::Database;
pub use clocks::ClockView;
use script::Piece;
use sql::{Position, ResultSet, Session, SqlError, timestamp_text};
use std::io::{self, BufWriter, IsTerminal, Write};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::task::JoinHandle;
use variables::Variables;

/// What the commands of the shell are.
pub const COMMANDS: &str = r"\d          the tables
\d TABLE    one table
\set        the variables; \set NAME keeps the first cell of the last result
            :{NAME} stands for it in later statements, in quotes too
\format F   how results are printed: table, csv or json
\clock      what every clock says; of simulated ones (sql --clock simulated:…), with
            --allow-clock-faults (of servers: --allow-faults), \clock n2 drift=2000 makes n2's
            wrong: offset, drift,
            epsilon, lie=TIME, hasty=on|off; \clock n2 honest puts it right
\certificate  what proves the last commit, and where its time went
\? or help  this
\q          end, as Ctrl-D does";

/// A session with a printer.
pub struct Shell {
    database: Arc<Database>,
    session: Session,
    clocks: ClockView,
    format: Format,
    variables: Variables,
    /// The first cell of the last result.
    first_cell: Option<String>,
    /// Whether somebody is looking: times and counts are for people.
    is_watched: bool,
}

/// What comes after a piece.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// The next one.
    Continue,
    /// Nothing: the shell was told to end.
    Quit,
}

/// Why a piece failed.
#[derive(Debug)]
pub enum Trouble {
    /// The statement or command did; the message, and the line within the piece it is about.
    Statement(String, u64),
    /// The output takes no more.
    Output(io::Error),
    /// Ctrl-C.
    Interrupted,
}

impl From<io::Error> for Trouble {
    fn from(error: io::Error) -> Trouble {
        Trouble::Output(error)
    }
}

impl Trouble {
    fn command(message: impl Into<String>) -> Trouble {
        Trouble::Statement(message.into(), 1)
    }

    fn statement(error: &SqlError, sql: &str) -> Trouble {
        let line = error.position.map_or(1, |Position { line, .. }| u64::from(line));
        Trouble::Statement(error.render(sql), line)
    }
}

impl Shell {
    /// A shell with a new session.
    pub fn new(database: Arc<Database>, clocks: ClockView, format: Format) -> Shell {
        let session = database.session();
        let is_watched = io::stdout().is_terminal();
        Shell {
            database,
            session,
            clocks,
            format,
            variables: Variables::default(),
            first_cell: None,
            is_watched,
        }
    }

    /// Executes a piece and prints what comes of it.
    ///
    /// # Errors
    /// When it fails; the session can be used on.
    pub async fn run(&mut self, piece: &Piece) -> Result<Next, Trouble> {
        let text = self.variables.substitute(&piece.text).map_err(Trouble::command)?;
        if piece.is_command() {
            return self.command(&text).await;
        }
        self.statement(&text).await?;
        Ok(Next::Continue)
    }

    /// Whether a transaction is open.
    pub fn in_transaction(&self) -> bool {
        self.session.in_transaction()
    }

    /// Rolls an open transaction back, and says so; whether there was one.
    pub async fn close(&mut self) -> bool {
        let open = self.in_transaction();
        if open {
            eprintln!("meridian: warning: a transaction was open at the end; it is rolled back");
            self.roll_back().await;
        }
        open
    }

    async fn roll_back(&mut self) {
        if let Err(error) = self.session.execute("ROLLBACK").await {
            // It ends by itself when nobody asks for it any more.
            eprintln!("meridian: warning: rolling back: {error}");
        }
    }

    /// Runs a statement as a task of its own: Ctrl-C must be heard while a query computes, and a
    /// panic in it costs only the session. A session that is dropped rolls its transaction back.
    async fn statement(&mut self, sql: &str) -> Result<(), Trouble> {
        let session = std::mem::replace(&mut self.session, self.database.session());
        let was_in_transaction = session.in_transaction();
        let mut work = tokio::spawn(execute(session, sql.to_owned(), self.format, self.is_watched));
        let ended = tokio::select! {
            ended = &mut work => ended,
            () = ctrl_c() => {
                work.abort();
                stopped(work).await;
                if was_in_transaction {
                    eprintln!("meridian: the transaction of the stopped statement is rolled back");
                }
                return Err(Trouble::Interrupted);
            }
        };
        // The panic has printed its own message.
        let Ok((session, result)) = ended else {
            return Err(Trouble::command(
                "a bug of ours stopped the statement (see above); this is a new session, and an \
                 open transaction is lost",
            ));
        };
        self.session = session;
        if let Some(cell) = result? {
            self.first_cell = cell;
        }
        Ok(())
    }

    async fn command(&mut self, text: &str) -> Result<Next, Trouble> {
        let (command, argument) = text.split_once(char::is_whitespace).unwrap_or((text, ""));
        // People end these with a semicolon too.
        let argument = argument.trim().trim_end_matches(';').trim_end();
        match (command.trim_end_matches(';'), argument) {
            ("\\q", _) => return Ok(Next::Quit),
            ("\\?" | "\\h", _) => println!("{COMMANDS}\n"),
            ("\\d", "") => self.statement("SHOW TABLES").await?,
            ("\\d", table) => self.statement(&format!("DESCRIBE {table}")).await?,
            ("\\set", "") => {
                for (name, value) in self.variables.iter() {
                    println!("{name} = {value}");
                }
            }
            ("\\set", name) => {
                let wanted = "\\set wants a result before it, with a row";
                let value = self.first_cell.clone().ok_or_else(|| Trouble::command(wanted))?;
                self.variables.set(name, value).map_err(Trouble::command)?;
            }
            ("\\format", name) => {
                self.format = Format::from_str(name, true)
                    .map_err(|_| Trouble::command("formats are table, csv and json"))?;
            }
            ("\\clock", change) => {
                let lines = self.clocks.command(change).await.map_err(Trouble::command)?;
                lines.iter().for_each(|line| println!("{line}"));
            }
            ("\\certificate", _) => {
                let none = "this session has not committed anything";
                let receipt = self.session.last_commit().ok_or_else(|| Trouble::command(none))?;
                certificate::lines(receipt).iter().for_each(|line| println!("{line}"));
            }
            (other, _) => {
                return Err(Trouble::command(format!(
                    "there is no command {other}; \\? lists them"
                )));
            }
        }
        Ok(Next::Continue)
    }
}

/// Waits for a statement to notice that it is stopped. One that computes without a pause may take
/// long; the person who cannot wait ends the program, which loses nothing that was acknowledged.
async fn stopped(work: JoinHandle<impl Sized>) {
    eprintln!("stopping; Ctrl-C again ends the program at once");
    tokio::select! {
        _ = work => {}
        () = ctrl_c() => std::process::exit(130),
    }
}

/// Runs a statement and prints what comes of it. The answer has the first cell of its rows, when it
/// has rows.
async fn execute(
    mut session: Session,
    sql: String,
    format: Format,
    is_watched: bool,
) -> (Session, Result<Option<Option<String>>, Trouble>) {
    let result = print_result(&mut session, &sql, format, is_watched).await;
    (session, result)
}

async fn print_result(
    session: &mut Session,
    sql: &str,
    format: Format,
    is_watched: bool,
) -> Result<Option<Option<String>>, Trouble> {
    let began = Instant::now();
    let failed = |error: SqlError| Trouble::statement(&error, sql);
    let mut result = session.execute(sql).await.map_err(failed)?;
    let mut out = BufWriter::new(io::stdout());
    let mut printed = None;
    if !result.columns.is_empty() {
        let columns = result.columns.iter();
        let headings = columns.map(|column| Heading::new(&column.name, column.data_type));
        let mut printer = Printer::new(&mut out, format, headings.collect())?;
        let mut first_cell = None;
        while let Some(batch) = result.next_batch().await.map_err(failed)? {
            for row in batch {
                if first_cell.is_none() {
                    first_cell = row.first().map(ToString::to_string);
                }
                printer.row(row)?;
            }
        }
        printed = Some((printer.end()?, first_cell));
    }
    let (rows, first_cell) = printed.unzip();
    remark(&mut out, rows, began.elapsed(), &result, format, is_watched)?;
    Ok(first_cell)
}

/// What is said below a result: of changes how many rows, to people also the rest.
fn remark(
    out: &mut dyn Write,
    rows: Option<u64>,
    took: Duration,
    result: &ResultSet,
    format: Format,
    is_watched: bool,
) -> io::Result<()> {
    let affected = result.affected.map(|count| format!("{} affected", plural(count, "row")));
    let returned = rows.map(|count| plural(count, "row"));
    if is_watched {
        let what = affected.or(returned).unwrap_or_else(|| result.tag.to_string());
        let at = result.receipt.as_ref().map(|receipt| timestamp_text(receipt.timestamp));
        let at = at.map_or(String::new(), |at| format!(", committed at {at}"));
        writeln!(out, "({what}, {}{at})\n", milliseconds(took))?;
    } else if format == Format::Table {
        if rows.is_some() {
            writeln!(out)?;
        }
        if let Some(affected) = affected {
            writeln!(out, "{affected}")?;
        }
    }
    out.flush()
}

/// `1 row`, `2 rows`.
fn plural(count: u64, noun: &str) -> String {
    if count == 1 { format!("1 {noun}") } else { format!("{count} {noun}s") }
}

fn milliseconds(took: Duration) -> String {
    match took.as_secs_f64() * 1e3 {
        ms if ms < 1_000.0 => format!("{ms:.1} ms"),
        ms => format!("{:.2} s", ms / 1e3),
    }
}
