//! Real damage on disk: of table files under a log, and of the write around an install.

use super::tests::{G, entry, newest_log, overwrite, put};
use super::*;
use crate::storage::VersionPage;
use proto::Value;

pub(super) const ENTRIES: u64 = 2000;

/// Bytes that do not compress, different for each slot.
pub(super) fn entry_bytes(group: GroupId, slot: u64) -> Vec<u8> {
    let mut state = (u64::from(group.0) << 32 | slot).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    };
    (0..100).map(|_| next()).collect()
}

/// Three groups with long logs, all of it in one table file, which is returned. The last group has
/// ten entries more that are in the write-ahead log only.
pub(super) fn folder_with_logs(folder: &Path) -> PathBuf {
    let engine = Rocks::open(folder).unwrap();
    let last = GroupId(G.0 + 1);
    for group in [GroupId(G.0 - 1), G, last] {
        let all: Vec<WriteOp> = (1..=ENTRIES)
            .map(|slot| WriteOp::PutLog {
                group,
                slot: Slot(slot),
                bytes: entry_bytes(group, slot),
            })
            .collect();
        engine.write(&all, Durability::Synced).unwrap();
    }
    engine.settle(false);
    for slot in ENTRIES + 1..=ENTRIES + 10 {
        let bytes = entry_bytes(last, slot);
        let op = WriteOp::PutLog { group: last, slot: Slot(slot), bytes };
        engine.write(&[op], Durability::Synced).unwrap();
    }
    let files = engine.db.live_files().unwrap();
    let file = files.iter().find(|file| LOGS.contains(&&file.column_family_name[..])).unwrap();
    folder.join(file.name.trim_start_matches('/'))
}

/// The damaged slots of a group, after checking that all others are there and as written.
pub(super) fn damaged(engine: &Rocks, group: GroupId, count: u64) -> Vec<u64> {
    let log = engine.read_log(group, Slot(0)).unwrap();
    let slots: Vec<u64> = log.iter().map(|record| record.slot.0).collect();
    assert_eq!(slots, (1..=count).collect::<Vec<_>>(), "every slot of {group} once, in order");
    for record in &log {
        let expected = entry_bytes(group, record.slot.0);
        assert!(record.bytes.as_ref().is_none_or(|bytes| *bytes == expected), "{}", record.slot);
    }
    log.iter().filter(|record| record.bytes.is_none()).map(|record| record.slot.0).collect()
}

/// Flips bytes at a place of the table file, in thousandths of its entries' length.
pub(super) fn flip(file: &Path, thousandth: u64) {
    let blocks = 3 * ENTRIES * 117;
    overwrite(file, blocks * thousandth / 1000, &[0x5a; 16]);
}

#[test]
fn a_damaged_block_hides_no_other_entry() {
    for (place, group) in
        [(500, G), (1, GroupId(G.0 - 1)), (150, GroupId(G.0 - 1)), (850, GroupId(G.0 + 1))]
    {
        let folder = tempfile::tempdir().unwrap();
        let file = folder_with_logs(folder.path());
        flip(&file, place);
        let engine = Rocks::open(folder.path()).unwrap();
        for other in [G.0 - 1, G.0, G.0 + 1].map(GroupId) {
            let count = if other.0 > G.0 { ENTRIES + 10 } else { ENTRIES };
            let slots = damaged(&engine, other, count);
            if other != group {
                assert_eq!(slots, [], "place {place}, {other}");
                continue;
            }
            // A block holds 8 KiB, so about 70 entries.
            assert!((1..200).contains(&slots.len()), "place {place}: {slots:?}");
            assert!(slots.windows(2).all(|two| two[0] + 1 == two[1]), "place {place}: {slots:?}");
        }
    }
}

#[test]
fn damage_at_both_ends_of_a_log_is_found_to_its_end() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder_with_logs(folder.path());
    // The blocks where the middle group's log begins and ends.
    flip(&file, 333);
    flip(&file, 334);
    flip(&file, 666);
    flip(&file, 667);
    let engine = Rocks::open(folder.path()).unwrap();
    let mut slots = Vec::new();
    for group in [G.0 - 1, G.0, G.0 + 1].map(GroupId) {
        let log = engine.read_log(group, Slot(0)).unwrap();
        let count = if group.0 > G.0 { ENTRIES + 10 } else { ENTRIES };
        let last = log.last().unwrap().slot.0;
        // A filter may take an absent slot for a damaged one.
        assert!((count..=count + 2).contains(&last), "{group} ends at {last}");
        assert!(log[0].slot.0 <= 1, "{group} begins at {}", log[0].slot);
        let damaged = log.iter().filter(|record| record.bytes.is_none()).count();
        slots.push(damaged);
        for record in &log {
            let expected = entry_bytes(group, record.slot.0);
            assert!(record.bytes.as_ref().is_none_or(|bytes| *bytes == expected));
        }
    }
    assert!(slots[1] > 0 && slots.iter().sum::<usize>() < 1200, "damaged: {slots:?}");
}

#[test]
fn a_damaged_slot_is_healed_by_writing_it_again() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder_with_logs(folder.path());
    flip(&file, 500);
    let engine = Rocks::open(folder.path()).unwrap();
    let slots = damaged(&engine, G, ENTRIES);
    let heal =
        |slot: &u64| WriteOp::PutLog { group: G, slot: Slot(*slot), bytes: entry_bytes(G, *slot) };
    let (first, rest) = slots.split_first().unwrap();
    engine.write(&[heal(first)], Durability::Synced).unwrap();
    assert_eq!(damaged(&engine, G, ENTRIES), rest);
    engine.write(&rest.iter().map(heal).collect::<Vec<_>>(), Durability::Synced).unwrap();
    assert_eq!(damaged(&engine, G, ENTRIES), []);
}

#[test]
fn truncated_slots_under_a_damaged_block_stay_absent() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder_with_logs(folder.path());
    flip(&file, 500);
    let engine = Rocks::open(folder.path()).unwrap();
    let middle = damaged(&engine, G, ENTRIES);
    let (upto, after) = (Slot(middle[0] + 2), Slot(middle[0] + 5));
    let truncate = WriteOp::TruncateLog { group: G, upto };
    engine.write(&[truncate, WriteOp::CutLogTail { group: G, after }], Durability::Synced).unwrap();
    let log = engine.read_log(G, Slot(0)).unwrap();
    let slots: Vec<u64> = log.iter().map(|record| record.slot.0).collect();
    assert_eq!(slots, (upto.0 + 1..=after.0).collect::<Vec<_>>());
    assert!(log.iter().all(|record| record.bytes.is_none()));
}

/// Copies a folder as a power cut would leave it: what was handed to the system, no more.
pub(super) fn image(of: &Path) -> tempfile::TempDir {
    let copy = tempfile::tempdir().unwrap();
    for file in std::fs::read_dir(of).unwrap().flatten() {
        if file.file_name() != "LOCK" {
            std::fs::copy(file.path(), copy.path().join(file.file_name())).unwrap();
        }
    }
    copy
}

fn stage(key: &[u8], at: u64, value: &[u8]) -> WriteOp {
    let (key, value) = (Key::copy_from_slice(key), Some(Value::copy_from_slice(value)));
    WriteOp::StageVersion { group: G, key, at: Timestamp::from_micros(at), value }
}

/// The group's rows and the applied slot.
fn state(engine: &Rocks) -> (Vec<Vec<u8>>, Vec<u8>) {
    let page = engine.scan(G, &KeyRange::all(), Timestamp::MAX, 999, 999_999).unwrap();
    let rows = page.rows.into_iter().map(|row| [&row.key[..], b"=", &row.value[..]].concat());
    (rows.collect(), engine.read_meta(b"applied").unwrap().remove(0).1)
}

fn applied(slot: &[u8]) -> WriteOp {
    WriteOp::PutMeta { key: b"applied".to_vec(), value: slot.to_vec() }
}

#[test]
fn a_crash_at_any_point_of_an_install_leaves_either_tablet_whole() {
    let folder = tempfile::tempdir().unwrap();
    let engine = Rocks::open(folder.path()).unwrap();
    let old = [put(b"a", 1, Some(b"old")), put(b"b", 1, Some(b"old")), applied(b"1")];
    engine.write(&old, Durability::Synced).unwrap();
    for n in 0..20u8 {
        engine.write(&[stage(&[b'b', n], 2, b"new")], Durability::Buffered).unwrap();
    }
    let before = image(folder.path());
    let length_before = std::fs::metadata(newest_log(before.path())).unwrap().len();
    let install = [WriteOp::InstallStage { group: G }, applied(b"9"), put(b"z", 3, Some(b"new"))];
    engine.write(&install, Durability::Synced).unwrap();
    let after = image(folder.path());
    let length_after = std::fs::metadata(newest_log(after.path())).unwrap().len();
    let new = state(&engine);
    assert_eq!((new.0.len(), &new.1[..]), (21, &b"9"[..]));
    let old = (vec![b"a=old".to_vec(), b"b=old".to_vec()], b"1".to_vec());

    assert_eq!(state(&Rocks::open(before.path()).unwrap()), old);
    assert_eq!(state(&Rocks::open(after.path()).unwrap()), new);
    for cut in [length_before + 1, (length_before + length_after) / 2, length_after - 1] {
        let torn = image(folder.path());
        std::fs::File::options()
            .write(true)
            .open(newest_log(torn.path()))
            .and_then(|log| log.set_len(cut))
            .unwrap();
        assert_eq!(state(&Rocks::open(torn.path()).unwrap()), old, "cut at {cut}");
    }
}

#[test]
fn what_is_staged_does_not_outlive_the_process() {
    let folder = tempfile::tempdir().unwrap();
    let engine = Rocks::open(folder.path()).unwrap();
    engine.write(&[put(b"a", 1, Some(b"old")), applied(b"1")], Durability::Synced).unwrap();
    engine
        .write(&[stage(b"b", 2, b"stale"), stage(b"c", 2, b"stale")], Durability::Synced)
        .unwrap();
    drop(engine);

    let engine = Rocks::open(folder.path()).unwrap();
    assert_eq!(rows(&engine), 3, "garbage is not swept yet");
    engine.keep_history_from(Timestamp::MIN).unwrap();
    assert_eq!(rows(&engine), 1);
    engine
        .write(&[stage(b"d", 2, b"new"), WriteOp::InstallStage { group: G }], Durability::Synced)
        .unwrap();
    assert_eq!(state(&engine).0, [b"d=new".to_vec()]);
    drop(engine);
    let engine = Rocks::open(folder.path()).unwrap();
    assert_eq!((state(&engine).0, rows(&engine)), (vec![b"d=new".to_vec()], 2));
}

/// Rows of all tablets there are, used or not.
fn rows(engine: &Rocks) -> usize {
    let mut options = ReadOptions::default();
    options.set_total_order_seek(true);
    options.set_timestamp(timestamp(Timestamp::MAX));
    let mut cursor = engine.db.raw_iterator_cf_opt(family(&engine.db, VERSIONS), options);
    cursor.seek_to_first();
    let mut count = 0;
    while cursor.valid() {
        count += 1;
        cursor.next();
    }
    count
}

#[test]
fn an_old_tablet_is_swept_bit_by_bit() {
    let folder = tempfile::tempdir().unwrap();
    let engine = Rocks::open(folder.path()).unwrap();
    let count = SWEPT_ROWS_MAX + 100;
    let all: Vec<WriteOp> = (0..count as u32)
        .flat_map(|n| [put(&n.to_be_bytes(), 1, Some(b"1")), put(&n.to_be_bytes(), 5, Some(b"5"))])
        .collect();
    engine.write(&all, Durability::Buffered).unwrap();
    let view = engine.pin().unwrap();
    engine
        .write(&[WriteOp::DropTablet { group: G }, put(b"k", 6, Some(b"6"))], Durability::Buffered)
        .unwrap();
    for expected in [101, 1, 1] {
        engine.keep_history_from(Timestamp::MIN).unwrap();
        assert_eq!(rows(&engine), expected);
    }
    engine.settle(true);
    let VersionPage { versions, done } = view.read_versions(G, None, usize::MAX).unwrap();
    assert_eq!((versions.len(), done), (2 * count, true), "the view still sees all of it");
    drop(view);
    engine.keep_history_from(Timestamp::from_micros(7)).unwrap();
    engine.settle(true);
    assert_eq!(engine.stored_versions(), 1);
}

#[test]
fn write_amplification_is_counted() {
    let folder = tempfile::tempdir().unwrap();
    let engine = Rocks::open(folder.path()).unwrap();
    let before = engine.stats();
    engine.write(&[entry(1, &entry_bytes(G, 1).repeat(1000))], Durability::Synced).unwrap();
    let logged = engine.stats();
    assert_eq!(logged.bytes_logged - before.bytes_logged, 100_000);
    let written = logged.bytes_written - before.bytes_written;
    assert!((100_000..101_000).contains(&written), "the write-ahead log: {written}");
    engine.settle(false);
    let settled = engine.stats().bytes_written - logged.bytes_written;
    assert!(settled > 1000, "and the table file: {settled}");
}
