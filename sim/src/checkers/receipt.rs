//! X7, X8, X13: what a receipt claims fits together.

use crate::history::Violation;
use proto::request::Receipt;

/// Judges a receipt as a coordinator gives it out.
///
/// # Errors
/// The violation.
pub fn check(receipt: &Receipt) -> Result<(), Violation> {
    let Some(certificate) = &receipt.certificate else { return Ok(()) };
    let s = receipt.timestamp;
    let broken = |rule, what: String| Err(Violation::new("receipt", rule, what));
    if let Some((group, at)) = certificate.prepared.iter().find(|(_, at)| *at > s) {
        return broken("X7", format!("committed at {s}, prepared at {at} by {group}"));
    }
    let arrived = certificate.arrived;
    if s <= arrived.latest() {
        return broken("X7", format!("committed at {s}, requested at {arrived}"));
    }
    let waited = certificate.waited;
    if !waited.after(s) {
        return broken("X8", format!("committed at {s}, acknowledged at {waited}"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use proto::request::{Certificate, Provenance, Timing};
    use proto::{Ballot, GroupId, TxnId};
    use truetime::{Interval, Timestamp};

    #[test]
    fn catches_what_does_not_fit() {
        let t = Timestamp::from_micros;
        let good = Certificate {
            txn: TxnId::default(),
            timestamp: t(100),
            prepared: vec![(GroupId(2), t(100))],
            arrived: Interval::new(t(90), t(99)),
            waited: Interval::new(t(101), t(111)),
            provenance: Provenance::default(),
            group: GroupId(1),
            ballot: Ballot::default(),
            timing: Timing::default(),
            seal: Bytes::new(),
        };
        let receipt = |certificate| Receipt {
            certificate: Some(Box::new(certificate)),
            ..Receipt::plain(t(100), GroupId(1))
        };
        assert!(check(&receipt(good.clone())).is_ok());
        let late = Certificate { prepared: vec![(GroupId(2), t(101))], ..good.clone() };
        let early = Certificate { arrived: Interval::new(t(90), t(100)), ..good.clone() };
        let hasty = Certificate { waited: Interval::new(t(100), t(111)), ..good };
        for (certificate, rule) in [(late, "X7"), (early, "X7"), (hasty, "X8")] {
            assert_eq!(check(&receipt(certificate)).unwrap_err().rule, rule);
        }
    }
}
