//! Whoever stops waiting leaves nothing behind; deadlines; keep-alives; the end of a transaction
//! that has read what is not past yet.

use super::world::{EPSILON_US, World};
use crate::client::{Client, ReadWrite, TimestampBound, TransactionOptions};
use bytes::Bytes;
use proto::request::{Body, LockMode, Outcome};
use proto::{Error, Key, NodeId};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;
use truetime::Timestamp;

const MS: Duration = Duration::from_millis(1);

fn keys(world: &World) -> [Key; 3] {
    [world.key(1, 0), world.key(2, 0), world.key(2, 1)]
}

fn within(timeout: Duration) -> TransactionOptions {
    TransactionOptions { timeout: Some(timeout), ..TransactionOptions::default() }
}

/// How many versions a group holds.
fn versions(world: &World, group: u32) -> usize {
    world.0.lock().groups.group(group).rows.values().map(|versions| versions.len()).sum()
}

fn holders(world: &World) -> usize {
    world.0.lock().groups.holders()
}

/// Reads in two groups, writes in both.
async fn prepare(client: &Client, keys: &[Key]) -> Result<ReadWrite, Error> {
    let txn = client.begin()?;
    txn.get_many(keys, LockMode::Shared).await?;
    txn.put(keys[0].clone(), Bytes::from_static(b"new"));
    txn.put(keys[1].clone(), Bytes::from_static(b"new"));
    Ok(txn)
}

/// Dropped after any number of microseconds, the locks are gone a few round trips later, and
/// the outcome is one for both groups: the servers' time-outs are not needed.
#[test]
fn a_transaction_dropped_at_any_time_leaves_no_locks() {
    let (mut committed, mut aborted) = (0, 0);
    for after_us in (0..2_000).step_by(10) {
        let world = World::new(after_us, 1, 2);
        // In order: a roll-back that overtakes its read finds nothing to roll back.
        world.0.lock().network.delay_us = 150..151;
        let (client, wanted) = (world.client(1), keys(&world));
        let work = async move { prepare(&client, &wanted).await?.commit().await };
        let done = world.run_for(Duration::from_micros(after_us), work);
        world.pass(5 * MS);
        assert_eq!(holders(&world), 0, "dropped after {after_us} µs: locks are left");
        let written = versions(&world, 1);
        assert_eq!(written, versions(&world, 2), "dropped after {after_us} µs: half of it");
        match done {
            Some(done) => assert!(done.is_ok() && written == 1, "{done:?}, {written} versions"),
            None if written == 1 => committed += 1,
            None => aborted += 1,
        }
    }
    assert!(committed > 20 && aborted > 20, "dropped: {committed} committed, {aborted} aborted");
}

/// X9: asked for its outcome before its commit has come, a transaction is fenced; the commit, which
/// comes later, is refused.
#[test]
fn a_dropped_commit_has_one_outcome() {
    for seed in 0..100 {
        let world = World::new(seed, 1, 2);
        world.0.lock().network.delay_us = 0..2_000; // messages overtake one another
        let (client, wanted) = (world.client(1), keys(&world));
        let (inner, patience) = (world.clone(), Duration::from_micros(seed * 20));
        let outcome = world.run(async move {
            let txn = prepare(&client, &wanted).await?;
            let committing = txn.clone();
            let mut commit = Box::pin(async move { committing.commit().await });
            let sleep = crate::client::ClientClock::sleep(&inner, patience);
            match futures::future::select(&mut commit, sleep).await {
                futures::future::Either::Left((receipt, _)) => {
                    receipt.map(|receipt| Outcome::Committed(receipt.timestamp))
                }
                futures::future::Either::Right(_) => {
                    drop(commit);
                    txn.outcome().await
                }
            }
        });
        world.pass(10 * MS);
        let expected = match outcome.expect("it is known") {
            Outcome::Committed(_) => 1,
            Outcome::Aborted => 0,
        };
        assert_eq!(versions(&world, 1), expected, "seed {seed}");
        assert_eq!(versions(&world, 2), expected, "seed {seed}");
        assert_eq!(holders(&world), 0, "seed {seed}");
    }
}

#[test]
fn without_a_commit_there_is_no_outcome() {
    let world = World::new(0, 1, 1);
    let client = world.client(1);
    let outcome = world.run(async move {
        let txn = client.begin()?;
        txn.commit().await?; // of nothing
        txn.outcome().await
    });
    assert!(matches!(outcome, Err(Error::FailedPrecondition(_))), "{outcome:?}");
}

#[test]
fn a_deadline_ends_reads_commits_and_attempts() {
    let world = World::new(0, 1, 2);
    let wanted = keys(&world);
    let late = |error: &Error| matches!(error, Error::DeadlineExceeded(_));

    // A read nobody answers.
    let (client, inner, key) = (world.client(1), world.clone(), wanted[0].clone());
    let before_us = world.now_us();
    let read = world.run(async move {
        let txn = client.begin_with(within(70 * MS)).expect("a clock");
        txn.get(&key).await.expect("it is answered");
        inner.sever(1.0);
        txn.get(&key).await
    });
    assert!(read.as_ref().is_err_and(late), "{read:?}");
    assert!(world.now_us() - before_us < 71_000, "not later than that");

    // A commit that is too late is not sent, and the locks go.
    world.sever(0.0);
    world.pass(2_000 * MS);
    let (client, inner, some) = (world.client(2), world.clone(), wanted.clone());
    world.arrivals();
    let commit = world.run(async move {
        let txn = client.begin_with(within(20 * MS)).expect("a clock");
        txn.get_many(&some, LockMode::Shared).await.expect("reads");
        txn.put(some[0].clone(), Bytes::new());
        inner.pass(30 * MS);
        txn.commit().await
    });
    assert!(commit.as_ref().is_err_and(late), "{commit:?}");
    world.pass(5 * MS);
    assert_eq!((holders(&world), versions(&world, 1)), (0, 0));
    let commits = |(_, _, body): &(_, _, Body)| matches!(body, Body::Commit { .. });
    assert!(!world.arrivals().iter().any(commits), "nothing was sent");

    // One that is under way is left to the coordinator.
    let (client, inner, some) = (world.client(3), world.clone(), wanted.clone());
    let commit = world.run(async move {
        let txn = client.begin_with(within(20 * MS)).expect("a clock");
        txn.put(some[0].clone(), Bytes::new());
        inner.sever(1.0);
        let commit = txn.commit().await;
        inner.sever(0.0);
        (commit, txn.outcome().await)
    });
    assert!(matches!(commit.0, Err(Error::OutcomeUnknown { .. })), "{:?}", commit.0);
    assert_eq!(commit.1, Ok(Outcome::Aborted), "it never got there");

    // Attempts end with it, though somebody holds the lock for ever.
    let (holder, client, key) = (world.client(4), world.client(5), wanted[2].clone());
    let tried = Arc::new(AtomicU32::new(0));
    let count = tried.clone();
    let run = world.run(async move {
        let older = holder.begin().expect("a clock");
        older.get_many(std::slice::from_ref(&key), LockMode::Exclusive).await.expect("locks");
        let work = |txn: ReadWrite| {
            count.fetch_add(1, Ordering::Relaxed);
            let key = key.clone();
            async move { txn.get(&key).await }
        };
        client.run_with(within(100 * MS), work).await
    });
    assert!(run.as_ref().is_err_and(late), "{run:?}");
    assert!(tried.load(Ordering::Relaxed) > 2, "it was tried again before");
}

#[test]
fn a_snapshot_has_a_deadline_too() {
    let world = World::new(0, 3, 1);
    world.sever(1.0);
    let (client, key) = (world.client(1), world.key(1, 0));
    let before_us = world.now_us();
    let read = world.run(async move {
        let snapshot = client.snapshot_with(TimestampBound::Strong, &within(30 * MS))?;
        snapshot.get(&key).await
    });
    assert!(matches!(read, Err(Error::DeadlineExceeded(_))), "{read:?}");
    assert!(world.now_us() - before_us < 31_000);
}

/// X6, X12: what a group that refuses to prepare says to the coordinator may be lost. The client has
/// it said again, or the coordinator would wait until the transaction is timed out.
#[test]
fn a_refusal_that_was_lost_is_said_again() {
    let world = World::new(0, 1, 2);
    world.0.lock().groups.refusals_lost = 2;
    let (client, inner, some) = (world.client(1), world.clone(), keys(&world));
    let before_us = world.now_us();
    let commit = world.run(async move {
        let txn = prepare(&client, &some).await.expect("reads");
        inner.0.lock().groups.group(1).round += 1; // another leader, and its locks are gone (X3)
        txn.commit().await
    });
    assert!(matches!(commit, Err(Error::Aborted { .. })), "{commit:?}");
    assert_eq!(world.0.lock().groups.refusals_lost, 0);
    assert!(world.now_us() - before_us < 1_000_000, "{}", world.now_us() - before_us);
}

#[test]
fn who_is_slow_is_waited_for_longer_each_time() {
    // An answer takes 120 ms, longer than the first two attempts last: 50 and 100 ms.
    let world = World::new(0, 1, 1);
    world.slow_down(60 * MS);
    for (attempt_ms_max, is_answered) in [(0, false), (100, false), (1_000, true)] {
        let (client, key) = (world.patient_client(attempt_ms_max, attempt_ms_max), world.key(1, 0));
        let before_us = world.now_us();
        let read = world.run(async move { client.begin().expect("a clock").get(&key).await });
        assert_eq!(read.is_ok(), is_answered, "{attempt_ms_max}: {read:?}");
        let took_us = world.now_us() - before_us;
        assert_eq!(took_us < 300_000, is_answered, "{took_us}");
    }
}

#[test]
fn attempts_can_be_counted() {
    let world = World::new(0, 1, 1);
    let client = world.client(1);
    let tried = Arc::new(AtomicU32::new(0));
    let count = tried.clone();
    let run: Result<((), _), Error> = world.run(async move {
        let options = TransactionOptions { retries_max: Some(3), ..Default::default() };
        let mut ages = Vec::new();
        let work = |txn: ReadWrite| {
            ages.push((txn.age(), txn.id()));
            count.fetch_add(1, Ordering::Relaxed);
            async { Err(Error::aborted("says the test")) }
        };
        let run = client.run_with(options, work).await;
        assert!(ages.windows(2).all(|two| two[0].0 == two[1].0), "X2: the age is kept");
        assert!(ages.windows(2).all(|two| two[0].1 != two[1].1), "each attempt has its own id");
        run
    });
    assert!(matches!(run, Err(Error::Aborted { .. })), "{run:?}");
    assert_eq!(tried.load(Ordering::Relaxed), 4);
}

/// X4: the groups here forget who says nothing for a second.
#[test]
fn a_slow_closure_keeps_its_locks() {
    for slow in [true, false] {
        let world = World::new(0, 1, 2);
        let (client, wanted, inner) = (world.client(1), keys(&world), world.clone());
        let rival = world.client(2);
        let done = world.run(async move {
            let work = |txn: ReadWrite| {
                let (wanted, inner) = (wanted.clone(), inner.clone());
                let rival = rival.begin().expect("a clock");
                async move {
                    txn.get_many(&wanted, LockMode::Exclusive).await?;
                    if slow {
                        crate::client::ClientClock::sleep(&inner, 3_500 * MS).await;
                    } else {
                        inner.pass(3_500 * MS); // nobody polls: as if the process were paused
                    }
                    // Somebody else comes for them.
                    let taken = rival.get(&wanted[0]).await;
                    txn.put(wanted[1].clone(), Bytes::new());
                    Ok::<_, Error>(taken.is_ok())
                }
            };
            let options = TransactionOptions { retries_max: Some(0), ..Default::default() };
            client.run_with(options, work).await.map(|(taken, _)| taken)
        });
        match slow {
            true => assert_eq!(done, Ok(false), "kept alive, and nobody else got them"),
            false => assert!(matches!(done, Err(Error::Aborted { .. })), "{done:?}"),
        }
    }
}

#[test]
fn keep_alives_end_with_the_transaction() {
    let world = World::new(0, 1, 2);
    let (client, wanted, inner) = (world.client(1), keys(&world), world.clone());
    let (lost, ended) = world.run(async move {
        let txn = prepare(&client, &wanted).await.expect("reads");
        inner.pass(5_000 * MS);
        let other = prepare(&client, &wanted).await; // takes the locks of who was silent
        let lost = txn.keep_alive_every(10 * MS).await;
        let other = other.expect("reads");
        other.rollback().await;
        (lost, other.keep_alive_every(10 * MS).await)
    });
    assert!(matches!(lost, Error::Aborted { .. }), "{lost:?}");
    assert!(matches!(ended, Error::FailedPrecondition(_)), "{ended:?}");
}

/// A locked read may find what was committed at a timestamp that is still to come. Whoever tells
/// that it has read it, having changed nothing, tells it later than that (X8).
#[test]
fn a_rollback_waits_out_what_was_read() {
    for (ahead_us, patient) in [(3_000, true), (0, false)] {
        let world = World::new(0, 1, 1);
        let (client, key) = (world.client(1), world.key(1, 0));
        let written = Timestamp::from_micros(world.now_us() + ahead_us);
        let value = Some(Bytes::from_static(b"v"));
        let rows = [(key.clone(), [(written, value)].into())].into();
        world.0.lock().groups.group(1).rows = rows;
        let inner = world.clone();
        let before_us = world.now_us();
        world.run(async move {
            let txn = client.begin().expect("a clock");
            txn.get(&key).await.expect("reads");
            let rolling = txn.clone();
            let mut rollback = Box::pin(async move { rolling.rollback().await });
            if patient {
                assert!(futures::poll!(&mut rollback).is_pending());
                inner.pass(MS);
                assert_eq!(inner.0.lock().groups.holders(), 0, "the locks go first");
            }
            rollback.await;
        });
        let took_us = world.now_us() - before_us;
        if patient {
            assert!(took_us > ahead_us + EPSILON_US, "told {took_us} µs after the start");
            assert!(took_us < ahead_us + 3 * EPSILON_US, "and not much later");
        } else {
            assert!(took_us < 1_000, "nothing to wait for: {took_us} µs");
        }
    }
}

/// What is released without a word is released at the node that leads.
#[test]
fn rollbacks_follow_the_leader() {
    let world = World::new(0, 3, 1);
    world.0.lock().groups.group(1).leader = NodeId(3);
    let (client, key) = (world.client(1), world.key(1, 0));
    world.run(async move {
        let txn = client.begin().expect("a clock");
        txn.get(&key).await.expect("reads");
    });
    world.pass(5 * MS);
    assert_eq!(holders(&world), 0);
}
