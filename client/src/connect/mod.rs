//! A universe of other processes: any of its servers leads to all of them.
//!
//! ```text
//!   Database ── Client ── router ── Remote ── wire ──► servers
//!      │           │                  │ the map            ▲  ▲
//!      │           └─ ClusterClock    └── Refresher ───────┘  │   when the map has led nowhere
//!      │                 └─ Nodes ◄────── Keeper ─────────────┘   every second: what time is it?
//!      └ statements run here, in the client's process
//! ```
//!
//! SQL, transactions and two-phase commit are this process's work, as with a [`Universe`] of its own;
//! what differs is who carries a request. Nothing is looked up on the way of one: places come from a
//! copy of the map, corrected by the servers ([`Remote`], X12), the time from a clock that is kept up
//! beside ([`Keeper`], T3).
//!
//! [`Universe`]: crate::Universe

mod clock;
mod error;
mod map;
mod transport;
mod wire;

pub use error::{ConnectError, ControlError};

use clock::{ClusterClock, Keeper};
use futures::future::join_all;
use map::MapCache;
use proto::control::{ControlReply, ControlRequest};
use proto::request::GroupStatus;
use proto::universe::UniverseMap;
use proto::{Error, Key, NodeId};
use rpc::security::Security;
use rpc::{CallError, Target};
use sql::{Database, Options};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use transport::{Refresher, Remote};
use truetime::providers::{HostTime, Nodes, NodesConfig, SharedHostTime, open};
use truetime::spec::ClockSpec;
use truetime::{ClockError, Reading, Sources, TrueTime};
use txn::client::{Client, ClientConfig, HashPlacement};
use wire::Wire;

/// How long an address may take to answer at the start.
const FIRST_WITHIN: Duration = Duration::from_secs(3);
/// How long the others are waited for when one has answered: they may be of another universe.
const OTHERS_WITHIN: Duration = Duration::from_millis(300);
/// How long the first try of a request may go unanswered: about as long as a group needs for another
/// leader, when the one it has falls silent.
const ATTEMPT_MS: u64 = 700;
/// How long a later one may.
const ATTEMPT_MS_MAX: u64 = 3_000;
/// How long a clock of the client's own may take to have a bound.
const CLOCK_WITHIN: Duration = Duration::from_secs(15);
const CLOCK_LOOK_EVERY: Duration = Duration::from_millis(20);
/// How long the leader of the root group is looked for, and the pause between two rounds.
const LEADER_WITHIN: Duration = Duration::from_secs(10);
const LEADER_PAUSE: Duration = Duration::from_millis(50);
/// How long a node may take to answer a question about itself.
const CONTROL_WITHIN: Duration = Duration::from_secs(5);

/// How a client connects.
#[derive(Clone, Debug)]
pub struct ConnectOptions {
    /// TLS, with a certificate of the client's own; or plaintext, for servers that speak it.
    pub security: Security,
    /// The client's clock. `None`: the servers are asked what time it is, and believed.
    pub clock: Option<ClockSpec>,
}

impl Default for ConnectOptions {
    fn default() -> ConnectOptions {
        ConnectOptions { security: Security::Plaintext, clock: None }
    }
}

/// A connection to a universe of servers; it ends when dropped.
pub struct Cluster {
    wire: Arc<dyn Wire>,
    map: Arc<MapCache>,
    client: Client,
    clock: TrueTime,
    database: Arc<Database>,
    tasks: Tasks,
    /// Of a clock of this host: what it showed first, shared with the servers that run here.
    _host: Option<SharedHostTime>,
}

/// Work beside the requests; it ends with the connection.
struct Tasks(Vec<JoinHandle<()>>);

impl Drop for Tasks {
    fn drop(&mut self) {
        self.0.iter().for_each(JoinHandle::abort);
    }
}

impl Cluster {
    /// Connects to the universe that these servers (`HOST:PORT`) belong to. One that answers is
    /// enough; the others are learned from it.
    ///
    /// # Errors
    /// See [`ConnectError`].
    pub async fn connect<A: AsRef<str>>(
        addresses: &[A],
        options: ConnectOptions,
    ) -> Result<Cluster, ConnectError> {
        let addresses = addresses.iter().map(|address| address.as_ref().trim().to_owned());
        let addresses = checked(addresses.collect())?;
        let wire = Arc::new(wire::Grpc::new(options.security));
        Cluster::over(wire, addresses, options.clock).await
    }

    async fn over(
        wire: Arc<dyn Wire>,
        addresses: Vec<String>,
        clock: Option<ClockSpec>,
    ) -> Result<Cluster, ConnectError> {
        let map = Arc::new(MapCache::new(first_map(&wire, &addresses).await?));
        // An address may come to be somebody else's.
        wire.belong_to(&map.get().founding.cluster);
        let mut host = None;
        let used = Arc::new(AtomicBool::new(true));
        let mut tasks = Tasks(Vec::new());
        let clock = match clock {
            Some(spec) => own_clock(&spec, &mut host).await?,
            None => {
                let clock = Nodes::new(NodesConfig::default());
                let mut keeper =
                    Keeper::new(wire.clone(), map.clone(), clock.clone(), used.clone());
                keeper.begin().await.map_err(ConnectError::NoTime)?;
                tasks.0.push(tokio::spawn(keeper.run()));
                TrueTime::new(clock)
            }
        };
        let wanted = Arc::new(Notify::new());
        let refresher = Refresher::new(wire.clone(), map.clone(), wanted.clone(), addresses);
        tasks.0.push(tokio::spawn(refresher.run()));
        let remote = Remote::new(wire.clone(), map.clone(), wanted);
        let client_clock = ClusterClock::new(clock.clone(), used);
        let client = make_client(remote, client_clock, &map.get());
        // Other clients may change the schema (S1).
        let database = Database::open_with(client.clone(), Options::shared()).await;
        let database = database.map_err(ConnectError::NotServing)?;
        Ok(Cluster { wire, map, client, clock, database, tasks, _host: host })
    }

    /// The database of this universe.
    pub fn database(&self) -> Arc<Database> {
        self.database.clone()
    }

    /// The transaction layer under the database: keys and values, without tables.
    pub fn client(&self) -> Client {
        self.client.clone()
    }

    /// The universe's identity.
    pub fn id(&self) -> String {
        self.map.get().founding.cluster.clone()
    }

    /// Where everything is, as far as this client knows now.
    pub fn map(&self) -> Arc<UniverseMap> {
        self.map.get()
    }

    /// The nodes that there are.
    pub fn nodes(&self) -> Vec<NodeId> {
        self.map.nodes()
    }

    /// What this client's clock says now.
    ///
    /// # Errors
    /// It has no bound (T5).
    pub fn clock(&self) -> Result<Reading, ClockError> {
        self.clock.read()
    }

    /// Where this client's clock has the time from.
    pub fn clock_sources(&self) -> Sources {
        self.clock.sources()
    }

    /// Each group at each replica, at a glance; nodes that do not answer are left out.
    pub async fn status(&self) -> Vec<GroupStatus> {
        let asked = self.nodes().into_iter().map(|node| self.control(node, ControlRequest::Groups));
        let mut all = Vec::new();
        for answer in join_all(asked).await {
            if let Ok(ControlReply::Groups(groups)) = answer {
                all.extend(groups);
            }
        }
        all.sort_by_key(|status| (status.group, status.node));
        all
    }

    /// Asks a node about itself or the universe, or tells it something. `None` for `to`: whoever
    /// answers, and for what only the leader of the root group can do, that leader, which is looked
    /// for. Orders may be carried out twice when an answer is lost; that makes no difference.
    ///
    /// # Errors
    /// See [`ControlError`].
    pub async fn control(
        &self,
        to: impl Into<Option<NodeId>>,
        request: ControlRequest,
    ) -> Result<ControlReply, ControlError> {
        match to.into() {
            Some(node) => self.control_node(node, request).await,
            None => self.control_any(request).await,
        }
    }

    async fn control_node(
        &self,
        node: NodeId,
        request: ControlRequest,
    ) -> Result<ControlReply, ControlError> {
        let address = self.map.address(node);
        let unknown = || ControlError::Unknown { node, known: self.nodes() };
        let to = Target::node(node, address.ok_or_else(unknown)?);
        let reply = self.wire.control(to, request, CONTROL_WITHIN).await?;
        if let ControlReply::Map(map) = &reply {
            self.map.learn((**map).clone());
        }
        Ok(reply)
    }

    /// Asks one after the other; hints are followed first.
    async fn control_any(&self, request: ControlRequest) -> Result<ControlReply, ControlError> {
        let began = Instant::now();
        loop {
            let mut last = None;
            let mut hinted: Option<NodeId> = None;
            for node in self.nodes() {
                let node = hinted.take().unwrap_or(node);
                match self.control_node(node, request.clone()).await {
                    Ok(reply) => return Ok(reply),
                    Err(error) => {
                        match &error {
                            ControlError::Call(CallError::Refused(Error::NotLeader { hint })) => {
                                hinted = *hint;
                            }
                            ControlError::Call(CallError::Refused(_)) => return Err(error),
                            _ => {}
                        }
                        last = Some(error);
                    }
                }
            }
            if let Some(error) = last
                && began.elapsed() >= LEADER_WITHIN
            {
                return Err(error);
            }
            tokio::time::sleep(LEADER_PAUSE).await;
        }
    }

    /// Ends the connection. Transactions under way end with errors; what was acknowledged is kept by
    /// the servers.
    pub fn close(self) {
        drop(self.tasks);
    }
}

fn checked(addresses: Vec<String>) -> Result<Vec<String>, ConnectError> {
    if addresses.is_empty() {
        return Err(ConnectError::Address("no address is given".into()));
    }
    for address in &addresses {
        let port = address.rsplit_once(':').filter(|(host, _)| !host.is_empty());
        if port.is_none_or(|(_, port)| port.parse::<u16>().is_err()) {
            return Err(ConnectError::Address(format!("`{address}` is no address")));
        }
    }
    Ok(addresses)
}

/// Asks all addresses at once. The newest of the maps that come.
async fn first_map(
    wire: &Arc<dyn Wire>,
    addresses: &[String],
) -> Result<UniverseMap, ConnectError> {
    let mut asked = tokio::task::JoinSet::new();
    for address in addresses {
        let (wire, address) = (wire.clone(), address.clone());
        asked.spawn(async move {
            let to = Target::address(address.clone());
            (address, wire.control(to, ControlRequest::Map, FIRST_WITHIN).await)
        });
    }
    let mut newest: Option<(String, UniverseMap)> = None;
    let mut homeless = None;
    let mut tried = Vec::new();
    while let Some(answered) = next(&mut asked, newest.is_some()).await {
        let (address, answer) = answered;
        match answer {
            Ok(ControlReply::Map(map))
                if map.founding.cluster.is_empty() || map.nodes.is_empty() =>
            {
                homeless = Some(ConnectError::NoUniverse { address, said: None });
            }
            Ok(ControlReply::Map(map)) => newest = Some(newer(newest, address, *map)?),
            Ok(_) => tried.push((address, "it answers something else".into())),
            Err(CallError::Refused(Error::FailedPrecondition(said))) => {
                homeless = Some(ConnectError::NoUniverse { address, said: Some(said) });
            }
            Err(CallError::Refused(error)) => tried.push((address, error.to_string())),
            Err(CallError::Unreachable { reason, .. } | CallError::Lost { reason, .. }) => {
                tried.push((address, reason));
            }
        }
    }
    tried.sort();
    match (newest, homeless) {
        (Some((_, map)), _) => Ok(map),
        (None, Some(homeless)) => Err(homeless),
        (None, None) => Err(ConnectError::Unreachable { tried }),
    }
}

/// The newer of two maps of one universe, and who had the first.
fn newer(
    known: Option<(String, UniverseMap)>,
    address: String,
    heard: UniverseMap,
) -> Result<(String, UniverseMap), ConnectError> {
    let Some((first, known)) = known else { return Ok((address, heard)) };
    let (one, other) = (known.founding.cluster.clone(), heard.founding.cluster.clone());
    if one != other {
        return Err(ConnectError::Mixed { one: (first, one), other: (address, other) });
    }
    Ok((first, if heard.version > known.version { heard } else { known }))
}

/// The next answer; when there is one already, others are not waited for so long.
async fn next<T: 'static>(asked: &mut tokio::task::JoinSet<T>, is_enough: bool) -> Option<T> {
    loop {
        let joined = if is_enough {
            tokio::time::timeout(OTHERS_WITHIN, asked.join_next()).await.ok().flatten()
        } else {
            asked.join_next().await
        };
        match joined {
            Some(Ok(answer)) => return Some(answer),
            Some(Err(_)) => {} // it panicked, which has been printed
            None => return None,
        }
    }
}

/// Opens a clock that the user has chosen, and waits for its bound.
async fn own_clock(
    spec: &ClockSpec,
    shared: &mut Option<SharedHostTime>,
) -> Result<TrueTime, ConnectError> {
    let mut host = HostTime::new();
    if matches!(spec, ClockSpec::Local { .. } | ClockSpec::Simulated(_)) {
        // Another process may have been started before the wall clock was set.
        let joined = SharedHostTime::join().map_err(|error| {
            ConnectError::NoTime(format!("the host's time cannot be shared: {error}"))
        })?;
        host = joined.host();
        *shared = Some(joined);
    }
    let clock = open(spec, host).map_err(ConnectError::Clock)?.clock;
    let began = Instant::now();
    loop {
        match clock.read() {
            Ok(_) => return Ok(clock),
            Err(error) if began.elapsed() >= CLOCK_WITHIN => {
                return Err(ConnectError::NoTime(error.to_string()));
            }
            Err(_) => tokio::time::sleep(CLOCK_LOOK_EVERY).await,
        }
    }
}

fn make_client(remote: Remote, clock: ClusterClock, map: &UniverseMap) -> Client {
    let placement = HashPlacement {
        groups: map.founding.data_groups,
        root_prefix: Key::from_static(&sql::keys::CATALOG_PREFIX),
        directory: sql::keys::directory_of,
    };
    let config = ClientConfig {
        client: rand::random(),
        seed: rand::random(),
        retention: Duration::from_secs(map.founding.retention_s),
        attempt_ms: ATTEMPT_MS,
        attempt_ms_max: ATTEMPT_MS_MAX,
        ..ClientConfig::default()
    };
    Client::new(Arc::new(remote), Arc::new(clock), Arc::new(placement), config)
}

#[cfg(test)]
mod tests;
