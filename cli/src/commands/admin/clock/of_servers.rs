//! What the clocks of servers say, as tables, objects and lines. Of a server over there less is
//! known than of a clock in this process: its provider and status, its interval, and ε.

use crate::commands::admin::Seen;
use crate::output::{Format, Heading, Printer, short};
use proto::universe::NodeState;
use serde_json::json;
use sql::{Type, timestamp_text};
use std::io::{self, Write};
use std::time::Duration;
use truetime::Interval;

/// Names of the columns of CSV.
pub const CSV_HEADER: &str = "at_ms,node,zone,clock,earliest_us,latest_us,epsilon_us,remark";

/// One server's clock.
struct Clock<'s> {
    node: String,
    zone: &'s str,
    /// Provider and status; empty: it does not answer.
    clock: &'s str,
    interval: Option<Interval>,
    /// Why there is no bound, or no answer.
    remark: &'s str,
}

fn clocks(seen: &Seen) -> Vec<Clock<'_>> {
    let clocks = seen.answers.iter().map(|(node, answer)| {
        let (clock, interval, remark) = match answer {
            Ok(answer) => {
                let remark = if answer.now.is_none() { "no bound" } else { "" };
                (answer.report.clock.as_str(), answer.now, remark)
            }
            Err(why) => ("", None, why.as_str()),
        };
        Clock { node: node.to_string(), zone: seen.zone(*node), clock, interval, remark }
    });
    clocks.collect()
}

/// Prints them, `at` this long after the first look.
///
/// # Errors
/// When nobody takes the output.
pub fn print(
    out: &mut (dyn Write + Send),
    format: Format,
    at: Duration,
    seen: &Seen,
) -> io::Result<()> {
    match format {
        Format::Table => table(out, seen),
        Format::Json => {
            clocks(seen).iter().try_for_each(|clock| writeln!(out, "{}", object(at, clock)))
        }
        Format::Csv => {
            clocks(seen).iter().try_for_each(|clock| writeln!(out, "{}", line(at, clock)))
        }
    }
}

fn table(out: &mut (dyn Write + Send), seen: &Seen) -> io::Result<()> {
    let names = ["node", "zone", "clock", "ε", "earliest", "latest", "remark"];
    let headings = names.into_iter().map(|name| Heading::new(name, Type::String(None))).collect();
    let mut printer = Printer::new(out, Format::Table, headings)?;
    let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
    for clock in clocks(seen) {
        let interval = clock.interval;
        let width = interval.map(|now| short::time(Duration::from_micros(now.epsilon_us())));
        printer.row(vec![
            clock.node.into(),
            clock.zone.into(),
            clock.clock.into(),
            or_dash(width).into(),
            or_dash(interval.map(|now| timestamp_text(now.earliest()))).into(),
            or_dash(interval.map(|now| timestamp_text(now.latest()))).into(),
            clock.remark.into(),
        ])?;
    }
    printer.end().map(|_| ())
}

fn object(at: Duration, clock: &Clock<'_>) -> serde_json::Value {
    json!({
        "at_ms": at.as_secs_f64() * 1e3,
        "node": clock.node,
        "zone": clock.zone,
        "clock": clock.clock,
        "earliest_us": clock.interval.map(|now| now.earliest().micros()),
        "latest_us": clock.interval.map(|now| now.latest().micros()),
        "epsilon_us": clock.interval.map(|now| now.epsilon_us()),
        "remark": clock.remark,
    })
}

fn line(at: Duration, clock: &Clock<'_>) -> String {
    let quoted = |text: &str| format!("\"{}\"", text.replace('"', "\"\""));
    let cell = |number: Option<u64>| number.map_or(String::new(), |number| number.to_string());
    let interval = clock.interval;
    [
        at.as_millis().to_string(),
        clock.node.clone(),
        quoted(clock.zone),
        quoted(clock.clock),
        cell(interval.map(|now| now.earliest().micros())),
        cell(interval.map(|now| now.latest().micros())),
        cell(interval.map(|now| now.epsilon_us())),
        quoted(clock.remark),
    ]
    .join(",")
}

/// Whether every server that is there has a bound.
///
/// # Errors
/// The first that has none, or does not answer.
pub fn all_bounded(seen: &Seen) -> Result<(), String> {
    let draining =
        |node| seen.map.nodes.get(node).is_some_and(|info| info.state == NodeState::Draining);
    for (node, answer) in &seen.answers {
        match answer {
            Ok(answer) if answer.now.is_none() => {
                return Err(format!("the clock of {node} has no bound"));
            }
            Err(_) if !draining(node) => return Err(format!("{node} does not answer")),
            _ => {}
        }
    }
    Ok(())
}
