//! The fast path: statements that name whole primary keys. One read or write of a key, no
//! DataFusion; found once per text and schema.

use super::Params;
use super::result::{ResultColumn, ResultSet, RowStream, Tag};
use super::scalar::{Scalar, column};
use super::write::Writer;
use crate::catalog::{Catalog, Table};
use crate::error::Result;
use crate::parse::{Insert, InsertKind, InsertSource, Statement};
use crate::scan::Reader;
use crate::value::{Row, Value};
use proto::Key;
use proto::request::LockMode;
use sqlparser::ast::{
    BinaryOperator, Expr, GroupByExpr, LimitClause, Query, Select, SelectItem, SetExpr,
    TableFactor, Value as Literal,
};
use std::sync::Arc;
use txn::client::ReadWrite;

/// A statement of the fast path.
#[derive(Debug)]
pub(crate) struct Point {
    pub(crate) table: Arc<Table>,
    pub(crate) action: Action,
}

/// What it does.
#[derive(Debug)]
pub(crate) enum Action {
    /// Reads columns of the row with this key.
    Select { key: Vec<Scalar>, columns: Vec<usize>, names: Vec<ResultColumn> },
    /// Writes rows given by values.
    Insert { kind: InsertKind, columns: Vec<usize>, rows: Vec<Vec<Scalar>> },
    /// Sets columns of the row with this key.
    Update { key: Vec<Scalar>, set: Vec<(usize, Scalar)> },
    /// Deletes the row with this key.
    Delete { key: Vec<Scalar> },
}

impl Point {
    /// The fast path of a statement. `None`: it has none, or is wrong; then the ordinary path
    /// says what is wrong with it.
    pub(crate) fn compile(statement: &Statement, catalog: &Catalog) -> Option<Point> {
        match statement {
            Statement::Query(query) => select(query, catalog),
            Statement::Insert(statement) => insert(statement, catalog),
            Statement::Update(update) => {
                let table = catalog.find(&update.table.text)?;
                let alias = update.alias.as_deref();
                let key = whole_key(&update.filter, table, alias)?;
                let set = update
                    .set
                    .iter()
                    .map(|(name, expr)| {
                        let place = table.column(&name.text).ok()?;
                        let is_key = table.key_places()[place].is_some();
                        let value = Scalar::over(expr, table, alias)?;
                        (!is_key).then_some((place, value))
                    })
                    .collect::<Option<Vec<_>>>()?;
                let distinct: std::collections::BTreeSet<usize> =
                    set.iter().map(|(place, _)| *place).collect();
                if distinct.len() < set.len() {
                    return None;
                }
                Some(Point { table: table.clone(), action: Action::Update { key, set } })
            }
            Statement::Delete(delete) => {
                let table = catalog.find(&delete.table.text)?;
                let key = whole_key(&delete.filter, table, delete.alias.as_deref())?;
                Some(Point { table: table.clone(), action: Action::Delete { key } })
            }
            _ => None,
        }
    }

    /// Runs a `SELECT`.
    pub(crate) async fn read(&self, reader: &Reader, params: &Params) -> Result<ResultSet> {
        let Action::Select { key, columns, names } = &self.action else {
            unreachable!("queries compile to this");
        };
        let mut rows = Vec::new();
        if let Some((key, _)) = self.key(key, params)?
            && let Some(value) = reader.get_many(std::slice::from_ref(&key)).await?.pop().flatten()
            && let Some(row) = self.table.decode(&key, &value)?
        {
            rows.push(columns.iter().map(|place| row[*place].clone()).collect());
        }
        Ok(ResultSet::rows(Tag::Select, names.clone(), RowStream::Ready(rows)))
    }

    /// Runs a change; the answer is how many rows it affected.
    pub(crate) async fn write(
        &self,
        txn: &ReadWrite,
        catalog: &Catalog,
        params: &Params,
    ) -> Result<u64> {
        let writer = Writer { txn, catalog };
        match &self.action {
            Action::Select { .. } => unreachable!("queries change nothing"),
            Action::Insert { kind, columns, rows } => {
                let rows = rows
                    .iter()
                    .map(|row| row.iter().map(|value| value.value(&[], params)).collect())
                    .collect::<Result<Vec<Row>>>()?;
                writer.insert(&self.table, columns, rows, *kind).await
            }
            Action::Update { key, set } => {
                let Some((key, _)) = self.key(key, params)? else { return Ok(0) };
                let mut found =
                    txn.get_many(std::slice::from_ref(&key), LockMode::Exclusive).await?;
                let Some(value) = found.pop().flatten() else { return Ok(0) };
                let Some(old) = self.table.decode(&key, &value)? else { return Ok(0) };
                let mut new = old.clone();
                for (place, value) in set {
                    new[*place] = value.value(&old, params)?;
                    self.table.check_value(&self.table.columns()[*place], &mut new[*place])?;
                }
                txn.put(key, self.table.encode_row(&new)?);
                Ok(1)
            }
            Action::Delete { key } => match self.key(key, params)? {
                Some((key, _)) => writer.delete(&self.table, vec![key], true).await,
                None => Ok(0),
            },
        }
    }

    /// The key these values make. `None`: one is NULL, which equals nothing.
    pub(crate) fn key(&self, key: &[Scalar], params: &Params) -> Result<Option<(Key, Row)>> {
        let mut values = Vec::with_capacity(key.len());
        for (part, value) in self.table.key().iter().zip(key) {
            let column = &self.table.columns()[part.column];
            let value = match value.value(&[], params)? {
                Value::Null => return Ok(None),
                // Lengths do not matter for comparing.
                value => value.coerce(&unbounded(&column.data_type)).map_err(|mut error| {
                    error.message = format!("column `{}`: {}", column.name, error.message);
                    error
                })?,
            };
            values.push(value);
        }
        Ok(Some((self.table.layout().encode(&values)?, values)))
    }
}

fn unbounded(data_type: &crate::value::Type) -> crate::value::Type {
    use crate::value::Type;
    match data_type {
        Type::String(_) => Type::String(None),
        Type::Bytes(_) => Type::Bytes(None),
        other => *other,
    }
}

fn select(query: &Query, catalog: &Catalog) -> Option<Point> {
    let plain = query.with.is_none()
        && query.order_by.is_none()
        && query.fetch.is_none()
        && query.locks.is_empty()
        && query.pipe_operators.is_empty()
        && at_least_one(query.limit_clause.as_ref());
    let SetExpr::Select(select) = &*query.body else { return None };
    if !plain || !is_plain(select) {
        return None;
    }
    let [from] = &select.from[..] else { return None };
    let TableFactor::Table { name, alias, args: None, version: None, sample: None, .. } =
        &from.relation
    else {
        return None;
    };
    if !from.joins.is_empty() {
        return None;
    }
    let [part] = &name.0[..] else { return None };
    let table = catalog.find(&part.as_ident()?.value)?;
    let alias = alias.as_ref().map(|alias| alias.name.value.as_str());
    let key = whole_key(select.selection.as_ref()?, table, alias)?;
    let mut columns = Vec::new();
    let mut names = Vec::new();
    let mut add = |place: usize, name: &str| {
        columns.push(place);
        let data_type = unbounded(&table.columns()[place].data_type);
        names.push(ResultColumn { name: name.to_owned(), data_type });
    };
    for item in &select.projection {
        match item {
            SelectItem::Wildcard(options) if *options == Default::default() => {
                for (place, column) in table.columns().iter().enumerate() {
                    add(place, &column.name);
                }
            }
            SelectItem::UnnamedExpr(expr) => {
                let place = column(expr, table, alias)?;
                let written = match expr {
                    Expr::Identifier(name) => &name.value,
                    Expr::CompoundIdentifier(names) => &names.last()?.value,
                    _ => return None,
                };
                add(place, written);
            }
            SelectItem::ExprWithAlias { expr, alias: name } => {
                add(column(expr, table, alias)?, &name.value);
            }
            _ => return None,
        }
    }
    Some(Point { table: table.clone(), action: Action::Select { key, columns, names } })
}

/// Whether a limit keeps one row.
fn at_least_one(limit: Option<&LimitClause>) -> bool {
    match limit {
        None => true,
        Some(LimitClause::LimitOffset {
            limit: Some(Expr::Value(value)),
            offset: None,
            limit_by,
        }) => {
            limit_by.is_empty()
                && matches!(&value.value, Literal::Number(digits, _) if digits != "0")
        }
        Some(_) => false,
    }
}

fn is_plain(select: &Select) -> bool {
    let no_groups = match &select.group_by {
        GroupByExpr::Expressions(expressions, modifiers) => {
            expressions.is_empty() && modifiers.is_empty()
        }
        GroupByExpr::All(_) => false,
    };
    no_groups
        && select.distinct.is_none()
        && select.top.is_none()
        && select.having.is_none()
        && select.qualify.is_none()
        && select.prewhere.is_none()
        && select.lateral_views.is_empty()
        && select.named_window.is_empty()
        && select.value_table_mode.is_none()
        && select.exclude.is_none()
        && select.into.is_none()
}

fn insert(insert: &Insert, catalog: &Catalog) -> Option<Point> {
    let InsertSource::Values(rows) = &insert.source else { return None };
    let table = catalog.find(&insert.table.text)?;
    let columns = super::dml::insert_columns(insert, table).ok()?;
    let rows = rows
        .iter()
        .map(|row| {
            let fits = row.len() == columns.len();
            fits.then(|| row.iter().map(Scalar::constant).collect::<Option<Vec<_>>>())?
        })
        .collect::<Option<Vec<_>>>()?;
    let action = Action::Insert { kind: insert.kind, columns, rows };
    Some(Point { table: table.clone(), action })
}

/// The values of a primary key, when a filter says exactly what each part equals.
fn whole_key(filter: &Expr, table: &Table, alias: Option<&str>) -> Option<Vec<Scalar>> {
    let mut key: Vec<Option<Scalar>> = vec![None; table.key().len()];
    let mut open = vec![filter];
    while let Some(expr) = open.pop() {
        match expr {
            Expr::Nested(inner) => open.push(inner),
            Expr::BinaryOp { left, op: BinaryOperator::And, right } => {
                open.extend([&**left, &**right])
            }
            Expr::BinaryOp { left, op: BinaryOperator::Eq, right } => {
                let (place, value) = match column(left, table, alias) {
                    Some(place) => (place, Scalar::constant(right)?),
                    None => (column(right, table, alias)?, Scalar::constant(left)?),
                };
                let part = table.key_places()[place]?;
                if let Scalar::Literal(literal) = &value {
                    let wanted = unbounded(&table.columns()[place].data_type);
                    literal.clone().coerce(&wanted).ok()?; // or it needs a conversion
                }
                if key[part].replace(value).is_some() {
                    return None;
                }
            }
            _ => return None,
        }
    }
    key.into_iter().collect()
}
