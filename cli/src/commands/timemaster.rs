//! `meridian timemaster`: a server that says what time it is, to the time daemons of others.

use crate::exit::Exit;
use crate::interrupt;
use clap::{Args, ValueEnum};
use std::io::{self, ErrorKind, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use tokio::signal::unix::{SignalKind, signal};
use truetime::daemon::MasterKind;
use truetime::key::Key;
use truetime::providers::{Master, MasterConfig, MasterFaults, new_key_file, read_key_file};

/// What `meridian timemaster --help` ends with.
pub const AFTER_HELP: &str = "\
A node that is given several masters asks them all, believes what a majority of them agree on, and
knows from the way there and back by how much it may be off. A master here stands on the clock of
its host; --lie-offset-us, --drift-ppm and --freeze make it one that is wrong, --delay-us one that
is far away, to see what nodes make of that.

Anybody who can send datagrams could pretend to be a master. A key that masters and nodes share
prevents it; without one, masters are found on this host only.

The address is the first line on standard output; it tells the port where --listen has port 0.
Ctrl-C or a termination signal ends the master, exit code 0, and it tells what it has answered.

Examples:
  meridian timemaster --kind gps --listen 127.0.0.1:4601
  meridian timemaster --kind atomic --listen 127.0.0.1:4602
  meridian timemaster --kind gps --listen 127.0.0.1:4603 --lie-offset-us 500000    a liar
  meridian sql --data ./universe \\
      --clock masters:127.0.0.1:4601,127.0.0.1:4602,127.0.0.1:4603,poll=5

  meridian timemaster --new-key ./masters.key                                     once, for all
  meridian timemaster --kind gps --listen 0.0.0.0:4600 --key-file ./masters.key";

/// Arguments of `meridian timemaster`.
#[derive(Debug, Args)]
pub struct Arguments {
    /// What it says it stands on: `gps` is as certain as it was, `atomic` slowly less so.
    #[arg(long, value_name = "KIND", required_unless_present = "new_key")]
    kind: Option<Kind>,

    /// Where it listens. Port 0: where there is room.
    #[arg(long, value_name = "IP:PORT", default_value = "127.0.0.1:0")]
    listen: SocketAddr,

    /// By how much it may be off, in microseconds: what it claims.
    #[arg(long, value_name = "N", default_value_t = MasterConfig::UNCERTAINTY_US_DEFAULT)]
    uncertainty_us: u64,

    /// It is ahead by this many microseconds (negative: behind), and does not claim to be.
    #[arg(long, value_name = "N", default_value_t = 0, allow_negative_numbers = true)]
    lie_offset_us: i64,

    /// It gains this many microseconds per second from its start on (negative: loses).
    #[arg(long, value_name = "N", default_value_t = 0.0, allow_negative_numbers = true)]
    #[arg(value_parser = finite)]
    drift_ppm: f64,

    /// Its time stands still from its start on.
    #[arg(long)]
    freeze: bool,

    /// Its answers take this much longer, in microseconds, half of it on the way to it.
    #[arg(long, value_name = "N", default_value_t = 0)]
    #[arg(value_parser = clap::value_parser!(u64).range(..=10_000_000))]
    delay_us: u64,

    /// The file with the key that it shares with those who ask.
    #[arg(long, value_name = "FILE")]
    key_file: Option<PathBuf>,

    /// Writes a new key to a file that does not exist yet, and ends.
    #[arg(long, value_name = "FILE", exclusive = true)]
    new_key: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Kind {
    Gps,
    Atomic,
}

/// Runs the command.
///
/// # Errors
/// When the key or the address cannot be had.
pub async fn run(arguments: Arguments) -> Result<(), Exit> {
    if let Some(path) = &arguments.new_key {
        return new_key(path);
    }
    let config = config(&arguments)?;
    let lonely = config.key.is_public();
    interrupt::take_over();
    let mut terminated = signal(SignalKind::terminate())
        .map_err(|error| Exit::failed(format!("cannot listen to signals: {error}")))?;
    let master = Master::start(config)
        .map_err(|error| Exit::failed(format!("cannot listen on {}: {error}", arguments.listen)))?;
    let mut out = io::stdout();
    writeln!(out, "listening on {}", master.address())?;
    out.flush()?;
    if lonely {
        eprintln!(
            "meridian: no --key-file: anybody on this host can say that it is a time master, and \
             will be believed"
        );
    }
    tokio::select! {
        () = interrupt::ctrl_c() => {}
        _ = terminated.recv() => {}
    }
    eprintln!("{}", master.counts());
    Ok(())
}

fn config(arguments: &Arguments) -> Result<MasterConfig, Exit> {
    let kind = match arguments.kind {
        Some(Kind::Gps) => MasterKind::Gps,
        Some(Kind::Atomic) => MasterKind::Atomic,
        None => return Err(Exit::Usage("--kind is missing: gps or atomic".to_owned())),
    };
    let key = match &arguments.key_file {
        Some(path) => read_key_file(path)
            .map_err(|error| Exit::failed(format!("key file {}: {error}", path.display())))?,
        None if arguments.listen.ip().is_loopback() => Key::PUBLIC,
        None => {
            return Err(Exit::Usage(format!(
                "others than this host can reach {}, and there is no key to know its answers by\n\
                 Hint: `meridian timemaster --new-key FILE` writes one; give it to this master and \
                 to the nodes with --key-file",
                arguments.listen
            )));
        }
    };
    let Arguments { lie_offset_us, drift_ppm, freeze, delay_us, .. } = *arguments;
    Ok(MasterConfig {
        listen: arguments.listen,
        key,
        uncertainty_us: arguments.uncertainty_us,
        faults: MasterFaults { lie_offset_us, drift_ppm, freeze, delay_us },
        ..MasterConfig::new(kind)
    })
}

fn new_key(path: &Path) -> Result<(), Exit> {
    match new_key_file(path) {
        Ok(_) => {
            eprintln!(
                "wrote a new key to {}: give it to masters and nodes, and to nobody else",
                path.display()
            );
            Ok(())
        }
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Err(Exit::failed(format!(
            "{} exists and stays what it is: a key that is in use must not vanish",
            path.display()
        ))),
        Err(error) => Err(Exit::failed(format!("cannot write {}: {error}", path.display()))),
    }
}

fn finite(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(number) if number.is_finite() => Ok(number),
        _ => Err("not a number".to_owned()),
    }
}
