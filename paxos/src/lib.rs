//! # Multi-Paxos with a stable, leased leader
//!
//! A group of replicas agrees on a log: one value per *slot*, for ever (P2). Time is cut into
//! *ballots*, each owned by one node. Everything here is a pure state machine: a message or the
//! time goes in ([`Replica::step`], [`Replica::tick`]), an [`Output`] of writes and messages comes
//! out. No clock, disk or socket; the disk is one more peer that answers later.
//!
//! ```text
//!   candidate                voters                     leader                members
//!      | Prepare(b, last) ---->|                           | Accept(b, prev, entries, chosen) -->|
//!      |                       | promise b, grant lease    |                     write, renew lease
//!      |<-- Promise(b) --------|  (on disk first, P1)      |<----- Accepted(b, upto) ------------|
//!   quorum: lead                                        quorum: chosen grows
//!   open the ballot with a no-op                        (own copy counts when it is on disk, P4)
//! ```
//!
//! ## From the paper's Paxos to this one
//! *Phase 1* (`election`). A voter promises a ballot only to a candidate whose log is at least as
//! complete as its own, comparing the [`Position`] of the last entry: ballot first, then slot. A
//! value that may be chosen is on a majority; one of them is in every promise quorum, and would
//! not have promised to a log without it. So the candidate that wins *has* every value that may be
//! chosen, and nothing has to be learnt from the promises: this is the textbook's "take the value
//! of the highest ballot", decided once for the whole log instead of slot by slot. Slot by slot
//! would be sound for each slot and wrong for their order, and commands here carry timestamps that
//! must grow with the slots; `docs/decisions/0004` and `0006` tell the story. There are no holes to
//! fill, as a log is contiguous in every replica.
//!
//! *Phase 2* (`proposer`). Entries keep the ballot under which they were first proposed. A member
//! takes an accept when it has the entry before the first one, with the same ballot: then its log
//! is the leader's up to there, by induction, and `Accepted(upto)` means that every slot up to
//! `upto` is accepted under the leader's ballot. Copies choose a slot only from the ballot's own
//! opening no-op on (P3): a majority that holds an *older* ballot's entry proves nothing, for a
//! more complete log may still overtake it. Accepts are pipelined and batched (P5), within a
//! window of slots and bytes for each member (`progress`).
//!
//! *Canvassing* (`election`, P8). Before it raises its ballot, a replica asks whether a quorum would
//! promise. Who cannot win changes nothing, so an isolated replica that comes back disturbs nobody.
//!
//! ## Leases (`lease`, L1–L7)
//! Each promise and each accept grants its sender a timed vote: until it has certainly expired
//! (`after(until)`), the voter promises nobody else. The leader's lease is reckoned from the instant
//! *before* it asked, so leases of two leaders never overlap (L3). What was granted is on disk before
//! it is said; the bound on disk runs ahead of the grant, so that not every heartbeat syncs. After a
//! restart the voter honours the bound. A leader that hands over (`transfer`, P10) releases the votes
//! once every timestamp it gave out has passed (L5), so its successor need not wait.
//!
//! ## Members (`configuration`, `membership`, P9)
//! A [`Configuration`] is an entry of the log and counts from the moment it is appended; if the entry
//! is cut off, the one before is in force again. Newcomers are learners until they have caught up;
//! then the group goes through a joint configuration, where a quorum is a majority of the old *and*
//! the new voters, or in a single step where one voter comes or goes. A replica is named by its node
//! *and its seat*: one that has lost its disk, or was removed, comes back under another seat, and its
//! answers do not count for the one before it. Witnesses vote and keep the log, but no tablet; a
//! witness that finds itself leading hands over as soon as somebody else can.
//!
//! ## Falling behind (`catch_up`)
//! A member whose log does not fit names where the logs may agree; one round trip for each ballot
//! that differs finds the place (P6). When the leader's log begins behind that place, the member gets
//! a snapshot, in parts with checksums (P7). What every member has applied leaves the log; members
//! that are silent hold it only until it has grown to a limit, slow ones to four times that.
//!
//! ## Damage (`acceptor`, [`Repair`])
//! A replica that finds entries of its log damaged has forgotten something it said. It keeps what it
//! has, promises nobody who may lack what it forgot, and becomes a voter like any other again when a leader
//! has sent the rest.
//!
//! ## Sleep (`sleep`)
//! A group with nothing to do has no timers; the servers' common heartbeat keeps its lease.
//!
//! ## The order of positions
//! ```text
//!   base ≤ applied ≤ chosen ≤ last         (slots; asserted after every change)
//!          applied ≤ durable ≤ last        (an effect is never ahead of the log on disk)
//! ```
//!
//! ## Where to read on
//! `ballot`, `log`, `quorum`, `configuration` are the nouns; `acceptor` is the part of a replica that
//! is always there; `election`, `proposer`, `lease`, `progress`, `catch_up`, `membership`,
//! `transfer`, `sleep` are what it does besides; `replica` puts them together. Every message, with
//! what must be on disk before it leaves, is in `docs/messages.md`; scripts to read along with are in
//! `tests/scripts/paxos`.
//!
//! ## What is absent, on purpose
//! Reads: the lease makes them the leader's own business, and the group's. Timestamps: commands are
//! bytes here. Flexible quorums and leaderless rounds: every quorum is a majority.
//!
//! Sources: Lamport, *Paxos Made Simple*; Corbett et al., *Spanner*, OSDI 2012, §4.1.1 and appendix
//! A; Ongaro, *Consensus: Bridging Theory and Practice*, 2014, for log matching, joint consensus and
//! the arguments about complete logs; Howard and Mortier, *Paxos vs Raft*, 2020, for what the two
//! have in common.
#![deny(clippy::disallowed_types, clippy::disallowed_methods)]

mod acceptor;
mod ballot;
mod catch_up;
mod config;
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
pub use config::{Config, Limits};
pub use configuration::{Configuration, Member, Wanted};
pub use message::{
    Base, Chunk, ChunkWanted, Entry, Invitation, Message, Output, Payload, SnapshotId, Write,
};
pub use replica::{Replica, Stored, new_seat};
pub use sleep::Asleep;
