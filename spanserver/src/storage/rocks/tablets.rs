//! Which tablet of a group is live and which is staged.
//!
//! A tablet is a prefix of keys. Installing one is a change of the record that says which prefix
//! is live, in the same batch as all that goes with it; the keys of the old one are garbage from
//! then on and are swept later, bit by bit.
//!
//! ```text
//!     tablets:   g5 → live 0, staged 1        g5 → live 1
//!     versions:  g5/0/…  ◀─ reads             g5/0/…  garbage
//!                g5/1/…            install    g5/1/…  ◀─ reads
//! ```

use super::keys::{TabletId, bounds, seal, timestamp, unseal, versioned};
use super::{Db, TABLETS, VERSIONS, beyond_repair, family, finish, storage_error};
use crate::storage::StorageError;
use proto::keys::prefix_end;
use proto::{GroupId, Key};
use rocksdb::{ReadOptions, WriteBatch};
use std::collections::{BTreeMap, VecDeque};
use truetime::Timestamp;

/// The tablets of one group.
///
/// Invariants:
/// 1. `live` and `staged` differ, and neither is above `newest`.
/// 2. Every generation of which there may be keys is at or below `newest`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Generations {
    live: u32,
    staged: Option<u32>,
    newest: u32,
}

impl Generations {
    fn fresh(&mut self) -> u32 {
        self.newest = self.newest.checked_add(1).expect("fewer installs than that");
        self.newest
    }

    /// Nothing staged is written as zero: generation 0 is only ever live.
    fn encode(self) -> Vec<u8> {
        [self.live, self.staged.unwrap_or(0), self.newest].map(u32::to_be_bytes).concat()
    }

    fn decode(bytes: &[u8]) -> Option<Generations> {
        let (numbers, []) = bytes.as_chunks::<4>() else { return None };
        let [live, staged, newest] =
            <[[u8; 4]; 3]>::try_from(numbers).ok()?.map(u32::from_be_bytes);
        Some(Generations { live, staged: (staged != 0).then_some(staged), newest })
    }
}

/// The tablets of all groups. A group without a record has its first tablet and nothing staged.
#[derive(Clone, Default)]
pub struct Tablets {
    groups: BTreeMap<GroupId, Generations>,
    /// Tablets that changes made since the last [`Tablets::take_dropped`] left without a use.
    dropped: Vec<TabletId>,
}

impl Tablets {
    /// Reads the records of all groups, as of now or of a snapshot in `options`.
    pub fn read(db: &Db, options: ReadOptions) -> Result<Tablets, StorageError> {
        let mut tablets = Tablets::default();
        let mut cursor = db.raw_iterator_cf_opt(family(db, TABLETS), options);
        cursor.seek_to_first();
        while let Some((key, sealed)) = cursor.item() {
            let group = <[u8; 4]>::try_from(key).ok().map(|key| GroupId(u32::from_be_bytes(key)));
            let record = unseal(key, sealed).and_then(Generations::decode);
            let (Some(group), Some(record)) = (group, record) else {
                let place = key.escape_ascii();
                return Err(beyond_repair(format!("tablets of a group: {place}")));
            };
            tablets.groups.insert(group, record);
            cursor.next();
        }
        finish(&cursor, || "tablets".into())?;
        Ok(tablets)
    }

    /// The tablet that reads see.
    pub fn live(&self, group: GroupId) -> TabletId {
        TabletId { group, generation: self.of(group).live }
    }

    /// The tablet being staged, if any.
    pub fn staged(&self, group: GroupId) -> Option<TabletId> {
        self.of(group).staged.map(|generation| TabletId { group, generation })
    }

    fn of(&self, group: GroupId) -> Generations {
        self.groups.get(&group).copied().unwrap_or_default()
    }

    /// Begins a staged tablet; there must be none.
    pub fn stage(&mut self, group: GroupId) -> TabletId {
        let of = self.groups.entry(group).or_default();
        assert!(of.staged.is_none(), "{group} has one staged tablet at a time");
        let generation = of.fresh();
        of.staged = Some(generation);
        TabletId { group, generation }
    }

    /// Forgets what is staged.
    pub fn drop_stage(&mut self, group: GroupId) {
        let staged = self.groups.get_mut(&group).and_then(|of| of.staged.take());
        self.dropped.extend(staged.map(|generation| TabletId { group, generation }));
    }

    /// Makes what is staged live, or an empty tablet when nothing is.
    pub fn install(&mut self, group: GroupId) {
        let of = self.groups.entry(group).or_default();
        let new = of.staged.take().unwrap_or_else(|| of.fresh());
        let old = std::mem::replace(&mut of.live, new);
        self.dropped.push(TabletId { group, generation: old });
    }

    /// Gives the group an empty live tablet.
    pub fn drop_live(&mut self, group: GroupId) {
        let of = self.groups.entry(group).or_default();
        let new = of.fresh();
        let old = std::mem::replace(&mut of.live, new);
        self.dropped.push(TabletId { group, generation: old });
    }

    /// Forgets all that is staged: it does not outlive the process. Returns whose it was.
    pub fn drop_stages(&mut self) -> Vec<GroupId> {
        let staged = self.groups.iter().filter(|(_, of)| of.staged.is_some());
        let staged: Vec<GroupId> = staged.map(|(group, _)| *group).collect();
        staged.iter().for_each(|group| self.drop_stage(*group));
        staged
    }

    /// Puts the group's record into a batch.
    pub fn record(&self, db: &Db, group: GroupId, batch: &mut WriteBatch) {
        let (key, mut sealed) = (group.0.to_be_bytes(), Vec::new());
        seal(&mut sealed, &key, &self.of(group).encode());
        batch.put_cf(family(db, TABLETS), key, sealed);
    }

    /// What became garbage.
    pub fn take_dropped(&mut self) -> Vec<TabletId> {
        std::mem::take(&mut self.dropped)
    }

    /// All tablets with rows that no group has any more: garbage that an earlier process left.
    /// Jumps from tablet to tablet.
    pub fn find_garbage(&self, db: &Db) -> Result<Garbage, StorageError> {
        let mut garbage = Garbage::default();
        let mut cursor = newest_versions(db, ReadOptions::default());
        cursor.seek_to_first();
        while let Some((stored, _)) = cursor.item() {
            let tablet = TabletId::of(stored).ok_or_else(|| {
                beyond_repair(format!("a version with a key of {} bytes", stored.len()))
            })?;
            if tablet != self.live(tablet.group) && Some(tablet) != self.staged(tablet.group) {
                garbage.add([tablet]);
            }
            let next = prefix_end(&tablet.prefix());
            if next.is_empty() {
                break;
            }
            cursor.seek(next);
        }
        finish(&cursor, || "tablets of all groups".into())?;
        Ok(garbage)
    }
}

/// Tablets whose rows wait to be removed.
#[derive(Default)]
pub struct Garbage {
    tablets: VecDeque<TabletId>,
    /// Where to go on in the first of them.
    resume: Key,
}

impl Garbage {
    pub fn add(&mut self, tablets: impl IntoIterator<Item = TabletId>) {
        self.tablets.extend(tablets);
    }

    /// Removes up to `max` rows; returns whether there may be more.
    ///
    /// A row gets one deletion, at the timestamp of its newest version: it hides all of them, and
    /// once the horizon has passed it, compaction drops it with what it hides. (RocksDB's deletion
    /// of a range with timestamps is not in the crate.)
    pub fn sweep(&mut self, db: &Db, max: usize) -> Result<bool, StorageError> {
        let Some(tablet) = self.tablets.front().copied() else { return Ok(false) };
        let mut batch = WriteBatch::default();
        let end = prefix_end(&tablet.prefix());
        let mut cursor = newest_versions(db, bounds(&tablet.key(&self.resume), &end));
        cursor.seek_to_first();
        while let Some((stored, value)) = cursor.item() {
            if batch.len() == max {
                self.resume = Key::copy_from_slice(&stored[TabletId::PREFIX_BYTES..]);
                break;
            }
            let (written, _) = versioned(tablet.group, value)?;
            batch.delete_cf_with_ts(family(db, VERSIONS), stored, timestamp(written));
            cursor.next();
        }
        finish(&cursor, || format!("an old tablet of {}", tablet.group))?;
        if !cursor.valid() {
            self.tablets.pop_front();
            self.resume = Key::new();
        }
        // Not synced: whoever opens the folder looks for garbage again.
        db.write(batch).map_err(storage_error)?;
        Ok(!self.tablets.is_empty())
    }
}

/// A cursor over the rows there are, of any tablet.
fn newest_versions(db: &Db, mut options: ReadOptions) -> super::Cursor<'_> {
    options.set_total_order_seek(true);
    options.set_timestamp(timestamp(Timestamp::MAX));
    db.raw_iterator_cf_opt(family(db, VERSIONS), options)
}
