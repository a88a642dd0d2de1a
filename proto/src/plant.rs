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
    /// A leader counts copies of entries of older ballots (breaks P3).
    OwnBallotOff = 3,
    /// A promise is sent before it is on disk (breaks P1).
    VoteUnsynced = 4,
    /// Renewed timed votes are not written to disk (breaks L1).
    LeaseVoteUnsynced = 5,
    /// The lease is not checked again when an answer leaves (breaks L6).
    LeaseAtStartOnly = 6,
    /// A lease is handed on before all timestamps given out have passed (breaks L5).
    AbdicateEarly = 7,
    /// A leader counts its own copy before its disk has answered (breaks P4).
    OwnCopyUnsynced = 8,
    /// A snapshot is installed although newer state is applied (breaks P6).
    OldSnapshotWins = 9,
    /// Members are changed before an entry of the leader's own ballot is applied (breaks P9).
    ConfigWithoutOwnBallot = 10,
    /// Any change of the voters is made in one step (breaks P9).
    SingleStepMembership = 11,
    /// Clocks report half of an interval to be nothing (breaks T1).
    EpsilonZero = 12,
    /// The commit timestamp is chosen from `earliest` (breaks X7).
    SFromEarliest = 13,
    /// A read over several groups is at the last commit of one of them (breaks R3).
    OneGroupSread = 14,
    /// A follower shows writes before `after(s)` (breaks X8).
    FollowerAppliesEarly = 15,
    /// Reads do not wait for prepared transactions (breaks R1).
    TmIgnored = 16,
    /// What a leader has promised about timestamps to come binds nobody (breaks R2).
    MinNextTsForgotten = 17,
    /// Read locks are taken to be there under another leader (breaks X3).
    ReadLocksSurvive = 18,
    /// A prepared transaction is wounded (breaks X2).
    PreparedWounded = 19,
    /// A commit is asked for again under another id (breaks X9).
    RetryNewId = 20,
    /// A participant answers before its prepare is logged (breaks X6).
    PrepareUnlogged = 21,
    /// A coordinator keeps no record of what it decided (breaks X9).
    OutcomeForgotten = 22,
    /// Who has read what was released early need not wait for it (breaks X8).
    EarlyReleaseWithoutWait = 23,
}

impl Plant {
    /// All of them.
    pub const ALL: [Plant; 23] = [
        Plant::CommitWaitOff,
        Plant::LogUnsynced,
        Plant::OwnBallotOff,
        Plant::VoteUnsynced,
        Plant::LeaseVoteUnsynced,
        Plant::LeaseAtStartOnly,
        Plant::AbdicateEarly,
        Plant::OwnCopyUnsynced,
        Plant::OldSnapshotWins,
        Plant::ConfigWithoutOwnBallot,
        Plant::SingleStepMembership,
        Plant::EpsilonZero,
        Plant::SFromEarliest,
        Plant::OneGroupSread,
        Plant::FollowerAppliesEarly,
        Plant::TmIgnored,
        Plant::MinNextTsForgotten,
        Plant::ReadLocksSurvive,
        Plant::PreparedWounded,
        Plant::RetryNewId,
        Plant::PrepareUnlogged,
        Plant::OutcomeForgotten,
        Plant::EarlyReleaseWithoutWait,
    ];

    /// As `--plant` spells it.
    pub fn name(self) -> &'static str {
        match self {
            Plant::CommitWaitOff => "commit-wait-off",
            Plant::LogUnsynced => "log-unsynced",
            Plant::OwnBallotOff => "own-ballot-off",
            Plant::VoteUnsynced => "vote-unsynced",
            Plant::LeaseVoteUnsynced => "lease-vote-unsynced",
            Plant::LeaseAtStartOnly => "lease-at-start-only",
            Plant::AbdicateEarly => "abdicate-early",
            Plant::OwnCopyUnsynced => "own-copy-unsynced",
            Plant::OldSnapshotWins => "old-snapshot-wins",
            Plant::ConfigWithoutOwnBallot => "config-without-own-ballot",
            Plant::SingleStepMembership => "single-step-membership",
            Plant::EpsilonZero => "epsilon-zero",
            Plant::SFromEarliest => "s-from-earliest",
            Plant::OneGroupSread => "one-group-sread",
            Plant::FollowerAppliesEarly => "follower-applies-early",
            Plant::TmIgnored => "tm-ignored",
            Plant::MinNextTsForgotten => "minnextts-forgotten",
            Plant::ReadLocksSurvive => "read-locks-survive",
            Plant::PreparedWounded => "prepared-wounded",
            Plant::RetryNewId => "retry-new-id",
            Plant::PrepareUnlogged => "prepare-unlogged",
            Plant::OutcomeForgotten => "outcome-forgotten",
            Plant::EarlyReleaseWithoutWait => "early-release-without-wait",
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
