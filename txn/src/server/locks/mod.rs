//! The lock table of one group: keys and ranges, shared and exclusive, wound-wait (X1, X2).
//!
//! ```text
//!   request ──► conflicts with holders or with older waiters?
//!                 │ no                       │ yes
//!                 ▼                          ▼
//!               held          younger holders that may be wounded: wounded, gone
//!                                            │ somebody is left
//!                                            ▼
//!                              waits, in order of arrival ──► tried again at each release
//! ```
//!
//! An older transaction wounds a younger holder, a younger one waits for an older: waits only
//! ever point from younger to older, or at an *immune* holder. One that is deciding ends by itself.
//! One that is prepared ends when its coordinator decides, and there it may wait for the very
//! transaction it hinders here: so the coordinator is told to abort it if it still can
//! (`PeerBody::Wound`). The prepared transaction itself is never wounded (X2).

use proto::keys::Span;
use proto::request::{Age, LockMode};
use proto::{Key, KeyRange, TxnId};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

/// Names a request for locks; grows, so its order is the order of arrival.
pub type Ticket = u64;

/// What a release or a request did besides: who was wounded, whose wait is over.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// Lost all locks and waits.
    pub wounded: Vec<TxnId>,
    /// Hold everything they asked for now.
    pub granted: Vec<Ticket>,
    /// Immune, and in the way of an older transaction. Their coordinators should hear of it: one
    /// of them may wait, elsewhere, for just that older transaction.
    pub hindering: BTreeSet<TxnId>,
}

#[derive(Debug)]
struct Holder {
    age: Age,
    /// Prepared or deciding: never wounded (X2).
    immune: bool,
    keys: BTreeSet<Key>,
}

#[derive(Debug)]
struct Waiting {
    txn: TxnId,
    age: Age,
    /// What is still to be locked, last first.
    rest: Vec<(Span, LockMode)>,
}

#[derive(Debug)]
struct RangeLock {
    range: KeyRange,
    txn: TxnId,
    mode: LockMode,
}

/// Invariants: no two transactions hold conflicting locks; a transaction that holds or waits has
/// an entry in `holders`; no waiting request could be granted.
#[derive(Debug, Default)]
pub struct LockTable {
    keys: BTreeMap<Key, BTreeMap<TxnId, LockMode>>,
    ranges: Vec<RangeLock>,
    holders: BTreeMap<TxnId, Holder>,
    waiting: BTreeMap<Ticket, Waiting>,
}

fn conflict(a: LockMode, b: LockMode) -> bool {
    a == LockMode::Exclusive || b == LockMode::Exclusive
}

impl LockTable {
    /// Asks for locks. Those that can be had are held at once; when `ticket` is among the granted
    /// ones all are. `ticket` must be larger than every earlier one.
    pub fn request(
        &mut self,
        ticket: Ticket,
        txn: TxnId,
        age: Age,
        mut spans: Vec<(Span, LockMode)>,
        changes: &mut Changes,
    ) {
        self.holders.entry(txn).or_insert(Holder { age, immune: false, keys: BTreeSet::new() });
        spans.reverse();
        self.waiting.insert(ticket, Waiting { txn, age, rest: spans });
        if self.advance(ticket, changes) {
            self.waiting.remove(&ticket);
            changes.granted.push(ticket);
        }
        if !changes.wounded.is_empty() {
            self.wake(changes);
        }
    }

    /// Takes locks without asking: those of a prepared transaction, by a new leader that does not
    /// serve yet (X10). The transaction is immune.
    pub fn restore(&mut self, txn: TxnId, age: Age, spans: impl Iterator<Item = (Span, LockMode)>) {
        self.holders.insert(txn, Holder { age, immune: true, keys: BTreeSet::new() });
        for (span, mode) in spans {
            self.hold(txn, span, mode);
        }
    }

    /// From now on the transaction is never wounded (X2).
    pub fn make_immune(&mut self, txn: TxnId) {
        if let Some(holder) = self.holders.get_mut(&txn) {
            holder.immune = true;
        }
    }

    /// Ends all locks and waits of a transaction, and wakes who can go on.
    pub fn release(&mut self, txn: TxnId, changes: &mut Changes) {
        if self.remove(txn) {
            self.wake(changes);
        }
    }

    /// What a transaction holds besides these keys, in whatever mode: what it has read.
    pub fn spans_besides(&self, txn: TxnId, written: &BTreeSet<&Key>) -> Vec<Span> {
        let keys = self.holders.get(&txn).into_iter().flat_map(|holder| holder.keys.iter());
        let ranges = self.ranges.iter().filter(|lock| lock.txn == txn);
        keys.filter(|key| !written.contains(key))
            .map(|key| Span::Key(key.clone()))
            .chain(ranges.map(|lock| Span::Range(lock.range.clone())))
            .collect()
    }

    /// Whether the transaction holds any locks, or waits for some.
    pub fn knows(&self, txn: TxnId) -> bool {
        self.holders.contains_key(&txn)
    }

    /// Whether an older transaction waits for something this one holds.
    pub fn hinders_older(&self, txn: TxnId) -> bool {
        let Some(holder) = self.holders.get(&txn) else { return false };
        self.waiting.values().any(|waiting| {
            waiting.age < holder.age
                && waiting.rest.last().is_some_and(|(span, mode)| {
                    self.conflicting(waiting.txn, span, *mode).contains(&txn)
                })
        })
    }

    /// Ends the wait of one request; locks it has stay.
    pub fn withdraw(&mut self, ticket: Ticket, changes: &mut Changes) {
        if self.waiting.remove(&ticket).is_some() {
            self.wake(changes);
        }
    }

    /// How many transactions hold or wait for locks.
    pub fn transactions(&self) -> usize {
        self.holders.len()
    }

    /// How many requests wait.
    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// Locks as much of a waiting request as possible; whether that was all of it.
    fn advance(&mut self, ticket: Ticket, changes: &mut Changes) -> bool {
        loop {
            let Some(waiting) = self.waiting.get(&ticket) else { return false };
            let Some((span, mode)) = waiting.rest.last().cloned() else { return true };
            let (txn, age) = (waiting.txn, waiting.age);
            if !self.holds(txn, &span, mode) {
                if !self.clear_the_way(ticket, txn, age, &span, mode, changes) {
                    return false;
                }
                self.hold(txn, span, mode);
            }
            if let Some(waiting) = self.waiting.get_mut(&ticket) {
                waiting.rest.pop();
            }
        }
    }

    /// Wounds the younger holders in the way; whether nobody is left in it.
    fn clear_the_way(
        &mut self,
        ticket: Ticket,
        txn: TxnId,
        age: Age,
        span: &Span,
        mode: LockMode,
        changes: &mut Changes,
    ) -> bool {
        let mut free = true;
        for other in self.conflicting(txn, span, mode) {
            let holder = &self.holders[&other];
            // Equal age: an earlier attempt of the same transaction, which its client has left.
            if !holder.immune && age <= holder.age {
                self.remove(other);
                changes.wounded.push(other);
            } else {
                if age < holder.age {
                    changes.hindering.insert(other);
                }
                free = false;
            }
        }
        // Older requests that came before and want the same go first, or they would starve.
        free && !self.waiting.range(..ticket).any(|(_, earlier)| {
            earlier.txn != txn
                && earlier.age < age
                && earlier.rest.last().is_some_and(|(s, m)| conflict(*m, mode) && s.overlaps(span))
        })
    }

    fn conflicting(&self, txn: TxnId, span: &Span, mode: LockMode) -> BTreeSet<TxnId> {
        let mut found = BTreeSet::new();
        let mut add = |holders: &BTreeMap<TxnId, LockMode>| {
            let others = holders.iter().filter(|(o, m)| **o != txn && conflict(**m, mode));
            found.extend(others.map(|(other, _)| *other));
        };
        match span {
            Span::Key(key) => {
                if let Some(holders) = self.keys.get(key) {
                    add(holders);
                }
            }
            Span::Range(range) if range.is_empty() => {}
            Span::Range(range) => {
                let end = match range.end.is_empty() {
                    true => Bound::Unbounded,
                    false => Bound::Excluded(range.end.clone()),
                };
                let keys = self.keys.range((Bound::Included(range.start.clone()), end));
                keys.for_each(|(_, holders)| add(holders));
            }
        }
        for lock in &self.ranges {
            let other = lock.txn != txn && conflict(lock.mode, mode);
            if other && Span::Range(lock.range.clone()).overlaps(span) {
                found.insert(lock.txn);
            }
        }
        found
    }

    /// Whether the transaction holds the span at least as strongly already.
    fn holds(&self, txn: TxnId, span: &Span, mode: LockMode) -> bool {
        let enough = |held: LockMode| held == LockMode::Exclusive || mode == LockMode::Shared;
        match span {
            Span::Key(key) => {
                let held = self.keys.get(key).and_then(|holders| holders.get(&txn));
                held.is_some_and(|held| enough(*held))
            }
            Span::Range(range) => {
                self.ranges.iter().any(|l| l.txn == txn && l.range == *range && enough(l.mode))
            }
        }
    }

    fn hold(&mut self, txn: TxnId, span: Span, mode: LockMode) {
        match span {
            Span::Key(key) => {
                if let Some(holder) = self.holders.get_mut(&txn) {
                    holder.keys.insert(key.clone());
                }
                self.keys.entry(key).or_default().insert(txn, mode);
            }
            Span::Range(range) => self.ranges.push(RangeLock { range, txn, mode }),
        }
    }

    fn remove(&mut self, txn: TxnId) -> bool {
        let Some(holder) = self.holders.remove(&txn) else { return false };
        for key in holder.keys {
            if let Some(holders) = self.keys.get_mut(&key) {
                holders.remove(&txn);
                if holders.is_empty() {
                    self.keys.remove(&key);
                }
            }
        }
        self.ranges.retain(|lock| lock.txn != txn);
        self.waiting.retain(|_, waiting| waiting.txn != txn);
        true
    }

    /// Lets the waiting go on, in order of arrival, until a round changes nothing.
    fn wake(&mut self, changes: &mut Changes) {
        loop {
            let wounded = changes.wounded.len();
            let tickets: Vec<Ticket> = self.waiting.keys().copied().collect();
            for ticket in tickets {
                if self.advance(ticket, changes) {
                    self.waiting.remove(&ticket);
                    changes.granted.push(ticket);
                }
            }
            if changes.wounded.len() == wounded {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use truetime::Timestamp;

    fn txn(seq: u64) -> TxnId {
        TxnId { client: 1, seq }
    }

    /// Age by number: 1 is the oldest.
    fn age(n: u64) -> Age {
        Age { start: Timestamp::from_micros(n), first: txn(n) }
    }

    fn key(k: &str) -> Span {
        Span::Key(Key::copy_from_slice(k.as_bytes()))
    }

    fn range(a: &str, b: &str) -> Span {
        Span::Range(KeyRange {
            start: Key::copy_from_slice(a.as_bytes()),
            end: Key::copy_from_slice(b.as_bytes()),
        })
    }

    #[derive(Default)]
    struct Script {
        table: LockTable,
        ticket: Ticket,
    }

    impl Script {
        fn ask(&mut self, t: u64, span: Span, mode: LockMode) -> (Ticket, Changes) {
            let mut changes = Changes::default();
            self.ticket += 1;
            self.table.request(self.ticket, txn(t), age(t), vec![(span, mode)], &mut changes);
            (self.ticket, changes)
        }

        fn release(&mut self, t: u64) -> Changes {
            let mut changes = Changes::default();
            self.table.release(txn(t), &mut changes);
            changes
        }
    }

    use LockMode::{Exclusive, Shared};

    #[test]
    fn readers_share_and_a_younger_writer_waits() {
        let mut s = Script::default();
        assert_eq!(s.ask(1, key("a"), Shared).1.granted, [1]);
        assert_eq!(s.ask(2, key("a"), Shared).1.granted, [2]);
        let (third, changes) = s.ask(3, key("a"), Exclusive);
        assert_eq!(changes, Changes::default());
        assert_eq!(s.release(1), Changes::default());
        assert_eq!(s.release(2).granted, [third]);
    }

    #[test]
    fn an_older_transaction_wounds_a_younger_holder() {
        let mut s = Script::default();
        s.ask(5, key("a"), Exclusive);
        let (ticket, changes) = s.ask(2, key("a"), Shared);
        assert_eq!(
            changes,
            Changes { wounded: vec![txn(5)], granted: vec![ticket], ..Changes::default() }
        );
    }

    #[test]
    fn a_later_attempt_replaces_what_an_earlier_one_left_behind() {
        let mut s = Script::default();
        let mut changes = Changes::default();
        let first_and_second = |seq| (txn(seq), age(3));
        for (ticket, (attempt, age)) in
            [first_and_second(3), first_and_second(4)].into_iter().enumerate()
        {
            let spans = vec![(key("a"), Exclusive)];
            s.table.request(ticket as u64 + 1, attempt, age, spans, &mut changes);
        }
        assert_eq!(
            changes,
            Changes { wounded: vec![txn(3)], granted: vec![1, 2], ..Changes::default() }
        );
    }

    #[test]
    fn a_prepared_transaction_is_never_wounded() {
        let mut s = Script::default();
        s.ask(5, key("a"), Exclusive);
        s.table.make_immune(txn(5));
        let (ticket, changes) = s.ask(2, key("a"), Exclusive);
        assert_eq!(changes, Changes { hindering: [txn(5)].into(), ..Changes::default() });
        assert!(s.table.hinders_older(txn(5)));
        assert_eq!(s.release(5).granted, [ticket]);
    }

    #[test]
    fn a_range_keeps_phantoms_out() {
        let mut s = Script::default();
        s.ask(1, range("a", "c"), Shared);
        assert!(s.ask(2, key("b"), Exclusive).1.granted.is_empty());
        assert_eq!(s.ask(3, key("c"), Exclusive).1.granted, [3], "half-open");
        assert_eq!(s.release(1).granted, [2]);
    }

    #[test]
    fn upgrade_wounds_the_younger_reader() {
        let mut s = Script::default();
        s.ask(1, key("a"), Shared);
        s.ask(2, key("a"), Shared);
        let (ticket, changes) = s.ask(1, key("a"), Exclusive);
        assert_eq!(
            changes,
            Changes { wounded: vec![txn(2)], granted: vec![ticket], ..Changes::default() }
        );
    }

    #[test]
    fn a_late_young_reader_does_not_pass_an_older_waiting_writer() {
        let mut s = Script::default();
        s.ask(1, key("a"), Shared);
        let (writer, _) = s.ask(2, key("a"), Exclusive);
        let (reader, changes) = s.ask(3, key("a"), Shared);
        assert_eq!(changes, Changes::default());
        assert_eq!(s.release(1).granted, [writer]);
        assert_eq!(s.release(2).granted, [reader]);
    }

    proptest! {
        /// Holders never conflict, and when everyone who holds everything releases, nobody is
        /// left waiting: no deadlock.
        #[test]
        fn no_conflict_and_no_deadlock(
            asks in proptest::collection::vec((1u64..8, 0u8..6, 0u8..3, any::<bool>()), 1..60)
        ) {
            let mut s = Script::default();
            for (t, start, width, exclusive) in asks {
                let mode = if exclusive { Exclusive } else { Shared };
                let name = |n: u8| char::from(b'a' + n).to_string();
                let span = match width {
                    0 => key(&name(start)),
                    w => range(&name(start), &name(start + w)),
                };
                s.ask(t, span, mode);
                let table = &s.table;
                for holders in table.keys.values() {
                    let exclusive = holders.values().any(|m| *m == Exclusive);
                    prop_assert!(holders.len() == 1 || !exclusive);
                }
                for lock in &table.ranges {
                    let span = Span::Range(lock.range.clone());
                    prop_assert!(table.conflicting(lock.txn, &span, lock.mode).is_empty());
                }
            }
            while s.table.transactions() > 0 {
                let blocked: BTreeSet<TxnId> = s.table.waiting.values().map(|w| w.txn).collect();
                let done = s.table.holders.keys().copied().find(|t| !blocked.contains(t));
                let Some(done) = done else { return Err(TestCaseError::fail("deadlock")) };
                let mut changes = Changes::default();
                s.table.release(done, &mut changes);
            }
            prop_assert_eq!(s.table.waiting(), 0);
        }
    }
}
