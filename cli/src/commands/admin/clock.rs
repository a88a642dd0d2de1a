//! `meridian admin clock`: what the clocks say, and where they have it from.

mod of_servers;

use super::connection::{ConnectOr, Connection};
use crate::clock::{Clocks, show};
use crate::data::{check_exists, refused};
use crate::exit::Exit;
use crate::interrupt::ctrl_c;
use crate::output::Format;
use clap::Args;
use client::{NodeClock, Universe};
use std::io::{self, Write};
use std::path::PathBuf;
use std::time::{Duration, Instant};
use truetime::spec::parse_duration;

pub const AFTER_HELP: &str = "\
With --connect it asks every server of a cluster what its clock says. With --data it opens the universe
and shows the clock of every node and that of the clients (`client`). With neither it opens one clock,
as a node would, and shows that.

  earliest, latest   absolute time is between these; ε is half of that
  status             synchronized; holdover: the last synchronisation is old, and ε grows;
                     unsynchronized, broken: no bound, so a node gives out no timestamps
  drift applied      what ε grows by: how much the local oscillator may be off
  measured           how much it is off, against the masters
  remark             why there is no bound; what is wrong with a simulated clock

One line for each master of a clock: its time less the local one, the round trip, how sure it is of
itself, and whether the last round of polls counted on it, or why not.

Examples:
  meridian admin clock                                        the host's own clock
  meridian admin clock --clock system                         what the kernel says of it
  meridian admin clock --clock masters:127.0.0.1:7001,127.0.0.1:7002,127.0.0.1:7003
  meridian admin clock --clock masters:… --for 60s --every 1s --format csv > sawtooth.csv
  meridian admin clock --connect 127.0.0.1:7101               those of a cluster
  meridian admin clock --data ./universe --clock n2=simulated:epsilon=5ms,offset=4ms

The exit code is 1 when a clock has no bound at the last look.";

/// How long a clock may take until its first bound.
const FIRST_BOUND: Duration = Duration::from_secs(5);
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Arguments of `meridian admin clock`.
#[derive(Debug, Args)]
pub struct Arguments {
    /// The folder of a universe, to see the clocks of its nodes.
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    #[command(flatten)]
    clocks: Clocks,
    #[command(flatten)]
    cluster: ConnectOr,
    /// Look again and again, for so long: 60s, 5min.
    #[arg(long = "for", value_name = "TIME", value_parser = duration)]
    for_long: Option<Duration>,
    /// How often, with --for.
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = duration)]
    every: Duration,
    /// How it is printed.
    #[arg(long, value_enum, default_value_t = Format::Table)]
    format: Format,
    /// The same as --format json.
    #[arg(long, conflicts_with = "format")]
    json: bool,
}

fn duration(text: &str) -> Result<Duration, String> {
    let parsed = parse_duration(text).filter(|duration| !duration.is_zero());
    parsed.ok_or_else(|| "a time, as 500ms, 60s or 5min".to_owned())
}

/// Runs the command.
///
/// # Errors
/// When a clock or the universe cannot be opened, or a clock has no bound at the end.
pub async fn run(mut arguments: Arguments) -> Result<(), Exit> {
    if arguments.json {
        arguments.format = Format::Json;
    }
    if let Some(cluster) = arguments.cluster.cluster() {
        if arguments.clocks.is_given() {
            return Err(Exit::Usage("--clock: the servers of --connect have their own".into()));
        }
        return look_around(&arguments, &cluster.open().await?).await;
    }
    if let Some(data) = &arguments.data {
        check_exists(data)?;
        let builder = arguments.clocks.apply(Universe::builder())?;
        let universe = builder.open(data).await.map_err(refused)?;
        let shown = look(&arguments, || universe.clocks()).await;
        universe.close();
        return shown;
    }
    let specs = arguments.clocks.specs()?;
    if !specs.nodes.is_empty() {
        return Err(Exit::Usage("--clock n…: there are nodes only with --data".into()));
    }
    let clocks = client::Clocks::open(&specs, 0, false).map_err(refused)?;
    look(&arguments, || clocks.all()).await
}

fn without_bound(clock: &NodeClock) -> bool {
    clock.reading.is_err()
}

/// The clocks of a cluster's servers.
async fn look_around(arguments: &Arguments, connection: &Connection) -> Result<(), Exit> {
    let mut out = io::stdout();
    let began = Instant::now();
    let mut looks = 0;
    loop {
        let seen = super::look(connection).await.map_err(Exit::failed)?;
        match arguments.format {
            Format::Table if looks > 0 => writeln!(out)?,
            Format::Csv if looks == 0 => writeln!(out, "{}", of_servers::CSV_HEADER)?,
            _ => {}
        }
        of_servers::print(&mut out, arguments.format, began.elapsed(), &seen)?;
        looks += 1;
        let next = arguments.every * looks;
        if arguments.for_long.is_none_or(|for_long| next > for_long) {
            return of_servers::all_bounded(&seen).map_err(Exit::Failed);
        }
        tokio::select! {
            () = tokio::time::sleep(next.saturating_sub(began.elapsed())) => {}
            () = ctrl_c() => return Err(Exit::Interrupted(String::new())),
        }
    }
}

async fn look(arguments: &Arguments, seen: impl Fn() -> Vec<NodeClock>) -> Result<(), Exit> {
    let began = Instant::now();
    // A look before the first answers of masters shows nothing; a universe opens with a majority.
    while arguments.for_long.is_none()
        && seen().iter().any(without_bound)
        && began.elapsed() < FIRST_BOUND
    {
        tokio::select! {
            () = tokio::time::sleep(LOOK_EVERY) => {}
            () = ctrl_c() => return Err(Exit::Interrupted(String::new())),
        }
    }
    let mut out = io::stdout();
    if arguments.format == Format::Csv {
        writeln!(out, "{}", show::CSV_HEADER)?;
    }
    let began = Instant::now();
    let mut looks = 0;
    loop {
        let clocks = seen();
        if looks > 0 && arguments.format == Format::Table {
            writeln!(out)?;
        }
        show::print(&mut out, arguments.format, began.elapsed(), &clocks)?;
        looks += 1;
        let next = arguments.every * looks;
        if arguments.for_long.is_none_or(|for_long| next > for_long) {
            return match clocks.iter().find(|clock| without_bound(clock)) {
                Some(clock) => {
                    let whose = clock.whose;
                    Err(Exit::Failed(format!("the clock of {whose} has no bound")))
                }
                None => Ok(()),
            };
        }
        tokio::select! {
            () = tokio::time::sleep(next.saturating_sub(began.elapsed())) => {}
            () = ctrl_c() => return Err(Exit::Interrupted(String::new())),
        }
    }
}
