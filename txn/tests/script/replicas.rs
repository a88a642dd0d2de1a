//! What golden scripts can say to a leader and a follower of one group: each applies the log as far
//! as the script says, and words about timestamps to come are on their way in between.

use super::notation::{self, Txn, Wanted};
use proto::keys::{Span, Write};
use proto::request::{Body, Found, Outcome, ReadAt, ReadSet};
use proto::{Ballot, Command as Logged, GroupId, Key, NodeId, Slot};
use std::error::Error;
use std::fmt::Write as _;
use std::str::FromStr;
use truetime::{Interval, Timestamp};
use txn::server::{Config, Effects, Manager, MinNext, ReadJob, Replicated, RequestId};

/// The clocks are right to within this.
const EPSILON_US: u64 = 4_000;
/// How long a lease is.
const LEASE_US: u64 = 1_000_000;
/// How long clients wait for an answer.
const DEADLINE_MS: u64 = 1_000;

const GROUP: GroupId = GroupId(1);

/// Which of the two. They change places when another one leads.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Who {
    Leader,
    Follower,
}

impl FromStr for Who {
    type Err = String;
    fn from_str(name: &str) -> Result<Who, String> {
        match name {
            "leader" => Ok(Who::Leader),
            "follower" => Ok(Who::Follower),
            _ => Err(format!("neither leader nor follower: {name}")),
        }
    }
}

impl Who {
    fn name(self) -> &'static str {
        match self {
            Who::Leader => "leader",
            Who::Follower => "follower",
        }
    }
}

#[derive(goldenscript::Command)]
pub enum Command {
    /// It is 100 ms, give or take 4; slot 1 has opened the ballot.
    Group,
    /// Writes of a transaction; proposed.
    Commit(Txn, Vec<String>),
    /// The same, for another group to decide.
    Prepare(Txn, Vec<String>),
    /// That group has decided, at a timestamp in milliseconds; without one: aborted.
    Decide {
        txn: Txn,
        #[arg(key)]
        at: Option<u64>,
    },
    /// What is in the log is chosen, and the leader knows it.
    Choose,
    /// Applies what is chosen, as far as timestamps have passed.
    Apply(Who),
    /// A snapshot of the log's state so far takes the place of the follower's tablet.
    Install,
    /// That is on disk.
    Installed,
    /// `read follower a at=110`; `since=110`: the newest from there on, as can be had at once.
    Read {
        who: Who,
        spans: Vec<Wanted>,
        #[arg(key)]
        at: Option<u64>,
        #[arg(key)]
        since: Option<u64>,
    },
    /// Up to where such a read need not wait.
    Safe(Who, Vec<Wanted>),
    /// The follower asks for what its reads need.
    Ask,
    /// The leader says what it can without being asked.
    Tell,
    /// What the leader has said arrives.
    Deliver,
    /// What the leader has said is lost.
    Drop,
    /// Reads under way have run.
    Finish(Who),
    /// Milliseconds. The lease is renewed.
    Pass(u64),
    /// The leader hears from nobody any more: its lease is over.
    Expire,
    /// The leader is lost; what is not chosen is, too. The follower applies the log, and leads.
    Lead,
    /// The leader hands over, once every timestamp it gave out has passed.
    Hand,
}

struct Replica {
    manager: Manager,
    applied: Slot,
    reads: Vec<ReadJob>,
}

impl Replica {
    fn new() -> Replica {
        let manager = Manager::new(GROUP, Config::default(), Replicated::default());
        Replica { manager, applied: Slot::ZERO, reads: Vec::new() }
    }
}

#[derive(Default)]
pub struct Runner {
    us: u64,
    leader: Option<Replica>,
    follower: Option<Replica>,
    ballot: Ballot,
    log: Vec<Logged>,
    chosen: Slot,
    words: Vec<MinNext>,
    asked: Vec<String>,
    output: String,
}

impl goldenscript::Runner for Runner {
    type Command = Command;

    fn run(
        &mut self,
        command: &Command,
        _: &goldenscript::Context,
    ) -> Result<String, Box<dyn Error>> {
        match command {
            Command::Group => {
                self.us = 100_000;
                (self.leader, self.follower) = (Some(Replica::new()), Some(Replica::new()));
                self.ballot = Ballot { round: 0, node: NodeId(1) };
                self.lead()?;
                self.apply(Who::Follower)?;
                self.output.clear();
            }
            Command::Commit(txn, keys) => {
                let body = Body::Commit {
                    txn: txn.0,
                    age: txn.age(),
                    holds_locks: false,
                    writes: writes(keys),
                    participants: Vec::new(),
                    before: None,
                };
                self.ask(Who::Leader, format!("commit of {}", txn.0), body)?;
            }
            Command::Prepare(txn, keys) => {
                let body = Body::Prepare {
                    txn: txn.0,
                    age: txn.age(),
                    holds_locks: false,
                    coordinator: GroupId(2),
                    writes: writes(keys),
                };
                self.ask(Who::Leader, format!("prepare of {}", txn.0), body)?;
            }
            Command::Decide { txn, at } => {
                let outcome = at.map_or(Outcome::Aborted, |ms| Outcome::Committed(ms_at(ms)));
                let body = proto::peer::PeerBody::Decided(outcome);
                let message =
                    proto::peer::PeerMessage { from: GroupId(2), to: GROUP, txn: txn.0, body };
                self.act(Who::Leader, |manager, now, out| manager.peer(now, message, out))?;
            }
            Command::Choose => {
                self.chosen = Slot(self.log.len() as u64);
                writeln!(self.output, "chosen up to {}", self.chosen)?;
            }
            Command::Apply(who) => self.apply(*who)?,
            Command::Install => self.install()?,
            Command::Installed => {
                let applied = self.replica(Who::Follower)?.applied;
                self.act(Who::Follower, |manager, now, out| {
                    manager.settled();
                    manager.level(now, applied, out);
                })?;
            }
            Command::Read { who, spans, at, since } => {
                let spans: Vec<Span> = spans.iter().map(|span| span.0.clone()).collect();
                let (at, when) = match (at, since) {
                    (Some(ms), _) => (ReadAt::Exactly(ms_at(*ms)), format!("at {ms}")),
                    (None, since) => {
                        let at_least = ms_at(since.unwrap_or(0));
                        let when = format!("not before {}", since.unwrap_or(0));
                        (ReadAt::Newest { at_least }, when)
                    }
                };
                let name = format!("read of {} {when}", notation::spans(&spans));
                self.ask(*who, name, Body::Snapshot { at, what: read_set(&spans) })?;
            }
            Command::Safe(who, spans) => {
                let spans: Vec<Span> = spans.iter().map(|span| span.0.clone()).collect();
                let name = format!("how safe {} is", notation::spans(&spans));
                self.ask(*who, name, Body::SafeTime { what: read_set(&spans) })?;
            }
            Command::Ask => self.ask_leader()?,
            Command::Tell => self.word(None)?,
            Command::Deliver => {
                for word in std::mem::take(&mut self.words) {
                    let follower = self.replica(Who::Follower)?;
                    let applied = follower.applied;
                    follower.manager.hear(word, applied);
                    self.act(Who::Follower, |manager, now, out| {
                        manager.level(now, applied, out);
                    })?;
                }
            }
            Command::Drop => self.words.clear(),
            Command::Finish(who) => {
                for job in std::mem::take(&mut self.replica(*who)?.reads) {
                    let found = match &job.what {
                        ReadSet::Keys(keys) => Found::Values(vec![None; keys.len()]),
                        ReadSet::Range { .. } => Found::Page(proto::Page::default()),
                    };
                    self.act(*who, |manager, now, out| {
                        manager.read_done(now, job.tag, found, out);
                    })?;
                }
            }
            Command::Pass(ms) => {
                self.us += ms * 1_000;
                let lease_end = self.now().latest().plus_micros(LEASE_US);
                self.replica(Who::Leader)?.manager.lease(lease_end);
                self.act(Who::Leader, |manager, now, out| manager.tick(now, out))?;
                self.act(Who::Follower, |manager, now, out| manager.serve_reads(now, out))?;
            }
            Command::Expire => {
                let lease_end = self.now().earliest();
                self.replica(Who::Leader)?.manager.lease(lease_end);
            }
            Command::Lead => self.change()?,
            Command::Hand => {
                let bound = self.replica(Who::Leader)?.manager.bound_until();
                match bound.filter(|bound| !self.now().after(*bound)) {
                    Some(bound) => {
                        writeln!(self.output, "waits until {} has passed", notation::time(bound))?;
                    }
                    None => self.change()?,
                }
            }
        }
        Ok(std::mem::take(&mut self.output))
    }
}

impl Runner {
    fn now(&self) -> Interval {
        let [earliest, latest] = [self.us - EPSILON_US, self.us + EPSILON_US];
        Interval::new(Timestamp::from_micros(earliest), Timestamp::from_micros(latest))
    }

    fn replica(&mut self, who: Who) -> Result<&mut Replica, String> {
        let replica = match who {
            Who::Leader => &mut self.leader,
            Who::Follower => &mut self.follower,
        };
        replica.as_mut().ok_or_else(|| "no group".into())
    }

    fn ask(&mut self, who: Who, name: String, body: Body) -> Result<(), Box<dyn Error>> {
        let id = RequestId(self.asked.len() as u64);
        self.asked.push(name);
        let deadline = Timestamp::from_micros(self.us + DEADLINE_MS * 1_000);
        let ballot = Some(self.ballot);
        self.act(who, |manager, now, out| manager.request(now, id, (ballot, deadline), body, out))
    }

    fn ask_leader(&mut self) -> Result<(), Box<dyn Error>> {
        let now = self.now();
        match self.replica(Who::Follower)?.manager.wants_word(now) {
            Some(at) => {
                writeln!(self.output, "follower asks for {}", notation::time(at))?;
                self.word(Some(at))
            }
            None => {
                writeln!(self.output, "follower asks for nothing")?;
                Ok(())
            }
        }
    }

    fn word(&mut self, wanted: Option<Timestamp>) -> Result<(), Box<dyn Error>> {
        let (now, chosen) = (self.now(), self.chosen);
        let leader = self.replica(Who::Leader)?;
        let applied = leader.applied;
        match leader.manager.min_next(now, wanted, (applied, chosen)) {
            Some(word) => {
                let at = notation::time(word.at);
                writeln!(self.output, "leader: behind {} nothing up to {at}", word.slot)?;
                self.words.push(word);
            }
            None => writeln!(self.output, "leader: not now")?,
        }
        Ok(())
    }

    /// A new leader opens its ballot, and applies that.
    fn lead(&mut self) -> Result<(), Box<dyn Error>> {
        let bound = match &self.follower {
            Some(old) => old.manager.bound_until(),
            None => None,
        };
        self.log.push(Logged::Noop);
        self.chosen = Slot(self.log.len() as u64);
        self.apply(Who::Leader)?;
        let chosen = self.chosen;
        if self.replica(Who::Leader)?.applied < chosen {
            return Err("P3: a leader applies everything before it serves: let time pass".into());
        }
        let now = self.now();
        self.ballot.round += 1;
        // Leases are disjoint (L3), and all that was promised about timestamps lies in the last.
        let lease_start = now.latest().max(bound.unwrap_or_default());
        let (ballot, lease_end) = (self.ballot, lease_start.plus_micros(LEASE_US));
        self.replica(Who::Leader)?.manager.lead(ballot, lease_start, lease_end);
        writeln!(self.output, "led under {ballot}")?;
        Ok(())
    }

    fn change(&mut self) -> Result<(), Box<dyn Error>> {
        self.log.truncate(usize::try_from(self.chosen.0)?);
        std::mem::swap(&mut self.leader, &mut self.follower);
        self.lead()?;
        self.act(Who::Follower, |manager, _, out| manager.follow(out))?;
        let applied = self.replica(Who::Leader)?.applied;
        self.act(Who::Leader, |manager, now, out| manager.level(now, applied, out))
    }

    fn apply(&mut self, who: Who) -> Result<(), Box<dyn Error>> {
        loop {
            let (now, chosen) = (self.now(), self.chosen);
            let slot = self.replica(who)?.applied.next();
            if slot > chosen {
                return Ok(());
            }
            let command = self.log[usize::try_from(slot.0)? - 1].clone();
            if let Some(at) = Manager::wait_for(&command).filter(|at| !now.after(*at)) {
                let at = notation::time(at);
                writeln!(self.output, "{}: {slot} waits until {at} has passed", who.name())?;
                return Ok(());
            }
            writeln!(self.output, "{} applies {slot} {}", who.name(), notation::command(&command))?;
            self.replica(who)?.applied = slot;
            self.act(who, |manager, now, out| {
                manager.apply(now, command, out);
                manager.level(now, slot, out);
            })?;
        }
    }

    /// The leader's state replaces the follower's.
    fn install(&mut self) -> Result<(), Box<dyn Error>> {
        let leader = self.replica(Who::Leader)?;
        let applied = leader.applied;
        let state = leader.manager.replicated();
        let replicated = Replicated {
            prepared: state.prepared.clone(),
            outcomes: state.outcomes.clone(),
            applied_at: state.applied_at,
        };
        self.replica(Who::Follower)?.applied = applied;
        writeln!(self.output, "follower has a snapshot up to {applied}")?;
        self.act(Who::Follower, |manager, now, out| {
            manager.replaced(replicated);
            manager.level(now, applied, out);
        })
    }

    /// A step of a replica, and what it brings about.
    fn act(
        &mut self,
        who: Who,
        step: impl FnOnce(&mut Manager, Interval, &mut Effects),
    ) -> Result<(), Box<dyn Error>> {
        let now = self.now();
        let mut out = Effects::default();
        step(&mut self.replica(who)?.manager, now, &mut out);
        for command in out.propose {
            self.log.push(command.clone());
            let slot = Slot(self.log.len() as u64);
            self.replica(who)?.manager.proposed(slot, &command);
            writeln!(
                self.output,
                "{} proposes {slot} {}",
                who.name(),
                notation::command(&command)
            )?;
        }
        for (id, answer) in out.reply {
            let asked = self.asked.get(id.0 as usize).ok_or("an answer to nobody")?;
            writeln!(self.output, "{} answers {asked}: {}", who.name(), notation::answer(&answer))?;
        }
        for job in out.read {
            let (spans, at) = (spans_of(&job.what), notation::time(job.tag.at));
            writeln!(self.output, "{} reads {} at {at}", who.name(), notation::spans(&spans))?;
            self.replica(who)?.reads.push(job);
        }
        Ok(())
    }
}

fn ms_at(ms: u64) -> Timestamp {
    Timestamp::from_micros(ms * 1_000)
}

fn writes(keys: &[String]) -> Vec<Write> {
    let value = Some(Key::from_static(b"v"));
    let key = |key: &String| Key::copy_from_slice(key.as_bytes());
    keys.iter().map(|k| Write { key: key(k), value: value.clone() }).collect()
}

fn read_set(spans: &[Span]) -> ReadSet {
    match spans {
        [Span::Range(range)] => ReadSet::Range { range: range.clone(), max_rows: 100 },
        keys => ReadSet::Keys(
            keys.iter()
                .filter_map(|span| match span {
                    Span::Key(key) => Some(key.clone()),
                    Span::Range(_) => None,
                })
                .collect(),
        ),
    }
}

fn spans_of(what: &ReadSet) -> Vec<Span> {
    match what {
        ReadSet::Keys(keys) => keys.iter().cloned().map(Span::Key).collect(),
        ReadSet::Range { range, .. } => vec![Span::Range(range.clone())],
    }
}
