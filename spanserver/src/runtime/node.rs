//! One server: its shards, log writer, readers and engine.

use super::shard::{Inbox, Shard, ShardEvent};
use super::{REQUESTS_MAX, Responder, log_writer, reader};
use crate::server::{Message, Server};
use crate::storage::{Engine, StorageError};
use crate::{Event, Settings};
use crossbeam::channel::{self, Sender};
use parking_lot::{Mutex, RwLock};
use proto::request::Request;
use proto::{Error, GroupId, NodeId};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::thread::JoinHandle;
use std::time::Duration;
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
    /// The other nodes; empty until they are all made.
    peers: RwLock<BTreeMap<NodeId, Weak<Shared>>>,
}

impl Shared {
    pub fn inbox(&self, group: GroupId) -> &Sender<ShardEvent> {
        &self.inboxes[group.0 as usize % self.inboxes.len()]
    }

    /// Sends to a node; a node that is gone is like a lost message.
    pub fn send(&self, to: NodeId, message: Message) {
        let event = |message| ShardEvent::Core(Event::Message { from: self.node, message });
        if to == self.node {
            let _ = self.inbox(message.group()).send(event(message));
        } else if let Some(peer) = self.peers.read().get(&to).and_then(Weak::upgrade) {
            let _ = peer.inbox(message.group()).send(event(message));
        }
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
        let shards = shards.clamp(1, groups.len().max(1));
        let (inboxes, queues): (Vec<_>, Vec<_>) = (0..shards).map(|_| channel::unbounded()).unzip();
        let (log, log_jobs) = channel::unbounded();
        let (reads, read_jobs) = channel::unbounded();
        let shared = Arc::new(Shared {
            node,
            clock,
            inboxes,
            in_flight: AtomicUsize::new(0),
            next_request: AtomicU64::new(1),
            peers: RwLock::new(BTreeMap::new()),
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
            let server = Server::recover(node, mine, &settings, engine.as_ref())?;
            let inbox = Inbox { index, queue, log: log.clone(), reads: reads.clone() };
            threads.push(Shard::start(shared.clone(), engine.clone(), server, inbox));
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
            *node.shared.peers.write() =
                others.map(|other| (other.id(), Arc::downgrade(&other.shared))).collect();
        }
    }

    pub(super) fn request(&self, request: Request, responder: Responder) {
        self.shared.request(request, responder);
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
