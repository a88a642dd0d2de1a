//! The way in: a new node asks at the addresses it was given, until the universe lets it in.

use crate::error::StartError;
use proto::control::{ControlReply, ControlRequest, JoinRequest, Joined};
use proto::{Error, NodeId};
use rpc::{CallError, Connections, Target};
use std::time::{Duration, Instant};

const ANSWER_WITHIN: Duration = Duration::from_secs(5);
const PAUSE: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(2);
/// How often it is said that nobody answers.
const TELL_EVERY: Duration = Duration::from_secs(5);

/// Asks until somebody answers.
///
/// # Errors
/// `Refused`, with the universe's reason.
pub(crate) async fn enter(
    connections: &Connections,
    addresses: &[String],
    request: &JoinRequest,
) -> Result<Joined, StartError> {
    let mut pause = PAUSE;
    let mut told: Option<Instant> = None;
    loop {
        let mut reasons = Vec::new();
        for address in addresses {
            match ask(connections, address, request).await {
                Ok(Ok(joined)) => return Ok(joined),
                Ok(Err(reason)) => {
                    return Err(StartError::Refused { node: request.info.node, reason });
                }
                Err(error) => reasons.push(format!("{address}: {error}")),
            }
        }
        if told.is_none_or(|at| at.elapsed() >= TELL_EVERY) {
            tracing::warn!(reasons = reasons.join("; "), "nobody lets this node in yet");
            told = Some(Instant::now());
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(PAUSE_MAX);
    }
}

/// Whether there is a universe behind one of these addresses already.
pub(crate) async fn is_there(connections: &Connections, addresses: &[String]) -> bool {
    for address in addresses {
        let asked =
            connections.control(&Target::address(address), &ControlRequest::Map, ANSWER_WITHIN);
        if let Ok(ControlReply::Map(map)) = asked.await
            && !map.founding.cluster.is_empty()
        {
            return true;
        }
    }
    false
}

/// Asks one address, and whoever leads the root group as far as that knows.
pub(crate) async fn ask(
    connections: &Connections,
    address: &str,
    request: &JoinRequest,
) -> Result<Result<Joined, String>, CallError> {
    let mut target = Target::address(address);
    for _ in 0..3 {
        let join = ControlRequest::Join(request.clone());
        match connections.control(&target, &join, ANSWER_WITHIN).await {
            Ok(ControlReply::Joined(joined)) => return Ok(Ok(*joined)),
            Ok(ControlReply::Refused { reason, .. }) => return Ok(Err(reason)),
            Ok(_) => {
                return Err(Error::InvalidArgument("an answer to something else".into()).into());
            }
            Err(CallError::Refused(Error::NotLeader { hint: Some(leader) })) => {
                target = place(connections, &target, leader).await?;
            }
            Err(error) => return Err(error),
        }
    }
    Err(Error::NotLeader { hint: None }.into())
}

/// Where a node is, as another one knows.
async fn place(connections: &Connections, ask: &Target, node: NodeId) -> Result<Target, CallError> {
    let answer = connections.control(ask, &ControlRequest::Map, ANSWER_WITHIN).await?;
    let ControlReply::Map(map) = answer else {
        return Err(Error::InvalidArgument("an answer to something else".into()).into());
    };
    let info = map.nodes.get(&node).ok_or(Error::NotLeader { hint: None })?;
    Ok(Target::node(node, info.address.clone()))
}
