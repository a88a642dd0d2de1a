//! `SHOW` and `DESCRIBE`.

use super::result::{ResultSet, Tag};
use crate::catalog::{Catalog, OnDelete, Table};
use crate::value::Value;

pub(crate) fn tables(catalog: &Catalog) -> ResultSet {
    let rows = catalog
        .tables()
        .map(|table| {
            let parent = catalog.parent(table).map(|parent| parent.name().to_owned());
            let key: Vec<&str> =
                table.key().iter().map(|part| &table.columns()[part.column].name[..]).collect();
            let on_delete = table.interleave().map(|interleave| match interleave.on_delete {
                OnDelete::Cascade => "CASCADE",
                OnDelete::NoAction => "NO ACTION",
            });
            vec![
                Value::from(table.name()),
                Value::from(key.join(", ")),
                Value::from(parent),
                Value::from(on_delete),
            ]
        })
        .collect();
    ResultSet::texts(Tag::Show, &["table", "primary_key", "parent", "on_delete"], rows)
}

pub(crate) fn describe(table: &Table) -> ResultSet {
    let rows = table
        .columns()
        .iter()
        .enumerate()
        .map(|(place, column)| {
            let key = table.key_places()[place].map(|part| {
                let desc = if table.key()[part].desc { " DESC" } else { "" };
                format!("{}{desc}", part + 1)
            });
            let nullable = if column.not_null { "NO" } else { "YES" };
            vec![
                Value::from(&column.name[..]),
                Value::from(column.data_type.to_string()),
                Value::from(nullable),
                Value::from(key),
            ]
        })
        .collect();
    ResultSet::texts(Tag::Show, &["column", "type", "nullable", "key"], rows)
}

pub(crate) fn create_statement(table: &Table, catalog: &Catalog) -> ResultSet {
    let parent = catalog.parent(table).map(|parent| parent.name());
    let text = Value::from(table.create_statement(parent));
    ResultSet::texts(Tag::Show, &["statement"], vec![vec![text]])
}

/// A variable: one column, one row.
pub(crate) fn variable(name: &str, value: Value) -> ResultSet {
    ResultSet::texts(Tag::Show, &[name], vec![vec![value]])
}
