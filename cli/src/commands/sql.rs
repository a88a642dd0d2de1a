//! `meridian sql`: a prompt on a terminal, scripts otherwise.

use crate::clock::Faults;
use crate::exit::Exit;
use crate::interrupt::ctrl_c;
use crate::output::Format;
use crate::shell::script::{Cutter, Piece};
use crate::shell::{ClockView, Next, Shell, Trouble, prompt};
use crate::target::Target;
use clap::{Arg, ArgAction, ArgMatches, Args, Command, FromArgMatches, value_parser};
use client::Universe;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Cursor, IsTerminal};
use std::path::PathBuf;
use tokio::sync::mpsc;

const AFTER_HELP: &str = "\
Without -e and -f, statements are read from standard input; on a terminal there is a prompt with a
history, \\d for the tables and \\? for everything else.

A script stops at its first error, with exit code 1 and the file and line on standard error. A
transaction that is open at the end is rolled back, and the exit code is 1 as well. Shell commands
stand on lines of their own: `\\set NAME` keeps the first cell of the last result, and `:{NAME}` puts
it into later statements, in quotes too.

Results: `table` is aligned; `csv` has a header line, and NULL is an empty cell where an empty text
is \"\"; `json` is one object per row, each on its own line.

Examples:
  meridian sql --data ./universe
  meridian sql --data ./universe --replicas 3 -f schema.sql -f tour.sql
  meridian sql --data ./universe -e 'SELECT COUNT(*) AS n FROM flights' --format json
  meridian sql --connect db1:7100,db2:7100 -e 'SHOW TABLES'
  meridian sql --connect db1:7100 --tls-cert me.pem --tls-key me-key.pem --tls-ca ca.pem
  meridian sql --data ./wrong --replicas 3 --clock simulated:epsilon=5ms --allow-clock-faults
                                         then `\\clock n2 drift=2000` at the prompt
  echo 'SELECT 1 AS one;' | meridian sql --data ./universe";

/// Arguments of `meridian sql`.
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub struct Arguments {
    #[command(flatten)]
    target: Target,
    #[command(flatten)]
    faults: Faults,
    #[command(flatten)]
    sources: Sources,
    /// How results are printed.
    #[arg(long, value_enum, default_value_t = Format::Table)]
    format: Format,
}

/// Where statements come from, in the order of the command line.
#[derive(Debug, Default)]
struct Sources(Vec<Source>);

#[derive(Clone, Debug)]
enum Source {
    Text(String),
    /// `-` is standard input.
    File(PathBuf),
}

// By hand, for derived arguments forget the order between one option and another.
impl Args for Sources {
    fn augment_args(command: Command) -> Command {
        command
            .arg(
                Arg::new("execute")
                    .short('e')
                    .long("execute")
                    .value_name("SQL")
                    .action(ArgAction::Append)
                    .help("Statements to run; may be repeated, in order with -f"),
            )
            .arg(
                Arg::new("file")
                    .short('f')
                    .long("file")
                    .value_name("FILE")
                    .action(ArgAction::Append)
                    .value_parser(value_parser!(PathBuf))
                    .help("A script to run, `-` for standard input; may be repeated"),
            )
    }

    fn augment_args_for_update(command: Command) -> Command {
        Sources::augment_args(command)
    }
}

impl FromArgMatches for Sources {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Sources, clap::Error> {
        let texts = matches.get_many::<String>("execute").into_iter().flatten();
        let files = matches.get_many::<PathBuf>("file").into_iter().flatten();
        let places = |id| matches.indices_of(id).into_iter().flatten();
        let mut sources: Vec<(usize, Source)> = places("execute")
            .zip(texts.cloned().map(Source::Text))
            .chain(places("file").zip(files.cloned().map(Source::File)))
            .collect();
        sources.sort_by_key(|(place, _)| *place);
        Ok(Sources(sources.into_iter().map(|(_, source)| source).collect()))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Sources::from_arg_matches(matches)?;
        Ok(())
    }
}

/// Runs the command.
///
/// # Errors
/// When the universe cannot be opened, a statement fails, or a transaction stays open.
pub async fn run(arguments: Arguments) -> Result<(), Exit> {
    let Arguments { target, faults, sources, format } = arguments;
    faults.check(target.is_remote())?;
    let is_prompt = sources.0.is_empty() && io::stdin().is_terminal();
    // What cannot be read is said before a folder is created for it.
    let scripts = if is_prompt { Vec::new() } else { scripts(sources)? };
    let builder = Universe::builder().allow_clock_faults(faults.allow_clock_faults);
    let opened = target.open_with(builder).await?;
    let mut shell = Shell::new(opened.database(), ClockView::of(&opened), format);
    let mut ended = Ok(());
    if is_prompt {
        ended = prompt::run(&mut shell).await;
    }
    for script in scripts {
        match run_script(&mut shell, script).await {
            Ok(Next::Continue) => {}
            Ok(Next::Quit) => break,
            Err(exit) => {
                ended = Err(exit);
                break;
            }
        }
    }
    if shell.close().await && ended.is_ok() && !is_prompt {
        ended = Err(Exit::Failed(String::new()));
    }
    drop(shell);
    opened.close();
    ended
}

/// A script that is being read.
struct Script {
    /// As messages name it; `None`: from the command line.
    name: Option<String>,
    lines: mpsc::Receiver<io::Result<String>>,
}

fn scripts(sources: Sources) -> Result<Vec<Script>, Exit> {
    let mut sources = sources.0;
    if sources.is_empty() {
        sources.push(Source::File("-".into()));
    }
    sources.into_iter().map(Script::open).collect()
}

impl Script {
    fn open(source: Source) -> Result<Script, Exit> {
        let (name, reader): (_, Box<dyn BufRead + Send>) = match source {
            Source::Text(text) => (None, Box::new(Cursor::new(text))),
            Source::File(path) if path.as_os_str() == "-" => {
                (Some("standard input".to_owned()), Box::new(BufReader::new(io::stdin())))
            }
            Source::File(path) => {
                let shown = path.display().to_string();
                let file =
                    File::open(&path).map_err(|error| Exit::failed(format!("{shown}: {error}")))?;
                (Some(shown), Box::new(BufReader::new(file)))
            }
        };
        // A thread of its own: nobody can be stopped while waiting for standard input.
        let (sender, lines) = mpsc::channel(64);
        std::thread::spawn(move || {
            for line in reader.lines() {
                if sender.blocking_send(line).is_err() {
                    return;
                }
            }
        });
        Ok(Script { name, lines })
    }

    /// A failure at a line, in the words a compiler would use.
    fn failure(&self, line: u64, message: &str) -> Exit {
        match &self.name {
            Some(name) => Exit::failed(format!("{name}:{line}: {message}")),
            None => Exit::failed(message),
        }
    }
}

async fn run_script(shell: &mut Shell, mut script: Script) -> Result<Next, Exit> {
    let mut cutter = Cutter::default();
    let mut line_number = 0;
    loop {
        let line = tokio::select! {
            line = script.lines.recv() => line,
            _ = ctrl_c() => return Err(Exit::Interrupted(String::new())),
        };
        let (pieces, is_end) = match line {
            Some(Ok(line)) => {
                line_number += 1;
                (cutter.line(&line), false)
            }
            Some(Err(error)) => return Err(script.failure(line_number + 1, &error.to_string())),
            None => (cutter.end(), true),
        };
        for piece in pieces {
            if run_piece(shell, &script, &piece).await? == Next::Quit {
                return Ok(Next::Quit);
            }
        }
        if is_end {
            return Ok(Next::Continue);
        }
    }
}

async fn run_piece(shell: &mut Shell, script: &Script, piece: &Piece) -> Result<Next, Exit> {
    shell.run(piece).await.map_err(|trouble| match trouble {
        Trouble::Statement(message, line) => script.failure(piece.line + line - 1, &message),
        Trouble::Output(error) => error.into(),
        Trouble::Interrupted => Exit::Interrupted("stopped".into()),
    })
}
