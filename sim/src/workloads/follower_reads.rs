//! Writers, and readers that ask any replica: at now, at a moment that is yet to come, at one that
//! is long over, at what they saw last, and once more elsewhere at what they read before (R1, R2,
//! R4, R6).

use super::{Plan, Worker, Workload, keys};
use crate::history::{CellValue, Kind, Operation, Violation};
use crate::options::Options;
use futures::FutureExt;
use futures::future::BoxFuture;
use proto::request::LockMode;
use proto::{Key, TxnId};
use rand::Rng;
use std::time::Duration;
use txn::client::{SessionToken, TimestampBound};

/// See the [module](self).
pub struct FollowerReads {
    keys: Vec<Key>,
}

impl FollowerReads {
    /// The keys of a run, dealt to its groups.
    pub fn new(options: &Options) -> FollowerReads {
        FollowerReads { keys: keys(options, options.keys, "key") }
    }

    /// Writes one key or two, mostly in two groups.
    async fn write(&self, worker: &mut Worker) {
        let count = worker.rng.random_range(1..=2);
        let written = worker.some_of(&self.keys, count);
        let number = CellValue::Number(worker.rng.random_range(1..1_000));
        let reads = match worker.rng.random_bool(0.5) {
            true => written.clone(),
            false => Vec::new(),
        };
        let write = move |_: TxnId, _: &_| {
            written.iter().map(|key| (key.clone(), number.clone())).collect::<Vec<_>>()
        };
        worker.transact(&Plan::new(reads, LockMode::Exclusive, write)).await;
    }

    async fn read(&self, worker: &mut Worker) {
        let Ok(now) = worker.client.now() else { return };
        let count = worker.rng.random_range(1..=self.keys.len());
        let keys = worker.some_of(&self.keys, count);
        let ago = Duration::from_micros(worker.rng.random_range(0..200_000));
        let (kind, at) = match worker.rng.random_range(0..10) {
            0..=1 => (Kind::Strong, now.latest()),
            2 => (Kind::Strong, now.latest().plus_micros(worker.rng.random_range(1..20_000))),
            3 => (Kind::Session, now.earliest().max(worker.token())),
            4 => (Kind::Session, worker.token()),
            5 => {
                let ago = Duration::from_micros(worker.rng.random_range(0..1_000_000));
                (Kind::Stale, now.latest().minus(ago))
            }
            // As the client half finds replicas, and fixes open bounds.
            6 => return drop(worker.snapshot(TimestampBound::MaxStaleness(ago), &keys).await),
            7 => {
                let at_least = worker.token().minus(ago);
                let bound = TimestampBound::MinReadTimestamp(at_least);
                return drop(worker.snapshot(bound, &keys).await);
            }
            8 => {
                let token = SessionToken::at(worker.token());
                return drop(worker.snapshot(TimestampBound::Session(token), &keys).await);
            }
            _ => {
                let Some((at, keys)) = worker.seen_before() else { return };
                worker.read_anywhere(Kind::Stale, at, &keys).await;
                return;
            }
        };
        worker.read_anywhere(kind, at, &keys).await;
    }
}

impl Workload for FollowerReads {
    fn opening(&self) -> Vec<(Key, CellValue)> {
        self.keys.iter().map(|key| (key.clone(), CellValue::Number(0))).collect()
    }

    fn turn<'a>(&'a self, worker: &'a mut Worker) -> BoxFuture<'a, ()> {
        async move {
            match worker.rng.random_range(0..10) {
                0..=3 => self.write(worker).await,
                4 => drop(worker.snapshot(TimestampBound::Strong, &self.keys).await),
                _ => self.read(worker).await,
            }
        }
        .boxed()
    }

    /// Nothing but what is asked of every history: that every read is the one at its timestamp.
    fn judge(&self, _: &[Operation]) -> Result<(), Violation> {
        Ok(())
    }
}
