//! From a `CREATE TABLE` statement to a descriptor, and the rules on the way.

use super::{Catalog, Column, Descriptor, Interleave, KeyPart, TableState};
use crate::error::{ErrorKind, Result, SqlError};
use crate::parse::CreateTable;
use crate::value::Type;
use std::collections::BTreeSet;
use truetime::Timestamp;

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

/// The descriptor of a new table, in use from a timestamp on.
///
/// # Errors
/// `Schema`, `Limit` or `UnknownTable`; each says which rule was broken.
pub fn describe(
    statement: &CreateTable,
    id: u32,
    from: Timestamp,
    catalog: &Catalog,
) -> Result<Descriptor> {
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
    let state = TableState::Live { from };
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parse::{Statement, parse};

    /// A catalog of these tables, or what is wrong with the last.
    fn catalog(statements: &[&str]) -> std::result::Result<Catalog, String> {
        let mut descriptors = Vec::new();
        let mut catalog = Catalog::default();
        for (statement, id) in statements.iter().zip(1..) {
            let parsed = parse(statement).map_err(|error| error.message)?;
            let Statement::CreateTable(table) = parsed else { unreachable!("{statement}") };
            let described = describe(&table, id, Timestamp::MIN, &catalog);
            descriptors.push(described.map_err(|error| error.message)?);
            catalog = Catalog::new(Timestamp::MIN, &descriptors).map_err(|e| e.message)?;
        }
        Ok(catalog)
    }

    fn refusal(statements: &[&str]) -> String {
        catalog(statements).err().unwrap_or_default()
    }

    const PARENT: &str = "CREATE TABLE p (a INT64 NOT NULL, b STRING(9)) PRIMARY KEY (a, b DESC)";

    #[test]
    fn each_rule_has_its_refusal() {
        for (statement, message) in [
            ("CREATE TABLE t (a INT64)", "table `t` has no primary key"),
            (
                "CREATE TABLE t (a INT64) PRIMARY KEY ()",
                "the primary key of table `t` has no columns",
            ),
            (
                "CREATE TABLE t (a INT64) PRIMARY KEY (b)",
                "the primary key names `b`, which is not a column",
            ),
            ("CREATE TABLE t (a INT64) PRIMARY KEY (a, A)", "the primary key names `A` twice"),
            ("CREATE TABLE t (a INT64, A BOOL) PRIMARY KEY (a)", "column `A` is declared twice"),
            ("CREATE TABLE P (a INT64) PRIMARY KEY (a)", "table `P` exists already"),
            (
                "CREATE TABLE information_schema (a INT64) PRIMARY KEY (a)",
                "the name `information_schema` is reserved",
            ),
            (
                "CREATE TABLE `a b` (a INT64) PRIMARY KEY (a)",
                "`a b` is no table name: it needs letters, digits and underscores, and begins with a letter",
            ),
            (
                "CREATE TABLE t (a STRING(0)) PRIMARY KEY (a)",
                "the length of column `a` must be from 1 to 2621440",
            ),
            (
                "CREATE TABLE t (a BYTES(10485761)) PRIMARY KEY (a)",
                "the length of column `a` must be from 1 to 10485760",
            ),
        ] {
            assert_eq!(refusal(&[PARENT, statement]), message, "{statement}");
        }
    }

    #[test]
    fn a_child_key_begins_with_its_parents() {
        let rule = "the primary key of `c` must begin with that of its parent `p`";
        for (columns, key, message) in [
            ("a INT64 NOT NULL", "a", format!("{rule}: `b` is missing")),
            ("a INT64 NOT NULL, x INT64", "a, x", format!("{rule}: its part 2 is `x`, not `b`")),
            (
                "a INT64 NOT NULL, b STRING(8)",
                "a, b DESC",
                format!("{rule}: `b` is STRING(8) here and STRING(9) there"),
            ),
            (
                "a INT64 NOT NULL, b STRING(9)",
                "a, b",
                format!("{rule}: `b` is ASC in one and DESC in the other"),
            ),
            (
                "a INT64, b STRING(9)",
                "a, b DESC",
                format!("{rule}: `a` is NOT NULL in only one of them"),
            ),
            ("a INT64 NOT NULL, B STRING(9), n INT64", "A, b DESC, n", String::new()),
        ] {
            let child =
                format!("CREATE TABLE c ({columns}) PRIMARY KEY ({key}), INTERLEAVE IN PARENT P");
            assert_eq!(refusal(&[PARENT, &child]), message);
        }
        let orphan = "CREATE TABLE c (a INT64) PRIMARY KEY (a), INTERLEAVE IN PARENT q";
        assert_eq!(refusal(&[PARENT, orphan]), "there is no table `q`");
    }

    #[test]
    fn limits_are_those_published() {
        let columns: Vec<String> = (0..=COLUMNS_MAX).map(|n| format!("c{n} INT64")).collect();
        let wide = format!("CREATE TABLE t ({}) PRIMARY KEY (c0)", columns.join(", "));
        assert_eq!(refusal(&[&wide]), "table `t` has 1025 columns; a table may have 1024");
        let names: Vec<String> = (0..=KEY_PARTS_MAX).map(|n| format!("c{n}")).collect();
        let deep_key = format!(
            "CREATE TABLE t ({}) PRIMARY KEY ({})",
            columns[..20].join(", "),
            names.join(", ")
        );
        assert_eq!(refusal(&[&deep_key]), "a primary key may have 16 columns");
        let chain: Vec<String> = (0..=DEPTH_MAX)
            .map(|depth| {
                let parent = match depth {
                    0 => String::new(),
                    _ => format!(", INTERLEAVE IN PARENT t{}", depth - 1),
                };
                format!("CREATE TABLE t{depth} (a INT64) PRIMARY KEY (a){parent}")
            })
            .collect();
        let chain: Vec<&str> = chain.iter().map(String::as_str).collect();
        assert_eq!(refusal(&chain), "tables may be interleaved 7 deep");
        let whole = catalog(&chain[..DEPTH_MAX]).expect("seven are fine");
        assert_eq!(whole.descendants(1).len(), DEPTH_MAX - 1);
    }
}
