//! Files of JSON lines with a header, read one line at a time, each within a bound.

use std::io::{BufRead, Read};
use thiserror::Error;

/// A longer line is none of ours.
pub const LINE_BYTES_MAX: usize = 1 << 20;

/// What a file has in its lines.
pub trait Format {
    /// The first line.
    type Header;
    /// Each other line.
    type Entry;

    /// Reads the first line.
    ///
    /// # Errors
    /// What is wrong with it, also that it is of another format or version.
    fn header(text: &[u8]) -> Result<Self::Header, String>;

    /// Reads another line.
    ///
    /// # Errors
    /// What is wrong with it.
    fn entry(text: &[u8]) -> Result<Self::Entry, String>;
}

/// A line that is not what it should be.
#[derive(Debug, Error)]
#[error("{line}: {what}")]
pub struct Malformed {
    /// Which, from 1.
    pub line: usize,
    /// What is wrong with it.
    pub what: String,
}

/// Reads a file line by line.
pub struct Lines<R, F: Format> {
    header: F::Header,
    numbered: Numbered<R>,
}

struct Numbered<R> {
    reader: R,
    line: usize,
    bytes: u64,
    text: Vec<u8>,
}

impl<R: BufRead, F: Format> Lines<R, F> {
    /// Reads the first line.
    ///
    /// # Errors
    /// When it is not that of such a file, or of another version.
    pub fn open(reader: R) -> Result<Lines<R, F>, Malformed> {
        let mut numbered = Numbered { reader, line: 0, bytes: 0, text: Vec::new() };
        let header = match numbered.read() {
            Ok(true) => F::header(&numbered.text),
            Ok(false) => Err("the file is empty".into()),
            Err(what) => Err(what),
        };
        let line = numbered.line;
        let header = header.map_err(|what| Malformed { line, what })?;
        Ok(Lines { header, numbered })
    }

    /// The first line.
    pub fn header(&self) -> &F::Header {
        &self.header
    }

    /// The number of the line that was read last.
    pub fn line(&self) -> usize {
        self.numbered.line
    }

    /// How many bytes have been read.
    pub fn bytes(&self) -> u64 {
        self.numbered.bytes
    }

    /// An objection to the line that was read last.
    pub fn malformed(&self, what: impl ToString) -> Malformed {
        Malformed { line: self.line(), what: what.to_string() }
    }
}

impl<R: BufRead> Numbered<R> {
    /// Whether there was one more line; it is in `text`.
    fn read(&mut self) -> Result<bool, String> {
        self.line += 1;
        self.text.clear();
        let mut limited = Read::take(&mut self.reader, LINE_BYTES_MAX as u64);
        let read = limited.read_until(b'\n', &mut self.text).map_err(|error| error.to_string())?;
        self.bytes += read as u64;
        if read == LINE_BYTES_MAX {
            return Err(format!("the line is too long; {LINE_BYTES_MAX} bytes are the most"));
        }
        Ok(read > 0)
    }
}

impl<R: BufRead, F: Format> Iterator for Lines<R, F> {
    type Item = Result<F::Entry, Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        let entry = match self.numbered.read() {
            Ok(true) => F::entry(&self.numbered.text),
            Ok(false) => return None,
            Err(what) => Err(what),
        };
        Some(entry.map_err(|what| self.malformed(what)))
    }
}
