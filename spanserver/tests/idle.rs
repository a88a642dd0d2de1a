//! Groups with nothing to do cost no ticks, and no messages beyond one heartbeat for each pair of
//! servers (P5); they serve at once when asked, and elect another leader when theirs is gone.

use proto::request::{Body, Request};
use proto::{GroupId, NodeId};
use spanserver::storage::{Durability, Engine, Memory};
use spanserver::{Event, Message, Output, Server, Settings, found};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use truetime::{Interval, Timestamp};
use txn::server::RequestId;

const GROUPS: u32 = 20;

struct Cluster {
    us: u64,
    settings: Settings,
    engines: BTreeMap<NodeId, Memory>,
    servers: BTreeMap<NodeId, Server>,
    /// What is on its way; it takes a millisecond.
    queue: VecDeque<(NodeId, NodeId, Message)>,
    wakes: BTreeMap<NodeId, Timestamp>,
    answers: Vec<bool>,
    /// Counts since the last look.
    beats: BTreeMap<(NodeId, NodeId), u64>,
    others: u64,
    steps: u64,
}

impl Cluster {
    fn new() -> Cluster {
        let voters: Vec<NodeId> = (1..=3).map(NodeId).collect();
        let settings = Settings { seed: 7, ..Settings::default() };
        let groups = || (1..=GROUPS).map(GroupId);
        let mut cluster = Cluster {
            us: 1_000_000_000,
            settings,
            engines: BTreeMap::new(),
            servers: BTreeMap::new(),
            queue: VecDeque::new(),
            wakes: BTreeMap::new(),
            answers: Vec::new(),
            beats: BTreeMap::new(),
            others: 0,
            steps: 0,
        };
        for node in &voters {
            let engine = Memory::new();
            found(&engine, groups(), &voters).expect("a blank disk");
            cluster.engines.insert(*node, engine);
            cluster.start(*node);
        }
        cluster
    }

    fn start(&mut self, node: NodeId) {
        let engine = &self.engines[&node];
        let groups = (1..=GROUPS).map(GroupId);
        let server = Server::recover(node, groups, &self.settings, engine).expect("it recovers");
        self.servers.insert(node, server);
        self.wakes.insert(node, Timestamp::MIN);
    }

    fn now(&self) -> Interval {
        let at = Timestamp::from_micros;
        Interval::new(at(self.us - 50), at(self.us + 50))
    }

    fn step(&mut self, node: NodeId, events: Vec<Event>) {
        let now = self.now();
        let Some(server) = self.servers.get_mut(&node) else { return };
        self.steps += 1;
        let Output { apply, persist, send, reply, wake_after, .. } = server.step(now, events);
        let engine = &self.engines[&node];
        engine.write(&apply, Durability::Buffered).expect("memory writes");
        self.wakes.insert(node, wake_after);
        self.answers.extend(reply.into_iter().map(|answer| answer.leave(now).1.is_ok()));
        self.queue.extend(send.into_iter().map(|(to, message)| (node, to, message)));
        if let Some(persist) = persist {
            engine.write(&persist.ops, Durability::Synced).expect("memory writes");
            self.step(node, vec![Event::Persisted { batch: persist.batch }]);
        }
    }

    fn pass(&mut self, ms: u64) {
        for _ in 0..ms {
            self.us += 1_000;
            for (from, to, message) in std::mem::take(&mut self.queue) {
                match message {
                    Message::Beat { .. } => *self.beats.entry((from, to)).or_default() += 1,
                    Message::BeatTaken { .. } => {}
                    _ => self.others += 1,
                }
                self.step(to, vec![Event::Message { from, message }]);
            }
            for node in self.servers.keys().copied().collect::<Vec<_>>() {
                if self.now().after(self.wakes[&node]) {
                    self.step(node, Vec::new());
                }
            }
        }
    }

    fn forget_counts(&mut self) {
        self.beats.clear();
        self.others = 0;
        self.steps = 0;
    }

    fn leader(&self, group: GroupId) -> Option<NodeId> {
        let leads = |server: &Server| {
            let (_, group) = server.groups().find(|(id, _)| *id == group)?;
            group.manager().serving()
        };
        self.servers.iter().find(|(_, server)| leads(server).is_some()).map(|(node, _)| *node)
    }

    fn asleep(&self) -> usize {
        let groups = self.servers.values().flat_map(|server| server.groups());
        groups.filter(|(_, group)| group.replica().asleep().is_some()).count()
    }

    fn resolve(&mut self, group: GroupId) -> bool {
        let node = self.leader(group).expect("somebody leads");
        let deadline = Timestamp::from_micros(self.us + 5_000_000);
        let body = Body::Resolve { txn: proto::TxnId { client: 1, seq: self.us } };
        let request = Request { group, ballot: None, deadline, body };
        self.answers.clear();
        self.step(node, vec![Event::Request { id: RequestId(self.us), request }]);
        self.pass(30);
        self.answers == [true]
    }
}

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
