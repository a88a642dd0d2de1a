//! The [`Engine`] on RocksDB.
//!
//! Five column families behind one write-ahead log:
//!
//! | family     | key                        | value                          |
//! |------------|----------------------------|--------------------------------|
//! | `log`      | group (u32), slot (u64)    | checksum, entry                |
//! | `meta`     | the record's key           | checksum, record               |
//! | `tablets`  | group (u32)                | checksum, which generation of its tablet is live, which staged |
//! | `default`  | see [`log_starts`], [`heal`] | where each log begins, and which family is live |
//! | `versions` | group (u32), generation (u32), key, *timestamp* | timestamp (u64), row; a deletion is RocksDB's own |
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
//! - *Damage of the log is bridged*: the peers have what it held. Reading goes around it ([`log`])
//!   and opening moves the log to a fresh family, `log2` or `log` in turn, of which no block is
//!   damaged ([`heal`]).
//! - *Tablets are replaced whole*: by a change of the record in `tablets` ([`tablets`]). Whoever
//!   makes a cursor holds that record's lock meanwhile, and a cursor sees what there was when it
//!   was made; so the keys of the old tablet may go as soon as the lock was taken.
//!
//! The checksums of `log` and `meta` cover key and value and are checked at each reading: what an
//! acceptor has promised is only repeated if it is what was written. `versions` relies on RocksDB's
//! checksums of blocks and log records; a second one would be computed for each row of each scan.

mod batch;
mod heal;
mod keys;
mod log;
mod log_starts;
mod options;
mod pin;
mod tablets;
mod torn_tail;

use self::batch::Batch;
use self::keys::{TabletId, bounds, timestamp, unseal, versioned};
use self::log_starts::LogStarts;
use self::pin::{PinCount, View};
use self::tablets::{Garbage, Tablets};
use super::memory::below_horizon;
use super::{
    Durability, Engine, EngineStats, LogRecord, MetaRecord, Pinned, StorageError, WriteOp,
};
use parking_lot::{Mutex, RwLock};
use proto::keys::{Row, prefix_end};
use proto::request::Versioned;
use proto::{GroupId, Key, KeyRange, Page, Slot};
use rocksdb::statistics::Ticker;
use rocksdb::{
    Cache, ColumnFamily, DBRawIteratorWithThreadMode, DBRecoveryMode, DBWithThreadMode, Options,
    ReadOptions, SingleThreaded, WriteBatch, WriteOptions,
};
use std::borrow::Cow;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use truetime::Timestamp;

/// Families are fixed at opening, so looking one up needs no lock.
type Db = DBWithThreadMode<SingleThreaded>;
type Cursor<'a> = DBRawIteratorWithThreadMode<'a, Db>;

/// One of them is there.
const LOGS: [&str; 2] = ["log", "log2"];
const META: &str = "meta";
const TABLETS: &str = "tablets";
const VERSIONS: &str = "versions";

/// What is to be done about damage that nothing in the folder makes good.
const ADVICE: &str = "this replica cannot go on with this folder: remove the replica and add it \
                      again with an empty folder (nothing acknowledged is lost while a majority of \
                      the replicas is healthy)";

/// Rows of old tablets that one call of [`Engine::keep_history_from`] removes.
const SWEPT_ROWS_MAX: usize = 4096;

/// An open data folder.
///
/// Invariants:
/// 1. `horizon` (microseconds) never falls, and RocksDB's `full_history_ts_low` is never above it.
///    It is below it only while there are pins, or while `raising` is held: then readers are
///    turned away here though RocksDB would still know the answer.
/// 2. `tablets` is what a reader of the family `tablets` would find, except while it is locked for
///    writing.
pub struct Rocks {
    db: Arc<Db>,
    /// Holds the counters of RocksDB.
    options: Options,
    path: PathBuf,
    log_starts: Mutex<LogStarts>,
    tablets: RwLock<Tablets>,
    garbage: Mutex<Garbage>,
    horizon: AtomicU64,
    /// What RocksDB was last told.
    raising: Mutex<Timestamp>,
    pins: Arc<AtomicUsize>,
    syncs: AtomicU64,
    batches: AtomicU64,
    bytes_logged: AtomicU64,
}

impl Rocks {
    /// Opens the folder, and creates it when it is not there. What an earlier process had staged
    /// is forgotten, and a damaged log is made whole (`heal`).
    ///
    /// # Errors
    /// [`StorageError::InUse`] when it is open already, in this process or another;
    /// [`StorageError::Corruption`] when bytes that may have been acknowledged are damaged.
    pub fn open(path: &Path) -> Result<Rocks, StorageError> {
        create_folder(path)?;
        let cache = options::cache();
        let (mut db, options) = match open_db(path, &cache, DBRecoveryMode::AbsoluteConsistency) {
            Err(StorageError::Corruption(damage)) => {
                if !torn_tail::is_only_damage(path).map_err(|e| world(path, &e))? {
                    return Err(beyond_repair(damage));
                }
                open_db(path, &cache, DBRecoveryMode::PointInTime)?
            }
            opened => opened?,
        };
        let log_starts = heal::make_whole(&mut db, &options::log(&cache))?;
        // An empty answer: no horizon was ever set.
        let stored = db.get_full_history_ts_low(family(&db, VERSIONS)).map_err(storage_error)?;
        let horizon = <[u8; 8]>::try_from(stored).map_or(0, u64::from_le_bytes);
        let tablets = forget_stages(&db)?;
        Ok(Rocks {
            garbage: Mutex::new(tablets.find_garbage(&db)?),
            tablets: RwLock::new(tablets),
            log_starts: Mutex::new(log_starts),
            db: Arc::new(db),
            options,
            path: path.to_path_buf(),
            horizon: AtomicU64::new(horizon),
            raising: Mutex::new(Timestamp::from_micros(horizon)),
            pins: Arc::default(),
            syncs: AtomicU64::new(0),
            batches: AtomicU64::new(0),
            bytes_logged: AtomicU64::new(0),
        })
    }

    fn horizon(&self) -> Timestamp {
        Timestamp::from_micros(self.horizon.load(Ordering::Acquire))
    }

    /// A cursor over the versions of the group's tablet visible at `at`.
    fn versions_at(
        &self,
        group: GroupId,
        at: Timestamp,
        options: impl FnOnce(TabletId) -> ReadOptions,
    ) -> Result<(TabletId, Cursor<'_>), StorageError> {
        let horizon = self.horizon();
        if at < horizon {
            return Err(below_horizon(at, horizon));
        }
        let tablets = self.tablets.read();
        let tablet = tablets.live(group);
        let mut options = options(tablet);
        options.set_timestamp(timestamp(at));
        Ok((tablet, self.db.raw_iterator_cf_opt(family(&self.db, VERSIONS), options)))
    }

    /// Writes a batch that changes which tablets there are, out of sight of readers.
    fn write_tablets(&self, ops: &[WriteOp], options: &WriteOptions) -> Result<(), StorageError> {
        let mut tablets = self.tablets.write();
        let (batch, changed) = Batch::of(&self.db, &tablets, ops);
        let mut changed = changed.into_owned();
        self.write_batch(batch, ops, options)?;
        let dropped = changed.take_dropped();
        *tablets = changed;
        drop(tablets);
        self.garbage.lock().add(dropped);
        Ok(())
    }

    fn write_batch(
        &self,
        mut batch: WriteBatch,
        ops: &[WriteOp],
        options: &WriteOptions,
    ) -> Result<(), StorageError> {
        self.log_starts.lock().note(ops, &mut batch);
        self.db.write_opt(batch, options).map_err(|error| self.refused(storage_error(error)))
    }

    /// Damage that a compaction came upon makes writes fail: says of what, and what can be done.
    fn refused(&self, error: StorageError) -> StorageError {
        let StorageError::Corruption(words) = error else { return error };
        let files = self.db.live_files().unwrap_or_default();
        let damaged = files.iter().find(|file| words.contains(&file.name));
        match damaged.map(|file| &file.column_family_name[..]) {
            Some(name) if LOGS.contains(&name) => StorageError::Corruption(format!(
                "{words}, a file of the log: start the process again, which makes the log whole"
            )),
            Some(name) => beyond_repair(format!("{words}, a file of {name}")),
            None => beyond_repair(words),
        }
    }
}

impl Engine for Rocks {
    fn write(&self, ops: &[WriteOp], durability: Durability) -> Result<(), StorageError> {
        let mut options = WriteOptions::default();
        options.set_sync(durability == Durability::Synced);
        let tablets = self.tablets.read();
        match Batch::of(&self.db, &tablets, ops) {
            (batch, Cow::Borrowed(_)) => {
                self.write_batch(batch, ops, &options)?;
                drop(tablets);
            }
            // Built once more, as the tablets may have changed before the lock is taken.
            (_, Cow::Owned(_)) => {
                drop(tablets);
                self.write_tablets(ops, &options)?;
            }
        }
        let bytes = ops.iter().map(WriteOp::payload_bytes).sum();
        self.bytes_logged.fetch_add(bytes, Ordering::Relaxed);
        self.batches.fetch_add(1, Ordering::Relaxed);
        if durability == Durability::Synced {
            self.syncs.fetch_add(1, Ordering::Relaxed);
        }
        Ok(())
    }

    fn read_log(&self, group: GroupId, from: Slot) -> Result<Vec<LogRecord>, StorageError> {
        log::read(&self.db, group, from)
    }

    fn read_meta(&self, prefix: &[u8]) -> Result<Vec<MetaRecord>, StorageError> {
        read_meta(&self.db, bounds(prefix, &prefix_end(prefix)), prefix)
    }

    /// Through a cursor and not RocksDB's `Get`, which stops at the first table that has the key:
    /// it finds the newest *write* instead of the newest *timestamp* when an old version arrives
    /// late (a replay). The prefix of a key is the whole key (`options::versions`), so
    /// the bloom filters that serve `Get` serve this cursor as well.
    fn get(
        &self,
        group: GroupId,
        key: &[u8],
        at: Timestamp,
    ) -> Result<Option<Versioned>, StorageError> {
        let (tablet, mut cursor) = self.versions_at(group, at, |_| {
            let mut options = ReadOptions::default();
            options.set_prefix_same_as_start(true);
            options
        })?;
        let stored = tablet.key(key);
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
        let (_, mut cursor) = self.versions_at(group, at, |tablet| {
            let end = if range.end.is_empty() {
                prefix_end(&tablet.prefix())
            } else {
                Key::from(tablet.key(&range.end))
            };
            let mut options = bounds(&tablet.key(&range.start), &end);
            options.set_total_order_seek(true);
            options
        })?;
        let mut bytes = 0;
        cursor.seek_to_first();
        while let Some((stored, value)) = cursor.item() {
            let (written, value) = versioned(group, value)?;
            let key = Key::copy_from_slice(&stored[TabletId::PREFIX_BYTES..]);
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
        self.garbage.lock().sweep(&self.db, SWEPT_ROWS_MAX)?;
        let mut told = self.raising.lock();
        let horizon = horizon.max(self.horizon());
        self.horizon.store(horizon.micros(), Ordering::Release);
        // Compaction goes by what it was told, snapshots or not: under a pin it stays as it is.
        if horizon > *told && self.pins.load(Ordering::Acquire) == 0 {
            self.db
                .increase_full_history_ts_low(family(&self.db, VERSIONS), timestamp(horizon))
                .map_err(storage_error)?;
            *told = horizon;
        }
        Ok(())
    }

    fn pin(&self) -> Result<Box<dyn Pinned>, StorageError> {
        let _told = self.raising.lock();
        let pin = PinCount::one_more(&self.pins);
        Ok(Box::new(View::of(Arc::clone(&self.db), self.horizon(), pin)?))
    }

    fn stats(&self) -> EngineStats {
        let written = [Ticker::WalFileBytes, Ticker::FlushWriteBytes, Ticker::CompactWriteBytes];
        EngineStats {
            syncs: self.syncs.load(Ordering::Relaxed),
            batches: self.batches.load(Ordering::Relaxed),
            disk_bytes: folder_bytes(&self.path),
            bytes_logged: self.bytes_logged.load(Ordering::Relaxed),
            bytes_written: written.map(|part| self.options.get_ticker_count(part)).iter().sum(),
        }
    }
}

fn read_meta(
    db: &Db,
    options: ReadOptions,
    prefix: &[u8],
) -> Result<Vec<MetaRecord>, StorageError> {
    let mut cursor = db.raw_iterator_cf_opt(family(db, META), options);
    let mut records = Vec::new();
    cursor.seek_to_first();
    while let Some((key, sealed)) = cursor.item() {
        let record = unseal(key, sealed).ok_or_else(|| {
            let place = key.escape_ascii();
            beyond_repair(format!("meta record {place}: checksum mismatch"))
        })?;
        records.push((key.to_vec(), record.to_vec()));
        cursor.next();
    }
    finish(&cursor, || format!("meta records {}", prefix.escape_ascii()))?;
    Ok(records)
}

/// The tablets of all groups, with nothing staged.
fn forget_stages(db: &Db) -> Result<Tablets, StorageError> {
    let mut tablets = Tablets::read(db, ReadOptions::default())?;
    let mut batch = WriteBatch::default();
    for group in tablets.drop_stages() {
        tablets.record(db, group, &mut batch);
    }
    // What was dropped is found again as garbage.
    tablets.take_dropped();
    // Not synced: if it gets lost, the next opening says the same.
    db.write(batch).map_err(storage_error)?;
    Ok(tablets)
}

fn open_db(
    path: &Path,
    cache: &Cache,
    recovery: DBRecoveryMode,
) -> Result<(Db, Options), StorageError> {
    let options = options::database(recovery);
    // A folder that RocksDB has begun has this file, and only then a list of families.
    let begun = path.join("CURRENT").exists();
    let existing = if begun { Db::list_cf(&options, path).map_err(storage_error)? } else { vec![] };
    let mut logs = LOGS.to_vec();
    logs.retain(|name| existing.iter().any(|existing| existing == name));
    if logs.is_empty() {
        logs.push(LOGS[0]);
    }
    let families = options::families(cache, &logs).map_err(storage_error)?;
    let db = Db::open_cf_descriptors(&options, path, families).map_err(storage_error)?;
    Ok((db, options))
}

fn family<'a>(db: &'a Db, name: &str) -> &'a ColumnFamily {
    db.cf_handle(name).expect("opened with all its families")
}

/// The family of logs; there is one except while it is being replaced (`heal`).
fn log_family(db: &Db) -> &ColumnFamily {
    LOGS.iter().find_map(|name| db.cf_handle(name)).expect("opened with a log")
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

/// A cursor stops at the end and at an error alike: this tells them apart.
fn finish(cursor: &Cursor<'_>, what: impl Fn() -> String) -> Result<(), StorageError> {
    cursor.status().map_err(|error| match storage_error(error) {
        StorageError::Corruption(e) => beyond_repair(format!("{}: {e}", what())),
        StorageError::Io(e) => StorageError::Io(format!("{}: {e}", what())),
        other => other,
    })
}

/// Damage that cannot be made good here; says what to do.
fn beyond_repair(what: String) -> StorageError {
    StorageError::Corruption(format!("{what}; {ADVICE}"))
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
mod damage_tests;
#[cfg(test)]
mod heal_tests;
#[cfg(test)]
mod tests;
