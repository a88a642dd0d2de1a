//! `meridian check history`: what clients did and saw, judged.

use crate::exit::Exit;
use ::history::file::{Header, Lines, Malformed};
use ::history::{Actor, Checker, Judgement, Kind, Story, Violation};
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};
use sim::checkers::conservation;
use std::fs::File;
use std::io::{self, BufReader, IsTerminal, Write};
use std::path::{Path, PathBuf};

pub const AFTER_HELP: &str = "\
The file has a JSON object on every line: one says what it is, each other one is a transaction as its
client saw it. `meridian bench transfer --history FILE` writes such a file, and so can any program or
editor; docs/checking.md has the format. Checked is strict serializability: the committed
transactions, one after the other in the order of their timestamps, give what every client read, and
a transaction that began after another was acknowledged comes after it.

What is broken is called by its name and told with the two or three transactions that show it:

  dirty read                    of what was rolled back, or of what nobody wrote
  lost update                   written over without having been seen
  write skew                    two read what the other one then wrote
  stale read                    misses what was acknowledged before it began
  causal reverse                the second of two is seen without the first
  long fork                     two readers see two writes in opposite orders
  non-repeatable snapshot       fits no instant, or has another answer when asked again
  lost write                    acknowledged, and never seen by anybody
  wrong order of timestamps     they contradict what was read, or who was acknowledged first
  two writes at one timestamp   of the same key
  list out of order             its elements are not those appended, in their order

A bank's history (`accounts` and `total` in the first line) is also added up in every snapshot.

Examples:
  meridian bench transfer --data ./u --replicas 3 --seconds 10 --history h.jsonl
  meridian check history h.jsonl && echo 'in order'
  meridian check history h.jsonl --stories 1 --json | jq .anomalies

  # The same with a clock that gains 2 ms a second, says that it is right to 5 ms, and does not look:
  meridian bench transfer --data ./wrong --replicas 3 --seconds 15 --history h.jsonl \\
    --clock simulated:epsilon=5ms --clock n2=simulated:epsilon=5ms,offset=4ms,drift=2000,evict=off
  meridian check history h.jsonl

The exit code is 1 when a promise was broken, or the file is not a history.";

/// Bytes between two movements of the progress bar.
const BYTES_PER_STEP: u64 = 1 << 18;

/// Arguments of `meridian check history`.
#[derive(Debug, Args)]
pub struct Arguments {
    /// The recorded history.
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// How many stories of each anomaly are told; all are counted.
    #[arg(long, value_name = "NUMBER", default_value_t = 3)]
    stories: usize,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

/// Runs the command.
///
/// # Errors
/// When the file cannot be read, or a promise was broken.
pub fn run(arguments: Arguments) -> Result<(), Exit> {
    let verdict = judge(&arguments.file)?;
    let out = &mut io::stdout();
    match arguments.json {
        true => writeln!(out, "{:#}", verdict.object(arguments.stories))?,
        false => verdict.print(arguments.stories, out)?,
    }
    match verdict.is_broken() {
        false => Ok(()),
        true if arguments.json => Err(Exit::Failed("a promise was broken".into())),
        true => Err(Exit::Failed("a promise was broken; see above".into())),
    }
}

/// Reads a file to its end, and judges it.
fn judge(path: &Path) -> Result<Verdict, Exit> {
    let shown = path.display();
    let unreadable = |error: io::Error| Exit::failed(format!("{shown}: {error}"));
    let file = File::open(path).map_err(unreadable)?;
    let bar = bar(file.metadata().map_err(unreadable)?.len());
    let read = read(BufReader::with_capacity(1 << 16, file), &bar);
    let (header, checker, sums) =
        read.map_err(|malformed| Exit::failed(format!("{shown}:{malformed}")))?;
    bar.set_message("judging");
    let judgement = checker.judge();
    bar.finish_and_clear();
    Ok(Verdict { header, judgement, sums })
}

type Sums = Result<(), Violation>;

fn read(file: impl io::BufRead, bar: &ProgressBar) -> Result<(Header, Checker, Sums), Malformed> {
    let mut lines = Lines::open(file)?;
    let header = lines.header().clone();
    let mut checker = Checker::new(header.zero_us);
    let mut sums = Ok(());
    while let Some(op) = lines.next() {
        let op = op?;
        checker.add(&op).map_err(|twice| lines.malformed(twice))?;
        if header.accounts > 0 && sums.is_ok() {
            sums = conservation::check(std::slice::from_ref(&op), header.accounts, header.total);
        }
        if lines.bytes() >= bar.position() + BYTES_PER_STEP {
            bar.set_position(lines.bytes());
        }
    }
    Ok((header, checker, sums))
}

fn bar(bytes: u64) -> ProgressBar {
    if !io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("{bar:40} {bytes}/{total_bytes} {msg}");
    ProgressBar::new(bytes).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}

/// What a history came to.
struct Verdict {
    header: Header,
    judgement: Judgement,
    /// Whether the accounts added up.
    sums: Sums,
}

impl Verdict {
    fn is_broken(&self) -> bool {
        let in_order = self.judgement.out_of_order() == 0;
        self.sums.is_err() || !in_order || !self.judgement.anomalies().is_empty()
    }

    /// Everything for people.
    fn print(&self, stories: usize, out: &mut dyn Write) -> io::Result<()> {
        let counts = self.judgement.counts();
        write!(
            out,
            "transactions    {} committed, {} read-only, {} unknown",
            counts.committed, counts.reads, counts.unknown
        )?;
        match counts.unknown_seen {
            0 => writeln!(out)?,
            seen => writeln!(out, " ({seen} of them read from, so committed)")?,
        }
        if !self.header.clocks.is_empty() {
            let clocks = self.header.clocks.iter().map(|(whose, spec)| format!("{whose}={spec}"));
            writeln!(out, "clocks          {}", clocks.collect::<Vec<_>>().join(" "))?;
        }
        self.print_order(out)?;
        self.print_stories(stories, out)?;
        if self.header.accounts > 0 {
            match &self.sums {
                Ok(()) => writeln!(out, "conservation: no violation")?,
                Err(violation) => writeln!(out, "VIOLATION of {violation}")?,
            }
        }
        let all = counts.all;
        match self.is_broken() {
            false => writeln!(out, "{all} transactions, no violation"),
            true => writeln!(out, "{all} transactions, VIOLATIONS"),
        }
    }

    /// Acknowledged before begun, and the timestamps say otherwise.
    fn print_order(&self, out: &mut dyn Write) -> io::Result<()> {
        let Some(first) = self.judgement.first_out_of_order() else {
            return writeln!(out, "external_consistency: no violation");
        };
        let (few, counts) = (self.judgement.out_of_order(), self.judgement.counts());
        let share = few as f64 * 1e3 / (counts.committed + counts.reads).max(1) as f64;
        writeln!(out, "VIOLATION of external_consistency (X7/X8): {}", first.headline)?;
        writeln!(out, "  {few} transactions came out of order, {share:.1} of 1,000; the first:")?;
        let told = first.to_string();
        told.lines().skip(1).try_for_each(|line| writeln!(out, "{line}"))
    }

    fn print_stories(&self, stories: usize, out: &mut dyn Write) -> io::Result<()> {
        let anomalies = self.judgement.anomalies();
        if anomalies.is_empty() {
            return writeln!(out, "history: no violation");
        }
        for story in self.judgement.stories_of_each(stories) {
            writeln!(out, "VIOLATION of history ({}): {story}", story.anomaly.rule())?;
        }
        let found: Vec<String> =
            anomalies.iter().map(|(anomaly, count)| format!("{anomaly} {count}")).collect();
        writeln!(out, "at fault        {}", found.join(", "))?;
        if anomalies.values().any(|count| *count > stories) {
            writeln!(out, "                {stories} of each told; --stories tells more")?;
        }
        Ok(())
    }

    /// The same for programs.
    fn object(&self, stories: usize) -> Value {
        let counts = self.judgement.counts();
        let anomalies = self.judgement.anomalies();
        let anomalies: serde_json::Map<String, Value> =
            anomalies.iter().map(|(name, count)| (name.to_string(), json!(count))).collect();
        json!({
            "broken": self.is_broken(),
            "transactions": {
                "all": counts.all,
                "committed": counts.committed,
                "read_only": counts.reads,
                "unknown": counts.unknown,
                "unknown_but_read_from": counts.unknown_seen,
                "rolled_back": counts.aborted,
            },
            "clocks": self.header.clocks,
            "out_of_order": self.judgement.out_of_order(),
            "anomalies": anomalies,
            "stories": self.judgement.stories_of_each(stories).map(object).collect::<Vec<_>>(),
            "conservation": self.sums.as_ref().err().map(|violation| violation.what.clone()),
        })
    }
}

fn object(story: Story) -> Value {
    json!({
        "anomaly": story.anomaly.name(),
        "rule": story.anomaly.rule(),
        "headline": story.headline,
        "transactions": story.actors.iter().map(actor).collect::<Vec<_>>(),
        "why": story.why,
    })
}

fn actor(actor: &Actor) -> Value {
    let kind = match actor.kind {
        Kind::ReadWrite => "read_write",
        Kind::Strong => "strong",
        Kind::Stale => "stale",
        Kind::Session => "session",
    };
    json!({
        "name": actor.name,
        "txn": actor.txn.map(|txn| txn.to_string()),
        "client": actor.client,
        "kind": kind,
        "began_ns": actor.began_ns,
        "ended_ns": actor.ended_ns,
        "at_us": actor.at.map(|at| at.micros()),
        "did": actor.did,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use ::history::{Cell, Ending, Operation};
    use proto::TxnId;
    use std::collections::BTreeMap;
    use truetime::Timestamp;

    /// A made-up transaction that wrote `k`, or one that read it.
    fn op(seq: u64, began_ns: u64, ended_ns: u64, at: u64, write: Option<i64>) -> Operation {
        let txn = TxnId { client: 0x1f, seq };
        let cell = |number| ("k".into(), Cell::number(txn, number));
        Operation {
            client: 3,
            txn,
            kind: if write.is_some() { Kind::ReadWrite } else { Kind::Strong },
            began_ns,
            ended_ns,
            ending: Ending::At(Timestamp::from_micros(at)),
            writes: write.map(cell).into_iter().collect(),
            reads: BTreeMap::new(),
        }
    }

    fn judged(accounts: usize, ops: &[Operation]) -> Verdict {
        let mut text = Vec::new();
        let header = Header { accounts, total: 10, ..Header::default() };
        ::history::file::write_header(&mut text, &header).unwrap();
        ops.iter().for_each(|op| ::history::file::write_operation(&mut text, op).unwrap());
        let (header, checker, sums) = read(&text[..], &ProgressBar::hidden()).unwrap();
        Verdict { header, judgement: checker.judge(), sums }
    }

    fn printed(verdict: &Verdict, stories: usize) -> String {
        let mut out = Vec::new();
        verdict.print(stories, &mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn an_orderly_history_passes() {
        let ops = [op(1, 0, 10, 5, Some(1)), op(2, 11, 20, 6, Some(2)), op(3, 21, 22, 6, None)];
        let verdict = judged(2, &ops);
        let text = printed(&verdict, 3);
        assert!(!verdict.is_broken(), "{text}");
        assert!(text.contains("2 committed, 1 read-only, 0 unknown"), "{text}");
        assert!(text.ends_with("3 transactions, no violation\n"), "{text}");
        assert_eq!(verdict.object(3)["broken"], json!(false));
    }

    #[test]
    fn a_timestamp_that_goes_back_is_named_with_both_transactions() {
        let ops = [op(1, 0, 1_000_000, 9, Some(1)), op(2, 3_000_000, 4_000_000, 5, Some(2))];
        let verdict = judged(0, &ops);
        let text = printed(&verdict, 3);
        for words in [
            "VIOLATION of external_consistency (X7/X8): t1f.1 ended",
            "1 transactions came out of order, 500.0 of 1,000",
            "T1 t1f.1 of client 3, read-write, committed at 0.009 ms (s9)",
            "T2 began 2.000 ms after T1 had ended, and its timestamp is 4µs below",
            "VIOLATION of history (X7/X8): wrong order of timestamps",
            "2 transactions, VIOLATIONS",
        ] {
            assert!(text.contains(words), "no '{words}' in:\n{text}");
        }
        assert!(verdict.is_broken());
    }

    #[test]
    fn few_stories_are_told_and_all_are_counted() {
        let reader = |seq| {
            let mut reader = op(seq, 30, 40, 9, None);
            reader.reads.insert("k".into(), None);
            reader
        };
        let verdict = judged(0, &[op(1, 0, 10, 5, Some(4)), reader(2), reader(3)]);
        let text = printed(&verdict, 1);
        for words in [
            "VIOLATION of history (P1): lost write: t1f.2 did not see what t1f.1 wrote to k",
            "at fault        lost write 2\n",
            "1 of each told",
        ] {
            assert!(text.contains(words), "no '{words}' in:\n{text}");
        }
        assert_eq!(text.matches("VIOLATION of").count(), 1, "{text}");
        let object = verdict.object(2);
        assert_eq!(object["anomalies"]["lost write"], json!(2));
        assert_eq!(object["stories"][1]["transactions"][0]["txn"], json!("t1f.1"));
        assert_eq!(object["stories"][0]["transactions"][0]["at_us"], json!(5));
    }

    #[test]
    fn a_wrong_sum_is_named() {
        let written = op(1, 0, 10, 5, Some(4));
        let mut reader = op(2, 30, 40, 9, None);
        reader.reads.insert("k".into(), written.writes.values().next().cloned());
        let verdict = judged(1, &[written, reader]);
        let text = printed(&verdict, 3);
        assert!(text.contains("VIOLATION of conservation"), "{text}");
        assert!(text.contains("add up to 4") && verdict.is_broken(), "{text}");
    }

    #[test]
    fn a_writer_that_is_there_twice_is_named_with_its_line() {
        let mut text = Vec::new();
        ::history::file::write_header(&mut text, &Header::default()).unwrap();
        for _ in 0..2 {
            ::history::file::write_operation(&mut text, &op(1, 0, 1, 1, Some(1))).unwrap();
        }
        let malformed = read(&text[..], &ProgressBar::hidden()).err().expect("it is there twice");
        assert_eq!(malformed.to_string(), "3: the transaction t1f.1 is there twice");
    }
}
