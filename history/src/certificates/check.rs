//! All certificates together.

use super::alone;
use super::file::Entry;
use super::flaw::{Flaw, Objection};
use proto::request::Certificate;
use proto::{Ballot, GroupId, TxnId};
use std::collections::BTreeMap;
use truetime::Timestamp;
use truetime::key::Key;

/// Of each flaw, this many are told; all are counted.
const STORIES_MAX: usize = 1_000;

/// What there was.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Commits that clients heard of.
    pub commits: usize,
    /// Of those, with a certificate.
    pub certificates: usize,
    /// Of those, with a seal.
    pub sealed: usize,
    /// Certificates that are wrong by themselves; they take no part in what follows.
    pub rejected: usize,
}

/// What is kept of a certificate that is right by itself.
#[derive(Clone, Copy, Debug)]
struct Kept {
    line: usize,
    txn: TxnId,
    group: GroupId,
    ballot: Ballot,
    timestamp: Timestamp,
    began_ns: u64,
    acknowledged_ns: u64,
}

/// Verifies certificates; see the [module](super).
#[derive(Debug, Default)]
pub struct Checker {
    key: Option<Key>,
    counts: Counts,
    kept: Vec<Kept>,
    found: BTreeMap<Flaw, (usize, Vec<Objection>)>,
}

impl Checker {
    /// With the universe's key, seals are verified; without it, they are not looked at.
    pub fn new(key: Option<Key>) -> Checker {
        Checker { key, ..Checker::default() }
    }

    /// Takes a line, and says at once what is wrong with it by itself. A commit without a certificate
    /// is counted, and proves nothing.
    pub fn add(&mut self, line: usize, entry: &Entry) {
        self.counts.commits += 1;
        let Some(certificate) = &entry.certificate else { return };
        self.counts.certificates += 1;
        self.counts.sealed += usize::from(!certificate.seal.is_empty());
        let mut flaws = alone::flaws(entry, certificate, self.key.as_ref());
        flaws.extend(alone::observation(entry));
        if flaws.is_empty() {
            self.kept.push(Kept::of(line, entry, certificate));
            return;
        }
        self.counts.rejected += 1;
        for (flaw, story) in flaws {
            self.object(flaw, || (vec![line], story));
        }
    }

    /// Compares all of them.
    pub fn judge(mut self) -> Judgement {
        let mut kept = std::mem::take(&mut self.kept);
        self.two_certificates(&mut kept);
        self.timestamps(&mut kept);
        self.order(&mut kept);
        Judgement { counts: self.counts, with_key: self.key.is_some(), found: self.found }
    }

    /// X9: a transaction commits once. One certificate that was written down twice is two.
    fn two_certificates(&mut self, kept: &mut [Kept]) {
        kept.sort_unstable_by_key(|one| (one.txn, one.line));
        for pair in kept.windows(2).filter(|pair| pair[0].txn == pair[1].txn) {
            let [one, two] = [pair[0], pair[1]];
            self.object(Flaw::TwoCertificates, || {
                let story = format!(
                    "{} is there twice, committed at {} by {} and at {} by {}",
                    one.txn, one.timestamp, one.group, two.timestamp, two.group
                );
                (vec![one.line, two.line], story)
            });
        }
    }

    /// L3, L4: a group gives a timestamp once, and ballots give higher ones than those before.
    fn timestamps(&mut self, kept: &mut [Kept]) {
        kept.sort_unstable_by_key(|one| (one.group, one.timestamp, one.line));
        for pair in kept.windows(2).filter(|pair| pair[0].group == pair[1].group) {
            let [low, high] = [pair[0], pair[1]];
            if low.timestamp == high.timestamp && low.txn != high.txn {
                self.object(Flaw::SharedTimestamp, || {
                    let story = format!(
                        "{} gave {} to {} and to {}",
                        low.group, low.timestamp, low.txn, high.txn
                    );
                    (vec![low.line, high.line], story)
                });
            } else if low.ballot > high.ballot {
                self.object(Flaw::BallotsCross, || {
                    let story = format!(
                        "{} gave {} to {} under {}, and the higher {} to {} under {}, which is older",
                        low.group,
                        low.timestamp,
                        low.txn,
                        low.ballot,
                        high.timestamp,
                        high.txn,
                        high.ballot
                    );
                    (vec![low.line, high.line], story)
                });
            }
        }
    }

    /// X13: acknowledged before begun, therefore the lower timestamp. Each certificate is compared
    /// with the highest of those that were acknowledged when it began.
    fn order(&mut self, kept: &mut [Kept]) {
        kept.sort_unstable_by_key(|one| (one.acknowledged_ns, one.line));
        let mut begins: Vec<usize> = (0..kept.len()).collect();
        begins.sort_unstable_by_key(|i| (kept[*i].began_ns, *i));
        let (mut ended, mut highest) = (kept.iter().peekable(), None::<Kept>);
        for later in begins.into_iter().map(|i| kept[i]) {
            while let Some(one) = ended.next_if(|one| one.acknowledged_ns < later.began_ns) {
                if highest.is_none_or(|highest| highest.timestamp < one.timestamp) {
                    highest = Some(*one);
                }
            }
            let Some(earlier) = highest.filter(|h| h.timestamp >= later.timestamp) else {
                continue;
            };
            self.object(Flaw::WrongOrder, || {
                let ms = (later.began_ns - earlier.acknowledged_ns) as f64 / 1e6;
                let story = format!(
                    "{} was acknowledged {ms:.3} ms before {} began, and committed at {}, which is \
                     not below {}",
                    earlier.txn, later.txn, earlier.timestamp, later.timestamp
                );
                (vec![earlier.line, later.line], story)
            });
        }
    }

    fn object(&mut self, flaw: Flaw, tell: impl FnOnce() -> (Vec<usize>, String)) {
        let (count, objections) = self.found.entry(flaw).or_default();
        *count += 1;
        if objections.len() < STORIES_MAX {
            let (lines, story) = tell();
            objections.push(Objection { flaw, lines, story });
        }
    }
}

impl Kept {
    fn of(line: usize, entry: &Entry, certificate: &Certificate) -> Kept {
        Kept {
            line,
            txn: certificate.txn,
            group: certificate.group,
            ballot: certificate.ballot,
            timestamp: certificate.timestamp,
            began_ns: entry.began_ns,
            acknowledged_ns: entry.acknowledged_ns,
        }
    }
}

/// What certificates came to.
#[derive(Debug)]
pub struct Judgement {
    counts: Counts,
    with_key: bool,
    found: BTreeMap<Flaw, (usize, Vec<Objection>)>,
}

impl Judgement {
    /// What there was.
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// Whether seals were verified. They were not: somebody who knows the rules could have made all of
    /// this up.
    pub fn with_key(&self) -> bool {
        self.with_key
    }

    /// How often each flaw was found; empty: all is well.
    pub fn flaws(&self) -> BTreeMap<Flaw, usize> {
        self.found.iter().map(|(flaw, (count, _))| (*flaw, *count)).collect()
    }

    /// At most so many objections of each flaw.
    pub fn objections(&self, each_max: usize) -> impl Iterator<Item = &Objection> {
        self.found.values().flat_map(move |(_, objections)| objections.iter().take(each_max))
    }
}
