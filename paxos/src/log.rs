//! The accepted entries of a replica, in memory as on disk.

use crate::message::Entry;
use proto::Slot;
use std::collections::VecDeque;

/// Entries of the slots `first..=last`.
///
/// Invariants: slots are contiguous; slots below `first` were chosen, applied and truncated.
#[derive(Debug)]
pub(crate) struct Log {
    first: Slot,
    entries: VecDeque<Entry>,
}

impl Log {
    /// An empty log whose next slot is `first`.
    pub fn empty(first: Slot) -> Log {
        Log { first, entries: VecDeque::new() }
    }

    pub fn first(&self) -> Slot {
        self.first
    }

    /// The last slot; `first - 1` when empty.
    pub fn last(&self) -> Slot {
        Slot(self.first.0 + self.entries.len() as u64 - 1)
    }

    pub fn get(&self, slot: Slot) -> Option<&Entry> {
        let index = slot.0.checked_sub(self.first.0)?;
        self.entries.get(usize::try_from(index).ok()?)
    }

    /// Writes a slot that exists, or the one after the last. Tells whether it overwrote.
    pub fn put(&mut self, slot: Slot, entry: Entry) -> bool {
        assert!(slot >= self.first, "P2: {slot} was truncated (first {})", self.first);
        let index = usize::try_from(slot.0 - self.first.0).expect("a log fits in memory");
        assert!(index <= self.entries.len(), "{slot} leaves a hole after {}", self.last());
        if index == self.entries.len() {
            self.entries.push_back(entry);
            return false;
        }
        self.entries[index] = entry;
        true
    }

    /// The entries from a slot on.
    pub fn from(&self, slot: Slot) -> impl Iterator<Item = (Slot, &Entry)> {
        let start = slot.max(self.first);
        let skip = usize::try_from(start.0 - self.first.0).unwrap_or(usize::MAX);
        self.entries.iter().enumerate().skip(skip).map(|(i, e)| (Slot(self.first.0 + i as u64), e))
    }

    /// Drops the slots after `after`; returns whether there were any.
    pub fn cut_tail(&mut self, after: Slot) -> bool {
        let keep =
            usize::try_from((after.0 + 1).saturating_sub(self.first.0)).unwrap_or(usize::MAX);
        let any = keep < self.entries.len();
        self.entries.truncate(keep);
        any
    }

    /// Forgets the slots up to `upto`, included; returns whether there were any.
    pub fn truncate(&mut self, upto: Slot) -> bool {
        let mut any = false;
        while self.first <= upto && self.entries.pop_front().is_some() {
            self.first = self.first.next();
            any = true;
        }
        any
    }
}
