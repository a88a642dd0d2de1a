//! Before and after the work: opens the keys, finds out what clients never heard, reads everything
//! once more.

use super::{History, Plan, Worker, Workload};
use crate::history::{Cell, CellValue, Ending, Kind, Operation};
use parking_lot::Mutex;
use proto::request::{Body, LockMode, Outcome, ReplyBody};
use proto::{Error, GroupId, Key, TxnId};
use std::collections::BTreeMap;
use std::sync::Arc;
use txn::client::{Client, TimestampBound};

/// Which group was asked to coordinate a commit; transactions that are missing never were to
/// commit. Kept by the world, as it carries the requests.
pub type Asked = Arc<Mutex<BTreeMap<TxnId, GroupId>>>;

/// What all keys hold at first, in one transaction; tries until it is known to have committed.
pub async fn open(mut worker: Worker, workload: Arc<dyn Workload>, asked: Asked) {
    let opening = workload.opening();
    loop {
        let began_ns = worker.now_ns();
        let Ok(txn) = worker.client.begin() else {
            worker.pause_us(1_000).await;
            continue;
        };
        let mut op = worker.operation(txn.id(), Kind::ReadWrite, began_ns);
        for (key, value) in &opening {
            // Who opens a list is the first in it.
            let cell = match value {
                CellValue::List(_) => Cell::append(txn.id(), None),
                CellValue::Number(number) => Cell::number(txn.id(), *number),
            };
            txn.put(key.clone(), cell.encode());
            op.writes.insert(key.clone(), cell);
        }
        // An unknown ending would leave nobody to say which keys exist: ask until it is known.
        let ending = match txn.commit().await {
            Ok(receipt) => Ending::At(receipt.timestamp),
            Err(Error::Aborted { .. }) => Ending::Nothing,
            Err(_) => resolve(&worker.client, &asked, txn.id()).await,
        };
        worker.record(op, ending);
        if ending != Ending::Nothing {
            return;
        }
    }
}

/// Asks the coordinator what became of a transaction, until it says so.
async fn resolve(client: &Client, asked: &Asked, txn: TxnId) -> Ending {
    let coordinator = asked.lock().get(&txn).copied();
    let Some(group) = coordinator else { return Ending::Nothing };
    loop {
        let Ok(reply) = client.router().ask(group, Body::Resolve { txn }).await else { continue };
        match reply.body {
            ReplyBody::Outcome(Outcome::Committed(at)) => return Ending::At(at),
            _ => return Ending::Nothing,
        }
    }
}

/// Settles what clients never heard, then reads everything once more, without locks and with them.
pub async fn settle(
    mut worker: Worker,
    workload: Arc<dyn Workload>,
    asked: Asked,
    history: History,
) {
    let unknown = |op: &Operation| op.ending == Ending::Unknown;
    let places: Vec<(usize, TxnId)> = {
        let history = history.lock();
        let all = history.iter().enumerate();
        all.filter(|(_, op)| unknown(op)).map(|(place, op)| (place, op.txn)).collect()
    };
    for (place, txn) in places {
        let ending = resolve(&worker.client, &asked, txn).await;
        history.lock()[place].ending = ending;
    }
    let keys: Vec<Key> = workload.opening().into_iter().map(|(key, _)| key).collect();
    while worker.snapshot(TimestampBound::Strong, &keys).await.is_none() {}
    let look = Plan { mode: LockMode::Shared, ..Plan::look(keys) };
    while worker.transact(&look).await.is_none() {}
}
