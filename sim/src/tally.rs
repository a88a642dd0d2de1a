//! What is counted in a run.

use crate::crash_points::Point;
use std::fmt;

/// The kinds of faults, as they are counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub enum Fault {
    /// One process ended between two steps.
    Crash,
    /// One process ended in the middle of carrying out a step.
    CrashMidStep,
    /// All processes, or all but one, ended at once.
    PowerCut,
    /// A crash found a batch half written: it counts as not written.
    TornWrite,
    /// A crash lost batches that were not synced.
    LostTail,
    /// A link was cut in one direction.
    Cut,
    /// All links of a node were cut.
    Isolation,
    /// Nodes could talk to their neighbours only.
    Chain,
    /// A leader was struck at a bad moment.
    Ambush,
    /// A process stood still between two steps.
    Pause,
    /// A process stood still in the middle of a step.
    PauseMidStep,
    /// A disk was slow for a while.
    SlowDisk,
    /// A clock jumped within its bound.
    ClockStep,
    /// A clock had no bound for a while.
    ClockLost,
    /// An entry of a log was damaged.
    Rot,
    /// A disk was lost.
    Wipe,
    /// A client died in the middle of a transaction.
    ClientDied,
    /// A message was lost.
    Lost,
    /// A message came twice.
    Duplicated,
}

impl Fault {
    /// All of them, with what reports call them.
    pub const ALL: [(Fault, &'static str); 19] = [
        (Fault::Crash, "crashes"),
        (Fault::CrashMidStep, "crashes within a step"),
        (Fault::PowerCut, "power cuts"),
        (Fault::TornWrite, "torn writes"),
        (Fault::LostTail, "unsynced tails lost"),
        (Fault::Cut, "links cut one way"),
        (Fault::Isolation, "nodes isolated"),
        (Fault::Chain, "chains"),
        (Fault::Ambush, "ambushes"),
        (Fault::Pause, "pauses"),
        (Fault::PauseMidStep, "pauses within a step"),
        (Fault::SlowDisk, "slow disks"),
        (Fault::ClockStep, "clock steps"),
        (Fault::ClockLost, "clocks lost"),
        (Fault::Rot, "entries rotten"),
        (Fault::Wipe, "disks wiped"),
        (Fault::ClientDied, "clients dead"),
        (Fault::Lost, "messages lost"),
        (Fault::Duplicated, "messages duplicated"),
    ];
}

/// How often each fault was injected.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FaultCount([u64; Fault::ALL.len()]);

impl FaultCount {
    /// How often.
    pub fn of(&self, fault: Fault) -> u64 {
        self.0[fault as usize]
    }

    pub(crate) fn add(&mut self, fault: Fault, times: u64) {
        self.0[fault as usize] += times;
    }

    /// Adds those of another run.
    pub fn merge(&mut self, other: &FaultCount) {
        self.0.iter_mut().zip(other.0).for_each(|(sum, count)| *sum += count);
    }
}

impl fmt::Display for FaultCount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts = Fault::ALL.iter().map(|(fault, name)| format!("{} {name}", self.of(*fault)));
        f.write_str(&parts.collect::<Vec<_>>().join(", "))
    }
}

/// How often a leader was struck at each point of a commit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PointCount([u64; Point::COUNT]);

impl PointCount {
    /// How often.
    pub fn of(&self, point: Point) -> u64 {
        self.0[point as usize]
    }

    pub(crate) fn add(&mut self, point: Point) {
        self.0[point as usize] += 1;
    }

    /// Adds those of another run.
    pub fn merge(&mut self, other: &PointCount) {
        self.0.iter_mut().zip(other.0).for_each(|(sum, count)| *sum += count);
    }
}

/// What a world has done so far.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tally {
    /// Events.
    pub events: u64,
    /// Simulated time.
    pub simulated_us: u64,
    /// Ballots that somebody was elected under.
    pub elections: u64,
    /// Elections of another node than the one before.
    pub leader_changes: u64,
    /// Snapshots that took the place of a tablet.
    pub snapshots_installed: u64,
    /// Reads at a timestamp that a replica answered which did not lead.
    pub follower_reads: u64,
    /// Faults injected.
    pub faults: FaultCount,
    /// Leaders struck at points of a commit.
    pub points: PointCount,
}
