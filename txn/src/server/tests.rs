//! One leader and what comes to it late: copies of requests, decisions of transactions that left no
//! record in the log (X9, X12).

use super::*;
use proto::keys::Write;
use proto::request::ReadSet;
use proto::{NodeId, Value};

const EPSILON_MS: u64 = 4;
const READER: TxnId = TxnId { client: 1, seq: 1 };
const WRITER: TxnId = TxnId { client: 2, seq: 1 };
/// The reader's coordinator.
const OTHER: GroupId = GroupId(1);

fn ms(ms: u64) -> Timestamp {
    Timestamp::from_micros(1_000_000 + ms * 1_000)
}

fn now(at_ms: u64) -> Interval {
    let epsilon_us = EPSILON_MS * 1_000;
    Interval::new(ms(at_ms).minus_micros(epsilon_us), ms(at_ms).plus_micros(epsilon_us))
}

fn ballot(round: u64) -> Ballot {
    Ballot { round, node: NodeId(1) }
}

fn age(txn: TxnId) -> Age {
    Age { start: ms(0), first: txn }
}

struct Bench {
    manager: Manager,
    ballot: Ballot,
    next: u64,
}

impl Bench {
    fn new(lease_end: Timestamp) -> Bench {
        let manager = Manager::new(GroupId(2), Config::default(), Replicated::default());
        let mut bench = Bench { manager, ballot: ballot(1), next: 1 };
        bench.manager.lead(bench.ballot, ms(0), lease_end);
        bench
    }

    fn ask(&mut self, at_ms: u64, ballot: Option<Ballot>, body: Body) -> Effects {
        let mut out = Effects::default();
        let id = RequestId(self.next);
        self.next += 1;
        self.manager.request(now(at_ms), id, (ballot, ms(at_ms + 9_000)), body, &mut out);
        out
    }

    /// The first read of a transaction, or a late copy of it.
    fn read(&mut self, at_ms: u64) -> Effects {
        let what = ReadSet::Keys(vec![Key::from_static(b"k")]);
        let (txn, age, mode) = (READER, age(READER), LockMode::Shared);
        let body = Body::Read { txn, age, holds_locks: false, mode, what };
        self.ask(at_ms, None, body)
    }

    fn prepare(&mut self, at_ms: u64, coordinator: GroupId) -> Effects {
        let (txn, age, writes) = (READER, age(READER), Vec::new());
        let body = Body::Prepare { txn, age, holds_locks: true, coordinator, writes };
        self.ask(at_ms, Some(self.ballot), body)
    }

    fn commit_of_reads(&mut self, at_ms: u64) -> Vec<Result<ReplyBody, Error>> {
        let (txn, age, participants) = (READER, age(READER), Vec::new());
        let body = Body::Commit {
            txn,
            age,
            holds_locks: true,
            writes: Vec::new(),
            participants,
            before: None,
        };
        let out = self.ask(at_ms, Some(self.ballot), body);
        out.reply.into_iter().map(|(_, answer)| answer).collect()
    }

    /// Somebody writes what was read, and is acknowledged.
    fn overwrite(&mut self, at_ms: u64) -> Timestamp {
        let writes = vec![Write { key: Key::from_static(b"k"), value: Some(Value::new()) }];
        let (txn, age, participants) = (WRITER, age(WRITER), Vec::new());
        let body =
            Body::Commit { txn, age, holds_locks: false, writes, participants, before: None };
        let proposed = self.ask(at_ms, Some(self.ballot), body).propose;
        let [Command::Commit(record)] = &proposed[..] else { panic!("no lock for {txn}") };
        let (at, mut out) = (record.timestamp, Effects::default());
        for command in proposed {
            self.manager.chosen(now(at_ms), &command, &mut out);
            self.manager.apply(now(at_ms + 50), command, &mut out);
        }
        assert!(matches!(out.reply[..], [(_, Ok(ReplyBody::Committed(_)))]));
        at
    }

    fn decided(&mut self, at_ms: u64, s: Timestamp) -> Vec<PeerBody> {
        let body = PeerBody::Decided(Outcome::Committed(s));
        let message = PeerMessage { from: OTHER, to: GroupId(2), txn: READER, body };
        let mut out = Effects::default();
        self.manager.peer(now(at_ms), message, &mut out);
        out.send.into_iter().map(|message| message.body).collect()
    }
}

fn validated(out: &Effects) -> Option<Timestamp> {
    out.send.iter().find_map(|message| match message.body {
        PeerBody::Validated { until, .. } => Some(until),
        _ => None,
    })
}

#[test]
fn a_late_copy_of_a_read_takes_no_locks_again() {
    let mut bench = Bench::new(ms(60_000));
    assert_eq!(bench.read(10).read.len(), 1);
    assert!(validated(&bench.prepare(20, OTHER)).is_some());
    assert_eq!(bench.decided(30, ms(40)), [PeerBody::Acknowledged]);
    assert!(bench.read(31).read.is_empty());
    assert_eq!(bench.decided(32, ms(40)), [PeerBody::Acknowledged]);
    assert_eq!(bench.manager.lock_holders(), 0);
}

#[test]
fn a_late_copy_at_the_next_leader_is_ended_by_the_late_decision() {
    let mut bench = Bench::new(ms(500));
    bench.read(10);
    bench.prepare(20, OTHER);
    bench.manager.follow(&mut Effects::default());
    bench.ballot = ballot(2);
    bench.manager.lead(bench.ballot, ms(600), ms(9_000));
    assert_eq!(bench.read(610).read.len(), 1);
    assert_eq!(bench.decided(620, ms(40)), [PeerBody::Acknowledged]);
    assert_eq!(bench.manager.lock_holders(), 0);
}

#[test]
fn a_repeated_commit_of_reads_hears_what_the_first_one_heard() {
    let mut bench = Bench::new(ms(60_000));
    bench.read(10);
    let first = bench.commit_of_reads(20);
    let written = bench.overwrite(30);
    bench.read(100);
    let again = bench.commit_of_reads(110);
    assert_eq!(first, again);
    let asked = bench.ask(120, Some(bench.ballot), Body::Resolve { txn: READER });
    assert!(asked.propose.is_empty());
    let [Ok(ReplyBody::Committed(receipt))] = &again[..] else { panic!("{again:?}") };
    assert!(receipt.timestamp < written, "it read what was there before");
    let outcome = Ok(ReplyBody::Outcome(Outcome::Committed(receipt.timestamp)));
    assert_eq!(asked.reply.into_iter().map(|(_, answer)| answer).next(), Some(outcome));
}

#[test]
fn read_locks_that_are_gone_are_not_validated_again() {
    let mut bench = Bench::new(ms(600));
    bench.read(10);
    assert!(validated(&bench.prepare(20, OTHER)).is_some());
    bench.manager.lease(ms(3_000));
    bench.manager.tick(now(700), &mut Effects::default());
    bench.overwrite(710);
    bench.read(800);
    assert_eq!(validated(&bench.prepare(810, OTHER)), None);
}

#[test]
fn read_locks_are_promised_for_longer_as_the_lease_gets_longer() {
    let mut bench = Bench::new(ms(500));
    bench.read(10);
    assert_eq!(validated(&bench.prepare(20, OTHER)), Some(ms(500).prev()));
    bench.manager.lease(ms(800));
    let mut out = Effects::default();
    bench.manager.tick(now(400), &mut out);
    assert_eq!(validated(&out), Some(ms(800).prev()));
    assert_eq!(bench.manager.bound_until(), Some(ms(800).prev()), "L5: a hand-over waits for it");
}

#[test]
fn nobody_is_coordinator_and_participant() {
    let mut bench = Bench::new(ms(60_000));
    bench.read(10);
    let answers = bench.prepare(20, GroupId(2)).reply;
    assert!(matches!(answers[..], [(_, Err(Error::InvalidArgument(_)))]));
    let (txn, age, participants) = (READER, age(READER), vec![GroupId(2)]);
    let body = Body::Commit {
        txn,
        age,
        holds_locks: true,
        writes: Vec::new(),
        participants,
        before: None,
    };
    let answers = bench.ask(30, Some(bench.ballot), body).reply;
    assert!(matches!(answers[..], [(_, Err(Error::InvalidArgument(_)))]));
    bench.manager.tick(now(30_000), &mut Effects::default());
}

#[test]
fn a_commit_that_waits_for_the_lease_stays_below_its_bound() {
    for (bound, commits) in [(ms(14).next().next(), true), (ms(14).next(), false)] {
        let mut bench = Bench::new(ms(12)); // too short for any timestamp
        let writes = vec![Write { key: Key::from_static(b"k"), value: Some(Value::new()) }];
        let (txn, age, participants) = (WRITER, age(WRITER), Vec::new());
        let before = Some(bound);
        let body = Body::Commit { txn, age, holds_locks: false, writes, participants, before };
        let out = bench.ask(10, Some(bench.ballot), body);
        assert!(out.propose.is_empty(), "L4: nothing can be promised at the end of a lease");
        bench.manager.lease(ms(9_000));
        let mut out = Effects::default();
        bench.manager.tick(now(30), &mut out);
        match &out.propose[..] {
            [Command::Commit(record)] => {
                assert!(commits && record.timestamp < bound, "S1");
            }
            [Command::Abort { .. }] => assert!(!commits),
            other => panic!("{other:?}"),
        }
    }
}
