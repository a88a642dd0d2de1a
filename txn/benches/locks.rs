//! What the lock table costs, where it may hurt: alone, on a hot key, beside many who wait, among
//! many ranges, and over the pages of a long scan.
//!
//! One round is one transaction: it asks for its locks, has them or waits, and ends.
//!
//! Run it with `cargo bench -p txn --bench locks`; a name behind `--` picks benchmarks.

use criterion::Criterion;
use proto::keys::Span;
use proto::request::{Age, LockMode};
use proto::{Key, KeyRange, TxnId};
use std::hint::black_box;
use truetime::Timestamp;
use txn::server::locks::{Changes, LockTable};

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    points(&mut criterion);
    queues(&mut criterion);
    ranges(&mut criterion);
    criterion.final_summary();
}

/// A table with the numbers that its manager would count.
#[derive(Default)]
struct Bench {
    table: LockTable,
    asked: u64,
}

impl Bench {
    /// The transaction asks for one span; smaller numbers are older.
    fn lock(&mut self, n: u64, span: Span, mode: LockMode) -> Changes {
        self.asked += 1;
        let txn = TxnId { client: n, seq: 1 };
        let age = Age { start: Timestamp::from_micros(n), first: txn };
        let mut changes = Changes::default();
        self.table.request(self.asked, txn, age, vec![(span, mode)], NOW, &mut changes);
        changes
    }

    fn end(&mut self, n: u64) -> Changes {
        let mut changes = Changes::default();
        self.table.release(TxnId { client: n, seq: 1 }, NOW, &mut changes);
        changes
    }
}

const NOW: Timestamp = Timestamp::from_micros(1);

fn key(n: u64) -> Key {
    Key::copy_from_slice(&n.to_be_bytes())
}

fn range(start: u64, end: u64) -> Span {
    Span::Range(KeyRange { start: key(start), end: key(end) })
}

fn points(criterion: &mut Criterion) {
    let mut benches = criterion.benchmark_group("points");
    let mut bench = Bench::default();
    for n in 0..10_000 {
        bench.lock(n, Span::Key(key(2 * n)), LockMode::Exclusive);
    }
    let mut n = 10_000;
    benches.bench_function("alone among 10000 held", |bencher| {
        bencher.iter(|| {
            n += 1;
            bench.lock(n, Span::Key(key(2 * (n % 10_000) + 1)), LockMode::Exclusive);
            black_box(bench.end(n))
        });
    });
    let mut n = 10_000;
    benches.bench_function("shared with 64 readers", |bencher| {
        let mut bench = Bench::default();
        for n in 0..64 {
            bench.lock(n, Span::Key(key(0)), LockMode::Shared);
        }
        bencher.iter(|| {
            n += 1;
            bench.lock(n, Span::Key(key(0)), LockMode::Shared);
            black_box(bench.end(n))
        });
    });
    benches.finish();
}

fn queues(criterion: &mut Criterion) {
    let mut benches = criterion.benchmark_group("queues");
    for queue in [64, 1_000] {
        benches.bench_function(format!("hot key, {queue} wait"), |bencher| {
            let mut bench = Bench::default();
            for n in 0..=queue {
                bench.lock(n, Span::Key(key(0)), LockMode::Exclusive);
            }
            let mut oldest = 0;
            bencher.iter(|| {
                let changes = bench.end(oldest);
                assert_eq!(changes.granted.len(), 1, "one wake-up per release");
                oldest += 1;
                bench.lock(oldest + queue, Span::Key(key(0)), LockMode::Exclusive)
            });
        });
    }
    benches.bench_function("free key, 10000 wait elsewhere", |bencher| {
        let mut bench = Bench::default();
        for n in 0..10_000 {
            bench.lock(n, Span::Key(key(n)), LockMode::Exclusive);
        }
        for n in 0..10_000 {
            bench.lock(10_000 + n, Span::Key(key(n)), LockMode::Exclusive);
        }
        let mut n = 20_000;
        bencher.iter(|| {
            n += 1;
            bench.lock(n, Span::Key(key(n)), LockMode::Exclusive);
            black_box(bench.end(n))
        });
    });
    benches.finish();
}

fn ranges(criterion: &mut Criterion) {
    let mut benches = criterion.benchmark_group("ranges");
    let mut bench = Bench::default();
    for n in 0..10_000 {
        bench.lock(n, range(10 * n, 10 * n + 5), LockMode::Shared);
    }
    let mut n = 10_000;
    benches.bench_function("key among 10000 held", |bencher| {
        bencher.iter(|| {
            n += 1;
            bench.lock(n, Span::Key(key(10 * (n % 10_000) + 7)), LockMode::Exclusive);
            black_box(bench.end(n))
        });
    });
    benches.bench_function("range among 10000 held", |bencher| {
        bencher.iter(|| {
            n += 1;
            let start = 10 * (n % 10_000) + 6;
            bench.lock(n, range(start, start + 3), LockMode::Exclusive);
            black_box(bench.end(n))
        });
    });
    benches.bench_function("scan of 100 pages among 10000 held", |bencher| {
        bencher.iter(|| {
            n += 1;
            for page in 0..100 {
                bench.lock(n, range(200_000 + page, 300_000), LockMode::Shared);
            }
            black_box(bench.end(n))
        });
    });
    benches.finish();
}
