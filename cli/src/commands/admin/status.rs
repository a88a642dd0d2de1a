//! `meridian admin status`: a cluster at a glance.

use super::nodes;
use super::seen::{Group, Seen};
use super::warnings::{self, Severity, Warning};
use crate::output::short;
use proto::{GroupId, NodeId};
use serde_json::json;
use std::io::{self, Write};
use std::time::Duration;

pub const AFTER_HELP: &str = "\
Any node will do; the others are learned from it and asked too. What is wrong comes first, and what
to do about it; then the nodes, one a line (see `meridian admin nodes --help`).

  groups   all of them, and how many are led, have all their replicas, change their members
  lag      the replica with the most entries still to apply, and how old its newest write is: reads
           of the past that it serves are at most so far behind

With --check the exit code is 1 unless the cluster is healthy: everything is served, and would be if
one node more failed.

Examples:
  meridian admin status --connect 127.0.0.1:7101
  meridian admin status --connect 127.0.0.1:7101 --json
  meridian admin status --connect db1:7101,db2:7101 --tls-ca ca.pem --tls-cert me.pem --tls-key me.key
  meridian admin status --connect 127.0.0.1:7101 --check > /dev/null || echo trouble";

/// The groups, counted.
#[derive(Debug, Default, PartialEq, Eq)]
struct Counts {
    total: usize,
    with_leader: usize,
    under_replicated: usize,
    changing: usize,
    asleep: usize,
    repairing: usize,
}

impl Counts {
    fn of(groups: &[Group<'_>], wanted: usize) -> Counts {
        let count =
            |is: &dyn Fn(&Group<'_>) -> bool| groups.iter().filter(|group| is(group)).count();
        Counts {
            total: groups.len(),
            with_leader: count(&|group| group.leader.is_some()),
            under_replicated: count(&|group| group.members.voters.len() < wanted),
            changing: count(&|group| group.is_changing()),
            asleep: count(&|group| group.is_asleep()),
            repairing: count(&|group| group.repairing().next().is_some()),
        }
    }
}

/// The replica that is furthest behind.
#[derive(Debug, PartialEq, Eq)]
struct Lag {
    entries: u64,
    group: GroupId,
    node: NodeId,
    age: Option<Duration>,
}

fn worst_lag(groups: &[Group<'_>]) -> Option<Lag> {
    let replicas =
        groups.iter().flat_map(|group| group.replicas.iter().map(move |replica| (group, replica)));
    let lags = replicas.filter_map(|(group, replica)| {
        let entries = group.lag(replica).filter(|entries| *entries > 0)?;
        Some(Lag { entries, group: group.id, node: replica.node, age: replica.age() })
    });
    lags.max_by_key(|lag| lag.entries)
}

/// Prints it for people.
///
/// # Errors
/// When nobody takes the output.
pub fn print(out: &mut (dyn Write + Send), seen: &Seen) -> io::Result<()> {
    let warnings = warnings::of(seen);
    for warning in &warnings {
        write_warning(out, warning)?;
    }
    if !warnings.is_empty() {
        writeln!(out)?;
    }
    let groups = seen.groups();
    let wanted = seen.map.founding.replicas;
    let counts = Counts::of(&groups, wanted as usize);
    let answering = seen.answers.values().flatten().count();
    let state = if warnings::is_healthy(&warnings) { "healthy" } else { "see above" };
    writeln!(out, "cluster  {}, {state}", seen.map.founding.cluster)?;
    writeln!(out, "nodes    {}", all_or(answering, seen.answers.len(), "answer", "answers"))?;
    writeln!(out, "groups   {}", words_of(&counts, wanted))?;
    let root = groups.first().and_then(|group| group.leader);
    writeln!(out, "root     {}", root.map_or("no leader".into(), |node| format!("led by {node}")))?;
    writeln!(out, "lag      {}", lag_text(worst_lag(&groups)))?;
    writeln!(out)?;
    nodes::print(out, seen)
}

/// A warning, and its hint below it.
fn write_warning(out: &mut dyn Write, warning: &Warning) -> io::Result<()> {
    writeln!(out, "{}: {}", warning.severity.name(), warning.what)?;
    if !warning.hint.is_empty() {
        writeln!(out, "  Hint: {}", warning.hint)?;
    }
    Ok(())
}

fn all_or(part: usize, whole: usize, plural: &str, singular: &str) -> String {
    match (part, whole) {
        (1, 1) => format!("1, which {singular}"),
        (part, whole) if part == whole => format!("{whole}, all {plural}"),
        (1, whole) => format!("{whole}, of which 1 {singular}"),
        (part, whole) => format!("{whole}, of which {part} {plural}"),
    }
}

fn words_of(counts: &Counts, wanted: u32) -> String {
    let mut words = vec![match counts.total - counts.with_leader {
        0 => format!("{}, all led", counts.total),
        without => format!("{}, {without} without a leader", counts.total),
    }];
    words.push(match counts.under_replicated {
        0 if wanted == 1 => "one replica each".to_owned(),
        0 => format!("{wanted} replicas each"),
        few => format!("{few} with fewer replicas than {wanted}"),
    });
    let rest = [
        (counts.changing, "changing members"),
        (counts.repairing, "being repaired"),
        (counts.asleep, "asleep"),
    ];
    let rest = rest.into_iter().filter(|(number, _)| *number > 0);
    words.extend(rest.map(|(number, what)| format!("{number} {what}")));
    words.join(", ")
}

fn lag_text(lag: Option<Lag>) -> String {
    let Some(Lag { entries, group, node, age }) = lag else { return "none".to_owned() };
    let age = age.map_or(String::new(), |age| format!(", newest write {} old", short::time(age)));
    format!("{} entries: {group} at {node}{age}", short::count(entries))
}

/// The same for programs. Times are in the units of their names; `null`: not known.
pub fn object(seen: &Seen) -> serde_json::Value {
    let warnings = warnings::of(seen);
    let groups = seen.groups();
    let counts = Counts::of(&groups, seen.map.founding.replicas as usize);
    let lag = worst_lag(&groups).map(|lag| {
        json!({
            "entries": lag.entries,
            "group": lag.group.0,
            "node": lag.node.0,
            "age_ms": lag.age.map(|age| age.as_secs_f64() * 1e3),
        })
    });
    let objects = warnings.iter().map(
        |Warning { severity, what, hint }| json!({ "severity": severity.name(), "what": what, "hint": hint }),
    );
    let has = |severity| warnings.iter().any(|warning| warning.severity == severity);
    json!({
        "cluster": seen.map.founding.cluster,
        "healthy": warnings::is_healthy(&warnings),
        "serving": !has(Severity::Critical),
        "map_version_us": seen.map.version.micros(),
        "replicas_wanted": seen.map.founding.replicas,
        "warnings": objects.collect::<Vec<_>>(),
        "root_leader": groups.first().and_then(|group| group.leader).map(|node| node.0),
        "groups": {
            "total": counts.total,
            "with_leader": counts.with_leader,
            "under_replicated": counts.under_replicated,
            "changing": counts.changing,
            "repairing": counts.repairing,
            "asleep": counts.asleep,
        },
        "lag": lag,
        "nodes": nodes::objects(seen),
    })
}

#[cfg(test)]
mod tests;
