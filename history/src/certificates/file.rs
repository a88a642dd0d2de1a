//! Certificates as files of JSON lines.
//!
//! The first line says what the file is, each other one is a commit as its client heard of it:
//!
//! ```text
//! {"format":"meridian-certificates","version":1,"universe":"…","key":"91ad…","zero_us":1790000000000000}
//! {"client":3,"txn":"t1f.7","at_us":1790000000004321,"began_ns":1200000,"acknowledged_ns":9300000,
//!  "certificate":{"txn":"t1f.7","at_us":1790000000004321,"group":"g1","ballot":"b3.n1",
//!   "prepared":[["g2",1790000000004300]],"arrived_us":[1790000000004210,1790000000004310],
//!   "waited_us":[1790000000004330,1790000000004430],
//!   "node":"n1","provider":"local","status":"synchronized",
//!   "timing_us":{"locks":0,"prepare":40,"replicate":70,"wait":81,"overlap":70,"epsilon":50},
//!   "seal":"5bd1…"}}
//! ```
//!
//! (Each is one line.) Outside of `certificate` is what the client says, inside is what the server said
//! and sealed. `began_ns`, before the first message left, and `acknowledged_ns`, after the answer came,
//! are on one clock for all clients, from `zero_us` on. `certificate` is `null` where the client got
//! none. `key` is the fingerprint of the universe's key, never the key.

use crate::file::transaction;
use crate::lines;
use bytes::Bytes;
use proto::request::{Certificate, Provenance, Timing};
use proto::{Ballot, GroupId, NodeId, TxnId};
use serde::{Deserialize, Serialize};
use std::io::{self, Write};
use truetime::{Interval, Timestamp};

/// What the first line calls the format.
pub const FORMAT: &str = "meridian-certificates";
/// The version written, and the only one read.
pub const VERSION: u32 = 1;

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
    /// The [fingerprint](proto::seal::fingerprint) of the key that seals; empty: not known.
    #[serde(default)]
    pub key: String,
    /// The time at zero nanoseconds, in microseconds since 1970.
    #[serde(default)]
    pub zero_us: u64,
}

impl Default for Header {
    fn default() -> Header {
        let (universe, key) = (String::new(), String::new());
        Header { format: FORMAT.into(), version: VERSION, universe, key, zero_us: 0 }
    }
}

/// A commit as its client heard of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Which client it was.
    pub client: u32,
    /// The attempt that committed.
    pub txn: TxnId,
    /// What its client was told of its timestamp.
    pub timestamp: Timestamp,
    /// Before the first message of it left, on the clock of the file.
    pub began_ns: u64,
    /// After its commit was answered.
    pub acknowledged_ns: u64,
    /// What proves it. `None`: the client got none.
    pub certificate: Option<Certificate>,
}

/// Reads certificates line by line.
pub type Lines<R> = lines::Lines<R, Certificates>;

/// What lines of certificates hold: [`Header`], then [`Entry`].
pub enum Certificates {}

impl lines::Format for Certificates {
    type Header = Header;
    type Entry = Entry;

    fn header(text: &[u8]) -> Result<Header, String> {
        read_header(text)
    }

    fn entry(text: &[u8]) -> Result<Entry, String> {
        read_entry(text)
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

/// Writes the line of a commit.
///
/// # Errors
/// Those of the writer.
pub fn write_entry(out: &mut impl Write, entry: &Entry) -> io::Result<()> {
    serde_json::to_writer(&mut *out, &Line::of(entry))?;
    out.write_all(b"\n")
}

fn read_header(text: &[u8]) -> Result<Header, String> {
    let none = |error: serde_json::Error| format!("this is no file of certificates ({error})");
    let header: Header = serde_json::from_slice(text).map_err(none)?;
    match (header.format.as_str(), header.version) {
        (FORMAT, VERSION) => Ok(header),
        (FORMAT, other) => Err(format!("version {other} of the format; this reads {VERSION}")),
        (other, _) => Err(format!("the format is {other}, not {FORMAT}")),
    }
}

fn read_entry(text: &[u8]) -> Result<Entry, String> {
    let line: Line = serde_json::from_slice(text).map_err(|error| error.to_string())?;
    line.into_entry()
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    client: u32,
    txn: String,
    at_us: u64,
    began_ns: u64,
    acknowledged_ns: u64,
    certificate: Option<CertificateText>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct CertificateText {
    txn: String,
    at_us: u64,
    group: String,
    ballot: String,
    prepared: Vec<(String, u64)>,
    arrived_us: (u64, u64),
    waited_us: (u64, u64),
    node: String,
    provider: String,
    status: String,
    timing_us: TimingText,
    seal: String,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct TimingText {
    locks: u64,
    prepare: u64,
    replicate: u64,
    wait: u64,
    overlap: u64,
    epsilon: u64,
}

impl Line {
    fn of(entry: &Entry) -> Line {
        Line {
            client: entry.client,
            txn: entry.txn.to_string(),
            at_us: entry.timestamp.micros(),
            began_ns: entry.began_ns,
            acknowledged_ns: entry.acknowledged_ns,
            certificate: entry.certificate.as_ref().map(CertificateText::of),
        }
    }

    fn into_entry(self) -> Result<Entry, String> {
        Ok(Entry {
            client: self.client,
            txn: canonical(&self.txn, transaction(&self.txn)?)?,
            timestamp: Timestamp::from_micros(self.at_us),
            began_ns: self.began_ns,
            acknowledged_ns: self.acknowledged_ns,
            certificate: self.certificate.map(CertificateText::into_certificate).transpose()?,
        })
    }
}

impl CertificateText {
    fn of(certificate: &Certificate) -> CertificateText {
        let ends = |now: Interval| (now.earliest().micros(), now.latest().micros());
        let prepared = certificate.prepared.iter();
        let Timing { locks_us, prepare_us, replicate_us, wait_us, overlap_us, epsilon_us } =
            certificate.timing;
        CertificateText {
            txn: certificate.txn.to_string(),
            at_us: certificate.timestamp.micros(),
            group: certificate.group.to_string(),
            ballot: certificate.ballot.to_string(),
            prepared: prepared.map(|(group, at)| (group.to_string(), at.micros())).collect(),
            arrived_us: ends(certificate.arrived),
            waited_us: ends(certificate.waited),
            node: certificate.provenance.node.to_string(),
            provider: certificate.provenance.provider.clone(),
            status: certificate.provenance.status.clone(),
            timing_us: TimingText {
                locks: locks_us,
                prepare: prepare_us,
                replicate: replicate_us,
                wait: wait_us,
                overlap: overlap_us,
                epsilon: epsilon_us,
            },
            seal: certificate.seal.iter().map(|byte| format!("{byte:02x}")).collect(),
        }
    }

    fn into_certificate(self) -> Result<Certificate, String> {
        let prepared = self.prepared.iter();
        let prepared =
            prepared.map(|(group, us)| Ok((read_group(group)?, Timestamp::from_micros(*us))));
        let TimingText { locks, prepare, replicate, wait, overlap, epsilon } = self.timing_us;
        Ok(Certificate {
            txn: canonical(&self.txn, transaction(&self.txn)?)?,
            timestamp: Timestamp::from_micros(self.at_us),
            prepared: prepared.collect::<Result<_, String>>()?,
            arrived: interval(self.arrived_us)?,
            waited: interval(self.waited_us)?,
            provenance: Provenance {
                node: read_node(&self.node)?,
                provider: self.provider,
                status: self.status,
            },
            group: read_group(&self.group)?,
            ballot: read_ballot(&self.ballot)?,
            timing: Timing {
                locks_us: locks,
                prepare_us: prepare,
                replicate_us: replicate,
                wait_us: wait,
                overlap_us: overlap,
                epsilon_us: epsilon,
            },
            seal: read_seal(&self.seal)?,
        })
    }
}

/// Two spellings of one thing would be two files with one seal.
fn canonical<T: ToString>(text: &str, value: T) -> Result<T, String> {
    let spelled = value.to_string();
    if spelled == text { Ok(value) } else { Err(format!("`{text}` is written as {spelled}")) }
}

fn interval((earliest, latest): (u64, u64)) -> Result<Interval, String> {
    if earliest > latest {
        return Err(format!("[{earliest}, {latest}] is no interval"));
    }
    Ok(Interval::new(Timestamp::from_micros(earliest), Timestamp::from_micros(latest)))
}

fn read_group(text: &str) -> Result<GroupId, String> {
    let number = text.strip_prefix('g').and_then(|rest| rest.parse().ok());
    canonical(text, GroupId(number.ok_or_else(|| format!("`{text}` is no group; one is g1"))?))
}

fn read_node(text: &str) -> Result<NodeId, String> {
    let number = text.strip_prefix('n').and_then(|rest| rest.parse().ok());
    canonical(text, NodeId(number.ok_or_else(|| format!("`{text}` is no node; one is n1"))?))
}

fn read_ballot(text: &str) -> Result<Ballot, String> {
    let none = || format!("`{text}` is no ballot; one is b3.n1");
    let (round, node) = text.strip_prefix('b').and_then(|b| b.split_once('.')).ok_or_else(none)?;
    let round = round.parse().map_err(|_| none())?;
    canonical(text, Ballot { round, node: read_node(node)? })
}

fn read_seal(text: &str) -> Result<Bytes, String> {
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    };
    let byte = |pair: &[u8]| match pair {
        [high, low] => Some(digit(*high)? << 4 | digit(*low)?),
        _ => None,
    };
    let bytes: Option<Vec<u8>> = text.as_bytes().chunks(2).map(byte).collect();
    bytes.map(Bytes::from).ok_or_else(|| "a seal has hexadecimal digits, two for each byte".into())
}
