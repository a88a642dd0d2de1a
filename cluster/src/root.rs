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
    /// Since when it leads; before that it has heard nobody.
    pub leads_since: Option<Instant>,
    /// The newest heartbeat of each node.
    pub heartbeats: BTreeMap<NodeId, (Instant, Heartbeat)>,
    /// Changes that were begun, until when they are waited for, and which voters they bring.
    pub under_way: BTreeMap<GroupId, (Instant, Option<proto::request::Members>)>,
    /// How often a change of a group's members was begun since one came about.
    pub tried: BTreeMap<GroupId, u32>,
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
        let ours = &self.atlas.map().founding.cluster;
        if request.cluster.as_ref().is_some_and(|cluster| cluster != ours) {
            return Err(Error::NotLeader { hint: None }); // it asks at an address that is ours now
        }
        self.leads().await?;
        let map = self.reload().await?;
        if let Err(reason) = admit(&map, &request.info) {
            return Ok(self.refused(reason));
        }
        let info = request.info;
        rows::change_node(&self.client, info.node, |there| {
            // Between the look and now somebody else may have come under this number.
            let other = |there: &NodeInfo| there.instance != info.instance;
            if there.as_ref().is_some_and(|there| other(there) || there.state == NodeState::Removed)
            {
                return Err(Error::aborted("the node has changed meanwhile"));
            }
            let state = there.as_ref().map_or(NodeState::Active, |there| there.state);
            let now = NodeInfo { state, replaced_by: None, ..info.clone() };
            Ok((there.as_ref() != Some(&now)).then_some(now))
        })
        .await?;
        tracing::info!(node = %info.node, address = info.address, zone = info.zone, "joined");
        let map = UniverseMap::clone(&*self.reload().await?);
        let certificate_key = self.certificate_key.clone();
        Ok(ControlReply::Joined(Box::new(Joined { map, certificate_key })))
    }

    fn refused(&self, reason: String) -> ControlReply {
        let cluster = self.atlas.map().founding.cluster.clone();
        ControlReply::Refused { cluster, reason }
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
        match map.nodes.get(&beat.node) {
            None => return Ok(self.refused(format!("{} has not joined this universe", beat.node))),
            Some(info) if info.instance != beat.instance => {
                return Ok(self.refused(lost_disk(beat.node)));
            }
            Some(info) if info.state == NodeState::Removed => {
                return Ok(self.refused(given_up(beat.node)));
            }
            Some(_) => {}
        }
        self.seen.lock().heartbeats.insert(beat.node, (Instant::now(), beat.clone()));
        let map = self.note(&map, &beat).await?;
        if map.version > beat.version {
            return Ok(ControlReply::Map(Box::new(UniverseMap::clone(&map))));
        }
        Ok(ControlReply::Done)
    }

    /// Writes down what has moved: the node, or groups that it leads.
    async fn note(
        &self,
        map: &Arc<UniverseMap>,
        beat: &Heartbeat,
    ) -> Result<Arc<UniverseMap>, Error> {
        let moved = map.nodes.get(&beat.node).is_some_and(|info| info.address != beat.address);
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
        if moved || !changed.is_empty() { self.reload().await } else { Ok(map.clone()) }
    }

    /// A node drains, or does not any more.
    pub async fn drain(&self, node: NodeId, on: bool) -> Result<ControlReply, Error> {
        self.leads().await?;
        let state = if on { NodeState::Draining } else { NodeState::Active };
        rows::change_node(&self.client, node, |there| match there {
            None => Err(unknown(&self.atlas.map(), node)),
            Some(there) if there.state == NodeState::Removed => {
                Err(Error::FailedPrecondition(given_up(node)))
            }
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
        let (leads_since, heard) = {
            let seen = self.seen.lock();
            (seen.leads_since, seen.heartbeats.get(&lost).map(|(at, _)| *at))
        };
        if leads_since.is_none_or(|since| since.elapsed() < ALIVE_FOR) {
            return refused("who lives is not known yet: ask again in a few seconds".into());
        }
        if heard.is_some_and(|at| at.elapsed() < ALIVE_FOR) {
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

/// Whether a node may come in, as far as the map tells; if not, why.
fn admit(map: &UniverseMap, info: &NodeInfo) -> Result<(), String> {
    if info.node == NodeId(0) {
        return Err("a node's number is 1 or more".into());
    }
    if let Some(there) = map.nodes.get(&info.node) {
        return match there {
            there if there.instance != info.instance => Err(lost_disk(info.node)),
            there if there.state == NodeState::Removed => Err(given_up(info.node)),
            // Its links tell whether it goes by the others' clock: after a restart of the host all
            // rows are of the boot before.
            _ => Ok(()),
        };
    }
    let others = map.nodes.values().filter(|other| other.state != NodeState::Removed);
    let mut others = others.map(|other| (other.node, other.host.as_str(), other.clock.as_str()));
    others.try_for_each(|other| {
        same_time((info.node, info.host.as_str(), info.clock.as_str()), other)
    })
}

/// A node, its host as [`NodeInfo::host`] has it, and its clock's provider.
type Timekeeping<'a> = (NodeId, &'a str, &'a str);

/// Whether two nodes go by clocks that belong together: a host's own is right on that host only, and
/// between processes that share what it showed (T6).
///
/// # Errors
/// Why not, for people.
pub(crate) fn same_time(one: Timekeeping<'_>, other: Timekeeping<'_>) -> Result<(), String> {
    let of_host = |(_, _, clock): &Timekeeping<'_>| matches!(*clock, "local" | "simulated");
    if one.1 == other.1 || !(of_host(&one) || of_host(&other)) {
        return Ok(());
    }
    let whose = if of_host(&one) { one } else { other };
    Err(format!(
        "{} and {} do not share a host's time (other hosts, other users, or containers without a common \
         /dev/shm), and the clock of {} is `{}`, which is right among those that do: choose masters, \
         system or clockbound",
        one.0, other.0, whose.0, whose.2
    ))
}

fn lost_disk(node: NodeId) -> String {
    format!(
        "{node} is known with another data folder; if that one is lost, start with a new number and \
         `meridian admin replace-node {}`",
        node.0
    )
}

fn given_up(node: NodeId) -> String {
    format!(
        "{node} was replaced, and its number is never used again: start with a new folder and number"
    )
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

    #[test]
    fn who_may_come_in() {
        let mut map = UniverseMap::default();
        map.nodes.insert(NodeId(1), info(1, "h1", "local"));
        assert_eq!(admit(&map, &info(2, "h1", "local")), Ok(()));
        assert_eq!(admit(&map, &info(1, "h1 after a restart", "local")), Ok(()), "it comes back");
        let refused = |map: &UniverseMap, info| admit(map, &info).unwrap_err();
        assert!(refused(&map, info(2, "h2", "local")).contains("share a host's time"));
        assert!(refused(&map, info(2, "h2", "system")).contains("the clock of n1"));
        let other_disk = NodeInfo { instance: "x".into(), ..info(1, "h1", "local") };
        assert!(refused(&map, other_disk).contains("replace-node 1"));
        map.nodes.get_mut(&NodeId(1)).unwrap().state = NodeState::Removed;
        assert!(refused(&map, info(1, "h1", "local")).contains("never used again"));
        assert_eq!(admit(&map, &info(2, "h2", "local")), Ok(()), "n1 does not count any more");
    }
}
