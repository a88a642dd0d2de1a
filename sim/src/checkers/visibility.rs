//! X8: no replica makes a write visible before its timestamp has certainly passed.

use crate::history::Violation;
use proto::NodeId;
use spanserver::storage::WriteOp;

/// Judges what a node makes readable at `absolute_ns`. With honest clocks `after(s)` implies that
/// absolute time is beyond `s`.
///
/// # Errors
/// The violation.
pub fn check(absolute_ns: u64, node: NodeId, applied: &[WriteOp]) -> Result<(), Violation> {
    for op in applied {
        let WriteOp::PutVersion { group, at, .. } = op else { continue };
        if absolute_ns / 1_000 <= at.micros() {
            let now_us = absolute_ns / 1_000;
            let what = format!("{node} shows a write of {group} at {at} when it is {now_us} µs");
            return Err(Violation::new("visibility", "X8", what));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proto::{GroupId, Key};
    use truetime::Timestamp;

    #[test]
    fn catches_a_write_shown_early() {
        let write = |at| {
            let at = Timestamp::from_micros(at);
            [WriteOp::PutVersion { group: GroupId(1), key: Key::new(), at, value: None }]
        };
        assert!(check(10_000_000, NodeId(1), &write(9_999)).is_ok());
        assert!(check(10_000_000, NodeId(1), &write(10_000)).is_err());
    }
}
