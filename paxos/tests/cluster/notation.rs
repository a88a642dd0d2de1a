//! How scripts write messages, writes and positions.

use paxos::{Entry, HardState, Message, Payload, Position, Write};
use proto::{Ballot, Slot};
use truetime::Timestamp;

/// Absolute time when a script begins.
pub const START_US: u64 = 1_000_000_000;

/// Since the script's beginning; `-` for a time that says nothing.
pub fn time(t: Timestamp) -> String {
    match t {
        Timestamp::MIN => "-".into(),
        Timestamp::MAX => "never".into(),
        t => {
            let us = t.micros() as i64 - START_US as i64;
            match us % 1_000 {
                0 => format!("{}ms", us / 1_000),
                _ => format!("{:.1}ms", us as f64 / 1_000.0),
            }
        }
    }
}

pub fn payload(payload: &Payload) -> String {
    match payload {
        Payload::Noop => "noop".into(),
        Payload::Command(bytes) => String::from_utf8_lossy(bytes).into_owned(),
        Payload::Configuration(configuration) => format!("({configuration})"),
    }
}

/// `#7 b2.n1 x`.
pub fn entry(slot: Slot, entry: &Entry) -> String {
    format!("{slot} {} {}", entry.ballot, payload(&entry.payload))
}

pub fn position(position: Position) -> String {
    match position {
        Position::ORIGIN => "origin".into(),
        position => position.to_string(),
    }
}

/// A whole log, runs of one ballot shortened: `#1..#3 b1.n1, #4 b2.n3`.
pub fn log<'a>(entries: impl IntoIterator<Item = (Slot, &'a Entry)>) -> String {
    let mut runs: Vec<(Ballot, Slot, Slot)> = Vec::new();
    for (slot, entry) in entries {
        match runs.last_mut() {
            Some((ballot, _, last)) if *ballot == entry.ballot => *last = slot,
            _ => runs.push((entry.ballot, slot, slot)),
        }
    }
    let run = |(ballot, first, last): &(Ballot, Slot, Slot)| match first == last {
        true => format!("{first} {ballot}"),
        false => format!("{first}..{last} {ballot}"),
    };
    match runs.is_empty() {
        true => "empty".into(),
        false => runs.iter().map(run).collect::<Vec<_>>().join(", "),
    }
}

/// The word by which scripts choose messages of one kind.
pub fn kind(message: &Message) -> &'static str {
    match message {
        Message::Canvass { .. } => "canvass",
        Message::Canvassed { .. } => "canvassed",
        Message::Prepare { .. } => "prepare",
        Message::Promise { .. } => "promise",
        Message::Reject { .. } => "reject",
        Message::Accept { .. } => "accept",
        Message::Accepted { .. } => "accepted",
        Message::Gap { .. } => "gap",
        Message::Durable { .. } => "durable",
        Message::Chunk { .. } => "chunk",
        Message::ChunkTaken { .. } => "chunk-taken",
        Message::Release { .. } => "release",
        Message::TimeoutNow { .. } => "timeout-now",
        Message::Greet { .. } => "greet",
        Message::Greeted { .. } => "greeted",
        Message::Removed { .. } => "removed",
    }
}

pub fn message(message: &Message) -> String {
    let kind = kind(message);
    match message {
        Message::Canvass { ballot, last } => format!("{kind} {ballot} last {}", position(*last)),
        Message::Canvassed { ballot, free, promised } => match free {
            true => format!("{kind} {ballot} free"),
            false => format!("{kind} {ballot} not free, promised {promised}"),
        },
        Message::Prepare { ballot, last, released, .. } => {
            let released = released.map(|b| format!(" released {b}")).unwrap_or_default();
            format!("{kind} {ballot} last {}{released}", position(*last))
        }
        Message::Promise { ballot, .. } => format!("{kind} {ballot}"),
        Message::Reject { ballot, promised } => format!("{kind} {ballot}, promised {promised}"),
        Message::Accept { ballot, prev, entries, chosen, truncate, sleep, .. } => {
            let slots = prev.slot.next().0..;
            let entries = slots.zip(entries).map(|(slot, e)| entry(Slot(slot), e));
            let entries: Vec<_> = entries.collect();
            let entries = match &entries[..] {
                [] => String::new(),
                [first] => format!(" [{first}]"),
                all if all.len() <= 6 => format!(" [{}]", all.join(", ")),
                all => format!(" [{} .. {}]", all[0], all[all.len() - 1]),
            };
            let truncate = match *truncate {
                Slot::ZERO => String::new(),
                slot => format!(" truncate {slot}"),
            };
            let sleep = if *sleep { ", sleep" } else { "" };
            let prev = position(*prev);
            format!("{kind} {ballot} after {prev}{entries} chosen {chosen}{truncate}{sleep}")
        }
        Message::Accepted { ballot, upto, applied, asleep, .. } => {
            let asleep = if *asleep { ", asleep" } else { "" };
            format!("{kind} {ballot} upto {upto} applied {applied}{asleep}")
        }
        Message::Gap { ballot, prev, hint, .. } => {
            format!("{kind} {ballot} at {prev} hint {}", position(*hint))
        }
        Message::Durable { last, .. } => format!("{kind} upto {last}"),
        Message::Chunk { ballot, chunk } => {
            let last = if chunk.last { ", the last" } else { "" };
            let (at, bytes) = (chunk.base.position, chunk.data.len());
            format!("{kind} {ballot} part {}{last}, of {at}, {bytes} bytes", chunk.index)
        }
        Message::ChunkTaken { ballot, next, .. } => format!("{kind} {ballot} next part {next}"),
        Message::Release { ballot } | Message::TimeoutNow { ballot } => format!("{kind} {ballot}"),
        Message::Greet { invitation } | Message::Greeted { invitation } => {
            format!("{kind} {} at {}", invitation.ballot, position(invitation.at))
        }
        Message::Removed { seat, at } => format!("{kind} {seat} at {}", position(*at)),
    }
}

/// What a write changes, `before` being the hard state that it replaces.
pub fn write(write: &Write, before: &mut HardState) -> Vec<String> {
    match write {
        Write::HardState(hard) => {
            let old = std::mem::replace(before, *hard);
            let mut parts = Vec::new();
            if old.promised != hard.promised {
                parts.push(format!("promise {}", hard.promised));
            }
            if (old.vote, old.vote_until) != (hard.vote, hard.vote_until) {
                parts.push(format!("vote {} until {}", hard.vote, time(hard.vote_until)));
            }
            match (old.repair, hard.repair) {
                (old, new) if old == new => {}
                (_, Some(r)) => parts.push(format!("repair from {} until {}", r.from, r.until)),
                (_, None) => parts.push("repaired".into()),
            }
            parts
        }
        Write::Entry { slot, entry: e } => vec![format!("accept {}", entry(*slot, e))],
        Write::Truncate(base) => vec![format!("truncate upto {}", base.position.slot)],
        Write::CutTail { after } => vec![format!("cut tail after {after}")],
        Write::StageFirst(data) => vec![format!("stage {} bytes anew", data.len())],
        Write::StageMore(data) => vec![format!("stage {} more bytes", data.len())],
        Write::Install { base, keep_log } => {
            let log = if *keep_log { "keeps" } else { "drops" };
            vec![format!("install {}, {log} the log behind", base.position)]
        }
        Write::Bury(_) => vec!["bury".into()],
        Write::Invited(seat, _) => vec![format!("invited as {seat}")],
        Write::Rebirth(seat, _) => vec![format!("rebirth as {seat}")],
    }
}

/// The changes of one step; entries in a row are one of them, those in the middle of many left out.
pub fn writes(changes: Vec<String>) -> String {
    let is_entry = |change: &String| change.starts_with("accept ");
    let runs = changes.chunk_by(|a, b| is_entry(a) && is_entry(b)).map(|run| match run {
        [first, .., last] if run.len() > 3 => format!("{first} .. {}", &last["accept ".len()..]),
        [first, more @ ..] => {
            more.iter().fold(first.clone(), |all, change| all + ", " + &change["accept ".len()..])
        }
        [] => String::new(),
    });
    runs.collect::<Vec<_>>().join("; ")
}
