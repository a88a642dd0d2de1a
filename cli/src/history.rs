//! Recorded histories: what clients did and saw, written down while it happens. The format is that
//! of [`history::file`].

use ::history::Operation;
use ::history::file::{self, Header};
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;
use std::sync::Mutex;
use truetime::providers::HostTime;

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
        let header = Header { zero_us: zero_ns / 1_000, ..header };
        let mut out = BufWriter::new(File::create(path)?);
        file::write_header(&mut out, &header)?;
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
        let mut line = Vec::new(); // made before the lock is taken
        file::write_operation(&mut line, op)?;
        let mut out = self.out.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        out.write_all(&line)
    }

    /// The file is complete.
    ///
    /// # Errors
    /// What the operating system says.
    pub fn finish(&self) -> io::Result<()> {
        self.out.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ::history::file::Lines;
    use ::history::{Cell, Ending, Kind};
    use proto::TxnId;
    use std::collections::BTreeMap;
    use std::io::BufReader;
    use truetime::Timestamp;

    #[test]
    fn what_is_recorded_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("history");
        let recorder = Recorder::create(&path, Header { total: 10, ..Header::default() }).unwrap();
        let txn = TxnId { client: 0x1f, seq: 1 };
        let op = Operation {
            client: 3,
            txn,
            kind: Kind::ReadWrite,
            began_ns: 5,
            ended_ns: 10,
            ending: Ending::At(Timestamp::from_micros(7)),
            writes: [("k".into(), Cell::number(txn, -3))].into(),
            reads: BTreeMap::new(),
        };
        recorder.record(&op).unwrap();
        recorder.finish().unwrap();
        assert!(recorder.now_ns() < 60_000_000_000);
        let mut lines = Lines::open(BufReader::new(File::open(&path).unwrap())).unwrap();
        assert_eq!(lines.header().total, 10);
        assert!(lines.header().zero_us > 1_600_000_000_000_000);
        assert_eq!(lines.next().unwrap().unwrap(), op);
        assert!(lines.next().is_none());
    }
}
