//! A violation as a person would tell it: who did what, when they heard of it, and why this cannot
//! be.

use crate::name::{How, Named};
use crate::table::{Known, NONE, Table, Value};
use crate::{Anomaly, Kind};
use proto::TxnId;
use std::fmt;
use truetime::Timestamp;

/// Longer lists are cut.
const ELEMENTS_SHOWN_MAX: usize = 8;
/// Further away, a timestamp is not taken to be on the clock of the clients.
const FAR_NS: i128 = 3_600_000_000_000;

/// A violation, told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Story {
    /// What people call it.
    pub anomaly: Anomaly,
    /// In one sentence.
    pub headline: String,
    /// Those who show it, in the order in which the story needs them: T1, T2, T3.
    pub actors: Vec<Actor>,
    /// Why it cannot be.
    pub why: String,
}

/// A transaction of a story.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Actor {
    /// `T1`, `T2`, `T3`.
    pub name: String,
    /// Its attempt; `None`: a read without an id.
    pub txn: Option<TxnId>,
    /// Whose it is.
    pub client: u32,
    /// What was promised.
    pub kind: Kind,
    /// As in the history.
    pub began_ns: u64,
    /// As in the history; `None`: its client never heard of its end.
    pub ended_ns: Option<u64>,
    /// Its timestamp; `None`: it was rolled back, or nobody knows.
    pub at: Option<Timestamp>,
    /// What it did, in words, with times in milliseconds since the first of the actors began.
    pub did: Vec<String>,
}

impl fmt::Display for Story {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.anomaly, self.headline)?;
        for actor in &self.actors {
            let mut lead = format!("\n  {} ", actor.name);
            for line in &actor.did {
                write!(f, "{lead}{line}")?;
                lead = "\n     ".into();
            }
        }
        write!(f, "\n  {}", self.why)
    }
}

pub(crate) struct Teller<'t> {
    pub table: &'t Table,
    pub zero_us: u64,
}

/// Rows with their roles, and the keys that matter.
struct Cast {
    rows: Vec<u32>,
    keys: Vec<u32>,
}

impl Teller<'_> {
    /// Tells it.
    pub fn tell(&self, named: &Named) -> Story {
        let cast = self.cast(&named.how);
        let name = |row: u32| match cast.rows.iter().position(|other| *other == row) {
            Some(place) => format!("T{}", place + 1),
            None => self.id(row),
        };
        let (headline, why) = self.say(named, &name);
        let began = cast.rows.iter().map(|row| self.table.rows[*row as usize].began_ns).min();
        let zero_ns = began.unwrap_or_default();
        let actors = cast.rows.iter().map(|row| self.actor(&name(*row), *row, &cast, zero_ns));
        Story { anomaly: named.anomaly, headline, actors: actors.collect(), why }
    }

    /// Who appears, in this order.
    fn cast(&self, how: &How) -> Cast {
        let cast = |rows: Vec<Option<u32>>, keys: Vec<u32>| {
            let mut seen = Vec::new();
            for row in rows.into_iter().flatten().filter(|row| *row != NONE) {
                if !seen.contains(&row) {
                    seen.push(row);
                }
            }
            Cast { rows: seen, keys }
        };
        match *how {
            How::Dirty { reader, writer, key } => {
                cast(vec![Some(self.table.author(writer)), Some(reader)], vec![key])
            }
            How::Foretold { reader, writer, key } | How::Future { reader, writer, key } => {
                cast(vec![Some(writer), Some(reader)], vec![key])
            }
            How::Overwrote { first, second, key, .. } => {
                cast(vec![Some(first), Some(second)], vec![key])
            }
            How::Skew { one, two, three, key, other_key } => {
                let between = three.into_iter().flat_map(|three| self.keys_of(three));
                let keys = [key, other_key].into_iter().chain(between).collect();
                cast(vec![Some(one), Some(two), three], keys)
            }
            How::Fork { reader, older, older_key, newer, newer_key, witness } => {
                let rows = vec![Some(older), Some(newer), Some(reader), witness];
                cast(rows, vec![older_key, newer_key])
            }
            How::Missed { reader, missed, key, witness, .. } => {
                cast(vec![Some(missed), Some(reader), Some(witness)], vec![key])
            }
            How::Late { earlier, later, witness, .. } => {
                let mut keys = self.keys_of(earlier);
                keys.extend(self.keys_of(later));
                cast(vec![Some(earlier), Some(later), witness], keys)
            }
            How::Tie { one, two, key } => cast(vec![Some(one), Some(two)], vec![key]),
            How::List { writer, before, key } => cast(vec![before, Some(writer)], vec![key]),
        }
    }

    /// A few keys that a row touched.
    fn keys_of(&self, row: u32) -> Vec<u32> {
        let written = self.table.writes(row).iter().map(|write| write.key);
        written.chain(self.table.reads(row).iter().map(|read| read.key)).take(4).collect()
    }

    pub fn key(&self, key: u32) -> String {
        String::from_utf8_lossy(&self.table.keys[key as usize]).into_owned()
    }

    pub fn id(&self, row: u32) -> String {
        if row == NONE {
            return "nobody".into();
        }
        let row = &self.table.rows[row as usize];
        match self.table.attempts[row.attempt as usize] {
            txn if txn == TxnId::default() => format!("a read of client {}", row.client),
            txn => txn.to_string(),
        }
    }

    pub fn attempt(&self, attempt: u32) -> String {
        match attempt {
            NONE => "nobody".into(),
            attempt => self.table.attempts[attempt as usize].to_string(),
        }
    }

    fn actor(&self, name: &str, number: u32, cast: &Cast, zero_ns: u64) -> Actor {
        let row = &self.table.rows[number as usize];
        let ms = |ns: i128| format!("{:.3} ms", ns as f64 / 1e6);
        let since = |ns: u64| ms(i128::from(ns) - i128::from(zero_ns));
        let micros = row.time.saturating_sub(1);
        let at = (row.ending == Known::Committed).then(|| Timestamp::from_micros(micros));
        let at_ns = (i128::from(micros) - i128::from(self.zero_us)) * 1_000;
        let from_begin = at_ns - i128::from(zero_ns);
        let shown = match from_begin.abs() < FAR_NS {
            true => format!("{} (s{micros})", ms(from_begin)),
            false => format!("s{micros}"),
        };
        let wrote = !self.table.read_only(number);
        let ending = match row.ending {
            Known::Committed if wrote => format!("committed at {shown}"),
            Known::Committed => format!("reads at {shown}"),
            Known::Seen => "end unknown, but read from".into(),
            Known::Unknown => "end unknown".into(),
            Known::Aborted => "rolled back".into(),
        };
        let kind = match row.kind {
            Kind::ReadWrite => "read-write",
            Kind::Strong => "strong read",
            Kind::Stale => "read of the past",
            Kind::Session => "read of a session",
        };
        let heard = match row.ended_ns {
            u64::MAX => "its client never heard of the end".into(),
            ended_ns => format!("its client heard of the end at {}", since(ended_ns)),
        };
        let mut did = vec![
            format!("{} of client {}, {kind}, {ending}", self.id(number), row.client),
            format!("began at {}; {heard}", since(row.began_ns)),
        ];
        did.extend(self.accesses(number, cast));
        let txn = self.table.attempts[row.attempt as usize];
        Actor {
            name: name.into(),
            txn: (txn != TxnId::default()).then_some(txn),
            client: row.client,
            kind: row.kind,
            began_ns: row.began_ns,
            ended_ns: (row.ended_ns != u64::MAX).then_some(row.ended_ns),
            at,
            did,
        }
    }

    /// What it did with the keys that matter.
    fn accesses(&self, number: u32, cast: &Cast) -> Option<String> {
        let matters = |key: &u32| cast.keys.contains(key);
        let mut parts = Vec::new();
        for read in self.table.reads(number).iter().filter(|read| matters(&read.key)) {
            let key = self.key(read.key);
            parts.push(match read.writer {
                NONE => format!("read {key}: no row"),
                writer => {
                    let value = self.value(read.value, &[]);
                    format!("read {key} = {value} by {}", self.attempt(writer))
                }
            });
        }
        for write in self.table.writes(number).iter().filter(|write| matters(&write.key)) {
            let value = self.value(write.value, self.table.list(write));
            parts.push(format!("wrote {} = {value}", self.key(write.key)));
        }
        (!parts.is_empty()).then(|| parts.join("; "))
    }

    fn value(&self, value: Value, list: &[u32]) -> String {
        match value {
            Value::Absent => "nothing".into(),
            Value::Number(number) => number.to_string(),
            Value::List { length, .. } if list.is_empty() => format!("a list of {length}"),
            Value::List { .. } => {
                let cut = list.len().saturating_sub(ELEMENTS_SHOWN_MAX);
                let shown: Vec<String> = list[cut..].iter().map(|a| self.attempt(*a)).collect();
                format!("[{}{}]", if cut > 0 { "… " } else { "" }, shown.join(" "))
            }
        }
    }
}
