//! Recorded histories: what clients did and saw, as a file of JSON lines.
//!
//! The first line says what the file is, each other one is a transaction as its client saw it:
//!
//! ```text
//! {"format":"meridian-history","version":1,"universe":"…","zero_us":1790000000000000,…}
//! {"client":3,"txn":"t1f.7","began_ns":1200000,"ended_ns":9300000,"outcome":"committed",
//!  "timestamp_us":1790000000004321,"reads":{"AA":{"balance":7,"writer":"t1f.2"}},"writes":{…}}
//! ```
//!
//! `began_ns` (before the first message left) and `ended_ns` (after the end was heard; `null`:
//! never) are on one clock of the host for all clients, from `zero_us` on. Every value names the
//! transaction that wrote it, so a read tells whom it read from. The checkers of the simulator judge
//! what is in here, as they judge simulated histories.

use ::history::{Cell, Ending, Kind, Operation};
use proto::TxnId;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, BufRead, BufReader, BufWriter, Write};
use std::path::Path;
use std::sync::Mutex;
use truetime::Timestamp;
use truetime::providers::HostTime;

const FORMAT: &str = "meridian-history";
const VERSION: u32 = 1;
/// A longer line is none of ours.
const LINE_BYTES_MAX: usize = 1 << 20;

/// The first line.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Header {
    /// What the file is.
    pub format: String,
    /// Of the format.
    pub version: u32,
    /// The universe's identity.
    pub universe: String,
    /// The host's time at zero nanoseconds, in microseconds since 1970.
    pub zero_us: u64,
    /// How many accounts there are.
    pub accounts: usize,
    /// What they add up to.
    pub total: i64,
    /// Whose clock was opened how.
    pub clocks: BTreeMap<String, String>,
    /// Who led which group when the recording began.
    pub leaders: BTreeMap<String, String>,
}

/// A transaction.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    client: u32,
    txn: String,
    began_ns: u64,
    ended_ns: Option<u64>,
    outcome: Outcome,
    timestamp_us: Option<u64>,
    reads: BTreeMap<String, Option<Balance>>,
    writes: BTreeMap<String, Balance>,
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Outcome {
    Committed,
    Read,
    Unknown,
    Nothing,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Balance {
    balance: i64,
    writer: String,
}

/// Writes a history while it happens.
pub struct Recorder {
    host: HostTime,
    zero_ns: u64,
    out: Mutex<BufWriter<File>>,
}

impl Recorder {
    /// Begins a file; `header` is completed.
    ///
    /// # Errors
    /// What the operating system says.
    pub fn create(path: &Path, header: Header) -> io::Result<Recorder> {
        let host = HostTime::new();
        let zero_ns = host.now_ns();
        let format = FORMAT.to_owned();
        let header = Header { format, version: VERSION, zero_us: zero_ns / 1_000, ..header };
        let mut out = BufWriter::new(File::create(path)?);
        serde_json::to_writer(&mut out, &header)?;
        out.write_all(b"\n")?;
        Ok(Recorder { host, zero_ns, out: Mutex::new(out) })
    }

    /// Nanoseconds since the recording began.
    pub fn now_ns(&self) -> u64 {
        self.host.now_ns() - self.zero_ns
    }

    /// Adds a transaction.
    ///
    /// # Errors
    /// What the operating system says.
    pub fn record(&self, op: &Operation) -> io::Result<()> {
        let mut text = serde_json::to_vec(&Line::of(op))?;
        text.push(b'\n');
        let mut out = self.out.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        out.write_all(&text)
    }

    /// The file is complete.
    ///
    /// # Errors
    /// What the operating system says.
    pub fn finish(&self) -> io::Result<()> {
        self.out.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).flush()
    }
}

/// A file that is not what it should be; the message names its line.
#[derive(Debug)]
pub struct Malformed(pub String);

/// Reads a file.
///
/// # Errors
/// What is wrong with it, and in which line.
pub fn read(path: &Path) -> Result<(Header, Vec<Operation>), Malformed> {
    let shown = path.display();
    let file = File::open(path).map_err(|error| Malformed(format!("{shown}: {error}")))?;
    read_lines(BufReader::new(file))
        .map_err(|(line, what)| Malformed(format!("{shown}:{line}: {what}")))
}

fn read_lines(reader: impl BufRead) -> Result<(Header, Vec<Operation>), (usize, String)> {
    let mut header = None;
    let mut history = Vec::new();
    let mut seen = BTreeSet::new();
    let mut number = 0;
    for line in bounded_lines(reader) {
        number += 1;
        let text = line.map_err(|error| (number, error.to_string()))?;
        if header.is_none() {
            header = Some(read_header(&text).map_err(|what| (number, what))?);
            continue;
        }
        let op = read_operation(&text).map_err(|what| (number, what))?;
        if !seen.insert(op.txn) {
            return Err((number, format!("the transaction {} is there twice", op.txn)));
        }
        history.push(op);
    }
    let header = header.ok_or((1, "the file is empty".to_owned()))?;
    Ok((header, history))
}

fn bounded_lines(mut reader: impl BufRead) -> impl Iterator<Item = io::Result<String>> {
    let too_long = || io::Error::new(io::ErrorKind::InvalidData, "the line is too long");
    std::iter::from_fn(move || {
        let mut line = String::new();
        let mut limited = io::Read::take(&mut reader, LINE_BYTES_MAX as u64);
        match limited.read_line(&mut line) {
            Ok(0) => None,
            Ok(LINE_BYTES_MAX) => Some(Err(too_long())),
            Ok(_) => Some(Ok(line)),
            Err(error) => Some(Err(error)),
        }
    })
}

fn read_header(text: &str) -> Result<Header, String> {
    let header: Header = serde_json::from_str(text)
        .map_err(|error| format!("this is no recorded history ({error})"))?;
    match (header.format.as_str(), header.version) {
        (FORMAT, VERSION) => Ok(header),
        (FORMAT, other) => Err(format!("version {other} of the format; this is for {VERSION}")),
        (other, _) => Err(format!("the format is {other}, not {FORMAT}")),
    }
}

fn read_operation(text: &str) -> Result<Operation, String> {
    let line: Line = serde_json::from_str(text).map_err(|error| error.to_string())?;
    let txn = transaction(&line.txn)?;
    let at = || {
        let wanted = || format!("{:?} without timestamp_us", line.outcome).to_lowercase();
        line.timestamp_us.map(Timestamp::from_micros).map(Ending::At).ok_or_else(wanted)
    };
    let ending = match line.outcome {
        Outcome::Committed | Outcome::Read => at()?,
        Outcome::Unknown => Ending::Unknown,
        Outcome::Nothing => Ending::Nothing,
    };
    let wrote = !line.writes.is_empty();
    if matches!(ending, Ending::At(_)) && wrote != (line.outcome == Outcome::Committed) {
        return Err("`committed` is for transactions that wrote, `read` for others".into());
    }
    if line.ended_ns.is_some_and(|ended_ns| ended_ns < line.began_ns) {
        return Err("it ended before it began".into());
    }
    let account = |balance: Balance| {
        transaction(&balance.writer).map(|writer| Cell::number(writer, balance.balance))
    };
    let reads =
        line.reads.into_iter().map(|(key, read)| Ok((key.into(), read.map(account).transpose()?)));
    let writes = line.writes.into_iter().map(|(key, write)| Ok((key.into(), account(write)?)));
    Ok(Operation {
        client: line.client,
        txn,
        kind: if line.outcome == Outcome::Read { Kind::Strong } else { Kind::ReadWrite },
        began_ns: line.began_ns,
        ended_ns: line.ended_ns.unwrap_or(u64::MAX),
        ending,
        reads: reads.collect::<Result<_, String>>()?,
        writes: writes.collect::<Result<_, String>>()?,
    })
}

/// From `t1f.7`.
///
/// # Errors
/// A text that names no transaction.
pub fn transaction(text: &str) -> Result<TxnId, String> {
    let parts = text.strip_prefix('t').and_then(|rest| rest.split_once('.'));
    let parsed = parts.and_then(|(client, seq)| {
        let client = u64::from_str_radix(client, 16).ok()?;
        Some(TxnId { client, seq: seq.parse().ok()? })
    });
    parsed.ok_or_else(|| format!("`{text}` is no transaction"))
}

impl Line {
    fn of(op: &Operation) -> Line {
        let balance = |account: &Cell| Balance {
            balance: account.as_number().expect("the recorder knows only accounts"),
            writer: account.writer.to_string(),
        };
        let key = |key: &bytes::Bytes| String::from_utf8_lossy(key).into_owned();
        let (outcome, timestamp_us) = match op.ending {
            Ending::At(at) if op.read_only() => (Outcome::Read, Some(at.micros())),
            Ending::At(at) => (Outcome::Committed, Some(at.micros())),
            Ending::Unknown => (Outcome::Unknown, None),
            Ending::Nothing => (Outcome::Nothing, None),
        };
        Line {
            client: op.client,
            txn: op.txn.to_string(),
            began_ns: op.began_ns,
            ended_ns: (op.ended_ns != u64::MAX).then_some(op.ended_ns),
            outcome,
            timestamp_us,
            reads: op.reads.iter().map(|(k, read)| (key(k), read.as_ref().map(balance))).collect(),
            writes: op.writes.iter().map(|(k, write)| (key(k), balance(write))).collect(),
        }
    }
}

#[cfg(test)]
pub mod tests {
    use super::*;

    /// A made-up header.
    pub fn header() -> Header {
        Header { universe: "u".into(), accounts: 2, total: 10, ..Header::default() }
    }

    /// A made-up transaction that wrote `k`, or one that read it.
    pub fn op(seq: u64, began_ns: u64, ended_ns: u64, at: u64, write: Option<i64>) -> Operation {
        let txn = TxnId { client: 0x1f, seq };
        let account = |balance| (bytes::Bytes::from_static(b"k"), Cell::number(txn, balance));
        Operation {
            client: 3,
            txn,
            kind: if write.is_some() { Kind::ReadWrite } else { Kind::Strong },
            began_ns,
            ended_ns,
            ending: Ending::At(Timestamp::from_micros(at)),
            writes: write.map(account).into_iter().collect(),
            reads: BTreeMap::new(),
        }
    }

    #[test]
    fn what_is_recorded_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("history");
        let recorder = Recorder::create(&path, header()).unwrap();
        let mut all = vec![op(1, 5, 10, 7, Some(-3)), op(2, 20, 30, 9, None)];
        let written = all[0].writes.values().next().cloned();
        all[1].reads.insert("k".into(), written);
        all[1].reads.insert("missing".into(), None);
        all.push(Operation {
            ending: Ending::Unknown,
            ended_ns: u64::MAX,
            ..op(3, 6, 7, 0, Some(1))
        });
        all.iter().for_each(|op| recorder.record(op).unwrap());
        recorder.finish().unwrap();
        assert!(recorder.now_ns() < 60_000_000_000);
        let (header, read) = read(&path).map_err(|error| error.0).unwrap();
        assert_eq!((header.total, header.version), (10, VERSION));
        assert!(header.zero_us > 1_600_000_000_000_000);
        assert_eq!(format!("{read:?}"), format!("{all:?}"));
    }

    #[test]
    fn what_is_wrong_is_named_with_its_line() {
        let head = format!(
            "{}\n",
            serde_json::to_string(&Header { format: FORMAT.into(), version: VERSION, ..header() })
                .unwrap()
        );
        let line = serde_json::to_string(&Line::of(&op(1, 5, 10, 7, Some(3)))).unwrap();
        let newer = head.replace("\"version\":1", "\"version\":2");
        let cases = [
            (String::new(), 1, "empty"),
            ("carrier,balance\n".into(), 1, "no recorded history"),
            (newer, 1, "version 2"),
            (head.replace(FORMAT, "other"), 1, "the format is other"),
            (format!("{head}{line}\n{{\"client\":3"), 3, "EOF"),
            (format!("{head}{line}\n{line}\n"), 3, "t1f.1 is there twice"),
            (format!("{head}{}", line.replace("\"t1f.1\",\"began", "\"x\",\"began")), 2, "`x`"),
            (
                format!("{head}{}", line.replace("\"began_ns\":5", "\"began_ns\":50")),
                2,
                "before it began",
            ),
            (
                format!("{head}{}", line.replace("\"timestamp_us\":7", "\"timestamp_us\":null")),
                2,
                "timestamp_us",
            ),
            (
                format!("{head}{}", line.replace("\"committed\"", "\"read\"")),
                2,
                "`committed` is for",
            ),
            (
                format!("{head}{}", line.replace("\"client\":3", "\"client\":3,\"x\":1")),
                2,
                "unknown field",
            ),
            (format!("{head}{}", "x".repeat(LINE_BYTES_MAX + 1)), 2, "too long"),
        ];
        for (text, number, words) in cases {
            let (line, what) = read_lines(text.as_bytes()).expect_err(words);
            assert_eq!(line, number, "{what}");
            assert!(what.contains(words), "no '{words}' in: {what}");
        }
        assert_eq!(read_lines(format!("{head}{line}\n").as_bytes()).unwrap().1.len(), 1);
    }
}
