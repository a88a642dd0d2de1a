//! The catalog's rows: ordinary versioned rows of the root group, so that a read at an old
//! timestamp finds the schema of that timestamp (R6).
//!
//! ```text
//! 00000000 'n'            next table id, written again by every change of the catalog
//! 00000000 't' id:u32     descriptor
//! ```
//!
//! So the first of these rows tells since when the catalog is as it is. Other rows of the root group
//! share the prefix and are none of the catalog's business.

use super::create;
use super::timeline::Timeline;
use super::{Descriptor, TableState};
use crate::error::{Result, SqlError};
use crate::keys::CATALOG_PREFIX;
use crate::parse::CreateTable;
use proto::keys::{Row, prefix_end};
use proto::request::LockMode;
use proto::{GroupId, Key, KeyRange, codec};
use truetime::Timestamp;
use txn::client::{ReadWrite, Snapshot};

/// Rows of one page when the catalog is read.
const PAGE_ROWS: u32 = 1_024;

fn next_id_key() -> Key {
    Key::from([&CATALOG_PREFIX[..], b"n"].concat())
}

fn descriptors_prefix() -> Vec<u8> {
    [&CATALOG_PREFIX[..], b"t"].concat()
}

fn descriptor_key(id: u32) -> Key {
    Key::from([&descriptors_prefix()[..], &id.to_be_bytes()[..]].concat())
}

/// The rows of the catalog, and no others.
fn rows_range() -> KeyRange {
    KeyRange { start: next_id_key(), end: prefix_end(&descriptors_prefix()) }
}

/// What the catalog's rows say.
struct Stored {
    next_id: u32,
    descriptors: Vec<Descriptor>,
}

fn decode(rows: &[Row]) -> Result<Stored> {
    let damaged = |error| SqlError::internal(format!("the catalog is damaged: {error}"));
    let mut stored = Stored { next_id: 1, descriptors: Vec::new() };
    for row in rows {
        if row.key == next_id_key() {
            stored.next_id = codec::decode(&row.value).map_err(damaged)?;
        } else {
            stored.descriptors.push(codec::decode(&row.value).map_err(damaged)?);
        }
    }
    Ok(stored)
}

fn newest(rows: &[Row]) -> Timestamp {
    rows.iter().map(|row| row.written).max().unwrap_or(Timestamp::MIN)
}

/// Since when the catalog's rows are as they are at a snapshot; one small read.
///
/// # Errors
/// What the read says.
pub async fn written(snapshot: &Snapshot) -> Result<Timestamp> {
    let page = snapshot.scan_page(GroupId::ROOT, &KeyRange::prefix(&next_id_key()), 1).await?;
    Ok(newest(&page.rows))
}

/// The catalog's rows as of a snapshot.
///
/// # Errors
/// What the read says; `Internal` when the rows are damaged.
pub async fn load(snapshot: &Snapshot) -> Result<Timeline> {
    let range = rows_range();
    let mut rows = Vec::new();
    let mut rest = Some(range.clone());
    while let Some(part) = rest.take() {
        let page = snapshot.scan_page(GroupId::ROOT, &part, PAGE_ROWS).await?;
        rows.extend(page.rows);
        rest = page.resume.map(|start| KeyRange { start, end: range.end.clone() });
    }
    Timeline::new(newest(&rows), &decode(&rows)?.descriptors)
}

/// The catalog in a transaction that means to change it.
pub struct Locked {
    next_id: u32,
    /// What its rows say. The transaction must not change them while something is
    /// [pending](Timeline::pending): one change at a time is on its way.
    pub timeline: Timeline,
}

/// Reads the catalog in a transaction and keeps everybody else from changing it.
///
/// # Errors
/// What the reads say; `Internal` when the rows are damaged.
pub async fn lock(txn: &ReadWrite) -> Result<Locked> {
    let mut range = rows_range();
    let mut rows = Vec::new();
    loop {
        let page = txn.scan_page(GroupId::ROOT, &range, PAGE_ROWS, LockMode::Exclusive).await?;
        rows.extend(page.rows);
        match page.resume {
            Some(start) => range.start = start,
            None => break,
        }
    }
    let stored = decode(&rows)?;
    let timeline = Timeline::new(newest(&rows), &stored.descriptors)?;
    Ok(Locked { next_id: stored.next_id, timeline })
}

fn put(txn: &ReadWrite, next_id: u32, descriptor: &Descriptor) {
    txn.put(descriptor_key(descriptor.id), codec::encode(descriptor).into());
    txn.put(next_id_key(), codec::encode(&next_id).into());
}

/// Creates a table, in use from a timestamp on ([`Timestamp::MIN`]: from the commit on). `false`:
/// it existed, and the statement said that this is fine.
///
/// # Errors
/// Those of [`create::describe`].
pub fn create(
    txn: &ReadWrite,
    locked: &Locked,
    statement: &CreateTable,
    from: Timestamp,
) -> Result<bool> {
    let (id, catalog) = (locked.next_id, locked.timeline.last());
    if statement.if_not_exists && catalog.find(&statement.name).is_some() {
        return Ok(false);
    }
    put(txn, id + 1, &create::describe(statement, id, from, catalog)?);
    Ok(true)
}

/// Takes a table out of use, from a timestamp on ([`Timestamp::MIN`]: from the commit on). `false`:
/// there was none, and the statement said that this is fine.
///
/// # Errors
/// `UnknownTable`; `Schema` while tables are interleaved in it.
pub fn start_drop(
    txn: &ReadWrite,
    locked: &Locked,
    (name, if_exists): (&str, bool),
    until: Timestamp,
) -> Result<bool> {
    let catalog = locked.timeline.last();
    if if_exists && catalog.find(name).is_none() {
        return Ok(false);
    }
    let table = catalog.table(name)?;
    let mut children: Vec<&str> = catalog.children(table.id()).map(|t| t.name()).collect();
    if !children.is_empty() {
        children.sort_unstable();
        return Err(SqlError::schema(format!(
            "table `{}` has interleaved children: {}",
            table.name(),
            children.join(", ")
        ))
        .with_hint("drop them first"));
    }
    let state = TableState::Dropping { until };
    put(txn, locked.next_id, &Descriptor { state, ..table.descriptor.clone() });
    Ok(true)
}

/// Forgets a dropped table whose rows are all deleted; one that another process has forgotten
/// already is fine. Its id stays used up.
pub fn finish_drop(txn: &ReadWrite, locked: &Locked, id: u32) {
    if locked.timeline.dropping().any(|(table, _)| table.id() == id) {
        txn.delete(descriptor_key(id));
        txn.put(next_id_key(), codec::encode(&locked.next_id).into());
    }
}
