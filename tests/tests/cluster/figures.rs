//! What a history tells about the time after a fault.

use history::file::Lines;
use history::{Ending, Kind};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::BufReader;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Moments of a fault, on the clock of the histories.
#[derive(Clone, Copy, Debug)]
pub struct Moment(u64);

impl Moment {
    pub fn now() -> Moment {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970");
        Moment(since.as_micros() as u64)
    }

    pub fn elapsed(self) -> Duration {
        Duration::from_micros(Moment::now().0.saturating_sub(self.0))
    }
}

#[derive(Clone, Debug, Default)]
pub struct Figures {
    pub commits: usize,
    pub unknown: usize,
    /// The longest time without any commit that touches the time since the fault.
    pub stall: Duration,
    /// The longest such time for one row: until the last of them could be written again.
    pub back: Duration,
    /// The same, counted from the moment the fault was over, where it was not back before.
    pub after: Duration,
    /// Commits that were acknowledged after the fault was over.
    pub commits_after: usize,
}

impl Figures {
    /// Of a history, for a fault from `from` to `over`. Of what happened before only the last commit
    /// counts, and the end of the workload is none.
    pub fn read(file: &Path, from: Moment, over: Moment) -> Figures {
        let file = BufReader::new(File::open(file).expect("a history"));
        let lines = Lines::open(file).expect("a history");
        let zero_us = lines.header().zero_us;
        let mut figures = Figures::default();
        let mut rows: BTreeMap<_, Vec<u64>> = BTreeMap::new();
        let mut all = Vec::new();
        for op in lines.map(|op| op.expect("a line of a history")) {
            if op.kind != Kind::ReadWrite || op.writes.is_empty() {
                continue;
            }
            match op.ending {
                Ending::At(_) => figures.commits += 1,
                Ending::Unknown => figures.unknown += 1,
                Ending::Nothing => continue,
            }
            if op.ended_ns == u64::MAX {
                continue; // nobody was told
            }
            let ended_us = zero_us + op.ended_ns / 1_000;
            figures.commits_after += usize::from(ended_us > over.0);
            all.push(ended_us);
            for row in op.writes.into_keys() {
                rows.entry(row).or_default().push(ended_us);
            }
        }
        figures.stall = longest(&mut all, from);
        for ends in rows.values_mut() {
            figures.back = figures.back.max(longest(ends, from));
            // A row that was never written again has given way to another one.
            let first = ends.iter().find(|end| **end > over.0);
            let was_there = ends.first().is_some_and(|end| *end <= over.0);
            let after_us = first.filter(|_| was_there).map_or(0, |end| end - over.0);
            figures.after = figures.after.max(Duration::from_micros(after_us));
        }
        figures
    }
}

/// The longest gap between two of these that ends after `from`.
fn longest(ends: &mut [u64], from: Moment) -> Duration {
    ends.sort_unstable();
    let gaps = ends.windows(2).filter(|pair| pair[1] > from.0).map(|pair| pair[1] - pair[0]);
    gaps.max().map_or(Duration::ZERO, Duration::from_micros)
}

/// How long faults last that last.
pub fn fault_lasts() -> Duration {
    let seconds = std::env::var("MERIDIAN_FAULT_SECONDS").ok().and_then(|text| text.parse().ok());
    Duration::from_secs(seconds.unwrap_or(2))
}
