//! One version of the catalog's rows, and the catalogs it speaks of, one after the other.
//!
//! ```text
//!   rows written      since = s                 from = f
//!   ────────────────────┬───────────────────────────┬──────────────────────────► timestamps
//!   (an older version)  │ entry 0: as before        │ entry 1: the change counts
//! ```
//!
//! A change that everybody must know of before it counts is written at s and says that it counts
//! from f on (S1). So the same rows are right for timestamps on both sides of f, and whoever knows
//! them needs nobody to tell it when f has come.
//!
//! Invariants:
//! 1. There is an entry; the first is since the newest of the rows was written, the others since the
//!    turns that the descriptors name beyond that; they ascend.
//! 2. The rows say nothing of timestamps below the first entry: an older version does.

use super::{Catalog, Descriptor, Table, TableState};
use crate::error::Result;
use std::collections::BTreeSet;
use std::sync::Arc;
use truetime::{Interval, Timestamp};

/// See the [module](self).
#[derive(Debug)]
pub struct Timeline {
    entries: Vec<Arc<Catalog>>,
}

impl Timeline {
    /// What these rows say; `since`: when the newest of them was written.
    ///
    /// # Errors
    /// `Internal` when a table's parent is missing: the catalog is damaged.
    pub fn new(since: Timestamp, descriptors: &[Descriptor]) -> Result<Timeline> {
        let turns = descriptors.iter().map(|descriptor| descriptor.state.turn());
        let turns: BTreeSet<Timestamp> = turns.filter(|turn| *turn > since).collect();
        let starts = [since].into_iter().chain(turns);
        let entries = starts.map(|start| Catalog::new(start, descriptors).map(Arc::new));
        Ok(Timeline { entries: entries.collect::<Result<_>>()? })
    }

    /// When the newest of the rows was written; of earlier timestamps they say nothing.
    pub fn since(&self) -> Timestamp {
        self.entries[0].since
    }

    /// The catalogs, in the order of time.
    pub fn entries(&self) -> &[Arc<Catalog>] {
        &self.entries
    }

    /// The place of the entry that counts at a timestamp, which is not below
    /// [`since`](Self::since).
    pub fn place_at(&self, at: Timestamp) -> usize {
        self.entries.partition_point(|entry| entry.since <= at).saturating_sub(1)
    }

    /// The catalog at a timestamp, which is not below [`since`](Self::since).
    pub fn at(&self, at: Timestamp) -> &Arc<Catalog> {
        &self.entries[self.place_at(at)]
    }

    /// The catalog once all that was announced has come.
    pub fn last(&self) -> &Arc<Catalog> {
        &self.entries[self.entries.len() - 1]
    }

    /// When all that was announced has come, if that has not certainly passed.
    pub fn pending(&self, now: Interval) -> Option<Timestamp> {
        let turn = self.last().since;
        (self.entries.len() > 1 && !now.after(turn)).then_some(turn)
    }

    /// The tables that are dropped, or will be, with the timestamp from which nobody uses them;
    /// children before parents.
    pub fn dropping(&self) -> impl Iterator<Item = (Arc<Table>, Timestamp)> {
        self.last().dropping().into_iter().filter_map(|table| match table.state() {
            TableState::Dropping { until } => Some((table, until)),
            TableState::Live { .. } => None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::create::describe;
    use crate::parse::{Statement, parse};

    fn at(us: u64) -> Timestamp {
        Timestamp::from_micros(us)
    }

    fn table(sql: &str, id: u32, state: TableState, others: &[Descriptor]) -> Descriptor {
        let Ok(Statement::CreateTable(table)) = parse(sql) else { unreachable!("{sql}") };
        let catalog = Catalog::new(Timestamp::MAX, others).expect("whole");
        Descriptor { state, ..describe(&table, id, at(0), &catalog).expect("it is right") }
    }

    fn names(catalog: &Catalog) -> String {
        catalog.tables().map(|table| table.name()).collect::<Vec<_>>().join(" ")
    }

    fn parent_and_child(child: TableState) -> Vec<Descriptor> {
        let live = TableState::Live { from: Timestamp::MIN };
        let parent = table("CREATE TABLE p (a INT64) PRIMARY KEY (a)", 1, live, &[]);
        let sql = "CREATE TABLE c (a INT64, b INT64) PRIMARY KEY (a, b), INTERLEAVE IN PARENT p";
        let child = table(sql, 2, child, std::slice::from_ref(&parent));
        vec![parent, child]
    }

    #[test]
    fn what_is_announced_counts_from_its_timestamp_on() {
        let rows = parent_and_child(TableState::Live { from: at(900) });
        let timeline = Timeline::new(at(100), &rows).expect("whole");
        for (us, found) in [(100, "p"), (899, "p"), (900, "c p"), (901, "c p")] {
            assert_eq!(names(timeline.at(at(us))), found, "at {us}");
        }
        assert_eq!(timeline.at(at(899)).since, at(100));
        assert_eq!(timeline.at(at(900)).since, at(900));
        for (earliest, pending) in [(100, true), (900, true), (901, false)] {
            let now = Interval::new(at(earliest), at(earliest + 50));
            assert_eq!(timeline.pending(now), pending.then_some(at(900)), "at {earliest}");
        }
        // Read again after something else was written, it is one entry.
        let later = Timeline::new(at(1_000), &rows).expect("whole");
        assert_eq!((later.entries().len(), names(later.last())), (1, "c p".into()));
    }

    #[test]
    fn what_is_dropped_counts_until_its_timestamp() {
        let rows = parent_and_child(TableState::Dropping { until: at(900) });
        let timeline = Timeline::new(at(100), &rows).expect("whole");
        for (us, found) in [(100, "c p"), (899, "c p"), (900, "p")] {
            assert_eq!(names(timeline.at(at(us))), found, "at {us}");
        }
        assert!(timeline.at(at(899)).dropping().is_empty(), "its rows are in use");
        let dropping: Vec<_> = timeline.dropping().map(|(table, at)| (table.id(), at)).collect();
        assert_eq!(dropping, [(2, at(900))]);
        let at_once = parent_and_child(TableState::Dropping { until: Timestamp::MIN });
        let timeline = Timeline::new(at(100), &at_once).expect("whole");
        assert_eq!((timeline.entries().len(), names(timeline.last())), (1, "p".into()));
    }

    #[test]
    fn only_tables_that_nobody_is_concerned_with_extend_a_catalog() {
        let live = TableState::Live { from: Timestamp::MIN };
        let rows = parent_and_child(live);
        let catalog = |rows: &[Descriptor]| Catalog::new(at(100), rows).expect("whole");
        let (parent, both) = (catalog(&rows[..1]), catalog(&rows));
        assert!(both.extends(&both));
        assert!(!both.extends(&parent), "who deletes from the parent must know of the child");
        assert!(!parent.extends(&both), "a table is gone");
        let other = table("CREATE TABLE q (a INT64) PRIMARY KEY (a)", 3, live, &rows);
        let with_other = catalog(&[&rows[..], &[other]].concat());
        assert!(with_other.extends(&both));
        assert!(!with_other.extends(&parent));
        assert!(with_other.extends(&catalog(&[])), "the child's parent is as new as the child");
    }
}
