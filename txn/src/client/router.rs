//! Finds the leader of a group and repeats a request until it is answered or its time is over.
//!
//! Every body of [`Body`] may be repeated: reads change nothing but locks the transaction already
//! wanted, and the others carry the transaction's id, by which servers recognise a repetition
//! (X9, X12).

use super::{ClientClock, ClientConfig, Transport};
use futures::future::{self, Either};
use parking_lot::Mutex;
use proto::request::{Body, Reply, Request};
use proto::{Ballot, Error, GroupId, NodeId};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use truetime::Timestamp;

/// Pause before asking again when nobody leads the group.
const RETRY_PAUSE_MS: u64 = 5;

/// A search for a leader.
struct Search {
    /// Whose turn it was in order.
    turn: NodeId,
    /// The node asked last was hinted at.
    hinted: bool,
    /// Nodes whose last answer was that they have no time (T5), and what they said.
    timeless: BTreeMap<NodeId, String>,
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
    attempt: Duration,
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
            attempt: Duration::from_millis(config.attempt_ms),
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
        let give_up = self.give_up_at()?;
        let mut target = self.leader(group);
        let mut search = Search { turn: target.node, hinted: false, timeless: BTreeMap::new() };
        loop {
            let request = Request {
                group,
                ballot: pinned.or(target.ballot),
                deadline: give_up,
                body: body.clone(),
            };
            let answer = self.attempt(target.node, request).await;
            search.timeless.remove(&target.node);
            match answer {
                Some(Ok(reply)) => {
                    self.remember(group, Leader { node: target.node, ballot: Some(reply.ballot) });
                    return Ok(reply);
                }
                Some(Err(Error::StaleBallot { ballot })) if pinned.is_none() => {
                    target.ballot = Some(ballot);
                    self.remember(group, target);
                    continue; // nothing happened, nothing to wait for
                }
                Some(Err(Error::NotLeader { hint })) => {
                    target = self.next_target(&mut search, hint);
                }
                Some(Err(Error::ClockUnavailable { reason })) => {
                    search.timeless.insert(target.node, reason);
                    target = self.next_target(&mut search, None);
                }
                None => target = self.next_target(&mut search, None),
                Some(Err(Error::ResourceExhausted(_))) => {}
                Some(Err(error)) => return Err(error),
            }
            if self.clock.now()?.after(give_up) {
                self.forget(group);
                return Err(self.no_leader(group, &search));
            }
            self.clock.sleep(Duration::from_millis(RETRY_PAUSE_MS)).await;
        }
    }

    /// Why nobody has answered for a group. Without time on a majority of the nodes, no group has a
    /// leader: that is for whoever keeps the clocks, and not a matter of asking longer.
    fn no_leader(&self, group: GroupId, search: &Search) -> Error {
        let (nodes, timeless) = (self.transport.nodes().len(), &search.timeless);
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
        let request = Request { group, ballot: None, deadline: self.give_up_at()?, body };
        self.attempt(node, request)
            .await
            .unwrap_or_else(|| Err(Error::DeadlineExceeded(format!("no answer from {node}"))))
    }

    /// Tells the presumed leader something whose answer does not matter.
    pub fn tell(&self, group: GroupId, body: Body) {
        let target = self.leader(group);
        if let Ok(deadline) = self.give_up_at() {
            self.transport.cast(target.node, Request { group, ballot: None, deadline, body });
        }
    }

    /// The nodes that may be asked.
    pub fn nodes(&self) -> Vec<NodeId> {
        self.transport.nodes()
    }

    /// One try; `None`: no answer in time.
    async fn attempt(&self, node: NodeId, request: Request) -> Option<Result<Reply, Error>> {
        let call = self.transport.call(node, request);
        match future::select(call, self.clock.sleep(self.attempt)).await {
            Either::Left((answer, _)) => Some(answer),
            Either::Right(_) => None,
        }
    }

    fn give_up_at(&self) -> Result<Timestamp, Error> {
        let operation_us = u64::try_from(self.operation.as_micros()).unwrap_or(u64::MAX);
        Ok(self.clock.now()?.latest().plus_micros(operation_us))
    }

    fn leader(&self, group: GroupId) -> Leader {
        let known = self.leaders.lock().get(&group).copied();
        known.unwrap_or_else(|| Leader { node: self.transport.nodes()[0], ballot: None })
    }

    fn remember(&self, group: GroupId, leader: Leader) {
        self.leaders.lock().insert(group, leader);
    }

    fn forget(&self, group: GroupId) {
        self.leaders.lock().remove(&group);
    }

    /// The hinted node, or the next one in order. A hint is followed once: two nodes that point
    /// at each other, or at one that is gone, must not keep a client from asking the others.
    fn next_target(&self, search: &mut Search, hint: Option<NodeId>) -> Leader {
        let nodes = self.transport.nodes();
        let hint = hint.filter(|hint| !search.hinted && nodes.contains(hint));
        search.hinted = hint.is_some();
        let node = hint.unwrap_or_else(|| {
            let place = nodes.iter().position(|n| *n == search.turn).map_or(0, |i| i + 1);
            search.turn = nodes[place % nodes.len()];
            search.turn
        });
        Leader { node, ballot: None }
    }
}

#[cfg(test)]
mod tests;
