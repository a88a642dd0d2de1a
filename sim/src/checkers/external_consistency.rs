//! Acknowledged before started ⇒ s1 < s2 (paper §4.1.2; X13).

pub use crate::history::{Disorder, disorders};
use crate::history::{Operation, Violation};

/// Judges a history. A strong read-only transaction that starts after an acknowledgement must read
/// at or above its timestamp. Of a read-only transaction that ended, later ones must lie at or
/// above what it *saw*: its own timestamp may run ahead of absolute time by an ε that nobody wrote
/// in, for a read waits for no clock. Reads at a chosen, older timestamp, and those of a session,
/// promise nothing about real time and are left out.
///
/// # Errors
/// The violation, with both transactions.
pub fn check(history: &[Operation]) -> Result<(), Violation> {
    let Some(first) = disorders(history).into_iter().next() else { return Ok(()) };
    let Disorder { earlier, earlier_at, later, later_at } = first;
    let what = format!(
        "{} ended at {} ns with {earlier_at}; {} began at {} ns and got {later_at}",
        earlier.txn, earlier.ended_ns, later.txn, later.began_ns
    );
    Err(Violation::new("external_consistency", "X7/X8", what))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::history::{Cell, Ending, Kind};
    use bytes::Bytes;
    use proto::TxnId;
    use truetime::Timestamp;

    /// A made-up transaction.
    pub(crate) fn op(seq: u64, began: u64, ended: u64, s: u64, write: Option<i64>) -> Operation {
        let txn = TxnId { client: 1, seq };
        let writes = write.map(|number| (Bytes::from_static(b"k"), Cell::number(txn, number)));
        Operation {
            client: 0,
            txn,
            kind: if write.is_some() { Kind::ReadWrite } else { Kind::Strong },
            began_ns: began,
            ended_ns: ended,
            ending: Ending::At(Timestamp::from_micros(s)),
            writes: writes.into_iter().collect(),
            reads: Default::default(),
        }
    }

    #[test]
    fn catches_a_timestamp_that_goes_back() {
        let good = [op(1, 0, 10, 5, Some(1)), op(2, 11, 20, 6, Some(2))];
        assert!(check(&good).is_ok());
        let bad = [op(1, 0, 10, 5, Some(1)), op(2, 11, 20, 5, Some(2))];
        assert_eq!(check(&bad).unwrap_err().checker, "external_consistency");
    }

    #[test]
    fn counts_each_later_one_once() {
        let late = |seq, began| op(seq, began, began + 5, 4, Some(2));
        let bad = [op(1, 0, 10, 5, Some(1)), late(2, 11), late(3, 12), op(4, 30, 40, 9, Some(1))];
        let later: Vec<u64> = disorders(&bad).iter().map(|pair| pair.later.txn.seq).collect();
        assert_eq!(later, [2, 3]);
    }

    #[test]
    fn catches_a_stale_strong_read() {
        let good = [op(1, 0, 10, 5, Some(1)), op(2, 11, 20, 5, None)];
        assert!(check(&good).is_ok());
        let bad = [op(1, 0, 10, 5, Some(1)), op(2, 11, 20, 4, None)];
        assert!(check(&bad).is_err());
    }

    #[test]
    fn catches_a_read_older_than_what_an_earlier_read_saw() {
        let write = op(1, 0, 50, 5, Some(1));
        let mut first = op(2, 6, 10, 9, None);
        first.reads.insert(Bytes::from_static(b"k"), write.writes.values().next().cloned());
        let second = |s| op(3, 11, 20, s, None);
        assert!(check(&[write.clone(), first.clone(), second(7)]).is_ok());
        assert!(check(&[write, first, second(4)]).is_err());
    }

    #[test]
    fn reads_of_the_past_are_left_out() {
        let write = op(1, 0, 10, 5, Some(1));
        let mut read = op(2, 11, 20, 4, None);
        assert!(check(&[write.clone(), read.clone()]).is_err());
        read.kind = Kind::Stale;
        assert!(check(&[write, read]).is_ok());
    }

    #[test]
    fn concurrent_ones_may_come_in_any_order() {
        assert!(check(&[op(1, 0, 10, 9, Some(1)), op(2, 5, 20, 3, Some(2))]).is_ok());
    }
}
