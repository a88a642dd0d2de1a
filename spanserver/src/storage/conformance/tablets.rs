//! Tablets staged, installed, dropped, and read whole from a pinned view.

use super::*;
use crate::storage::Pinned;

cases!(
    what_is_staged_is_not_seen,
    an_installed_tablet_replaces_the_old_one_whole,
    a_stage_is_forgotten,
    an_empty_stage_installs_an_empty_tablet,
    a_dropped_tablet_is_empty_and_can_be_written_again,
    tablets_of_other_groups_stay,
    tablet_operations_of_a_batch_apply_in_order,
    a_pinned_view_does_not_move,
    versions_ascend_by_key_and_timestamp,
    versions_come_in_pages,
    versions_below_the_horizon_are_left_out,
    a_pin_keeps_history,
    a_copied_tablet_answers_alike,
);

type Version = (Vec<u8>, u64, Option<Vec<u8>>);

/// All versions of a group in a view, read in pages of so many bytes.
pub(super) fn all_versions(view: &dyn Pinned, group: GroupId, page_bytes: usize) -> Vec<Version> {
    let (mut all, mut after) = (Vec::new(), None);
    loop {
        let page = view.read_versions(group, after.as_ref(), page_bytes).unwrap();
        assert!(page.done || !page.versions.is_empty(), "a page that leads nowhere");
        after = page.versions.last().map(|(key, at, _)| (key.clone(), *at)).or(after);
        all.extend(page.versions);
        if page.done {
            break;
        }
    }
    all.into_iter()
        .map(|(key, at, value)| (key.to_vec(), at.micros(), value.map(|value| value.to_vec())))
        .collect()
}

fn versions(engine: &dyn Engine, group: GroupId) -> Vec<Version> {
    all_versions(&*engine.pin().unwrap(), group, FAR)
}

fn version(key: &[u8], at: u64, value: Option<&[u8]>) -> Version {
    (key.to_vec(), at, value.map(<[u8]>::to_vec))
}

fn stage(group: GroupId, key: &[u8], at: u64, value: Option<&[u8]>) -> WriteOp {
    let value = value.map(Value::copy_from_slice);
    WriteOp::StageVersion { group, key: Key::copy_from_slice(key), at: s(at), value }
}

fn install(group: GroupId) -> WriteOp {
    WriteOp::InstallStage { group }
}

/// A tablet with two keys, and another one staged.
fn two_tablets(engine: &dyn Engine) {
    write(engine, &[put(G, b"a", 1, Some(b"old")), put(G, b"b", 2, Some(b"old"))]);
    write(engine, &[stage(G, b"b", 3, Some(b"new"))]);
    write(engine, &[stage(G, b"b", 5, None), stage(G, b"c", 4, Some(b"new"))]);
}

fn what_is_staged_is_not_seen(engine: &dyn Engine) {
    two_tablets(engine);
    assert_eq!(keys(engine, G, &KeyRange::all()), [b"a", b"b"]);
    assert_eq!(seen(engine, b"b", u64::MAX), Some((2, b"old".to_vec())));
    assert_eq!(seen(engine, b"c", u64::MAX), None);
    assert_eq!(versions(engine, G).len(), 2);
    write(engine, &[put(G, b"c", 9, Some(b"live"))]);
    assert_eq!(seen(engine, b"c", u64::MAX), Some((9, b"live".to_vec())));
}

fn an_installed_tablet_replaces_the_old_one_whole(engine: &dyn Engine) {
    two_tablets(engine);
    write(engine, &[meta(b"applied", b"7"), install(G)]);
    for _ in 0..2 {
        assert_eq!(keys(engine, G, &KeyRange::all()), [b"c"]);
        assert_eq!(seen(engine, b"a", u64::MAX), None, "the old tablet is gone, keys and all");
        assert_eq!(seen(engine, b"b", 2), None);
        assert_eq!(seen(engine, b"b", 4), Some((3, b"new".to_vec())));
        assert_eq!(seen(engine, b"b", 5), None);
        assert_eq!(engine.read_meta(b"").unwrap(), [(b"applied".to_vec(), b"7".to_vec())]);
        // What is left of the old tablet may be swept now.
        engine.keep_history_from(Timestamp::MIN).unwrap();
    }
    write(engine, &[put(G, b"a", 8, Some(b"on"))]);
    assert_eq!(keys(engine, G, &KeyRange::all()), [b"a", b"c"]);
    write(engine, &[stage(G, b"z", 9, Some(b"third")), install(G)]);
    assert_eq!(keys(engine, G, &KeyRange::all()), [b"z"]);
    assert_eq!(versions(engine, G), [version(b"z", 9, Some(b"third"))]);
}

fn a_stage_is_forgotten(engine: &dyn Engine) {
    two_tablets(engine);
    write(engine, &[WriteOp::DropStage { group: G }]);
    write(engine, &[WriteOp::DropStage { group: G }]);
    assert_eq!(keys(engine, G, &KeyRange::all()), [b"a", b"b"]);
    write(engine, &[stage(G, b"d", 6, Some(b"again"))]);
    write(engine, &[install(G)]);
    assert_eq!(versions(engine, G), [version(b"d", 6, Some(b"again"))], "nothing of the first");
}

fn an_empty_stage_installs_an_empty_tablet(engine: &dyn Engine) {
    write(engine, &[put(G, b"a", 1, Some(b"old"))]);
    write(engine, &[install(G)]);
    assert_eq!(versions(engine, G), []);
    assert_eq!(seen(engine, b"a", u64::MAX), None);
}

fn a_dropped_tablet_is_empty_and_can_be_written_again(engine: &dyn Engine) {
    two_tablets(engine);
    write(engine, &[WriteOp::DropTablet { group: G }]);
    assert_eq!(versions(engine, G), []);
    write(engine, &[put(G, b"a", 1, Some(b"back"))]);
    assert_eq!(versions(engine, G), [version(b"a", 1, Some(b"back"))]);
    write(engine, &[install(G)]);
    assert_eq!(keys(engine, G, &KeyRange::all()), [b"c"], "what was staged stayed");
}

fn tablets_of_other_groups_stay(engine: &dyn Engine) {
    let groups = [0, 1, 2, u32::MAX - 1, u32::MAX].map(GroupId);
    for group in groups {
        write(engine, &[put(group, b"\xff", 1, Some(b"old"))]);
        write(engine, &[stage(group, b"\xff", 2, Some(b"new"))]);
    }
    for changed in [G, GroupId(u32::MAX)] {
        write(engine, &[install(changed)]);
        engine.keep_history_from(Timestamp::MIN).unwrap();
    }
    for group in groups {
        let new = group == G || group == GroupId(u32::MAX);
        let expected =
            if new { version(b"\xff", 2, Some(b"new")) } else { version(b"\xff", 1, Some(b"old")) };
        assert_eq!(versions(engine, group), [expected], "{group}");
    }
}

fn tablet_operations_of_a_batch_apply_in_order(engine: &dyn Engine) {
    write(
        engine,
        &[
            put(G, b"a", 1, Some(b"before the first")),
            stage(G, b"b", 1, Some(b"dropped")),
            WriteOp::DropStage { group: G },
            stage(G, b"c", 1, Some(b"first")),
            install(G),
            put(G, b"d", 1, Some(b"into the first")),
            stage(G, b"e", 1, Some(b"left")),
        ],
    );
    assert_eq!(keys(engine, G, &KeyRange::all()), [b"c", b"d"]);
    let drop_live = WriteOp::DropTablet { group: G };
    write(
        engine,
        &[drop_live, put(G, b"f", 1, Some(b"alone")), install(G), install(G), install(G)],
    );
    assert_eq!(keys(engine, G, &KeyRange::all()), Vec::<Vec<u8>>::new());
}

fn a_pinned_view_does_not_move(engine: &dyn Engine) {
    two_tablets(engine);
    write(engine, &[meta(b"applied", b"1")]);
    let view = engine.pin().unwrap();
    let before = all_versions(&*view, G, FAR);
    assert_eq!(before, [version(b"a", 1, Some(b"old")), version(b"b", 2, Some(b"old"))]);
    write(engine, &[put(G, b"a", 1, Some(b"overwritten")), put(G, b"a", 6, Some(b"later"))]);
    let later: Vec<WriteOp> = (0..600).map(|n| put(G, b"a", 7 + n, Some(b"hot"))).collect();
    write(engine, &later);
    write(engine, &[meta(b"applied", b"2"), meta(b"other", b"2"), install(G)]);
    engine.keep_history_from(Timestamp::MIN).unwrap();
    write(engine, &[put(G, b"b", 9, Some(b"into the new one"))]);
    for page_bytes in [FAR, 1] {
        assert_eq!(all_versions(&*view, G, page_bytes), before);
    }
    assert_eq!(view.read_meta(b"").unwrap(), [(b"applied".to_vec(), b"1".to_vec())]);
    assert_eq!(view.read_meta(b"b").unwrap(), []);
    drop(view);
    assert_eq!(keys(engine, G, &KeyRange::all()), [b"b", b"c"]);
}

fn versions_ascend_by_key_and_timestamp(engine: &dyn Engine) {
    write(
        engine,
        &[put(G, b"b", 2, None), put(G, b"b", 1, Some(b"1")), put(G, b"a\0", 3, Some(b""))],
    );
    write(
        engine,
        &[put(G, b"a", 9, Some(b"9")), put(G, b"b", 3, Some(b"3")), put(G, b"", 4, None)],
    );
    write(engine, &[put(GroupId(0), b"z", 1, None), put(GroupId(2), b"a", 1, Some(b"x"))]);
    let expected = [
        version(b"", 4, None),
        version(b"a", 9, Some(b"9")),
        version(b"a\0", 3, Some(b"")),
        version(b"b", 1, Some(b"1")),
        version(b"b", 2, None),
        version(b"b", 3, Some(b"3")),
    ];
    assert_eq!(versions(engine, G), expected);
    let view = engine.pin().unwrap();
    for first in 0..expected.len() {
        let (key, at, _) = &expected[first];
        let after = (Key::from(key.clone()), s(*at));
        let page = view.read_versions(G, Some(&after), FAR).unwrap();
        assert_eq!(page.versions.len(), expected.len() - first - 1, "after {at}");
    }
    let after = (Key::from_static(b"aa"), s(0));
    assert_eq!(view.read_versions(G, Some(&after), FAR).unwrap().versions.len(), 3);
    assert_eq!(versions(engine, GroupId(3)), []);
}

fn versions_come_in_pages(engine: &dyn Engine) {
    for at in 1..=40 {
        write(engine, &[put(G, b"hot", at, Some(&[at as u8; 91])), put(G, &[at as u8], 1, None)]);
    }
    let view = engine.pin().unwrap();
    let all = all_versions(&*view, G, FAR);
    assert_eq!(all.len(), 80);
    for page_bytes in [0, 1, 100, 250, 1000, 3000, 4000] {
        assert_eq!(all_versions(&*view, G, page_bytes), all, "pages of {page_bytes} bytes");
        let page = view.read_versions(G, None, page_bytes).unwrap();
        assert!(!page.versions.is_empty() && !page.done);
        let bytes: usize = page
            .versions
            .iter()
            .map(|(key, _, value)| key.len() + value.as_ref().map_or(0, Value::len))
            .sum();
        assert!(bytes <= page_bytes + 100, "{bytes} in a page of {page_bytes}");
    }
    assert!(view.read_versions(G, None, FAR).unwrap().done);
}

fn versions_below_the_horizon_are_left_out(engine: &dyn Engine) {
    for at in 1..=9 {
        write(engine, &[put(G, b"often", at, Some(b"v"))]);
    }
    write(
        engine,
        &[put(G, b"gone", 3, Some(b"3")), put(G, b"gone", 4, None), put(G, b"gone", 7, Some(b"7"))],
    );
    write(engine, &[put(G, b"going", 2, Some(b"2")), put(G, b"going", 8, None)]);
    engine.keep_history_from(s(6)).unwrap();
    let view = engine.pin().unwrap();
    assert_eq!(view.horizon(), s(6));
    let mut expected = vec![version(b"going", 2, Some(b"2")), version(b"going", 8, None)];
    expected.push(version(b"gone", 7, Some(b"7")));
    expected.extend([6, 7, 8, 9].map(|at| version(b"often", at, Some(b"v"))));
    assert_eq!(all_versions(&*view, G, FAR), expected);
    assert_eq!(all_versions(&*view, G, 1), expected);
}

fn a_pin_keeps_history(engine: &dyn Engine) {
    for at in 1..=9 {
        write(engine, &[put(G, b"k", at, Some(&[at as u8]))]);
    }
    let view = engine.pin().unwrap();
    engine.keep_history_from(s(8)).unwrap();
    assert!(engine.get(G, b"k", s(7)).is_err());
    assert_eq!((view.horizon(), all_versions(&*view, G, FAR).len()), (Timestamp::MIN, 9));
    drop(view);
    engine.keep_history_from(s(8)).unwrap();
    assert_eq!(versions(engine, G).len(), 2);
}

/// What P7 is for: the versions of a view, staged and installed elsewhere, give the same reads.
fn a_copied_tablet_answers_alike(engine: &dyn Engine) {
    let keys: [&[u8]; 4] = [b"", b"a", b"a\0", b"\xff\xff"];
    for at in 1..60u64 {
        let key = keys[at as usize * 7 % 4];
        write(engine, &[put(G, key, at, (at % 5 != 0).then_some(&[at as u8; 3][..]))]);
    }
    engine.keep_history_from(s(30)).unwrap();
    let (view, to) = (engine.pin().unwrap(), GroupId(9));
    write(engine, &[put(to, b"old", 1, Some(b"old"))]);
    let mut after = None;
    loop {
        let page = view.read_versions(G, after.as_ref(), 20).unwrap();
        after = page.versions.last().map(|(key, at, _)| (key.clone(), *at));
        let staged: Vec<WriteOp> = page
            .versions
            .into_iter()
            .map(|(key, at, value)| WriteOp::StageVersion { group: to, key, at, value })
            .collect();
        write(engine, &staged);
        if page.done {
            break;
        }
    }
    write(engine, &[install(to)]);
    for at in 30..62 {
        let of = |group| engine.scan(group, &KeyRange::all(), s(at), FAR, FAR).unwrap();
        assert_eq!(of(to), of(G), "at {at}");
    }
    assert_eq!(versions(engine, to), versions(engine, G));
}
