//! Differences planted on disks in memory, and one in the folder of a universe.

use super::*;
use bytes::Bytes;
use proto::{Ballot, Key, Slot, codec};
use spanserver::meta::{self, Applied};
use spanserver::storage::{Durability, Memory, Rocks, WriteOp};
use truetime::Timestamp;

const G: GroupId = GroupId(3);
const NODES: [NodeId; 3] = [NodeId(1), NodeId(2), NodeId(3)];

fn version(key: &'static str, at: u64, value: &'static str) -> WriteOp {
    WriteOp::PutVersion {
        group: G,
        key: Key::from_static(key.as_bytes()),
        at: Timestamp::from_micros(at),
        value: (!value.is_empty()).then(|| Bytes::from_static(value.as_bytes())),
    }
}

/// Writes an entry of the log and what applying it changes.
fn apply(disk: &Memory, slot: u64, key: &'static str, value: &'static str) {
    let ballot = Ballot { round: 1, node: NodeId(1) };
    let entry = paxos::Entry {
        ballot,
        payload: paxos::Payload::Command(Bytes::from_static(key.as_bytes())),
    };
    let mut ops = Vec::new();
    meta::log_ops(G, paxos::Write::Entry { slot: Slot(slot), entry }, &mut ops);
    ops.push(version(key, slot * 10, value));
    let position = paxos::Position { ballot, slot: Slot(slot) };
    let applied = Applied { position, at: Timestamp::from_micros(slot * 10) };
    meta::apply_ops(G, applied, Vec::new(), &mut ops);
    disk.write(&ops, Durability::Synced).unwrap();
}

/// Three replicas that have applied four slots; the last one only so many.
fn disks(slots_of_last: u64) -> [Memory; 3] {
    let disks = [Memory::new(), Memory::new(), Memory::new()];
    for (n, disk) in disks.iter().enumerate() {
        meta::found(disk, [G], &NODES).unwrap();
        let slots = if n == 2 { slots_of_last } else { 4 };
        for (slot, key, value) in [(1, "a", "1"), (2, "b", "2"), (3, "a", ""), (4, "b", "4")] {
            if slot <= slots {
                apply(disk, slot, key, value);
            }
        }
    }
    disks
}

fn checked(disks: &[Memory; 3]) -> (String, Option<String>) {
    let mut out = Vec::new();
    let nodes: Vec<(NodeId, &dyn Engine)> =
        NODES.into_iter().zip(disks.iter().map(|disk| disk as &dyn Engine)).collect();
    let difference = check(&nodes, &mut out).unwrap();
    (String::from_utf8(out).unwrap(), difference)
}

#[track_caller]
fn differs(disks: &[Memory; 3], words: &[&str]) {
    let (table, difference) = checked(disks);
    let difference = difference.unwrap_or_else(|| panic!("no difference:\n{table}"));
    for word in words {
        assert!(difference.contains(word), "no '{word}' in: {difference}");
    }
    assert!(table.contains("differs"), "{table}");
}

#[test]
fn equal_and_lagging_replicas_agree() {
    for slots in 0..=4 {
        let disks = disks(slots);
        let (table, difference) = checked(&disks);
        assert_eq!(difference, None, "{slots} slots:\n{table}");
        assert!(table.contains(if slots == 4 { "agrees with n1" } else { "behind n1" }), "{table}");
    }
}

#[test]
fn collected_history_is_no_difference() {
    let disks = disks(4);
    disks[1].keep_history_from(Timestamp::from_micros(35)).unwrap();
    assert_eq!(checked(&disks).1, None);
}

#[test]
fn a_version_too_much_is_named() {
    let disks = disks(4);
    disks[1].write(&[version("b", 15, "planted")], Durability::Synced).unwrap();
    differs(&disks, &["g3", "n2", "n1", "slot #4", "key 'b'", "7 bytes"]);
}

#[test]
fn another_value_below_the_smaller_slot_is_named() {
    let disks = disks(3);
    disks[2].write(&[version("b", 20, "other")], Durability::Synced).unwrap();
    differs(&disks, &["g3", "n3 at slot #3", "n1 at slot #4", "key 'b'"]);
}

#[test]
fn another_log_entry_is_named() {
    let disks = disks(3);
    let entry = paxos::Entry {
        ballot: Ballot { round: 1, node: NodeId(2) },
        payload: paxos::Payload::Command(Bytes::new()),
    };
    let bytes = codec::encode(&entry);
    let planted = WriteOp::PutLog { group: G, slot: Slot(2), bytes };
    disks[2].write(&[planted], Durability::Synced).unwrap();
    differs(&disks, &["g3", "log entry of slot #2"]);
}

#[test]
fn a_difference_in_a_folder_is_found() {
    let folder = tempfile::tempdir().unwrap();
    let command = || Command::Replicas(Arguments { data: vec![folder.path().to_owned()] });
    assert!(matches!(run(command()), Err(Exit::Failed(words)) if words.contains("no universe")));
    let work = async {
        let universe = client::Universe::builder().replicas(3).open(folder.path()).await.unwrap();
        assert!(matches!(run(command()), Err(Exit::Failed(words)) if words.contains("is open")));
        universe.close();
    };
    tokio::runtime::Runtime::new().unwrap().block_on(work);
    run(command()).unwrap();

    let engine = Rocks::open(&folder.path().join("n2")).unwrap();
    let planted = WriteOp::PutVersion {
        group: GroupId(1),
        key: Key::from_static(b"planted"),
        // Below whatever the replicas have applied.
        at: Timestamp::MIN,
        value: Some(Bytes::from_static(b"planted")),
    };
    engine.write(&[planted], Durability::Synced).unwrap();
    drop(engine);
    assert!(matches!(run(command()), Err(Exit::Failed(words)) if words.contains("key 'planted'")));
}

#[test]
fn folders_of_servers_are_compared_if_they_belong_together() {
    let folder = tempfile::tempdir().unwrap();
    let server = |node: u32, cluster: &str, name: &str| {
        let path = folder.path().join(name);
        std::fs::create_dir_all(path.join("db")).unwrap();
        let identity = format!("node = {node}\n[founding]\ncluster = \"{cluster}\"\n");
        std::fs::write(path.join("node.toml"), identity).unwrap();
        let engine = Rocks::open(&path.join("db")).unwrap();
        meta::found(&engine, [G], &NODES).unwrap();
        path
    };
    let replicas = |data: &[&PathBuf]| {
        let data = data.iter().map(|folder| folder.to_path_buf()).collect();
        run(Command::Replicas(Arguments { data }))
    };
    let fails = |data: &[&PathBuf], words: &str| match replicas(data) {
        Err(Exit::Failed(text)) => assert!(text.contains(words), "{text}"),
        other => panic!("{other:?}"),
    };
    let [n1, n2] = [server(1, "u", "n1"), server(2, "u", "n2")];
    replicas(&[&n1, &n2]).unwrap();
    fails(&[&n1, &server(1, "u", "copy")], "two folders are of n1");
    fails(&[&n1, &server(3, "v", "n3")], "is of the universe v");

    let engine = Rocks::open(&n2.join("db")).unwrap();
    engine.write(&[version("b", 0, "planted")], Durability::Synced).unwrap();
    drop(engine);
    fails(&[&n1, &n2], "key 'b'");
}
