//! The universe master: what the leader of the root group does besides (S4).
//!
//! It lets nodes in, hears that they live, notes where groups have gone, and takes orders from
//! whoever operates the universe. All that must last is in the root group's rows ([`rows`]); who
//! lives is only remembered, and learned anew by the next leader within a few seconds. A node that
//! only thinks it leads can do no harm: its transactions do not commit.
//!
//! ```text
//!   Join ──────▶ checked against the rows ──▶ row `n` ──▶ the map goes back
//!   Heartbeat ─▶ seen; rows `g`, `n` where something moved ──▶ the map goes back, if it is newer
//!   orders ────▶ row `n` (drain, replace): the driver does the rest
//! ```

use crate::atlas::Atlas;
use crate::rows;
use parking_lot::Mutex;
use proto::control::{ControlReply, Heartbeat, JoinRequest, Joined};
use proto::universe::{Descriptor, NodeInfo, NodeState, UniverseMap};
use proto::{Error, GroupId, NodeId};
use spanserver::runtime::Node;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};
use txn::client::Client;

/// A node that was not heard of for so long is taken for dead; nothing but placement and status goes
/// by that.
pub(crate) const ALIVE_FOR: Duration = Duration::from_secs(4);

/// What the root group's leader remembers.
#[derive(Default)]
pub(crate) struct Seen {
    /// The newest heartbeat of each node.
    pub heartbeats: BTreeMap<NodeId, (Instant, Heartbeat)>,
    /// Changes that were begun, until when they are waited for, and which voters they bring.
    pub under_way: BTreeMap<GroupId, (Instant, Option<proto::request::Members>)>,
}

/// See the [module](self).
pub(crate) struct Root {
    pub node: Arc<Node>,
    pub client: Client,
    pub atlas: Arc<Atlas>,
    /// Sealing key of the universe, in hexadecimal, for those who join.
    pub certificate_key: String,
    pub seen: Mutex<Seen>,
}

impl Root {
    /// Whether this node leads the root group.
    pub async fn leads(&self) -> Result<(), Error> {
        let me = self.node.id();
        match self.node.group(GroupId::ROOT).await {
            Some(status) if status.leader == Some(me) && status.lease_end.is_some() => Ok(()),
            Some(status) => {
                Err(Error::NotLeader { hint: status.leader.filter(|leader| *leader != me) })
            }
            None => Err(Error::NotLeader { hint: None }),
        }
    }

    /// The map, as the rows are now.
    pub async fn reload(&self) -> Result<Arc<UniverseMap>, Error> {
        if let Some(map) = rows::load(&self.client).await? {
            self.atlas.offer(map);
        }
        Ok(self.atlas.map())
    }

    /// A node wants in, or back.
    pub async fn join(&self, request: JoinRequest) -> Result<ControlReply, Error> {
        self.leads().await?;
        let map = self.reload().await?;
        admit(&map, &request)?;
        let info = request.info;
        let known_as = info.instance.clone();
        rows::change_node(&self.client, info.node, |there| match there {
            Some(there) if there.instance != known_as => Err(lost_disk(info.node)),
            Some(there) if there.state == NodeState::Removed => Err(given_up(info.node)),
            Some(there) => {
                let back = NodeInfo { state: there.state, replaced_by: None, ..info.clone() };
                Ok((there != back).then_some(back))
            }
            None => {
                let state = NodeState::Active;
                Ok(Some(NodeInfo { state, replaced_by: None, ..info.clone() }))
            }
        })
        .await?;
        tracing::info!(node = %info.node, address = info.address, zone = info.zone, "joined");
        let map = UniverseMap::clone(&*self.reload().await?);
        let certificate_key = self.certificate_key.clone();
        Ok(ControlReply::Joined(Box::new(Joined { map, certificate_key })))
    }

    /// A node lives.
    pub async fn heartbeat(&self, beat: Heartbeat) -> Result<ControlReply, Error> {
        let mut map = self.atlas.map();
        if beat.cluster != map.founding.cluster {
            return Err(Error::NotLeader { hint: None }); // its map is old: this is somebody else's port
        }
        self.leads().await?;
        if !map.nodes.contains_key(&beat.node) {
            map = self.reload().await?;
        }
        let info = map.nodes.get(&beat.node);
        let info = info.ok_or_else(|| {
            Error::FailedPrecondition(format!("{} has not joined this universe", beat.node))
        })?;
        if info.instance != beat.instance {
            return Err(lost_disk(beat.node));
        }
        if info.state == NodeState::Removed {
            return Err(given_up(beat.node));
        }
        let moved = info.address != beat.address;
        let newer = |d: &&Descriptor| {
            map.groups.get(&d.group).is_none_or(|known| known.generation < d.generation)
        };
        let changed: Vec<Descriptor> = beat.changed.iter().filter(newer).cloned().collect();
        if moved {
            let address = &beat.address;
            rows::change_node(&self.client, beat.node, |there| {
                Ok(there.map(|there| NodeInfo { address: address.clone(), ..there }))
            })
            .await?;
        }
        if !changed.is_empty() {
            rows::describe(&self.client, &changed).await?;
        }
        if moved || !changed.is_empty() {
            map = self.reload().await?;
        }
        let version = beat.version;
        self.seen.lock().heartbeats.insert(beat.node, (Instant::now(), beat));
        if map.version > version {
            return Ok(ControlReply::Map(Box::new(UniverseMap::clone(&map))));
        }
        Ok(ControlReply::Done)
    }

    /// A node drains, or does not any more.
    pub async fn drain(&self, node: NodeId, on: bool) -> Result<ControlReply, Error> {
        self.leads().await?;
        let state = if on { NodeState::Draining } else { NodeState::Active };
        rows::change_node(&self.client, node, |there| match there {
            None => Err(unknown(&self.atlas.map(), node)),
            Some(there) if there.state == NodeState::Removed => Err(given_up(node)),
            Some(there) => Ok((there.state != state).then_some(NodeInfo { state, ..there })),
        })
        .await?;
        self.reload().await?;
        tracing::info!(%node, on, "draining");
        Ok(ControlReply::Done)
    }

    /// A node is given up; its replicas go elsewhere.
    pub async fn replace(&self, lost: NodeId, by: Option<NodeId>) -> Result<ControlReply, Error> {
        self.leads().await?;
        let map = self.reload().await?;
        let refused = |why: String| Err(Error::FailedPrecondition(why));
        if !map.nodes.contains_key(&lost) {
            return Err(unknown(&map, lost));
        }
        if self.is_alive(lost) {
            return refused(format!("{lost} lives: drain it and stop it first"));
        }
        if let Some(by) = by {
            let known = map.nodes.get(&by).ok_or_else(|| unknown(&map, by))?;
            if by == lost || known.state != NodeState::Active || !self.is_alive(by) {
                return refused(format!(
                    "{by} cannot take its place: it is not there, or not active"
                ));
            }
        }
        rows::change_node(&self.client, lost, |there| {
            let gone = |there| NodeInfo { state: NodeState::Removed, replaced_by: by, ..there };
            Ok(there.map(gone))
        })
        .await?;
        self.reload().await?;
        tracing::warn!(%lost, by = ?by, "given up: its replicas go elsewhere");
        Ok(ControlReply::Done)
    }

    /// Whether a node was heard of lately, and knows the time.
    pub fn is_alive(&self, node: NodeId) -> bool {
        let seen = self.seen.lock();
        let beat = seen.heartbeats.get(&node);
        beat.is_some_and(|(at, beat)| at.elapsed() < ALIVE_FOR && beat.has_time && !beat.stopping)
    }
}

/// Whether a node may come in, as far as the map tells.
fn admit(map: &UniverseMap, request: &JoinRequest) -> Result<(), Error> {
    let info = &request.info;
    let refused = |why: String| Err(Error::FailedPrecondition(why));
    if info.node == NodeId(0) {
        return refused("a node's number is 1 or more".into());
    }
    if let Some(other) = request.cluster.as_ref().filter(|other| **other != map.founding.cluster) {
        let ours = &map.founding.cluster;
        return refused(format!("its folder is of universe {other}, this is {ours}"));
    }
    if let Some(there) = map.nodes.get(&info.node) {
        if there.instance != info.instance {
            return Err(lost_disk(info.node));
        }
        if there.state == NodeState::Removed {
            return Err(given_up(info.node));
        }
    }
    let others =
        map.nodes.values().filter(|o| o.node != info.node && o.state != NodeState::Removed);
    let elsewhere = others.filter(|other| other.host != info.host);
    let local = |info: &NodeInfo| info.clock == "local";
    if let Some(other) = elsewhere.into_iter().find(|other| local(other) || local(info)) {
        let whose = if local(info) { info.node } else { other.node };
        return refused(format!(
            "{} and {} run on different hosts, and the clock of {whose} is `local`, which is right on \
             one host only: choose masters, system or clockbound",
            info.node, other.node
        ));
    }
    Ok(())
}

fn lost_disk(node: NodeId) -> Error {
    Error::FailedPrecondition(format!(
        "{node} is known with another data folder; if that one is lost, start with a new number and \
         `meridian admin replace-node {}`",
        node.0
    ))
}

fn given_up(node: NodeId) -> Error {
    Error::FailedPrecondition(format!(
        "{node} was replaced, and its number is never used again: start with a new folder and number"
    ))
}

fn unknown(map: &UniverseMap, node: NodeId) -> Error {
    let known: Vec<String> = map.nodes.keys().map(|node| node.to_string()).collect();
    Error::InvalidArgument(format!("there is no {node}; there are {}", known.join(", ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn info(node: u32, host: &str, clock: &str) -> NodeInfo {
        NodeInfo {
            node: NodeId(node),
            instance: format!("i{node}"),
            address: String::new(),
            zone: "a".into(),
            state: NodeState::Active,
            replaced_by: None,
            host: host.into(),
            clock: clock.into(),
        }
    }

    fn ask(map: &UniverseMap, info: NodeInfo, cluster: Option<&str>) -> Result<(), String> {
        let request = JoinRequest { info, cluster: cluster.map(str::to_owned) };
        admit(map, &request).map_err(|error| error.to_string())
    }

    #[test]
    fn who_may_come_in() {
        let mut map = UniverseMap::default();
        map.founding.cluster = "c1".into();
        map.nodes.insert(NodeId(1), info(1, "h1", "local"));
        assert_eq!(ask(&map, info(2, "h1", "local"), None), Ok(()));
        assert_eq!(ask(&map, info(1, "h1", "local"), Some("c1")), Ok(()), "it comes back");
        let refused = |map: &UniverseMap, info, cluster| ask(map, info, cluster).unwrap_err();
        assert!(refused(&map, info(2, "h1", "local"), Some("c2")).contains("universe c2"));
        assert!(refused(&map, info(2, "h2", "local"), None).contains("different hosts"));
        assert!(refused(&map, info(2, "h2", "system"), None).contains("the clock of n1"));
        let other_disk = NodeInfo { instance: "x".into(), ..info(1, "h1", "local") };
        assert!(refused(&map, other_disk, None).contains("replace-node 1"));
        map.nodes.get_mut(&NodeId(1)).unwrap().state = NodeState::Removed;
        assert!(refused(&map, info(1, "h1", "local"), None).contains("never used again"));
        assert_eq!(ask(&map, info(2, "h2", "local"), None), Ok(()), "n1 does not count any more");
    }
}
