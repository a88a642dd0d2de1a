//! The log is made whole at opening: real flipped bytes in its table files.

use super::damage_tests::{ENTRIES, damaged, entry_bytes, flip, folder_with_logs, image};
use super::tests::{G, entry, overwrite, put};
use super::*;
use rocksdb::{BottommostLevelCompaction, CompactOptions};
use std::collections::BTreeSet;

const GROUPS: [GroupId; 3] = [GroupId(G.0 - 1), G, GroupId(G.0 + 1)];

fn put_log(slot: u64) -> WriteOp {
    WriteOp::PutLog { group: G, slot: Slot(slot), bytes: entry_bytes(G, slot) }
}

/// A folder of which a block in the middle of the middle group's log is damaged, and its file.
fn damaged_folder() -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder_with_logs(folder.path());
    flip(&file, 500);
    (folder, file)
}

/// The folder as RocksDB opens it: nothing is healed.
fn raw(folder: &Path) -> Db {
    open_db(folder, &options::cache(), DBRecoveryMode::AbsoluteConsistency).unwrap().0
}

fn compact_log(db: &Db) {
    let mut options = CompactOptions::default();
    options.set_bottommost_level_compaction(BottommostLevelCompaction::Force);
    let all = None::<&[u8]>;
    db.compact_range_cf_opt(log_family(db), all, all, &options);
}

/// All logs, whole.
fn logs(read: impl Fn(GroupId) -> Vec<LogRecord>) -> Vec<Vec<LogRecord>> {
    GROUPS.map(read).to_vec()
}

fn engine_logs(engine: &Rocks) -> Vec<Vec<LogRecord>> {
    logs(|group| engine.read_log(group, Slot(0)).unwrap())
}

/// The families of logs, and their files.
fn log_files(db: &Db) -> (Vec<&'static str>, BTreeSet<String>) {
    let files = db.live_files().unwrap().into_iter();
    let files = files.filter(|file| LOGS.contains(&&file.column_family_name[..]));
    let names = LOGS.into_iter().filter(|name| db.cf_handle(name).is_some());
    (names.collect(), files.map(|file| file.name).collect())
}

#[test]
fn unhealed_damage_stops_all_writes_once_compaction_meets_it() {
    let (folder, _) = damaged_folder();
    let db = raw(folder.path());
    compact_log(&db);
    let error = db.put_cf(family(&db, META), b"k", b"v").map_err(storage_error).unwrap_err();
    assert!(matches!(error, StorageError::Corruption(_)), "{error}");
}

#[test]
fn a_damaged_log_is_whole_after_opening_and_compaction_does_no_harm() {
    let (folder, file) = damaged_folder();
    let before = logs(|group| log::read(&raw(folder.path()), group, Slot(0)).unwrap());
    let engine = Rocks::open(folder.path()).unwrap();
    assert_eq!(engine_logs(&engine), before, "opening changes nothing about what is reported");
    assert!(!file.exists());
    assert_eq!(log_files(&engine.db).0, ["log2"]);
    let slots = damaged(&engine, G, ENTRIES);
    assert!((1..200).contains(&slots.len()), "{slots:?}");
    // Compacted with the markers in it, and again when the slots were written anew.
    engine.settle(false);
    compact_log(&engine.db);
    assert_eq!(damaged(&engine, G, ENTRIES), slots);
    let heal: Vec<WriteOp> = slots.iter().map(|slot| put_log(*slot)).collect();
    engine.write(&heal, Durability::Synced).unwrap();
    engine.settle(true);
    compact_log(&engine.db);
    engine.write(&[put_log(ENTRIES + 1)], Durability::Synced).unwrap();
    assert_eq!(damaged(&engine, G, ENTRIES + 1), []);
    drop(engine);
    let engine = Rocks::open(folder.path()).unwrap();
    assert_eq!(damaged(&engine, G, ENTRIES + 1), []);
    assert_eq!(log_files(&engine.db).0, ["log2"]);
}

#[test]
fn the_log_is_healed_as_often_as_it_is_damaged() {
    let (folder, _) = damaged_folder();
    for (time, live) in ["log2", "log", "log2"].into_iter().enumerate() {
        let engine = Rocks::open(folder.path()).unwrap();
        let slots = damaged(&engine, G, ENTRIES);
        assert!(!slots.is_empty(), "time {time}");
        assert_eq!(log_files(&engine.db).0, [live]);
        let heal: Vec<WriteOp> = slots.iter().map(|slot| put_log(*slot)).collect();
        engine.write(&heal, Durability::Synced).unwrap();
        engine.settle(false);
        compact_log(&engine.db);
        let (_, files) = log_files(&engine.db);
        drop(engine);
        for file in files {
            flip(&folder.path().join(file.trim_start_matches('/')), 500);
        }
    }
}

#[test]
fn a_crash_at_any_point_of_the_move_leaves_one_log_whole() {
    let (folder, _) = damaged_folder();
    let before = logs(|group| log::read(&raw(folder.path()), group, Slot(0)).unwrap());
    let cache = options::cache();
    let check = |what: &str, live: &str, image: tempfile::TempDir| {
        // Opened twice: the second time nothing is left to do.
        for _ in 0..2 {
            let engine = Rocks::open(image.path()).unwrap();
            assert_eq!(engine_logs(&engine), before, "{what}");
            assert_eq!(log_files(&engine.db).0, [live], "{what}");
        }
    };
    {
        let mut db = raw(folder.path());
        db.create_cf(LOGS[1], &options::log(&cache)).unwrap();
        check("an empty copy", "log2", image(folder.path()));
        // Half a copy, of which nothing may be seen again.
        let stray = log::read(&db, G, Slot(0)).unwrap();
        for record in stray.iter().take(100) {
            let key = keys::log_key(GroupId(77), record.slot);
            db.put_cf(family(&db, LOGS[1]), key, b"stray").unwrap();
        }
        db.flush_cf(family(&db, LOGS[1])).unwrap();
        check("half a copy", "log2", image(folder.path()));
        db.drop_cf(LOGS[1]).unwrap();
        check("a dropped copy", "log2", image(folder.path()));
    }
    let mut db = raw(folder.path());
    let starts = LogStarts::read(&db).unwrap();
    assert!(heal::copy(&mut db, &options::log(&cache), &starts).unwrap());
    check("before the switch", "log2", image(folder.path()));
    heal::switch(&db).unwrap();
    check("after the switch", "log2", image(folder.path()));
    drop(db);
    let engine = Rocks::open(folder.path()).unwrap();
    assert_eq!(engine_logs(&engine), before);
    check("after the old one was dropped", "log2", image(folder.path()));
}

#[test]
fn an_undamaged_log_is_not_rewritten() {
    let folder = tempfile::tempdir().unwrap();
    folder_with_logs(folder.path());
    let engine = Rocks::open(folder.path()).unwrap();
    engine.settle(false);
    // A wrong seal is the replica's to heal, no block is damaged.
    engine.db.put_cf(log_family(&engine.db), keys::log_key(G, Slot(3)), b"bad").unwrap();
    engine.settle(false);
    let before = log_files(&engine.db);
    drop(engine);
    let engine = Rocks::open(folder.path()).unwrap();
    assert_eq!(log_files(&engine.db), before);
    assert_eq!(before.0, ["log"]);
    assert_eq!(damaged(&engine, G, ENTRIES), [3]);
}

#[test]
fn compaction_waits_until_the_log_was_looked_at() {
    let folder = tempfile::tempdir().unwrap();
    let mut files = BTreeSet::new();
    {
        // More files than are left alone, made while nothing compacts.
        let db = raw(folder.path());
        let mut starts = LogStarts::read(&db).unwrap().find(&db).unwrap();
        for part in 0..6 {
            let mut batch = WriteBatch::default();
            let ops: Vec<WriteOp> =
                (1..=ENTRIES).step_by(1 + part).map(put_log).chain([entry(1, b"one")]).collect();
            starts.note(&ops, &mut batch);
            db.write(batch).unwrap();
            let (batch, _) = Batch::of(&db, &Tablets::default(), &ops);
            db.write(batch).unwrap();
            db.flush_cf(log_family(&db)).unwrap();
        }
        files.extend(log_files(&db).1);
    }
    assert_eq!(files.len(), 6);
    for file in &files {
        overwrite(&folder.path().join(file.trim_start_matches('/')), 3000, &[0x5a; 16]);
    }
    let engine = Rocks::open(folder.path()).unwrap();
    for slot in ENTRIES + 1..=ENTRIES + 20 {
        engine.write(&[put_log(slot)], Durability::Synced).unwrap();
        engine.settle(false);
    }
    compact_log(&engine.db);
    engine.write(&[put_log(ENTRIES + 21)], Durability::Synced).unwrap();
    let log = engine.read_log(G, Slot(0)).unwrap();
    assert_eq!(log.len() as u64, ENTRIES + 21);
}

#[test]
fn a_log_that_lies_in_damaged_blocks_as_a_whole_is_found_by_its_start() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder_with_logs(folder.path());
    let engine = Rocks::open(folder.path()).unwrap();
    let (middle, length) = (ENTRIES / 2, 5);
    // The first group's log is truncated to nothing, the second's to a few slots.
    let truncate = [
        WriteOp::TruncateLog { group: GROUPS[0], upto: Slot(ENTRIES) },
        WriteOp::TruncateLog { group: G, upto: Slot(middle) },
        WriteOp::CutLogTail { group: G, after: Slot(middle + length) },
    ];
    engine.write(&truncate, Durability::Synced).unwrap();
    engine.settle(false);
    drop(engine);
    for place in [1, 100, 200, 333, 334, 499, 500, 501] {
        flip(&file, place);
    }
    let engine = Rocks::open(folder.path()).unwrap();
    assert_eq!(log_files(&engine.db).0, ["log2"]);
    let log = engine.read_log(GROUPS[0], Slot(0)).unwrap();
    assert!(log.len() <= 2, "a filter may take an absent slot for a damaged one: {log:?}");
    let log = engine.read_log(G, Slot(0)).unwrap();
    let slots: Vec<u64> = log.iter().map(|record| record.slot.0).collect();
    assert_eq!(slots, (middle + 1..=middle + length).collect::<Vec<_>>());
    assert!(log.iter().all(|record| record.bytes.is_none()));
    assert_eq!(damaged(&engine, GROUPS[2], ENTRIES + 10), []);
}

#[test]
fn damage_of_what_was_truncated_is_found_too() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder_with_logs(folder.path());
    let engine = Rocks::open(folder.path()).unwrap();
    let upto = Slot(ENTRIES - 100);
    engine.write(&[WriteOp::TruncateLog { group: G, upto }], Durability::Synced).unwrap();
    drop(engine);
    flip(&file, 500);
    // No reader sees it, but compaction would.
    let engine = Rocks::open(folder.path()).unwrap();
    assert!(!file.exists());
    let log = engine.read_log(G, Slot(0)).unwrap();
    assert_eq!((log.len(), log[0].slot), (100, upto.next()));
    assert!(log.iter().all(|record| record.bytes.is_some()));
}

#[test]
fn starts_are_kept_and_found() {
    let folder = tempfile::tempdir().unwrap();
    let engine = Rocks::open(folder.path()).unwrap();
    let of = |engine: &Rocks| engine.log_starts.lock().iter().collect::<Vec<_>>();
    let put = |group: u32, slot: u64| WriteOp::PutLog {
        group: GroupId(group),
        slot: Slot(slot),
        bytes: vec![7],
    };
    let truncate =
        |group: u32, upto: u64| WriteOp::TruncateLog { group: GroupId(group), upto: Slot(upto) };
    let ops = [put(1, 1), put(1, 2), put(1, 3), put(2, 1), put(3, 5), put(u32::MAX, 1)];
    engine.write(&ops, Durability::Buffered).unwrap();
    // In a batch that is built twice.
    let install = WriteOp::InstallStage { group: GroupId(1) };
    engine.write(&[truncate(1, 2), install], Durability::Buffered).unwrap();
    engine.write(&[truncate(2, u64::MAX), truncate(3, 2)], Durability::Buffered).unwrap();
    let expected = [(1, 3), (3, 5), (u32::MAX, 1)].map(|(g, slot)| (GroupId(g), Slot(slot)));
    assert_eq!(of(&engine), expected);
    drop(engine);
    let engine = Rocks::open(folder.path()).unwrap();
    assert_eq!(of(&engine), expected);
    assert!(engine.log_starts.lock().is_complete());
    // A folder from before they were kept.
    let found = LogStarts::default().find(&engine.db).unwrap();
    assert_eq!(found, LogStarts::read(&engine.db).unwrap());
    assert_eq!(found.iter().collect::<Vec<_>>(), expected);
}

#[test]
fn other_damage_is_an_error_that_says_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    let engine = Rocks::open(folder.path()).unwrap();
    let row = |n: u32| put(&n.to_be_bytes(), 1, Some(&entry_bytes(G, n.into())));
    let all: Vec<WriteOp> = (0..1000).map(row).collect();
    engine.write(&all, Durability::Synced).unwrap();
    engine.db.put_cf(family(&engine.db, META), b"m", b"12345678").unwrap();
    engine.settle(false);
    let files = engine.db.live_files().unwrap();
    let file = files.iter().find(|file| file.column_family_name == VERSIONS).unwrap();
    let file = file.name.trim_start_matches('/').to_owned();
    drop(engine);
    overwrite(&folder.path().join(&file), 60_000, &[0x5a; 16]);
    let engine = Rocks::open(folder.path()).unwrap();
    let scanned = engine.scan(G, &KeyRange::all(), Timestamp::MAX, 9999, 999_999).unwrap_err();
    engine.settle(true);
    let written = engine.write(&[entry(1, b"e")], Durability::Synced).unwrap_err();
    let meta = engine.read_meta(b"").unwrap_err();
    for (error, place) in [(scanned, &file[..]), (written, "versions"), (meta, "meta record m")] {
        let words = error.to_string();
        assert!(matches!(error, StorageError::Corruption(_)), "{words}");
        assert!(words.contains(place) && words.contains("with an empty folder"), "{words}");
    }
}
