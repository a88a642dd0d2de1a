//! The checker against a twin that compares everything with everything, on small histories into
//! which one fault was put: both must blame the same transactions.

mod support;

use history::{Cell, CellValue, Checker, Ending, Kind, Operation};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use std::collections::{BTreeMap, BTreeSet};
use support::{SMALL, Shape, good};
use truetime::Timestamp;

/// Who is at fault, as the rules say it, in quadratic time and more.
struct Twin<'h> {
    ops: &'h [Operation],
}

impl Twin<'_> {
    fn culprits(&self) -> BTreeSet<usize> {
        (0..self.ops.len()).filter(|place| self.is_at_fault(*place)).collect()
    }

    fn is_at_fault(&self, place: usize) -> bool {
        let op = &self.ops[place];
        let Some(at) = op.at() else { return false };
        op.reads.keys().any(|key| !self.fits(op, at, key))
            || self.is_late(op, at)
            || self.ties(place, at)
            || op.writes.keys().any(|key| self.has_wrong_list(op, at, key))
    }

    fn committed(&self) -> impl Iterator<Item = (&Operation, Timestamp)> {
        self.ops.iter().filter_map(|op| Some((op, op.at()?)))
    }

    fn writers(&self, key: &[u8]) -> impl Iterator<Item = (&Operation, Timestamp)> {
        self.committed().filter(move |(op, _)| op.writes.contains_key(key))
    }

    /// The version that a read saw; `Err`: none.
    fn seen(&self, op: &Operation, key: &[u8]) -> Result<Option<(&Operation, Timestamp)>, ()> {
        let Some(cell) = &op.reads[key] else { return Ok(None) };
        let writer = self.writers(key).find(|(w, _)| w.txn == cell.writer);
        match writer {
            Some((w, at)) if w.writes[key] == *cell => Ok(Some((w, at))),
            _ => Err(()),
        }
    }

    fn fits(&self, op: &Operation, at: Timestamp, key: &[u8]) -> bool {
        let Ok(seen) = self.seen(op, key) else { return false };
        let below = |t: Timestamp| if op.read_only() { t <= at } else { t < at };
        let model = self.writers(key).map(|(_, t)| t).filter(|t| below(*t)).max();
        let seen_at = seen.map(|(_, t)| t);
        let visible = self
            .committed()
            .filter(|(earlier, _)| self.binds(earlier, op))
            .flat_map(|(earlier, t)| self.shows(earlier, t, Some(key)))
            .max();
        seen_at == model
            && visible.is_none_or(|visible| seen_at.is_some_and(|seen_at| seen_at >= visible))
            && seen.is_none_or(|(writer, _)| writer.began_ns <= op.ended_ns)
    }

    /// Whether what one has shown must be seen by the other.
    fn binds(&self, earlier: &Operation, later: &Operation) -> bool {
        earlier.ended_ns < later.began_ns
            && match later.kind {
                Kind::ReadWrite | Kind::Strong => true,
                Kind::Session => earlier.client == later.client,
                Kind::Stale => false,
            }
    }

    /// The timestamps of what an ended transaction proves to be visible, of a key or of all.
    fn shows(&self, op: &Operation, at: Timestamp, key: Option<&[u8]>) -> Vec<Timestamp> {
        let of_key = |k: &[u8]| key.is_none_or(|key| key == k);
        let written = op.writes.keys().filter(|k| of_key(k)).map(|_| at);
        let read = op.reads.keys().filter(|k| of_key(k));
        written.chain(read.filter_map(|k| Some(self.seen(op, k).ok()??.1))).collect()
    }

    fn is_late(&self, op: &Operation, at: Timestamp) -> bool {
        matches!(op.kind, Kind::ReadWrite | Kind::Strong)
            && self.committed().filter(|(earlier, _)| self.binds(earlier, op)).any(
                |(earlier, t)| {
                    let highest = self.shows(earlier, t, None).into_iter().max();
                    highest.is_some_and(|h| if op.read_only() { at < h } else { at <= h })
                },
            )
    }

    fn ties(&self, place: usize, at: Timestamp) -> bool {
        let op = &self.ops[place];
        let same = |other: &Operation| {
            other.at() == Some(at) && op.writes.keys().any(|key| other.writes.contains_key(key))
        };
        self.ops[..place].iter().any(same)
    }

    fn has_wrong_list(&self, op: &Operation, at: Timestamp, key: &[u8]) -> bool {
        let Some(list) = op.writes[key].as_list() else { return false };
        let before = self.writers(key).filter(|(_, t)| *t < at).max_by_key(|(_, t)| *t);
        let mut expected = match before {
            Some((before, _)) => before.writes[key].as_list().unwrap_or_default().to_vec(),
            None => Vec::new(),
        };
        expected.push(op.txn);
        list != expected
    }
}

fn judged(ops: &[Operation]) -> BTreeMap<usize, history::Anomaly> {
    let mut checker = Checker::new(0);
    ops.iter().for_each(|op| checker.add(op).unwrap());
    checker.judge().culprits().collect()
}

/// Puts one fault into a history; what was done.
fn spoil(rng: &mut SmallRng, ops: &mut [Operation]) -> String {
    let place = rng.random_range(0..ops.len());
    let micros = |rng: &mut SmallRng| rng.random_range(0..120_000_u64);
    let other = ops[rng.random_range(0..ops.len())].clone();
    let op = &mut ops[place];
    let txn = op.txn;
    match rng.random_range(0..8) {
        0 => {
            if let Ending::At(at) = &mut op.ending {
                *at = Timestamp::from_micros(micros(rng));
            }
            format!("{txn} has another timestamp")
        }
        1 => {
            op.ending = Ending::Nothing;
            format!("{txn} was rolled back")
        }
        2 => {
            if op.ending == Ending::Nothing {
                op.ending = Ending::At(Timestamp::from_micros(micros(rng)));
            }
            format!("{txn} was not rolled back")
        }
        3 => {
            let length = op.ended_ns - op.began_ns;
            op.began_ns = micros(rng) * 1_000;
            op.ended_ns = op.began_ns + length;
            format!("{txn} happened at another time")
        }
        4 | 5 => {
            for (key, read) in &mut op.reads {
                if let Some(cell) = other.writes.get(key).filter(|cell| cell.writer != txn) {
                    *read = Some(cell.clone());
                } else if rng.random_bool(0.2) {
                    *read = None;
                }
            }
            format!("{txn} read something else")
        }
        6 => {
            for cell in op.writes.values_mut() {
                match &mut cell.value {
                    CellValue::Number(number) => *number += 1,
                    CellValue::List(list) => list.reverse(),
                }
            }
            format!("{txn} wrote something else")
        }
        _ => {
            if let (Ending::At(at), Ending::At(_)) = (&mut op.ending, other.ending) {
                *at = other.at().unwrap();
            }
            format!("{txn} has the timestamp of {}", other.txn)
        }
    }
}

#[test]
fn both_blame_the_same() {
    let (mut faulty, mut names) = (0, BTreeMap::new());
    for seed in 0..6_000 {
        let mut rng = SmallRng::seed_from_u64(seed);
        let shape = Shape {
            transactions: rng.random_range(2..40),
            clients: rng.random_range(1..5),
            keys: rng.random_range(1..7),
            ..SMALL
        };
        let mut ops = good(seed, shape);
        let what: Vec<String> =
            (0..rng.random_range(1..4)).map(|_| spoil(&mut rng, &mut ops)).collect();
        let (twin, found) = (Twin { ops: &ops }.culprits(), judged(&ops));
        let blamed: BTreeSet<usize> = found.keys().copied().collect();
        assert_eq!(blamed, twin, "seed {seed}: {what:?}: {}", told(&ops));
        faulty += usize::from(!twin.is_empty());
        found.into_values().for_each(|anomaly| *names.entry(anomaly).or_insert(0) += 1);
    }
    println!("{faulty} of 6000 had faults: {names:?}");
    assert!(faulty > 2_000, "the faults are faults: {faulty}");
    assert_eq!(names.len(), history::Anomaly::ALL.len(), "{names:?}");
}

fn told(ops: &[Operation]) -> String {
    let mut checker = Checker::new(0);
    ops.iter().for_each(|op| checker.add(op).unwrap());
    let stories: Vec<String> = checker.judge().stories().map(|story| story.to_string()).collect();
    let mut all = stories.join("\n");
    for (place, op) in ops.iter().enumerate() {
        all += &format!("\n{place}: {op:?}");
    }
    all
}

/// The twin itself, on what anybody sees.
#[test]
fn the_twin_knows_a_lost_update() {
    let txn = |seq| proto::TxnId { client: 1, seq };
    let op = |seq, at, read: Option<Cell>| Operation {
        client: seq as u32,
        txn: txn(seq),
        kind: Kind::ReadWrite,
        began_ns: 0,
        ended_ns: 100_000,
        ending: Ending::At(Timestamp::from_micros(at)),
        reads: [("k".into(), read)].into(),
        writes: [("k".into(), Cell::number(txn(seq), 1))].into(),
    };
    let good = [op(1, 1, None), op(2, 2, Some(Cell::number(txn(1), 1)))];
    assert!(Twin { ops: &good }.culprits().is_empty());
    let bad = [op(1, 1, None), op(2, 2, None)];
    assert_eq!(Twin { ops: &bad }.culprits(), [1].into());
}
