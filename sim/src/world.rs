//! The world: the queue, the nodes, what happens to them.

use crate::checkers::agreement::Agreement;
use crate::checkers::lease_disjoint::Leases;
use crate::checkers::{receipt, truetime_contains, visibility};
use crate::executor::{Answer, ClientPort, Executor, Wishes};
use crate::history::Violation;
use crate::network::Network;
use crate::options::Options;
use futures::channel::oneshot;
use futures::future::BoxFuture;
use parking_lot::Mutex;
use proto::request::{Reply, ReplyBody, Request};
use proto::{Error, GroupId, NodeId, Slot};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use spanserver::runtime::execute;
use spanserver::storage::{Durability, Engine, Memory, WriteOp};
use spanserver::{Event, Message, Output, Server, Settings};
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use truetime::providers::{Drift, Simulated};
use truetime::{Clock, Interval, Timestamp};
use txn::server::{ReadJob, RequestId};

/// When simulated time begins: late enough that clocks can be behind.
const START_NS: u64 = 1_000_000_000_000;

/// A run of some seconds takes a few thousand events; one that takes more goes round in circles.
const EVENTS_MAX: u64 = 1_000_000;

/// What can happen.
enum Action {
    Deliver { to: NodeId, from: NodeId, message: Message },
    Request { to: NodeId, id: RequestId, request: Request },
    Reply { id: RequestId, answer: Result<Reply, Error> },
    DiskDone { node: NodeId, life: u32, batch: u64 },
    Read { node: NodeId, life: u32, group: GroupId, job: ReadJob },
    Wake { node: NodeId, life: u32 },
    Timer(oneshot::Sender<()>),
    Crash { node: NodeId },
    PowerCut,
    Restart { node: NodeId },
    Mend { from: NodeId, to: NodeId },
    Fault,
}

struct SimNode {
    engine: Arc<Memory>,
    clock: Simulated,
    /// `None`: down.
    server: Option<Server>,
    /// Counts restarts, so that what belonged to an earlier life comes to nothing.
    life: u32,
    /// Batches on their way to the disk, oldest first, and when the disk is free again.
    writing: VecDeque<(u64, Vec<WriteOp>)>,
    disk_free_ns: u64,
    wake_ns: u64,
    /// The last slot of each group whose value was compared.
    compared: BTreeMap<GroupId, Slot>,
}

/// How often each fault was injected.
#[derive(Clone, Copy, Debug, Default)]
pub struct FaultCount {
    /// Single nodes crashed.
    pub crashes: u64,
    /// All nodes crashed at once.
    pub power_cuts: u64,
    /// Links cut in one direction.
    pub cuts: u64,
    /// Messages lost.
    pub lost: u64,
    /// Messages delivered twice.
    pub duplicated: u64,
}

/// See the [module](self).
pub struct World {
    absolute_ns: Arc<AtomicU64>,
    queue: BTreeMap<(u64, u64), Action>,
    sequence: u64,
    options: Options,
    settings: Settings,
    groups: Vec<GroupId>,
    nodes: BTreeMap<NodeId, SimNode>,
    network: Network,
    disk: SmallRng,
    faults: SmallRng,
    clocks: SmallRng,
    executor: Executor,
    wishes: Arc<Mutex<Wishes>>,
    answers: BTreeMap<RequestId, Answer>,
    next_request: u64,
    leases: Leases,
    agreement: Agreement,
    injecting: bool,
    counts: FaultCount,
    trace_hash: u64,
    events: u64,
    trace: bool,
}

/// A stream of random numbers for one concern.
pub fn stream(seed: u64, concern: u64) -> SmallRng {
    SmallRng::seed_from_u64(seed ^ concern.wrapping_mul(0x9e37_79b9_7f4a_7c15))
}

impl World {
    /// A world of three servers that host these groups.
    pub fn new(seed: u64, options: Options, groups: u32, trace: bool) -> World {
        let absolute_ns = Arc::new(AtomicU64::new(START_NS));
        let voters: Vec<NodeId> = (1..=3).map(NodeId).collect();
        let mut settings = Settings { seed, ..Settings::new(voters.clone()) };
        settings.txn.txn_timeout_ms = options.txn_timeout_ms;
        let mut clocks = stream(seed, 2);
        let mut nodes = BTreeMap::new();
        for node in voters {
            let epsilon_ns = options.epsilon_us * 1_000;
            let drift = Drift::honest(&mut clocks, epsilon_ns);
            let clock = Simulated::new(absolute_ns.clone(), drift, epsilon_ns);
            nodes.insert(
                node,
                SimNode {
                    engine: Arc::new(Memory::default()),
                    clock,
                    server: None,
                    life: 0,
                    writing: VecDeque::new(),
                    disk_free_ns: 0,
                    wake_ns: u64::MAX,
                    compared: BTreeMap::new(),
                },
            );
        }
        let mut world = World {
            absolute_ns,
            queue: BTreeMap::new(),
            sequence: 0,
            options,
            settings,
            groups: (1..=groups).map(GroupId).collect(),
            nodes,
            network: Network::new(stream(seed, 3)),
            disk: stream(seed, 4),
            faults: stream(seed, 5),
            clocks,
            executor: Executor::default(),
            wishes: Arc::default(),
            answers: BTreeMap::new(),
            next_request: 1,
            leases: Leases::default(),
            agreement: Agreement::default(),
            injecting: true,
            counts: FaultCount::default(),
            trace_hash: 0xcbf2_9ce4_8422_2325,
            events: 0,
            trace,
        };
        for node in world.settings.voters.clone() {
            world.schedule(0, Action::Restart { node });
        }
        world.schedule_fault();
        world
    }

    /// Absolute time, shared with whoever records a history.
    pub fn absolute(&self) -> Arc<AtomicU64> {
        self.absolute_ns.clone()
    }

    /// A port for one client, with a clock of its own.
    pub fn client_port(&mut self) -> ClientPort {
        let epsilon_ns = self.options.epsilon_us * 1_000;
        let drift = Drift::honest(&mut self.clocks, epsilon_ns);
        let clock = Simulated::new(self.absolute_ns.clone(), drift, epsilon_ns);
        ClientPort::new(self.wishes.clone(), self.settings.voters.clone(), clock)
    }

    /// Adds a client's task.
    pub fn spawn(&mut self, task: BoxFuture<'static, ()>) {
        self.executor.spawn(task);
    }

    /// Runs until all tasks have ended or `for_us` of simulated time has passed; whether they have.
    ///
    /// # Errors
    /// The first violation a checker sees.
    pub fn run(&mut self, for_us: u64) -> Result<bool, Violation> {
        let until = self.now_ns() + for_us * 1_000;
        loop {
            self.executor.run_ready();
            self.grant_wishes();
            if self.executor.unfinished() == 0 {
                return Ok(true);
            }
            let Some(((at, _), _)) = self.queue.first_key_value() else { return Ok(false) };
            if *at > until {
                return Ok(false);
            }
            let Some(((at, _), action)) = self.queue.pop_first() else { return Ok(false) };
            self.absolute_ns.store(at, Ordering::Relaxed);
            self.events += 1;
            if self.events > EVENTS_MAX {
                let what = format!("{EVENTS_MAX} events and no end: a storm of messages");
                return Err(Violation::new("progress", "P5/P6", what));
            }
            self.act(action)?;
        }
    }

    /// Ends all faults: links are mended, crashed nodes come back.
    pub fn heal(&mut self) {
        self.injecting = false;
        self.network.heal();
        self.note(|| "heal".into());
    }

    /// Since the beginning, in microseconds.
    pub fn elapsed_us(&self) -> u64 {
        (self.now_ns() - START_NS) / 1_000
    }

    /// Equal for equal runs.
    pub fn trace_hash(&self) -> u64 {
        self.trace_hash
    }

    /// Events so far.
    pub fn events(&self) -> u64 {
        self.events
    }

    /// Faults so far.
    pub fn faults(&self) -> FaultCount {
        FaultCount { lost: self.network.lost, duplicated: self.network.duplicated, ..self.counts }
    }

    fn now_ns(&self) -> u64 {
        self.absolute_ns.load(Ordering::Relaxed)
    }

    fn schedule(&mut self, after_ns: u64, action: Action) {
        self.sequence += 1;
        self.queue.insert((self.now_ns() + after_ns, self.sequence), action);
    }

    /// One line of the trace, and part of its hash.
    fn note(&mut self, line: impl FnOnce() -> String) {
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
        match action {
            Action::Deliver { to, from, message } => {
                if self.up(to) {
                    self.note(|| format!("{from} -> {to} {}", brief(&message)));
                    self.step(to, vec![Event::Message { from, message }])?;
                }
            }
            Action::Request { to, id, request } => {
                if self.up(to) {
                    self.note(|| {
                        format!("client -> {to} r{} {} {}", id.0, request.group, ask(&request))
                    });
                    self.step(to, vec![Event::Request { id, request }])?;
                }
            }
            Action::Reply { id, answer } => {
                if let Some(sender) = self.answers.remove(&id) {
                    self.note(|| match &answer {
                        Ok(_) => format!("answer r{}", id.0),
                        Err(error) => format!("answer r{}: {error}", id.0),
                    });
                    let _ = sender.send(answer);
                }
            }
            Action::DiskDone { node, life, batch } => {
                if self.alive(node, life) {
                    self.note(|| format!("{node} disk holds batch {batch}"));
                    self.disk_done(node, batch);
                    self.step(node, vec![Event::Persisted { batch }])?;
                }
            }
            Action::Read { node, life, group, job } => {
                if self.alive(node, life) {
                    let engine = self.nodes[&node].engine.clone();
                    let result = execute(engine.as_ref(), group, &job).expect("memory reads");
                    let ReadJob { id, txn, ballot, .. } = job;
                    let event = Event::ReadDone { group, id, txn, ballot, result };
                    self.step(node, vec![event])?;
                }
            }
            Action::Wake { node, life } => {
                let due = self.nodes[&node].wake_ns <= self.now_ns();
                if self.alive(node, life) && due {
                    self.step(node, Vec::new())?;
                }
            }
            Action::Timer(sender) => {
                let _ = sender.send(());
            }
            Action::Crash { node } => self.crash(node),
            Action::PowerCut => {
                for node in self.settings.voters.clone() {
                    self.crash(node);
                }
            }
            Action::Restart { node } => self.restart(node)?,
            Action::Mend { from, to } => self.network.mend(from, to),
            Action::Fault => self.inject(),
        }
        Ok(())
    }

    fn up(&self, node: NodeId) -> bool {
        self.nodes[&node].server.is_some()
    }

    fn alive(&self, node: NodeId, life: u32) -> bool {
        self.up(node) && self.nodes[&node].life == life
    }

    fn node(&mut self, node: NodeId) -> &mut SimNode {
        self.nodes.get_mut(&node).expect("the nodes of a world are fixed")
    }

    fn read_clock(&self, node: NodeId) -> Result<Interval, Violation> {
        let reading = self.nodes[&node].clock.now().expect("simulated clocks have a bound");
        truetime_contains::check(self.now_ns(), reading.interval)?;
        Ok(reading.interval)
    }

    /// Steps a server and carries out what it asks for.
    fn step(&mut self, node: NodeId, events: Vec<Event>) -> Result<(), Violation> {
        let now = self.read_clock(node)?;
        let Some(server) = self.node(node).server.as_mut() else { return Ok(()) };
        let out = server.step(now, events);
        self.carry_out(node, now, out)?;
        self.check_groups(node, now)
    }

    fn carry_out(&mut self, node: NodeId, now: Interval, out: Output) -> Result<(), Violation> {
        let now_ns = self.now_ns();
        let life = self.nodes[&node].life;
        visibility::check(now_ns, node, &out.apply)?;
        if !out.apply.is_empty() {
            let engine = &self.nodes[&node].engine;
            engine.write(&out.apply, Durability::Buffered).expect("memory writes");
        }
        if let Some(persist) = out.persist {
            let sync_ns = self.disk.random_range(50_000..=self.options.sync_us * 1_000);
            let this = self.node(node);
            let done = this.disk_free_ns.max(now_ns) + sync_ns;
            this.disk_free_ns = done;
            this.writing.push_back((persist.batch, persist.ops));
            let batch = persist.batch;
            self.schedule(done - now_ns, Action::DiskDone { node, life, batch });
        }
        for (to, message) in out.send {
            for delay in self.network.carry(&self.options, Some((node, to))) {
                let message = message.clone();
                self.schedule(delay, Action::Deliver { to, from: node, message });
            }
        }
        for (group, job) in out.read {
            let delay = self.disk.random_range(5_000..200_000);
            self.schedule(delay, Action::Read { node, life, group, job });
        }
        for (id, answer) in out.reply {
            if let Ok(Reply { body: ReplyBody::Committed(given), .. }) = &answer {
                receipt::check(given)?;
            }
            for delay in self.network.carry(&self.options, None) {
                self.schedule(delay, Action::Reply { id, answer: answer.clone() });
            }
        }
        self.schedule_wake(node, now, out.wake_after);
        Ok(())
    }

    fn schedule_wake(&mut self, node: NodeId, now: Interval, wake_after: Timestamp) {
        let wait_us = wake_after.next().since(now.earliest()).as_micros().min(1_000_000) as u64;
        let at = self.now_ns() + wait_us.max(1) * 1_000;
        let this = self.node(node);
        if this.wake_ns > at || this.wake_ns <= self.absolute_ns.load(Ordering::Relaxed) {
            let this = self.node(node);
            this.wake_ns = at;
            let life = this.life;
            self.schedule(wait_us.max(1) * 1_000, Action::Wake { node, life });
        }
    }

    /// The checkers that look at a server after every step.
    fn check_groups(&mut self, node: NodeId, now: Interval) -> Result<(), Violation> {
        let now_ns = self.now_ns();
        let Some(this) = self.nodes.get_mut(&node) else { return Ok(()) };
        let Some(server) = &this.server else { return Ok(()) };
        for (id, group) in server.groups() {
            let replica = group.replica();
            if let (Some(ballot), Some(end)) = (replica.leading(), replica.lease_end()) {
                self.leases.check(now_ns, now, id, (ballot, end))?;
            }
            let (first, _, _, applied) = replica.positions();
            let compared = this.compared.entry(id).or_default();
            let mut slot = compared.next().max(first);
            while slot <= applied {
                if let Some(entry) = replica.entry(slot) {
                    self.agreement.check(node, id, slot, &entry.payload)?;
                }
                slot = slot.next();
            }
            *compared = applied;
        }
        Ok(())
    }

    fn disk_done(&mut self, node: NodeId, batch: u64) {
        let this = self.node(node);
        while this.writing.front().is_some_and(|(b, _)| *b <= batch) {
            let Some((_, ops)) = this.writing.pop_front() else { break };
            this.engine.write(&ops, Durability::Synced).expect("memory writes");
        }
    }

    /// A crash: of what was on its way to the disk, some arrived; of what was not synced, the
    /// first part survives.
    fn crash(&mut self, node: NodeId) {
        if !self.up(node) {
            return;
        }
        let arrived = self.disk.random_range(0..=self.nodes[&node].writing.len());
        let reached: Vec<_> = self.node(node).writing.drain(..).take(arrived).collect();
        let engine = self.nodes[&node].engine.clone();
        for (_, ops) in reached {
            engine.write(&ops, Durability::Buffered).expect("memory writes");
        }
        let keep = self.disk.random_range(0..=engine.unsynced());
        engine.crash(keep);
        let this = self.node(node);
        this.server = None;
        this.life += 1;
        this.disk_free_ns = 0;
        this.wake_ns = u64::MAX;
        self.note(|| format!("{node} crashes, {arrived} batches arrived, {keep} unsynced stay"));
        let down_us = self.faults.random_range(1_000..self.options.outage_us);
        self.schedule(down_us * 1_000, Action::Restart { node });
    }

    fn restart(&mut self, node: NodeId) -> Result<(), Violation> {
        if self.up(node) {
            return Ok(());
        }
        let engine = self.nodes[&node].engine.clone();
        let groups = self.groups.clone();
        let server =
            Server::recover(node, groups, &self.settings, engine.as_ref()).map_err(|e| {
                Violation::new("durability", "P1", format!("{node} cannot restart: {e}"))
            })?;
        let this = self.node(node);
        this.server = Some(server);
        this.compared.clear();
        self.note(|| format!("{node} starts"));
        self.step(node, Vec::new())
    }

    fn schedule_fault(&mut self) {
        let means = [self.options.crash_every_us, self.options.cut_every_us];
        let soonest = means.into_iter().filter(|mean| *mean > 0).min();
        if let Some(mean) = soonest.filter(|_| self.injecting) {
            let after_us = self.faults.random_range(mean / 4..=mean * 7 / 4);
            self.schedule(after_us * 1_000, Action::Fault);
        }
    }

    fn inject(&mut self) {
        if !self.injecting {
            return;
        }
        let voters = self.settings.voters.clone();
        let one = voters[self.faults.random_range(0..voters.len())];
        let can_crash = self.options.crash_every_us > 0;
        let cuts = self.options.cut_every_us > 0 && (!can_crash || self.faults.random_bool(0.5));
        if cuts {
            self.cut_links(one);
        } else if self.options.power_cuts && self.faults.random_bool(0.3) {
            self.counts.power_cuts += 1;
            self.schedule(0, Action::PowerCut);
        } else {
            self.counts.crashes += 1;
            self.schedule(0, Action::Crash { node: one });
        }
        self.schedule_fault();
    }

    /// Cuts one link of a node, all that lead to it, or all that lead away.
    fn cut_links(&mut self, one: NodeId) {
        let others: Vec<NodeId> =
            self.settings.voters.iter().copied().filter(|node| *node != one).collect();
        let picked = others[self.faults.random_range(0..others.len())];
        let links: Vec<(NodeId, NodeId)> = match self.faults.random_range(0..4) {
            0 => vec![(one, picked)],
            1 => others.iter().map(|other| (one, *other)).collect(),
            2 => others.iter().map(|other| (*other, one)).collect(),
            _ => others.iter().flat_map(|other| [(one, *other), (*other, one)]).collect(),
        };
        let for_us = self.faults.random_range(50_000..self.options.outage_us);
        for (from, to) in links {
            self.counts.cuts += 1;
            self.network.cut(from, to);
            self.note(|| format!("cut {from} -> {to}"));
            self.schedule(for_us * 1_000, Action::Mend { from, to });
        }
    }

    /// Whether no transaction holds locks or is prepared anywhere, and every group is led.
    ///
    /// # Errors
    /// Says where something is left.
    pub fn check_quiet(&self) -> Result<(), Violation> {
        let servers = || self.nodes.values().filter_map(|node| node.server.as_ref());
        for id in &self.groups {
            let groups = || servers().flat_map(|s| s.groups()).filter(|(g, _)| g == id);
            let Some((_, led)) = groups().find(|(_, g)| g.manager().serving().is_some()) else {
                return Err(Violation::new("progress", "P8", format!("nobody leads {id}")));
            };
            let left = led.manager().replicated().prepared.len() + led.manager().lock_holders();
            if left > 0 {
                let what = format!("{id}: {left} transactions are left prepared or holding locks");
                return Err(Violation::new("locks", "X4/X10", what));
            }
        }
        Ok(())
    }

    fn grant_wishes(&mut self) {
        loop {
            let Wishes { calls, sleeps } = std::mem::take(&mut *self.wishes.lock());
            if calls.is_empty() && sleeps.is_empty() {
                return;
            }
            for (duration, sender) in sleeps {
                let ns = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
                self.schedule(ns, Action::Timer(sender));
            }
            for (to, request, sender) in calls {
                let id = RequestId(self.next_request);
                self.next_request += 1;
                if let Some(sender) = sender {
                    self.answers.insert(id, sender);
                }
                for delay in self.network.carry(&self.options, None) {
                    let request = request.clone();
                    self.schedule(delay, Action::Request { to, id, request });
                }
            }
        }
    }
}

/// A message on one line of a trace.
fn brief(message: &Message) -> String {
    use paxos::Message as M;
    match message {
        Message::Txn(m) => format!("{} {:?} from {} to {}", m.txn, m.body, m.from, m.to),
        Message::Paxos { group, message } => match message {
            M::Accept { ballot, first, payloads, chosen, .. } => {
                format!("{group} accept {ballot} {first}+{} chosen {chosen}", payloads.len())
            }
            M::Promise { ballot, accepted, first, entries, .. } => {
                format!("{group} promise {ballot} has {accepted} {first}+{}", entries.len())
            }
            M::Prepare { ballot, chosen, .. } => {
                format!("{group} prepare {ballot} chosen {chosen}")
            }
            M::Accepted { ballot, upto, .. } => format!("{group} accepted {ballot} {upto}"),
            other => format!("{group} {other:?}"),
        },
    }
}

fn ask(request: &Request) -> String {
    use proto::request::Body as B;
    match &request.body {
        B::Read { txn, mode, .. } => format!("read {txn} {mode:?}"),
        B::Snapshot { at, .. } => format!("snapshot {at}"),
        B::Prepare { txn, coordinator, .. } => format!("prepare {txn} for {coordinator}"),
        B::Commit { txn, participants, .. } => format!("commit {txn} with {participants:?}"),
        other => format!("{other:?}"),
    }
}
