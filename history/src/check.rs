//! The checker: strict serializability, by timestamps.
//!
//! ```text
//!   operations ─► table ─► unknown ones that were read from get a time
//!                   │
//!                   ├─► fit: all in the order of their times, over a store of one version per key
//!                   ├─► real time: all in the order of their begins, beside that of their ends
//!                   └─► ties, lists ─► names ─► third parties ─► stories
//! ```
//!
//! Every step is a sort or a pass over all, and a few searches for each transaction that does not
//! fit.

use crate::name::{Examiner, How, Named};
use crate::real_time::{self, Late, RealTime, Stale};
use crate::story::{Story, Teller};
use crate::table::{EMPTY, Known, Table, Twice, Value, longer};
use crate::versions::{self, Versions};
use crate::{Anomaly, Operation, Violation, unknown, witness};
use std::collections::{BTreeMap, BTreeSet};

/// The name under which [`check`] objects.
const CHECKER: &str = "history";

/// Judges a whole history: whether its committed transactions, one after the other in the order of
/// their timestamps, give the reads that clients saw, and whether that order is the one that clients
/// lived through.
///
/// # Errors
/// The first violation, told as a story of several lines.
pub fn check(history: &[Operation]) -> Result<(), Violation> {
    let mut checker = Checker::default();
    for op in history {
        let twice = |twice: Twice| Violation::new(CHECKER, "X9", twice.to_string());
        checker.add(op).map_err(twice)?;
    }
    let judgement = checker.judge();
    let Some(first) = judgement.stories().next() else { return Ok(()) };
    Err(Violation::new(CHECKER, first.anomaly.rule(), first.to_string()))
}

/// Takes transactions in any order, and judges them when all are there. A transaction takes some
/// 70 bytes here, and 24 more for each key that it read or wrote.
#[derive(Default)]
pub struct Checker {
    table: Table,
    zero_us: u64,
}

impl Checker {
    /// For a history whose nanoseconds count from this time, in microseconds since 1970; only
    /// stories need to know.
    pub fn new(zero_us: u64) -> Checker {
        Checker { zero_us, ..Checker::default() }
    }

    /// Adds a transaction.
    ///
    /// # Errors
    /// [`Twice`]: it wrote, and so did another with the same id.
    pub fn add(&mut self, op: &Operation) -> Result<(), Twice> {
        self.table.add(op)
    }

    /// Judges.
    pub fn judge(self) -> Judgement {
        let Checker { mut table, zero_us } = self;
        let guessed = unknown::place(&mut table);
        let versions = Versions::new(&table);
        let fit = versions::fit(&table);
        let RealTime { late, stale } = real_time::sweep(&table);
        let counts = Counts::of(&table);
        let suspects = Suspects::new(&fit.unfit, &late, &stale);
        let examiner =
            Examiner { table: &table, versions: &versions, fit: &fit, guessed: &guessed };
        let mut named: Vec<Named> = suspects
            .all
            .iter()
            .filter_map(|row| {
                let late = suspects.late.get(row).copied();
                examiner.name(*row, late, suspects.stale.get(row).copied())
            })
            .collect();
        named.extend(ties(&table, &versions));
        named.extend(lists(&table, &versions));
        let mut blamed = BTreeSet::new();
        named.retain(|one| blamed.insert(one.culprit));
        witness::find(&table, &mut named);
        named.sort_by_key(|one| (table.rows[one.culprit as usize].began_ns, one.culprit));
        Judgement { table, zero_us, named, late, counts }
    }
}

/// How many transactions were judged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Of all kinds and endings.
    pub all: usize,
    /// Committed with writes, as their clients know.
    pub committed: usize,
    /// Read-only, with locks or without.
    pub reads: usize,
    /// Of unknown ending: all, and those among them that were read from.
    pub unknown: usize,
    /// See `unknown`.
    pub unknown_seen: usize,
    /// Rolled back.
    pub aborted: usize,
}

impl Counts {
    fn of(table: &Table) -> Counts {
        let mut counts = Counts { all: table.rows.len(), ..Counts::default() };
        for row in table.all() {
            match table.rows[row as usize].ending {
                Known::Committed if table.read_only(row) => counts.reads += 1,
                Known::Committed => counts.committed += 1,
                Known::Unknown => counts.unknown += 1,
                Known::Seen => {
                    counts.unknown += 1;
                    counts.unknown_seen += 1;
                }
                Known::Aborted => counts.aborted += 1,
            }
        }
        counts
    }
}

/// What a history came to.
pub struct Judgement {
    table: Table,
    zero_us: u64,
    /// In the order in which the culprits began.
    named: Vec<Named>,
    late: Vec<Late>,
    counts: Counts,
}

impl Judgement {
    /// How many transactions there are.
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// How many transactions came out of order: began after another was acknowledged, and got a
    /// timestamp below (X7, X8). Most of them are at fault in some [`story`](Judgement::stories),
    /// which may have a plainer name for it.
    pub fn out_of_order(&self) -> usize {
        self.late.len()
    }

    /// The first of them, told.
    pub fn first_out_of_order(&self) -> Option<Story> {
        let late = self.late.first()?;
        let Late { earlier, earlier_time, later } = *late;
        let how = How::Late { earlier, earlier_time, later, witness: None };
        let named = Named { anomaly: Anomaly::WrongOrder, culprit: later, how };
        Some(self.teller().tell(&named))
    }

    /// How often each anomaly was found: how many transactions are at fault.
    pub fn anomalies(&self) -> BTreeMap<Anomaly, usize> {
        let mut anomalies = BTreeMap::new();
        self.named.iter().for_each(|one| *anomalies.entry(one.anomaly).or_insert(0) += 1);
        anomalies
    }

    /// Every transaction at fault, by its place in the order in which they were added, and why.
    pub fn culprits(&self) -> impl Iterator<Item = (usize, Anomaly)> {
        self.named.iter().map(|one| (one.culprit as usize, one.anomaly))
    }

    /// All that is wrong, told one after the other in the order in which the culprits began.
    pub fn stories(&self) -> impl Iterator<Item = Story> {
        let teller = self.teller();
        self.named.iter().map(move |one| teller.tell(one))
    }

    /// Only the first so many stories of each anomaly.
    pub fn stories_of_each(&self, most: usize) -> impl Iterator<Item = Story> {
        let teller = self.teller();
        let mut told: BTreeMap<Anomaly, usize> = BTreeMap::new();
        let few = self.named.iter().filter(move |one| {
            let told = told.entry(one.anomaly).or_insert(0);
            *told += 1;
            *told <= most
        });
        few.map(move |one| teller.tell(one))
    }

    fn teller(&self) -> Teller<'_> {
        Teller { table: &self.table, zero_us: self.zero_us }
    }
}

/// Rows that something objects to.
struct Suspects {
    all: BTreeSet<u32>,
    late: BTreeMap<u32, Late>,
    stale: BTreeMap<u32, Stale>,
}

impl Suspects {
    fn new(unfit: &[u32], late: &[Late], stale: &[Stale]) -> Suspects {
        let late: BTreeMap<u32, Late> = late.iter().map(|late| (late.later, *late)).collect();
        let stale: BTreeMap<u32, Stale> =
            stale.iter().map(|stale| (stale.reader, *stale)).collect();
        let all = unfit.iter().chain(late.keys()).chain(stale.keys()).copied().collect();
        Suspects { all, late, stale }
    }
}

/// Two writes of one key at one timestamp (L4).
fn ties(table: &Table, versions: &Versions) -> impl Iterator<Item = Named> {
    let known = |row: u32| table.rows[row as usize].ending == Known::Committed;
    let ties = versions.ties().filter(move |(one, two)| known(one.row) && known(two.row));
    ties.map(|(one, two)| Named {
        anomaly: Anomaly::TimestampTie,
        culprit: two.row,
        how: How::Tie { one: one.row, two: two.row, key: two.key },
    })
}

/// Every written list is the one before it, and the writer.
fn lists(table: &Table, versions: &Versions) -> Vec<Named> {
    let known = |row: u32| table.rows[row as usize].ending == Known::Committed;
    let mut found = Vec::new();
    for key in 0..table.keys.len() as u32 {
        let mut before = None;
        for version in versions.of(key) {
            let Some((_, write)) = table.written(version.row, key) else { continue };
            let attempt = table.rows[version.row as usize].attempt;
            let (mut length, mut print) = (0, EMPTY);
            if let Some(Value::List { length: l, print: p }) = before.map(|(_, value)| value) {
                (length, print) = (l, p);
            }
            let longer = Value::List { length: length + 1, print: longer(print, attempt) };
            let certain = known(version.row) && before.is_none_or(|(row, _)| known(row));
            if matches!(write.value, Value::List { .. }) && write.value != longer && certain {
                let before = before.map(|(row, _)| row);
                let how = How::List { writer: version.row, before, key };
                let anomaly = Anomaly::ListOutOfOrder;
                found.push(Named { anomaly, culprit: version.row, how });
            }
            before = Some((version.row, write.value));
        }
    }
    found
}
