//! Why a universe does not open.

use crate::clocks::Whose;
use spanserver::storage::StorageError;
use sql::SqlError;
use std::io;
use std::path::PathBuf;
use std::time::Duration;
use thiserror::Error;
use truetime::providers::OpenClockError;

/// Why a universe does not open; nothing was changed.
#[derive(Debug, Error)]
pub enum OpenError {
    /// Another process has it open.
    #[error("{folder} is in use by another process{holder}")]
    InUse {
        /// The folder.
        folder: PathBuf,
        /// Who, where that is known: ` (process 123)`.
        holder: String,
    },
    /// The folder holds something else.
    #[error("{folder} is not empty and not a Meridian universe (no universe.toml in it)")]
    NotOurs {
        /// The folder.
        folder: PathBuf,
    },
    /// The folder is a universe, and something of it is wrong.
    #[error("{folder} is damaged: {what}")]
    Damaged {
        /// The folder.
        folder: PathBuf,
        /// What is wrong.
        what: String,
    },
    /// Written by a version that this one does not know.
    #[error("{folder} has format {found}, this version reads format {known}")]
    Format {
        /// The folder.
        folder: PathBuf,
        /// Its format.
        found: u32,
        /// Ours.
        known: u32,
    },
    /// What was asked for does not fit what exists.
    #[error("{folder} was created with {existing} replicas, {asked} were asked for")]
    Replicas {
        /// The folder.
        folder: PathBuf,
        /// As created.
        existing: u32,
        /// As asked for.
        asked: u32,
    },
    /// A setting makes no sense.
    #[error("{0}")]
    Invalid(String),
    /// A clock cannot be opened.
    #[error("the clock of {whose}: {source}")]
    Clock {
        /// Whose it is.
        whose: Whose,
        /// What its provider lacks.
        source: OpenClockError,
    },
    /// Clocks had no bound for as long as was waited for one (T5).
    #[error("there is no time after {} s: {reason}", waited.as_secs())]
    NoTime {
        /// How long was waited.
        waited: Duration,
        /// Whose clock has no bound, and why.
        reason: String,
    },
    /// The storage refused.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// The operating system refused.
    #[error("{what}: {source}")]
    Io {
        /// What was tried.
        what: String,
        /// What it said.
        source: io::Error,
    },
    /// The groups did not elect leaders, or the catalog could not be read.
    #[error("the universe does not serve: {0}")]
    NotServing(SqlError),
}

impl OpenError {
    /// What to do about it.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            OpenError::InUse { .. } => Some("close the other process, or connect to it"),
            OpenError::NotOurs { .. } => Some("name an empty or a new folder"),
            OpenError::Replicas { .. } => {
                Some("the number of replicas is chosen when a universe is created; leave it out")
            }
            OpenError::Storage(StorageError::Full(_)) => Some("free some space and try again"),
            OpenError::NoTime { .. } => {
                Some("`meridian admin clock --clock …` without a universe shows what a clock sees")
            }
            _ => None,
        }
    }
}

/// Names what was tried when the operating system refused.
pub(crate) fn io<T>(what: impl FnOnce() -> String, result: io::Result<T>) -> Result<T, OpenError> {
    result.map_err(|source| match source.kind() {
        io::ErrorKind::StorageFull => {
            OpenError::Storage(StorageError::Full(format!("{}: {source}", what())))
        }
        _ => OpenError::Io { what: what(), source },
    })
}
