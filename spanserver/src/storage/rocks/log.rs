//! Reads a log, past damage if need be.
//!
//! An entry whose own checksum does not fit is one damaged record. Where RocksDB finds a whole
//! block of a table file damaged, its cursor stops; then the log is read from both ends, and what
//! lies between is asked for slot by slot:
//!
//! ```text
//!     1  2  3  4 │ ?  ?  ?  ? │ 9  10 11          the cursor stops at 5, and backwards at 8
//!     ───────────┴────────────┴──────────
//!     forward      asked one     backward
//!                  by one
//! ```
//!
//! Where one of the ends is damaged there is nothing to count back from: the slots next to the
//! intact ones are asked for until one is certainly absent. RocksDB can tell absent from damaged
//! because its filters are stored apart from the blocks; they err in one of a hundred cases, and
//! then an absent slot counts as damaged.

use super::keys::{bounds, log_key, slot_of, unseal};
use super::{Cursor, Db, beyond_repair, finish, log_family, storage_error};
use crate::storage::{LogRecord, StorageError};
use proto::keys::prefix_end;
use proto::{GroupId, Slot};
use rocksdb::ColumnFamily;

/// So many slots in a row that cannot be read, and no end in sight, are a file that is lost.
const DAMAGED_MAX: usize = 1 << 16;

/// See [`Engine::read_log`](crate::storage::Engine::read_log).
pub fn read(db: &Db, group: GroupId, from: Slot) -> Result<Vec<LogRecord>, StorageError> {
    Part { db, family: log_family(db), group, from, begins_there: false }.read()
}

/// The whole log of a group in a family, of which is known where it begins unless it is empty.
pub fn read_whole(
    db: &Db,
    family: &ColumnFamily,
    group: GroupId,
    start: Slot,
) -> Result<Vec<LogRecord>, StorageError> {
    Part { db, family, group, from: start, begins_there: true }.read()
}

/// Where to read.
#[derive(Clone, Copy)]
struct Part<'a> {
    db: &'a Db,
    family: &'a ColumnFamily,
    group: GroupId,
    from: Slot,
    /// With nothing at `from` there is nothing behind it.
    begins_there: bool,
}

impl Part<'_> {
    fn read(self) -> Result<Vec<LogRecord>, StorageError> {
        let mut cursor = self.cursor();
        let mut records = Vec::new();
        cursor.seek_to_first();
        while let Some((key, sealed)) = cursor.item() {
            records.push(self.record(key, sealed)?);
            cursor.next();
        }
        match cursor.status().map_err(storage_error) {
            Err(StorageError::Corruption(words)) => {
                Salvage { part: self, words }.read_around(records)
            }
            _ => self.finish(&cursor).map(|()| records),
        }
    }

    fn cursor(&self) -> Cursor<'_> {
        let end = prefix_end(&self.group.0.to_be_bytes());
        let options = bounds(&log_key(self.group, self.from), &end);
        self.db.raw_iterator_cf_opt(self.family, options)
    }

    fn record(&self, key: &[u8], sealed: &[u8]) -> Result<LogRecord, StorageError> {
        let slot = slot_of(key).ok_or_else(|| {
            beyond_repair(format!("log of {}: a key of {} bytes", self.group, key.len()))
        })?;
        Ok(LogRecord { slot, bytes: unseal(key, sealed).map(<[u8]>::to_vec) })
    }

    fn finish(&self, cursor: &Cursor<'_>) -> Result<(), StorageError> {
        finish(cursor, || format!("log of {} from slot {}", self.group, self.from))
    }
}

/// A part of which the cursor found a damaged block, in the words of RocksDB.
struct Salvage<'a> {
    part: Part<'a>,
    words: String,
}

impl Salvage<'_> {
    /// The whole log, of which `first` are the records before the damage.
    fn read_around(&self, first: Vec<LogRecord>) -> Result<Vec<LogRecord>, StorageError> {
        let last = self.backwards(first.last().map(|record| record.slot))?;
        let mut records = first;
        match (records.last().map(|record| record.slot), last.first().map(|record| record.slot)) {
            (Some(before), Some(after)) => {
                for slot in before.0 + 1..after.0 {
                    // A hole between two entries is damage too: logs have none.
                    let damaged = LogRecord { slot: Slot(slot), bytes: None };
                    records.push(self.ask(Slot(slot))?.unwrap_or(damaged));
                    self.check_extent(&records)?;
                }
            }
            (Some(before), None) => self.ask_upwards(before.0.checked_add(1), &mut records)?,
            (None, Some(after)) => {
                let mut slot = after.0;
                while slot > self.part.from.0
                    && let Some(record) = self.ask(Slot(slot - 1))?
                {
                    records.push(record);
                    self.check_extent(&records)?;
                    slot -= 1;
                }
                records.reverse();
            }
            // A log begins at slot 1, unless its beginning was truncated.
            (None, None) => self.ask_upwards(Some(self.part.from.0.max(1)), &mut records)?,
        }
        records.extend(last);
        if records.is_empty() && !self.part.begins_there { Err(self.lost()) } else { Ok(records) }
    }

    /// The records after the damage, in slot order.
    fn backwards(&self, until: Option<Slot>) -> Result<Vec<LogRecord>, StorageError> {
        let mut cursor = self.part.cursor();
        let mut records = Vec::new();
        cursor.seek_to_last();
        while let Some((key, sealed)) = cursor.item() {
            let record = self.part.record(key, sealed)?;
            if Some(record.slot) <= until {
                break;
            }
            records.push(record);
            cursor.prev();
        }
        match self.part.finish(&cursor) {
            Ok(()) | Err(StorageError::Corruption(_)) => {}
            Err(other) => return Err(other),
        }
        records.reverse();
        Ok(records)
    }

    /// Adds slots from one on, up to the first that is absent.
    fn ask_upwards(
        &self,
        start: Option<u64>,
        records: &mut Vec<LogRecord>,
    ) -> Result<(), StorageError> {
        let mut next = start;
        while let Some(slot) = next
            && let Some(record) = self.ask(Slot(slot))?
        {
            records.push(record);
            self.check_extent(records)?;
            next = slot.checked_add(1);
        }
        Ok(())
    }

    /// What is stored for a slot; `None`: certainly nothing.
    fn ask(&self, slot: Slot) -> Result<Option<LogRecord>, StorageError> {
        let Part { db, family, group, .. } = self.part;
        let key = log_key(group, slot);
        match db.get_pinned_cf(family, key).map_err(storage_error) {
            Ok(sealed) => sealed.map(|sealed| self.part.record(&key, &sealed)).transpose(),
            Err(StorageError::Corruption(_)) => Ok(Some(LogRecord { slot, bytes: None })),
            Err(other) => Err(other),
        }
    }

    fn check_extent(&self, records: &[LogRecord]) -> Result<(), StorageError> {
        let damaged = records.iter().rev().take_while(|record| record.bytes.is_none());
        if damaged.take(DAMAGED_MAX).count() == DAMAGED_MAX { Err(self.lost()) } else { Ok(()) }
    }

    fn lost(&self) -> StorageError {
        let Part { group, from, .. } = self.part;
        let words = &self.words;
        beyond_repair(format!(
            "log of {group} from slot {from}: {words}; which slots it held is unknown"
        ))
    }
}
