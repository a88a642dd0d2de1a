//! What a server does with what comes over the network.

use crate::root::same_time;
use crate::server::Inner;
use async_trait::async_trait;
use bytes::Bytes;
use proto::control::{ControlReply, ControlRequest};
use proto::request::{Body, Reply, Request};
use proto::universe::UniverseMap;
use proto::{Error, GroupId, NodeId, codec};
use rpc::Hello;
use rpc::links::Links;
use rpc::security::Caller;
use rpc::server::Handler;
use spanserver::{Message, Server};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// Locked spans in a report.
const SPANS_MAX: usize = 200;

pub(crate) struct Service {
    pub inner: Arc<Inner>,
}

#[async_trait]
impl Handler for Service {
    async fn ask(&self, request: Request, _within: Option<Duration>) -> Result<Reply, Error> {
        let group = request.group;
        let answer = self.inner.node.ask(request).await;
        // A node that stops leads nothing: ask another one.
        let answer = answer.unwrap_or(Err(Error::NotLeader { hint: None }));
        match answer {
            Err(Error::StaleRoute { descriptor: None }) => Err(self.elsewhere(group)),
            answer => answer,
        }
    }

    async fn control(
        &self,
        _caller: Caller,
        request: ControlRequest,
    ) -> Result<ControlReply, Error> {
        let inner = &self.inner;
        match request {
            ControlRequest::Map => {
                Ok(ControlReply::Map(Box::new(UniverseMap::clone(&inner.atlas.map()))))
            }
            ControlRequest::Now => match inner.node.clock().now() {
                Ok(now) => Ok(ControlReply::Now(now)),
                Err(error) => Err(Error::ClockUnavailable { reason: error.to_string() }),
            },
            ControlRequest::Node => Ok(ControlReply::Node(Box::new(inner.report().await))),
            ControlRequest::Groups => Ok(ControlReply::Groups(inner.node.groups().await)),
            ControlRequest::Locks(group) => self.locks(group).await,
            ControlRequest::Faults(rules) => {
                inner.may_fail()?;
                tracing::warn!(?rules, "links fail on purpose from now on");
                inner.faults.set(rules);
                Ok(ControlReply::Done)
            }
            ControlRequest::Clock(change) => {
                inner.may_fail()?;
                inner.change_clock(&change)?;
                tracing::warn!(change, "the clock was changed on purpose");
                Ok(ControlReply::Done)
            }
            ControlRequest::Join(request) => inner.root.join(request).await,
            ControlRequest::Heartbeat(beat) => {
                let map = inner.atlas.map();
                let known = map.nodes.get(&beat.node);
                if map.founding.cluster == beat.cluster
                    && known.is_some_and(|known| known.instance == beat.instance)
                {
                    inner.atlas.heard(beat.node, &beat.address);
                }
                inner.root.heartbeat(beat).await
            }
            ControlRequest::Drain { node, on } => inner.root.drain(node, on).await,
            ControlRequest::Replace { lost, by } => inner.root.replace(lost, by).await,
            ControlRequest::MoveLeader { group, to } => {
                inner.root.client.router().ask(group, Body::Transfer { to }).await?;
                Ok(ControlReply::Done)
            }
        }
    }

    async fn deliver(&self, from: NodeId, messages: Vec<Bytes>) {
        for bytes in messages {
            match codec::decode::<Message>(&bytes) {
                Ok(message) => self.inner.node.deliver(from, message),
                Err(error) => {
                    // As good as lost; the frame's checksum was right, so the sender is to blame.
                    self.inner.nonsense.fetch_add(1, Ordering::Relaxed);
                    tracing::warn!(%from, %error, "a message that is none");
                }
            }
        }
    }

    fn cluster(&self) -> String {
        self.inner.atlas.map().founding.cluster.clone()
    }

    fn hello(&self, hello: &Hello) -> Result<(), String> {
        let map = self.inner.atlas.map();
        let links = self.inner.links.get().map(Links::hello);
        if let Some(me) = links {
            let theirs = (hello.node, hello.host.as_str(), hello.clock.as_str());
            same_time((me.node, me.host.as_str(), me.clock.as_str()), theirs)?;
        }
        match map.nodes.get(&hello.node) {
            Some(known) if known.instance != hello.instance => {
                Err(format!("{} is known with another data folder", hello.node))
            }
            Some(known) if known.state == proto::universe::NodeState::Removed => {
                Err(format!("{} was replaced, and its number is never used again", hello.node))
            }
            Some(_) => {
                self.inner.atlas.heard(hello.node, &hello.address);
                Ok(())
            }
            None => Ok(()), // it has joined after this copy of the map was made
        }
    }
}

impl Service {
    /// No replica here: where they are, if that is known.
    fn elsewhere(&self, group: GroupId) -> Error {
        let map = self.inner.atlas.map();
        let known = map.groups.get(&group);
        let elsewhere = known.filter(|known| !known.nodes().contains(&self.inner.node.id()));
        Error::StaleRoute { descriptor: elsewhere.cloned().map(Box::new) }
    }

    async fn locks(&self, group: GroupId) -> Result<ControlReply, Error> {
        let look = move |server: &Server| {
            let found = server.groups().find(|(id, _)| *id == group);
            found.map(|(_, group)| group.manager().lock_report(SPANS_MAX).to_string())
        };
        let found = self.inner.node.inspect(look).await.into_iter().flatten().next();
        found.map(ControlReply::Locks).ok_or_else(|| self.elsewhere(group))
    }
}
