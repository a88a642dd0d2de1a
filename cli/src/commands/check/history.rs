//! `meridian check history`: what clients did and saw, judged by the checkers of the simulator.

use crate::exit::Exit;
use crate::history::{self, Header};
use ::history::{Ending, Operation, Violation};
use clap::Args;
use sim::checkers::external_consistency::{self, Disorder};
use sim::checkers::{conservation, snapshot};
use sql::timestamp_text;
use std::io::{self, Write};
use std::path::PathBuf;

pub const AFTER_HELP: &str = "\
The file is what `meridian bench transfer --history FILE` has recorded. Checked is, by the code that
judges simulated runs:

  external_consistency   a transaction that began after another was acknowledged has the higher
                         timestamp, and a strong read the same or a higher one
  snapshot               every read is what the transactions say, in the order of their timestamps
  conservation           all accounts together hold the same in every snapshot

Examples:
  meridian bench transfer --data ./u --replicas 3 --seconds 10 --history h.jsonl
  meridian check history h.jsonl && echo 'in order'

  # The same with a clock that gains 2 ms a second, says that it is right to 5 ms, and does not look:
  meridian bench transfer --data ./wrong --replicas 3 --seconds 15 --history h.jsonl \\
    --clock simulated:epsilon=5ms --clock n2=simulated:epsilon=5ms,offset=4ms,drift=2000,evict=off
  meridian check history h.jsonl

The exit code is 1 when a promise was broken, or the file is not a history.";

/// Arguments of `meridian check history`.
#[derive(Debug, Args)]
pub struct Arguments {
    /// The recorded history.
    #[arg(value_name = "FILE")]
    file: PathBuf,
}

/// Runs the command.
///
/// # Errors
/// When the file cannot be read, or a promise was broken.
pub fn run(arguments: Arguments) -> Result<(), Exit> {
    let read = history::read(&arguments.file);
    let (header, history) = read.map_err(|malformed| Exit::Failed(malformed.0))?;
    match judge(&header, &history, &mut io::stdout())? {
        0 => Ok(()),
        _ => Err(Exit::Failed("a promise was broken; see above".into())),
    }
}

/// Prints what every checker says; how many of them object.
fn judge(header: &Header, history: &[Operation], out: &mut dyn Write) -> io::Result<u32> {
    let count = |wanted: fn(&&Operation) -> bool| history.iter().filter(wanted).count();
    let committed = count(|op| matches!(op.ending, Ending::At(_)) && !op.read_only());
    let reads = count(|op| matches!(op.ending, Ending::At(_)) && op.read_only());
    let unknown = count(|op| op.ending == Ending::Unknown);
    writeln!(out, "transactions    {committed} committed, {reads} read-only, {unknown} unknown")?;
    let clocks: Vec<String> =
        header.clocks.iter().map(|(whose, spec)| format!("{whose}={spec}")).collect();
    writeln!(out, "clocks          {}", clocks.join(" "))?;

    let mut objections = 0;
    let disorders = external_consistency::disorders(history);
    let verdict = external_consistency::check(history);
    objections += say(out, "external_consistency", &verdict)?;
    if let Some(first) = disorders.first() {
        let few = disorders.len();
        let share = few as f64 * 1e3 / (committed + reads).max(1) as f64;
        writeln!(out, "  {few} transactions came out of order, {share:.1} of 1,000; the first:")?;
        explain(out, first)?;
    }
    if unknown == 0 {
        objections += say(out, "snapshot", &snapshot::check(history))?;
    } else {
        writeln!(out, "snapshot        not judged: {unknown} outcomes are not known")?;
    }
    let sums = conservation::check(history, header.accounts, header.total);
    objections += say(out, "conservation", &sums)?;
    let all = history.len();
    match objections {
        0 => writeln!(out, "{all} transactions, no violation")?,
        _ => writeln!(out, "{all} transactions, VIOLATIONS")?,
    }
    Ok(objections)
}

fn say(out: &mut dyn Write, name: &str, verdict: &Result<(), Violation>) -> io::Result<u32> {
    match verdict {
        Ok(()) => writeln!(out, "{name}: no violation").map(|()| 0),
        Err(violation) => writeln!(out, "VIOLATION of {violation}").map(|()| 1),
    }
}

/// Both transactions as a person would tell it; times are those of the recording.
fn explain(out: &mut dyn Write, disorder: &Disorder<'_>) -> io::Result<()> {
    let Disorder { earlier, earlier_at, later, later_at } = *disorder;
    let ms = |ns: u64| ns as f64 / 1e6;
    for (name, op, at) in [("T1", earlier, earlier_at), ("T2", later, later_at)] {
        let what = match op.read_only() {
            true => format!("reads at {}", timestamp_text(at)),
            false => {
                let keys: Vec<_> =
                    op.writes.keys().map(|key| String::from_utf8_lossy(key)).collect();
                format!("writes {}, committed at {}", keys.join(" and "), timestamp_text(at))
            }
        };
        writeln!(out, "  {name} {} of client {}: {what}", op.txn, op.client)?;
        let (began, ended) = (ms(op.began_ns), ms(op.ended_ns));
        writeln!(out, "     began at {began:.3} ms, ended at {ended:.3} ms")?;
    }
    let gap = ms(later.began_ns - earlier.ended_ns);
    let below = earlier_at.since(later_at);
    writeln!(
        out,
        "  T2 began {gap:.3} ms after T1 had ended, and its timestamp is {below:?} below T1's"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::tests::{header, op};

    fn judged(history: &[Operation]) -> (u32, String) {
        let mut out = Vec::new();
        let objections = judge(&header(), history, &mut out).unwrap();
        (objections, String::from_utf8(out).unwrap())
    }

    #[test]
    fn an_orderly_history_passes() {
        let (objections, text) =
            judged(&[op(1, 0, 10, 5, Some(1)), op(2, 11, 20, 6, Some(2)), op(3, 21, 22, 6, None)]);
        assert_eq!(objections, 0, "{text}");
        assert!(text.contains("2 committed, 1 read-only, 0 unknown"), "{text}");
        assert!(text.ends_with("3 transactions, no violation\n"), "{text}");
    }

    #[test]
    fn a_timestamp_that_goes_back_is_named_with_both_transactions() {
        let (objections, text) =
            judged(&[op(1, 0, 1_000_000, 9, Some(1)), op(2, 3_000_000, 4_000_000, 5, Some(2))]);
        assert_eq!(objections, 1, "{text}");
        for words in [
            "VIOLATION of external_consistency (X7/X8): t1f.1 ended",
            "1 transactions came out of order, 500.0 of 1,000",
            "T1 t1f.1 of client 3: writes k, committed at 1970-",
            "T2 began 2.000 ms after T1 had ended, and its timestamp is 4µs below",
        ] {
            assert!(text.contains(words), "no '{words}' in:\n{text}");
        }
    }

    #[test]
    fn a_lost_write_and_a_wrong_sum_are_named() {
        let mut reader = op(2, 30, 40, 9, None);
        let written = op(1, 0, 10, 5, Some(4));
        reader.reads.insert("k".into(), None);
        let (_, text) = judged(&[written.clone(), reader.clone()]);
        assert!(text.contains("VIOLATION of snapshot (R1/X1/P1)"), "{text}");
        let other = Operation {
            writes: [("l".into(), ::history::Cell::number(op(3, 0, 1, 5, None).txn, 4))].into(),
            ..op(3, 0, 1, 5, None)
        };
        reader.reads = written
            .writes
            .iter()
            .chain(&other.writes)
            .map(|(k, v)| (k.clone(), Some(v.clone())))
            .collect();
        let (_, text) = judged(&[written.clone(), other, reader]);
        assert!(text.contains("VIOLATION of conservation"), "{text}");
        assert!(text.contains("8"), "{text}");
        let unknown = Operation { ending: Ending::Unknown, ..op(4, 0, 1, 0, Some(1)) };
        let (objections, text) = judged(&[written, unknown]);
        assert!(objections == 0 && text.contains("not judged: 1 outcomes"), "{text}");
    }
}
