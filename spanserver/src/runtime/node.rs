//! One server: its shards, log writer, readers and engine.

use super::shard::{Inbox, Shard, ShardEvent};
use super::{INBOX_MAX, Outbound, REQUESTS_MAX, Responder, log_writer, reader};
use crate::server::{Message, Server};
use crate::storage::{Engine, StorageError};
use crate::{Event, Places, Settings};
use crossbeam::channel::{self, Sender};
use parking_lot::{Mutex, RwLock};
use proto::request::{GroupStatus, Reply, Request};
use proto::{Error, GroupId, NodeId};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::sync::oneshot;
use truetime::TrueTime;
use txn::server::RequestId;

/// What a node is told when it is started.
pub struct NodeConfig {
    /// Its name.
    pub node: NodeId,
    /// The groups it hosts a replica of.
    pub groups: Vec<GroupId>,
    /// Settings of the groups.
    pub settings: Settings,
    /// Where it keeps things.
    pub engine: Arc<dyn Engine>,
    /// Its clock.
    pub clock: TrueTime,
    /// Threads that step groups.
    pub shards: usize,
    /// Threads that run longer reads.
    pub readers: usize,
}

/// Counters of one node.
#[derive(Clone, Copy, Debug, Default)]
pub struct NodeStats {
    /// Disk syncs of the log.
    pub syncs: u64,
    /// Batches written, synced or not.
    pub batches: u64,
    /// Bytes on disk.
    pub disk_bytes: u64,
    /// Bytes of keys and values handed to the engine.
    pub bytes_logged: u64,
    /// Bytes the engine wrote to the disk: its log, its files, and compaction.
    pub bytes_written: u64,
}

/// What the threads of a node share.
pub(super) struct Shared {
    pub node: NodeId,
    pub clock: TrueTime,
    pub inboxes: Vec<Sender<ShardEvent>>,
    pub in_flight: AtomicUsize,
    next_request: AtomicU64,
    overrun: AtomicU64,
    /// To the other nodes; `None` until there are some.
    outbound: RwLock<Option<Arc<dyn Outbound>>>,
}

/// The nodes of one process, to each other.
struct Neighbours {
    from: NodeId,
    others: BTreeMap<NodeId, Weak<Shared>>,
}

impl Outbound for Neighbours {
    fn send(&self, to: NodeId, message: Message) {
        if let Some(peer) = self.others.get(&to).and_then(Weak::upgrade) {
            peer.deliver(self.from, message);
        }
    }
}

impl Shared {
    pub fn inbox(&self, group: GroupId) -> &Sender<ShardEvent> {
        &self.inboxes[group.0 as usize % self.inboxes.len()]
    }

    /// Sends to a node; a node that is gone is like a lost message.
    pub fn send(&self, to: NodeId, message: Message) {
        if to == self.node {
            self.event(message.group(), Event::Message { from: to, message });
        } else if let Some(outbound) = self.outbound.read().as_ref() {
            outbound.send(to, message);
        }
    }

    fn event(&self, group: GroupId, event: Event) {
        let _ = self.inbox(group).send(ShardEvent::Core(event)); // fails while the node stops
    }

    /// What another node says. A shard that cannot follow loses it, as a network would.
    pub fn deliver(&self, from: NodeId, message: Message) {
        let group = message.group();
        if self.inbox(group).len() >= INBOX_MAX {
            self.overrun.fetch_add(1, Ordering::Relaxed);
            return;
        }
        self.event(group, Event::Message { from, message });
    }

    pub fn request(&self, request: Request, responder: Responder) {
        if self.in_flight.fetch_add(1, Ordering::Relaxed) >= REQUESTS_MAX {
            self.in_flight.fetch_sub(1, Ordering::Relaxed);
            let message = format!("{} works on {REQUESTS_MAX} requests already", self.node);
            let _ = responder.send(Err(Error::ResourceExhausted(message)));
            return;
        }
        let id = RequestId(self.next_request.fetch_add(1, Ordering::Relaxed));
        let group = request.group;
        let event = ShardEvent::Request { id, request, responder };
        if self.inbox(group).send(event).is_err() {
            self.in_flight.fetch_sub(1, Ordering::Relaxed); // the node stops; the responder is gone
        }
    }
}

/// A running server. Dropping it stops its threads; what is acknowledged is on disk.
pub struct Node {
    shared: Arc<Shared>,
    /// `None` once stopped: then nobody holds the engine, and its folder is free.
    engine: Mutex<Option<Arc<dyn Engine>>>,
    threads: Mutex<Vec<JoinHandle<()>>>,
    log: Sender<log_writer::Job>,
    reads: Sender<reader::Job>,
}

impl Node {
    /// Recovers the groups from disk and starts the threads.
    ///
    /// # Errors
    /// I/O and corruption found while recovering.
    pub fn start(config: NodeConfig) -> Result<Node, StorageError> {
        let NodeConfig { node, groups, settings, engine, clock, shards, readers } = config;
        let shards = shards.max(1);
        let (inboxes, queues): (Vec<_>, Vec<_>) = (0..shards).map(|_| channel::unbounded()).unzip();
        let (log, log_jobs) = channel::unbounded();
        let (reads, read_jobs) = channel::unbounded();
        let shared = Arc::new(Shared {
            node,
            clock,
            inboxes,
            in_flight: AtomicUsize::new(0),
            next_request: AtomicU64::new(1),
            overrun: AtomicU64::new(0),
            outbound: RwLock::new(None),
        });
        let retention = Duration::from_millis(settings.txn.retention_ms);
        let mut threads =
            vec![log_writer::start(shared.clone(), engine.clone(), retention, log_jobs)];
        threads.extend(
            (0..readers.max(1))
                .map(|_| reader::start(shared.clone(), engine.clone(), read_jobs.clone())),
        );
        for (index, queue) in queues.into_iter().enumerate() {
            let mine = groups.iter().copied().filter(|g| g.0 as usize % shards == index);
            let shard = GroupId(u32::try_from(index).unwrap_or(u32::MAX));
            let engine = engine.clone();
            let server = Server::recover_shard(node, shard, mine, &settings, engine.as_ref())?;
            let inbox = Inbox { index, queue, log: log.clone(), reads: reads.clone() };
            threads.push(Shard::start(shared.clone(), engine, server, settings.clone(), inbox));
        }
        let (engine, threads) = (Mutex::new(Some(engine)), Mutex::new(threads));
        Ok(Node { shared, engine, threads, log, reads })
    }

    /// Its name.
    pub fn id(&self) -> NodeId {
        self.shared.node
    }

    /// Tells the nodes of one process about each other.
    pub fn connect(nodes: &[Arc<Node>]) {
        for node in nodes {
            let others = nodes.iter().filter(|other| other.id() != node.id());
            let others = others.map(|other| (other.id(), Arc::downgrade(&other.shared))).collect();
            node.connect_over(Arc::new(Neighbours { from: node.id(), others }));
        }
    }

    /// From now on, what this node says to others goes this way.
    pub fn connect_over(&self, outbound: Arc<dyn Outbound>) {
        *self.shared.outbound.write() = Some(outbound);
    }

    /// Where groups have replicas, for those that have none here.
    pub fn set_places(&self, places: &Arc<Places>) {
        for inbox in &self.shared.inboxes {
            let _ = inbox.send(ShardEvent::Places(places.clone())); // fails while the node stops
        }
    }

    /// What another node says, by which node: whoever calls this has made sure of that. It may be
    /// lost here, when there is too much of it.
    pub fn deliver(&self, from: NodeId, message: Message) {
        self.shared.deliver(from, message);
    }

    /// A request of a client. The answer comes to the receiver; none comes if the node stops.
    pub fn ask(&self, request: Request) -> oneshot::Receiver<Result<Reply, Error>> {
        let (responder, answer) = oneshot::channel();
        self.shared.request(request, responder);
        answer
    }

    /// Has each shard's server looked at, by its own thread between two steps; a shard that stops
    /// does not answer.
    pub async fn inspect<T, F>(&self, look: F) -> Vec<T>
    where
        T: Send + 'static,
        F: Fn(&Server) -> T + Clone + Send + 'static,
    {
        let ask = |inbox: &Sender<ShardEvent>| {
            let (sender, seen) = oneshot::channel();
            let look = look.clone();
            let inspect = Box::new(move |server: &Server| drop(sender.send(look(server))));
            let _ = inbox.send(ShardEvent::Inspect(inspect));
            seen
        };
        let asked: Vec<_> = self.shared.inboxes.iter().map(ask).collect();
        let mut all = Vec::new();
        for seen in asked {
            all.extend(seen.await.ok());
        }
        all
    }

    /// Every group at this node, at a glance, in order.
    pub async fn groups(&self) -> Vec<GroupStatus> {
        let look = |server: &Server| server.groups().map(|(_, g)| g.status()).collect::<Vec<_>>();
        let mut all = self.inspect(look).await.concat();
        all.sort_by_key(|status| status.group);
        all
    }

    /// One group at this node, at a glance; `None`: it has no replica of it, or stops.
    pub async fn group(&self, id: GroupId) -> Option<GroupStatus> {
        let (sender, seen) = oneshot::channel();
        let inspect = Box::new(move |server: &Server| {
            let group = server.groups().find(|(group, _)| *group == id);
            drop(sender.send(group.map(|(_, group)| group.status())));
        });
        let _ = self.shared.inbox(id).send(ShardEvent::Inspect(inspect));
        seen.await.ok().flatten()
    }

    /// Requests of clients that it works on.
    pub fn in_flight(&self) -> usize {
        self.shared.in_flight.load(Ordering::Relaxed)
    }

    /// Messages of other nodes that were lost here because a shard could not follow.
    pub fn overrun(&self) -> u64 {
        self.shared.overrun.load(Ordering::Relaxed)
    }

    /// Its clock.
    pub fn clock(&self) -> &TrueTime {
        &self.shared.clock
    }

    /// Counters; zero once stopped.
    pub fn stats(&self) -> NodeStats {
        let Some(engine) = self.engine.lock().clone() else { return NodeStats::default() };
        let stats = engine.stats();
        NodeStats {
            syncs: stats.syncs,
            batches: stats.batches,
            disk_bytes: stats.disk_bytes,
            bytes_logged: stats.bytes_logged,
            bytes_written: stats.bytes_written,
        }
    }

    /// Stops the threads and waits for them. What was not answered stays unanswered.
    pub fn stop(&self) {
        for inbox in &self.shared.inboxes {
            let _ = inbox.send(ShardEvent::Stop);
        }
        let _ = self.log.send(log_writer::Job::Stop);
        let mut threads = self.threads.lock();
        for _ in 0..threads.len() {
            let _ = self.reads.send(reader::Job::Stop);
        }
        for thread in threads.drain(..) {
            let _ = thread.join();
        }
        self.engine.lock().take();
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.stop();
    }
}
