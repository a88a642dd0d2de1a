//! # Certificates, verified without the database (X13)
//!
//! A commit's [`Certificate`](proto::request::Certificate) says which intervals its coordinator's
//! clock showed when the request arrived and when the commit wait ended, and which timestamps the
//! other groups had prepared at. From these follows, for each by itself, that its timestamp was rightly
//! chosen (X7) and that it had passed before anybody heard of it (X8). From two of them, and from when
//! their clients began and heard, follows what the database promises:
//!
//! ```text
//!   s1 < waited1.earliest ≤ absolute time at which T1 was acknowledged        (X8, T1)
//!      < absolute time at which T2's request arrived ≤ arrived2.latest < s2   (T1, X7)
//! ```
//!
//! A [`Checker`] takes [`Entry`]s, in any order and any number, and keeps about a hundred bytes of
//! each; it sorts, and passes over them once, so n certificates cost n log n. What it objects to, an
//! [`Objection`], has the name of a [`Flaw`].
//!
//! What the clients observed is their own word; what a certificate says is the word of the server that
//! sealed it, and nobody else's only for who has the key. A lying clock makes certificates that are
//! each in order by themselves: it is found by comparing them with each other and with the clients.

mod alone;
mod check;
pub mod file;
mod flaw;

pub use check::{Checker, Counts, Judgement};
pub use file::{Entry, Header};
pub use flaw::{Flaw, Objection};

#[cfg(test)]
mod tests;
