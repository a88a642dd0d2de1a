//! Whose turn it is: what is held, who waits, who is tried again.

use super::{Changes, Lock, LockTable, Rank, Ticket, Waiting, conflict, covers};
use proto::TxnId;
use proto::keys::Span;
use proto::request::LockMode;
use std::collections::BTreeSet;
use std::ops::Bound;
use truetime::Timestamp;

/// One call of the table, from what it was asked to whom it wakes.
pub(super) struct Turn<'a> {
    pub now: Timestamp,
    pub changes: &'a mut Changes,
    /// What nobody holds or waits for any more who did: those who wait for what overlaps it may go
    /// on.
    pub freed: Vec<Span>,
}

/// How a span stands to who wants it.
enum Way {
    /// Covered by what it holds.
    Held,
    Free,
    Blocked,
}

impl LockTable {
    /// Locks as much of a request as possible. If that is all of it, it is granted; otherwise it
    /// waits, and stands in the queue of the span it waits for.
    pub(super) fn advance(&mut self, mut waiting: Waiting, turn: &mut Turn<'_>) {
        self.tries += 1;
        let rank = waiting.rank;
        let (txn, ticket) = (rank.who.txn(), rank.ticket);
        while let Some((span, mode)) = waiting.rest.pop() {
            match self.clear_the_way(rank, &span, mode, turn) {
                Way::Blocked => {
                    if !waiting.queued {
                        self.queues.get_or_default(&span).insert(rank, mode);
                        (waiting.queued, waiting.since) = (true, turn.now);
                    }
                    waiting.rest.push((span, mode));
                    if let Some(owner) = self.owners.get_mut(&txn) {
                        owner.tickets.insert(ticket);
                    }
                    self.waiting.insert(ticket, waiting);
                    return;
                }
                way => {
                    if std::mem::take(&mut waiting.queued) {
                        self.leave_queue(rank, &span);
                    }
                    if let Way::Free = way {
                        self.hold(txn, span, Lock { mode, since: turn.now });
                    }
                }
            }
        }
        if let Some(owner) = self.owners.get_mut(&txn) {
            owner.tickets.remove(&ticket);
        }
        turn.changes.granted.push((txn, ticket));
    }

    /// Wounds the junior holders in the way, and says who is left in it.
    fn clear_the_way(
        &mut self,
        rank: Rank,
        span: &Span,
        mode: LockMode,
        turn: &mut Turn<'_>,
    ) -> Way {
        let txn = rank.who.txn();
        if matches!(span, Span::Range(range) if range.is_empty()) {
            return Way::Held;
        }
        let mut conflicting = Vec::new();
        for (place, holders) in self.held.overlapping(span) {
            if place.covers(span) && holders.get(&txn).is_some_and(|own| covers(own.mode, mode)) {
                return Way::Held;
            }
            // Who holds a span exclusively is its only holder: if the first does not, none does.
            let none = holders.values().next().is_some_and(|first| !conflict(first.mode, mode));
            let others = holders.keys().filter(|other| !none && **other != txn);
            conflicting.extend(others.copied());
        }
        let mut blocked = false;
        for other in conflicting {
            let Some(owner) = self.owners.get(&other) else { continue }; // wounded just now
            let senior = rank.who < owner.who;
            if senior && !owner.immune {
                self.wound(other, turn);
                continue;
            }
            if senior {
                turn.changes.hindering.insert(other);
            }
            blocked = true;
        }
        // Seniors that want the same go first, or they would starve.
        let first = Rank { who: rank.who, ticket: 0 };
        let mut queues = self.queues.overlapping(span);
        blocked |= queues.any(|(_, queue)| queue.range(..first).any(|(_, m)| conflict(*m, mode)));
        if blocked { Way::Blocked } else { Way::Free }
    }

    /// Whether the transaction holds all of the span at least as strongly already.
    pub(super) fn holds(&self, txn: TxnId, span: &Span, mode: LockMode) -> bool {
        self.held.overlapping(span).any(|(place, holders)| {
            place.covers(span) && holders.get(&txn).is_some_and(|own| covers(own.mode, mode))
        })
    }

    /// Nobody must be in the way.
    pub(super) fn hold(&mut self, txn: TxnId, span: Span, lock: Lock) {
        let before = self.held.get_or_default(&span).insert(txn, lock);
        let owner = self.owners.get_mut(&txn).expect("who holds has an entry");
        if before.is_none() {
            owner.held.push(span);
        }
    }

    pub(super) fn wound(&mut self, txn: TxnId, turn: &mut Turn<'_>) {
        self.remove(txn, turn);
        turn.changes.wounded.push(txn);
    }

    pub(super) fn remove(&mut self, txn: TxnId, turn: &mut Turn<'_>) {
        let Some(owner) = self.owners.remove(&txn) else { return };
        self.attempts.remove(&owner.who);
        for ticket in owner.tickets {
            self.stop_waiting(ticket, turn);
        }
        for span in owner.held {
            if let Some(holders) = self.held.get_mut(&span) {
                holders.remove(&txn);
                if holders.is_empty() {
                    self.held.remove(&span);
                }
            }
            turn.freed.push(span);
        }
    }

    pub(super) fn stop_waiting(&mut self, ticket: Ticket, turn: &mut Turn<'_>) {
        let Some(mut waiting) = self.waiting.remove(&ticket) else { return };
        if let Some(owner) = self.owners.get_mut(&waiting.rank.who.txn()) {
            owner.tickets.remove(&ticket);
        }
        if let Some((span, _)) = waiting.rest.pop() {
            self.leave_queue(waiting.rank, &span);
            turn.freed.push(span);
        }
    }

    fn leave_queue(&mut self, rank: Rank, span: &Span) {
        if let Some(queue) = self.queues.get_mut(span) {
            queue.remove(&rank);
            if queue.is_empty() {
                self.queues.remove(span);
            }
        }
    }

    /// Tries those whose turn it may be: of each queue that overlaps what is free now the most
    /// senior one, and who comes after one that leaves its queue. Who stays keeps its juniors there
    /// waiting, for what is in its way is in theirs, or it is itself; but not its own other tickets.
    pub(super) fn wake(&mut self, mut turn: Turn<'_>) {
        let mut due: BTreeSet<Rank> = BTreeSet::new();
        loop {
            for span in std::mem::take(&mut turn.freed) {
                let queues = self.queues.overlapping(&span);
                due.extend(queues.filter_map(|(_, queue)| queue.keys().next()));
            }
            // Seniors first: nobody is granted what a senior would take away again at once.
            let Some(rank) = due.pop_first() else { return };
            let Some(waiting) = self.waiting.remove(&rank.ticket) else { continue };
            let Some((span, _)) = waiting.rest.last().cloned() else { continue };
            self.advance(waiting, &mut turn);
            let Some(queue) = self.queues.get(&span) else { continue };
            let stays = queue.contains_key(&rank);
            let after = (Bound::Excluded(rank), Bound::Unbounded);
            let next = queue.range(after).map(|(next, _)| *next).next();
            due.extend(next.filter(|next| !stays || next.who == rank.who));
        }
    }
}
