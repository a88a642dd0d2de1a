//! Requests of this node itself, to itself and to others: what the root group's rows are changed
//! through, and groups are governed.

use crate::atlas::Atlas;
use futures::FutureExt;
use futures::future::BoxFuture;
use proto::control::{ControlReply, ControlRequest};
use proto::request::{Reply, Request};
use proto::universe::Descriptor;
use proto::{Error, GroupId, NodeId};
use rpc::{CallError, Connections, Target};
use spanserver::runtime::Node;
use std::sync::Arc;
use std::time::Duration;
use txn::client::Transport;

/// A request whose deadline no clock can judge goes on for so long.
const WITHIN_DEFAULT: Duration = Duration::from_secs(15);

/// See the [module](self).
pub(crate) struct NodeTransport {
    pub node: Arc<Node>,
    pub atlas: Arc<Atlas>,
    pub connections: Connections,
}

impl NodeTransport {
    fn target(&self, node: NodeId) -> Option<Target> {
        Some(Target::node(node, self.atlas.address(node)?))
    }

    /// Asks another node about the universe.
    ///
    /// # Errors
    /// What it says; `NotLeader` where it was not asked, `DeadlineExceeded` where no answer came.
    pub async fn control(
        &self,
        to: NodeId,
        request: ControlRequest,
        within: Duration,
    ) -> Result<ControlReply, Error> {
        let Some(target) = self.target(to) else { return Err(Error::NotLeader { hint: None }) };
        let answer: Result<_, CallError> =
            self.connections.control(&target, &request, within).await;
        answer.map_err(Error::from)
    }
}

impl Transport for NodeTransport {
    fn call(&self, to: NodeId, request: Request) -> BoxFuture<'static, Result<Reply, Error>> {
        let attempt = self.attempt(to, request);
        async move {
            match attempt.await {
                Some(answer) => answer,
                None => std::future::pending().await,
            }
        }
        .boxed()
    }

    fn attempt(
        &self,
        to: NodeId,
        request: Request,
    ) -> BoxFuture<'static, Option<Result<Reply, Error>>> {
        if to == self.node.id() {
            let answer = self.node.ask(request);
            // A server that has stopped leads nothing: ask another one.
            let stopped = Error::NotLeader { hint: None };
            return async move { Some(answer.await.unwrap_or(Err(stopped))) }.boxed();
        }
        let Some(target) = self.target(to) else {
            return futures::future::ready(Some(Err(Error::NotLeader { hint: None }))).boxed();
        };
        let now = self.node.clock().now();
        let within = now.map_or(WITHIN_DEFAULT, |now| request.deadline.since(now.earliest()));
        self.connections.attempt(&target, &request, within)
    }

    fn cast(&self, to: NodeId, request: Request) {
        let call = self.call(to, request);
        tokio::spawn(async move { drop(call.await) });
    }

    fn nodes(&self) -> Vec<NodeId> {
        let mut nodes = vec![self.node.id()];
        nodes.extend(self.atlas.peers().into_keys());
        nodes
    }

    fn local(&self) -> Option<NodeId> {
        Some(self.node.id())
    }

    fn locate(&self, group: GroupId) -> Option<Descriptor> {
        self.atlas.map().groups.get(&group).filter(|d| !d.nodes().is_empty()).cloned()
    }
}
