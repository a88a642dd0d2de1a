//! # gRPC between processes
//!
//! One service on one port ([`Server`]) for three kinds of callers: other nodes, clients, and whoever
//! operates the universe. The envelopes are Protocol Buffers (`proto/meridian.proto`); what they
//! carry is the vocabulary of the `proto` crate in its own bytes. This crate moves bytes and checks
//! who is there. It has never heard of Paxos: what nodes tell one another is opaque here.
//!
//! ```text
//!     node 3                                              node 1
//!   ┌──────────────┐   Link: Hello, then frames of       ┌──────────────┐
//!   │ Links::send ─┼──► messages of all groups ─────────►│ Handler::    │
//!   │              │◄── both ways, one stream ───────────┤   deliver    │
//!   └──────────────┘                                     │              │
//!     client                                             │              │
//!   ┌──────────────┐   Ask: one Request, one Reply       │ Handler::    │
//!   │ Connections ─┼────────────────────────────────────►│   ask        │
//!   │              │   Control: about the universe       │   control    │
//!   └──────────────┘                                     └──────────────┘
//! ```
//!
//! - [`security`]: TLS both ways, and the name in a certificate that makes it a node's. Every refused
//!   connection is one line in the log that says why.
//! - [`hello`]: what two nodes tell each other first, and when they do not belong together.
//! - [`links`]: one stream between each pair of nodes. Sending never waits: what finds no link or no
//!   room is dropped and counted, as X12 allows. HTTP/2's flow control is the back-pressure.
//! - [`connection`]: calls, and what a call without an answer means (X9, X11).
//! - [`faults`]: a network that loses, doubles, reorders and holds up, on purpose.
//! - [`server`]: the service, and the [`Handler`] behind it.
//! - [`wire`]: what `proto/meridian.proto` generates.
//!
//! ## Versions
//! `Hello` and every envelope name the vocabulary ([`Versions`]). Two nodes speak the newest that both
//! know, and refuse each other in words if there is none.
//!
//! ## Errors
//! An [`Error`](proto::Error) is an answer and travels inside the envelope. gRPC's own status codes
//! are for what is wrong with the envelope: a version that is not spoken, bytes that are no words.
//!
//! ## What is absent, on purpose
//! Who leads, where groups are, retries: `txn`'s router and whoever keeps the map. Compression: the
//! network is seldom the bottleneck. tonic's own TLS, which does not say why a handshake failed.

mod accept;
pub mod connection;
mod dial;
mod envelope;
pub mod faults;
mod frame;
pub mod hello;
pub mod links;
pub mod security;
pub mod server;
mod stream;

pub use connection::{CallError, Connections};
pub use dial::Target;
pub(crate) use envelope::ENVELOPE_BYTES;
pub use envelope::MESSAGE_BYTES_MAX;
pub use faults::Faults;
pub use hello::{Hello, Versions};
pub use links::{Links, LinksConfig};
pub use security::{Caller, Security};
pub use server::{Handler, Server};
/// For implementations of [`Handler`].
pub use tonic::async_trait;

/// What `proto/meridian.proto` generates.
#[allow(missing_docs, clippy::all)]
pub mod wire {
    tonic::include_proto!("meridian.v1");
}
