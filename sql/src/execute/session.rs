//! A session: one statement after the other, inside or outside a transaction.
//!
//! ```text
//!            BEGIN                      COMMIT, ROLLBACK
//!   Idle ───────────────> Open ────────────────────────────> Idle
//!                          │ aborted                           ^
//!                          └─────────> Failed ── ROLLBACK ─────┘
//! ```
//!
//! - Outside a transaction every statement is one: a change runs with retries, a query reads one
//!   snapshot chosen by `READ_ONLY_STALENESS`.
//! - Inside, a statement that fails is taken back and the transaction goes on; only when the
//!   transaction itself was aborted is it over, and every statement but `ROLLBACK` says so.
//! - A read-write transaction tells its groups every few seconds that it lives (X4).

use super::database::Database;
use super::prepared::Prepared;
use super::result::{Aborted, ResultSet, Tag};
use super::schema_change::Changed;
use super::transaction::{ReadOnlyTransaction, Transaction};
use super::{NO_PARAMS, Params, show};
use crate::error::{ErrorKind, Position, Result, SqlError};
use crate::parse::session::staleness_text;
use crate::parse::{Statement, TransactionKind, Variable};
use crate::value::{Value, timestamp_text};
use proto::request::Receipt;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::AbortHandle;
use truetime::Timestamp;
use txn::client::{ReadWrite, Retryable, SessionToken, TimestampBound};

/// How often an open transaction says that it lives.
const KEEP_ALIVE: Duration = Duration::from_secs(3);

/// What a session's transaction is at.
enum State {
    /// There is none.
    Idle,
    /// `BEGIN`, and nothing read or written yet: it may still become the other kind.
    Begun(TransactionKind),
    /// Reads and writes.
    ReadWrite(Box<Transaction>, KeepAlive, Aborted),
    /// Reads at one timestamp.
    ReadOnly(Box<ReadOnlyTransaction>),
    /// It was aborted, for this reason.
    Failed(String),
}

/// Ends the task that keeps a transaction alive.
struct KeepAlive(AbortHandle);

impl KeepAlive {
    fn start(txn: ReadWrite) -> KeepAlive {
        // Why it has ended, if it has, the next statement hears.
        let task = tokio::spawn(async move { txn.keep_alive_every(KEEP_ALIVE).await });
        KeepAlive(task.abort_handle())
    }
}

impl Drop for KeepAlive {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// See the [module](self). Dropping it rolls back what is open.
pub struct Session {
    database: Arc<Database>,
    state: State,
    staleness: TimestampBound,
    commit: Option<Receipt>,
    read: Option<Timestamp>,
    token: SessionToken,
}

impl Session {
    pub(crate) fn new(database: Arc<Database>) -> Session {
        Session {
            database,
            state: State::Idle,
            staleness: TimestampBound::Strong,
            commit: None,
            read: None,
            token: SessionToken::default(),
        }
    }

    /// Runs exactly one statement.
    ///
    /// # Errors
    /// What is wrong with it; [`SqlError::render`] shows the place.
    pub async fn execute(&mut self, sql: &str) -> Result<ResultSet> {
        self.execute_with(sql, &NO_PARAMS).await
    }

    /// Runs exactly one statement with values for its parameters (see
    /// [`params`](super::params)).
    ///
    /// # Errors
    /// What is wrong with it; [`SqlError::render`] shows the place.
    pub async fn execute_with(&mut self, sql: &str, params: &Params) -> Result<ResultSet> {
        let result = match self.database.engine.prepare(sql) {
            Ok(prepared) => self.run(&prepared, params).await,
            Err(error) => Err(error),
        };
        result.map_err(|error| locate(error, sql))
    }

    /// Whether a transaction is open, a failed one included.
    pub fn in_transaction(&self) -> bool {
        !matches!(self.state, State::Idle)
    }

    /// Whether the open transaction was aborted and waits for `ROLLBACK`.
    pub fn is_failed(&self) -> bool {
        matches!(self.state, State::Failed(_))
    }

    /// What proves the session's last commit.
    pub fn last_commit(&self) -> Option<&Receipt> {
        self.commit.as_ref()
    }

    /// The timestamp of the session's last read without locks.
    pub fn last_read(&self) -> Option<Timestamp> {
        self.read
    }

    /// What the session has seen and written (R4): another session that reads with
    /// `TimestampBound::Session` of it sees no less.
    pub fn token(&self) -> SessionToken {
        self.token
    }

    /// The session goes on where another one was: from now on it is as if it had seen what that one
    /// has seen. Counts for reads with `READ_ONLY_STALENESS = 'SESSION'`.
    pub fn observe(&mut self, token: SessionToken) {
        self.token = self.token.merge(token);
    }

    /// How fresh the next read without locks has to be.
    fn bound(&self) -> TimestampBound {
        match self.staleness {
            TimestampBound::Session(token) => TimestampBound::Session(token.merge(self.token)),
            other => other,
        }
    }

    fn has_read(&mut self, at: Timestamp) {
        self.read = Some(at);
        self.token.observe(at);
    }

    fn has_committed(&mut self, receipt: Receipt) {
        self.token.observe(receipt.timestamp);
        self.commit = Some(receipt);
    }

    /// Ends a transaction that changes nothing; what it has read, the session has seen.
    async fn give_up(&mut self, transaction: &Transaction) {
        transaction.txn.rollback().await;
        if let Ok(now) = self.database.client.now() {
            self.token.observe(now.latest());
        }
    }

    /// The database.
    pub fn database(&self) -> &Arc<Database> {
        &self.database
    }

    /// A transaction that was aborted while its last result was read is over.
    fn notice_abort(&mut self) {
        let State::ReadWrite(_, _, aborted) = &self.state else { return };
        let reason = aborted.lock().take();
        if let Some(reason) = reason {
            self.state = State::Failed(reason);
        }
    }

    async fn run(&mut self, prepared: &Prepared, params: &Params) -> Result<ResultSet> {
        self.notice_abort();
        match &prepared.statement {
            Statement::Begin(kind) => self.begin(kind.unwrap_or(TransactionKind::ReadWrite)),
            Statement::Commit => self.commit().await,
            Statement::Rollback => self.rollback().await,
            Statement::SetTransaction(kind) => self.set_transaction(*kind),
            Statement::SetStaleness(bound) => self.set_staleness(*bound),
            Statement::ShowVariable(variable) => self.show(*variable),
            Statement::CreateTable(_) | Statement::DropTable { .. } => {
                self.change_schema(&prepared.statement).await
            }
            _ => self.data(prepared, params).await,
        }
    }

    /// Statements that read or write rows, or show the schema.
    async fn data(&mut self, prepared: &Prepared, params: &Params) -> Result<ResultSet> {
        match &self.state {
            State::Idle => return self.autocommit(prepared, params).await,
            State::Begun(TransactionKind::ReadWrite) => {
                let transaction = self.database.begin().await?;
                let keep_alive = KeepAlive::start(transaction.txn.clone());
                self.state =
                    State::ReadWrite(Box::new(transaction), keep_alive, Aborted::default());
            }
            State::Begun(TransactionKind::ReadOnly) => {
                let transaction = self.database.read_only(self.bound()).await?;
                self.has_read(transaction.timestamp());
                self.state = State::ReadOnly(Box::new(transaction));
            }
            _ => {}
        }
        match &self.state {
            State::ReadWrite(transaction, _, aborted) => {
                let result = transaction.run(prepared, params).await;
                let result = result.map(|result| result.watched(aborted));
                if let Err(error) = &result
                    && error.is_aborted()
                {
                    transaction.txn.rollback().await;
                    self.state = State::Failed(error.message.clone());
                }
                result
            }
            State::ReadOnly(transaction) => transaction.run(prepared, params).await,
            State::Failed(reason) => Err(failed(reason)),
            State::Idle | State::Begun(_) => Err(SqlError::internal("the transaction has begun")),
        }
    }

    async fn autocommit(&mut self, prepared: &Prepared, params: &Params) -> Result<ResultSet> {
        let changes = matches!(
            prepared.statement,
            Statement::Insert(_) | Statement::Update(_) | Statement::Delete(_)
        );
        if !changes {
            let transaction = self.database.read_only(self.bound()).await?;
            let result = transaction.run(prepared, params).await?;
            if matches!(result.tag, Tag::Select | Tag::Explain) {
                self.has_read(transaction.timestamp());
            }
            return Ok(result);
        }
        let run = self.database.run(|txn| async move { txn.run(prepared, params).await });
        let (result, receipt) = run.await?;
        self.has_committed(receipt.clone());
        Ok(result.committed(receipt))
    }

    fn begin(&mut self, kind: TransactionKind) -> Result<ResultSet> {
        match &self.state {
            State::Idle => {
                self.state = State::Begun(kind);
                Ok(ResultSet::done(Tag::Begin))
            }
            State::Failed(reason) => Err(failed(reason)),
            _ => Err(state_error("a transaction is open already")
                .with_hint("COMMIT or ROLLBACK ends it")),
        }
    }

    fn set_transaction(&mut self, kind: TransactionKind) -> Result<ResultSet> {
        match &self.state {
            State::Begun(_) => {
                self.state = State::Begun(kind);
                Ok(ResultSet::done(Tag::Set))
            }
            State::Idle => {
                Err(state_error("there is no transaction to set").with_hint("BEGIN starts one"))
            }
            State::Failed(reason) => Err(failed(reason)),
            _ => Err(state_error("the transaction has read or written already")
                .with_hint("SET TRANSACTION comes right after BEGIN")),
        }
    }

    fn set_staleness(&mut self, bound: TimestampBound) -> Result<ResultSet> {
        if self.in_transaction() {
            return Err(state_error("READ_ONLY_STALENESS cannot change inside a transaction")
                .with_hint("COMMIT or ROLLBACK first"));
        }
        self.staleness = bound;
        Ok(ResultSet::done(Tag::Set))
    }

    fn show(&self, variable: Variable) -> Result<ResultSet> {
        let none = |what: &str, when: &str| {
            SqlError::new(ErrorKind::TransactionState, format!("there is no {what} yet"))
                .with_hint(format!("it is known after {when}"))
        };
        let at = |at: Timestamp| Value::from(timestamp_text(at));
        Ok(match variable {
            Variable::CommitTimestamp => {
                let receipt = self
                    .commit
                    .as_ref()
                    .ok_or_else(|| none("commit timestamp", "a change or a COMMIT"))?;
                show::variable("COMMIT_TIMESTAMP", at(receipt.timestamp))
            }
            Variable::ReadTimestamp => {
                let read =
                    self.read.ok_or_else(|| none("read timestamp", "a read without locks"))?;
                show::variable("READ_TIMESTAMP", at(read))
            }
            Variable::ReadOnlyStaleness => {
                show::variable("READ_ONLY_STALENESS", Value::from(staleness_text(self.staleness)))
            }
            Variable::SessionToken => {
                show::variable("SESSION_TOKEN", Value::from(self.token.to_string()))
            }
        })
    }

    async fn commit(&mut self) -> Result<ResultSet> {
        match std::mem::replace(&mut self.state, State::Idle) {
            State::Idle => {
                Err(state_error("there is no transaction to commit").with_hint("BEGIN starts one"))
            }
            State::Begun(_) | State::ReadOnly(_) => Ok(ResultSet::done(Tag::Commit)),
            State::ReadWrite(transaction, keep_alive, _) => {
                let committed = match transaction.settle().await {
                    Ok(()) => transaction.txn.commit().await.map_err(SqlError::from),
                    Err(error) => Err(error),
                };
                drop(keep_alive);
                let receipt = committed?;
                self.has_committed(receipt.clone());
                Ok(ResultSet::done(Tag::Commit).committed(receipt))
            }
            State::Failed(reason) => {
                let error = failed(&reason);
                self.state = State::Failed(reason);
                Err(error)
            }
        }
    }

    async fn rollback(&mut self) -> Result<ResultSet> {
        match std::mem::replace(&mut self.state, State::Idle) {
            State::Idle => Err(state_error("there is no transaction to roll back")),
            State::ReadWrite(transaction, _keep_alive, _) => {
                self.give_up(&transaction).await;
                Ok(ResultSet::done(Tag::Rollback))
            }
            _ => Ok(ResultSet::done(Tag::Rollback)),
        }
    }

    async fn change_schema(&mut self, statement: &Statement) -> Result<ResultSet> {
        if self.in_transaction() {
            return Err(state_error("the schema cannot change inside a transaction")
                .with_hint("COMMIT or ROLLBACK first"));
        }
        let schema = &self.database.schema;
        let Changed { result, from } = match statement {
            Statement::CreateTable(table) => schema.create(table).await?,
            Statement::DropTable { name, if_exists } => schema.drop_table(name, *if_exists).await?,
            _ => return Err(SqlError::internal("not a schema change")),
        };
        self.token.observe(from);
        if let Some(receipt) = &result.receipt {
            self.has_committed(receipt.clone());
        }
        Ok(result)
    }
}

fn state_error(message: &str) -> SqlError {
    SqlError::new(ErrorKind::TransactionState, message)
}

fn failed(reason: &str) -> SqlError {
    state_error(&format!("the transaction is over: {reason}"))
        .with_hint("ROLLBACK, then run the whole transaction again")
}

/// Adds the place of an unknown name, when the error does not know it: names are found again in
/// the text as whole words between backticks, blanks or signs.
fn locate(mut error: SqlError, sql: &str) -> SqlError {
    let names = matches!(
        error.kind,
        ErrorKind::UnknownTable | ErrorKind::UnknownColumn | ErrorKind::UnknownFunction
    );
    if error.position.is_some() || !names {
        return error;
    }
    // Messages quote the name they are about last: table `t` has no column `c`.
    let Some(name) = error.message.rsplit('`').nth(1).map(str::to_lowercase) else { return error };
    let lower = sql.to_lowercase();
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    let found = lower.match_indices(&name).map(|(at, _)| at).find(|at| {
        let before = lower[..*at].chars().next_back();
        let after = lower[at + name.len()..].chars().next();
        !before.is_some_and(is_word) && !after.is_some_and(is_word)
    });
    error.position = found.and_then(|at| {
        let before = &lower[..at];
        let line = before.matches('\n').count() + 1;
        let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
        Some(Position { line: u32::try_from(line).ok()?, column: u32::try_from(column).ok()? })
    });
    error
}
