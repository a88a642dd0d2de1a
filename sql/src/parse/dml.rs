//! `INSERT`, `UPDATE`, `DELETE`.

use super::{expected, from_parser, position, query};
use crate::error::{Position, Result, SqlError};
use sqlparser::ast::{Expr, Query};
use sqlparser::keywords::Keyword;
use sqlparser::parser::Parser;
use sqlparser::tokenizer::Token;

/// A name of a table or column, and where it stands.
#[derive(Clone, Debug, PartialEq)]
pub struct Name {
    /// As written.
    pub text: String,
    /// Where.
    pub position: Option<Position>,
}

impl Name {
    pub(super) fn parse(parser: &mut Parser<'_>) -> Result<Name> {
        let place = position(parser.peek_token().span);
        let ident = match parser.peek_token().token {
            Token::Word(_) => parser.parse_identifier().map_err(from_parser)?,
            _ => return Err(expected(parser, "a name")),
        };
        if parser.peek_token().token == Token::Period {
            return Err(SqlError::unsupported("named schemas are not supported")
                .at(position(parser.peek_token().span)));
        }
        Ok(Name { text: ident.value, position: place })
    }
}

/// What an `INSERT` does about rows that exist.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InsertKind {
    /// They are an error.
    Insert,
    /// They are overwritten in the columns named.
    OrUpdate,
    /// They stay as they are.
    OrIgnore,
}

/// Where an `INSERT` takes its rows from.
#[derive(Clone, Debug, PartialEq)]
pub enum InsertSource {
    /// `VALUES`.
    Values(Vec<Vec<Expr>>),
    /// A query.
    Query(Box<Query>),
}

/// An `INSERT` statement.
#[derive(Clone, Debug, PartialEq)]
pub struct Insert {
    /// What about rows that exist.
    pub kind: InsertKind,
    /// Into which table.
    pub table: Name,
    /// Into which columns; `None`: all, in declared order.
    pub columns: Option<Vec<Name>>,
    /// Which rows.
    pub source: InsertSource,
}

/// An `UPDATE` statement.
#[derive(Clone, Debug, PartialEq)]
pub struct Update {
    /// Which table.
    pub table: Name,
    /// What it is called in the expressions.
    pub alias: Option<String>,
    /// What is set to what.
    pub set: Vec<(Name, Expr)>,
    /// Which rows.
    pub filter: Expr,
}

/// A `DELETE` statement.
#[derive(Clone, Debug, PartialEq)]
pub struct Delete {
    /// From which table.
    pub table: Name,
    /// What it is called in the expressions.
    pub alias: Option<String>,
    /// Which rows.
    pub filter: Expr,
}

pub(super) fn insert(parser: &mut Parser<'_>) -> Result<Insert> {
    parser.next_token();
    let mut kind = InsertKind::Insert;
    if parser.parse_keyword(Keyword::OR) {
        kind = match parser.parse_one_of_keywords(&[Keyword::UPDATE, Keyword::IGNORE]) {
            Some(Keyword::UPDATE) => InsertKind::OrUpdate,
            Some(_) => InsertKind::OrIgnore,
            None => return Err(expected(parser, "UPDATE or IGNORE")),
        };
    }
    let _ = parser.parse_keyword(Keyword::INTO);
    let table = Name::parse(parser)?;
    let columns = match parser.peek_token().token {
        Token::LParen if !is_query(&parser.peek_nth_token(1).token) => Some(columns(parser)?),
        _ => None,
    };
    let source = if parser.parse_keyword(Keyword::VALUES) {
        InsertSource::Values(rows(parser)?)
    } else if is_query(&parser.peek_token().token) || parser.peek_token().token == Token::LParen {
        InsertSource::Query(query(parser)?)
    } else {
        return Err(expected(parser, "VALUES or SELECT"));
    };
    if parser.parse_keyword(Keyword::THEN) {
        return Err(SqlError::unsupported("THEN RETURN is not supported"));
    }
    Ok(Insert { kind, table, columns, source })
}

fn is_query(token: &Token) -> bool {
    matches!(token, Token::Word(word)
        if word.quote_style.is_none() && matches!(word.keyword, Keyword::SELECT | Keyword::WITH))
}

fn columns(parser: &mut Parser<'_>) -> Result<Vec<Name>> {
    parser.next_token();
    let mut names = Vec::new();
    while !parser.consume_token(&Token::RParen) {
        names.push(Name::parse(parser)?);
        if !parser.consume_token(&Token::Comma) && parser.peek_token().token != Token::RParen {
            return Err(expected(parser, "`,` or `)` after a column"));
        }
    }
    Ok(names)
}

fn rows(parser: &mut Parser<'_>) -> Result<Vec<Vec<Expr>>> {
    let mut rows = Vec::new();
    loop {
        if !parser.consume_token(&Token::LParen) {
            return Err(expected(parser, "`(` and a row"));
        }
        let row = parser.parse_comma_separated(Parser::parse_expr).map_err(from_parser)?;
        if !parser.consume_token(&Token::RParen) {
            return Err(expected(parser, "`,` or `)` after a value"));
        }
        rows.push(row);
        if !parser.consume_token(&Token::Comma) {
            return Ok(rows);
        }
    }
}

pub(super) fn update(parser: &mut Parser<'_>) -> Result<Update> {
    parser.next_token();
    let table = Name::parse(parser)?;
    let alias = alias(parser)?;
    parser.expect_keyword_is(Keyword::SET).map_err(from_parser)?;
    let mut set = Vec::new();
    loop {
        let mut column = Name::parse_column(parser)?;
        if parser.consume_token(&Token::Period) {
            column = Name::parse_column(parser)?;
        }
        if !parser.consume_token(&Token::Eq) {
            return Err(expected(parser, "`=` and a value"));
        }
        set.push((column, parser.parse_expr().map_err(from_parser)?));
        if !parser.consume_token(&Token::Comma) {
            break;
        }
    }
    let filter = filter(parser, "UPDATE")?;
    Ok(Update { table, alias, set, filter })
}

impl Name {
    /// As `parse`, but a period may follow: `t.column`.
    fn parse_column(parser: &mut Parser<'_>) -> Result<Name> {
        let place = position(parser.peek_token().span);
        match parser.peek_token().token {
            Token::Word(_) => {
                let ident = parser.parse_identifier().map_err(from_parser)?;
                Ok(Name { text: ident.value, position: place })
            }
            _ => Err(expected(parser, "a column")),
        }
    }
}

pub(super) fn delete(parser: &mut Parser<'_>) -> Result<Delete> {
    parser.next_token();
    let _ = parser.parse_keyword(Keyword::FROM);
    let table = Name::parse(parser)?;
    let alias = alias(parser)?;
    let filter = filter(parser, "DELETE")?;
    Ok(Delete { table, alias, filter })
}

fn alias(parser: &mut Parser<'_>) -> Result<Option<String>> {
    let said = parser.parse_keyword(Keyword::AS);
    match parser.peek_token().token {
        Token::Word(word)
            if said || !matches!(word.keyword, Keyword::SET | Keyword::WHERE | Keyword::THEN) =>
        {
            Ok(Some(parser.parse_identifier().map_err(from_parser)?.value.to_lowercase()))
        }
        _ if said => Err(expected(parser, "an alias")),
        _ => Ok(None),
    }
}

fn filter(parser: &mut Parser<'_>, statement: &str) -> Result<Expr> {
    if !parser.parse_keyword(Keyword::WHERE) {
        return Err(expected(parser, "WHERE")
            .with_hint(format!("{statement} needs a WHERE clause; WHERE true means every row")));
    }
    let filter = parser.parse_expr().map_err(from_parser)?;
    if parser.parse_keyword(Keyword::THEN) {
        return Err(SqlError::unsupported("THEN RETURN is not supported"));
    }
    Ok(filter)
}
