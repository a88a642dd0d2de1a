//! Positive controls: which checker must notice which planted fault, in which scenario. A checker
//! counts only after it has failed on purpose.

use crate::scenario::Scenario;
use proto::plant::{Plant, planted};

/// A planted fault, and who must notice it.
#[derive(Clone, Copy, Debug)]
pub struct Control {
    /// What is broken on purpose.
    pub plant: Plant,
    /// The rule it breaks.
    pub rule: &'static str,
    /// Where it shows.
    pub scenario: Scenario,
    /// Who must notice.
    pub checker: &'static str,
    /// Within the seeds from 0 up to this.
    pub within: u64,
    /// Nobody else is listened to: whoever sees into the servers would notice before.
    pub alone: bool,
}

/// Who alone is listened to in this scenario, under the fault that is planted; `None`: everyone.
pub fn only(scenario: Scenario) -> Option<&'static str> {
    let mut alone = CONTROLS.iter().filter(|control| control.alone);
    let planted = alone.find(|control| planted(control.plant) && control.scenario == scenario);
    planted.map(|control| control.checker)
}

const fn control(
    plant: Plant,
    rule: &'static str,
    scenario: Scenario,
    checker: &'static str,
) -> Control {
    Control { plant, rule, scenario, checker, within: 200, alone: false }
}

const fn alone(control: Control) -> Control {
    Control { alone: true, ..control }
}

/// Every plant, once.
pub const CONTROLS: [Control; Plant::ALL.len()] = [
    control(Plant::CommitWaitOff, "X8", Scenario::Bank, "visibility"),
    control(Plant::LogUnsynced, "P1", Scenario::Bank, "durability"),
    control(Plant::OwnBallotOff, "P3", Scenario::Paxos, "durability"),
    control(Plant::VoteUnsynced, "P1", Scenario::Paxos, "durability"),
    control(Plant::LeaseVoteUnsynced, "L1", Scenario::Paxos, "lease_disjoint"),
    control(Plant::LeaseAtStartOnly, "L6", Scenario::Paxos, "lease_disjoint"),
    control(Plant::AbdicateEarly, "L5", Scenario::Paxos, "lease_disjoint"),
    control(Plant::OwnCopyUnsynced, "P4", Scenario::Paxos, "durability"),
    control(Plant::OldSnapshotWins, "P6", Scenario::Paxos, "durability"),
    control(Plant::ConfigWithoutOwnBallot, "P9", Scenario::Membership, "durability"),
    control(Plant::SingleStepMembership, "P9", Scenario::Membership, "durability"),
    alone(control(Plant::EpsilonZero, "T1", Scenario::CausalReverse, "history")),
    control(Plant::SFromEarliest, "X7", Scenario::Bank, "receipt"),
    control(Plant::OneGroupSread, "R3", Scenario::CausalReverse, "external_consistency"),
    control(Plant::FollowerAppliesEarly, "X8", Scenario::FollowerReads, "visibility"),
    control(Plant::TmIgnored, "R1", Scenario::FollowerReads, "snapshot"),
    control(Plant::MinNextTsForgotten, "R2", Scenario::FollowerReads, "snapshot"),
    control(Plant::ReadLocksSurvive, "X3", Scenario::WriteSkew, "snapshot"),
    control(Plant::PreparedWounded, "X2", Scenario::HotRow, "locks"),
    control(Plant::RetryNewId, "X9", Scenario::ListAppend, "atomicity"),
    control(Plant::PrepareUnlogged, "X6", Scenario::ParticipantCrash, "atomicity"),
    control(Plant::OutcomeForgotten, "X9", Scenario::CoordinatorCrash, "atomicity"),
    alone(control(Plant::EarlyReleaseWithoutWait, "X8", Scenario::HotRow, "history")),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_plant_has_a_control() {
        for plant in Plant::ALL {
            let controls = CONTROLS.iter().filter(|control| control.plant == plant);
            assert_eq!(controls.count(), 1, "{}", plant.name());
        }
    }
}
