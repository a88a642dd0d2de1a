//! Servers of one universe, each with its own folder and port, in one process: founded, joined,
//! drained, restarted, replaced. Real processes under faults are in the end-to-end tests.

use cluster::{Config, Init, Server, StartError};
use proto::control::{ControlReply, ControlRequest};
use proto::universe::{NodeState, UniverseMap};
use proto::{GroupId, NodeId};
use rpc::security::Security;
use rpc::{Connections, Faults, Target};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A universe that does not get there within this is broken.
const PATIENCE: Duration = Duration::from_secs(60);

struct Universe {
    folder: tempfile::TempDir,
    servers: BTreeMap<u32, Server>,
    addresses: BTreeMap<u32, String>,
    connections: Connections,
}

impl Universe {
    async fn founded(groups: u32) -> Universe {
        let faults = Arc::new(Faults::new(1));
        let mut universe = Universe {
            folder: tempfile::tempdir().expect("a folder"),
            servers: BTreeMap::new(),
            addresses: BTreeMap::new(),
            connections: Connections::new(Security::Plaintext, faults, 1),
        };
        let init = Init { groups, ..Init::default() };
        let config = Config { init: Some(init), ..universe.config(1) };
        universe.start_with(config).await.expect("founded");
        universe
    }

    fn config(&self, node: u32) -> Config {
        config(node, &self.folder.path().join(format!("n{node}")), self.addresses.values().cloned())
    }

    async fn start(&mut self, node: u32) -> Result<(), StartError> {
        self.start_with(self.config(node)).await
    }

    async fn start_with(&mut self, config: Config) -> Result<(), StartError> {
        let node = config.node;
        let server = Server::start(config).await?;
        self.addresses.insert(node, server.address().to_string());
        self.servers.insert(node, server);
        Ok(())
    }

    async fn ask(&self, node: u32, request: ControlRequest) -> Result<ControlReply, String> {
        let target = Target::node(NodeId(node), &self.addresses[&node]);
        let answer = self.connections.control(&target, &request, Duration::from_secs(10)).await;
        answer.map_err(|error| error.to_string())
    }

    /// Orders something of whoever leads the root group.
    async fn order(&self, request: ControlRequest) -> Result<ControlReply, String> {
        let begun = Instant::now();
        loop {
            for node in self.servers.keys() {
                match self.ask(*node, request.clone()).await {
                    Err(error) if error.contains("not the leader") => {}
                    answer => return answer,
                }
            }
            assert!(begun.elapsed() < PATIENCE, "nobody leads the root group");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    async fn map(&self, node: u32) -> UniverseMap {
        match self.ask(node, ControlRequest::Map).await {
            Ok(ControlReply::Map(map)) => *map,
            other => panic!("{other:?}"),
        }
    }

    /// Until every group has these voters and a leader among them, as every server says.
    async fn settled(&self, voters: &[u32]) {
        let wanted: BTreeSet<NodeId> = voters.iter().copied().map(NodeId).collect();
        self.until(&format!("voters {voters:?}"), async |universe| {
            for node in universe.servers.keys() {
                let map = universe.map(*node).await;
                let placed = map.groups.values().all(|group| group.members.voters == wanted);
                let ready = universe.servers[node].ready();
                if !placed || !ready.ready {
                    return Err(format!("n{node}: {ready:?} {:?}", map.groups));
                }
            }
            Ok(())
        })
        .await;
    }

    async fn until(&self, what: &str, check: impl AsyncFn(&Universe) -> Result<(), String>) {
        let begun = Instant::now();
        while let Err(why) = check(self).await {
            assert!(begun.elapsed() < PATIENCE, "{what}: {why}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        println!("{what}: {} ms", begun.elapsed().as_millis());
    }

    /// How many groups a server leads.
    async fn leads(&self, node: u32) -> usize {
        let groups = self.servers[&node].groups().await;
        let leads = |g: &proto::request::GroupStatus| {
            g.leader == Some(NodeId(node)) && g.lease_end.is_some()
        };
        groups.iter().filter(|group| leads(group)).count()
    }

    async fn stop(&mut self, node: u32) {
        self.servers.remove(&node).expect("it runs").stop().await;
    }
}

fn config(node: u32, data: &Path, join: impl Iterator<Item = String>) -> Config {
    Config {
        node,
        listen: "127.0.0.1:0".into(),
        advertise: None,
        data: data.to_owned(),
        join: join.collect(),
        zone: format!("z{node}"),
        clock: "local".parse().expect("a clock"),
        security: Security::Plaintext,
        http: None,
        init: None,
        allow_faults: false,
        insecure: false,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn founded_joined_restarted_drained_replaced() {
    let mut universe = Universe::founded(3).await;
    universe.settled(&[1]).await;
    universe.start(2).await.expect("n2 joins");
    universe.start(3).await.expect("n3 joins");
    universe.settled(&[1, 2, 3]).await;
    universe
        .until("leaders spread", async |u| {
            match (u.leads(1).await, u.leads(2).await, u.leads(3).await) {
                (1..=2, 1..=2, 1..=2) => Ok(()),
                other => Err(format!("{other:?}")),
            }
        })
        .await;

    // All stop, and come back on other ports: they find each other by what they remember and say.
    for node in 1..=3 {
        universe.stop(node).await;
    }
    for node in 1..=3 {
        universe.start(node).await.expect("it comes back");
    }
    universe.settled(&[1, 2, 3]).await;

    // Who drains leads nothing, and may lead again.
    let drain = |on| ControlRequest::Drain { node: NodeId(2), on };
    universe.order(drain(true)).await.expect("drains");
    universe
        .until("n2 leads nothing", async |u| match u.leads(2).await {
            0 if u.map(2).await.nodes[&NodeId(2)].state == NodeState::Draining => Ok(()),
            leads => Err(format!("it leads {leads}")),
        })
        .await;
    assert!(!universe.servers[&2].ready().ready);
    universe.order(drain(false)).await.expect("drains no more");

    // A node that lives is not given up; one that is lost is, and its number with it.
    let replace = |by| ControlRequest::Replace { lost: NodeId(3), by };
    universe.start(4).await.expect("n4 joins");
    universe
        .until("n3 lives", async |u| match u.order(replace(None)).await {
            Err(refused) if refused.contains("n3 lives") => Ok(()),
            Err(early) if early.contains("not known yet") => Err(early),
            other => panic!("{other:?}"),
        })
        .await;
    universe.stop(3).await;
    universe
        .until("n3 is missed", async |u| match u.order(replace(Some(NodeId(4)))).await {
            Ok(ControlReply::Done) => Ok(()),
            other => Err(format!("{other:?}")),
        })
        .await;
    universe.settled(&[1, 2, 4]).await;
    universe.start(3).await.expect("its folder is its own");
    let reason = tokio::time::timeout(PATIENCE, universe.servers[&3].expelled()).await;
    assert!(reason.expect("it is told").contains("never used again"));
    universe.stop(3).await;

    // A number that comes back without its disk is somebody else.
    universe.stop(4).await;
    let wiped = Config { data: universe.folder.path().join("wiped"), ..universe.config(4) };
    let Err(StartError::Refused { reason, .. }) = universe.start_with(wiped).await else {
        panic!("it was let in");
    };
    assert!(reason.contains("replace-node 4"), "{reason}");
    for node in [1, 2] {
        universe.stop(node).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn many_groups_find_their_places() {
    let mut universe = Universe::founded(200).await;
    universe.start(2).await.expect("n2 joins");
    universe.start(3).await.expect("n3 joins");
    universe.settled(&[1, 2, 3]).await;
    let root = universe.servers[&1].groups().await.into_iter().find(|g| g.group == GroupId::ROOT);
    assert_eq!(root.map(|root| root.members.voters.len()), Some(3));
    for node in 1..=3 {
        universe.stop(node).await;
    }
}
