//! What every [`Engine`] must do, once, run against each of its bodies.
//!
//! A case gets an empty engine. What only one body has (reopening, a power cut, damage) is tested
//! beside that body.

use super::{Durability, Engine, Memory, Rocks, StorageError, WriteOp};
use proto::keys::{KeyRange, Row};
use proto::{GroupId, Key, Page, Slot, Value};
use truetime::Timestamp;

const G: GroupId = GroupId(1);
const FAR: usize = usize::MAX;

macro_rules! cases {
    ($($case:ident),* $(,)?) => {
        mod memory {
            $(#[test] fn $case() { super::$case(&super::Memory::new()); })*
        }
        mod rocks {
            $(#[test] fn $case() {
                let folder = tempfile::tempdir().unwrap();
                super::$case(&super::Rocks::open(folder.path()).unwrap());
            })*
        }
    };
}

mod random;
mod tablets;

cases!(
    a_read_sees_the_newest_version_at_its_timestamp,
    a_late_old_version_does_not_hide_a_newer_one,
    keys_that_are_prefixes_of_each_other_stay_apart,
    keys_may_hold_any_bytes,
    an_empty_end_is_no_bound_and_an_empty_range_is_empty,
    groups_do_not_leak_into_each_other,
    pages_resume_by_rows,
    pages_resume_by_bytes,
    the_log_is_overwritten_and_read_from_a_slot,
    truncation_spares_other_groups_and_later_slots,
    a_cut_spares_other_groups_and_earlier_slots,
    meta_is_read_by_prefix,
    meta_is_dropped_by_prefix,
    operations_of_a_batch_apply_in_order,
    a_replayed_batch_changes_nothing,
    history_keeps_what_is_promised,
    reads_below_the_horizon_are_refused,
    counters_count,
);

fn s(micros: u64) -> Timestamp {
    Timestamp::from_micros(micros)
}

fn put(group: GroupId, key: &[u8], at: u64, value: Option<&[u8]>) -> WriteOp {
    let value = value.map(Value::copy_from_slice);
    WriteOp::PutVersion { group, key: Key::copy_from_slice(key), at: s(at), value }
}

fn entry(group: GroupId, slot: u64, bytes: &[u8]) -> WriteOp {
    WriteOp::PutLog { group, slot: Slot(slot), bytes: bytes.to_vec() }
}

fn meta(key: &[u8], value: &[u8]) -> WriteOp {
    WriteOp::PutMeta { key: key.to_vec(), value: value.to_vec() }
}

fn write(engine: &dyn Engine, batch: &[WriteOp]) {
    engine.write(batch, Durability::Buffered).unwrap();
}

/// The value and timestamp a read of one key sees.
fn seen(engine: &dyn Engine, key: &[u8], at: u64) -> Option<(u64, Vec<u8>)> {
    engine.get(G, key, s(at)).unwrap().map(|(written, value)| (written.micros(), value.to_vec()))
}

fn range(start: &[u8], end: &[u8]) -> KeyRange {
    KeyRange { start: Key::copy_from_slice(start), end: Key::copy_from_slice(end) }
}

fn keys(engine: &dyn Engine, group: GroupId, range: &KeyRange) -> Vec<Vec<u8>> {
    let page = engine.scan(group, range, Timestamp::MAX, FAR, FAR).unwrap();
    assert_eq!(page.resume, None);
    page.rows.into_iter().map(|row| row.key.to_vec()).collect()
}

fn slots(engine: &dyn Engine, group: GroupId, from: u64) -> Vec<(u64, Vec<u8>)> {
    engine
        .read_log(group, Slot(from))
        .unwrap()
        .into_iter()
        .map(|record| (record.slot.0, record.bytes.expect("nothing was damaged")))
        .collect()
}

fn a_read_sees_the_newest_version_at_its_timestamp(engine: &dyn Engine) {
    write(
        engine,
        &[
            put(G, b"k", 10, Some(b"ten")),
            put(G, b"k", 20, None),
            put(G, b"k", 30, Some(b"thirty")),
        ],
    );
    for (at, expected) in [
        (0, None),
        (9, None),
        (10, Some((10, b"ten".to_vec()))),
        (19, Some((10, b"ten".to_vec()))),
        (20, None),
        (29, None),
        (30, Some((30, b"thirty".to_vec()))),
        (u64::MAX, Some((30, b"thirty".to_vec()))),
    ] {
        assert_eq!(seen(engine, b"k", at), expected, "at {at}");
        let page = engine.scan(G, &KeyRange::all(), s(at), FAR, FAR).unwrap();
        let rows: Vec<_> =
            page.rows.iter().map(|row| (row.written.micros(), row.value.to_vec())).collect();
        assert_eq!(rows, Vec::from_iter(expected), "scan at {at}");
    }
}

fn a_late_old_version_does_not_hide_a_newer_one(engine: &dyn Engine) {
    write(engine, &[put(G, b"k", 20, Some(b"new"))]);
    write(engine, &[put(G, b"k", 10, Some(b"old")), put(G, b"l", 30, None)]);
    write(engine, &[put(G, b"l", 25, Some(b"gone"))]);
    assert_eq!(seen(engine, b"k", u64::MAX), Some((20, b"new".to_vec())));
    assert_eq!(seen(engine, b"k", 15), Some((10, b"old".to_vec())));
    assert_eq!(seen(engine, b"l", u64::MAX), None);
    assert_eq!(seen(engine, b"l", 29), Some((25, b"gone".to_vec())));
}

fn keys_that_are_prefixes_of_each_other_stay_apart(engine: &dyn Engine) {
    let all: [&[u8]; 5] = [b"", b"a", b"a\0", b"a\0\0", b"ab"];
    for (n, key) in all.iter().enumerate() {
        write(engine, &[put(G, key, 10 * (n as u64 + 1), Some(key))]);
    }
    for (n, key) in all.iter().enumerate() {
        assert_eq!(seen(engine, key, u64::MAX), Some((10 * (n as u64 + 1), key.to_vec())));
    }
    assert_eq!(seen(engine, b"b", u64::MAX), None);
    assert_eq!(keys(engine, G, &KeyRange::all()), all.map(<[u8]>::to_vec));
    assert_eq!(keys(engine, G, &range(b"a\0", b"ab")), [b"a\0".to_vec(), b"a\0\0".to_vec()]);
}

fn keys_may_hold_any_bytes(engine: &dyn Engine) {
    let all: [&[u8]; 6] = [
        b"\0",
        b"\0\0\0\0\0\0\0\0\0",
        b"\0\xff",
        b"\xff",
        b"\xff\0",
        b"\xff\xff\xff\xff\xff\xff\xff\xff",
    ];
    for key in all {
        write(engine, &[put(G, key, 5, Some(b"")), put(G, key, 6, Some(key))]);
    }
    for key in all {
        assert_eq!(seen(engine, key, 6), Some((6, key.to_vec())));
        assert_eq!(seen(engine, key, 5), Some((5, Vec::new())), "an empty value is a row");
    }
    assert_eq!(keys(engine, G, &KeyRange::all()), all.map(<[u8]>::to_vec));
    assert_eq!(
        keys(engine, G, &KeyRange::prefix(b"\xff")),
        all[3..].iter().map(|k| k.to_vec()).collect::<Vec<_>>()
    );
}

fn an_empty_end_is_no_bound_and_an_empty_range_is_empty(engine: &dyn Engine) {
    let last = GroupId(u32::MAX);
    for group in [G, last] {
        write(engine, &[put(group, b"a", 1, Some(b"1")), put(group, b"\xff", 1, Some(b"2"))]);
        assert_eq!(keys(engine, group, &range(b"b", b"")), [b"\xff".to_vec()]);
        assert_eq!(keys(engine, group, &range(b"a", b"a")), Vec::<Vec<u8>>::new());
        assert_eq!(keys(engine, group, &range(b"b", b"a")), Vec::<Vec<u8>>::new());
        assert_eq!(keys(engine, group, &range(b"", b"b")), [b"a".to_vec()]);
    }
}

fn groups_do_not_leak_into_each_other(engine: &dyn Engine) {
    for group in [0, 1, 2, 255, 256, u32::MAX - 1, u32::MAX] {
        let name = group.to_string();
        write(
            engine,
            &[
                put(GroupId(group), b"\xff\xff", 1, Some(name.as_bytes())),
                entry(GroupId(group), 1, name.as_bytes()),
            ],
        );
    }
    for group in [0, 1, 2, 255, 256, u32::MAX - 1, u32::MAX] {
        let name = group.to_string().into_bytes();
        let page = engine.scan(GroupId(group), &KeyRange::all(), Timestamp::MAX, FAR, FAR).unwrap();
        let row = Row {
            key: Key::from_static(b"\xff\xff"),
            value: Value::from(name.clone()),
            written: s(1),
        };
        assert_eq!(page, Page { rows: vec![row], resume: None });
        assert_eq!(slots(engine, GroupId(group), 0), [(1, name)]);
    }
    assert_eq!(keys(engine, GroupId(3), &KeyRange::all()), Vec::<Vec<u8>>::new());
}

/// Reads a range page by page and checks that the pages make up the range.
fn paged(engine: &dyn Engine, max_rows: usize, max_bytes: usize) -> Vec<usize> {
    let whole = engine.scan(G, &KeyRange::all(), Timestamp::MAX, FAR, FAR).unwrap().rows;
    let (mut rows, mut sizes, mut rest) = (Vec::new(), Vec::new(), KeyRange::all());
    loop {
        let page = engine.scan(G, &rest, Timestamp::MAX, max_rows, max_bytes).unwrap();
        sizes.push(page.rows.len());
        rows.extend(page.rows);
        match page.resume {
            Some(key) => rest.start = key,
            None => break,
        }
    }
    assert_eq!(rows, whole);
    sizes
}

fn pages_resume_by_rows(engine: &dyn Engine) {
    for n in 0..7u8 {
        write(
            engine,
            &[
                put(G, &[n], 1, Some(&[n])),
                put(G, &[n, 1], 1, Some(b"x")),
                put(G, &[n, 1], 2, None),
            ],
        );
    }
    assert_eq!(paged(engine, 3, FAR), [3, 3, 1]);
    assert_eq!(paged(engine, 7, FAR), [7], "no empty page at the end, though deleted keys follow");
    assert_eq!(paged(engine, 0, FAR), [1; 7], "at least one row");
    let page = engine.scan(G, &KeyRange::all(), Timestamp::MAX, 2, FAR).unwrap();
    assert_eq!(page.resume.as_deref(), Some(&[2u8][..]), "the first row not returned");
}

fn pages_resume_by_bytes(engine: &dyn Engine) {
    for n in 0..6u8 {
        write(engine, &[put(G, &[n], 1, Some(&[n; 99]))]);
    }
    assert_eq!(paged(engine, FAR, 200), [2, 2, 2]);
    assert_eq!(paged(engine, FAR, 201), [3, 3]);
    assert_eq!(paged(engine, FAR, 0), [1; 6]);
    assert_eq!(paged(engine, 2, 1000), [2, 2, 2]);
}

fn the_log_is_overwritten_and_read_from_a_slot(engine: &dyn Engine) {
    assert_eq!(slots(engine, G, 0), []);
    let all: Vec<WriteOp> =
        [1, 2, 3, 256, 257].map(|slot| entry(G, slot, &slot.to_be_bytes())).into();
    write(engine, &all);
    write(engine, &[entry(G, 2, b"again"), entry(G, 4, b"")]);
    let found: Vec<u64> = slots(engine, G, 2).iter().map(|(slot, _)| *slot).collect();
    assert_eq!(found, [2, 3, 4, 256, 257]);
    assert_eq!(slots(engine, G, 2)[0].1, b"again");
    assert_eq!(slots(engine, G, 4)[0], (4, Vec::new()));
    assert_eq!(slots(engine, G, 257), [(257, 257u64.to_be_bytes().to_vec())]);
    assert_eq!(slots(engine, G, 258), []);
}

fn truncation_spares_other_groups_and_later_slots(engine: &dyn Engine) {
    for group in [0, 1, 2] {
        let all: Vec<WriteOp> = (1..=5).map(|slot| entry(GroupId(group), slot, b"e")).collect();
        write(engine, &all);
    }
    write(engine, &[WriteOp::TruncateLog { group: G, upto: Slot(3) }]);
    let of = |group, from| {
        slots(engine, GroupId(group), from).iter().map(|(slot, _)| *slot).collect::<Vec<_>>()
    };
    assert_eq!(of(1, 0), [4, 5]);
    assert_eq!(of(1, 5), [5]);
    assert_eq!((of(0, 0), of(2, 0)), (vec![1, 2, 3, 4, 5], vec![1, 2, 3, 4, 5]));
    write(engine, &[entry(G, 2, b"back")]);
    assert_eq!(of(1, 0), [2, 4, 5], "a slot may be written again");
    write(engine, &[WriteOp::TruncateLog { group: G, upto: Slot(u64::MAX) }]);
    assert_eq!((of(1, 0), of(2, 0)), (vec![], vec![1, 2, 3, 4, 5]));
}

fn a_cut_spares_other_groups_and_earlier_slots(engine: &dyn Engine) {
    let last = GroupId(u32::MAX);
    for group in [GroupId(0), G, GroupId(2), last] {
        let all: Vec<WriteOp> = [1, 2, 3, 4, u64::MAX].map(|slot| entry(group, slot, b"e")).into();
        write(engine, &all);
    }
    let of = |group| slots(engine, group, 0).iter().map(|(slot, _)| *slot).collect::<Vec<_>>();
    for group in [G, last] {
        write(engine, &[WriteOp::CutLogTail { group, after: Slot(u64::MAX) }]);
        assert_eq!(of(group), [1, 2, 3, 4, u64::MAX]);
        write(engine, &[WriteOp::CutLogTail { group, after: Slot(2) }]);
        assert_eq!(of(group), [1, 2]);
        write(engine, &[entry(group, 3, b"again"), WriteOp::CutLogTail { group, after: Slot(7) }]);
        assert_eq!(of(group), [1, 2, 3]);
        write(engine, &[WriteOp::CutLogTail { group, after: Slot::ZERO }]);
        assert_eq!(of(group), []);
    }
    assert_eq!(
        (of(GroupId(0)), of(GroupId(2))),
        (vec![1, 2, 3, 4, u64::MAX], vec![1, 2, 3, 4, u64::MAX])
    );
}

fn meta_is_read_by_prefix(engine: &dyn Engine) {
    for key in [&b"a"[..], b"a/1", b"a/2", b"a\xff", b"b", b"\xff\xff"] {
        write(engine, &[meta(key, key)]);
    }
    write(engine, &[meta(b"a/1", b"new"), WriteOp::DeleteMeta { key: b"a/2".to_vec() }]);
    write(engine, &[WriteOp::DeleteMeta { key: b"never was".to_vec() }]);
    let of = |prefix: &[u8]| {
        engine.read_meta(prefix).unwrap().into_iter().map(|(key, _)| key).collect::<Vec<_>>()
    };
    assert_eq!(of(b"a"), [b"a".to_vec(), b"a/1".to_vec(), b"a\xff".to_vec()]);
    assert_eq!(of(b"\xff"), [b"\xff\xff".to_vec()]);
    assert_eq!(of(b"c"), Vec::<Vec<u8>>::new());
    assert_eq!(of(b"").len(), 5);
    assert_eq!(engine.read_meta(b"a/").unwrap(), [(b"a/1".to_vec(), b"new".to_vec())]);
}

fn meta_is_dropped_by_prefix(engine: &dyn Engine) {
    let all: [&[u8]; 7] = [b"", b"a", b"a/1", b"a/2", b"b", b"\xff", b"\xff\xff\xff"];
    let write_all = || write(engine, &all.map(|key| meta(key, b"v")));
    let left =
        || engine.read_meta(b"").unwrap().into_iter().map(|(key, _)| key).collect::<Vec<_>>();
    for prefix in [&b"a/"[..], b"a", b"never was", b"\xff", b""] {
        write_all();
        write(engine, &[WriteOp::DropMeta { prefix: prefix.to_vec() }]);
        let expected: Vec<_> =
            all.iter().filter(|key| !key.starts_with(prefix)).map(|key| key.to_vec()).collect();
        assert_eq!(left(), expected, "without {}", prefix.escape_ascii());
    }
    write_all();
    let drop_all = WriteOp::DropMeta { prefix: b"a".to_vec() };
    write(engine, &[meta(b"a/3", b"before"), drop_all, meta(b"a/2", b"after")]);
    assert_eq!(engine.read_meta(b"a").unwrap(), [(b"a/2".to_vec(), b"after".to_vec())]);
}

fn operations_of_a_batch_apply_in_order(engine: &dyn Engine) {
    let key = b"m".to_vec();
    write(
        engine,
        &[
            meta(b"m", b"1"),
            WriteOp::DeleteMeta { key: key.clone() },
            meta(b"m", b"2"),
            entry(G, 1, b"old"),
            WriteOp::TruncateLog { group: G, upto: Slot(2) },
            entry(G, 2, b"new"),
            put(G, b"k", 1, Some(b"first")),
            put(G, b"k", 1, Some(b"second")),
            put(G, b"l", 1, Some(b"there")),
            put(G, b"l", 1, None),
        ],
    );
    assert_eq!(engine.read_meta(b"").unwrap(), [(key, b"2".to_vec())]);
    assert_eq!(slots(engine, G, 0), [(2, b"new".to_vec())]);
    assert_eq!(seen(engine, b"k", 1), Some((1, b"second".to_vec())));
    assert_eq!(seen(engine, b"l", 1), None);
}

fn a_replayed_batch_changes_nothing(engine: &dyn Engine) {
    let first = [
        put(G, b"k", 1, Some(b"one")),
        put(G, b"l", 1, None),
        meta(b"applied", b"1"),
        entry(G, 1, b"e"),
    ];
    let second = [put(G, b"k", 2, None), put(G, b"l", 2, Some(b"two")), meta(b"applied", b"2")];
    write(engine, &first);
    write(engine, &second);
    for _ in 0..2 {
        write(engine, &first);
        write(engine, &second);
        assert_eq!(seen(engine, b"k", 1), Some((1, b"one".to_vec())));
        assert_eq!(seen(engine, b"k", u64::MAX), None);
        assert_eq!(seen(engine, b"l", 1), None);
        assert_eq!(seen(engine, b"l", 2), Some((2, b"two".to_vec())));
        assert_eq!(slots(engine, G, 0), [(1, b"e".to_vec())]);
        assert_eq!(engine.read_meta(b"").unwrap(), [(b"applied".to_vec(), b"2".to_vec())]);
    }
}

fn history_keeps_what_is_promised(engine: &dyn Engine) {
    for at in 1..=9 {
        write(engine, &[put(G, b"often", at, Some(&[at as u8]))]);
    }
    write(
        engine,
        &[put(G, b"once", 2, Some(b"2")), put(G, b"gone", 3, Some(b"3")), put(G, b"gone", 4, None)],
    );
    engine.keep_history_from(s(6)).unwrap();
    engine.keep_history_from(s(5)).unwrap();
    for at in 6..=9 {
        assert_eq!(seen(engine, b"often", at), Some((at, vec![at as u8])));
        assert_eq!(seen(engine, b"once", at), Some((2, b"2".to_vec())));
        assert_eq!(seen(engine, b"gone", at), None);
        assert_eq!(keys(engine, G, &KeyRange::all()), [b"often".to_vec(), b"once".to_vec()]);
    }
    write(engine, &[put(G, b"gone", 12, Some(b"12"))]);
    assert_eq!(seen(engine, b"gone", 11), None);
    assert_eq!(seen(engine, b"gone", 12), Some((12, b"12".to_vec())));
}

fn reads_below_the_horizon_are_refused(engine: &dyn Engine) {
    write(engine, &[put(G, b"k", 1, Some(b"one"))]);
    engine.keep_history_from(s(5)).unwrap();
    assert!(matches!(engine.get(G, b"k", s(4)), Err(StorageError::Io(_))));
    assert!(matches!(engine.scan(G, &KeyRange::all(), s(4), FAR, FAR), Err(StorageError::Io(_))));
    assert_eq!(seen(engine, b"k", 5), Some((1, b"one".to_vec())));
}

fn counters_count(engine: &dyn Engine) {
    assert_eq!((engine.stats().batches, engine.stats().syncs), (0, 0));
    engine.write(&[meta(b"a", b"1")], Durability::Buffered).unwrap();
    engine.write(&[meta(b"a", b"2"), meta(b"b", b"2")], Durability::Synced).unwrap();
    engine.write(&[], Durability::Synced).unwrap();
    assert_eq!((engine.stats().batches, engine.stats().syncs), (3, 2));
    assert_eq!(engine.stats().bytes_logged, 6);
    write(
        engine,
        &[put(G, b"key", 1, Some(b"value")), entry(G, 1, b"entry"), put(G, b"k", 2, None)],
    );
    assert_eq!(engine.stats().bytes_logged, 6 + 8 + 5 + 1);
}
