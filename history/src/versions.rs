//! The versions of every key in the order of their timestamps: what each read should have seen.

use crate::name::foretold;
use crate::table::{NONE, Table};

/// A version of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Version {
    pub key: u32,
    pub time: u64,
    /// Who wrote it.
    pub row: u32,
}

/// All versions, by key and time.
pub(crate) struct Versions {
    all: Vec<Version>,
    /// Where each key begins, and where the last one ends.
    starts: Vec<u32>,
}

impl Versions {
    /// Of all that are known to have committed.
    pub fn new(table: &Table) -> Versions {
        let mut all = Vec::with_capacity(table.write_count());
        for row in table.all() {
            let (time, committed) =
                (table.rows[row as usize].time, table.rows[row as usize].committed());
            if committed {
                let writes = table.writes(row).iter();
                all.extend(writes.map(|write| Version { key: write.key, time, row }));
            }
        }
        all.sort_unstable();
        let mut starts = vec![0; table.keys.len() + 1];
        for version in &all {
            starts[version.key as usize + 1] += 1;
        }
        for key in 1..starts.len() {
            starts[key] += starts[key - 1];
        }
        Versions { all, starts }
    }

    /// Those of a key, oldest first.
    pub fn of(&self, key: u32) -> &[Version] {
        let key = key as usize;
        &self.all[self.starts[key] as usize..self.starts[key + 1] as usize]
    }

    /// Those after a time, oldest first.
    pub fn following(&self, key: u32, time: u64) -> impl Iterator<Item = Version> {
        let versions = self.of(key);
        let first = versions.partition_point(|version| version.time <= time);
        versions[first..].iter().copied()
    }

    /// The oldest one after a time that is not by `except`.
    pub fn after(&self, key: u32, time: u64, except: u32) -> Option<Version> {
        self.following(key, time).find(|version| version.row != except)
    }

    /// The newest one at or before a time that is not by `except`.
    pub fn upto(&self, key: u32, time: u64, except: u32) -> Option<Version> {
        let versions = self.of(key);
        let end = versions.partition_point(|version| version.time <= time);
        versions[..end].iter().rev().find(|version| version.row != except).copied()
    }

    /// Two versions of one key at one time (L4).
    pub fn ties(&self) -> impl Iterator<Item = (Version, Version)> {
        let same = |a: &Version, b: &Version| a.key == b.key && a.time == b.time;
        self.all
            .windows(2)
            .filter_map(move |pair| same(&pair[0], &pair[1]).then_some((pair[0], pair[1])))
    }
}

/// Which committed transactions did not read what was there at their timestamps, and the writes
/// that were seen by anybody.
pub(crate) struct Fit {
    /// Numbers of rows, in the order of their times.
    pub unfit: Vec<u32>,
    /// For every write, whether somebody read it.
    pub seen: Vec<bool>,
}

/// One pass over all in the order of their times, over a store that holds one version of each key. A
/// writer reads what was there before its time, and a read-only transaction what is there at its
/// time (R1, X1).
pub(crate) fn fit(table: &Table) -> Fit {
    let time = |row: &u32| table.rows[*row as usize].time;
    let mut order: Vec<u32> =
        table.all().filter(|row| table.rows[*row as usize].committed()).collect();
    order.sort_unstable_by_key(|row| (time(row), table.read_only(*row), *row));
    let mut store: Vec<u64> = vec![0; table.keys.len()];
    let mut fit = Fit { unfit: Vec::new(), seen: vec![false; table.write_count()] };
    for now in order.chunk_by(|a, b| time(a) == time(b)) {
        let writers = now.partition_point(|row| !table.read_only(*row));
        let (writers, readers) = now.split_at(writers);
        writers.iter().for_each(|row| fit.read(table, &store, *row));
        for row in writers {
            let written = table.writes(*row).iter();
            written.for_each(|write| store[write.key as usize] = time(row));
        }
        readers.iter().for_each(|row| fit.read(table, &store, *row));
    }
    fit
}

impl Fit {
    fn read(&mut self, table: &Table, store: &[u64], row: u32) {
        let mut fits = true;
        for read in table.reads(row) {
            fits &= table.seen(read) == Some(store[read.key as usize]);
            fits &= !foretold(table, row, read);
            let author = table.author(read.writer);
            if author != NONE
                && let Some((place, _)) = table.written(author, read.key)
            {
                self.seen[place] = true;
            }
        }
        if !fits {
            self.unfit.push(row);
        }
    }
}
