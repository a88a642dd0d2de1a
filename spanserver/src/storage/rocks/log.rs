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
use super::{Cursor, Db, LOG, family, finish, storage_error};
use crate::storage::{LogRecord, StorageError};
use proto::keys::prefix_end;
use proto::{GroupId, Slot};

/// So many slots in a row that cannot be read, and no end in sight, are a file that is lost.
const DAMAGED_MAX: usize = 1 << 16;

/// See [`Engine::read_log`](crate::storage::Engine::read_log).
pub fn read(db: &Db, group: GroupId, from: Slot) -> Result<Vec<LogRecord>, StorageError> {
    let mut cursor = cursor(db, group, from);
    let mut records = Vec::new();
    cursor.seek_to_first();
    while let Some((key, sealed)) = cursor.item() {
        records.push(record(group, key, sealed)?);
        cursor.next();
    }
    match finish(&cursor, || format!("log of {group} from slot {from}")) {
        Err(StorageError::Corruption(words)) => {
            Salvage { db, group, from, words }.read_around(records)
        }
        done => done.map(|()| records),
    }
}

fn cursor(db: &Db, group: GroupId, from: Slot) -> Cursor<'_> {
    let options = bounds(&log_key(group, from), &prefix_end(&group.0.to_be_bytes()));
    db.raw_iterator_cf_opt(family(db, LOG), options)
}

fn record(group: GroupId, key: &[u8], sealed: &[u8]) -> Result<LogRecord, StorageError> {
    let slot = slot_of(key).ok_or_else(|| {
        StorageError::Corruption(format!("log of {group}: a key of {} bytes", key.len()))
    })?;
    Ok(LogRecord { slot, bytes: unseal(key, sealed).map(<[u8]>::to_vec) })
}

/// A log of which the cursor found a damaged block, in the words of RocksDB.
struct Salvage<'a> {
    db: &'a Db,
    group: GroupId,
    from: Slot,
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
                while slot > self.from.0
                    && let Some(record) = self.ask(Slot(slot - 1))?
                {
                    records.push(record);
                    self.check_extent(&records)?;
                    slot -= 1;
                }
                records.reverse();
            }
            // A log begins at slot 1, unless its beginning was truncated.
            (None, None) => self.ask_upwards(Some(self.from.0.max(1)), &mut records)?,
        }
        records.extend(last);
        if records.is_empty() { Err(self.lost()) } else { Ok(records) }
    }

    /// The records after the damage, in slot order.
    fn backwards(&self, until: Option<Slot>) -> Result<Vec<LogRecord>, StorageError> {
        let mut cursor = cursor(self.db, self.group, self.from);
        let mut records = Vec::new();
        cursor.seek_to_last();
        while let Some((key, sealed)) = cursor.item() {
            let record = record(self.group, key, sealed)?;
            if Some(record.slot) <= until {
                break;
            }
            records.push(record);
            cursor.prev();
        }
        match finish(&cursor, || format!("log of {}", self.group)) {
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
        let key = log_key(self.group, slot);
        match self.db.get_pinned_cf(family(self.db, LOG), key).map_err(storage_error) {
            Ok(sealed) => sealed.map(|sealed| record(self.group, &key, &sealed)).transpose(),
            Err(StorageError::Corruption(_)) => Ok(Some(LogRecord { slot, bytes: None })),
            Err(other) => Err(other),
        }
    }

    fn check_extent(&self, records: &[LogRecord]) -> Result<(), StorageError> {
        let damaged = records.iter().rev().take_while(|record| record.bytes.is_none());
        if damaged.take(DAMAGED_MAX).count() == DAMAGED_MAX { Err(self.lost()) } else { Ok(()) }
    }

    fn lost(&self) -> StorageError {
        StorageError::Corruption(format!("{}; which slots it held is unknown", self.words))
    }
}
