//! What is wrong with a cluster, in words, and what to do about it.

use super::seen::{Group, Seen};
use crate::output::short;
use proto::universe::NodeState;
use proto::{GroupId, NodeId};
use std::collections::{BTreeMap, BTreeSet};

/// How bad it is, the worst first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// Something is not served.
    Critical,
    /// All is served; the next failure may change that.
    Warning,
    /// Nothing is wrong; somebody may have forgotten it.
    Note,
}

impl Severity {
    /// As people and programs read it.
    pub fn name(self) -> &'static str {
        match self {
            Severity::Critical => "critical",
            Severity::Warning => "warning",
            Severity::Note => "note",
        }
    }
}

/// One thing to know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Warning {
    /// How bad it is.
    pub severity: Severity,
    /// What is seen.
    pub what: String,
    /// What to do; empty: nothing.
    pub hint: String,
}

/// Less than this left on a disk is worth a word, in bytes.
const DISK_FREE_BYTES_MIN: u64 = 1 << 30;
/// A replica that has still to apply more entries than this is worth a word.
pub const LAG_MAX: u64 = 10_000;
/// Names in one list; the rest is counted.
const NAMES_MAX: usize = 8;

/// Everything there is to say, the worst first.
pub fn of(seen: &Seen) -> Vec<Warning> {
    let groups = seen.groups();
    let mut all = Vec::new();
    leaderless(seen, &groups, &mut all);
    silent(seen, &mut all);
    clocks(seen, &mut all);
    missing_replicas(seen, &groups, &mut all);
    one_zone(seen, &groups, &mut all);
    links(seen, &mut all);
    behind(&groups, &mut all);
    disks(seen, &mut all);
    notes(seen, &groups, &mut all);
    all.sort_by_key(|warning| warning.severity);
    all
}

/// Nothing is worse than a note.
pub fn is_healthy(warnings: &[Warning]) -> bool {
    warnings.iter().all(|warning| warning.severity == Severity::Note)
}

fn push(all: &mut Vec<Warning>, severity: Severity, what: String, hint: impl Into<String>) {
    all.push(Warning { severity, what, hint: hint.into() });
}

fn leaderless(seen: &Seen, groups: &[Group<'_>], all: &mut Vec<Warning>) {
    // A leader without a majority keeps its lease for some seconds, and can commit nothing.
    let stuck: Vec<_> = groups.iter().filter(|group| !group.has_majority()).collect();
    let may_elect = |group: &&Group<'_>| group.leader.is_none() && group.has_majority();
    let electing: Vec<_> = groups.iter().filter(may_elect).collect();
    if !stuck.is_empty() {
        let nodes: BTreeSet<NodeId> =
            stuck.iter().flat_map(|group| group.silent_voters()).collect();
        let what = format!(
            "{} cannot be served: more than half of the voters do not answer",
            name_groups(&stuck),
        );
        push(all, Severity::Critical, what, format!("start {} again", names(nodes)));
    }
    if !electing.is_empty() {
        let no_clock = seen.answers.values().flatten().all(|answer| answer.now.is_none());
        let hint = match no_clock {
            true => "nobody leads without a bound on the clock; see `meridian admin clock`",
            false => "look again: an election takes some seconds",
        };
        push(all, Severity::Critical, format!("{} has no leader", name_groups(&electing)), hint);
    }
}

fn silent(seen: &Seen, all: &mut Vec<Warning>) {
    for (node, answer) in &seen.answers {
        let Err(why) = answer else { continue };
        let address = seen.map.nodes.get(node).map_or("?", |info| info.address.as_str());
        let what = format!("{node} (zone {}, {address}) does not answer: {why}", seen.zone(*node));
        let hint = format!(
            "start it again with its data folder; where that is lost for good, start a new node and \
             `meridian admin replace-node {node}`"
        );
        push(all, Severity::Warning, what, hint);
    }
}

fn clocks(seen: &Seen, all: &mut Vec<Warning>) {
    for (node, answer) in &seen.answers {
        let Ok(answer) = answer else { continue };
        if answer.report.epsilon_us.is_none() {
            let what = format!("{node} has no bound on its clock: {}", answer.report.clock);
            let hint = "it gives out no timestamps until it has one; see `meridian admin clock`";
            push(all, Severity::Warning, what, hint);
        }
    }
}

fn missing_replicas(seen: &Seen, groups: &[Group<'_>], all: &mut Vec<Warning>) {
    let wanted = seen.map.founding.replicas as usize;
    let few: Vec<_> = groups.iter().filter(|group| group.members.voters.len() < wanted).collect();
    if few.is_empty() {
        return;
    }
    let present = seen.present().filter(|info| info.state == NodeState::Active).count();
    let what = format!("{} has fewer replicas than {wanted}", name_groups(&few));
    let hint = match wanted.saturating_sub(present) {
        0 => "more are being made; look again".to_owned(),
        1 => "one more node is needed: start it with --join".to_owned(),
        more => format!("{more} more nodes are needed: start them with --join"),
    };
    push(all, Severity::Warning, what, hint);
}

/// Replicas share a zone although there are others.
fn one_zone(seen: &Seen, groups: &[Group<'_>], all: &mut Vec<Warning>) {
    let active = seen.present().filter(|info| info.state == NodeState::Active);
    let zones: BTreeSet<&str> = active.map(|info| info.zone.as_str()).collect();
    let shares = |group: &&Group<'_>| {
        let voters = &group.members.voters;
        let of_voters: BTreeSet<&str> = voters.iter().map(|node| seen.zone(*node)).collect();
        !group.is_changing() && of_voters.len() < voters.len().min(zones.len())
    };
    let sharing: Vec<_> = groups.iter().filter(shares).collect();
    if !sharing.is_empty() {
        let what = format!("{} has several replicas in one zone", name_groups(&sharing));
        push(all, Severity::Warning, what, "look again: replicas may be on their way");
    }
}

/// Nodes that answer and do not reach one another.
fn links(seen: &Seen, all: &mut Vec<Warning>) {
    for (node, answer) in &seen.answers {
        let Ok(answer) = answer else { continue };
        for (peer, link) in &answer.report.peers {
            if link.connected || seen.answer(*peer).is_none() {
                continue;
            }
            let why = if link.error.is_empty() { "no link yet" } else { link.error.as_str() };
            let what = format!("{node} does not reach {peer}: {why}");
            push(
                all,
                Severity::Warning,
                what,
                "both answer here: look at the network between them",
            );
        }
    }
}

fn behind(groups: &[Group<'_>], all: &mut Vec<Warning>) {
    let mut by_node: BTreeMap<NodeId, (u64, Vec<GroupId>)> = BTreeMap::new();
    for group in groups {
        for replica in &group.replicas {
            let lag = group.lag(replica).unwrap_or(0);
            if lag > LAG_MAX {
                let worst = by_node.entry(replica.node).or_default();
                worst.0 = worst.0.max(lag);
                worst.1.push(group.id);
            }
        }
    }
    for (node, (entries, groups)) in by_node {
        let what = format!(
            "{node} is up to {} entries behind in {}",
            short::count(entries),
            names(groups)
        );
        push(all, Severity::Warning, what, "it catches up; if the number grows, look at its disk");
    }
}

fn disks(seen: &Seen, all: &mut Vec<Warning>) {
    for (node, answer) in &seen.answers {
        let Ok(answer) = answer else { continue };
        let free = answer.report.disk_free_bytes;
        if free > 0 && free < DISK_FREE_BYTES_MIN {
            let what = format!("{node} has {} left on its disk", short::bytes(free));
            push(all, Severity::Warning, what, "a server whose disk is full ends itself");
        }
    }
}

fn notes(seen: &Seen, groups: &[Group<'_>], all: &mut Vec<Warning>) {
    for info in seen.present().filter(|info| info.state == NodeState::Draining) {
        let node = info.node;
        let hint = format!("`meridian admin drain {node} --off` when it may lead again");
        push(all, Severity::Note, format!("{node} is draining: it leads nothing"), hint);
    }
    let changing: Vec<_> = groups.iter().filter(|group| group.is_changing()).collect();
    if !changing.is_empty() {
        push(
            all,
            Severity::Note,
            format!("{} is changing its members", name_groups(&changing)),
            "",
        );
    }
    let repairing: Vec<_> =
        groups.iter().filter(|group| group.repairing().next().is_some()).collect();
    if !repairing.is_empty() {
        let what = format!("{} is being sent what a disk has lost", name_groups(&repairing));
        push(all, Severity::Note, what, "");
    }
    let programs: BTreeSet<&str> =
        seen.answers.values().flatten().map(|answer| answer.report.program.as_str()).collect();
    if programs.len() > 1 {
        let versions: Vec<&str> = programs.into_iter().collect();
        push(
            all,
            Severity::Note,
            format!("versions {} run side by side", versions.join(" and ")),
            "",
        );
    }
}

/// `g3`, `each of g3, g4`: so that a verb in the singular fits.
fn name_groups(groups: &[&Group<'_>]) -> String {
    let ids = groups.iter().map(|group| group.id);
    if groups.len() == 1 { names(ids) } else { format!("each of {}", names(ids)) }
}

/// The first of them, and how many more there are.
pub fn names<T: ToString>(all: impl IntoIterator<Item = T>) -> String {
    let mut all: Vec<String> = all.into_iter().map(|one| one.to_string()).collect();
    let more = all.len().saturating_sub(NAMES_MAX);
    all.truncate(NAMES_MAX);
    let text = all.join(", ");
    if more == 0 { text } else { format!("{text} and {more} more") }
}
