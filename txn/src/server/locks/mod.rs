//! The lock table of one group: keys and ranges, shared and exclusive, wound-wait (X1, X2).
//!
//! ```text
//!                              request: the next span of a ticket
//!                                            │
//!   owners   who ──────────────► senior to whom? may be wounded?
//!                                            │
//!   held     by span ──────────► who holds what conflicts? ─── juniors: wounded, gone
//!                                            │                 seniors, immune: in the way
//!                                            │
//!   queues   by span ──────────► does a senior wait for what conflicts?
//!                                            │
//!                          nobody ◄──────────┴──────────► somebody
//!                             │                               │
//!                           held,                    waits in the queue of
//!                     on to the next span                 this span
//!                             ▲                               │
//!                             └── the senior one of each ◄── release: queues that
//!                                   such queue is tried       overlap what is free now
//! ```
//!
//! # Roles
//! - A *transaction* is an attempt with an age. The *senior* of two is the older one; of two
//!   attempts of one age the later one, for the client has left the other.
//! - A *ticket* is one request for any number of spans, had one after the other. It is *granted*
//!   when all of them are held.
//! - [`LockTable`] knows *owners* (what a transaction holds and waits for), what is *held* and the
//!   *queues*. Held locks and queues are both kept by span, in the same structure (`spans.rs`), so
//!   that neither a request nor a release looks at what lies elsewhere.
//! - [`Changes`] is what a call did besides: who was wounded, whose wait is over.
//! - [`LockReport`] is the table as people see it.
//!
//! # Why nobody waits for ever
//! A senior wounds a junior holder, a junior waits: for senior holders, and for seniors that wait
//! for the same, or those would starve. So waits only ever point from junior to senior, and a
//! circle of them cannot be — or at a holder that is *immune*. One that is deciding ends by itself.
//! One that is prepared ends when its coordinator decides, and there it may wait for the very
//! transaction that it hinders here: so the coordinator is told to abort it if it still can
//! (`PeerBody::Wound`). The prepared transaction itself is never wounded (X2).
//!
//! # Why a release costs little
//! What is free now matters to the queues that overlap it, and in each of those to the most senior
//! one first: as long as that one waits, so does the rest of its queue. Those are tried, each
//! grant lets the next of its queue be tried, and no one is woken to find that it has to wait
//! again: a release of a key that sixty-four want to write wakes one.
//!
//! # What is absent, on purpose
//! Time-outs, which are the manager's (X4). Escalation of many key locks to a range: it would stop
//! writers of rows that nobody has read; a transaction that reads too much is told so instead
//! ([`Config::locks_max`](super::Config::locks_max)).
//!
//! # Example
//! ```
//! # use proto::{Key, TxnId, keys::Span, request::{Age, LockMode}};
//! # use truetime::Timestamp;
//! use txn::server::locks::{Changes, LockTable};
//!
//! # fn at(us: u64) -> Timestamp { Timestamp::from_micros(us) }
//! # let [old, young] = [1, 2].map(|client| TxnId { client, seq: 1 });
//! # let age = |txn: TxnId| Age { start: at(txn.client), first: txn };
//! let wanted = || vec![(Span::Key(Key::from_static(b"apple")), LockMode::Exclusive)];
//! let mut table = LockTable::default();
//!
//! // The young one has the lock until the old one comes.
//! let mut changes = Changes::default();
//! table.request(1, young, age(young), wanted(), at(10), &mut changes);
//! assert_eq!(changes.granted, [(young, 1)]);
//!
//! let mut changes = Changes::default();
//! table.request(2, old, age(old), wanted(), at(20), &mut changes);
//! assert_eq!((changes.wounded, changes.granted), (vec![young], vec![(old, 2)]));
//!
//! // It comes again, with the age it had: it waits, and is woken by the release.
//! let retry = TxnId { seq: 2, ..young };
//! let mut changes = Changes::default();
//! table.request(3, retry, age(young), wanted(), at(30), &mut changes);
//! assert_eq!(changes, Changes::default());
//!
//! table.release(old, at(40), &mut changes);
//! assert_eq!(changes.granted, [(retry, 3)]);
//! ```

mod report;
mod spans;
#[cfg(test)]
mod tests;
mod turns;

pub use report::{HolderReport, LockReport, SpanReport, WaiterReport};

use proto::keys::Span;
use proto::request::{Age, LockMode};
use proto::{Key, TxnId};
use spans::SpanMap;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use truetime::Timestamp;
use turns::Turn;

/// Names a request for locks; grows, so its order is the order of arrival.
pub type Ticket = u64;

/// What a release or a request did besides: who was wounded, whose wait is over.
///
/// Nobody is both wounded and granted something.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// Lost all locks and waits.
    pub wounded: Vec<TxnId>,
    /// Hold everything they asked for now. Seniors first.
    pub granted: Vec<(TxnId, Ticket)>,
    /// Immune, and in the way of a senior transaction. Their coordinators should hear of it: one
    /// of them may wait, elsewhere, for just that transaction.
    pub hindering: BTreeSet<TxnId>,
}

/// Who goes first: the smaller.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Seniority {
    age: Age,
    /// The later attempt of two; the client has left the earlier one.
    attempt: Reverse<TxnId>,
}

impl Seniority {
    fn txn(&self) -> TxnId {
        self.attempt.0
    }
}

/// The place of a ticket in every queue. One transaction's tickets stand side by side.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Rank {
    who: Seniority,
    ticket: Ticket,
}

#[derive(Debug)]
struct Owner {
    who: Seniority,
    /// Prepared or deciding: never wounded (X2).
    immune: bool,
    /// Each span once.
    held: Vec<Span>,
    /// Those that wait.
    tickets: BTreeSet<Ticket>,
}

#[derive(Debug)]
struct Waiting {
    rank: Rank,
    /// What is still to be locked, last first; the last is what it waits for.
    rest: Vec<(Span, LockMode)>,
    since: Timestamp,
    /// Whether it stands in the queue of that span: true but while it is being tried.
    queued: bool,
}

#[derive(Clone, Copy, Debug)]
struct Lock {
    mode: LockMode,
    since: Timestamp,
}

/// See the [module](self).
///
/// Invariants:
/// - no two transactions hold conflicting locks;
/// - a transaction that holds or waits has an entry in `owners`, and each of its locks and tickets
///   is listed there;
/// - each waiting ticket stands in one queue, that of the span it waits for, and no queue is empty;
/// - no waiting ticket could be granted, unless its transaction is immune and so needs it no more.
#[derive(Debug, Default)]
pub struct LockTable {
    held: SpanMap<BTreeMap<TxnId, Lock>>,
    queues: SpanMap<BTreeMap<Rank, LockMode>>,
    owners: BTreeMap<TxnId, Owner>,
    /// The attempts of one age that are here: a later one replaces the earlier.
    attempts: BTreeSet<Seniority>,
    waiting: BTreeMap<Ticket, Waiting>,
    tries: u64,
}

fn conflict(a: LockMode, b: LockMode) -> bool {
    a == LockMode::Exclusive || b == LockMode::Exclusive
}

/// Whether who holds `held` need not ask for `wanted`.
fn covers(held: LockMode, wanted: LockMode) -> bool {
    held == LockMode::Exclusive || wanted == LockMode::Shared
}

impl LockTable {
    /// Asks for locks. Those that can be had are held at once; when `ticket` is among the granted
    /// ones all are. `ticket` must be larger than every earlier one; `now` is the time that reports
    /// show.
    ///
    /// The first request of an attempt replaces what an earlier attempt of the same age has left
    /// here; an attempt that comes after a later one of its age gets nothing and is wounded.
    ///
    /// ```
    /// # use proto::{Key, KeyRange, TxnId, keys::Span, request::{Age, LockMode}};
    /// # use txn::server::locks::{Changes, LockTable};
    /// # let (txn, mut table, mut changes) =
    /// #     (TxnId { client: 1, seq: 1 }, LockTable::default(), Changes::default());
    /// # let (age, now) = (Age { first: txn, ..Age::default() }, truetime::Timestamp::MIN);
    /// let apples = Span::Range(KeyRange::prefix(b"apple/"));
    /// table.request(1, txn, age, vec![(apples, LockMode::Shared)], now, &mut changes);
    ///
    /// // Upgraded where it means to write.
    /// let red = Span::Key(Key::from_static(b"apple/red"));
    /// table.request(2, txn, age, vec![(red, LockMode::Exclusive)], now, &mut changes);
    /// assert_eq!(changes.granted, [(txn, 1), (txn, 2)]);
    /// ```
    pub fn request(
        &mut self,
        ticket: Ticket,
        txn: TxnId,
        age: Age,
        mut spans: Vec<(Span, LockMode)>,
        now: Timestamp,
        changes: &mut Changes,
    ) {
        let last = self.waiting.last_key_value();
        assert!(last.is_none_or(|(last, _)| *last < ticket), "tickets grow: {ticket}");
        let mut turn = Turn { now, changes, freed: Vec::new() };
        if !self.owners.contains_key(&txn) && !self.admit(txn, age, &mut turn) {
            return;
        }
        let Some(owner) = self.owners.get(&txn) else { return };
        let rank = Rank { who: owner.who, ticket };
        spans.reverse();
        self.advance(Waiting { rank, rest: spans, since: now, queued: false }, &mut turn);
        self.wake(turn);
    }

    /// Makes an entry for an attempt that was not known. Whether that is the last of its age.
    fn admit(&mut self, txn: TxnId, age: Age, turn: &mut Turn<'_>) -> bool {
        let who = Seniority { age, attempt: Reverse(txn) };
        let youngest = Seniority { age, attempt: Reverse(TxnId::default()) };
        let oldest = TxnId { client: u64::MAX, seq: u64::MAX };
        let oldest = Seniority { age, attempt: Reverse(oldest) };
        let others: Vec<Seniority> = self.attempts.range(oldest..=youngest).copied().collect();
        if others.iter().any(|other| *other < who) {
            turn.changes.wounded.push(txn);
            return false;
        }
        for other in others {
            if !self.owners[&other.txn()].immune {
                self.wound(other.txn(), turn);
            }
        }
        self.attempts.insert(who);
        let owner = Owner { who, immune: false, held: Vec::new(), tickets: BTreeSet::new() };
        self.owners.insert(txn, owner);
        true
    }

    /// Takes locks without asking: those of a prepared transaction, by a new leader that does not
    /// serve yet (X10). The transaction is immune.
    ///
    /// ```
    /// # use proto::{Key, TxnId, keys::Span, request::{Age, LockMode}};
    /// # use txn::server::locks::LockTable;
    /// # let (txn, age, now) =
    /// #     (TxnId::default(), Age::default(), truetime::Timestamp::MIN);
    /// let mut table = LockTable::default();
    /// let written = Span::Key(Key::from_static(b"apple"));
    /// table.restore(txn, age, [(written, LockMode::Exclusive)], now);
    /// assert!(table.knows(txn));
    /// ```
    pub fn restore(
        &mut self,
        txn: TxnId,
        age: Age,
        spans: impl IntoIterator<Item = (Span, LockMode)>,
        now: Timestamp,
    ) {
        let who = Seniority { age, attempt: Reverse(txn) };
        self.attempts.insert(who);
        let owner = Owner { who, immune: true, held: Vec::new(), tickets: BTreeSet::new() };
        self.owners.insert(txn, owner);
        for (span, mode) in spans {
            self.hold(txn, span, Lock { mode, since: now });
        }
    }

    /// From now on the transaction is never wounded (X2). It has what it needs, and asks for no more
    /// locks: it would not always be woken for them.
    ///
    /// ```
    /// # use proto::{Key, TxnId, keys::Span, request::{Age, LockMode}};
    /// # use truetime::Timestamp;
    /// # use txn::server::locks::{Changes, LockTable};
    /// # let (mut table, mut changes, now) =
    /// #     (LockTable::default(), Changes::default(), Timestamp::MIN);
    /// # let [old, young] = [1, 2].map(|client| TxnId { client, seq: 1 });
    /// # let age = |txn: TxnId| Age { start: Timestamp::from_micros(txn.client), first: txn };
    /// # let wanted = || vec![(Span::Key(Key::from_static(b"apple")), LockMode::Exclusive)];
    /// table.request(1, young, age(young), wanted(), now, &mut changes);
    /// table.make_immune(young);
    ///
    /// let mut changes = Changes::default();
    /// table.request(2, old, age(old), wanted(), now, &mut changes);
    /// assert!(changes.wounded.is_empty() && changes.granted.is_empty());
    /// assert!(changes.hindering.contains(&young), "its coordinator should hear of it");
    /// ```
    pub fn make_immune(&mut self, txn: TxnId) {
        if let Some(owner) = self.owners.get_mut(&txn) {
            owner.immune = true;
        }
    }

    /// Ends all locks and waits of a transaction, and wakes who can go on.
    ///
    /// ```
    /// # use proto::TxnId;
    /// # use txn::server::locks::{Changes, LockTable};
    /// let (mut table, mut changes) = (LockTable::default(), Changes::default());
    /// // Unknown, or released before: nothing happens.
    /// table.release(TxnId::default(), truetime::Timestamp::MIN, &mut changes);
    /// assert_eq!(changes, Changes::default());
    /// ```
    pub fn release(&mut self, txn: TxnId, now: Timestamp, changes: &mut Changes) {
        let mut turn = Turn { now, changes, freed: Vec::new() };
        self.remove(txn, &mut turn);
        self.wake(turn);
    }

    /// Ends the wait of one request; locks it has stay. A transaction that has none and waits for
    /// nothing else is not known any more.
    ///
    /// ```
    /// # use proto::{Key, TxnId, keys::Span, request::{Age, LockMode}};
    /// # use truetime::Timestamp;
    /// # use txn::server::locks::{Changes, LockTable};
    /// # let (mut table, mut changes, now) =
    /// #     (LockTable::default(), Changes::default(), Timestamp::MIN);
    /// # let [old, young] = [1, 2].map(|client| TxnId { client, seq: 1 });
    /// # let age = |txn: TxnId| Age { start: Timestamp::from_micros(txn.client), first: txn };
    /// # let wanted = || vec![(Span::Key(Key::from_static(b"apple")), LockMode::Exclusive)];
    /// table.request(1, old, age(old), wanted(), now, &mut changes);
    /// table.request(2, young, age(young), wanted(), now, &mut changes);
    /// table.withdraw(2, now, &mut changes);
    /// assert_eq!((table.waiting(), table.transactions()), (0, 1));
    /// ```
    pub fn withdraw(&mut self, ticket: Ticket, now: Timestamp, changes: &mut Changes) {
        let Some(txn) = self.waiting.get(&ticket).map(|waiting| waiting.rank.who.txn()) else {
            return;
        };
        let mut turn = Turn { now, changes, freed: Vec::new() };
        self.stop_waiting(ticket, &mut turn);
        let owner = self.owners.get(&txn);
        if owner.is_some_and(|owner| owner.held.is_empty() && owner.tickets.is_empty()) {
            self.remove(txn, &mut turn);
        }
        self.wake(turn);
    }

    /// What a transaction holds besides these keys, in whatever mode: what it has read.
    pub fn spans_besides(&self, txn: TxnId, written: &BTreeSet<&Key>) -> Vec<Span> {
        let held = self.owners.get(&txn).into_iter().flat_map(|owner| &owner.held);
        let read = |span: &&Span| !matches!(span, Span::Key(key) if written.contains(key));
        held.filter(read).cloned().collect()
    }

    /// Whether the transaction holds any locks, or waits for some.
    pub fn knows(&self, txn: TxnId) -> bool {
        self.owners.contains_key(&txn)
    }

    /// Whether a senior transaction waits for something this one holds.
    pub fn hinders_senior(&self, txn: TxnId) -> bool {
        let Some(owner) = self.owners.get(&txn) else { return false };
        let first = Rank { who: owner.who, ticket: 0 };
        owner.held.iter().any(|span| {
            let Some(lock) = self.held.get(span).and_then(|holders| holders.get(&txn)) else {
                return false;
            };
            let mut queues = self.queues.overlapping(span);
            queues.any(|(_, queue)| queue.range(..first).any(|(_, m)| conflict(lock.mode, *m)))
        })
    }

    /// Whether the transaction would have no more than `max` locks if it got these too.
    pub fn fits(&self, txn: TxnId, spans: &[(Span, LockMode)], max: usize) -> bool {
        let Some(owner) = self.owners.get(&txn) else { return spans.len() <= max };
        let tickets = owner.tickets.iter().filter_map(|ticket| self.waiting.get(ticket));
        let awaited: usize = tickets.map(|waiting| waiting.rest.len()).sum();
        let had = owner.held.len() + awaited;
        had + spans.len() <= max || {
            let new = spans.iter().filter(|(span, mode)| !self.holds(txn, span, *mode));
            had + new.count() <= max
        }
    }

    /// How many transactions hold or wait for locks.
    pub fn transactions(&self) -> usize {
        self.owners.len()
    }

    /// Whether a request waits.
    pub fn waits(&self, ticket: Ticket) -> bool {
        self.waiting.contains_key(&ticket)
    }

    /// How many requests wait.
    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// How often a request has been tried, from the beginning: the work done. A request is tried
    /// when it comes, and again when it may be its turn.
    pub fn tries(&self) -> u64 {
        self.tries
    }
}
