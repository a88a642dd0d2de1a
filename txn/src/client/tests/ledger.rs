//! Transactions over a network that loses, repeats and reorders, and who judges them.
//!
//! Every transaction writes its own number under one key of its own in each of two groups, without
//! having read it; some append it to a list that all share. Whatever the network does: what was
//! acknowledged is there once, at the timestamp that was told, in both groups; what was aborted is
//! nowhere; and what was not told can be asked for, with the same answer for ever.

use super::world::World;
use crate::client::{Client, ClientClock, ReadWrite};
use bytes::Bytes;
use futures::FutureExt;
use parking_lot::Mutex;
use proto::request::{LockMode, Outcome};
use proto::{Error, Key, NodeId};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use truetime::Timestamp;

const CLIENTS: u64 = 4;
const TRANSACTIONS: u64 = 5;

/// What became of each transaction, by its number.
type Told = Arc<Mutex<BTreeMap<u64, Outcome>>>;

/// What happened in one world.
#[derive(Default)]
pub struct Tally {
    pub committed: u64,
    pub aborted: u64,
    pub asked: u64,
    pub messages: usize,
}

struct Teller {
    world: World,
    client: Client,
    number: u64,
    rng: SmallRng,
    told: Told,
    /// Outcomes that had to be asked for.
    asked: Arc<Mutex<u64>>,
}

fn own_key(world: &World, group: u32, number: u64) -> Key {
    world.key(group, 1 + number as usize)
}

impl Teller {
    async fn work(mut self) {
        for n in 0..TRANSACTIONS {
            let pause = Duration::from_micros(self.rng.random_range(0..20_000));
            self.world.sleep(pause).await;
            self.transact(self.number * TRANSACTIONS + n).await;
        }
    }

    async fn transact(&mut self, number: u64) {
        let Ok(mut txn) = self.client.begin() else { unreachable!("there is time") };
        for _ in 0..30 {
            match self.attempt(&txn, number).await {
                Ok(outcome @ Outcome::Committed(_)) => {
                    self.told.lock().insert(number, outcome);
                    return;
                }
                Ok(Outcome::Aborted) | Err(_) => {
                    txn.rollback().await;
                    let pause = Duration::from_micros(self.rng.random_range(0..30_000));
                    self.world.sleep(pause).await;
                    txn = txn.again();
                }
            }
        }
        self.told.lock().insert(number, Outcome::Aborted);
    }

    async fn attempt(&mut self, txn: &ReadWrite, number: u64) -> Result<Outcome, Error> {
        // Some read first, and so come with locks; others write blindly.
        let list = self.world.key(1, 0);
        if self.rng.random_bool(0.5) {
            let read = txn.get_many(std::slice::from_ref(&list), LockMode::Exclusive).await?;
            let mut numbers = read[0].as_deref().unwrap_or_default().to_vec();
            numbers.extend(number.to_be_bytes());
            txn.put(list, Bytes::from(numbers));
        }
        let value = Bytes::from(number.to_be_bytes().to_vec());
        for group in [1, 2] {
            txn.put(own_key(&self.world, group, number), value.clone());
        }
        let patience = Duration::from_micros(self.rng.random_range(0..4_000));
        let committing = txn.clone();
        let commit = async move { committing.commit().await }.boxed();
        // Some do not wait for the answer.
        let waits = self.rng.random_bool(0.8);
        let outcome = match futures::future::select(commit, self.world.sleep(patience)).await {
            futures::future::Either::Left((answer, _)) => answer,
            futures::future::Either::Right((_, commit)) if waits => commit.await,
            futures::future::Either::Right(_) => {
                Err(Error::OutcomeUnknown { reason: "not waited for".into() })
            }
        };
        match outcome {
            Ok(receipt) => Ok(Outcome::Committed(receipt.timestamp)),
            Err(Error::OutcomeUnknown { .. }) => {
                *self.asked.lock() += 1;
                let first = known(txn).await;
                let again = known(txn).await;
                assert_eq!(first, again, "X9: one outcome for ever");
                Ok(first)
            }
            Err(error) => Err(error),
        }
    }
}

/// Asks until it is known.
async fn known(txn: &ReadWrite) -> Outcome {
    for _ in 0..100 {
        if let Ok(outcome) = txn.outcome().await {
            return outcome;
        }
    }
    unreachable!("the coordinator never answers")
}

/// Runs a world to its end; what is wrong in it, if anything is.
pub fn judge(seed: u64, forgetful: bool) -> Result<Tally, String> {
    let world = World::new(seed, 2, 2);
    let mut rng = SmallRng::seed_from_u64(seed);
    {
        let mut state = world.0.lock();
        state.network.loss = rng.random_range(0.0..0.3);
        state.network.repeat = rng.random_range(0.0..0.4);
        state.network.delay_us = 50..rng.random_range(100..60_000);
        state.groups.forgetful = forgetful;
        state.groups.group(2).leader = NodeId(2);
    }
    let (told, asked) = (Told::default(), Arc::new(Mutex::new(0)));
    let tellers = (0..CLIENTS).map(|number| Teller {
        world: world.clone(),
        client: world.client(number),
        number,
        rng: SmallRng::seed_from_u64(seed ^ (number << 32)),
        told: told.clone(),
        asked: asked.clone(),
    });
    world.run_all(tellers.map(|teller| teller.work().boxed_local()).collect());
    world.sever(0.0);
    world.pass(Duration::from_secs(20));
    let told = told.lock().clone();
    let mut tally = Tally { asked: *asked.lock(), ..Tally::default() };
    tally.messages = world.arrivals().len();
    for (number, outcome) in &told {
        match outcome {
            Outcome::Committed(_) => tally.committed += 1,
            Outcome::Aborted => tally.aborted += 1,
        }
        for group in [1, 2] {
            let key = own_key(&world, group, *number);
            let mut state = world.0.lock();
            let versions = state.groups.group(group).rows.get(&key).cloned().unwrap_or_default();
            let found: Vec<Timestamp> = versions.into_keys().collect();
            let expected = match outcome {
                Outcome::Committed(at) => vec![*at],
                Outcome::Aborted => Vec::new(),
            };
            if found != expected {
                return Err(format!(
                    "seed {seed}: transaction {number} was told {outcome:?}; g{group} has {found:?}"
                ));
            }
        }
    }
    judge_list(seed, &world, &told)?;
    Ok(tally)
}

/// The list holds no number twice, and only those that committed.
fn judge_list(seed: u64, world: &World, told: &BTreeMap<u64, Outcome>) -> Result<(), String> {
    let key = world.key(1, 0);
    let rows = world.0.lock().groups.group(1).rows.get(&key).cloned().unwrap_or_default();
    let list = rows.into_values().next_back().flatten().unwrap_or_default();
    let mut seen = std::collections::BTreeSet::new();
    for number in list.chunks_exact(8) {
        let number = u64::from_be_bytes(number.try_into().unwrap_or_default());
        let committed = matches!(told.get(&number), Some(Outcome::Committed(_)));
        if !committed || !seen.insert(number) {
            return Err(format!(
                "seed {seed}: {number} in the list, and told {:?}",
                told.get(&number)
            ));
        }
    }
    Ok(())
}
