//! How far nodes are, as this client has found: smoothed round trips of its own reads.
//!
//! What is measured is what counts, the time from the question to the answer, a replica's wait for
//! a timestamp to be safe included: a replica next door that is always behind is far.

use proto::{GroupId, NodeId};
use std::collections::BTreeMap;
use std::time::Duration;
use truetime::Timestamp;

/// A round trip that was measured longer ago says nothing: the node is tried again.
const MEASURED_FOR: Duration = Duration::from_secs(10);
/// So is one that has said that it does not serve a group, or is behind: that changes.
const REFUSED_FOR: Duration = Duration::from_secs(1);
/// Patience with a node that was never measured, and the least and most with any.
const PATIENCE_FIRST_US: u64 = 20_000;
const PATIENCE_US: std::ops::RangeInclusive<u64> = 1_000..=500_000;
/// A question earns this much of a hedge, up to ten hedges: extra questions stay a tenth of all,
/// so that slow servers are not asked twice as much for being slow.
const HEDGE_EARNED: u32 = 100;
const HEDGE_COST: u32 = 1_000;
const HEDGE_SAVED_MAX: u32 = 10_000;

/// One node's round trips, in microseconds (as RFC 6298 smooths them).
#[derive(Clone, Copy, Debug)]
struct RoundTrip {
    mean_us: u64,
    deviation_us: u64,
    at: Timestamp,
}

/// See the [module](self).
#[derive(Debug)]
pub(super) struct Distances {
    nodes: BTreeMap<NodeId, RoundTrip>,
    /// Who does not serve a group, and when they said so.
    refused: BTreeMap<(GroupId, NodeId), Timestamp>,
    saved: u32,
}

impl Default for Distances {
    fn default() -> Distances {
        let (nodes, refused) = (BTreeMap::new(), BTreeMap::new());
        Distances { nodes, refused, saved: HEDGE_SAVED_MAX }
    }
}

impl Distances {
    /// The nodes in the order in which they should be asked about a group: `local` first, then
    /// those whose distance is not known, for one look costs little and nobody else tells; then the
    /// near ones. Who has just refused comes last.
    pub fn order(
        &self,
        group: GroupId,
        mut nodes: Vec<NodeId>,
        local: Option<NodeId>,
        now: Timestamp,
    ) -> Vec<NodeId> {
        nodes.sort_by_key(|node| {
            let refused = self.refused.get(&(group, *node));
            let refused = refused.is_some_and(|at| now.since(*at) < REFUSED_FOR);
            let known = self.nodes.get(node).filter(|trip| now.since(trip.at) < MEASURED_FOR);
            (refused, Some(*node) != local, known.map_or(0, |trip| trip.mean_us), *node)
        });
        nodes
    }

    /// How long to wait for a node before another one is asked too: its usual round trip and four
    /// deviations, which few answers exceed; never less than a quarter more than usual.
    pub fn patience(&self, node: NodeId) -> Duration {
        let slack = |trip: &RoundTrip| (4 * trip.deviation_us).max(trip.mean_us / 4);
        let known = self.nodes.get(&node);
        let usual = known.map_or(PATIENCE_FIRST_US, |trip| trip.mean_us + slack(trip));
        Duration::from_micros(usual.clamp(*PATIENCE_US.start(), *PATIENCE_US.end()))
    }

    /// A node has answered.
    pub fn answered(&mut self, group: GroupId, node: NodeId, took: Duration, now: Timestamp) {
        self.refused.remove(&(group, node));
        self.learn(node, took, now);
    }

    /// A node has not answered for this long, and nobody waits any more.
    pub fn slow(&mut self, node: NodeId, at_least: Duration, now: Timestamp) {
        let known = self.nodes.get(&node).map_or(0, |trip| trip.mean_us);
        if at_least.as_micros() > u128::from(known) {
            self.learn(node, at_least, now);
        }
    }

    /// A node does not serve the group, or not now.
    pub fn refused(&mut self, group: GroupId, node: NodeId, now: Timestamp) {
        self.refused.insert((group, node), now);
    }

    /// A question is asked, which earns part of a hedge.
    pub fn earn(&mut self) {
        self.saved = (self.saved + HEDGE_EARNED).min(HEDGE_SAVED_MAX);
    }

    /// Whether one more hedge may be afforded; then it is paid.
    pub fn spend(&mut self) -> bool {
        let enough = self.saved >= HEDGE_COST;
        if enough {
            self.saved -= HEDGE_COST;
        }
        enough
    }

    fn learn(&mut self, node: NodeId, took: Duration, now: Timestamp) {
        let took_us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX).min(1 << 40);
        let fresh = RoundTrip { mean_us: took_us, deviation_us: took_us / 2, at: now };
        let trip = self.nodes.entry(node).or_insert(fresh);
        if now.since(trip.at) >= MEASURED_FOR {
            *trip = fresh;
        }
        let error_us = took_us.abs_diff(trip.mean_us);
        trip.deviation_us = (3 * trip.deviation_us + error_us) / 4;
        trip.mean_us = (7 * trip.mean_us + took_us) / 8;
        trip.at = now;
    }
}
