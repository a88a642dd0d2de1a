//! Why a client does not come to a cluster, and why a cluster does not do what it is told.

use proto::NodeId;
use rpc::CallError;
use sql::SqlError;
use std::fmt;
use thiserror::Error as ThisError;
use truetime::providers::OpenClockError;

/// Why there is no connection.
#[derive(Clone, Debug, ThisError)]
pub enum ConnectError {
    /// An address is none, or there is not even one.
    #[error("{0}")]
    Address(String),
    /// Nobody answers at any of the addresses: each with its reason.
    #[error("no server answers: {}", Listed(.tried))]
    Unreachable {
        /// The addresses, and why not.
        tried: Vec<(String, String)>,
    },
    /// There are servers, and they belong to no universe yet.
    #[error("the server at {address} is not part of a universe yet{}", .said.as_ref().map_or(String::new(), |said| format!(": {said}")))]
    NoUniverse {
        /// One of them.
        address: String,
        /// What it said.
        said: Option<String>,
    },
    /// The addresses belong to different universes.
    #[error("{} is of the universe {}, and {} of the universe {}", .one.0, .one.1, .other.0, .other.1)]
    Mixed {
        /// An address, and its universe's identity.
        one: (String, String),
        /// Another one.
        other: (String, String),
    },
    /// No node knows what time it is (T5).
    #[error("no server knows what time it is: {0}")]
    NoTime(String),
    /// The clock that was asked for cannot be opened.
    #[error("the clock of this client: {0}")]
    Clock(OpenClockError),
    /// There is a universe, but nobody who leads its groups, or its catalog cannot be read.
    #[error("the universe does not serve: {0}")]
    NotServing(SqlError),
}

impl ConnectError {
    /// What to do about it.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            ConnectError::Address(_) => Some("name servers as HOST:PORT, with commas in between"),
            ConnectError::Unreachable { tried } => Some(unreachable_hint(tried)),
            ConnectError::NoUniverse { .. } => {
                Some("found one with `meridian server --init` on one node; the others --join it")
            }
            ConnectError::Mixed { .. } => Some("name servers of one universe only"),
            ConnectError::NoTime(_) => Some(
                "look at the servers' clocks with `meridian admin clock`, or give this client one of \
                 its own with --clock",
            ),
            ConnectError::Clock(_) => None,
            ConnectError::NotServing(_) => Some(
                "a majority of the replicas of each group has to run; `meridian admin status` shows \
                 who does",
            ),
        }
    }
}

/// Trouble with TLS is told apart from servers that do not run.
fn unreachable_hint(tried: &[(String, String)]) -> &'static str {
    let says = |words: &[&str]| {
        tried.iter().any(|(_, reason)| {
            let reason = reason.to_lowercase();
            words.iter().any(|word| reason.contains(word))
        })
    };
    if says(&["tls", "certificate", "handshake", "unknown ca", "authority"]) {
        return "check --tls-cert, --tls-key and --tls-ca: servers and clients need certificates of \
                one authority, and the server's must name the host as it is written here";
    }
    "start the servers, or name the address that they print as `listening on`"
}

struct Listed<'a>(&'a [(String, String)]);

impl fmt::Display for Listed<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, (address, reason)) in self.0.iter().enumerate() {
            let comma = if place == 0 { "" } else { "; " };
            write!(f, "{comma}{address}: {reason}")?;
        }
        Ok(())
    }
}

/// Why a question or an order ([`crate::Cluster::control`]) came to nothing.
#[derive(Clone, Debug, PartialEq, Eq, ThisError)]
pub enum ControlError {
    /// There is no such node in the map.
    #[error("there is no {node}; the nodes are {}", .known.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "))]
    Unknown {
        /// Who was meant.
        node: NodeId,
        /// Those that there are.
        known: Vec<NodeId>,
    },
    /// There is no good answer: nobody there, an answer that is lost, or a refusal.
    #[error(transparent)]
    Call(#[from] CallError),
}
