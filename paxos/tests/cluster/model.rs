//! A small world in which every schedule can be tried: three real replicas, a few ballots and
//! values, and messages that arrive in any order or not at all. No two replicas may ever take
//! different values for chosen in one slot (P2).
//!
//! What keeps the world finite:
//! - Round `r` takes place at `r · 1000 s`: all timed votes of earlier rounds have expired, and what
//!   is sent in a round always carries the same time. Leases are not what is checked here.
//! - A canvass always succeeds (it decides nothing), and each round is tried by one node only.
//! - Disks answer at once; a crash forgets what only memory knew. One node crashes, once.
//! - A message that was delivered is not delivered again.

use super::disk::{Disk, Op};
use super::notation;
use paxos::{Config, Configuration, Entry, Limits, Message, Output, Replica};
use proto::{NodeId, Seat, Slot};
use stateright::{Checker, HasDiscoveries, Model, Property};
use std::collections::hash_map::DefaultHasher;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;
use std::hash::{Hash, Hasher};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use truetime::{Interval, Timestamp};

const NODES: u32 = 3;
/// Before the first round.
const ROUND_US: u64 = 1_000_000_000;

pub struct World {
    /// Campaigns, each in a round of its own.
    pub rounds: u64,
    /// Who campaigns, round by round; empty: anybody.
    pub candidates: Vec<u32>,
    pub values: u64,
    pub crashes: u32,
    /// Entries in one message.
    pub message_slots: usize,
}

/// One node: what runs, what its disk holds, and the hash of all that matters of both.
#[derive(Clone)]
struct Node {
    replica: Replica,
    disk: Disk,
    hash: u64,
}

impl Node {
    fn new(id: NodeId, disk: Disk, message_slots: usize) -> Node {
        let config = Config {
            node: id,
            lease_ms: 500,
            heartbeat_ms: 100,
            election_jitter_ms: 0,
            seed: 0,
            limits: Limits { message_slots, ..Limits::default() },
        };
        let replica = Replica::recover(config, disk.stored());
        let mut node = Node { replica, disk, hash: 0 };
        node.rehash();
        node
    }

    /// What two states must share to be one. The random stream and timers do not matter here. The
    /// rest of a leader's state shows in what it has sent; its `Debug` form has it all.
    fn rehash(&mut self) {
        let mut hasher = DefaultHasher::new();
        let replica = &self.replica;
        replica.hard_state().hash(&mut hasher);
        replica.positions().hash(&mut hasher);
        let (first, last, ..) = replica.positions();
        for slot in first.0..=last.0 {
            replica.entry(Slot(slot)).hash(&mut hasher);
        }
        role(replica).hash(&mut hasher);
        self.hash = hasher.finish();
    }
}

/// The parts of a replica that its public face does not show: role, progress of peers, what is
/// held of the leader's log.
fn role(replica: &Replica) -> String {
    let all = format!("{replica:?}");
    // Timers and the random stream end the text.
    let end = all.find("election_at").unwrap_or(all.len());
    all[..end].to_owned()
}

#[derive(Clone)]
pub struct State {
    nodes: [Arc<Node>; NODES as usize],
    pending: BTreeMap<u64, Arc<(NodeId, NodeId, Message)>>,
    round: u64,
    values: u64,
    crashes: u32,
    /// What was ever taken for chosen, by anybody; two values in a slot: the end.
    chosen: BTreeMap<Slot, BTreeSet<Arc<str>>>,
}

impl Hash for State {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        for node in &self.nodes {
            node.hash.hash(hasher);
        }
        for letter in self.pending.keys() {
            letter.hash(hasher);
        }
        (self.round, self.values, self.crashes).hash(hasher);
        self.chosen.hash(hasher);
    }
}

impl PartialEq for State {
    fn eq(&self, other: &State) -> bool {
        let hash = |state: &State| {
            let mut hasher = DefaultHasher::new();
            state.hash(&mut hasher);
            hasher.finish()
        };
        hash(self) == hash(other)
    }
}

impl fmt::Debug for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "round {}, chosen {:?}", self.round, self.chosen)
    }
}

#[derive(Clone, PartialEq)]
pub enum Action {
    Campaign(NodeId),
    Deliver(Arc<(NodeId, NodeId, Message)>, u64),
    Propose(NodeId),
    Crash(NodeId),
}

impl fmt::Debug for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Action::Campaign(node) => write!(f, "{node} campaigns"),
            Action::Propose(node) => write!(f, "{node} proposes"),
            Action::Crash(node) => write!(f, "{node} crashes and restarts"),
            Action::Deliver(letter, _) => {
                let (from, to, message) = &**letter;
                write!(f, "{from} -> {to} {}", notation::message(message))
            }
        }
    }
}

fn at(round: u64) -> Interval {
    let middle = round * ROUND_US;
    let bound = Timestamp::from_micros;
    Interval::new(bound(middle - 1), bound(middle + 1))
}

fn index(node: NodeId) -> usize {
    node.0 as usize - 1
}

impl State {
    /// A replica that finds a rule broken stops: that is a disagreement as well.
    fn act(&mut self, id: NodeId, act: impl FnOnce(&mut Replica, Interval, &mut Output)) {
        let result = catch_unwind(AssertUnwindSafe(|| self.drive(id, act)));
        if let Err(panic) = result {
            let text = panic.downcast_ref::<String>().map_or("panic", |text| text);
            let both = ["what was chosen".into(), text.into()];
            self.chosen.insert(Slot::ZERO, BTreeSet::from(both));
        }
    }

    /// Drives one replica, carries out its writes, lets it hear itself, and applies.
    fn drive(&mut self, id: NodeId, act: impl FnOnce(&mut Replica, Interval, &mut Output)) {
        let mut node = (*self.nodes[index(id)]).clone();
        // A replica lives in the round that it has promised.
        let mut out = Output::default();
        let round = node.replica.promised().round.max(1);
        act(&mut node.replica, at(round), &mut out);
        let mut own = VecDeque::new();
        loop {
            for write in out.writes.drain(..) {
                node.disk.take(Op::Write(write));
            }
            for (to, message) in out.send.drain(..).chain(out.send_after.drain(..)) {
                match (to == id, &message) {
                    (true, _) => own.push_back(message),
                    (_, Message::Canvass { .. }) => {}
                    _ => self.post(id, to, message),
                }
            }
            let now = at(node.replica.promised().round.max(1));
            if let Some(message) = own.pop_front() {
                node.replica.step(now, (id, Seat::FOUNDER), message, &mut out);
                continue;
            }
            let Some((slot, _)) = node.replica.next_to_apply() else { break };
            let entry = node.replica.entry(slot).expect("in the log").clone();
            node.disk.take(Op::Apply(slot, entry));
            node.replica.applied(now, slot, &mut out);
        }
        let (first, _, chosen, _) = node.replica.positions();
        for slot in (first.0..=chosen.0).map(Slot) {
            let entry: &Entry = node.replica.entry(slot).expect("in the log");
            let shown = notation::entry(slot, entry);
            let values = self.chosen.entry(slot).or_default();
            if !values.contains(&*shown) {
                values.insert(shown.into());
            }
        }
        node.rehash();
        self.nodes[index(id)] = Arc::new(node);
    }

    fn post(&mut self, from: NodeId, to: NodeId, message: Message) {
        let letter = (from, to, message);
        let mut hasher = DefaultHasher::new();
        letter.hash(&mut hasher);
        self.pending.entry(hasher.finish()).or_insert_with(|| Arc::new(letter));
    }

    /// Forgets messages that could change nothing any more: those of a ballot below what their
    /// receiver has promised, and answers to somebody who does not ask under that ballot now.
    fn purge(&mut self) {
        let nodes = &self.nodes;
        self.pending.retain(|_, letter| {
            let (_, to, message) = &**letter;
            let replica = &nodes[index(*to)].replica;
            match message {
                Message::Prepare { ballot, .. } => *ballot > replica.promised(),
                Message::Accept { ballot, .. } => *ballot >= replica.promised(),
                Message::Promise { ballot, .. } => {
                    *ballot == replica.promised() && replica.leading().is_none()
                }
                Message::Accepted { ballot, .. } | Message::Gap { ballot, .. } => {
                    replica.leading() == Some(*ballot)
                }
                _ => false, // a reject only tells that the time has come to give up
            }
        });
    }

    fn disagrees(&self) -> bool {
        self.chosen.values().any(|values| values.len() > 1)
    }
}

impl Model for World {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        let founding = Configuration::founding((1..=NODES).map(NodeId));
        let node =
            |id| Arc::new(Node::new(NodeId(id), Disk::founder(&founding), self.message_slots));
        vec![State {
            nodes: [node(1), node(2), node(3)],
            pending: BTreeMap::new(),
            round: 0,
            values: 0,
            crashes: 0,
            chosen: BTreeMap::new(),
        }]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        if state.disagrees() {
            return;
        }
        let deliver = |(id, letter): (&u64, &Arc<_>)| Action::Deliver(Arc::clone(letter), *id);
        actions.extend(state.pending.iter().map(deliver));
        for id in (1..=NODES).map(NodeId) {
            let replica = &state.nodes[index(id)].replica;
            // The names of nodes mean nothing before the first round.
            let fit = match self.candidates.get(state.round as usize) {
                Some(candidate) => id.0 == *candidate,
                None => state.round > 0 || id == NodeId(1),
            };
            if state.round < self.rounds && fit {
                actions.push(Action::Campaign(id));
            }
            if state.values < self.values && replica.leading().is_some() {
                actions.push(Action::Propose(id));
            }
            if state.crashes < self.crashes && state.round > 0 {
                actions.push(Action::Crash(id));
            }
        }
    }

    fn next_state(&self, last: &State, action: Action) -> Option<State> {
        let mut state = last.clone();
        match action {
            Action::Deliver(letter, id) => {
                state.pending.remove(&id);
                let (from, to, message) = (*letter).clone();
                // A round's messages arrive in that round or later.
                let round = round(&message);
                state.act(to, |replica, now, out| {
                    let now = if round > replica.promised().round { at(round) } else { now };
                    replica.step(now, (from, Seat::FOUNDER), message, out);
                });
            }
            Action::Campaign(id) => {
                state.round += 1;
                let now = at(state.round);
                // Everyone says yes; the ballot of the round is asked for by saying so.
                let before = proto::Ballot { round: state.round - 1, node: NodeId(0) };
                state.act(id, |replica, _, out| {
                    let reject = Message::Reject { ballot: Default::default(), promised: before };
                    replica.step(now, (NodeId(0), Seat::FOUNDER), reject, out);
                    replica.tick(now, out); // a leader is forsaken, a follower starts its timer
                    let later = Interval::new(now.earliest(), now.latest().plus_micros(2));
                    replica.tick(shift(later), out);
                    let asked = out.send.iter().find_map(|(to, message)| match message {
                        Message::Canvass { ballot, .. } => Some((*to, *ballot)),
                        _ => None,
                    });
                    if let Some((to, ballot)) = asked {
                        let yes = Message::Canvassed { ballot, free: true, promised: before };
                        replica.step(now, (to, Seat::FOUNDER), yes, out);
                    }
                });
            }
            Action::Propose(id) => {
                state.values += 1;
                let value = format!("v{}", state.values);
                state.act(id, |replica, now, out| {
                    replica.propose(value.into(), out);
                    replica.flush(now, out);
                });
            }
            Action::Crash(id) => {
                state.crashes += 1;
                let disk = state.nodes[index(id)].disk.clone();
                state.nodes[index(id)] = Arc::new(Node::new(id, disk, self.message_slots));
            }
        }
        state.purge();
        Some(state)
    }

    fn properties(&self) -> Vec<Property<World>> {
        vec![
            Property::always("agreement", |_, state: &State| !state.disagrees()),
            Property::sometimes(
                "a value in slot 2 is chosen under the last ballot",
                |world: &World, state: &State| {
                    let last = format!("b{}.", world.rounds);
                    let values = state.chosen.get(&Slot(2));
                    values.is_some_and(|values| {
                        values.iter().any(|v| v.contains(&last) && v.contains('v'))
                    })
                },
            ),
        ]
    }
}

fn shift(interval: Interval) -> Interval {
    Interval::new(interval.earliest().plus_micros(3), interval.latest().plus_micros(3))
}

/// The round a message belongs to.
fn round(message: &Message) -> u64 {
    match message {
        Message::Prepare { ballot, .. }
        | Message::Promise { ballot, .. }
        | Message::Reject { ballot, .. }
        | Message::Accept { ballot, .. }
        | Message::Accepted { ballot, .. }
        | Message::Gap { ballot, .. } => ballot.round,
        other => unreachable!("{other:?} is not sent here"),
    }
}

/// Tries everything; says how much that was.
pub fn search(world: World) -> impl Checker<World> {
    let begun = std::time::Instant::now();
    let checker =
        world.checker().threads(2).finish_when(HasDiscoveries::AnyFailures).spawn_bfs().join();
    println!(
        "{} states, {} of them different, depth {}, {:?}",
        checker.state_count(),
        checker.unique_state_count(),
        checker.max_depth(),
        begun.elapsed()
    );
    checker
}
