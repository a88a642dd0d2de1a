//! `meridian check certificates`: what commits came with, verified without the database.

use crate::exit::Exit;
use ::history::certificates::file::Lines;
use ::history::certificates::{Checker, Header, Judgement, Objection};
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use proto::seal::fingerprint;
use serde_json::{Value, json};
use std::fs::File;
use std::io::{self, BufRead, BufReader, IsTerminal, Write};
use std::path::{Path, PathBuf};
use truetime::key::Key;
use truetime::providers::read_key_file;

pub const AFTER_HELP: &str = "\
A commit's certificate says what the coordinator's clock showed when the request arrived and when its
commit wait ended, and when the other groups had prepared. `meridian bench transfer --certificates FILE`
writes them down, with what the clients observed: when each transaction began and was acknowledged.
docs/certificates.md has the format, and what a certificate proves.

Each is verified alone: its timestamp is above every prepare, and above the time of its arrival; it had
passed when the wait ended; the clock had a bound and is that of the leader; the parts of its course fit
into the whole. Then together: no transaction twice, no timestamp twice in a group, higher timestamps
under later leaders, and whoever was acknowledged before another began has the lower timestamp.

With the key of the universe, which is the file certificate.key in its folder, no byte of a certificate
can have been changed, and none can have been made up. Without it, only what contradicts itself or the
others is found.

Examples:
  meridian bench transfer --data ./u --replicas 3 --certificates c.jsonl
  meridian check certificates c.jsonl
  meridian check certificates c.jsonl --key ./u/certificate.key && echo 'all sealed by ./u'
  meridian check certificates c.jsonl --json | jq .flaws

The exit code is 1 when a certificate is wrong, or the file is none.";

/// Bytes between two movements of the progress bar.
const BYTES_PER_STEP: u64 = 1 << 18;

/// Arguments of `meridian check certificates`.
#[derive(Debug, Args)]
pub struct Arguments {
    /// The recorded certificates.
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// The key of the universe that sealed them: certificate.key in its folder.
    #[arg(long, value_name = "FILE")]
    key: Option<PathBuf>,
    /// How many stories of each flaw are told; all are counted.
    #[arg(long, value_name = "NUMBER", default_value_t = 3)]
    stories: usize,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

/// Runs the command.
///
/// # Errors
/// When a file cannot be read, or a certificate is wrong.
pub fn run(arguments: Arguments) -> Result<(), Exit> {
    let key = arguments.key.as_deref().map(read_key).transpose()?;
    let verdict = judge(&arguments.file, key)?;
    let out = &mut io::stdout();
    match arguments.json {
        true => writeln!(out, "{:#}", verdict.object(arguments.stories))?,
        false => verdict.print(arguments.stories, out)?,
    }
    match verdict.is_good() {
        true => Ok(()),
        false if arguments.json => Err(Exit::Failed("a certificate is wrong".into())),
        false => Err(Exit::Failed("a certificate is wrong; see above".into())),
    }
}

fn read_key(path: &Path) -> Result<Key, Exit> {
    read_key_file(path).map_err(|error| Exit::failed(format!("{}: {error}", path.display())))
}

/// Reads a file to its end, and judges it.
fn judge(path: &Path, key: Option<Key>) -> Result<Verdict, Exit> {
    let shown = path.display();
    let unreadable = |error: io::Error| Exit::failed(format!("{shown}: {error}"));
    let file = File::open(path).map_err(unreadable)?;
    let bar = bar(file.metadata().map_err(unreadable)?.len());
    let verdict = read(BufReader::with_capacity(1 << 16, file), key, &bar);
    bar.finish_and_clear();
    verdict.map_err(|what| Exit::failed(format!("{shown}:{what}")))
}

fn read(file: impl BufRead, key: Option<Key>, bar: &ProgressBar) -> Result<Verdict, String> {
    let mut lines = Lines::open(file).map_err(|malformed| malformed.to_string())?;
    let header = lines.header().clone();
    if let Some(key) = &key
        && !header.key.is_empty()
        && header.key != fingerprint(key)
    {
        return Err(format!(
            "1: the certificates are sealed with the key {}, and this is the key {}\nHint: \
             --key is the file certificate.key in the folder of the universe {}",
            header.key,
            fingerprint(key),
            header.universe
        ));
    }
    let mut checker = Checker::new(key);
    while let Some(entry) = lines.next() {
        let entry = entry.map_err(|malformed| malformed.to_string())?;
        checker.add(lines.line(), &entry);
        if lines.bytes() >= bar.position() + BYTES_PER_STEP {
            bar.set_position(lines.bytes());
        }
    }
    bar.set_message("comparing");
    Ok(Verdict { header, judgement: checker.judge() })
}

fn bar(bytes: u64) -> ProgressBar {
    if !io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("{bar:40} {bytes}/{total_bytes} {msg}");
    ProgressBar::new(bytes).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}

/// What a file came to.
struct Verdict {
    header: Header,
    judgement: Judgement,
}

impl Verdict {
    fn is_good(&self) -> bool {
        self.judgement.flaws().is_empty()
    }

    fn seals(&self) -> String {
        let counts = self.judgement.counts();
        if self.judgement.with_key() {
            return match counts.certificates {
                0 => "there is nothing to verify".into(),
                all => format!("verified with the key, {} of {all} have one", counts.sealed),
            };
        }
        "not verified: without --key, what was made up and contradicts nothing passes".into()
    }

    /// Everything for people.
    fn print(&self, stories: usize, out: &mut dyn Write) -> io::Result<()> {
        let (counts, flaws) = (self.judgement.counts(), self.judgement.flaws());
        if !self.header.universe.is_empty() {
            writeln!(out, "universe        {}", self.header.universe)?;
        }
        write!(
            out,
            "commits         {}, {} with a certificate",
            counts.commits, counts.certificates
        )?;
        match counts.rejected {
            0 => writeln!(out)?,
            rejected => writeln!(out, ", {rejected} of them wrong by themselves")?,
        }
        writeln!(out, "seals           {}", self.seals())?;
        for objection in self.judgement.objections(stories) {
            writeln!(out, "WRONG: {objection}")?;
        }
        if flaws.is_empty() {
            return writeln!(out, "{} certificates, nothing wrong", counts.certificates);
        }
        let found: Vec<String> = flaws.iter().map(|(flaw, n)| format!("{flaw} {n}")).collect();
        writeln!(out, "at fault        {}", found.join(", "))?;
        if flaws.values().any(|count| *count > stories) {
            writeln!(out, "                {stories} of each told; --stories tells more")?;
        }
        writeln!(out, "{} certificates, WRONG", counts.certificates)
    }

    /// The same for programs.
    fn object(&self, stories: usize) -> Value {
        let counts = self.judgement.counts();
        let flaws = self.judgement.flaws();
        let flaws: serde_json::Map<String, Value> =
            flaws.iter().map(|(flaw, count)| (flaw.to_string(), json!(count))).collect();
        let object = |objection: &Objection| {
            json!({
                "flaw": objection.flaw.name(),
                "rule": objection.flaw.rule(),
                "lines": objection.lines,
                "story": objection.story,
            })
        };
        json!({
            "good": self.is_good(),
            "universe": self.header.universe,
            "commits": counts.commits,
            "certificates": counts.certificates,
            "rejected": counts.rejected,
            "sealed": counts.sealed,
            "seals_verified": self.judgement.with_key(),
            "flaws": flaws,
            "stories": self.judgement.objections(stories).map(object).collect::<Vec<_>>(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ::history::certificates::{Entry, file};
    use bytes::Bytes;
    use proto::request::{Certificate, Provenance, Timing};
    use proto::{Ballot, GroupId, NodeId, TxnId};
    use truetime::{Interval, Timestamp};

    fn key(digit: &str) -> Key {
        Key::from_hex(&digit.repeat(64)).expect("64 digits")
    }

    /// Committed at 1,041 µs after it arrived at 1,000 µs, by a clock that is right to 40 µs.
    fn entry(seq: u64, status: &str) -> Entry {
        let t = Timestamp::from_micros;
        let now = |at: u64| Interval::new(t(at - 40), t(at + 40));
        let mut certificate = Certificate {
            txn: TxnId { client: 0x1f, seq },
            timestamp: t(1_041 + seq),
            prepared: Vec::new(),
            arrived: now(1_000),
            waited: now(1_090 + seq),
            provenance: Provenance {
                node: NodeId(1),
                provider: "local".into(),
                status: status.into(),
            },
            group: GroupId(1),
            ballot: Ballot { round: 3, node: NodeId(1) },
            timing: Timing { epsilon_us: 40, ..Timing::default() },
            seal: Bytes::new(),
        };
        certificate.seal(&key("1"));
        Entry {
            client: 3,
            txn: certificate.txn,
            timestamp: certificate.timestamp,
            began_ns: 0,
            acknowledged_ns: 200_000,
            certificate: Some(certificate),
        }
    }

    fn judged(key: Option<Key>, entries: &[Entry]) -> Result<Verdict, String> {
        let mut text = Vec::new();
        let sealed_with = fingerprint(&super::tests::key("1"));
        let header = Header { universe: "00ab".into(), key: sealed_with, ..Header::default() };
        file::write_header(&mut text, &header).unwrap();
        entries.iter().for_each(|entry| file::write_entry(&mut text, entry).unwrap());
        read(&text[..], key, &ProgressBar::hidden())
    }

    fn printed(verdict: &Verdict) -> String {
        let mut out = Vec::new();
        verdict.print(1, &mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn good_ones_pass_and_whether_seals_were_verified_is_said() {
        let entries = [entry(1, "synchronized"), entry(2, "holdover")];
        let verdict = judged(Some(key("1")), &entries).unwrap();
        let wanted = "universe        00ab\ncommits         2, 2 with a certificate\n\
                      seals           verified with the key, 2 of 2 have one\n\
                      2 certificates, nothing wrong\n";
        assert_eq!(printed(&verdict), wanted);
        assert_eq!(verdict.object(1)["seals_verified"], json!(true));
        let without = judged(None, &entries).unwrap();
        assert!(without.is_good(), "{}", printed(&without));
        assert!(printed(&without).contains("not verified: without --key"), "{}", printed(&without));
        assert_eq!(without.object(1)["seals_verified"], json!(false));
    }

    #[test]
    fn a_flaw_is_named_with_its_line_and_all_are_counted() {
        let entries = [entry(1, "holdover"), entry(2, "broken"), entry(3, "broken")];
        let verdict = judged(Some(key("1")), &entries).unwrap();
        let text = printed(&verdict);
        for words in [
            "3, 3 with a certificate, 2 of them wrong by themselves\n",
            "WRONG: clock without a bound (T5/T6), line 3: the clock of t1f.2 was `local`, and `broken`",
            "at fault        clock without a bound 2\n",
            "1 of each told",
            "3 certificates, WRONG\n",
        ] {
            assert!(text.contains(words), "no '{words}' in:\n{text}");
        }
        let object = verdict.object(9);
        assert_eq!(object["flaws"]["clock without a bound"], json!(2));
        assert_eq!(object["stories"][1]["lines"], json!([4]));
        assert_eq!((&object["good"], &object["rejected"]), (&json!(false), &json!(2)));
    }

    #[test]
    fn a_key_of_another_universe_is_refused_before_all_else() {
        let refused = judged(Some(key("2")), &[entry(1, "holdover")]).err().expect("another key");
        assert!(refused.starts_with("1: the certificates are sealed with the key "), "{refused}");
        assert!(refused.contains("Hint: --key is the file certificate.key"), "{refused}");
    }

    #[test]
    fn what_is_no_file_of_certificates_is_refused_with_its_line() {
        let bar = ProgressBar::hidden();
        let refused = read(&b"{\"format\":\"meridian-history\",\"version\":2}\n"[..], None, &bar);
        let wanted = "1: the format is meridian-history, not meridian-certificates";
        assert_eq!(refused.err().as_deref(), Some(wanted));
    }
}
