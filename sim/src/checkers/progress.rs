//! P8, X10: when faults have ended for a majority, service returns within a bound.

use crate::history::Violation;

/// How long everything may take once the faults have ended.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Until all clients have finished, unknown outcomes are settled, and the operator has its
    /// way.
    pub finish_us: u64,
    /// After that, until every group is led, nothing is locked or prepared, and all replicas that
    /// can talk to each other have applied the same.
    pub level_us: u64,
}

impl Bounds {
    /// Judges whether what should have ended has: `Ok` when `done`.
    ///
    /// # Errors
    /// The violation.
    pub fn finished(&self, done: bool, what: &str) -> Result<(), Violation> {
        if done {
            return Ok(());
        }
        let what = format!("not within {} s: {what}", self.finish_us / 1_000_000);
        Err(Violation::new("progress", "P8/X10", what))
    }

    /// Judges what is still missing `since_us` after everybody had finished; whether it is time
    /// to stop waiting.
    ///
    /// # Errors
    /// What was missing when the bound had passed.
    pub fn level(&self, since_us: u64, missing: Result<(), Violation>) -> Result<bool, Violation> {
        match missing {
            Ok(()) => Ok(true),
            Err(_) if since_us < self.level_us => Ok(false),
            Err(missing) => Err(missing),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn catches_a_standstill() {
        let bounds = Bounds { finish_us: 5_000_000, level_us: 1_000 };
        assert!(bounds.finished(true, "to vote").is_ok());
        assert_eq!(bounds.finished(false, "to vote").unwrap_err().checker, "progress");
        let missing = || Err(Violation::new("progress", "P8", "nobody leads g1"));
        assert_eq!(bounds.level(999, missing()), Ok(false));
        assert!(bounds.level(1_000, missing()).is_err());
        assert_eq!(bounds.level(1_000, Ok(())), Ok(true));
    }
}
