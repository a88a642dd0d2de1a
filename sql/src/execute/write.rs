//! Changing rows inside a transaction: duplicates, parents, children.
//!
//! Rows to be written are read under exclusive locks, parents under shared ones, so what was
//! checked still holds at the commit. All reads of a statement go out together, one message to
//! each group.

use crate::catalog::{Catalog, OnDelete, Table};
use crate::error::{ErrorKind, Result, SqlError};
use crate::parse::InsertKind;
use crate::value::{Row, Value};
use futures::future::try_join_all;
use proto::request::LockMode;
use proto::{Key, KeyRange};
use std::collections::{BTreeMap, BTreeSet};
use txn::client::ReadWrite;

/// Rows of one page when children are looked for.
const PAGE_ROWS: u32 = 4_096;
/// How many parents' children are looked for at the same time.
const PARENTS_AT_ONCE: usize = 32;

/// Writes of one statement.
pub(crate) struct Writer<'t> {
    pub(crate) txn: &'t ReadWrite,
    pub(crate) catalog: &'t Catalog,
}

impl Writer<'_> {
    /// Inserts rows that give these columns (by place), the others being NULL; the answer is how
    /// many were written.
    pub(crate) async fn insert(
        &self,
        table: &Table,
        columns: &[usize],
        rows: Vec<Row>,
        kind: InsertKind,
    ) -> Result<u64> {
        let whole = columns.len() == table.columns().len();
        let mut keyed = Vec::with_capacity(rows.len());
        for values in rows {
            let mut row = vec![Value::Null; table.columns().len()];
            for (place, value) in columns.iter().zip(values) {
                row[*place] = value;
            }
            if kind == InsertKind::OrUpdate && !whole {
                // The columns not given may exist; those given must be right in any case.
                for place in columns {
                    table.check_value(&table.columns()[*place], &mut row[*place])?;
                }
                self.check_key(table, &mut row)?;
            } else {
                table.check_row(&mut row)?;
            }
            keyed.push((table.encode_key(&row)?, row));
        }
        match kind {
            InsertKind::Insert => self.insert_new(table, keyed).await,
            InsertKind::OrIgnore => self.insert_missing(table, keyed).await,
            InsertKind::OrUpdate if whole => self.overwrite(table, keyed).await,
            InsertKind::OrUpdate => self.merge(table, columns, keyed).await,
        }
    }

    /// NULL for a key column that is NOT NULL, given or not.
    fn check_key(&self, table: &Table, row: &mut Row) -> Result<()> {
        for part in table.key() {
            table.check_value(&table.columns()[part.column], &mut row[part.column])?;
        }
        Ok(())
    }

    async fn insert_new(&self, table: &Table, rows: Vec<(Key, Row)>) -> Result<u64> {
        let mut seen = BTreeSet::new();
        if let Some((_, row)) = rows.iter().find(|(key, _)| !seen.insert(key)) {
            return Err(exists(table, row).with_hint("the statement inserts this key twice"));
        }
        let keys: Vec<Key> = rows.iter().map(|(key, _)| key.clone()).collect();
        let found = self.txn.get_many(&keys, LockMode::Exclusive).await?;
        if let Some(place) = found.iter().position(Option::is_some) {
            return Err(exists(table, &rows[place].1));
        }
        self.check_parents(table, &rows).await?;
        self.put(table, rows)
    }

    async fn insert_missing(&self, table: &Table, rows: Vec<(Key, Row)>) -> Result<u64> {
        let keys: Vec<Key> = rows.iter().map(|(key, _)| key.clone()).collect();
        let found = self.txn.get_many(&keys, LockMode::Exclusive).await?;
        let mut seen = BTreeSet::new();
        let missing: Vec<(Key, Row)> = rows
            .into_iter()
            .zip(found)
            .filter(|((key, _), found)| found.is_none() && seen.insert(key.clone()))
            .map(|(row, _)| row)
            .collect();
        self.check_parents(table, &missing).await?;
        self.put(table, missing)
    }

    async fn overwrite(&self, table: &Table, rows: Vec<(Key, Row)>) -> Result<u64> {
        self.check_parents(table, &rows).await?;
        self.put(table, rows)
    }

    async fn merge(&self, table: &Table, columns: &[usize], rows: Vec<(Key, Row)>) -> Result<u64> {
        let keys: Vec<Key> = rows.iter().map(|(key, _)| key.clone()).collect();
        let found = self.txn.get_many(&keys, LockMode::Exclusive).await?;
        let mut merged: BTreeMap<Key, Row> = BTreeMap::new();
        let count = rows.len() as u64;
        for ((key, row), found) in rows.into_iter().zip(found) {
            let before = match (merged.remove(&key), found) {
                (Some(earlier), _) => Some(earlier),
                (None, Some(value)) => table.decode(&key, &value)?,
                (None, None) => None,
            };
            let mut new = match before {
                Some(mut before) => {
                    for place in columns {
                        before[*place] = row[*place].clone();
                    }
                    before
                }
                None => row,
            };
            table.check_row(&mut new)?;
            merged.insert(key, new);
        }
        let merged: Vec<(Key, Row)> = merged.into_iter().collect();
        self.check_parents(table, &merged).await?;
        self.put(table, merged)?;
        Ok(count)
    }

    /// Updates columns of rows that must exist.
    pub(crate) async fn update_existing(
        &self,
        table: &Table,
        columns: &[usize],
        rows: Vec<Row>,
    ) -> Result<u64> {
        let mut keyed = Vec::with_capacity(rows.len());
        for values in rows {
            let mut row = vec![Value::Null; table.columns().len()];
            for (place, value) in columns.iter().zip(values) {
                row[*place] = value;
                table.check_value(&table.columns()[*place], &mut row[*place])?;
            }
            self.check_key(table, &mut row)?;
            keyed.push((table.encode_key(&row)?, row));
        }
        let keys: Vec<Key> = keyed.iter().map(|(key, _)| key.clone()).collect();
        let found = self.txn.get_many(&keys, LockMode::Exclusive).await?;
        if let Some(place) = found.iter().position(Option::is_none) {
            let row = &keyed[place].1;
            return Err(SqlError::new(
                ErrorKind::NotFound,
                format!(
                    "there is no row {} in table `{}`",
                    table.key_text(&table.key_values(row)),
                    table.name()
                ),
            ));
        }
        self.merge(table, columns, keyed).await
    }

    fn put(&self, table: &Table, rows: Vec<(Key, Row)>) -> Result<u64> {
        let count = rows.len() as u64;
        for (key, row) in rows {
            self.txn.put(key, table.encode_row(&row)?);
        }
        Ok(count)
    }

    /// Every row's parent exists, asked once for each parent.
    async fn check_parents(&self, table: &Table, rows: &[(Key, Row)]) -> Result<()> {
        let Some(parent) = self.catalog.parent(table) else { return Ok(()) };
        let mut parents: BTreeMap<&[u8], &Row> = BTreeMap::new();
        for (key, row) in rows {
            let above = table
                .layout()
                .parent_key(key)
                .ok_or_else(|| SqlError::internal("an interleaved key has a parent's prefix"))?;
            parents.entry(above).or_insert(row);
        }
        let keys: Vec<Key> = parents.keys().map(|key| Key::copy_from_slice(key)).collect();
        let found = self.txn.get_many(&keys, LockMode::Shared).await?;
        let missing = parents.values().zip(found).find(|(_, found)| found.is_none());
        let Some((row, _)) = missing else { return Ok(()) };
        let key = table.key_values(row);
        Err(SqlError::new(
            ErrorKind::ParentMissing,
            format!(
                "row {} of table `{}` needs its parent row {} in table `{}`",
                table.key_text(&key),
                table.name(),
                table.key_text(&key[..parent.key().len()]),
                parent.name()
            ),
        ))
    }

    /// Deletes rows and what is interleaved in them. With `check`, keys without a row are not
    /// counted; else all are known to exist, and locked.
    pub(crate) async fn delete(&self, table: &Table, keys: Vec<Key>, check: bool) -> Result<u64> {
        let mut keys: Vec<Key> = keys.into_iter().collect::<BTreeSet<Key>>().into_iter().collect();
        if check {
            let found = self.txn.get_many(&keys, LockMode::Exclusive).await?;
            let mut found = found.into_iter();
            keys.retain(|_| found.next().flatten().is_some());
        }
        if self.catalog.children(table.id()).next().is_some() {
            for some in keys.chunks(PARENTS_AT_ONCE) {
                try_join_all(some.iter().map(|key| self.delete_below(table, key))).await?;
            }
        }
        let count = keys.len() as u64;
        for key in keys {
            self.txn.delete(key);
        }
        Ok(count)
    }

    /// Deletes all rows interleaved in one row; its range is locked, so none can appear.
    async fn delete_below(&self, table: &Table, key: &Key) -> Result<()> {
        let below = self.catalog.descendants(table.id());
        let mut range = KeyRange::prefix(key);
        range.start = proto::keys::key_after(key);
        let mut doomed = Vec::new();
        for group in self.txn.groups_of(&range) {
            let mut rest = Some(range.clone());
            while let Some(part) = rest.take() {
                let page = self.txn.scan_page(group, &part, PAGE_ROWS, LockMode::Exclusive).await?;
                doomed.extend(page.rows.into_iter().map(|row| row.key));
                rest = page.resume.map(|start| KeyRange { start, end: range.end.clone() });
            }
        }
        for child in &doomed {
            // A row of no table belongs to a dropped one, and is deleted elsewhere.
            let Some(owner) = below.iter().find(|t| t.layout().decode(child).is_some()) else {
                continue;
            };
            if owner.interleave().is_some_and(|i| i.on_delete == OnDelete::NoAction) {
                let parent_key = table.layout().decode(key).unwrap_or_default();
                return Err(SqlError::new(
                    ErrorKind::ChildrenExist,
                    format!(
                        "row {} of table `{}` has rows in table `{}`",
                        table.key_text(&parent_key),
                        table.name(),
                        owner.name()
                    ),
                )
                .with_hint("delete those first, or declare the table ON DELETE CASCADE"));
            }
        }
        for child in doomed {
            self.txn.delete(child);
        }
        Ok(())
    }
}

fn exists(table: &Table, row: &Row) -> SqlError {
    SqlError::new(
        ErrorKind::AlreadyExists,
        format!(
            "row {} already exists in table `{}`",
            table.key_text(&table.key_values(row)),
            table.name()
        ),
    )
}
