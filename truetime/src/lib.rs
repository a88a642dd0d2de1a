//! # TrueTime: time as an interval
//!
//! A clock that answers with one number lies: it cannot say how wrong it may be. Here the answer
//! to "what time is it" is an [`Interval`] `[earliest, latest]` that contains absolute time at
//! some instant during the call (protocol rule T1; Corbett et al., OSDI 2012, §3).
//!
//! ```text
//!              ε            ε
//!        |<--------->|<--------->|
//!  ------[-----------+-----------]------> absolute time
//!     earliest     (middle)    latest
//!
//!  after(t)  : t < earliest     t has certainly passed
//!  before(t) : latest < t       t has certainly not arrived
//! ```
//!
//! *Commit wait* is the use of `after`: a transaction with timestamp `s` is shown to nobody until
//! `after(s)` holds, so whoever starts later, on whatever node, reads a clock whose `latest` is
//! above `s` and receives a larger timestamp. That is external consistency.
//!
//! ## What is where
//! - [`TrueTime`]: one node's clock: `now`, `after`, `before`, `wait_until_after`. Neither end of
//!   what it says ever goes back.
//! - [`Timestamp`]: microseconds since the Unix epoch (T2), with checked arithmetic. [`Interval`]: a
//!   reading; computed in nanoseconds by providers and rounded outwards.
//! - [`Clock`]: the trait of providers. A [`Reading`] carries its [`Status`] and provider (T6); a
//!   clock without a bound answers [`ClockError`] (T5).
//! - [`mod@bound`]: how ε grows from one [`Synchronization`] to the next (T3).
//! - [`marzullo`]: what a majority of time masters agree on, and who lies (T4).
//! - [`daemon`]: polls the masters, measures its own clock, evicts itself (T4, T5). Pure.
//! - [`wire`]: what daemons and masters say to each other; [`key`] makes sure who they are, and
//!   [`limiter`] that nobody is flooded.
//! - [`providers`]: the bodies of the trait, and the only place that reads a clock of the operating
//!   system, starts a thread or opens a socket.
//!
//! ## Who publishes, who reads
//! ```text
//!   masters ──UDP──► daemon ──┐
//!   kernel ─────────────────┐ │ Bound (one pointer, swapped)
//!   ClockBound ───────────┐ │ │        ┌──► TrueTime::now()   no lock, tens of nanoseconds
//!                         └─┴─┴─► Steered ──► …
//!                                   ▲
//!                        CLOCK_BOOTTIME, read at each call
//! ```
//! A thread keeps the [`Bound`] up; readers add what the local clock says has passed since. Should
//! the thread stop, ε grows, and the contract holds.
//!
//! ## What is absent, on purpose
//! This crate knows no other crate of the workspace. It sets no clock of the host: it measures.
//! Leap seconds are smeared or stepped by whoever the masters are; a step of the masters is a jump,
//! which breaks the clocks that follow them (T5) rather than their promise.
#![deny(clippy::disallowed_types, clippy::disallowed_methods)]

pub mod bound;
mod clock;
pub mod daemon;
mod interval;
pub mod key;
pub mod limiter;
pub mod marzullo;
pub mod providers;
pub mod spec;
mod timestamp;
mod truetime;
pub mod wire;

pub use bound::{Bound, Known, Synchronization};
pub use clock::{Clock, ClockError, MasterSeen, Reading, Sources, Status, Verdict};
pub use interval::Interval;
pub use timestamp::Timestamp;
pub use truetime::TrueTime;

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct ReadmeExamples;
