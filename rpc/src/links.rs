//! Links: one stream between each pair of nodes, for the messages of all groups.
//!
//! The node with the higher number dials the one with the lower, and both directions use that one
//! stream. The first frame of each side is a [`Hello`]; whoever does not like the other's says so and
//! hangs up. After it come frames of messages ([`QueueLimits`] has the bounds).
//!
//! A link promises little: while it lasts, messages arrive whole and in their order; when it breaks,
//! those under way are lost. That is what the protocol above asks of a network (X12), so nothing is
//! ever repeated here, and [`Links::send`] never waits.
//!
//! ```text
//!            no link ──dial / accept──► Hello, Hello ──► link ──broken, replaced, closed──► no link
//!               ▲                            │                                                 │
//!               └──── refused: back off ◄────┘          back off: 50 ms, doubling to 2 s ◄─────┘
//! ```

mod delay;
mod dialler;
mod outbound;
mod peer;

pub use outbound::{Frames, QueueLimits};

use crate::MESSAGE_BYTES_MAX;
use crate::faults::{Fate, Faults};
use crate::frame::messages;
use crate::hello::Hello;
use crate::security::{Caller, Security};
use crate::server::Handler;
use crate::wire::Frame;
use bytes::Bytes;
use delay::Delayed;
use outbound::Outbound;
use parking_lot::RwLock;
use peer::Peer;
use proto::NodeId;
use proto::control::PeerReport;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
use tokio::sync::watch;
use tokio::time::timeout;
use tonic::Streaming;

/// Time for both Hellos.
const HELLO_WITHIN: Duration = Duration::from_secs(5);

/// Why links end when this node closes them.
const STOPS: &str = "this node stops";

/// What links can be told.
#[derive(Clone, Copy, Debug)]
pub struct LinksConfig {
    /// Bounds of what waits to be sent to each node.
    pub queue: QueueLimits,
    /// The shortest pause before a node is dialled again.
    pub pause_min: Duration,
    /// The longest.
    pub pause_max: Duration,
    /// How long one attempt may take.
    pub dial_within: Duration,
    /// Of the pauses' jitter.
    pub seed: u64,
}

impl Default for LinksConfig {
    fn default() -> LinksConfig {
        LinksConfig {
            queue: QueueLimits::default(),
            pause_min: Duration::from_millis(50),
            pause_max: Duration::from_secs(2),
            dial_within: Duration::from_secs(2),
            seed: 0,
        }
    }
}

/// The links of one node. Clones are the same links; [`close`](Self::close) ends them.
#[derive(Clone)]
pub struct Links {
    inner: Arc<Inner>,
}

struct Inner {
    me: Hello,
    security: Security,
    handler: Arc<dyn Handler>,
    faults: Arc<Faults>,
    config: LinksConfig,
    peers: RwLock<Peers>,
    delayed: Arc<Delayed>,
    closed: watch::Sender<bool>,
    runtime: tokio::runtime::Handle,
}

#[derive(Default)]
struct Peers {
    /// Everybody who ever had a link, or was to have one.
    all: BTreeMap<NodeId, Arc<Peer>>,
    /// As last set.
    wanted: BTreeMap<NodeId, String>,
}

impl Links {
    /// Links of the node that says this Hello; none yet. The handler is given what arrives, and asked
    /// whom it likes. Runs on the runtime that this is called from.
    pub fn new(
        me: Hello,
        security: Security,
        handler: Arc<dyn Handler>,
        faults: Arc<Faults>,
        config: LinksConfig,
    ) -> Links {
        let inner = Arc::new(Inner {
            me,
            security,
            handler,
            faults,
            config,
            peers: RwLock::default(),
            delayed: Arc::default(),
            closed: watch::Sender::new(false),
            runtime: tokio::runtime::Handle::current(),
        });
        inner.runtime.spawn(delay::release(Arc::downgrade(&inner), inner.delayed.clone()));
        Links { inner }
    }

    /// What this side says first.
    pub fn hello(&self) -> &Hello {
        &self.inner.me
    }

    /// Sets which nodes there are, and where. Those with a lower number are dialled; of those with a
    /// higher one the address does not matter. A node that was there before and is not now loses its
    /// link; one that was never named may still have dialled us. A new address counts from the next
    /// attempt on, which is then made at once.
    pub fn set_peers(&self, peers: BTreeMap<NodeId, String>) {
        let inner = &self.inner;
        if *inner.closed.borrow() {
            return;
        }
        let mut known = inner.peers.write();
        for node in known.wanted.keys().filter(|node| !peers.contains_key(node)) {
            if let Some(peer) = known.all.get(node) {
                peer.address.send_replace(None);
                peer.hang_up("the node is not wanted any more");
            }
        }
        for (node, address) in peers.iter().filter(|(node, _)| **node != inner.me.node) {
            let peer = known.all.entry(*node).or_insert_with(|| Peer::new(*node));
            if *node > inner.me.node {
                continue; // it dials us
            }
            peer.address.send_if_modified(|known| {
                let new = known.as_ref() != Some(address);
                if new {
                    *known = Some(address.clone());
                }
                new
            });
            if !peer.has_dialler() {
                let dialling = dialler::keep_dialling(inner.clone(), peer.clone());
                peer.set_dialler(Some(inner.runtime.spawn(dialling).abort_handle()));
            }
        }
        known.wanted = peers;
    }

    /// Sends a message, sometime, perhaps; never waits. `false`: it was dropped already, for there is
    /// no link or no room.
    pub fn send(&self, to: NodeId, message: Bytes) -> bool {
        let now = Instant::now();
        match self.inner.faults.message(to, now) {
            Fate::Sent { copies: 1, due: None } => self.inner.push(to, message, now),
            Fate::Sent { copies, due } => (0..copies).all(|_| match due {
                Some(due) => self.inner.delayed.hold(due, to, message.clone()),
                None => self.inner.push(to, message.clone(), now),
            }),
            // On the way: the sender does not hear of it.
            Fate::Lost => true,
        }
    }

    /// How it is between this node and each other one.
    pub fn report(&self) -> BTreeMap<NodeId, PeerReport> {
        let peers = self.inner.peers.read();
        peers.all.iter().map(|(node, peer)| (*node, peer.report())).collect()
    }

    /// Ends all links, and makes none any more.
    pub fn close(&self) {
        self.inner.closed.send_replace(true);
        self.inner.delayed.close();
        for peer in self.inner.peers.read().all.values() {
            peer.hang_up(STOPS);
        }
    }

    /// Takes a link that another node has opened: reads its Hello, and gives what is to be sent.
    ///
    /// # Errors
    /// Why it is refused, for both ends.
    pub(crate) async fn accept(
        &self,
        caller: &Caller,
        mut frames: Streaming<Frame>,
    ) -> Result<Frames, String> {
        let inner = &self.inner;
        let first = timeout(HELLO_WITHIN, frames.message()).await;
        let first = first.map_err(|_| "no Hello in time".to_owned())?;
        let hello = hello_of(first.map_err(|status| status.message().to_owned())?)?;
        let node = hello.node;
        caller.may_speak_as(node)?;
        inner.meet(&hello)?;
        if node < inner.me.node {
            return Err(format!("{node} is dialled by {}, not the other way", inner.me.node));
        }
        let peer = inner.peer(node);
        let link = inner.outbound(&peer);
        inner.take(&peer, &hello, &link)?;
        tracing::info!(peer = %node, address = %caller.address(), "link accepted");
        let reader = inner.clone();
        let outbound = link.clone();
        inner.runtime.spawn(async move {
            let reason = reader.read(&peer, &link, frames).await;
            tracing::info!(peer = %peer.node, "link ended: {reason}");
        });
        Ok(Frames(outbound))
    }
}

impl Inner {
    /// What both ends ask of each other's Hello.
    fn meet(&self, hello: &Hello) -> Result<(), String> {
        self.me.meet(hello)?;
        self.handler.hello(hello)
    }

    /// Takes a link whose Hellos were found right.
    fn take(&self, peer: &Peer, hello: &Hello, link: &Arc<Outbound>) -> Result<(), String> {
        peer.take(&hello.instance, link.clone())?;
        // Asked afterwards: whoever closes the links in between sees this one.
        if *self.closed.borrow() {
            peer.hang_up(STOPS);
            return Err(format!("{} stops", self.me.node));
        }
        Ok(())
    }

    fn peer(&self, node: NodeId) -> Arc<Peer> {
        self.peers.write().all.entry(node).or_insert_with(|| Peer::new(node)).clone()
    }

    /// The queue of a new link, which begins with our Hello.
    fn outbound(&self, peer: &Peer) -> Arc<Outbound> {
        let hello = Frame { hello: Some(self.me.to_wire()), ..Frame::default() };
        Outbound::new(self.config.queue, peer.counters.clone(), hello)
    }

    fn push(&self, to: NodeId, message: Bytes, now: Instant) -> bool {
        let Some(peer) = self.peers.read().all.get(&to).cloned() else { return false };
        let length = message.len();
        if length > MESSAGE_BYTES_MAX {
            tracing::warn!(peer = %to, length, "a message is too large to be sent");
        } else if let Some(link) = peer.link() {
            return link.push(message, now);
        }
        peer.counters.dropped.fetch_add(1, Ordering::Relaxed);
        false
    }

    /// Hands on what arrives until the link ends; tells why it did.
    async fn read(
        &self,
        peer: &Peer,
        link: &Arc<Outbound>,
        mut frames: Streaming<Frame>,
    ) -> String {
        let reading = async {
            loop {
                let frame = match frames.message().await {
                    Ok(Some(frame)) => frame,
                    Ok(None) => return "the other end closed it".to_owned(),
                    Err(status) => return status.message().to_owned(),
                };
                match messages(frame) {
                    Ok(messages) => {
                        let count = messages.len() as u64;
                        peer.counters.received.fetch_add(count, Ordering::Relaxed);
                        self.handler.deliver(peer.node, messages).await;
                    }
                    Err(reason) => {
                        tracing::warn!(peer = %peer.node, "link ends: {reason}");
                        return reason;
                    }
                }
            }
        };
        let reason = tokio::select! {
            reason = reading => reason,
            reason = link.ended() => reason,
        };
        link.close(reason.clone());
        peer.leave(link, &reason);
        reason
    }
}

/// The Hello that a side must begin with.
fn hello_of(frame: Option<Frame>) -> Result<Hello, String> {
    let frame = frame.ok_or("it hung up before its Hello")?;
    let hello = frame.hello.ok_or("it began without a Hello")?;
    Ok(Hello::from_wire(hello))
}
