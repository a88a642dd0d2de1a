//! # Multi-Paxos with a stable, leased leader
//!
//! A group of replicas agrees on a log: one value per *slot*, for ever (P2). Time is cut into
//! *ballots*, each owned by one node. Everything here is a pure state machine: a message or the
//! time goes in, an [`Output`] of writes and messages comes out. No clock, disk or socket.
//!
//! ```text
//!   candidate                voters                     leader              voters
//!      | Prepare(b, chosen) -->|                           | Accept(b, slots, chosen) -->|
//!      |                       | promise b, grant lease    |                   write, renew lease
//!      |<-- Promise(accepted) -|  (on disk first, P1)      |<----- Accepted(b, upto) ----|  (on disk first)
//!   quorum: adopt highest                               quorum: chosen grows
//!   ballot per slot, lead                               (own copy counts when it is on disk, P4)
//! ```
//!
//! - **Phase 1** (`election`): a replica whose timed vote has expired first
//!   [canvasses](Message::Canvass) whether a majority is free (P8); then, as a candidate, it asks with a [`Prepare`](Message::Prepare); a voter that
//!   [promises](Message::Promise) hands over its log beyond what the candidate knows chosen.
//!   A voter's log is always a prefix of the log of the leader it accepted from last, so the new
//!   leader takes over the longest log of the highest accepted ballot: it holds every value that
//!   may be chosen, in one leader's order, without holes. It re-proposes all of it under its own
//!   ballot and opens the ballot with a no-op of its own, which must be applied before it serves
//!   (P3): [`Replica::opened`]. Choosing the highest ballot slot by slot instead would be sound for
//!   each slot and wrong for their order: an entry that an interrupted leader left behind could
//!   come to life after one that a later leader chose without it.
//! - **Phase 2** (`replication`): values go out at once, several [`Accept`](Message::Accept)s may
//!   be under way (P5). A voter's log is *contiguous under the ballot*: it takes an accept only
//!   when it holds everything before it, chosen or accepted under the same ballot, else it answers
//!   with a [`Gap`](Message::Gap) and the leader goes back. So `Accepted(b, upto)` says "all slots
//!   up to `upto`", and counting answers under the own ballot chooses slots.
//! - **Leases** (`acceptor`, L1–L3): each promise and each accept grants its sender a timed vote;
//!   until it has certainly expired (`after(until)`), the voter promises nobody else. The leader's
//!   lease is reckoned from the instant *before* it asked, so leases of two leaders never overlap.
//!   What was granted is on disk before it is said; the bound on disk runs ahead of the grant, so
//!   that an idle group does not sync at every heartbeat. After a restart the voter honours the
//!   bound.
//! - **Recovery**: [`Replica::recover`] from hard state, log, and the applied slot.
//!
//! ## The order of positions
//! ```text
//!   first ≤ applied + 1,   applied ≤ chosen ≤ last        (slots; checked in Replica::check)
//! ```
//! Entries are truncated once *every* replica has applied them, so a lagging replica always finds
//! what it misses in some log.
//!
//! ## What is absent, on purpose
//! Snapshots, membership changes and leader transfer (P6, P7, P9, P10) are not built yet; neither
//! is the soft release of a lease (L5): a leader that goes away is waited out.
//!
//! Sources: Lamport, *Paxos Made Simple*; Corbett et al., OSDI 2012, §4.1.1 and appendix A.
#![deny(clippy::disallowed_types, clippy::disallowed_methods)]

mod acceptor;
mod election;
mod log;
mod message;
pub mod quorum;
mod replica;
mod replication;

pub use acceptor::HardState;
pub use message::{Entry, Message, Output, Write};
pub use replica::{Config, Replica};
