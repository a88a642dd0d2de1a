//! `meridian admin groups` and `meridian admin group N`, of a cluster.

use super::replicas::{self, int};
use super::seen::{Group, Replica, Role, Seen};
use super::warnings::names;
use crate::output::{Format, Heading, Printer, short};
use proto::NodeId;
use serde_json::json;
use sql::{Row, Type, timestamp_text};
use std::collections::BTreeMap;
use std::io::{self, Write};
use std::time::Duration;
use truetime::Timestamp;

pub const AFTER_HELP: &str = "\
With --connect, one line for each group:

  leader, lease    who leads it, and for how long its lease holds without being renewed; `asleep`:
                   nothing happens in the group, and its lease is kept with those of others
  ballot           under which it is led
  last, applied    the last slot of the leader's log, and up to where it is applied everywhere
  replicas         nodes and zones; + follows only, w votes only, ? does not answer
  remarks          what is not as it should be

With --data, one line for each replica of each group:

  leader, ballot   who leads as far as this replica knows, and the highest ballot it promised
  first..last      slots still in its log
  applied, chosen  up to where it applied the log, and knows it chosen
  lease until      until when the leader may serve without asking; only the leader knows
  safe time        timestamp of the newest write it has applied
  prepared         transactions that wait for the outcome of two-phase commit
  locks            transactions that hold locks

Examples:
  meridian admin groups --connect 127.0.0.1:7101
  meridian admin groups --connect 127.0.0.1:7101 --json   one object for each group, one a line
  meridian admin groups --data ./universe --json          one for each replica of each group";

pub const AFTER_HELP_ONE: &str = "\
One line for each replica:

  role             voter: its answers count; witness: they count, and it keeps no rows; learner: it
                   only follows; outside: it is about to come or to go
  ballot           the highest it promised
  first..last      slots still in its log
  chosen, applied  up to where it knows the log chosen, and has applied it
  lease            for how long it may lead without asking; only the leader has one
  newest write     how old the newest write is that it has applied
  safe time        how old reads must be that it serves without waiting for anything
  prepared, locks  transactions that wait for the outcome of two-phase commit, that hold locks
  remarks          asleep, repairing (what its disk has lost is being sent), silent

Examples:
  meridian admin group 3 --connect 127.0.0.1:7101
  meridian admin group g3 --connect 127.0.0.1:7101 --locks    and who holds and waits for locks
  meridian admin group 0 --connect 127.0.0.1:7101 --json      the root group, one object";

/// Up to when replicas of a group serve reads without waiting.
pub type SafeTimes = BTreeMap<NodeId, Timestamp>;

/// Prints a line for each group.
///
/// # Errors
/// When nobody takes the output.
pub fn print(out: &mut (dyn Write + Send), seen: &Seen) -> io::Result<()> {
    let (text, number) = (Type::String(None), Type::Int64);
    let columns = [
        ("group", text),
        ("leader", text),
        ("lease", text),
        ("ballot", text),
        ("last", number),
        ("applied", number),
        ("replicas", text),
        ("remarks", text),
    ];
    let headings = columns.into_iter().map(|(name, kind)| Heading::new(name, kind)).collect();
    let mut printer = Printer::new(out, Format::Table, headings)?;
    for group in seen.groups() {
        printer.row(row(seen, &group))?;
    }
    printer.end().map(|_| ())
}

fn row(seen: &Seen, group: &Group<'_>) -> Row {
    let leading = group.leading();
    let status = leading.and_then(|leader| leader.status);
    let known = |slot: Option<u64>| slot.map_or_else(|| "-".into(), int);
    vec![
        group.id.to_string().into(),
        group.leader.map_or_else(|| "none".to_owned(), |node| node.to_string()).into(),
        leading.map_or_else(|| "-".to_owned(), lease).into(),
        status.map_or_else(|| "-".to_owned(), |status| status.ballot.to_string()).into(),
        known(status.map(|status| status.last.0)),
        known(applied_everywhere(group)),
        replicas_of(seen, group).into(),
        remarks(seen, group).join(", ").into(),
    ]
}

/// Up to where every replica that answers has applied the log.
fn applied_everywhere(group: &Group<'_>) -> Option<u64> {
    group.replicas.iter().filter_map(|replica| Some(replica.status?.applied.0)).min()
}

fn lease(replica: &Replica<'_>) -> String {
    match (replica.status, replica.lease_left()) {
        (Some(status), _) if status.asleep => "asleep".to_owned(),
        (_, Some(Duration::ZERO)) => "ended".to_owned(),
        (_, Some(left)) => short::time(left),
        (_, None) => "-".to_owned(),
    }
}

fn replicas_of(seen: &Seen, group: &Group<'_>) -> String {
    let words = group.replicas.iter().map(|replica| {
        let mark = match replica.role {
            Role::Voter => "",
            Role::Witness => "w",
            Role::Learner | Role::Outside => "+",
        };
        let silent = if replica.status.is_none() { "?" } else { "" };
        format!("{}({}){mark}{silent}", replica.node, seen.zone(replica.node))
    });
    words.collect::<Vec<_>>().join(" ")
}

/// What is not as it should be, in few words.
fn remarks(seen: &Seen, group: &Group<'_>) -> Vec<String> {
    let wanted = seen.map.founding.replicas as usize;
    let voters = group.members.voters.len();
    let mut words = Vec::new();
    if !group.has_majority() {
        words.push("no majority".to_owned());
    }
    if voters < wanted {
        words.push(format!("{voters} of {wanted} replicas"));
    }
    if group.is_joint() {
        words.push("between two sets of voters".to_owned());
    } else if group.is_changing() {
        words.push("changing members".to_owned());
    }
    let repairing: Vec<_> = group.repairing().collect();
    if !repairing.is_empty() {
        words.push(format!("repairing {}", names(repairing)));
    }
    words
}

/// A group with all numbers as numbers; `safe_time_us` of a replica is that of its newest write.
pub fn object(seen: &Seen, group: &Group<'_>) -> serde_json::Value {
    let numbers =
        |nodes: &mut dyn Iterator<Item = &NodeId>| nodes.map(|node| node.0).collect::<Vec<_>>();
    let members = &group.members;
    let leading = group.leading();
    let status = leading.and_then(|leader| leader.status);
    json!({
        "group": group.id.0,
        "leader": group.leader.map(|node| node.0),
        "lease_left_ms": leading.and_then(Replica::lease_left).map(|left| left.as_secs_f64() * 1e3),
        "ballot": status.map(|status| {
            json!({ "round": status.ballot.round, "node": status.ballot.node.0 })
        }),
        "last": status.map(|status| status.last.0),
        "applied_everywhere": applied_everywhere(group),
        "generation": group.generation,
        "voters": numbers(&mut members.voters.iter()),
        "witnesses": numbers(&mut members.witnesses.iter()),
        "learners": numbers(&mut members.learners.iter()),
        "replicas_wanted": seen.map.founding.replicas,
        "has_majority": group.has_majority(),
        "joint": group.is_joint(),
        "changing": group.is_changing(),
        "asleep": group.is_asleep(),
        "replicas": group.replicas.iter().map(|one| replica(seen, group, one)).collect::<Vec<_>>(),
    })
}

fn replica(seen: &Seen, group: &Group<'_>, replica: &Replica<'_>) -> serde_json::Value {
    let mut object = match replica.status {
        Some(status) => replicas::object(status),
        None => json!({ "group": group.id.0, "replica": replica.node.0 }),
    };
    object["answers"] = json!(replica.status.is_some());
    object["zone"] = json!(seen.zone(replica.node));
    object["role"] = json!(replica.role.name());
    object["lag"] = json!(group.lag(replica));
    object["newest_write_age_ms"] = json!(replica.age().map(|age| age.as_secs_f64() * 1e3));
    object
}

/// The same, and up to when its replicas serve reads without waiting.
pub fn object_one(seen: &Seen, group: &Group<'_>, safe: &SafeTimes) -> serde_json::Value {
    let mut object = object(seen, group);
    for (replica, place) in group.replicas.iter().zip(0..) {
        let age = safe_age(replica, safe).map(|age| age.as_secs_f64() * 1e3);
        object["replicas"][place]["safe_time_age_ms"] = json!(age);
    }
    object
}

/// Prints one group: what its leader says, and a line for each replica.
///
/// # Errors
/// When nobody takes the output.
pub fn print_one(
    out: &mut (dyn Write + Send),
    seen: &Seen,
    group: &Group<'_>,
    safe: &SafeTimes,
) -> io::Result<()> {
    let leader = group.leader.map_or_else(|| "nobody".to_owned(), |node| node.to_string());
    writeln!(out, "group    {}, led by {leader}", group.id)?;
    let members = &group.members;
    write!(out, "members  voters {}", names(&members.voters))?;
    for (what, nodes) in [("witnesses", &members.witnesses), ("learners", &members.learners)] {
        if !nodes.is_empty() {
            write!(out, "; {what} {}", names(nodes))?;
        }
    }
    writeln!(out, "; generation {}", group.generation)?;
    if let Some(status) = group.leading().and_then(|leader| leader.status)
        && let Some(end) = status.lease_end.filter(|_| !status.asleep)
    {
        writeln!(out, "lease    until {}", timestamp_text(end))?;
    }
    let remarks = remarks(seen, group);
    if !remarks.is_empty() {
        writeln!(out, "remarks  {}", remarks.join(", "))?;
    }
    writeln!(out)?;
    let mut printer = Printer::new(out, Format::Table, replica_headings())?;
    for replica in &group.replicas {
        printer.row(replica_row(seen, group, replica, safe))?;
    }
    printer.end().map(|_| ())
}

fn ago(age: Duration) -> String {
    format!("{} ago", short::time(age))
}

/// How old a read must be that a replica serves without waiting.
fn safe_age(replica: &Replica<'_>, safe: &SafeTimes) -> Option<Duration> {
    Some(replica.now()?.latest().since(*safe.get(&replica.node)?))
}

fn replica_headings() -> Vec<Heading> {
    let (text, number) = (Type::String(None), Type::Int64);
    let columns = [
        ("replica", text),
        ("zone", text),
        ("role", text),
        ("ballot", text),
        ("first", number),
        ("last", number),
        ("chosen", number),
        ("applied", number),
        ("lag", number),
        ("lease", text),
        ("newest write", text),
        ("safe time", text),
        ("prepared", number),
        ("locks", number),
        ("remarks", text),
    ];
    columns.into_iter().map(|(name, kind)| Heading::new(name, kind)).collect()
}

fn replica_row(seen: &Seen, group: &Group<'_>, replica: &Replica<'_>, safe: &SafeTimes) -> Row {
    let mut row: Row = vec![
        replica.node.to_string().into(),
        seen.zone(replica.node).into(),
        replica.role.name().into(),
    ];
    let Some(status) = replica.status else {
        row.extend((0..11).map(|_| "-".into()));
        row.push(
            if seen.answer(replica.node).is_some() { "not there yet" } else { "silent" }.into(),
        );
        return row;
    };
    let said =
        [(status.asleep, "asleep"), (status.repairing, "repairing"), (status.changing, "changing")];
    let remarks: Vec<&str> = said.iter().filter(|(is, _)| *is).map(|(_, word)| *word).collect();
    let age = replica.age().map_or_else(|| "-".to_owned(), ago);
    let leads = group.leader == Some(replica.node);
    row.extend([
        status.ballot.to_string().into(),
        int(status.first.0),
        int(status.last.0),
        int(status.chosen.0),
        int(status.applied.0),
        int(group.lag(replica).unwrap_or(0)),
        if leads { lease(replica) } else { "-".to_owned() }.into(),
        age.into(),
        safe_age(replica, safe).map_or_else(|| "-".to_owned(), ago).into(),
        int(status.prepared),
        int(status.lock_holders),
        remarks.join(", ").into(),
    ]);
    row
}
