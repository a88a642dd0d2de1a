//! # The `meridian` program
//!
//! One binary, one file per command in [`commands`]:
//!
//! | command | what it does |
//! |---|---|
//! | `sim` | the simulated world, seed by seed |
//!
//! Results go to standard output, everything else to standard error, and commands end with one of
//! the codes in [`exit`].
//!
//! ## What is absent, on purpose
//! Servers that listen on sockets, and commands that talk to them, are not built yet.

mod commands;
mod exit;

use clap::{Parser, Subcommand};
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
  meridian sim bank --seeds 0..1000                   a thousand simulated clusters under faults

Exit codes:
  0    everything asked for was done
  1    a statement or an operation failed; the message says which and why
  2    the command line is wrong
  74   the disk failed; the process ended itself so that nothing unsynced is believed
  130  Ctrl-C";

#[derive(Debug, Subcommand)]
enum Command {
    /// Run simulated clusters under faults and check every promise.
    #[command(subcommand)]
    Sim(commands::sim::Command),
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let result = match arguments.command {
        Command::Sim(command) => commands::sim::run(command),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(exit) => exit.tell(),
    }
}
