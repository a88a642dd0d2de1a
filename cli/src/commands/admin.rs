//! `meridian admin`: a look inside, and a few orders.

mod change;
mod clock;
mod connection;
mod gather;
mod groups;
#[cfg(test)]
mod made_up;
mod nodes;
mod replicas;
mod seen;
mod status;
mod warnings;

pub use connection::Connection;
pub use gather::look;
pub use seen::Seen;

use crate::clock::Clocks;
use crate::data::{check_exists, refused};
use crate::exit::Exit;
use clap::Args;
use client::Universe;
use connection::{Connect, ConnectOr};
use proto::{GroupId, NodeId};
use std::io::{self, Write};
use std::path::PathBuf;

/// What is looked at, and what is ordered.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// A cluster at a glance; what is wrong with it first.
    #[command(after_help = status::AFTER_HELP)]
    Status(StatusArguments),
    /// Every node, one a line.
    #[command(after_help = nodes::AFTER_HELP)]
    Nodes(LookArguments),
    /// Every Paxos group.
    #[command(after_help = groups::AFTER_HELP)]
    Groups(GroupsArguments),
    /// One group, at every replica.
    #[command(after_help = groups::AFTER_HELP_ONE)]
    Group(GroupArguments),
    /// Hand the leadership of a group to a node.
    #[command(after_help = change::AFTER_HELP_MOVE)]
    MoveLeader(MoveArguments),
    /// Have a node lead nothing, as before it is stopped for long.
    #[command(after_help = change::AFTER_HELP_DRAIN)]
    Drain(DrainArguments),
    /// Give the replicas of a lost node to another.
    #[command(after_help = change::AFTER_HELP_REPLACE)]
    ReplaceNode(ReplaceArguments),
    /// What the clocks say: interval, ε, status, and the masters they have it from.
    #[command(after_help = clock::AFTER_HELP)]
    Clock(clock::Arguments),
}

/// Arguments of `meridian admin status`.
#[derive(Debug, Args)]
pub struct StatusArguments {
    #[command(flatten)]
    cluster: Connect,
    /// One JSON object.
    #[arg(long)]
    json: bool,
    /// End with exit code 1 unless the cluster is healthy.
    #[arg(long)]
    check: bool,
}

/// Arguments of `meridian admin nodes`.
#[derive(Debug, Args)]
pub struct LookArguments {
    #[command(flatten)]
    cluster: Connect,
    /// One JSON object for each node, one a line.
    #[arg(long)]
    json: bool,
}

/// Arguments of `meridian admin groups`.
#[derive(Debug, Args)]
pub struct GroupsArguments {
    /// The folder of a universe, to open it in this process.
    #[arg(long, value_name = "DIR", required_unless_present = "connect")]
    data: Option<PathBuf>,
    /// Replicas of every group, with --data; an error when it has another number.
    #[arg(long, value_name = "N", conflicts_with = "connect")]
    replicas: Option<u32>,
    #[command(flatten)]
    clocks: Clocks,
    #[command(flatten)]
    cluster: ConnectOr,
    /// JSON objects, one a line.
    #[arg(long)]
    json: bool,
}

/// Arguments of `meridian admin group`.
#[derive(Debug, Args)]
pub struct GroupArguments {
    /// Which: 3 or g3. 0 is the root group.
    #[arg(value_parser = group)]
    group: GroupId,
    #[command(flatten)]
    cluster: Connect,
    /// One JSON object.
    #[arg(long)]
    json: bool,
    /// Who holds and waits for locks, at the leader.
    #[arg(long)]
    locks: bool,
}

/// Arguments of `meridian admin move-leader`.
#[derive(Debug, Args)]
pub struct MoveArguments {
    /// Which group: 3 or g3.
    #[arg(value_parser = group)]
    group: GroupId,
    /// Who is to lead it: 2 or n2.
    #[arg(value_parser = node)]
    node: NodeId,
    #[command(flatten)]
    cluster: Connect,
    #[command(flatten)]
    wait: Wait,
}

/// Arguments of `meridian admin drain`.
#[derive(Debug, Args)]
pub struct DrainArguments {
    /// Which node: 2 or n2.
    #[arg(value_parser = node)]
    node: NodeId,
    /// It may lead again.
    #[arg(long)]
    off: bool,
    #[command(flatten)]
    cluster: Connect,
    #[command(flatten)]
    wait: Wait,
}

/// Arguments of `meridian admin replace-node`.
#[derive(Debug, Args)]
pub struct ReplaceArguments {
    /// The node that is lost: 3 or n3.
    #[arg(value_parser = node)]
    lost: NodeId,
    /// Who takes its place; whoever has room, if left out.
    #[arg(value_parser = node)]
    new: Option<NodeId>,
    /// Even though the lost one answers.
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    cluster: Connect,
    #[command(flatten)]
    wait: Wait,
}

/// How long an order is watched, and how its end is told.
#[derive(Debug, Default, Args)]
pub struct Wait {
    /// End when the order is taken, not when it is carried out.
    #[arg(long)]
    pub no_wait: bool,
    /// Tell the end as one JSON object.
    #[arg(long)]
    pub json: bool,
}

fn node(text: &str) -> Result<NodeId, String> {
    number(text, 'n')
        .filter(|number| *number > 0)
        .map(NodeId)
        .ok_or_else(|| "a node, as 2 or n2".into())
}

fn group(text: &str) -> Result<GroupId, String> {
    number(text, 'g').map(GroupId).ok_or_else(|| "a group, as 3 or g3".into())
}

fn number(text: &str, letter: char) -> Option<u32> {
    text.strip_prefix(letter).unwrap_or(text).parse().ok()
}

/// Runs the command.
///
/// # Errors
/// When the universe cannot be reached, or does not do what it is told.
pub async fn run(command: Command) -> Result<(), Exit> {
    match command {
        Command::Status(arguments) => show_status(arguments).await,
        Command::Nodes(arguments) => show_nodes(arguments).await,
        Command::Groups(arguments) => show_groups(arguments).await,
        Command::Group(arguments) => show_group(arguments).await,
        Command::MoveLeader(MoveArguments { group, node, cluster, wait }) => {
            change::move_leader(&cluster.open().await?, (group, node), &wait).await
        }
        Command::Drain(DrainArguments { node, off, cluster, wait }) => {
            change::drain(&cluster.open().await?, (node, !off), &wait).await
        }
        Command::ReplaceNode(ReplaceArguments { lost, new, force, cluster, wait }) => {
            change::replace(&cluster.open().await?, (lost, new), force, &wait).await
        }
        Command::Clock(arguments) => clock::run(arguments).await,
    }
}

async fn see(cluster: &Connect) -> Result<(Connection, Seen), Exit> {
    let connection = cluster.open().await?;
    let seen = look(&connection).await.map_err(Exit::failed)?;
    Ok((connection, seen))
}

async fn show_status(arguments: StatusArguments) -> Result<(), Exit> {
    let (_, seen) = see(&arguments.cluster).await?;
    let mut out = io::stdout();
    if arguments.json {
        writeln!(out, "{}", status::object(&seen))?;
    } else {
        status::print(&mut out, &seen)?;
    }
    let healthy = warnings::is_healthy(&warnings::of(&seen));
    if arguments.check && !healthy { Err(Exit::Failed(String::new())) } else { Ok(()) }
}

async fn show_nodes(arguments: LookArguments) -> Result<(), Exit> {
    let (_, seen) = see(&arguments.cluster).await?;
    let mut out = io::stdout();
    if !arguments.json {
        return Ok(nodes::print(&mut out, &seen)?);
    }
    for object in nodes::objects(&seen) {
        writeln!(out, "{object}")?;
    }
    Ok(())
}

async fn show_groups(arguments: GroupsArguments) -> Result<(), Exit> {
    let mut out = io::stdout();
    if let Some(cluster) = arguments.cluster.cluster() {
        let (_, seen) = see(&cluster).await?;
        if !arguments.json {
            return Ok(groups::print(&mut out, &seen)?);
        }
        for group in seen.groups() {
            writeln!(out, "{}", groups::object(&seen, &group))?;
        }
        return Ok(());
    }
    let universe = open(&arguments).await?;
    let mut all = universe.status().await;
    universe.close();
    all.sort_by_key(|status| (status.group, status.node));
    if !arguments.json {
        return Ok(replicas::print(&mut out, &all)?);
    }
    for status in &all {
        writeln!(out, "{}", replicas::object(status))?;
    }
    Ok(())
}

/// Opens a universe in this process.
async fn open(arguments: &GroupsArguments) -> Result<Universe, Exit> {
    let Some(data) = &arguments.data else {
        return Err(Exit::Usage("--data or --connect is missing".into()));
    };
    check_exists(data)?;
    let mut builder = arguments.clocks.apply(Universe::builder())?;
    if let Some(replicas) = arguments.replicas {
        builder = builder.replicas(replicas);
    }
    builder.open(data).await.map_err(refused)
}

async fn show_group(arguments: GroupArguments) -> Result<(), Exit> {
    let (connection, seen) = see(&arguments.cluster).await?;
    let group = change::known_group(&seen, arguments.group)?;
    let safe = gather::safe_times(&connection, &seen, &group).await;
    let locks = match group.leader.filter(|_| arguments.locks) {
        Some(leader) => {
            Some(gather::locks(&connection, leader, group.id).await.map_err(Exit::failed)?)
        }
        None if arguments.locks => {
            return Err(Exit::failed(format!(
                "{} has no leader: nobody knows its locks",
                group.id
            )));
        }
        None => None,
    };
    let mut out = io::stdout();
    if arguments.json {
        let mut object = groups::object_one(&seen, &group, &safe);
        if let Some(locks) = locks {
            object["lock_report"] = locks.into();
        }
        writeln!(out, "{object}")?;
        return Ok(());
    }
    groups::print_one(&mut out, &seen, &group, &safe)?;
    if let Some(locks) = locks {
        writeln!(out, "\n{}", locks.trim_end())?;
    }
    Ok(())
}
