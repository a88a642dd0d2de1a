//! One client writes, and hears that it is done; then another one writes elsewhere, on account of
//! it. Whoever sees the second write must see the first.
//!
//! A baton goes round: who has it writes the next number into the next key, in another group, and
//! puts the baton down when it has heard of the end. Everyone else reads.

use super::{Plan, Worker, Workload, keys, number};
use crate::history::{CellValue, Kind, Operation, Violation};
use crate::options::Options;
use futures::FutureExt;
use futures::future::BoxFuture;
use parking_lot::Mutex;
use proto::request::LockMode;
use proto::{Key, TxnId};
use rand::Rng;
use std::collections::BTreeMap;
use std::time::Duration;
use truetime::Timestamp;
use txn::client::TimestampBound;

/// See the [module](self).
pub struct CausalReverse {
    keys: Vec<Key>,
    baton: Mutex<Baton>,
}

#[derive(Default)]
struct Baton {
    taken: bool,
    /// The number written last, or tried.
    number: i64,
}

impl CausalReverse {
    /// The keys of a run, dealt to its groups.
    pub fn new(options: &Options) -> CausalReverse {
        CausalReverse { keys: keys(options, options.keys, "link"), baton: Mutex::default() }
    }

    /// The next number, for who takes the baton.
    fn take(&self) -> Option<i64> {
        let mut baton = self.baton.lock();
        if std::mem::replace(&mut baton.taken, true) {
            return None;
        }
        baton.number += 1;
        Some(baton.number)
    }

    async fn write(&self, worker: &mut Worker, next: i64) {
        let key = self.keys[next as usize % self.keys.len()].clone();
        let reads = match worker.rng.random_bool(0.5) {
            true => vec![key.clone()],
            false => Vec::new(),
        };
        // One whose end nobody knows may come late, and must not go back.
        let plan = Plan::new(reads, LockMode::Exclusive, move |_, read| {
            let before = number(read.get(&key).and_then(Option::as_ref));
            let value = CellValue::Number(before.max(next));
            vec![(key.clone(), value)]
        });
        worker.transact(&plan).await;
        self.baton.lock().taken = false;
    }

    async fn read(&self, worker: &mut Worker) {
        match worker.rng.random_range(0..6) {
            0..=1 => drop(worker.snapshot(TimestampBound::Strong, &self.keys).await),
            2..=3 => {
                let Ok(now) = worker.client.now() else { return };
                worker.read_anywhere(Kind::Strong, now.latest(), &self.keys).await;
            }
            4 => {
                let ago = Duration::from_micros(worker.rng.random_range(0..20_000));
                worker.snapshot(TimestampBound::ExactStaleness(ago), &self.keys).await;
            }
            _ => worker.look_back(&self.keys).await,
        }
    }
}

impl Workload for CausalReverse {
    fn opening(&self) -> Vec<(Key, CellValue)> {
        self.keys.iter().map(|key| (key.clone(), CellValue::Number(0))).collect()
    }

    fn turn<'a>(&'a self, worker: &'a mut Worker) -> BoxFuture<'a, ()> {
        async move {
            let wants = worker.rng.random_bool(0.6);
            match wants.then(|| self.take()).flatten() {
                Some(next) => self.write(worker, next).await,
                None => self.read(worker).await,
            }
        }
        .boxed()
    }

    fn judge(&self, history: &[Operation]) -> Result<(), Violation> {
        no_effect_without_cause(history)
    }
}

/// Whether every snapshot that shows a write shows all that had been acknowledged before that one
/// began, as far as it looks there.
fn no_effect_without_cause(history: &[Operation]) -> Result<(), Violation> {
    let writes: Vec<&Operation> =
        history.iter().filter(|op| !op.read_only() && op.at().is_some()).collect();
    let by_id: BTreeMap<TxnId, &Operation> = writes.iter().map(|op| (op.txn, *op)).collect();
    for read in history.iter().filter(|op| op.read_only() && op.at().is_some()) {
        let seen = |key: &Key| {
            let cell = read.reads.get(key)?.as_ref();
            Some(cell.and_then(|cell| by_id.get(&cell.writer)).copied())
        };
        let effects = read.reads.keys().filter_map(|key| seen(key).flatten());
        let Some(effect) = effects.max_by_key(|op| op.began_ns) else { continue };
        for cause in writes.iter().filter(|op| op.ended_ns < effect.began_ns) {
            let lacks = |key: &Key| {
                let at = |op: Option<&Operation>| op.and_then(Operation::at);
                seen(key).is_some_and(|s| {
                    at(s).unwrap_or(Timestamp::MIN) < at(Some(cause)).unwrap_or_default()
                })
            };
            if let Some(key) = cause.writes.keys().find(|key| lacks(key)) {
                let what = format!(
                    "client {} saw {}, which began at {} ns, and in {key:?} not {}, which was \
                     acknowledged at {} ns",
                    read.client, effect.txn, effect.began_ns, cause.txn, cause.ended_ns
                );
                return Err(Violation::new("causal_reverse", "X8/R3", what));
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
    fn catches_an_effect_without_its_cause() {
        let write = |seq, key: &'static [u8], began, ended| {
            let mut write = op(seq, began, ended, seq, None);
            write.kind = Kind::ReadWrite;
            write.writes = [(Key::from_static(key), Cell::number(write.txn, 1))].into();
            write
        };
        let (cause, effect) = (write(3, b"x", 0, 10), write(4, b"y", 11, 20));
        let mut read = op(5, 12, 30, 4, None);
        read.reads = [(Key::from_static(b"x"), None), (Key::from_static(b"y"), None)].into();
        for (key, cell) in &effect.writes {
            read.reads.insert(key.clone(), Some(cell.clone()));
        }
        let bad = [cause.clone(), effect.clone(), read.clone()];
        assert_eq!(no_effect_without_cause(&bad).unwrap_err().checker, "causal_reverse");
        for (key, cell) in &cause.writes {
            read.reads.insert(key.clone(), Some(cell.clone()));
        }
        assert!(no_effect_without_cause(&[cause, effect, read]).is_ok());
    }
}
