//! Values and types of columns, and their text.
//!
//! | type | text |
//! |---|---|
//! | `BOOL` | `true`, `false` |
//! | `INT64` | `-12` |
//! | `FLOAT64` | shortest text that reads back the same; `inf`, `-inf`, `NaN` |
//! | `STRING` | itself |
//! | `BYTES` | a literal: `b'abc\x00'` |
//! | `DATE` | `2013-01-31` |
//! | `TIMESTAMP` | `2013-01-31T10:00:00.000000Z`, always UTC |

use crate::error::{ErrorKind, Result, SqlError};
use chrono::{DateTime, Datelike, NaiveDate, NaiveDateTime, NaiveTime, TimeDelta, Timelike};
use serde::{Deserialize, Serialize};
use std::fmt;

/// The type of a column.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Type {
    /// `true` or `false`.
    Bool,
    /// 64-bit signed integer.
    Int64,
    /// IEEE double.
    Float64,
    /// Unicode text of at most so many characters; `None`: `STRING(MAX)`.
    String(Option<u32>),
    /// At most so many bytes; `None`: `BYTES(MAX)`.
    Bytes(Option<u32>),
    /// A calendar day, 0001-01-01 to 9999-12-31.
    Date,
    /// Microseconds since the Unix epoch, years 1 to 9999.
    Timestamp,
}

impl Type {
    /// Whether values of the types are the same kind, lengths aside.
    pub fn same_kind(&self, other: &Type) -> bool {
        std::mem::discriminant(self) == std::mem::discriminant(other)
    }
}

impl fmt::Display for Type {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Type::Bool => f.write_str("BOOL"),
            Type::Int64 => f.write_str("INT64"),
            Type::Float64 => f.write_str("FLOAT64"),
            Type::String(None) => f.write_str("STRING(MAX)"),
            Type::String(Some(max)) => write!(f, "STRING({max})"),
            Type::Bytes(None) => f.write_str("BYTES(MAX)"),
            Type::Bytes(Some(max)) => write!(f, "BYTES({max})"),
            Type::Date => f.write_str("DATE"),
            Type::Timestamp => f.write_str("TIMESTAMP"),
        }
    }
}

/// A value of a column.
///
/// Equality is equality of what is stored: `NaN` equals `NaN`, and `-0.0` differs from `0.0`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Value {
    /// No value.
    Null,
    /// See [`Type::Bool`].
    Bool(bool),
    /// See [`Type::Int64`].
    Int64(i64),
    /// See [`Type::Float64`].
    Float64(f64),
    /// See [`Type::String`].
    String(String),
    /// See [`Type::Bytes`].
    Bytes(Vec<u8>),
    /// Days since 1970-01-01.
    Date(i32),
    /// Microseconds since 1970-01-01T00:00:00Z.
    Timestamp(i64),
}

/// A row: one value for each column, in the order asked for.
pub type Row = Vec<Value>;

impl PartialEq for Value {
    fn eq(&self, other: &Value) -> bool {
        match (self, other) {
            (Value::Null, Value::Null) => true,
            (Value::Bool(a), Value::Bool(b)) => a == b,
            (Value::Int64(a), Value::Int64(b)) => a == b,
            (Value::Float64(a), Value::Float64(b)) => {
                a.to_bits() == b.to_bits() || (a.is_nan() && b.is_nan())
            }
            (Value::String(a), Value::String(b)) => a == b,
            (Value::Bytes(a), Value::Bytes(b)) => a == b,
            (Value::Date(a), Value::Date(b)) => a == b,
            (Value::Timestamp(a), Value::Timestamp(b)) => a == b,
            _ => false,
        }
    }
}

impl Eq for Value {}

impl Value {
    /// Whether it is NULL.
    pub fn is_null(&self) -> bool {
        matches!(self, Value::Null)
    }

    /// The type, lengths left open; `None` for NULL.
    pub fn type_of(&self) -> Option<Type> {
        Some(match self {
            Value::Null => return None,
            Value::Bool(_) => Type::Bool,
            Value::Int64(_) => Type::Int64,
            Value::Float64(_) => Type::Float64,
            Value::String(_) => Type::String(None),
            Value::Bytes(_) => Type::Bytes(None),
            Value::Date(_) => Type::Date,
            Value::Timestamp(_) => Type::Timestamp,
        })
    }

    /// Reads a value from text, strictly: nothing is guessed, nothing is cut.
    ///
    /// # Errors
    /// `Type` or `OutOfRange`, saying what was found and what was wanted.
    pub fn parse(text: &str, wanted: &Type) -> Result<Value> {
        let refuse = || {
            let mut shown: String = text.chars().take(40).collect();
            if shown.len() < text.len() {
                shown.push('…');
            }
            SqlError::type_error(format!("cannot read '{shown}' as {}", kind_name(wanted)))
        };
        let value = match wanted {
            Type::Bool if text.eq_ignore_ascii_case("true") => Value::Bool(true),
            Type::Bool if text.eq_ignore_ascii_case("false") => Value::Bool(false),
            Type::Bool => return Err(refuse()),
            Type::Int64 => Value::Int64(text.parse().map_err(|_| refuse())?),
            Type::Float64 => Value::Float64(text.parse().map_err(|_| refuse())?),
            Type::String(_) => Value::String(text.to_owned()),
            Type::Bytes(_) => Value::Bytes(parse_bytes(text).ok_or_else(refuse)?),
            Type::Date => Value::Date(parse_date(text).ok_or_else(refuse)?),
            Type::Timestamp => {
                let (micros, exact) = parse_timestamp(text).ok_or_else(refuse)?;
                if !exact {
                    return Err(refuse().with_hint("timestamps here have microseconds at most"));
                }
                Value::Timestamp(micros)
            }
        };
        value.check_length(wanted)?;
        Ok(value)
    }

    /// Converts a value to a column's type by the implicit rules: INT64 to FLOAT64, STRING to
    /// DATE and TIMESTAMP, and nothing else; then checks its length.
    ///
    /// # Errors
    /// `Type`, `OutOfRange`.
    pub fn coerce(self, wanted: &Type) -> Result<Value> {
        let value = match (self, wanted) {
            (Value::Null, _) => return Ok(Value::Null),
            (Value::Int64(int), Type::Float64) => Value::Float64(int as f64),
            (Value::String(text), Type::Date | Type::Timestamp) => Value::parse(&text, wanted)?,
            (value, _) => value,
        };
        match value.type_of() {
            Some(found) if found.same_kind(wanted) => {}
            Some(found) => {
                return Err(SqlError::type_error(format!(
                    "a value of type {} cannot be stored as {}",
                    kind_name(&found),
                    kind_name(wanted)
                )));
            }
            None => {}
        }
        value.check_length(wanted)?;
        Ok(value)
    }

    fn check_length(&self, wanted: &Type) -> Result<()> {
        let (length, max, unit) = match (self, wanted) {
            // Characters are counted only where bytes alone do not settle it.
            (Value::String(text), Type::String(Some(max))) if text.len() > *max as usize => {
                (text.chars().count(), *max, "characters")
            }
            (Value::Bytes(bytes), Type::Bytes(Some(max))) => (bytes.len(), *max, "bytes"),
            _ => return Ok(()),
        };
        if length > max as usize {
            return Err(SqlError::new(
                ErrorKind::OutOfRange,
                format!("{length} {unit} do not fit into {wanted}"),
            ));
        }
        Ok(())
    }
}

/// The type's name without its length.
pub(crate) fn kind_name(wanted: &Type) -> String {
    match wanted {
        Type::String(_) => "STRING".into(),
        Type::Bytes(_) => "BYTES".into(),
        other => other.to_string(),
    }
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Value::Null => f.write_str("NULL"),
            Value::Bool(value) => write!(f, "{value}"),
            Value::Int64(value) => write!(f, "{value}"),
            Value::Float64(value) => {
                let text = format!("{value:?}");
                f.write_str(text.strip_suffix(".0").unwrap_or(&text))
            }
            Value::String(text) => f.write_str(text),
            Value::Bytes(bytes) => write_bytes(f, bytes),
            Value::Date(days) => match date_of(*days) {
                Some(date) => {
                    write!(f, "{:04}-{:02}-{:02}", date.year(), date.month(), date.day())
                }
                None => write!(f, "DATE({days})"),
            },
            Value::Timestamp(micros) => write_timestamp(f, *micros),
        }
    }
}

/// A commit or read timestamp as SQL prints it; it is accepted back exactly.
pub fn timestamp_text(at: truetime::Timestamp) -> String {
    Value::from(at).to_string()
}

/// Reads a timestamp for a read: digits below a microsecond are cut off.
pub(crate) fn timestamp_from_text(text: &str) -> Option<truetime::Timestamp> {
    let (micros, _) = parse_timestamp(text)?;
    u64::try_from(micros).ok().map(truetime::Timestamp::from_micros)
}

fn write_bytes(f: &mut fmt::Formatter<'_>, bytes: &[u8]) -> fmt::Result {
    f.write_str("b'")?;
    for byte in bytes {
        match byte {
            b'\\' => f.write_str("\\\\")?,
            b'\'' => f.write_str("\\'")?,
            0x20..=0x7e => write!(f, "{}", *byte as char)?,
            _ => write!(f, "\\x{byte:02x}")?,
        }
    }
    f.write_str("'")
}

/// The text of a `b'…'` or `b"…"` literal.
fn parse_bytes(text: &str) -> Option<Vec<u8>> {
    let body = text.strip_prefix(['b', 'B'])?;
    let quote = body.chars().next().filter(|c| *c == '\'' || *c == '"')?;
    let body = body.strip_prefix(quote)?.strip_suffix(quote)?;
    unescape_bytes(body)
}

/// Bytes of a literal's body: `\xNN`, `\NNN` (octal), `\n` and the like; the rest as UTF-8.
pub(crate) fn unescape_bytes(body: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(body.len());
    let mut rest = body.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'\\' {
            bytes.push(byte);
            continue;
        }
        let escaped = rest.next()?;
        bytes.push(match escaped {
            b'n' => b'\n',
            b't' => b'\t',
            b'r' => b'\r',
            b'0'..=b'3' => {
                let mut digits = vec![escaped];
                digits.extend([rest.next()?, rest.next()?]);
                u8::from_str_radix(std::str::from_utf8(&digits).ok()?, 8).ok()?
            }
            b'x' | b'X' => {
                let digits = [rest.next()?, rest.next()?];
                u8::from_str_radix(std::str::from_utf8(&digits).ok()?, 16).ok()?
            }
            b'\\' | b'\'' | b'"' | b'`' | b'?' => escaped,
            _ => return None,
        });
    }
    Some(bytes)
}

const EPOCH: NaiveDate = match NaiveDate::from_ymd_opt(1970, 1, 1) {
    Some(date) => date,
    None => unreachable!(),
};

fn date_of(days: i32) -> Option<NaiveDate> {
    EPOCH.checked_add_signed(TimeDelta::try_days(i64::from(days))?)
}

/// Digits only, of a length within the bounds.
fn number(text: &str, digits: std::ops::RangeInclusive<usize>) -> Option<u32> {
    let all_digits = text.bytes().all(|b| b.is_ascii_digit());
    (digits.contains(&text.len()) && all_digits).then(|| text.parse().ok())?
}

fn naive_date(text: &str) -> Option<NaiveDate> {
    let mut parts = text.splitn(3, '-');
    let year = number(parts.next()?, 4..=4).filter(|year| *year > 0)?;
    let month = number(parts.next()?, 1..=2)?;
    let day = number(parts.next()?, 1..=2)?;
    NaiveDate::from_ymd_opt(i32::try_from(year).ok()?, month, day)
}

fn parse_date(text: &str) -> Option<i32> {
    i32::try_from(naive_date(text)?.signed_duration_since(EPOCH).num_days()).ok()
}

/// Microseconds, and whether nothing was cut off. Without a zone the text is UTC.
fn parse_timestamp(text: &str) -> Option<(i64, bool)> {
    let (date, rest) = match text.find(['T', 't', ' ']) {
        Some(at) => (&text[..at], &text[at + 1..]),
        None => (text, "00:00"),
    };
    let date = naive_date(date)?;
    let (clock, zone) = match rest.find(['Z', 'z', '+', '-', ' ', 'U']) {
        Some(at) => (&rest[..at], rest[at..].trim_start()),
        None => (rest, "Z"),
    };
    let (clock, fraction) = clock.split_once('.').unwrap_or((clock, ""));
    let mut parts = clock.splitn(3, ':');
    let hour = number(parts.next()?, 1..=2)?;
    let minute = number(parts.next()?, 2..=2)?;
    let second = parts.next().map_or(Some(0), |text| number(text, 2..=2))?;
    let time = NaiveTime::from_hms_opt(hour, minute, second)?;
    if fraction.len() > 9 || !fraction.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let nanos: u32 = format!("{fraction:0<9}").parse().ok()?;
    let instant = NaiveDateTime::new(date, time.with_nanosecond(nanos)?);
    let micros = instant.and_utc().timestamp_micros();
    Some((micros.checked_sub(zone_micros(zone)?)?, nanos.is_multiple_of(1_000)))
}

/// `Z`, `UTC`, `+2`, `-05:30`.
fn zone_micros(zone: &str) -> Option<i64> {
    if zone.eq_ignore_ascii_case("Z") || zone.eq_ignore_ascii_case("UTC") {
        return Some(0);
    }
    let (sign, offset) = match zone.split_at_checked(1)? {
        ("+", offset) => (1, offset),
        ("-", offset) => (-1, offset),
        _ => return None,
    };
    let (hours, minutes) = offset.split_once(':').unwrap_or((offset, "00"));
    let hours = number(hours, 1..=2).filter(|hours| *hours <= 14)?;
    let minutes = number(minutes, 2..=2).filter(|minutes| *minutes < 60)?;
    Some(sign * i64::from(hours * 60 + minutes) * 60_000_000)
}

fn write_timestamp(f: &mut fmt::Formatter<'_>, micros: i64) -> fmt::Result {
    match DateTime::from_timestamp_micros(micros) {
        Some(t) => write!(
            f,
            "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}.{:06}Z",
            t.year(),
            t.month(),
            t.day(),
            t.hour(),
            t.minute(),
            t.second(),
            t.timestamp_subsec_micros()
        ),
        None => write!(f, "TIMESTAMP({micros})"),
    }
}

macro_rules! value_from {
    ($($from:ty => $variant:ident),*) => {$(
        impl From<$from> for Value {
            fn from(value: $from) -> Value {
                Value::$variant(value.into())
            }
        }
    )*};
}

value_from!(bool => Bool, i64 => Int64, i32 => Int64, f64 => Float64, &str => String, String => String, Vec<u8> => Bytes);

impl From<truetime::Timestamp> for Value {
    fn from(at: truetime::Timestamp) -> Value {
        Value::Timestamp(i64::try_from(at.micros()).unwrap_or(i64::MAX))
    }
}

impl<T: Into<Value>> From<Option<T>> for Value {
    fn from(value: Option<T>) -> Value {
        value.map_or(Value::Null, Into::into)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn text(value: &str, wanted: Type) -> String {
        match Value::parse(value, &wanted) {
            Ok(value) => value.to_string(),
            Err(error) => error.message,
        }
    }

    #[test]
    fn reads_strictly_and_prints_as_documented() {
        assert_eq!(text("abc", Type::Int64), "cannot read 'abc' as INT64");
        assert_eq!(
            text("9223372036854775808", Type::Int64),
            "cannot read '9223372036854775808' as INT64"
        );
        assert_eq!(text("TRUE", Type::Bool), "true");
        assert_eq!(text("1", Type::Bool), "cannot read '1' as BOOL");
        assert_eq!(text("1.0", Type::Float64), "1");
        assert_eq!(text("1e300", Type::Float64), "1e300");
        assert_eq!(text("inf", Type::Float64), "inf");
        assert_eq!(text("héllo", Type::String(Some(5))), "héllo");
        assert_eq!(text("hello!", Type::String(Some(5))), "6 characters do not fit into STRING(5)");
        assert_eq!(text("2013-02-29", Type::Date), "cannot read '2013-02-29' as DATE");
        assert_eq!(text("2013-1-5", Type::Date), "2013-01-05");
        assert_eq!(text("b'a\\x00\\''", Type::Bytes(None)), "b'a\\x00\\''");
        let at = "2014-10-02T15:01:23.045123Z";
        assert_eq!(text(at, Type::Timestamp), at);
        assert_eq!(
            text("2014-10-02 15:01:23.045123+02:00", Type::Timestamp),
            "2014-10-02T13:01:23.045123Z"
        );
        assert_eq!(text("2014-10-02", Type::Timestamp), "2014-10-02T00:00:00.000000Z");
        assert_eq!(
            text("2014-10-02 25:00", Type::Timestamp),
            "cannot read '2014-10-02 25:00' as TIMESTAMP"
        );
        assert!(Value::parse("2014-10-02T15:01:23.0451234Z", &Type::Timestamp).is_err());
        let cut = timestamp_from_text("2014-10-02T15:01:23.045123456Z").expect("reads");
        assert_eq!(timestamp_text(cut), at);
    }

    #[test]
    fn coerces_what_the_rules_allow() {
        assert_eq!(Value::Int64(2).coerce(&Type::Float64), Ok(Value::Float64(2.0)));
        assert_eq!(Value::from("1970-01-02").coerce(&Type::Date), Ok(Value::Date(1)));
        assert!(Value::from("1").coerce(&Type::Int64).is_err());
        assert!(Value::Float64(1.0).coerce(&Type::Int64).is_err());
        assert_eq!(Value::Null.coerce(&Type::Int64), Ok(Value::Null));
    }

    proptest! {
        #[test]
        fn text_reads_back(micros in -62_135_596_800_000_000i64..253_402_300_800_000_000, days in -719_162i32..2_932_896, bytes: Vec<u8>, float: f64) {
            for (value, wanted) in [
                (Value::Timestamp(micros), Type::Timestamp),
                (Value::Date(days), Type::Date),
                (Value::Bytes(bytes), Type::Bytes(None)),
                (Value::Float64(float), Type::Float64),
            ] {
                prop_assert_eq!(Value::parse(&value.to_string(), &wanted), Ok(value));
            }
        }
    }
}
