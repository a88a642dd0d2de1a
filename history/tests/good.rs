//! Nothing is found where nothing is wrong.

mod support;

use history::Checker;
use support::{SMALL, Shape, good, large};

fn assert_good(seed: u64, shape: Shape) {
    let ops = good(seed, shape);
    let mut checker = Checker::new(0);
    ops.iter().for_each(|op| checker.add(op).unwrap());
    let judgement = checker.judge();
    assert_eq!(judgement.counts().all, shape.transactions);
    if let Some(story) = judgement.stories().next() {
        panic!("seed {seed}: {story}\nof {:?}", judgement.anomalies());
    }
    assert_eq!(judgement.out_of_order(), 0, "seed {seed}");
}

#[test]
fn small_ones_of_many_seeds() {
    for seed in 0..2_000 {
        let keys = 1 + (seed % 7) as usize;
        let clients = 1 + (seed % 5) as u32;
        assert_good(seed, Shape { keys, clients, ..SMALL });
    }
}

#[test]
fn with_ends_that_nobody_knows() {
    for seed in 0..3_000 {
        let unknown = [0.02, 0.1, 0.3][seed as usize % 3];
        let keys = 1 + (seed % 7) as usize;
        assert_good(seed, Shape { keys, unknown, ..SMALL });
    }
}

#[test]
fn hundred_thousand_transactions() {
    for seed in 1..=3 {
        assert_good(seed, large(100_000));
    }
}
