//! Clients and servers with a network between them: the servers are those of a universe in this
//! process, each behind a socket of its own.

use super::*;
use crate::Universe;
use bytes::Bytes;
use proto::GroupId;
use proto::request::{Members, Reply, Request};
use proto::universe::{Descriptor, Founding, NodeInfo, NodeState};
use rpc::{Caller, Faults, Handler, Hello, Links, LinksConfig, Versions, async_trait};
use spanserver::runtime::InProcess;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use truetime::Timestamp;
use txn::client::Transport;

/// A server's front door.
struct Door {
    node: NodeId,
    behind: Option<Arc<InProcess>>,
    map: Mutex<UniverseMap>,
    maps_asked: AtomicU64,
    times_asked: AtomicU64,
    has_time: AtomicBool,
    leads_root: AtomicU64,
}

#[async_trait]
impl Handler for Door {
    async fn ask(&self, request: Request, _: Option<Duration>) -> Result<Reply, Error> {
        match &self.behind {
            Some(behind) => behind.call(self.node, request).await,
            None => Err(Error::NotLeader { hint: None }),
        }
    }

    async fn control(&self, _: Caller, request: ControlRequest) -> Result<ControlReply, Error> {
        match request {
            ControlRequest::Map => {
                self.maps_asked.fetch_add(1, Ordering::Relaxed);
                Ok(ControlReply::Map(Box::new(self.map.lock().unwrap().clone())))
            }
            ControlRequest::Now if self.has_time.load(Ordering::Relaxed) => {
                self.times_asked.fetch_add(1, Ordering::Relaxed);
                let now_ns = truetime::providers::real_ns();
                Ok(ControlReply::Now(truetime::Interval::around_ns(now_ns, 1_000_000)))
            }
            ControlRequest::Now => {
                Err(Error::ClockUnavailable { reason: "its masters are silent".into() })
            }
            ControlRequest::MoveLeader { .. } => {
                let leader = NodeId(self.leads_root.load(Ordering::Relaxed) as u32);
                if leader == self.node {
                    return Ok(ControlReply::Done);
                }
                Err(Error::NotLeader { hint: Some(leader) })
            }
            other => Err(Error::InvalidArgument(format!("{other:?}"))),
        }
    }

    async fn deliver(&self, _: NodeId, _: Vec<Bytes>) {}
}

/// Servers with front doors.
struct Town {
    doors: Vec<Arc<Door>>,
    servers: Vec<Option<rpc::Server>>,
    addresses: Vec<String>,
}

impl Town {
    /// As many nodes, in front of the servers of a universe, or of nothing.
    async fn build(cluster: &str, nodes: u32, universe: Option<&Universe>) -> Town {
        let behind = universe.map(|universe| Arc::new(universe.transport()));
        let (mut doors, mut servers, mut addresses) = (Vec::new(), Vec::new(), Vec::new());
        for node in (1..=nodes).map(NodeId) {
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
            let address = listener.local_addr().unwrap().to_string();
            let door = Arc::new(Door {
                node,
                behind: behind.clone(),
                map: Mutex::default(),
                maps_asked: AtomicU64::new(0),
                times_asked: AtomicU64::new(0),
                has_time: AtomicBool::new(true),
                leads_root: AtomicU64::new(1),
            });
            let hello = Hello {
                cluster: cluster.into(),
                node,
                instance: format!("i{node}"),
                versions: Versions::OURS,
                address: address.clone(),
                host: "h".into(),
                clock: "local".into(),
            };
            let faults = Arc::new(Faults::new(0));
            let config = LinksConfig::default();
            let links = Links::new(hello, Security::Plaintext, door.clone(), faults, config);
            let server = rpc::Server::start(listener, Security::Plaintext, door.clone(), links);
            servers.push(Some(server.unwrap()));
            doors.push(door);
            addresses.push(address);
        }
        let town = Town { doors, servers, addresses };
        town.tell(&town.map(cluster, 1));
        town
    }

    /// Every node there, and every group at every node.
    fn map(&self, cluster: &str, version: u64) -> UniverseMap {
        let nodes = self.doors.iter().zip(&self.addresses).map(|(door, address)| {
            let info = NodeInfo {
                node: door.node,
                instance: format!("i{}", door.node),
                address: address.clone(),
                zone: "a".into(),
                host: "h".into(),
                clock: "local".into(),
                replaced_by: None,
                state: NodeState::Active,
            };
            (door.node, info)
        });
        let voters = self.doors.iter().map(|door| door.node).collect();
        let members = Members { voters, ..Members::default() };
        let place = |group| Descriptor { group, generation: 0, members: members.clone() };
        UniverseMap {
            version: Timestamp::from_micros(version),
            founding: Founding {
                cluster: cluster.into(),
                data_groups: 4,
                replicas: self.doors.len() as u32,
                retention_s: 3_600,
            },
            nodes: nodes.collect(),
            groups: (0..=4).map(GroupId).map(|group| (group, place(group))).collect(),
        }
    }

    fn tell(&self, map: &UniverseMap) {
        self.doors.iter().for_each(|door| door.map.lock().unwrap().clone_from(map));
    }

    async fn close(&mut self, place: usize) {
        if let Some(server) = self.servers[place].take() {
            server.shutdown(Duration::ZERO).await;
        }
    }
}

async fn universe(folder: &tempfile::TempDir, replicas: u32) -> Universe {
    let builder = Universe::builder().replicas(replicas);
    builder.open(folder.path().join("u")).await.expect("a universe")
}

async fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let began = Instant::now();
    while !is_so() {
        assert!(began.elapsed() < Duration::from_secs(60), "never: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

async fn refused(addresses: &[&str]) -> ConnectError {
    match Cluster::connect(addresses, ConnectOptions::default()).await {
        Ok(_) => panic!("connected"),
        Err(error) => error,
    }
}

/// An address where nobody listens.
async fn nowhere() -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    listener.local_addr().unwrap().to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn any_node_leads_to_all_of_them_and_sql_runs_over_sockets() {
    let folder = tempfile::tempdir().unwrap();
    let universe = universe(&folder, 3).await;
    let town = Town::build("00ff", 3, Some(&universe)).await;
    let nobody = nowhere().await;
    let one = [nobody.as_str(), &town.addresses[1]];
    let cluster = Cluster::connect(&one, ConnectOptions::default()).await.expect("one answers");
    assert_eq!(cluster.nodes(), [NodeId(1), NodeId(2), NodeId(3)]);
    assert_eq!(cluster.id(), "00ff");
    let mut session = cluster.database().session();
    session.execute("CREATE TABLE t (k INT64 NOT NULL, v INT64) PRIMARY KEY (k)").await.unwrap();
    for k in 0..20 {
        session.execute(&format!("INSERT INTO t (k, v) VALUES ({k}, {k})")).await.unwrap();
    }
    session.execute("UPDATE t SET v = v + 1 WHERE true").await.unwrap();
    let sum = session.execute("SELECT SUM(v) AS sum FROM t").await.unwrap();
    assert_eq!(sum.collect().await.unwrap(), [[sql::Value::Int64(210)]]);
    drop(session);
    cluster.close();
    universe.close();
}

#[tokio::test(flavor = "multi_thread")]
async fn who_cannot_be_connected_to_says_why_and_what_to_do() {
    let nobody = nowhere().await;
    let error = refused(&[&nobody]).await;
    let ConnectError::Unreachable { tried } = &error else { panic!("{error}") };
    assert_eq!((tried.len(), &tried[0].0), (1, &nobody));
    assert!(!tried[0].1.is_empty() && error.to_string().contains(&nobody), "{error}");
    assert!(error.hint().unwrap().contains("start the servers"));

    for wrong in ["", "host", ":7100", "host:port", "host:70000"] {
        let error = refused(&[wrong]).await;
        assert!(matches!(error, ConnectError::Address(_)), "{wrong}: {error}");
    }
    assert!(matches!(refused(&[]).await, ConnectError::Address(_)));

    let (one, other) = (Town::build("00aa", 1, None).await, Town::build("00bb", 1, None).await);
    let error = refused(&[&one.addresses[0], &other.addresses[0]]).await;
    assert!(matches!(error, ConnectError::Mixed { .. }), "{error}");
    assert!(error.to_string().contains("00aa") && error.to_string().contains("00bb"), "{error}");

    one.tell(&UniverseMap::default());
    let error = refused(&[&one.addresses[0]]).await;
    assert!(matches!(error, ConnectError::NoUniverse { .. }), "{error}");
    assert!(error.hint().unwrap().contains("--init"));

    other.doors[0].has_time.store(false, Ordering::Relaxed);
    let error = refused(&[&other.addresses[0]]).await;
    assert!(matches!(error, ConnectError::NoTime(_)), "{error}");
    assert!(error.to_string().contains("its masters are silent"), "T5: {error}");
}

#[test]
fn trouble_with_certificates_has_a_hint_of_its_own() {
    let tried = vec![("h:1".to_owned(), "its certificate has expired".to_owned())];
    assert!(ConnectError::Unreachable { tried }.hint().unwrap().contains("--tls-ca"));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_map_is_fetched_again_when_somebody_is_lost_and_never_twice_at_once() {
    let mut town = Town::build("00ff", 3, None).await;
    let wire: Arc<dyn Wire> = Arc::new(wire::Grpc::new(Security::Plaintext));
    let map = Arc::new(MapCache::new(town.map("00ff", 1)));
    let wanted = Arc::new(Notify::new());
    let remote = Remote::new(wire.clone(), map.clone(), wanted.clone());
    let refresher = Refresher::new(wire, map.clone(), wanted, Vec::new());
    let _tasks = Tasks(vec![tokio::spawn(refresher.run())]);
    let doors = town.doors.clone();
    let asked = || doors.iter().map(|door| door.maps_asked.load(Ordering::Relaxed)).sum::<u64>();
    let began = Instant::now();
    for _ in 0..1_000 {
        remote.lost();
        tokio::task::yield_now().await;
    }
    until("somebody is asked", || asked() > 0).await;
    let rounds = began.elapsed().as_millis() as u64 / REFRESH_PAUSE_MS + 2;
    assert!(asked() <= rounds, "{} questions in {:?}", asked(), began.elapsed());

    // Those who are cut off know nothing new; others do, and are asked in their turn.
    let mut newer = town.map("00ff", 9);
    newer.groups.get_mut(&GroupId(2)).unwrap().generation = 7;
    town.doors[1].map.lock().unwrap().clone_from(&newer);
    town.close(2).await;
    until("the newest map is known", || {
        remote.lost();
        map.get().version.micros() == 9
    })
    .await;
    assert_eq!(remote.locate(GroupId(2)).unwrap().generation, 7, "X12");
    let gone = Request {
        group: GroupId(1),
        generation: 0,
        ballot: None,
        deadline: Timestamp::from_micros(u64::MAX),
        body: proto::request::Body::Status,
    };
    let answer = remote.call(NodeId(9), gone.clone()).await;
    assert_eq!(answer, Err(Error::NotLeader { hint: None }), "nobody knows n9");
    assert_eq!(remote.call(NodeId(3), gone).await, Err(Error::NotLeader { hint: None }));
}

/// As the transport has it.
const REFRESH_PAUSE_MS: u64 = 50;

#[tokio::test(flavor = "multi_thread")]
async fn the_time_comes_from_another_node_when_one_has_none() {
    let mut town = Town::build("00ff", 3, None).await;
    let wire: Arc<dyn Wire> = Arc::new(wire::Grpc::new(Security::Plaintext));
    let map = Arc::new(MapCache::new(town.map("00ff", 1)));
    let clock = Nodes::new(NodesConfig::default());
    let used = Arc::new(AtomicBool::new(true));
    town.doors[0].has_time.store(false, Ordering::Relaxed);
    town.close(1).await;
    let mut keeper = Keeper::new(wire, map, clock.clone(), used.clone());
    keeper.begin().await.expect("n3 has it");
    let client = ClusterClock::new(TrueTime::new(clock.clone()), used.clone());
    let now = txn::client::ClientClock::now(&client).expect("a bound");
    let host = truetime::providers::real_ns() / 1_000;
    assert!(now.earliest().micros() <= host + 1_000, "T1");
    assert!(now.latest().micros() + 60_000_000 > host, "T1");
    let asked = town.doors[2].times_asked.load(Ordering::Relaxed);
    assert!(asked >= 1);
    let _tasks = Tasks(vec![tokio::spawn(keeper.run())]);
    until("it is asked again while the clock is used", || {
        let _ = txn::client::ClientClock::now(&client);
        town.doors[2].times_asked.load(Ordering::Relaxed) > asked
    })
    .await;
    assert_eq!(truetime::Clock::sources(&clock).masters[0].name, "n3");
}

#[tokio::test(flavor = "multi_thread")]
async fn orders_find_the_leader_and_questions_to_nobody_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let universe = universe(&folder, 1).await;
    let town = Town::build("00ff", 1, Some(&universe)).await;
    let options = ConnectOptions { clock: Some(ClockSpec::default()), ..Default::default() };
    let cluster = Cluster::connect(&town.addresses, options).await.expect("connected");
    assert_eq!(cluster.clock().unwrap().provider, "local");
    assert_eq!(town.doors[0].times_asked.load(Ordering::Relaxed), 0, "it has its own");
    let order = ControlRequest::MoveLeader { group: GroupId(1), to: NodeId(1) };
    assert_eq!(cluster.control(None, order.clone()).await, Ok(ControlReply::Done));
    town.doors[0].leads_root.store(2, Ordering::Relaxed);
    let later = tokio::spawn({
        let door = town.doors[0].clone();
        async move {
            tokio::time::sleep(Duration::from_millis(200)).await;
            door.leads_root.store(1, Ordering::Relaxed);
        }
    });
    assert_eq!(cluster.control(None, order).await, Ok(ControlReply::Done), "a leader comes");
    later.await.unwrap();
    let unknown = cluster.control(NodeId(7), ControlRequest::Node).await;
    let known = vec![NodeId(1)];
    assert_eq!(unknown, Err(ControlError::Unknown { node: NodeId(7), known }));
    let silly = cluster.control(None, ControlRequest::Node).await;
    let invalid = |error: &ControlError| {
        matches!(error, ControlError::Call(CallError::Refused(Error::InvalidArgument(_))))
    };
    assert!(silly.as_ref().is_err_and(invalid), "{silly:?}");
    universe.close();
}
