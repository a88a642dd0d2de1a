//! What a spanserver keeps on disk, behind one small trait.
//!
//! Three kinds of things: each group's Paxos **log**, each tablet's **versions** (key and commit
//! timestamp → value), and **meta** (hard state, applied slots, prepared transactions, outcomes).
//!
//! ## The contract of [`Engine`]
//! 1. A batch is atomic: after a crash all of it is there or nothing.
//! 2. Batches survive in the order they were written: if a later one is there, so is every
//!    earlier one. A batch written without sync may be lost, but only with all that follow it.
//! 3. After `write(.., Durability::Synced)` returns, that batch *and all before it* survive.
//! 4. Reads see all batches whose `write` has returned.
//! 5. An error of `write` is final: the process ends (P1); nobody retries.
//!
//! Point 2 is what lets a tablet apply without its own sync: the applied slot and the versions it
//! covers are in one batch, and the log entries they came from were written before it.

#[cfg(test)]
mod conformance;
mod memory;
mod rocks;

pub use memory::Memory;
pub use rocks::Rocks;

use proto::keys::Value;
use proto::request::Versioned;
use proto::{GroupId, Key, KeyRange, Page, Slot};
use thiserror::Error;
use truetime::Timestamp;

/// One change; a batch of them is atomic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WriteOp {
    /// Writes, or overwrites, a log entry.
    PutLog {
        /// The group.
        group: GroupId,
        /// The slot.
        slot: Slot,
        /// The encoded entry.
        bytes: Vec<u8>,
    },
    /// Removes the log entries up to a slot, included.
    TruncateLog {
        /// The group.
        group: GroupId,
        /// The last slot removed.
        upto: Slot,
    },
    /// Removes the log entries after a slot: they were never chosen.
    CutLogTail {
        /// The group.
        group: GroupId,
        /// The last slot that stays.
        after: Slot,
    },
    /// Writes a meta record.
    PutMeta {
        /// Its key.
        key: Vec<u8>,
        /// Its value.
        value: Vec<u8>,
    },
    /// Removes a meta record.
    DeleteMeta {
        /// Its key.
        key: Vec<u8>,
    },
    /// Writes a version; `None` says "no row from here on". The same version may be written again
    /// (replay), and an older one after a newer (backfill).
    PutVersion {
        /// The group.
        group: GroupId,
        /// The key.
        key: Key,
        /// The commit timestamp.
        at: Timestamp,
        /// The value.
        value: Option<Value>,
    },
}

/// A meta record: key and value.
pub type MetaRecord = (Vec<u8>, Vec<u8>);

/// Whether a write waits for the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// Returns when the batch, and all before it, survive a power cut.
    Synced,
    /// Survives a crash of the process at best; see point 2 of the contract.
    Buffered,
}

/// Why the storage refused.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum StorageError {
    /// The disk is full.
    #[error("no space left on device: {0}")]
    Full(String),
    /// Another process has the folder open.
    #[error("the data folder is in use by another process: {0}")]
    InUse(String),
    /// A checksum does not fit: the bytes were damaged.
    #[error("corruption: {0}")]
    Corruption(String),
    /// Anything else the disk or RocksDB said.
    #[error("storage: {0}")]
    Io(String),
}

/// What an engine counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EngineStats {
    /// Synced writes so far: one disk sync each.
    pub syncs: u64,
    /// Batches written so far, synced or not.
    pub batches: u64,
    /// Bytes of all live files on disk (0 in memory).
    pub disk_bytes: u64,
}

/// The storage of one spanserver. Shared by its threads.
pub trait Engine: Send + Sync {
    /// Writes a batch, atomically.
    ///
    /// # Errors
    /// Any is fatal for the process (P1).
    fn write(&self, batch: &[WriteOp], durability: Durability) -> Result<(), StorageError>;

    /// The log entries of a group from a slot on, in slot order, with their slots.
    ///
    /// # Errors
    /// Corruption is named with its group and slot.
    fn read_log(&self, group: GroupId, from: Slot) -> Result<Vec<(Slot, Vec<u8>)>, StorageError>;

    /// The meta records whose key begins with `prefix`, in key order.
    ///
    /// # Errors
    /// I/O and corruption.
    fn read_meta(&self, prefix: &[u8]) -> Result<Vec<MetaRecord>, StorageError>;

    /// The newest version of a key at or below `at`, unless that is a deletion.
    ///
    /// # Errors
    /// I/O and corruption.
    fn get(
        &self,
        group: GroupId,
        key: &[u8],
        at: Timestamp,
    ) -> Result<Option<Versioned>, StorageError>;

    /// The rows of a range at `at`, in key order, at most `max_rows` and about `max_bytes` (but at
    /// least one row when there is one). `resume` is the key to go on from.
    ///
    /// # Errors
    /// I/O and corruption.
    fn scan(
        &self,
        group: GroupId,
        range: &KeyRange,
        at: Timestamp,
        max_rows: usize,
        max_bytes: usize,
    ) -> Result<Page, StorageError>;

    /// From now on only reads at or above `horizon` are promised (R5); older versions that a newer
    /// one at or below the horizon hides may be collected. A lower horizon than before is ignored.
    ///
    /// Reads below it fail with [`StorageError::Io`]: whoever serves reads keeps its own horizon
    /// at or above this one and turns them away first. Below the horizon a key may only be written
    /// in the order of its timestamps, because a collected deletion hides nothing any more. A call
    /// costs a disk sync: make it every few seconds, not with every batch.
    ///
    /// # Errors
    /// I/O.
    fn keep_history_from(&self, horizon: Timestamp) -> Result<(), StorageError>;

    /// Counters.
    fn stats(&self) -> EngineStats;
}
