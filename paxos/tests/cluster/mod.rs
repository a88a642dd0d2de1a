//! Replicas on simulated disks, with a pool of messages between them that a script or a random
//! schedule delivers, drops, repeats or holds.
//!
//! A step of a replica puts out writes, messages and wishes. Messages that wait for the disk leave
//! when it has answered, at once unless the disk is slow; a crash loses what is on its way to it.
//! What a replica says to itself never leaves the node. Values are applied as soon as they may be.
//! After every step the [checks] run.

#![allow(dead_code)] // each test binary uses its own part

pub mod checks;
pub mod disk;
pub mod model;
pub mod notation;
pub mod script;

use bytes::Bytes;
use checks::Checks;
use disk::{Disk, Op, Tablet};
use notation::START_US;
use paxos::{
    ChunkWanted, Config, Configuration, Entry, HardState, Limits, Message, Output, Replica,
    SnapshotId,
};
use proto::{Ballot, NodeId, Seat, Slot};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use truetime::{Interval, Timestamp};

/// A message under way.
#[derive(Clone, Debug)]
pub struct Letter {
    pub from: NodeId,
    pub seat: Seat,
    pub to: NodeId,
    pub message: Message,
}

/// What one step asked of the disk, and what waits for its answer.
#[derive(Debug, Default)]
struct Batch {
    ops: Vec<Op>,
    after: Vec<(NodeId, Message)>,
}

#[derive(Debug)]
pub struct Node {
    /// `None`: down.
    pub replica: Option<Replica>,
    pub disk: Disk,
    /// Answers only when told to.
    pub slow: bool,
    on_its_way: VecDeque<Batch>,
    /// The hard state as of the last write, on disk or on its way: changes are shown against it.
    hard: HardState,
    /// What is applied, on disk or on its way.
    pub tablet: Tablet,
    /// Snapshots being sent.
    snapshots: BTreeMap<SnapshotId, (paxos::Base, Bytes)>,
    /// How often it was started.
    starts: u64,
    /// Where its clock's interval lies around absolute time.
    pub offset_us: i64,
    /// The last timestamp that its caller has handed out while it led.
    pub s_max: Timestamp,
}

#[derive(Clone, Debug)]
pub struct Settings {
    pub lease_ms: u64,
    pub heartbeat_ms: u64,
    pub jitter_ms: u64,
    pub epsilon_us: u64,
    pub limits: Limits,
    /// Bytes of a snapshot in one part.
    pub part_bytes: usize,
    pub seed: u64,
    /// Whether anything is written down.
    pub trace: bool,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            lease_ms: 500,
            heartbeat_ms: 100,
            jitter_ms: 150,
            epsilon_us: 1_000,
            limits: Limits { chunk_us: 0, ..Limits::default() },
            part_bytes: 1 << 20,
            seed: 1,
            trace: true,
        }
    }
}

pub struct Cluster {
    /// Absolute time.
    pub us: u64,
    pub settings: Settings,
    pub nodes: BTreeMap<NodeId, Node>,
    pub pool: VecDeque<Letter>,
    /// Links that lose everything, one direction each.
    pub cut: BTreeSet<(NodeId, NodeId)>,
    pub checks: Checks,
    pub trace: Vec<String>,
}

/// What an observer sees of a replica, to tell what a step has changed.
#[derive(PartialEq)]
struct Seen {
    leading: Option<Ballot>,
    hint: Option<NodeId>,
    transferring: Option<NodeId>,
}

fn seen(replica: &Replica) -> Seen {
    Seen {
        leading: replica.leading(),
        hint: replica.leader_hint().filter(|_| replica.leading().is_none()),
        transferring: replica.transferring(),
    }
}

impl Cluster {
    /// A group that has just been founded, and `spare` nodes beside it.
    pub fn new(settings: Settings, founding: &Configuration, spare: &[NodeId]) -> Cluster {
        founding.check();
        let mut disks: BTreeMap<NodeId, Disk> = BTreeMap::new();
        for node in founding.members.keys() {
            disks.insert(*node, Disk::founder(founding));
        }
        for node in spare {
            disks.insert(*node, Disk::blank(Seat(0xa0 + u64::from(node.0))));
        }
        let node = |disk: Disk| Node {
            replica: None,
            slow: false,
            on_its_way: VecDeque::new(),
            hard: disk.hard,
            tablet: disk.tablet.clone(),
            snapshots: BTreeMap::new(),
            starts: 0,
            offset_us: 0,
            s_max: Timestamp::MIN,
            disk,
        };
        let nodes: BTreeMap<_, _> = disks.into_iter().map(|(id, disk)| (id, node(disk))).collect();
        let mut cluster = Cluster {
            us: START_US,
            settings,
            nodes,
            pool: VecDeque::new(),
            cut: BTreeSet::new(),
            checks: Checks::default(),
            trace: Vec::new(),
        };
        for node in cluster.ids() {
            cluster.start(node);
        }
        cluster
    }

    pub fn ids(&self) -> Vec<NodeId> {
        self.nodes.keys().copied().collect()
    }

    pub fn up(&self) -> Vec<NodeId> {
        self.ids().into_iter().filter(|id| self.nodes[id].replica.is_some()).collect()
    }

    pub fn replica(&self, node: NodeId) -> &Replica {
        self.nodes[&node].replica.as_ref().unwrap_or_else(|| panic!("{node} is down"))
    }

    pub fn now(&self, node: NodeId) -> Interval {
        let middle = self.us.saturating_add_signed(self.nodes[&node].offset_us);
        let epsilon = self.settings.epsilon_us;
        let bound = |us| Timestamp::from_micros(us);
        Interval::new(bound(middle - epsilon), bound(middle + epsilon))
    }

    pub fn say(&mut self, line: impl FnOnce() -> String) {
        if self.settings.trace {
            self.trace.push(line());
        }
    }

    fn node(&mut self, id: NodeId) -> &mut Node {
        self.nodes.get_mut(&id).unwrap_or_else(|| panic!("there is no {id}"))
    }

    /// Starts a node from its disk.
    pub fn start(&mut self, id: NodeId) {
        let Settings { lease_ms, heartbeat_ms, jitter_ms, limits, seed, .. } = self.settings;
        let node = self.node(id);
        node.starts += 1;
        let seed = seed.wrapping_mul(1_000_003) + u64::from(id.0) * 1_009 + node.starts;
        let config = Config {
            node: id,
            lease_ms,
            heartbeat_ms,
            election_jitter_ms: jitter_ms,
            seed,
            limits,
        };
        let replica = Replica::recover(config, node.disk.stored());
        // A repair that is found necessary is noted before anything is written again.
        node.disk.hard = replica.hard_state();
        node.hard = node.disk.hard;
        node.tablet = node.disk.tablet.clone();
        node.snapshots.clear();
        node.replica = Some(replica);
        self.run_checks(id);
    }

    /// Ends a node: what its disk has not answered for is lost.
    pub fn crash(&mut self, id: NodeId) {
        let node = self.node(id);
        node.replica = None;
        node.on_its_way.clear();
    }

    /// A new disk under a node that is down.
    pub fn wipe(&mut self, id: NodeId, seat: Seat) {
        let node = self.node(id);
        assert!(node.replica.is_none(), "{id} runs");
        node.disk = Disk::blank(seat);
    }

    /// Drives one replica, and carries out what it asks for.
    pub fn act<R>(
        &mut self,
        id: NodeId,
        act: impl FnOnce(&mut Replica, Interval, &mut Output) -> R,
    ) -> Option<R> {
        let now = self.now(id);
        let mut out = Output::default();
        let replica = self.node(id).replica.as_mut()?;
        let before = seen(replica);
        let seat = replica.seat();
        let result = act(replica, now, &mut out);
        let after = seen(replica);
        let wanted = std::mem::take(&mut out.read);
        self.tell(id, &before, &after, &out);
        self.put_out(id, seat, out);
        self.apply(id);
        for wanted in wanted {
            self.read(id, wanted);
        }
        if !self.nodes[&id].slow {
            self.disk_answers(id);
        }
        self.run_checks(id);
        Some(result)
    }

    fn tell(&mut self, id: NodeId, before: &Seen, after: &Seen, out: &Output) {
        if !self.settings.trace {
            return;
        }
        if let Some((_, Message::Canvass { ballot, .. })) = out.send.first() {
            self.say(|| format!("  {id} canvasses for {ballot}"));
        }
        if let Some((_, Message::Prepare { ballot, .. })) = out.send_after.first() {
            self.say(|| format!("  {id} campaigns with {ballot}"));
        }
        if before == after {
            return;
        }
        match (before.leading, after.leading) {
            (None, Some(ballot)) => self.say(|| format!("  {id} leads {ballot}")),
            (Some(ballot), None) => self.say(|| format!("  {id} leads {ballot} no more")),
            _ => {}
        }
        match after.hint {
            Some(leader) if before.hint != after.hint => {
                self.say(|| format!("  {id} follows {leader}"))
            }
            _ => {}
        }
        match (before.transferring, after.transferring) {
            (None, Some(to)) => self.say(|| format!("  {id} prepares to hand over to {to}")),
            (Some(to), None) if after.leading.is_some() => {
                self.say(|| format!("  {id} gives up handing over to {to}"));
            }
            _ => {}
        }
    }

    fn put_out(&mut self, id: NodeId, seat: Seat, out: Output) {
        let trace = self.settings.trace;
        let node = self.node(id);
        let mut changes = Vec::new();
        for write in &out.writes {
            if trace {
                changes.extend(notation::write(write, &mut node.hard));
            }
            match write {
                paxos::Write::Install { base, .. } => {
                    let position = base.position;
                    node.tablet.base = base.clone();
                    node.tablet.values.clear(); // the content comes from the disk, below
                    changes.extend(trace.then(|| format!("applied is {position}")));
                }
                paxos::Write::Rebirth(..) => {
                    node.tablet = Tablet::default();
                    node.hard = HardState::default();
                }
                _ => {}
            }
        }
        for id in &out.forget {
            node.snapshots.remove(id);
        }
        let ops = out.writes.into_iter().map(Op::Write).collect();
        node.on_its_way.push_back(Batch { ops, after: out.send_after });
        let slow = if node.slow { " (on its way)" } else { "" };
        if !changes.is_empty() {
            self.say(|| format!("  {id} writes{slow} {}", notation::writes(changes)));
        }
        for (to, message) in out.send {
            self.post(id, seat, to, message);
        }
    }

    fn post(&mut self, from: NodeId, seat: Seat, to: NodeId, message: Message) {
        self.pool.push_back(Letter { from, seat, to, message });
    }

    /// The disk of a node answers for everything that is on its way to it.
    pub fn disk_answers(&mut self, id: NodeId) {
        let mut after = Vec::new();
        let Some(seat) = self.nodes[&id].replica.as_ref().map(Replica::seat) else { return };
        let node = self.node(id);
        while let Some(batch) = node.on_its_way.pop_front() {
            for op in batch.ops {
                let installs = matches!(op, Op::Write(paxos::Write::Install { .. }));
                node.disk.take(op);
                if installs {
                    node.tablet = node.disk.tablet.clone();
                }
            }
            after.extend(batch.after);
        }
        let (own, others): (Vec<_>, Vec<_>) = after.into_iter().partition(|(to, _)| *to == id);
        for (to, message) in others {
            self.post(id, seat, to, message);
        }
        for (_, message) in own {
            self.act(id, |replica, now, out| replica.step(now, (id, seat), message, out));
        }
    }

    fn apply(&mut self, id: NodeId) {
        loop {
            let node = self.node(id);
            let Some(replica) = &mut node.replica else { return };
            let Some((slot, _)) = replica.next_to_apply() else { return };
            let entry = replica.entry(slot).expect("in the log").clone();
            node.tablet.apply(slot, &entry);
            let op = Op::Apply(slot, entry.clone());
            node.on_its_way.push_back(Batch { ops: vec![op], after: Vec::new() });
            self.say_applied(id, slot, &entry);
            let complaint = self.checks.applied(id, slot, &entry);
            self.complain(complaint);
            self.act(id, |replica, now, out| replica.applied(now, slot, out));
        }
    }

    /// One line for all that is applied at once.
    fn say_applied(&mut self, id: NodeId, slot: Slot, entry: &Entry) {
        let begin = format!("  {id} applies ");
        match self.trace.last_mut().filter(|line| line.starts_with(&begin)) {
            Some(line) => *line += &format!(", {slot} {}", notation::payload(&entry.payload)),
            None => self.say(|| format!("{begin}{slot} {}", notation::payload(&entry.payload))),
        }
    }

    fn read(&mut self, id: NodeId, wanted: ChunkWanted) {
        let part_bytes = self.settings.part_bytes;
        let node = self.node(id);
        let tablet = &node.tablet;
        let (base, content) = node.snapshots.entry(wanted.id).or_insert_with(|| {
            let content = if wanted.empty { Bytes::new() } else { tablet.content() };
            (tablet.base.clone(), content)
        });
        let first = (wanted.index as usize * part_bytes).min(content.len());
        let end = (first + part_bytes).min(content.len());
        let (data, last) = (content.slice(first..end), end == content.len());
        let base = base.clone();
        self.act(id, |replica, now, out| {
            let part = (wanted.id, wanted.index);
            replica.chunk_read(now, part, base, (data, last), out);
        });
    }

    /// Delivers one message, if the link and the receiver are there.
    pub fn deliver(&mut self, letter: Letter) {
        let Letter { from, seat, to, message } = letter;
        let lost = self.cut.contains(&(from, to)) || self.nodes[&to].replica.is_none();
        let end = if lost { ", lost" } else { "" };
        self.say(|| format!("{from} -> {to} {}{end}", notation::message(&message)));
        if !lost {
            self.act(to, |replica, now, out| replica.step(now, (from, seat), message, out));
            self.hand_over(to);
        }
    }

    /// The caller's part of a transfer: hands over as soon as the replica may, and every timestamp
    /// that was handed out has passed (L5).
    pub fn hand_over(&mut self, id: NodeId) {
        let passed = self.now(id).after(self.nodes[&id].s_max);
        let ready = self.nodes[&id].replica.as_ref().is_some_and(Replica::may_hand_over);
        if !ready || !passed {
            return;
        }
        self.say(|| format!("  {id} hands over"));
        let now = self.now(id);
        self.checks.lease_given_up(self.replica(id).leading(), now);
        self.act(id, |replica, now, out| replica.hand_over(now, out));
    }

    /// Delivers everything, and what comes of it, until nothing is under way.
    pub fn settle(&mut self) {
        let mut count = 0;
        while let Some(letter) = self.pool.pop_front() {
            self.deliver(letter);
            count += 1;
            assert!(count < 100_000, "the messages never end");
        }
    }

    pub fn tick(&mut self, id: NodeId) {
        self.act(id, |replica, now, out| replica.tick(now, out));
        self.hand_over(id);
    }

    /// One beat of a leader's server: as good as an accept taken by each member that is asleep under
    /// the same ballot, and by the leader itself.
    pub fn beat(&mut self, id: NodeId) {
        let Some(asleep) = self.replica(id).asleep() else { return };
        let sent = self.now(id).earliest();
        for member in asleep.peers.iter().copied().chain([id]) {
            let sleeper = self.nodes[&member].replica.as_ref().and_then(Replica::asleep);
            let agrees = sleeper.is_some_and(|sleeper| sleeper.ballot == asleep.ballot);
            if !agrees || self.cut.contains(&(id, member)) {
                self.say(|| format!("{id} -> {member} beat, lost"));
                continue;
            }
            self.say(|| format!("{id} -> {member} beat"));
            let until = self.now(member).latest().plus_micros(self.settings.lease_ms * 1_000);
            let node = self.node(member);
            node.disk.beaten_until = node.disk.beaten_until.max(until);
            self.act(member, |replica, _, _| replica.extend_vote(until));
            if !self.cut.contains(&(member, id)) {
                self.act(id, |replica, _, _| replica.vouched(member, sent));
            }
        }
    }

    /// Lets time pass, a millisecond at a step; `deliver`: messages arrive meanwhile.
    pub fn pass(&mut self, ms: u64, deliver: bool) {
        for _ in 0..ms {
            self.us += 1_000;
            let quiet = self.trace.len();
            for id in self.up() {
                self.tick(id);
            }
            if deliver {
                self.settle();
            }
            if self.trace.len() > quiet {
                let time = notation::time(Timestamp::from_micros(self.us));
                self.trace.insert(quiet, format!("at {time}"));
            }
        }
    }

    /// Who leads with a valid lease and an open ballot.
    pub fn leader(&self) -> Option<NodeId> {
        self.up().into_iter().find(|id| {
            let replica = self.replica(*id);
            let lease = replica.lease_end().is_some_and(|end| self.now(*id).before(end));
            lease && replica.opened()
        })
    }

    pub fn propose(&mut self, id: NodeId, value: &str) -> Option<Slot> {
        let value = Bytes::from(value.to_owned());
        self.act(id, |replica, now, out| {
            let slot = replica.propose(value, out);
            replica.flush(now, out);
            slot
        })?
    }

    fn run_checks(&mut self, id: NodeId) {
        let now = self.now(id);
        let node = &self.nodes[&id];
        let Some(replica) = &node.replica else { return };
        let complaints = self.checks.after_step(id, replica, now);
        for complaint in complaints {
            self.complain(Some(complaint));
        }
    }

    /// # Errors
    /// What was violated.
    pub fn checks_pass(&self) -> Result<(), String> {
        match &self.checks.violations[..] {
            [] => Ok(()),
            found => Err(found.join("; ")),
        }
    }

    fn complain(&mut self, complaint: Option<String>) {
        let Some(complaint) = complaint else { return };
        self.say(|| format!("  VIOLATED {complaint}"));
        self.checks.violations.push(complaint);
    }
}
