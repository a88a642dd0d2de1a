//! Strikes leaders at one point of the commits they have to do with: see [`Point`].
//!
//! Where a point is the arrival of a message, the process is struck before it handles it; where it
//! is something that a step has brought about, before or between the effects of that step.

use crate::crash_points::Point;
use crate::effects::Effect;
use crate::node::{Action, Trap};
use crate::tally::Fault;
use crate::world::World;
use paxos::Payload;
use proto::peer::{PeerBody, PeerMessage};
use proto::request::{Body, Outcome, Reply, ReplyBody};
use proto::{Command, GroupId, NodeId, Slot, TxnId, codec};
use rand::Rng;
use spanserver::Message;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// How many strikes a run has at most: it has to get somewhere.
const STRIKES_MAX: u32 = 12;

/// How likely a leader is struck that has come to the point.
const CHANCE: f64 = 0.4;

/// What happens to a leader.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Strike {
    /// Its process ends.
    Crash,
    /// Its process stands still for so long.
    Pause(u64),
    /// No other node hears it, and it hears none, for so long.
    CutOff(u64),
}

/// How far a commit over several groups is, as the world sees it.
#[derive(Debug)]
struct Dealing {
    coordinator: GroupId,
    participants: BTreeSet<GroupId>,
    /// Whose leaders were asked to prepare.
    asked: BTreeSet<GroupId>,
    /// Whose word has come to the coordinator.
    ready: BTreeSet<GroupId>,
    /// Who has acknowledged the decision.
    acknowledged: BTreeSet<GroupId>,
}

/// See the [module](self).
#[derive(Debug, Default)]
pub(crate) struct Strikes {
    dealings: BTreeMap<TxnId, Dealing>,
    /// Up to where the logs of leaders have been looked through.
    looked: BTreeMap<(NodeId, GroupId), Slot>,
    /// Commit records of leaders that are not applied yet.
    pending: Vec<(NodeId, GroupId, Slot)>,
    /// Strikes so far.
    count: u32,
}

impl Strikes {
    /// A client asks for a commit.
    pub fn commit(&mut self, txn: TxnId, coordinator: GroupId, participants: &[GroupId]) {
        if participants.is_empty() {
            return;
        }
        self.dealings.entry(txn).or_insert_with(|| Dealing {
            coordinator,
            participants: participants.iter().copied().collect(),
            asked: BTreeSet::new(),
            ready: BTreeSet::new(),
            acknowledged: BTreeSet::new(),
        });
    }
}

/// To whom an action speaks of which commit, if it does.
enum Word {
    Commit(TxnId),
    Prepare(TxnId),
    Ready(TxnId, GroupId),
    Decided(TxnId),
    Acknowledged(TxnId, GroupId),
}

fn word(action: &Action) -> Option<(NodeId, GroupId, Word)> {
    match action {
        Action::Request { to, request, .. } => {
            let word = match &request.body {
                Body::Commit { txn, .. } => Word::Commit(*txn),
                Body::Prepare { txn, .. } => Word::Prepare(*txn),
                _ => return None,
            };
            Some((*to, request.group, word))
        }
        Action::Deliver { to, message: Message::Txn(message), .. } => {
            let PeerMessage { from, to: group, txn, body } = message;
            let word = match body {
                PeerBody::Prepared(_) | PeerBody::Validated { .. } => Word::Ready(*txn, *from),
                PeerBody::Decided(_) => Word::Decided(*txn),
                PeerBody::Acknowledged => Word::Acknowledged(*txn, *from),
                PeerBody::Refused | PeerBody::Wound => return None,
            };
            Some((*to, *group, word))
        }
        _ => None,
    }
}

fn over_several_groups(command: &Command) -> bool {
    matches!(command, Command::Commit(record) if !record.participants.is_empty())
}

impl World {
    fn leads(&self, node: NodeId, group: GroupId) -> bool {
        let server = self.nodes[&node].server.as_ref();
        let group = server.and_then(|s| s.groups().find(|(id, _)| *id == group));
        group.is_some_and(|(_, group)| group.manager().serving().is_some())
    }

    /// Whether a leader that has come to a point is struck, and how.
    fn draw_strike(&mut self, point: Point) -> Option<Strike> {
        let wanted = self.options.crash_point == Some(point) && self.faults.injecting;
        if !wanted || self.strikes.count >= STRIKES_MAX || !self.faults.rng.random_bool(CHANCE) {
            return None;
        }
        self.strikes.count += 1;
        Some(match self.faults.rng.random_range(0..10) {
            0..=1 => Strike::Pause(self.leases_ns(1.0, 3.0)),
            2..=3 => Strike::CutOff(self.leases_ns(1.5, 5.0)),
            _ => Strike::Crash,
        })
    }

    /// Strikes at once; whether the process goes on with what it was doing.
    pub(crate) fn strike(
        &mut self,
        node: NodeId,
        strike: Strike,
        point: Option<Point>,
        effects: &mut VecDeque<Effect>,
    ) -> bool {
        if let Some(point) = point {
            self.tally.points.add(point);
            self.note(|| format!("{node} is struck {point}"));
        }
        match strike {
            Strike::Crash => {
                self.note(|| format!("{node} has {} effects to go", effects.len()));
                self.faults.count(Fault::CrashMidStep);
                self.crash(node);
                false
            }
            Strike::Pause(pause_ns) => {
                self.faults.count(Fault::PauseMidStep);
                self.stall(node, pause_ns, std::mem::take(effects));
                false
            }
            Strike::CutOff(for_ns) => {
                self.faults.count(Fault::Isolation);
                self.part(vec![node], for_ns);
                true
            }
        }
    }

    /// A message is about to be handled: whether its receiver is struck before. What did not happen
    /// waits, or is lost.
    pub(crate) fn strike_on_arrival(&mut self, action: Action) -> Option<Action> {
        if self.options.crash_point.is_none() {
            return Some(action);
        }
        let Some((node, group, word)) = word(&action) else { return Some(action) };
        let point = self.point_of_arrival(node, group, word);
        let Some(strike) = point.and_then(|point| self.draw_strike(point)) else {
            return Some(action);
        };
        let goes_on = self.strike(node, strike, point, &mut VecDeque::new());
        if goes_on {
            return Some(action);
        }
        if let Some(waiting) = &mut self.node(node).stalled {
            waiting.push(action);
        }
        None
    }

    /// At which point a leader is when it hears this, if at any.
    fn point_of_arrival(&mut self, node: NodeId, group: GroupId, word: Word) -> Option<Point> {
        let leads = self.up(node) && self.leads(node, group);
        let (Word::Commit(txn)
        | Word::Prepare(txn)
        | Word::Ready(txn, _)
        | Word::Decided(txn)
        | Word::Acknowledged(txn, _)) = word;
        let dealing = self.strikes.dealings.get_mut(&txn).filter(|_| leads)?;
        match word {
            Word::Commit(_) => dealing.asked.is_empty().then_some(Point::BeforePrepares),
            Word::Prepare(_) => dealing.asked.insert(group).then_some(Point::BeforeLogged),
            Word::Ready(_, from) if dealing.coordinator == group => {
                let news = dealing.ready.insert(from);
                let all = dealing.ready == dealing.participants;
                (news && all).then_some(Point::AllPrepared)
            }
            Word::Decided(_) => Some(Point::OutcomeReceived),
            Word::Acknowledged(_, from) if dealing.coordinator == group => {
                let news = dealing.acknowledged.insert(from);
                let all = dealing.acknowledged == dealing.participants;
                (news && all).then_some(Point::BeforeCollected)
            }
            Word::Ready(..) | Word::Acknowledged(..) => None,
        }
    }

    /// A step is done, and its effects are still to come: perhaps strikes before one of them.
    /// Whether the process goes on.
    pub(crate) fn strike_after_step(
        &mut self,
        node: NodeId,
        heard: Option<TxnId>,
        effects: &mut VecDeque<Effect>,
    ) -> bool {
        let Some(point) = self.options.crash_point else { return true };
        if !self.up(node) {
            return true;
        }
        let Some(place) = self.place_of(point, node, heard, effects) else { return true };
        let Some(strike) = self.draw_strike(point) else { return true };
        if place == 0 {
            return self.strike(node, strike, Some(point), effects);
        }
        self.set_trap(node, Trap { effects: place as u32, strike, point: Some(point) });
        true
    }

    /// Before which effect a leader is at the point, if this step has brought it there.
    fn place_of(
        &mut self,
        point: Point,
        node: NodeId,
        heard: Option<TxnId>,
        effects: &mut VecDeque<Effect>,
    ) -> Option<usize> {
        let several = |txn: &TxnId| self.strikes.dealings.contains_key(txn);
        let sends = |effect: &Effect, kind: fn(&PeerBody) -> bool| match effect {
            Effect::Send(_, Message::Txn(message)) => kind(&message.body) && several(&message.txn),
            _ => false,
        };
        let tells = |effect: &Effect| {
            sends(effect, |body| matches!(body, PeerBody::Decided(Outcome::Committed(_))))
        };
        let answers = |effect: &Effect| match effect {
            Effect::Reply(answer) => match &answer.result {
                Ok(Reply { body: ReplyBody::Committed(_), .. }) => {
                    self.commit_of(answer.id).is_some_and(|txn| several(&txn))
                }
                _ => false,
            },
            _ => false,
        };
        let prepared = |effect: &Effect| sends(effect, |b| matches!(b, PeerBody::Prepared(_)));
        let acknowledges = |effect: &Effect| sends(effect, |b| *b == PeerBody::Acknowledged);
        let place = |wanted: &dyn Fn(&Effect) -> bool| effects.iter().position(wanted);
        let applies = matches!(effects.front(), Some(Effect::Apply(_)));
        match point {
            Point::SomePrepared => {
                let dealing = self.strikes.dealings.get(&heard?)?;
                let some = !dealing.ready.is_empty() && dealing.ready != dealing.participants;
                (some && self.leads(node, dealing.coordinator)).then_some(0)
            }
            Point::Proposed => {
                self.appended(node, over_several_groups).then(|| self.among_the_first(effects))
            }
            Point::PrepareProposed => {
                let prepare = |command: &Command| matches!(command, Command::Prepare(_));
                self.appended(node, prepare).then(|| self.among_the_first(effects))
            }
            Point::CommitWait => self.waits(node).then_some(0),
            Point::BeforeAck => {
                let place = place(&answers)?;
                Some(self.faults.rng.random_range(0..=place))
            }
            Point::BeforeNotify => {
                // No order is promised among what leaves: the client may be the first to hear.
                let (told, answered) = (place(&tells)?, place(&answers)?);
                let answer = effects.remove(answered)?;
                effects.insert(told.min(answered), answer);
                Some(told.min(answered) + 1)
            }
            Point::SomeNotified => {
                let first = place(&tells)?;
                let more = effects.iter().filter(|effect| tells(effect)).count() > 1;
                more.then_some(first + 1)
            }
            Point::BeforeReply => place(&prepared),
            Point::InDoubt => Some(place(&prepared)? + 1),
            Point::BeforeApply => place(&acknowledges).filter(|_| applies).map(|_| 0),
            Point::BeforeAcknowledged => place(&acknowledges).filter(|_| applies),
            Point::BeforePrepares
            | Point::AllPrepared
            | Point::BeforeCollected
            | Point::BeforeLogged
            | Point::OutcomeReceived => None,
        }
    }

    /// Before one of the first effects; or with other groups told and the own one not, for no order
    /// is promised among what leaves.
    fn among_the_first(&mut self, effects: &mut VecDeque<Effect>) -> usize {
        if self.faults.rng.random_bool(0.5) {
            return self.faults.rng.random_range(0..=effects.len().min(3));
        }
        let to_others = |effect: &Effect| matches!(effect, Effect::Send(_, Message::Txn(_)));
        let (told, rest): (VecDeque<_>, VecDeque<_>) =
            std::mem::take(effects).into_iter().partition(to_others);
        let place = told.len();
        effects.extend(told);
        effects.extend(rest);
        place
    }

    /// Whether a leader has appended such a command to its log since it was last asked; commits that
    /// are, wait to be applied.
    fn appended(&mut self, node: NodeId, wanted: impl Fn(&Command) -> bool) -> bool {
        let mut found = false;
        for group in self.groups.clone() {
            let leads = self.leads(node, group);
            let Some(replica) = self.replica(node, group) else { continue };
            let (first, last, _, _) = replica.positions();
            let known = self.strikes.looked.get(&(node, group)).copied().unwrap_or_default();
            let mut new = Vec::new();
            let mut slot = known.next().max(first);
            while leads && slot <= last {
                if let Some(Payload::Command(bytes)) = replica.entry(slot).map(|e| &e.payload)
                    && codec::decode(bytes).is_ok_and(|command: Command| wanted(&command))
                {
                    new.push((node, group, slot));
                }
                slot = slot.next();
            }
            found |= !new.is_empty();
            self.strikes.looked.insert((node, group), last);
            self.strikes.pending.extend(new);
        }
        found
    }

    /// Whether a commit record of this leader has just been chosen and is not applied.
    fn waits(&mut self, node: NodeId) -> bool {
        self.appended(
            node,
            |command| matches!(command, Command::Commit(record) if !record.participants.is_empty()),
        );
        let mut found = false;
        let pending = std::mem::take(&mut self.strikes.pending);
        for (at, group, slot) in pending {
            let positions = self.replica(at, group).map(|replica| replica.positions());
            let Some((_, _, chosen, applied)) = positions else { continue };
            if at == node && chosen >= slot && applied < slot {
                found = true; // asked about once
            } else if applied < slot {
                self.strikes.pending.push((at, group, slot));
            }
        }
        found
    }
}
