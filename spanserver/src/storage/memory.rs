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
//! Beside the power cut it knows bit rot of log entries and an empty new disk.
//!
//! Everything is ordered and nothing depends on time or chance: the same calls give the same state.

use super::{
    Durability, Engine, EngineStats, LogRecord, MetaRecord, PageInProgress, Pinned, StorageError,
    VersionPage, WriteOp,
};
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
    logs: BTreeMap<GroupId, BTreeMap<Slot, Entry>>,
    meta: Meta,
    live: BTreeMap<GroupId, Tablet>,
    staged: BTreeMap<GroupId, Tablet>,
    unsynced: Vec<Vec<Undo>>,
    horizon: Timestamp,
    collect_pending: bool,
    stats: EngineStats,
}

/// `None`: damaged.
type Entry = Option<Vec<u8>>;
type Meta = BTreeMap<Vec<u8>, Vec<u8>>;
type Tablet = BTreeMap<Key, Versions>;
type Versions = Vec<(Timestamp, Option<Value>)>;

/// Puts one place back to what it was; `None` (outermost): there was nothing.
enum Undo {
    Log(GroupId, Slot, Option<Entry>),
    LogRemoved(GroupId, BTreeMap<Slot, Entry>),
    Meta(Vec<u8>, Option<Vec<u8>>),
    MetaRemoved(Meta),
    Version(GroupId, Key, Timestamp, Option<Option<Value>>),
    Staged(GroupId, Key, Timestamp, Option<Option<Value>>),
    StageRemoved(GroupId, Option<Tablet>),
    /// What was live before the staged tablet took its place.
    Installed(GroupId, Option<Tablet>),
    TabletRemoved(GroupId, Option<Tablet>),
}

impl Memory {
    /// An empty disk.
    pub fn new() -> Memory {
        Memory::default()
    }

    /// A power cut: of the unsynced batches the first `keep` have reached the disk, the others are
    /// lost. The engine then is what a restarted process would open: with nothing staged.
    pub fn crash(&self, keep: usize) {
        let mut disk = self.disk.lock();
        while disk.unsynced.len() > keep {
            let batch = disk.unsynced.pop().expect("more than `keep` are left");
            for undo in batch.into_iter().rev() {
                disk.undo(undo);
            }
        }
        disk.staged.clear();
        disk.synced();
    }

    /// Bit rot: damages the stored entry of a slot until it is written again. False when there is
    /// none.
    pub fn rot_log(&self, group: GroupId, slot: Slot) -> bool {
        let mut disk = self.disk.lock();
        let entry = disk.logs.get_mut(&group).and_then(|log| log.get_mut(&slot));
        entry.map(|entry| *entry = None).is_some()
    }

    /// The slots a group's log holds, damaged ones included.
    pub fn log_slots(&self, group: GroupId) -> Vec<Slot> {
        let disk = self.disk.lock();
        disk.logs.get(&group).into_iter().flat_map(|log| log.keys().copied()).collect()
    }

    /// Puts an empty new disk in place of this one.
    pub fn wipe(&self) {
        *self.disk.lock() = Disk::default();
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
        disk.stats.bytes_logged += batch.iter().map(WriteOp::payload_bytes).sum::<u64>();
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

    fn read_log(&self, group: GroupId, from: Slot) -> Result<Vec<LogRecord>, StorageError> {
        let disk = self.disk.lock();
        let entries = disk.logs.get(&group).into_iter().flat_map(|log| log.range(from..));
        Ok(entries.map(|(slot, bytes)| LogRecord { slot: *slot, bytes: bytes.clone() }).collect())
    }

    fn read_meta(&self, prefix: &[u8]) -> Result<Vec<MetaRecord>, StorageError> {
        Ok(with_prefix(&self.disk.lock().meta, prefix))
    }

    fn get(
        &self,
        group: GroupId,
        key: &[u8],
        at: Timestamp,
    ) -> Result<Option<Versioned>, StorageError> {
        let disk = self.disk.lock();
        disk.check_horizon(at)?;
        let versions = disk.live.get(&group).and_then(|tablet| tablet.get(key));
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
        let Some(tablet) = disk.live.get(&group).filter(|_| !range.is_empty()) else {
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

    fn pin(&self) -> Result<Box<dyn Pinned>, StorageError> {
        let disk = self.disk.lock();
        let (meta, tablets) = (disk.meta.clone(), disk.live.clone());
        Ok(Box::new(View { meta, tablets, horizon: disk.horizon }))
    }

    fn stats(&self) -> EngineStats {
        self.disk.lock().stats
    }
}

/// A copy of the disk, for [`Engine::pin`].
struct View {
    meta: Meta,
    tablets: BTreeMap<GroupId, Tablet>,
    horizon: Timestamp,
}

impl Pinned for View {
    fn read_meta(&self, prefix: &[u8]) -> Result<Vec<MetaRecord>, StorageError> {
        Ok(with_prefix(&self.meta, prefix))
    }

    fn read_versions(
        &self,
        group: GroupId,
        after: Option<&(Key, Timestamp)>,
        max_bytes: usize,
    ) -> Result<VersionPage, StorageError> {
        let mut page = PageInProgress::new(max_bytes);
        let Some(tablet) = self.tablets.get(&group) else { return Ok(page.end()) };
        let start = after.map_or(Bound::Unbounded, |(key, _)| Bound::Included(&key[..]));
        for (key, versions) in tablet.range::<[u8], _>((start, Bound::Unbounded)) {
            let newer = versions.partition_point(|(written, _)| *written <= self.horizon);
            let oldest = match newer.checked_sub(1) {
                Some(newest) if versions[newest].1.is_some() => newest,
                _ => newer,
            };
            let done = after.filter(|(done, _)| done == key).map(|(_, written)| *written);
            for (written, value) in &versions[oldest..] {
                if done.is_none_or(|done| *written > done)
                    && !page.push(key, *written, value.as_ref())
                {
                    return Ok(page.more());
                }
            }
        }
        Ok(page.end())
    }

    fn horizon(&self) -> Timestamp {
        self.horizon
    }
}

fn with_prefix(meta: &Meta, prefix: &[u8]) -> Vec<MetaRecord> {
    let from = meta.range::<[u8], _>((Bound::Included(prefix), Bound::Unbounded));
    let records = from.take_while(|(key, _)| key.starts_with(prefix));
    records.map(|(key, value)| (key.clone(), value.clone())).collect()
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
                let log = self.logs.entry(*group).or_default();
                let old = log.insert(*slot, Some(bytes.clone()));
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
                let tablet = self.live.entry(*group).or_default();
                let old = set_version(tablet, key, *at, Some(value.clone()));
                Undo::Version(*group, key.clone(), *at, old)
            }
            WriteOp::DropMeta { prefix } => {
                let removed = with_prefix(&self.meta, prefix);
                for (key, _) in &removed {
                    self.meta.remove(key);
                }
                Undo::MetaRemoved(removed.into_iter().collect())
            }
            WriteOp::StageVersion { group, key, at, value } => {
                let tablet = self.staged.entry(*group).or_default();
                let old = set_version(tablet, key, *at, Some(value.clone()));
                Undo::Staged(*group, key.clone(), *at, old)
            }
            WriteOp::DropStage { group } => Undo::StageRemoved(*group, self.staged.remove(group)),
            WriteOp::InstallStage { group } => {
                let new = self.staged.remove(group).unwrap_or_default();
                Undo::Installed(*group, self.live.insert(*group, new))
            }
            WriteOp::DropTablet { group } => Undo::TabletRemoved(*group, self.live.remove(group)),
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
            Undo::MetaRemoved(removed) => self.meta.extend(removed),
            Undo::Version(group, key, at, old) => {
                set_version(self.live.entry(group).or_default(), &key, at, old);
            }
            Undo::Staged(group, key, at, old) => {
                set_version(self.staged.entry(group).or_default(), &key, at, old);
            }
            Undo::StageRemoved(group, old) => put_back(&mut self.staged, group, old),
            Undo::Installed(group, old) => {
                let installed = self.live.remove(&group);
                put_back(&mut self.staged, group, installed);
                put_back(&mut self.live, group, old);
            }
            Undo::TabletRemoved(group, old) => put_back(&mut self.live, group, old),
        }
    }

    /// Drops what no read at or above the horizon can see.
    fn collect(&mut self) {
        assert!(self.unsynced.is_empty(), "invariant 3");
        self.collect_pending = false;
        let horizon = self.horizon;
        for tablet in self.live.values_mut() {
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

/// Sets, or with `None` removes, the version of a key at a timestamp; returns what was there.
fn set_version(
    tablet: &mut Tablet,
    key: &Key,
    at: Timestamp,
    version: Option<Option<Value>>,
) -> Option<Option<Value>> {
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

fn put_back(tablets: &mut BTreeMap<GroupId, Tablet>, group: GroupId, old: Option<Tablet>) {
    match old {
        Some(tablet) => tablets.insert(group, tablet),
        None => tablets.remove(&group),
    };
}

#[cfg(test)]
mod tests;
