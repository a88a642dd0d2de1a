//! Groups with nothing to do cost no ticks, and no messages beyond one heartbeat for each pair of
//! servers (P5); they serve at once when asked, and elect another leader when theirs is gone.

mod cluster;

use cluster::{Cluster, GROUPS};
use proto::{GroupId, NodeId};
use std::collections::BTreeSet;

#[test]
fn idle_groups_cost_one_heartbeat_a_pair() {
    let mut c = Cluster::new();
    c.pass(5_000);
    assert_eq!(c.asleep(), 3 * GROUPS as usize, "every replica of every group sleeps");
    c.forget_counts();
    c.pass(10_000);
    assert_eq!(c.others, 0, "no message of a single group in ten seconds");
    assert!(c.beats.values().all(|count| *count <= 101), "{:?}", c.beats);
    let leaders: BTreeSet<NodeId> = (1..=GROUPS).filter_map(|g| c.leader(GroupId(g))).collect();
    let pairs = leaders.len() * 2;
    assert_eq!(c.beats.len(), pairs, "each leader beats to each other server: {:?}", c.beats);
    assert!(c.steps < 10_000 / 100 * 3 * 8, "{} steps", c.steps);
}

#[test]
fn a_sleeping_group_serves_at_once_and_survives_its_leader() {
    let mut c = Cluster::new();
    c.pass(20_000);
    assert_eq!(c.asleep(), 3 * GROUPS as usize);
    assert!(c.resolve(GroupId(3)), "its lease was kept while it slept");
    c.pass(5_000);
    let leader = c.leader(GroupId(3)).expect("somebody leads");
    c.servers.remove(&leader);
    c.pass(3_000);
    let next = c.leader(GroupId(3)).expect("another one leads");
    assert_ne!(next, leader);
    assert!(c.resolve(GroupId(3)));
    // Back again: from what the disk has of its votes, and sleep returns.
    c.start(leader);
    c.pass(5_000);
    assert_eq!(c.asleep(), 3 * GROUPS as usize);
}

#[test]
fn a_vote_given_while_asleep_is_honoured_after_a_restart() {
    let mut c = Cluster::new();
    c.pass(20_000);
    let leader = c.leader(GroupId(5)).expect("somebody leads");
    let others: Vec<NodeId> = c.servers.keys().copied().filter(|node| *node != leader).collect();
    // The leader goes on, cut off from the others; those restart at once and find each other.
    let end = c.us + 450_000;
    for node in &others {
        c.engines[node].crash(0);
        c.servers.remove(node);
        c.start(*node);
    }
    let server = c.servers.remove(&leader);
    while c.us < end {
        c.pass(1);
        let elected = |node: &NodeId| {
            let group = c.servers[node].groups().find(|(id, _)| *id == GroupId(5));
            group.is_some_and(|(_, group)| group.replica().leading().is_some())
        };
        assert!(!others.iter().any(elected), "L1: the old lease may still run");
    }
    drop(server);
    c.pass(3_000);
    assert!(c.leader(GroupId(5)).is_some());
}
