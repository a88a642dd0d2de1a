//! The table as people see it: who holds what, who waits for it, since when, because of whom.

use super::{LockTable, Rank, conflict};
use proto::TxnId;
use proto::keys::Span;
use proto::request::{Age, LockMode};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use truetime::Timestamp;

/// A lock table at one moment. Prints as a table, one line for each holder and each that waits.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LockReport {
    /// How many transactions hold or wait for locks.
    pub transactions: usize,
    /// How many requests wait.
    pub waiting: usize,
    /// What is locked or waited for, in order of the first key.
    pub spans: Vec<SpanReport>,
    /// How many more spans there are than the report has room for.
    pub omitted: usize,
}

/// One span that somebody holds or waits for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SpanReport {
    /// The key or the range.
    pub span: Span,
    /// Who holds it.
    pub holders: Vec<HolderReport>,
    /// Who waits for it, in the order in which they will have it.
    pub waiters: Vec<WaiterReport>,
}

/// A transaction that holds a span.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HolderReport {
    /// The attempt.
    pub txn: TxnId,
    /// Its age.
    pub age: Age,
    /// How strongly it holds.
    pub mode: LockMode,
    /// `now().latest` of the leader when it got the lock in this mode, or when it began to lead.
    pub since: Timestamp,
    /// Prepared or deciding: never wounded (X2).
    pub immune: bool,
}

/// A request that waits for a span.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WaiterReport {
    /// The attempt.
    pub txn: TxnId,
    /// Its age.
    pub age: Age,
    /// How strongly it wants to hold.
    pub mode: LockMode,
    /// `now().latest` of the leader when it began to wait for this span.
    pub since: Timestamp,
    /// Who holds, or waits as a senior for, what is in its way.
    pub blocked_by: BTreeSet<TxnId>,
}

impl LockTable {
    /// Who holds and who waits, in at most `spans_max` spans.
    ///
    /// ```
    /// # use proto::{Key, TxnId, keys::Span, request::{Age, LockMode}};
    /// # use truetime::Timestamp;
    /// # use txn::server::locks::{Changes, LockTable};
    /// # let (mut table, mut changes) = (LockTable::default(), Changes::default());
    /// # let txn = TxnId { client: 1, seq: 1 };
    /// # let age = Age { start: Timestamp::from_micros(1), first: txn };
    /// # let wanted = vec![(Span::Key(Key::from_static(b"apple")), LockMode::Exclusive)];
    /// table.request(1, txn, age, wanted, Timestamp::from_micros(7), &mut changes);
    /// let report = table.report(100);
    /// assert_eq!(report.spans[0].holders[0].since, Timestamp::from_micros(7));
    /// assert!(report.to_string().starts_with("apple: t1.1 holds it, exclusive"));
    /// ```
    pub fn report(&self, spans_max: usize) -> LockReport {
        let mut spans: BTreeMap<(Vec<u8>, Span), SpanReport> = BTreeMap::new();
        let held = self.held.iter().map(|(place, _)| place.span());
        let awaited = self.queues.iter().map(|(place, _)| place.span());
        let all: BTreeSet<Span> = held.chain(awaited).collect();
        let omitted = all.len().saturating_sub(spans_max);
        for span in all.into_iter().take(spans_max) {
            let report = SpanReport {
                holders: self.holders(&span),
                waiters: self.waiters(&span),
                span: span.clone(),
            };
            spans.insert((span.start().to_vec(), span), report);
        }
        LockReport {
            transactions: self.transactions(),
            waiting: self.waiting(),
            spans: spans.into_values().collect(),
            omitted,
        }
    }

    fn holders(&self, span: &Span) -> Vec<HolderReport> {
        let holders = self.held.get(span).into_iter().flatten();
        let report = |(txn, lock): (&TxnId, &super::Lock)| {
            let owner = &self.owners[txn];
            let (age, immune) = (owner.who.age, owner.immune);
            HolderReport { txn: *txn, age, mode: lock.mode, since: lock.since, immune }
        };
        holders.map(report).collect()
    }

    fn waiters(&self, span: &Span) -> Vec<WaiterReport> {
        let queue = self.queues.get(span).into_iter().flatten();
        let report = |(rank, mode): (&Rank, &LockMode)| WaiterReport {
            txn: rank.who.txn(),
            age: rank.who.age,
            mode: *mode,
            since: self.waiting[&rank.ticket].since,
            blocked_by: self.blocked_by(*rank, span, *mode),
        };
        queue.map(report).collect()
    }

    /// Who is in the way of a request that waits.
    fn blocked_by(&self, rank: Rank, span: &Span, mode: LockMode) -> BTreeSet<TxnId> {
        let first = Rank { who: rank.who, ticket: 0 };
        let holders = self.held.overlapping(span).flat_map(|(_, holders)| holders);
        let holders = holders.filter(|(_, lock)| conflict(lock.mode, mode)).map(|(txn, _)| *txn);
        let seniors = self.queues.overlapping(span).flat_map(|(_, queue)| queue.range(..first));
        let seniors = seniors.filter(|(_, m)| conflict(**m, mode)).map(|(r, _)| r.who.txn());
        holders.chain(seniors).filter(|txn| *txn != rank.who.txn()).collect()
    }
}

impl fmt::Display for LockReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for SpanReport { span, holders, waiters } in &self.spans {
            let name = name(span);
            for HolderReport { txn, mode, since, immune, .. } in holders {
                let immune = if *immune { ", never wounded" } else { "" };
                writeln!(f, "{name}: {txn} holds it, {} since {since}{immune}", word(*mode))?;
            }
            for WaiterReport { txn, mode, since, blocked_by, .. } in waiters {
                let blocked_by: Vec<String> = blocked_by.iter().map(TxnId::to_string).collect();
                let blocked_by = blocked_by.join(", ");
                let mode = word(*mode);
                writeln!(f, "{name}: {txn} waits for it, {mode} since {since}, for {blocked_by}")?;
            }
        }
        write!(f, "transactions: {}, waiting: {}", self.transactions, self.waiting)?;
        match self.omitted {
            0 => Ok(()),
            omitted => write!(f, ", more spans: {omitted}"),
        }
    }
}

fn word(mode: LockMode) -> &'static str {
    match mode {
        LockMode::Shared => "shared",
        LockMode::Exclusive => "exclusive",
    }
}

/// `a` for a key, `[a, c)` for a range, `[a, …)` for one without an end.
fn name(span: &Span) -> String {
    match span {
        Span::Key(key) => key.escape_ascii().to_string(),
        Span::Range(range) if range.end.is_empty() => {
            format!("[{}, …)", range.start.escape_ascii())
        }
        Span::Range(range) => {
            format!("[{}, {})", range.start.escape_ascii(), range.end.escape_ascii())
        }
    }
}
