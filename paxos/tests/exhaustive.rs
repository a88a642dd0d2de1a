//! Every schedule of a small world, searched breadth first; see `cluster/model.rs` for what is in
//! it. `tests/plant_own_ballot.rs` shows that the search can fail.

mod cluster;

use cluster::model::{World, search};
use stateright::Checker;

fn number(name: &str, or: u64) -> u64 {
    std::env::var(name).map_or(or, |text| text.parse().expect("a number"))
}

/// Three ballots, a value: 134,457 states.
#[test]
fn three_ballots_cannot_make_two_replicas_disagree() {
    let world = World {
        rounds: number("ROUNDS", 3),
        candidates: Vec::new(),
        values: number("VALUES", 1),
        crashes: number("CRASHES", 0) as u32,
        message_slots: 1_024,
    };
    search(world).assert_properties();
}

/// Two ballots, and a node that crashes at any point and goes on from its disk: 1,904 states.
#[test]
fn nor_can_a_crash_among_two() {
    let world =
        World { rounds: 2, candidates: vec![1, 2], values: 0, crashes: 1, message_slots: 1_024 };
    search(world).assert_no_discovery("agreement");
}
