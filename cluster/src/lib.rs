//! # A server process
//!
//! One node of a universe that runs in many processes: a spanserver, the links to its peers, the
//! service for clients and operators, and its part in the control plane. [`Server::start`] is what
//! `meridian server` calls.
//!
//! ```text
//!                    ┌─ links ──── messages of all groups ───▶ other nodes
//!   Server ── Node ──┤
//!                    └─ handler ◀─ requests, orders ────────── clients, operators, other nodes
//!      ├─ atlas     copy of the universe's map              the paper's location proxy
//!      ├─ lookout   heartbeats to the root group's leader   the paper's zonemaster's reports
//!      ├─ root      joins, heartbeats, orders ┐ where it leads the root group:
//!      └─ driver    carries placement out     ┘ the paper's universe master and placement driver
//! ```
//!
//! - [`config`], `folder`: what a node is told, and what is its own. `error`: why it does not start.
//! - `join`: the way in. A universe is founded by one node, which is then the only voter of every
//!   group; others join, and the driver has replicas made on them, as learners first (P9).
//! - `rows`: the map of the universe, as rows of the root group, an ordinary Paxos group (S4).
//! - `atlas`: every node's copy; the answer to whoever looks for something. On the way of a
//!   transaction nobody asks for a place: a stale one is corrected by the server it leads to (X12).
//! - `root`, `driver`: at the root group's leader. What must last is in the rows, who lives is only
//!   remembered, and learned anew by the next leader.
//! - `lookout`: each node's word to that leader, once a second and when its groups have changed.
//! - `transport`: this node's own requests. `handler`: what it does with those of others.
//! - `leave`: leaderships are handed on before a node stops (P10).
//! - [`http`], [`metrics`], `vitals`: pages for machines. `host`: its time, and how much room there is.
//!
//! ## Trust
//! Nodes trust nodes (with TLS: whoever has a certificate with a node's name). Whoever may connect as
//! a client may do everything a client and an operator can: there are no users and no rights yet.
//!
//! ## What is absent, on purpose
//! No protocol: what is replicated and who leads is decided by groups alone, and everything here may
//! be late, lost or wrong without harm to what is stored. SQL runs in the client's process.

mod atlas;
pub mod config;
mod driver;
mod error;
mod folder;
mod handler;
mod host;
pub mod http;
mod join;
mod leave;
mod lookout;
pub mod metrics;
mod root;
mod rows;
mod server;
mod transport;
mod vitals;

pub use config::{Config, Init};
pub use error::StartError;
pub use http::Health;
pub use server::Server;
