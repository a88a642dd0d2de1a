//! Replicas driven by hand: each test names the rule it holds.

use bytes::Bytes;
use paxos::{Config, HardState, Message, Output, Replica, Write};
use proto::{Ballot, NodeId, Slot};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use truetime::{Interval, Timestamp};

const LEASE_MS: u64 = 500;

fn now(us: u64) -> Interval {
    Interval::new(Timestamp::from_micros(us - 50), Timestamp::from_micros(us + 50))
}

fn config(node: u32, voters: u32) -> Config {
    Config {
        node: NodeId(node),
        voters: (1..=voters).map(NodeId).collect(),
        lease_ms: LEASE_MS,
        heartbeat_ms: 100,
        election_jitter_ms: 150,
        seed: u64::from(node),
    }
}

/// Three replicas; messages arrive at once unless a node is down, disks answer unless silent.
struct Cluster {
    us: u64,
    replicas: BTreeMap<NodeId, Replica>,
    down: BTreeSet<NodeId>,
    /// Disks that do not answer; what waits for them.
    silent: BTreeMap<NodeId, Vec<(NodeId, Message)>>,
    queue: VecDeque<(NodeId, NodeId, Message)>,
}

impl Cluster {
    fn new() -> Cluster {
        let fresh = |node| {
            let replica =
                Replica::recover(config(node, 3), HardState::default(), Vec::new(), Slot::ZERO);
            (NodeId(node), replica)
        };
        Cluster {
            us: 1_000_000_000,
            replicas: (1..=3).map(fresh).collect(),
            down: BTreeSet::new(),
            silent: BTreeMap::new(),
            queue: VecDeque::new(),
        }
    }

    fn put_out(&mut self, node: NodeId, out: Output) {
        self.queue.extend(out.send.into_iter().map(|(to, message)| (node, to, message)));
        match self.silent.get_mut(&node) {
            Some(waiting) => waiting.extend(out.send_after),
            None => {
                let after = out.send_after.into_iter();
                self.queue.extend(after.map(|(to, message)| (node, to, message)));
            }
        }
    }

    fn deliver(&mut self) {
        while let Some((from, to, message)) = self.queue.pop_front() {
            if self.down.contains(&from) || self.down.contains(&to) {
                continue;
            }
            let mut out = Output::default();
            let at = now(self.us);
            self.replicas.get_mut(&to).unwrap().step(at, from, message, &mut out);
            self.put_out(to, out);
        }
        for replica in self.replicas.values_mut() {
            while let Some((slot, _)) = replica.next_to_apply() {
                replica.applied(slot);
            }
        }
    }

    /// Lets time pass, a millisecond at a step.
    fn pass(&mut self, ms: u64) {
        for _ in 0..ms {
            self.us += 1_000;
            for node in self.replicas.keys().copied().collect::<Vec<_>>() {
                if self.down.contains(&node) {
                    continue;
                }
                let mut out = Output::default();
                let at = now(self.us);
                self.replicas.get_mut(&node).unwrap().tick(at, &mut out);
                self.put_out(node, out);
            }
            self.deliver();
        }
    }

    /// Waits, in simulated time, for a leader with a valid lease among those that are up.
    fn leader(&mut self) -> NodeId {
        for _ in 0..10_000 {
            let at = now(self.us);
            let leads = |(node, replica): (&NodeId, &Replica)| {
                let lease = replica.lease_end().is_some_and(|end| at.before(end));
                (lease && replica.opened() && !self.down.contains(node)).then_some(*node)
            };
            if let Some(leader) = self.replicas.iter().find_map(leads) {
                return leader;
            }
            self.pass(1);
        }
        panic!("nobody leads");
    }

    fn propose(&mut self, leader: NodeId, value: &'static [u8]) -> Slot {
        let mut out = Output::default();
        let at = now(self.us);
        let replica = self.replicas.get_mut(&leader).unwrap();
        let slot = replica.propose(Bytes::from_static(value), &mut out).expect("it leads");
        replica.flush(at, &mut out);
        self.put_out(leader, out);
        slot
    }

    fn chosen(&self, node: NodeId) -> Slot {
        self.replicas[&node].positions().2
    }

    fn value(&self, node: NodeId, slot: Slot) -> &[u8] {
        &self.replicas[&node].entry(slot).expect("in the log").payload
    }
}

#[test]
fn a_value_is_chosen_and_everyone_learns_it() {
    let mut c = Cluster::new();
    let leader = c.leader();
    let slot = c.propose(leader, b"x");
    c.deliver();
    c.pass(200);
    for node in (1..=3).map(NodeId) {
        assert!(c.chosen(node) >= slot, "{node} knows");
    }
}

#[test]
fn p4_the_leader_counts_its_own_copy_only_after_its_disk() {
    let mut c = Cluster::new();
    let leader = c.leader();
    let peer = (1..=3).map(NodeId).find(|node| *node != leader).unwrap();
    c.down.insert(peer);
    c.silent.insert(leader, Vec::new());
    let slot = c.propose(leader, b"x");
    c.deliver();
    assert!(c.chosen(leader) < slot, "one disk of three has answered");
    let waiting = c.silent.remove(&leader).unwrap();
    c.queue.extend(waiting.into_iter().map(|(to, message)| (leader, to, message)));
    c.deliver();
    assert!(c.chosen(leader) >= slot, "two of three have");
}

#[test]
fn p3_what_may_be_chosen_survives_its_leader() {
    let mut c = Cluster::new();
    let leader = c.leader();
    let slot = c.propose(leader, b"survivor");
    // The accepts arrive; the leader dies before it hears.
    let accepts: Vec<_> = c.queue.drain(..).collect();
    c.down.insert(leader);
    for (_, to, message) in accepts {
        if to != leader && matches!(message, Message::Accept { .. }) {
            let mut out = Output::default();
            let at = now(c.us);
            c.replicas.get_mut(&to).unwrap().step(at, leader, message, &mut out);
        }
    }
    let next = c.leader();
    assert_ne!(next, leader);
    assert_eq!(c.value(next, slot), b"survivor");
    assert!(c.chosen(next) >= slot);
}

#[test]
fn l3_nobody_leads_before_the_old_lease_is_over() {
    let mut c = Cluster::new();
    let leader = c.leader();
    c.pass(50);
    let end = c.replicas[&leader].lease_end().unwrap();
    c.down.insert(leader);
    let next = c.leader();
    assert_ne!(next, leader);
    assert!(c.replicas[&next].lease_start().unwrap() > end, "L3");
}

#[test]
fn l1_a_restarted_voter_honours_what_it_may_have_granted() {
    let mut c = Cluster::new();
    let leader = c.leader();
    let voter = (1..=3).map(NodeId).find(|node| *node != leader).unwrap();
    let mut hard = HardState::default();
    let mut out = Output::default();
    let accept = Message::Accept {
        ballot: c.replicas[&leader].leading().unwrap(),
        first: Slot(2),
        payloads: Vec::new(),
        chosen: Slot(1),
        opening: Slot(1),
        truncate: Slot::ZERO,
        sent: Timestamp::from_micros(c.us + 400_000),
    };
    let at = now(c.us + 400_000);
    c.replicas.get_mut(&voter).unwrap().step(at, leader, accept, &mut out);
    for write in &out.writes {
        if let Write::HardState(state) = write {
            hard = *state;
        }
    }
    assert!(hard.vote_until >= Timestamp::from_micros(c.us + 400_000 + LEASE_MS * 1_000), "L1");
    let mut restarted = Replica::recover(config(voter.0, 3), hard, Vec::new(), Slot::ZERO);
    let free = |replica: &mut Replica, us: u64| {
        let mut out = Output::default();
        let ballot = Ballot { round: 99, node: NodeId(3) };
        replica.step(now(us), NodeId(3), Message::Canvass { ballot }, &mut out);
        matches!(out.send[..], [(_, Message::Canvassed { free: true, .. })])
    };
    assert!(!free(&mut restarted, hard.vote_until.micros()));
    assert!(free(&mut restarted, hard.vote_until.micros() + 51));
}

#[test]
fn p3_a_voter_takes_a_recovered_log_whole_or_not_at_all() {
    let mut replica = Replica::recover(config(1, 3), HardState::default(), Vec::new(), Slot::ZERO);
    let accept = |payloads: Vec<&'static [u8]>| Message::Accept {
        ballot: Ballot { round: 7, node: NodeId(2) },
        first: Slot(1),
        payloads: payloads.into_iter().map(Bytes::from_static).collect(),
        chosen: Slot::ZERO,
        opening: Slot(3),
        truncate: Slot::ZERO,
        sent: Timestamp::from_micros(1_000_000),
    };
    let mut upto = |message: Message| {
        let mut out = Output::default();
        replica.step(now(1_000_000), NodeId(2), message, &mut out);
        let accepted = out.send_after.iter().find_map(|(_, message)| match message {
            Message::Accepted { upto, .. } => Some(*upto),
            _ => None,
        });
        accepted.expect("it answers")
    };
    assert_eq!(upto(accept(vec![b"a", b"b"])), Slot::ZERO, "the opening no-op is missing");
    assert_eq!(upto(accept(vec![b"a", b"b", b""])), Slot(3));
}
