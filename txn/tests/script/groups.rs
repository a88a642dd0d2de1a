//! What golden scripts can say to groups: managers, each with a log that takes what it is given, a
//! replica that follows, and messages between them that arrive when the script says so.

use super::notation::{self, Group, Mode, Txn, Wanted};
use proto::keys::{Span, Write};
use proto::peer::PeerMessage;
use proto::request::{Body, Found, ReadAt, ReadSet};
use proto::{Ballot, Command as Logged, GroupId, Key, KeyRange, NodeId, Page, TxnId};
use std::collections::{BTreeMap, VecDeque};
use std::error::Error;
use std::fmt::Write as _;
use truetime::{Interval, Timestamp};
use txn::server::{Config, Effects, Manager, ReadJob, Replicated, RequestId};

/// The clocks are right to within this.
const EPSILON_US: u64 = 4_000;
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
    /// A read without locks at a timestamp, in milliseconds.
    Snapshot {
        group: Group,
        span: Wanted,
        #[arg(key)]
        at: u64,
    },
    /// `prepare t1 g2 b coordinator=g1`: the keys are written.
    Prepare {
        txn: Txn,
        group: Group,
        #[arg(pos, many, optional)]
        writes: Vec<String>,
        #[arg(key)]
        coordinator: Group,
    },
    /// `commit t1 g1 a with=g2/g3`.
    Commit {
        txn: Txn,
        group: Group,
        #[arg(pos, many, optional)]
        writes: Vec<String>,
        #[arg(key)]
        with: Option<String>,
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
    /// The replica that followed leads from now on, under the next ballot.
    Lead(Group),
    /// The locks of a group, as people see them; times are microseconds.
    Locks(Group),
}

struct Led {
    manager: Manager,
    replica: Manager,
    ballot: Ballot,
    proposed: VecDeque<Logged>,
}

#[derive(Default)]
pub struct Runner {
    us: u64,
    groups: BTreeMap<GroupId, Led>,
    /// Under which ballot a transaction has read there.
    held: BTreeMap<(TxnId, GroupId), Ballot>,
    /// What was asked by each request.
    asked: Vec<String>,
    reads: Vec<(GroupId, ReadJob)>,
    sent: Vec<PeerMessage>,
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
                    let manager = || Manager::new(group, config, Replicated::default());
                    let ballot = Ballot { round: 0, node: NodeId(1) };
                    let led = Led {
                        manager: manager(),
                        replica: manager(),
                        ballot,
                        proposed: VecDeque::new(),
                    };
                    self.groups.insert(group, led);
                    self.lead(group)?;
                }
                self.output.clear();
            }
            Command::Read(txn, group, wanted) => self.read(*txn, *group, wanted)?,
            Command::Snapshot { group, span, at } => {
                let at = Timestamp::from_micros(at * 1_000);
                let what = read_set(std::slice::from_ref(&span.0));
                let body = Body::Snapshot { at: ReadAt::Exactly(at), what };
                let name = format!(
                    "snapshot of {} at {}",
                    notation::spans([&span.0]),
                    at.micros() / 1_000
                );
                self.ask(group.0, name, None, body)?;
            }
            Command::Prepare { txn, group, writes, coordinator } => {
                let (age, coordinator, writes) = (txn.age(), coordinator.0, write(writes));
                let (ballot, holds_locks) = self.ballot(txn.0, group.0)?;
                let body = Body::Prepare { txn: txn.0, age, holds_locks, coordinator, writes };
                self.ask(group.0, format!("prepare of {}", txn.0), Some(ballot), body)?;
            }
            Command::Commit { txn, group, writes, with } => {
                let with = with.iter().flat_map(|with| with.split('/')).map(str::parse::<Group>);
                let participants = with.map(|g| Ok(g?.0)).collect::<Result<_, String>>()?;
                let (age, writes) = (txn.age(), write(writes));
                let (ballot, holds_locks) = self.ballot(txn.0, group.0)?;
                let body = Body::Commit { txn: txn.0, age, holds_locks, writes, participants };
                self.ask(group.0, format!("commit of {}", txn.0), Some(ballot), body)?;
            }
            Command::Rollback(txn, group) => {
                let body = Body::Rollback { txn: txn.0 };
                self.ask(group.0, format!("rollback of {}", txn.0), None, body)?;
            }
            Command::KeepAlive(txn, group) => {
                let (ballot, _) = self.ballot(txn.0, group.0)?;
                let body = Body::KeepAlive { txn: txn.0 };
                self.ask(group.0, format!("keep-alive of {}", txn.0), Some(ballot), body)?;
            }
            Command::Resolve(txn, group) => {
                let body = Body::Resolve { txn: txn.0 };
                self.ask(group.0, format!("resolve of {}", txn.0), None, body)?;
            }
            Command::Finish => {
                for (group, job) in std::mem::take(&mut self.reads) {
                    let found = match &job.what {
                        ReadSet::Keys(keys) => Found::Values(vec![None; keys.len()]),
                        ReadSet::Range { .. } => Found::Page(Page::default()),
                    };
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
            Command::Unlog(group) => self.led(group.0)?.proposed.clear(),
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
                    let lease_end = now.latest().plus_micros(1_000_000);
                    self.led(group)?.manager.lease(lease_end);
                    self.act(group, |manager, now, out| manager.tick(now, out))?;
                }
            }
            Command::Lead(group) => self.lead(group.0)?,
            Command::Locks(group) => {
                let report = self.led(group.0)?.manager.lock_report(100);
                writeln!(self.output, "{report}")?;
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
        let name = format!("read of {} by {}", notation::spans(&spans), txn.0);
        self.ask(group.0, name, Some(ballot), body)
    }

    fn ask(
        &mut self,
        group: GroupId,
        name: String,
        ballot: Option<Ballot>,
        body: Body,
    ) -> Result<(), Box<dyn Error>> {
        let id = RequestId(self.asked.len() as u64);
        self.asked.push(name);
        if let Body::Read { txn, .. } = &body {
            let ballot = ballot.ok_or("a read names a ballot")?;
            self.held.entry((*txn, group)).or_insert(ballot);
        }
        let deadline = Timestamp::from_micros(self.us + DEADLINE_MS * 1_000);
        self.act(group, |manager, now, out| {
            manager.request(now, id, (ballot, deadline), body, out);
        })
    }

    fn lead(&mut self, group: GroupId) -> Result<(), Box<dyn Error>> {
        let s_max = self.led(group)?.manager.s_max();
        self.act(group, |manager, _, out| manager.follow(out))?;
        let now = self.now();
        let led = self.led(group)?;
        led.proposed.clear();
        std::mem::swap(&mut led.manager, &mut led.replica);
        led.ballot.round += 1;
        let lease_end = now.latest().plus_micros(1_000_000);
        // Leases are disjoint (L4): this one begins above all that was handed out in the last one.
        let lease_start = now.latest().max(s_max.unwrap_or_default());
        led.manager.lead(led.ballot, lease_start, lease_end);
        let ballot = led.ballot;
        writeln!(self.output, "{group} is led under {ballot}")?;
        Ok(())
    }

    /// Applies what is in the log of a group, as far as commit wait allows (X8).
    fn log(&mut self, group: GroupId) -> Result<(), Box<dyn Error>> {
        let now = self.now();
        while let Some(command) = self.led(group)?.proposed.front().cloned() {
            if let Some(at) = Manager::wait_for(&command).filter(|at| !now.after(*at)) {
                let until = notation::time(at);
                writeln!(self.output, "{group} waits until {until} has passed")?;
                break;
            }
            self.led(group)?.proposed.pop_front();
            writeln!(self.output, "{group} applies {}", notation::command(&command))?;
            self.led(group)?.replica.apply(now, command.clone(), &mut Effects::default());
            self.act(group, |manager, now, out| {
                manager.apply(now, command, out);
            })?;
        }
        Ok(())
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
        step(&mut led.manager, now, &mut out);
        led.proposed.extend(out.propose.iter().cloned());
        for command in &out.propose {
            writeln!(self.output, "{group} proposes {}", notation::command(command))?;
        }
        for (id, answer) in out.reply {
            let asked = self.asked.get(id.0 as usize).ok_or("an answer to nobody")?;
            writeln!(self.output, "{group} answers {asked}: {}", notation::answer(&answer))?;
        }
        for job in out.read {
            let what = match &job.what {
                ReadSet::Keys(keys) => keys.iter().cloned().map(Span::Key).collect(),
                ReadSet::Range { range, .. } => vec![Span::Range(range.clone())],
            };
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

fn write(keys: &[String]) -> Vec<Write> {
    let write = |key: &String| Write {
        key: Key::copy_from_slice(key.as_bytes()),
        value: Some(Key::from_static(b"v")),
    };
    keys.iter().map(write).collect()
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
