//! Random histories: both bodies give the same answers after every step, and after reopening.

use super::*;
use proptest::prelude::*;
use std::collections::BTreeMap;

/// One step of a random history.
#[derive(Clone, Debug)]
enum Step {
    Write(Vec<WriteOp>, Durability),
    /// The horizon rises by so much; later versions are written above it.
    Collect(u64),
    /// RocksDB moves what it holds to files, and perhaps compacts them.
    Settle {
        compact: bool,
    },
}

fn any_key() -> impl Strategy<Value = Key> {
    proptest::collection::vec(proptest::sample::select(vec![0u8, 1, 0xfe, 0xff]), 0..3)
        .prop_map(Key::from)
}

fn any_op() -> impl Strategy<Value = WriteOp> {
    let group = || (0..2u32).prop_map(GroupId);
    let slot = || (1..12u64).prop_map(Slot);
    let value = || {
        proptest::option::weighted(
            0.7,
            proptest::collection::vec(any::<u8>(), 0..8).prop_map(Value::from),
        )
    };
    prop_oneof![
        6 => (group(), any_key(), 0..20u64, value())
            .prop_map(|(group, key, at, value)| WriteOp::PutVersion { group, key, at: s(at), value }),
        2 => (group(), slot(), any::<[u8; 3]>())
            .prop_map(|(group, slot, bytes)| WriteOp::PutLog { group, slot, bytes: bytes.to_vec() }),
        1 => (group(), slot()).prop_map(|(group, upto)| WriteOp::TruncateLog { group, upto }),
        1 => (group(), slot()).prop_map(|(group, after)| WriteOp::CutLogTail { group, after }),
        1 => (any_key(), any::<u8>()).prop_map(|(key, n)| meta(&key, &[n])),
        1 => any_key().prop_map(|key| WriteOp::DeleteMeta { key: key.to_vec() }),
        1 => any_key().prop_map(|key| WriteOp::DropMeta { prefix: key.to_vec() }),
        3 => (group(), any_key(), 0..20u64, value())
            .prop_map(|(group, key, at, value)| WriteOp::StageVersion { group, key, at: s(at), value }),
        1 => group().prop_map(|group| WriteOp::DropStage { group }),
        1 => group().prop_map(|group| WriteOp::InstallStage { group }),
        1 => group().prop_map(|group| WriteOp::DropTablet { group }),
    ]
}

fn any_step() -> impl Strategy<Value = Step> {
    let durability = prop_oneof![8 => Just(Durability::Buffered), 1 => Just(Durability::Synced)];
    prop_oneof![
        8 => (proptest::collection::vec(any_op(), 1..6), durability).prop_map(|(ops, durability)| Step::Write(ops, durability)),
        1 => (1..15u64).prop_map(Step::Collect),
        1 => any::<bool>().prop_map(|compact| Step::Settle { compact }),
    ]
}

/// Timestamps of generated operations count from the horizon, and those of a key do not fall.
fn ascending(newest: &mut BTreeMap<(GroupId, Key), Timestamp>, horizon: u64, ops: &mut [WriteOp]) {
    for op in ops {
        if let WriteOp::PutVersion { group, key, at, .. }
        | WriteOp::StageVersion { group, key, at, .. } = op
        {
            let newest = newest.entry((*group, key.clone())).or_default();
            *at = at.plus_micros(horizon + 1).max(*newest);
            *newest = *at;
        }
    }
}

fn assert_same(rocks: &dyn Engine, memory: &dyn Engine, horizon: u64) {
    assert_eq!(rocks.read_meta(b"").unwrap(), memory.read_meta(b"").unwrap());
    let (pinned, expected) = (rocks.pin().unwrap(), memory.pin().unwrap());
    assert_eq!(pinned.read_meta(b"").unwrap(), expected.read_meta(b"").unwrap());
    assert_eq!((pinned.horizon(), expected.horizon()), (s(horizon), s(horizon)));
    for group in (0..3).map(GroupId) {
        let all = tablets::all_versions(&*expected, group, FAR);
        assert_eq!(tablets::all_versions(&*pinned, group, FAR), all);
        assert_eq!(tablets::all_versions(&*pinned, group, 12), all, "page by page");
        for from in [0, 5] {
            assert_eq!(
                rocks.read_log(group, Slot(from)).unwrap(),
                memory.read_log(group, Slot(from)).unwrap()
            );
        }
        for at in [horizon, horizon + 3, horizon + 11, u64::MAX].map(s) {
            let whole = memory.scan(group, &KeyRange::all(), at, FAR, FAR).unwrap();
            assert_eq!(rocks.scan(group, &KeyRange::all(), at, FAR, FAR).unwrap(), whole);
            let part = range(b"\x01", b"\xff\xfe");
            assert_eq!(
                rocks.scan(group, &part, at, 3, 9).unwrap(),
                memory.scan(group, &part, at, 3, 9).unwrap()
            );
            for row in &whole.rows {
                assert_eq!(
                    rocks.get(group, &row.key, at).unwrap(),
                    Some((row.written, row.value.clone()))
                );
            }
            for key in [&b""[..], b"\0", b"\xff", b"\x01\xfe"] {
                assert_eq!(rocks.get(group, key, at).unwrap(), memory.get(group, key, at).unwrap());
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn rocks_and_memory_agree(steps in proptest::collection::vec(any_step(), 1..40)) {
        let folder = tempfile::tempdir().unwrap();
        let (rocks, memory) = (Rocks::open(folder.path()).unwrap(), Memory::new());
        let (mut newest, mut horizon) = (BTreeMap::new(), 0);
        for step in steps {
            match step {
                Step::Write(mut ops, durability) => {
                    ascending(&mut newest, horizon, &mut ops);
                    rocks.write(&ops, durability).unwrap();
                    memory.write(&ops, durability).unwrap();
                }
                Step::Collect(rise) => {
                    horizon += rise;
                    rocks.keep_history_from(s(horizon)).unwrap();
                    memory.keep_history_from(s(horizon)).unwrap();
                }
                Step::Settle { compact } => rocks.settle(compact),
            }
            assert_same(&rocks, &memory, horizon);
        }
        drop(rocks);
        memory.crash(usize::MAX);
        assert_same(&Rocks::open(folder.path()).unwrap(), &memory, horizon);
    }
}
