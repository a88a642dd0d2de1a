//! Names of a group's records besides log and versions, and how they are read back.
//!
//! A key is one letter, the group (4 bytes, big-endian), and for tables the transaction (16 bytes).

use crate::storage::{Engine, StorageError, WriteOp};
use bytes::Bytes;
use paxos::{Entry, HardState};
use proto::codec;
use proto::command::PrepareRecord;
use proto::{Ballot, GroupId, Slot, TxnId};
use serde::de::DeserializeOwned;
use truetime::Timestamp;
use txn::server::{OutcomeRecord, Replicated, StateChange};

const HARD_STATE: u8 = b'h';
const APPLIED: u8 = b'a';
const PREPARED: u8 = b'p';
const OUTCOME: u8 = b'o';

/// What a group has on disk.
pub struct Recovered {
    /// Promises and votes.
    pub hard: HardState,
    /// The log.
    pub entries: Vec<(Slot, Entry)>,
    /// The last slot the tablet holds.
    pub applied: Slot,
    /// Prepared transactions and outcomes.
    pub replicated: Replicated,
}

fn group_key(kind: u8, group: GroupId) -> Vec<u8> {
    let mut key = vec![kind];
    key.extend_from_slice(&group.0.to_be_bytes());
    key
}

fn txn_key(kind: u8, group: GroupId, txn: TxnId) -> Vec<u8> {
    let mut key = group_key(kind, group);
    key.extend_from_slice(&txn.client.to_be_bytes());
    key.extend_from_slice(&txn.seq.to_be_bytes());
    key
}

fn decode<T: DeserializeOwned>(
    what: &str,
    group: GroupId,
    bytes: &[u8],
) -> Result<T, StorageError> {
    codec::decode(bytes).map_err(|e| StorageError::Corruption(format!("{what} of {group}: {e}")))
}

fn one<T: DeserializeOwned + Default>(
    engine: &dyn Engine,
    (what, kind): (&str, u8),
    group: GroupId,
) -> Result<T, StorageError> {
    match engine.read_meta(&group_key(kind, group))?.first() {
        Some((_, value)) => decode(what, group, value),
        None => Ok(T::default()),
    }
}

/// Reads back what a group has on disk; of a group never seen: nothing, which is a new replica.
///
/// # Errors
/// I/O, and corruption named with the group.
pub fn recover(engine: &dyn Engine, group: GroupId) -> Result<Recovered, StorageError> {
    let hard = one(engine, ("hard state", HARD_STATE), group)?;
    let (applied, applied_at): (Slot, Timestamp) = one(engine, ("applied slot", APPLIED), group)?;
    let mut entries = Vec::new();
    for (slot, bytes) in engine.read_log(group, Slot::ZERO)? {
        let (ballot, payload): (Ballot, Bytes) = decode("log entry", group, &bytes)?;
        entries.push((slot, Entry { ballot, payload }));
    }
    let mut replicated = Replicated { applied_at, ..Replicated::default() };
    for (_, value) in engine.read_meta(&group_key(PREPARED, group))? {
        let record: PrepareRecord = decode("prepare record", group, &value)?;
        replicated.prepared.insert(record.txn, record);
    }
    for (_, value) in engine.read_meta(&group_key(OUTCOME, group))? {
        let (txn, record): (TxnId, OutcomeRecord) = decode("outcome", group, &value)?;
        replicated.outcomes.insert(txn, record);
    }
    Ok(Recovered { hard, entries, applied, replicated })
}

/// A write of a Paxos replica, as a storage operation.
pub fn log_op(group: GroupId, write: paxos::Write) -> WriteOp {
    match write {
        paxos::Write::HardState(hard) => {
            WriteOp::PutMeta { key: group_key(HARD_STATE, group), value: codec::encode(&hard) }
        }
        paxos::Write::Entry { slot, entry } => {
            let bytes = codec::encode(&(entry.ballot, entry.payload));
            WriteOp::PutLog { group, slot, bytes }
        }
        paxos::Write::Truncate { upto } => WriteOp::TruncateLog { group, upto },
        paxos::Write::CutTail { after } => WriteOp::CutLogTail { group, after },
    }
}

/// The changes of one applied slot, the slot itself included, as storage operations.
pub fn apply_ops(
    group: GroupId,
    slot: Slot,
    applied_at: Timestamp,
    changes: Vec<StateChange>,
    ops: &mut Vec<WriteOp>,
) {
    for change in changes {
        ops.push(match change {
            StateChange::Version { write, at } => {
                WriteOp::PutVersion { group, key: write.key, at, value: write.value }
            }
            StateChange::Prepared(record) => WriteOp::PutMeta {
                key: txn_key(PREPARED, group, record.txn),
                value: codec::encode(&record),
            },
            StateChange::Settled(txn) => WriteOp::DeleteMeta { key: txn_key(PREPARED, group, txn) },
            StateChange::Outcome(txn, record) => WriteOp::PutMeta {
                key: txn_key(OUTCOME, group, txn),
                value: codec::encode(&(txn, record)),
            },
            StateChange::Forgotten(txn) => {
                WriteOp::DeleteMeta { key: txn_key(OUTCOME, group, txn) }
            }
        });
    }
    let value = codec::encode(&(slot, applied_at));
    ops.push(WriteOp::PutMeta { key: group_key(APPLIED, group), value });
}
