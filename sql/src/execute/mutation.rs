//! Changes without SQL: rows given by values, many at a time.

use super::write::Writer;
use crate::catalog::Table;
use crate::error::{ErrorKind, Result, SqlError};
use crate::parse::InsertKind;
use crate::value::{Row, Value};

/// What a mutation does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MutationKind {
    /// The row must not exist.
    Insert,
    /// The row is written whether it exists or not; columns not named keep their values.
    InsertOrUpdate,
    /// The row must exist; columns not named keep their values.
    Update,
    /// The row need not exist; what is interleaved in it is deleted by the tables' rules.
    Delete,
}

/// One row's change. The columns must name the whole primary key; for a deletion they name
/// nothing else.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mutation {
    /// What it does.
    pub kind: MutationKind,
    /// In which table.
    pub table: String,
    /// Which columns the values are for.
    pub columns: Vec<String>,
    /// One for each column.
    pub values: Vec<Value>,
}

impl Mutation {
    /// A mutation of this kind.
    pub fn new(kind: MutationKind, table: &str, columns: &[&str], values: Vec<Value>) -> Mutation {
        let columns = columns.iter().map(|column| (*column).to_owned()).collect();
        Mutation { kind, table: table.to_owned(), columns, values }
    }
}

impl Writer<'_> {
    /// Buffers mutations in their order. Neighbours of one kind, table and column list are
    /// checked together: that is what makes loading fast.
    pub(crate) async fn apply(&self, mutations: &[Mutation]) -> Result<()> {
        let same = |a: &Mutation, b: &Mutation| {
            a.kind == b.kind && a.table == b.table && a.columns == b.columns
        };
        for run in mutations.chunk_by(same) {
            let first = &run[0];
            let table = self.catalog.table(&first.table)?;
            let columns = places(table, &first.columns)?;
            let rows = run.iter().map(|mutation| values(mutation, columns.len()));
            let rows = rows.collect::<Result<Vec<Row>>>()?;
            match first.kind {
                MutationKind::Insert => {
                    self.insert(table, &columns, rows, InsertKind::Insert).await?;
                }
                MutationKind::InsertOrUpdate => {
                    self.insert(table, &columns, rows, InsertKind::OrUpdate).await?;
                }
                MutationKind::Update => {
                    self.update_existing(table, &columns, rows).await?;
                }
                MutationKind::Delete => {
                    let keys = rows.into_iter().map(|row| key(table, &columns, row));
                    let keys = keys.collect::<Result<Vec<_>>>()?;
                    self.delete(table, keys, true).await?;
                }
            }
        }
        Ok(())
    }
}

fn places(table: &Table, names: &[String]) -> Result<Vec<usize>> {
    let mut places = Vec::with_capacity(names.len());
    for name in names {
        let place = table.column(name)?;
        if places.contains(&place) {
            return Err(SqlError::new(
                ErrorKind::UnknownColumn,
                format!("column `{name}` is named twice"),
            ));
        }
        places.push(place);
    }
    Ok(places)
}

fn values(mutation: &Mutation, columns: usize) -> Result<Row> {
    if mutation.values.len() != columns {
        return Err(SqlError::type_error(format!(
            "{columns} columns, but {} values",
            mutation.values.len()
        )));
    }
    Ok(mutation.values.clone())
}

/// The key of a row to delete.
fn key(table: &Table, columns: &[usize], values: Row) -> Result<proto::Key> {
    let key_columns = columns.iter().all(|place| table.key_places()[*place].is_some());
    if !key_columns || columns.len() != table.key().len() {
        return Err(SqlError::new(
            ErrorKind::UnknownColumn,
            format!("a deletion names the primary key of `{}` and nothing else", table.name()),
        ));
    }
    let mut row = vec![Value::Null; table.columns().len()];
    for (place, value) in columns.iter().zip(values) {
        row[*place] = value.coerce(&table.columns()[*place].data_type)?;
    }
    table.encode_key(&row)
}
