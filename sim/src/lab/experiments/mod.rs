//! The experiments, one file each.

mod commit_wait;
mod failover;
mod lease_overlap;
mod no_wait;
pub mod support;

pub use commit_wait::CommitWait;
pub use failover::Failover;
pub use lease_overlap::LeaseOverlap;
pub use no_wait::NoWait;

use super::Experiment;

/// All of them, in reading order.
pub(super) const ALL: &[&dyn Experiment] = &[&CommitWait, &NoWait, &LeaseOverlap, &Failover];
