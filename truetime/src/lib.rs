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
//! - [`Timestamp`]: microseconds since the Unix epoch (T2), with checked arithmetic.
//! - [`Interval`]: a reading; computed in nanoseconds by providers and rounded outwards.
//! - [`Clock`]: the trait that production and simulation implement.
//! - [`providers::Local`]: all processes of one host share one clock; ε is a small constant.
//! - [`providers::Simulated`]: a schedule of offset and drift around a simulated absolute time.
//!
//! ## What is absent, on purpose
//! This crate knows no other crate of the workspace. Only `providers/` reads an operating-system
//! clock; everything else in Meridian is handed an interval. Time masters, Marzullo's algorithm
//! and self-eviction (T3–T5) are not built yet: `Local` is valid on one host only.
#![deny(clippy::disallowed_types, clippy::disallowed_methods)]

pub mod bound;
mod clock;
pub mod daemon;
mod interval;
pub mod marzullo;
pub mod providers;
mod timestamp;
mod truetime;

pub use bound::{Bound, Known, Synchronization};
pub use clock::{Clock, ClockError, MasterSeen, Reading, Sources, Status, Verdict};
pub use interval::Interval;
pub use timestamp::Timestamp;
pub use truetime::TrueTime;
