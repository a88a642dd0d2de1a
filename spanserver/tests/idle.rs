//! Groups with nothing to do cost no ticks, and no messages beyond one heartbeat for each pair of
//! servers (P5); they serve at once when asked, and elect another leader when theirs is gone.

mod cluster;

use cluster::{Cluster, GROUPS};
use proto::{Ballot, GroupId, NodeId};
use spanserver::{Event, Message};
use std::collections::BTreeSet;
use truetime::Timestamp;

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

/// A server that stood still for longer than its vote finds two messages in one batch: a candidate's,
/// which gets the vote, and an old leader's beat. The beat must not be answered for that group (L1).
#[test]
fn a_beat_speaks_for_no_group_whose_vote_was_given_away_in_the_same_step() {
    let mut c = Cluster::new();
    c.pass(5_000);
    let group = GroupId(1);
    let (follower, leader) = c.follower_and_leader(group);
    let third = (1..=3).map(NodeId).find(|node| *node != follower && *node != leader);
    let third = third.expect("three servers");
    let replica = |node: NodeId| {
        let found = c.servers[&node].groups().find(|(id, _)| *id == group);
        found.map(|(_, group)| group.replica()).expect("it is there")
    };
    let asleep = replica(follower).asleep().expect("it has had the time to fall asleep");
    let (seat, last) = (replica(third).seat(), replica(third).last());
    let ballot = Ballot { round: asleep.ballot.round + 1, node: third };
    c.us += 2_000_000;
    let sent = c.now().earliest();
    let message = paxos::Message::Prepare { ballot, last, sent, released: None };
    let prepare = Message::Paxos { group, seat, message };
    let groups = vec![(group, asleep.ballot, asleep.level)];
    let beat = Message::Beat { anchor: group, digest: 42, groups, promise: Timestamp::MIN, sent };
    let now = c.now();
    let server = c.servers.get_mut(&follower).expect("it runs");
    let events = [(third, prepare), (leader, beat)];
    let first = server.step(now, events.map(|(from, message)| Event::Message { from, message }));
    let batch = first.persist.map(|persist| persist.batch).expect("a promise is written");
    let second = server.step(now, [Event::Persisted { batch }]);
    let said: Vec<Message> = first.send.into_iter().chain(second.send).map(|(_, m)| m).collect();
    let promised = |m: &Message| {
        let promise = |m: &paxos::Message| matches!(m, paxos::Message::Promise { .. });
        matches!(m, Message::Paxos { message, .. } if promise(message))
    };
    assert!(said.iter().any(promised), "the vote is free: {said:?}");
    let agreed = |m: &Message| matches!(m, Message::BeatTaken { agrees: true, .. });
    assert!(!said.iter().any(agreed), "L1: the vote was given away: {said:?}");
}
