//! The experiments, one file each.

mod commit_wait;
mod failover;
mod lease_overlap;
mod lying_clock;
mod masters;
mod no_wait;
mod sawtooth;
pub mod support;

pub use commit_wait::CommitWait;
pub use failover::Failover;
pub use lease_overlap::LeaseOverlap;
pub use lying_clock::LyingClock;
pub use masters::Masters;
pub use no_wait::NoWait;
pub use sawtooth::Sawtooth;

use super::Experiment;

/// All of them, in reading order.
pub(super) const ALL: &[&dyn Experiment] =
    &[&Sawtooth, &Masters, &CommitWait, &NoWait, &LyingClock, &LeaseOverlap, &Failover];
