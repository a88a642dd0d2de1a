use super::*;

const ME: NodeId = NodeId(1);
const PEER: NodeId = NodeId(2);
const BALLOT: Ballot = Ballot { round: 1, node: ME };

fn t(ms: u64) -> Timestamp {
    Timestamp::from_micros(1_000_000 + ms * 1_000)
}

fn now(ms: u64) -> Interval {
    Interval::new(t(ms).minus_micros(100), t(ms).plus_micros(100))
}

fn beats(node: NodeId) -> Beats {
    Beats::new(node, GroupId(1), &Settings::default(), BTreeMap::new())
}

fn asleep(level: u64, peer: NodeId) -> Option<Asleep> {
    Some(Asleep { ballot: BALLOT, level: Slot(level), peers: vec![peer] })
}

/// What a tick sends to the other server: the list, and the promise.
fn beat(beats: &mut Beats, at: Interval, stirred: &[GroupId]) -> (Vec<Sleeper>, Timestamp) {
    let mut out = Outcome::default();
    beats.tick(at, stirred.iter(), &mut out);
    match out.send.as_slice() {
        [(PEER, Message::Beat { groups, promise, .. })] => (groups.clone(), *promise),
        other => panic!("{other:?}"),
    }
}

/// These servers' disks have taken the beat that was sent then.
fn taken_by(beats: &mut Beats, nodes: &[NodeId], ms: u64) {
    for node in nodes {
        beats.on_taken(now(ms), *node, (0, now(ms).earliest(), true), &[], &mut Outcome::default());
    }
}

fn taken(beats: &mut Beats, ms: u64) {
    taken_by(beats, &[ME, PEER], ms);
}

#[test]
fn nothing_is_promised_before_every_lease_is_known() {
    let mut beats = beats(ME);
    beats.note(now(0), GroupId(1), asleep(7, PEER));
    assert_eq!(beat(&mut beats, now(1), &[]).1, Timestamp::MIN);
    taken(&mut beats, 1);
    assert_eq!(beat(&mut beats, now(102), &[]).1, now(102).earliest());
    // Another one falls asleep: what was counted before says nothing of its lease.
    beats.note(now(150), GroupId(2), asleep(9, PEER));
    assert_eq!(beat(&mut beats, now(203), &[]).1, Timestamp::MIN);
    taken(&mut beats, 203);
    assert_eq!(beat(&mut beats, now(304), &[]).1, now(304).earliest());
}

#[test]
fn nothing_is_promised_beyond_a_lease() {
    let mut beats = beats(ME);
    beats.note(now(0), GroupId(1), asleep(7, PEER));
    beat(&mut beats, now(1), &[]);
    taken(&mut beats, 1);
    assert!(beat(&mut beats, now(490), &[]).1 > Timestamp::MIN);
    // The own disk answers, the other server does not: a lease of 500 ms after what it took last.
    taken_by(&mut beats, &[ME], 490);
    assert_eq!(beat(&mut beats, now(591), &[]).1, Timestamp::MIN);
    taken_by(&mut beats, &[PEER], 591);
    assert!(beat(&mut beats, now(692), &[]).1 > Timestamp::MIN);
}

#[test]
fn nothing_is_promised_while_a_group_may_be_waking_up() {
    let mut beats = beats(ME);
    beats.note(now(0), GroupId(1), asleep(7, PEER));
    beat(&mut beats, now(1), &[]);
    taken(&mut beats, 1);
    assert_eq!(beat(&mut beats, now(102), &[GroupId(1)]).1, Timestamp::MIN);
    assert!(beat(&mut beats, now(203), &[GroupId(5)]).1 > Timestamp::MIN, "not one of them");
}

#[test]
fn a_mended_clock_counts_nothing_of_before() {
    let mut beats = beats(ME);
    beats.note(now(0), GroupId(1), asleep(7, PEER));
    beat(&mut beats, now(60_000), &[]); // the clock was a minute ahead
    taken(&mut beats, 60_000);
    assert!(beat(&mut beats, now(60_101), &[]).1 > Timestamp::MIN);
    beats.clock_mended();
    assert_eq!(beat(&mut beats, now(102), &[]).1, Timestamp::MIN);
    beats.note(now(102), GroupId(1), None);
    beats.note(now(110), GroupId(1), asleep(7, PEER));
    taken(&mut beats, 60_101); // a late answer
    assert_eq!(beat(&mut beats, now(203), &[]).1, Timestamp::MIN);
}

#[test]
fn a_follower_at_another_place_of_the_log_is_not_level() {
    let mut beats = beats(PEER);
    beats.note(now(0), GroupId(1), asleep(7, ME));
    let mut hear = |digest, groups: &[Sleeper], promise| {
        let mut out = Outcome::default();
        let content = (groups.to_vec(), promise);
        beats.on_beat(now(1), ME, (GroupId(1), digest, t(1)), content, &mut out);
        let promised = beats.between[&ME].listed.as_ref().map(|listed| listed.promise);
        (out.send_after.len(), promised)
    };
    let group = |slot| [(GroupId(1), BALLOT, Slot(slot))];
    assert_eq!(hear(1, &group(8), t(0)), (0, None), "there is an entry that is not here");
    assert_eq!(hear(2, &group(7), t(0)), (1, Some(t(0))));
    assert_eq!(hear(2, &[], t(1)), (1, Some(t(1))));
    assert_eq!(hear(2, &[], Timestamp::MIN), (1, Some(t(1))), "nothing is taken back");
    assert_eq!(hear(3, &[], t(9)), (0, Some(t(1))), "another list");
    beats.note(now(2), GroupId(1), None);
    let mut out = Outcome::default();
    let content = (Vec::new(), t(9));
    beats.on_beat(now(3), ME, (GroupId(1), 2, t(3)), content, &mut out);
    assert!(out.send_after.is_empty(), "it is awake here");
    let listed = beats.between[&ME].listed.as_ref();
    assert_eq!(listed.map(|listed| listed.promise), Some(t(1)), "what was promised stays true");
}
