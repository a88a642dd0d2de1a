//! Groups as a client may expect them: locks that nobody waits for (whoever comes second is
//! aborted), outcomes that are kept, two-phase commit in which groups hear one another at once.
//! What real ones do besides is tested beside them, and both halves together in the simulator.

use super::world::{Answer, EPSILON_US};
use proto::keys::{Row, Span, Value, Write};
use proto::request::{Body, Found, LockMode, Outcome, ReadAt, ReadSet};
use proto::request::{Receipt, Reply, ReplyBody, Request};
use proto::{Ballot, Error, GroupId, Key, NodeId, Page, TxnId};
use std::collections::{BTreeMap, BTreeSet};
use truetime::Timestamp;

/// A transaction that says nothing for this long, and has promised nothing, is given up.
const SILENCE_US: u64 = 1_000_000;
/// Rows of one page, whatever is asked for.
const PAGE_ROWS: usize = 4;

/// An answer that leaves a node after a while.
pub struct Answered {
    pub node: NodeId,
    pub answer: Answer,
    pub reply: Result<Reply, Error>,
    pub after_us: u64,
}

/// A transaction at a group.
#[derive(Default)]
struct Txn {
    locks: Vec<(Span, LockMode)>,
    seen_us: u64,
    /// What it will write, once it is prepared, and who decides.
    prepared: Option<(Vec<Write>, GroupId)>,
}

/// A commit that waits for its participants.
struct Commit {
    writes: Vec<Write>,
    participants: Vec<GroupId>,
    /// Who is to be told, and how: the outcome, or a receipt.
    asked: Vec<(NodeId, Option<Answer>, bool)>,
}

pub struct Group {
    pub leader: NodeId,
    pub round: u64,
    pub rows: BTreeMap<Key, BTreeMap<Timestamp, Option<Value>>>,
    txns: BTreeMap<TxnId, Txn>,
    /// Nothing of these is heard any more.
    ended: BTreeSet<TxnId>,
    pub outcomes: BTreeMap<TxnId, Outcome>,
    commits: BTreeMap<TxnId, Commit>,
    /// The replicas that serve reads, and how far each is behind, in microseconds.
    pub replicas: BTreeMap<NodeId, u64>,
}

pub struct Groups {
    pub all: BTreeMap<GroupId, Group>,
    /// The fault that the tests must notice: outcomes are not kept (X9).
    pub forgetful: bool,
    /// So many refusals do not reach the coordinator (X12).
    pub refusals_lost: u32,
}

type Answers = Vec<Answered>;

impl Group {
    fn ballot(&self) -> Ballot {
        Ballot { round: self.round, node: self.leader }
    }

    /// Whether somebody else's lock is in the way.
    fn conflicts(&self, txn: TxnId, spans: &[(Span, LockMode)]) -> bool {
        let others = self.txns.iter().filter(|(other, _)| **other != txn);
        others.flat_map(|(_, other)| &other.locks).any(|(held, theirs)| {
            spans.iter().any(|(span, mine)| {
                (*theirs, *mine) != (LockMode::Shared, LockMode::Shared) && held.overlaps(span)
            })
        })
    }

    /// Who has been silent for too long and promised nothing loses its locks (X4).
    fn expire(&mut self, now_us: u64) {
        let commits = &self.commits;
        let silent = self.txns.iter().filter(|(id, txn)| {
            txn.prepared.is_none()
                && !commits.contains_key(id)
                && now_us.saturating_sub(txn.seen_us) > SILENCE_US
        });
        for id in silent.map(|(id, _)| *id).collect::<Vec<_>>() {
            self.end(id);
        }
    }

    fn end(&mut self, txn: TxnId) {
        self.txns.remove(&txn);
        self.ended.insert(txn);
    }

    /// Takes locks, unless the transaction has ended or somebody is in the way.
    fn lock(
        &mut self,
        now_us: u64,
        txn: TxnId,
        held: Option<bool>,
        spans: Vec<(Span, LockMode)>,
    ) -> Result<(), Error> {
        self.expire(now_us);
        if self.ended.contains(&txn) || (held.is_some() && !self.txns.contains_key(&txn)) {
            return Err(Error::aborted("the transaction has ended"));
        }
        if held == Some(false) {
            return Err(Error::aborted("the leader has changed"));
        }
        if self.conflicts(txn, &spans) {
            self.end(txn);
            return Err(Error::aborted("somebody else has a lock"));
        }
        let state = self.txns.entry(txn).or_default();
        state.seen_us = now_us;
        state.locks.extend(spans);
        Ok(())
    }

    pub fn holders(&self) -> usize {
        self.txns.len()
    }

    fn find(&self, at: Timestamp, what: &ReadSet, mine: impl Fn(&Key) -> bool) -> Found {
        let newest = |key: &Key| {
            let (written, value) = self.rows.get(key)?.range(..=at).next_back()?;
            Some((*written, value.clone()?))
        };
        match what {
            ReadSet::Keys(keys) => Found::Values(keys.iter().map(newest).collect()),
            ReadSet::Range { range, max_rows } => {
                let mut page = Page::default();
                let keys = self.rows.keys().filter(|key| range.contains(key) && mine(key));
                for (key, (written, value)) in keys.filter_map(|key| Some((key, newest(key)?))) {
                    if page.rows.len() >= PAGE_ROWS.min(*max_rows as usize) {
                        page.resume = Some(key.clone());
                        break;
                    }
                    page.rows.push(Row { key: key.clone(), value, written });
                }
                Found::Page(page)
            }
        }
    }
}

impl Groups {
    pub fn new(count: u32, nodes: u32) -> Groups {
        let group = |_| Group {
            leader: NodeId(1),
            round: 1,
            rows: BTreeMap::new(),
            txns: BTreeMap::new(),
            ended: BTreeSet::new(),
            outcomes: BTreeMap::new(),
            commits: BTreeMap::new(),
            replicas: (1..=nodes).map(|node| (NodeId(node), 0)).collect(),
        };
        let all = (1..=count).map(|number| (GroupId(number), group(number))).collect();
        Groups { all, forgetful: false, refusals_lost: 0 }
    }

    pub fn count(&self) -> u32 {
        self.all.len() as u32
    }

    pub fn group(&mut self, number: u32) -> &mut Group {
        self.all.get_mut(&GroupId(number)).expect("the group is there")
    }

    /// Every transaction that holds something somewhere.
    pub fn holders(&self) -> usize {
        self.all.values().map(Group::holders).sum()
    }

    pub fn handle(
        &mut self,
        now_us: u64,
        node: NodeId,
        request: Request,
        answer: Option<Answer>,
    ) -> Answers {
        let mut answers = self.give_up_silent(now_us);
        answers.extend(self.answer(now_us, node, request, answer));
        answers
    }

    /// Commits whose participants do not come, and participants whose commits do not, are aborted.
    fn give_up_silent(&mut self, now_us: u64) -> Answers {
        let mut silent = BTreeSet::new();
        for (id, group) in &self.all {
            for (txn, state) in &group.txns {
                if now_us.saturating_sub(state.seen_us) > SILENCE_US {
                    let coordinator = state.prepared.as_ref().map(|(_, coordinator)| *coordinator);
                    let coordinates = group.commits.contains_key(txn).then_some(*id);
                    silent.extend(coordinator.or(coordinates).map(|group| (group, *txn)));
                }
            }
        }
        silent.into_iter().flat_map(|(id, txn)| self.decide(now_us, id, txn, false)).collect()
    }

    fn answer(
        &mut self,
        now_us: u64,
        node: NodeId,
        request: Request,
        answer: Option<Answer>,
    ) -> Answers {
        let Request { group: id, ballot, body, deadline, .. } = request;
        let group = self.all.get_mut(&id).expect("the group is there");
        let current = ballot == Some(group.ballot());
        let reply = |body| Ok(Reply { ballot: group.ballot(), body });
        let to = |reply, after_us| match answer.clone() {
            Some(answer) => vec![Answered { node, answer, reply, after_us }],
            None => Vec::new(),
        };
        let now = Timestamp::from_micros(now_us);
        if now.minus_micros(EPSILON_US) > deadline {
            return to(Err(Error::DeadlineExceeded("it came late (X12)".into())), 0);
        }
        match body {
            Body::Snapshot { at, what } => {
                let Some(behind_us) = group.replicas.get(&node) else {
                    return to(Err(Error::NotLeader { hint: Some(group.leader) }), 0);
                };
                let safe = now.minus_micros(*behind_us);
                let at = match at {
                    ReadAt::Exactly(at) => at,
                    ReadAt::Newest { at_least } => at_least.max(safe),
                };
                let found = group.find(at, &what, |_| true);
                to(reply(ReplyBody::Snapshot { at, found }), at.since(safe).as_micros() as u64)
            }
            Body::SafeTime { .. } => match group.replicas.get(&node) {
                Some(behind_us) => to(reply(ReplyBody::SafeTime(now.minus_micros(*behind_us))), 0),
                None => to(Err(Error::NotLeader { hint: Some(group.leader) }), 0),
            },
            _ if node != group.leader => to(Err(Error::NotLeader { hint: Some(group.leader) }), 0),
            Body::Read { txn, holds_locks, mode, what, .. } => {
                let spans = match &what {
                    ReadSet::Keys(keys) => keys.iter().cloned().map(Span::Key).collect(),
                    ReadSet::Range { range, .. } => vec![Span::Range(range.clone())],
                };
                let spans = spans.into_iter().map(|span| (span, mode)).collect();
                let locked = group.lock(now_us, txn, holds_locks.then_some(current), spans);
                let found = locked.map(|()| group.find(Timestamp::MAX, &what, |_| true));
                let ballot = group.ballot();
                to(
                    found.map(|found| Reply {
                        ballot,
                        body: ReplyBody::Read { ahead: newest(&found), found },
                    }),
                    0,
                )
            }
            Body::KeepAlive { txn } => {
                let kept = group.lock(now_us, txn, Some(current), Vec::new());
                to(kept.and_then(|()| reply_of(group, ReplyBody::Done)), 0)
            }
            Body::Rollback { txn } => {
                let free = |txn: &Txn| txn.prepared.is_none();
                if group.txns.get(&txn).is_some_and(free) && !group.commits.contains_key(&txn) {
                    group.end(txn);
                }
                to(reply_of(group, ReplyBody::Done), 0)
            }
            Body::Prepare { holds_locks: false, .. } if !current => {
                to(Err(Error::StaleBallot { ballot: group.ballot() }), 0)
            }
            Body::Prepare { txn, holds_locks, coordinator, writes, .. } => {
                let mut answers = self.prepare(
                    now_us,
                    (id, txn, holds_locks.then_some(current)),
                    coordinator,
                    writes,
                );
                answers.1.extend(to(answers.0.map(|body| self.reply(id, body)), 0));
                answers.1
            }
            Body::Commit { txn, holds_locks, writes, participants, .. } => {
                let held = holds_locks.then_some(current);
                self.commit(now_us, (id, txn, held, current), writes, participants, (node, answer))
            }
            Body::Resolve { txn } => self.resolve(now_us, (id, txn), (node, answer)),
            Body::Status | Body::Members(_) | Body::Transfer { .. } => {
                unreachable!("no test asks for it")
            }
        }
    }

    fn reply(&self, group: GroupId, body: ReplyBody) -> Reply {
        Reply { ballot: self.all[&group].ballot(), body }
    }

    fn prepare(
        &mut self,
        now_us: u64,
        (id, txn, held): (GroupId, TxnId, Option<bool>),
        coordinator: GroupId,
        writes: Vec<Write>,
    ) -> (Result<ReplyBody, Error>, Answers) {
        let group = self.all.get_mut(&id).expect("the group is there");
        if group.txns.get(&txn).is_some_and(|txn| txn.prepared.is_some()) {
            return (Ok(ReplyBody::Done), Vec::new());
        }
        let exclusive = |write: &Write| (Span::Key(write.key.clone()), LockMode::Exclusive);
        let locked = group.lock(now_us, txn, held, writes.iter().map(exclusive).collect());
        if let Err(error) = locked {
            if self.refusals_lost > 0 {
                self.refusals_lost -= 1;
                return (Err(error), Vec::new());
            }
            return (Err(error), self.decide(now_us, coordinator, txn, false));
        }
        let state = group.txns.get_mut(&txn).expect("it has locks");
        state.prepared = Some((writes, coordinator));
        (Ok(ReplyBody::Done), self.proceed(now_us, coordinator, txn))
    }

    fn commit(
        &mut self,
        now_us: u64,
        (id, txn, held, current): (GroupId, TxnId, Option<bool>, bool),
        writes: Vec<Write>,
        participants: Vec<GroupId>,
        (node, answer): (NodeId, Option<Answer>),
    ) -> Answers {
        let group = self.all.get_mut(&id).expect("the group is there");
        if let Some(outcome) = group.outcomes.get(&txn).copied() {
            return self.tell(id, outcome, vec![(node, answer, true)], 0);
        }
        if let Some(commit) = group.commits.get_mut(&txn) {
            commit.asked.push((node, answer, true));
            return Vec::new();
        }
        if !current && held.is_none() {
            let reply = Err(Error::StaleBallot { ballot: group.ballot() });
            let answered = answer.map(|answer| Answered { node, answer, reply, after_us: 0 });
            return answered.into_iter().collect();
        }
        let exclusive = |write: &Write| (Span::Key(write.key.clone()), LockMode::Exclusive);
        let locked = group.lock(now_us, txn, held, writes.iter().map(exclusive).collect());
        let asked = vec![(node, answer, true)];
        group.commits.insert(txn, Commit { writes, participants, asked });
        match locked {
            Ok(()) => self.proceed(now_us, id, txn),
            Err(_) => self.decide(now_us, id, txn, false),
        }
    }

    fn resolve(
        &mut self,
        now_us: u64,
        (id, txn): (GroupId, TxnId),
        (node, answer): (NodeId, Option<Answer>),
    ) -> Answers {
        let group = self.all.get_mut(&id).expect("the group is there");
        if let Some(outcome) = group.outcomes.get(&txn).copied() {
            return self.tell(id, outcome, vec![(node, answer, false)], 0);
        }
        if let Some(commit) = group.commits.get_mut(&txn) {
            commit.asked.push((node, answer, false));
            return Vec::new();
        }
        // X9: unknown, so it is fenced.
        let (writes, participants) = (Vec::new(), Vec::new());
        let asked = vec![(node, answer, false)];
        group.commits.insert(txn, Commit { writes, participants, asked });
        self.decide(now_us, id, txn, false)
    }

    /// Commits, if everybody is prepared.
    fn proceed(&mut self, now_us: u64, coordinator: GroupId, txn: TxnId) -> Answers {
        let Some(commit) = self.all[&coordinator].commits.get(&txn) else {
            // Its outcome may be recorded already: whoever prepares now hears it.
            return match self.all[&coordinator].outcomes.contains_key(&txn) {
                true => self.settle(coordinator, txn),
                false => Vec::new(),
            };
        };
        let prepared = |group: &GroupId| {
            self.all[group].txns.get(&txn).is_some_and(|txn| txn.prepared.is_some())
        };
        match commit.participants.iter().all(prepared) {
            true => self.decide(now_us, coordinator, txn, true),
            false => Vec::new(),
        }
    }

    fn decide(&mut self, now_us: u64, id: GroupId, txn: TxnId, commits: bool) -> Answers {
        let group = self.all.get_mut(&id).expect("the group is there");
        let at = Timestamp::from_micros(now_us + EPSILON_US + 1);
        let outcome = match commits {
            true => Outcome::Committed(at),
            false => Outcome::Aborted,
        };
        let recorded = *group.outcomes.entry(txn).or_insert(outcome);
        let commit = group.commits.remove(&txn);
        if let (Some(commit), Outcome::Committed(at)) = (&commit, recorded) {
            for write in &commit.writes {
                let versions = group.rows.entry(write.key.clone()).or_default();
                versions.insert(at, write.value.clone());
            }
        }
        group.end(txn);
        self.settle(id, txn);
        let asked = commit.map(|commit| commit.asked).unwrap_or_default();
        // X8: told when the timestamp has passed on every clock.
        let answers = self.tell(id, recorded, asked, if commits { 2 * EPSILON_US + 2 } else { 0 });
        if self.forgetful {
            let group = self.all.get_mut(&id).expect("the group is there");
            group.outcomes.remove(&txn);
            group.ended.remove(&txn);
        }
        answers
    }

    /// Those who have prepared hear what was decided.
    fn settle(&mut self, coordinator: GroupId, txn: TxnId) -> Answers {
        let outcome = self.all[&coordinator].outcomes.get(&txn).copied();
        for group in self.all.values_mut() {
            let prepared = group.txns.get(&txn).and_then(|txn| txn.prepared.clone());
            if let Some((writes, by)) = prepared
                && by == coordinator
            {
                if let Some(Outcome::Committed(at)) = outcome {
                    for Write { key, value } in writes {
                        group.rows.entry(key).or_default().insert(at, value);
                    }
                }
                group.end(txn);
            }
        }
        Vec::new()
    }

    fn tell(
        &self,
        id: GroupId,
        outcome: Outcome,
        asked: Vec<(NodeId, Option<Answer>, bool)>,
        after_us: u64,
    ) -> Answers {
        let asked = asked.into_iter().filter_map(|(node, answer, receipt)| {
            let reply = match (receipt, outcome) {
                (false, outcome) => Ok(self.reply(id, ReplyBody::Outcome(outcome))),
                (true, Outcome::Committed(at)) => {
                    Ok(self.reply(id, ReplyBody::Committed(Receipt::plain(at, id))))
                }
                (true, Outcome::Aborted) => Err(Error::aborted("it was aborted")),
            };
            Some(Answered { node, answer: answer?, reply, after_us })
        });
        asked.collect()
    }
}

fn reply_of(group: &Group, body: ReplyBody) -> Result<Reply, Error> {
    Ok(Reply { ballot: group.ballot(), body })
}

/// The largest commit timestamp among what was found.
fn newest(found: &Found) -> Timestamp {
    let newest = match found {
        Found::Values(values) => values.iter().flatten().map(|(written, _)| *written).max(),
        Found::Page(page) => page.rows.iter().map(|row| row.written).max(),
    };
    newest.unwrap_or(Timestamp::MIN)
}
