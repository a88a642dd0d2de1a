//! Planted faults: what a checker must catch before it counts.
//!
//! In ordinary builds [`planted`] is a constant `false` and the compiler removes what it guards.
//! In builds with the feature `plants` it reads the choice the simulator made for this process.

/// The faults that can be planted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Plant {
    /// Writes are shown and answered before `after(s)` (breaks X8).
    CommitWaitOff = 1,
    /// The disk is reported as having answered before it did (breaks P1).
    LogUnsynced = 2,
}

impl Plant {
    /// All of them.
    pub const ALL: [Plant; 2] = [Plant::CommitWaitOff, Plant::LogUnsynced];

    /// As `--plant` spells it.
    pub fn name(self) -> &'static str {
        match self {
            Plant::CommitWaitOff => "commit-wait-off",
            Plant::LogUnsynced => "log-unsynced",
        }
    }
}

/// Whether this build can plant faults at all.
pub const AVAILABLE: bool = cfg!(feature = "plants");

#[cfg(feature = "plants")]
mod chosen {
    use super::Plant;
    use std::sync::atomic::{AtomicU8, Ordering};

    static CHOSEN: AtomicU8 = AtomicU8::new(0);

    /// Chooses the fault for the whole process; `None`: none.
    pub fn plant(fault: Option<Plant>) {
        CHOSEN.store(fault.map_or(0, |fault| fault as u8), Ordering::Relaxed);
    }

    /// Whether this fault is planted.
    pub fn planted(fault: Plant) -> bool {
        CHOSEN.load(Ordering::Relaxed) == fault as u8
    }
}

#[cfg(feature = "plants")]
pub use chosen::{plant, planted};

/// Whether this fault is planted: never, in this build.
#[cfg(not(feature = "plants"))]
#[inline(always)]
pub const fn planted(_: Plant) -> bool {
    false
}
