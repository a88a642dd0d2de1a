//! Histories as files of JSON lines.
//!
//! The first line says what the file is, each other one is a transaction as its client saw it:
//!
//! ```text
//! {"format":"meridian-history","version":2,"universe":"…","zero_us":1790000000000000,…}
//! {"client":3,"txn":"t1f.7","kind":"read_write","began_ns":1200000,"ended_ns":9300000,
//!  "ending":{"at_us":1790000000004321},"reads":{"AA":{"number":7,"writer":"t1f.2"},"BB":null},
//!  "writes":{"AA":{"number":8,"writer":"t1f.7"}}}
//! ```
//!
//! (Each is one line.) `began_ns` (before the first message left) and `ended_ns` (after the end was
//! heard; `null`: never) are on one clock for all clients, from `zero_us` on. A kind is `read_write`,
//! `strong`, `stale` or `session`; an ending is a timestamp, `"unknown"` or `"nothing"`; a value has a
//! `number` or a `list` of transactions. Of the first line only `format` and `version` are needed, of
//! the others `reads` and `writes` may be left out. A byte of a key that is no text is `%` and two
//! hexadecimal digits, and so is `%` itself.

use crate::lines;
pub use crate::lines::Malformed;
use crate::{Cell, CellValue, Ending, Kind, Operation};
use bytes::Bytes;
use proto::TxnId;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::io::{self, Write};
use truetime::Timestamp;

/// What the first line calls the format.
pub const FORMAT: &str = "meridian-history";
/// The version written, and the only one read.
pub const VERSION: u32 = 2;

/// The first line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    /// What the file is: [`FORMAT`].
    pub format: String,
    /// Of the format: [`VERSION`].
    pub version: u32,
    /// The universe's identity.
    #[serde(default)]
    pub universe: String,
    /// The time at zero nanoseconds, in microseconds since 1970.
    #[serde(default)]
    pub zero_us: u64,
    /// How many accounts there are, for histories of a bank; 0: it is none.
    #[serde(default)]
    pub accounts: usize,
    /// What they add up to.
    #[serde(default)]
    pub total: i64,
    /// Whose clock was opened how.
    #[serde(default)]
    pub clocks: BTreeMap<String, String>,
    /// Who led which group when the recording began.
    #[serde(default)]
    pub leaders: BTreeMap<String, String>,
}

impl Default for Header {
    fn default() -> Header {
        Header {
            format: FORMAT.into(),
            version: VERSION,
            universe: String::new(),
            zero_us: 0,
            accounts: 0,
            total: 0,
            clocks: BTreeMap::new(),
            leaders: BTreeMap::new(),
        }
    }
}

/// Reads a history line by line.
pub type Lines<R> = lines::Lines<R, Histories>;

/// What lines of histories hold: [`Header`], then [`Operation`].
pub enum Histories {}

impl lines::Format for Histories {
    type Header = Header;
    type Entry = Operation;

    fn header(text: &[u8]) -> Result<Header, String> {
        read_header(text)
    }

    fn entry(text: &[u8]) -> Result<Operation, String> {
        read_operation(text)
    }
}

/// Writes the first line.
///
/// # Errors
/// Those of the writer.
pub fn write_header(out: &mut impl Write, header: &Header) -> io::Result<()> {
    serde_json::to_writer(&mut *out, header)?;
    out.write_all(b"\n")
}

/// Writes the line of a transaction.
///
/// # Errors
/// Those of the writer.
pub fn write_operation(out: &mut impl Write, op: &Operation) -> io::Result<()> {
    serde_json::to_writer(&mut *out, &Line::of(op))?;
    out.write_all(b"\n")
}

/// A transaction's name, as [`TxnId`] prints: `t1f.7`.
///
/// # Errors
/// A text that names no transaction.
pub fn transaction(text: &str) -> Result<TxnId, String> {
    let parts = text.strip_prefix('t').and_then(|rest| rest.split_once('.'));
    let parsed = parts.and_then(|(client, seq)| {
        let client = u64::from_str_radix(client, 16).ok()?;
        Some(TxnId { client, seq: seq.parse().ok()? })
    });
    parsed.ok_or_else(|| format!("`{text}` is no transaction; one is written as t1f.7"))
}

/// A transaction, as its line has it.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    client: u32,
    txn: String,
    kind: KindText,
    began_ns: u64,
    ended_ns: Option<u64>,
    ending: EndingText,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    reads: BTreeMap<String, Option<CellText>>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    writes: BTreeMap<String, CellText>,
}

#[derive(Clone, Copy, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum KindText {
    ReadWrite,
    Strong,
    Stale,
    Session,
}

#[derive(Clone, Copy, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum EndingText {
    AtUs(u64),
    Unknown,
    Nothing,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct CellText {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    number: Option<i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    list: Option<Vec<String>>,
    writer: String,
}

fn read_header(text: &[u8]) -> Result<Header, String> {
    #[derive(Deserialize)]
    struct Kept {
        format: String,
        version: u32,
    }
    let none = |error: serde_json::Error| format!("this is no recorded history ({error})");
    let kept: Kept = serde_json::from_slice(text).map_err(none)?;
    match (kept.format.as_str(), kept.version) {
        (FORMAT, VERSION) => serde_json::from_slice(text).map_err(none),
        (FORMAT, 1) => Err(format!(
            "version 1 of the format; this reads version {VERSION}: record the history again"
        )),
        (FORMAT, other) => Err(format!("version {other} of the format; this reads {VERSION}")),
        (other, _) => Err(format!("the format is {other}, not {FORMAT}")),
    }
}

fn read_operation(text: &[u8]) -> Result<Operation, String> {
    let line: Line = serde_json::from_slice(text).map_err(|error| error.to_string())?;
    let txn = transaction(&line.txn)?;
    let kind = line.kind.into();
    if line.ended_ns.is_some_and(|ended_ns| ended_ns < line.began_ns) {
        return Err("it ended before it began".into());
    }
    if kind != Kind::ReadWrite && !line.writes.is_empty() {
        return Err("only a transaction of the kind `read_write` writes".into());
    }
    let reads = line.reads.into_iter().map(|(key, cell)| {
        let cell = cell.map(CellText::into_cell).transpose()?;
        Ok((read_key(&key)?, cell))
    });
    let writes = line.writes.into_iter().map(|(key, cell)| {
        let cell = cell.into_cell()?;
        match cell.writer == txn {
            true => Ok((read_key(&key)?, cell)),
            false => Err(format!("{txn} writes {key} in the name of {}", cell.writer)),
        }
    });
    Ok(Operation {
        client: line.client,
        txn,
        kind,
        began_ns: line.began_ns,
        ended_ns: line.ended_ns.unwrap_or(u64::MAX),
        ending: line.ending.into(),
        reads: reads.collect::<Result<_, String>>()?,
        writes: writes.collect::<Result<_, String>>()?,
    })
}

impl Line {
    fn of(op: &Operation) -> Line {
        let reads = op.reads.iter().map(|(k, cell)| (key(k), cell.as_ref().map(CellText::of)));
        Line {
            client: op.client,
            txn: op.txn.to_string(),
            kind: op.kind.into(),
            began_ns: op.began_ns,
            ended_ns: (op.ended_ns != u64::MAX).then_some(op.ended_ns),
            ending: op.ending.into(),
            reads: reads.collect(),
            writes: op.writes.iter().map(|(k, cell)| (key(k), CellText::of(cell))).collect(),
        }
    }
}

impl CellText {
    fn of(cell: &Cell) -> CellText {
        let writer = cell.writer.to_string();
        match &cell.value {
            CellValue::Number(number) => CellText { number: Some(*number), list: None, writer },
            CellValue::List(list) => {
                let list = Some(list.iter().map(TxnId::to_string).collect());
                CellText { number: None, list, writer }
            }
        }
    }

    fn into_cell(self) -> Result<Cell, String> {
        let writer = transaction(&self.writer)?;
        let value = match (self.number, self.list) {
            (Some(number), None) => CellValue::Number(number),
            (None, Some(list)) => {
                let list: Result<_, String> = list.iter().map(|text| transaction(text)).collect();
                CellValue::List(list?)
            }
            _ => return Err("a value has a `number` or a `list`".into()),
        };
        Ok(Cell { writer, value })
    }
}

impl From<KindText> for Kind {
    fn from(text: KindText) -> Kind {
        match text {
            KindText::ReadWrite => Kind::ReadWrite,
            KindText::Strong => Kind::Strong,
            KindText::Stale => Kind::Stale,
            KindText::Session => Kind::Session,
        }
    }
}

impl From<Kind> for KindText {
    fn from(kind: Kind) -> KindText {
        match kind {
            Kind::ReadWrite => KindText::ReadWrite,
            Kind::Strong => KindText::Strong,
            Kind::Stale => KindText::Stale,
            Kind::Session => KindText::Session,
        }
    }
}

impl From<EndingText> for Ending {
    fn from(text: EndingText) -> Ending {
        match text {
            EndingText::AtUs(micros) => Ending::At(Timestamp::from_micros(micros)),
            EndingText::Unknown => Ending::Unknown,
            EndingText::Nothing => Ending::Nothing,
        }
    }
}

impl From<Ending> for EndingText {
    fn from(ending: Ending) -> EndingText {
        match ending {
            Ending::At(at) => EndingText::AtUs(at.micros()),
            Ending::Unknown => EndingText::Unknown,
            Ending::Nothing => EndingText::Nothing,
        }
    }
}

/// A key as text.
fn key(key: &[u8]) -> String {
    let mut text = String::with_capacity(key.len());
    for chunk in key.utf8_chunks() {
        for character in chunk.valid().chars() {
            match character {
                '%' => text.push_str("%25"),
                other => text.push(other),
            }
        }
        chunk.invalid().iter().for_each(|byte| text.push_str(&format!("%{byte:02x}")));
    }
    text
}

/// A key from its text.
fn read_key(text: &str) -> Result<Bytes, String> {
    if !text.contains('%') {
        return Ok(Bytes::copy_from_slice(text.as_bytes()));
    }
    let mut key = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((byte, after)) = rest.split_first() {
        rest = after;
        if *byte != b'%' {
            key.push(*byte);
            continue;
        }
        let digits = rest.get(..2).and_then(|digits| std::str::from_utf8(digits).ok());
        let byte = digits.and_then(|digits| u8::from_str_radix(digits, 16).ok());
        key.push(byte.ok_or_else(|| format!("`{text}` is no key: % and two digits are one byte"))?);
        rest = &rest[2..];
    }
    Ok(key.into())
}

#[cfg(test)]
mod tests;
