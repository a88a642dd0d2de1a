//! A node that is to stop, or to lead nothing, hands its leaderships on (P10).

use crate::atlas::Atlas;
use proto::request::{Body, GroupStatus, Request};
use proto::universe::NodeState;
use proto::{GroupId, NodeId};
use rpc::links::Links;
use spanserver::runtime::Node;
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

/// How often is looked what is left to hand on.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// A leadership that has not gone is handed on once more after this.
const TRY_AGAIN: Duration = Duration::from_millis(1_500);
/// How long the group may take to begin.
const BEGIN_WITHIN_US: u64 = 5_000_000;

/// Hands leaderships on, again and again.
pub(crate) struct HandOver<'a> {
    pub node: &'a Node,
    pub atlas: &'a Atlas,
    pub links: &'a Links,
    /// When each was handed on last, and how often.
    begun: BTreeMap<GroupId, (Instant, usize)>,
}

impl<'a> HandOver<'a> {
    pub fn new(node: &'a Node, atlas: &'a Atlas, links: &'a Links) -> HandOver<'a> {
        HandOver { node, atlas, links, begun: BTreeMap::new() }
    }

    /// Until nothing is led here that somebody else could lead, or the time is over. `true`: nothing
    /// is. `tell` hears how many are left.
    ///
    /// A group that went and came back is left where it is: whoever had it is about to stop as well,
    /// and two such nodes would pass it to and fro.
    pub async fn all(&mut self, limit: Duration, mut tell: impl FnMut(usize)) -> bool {
        let until = Instant::now() + limit;
        let mut told = usize::MAX;
        let (mut led, mut gone) = (BTreeSet::new(), BTreeSet::new());
        loop {
            let still = self.once(&gone).await;
            gone.extend(led.difference(&still).copied());
            led.extend(&still);
            let left = still.len();
            if left != told {
                tell(left);
                told = left;
            }
            if left == 0 || Instant::now() >= until {
                return left == 0;
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// Begins where it has not begun, but for `spared` groups; which others are led here that somebody
    /// else could lead.
    pub async fn once(&mut self, spared: &BTreeSet<GroupId>) -> BTreeSet<GroupId> {
        let me = self.node.id();
        let led = self.node.groups().await.into_iter().filter(|status| {
            status.leader == Some(me)
                && status.lease_end.is_some()
                && status.members.voters.len() > 1
                && !spared.contains(&status.group)
        });
        let led: Vec<GroupStatus> = led.collect();
        let connected = self.links.report();
        for (turn, status) in led.iter().enumerate() {
            let tried = self.begun.get(&status.group).copied();
            if tried.is_some_and(|(at, _)| at.elapsed() < TRY_AGAIN) {
                continue;
            }
            let tries = tried.map_or(0, |(_, tries)| tries); // another one each time
            let fit = |node: &NodeId| connected.get(node).is_some_and(|peer| peer.connected);
            if let Some(to) = self.successor(status, fit, turn + tries) {
                self.begun.insert(status.group, (Instant::now(), tries + 1));
                self.hand(status.group, to);
            }
        }
        led.iter().map(|status| status.group).collect()
    }

    /// A voter that is there; one that drains itself only where there is no other.
    fn successor(
        &self,
        status: &GroupStatus,
        fit: impl Fn(&NodeId) -> bool,
        turn: usize,
    ) -> Option<NodeId> {
        let map = self.atlas.map();
        let active =
            |node: &NodeId| map.nodes.get(node).is_some_and(|info| info.state == NodeState::Active);
        let members = &status.members;
        let voters = members.voters.difference(&members.witnesses).copied();
        let fit: Vec<NodeId> = voters.filter(|v| *v != self.node.id() && fit(v)).collect();
        let active: Vec<NodeId> = fit.iter().copied().filter(active).collect();
        let choice = if active.is_empty() { fit } else { active };
        (!choice.is_empty()).then(|| choice[turn % choice.len()])
    }

    fn hand(&self, group: GroupId, to: NodeId) {
        let Ok(now) = self.node.clock().now() else { return };
        let deadline = now.latest().plus_micros(BEGIN_WITHIN_US);
        let body = Body::Transfer { to };
        // Whether it works shows in the next look.
        drop(self.node.ask(Request { group, generation: 0, ballot: None, deadline, body }));
    }
}
