//! The world: the queue, the nodes, what happens to them.

use crate::checkers::truetime_contains;
use crate::effects::in_order;
use crate::executor::{Answer, ClientPort, Executor, Wishes};
use crate::faults::Faults;
use crate::history::Violation;
use crate::network::Network;
use crate::node::{Action, SimNode};
use crate::options::Options;
use crate::strikes::Strikes;
use crate::tally::{Fault, Tally};
use crate::timekeeping::Master;
use crate::trace;
use crate::watch::Watch;
use crate::workloads::settling::Asked;
use futures::future::BoxFuture;
use parking_lot::Mutex;
use proto::plant::{Plant, planted};
use proto::request::{Body, Reply, ReplyBody};
use proto::{Error, GroupId, NodeId, TxnId};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use spanserver::runtime::execute;
use spanserver::storage::Memory;
use spanserver::{Event, Message, Server, Settings};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use truetime::providers::{Drift, Simulated};
use truetime::{ClockError, Interval, Timestamp, TrueTime};
use txn::server::RequestId;

/// When simulated time begins: late enough that clocks can be behind.
const START_NS: u64 = 1_000_000_000_000;

/// A run of some seconds takes some ten thousand events; one that takes more goes round in circles.
const EVENTS_MAX: u64 = 1_000_000;

/// Tablets are compared at every so many slots.
const CONTENTS_EVERY: u64 = 8;

/// See the [module](self).
pub struct World {
    absolute_ns: Arc<AtomicU64>,
    queue: BTreeMap<(u64, u64), Action>,
    sequence: u64,
    seed: u64,
    pub(crate) options: Options,
    pub(crate) settings: Settings,
    pub(crate) groups: Vec<GroupId>,
    pub(crate) nodes: BTreeMap<NodeId, SimNode>,
    pub(crate) masters: Vec<Master>,
    pub(crate) network: Network,
    pub(crate) disk: SmallRng,
    pub(crate) faults: Faults,
    clocks: SmallRng,
    executor: Executor,
    wishes: Arc<Mutex<Wishes>>,
    answers: BTreeMap<RequestId, Answer>,
    /// Commits that were asked for.
    commits: BTreeMap<RequestId, Commit>,
    pub(crate) handled: BTreeMap<TxnId, Handled>,
    /// Who was asked to coordinate.
    asked: Asked,
    /// Reads at a timestamp, of which nobody has said anything yet.
    snapshots: BTreeSet<RequestId>,
    next_request: u64,
    pub(crate) strikes: Strikes,
    pub(crate) watch: Watch,
    pub(crate) tally: Tally,
    /// After so many events the run is taken for one that goes round in circles.
    pub(crate) events_max: u64,
    /// Tablets are compared at every so many slots.
    pub(crate) contents_every: u64,
    trace_hash: u64,
    trace: bool,
}

/// A commit that was asked for.
#[derive(Clone, Copy)]
struct Commit {
    txn: TxnId,
    /// It writes, or is over several groups: who answers has a record of it.
    recorded: bool,
}

/// Where a commit was last asked for, in absolute time, which its receipt does not know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Handled {
    /// By which node.
    pub node: NodeId,
    /// When the request came there, in nanoseconds.
    pub arrived_ns: u64,
    /// When an answer left; `None`: not yet.
    pub left_ns: Option<u64>,
}

/// How far off a clock claims to be at most.
fn claimed_ns(epsilon_ns: u64) -> u64 {
    if planted(Plant::EpsilonZero) { 0 } else { epsilon_ns }
}

/// A stream of random numbers for one concern.
pub fn stream(seed: u64, concern: u64) -> SmallRng {
    SmallRng::seed_from_u64(seed ^ concern.wrapping_mul(0x9e37_79b9_7f4a_7c15))
}

impl World {
    /// A world of servers as the options have it, without faults as yet.
    pub fn new(seed: u64, options: Options, trace: bool) -> World {
        let absolute_ns = Arc::new(AtomicU64::new(START_NS));
        let mut settings = Settings {
            lease_ms: options.lease_ms,
            heartbeat_ms: options.heartbeat_ms(),
            election_jitter_ms: options.election_jitter_ms(),
            limits: options.limits,
            ..Settings::default()
        };
        settings.txn.txn_timeout_ms = options.txn_timeout_ms;
        settings.txn.early_release = options.early_release;
        let groups: Vec<GroupId> = (1..=options.groups).map(GroupId).collect();
        let founders: Vec<NodeId> = (1..=options.founders).map(NodeId).collect();
        let mut clocks = stream(seed, 2);
        let mut nodes = BTreeMap::new();
        for node in (1..=options.nodes).map(NodeId) {
            let epsilon_ns = options.epsilon_us * 1_000;
            let drift = Drift::honest(&mut clocks, epsilon_ns);
            let clock = Simulated::new(absolute_ns.clone(), drift, claimed_ns(epsilon_ns));
            let engine = Arc::new(Memory::default());
            if founders.contains(&node) {
                let founded = spanserver::found(engine.as_ref(), groups.clone(), &founders);
                founded.expect("memory writes");
            }
            nodes.insert(node, SimNode::new(engine, clock));
        }
        let mut world = World {
            absolute_ns,
            queue: BTreeMap::new(),
            sequence: 0,
            seed,
            options,
            settings,
            groups,
            nodes,
            masters: Vec::new(),
            network: Network::new(stream(seed, 3)),
            disk: stream(seed, 4),
            faults: Faults::new(stream(seed, 5), stream(seed, 6)),
            clocks,
            executor: Executor::default(),
            wishes: Arc::default(),
            answers: BTreeMap::new(),
            commits: BTreeMap::new(),
            handled: BTreeMap::new(),
            asked: Asked::default(),
            snapshots: BTreeSet::new(),
            next_request: 1,
            strikes: Strikes::default(),
            watch: Watch::default(),
            tally: Tally::default(),
            events_max: EVENTS_MAX,
            contents_every: CONTENTS_EVERY,
            trace_hash: 0xcbf2_9ce4_8422_2325,
            trace,
        };
        for node in world.node_ids() {
            world.schedule(0, Action::Restart { node });
        }
        world
    }

    /// Absolute time, shared with whoever records a history.
    pub fn absolute(&self) -> Arc<AtomicU64> {
        self.absolute_ns.clone()
    }

    /// Who was asked to coordinate which commit, shared with whoever settles them in the end.
    pub fn asked(&self) -> Asked {
        self.asked.clone()
    }

    /// A port for one client, with a clock of its own.
    pub fn client_port(&mut self) -> ClientPort {
        let epsilon_ns = self.options.epsilon_us * 1_000;
        let drift = Drift::honest(&mut self.clocks, epsilon_ns);
        let clock = Simulated::new(self.absolute_ns.clone(), drift, claimed_ns(epsilon_ns));
        self.open_port(self.node_ids(), TrueTime::new(clock))
    }

    pub(crate) fn open_port(&mut self, nodes: Vec<NodeId>, clock: TrueTime) -> ClientPort {
        ClientPort::new(self.wishes.clone(), nodes, clock)
    }

    /// Adds a client's task.
    pub fn spawn(&mut self, task: BoxFuture<'static, ()>) {
        self.executor.spawn(task);
    }

    /// Runs until all tasks have ended or `for_us` of simulated time has passed; whether they have.
    ///
    /// # Errors
    /// The first violation a checker sees, unless they are collected.
    pub fn run(&mut self, for_us: u64) -> Result<bool, Violation> {
        let until = self.now_ns() + for_us * 1_000;
        loop {
            self.poll_tasks();
            if self.executor.unfinished() == 0 {
                return Ok(true);
            }
            if !self.next(until)? {
                return Ok(false);
            }
        }
    }

    /// Lets so much simulated time pass, whether or not there are tasks.
    ///
    /// # Errors
    /// The first violation a checker sees, unless they are collected.
    pub fn run_for(&mut self, for_us: u64) -> Result<(), Violation> {
        let until = self.now_ns() + for_us * 1_000;
        loop {
            self.poll_tasks();
            if !self.next(until)? {
                return Ok(());
            }
        }
    }

    fn poll_tasks(&mut self) {
        self.executor.run_ready();
        self.grant_wishes();
    }

    /// What happens next, if that is before `until`, to which time moves on otherwise; whether
    /// anything did.
    fn next(&mut self, until: u64) -> Result<bool, Violation> {
        let due = self.queue.first_entry().filter(|entry| entry.key().0 <= until);
        let Some(((at, _), action)) = due.map(|entry| entry.remove_entry()) else {
            self.absolute_ns.store(until, Ordering::Relaxed);
            return Ok(false);
        };
        self.absolute_ns.store(at, Ordering::Relaxed);
        self.tally.events += 1;
        if self.tally.events > self.events_max {
            let what = format!("{} events and no end: a storm of messages", self.events_max);
            return Err(Violation::new("progress", "P5/P6", what));
        }
        self.act(action)?;
        Ok(true)
    }

    /// Since the beginning, in microseconds.
    pub fn elapsed_us(&self) -> u64 {
        (self.now_ns() - START_NS) / 1_000
    }

    /// Equal for equal runs.
    pub fn trace_hash(&self) -> u64 {
        self.trace_hash
    }

    /// What was done so far.
    pub fn tally(&self) -> Tally {
        let mut faults = self.faults.counts();
        faults.add(Fault::Lost, self.network.lost);
        faults.add(Fault::Duplicated, self.network.duplicated);
        Tally {
            simulated_us: self.elapsed_us(),
            elections: self.watch.elections,
            leader_changes: self.watch.leader_changes,
            faults,
            ..self.tally
        }
    }

    pub(crate) fn now_ns(&self) -> u64 {
        self.absolute_ns.load(Ordering::Relaxed)
    }

    pub(crate) fn schedule(&mut self, after_ns: u64, action: Action) {
        self.sequence += 1;
        self.queue.insert((self.now_ns() + after_ns, self.sequence), action);
    }

    /// One line of the trace, and part of its hash.
    pub(crate) fn note(&mut self, line: impl FnOnce() -> String) {
        let line = line();
        for byte in line.bytes().chain(self.now_ns().to_le_bytes()) {
            self.trace_hash =
                (self.trace_hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
        if self.trace {
            println!("{:>12.6} {line}", (self.now_ns() - START_NS) as f64 / 1e9);
        }
    }

    fn act(&mut self, action: Action) -> Result<(), Violation> {
        let process = action.process();
        if let Some(this) = process.and_then(|node| self.nodes.get_mut(&node))
            && this.stalled.is_some()
        {
            if let Action::DiskDone { life, batch, .. } = action
                && this.life == life
            {
                this.disk_done(batch); // the disk works on, the process hears of it later
            }
            if let Some(waiting) = &mut this.stalled {
                waiting.push(action);
            }
            return Ok(());
        }
        let Some(action) = self.strike_on_arrival(action) else { return Ok(()) };
        match action {
            Action::Deliver { to, from, message } if self.up(to) => {
                self.note(|| format!("{from} -> {to} {}", trace::message(&message)));
                self.step(to, vec![Event::Message { from, message }])
            }
            Action::Request { to, id, request } if self.up(to) => {
                let group = request.group;
                let what = trace::request(&request);
                self.note(|| format!("client -> {to} r{} {group} {what}", id.0));
                if let Some(Commit { txn, .. }) = self.commits.get(&id) {
                    let now_ns = self.now_ns();
                    let handled = Handled { node: to, arrived_ns: now_ns, left_ns: None };
                    self.handled.insert(*txn, handled);
                }
                self.step(to, vec![Event::Request { id, request }])
            }
            Action::DiskDone { node, life, batch } if self.alive(node, life) => {
                self.note(|| format!("{node} disk holds batch {batch}"));
                self.node(node).disk_done(batch);
                self.step(node, vec![Event::Persisted { batch }])
            }
            Action::Read { node, life, group, job } if self.alive(node, life) => {
                let engine = self.node(node).engine.clone();
                let found = execute(engine.as_ref(), group, &job).expect("memory reads");
                self.step(node, vec![Event::ReadDone { group, tag: job.tag, found }])
            }
            Action::Come { node, life, event } if self.alive(node, life) => {
                self.step(node, vec![event])
            }
            Action::Wake { node, life } if self.alive(node, life) => {
                if self.node(node).wake_ns <= self.now_ns() {
                    self.step(node, Vec::new())?;
                }
                Ok(())
            }
            Action::Resume { node, life, effects } if self.alive(node, life) => {
                self.note(|| format!("{node} goes on"));
                let waiting = self.node(node).stalled.take().unwrap_or_default();
                waiting.into_iter().for_each(|action| self.schedule(0, action));
                self.carry_out(node, effects)
            }
            Action::Deliver { .. }
            | Action::Request { .. }
            | Action::DiskDone { .. }
            | Action::Read { .. }
            | Action::Come { .. }
            | Action::Wake { .. }
            | Action::Resume { .. } => Ok(()),
            other => self.act_outside(other),
        }
    }

    /// What needs no process to run.
    fn act_outside(&mut self, action: Action) -> Result<(), Violation> {
        match action {
            Action::Reply { id, answer } => {
                let Some(sender) = self.answers.remove(&id) else { return Ok(()) };
                self.note(|| match &answer {
                    Ok(_) => format!("answer r{}", id.0),
                    Err(error) => format!("answer r{}: {error}", id.0),
                });
                if let Ok(ReplyBody::Committed(receipt)) = answer.as_ref().map(|reply| &reply.body)
                    && let Some(Commit { txn, recorded: true }) = self.commits.remove(&id)
                {
                    self.watch.durability.acknowledged(receipt.group, txn, receipt.timestamp);
                }
                let _ = sender.send(answer);
            }
            Action::Timer(sender) => {
                let _ = sender.send(());
            }
            Action::Restart { node } => self.restart(node)?,
            Action::Mend { from, to } if self.faults.injecting => self.network.mend(from, to),
            Action::Part { side, for_ns } => self.part(side, for_ns),
            Action::Join { partition } => self.network.join(partition),
            Action::ClockBack { node } => self.node(node).skew.set(|skew| skew.lost = false),
            Action::Fault(kind) => self.inject(kind),
            Action::Keep { node } => self.keep(node, None),
            Action::AskMaster { node, ask } => self.ask_master(node, ask),
            Action::HearMaster { node, ask, kind, content } => {
                self.keep(node, Some((ask, kind, content)));
            }
            _ => {}
        }
        Ok(())
    }

    pub(crate) fn node_ids(&self) -> Vec<NodeId> {
        self.nodes.keys().copied().collect()
    }

    pub(crate) fn servers(&self) -> impl Iterator<Item = (NodeId, &Server)> {
        self.nodes.iter().filter_map(|(node, this)| Some((*node, this.server.as_ref()?)))
    }

    pub(crate) fn replica(&self, node: NodeId, group: GroupId) -> Option<&paxos::Replica> {
        let server = self.nodes.get(&node)?.server.as_ref()?;
        server.groups().find(|(id, _)| *id == group).map(|(_, group)| group.replica())
    }

    pub(crate) fn up(&self, node: NodeId) -> bool {
        self.nodes[&node].server.is_some()
    }

    fn alive(&self, node: NodeId, life: u32) -> bool {
        self.up(node) && self.nodes[&node].life == life
    }

    pub(crate) fn node(&mut self, node: NodeId) -> &mut SimNode {
        self.nodes.get_mut(&node).expect("the nodes of a world are fixed")
    }

    /// What a checker says now.
    pub(crate) fn judge(&mut self, verdict: Result<(), Violation>) -> Result<(), Violation> {
        let now_ns = self.now_ns();
        self.watch.verdicts.take(now_ns, verdict)
    }

    /// A node's clock, as its process reads it.
    pub(crate) fn read_clock(
        &mut self,
        node: NodeId,
    ) -> Result<Result<Interval, ClockError>, Violation> {
        let reading = self.nodes[&node].clock.now();
        if let Ok(now) = &reading {
            self.judge(truetime_contains::check(self.now_ns(), *now))?;
        }
        Ok(reading)
    }

    /// Steps a server, looks at it, and carries out what it asks for.
    fn step(&mut self, node: NodeId, events: Vec<Event>) -> Result<(), Violation> {
        let now = match self.read_clock(node)? {
            Ok(now) => now,
            Err(error) => {
                self.refuse(node, events, &error);
                return Ok(());
            }
        };
        let now_ns = self.now_ns();
        let this = self.nodes.get_mut(&node).expect("the nodes of a world are fixed");
        let Some(server) = this.server.as_mut() else { return Ok(()) };
        let mut admitted = std::mem::take(&mut this.deferred);
        admitted.extend(events);
        if std::mem::take(&mut this.clock_was_wrong) {
            server.clock_mended();
        }
        let heard = admitted.iter().find_map(|event| match event {
            Event::Message { message: Message::Txn(message), .. } => Some(message.txn),
            _ => None,
        });
        let out = server.step(now, admitted);
        let sightings = self.watch.look(now_ns, now, node, server)?;
        for sighting in sightings {
            self.ambush(sighting);
        }
        self.schedule_wake(node, now, out.wake_after);
        let mut effects = in_order(out);
        match self.strike_after_step(node, heard, &mut effects) {
            true => self.carry_out(node, effects),
            false => Ok(()),
        }
    }

    fn schedule_wake(&mut self, node: NodeId, now: Interval, wake_after: Timestamp) {
        let wait_us = wake_after.next().since(now.earliest()).as_micros().min(1_000_000) as u64;
        self.wake_in(node, wait_us.max(1) * 1_000);
    }

    /// Steps a node after so much time, or before.
    pub(crate) fn wake_in(&mut self, node: NodeId, after_ns: u64) {
        let now_ns = self.now_ns();
        let at = now_ns + after_ns;
        let this = self.node(node);
        if this.wake_ns > at || this.wake_ns <= now_ns {
            this.wake_ns = at;
            let life = this.life;
            self.schedule(after_ns, Action::Wake { node, life });
        }
    }

    pub(crate) fn restart(&mut self, node: NodeId) -> Result<(), Violation> {
        if self.up(node) || self.faults.buried.contains(&node) {
            return Ok(());
        }
        self.rot(node);
        let engine = self.node(node).engine.clone();
        let life = u64::from(self.node(node).life);
        let seed = stream(self.seed, 1_000 + life * 64 + u64::from(node.0)).random();
        let settings = Settings { seed, ..self.settings.clone() };
        let server = Server::recover(node, self.groups.clone(), &settings, engine.as_ref())
            .map_err(|e| {
                Violation::new("durability", "P1", format!("{node} cannot restart: {e}"))
            })?;
        let now_ns = self.now_ns();
        self.watch.restarted(now_ns, node, &server)?;
        self.node(node).server = Some(server);
        self.note(|| format!("{node} starts"));
        self.compare_contents(node, 1)?;
        self.step(node, Vec::new())
    }

    /// Which commit a request asked for.
    pub(crate) fn commit_of(&self, id: RequestId) -> Option<TxnId> {
        self.commits.get(&id).map(|commit| commit.txn)
    }

    /// An answer sets out for a client.
    pub(crate) fn answered(&mut self, node: NodeId, id: RequestId, answer: &Result<Reply, Error>) {
        let now_ns = self.now_ns();
        if self.snapshots.remove(&id)
            && let Ok(Reply { ballot, .. }) = answer
        {
            self.tally.follower_reads += u64::from(ballot.node != node);
        }
        if let Some(handled) = self.commit_of(id).and_then(|txn| self.handled.get_mut(&txn)) {
            handled.left_ns = Some(now_ns);
        }
    }

    fn grant_wishes(&mut self) {
        loop {
            let wishes = std::mem::take(&mut *self.wishes.lock());
            let Wishes { calls, sleeps, damage, deaths } = wishes;
            self.faults.count_many(Fault::ClientDied, deaths);
            if calls.is_empty() && sleeps.is_empty() && damage.is_empty() {
                return;
            }
            for (duration, sender) in sleeps {
                let ns = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
                self.schedule(ns, Action::Timer(sender));
            }
            for (to, request, sender) in calls {
                let id = RequestId(self.next_request);
                self.next_request += 1;
                if let Body::Commit { txn, writes, participants, .. } = &request.body {
                    let recorded = !writes.is_empty() || !participants.is_empty();
                    self.commits.insert(id, Commit { txn: *txn, recorded });
                    self.strikes.commit(*txn, request.group, participants);
                    self.asked.lock().insert(*txn, request.group);
                }
                if let Body::Snapshot { .. } = &request.body {
                    self.snapshots.insert(id);
                }
                if let Some(sender) = sender {
                    self.answers.insert(id, sender);
                }
                for delay in self.network.carry(&self.options, None) {
                    let request = request.clone();
                    self.schedule(delay, Action::Request { to, id, request });
                }
            }
            for (node, what, sender) in damage {
                let _ = sender.send(self.damage(node, what));
            }
        }
    }
}
