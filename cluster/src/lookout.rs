//! What a node tells the root group's leader: that it lives, what it leads, and where the groups it
//! leads have gone.

use crate::atlas::Atlas;
use crate::join;
use crate::root::Root;
use crate::transport::NodeTransport;
use proto::control::{ControlReply, ControlRequest, Heartbeat, JoinRequest};
use proto::universe::{Descriptor, NodeInfo};
use proto::{Error, GroupId, NodeId};
use rpc::Target;
use spanserver::Server;
use spanserver::runtime::Node;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::watch;

/// How often a node looks at its groups, while something happens to them and else.
const LOOK_OFTEN: Duration = Duration::from_millis(100);
const LOOK_SELDOM: Duration = Duration::from_millis(500);
/// Something happens as long after it did.
const EVENTFUL: Duration = Duration::from_secs(3);
/// How often it says that it lives, when nothing else is to be said.
const BEAT_EVERY: Duration = Duration::from_secs(1);
/// How long it waits for an answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(2);
/// Descriptors in one heartbeat; the rest comes with the next.
const CHANGED_MAX: usize = 256;

/// See the [module](self).
pub(crate) struct Lookout {
    pub node: Arc<Node>,
    pub root: Arc<Root>,
    pub atlas: Arc<Atlas>,
    pub transport: Arc<NodeTransport>,
    /// What the universe is to know of this node.
    pub info: NodeInfo,
    /// Where somebody may be, should nobody be known.
    pub entrances: Vec<String>,
    /// This node is about to stop.
    pub stopping: Arc<AtomicBool>,
    /// The universe has given this node up, and why.
    pub expelled: watch::Sender<Option<String>>,
}

/// What a node leads.
struct Led {
    groups: Vec<GroupId>,
    changed: Vec<Descriptor>,
}

impl Lookout {
    /// Runs for as long as the node does.
    pub async fn run(self) {
        let mut told = Instant::now().checked_sub(BEAT_EVERY).unwrap_or_else(Instant::now);
        let mut led_before = Vec::new();
        let mut master = None;
        let mut back = false;
        let mut eventful = Instant::now();
        loop {
            if !back {
                back = self.come_back().await;
            }
            let led = self.look().await;
            let news = !led.changed.is_empty() || led.groups != led_before;
            if news || !back {
                eventful = Instant::now();
            }
            if news || told.elapsed() >= BEAT_EVERY {
                led_before.clone_from(&led.groups);
                told = Instant::now();
                self.beat(led, &mut master).await;
            }
            let often = eventful.elapsed() < EVENTFUL;
            tokio::time::sleep(if often { LOOK_OFTEN } else { LOOK_SELDOM }).await;
        }
    }

    /// The groups led here, and those of them that are elsewhere than the map says.
    async fn look(&self) -> Led {
        let map = self.atlas.map();
        let me = self.node.id();
        let look = move |server: &Server| {
            let led = server.groups().filter(|(_, group)| {
                group.replica().leading().is_some() && group.replica().leader_hint() == Some(me)
            });
            let mut found = Led { groups: Vec::new(), changed: Vec::new() };
            for (id, group) in led {
                found.groups.push(id);
                let known = map.groups.get(&id).map_or(0, |known| known.generation);
                if group.descriptor().generation > known && found.changed.len() < CHANGED_MAX {
                    found.changed.push(group.descriptor().clone());
                }
            }
            found
        };
        let mut led = Led { groups: Vec::new(), changed: Vec::new() };
        for part in self.node.inspect(look).await {
            led.groups.extend(part.groups);
            led.changed.extend(part.changed);
        }
        led.changed.truncate(CHANGED_MAX);
        led
    }

    /// Tells the leader of the root group, wherever it is.
    async fn beat(&self, led: Led, master: &mut Option<NodeId>) {
        let map = self.atlas.map();
        let beat = Heartbeat {
            cluster: map.founding.cluster.clone(),
            node: self.node.id(),
            instance: self.info.instance.clone(),
            address: self.info.address.clone(),
            version: map.version,
            changed: led.changed,
            leads: led.groups,
            has_time: self.node.clock().now().is_ok(),
            stopping: self.stopping.load(Ordering::Relaxed),
        };
        let mut next = *master;
        for node in self.candidates() {
            let node = next.take().unwrap_or(node);
            match self.tell(node, beat.clone()).await {
                Ok(reply) if self.is_final(&reply) => return,
                Ok(reply) => {
                    *master = Some(node);
                    if let ControlReply::Map(map) = reply {
                        self.atlas.offer(*map);
                    }
                    return;
                }
                Err(Error::NotLeader { hint }) => next = hint,
                Err(error) => tracing::debug!(%node, %error, "no word from there"),
            }
        }
        *master = None;
        self.ask_around().await;
        // Everybody may have moved at once: whoever is at an entrance hears where this node is now,
        // and says the same in turn.
        for address in &self.entrances {
            let target = Target::address(address);
            let beat = ControlRequest::Heartbeat(beat.clone());
            let told = self.transport.connections.control(&target, &beat, ANSWER_WITHIN).await;
            if let Ok(ControlReply::Map(map)) = told {
                self.atlas.offer(*map);
            }
        }
    }

    /// The root group's leader may have moved to where this node does not know it: whoever answers
    /// may have a newer map.
    async fn ask_around(&self) {
        for node in self.atlas.peers().into_keys() {
            let asked = self.transport.control(node, ControlRequest::Map, ANSWER_WITHIN).await;
            if let Ok(ControlReply::Map(map)) = asked
                && map.founding.cluster == self.atlas.map().founding.cluster
            {
                self.atlas.offer(*map);
            }
        }
    }

    /// A node that comes back says what it is now: its address, zone or clock may be others.
    async fn come_back(&self) -> bool {
        let cluster = Some(self.atlas.map().founding.cluster.clone());
        let request = JoinRequest { info: self.info.clone(), cluster };
        if self.atlas.map().nodes.is_empty() {
            // Its copy of the map is lost: whoever let it in may do so again.
            for address in &self.entrances {
                match join::ask(&self.transport.connections, address, &request).await {
                    Ok(Ok(joined)) => self.atlas.offer(joined.map),
                    Ok(Err(reason)) => tracing::warn!(address, reason, "no way in"),
                    Err(error) => tracing::debug!(address, %error, "no way in"),
                }
            }
        }
        let mut next = None;
        for node in self.candidates() {
            let node = next.take().unwrap_or(node);
            let answer = match node == self.node.id() {
                true => self.root.join(request.clone()).await,
                false => {
                    let join = ControlRequest::Join(request.clone());
                    self.transport.control(node, join, ANSWER_WITHIN).await
                }
            };
            match answer {
                Ok(ControlReply::Joined(joined)) => {
                    self.atlas.offer(joined.map);
                    return true;
                }
                Ok(reply) if self.is_final(&reply) => return true,
                Err(Error::NotLeader { hint }) => next = hint,
                Ok(_) => {}
                Err(error) => tracing::debug!(%node, %error, "it does not take this node back"),
            }
        }
        false
    }

    /// The own universe wants nothing to do with this node any more. What anybody else says about that
    /// does not matter.
    fn is_final(&self, reply: &ControlReply) -> bool {
        let ControlReply::Refused { cluster, reason } = reply else { return false };
        let ours = *cluster == self.atlas.map().founding.cluster;
        if ours {
            tracing::error!(reason, "the universe does not take this node");
            self.expelled.send_replace(Some(reason.clone()));
        }
        ours
    }

    async fn tell(&self, node: NodeId, beat: Heartbeat) -> Result<ControlReply, Error> {
        if node == self.node.id() {
            return self.root.heartbeat(beat).await;
        }
        self.transport.control(node, ControlRequest::Heartbeat(beat), ANSWER_WITHIN).await
    }

    /// Who may lead the root group: its members first, then everybody, for the map may be old.
    fn candidates(&self) -> Vec<NodeId> {
        let map = self.atlas.map();
        let mut all = map.groups.get(&GroupId::ROOT).map(|root| root.nodes()).unwrap_or_default();
        all.push(self.node.id());
        all.extend(self.atlas.peers().into_keys());
        let mut once = Vec::new();
        all.retain(|node| !once.contains(node) && (once.push(*node), true).1);
        all
    }
}
