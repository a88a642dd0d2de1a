//! Nodes that answer as they are told, and a client's clock that only sleeping moves.

use crate::client::{Client, ClientClock, ClientConfig, HashPlacement, Transport};
use futures::FutureExt;
use futures::executor::block_on;
use futures::future::BoxFuture;
use proto::request::{Body, Outcome, Reply, ReplyBody, Request};
use proto::{Ballot, Error, GroupId, Key, NodeId};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use truetime::{Interval, Timestamp};

const GROUP: GroupId = GroupId(1);

/// What a node answers at which time, in microseconds; `None`: nothing.
type Script = fn(u64, NodeId, &Body) -> Option<Result<ReplyBody, Error>>;

struct World {
    now_us: AtomicU64,
    /// From when until when the client has no time.
    timeless_us: std::ops::Range<u64>,
    script: Script,
}

impl World {
    fn client(script: Script, timeless_us: std::ops::Range<u64>) -> (Client, Arc<World>) {
        let now_us = AtomicU64::new(1_000_000);
        let world = Arc::new(World { now_us, timeless_us, script });
        let placement =
            HashPlacement { groups: 1, root_prefix: Key::new(), directory: |k| Some(k) };
        let config = ClientConfig::default();
        (Client::new(world.clone(), Arc::new(world.clone()), Arc::new(placement), config), world)
    }
}

impl Transport for World {
    fn call(&self, node: NodeId, request: Request) -> BoxFuture<'static, Result<Reply, Error>> {
        match (self.script)(self.now_us.load(Ordering::Relaxed), node, &request.body) {
            None => futures::future::pending().boxed(),
            Some(answer) => {
                let reply = answer.map(|body| Reply { ballot: Ballot::default(), body });
                futures::future::ready(reply).boxed()
            }
        }
    }

    fn cast(&self, _: NodeId, _: Request) {}

    fn nodes(&self) -> Vec<NodeId> {
        (1..=3).map(NodeId).collect()
    }
}

impl ClientClock for Arc<World> {
    fn now(&self) -> Result<Interval, Error> {
        let now_us = self.now_us.load(Ordering::Relaxed);
        if self.timeless_us.contains(&now_us) {
            return Err(timeless("the client's"));
        }
        let now = Timestamp::from_micros(now_us);
        Ok(Interval::new(now, now))
    }

    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()> {
        let world = self.clone();
        let passed_us = duration.as_micros() as u64;
        // When it is waited for, not when it is asked for.
        async move {
            world.now_us.fetch_add(passed_us, Ordering::Relaxed);
        }
        .boxed()
    }
}

fn timeless(whose: &str) -> Error {
    Error::ClockUnavailable { reason: format!("{whose} clock is broken") }
}

fn ask(script: Script) -> Error {
    let (client, world) = World::client(script, 0..0);
    let error = block_on(client.router().ask(GROUP, Body::Status)).expect_err("nobody leads");
    assert!(world.now_us.load(Ordering::Relaxed) >= 11_000_000, "it is tried for ten seconds");
    error
}

#[test]
fn a_majority_without_time_is_what_is_reported() {
    let all = ask(|_, node, _| Some(Err(timeless(&node.to_string()))));
    assert!(all.to_string().contains("3 of 3 nodes have no time; n1"), "{all}");
    let two = ask(|_, node, _| (node.0 != 2).then(|| Err(timeless(&node.to_string()))));
    let Error::ClockUnavailable { reason } = &two else { panic!("{two:?}") };
    assert!(reason.contains("2 of 3"), "{reason}");
}

#[test]
fn a_minority_without_time_is_no_excuse() {
    let one = ask(|_, node, _| match node.0 {
        1 => Some(Err(timeless("its"))),
        _ => Some(Err(Error::NotLeader { hint: Some(NodeId(1)) })),
    });
    assert!(matches!(one, Error::DeadlineExceeded(_)), "{one:?}");
    // What counts is what was said last.
    let before = ask(|now_us, _, _| match now_us {
        ..8_000_000 => Some(Err(timeless("its"))),
        _ => Some(Err(Error::NotLeader { hint: None })),
    });
    assert!(matches!(before, Error::DeadlineExceeded(_)), "{before:?}");
}

#[test]
fn a_commit_without_time_is_asked_for_until_its_outcome_is_known() {
    let put = |client: &Client| {
        let txn = client.begin().expect("there is time");
        txn.put(Key::from_static(b"k"), Key::from_static(b"v"));
        txn
    };
    // X9: the node may have logged the commit before its clock broke.
    let (client, _) = World::client(
        |now_us, _, body| match (now_us, body) {
            (..30_000_000, _) => Some(Err(timeless("its"))),
            (_, Body::Resolve { .. }) => {
                let at = Timestamp::from_micros(7);
                Some(Ok(ReplyBody::Outcome(Outcome::Committed(at))))
            }
            (_, body) => panic!("{body:?} is not asked for any more"),
        },
        0..0,
    );
    let receipt = block_on(put(&client).commit()).expect("it has committed");
    assert_eq!(receipt.timestamp, Timestamp::from_micros(7));

    let (client, _) = World::client(|_, _, _| Some(Err(timeless("its"))), 0..0);
    let unknown = block_on(put(&client).commit());
    assert!(matches!(unknown, Err(Error::OutcomeUnknown { .. })), "{unknown:?}");

    // The client's own time goes while the commit is under way, and comes back.
    let (client, _) = World::client(
        |_, _, body| match body {
            Body::Resolve { .. } => Some(Ok(ReplyBody::Outcome(Outcome::Aborted))),
            _ => Some(Err(Error::NotLeader { hint: None })),
        },
        1_500_000..4_000_000,
    );
    let aborted = block_on(put(&client).commit());
    assert!(matches!(aborted, Err(Error::Aborted { .. })), "{aborted:?}");
}

#[test]
fn without_time_a_client_commits_nothing() {
    let (client, world) = World::client(|_, _, body| panic!("asked for {body:?}"), 2..3);
    let txn = client.begin().expect("there is time");
    txn.put(Key::from_static(b"k"), Key::from_static(b"v"));
    world.now_us.store(2, Ordering::Relaxed);
    let refused = block_on(txn.commit());
    assert!(matches!(refused, Err(Error::ClockUnavailable { .. })), "{refused:?}");
    assert!(client.begin().is_err());
}
