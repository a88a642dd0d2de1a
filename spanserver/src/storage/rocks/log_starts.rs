//! Where the log of each group begins.
//!
//! Needed when a table file of the log is damaged (`super::heal`): a damaged block tells neither
//! whose entries it held nor which, and a cursor that stops at it may miss a group altogether. Who
//! knows the first slot can ask for each from there on.
//!
//! Kept in RocksDB's family `default`, in the batch that begins or truncates a log: a few bytes for
//! each truncation, none for an entry.

use super::keys::{bounds, log_key, seal, slot_of, unseal};
use super::{Db, beyond_repair, finish, log_family, storage_error};
use crate::storage::{StorageError, WriteOp};
use proto::keys::prefix_end;
use proto::{GroupId, Slot};
use rocksdb::{DEFAULT_COLUMN_FAMILY_NAME, ReadOptions, WriteBatch};
use std::collections::BTreeMap;

/// Before the group in the key of a record.
const START: &[u8] = b"start";
/// There when a record is missing only where a log is empty.
const COMPLETE: &[u8] = b"all starts";

/// The first slot of each log.
///
/// Invariant: if complete, every group that has a log entry is in it, with a slot at or below its
/// first; and that first slot has an entry unless the log is empty.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct LogStarts {
    of: BTreeMap<GroupId, Slot>,
    complete: bool,
}

impl LogStarts {
    /// What is on disk. A folder that never had a log is not complete either: see
    /// [`LogStarts::find`].
    pub fn read(db: &Db) -> Result<LogStarts, StorageError> {
        let complete = db.get(COMPLETE).map_err(storage_error)?.is_some();
        let mut starts = LogStarts { of: BTreeMap::new(), complete };
        let family = super::family(db, DEFAULT_COLUMN_FAMILY_NAME);
        let mut cursor = db.raw_iterator_cf_opt(family, bounds(START, &prefix_end(START)));
        cursor.seek_to_first();
        while let Some((key, sealed)) = cursor.item() {
            let group = key.strip_prefix(START).and_then(|group| group.try_into().ok());
            let slot = unseal(key, sealed).and_then(|slot| slot.try_into().ok());
            let (Some(group), Some(slot)) = (group, slot) else {
                let place = key.escape_ascii();
                return Err(beyond_repair(format!("where a log begins: {place}")));
            };
            starts.of.insert(GroupId(u32::from_be_bytes(group)), Slot(u64::from_be_bytes(slot)));
            cursor.next();
        }
        finish(&cursor, || "where the logs begin".into())?;
        Ok(starts)
    }

    /// Completes the records of a folder written without them, by looking. The log must be whole.
    pub fn find(mut self, db: &Db) -> Result<LogStarts, StorageError> {
        let mut batch = WriteBatch::default();
        for group in std::mem::take(&mut self.of).keys() {
            batch.delete(record_key(*group));
        }
        let mut cursor = db.raw_iterator_cf_opt(log_family(db), ReadOptions::default());
        cursor.seek_to_first();
        while let Some(key) = cursor.key() {
            let (Some(group), Some(slot)) = (key.first_chunk(), slot_of(key)) else {
                return Err(beyond_repair(format!("a log key of {} bytes", key.len())));
            };
            let group = GroupId(u32::from_be_bytes(*group));
            self.set(group, Some(slot), &mut batch);
            let mut next_group = log_key(group, Slot(u64::MAX)).to_vec();
            next_group.push(0);
            cursor.seek(next_group);
        }
        finish(&cursor, || "where the logs begin".into())?;
        batch.put(COMPLETE, []);
        self.complete = true;
        // Not synced: if it gets lost, the next opening looks again.
        db.write(batch).map_err(storage_error)?;
        Ok(self)
    }

    /// Whether a group without a record has no log.
    pub fn is_complete(&self) -> bool {
        self.complete
    }

    /// The groups that have or had a log, and where it begins.
    pub fn iter(&self) -> impl Iterator<Item = (GroupId, Slot)> + '_ {
        self.of.iter().map(|(group, slot)| (*group, *slot))
    }

    /// Notes what a batch of operations changes, in RocksDB's batch too. Call it once for each.
    pub fn note(&mut self, ops: &[WriteOp], batch: &mut WriteBatch) {
        for op in ops {
            match op {
                WriteOp::PutLog { group, slot, .. }
                    if self.of.get(group).is_none_or(|start| slot < start) =>
                {
                    self.set(*group, Some(*slot), batch);
                }
                // Of a log that is removed whole the next entry says where it begins anew.
                WriteOp::TruncateLog { group, upto }
                    if self.of.get(group).is_some_and(|start| start <= upto) =>
                {
                    self.set(*group, upto.0.checked_add(1).map(Slot), batch);
                }
                _ => {}
            }
        }
    }

    fn set(&mut self, group: GroupId, start: Option<Slot>, batch: &mut WriteBatch) {
        let key = record_key(group);
        let Some(start) = start else {
            self.of.remove(&group);
            return batch.delete(key);
        };
        self.of.insert(group, start);
        let mut sealed = Vec::new();
        seal(&mut sealed, &key, &start.0.to_be_bytes());
        batch.put(key, sealed);
    }
}

fn record_key(group: GroupId) -> Vec<u8> {
    [START, &group.0.to_be_bytes()].concat()
}
