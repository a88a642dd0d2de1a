//! Errors of statements, classed by what the caller does about them.

use std::fmt;
use thiserror::Error;
use txn::client::Retryable;

/// What kind of failure it is; front doors map it to their own codes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ErrorKind {
    /// The text is not a statement we read.
    Syntax,
    /// A statement or a feature that does not exist here.
    Unsupported,
    /// No such table.
    UnknownTable,
    /// No such column, or one named twice.
    UnknownColumn,
    /// No such function.
    UnknownFunction,
    /// A value or an expression of the wrong type.
    Type,
    /// A number left its range, a text does not fit its column, a division by zero.
    OutOfRange,
    /// A row with this primary key exists.
    AlreadyExists,
    /// No row with this primary key exists.
    NotFound,
    /// NULL for a column that is NOT NULL.
    NotNull,
    /// An interleaved row without its parent row.
    ParentMissing,
    /// A row that has interleaved children which are not deleted with it.
    ChildrenExist,
    /// A schema that breaks a rule, or a schema change that is not possible now.
    Schema,
    /// The statement does not fit the state of the session's transaction.
    TransactionState,
    /// A query parameter without a value.
    Parameter,
    /// A read below the retention horizon (R5).
    SnapshotTooOld,
    /// A read in the future (R5).
    FutureTimestamp,
    /// Nothing happened: run the whole transaction again (X11).
    Aborted,
    /// The commit may or may not have happened (X9).
    OutcomeUnknown,
    /// A published limit is exceeded.
    Limit,
    /// The time that the caller gave was over; a commit was not sent.
    DeadlineExceeded,
    /// No answer in time, or too much at once: try later.
    Unavailable,
    /// A bug of ours, or damaged data.
    Internal,
}

/// A place in a statement; both count from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    /// The line.
    pub line: u32,
    /// The column, in characters.
    pub column: u32,
}

/// Why a statement failed.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub struct SqlError {
    /// The kind.
    pub kind: ErrorKind,
    /// What happened, one sentence without a full stop.
    pub message: String,
    /// Where in the statement, when it is about a place.
    pub position: Option<Position>,
    /// What the user may try instead.
    pub hint: Option<String>,
}

/// What everything here returns.
pub type Result<T, E = SqlError> = std::result::Result<T, E>;

impl SqlError {
    /// An error of a kind.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> SqlError {
        SqlError { kind, message: message.into(), position: None, hint: None }
    }

    /// Adds what may be tried instead.
    #[must_use]
    pub fn with_hint(mut self, hint: impl Into<String>) -> SqlError {
        self.hint = Some(hint.into());
        self
    }

    /// Adds the place, unless it is known already.
    #[must_use]
    pub fn at(mut self, position: Option<Position>) -> SqlError {
        self.position = self.position.or(position);
        self
    }

    /// The message with the line it is about, a caret below the place, and the hint.
    ///
    /// ```
    /// use sql::{ErrorKind, Position, SqlError};
    /// let error = SqlError::new(ErrorKind::UnknownColumn, "no column `nam`")
    ///     .at(Some(Position { line: 1, column: 8 }));
    /// assert_eq!(error.render("SELECT nam FROM t"), "no column `nam`\n  SELECT nam FROM t\n         ^");
    /// ```
    pub fn render(&self, sql: &str) -> String {
        let mut text = self.message.clone();
        if let Some(Position { line, column }) = self.position
            && let Some(source) = sql.lines().nth(line.saturating_sub(1) as usize)
        {
            let before: String = source
                .chars()
                .take(column.saturating_sub(1) as usize)
                .map(|c| if c == '\t' { '\t' } else { ' ' })
                .collect();
            text.push_str(&format!("\n  {source}\n  {before}^"));
        }
        if let Some(hint) = &self.hint {
            text.push_str(&format!("\nHint: {hint}"));
        }
        text
    }

    pub(crate) fn syntax(message: impl Into<String>) -> SqlError {
        SqlError::new(ErrorKind::Syntax, message)
    }

    pub(crate) fn unsupported(message: impl Into<String>) -> SqlError {
        SqlError::new(ErrorKind::Unsupported, message)
    }

    pub(crate) fn schema(message: impl Into<String>) -> SqlError {
        SqlError::new(ErrorKind::Schema, message)
    }

    pub(crate) fn type_error(message: impl Into<String>) -> SqlError {
        SqlError::new(ErrorKind::Type, message)
    }

    pub(crate) fn internal(message: impl Into<String>) -> SqlError {
        SqlError::new(ErrorKind::Internal, message)
    }
}

impl fmt::Display for SqlError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl From<proto::Error> for SqlError {
    fn from(error: proto::Error) -> SqlError {
        use proto::Error as E;
        let message = error.to_string();
        match error {
            E::Aborted { .. } => SqlError::new(ErrorKind::Aborted, message)
                .with_hint("nothing was written; run the whole transaction again"),
            E::OutcomeUnknown { .. } => SqlError::new(ErrorKind::OutcomeUnknown, message)
                .with_hint("read the rows to see whether the commit happened"),
            E::SnapshotTooOld { at, horizon } => SqlError::new(
                ErrorKind::SnapshotTooOld,
                format!(
                    "read timestamp {} is older than the oldest version kept ({})",
                    crate::value::timestamp_text(at),
                    crate::value::timestamp_text(horizon)
                ),
            ),
            E::FailedPrecondition(_) => SqlError::new(ErrorKind::TransactionState, message),
            E::TimestampInFuture { at, now } => SqlError::new(
                ErrorKind::FutureTimestamp,
                format!(
                    "read timestamp {} lies in the future (now is {})",
                    crate::value::timestamp_text(at),
                    crate::value::timestamp_text(now)
                ),
            ),
            E::InvalidArgument(_) => SqlError::new(ErrorKind::Limit, message),
            E::DeadlineExceeded(_) => SqlError::new(ErrorKind::DeadlineExceeded, message),
            E::NotLeader { .. }
            | E::StaleBallot { .. }
            | E::StaleRoute { .. }
            | E::ClockUnavailable { .. }
            | E::ResourceExhausted(_) => SqlError::new(ErrorKind::Unavailable, message),
        }
    }
}

impl Retryable for SqlError {
    fn is_aborted(&self) -> bool {
        self.kind == ErrorKind::Aborted
    }
}

/// The candidate nearest to what was written, when it is near enough to be meant.
pub(crate) fn nearest<'a>(
    written: &str,
    candidates: impl Iterator<Item = &'a str>,
) -> Option<&'a str> {
    let written = written.to_lowercase();
    let limit = 1 + written.chars().count() / 4;
    candidates
        .map(|candidate| (distance(&written, &candidate.to_lowercase()), candidate))
        .filter(|(distance, _)| *distance <= limit)
        .min()
        .map(|(_, candidate)| candidate)
}

/// Levenshtein distance.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, to) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(from != *to);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_names_are_suggested_far_ones_are_not() {
        let names = ["flights", "airlines", "planes"];
        assert_eq!(nearest("flihgts", names.into_iter()), None.or(Some("flights")));
        assert_eq!(nearest("FLIGHT", names.into_iter()), Some("flights"));
        assert_eq!(nearest("weather", names.into_iter()), None);
    }
}
