//! Makes the log whole when a table file under it is damaged.
//!
//! Reading gets past a damaged block (`super::log`), but the block stays, and the first compaction
//! that meets it makes every write fail from then on, after each restart anew. So opening looks for
//! such a block before compaction of the log may begin, and if there is one, moves the log into a
//! fresh family; what cannot be read becomes a marker there, for the replica to fetch from a peer:
//!
//! ```text
//!     live: log                      live: log                     live: log2
//!     log    1 2 ▒ ▒ 5     copy      log    1 2 ▒ ▒ 5    switch    log    dropped, its files too
//!                        ───────▶    log2   1 2 ? ? 5  ─────────▶  log2   1 2 ? ? 5
//! ```
//!
//! A record in RocksDB's family `default` names the live one. The switch is a synced write of that
//! record, so the copy, written before it, is there if the switch is; whichever family the record
//! does not name is dropped, now or at the next opening. With the next damage the names change
//! places.

use super::keys::{log_key, seal, unseal};
use super::log_starts::LogStarts;
use super::{Db, LOGS, beyond_repair, family, finish, log, log_family, storage_error};
use crate::storage::StorageError;
use rocksdb::{Options, ReadOptions, WriteBatch, WriteOptions};

/// The record that says which family is live; without it, the first.
const LIVE: &[u8] = b"live log";
/// Fails its seal, so it reads as damaged.
const DAMAGED: &[u8] = b"";
/// What is copied at a time.
const COPIED_BYTES: usize = 1 << 20;
/// The log is read from end to end.
const READ_AHEAD_BYTES: usize = 2 << 20;

/// Leaves one family of logs, without damaged blocks, and lets its compaction begin: it must have
/// been opened with compaction off. `options` are those of a new family.
///
/// Where damage is such that nobody can tell which slots it hit, all stays as it is, compaction
/// off: reading the log of a group says whether that group is affected.
pub fn make_whole(db: &mut Db, options: &Options) -> Result<LogStarts, StorageError> {
    drop_spare(db)?;
    let starts = LogStarts::read(db)?;
    if is_damaged(db)? {
        if starts.is_complete() && copy(db, options, &starts)? {
            switch(db)?;
        }
        // The old family, or what was copied before it turned out that not all can be.
        drop_spare(db)?;
        return Ok(starts);
    }
    db.set_options_cf(log_family(db), &[("disable_auto_compactions", "false")])
        .map_err(storage_error)?;
    if starts.is_complete() { Ok(starts) } else { starts.find(db) }
}

/// Reads all that compaction would read: what was truncated as well.
#[expect(deprecated, reason = "nothing else makes a cursor read truncated blocks")]
fn is_damaged(db: &Db) -> Result<bool, StorageError> {
    let mut options = ReadOptions::default();
    options.set_ignore_range_deletions(true);
    options.set_readahead_size(READ_AHEAD_BYTES);
    options.fill_cache(false);
    let mut cursor = db.raw_iterator_cf_opt(log_family(db), options);
    cursor.seek_to_first();
    while cursor.valid() {
        cursor.next();
    }
    match finish(&cursor, || "log".into()) {
        Ok(()) => Ok(false),
        Err(StorageError::Corruption(_)) => Ok(true),
        Err(other) => Err(other),
    }
}

/// Copies all logs into the spare family; false when one of them is damaged beyond telling where.
pub(super) fn copy(
    db: &mut Db,
    options: &Options,
    starts: &LogStarts,
) -> Result<bool, StorageError> {
    let [live, spare] = names(db)?;
    db.create_cf(spare, options).map_err(storage_error)?;
    let (from, to) = (family(db, live), family(db, spare));
    let (mut batch, mut sealed) = (WriteBatch::default(), Vec::new());
    for (group, start) in starts.iter() {
        let records = match log::read_whole(db, from, group, start) {
            Err(StorageError::Corruption(_)) => return Ok(false),
            read => read?,
        };
        for record in records {
            let key = log_key(group, record.slot);
            match record.bytes {
                Some(bytes) => {
                    seal(&mut sealed, &key, &bytes);
                    batch.put_cf(to, key, &sealed);
                }
                None => batch.put_cf(to, key, DAMAGED),
            }
            if batch.size_in_bytes() >= COPIED_BYTES {
                db.write(std::mem::take(&mut batch)).map_err(storage_error)?;
            }
        }
    }
    db.write(batch).map_err(storage_error)?;
    Ok(true)
}

/// Makes the spare family the live one, durably.
pub(super) fn switch(db: &Db) -> Result<(), StorageError> {
    let [_, spare] = names(db)?;
    let (mut sealed, mut options) = (Vec::new(), WriteOptions::default());
    seal(&mut sealed, LIVE, spare.as_bytes());
    options.set_sync(true);
    db.put_opt(LIVE, sealed, &options).map_err(storage_error)
}

/// Drops the family that is not live, if it is there.
fn drop_spare(db: &mut Db) -> Result<(), StorageError> {
    let [live, spare] = names(db)?;
    if db.cf_handle(live).is_none() {
        return Err(beyond_repair(format!("the family {live} is missing")));
    }
    if db.cf_handle(spare).is_some() {
        db.drop_cf(spare).map_err(storage_error)?;
    }
    Ok(())
}

/// The live family and the other one.
fn names(db: &Db) -> Result<[&'static str; 2], StorageError> {
    let [first, second] = LOGS;
    match db.get(LIVE).map_err(storage_error)? {
        None => Ok([first, second]),
        Some(sealed) => match unseal(LIVE, &sealed) {
            Some(name) if name == first.as_bytes() => Ok([first, second]),
            Some(name) if name == second.as_bytes() => Ok([second, first]),
            _ => Err(beyond_repair("the record of which log is live".into())),
        },
    }
}
