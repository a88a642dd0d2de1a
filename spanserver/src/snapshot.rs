//! The content of snapshots (P7): how a tablet becomes parts, and parts a tablet.
//!
//! A snapshot is read from a view of the engine that is pinned when its first part is asked for:
//! the tablet, the applied slot, the configuration and the tables are of one moment, and commits go
//! on meanwhile. A part is a list of pieces: versions, and records of the tables.

use crate::meta;
use crate::server::Event;
use crate::storage::{Engine, Pinned, StorageError, WriteOp};
use bytes::Bytes;
use paxos::{Base, ChunkWanted, SnapshotId};
use proto::command::PrepareRecord;
use proto::{GroupId, Key, TxnId, Value, codec};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use truetime::Timestamp;
use txn::server::{OutcomeRecord, Replicated};

/// About how many bytes one part has.
const PART_BYTES: usize = 512 << 10;
/// Records of the tables in one part.
const PART_RECORDS: usize = 4_096;

/// What a part is made of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Piece {
    /// The highest timestamp among the applied entries.
    AppliedAt(Timestamp),
    /// A prepared transaction.
    Prepared(PrepareRecord),
    /// What became of a transaction.
    Outcome(TxnId, OutcomeRecord),
    /// A version.
    Version(Key, Timestamp, Option<Value>),
}

/// Where a part begins.
#[derive(Clone, Debug)]
enum Place {
    Tables(usize),
    Versions(Option<(Key, Timestamp)>),
}

/// A view of the engine that snapshots are read from.
struct View {
    pinned: Box<dyn Pinned>,
    base: Base,
    tables: Vec<Piece>,
    /// Where each part begins that was read so far, and the one after.
    places: Vec<Place>,
}

/// The views of one running server; a crash forgets them, and the leaders that wanted them.
#[derive(Default)]
pub struct Pins {
    views: BTreeMap<(GroupId, SnapshotId), View>,
}

impl Pins {
    /// Reads a part. Call it when all that the step applied is written.
    ///
    /// # Errors
    /// I/O and corruption: fatal.
    pub fn read(
        &mut self,
        engine: &dyn Engine,
        group: GroupId,
        wanted: ChunkWanted,
    ) -> Result<Event, StorageError> {
        let ChunkWanted { id, index, empty } = wanted;
        let view = match self.views.entry((group, id)) {
            std::collections::btree_map::Entry::Occupied(view) => view.into_mut(),
            std::collections::btree_map::Entry::Vacant(place) => {
                place.insert(View::pin(engine, group)?)
            }
        };
        let base = view.base.clone();
        let (data, last) = match empty {
            true => (Bytes::new(), true),
            false => view.part(group, index)?,
        };
        Ok(Event::ChunkRead { group, id, index, base, data, last })
    }

    /// Lets go of a view.
    pub fn forget(&mut self, group: GroupId, id: SnapshotId) {
        self.views.remove(&(group, id));
    }

    /// How many views are held.
    pub fn len(&self) -> usize {
        self.views.len()
    }

    /// Whether none is held.
    pub fn is_empty(&self) -> bool {
        self.views.is_empty()
    }
}

impl View {
    fn pin(engine: &dyn Engine, group: GroupId) -> Result<View, StorageError> {
        let pinned = engine.pin()?;
        let view = pinned.as_ref();
        let position = meta::applied(view, group)?.position;
        let (configured_at, configuration) = meta::configuration(view, group)?;
        let Replicated { prepared, outcomes, applied_at } = meta::replicated(view, group)?;
        let mut tables = vec![Piece::AppliedAt(applied_at)];
        tables.extend(prepared.into_values().map(Piece::Prepared));
        tables.extend(outcomes.into_iter().map(|(txn, record)| Piece::Outcome(txn, record)));
        let base = Base { position, configured_at, configuration };
        Ok(View { pinned, base, tables, places: vec![Place::Tables(0)] })
    }

    fn part(&mut self, group: GroupId, index: u64) -> Result<(Bytes, bool), StorageError> {
        // The leader asks for one part after the other, and again for those that were lost.
        let index = usize::try_from(index).unwrap_or(usize::MAX);
        let Some(place) = self.places.get(index).cloned() else {
            let what = format!("part {index} of a snapshot of {group} before those ahead of it");
            return Err(StorageError::Io(what));
        };
        let mut pieces = Vec::new();
        let (next, last) = match place {
            Place::Tables(from) => {
                let upto = (from + PART_RECORDS).min(self.tables.len());
                pieces.extend_from_slice(&self.tables[from..upto]);
                if upto < self.tables.len() {
                    (Place::Tables(upto), false)
                } else {
                    self.versions(group, None, &mut pieces)?
                }
            }
            Place::Versions(after) => self.versions(group, after, &mut pieces)?,
        };
        if index + 1 == self.places.len() {
            self.places.push(next);
        }
        Ok((Bytes::from(codec::encode(&pieces)), last))
    }

    fn versions(
        &self,
        group: GroupId,
        after: Option<(Key, Timestamp)>,
        pieces: &mut Vec<Piece>,
    ) -> Result<(Place, bool), StorageError> {
        let page = self.pinned.read_versions(group, after.as_ref(), PART_BYTES)?;
        let end = page.versions.last().map(|(key, at, _)| (key.clone(), *at)).or(after);
        pieces.extend(page.versions.into_iter().map(|(k, at, value)| Piece::Version(k, at, value)));
        Ok((Place::Versions(end), page.done))
    }
}

/// A snapshot as it arrives: versions go to the staged tablet, the tables wait here.
#[derive(Debug, Default)]
pub(crate) struct Arriving {
    pub replicated: Replicated,
}

impl Arriving {
    /// Whether these bytes are a part; a witness gets empty ones.
    pub fn is_part(data: &[u8]) -> bool {
        data.is_empty() || codec::decode::<Vec<Piece>>(data).is_ok()
    }

    /// Takes a part.
    pub fn take(&mut self, data: &[u8], group: GroupId, ops: &mut Vec<WriteOp>) {
        let pieces = match data.is_empty() {
            true => Vec::new(),
            false => codec::decode::<Vec<Piece>>(data).expect("checked when it arrived"),
        };
        for piece in pieces {
            match piece {
                Piece::AppliedAt(at) => self.replicated.applied_at = at,
                Piece::Prepared(record) => {
                    self.replicated.prepared.insert(record.txn, record);
                }
                Piece::Outcome(txn, record) => {
                    self.replicated.outcomes.insert(txn, record);
                }
                Piece::Version(key, at, value) => {
                    ops.push(WriteOp::StageVersion { group, key, at, value });
                }
            }
        }
    }
}
