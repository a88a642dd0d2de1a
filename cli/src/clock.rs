//! `--clock SPEC` and `--allow-clock-faults`: the clocks a command goes by.

pub mod fault;
pub mod show;

use crate::exit::Exit;
use clap::Args;
use client::{Builder, ClockSpec, ClockSpecs};

/// Which clocks.
#[derive(Debug, Default, Args)]
pub struct Clocks {
    /// The clock of every node and of the clients; `n2=SPEC` or `client=SPEC` for one of them. May
    /// be repeated. `--help` tells all of it.
    #[arg(long, value_name = "SPEC", long_help = CLOCK_HELP)]
    clock: Vec<String>,
}

/// What stands behind `--clock`.
const CLOCK_HELP: &str = "\
The clock of every node and of the clients; `n2=SPEC` or `client=SPEC` for one of them alone. May be
repeated. Plain numbers are in the unit given here; 250us, 5ms, 30s and 2min name their own.

  local[:epsilon=50]      the host's clock with a constant ε (µs); right on one host [default]
  masters:HOST:PORT,…     time masters (`meridian timemaster`), polled by a daemon in this process:
                            poll=30 (s), drift=200 (µs/s that the local oscillator may be off),
                            key-file=PATH, evict=on|off
  system                  what the kernel says of its own clock; no bound unless NTP keeps it
  clockbound[:path=…]     the AWS ClockBound daemon of this host
  simulated[:…]           a clock that is wrong on purpose; absolute time is the host's:
    epsilon=1000            half the width of what it says, in µs
    offset=0                what it is ahead by (negative: behind), in µs
    drift=0                 what it gains with each second, in µs
    lie=0                   by how much it claims less than epsilon, in µs
    hasty                   it gives its latest time as its earliest too: no commit wait
    evict=on                it looks whether it keeps its promise, and refuses to work when it does
                            not (off: it goes on, and what it promised others is broken)
    applied=200             the drift that it allows for, in µs/s; more is broken
    check=250               how often it looks, in ms

A simulated clock is honest while offset + drift × time stays within epsilon − lie. Timestamps that a
clock has given out too early stay in the universe: after one that was an hour ahead, commits wait an
hour. Use a folder of its own for such experiments.";

impl Clocks {
    /// What was asked for.
    ///
    /// # Errors
    /// A text that names no clock.
    pub fn specs(&self) -> Result<ClockSpecs, Exit> {
        ClockSpecs::parse(&self.clock).map_err(|error| Exit::Usage(format!("--clock: {error}")))
    }

    /// Whether something was asked for.
    pub fn is_given(&self) -> bool {
        !self.clock.is_empty()
    }

    /// Has a universe open with these clocks. A wait for them is told on standard error, as are
    /// clocks that will break their promises.
    ///
    /// # Errors
    /// A text that names no clock.
    pub fn apply(&self, builder: Builder) -> Result<Builder, Exit> {
        let specs = self.specs()?;
        for (whose, spec) in named(&specs) {
            if let ClockSpec::Simulated(spec) = spec
                && !spec.is_honest()
                && !spec.evict
            {
                eprintln!(
                    "meridian: warning: the clock of {whose} is wrong and will not notice: this \
                     universe breaks its promises"
                );
            }
        }
        let tell = |text: &str| eprintln!("meridian: {text}");
        Ok(builder.clocks(specs).on_wait(tell))
    }
}

fn named(specs: &ClockSpecs) -> Vec<(String, &ClockSpec)> {
    let mut named = vec![("every node".to_owned(), &specs.all)];
    named.extend(specs.nodes.iter().map(|(node, spec)| (format!("n{node}"), spec)));
    named.extend(specs.client.iter().map(|spec| ("the clients".to_owned(), spec)));
    named
}

/// Leave for [`client::Universe::set_clock`].
#[derive(Debug, Default, Args)]
pub struct Faults {
    /// Simulated clocks may be made wrong while the universe runs.
    #[arg(long)]
    pub allow_clock_faults: bool,
}

impl Faults {
    /// Servers elsewhere are not opened by this process, so it has no leave to give.
    ///
    /// # Errors
    /// Leave for clocks that are not this process's.
    pub fn check(&self, is_remote: bool) -> Result<(), Exit> {
        if is_remote && self.allow_clock_faults {
            let message = "--allow-clock-faults is for universes that this process opens; a server has \
                           to be started with --allow-faults";
            return Err(Exit::Usage(message.into()));
        }
        Ok(())
    }
}
