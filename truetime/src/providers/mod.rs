//! The bodies of [`Clock`](crate::Clock).

mod local;
mod simulated;

pub use local::Local;
pub use simulated::{Drift, Simulated};
