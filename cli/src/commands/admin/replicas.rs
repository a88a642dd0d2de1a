//! Every group at every replica of a universe in this process, a line each.

use crate::output::{Format, Heading, Printer};
use proto::request::GroupStatus;
use serde_json::json;
use sql::{Row, Type, Value, timestamp_text};
use std::io::{self, Write};

/// Prints a table.
///
/// # Errors
/// When nobody takes the output.
pub fn print(out: &mut (dyn Write + Send), all: &[GroupStatus]) -> io::Result<()> {
    let mut printer = Printer::new(out, Format::Table, headings())?;
    for status in all {
        printer.row(row(status))?;
    }
    printer.end().map(|_| ())
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

/// A count as a cell.
pub fn int(number: u64) -> Value {
    Value::Int64(i64::try_from(number).unwrap_or(i64::MAX))
}

/// A replica with all numbers as numbers; timestamps are microseconds since 1970.
pub fn object(status: &GroupStatus) -> serde_json::Value {
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
        "generation": status.generation,
        "joint": status.joint,
        "changing": status.changing,
        "repairing": status.repairing,
        "asleep": status.asleep,
    })
}
