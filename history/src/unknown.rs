//! Transactions whose end nobody told their clients: who was read from has committed, and when.
//!
//! One that nobody read from may have committed or not, and either way no read contradicts it; it is
//! left out. One that was read from lies at or below all who saw it, and above what these did not
//! see any more. It gets the latest time that this leaves it, to have a place in the order; but only
//! what is so wherever it may lie is held against it or against anybody.

use crate::table::{Known, NEVER, NONE, Table};
use crate::versions::Versions;
use std::collections::{BTreeMap, BTreeSet};

/// What is known of one that was read from.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Bounds {
    /// It lies above.
    pub above: u64,
    /// And at or below.
    pub upto: u64,
}

/// Gives those that were read from their times; what is certain of them, by row.
pub(crate) fn place(table: &mut Table) -> BTreeMap<u32, Bounds> {
    let seen = Seen::of(table);
    if seen.readers.is_empty() {
        return BTreeMap::new();
    }
    let versions = Versions::new(table);
    let mut bounds = seen.bounds(table, &versions);
    let mut order: Vec<u32> = bounds.keys().copied().collect();
    order.sort_unstable_by_key(|row| (bounds[row].upto, *row));
    for row in order {
        let mut bound = bounds[&row];
        for read in table.reads(row) {
            let earlier = table.author(read.writer);
            if earlier != NONE && table.rows[earlier as usize].committed() {
                bound.above = bound.above.max(table.rows[earlier as usize].time);
            }
        }
        table.rows[row as usize].time = bound.upto.max(1);
        table.rows[row as usize].ending = Known::Seen;
        bounds.insert(row, bound);
    }
    bounds
}

/// Those that were read from.
struct Seen {
    /// For each, how many of these readers are themselves unknown.
    readers: BTreeMap<u32, u32>,
}

impl Seen {
    fn of(table: &Table) -> Seen {
        let mut readers: BTreeMap<u32, u32> = BTreeMap::new();
        let committed = table.all().filter(|row| table.rows[*row as usize].committed());
        for row in committed {
            each_seen(table, row, |author| {
                readers.entry(author).or_insert(0);
            });
        }
        let mut queue: Vec<u32> = readers.keys().copied().collect();
        while let Some(row) = queue.pop() {
            each_seen(table, row, |author| {
                if author != row {
                    let known = readers.contains_key(&author);
                    *readers.entry(author).or_insert(0) += 1;
                    if !known {
                        queue.push(author);
                    }
                }
            });
        }
        Seen { readers }
    }

    /// Below all who saw it, and above what those did not see any more.
    fn bounds(&self, table: &Table, versions: &Versions) -> BTreeMap<u32, Bounds> {
        let none = Bounds { above: 0, upto: NEVER - 1 };
        let mut bounds: BTreeMap<u32, Bounds> =
            self.readers.keys().map(|row| (*row, none)).collect();
        for row in table.all().filter(|row| table.rows[*row as usize].committed()) {
            let upto = latest_seen(table, row, table.rows[row as usize].time);
            lower(table, versions, row, upto, &mut bounds);
        }
        // Readers before those they read from; in a circle, which no history should have, anyhow.
        let mut waiting = self.readers.clone();
        let mut ready: Vec<u32> =
            waiting.iter().filter(|(_, readers)| **readers == 0).map(|(row, _)| *row).collect();
        while !waiting.is_empty() {
            let next = ready.pop().or_else(|| waiting.keys().next().copied());
            let Some(row) = next.filter(|row| waiting.remove(row).is_some()) else { continue };
            own_reads(table, versions, row, &mut bounds);
            let upto = bounds[&row].upto.saturating_sub(1);
            lower(table, versions, row, upto, &mut bounds);
            each_seen(table, row, |author| {
                if let Some(readers) = waiting.get_mut(&author) {
                    *readers = readers.saturating_sub(1);
                    if *readers == 0 {
                        ready.push(author);
                    }
                }
            });
        }
        bounds
    }
}

/// All unknown ones that a transaction has seen: read from, or found in a list that it extended.
fn each_seen(table: &Table, row: u32, mut tell: impl FnMut(u32)) {
    let unknown = |author: &u32| {
        *author != NONE && table.rows[*author as usize].ending == Known::Unknown && *author != row
    };
    let read = table.reads(row).iter().map(|read| read.writer);
    let listed = table.writes(row).iter().flat_map(|write| table.list(write).iter().copied());
    let authors: BTreeSet<u32> =
        read.chain(listed).map(|attempt| table.author(attempt)).filter(unknown).collect();
    authors.into_iter().for_each(&mut tell);
}

/// The time at or below which everything lies that a reader at `time` saw.
fn latest_seen(table: &Table, row: u32, time: u64) -> u64 {
    if table.read_only(row) { time } else { time.saturating_sub(1) }
}

/// One that saw everything of it up to `upto` lowers those it saw.
fn lower(
    table: &Table,
    versions: &Versions,
    row: u32,
    upto: u64,
    bounds: &mut BTreeMap<u32, Bounds>,
) {
    let known = table.rows[row as usize].ending == Known::Committed;
    for read in table.reads(row) {
        let Some(bound) = bounds.get_mut(&table.author(read.writer)) else { continue };
        bound.upto = bound.upto.min(upto);
        if known && let Some(older) = versions.upto(read.key, upto, row) {
            bound.above = bound.above.max(older.time);
        }
    }
    for write in table.writes(row) {
        // A list tells of all before it, in their order.
        let mut upto = upto;
        for element in table.list(write).iter().rev() {
            let author = table.author(*element);
            if author == row || author == NONE {
                continue;
            }
            match bounds.get_mut(&author) {
                Some(bound) => {
                    bound.upto = bound.upto.min(upto);
                    upto = bound.upto.saturating_sub(1);
                }
                None => upto = upto.min(table.rows[author as usize].time.saturating_sub(1)),
            }
        }
    }
}

/// What it read itself had not been overwritten, if that can be.
fn own_reads(table: &Table, versions: &Versions, row: u32, bounds: &mut BTreeMap<u32, Bounds>) {
    let mut bound = bounds[&row];
    for read in table.reads(row) {
        let Some(seen) = table.seen(read) else { continue };
        if let Some(next) = versions.after(read.key, seen, row)
            && next.time.saturating_sub(1) > bound.above
        {
            bound.upto = bound.upto.min(next.time.saturating_sub(1));
        }
    }
    bounds.insert(row, bound);
}
