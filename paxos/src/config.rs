//! What a replica is told when it is made, and what bounds it.

use proto::NodeId;

/// What a replica is told when it is made.
#[derive(Clone, Debug)]
pub struct Config {
    /// This node.
    pub node: NodeId,
    /// How long a timed vote runs (L1).
    pub lease_ms: u64,
    /// How often a leader that has nothing to say says so.
    pub heartbeat_ms: u64,
    /// A replica whose vote has expired waits a random time up to this before it campaigns.
    pub election_jitter_ms: u64,
    /// Seed of that randomness, and of new seats: another one for each start of the process.
    pub seed: u64,
    /// What bounds memory and messages.
    pub limits: Limits,
}

/// Bounds of what a replica keeps and sends. Bytes are those of payloads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of entries in one message; a single entry may be larger.
    pub message_bytes: usize,
    /// Entries in one message.
    pub message_slots: usize,
    /// Entries sent to one member ahead of its answer.
    pub ahead_slots: u64,
    /// Bytes sent to one member ahead of its answer.
    pub ahead_bytes: usize,
    /// Entries that may wait to be chosen before new requests are turned away.
    pub unchosen_slots: u64,
    /// Bytes that may wait to be chosen before new requests are turned away.
    pub unchosen_bytes: usize,
    /// Entries a leader keeps for members it has not heard of for some leases.
    pub log_slots: u64,
    /// Bytes it keeps for them. At four times either, it keeps nothing for anybody.
    pub log_bytes: usize,
    /// Pause between the parts of a snapshot (P7), in microseconds.
    pub chunk_us: u64,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            message_bytes: 1 << 20,
            message_slots: 1_024,
            ahead_slots: 8_192,
            ahead_bytes: 8 << 20,
            unchosen_slots: 65_536,
            unchosen_bytes: 64 << 20,
            log_slots: 100_000,
            log_bytes: 32 << 20,
            chunk_us: 5_000,
        }
    }
}

impl Config {
    /// Refuses settings that cannot work (L7).
    ///
    /// # Errors
    /// Says which setting, and why.
    pub fn validate(&self, epsilon_us_worst: u64) -> Result<(), String> {
        if self.lease_ms * 1_000 <= 2 * epsilon_us_worst {
            return Err(format!(
                "lease of {} ms is not above twice the clock bound of {epsilon_us_worst} µs (L7)",
                self.lease_ms
            ));
        }
        if self.heartbeat_ms * 2 > self.lease_ms {
            return Err(format!(
                "heartbeat of {} ms leaves no second try within the lease of {} ms (L7)",
                self.heartbeat_ms, self.lease_ms
            ));
        }
        Ok(())
    }
}
