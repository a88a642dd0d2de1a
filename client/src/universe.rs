//! A universe within one process: servers, the transport between them, and the database on top.

use crate::clocks::{ClockChangeError, Clocks, NodeClock, Whose};
use crate::error::OpenError;
use crate::folder::{Description, Folder};
use proto::request::{Body, GroupStatus, ReplyBody};
use proto::seal::fingerprint;
use proto::{GroupId, Key, NodeId};
use spanserver::Settings;
use spanserver::runtime::{InProcess, Node, NodeConfig, TokioClock};
use spanserver::storage::{Engine, Rocks, StorageError};
use sql::Database;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use truetime::spec::{ClockChange, ClockSpec, ClockSpecs};
use truetime::{Timestamp, TrueTime};
use txn::client::{Client, ClientConfig, HashPlacement};

/// Data groups of a new universe, besides the root group.
const GROUPS_DEFAULT: u32 = 4;
const RETENTION_DEFAULT: Duration = Duration::from_secs(3_600);
/// How long a universe waits for its clocks at the start.
const CLOCK_WAIT_DEFAULT: Duration = Duration::from_secs(15);

/// How a universe is opened, and made when it is not there.
#[derive(Clone, Debug, Default)]
pub struct Builder {
    replicas: Option<u32>,
    groups: Option<u32>,
    retention: Option<Duration>,
    clocks: ClockSpecs,
    clock_faults_allowed: bool,
    clock_wait: Option<Duration>,
    on_wait: Option<fn(&str)>,
}

impl Builder {
    /// Replicas of each group: 1 (the default) or 3. Chosen when a universe is made; for one that
    /// exists it must fit.
    pub fn replicas(mut self, replicas: u32) -> Builder {
        self.replicas = Some(replicas);
        self
    }

    /// Data groups of a universe that is made now (default 4, at least 1).
    pub fn groups(mut self, groups: u32) -> Builder {
        self.groups = Some(groups);
        self
    }

    /// How far back a universe that is made now keeps versions (default one hour, at most seven
    /// days).
    pub fn retention(mut self, retention: Duration) -> Builder {
        self.retention = Some(retention);
        self
    }

    /// The clock of everybody who has none of their own (default: the host's, ε 50 µs). Each node
    /// opens one for itself, and so do the clients.
    pub fn clock(mut self, spec: ClockSpec) -> Builder {
        self.clocks.all = spec;
        self
    }

    /// The clock of one node.
    pub fn node_clock(mut self, node: NodeId, spec: ClockSpec) -> Builder {
        self.clocks.nodes.insert(node.0, spec);
        self
    }

    /// The clock of the clients, and of everything in the process that is not a node.
    pub fn client_clock(mut self, spec: ClockSpec) -> Builder {
        self.clocks.client = Some(spec);
        self
    }

    /// All clocks at once, as they were parsed.
    pub fn clocks(mut self, specs: ClockSpecs) -> Builder {
        self.clocks = specs;
        self
    }

    /// Whether [`Universe::set_clock`] may make simulated clocks wrong while it runs (default: no).
    pub fn allow_clock_faults(mut self, allowed: bool) -> Builder {
        self.clock_faults_allowed = allowed;
        self
    }

    /// How long to wait for clocks that have no bound at the start (default 15 s).
    pub fn clock_wait(mut self, limit: Duration) -> Builder {
        self.clock_wait = Some(limit);
        self
    }

    /// Who is told, in a sentence, when opening has to wait for something.
    pub fn on_wait(mut self, tell: fn(&str)) -> Builder {
        self.on_wait = Some(tell);
        self
    }

    /// Opens the universe in a folder, or makes one there.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub async fn open(self, path: impl AsRef<Path>) -> Result<Universe, OpenError> {
        Universe::open_with(self, path.as_ref()).await
    }

    fn describe(&self) -> Result<Description, OpenError> {
        let replicas = self.replicas.unwrap_or(1);
        if replicas != 1 && replicas != 3 {
            return Err(OpenError::Invalid(format!("{replicas} replicas: choose 1 or 3")));
        }
        let groups = self.groups.unwrap_or(GROUPS_DEFAULT);
        if !(1..=256).contains(&groups) {
            return Err(OpenError::Invalid(format!("{groups} groups: choose 1 to 256")));
        }
        let retention_s = self.retention.unwrap_or(RETENTION_DEFAULT).as_secs();
        if !(1..=7 * 86_400).contains(&retention_s) {
            return Err(OpenError::Invalid(format!(
                "retention of {retention_s} s: choose 1 s to 7 d"
            )));
        }
        Ok(Description::new(rand::random(), replicas, groups, retention_s))
    }
}

/// Counters of all servers together.
#[derive(Clone, Copy, Debug, Default)]
pub struct UniverseStats {
    /// Disk syncs of the logs since the start.
    pub syncs: u64,
    /// Bytes on disk.
    pub disk_bytes: u64,
    /// Bytes of keys and values handed to the engines since the start.
    pub bytes_logged: u64,
    /// Bytes the engines wrote to the disks since the start: logs, files, and compaction.
    pub bytes_written: u64,
    /// Replicas of each group.
    pub replicas: u32,
    /// Groups, the root group included.
    pub groups: u32,
}

/// A running universe; it stops when dropped. What was acknowledged is on disk.
pub struct Universe {
    nodes: Vec<Arc<Node>>,
    client: Client,
    database: Arc<Database>,
    description: Description,
    clocks: Clocks,
    key_fingerprint: String,
    _folder: Folder,
}

impl Universe {
    /// Opens the universe in a folder, or makes one there with one replica.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub async fn open(path: impl AsRef<Path>) -> Result<Universe, OpenError> {
        Universe::builder().open(path).await
    }

    /// Opens or makes a universe with chosen settings.
    pub fn builder() -> Builder {
        Builder::default()
    }

    async fn open_with(builder: Builder, path: &Path) -> Result<Universe, OpenError> {
        let wanted = builder.describe()?;
        let folder = Folder::take(path)?;
        let existing = folder.description()?;
        if let (Some(existing), Some(asked)) = (&existing, builder.replicas)
            && existing.replicas != asked
        {
            let existing = existing.replicas;
            return Err(OpenError::Replicas { folder: path.to_owned(), existing, asked });
        }
        let description = existing.clone().unwrap_or(wanted);
        let clocks =
            Clocks::open(&builder.clocks, description.replicas, builder.clock_faults_allowed)?;
        let limit = builder.clock_wait.unwrap_or(CLOCK_WAIT_DEFAULT);
        clocks.wait(limit, builder.on_wait).await?;
        let folders = (1..=description.replicas).map(|node| folder.node(node)).collect();
        let engines = open_engines(folders)?;
        let key = folder.certificate_key()?;
        let key_fingerprint = fingerprint(&key);
        if existing.is_none() {
            // Once, before the folder counts as a universe: a server that loses its disk later does
            // not come back as if it had voted for nobody (P9).
            let voters: Vec<NodeId> = (1..=description.replicas).map(NodeId).collect();
            for engine in &engines {
                spanserver::found(engine, (0..=description.groups).map(GroupId), &voters)?;
            }
            folder.describe(&description)?;
        }
        let nodes = start_nodes(&description, engines, &clocks, key)?;
        let client = make_client(&description, &nodes, clocks.of(Whose::Client));
        let database = Database::open(client.clone()).await.map_err(OpenError::NotServing)?;
        let _folder = folder;
        Ok(Universe { nodes, client, database, description, clocks, key_fingerprint, _folder })
    }

    /// The database of this universe.
    pub fn database(&self) -> Arc<Database> {
        self.database.clone()
    }

    /// The transaction layer under the database: keys and values, without tables.
    pub fn client(&self) -> Client {
        self.client.clone()
    }

    /// Each group at each replica, at a glance; a replica that does not answer is left out.
    pub async fn status(&self) -> Vec<GroupStatus> {
        let mut all = Vec::new();
        for group in 0..=self.description.groups {
            for node in self.client.router().nodes() {
                let answer =
                    self.client.router().ask_node(node, GroupId(group), Body::Status).await;
                if let Ok(reply) = answer
                    && let ReplyBody::Status(status) = reply.body
                {
                    all.push(status);
                }
            }
        }
        all
    }

    /// Counters.
    pub fn stats(&self) -> UniverseStats {
        let stats: Vec<_> = self.nodes.iter().map(|node| node.stats()).collect();
        UniverseStats {
            syncs: stats.iter().map(|s| s.syncs).sum(),
            disk_bytes: stats.iter().map(|s| s.disk_bytes).sum(),
            bytes_logged: stats.iter().map(|s| s.bytes_logged).sum(),
            bytes_written: stats.iter().map(|s| s.bytes_written).sum(),
            replicas: self.description.replicas,
            groups: self.description.groups + 1,
        }
    }

    /// The universe's identity, as in its folder.
    pub fn id(&self) -> &str {
        &self.description.id
    }

    /// Tells the key that seals this universe's certificates from others, and does not give it away
    /// (X13). The key itself is `certificate.key` in the folder.
    pub fn key_fingerprint(&self) -> &str {
        &self.key_fingerprint
    }

    /// `now().latest` of the clients' clock, where it has a bound.
    pub fn now(&self) -> Option<Timestamp> {
        self.clocks.of(Whose::Client).now().ok().map(|now| now.latest())
    }

    /// What all clocks say now: the nodes' in order, the clients' last.
    pub fn clocks(&self) -> Vec<NodeClock> {
        self.clocks.all()
    }

    /// The clocks by themselves, for those who look at them while others work.
    pub fn clock_handle(&self) -> Clocks {
        self.clocks.clone()
    }

    /// Changes what is wrong with a simulated clock while the universe runs.
    ///
    /// # Errors
    /// Only in a universe that was opened with [`Builder::allow_clock_faults`], and only simulated
    /// clocks.
    pub fn set_clock(&self, whose: Whose, change: &ClockChange) -> Result<(), ClockChangeError> {
        self.clocks.set(whose, change)
    }

    /// The way to its servers, for tests that put a network in between.
    #[cfg(test)]
    pub(crate) fn transport(&self) -> InProcess {
        InProcess::new(&self.nodes)
    }

    /// Stops the servers and waits for their threads. Transactions under way end with errors.
    pub fn close(self) {
        for node in &self.nodes {
            node.stop();
        }
    }
}

/// Opens the servers' engines side by side: a log that has to be replayed takes its time.
fn open_engines(folders: Vec<PathBuf>) -> Result<Vec<Rocks>, OpenError> {
    let open = |path: PathBuf| move || Rocks::open(&path);
    let opened: Vec<Result<Rocks, StorageError>> = std::thread::scope(|scope| {
        let threads: Vec<_> = folders.into_iter().map(|path| scope.spawn(open(path))).collect();
        let join = |thread: std::thread::ScopedJoinHandle<'_, _>| {
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        };
        threads.into_iter().map(join).collect()
    });
    Ok(opened.into_iter().collect::<Result<_, _>>()?)
}

fn start_nodes(
    description: &Description,
    engines: Vec<Rocks>,
    clocks: &Clocks,
    key: truetime::key::Key,
) -> Result<Vec<Arc<Node>>, OpenError> {
    let voters: Vec<NodeId> = (1..=description.replicas).map(NodeId).collect();
    let certificate_key = Some(key);
    let mut settings = Settings { seed: rand::random(), certificate_key, ..Settings::default() };
    settings.txn.retention_ms = description.retention_s * 1_000;
    let alone = description.replicas == 1;
    let mut nodes = Vec::new();
    for (node, engine) in voters.into_iter().zip(engines) {
        nodes.push(Arc::new(Node::start(NodeConfig {
            node,
            groups: (0..=description.groups).map(GroupId).collect(),
            settings: settings.clone(),
            engine: Arc::new(engine) as Arc<dyn Engine>,
            clock: clocks.of(Whose::Node(node)),
            shards: if alone { 2 } else { 1 },
            readers: if alone { 2 } else { 1 },
        })?));
    }
    Node::connect(&nodes);
    Ok(nodes)
}

fn make_client(description: &Description, nodes: &[Arc<Node>], clock: TrueTime) -> Client {
    let placement = HashPlacement {
        groups: description.groups,
        root_prefix: Key::from_static(&sql::keys::CATALOG_PREFIX),
        directory: sql::keys::directory_of,
    };
    let config = ClientConfig {
        client: rand::random(),
        seed: rand::random(),
        retention: Duration::from_secs(description.retention_s),
        ..ClientConfig::default()
    };
    let transport = Arc::new(InProcess::new(nodes));
    Client::new(transport, Arc::new(TokioClock::new(clock)), Arc::new(placement), config)
}
