//! # Multi-Paxos with a stable, leased leader
#![deny(clippy::disallowed_types, clippy::disallowed_methods)]

mod acceptor;
mod ballot;
mod catch_up;
mod configuration;
mod election;
mod lease;
mod log;
mod membership;
mod message;
mod progress;
mod proposer;
pub mod quorum;
mod replica;
mod sleep;
mod transfer;

pub use acceptor::{HardState, Repair};
pub use ballot::Position;
pub use configuration::{Configuration, Member, Wanted};
pub use message::{Base, Chunk, ChunkWanted, Entry, Message, Output, Payload, SnapshotId, Write};
pub use replica::{Config, Limits, Replica, Stored, new_seat};
pub use sleep::Asleep;
