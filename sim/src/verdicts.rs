//! What the checkers of a world have found, and whether that ends its run.
//!
//! A run of a scenario ends at the first broken promise: what comes after it says nothing. A world
//! whose clocks lie breaks promises on purpose, and what an experiment asks is which, and how often;
//! so it collects them.

use crate::history::Violation;
use std::collections::BTreeMap;

/// What one checker has found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// How often.
    pub count: u64,
    /// The first.
    pub first: Violation,
    /// When that was, and the last: absolute time, in nanoseconds.
    pub first_ns: u64,
    /// See `first_ns`.
    pub last_ns: u64,
}

/// See the [module](self).
#[derive(Clone, Debug, Default)]
pub struct Verdicts {
    collecting: bool,
    /// Who is listened to; `None`: everyone.
    only: Option<&'static str>,
    found: BTreeMap<&'static str, Found>,
}

impl Verdicts {
    /// From now on violations are collected, and end nothing.
    pub fn collect(&mut self) {
        self.collecting = true;
    }

    /// From now on nobody is listened to but this checker: would it have noticed by itself?
    pub fn listen_to(&mut self, only: Option<&'static str>) {
        self.only = only;
    }

    /// Whether what this checker says counts.
    pub fn counts(&self, violation: &Violation) -> bool {
        self.only.is_none_or(|only| only == violation.checker)
    }

    /// Takes what a checker says at `absolute_ns`.
    ///
    /// # Errors
    /// The violation, unless they are collected.
    pub fn take(
        &mut self,
        absolute_ns: u64,
        verdict: Result<(), Violation>,
    ) -> Result<(), Violation> {
        let Err(violation) = verdict else { return Ok(()) };
        if !self.counts(&violation) {
            return Ok(());
        }
        if !self.collecting {
            return Err(violation);
        }
        let found = self.found.entry(violation.checker).or_insert(Found {
            count: 0,
            first: violation,
            first_ns: absolute_ns,
            last_ns: absolute_ns,
        });
        found.count += 1;
        found.last_ns = absolute_ns;
        Ok(())
    }

    /// What was collected, by checker.
    pub fn found(&self) -> &BTreeMap<&'static str, Found> {
        &self.found
    }

    /// How often this checker has found something.
    pub fn count(&self, checker: &str) -> u64 {
        self.found.get(checker).map_or(0, |found| found.count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_at_the_first_or_counts_them_all() {
        let broken = || Err(Violation::new("truetime_contains", "T1", "off"));
        let mut verdicts = Verdicts::default();
        assert!(verdicts.take(5, Ok(())).is_ok());
        assert!(verdicts.take(5, broken()).is_err());
        verdicts.collect();
        assert!(verdicts.take(6, broken()).is_ok() && verdicts.take(9, broken()).is_ok());
        let found = &verdicts.found()["truetime_contains"];
        assert_eq!((found.count, found.first_ns, found.last_ns), (2, 6, 9));
        assert_eq!(verdicts.count("visibility"), 0);
    }
}
