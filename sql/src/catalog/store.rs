//! The catalog's rows: ordinary versioned rows of the root group, so that a read at an old
//! timestamp finds the schema of that timestamp (R6).
//!
//! ```text
//! 00000000 'n'            next table id, written again by every change of the catalog
//! 00000000 't' id:u32     descriptor
//! ```
//!
//! So the newest of these rows tells since when the catalog is as it is.

use super::create;
use super::{Catalog, Descriptor, TableState};
use crate::error::{Result, SqlError};
use crate::keys::CATALOG_PREFIX;
use crate::parse::CreateTable;
use proto::keys::Row;
use proto::request::LockMode;
use proto::{GroupId, Key, KeyRange, codec};
use truetime::Timestamp;
use txn::client::{ReadWrite, Snapshot};

/// Rows of one page when the catalog is read.
const PAGE_ROWS: u32 = 1_024;

fn next_id_key() -> Key {
    Key::from([&CATALOG_PREFIX[..], b"n"].concat())
}

fn descriptor_key(id: u32) -> Key {
    Key::from([&CATALOG_PREFIX[..], b"t", &id.to_be_bytes()[..]].concat())
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

/// The catalog as of a snapshot.
///
/// # Errors
/// What the read says; `Internal` when the rows are damaged.
pub async fn load(snapshot: &Snapshot) -> Result<Catalog> {
    let rows = snapshot.scan_all(&KeyRange::prefix(&CATALOG_PREFIX)).await?;
    let since = rows.iter().map(|row| row.written).max().unwrap_or(Timestamp::MIN);
    Catalog::new(since, decode(&rows)?.descriptors)
}

/// Reads the catalog in a transaction and keeps everybody else from changing it.
async fn lock(txn: &ReadWrite) -> Result<(u32, Catalog)> {
    let mut range = KeyRange::prefix(&CATALOG_PREFIX);
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
    Ok((stored.next_id, Catalog::new(Timestamp::MIN, stored.descriptors)?))
}

fn put(txn: &ReadWrite, next_id: u32, descriptor: &Descriptor) {
    txn.put(descriptor_key(descriptor.id), codec::encode(descriptor).into());
    txn.put(next_id_key(), codec::encode(&next_id).into());
}

/// Creates a table. `false`: it existed, and the statement said that this is fine.
///
/// # Errors
/// Those of [`create::describe`], and what the reads say.
pub async fn create(txn: &ReadWrite, statement: &CreateTable) -> Result<bool> {
    let (id, catalog) = lock(txn).await?;
    if statement.if_not_exists && catalog.find(&statement.name).is_some() {
        return Ok(false);
    }
    put(txn, id + 1, &create::describe(statement, id, &catalog)?);
    Ok(true)
}

/// Takes a table out of use. `false`: there was none, and the statement said that this is fine.
///
/// # Errors
/// `UnknownTable`; `Schema` while tables are interleaved in it.
pub async fn start_drop(txn: &ReadWrite, name: &str, if_exists: bool) -> Result<bool> {
    let (next_id, catalog) = lock(txn).await?;
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
    put(txn, next_id, &Descriptor { state: TableState::Dropping, ..table.descriptor.clone() });
    Ok(true)
}

/// Forgets a dropped table whose rows are all deleted. Its id stays used up.
///
/// # Errors
/// What the reads say.
pub async fn finish_drop(txn: &ReadWrite, id: u32) -> Result<()> {
    let (next_id, _) = lock(txn).await?;
    txn.delete(descriptor_key(id));
    txn.put(next_id_key(), codec::encode(&next_id).into());
    Ok(())
}
