//! What only this body has: reopening, the lock, damage, the torn tail, collection on disk.

use super::keys::log_key;
use super::*;
use proto::{Slot, Value};
use rocksdb::{BottommostLevelCompaction, CompactOptions};
use std::fs::OpenOptions;
use std::io::{Seek, SeekFrom, Write as _};

pub(super) const G: GroupId = GroupId(5);

impl Rocks {
    /// Moves all memory tables to files; `compact`: and the files of versions into one level.
    pub(in crate::storage) fn settle(&self, compact: bool) {
        self.db.flush_cf(log_family(&self.db)).unwrap();
        for name in [META, TABLETS, VERSIONS] {
            self.db.flush_cf(family(&self.db, name)).unwrap();
        }
        if compact {
            let mut options = CompactOptions::default();
            options.set_bottommost_level_compaction(BottommostLevelCompaction::Force);
            self.db.compact_range_cf_opt(
                family(&self.db, VERSIONS),
                None::<&[u8]>,
                None::<&[u8]>,
                &options,
            );
        }
    }

    /// All versions there are, deletions included.
    pub(super) fn stored_versions(&self) -> usize {
        let mut options = ReadOptions::default();
        options.set_total_order_seek(true);
        options.set_timestamp(timestamp(Timestamp::MAX));
        options.set_iter_start_ts(timestamp(Timestamp::MIN));
        let mut cursor = self.db.raw_iterator_cf_opt(family(&self.db, VERSIONS), options);
        let mut count = 0;
        cursor.seek_to_first();
        while cursor.valid() {
            count += 1;
            cursor.next();
        }
        cursor.status().unwrap();
        count
    }
}

pub(super) fn put(key: &[u8], at: u64, value: Option<&[u8]>) -> WriteOp {
    let value = value.map(Value::copy_from_slice);
    WriteOp::PutVersion {
        group: G,
        key: Key::copy_from_slice(key),
        at: Timestamp::from_micros(at),
        value,
    }
}

pub(super) fn entry(slot: u64, bytes: &[u8]) -> WriteOp {
    WriteOp::PutLog { group: G, slot: Slot(slot), bytes: bytes.to_vec() }
}

/// Writes entries 1 to `count` of 300 bytes, closes, and returns the newest write-ahead log.
fn folder_with_log(folder: &Path, count: u64) -> PathBuf {
    let engine = Rocks::open(folder).unwrap();
    for slot in 1..=count {
        engine.write(&[entry(slot, &[slot as u8 | 1; 300])], Durability::Synced).unwrap();
    }
    drop(engine);
    newest_log(folder)
}

pub(super) fn newest_log(folder: &Path) -> PathBuf {
    let mut logs: Vec<PathBuf> =
        std::fs::read_dir(folder).unwrap().map(|file| file.unwrap().path()).collect();
    logs.retain(|path| path.extension().is_some_and(|extension| extension == "log"));
    logs.sort();
    logs.pop().unwrap()
}

fn slots(engine: &Rocks) -> usize {
    engine.read_log(G, Slot(0)).unwrap().len()
}

pub(super) fn overwrite(path: &Path, at: u64, bytes: &[u8]) {
    let mut file = OpenOptions::new().write(true).open(path).unwrap();
    file.seek(SeekFrom::Start(at)).unwrap();
    file.write_all(bytes).unwrap();
}

#[test]
fn reopening_keeps_synced_data_and_the_horizon() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("made/on/the/way");
    let engine = Rocks::open(&path).unwrap();
    engine.write(&[put(b"k", 1, Some(b"one")), entry(1, b"e")], Durability::Buffered).unwrap();
    engine
        .write(&[WriteOp::PutMeta { key: b"m".to_vec(), value: b"v".to_vec() }], Durability::Synced)
        .unwrap();
    engine.keep_history_from(Timestamp::from_micros(3)).unwrap();
    assert!(engine.stats().disk_bytes > 0);
    drop(engine);

    let engine = Rocks::open(&path).unwrap();
    let read = engine.get(G, b"k", Timestamp::from_micros(3)).unwrap();
    assert_eq!(read, Some((Timestamp::from_micros(1), Value::from_static(b"one"))));
    let whole = LogRecord { slot: Slot(1), bytes: Some(b"e".to_vec()) };
    assert_eq!(engine.read_log(G, Slot(0)).unwrap(), [whole]);
    assert_eq!(engine.read_meta(b"").unwrap(), [(b"m".to_vec(), b"v".to_vec())]);
    assert!(engine.get(G, b"k", Timestamp::from_micros(2)).is_err());
}

#[test]
fn a_folder_opens_once_at_a_time() {
    let folder = tempfile::tempdir().unwrap();
    let _first = Rocks::open(folder.path()).unwrap();
    assert!(matches!(Rocks::open(folder.path()), Err(StorageError::InUse(_))));
}

#[test]
fn words_of_the_world_are_classed() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    std::fs::write(&file, b"not a folder").unwrap();
    assert!(matches!(Rocks::open(&file.join("below")), Err(StorageError::Io(_))));
}

#[test]
fn damaged_log_and_meta_values_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let engine = Rocks::open(folder.path()).unwrap();
    engine.write(&[entry(8, b"eight"), entry(9, b"nine")], Durability::Buffered).unwrap();
    let other = engine.db.get_cf(log_family(&engine.db), log_key(G, Slot(8))).unwrap().unwrap();
    // Whole, but in another's place; then too short for a checksum.
    for bad in [&other[..], b"bad"] {
        engine.db.put_cf(log_family(&engine.db), log_key(G, Slot(9)), bad).unwrap();
        let log = engine.read_log(G, Slot(0)).unwrap();
        let bytes = |slot: usize| log[slot - 8].bytes.as_deref();
        assert_eq!((bytes(8), bytes(9), log[1].slot), (Some(&b"eight"[..]), None, Slot(9)));
    }
    engine.write(&[entry(9, b"from a peer")], Durability::Synced).unwrap();
    assert!(engine.read_log(G, Slot(0)).unwrap().iter().all(|record| record.bytes.is_some()));
    engine.db.put_cf(family(&engine.db, META), b"m", b"12345678").unwrap();
    assert!(matches!(engine.read_meta(b""), Err(StorageError::Corruption(_))));
}

#[test]
fn a_torn_last_write_is_dropped() {
    for (cut, zeros) in [(150, 0), (303, 0), (2, 0), (700, 700), (305, 305)] {
        let folder = tempfile::tempdir().unwrap();
        let log = folder_with_log(folder.path(), 20);
        let length = std::fs::metadata(&log).unwrap().len();
        let file = OpenOptions::new().write(true).open(&log).unwrap();
        file.set_len(length - cut).unwrap();
        // Zeros to the end, and beyond it: what was allocated and never written.
        file.set_len(length - cut + zeros * 3).unwrap();
        let engine = Rocks::open(folder.path()).unwrap();
        let left = slots(&engine);
        assert!((17..20).contains(&left), "cut {cut}, zeros {zeros}: {left} of 20 left");
        engine.write(&[entry(100, b"goes on")], Durability::Synced).unwrap();
        drop(engine);
        assert_eq!(slots(&Rocks::open(folder.path()).unwrap()), left + 1);
    }
}

#[test]
fn damage_of_synced_bytes_is_refused() {
    // 20 entries are one block of the log, 400 are four.
    for (count, at, bytes) in
        [(20, 1000, &[0xffu8; 1][..]), (20, 1000, &[0; 2000]), (400, 40_000, &[0xff; 4])]
    {
        let folder = tempfile::tempdir().unwrap();
        let log = folder_with_log(folder.path(), count);
        overwrite(&log, at, bytes);
        match Rocks::open(folder.path()) {
            Err(StorageError::Corruption(_)) => {}
            Err(other) => panic!("{other}"),
            Ok(engine) => panic!("opened with {} of {count} entries", slots(&engine)),
        }
    }
}

#[test]
fn a_flipped_bit_in_the_last_record_is_not_a_torn_write() {
    let folder = tempfile::tempdir().unwrap();
    let log = folder_with_log(folder.path(), 20);
    let length = std::fs::metadata(&log).unwrap().len();
    overwrite(&log, length - 10, &[0xff]);
    assert!(matches!(Rocks::open(folder.path()), Err(StorageError::Corruption(_))));
}

#[test]
fn compaction_collects_hidden_versions() {
    let folder = tempfile::tempdir().unwrap();
    let engine = Rocks::open(folder.path()).unwrap();
    for at in 1..=100 {
        engine.write(&[put(b"often", at, Some(b"value"))], Durability::Buffered).unwrap();
    }
    engine
        .write(&[put(b"gone", 1, Some(b"value")), put(b"gone", 2, None)], Durability::Buffered)
        .unwrap();
    engine.settle(true);
    assert_eq!(engine.stored_versions(), 102);
    engine.keep_history_from(Timestamp::from_micros(90)).unwrap();
    engine.settle(true);
    // 90 to 100, the newest below 90, and nothing of what is gone.
    assert_eq!(engine.stored_versions(), 12);
    let read = engine.get(G, b"often", Timestamp::from_micros(90)).unwrap();
    assert_eq!(read.map(|(written, _)| written), Some(Timestamp::from_micros(90)));
}
