//! Lists in several groups, to which transactions append themselves: who reads one, reads who wrote
//! it, all of them, in order. Two reads of a list are alike as far as the shorter one goes.

use super::{Plan, Worker, Workload, keys};
use crate::history::{Cell, CellValue, Operation, Violation};
use crate::options::Options;
use futures::FutureExt;
use futures::future::BoxFuture;
use proto::request::LockMode;
use proto::{Key, TxnId};
use rand::Rng;
use std::collections::BTreeMap;
use std::time::Duration;
use txn::client::TimestampBound;

/// See the [module](self).
pub struct ListAppend {
    lists: Vec<Key>,
}

impl ListAppend {
    /// The lists of a run, dealt to its groups.
    pub fn new(options: &Options) -> ListAppend {
        ListAppend { lists: keys(options, options.keys, "list") }
    }

    /// Appends to one to four lists what it has read of them, and looks at others.
    fn append(&self, worker: &mut Worker) -> Plan {
        let count = worker.rng.random_range(1..=4);
        let lists = worker.some_of(&self.lists, count);
        let appended = lists[..worker.rng.random_range(1..=lists.len())].to_vec();
        let mode = [LockMode::Shared, LockMode::Exclusive][worker.rng.random_range(0..2)];
        let one_by_one = worker.rng.random_bool(0.3);
        let plan = Plan::new(lists, mode, move |txn, read| {
            let longer = |list: &Key| {
                let before = read[list].as_ref();
                (list.clone(), Cell::append(txn, before).value)
            };
            appended.iter().map(longer).collect()
        });
        Plan { one_by_one, ..plan }
    }
}

impl Workload for ListAppend {
    fn opening(&self) -> Vec<(Key, CellValue)> {
        self.lists.iter().map(|key| (key.clone(), CellValue::List(Vec::new()))).collect()
    }

    fn turn<'a>(&'a self, worker: &'a mut Worker) -> BoxFuture<'a, ()> {
        async move {
            let count = worker.rng.random_range(1..=self.lists.len());
            let some = worker.some_of(&self.lists, count);
            let ago = Duration::from_micros(worker.rng.random_range(0..300_000));
            match worker.rng.random_range(0..10) {
                0 => worker.look_back(&self.lists).await,
                1 => drop(worker.snapshot(TimestampBound::MaxStaleness(ago), &some).await),
                2 => drop(worker.snapshot(TimestampBound::ExactStaleness(ago), &some).await),
                3 => drop(worker.snapshot(TimestampBound::Strong, &self.lists).await),
                4 => drop(worker.transact(&Plan::look(some)).await),
                _ => {
                    let plan = self.append(worker);
                    worker.transact(&plan).await;
                }
            }
        }
        .boxed()
    }

    fn judge(&self, history: &[Operation]) -> Result<(), Violation> {
        one_order(history)
    }
}

/// Whether all that was ever read of a list, by transactions that committed, is the beginning of
/// the longest that was read of it.
fn one_order(history: &[Operation]) -> Result<(), Violation> {
    let mut longest: BTreeMap<&[u8], &[TxnId]> = BTreeMap::new();
    for op in history.iter().filter(|op| op.at().is_some()) {
        for (key, cell) in &op.reads {
            let Some(list) = cell.as_ref().and_then(Cell::as_list) else { continue };
            let known = longest.entry(key).or_default();
            let (short, long) =
                if known.len() < list.len() { (*known, list) } else { (list, *known) };
            if !long.starts_with(short) {
                let what = format!("{key:?} was read as {short:?} and as {long:?}");
                return Err(Violation::new("lists", "X1/R6", what));
            }
            *known = long;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkers::external_consistency::tests::op;
    use bytes::Bytes;

    #[test]
    fn catches_a_list_that_lost_somebody() {
        let txn = |seq| TxnId { client: 1, seq };
        let read = |list: &[u64]| {
            let mut read = op(9, 0, 1, 5, None);
            let list = list.iter().map(|seq| txn(*seq)).collect();
            let cell = Cell { writer: txn(1), value: CellValue::List(list) };
            read.reads.insert(Bytes::from_static(b"k"), Some(cell));
            read
        };
        assert!(one_order(&[read(&[1, 2]), read(&[]), read(&[1, 2, 3]), read(&[1])]).is_ok());
        assert_eq!(one_order(&[read(&[1, 2]), read(&[1, 3])]).unwrap_err().checker, "lists");
        assert!(one_order(&[read(&[1, 2, 3]), read(&[2])]).is_err());
    }
}
