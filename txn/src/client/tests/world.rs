//! A network, a clock and a scheduler: everything happens in the order of one queue.

use super::groups::{Answered, Groups};
use crate::client::{Client, ClientClock, ClientConfig, HashPlacement, Placement, Transport};
use futures::FutureExt;
use futures::channel::oneshot;
use futures::executor::{LocalPool, LocalSpawner};
use futures::future::BoxFuture;
use futures::task::LocalSpawnExt;
use parking_lot::Mutex;
use proto::request::{Body, Reply, Request};
use proto::{Error, GroupId, Key, NodeId};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::future::Future;
use std::ops::Range;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use truetime::{Interval, Timestamp};

/// Clocks are right to within this.
pub const EPSILON_US: u64 = 100;
/// When the world begins.
pub const DAWN_US: u64 = 10_000_000_000;

/// Where an answer goes; the first one counts.
pub type Answer = Arc<Mutex<Option<oneshot::Sender<Result<Reply, Error>>>>>;

/// What the network does to every message.
#[derive(Clone)]
pub struct Network {
    pub loss: f64,
    pub repeat: f64,
    pub delay_us: Range<u64>,
    /// What messages to and from a node take besides.
    pub far_us: BTreeMap<NodeId, u64>,
}

pub enum Event {
    Arrive(NodeId, Request, Option<Answer>),
    Reply(Answer, Result<Reply, Error>),
    Ring(oneshot::Sender<()>),
}

pub struct State {
    pub now_us: u64,
    pub network: Network,
    pub groups: Groups,
    /// Everything that has arrived, in order.
    pub arrived: Vec<(NodeId, GroupId, Body)>,
    queue: BTreeMap<(u64, u64), Event>,
    sequence: u64,
    rng: SmallRng,
    nodes: u32,
    local: Option<NodeId>,
}

/// See the [module](self); clones are the same world.
#[derive(Clone)]
pub struct World(pub Arc<Mutex<State>>);

impl State {
    fn schedule(&mut self, after_us: u64, event: Event) {
        self.sequence += 1;
        self.queue.insert((self.now_us + after_us, self.sequence), event);
    }

    /// How long a message is on its way, each time it arrives.
    fn journeys(&mut self, node: NodeId) -> Vec<u64> {
        let network = self.network.clone();
        let far_us = network.far_us.get(&node).copied().unwrap_or(0);
        let copies = match self.rng.random_bool(network.loss) {
            true => 0,
            false => 1 + usize::from(self.rng.random_bool(network.repeat)),
        };
        let delays = (0..copies).map(|_| far_us + self.rng.random_range(network.delay_us.clone()));
        delays.collect()
    }

    fn send(&mut self, node: NodeId, request: Request, answer: Option<Answer>) {
        for delay_us in self.journeys(node) {
            let event = Event::Arrive(node, request.clone(), answer.clone());
            self.schedule(delay_us, event);
        }
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::Arrive(node, request, answer) => {
                self.arrived.push((node, request.group, request.body.clone()));
                let answered = self.groups.handle(self.now_us, node, request, answer);
                for Answered { node, answer, reply, after_us } in answered {
                    for delay_us in self.journeys(node) {
                        let event = Event::Reply(answer.clone(), reply.clone());
                        self.schedule(after_us + delay_us, event);
                    }
                }
            }
            Event::Reply(answer, reply) => {
                if let Some(answer) = answer.lock().take() {
                    let _ = answer.send(reply);
                }
            }
            Event::Ring(bell) => {
                let _ = bell.send(());
            }
        }
    }
}

impl World {
    /// A world of so many nodes and groups, whose network takes a while and does nothing worse.
    pub fn new(seed: u64, nodes: u32, groups: u32) -> World {
        let network =
            Network { loss: 0.0, repeat: 0.0, delay_us: 100..200, far_us: BTreeMap::new() };
        World(Arc::new(Mutex::new(State {
            now_us: DAWN_US,
            network,
            groups: Groups::new(groups, nodes),
            arrived: Vec::new(),
            queue: BTreeMap::new(),
            sequence: 0,
            rng: SmallRng::seed_from_u64(seed),
            nodes,
            local: None,
        })))
    }

    pub fn client(&self, number: u64) -> Client {
        self.patient_client(number, 0)
    }

    /// One that waits longer for those who do not answer, up to so long.
    pub fn patient_client(&self, number: u64, attempt_ms_max: u64) -> Client {
        let config = ClientConfig {
            client: number,
            seed: number,
            attempt_ms: 50,
            attempt_ms_max,
            operation_ms: 2_000,
            keep_alive_ms: 300,
            ..ClientConfig::default()
        };
        let clock = Arc::new(self.clone());
        Client::new(clock.clone(), clock, Arc::new(self.placement()), config)
    }

    fn placement(&self) -> HashPlacement {
        let groups = self.0.lock().groups.count();
        HashPlacement { groups, root_prefix: Key::new(), directory: |key| Some(key) }
    }

    /// The `n`th key of a group.
    pub fn key(&self, group: u32, n: usize) -> Key {
        let placement = self.placement();
        let names = (0..).map(|name: u32| Key::from(format!("k{name:04}")));
        let mut mine = names.filter(|key| placement.group_of(key) == GroupId(group));
        mine.nth(n).expect("there are enough names")
    }

    pub fn now_us(&self) -> u64 {
        self.0.lock().now_us
    }

    pub fn prefer(&self, node: u32) {
        self.0.lock().local = Some(NodeId(node));
    }

    /// What a message takes from now on.
    pub fn slow_down(&self, delay: Duration) {
        let delay_us = u64::try_from(delay.as_micros()).expect("less than an age");
        self.0.lock().network.delay_us = delay_us..delay_us + 1;
    }

    pub fn sever(&self, loss: f64) {
        self.0.lock().network.loss = loss;
    }

    /// What has arrived since this was last asked.
    pub fn arrivals(&self) -> Vec<(NodeId, GroupId, Body)> {
        std::mem::take(&mut self.0.lock().arrived)
    }

    /// Runs a future to its end.
    pub fn run<T: 'static>(&self, future: impl Future<Output = T> + 'static) -> T {
        let done = Rc::new(RefCell::new(None));
        let place = done.clone();
        self.run_all(vec![async move { *place.borrow_mut() = Some(future.await) }.boxed_local()]);
        done.take().expect("it has ended")
    }

    /// Runs tasks side by side to their ends.
    pub fn run_all(&self, tasks: Vec<futures::future::LocalBoxFuture<'static, ()>>) {
        let mut pool = LocalPool::new();
        let open = Rc::new(Cell::new(tasks.len()));
        for task in tasks {
            let open = open.clone();
            spawn(&pool.spawner(), async move {
                task.await;
                open.set(open.get() - 1);
            });
        }
        loop {
            pool.run_until_stalled();
            if open.get() == 0 {
                return;
            }
            assert!(self.step(), "somebody waits for ever");
        }
    }

    /// Lets what is under way arrive, until this long from now.
    pub fn pass(&self, duration: Duration) {
        let until_us = self.now_us() + duration.as_micros() as u64;
        while self.0.lock().queue.keys().next().is_some_and(|(at_us, _)| *at_us <= until_us) {
            self.step();
        }
        self.0.lock().now_us = until_us;
    }

    /// Polls a future until this long from now, then drops it; what it gave, if it has ended.
    pub fn run_for<T: 'static>(
        &self,
        duration: Duration,
        future: impl Future<Output = T> + Send + 'static,
    ) -> Option<T> {
        let sleep = self.sleep(duration);
        self.run(async move {
            match futures::future::select(future.boxed(), sleep).await {
                futures::future::Either::Left((done, _)) => Some(done),
                futures::future::Either::Right(_) => None,
            }
        })
    }

    fn step(&self) -> bool {
        let mut state = self.0.lock();
        let Some(((at_us, _), event)) = state.queue.pop_first() else { return false };
        state.now_us = at_us.max(state.now_us);
        state.handle(event);
        true
    }
}

fn spawn(spawner: &LocalSpawner, task: impl Future<Output = ()> + 'static) {
    spawner.spawn_local(task).expect("the pool runs");
}

impl Transport for World {
    fn call(&self, node: NodeId, request: Request) -> BoxFuture<'static, Result<Reply, Error>> {
        let (sender, answer) = oneshot::channel();
        self.0.lock().send(node, request, Some(Arc::new(Mutex::new(Some(sender)))));
        async move {
            match answer.await {
                Ok(answer) => answer,
                Err(_) => futures::future::pending().await,
            }
        }
        .boxed()
    }

    fn cast(&self, node: NodeId, request: Request) {
        self.0.lock().send(node, request, None);
    }

    fn nodes(&self) -> Vec<NodeId> {
        (1..=self.0.lock().nodes).map(NodeId).collect()
    }

    fn local(&self) -> Option<NodeId> {
        self.0.lock().local
    }
}

impl ClientClock for World {
    fn now(&self) -> Result<Interval, Error> {
        let us = Timestamp::from_micros(self.now_us());
        Ok(Interval::new(us.minus_micros(EPSILON_US), us.plus_micros(EPSILON_US)))
    }

    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()> {
        let (bell, rung) = oneshot::channel();
        self.0.lock().schedule(duration.as_micros() as u64, Event::Ring(bell));
        rung.map(|_| ()).boxed()
    }
}
