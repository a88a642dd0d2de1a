//! `meridian admin`: a look inside.

mod clock;

use crate::data::Data;
use crate::exit::Exit;
use crate::output::{Format, Heading, Printer};
use clap::Args;
use proto::request::GroupStatus;
use serde_json::json;
use sql::{Row, Type, Value, timestamp_text};
use std::io::{self, Write};

/// What is looked at.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Every Paxos group at every replica.
    #[command(after_help = AFTER_HELP)]
    Groups(Arguments),
    /// What the clocks say: interval, ε, status, and the masters they have it from.
    #[command(after_help = clock::AFTER_HELP)]
    Clock(clock::Arguments),
}

const AFTER_HELP: &str = "\
One line for each replica of each group:

  leader, ballot   who leads as far as this replica knows, and the highest ballot it promised
  first..last      slots still in its log
  applied, chosen  up to where it applied the log, and knows it chosen
  lease until      until when the leader may serve without asking; only the leader knows
  safe time        timestamp of the newest write it has applied
  prepared         transactions that wait for the outcome of two-phase commit
  locks            transactions that hold locks

Examples:
  meridian admin groups --data ./universe
  meridian admin groups --data ./universe --json";

/// Arguments of `meridian admin groups`.
#[derive(Debug, Args)]
pub struct Arguments {
    #[command(flatten)]
    data: Data,
    /// One JSON object for each replica of each group, one a line.
    #[arg(long)]
    json: bool,
}

/// Runs the command.
///
/// # Errors
/// When the universe cannot be opened or does not answer.
pub async fn run(command: Command) -> Result<(), Exit> {
    match command {
        Command::Groups(arguments) => groups(arguments).await,
        Command::Clock(arguments) => clock::run(arguments).await,
    }
}

async fn groups(arguments: Arguments) -> Result<(), Exit> {
    let universe = arguments.data.open_existing().await?;
    let mut all = universe.status().await;
    universe.close();
    all.sort_by_key(|status| (status.group, status.node));
    let mut out = io::stdout();
    if arguments.json {
        for status in &all {
            writeln!(out, "{}", object(status))?;
        }
        return Ok(());
    }
    let mut printer = Printer::new(&mut out, Format::Table, headings())?;
    for status in &all {
        printer.row(row(status))?;
    }
    printer.end()?;
    Ok(())
}

fn headings() -> Vec<Heading> {
    let (text, int) = (Type::String(None), Type::Int64);
    let columns = [
        ("group", text),
        ("replica", text),
        ("leader", text),
        ("ballot", text),
        ("first", int),
        ("applied", int),
        ("chosen", int),
        ("last", int),
        ("lease until", text),
        ("safe time", text),
        ("prepared", int),
        ("locks", int),
    ];
    columns.into_iter().map(|(name, data_type)| Heading::new(name, data_type)).collect()
}

fn row(status: &GroupStatus) -> Row {
    let int = |number: u64| Value::Int64(i64::try_from(number).unwrap_or(i64::MAX));
    vec![
        status.group.to_string().into(),
        status.node.to_string().into(),
        status.leader.map_or_else(|| "none".to_owned(), |node| node.to_string()).into(),
        status.ballot.to_string().into(),
        int(status.first.0),
        int(status.applied.0),
        int(status.chosen.0),
        int(status.last.0),
        status.lease_end.map_or_else(|| "-".to_owned(), timestamp_text).into(),
        timestamp_text(status.safe_time).into(),
        int(status.prepared),
        int(status.lock_holders),
    ]
}

/// The same with all numbers as numbers; timestamps are microseconds since 1970.
fn object(status: &GroupStatus) -> serde_json::Value {
    json!({
        "group": status.group.0,
        "replica": status.node.0,
        "leader": status.leader.map(|node| node.0),
        "ballot": { "round": status.ballot.round, "node": status.ballot.node.0 },
        "first": status.first.0,
        "applied": status.applied.0,
        "chosen": status.chosen.0,
        "last": status.last.0,
        "lease_end_us": status.lease_end.map(|at| at.micros()),
        "safe_time_us": status.safe_time.micros(),
        "prepared": status.prepared,
        "lock_holders": status.lock_holders,
    })
}
