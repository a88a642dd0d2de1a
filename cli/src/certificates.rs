//! Certificates, written down as clients get them. The format is that of
//! [`history::certificates::file`].

use ::history::certificates::{Entry, Header, file};
use client::CommitReceipt;
use proto::TxnId;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;
use std::sync::Mutex;
use truetime::providers::HostTime;

/// Writes certificates while clients work.
pub struct Recorder {
    host: HostTime,
    zero_ns: u64,
    out: Mutex<BufWriter<File>>,
}

/// A commit that its client has been told of.
pub struct Told {
    /// Which client.
    pub client: u32,
    /// What it committed.
    pub txn: TxnId,
    /// From [`Recorder::now_ns`], before its first message.
    pub began_ns: u64,
    /// The same, after the answer.
    pub acknowledged_ns: u64,
    /// The answer.
    pub receipt: CommitReceipt,
}

impl Recorder {
    /// Begins a file; `header` is completed.
    ///
    /// # Errors
    /// What the operating system says.
    pub fn create(path: &Path, header: Header) -> io::Result<Recorder> {
        let host = HostTime::new();
        let zero_ns = host.now_ns();
        let header = Header { zero_us: zero_ns / 1_000, ..header };
        let mut out = BufWriter::new(File::create(path)?);
        file::write_header(&mut out, &header)?;
        Ok(Recorder { host, zero_ns, out: Mutex::new(out) })
    }

    /// Nanoseconds since the recording began.
    pub fn now_ns(&self) -> u64 {
        self.host.now_ns() - self.zero_ns
    }

    /// Adds a commit.
    ///
    /// # Errors
    /// What the operating system says.
    pub fn record(&self, told: Told) -> io::Result<()> {
        let Told { client, txn, began_ns, acknowledged_ns, receipt } = told;
        let certificate = receipt.certificate.map(|certificate| *certificate);
        let timestamp = receipt.timestamp;
        let entry = Entry { client, txn, timestamp, began_ns, acknowledged_ns, certificate };
        let mut line = Vec::new(); // made before the lock is taken
        file::write_entry(&mut line, &entry)?;
        self.out.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).write_all(&line)
    }

    /// The file is complete.
    ///
    /// # Errors
    /// What the operating system says.
    pub fn finish(&self) -> io::Result<()> {
        self.out.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).flush()
    }
}
