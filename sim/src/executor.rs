//! Polls clients: their futures wait for replies and timers of the simulated world only.

use crate::faults::Damage;
use crate::workloads::Life;
use futures::FutureExt;
use futures::channel::oneshot;
use futures::future::BoxFuture;
use futures::task::{ArcWake, waker};
use parking_lot::Mutex;
use proto::request::{Reply, Request};
use proto::{Error, NodeId};
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use truetime::{Interval, TrueTime};
use txn::client::{ClientClock, Transport};

/// Where an answer goes.
pub type Answer = oneshot::Sender<Result<Reply, Error>>;

/// What clients ask of the world; the world takes it away after each poll.
#[derive(Default)]
pub struct Wishes {
    /// Requests on their way, with the place for the answer (`None`: nobody waits).
    pub calls: Vec<(NodeId, Request, Option<Answer>)>,
    /// Timers.
    pub sleeps: Vec<(Duration, oneshot::Sender<()>)>,
    /// Disks to be damaged, if the groups can bear it; the answer says whether it was done.
    pub damage: Vec<(NodeId, Damage, oneshot::Sender<bool>)>,
    /// Clients that died: that is no wish.
    pub deaths: u64,
}

/// The client's side of the world: transport and clock in one.
#[derive(Clone)]
pub struct ClientPort {
    pub(crate) wishes: Arc<Mutex<Wishes>>,
    nodes: Vec<NodeId>,
    clock: TrueTime,
    /// Shared by all clones: they are one process.
    pub(crate) life: Arc<Mutex<Life>>,
}

impl ClientPort {
    /// A port with its own clock.
    pub fn new(wishes: Arc<Mutex<Wishes>>, nodes: Vec<NodeId>, clock: TrueTime) -> ClientPort {
        ClientPort { wishes, nodes, clock, life: Arc::default() }
    }

    /// Damages a node's disk, if all groups can bear it now; whether it was done.
    pub async fn damage(&self, node: NodeId, what: Damage) -> bool {
        let (sender, done) = oneshot::channel();
        self.wishes.lock().damage.push((node, what, sender));
        done.await.unwrap_or(false)
    }
}

impl Transport for ClientPort {
    fn call(&self, node: NodeId, request: Request) -> BoxFuture<'static, Result<Reply, Error>> {
        let (sender, answer) = oneshot::channel();
        if self.life.lock().goes_on() {
            self.wishes.lock().calls.push((node, request, Some(sender)));
        }
        let life = self.life.clone();
        // A dropped sender is a lost message: wait for ever, the router's timer ends it.
        async move {
            match answer.await {
                Ok(answer) if life.lock().goes_on() => answer,
                Ok(_) | Err(_) => futures::future::pending().await,
            }
        }
        .boxed()
    }

    fn cast(&self, node: NodeId, request: Request) {
        if !self.life.lock().goes_on() {
            return;
        }
        self.wishes.lock().calls.push((node, request, None));
    }

    fn nodes(&self) -> Vec<NodeId> {
        self.nodes.clone()
    }
}

impl ClientClock for ClientPort {
    fn now(&self) -> Result<Interval, Error> {
        self.clock.now().map_err(|error| Error::ClockUnavailable { reason: error.to_string() })
    }

    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()> {
        let (sender, rung) = oneshot::channel();
        self.wishes.lock().sleeps.push((duration, sender));
        rung.map(|_| ()).boxed()
    }
}

struct Wake {
    task: usize,
    ready: Arc<Mutex<VecDeque<usize>>>,
}

impl ArcWake for Wake {
    fn wake_by_ref(arc_self: &Arc<Self>) {
        arc_self.ready.lock().push_back(arc_self.task);
    }
}

/// A set of tasks, polled in the order they were woken.
#[derive(Default)]
pub struct Executor {
    tasks: BTreeMap<usize, BoxFuture<'static, ()>>,
    ready: Arc<Mutex<VecDeque<usize>>>,
    next: usize,
}

impl Executor {
    /// Adds a task.
    pub fn spawn(&mut self, task: BoxFuture<'static, ()>) {
        self.tasks.insert(self.next, task);
        self.ready.lock().push_back(self.next);
        self.next += 1;
    }

    /// Polls until nobody is ready.
    pub fn run_ready(&mut self) {
        loop {
            let Some(id) = self.ready.lock().pop_front() else { return };
            let Some(task) = self.tasks.get_mut(&id) else { continue };
            let waker = waker(Arc::new(Wake { task: id, ready: self.ready.clone() }));
            if let Poll::Ready(()) = task.poll_unpin(&mut Context::from_waker(&waker)) {
                self.tasks.remove(&id);
            }
        }
    }

    /// Tasks that have not ended.
    pub fn unfinished(&self) -> usize {
        self.tasks.len()
    }
}
