//! What only this body has: a power cut that loses batches, bit rot, a new disk.

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
            disk.read_log(G, Slot(0)).unwrap().iter().map(|record| record.slot.0).collect();
        assert_eq!(slots, if kept < 2 { vec![1, 2] } else { vec![2, 3] });
        let applied = (kept + 1).min(3).to_string();
        assert_eq!(
            disk.read_meta(b"applied").unwrap(),
            vec![(b"applied".to_vec(), applied.into_bytes())]
        );
        assert_eq!(newest(&disk, "k").is_some(), kept == 0);
        assert_eq!(newest(&disk, "l").is_some(), kept == 3);
        let first = disk.get(G, b"k", Timestamp::from_micros(1)).unwrap().map(|(_, value)| value);
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
    disk.write(&[put("k", 1, Some("one")), put("k", 2, Some("two"))], Durability::Synced).unwrap();
    disk.write(&[put("k", 3, None)], Durability::Buffered).unwrap();
    disk.keep_history_from(Timestamp::from_micros(5)).unwrap();
    disk.crash(0);
    assert_eq!(newest(&disk, "k").as_deref(), Some(&b"two"[..]));
    assert_eq!(disk.disk.lock().live[&G][&b"k"[..]].len(), 1);

    disk.write(&[put("k", 4, None)], Durability::Synced).unwrap();
    disk.keep_history_from(Timestamp::from_micros(6)).unwrap();
    assert!(disk.disk.lock().live[&G].is_empty());
}

#[test]
fn a_power_cut_around_an_install_leaves_either_tablet_whole() {
    let stage = |key: &'static str, at, value| match put(key, at, value) {
        WriteOp::PutVersion { group, key, at, value } => {
            WriteOp::StageVersion { group, key, at, value }
        }
        _ => unreachable!(),
    };
    let batches = [
        vec![stage("k", 5, Some("new"))],
        vec![stage("l", 6, Some("new"))],
        vec![WriteOp::InstallStage { group: G }, meta("6")],
        vec![put("m", 7, Some("on")), meta("7")],
        vec![WriteOp::DropTablet { group: G }, WriteOp::DropMeta { prefix: b"app".to_vec() }],
        vec![put("n", 8, Some("alone"))],
    ];
    for keep in 0..=batches.len() {
        let disk = Memory::new();
        let old = [put("k", 1, Some("old")), put("o", 2, Some("old")), meta("2")];
        disk.write(&old, Durability::Synced).unwrap();
        for batch in &batches {
            disk.write(batch, Durability::Buffered).unwrap();
        }
        disk.crash(keep);
        let page = disk.scan(G, &KeyRange::all(), Timestamp::MAX, 99, 99).unwrap();
        let rows: Vec<_> = page.rows.iter().map(|row| (&row.key[..], &row.value[..])).collect();
        let applied = disk.read_meta(b"applied").unwrap().pop().map(|(_, value)| value);
        let (k, l, m) =
            ((&b"k"[..], &b"new"[..]), (&b"l"[..], &b"new"[..]), (&b"m"[..], &b"on"[..]));
        let (expected, slot) = match keep {
            0..=2 => (vec![(&b"k"[..], &b"old"[..]), (&b"o"[..], &b"old"[..])], Some("2")),
            3 => (vec![k, l], Some("6")),
            4 => (vec![k, l, m], Some("7")),
            5 => (vec![], None),
            _ => (vec![(&b"n"[..], &b"alone"[..])], None),
        };
        assert_eq!(rows, expected, "{keep} batches kept");
        assert_eq!(applied, slot.map(|slot| slot.as_bytes().to_vec()));

        disk.write(&[WriteOp::InstallStage { group: G }], Durability::Synced).unwrap();
        let page = disk.scan(G, &KeyRange::all(), Timestamp::MAX, 99, 99).unwrap();
        assert!(page.rows.is_empty(), "what was staged did not outlive the process");
    }
}

#[test]
fn rot_damages_one_entry_until_it_is_written_again() {
    let disk = Memory::new();
    disk.write(&[log(1, "a"), log(2, "b"), log(3, "c")], Durability::Synced).unwrap();
    assert!(disk.rot_log(G, Slot(2)));
    assert!(!disk.rot_log(G, Slot(4)) && !disk.rot_log(GroupId(8), Slot(1)));
    let read = || -> Vec<_> {
        disk.read_log(G, Slot(0)).unwrap().into_iter().map(|record| record.bytes).collect()
    };
    assert_eq!(read(), [Some(b"a".to_vec()), None, Some(b"c".to_vec())]);
    assert_eq!(disk.log_slots(G), [1, 2, 3].map(Slot));

    disk.write(&[log(2, "healed")], Durability::Buffered).unwrap();
    assert_eq!(read()[1].as_deref(), Some(&b"healed"[..]));
    disk.crash(0);
    assert_eq!(read()[1], None, "the healing was lost");
    disk.write(&[WriteOp::TruncateLog { group: G, upto: Slot(2) }], Durability::Synced).unwrap();
    assert_eq!(disk.log_slots(G), [Slot(3)]);
}

#[test]
fn a_wiped_disk_is_empty() {
    let disk = Memory::new();
    disk.write(&[put("k", 1, Some("one")), log(1, "a"), meta("1")], Durability::Buffered).unwrap();
    disk.keep_history_from(Timestamp::from_micros(5)).unwrap();
    disk.wipe();
    assert!(disk.read_log(G, Slot(0)).unwrap().is_empty());
    assert!(disk.read_meta(b"").unwrap().is_empty());
    assert_eq!((newest(&disk, "k"), disk.unsynced()), (None, 0));
    assert_eq!(disk.get(G, b"k", Timestamp::MIN).unwrap(), None, "no horizon either");
}
