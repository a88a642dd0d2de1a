//! What the clients of a run do: one file per workload.
//!
//! A [`Workload`] says which keys there are, what they hold at first, what one turn of a client is,
//! and what must be true of the history besides what the checkers ask of every history. How a turn
//! is carried out, and recorded, is the [`Worker`]'s: transactions that are tried again with their
//! age, snapshots that are asked for again, clients that die half-way.
//!
//! Every value is a [`Cell`] and carries the id of the transaction that wrote it, so each read names
//! its writer.
//!
//! | workload | a turn | what it is after |
//! |---|---|---|
//! | [`bank`] | moves units between accounts, adds all up, looks back | atomicity over groups; the total |
//! | [`list_append`] | appends itself to lists in several groups, reads lists in four ways | lost updates, order of writers |
//! | [`long_fork`] | writes one key, or reads many at one timestamp | two readers that disagree about the order of two writes |
//! | [`causal_reverse`] | writes one key after another one's acknowledged write | seeing the effect without the cause |
//! | [`write_skew`] | takes from one of two keys what both together allow | decisions that rest on reads which do not hold any more |
//! | [`follower_reads`] | writes, and reads at any replica, at many timestamps, again elsewhere | safe time (R1, R2, R4) |
//! | [`hot_row`] | increments the one row | lock hand-over, early release, wound-wait |
//!
//! The keys of a workload are dealt to the groups in turns, so that a transaction that takes two
//! neighbours is one over two groups.

pub mod bank;
pub mod causal_reverse;
pub mod follower_reads;
pub mod hot_row;
pub mod list_append;
pub mod long_fork;
mod mortal;
pub mod settling;
pub mod worker;
pub mod write_skew;

pub(crate) use mortal::Life;
pub use worker::{History, Plan, Reads, Worker, client};

use crate::history::{Cell, CellValue, Operation, Violation};
use crate::options::Options;
use futures::future::BoxFuture;
use proto::{GroupId, Key};
use std::fmt;
use std::sync::Arc;
use txn::client::{HashPlacement, Placement};

/// What clients do.
pub trait Workload: Send + Sync {
    /// All keys, with what they hold at first.
    fn opening(&self) -> Vec<(Key, CellValue)>;

    /// One turn of a client.
    fn turn<'a>(&'a self, worker: &'a mut Worker) -> BoxFuture<'a, ()>;

    /// What must be true of the history, besides what is asked of every history.
    ///
    /// # Errors
    /// The violation.
    fn judge(&self, history: &[Operation]) -> Result<(), Violation>;
}

/// Which workload a run has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// See [`bank`].
    Bank,
    /// See [`list_append`].
    ListAppend,
    /// See [`long_fork`].
    LongFork,
    /// See [`causal_reverse`].
    CausalReverse,
    /// See [`write_skew`].
    WriteSkew,
    /// See [`follower_reads`].
    FollowerReads,
    /// See [`hot_row`].
    HotRow,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Kind::Bank => "transfers",
            Kind::ListAppend => "appends",
            Kind::LongFork => "single writes",
            Kind::CausalReverse => "chains of writes",
            Kind::WriteSkew => "withdrawals",
            Kind::FollowerReads => "reads anywhere",
            Kind::HotRow => "increments",
        })
    }
}

/// The workload of a run.
pub fn of(options: &Options) -> Arc<dyn Workload> {
    match options.workload {
        Kind::Bank => Arc::new(bank::Bank::new(options)),
        Kind::ListAppend => Arc::new(list_append::ListAppend::new(options)),
        Kind::LongFork => Arc::new(long_fork::LongFork::new(options)),
        Kind::CausalReverse => Arc::new(causal_reverse::CausalReverse::new(options)),
        Kind::WriteSkew => Arc::new(write_skew::WriteSkew::new(options)),
        Kind::FollowerReads => Arc::new(follower_reads::FollowerReads::new(options)),
        Kind::HotRow => Arc::new(hot_row::HotRow::new(options)),
    }
}

/// Where keys are: each is a directory of its own.
pub fn placement(groups: u32) -> HashPlacement {
    HashPlacement { groups, root_prefix: Key::new(), directory: |key| Some(key) }
}

/// A key of this name that lies in that group.
pub fn key_in(groups: u32, group: GroupId, name: &str) -> Key {
    let placement = placement(groups);
    let names = (0..).map(|n| Key::from(format!("{name}.{n}")));
    let mut there = names.filter(|key| placement.group_of(key) == group);
    there.next().expect("a hash meets every group")
}

/// So many keys, dealt to the groups in turns.
pub fn keys(options: &Options, count: u32, name: &str) -> Vec<Key> {
    let group = |n: u32| GroupId(1 + n % options.groups);
    (0..count).map(|n| key_in(options.groups, group(n), &format!("{name}-{n:02}"))).collect()
}

/// The number in a cell, `0` where there is none.
pub(crate) fn number(cell: Option<&Cell>) -> i64 {
    cell.and_then(Cell::as_number).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbours_lie_in_different_groups() {
        let options = Options { groups: 3, ..Options::quiet() };
        let keys = keys(&options, 7, "k");
        let groups: Vec<u32> = keys.iter().map(|key| placement(3).group_of(key).0).collect();
        assert_eq!(groups, [1, 2, 3, 1, 2, 3, 1]);
    }
}
