//! Reads that are issued together go in one message to each group.

use super::world::World;
use bytes::Bytes;
use futures::future::{join_all, try_join, try_join_all};
use proto::request::{Body, LockMode, ReadSet};
use proto::{Error, Key};
use std::time::Duration;

/// How many keys each read that has arrived asked for.
fn read_messages(world: &World) -> Vec<usize> {
    let count = |body: Body| match body {
        Body::Read { what: ReadSet::Keys(keys), .. }
        | Body::Snapshot { what: ReadSet::Keys(keys), .. } => Some(keys.len()),
        _ => None,
    };
    world.arrivals().into_iter().filter_map(|(_, _, body)| count(body)).collect()
}

fn fill(world: &World, keys: &[Key]) {
    let (client, keys) = (world.client(9), keys.to_vec());
    world.run(async move {
        let txn = client.begin().expect("a clock");
        keys.iter().for_each(|key| txn.put(key.clone(), key.clone()));
        txn.commit().await.expect("commits");
    });
    world.arrivals();
}

#[test]
fn reads_of_one_turn_share_a_message() {
    let world = World::new(0, 1, 2);
    let keys: Vec<Key> = (0..12).map(|n| world.key(1 + n % 2, (n / 2) as usize)).collect();
    fill(&world, &keys);
    let (client, wanted) = (world.client(1), keys.clone());
    let read = world.run(async move {
        let txn = client.begin().expect("a clock");
        join_all(wanted.iter().map(|key| txn.get(key))).await
    });
    let expected: Vec<_> = keys.iter().map(|key| Ok(Some(key.clone()))).collect();
    assert_eq!(read, expected, "each gets its own");
    assert_eq!(read_messages(&world), [6, 6], "one message to each group");

    let (client, wanted) = (world.client(2), keys.clone());
    let read = world.run(async move {
        let snapshot = client.snapshot(crate::client::TimestampBound::Strong).expect("a clock");
        join_all(wanted.iter().map(|key| snapshot.get(key))).await
    });
    assert_eq!(read, expected);
    assert_eq!(read_messages(&world), [6, 6], "snapshots too");
}

#[test]
fn reads_of_different_turns_and_strengths_do_not() {
    let world = World::new(0, 1, 1);
    let keys: Vec<Key> = (0..4).map(|n| world.key(1, n)).collect();
    fill(&world, &keys);
    let client = world.client(1);
    world.run(async move {
        let txn = client.begin().expect("a clock");
        txn.get(&keys[0]).await.expect("reads");
        txn.get(&keys[1]).await.expect("reads");
        let (shared, exclusive) = (&keys[2..3], &keys[3..4]);
        try_join(
            txn.get_many(shared, LockMode::Shared),
            txn.get_many(exclusive, LockMode::Exclusive),
        )
        .await
        .expect("reads");
    });
    assert_eq!(read_messages(&world), [1, 1, 1, 1]);
}

#[test]
fn a_message_has_room_for_so_many() {
    let world = World::new(0, 1, 1);
    let keys: Vec<Key> = (0..2_500).map(|n| Key::from(format!("{n:06}"))).collect();
    let client = world.client(1);
    let wanted = keys.clone();
    let read = world.run(async move {
        let txn = client.begin().expect("a clock");
        try_join_all(wanted.chunks(2).map(|pair| txn.get_many(pair, LockMode::Shared))).await
    });
    assert_eq!(read.map(|pairs| pairs.len()), Ok(1_250));
    let messages = read_messages(&world);
    assert!(messages.iter().all(|keys| *keys <= 1_024), "{messages:?}");
    assert_eq!((messages.len(), messages.iter().sum::<usize>()), (3, 2_500));
    let large: Vec<Key> = (0..3u8).map(|n| Key::from(vec![n; 200 << 10])).collect();
    let client = world.client(2);
    let read = world.run(async move {
        let txn = client.begin().expect("a clock");
        try_join_all(large.iter().map(|key| txn.get(key))).await
    });
    assert_eq!(read, Ok(vec![None; 3]));
    assert_eq!(read_messages(&world), [1, 1, 1], "nor for so many bytes");
}

#[test]
fn one_that_is_dropped_takes_nothing_from_the_others() {
    let world = World::new(0, 1, 1);
    let keys: Vec<Key> = (0..2).map(|n| world.key(1, n)).collect();
    fill(&world, &keys);
    let client = world.client(1);
    let (first, second) = (keys[0].clone(), keys[1].clone());
    let read = world.run(async move {
        let txn = client.begin().expect("a clock");
        // The one that opened the batch goes before it is sent, and then while it is under way.
        for wait in [false, true] {
            let mut opener = Box::pin(txn.get(&first));
            let mut other = Box::pin(txn.get(&second));
            assert!(futures::poll!(&mut opener).is_pending());
            assert!(futures::poll!(&mut other).is_pending());
            if wait {
                assert!(futures::poll!(&mut opener).is_pending());
            }
            drop(opener);
            assert_eq!(other.await, Ok(Some(second.clone())));
        }
        txn.commit().await
    });
    assert!(read.is_ok(), "{read:?}");
    assert_eq!(read_messages(&world), [2, 2]);
}

/// A batch that nobody waits for any more must not keep its transaction from being dropped.
#[test]
fn a_batch_that_all_have_left_holds_no_locks() {
    let world = World::new(0, 1, 1);
    let key = world.key(1, 0);
    for polls in 1..4 {
        let (client, key) = (world.client(polls), key.clone());
        world.run(async move {
            let txn = client.begin().expect("a clock");
            txn.get(&Bytes::from_static(b"k0000")).await.expect("reads");
            let mut read = Box::pin(txn.get(&key));
            for _ in 0..polls {
                assert!(futures::poll!(&mut read).is_pending());
            }
        });
        world.pass(Duration::from_millis(5));
        assert_eq!(world.0.lock().groups.holders(), 0, "after {polls} polls");
    }
}

/// Everybody of a batch hears why it failed.
#[test]
fn errors_are_shared() {
    let world = World::new(0, 1, 1);
    let keys: Vec<Key> = (0..2).map(|n| world.key(1, n)).collect();
    let (holder, client) = (world.client(1), world.client(2));
    world.run(async move {
        let first = holder.begin().expect("a clock");
        first.get_many(&keys[..1], LockMode::Exclusive).await.expect("locks");
        let second = client.begin().expect("a clock");
        for read in join_all(keys.iter().map(|key| second.get(key))).await {
            assert!(matches!(read, Err(Error::Aborted { .. })), "{read:?}");
        }
    });
}
