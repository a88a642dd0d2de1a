//! One heartbeat for each pair of servers, on behalf of all groups that are asleep between them.
//!
//! ```text
//!   n1 leads g3, g8, g9, all asleep            n2 follows n1 in them, all asleep
//!     │ Beat { digest, [g3,g8,g9], sent } ────────▶ all of them asleep here, under these ballots?
//!     │                                             grant n1 the vote of all, note it on disk
//!     │ ◀──────────── BeatTaken { sent, agrees }
//!   agrees: counts for the leases of all
//!     │ Beat { digest, sent } ────────────────────▶ from now on the digest says which
//! ```
//!
//! A sleeping group has no timers and sends nothing. Its leader's lease and its members' votes are
//! kept here and handed to the group before anything happens to it ([`Beats::refresh`]), so the
//! group never sees that it slept. When the other side says that a group is awake there, it wakes
//! up here; when nothing is heard for too long, all do.

use crate::group::Group;
use crate::meta;
use crate::server::Message;
use crate::settings::Settings;
use crate::storage::WriteOp;
use paxos::Asleep;
use proto::plant::{Plant, planted};
use proto::{Ballot, GroupId, NodeId};
use std::collections::{BTreeMap, BTreeSet};
use truetime::{Interval, Timestamp};

/// What sleeps between this server and another.
#[derive(Debug, Default)]
struct Between {
    /// Groups led here, with the time they fell asleep.
    led: BTreeMap<GroupId, (Ballot, Timestamp)>,
    /// The digest of `led` that the other side has agreed to; then beats need no list.
    agreed: Option<u64>,
    /// Groups led there, with the time they fell asleep.
    followed: BTreeMap<GroupId, (Ballot, Timestamp)>,
    /// What the other side has listed, by digest, while all of that is in `followed`.
    listed: Option<(u64, BTreeSet<GroupId>)>,
    /// A beat sent after this was taken there (L2).
    counted: Timestamp,
    /// The last beat that was taken there, or the start of beating.
    heard: Timestamp,
    /// After this without a beat, what is listed wakes up.
    patience: Timestamp,
    /// Until when the vote of `followed` is granted to the other side (L1).
    granted: Timestamp,
    /// What the disk has of that; never less.
    granted_on_disk: Timestamp,
}

/// See the [module](self).
///
/// Invariants: `granted ≤ granted_on_disk`; a group is in `asleep` iff it is in `led` of all its
/// members or in `followed` of its leader.
#[derive(Debug)]
pub(crate) struct Beats {
    node: NodeId,
    /// The first group of this shard: a name for its records.
    shard: GroupId,
    lease_us: u64,
    heartbeat_us: u64,
    between: BTreeMap<NodeId, Between>,
    asleep: BTreeMap<GroupId, Asleep>,
    beat_after: Timestamp,
}

/// What came of an event.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    pub send: Vec<(NodeId, Message)>,
    /// Once `ops` are on disk.
    pub send_after: Vec<(NodeId, Message)>,
    pub ops: Vec<WriteOp>,
    pub wake: BTreeSet<GroupId>,
}

impl Beats {
    /// `granted`: by the disk, until when votes were granted to whom (L1).
    pub fn new(
        node: NodeId,
        shard: GroupId,
        settings: &Settings,
        granted: BTreeMap<NodeId, Timestamp>,
    ) -> Beats {
        let between = granted.into_iter().map(|(node, until)| {
            let between = Between { granted: until, granted_on_disk: until, ..Between::default() };
            (node, between)
        });
        Beats {
            node,
            shard,
            lease_us: settings.lease_ms * 1_000,
            heartbeat_us: settings.heartbeat_ms * 1_000,
            between: between.collect(),
            asleep: BTreeMap::new(),
            beat_after: Timestamp::MIN,
        }
    }

    /// Hands a sleeping group what was kept for it. Before anything else happens to it.
    pub fn refresh(&self, id: GroupId, group: &mut Group) {
        let Some(asleep) = self.asleep.get(&id) else { return };
        let leader = asleep.ballot.node;
        if let Some(between) = self.between.get(&leader) {
            group.extend_vote(between.granted);
        }
        if leader != self.node {
            return;
        }
        for member in asleep.peers.iter().chain([&self.node]) {
            let Some(between) = self.between.get(member) else { continue };
            // A beat from before it fell asleep did not speak for it.
            let since = between.led.get(&id).map_or(Timestamp::MAX, |(_, since)| *since);
            if between.counted > since {
                group.vouched(*member, between.counted);
            }
        }
    }

    /// Notes whether a group is asleep, after something has happened to it.
    pub fn note(&mut self, now: Interval, id: GroupId, asleep: Option<Asleep>) {
        if self.asleep.get(&id) == asleep.as_ref() {
            return;
        }
        if let Some(old) = self.asleep.remove(&id) {
            for peer in old.peers.into_iter().chain([self.node]) {
                let between = self.between.entry(peer).or_default();
                between.led.remove(&id);
                between.followed.remove(&id);
                let listed = |(_, groups): &mut (u64, BTreeSet<GroupId>)| groups.contains(&id);
                between.listed.take_if(listed);
            }
        }
        let Some(asleep) = asleep else { return };
        let leads = asleep.ballot.node == self.node;
        for peer in
            asleep.peers.iter().chain([&self.node]).filter(|peer| leads || **peer != self.node)
        {
            let between = self.between.entry(*peer).or_default();
            if leads {
                if between.led.is_empty() {
                    between.heard = now.latest();
                }
                between.led.insert(id, (asleep.ballot, now.latest()));
            } else {
                between.followed.insert(id, (asleep.ballot, now.latest()));
            }
        }
        self.asleep.insert(id, asleep);
    }

    /// Time has come: beats are sent, and what has heard none for too long wakes up.
    pub fn tick(&mut self, now: Interval, out: &mut Outcome) {
        for between in self.between.values() {
            let silent = now.after(between.heard.plus_micros(2 * self.lease_us));
            if silent && !between.led.is_empty() {
                out.wake.extend(between.led.keys());
            }
            let late = between.followed_until(self.lease_us).filter(|(_, until)| now.after(*until));
            out.wake.extend(late.map(|(id, _)| id));
        }
        if !now.after(self.beat_after) {
            return;
        }
        self.beat_after = now.latest().plus_micros(self.heartbeat_us);
        let sent = now.earliest();
        let beats = self.between.iter().filter_map(|(peer, between)| {
            let anchor = *between.led.keys().next()?;
            let led = || between.led.iter().map(|(id, (ballot, _))| (*id, *ballot));
            let digest = digest(led());
            let known = between.agreed == Some(digest);
            let groups = if known { Vec::new() } else { led().collect() };
            Some((*peer, Message::Beat { anchor, digest, groups, sent }))
        });
        let beats: Vec<(NodeId, Message)> = beats.collect();
        for (peer, beat) in beats {
            match peer == self.node {
                // Its own vote, like any other's: it counts when the disk has answered (P4).
                true => self.grant(now, peer, (beat.group(), 0, sent), out),
                false => out.send.push((peer, beat)),
            }
        }
    }

    /// Renews the vote of all groups asleep under a leader (L1), and says so after the disk.
    fn grant(
        &mut self,
        now: Interval,
        to: NodeId,
        (anchor, digest, sent): (GroupId, u64, Timestamp),
        out: &mut Outcome,
    ) {
        let until = now.latest().plus_micros(self.lease_us);
        let between = self.between.entry(to).or_default();
        between.granted = between.granted.max(until);
        between.patience = between.patience.max(until);
        if between.granted > between.granted_on_disk && !planted(Plant::LeaseVoteUnsynced) {
            // Ahead of what is granted, so that not every beat costs a sync.
            between.granted_on_disk = between.granted.plus_micros(self.lease_us);
            out.ops.push(meta::granted_op(self.shard, to, between.granted_on_disk));
        }
        let taken = Message::BeatTaken { anchor, digest, sent, agrees: true, awake: Vec::new() };
        out.send_after.push((to, taken));
    }

    /// After this, [`tick`](Self::tick).
    pub fn wake_after(&self) -> Timestamp {
        let led = self.between.values().any(|between| !between.led.is_empty());
        let beat = if led { self.beat_after } else { Timestamp::MAX };
        let followed = self.between.values().flat_map(|b| b.followed_until(self.lease_us));
        followed.map(|(_, until)| until).fold(beat, Timestamp::min)
    }

    /// Another server beats. `groups`: which are meant; none: those it has listed before.
    pub fn on_beat(
        &mut self,
        now: Interval,
        from: NodeId,
        (anchor, digest, sent): (GroupId, u64, Timestamp),
        groups: Vec<(GroupId, Ballot)>,
        out: &mut Outcome,
    ) {
        let between = self.between.entry(from).or_default();
        let asleep = |(id, ballot): &(GroupId, Ballot)| {
            between.followed.get(id).is_some_and(|(followed, _)| followed == ballot)
        };
        let awake: Vec<GroupId> =
            groups.iter().filter(|group| !asleep(group)).map(|(id, _)| *id).collect();
        if !groups.is_empty() {
            let all = groups.into_iter().map(|(id, _)| id).collect();
            between.listed = awake.is_empty().then_some((digest, all));
        }
        if between.listed.as_ref().is_some_and(|(listed, _)| *listed == digest) {
            return self.grant(now, from, (anchor, digest, sent), out);
        }
        let taken = Message::BeatTaken { anchor, digest, sent, agrees: false, awake };
        out.send.push((from, taken));
    }

    /// A beat was taken, or not, by another server, or by the own disk.
    pub fn on_taken(
        &mut self,
        now: Interval,
        from: NodeId,
        (digest, sent, agrees): (u64, Timestamp, bool),
        awake: &[GroupId],
        out: &mut Outcome,
    ) {
        let between = self.between.entry(from).or_default();
        between.agreed = agrees.then_some(digest);
        if agrees {
            between.counted = between.counted.max(sent);
            between.heard = now.latest();
        }
        out.wake.extend(awake.iter().filter(|id| between.led.contains_key(id)));
    }
}

impl Between {
    /// Until when each followed group sleeps on: those that beats speak for, while beats come;
    /// the others for a lease.
    fn followed_until(&self, lease_us: u64) -> impl Iterator<Item = (GroupId, Timestamp)> {
        self.followed.iter().map(move |(id, (_, since))| {
            let listed = self.listed.as_ref().is_some_and(|(_, groups)| groups.contains(id));
            let until = since.plus_micros(lease_us);
            (*id, if listed { self.patience.max(until) } else { until })
        })
    }
}

/// A number for a set of groups and ballots: equal for equal sets (FNV-1a over them in order).
fn digest(groups: impl Iterator<Item = (GroupId, Ballot)>) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for (group, ballot) in groups {
        for number in [u64::from(group.0), ballot.round, u64::from(ballot.node.0)] {
            for byte in number.to_le_bytes() {
                hash = (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
            }
        }
    }
    hash
}
