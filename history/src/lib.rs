//! # What clients did and saw
//!
//! A *history* is a list of [`Operation`]s: transactions as their clients know them. Each has the
//! instants at which its client began it and heard its end, on one clock that all clients share; the
//! timestamp that the database gave it; what it read and what it wrote. Every value that is ever
//! written is a [`Cell`], which names the transaction that wrote it, so that each read names whom it
//! read from. That is all a checker needs: it never asks the database.
//!
//! What the database promised decides which operations a checker may compare, and this is the
//! operation's [`Kind`]. How much its client knows of the end is its [`Ending`].
//!
//! ## What is checked
//! The promise is strict serializability, and Meridian says how it keeps it: the timestamps *are* the
//! serial order. So nothing has to be searched for. [`check`] runs the committed transactions in the
//! order of their timestamps over a store with one version per key, and compares what each read with
//! what was there; then it follows real time, and compares what each read, and which timestamp it
//! got, with what had been acknowledged or seen before it began. Both are sorts and passes, n log n
//! for n transactions.
//!
//! What does not fit is given the name by which people know it, an [`Anomaly`], and told as a
//! [`Story`] of the two or three transactions that show it. A history read from a file ([`mod@file`]) is
//! added line by line to a [`Checker`], which keeps much less of it than an operation takes.
//!
//! ## What is absent, on purpose
//! Clocks, threads, servers, and any part of the protocol: what is judged is not who judges. A
//! history may come from the simulator, from a benchmark against a real universe, or from a text
//! editor. Deletions: a key, once written, has a value.

mod anomaly;
mod cell;
pub mod certificates;
mod check;
pub mod file;
pub mod lines;
mod name;
mod operation;
mod real_time;
mod story;
mod table;
mod unknown;
mod versions;
mod violation;
mod witness;
mod words;

pub use anomaly::Anomaly;
pub use cell::{Cell, CellValue};
pub use check::{Checker, Counts, Judgement, check};
pub use operation::{Ending, Kind, Operation};
pub use real_time::{Disorder, disorders};
pub use story::{Actor, Story};
pub use table::Twice;
pub use violation::Violation;
