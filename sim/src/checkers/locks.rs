//! X1, X2, X10: no two transactions hold what only one may hold, and who is prepared holds what it
//! will write, whoever leads. (That nothing is left in the end, the world asks when all is quiet.)

use crate::history::Violation;
use proto::TxnId;
use proto::command::PrepareRecord;
use proto::keys::Span;
use proto::request::LockMode;
use std::collections::BTreeMap;
use txn::server::locks::{HolderReport, LockReport};

/// Judges the lock table of a group where it is led. `prepared`: those whose decision is not
/// chosen yet.
///
/// # Errors
/// The violation.
pub fn check<'p>(
    report: &LockReport,
    prepared: impl Iterator<Item = &'p PrepareRecord>,
) -> Result<(), Violation> {
    let holders = || {
        let spans = report.spans.iter();
        spans.flat_map(|span| span.holders.iter().map(move |holder| (&span.span, holder)))
    };
    for (place, (span, holder)) in holders().enumerate() {
        let others = holders().skip(place + 1);
        let mut in_conflict =
            others.filter(|(at, other)| excludes(holder, other) && at.overlaps(span));
        if let Some((_, other)) = in_conflict.next() {
            let what = format!("{} and {} both hold {span:?}", holder.txn, other.txn);
            return Err(Violation::new("locks", "X1/X2", what));
        }
    }
    let mut exclusive: BTreeMap<TxnId, Vec<&Span>> = BTreeMap::new();
    for (span, holder) in holders().filter(|(_, holder)| holder.mode == LockMode::Exclusive) {
        exclusive.entry(holder.txn).or_default().push(span);
    }
    for record in prepared {
        let held = exclusive.get(&record.txn).map(Vec::as_slice).unwrap_or_default();
        for write in &record.writes {
            let key = Span::Key(write.key.clone());
            if !held.iter().any(|span| span.overlaps(&key)) {
                let what = format!("{} is prepared and does not hold {key:?}", record.txn);
                return Err(Violation::new("locks", "X2/X10", what));
            }
        }
    }
    Ok(())
}

fn excludes(a: &HolderReport, b: &HolderReport) -> bool {
    a.txn != b.txn && (a.mode == LockMode::Exclusive || b.mode == LockMode::Exclusive)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proto::keys::Write;
    use proto::request::Age;
    use proto::{GroupId, Key};
    use truetime::Timestamp;
    use txn::server::locks::SpanReport;

    fn held(holders: &[(u64, LockMode)]) -> LockReport {
        let holder = |(seq, mode): &(u64, LockMode)| HolderReport {
            txn: TxnId { client: 1, seq: *seq },
            age: Age::default(),
            mode: *mode,
            since: Timestamp::MIN,
            immune: false,
        };
        let span = Span::Key(Key::from_static(b"k"));
        let holders = holders.iter().map(holder).collect();
        let spans = vec![SpanReport { span, holders, waiters: Vec::new() }];
        LockReport { spans, ..LockReport::default() }
    }

    #[test]
    fn catches_two_that_exclude_each_other() {
        use LockMode::{Exclusive, Shared};
        let none = || std::iter::empty();
        assert!(check(&held(&[(1, Shared), (2, Shared)]), none()).is_ok());
        assert!(check(&held(&[(1, Exclusive)]), none()).is_ok());
        let both = check(&held(&[(1, Shared), (2, Exclusive)]), none());
        assert_eq!(both.unwrap_err().checker, "locks");
    }

    #[test]
    fn catches_a_prepared_one_without_its_locks() {
        let record = PrepareRecord {
            txn: TxnId { client: 1, seq: 1 },
            age: Age::default(),
            timestamp: Timestamp::MIN,
            coordinator: GroupId(1),
            writes: vec![Write { key: Key::from_static(b"k"), value: None }],
            reads: Vec::new(),
        };
        assert!(check(&held(&[(1, LockMode::Exclusive)]), [&record].into_iter()).is_ok());
        assert!(check(&held(&[(1, LockMode::Shared)]), [&record].into_iter()).is_err());
        assert!(check(&held(&[]), [&record].into_iter()).is_err());
    }
}
