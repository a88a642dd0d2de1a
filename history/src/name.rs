//! From what does not fit to what people call it.
//!
//! Every transaction at fault gets one name, the most telling one that applies. The order is that of
//! [`Examiner::name`]: what was read must exist at all; then come lost updates and write skew, which
//! two transactions show together; then snapshots that are none; then what real time forbids; last,
//! timestamps that fit nothing.

use crate::Anomaly;
use crate::real_time::{Late, Stale};
use crate::table::{Known, NONE, Read, Table};
use crate::unknown::Bounds;
use crate::versions::{Fit, Version, Versions};
use std::collections::BTreeMap;

/// Of a transaction with more keys, only so many are followed in search of a circle.
const KEYS_MAX: usize = 32;

/// Rows of a table that show an anomaly, and what each has to do with it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Named {
    pub anomaly: Anomaly,
    /// Who is at fault, as far as timestamps say; every row at most once.
    pub culprit: u32,
    pub how: How,
}

/// The roles in an anomaly. Numbers are those of rows, keys and attempts.
#[derive(Clone, Copy, Debug)]
pub(crate) enum How {
    /// `reader` saw of `writer` (an attempt) what no version holds.
    Dirty { reader: u32, writer: u32, key: u32 },
    /// `reader` had ended when `writer`, whom it read from, began.
    Foretold { reader: u32, writer: u32, key: u32 },
    /// `second` wrote `key`, of which it had not seen the version of `first`.
    Overwrote { first: u32, second: u32, from: u32, key: u32 },
    /// Each missed the next one's write: `two` that of `one` on `key`, and `one`, or `one` by way of
    /// `three`, that of `two` on `other_key`.
    Skew { one: u32, two: u32, three: Option<u32>, key: u32, other_key: u32 },
    /// `reader` saw `newer` on `newer_key` and missed `older` on `older_key`; `witness` saw it the
    /// other way round, or at least the older one.
    Fork {
        reader: u32,
        older: u32,
        older_key: u32,
        newer: u32,
        newer_key: u32,
        witness: Option<u32>,
    },
    /// `reader` missed `missed` on `key`, which `witness` (may be the same) proves to be visible.
    Missed { reader: u32, missed: u32, key: u32, witness: u32, why: Why },
    /// `later` has a timestamp below that of `earlier` (or below what `earlier` saw), and `witness`
    /// read between them.
    Late { earlier: u32, earlier_time: u64, later: u32, witness: Option<u32> },
    /// `reader` saw on `key` what was written at or above its timestamp by `writer`.
    Future { reader: u32, writer: u32, key: u32 },
    /// Both wrote `key` at the same time.
    Tie { one: u32, two: u32, key: u32 },
    /// The list on `key` that `writer` wrote is not that of `before` and itself.
    List { writer: u32, before: Option<u32>, key: u32 },
}

/// Why a reader should not have missed a version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Why {
    /// It was acknowledged or seen before the reader began.
    RealTime,
    /// The reader's own client had written or seen it.
    Session,
    /// Its timestamp is not above the reader's; `witness` read at the same timestamp, or later.
    Timestamp,
}

/// What is asked about rows that do not fit.
pub(crate) struct Examiner<'t> {
    pub table: &'t Table,
    pub versions: &'t Versions,
    pub fit: &'t Fit,
    /// Of guessed rows.
    pub guessed: &'t BTreeMap<u32, Bounds>,
}

/// The reads of a row against all versions.
#[derive(Default)]
struct View {
    /// The newest version that it saw.
    newest: Option<Version>,
    /// The oldest one that it missed, of those that follow what it saw.
    oldest_missed: Option<Version>,
    /// For each key it read: what it saw (a row or [`NONE`]), and what follows.
    follows: Vec<(u32, u32, Version)>,
}

impl Examiner<'_> {
    /// The most telling name of what is wrong with a row, if anything is.
    pub fn name(&self, row: u32, late: Option<Late>, stale: Option<Stale>) -> Option<Named> {
        if let Some(how) = self.impossible(row) {
            let anomaly = match how {
                How::Dirty { .. } => Anomaly::DirtyRead,
                _ => Anomaly::WrongOrder,
            };
            return Some(Named { anomaly, culprit: row, how });
        }
        let view = self.view(row);
        let named = |(anomaly, how)| Named { anomaly, culprit: row, how };
        if self.table.rows[row as usize].ending == Known::Seen {
            return self.overwrote(row, &view).map(named);
        }
        let found = self.overwrote(row, &view).or_else(|| self.skew(row, &view, stale));
        let found = found.or_else(|| self.fork(row, &view));
        let found = found.or_else(|| stale.map(|stale| self.stale(stale)));
        let found = found.or_else(|| self.missed(row, &view));
        let found = found.or_else(|| late.map(|late| self.late(late)));
        found.or_else(|| self.future(row, &view)).map(named)
    }

    fn time(&self, row: u32) -> u64 {
        self.table.rows[row as usize].time
    }

    /// Reads of what no version holds, or of what did not exist yet.
    fn impossible(&self, row: u32) -> Option<How> {
        let reads = self.table.reads(row);
        let dirty = reads.iter().find(|read| self.table.seen(read).is_none());
        if let Some(Read { key, writer, .. }) = dirty {
            return Some(How::Dirty { reader: row, writer: *writer, key: *key });
        }
        reads.iter().find(|read| foretold(self.table, row, read)).map(|read| How::Foretold {
            reader: row,
            writer: self.table.author(read.writer),
            key: read.key,
        })
    }

    fn view(&self, row: u32) -> View {
        let mut view = View::default();
        for read in self.table.reads(row) {
            let Some(time) = self.table.seen(read) else { continue };
            let author = self.table.author(read.writer);
            if author != NONE && view.newest.is_none_or(|newest| newest.time < time) {
                view.newest = Some(Version { key: read.key, time, row: author });
            }
            if let Some(next) = self.next(read.key, (time, author), row) {
                view.follows.push((read.key, author, next));
                if view.oldest_missed.is_none_or(|missed| next.time < missed.time) {
                    view.oldest_missed = Some(next);
                }
            }
        }
        view
    }

    /// Where a row certainly lies: above the first time, at or below the second. Only of guessed rows
    /// these are not neighbours.
    fn bounds(&self, row: u32) -> Bounds {
        let known = Bounds { above: self.time(row).saturating_sub(1), upto: self.time(row) };
        self.guessed.get(&row).copied().unwrap_or(known)
    }

    /// The oldest version of a key that certainly follows what was seen, and is not by `except`.
    fn next(&self, key: u32, (seen, author): (u64, u32), except: u32) -> Option<Version> {
        let upto = if author == NONE { 0 } else { self.bounds(author).upto };
        let mut after = self.versions.following(key, seen);
        after.find(|next| next.row != except && self.bounds(next.row).above >= upto)
    }

    /// Whether a version should have been seen, or overwritten knowingly, by its timestamp.
    fn precedes(&self, version: Version, row: u32) -> bool {
        let (version, own) = (self.bounds(version.row).upto, self.bounds(row));
        match self.table.read_only(row) {
            true => version <= own.above + 1,
            false => version <= own.above,
        }
    }

    fn overwrote(&self, row: u32, view: &View) -> Option<(Anomaly, How)> {
        view.follows
            .iter()
            .filter(|(key, ..)| self.table.written(row, *key).is_some())
            .find(|(.., next)| self.precedes(*next, row))
            .map(|(key, from, next)| {
                let how = How::Overwrote { first: next.row, second: row, from: *from, key: *key };
                (Anomaly::LostUpdate, how)
            })
    }

    /// Circles of reads that the next one's write made old. If real time was enough to know better,
    /// it is a stale read.
    fn skew(&self, row: u32, view: &View, stale: Option<Stale>) -> Option<(Anomaly, How)> {
        if self.table.read_only(row) || stale.is_some() {
            return None;
        }
        let missed = view.follows.iter().filter(|(.., next)| self.precedes(*next, row));
        missed.take(KEYS_MAX).find_map(|(key, _, next)| {
            let back = |from: u32| {
                let reads = self.table.reads(from).iter().take(KEYS_MAX);
                reads.filter_map(move |read| {
                    let seen = self.table.seen(read)?;
                    Some((read.key, seen))
                })
            };
            let of_row = |(other_key, seen): (u32, u64)| {
                let wrote = self.table.written(row, other_key).is_some();
                (wrote && seen < self.time(row)).then_some(other_key)
            };
            let two = back(next.row).find_map(of_row).map(|other_key| (None, other_key));
            let three = || {
                back(next.row).find_map(|(between_key, seen)| {
                    let between = self.versions.after(between_key, seen, next.row)?;
                    let other_key =
                        (between.row != row).then(|| back(between.row).find_map(of_row))??;
                    Some((Some(between.row), other_key))
                })
            };
            let (three, other_key) = two.or_else(three)?;
            let how = How::Skew { one: next.row, two: row, three, key: *key, other_key };
            Some((Anomaly::WriteSkew, how))
        })
    }

    /// Reads that no single instant holds: something newer was seen than what was missed.
    fn fork(&self, row: u32, view: &View) -> Option<(Anomaly, How)> {
        let (newer, older) = (view.newest?, view.oldest_missed?);
        if self.bounds(older.row).upto > self.bounds(newer.row).above + 1 {
            return None;
        }
        let (table, reader) = (self.table, row);
        // Half of one transaction says most.
        let half = view.follows.iter().find_map(|(key, seen, _)| {
            let missed = *seen == NONE || self.time(*seen) < newer.time;
            (missed && *key != newer.key && table.written(newer.row, *key).is_some())
                .then_some(*key)
        });
        let (older_row, older_key) = half.map_or((older.row, older.key), |key| (newer.row, key));
        let (first, second) = (&table.rows[older_row as usize], &table.rows[newer.row as usize]);
        let read_from = table.reads(newer.row).iter().any(|r| table.author(r.writer) == older_row);
        let in_order = first.ended_ns < second.began_ns || read_from;
        let anomaly = match half {
            None if in_order => Anomaly::CausalReverse,
            _ => Anomaly::NonRepeatableSnapshot,
        };
        let how = How::Fork {
            reader,
            older: older_row,
            older_key,
            newer: newer.row,
            newer_key: newer.key,
            witness: None,
        };
        Some((anomaly, how))
    }

    fn stale(&self, stale: Stale) -> (Anomaly, How) {
        let Stale { reader, key, witness, time, session } = stale;
        let author = self.versions.upto(key, time, NONE).map_or(witness, |version| version.row);
        let why = if session { Why::Session } else { Why::RealTime };
        let anomaly = match self.lost(author, key) {
            true => Anomaly::LostWrite,
            false => Anomaly::StaleRead,
        };
        (anomaly, How::Missed { reader, missed: author, key, witness, why })
    }

    /// Whether nobody ever saw what was written.
    fn lost(&self, row: u32, key: u32) -> bool {
        self.table.written(row, key).is_some_and(|(place, _)| !self.fit.seen[place])
    }

    /// A version at or below the reader's timestamp that it did not see.
    fn missed(&self, row: u32, view: &View) -> Option<(Anomaly, How)> {
        let (key, _, next) = view.follows.iter().find(|(.., next)| self.precedes(*next, row))?;
        let acknowledged =
            self.table.rows[next.row as usize].ended_ns < self.table.rows[row as usize].began_ns;
        let anomaly = match self.table.read_only(row) {
            _ if acknowledged && self.lost(next.row, *key) => Anomaly::LostWrite,
            true => Anomaly::NonRepeatableSnapshot,
            false => Anomaly::WrongOrder,
        };
        let (missed, witness) = (next.row, next.row);
        Some((
            anomaly,
            How::Missed { reader: row, missed, key: *key, witness, why: Why::Timestamp },
        ))
    }

    fn late(&self, late: Late) -> (Anomaly, How) {
        let Late { earlier, earlier_time, later } = late;
        (Anomaly::WrongOrder, How::Late { earlier, earlier_time, later, witness: None })
    }

    fn future(&self, row: u32, view: &View) -> Option<(Anomaly, How)> {
        let newest = view.newest?;
        let above = match self.table.read_only(row) {
            true => newest.time > self.time(row),
            false => newest.time >= self.time(row),
        };
        let how = How::Future { reader: row, writer: newest.row, key: newest.key };
        above.then_some((Anomaly::WrongOrder, how))
    }
}

/// Whether a read saw a transaction that began after the reader had ended.
pub(crate) fn foretold(table: &Table, row: u32, read: &Read) -> bool {
    let author = table.author(read.writer);
    author != NONE && table.rows[row as usize].ended_ns < table.rows[author as usize].began_ns
}
