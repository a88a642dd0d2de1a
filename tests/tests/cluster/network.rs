//! Networks that cut servers off, in one direction or both, and that lose, double and delay. All through
//! the servers' own fault hook: clients still reach everybody, which is harder on a leader that has been
//! replaced without knowing it. Partitions by the kernel are in `namespaces`.

use crate::crashes::AROUND;
use crate::figures::fault_lasts;
use crate::nodes::{Cluster, Plan};
use crate::verdict::{Fault, judge};
use crate::work::Load;
use proto::NodeId;
use proto::control::LinkFault;
use std::thread::sleep;

/// A fault of the network, for as long as faults last.
fn network(plan: Plan, name: &'static str, how: &str, make: impl FnOnce(&Cluster)) {
    let mut cluster = Cluster::start(plan);
    let load = Load::start(&cluster, fault_lasts() + AROUND);
    let mut fault = Fault::begins(name, format!("{how} (fault hook)"));
    make(&cluster);
    sleep(fault_lasts());
    cluster.heal();
    fault.is_over();
    judge(&mut cluster, load, &fault);
}

#[test]
fn the_leader_is_cut_off() {
    network(Plan::default(), "leader cut off", "nothing to and from it", |cluster| {
        let leader = cluster.busiest();
        cluster.part(&[leader], &cluster.others(leader));
    });
}

#[test]
fn the_leader_hears_and_is_not_heard() {
    network(Plan::default(), "leader mute", "nothing from it arrives", |cluster| {
        let leader = cluster.busiest();
        cluster.mute(leader, &cluster.others(leader));
    });
}

#[test]
fn the_leader_is_heard_and_does_not_hear() {
    network(Plan::default(), "leader deaf", "nothing to it arrives", |cluster| {
        let leader = cluster.busiest();
        cluster.others(leader).into_iter().for_each(|node| cluster.mute(node, &[leader]));
    });
}

#[test]
fn one_link_of_three_is_cut() {
    // A chain: who is in the middle hears both, and P8 keeps the ends from deposing each other.
    network(Plan::default(), "one link cut", "nothing between leader and one other", |cluster| {
        let leader = cluster.busiest();
        cluster.part(&[leader], &cluster.others(leader)[..1]);
    });
}

#[test]
fn two_halves_have_a_bridge() {
    let plan = Plan { nodes: 5, replicas: 5, ..Plan::default() };
    network(plan, "bridge of five", "two pairs that only the fifth reaches", |cluster| {
        cluster.part(&[1, 2], &[4, 5]);
    });
}

#[test]
fn every_link_drops_delays_doubles_and_reorders() {
    let how = "5 % lost, 5 % twice, 5 % late, 2 to 12 ms on all links";
    network(Plan::default(), "bad network", how, |cluster| {
        for node in 1..=3 {
            let bad = |to: &u32| LinkFault {
                to: NodeId(*to),
                drop_permille: 50,
                duplicate_permille: 50,
                reorder_permille: 50,
                delay_ms: 2,
                jitter_ms: 10,
            };
            cluster.fault(node, cluster.others(node).iter().map(bad).collect());
        }
    });
}
