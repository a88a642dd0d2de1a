//! How a node is, looked at now and then so that asking costs nothing.

use crate::http::Health;
use parking_lot::Mutex;
use proto::universe::NodeState;
use proto::{GroupId, NodeId};
use spanserver::Server;
use spanserver::runtime::Node;
use std::time::{Duration, Instant};
use truetime::Interval;

/// How often is looked.
pub(crate) const LOOK_EVERY: Duration = Duration::from_millis(500);
/// A look that is older says nothing: the threads that own groups do not answer.
const OLD: Duration = Duration::from_secs(10);
/// Groups named in a reason.
const NAMED_MAX: usize = 5;

/// What a look has found.
#[derive(Clone, Debug, Default)]
pub(crate) struct Look {
    /// Replicas here.
    pub replicas: u32,
    /// Groups led here under a lease that is valid, or asleep.
    pub leads: u32,
    /// Groups led here whose lease has run out.
    lapsed: Vec<GroupId>,
    /// Groups in which this node votes, and of which it knows no leader.
    leaderless: Vec<GroupId>,
}

/// See the [module](self).
pub(crate) struct Vitals {
    begun: Instant,
    last: Mutex<Option<(Instant, Look)>>,
}

impl Vitals {
    pub fn new() -> Vitals {
        Vitals { begun: Instant::now(), last: Mutex::default() }
    }

    /// Looks again.
    pub async fn look(&self, node: &Node) {
        let (me, now) = (node.id(), node.clock().now().ok());
        let mut all = Look::default();
        for part in node.inspect(move |server| look(server, me, now)).await {
            all.replicas += part.replicas;
            all.leads += part.leads;
            all.lapsed.extend(part.lapsed);
            all.leaderless.extend(part.leaderless);
        }
        *self.last.lock() = Some((Instant::now(), all));
    }

    /// What was found last.
    pub fn last(&self) -> Look {
        self.last.lock().as_ref().map(|(_, look)| look.clone()).unwrap_or_default()
    }

    /// Whether the node is well.
    pub fn health(&self, joined: bool, has_time: bool, state: NodeState, stopping: bool) -> Health {
        let last = self.last.lock().clone();
        let live = last.as_ref().map_or(self.begun, |(at, _)| *at).elapsed() < OLD;
        let mut reasons = Vec::new();
        let mut lacks = |what: &str| reasons.push(what.to_owned());
        if !live {
            lacks("its threads do not answer");
        }
        if !joined {
            lacks("it has not heard from the root group yet");
        }
        if !has_time {
            lacks("its clock has no bound");
        }
        if stopping {
            lacks("it is about to stop");
        } else if state == NodeState::Draining {
            lacks("it drains");
        }
        let look = last.map(|(_, look)| look);
        if let Some(look) = &look {
            for (what, groups) in [
                ("no leader is known of", &look.leaderless),
                ("the lease ran out of", &look.lapsed),
            ] {
                if !groups.is_empty() {
                    let named: Vec<String> =
                        groups.iter().take(NAMED_MAX).map(|group| group.to_string()).collect();
                    let more = if groups.len() > NAMED_MAX { " and others" } else { "" };
                    lacks(&format!("{what} {}{more}", named.join(", ")));
                }
            }
        } else {
            lacks("it has just started");
        }
        Health { live, ready: reasons.is_empty(), reasons }
    }
}

fn look(server: &Server, me: NodeId, now: Option<Interval>) -> Look {
    let mut look = Look::default();
    for (id, group) in server.groups() {
        let replica = group.replica();
        let (_, configuration) = replica.configuration();
        look.replicas += u32::from(configuration.members.contains_key(&me));
        if replica.leading().is_some() && replica.leader_hint() == Some(me) {
            // The lease of a group that sleeps is kept elsewhere.
            let asleep = replica.asleep().is_some();
            let holds = |end| now.is_some_and(|now| now.before(end));
            match asleep || replica.lease_end().is_some_and(holds) {
                true => look.leads += 1,
                false => look.lapsed.push(id),
            }
        } else if configuration.is_voter(me) && replica.leader_hint().is_none() {
            look.leaderless.push(id);
        }
    }
    look
}
