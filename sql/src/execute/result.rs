//! What a statement answers.

use crate::error::Result;
use crate::value::{Row, Type};
use futures::StreamExt;
use futures::stream::BoxStream;
use parking_lot::Mutex;
use proto::request::Receipt;
use std::fmt;
use std::sync::Arc;
use txn::client::Retryable;

/// A column of a result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResultColumn {
    /// Its name: the alias, or as the column was declared, or the expression.
    pub name: String,
    /// Its type; lengths are left open.
    pub data_type: Type,
}

/// Which kind of statement it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tag {
    /// `SELECT`, `WITH`.
    Select,
    /// `INSERT` of any kind.
    Insert,
    /// `UPDATE`.
    Update,
    /// `DELETE`.
    Delete,
    /// `CREATE TABLE`.
    CreateTable,
    /// `DROP TABLE`.
    DropTable,
    /// `BEGIN`.
    Begin,
    /// `COMMIT`.
    Commit,
    /// `ROLLBACK`.
    Rollback,
    /// `SET` of any kind.
    Set,
    /// `SHOW` and `DESCRIBE`.
    Show,
    /// `EXPLAIN`.
    Explain,
}

impl fmt::Display for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Tag::Select => "SELECT",
            Tag::Insert => "INSERT",
            Tag::Update => "UPDATE",
            Tag::Delete => "DELETE",
            Tag::CreateTable => "CREATE TABLE",
            Tag::DropTable => "DROP TABLE",
            Tag::Begin => "BEGIN",
            Tag::Commit => "COMMIT",
            Tag::Rollback => "ROLLBACK",
            Tag::Set => "SET",
            Tag::Show => "SHOW",
            Tag::Explain => "EXPLAIN",
        })
    }
}

/// Why a transaction was aborted while the rows of a result were taken; shared by both.
pub(crate) type Aborted = Arc<Mutex<Option<String>>>;

/// The rows of a result, not all in memory.
pub(crate) enum RowStream {
    /// They are here.
    Ready(Vec<Row>),
    /// They come page by page.
    Pages(BoxStream<'static, Result<Vec<Row>>>),
}

/// What a statement answers. Rows come with [`next_batch`](Self::next_batch), in bounded memory;
/// dropping the result stops the query.
pub struct ResultSet {
    /// Which kind of statement it was.
    pub tag: Tag,
    /// The columns of the rows; empty for statements without rows.
    pub columns: Vec<ResultColumn>,
    /// How many rows a change affected; `None` for other statements.
    pub affected: Option<u64>,
    /// What proves the commit, when the statement committed: a change outside a transaction, a
    /// schema change, `COMMIT`.
    pub receipt: Option<Receipt>,
    rows: RowStream,
}

impl ResultSet {
    /// An answer without rows.
    pub(crate) fn done(tag: Tag) -> ResultSet {
        let rows = RowStream::Ready(Vec::new());
        ResultSet { tag, columns: Vec::new(), affected: None, receipt: None, rows }
    }

    pub(crate) fn changed(tag: Tag, affected: u64) -> ResultSet {
        ResultSet { affected: Some(affected), ..ResultSet::done(tag) }
    }

    pub(crate) fn rows(tag: Tag, columns: Vec<ResultColumn>, rows: RowStream) -> ResultSet {
        ResultSet { columns, rows, ..ResultSet::done(tag) }
    }

    /// With what proves the commit.
    pub(crate) fn committed(mut self, receipt: Receipt) -> ResultSet {
        self.receipt = Some(receipt);
        self
    }

    /// Notes in `aborted` when the rows end because the transaction was aborted.
    pub(crate) fn watched(mut self, aborted: &Aborted) -> ResultSet {
        if let RowStream::Pages(pages) = self.rows {
            let aborted = aborted.clone();
            let pages = pages.inspect(move |page| {
                if let Err(error) = page
                    && error.is_aborted()
                {
                    *aborted.lock() = Some(error.message.clone());
                }
            });
            self.rows = RowStream::Pages(pages.boxed());
        }
        self
    }

    /// Rows of texts.
    pub(crate) fn texts(tag: Tag, names: &[&str], rows: Vec<Row>) -> ResultSet {
        let columns = names
            .iter()
            .map(|name| ResultColumn { name: (*name).to_owned(), data_type: Type::String(None) })
            .collect();
        ResultSet::rows(tag, columns, RowStream::Ready(rows))
    }

    /// The next rows; never an empty batch. `None`: there are no more.
    ///
    /// # Errors
    /// What the query runs into; nothing follows an error.
    pub async fn next_batch(&mut self) -> Result<Option<Vec<Row>>> {
        loop {
            let batch = match &mut self.rows {
                RowStream::Ready(rows) => {
                    let rows = std::mem::take(rows);
                    return Ok((!rows.is_empty()).then_some(rows));
                }
                RowStream::Pages(pages) => pages.next().await,
            };
            match batch {
                Some(Ok(rows)) if rows.is_empty() => {}
                Some(Ok(rows)) => return Ok(Some(rows)),
                Some(Err(error)) => {
                    self.rows = RowStream::Ready(Vec::new());
                    return Err(error);
                }
                None => {
                    self.rows = RowStream::Ready(Vec::new());
                    return Ok(None);
                }
            }
        }
    }

    /// All rows. For results known to be small.
    ///
    /// # Errors
    /// As [`next_batch`](Self::next_batch).
    pub async fn collect(mut self) -> Result<Vec<Row>> {
        let mut rows = Vec::new();
        while let Some(batch) = self.next_batch().await? {
            rows.extend(batch);
        }
        Ok(rows)
    }
}

impl fmt::Debug for ResultSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResultSet")
            .field("tag", &self.tag)
            .field("columns", &self.columns)
            .field("affected", &self.affected)
            .finish_non_exhaustive()
    }
}
