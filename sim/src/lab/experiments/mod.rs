//! The experiments, one file each.

pub mod commit_wait;
pub mod failover;
pub mod hot_row;
pub mod lease_overlap;
pub mod lying_clock;
pub mod masters;
pub mod no_wait;
pub mod participants;
pub mod sawtooth;
pub mod support;

pub use commit_wait::CommitWait;
pub use failover::Failover;
pub use hot_row::HotRow;
pub use lease_overlap::LeaseOverlap;
pub use lying_clock::LyingClock;
pub use masters::Masters;
pub use no_wait::NoWait;
pub use participants::Participants;
pub use sawtooth::Sawtooth;

use super::Experiment;

/// All of them, in reading order.
pub(super) const ALL: &[&dyn Experiment] = &[
    &Sawtooth,
    &Masters,
    &CommitWait,
    &HotRow,
    &Participants,
    &NoWait,
    &LyingClock,
    &LeaseOverlap,
    &Failover,
];
