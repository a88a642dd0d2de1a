//! Values that name their writers.

use bytes::Bytes;
use proto::TxnId;
use proto::codec::{self, CodecError};
use serde::{Deserialize, Serialize};

/// What a key holds: a value, and who wrote it. Writers are unique, and a transaction writes a key
/// once, so a read names the transaction it read from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cell {
    /// The attempt that wrote it.
    pub writer: TxnId,
    /// What it wrote.
    pub value: CellValue,
}

/// The part of a value that a workload computes with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum CellValue {
    /// A balance, a counter, or any number.
    Number(i64),
    /// All who appended to the key, the first one first; the last is the writer of the cell.
    List(Vec<TxnId>),
}

impl Cell {
    /// A number, written by an attempt.
    pub fn number(writer: TxnId, number: i64) -> Cell {
        Cell { writer, value: CellValue::Number(number) }
    }

    /// What an attempt writes that appends itself to a list; `None`: no row yet, the empty list.
    pub fn append(writer: TxnId, before: Option<&Cell>) -> Cell {
        let mut list = before.and_then(|cell| cell.as_list()).unwrap_or_default().to_vec();
        list.push(writer);
        Cell { writer, value: CellValue::List(list) }
    }

    /// Its number; `None` for a list.
    pub fn as_number(&self) -> Option<i64> {
        match self.value {
            CellValue::Number(number) => Some(number),
            CellValue::List(_) => None,
        }
    }

    /// Its list; `None` for a number.
    pub fn as_list(&self) -> Option<&[TxnId]> {
        match &self.value {
            CellValue::Number(_) => None,
            CellValue::List(list) => Some(list),
        }
    }

    /// Its bytes, as a row holds them.
    pub fn encode(&self) -> Bytes {
        Bytes::from(codec::encode(self))
    }

    /// From its bytes.
    ///
    /// # Errors
    /// When the bytes are no cell: the store gave back what nobody wrote.
    pub fn decode(bytes: &[u8]) -> Result<Cell, CodecError> {
        codec::decode(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_keep_everything() {
        let (first, second) = (TxnId { client: 7, seq: 1 }, TxnId { client: 9, seq: 2 });
        let appended = Cell::append(second, Some(&Cell::append(first, None)));
        assert_eq!(appended.as_list(), Some(&[first, second][..]));
        for cell in [Cell::number(first, -3), appended] {
            assert_eq!(Cell::decode(&cell.encode()), Ok(cell));
        }
        assert!(Cell::decode(b"").is_err() && Cell::decode(b"nobody wrote this").is_err());
    }
}
