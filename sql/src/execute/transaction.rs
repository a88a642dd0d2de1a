//! Transactions for Rust programs.

use super::dml::Change;
use super::engine::Engine;
use super::explain::explain;
use super::mutation::Mutation;
use super::prepared::Prepared;
use super::result::{ResultSet, Tag};
use super::schema::{Footing, Schema};
use super::write::Writer;
use super::{Params, show};
use crate::catalog::{Catalog, Table};
use crate::error::{ErrorKind, Result, SqlError};
use crate::parse::{Name, Statement};
use crate::scan::Reader;
use crate::value::{Row, Value};
use proto::request::LockMode;
use std::sync::Arc;
use truetime::Timestamp;
use txn::client::{ReadWrite, Snapshot};

/// A read-write transaction inside [`Database::run`](super::Database::run). Clones are the same
/// transaction.
#[derive(Clone)]
pub struct Transaction {
    pub(crate) txn: ReadWrite,
    /// The schema it goes by.
    pub(crate) footing: Footing,
    pub(crate) engine: Arc<Engine>,
}

/// A read-only transaction: all its reads are at one timestamp, without locks.
#[derive(Clone)]
pub struct ReadOnlyTransaction {
    pub(crate) snapshot: Snapshot,
    pub(crate) catalog: Arc<Catalog>,
    pub(crate) schema: Arc<Schema>,
    pub(crate) engine: Arc<Engine>,
}

impl Transaction {
    /// Runs an `INSERT`, `UPDATE` or `DELETE`; the answer is how many rows it affected. A
    /// statement that fails changes nothing.
    ///
    /// # Errors
    /// What is wrong with the statement; `Aborted`: return it from the closure.
    pub async fn execute(&self, sql: &str, params: &Params) -> Result<u64> {
        let prepared = self.engine.prepare(sql)?;
        let changes = matches!(
            prepared.statement,
            Statement::Insert(_) | Statement::Update(_) | Statement::Delete(_)
        );
        if !changes {
            return Err(SqlError::unsupported("execute() runs INSERT, UPDATE and DELETE"));
        }
        Ok(self.run(&prepared, params).await?.affected.unwrap_or(0))
    }

    /// Runs a `SELECT`; it sees the transaction's own writes. Take its rows before the next
    /// statement.
    ///
    /// # Errors
    /// What is wrong with the query; `Aborted`: return it from the closure.
    pub async fn query(&self, sql: &str, params: &Params) -> Result<ResultSet> {
        let prepared = self.engine.prepare(sql)?;
        only_query(&prepared)?;
        self.run(&prepared, params).await
    }

    /// The row with this primary key, all columns; under a shared lock.
    ///
    /// # Errors
    /// `UnknownTable`, `Type`; `Aborted`: return it from the closure.
    pub async fn read(&self, table: &str, key: &[Value]) -> Result<Option<Row>> {
        self.footing.check().await?;
        let mut catalog = self.footing.catalog.clone();
        loop {
            match read(&catalog, &self.reader(), table, key).await {
                Err(error) => catalog = self.footing.newer(&catalog, error).await?,
                found => return found,
            }
        }
    }

    /// Buffers a change of a row, with the checks of the like statement.
    ///
    /// # Errors
    /// As the like statement.
    pub async fn buffer(&self, mutation: Mutation) -> Result<()> {
        self.buffer_all(&[mutation]).await
    }

    /// Buffers changes in their order; neighbours of one kind are checked together.
    ///
    /// # Errors
    /// As the like statements; then none of them is buffered.
    pub async fn buffer_all(&self, mutations: &[Mutation]) -> Result<()> {
        self.footing.check().await?;
        let mut catalog = self.footing.catalog.clone();
        loop {
            let savepoint = self.txn.savepoint();
            let writer = Writer { txn: &self.txn, catalog: &catalog };
            let Err(error) = writer.apply(mutations).await else { return Ok(()) };
            self.txn.rollback_to(savepoint);
            catalog = self.footing.newer(&catalog, error).await?;
        }
    }

    /// The transaction below, for what SQL does not show.
    pub fn inner(&self) -> &ReadWrite {
        &self.txn
    }

    /// The schema the transaction sees; root tables that others have made since are not in it, but
    /// found by statements.
    pub fn catalog(&self) -> &Arc<Catalog> {
        &self.footing.catalog
    }

    /// Makes ready to commit: not when the schema is another one by then (S1).
    pub(crate) async fn settle(&self) -> Result<()> {
        if let Some(before) = self.footing.commit_before().await? {
            self.txn.commit_before(before);
        }
        Ok(())
    }

    fn reader(&self) -> Reader {
        Reader::ReadWrite(self.txn.clone(), LockMode::Shared)
    }

    /// Runs a statement that needs a transaction; when it fails, its writes are taken back.
    pub(crate) async fn run(&self, prepared: &Prepared, params: &Params) -> Result<ResultSet> {
        self.footing.check().await?;
        let mut catalog = match prepared.shows_schema() {
            true => self.footing.newest().await?,
            false => self.footing.catalog.clone(),
        };
        loop {
            match self.run_under(&catalog, prepared, params).await {
                Err(error) => catalog = self.footing.newer(&catalog, error).await?,
                result => return result,
            }
        }
    }

    async fn run_under(
        &self,
        catalog: &Catalog,
        prepared: &Prepared,
        params: &Params,
    ) -> Result<ResultSet> {
        let engine = &*self.engine;
        if let Some(result) = read_statement(engine, catalog, self.reader(), prepared, params).await
        {
            return result;
        }
        let savepoint = self.txn.savepoint();
        let result = match prepared.point(catalog) {
            Some(point) => {
                let tag = match &prepared.statement {
                    Statement::Insert(_) => Tag::Insert,
                    Statement::Update(_) => Tag::Update,
                    _ => Tag::Delete,
                };
                let affected = point.write(&self.txn, catalog, params).await;
                affected.map(|affected| ResultSet::changed(tag, affected))
            }
            None => {
                let change = Change { engine, catalog, txn: &self.txn, params };
                change.run(&prepared.statement).await
            }
        };
        if result.is_err() {
            self.txn.rollback_to(savepoint);
        }
        result
    }
}

impl ReadOnlyTransaction {
    /// Runs a `SELECT`.
    ///
    /// # Errors
    /// What is wrong with the query; `SnapshotTooOld` when its timestamp has passed the horizon.
    pub async fn query(&self, sql: &str, params: &Params) -> Result<ResultSet> {
        let prepared = self.engine.prepare(sql)?;
        only_query(&prepared)?;
        self.run(&prepared, params).await
    }

    /// The row with this primary key, all columns.
    ///
    /// # Errors
    /// `UnknownTable`, `Type`, `SnapshotTooOld`.
    pub async fn read(&self, table: &str, key: &[Value]) -> Result<Option<Row>> {
        match read(&self.catalog, &self.reader(), table, key).await {
            Err(error) => {
                let newer = self.newer(error).await?;
                read(&newer, &self.reader(), table, key).await
            }
            found => found,
        }
    }

    /// The timestamp of all its reads.
    pub fn timestamp(&self) -> Timestamp {
        self.snapshot.timestamp()
    }

    /// The schema as of that timestamp (R6); root tables that others had just made may not be in it,
    /// but are found by statements.
    pub fn catalog(&self) -> &Arc<Catalog> {
        &self.catalog
    }

    fn reader(&self) -> Reader {
        Reader::Snapshot(self.snapshot.clone())
    }

    pub(crate) async fn run(&self, prepared: &Prepared, params: &Params) -> Result<ResultSet> {
        let catalog = match prepared.shows_schema() {
            true => self.schema.fresh_at(&self.snapshot).await?,
            false => self.catalog.clone(),
        };
        match self.run_under(&catalog, prepared, params).await {
            Err(error) => {
                let newer = self.newer(error).await?;
                self.run_under(&newer, prepared, params).await
            }
            result => result,
        }
    }

    /// The catalog read again, after a statement has failed for what it did not find in the one that
    /// was known: somebody may just have made it.
    async fn newer(&self, error: SqlError) -> Result<Arc<Catalog>> {
        if error.kind != ErrorKind::UnknownTable {
            return Err(error);
        }
        let catalog = self.schema.fresh_at(&self.snapshot).await?;
        match catalog.since == self.catalog.since {
            true => Err(error),
            false => Ok(catalog),
        }
    }

    async fn run_under(
        &self,
        catalog: &Catalog,
        prepared: &Prepared,
        params: &Params,
    ) -> Result<ResultSet> {
        let engine = &*self.engine;
        match read_statement(engine, catalog, self.reader(), prepared, params).await {
            Some(result) => result,
            None => Err(SqlError::new(
                ErrorKind::TransactionState,
                "a read-only transaction cannot change anything",
            )),
        }
    }
}

fn only_query(prepared: &Prepared) -> Result<()> {
    match prepared.statement {
        Statement::Query(_) | Statement::Explain { .. } => Ok(()),
        _ => Err(SqlError::unsupported("query() runs SELECT")),
    }
}

/// A whole row by its primary key.
pub(crate) async fn read(
    catalog: &Catalog,
    reader: &Reader,
    table: &str,
    key: &[Value],
) -> Result<Option<Row>> {
    let table: &Table = catalog.table(table)?;
    if key.len() != table.key().len() {
        return Err(SqlError::type_error(format!(
            "the primary key of `{}` has {} columns, not {}",
            table.name(),
            table.key().len(),
            key.len()
        )));
    }
    let values = table
        .key()
        .iter()
        .zip(key)
        .map(|(part, value)| value.clone().coerce(&table.columns()[part.column].data_type));
    let key = table.layout().encode(&values.collect::<Result<Row>>()?)?;
    match reader.get_many(std::slice::from_ref(&key)).await?.pop().flatten() {
        Some(value) => table.decode(&key, &value),
        None => Ok(None),
    }
}

/// Runs a statement that only reads. `None`: it changes something.
pub(crate) async fn read_statement(
    engine: &Engine,
    catalog: &Catalog,
    reader: Reader,
    prepared: &Prepared,
    params: &Params,
) -> Option<Result<ResultSet>> {
    let table = |name: &Name| catalog.table(&name.text).map_err(|error| error.at(name.position));
    Some(match &prepared.statement {
        Statement::Query(query) => match prepared.point(catalog) {
            Some(point) => point.read(&reader, params).await,
            None => match engine.plan(catalog, &reader, query, params).await {
                Ok(planned) => {
                    let columns = planned.columns.clone();
                    planned.stream().map(|rows| ResultSet::rows(Tag::Select, columns, rows))
                }
                Err(error) => Err(error),
            },
        },
        Statement::Explain { analyze, query } => {
            explain(engine, catalog, &reader, query, *analyze, params).await
        }
        Statement::ShowTables => Ok(show::tables(catalog)),
        Statement::Describe(name) => table(name).map(|table| show::describe(table)),
        Statement::ShowCreateTable(name) => {
            table(name).map(|table| show::create_statement(table, catalog))
        }
        _ => return None,
    })
}
