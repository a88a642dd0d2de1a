//! Clients that hand on a baton.
//!
//! The next runner of a relay begins when the one before has heard that it is done, and not because
//! of anything in the database: each writes a row of its own group without reading. The database
//! cannot know that one came after the other but by the clock, and external consistency says that
//! it must know.

use super::stage::{Stage, key_in};
use crate::history::{Cell, Ending, Kind, Operation};
use crate::world::stream;
use futures::FutureExt;
use parking_lot::Mutex;
use proto::request::Receipt;
use proto::{Error, GroupId, Key, TxnId};
use rand::Rng;
use rand::rngs::SmallRng;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use txn::client::{Client, ClientClock, ClientConfig, TimestampBound};

/// How relays run.
#[derive(Clone, Copy, Debug)]
pub struct Race {
    /// Relays at the same time.
    pub relays: u32,
    /// Clients that take turns in each.
    pub runners: u32,
    /// How many transactions of each relay.
    pub transactions: u64,
    /// Absolute time at which the last one begins, in nanoseconds.
    pub until_ns: u64,
    /// How many of ten only read, strongly.
    pub reads: u32,
    /// How long a runner pauses before it begins, in microseconds.
    pub pause_us: u64,
}

impl Default for Race {
    fn default() -> Race {
        Race {
            relays: 2,
            runners: 3,
            transactions: u64::MAX,
            until_ns: u64::MAX,
            reads: 2,
            pause_us: 0,
        }
    }
}

/// What relays did.
#[derive(Debug, Default)]
pub struct Track {
    /// Everything, in the order of its end.
    pub history: Vec<Operation>,
    /// What is known of the commits.
    pub commits: BTreeMap<TxnId, Commit>,
}

/// A commit, as its client knows it.
#[derive(Clone, Debug)]
pub struct Commit {
    /// Where it was.
    pub group: GroupId,
    /// What was written.
    pub key: Key,
    /// The leader's word.
    pub receipt: Receipt,
}

/// A track, shared with the runners on it.
pub type SharedTrack = Arc<Mutex<Track>>;

/// Sends relays on their way; run the world until they are done.
pub fn start(stage: &mut Stage, seed: u64, race: Race, track: &SharedTrack) {
    for relay in 0..race.relays {
        let nodes = stage.world.nodes();
        let config =
            ClientConfig { attempt_ms: 200, operation_ms: 2_000, ..ClientConfig::default() };
        let (runners, ports): (Vec<_>, Vec<_>) =
            (0..race.runners).map(|_| stage.client_of(nodes.clone(), config.clone())).unzip();
        let groups = stage.groups();
        let keys = (1..=groups)
            .map(|group| key_in(GroupId(group), groups, &format!("relay-{relay}")))
            .collect();
        let clock: Arc<dyn ClientClock> = ports[0].clone();
        let relay = Relay {
            number: relay,
            runners,
            clock,
            keys,
            race,
            rng: stream(seed, 200 + u64::from(relay)),
            absolute: stage.world.absolute(),
            track: track.clone(),
        };
        stage.world.spawn(relay.run().boxed());
    }
}

struct Relay {
    number: u32,
    runners: Vec<Client>,
    clock: Arc<dyn ClientClock>,
    /// One in each group, in order.
    keys: Vec<Key>,
    race: Race,
    rng: SmallRng,
    absolute: Arc<AtomicU64>,
    track: SharedTrack,
}

impl Relay {
    fn now_ns(&self) -> u64 {
        self.absolute.load(Ordering::Relaxed)
    }

    async fn run(mut self) {
        for turn in 0..self.race.transactions {
            if self.race.pause_us > 0 {
                let pause_us = self.rng.random_range(0..=2 * self.race.pause_us);
                self.clock.sleep(Duration::from_micros(pause_us)).await;
            }
            if self.now_ns() >= self.race.until_ns {
                return;
            }
            let runner = self.rng.random_range(0..self.runners.len());
            if self.rng.random_range(0..10) < self.race.reads {
                self.read(runner).await;
            } else {
                self.write(runner, turn).await;
            }
        }
    }

    fn client(&self, runner: usize) -> u32 {
        self.number * self.race.runners + runner as u32 + 1
    }

    async fn write(&mut self, runner: usize, turn: u64) {
        let place = self.rng.random_range(0..self.keys.len());
        let (group, key) = (GroupId(place as u32 + 1), self.keys[place].clone());
        let began_ns = self.now_ns();
        let Ok(txn) = self.runners[runner].begin() else { return };
        let row = Cell::number(txn.id(), turn as i64);
        txn.put(key.clone(), row.encode());
        let result = txn.commit().await;
        let ending = match &result {
            Ok(receipt) => Ending::At(receipt.timestamp),
            Err(Error::Aborted { .. }) => Ending::Nothing,
            Err(_) => Ending::Unknown,
        };
        let mut track = self.track.lock();
        if let Ok(receipt) = result {
            track.commits.insert(txn.id(), Commit { group, key: key.clone(), receipt });
        }
        track.history.push(Operation {
            client: self.client(runner),
            txn: txn.id(),
            kind: Kind::ReadWrite,
            began_ns,
            ended_ns: if ending == Ending::Unknown { u64::MAX } else { self.now_ns() },
            ending,
            writes: [(key, row)].into_iter().collect(),
            reads: BTreeMap::new(),
        });
    }

    /// All rows of the relay, at one timestamp.
    async fn read(&mut self, runner: usize) {
        let began_ns = self.now_ns();
        let client = &self.runners[runner];
        let Ok(snapshot) = client.snapshot(TimestampBound::Strong) else { return };
        let Ok(values) = snapshot.get_many(&self.keys).await else { return };
        let row = |bytes: bytes::Bytes| Cell::decode(&bytes).expect("only cells are written");
        let rows = values.into_iter().map(|value| value.map(row));
        self.track.lock().history.push(Operation {
            client: self.client(runner),
            txn: TxnId::default(),
            kind: Kind::Strong,
            began_ns,
            ended_ns: self.now_ns(),
            ending: Ending::At(snapshot.timestamp()),
            writes: BTreeMap::new(),
            reads: self.keys.iter().cloned().zip(rows).collect(),
        });
    }
}

impl Track {
    /// How many transactions are known to have committed or read.
    pub fn done(&self) -> u64 {
        self.history.iter().filter(|op| matches!(op.ending, Ending::At(_))).count() as u64
    }

    /// How long commits took, from the client's begin to its end, in milliseconds.
    pub fn commit_ms(&self) -> Vec<f64> {
        let committed = |op: &&Operation| !op.read_only() && matches!(op.ending, Ending::At(_));
        let ops = self.history.iter().filter(committed);
        ops.map(|op| super::as_ms(op.ended_ns - op.began_ns)).collect()
    }
}
