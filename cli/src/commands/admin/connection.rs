//! A connection for whoever operates a cluster. Unlike a client's it needs neither the time nor a
//! catalog, so it is there when nothing else is.

use super::gather::Control;
use crate::exit::Exit;
use crate::target::Tls;
use clap::Args;
use client::ConnectError;
use futures::stream::{FuturesUnordered, StreamExt};
use proto::control::{ControlReply, ControlRequest};
use proto::request::{Reply, Request};
use proto::universe::{NodeState, UniverseMap};
use proto::{Error, GroupId, NodeId};
use rpc::{CallError, Connections, Faults, Security, Target};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::time::{Instant, timeout_at};

/// Which cluster, and how it is spoken to.
#[derive(Clone, Debug, Args)]
pub struct Connect {
    /// Servers of the cluster, one is enough; the others are learned from it.
    #[arg(long, value_name = "HOST:PORT,…", value_delimiter = ',', required = true)]
    connect: Vec<String>,
    #[command(flatten)]
    tls: Tls,
}

/// The same where a universe in this process will do as well.
#[derive(Clone, Debug, Args)]
pub struct ConnectOr {
    /// Servers of a cluster, one is enough; the others are learned from it.
    #[arg(long, value_name = "HOST:PORT,…", value_delimiter = ',', conflicts_with = "data")]
    connect: Vec<String>,
    #[command(flatten)]
    tls: Tls,
}

impl ConnectOr {
    /// The cluster, if one is named.
    pub fn cluster(&self) -> Option<Connect> {
        let ConnectOr { connect, tls } = self.clone();
        (!connect.is_empty()).then_some(Connect { connect, tls })
    }
}

impl Connect {
    /// Connects.
    ///
    /// # Errors
    /// The reason, and what to do about it.
    pub async fn open(&self) -> Result<Connection, Exit> {
        Connection::open(self.connect.clone(), self.tls.security()?).await
    }
}

/// How long an answer may take.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);
/// When somebody has answered, others are not waited for longer than this: they may hang.
const OTHERS_WITHIN: Duration = Duration::from_millis(300);
/// Hints that are followed on the way to the leader of the root group.
const HINTS_MAX: usize = 4;

/// A connection to a cluster.
pub struct Connection {
    connections: Connections,
    /// Those that were named; nodes may have others.
    addresses: Vec<String>,
    /// The newest that anybody had.
    map: Mutex<Arc<UniverseMap>>,
}

impl Connection {
    /// Connects: one of the addresses has to answer.
    ///
    /// # Errors
    /// None does, or the one that does belongs to no universe.
    pub async fn open(addresses: Vec<String>, security: Security) -> Result<Connection, Exit> {
        let connections =
            Connections::new(security, Arc::new(Faults::new(0)), u64::from(std::process::id()));
        let map = Mutex::new(Arc::new(UniverseMap::default()));
        let connection = Connection { connections, addresses, map };
        match connection.fresh_map().await {
            Ok(_) => Ok(connection),
            Err(error) => {
                let hint = error.hint().map_or(String::new(), |hint| format!("\nHint: {hint}"));
                Err(Exit::failed(format!("{error}{hint}")))
            }
        }
    }

    /// Asks everybody, for the copies that nodes have may be old.
    async fn fresh_map(&self) -> Result<Arc<UniverseMap>, ConnectError> {
        let mut targets = self.known();
        targets.extend(self.addresses.iter().map(|address| Target::address(address.clone())));
        let asked = targets.iter().map(|to| async move {
            (to, self.connections.control(to, &ControlRequest::Map, ANSWER_WITHIN).await)
        });
        let mut asked: FuturesUnordered<_> = asked.collect();
        // Each ends by itself within this time.
        let mut until = Instant::now() + 2 * ANSWER_WITHIN;
        let (mut newest, mut homeless) = (None::<(String, Box<UniverseMap>)>, None);
        let mut tried = Vec::new();
        while let Ok(Some((to, answer))) = timeout_at(until, asked.next()).await {
            let reason = match answer {
                Ok(ControlReply::Map(map)) if map.founding.cluster.is_empty() => {
                    homeless =
                        Some(ConnectError::NoUniverse { address: to.address.clone(), said: None });
                    continue;
                }
                Ok(ControlReply::Map(map)) => {
                    until = until.min(Instant::now() + OTHERS_WITHIN);
                    newest = Some(newer(newest, to.address.clone(), map)?);
                    continue;
                }
                Ok(_) => "it answers something else".to_owned(),
                Err(CallError::Unreachable { reason, .. } | CallError::Lost { reason, .. }) => {
                    reason
                }
                Err(CallError::Refused(error)) => error.to_string(),
            };
            tried.push((to.address.clone(), reason));
        }
        match (newest, homeless) {
            (Some((_, map)), _) => {
                self.connections.belong_to(&map.founding.cluster);
                Ok(self.learn(*map))
            }
            (None, Some(homeless)) => Err(homeless),
            (None, None) => Err(ConnectError::Unreachable { tried }),
        }
    }

    fn learn(&self, heard: UniverseMap) -> Arc<UniverseMap> {
        let mut map = self.map.lock().unwrap_or_else(PoisonError::into_inner);
        if heard.version >= map.version {
            *map = Arc::new(heard);
        }
        map.clone()
    }

    fn map_known(&self) -> Arc<UniverseMap> {
        self.map.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Where the nodes are that are not removed.
    fn known(&self) -> Vec<Target> {
        let map = self.map_known();
        let present = map.nodes.values().filter(|info| info.state != NodeState::Removed);
        present.map(|info| Target::node(info.node, info.address.clone())).collect()
    }

    fn target(&self, node: NodeId) -> Result<Target, CallError> {
        let address = self.map_known().nodes.get(&node).map(|info| info.address.clone());
        let unknown = || Error::InvalidArgument(format!("there is no node {node}"));
        Ok(Target::node(node, address.ok_or_else(unknown)?))
    }
}

/// The newer of two maps, and who had it.
fn newer(
    known: Option<(String, Box<UniverseMap>)>,
    address: String,
    heard: Box<UniverseMap>,
) -> Result<(String, Box<UniverseMap>), ConnectError> {
    let Some((first, known)) = known else { return Ok((address, heard)) };
    if known.founding.cluster != heard.founding.cluster {
        let (one, other) = (known.founding.cluster, heard.founding.cluster);
        return Err(ConnectError::Mixed { one: (first, one), other: (address, other) });
    }
    Ok(if heard.version > known.version { (address, heard) } else { (first, known) })
}

impl Control for Connection {
    async fn map(&self) -> Result<UniverseMap, String> {
        let map = self.fresh_map().await.map_err(|error| error.to_string())?;
        Ok((*map).clone())
    }

    async fn node(&self, node: NodeId, request: ControlRequest) -> Result<ControlReply, CallError> {
        self.connections.control(&self.target(node)?, &request, ANSWER_WITHIN).await
    }

    /// Those with a replica of the root group are asked in turn, and whom they name before others.
    async fn order(&self, request: ControlRequest) -> Result<ControlReply, CallError> {
        let root = self.map_known().groups.get(&GroupId::ROOT).cloned().unwrap_or_default();
        let mut last = Error::NotLeader { hint: None }.into();
        for node in root.nodes() {
            let mut next = Some(node);
            for _ in 0..HINTS_MAX {
                let Some(node) = next.take() else { break };
                match self.node(node, request.clone()).await {
                    Err(CallError::Refused(Error::NotLeader { hint })) => {
                        next = hint.filter(|hint| *hint != node);
                        last = Error::NotLeader { hint }.into();
                    }
                    Err(error @ (CallError::Unreachable { .. } | CallError::Lost { .. })) => {
                        last = error;
                    }
                    answer => return answer,
                }
            }
        }
        Err(last)
    }

    async fn ask(&self, node: NodeId, request: Request) -> Result<Reply, CallError> {
        self.connections.try_ask(&self.target(node)?, &request, ANSWER_WITHIN).await
    }
}
