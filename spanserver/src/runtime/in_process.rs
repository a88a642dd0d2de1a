//! The client's side of a universe within one process: requests go straight to the shards.

use super::node::Node;
use futures::FutureExt;
use futures::future::BoxFuture;
use proto::request::{Reply, Request};
use proto::{Error, NodeId};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use truetime::{ClockError, Interval, TrueTime};
use txn::client::{ClientClock, Transport};

/// Requests to the nodes of this process.
pub struct InProcess {
    nodes: BTreeMap<NodeId, Arc<Node>>,
}

impl InProcess {
    /// A transport to these nodes; at least one.
    pub fn new(nodes: &[Arc<Node>]) -> InProcess {
        InProcess { nodes: nodes.iter().map(|node| (node.id(), node.clone())).collect() }
    }
}

impl Transport for InProcess {
    fn call(&self, node: NodeId, request: Request) -> BoxFuture<'static, Result<Reply, Error>> {
        let Some(target) = self.nodes.get(&node) else {
            let error = Error::InvalidArgument(format!("no node {node}"));
            return futures::future::ready(Err(error)).boxed();
        };
        let answer = target.ask(request);
        // A server that has stopped leads nothing: ask another one.
        async move { answer.await.unwrap_or(Err(Error::NotLeader { hint: None })) }.boxed()
    }

    fn cast(&self, node: NodeId, request: Request) {
        if let Some(target) = self.nodes.get(&node) {
            drop(target.ask(request));
        }
    }

    fn nodes(&self) -> Vec<NodeId> {
        self.nodes.keys().copied().collect()
    }
}

/// A client's clock under tokio.
pub struct TokioClock {
    clock: TrueTime,
}

impl TokioClock {
    /// A client's clock; that of a server of the process, or one of its own (T6).
    pub fn new(clock: TrueTime) -> TokioClock {
        TokioClock { clock }
    }
}

impl ClientClock for TokioClock {
    fn now(&self) -> Result<Interval, Error> {
        self.clock.now().map_err(|error| unavailable(&error))
    }

    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()> {
        tokio::time::sleep(duration).boxed()
    }
}

/// What a request is told where there is no bound (T5).
pub(super) fn unavailable(error: &ClockError) -> Error {
    Error::ClockUnavailable { reason: error.to_string() }
}
