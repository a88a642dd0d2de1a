//! One made-up history for each anomaly, in `tests/histories/`: found and named right, alone and
//! hidden among 100,000 good transactions.

mod support;

use history::file::Lines;
use history::{Anomaly, Checker, Ending, Judgement, Operation};
use proto::TxnId;
use std::fs;
use std::io::BufReader;
use std::path::PathBuf;
use support::{good, large};
use truetime::Timestamp;

type Expected = (&'static str, Anomaly, &'static [&'static str], &'static [&'static str]);

/// The file, its anomaly, who is at fault, and the actors of the first story.
const EXPECTED: &[Expected] = &[
    ("lost-update", Anomaly::LostUpdate, &["t2.1"], &["t1.1", "t2.1"]),
    ("lost-update-append", Anomaly::LostUpdate, &["t3.1"], &["t2.1", "t3.1"]),
    ("lost-update-of-an-unknown", Anomaly::LostUpdate, &["t2.1"], &["t1.1", "t2.1"]),
    ("write-skew", Anomaly::WriteSkew, &["t2.1"], &["t1.1", "t2.1"]),
    ("write-skew-of-three", Anomaly::WriteSkew, &["t2.1", "t3.1"], &["t1.1", "t2.1", "t3.1"]),
    ("stale-read", Anomaly::StaleRead, &["t3.1"], &["t1.1", "t3.1"]),
    ("stale-read-of-a-reader", Anomaly::StaleRead, &["t3.1"], &["t1.1", "t3.1", "t2.1"]),
    ("stale-read-in-a-session", Anomaly::StaleRead, &["t1.2"], &["t1.1", "t1.2"]),
    ("causal-reverse", Anomaly::CausalReverse, &["t3.1"], &["t1.1", "t2.1", "t3.1"]),
    ("causal-reverse-of-timestamps", Anomaly::CausalReverse, &["t2.1"], &["t1.1", "t2.1", "t3.1"]),
    ("long-fork", Anomaly::LongFork, &["t4.1"], &["t1.1", "t2.1", "t4.1", "t3.1"]),
    ("dirty-read", Anomaly::DirtyRead, &["t2.1"], &["t1.1", "t2.1"]),
    ("dirty-read-of-a-draft", Anomaly::DirtyRead, &["t2.1"], &["t1.1", "t2.1"]),
    ("dirty-read-of-nobody", Anomaly::DirtyRead, &["t2.1"], &["t2.1"]),
    ("non-repeatable-snapshot", Anomaly::NonRepeatableSnapshot, &["t2.1"], &["t1.1", "t2.1"]),
    (
        "non-repeatable-snapshot-asked-again",
        Anomaly::NonRepeatableSnapshot,
        &["t2.1"],
        &["t1.1", "t2.1", "t2.2"],
    ),
    ("lost-write", Anomaly::LostWrite, &["t2.1", "t3.1"], &["t1.1", "t2.1"]),
    ("wrong-order-of-timestamps", Anomaly::WrongOrder, &["t2.1"], &["t1.1", "t2.1"]),
    ("wrong-order-of-timestamps-future", Anomaly::WrongOrder, &["t2.1"], &["t1.1", "t2.1"]),
    ("two-writes-at-one-timestamp", Anomaly::TimestampTie, &["t2.1"], &["t1.1", "t2.1"]),
    ("list-out-of-order", Anomaly::ListOutOfOrder, &["t3.1"], &["t2.1", "t3.1"]),
];

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/histories")
}

fn read(name: &str) -> Vec<Operation> {
    let file = fs::File::open(folder().join(name).with_extension("jsonl")).expect(name);
    let lines = Lines::open(BufReader::new(file)).expect(name);
    lines.collect::<Result<_, _>>().expect(name)
}

fn judge(ops: &[Operation]) -> Judgement {
    let mut checker = Checker::new(0);
    ops.iter().for_each(|op| checker.add(op).unwrap());
    checker.judge()
}

/// Judges, and compares with what is expected; `name` makes the ids of the file those in `ops`.
fn assert_found(ops: &[Operation], expected: &Expected, name: impl Fn(&str) -> TxnId) {
    let (file, anomaly, culprits, actors) = *expected;
    let judgement = judge(ops);
    let stories: Vec<String> = judgement.stories().map(|story| story.to_string()).collect();
    let found: Vec<(TxnId, Anomaly)> =
        judgement.culprits().map(|(place, anomaly)| (ops[place].txn, anomaly)).collect();
    let expected: Vec<(TxnId, Anomaly)> = culprits.iter().map(|txn| (name(txn), anomaly)).collect();
    assert_eq!(found, expected, "{file}: {stories:#?}");
    let first = judgement.stories().next().expect("there is one");
    let told: Vec<TxnId> = first.actors.iter().filter_map(|actor| actor.txn).collect();
    // Three in a circle may be told from any of them on.
    let (mut told, mut actors): (_, Vec<TxnId>) =
        (told, actors.iter().map(|txn| name(txn)).collect());
    if file == "write-skew-of-three" {
        told.sort();
        actors.sort();
    }
    assert_eq!(told, actors, "{file}: {first}");
}

#[test]
fn every_history_has_its_anomaly() {
    for expected in EXPECTED {
        let name = |text: &str| history::file::transaction(text).unwrap();
        assert_found(&read(expected.0), expected, name);
    }
}

#[test]
fn every_anomaly_and_every_file_is_in_the_table() {
    for anomaly in Anomaly::ALL {
        assert!(EXPECTED.iter().any(|(_, expected, ..)| *expected == anomaly), "{anomaly}");
    }
    let mut names: Vec<&str> = EXPECTED.iter().map(|(name, ..)| *name).collect();
    names.push("good");
    names.sort_unstable();
    let mut files: Vec<String> = fs::read_dir(folder())
        .unwrap()
        .map(|entry| entry.unwrap().path().file_stem().unwrap().to_string_lossy().into_owned())
        .collect();
    files.sort_unstable();
    assert_eq!(files, names);
}

#[test]
fn the_good_one_has_none() {
    let judgement = judge(&read("good"));
    assert_eq!(judgement.stories().map(|story| story.to_string()).next(), None);
    let counts = judgement.counts();
    assert_eq!((counts.unknown, counts.unknown_seen, counts.aborted), (2, 1, 1));
}

/// Room for a small history in the midst of a large one.
const GAP_NS: u64 = 100_000_000;

#[test]
fn hidden_among_hundred_thousand() {
    let haystack = good(7, large(100_000));
    let from_ns = haystack[haystack.len() / 2].began_ns / 1_000_000 * 1_000_000;
    // Everything later happens a little later: the order of all remains.
    let late = |ns: u64| if ns >= from_ns && ns != u64::MAX { ns + GAP_NS } else { ns };
    let mut haystack: Vec<Operation> = haystack;
    for op in &mut haystack {
        op.began_ns = late(op.began_ns);
        op.ended_ns = late(op.ended_ns);
        if let Ending::At(at) = &mut op.ending {
            *at = Timestamp::from_micros(late(at.micros() * 1_000) / 1_000);
        }
    }
    assert_eq!(judge(&haystack).culprits().count(), 0, "it was good before");
    let renamed = |txn: TxnId| TxnId { client: txn.client + 0x1000, ..txn };
    for expected in EXPECTED {
        let mut ops = haystack.clone();
        for needle in read(expected.0) {
            ops.push(hide(needle, from_ns, renamed));
        }
        ops.sort_by_key(|op| op.began_ns);
        let name = |text: &str| renamed(history::file::transaction(text).unwrap());
        assert_found(&ops, expected, name);
    }
}

/// The same with other names, other keys, and some time later.
fn hide(mut op: Operation, from_ns: u64, renamed: impl Fn(TxnId) -> TxnId) -> Operation {
    let cell = |mut cell: history::Cell| {
        cell.writer = renamed(cell.writer);
        if let history::CellValue::List(list) = &mut cell.value {
            list.iter_mut().for_each(|txn| *txn = renamed(*txn));
        }
        cell
    };
    let key = |key: bytes::Bytes| bytes::Bytes::from([b"hidden ", &key[..]].concat());
    op.txn = renamed(op.txn);
    op.client += 1_000;
    op.began_ns += from_ns;
    op.ended_ns = op.ended_ns.saturating_add(from_ns);
    if let Ending::At(at) = &mut op.ending {
        *at = at.plus_micros(from_ns / 1_000);
    }
    op.reads = op.reads.into_iter().map(|(k, read)| (key(k), read.map(cell))).collect();
    op.writes = op.writes.into_iter().map(|(k, written)| (key(k), cell(written))).collect();
    op
}
