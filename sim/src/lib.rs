//! # The simulated world
//!
//! One thread, one queue of events ordered by (time, sequence), one seed. The servers are
//! [`spanserver::Server`], the clients [`txn::client::Client`]: production code, unchanged. What is
//! simulated is everything around them: the network ([`network`]), the disk
//! ([`spanserver::storage::Memory`], which forgets what was not synced), the clocks
//! ([`truetime::providers::Simulated`]), and the scheduler that polls clients ([`executor`]).
//!
//! The world knows absolute time; a node sees only its interval. One random stream per concern, so
//! that a new draw in one does not shuffle the others. What faults a run has is drawn from its seed
//! first ([`options`], swarm testing). Two runs of a seed have equal trace hashes.
//!
//! ```text
//!   seed ─► options ─► world ─► safety phase: faults, clients at work
//!                        │      liveness phase: faults end, everyone must finish ─► checkers
//!                        └─ after every event: visibility, leases, agreement, clock bounds
//! ```
//!
//! - [`world`]: the queue, the nodes, the events.
//! - [`bank`]: the scenario: transfers between accounts of four groups over three servers.
//! - [`history`]: what clients did and saw. [`checkers`]: one file per promise.
//! - [`run`]: many seeds, on both cores.
//!
//! ## What is absent, on purpose
//! Bit rot, full and slow disks, pauses, and further workloads are not built yet.

pub mod bank;
pub mod checkers;
pub mod executor;
pub mod history;
pub mod network;
pub mod options;
pub mod run;
pub mod world;
