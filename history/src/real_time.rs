//! Order as observers have it: who had ended when who began.
//!
//! One pass over all transactions in the order of their begins, beside one in the order of their
//! ends. What an ended transaction proves to be visible is what it wrote, and what it saw: its own
//! timestamp may run ahead of absolute time by an ε that nobody wrote in, for a read waits for no
//! clock.

use crate::table::{Known, NONE, Table};
use crate::{Kind, Operation};
use std::collections::HashMap;
use truetime::Timestamp;

/// Two transactions of which one was acknowledged before the other began, and whose timestamps say
/// otherwise (X7, X8).
#[derive(Clone, Copy, Debug)]
pub struct Disorder<'h> {
    /// Of those that had ended, the one with the highest timestamp.
    pub earlier: &'h Operation,
    /// That timestamp; for a read-only transaction, of the newest write that it saw.
    pub earlier_at: Timestamp,
    /// The one that began after it.
    pub later: &'h Operation,
    /// What it got: too little.
    pub later_at: Timestamp,
}

/// All such pairs, each transaction at most once as the later one, in the order in which those
/// began. Of reads at a chosen, older timestamp and of those of a session nothing is asked; what
/// they saw counts.
pub fn disorders(history: &[Operation]) -> Vec<Disorder<'_>> {
    let mut table = Table::default();
    // A second copy of an attempt is another checker's business.
    let kept: Vec<&Operation> = history.iter().filter(|op| table.add(op).is_ok()).collect();
    let disorder = |late: Late| Disorder {
        earlier: kept[late.earlier as usize],
        earlier_at: timestamp(late.earlier_time),
        later: kept[late.later as usize],
        later_at: timestamp(table.rows[late.later as usize].time),
    };
    sweep(&table).late.into_iter().map(disorder).collect()
}

/// The timestamp of a time of the table.
pub(crate) fn timestamp(time: u64) -> Timestamp {
    Timestamp::from_micros(time.saturating_sub(1))
}

/// A timestamp below one that was visible before.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Late {
    pub later: u32,
    pub earlier: u32,
    pub earlier_time: u64,
}

/// A read below a version that was visible before.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stale {
    pub reader: u32,
    pub key: u32,
    /// Who had written or seen the version.
    pub witness: u32,
    pub time: u64,
    /// Whether it is so only for the reader's own client.
    pub session: bool,
}

/// What real time objects to.
#[derive(Default)]
pub(crate) struct RealTime {
    /// In the order of begins.
    pub late: Vec<Late>,
    /// At most one for each reader.
    pub stale: Vec<Stale>,
}

/// Asks every transaction with locks and every strong read, then the sessions of every client.
pub(crate) fn sweep(table: &Table) -> RealTime {
    let mut found = RealTime::default();
    let all: Vec<u32> = table.all().filter(|row| committed(table, *row)).collect();
    let mut by_end: Vec<u32> = all.clone();
    by_end.sort_unstable_by_key(|row| (table.rows[*row as usize].ended_ns, *row));
    let mut by_begin = all;
    by_begin.retain(|row| matches!(table.rows[*row as usize].kind, Kind::ReadWrite | Kind::Strong));
    by_begin.sort_unstable_by_key(|row| (table.rows[*row as usize].began_ns, *row));
    let mut newest: Vec<(u64, u32)> = vec![(0, NONE); table.keys.len()];
    let mut highest = (0, NONE);
    let mut ended = by_end.into_iter().peekable();
    for later in by_begin {
        let row = &table.rows[later as usize];
        while let Some(earlier) =
            ended.next_if(|earlier| table.rows[*earlier as usize].ended_ns < row.began_ns)
        {
            visible(table, earlier, |key, time| {
                raise(&mut newest[key as usize], time, earlier);
                raise(&mut highest, time, earlier);
            });
        }
        let in_order =
            if table.read_only(later) { highest.0 <= row.time } else { highest.0 < row.time };
        if highest.1 != NONE && !in_order {
            found.late.push(Late { later, earlier: highest.1, earlier_time: highest.0 });
        }
        let stale = table.reads(later).iter().find_map(|read| {
            let (time, witness) = newest[read.key as usize];
            let missed = table.seen(read).is_some_and(|seen| seen < time);
            let key = read.key;
            missed.then_some(Stale { reader: later, key, witness, time, session: false })
        });
        found.stale.extend(stale);
    }
    sessions(table, &mut found);
    found
}

/// Reads with a session token: never older than what the same client wrote and saw (R4).
fn sessions(table: &Table, found: &mut RealTime) {
    let of_session = |row: &u32| table.rows[*row as usize].kind == Kind::Session;
    let mut clients: HashMap<u32, Vec<u32>> = HashMap::new(); // only looked up
    for row in table.all().filter(of_session) {
        clients.entry(table.rows[row as usize].client).or_default();
    }
    if clients.is_empty() {
        return;
    }
    let mut order = Vec::new();
    for row in table.all().filter(|row| committed(table, *row)) {
        let client = table.rows[row as usize].client;
        if let Some(rows) = clients.get_mut(&client) {
            if rows.is_empty() {
                order.push(client);
            }
            rows.push(row);
        }
    }
    for client in order {
        session(table, clients.remove(&client).unwrap_or_default(), found);
    }
}

fn session(table: &Table, mut by_begin: Vec<u32>, found: &mut RealTime) {
    let mut by_end = by_begin.clone();
    by_begin.sort_unstable_by_key(|row| (table.rows[*row as usize].began_ns, *row));
    by_end.sort_unstable_by_key(|row| (table.rows[*row as usize].ended_ns, *row));
    let mut newest: HashMap<u32, (u64, u32)> = HashMap::new(); // only looked up
    let mut ended = by_end.into_iter().peekable();
    for later in by_begin {
        let row = &table.rows[later as usize];
        while let Some(earlier) =
            ended.next_if(|earlier| table.rows[*earlier as usize].ended_ns < row.began_ns)
        {
            visible(table, earlier, |key, time| {
                raise(newest.entry(key).or_insert((0, NONE)), time, earlier);
            });
        }
        if row.kind != Kind::Session {
            continue;
        }
        let stale = table.reads(later).iter().find_map(|read| {
            let (time, witness) = *newest.get(&read.key)?;
            let missed = table.seen(read).is_some_and(|seen| seen < time);
            let key = read.key;
            missed.then_some(Stale { reader: later, key, witness, time, session: true })
        });
        found.stale.extend(stale);
    }
}

/// Only of these is the timestamp known.
fn committed(table: &Table, row: u32) -> bool {
    table.rows[row as usize].ending == Known::Committed
}

/// The versions that an ended transaction proves to be visible.
fn visible(table: &Table, row: u32, mut show: impl FnMut(u32, u64)) {
    let time = table.rows[row as usize].time;
    table.writes(row).iter().for_each(|write| show(write.key, time));
    for read in table.reads(row) {
        let author = table.author(read.writer);
        // Of a writer whose end is unknown, the time is a guess, and proves nothing.
        if author != NONE
            && committed(table, author)
            && let Some(time) = table.seen(read)
        {
            show(read.key, time);
        }
    }
}

fn raise(highest: &mut (u64, u32), time: u64, row: u32) {
    if time > highest.0 {
        *highest = (time, row);
    }
}
