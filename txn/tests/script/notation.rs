//! How scripts write transactions, spans, times and what groups say.

use proto::command::{CommitRecord, PrepareRecord};
use proto::keys::Span;
use proto::peer::{PeerBody, PeerMessage};
use proto::request::{Age, LockMode, Outcome, ReplyBody};
use proto::{Command, Error, GroupId, Key, KeyRange, TxnId};
use std::str::FromStr;
use truetime::Timestamp;

/// `t3` is the first attempt of a transaction, `t3.2` its second. `t1` is the oldest, whatever the
/// attempt; numbers are hexadecimal, as they print.
#[derive(Clone, Copy)]
pub struct Txn(pub TxnId);

impl Txn {
    pub fn age(self) -> Age {
        let first = TxnId { client: self.0.client, seq: 1 };
        Age { start: Timestamp::from_micros(self.0.client), first }
    }
}

impl FromStr for Txn {
    type Err = String;
    fn from_str(name: &str) -> Result<Txn, String> {
        let number =
            |s: &str| u64::from_str_radix(s, 16).map_err(|_| format!("no transaction: {name}"));
        let rest = name.strip_prefix('t').ok_or_else(|| format!("no transaction: {name}"))?;
        let (client, seq) = rest.split_once('.').unwrap_or((rest, "1"));
        Ok(Txn(TxnId { client: number(client)?, seq: number(seq)? }))
    }
}

/// `g2`.
#[derive(Clone, Copy)]
pub struct Group(pub GroupId);

impl FromStr for Group {
    type Err = String;
    fn from_str(name: &str) -> Result<Group, String> {
        let number = name.strip_prefix('g').and_then(|rest| rest.parse().ok());
        number.map(|n| Group(GroupId(n))).ok_or_else(|| format!("no group: {name}"))
    }
}

/// `shared` or `exclusive`.
#[derive(Clone, Copy)]
pub struct Mode(pub LockMode);

impl FromStr for Mode {
    type Err = String;
    fn from_str(word: &str) -> Result<Mode, String> {
        match word {
            "shared" => Ok(Mode(LockMode::Shared)),
            "exclusive" => Ok(Mode(LockMode::Exclusive)),
            _ => Err(format!("no mode: {word}")),
        }
    }
}

/// `a` is a key, `a..c` a range, `a..` one without an end.
#[derive(Clone)]
pub struct Wanted(pub Span);

impl FromStr for Wanted {
    type Err = String;
    fn from_str(span: &str) -> Result<Wanted, String> {
        let key = |k: &str| Key::copy_from_slice(k.as_bytes());
        Ok(Wanted(match span.split_once("..") {
            Some((start, end)) => Span::Range(KeyRange { start: key(start), end: key(end) }),
            None => Span::Key(key(span)),
        }))
    }
}

/// In milliseconds.
pub fn time(t: Timestamp) -> String {
    match t {
        Timestamp::MAX => "never".into(),
        t => format!("{}.{:03}", t.micros() / 1_000, t.micros() % 1_000),
    }
}

pub fn spans<'a>(spans: impl IntoIterator<Item = &'a Span>) -> String {
    let text = |bytes: &Key| String::from_utf8_lossy(bytes).into_owned();
    let name = |span: &Span| match span {
        Span::Key(key) => text(key),
        Span::Range(range) => format!("{}..{}", text(&range.start), text(&range.end)),
    };
    spans.into_iter().map(name).collect::<Vec<_>>().join(" ")
}

fn keys<'a>(keys: impl IntoIterator<Item = &'a Key>) -> String {
    let keys: Vec<Span> = keys.into_iter().cloned().map(Span::Key).collect();
    if keys.is_empty() { "nothing".into() } else { spans(&keys) }
}

fn groups<'a>(groups: impl IntoIterator<Item = &'a GroupId>) -> String {
    groups.into_iter().map(GroupId::to_string).collect::<Vec<_>>().join(" ")
}

fn outcome(outcome: Outcome) -> String {
    match outcome {
        Outcome::Committed(at) => format!("committed at {}", time(at)),
        Outcome::Aborted => "aborted".into(),
    }
}

pub fn command(command: &Command) -> String {
    match command {
        Command::Noop => "noop".into(),
        Command::Commit(CommitRecord { txn, timestamp, writes, participants }) => {
            let with = participants.iter().map(|(g, at)| format!("; {g} prepared {}", time(*at)));
            let (at, written) = (time(*timestamp), keys(writes.iter().map(|w| &w.key)));
            format!("commit {txn} at {at}, writes {written}{}", with.collect::<String>())
        }
        Command::Abort { txn, at, participants } if participants.is_empty() => {
            format!("abort {txn} at {}", time(*at))
        }
        Command::Abort { txn, at, participants } => {
            format!("abort {txn} at {}, tell {}", time(*at), groups(participants))
        }
        Command::Prepare(PrepareRecord { txn, timestamp, coordinator, writes, reads, .. }) => {
            let (at, written) = (time(*timestamp), keys(writes.iter().map(|w| &w.key)));
            let reads = match reads.is_empty() {
                true => String::new(),
                false => format!(", has read {}", spans(reads)),
            };
            format!("prepare {txn} at {at} for {coordinator}, writes {written}{reads}")
        }
        Command::Decide { txn, outcome: o } => format!("{txn} is {}", outcome(*o)),
        Command::Forget { txns } => format!("forget {} outcomes", txns.len()),
    }
}

pub fn message(PeerMessage { from, to, txn, body }: &PeerMessage) -> String {
    let body = match body {
        PeerBody::Prepared(at) => format!("prepared at {}", time(*at)),
        PeerBody::Validated { at, until } => {
            format!("validated from {} to {}", time(*at), time(*until))
        }
        PeerBody::Refused => "refused".into(),
        PeerBody::Decided(o) => outcome(*o),
        PeerBody::Wound => "wound".into(),
        PeerBody::Acknowledged => "acknowledged".into(),
    };
    format!("{from} -> {to} {txn} {body}")
}

pub fn answer(answer: &Result<ReplyBody, Error>) -> String {
    match answer {
        Ok(ReplyBody::Committed(receipt)) => format!("committed at {}", time(receipt.timestamp)),
        Ok(ReplyBody::Outcome(o)) => outcome(*o),
        Ok(ReplyBody::SafeTime(at)) => format!("up to {}", time(*at)),
        Ok(_) => "done".into(),
        Err(Error::DeadlineExceeded(why)) => format!("deadline exceeded: {why}"),
        Err(error) => error.to_string(),
    }
}
