//! What golden scripts can say to groups: managers, each with a log that takes what it is given, a
//! replica that follows, and messages between them that arrive when the script says so.

use super::notation::{self, Group, Mode, Txn, Wanted};
use super::story::{self, Story, Tablet};
use proto::keys::{Span, Write};
use proto::peer::PeerMessage;
use proto::request::{Body, Outcome, ReadAt, ReadSet, ReplyBody};
use proto::{Ballot, Command as Logged, Error as Refusal, GroupId, Key, KeyRange, NodeId, TxnId};
use std::collections::{BTreeMap, VecDeque};
use std::error::Error;
use std::fmt::Write as _;
use truetime::{Interval, Timestamp};
use txn::server::{Config, Effects, Manager, ReadJob, Replicated, RequestId, StateChange};

/// The clocks are right to within this.
const EPSILON_US: u64 = 4_000;
/// How long a lease is.
const LEASE_US: u64 = 1_000_000;
/// How long clients wait for an answer.
const DEADLINE_MS: u64 = 5_000;

#[derive(goldenscript::Command)]
pub enum Command {
    /// Groups g1 to g*n*, each led under b1.n1. It is 100 ms, give or take 4.
    Groups {
        n: u32,
        /// Locks that one transaction may take by reading.
        #[arg(key)]
        locks_max: Option<usize>,
        /// Requests that may wait.
        #[arg(key)]
        waiting_max: Option<usize>,
    },
    /// `read t1 g1 shared=a`.
    Read(Txn, Group, Vec<(Mode, Wanted)>),
    /// `snapshot g1 a at=104`: a read without locks at a timestamp, in milliseconds. `by=t9`: for a
    /// read-only transaction; without a timestamp that is `now().latest` as it begins.
    Snapshot {
        group: Group,
        spans: Vec<Wanted>,
        #[arg(key)]
        at: Option<u64>,
        #[arg(key)]
        by: Option<Txn>,
    },
    /// `prepare t1 g2 b c=2 coordinator=g1`: the keys are written; without a value, it is the name
    /// of the transaction.
    Prepare {
        txn: Txn,
        group: Group,
        #[arg(pos, many, optional)]
        writes: Vec<String>,
        #[arg(key)]
        coordinator: Group,
        #[arg(key, many, optional)]
        values: Vec<(String, String)>,
    },
    /// `commit t1 g1 a=1 with=g2/g3`.
    Commit {
        txn: Txn,
        group: Group,
        #[arg(pos, many, optional)]
        writes: Vec<String>,
        #[arg(key)]
        with: Option<String>,
        /// Below which its timestamp must lie, in milliseconds.
        #[arg(key)]
        before: Option<u64>,
        #[arg(key, many, optional)]
        values: Vec<(String, String)>,
    },
    Rollback(Txn, Group),
    KeepAlive(Txn, Group),
    Resolve(Txn, Group),
    /// The reads under way find what they find.
    Finish,
    /// What was proposed is chosen, and applied as far as commit wait allows.
    Log(Vec<Group>),
    /// What was proposed is lost.
    Unlog(Group),
    /// Messages under way arrive; those sent meanwhile are under way.
    Deliver,
    /// Messages under way are lost.
    Drop,
    /// Time passes, in milliseconds; the managers notice.
    Pass(u64),
    /// The leader is lost. The replica that followed leads under the next ballot.
    Lead(Group),
    /// The leader hands over, once what it promised is over.
    Hand(Group),
    /// The locks of a group, as people see them; times are microseconds.
    Locks(Group),
    /// What the transactions have read and done, and whether an order explains it.
    Verdict,
}

/// A manager and the versions beside it.
struct Replica {
    manager: Manager,
    tablet: Tablet,
}

struct Led {
    leader: Replica,
    follower: Replica,
    ballot: Ballot,
    proposed: VecDeque<Logged>,
    /// How many of them the leader knows to be chosen.
    chosen: usize,
}

struct Asked {
    name: String,
    /// By which transaction; `None`: by nobody in the story.
    by: Option<TxnId>,
    what: Option<ReadSet>,
}

#[derive(Default)]
pub struct Runner {
    us: u64,
    groups: BTreeMap<GroupId, Led>,
    /// Under which ballot a transaction has read there.
    held: BTreeMap<(TxnId, GroupId), Ballot>,
    /// What was asked by each request.
    asked: Vec<Asked>,
    reads: Vec<(GroupId, ReadJob)>,
    sent: Vec<PeerMessage>,
    story: Story,
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
            Command::Groups { n, locks_max, waiting_max } => {
                self.us = 100_000;
                let mut config = Config::default();
                config.locks_max = locks_max.unwrap_or(config.locks_max);
                config.waiting_max = waiting_max.unwrap_or(config.waiting_max);
                for group in (1..=*n).map(GroupId) {
                    let replica = || Replica {
                        manager: Manager::new(group, config, Replicated::default()),
                        tablet: Tablet::default(),
                    };
                    let ballot = Ballot { round: 0, node: NodeId(1) };
                    let [leader, follower] = [replica(), replica()];
                    let proposed = VecDeque::new();
                    let led = Led { leader, follower, ballot, proposed, chosen: 0 };
                    self.groups.insert(group, led);
                    self.lead(group)?;
                }
                self.output.clear();
            }
            Command::Read(txn, group, wanted) => self.read(*txn, *group, wanted)?,
            Command::Snapshot { group, spans, at, by } => {
                self.snapshot(*group, spans, at.map(|ms| ms * 1_000), *by)?;
            }
            Command::Prepare { txn, group, writes, coordinator, values } => {
                let writes = write(*txn, writes, values);
                let (age, coordinator) = (txn.age(), coordinator.0);
                let (ballot, holds_locks) = self.ballot(txn.0, group.0)?;
                let body = Body::Prepare { txn: txn.0, age, holds_locks, coordinator, writes };
                self.ask(group.0, "prepare", Some(txn.0), Some(ballot), body)?;
            }
            Command::Commit { txn, group, writes, with, before, values } => {
                let with = with.iter().flat_map(|with| with.split('/')).map(str::parse::<Group>);
                let participants = with.map(|g| Ok(g?.0)).collect::<Result<_, String>>()?;
                let (age, writes) = (txn.age(), write(*txn, writes, values));
                let (ballot, holds_locks) = self.ballot(txn.0, group.0)?;
                let before = before.map(|ms| Timestamp::from_micros(ms * 1_000));
                let txn = txn.0;
                let body = Body::Commit { txn, age, holds_locks, writes, participants, before };
                self.ask(group.0, "commit", Some(txn), Some(ballot), body)?;
            }
            Command::Rollback(txn, group) => {
                let body = Body::Rollback { txn: txn.0 };
                self.ask(group.0, "rollback", Some(txn.0), None, body)?;
            }
            Command::KeepAlive(txn, group) => {
                let (ballot, _) = self.ballot(txn.0, group.0)?;
                let body = Body::KeepAlive { txn: txn.0 };
                self.ask(group.0, "keep-alive", Some(txn.0), Some(ballot), body)?;
            }
            Command::Resolve(txn, group) => {
                let body = Body::Resolve { txn: txn.0 };
                self.ask(group.0, "resolve", Some(txn.0), None, body)?;
            }
            Command::Finish => {
                for (group, job) in std::mem::take(&mut self.reads) {
                    let found = self.led(group)?.leader.tablet.find(&job);
                    self.act(group, |manager, now, out| {
                        manager.read_done(now, job.tag, found, out);
                    })?;
                }
            }
            Command::Log(groups) => {
                for group in groups {
                    self.log(group.0)?;
                }
            }
            Command::Unlog(group) => {
                let led = self.led(group.0)?;
                led.proposed.truncate(led.chosen);
            }
            Command::Deliver => {
                for message in std::mem::take(&mut self.sent) {
                    writeln!(self.output, "{}", notation::message(&message))?;
                    self.act(message.to, |manager, now, out| manager.peer(now, message, out))?;
                }
            }
            Command::Drop => {
                for message in self.sent.drain(..) {
                    writeln!(self.output, "{}, lost", notation::message(&message))?;
                }
            }
            Command::Pass(ms) => {
                self.us += ms * 1_000;
                let now = self.now();
                for group in self.groups.keys().copied().collect::<Vec<_>>() {
                    let lease_end = now.latest().plus_micros(LEASE_US);
                    self.led(group)?.leader.manager.lease(lease_end);
                    self.act(group, |manager, now, out| manager.tick(now, out))?;
                }
            }
            Command::Lead(group) => self.lead(group.0)?,
            Command::Hand(group) => self.hand(group.0)?,
            Command::Locks(group) => {
                let report = self.led(group.0)?.leader.manager.lock_report(100);
                writeln!(self.output, "{report}")?;
            }
            Command::Verdict => {
                let tablets = self.groups.iter().map(|(g, led)| (*g, &led.leader.tablet));
                let told = self.story.verdict(&tablets.collect())?;
                writeln!(self.output, "{told}")?;
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

    fn led(&mut self, group: GroupId) -> Result<&mut Led, String> {
        self.groups.get_mut(&group).ok_or_else(|| format!("no {group}"))
    }

    /// Under which ballot a transaction's request goes out, and whether it has locks there.
    fn ballot(&mut self, txn: TxnId, group: GroupId) -> Result<(Ballot, bool), String> {
        match self.held.get(&(txn, group)) {
            Some(ballot) => Ok((*ballot, true)),
            None => Ok((self.led(group)?.ballot, false)),
        }
    }

    fn read(
        &mut self,
        txn: Txn,
        group: Group,
        wanted: &[(Mode, Wanted)],
    ) -> Result<(), Box<dyn Error>> {
        let (ballot, holds_locks) = self.ballot(txn.0, group.0)?;
        let mode = wanted[0].0.0;
        let spans: Vec<Span> = wanted.iter().map(|(_, span)| span.0.clone()).collect();
        let what = read_set(&spans);
        let body = Body::Read { txn: txn.0, age: txn.age(), holds_locks, mode, what };
        self.held.entry((txn.0, group.0)).or_insert(ballot);
        let name = format!("read of {} by", notation::spans(&spans));
        self.ask(group.0, &name, Some(txn.0), Some(ballot), body)
    }

    fn snapshot(
        &mut self,
        group: Group,
        wanted: &[Wanted],
        at: Option<u64>,
        by: Option<Txn>,
    ) -> Result<(), Box<dyn Error>> {
        let spans: Vec<Span> = wanted.iter().map(|span| span.0.clone()).collect();
        let (at, now) = (at.map(Timestamp::from_micros), self.now().latest());
        let chosen = match by {
            Some(txn) => self.story.snapshot(txn.0, at, now),
            None => at.ok_or("a snapshot needs a timestamp or a transaction")?,
        };
        let body = Body::Snapshot { at: ReadAt::Exactly(chosen), what: read_set(&spans) };
        let (names, ms) = (notation::spans(&spans), chosen.micros() / 1_000);
        let name = match by {
            Some(_) => format!("snapshot of {names} at {ms} by"),
            None => format!("snapshot of {names} at {ms}"),
        };
        self.ask(group.0, &name, by.map(|txn| txn.0), None, body)
    }

    fn ask(
        &mut self,
        group: GroupId,
        name: &str,
        by: Option<TxnId>,
        ballot: Option<Ballot>,
        body: Body,
    ) -> Result<(), Box<dyn Error>> {
        let id = RequestId(self.asked.len() as u64);
        let what = match &body {
            Body::Read { what, .. } | Body::Snapshot { what, .. } => Some(what.clone()),
            _ => None,
        };
        let name = match by {
            Some(txn) if name.ends_with("by") => format!("{name} {txn}"),
            Some(txn) => format!("{name} of {txn}"),
            None => name.to_owned(),
        };
        self.asked.push(Asked { name, by, what });
        if let Some(txn) = by {
            self.story.asks(txn);
        }
        let deadline = Timestamp::from_micros(self.us + DEADLINE_MS * 1_000);
        self.act(group, |manager, now, out| {
            manager.request(now, id, (ballot, deadline), body, out);
        })
    }

    /// A leader that hands over waits until what it promised about timestamps is over (L5).
    fn hand(&mut self, group: GroupId) -> Result<(), Box<dyn Error>> {
        let until = self.led(group)?.leader.manager.bound_until();
        if let Some(until) = until.filter(|until| !self.now().after(*until)) {
            writeln!(self.output, "{group} waits until {} has passed", notation::time(until))?;
            return Ok(());
        }
        self.lead(group)
    }

    fn lead(&mut self, group: GroupId) -> Result<(), Box<dyn Error>> {
        let bound = self.led(group)?.leader.manager.bound_until();
        self.act(group, |manager, _, out| manager.follow(out))?;
        let now = self.now();
        let led = self.led(group)?;
        led.proposed.truncate(led.chosen);
        std::mem::swap(&mut led.leader, &mut led.follower);
        led.ballot.round += 1;
        // Leases are disjoint (L3), and all that was promised about timestamps lies in the last.
        let lease_start = now.latest().max(bound.unwrap_or_default());
        let lease_end = lease_start.plus_micros(LEASE_US);
        led.leader.manager.lead(led.ballot, lease_start, lease_end);
        let ballot = led.ballot;
        writeln!(self.output, "{group} is led under {ballot}")?;
        Ok(())
    }

    /// Applies what is in the log of a group, as far as commit wait allows (X8).
    fn log(&mut self, group: GroupId) -> Result<(), Box<dyn Error>> {
        let now = self.now();
        self.choose(group)?;
        while let Some(command) = self.led(group)?.proposed.front().cloned() {
            if let Some(at) = Manager::wait_for(&command).filter(|at| !now.after(*at)) {
                let until = notation::time(at);
                writeln!(self.output, "{group} waits until {until} has passed")?;
                break;
            }
            let follower = {
                let led = self.led(group)?;
                led.proposed.pop_front();
                led.chosen -= 1;
                led.follower.manager.apply(now, command.clone(), &mut Effects::default())
            };
            writeln!(self.output, "{group} applies {}", notation::command(&command))?;
            let mut changes = Vec::new();
            let logged = command.clone();
            self.act(group, |manager, now, out| changes = manager.apply(now, command, out))?;
            assert_eq!(changes, follower, "replicas agree");
            self.write(group, &logged, &changes)?;
            self.choose(group)?;
        }
        Ok(())
    }

    /// What was proposed is chosen, and the leader hears of it.
    fn choose(&mut self, group: GroupId) -> Result<(), Box<dyn Error>> {
        loop {
            let led = self.led(group)?;
            let Some(command) = led.proposed.get(led.chosen).cloned() else { return Ok(()) };
            led.chosen += 1;
            self.act(group, |manager, now, out| manager.chosen(now, &command, out))?;
        }
    }

    /// Both replicas write the versions of a command, and the story goes on.
    fn write(
        &mut self,
        group: GroupId,
        command: &Logged,
        changes: &[StateChange],
    ) -> Result<(), String> {
        let mut writes = Vec::new();
        let led = self.led(group)?;
        for change in changes {
            if let StateChange::Version { write, at } = change {
                led.leader.tablet.write(write.clone(), *at);
                led.follower.tablet.write(write.clone(), *at);
                writes.push(write.clone());
            }
        }
        match command {
            Logged::Commit(record) => {
                let outcome = Outcome::Committed(record.timestamp);
                self.story.ends(record.txn, group, outcome, writes);
            }
            Logged::Decide { txn, outcome } => self.story.ends(*txn, group, *outcome, writes),
            Logged::Abort { txn, .. } => self.story.ends(*txn, group, Outcome::Aborted, writes),
            Logged::Noop | Logged::Prepare(_) | Logged::Forget { .. } => {}
        }
        Ok(())
    }

    /// What a client is told, for people and for the story.
    fn answer(
        &mut self,
        group: GroupId,
        id: RequestId,
        answer: &Result<ReplyBody, Refusal>,
    ) -> Result<String, Box<dyn Error>> {
        let asked = self.asked.get(id.0 as usize).ok_or("an answer to nobody")?;
        let told = match (answer, &asked.what) {
            (Ok(ReplyBody::Read { found, .. } | ReplyBody::Snapshot { found, .. }), Some(what)) => {
                let (spans, rows) = (spans_of(what), story::rows(what, found));
                let told = story::tell(&spans, &rows);
                if let Some(txn) = asked.by {
                    self.story.sees(txn, group, spans, rows);
                }
                told
            }
            (Err(error), _) => {
                if let (Refusal::Aborted { reason }, Some(txn)) = (error, asked.by) {
                    self.story.loses(txn, reason);
                }
                notation::answer(answer)
            }
            (Ok(ReplyBody::Committed(receipt)), _) => {
                if let Some(txn) = asked.by {
                    self.story.hears(txn, receipt.timestamp);
                }
                notation::answer(answer)
            }
            _ => notation::answer(answer),
        };
        let asked = &self.asked[id.0 as usize];
        Ok(format!("{group} answers {}: {told}", asked.name))
    }

    /// A step of a group's leader, and what it brings about.
    fn act(
        &mut self,
        group: GroupId,
        step: impl FnOnce(&mut Manager, Interval, &mut Effects),
    ) -> Result<(), Box<dyn Error>> {
        let now = self.now();
        let mut out = Effects::default();
        let led = self.led(group)?;
        step(&mut led.leader.manager, now, &mut out);
        led.proposed.extend(out.propose.iter().cloned());
        for command in &out.propose {
            writeln!(self.output, "{group} proposes {}", notation::command(command))?;
        }
        for (id, answer) in out.reply {
            let told = self.answer(group, id, &answer)?;
            writeln!(self.output, "{told}")?;
        }
        for job in out.read {
            let what = spans_of(&job.what);
            let whose = match job.tag.txn {
                Some(txn) => format!("for {txn}"),
                None => format!("at {}", notation::time(job.tag.at)),
            };
            writeln!(self.output, "{group} reads {} {whose}", notation::spans(&what))?;
            self.reads.push((group, job));
        }
        for message in &out.send {
            writeln!(self.output, "{group} sends {}", notation::message(message))?;
        }
        self.sent.extend(out.send);
        Ok(())
    }
}

fn write(txn: Txn, keys: &[String], values: &[(String, String)]) -> Vec<Write> {
    let bytes = |text: &str| Key::copy_from_slice(text.as_bytes());
    let named = txn.0.to_string();
    let unnamed = keys.iter().map(|key| (key, &named));
    let pairs = unnamed.chain(values.iter().map(|(key, value)| (key, value)));
    let value = |value: &str| (value != "none").then(|| bytes(value));
    pairs.map(|(key, v)| Write { key: bytes(key), value: value(v) }).collect()
}

fn spans_of(what: &ReadSet) -> Vec<Span> {
    match what {
        ReadSet::Keys(keys) => keys.iter().cloned().map(Span::Key).collect(),
        ReadSet::Range { range, .. } => vec![Span::Range(range.clone())],
    }
}

fn read_set(spans: &[Span]) -> ReadSet {
    let keys = spans.iter().map(|span| match span {
        Span::Key(key) => Ok(key.clone()),
        Span::Range(range) => Err(range.clone()),
    });
    match keys.collect::<Result<Vec<Key>, KeyRange>>() {
        Ok(keys) => ReadSet::Keys(keys),
        Err(range) => ReadSet::Range { range, max_rows: 100 },
    }
}
