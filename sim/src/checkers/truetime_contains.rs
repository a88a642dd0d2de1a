//! T1: every interval handed out contains absolute time.

use crate::history::Violation;
use truetime::Interval;

/// Judges one reading taken at `absolute_ns`.
///
/// # Errors
/// The violation.
pub fn check(absolute_ns: u64, reading: Interval) -> Result<(), Violation> {
    let (earliest, latest) = (reading.earliest().micros(), reading.latest().micros());
    if earliest <= absolute_ns / 1_000 && absolute_ns.div_ceil(1_000) <= latest {
        return Ok(());
    }
    let what = format!("{reading} does not contain {} µs", absolute_ns / 1_000);
    Err(Violation::new("truetime_contains", "T1", what))
}

#[cfg(test)]
mod tests {
    use super::*;
    use truetime::Timestamp;

    #[test]
    fn catches_a_clock_that_is_ahead() {
        let t = Timestamp::from_micros;
        assert!(check(10_000, Interval::new(t(9), t(11))).is_ok());
        assert!(check(8_000, Interval::new(t(9), t(11))).is_err());
        assert!(check(12_000, Interval::new(t(9), t(11))).is_err());
    }
}
