//! What golden scripts can say to a cluster.

use super::disk::{node, nodes};
use super::notation;
use super::{Cluster, Letter, Settings};
use paxos::{Configuration, Position, Wanted};
use proto::{Ballot, NodeId, Seat, Slot};
use std::error::Error;
use std::fmt::Write as _;
use std::str::FromStr;
use truetime::Timestamp;

/// `n3`.
pub struct One(NodeId);

impl FromStr for One {
    type Err = String;
    fn from_str(name: &str) -> Result<One, String> {
        node(name).map(One)
    }
}

/// `n1/n2`.
#[derive(Default)]
pub struct Many(Vec<NodeId>);

impl FromStr for Many {
    type Err = String;
    fn from_str(names: &str) -> Result<Many, String> {
        nodes(names).map(Many)
    }
}

/// `b3.n2x4`: four entries of one ballot.
pub struct Run(Ballot, usize);

impl FromStr for Run {
    type Err = String;
    fn from_str(run: &str) -> Result<Run, String> {
        let wrong = || format!("no run of a ballot: {run}");
        let (ballot, count) = run.split_once('x').unwrap_or((run, "1"));
        let parts = ballot.strip_prefix('b').and_then(|rest| rest.split_once('.'));
        let (round, owner) = parts.ok_or_else(wrong)?;
        let round = round.parse().map_err(|_| wrong())?;
        let count = count.parse().map_err(|_| wrong())?;
        Ok(Run(Ballot { round, node: node(owner)? }, count))
    }
}

/// Which messages of those under way.
#[derive(Default)]
pub struct Filter {
    from: Many,
    to: Many,
    kind: Option<String>,
}

impl Filter {
    fn fits(&self, letter: &Letter) -> bool {
        let any = |of: &Many, node| of.0.is_empty() || of.0.contains(&node);
        let kind = self.kind.as_deref().is_none_or(|kind| kind == notation::kind(&letter.message));
        any(&self.from, letter.from) && any(&self.to, letter.to) && kind
    }
}

#[derive(goldenscript::Command)]
pub enum Command {
    /// Founds a group of n1 to n*n*; `spare` nodes beside it have blank disks.
    Cluster {
        #[arg(key)]
        n: u32,
        #[arg(key)]
        spare: Option<u32>,
        #[arg(key, optional)]
        witness: Many,
        /// Entries in one message.
        #[arg(key)]
        message_slots: Option<usize>,
        /// Entries that are kept for members not heard of.
        #[arg(key)]
        log_slots: Option<u64>,
        /// Bytes in one part of a snapshot.
        #[arg(key)]
        part_bytes: Option<usize>,
        #[arg(key)]
        seed: Option<u64>,
    },
    /// Gives a node a log that earlier leaders left there: `log n1 b1.n1x3 b4.n2`.
    Log(One, Vec<Run>),
    /// The node's clock had been wrong, and is right again.
    ClockMended(One),
    /// Time passes, and nobody notices.
    Wait(u64),
    /// Time passes; nothing arrives.
    Pass(u64),
    /// Time passes, and whatever is sent arrives at once.
    Run(u64),
    /// Time passes until the node asks for votes; nobody else notices, nothing arrives.
    Campaign(One),
    Propose(One, Vec<String>),
    /// Delivers what is under way, but nothing that is sent meanwhile.
    Deliver {
        #[arg(key, optional)]
        from: Many,
        #[arg(key, optional)]
        to: Many,
        #[arg(key)]
        kind: Option<String>,
    },
    /// Delivers a copy of what is under way.
    Repeat {
        #[arg(key, optional)]
        from: Many,
        #[arg(key, optional)]
        to: Many,
        #[arg(key)]
        kind: Option<String>,
    },
    Drop {
        #[arg(key, optional)]
        from: Many,
        #[arg(key, optional)]
        to: Many,
        #[arg(key)]
        kind: Option<String>,
    },
    /// Puts messages aside until `unhold`.
    Hold {
        #[arg(key, optional)]
        from: Many,
        #[arg(key, optional)]
        to: Many,
        #[arg(key)]
        kind: Option<String>,
    },
    Unhold,
    /// Delivers until nothing is under way; with nodes, only what is between them.
    Settle(#[arg(pos, many, optional)] Vec<One>),
    /// Lists what is under way.
    Pool,
    /// `cut n1-n2` in both directions, `cut "n1>n2"` in one.
    Cut(Vec<String>),
    /// Cuts all links of the nodes.
    Isolate(Vec<One>),
    /// Mends all links.
    Mend,
    Crash(Vec<One>),
    Restart(Vec<One>),
    /// A new, blank disk for a node that is down.
    Wipe(One),
    /// From now on the disk answers only when told.
    SlowDisk(One),
    DiskAnswers(One),
    /// From now on the disk answers at once again.
    FastDisk(One),
    /// Damages entries on the disk of a node that is down.
    Rot(One, Vec<u64>),
    Transfer {
        node: One,
        #[arg(key)]
        to: One,
    },
    /// The leader's caller hands out a timestamp, in milliseconds since the script's beginning.
    Stamp(One, u64),
    /// The group's other parts have nothing under way at the leader: it may sleep.
    Idle(One),
    /// The leader's server beats for its groups that are asleep.
    Beat(One),
    /// Beats have stopped: the servers wake their groups.
    Wake(Vec<One>),
    Change {
        node: One,
        #[arg(key)]
        voters: Many,
        #[arg(key, optional)]
        witnesses: Many,
        #[arg(key, optional)]
        learners: Many,
    },
    /// The leader lets go of what its limits allow.
    Truncate(One),
    Status(#[arg(pos, many, optional)] Vec<One>),
    /// The logs in memory.
    Logs(#[arg(pos, many, optional)] Vec<One>),
    /// The applied commands.
    Tablets(#[arg(pos, many, optional)] Vec<One>),
    /// The script means rules to be broken: says which were.
    Violated,
}

#[derive(Default)]
pub struct Runner {
    cluster: Option<Cluster>,
    held: Vec<Letter>,
}

/// Runs the script of this name.
pub fn run(name: &str) {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/scripts/paxos");
    let path = folder.join(format!("{name}.script"));
    if let Err(error) = goldenscript::run(&mut Runner::default(), &path) {
        panic!("{}: {error}", path.display());
    }
}

impl goldenscript::Runner for Runner {
    type Command = Command;

    fn run(
        &mut self,
        command: &Command,
        _: &goldenscript::Context,
    ) -> Result<String, Box<dyn Error>> {
        let mut output = String::new();
        if let Command::Cluster { .. } = command {
            self.found(command);
        } else {
            output = self.drive(command)?;
        }
        let cluster = self.cluster.as_mut().ok_or("no cluster yet")?;
        let mut lines = cluster.trace.drain(..).fold(String::new(), |lines, l| lines + &l + "\n");
        lines.push_str(&output);
        Ok(lines)
    }

    fn end_script(&mut self) -> Result<(), Box<dyn Error>> {
        let cluster = self.cluster.as_ref().ok_or("no cluster")?;
        match &cluster.checks.violations[..] {
            [] => Ok(()),
            found => Err(found.join("\n").into()),
        }
    }
}

impl Runner {
    fn found(&mut self, command: &Command) {
        let Command::Cluster { n, spare, witness, message_slots, log_slots, part_bytes, seed } =
            command
        else {
            return;
        };
        let mut settings = Settings::default();
        let limits = &mut settings.limits;
        limits.message_slots = message_slots.unwrap_or(limits.message_slots);
        limits.log_slots = log_slots.unwrap_or(limits.log_slots);
        settings.part_bytes = part_bytes.unwrap_or(settings.part_bytes);
        settings.seed = seed.unwrap_or(settings.seed);
        let mut founding = Configuration::founding((1..=*n).map(NodeId));
        for node in &witness.0 {
            founding.members.get_mut(node).expect("a witness is a member").witness = true;
        }
        let spare: Vec<NodeId> = (1..=spare.unwrap_or(0)).map(|i| NodeId(n + i)).collect();
        self.cluster = Some(Cluster::new(settings, &founding, &spare));
        self.held.clear();
    }

    fn drive(&mut self, command: &Command) -> Result<String, Box<dyn Error>> {
        let cluster = self.cluster.as_mut().ok_or("no cluster yet")?;
        let mut output = String::new();
        match command {
            Command::Cluster { .. } => {}
            Command::Log(One(id), runs) => {
                cluster.crash(*id);
                let ballots: Vec<Ballot> = runs
                    .iter()
                    .flat_map(|Run(ballot, n)| std::iter::repeat_n(*ballot, *n))
                    .collect();
                let node = cluster.nodes.get_mut(id).ok_or("no such node")?;
                node.disk.write_log(&ballots);
                cluster.start(*id);
            }
            Command::ClockMended(One(id)) => {
                cluster.act(*id, |replica, now, out| replica.clock_mended(now, out));
            }
            Command::Wait(ms) => cluster.us += ms * 1_000,
            Command::Pass(ms) => cluster.pass(*ms, false),
            Command::Run(ms) => cluster.pass(*ms, true),
            Command::Campaign(One(id)) => campaign(cluster, *id)?,
            Command::Propose(One(id), values) => {
                for value in values {
                    cluster.propose(*id, value).ok_or("it does not lead")?;
                }
            }
            Command::Deliver { from, to, kind } => {
                for letter in self.take(from, to, kind) {
                    self.cluster().deliver(letter);
                }
            }
            Command::Repeat { from, to, kind } => {
                let pool = cluster.pool.clone();
                let letters = self.take(from, to, kind);
                self.cluster().pool = pool;
                for letter in letters {
                    self.cluster().deliver(letter);
                }
            }
            Command::Drop { from, to, kind } => {
                for Letter { from, to, message, .. } in self.take(from, to, kind) {
                    writeln!(output, "{from} -> {to} {}, dropped", notation::message(&message))?;
                }
            }
            Command::Hold { from, to, kind } => {
                let letters = self.take(from, to, kind);
                for Letter { from, to, message, .. } in &letters {
                    writeln!(output, "{from} -> {to} {}, held", notation::message(message))?;
                }
                self.held.extend(letters);
            }
            Command::Unhold => cluster.pool.extend(self.held.drain(..)),
            Command::Settle(among) if among.is_empty() => cluster.settle(),
            Command::Settle(among) => {
                let between = |l: &Letter| [l.from, l.to].iter().all(|n| has(among, *n));
                while let Some(at) = cluster.pool.iter().position(between) {
                    let letter = cluster.pool.remove(at).ok_or("it is there")?;
                    cluster.deliver(letter);
                }
            }
            Command::Pool => {
                for Letter { from, to, message, .. } in &cluster.pool {
                    writeln!(output, "{from} -> {to} {}", notation::message(message))?;
                }
            }
            Command::Cut(links) => {
                for link in links {
                    cut(cluster, link)?;
                }
            }
            Command::Isolate(ids) => {
                for One(id) in ids {
                    let others = cluster.ids();
                    cluster.cut.extend(others.iter().flat_map(|to| [(*id, *to), (*to, *id)]));
                }
            }
            Command::Mend => cluster.cut.clear(),
            Command::Crash(ids) => ids.iter().for_each(|One(id)| cluster.crash(*id)),
            Command::Restart(ids) => {
                for One(id) in ids {
                    cluster.crash(*id);
                    cluster.start(*id);
                }
            }
            Command::Wipe(One(id)) => cluster.wipe(*id, Seat(0xb0 + u64::from(id.0))),
            Command::SlowDisk(One(id)) => node_mut(cluster, *id)?.slow = true,
            Command::DiskAnswers(One(id)) => cluster.disk_answers(*id),
            Command::FastDisk(One(id)) => {
                node_mut(cluster, *id)?.slow = false;
                cluster.disk_answers(*id);
            }
            Command::Rot(One(id), slots) => {
                let node = node_mut(cluster, *id)?;
                node.disk.damaged.extend(slots.iter().copied().map(Slot));
            }
            Command::Transfer { node: One(id), to: One(to) } => {
                let begun = cluster.act(*id, |replica, now, _| replica.transfer(now, *to));
                begun.ok_or("it is down")??;
                cluster.hand_over(*id);
            }
            Command::Stamp(One(id), ms) => {
                let stamp = Timestamp::from_micros(notation::START_US + ms * 1_000);
                let end = cluster.replica(*id).lease_end().ok_or("it does not lead")?;
                if stamp >= end {
                    return Err("L4: not within the lease".into());
                }
                node_mut(cluster, *id)?.s_max = stamp;
            }
            Command::Idle(One(id)) => {
                cluster.act(*id, |replica, _, _| replica.set_idle(true));
            }
            Command::Beat(One(id)) => cluster.beat(*id),
            Command::Wake(ids) => {
                for One(id) in ids {
                    cluster.act(*id, |replica, now, _| replica.wake(now));
                }
            }
            Command::Change { node: One(id), voters, witnesses, learners } => {
                let set = |of: &Many| of.0.iter().copied().collect();
                let wanted = Wanted {
                    voters: set(voters),
                    witnesses: set(witnesses),
                    learners: set(learners),
                };
                let begun = cluster.act(*id, |replica, now, out| replica.change(now, wanted, out));
                begun.ok_or("it is down")??;
            }
            Command::Truncate(One(id)) => {
                cluster.act(*id, |replica, now, out| replica.advance_truncation(now, out));
            }
            Command::Status(ids) => {
                let time = notation::time(Timestamp::from_micros(cluster.us));
                writeln!(output, "at {time}")?;
                for id in chosen(cluster, ids) {
                    writeln!(output, "{id} {}", status(cluster, id))?;
                }
            }
            Command::Logs(ids) => {
                for id in chosen(cluster, ids).into_iter().filter(|id| cluster.up().contains(id)) {
                    let replica = cluster.replica(id);
                    let (first, last, ..) = replica.positions();
                    let slots = (first.0..=last.0).map(Slot);
                    let entries = slots.filter_map(|slot| Some((slot, replica.entry(slot)?)));
                    writeln!(output, "{id} {}", notation::log(entries))?;
                }
            }
            Command::Tablets(ids) => {
                for id in chosen(cluster, ids) {
                    let tablet = &cluster.nodes[&id].tablet;
                    let value = |(slot, bytes): &(Slot, bytes::Bytes)| {
                        format!("{slot} {}", String::from_utf8_lossy(bytes))
                    };
                    let values: Vec<_> = tablet.values.iter().map(value).collect();
                    let at = tablet.base.position.slot;
                    writeln!(output, "{id} at {at}: {}", values.join(", "))?;
                }
            }
            Command::Violated => {
                for complaint in cluster.checks.violations.drain(..) {
                    writeln!(output, "{complaint}")?;
                }
            }
        }
        Ok(output)
    }

    fn cluster(&mut self) -> &mut Cluster {
        self.cluster.as_mut().expect("founded")
    }

    /// Takes the messages that fit out of the pool.
    fn take(&mut self, from: &Many, to: &Many, kind: &Option<String>) -> Vec<Letter> {
        let (from, to) = (Many(from.0.clone()), Many(to.0.clone()));
        let filter = Filter { from, to, kind: kind.clone() };
        let pool = std::mem::take(&mut self.cluster().pool);
        let (taken, rest): (Vec<_>, Vec<_>) = pool.into_iter().partition(|l| filter.fits(l));
        self.cluster().pool = rest.into();
        taken
    }
}

fn has(among: &[One], node: NodeId) -> bool {
    among.iter().any(|One(id)| *id == node)
}

fn node_mut(cluster: &mut Cluster, id: NodeId) -> Result<&mut super::Node, String> {
    cluster.nodes.get_mut(&id).ok_or_else(|| format!("no {id}"))
}

fn chosen(cluster: &Cluster, ids: &[One]) -> Vec<NodeId> {
    cluster.ids().into_iter().filter(|id| ids.is_empty() || has(ids, *id)).collect()
}

fn campaign(cluster: &mut Cluster, id: NodeId) -> Result<(), String> {
    for _ in 0..10_000 {
        cluster.us += 1_000;
        let said = cluster.trace.len();
        cluster.tick(id);
        let asked = cluster.trace[said..].iter().any(|line| line.contains("canvasses"));
        if asked {
            let time = notation::time(Timestamp::from_micros(cluster.us));
            cluster.trace.insert(said, format!("at {time}"));
            return Ok(());
        }
    }
    Err(format!("{id} does not campaign"))
}

fn cut(cluster: &mut Cluster, link: &str) -> Result<(), String> {
    let (a, b, both) = match (link.split_once('-'), link.split_once('>')) {
        (Some((a, b)), _) => (a, b, true),
        (_, Some((a, b))) => (a, b, false),
        _ => return Err(format!("no link: {link}")),
    };
    let (a, b) = (node(a)?, node(b)?);
    cluster.cut.insert((a, b));
    if both {
        cluster.cut.insert((b, a));
    }
    Ok(())
}

fn status(cluster: &Cluster, id: NodeId) -> String {
    let Some(replica) = &cluster.nodes[&id].replica else { return "is down".into() };
    let (first, last, chosen, applied) = replica.positions();
    let role = match replica.leading() {
        Some(ballot) => {
            let opened = if replica.opened() { "" } else { ", not opened" };
            let [start, end] = [replica.lease_start(), replica.lease_end()]
                .map(|t| notation::time(t.unwrap_or(Timestamp::MIN)));
            format!("leads {ballot}{opened}, lease {start}..{end}")
        }
        None => match replica.leader_hint() {
            Some(leader) => format!("follows {leader}"),
            None => "follows nobody".into(),
        },
    };
    let mut extra = String::new();
    if replica.is_removed() {
        extra.push_str(", removed");
    }
    if replica.is_in_repair() {
        extra.push_str(", in repair");
    }
    if replica.asleep().is_some() {
        extra.push_str(", asleep");
    }
    let promised = replica.promised();
    let log = match first <= last {
        true => format!("log {first}..{last}"),
        false => format!("log empty after {last}"),
    };
    // The members that the group was founded with are the script's first line.
    let (at, configuration) = replica.configuration();
    let members = match at == Position::ORIGIN && !configuration.members.is_empty() {
        true => String::new(),
        false => format!(", {configuration}"),
    };
    format!("{role}{extra}, promised {promised}, {log} chosen {chosen} applied {applied}{members}")
}
