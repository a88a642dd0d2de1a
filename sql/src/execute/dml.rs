//! Changes that need DataFusion: which rows, and what they become, is a query in the
//! transaction; its answer is complete before the first write, so no statement sees its own
//! writes.

use super::Params;
use super::engine::Engine;
use super::result::{ResultSet, Tag};
use super::scalar::Scalar;
use super::write::Writer;
use crate::catalog::{Catalog, Table};
use crate::error::{ErrorKind, Result, SqlError};
use crate::parse::{self, Delete, Insert, InsertSource, Name, Statement, Update};
use crate::scan::Reader;
use crate::value::Row;
use proto::request::LockMode;
use sqlparser::ast::{Expr, Ident, Query, Select, SelectItem, SetExpr};
use std::collections::BTreeSet;
use std::sync::Arc;
use txn::client::ReadWrite;

/// A change inside a transaction.
pub(crate) struct Change<'c> {
    pub(crate) engine: &'c Engine,
    pub(crate) catalog: &'c Catalog,
    pub(crate) txn: &'c ReadWrite,
    pub(crate) params: &'c Params,
}

/// Which columns an `INSERT` gives, by place.
///
/// # Errors
/// `UnknownColumn`, also for one that is named twice.
pub(crate) fn insert_columns(insert: &Insert, table: &Table) -> Result<Vec<usize>> {
    let Some(names) = &insert.columns else { return Ok((0..table.columns().len()).collect()) };
    let mut seen = BTreeSet::new();
    names
        .iter()
        .map(|name| {
            let place = table.column(&name.text).map_err(|error| error.at(name.position))?;
            if !seen.insert(place) {
                return Err(twice(name));
            }
            Ok(place)
        })
        .collect()
}

fn twice(name: &Name) -> SqlError {
    let message = format!("column `{}` is named twice", name.text);
    SqlError::new(ErrorKind::UnknownColumn, message).at(name.position)
}

fn find<'c>(catalog: &'c Catalog, name: &Name) -> Result<&'c Arc<Table>> {
    catalog.table(&name.text).map_err(|error| error.at(name.position))
}

impl Change<'_> {
    fn writer(&self) -> Writer<'_> {
        Writer { txn: self.txn, catalog: self.catalog }
    }

    /// Runs an `INSERT`, `UPDATE` or `DELETE`; the answer is how many rows it affected.
    pub(crate) async fn run(&self, statement: &Statement) -> Result<ResultSet> {
        Ok(match statement {
            Statement::Insert(insert) => {
                ResultSet::changed(Tag::Insert, self.insert(insert).await?)
            }
            Statement::Update(update) => {
                ResultSet::changed(Tag::Update, self.update(update).await?)
            }
            Statement::Delete(delete) => {
                ResultSet::changed(Tag::Delete, self.delete(delete).await?)
            }
            _ => return Err(SqlError::internal("not a change")),
        })
    }

    /// All rows of a query in the transaction.
    async fn query(&self, query: &Query, mode: LockMode) -> Result<Vec<Row>> {
        let reader = Reader::ReadWrite(self.txn.clone(), mode);
        let planned = self.engine.plan(self.catalog, &reader, query, self.params).await?;
        ResultSet::rows(Tag::Select, planned.columns.clone(), planned.stream()?).collect().await
    }

    async fn insert(&self, insert: &Insert) -> Result<u64> {
        let table = find(self.catalog, &insert.table)?;
        let columns = insert_columns(insert, table)?;
        let wrong_count = |found: usize| {
            SqlError::new(ErrorKind::Type, format!("{} columns, but {found} values", columns.len()))
                .at(insert.table.position)
        };
        let rows = match &insert.source {
            InsertSource::Query(query) => self.query(query, LockMode::Shared).await?,
            InsertSource::Values(given) => {
                let mut rows = Vec::with_capacity(given.len());
                for row in given {
                    rows.push(match row.len() == columns.len() {
                        true => self.evaluate(row).await?,
                        false => return Err(wrong_count(row.len())),
                    });
                }
                rows
            }
        };
        if let Some(row) = rows.first()
            && row.len() != columns.len()
        {
            return Err(wrong_count(row.len()));
        }
        self.writer().insert(table, &columns, rows, insert.kind).await
    }

    /// The values of expressions that name no columns.
    async fn evaluate(&self, expressions: &[Expr]) -> Result<Row> {
        let scalars: Option<Vec<Scalar>> = expressions.iter().map(Scalar::constant).collect();
        if let Some(scalars) = scalars {
            return scalars.iter().map(|scalar| scalar.value(&[], self.params)).collect();
        }
        let mut query = template("SELECT 1")?;
        select_of(&mut query)?.projection = expressions.iter().enumerate().map(aliased).collect();
        let mut rows = self.query(&query, LockMode::Shared).await?;
        rows.pop().ok_or_else(|| SqlError::internal("a row of values is no row"))
    }

    async fn update(&self, update: &Update) -> Result<u64> {
        let table = find(self.catalog, &update.table)?;
        let mut places = Vec::new();
        for (name, _) in &update.set {
            let place = table.column(&name.text).map_err(|error| error.at(name.position))?;
            if table.key_places()[place].is_some() {
                return Err(SqlError::new(
                    ErrorKind::Schema,
                    format!("`{}` is part of the primary key and cannot be updated", name.text),
                )
                .at(name.position)
                .with_hint("delete the row and insert it with its new key"));
            }
            if places.contains(&place) {
                return Err(twice(name));
            }
            places.push(place);
        }
        let mut query = self.rows_where(table, update.alias.as_deref(), &update.filter)?;
        let set = update.set.iter().map(|(_, expr)| expr).enumerate().map(aliased);
        select_of(&mut query)?.projection.extend(set);
        let width = table.columns().len();
        let mut new_rows = Vec::new();
        for mut row in self.query(&query, LockMode::Exclusive).await? {
            let set = row.split_off(width);
            for (place, value) in places.iter().zip(set) {
                row[*place] = value;
                table.check_value(&table.columns()[*place], &mut row[*place])?;
            }
            new_rows.push((table.encode_key(&row)?, table.encode_row(&row)?));
        }
        let count = new_rows.len() as u64;
        for (key, value) in new_rows {
            self.txn.put(key, value);
        }
        Ok(count)
    }

    async fn delete(&self, delete: &Delete) -> Result<u64> {
        let table = find(self.catalog, &delete.table)?;
        let mut query = self.rows_where(table, delete.alias.as_deref(), &delete.filter)?;
        let keys = table.key().iter().map(|part| &table.columns()[part.column].name);
        let source = delete.alias.as_deref().unwrap_or(table.name());
        select_of(&mut query)?.projection =
            keys.map(|name| SelectItem::UnnamedExpr(qualified(source, name))).collect();
        let rows = self.query(&query, LockMode::Exclusive).await?;
        let keys = rows.iter().map(|row| table.layout().encode(row)).collect::<Result<Vec<_>>>()?;
        self.writer().delete(table, keys, false).await
    }

    /// `SELECT` of every column of the table, `WHERE` the filter.
    fn rows_where(&self, table: &Table, alias: Option<&str>, filter: &Expr) -> Result<Query> {
        let name = table.name().to_lowercase();
        let source = alias.unwrap_or(&name);
        let mut query = template(&format!("SELECT 1 FROM `{name}` AS `{source}`"))?;
        let select = select_of(&mut query)?;
        let columns = table.columns().iter();
        select.projection = columns
            .map(|column| SelectItem::UnnamedExpr(qualified(source, &column.name)))
            .collect();
        select.selection = Some(filter.clone());
        Ok(query)
    }
}

fn template(sql: &str) -> Result<Query> {
    match parse::parse(sql)? {
        Statement::Query(query) => Ok(*query),
        _ => Err(SqlError::internal("the template is a query")),
    }
}

fn select_of(query: &mut Query) -> Result<&mut Select> {
    match &mut *query.body {
        SetExpr::Select(select) => Ok(select),
        _ => Err(SqlError::internal("the template is a SELECT")),
    }
}

fn qualified(source: &str, column: &str) -> Expr {
    let ident = |name: &str| Ident::with_quote('`', name.to_lowercase());
    Expr::CompoundIdentifier(vec![ident(source), ident(column)])
}

/// An expression under a name that no column has.
fn aliased((place, expr): (usize, &Expr)) -> SelectItem {
    let alias = Ident::with_quote('`', format!("$value{place}"));
    SelectItem::ExprWithAlias { expr: expr.clone(), alias }
}
