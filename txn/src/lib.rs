//! # Transactions over groups
//!
//! Two halves that never share memory, only the words of `proto`:
//!
//! - [`server`]: beside each group's Paxos replica, a pure machine with the lock table, the
//!   participant and coordinator of two-phase commit, timestamps and safe time.
//! - [`client`]: buffered writes, two-phase commit as its driver, retries, snapshots.
//!
//! ```text
//!  client                participant P               coordinator C
//!    | Read (locks) ------->|                              |
//!    | Read (locks) ------------------------------------->|
//!    | Prepare(writes) ---->| lock, prepare timestamp p,   |
//!    | Commit(writes, [P]) ------------------------------->| lock
//!    |                      | log                          |
//!    |                      | Prepared(p) ---------------->| s ≥ p, s > now().latest, s > s_max
//!    |                      |                              | log the commit record    ┐
//!    |                      |<---------------- Decided(s)  | chosen: unlock           │ overlap
//!    |                      | log, unlock                  | wait until after(s)      ┘ (X8)
//!    |<-------------------------------------- Committed(s) | apply
//!    |                      | wait until after(s), apply   |
//!    |                      | Acknowledged --------------->|
//! ```
//!
//! A participant that was only read logs nothing: it answers `Validated` with the timestamps up to
//! which its read locks hold. Locks end when the commit is chosen, and who comes after inherits the
//! wait (`server/early.rs`). Reads at a timestamp take no locks, and any replica serves them as far
//! as its safe time goes.
//!
//! Why the order of timestamps is the order of real time: a transaction that starts after `s` was
//! acknowledged starts after `after(s)`; its own timestamp is above `now().latest` at its arrival,
//! which is above absolute time, which is above `s` (paper §4.1.2).
//!
//! ## What is absent, on purpose
//! This crate never sees Paxos, storage, sockets or clocks. Many key locks are not escalated to a range, which would keep writers from rows that nobody
//! read: a transaction that reads beyond [`server::Config`]'s `locks_max` is refused.
#![deny(clippy::disallowed_types, clippy::disallowed_methods)]

pub mod client;
pub mod server;
