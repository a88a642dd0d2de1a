//! Reads at replicas that do not lead (R1, R2): what they see, and what they cost.

mod cluster;

use cluster::{Cluster, GROUPS};
use proto::request::ReadAt;
use proto::{Error, GroupId};
use spanserver::Settings;
use truetime::Timestamp;

const G: GroupId = GroupId(3);

fn exactly(us: u64) -> ReadAt {
    ReadAt::Exactly(Timestamp::from_micros(us))
}

fn asleep() -> Cluster {
    let mut c = Cluster::new();
    c.pass(5_000);
    assert_eq!(c.asleep(), 3 * GROUPS as usize);
    c
}

#[test]
fn a_strong_read_at_a_follower_of_an_idle_group_costs_one_message_and_its_answer() {
    let mut c = Cluster::new();
    c.pass(2_000);
    let write = c.write(G, "k", "v");
    c.pass(5_000);
    assert_eq!(c.asleep(), 3 * GROUPS as usize);
    let (follower, _) = c.follower_and_leader(G);
    c.forget_counts();
    let read = c.read(follower, G, "k", exactly(c.us + 50));
    c.pass(2);
    assert_eq!(c.found(read), Some((Timestamp::from_micros(c.us - 2_000 + 50), Some("v".into()))));
    assert_eq!((c.asked, c.words, c.others), (1, 1, 0));
    assert_eq!(c.asleep(), 3 * GROUPS as usize, "and nobody has woken up");
    // What is below is known now.
    let read = c.read(follower, G, "k", ReadAt::Exactly(c.committed(write).prev()));
    assert_eq!(c.found(read).map(|(_, value)| value), Some(None));
    assert_eq!((c.asked, c.words), (1, 1));
}

#[test]
fn many_reads_ask_together() {
    let mut c = asleep();
    let (follower, _) = c.follower_and_leader(G);
    c.forget_counts();
    let reads: Vec<_> = (0..10).map(|i| c.read(follower, G, "k", exactly(c.us - 9 + i))).collect();
    c.pass(6);
    assert!(reads.iter().all(|read| c.found(*read).is_some()));
    assert_eq!((c.asked, c.words), (1, 1), "one question for all of them");
}

#[test]
fn a_follower_sees_every_commit_that_was_answered_before() {
    let mut c = Cluster::new();
    c.pass(2_000);
    let (follower, leader) = c.follower_and_leader(G);
    for round in 0..200 {
        let value = round.to_string();
        let write = c.write(G, "k", &value);
        while !c.answers.contains_key(&write) {
            c.pass(1);
        }
        let at = c.now().latest();
        let reads = [follower, leader].map(|node| c.read(node, G, "k", ReadAt::Exactly(at)));
        c.pass(40);
        for read in reads {
            assert_eq!(c.found(read), Some((at, Some(value.clone()))));
        }
        c.pass(round % 7 * 30);
    }
}

#[test]
fn a_word_that_is_lost_is_asked_for_again_until_the_deadline() {
    let mut c = asleep();
    let (follower, leader) = c.follower_and_leader(G);
    c.cut_off.insert(leader);
    let read = c.read(follower, G, "k", exactly(c.us));
    c.pass(120);
    assert_eq!(c.found(read), None);
    c.cut_off.clear();
    c.pass(60);
    assert!(c.found(read).is_some());
}

#[test]
fn a_read_outlives_the_leader_it_has_asked() {
    let mut c = Cluster::new();
    c.pass(2_000);
    let write = c.write(G, "k", "v");
    c.pass(250);
    let at = c.committed(write);
    let (follower, leader) = c.follower_and_leader(G);
    c.cut_off.insert(leader);
    let [early, late] = [at, c.now().latest()].map(|at| {
        let read = c.read(follower, G, "k", ReadAt::Exactly(at));
        (read, at)
    });
    assert_eq!(c.found(early.0), Some((at, Some("v".into()))), "what it has applied, it serves");
    c.servers.remove(&leader);
    c.pass(2_000);
    assert!(c.leader(G).is_some_and(|next| next != leader));
    assert_eq!(c.found(late.0), Some((late.1, Some("v".into()))));
}

#[test]
fn a_timestamp_to_come_is_waited_for_and_no_commit_waits_for_it() {
    let mut c = asleep();
    let (follower, leader) = c.follower_and_leader(G);
    let to_come = c.us + 400_000;
    let reads = [follower, leader].map(|node| c.read(node, G, "k", exactly(to_come)));
    c.pass(100);
    let write = c.write(G, "k", "v");
    c.pass(20);
    assert!(c.committed(write) < Timestamp::from_micros(c.us), "R5");
    assert!(reads.iter().all(|read| c.found(*read).is_none()));
    c.pass(300);
    for read in reads {
        assert_eq!(c.found(read), Some((Timestamp::from_micros(to_come), Some("v".into()))));
    }
    let far = c.read(follower, G, "k", exactly(c.us + 2_000_000));
    assert!(matches!(c.answers[&far], Err(Error::TimestampInFuture { .. })));
}

#[test]
fn a_read_that_may_be_a_little_old_costs_no_message() {
    let mut c = Cluster::new();
    c.pass(2_000);
    let write = c.write(G, "k", "v");
    c.pass(6_000);
    assert_eq!(c.asleep(), 3 * GROUPS as usize);
    let (follower, _) = c.follower_and_leader(G);
    c.forget_counts();
    // A lease at most: the beats of two heartbeats may be on their way.
    let at_least = Timestamp::from_micros(c.us - 250_000);
    let read = c.read(follower, G, "k", ReadAt::Newest { at_least });
    let (at, value) = c.found(read).expect("it is served at once");
    assert!(at > at_least, "the beats' promise reaches {at}");
    assert!(at > c.committed(write));
    assert_eq!(value, Some("v".into()));
    assert_eq!((c.asked, c.words, c.others), (0, 0, 0));
    // Awake, its leader says as much with every tick.
    for round in 0..20 {
        c.write(G, "k", &round.to_string());
        c.pass(150);
        let at_least = Timestamp::from_micros(c.us - 150_000);
        let read = c.read(follower, G, "k", ReadAt::Newest { at_least });
        assert!(c.found(read).is_some_and(|(at, _)| at > at_least));
    }
    assert_eq!(c.asked, 0);
}

#[test]
fn what_was_promised_for_a_sleeping_group_binds_it_when_it_wakes() {
    let mut c = asleep();
    let (follower, leader) = c.follower_and_leader(G);
    for _ in 0..20 {
        c.pass(137);
        let at_least = Timestamp::MIN;
        let read = c.read(follower, G, "k", ReadAt::Newest { at_least });
        let (promised, _) = c.found(read).expect("it is served at once");
        // An entry that takes the lowest timestamp it can get.
        assert!(c.resolve(G));
        let mut groups = c.servers[&leader].groups();
        let (_, group) = groups.find(|(id, _)| *id == G).expect("it is there");
        assert!(group.manager().s_max().is_some_and(|s_max| s_max > promised), "L4, R2");
        assert!(group.manager().replicated().applied_at > promised, "R2");
    }
}

#[test]
fn a_follower_that_was_away_does_not_take_what_is_promised_to_others_for_its_own() {
    let mut c = asleep();
    let (follower, _) = c.follower_and_leader(G);
    c.cut_off.insert(follower);
    c.pass(1);
    let write = c.write(G, "k", "v");
    c.pass(100);
    let at = c.committed(write);
    let read = c.read(follower, G, "k", ReadAt::Newest { at_least: at });
    assert_eq!(c.found(read), None, "it knows nothing of that time");
    c.pass(2_000);
    let alone = c.read(follower, G, "k", ReadAt::Newest { at_least: at });
    assert!(matches!(c.answers[&alone], Err(Error::NotLeader { hint: None })), "nobody to ask");
    assert_eq!(c.found(read), None);
    c.cut_off.clear();
    c.pass(3_000);
    assert_eq!(c.found(read).map(|(_, value)| value), Some(Some("v".into())));
}

#[test]
fn while_a_snapshot_takes_its_place_nothing_is_read_and_what_was_under_way_is_nothing() {
    let limits = paxos::Limits { log_slots: 4, ..paxos::Limits::default() };
    let mut c = Cluster::with(Settings { seed: 7, limits, ..Settings::default() });
    c.pass(2_000);
    let first = c.write(G, "k", "old");
    c.pass(300);
    let first = ReadAt::Exactly(c.committed(first));
    let (follower, _) = c.follower_and_leader(G);
    c.cut_off.insert(follower);
    let mut last = None;
    for round in 0..30 {
        last = Some(c.write(G, "k", &round.to_string()));
        c.pass(200);
    }
    let last = c.committed(last.expect("30 rounds"));
    // Its disk stops, and a read is under way at it, as the snapshot arrives.
    c.cut_off.clear();
    (0..5_000).find(|_| {
        c.pass(1);
        c.chunk_on_its_way(follower)
    });
    c.stuck = Some(follower);
    let under_way = c.read(follower, G, "k", first);
    c.pass(1);
    {
        let mut groups = c.servers[&follower].groups();
        let (_, group) = groups.find(|(id, _)| *id == G).expect("it is there");
        assert!(!group.replica().is_settled(), "a snapshot is on its way to the disk");
    }
    let meanwhile = c.read(follower, G, "k", first);
    let newer = c.read(follower, G, "k", ReadAt::Exactly(last));
    c.run_reads();
    assert_eq!(c.answers[&under_way], Err(Error::NotLeader { hint: None }));
    c.pass(20);
    c.run_reads();
    assert_eq!((c.found(meanwhile), c.found(newer)), (None, None));
    c.go_on();
    c.pass(200);
    assert_eq!(c.found(meanwhile).map(|(_, value)| value), Some(Some("old".into())));
    assert_eq!(c.found(newer).map(|(_, value)| value), Some(Some("29".into())));
}
