//! Pairs of keys in two groups, which together may not fall below zero: each transaction reads both
//! and takes from one, if both together allow it.

use super::{Plan, Worker, Workload, keys, number};
use crate::history::{CellValue, Operation, Violation};
use crate::options::Options;
use futures::FutureExt;
use futures::future::BoxFuture;
use proto::Key;
use proto::request::LockMode;
use rand::Rng;
use txn::client::TimestampBound;

/// What every key holds at first.
const OPENING: i64 = 50;

/// See the [module](self).
pub struct WriteSkew {
    /// Two and two belong together.
    keys: Vec<Key>,
}

impl WriteSkew {
    /// The pairs of a run, each in two groups.
    pub fn new(options: &Options) -> WriteSkew {
        WriteSkew { keys: keys(options, options.keys.div_ceil(2) * 2, "pair") }
    }

    /// Takes from one of a pair what both allow; puts something in when there is nothing to take.
    fn withdraw(&self, worker: &mut Worker) -> Plan {
        let pair = 2 * worker.rng.random_range(0..self.keys.len() / 2);
        let mut pair = self.keys[pair..pair + 2].to_vec();
        if worker.rng.random_bool(0.5) {
            pair.swap(0, 1);
        }
        let amount = worker.rng.random_range(30..=100);
        let mode = match worker.rng.random_bool(0.8) {
            true => LockMode::Shared,
            false => LockMode::Exclusive,
        };
        let one_by_one = worker.rng.random_bool(0.5);
        let (this, that) = (pair[0].clone(), pair[1].clone());
        let plan = Plan::new(pair, mode, move |_, read| {
            let (mine, other) = (number(read[&this].as_ref()), number(read[&that].as_ref()));
            let after = if mine + other >= amount { mine - amount } else { mine + amount };
            vec![(this.clone(), CellValue::Number(after))]
        });
        Plan { one_by_one, ..plan }
    }
}

impl Workload for WriteSkew {
    fn opening(&self) -> Vec<(Key, CellValue)> {
        self.keys.iter().map(|key| (key.clone(), CellValue::Number(OPENING))).collect()
    }

    fn turn<'a>(&'a self, worker: &'a mut Worker) -> BoxFuture<'a, ()> {
        async move {
            match worker.rng.random_range(0..10) {
                0 => worker.look_back(&self.keys).await,
                1 => drop(worker.snapshot(TimestampBound::Strong, &self.keys).await),
                2 => {
                    let pair = 2 * worker.rng.random_range(0..self.keys.len() / 2);
                    let pair = self.keys[pair..pair + 2].to_vec();
                    worker.transact(&Plan::look(pair)).await;
                }
                _ => {
                    let plan = self.withdraw(worker);
                    worker.transact(&plan).await;
                }
            }
        }
        .boxed()
    }

    fn judge(&self, history: &[Operation]) -> Result<(), Violation> {
        never_below_zero(history, &self.keys)
    }
}

/// Whether nobody ever saw a pair that adds up to less than nothing.
fn never_below_zero(history: &[Operation], keys: &[Key]) -> Result<(), Violation> {
    for op in history.iter().filter(|op| op.at().is_some()) {
        for pair in keys.chunks(2) {
            let read = |key: &Key| op.reads.get(key).map(|cell| number(cell.as_ref()));
            let sum: Option<i64> = pair.iter().map(read).sum();
            if let Some(sum) = sum.filter(|sum| *sum < 0) {
                let what = format!("client {} saw {pair:?} add up to {sum}: {op:?}", op.client);
                return Err(Violation::new("write_skew", "X1/X3", what));
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkers::external_consistency::tests::op;
    use crate::history::Cell;

    #[test]
    fn catches_a_pair_below_zero() {
        let keys = [Key::from_static(b"x"), Key::from_static(b"y")];
        let read = |x, y| {
            let mut read = op(1, 0, 1, 5, None);
            let cells = [x, y].map(|n| Some(Cell::number(read.txn, n)));
            read.reads = keys.iter().cloned().zip(cells).collect();
            read
        };
        assert!(never_below_zero(&[read(-40, 40), read(5, 0)], &keys).is_ok());
        let seen = never_below_zero(&[read(-40, 39)], &keys);
        assert_eq!(seen.unwrap_err().checker, "write_skew");
    }
}
