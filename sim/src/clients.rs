//! The clients of every scenario: tellers that move units between accounts, add up, and look back.
//!
//! Every account's value carries the id of the transaction that wrote it, so each read names its
//! writer.

use crate::history::{Cell, Ending, Kind, Operation};
use crate::options::Options;
use crate::world::{World, stream};
use parking_lot::Mutex;
use proto::request::{Body, LockMode, Outcome, ReplyBody};
use proto::{Error, Key};
use rand::Rng;
use rand::rngs::SmallRng;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use truetime::Timestamp;
use txn::client::{
    Client, ClientClock, ClientConfig, HashPlacement, ReadWrite, Snapshot, TimestampBound,
};

/// What every account holds at first.
pub const OPENING_BALANCE: i64 = 100;

/// What clients did and saw.
pub type History = Arc<Mutex<Vec<Operation>>>;

/// The accounts of a run.
pub fn accounts(options: &Options) -> Vec<Key> {
    (0..options.accounts).map(|n| Key::from(format!("account-{n:03}"))).collect()
}

/// A client of the groups of a world.
pub fn client(world: &mut World, number: u32, seed: u64, config: ClientConfig) -> Client {
    let port = Arc::new(world.client_port());
    let groups = world.options.groups;
    let placement = HashPlacement { groups, root_prefix: Key::new(), directory: |key| Some(key) };
    let config =
        ClientConfig { client: u64::from(number) + 1, seed: seed ^ u64::from(number), ..config };
    Client::new(port.clone(), port, Arc::new(placement), config)
}

/// One client.
pub struct Teller {
    number: u32,
    /// Its handle on the groups.
    pub client: Client,
    clock: Arc<dyn ClientClock>,
    accounts: Vec<Key>,
    operations: u32,
    audits: u32,
    think_us: u64,
    forgetful: f64,
    rng: SmallRng,
    absolute: Arc<AtomicU64>,
    history: Arc<Mutex<Vec<Operation>>>,
    /// What earlier snapshots of this teller saw, to be asked for again.
    seen: Vec<(Timestamp, Operation)>,
}

/// A teller that has done nothing yet.
pub fn teller(seed: u64, number: u32, world: &mut World, history: &History) -> Teller {
    let config = ClientConfig { attempt_ms: 300, operation_ms: 5_000, ..ClientConfig::default() };
    let client = client(world, number, seed, config);
    let options = world.options.clone();
    Teller {
        number,
        client,
        clock: Arc::new(world.client_port()),
        accounts: accounts(&options),
        operations: options.operations,
        audits: options.audits,
        think_us: options.think_us,
        forgetful: options.forgetful,
        rng: stream(seed, 100 + u64::from(number)),
        absolute: world.absolute(),
        history: history.clone(),
        seen: Vec::new(),
    }
}

/// Opens the accounts, in one transaction; tries until it is known to have committed.
pub async fn open_accounts(teller: Teller) {
    loop {
        let began_ns = teller.now_ns();
        let Ok(txn) = teller.client.begin() else { continue };
        let mut op = teller.operation(&txn, began_ns);
        for key in &teller.accounts {
            let account = Cell::number(txn.id(), OPENING_BALANCE);
            txn.put(key.clone(), account.encode());
            op.writes.insert(key.clone(), account);
        }
        let done = txn.commit().await;
        // An unknown ending would leave nobody to say which accounts exist: ask until it is known.
        let ending = match done {
            Ok(receipt) => Ending::At(receipt.timestamp),
            Err(Error::Aborted { .. }) => Ending::Nothing,
            Err(_) => resolve(&teller.client, &teller.accounts, txn.id()).await,
        };
        teller.record(op, ending);
        if ending != Ending::Nothing {
            return;
        }
    }
}

/// From its bytes: nothing else is ever written.
fn account(bytes: &[u8]) -> Cell {
    Cell::decode(bytes).expect("the store gives back only what was written")
}

fn balance(account: &Cell) -> i64 {
    account.as_number().expect("an account holds a number")
}

/// Asks every group that may have coordinated until one tells of a commit or all of an abort.
async fn resolve(client: &Client, keys: &[Key], txn: proto::TxnId) -> Ending {
    let mut groups: Vec<_> = keys.iter().map(|key| client.placement().group_of(key)).collect();
    groups.sort_unstable();
    groups.dedup();
    for group in groups {
        loop {
            match client.router().ask(group, Body::Resolve { txn }).await {
                Ok(reply) => match reply.body {
                    ReplyBody::Outcome(Outcome::Committed(at)) => return Ending::At(at),
                    _ => break,
                },
                Err(_) => continue,
            }
        }
    }
    Ending::Nothing
}

impl Teller {
    fn now_ns(&self) -> u64 {
        self.absolute.load(Ordering::Relaxed)
    }

    fn operation(&self, txn: &ReadWrite, began_ns: u64) -> Operation {
        Operation {
            client: self.number,
            txn: txn.id(),
            kind: Kind::ReadWrite,
            began_ns,
            ended_ns: u64::MAX,
            ending: Ending::Unknown,
            writes: Default::default(),
            reads: Default::default(),
        }
    }

    fn record(&self, mut op: Operation, ending: Ending) {
        op.ending = ending;
        if ending != Ending::Unknown {
            op.ended_ns = self.now_ns();
        }
        self.history.lock().push(op);
    }

    /// Does its operations, one after the other.
    pub async fn work(mut self) {
        for _ in 0..self.operations {
            if self.think_us > 0 {
                let pause = Duration::from_micros(self.rng.random_range(0..self.think_us));
                self.clock.sleep(pause).await;
            }
            match self.rng.random_range(0..10) {
                0 => self.look_back().await,
                n if n <= self.audits => self.audit(TimestampBound::Strong).await,
                _ => self.transfer().await,
            }
        }
    }

    /// Moves a few units, again with the same age while it is aborted.
    async fn transfer(&mut self) {
        let from = self.rng.random_range(0..self.accounts.len());
        let to = (from + self.rng.random_range(1..self.accounts.len())) % self.accounts.len();
        let amount = self.rng.random_range(1..=20);
        let mode = [LockMode::Shared, LockMode::Exclusive][self.rng.random_range(0..2)];
        let mut keys = vec![self.accounts[from].clone(), self.accounts[to].clone()];
        if self.rng.random_bool(0.3) {
            // A third account that is only looked at.
            let seen = self.accounts[self.rng.random_range(0..self.accounts.len())].clone();
            if !keys.contains(&seen) {
                keys.push(seen);
            }
        }
        let began_ns = self.now_ns();
        let Ok(mut txn) = self.client.begin() else { return };
        for _ in 0..40 {
            if self.rng.random_bool(self.forgetful) {
                let _ = txn.get_many(&keys, mode).await;
                std::mem::forget(txn); // as if the client had died: nobody tells the servers
                return;
            }
            let mut op = self.operation(&txn, began_ns);
            let ending = match self.attempt(&txn, &keys, amount, mode, &mut op).await {
                Ok(timestamp) => Ending::At(timestamp),
                Err(Error::Aborted { .. }) => Ending::Nothing,
                Err(_) if op.writes.is_empty() => Ending::Nothing, // the commit was never asked for
                Err(_) => Ending::Unknown,
            };
            let again = ending == Ending::Nothing;
            self.record(op, ending);
            if !again {
                return;
            }
            txn.rollback().await;
            txn = self.client.begin_again(txn.age());
        }
    }

    async fn attempt(
        &self,
        txn: &ReadWrite,
        keys: &[Key],
        amount: i64,
        mode: LockMode,
        op: &mut Operation,
    ) -> Result<Timestamp, Error> {
        let read = txn.get_many(keys, mode).await?;
        let accounts: Vec<Option<Cell>> =
            read.into_iter().map(|value| value.map(|bytes| account(&bytes))).collect();
        let balance = |place: usize| accounts[place].as_ref().map_or(0, balance);
        let after = [(0, balance(0) - amount), (1, balance(1) + amount)];
        for (place, balance) in after {
            let account = Cell::number(txn.id(), balance);
            txn.put(keys[place].clone(), account.encode());
            op.writes.insert(keys[place].clone(), account);
        }
        op.reads.extend(keys.iter().cloned().zip(accounts));
        Ok(txn.commit().await?.timestamp)
    }

    /// Reads all accounts at one timestamp.
    async fn audit(&mut self, bound: TimestampBound) {
        let began_ns = self.now_ns();
        let Ok(snapshot) = self.client.snapshot(bound) else { return };
        if let Some(mut op) = self.read_all(&snapshot, began_ns).await {
            self.seen.push((snapshot.timestamp(), op.clone()));
            if bound != TimestampBound::Strong {
                op.kind = Kind::Stale;
            }
            self.record(op, Ending::At(snapshot.timestamp()));
        }
    }

    async fn read_all(&self, snapshot: &Snapshot, began_ns: u64) -> Option<Operation> {
        let values = snapshot.get_many(&self.accounts).await.ok()?;
        let accounts = values.into_iter().map(|v| v.map(|bytes| account(&bytes)));
        Some(Operation {
            client: self.number,
            txn: proto::TxnId::default(),
            kind: Kind::Strong,
            began_ns,
            ended_ns: u64::MAX,
            ending: Ending::Unknown,
            writes: Default::default(),
            reads: self.accounts.iter().cloned().zip(accounts).collect(),
        })
    }

    /// Reads the past: a timestamp seen before must look the same again, another must fit too.
    async fn look_back(&mut self) {
        let ago = Duration::from_micros(self.rng.random_range(0..2_000_000));
        let bound = match self.seen.len() {
            0 => TimestampBound::ExactStaleness(ago),
            n => TimestampBound::ReadTimestamp(self.seen[self.rng.random_range(0..n)].0),
        };
        self.audit(bound).await;
    }
}

/// Settles what clients never heard, then reads everything once more.
pub async fn settle(client: Client, mut last: Teller, history: History) {
    let unknown: Vec<(usize, proto::TxnId, Vec<Key>)> = history
        .lock()
        .iter()
        .enumerate()
        .filter(|(_, op)| op.ending == Ending::Unknown)
        .map(|(place, op)| (place, op.txn, op.writes.keys().cloned().collect()))
        .collect();
    for (place, txn, keys) in unknown {
        let ending = resolve(&client, &keys, txn).await;
        history.lock()[place].ending = ending;
    }
    let before = history.lock().len();
    while history.lock().len() == before {
        last.audit(TimestampBound::Strong).await;
    }
}
