//! A history in columns: 10⁶ transactions in a few hundred bytes each.
//!
//! Keys and attempts are numbered as they are first heard of; what a transaction read and wrote lies
//! in two long lists of small entries. An [`Operation`] with its maps and its own copies of keys is
//! several times as large, and is forgotten once it is in here.

use crate::{Cell, CellValue, Ending, Kind, Operation};
use bytes::Bytes;
use proto::TxnId;
use std::collections::HashMap;
use std::ops::Range;
use thiserror::Error;

/// Number of no transaction: no row was there, or nobody in the history wrote it.
pub(crate) const NONE: u32 = u32::MAX;
/// [`Row::time`] of one that did not commit, as far as is known.
pub(crate) const NEVER: u64 = u64::MAX;

/// A writer that is in a history twice: an attempt runs once (X9).
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("the transaction {0} is there twice")]
pub struct Twice(pub TxnId);

/// All transactions, in the order in which they were added.
#[derive(Default)]
pub(crate) struct Table {
    pub rows: Vec<Row>,
    reads: Vec<Read>,
    writes: Vec<Write>,
    /// Elements of all written lists, as numbers of attempts.
    elements: Vec<u32>,
    pub keys: Vec<Bytes>,
    pub attempts: Vec<TxnId>,
    /// The row that wrote, for each attempt, or [`NONE`].
    authors: Vec<u32>,
    // Only looked up, never iterated.
    numbers_of_keys: HashMap<Bytes, u32>,
    numbers_of_attempts: HashMap<TxnId, u32>,
}

/// A transaction.
#[derive(Clone, Debug)]
pub(crate) struct Row {
    pub client: u32,
    pub attempt: u32,
    pub began_ns: u64,
    pub ended_ns: u64,
    /// Its timestamp plus one, so that zero is before all; or [`NEVER`].
    pub time: u64,
    pub kind: Kind,
    pub ending: Known,
    reads: u32,
    writes: u32,
}

/// What is known of an ending, and since when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Known {
    /// The client knows that it committed, or read.
    Committed,
    /// Nobody told the client, and somebody read from it: its `time` is our guess.
    Seen,
    /// Nobody told the client, nobody read from it.
    Unknown,
    /// It was rolled back.
    Aborted,
}

/// An entry of what was read.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Read {
    pub key: u32,
    /// Number of the attempt that had written; [`NONE`]: no row.
    pub writer: u32,
    pub value: Value,
}

/// An entry of what was written.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Write {
    pub key: u32,
    pub value: Value,
    /// Where its list begins.
    elements: u32,
}

/// A value, of a list only as much as tells it from another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Value {
    /// No row.
    Absent,
    Number(i64),
    List {
        length: u32,
        print: u64,
    },
}

impl Row {
    /// Whether it took part, as far as is known.
    pub fn committed(&self) -> bool {
        matches!(self.ending, Known::Committed | Known::Seen)
    }
}

impl Table {
    /// Adds a transaction.
    pub fn add(&mut self, op: &Operation) -> Result<(), Twice> {
        let attempt = self.number_of_attempt(op.txn);
        let number = count(self.rows.len());
        if !op.writes.is_empty() {
            let author = &mut self.authors[attempt as usize];
            if *author != NONE {
                return Err(Twice(op.txn));
            }
            *author = number;
        }
        let (time, ending) = match op.ending {
            Ending::At(at) => (at.micros().saturating_add(1).min(NEVER - 1), Known::Committed),
            Ending::Unknown => (NEVER, Known::Unknown),
            Ending::Nothing => (NEVER, Known::Aborted),
        };
        self.rows.push(Row {
            client: op.client,
            attempt,
            began_ns: op.began_ns,
            ended_ns: op.ended_ns,
            time,
            kind: op.kind,
            ending,
            reads: count(self.reads.len()),
            writes: count(self.writes.len()),
        });
        for (key, cell) in &op.reads {
            let key = self.number_of_key(key);
            let writer = cell.as_ref().map_or(NONE, |cell| self.number_of_attempt(cell.writer));
            let value = cell.as_ref().map_or(Value::Absent, |cell| self.value(cell));
            // What it has written itself says nothing of others.
            if writer != attempt || op.writes.is_empty() {
                self.reads.push(Read { key, writer, value });
            }
        }
        for (key, cell) in &op.writes {
            let (key, value) = (self.number_of_key(key), self.value(cell));
            let elements = count(self.elements.len());
            for element in cell.as_list().unwrap_or_default() {
                let element = self.number_of_attempt(*element);
                self.elements.push(element);
            }
            self.writes.push(Write { key, value, elements });
        }
        let own = self.writes_of(number as usize);
        self.writes[own].sort_unstable_by_key(|write| write.key);
        Ok(())
    }

    fn number_of_key(&mut self, key: &Bytes) -> u32 {
        if let Some(number) = self.numbers_of_keys.get(key) {
            return *number;
        }
        // A copy: the key may be a slice of a long message.
        let own = Bytes::copy_from_slice(key);
        let number = count(self.keys.len());
        self.keys.push(own.clone());
        self.numbers_of_keys.insert(own, number);
        number
    }

    fn number_of_attempt(&mut self, txn: TxnId) -> u32 {
        let number =
            *self.numbers_of_attempts.entry(txn).or_insert_with(|| count(self.attempts.len()));
        if number as usize == self.attempts.len() {
            self.attempts.push(txn);
            self.authors.push(NONE);
        }
        number
    }

    fn value(&mut self, cell: &Cell) -> Value {
        match &cell.value {
            CellValue::Number(number) => Value::Number(*number),
            CellValue::List(list) => {
                let attempts = list.iter().map(|txn| self.number_of_attempt(*txn));
                Value::List { length: count(list.len()), print: attempts.fold(EMPTY, longer) }
            }
        }
    }

    fn reads_of(&self, row: usize) -> Range<usize> {
        let end = self.rows.get(row + 1).map_or(self.reads.len(), |next| next.reads as usize);
        self.rows[row].reads as usize..end
    }

    fn writes_of(&self, row: usize) -> Range<usize> {
        let end = self.rows.get(row + 1).map_or(self.writes.len(), |next| next.writes as usize);
        self.rows[row].writes as usize..end
    }

    /// What it read of others.
    pub fn reads(&self, row: u32) -> &[Read] {
        &self.reads[self.reads_of(row as usize)]
    }

    /// What it wrote, in the order of the numbers of the keys.
    pub fn writes(&self, row: u32) -> &[Write] {
        &self.writes[self.writes_of(row as usize)]
    }

    /// What it wrote on a key, and where among all writes that is.
    pub fn written(&self, row: u32, key: u32) -> Option<(usize, &Write)> {
        let own = self.writes_of(row as usize);
        let place = self.writes[own.clone()].binary_search_by_key(&key, |write| write.key).ok()?;
        Some((own.start + place, &self.writes[own.start + place]))
    }

    /// How many writes there are.
    pub fn write_count(&self) -> usize {
        self.writes.len()
    }

    /// The elements of a written list, as numbers of attempts.
    pub fn list(&self, write: &Write) -> &[u32] {
        match write.value {
            Value::List { length, .. } => {
                &self.elements[write.elements as usize..][..length as usize]
            }
            Value::Absent | Value::Number(_) => &[],
        }
    }

    /// The row that an attempt is; [`NONE`]: none that wrote.
    pub fn author(&self, attempt: u32) -> u32 {
        if attempt == NONE { NONE } else { self.authors[attempt as usize] }
    }

    /// Whether it wrote nothing, with locks or without.
    pub fn read_only(&self, row: u32) -> bool {
        self.writes_of(row as usize).is_empty()
    }

    /// The time of the version that a read saw, zero for none: of a committed writer of that very
    /// key. `None`: it saw what no version holds.
    pub fn seen(&self, read: &Read) -> Option<u64> {
        if read.writer == NONE {
            return Some(0);
        }
        let author = self.author(read.writer);
        let row = self.rows.get(author as usize).filter(|row| row.committed())?;
        let (_, write) = self.written(author, read.key)?;
        (write.value == read.value).then_some(row.time)
    }

    /// All numbers of rows.
    pub fn all(&self) -> Range<u32> {
        0..count(self.rows.len())
    }
}

/// The print of an empty list.
pub(crate) const EMPTY: u64 = 0x243f_6a88_85a3_08d3;

/// The print of a list with one more element.
pub(crate) fn longer(print: u64, element: u32) -> u64 {
    let mixed = (print ^ u64::from(element)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mixed ^ mixed >> 29
}

fn count(length: usize) -> u32 {
    u32::try_from(length).ok().filter(|n| *n != NONE).expect("a history has under 2³² entries")
}
