//! Nodes of a test: a real server, real links, and a handler that remembers what it was told.

// Each test file uses its own part.
#![allow(dead_code)]

pub mod certificates;
pub mod log;

use bytes::Bytes;
use parking_lot::Mutex;
use proto::control::{ControlReply, ControlRequest, PeerReport};
use proto::request::{Body, Reply, ReplyBody, Request};
use proto::{Ballot, Error, GroupId, NodeId};
use rpc::links::QueueLimits;
use rpc::{
    Caller, Faults, Handler, Hello, Links, LinksConfig, Security, Server, Versions, async_trait,
};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::net::TcpListener;
use tokio::sync::watch;
use truetime::Timestamp;

/// A condition that has not come true by then never will.
const PATIENCE: Duration = Duration::from_secs(40);

/// Waits for a condition.
pub async fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let began = Instant::now();
    while !condition() {
        assert!(began.elapsed() < PATIENCE, "waited in vain: {what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// What happened at a node.
#[derive(Default)]
pub struct Seen {
    /// Messages by sender, in the order in which they came.
    pub messages: Mutex<BTreeMap<NodeId, Vec<Bytes>>>,
    /// Calls that hang now.
    pub hanging: AtomicU64,
    /// Calls that began to hang.
    pub hung: AtomicU64,
    /// How long the last caller said that it waits.
    pub within: Mutex<Option<Duration>>,
    /// Whom Hellos are refused.
    pub disliked: Mutex<Option<NodeId>>,
    /// Control requests that came through.
    pub orders: AtomicU64,
}

impl Seen {
    /// How many messages came from a node.
    pub fn count(&self, from: u32) -> usize {
        self.messages.lock().get(&NodeId(from)).map_or(0, Vec::len)
    }

    /// The messages from a node.
    pub fn from(&self, from: u32) -> Vec<Bytes> {
        self.messages.lock().get(&NodeId(from)).cloned().unwrap_or_default()
    }
}

/// Remembers; delivers while its gate is open. Asked about [`HANGS`] it hangs, about [`STALE`] it
/// says that the route is stale; about [`SLOW`] it waits for its gate, and answers like about others.
struct Recorder {
    seen: Arc<Seen>,
    open: watch::Receiver<bool>,
}

/// Counts a call that hangs, for as long as its future is there.
struct Hanging<'a>(&'a Seen);

impl Drop for Hanging<'_> {
    fn drop(&mut self) {
        self.0.hanging.fetch_sub(1, Ordering::SeqCst);
    }
}

#[async_trait]
impl Handler for Recorder {
    async fn ask(&self, request: Request, within: Option<Duration>) -> Result<Reply, Error> {
        *self.seen.within.lock() = within;
        match request.group {
            HANGS => {
                self.seen.hanging.fetch_add(1, Ordering::SeqCst);
                let _hanging = Hanging(&self.seen);
                self.seen.hung.fetch_add(1, Ordering::SeqCst);
                std::future::pending().await
            }
            STALE => Err(Error::StaleRoute { descriptor: None }),
            _ => Ok({
                if request.group == SLOW {
                    self.seen.hung.fetch_add(1, Ordering::SeqCst);
                    let _ = self.open.clone().wait_for(|open| *open).await;
                }
                Reply {
                    ballot: Ballot { round: 3, node: NodeId(1) },
                    body: ReplyBody::SafeTime(request.deadline),
                }
            }),
        }
    }

    async fn control(
        &self,
        _caller: Caller,
        request: ControlRequest,
    ) -> Result<ControlReply, Error> {
        self.seen.orders.fetch_add(1, Ordering::SeqCst);
        match request {
            ControlRequest::Locks(group) => Ok(ControlReply::Locks(format!("locks of {group}"))),
            _ => Ok(ControlReply::Done),
        }
    }

    async fn deliver(&self, from: NodeId, messages: Vec<Bytes>) {
        let _ = self.open.clone().wait_for(|open| *open).await;
        self.seen.messages.lock().entry(from).or_default().extend(messages);
    }

    fn cluster(&self) -> String {
        "c1".into()
    }

    fn hello(&self, hello: &Hello) -> Result<(), String> {
        match *self.seen.disliked.lock() {
            Some(node) if node == hello.node => Err(format!("{node} is not wanted here")),
            _ => Ok(()),
        }
    }
}

/// Groups that are answered in their own way; see [`Recorder`].
pub const HANGS: GroupId = GroupId(7);
pub const STALE: GroupId = GroupId(8);
pub const SLOW: GroupId = GroupId(9);

/// A request to a group.
pub fn request(group: GroupId) -> Request {
    Request {
        group,
        generation: 0,
        ballot: None,
        deadline: Timestamp::from_micros(77),
        body: Body::Status,
    }
}

/// What a node is started with.
pub struct Plan {
    pub hello: Hello,
    pub security: Security,
    pub listen: SocketAddr,
    pub config: LinksConfig,
}

impl Plan {
    pub fn new(node: u32) -> Plan {
        Plan {
            hello: hello(node),
            security: Security::Plaintext,
            listen: ([127, 0, 0, 1], 0).into(),
            config: LinksConfig { seed: node.into(), ..LinksConfig::default() },
        }
    }

    pub fn queue(mut self, queue: QueueLimits) -> Plan {
        self.config.queue = queue;
        self
    }

    pub fn security(mut self, security: Security) -> Plan {
        self.security = security;
        self
    }

    pub fn listen(mut self, listen: SocketAddr) -> Plan {
        self.listen = listen;
        self
    }
}

/// What a node of the test's universe says.
pub fn hello(node: u32) -> Hello {
    Hello {
        cluster: "0123456789abcdef".into(),
        node: NodeId(node),
        instance: format!("folder-{node}"),
        versions: Versions::OURS,
        address: format!("node-{node}:7000"),
        host: "host".into(),
        clock: "local".into(),
    }
}

/// A node at work.
pub struct Node {
    pub node: NodeId,
    pub links: Links,
    pub faults: Arc<Faults>,
    pub seen: Arc<Seen>,
    pub server: Server,
    /// See [`open`](Node::open).
    pub gate: watch::Sender<bool>,
}

impl Node {
    pub async fn start(plan: Plan) -> Node {
        let node = plan.hello.node;
        let (gate, seen) = (watch::Sender::new(true), Arc::<Seen>::default());
        let handler = Arc::new(Recorder { seen: seen.clone(), open: gate.subscribe() });
        let faults = Arc::new(Faults::new(11));
        let security = plan.security;
        let links =
            Links::new(plan.hello, security.clone(), handler.clone(), faults.clone(), plan.config);
        let listener = listen(plan.listen).await;
        let server =
            Server::start(listener, security, handler, links.clone()).expect("it has an address");
        Node { node, links, faults, seen, server, gate }
    }

    pub fn address(&self) -> String {
        self.server.address().to_string()
    }

    /// Whether what arrives is taken.
    pub fn open(&self, open: bool) {
        self.gate.send_replace(open);
    }

    /// Tells a node where others are.
    pub fn knows(&self, others: &[&Node]) {
        let peers = others.iter().map(|other| (other.node, other.address())).collect();
        self.links.set_peers(peers);
    }

    pub fn report(&self, of: u32) -> PeerReport {
        self.links.report().remove(&NodeId(of)).unwrap_or_default()
    }

    pub fn is_linked(&self, to: u32) -> bool {
        self.report(to).connected
    }

    /// Stops as it should.
    pub async fn stop(self) {
        self.gate.send_replace(true);
        self.links.close();
        self.server.shutdown(Duration::from_secs(5)).await;
    }
}

/// A port that was given back may be some connection's for a moment.
async fn listen(address: SocketAddr) -> TcpListener {
    let began = Instant::now();
    loop {
        match TcpListener::bind(address).await {
            Ok(listener) => return listener,
            Err(error) => assert!(began.elapsed() < PATIENCE, "{address}: {error}"),
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// Two or more nodes, linked.
pub async fn linked(plans: Vec<Plan>) -> Vec<Node> {
    let mut nodes = Vec::new();
    for plan in plans {
        nodes.push(Node::start(plan).await);
    }
    for node in &nodes {
        node.knows(&nodes.iter().collect::<Vec<_>>());
    }
    for (one, other) in nodes.iter().flat_map(|one| nodes.iter().map(move |other| (one, other))) {
        if one.node != other.node {
            until("links", || one.is_linked(other.node.0)).await;
        }
    }
    nodes
}

/// Numbered messages.
pub fn numbered(number: u64) -> Bytes {
    Bytes::copy_from_slice(&number.to_be_bytes())
}

/// The number of a message.
pub fn number(message: &Bytes) -> u64 {
    u64::from_be_bytes(message[..8].try_into().expect("eight bytes"))
}
