//! Transactions that are written down as their clients saw them, for `meridian check history`.

use super::failed;
use crate::exit::Exit;
use crate::history::Recorder;
use ::history::file::Header;
use ::history::{Cell, Ending, Kind, Operation};
use bytes::Bytes;
use client::{CommitReceipt, Database, SqlError, Transaction};
use proto::request::{Body, Outcome, ReplyBody};
use proto::{Key, TxnId};
use sql::ErrorKind;
use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use truetime::Timestamp;

/// How often an outcome that a client never heard is asked for, with the router's patience each time.
const SETTLE_ROUNDS: u32 = 3;

/// A transaction as far as it is known while it runs.
#[derive(Clone)]
pub struct Draft(Arc<Mutex<Operation>>);

impl Draft {
    /// It has read this of others.
    pub fn read(&self, key: impl Into<Bytes>, cell: Option<Cell>) {
        lock(&self.0).reads.insert(key.into(), cell);
    }

    /// It writes this.
    pub fn write(&self, key: impl Into<Bytes>, cell: Cell) {
        lock(&self.0).writes.insert(key.into(), cell);
    }
}

/// Writes down all that happens; cheap to clone.
#[derive(Clone)]
pub struct Recording {
    database: Arc<Database>,
    recorder: Arc<Recorder>,
    /// Transactions whose clients never heard how they ended.
    unknown: Arc<Mutex<Vec<Operation>>>,
    /// Numbers of read-only transactions, which have no ids of their own.
    next_reader: Arc<AtomicU64>,
}

/// What a read without locks saw.
pub struct Seen {
    /// What was promised.
    pub kind: Kind,
    /// From [`Recording::now_ns`], before it began.
    pub began_ns: u64,
    /// Its timestamp.
    pub at: Timestamp,
    /// What was there.
    pub reads: BTreeMap<Bytes, Option<Cell>>,
}

impl Recording {
    /// Begins a file.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn begin(database: Arc<Database>, file: &Path, header: Header) -> Result<Recording, Exit> {
        let recorder = Recorder::create(file, header)
            .map_err(|error| Exit::failed(format!("{}: {error}", file.display())))?;
        let (unknown, next_reader) = (Arc::default(), Arc::default());
        Ok(Recording { database, recorder: Arc::new(recorder), unknown, next_reader })
    }

    /// The database.
    pub fn database(&self) -> &Arc<Database> {
        &self.database
    }

    /// Nanoseconds since the recording began.
    pub fn now_ns(&self) -> u64 {
        self.recorder.now_ns()
    }

    /// Runs a transaction to its end and records it; which attempt committed, and what it was
    /// answered.
    ///
    /// # Errors
    /// As any transaction. One whose outcome is not known is remembered, for [`settle`](Self::settle).
    pub async fn run<F, Fut>(
        &self,
        client: u32,
        mut work: F,
    ) -> Result<(TxnId, CommitReceipt), SqlError>
    where
        F: FnMut(Transaction, Draft) -> Fut,
        Fut: Future<Output = Result<(), SqlError>>,
    {
        let draft = Draft(Arc::new(Mutex::new(Operation {
            client,
            txn: TxnId::default(),
            kind: Kind::ReadWrite,
            began_ns: self.now_ns(),
            ended_ns: u64::MAX,
            ending: Ending::Unknown,
            writes: BTreeMap::new(),
            reads: BTreeMap::new(),
        })));
        let ended = self.database.run(|txn| {
            let draft = draft.clone();
            {
                // Of an earlier attempt, nothing happened.
                let mut op = lock(&draft.0);
                op.txn = txn.inner().id();
                op.reads.clear();
                op.writes.clear();
            }
            work(txn, draft)
        });
        let ended = ended.await;
        let mut op = lock(&draft.0).clone();
        match ended {
            Ok(((), receipt)) => {
                op.ended_ns = self.now_ns();
                op.ending = Ending::At(receipt.timestamp);
                self.record(&op)?;
                Ok((op.txn, receipt))
            }
            Err(error) => {
                // After anything else it has certainly not happened, and is no part of the history.
                if error.kind == ErrorKind::OutcomeUnknown {
                    lock(&self.unknown).push(op);
                }
                Err(error)
            }
        }
    }

    /// Records a read without locks that has just ended.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn saw(&self, client: u32, seen: Seen) -> Result<(), SqlError> {
        let Seen { kind, began_ns, at, reads } = seen;
        // Client 0 of all ids is nobody's: those of transactions are drawn at random.
        let txn = TxnId { client: 0, seq: self.next_reader.fetch_add(1, Ordering::Relaxed) };
        self.record(&Operation {
            client,
            txn,
            kind,
            began_ns,
            ended_ns: self.now_ns(),
            ending: Ending::At(at),
            writes: BTreeMap::new(),
            reads,
        })
    }

    /// Asks how those transactions ended that nobody heard of, and completes the file. `key_of` turns
    /// a key of the history into that of a row. How many remain unknown.
    ///
    /// # Errors
    /// The file cannot be written.
    pub async fn settle(&self, key_of: impl Fn(&[u8]) -> Option<Key>) -> Result<usize, Exit> {
        let unknown = std::mem::take(&mut *lock(&self.unknown));
        let mut left = 0;
        for mut op in unknown {
            op.ending = self.resolve(&op, &key_of).await;
            left += usize::from(op.ending == Ending::Unknown);
            self.record(&op).map_err(failed)?;
        }
        self.recorder.finish().map_err(Exit::failed)?;
        Ok(left)
    }

    /// The group that coordinated it knows, and any other says that it has aborted.
    async fn resolve(&self, op: &Operation, key_of: &impl Fn(&[u8]) -> Option<Key>) -> Ending {
        let client = self.database.client();
        let mut groups = Vec::new();
        for key in op.writes.keys().chain(op.reads.keys()) {
            let Some(key) = key_of(key) else { return Ending::Unknown };
            groups.push(client.placement().group_of(&key));
        }
        groups.sort_unstable();
        groups.dedup();
        let mut aborted = 0;
        for group in &groups {
            for _ in 0..SETTLE_ROUNDS {
                let body = Body::Resolve { txn: op.txn };
                match client.router().ask(*group, body).await.map(|reply| reply.body) {
                    Ok(ReplyBody::Outcome(Outcome::Committed(at))) => return Ending::At(at),
                    Ok(ReplyBody::Outcome(Outcome::Aborted)) => {
                        aborted += 1;
                        break;
                    }
                    _ => {}
                }
            }
        }
        if aborted == groups.len() { Ending::Nothing } else { Ending::Unknown }
    }

    fn record(&self, op: &Operation) -> Result<(), SqlError> {
        let failed = |error: io::Error| {
            SqlError::new(ErrorKind::Internal, format!("the history cannot be written: {error}"))
        };
        self.recorder.record(op).map_err(failed)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
