//! The search of `exhaustive.rs` finds the Raft paper's figure 8 when copies of an old ballot's
//! entry are allowed to choose it (P3): a checker that cannot fail would prove nothing. In a process
//! of its own, for a planted fault is everybody's.

mod cluster;

use cluster::model::{World, search};
use proto::plant::{Plant, plant};
use stateright::Checker;

fn world() -> World {
    World {
        rounds: 4,
        candidates: vec![1, 2, 1, 2],
        values: 0,
        crashes: 0,
        // An old entry travels alone, without the no-op behind it.
        message_slots: 1,
    }
}

#[test]
fn counting_copies_of_an_older_ballot_is_caught() {
    search(world()).assert_no_discovery("agreement");
    plant(Some(Plant::OwnBallotOff));
    let checker = search(world());
    let path = checker.discovery("agreement").expect("figure 8 is found");
    for action in path.into_actions() {
        println!("{action:?}");
    }
}
