//! # A spanserver
//!
//! Hosts one replica of each of many groups. [`Server`] is the largest pure unit of Meridian: a
//! batch of events and the time go in, an [`Output`] comes out. Production ([`mod@runtime`]) drives it
//! with threads, the simulator with a seeded queue; there is no second implementation.
//!
//! ```text
//!                    Server::step(now, events) ──► Output
//!   ┌───────────────────────────────────────────────┐    apply    → engine, without sync
//!   │ Group = tablet + paxos::Replica + txn::Manager│    persist  → engine, synced; then Persisted
//!   │ Group                                         │    send     → other servers
//!   │ Group …                                       │    reply    → clients
//!   └───────────────────────────────────────────────┘    read     → engine; then ReadDone
//! ```
//!
//! - [`group`]: asks `txn` what to replicate and hands it to `paxos`, which do not know each
//!   other; applies what is chosen, in slot order, not before `after(s)` (X8).
//! - [`server`]: routes events to groups, and holds back what waits for the disk (P1, P5).
//! - `beats`: one heartbeat for each pair of servers, for all groups that are asleep.
//! - [`meta`]: the names of records on disk; [`found`] makes a disk that of a founding member.
//! - [`snapshot`]: how a tablet travels to a replica that lacks too much (P7).
//! - [`storage`]: the engine: RocksDB, or memory.
//! - [`runtime`]: shards, one log writer, readers, the in-process transport.
//!
//! ## What is absent, on purpose
//! Outside `runtime` and `storage` nothing here touches a clock, thread, socket or file. Sockets are
//! not even there: what leaves a node goes over [`runtime::Outbound`], which `cluster` carries over
//! gRPC. Splits and moves of directories are not built yet.

#![deny(clippy::disallowed_types, clippy::disallowed_methods)]

mod beats;
pub mod group;
pub mod meta;
// The two places that may use threads, clocks and files.
#[allow(clippy::disallowed_types, clippy::disallowed_methods)]
pub mod runtime;
pub mod server;
mod settings;
pub mod snapshot;
#[allow(clippy::disallowed_types, clippy::disallowed_methods)]
pub mod storage;
mod wakes;

pub use meta::{found, hosted};
pub use server::{Answer, Event, Message, Output, Persist, Places, Server};
pub use settings::Settings;
pub use snapshot::Pins;
