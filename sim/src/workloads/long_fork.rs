//! Writers of single keys in different groups, readers of many: no two readers may disagree about
//! which of two writes came first.

use super::{Plan, Worker, Workload, keys};
use crate::history::{CellValue, Kind, Operation, Violation};
use crate::options::Options;
use futures::FutureExt;
use futures::future::BoxFuture;
use proto::request::LockMode;
use proto::{Key, TxnId};
use rand::Rng;
use std::collections::BTreeMap;
use std::time::Duration;
use truetime::Timestamp;
use txn::client::TimestampBound;

/// See the [module](self).
pub struct LongFork {
    keys: Vec<Key>,
}

impl LongFork {
    /// The keys of a run, dealt to its groups.
    pub fn new(options: &Options) -> LongFork {
        LongFork { keys: keys(options, options.keys, "fork") }
    }
}

impl Workload for LongFork {
    fn opening(&self) -> Vec<(Key, CellValue)> {
        self.keys.iter().map(|key| (key.clone(), CellValue::Number(0))).collect()
    }

    fn turn<'a>(&'a self, worker: &'a mut Worker) -> BoxFuture<'a, ()> {
        async move {
            match worker.rng.random_range(0..10) {
                0..=4 => {
                    let key = worker.one_of(&self.keys).clone();
                    let number = CellValue::Number(worker.rng.random_range(1..1_000));
                    let blind = move |_: TxnId, _: &_| vec![(key.clone(), number.clone())];
                    worker.transact(&Plan::new(Vec::new(), LockMode::Shared, blind)).await;
                }
                5..=6 => drop(worker.snapshot(TimestampBound::Strong, &self.keys).await),
                7 => {
                    let Ok(now) = worker.client.now() else { return };
                    worker.read_anywhere(Kind::Strong, now.latest(), &self.keys).await;
                }
                8 => {
                    let ago = Duration::from_micros(worker.rng.random_range(0..50_000));
                    worker.snapshot(TimestampBound::MaxStaleness(ago), &self.keys).await;
                }
                _ => worker.look_back(&self.keys).await,
            }
        }
        .boxed()
    }

    fn judge(&self, history: &[Operation]) -> Result<(), Violation> {
        one_order(history, &self.keys)
    }
}

/// Whether of any two snapshots of all keys one is nowhere older than the other. Which version of a
/// key is older, the writers' timestamps say; what the readers' are does not matter.
fn one_order(history: &[Operation], keys: &[Key]) -> Result<(), Violation> {
    let writers = history.iter().filter(|op| !op.read_only());
    let written: BTreeMap<TxnId, Timestamp> =
        writers.filter_map(|op| Some((op.txn, op.at()?))).collect();
    let version = |op: &Operation, key: &Key| {
        let cell = op.reads.get(key)?.as_ref();
        Some(cell.and_then(|cell| written.get(&cell.writer)).copied().unwrap_or_default())
    };
    let snapshots = history.iter().filter(|op| op.read_only() && op.at().is_some());
    let mut seen: Vec<(Vec<Timestamp>, &Operation)> = snapshots
        .filter_map(|op| {
            Some((keys.iter().map(|key| version(op, key)).collect::<Option<_>>()?, op))
        })
        .collect();
    // If they can be ordered at all, this is the order.
    seen.sort_by(|(a, _), (b, _)| a.cmp(b));
    for pair in seen.windows(2) {
        let [(a, first), (b, second)] = pair else { continue };
        if let Some(place) = (0..keys.len()).find(|place| a[*place] > b[*place]) {
            let what = format!(
                "clients {} and {} read at {:?} and {:?}; the first knows a newer {:?}, the second \
                 newer others",
                first.client,
                second.client,
                first.at(),
                second.at(),
                keys[place]
            );
            return Err(Violation::new("long_fork", "R3/R6", what));
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
    fn catches_readers_that_disagree() {
        let keys = [Key::from_static(b"x"), Key::from_static(b"y")];
        let write = |seq, key: &Key| {
            let mut write = op(seq, 0, 1, seq, None);
            write.kind = Kind::ReadWrite;
            write.writes = [(key.clone(), Cell::number(write.txn, 1))].into();
            write
        };
        let (x, y) = (write(3, &keys[0]), write(4, &keys[1]));
        let read = |seq, x: Option<&Operation>, y: Option<&Operation>| {
            let mut read = op(seq, 0, 1, seq, None);
            let cell = |w: Option<&Operation>| w.and_then(|w| w.writes.values().next().cloned());
            read.reads = [(keys[0].clone(), cell(x)), (keys[1].clone(), cell(y))].into();
            read
        };
        let (none, both) = (read(7, None, None), read(8, Some(&x), Some(&y)));
        let (only_x, only_y) = (read(9, Some(&x), None), read(10, None, Some(&y)));
        let good = [x.clone(), y.clone(), both.clone(), only_x.clone(), none.clone()];
        assert!(one_order(&good, &keys).is_ok());
        let bad = [x, y, both, only_x, only_y, none];
        assert_eq!(one_order(&bad, &keys).unwrap_err().checker, "long_fork");
    }
}
