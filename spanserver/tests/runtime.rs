//! The runtime with real threads and a real disk: transfers between keys of several groups keep
//! their sum, on one and on three servers, and everything is there after a restart.

use proto::request::LockMode;
use proto::{Error, GroupId, Key, NodeId, Value};
use spanserver::Settings;
use spanserver::runtime::{InProcess, Node, NodeConfig, TokioClock};
use spanserver::storage::Rocks;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};
use truetime::TrueTime;
use truetime::providers::Local;
use txn::client::{Client, ClientConfig, HashPlacement, TimestampBound};

const KEYS: u64 = 24;
const OPENING: u64 = 1_000;

fn key(n: u64) -> Key {
    Key::from(format!("account-{n:02}"))
}

fn value(n: u64) -> Value {
    Value::copy_from_slice(&n.to_be_bytes())
}

fn number(value: &Value) -> u64 {
    u64::from_be_bytes(value[..].try_into().expect("eight bytes"))
}

/// Servers in folders of their own, and a client.
fn start(dir: &Path, servers: u32, life: u64) -> (Vec<Arc<Node>>, Client) {
    let voters: Vec<NodeId> = (1..=servers).map(NodeId).collect();
    let clock = TrueTime::new(Local::default());
    let mut nodes = Vec::new();
    for node in &voters {
        let engine = Rocks::open(&dir.join(node.to_string())).expect("the folder opens");
        let groups = (1..=4).map(GroupId);
        spanserver::found(&engine, groups, &voters).expect("a blank disk is founded");
        let config = NodeConfig {
            node: *node,
            groups: (1..=4).map(GroupId).collect(),
            settings: Settings { seed: life, ..Settings::default() },
            engine: Arc::new(engine),
            clock: clock.clone(),
            shards: 2,
            readers: 1,
        };
        nodes.push(Arc::new(Node::start(config).expect("the groups recover")));
    }
    Node::connect(&nodes);
    let placement = HashPlacement { groups: 4, root_prefix: Key::new(), directory: |k| Some(k) };
    let config = ClientConfig { client: life, seed: life, ..ClientConfig::default() };
    let transport = Arc::new(InProcess::new(&nodes));
    let client =
        Client::new(transport, Arc::new(TokioClock::new(clock)), Arc::new(placement), config);
    (nodes, client)
}

async fn total(client: &Client) -> u64 {
    let keys: Vec<Key> = (0..KEYS).map(key).collect();
    let snapshot = client.snapshot(TimestampBound::Strong).expect("a clock");
    let values = snapshot.get_many(&keys).await.expect("a snapshot");
    values.into_iter().map(|v| number(&v.expect("every account is there"))).sum()
}

async fn transfer(client: &Client, from: u64, to: u64) -> Result<(), Error> {
    let keys = [key(from), key(to)];
    let moved = client.run(|txn| {
        let keys = keys.clone();
        async move {
            let read = txn.get_many(&keys, LockMode::Exclusive).await?;
            let (a, b) = (number(read[0].as_ref().unwrap()), number(read[1].as_ref().unwrap()));
            txn.put(keys[0].clone(), value(a - 1));
            txn.put(keys[1].clone(), value(b + 1));
            Ok::<_, Error>(())
        }
    });
    moved.await.map(|_| ())
}

async fn work(client: Client, worker: u64, rounds: u64) {
    for round in 0..rounds {
        let from = (worker * 7 + round) % KEYS;
        let to = (from + 1 + (worker + round) % (KEYS - 1)) % KEYS;
        transfer(&client, from, to).await.expect("transfers are retried until they commit");
    }
}

async fn bank(servers: u32) {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let (nodes, client) = start(dir.path(), servers, 1);
    let opened = client.run(|txn| async move {
        (0..KEYS).for_each(|n| txn.put(key(n), value(OPENING)));
        Ok::<_, Error>(())
    });
    opened.await.expect("the accounts open");

    let began = Instant::now();
    let (workers, rounds) = (16, 100);
    let tasks: Vec<_> =
        (0..workers).map(|w| tokio::spawn(work(client.clone(), w, rounds))).collect();
    let mut audits = 0;
    while tasks.iter().any(|task| !task.is_finished()) {
        assert_eq!(total(&client).await, KEYS * OPENING, "in every snapshot");
        audits += 1;
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    for task in tasks {
        task.await.expect("a worker ends well");
    }
    let syncs: u64 = nodes.iter().map(|node| node.stats().syncs).sum();
    let rate = (workers * rounds) as f64 / began.elapsed().as_secs_f64();
    println!("{servers} servers: {rate:.0} transfers/s, {audits} audits, {syncs} syncs");

    drop(client);
    nodes.iter().for_each(|node| node.stop());
    drop(nodes);
    let began = Instant::now();
    let (nodes, client) = start(dir.path(), servers, 2);
    assert_eq!(total(&client).await, KEYS * OPENING, "after a restart");
    println!("{servers} servers: serving {:?} after the start", began.elapsed());
    nodes.iter().for_each(|node| node.stop());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_sum_stays_on_one_server() {
    bank(1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_sum_stays_on_three_servers() {
    bank(3).await;
}
