//! Requests on their way to nodes, and the map that says where those are.

use super::map::{MapCache, present};
use super::wire::Wire;
use futures::future::{BoxFuture, FutureExt};
use proto::control::{ControlReply, ControlRequest};
use proto::request::{Reply, Request};
use proto::universe::Descriptor;
use proto::{Error, GroupId, NodeId};
use rpc::Target;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Notify, Semaphore};
use txn::client::Transport;

/// Requests under way whose answers nobody waits for; more are dropped, for they may be lost anyway.
const CASTS_MAX: usize = 1_024;
/// How long one of them may take.
const CAST_WITHIN: Duration = Duration::from_secs(5);
/// From one look for a newer map to the next, at least.
const REFRESH_PAUSE: Duration = Duration::from_millis(50);
/// And at most: nodes may move while nothing goes wrong.
const REFRESH_EVERY: Duration = Duration::from_secs(30);
/// How long one node may take to say where everything is.
const REFRESH_WITHIN: Duration = Duration::from_secs(1);

/// The transport of a client of a cluster: where a group is comes from the copy of the map, never
/// from a question on the way (S4).
pub(super) struct Remote {
    wire: Arc<dyn Wire>,
    map: Arc<MapCache>,
    wanted: Arc<Notify>,
    casts: Arc<Semaphore>,
}

impl Remote {
    /// Goes by this map, and asks for another one by `wanted`.
    pub fn new(wire: Arc<dyn Wire>, map: Arc<MapCache>, wanted: Arc<Notify>) -> Remote {
        Remote { wire, map, wanted, casts: Arc::new(Semaphore::new(CASTS_MAX)) }
    }

    fn target(&self, node: NodeId) -> Option<Target> {
        let address = self.map.address(node);
        if address.is_none() {
            self.wanted.notify_one(); // somebody has heard of a node that this map has not
        }
        address.map(|address| Target::node(node, address))
    }
}

impl Transport for Remote {
    fn call(&self, node: NodeId, request: Request) -> BoxFuture<'static, Result<Reply, Error>> {
        let attempt = self.attempt(node, request);
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
        node: NodeId,
        request: Request,
    ) -> BoxFuture<'static, Option<Result<Reply, Error>>> {
        match self.target(node) {
            Some(to) => self.wire.ask(to, request),
            // Nothing was sent, so nothing happened: another node may be asked.
            None => async { Some(Err(Error::NotLeader { hint: None })) }.boxed(),
        }
    }

    fn cast(&self, node: NodeId, request: Request) {
        let Some(to) = self.target(node) else { return };
        let Ok(permit) = self.casts.clone().try_acquire_owned() else { return };
        let asked = self.wire.ask(to, request);
        // A transaction may be dropped anywhere, also where there is no runtime any more.
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        runtime.spawn(async move {
            let _ = tokio::time::timeout(CAST_WITHIN, asked).await;
            drop(permit);
        });
    }

    fn nodes(&self) -> Vec<NodeId> {
        self.map.nodes()
    }

    fn locate(&self, group: GroupId) -> Option<Descriptor> {
        self.map.get().groups.get(&group).cloned()
    }

    fn lost(&self) {
        self.wanted.notify_one();
    }
}

/// Keeps the copy of the map up to date: when somebody has lost their way, and now and then. One
/// question at a time, however many have asked for it; a different node each time, for the one that
/// was asked last may be cut off from the news.
pub(super) struct Refresher {
    wire: Arc<dyn Wire>,
    map: Arc<MapCache>,
    wanted: Arc<Notify>,
    /// The addresses that the user gave: they may lead on when no node of the map answers.
    seeds: Vec<String>,
    turn: usize,
}

impl Refresher {
    /// To be [run](Self::run) as a task.
    pub fn new(
        wire: Arc<dyn Wire>,
        map: Arc<MapCache>,
        wanted: Arc<Notify>,
        seeds: Vec<String>,
    ) -> Refresher {
        Refresher { wire, map, wanted, seeds, turn: 0 }
    }

    /// Until it is aborted.
    pub async fn run(mut self) {
        loop {
            // Or the time is over: either way it is looked.
            let _ = tokio::time::timeout(REFRESH_EVERY, self.wanted.notified()).await;
            self.refresh().await;
            tokio::time::sleep(REFRESH_PAUSE).await;
        }
    }

    /// Asks one after the other until somebody answers.
    async fn refresh(&mut self) {
        let map = self.map.get();
        let nodes = present(&map).map(|info| Target::node(info.node, &info.address));
        let seeds = self.seeds.iter().map(Target::address);
        let (nodes, seeds): (Vec<_>, Vec<_>) = (nodes.collect(), seeds.collect());
        self.turn = self.turn.wrapping_add(1);
        let first = if nodes.is_empty() { 0 } else { self.turn % nodes.len() };
        let (before, after) = nodes.split_at(first);
        for to in after.iter().chain(before).chain(&seeds) {
            let answer = self.wire.control(to.clone(), ControlRequest::Map, REFRESH_WITHIN).await;
            if let Ok(ControlReply::Map(heard)) = answer {
                self.map.learn(*heard);
                return;
            }
        }
    }
}
