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
//!
//! ## Tablets are replaced whole (P6)
//! A group has one *live* tablet, which reads see, and at most one *staged*, which nobody sees:
//!
//! ```text
//!     StageVersion ─▶ staged ──InstallStage──▶ live ◀── PutVersion, reads
//!                       │                       │
//!                   DropStage               DropTablet
//! ```
//!
//! `InstallStage` takes effect with its batch: after a crash there is the old tablet or the new
//! one, whole, and with it whatever else the batch says (applied slot, prepared transactions).
//! A read sees one of the two, never both. What is staged does not outlive the process: whoever
//! opens the engine finds nothing staged and begins anew.

#[cfg(test)]
mod conformance;
pub mod folder;
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
    /// (replay). The versions of a key come in the order of their timestamps, as in the log: an
    /// older one after a newer is read correctly only until the horizon has passed both
    /// ([`Engine::keep_history_from`]), because what collects history goes by the order of writing.
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
    /// Removes all meta records whose key begins with a prefix.
    DropMeta {
        /// The prefix.
        prefix: Vec<u8>,
    },
    /// Writes a version into the group's staged tablet. The versions of a key come in ascending
    /// order of their timestamps, as [`Pinned::read_versions`] gives them.
    StageVersion {
        /// The group.
        group: GroupId,
        /// The key.
        key: Key,
        /// The commit timestamp.
        at: Timestamp,
        /// The value.
        value: Option<Value>,
    },
    /// Forgets what the group has staged.
    DropStage {
        /// The group.
        group: GroupId,
    },
    /// Makes the staged tablet the group's tablet; the old one is gone. Nothing staged counts as
    /// an empty tablet.
    InstallStage {
        /// The group.
        group: GroupId,
    },
    /// Removes all versions of the group's tablet; what is staged stays.
    DropTablet {
        /// The group.
        group: GroupId,
    },
}

impl WriteOp {
    /// Bytes of the keys and values it carries.
    fn payload_bytes(&self) -> u64 {
        let bytes = match self {
            WriteOp::PutLog { bytes, .. } => bytes.len(),
            WriteOp::PutMeta { key, value } => key.len() + value.len(),
            WriteOp::PutVersion { key, value, .. } | WriteOp::StageVersion { key, value, .. } => {
                key.len() + value.as_ref().map_or(0, |value| value.len())
            }
            WriteOp::DeleteMeta { .. }
            | WriteOp::DropMeta { .. }
            | WriteOp::TruncateLog { .. }
            | WriteOp::CutLogTail { .. }
            | WriteOp::DropStage { .. }
            | WriteOp::InstallStage { .. }
            | WriteOp::DropTablet { .. } => 0,
        };
        bytes as u64
    }
}

/// A meta record: key and value.
pub type MetaRecord = (Vec<u8>, Vec<u8>);

/// What is stored for one slot of a log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogRecord {
    /// The slot.
    pub slot: Slot,
    /// The encoded entry; `None`: its checksum does not fit. Something was written here, perhaps
    /// acknowledged, and has to come from a peer.
    pub bytes: Option<Vec<u8>>,
}

/// Some versions of a tablet, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VersionPage {
    /// Key, commit timestamp, value (`None`: a deletion), ascending by key and then by timestamp.
    pub versions: Vec<(Key, Timestamp, Option<Value>)>,
    /// Whether nothing comes after them.
    pub done: bool,
}

/// A page being filled, the same way by every engine.
struct PageInProgress {
    page: VersionPage,
    bytes: usize,
    max_bytes: usize,
}

impl PageInProgress {
    fn new(max_bytes: usize) -> PageInProgress {
        PageInProgress { page: VersionPage::default(), bytes: 0, max_bytes }
    }

    /// Adds a version; false when the page is full already.
    fn push(&mut self, key: &Key, at: Timestamp, value: Option<&Value>) -> bool {
        if self.bytes >= self.max_bytes && !self.page.versions.is_empty() {
            return false;
        }
        self.bytes += key.len() + size_of::<Timestamp>() + value.map_or(0, |value| value.len());
        self.page.versions.push((key.clone(), at, value.cloned()));
        true
    }

    fn more(self) -> VersionPage {
        self.page
    }

    fn end(self) -> VersionPage {
        VersionPage { done: true, ..self.page }
    }
}

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
    /// Bytes of keys and values handed over in batches.
    pub bytes_logged: u64,
    /// Bytes written to the disk since opening: write-ahead log, memory tables that became files,
    /// and compaction (0 in memory). Divided by `bytes_logged` it is the write amplification.
    pub bytes_written: u64,
}

/// The storage of one spanserver. Shared by its threads.
pub trait Engine: Send + Sync {
    /// Writes a batch, atomically.
    ///
    /// # Errors
    /// Any is fatal for the process (P1).
    fn write(&self, batch: &[WriteOp], durability: Durability) -> Result<(), StorageError>;

    /// The log entries of a group from a slot on, in slot order.
    ///
    /// A damaged entry is reported as such and hides none of the others. Where the disk does not
    /// even tell which slots a damaged place held, every slot between intact entries counts as
    /// damaged, and so does every slot next to them that cannot be ruled out: one too many costs a
    /// question to the peers, one too few a promise (P1).
    ///
    /// # Errors
    /// I/O; corruption when it cannot be told which slots are damaged.
    fn read_log(&self, group: GroupId, from: Slot) -> Result<Vec<LogRecord>, StorageError>;

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
    /// at or above this one and turns them away first. Rows of tablets that were replaced are
    /// removed here too, some with each call. A call that raises the horizon costs a disk sync:
    /// make it every few seconds, not with every batch.
    ///
    /// # Errors
    /// I/O.
    fn keep_history_from(&self, horizon: Timestamp) -> Result<(), StorageError>;

    /// A view of the engine as it is now, whatever is written later. While there is one, no
    /// history is collected: let go of it soon.
    ///
    /// # Errors
    /// I/O.
    fn pin(&self) -> Result<Box<dyn Pinned>, StorageError>;

    /// Counters.
    fn stats(&self) -> EngineStats;
}

/// The engine as of one moment; what a snapshot of a tablet is read from (P7).
pub trait Pinned: Send + Sync {
    /// What [`Engine::read_meta`] answered then.
    ///
    /// # Errors
    /// I/O and corruption.
    fn read_meta(&self, prefix: &[u8]) -> Result<Vec<MetaRecord>, StorageError>;

    /// The versions of the group's tablet, deletions included: all that a read at or above
    /// [`Pinned::horizon`] can tell from one another, so of those at or below the horizon a key's
    /// newest only, and not that if it is a deletion. They ascend by key and then by timestamp,
    /// and begin behind `after`. About `max_bytes` of them (but at least one when there is one).
    ///
    /// # Errors
    /// I/O and corruption.
    fn read_versions(
        &self,
        group: GroupId,
        after: Option<&(Key, Timestamp)>,
        max_bytes: usize,
    ) -> Result<VersionPage, StorageError>;

    /// From where on history was kept then ([`Engine::keep_history_from`]). Whoever installs the
    /// tablet elsewhere serves no read below it.
    fn horizon(&self) -> Timestamp;
}
