//! `CREATE TABLE` and `DROP TABLE`.

use super::dml::Name;
use super::{Statement, expected, from_parser, position, unsupported};
use crate::catalog::OnDelete;
use crate::error::{Result, SqlError};
use crate::value::Type;
use sqlparser::keywords::Keyword;
use sqlparser::parser::Parser;
use sqlparser::tokenizer::{Token, Word};

/// A `CREATE TABLE` statement.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct CreateTable {
    /// The table's name.
    pub name: String,
    /// Whether an existing table of the name is fine.
    pub if_not_exists: bool,
    /// The columns in declared order.
    pub columns: Vec<ColumnDefinition>,
    /// The key's columns, each with whether it is `DESC`. `None`: not said.
    pub primary_key: Option<Vec<(String, bool)>>,
    /// The parent's name and what its rows' deletion does.
    pub interleave: Option<(String, OnDelete)>,
}

/// A column of a `CREATE TABLE` statement.
#[derive(Clone, Debug, PartialEq)]
pub struct ColumnDefinition {
    /// Its name.
    pub name: String,
    /// Its type.
    pub data_type: Type,
    /// Whether it says `NOT NULL`.
    pub not_null: bool,
}

pub(super) fn create(parser: &mut Parser<'_>) -> Result<Statement> {
    parser.next_token();
    if !parser.parse_keyword(Keyword::TABLE) {
        let what = format!("CREATE {}", parser.peek_token().token);
        return Err(unsupported(parser, &what));
    }
    let if_not_exists = parser.parse_keywords(&[Keyword::IF, Keyword::NOT, Keyword::EXISTS]);
    let name = Name::parse(parser)?.text;
    let mut table = CreateTable { name, if_not_exists, ..CreateTable::default() };
    if !parser.consume_token(&Token::LParen) {
        return Err(expected(parser, "`(` and the columns"));
    }
    while !parser.consume_token(&Token::RParen) {
        item(parser, &mut table)?;
        if !parser.consume_token(&Token::Comma) && parser.peek_token().token != Token::RParen {
            return Err(expected(parser, "`,` or `)` after a column"));
        }
    }
    if parser.parse_keywords(&[Keyword::PRIMARY, Keyword::KEY]) {
        primary_key(parser, &mut table)?;
    }
    while parser.consume_token(&Token::Comma) {
        if !next_is(parser, "INTERLEAVE") {
            return Err(expected(parser, "INTERLEAVE IN PARENT"));
        }
        parser.next_token();
        table.interleave = Some(interleave(parser)?);
    }
    Ok(Statement::CreateTable(table))
}

/// A column, or a primary key inside the parentheses.
fn item(parser: &mut Parser<'_>, table: &mut CreateTable) -> Result<()> {
    if parser.parse_keywords(&[Keyword::PRIMARY, Keyword::KEY]) {
        return primary_key(parser, table);
    }
    let constraint = parser.peek_one_of_keywords(&[
        Keyword::CONSTRAINT,
        Keyword::FOREIGN,
        Keyword::CHECK,
        Keyword::UNIQUE,
    ]);
    if let Some(keyword) = constraint
        && !matches!(
            parser.peek_nth_token(1).token,
            Token::Word(Word { keyword: Keyword::NoKeyword, .. })
        )
    {
        return Err(SqlError::unsupported(format!("{keyword:?} constraints are not supported"))
            .at(position(parser.peek_token().span)));
    }
    let name = Name::parse(parser)?.text;
    let data_type = column_type(parser)?;
    let mut column = ColumnDefinition { name, data_type, not_null: false };
    loop {
        if parser.parse_keywords(&[Keyword::NOT, Keyword::NULL]) {
            column.not_null = true;
        } else if parser.parse_keywords(&[Keyword::PRIMARY, Keyword::KEY]) {
            set_key(parser, table, vec![(column.name.clone(), false)])?;
        } else if let Some(keyword) = parser.peek_one_of_keywords(&[
            Keyword::DEFAULT,
            Keyword::AS,
            Keyword::OPTIONS,
            Keyword::CHECK,
            Keyword::GENERATED,
            Keyword::UNIQUE,
            Keyword::REFERENCES,
        ]) {
            return Err(SqlError::unsupported(format!("{keyword:?} of a column is not supported"))
                .at(position(parser.peek_token().span)));
        } else {
            break;
        }
    }
    table.columns.push(column);
    Ok(())
}

fn column_type(parser: &mut Parser<'_>) -> Result<Type> {
    let token = parser.peek_token();
    let Token::Word(word) = &token.token else { return Err(expected(parser, "a type")) };
    let name = word.value.to_uppercase();
    parser.next_token();
    Ok(match &name[..] {
        "BOOL" => Type::Bool,
        "INT64" => Type::Int64,
        "FLOAT64" => Type::Float64,
        "DATE" => Type::Date,
        "TIMESTAMP" => Type::Timestamp,
        "STRING" => Type::String(length(parser)?),
        "BYTES" => Type::Bytes(length(parser)?),
        _ => {
            return Err(SqlError::unsupported(format!("there is no type {name}"))
                .at(position(token.span))
                .with_hint(
                    "types are BOOL, INT64, FLOAT64, STRING(n|MAX), BYTES(n|MAX), DATE, TIMESTAMP",
                ));
        }
    })
}

fn length(parser: &mut Parser<'_>) -> Result<Option<u32>> {
    if !parser.consume_token(&Token::LParen) {
        return Err(expected(parser, "a length: (n) or (MAX)"));
    }
    let token = parser.peek_token();
    let length = match &token.token {
        Token::Word(word) if word.value.eq_ignore_ascii_case("MAX") => None,
        Token::Number(digits, _) => match digits.parse() {
            Ok(length) => Some(length),
            Err(_) => return Err(expected(parser, "a length: (n) or (MAX)")),
        },
        _ => return Err(expected(parser, "a length: (n) or (MAX)")),
    };
    parser.next_token();
    parser.expect_token(&Token::RParen).map_err(from_parser)?;
    Ok(length)
}

fn primary_key(parser: &mut Parser<'_>, table: &mut CreateTable) -> Result<()> {
    if !parser.consume_token(&Token::LParen) {
        return Err(expected(parser, "`(` and the key's columns"));
    }
    let mut parts = Vec::new();
    while !parser.consume_token(&Token::RParen) {
        let name = Name::parse(parser)?.text;
        let desc = parser.parse_keyword(Keyword::DESC);
        if !desc {
            let _ = parser.parse_keyword(Keyword::ASC);
        }
        parts.push((name, desc));
        if !parser.consume_token(&Token::Comma) && parser.peek_token().token != Token::RParen {
            return Err(expected(parser, "`,` or `)` after a key column"));
        }
    }
    set_key(parser, table, parts)
}

fn set_key(parser: &Parser<'_>, table: &mut CreateTable, parts: Vec<(String, bool)>) -> Result<()> {
    if table.primary_key.is_some() {
        return Err(SqlError::syntax("the primary key is declared twice")
            .at(position(parser.peek_token().span)));
    }
    table.primary_key = Some(parts);
    Ok(())
}

fn interleave(parser: &mut Parser<'_>) -> Result<(String, OnDelete)> {
    parser.expect_keyword_is(Keyword::IN).map_err(from_parser)?;
    if !next_is(parser, "PARENT") {
        return Err(expected(parser, "PARENT"));
    }
    parser.next_token();
    let parent = Name::parse(parser)?.text;
    let mut on_delete = OnDelete::NoAction;
    if parser.parse_keyword(Keyword::ON) {
        parser.expect_keyword_is(Keyword::DELETE).map_err(from_parser)?;
        if parser.parse_keyword(Keyword::CASCADE) {
            on_delete = OnDelete::Cascade;
        } else if !parser.parse_keywords(&[Keyword::NO, Keyword::ACTION]) {
            return Err(expected(parser, "CASCADE or NO ACTION"));
        }
    }
    Ok((parent, on_delete))
}

fn next_is(parser: &Parser<'_>, word: &str) -> bool {
    matches!(parser.peek_token().token, Token::Word(found) if found.value.eq_ignore_ascii_case(word))
}

pub(super) fn drop(parser: &mut Parser<'_>) -> Result<Statement> {
    parser.next_token();
    if !parser.parse_keyword(Keyword::TABLE) {
        let what = format!("DROP {}", parser.peek_token().token);
        return Err(unsupported(parser, &what));
    }
    let if_exists = parser.parse_keywords(&[Keyword::IF, Keyword::EXISTS]);
    Ok(Statement::DropTable { name: Name::parse(parser)?, if_exists })
}
