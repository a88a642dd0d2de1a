//! Made-up certificates: good ones, forged ones, and good ones that contradict each other.

use super::file::{Lines, write_entry, write_header};
use super::*;
use bytes::Bytes;
use proto::request::{Certificate, Provenance, Timing};
use proto::{Ballot, GroupId, NodeId, TxnId};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use std::io::Cursor;
use truetime::key::Key;
use truetime::{Interval, Timestamp};

fn t(us: u64) -> Timestamp {
    Timestamp::from_micros(us)
}

fn key() -> Key {
    Key::from_hex(&"1f".repeat(32)).expect("64 digits")
}

/// A commit that arrived at a time and took as long as it has to, by a clock that is right to `eps`.
fn entry(seq: u64, arrived_us: u64, eps: u64) -> Entry {
    let now = |at: u64| Interval::new(t(at - eps), t(at + eps));
    let (txn, s) = (TxnId { client: 0x1f, seq }, t(arrived_us + eps + 1));
    let waited = arrived_us + 2 * eps + 2;
    let timing = Timing {
        locks_us: 0,
        prepare_us: 0,
        replicate_us: eps,
        wait_us: 2 * eps + 2,
        overlap_us: eps,
        epsilon_us: eps,
    };
    let mut certificate = Certificate {
        txn,
        timestamp: s,
        prepared: vec![(GroupId(2), t(arrived_us)), (GroupId(10), s)],
        arrived: now(arrived_us),
        waited: now(waited),
        provenance: Provenance {
            node: NodeId(1),
            provider: "local".into(),
            status: "synchronized".into(),
        },
        group: GroupId(1),
        ballot: Ballot { round: 3, node: NodeId(1) },
        timing,
        seal: Bytes::new(),
    };
    certificate.seal(&key());
    Entry {
        client: 3,
        txn,
        timestamp: s,
        began_ns: (arrived_us - 5) * 1_000,
        acknowledged_ns: (waited + 5) * 1_000,
        certificate: Some(certificate),
    }
}

/// Changes a certificate, and seals it again: what an owner of the key can do.
fn made(mut entry: Entry, change: impl FnOnce(&mut Certificate)) -> Entry {
    let certificate = entry.certificate.as_mut().expect("it has one");
    change(certificate);
    certificate.seal(&key());
    (entry.txn, entry.timestamp) = (certificate.txn, certificate.timestamp);
    entry
}

fn judged(key: Option<Key>, entries: &[Entry]) -> Judgement {
    let mut checker = Checker::new(key);
    entries.iter().enumerate().for_each(|(i, entry)| checker.add(i + 2, entry));
    checker.judge()
}

fn flaws(entries: &[Entry]) -> Vec<(Flaw, usize)> {
    judged(Some(key()), entries).flaws().into_iter().collect()
}

fn told(entries: &[Entry]) -> String {
    let judgement = judged(Some(key()), entries);
    judgement.objections(9).map(|objection| format!("{objection}\n")).collect()
}

#[test]
fn good_ones_pass_with_and_without_the_key() {
    let entries: Vec<Entry> = (0..100_000).map(|i| entry(i, 1_000 + 7 * i, 40)).collect();
    for key in [Some(key()), None] {
        let judgement = judged(key, &entries);
        assert!(judgement.flaws().is_empty(), "{:?}", judgement.objections(1).next());
        let counts = judgement.counts();
        let all = (counts.commits, counts.certificates, counts.sealed, counts.rejected);
        assert_eq!(all, (100_000, 100_000, 100_000, 0));
    }
}

#[test]
fn one_flaw_among_many_is_found() {
    let mut entries: Vec<Entry> = (0..100_000).map(|i| entry(i, 1_000 + 100 * i, 40)).collect();
    let forged = entries[70_000].certificate.as_mut().expect("it has one");
    forged.timing.locks_us += 1;
    assert_eq!(flaws(&entries), [(Flaw::ForgedSeal, 1), (Flaw::OddTiming, 1)]);
}

#[test]
fn what_is_wrong_with_one_alone_is_named() {
    let good = || entry(1, 1_000, 40);
    let one = |change: fn(&mut Certificate)| flaws(&[made(good(), change)]);
    let only = |flaw| vec![(flaw, 1)];
    assert_eq!(one(|_| {}), []);
    assert_eq!(one(|c| c.prepared[0].1 = c.timestamp.next()), only(Flaw::BelowPrepare));
    assert_eq!(one(|c| c.timestamp = c.arrived.latest())[0], (Flaw::BelowPrepare, 1));
    let early = |c: &mut Certificate| {
        c.prepared.clear();
        c.timestamp = c.arrived.latest();
    };
    assert_eq!(one(early), only(Flaw::NotAboveArrival));
    let hasty = |c: &mut Certificate| {
        c.waited = Interval::new(c.timestamp, c.timestamp.plus_micros(80));
        c.timing = Timing { epsilon_us: 40, ..Timing::default() };
    };
    assert_eq!(one(hasty), only(Flaw::WaitCutShort));
    let back = |c: &mut Certificate| {
        c.waited = Interval::new(c.waited.earliest(), c.waited.earliest());
        c.timing = Timing::default();
        c.arrived = Interval::new(c.arrived.earliest(), c.waited.latest().next());
        c.timestamp = c.arrived.latest().next();
    };
    assert!(one(back).contains(&(Flaw::ClockWentBack, 1)), "{:?}", one(back));
    for status in ["unsynchronized", "broken", "splendid", ""] {
        let lost = made(good(), |c| c.provenance.status = status.into());
        assert_eq!(flaws(&[lost]), only(Flaw::NoBound), "{status}");
    }
    assert_eq!(one(|c| c.provenance.provider.clear()), only(Flaw::NoBound));
    assert_eq!(one(|c| c.provenance.node = NodeId(2)), only(Flaw::AnothersClock));
    assert_eq!(one(|c| c.prepared[1].0 = GroupId(2)), only(Flaw::OddParticipants));
    assert_eq!(one(|c| c.prepared[1].0 = GroupId(1)), only(Flaw::OddParticipants));
    assert_eq!(one(|c| c.timing.prepare_us = u64::MAX), only(Flaw::OddTiming));
    assert_eq!(one(|c| c.timing.overlap_us += 1), only(Flaw::OddTiming));
    assert_eq!(one(|c| c.timing.epsilon_us -= 1), only(Flaw::OddTiming));
    let mut backwards = good();
    backwards.acknowledged_ns = backwards.began_ns - 1;
    assert_eq!(flaws(&[backwards]), only(Flaw::EndedBeforeBegun));
    let mut bare = good();
    bare.certificate.as_mut().expect("it has one").seal = Bytes::new();
    assert_eq!(flaws(std::slice::from_ref(&bare)), only(Flaw::NoSeal));
    assert!(judged(None, &[bare]).flaws().is_empty(), "without a key nobody looks at seals");
}

#[test]
fn certificates_that_were_swapped_are_nobodys() {
    let (mut one, mut two) = (entry(1, 1_000, 40), entry(2, 2_000, 40));
    std::mem::swap(&mut one.certificate, &mut two.certificate);
    for key in [Some(key()), None] {
        let judgement = judged(key, &[one.clone(), two.clone()]);
        assert_eq!(judgement.flaws(), [(Flaw::NotItsReceipt, 2)].into());
    }
}

#[test]
fn a_transaction_commits_once_and_a_timestamp_is_given_once() {
    let one = entry(1, 1_000, 40);
    assert_eq!(flaws(&[one.clone(), one.clone()]), [(Flaw::TwoCertificates, 1)]);
    let again = made(entry(1, 5_000, 40), |_| {});
    assert_eq!(flaws(&[one.clone(), again]), [(Flaw::TwoCertificates, 1)]);
    let other = made(one.clone(), |c| c.txn.seq = 2);
    assert_eq!(flaws(&[one.clone(), other]), [(Flaw::SharedTimestamp, 1)]);
    let elsewhere = made(one.clone(), |c| (c.txn.seq, c.group) = (2, GroupId(3)));
    assert_eq!(flaws(&[one, elsewhere]), [], "another group may give the same");
}

#[test]
fn a_later_leader_gives_higher_timestamps() {
    let by = |seq, at, round| made(entry(seq, at, 40), |c| c.ballot.round = round);
    assert_eq!(flaws(&[by(1, 1_000, 3), by(2, 2_000, 4)]), []);
    let crossed = [by(1, 1_000, 4), by(2, 2_000, 3)];
    assert_eq!(flaws(&crossed), [(Flaw::BallotsCross, 1)]);
    let story = "ballots cross (L3/L4), lines 2 and 3: g1 gave s1041 to t1f.1 under b4.n1, and the \
                 higher s2041 to t1f.2 under b3.n1, which is older\n";
    assert_eq!(told(&crossed), story);
}

#[test]
fn an_order_against_the_clients_is_told_with_both() {
    // The clock of another group's leader is 10 ms behind, and says that it is right to 40 µs. Each
    // certificate is in order by itself.
    let one = entry(1, 50_000, 40);
    let mut two = made(entry(2, 42_000, 40), |c| c.group = GroupId(3));
    (two.began_ns, two.acknowledged_ns) = (52_087_000, 52_200_000);
    let all = [entry(0, 10_000, 40), one, two, entry(3, 60_000, 40)];
    for key in [Some(key()), None] {
        assert_eq!(judged(key, &all).flaws(), [(Flaw::WrongOrder, 1)].into());
    }
    let story = "wrong order (X7/X8), lines 3 and 4: t1f.1 was acknowledged 2.000 ms before t1f.2 \
                 began, and committed at s50041, which is not below s42041\n";
    assert_eq!(told(&all), story);
}

#[test]
fn the_order_is_that_of_a_naive_twin() {
    for seed in 0..300 {
        let mut rng = StdRng::seed_from_u64(seed);
        let entries: Vec<Entry> = (0..20)
            .map(|seq| {
                let mut entry = entry(seq, rng.random_range(1_000..4_000), 40);
                entry.certificate.as_mut().expect("it has one").group = GroupId(100 + seq as u32);
                entry.began_ns = rng.random_range(0..3_000_000);
                entry.acknowledged_ns = entry.began_ns + rng.random_range(0..400_000);
                entry
            })
            .collect();
        let wrong = |later: &&Entry| {
            entries.iter().any(|earlier| {
                earlier.acknowledged_ns < later.began_ns && earlier.timestamp >= later.timestamp
            })
        };
        let wanted = entries.iter().filter(wrong).count();
        let found = judged(None, &entries).flaws().get(&Flaw::WrongOrder).copied();
        assert_eq!(found.unwrap_or(0), wanted, "seed {seed}");
    }
}

#[test]
fn a_commit_without_a_certificate_is_counted() {
    let mut bare = entry(1, 1_000, 40);
    bare.certificate = None;
    let judgement = judged(Some(key()), &[bare]);
    assert!(judgement.flaws().is_empty());
    assert_eq!((judgement.counts().commits, judgement.counts().certificates), (1, 0));
}

fn text(entries: &[Entry]) -> Vec<u8> {
    let mut text = Vec::new();
    write_header(&mut text, &Header::default()).expect("memory");
    entries.iter().for_each(|entry| write_entry(&mut text, entry).expect("memory"));
    text
}

#[test]
fn a_file_says_what_was_written_and_refuses_what_was_not() {
    let mut bare = entry(1, 1_000, 40);
    bare.certificate = None;
    let entries = [bare, entry(2, 2_000, 40)];
    let lines = Lines::open(Cursor::new(text(&entries))).expect("a header");
    assert_eq!(lines.header(), &Header::default());
    let read: Result<Vec<Entry>, _> = lines.collect();
    assert_eq!(read.expect("all lines are good"), entries);

    let refused = |text: &str| Lines::open(Cursor::new(text.to_owned())).err().expect("no header");
    assert_eq!(refused("").to_string(), "1: the file is empty");
    let other = refused(r#"{"format":"meridian-certificates","version":2}"#).to_string();
    assert_eq!(other, "1: version 2 of the format; this reads 1");
    let history = refused(r#"{"format":"meridian-history","version":2}"#).to_string();
    assert_eq!(history, "1: the format is meridian-history, not meridian-certificates");
    let good = String::from_utf8(text(&entries[1..])).expect("text");
    for (from, to, what) in [
        ("\"t1f.2\"", "\"t1F.2\"", "`t1F.2` is written as t1f.2"),
        ("\"b3.n1\"", "\"b03.n1\"", "`b03.n1` is written as b3.n1"),
        ("\"group\":\"g1\"", "\"group\":\"one\"", "`one` is no group; one is g1"),
        ("\"node\":\"n1\"", "\"node\":\"1\"", "`1` is no node; one is n1"),
        ("\"arrived_us\":[1960,", "\"arrived_us\":[9960,", "[9960, 2040] is no interval"),
        ("\"seal\":\"", "\"seal\":\"x", "a seal has hexadecimal digits"),
        ("\"at_us\"", "\"at\"", "unknown field `at`"),
    ] {
        let text = good.replace(from, to);
        assert_ne!(text, good, "{from}");
        let line = Lines::open(Cursor::new(text)).expect("a header").next().expect("a line");
        let error = line.expect_err(from).to_string();
        assert!(error.starts_with("2: ") && error.contains(what), "{error}");
    }
}

/// With the key, no byte of a certificate can be another one: it is malformed then, or rejected.
#[test]
fn no_byte_of_a_certificate_can_be_changed() {
    let good = text(&[entry(0x2a, 1_000, 40)]);
    let before = b"\"certificate\":";
    let start = good.windows(before.len()).position(|window| window == before);
    let start = start.expect("it is there") + before.len();
    let (mut malformed, mut rejected) = (0, 0);
    for at in start..good.len() - 2 {
        for byte in (b' '..=b'~').filter(|byte| *byte != good[at]) {
            let mut forged = good.clone();
            forged[at] = byte;
            let mut lines = Lines::open(Cursor::new(&forged)).expect("a header");
            let Ok(entry) = lines.next().expect("a line") else {
                malformed += 1;
                continue;
            };
            let flaws = judged(Some(key()), &[entry]).flaws();
            let line = String::from_utf8_lossy(&forged);
            assert!(flaws.contains_key(&Flaw::ForgedSeal), "{flaws:?} at {at} of {line}");
            rejected += 1;
        }
    }
    assert!(malformed > 10_000 && rejected > 1_000, "{malformed} malformed, {rejected} rejected");
}
