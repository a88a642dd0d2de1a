//! Three servers in memory and a network that takes a millisecond, for tests that count messages.
#![allow(dead_code)] // each test uses a part of it

use proto::keys::Write;
use proto::request::{Age, Body, Found, ReadAt, ReadSet, Reply, ReplyBody, Request};
use proto::{Ballot, Error, GroupId, Key, NodeId, TxnId};
use spanserver::runtime::execute;
use spanserver::storage::{Durability, Engine, Memory};
use spanserver::{Event, Message, Output, Persist, Pins, Places, Server, Settings, found};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use truetime::{Interval, Timestamp};
use txn::server::{ReadJob, RequestId};

/// How many groups there are, each with a replica on every server.
pub const GROUPS: u32 = 20;

/// See the [module](self).
pub struct Cluster {
    /// Which groups each server is founded with.
    hosted: BTreeMap<NodeId, Vec<GroupId>>,
    /// Absolute time.
    pub us: u64,
    settings: Settings,
    pub engines: BTreeMap<NodeId, Memory>,
    pub servers: BTreeMap<NodeId, Server>,
    /// What is on its way; it takes a millisecond.
    queue: VecDeque<(NodeId, NodeId, Message)>,
    wakes: BTreeMap<NodeId, Timestamp>,
    /// What clients heard, by request.
    pub answers: BTreeMap<RequestId, Result<Reply, Error>>,
    requests: u64,
    /// Servers that hear nothing, and are not heard.
    pub cut_off: BTreeSet<NodeId>,
    /// A server whose disk and readers have stopped, and what they have been given.
    pub stuck: Option<NodeId>,
    unsynced: Vec<Persist>,
    unread: Vec<(GroupId, ReadJob)>,
    /// Counts since the last look.
    pub beats: BTreeMap<(NodeId, NodeId), u64>,
    /// Questions for the leader's word, and words.
    pub asked: u64,
    pub words: u64,
    pub others: u64,
    pub steps: u64,
}

impl Cluster {
    pub fn new() -> Cluster {
        Cluster::with(Settings { seed: 7, ..Settings::default() })
    }

    pub fn with(settings: Settings) -> Cluster {
        let all: Vec<GroupId> = (1..=GROUPS).map(GroupId).collect();
        let voters: Vec<NodeId> = (1..=3).map(NodeId).collect();
        Cluster::hosting(settings, voters.into_iter().map(|node| (node, all.clone())).collect())
    }

    /// Servers with a choice of groups each.
    pub fn hosting(settings: Settings, hosted: BTreeMap<NodeId, Vec<GroupId>>) -> Cluster {
        let mut cluster = Cluster {
            hosted: hosted.clone(),
            us: 1_000_000_000,
            settings,
            engines: BTreeMap::new(),
            servers: BTreeMap::new(),
            queue: VecDeque::new(),
            wakes: BTreeMap::new(),
            answers: BTreeMap::new(),
            requests: 0,
            cut_off: BTreeSet::new(),
            stuck: None,
            unsynced: Vec::new(),
            unread: Vec::new(),
            beats: BTreeMap::new(),
            asked: 0,
            words: 0,
            others: 0,
            steps: 0,
        };
        for (node, groups) in &hosted {
            let engine = Memory::new();
            for group in groups {
                let voters = hosted.iter().filter(|(_, groups)| groups.contains(group));
                let voters: Vec<NodeId> = voters.map(|(node, _)| *node).collect();
                found(&engine, [*group], &voters).expect("a blank disk");
            }
            cluster.engines.insert(*node, engine);
            cluster.start(*node);
        }
        cluster
    }

    pub fn start(&mut self, node: NodeId) {
        let engine = &self.engines[&node];
        let groups = self.hosted[&node].iter().copied();
        let mut server =
            Server::recover(node, groups, &self.settings, engine).expect("it recovers");
        server.set_places(self.places());
        self.servers.insert(node, server);
        self.wakes.insert(node, Timestamp::MIN);
    }

    fn places(&self) -> Arc<Places> {
        let mut places = Places::new();
        for (node, groups) in &self.hosted {
            groups.iter().for_each(|group| places.entry(*group).or_default().push(*node));
        }
        Arc::new(places)
    }

    pub fn now(&self) -> Interval {
        let at = Timestamp::from_micros;
        Interval::new(at(self.us - 50), at(self.us + 50))
    }

    pub fn step(&mut self, node: NodeId, events: Vec<Event>) {
        let now = self.now();
        let Some(server) = self.servers.get_mut(&node) else { return };
        self.steps += 1;
        let Output { apply, persist, send, reply, read, chunks, wake_after, .. } =
            server.step(now, events);
        let engine = &self.engines[&node];
        engine.write(&apply, Durability::Buffered).expect("memory writes");
        self.wakes.insert(node, wake_after);
        self.answers.extend(reply.into_iter().map(|answer| answer.leave(now)));
        self.queue.extend(send.into_iter().map(|(to, message)| (node, to, message)));
        for (group, wanted) in chunks {
            let engine = &self.engines[&node];
            let event = Pins::default().read(engine, group, wanted).expect("memory reads");
            self.step(node, vec![event]);
        }
        if self.stuck == Some(node) {
            self.unsynced.extend(persist);
            self.unread.extend(read);
            return;
        }
        self.sync(node, persist);
        self.run(node, read);
    }

    fn sync(&mut self, node: NodeId, persist: impl IntoIterator<Item = Persist>) {
        for Persist { batch, ops } in persist {
            self.engines[&node].write(&ops, Durability::Synced).expect("memory writes");
            self.step(node, vec![Event::Persisted { batch }]);
        }
    }

    fn run(&mut self, node: NodeId, reads: Vec<(GroupId, ReadJob)>) {
        for (group, job) in reads {
            let found = execute(&self.engines[&node], group, &job).expect("memory reads");
            self.step(node, vec![Event::ReadDone { group, tag: job.tag, found }]);
        }
    }

    /// Whether a part of a snapshot is on its way to this server.
    pub fn chunk_on_its_way(&self, node: NodeId) -> bool {
        self.queue.iter().any(|(_, to, message)| {
            let chunk = |m: &paxos::Message| matches!(m, paxos::Message::Chunk { .. });
            *to == node && matches!(message, Message::Paxos { message, .. } if chunk(message))
        })
    }

    /// The reads that are stuck run.
    pub fn run_reads(&mut self) {
        if let Some(node) = self.stuck {
            let reads = std::mem::take(&mut self.unread);
            self.run(node, reads);
        }
    }

    /// The disk goes on.
    pub fn go_on(&mut self) {
        if let Some(node) = self.stuck.take() {
            let unsynced = std::mem::take(&mut self.unsynced);
            self.sync(node, unsynced);
            let reads = std::mem::take(&mut self.unread);
            self.run(node, reads);
        }
    }

    pub fn pass(&mut self, ms: u64) {
        for _ in 0..ms {
            self.us += 1_000;
            for (from, to, message) in std::mem::take(&mut self.queue) {
                match message {
                    Message::Beat { .. } => *self.beats.entry((from, to)).or_default() += 1,
                    Message::BeatTaken { .. } => {}
                    Message::AskMinNext { .. } => self.asked += 1,
                    Message::MinNext { .. } => self.words += 1,
                    _ => self.others += 1,
                }
                if self.cut_off.contains(&from) || self.cut_off.contains(&to) {
                    continue;
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

    pub fn forget_counts(&mut self) {
        self.beats.clear();
        (self.asked, self.words) = (0, 0);
        self.others = 0;
        self.steps = 0;
    }

    pub fn leader(&self, group: GroupId) -> Option<NodeId> {
        let leads = |server: &Server| {
            let (_, group) = server.groups().find(|(id, _)| *id == group)?;
            group.manager().serving()
        };
        self.servers.iter().find(|(_, server)| leads(server).is_some()).map(|(node, _)| *node)
    }

    pub fn asleep(&self) -> usize {
        let groups = self.servers.values().flat_map(|server| server.groups());
        groups.filter(|(_, group)| group.replica().asleep().is_some()).count()
    }

    /// Asks a server something; the answer comes into `answers`.
    pub fn ask(&mut self, node: NodeId, group: GroupId, body: Body) -> RequestId {
        self.requests += 1;
        let id = RequestId(self.requests);
        let deadline = Timestamp::from_micros(self.us + 5_000_000);
        let request = Request { group, generation: 0, ballot: None, deadline, body };
        self.step(node, vec![Event::Request { id, request }]);
        id
    }

    /// Fences a transaction nobody has heard of: the leader has to log something. Within 30 ms.
    pub fn resolve(&mut self, group: GroupId) -> bool {
        let node = self.leader(group).expect("somebody leads");
        let body = Body::Resolve { txn: TxnId { client: 1, seq: self.us } };
        let id = self.ask(node, group, body);
        self.pass(30);
        matches!(self.answers.get(&id), Some(Ok(_)))
    }

    /// Commits a write of one key. The answer is there at once, or comes later.
    pub fn write(&mut self, group: GroupId, key: &str, value: &str) -> RequestId {
        let txn = TxnId { client: 2, seq: self.us };
        let value = Some(Key::copy_from_slice(value.as_bytes()));
        let write = Write { key: Key::copy_from_slice(key.as_bytes()), value };
        let age = Age { start: self.now().latest(), first: txn };
        let body = Body::Commit {
            txn,
            age,
            holds_locks: false,
            writes: vec![write],
            participants: Vec::new(),
            before: None,
        };
        self.ask_leader(group, body)
    }

    /// Asks a group's leader under its ballot; the answer comes into `answers`.
    pub fn ask_leader(&mut self, group: GroupId, body: Body) -> RequestId {
        let node = self.leader(group).expect("somebody leads");
        let ballot = self.ballot(node, group);
        self.requests += 1;
        let id = RequestId(self.requests);
        let deadline = Timestamp::from_micros(self.us + 5_000_000);
        let request = Request { group, generation: 0, ballot: Some(ballot), deadline, body };
        self.step(node, vec![Event::Request { id, request }]);
        id
    }

    fn ballot(&self, node: NodeId, group: GroupId) -> Ballot {
        let mut groups = self.servers[&node].groups();
        let group = groups.find(|(id, _)| *id == group).expect("every server has every group");
        group.1.replica().promised()
    }

    /// The timestamp of a commit that was answered.
    pub fn committed(&self, id: RequestId) -> Timestamp {
        match self.answers.get(&id) {
            Some(Ok(Reply { body: ReplyBody::Committed(receipt), .. })) => receipt.timestamp,
            other => panic!("no commit: {other:?}"),
        }
    }

    /// Asks a server for one key at a timestamp.
    pub fn read(&mut self, node: NodeId, group: GroupId, key: &str, at: ReadAt) -> RequestId {
        let what = ReadSet::Keys(vec![Key::copy_from_slice(key.as_bytes())]);
        self.ask(node, group, Body::Snapshot { at, what })
    }

    /// What such a read was answered: when, and the value.
    pub fn found(&self, id: RequestId) -> Option<(Timestamp, Option<String>)> {
        match self.answers.get(&id)? {
            Ok(Reply {
                body: ReplyBody::Snapshot { at, found: Found::Values(values) }, ..
            }) => {
                let text = |value: &Key| String::from_utf8_lossy(value).into_owned();
                Some((*at, values[0].as_ref().map(|(_, value)| text(value))))
            }
            other => panic!("no values: {other:?}"),
        }
    }

    /// A server that does not lead the group, and one that does.
    pub fn follower_and_leader(&self, group: GroupId) -> (NodeId, NodeId) {
        let leader = self.leader(group).expect("somebody leads");
        let follower = self.servers.keys().find(|node| **node != leader);
        (*follower.expect("there are three"), leader)
    }
}
