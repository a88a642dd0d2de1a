//! From text to statements.
//!
//! Expressions and queries are `sqlparser`'s, read with its BigQuery dialect, which is GoogleSQL
//! less Spanner's own statements; those are read here: tables with `PRIMARY KEY` and `INTERLEAVE`
//! in [`ddl`], `INSERT OR UPDATE` and the like in [`dml`], transactions and staleness in
//! [`session`]. [`split()`] cuts a script into statements without reading them.

pub mod ddl;
pub mod dml;
pub mod session;
pub mod split;
mod tokens;

pub use ddl::{ColumnDefinition, CreateTable};
pub use dml::{Delete, Insert, InsertKind, InsertSource, Name, Update};
pub use session::{TransactionKind, Variable};
pub use split::{StatementText, split};

use crate::error::{Position, Result, SqlError};
use sqlparser::ast::Query;
use sqlparser::dialect::BigQueryDialect;
use sqlparser::keywords::Keyword;
use sqlparser::parser::{Parser, ParserError};
use sqlparser::tokenizer::{Span, Token};
use txn::client::TimestampBound;

/// A statement, read but not yet looked up in a catalog.
#[derive(Clone, Debug, PartialEq)]
pub enum Statement {
    /// `CREATE TABLE`.
    CreateTable(CreateTable),
    /// `DROP TABLE`.
    DropTable {
        /// Which one.
        name: Name,
        /// Whether its absence is fine.
        if_exists: bool,
    },
    /// `INSERT`, `INSERT OR UPDATE`, `INSERT OR IGNORE`.
    Insert(Insert),
    /// `UPDATE`.
    Update(Update),
    /// `DELETE`.
    Delete(Delete),
    /// `SELECT`, `WITH`.
    Query(Box<Query>),
    /// `EXPLAIN` a query.
    Explain {
        /// Whether it is run, to count its rows and time.
        analyze: bool,
        /// Which query.
        query: Box<Query>,
    },
    /// `BEGIN`; `None`: read-write.
    Begin(Option<TransactionKind>),
    /// `COMMIT`.
    Commit,
    /// `ROLLBACK`.
    Rollback,
    /// `SET TRANSACTION`.
    SetTransaction(TransactionKind),
    /// `SET READ_ONLY_STALENESS`.
    SetStaleness(TimestampBound),
    /// `SHOW VARIABLE`.
    ShowVariable(Variable),
    /// `SHOW TABLES`.
    ShowTables,
    /// `DESCRIBE t`.
    Describe(Name),
    /// `SHOW CREATE TABLE t`.
    ShowCreateTable(Name),
}

/// What statements there are, for those who tried another.
const SUPPORTED: &str = "statements are SELECT, WITH, INSERT, UPDATE, DELETE, CREATE TABLE, \
    DROP TABLE, BEGIN, COMMIT, ROLLBACK, SET TRANSACTION, SET READ_ONLY_STALENESS, SHOW VARIABLE, \
    SHOW TABLES, SHOW CREATE TABLE, DESCRIBE and EXPLAIN";

/// Reads exactly one statement; a semicolon may end it.
///
/// # Errors
/// `Syntax` or `Unsupported`, with the place.
pub fn parse(sql: &str) -> Result<Statement> {
    let dialect = BigQueryDialect {};
    let mut tokens = tokens::tokenize(&dialect, sql)?;
    while tokens.last().is_some_and(|t| matches!(t.token, Token::SemiColon | Token::Whitespace(_)))
    {
        tokens.pop();
    }
    if tokens.iter().all(|t| matches!(t.token, Token::Whitespace(_))) {
        return Err(SqlError::syntax("the statement is empty"));
    }
    let mut parser = Parser::new(&dialect).with_tokens_with_locations(tokens);
    let statement = statement(&mut parser)?;
    let rest = parser.peek_token();
    match rest.token {
        Token::EOF => Ok(statement),
        Token::SemiColon => Err(SqlError::syntax("only one statement at a time")
            .at(position(rest.span))
            .with_hint("send the statements one after the other")),
        token => Err(SqlError::syntax(format!("unexpected `{token}` after the statement"))
            .at(position(rest.span))),
    }
}

fn statement(parser: &mut Parser<'_>) -> Result<Statement> {
    let first = parser.peek_token();
    let keyword = match &first.token {
        Token::Word(word) if word.quote_style.is_none() => word.keyword,
        Token::LParen => Keyword::SELECT,
        _ => Keyword::NoKeyword,
    };
    match keyword {
        Keyword::SELECT | Keyword::WITH | Keyword::FROM | Keyword::VALUES => {
            Ok(Statement::Query(query(parser)?))
        }
        Keyword::EXPLAIN => {
            parser.next_token();
            let analyze = parser.parse_keyword(Keyword::ANALYZE);
            Ok(Statement::Explain { analyze, query: query(parser)? })
        }
        Keyword::CREATE => ddl::create(parser),
        Keyword::DROP => ddl::drop(parser),
        Keyword::INSERT => dml::insert(parser).map(Statement::Insert),
        Keyword::UPDATE => dml::update(parser).map(Statement::Update),
        Keyword::DELETE => dml::delete(parser).map(Statement::Delete),
        Keyword::BEGIN | Keyword::START => session::begin(parser),
        Keyword::COMMIT | Keyword::END | Keyword::ROLLBACK | Keyword::ABORT => session::end(parser),
        Keyword::SET => session::set(parser),
        Keyword::SHOW | Keyword::DESCRIBE | Keyword::DESC => session::show(parser),
        _ => Err(SqlError::unsupported(format!("`{}` begins no statement", first.token))
            .at(position(first.span))
            .with_hint(SUPPORTED)),
    }
}

fn query(parser: &mut Parser<'_>) -> Result<Box<Query>> {
    parser.parse_query().map_err(from_parser)
}

/// A statement that exists elsewhere.
fn unsupported(parser: &Parser<'_>, what: &str) -> SqlError {
    SqlError::unsupported(format!("{what} is not supported"))
        .at(position(parser.peek_token().span))
        .with_hint(SUPPORTED)
}

/// What was wanted, what was found, and where.
fn expected(parser: &Parser<'_>, wanted: &str) -> SqlError {
    let found = parser.peek_token();
    let found_text = match &found.token {
        Token::EOF => "the end of the statement".to_owned(),
        token => format!("`{token}`"),
    };
    SqlError::syntax(format!("expected {wanted}, found {found_text}")).at(position(found.span))
}

/// The place a span begins; the end of the text has none.
pub(crate) fn position(span: Span) -> Option<Position> {
    let line = u32::try_from(span.start.line).ok().filter(|line| *line > 0)?;
    Some(Position { line, column: u32::try_from(span.start.column).ok()? })
}

/// The parser's error in our words: its place is taken out of the text.
fn from_parser(error: ParserError) -> SqlError {
    let message = match error {
        ParserError::TokenizerError(message) | ParserError::ParserError(message) => message,
        ParserError::RecursionLimitExceeded => "the statement is nested too deeply".into(),
    };
    let (text, place) = match message.rfind(" at Line: ") {
        Some(at) => (&message[..at], &message[at + " at Line: ".len()..]),
        None => (&message[..], ""),
    };
    let position = place.split_once(", Column: ").and_then(|(line, column)| {
        Some(Position { line: line.parse().ok()?, column: column.parse().ok()? })
    });
    let text = text.replace("Expected: ", "expected ").replace("found: EOF", "found the end");
    let text = text.replace("Expected an ", "expected an ").replace("found: ", "found ");
    SqlError::syntax(text).at(position.filter(|p| p.line > 0))
}

#[cfg(test)]
mod tests;
