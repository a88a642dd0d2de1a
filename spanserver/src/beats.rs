//! One heartbeat for each pair of servers, on behalf of all groups that are asleep between them.
//!
//! ```text
//!   n1 leads g3, g8, g9, all asleep            n2 follows n1 in them, all asleep
//!     │ Beat { digest, [g3,g8,g9], sent } ────────▶ all of them asleep here, and level with n1?
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
//!
//! A beat also carries one promise for all of its groups: *none of them has an entry, behind the one
//! at which it fell asleep, whose timestamp is at or below `promise`* (R2). With it a read that may be
//! a heartbeat old is served by a follower without a message. The groups' managers have to keep the
//! promise, and are asleep: so it is made only where every lease that it rests on is known here
//! (L4), not beyond `now().earliest`, which no later timestamp of theirs can be below anyway; and a
//! group that wakes up hears of it first ([`Beats::refresh`] again), before it hands anything out.

use crate::group::Group;
use crate::meta;
use crate::server::Message;
use crate::settings::Settings;
use crate::storage::WriteOp;
use paxos::Asleep;
use proto::plant::{Plant, planted};
use proto::{Ballot, GroupId, NodeId, Slot};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use truetime::{Interval, Timestamp};
use txn::server::MinNext;

#[cfg(test)]
mod tests;

/// A group that sleeps, as a beat names it: under which ballot, and where its log ends.
pub(crate) type Sleeper = (GroupId, Ballot, Slot);

/// What another server has listed.
#[derive(Debug)]
struct Listed {
    digest: u64,
    /// Where the log of each group ends.
    levels: BTreeMap<GroupId, Slot>,
    /// All of that is in `followed`.
    whole: bool,
    /// What was promised with this list. Behind the level of each group, no entry has a timestamp
    /// up to this: that stays true when the list is not whole any more.
    promise: Timestamp,
}

/// What sleeps between this server and another.
#[derive(Debug, Default)]
struct Between {
    /// Groups led here, with the time they fell asleep.
    led: BTreeMap<GroupId, (Ballot, Slot, Timestamp)>,
    /// The newest of these times; those that have woken up count.
    led_since: Timestamp,
    /// The digest of `led` that the other side has agreed to; then beats need no list.
    agreed: Option<u64>,
    /// Groups led there, with the time they fell asleep.
    followed: BTreeMap<GroupId, (Ballot, Slot, Timestamp)>,
    /// What the other side has listed last.
    listed: Option<Listed>,
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
    /// With the number of promises made before it fell asleep.
    asleep: BTreeMap<GroupId, (Asleep, u64)>,
    beat_after: Timestamp,
    /// When the last beats were sent, by a clock that was not found wrong since (T5).
    sent: VecDeque<Timestamp>,
    /// How many promises were made, and the highest.
    promises: u64,
    promised: Timestamp,
    /// No followed group is late before this, so that not each is looked at in each step; `None`: it
    /// has to be found out. Never later than the truth, for what makes it earlier clears it.
    late_after: Option<Timestamp>,
}

/// Answers to older beats than the last so many count for nothing.
const SENT_MAX: usize = 64;

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
            sent: VecDeque::new(),
            promises: 0,
            promised: Timestamp::MIN,
            late_after: None,
        }
    }

    /// Hands a sleeping group what was kept for it. Before anything else happens to it.
    pub fn refresh(&self, id: GroupId, group: &mut Group) {
        let Some((asleep, promises)) = self.asleep.get(&id) else { return };
        let leader = asleep.ballot.node;
        if let Some(between) = self.between.get(&leader) {
            group.extend_vote(between.granted);
            let listed = between.listed.iter().filter(|listed| listed.promise > Timestamp::MIN);
            for Listed { levels, promise, .. } in listed {
                if let Some(slot) = levels.get(&id) {
                    group.hear(MinNext { slot: *slot, at: *promise });
                }
            }
        }
        if leader != self.node {
            return;
        }
        for member in asleep.peers.iter().chain([&self.node]) {
            let Some(between) = self.between.get(member) else { continue };
            // A beat from before it fell asleep did not speak for it.
            let since = between.led.get(&id).map_or(Timestamp::MAX, |(_, _, since)| *since);
            if between.counted > since {
                group.vouched(*member, between.counted);
            }
        }
        if self.promises > *promises {
            group.vow(self.promised);
        }
    }

    /// Notes whether a group is asleep, after something has happened to it.
    pub fn note(&mut self, now: Interval, id: GroupId, asleep: Option<Asleep>) {
        if self.asleep.get(&id).map(|(before, _)| before) == asleep.as_ref() {
            return;
        }
        self.late_after = None;
        if let Some((old, _)) = self.asleep.remove(&id) {
            for peer in old.peers.into_iter().chain([self.node]) {
                let between = self.between.entry(peer).or_default();
                between.led.remove(&id);
                between.followed.remove(&id);
                if let Some(listed) = &mut between.listed {
                    listed.whole &= !listed.levels.contains_key(&id);
                }
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
                between.led.insert(id, (asleep.ballot, asleep.level, now.latest()));
                between.led_since = now.latest().max(between.led_since);
            } else {
                between.followed.insert(id, (asleep.ballot, asleep.level, now.latest()));
            }
        }
        self.asleep.insert(id, (asleep, self.promises));
    }

    /// Time has come: beats are sent, and what has heard none for too long wakes up. `stirred`: to
    /// these groups something has happened in this step, of which they have not been asked yet
    /// whether they sleep on.
    pub fn tick<'a>(
        &mut self,
        now: Interval,
        mut stirred: impl Iterator<Item = &'a GroupId>,
        out: &mut Outcome,
    ) {
        for between in self.between.values() {
            let silent = now.after(between.heard.plus_micros(2 * self.lease_us));
            if silent && !between.led.is_empty() {
                out.wake.extend(between.led.keys());
            }
        }
        if now.after(self.late_after()) {
            for between in self.between.values() {
                let until = between.followed_until(self.lease_us);
                out.wake.extend(until.filter(|(_, until)| now.after(*until)).map(|(id, _)| id));
            }
            self.late_after = None; // it may be later than it was
        }
        if !now.after(self.beat_after) {
            return;
        }
        self.beat_after = now.latest().plus_micros(self.heartbeat_us);
        let sent = now.earliest();
        let leads =
            |id: &GroupId| self.asleep.get(id).is_some_and(|(a, _)| a.ballot.node == self.node);
        let promise = self.may_promise(now).filter(|_| !stirred.any(leads)).unwrap_or_default();
        let beats = self.between.iter().filter_map(|(peer, between)| {
            let anchor = *between.led.keys().next()?;
            let led = || between.led.iter().map(|(id, (ballot, slot, _))| (*id, *ballot, *slot));
            let digest = digest(led());
            let known = between.agreed == Some(digest);
            let groups = if known { Vec::new() } else { led().collect() };
            Some((*peer, Message::Beat { anchor, digest, groups, promise, sent }))
        });
        let beats: Vec<(NodeId, Message)> = beats.collect();
        if promise > Timestamp::MIN && !beats.is_empty() {
            self.promises += 1;
            self.promised = promise.max(self.promised);
        }
        if !beats.is_empty() {
            self.sent.truncate(SENT_MAX - 1);
            self.sent.push_front(sent);
        }
        for (peer, beat) in beats {
            match peer == self.node {
                // Its own vote, like any other's: it counts when the disk has answered (P4).
                true => self.grant(now, peer, (beat.group(), 0, sent), out),
                false => out.send.push((peer, beat)),
            }
        }
    }

    /// The timestamp that can be promised for all groups that are led here and asleep: within the
    /// lease that each of them has at least, by the oldest beat that counts for any.
    fn may_promise(&self, now: Interval) -> Option<Timestamp> {
        let mut counted = Timestamp::MAX;
        for between in self.between.values().filter(|between| !between.led.is_empty()) {
            if between.counted <= between.led_since {
                return None; // one of them has fallen asleep since: its lease is not known here
            }
            counted = between.counted.min(counted);
        }
        let lease_end = counted.plus_micros(self.lease_us);
        now.before(lease_end).then(|| now.earliest())
    }

    /// The clock has been wrong: what was reckoned by it counts no more (T5).
    pub fn clock_mended(&mut self) {
        self.between.values_mut().for_each(|between| between.counted = Timestamp::MIN);
        self.sent.clear();
        self.beat_after = Timestamp::MIN;
        self.promised = Timestamp::MIN;
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
    pub fn wake_after(&mut self) -> Timestamp {
        let led = self.between.values().any(|between| !between.led.is_empty());
        let beat = if led { self.beat_after } else { Timestamp::MAX };
        self.late_after().min(beat)
    }

    /// See the field.
    fn late_after(&mut self) -> Timestamp {
        if let Some(known) = self.late_after {
            return known;
        }
        let followed = self.between.values().flat_map(|b| b.followed_until(self.lease_us));
        let first = followed.map(|(_, until)| until).fold(Timestamp::MAX, Timestamp::min);
        self.late_after = Some(first);
        first
    }

    /// Another server beats. `groups`: which are meant; none: those it has listed before.
    pub fn on_beat(
        &mut self,
        now: Interval,
        from: NodeId,
        (anchor, digest, sent): (GroupId, u64, Timestamp),
        (groups, promise): (Vec<Sleeper>, Timestamp),
        out: &mut Outcome,
    ) {
        let between = self.between.entry(from).or_default();
        let asleep = |(id, ballot, slot): &Sleeper| {
            let followed = between.followed.get(id);
            followed.is_some_and(|(under, level, _)| under == ballot && level == slot)
        };
        let awake: Vec<GroupId> =
            groups.iter().filter(|group| !asleep(group)).map(|(id, ..)| *id).collect();
        if !groups.is_empty() && awake.is_empty() {
            let levels = groups.into_iter().map(|(id, _, slot)| (id, slot)).collect();
            let promise = Timestamp::MIN;
            between.listed = Some(Listed { digest, levels, whole: true, promise });
            self.late_after = None;
        }
        let listed = between.listed.as_mut().filter(|listed| listed.digest == digest);
        if let Some(listed) = listed.filter(|listed| listed.whole && awake.is_empty()) {
            listed.promise = MinNext::believed(now, promise).max(listed.promise);
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
        if agrees && self.sent.contains(&sent) {
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
        self.followed.iter().map(move |(id, (_, _, since))| {
            let listed = self.listed.as_ref().filter(|listed| listed.whole);
            let until = since.plus_micros(lease_us);
            let listed = listed.is_some_and(|listed| listed.levels.contains_key(id));
            (*id, if listed { self.patience.max(until) } else { until })
        })
    }
}

/// A number for a set of sleeping groups: equal for equal sets (FNV-1a over them in order).
fn digest(groups: impl Iterator<Item = Sleeper>) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for (group, ballot, level) in groups {
        for number in [u64::from(group.0), ballot.round, u64::from(ballot.node.0), level.0] {
            for byte in number.to_le_bytes() {
                hash = (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
            }
        }
    }
    hash
}
