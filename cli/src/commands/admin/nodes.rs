//! `meridian admin nodes`: every node that ever joined, one a line.

use super::seen::Seen;
use crate::output::{Format, Heading, Printer, short};
use proto::NodeId;
use proto::universe::{NodeInfo, NodeState};
use serde_json::json;
use sql::{Row, Type, Value};
use std::io::{self, Write};
use std::time::Duration;

pub const AFTER_HELP: &str = "\
One line for each node:

  state       active; draining: it leads nothing, and is about to stop; silent: it does not answer;
              removed: gone for good, its number is never used again
  clock, ε    what its clock stands on and says of itself; half the width of its interval
  leads       groups it leads under a valid lease
  replicas    groups of which it has a copy
  disk, free  bytes its storage takes, bytes left beside it
  links       nodes it has a link to, of those there are

Examples:
  meridian admin nodes --connect 127.0.0.1:7101
  meridian admin nodes --connect 127.0.0.1:7101 --json    one object for each node, one a line";

/// Prints a table.
///
/// # Errors
/// When nobody takes the output.
pub fn print(out: &mut (dyn Write + Send), seen: &Seen) -> io::Result<()> {
    let (text, int) = (Type::String(None), Type::Int64);
    let columns = [
        ("node", text),
        ("zone", text),
        ("address", text),
        ("state", text),
        ("clock", text),
        ("ε", text),
        ("leads", int),
        ("replicas", int),
        ("disk", text),
        ("free", text),
        ("links", text),
        ("up", text),
    ];
    let headings = columns.into_iter().map(|(name, kind)| Heading::new(name, kind)).collect();
    let mut printer = Printer::new(out, Format::Table, headings)?;
    for info in seen.map.nodes.values() {
        printer.row(row(seen, info))?;
    }
    printer.end().map(|_| ())
}

fn row(seen: &Seen, info: &NodeInfo) -> Row {
    let dash = || Value::from("-");
    let mut row: Row = vec![
        info.node.to_string().into(),
        info.zone.clone().into(),
        info.address.clone().into(),
        state(seen, info.node, info.state).into(),
    ];
    let Some(answer) = seen.answer(info.node) else {
        row.extend(std::iter::repeat_with(dash).take(8));
        return row;
    };
    let report = &answer.report;
    let known = |bytes: u64| if bytes == 0 { dash() } else { short::bytes(bytes).into() };
    let micros = |us| short::time(Duration::from_micros(us));
    let links = report.peers.values().filter(|peer| peer.connected).count();
    row.extend([
        report.clock.clone().into(),
        report.epsilon_us.map_or_else(|| "no bound".to_owned(), micros).into(),
        i64::from(report.leads).into(),
        i64::from(report.replicas).into(),
        known(report.disk_bytes),
        known(report.disk_free_bytes),
        format!("{links}/{}", report.peers.len()).into(),
        short::time(Duration::from_millis(report.up_ms)).into(),
    ]);
    row
}

/// One word for how a node is.
pub fn state(seen: &Seen, node: NodeId, state: NodeState) -> &'static str {
    match state {
        NodeState::Removed => "removed",
        _ if seen.answer(node).is_none() => "silent",
        NodeState::Active => "active",
        NodeState::Draining => "draining",
    }
}

/// Every node as an object; what a node has not said is `null`.
pub fn objects(seen: &Seen) -> Vec<serde_json::Value> {
    seen.map.nodes.values().map(|info| object(seen, info)).collect()
}

fn object(seen: &Seen, info: &NodeInfo) -> serde_json::Value {
    let answer = seen.answers.get(&info.node);
    let error = answer.and_then(|answer| answer.as_ref().err());
    let report = seen.answer(info.node).map(|answer| &answer.report);
    let known = |bytes: u64| (bytes > 0).then_some(bytes);
    let peers = report.map(|report| {
        let peers = report.peers.iter().map(|(node, peer)| {
            json!({
                "node": node.0,
                "connected": peer.connected,
                "sent": peer.sent,
                "received": peer.received,
                "dropped": peer.dropped,
                "connects": peer.connects,
                "error": peer.error,
            })
        });
        peers.collect::<Vec<_>>()
    });
    json!({
        "node": info.node.0,
        "zone": info.zone,
        "address": info.address,
        "state": state(seen, info.node, info.state),
        "answers": report.is_some(),
        "error": error,
        "program": report.map(|report| &report.program),
        "up_ms": report.map(|report| report.up_ms),
        "clock": report.map(|report| &report.clock),
        "epsilon_us": report.and_then(|report| report.epsilon_us),
        "leads": report.map(|report| report.leads),
        "replicas": report.map(|report| report.replicas),
        "disk_bytes": report.and_then(|report| known(report.disk_bytes)),
        "disk_free_bytes": report.and_then(|report| known(report.disk_free_bytes)),
        "memory_bytes": report.and_then(|report| known(report.memory_bytes)),
        "syncs": report.map(|report| report.syncs),
        "in_flight": report.map(|report| report.in_flight),
        "peers": peers,
    })
}
