//! What one server process is told.

use rpc::security::Security;
use std::path::PathBuf;
use std::time::Duration;
use truetime::spec::ClockSpec;

/// How a universe is founded; counts once, for the node that founds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Init {
    /// Data groups besides the root group, 1 to 10,000.
    pub groups: u32,
    /// Replicas that each group is to have as soon as there are so many nodes: 1, 3, 5 or 7.
    pub replicas: u32,
    /// How far back versions are kept.
    pub retention: Duration,
}

impl Default for Init {
    fn default() -> Init {
        Init { groups: 4, replicas: 3, retention: Duration::from_secs(3_600) }
    }
}

/// What one server process is told. See `meridian server --help` for what people write.
#[derive(Clone, Debug)]
pub struct Config {
    /// Its number, 1 or more; never reused for another data folder (P9).
    pub node: u32,
    /// Where it listens, `host:port`; port 0 takes a free one.
    pub listen: String,
    /// Where others reach it; `None`: where it listens.
    pub advertise: Option<String>,
    /// Its data folder.
    pub data: PathBuf,
    /// Nodes to ask for the way in, `host:port`; not needed by a founder, or by whoever has been in.
    pub join: Vec<String>,
    /// Where it stands: what fails together.
    pub zone: String,
    /// Its clock (T6).
    pub clock: ClockSpec,
    /// TLS, or plaintext.
    pub security: Security,
    /// Where metrics and health are served, `host:port`; `None`: nowhere.
    pub http: Option<String>,
    /// Found a universe, if the data folder is new.
    pub init: Option<Init>,
    /// Links may be made to fail and simulated clocks be made wrong, by whoever may speak to it.
    pub allow_faults: bool,
    /// Plaintext may be served to other hosts.
    pub insecure: bool,
}
