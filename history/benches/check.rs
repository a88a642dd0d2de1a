//! What judging a history costs: 100,000 transactions of 32 clients on 1,000 keys, from memory and
//! from the text of a file.
//!
//! Run it with `cargo bench -p history --bench check`; a name behind `--` picks benchmarks.

#[path = "../tests/support/mod.rs"]
mod support;

use criterion::{Criterion, Throughput};
use history::file::{Header, Lines, write_header, write_operation};
use history::{Checker, Judgement, Operation};
use std::borrow::Borrow;
use std::hint::black_box;

const TRANSACTIONS: usize = 100_000;

fn main() {
    let mut criterion = Criterion::default().configure_from_args().sample_size(10);
    let ops = support::good(1, support::large(TRANSACTIONS));
    let mut text = Vec::new();
    write_header(&mut text, &Header::default()).expect("memory takes it");
    ops.iter().for_each(|op| write_operation(&mut text, op).expect("memory takes it"));

    let mut benches = criterion.benchmark_group("100000 transactions");
    benches.throughput(Throughput::Elements(TRANSACTIONS as u64));
    benches.bench_function("judged", |bencher| {
        bencher.iter(|| black_box(judge(ops.iter())));
    });
    benches.bench_function("read", |bencher| {
        bencher
            .iter(|| Lines::open(&text[..]).expect("it is a history").map(Result::unwrap).count());
    });
    benches.bench_function("read and judged", |bencher| {
        let lines = || Lines::open(&text[..]).expect("it is a history").map(Result::unwrap);
        bencher.iter(|| black_box(judge(lines())));
    });
    benches.finish();
    criterion.final_summary();
}

fn judge(ops: impl Iterator<Item = impl Borrow<Operation>>) -> Judgement {
    let mut checker = Checker::new(0);
    ops.for_each(|op| checker.add(op.borrow()).expect("every transaction is there once"));
    let judgement = checker.judge();
    assert_eq!(judgement.culprits().count(), 0, "it is a good one");
    judgement
}
