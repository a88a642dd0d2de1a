//! Groups whose replicas are on different servers: two-phase commit between them finds its way (X6,
//! X10), and whoever asks the wrong server is told so (X12).

mod cluster;

use cluster::Cluster;
use proto::keys::Write;
use proto::request::{Age, Body, Reply, ReplyBody};
use proto::{Error, GroupId, Key, NodeId, TxnId};
use spanserver::Settings;
use std::collections::BTreeMap;

const HERE: GroupId = GroupId(1);
const THERE: GroupId = GroupId(2);

/// n1 to n3 have `HERE`, n3 to n5 have `THERE`; the one server that has both leads neither.
fn apart() -> Cluster {
    let led_by_others = |c: &Cluster| [HERE, THERE].iter().all(|g| c.leader(*g) != Some(NodeId(3)));
    (0..100).map(seeded).find(led_by_others).expect("some seed")
}

fn seeded(seed: u64) -> Cluster {
    let hosted = BTreeMap::from([
        (NodeId(1), vec![HERE]),
        (NodeId(2), vec![HERE]),
        (NodeId(3), vec![HERE, THERE]),
        (NodeId(4), vec![THERE]),
        (NodeId(5), vec![THERE]),
    ]);
    let mut cluster = Cluster::hosting(Settings { seed, ..Settings::default() }, hosted);
    cluster.pass(3_000);
    cluster
}

fn write(key: &str) -> Vec<Write> {
    let key = Key::copy_from_slice(key.as_bytes());
    vec![Write { value: Some(key.clone()), key }]
}

/// Commits a transaction over both groups, coordinated by one of them.
fn commit(c: &mut Cluster, coordinator: GroupId, participant: GroupId) -> Result<Reply, Error> {
    let txn = TxnId { client: 9, seq: c.us };
    let age = Age { start: c.now().latest(), first: txn };
    let writes = write("a");
    c.ask_leader(
        participant,
        Body::Prepare { txn, age, holds_locks: false, coordinator, writes: writes.clone() },
    );
    let participants = vec![participant];
    let id = c.ask_leader(
        coordinator,
        Body::Commit { txn, age, holds_locks: false, writes, participants, before: None },
    );
    for _ in 0..100 {
        c.pass(50);
        if let Some(answer) = c.answers.remove(&id) {
            return answer;
        }
    }
    panic!("the transaction does not end");
}

#[test]
fn groups_apart_commit_together() {
    let mut c = apart();
    for (coordinator, participant) in [(HERE, THERE), (THERE, HERE)] {
        let answer = commit(&mut c, coordinator, participant).expect("it commits");
        assert!(matches!(answer.body, ReplyBody::Committed(_)), "{answer:?}");
        c.pass(1_000);
        for server in c.servers.values() {
            for (id, group) in server.groups() {
                let prepared = group.manager().replicated().prepared.len();
                assert_eq!(prepared, 0, "{id}: the outcome has arrived");
                assert_eq!(group.manager().lock_holders(), 0, "{id}: no lock is left");
            }
        }
    }
}

#[test]
fn without_knowing_where_it_does_not_end() {
    let mut c = apart();
    for server in c.servers.values_mut() {
        server.set_places(std::sync::Arc::default());
    }
    let txn = TxnId { client: 9, seq: 1 };
    let age = Age { start: c.now().latest(), first: txn };
    let body =
        Body::Prepare { txn, age, holds_locks: false, coordinator: HERE, writes: write("a") };
    c.ask_leader(THERE, body);
    c.pass(3_000);
    let there = c.leader(THERE).expect("somebody leads");
    let group = c.servers[&there].groups().find(|(id, _)| *id == THERE).expect("it is there").1;
    assert_eq!(group.manager().replicated().prepared.len(), 1, "it cannot ask what became of it");
}

#[test]
fn whoever_asks_the_wrong_server_is_told() {
    let mut c = apart();
    let id = c.ask(NodeId(5), HERE, Body::Status);
    assert_eq!(c.answers[&id], Err(Error::StaleRoute { descriptor: None }));
}
