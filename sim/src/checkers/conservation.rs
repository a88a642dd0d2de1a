//! The bank's total is the same in every snapshot of all accounts.

use crate::history::{Ending, Operation, Violation};

/// Judges the read-only transactions of a history, which read all accounts.
///
/// # Errors
/// The violation.
pub fn check(history: &[Operation], accounts: usize, total: i64) -> Result<(), Violation> {
    for op in history {
        let Ending::At(s) = op.ending else { continue };
        let complete = op.reads.values().flatten().count() == accounts;
        if !op.read_only() || !complete {
            continue;
        }
        let sum: i64 = op.reads.values().flatten().filter_map(|account| account.as_number()).sum();
        if sum != total {
            let what = format!("the accounts add up to {sum} at {s}, not to {total}");
            return Err(Violation::new("conservation", "X9/R6", what));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkers::external_consistency::tests::op;
    use crate::history::Cell;
    use bytes::Bytes;

    #[test]
    fn catches_money_out_of_nothing() {
        let mut read = op(1, 0, 10, 5, None);
        let account = Cell::number(read.txn, 100);
        read.reads.insert(Bytes::from_static(b"k"), Some(account));
        assert!(check(&[read.clone()], 1, 100).is_ok());
        assert!(check(&[read], 1, 99).is_err());
    }
}
