//! Good histories, made up: a store that does one transaction after another in the order of their
//! timestamps, and clients whose transactions overlap in real time around those instants.

#![allow(dead_code)] // each test, the bench and the example use a part

use bytes::Bytes;
use history::{Cell, Ending, Kind, Operation};
use proto::TxnId;
use rand::rngs::SmallRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use std::collections::{BTreeMap, BTreeSet};
use truetime::Timestamp;

/// What a history is like.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    /// How many transactions.
    pub transactions: usize,
    /// Who do one after the other.
    pub clients: u32,
    /// Every third one holds a list.
    pub keys: usize,
    /// How many appends a list takes before it is left alone.
    pub list_length_max: usize,
    /// The share of read-write transactions that are rolled back.
    pub aborted: f64,
    /// The share of read-write transactions of which nobody knows; half of them have committed.
    pub unknown: f64,
}

/// Few clients on few keys.
pub const SMALL: Shape = Shape {
    transactions: 40,
    clients: 4,
    keys: 5,
    list_length_max: 20,
    aborted: 0.1,
    unknown: 0.0,
};

/// As many transactions as there are to be, on a thousand keys.
pub fn large(transactions: usize) -> Shape {
    Shape { transactions, clients: 32, keys: 1_000, aborted: 0.05, unknown: 0.001, ..SMALL }
}

/// A history without fault, in the order of begins.
pub fn good(seed: u64, shape: Shape) -> Vec<Operation> {
    let mut rng = SmallRng::seed_from_u64(seed);
    let mut ops = skeletons(&mut rng, shape);
    fill(&mut rng, shape, &mut ops);
    let mut ops: Vec<Operation> = ops.into_iter().map(|(_, op)| op).collect();
    run_ahead(&mut rng, &mut ops);
    ops.sort_by_key(|op| op.began_ns);
    ops
}

/// Who does what when, and at which instant it takes effect, in microseconds.
fn skeletons(rng: &mut SmallRng, shape: Shape) -> Vec<(u64, Operation)> {
    let mut free_ns = vec![1_000_000_u64; shape.clients as usize];
    let mut floor_us = vec![0_u64; shape.clients as usize];
    let mut taken = BTreeSet::new();
    let mut ops = Vec::with_capacity(shape.transactions);
    for number in 0..shape.transactions {
        let client = rng.random_range(0..shape.clients as usize);
        let began_ns = free_ns[client] + rng.random_range(0..5_000_000);
        let mut ended_ns = began_ns + rng.random_range(100_000..20_000_000);
        free_ns[client] = ended_ns + 1;
        let kind = match rng.random_range(0..10) {
            0..6 => Kind::ReadWrite,
            6..8 => Kind::Strong,
            8 => Kind::Stale,
            _ => Kind::Session,
        };
        let mut ending = Ending::Nothing;
        let mut late_us = 0;
        let aborted = kind == Kind::ReadWrite && rng.random_bool(shape.aborted);
        if kind == Kind::ReadWrite && !aborted && rng.random_bool(shape.unknown) {
            (ending, ended_ns) = (Ending::Unknown, u64::MAX);
            late_us = rng.random_range(0..20_000);
        }
        let now_us = began_ns / 1_000 + 1..=free_ns[client].saturating_sub(1_001) / 1_000 + late_us;
        let mut at_us = loop {
            let at_us = rng.random_range(now_us.clone());
            if kind != Kind::ReadWrite || taken.insert(at_us) {
                break at_us;
            }
        };
        match kind {
            Kind::Stale => at_us = at_us.saturating_sub(rng.random_range(0..50_000)),
            Kind::Session => at_us = rng.random_range(floor_us[client].min(at_us)..=at_us),
            Kind::ReadWrite | Kind::Strong => {}
        }
        if !aborted && ending == Ending::Nothing {
            ending = Ending::At(Timestamp::from_micros(at_us));
            floor_us[client] = floor_us[client].max(at_us);
        }
        let txn = TxnId { client: client as u64 + 1, seq: number as u64 + 1 };
        let op = Operation {
            client: client as u32,
            txn,
            kind,
            began_ns,
            ended_ns,
            ending,
            writes: BTreeMap::new(),
            reads: BTreeMap::new(),
        };
        ops.push((at_us, op));
    }
    ops
}

/// Does them, one after the other.
fn fill(rng: &mut SmallRng, shape: Shape, ops: &mut [(u64, Operation)]) {
    let keys: Vec<Bytes> = (0..shape.keys).map(|n| format!("k{n}").into()).collect();
    ops.sort_by_key(|(at_us, op)| (*at_us, op.kind != Kind::ReadWrite));
    let mut store: BTreeMap<Bytes, Cell> = BTreeMap::new();
    for (_, op) in ops {
        let touched = rng.random_range(1..=4.min(keys.len()));
        let locked_read = op.kind == Kind::ReadWrite && rng.random_bool(0.1);
        for place in keys.choose_multiple(rng, touched).cloned().collect::<Vec<_>>() {
            let before = store.get(&place);
            let writes = op.kind == Kind::ReadWrite && !locked_read && rng.random_bool(0.6);
            let is_list = place.len() > 1 && (place[place.len() - 1] - b'0').is_multiple_of(3);
            let blind = writes && !is_list && rng.random_bool(0.2);
            if !blind {
                op.reads.insert(place.clone(), before.cloned());
            }
            let full =
                before.and_then(Cell::as_list).map_or(0, <[_]>::len) >= shape.list_length_max;
            if writes && is_list && !full {
                op.writes.insert(place, Cell::append(op.txn, before));
            } else if writes && !is_list {
                op.writes.insert(place, Cell::number(op.txn, rng.random_range(-100..100)));
            }
        }
        let happens = match op.ending {
            Ending::At(_) => true,
            Ending::Unknown => rng.random_bool(0.5),
            Ending::Nothing => false,
        };
        if happens {
            store.extend(op.writes.clone());
        }
    }
}

/// A read may have a timestamp ahead of absolute time, as long as nobody writes below it.
fn run_ahead(rng: &mut SmallRng, ops: &mut [Operation]) {
    let mut versions: BTreeMap<&Bytes, Vec<u64>> = BTreeMap::new();
    let owned: Vec<(u64, Operation)> = ops
        .iter()
        .filter(|op| !op.writes.is_empty() && op.ending != Ending::Nothing)
        .map(|op| (op.at().map_or(0, Timestamp::micros), op.clone()))
        .collect();
    for (at_us, op) in &owned {
        op.writes.keys().for_each(|key| versions.entry(key).or_default().push(*at_us));
    }
    versions.values_mut().for_each(|of_key| of_key.sort_unstable());
    for op in ops.iter_mut().filter(|op| op.writes.is_empty() && op.kind != Kind::Stale) {
        let Ending::At(at) = op.ending else { continue };
        let next = op.reads.keys().filter_map(|key| {
            let of_key = versions.get(key)?;
            // Of an unknown one, the generator forgets the instant: stay where we are.
            if of_key[0] == 0 {
                return Some(at.micros() + 1);
            }
            of_key.get(of_key.partition_point(|time| *time <= at.micros())).copied()
        });
        let below = next.min().unwrap_or(u64::MAX).min(at.micros() + 5_000);
        if below > at.micros() + 1 && rng.random_bool(0.5) {
            let at_us = rng.random_range(at.micros()..below);
            op.ending = Ending::At(Timestamp::from_micros(at_us));
        }
    }
}
