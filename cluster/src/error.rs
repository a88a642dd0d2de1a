//! Why a server does not start, or ends.

use proto::NodeId;
use rpc::security::SecurityError;
use spanserver::storage::StorageError;
use std::io;
use std::path::PathBuf;
use thiserror::Error;
use truetime::providers::OpenClockError;

/// Why a server does not start; what is on disk is as it was.
#[derive(Debug, Error)]
pub enum StartError {
    /// Another process has the data folder.
    #[error("{folder} is in use by another process{holder}", folder = .folder.display())]
    InUse {
        /// The folder.
        folder: PathBuf,
        /// Who, where that is known: ` (process 123)`.
        holder: String,
    },
    /// The data folder holds something else.
    #[error("{folder} is not empty and not a server's data folder (no node.toml in it)", folder = .folder.display())]
    NotOurs {
        /// The folder.
        folder: PathBuf,
    },
    /// The data folder is another node's.
    #[error("{folder} belongs to {owner}, this is {asked}", folder = .folder.display())]
    OtherNode {
        /// The folder.
        folder: PathBuf,
        /// Whose it is.
        owner: NodeId,
        /// Who wanted it.
        asked: NodeId,
    },
    /// The data folder is a server's, and something of it is wrong.
    #[error("{folder} is damaged: {what}", folder = .folder.display())]
    Damaged {
        /// The folder.
        folder: PathBuf,
        /// What is wrong.
        what: String,
    },
    /// A setting makes no sense.
    #[error("{0}")]
    Invalid(String),
    /// A new folder, and neither a universe to found nor one to join.
    #[error("{folder} is new, and nobody said which universe it is to belong to", folder = .folder.display())]
    Nowhere {
        /// The folder.
        folder: PathBuf,
    },
    /// A universe said no.
    #[error("the universe does not take {node} in: {reason}")]
    Refused {
        /// Who wanted in.
        node: NodeId,
        /// Why not.
        reason: String,
    },
    /// The port cannot be had.
    #[error("listening on {address}: {source}")]
    Listen {
        /// Where.
        address: String,
        /// What the system said.
        source: io::Error,
    },
    /// Certificates, or plaintext where that may not be.
    #[error(transparent)]
    Security(#[from] SecurityError),
    /// The clock cannot be opened.
    #[error(transparent)]
    Clock(#[from] OpenClockError),
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
}

impl StartError {
    /// What to do about it.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            StartError::InUse { .. } => Some("stop the other process first"),
            StartError::NotOurs { .. } => Some("name an empty or a new folder"),
            StartError::OtherNode { .. } => {
                Some("each node has a folder of its own; a new node takes a new number")
            }
            StartError::Nowhere { .. } => Some(
                "--init founds a universe (once, on the first node), --join HOST:PORT enters one",
            ),
            StartError::Storage(StorageError::Full(_)) => Some("free some space and try again"),
            _ => None,
        }
    }

    pub(crate) fn io(what: impl Into<String>) -> impl FnOnce(io::Error) -> StartError {
        let what = what.into();
        move |source| StartError::Io { what, source }
    }
}
