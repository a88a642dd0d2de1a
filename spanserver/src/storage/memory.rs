//! The [`Engine`] in memory, for the simulator: the same answers, and a disk that can lose what
//! was not synced.
//!
//! Batches are applied to ordered maps at once. What it takes to undo them is kept for the batches
//! since the last sync only, so a simulated power cut costs no more than what it loses:
//!
//! ```text
//!     synced for good │ unsynced batches, each with its undo
//!   ──────────────────┼──────┬──────┬──────┬──────▶ time of writing
//!                     │  u1  │  u2  │  u3  │
//!                     └──────┴──────┴──────┘
//!     crash(1):          kept   undone: u3, then u2
//! ```
//!
//! Everything is ordered and nothing depends on time or chance: the same calls give the same state.

use super::{Durability, Engine, EngineStats, MetaRecord, StorageError, WriteOp};
use parking_lot::Mutex;
use proto::keys::Row;
use proto::request::Versioned;
use proto::{GroupId, Key, KeyRange, Page, Slot, Value};
use std::collections::BTreeMap;
use std::ops::Bound;
use truetime::Timestamp;

/// A disk in memory.
#[derive(Default)]
pub struct Memory {
    disk: Mutex<Disk>,
}

/// What is stored.
///
/// Invariants:
/// 1. Undoing `unsynced`, newest first, gives exactly the state of the last sync.
/// 2. Versions of a key ascend by timestamp, each timestamp once; no key has an empty list.
/// 3. History is collected only while `unsynced` is empty: a version that a crash can bring back
///    to sight is never gone.
#[derive(Default)]
struct Disk {
    logs: BTreeMap<GroupId, BTreeMap<Slot, Vec<u8>>>,
    meta: BTreeMap<Vec<u8>, Vec<u8>>,
    versions: BTreeMap<GroupId, BTreeMap<Key, Versions>>,
    unsynced: Vec<Vec<Undo>>,
    horizon: Timestamp,
    collect_pending: bool,
    stats: EngineStats,
}

type Versions = Vec<(Timestamp, Option<Value>)>;

/// Puts one place back to what it was; `None` (outermost): there was nothing.
enum Undo {
    Log(GroupId, Slot, Option<Vec<u8>>),
    LogRemoved(GroupId, BTreeMap<Slot, Vec<u8>>),
    Meta(Vec<u8>, Option<Vec<u8>>),
    Version(GroupId, Key, Timestamp, Option<Option<Value>>),
}

impl Memory {
    /// An empty disk.
    pub fn new() -> Memory {
        Memory::default()
    }

    /// A power cut: of the unsynced batches the first `keep` have reached the disk, the others are
    /// lost. The engine then is what a restarted process would open.
    pub fn crash(&self, keep: usize) {
        let mut disk = self.disk.lock();
        while disk.unsynced.len() > keep {
            let batch = disk.unsynced.pop().expect("more than `keep` are left");
            for undo in batch.into_iter().rev() {
                disk.undo(undo);
            }
        }
        disk.synced();
    }

    /// How many batches a power cut could lose.
    pub fn unsynced(&self) -> usize {
        self.disk.lock().unsynced.len()
    }
}

impl Engine for Memory {
    fn write(&self, batch: &[WriteOp], durability: Durability) -> Result<(), StorageError> {
        let mut disk = self.disk.lock();
        disk.stats.batches += 1;
        let undo = batch.iter().map(|op| disk.apply(op)).collect();
        match durability {
            Durability::Buffered => disk.unsynced.push(undo),
            Durability::Synced => {
                disk.stats.syncs += 1;
                disk.synced();
            }
        }
        Ok(())
    }

    fn read_log(&self, group: GroupId, from: Slot) -> Result<Vec<(Slot, Vec<u8>)>, StorageError> {
        let disk = self.disk.lock();
        let entries = disk.logs.get(&group).into_iter().flat_map(|log| log.range(from..));
        Ok(entries.map(|(slot, bytes)| (*slot, bytes.clone())).collect())
    }

    fn read_meta(&self, prefix: &[u8]) -> Result<Vec<MetaRecord>, StorageError> {
        let disk = self.disk.lock();
        let from = disk.meta.range::<[u8], _>((Bound::Included(prefix), Bound::Unbounded));
        let records = from.take_while(|(key, _)| key.starts_with(prefix));
        Ok(records.map(|(key, value)| (key.clone(), value.clone())).collect())
    }

    fn get(
        &self,
        group: GroupId,
        key: &[u8],
        at: Timestamp,
    ) -> Result<Option<Versioned>, StorageError> {
        let disk = self.disk.lock();
        disk.check_horizon(at)?;
        let versions = disk.versions.get(&group).and_then(|tablet| tablet.get(key));
        Ok(versions.and_then(|versions| visible(versions, at)))
    }

    fn scan(
        &self,
        group: GroupId,
        range: &KeyRange,
        at: Timestamp,
        max_rows: usize,
        max_bytes: usize,
    ) -> Result<Page, StorageError> {
        let disk = self.disk.lock();
        disk.check_horizon(at)?;
        let mut page = Page::default();
        let Some(tablet) = disk.versions.get(&group).filter(|_| !range.is_empty()) else {
            return Ok(page);
        };
        let end =
            if range.end.is_empty() { Bound::Unbounded } else { Bound::Excluded(&range.end[..]) };
        let mut bytes = 0;
        for (key, versions) in tablet.range::<[u8], _>((Bound::Included(&range.start[..]), end)) {
            let Some((written, value)) = visible(versions, at) else { continue };
            if !page.rows.is_empty() && (page.rows.len() >= max_rows || bytes >= max_bytes) {
                page.resume = Some(key.clone());
                break;
            }
            bytes += key.len() + value.len();
            page.rows.push(Row { key: key.clone(), value, written });
        }
        Ok(page)
    }

    fn keep_history_from(&self, horizon: Timestamp) -> Result<(), StorageError> {
        let mut disk = self.disk.lock();
        if horizon > disk.horizon {
            disk.horizon = horizon;
            disk.collect_pending = true;
            if disk.unsynced.is_empty() {
                disk.collect();
            }
        }
        Ok(())
    }

    fn stats(&self) -> EngineStats {
        self.disk.lock().stats
    }
}

/// The error of a read below the horizon. Its caller should have known better (R5).
pub(super) fn below_horizon(at: Timestamp, horizon: Timestamp) -> StorageError {
    StorageError::Io(format!("read at {at}, but history is kept from {horizon} only"))
}

/// The newest version at or below a timestamp, unless it is a deletion.
fn visible(versions: &Versions, at: Timestamp) -> Option<Versioned> {
    let newer = versions.partition_point(|(written, _)| *written <= at);
    let (written, value) = versions.get(newer.checked_sub(1)?)?;
    Some((*written, value.clone()?))
}

impl Disk {
    fn check_horizon(&self, at: Timestamp) -> Result<(), StorageError> {
        if at < self.horizon { Err(below_horizon(at, self.horizon)) } else { Ok(()) }
    }

    /// All that was written survives from now on.
    fn synced(&mut self) {
        self.unsynced.clear();
        if self.collect_pending {
            self.collect();
        }
    }

    fn apply(&mut self, op: &WriteOp) -> Undo {
        match op {
            WriteOp::PutLog { group, slot, bytes } => {
                let old = self.logs.entry(*group).or_default().insert(*slot, bytes.clone());
                Undo::Log(*group, *slot, old)
            }
            WriteOp::TruncateLog { group, upto } => {
                let log = self.logs.entry(*group).or_default();
                let mut rest = log.split_off(upto);
                let last = rest.remove_entry(upto);
                let mut removed = std::mem::replace(log, rest);
                removed.extend(last);
                Undo::LogRemoved(*group, removed)
            }
            WriteOp::CutLogTail { group, after } => {
                let log = self.logs.entry(*group).or_default();
                let mut removed = log.split_off(after);
                log.extend(removed.remove_entry(after));
                Undo::LogRemoved(*group, removed)
            }
            WriteOp::PutMeta { key, value } => {
                Undo::Meta(key.clone(), self.meta.insert(key.clone(), value.clone()))
            }
            WriteOp::DeleteMeta { key } => Undo::Meta(key.clone(), self.meta.remove(key)),
            WriteOp::PutVersion { group, key, at, value } => {
                let old = self.set_version(*group, key, *at, Some(value.clone()));
                Undo::Version(*group, key.clone(), *at, old)
            }
        }
    }

    fn undo(&mut self, undo: Undo) {
        match undo {
            Undo::Log(group, slot, old) => {
                let log = self.logs.entry(group).or_default();
                match old {
                    Some(bytes) => log.insert(slot, bytes),
                    None => log.remove(&slot),
                };
            }
            Undo::LogRemoved(group, removed) => self.logs.entry(group).or_default().extend(removed),
            Undo::Meta(key, Some(old)) => {
                self.meta.insert(key, old);
            }
            Undo::Meta(key, None) => {
                self.meta.remove(&key);
            }
            Undo::Version(group, key, at, old) => {
                self.set_version(group, &key, at, old);
            }
        }
    }

    /// Sets, or with `None` removes, the version of a key at a timestamp; returns what was there.
    fn set_version(
        &mut self,
        group: GroupId,
        key: &Key,
        at: Timestamp,
        version: Option<Option<Value>>,
    ) -> Option<Option<Value>> {
        let tablet = self.versions.entry(group).or_default();
        let versions = tablet.entry(key.clone()).or_default();
        let place = versions.binary_search_by_key(&at, |(written, _)| *written);
        match (place, version) {
            (Ok(place), Some(value)) => Some(std::mem::replace(&mut versions[place].1, value)),
            (Err(place), Some(value)) => {
                versions.insert(place, (at, value));
                None
            }
            (Ok(place), None) => {
                let old = versions.remove(place).1;
                if versions.is_empty() {
                    tablet.remove(key);
                }
                Some(old)
            }
            (Err(_), None) => unreachable!("only what was written is undone"),
        }
    }

    /// Drops what no read at or above the horizon can see.
    fn collect(&mut self) {
        assert!(self.unsynced.is_empty(), "invariant 3");
        self.collect_pending = false;
        let horizon = self.horizon;
        for tablet in self.versions.values_mut() {
            tablet.retain(|_, versions| {
                let hidden =
                    versions.partition_point(|(written, _)| *written <= horizon).saturating_sub(1);
                versions.drain(..hidden);
                // A deletion that is the oldest version says no more than nothing would.
                if versions
                    .first()
                    .is_some_and(|(written, value)| *written <= horizon && value.is_none())
                {
                    versions.remove(0);
                }
                !versions.is_empty()
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const G: GroupId = GroupId(7);

    fn put(key: &'static str, at: u64, value: Option<&'static str>) -> WriteOp {
        let value = value.map(|value| Value::from_static(value.as_bytes()));
        let key = Key::from_static(key.as_bytes());
        WriteOp::PutVersion { group: G, key, at: Timestamp::from_micros(at), value }
    }

    fn log(slot: u64, bytes: &str) -> WriteOp {
        WriteOp::PutLog { group: G, slot: Slot(slot), bytes: bytes.into() }
    }

    fn meta(value: &str) -> WriteOp {
        WriteOp::PutMeta { key: b"applied".to_vec(), value: value.into() }
    }

    fn newest(disk: &Memory, key: &str) -> Option<Vec<u8>> {
        disk.get(G, key.as_bytes(), Timestamp::MAX).unwrap().map(|(_, value)| value.to_vec())
    }

    #[test]
    fn a_power_cut_loses_only_unsynced_batches_and_the_newest_first() {
        for keep in 0..=4 {
            let disk = Memory::new();
            disk.write(
                &[put("k", 1, Some("one")), log(1, "a"), log(2, "b"), meta("1")],
                Durability::Synced,
            )
            .unwrap();
            disk.write(&[put("k", 2, None), meta("2")], Durability::Buffered).unwrap();
            let truncate = WriteOp::TruncateLog { group: G, upto: Slot(2) };
            let cut = WriteOp::CutLogTail { group: G, after: Slot(3) };
            let batch = [truncate, log(2, "c"), log(3, "d"), log(4, "e"), cut, meta("3")];
            disk.write(&batch, Durability::Buffered).unwrap();
            disk.write(&[put("k", 1, Some("uno")), put("l", 1, Some("el"))], Durability::Buffered)
                .unwrap();
            assert_eq!(disk.unsynced(), 3);
            disk.crash(keep);
            assert_eq!(disk.unsynced(), 0);

            let kept = keep.min(3);
            let slots: Vec<u64> =
                disk.read_log(G, Slot(0)).unwrap().iter().map(|(slot, _)| slot.0).collect();
            assert_eq!(slots, if kept < 2 { vec![1, 2] } else { vec![2, 3] });
            let applied = (kept + 1).min(3).to_string();
            assert_eq!(
                disk.read_meta(b"applied").unwrap(),
                vec![(b"applied".to_vec(), applied.into_bytes())]
            );
            assert_eq!(newest(&disk, "k").is_some(), kept == 0);
            assert_eq!(newest(&disk, "l").is_some(), kept == 3);
            let first =
                disk.get(G, b"k", Timestamp::from_micros(1)).unwrap().map(|(_, value)| value);
            assert_eq!(first.as_deref(), Some(if kept == 3 { &b"uno"[..] } else { b"one" }));
        }
    }

    #[test]
    fn a_sync_covers_the_batches_before_it() {
        let disk = Memory::new();
        disk.write(&[put("k", 1, Some("one"))], Durability::Buffered).unwrap();
        disk.write(&[meta("1")], Durability::Synced).unwrap();
        disk.crash(0);
        assert_eq!(newest(&disk, "k").as_deref(), Some(&b"one"[..]));
    }

    #[test]
    fn history_is_collected_but_not_what_a_power_cut_brings_back() {
        let disk = Memory::new();
        disk.write(&[put("k", 1, Some("one")), put("k", 2, Some("two"))], Durability::Synced)
            .unwrap();
        disk.write(&[put("k", 3, None)], Durability::Buffered).unwrap();
        disk.keep_history_from(Timestamp::from_micros(5)).unwrap();
        disk.crash(0);
        assert_eq!(newest(&disk, "k").as_deref(), Some(&b"two"[..]));
        assert_eq!(disk.disk.lock().versions[&G][&b"k"[..]].len(), 1);

        disk.write(&[put("k", 4, None)], Durability::Synced).unwrap();
        disk.keep_history_from(Timestamp::from_micros(6)).unwrap();
        assert!(disk.disk.lock().versions[&G].is_empty());
    }
}
