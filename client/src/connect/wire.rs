//! What a connection needs of the network: two questions. The rest of [`connect`](super) is the same
//! whoever carries them, so its tests can do without sockets.

use futures::future::BoxFuture;
use proto::Error;
use proto::control::{ControlReply, ControlRequest};
use proto::request::{Reply, Request};
use rpc::security::Security;
use rpc::{CallError, Connections, Faults, Target};
use std::sync::Arc;
use std::time::Duration;

/// How long a server works on a request at most; the router gives up earlier by itself, which ends
/// the work too.
const ASK_WITHIN: Duration = Duration::from_secs(20);

/// Carries questions.
pub(super) trait Wire: Send + Sync + 'static {
    /// A request to a group at a node. `None` as soon as it is known that no answer will come: it may
    /// have been carried out ([`txn::client::Transport::attempt`]). Dropped, it is not waited for at
    /// the server either.
    fn ask(&self, to: Target, request: Request)
    -> BoxFuture<'static, Option<Result<Reply, Error>>>;

    /// From now on only servers of this universe answer.
    fn belong_to(&self, cluster: &str);

    /// A question about the universe; after `within` it is lost.
    fn control(
        &self,
        to: Target,
        request: ControlRequest,
        within: Duration,
    ) -> BoxFuture<'static, Result<ControlReply, CallError>>;
}

/// Over gRPC.
pub(super) struct Grpc(Connections);

impl Grpc {
    /// Connections are made when they are needed.
    pub fn new(security: Security) -> Grpc {
        // Faults on purpose are for nodes: a client has none.
        let faults = Arc::new(Faults::new(0));
        Grpc(Connections::new(security, faults, rand::random()))
    }
}

impl Wire for Grpc {
    fn ask(
        &self,
        to: Target,
        request: Request,
    ) -> BoxFuture<'static, Option<Result<Reply, Error>>> {
        self.0.attempt(&to, &request, ASK_WITHIN)
    }

    fn belong_to(&self, cluster: &str) {
        self.0.belong_to(cluster);
    }

    fn control(
        &self,
        to: Target,
        request: ControlRequest,
        within: Duration,
    ) -> BoxFuture<'static, Result<ControlReply, CallError>> {
        self.0.control(&to, &request, within)
    }
}
