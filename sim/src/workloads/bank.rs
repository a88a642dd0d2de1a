//! Tellers move units between accounts, add all of them up, and look back. The total never changes.

use super::{Plan, Worker, Workload, number};
use crate::checkers::conservation;
use crate::history::{CellValue, Operation, Violation};
use crate::options::Options;
use futures::FutureExt;
use futures::future::BoxFuture;
use proto::Key;
use proto::request::LockMode;
use rand::Rng;
use txn::client::TimestampBound;

/// What every account holds at first.
pub const OPENING_BALANCE: i64 = 100;

/// See the [module](self).
pub struct Bank {
    accounts: Vec<Key>,
    audits: u32,
}

impl Bank {
    /// The bank of a run. Its accounts lie where their names' hashes say.
    pub fn new(options: &Options) -> Bank {
        let accounts = (0..options.keys).map(|n| Key::from(format!("account-{n:03}"))).collect();
        Bank { accounts, audits: options.audits }
    }

    /// Moves a few units.
    fn transfer(&self, worker: &mut Worker) -> Plan {
        let accounts = &self.accounts;
        let from = worker.rng.random_range(0..accounts.len());
        let to = (from + worker.rng.random_range(1..accounts.len())) % accounts.len();
        let amount = worker.rng.random_range(1..=20);
        let mode = [LockMode::Shared, LockMode::Exclusive][worker.rng.random_range(0..2)];
        let (from, to) = (accounts[from].clone(), accounts[to].clone());
        let mut keys = vec![from.clone(), to.clone()];
        if worker.rng.random_bool(0.3) {
            // A third account that is only looked at.
            let seen = accounts[worker.rng.random_range(0..accounts.len())].clone();
            if !keys.contains(&seen) {
                keys.push(seen);
            }
        }
        Plan::new(keys, mode, move |_, read| {
            let balance = |key: &Key| number(read[key].as_ref());
            let after = [(&from, balance(&from) - amount), (&to, balance(&to) + amount)];
            after.map(|(key, balance)| (key.clone(), CellValue::Number(balance))).to_vec()
        })
    }
}

impl Workload for Bank {
    fn opening(&self) -> Vec<(Key, CellValue)> {
        let opened = |key: &Key| (key.clone(), CellValue::Number(OPENING_BALANCE));
        self.accounts.iter().map(opened).collect()
    }

    fn turn<'a>(&'a self, worker: &'a mut Worker) -> BoxFuture<'a, ()> {
        async move {
            match worker.rng.random_range(0..10) {
                0 => worker.look_back(&self.accounts).await,
                n if n <= self.audits => {
                    worker.snapshot(TimestampBound::Strong, &self.accounts).await;
                }
                _ => {
                    let plan = self.transfer(worker);
                    worker.transact(&plan).await;
                }
            }
        }
        .boxed()
    }

    fn judge(&self, history: &[Operation]) -> Result<(), Violation> {
        let accounts = self.accounts.len();
        conservation::check(history, accounts, OPENING_BALANCE * accounts as i64)
    }
}
