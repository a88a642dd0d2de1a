//! Compares the replicas of one group.
//!
//! All of them are read at once, key by key, so that memory holds one page of each and the first
//! difference has a name. What is compared depends on how far a replica is:
//!
//! | applied slots | versions | rest |
//! |---|---|---|
//! | equal | all of them | prepared transactions, outcomes, configuration |
//! | one is behind | those that reads up to its safe time see (R1) | – |
//!
//! and in both cases the log entries that both have applied (P2). History that one of them has
//! collected already is left out at all.

use proto::{GroupId, Key, NodeId, Slot, Value};
use spanserver::meta::{self, Applied, Recovered};
use spanserver::storage::{Engine, Pinned, StorageError, VersionPage};
use std::collections::VecDeque;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;
use truetime::Timestamp;

/// Versions are read in pages of this size.
const PAGE_BYTES: usize = 1 << 20;

/// The versions of a key, oldest first.
type History = Vec<(Timestamp, Option<Value>)>;

/// What is said about one replica.
pub struct Line {
    pub node: NodeId,
    pub applied: Applied,
    pub versions: u64,
    pub digest: u64,
    pub verdict: String,
}

/// What is said about one group.
pub struct Compared {
    pub lines: Vec<Line>,
    /// The first difference.
    pub difference: Option<String>,
}

/// A replica, and what it is compared with.
struct Replica<'a> {
    node: NodeId,
    applied: Applied,
    recovered: Recovered,
    versions: Versions<'a>,
    count: u64,
    digest: DefaultHasher,
    with: With,
    differs: bool,
}

/// What a replica is compared with: one of those before it.
#[derive(Clone, Copy)]
enum With {
    /// It is the first.
    Nothing,
    /// One at the same slot.
    Equal(usize),
    /// The one that is furthest, which must agree up to this timestamp.
    Ahead(Timestamp),
}

/// Compares the replicas of a group on these disks; `told` hears how many versions were read.
///
/// # Errors
/// I/O and damage, named with the server.
pub fn compare(
    group: GroupId,
    disks: &[(NodeId, &dyn Engine, Box<dyn Pinned>)],
    told: impl Fn(u64),
) -> Result<Compared, String> {
    let horizon = disks.iter().map(|(_, _, view)| view.horizon()).max().unwrap_or_default();
    let (mut replicas, mut lines) = (Vec::new(), Vec::new());
    for (node, engine, view) in disks {
        let on = |error: StorageError| format!("{node}: {error}");
        let recovered = meta::recover(*engine, group).map_err(on)?;
        let applied = meta::applied(*engine, group).map_err(on)?;
        let (_, configuration) = meta::configuration(*engine, group).map_err(on)?;
        let verdict = match &recovered.stored {
            None => Some("no replica here"),
            Some(stored) if stored.removed => Some("removed from the group"),
            Some(_) if configuration.is_witness(*node) => Some("a witness: no tablet"),
            Some(_) => None,
        };
        if let Some(verdict) = verdict {
            let verdict = verdict.to_owned();
            lines.push(Line { node: *node, applied, versions: 0, digest: 0, verdict });
            continue;
        }
        replicas.push(Replica {
            node: *node,
            applied,
            recovered,
            versions: Versions::of(view.as_ref(), group).map_err(on)?,
            count: 0,
            digest: DefaultHasher::new(),
            with: With::Nothing,
            differs: false,
        });
    }
    replicas
        .sort_by_key(|replica| (std::cmp::Reverse(replica.applied.position.slot), replica.node));
    for i in 1..replicas.len() {
        let slot = replicas[i].applied.position.slot;
        let equal = replicas[..i].iter().position(|other| other.applied.position.slot == slot);
        replicas[i].with = equal.map_or(With::Ahead(replicas[i].safe_time()), With::Equal);
    }
    let mut group = Group { group, horizon, replicas, difference: None };
    group.compare_records();
    group.compare_versions(told)?;
    lines.extend(group.replicas.iter().map(|replica| group.line(replica)));
    lines.sort_by_key(|line| line.node);
    Ok(Compared { lines, difference: group.difference })
}

/// A group being compared.
///
/// Invariant: replicas that are further come first.
struct Group<'a> {
    group: GroupId,
    horizon: Timestamp,
    replicas: Vec<Replica<'a>>,
    difference: Option<String>,
}

impl Group<'_> {
    /// What a replica is compared with, by index.
    fn pairs(&self) -> Vec<(usize, usize, With)> {
        let with = self.replicas.iter().enumerate().filter_map(|(i, replica)| match replica.with {
            With::Nothing => None,
            With::Equal(other) => Some((i, other, replica.with)),
            With::Ahead(_) => Some((i, 0, replica.with)),
        });
        with.collect()
    }

    fn compare_records(&mut self) {
        for (i, other, with) in self.pairs() {
            let (replica, reference) = (&self.replicas[i], &self.replicas[other]);
            let what = if let Some(slot) = first_other_entry(replica, reference) {
                Some(format!("the log entry of slot {slot}"))
            } else if matches!(with, With::Equal(_)) {
                other_record(replica, reference)
            } else {
                None
            };
            if let Some(what) = what {
                self.differ(i, other, &what);
            }
        }
    }

    fn compare_versions(&mut self, told: impl Fn(u64)) -> Result<(), String> {
        let pairs = self.pairs();
        let mut read = 0u64;
        while let Some(key) = self.replicas.iter().filter_map(|r| r.versions.key()).min().cloned() {
            let mut histories = Vec::with_capacity(self.replicas.len());
            for replica in &mut self.replicas {
                let node = replica.node;
                let history = replica.versions.take(&key).map_err(|e| format!("{node}: {e}"))?;
                let history = above(history, self.horizon);
                replica.count += history.len() as u64;
                if !history.is_empty() {
                    (&key, &history).hash(&mut replica.digest);
                }
                histories.push(history);
            }
            for (i, other, with) in &pairs {
                let visible = |history: &History| match with {
                    With::Ahead(until) => history.partition_point(|(at, _)| at <= until),
                    _ => history.len(),
                };
                let (a, b) = (&histories[*i], &histories[*other]);
                let (a, b) = (&a[..visible(a)], &b[..visible(b)]);
                if a != b {
                    let key = key.escape_ascii();
                    let what = format!("key '{key}': {} against {}", words(a, b), words(b, a));
                    self.differ(*i, *other, &what);
                }
            }
            read += 1;
            if read.is_multiple_of(1024) {
                told(self.replicas.iter().map(|replica| replica.count).sum());
            }
        }
        Ok(())
    }

    fn differ(&mut self, i: usize, other: usize, what: &str) {
        let (a, b) = (&self.replicas[i], &self.replicas[other]);
        let (group, slots) = (self.group, [a, b].map(|replica| replica.applied.position.slot));
        let words = format!(
            "group {group}: {} at slot {} and {} at slot {} differ in {what}",
            a.node, slots[0], b.node, slots[1]
        );
        self.difference.get_or_insert(words);
        self.replicas[i].differs = true;
    }

    fn line(&self, replica: &Replica<'_>) -> Line {
        let verdict = match replica.with {
            _ if replica.differs => "differs".to_owned(),
            With::Nothing if self.replicas.len() == 1 => "alone".to_owned(),
            With::Nothing => "furthest".to_owned(),
            With::Equal(other) => format!("agrees with {}", self.replicas[other].node),
            With::Ahead(until) if until < self.horizon => "behind the history of others".to_owned(),
            With::Ahead(_) => format!("behind {}, agrees", self.replicas[0].node),
        };
        let damaged = replica.recovered.stored.as_ref().and_then(|stored| stored.damaged_until);
        let damaged = damaged.map(|slot| format!("; its log is damaged up to slot {slot}"));
        Line {
            node: replica.node,
            applied: replica.applied,
            versions: replica.count,
            digest: replica.digest.finish(),
            verdict: verdict + damaged.as_deref().unwrap_or_default(),
        }
    }
}

impl Replica<'_> {
    /// Up to where nothing that it has not applied yet can change what a read sees (R1).
    fn safe_time(&self) -> Timestamp {
        let prepared = self.recovered.replicated.prepared.values();
        let before = prepared.map(|record| record.timestamp.minus(Duration::from_micros(1))).min();
        before.map_or(self.applied.at, |before| before.min(self.applied.at))
    }
}

/// The first slot that both have applied and still have in their logs, with different entries.
fn first_other_entry(a: &Replica<'_>, b: &Replica<'_>) -> Option<Slot> {
    let (stored_a, stored_b) = (a.recovered.stored.as_ref()?, b.recovered.stored.as_ref()?);
    let first = stored_a.base.position.slot.max(stored_b.base.position.slot).next();
    let last = a.applied.position.slot.min(b.applied.position.slot);
    let entry = |stored: &'_ paxos::Stored, slot: Slot| {
        let index = usize::try_from(slot.0 - stored.base.position.slot.next().0).ok()?;
        stored.entries.get(index).cloned()
    };
    (first.0..=last.0).map(Slot).find(|slot| {
        let (a, b) = (entry(stored_a, *slot), entry(stored_b, *slot));
        a.is_some() && b.is_some() && a != b
    })
}

/// What else of the replicated state differs at the same slot.
fn other_record(a: &Replica<'_>, b: &Replica<'_>) -> Option<String> {
    let (of_a, of_b) = (&a.recovered.replicated, &b.recovered.replicated);
    if a.applied != b.applied {
        return Some("the ballot or timestamp of the last slot".into());
    }
    let prepared = of_a.prepared.keys().chain(of_b.prepared.keys());
    if let Some(txn) = prepared.min().filter(|_| of_a.prepared != of_b.prepared) {
        return Some(format!("prepared transactions from {txn} on"));
    }
    let mut outcomes = of_a.outcomes.keys().chain(of_b.outcomes.keys());
    let outcome = outcomes.find(|txn| of_a.outcomes.get(txn) != of_b.outcomes.get(txn));
    outcome.map(|txn| format!("the outcome of {txn}"))
}

/// A history without what a read at the horizon cannot see.
fn above(mut history: History, horizon: Timestamp) -> History {
    let above = history.partition_point(|(at, _)| *at <= horizon);
    let oldest = match above.checked_sub(1) {
        Some(newest) if history[newest].1.is_some() => newest,
        _ => above,
    };
    history.drain(..oldest);
    history
}

/// The first version of a history that another has not.
fn words(of: &[(Timestamp, Option<Value>)], other: &[(Timestamp, Option<Value>)]) -> String {
    match of.iter().find(|version| !other.contains(version)) {
        None => "nothing".to_owned(),
        Some((at, None)) => format!("a deletion at {at}"),
        Some((at, Some(value))) => format!("{} bytes at {at}", value.len()),
    }
}

/// The versions of a tablet, page by page.
struct Versions<'a> {
    view: &'a dyn Pinned,
    group: GroupId,
    page: VecDeque<(Key, Timestamp, Option<Value>)>,
    /// Whether there is no page after this one.
    last: bool,
}

impl<'a> Versions<'a> {
    fn of(view: &'a dyn Pinned, group: GroupId) -> Result<Versions<'a>, StorageError> {
        let VersionPage { versions, done } = view.read_versions(group, None, PAGE_BYTES)?;
        Ok(Versions { view, group, page: versions.into(), last: done })
    }

    /// The next key.
    fn key(&self) -> Option<&Key> {
        self.page.front().map(|(key, _, _)| key)
    }

    /// The history of a key, if it is the next.
    fn take(&mut self, key: &Key) -> Result<History, StorageError> {
        let mut history = History::new();
        while self.key() == Some(key) {
            let (key, at, value) = self.page.pop_front().expect("it has a key");
            history.push((at, value));
            if self.page.is_empty() && !self.last {
                let page = self.view.read_versions(self.group, Some(&(key, at)), PAGE_BYTES)?;
                self.page = page.versions.into();
                self.last = page.done;
            }
        }
        Ok(history)
    }
}
