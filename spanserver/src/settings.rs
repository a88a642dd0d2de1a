//! What all groups of a server are told.

use proto::{GroupId, NodeId};
use truetime::key::Key;

/// What all groups of a server are told.
#[derive(Clone, Debug)]
pub struct Settings {
    /// See [`paxos::Config`].
    pub lease_ms: u64,
    /// See [`paxos::Config`].
    pub heartbeat_ms: u64,
    /// See [`paxos::Config`].
    pub election_jitter_ms: u64,
    /// See [`paxos::Config`].
    pub limits: paxos::Limits,
    /// See [`txn::server::Config`].
    pub txn: txn::server::Config,
    /// Seed of what is random; another one for each start of the process.
    pub seed: u64,
    /// Seals certificates (X13). `None`: they have no seals.
    pub certificate_key: Option<Key>,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            lease_ms: 500,
            heartbeat_ms: 100,
            election_jitter_ms: 150,
            limits: paxos::Limits::default(),
            txn: txn::server::Config::default(),
            seed: 0,
            certificate_key: None,
        }
    }
}

impl Settings {
    /// Refuses settings that cannot work (L7).
    ///
    /// # Errors
    /// Says which setting, and why.
    pub fn validate(&self, epsilon_us_worst: u64) -> Result<(), String> {
        self.paxos(GroupId::ROOT, NodeId(0)).validate(epsilon_us_worst)
    }

    pub(crate) fn paxos(&self, group: GroupId, node: NodeId) -> paxos::Config {
        paxos::Config {
            node,
            lease_ms: self.lease_ms,
            heartbeat_ms: self.heartbeat_ms,
            election_jitter_ms: self.election_jitter_ms,
            seed: self.seed ^ (u64::from(group.0) << 32) ^ u64::from(node.0),
            limits: self.limits,
        }
    }
}
