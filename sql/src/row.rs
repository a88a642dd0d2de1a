//! Rows: the columns outside the primary key, packed with their ids.
//!
//! ```text
//! version:u8  (column:varint  tag:u8  value)*      columns in ascending order of id
//! ```
//!
//! NULL is absence, so adding a column and dropping one rewrite nothing: a reader skips ids its
//! schema does not know, and finds NULL for ids the row does not have. Fixed-size values are
//! little endian; texts and bytes carry their length as a varint.

use crate::error::{ErrorKind, Result, SqlError};
use crate::value::Value;

const VERSION: u8 = 1;
/// Largest value of one column, in bytes (as Cloud Spanner publishes).
pub const CELL_BYTES_MAX: usize = 10 << 20;

const TAG_FALSE: u8 = 1;
const TAG_TRUE: u8 = 2;
const TAG_INT64: u8 = 3;
const TAG_FLOAT64: u8 = 4;
const TAG_STRING: u8 = 5;
const TAG_BYTES: u8 = 6;
const TAG_DATE: u8 = 7;
const TAG_TIMESTAMP: u8 = 8;

/// Packs columns, given in ascending order of their ids.
///
/// # Errors
/// `Limit` for a value that is too large.
pub fn encode<'v>(columns: impl Iterator<Item = (u32, &'v Value)>) -> Result<Vec<u8>> {
    let mut bytes = vec![VERSION];
    for (column, value) in columns {
        if !value.is_null() {
            write_varint(&mut bytes, u64::from(column));
            write_value(&mut bytes, value)?;
        }
    }
    Ok(bytes)
}

fn write_value(bytes: &mut Vec<u8>, value: &Value) -> Result<()> {
    match value {
        Value::Null => unreachable!("NULL is absence"),
        Value::Bool(false) => bytes.push(TAG_FALSE),
        Value::Bool(true) => bytes.push(TAG_TRUE),
        Value::Int64(value) => {
            bytes.push(TAG_INT64);
            bytes.extend_from_slice(&value.to_le_bytes());
        }
        Value::Float64(value) => {
            bytes.push(TAG_FLOAT64);
            bytes.extend_from_slice(&value.to_le_bytes());
        }
        Value::String(text) => write_text(bytes, TAG_STRING, text.as_bytes())?,
        Value::Bytes(value) => write_text(bytes, TAG_BYTES, value)?,
        Value::Date(days) => {
            bytes.push(TAG_DATE);
            bytes.extend_from_slice(&days.to_le_bytes());
        }
        Value::Timestamp(micros) => {
            bytes.push(TAG_TIMESTAMP);
            bytes.extend_from_slice(&micros.to_le_bytes());
        }
    }
    Ok(())
}

fn write_text(bytes: &mut Vec<u8>, tag: u8, text: &[u8]) -> Result<()> {
    if text.len() > CELL_BYTES_MAX {
        return Err(SqlError::new(
            ErrorKind::Limit,
            format!("a value is {} bytes long; one may have {CELL_BYTES_MAX}", text.len()),
        ));
    }
    bytes.push(tag);
    write_varint(bytes, text.len() as u64);
    bytes.extend_from_slice(text);
    Ok(())
}

/// A value as it lies in the row, not copied yet.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Cell<'r> {
    /// See [`Value::Bool`].
    Bool(bool),
    /// See [`Value::Int64`].
    Int64(i64),
    /// See [`Value::Float64`].
    Float64(f64),
    /// See [`Value::String`].
    String(&'r str),
    /// See [`Value::Bytes`].
    Bytes(&'r [u8]),
    /// See [`Value::Date`].
    Date(i32),
    /// See [`Value::Timestamp`].
    Timestamp(i64),
}

impl Cell<'_> {
    /// A copy that stands alone.
    pub fn to_value(self) -> Value {
        match self {
            Cell::Bool(value) => Value::Bool(value),
            Cell::Int64(value) => Value::Int64(value),
            Cell::Float64(value) => Value::Float64(value),
            Cell::String(text) => Value::String(text.to_owned()),
            Cell::Bytes(bytes) => Value::Bytes(bytes.to_vec()),
            Cell::Date(days) => Value::Date(days),
            Cell::Timestamp(micros) => Value::Timestamp(micros),
        }
    }
}

/// Walks over the columns of a packed row.
pub struct Cells<'r> {
    rest: &'r [u8],
}

impl<'r> Cells<'r> {
    /// The columns of a row.
    ///
    /// # Errors
    /// `Internal` when another version wrote it.
    pub fn new(row: &'r [u8]) -> Result<Cells<'r>> {
        match row.split_first() {
            Some((&VERSION, rest)) => Ok(Cells { rest }),
            Some((version, _)) => {
                Err(SqlError::internal(format!("a row has the unknown encoding version {version}")))
            }
            None => Err(damaged()),
        }
    }

    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (taken, rest) = self.rest.split_first_chunk::<N>()?;
        self.rest = rest;
        Some(*taken)
    }

    fn take_text(&mut self) -> Option<&'r [u8]> {
        let length = usize::try_from(self.take_varint()?).ok()?;
        let (taken, rest) = self.rest.split_at_checked(length)?;
        self.rest = rest;
        Some(taken)
    }

    fn take_varint(&mut self) -> Option<u64> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let [byte] = self.take::<1>()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Some(value);
            }
        }
        None
    }

    fn take_column(&mut self) -> Option<(u32, Cell<'r>)> {
        let column = u32::try_from(self.take_varint()?).ok()?;
        let [tag] = self.take::<1>()?;
        let cell = match tag {
            TAG_FALSE => Cell::Bool(false),
            TAG_TRUE => Cell::Bool(true),
            TAG_INT64 => Cell::Int64(i64::from_le_bytes(self.take()?)),
            TAG_FLOAT64 => Cell::Float64(f64::from_le_bytes(self.take()?)),
            TAG_STRING => Cell::String(std::str::from_utf8(self.take_text()?).ok()?),
            TAG_BYTES => Cell::Bytes(self.take_text()?),
            TAG_DATE => Cell::Date(i32::from_le_bytes(self.take()?)),
            TAG_TIMESTAMP => Cell::Timestamp(i64::from_le_bytes(self.take()?)),
            _ => return None,
        };
        Some((column, cell))
    }
}

impl<'r> Iterator for Cells<'r> {
    type Item = Result<(u32, Cell<'r>)>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let column = self.take_column().ok_or_else(damaged);
        if column.is_err() {
            self.rest = &[];
        }
        Some(column)
    }
}

fn damaged() -> SqlError {
    SqlError::internal("a row is damaged: its bytes are not a row")
}

fn write_varint(bytes: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        bytes.push((value as u8) | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn decode(row: &[u8]) -> Result<Vec<(u32, Value)>> {
        Cells::new(row)?.map(|cell| cell.map(|(id, cell)| (id, cell.to_value()))).collect()
    }

    fn any_value() -> impl Strategy<Value = Value> {
        prop_oneof![
            any::<bool>().prop_map(Value::Bool),
            any::<i64>().prop_map(Value::Int64),
            any::<f64>().prop_map(Value::Float64),
            any::<String>().prop_map(Value::String),
            any::<Vec<u8>>().prop_map(Value::Bytes),
            any::<i32>().prop_map(Value::Date),
            any::<i64>().prop_map(Value::Timestamp),
        ]
    }

    proptest! {
        #[test]
        fn decodes_to_itself(columns in proptest::collection::btree_map(any::<u32>(), any_value(), 0..8)) {
            let row = encode(columns.iter().map(|(id, value)| (*id, value))).expect("small");
            prop_assert_eq!(decode(&row).expect("own row"), columns.into_iter().collect::<Vec<_>>());
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..60)) {
            let _ = decode(&bytes);
            let _ = decode(&[&[VERSION], &bytes[..]].concat());
        }
    }

    #[test]
    fn null_is_absence_and_large_values_are_refused() {
        let row = encode([(1, &Value::Null), (2, &Value::Bool(true))].into_iter()).expect("small");
        assert_eq!(decode(&row), Ok(vec![(2, Value::Bool(true))]));
        let large = Value::Bytes(vec![0; CELL_BYTES_MAX + 1]);
        assert_eq!(encode([(1, &large)].into_iter()).expect_err("large").kind, ErrorKind::Limit);
    }
}
