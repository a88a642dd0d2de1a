//! # Words on the wire and on disk
//!
//! Every id, request, reply, replicated command and error that crosses a boundary of Meridian:
//! client to server, server to server, server to disk. Nothing here acts; it is the vocabulary
//! that `paxos`, `txn`, `spanserver` and `client` share so that they need not share code.
//!
//! - [`ids`]: nodes, groups, transactions, slots and ballots, each its own type with a short name
//!   in print (`n3`, `g17`, `b4.n2`, `t5.12`).
//! - [`keys`]: keys, half-open ranges, spans (a key or a range), and pages of rows.
//! - [`request`]: what a client asks a group, and what it hears (X1–X9, R1–R5, X12).
//! - [`peer`]: what groups tell one another in two-phase commit (X6, X10).
//! - [`universe`]: where nodes and groups are (S4); [`control`]: what is said about that.
//! - [`seal`]: how a certificate shows that nobody has changed it (X13).
//! - [`command`]: what a group replicates; the only things a tablet ever applies.
//! - [`error`]: errors classed by what the caller does about them (X11).
//! - [`codec`]: bytes of all of the above: a version byte and `postcard`. A value that does not
//!   decode is an error, never a panic.
//!
//! ## What is absent, on purpose
//! No socket, no clock, no state. The encoding is one crate's business (`codec`), so another wire
//! (gRPC between processes) can be put beside it without touching the words.
#![deny(clippy::disallowed_types, clippy::disallowed_methods)]

pub mod codec;
pub mod command;
pub mod control;
pub mod error;
pub mod ids;
pub mod keys;
pub mod peer;
pub mod plant;
pub mod request;
pub mod seal;
pub mod universe;

pub use command::Command;
pub use error::Error;
pub use ids::{Ballot, GroupId, NodeId, Seat, Slot, TxnId};
pub use keys::{Key, KeyRange, Page, Span, Value};
