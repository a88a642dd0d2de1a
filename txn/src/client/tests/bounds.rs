//! How fresh reads without locks are, and who is asked for them (R3, R4).

use super::world::{DAWN_US, EPSILON_US, World};
use crate::client::{SessionToken, Snapshot, TimestampBound};
use bytes::Bytes;
use futures::future::join_all;
use proto::request::{Body, ReadAt};
use proto::{Error, GroupId, Key, NodeId};
use std::time::Duration;
use truetime::Timestamp;

const MS: Duration = Duration::from_millis(1);

fn behind(world: &World, group: u32, node: u32, behind: Duration) {
    let behind_us = behind.as_micros() as u64;
    world.0.lock().groups.group(group).replicas.insert(NodeId(node), behind_us);
}

fn far(world: &World, node: u32, distance: Duration) {
    let far_us = distance.as_micros() as u64;
    world.0.lock().network.far_us.insert(NodeId(node), far_us);
}

/// Who was asked what about which group, snapshots and safe times only.
fn asked(world: &World) -> Vec<(u32, u32, &'static str)> {
    let kind = |body: &Body| match body {
        Body::Snapshot { at: ReadAt::Exactly(_), .. } => Some("at"),
        Body::Snapshot { at: ReadAt::Newest { .. }, .. } => Some("newest"),
        Body::SafeTime { .. } => Some("safe"),
        _ => None,
    };
    let arrivals = world.arrivals().into_iter();
    arrivals.filter_map(|(node, group, body)| Some((node.0, group.0, kind(&body)?))).collect()
}

fn read(world: &World, client: u64, bound: TimestampBound, keys: &[Key]) -> (Snapshot, u64) {
    let (client, keys) = (world.client(client), keys.to_vec());
    let before_us = world.now_us();
    let snapshot = world.run(async move {
        let snapshot = client.snapshot(bound).expect("a good bound");
        snapshot.get_many(&keys).await.expect("reads");
        snapshot
    });
    (snapshot, world.now_us() - before_us)
}

fn put(world: &World, key: &Key, value: &'static str) -> Timestamp {
    let (client, key) = (world.client(99), key.clone());
    world.run(async move {
        let txn = client.begin().expect("a clock");
        txn.put(key, Bytes::from_static(value.as_bytes()));
        txn.commit().await.expect("commits").timestamp
    })
}

#[test]
fn exact_bounds_say_their_timestamp() {
    let world = World::new(0, 1, 1);
    let key = world.key(1, 0);
    let latest = Timestamp::from_micros(DAWN_US + EPSILON_US);
    let (strong, _) = read(&world, 1, TimestampBound::Strong, std::slice::from_ref(&key));
    assert_eq!(strong.fixed(), Some(latest), "R3: now().latest");
    let at = Timestamp::from_micros(DAWN_US - 5);
    let (exact, _) = read(&world, 1, TimestampBound::ReadTimestamp(at), std::slice::from_ref(&key));
    assert_eq!(exact.timestamp(), at);
    let client = world.client(1);
    let stale = client.snapshot(TimestampBound::ExactStaleness(7 * MS)).expect("a clock");
    let now_us = world.now_us();
    assert_eq!(stale.fixed(), Some(Timestamp::from_micros(now_us + EPSILON_US - 7_000)));

    let future = Timestamp::from_micros(now_us + EPSILON_US + 1);
    for bound in [TimestampBound::ReadTimestamp, TimestampBound::MinReadTimestamp] {
        let refused = client.snapshot(bound(future)).err();
        assert!(matches!(refused, Some(Error::TimestampInFuture { .. })), "{refused:?}");
    }
    let old = client.snapshot(TimestampBound::ExactStaleness(4_000_000 * MS)).err();
    assert!(matches!(old, Some(Error::SnapshotTooOld { .. })), "{old:?}");
}

#[test]
fn one_group_fixes_an_open_bound_in_one_message() {
    let world = World::new(0, 1, 2);
    behind(&world, 1, 1, 40 * MS);
    let key = world.key(1, 0);
    let bound = TimestampBound::MaxStaleness(1_000 * MS);
    let (snapshot, took_us) = read(&world, 1, bound, std::slice::from_ref(&key));
    assert_eq!(asked(&world), [(1, 1, "newest")]);
    assert!(took_us < 1_000, "nobody waited: {took_us} µs");
    let age_us = world.now_us() - snapshot.timestamp().micros();
    assert!((40_000..41_000).contains(&age_us), "as new as it is there: {age_us} µs");
    // All that follows is at that timestamp, other groups included.
    let (other, at) = (world.key(2, 0), snapshot.timestamp());
    world.run(async move {
        snapshot.get(&other).await.expect("reads");
        assert_eq!(snapshot.timestamp(), at);
    });
    assert_eq!(asked(&world), [(1, 2, "at")]);
}

#[test]
fn several_groups_fix_it_by_the_one_most_behind() {
    let world = World::new(0, 1, 3);
    for (group, lag) in [(1, 10), (2, 40), (3, 0)] {
        behind(&world, group, 1, lag * MS);
    }
    let keys: Vec<Key> = (1..=3).map(|group| world.key(group, 0)).collect();
    let (snapshot, took_us) = read(&world, 1, TimestampBound::MaxStaleness(1_000 * MS), &keys);
    let kinds: Vec<_> = asked(&world).into_iter().map(|(_, _, kind)| kind).collect();
    assert_eq!(kinds, ["safe", "safe", "safe", "at", "at", "at"]);
    assert!(took_us < 1_000, "two round trips and no waiting: {took_us} µs");
    let age_us = world.now_us() - snapshot.timestamp().micros();
    assert!((40_000..41_000).contains(&age_us), "{age_us} µs");
    // Nothing older than the bound, though somebody has to be waited for.
    let (snapshot, took_us) = read(&world, 2, TimestampBound::MaxStaleness(15 * MS), &keys);
    let bound = Timestamp::from_micros(world.now_us() - took_us + EPSILON_US).minus(15 * MS);
    assert_eq!(snapshot.timestamp(), bound);
    assert!((24_000..27_000).contains(&took_us), "{took_us} µs");
}

#[test]
fn an_open_bound_is_fixed_once() {
    let world = World::new(0, 1, 2);
    let keys = [world.key(1, 0), world.key(2, 0)];
    behind(&world, 1, 1, 20 * MS);
    let client = world.client(1);
    let snapshot = world.run(async move {
        let snapshot = client.snapshot(TimestampBound::MaxStaleness(500 * MS)).expect("a clock");
        assert_eq!(snapshot.fixed(), None);
        // Whoever is first fixes it for both; the first is dropped while it does.
        let mut first = Box::pin(snapshot.get(&keys[0]));
        assert!(futures::poll!(&mut first).is_pending());
        drop(first);
        let reads = join_all(keys.iter().map(|key| snapshot.get(key))).await;
        assert!(reads.iter().all(Result::is_ok), "{reads:?}");
        snapshot
    });
    let at = snapshot.fixed().expect("it is fixed");
    let exactly: Vec<Timestamp> = world
        .arrivals()
        .into_iter()
        .filter_map(|(_, _, body)| match body {
            Body::Snapshot { at: ReadAt::Exactly(at), .. } => Some(at),
            _ => None,
        })
        .collect();
    assert_eq!(exactly, [at], "one fixed it, the other followed");
}

#[test]
fn settling_asks_every_group() {
    let world = World::new(0, 1, 3);
    behind(&world, 2, 1, 30 * MS);
    let client = world.client(1);
    let (at, now_us) = (world.clone(), world.now_us());
    let settled = at.run(async move {
        let snapshot = client.snapshot(TimestampBound::MaxStaleness(500 * MS)).expect("a clock");
        let settled = snapshot.settle().await.expect("they answer");
        assert_eq!((snapshot.fixed(), snapshot.settle().await), (Some(settled), Ok(settled)));
        settled
    });
    assert!((now_us - 30_000..now_us - 29_000).contains(&settled.micros()), "{settled}");
    assert_eq!(asked(&world).len(), 3);
}

/// R4: never older than what the session saw, at any replica.
#[test]
fn a_session_finds_what_it_has_seen() {
    let world = World::new(0, 3, 1);
    (2..=3).for_each(|node| behind(&world, 1, node, 25 * MS));
    let key = world.key(1, 0);
    let mut session = SessionToken::default();
    session.observe(put(&world, &key, "mine"));
    for near in [2, 3] {
        world.prefer(near);
        // Told to another process, as text.
        let token: SessionToken = session.to_string().parse().expect("a token");
        let bound = TimestampBound::Session(token);
        let (client, key) = (world.client(u64::from(near)), key.clone());
        let (value, at) = world.run(async move {
            let snapshot = client.snapshot(bound).expect("a clock");
            (snapshot.get(&key).await, snapshot.timestamp())
        });
        assert_eq!(value, Ok(Some(Bytes::from_static(b"mine"))), "at n{near}");
        assert!(at >= session.timestamp());
        session.observe(at);
    }
    world.pass(100 * MS);
    world.prefer(2);
    let (later, took_us) =
        read(&world, 9, TimestampBound::Session(session), std::slice::from_ref(&key));
    assert!(later.timestamp() > session.timestamp(), "as fresh as can be had");
    assert!(took_us < 1_000, "without waiting: {took_us} µs");

    // Another clock may be a little ahead of this one; not by more.
    let ahead = |us: u64| SessionToken::at(Timestamp::from_micros(world.now_us() + us));
    let client = world.client(10);
    assert!(client.snapshot(TimestampBound::Session(ahead(500_000))).is_ok());
    assert!(client.snapshot(TimestampBound::Session(ahead(2_000_000))).is_err());
}

#[test]
fn tokens_are_read_back_and_merged() {
    let token = SessionToken::at(Timestamp::from_micros(1_412_262_083_045_123));
    assert_eq!(token.to_string(), "s1-50471e3ca2703");
    for text in ["", "s1-", "s1-+5", "s2-5", "50471e3ca2703", "s1-11111111111111111"] {
        let parsed: Result<SessionToken, _> = text.parse();
        assert!(matches!(parsed, Err(Error::InvalidArgument(_))), "{text}: {parsed:?}");
    }
    let older = SessionToken::at(Timestamp::from_micros(5));
    assert_eq!((older.merge(token), token.merge(older)), (token, token));
}

#[test]
fn reads_go_to_the_nearest_replica() {
    let world = World::new(0, 3, 1);
    [(1, 30), (2, 5), (3, 15)].into_iter().for_each(|(node, ms)| far(&world, node, ms * MS));
    let (client, key, inner) = (world.client(1), world.key(1, 0), world.clone());
    let nodes = world.run(async move {
        let mut nodes = Vec::new();
        for _ in 0..60 {
            inner.arrivals();
            let stale = TimestampBound::ExactStaleness(100 * MS);
            client.snapshot(stale).expect("a clock").get(&key).await.expect("reads");
            crate::client::ClientClock::sleep(&inner, 50 * MS).await;
            nodes.push(inner.arrivals().into_iter().map(|(node, ..)| node.0).collect::<Vec<_>>());
        }
        nodes
    });
    assert!(nodes[10..].iter().all(|asked| *asked == [2]), "{nodes:?}");
    assert!(nodes[..10].iter().flatten().any(|node| *node == 3), "everybody is tried once");

    // The one beside the client comes first whatever is measured.
    world.prefer(3);
    let (_, _) = read(&world, 1, TimestampBound::Strong, &[world.key(1, 0)]);
    assert_eq!(asked(&world).first(), Some(&(3, 1, "at")));
}

/// A replica that has become slow: another one is asked too, and its answer counts.
#[test]
fn a_slow_replica_is_hedged_against() {
    let world = World::new(0, 3, 1);
    far(&world, 3, 20 * MS);
    far(&world, 1, 20 * MS);
    let (client, key, inner) = (world.client(1), world.key(1, 0), world.clone());
    let slowest_us = world.run(async move {
        let read = async |slow: bool| {
            far(&inner, 2, if slow { 10_000 * MS } else { Duration::ZERO });
            let before_us = inner.now_us();
            let stale = TimestampBound::ExactStaleness(100 * MS);
            client.snapshot(stale).expect("a clock").get(&key).await.expect("reads");
            inner.now_us() - before_us
        };
        for _ in 0..20 {
            read(false).await;
        }
        inner.arrivals();
        let slow_us = read(true).await;
        let asked: Vec<u32> = inner.arrivals().iter().map(|(node, ..)| node.0).collect();
        assert!(asked.len() <= 3 && !asked.is_empty(), "hedges are bounded: {asked:?}");
        slow_us
    });
    assert!(slowest_us < 45_000, "one hedge away: {slowest_us} µs, not an attempt's 50 ms");
}

/// Slow servers are not asked twice as much for being slow: hedges are a small part of all reads.
#[test]
fn hedges_are_rationed() {
    let world = World::new(0, 3, 1);
    let (client, key, inner) = (world.client(1), world.key(1, 0), world.clone());
    let messages = world.run(async move {
        for turn in 0..400u64 {
            // Nobody knows what is usual any more.
            let far_us = if turn % 2 == 0 { Duration::ZERO } else { 12 * MS };
            (1..=3).for_each(|node| far(&inner, node, far_us));
            let stale = TimestampBound::ExactStaleness(100 * MS);
            client.snapshot(stale).expect("a clock").get(&key).await.expect("reads");
        }
        inner.pass(100 * MS);
        inner.arrivals().len()
    });
    assert!((400..470).contains(&messages), "{messages} messages for 400 reads");
}

#[test]
fn whoever_does_not_serve_is_passed_over() {
    let world = World::new(0, 3, 1);
    let group = |leader: u32, serving: &[u32]| {
        let mut state = world.0.lock();
        let group = state.groups.group(1);
        group.leader = NodeId(leader);
        group.replicas = serving.iter().map(|node| (NodeId(*node), 0)).collect();
    };
    group(3, &[3]); // followers that answer no reads, or witnesses
    let (client, key, inner) = (world.client(1), world.key(1, 0), world.clone());
    let asked = world.run(async move {
        let mut asked = Vec::new();
        for _ in 0..3 {
            let snapshot = client.snapshot(TimestampBound::Strong).expect("a clock");
            snapshot.get(&key).await.expect("reads");
            asked.push(inner.arrivals().into_iter().map(|(node, ..)| node.0).collect::<Vec<_>>());
        }
        asked
    });
    assert_eq!(asked, [vec![1, 2, 3], vec![3], vec![3]], "and not asked again at once");

    // Nobody but a leader that is still to be found.
    group(2, &[2]);
    let (snapshot, _) = read(&world, 7, TimestampBound::Strong, &[world.key(1, 0)]);
    assert_eq!(snapshot.groups_of(&proto::KeyRange::all()), [GroupId(1)]);
}

/// A replica that is too far behind to answer in time is no reason to fail.
#[test]
fn one_that_is_too_far_behind_is_passed_over() {
    let world = World::new(0, 2, 1);
    world.prefer(2);
    behind(&world, 1, 2, 10_000 * MS);
    let key = world.key(1, 0);
    put(&world, &key, "new");
    let (_, took_us) = read(&world, 1, TimestampBound::Strong, std::slice::from_ref(&key));
    assert!(took_us < 45_000, "{took_us} µs");
}
