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
//! Deliberately absent: clocks, threads, servers, and any part of the protocol. A history may come
//! from the simulator, from a benchmark against a real universe, or from a text editor.

mod cell;
mod operation;
mod violation;

pub use cell::{Cell, CellValue};
pub use operation::{Ending, Kind, Operation};
pub use violation::Violation;
