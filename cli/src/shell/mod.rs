//! Statements and commands of the shell, executed one after the other, and what they print.
//!
//! A [`Shell`] is one session. It is fed [`Piece`]s that [`script::Cutter`] makes of lines, either
//! of scripts (`commands::sql`) or of a person ([`prompt`]); the first failure ends a script, while
//! a person reads the message and goes on.

pub mod prompt;
pub mod script;
mod variables;

use crate::output::{Format, Heading, Printer};
use clap::ValueEnum;
use client::Database;
use futures::FutureExt;
use script::Piece;
use sql::{Position, ResultSet, Session, SqlError, timestamp_text};
use std::io::{self, IsTerminal, Write};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{Duration, Instant};
use variables::Variables;

/// What the commands of the shell are.
pub const COMMANDS: &str = r"\d          the tables
\d TABLE    one table
\set        the variables; \set NAME keeps the first cell of the last result
            :{NAME} stands for it in later statements, in quotes too
\format F   how results are printed: table, csv or json
\? or help  this
\q          end, as Ctrl-D does";

/// A session with a printer.
pub struct Shell {
    database: Arc<Database>,
    session: Session,
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
    pub fn new(database: Arc<Database>, format: Format) -> Shell {
        let session = database.session();
        let is_watched = io::stdout().is_terminal();
        Shell {
            database,
            session,
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

    /// Runs a statement; Ctrl-C stops it and a panic in it costs only the session.
    async fn statement(&mut self, sql: &str) -> Result<(), Trouble> {
        let was_in_transaction = self.in_transaction();
        let work = AssertUnwindSafe(self.execute(sql)).catch_unwind();
        let ended = tokio::select! {
            ended = work => ended,
            _ = tokio::signal::ctrl_c() => {
                // What the statement had half done is gone with its transaction.
                if was_in_transaction {
                    eprintln!("meridian: the statement was stopped; its transaction is rolled back");
                }
                if was_in_transaction {
                    self.roll_back().await;
                }
                return Err(Trouble::Interrupted);
            }
        };
        match ended {
            Ok(result) => result,
            // The panic has printed its own message.
            Err(_) => {
                self.session = self.database.session();
                Err(Trouble::command(
                    "a bug of ours stopped the statement (see above); this is a new session, and \
                     an open transaction is lost",
                ))
            }
        }
    }

    async fn execute(&mut self, sql: &str) -> Result<(), Trouble> {
        let began = Instant::now();
        let failed = |error: SqlError| Trouble::statement(&error, sql);
        let mut result = self.session.execute(sql).await.map_err(failed)?;
        let mut out = io::stdout().lock();
        let mut rows = None;
        if !result.columns.is_empty() {
            let columns = result.columns.iter();
            let headings = columns.map(|column| Heading::new(&column.name, column.data_type));
            let headings: Vec<Heading> = headings.collect();
            let mut printer = Printer::new(&mut out, self.format, headings)?;
            let mut first_cell = None;
            while let Some(batch) = result.next_batch().await.map_err(failed)? {
                for row in batch {
                    if first_cell.is_none() {
                        first_cell = row.first().map(ToString::to_string);
                    }
                    printer.row(row)?;
                }
            }
            rows = Some(printer.end()?);
            self.first_cell = first_cell;
        }
        self.remark(&mut out, rows, began.elapsed(), &result)?;
        Ok(())
    }

    /// What is said below a result: of changes how many rows, to people also the rest.
    fn remark(
        &self,
        out: &mut dyn Write,
        rows: Option<u64>,
        took: Duration,
        result: &ResultSet,
    ) -> io::Result<()> {
        let affected = result.affected.map(|count| format!("{} affected", plural(count, "row")));
        let returned = rows.map(|count| plural(count, "row"));
        if self.is_watched {
            let what = affected.or(returned).unwrap_or_else(|| result.tag.to_string());
            let at = result.receipt.as_ref().map(|receipt| timestamp_text(receipt.timestamp));
            let at = at.map_or(String::new(), |at| format!(", committed at {at}"));
            writeln!(out, "({what}, {}{at})\n", milliseconds(took))?;
        } else if self.format == Format::Table {
            if rows.is_some() {
                writeln!(out)?;
            }
            if let Some(affected) = affected {
                writeln!(out, "{affected}")?;
            }
        }
        out.flush()
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
            (other, _) => {
                return Err(Trouble::command(format!(
                    "there is no command {other}; \\? lists them"
                )));
            }
        }
        Ok(Next::Continue)
    }
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
