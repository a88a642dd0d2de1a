//! Finds the leader of a group and repeats a request until it is answered or its time is over; finds
//! the nearest replica for what any of them may answer, and asks another one when it is slow.
//!
//! Every body of [`Body`] may be repeated: reads change nothing but locks the transaction already
//! wanted, and the others carry the transaction's id, by which servers recognise a repetition
//! (X9, X12).

mod distance;
mod nearest;
mod routes;

use super::options::{Limits, micros, too_late};
use super::{ClientClock, ClientConfig, Transport};
use distance::Distances;
use futures::future::{self, Either};
use parking_lot::Mutex;
use proto::request::{Body, Reply, Request};
use proto::universe::Descriptor;
use proto::{Ballot, Error, GroupId, NodeId};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use routes::Routes;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use truetime::Timestamp;

/// Pause before asking again when nobody leads the group.
const RETRY_PAUSE_MS: u64 = 5;
/// How far ahead the deadline of one request may lie: servers refuse more than 20 s.
const REQUEST_US_MAX: u64 = 15_000_000;
/// Longest pause before a node that has too much to do is asked again.
const FULL_PAUSE_MS_MAX: u64 = 320;

/// A search for a leader.
struct Search {
    /// Whose turn it was in order.
    turn: NodeId,
    /// The node asked last was hinted at.
    hinted: bool,
    /// Nodes whose last answer was that they have no time (T5), and what they said.
    timeless: BTreeMap<NodeId, String>,
    /// How often in a row the answer was that there is too much to do.
    full: u32,
    /// How often there was no answer.
    silent: u32,
}

/// What is known of a group's leadership; a hint, the server decides (X12).
#[derive(Clone, Copy, Debug)]
struct Leader {
    node: NodeId,
    ballot: Option<Ballot>,
}

/// See the [module](self).
pub struct Router {
    transport: Arc<dyn Transport>,
    clock: Arc<dyn ClientClock>,
    leaders: Mutex<BTreeMap<GroupId, Leader>>,
    routes: Mutex<Routes>,
    distances: Mutex<Distances>,
    /// For the jitter of pauses.
    rng: Mutex<SmallRng>,
    attempt: Duration,
    attempt_max: Duration,
    operation: Duration,
}

impl Router {
    /// A router that knows nothing yet.
    pub fn new(
        transport: Arc<dyn Transport>,
        clock: Arc<dyn ClientClock>,
        config: &ClientConfig,
    ) -> Router {
        Router {
            transport,
            clock,
            leaders: Mutex::new(BTreeMap::new()),
            routes: Mutex::default(),
            distances: Mutex::default(),
            // A stream of its own: what is drawn here does not shuffle what is drawn elsewhere.
            rng: Mutex::new(SmallRng::seed_from_u64(config.seed.wrapping_add(1))),
            attempt: Duration::from_millis(config.attempt_ms),
            attempt_max: Duration::from_millis(config.attempt_ms_max),
            operation: Duration::from_millis(config.operation_ms),
        }
    }

    /// Asks a group's leader, under whatever ballot it leads.
    ///
    /// # Errors
    /// As [`ask_under`](Self::ask_under).
    pub async fn ask(&self, group: GroupId, body: Body) -> Result<Reply, Error> {
        self.ask_under(group, body, None).await
    }

    /// Asks a group's leader. With `pinned`, the request only counts under that ballot: a later
    /// leader refuses it (X3).
    ///
    /// # Errors
    /// What the leader says. When there is none for the whole time of an operation:
    /// `ClockUnavailable` if that is because a majority of the nodes have no time (T5), otherwise
    /// `DeadlineExceeded`. Either says nothing about whether an attempt took effect: what can be
    /// asked for by its id is to be asked for (X9).
    pub async fn ask_under(
        &self,
        group: GroupId,
        body: Body,
        pinned: Option<Ballot>,
    ) -> Result<Reply, Error> {
        self.ask_within(group, body, pinned, self.limits()).await
    }

    /// As [`ask_under`](Self::ask_under), within limits.
    pub(crate) async fn ask_within(
        &self,
        group: GroupId,
        body: Body,
        pinned: Option<Ballot>,
        limits: Limits,
    ) -> Result<Reply, Error> {
        let mut now = self.clock.now()?;
        let give_up = limits.give_up_at(now)?;
        let mut target = self.leader(group);
        let mut search = Search {
            turn: target.node,
            hinted: false,
            timeless: BTreeMap::new(),
            full: 0,
            silent: 0,
        };
        loop {
            let request = Request {
                group,
                generation: self.generation(group),
                ballot: pinned.or(target.ballot),
                deadline: give_up.min(now.latest().plus_micros(REQUEST_US_MAX)),
                body: body.clone(),
            };
            let patience = self.patience(search.silent).min(give_up.since(now.latest()));
            let answer = self.attempt(target.node, request, patience).await;
            search.timeless.remove(&target.node);
            let full = matches!(answer, Some(Err(Error::ResourceExhausted(_))));
            search.full = if full { search.full + 1 } else { 0 };
            match answer {
                Some(Ok(reply)) => {
                    self.remember(group, Leader { node: target.node, ballot: Some(reply.ballot) });
                    return Ok(reply);
                }
                Some(Err(Error::StaleBallot { ballot })) if pinned.is_none() => {
                    target.ballot = Some(ballot);
                    self.remember(group, target);
                    now = self.clock.now()?;
                    if now.latest() < give_up {
                        continue; // nothing happened, nothing to wait for
                    }
                }
                Some(Err(Error::StaleRoute { descriptor: Some(descriptor) }))
                    if self.reroute((*descriptor).clone()) =>
                {
                    if !self.replicas(group).contains(&target.node) {
                        target = self.next_target(group, &mut search, None);
                    }
                    now = self.clock.now()?;
                    if now.latest() < give_up {
                        continue; // nothing happened, nothing to wait for
                    }
                }
                Some(Err(Error::StaleRoute { .. })) => {
                    self.transport.lost();
                    target = self.next_target(group, &mut search, None);
                }
                Some(Err(Error::NotLeader { hint })) => {
                    target = self.next_target(group, &mut search, hint);
                }
                Some(Err(Error::ClockUnavailable { reason })) => {
                    search.timeless.insert(target.node, reason);
                    target = self.next_target(group, &mut search, None);
                }
                None => {
                    search.silent += 1;
                    target = self.next_target(group, &mut search, None);
                }
                Some(Err(Error::ResourceExhausted(_))) => {}
                Some(Err(error)) => return Err(error),
            }
            now = self.clock.now()?;
            if now.latest() >= give_up {
                return Err(self.given_up(group, &search, limits, give_up));
            }
            let pause = self.pause(search.full).min(give_up.since(now.latest()));
            self.clock.sleep(pause).await;
            now = self.clock.now()?;
        }
    }

    fn given_up(
        &self,
        group: GroupId,
        search: &Search,
        limits: Limits,
        give_up: Timestamp,
    ) -> Error {
        if limits.deadline == Some(give_up) {
            return too_late(give_up); // says nothing about the leader
        }
        self.forget(group);
        self.no_leader(group, search)
    }

    /// How long an attempt may take, after so many without an answer.
    fn patience(&self, silent: u32) -> Duration {
        (self.attempt * (1 << silent.min(8))).min(self.attempt.max(self.attempt_max))
    }

    /// The pause before the next attempt: short while a leader is looked for, growing and with
    /// jitter while servers have too much to do.
    fn pause(&self, full: u32) -> Duration {
        if full == 0 {
            return Duration::from_millis(RETRY_PAUSE_MS);
        }
        let ceiling_us = (RETRY_PAUSE_MS << full.min(8)).min(FULL_PAUSE_MS_MAX) * 1_000;
        Duration::from_micros(self.rng.lock().random_range(ceiling_us / 4..=ceiling_us))
    }

    /// Why nobody has answered for a group. Without time on a majority of the nodes, no group has a
    /// leader: that is for whoever keeps the clocks, and not a matter of asking longer.
    fn no_leader(&self, group: GroupId, search: &Search) -> Error {
        let (nodes, timeless) = (self.replicas(group).len(), &search.timeless);
        match timeless.iter().next() {
            Some((node, reason)) if timeless.len() > nodes / 2 => {
                let count = timeless.len();
                let reason = format!("{count} of {nodes} nodes have no time; {node}: {reason}");
                Error::ClockUnavailable { reason }
            }
            _ => Error::DeadlineExceeded(format!("no answer from the leader of {group}")),
        }
    }

    /// Asks one node, leader or not, once.
    ///
    /// # Errors
    /// What the node says, or `DeadlineExceeded`.
    pub async fn ask_node(&self, node: NodeId, group: GroupId, body: Body) -> Result<Reply, Error> {
        let deadline = self.limits().give_up_at(self.clock.now()?)?;
        let generation = self.generation(group);
        let request = Request { group, generation, ballot: None, deadline, body };
        self.attempt(node, request, self.attempt)
            .await
            .unwrap_or_else(|| Err(Error::DeadlineExceeded(format!("no answer from {node}"))))
    }

    /// Tells the presumed leader something whose answer does not matter.
    pub fn tell(&self, group: GroupId, body: Body) {
        let target = self.leader(group);
        let now = self.clock.now();
        if let Ok(deadline) = now.and_then(|now| self.limits().give_up_at(now)) {
            let generation = self.generation(group);
            let request = Request { group, generation, ballot: None, deadline, body };
            self.transport.cast(target.node, request);
        }
    }

    /// The nodes that may be asked.
    pub fn nodes(&self) -> Vec<NodeId> {
        self.transport.nodes()
    }

    /// One try; `None`: no answer in time.
    async fn attempt(
        &self,
        node: NodeId,
        request: Request,
        patience: Duration,
    ) -> Option<Result<Reply, Error>> {
        let call = self.transport.attempt(node, request);
        match future::select(call, self.clock.sleep(patience)).await {
            Either::Left((answer, _)) => answer,
            Either::Right(_) => None,
        }
    }

    /// The limits of what belongs to no transaction.
    fn limits(&self) -> Limits {
        Limits { operation: self.operation, deadline: None }
    }

    fn leader(&self, group: GroupId) -> Leader {
        let known = self.leaders.lock().get(&group).copied();
        known.unwrap_or_else(|| {
            // With nobody to ask, nobody answers.
            let node = self.replicas(group).first().copied().unwrap_or_default();
            Leader { node, ballot: None }
        })
    }

    /// The nodes that may be asked about a group; never empty.
    fn replicas(&self, group: GroupId) -> Vec<NodeId> {
        let known = self.routes.lock().nodes(group, self.transport.as_ref());
        if known.is_empty() { self.transport.nodes() } else { known }
    }

    /// Of what is known of a group's place (X12).
    fn generation(&self, group: GroupId) -> u64 {
        self.routes.lock().generation(group, self.transport.as_ref())
    }

    /// A server knows better where a group is. `false`: it does not.
    fn reroute(&self, descriptor: Descriptor) -> bool {
        self.routes.lock().learn(descriptor, self.transport.as_ref())
    }

    fn remember(&self, group: GroupId, leader: Leader) {
        self.leaders.lock().insert(group, leader);
    }

    fn forget(&self, group: GroupId) {
        self.leaders.lock().remove(&group);
    }

    /// The hinted node, or the next one in order. A hint is followed once: two nodes that point
    /// at each other, or at one that is gone, must not keep a client from asking the others.
    fn next_target(&self, group: GroupId, search: &mut Search, hint: Option<NodeId>) -> Leader {
        let nodes = self.replicas(group);
        let known = |hint: &NodeId| nodes.contains(hint) || self.transport.nodes().contains(hint);
        let hint = hint.filter(|hint| !search.hinted && known(hint));
        search.hinted = hint.is_some();
        let node = hint.unwrap_or_else(|| {
            let place = nodes.iter().position(|n| *n == search.turn).map_or(0, |i| i + 1);
            if place == nodes.len() {
                self.transport.lost(); // once around, and nobody leads
            }
            search.turn = nodes.get(place).or(nodes.first()).copied().unwrap_or_default();
            search.turn
        });
        Leader { node, ballot: None }
    }
}

#[cfg(test)]
mod tests;
