//! The bodies of [`Clock`](crate::Clock). The only place that may read a clock of the operating
//! system, or wait for one (T1).
#![allow(clippy::disallowed_types, clippy::disallowed_methods)]

mod clock_bound;
mod follower;
mod guard;
mod host;
mod key_file;
mod local;
mod master;
mod masters;
mod nodes;
mod open;
mod simulated;
mod steered;
mod system;
mod worker;

pub use clock_bound::{ClockBound, ClockBoundConfig};
pub use guard::Guard;
pub use host::{HostTime, SharedHostTime, boot_id, boot_ns, real_ns, rest};
pub use key_file::{KeyFileError, new_key_file, read_key_file};
pub use local::Local;
pub use master::{ATOMIC_DRIFT_NS_PER_S, Master, MasterConfig, MasterCounts, MasterFaults};
pub use masters::{Masters, MastersConfig};
pub use nodes::{Asked, Nodes, NodesConfig};
pub use open::{OpenClockError, Opened, open};
pub use simulated::{Absolute, Drift, Simulated, Skew};
pub use steered::{Oscillator, Steered};
pub use system::{System, SystemConfig};
