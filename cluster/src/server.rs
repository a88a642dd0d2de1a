//! One server process: started, asked how it is, drained, stopped.
//!
//! ```text
//!   folder, clock, port ──▶ found │ join │ come back ──▶ node, links, service, pages
//!                                                         │
//!                        lookout: heartbeats, own groups ◀┤
//!                        driver: placement, where it leads the root group
//!                        vitals, addresses of peers, draining
//! ```

use crate::atlas::Atlas;
use crate::config::{Config, Init};
use crate::driver;
use crate::error::StartError;
use crate::folder::Folder;
use crate::handler::Service;
use crate::host::{disk_free, memory, open_clock, wait_for_time};
use crate::http::{self, Health, Observed};
use crate::join;
use crate::leave::HandOver;
use crate::lookout::Lookout;
use crate::root::Root;
use crate::rows;
use crate::transport::NodeTransport;
use crate::vitals::{self, Vitals};
use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use parking_lot::Mutex;
use proto::control::{JoinRequest, NodeReport};
use proto::request::GroupStatus;
use proto::universe::{Descriptor, Founding, NodeInfo, NodeState, UniverseMap};
use proto::{Error, GroupId, Key as KeyBytes, NodeId, codec};
use rpc::links::{Links, LinksConfig};
use rpc::{Connections, Faults, Hello, Versions};
use spanserver::runtime::{Node, NodeConfig, Outbound, TokioClock};
use spanserver::storage::{Engine, Rocks};
use spanserver::{Message, Places, Settings};
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};
use tokio::net::TcpListener;
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;
use truetime::Interval;
use truetime::key::Key;
use truetime::providers::{Opened, SharedHostTime, boot_id};
use truetime::spec::ClockChange;
use txn::client::{Client, ClientConfig, HashPlacement};

/// How often the founder tries to write its rows.
const ROWS_EVERY: Duration = Duration::from_millis(20);
/// How long calls under way may take once the server stops.
const FAREWELL: Duration = Duration::from_secs(1);
/// How often a draining node looks whether it leads something again.
const DRAIN_EVERY: Duration = Duration::from_millis(500);
/// Most data groups of a new universe.
const GROUPS_MAX: u32 = 10_000;
/// Threads that run longer reads.
const READERS: usize = 2;
/// Threads that step groups. The same on every node, whatever its processors: a beat speaks for the
/// sleeping groups of one thread, and must find them with one thread of the other node.
const SHARDS: usize = 1;

/// What the parts of a server share.
pub(crate) struct Inner {
    pub node: Arc<Node>,
    pub atlas: Arc<Atlas>,
    pub root: Arc<Root>,
    pub faults: Arc<Faults>,
    pub links: OnceLock<Links>,
    /// Messages that did not decode.
    pub nonsense: AtomicU64,
    vitals: Vitals,
    clock: Opened,
    zone: String,
    address: String,
    folder: std::path::PathBuf,
    allow_faults: bool,
    stopping: Arc<AtomicBool>,
    begun: Instant,
}

/// A running server. Dropping it stops it at once; [`stop`](Self::stop) says good-bye.
pub struct Server {
    inner: Arc<Inner>,
    service: Option<rpc::server::Server>,
    address: SocketAddr,
    http: Option<SocketAddr>,
    expelled: watch::Receiver<Option<String>>,
    tasks: Vec<JoinHandle<()>>,
    stop_http: Option<oneshot::Sender<()>>,
    _folder: Folder,
    _host: Option<SharedHostTime>,
}

impl Server {
    /// Starts a server: founds a universe, joins one, or comes back to its own. A new node waits here
    /// until somebody lets it in.
    ///
    /// # Errors
    /// See [`StartError`].
    pub async fn start(config: Config) -> Result<Server, StartError> {
        check(&config)?;
        let me = NodeId(config.node);
        let folder = Folder::take(&config.data, me)?;
        let (host, clock) = open_clock(&config.clock)?;
        let listener = listen(&config.listen).await?;
        let address = listener.local_addr().map_err(StartError::io("asking for the port"))?;
        config.security.check_listen(address, config.insecure)?;
        let pages = match &config.http {
            Some(http) => Some(listen(http).await?),
            None => None,
        };
        wait_for_time(&clock, &config.clock).await?;
        let advertised = config.advertise.clone().unwrap_or_else(|| address.to_string());
        let boot = boot_id().map_err(StartError::io("asking which boot this is"))?;
        let host_name = match &host {
            Some(shared) => format!("{boot}:{}", shared.host().offset_ns()),
            None => boot,
        };
        let start = Start { config, me, folder, clock, advertised, host: host_name };
        start.run(listener, address, pages, host).await
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where metrics and health are.
    pub fn http_address(&self) -> Option<SocketAddr> {
        self.http
    }

    /// Whether it is well.
    pub fn ready(&self) -> Health {
        self.inner.health()
    }

    /// How it is.
    pub async fn report(&self) -> NodeReport {
        self.inner.report().await
    }

    /// Its replicas of groups.
    pub async fn groups(&self) -> Vec<GroupStatus> {
        self.inner.node.groups().await
    }

    /// Ends when the universe has given this node up, with the reason: it must stop.
    pub async fn expelled(&self) -> String {
        let mut expelled = self.expelled.clone();
        let reason = expelled.wait_for(Option::is_some).await.ok().and_then(|why| why.clone());
        match reason {
            Some(reason) => reason,
            None => std::future::pending().await,
        }
    }

    /// Hands all leaderships on, for at most so long; from now on it wants none. `tell` hears how many
    /// are left. `true`: none is.
    pub async fn drain(&self, limit: Duration, tell: impl FnMut(usize)) -> bool {
        self.inner.stopping.store(true, Ordering::Relaxed);
        let Some(links) = self.inner.links.get() else { return true };
        HandOver::new(&self.inner.node, &self.inner.atlas, links).all(limit, tell).await
    }

    /// Stops. What was acknowledged is on disk.
    pub async fn stop(mut self) {
        self.inner.stopping.store(true, Ordering::Relaxed);
        // First: other nodes notice at once, and the service has no streams to wait for.
        if let Some(links) = self.inner.links.get() {
            links.close();
        }
        if let Some(service) = self.service.take() {
            service.shutdown(FAREWELL).await;
        }
        self.end();
        let node = self.inner.node.clone();
        // Its threads are waited for, which is no thing to do on a thread of the runtime.
        let _ = tokio::task::spawn_blocking(move || node.stop()).await;
    }

    fn end(&mut self) {
        if let Some(links) = self.inner.links.get() {
            links.close();
        }
        self.stop_http.take();
        for task in self.tasks.drain(..) {
            task.abort();
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.end();
        // Its parts hold one another: without this its threads would go on. They are not waited for.
        let node = self.inner.node.clone();
        std::thread::spawn(move || node.stop());
    }
}

impl Inner {
    /// Faults are made only where that was allowed at the start.
    pub fn may_fail(&self) -> Result<(), Error> {
        match self.allow_faults {
            true => Ok(()),
            false => Err(Error::FailedPrecondition(
                "this server makes no faults: start it with --allow-faults".into(),
            )),
        }
    }

    /// Makes a simulated clock wrong, or right again.
    pub fn change_clock(&self, text: &str) -> Result<(), Error> {
        let change: ClockChange =
            text.parse().map_err(|error| Error::InvalidArgument(format!("{error}")))?;
        let simulated = self.clock.simulated.as_ref().ok_or_else(|| {
            Error::FailedPrecondition("only a simulated clock can be made wrong".into())
        })?;
        if let Some(epsilon_us) = change.epsilon_us {
            Settings::default().validate(epsilon_us).map_err(Error::InvalidArgument)?; // L7
        }
        simulated.set(|skew| change.apply(simulated.absolute_ns(), skew));
        Ok(())
    }

    pub async fn report(&self) -> NodeReport {
        let look = self.vitals.last();
        let stats = self.node.stats();
        let reading = self.clock.clock.read();
        let (clock, epsilon_us) = match &reading {
            Ok(reading) => {
                let text = format!("{} {}", reading.provider, reading.status);
                (text, Some(reading.interval.epsilon_us()))
            }
            Err(error) => (error.to_string(), None),
        };
        NodeReport {
            node: self.node.id(),
            address: self.address.clone(),
            zone: self.zone.clone(),
            program: env!("CARGO_PKG_VERSION").to_owned(),
            up_ms: u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(u64::MAX),
            clock,
            epsilon_us,
            replicas: look.replicas,
            leads: look.leads,
            disk_bytes: stats.disk_bytes,
            disk_free_bytes: disk_free(&self.folder),
            memory_bytes: memory(),
            syncs: stats.syncs,
            in_flight: self.node.in_flight() as u64,
            peers: self.links.get().map(Links::report).unwrap_or_default(),
        }
    }
}

impl Observed for Inner {
    fn health(&self) -> Health {
        let joined = !self.atlas.map().nodes.is_empty();
        let (has_time, state) = (self.clock.clock.now().is_ok(), self.atlas.my_state());
        self.vitals.health(joined, has_time, state, self.stopping.load(Ordering::Relaxed))
    }

    fn report(&self) -> BoxFuture<'_, NodeReport> {
        Inner::report(self).boxed()
    }

    fn groups(&self) -> BoxFuture<'_, Vec<GroupStatus>> {
        self.node.groups().boxed()
    }

    fn now(&self) -> Option<Interval> {
        self.clock.clock.now().ok()
    }
}

/// A server on its way up.
struct Start {
    config: Config,
    me: NodeId,
    folder: Folder,
    clock: Opened,
    advertised: String,
    /// See [`NodeInfo::host`].
    host: String,
}

impl Start {
    async fn run(
        mut self,
        listener: TcpListener,
        address: SocketAddr,
        pages: Option<TcpListener>,
        host: Option<SharedHostTime>,
    ) -> Result<Server, StartError> {
        let faults = Arc::new(Faults::new(rand::random()));
        let connections =
            Connections::new(self.config.security.clone(), faults.clone(), rand::random());
        let (map, engine) = self.belong(&connections).await?;
        connections.belong_to(&map.founding.cluster);
        let key = self.folder.key()?;
        let node = self.start_node(&map.founding, engine, key.clone())?;
        let atlas = Arc::new(Atlas::new(self.me, self.folder.path().to_owned(), map));
        let transport =
            Arc::new(NodeTransport { node: node.clone(), atlas: atlas.clone(), connections });
        let client = self.client(&transport);
        let certificate_key = key.map(|key| key.to_hex()).unwrap_or_default();
        let root = Arc::new(Root {
            node: node.clone(),
            client,
            atlas: atlas.clone(),
            certificate_key,
            seen: Mutex::default(),
        });
        let inner = Arc::new(Inner {
            node,
            atlas,
            root,
            faults,
            links: OnceLock::new(),
            nonsense: AtomicU64::new(0),
            vitals: Vitals::new(),
            clock: self.clock.clone(),
            zone: self.config.zone.clone(),
            address: self.advertised.clone(),
            folder: self.folder.path().to_owned(),
            allow_faults: self.config.allow_faults,
            stopping: Arc::new(AtomicBool::new(false)),
            begun: Instant::now(),
        });
        self.serve(inner, transport, listener, address, pages, host)
    }

    /// The universe this node belongs to, and its disk.
    async fn belong(
        &mut self,
        connections: &Connections,
    ) -> Result<(UniverseMap, Rocks), StartError> {
        if let Some(founding) = self.folder.identity.founding.clone() {
            let map = self.folder.map().filter(|map| map.founding == founding);
            let map = map.unwrap_or_else(|| match self.folder.identity.founder {
                true => self.first_map(founding.clone()),
                false => UniverseMap { founding, ..UniverseMap::default() },
            });
            self.check_whole()?;
            return Ok((map, self.open_engine()?));
        }
        let entrances = self.entrances();
        let found = self.config.init.clone();
        // A founder that has lost its folder must not found a second universe beside the first.
        if let Some(init) = found
            && !join::is_there(connections, &entrances).await
        {
            return self.found(&init);
        }
        if entrances.is_empty() {
            return Err(StartError::Nowhere { folder: self.folder.path().to_owned() });
        }
        let request = JoinRequest { info: self.info(), cluster: None };
        let joined = join::enter(connections, &entrances, &request).await?;
        let key = Key::from_hex(&joined.certificate_key)
            .map_err(|error| StartError::Invalid(format!("the universe's key: {error}")))?;
        let engine = self.open_engine()?;
        if !spanserver::hosted(&engine)?.is_empty() {
            let what = "it was to found a universe once, and was stopped half way: empty it".into();
            return Err(StartError::Damaged { folder: self.folder.path().to_owned(), what });
        }
        self.folder.keep_key(&key)?;
        let path = self.folder.path();
        crate::folder::keep_map(path, &joined.map).map_err(StartError::io("keeping the map"))?;
        self.folder.belong(&joined.map.founding, false)?;
        Ok((joined.map, engine))
    }

    /// Where others may be; this node itself is not asked.
    fn entrances(&self) -> Vec<String> {
        let join = self.config.join.iter();
        join.filter(|address| **address != self.advertised).cloned().collect()
    }

    /// A folder of a universe has what it had when it became one.
    fn check_whole(&self) -> Result<(), StartError> {
        let damaged = |what: &str| {
            Err(StartError::Damaged { folder: self.folder.path().to_owned(), what: what.into() })
        };
        if !self.folder.database().join("CURRENT").exists() {
            return damaged(
                "its database is gone; if it is lost, start with a new folder and number, and \
                 `meridian admin replace-node` this one",
            );
        }
        match self.folder.key()? {
            Some(_) => Ok(()),
            None => damaged("certificate.key is gone: copy it from another node of the universe"),
        }
    }

    /// A new universe, with this node as the one voter of every group.
    fn found(&mut self, init: &Init) -> Result<(UniverseMap, Rocks), StartError> {
        let founding = Founding {
            cluster: format!("{:016x}", rand::random::<u64>()),
            data_groups: init.groups,
            replicas: init.replicas,
            retention_s: init.retention.as_secs(),
        };
        let engine = self.open_engine()?;
        let key = Key::from_hex(&format!(
            "{:032x}{:032x}",
            rand::random::<u128>(),
            rand::random::<u128>()
        ))
        .map_err(|error| StartError::Invalid(error.to_string()))?;
        self.folder.keep_key(&key)?;
        spanserver::found(&engine, (0..=init.groups).map(GroupId), &[self.me])?;
        // Last: before this the folder is of no universe, and all of the above is done again.
        self.folder.belong(&founding, true)?;
        tracing::info!(cluster = founding.cluster, groups = init.groups, "founded a universe");
        Ok((self.first_map(founding), engine))
    }

    /// What the founder knows before there are rows.
    fn first_map(&self, founding: Founding) -> UniverseMap {
        let members = proto::request::Members {
            voters: [self.me].into(),
            ..proto::request::Members::default()
        };
        let descriptor = |group| Descriptor { group, generation: 0, members: members.clone() };
        let groups = (0..=founding.data_groups).map(GroupId);
        UniverseMap {
            version: truetime::Timestamp::MIN,
            groups: groups.map(|group| (group, descriptor(group))).collect(),
            nodes: BTreeMap::from([(self.me, self.info())]),
            founding,
        }
    }

    fn info(&self) -> NodeInfo {
        NodeInfo {
            node: self.me,
            instance: self.folder.identity.instance.clone(),
            address: self.advertised.clone(),
            zone: self.config.zone.clone(),
            state: NodeState::Active,
            replaced_by: None,
            host: self.host.clone(),
            clock: self.config.clock.provider().to_owned(),
        }
    }

    fn open_engine(&self) -> Result<Rocks, StartError> {
        Ok(Rocks::open(&self.folder.database())?)
    }

    fn start_node(
        &self,
        founding: &Founding,
        engine: Rocks,
        certificate_key: Option<Key>,
    ) -> Result<Arc<Node>, StartError> {
        let mut settings =
            Settings { seed: rand::random(), certificate_key, ..Settings::default() };
        settings.txn.retention_ms = founding.retention_s * 1_000;
        let groups = spanserver::hosted(&engine)?;
        let node = Node::start(NodeConfig {
            node: self.me,
            groups,
            settings,
            engine: Arc::new(engine) as Arc<dyn Engine>,
            clock: self.clock.clock.clone(),
            shards: SHARDS,
            readers: READERS,
        })?;
        Ok(Arc::new(node))
    }

    fn client(&self, transport: &Arc<NodeTransport>) -> Client {
        let founding = transport.atlas.map().founding.clone();
        let placement = HashPlacement {
            groups: founding.data_groups,
            root_prefix: KeyBytes::from_static(&sql::keys::CATALOG_PREFIX),
            directory: sql::keys::directory_of,
        };
        let config = ClientConfig {
            client: rand::random(),
            seed: rand::random(),
            retention: Duration::from_secs(founding.retention_s),
            ..ClientConfig::default()
        };
        let clock = Arc::new(TokioClock::new(self.clock.clock.clone()));
        Client::new(transport.clone(), clock, Arc::new(placement), config)
    }

    /// Opens the doors.
    fn serve(
        self,
        inner: Arc<Inner>,
        transport: Arc<NodeTransport>,
        listener: TcpListener,
        address: SocketAddr,
        pages: Option<TcpListener>,
        host: Option<SharedHostTime>,
    ) -> Result<Server, StartError> {
        let handler = Arc::new(Service { inner: inner.clone() });
        let security = self.config.security.clone();
        let links = Links::new(
            self.hello(&inner),
            security.clone(),
            handler.clone(),
            inner.faults.clone(),
            LinksConfig { seed: rand::random(), ..LinksConfig::default() },
        );
        inner.node.connect_over(Arc::new(OverLinks(links.clone())));
        let _ = inner.links.set(links.clone());
        links.set_peers(inner.atlas.peers());
        let service = rpc::server::Server::start(listener, security, handler, links.clone())
            .map_err(StartError::io("serving"))?;
        let http = pages.as_ref().and_then(|pages| pages.local_addr().ok());
        let (stop_http, http_stopped) = oneshot::channel::<()>();
        let (expelled, is_expelled) = watch::channel(None);
        let mut tasks = vec![
            tokio::spawn(driver::drive(inner.root.clone())),
            tokio::spawn(keep_places(inner.clone(), links.clone())),
            tokio::spawn(inner.atlas.clone().keep()),
            tokio::spawn(keep_looking(inner.clone())),
            tokio::spawn(keep_drained(inner.clone(), links)),
        ];
        let lookout = Lookout {
            node: inner.node.clone(),
            root: inner.root.clone(),
            atlas: inner.atlas.clone(),
            transport,
            info: self.info(),
            entrances: self.entrances(),
            stopping: inner.stopping.clone(),
            expelled,
        };
        tasks.push(tokio::spawn(lookout.run()));
        if self.folder.identity.founder {
            tasks.push(tokio::spawn(write_first_map(inner.root.clone(), inner.atlas.map())));
        }
        if let Some(pages) = pages {
            let stopped = async move { drop(http_stopped.await) };
            let observed = inner.clone();
            tasks.push(tokio::spawn(async move {
                if let Err(error) = http::serve(pages, observed, stopped).await {
                    tracing::error!(%error, "metrics and health are not served any more");
                }
            }));
        }
        Ok(Server {
            inner,
            service: Some(service),
            address,
            http,
            expelled: is_expelled,
            tasks,
            stop_http: Some(stop_http),
            _folder: self.folder,
            _host: host,
        })
    }

    fn hello(&self, inner: &Inner) -> Hello {
        let info = self.info();
        Hello {
            cluster: inner.atlas.map().founding.cluster.clone(),
            node: self.me,
            instance: info.instance,
            versions: Versions::OURS,
            address: info.address,
            host: info.host,
            clock: info.clock,
        }
    }
}

/// Messages to other nodes, over links.
struct OverLinks(Links);

impl Outbound for OverLinks {
    fn send(&self, to: NodeId, message: Message) {
        self.0.send(to, Bytes::from(codec::encode(&message)));
    }
}

/// Links follow what is known of addresses, and groups are told where others are.
async fn keep_places(inner: Arc<Inner>, links: Links) {
    let mut changes = inner.atlas.subscribe();
    loop {
        links.set_peers(inner.atlas.peers());
        let map = inner.atlas.map();
        let places: Places = map.groups.iter().map(|(group, d)| (*group, d.nodes())).collect();
        inner.node.set_places(&Arc::new(places));
        if changes.changed().await.is_err() {
            return;
        }
    }
}

async fn keep_looking(inner: Arc<Inner>) {
    loop {
        inner.vitals.look(&inner.node).await;
        tokio::time::sleep(vitals::LOOK_EVERY).await;
    }
}

/// A node that is told to drain leads nothing for long.
async fn keep_drained(inner: Arc<Inner>, links: Links) {
    let mut hand_over = HandOver::new(&inner.node, &inner.atlas, &links);
    loop {
        if inner.atlas.my_state() == NodeState::Draining {
            hand_over.once(&BTreeSet::new()).await;
        }
        tokio::time::sleep(DRAIN_EVERY).await;
    }
}

/// The founder's rows; again after a crash that came between.
async fn write_first_map(root: Arc<Root>, map: Arc<UniverseMap>) {
    while let Err(error) = rows::found(&root.client, &map).await {
        tracing::debug!(%error, "the first map waits");
        tokio::time::sleep(ROWS_EVERY).await;
    }
    if let Err(error) = root.reload().await {
        tracing::debug!(%error, "the first map is read later");
    }
}

fn check(config: &Config) -> Result<(), StartError> {
    let invalid = |why: String| Err(StartError::Invalid(why));
    if config.node == 0 {
        return invalid("a node's number is 1 or more".into());
    }
    if config.zone.is_empty() || config.zone.len() > 64 {
        return invalid("a zone's name has 1 to 64 characters".into());
    }
    if let Some(init) = &config.init {
        if !(1..=GROUPS_MAX).contains(&init.groups) {
            return invalid(format!("{} groups: choose 1 to {GROUPS_MAX}", init.groups));
        }
        if ![1, 3, 5, 7].contains(&init.replicas) {
            return invalid(format!("{} replicas: choose 1, 3, 5 or 7", init.replicas));
        }
        if !(1..=7 * 86_400).contains(&init.retention.as_secs()) {
            return invalid("versions are kept for 1 s to 7 d".into());
        }
    }
    Ok(())
}

async fn listen(address: &str) -> Result<TcpListener, StartError> {
    TcpListener::bind(address)
        .await
        .map_err(|source| StartError::Listen { address: address.to_owned(), source })
}
