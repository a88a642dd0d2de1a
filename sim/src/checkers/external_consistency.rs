//! Acknowledged before started ⇒ s1 < s2 (paper §4.1.2; X13).

use crate::history::{Kind, Operation, Violation};
use proto::TxnId;
use std::collections::BTreeMap;
use truetime::Timestamp;

/// Two transactions of which one was acknowledged before the other began, and whose timestamps say
/// otherwise.
#[derive(Clone, Copy, Debug)]
pub struct Disorder<'h> {
    /// Of those that had ended, the one with the highest timestamp.
    pub earlier: &'h Operation,
    /// That timestamp; for a read-only transaction, of the newest write that it saw.
    pub earlier_at: Timestamp,
    /// The one that began after it.
    pub later: &'h Operation,
    /// What it got: too little.
    pub later_at: Timestamp,
}

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

/// All that [`check`] would object to, each transaction at most once as the later one, in the order
/// in which those began.
pub fn disorders(history: &[Operation]) -> Vec<Disorder<'_>> {
    let mut by_start: Vec<(&Operation, Timestamp)> = history
        .iter()
        .filter(|op| matches!(op.kind, Kind::ReadWrite | Kind::Strong))
        .filter_map(|op| Some((op, op.at()?)))
        .collect();
    by_start.sort_by_key(|(op, _)| op.began_ns);
    let committed: BTreeMap<TxnId, Timestamp> =
        by_start.iter().filter(|(op, _)| !op.read_only()).map(|(op, s)| (op.txn, *s)).collect();
    let witnessed = |op: &Operation, s: Timestamp| match op.read_only() {
        true => {
            let writers = op.reads.values().flatten().map(|cell| cell.writer);
            writers.filter_map(|writer| committed.get(&writer)).max().copied().unwrap_or_default()
        }
        false => s,
    };
    let mut by_end: Vec<(&Operation, Timestamp)> =
        by_start.iter().map(|(op, s)| (*op, witnessed(op, *s))).collect();
    by_end.sort_by_key(|(op, _)| op.ended_ns);
    let mut ended = by_end.into_iter().peekable();
    let mut highest: Option<(&Operation, Timestamp)> = None;
    let mut found = Vec::new();
    for (later, later_at) in by_start {
        while let Some((earlier, t)) =
            ended.next_if(|(earlier, _)| earlier.ended_ns < later.began_ns)
        {
            if highest.is_none_or(|(_, h)| t > h) {
                highest = Some((earlier, t));
            }
        }
        let Some((earlier, earlier_at)) = highest else { continue };
        let ordered =
            if later.read_only() { earlier_at <= later_at } else { earlier_at < later_at };
        if !ordered {
            found.push(Disorder { earlier, earlier_at, later, later_at });
        }
    }
    found
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::history::{Cell, Ending};
    use bytes::Bytes;
    use proto::TxnId;

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
