//! All groups of one server (or of one of its shards): routes events, holds back what waits for
//! the disk.

use crate::beats::{Beats, Outcome};
use crate::group::{Group, GroupOutput};
use crate::meta;
use crate::settings::Settings;
use crate::storage::{Engine, StorageError, WriteOp};
use crate::wakes::Wakes;
use bytes::Bytes;
use paxos::{Base, ChunkWanted, SnapshotId};
use proto::peer::PeerMessage;
use proto::plant::{Plant, planted};
use proto::request::{Certificate, Found, Provenance, Reply, ReplyBody, Request};
use proto::{Ballot, Error, GroupId, NodeId, Seat, Slot};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use truetime::key::Key;
use truetime::{Interval, Status, Timestamp};
use txn::server::{MinNext, ReadJob, ReadTag, RequestId};

/// Between servers. Any may be lost, repeated, late.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Message {
    /// Of one group's Paxos.
    Paxos {
        /// The group.
        group: GroupId,
        /// Which life of the sender's replica says it (P9).
        seat: Seat,
        /// The message.
        message: paxos::Message,
    },
    /// From one group's leader to another's, in two-phase commit.
    Txn(PeerMessage),
    /// Follower to leader: reads here wait for your word up to this timestamp (R2).
    AskMinNext {
        /// The group.
        group: GroupId,
        /// The timestamp.
        at: Timestamp,
    },
    /// Leader to member: its word, asked for or not. Everything up to its slot is chosen.
    MinNext {
        /// The group.
        group: GroupId,
        /// Under which it leads.
        ballot: Ballot,
        /// The word.
        word: MinNext,
    },
    /// The heartbeat of all groups that the sender leads and that are asleep on both sides.
    Beat {
        /// One of them.
        anchor: GroupId,
        /// A number for which they are, with their ballots.
        digest: u64,
        /// Which they are, and where their logs end; empty: those that were listed with this
        /// digest before.
        groups: Vec<(GroupId, Ballot, Slot)>,
        /// Behind the end of each log, no entry has a timestamp up to this (R2); the default: nothing
        /// is promised.
        promise: Timestamp,
        /// `now().earliest` at the sender before it asked (L2).
        sent: Timestamp,
    },
    /// Answer to `Beat`, after the disk of who gives it.
    BeatTaken {
        /// Echo of `Beat::anchor`.
        anchor: GroupId,
        /// Echo of `Beat::digest`.
        digest: u64,
        /// Echo of `Beat::sent`.
        sent: Timestamp,
        /// All of them are asleep here, and their votes renewed (L1).
        agrees: bool,
        /// Those that are not; none, although it does not agree: list them again.
        awake: Vec<GroupId>,
    },
}

impl Message {
    /// The group it is for.
    pub fn group(&self) -> GroupId {
        match self {
            Message::Paxos { group, .. }
            | Message::AskMinNext { group, .. }
            | Message::MinNext { group, .. } => *group,
            Message::Txn(message) => message.to,
            Message::Beat { anchor, .. } | Message::BeatTaken { anchor, .. } => *anchor,
        }
    }

    /// Whether it invites the receiver to become a member of the group (P9): the one message for
    /// which a server that has no replica of the group makes one, see [`Server::open`].
    pub fn is_invitation(&self) -> bool {
        matches!(self, Message::Paxos { message: paxos::Message::Greet { .. }, .. })
    }
}

/// What can happen to a server.
#[derive(Debug)]
pub enum Event {
    /// A client asks.
    Request {
        /// Names the answer.
        id: RequestId,
        /// The request.
        request: Request,
    },
    /// A server (also this one) says something.
    Message {
        /// Which.
        from: NodeId,
        /// What.
        message: Message,
    },
    /// The disk holds this batch and all before it.
    Persisted {
        /// See [`Persist::batch`].
        batch: u64,
    },
    /// A read has run.
    ReadDone {
        /// At which group.
        group: GroupId,
        /// From [`ReadJob::tag`].
        tag: ReadTag,
        /// What is there.
        found: Found,
    },
    /// A part of a snapshot has been read, by [`Pins::read`](crate::Pins::read).
    ChunkRead {
        /// Of which group.
        group: GroupId,
        /// Of which snapshot.
        id: SnapshotId,
        /// Which part.
        index: u64,
        /// What the snapshot holds.
        base: Base,
        /// The part's content.
        data: Bytes,
        /// No part follows.
        last: bool,
    },
}

/// An answer to a client.
#[derive(Debug)]
pub struct Answer {
    /// To which request.
    pub id: RequestId,
    /// What it says.
    pub result: Result<Reply, Error>,
    /// The lease under which it is true: it must leave before that has ended. `None`: it holds
    /// whoever leads.
    pub lease_end: Option<Timestamp>,
}

impl Answer {
    /// Call it, with the clock read anew, as the answer leaves: a process that was paused since the
    /// step must not speak for a lease that is over (L6).
    pub fn leave(self, now: Interval) -> (RequestId, Result<Reply, Error>) {
        let over = self.lease_end.is_some_and(|end| !now.before(end));
        if over && self.result.is_ok() && !planted(Plant::LeaseAtStartOnly) {
            return (self.id, Err(Error::NotLeader { hint: None }));
        }
        (self.id, self.result)
    }
}

/// A batch for the log: written as a whole, synced, then answered with [`Event::Persisted`].
#[derive(Debug)]
pub struct Persist {
    /// Grows by one with each batch of this server.
    pub batch: u64,
    /// The operations; never empty.
    pub ops: Vec<WriteOp>,
}

/// What a step asks of the world. Carry it out in the order of the fields: what is applied must
/// be readable before anybody hears of it.
#[derive(Debug, Default)]
pub struct Output {
    /// Write without sync, now.
    pub apply: Vec<WriteOp>,
    /// Write with sync; the step does not wait for it.
    pub persist: Option<Persist>,
    /// Send to servers.
    pub send: Vec<(NodeId, Message)>,
    /// Snapshots nobody needs any more: [`Pins::forget`](crate::Pins::forget).
    pub forget: Vec<(GroupId, SnapshotId)>,
    /// Parts of snapshots to read with [`Pins::read`](crate::Pins::read).
    pub chunks: Vec<(GroupId, ChunkWanted)>,
    /// Run against the engine, then come back with [`Event::ReadDone`].
    pub read: Vec<(GroupId, ReadJob)>,
    /// Answer clients, each through [`Answer::leave`].
    pub reply: Vec<Answer>,
    /// Step again once `after` this, with or without events.
    pub wake_after: Timestamp,
}

/// Where groups have replicas, as far as a server has been told: hints, which may be old.
pub type Places = BTreeMap<GroupId, Vec<NodeId>>;

/// A message that leaves after the disk has answered, and to whom.
type Waiting = (NodeId, Message);

/// See the [module](self).
#[derive(Debug)]
pub struct Server {
    node: NodeId,
    groups: BTreeMap<GroupId, Group>,
    /// When groups want to be ticked.
    wakes: Wakes,
    /// What waits for a batch on its way to the disk, oldest first (P1).
    held: VecDeque<(u64, Vec<Waiting>)>,
    beats: Beats,
    /// What beats have brought about in this step.
    beaten: Outcome,
    /// The clock has been wrong since the last step.
    clock_mended: bool,
    /// Whose time it is, and what that clock says of itself (T6).
    clock: Option<(&'static str, Status)>,
    /// Where groups are that may not be here.
    places: Arc<Places>,
    certificate_key: Option<Key>,
    next_batch: u64,
}

impl Server {
    /// A server with these groups, from its disk.
    ///
    /// # Errors
    /// I/O and corruption.
    pub fn recover(
        node: NodeId,
        groups: impl IntoIterator<Item = GroupId>,
        settings: &Settings,
        engine: &dyn Engine,
    ) -> Result<Server, StorageError> {
        let groups: BTreeSet<GroupId> = groups.into_iter().collect();
        let shard = groups.first().copied().unwrap_or_default();
        Server::recover_shard(node, shard, groups, settings, engine)
    }

    /// The same for one of several servers that share a node's disk. `shard` tells their records of
    /// votes apart: no two servers of a node may have the same (L1).
    ///
    /// # Errors
    /// I/O and corruption.
    pub fn recover_shard(
        node: NodeId,
        shard: GroupId,
        groups: impl IntoIterator<Item = GroupId>,
        settings: &Settings,
        engine: &dyn Engine,
    ) -> Result<Server, StorageError> {
        let granted = meta::granted(engine)?;
        let groups = groups
            .into_iter()
            .map(|id| Ok((id, Group::recover(id, node, settings, engine, &granted)?)))
            .collect::<Result<BTreeMap<_, _>, StorageError>>()?;
        let mut wakes = Wakes::default();
        groups.keys().for_each(|id| wakes.set(*id, Timestamp::MIN));
        Ok(Server {
            node,
            groups,
            wakes,
            held: VecDeque::new(),
            beats: Beats::new(node, shard, settings, granted),
            beaten: Outcome::default(),
            clock_mended: false,
            clock: None,
            places: Arc::default(),
            certificate_key: settings.certificate_key.clone(),
            next_batch: 1,
        })
    }

    /// Makes room for a replica of one more group, for somebody has invited this node to it. Until
    /// it is a member it is nobody there, with a seat of its own (P9).
    ///
    /// # Errors
    /// I/O and corruption.
    pub fn open(
        &mut self,
        id: GroupId,
        settings: &Settings,
        engine: &dyn Engine,
    ) -> Result<(), StorageError> {
        if !self.groups.contains_key(&id) {
            let granted = meta::granted(engine)?;
            let group = Group::recover(id, self.node, settings, engine, &granted)?;
            self.groups.insert(id, group);
            self.wakes.set(id, Timestamp::MIN);
        }
        Ok(())
    }

    /// Whether a replica of the group is hosted here.
    pub fn hosts(&self, id: GroupId) -> bool {
        self.groups.contains_key(&id)
    }

    /// The groups hosted here.
    pub fn groups(&self) -> impl Iterator<Item = (GroupId, &Group)> {
        self.groups.iter().map(|(id, group)| (*id, group))
    }

    /// The clock has been found wrong since the last step ([`truetime::Status::Broken`]), and will be
    /// right at the next one: that gives up all leases and renews all votes before anything else,
    /// for they were reckoned by it (T5, L1, L2).
    pub fn clock_mended(&mut self) {
        self.clock_mended = true;
    }

    /// Where groups have replicas: without that, a group that has none here cannot be told anything by
    /// one that has (X6, X10).
    pub fn set_places(&mut self, places: Arc<Places>) {
        self.places = places;
    }

    /// Where the intervals of the next steps come from: certificates say so (X13, T6).
    pub fn clock_is(&mut self, provider: &'static str, status: Status) {
        self.clock = Some((provider, status));
    }

    /// Takes a batch of events at one instant.
    pub fn step(&mut self, now: Interval, events: impl IntoIterator<Item = Event>) -> Output {
        let mut out = Output::default();
        let mut touched: BTreeMap<GroupId, GroupOutput> = BTreeMap::new();
        if std::mem::take(&mut self.clock_mended) {
            self.beats.clock_mended();
            for id in self.groups.keys().copied().collect::<Vec<_>>() {
                if let Some(group) = self.awake(id) {
                    group.clock_mended(now, &mut out, touched.entry(id).or_default());
                }
            }
        }
        for id in self.wakes.due(now) {
            if let Some(group) = self.awake(id) {
                group.tick(now, &mut out, touched.entry(id).or_default());
            }
        }
        for event in events {
            self.event(now, event, &mut out, &mut touched);
        }
        self.beats.tick(now, touched.keys(), &mut self.beaten);
        let Outcome { send, send_after, ops, wake } = std::mem::take(&mut self.beaten);
        for id in wake {
            if let Some(group) = self.awake(id) {
                group.wake(now);
                group.tick(now, &mut out, touched.entry(id).or_default());
            }
        }
        out.send.extend(send);
        // What one round releases (a message to itself whose disk has answered) may touch more
        // groups; it ends because nothing is released twice.
        let mut persisted = ops;
        let mut after: Vec<Waiting> = send_after;
        while let Some((id, mut mine)) = touched.pop_first() {
            if let Some(group) = self.groups.get_mut(&id) {
                self.wakes.set(id, group.finish(now, &mut out, &mut mine));
                self.beats.note(now, id, group.replica().asleep());
            }
            out.apply.extend(mine.apply);
            persisted.extend(mine.log);
            let seat = self.groups.get(&id).map(|group| group.replica().seat()).unwrap_or_default();
            let paxos = |message| Message::Paxos { group: id, seat, message };
            out.send.extend(mine.send.into_iter().map(|(to, message)| (to, paxos(message))));
            out.chunks.extend(mine.chunks.into_iter().map(|wanted| (id, wanted)));
            out.forget.extend(mine.forget.into_iter().map(|snapshot| (id, snapshot)));
            after.extend(mine.send_after.into_iter().map(|(to, message)| (to, paxos(message))));
            let on_its_way = !persisted.is_empty() || !self.held.is_empty();
            if touched.is_empty() && (!on_its_way || planted(Plant::LogUnsynced)) {
                let free = std::mem::take(&mut after);
                self.release(now, free, &mut out, &mut touched);
            }
        }
        self.hold(persisted, after, now, &mut out);
        for answer in &mut out.reply {
            if let Ok(Reply { body: ReplyBody::Committed(receipt), .. }) = &mut answer.result
                && let Some(certificate) = &mut receipt.certificate
            {
                self.complete(certificate);
            }
        }
        out.wake_after = self.beats.wake_after().min(self.wakes.first());
        out
    }

    /// X13: what a group does not know of a commit: whose clock it was; and then the seal.
    fn complete(&self, certificate: &mut Certificate) {
        let (provider, status) = self.clock.unzip();
        certificate.provenance = Provenance {
            node: self.node,
            provider: provider.unwrap_or_default().to_owned(),
            status: status.map_or_else(String::new, |status| status.to_string()),
        };
        if let Some(key) = &self.certificate_key {
            certificate.seal(key);
        }
    }

    /// A group, to do something with; should it be asleep, it first learns what was kept for it.
    fn awake(&mut self, id: GroupId) -> Option<&mut Group> {
        let group = self.groups.get_mut(&id)?;
        self.beats.refresh(id, group);
        Some(group)
    }

    fn event(
        &mut self,
        now: Interval,
        event: Event,
        out: &mut Output,
        touched: &mut BTreeMap<GroupId, GroupOutput>,
    ) {
        match event {
            Event::Request { id, request } => match self.awake(request.group) {
                Some(group) => {
                    let mine = touched.entry(request.group).or_default();
                    group.request(now, id, request, out, mine);
                }
                None => {
                    let error = Error::StaleRoute { descriptor: None };
                    out.reply.push(Answer { id, result: Err(error), lease_end: None });
                }
            },
            Event::Message { from, message } => self.message(now, from, message, out, touched),
            Event::Persisted { batch } => {
                while self.held.front().is_some_and(|(waits_for, _)| *waits_for <= batch) {
                    let Some((_, messages)) = self.held.pop_front() else { break };
                    self.release(now, messages, out, touched);
                }
            }
            Event::ChunkRead { group: id, id: snapshot, index, base, data, last } => {
                if let Some(group) = self.awake(id) {
                    let mine = touched.entry(id).or_default();
                    group.chunk_read(now, (snapshot, index), base, (data, last), mine);
                }
            }
            Event::ReadDone { group: id, tag, found } => {
                if let Some(group) = self.awake(id) {
                    let mine = touched.entry(id).or_default();
                    group.read_done(now, tag, found, out, mine);
                }
            }
        }
    }

    fn message(
        &mut self,
        now: Interval,
        from: NodeId,
        message: Message,
        out: &mut Output,
        touched: &mut BTreeMap<GroupId, GroupOutput>,
    ) {
        let id = message.group();
        let me = self.node;
        let message = match message {
            Message::Beat { anchor, digest, groups, promise, sent } => {
                // What has woken up in this step is not spoken for: it may have promised its vote to
                // somebody else (L1).
                for id in touched.keys() {
                    let asleep = self.groups.get(id).and_then(|group| group.replica().asleep());
                    self.beats.note(now, *id, asleep);
                }
                let beat = (anchor, digest, sent);
                let content = (groups, promise);
                return self.beats.on_beat(now, from, beat, content, &mut self.beaten);
            }
            Message::BeatTaken { digest, sent, agrees, awake, .. } => {
                let taken = (digest, sent, agrees);
                return self.beats.on_taken(now, from, taken, &awake, &mut self.beaten);
            }
            message => message,
        };
        let Some(group) = self.awake(id) else {
            if let Message::Txn(message) = message {
                self.pass_on(from, message, out);
            }
            return;
        };
        match message {
            Message::Beat { .. } | Message::BeatTaken { .. } => {}
            Message::Paxos { seat, message, .. } => {
                group.paxos(now, (from, seat), message, out, touched.entry(id).or_default());
            }
            Message::AskMinNext { at, .. } => {
                touched.entry(id).or_default();
                group.asked(from, at);
            }
            Message::MinNext { ballot, word, .. } => {
                let mine = touched.entry(id).or_default();
                group.told(now, from, (ballot, word), out, mine);
            }
            Message::Txn(message) if group.manager().serving().is_some() => {
                group.peer(now, message, out, touched.entry(id).or_default());
            }
            Message::Txn(message) => {
                // From a group of this node: its own replica of the group knows who leads. From
                // elsewhere: the sender's knowledge is old; it will send again.
                let leader = group.replica().leader_hint().filter(|leader| *leader != me);
                match leader {
                    Some(leader) if from == me => out.send.push((leader, Message::Txn(message))),
                    Some(_) => {}
                    // It may not even be a member: others know more.
                    None => self.pass_on(from, message, out),
                }
            }
        }
    }

    /// A message to a group that has no replica here, from one that has: to all who may have, for
    /// nobody here knows who leads. It may be late or lost; it is sent again.
    fn pass_on(&self, from: NodeId, message: PeerMessage, out: &mut Output) {
        if from == self.node {
            let places = self.places.get(&message.to).into_iter().flatten();
            let others = places.filter(|node| **node != self.node);
            out.send.extend(others.map(|node| (*node, Message::Txn(message.clone()))));
        }
    }

    /// The disk has answered: messages leave, those to this node are taken at once.
    fn release(
        &mut self,
        now: Interval,
        messages: Vec<Waiting>,
        out: &mut Output,
        touched: &mut BTreeMap<GroupId, GroupOutput>,
    ) {
        for (to, message) in messages {
            match to == self.node {
                true => self.message(now, to, message, out, touched),
                false => out.send.push((to, message)),
            }
        }
    }

    /// P1: what depends on the disk waits for this batch, or for the last one on its way.
    fn hold(&mut self, ops: Vec<WriteOp>, after: Vec<Waiting>, now: Interval, out: &mut Output) {
        if !ops.is_empty() {
            let batch = self.next_batch;
            self.next_batch += 1;
            out.persist = Some(Persist { batch, ops });
            self.held.push_back((batch, after));
        } else if let Some((_, waiting)) = self.held.back_mut() {
            waiting.extend(after);
        } else {
            // Nothing is on its way: beats alone came to this, for groups were let go above.
            let mut touched = BTreeMap::new();
            self.release(now, after, out, &mut touched);
            assert!(touched.is_empty(), "a group's messages were all released");
        }
    }
}
