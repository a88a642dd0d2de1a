//! Scripts in which a guard is off and a rule is seen to be broken. Each test plants its own fault,
//! so there is one to a process.

mod cluster;

use proto::plant::{Plant, plant};

#[test]
fn members_changed_before_the_own_ballot_is_open() {
    plant(Some(Plant::ConfigWithoutOwnBallot));
    cluster::script::run("single_step_bug");
}
