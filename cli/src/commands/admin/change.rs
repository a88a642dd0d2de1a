//! Orders that take a while: `move-leader`, `drain`, `replace-node`.
//!
//! The leader of the root group takes an order, and carries it out whether or not anybody watches.
//! Whoever gave it watches here, by looking at the cluster until it is as it was to be: the answer
//! to the order says that it has begun, not more.

use super::Wait;
use super::gather::{Control, look};
use super::seen::Seen;
use super::warnings::names;
use crate::exit::Exit;
use crate::interrupt::ctrl_c;
use indicatif::{ProgressBar, ProgressStyle};
use proto::control::ControlRequest;
use proto::universe::{NodeInfo, NodeState};
use proto::{Error, GroupId, NodeId};
use rpc::CallError;
use serde_json::json;
use std::collections::BTreeSet;
use std::fmt::Display;
use std::io::{self, Write};
use std::time::{Duration, Instant};

pub const AFTER_HELP_MOVE: &str = "\
The group's leader hands over as soon as the other has applied what it has; requests wait for that
for some milliseconds. Where the node is slow or away, the group stays with its leader, and the
order is repeated until it succeeds or Ctrl-C. Leaderships are kept spread equally over the nodes, so
where one comes to a node that leads more than others, some group goes elsewhere, maybe the same.

Examples:
  meridian admin move-leader 3 2 --connect 127.0.0.1:7101     group g3 to node n2
  meridian admin move-leader g3 n2 --connect 127.0.0.1:7101   the same";

pub const AFTER_HELP_DRAIN: &str = "\
Before a node is stopped for long, or looked at: others take over all that it leads, and it is given
nothing to lead until `--off`. Its replicas stay. (A server that is stopped with SIGTERM hands its
leaderships over by itself.)

Examples:
  meridian admin drain 2 --connect 127.0.0.1:7101          ends when n2 leads nothing
  meridian admin drain 2 --off --connect 127.0.0.1:7101    it may lead again";

pub const AFTER_HELP_REPLACE: &str = "\
For a node whose disk is lost. Its replicas go to a node that is there: copied from the others first
(a learner), then counted instead of it (a joint change), group after group; what is served goes on
being served. The lost number is never used again: a new disk is a new node.

A node that still answers is not taken for lost. --force says that it is meant all the same, because
it has lost its clock, say, or the others; the leader of the root group refuses while it hears of it.

Examples:
  meridian server --node 4 --zone c --join db1:7101 …      first, something to put the replicas on
  meridian admin replace-node 3 4 --connect db1:7101       n4 takes the place of n3
  meridian admin replace-node 3 --connect db1:7101         whoever has room does";

/// Between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// An order that nobody took is given again for so long.
const ORDER_FOR: Duration = Duration::from_secs(15);
/// A leadership that has not moved by then is asked for again.
const MOVE_AGAIN: Duration = Duration::from_secs(5);

/// How far an order is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Progress {
    /// What is still to be done, and was in the beginning at most.
    pub left: u64,
    /// In words.
    pub text: String,
}

/// Moves the leadership of a group.
///
/// # Errors
/// There is no such group or node; nobody takes the order; Ctrl-C.
pub async fn move_leader(
    control: &impl Control,
    (group, to): (GroupId, NodeId),
    wait: &Wait,
) -> Result<(), Exit> {
    let seen = look_first(control).await?;
    known_node(&seen, to)?;
    let now = known_group(&seen, group)?;
    let members = &now.members;
    if !members.voters.contains(&to) || members.witnesses.contains(&to) {
        let may: Vec<_> = members.voters.difference(&members.witnesses).collect();
        return Err(Exit::failed(format!(
            "{to} cannot lead {group}: it is no voter of it with rows\nHint: {} can",
            names(may)
        )));
    }
    let from = now.leader;
    if from == Some(to) {
        return told(
            wait,
            &format!("{group} is led by {to} already"),
            json!({
                "group": group.0, "leader": to.0, "done": true, "took_ms": 0.0,
            }),
        );
    }
    let request = ControlRequest::MoveLeader { group, to };
    let began = order(control, &request, false).await?;
    let moved = |seen: &Seen| {
        let leader = seen.group(group).and_then(|group| group.leader);
        let text = leader.map_or("nobody leads".to_owned(), |leader| format!("led by {leader}"));
        Progress { left: u64::from(leader != Some(to)), text }
    };
    let label = format!("moving {group} to {to}");
    let done = watch(control, wait, &label, Some((&request, MOVE_AGAIN)), moved).await?;
    let text = match done {
        true => format!("{group} is led by {to}"),
        false => format!("{group} is being moved to {to}"),
    };
    told(
        wait,
        &text,
        json!({
            "group": group.0,
            "from": from.map(|node| node.0),
            "leader": done.then_some(to.0),
            "done": done,
            "took_ms": took_ms(began),
        }),
    )
}

/// Has a node lead nothing, or lets it lead again.
///
/// # Errors
/// There is no such node; nobody takes the order; Ctrl-C.
pub async fn drain(
    control: &impl Control,
    (node, on): (NodeId, bool),
    wait: &Wait,
) -> Result<(), Exit> {
    let seen = look_first(control).await?;
    let info = known_node(&seen, node)?;
    if info.state == NodeState::Removed {
        return Err(Exit::failed(format!("{node} is removed: it leads nothing, for good")));
    }
    let led = led_by(&seen, node);
    let began = order(control, &ControlRequest::Drain { node, on }, false).await?;
    let wanted = if on { NodeState::Draining } else { NodeState::Active };
    let drained = |seen: &Seen| {
        let led = if on { led_by(seen, node) } else { 0 };
        let is_noted = seen.map.nodes.get(&node).is_some_and(|info| info.state == wanted);
        let text = if on { format!("{led} left") } else { String::new() };
        Progress { left: led.max(u64::from(!is_noted)), text }
    };
    let label = if on { format!("draining {node}") } else { format!("{node} may lead again") };
    let done = watch(control, wait, &label, None, drained).await?;
    let text = match (on, done) {
        (true, true) => format!("{node} leads nothing; {led} of its groups are led by others"),
        (true, false) => format!("{node} is being drained of {led} groups"),
        (false, _) => format!("{node} may lead again"),
    };
    told(
        wait,
        &text,
        json!({
            "node": node.0,
            "draining": on,
            "led_before": led,
            "done": done,
            "took_ms": took_ms(began),
        }),
    )
}

/// Gives the replicas of a lost node to another.
///
/// # Errors
/// There are no such nodes, or the lost one answers; nobody takes the order; Ctrl-C.
pub async fn replace(
    control: &impl Control,
    (lost, by): (NodeId, Option<NodeId>),
    force: bool,
    wait: &Wait,
) -> Result<(), Exit> {
    let seen = look_first(control).await?;
    if known_node(&seen, lost)?.state == NodeState::Removed && replicas_at(&seen, lost) == 0 {
        return told(
            wait,
            &format!("{lost} is removed already"),
            json!({
                "lost": lost.0, "by": by.map(|node| node.0), "done": true, "took_ms": 0.0,
            }),
        );
    }
    check_replacement(&seen, lost, by, force)?;
    let before = replicas_at(&seen, lost);
    // One that has just been lost counts as alive for some seconds more.
    let began = order(control, &ControlRequest::Replace { lost, by }, true).await?;
    let replaced = |seen: &Seen| {
        let left = replicas_at(seen, lost);
        let state = seen.map.nodes.get(&lost).map(|info| info.state);
        let is_gone = state == Some(NodeState::Removed);
        let new = by.map_or(0, |by| replicas_at(seen, by));
        let text = match by {
            Some(by) => format!("{left} groups left, {new} at {by}"),
            None => format!("{left} groups left"),
        };
        Progress { left: left.max(u64::from(!is_gone)), text }
    };
    let label = format!("replacing {lost}");
    let done = watch(control, wait, &label, None, replaced).await?;
    let text = match done {
        true => format!("{lost} is removed; {before} groups do without it"),
        false => format!("{lost} is being replaced in {before} groups"),
    };
    told(
        wait,
        &text,
        json!({
            "lost": lost.0,
            "by": by.map(|node| node.0),
            "groups": before,
            "done": done,
            "took_ms": took_ms(began),
        }),
    )
}

fn check_replacement(
    seen: &Seen,
    lost: NodeId,
    by: Option<NodeId>,
    force: bool,
) -> Result<(), Exit> {
    if seen.answer(lost).is_some() && !force {
        return Err(Exit::failed(format!(
            "{lost} answers, so it is not lost\nHint: stop it first; --force if it is to go all \
             the same"
        )));
    }
    let Some(by) = by else { return Ok(()) };
    if by == lost {
        return Err(Exit::Usage(format!(
            "{lost} cannot take its own place: a new disk is a new node"
        )));
    }
    let info = known_node(seen, by)?;
    if info.state != NodeState::Active || seen.answer(by).is_none() {
        return Err(Exit::failed(format!(
            "{by} cannot take the place of {lost}: it is {}",
            super::nodes::state(seen, by, info.state)
        )));
    }
    Ok(())
}

/// How many groups a node leads, as far as anybody says.
fn led_by(seen: &Seen, node: NodeId) -> u64 {
    seen.groups().iter().filter(|group| group.leader == Some(node)).count() as u64
}

/// How many groups count on a node, by the map and by what their leaders say.
fn replicas_at(seen: &Seen, node: NodeId) -> u64 {
    let groups = seen.groups();
    let counts = |group: &&super::seen::Group<'_>| {
        let named = |members: &proto::request::Members| {
            members.voters.contains(&node) || members.learners.contains(&node)
        };
        named(&group.members)
            || seen.map.groups.get(&group.id).is_some_and(|one| named(&one.members))
    };
    groups.iter().filter(counts).count() as u64
}

async fn look_first(control: &impl Control) -> Result<Seen, Exit> {
    look(control)
        .await
        .map_err(|error| Exit::failed(format!("the cluster does not answer: {error}")))
}

/// A node that ever joined.
///
/// # Errors
/// There is none of this number; those that there are.
pub fn known_node(seen: &Seen, node: NodeId) -> Result<&NodeInfo, Exit> {
    seen.map.nodes.get(&node).ok_or_else(|| {
        let known =
            seen.map.nodes.values().map(|info| format!("{} (zone {})", info.node, info.zone));
        Exit::failed(format!("there is no node {node}\nHint: there are {}", names(known)))
    })
}

/// A group.
///
/// # Errors
/// There is none of this number; those next to it.
pub fn known_group(seen: &Seen, id: GroupId) -> Result<super::seen::Group<'_>, Exit> {
    seen.group(id).ok_or_else(|| {
        let mut near: Vec<GroupId> = seen.map.groups.keys().copied().collect();
        near.sort_by_key(|known| known.0.abs_diff(id.0));
        near.truncate(5);
        let near: BTreeSet<GroupId> = near.into_iter().collect();
        let total = seen.map.groups.len();
        Exit::failed(format!(
            "there is no group {id}\nHint: of {total} groups, {} are nearest",
            names(near)
        ))
    })
}

/// Gives an order to the leader of the root group; says when. While there is none it is given
/// again: orders name what is to be, so two of them are as good as one.
/// With `patient` also where it is refused for what the cluster is now.
async fn order(
    control: &impl Control,
    request: &ControlRequest,
    patient: bool,
) -> Result<Instant, Exit> {
    let began = Instant::now();
    loop {
        let error = tokio::select! {
            answer = control.order(request.clone()) => match answer {
                Ok(_) => return Ok(began),
                Err(error) => error,
            },
            () = ctrl_c() => return Err(Exit::Interrupted("nobody took the order".into())),
        };
        let is_state = matches!(error, CallError::Refused(Error::FailedPrecondition(_)));
        let is_late = began.elapsed() > ORDER_FOR;
        let is_waited_for = is_state && patient && !is_late;
        if !may_pass(&error) && !is_waited_for {
            return Err(Exit::failed(error));
        }
        if is_late {
            return Err(Exit::failed(format!(
                "nobody takes the order: {error}\nHint: the root group needs a leader: see \
                 `meridian admin status`"
            )));
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// Whether the same order may be taken later.
fn may_pass(error: &CallError) -> bool {
    let CallError::Refused(error) = error else { return true };
    matches!(
        error,
        Error::NotLeader { .. }
            | Error::StaleBallot { .. }
            | Error::StaleRoute { .. }
            | Error::ClockUnavailable { .. }
            | Error::ResourceExhausted(_)
            | Error::DeadlineExceeded(_)
            | Error::OutcomeUnknown { .. }
            | Error::Aborted { .. }
    )
}

/// Looks until nothing is left to do. `false`: nobody wanted to wait for that.
async fn watch(
    control: &impl Control,
    wait: &Wait,
    label: &str,
    again: Option<(&ControlRequest, Duration)>,
    progress: impl Fn(&Seen) -> Progress,
) -> Result<bool, Exit> {
    if wait.no_wait {
        return Ok(false);
    }
    let bar = bar(label);
    let mut ordered = Instant::now();
    loop {
        // A look may fail while leaders change: the next one tells.
        let seen = tokio::select! {
            seen = look(control) => seen,
            () = ctrl_c() => return Err(interrupted(&bar, label)),
        };
        if let Ok(seen) = &seen {
            let now = progress(seen);
            let total = bar.length().unwrap_or(0).max(now.left);
            bar.set_length(total);
            bar.set_position(total - now.left);
            bar.set_message(now.text);
            if now.left == 0 {
                bar.finish_and_clear();
                return Ok(true);
            }
        }
        if let Some((request, every)) = again
            && ordered.elapsed() > every
        {
            order(control, request, false).await?;
            ordered = Instant::now();
        }
        tokio::select! {
            () = tokio::time::sleep(LOOK_EVERY) => {}
            () = ctrl_c() => return Err(interrupted(&bar, label)),
        }
    }
}

fn interrupted(bar: &ProgressBar, label: &str) -> Exit {
    bar.finish_and_clear();
    Exit::Interrupted(format!(
        "no longer {label}, as far as this terminal goes: the cluster carries on with it, and \
         `meridian admin status` tells how it goes"
    ))
}

/// Seen on a terminal only.
fn bar(label: &str) -> ProgressBar {
    let style = ProgressStyle::with_template("{prefix} [{bar:24}] {pos}/{len} {msg} {elapsed}");
    let style = style.unwrap_or_else(|_| ProgressStyle::default_bar());
    let bar =
        ProgressBar::new(0).with_style(style.progress_chars("=> ")).with_prefix(label.to_owned());
    bar.enable_steady_tick(Duration::from_millis(200));
    bar
}

fn took_ms(began: Instant) -> f64 {
    began.elapsed().as_secs_f64() * 1e3
}

fn told(wait: &Wait, text: &impl Display, object: serde_json::Value) -> Result<(), Exit> {
    let mut out = io::stdout();
    if wait.json {
        writeln!(out, "{object}")?
    } else {
        writeln!(out, "{text}")?
    }
    Ok(())
}

#[cfg(test)]
mod tests;
