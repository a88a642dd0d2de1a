//! Clusters that never were, for tests of what is said about them.

use super::seen::{Answer, Seen};
use proto::control::{NodeReport, PeerReport};
use proto::request::{GroupStatus, Members};
use proto::universe::{Descriptor, Founding, NodeInfo, NodeState, UniverseMap};
use proto::{Ballot, GroupId, NodeId, Slot};
use truetime::{Interval, Timestamp};

/// 2026-01-01 00:00:00, give or take 50 µs, at every node.
pub fn now() -> Interval {
    Interval::around_ns(1_767_225_600_000_000_000, 50_000)
}

/// Three nodes in three zones; g0, g1 and g2 are led by n1, n2 and n3. n3 has two entries of g1
/// still to apply, and g2 sleeps.
pub fn healthy() -> Seen {
    let founding = Founding {
        cluster: "00c0ffee00c0ffee".into(),
        data_groups: 2,
        replicas: 3,
        retention_s: 3_600,
    };
    let nodes = (1..=3).map(|node| (NodeId(node), info(node))).collect();
    let groups = (0..3).map(|group| {
        let descriptor = Descriptor { group: GroupId(group), generation: 5, members: all() };
        (GroupId(group), descriptor)
    });
    let map = UniverseMap { version: now().earliest(), founding, nodes, groups: groups.collect() };
    let answers = (1..=3).map(|node| (NodeId(node), Ok(answer(node)))).collect();
    Seen { map, answers }
}

fn all() -> Members {
    Members { voters: (1..=3).map(NodeId).collect(), ..Members::default() }
}

pub fn info(node: u32) -> NodeInfo {
    NodeInfo {
        node: NodeId(node),
        instance: format!("i{node}"),
        address: format!("db{node}:7101"),
        zone: ["?", "a", "b", "c", "d"][node as usize].into(),
        state: NodeState::Active,
        replaced_by: None,
        host: "h".into(),
        clock: "local".into(),
    }
}

/// What a node says that has all three groups.
pub fn answer(node: u32) -> Answer {
    let peers = (1..=3)
        .filter(|peer| *peer != node)
        .map(|peer| (NodeId(peer), PeerReport { connected: true, ..PeerReport::default() }));
    let report = NodeReport {
        node: NodeId(node),
        program: "0.1.0".into(),
        up_ms: 300_000,
        clock: "local synchronized".into(),
        epsilon_us: Some(50),
        replicas: 3,
        leads: 1,
        disk_bytes: 12 << 20,
        disk_free_bytes: 100 << 30,
        peers: peers.collect(),
        ..NodeReport::default()
    };
    Answer { report, groups: (0..3).map(|group| status(group, node)).collect(), now: Some(now()) }
}

fn status(group: u32, node: u32) -> GroupStatus {
    let leader = NodeId(group + 1);
    let leads = leader == NodeId(node);
    let is_behind = group == 1 && node == 3;
    let last = [40, 42, 7][group as usize];
    let wrote = |ms: u64| now().latest().minus_micros(ms * 1_000);
    GroupStatus {
        group: GroupId(group),
        node: NodeId(node),
        leader: Some(leader),
        ballot: Ballot { round: 2, node: leader },
        // The lease of a group that sleeps is kept elsewhere: what it says of it is old.
        lease_end: leads.then_some(match group {
            2 => Timestamp::from_micros(1),
            _ => now().latest().plus_micros(4_000_000),
        }),
        last: Slot(last),
        chosen: Slot(if is_behind { 41 } else { last }),
        applied: Slot(if is_behind { 40 } else { last }),
        first: Slot(1),
        safe_time: if is_behind { wrote(250) } else { wrote(200) },
        prepared: u64::from(leads && group == 1),
        lock_holders: if leads && group == 1 { 2 } else { 0 },
        members: all(),
        joint: false,
        changing: false,
        repairing: false,
        generation: 5,
        asleep: group == 2,
        removed: false,
    }
}

/// A node stops answering.
pub fn lose(seen: &mut Seen, node: u32, why: &str) {
    seen.answers.insert(NodeId(node), Err(why.to_owned()));
    for answer in seen.answers.values_mut().flatten() {
        answer.report.peers.remove(&NodeId(node));
    }
}

/// A node's clock loses its bound.
pub fn without_bound(seen: &mut Seen, node: u32) {
    let answer = seen.answers.get_mut(&NodeId(node));
    let answer = answer.and_then(|answer| answer.as_mut().ok()).expect("it answers");
    answer.now = None;
    answer.report.epsilon_us = None;
    answer.report.clock = "the clock of local is broken".into();
}
