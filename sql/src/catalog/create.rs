//! From a `CREATE TABLE` statement to a descriptor, and the rules on the way.

use super::{Catalog, Column, Descriptor, Interleave, KeyPart, TableState};
use crate::error::{ErrorKind, Result, SqlError};
use crate::parse::CreateTable;
use crate::value::Type;
use std::collections::BTreeSet;

/// Most columns of a table (as Cloud Spanner publishes).
pub const COLUMNS_MAX: usize = 1_024;
/// Most parts of a primary key (as Cloud Spanner publishes).
pub const KEY_PARTS_MAX: usize = 16;
/// Most tables on one path of interleaving, the root included (as Cloud Spanner publishes).
pub const DEPTH_MAX: usize = 7;
/// Most tables of a database (as Cloud Spanner publishes).
pub const TABLES_MAX: usize = 5_000;
/// Longest name, in characters (as Cloud Spanner publishes).
pub const NAME_CHARS_MAX: usize = 128;
/// Longest `STRING(n)`, in characters (as Cloud Spanner publishes).
pub const STRING_CHARS_MAX: u32 = 2_621_440;
/// Longest `BYTES(n)` (as Cloud Spanner publishes).
pub const BYTES_MAX: u32 = 10_485_760;

/// Names that other parts of the system speak for.
const RESERVED: [&str; 2] = ["information_schema", "spanner_sys"];

/// The descriptor of a new table.
///
/// # Errors
/// `Schema`, `Limit` or `UnknownTable`; each says which rule was broken.
pub fn describe(statement: &CreateTable, id: u32, catalog: &Catalog) -> Result<Descriptor> {
    let name = &statement.name;
    check_name("table", name)?;
    if RESERVED.contains(&&name.to_lowercase()[..]) {
        return Err(SqlError::schema(format!("the name `{name}` is reserved")));
    }
    if catalog.find(name).is_some() {
        return Err(SqlError::new(ErrorKind::Schema, format!("table `{name}` exists already"))
            .with_hint("CREATE TABLE IF NOT EXISTS leaves it alone"));
    }
    if catalog.tables().count() >= TABLES_MAX {
        return Err(limit(format!("a database may have {TABLES_MAX} tables")));
    }
    let columns = columns(statement)?;
    let key = key(statement, &columns)?;
    let interleave = interleave(statement, &columns, &key, catalog)?;
    let state = TableState::Live;
    Ok(Descriptor { id, name: name.clone(), columns, key, interleave, state })
}

fn limit(message: String) -> SqlError {
    SqlError::new(ErrorKind::Limit, message)
}

fn check_name(what: &str, name: &str) -> Result<()> {
    if name.chars().count() > NAME_CHARS_MAX {
        return Err(limit(format!("a {what} name may have {NAME_CHARS_MAX} characters")));
    }
    let mut chars = name.chars();
    let starts_well = chars.next().is_some_and(|c| c.is_ascii_alphabetic() || c == '_');
    if !starts_well || !chars.all(|c| c.is_ascii_alphanumeric() || c == '_') {
        return Err(SqlError::schema(format!(
            "`{name}` is no {what} name: it needs letters, digits and underscores, and begins with a letter"
        )));
    }
    Ok(())
}

fn columns(statement: &CreateTable) -> Result<Vec<Column>> {
    if statement.columns.len() > COLUMNS_MAX {
        return Err(limit(format!(
            "table `{}` has {} columns; a table may have {COLUMNS_MAX}",
            statement.name,
            statement.columns.len()
        )));
    }
    let mut names = BTreeSet::new();
    let mut columns = Vec::new();
    for (place, column) in statement.columns.iter().enumerate() {
        check_name("column", &column.name)?;
        if !names.insert(column.name.to_lowercase()) {
            return Err(SqlError::schema(format!("column `{}` is declared twice", column.name)));
        }
        check_length(&column.name, &column.data_type)?;
        columns.push(Column {
            id: u32::try_from(place + 1).expect("checked above"),
            name: column.name.clone(),
            data_type: column.data_type,
            not_null: column.not_null,
        });
    }
    Ok(columns)
}

fn check_length(column: &str, data_type: &Type) -> Result<()> {
    let (length, max) = match data_type {
        Type::String(Some(length)) => (*length, STRING_CHARS_MAX),
        Type::Bytes(Some(length)) => (*length, BYTES_MAX),
        _ => return Ok(()),
    };
    if length == 0 || length > max {
        return Err(limit(format!("the length of column `{column}` must be from 1 to {max}")));
    }
    Ok(())
}

fn key(statement: &CreateTable, columns: &[Column]) -> Result<Vec<KeyPart>> {
    let Some(declared) = &statement.primary_key else {
        return Err(SqlError::schema(format!("table `{}` has no primary key", statement.name))
            .with_hint("write PRIMARY KEY (column, …) after the closing parenthesis"));
    };
    if declared.is_empty() {
        return Err(SqlError::schema(format!(
            "the primary key of table `{}` has no columns",
            statement.name
        )));
    }
    if declared.len() > KEY_PARTS_MAX {
        return Err(limit(format!("a primary key may have {KEY_PARTS_MAX} columns")));
    }
    let mut parts: Vec<KeyPart> = Vec::new();
    for (name, desc) in declared {
        let place = columns.iter().position(|column| column.name.eq_ignore_ascii_case(name));
        let Some(column) = place else {
            return Err(SqlError::new(
                ErrorKind::UnknownColumn,
                format!("the primary key names `{name}`, which is not a column"),
            ));
        };
        if parts.iter().any(|part| part.column == column) {
            return Err(SqlError::schema(format!("the primary key names `{name}` twice")));
        }
        parts.push(KeyPart { column, desc: *desc });
    }
    Ok(parts)
}

fn interleave(
    statement: &CreateTable,
    columns: &[Column],
    key: &[KeyPart],
    catalog: &Catalog,
) -> Result<Option<Interleave>> {
    let Some((parent, on_delete)) = &statement.interleave else { return Ok(None) };
    let parent = catalog.table(parent)?;
    if parent.depth + 2 > DEPTH_MAX {
        return Err(limit(format!("tables may be interleaved {DEPTH_MAX} deep")));
    }
    for (place, part) in parent.key().iter().enumerate() {
        let wanted = &parent.columns()[part.column];
        let found = key.get(place).map(|own| (&columns[own.column], own.desc));
        let rule = format!(
            "the primary key of `{}` must begin with that of its parent `{}`",
            statement.name,
            parent.name()
        );
        let Some((own, desc)) = found else {
            return Err(SqlError::schema(format!("{rule}: `{}` is missing", wanted.name)));
        };
        if !own.name.eq_ignore_ascii_case(&wanted.name) {
            return Err(SqlError::schema(format!(
                "{rule}: its part {} is `{}`, not `{}`",
                place + 1,
                own.name,
                wanted.name
            )));
        }
        if own.data_type != wanted.data_type {
            return Err(SqlError::schema(format!(
                "{rule}: `{}` is {} here and {} there",
                own.name, own.data_type, wanted.data_type
            )));
        }
        if desc != part.desc {
            return Err(SqlError::schema(format!(
                "{rule}: `{}` is ASC in one and DESC in the other",
                own.name
            )));
        }
        if own.not_null != wanted.not_null {
            return Err(SqlError::schema(format!(
                "{rule}: `{}` is NOT NULL in only one of them",
                own.name
            )));
        }
    }
    Ok(Some(Interleave { parent: parent.id(), on_delete: *on_delete }))
}
