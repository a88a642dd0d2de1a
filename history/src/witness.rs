//! Third parties: readers who make a name certain.
//!
//! What is a non-repeatable snapshot by itself is a long fork when somebody else saw the two writes
//! the other way round; what is a wrong order of timestamps is a causal reverse when somebody read
//! between them; and a snapshot that changed is told best by the two readers of one timestamp. One
//! pass over all reads finds them for all.

use crate::Anomaly;
use crate::name::{How, Named, Why};
use crate::table::Table;
use std::collections::BTreeMap;

/// For more findings than this no third parties are looked for.
const ASKED_MAX: usize = 10_000;
/// Nor for more of one version.
const ASKED_OF_ONE_MAX: usize = 16;
/// Of a transaction with more keys, only so many are looked at.
const KEYS_MAX: usize = 16;

/// Completes findings.
pub(crate) fn find(table: &Table, named: &mut [Named]) {
    // By the attempt whose version a third party must have seen, and its key.
    let mut asked: BTreeMap<(u32, u32), Vec<usize>> = BTreeMap::new();
    for (place, one) in named.iter().enumerate().take(ASKED_MAX) {
        let wanted: Vec<(u32, u32)> = match one.how {
            How::Fork { older, older_key, newer, .. } if older != newer => {
                vec![(older, older_key)]
            }
            How::Late { later, .. } => {
                let written = table.writes(later).iter().take(KEYS_MAX);
                written.map(|write| (later, write.key)).collect()
            }
            How::Missed { missed, key, why: Why::Timestamp, .. } => vec![(missed, key)],
            _ => continue,
        };
        for (row, key) in wanted {
            let of_one = asked.entry((table.rows[row as usize].attempt, key)).or_default();
            if of_one.len() < ASKED_OF_ONE_MAX {
                of_one.push(place);
            }
        }
    }
    if asked.is_empty() {
        return;
    }
    for row in table.all().filter(|row| table.rows[*row as usize].committed()) {
        for read in table.reads(row) {
            for place in asked.get(&(read.writer, read.key)).into_iter().flatten() {
                offer(table, &mut named[*place], row);
            }
        }
    }
}

/// A row that saw what was asked for.
fn offer(table: &Table, named: &mut Named, row: u32) {
    if row == named.culprit {
        return;
    }
    let missed = |author: u32, key: u32| {
        let time = table.rows[author as usize].time;
        let read = table.reads(row).iter().find(|read| read.key == key);
        read.and_then(|read| table.seen(read)).is_some_and(|seen| seen < time)
    };
    match &mut named.how {
        How::Fork { newer, newer_key, witness, .. }
            if witness.is_none() && missed(*newer, *newer_key) =>
        {
            *witness = Some(row);
            if named.anomaly == Anomaly::NonRepeatableSnapshot {
                named.anomaly = Anomaly::LongFork;
            }
        }
        How::Late { earlier, witness, .. }
            if witness.is_none()
                && table
                    .writes(*earlier)
                    .iter()
                    .take(KEYS_MAX)
                    .any(|write| missed(*earlier, write.key)) =>
        {
            *witness = Some(row);
            named.anomaly = Anomaly::CausalReverse;
        }
        How::Missed { reader, missed, witness, .. } => {
            let same = |row: u32| {
                table.read_only(row)
                    && table.rows[row as usize].time == table.rows[*reader as usize].time
            };
            if witness == missed || (same(row) && !same(*witness)) {
                *witness = row;
            }
        }
        _ => {}
    }
}
