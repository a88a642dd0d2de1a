//! The experiments, one file each.

use super::Experiment;

/// All of them, in reading order.
pub(super) const ALL: &[&dyn Experiment] = &[];
