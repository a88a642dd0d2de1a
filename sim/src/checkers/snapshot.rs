//! Every read equals the model at its timestamp: the committed transactions, in the order of their
//! timestamps, one after the other (R1, R6, X1; and P1, for what is lost is not read).

use crate::history::{Cell, Ending, Operation, Violation};
use bytes::Bytes;
use std::collections::BTreeMap;
use truetime::Timestamp;

type Versions = BTreeMap<Bytes, BTreeMap<Timestamp, Cell>>;

/// Judges a history in which no ending is unknown.
///
/// # Errors
/// The violation, with the read and who should have been read from.
pub fn check(history: &[Operation]) -> Result<(), Violation> {
    let versions = model(history)?;
    for op in history {
        let Ending::At(s) = op.ending else { continue };
        for (key, seen) in &op.reads {
            // A snapshot at s sees what was written at s, a writer at s what was there before.
            let upto = if op.read_only() { s } else { s.prev() };
            let newest = versions.get(key).and_then(|v| v.range(..=upto).next_back());
            let expected = newest.map(|(_, cell)| cell);
            if seen.as_ref() != expected {
                let kind = if op.read_only() { "snapshot" } else { "transaction" };
                let what = format!(
                    "{kind} {} at {s} read {key:?} = {seen:?}, the history says {expected:?}",
                    op.txn
                );
                return Err(Violation::new("snapshot", "R1/X1/P1", what));
            }
        }
    }
    Ok(())
}

fn model(history: &[Operation]) -> Result<Versions, Violation> {
    let mut versions = Versions::new();
    for op in history {
        let Ending::At(s) = op.ending else { continue };
        for (key, cell) in &op.writes {
            let before = versions.entry(key.clone()).or_default().insert(s, cell.clone());
            if let Some(before) = before {
                let what = format!("{} and {} wrote {key:?} at {s}", before.writer, op.txn);
                return Err(Violation::new("snapshot", "L4", what));
            }
        }
    }
    Ok(versions)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkers::external_consistency::tests::op;

    #[test]
    fn catches_a_lost_write() {
        let written = op(1, 0, 10, 5, Some(7));
        let mut reader = op(2, 11, 20, 9, None);
        reader.reads.insert(Bytes::from_static(b"k"), written.writes.values().next().cloned());
        assert!(check(&[written.clone(), reader.clone()]).is_ok());
        reader.reads.insert(Bytes::from_static(b"k"), None);
        assert_eq!(check(&[written, reader]).unwrap_err().checker, "snapshot");
    }

    #[test]
    fn catches_two_writes_at_one_timestamp() {
        assert!(check(&[op(1, 0, 1, 5, Some(1)), op(2, 0, 1, 5, Some(2))]).is_err());
    }
}
