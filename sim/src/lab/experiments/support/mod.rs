//! What experiments share.
//!
//! - [`sweep`]: measures many points, several at a time, in an order that does not matter.
//! - [`stage`]: a quiet world with chosen clocks and leaders, before an experiment begins.
//! - [`relay`]: clients that hand on a baton outside the database, so that the order of what they
//!   do is known, and who wrote what.
//! - [`story`]: the first violation as a person would tell it.

pub mod relay;
pub mod stage;
pub mod story;
pub mod sweep;

/// A number of milliseconds, in nanoseconds.
pub fn ms_ns(ms: f64) -> u64 {
    (ms * 1e6).round() as u64
}

/// A number of milliseconds, in microseconds.
pub fn ms_us(ms: f64) -> u64 {
    (ms * 1e3).round() as u64
}

/// Nanoseconds in milliseconds.
pub fn as_ms(ns: u64) -> f64 {
    ns as f64 / 1e6
}

/// The arithmetic mean; of nothing, nothing.
pub fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len().max(1) as f64
}

/// So many of a thousand.
pub fn per_thousand(count: u64, of: u64) -> f64 {
    count as f64 * 1_000.0 / of.max(1) as f64
}
