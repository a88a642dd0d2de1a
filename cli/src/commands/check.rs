//! `meridian check`: what replicas have on disk, compared; what clients saw and were given, judged.

mod certificates;
mod compare;
mod folders;
mod history;

use crate::exit::Exit;
use crate::output::{Format, Heading, Printer};
use clap::Args;
use compare::{Line, compare};
use indicatif::{ProgressBar, ProgressStyle};
use proto::{GroupId, NodeId};
use spanserver::storage::{Engine, Pinned, StorageError};
use sql::{Row, Type, Value, timestamp_text};
use std::collections::BTreeSet;
use std::io::{self, IsTerminal};
use std::path::PathBuf;

/// What is checked.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// The replicas of every group, in the folder of a universe, or those of its servers, that nobody
    /// has open.
    #[command(after_help = AFTER_HELP)]
    Replicas(Arguments),
    /// What clients did and saw, recorded by `bench transfer --history` or by anybody.
    #[command(after_help = history::AFTER_HELP)]
    History(history::Arguments),
    /// What commits came with, recorded by `bench transfer --certificates`.
    #[command(after_help = certificates::AFTER_HELP)]
    Certificates(certificates::Arguments),
}

const AFTER_HELP: &str = "\
Replicas that applied the same slots of the log hold the same: every version, every prepared
transaction, every outcome. A replica that is behind gave the same answers up to where it is. Log
entries that two replicas both applied are the same.

One line for each replica of each group:

  applied      the last slot of the log whose effect is there
  applied at   timestamp of the newest write among them
  versions     rows and deletions, as far back as all replicas keep history
  digest       of these versions; equal for equal replicas at the same slot
  verdict      what it was compared with, and whether it agrees

Examples:
  meridian check replicas --data ./universe
  meridian check replicas --data ./universe && echo 'nothing diverged'
  meridian check replicas --data n1 --data n2 --data n3        folders of servers, all stopped

The exit code is 1 when replicas differ; the first difference is named by group, key and slots.";

/// Arguments of `meridian check replicas`.
#[derive(Debug, Args)]
pub struct Arguments {
    /// The folder of a universe, or of a server; for the other servers once more. No process may have
    /// one of them open.
    #[arg(long, value_name = "DIR", required = true)]
    data: Vec<PathBuf>,
}

/// Runs the command.
///
/// # Errors
/// When the folder is none, is in use or damaged, and when replicas differ.
pub fn run(command: Command) -> Result<(), Exit> {
    match command {
        Command::Replicas(arguments) => replicas(&arguments),
        Command::History(arguments) => history::run(arguments),
        Command::Certificates(arguments) => certificates::run(arguments),
    }
}

fn replicas(arguments: &Arguments) -> Result<(), Exit> {
    let disks = folders::take(&arguments.data)?;
    let nodes: Vec<(NodeId, &dyn Engine)> =
        disks.engines.iter().map(|(node, engine)| (*node, engine as &dyn Engine)).collect();
    let difference = check(&nodes, &mut io::stdout())?;
    match difference {
        None => Ok(()),
        Some(difference) => Err(Exit::Failed(difference)),
    }
}

/// Compares all groups and prints the table; the first difference, if there is one.
fn check(
    nodes: &[(NodeId, &dyn Engine)],
    out: &mut (dyn io::Write + Send),
) -> Result<Option<String>, Exit> {
    let on = |node: &NodeId| {
        let node = *node;
        move |error: StorageError| Exit::failed(format!("{node}: {error}"))
    };
    let mut groups = BTreeSet::new();
    let mut views: Vec<(NodeId, &dyn Engine, Box<dyn Pinned>)> = Vec::new();
    for (node, engine) in nodes {
        groups.extend(groups_of(*engine).map_err(on(node))?);
        views.push((*node, *engine, engine.pin().map_err(on(node))?));
    }
    let bar = bar(groups.len());
    let mut first = None;
    let mut printer = Printer::new(out, Format::Table, headings())?;
    for group in groups {
        let compared = compare(group, &views, |versions| bar.set_message(versions.to_string()))
            .map_err(Exit::failed)?;
        compared.lines.iter().try_for_each(|line| printer.row(row(group, line)))?;
        first = first.or(compared.difference);
        bar.inc(1);
    }
    bar.finish_and_clear();
    printer.end()?;
    Ok(first)
}

/// The groups that have records on a disk. The key of a record is one letter and the group.
fn groups_of(engine: &dyn Engine) -> Result<BTreeSet<GroupId>, StorageError> {
    let records = engine.read_meta(b"")?;
    let groups = records.iter().filter_map(|(key, _)| key.get(1..)?.first_chunk());
    Ok(groups.map(|group| GroupId(u32::from_be_bytes(*group))).collect())
}

fn bar(groups: usize) -> ProgressBar {
    if !io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("{bar:40} {pos}/{len} groups, {msg} versions in this");
    ProgressBar::new(groups as u64)
        .with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}

fn headings() -> Vec<Heading> {
    let (text, int) = (Type::String(None), Type::Int64);
    let columns = [
        ("group", text),
        ("replica", text),
        ("applied", int),
        ("applied at", text),
        ("versions", int),
        ("digest", text),
        ("verdict", text),
    ];
    columns.into_iter().map(|(name, data_type)| Heading::new(name, data_type)).collect()
}

fn row(group: GroupId, line: &Line) -> Row {
    let int = |number: u64| Value::Int64(i64::try_from(number).unwrap_or(i64::MAX));
    vec![
        group.to_string().into(),
        line.node.to_string().into(),
        int(line.applied.position.slot.0),
        timestamp_text(line.applied.at).into(),
        int(line.versions),
        format!("{:016x}", line.digest).into(),
        line.verdict.clone().into(),
    ]
}

#[cfg(test)]
mod tests;
