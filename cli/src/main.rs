//! # The `meridian` program
//!
//! One binary, one file per command in [`commands`]:
//!
//! | command | what it does |
//! |---|---|
//! | `sql` | a prompt on a terminal, scripts otherwise ([`shell`]) |
//! | `import` | a CSV file into a table, in batches that are each one transaction |
//! | `demo` | a cluster of processes on this host, until Ctrl-C |
//! | `admin` | a cluster at a glance, its nodes, groups and clocks; leaders moved, nodes drained and replaced |
//! | `check replicas` | what replicas have on disk, compared |
//! | `check history` | what clients did and saw, judged by the checkers of the simulator |
//! | `sim` | the simulated world, seed by seed |
//! | `lab` | experiments on clocks: what a bound buys, what breaks without it |
//! | `server` | a node of a cluster |
//! | `timemaster` | a server that says what time it is |
//! | `bench` | concurrent transfers, with an auditor who adds everything up |
//!
//! Commands open a universe in their own process ([`data`]), or connect to servers ([`target`]), with the
//! clocks of [`clock`], print
//! results through [`output`] to standard output and everything else to standard error, and end with one of the codes in
//! [`exit`]. Nothing here knows the protocol: what can be done is what `client` and, for `server`,
//! `cluster` offer. (`check` reads the storage of servers that do not run.)

mod certificates;
mod clock;
mod commands;
mod data;
mod exit;
mod history;
mod interrupt;
mod output;
mod shell;
mod target;

use clap::{Parser, Subcommand};
use exit::Exit;
use std::process::ExitCode;

/// A database with external consistency: SQL over Paxos groups, two-phase commit and bounded clocks.
#[derive(Debug, Parser)]
#[command(name = "meridian", version, after_help = AFTER_HELP, arg_required_else_help = true)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

const AFTER_HELP: &str = "\
Examples:
  meridian sql --data ./universe                      a prompt; the folder is created when it is new
  meridian sql --data ./universe -e 'SELECT 1 AS one' one statement
  meridian sql --connect db1:7100,db2:7100            a prompt, at servers that run
  meridian import --data ./universe --table t t.csv   rows from a file
  meridian sim bank --seeds 0..1000                   a thousand simulated clusters under faults
  meridian lab run sawtooth                           an experiment, and its report as a page

Exit codes:
  0    everything asked for was done
  1    a statement or an operation failed; the message says which and why
  2    the command line is wrong
  74   the disk failed; the process ended itself so that nothing unsynced is believed
  130  Ctrl-C";

#[derive(Debug, Subcommand)]
enum Command {
    /// Run SQL: a prompt on a terminal, a script otherwise.
    Sql(commands::sql::Arguments),
    /// Read a CSV file into a table.
    Import(commands::import::Arguments),
    /// Start a cluster of processes on this host, until Ctrl-C.
    #[command(after_help = commands::demo::AFTER_HELP)]
    Demo(commands::demo::Arguments),
    /// Look inside a universe, and tell it what to do.
    #[command(subcommand)]
    Admin(commands::admin::Command),
    /// Compare what replicas have on disk; judge what clients did and saw.
    #[command(subcommand)]
    Check(commands::check::Command),
    /// Run simulated clusters under faults and check every promise.
    #[command(subcommand)]
    Sim(commands::sim::Command),
    /// Experiments on clocks: what a bound buys, and what breaks without it.
    #[command(subcommand)]
    Lab(commands::lab::Command),
    /// Run a node of a cluster.
    #[command(after_help = commands::server::AFTER_HELP)]
    Server(commands::server::Arguments),
    /// Serve time to the nodes of a universe.
    #[command(after_help = commands::timemaster::AFTER_HELP)]
    Timemaster(commands::timemaster::Arguments),
    /// Measure a universe, and check it while it is busy.
    #[command(subcommand)]
    Bench(commands::bench::Command),
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let result = match arguments.command {
        Command::Sql(arguments) => block_on(commands::sql::run(arguments)),
        Command::Import(arguments) => block_on(commands::import::run(arguments)),
        Command::Demo(arguments) => block_on(commands::demo::run(arguments)),
        Command::Admin(command) => block_on(commands::admin::run(command)),
        Command::Check(command) => commands::check::run(command),
        Command::Sim(command) => commands::sim::run(command),
        Command::Lab(command) => commands::lab::run(command),
        Command::Server(arguments) => block_on(commands::server::run(arguments)),
        Command::Timemaster(arguments) => block_on(commands::timemaster::run(arguments)),
        Command::Bench(command) => block_on(commands::bench::run(command)),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(exit) => exit.tell(),
    }
}

/// Runs a command on the runtime; what it left running ends with it.
fn block_on(command: impl Future<Output = Result<(), Exit>>) -> Result<(), Exit> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| Exit::failed(format!("cannot start the runtime: {error}")))?;
    let result = runtime.block_on(command);
    runtime.shutdown_background();
    result
}
