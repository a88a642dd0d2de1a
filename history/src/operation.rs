//! One transaction, as its client saw it.

use crate::Cell;
use bytes::Bytes;
use proto::TxnId;
use std::collections::BTreeMap;
use truetime::Timestamp;

/// What the database promised.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// A transaction with locks (X1–X8), also one that wrote nothing: its reads fit its timestamp,
    /// and that lies above those of all that were acknowledged before it began.
    ReadWrite,
    /// A read without locks that sees all that was acknowledged before it began (R3).
    Strong,
    /// A read at a timestamp that was chosen, or is older than now: a snapshot, and no promise about
    /// how new it is (R4).
    Stale,
    /// A read with a session token: a snapshot, and never older than what this client has written
    /// and seen (R4).
    Session,
}

/// What is known of how an operation ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// Committed, or read, at this timestamp.
    At(Timestamp),
    /// The client never heard: it may have committed or not.
    Unknown,
    /// Certainly nothing happened.
    Nothing,
}

/// One transaction, as its client saw it. Times are absolute, in nanoseconds, and on one clock for
/// all clients.
///
/// Invariants: `began_ns <= ended_ns`; only [`Kind::ReadWrite`] writes; the writer of every cell in
/// `writes` is `txn`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Operation {
    /// Which client. One client does one thing after another.
    pub client: u32,
    /// The attempt that ended it; of reads without locks any id, also `TxnId::default()`.
    pub txn: TxnId,
    /// What was promised.
    pub kind: Kind,
    /// Before its first message left.
    pub began_ns: u64,
    /// After the client heard the end; `u64::MAX`: never.
    pub ended_ns: u64,
    /// How.
    pub ending: Ending,
    /// What it wrote last on each key; empty: it only read.
    pub writes: BTreeMap<Bytes, Cell>,
    /// What it read of others, not of itself; `None`: no row.
    pub reads: BTreeMap<Bytes, Option<Cell>>,
}

impl Operation {
    /// Whether it wrote nothing, with locks or without.
    pub fn read_only(&self) -> bool {
        self.writes.is_empty()
    }

    /// When it committed, or what it read at; `None`: it did not, or nobody knows.
    pub fn at(&self) -> Option<Timestamp> {
        match self.ending {
            Ending::At(at) => Some(at),
            Ending::Unknown | Ending::Nothing => None,
        }
    }
}
