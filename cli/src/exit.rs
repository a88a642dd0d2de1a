//! How a command ends when it does not end well.

use std::fmt;
use std::io;
use std::process::ExitCode;

/// Why a command stops, and the code it stops with.
#[derive(Debug)]
pub enum Exit {
    /// A statement or an operation failed: 1. The message is empty when all has been said.
    Failed(String),
    /// The command line asks for what cannot be: 2.
    Usage(String),
    /// Ctrl-C: 130. The message says what was done until then, if there is something to say.
    Interrupted(String),
}

impl Exit {
    /// A failure with its message.
    pub fn failed(message: impl fmt::Display) -> Exit {
        Exit::Failed(message.to_string())
    }

    /// Prints the message to standard error; the code remains.
    pub fn tell(self) -> ExitCode {
        let (code, message) = match self {
            Exit::Failed(message) => (1, message),
            Exit::Usage(message) => (2, message),
            Exit::Interrupted(message) => (130, message),
        };
        if !message.is_empty() {
            eprintln!("meridian: {message}");
        }
        ExitCode::from(code)
    }
}

/// Writing to standard output failed: usually nobody reads it any more.
impl From<io::Error> for Exit {
    fn from(error: io::Error) -> Exit {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Exit::failed("nobody reads the output any more"),
            _ => Exit::failed(error),
        }
    }
}
