//! One client at work: carries out turns and records what it did and saw.

use super::mortal::Death;
use super::{Workload, placement};
use crate::executor::ClientPort;
use crate::history::{Cell, CellValue, Ending, Kind, Operation};
use crate::options::Options;
use crate::world::{World, stream};
use futures::future::join_all;
use parking_lot::Mutex;
use proto::request::{Body, Found, LockMode, ReadAt, ReadSet, ReplyBody};
use proto::{Error, GroupId, Key, NodeId, TxnId};
use rand::Rng;
use rand::rngs::SmallRng;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use truetime::Timestamp;
use txn::client::{Client, ClientClock, ClientConfig, ReadWrite, TimestampBound};

/// What clients did and saw.
pub type History = Arc<Mutex<Vec<Operation>>>;

/// What was read: keys and what they held.
pub type Reads = BTreeMap<Key, Option<Cell>>;

/// What an attempt writes, by what it has read.
pub type Writing = dyn Fn(TxnId, &Reads) -> Vec<(Key, CellValue)> + Send + Sync;

/// How often a transaction is tried before its client does something else.
const ATTEMPTS_MAX: u32 = 40;

/// How many replicas are asked for one snapshot before it is given up.
const ASKED_MAX: u32 = 6;

/// A transaction: what it reads, and what it writes then. It may be run several times.
pub struct Plan {
    /// The keys to read under locks.
    pub reads: Vec<Key>,
    /// How they are locked.
    pub mode: LockMode,
    /// One after the other, and not all at once.
    pub one_by_one: bool,
    /// What is to be written, by what was read; nothing: it commits what it read.
    pub write: Box<Writing>,
}

impl Plan {
    /// Reads these keys and writes what comes of it.
    pub fn new(
        reads: Vec<Key>,
        mode: LockMode,
        write: impl Fn(TxnId, &Reads) -> Vec<(Key, CellValue)> + Send + Sync + 'static,
    ) -> Plan {
        Plan { reads, mode, one_by_one: false, write: Box::new(write) }
    }

    /// Only reads, under shared locks.
    pub fn look(reads: Vec<Key>) -> Plan {
        Plan::new(reads, LockMode::Shared, |_, _| Vec::new())
    }
}

/// A client's handle on the groups of a world; its id is `number + 1`.
pub fn client(port: &ClientPort, options: &Options, number: u64, config: ClientConfig) -> Client {
    let port = Arc::new(port.clone());
    let config = ClientConfig { client: number + 1, ..config };
    Client::new(port.clone(), port, Arc::new(placement(options.groups)), config)
}

/// See the [module](self).
pub struct Worker {
    number: u32,
    seed: u64,
    /// Its handle on the groups; another one after each death.
    pub client: Client,
    port: ClientPort,
    /// For its pauses.
    clock: ClientPort,
    pub(super) options: Options,
    /// What it decides at random.
    pub rng: SmallRng,
    absolute: Arc<AtomicU64>,
    history: History,
    /// Snapshots read earlier, to be asked for again.
    seen: Vec<(Timestamp, Vec<Key>)>,
    /// The newest that it has written or seen: its session token (R4).
    newest: Timestamp,
    deaths: u64,
}

impl Worker {
    /// A client that has done nothing yet.
    pub fn new(seed: u64, number: u32, world: &mut World, history: &History) -> Worker {
        let options = world.options.clone();
        let port = world.client_port();
        let client = client(&port, &options, u64::from(number), config(seed, number));
        Worker {
            number,
            seed,
            client,
            port,
            clock: world.client_port(),
            options,
            rng: stream(seed, 100 + u64::from(number)),
            absolute: world.absolute(),
            history: history.clone(),
            seen: Vec::new(),
            newest: Timestamp::MIN,
            deaths: 0,
        }
    }

    /// Takes its turns, one after the other.
    pub async fn work(mut self, workload: Arc<dyn Workload>) {
        for _ in 0..self.options.operations {
            if self.options.think_us > 0 {
                let pause_us = self.rng.random_range(0..self.options.think_us);
                self.pause_us(pause_us).await;
            }
            workload.turn(&mut self).await;
        }
    }

    /// Does nothing for so long.
    pub async fn pause_us(&self, pause_us: u64) {
        self.clock.sleep(Duration::from_micros(pause_us)).await;
    }

    /// Which client it is, from 0.
    pub fn number(&self) -> u32 {
        self.number
    }

    /// One of these.
    pub fn one_of<'k, T>(&mut self, of: &'k [T]) -> &'k T {
        &of[self.rng.random_range(0..of.len())]
    }

    /// So many different ones of these, in random order; all, if there are not as many.
    pub fn some_of<T: Clone>(&mut self, of: &[T], count: usize) -> Vec<T> {
        let mut rest = of.to_vec();
        let count = count.min(rest.len());
        (0..count).map(|_| rest.swap_remove(self.rng.random_range(0..rest.len()))).collect()
    }

    pub(super) fn now_ns(&self) -> u64 {
        self.absolute.load(Ordering::Relaxed)
    }

    /// Writes an operation down. One that the client heard the end of ends now.
    pub(super) fn record(&mut self, mut op: Operation, ending: Ending) {
        op.ending = ending;
        if ending != Ending::Unknown {
            op.ended_ns = self.now_ns();
        }
        if let Ending::At(at) = ending {
            self.newest = self.newest.max(at);
        }
        self.history.lock().push(op);
    }

    pub(super) fn operation(&self, txn: TxnId, kind: Kind, began_ns: u64) -> Operation {
        Operation {
            client: self.number,
            txn,
            kind,
            began_ns,
            ended_ns: u64::MAX,
            ending: Ending::Unknown,
            writes: BTreeMap::new(),
            reads: BTreeMap::new(),
        }
    }

    /// Runs a transaction, again with the same age while it is aborted. When it has committed;
    /// `None`: it has not, or nobody knows, or its client died.
    pub async fn transact(&mut self, plan: &Plan) -> Option<Timestamp> {
        let began_ns = self.now_ns();
        let mut txn = self.client.begin().ok()?;
        for _ in 0..ATTEMPTS_MAX {
            if self.rng.random_bool(self.options.forgetful) {
                let _ = txn.get_many(&plan.reads, plan.mode).await;
                std::mem::forget(txn); // as if the client had died: nobody tells the servers
                return None;
            }
            let op = Arc::new(Mutex::new(self.operation(txn.id(), Kind::ReadWrite, began_ns)));
            let ended = self.attempt(&txn, plan, &op).await;
            let op = op.lock().clone();
            let asked = !op.reads.is_empty() || plan.reads.is_empty(); // for the commit
            let ending = match &ended {
                Some(Ok(timestamp)) => Ending::At(*timestamp),
                Some(Err(Error::Aborted { .. })) => Ending::Nothing,
                Some(Err(_)) | None if !asked => Ending::Nothing,
                Some(Err(_)) | None => Ending::Unknown,
            };
            self.record(op, ending);
            if ended.is_none() {
                drop(txn); // with its client: nobody is told, if it was the process that died
                self.live_again();
                return None;
            }
            match ending {
                Ending::At(at) => return Some(at),
                Ending::Unknown => return None,
                Ending::Nothing => {}
            }
            txn.rollback().await;
            txn = self.client.begin_again(txn.age());
        }
        None
    }

    /// One attempt, unless the client dies in the middle of it: `None`.
    async fn attempt(
        &mut self,
        txn: &ReadWrite,
        plan: &Plan,
        op: &Arc<Mutex<Operation>>,
    ) -> Option<Result<Timestamp, Error>> {
        let mortality = self.options.mortality;
        let doomed = mortality > 0.0 && self.rng.random_bool(mortality);
        let attempt = attempt(txn.clone(), plan, op.clone());
        if !doomed {
            return Some(attempt.await);
        }
        // How many messages it sends or hears before; a commit over three groups has about ten.
        let messages = self.rng.random_range(1..=14);
        let death = [Death::OfTheProcess, Death::OfTheTask][self.rng.random_range(0..2)];
        self.port.until_death(messages, death, attempt).await
    }

    /// Another process takes the place of one that died: it knows nothing of it, and has another id.
    fn live_again(&mut self) {
        self.port.live();
        self.deaths += 1;
        let number = u64::from(self.number) + (self.deaths << 32);
        self.client = client(&self.port, &self.options, number, config(self.seed, self.number));
    }

    /// Reads keys at one timestamp, as the client chooses replicas.
    pub async fn snapshot(&mut self, bound: TimestampBound, keys: &[Key]) -> Option<Operation> {
        let began_ns = self.now_ns();
        let snapshot = self.client.snapshot(bound).ok()?;
        let values = snapshot.get_many(keys).await.ok()?;
        let kind = match bound {
            TimestampBound::Strong => Kind::Strong,
            TimestampBound::Session(_) => Kind::Session,
            _ => Kind::Stale,
        };
        let mut op = self.operation(TxnId::default(), kind, began_ns);
        op.reads = keys.iter().cloned().zip(values.into_iter().map(|v| v.map(cell))).collect();
        Some(self.saw(op, snapshot.timestamp(), keys))
    }

    /// Reads keys at a timestamp, each group's at a replica drawn at random, leader or not.
    pub async fn read_anywhere(
        &mut self,
        kind: Kind,
        at: Timestamp,
        keys: &[Key],
    ) -> Option<Operation> {
        let began_ns = self.now_ns();
        let mut by_group: BTreeMap<GroupId, Vec<Key>> = BTreeMap::new();
        for key in keys {
            let group = self.client.placement().group_of(key);
            by_group.entry(group).or_default().push(key.clone());
        }
        let nodes = self.client.router().nodes();
        let asked: Vec<(GroupId, Vec<Key>, Vec<NodeId>)> = by_group
            .into_iter()
            .map(|(group, keys)| {
                let order = (0..ASKED_MAX).map(|_| *self.one_of(&nodes)).collect();
                (group, keys, order)
            })
            .collect();
        let client = &self.client;
        let body = |what| Body::Snapshot { at: ReadAt::Exactly(at), what };
        let calls = asked.into_iter().map(|(group, keys, order)| async move {
            for node in order {
                let what = ReadSet::Keys(keys.clone());
                let asked = client.router().ask_node(node, group, body(what));
                if let Ok(reply) = asked.await
                    && let ReplyBody::Snapshot { found: Found::Values(values), .. } = reply.body
                {
                    let cells = values.into_iter().map(|v| v.map(|(_, bytes)| cell(bytes)));
                    return Some(keys.into_iter().zip(cells).collect::<Vec<_>>());
                }
            }
            None
        });
        let parts: Option<Vec<_>> = join_all(calls).await.into_iter().collect();
        let mut op = self.operation(TxnId::default(), kind, began_ns);
        op.reads = parts?.into_iter().flatten().collect();
        Some(self.saw(op, at, keys))
    }

    fn saw(&mut self, op: Operation, at: Timestamp, keys: &[Key]) -> Operation {
        self.seen.push((at, keys.to_vec()));
        self.record(op.clone(), Ending::At(at));
        op
    }

    /// Reads the past: a snapshot seen before must look the same again, another one must fit too.
    pub async fn look_back(&mut self, keys: &[Key]) {
        let ago = Duration::from_micros(self.rng.random_range(0..2_000_000));
        match self.seen_before() {
            None => self.snapshot(TimestampBound::ExactStaleness(ago), keys).await,
            Some((at, keys)) => self.snapshot(TimestampBound::ReadTimestamp(at), &keys).await,
        };
    }

    /// One of the snapshots it has seen, to be asked for again.
    pub fn seen_before(&mut self) -> Option<(Timestamp, Vec<Key>)> {
        if self.seen.is_empty() {
            return None;
        }
        let place = self.rng.random_range(0..self.seen.len());
        Some(self.seen[place].clone())
    }

    /// The newest that this client has written or seen.
    pub fn token(&self) -> Timestamp {
        self.newest
    }
}

fn config(seed: u64, number: u32) -> ClientConfig {
    let seed = seed ^ u64::from(number);
    ClientConfig { attempt_ms: 300, operation_ms: 5_000, seed, ..ClientConfig::default() }
}

/// From its bytes: nothing else is ever written.
fn cell(bytes: bytes::Bytes) -> Cell {
    Cell::decode(&bytes).expect("the store gives back only what was written")
}

/// One attempt, which tells `op` what it has read, and what it is about to write.
async fn attempt(
    txn: ReadWrite,
    plan: &Plan,
    op: Arc<Mutex<Operation>>,
) -> Result<Timestamp, Error> {
    let mut values = Vec::new();
    if plan.one_by_one {
        for key in &plan.reads {
            values.extend(txn.get_many(std::slice::from_ref(key), plan.mode).await?);
        }
    } else {
        values = txn.get_many(&plan.reads, plan.mode).await?;
    }
    let cells = values.into_iter().map(|value| value.map(cell));
    let reads: Reads = plan.reads.iter().cloned().zip(cells).collect();
    let writes = (plan.write)(txn.id(), &reads).into_iter().map(|(key, value)| {
        let cell = Cell { writer: txn.id(), value };
        txn.put(key.clone(), cell.encode());
        (key, cell)
    });
    {
        let mut op = op.lock();
        op.writes = writes.collect();
        op.reads = reads;
    }
    Ok(txn.commit().await?.timestamp)
}
