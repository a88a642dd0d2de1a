//! # The simulated world
//!
//! One thread, one queue of events ordered by (time, sequence), one seed. The servers are
//! [`spanserver::Server`], the clients [`txn::client::Client`]: production code, unchanged. What is
//! simulated is everything around them: the network ([`network`]), the disk
//! ([`spanserver::storage::Memory`], which forgets what was not synced), the clocks
//! ([`truetime::providers::Simulated`], or the production time daemon with simulated masters:
//! [`timekeeping`]), and the scheduler that polls clients ([`executor`]).
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
//! - [`scenario`]: what is simulated, by name; one run of it.
//! - [`world`]: the queue, the nodes, the events. `node`, `effects`, `state`: its parts.
//! - [`faults`], `ambush`: what goes wrong. [`network`]: links. [`options`]: how much of it.
//! - [`workloads`]: what clients do, one file each. [`operator`]: transfers of leadership, members.
//! - [`crash_points`]: the points of a commit at which leaders are struck (`strikes`).
//! - [`history`]: what clients did and saw. [`checkers`]: one file per promise; `watch` asks them
//!   after every step. [`plants`]: who must notice which planted fault.
//! - [`lab`]: the clock laboratory: experiments on such worlds, and their reports. [`controls`]: what
//!   they do to a world while it runs. [`verdicts`]: violations that end a run, or are collected.
//! - [`timekeeping`]: clocks kept by time daemons, from masters that may lie.
//! - [`run`]: many seeds, on both cores; [`tally`]: what is counted. [`trace`]: the notation of a trace.
//!
//! ## What is absent, on purpose
//! Full disks, cuts between clients and servers, SQL. In scenarios: clocks that leave their bound;
//! those are the laboratory's.

pub use ::history;

mod ambush;
pub mod checkers;
pub mod controls;
pub mod crash_points;
mod effects;
pub mod executor;
pub mod faults;
pub mod lab;
pub mod network;
mod node;
pub mod operator;
pub mod options;
pub mod plants;
pub mod run;
pub mod scenario;
mod state;
mod strikes;
pub mod tally;
pub mod timekeeping;
pub mod trace;
pub mod verdicts;
mod watch;
pub mod workloads;
pub mod world;
