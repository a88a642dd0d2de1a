//! Tokens, with the spellings of one thing made one: every quoted or raw text a single-quoted
//! one, every byte literal a hexadecimal one.

use super::position;
use crate::error::{Position, Result, SqlError};
use crate::value::unescape_bytes;
use sqlparser::dialect::BigQueryDialect;
use sqlparser::tokenizer::{Token, TokenWithSpan, Tokenizer};
use std::fmt::Write;

pub(super) fn tokenize(dialect: &BigQueryDialect, sql: &str) -> Result<Vec<TokenWithSpan>> {
    let mut tokens = Tokenizer::new(dialect, sql).tokenize_with_location().map_err(|error| {
        let line = u32::try_from(error.location.line).unwrap_or(0);
        let column = u32::try_from(error.location.column).unwrap_or(0);
        SqlError::syntax(error.message)
            .at((line > 0).then_some(Position { line, column }))
            .with_hint("is a quote or a comment left open?")
    })?;
    let first_word = tokens.iter().find_map(|t| match &t.token {
        Token::Word(word) => Some(word.value.to_uppercase()),
        _ => None,
    });
    // Names are case-insensitive, quoted or not; only declarations keep theirs.
    let declares = matches!(first_word.as_deref(), Some("CREATE" | "DROP"));
    for token in &mut tokens {
        normalise(token, declares)?;
    }
    Ok(tokens)
}

fn normalise(token: &mut TokenWithSpan, declares: bool) -> Result<()> {
    let place = position(token.span);
    token.token = match std::mem::replace(&mut token.token, Token::EOF) {
        Token::DoubleQuotedString(text)
        | Token::TripleSingleQuotedString(text)
        | Token::TripleDoubleQuotedString(text)
        | Token::SingleQuotedRawStringLiteral(text)
        | Token::DoubleQuotedRawStringLiteral(text)
        | Token::TripleSingleQuotedRawStringLiteral(text)
        | Token::TripleDoubleQuotedRawStringLiteral(text) => Token::SingleQuotedString(text),
        Token::SingleQuotedByteStringLiteral(text)
        | Token::DoubleQuotedByteStringLiteral(text)
        | Token::TripleSingleQuotedByteStringLiteral(text)
        | Token::TripleDoubleQuotedByteStringLiteral(text) => {
            let bytes = unescape_bytes(&text)
                .ok_or_else(|| SqlError::syntax("unknown escape in a byte literal").at(place))?;
            let mut hex = String::with_capacity(2 * bytes.len());
            for byte in bytes {
                write!(hex, "{byte:02x}").expect("a string takes everything");
            }
            Token::HexStringLiteral(hex)
        }
        Token::Word(word) if word.quote_style.is_none() && word.value.starts_with('@') => {
            Token::Placeholder(word.value)
        }
        Token::Word(mut word) if word.quote_style == Some('`') && !declares => {
            word.value = word.value.to_lowercase();
            Token::Word(word)
        }
        other => other,
    };
    Ok(())
}
