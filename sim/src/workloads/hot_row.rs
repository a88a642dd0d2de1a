//! Everyone increments one row; some look at it under a lock, and then without. No increment is
//! lost, and nobody sees the number fall.

use super::{Plan, Worker, Workload, keys, number};
use crate::history::{Cell, CellValue, Kind, Operation, Violation};
use crate::options::Options;
use futures::FutureExt;
use futures::future::BoxFuture;
use proto::Key;
use proto::request::LockMode;
use rand::Rng;
use std::collections::BTreeMap;
use txn::client::TimestampBound;

/// See the [module](self).
pub struct HotRow {
    /// The first one is hot.
    rows: Vec<Key>,
}

impl HotRow {
    /// The rows of a run, dealt to its groups.
    pub fn new(options: &Options) -> HotRow {
        HotRow { rows: keys(options, options.keys.max(2), "row") }
    }

    /// Increments the hot row, now and then also a cold one, in another group mostly.
    fn increment(&self, worker: &mut Worker) -> Plan {
        let mut rows = vec![self.rows[0].clone()];
        if worker.rng.random_bool(0.3) {
            rows.push(worker.one_of(&self.rows[1..]).clone());
        }
        let mode = [LockMode::Shared, LockMode::Exclusive][worker.rng.random_range(0..2)];
        Plan::new(rows, mode, |_, read| {
            let more = |cell: &Option<Cell>| CellValue::Number(number(cell.as_ref()) + 1);
            read.iter().map(|(key, cell)| (key.clone(), more(cell))).collect()
        })
    }
}

impl Workload for HotRow {
    fn opening(&self) -> Vec<(Key, CellValue)> {
        self.rows.iter().map(|key| (key.clone(), CellValue::Number(0))).collect()
    }

    fn turn<'a>(&'a self, worker: &'a mut Worker) -> BoxFuture<'a, ()> {
        async move {
            let hot = &self.rows[..1];
            match worker.rng.random_range(0..10) {
                0 => worker.look_back(&self.rows).await,
                1..=3 => {
                    if worker.transact(&Plan::look(hot.to_vec())).await.is_some() {
                        worker.snapshot(TimestampBound::Strong, hot).await;
                    }
                }
                4 => {
                    let Ok(now) = worker.client.now() else { return };
                    worker.read_anywhere(Kind::Strong, now.latest(), hot).await;
                }
                _ => {
                    let plan = self.increment(worker);
                    worker.transact(&plan).await;
                }
            }
        }
        .boxed()
    }

    fn judge(&self, history: &[Operation]) -> Result<(), Violation> {
        self.rows.iter().try_for_each(|row| all_counted(history, row))
    }
}

/// Whether each increment of a row that committed made another number, and no client saw the number
/// fall, but where it asked for the past.
fn all_counted(history: &[Operation], row: &Key) -> Result<(), Violation> {
    let broken = |what| Err(Violation::new("counter", "X1/X8", what));
    let done = |op: &&Operation| op.at().is_some();
    let mut made: BTreeMap<i64, &Operation> = BTreeMap::new();
    for op in history.iter().filter(done) {
        let Some(cell) = op.writes.get(row) else { continue };
        if let Some(other) = made.insert(number(Some(cell)), op) {
            let what = format!("{} and {} both made {row:?} {cell:?}", other.txn, op.txn);
            return broken(what);
        }
    }
    let mut last: BTreeMap<u32, i64> = BTreeMap::new();
    let now = |op: &&Operation| done(op) && op.kind != Kind::Stale && op.ended_ns != u64::MAX;
    for op in history.iter().filter(now) {
        let seen = op.writes.get(row).or_else(|| op.reads.get(row)?.as_ref());
        let Some(seen) = seen.map(|cell| number(Some(cell))) else { continue };
        if let Some(before) = last.insert(op.client, seen).filter(|before| *before > seen) {
            let what = format!("client {} saw {row:?} fall from {before} to {seen}", op.client);
            return broken(what);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkers::external_consistency::tests::op;

    #[test]
    fn catches_lost_increments_and_numbers_that_fall() {
        let row = Key::from_static(b"k");
        let write = |seq, number| op(seq, 0, 1, seq, Some(number));
        let read = |number| {
            let mut read = op(9, 2, 3, 9, None);
            read.reads.insert(row.clone(), Some(Cell::number(read.txn, number)));
            read
        };
        assert!(all_counted(&[write(1, 1), write(2, 2), read(2), read(3)], &row).is_ok());
        assert!(all_counted(&[write(1, 1), write(2, 1)], &row).is_err());
        let fallen = all_counted(&[write(1, 1), write(2, 2), read(1)], &row);
        assert_eq!(fallen.unwrap_err().checker, "counter");
    }
}
