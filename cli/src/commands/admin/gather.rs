//! Asking a cluster how it is.

use super::seen::{Answer, Group, Seen};
use futures::future::join_all;
use proto::control::{ControlReply, ControlRequest};
use proto::request::{Body, ReadSet, Reply, ReplyBody, Request};
use proto::universe::{NodeState, UniverseMap};
use proto::{Error, GroupId, NodeId};
use rpc::CallError;
use std::collections::BTreeMap;
use std::time::Duration;
use truetime::Timestamp;

/// Questions and orders to a cluster.
pub trait Control: Sync {
    /// The newest map that anybody has.
    ///
    /// # Errors
    /// Nobody answers, in words.
    fn map(&self) -> impl Future<Output = Result<UniverseMap, String>> + Send;

    /// Asks a node.
    ///
    /// # Errors
    /// Its own, or that it does not answer.
    fn node(
        &self,
        node: NodeId,
        request: ControlRequest,
    ) -> impl Future<Output = Result<ControlReply, CallError>> + Send;

    /// Orders something, of the leader of the root group, wherever that is.
    ///
    /// # Errors
    /// Its own, or that nobody takes it.
    fn order(
        &self,
        request: ControlRequest,
    ) -> impl Future<Output = Result<ControlReply, CallError>> + Send;

    /// Asks a group's replica at a node.
    ///
    /// # Errors
    /// Its own, or that it does not answer.
    fn ask(
        &self,
        node: NodeId,
        request: Request,
    ) -> impl Future<Output = Result<Reply, CallError>> + Send;
}

/// A node that says nothing for so long is silent.
const PATIENCE: Duration = Duration::from_secs(3);

/// Looks at everything. Nodes are asked all at once, so that silent ones cost no more than one.
///
/// # Errors
/// When nobody has a map; a node that does not answer is part of what is seen.
pub async fn look(control: &impl Control) -> Result<Seen, String> {
    let map = control.map().await?;
    let present = map.nodes.values().filter(|info| info.state != NodeState::Removed);
    let nodes: Vec<NodeId> = present.map(|info| info.node).collect();
    let answers = join_all(nodes.iter().map(|node| node_within(control, *node))).await;
    Ok(Seen { map, answers: nodes.into_iter().zip(answers).collect() })
}

async fn node_within(control: &impl Control, node: NodeId) -> Result<Answer, String> {
    match tokio::time::timeout(PATIENCE, one(control, node)).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(error)) => Err(why(&error)),
        Err(_) => Err(format!("nothing heard within {} s", PATIENCE.as_secs())),
    }
}

/// What a node says of itself. Its time comes last: what it says of its leases is older then, so a
/// lease that is shown to hold did when it was looked at.
async fn one(control: &impl Control, node: NodeId) -> Result<Answer, CallError> {
    let report = match control.node(node, ControlRequest::Node).await? {
        ControlReply::Node(report) => *report,
        other => return Err(unexpected("Node", &other)),
    };
    let groups = match control.node(node, ControlRequest::Groups).await? {
        ControlReply::Groups(groups) => groups,
        other => return Err(unexpected("Groups", &other)),
    };
    let now = match control.node(node, ControlRequest::Now).await {
        Ok(ControlReply::Now(now)) => Some(now),
        Ok(other) => return Err(unexpected("Now", &other)),
        Err(CallError::Refused(Error::ClockUnavailable { .. })) => None,
        Err(error) => return Err(error),
    };
    Ok(Answer { report, groups, now })
}

/// What a node says of who holds and waits for locks.
///
/// # Errors
/// Its own, or when it does not answer.
pub async fn locks(
    control: &impl Control,
    node: NodeId,
    group: GroupId,
) -> Result<String, CallError> {
    match control.node(node, ControlRequest::Locks(group)).await? {
        ControlReply::Locks(text) => Ok(text),
        other => Err(unexpected("Locks", &other)),
    }
}

/// Up to when each replica of a group serves reads without waiting (R1); those that do not say are
/// left out.
pub async fn safe_times(
    control: &impl Control,
    seen: &Seen,
    group: &Group<'_>,
) -> BTreeMap<NodeId, Timestamp> {
    let asked = group.replicas.iter().map(async |replica| {
        let now = seen.answer(replica.node)?.now?;
        let request = Request {
            group: group.id,
            generation: replica.status?.generation,
            ballot: None,
            deadline: now.latest().plus_micros(PATIENCE.as_micros() as u64),
            body: Body::SafeTime { what: ReadSet::Keys(Vec::new()) },
        };
        let answer = tokio::time::timeout(PATIENCE, control.ask(replica.node, request)).await;
        match answer.ok()?.ok()?.body {
            ReplyBody::SafeTime(at) => Some((replica.node, at)),
            _ => None,
        }
    });
    join_all(asked).await.into_iter().flatten().collect()
}

fn unexpected(asked: &str, reply: &ControlReply) -> CallError {
    let text = format!("{reply:?}");
    let head: String = text.chars().take(60).collect();
    Error::FailedPrecondition(format!("the answer to {asked} is another one: {head}")).into()
}

/// Why a node did not answer; which node is said elsewhere.
fn why(error: &CallError) -> String {
    match error {
        CallError::Unreachable { reason, .. } | CallError::Lost { reason, .. } => reason.clone(),
        CallError::Refused(error) => error.to_string(),
    }
}
