//! The prompt: lines from a person, with a history.

use super::script::Cutter;
use super::{COMMANDS, Next, Shell, Trouble};
use crate::exit::Exit;
use crate::interrupt;
use rustyline::DefaultEditor;
use rustyline::error::ReadlineError;
use std::env;
use std::fs;
use std::path::PathBuf;

const WELCOME: &str =
    "Meridian. Statements end with a semicolon; \\? for help, \\q or Ctrl-D to leave.";

/// Reads and runs until the person leaves.
///
/// # Errors
/// When the terminal cannot be read or written any more.
pub async fn run(shell: &mut Shell) -> Result<(), Exit> {
    interrupt::take_over();
    let mut editor = DefaultEditor::new().map_err(Exit::failed)?;
    // Without a place for it, the history lasts as long as the prompt.
    let history = history_file();
    if let Some(path) = &history {
        let _ = editor.load_history(path);
    }
    println!("{WELCOME}");
    let ended = converse(shell, &mut editor).await;
    if let Some(path) = &history {
        let _ = editor.save_history(path);
    }
    ended
}

async fn converse(shell: &mut Shell, editor: &mut DefaultEditor) -> Result<(), Exit> {
    let mut cutter = Cutter::default();
    let mut entry = String::new();
    loop {
        let prompt = match (cutter.is_pending(), shell.in_transaction()) {
            (true, _) => "     ...> ",
            (false, true) => "meridian*> ",
            (false, false) => "meridian> ",
        };
        let line = match tokio::task::block_in_place(|| editor.readline(prompt)) {
            Ok(line) => line,
            Err(ReadlineError::Interrupted | ReadlineError::Signal(_)) => {
                cutter.forget();
                entry.clear();
                continue;
            }
            Err(ReadlineError::Eof) => return Ok(()),
            Err(error) => return Err(Exit::failed(error)),
        };
        if !cutter.is_pending() {
            match line.trim().trim_end_matches(';').to_lowercase().as_str() {
                "help" | "?" => {
                    println!("{COMMANDS}\n");
                    continue;
                }
                "exit" | "quit" => return Ok(()),
                _ => {}
            }
        }
        if !entry.is_empty() {
            entry.push('\n');
        }
        entry.push_str(&line);
        let pieces = cutter.line(&line);
        if !cutter.is_pending() {
            let _ = editor.add_history_entry(std::mem::take(&mut entry).trim());
        }
        for piece in pieces {
            match shell.run(&piece).await {
                Ok(Next::Continue) => {}
                Ok(Next::Quit) => return Ok(()),
                Err(Trouble::Statement(message, _)) => {
                    eprintln!("error: {message}\n");
                    break;
                }
                Err(Trouble::Interrupted) => {
                    eprintln!("stopped\n");
                    break;
                }
                Err(Trouble::Output(error)) => return Err(error.into()),
            }
        }
    }
}

/// Where the history is kept between prompts, if there is a place.
fn history_file() -> Option<PathBuf> {
    let folder = match env::var_os("XDG_STATE_HOME").filter(|folder| !folder.is_empty()) {
        Some(folder) => PathBuf::from(folder),
        None => PathBuf::from(env::var_os("HOME")?).join(".local/state"),
    };
    let folder = folder.join("meridian");
    fs::create_dir_all(&folder).ok()?;
    Some(folder.join("history"))
}
