//! Names of a group's records besides log and versions, and how they are read back.
//!
//! A key is one letter, the group (4 bytes, big-endian), and for tables the transaction (16 bytes).
//!
//! | letter | record |
//! |---|---|
//! | `s` | [`Identity`]: the replica's seat, and whether it was removed |
//! | `h` | promises and votes ([`HardState`]) |
//! | `b` | what the log has forgotten ([`Base`]) |
//! | `a` | [`Applied`]: the last slot the tablet holds |
//! | `c` | the configuration in force at that slot |
//! | `p`, `o` | tables: prepared transactions, outcomes |
//! | `v` | until when votes of sleeping groups were granted to a node; the group is the shard's first |

use crate::storage::{Engine, LogRecord, MetaRecord, StorageError, WriteOp};
use paxos::{Base, Configuration, Entry, HardState, Invitation, Position, Stored};
use proto::command::PrepareRecord;
use proto::{GroupId, NodeId, Seat, Slot, TxnId, codec};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use truetime::Timestamp;
use txn::server::{OutcomeRecord, Replicated, StateChange};

const IDENTITY: u8 = b's';
const HARD_STATE: u8 = b'h';
const BASE: u8 = b'b';
const APPLIED: u8 = b'a';
const CONFIGURATION: u8 = b'c';
const PREPARED: u8 = b'p';
const OUTCOME: u8 = b'o';
const GRANTED: u8 = b'v';
const ALL: [u8; 7] = [IDENTITY, HARD_STATE, BASE, APPLIED, CONFIGURATION, PREPARED, OUTCOME];

/// Which replica this disk holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// Which life of the node's replica.
    pub seat: Seat,
    /// It does not belong to the group any more (P9).
    pub removed: bool,
    /// Under which invitation it got its seat.
    pub invited: Invitation,
}

/// How far a tablet is; in one batch with the bytes it covers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Applied {
    /// The last entry whose effect is there.
    pub position: Position,
    /// The highest timestamp among the applied entries.
    pub at: Timestamp,
}

/// What a group has on disk.
pub struct Recovered {
    /// The replica's part; `None`: the disk has never seen the group.
    pub stored: Option<Stored>,
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

fn put<T: Serialize>(kind: u8, group: GroupId, value: &T) -> WriteOp {
    WriteOp::PutMeta { key: group_key(kind, group), value: codec::encode(value) }
}

fn decode<T: DeserializeOwned>(
    what: &str,
    group: GroupId,
    bytes: &[u8],
) -> Result<T, StorageError> {
    codec::decode(bytes).map_err(|e| StorageError::Corruption(format!("{what} of {group}: {e}")))
}

/// Something meta records are read from: an engine, or a view of one.
pub trait Records {
    /// The records whose key begins with a prefix, in key order.
    ///
    /// # Errors
    /// I/O and corruption.
    fn records(&self, prefix: &[u8]) -> Result<Vec<MetaRecord>, StorageError>;
}

impl Records for dyn Engine + '_ {
    fn records(&self, prefix: &[u8]) -> Result<Vec<MetaRecord>, StorageError> {
        self.read_meta(prefix)
    }
}

impl Records for dyn crate::storage::Pinned + '_ {
    fn records(&self, prefix: &[u8]) -> Result<Vec<MetaRecord>, StorageError> {
        self.read_meta(prefix)
    }
}

fn one<T: DeserializeOwned>(
    from: &(impl Records + ?Sized),
    (what, kind): (&str, u8),
    group: GroupId,
) -> Result<Option<T>, StorageError> {
    let records = from.records(&group_key(kind, group))?;
    records.first().map(|(_, value)| decode(what, group, value)).transpose()
}

/// How far the tablet is.
///
/// # Errors
/// I/O and corruption.
pub fn applied(from: &(impl Records + ?Sized), group: GroupId) -> Result<Applied, StorageError> {
    Ok(one(from, ("applied slot", APPLIED), group)?.unwrap_or_default())
}

/// The configuration in force at what is applied, and where it stands.
///
/// # Errors
/// I/O and corruption.
pub fn configuration(
    from: &(impl Records + ?Sized),
    group: GroupId,
) -> Result<(Position, Configuration), StorageError> {
    Ok(one(from, ("configuration", CONFIGURATION), group)?.unwrap_or_default())
}

/// The prepared transactions and the outcomes.
///
/// # Errors
/// I/O and corruption.
pub fn replicated(
    from: &(impl Records + ?Sized),
    group: GroupId,
) -> Result<Replicated, StorageError> {
    let mut replicated =
        Replicated { applied_at: applied(from, group)?.at, ..Replicated::default() };
    for (_, value) in from.records(&group_key(PREPARED, group))? {
        let record: PrepareRecord = decode("prepare record", group, &value)?;
        replicated.prepared.insert(record.txn, record);
    }
    for (_, value) in from.records(&group_key(OUTCOME, group))? {
        let (txn, record): (TxnId, OutcomeRecord) = decode("outcome", group, &value)?;
        replicated.outcomes.insert(txn, record);
    }
    Ok(replicated)
}

/// Makes a disk that of a founding member of these groups: do this once, when a cluster is
/// founded, and never again for a node whose disk was lost (P9). Groups that are there stay as
/// they are.
///
/// # Errors
/// I/O and corruption.
pub fn found(
    engine: &dyn Engine,
    groups: impl IntoIterator<Item = GroupId>,
    voters: &[NodeId],
) -> Result<(), StorageError> {
    let configuration = Configuration::founding(voters.iter().copied());
    let mut ops = Vec::new();
    for group in groups {
        if one::<Identity>(engine, ("identity", IDENTITY), group)?.is_some() {
            continue;
        }
        let base = Base { configuration: configuration.clone(), ..Base::default() };
        ops.push(put(CONFIGURATION, group, &(base.configured_at, &configuration)));
        ops.push(put(BASE, group, &base));
        let identity = Identity { seat: Seat::FOUNDER, ..Identity::default() };
        ops.push(identity_op(group, identity));
    }
    match ops.is_empty() {
        true => Ok(()),
        false => engine.write(&ops, crate::storage::Durability::Synced),
    }
}

/// The groups of which a disk holds a replica, those included that it was removed from.
///
/// # Errors
/// I/O and corruption.
pub fn hosted(engine: &dyn Engine) -> Result<Vec<GroupId>, StorageError> {
    let group = |key: &[u8]| Some(GroupId(u32::from_be_bytes(key.get(1..5)?.try_into().ok()?)));
    let records = engine.read_meta(&[IDENTITY])?;
    let damaged = || StorageError::Corruption("the name of an identity is too short".into());
    records.iter().map(|(key, _)| group(key).ok_or_else(damaged)).collect()
}

/// Writes who this replica is.
pub fn identity_op(group: GroupId, identity: Identity) -> WriteOp {
    put(IDENTITY, group, &identity)
}

/// Notes until when the votes of a shard's sleeping groups may have been granted to a node (L1).
/// `shard`: the first of its groups.
pub fn granted_op(shard: GroupId, to: NodeId, until: Timestamp) -> WriteOp {
    let mut key = group_key(GRANTED, shard);
    key.extend_from_slice(&to.0.to_be_bytes());
    WriteOp::PutMeta { key, value: codec::encode(&(to, until)) }
}

/// Until when votes of sleeping groups may have been granted, to each node, by whatever shard.
///
/// # Errors
/// I/O and corruption.
pub fn granted(engine: &dyn Engine) -> Result<BTreeMap<NodeId, Timestamp>, StorageError> {
    let mut all = BTreeMap::new();
    for (_, value) in engine.read_meta(&[GRANTED])? {
        let (to, until): (NodeId, Timestamp) = decode("votes", GroupId::ROOT, &value)?;
        let granted: &mut Timestamp = all.entry(to).or_default();
        *granted = until.max(*granted);
    }
    Ok(all)
}

/// Writes promises and votes.
pub fn hard_state_op(group: GroupId, hard: HardState) -> WriteOp {
    put(HARD_STATE, group, &hard)
}

/// Reads back what a group has on disk.
///
/// # Errors
/// I/O, and corruption named with the group; damage of the log is not an error, but part of what
/// is recovered.
pub fn recover(engine: &dyn Engine, group: GroupId) -> Result<Recovered, StorageError> {
    let replicated = replicated(engine, group)?;
    let Some(identity) = one::<Identity>(engine, ("identity", IDENTITY), group)? else {
        return Ok(Recovered { stored: None, replicated });
    };
    let hard: HardState = one(engine, ("hard state", HARD_STATE), group)?.unwrap_or_default();
    let mut base: Base = one(engine, ("base", BASE), group)?.unwrap_or_default();
    let applied = applied(engine, group)?.position;
    let records = engine.read_log(group, base.position.slot.next())?;
    let log = Log::read(group, records, base.position.slot, applied.slot, hard)?;
    if log.begins_at_applied {
        // What is applied needs no log; members that lack it get a snapshot.
        let (configured_at, configuration) = configuration(engine, group)?;
        base = Base { position: applied, configured_at, configuration };
    }
    if log.damaged_until.is_some() && base.configuration.members.len() == 1 {
        let what = format!("the log of {group} is damaged, and no other replica has a copy");
        return Err(StorageError::Corruption(what));
    }
    let stored = Stored {
        seat: identity.seat,
        removed: identity.removed,
        invited: identity.invited,
        hard,
        base,
        entries: log.entries,
        applied: applied.slot,
        damaged_until: log.damaged_until,
    };
    Ok(Recovered { stored: Some(stored), replicated })
}

/// What can be used of a log, which may be damaged.
struct Log {
    entries: Vec<Entry>,
    /// Damage lies below what is applied: the log is used from there on only.
    begins_at_applied: bool,
    /// See [`Stored::damaged_until`].
    damaged_until: Option<Slot>,
}

impl Log {
    fn read(
        group: GroupId,
        records: Vec<LogRecord>,
        base: Slot,
        applied: Slot,
        hard: HardState,
    ) -> Result<Log, StorageError> {
        let last = records.last().map(|record| record.slot);
        // A repair that a crash interrupted goes on where it was: what stands behind is not used.
        let repair_from = hard.repair.map_or(Slot(u64::MAX), |repair| repair.from);
        let mut entries = Vec::new();
        let (mut first, mut next) = (base.next(), base.next());
        let mut below = false;
        for record in records.into_iter().filter(|record| record.slot > base) {
            let missing = record.slot != next;
            let bytes = record.bytes.filter(|_| !missing);
            if let Some(bytes) = bytes.filter(|_| record.slot < repair_from) {
                entries.push(decode("log entry", group, &bytes)?);
                next = record.slot.next();
            } else if record.slot <= applied {
                entries.clear();
                below = true;
                first = applied.next();
                next = record.slot.next();
            } else {
                break;
            }
        }
        if below {
            // Entries between the damage and what is applied were read, and are not needed.
            let skip = usize::try_from(first.0.saturating_sub(next.0 - entries.len() as u64));
            entries.drain(..skip.unwrap_or(usize::MAX).min(entries.len()));
        }
        let end = Slot(if below { applied.0 } else { base.0 } + entries.len() as u64);
        let damaged = last.is_some_and(|last| last > end) || hard.repair.is_some();
        let damaged_until = damaged.then(|| last.unwrap_or(end).max(end));
        Ok(Log { entries, begins_at_applied: below, damaged_until })
    }
}

/// A write of a Paxos replica, as storage operations; those about snapshots and seats change more
/// than the log and have functions of their own.
pub fn log_ops(group: GroupId, write: paxos::Write, ops: &mut Vec<WriteOp>) {
    match write {
        paxos::Write::HardState(hard) => ops.push(hard_state_op(group, hard)),
        paxos::Write::Entry { slot, entry } => {
            ops.push(WriteOp::PutLog { group, slot, bytes: codec::encode(&entry) });
        }
        paxos::Write::Truncate(base) => {
            ops.push(WriteOp::TruncateLog { group, upto: base.position.slot });
            ops.push(put(BASE, group, &base));
        }
        paxos::Write::CutTail { after } => ops.push(WriteOp::CutLogTail { group, after }),
        paxos::Write::StageFirst(_)
        | paxos::Write::StageMore(_)
        | paxos::Write::Install { .. }
        | paxos::Write::Bury(_)
        | paxos::Write::Invited(..)
        | paxos::Write::Rebirth(..) => unreachable!("the group writes snapshots and seats itself"),
    }
}

/// Everything of the group is forgotten; the replica begins anew (P9).
pub fn rebirth_ops(group: GroupId, identity: Identity, ops: &mut Vec<WriteOp>) {
    ops.push(WriteOp::DropTablet { group });
    ops.push(WriteOp::DropStage { group });
    ops.push(WriteOp::TruncateLog { group, upto: Slot(u64::MAX) });
    ops.extend(ALL.map(|kind| WriteOp::DropMeta { prefix: group_key(kind, group) }));
    ops.push(identity_op(group, identity));
}

/// A snapshot takes the place of what was applied: the tablet, its position, prepared transactions
/// and outcomes; and of the log before it, or all of it (P6).
pub fn install_ops(
    group: GroupId,
    base: &Base,
    keep_log: bool,
    replicated: &Replicated,
    ops: &mut Vec<WriteOp>,
) {
    let upto = if keep_log { base.position.slot } else { Slot(u64::MAX) };
    ops.push(WriteOp::TruncateLog { group, upto });
    ops.push(put(BASE, group, base));
    ops.push(put(CONFIGURATION, group, &(base.configured_at, &base.configuration)));
    ops.push(WriteOp::InstallStage { group });
    ops.extend(
        [PREPARED, OUTCOME].map(|kind| WriteOp::DropMeta { prefix: group_key(kind, group) }),
    );
    let prepared = replicated.prepared.values().cloned().map(StateChange::Prepared);
    let outcomes = replicated.outcomes.iter();
    let outcomes = outcomes.map(|(txn, record)| StateChange::Outcome(*txn, record.clone()));
    ops.extend(prepared.chain(outcomes).map(|change| change_op(group, change)));
    ops.push(put(APPLIED, group, &Applied { position: base.position, at: replicated.applied_at }));
}

/// The changes of one applied slot, the slot itself included, as storage operations.
pub fn apply_ops(
    group: GroupId,
    applied: Applied,
    changes: Vec<StateChange>,
    ops: &mut Vec<WriteOp>,
) {
    ops.extend(changes.into_iter().map(|change| change_op(group, change)));
    ops.push(put(APPLIED, group, &applied));
}

/// A configuration was applied.
pub fn configuration_op(group: GroupId, at: Position, configuration: &Configuration) -> WriteOp {
    put(CONFIGURATION, group, &(at, configuration))
}

fn change_op(group: GroupId, change: StateChange) -> WriteOp {
    match change {
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
        StateChange::Forgotten(txn) => WriteOp::DeleteMeta { key: txn_key(OUTCOME, group, txn) },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use paxos::Payload;
    use proto::Ballot;

    /// A log of `last` entries with some of them damaged, as it is recovered: where the log that
    /// is used begins, its length, and until where it is damaged.
    fn read(
        last: u64,
        damaged: &[u64],
        (base, applied): (u64, u64),
        repair: Option<u64>,
    ) -> (bool, u64, Option<u64>) {
        let entry = Entry { ballot: Ballot::default(), payload: Payload::Noop };
        let record = |slot: u64| LogRecord {
            slot: Slot(slot),
            bytes: (!damaged.contains(&slot)).then(|| codec::encode(&entry)),
        };
        let records = (base + 1..=last).map(record).collect();
        let repair = repair.map(|from| paxos::Repair {
            from: Slot(from),
            until: Slot(last),
            promised: Ballot::default(),
        });
        let hard = HardState { repair, ..HardState::default() };
        let log = Log::read(GroupId(1), records, Slot(base), Slot(applied), hard).unwrap();
        (log.begins_at_applied, log.entries.len() as u64, log.damaged_until.map(|slot| slot.0))
    }

    #[test]
    fn damage_is_bridged_by_what_is_applied_and_else_reported() {
        assert_eq!(read(9, &[], (0, 5), None), (false, 9, None));
        assert_eq!(read(9, &[], (4, 5), None), (false, 5, None));
        assert_eq!(read(9, &[3], (0, 5), None), (true, 4, None));
        assert_eq!(read(9, &[1, 5], (0, 5), None), (true, 4, None));
        assert_eq!(read(5, &[5], (0, 5), None), (true, 0, None));
        assert_eq!(read(9, &[7], (0, 5), None), (false, 6, Some(9)));
        assert_eq!(read(9, &[9], (0, 5), None), (false, 8, Some(9)));
        assert_eq!(read(9, &[2, 7], (0, 5), None), (true, 1, Some(9)));
        assert_eq!(read(9, &[], (0, 5), Some(7)), (false, 6, Some(9)));
        assert_eq!(read(9, &[], (0, 5), Some(10)), (false, 9, Some(9)));
    }
}
