//! Turns operations into RocksDB's batch.

use super::keys::{TabletId, log_key, log_key_after, seal, timestamp};
use super::tablets::Tablets;
use super::{Db, META, VERSIONS, family, log_family};
use crate::storage::WriteOp;
use proto::keys::prefix_end;
use proto::{GroupId, Slot, Value};
use rocksdb::WriteBatch;
use std::borrow::Cow;
use truetime::Timestamp;

/// Above every key of a meta record.
const META_END: [u8; 64] = [0xff; 64];

/// A batch being built; one buffer serves all keys, another all values.
pub struct Batch<'a> {
    db: &'a Db,
    batch: WriteBatch,
    tablets: Cow<'a, Tablets>,
    key: Vec<u8>,
    value: Vec<u8>,
}

impl<'a> Batch<'a> {
    /// The batch, and the tablets there are once it is written: owned if it changes them.
    pub fn of(db: &'a Db, tablets: &'a Tablets, ops: &[WriteOp]) -> (WriteBatch, Cow<'a, Tablets>) {
        let mut batch = Batch {
            db,
            batch: WriteBatch::default(),
            tablets: Cow::Borrowed(tablets),
            key: Vec::new(),
            value: Vec::new(),
        };
        for op in ops {
            batch.push(op);
        }
        (batch.batch, batch.tablets)
    }

    fn push(&mut self, op: &WriteOp) {
        match op {
            WriteOp::PutLog { group, slot, bytes } => {
                let key = log_key(*group, *slot);
                seal(&mut self.value, &key, bytes);
                self.batch.put_cf(log_family(self.db), key, &self.value);
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
                assert!(key[..] < META_END[..], "a meta record that DropMeta would miss");
                seal(&mut self.value, key, value);
                self.batch.put_cf(family(self.db, META), key, &self.value);
            }
            WriteOp::DeleteMeta { key } => self.batch.delete_cf(family(self.db, META), key),
            WriteOp::DropMeta { prefix } => {
                let end = prefix_end(prefix);
                let end = if end.is_empty() { &META_END[..] } else { &end };
                self.batch.delete_range_cf(family(self.db, META), &prefix[..], end);
            }
            WriteOp::PutVersion { group, key, at, value } => {
                self.put_version(self.tablets.live(*group), key, *at, value.as_ref());
            }
            WriteOp::StageVersion { group, key, at, value } => {
                let tablet = match self.tablets.staged(*group) {
                    Some(tablet) => tablet,
                    None => self.change_tablets(*group, Tablets::stage),
                };
                self.put_version(tablet, key, *at, value.as_ref());
            }
            WriteOp::DropStage { group } => self.change_tablets(*group, Tablets::drop_stage),
            WriteOp::InstallStage { group } => self.change_tablets(*group, Tablets::install),
            WriteOp::DropTablet { group } => self.change_tablets(*group, Tablets::drop_live),
        }
    }

    fn put_version(&mut self, tablet: TabletId, key: &[u8], at: Timestamp, value: Option<&Value>) {
        self.key.clear();
        self.key.extend_from_slice(&tablet.prefix());
        self.key.extend_from_slice(key);
        let versions = family(self.db, VERSIONS);
        let Some(value) = value else {
            return self.batch.delete_cf_with_ts(versions, &self.key, timestamp(at));
        };
        self.value.clear();
        self.value.extend_from_slice(&at.micros().to_be_bytes());
        self.value.extend_from_slice(value);
        self.batch.put_cf_with_ts(versions, &self.key, timestamp(at), &self.value);
    }

    /// The change and its record go into the same batch as what it is about.
    fn change_tablets<T>(
        &mut self,
        group: GroupId,
        change: impl FnOnce(&mut Tablets, GroupId) -> T,
    ) -> T {
        let tablets = self.tablets.to_mut();
        let changed = change(tablets, group);
        tablets.record(self.db, group, &mut self.batch);
        changed
    }

    fn remove_log(&mut self, start: &[u8], end: &[u8]) {
        self.batch.delete_range_cf(log_family(self.db), start, end);
    }
}
