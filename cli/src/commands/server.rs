//! `meridian server`: one node of a cluster.
//!
//! What it is told comes from flags, the environment and a file ([`sources`]), which all have the
//! names of one table ([`fields`]); [`settings`] understands and checks it, [`print`](mod@print) shows it.
//! [`life`] starts the node, says when it serves, and stops it when it is asked to; [`logs`] writes
//! what it has to say.

mod fields;
mod life;
mod logs;
mod print;
mod settings;
mod sources;
#[cfg(test)]
mod tests;

use crate::exit::Exit;
use clap::{Arg, ArgAction, ArgMatches, FromArgMatches};
use fields::{CONFIG, FIELDS, Field, Kind};
use settings::Settings;
use sources::{Effective, Said, Source};
use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// What `meridian server --help` ends with.
pub const AFTER_HELP: &str = "\
Everything can be said in three ways: --tls-cert F, MERIDIAN_TLS_CERT=F, or tls-cert = \"F\" in the
file of --config. A flag counts before the environment, that before the file, that before defaults;
--print-config shows what counts and why.

The first node founds a universe (--init); the others join it through any node that is in. Groups get
their replicas as nodes join, in as many zones as there are. A node that comes back finds its folder
and its place by itself: start it as before (--init does nothing to a folder that is a node's). A
folder belongs to one number of one universe, and is refused elsewhere.

When it serves it prints one line on standard output: `ready: n1 at HOST:PORT, http HOST:PORT`. The
log is on standard error. SIGTERM or Ctrl-C has it hand its leaderships to others, for at most
--drain-seconds, and stop (exit code 0); a second one ends it at once (130), which loses nothing
either.

Examples:
  Three nodes on this host, each in a terminal of its own:
    meridian server --node 1 --listen 127.0.0.1:7101 --data ./n1 --zone a --init
    meridian server --node 2 --listen 127.0.0.1:7102 --data ./n2 --zone b --join 127.0.0.1:7101
    meridian server --node 3 --listen 127.0.0.1:7103 --data ./n3 --zone c --join 127.0.0.1:7101

  A node on a host of its own, with TLS (scripts/certificates.sh makes certificates):
    meridian server --node 2 --listen 0.0.0.0:7100 --advertise db2.example.com:7100 \\
        --data /var/lib/meridian --zone b --join db1.example.com:7100 --clock system \\
        --tls-cert n2.crt --tls-key n2.key --tls-ca ca.crt

  The same from a file, and what counts in the end:
    meridian server --config /etc/meridian/meridian.toml --print-config

Exit codes: 0 it stopped when asked to, 1 it could not start or go on, 2 it was told nonsense,
74 its disk failed, 130 it was ended at once.";

/// Arguments of `meridian server`: the flags of [`FIELDS`], and a few that are no settings.
#[derive(Debug, Default)]
pub struct Arguments {
    /// What the flags say, by the name of the field.
    flags: BTreeMap<&'static str, String>,
    config: Option<PathBuf>,
    print_config: bool,
    until_stdin_closes: bool,
}

/// Runs the command.
///
/// # Errors
/// When what it is told makes no sense, or the node cannot start or go on.
pub async fn run(arguments: Arguments) -> Result<(), Exit> {
    let environment = sources::environment()?;
    let path = sources::file(arguments.config.as_deref(), &environment);
    let text = path.as_deref().map(read).transpose()?;
    let file = path.as_deref().zip(text.as_deref());
    let effective = sources::gather(&arguments.flags, &environment, file)?;
    let unheard = sources::unheard(&environment);
    if arguments.print_config {
        return print_config(&effective, &unheard);
    }
    let settings = Settings::new(&effective)?;
    logs::start(&settings)?;
    for warning in unheard {
        tracing::warn!(target: "server", "{warning}");
    }
    life::live(settings, arguments.until_stdin_closes).await
}

fn read(path: &Path) -> Result<String, Exit> {
    std::fs::read_to_string(path)
        .map_err(|error| Exit::Usage(format!("--config {}: {error}", path.display())))
}

/// Shows what counts, if it makes sense. What every server needs may be missing.
fn print_config(effective: &Effective, unheard: &[String]) -> Result<(), Exit> {
    let mut complete = effective.clone();
    for (name, text) in [("node", "1"), ("data", ".")] {
        let said = Said { text: text.to_owned(), by: Source::Default };
        complete.entry(name).or_insert(said);
    }
    Settings::new(&complete)?;
    for warning in unheard {
        eprintln!("meridian: warning: {warning}");
    }
    let mut out = io::stdout();
    out.write_all(print::render(effective).as_bytes())?;
    Ok(out.flush()?)
}

const UNTIL_STDIN_CLOSES: &str = "until-stdin-closes";
const PRINT_CONFIG: &str = "print-config";
const CONFIGURATION: &str = "Configuration";

impl clap::Args for Arguments {
    fn augment_args(command: clap::Command) -> clap::Command {
        let command = command.args(FIELDS.iter().map(flag));
        let config = Arg::new(CONFIG).long(CONFIG).value_name("FILE");
        let config = config.value_parser(clap::value_parser!(PathBuf));
        let print = Arg::new(PRINT_CONFIG).long(PRINT_CONFIG).action(ArgAction::SetTrue);
        let lifeline = Arg::new(UNTIL_STDIN_CLOSES).long(UNTIL_STDIN_CLOSES);
        command
            .arg(
                config
                    .help("A TOML file with the names of the flags as keys")
                    .help_heading(CONFIGURATION),
            )
            .arg(
                print
                    .help("Print what counts, and who said it, as such a file; start nothing")
                    .help_heading(CONFIGURATION),
            )
            // For who starts servers and may die: `meridian demo`.
            .arg(lifeline.action(ArgAction::SetTrue).hide(true))
    }

    fn augment_args_for_update(command: clap::Command) -> clap::Command {
        Self::augment_args(command)
    }
}

fn flag(field: &'static Field) -> Arg {
    let flag = Arg::new(field.name).long(field.name).help_heading(field.heading);
    let help = match (field.kind, field.default) {
        (Kind::Switch, _) | (_, None) => field.help.to_owned(),
        (_, Some(default)) => format!("{} [default: {default}]", field.help),
    };
    let flag = flag.help(help);
    match field.kind {
        Kind::Text | Kind::Number => flag.value_name(field.placeholder),
        Kind::List => flag.value_name(field.placeholder).action(ArgAction::Append),
        // `--init` alone, or `--init=false` against the environment or the file.
        Kind::Switch => flag
            .value_name("true|false")
            .num_args(0..=1)
            .require_equals(true)
            .default_missing_value("true"),
    }
}

impl FromArgMatches for Arguments {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let mut arguments = Arguments::default();
        arguments.update_from_arg_matches(matches)?;
        Ok(arguments)
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        for field in FIELDS {
            if let Some(texts) = matches.get_many::<String>(field.name) {
                let texts: Vec<&str> = texts.map(String::as_str).collect();
                self.flags.insert(field.name, texts.join(","));
            }
        }
        self.config = matches.get_one::<PathBuf>(CONFIG).cloned();
        self.print_config = matches.get_flag(PRINT_CONFIG);
        self.until_stdin_closes = matches.get_flag(UNTIL_STDIN_CLOSES);
        Ok(())
    }
}
