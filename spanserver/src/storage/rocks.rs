//! The [`Engine`] on RocksDB.
//!
//! Three column families behind one write-ahead log:
//!
//! | family     | key                        | value                          |
//! |------------|----------------------------|--------------------------------|
//! | `log`      | group (u32), slot (u64)    | checksum, entry                |
//! | `meta`     | the record's key           | checksum, record               |
//! | `versions` | group (u32), key, *timestamp* | timestamp (u64), row; a deletion is RocksDB's own |
//!
//! Numbers are big-endian, so byte order is their order. The timestamp of a key is a *user-defined
//! timestamp* of RocksDB: a read names a point in time and sees one version per key, and versions
//! below the horizon go away during compaction (`docs/decisions/0002-user-defined-timestamps.md`).
//! Compaction also sets that timestamp to zero in the oldest version it keeps; therefore the value
//! begins with the timestamp that `written` reports.
//!
//! ## How the contract is kept
//! - *Atomic* (1): one `WriteBatch` is one record of the write-ahead log.
//! - *In order* (2): there is one write-ahead log. When RocksDB writes a memory table of one family
//!   to a file, it first syncs the older parts of that log, so the file is never ahead of what the
//!   other families would recover.
//! - *Synced* (3): `sync` makes RocksDB sync every older part of the log that is not synced yet.
//! - *Nothing acknowledged is dropped in silence*: the log is replayed in the strictest mode. If
//!   that finds damage, [`torn_tail`] decides whether it is the unfinished last write of a power
//!   cut (dropped: its writer never heard that it survives) or damage of older bytes
//!   ([`StorageError::Corruption`]; the folder is not opened).
//!
//! The checksums of `log` and `meta` cover key and value and are checked at each reading: what an
//! acceptor has promised is only repeated if it is what was written. `versions` relies on RocksDB's
//! checksums of blocks and log records; a second one would be computed for each row of each scan.

mod options;
mod torn_tail;

use super::memory::below_horizon;
use super::{Durability, Engine, EngineStats, MetaRecord, StorageError, WriteOp};
use parking_lot::Mutex;
use proto::keys::{Row, prefix_end};
use proto::request::Versioned;
use proto::{GroupId, Key, KeyRange, Page, Slot, Value};
use rocksdb::{
    ColumnFamily, DBRawIteratorWithThreadMode, DBRecoveryMode, DBWithThreadMode, ReadOptions,
    SingleThreaded, WriteBatch, WriteOptions,
};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use truetime::Timestamp;

/// Families are fixed at opening, so looking one up needs no lock.
type Db = DBWithThreadMode<SingleThreaded>;
type Cursor<'a> = DBRawIteratorWithThreadMode<'a, Db>;

const LOG: &str = "log";
const VERSIONS: &str = "versions";
const META: &str = "meta";

/// An open data folder.
///
/// Invariant: `horizon` (microseconds) is what RocksDB was last told as `full_history_ts_low`, or
/// the value before that while `raising` is held. Readers do not wait for a raise: RocksDB itself
/// turns away those that fall into that gap.
pub struct Rocks {
    db: Db,
    path: PathBuf,
    horizon: AtomicU64,
    raising: Mutex<()>,
    syncs: AtomicU64,
    batches: AtomicU64,
}

impl Rocks {
    /// Opens the folder, and creates it when it is not there.
    ///
    /// # Errors
    /// [`StorageError::InUse`] when it is open already, in this process or another;
    /// [`StorageError::Corruption`] when bytes that may have been acknowledged are damaged.
    pub fn open(path: &Path) -> Result<Rocks, StorageError> {
        create_folder(path)?;
        let db = match open_db(path, DBRecoveryMode::AbsoluteConsistency) {
            Err(StorageError::Corruption(damage)) => {
                if !torn_tail::is_only_damage(path).map_err(|e| world(path, &e))? {
                    return Err(StorageError::Corruption(damage));
                }
                open_db(path, DBRecoveryMode::PointInTime)?
            }
            opened => opened?,
        };
        // An empty answer: no horizon was ever set.
        let stored = db.get_full_history_ts_low(family(&db, VERSIONS)).map_err(storage_error)?;
        let horizon = <[u8; 8]>::try_from(stored).map_or(0, u64::from_le_bytes);
        Ok(Rocks {
            db,
            path: path.to_path_buf(),
            horizon: AtomicU64::new(horizon),
            raising: Mutex::new(()),
            syncs: AtomicU64::new(0),
            batches: AtomicU64::new(0),
        })
    }

    fn horizon(&self) -> Timestamp {
        Timestamp::from_micros(self.horizon.load(Ordering::Acquire))
    }

    /// A cursor over the versions of one range (group included) visible at `at`.
    fn versions_at(
        &self,
        mut options: ReadOptions,
        at: Timestamp,
    ) -> Result<Cursor<'_>, StorageError> {
        let horizon = self.horizon();
        if at < horizon {
            return Err(below_horizon(at, horizon));
        }
        options.set_timestamp(timestamp(at));
        Ok(self.db.raw_iterator_cf_opt(family(&self.db, VERSIONS), options))
    }
}

impl Engine for Rocks {
    fn write(&self, ops: &[WriteOp], durability: Durability) -> Result<(), StorageError> {
        let batch = Batch::of(&self.db, ops);
        let mut options = WriteOptions::default();
        options.set_sync(durability == Durability::Synced);
        self.db.write_opt(batch, &options).map_err(storage_error)?;
        self.batches.fetch_add(1, Ordering::Relaxed);
        if durability == Durability::Synced {
            self.syncs.fetch_add(1, Ordering::Relaxed);
        }
        Ok(())
    }

    fn read_log(&self, group: GroupId, from: Slot) -> Result<Vec<(Slot, Vec<u8>)>, StorageError> {
        let options = bounds(&log_key(group, from), &prefix_end(&group.0.to_be_bytes()));
        let mut cursor = self.db.raw_iterator_cf_opt(family(&self.db, LOG), options);
        let mut entries = Vec::new();
        cursor.seek_to_first();
        while let Some((key, sealed)) = cursor.item() {
            let slot = slot_of(key).ok_or_else(|| {
                StorageError::Corruption(format!("log of {group}: a key of {} bytes", key.len()))
            })?;
            let entry = unseal(key, sealed).ok_or_else(|| {
                StorageError::Corruption(format!("log of {group}, slot {slot}: checksum mismatch"))
            })?;
            entries.push((slot, entry.to_vec()));
            cursor.next();
        }
        finish(&cursor, || format!("log of {group} from slot {from}"))?;
        Ok(entries)
    }

    fn read_meta(&self, prefix: &[u8]) -> Result<Vec<MetaRecord>, StorageError> {
        let options = bounds(prefix, &prefix_end(prefix));
        let mut cursor = self.db.raw_iterator_cf_opt(family(&self.db, META), options);
        let mut records = Vec::new();
        cursor.seek_to_first();
        while let Some((key, sealed)) = cursor.item() {
            let record = unseal(key, sealed).ok_or_else(|| {
                StorageError::Corruption(format!(
                    "meta record {}: checksum mismatch",
                    key.escape_ascii()
                ))
            })?;
            records.push((key.to_vec(), record.to_vec()));
            cursor.next();
        }
        finish(&cursor, || format!("meta records {}", prefix.escape_ascii()))?;
        Ok(records)
    }

    /// Through a cursor and not RocksDB's `Get`, which stops at the first table that has the key:
    /// it finds the newest *write* instead of the newest *timestamp* when an old version arrives
    /// late (a backfill, a replay). The prefix of a key is the whole key (`options::versions`), so
    /// the bloom filters that serve `Get` serve this cursor as well.
    fn get(
        &self,
        group: GroupId,
        key: &[u8],
        at: Timestamp,
    ) -> Result<Option<Versioned>, StorageError> {
        let stored = version_key(group, key);
        let mut options = ReadOptions::default();
        options.set_prefix_same_as_start(true);
        let mut cursor = self.versions_at(options, at)?;
        cursor.seek(&stored);
        let found = match cursor.item() {
            Some((found, value)) if found == stored => Some(versioned(group, value)?),
            _ => None,
        };
        finish(&cursor, || format!("version of {group}"))?;
        Ok(found)
    }

    fn scan(
        &self,
        group: GroupId,
        range: &KeyRange,
        at: Timestamp,
        max_rows: usize,
        max_bytes: usize,
    ) -> Result<Page, StorageError> {
        let mut page = Page::default();
        if range.is_empty() {
            return Ok(page);
        }
        let prefix = group.0.to_be_bytes();
        let end = if range.end.is_empty() {
            prefix_end(&prefix)
        } else {
            Key::from(version_key(group, &range.end))
        };
        let mut options = bounds(&version_key(group, &range.start), &end);
        options.set_total_order_seek(true);
        let mut cursor = self.versions_at(options, at)?;
        let mut bytes = 0;
        cursor.seek_to_first();
        while let Some((stored, value)) = cursor.item() {
            let (written, value) = versioned(group, value)?;
            let key = Key::copy_from_slice(&stored[prefix.len()..]);
            if !page.rows.is_empty() && (page.rows.len() >= max_rows || bytes >= max_bytes) {
                page.resume = Some(key);
                break;
            }
            bytes += key.len() + value.len();
            page.rows.push(Row { key, value, written });
            cursor.next();
        }
        finish(&cursor, || format!("versions of {group}"))?;
        Ok(page)
    }

    fn keep_history_from(&self, horizon: Timestamp) -> Result<(), StorageError> {
        let _raising = self.raising.lock();
        if horizon <= self.horizon() {
            return Ok(());
        }
        self.db
            .increase_full_history_ts_low(family(&self.db, VERSIONS), timestamp(horizon))
            .map_err(storage_error)?;
        self.horizon.store(horizon.micros(), Ordering::Release);
        Ok(())
    }

    fn stats(&self) -> EngineStats {
        EngineStats {
            syncs: self.syncs.load(Ordering::Relaxed),
            batches: self.batches.load(Ordering::Relaxed),
            disk_bytes: folder_bytes(&self.path),
        }
    }
}

/// Turns operations into RocksDB's batch; one buffer serves all keys, another all values.
struct Batch<'a> {
    db: &'a Db,
    batch: WriteBatch,
    key: Vec<u8>,
    value: Vec<u8>,
}

impl Batch<'_> {
    fn of(db: &Db, ops: &[WriteOp]) -> WriteBatch {
        let mut batch =
            Batch { db, batch: WriteBatch::default(), key: Vec::new(), value: Vec::new() };
        for op in ops {
            batch.push(op);
        }
        batch.batch
    }

    fn push(&mut self, op: &WriteOp) {
        match op {
            WriteOp::PutLog { group, slot, bytes } => {
                let key = log_key(*group, *slot);
                seal(&mut self.value, &key, bytes);
                self.batch.put_cf(family(self.db, LOG), key, &self.value);
            }
            WriteOp::TruncateLog { group, upto } => {
                self.remove_log(&log_key(*group, Slot::ZERO), &log_key_after(*group, *upto));
            }
            WriteOp::CutLogTail { group, after } => {
                self.remove_log(
                    &log_key_after(*group, *after),
                    &log_key_after(*group, Slot(u64::MAX)),
                );
            }
            WriteOp::PutMeta { key, value } => {
                seal(&mut self.value, key, value);
                self.batch.put_cf(family(self.db, META), key, &self.value);
            }
            WriteOp::DeleteMeta { key } => self.batch.delete_cf(family(self.db, META), key),
            WriteOp::PutVersion { group, key, at, value } => {
                self.key.clear();
                self.key.extend_from_slice(&group.0.to_be_bytes());
                self.key.extend_from_slice(key);
                let versions = family(self.db, VERSIONS);
                let Some(value) = value else {
                    return self.batch.delete_cf_with_ts(versions, &self.key, timestamp(*at));
                };
                self.value.clear();
                self.value.extend_from_slice(&at.micros().to_be_bytes());
                self.value.extend_from_slice(value);
                self.batch.put_cf_with_ts(versions, &self.key, timestamp(*at), &self.value);
            }
        }
    }

    fn remove_log(&mut self, start: &[u8], end: &[u8]) {
        self.batch.delete_range_cf(family(self.db, LOG), start, end);
    }
}

fn open_db(path: &Path, recovery: DBRecoveryMode) -> Result<Db, StorageError> {
    let families = options::families().map_err(storage_error)?;
    Db::open_cf_descriptors(&options::database(recovery), path, families).map_err(storage_error)
}

fn family<'a>(db: &'a Db, name: &str) -> &'a ColumnFamily {
    db.cf_handle(name).expect("opened with all its families")
}

/// Creates the folder so that it is still there after a power cut.
fn create_folder(path: &Path) -> Result<(), StorageError> {
    if path.is_dir() {
        return Ok(());
    }
    std::fs::create_dir_all(path).map_err(|e| world(path, &e))?;
    match path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        Some(parent) => std::fs::File::open(parent)
            .and_then(|folder| folder.sync_all())
            .map_err(|e| world(parent, &e)),
        None => Ok(()),
    }
}

fn folder_bytes(path: &Path) -> u64 {
    let Ok(files) = std::fs::read_dir(path) else { return 0 };
    // A file may vanish between being listed and being asked: it does not count then.
    files.flatten().filter_map(|file| file.metadata().ok()).map(|data| data.len()).sum()
}

fn log_key(group: GroupId, slot: Slot) -> [u8; 12] {
    let mut key = [0; 12];
    key[..4].copy_from_slice(&group.0.to_be_bytes());
    key[4..].copy_from_slice(&slot.0.to_be_bytes());
    key
}

/// The first key after a slot's: ranges are removed up to their end, not including it.
fn log_key_after(group: GroupId, slot: Slot) -> [u8; 13] {
    let mut key = [0; 13];
    key[..12].copy_from_slice(&log_key(group, slot));
    key
}

fn slot_of(key: &[u8]) -> Option<Slot> {
    let slot = <[u8; 8]>::try_from(key.get(4..)?).ok()?;
    Some(Slot(u64::from_be_bytes(slot)))
}

fn version_key(group: GroupId, key: &[u8]) -> Vec<u8> {
    let mut stored = Vec::with_capacity(4 + key.len());
    stored.extend_from_slice(&group.0.to_be_bytes());
    stored.extend_from_slice(key);
    stored
}

/// The checksum covers the key too: a value in another's place is damage as well.
fn checksum(key: &[u8], value: &[u8]) -> [u8; 4] {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(key);
    hasher.update(value);
    hasher.finalize().to_be_bytes()
}

fn seal(sealed: &mut Vec<u8>, key: &[u8], value: &[u8]) {
    sealed.clear();
    sealed.extend_from_slice(&checksum(key, value));
    sealed.extend_from_slice(value);
}

fn unseal<'a>(key: &[u8], sealed: &'a [u8]) -> Option<&'a [u8]> {
    let (sum, value) = sealed.split_at_checked(4)?;
    (sum == checksum(key, value)).then_some(value)
}

/// Bounds of a cursor; an empty `end` is none.
fn bounds(start: &[u8], end: &[u8]) -> ReadOptions {
    let mut options = ReadOptions::default();
    options.set_iterate_lower_bound(start);
    if !end.is_empty() {
        options.set_iterate_upper_bound(end);
    }
    options
}

/// A timestamp as RocksDB's comparator wants it: little-endian.
fn timestamp(at: Timestamp) -> [u8; 8] {
    at.micros().to_le_bytes()
}

/// The header and the row of a stored version.
fn versioned(group: GroupId, stored: &[u8]) -> Result<Versioned, StorageError> {
    let (written, row) = stored.split_first_chunk::<8>().ok_or_else(|| {
        StorageError::Corruption(format!("a version of {group} without its timestamp"))
    })?;
    Ok((Timestamp::from_micros(u64::from_be_bytes(*written)), Value::copy_from_slice(row)))
}

/// A cursor stops at the end and at an error alike: this tells them apart.
fn finish(cursor: &Cursor<'_>, what: impl Fn() -> String) -> Result<(), StorageError> {
    cursor.status().map_err(|error| match storage_error(error) {
        StorageError::Corruption(e) => StorageError::Corruption(format!("{}: {e}", what())),
        StorageError::Io(e) => StorageError::Io(format!("{}: {e}", what())),
        other => other,
    })
}

/// RocksDB's errors are words; these are the ones that mean something to the operator.
fn storage_error(error: rocksdb::Error) -> StorageError {
    let kind = error.kind();
    let words = error.into_string();
    if words.contains("No space left on device") {
        StorageError::Full(words)
    } else if words.contains("While lock file") || words.contains("lock hold by current process") {
        StorageError::InUse(words)
    } else if kind == rocksdb::ErrorKind::Corruption {
        StorageError::Corruption(words)
    } else {
        StorageError::Io(words)
    }
}

/// The same for what the file system says directly.
fn world(path: &Path, error: &std::io::Error) -> StorageError {
    let words = format!("{}: {error}", path.display());
    match error.kind() {
        std::io::ErrorKind::StorageFull => StorageError::Full(words),
        _ => StorageError::Io(words),
    }
}

#[cfg(test)]
mod tests;
