//! Transactions, staleness, variables.

use super::dml::Name;
use super::{Statement, expected, from_parser, position, unsupported};
use crate::error::{Result, SqlError};
use crate::value::timestamp_from_text;
use sqlparser::keywords::Keyword;
use sqlparser::parser::Parser;
use sqlparser::tokenizer::Token;
use std::time::Duration;
use txn::client::{SessionToken, TimestampBound};

/// What a transaction may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TransactionKind {
    /// Read at one timestamp, without locks.
    ReadOnly,
    /// Read under locks, and write.
    ReadWrite,
}

/// What `SHOW VARIABLE` shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Variable {
    /// The timestamp of the session's last commit.
    CommitTimestamp,
    /// The timestamp of the session's last read without locks.
    ReadTimestamp,
    /// How fresh its reads without locks are.
    ReadOnlyStaleness,
    /// What the session has seen, for another session to go on from.
    SessionToken,
}

pub(super) fn begin(parser: &mut Parser<'_>) -> Result<Statement> {
    let start = parser.parse_keyword(Keyword::START);
    if !start {
        parser.next_token();
    }
    if !parser.parse_keyword(Keyword::TRANSACTION) && start {
        return Err(expected(parser, "TRANSACTION"));
    }
    Ok(Statement::Begin(kind(parser)))
}

fn kind(parser: &mut Parser<'_>) -> Option<TransactionKind> {
    if parser.parse_keywords(&[Keyword::READ, Keyword::ONLY]) {
        Some(TransactionKind::ReadOnly)
    } else if parser.parse_keywords(&[Keyword::READ, Keyword::WRITE]) {
        Some(TransactionKind::ReadWrite)
    } else {
        None
    }
}

pub(super) fn end(parser: &mut Parser<'_>) -> Result<Statement> {
    let commit = parser.parse_one_of_keywords(&[Keyword::COMMIT, Keyword::END]).is_some();
    if !commit {
        parser.next_token();
    }
    let _ = parser.parse_keyword(Keyword::TRANSACTION);
    Ok(if commit { Statement::Commit } else { Statement::Rollback })
}

pub(super) fn set(parser: &mut Parser<'_>) -> Result<Statement> {
    parser.next_token();
    if parser.parse_keyword(Keyword::TRANSACTION) {
        let kind = kind(parser).ok_or_else(|| expected(parser, "READ ONLY or READ WRITE"))?;
        return Ok(Statement::SetTransaction(kind));
    }
    let variable = word(parser);
    if variable.as_deref() != Some("READ_ONLY_STALENESS") {
        let hint = "SET TRANSACTION and SET READ_ONLY_STALENESS are what can be set";
        return Err(expected(parser, "READ_ONLY_STALENESS").with_hint(hint));
    }
    parser.next_token();
    if !parser.consume_token(&Token::Eq) && !parser.parse_keyword(Keyword::TO) {
        return Err(expected(parser, "`=` and a text"));
    }
    let place = position(parser.peek_token().span);
    let text = parser.parse_literal_string().map_err(from_parser)?;
    Ok(Statement::SetStaleness(staleness(&text).map_err(|error| error.at(place))?))
}

/// The next word, upper case; it stays where it is.
fn word(parser: &Parser<'_>) -> Option<String> {
    match parser.peek_token().token {
        Token::Word(word) => Some(word.value.to_uppercase()),
        _ => None,
    }
}

pub(super) fn show(parser: &mut Parser<'_>) -> Result<Statement> {
    if !parser.parse_keyword(Keyword::SHOW) {
        parser.next_token();
        let _ = parser.parse_keyword(Keyword::TABLE);
        return Ok(Statement::Describe(Name::parse(parser)?));
    }
    if parser.parse_keyword(Keyword::TABLES) {
        return Ok(Statement::ShowTables);
    }
    if parser.parse_keywords(&[Keyword::CREATE, Keyword::TABLE]) {
        return Ok(Statement::ShowCreateTable(Name::parse(parser)?));
    }
    if word(parser).as_deref() == Some("VARIABLE") {
        parser.next_token();
    }
    let variable = match word(parser).as_deref() {
        Some("COMMIT_TIMESTAMP") => Variable::CommitTimestamp,
        Some("READ_TIMESTAMP") => Variable::ReadTimestamp,
        Some("READ_ONLY_STALENESS") => Variable::ReadOnlyStaleness,
        Some("SESSION_TOKEN") => Variable::SessionToken,
        Some(other) => {
            return Err(unsupported(parser, &format!("SHOW {other}")).with_hint(
                "SHOW VARIABLE knows COMMIT_TIMESTAMP, READ_TIMESTAMP, READ_ONLY_STALENESS and \
                 SESSION_TOKEN; SHOW TABLES and SHOW CREATE TABLE show the schema",
            ));
        }
        None => return Err(expected(parser, "VARIABLE or TABLES")),
    };
    parser.next_token();
    Ok(Statement::ShowVariable(variable))
}

/// Reads a bound as drivers of Spanner spell it: `STRONG`, `EXACT_STALENESS 10s`,
/// `MAX_STALENESS 15s`, `READ_TIMESTAMP 2014-10-02T15:01:23.045123456Z`, `MIN_READ_TIMESTAMP …`;
/// and two of our own: `SESSION`, what the session itself has seen, and `SESSION s1-…`, what another
/// one has seen too.
///
/// # Errors
/// `Syntax`, naming what can be said.
pub fn staleness(text: &str) -> Result<TimestampBound> {
    let (mode, rest) = text.trim().split_once(char::is_whitespace).unwrap_or((text.trim(), ""));
    let rest = rest.trim();
    let timestamp = || {
        timestamp_from_text(rest)
            .ok_or_else(|| SqlError::syntax(format!("cannot read '{rest}' as a timestamp")))
    };
    match &mode.to_uppercase()[..] {
        "STRONG" if rest.is_empty() => Ok(TimestampBound::Strong),
        "EXACT_STALENESS" => Ok(TimestampBound::ExactStaleness(duration(rest)?)),
        "MAX_STALENESS" => Ok(TimestampBound::MaxStaleness(duration(rest)?)),
        "READ_TIMESTAMP" => Ok(TimestampBound::ReadTimestamp(timestamp()?)),
        "MIN_READ_TIMESTAMP" => Ok(TimestampBound::MinReadTimestamp(timestamp()?)),
        "SESSION" if rest.is_empty() => Ok(TimestampBound::Session(SessionToken::default())),
        "SESSION" => match rest.parse() {
            Ok(token) => Ok(TimestampBound::Session(token)),
            Err(_) => Err(SqlError::syntax(format!("'{rest}' is no session token"))
                .with_hint("SHOW VARIABLE SESSION_TOKEN shows a session's own")),
        },
        _ => Err(SqlError::syntax(format!("'{text}' is no staleness")).with_hint(
            "'STRONG', 'EXACT_STALENESS 10s', 'MAX_STALENESS 15s', \
             'READ_TIMESTAMP 2014-10-02T15:01:23.045Z', 'MIN_READ_TIMESTAMP …', 'SESSION' or \
             'SESSION s1-…'",
        )),
    }
}

/// `10s`, `150ms`, `5us`, `7ns`, `2m`, `1h`.
fn duration(text: &str) -> Result<Duration> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (amount, unit) = text.split_at(digits);
    let nanos: u64 = match unit {
        "h" => 3_600_000_000_000,
        "m" => 60_000_000_000,
        "s" => 1_000_000_000,
        "ms" => 1_000_000,
        "us" => 1_000,
        "ns" => 1,
        _ => 0,
    };
    let total = amount.parse::<u64>().ok().and_then(|amount| amount.checked_mul(nanos));
    match total {
        Some(total) if nanos > 0 => Ok(Duration::from_nanos(total)),
        _ => Err(SqlError::syntax(format!("cannot read '{text}' as a duration"))
            .with_hint("a number and h, m, s, ms, us or ns: 10s")),
    }
}

/// A bound as `SHOW VARIABLE READ_ONLY_STALENESS` prints it; [`staleness`] reads it back.
pub fn staleness_text(bound: TimestampBound) -> String {
    let at = crate::value::timestamp_text;
    match bound {
        TimestampBound::Strong => "STRONG".into(),
        TimestampBound::ExactStaleness(age) => format!("EXACT_STALENESS {}", duration_text(age)),
        TimestampBound::MaxStaleness(age) => format!("MAX_STALENESS {}", duration_text(age)),
        TimestampBound::ReadTimestamp(time) => format!("READ_TIMESTAMP {}", at(time)),
        TimestampBound::MinReadTimestamp(time) => format!("MIN_READ_TIMESTAMP {}", at(time)),
        TimestampBound::Session(token) if token == SessionToken::default() => "SESSION".into(),
        TimestampBound::Session(token) => format!("SESSION {token}"),
    }
}

fn duration_text(duration: Duration) -> String {
    let nanos = duration.as_nanos();
    let units = [(1_000_000_000, "s"), (1_000_000, "ms"), (1_000, "us"), (1, "ns")];
    let fits = units.into_iter().find(|(size, _)| nanos.is_multiple_of(*size));
    fits.map_or_else(String::new, |(size, unit)| format!("{}{unit}", nanos / size))
}
