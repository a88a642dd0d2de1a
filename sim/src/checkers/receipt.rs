//! X7, X8, X13: what a receipt claims fits together.

use crate::history::Violation;
use proto::request::Receipt;

/// Judges a receipt as a coordinator gives it out.
///
/// # Errors
/// The violation.
pub fn check(receipt: &Receipt) -> Result<(), Violation> {
    let s = receipt.timestamp;
    let broken = |rule, what: String| Err(Violation::new("receipt", rule, what));
    if let Some((group, at)) = receipt.prepared.iter().find(|(_, at)| *at > s) {
        return broken("X7", format!("committed at {s}, prepared at {at} by {group}"));
    }
    if let Some(arrived) = receipt.arrived.filter(|arrived| s <= arrived.latest()) {
        return broken("X7", format!("committed at {s}, requested at {arrived}"));
    }
    if let Some(waited) = receipt.waited.filter(|waited| !waited.after(s)) {
        return broken("X8", format!("committed at {s}, acknowledged at {waited}"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proto::{Ballot, GroupId};
    use truetime::{Interval, Timestamp};

    #[test]
    fn catches_what_does_not_fit() {
        let t = Timestamp::from_micros;
        let good = Receipt {
            timestamp: t(100),
            prepared: vec![(GroupId(2), t(100))],
            arrived: Some(Interval::new(t(90), t(99))),
            waited: Some(Interval::new(t(101), t(111))),
            group: GroupId(1),
            ballot: Ballot::default(),
        };
        assert!(check(&good).is_ok());
        let late = Receipt { prepared: vec![(GroupId(2), t(101))], ..good.clone() };
        let early = Receipt { arrived: Some(Interval::new(t(90), t(100))), ..good.clone() };
        let hasty = Receipt { waited: Some(Interval::new(t(100), t(111))), ..good };
        for (receipt, rule) in [(late, "X7"), (early, "X7"), (hasty, "X8")] {
            assert_eq!(check(&receipt).unwrap_err().rule, rule);
        }
    }
}
