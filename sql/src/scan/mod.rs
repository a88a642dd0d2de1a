//! Reading tables for DataFusion: filters on the primary key become key ranges ([`ranges`]), a
//! scan has one partition for each group it touches ([`provider`], [`stream`]), rows become
//! record batches ([`batch`]), and results values again ([`convert`]).

pub mod batch;
pub mod convert;
pub mod provider;
pub mod ranges;
pub mod stream;

use crate::error::Result;
use proto::request::LockMode;
use proto::{GroupId, Key, KeyRange, Page, Value};
use txn::client::{ReadWrite, Snapshot};

/// Where rows are read from.
#[derive(Clone)]
pub enum Reader {
    /// At one timestamp, without locks.
    Snapshot(Snapshot),
    /// The newest rows and the transaction's own writes, under locks of this strength.
    ReadWrite(ReadWrite, LockMode),
}

impl Reader {
    /// The values of keys, in their order.
    ///
    /// # Errors
    /// What the groups say.
    pub async fn get_many(&self, keys: &[Key]) -> Result<Vec<Option<Value>>> {
        Ok(match self {
            Reader::Snapshot(snapshot) => snapshot.get_many(keys).await?,
            Reader::ReadWrite(txn, mode) => txn.get_many(keys, *mode).await?,
        })
    }

    /// One page of a range at one group.
    ///
    /// # Errors
    /// What the group says.
    pub async fn scan_page(&self, group: GroupId, range: &KeyRange, rows: u32) -> Result<Page> {
        Ok(match self {
            Reader::Snapshot(snapshot) => snapshot.scan_page(group, range, rows).await?,
            Reader::ReadWrite(txn, mode) => txn.scan_page(group, range, rows, *mode).await?,
        })
    }

    /// The groups whose pages together make up a range.
    pub fn groups_of(&self, range: &KeyRange) -> Vec<GroupId> {
        match self {
            Reader::Snapshot(snapshot) => snapshot.groups_of(range),
            Reader::ReadWrite(txn, _) => txn.groups_of(range),
        }
    }
}

impl std::fmt::Debug for Reader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Reader::Snapshot(snapshot) => write!(f, "snapshot at {}", snapshot.timestamp()),
            Reader::ReadWrite(txn, mode) => write!(f, "{} under {mode:?} locks", txn.id()),
        }
    }
}
