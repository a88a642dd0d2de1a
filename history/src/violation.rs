//! A broken promise, in one line.

use std::fmt;

/// A broken promise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// The checker, and with it the promise.
    pub checker: &'static str,
    /// The protocol rule.
    pub rule: String,
    /// What was seen.
    pub what: String,
}

impl Violation {
    /// A violation.
    pub fn new(checker: &'static str, rule: &str, what: impl Into<String>) -> Violation {
        Violation { checker, rule: rule.into(), what: what.into() }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({}): {}", self.checker, self.rule, self.what)
    }
}
