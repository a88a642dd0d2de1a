//! `meridian demo`: a cluster of processes on this host, for as long as somebody looks.
//!
//! [`plan`] says which nodes there are and where they listen; [`children`] starts them as processes
//! of this very binary and sees to it that none outlives its parent. Here they are waited for, shown,
//! and ended.

mod children;
mod plan;

use super::admin::{Connection, Seen, look};
use crate::exit::Exit;
use crate::interrupt::{self, ctrl_c};
use crate::output::short;
use children::Children;
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use plan::{Folder, Plan};
use rpc::Security;
use std::io::{self, Write};
use std::path::PathBuf;
use std::time::{Duration, Instant};
use tokio::signal::unix::{Signal, SignalKind, signal};

/// What `meridian demo --help` ends with.
pub const AFTER_HELP: &str = "\
Every node is a process of its own, with a data folder and a log beside it (n1/, n1.log), and they
speak gRPC over this host's loopback, without TLS. When all groups have their replicas and a leader,
it prints a line for each node and how to connect. Ctrl-C ends all of them; without --data everything
they have written goes too.

Things to try meanwhile, in another terminal:
  meridian sql --connect 127.0.0.1:7101             any node will do
  meridian admin status --connect 127.0.0.1:7101    who leads what
  kill -9 PID                                       of a node: the others go on, and status tells

Examples:
  meridian demo
  meridian demo --nodes 5 --zones a,b,c,d,e
  meridian demo --data ./cluster                    stays, and comes back with the same command";

/// Arguments of `meridian demo`.
#[derive(Debug, Args)]
pub struct Arguments {
    /// How many nodes, 1 to 9. Three or more: every group has three replicas.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=9))]
    nodes: Option<u32>,
    /// Their zones, from the first node on; they start over when there are fewer. a,b,c,… if left
    /// out.
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    zones: Vec<String>,
    /// A folder that stays. Without it there is a temporary one.
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// The port of the first node; the others have the next ones. 7101 if that and those are free,
    /// else any.
    #[arg(long, value_name = "P")]
    base_port: Option<u16>,
    /// Groups over which rows are spread; counts when the cluster is made.
    #[arg(long, value_name = "N", default_value_t = 4)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=10_000))]
    groups: u32,
}

/// A cluster that does not serve by then will not.
const SERVES_WITHIN: Duration = Duration::from_secs(60);
const LOOK_EVERY: Duration = Duration::from_millis(25);
/// How often it is looked whether children live.
const WATCH_EVERY: Duration = Duration::from_millis(200);

/// Runs the command.
///
/// # Errors
/// When a node does not start, or all of them have ended.
pub async fn run(arguments: Arguments) -> Result<(), Exit> {
    let began = Instant::now();
    interrupt::take_over();
    let mut ends = Ends::listen()?;
    let folder = Folder::make(arguments.data.as_deref())?;
    let plan = Plan::make(&folder, &arguments)?;
    let mut children = Children::default();
    let result = live(&plan, &folder, &mut children, &mut ends, began).await;
    stop(&mut children, &mut ends).await;
    drop(children);
    let what = folder.leave();
    if result.is_ok() {
        eprintln!("meridian: all nodes have ended{what}");
    }
    result
}

/// From the first process to the order to end.
async fn live(
    plan: &Plan,
    folder: &Folder,
    children: &mut Children,
    ends: &mut Ends,
    began: Instant,
) -> Result<(), Exit> {
    children.start(plan, folder)?;
    let seen = tokio::select! {
        seen = serving(plan, children) => seen?,
        () = ends.next() => return Err(Exit::Interrupted("ended before it served".into())),
    };
    show(plan, folder, children, &seen, began.elapsed())?;
    tokio::select! {
        ended = watch(children) => Err(ended),
        () = ends.next() => Ok(()),
    }
}

/// Waits until every node is in, every group has its replicas and a leader, and every node says
/// that it serves.
async fn serving(plan: &Plan, children: &mut Children) -> Result<Seen, Exit> {
    let began = Instant::now();
    let bar = spinner();
    let addresses: Vec<String> = plan.nodes.iter().map(|node| node.address()).collect();
    let mut connection = None;
    loop {
        if let Some(exit) = children.any_ended() {
            bar.finish_and_clear();
            return Err(exit);
        }
        if connection.is_none() {
            let opened = Connection::open(addresses.clone(), Security::Plaintext).await;
            connection = opened.ok();
        }
        let seen = match &connection {
            Some(connection) => look(connection).await.ok(),
            None => None,
        };
        let ready = children.ready();
        if let Some(seen) = seen {
            let all_in = seen.map.nodes.len() >= plan.nodes.len();
            if all_in && ready == plan.nodes.len() && seen.is_settled(plan.replicas as usize) {
                bar.finish_and_clear();
                return Ok(seen);
            }
            let led = seen.groups().iter().filter(|group| group.leader.is_some()).count();
            let (nodes, groups) = (seen.map.nodes.len(), seen.map.groups.len());
            bar.set_message(format!("{nodes} nodes are in, {led} of {groups} groups are led"));
        }
        if began.elapsed() > SERVES_WITHIN {
            bar.finish_and_clear();
            return Err(children.not_serving(SERVES_WITHIN));
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// Seen on a terminal only.
fn spinner() -> ProgressBar {
    let style = ProgressStyle::with_template("{spinner} starting: {msg} {elapsed}");
    let bar = ProgressBar::new_spinner();
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_spinner()));
    bar.enable_steady_tick(Duration::from_millis(100));
    bar
}

fn show(
    plan: &Plan,
    folder: &Folder,
    children: &Children,
    seen: &Seen,
    took: Duration,
) -> Result<(), Exit> {
    let mut out = io::stdout();
    for (node, child) in plan.nodes.iter().zip(children.all()) {
        let (number, address, zone) = (node.number, node.address(), &node.zone);
        writeln!(out, "n{number}  {address}  zone {zone}  pid {}", child.id())?;
    }
    let groups = seen.map.groups.len();
    writeln!(
        out,
        "serving after {}: {groups} groups, {} replicas each; logs in {}",
        short::time(took),
        plan.replicas,
        folder.path().display()
    )?;
    let address = plan.nodes[0].address();
    writeln!(out, "\n  meridian sql --connect {address}")?;
    writeln!(out, "  meridian admin status --connect {address}\n")?;
    writeln!(
        out,
        "Ctrl-C ends it{}",
        if folder.stays() { "" } else { ", and removes everything" }
    )?;
    Ok(out.flush()?)
}

/// Tells of children that end; ends itself when none is left.
async fn watch(children: &mut Children) -> Exit {
    loop {
        for told in children.newly_ended() {
            eprintln!("meridian: {told}");
        }
        if children.all_ended() {
            return Exit::failed("no node is left");
        }
        tokio::time::sleep(WATCH_EVERY).await;
    }
}

/// Ends all children; whoever asks once more does not want to wait for that.
async fn stop(children: &mut Children, ends: &mut Ends) {
    tokio::select! {
        () = children.stop() => {}
        () = ends.next() => children.kill(),
    }
}

/// Everything by which somebody says that it is enough.
struct Ends {
    terminations: Signal,
    hang_ups: Signal,
}

impl Ends {
    fn listen() -> Result<Ends, Exit> {
        let listen = |kind| {
            signal(kind).map_err(|error| Exit::failed(format!("cannot listen to signals: {error}")))
        };
        let (terminations, hang_ups) =
            (listen(SignalKind::terminate())?, listen(SignalKind::hangup())?);
        Ok(Ends { terminations, hang_ups })
    }

    async fn next(&mut self) {
        tokio::select! {
            () = ctrl_c() => {}
            _ = self.terminations.recv() => {}
            _ = self.hang_ups.recv() => {}
        }
    }
}
