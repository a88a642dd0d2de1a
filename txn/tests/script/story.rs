//! What the transactions of a script have read and written, told at its end: whether their commit
//! timestamps, and the order in which their clients saw them end and begin, explain all of it.

use super::notation;
use proto::keys::{Page, Row, Span, Write};
use proto::request::{Found, Outcome, ReadSet};
use proto::{GroupId, Key, TxnId};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use truetime::Timestamp;
use txn::server::ReadJob;

/// The versions of one replica.
#[derive(Clone, Default)]
pub struct Tablet(BTreeMap<Key, BTreeMap<Timestamp, Write>>);

impl Tablet {
    pub fn write(&mut self, write: Write, at: Timestamp) {
        self.0.entry(write.key.clone()).or_default().insert(at, write);
    }

    /// Runs a read: at its timestamp, or under locks of what is newest.
    pub fn find(&self, job: &ReadJob) -> Found {
        let mut tablet = self.clone();
        for unapplied in &job.unapplied {
            tablet.write(unapplied.write.clone(), unapplied.at);
        }
        match &job.what {
            ReadSet::Keys(keys) => Found::Values(
                keys.iter()
                    .map(|key| tablet.newest(key, job.tag.at))
                    .map(|row| row.map(|row| (row.written, row.value)))
                    .collect(),
            ),
            ReadSet::Range { range, .. } => {
                let span = Span::Range(range.clone());
                Found::Page(Page { rows: tablet.rows(&span, job.tag.at), resume: None })
            }
        }
    }

    fn newest(&self, key: &Key, at: Timestamp) -> Option<Row> {
        let (written, write) = self.0.get(key)?.range(..=at).next_back()?;
        let value = write.value.clone()?;
        Some(Row { key: key.clone(), value, written: *written })
    }

    fn rows(&self, span: &Span, at: Timestamp) -> Vec<Row> {
        let keys = self.0.keys().filter(|key| span.overlaps(&Span::Key((*key).clone())));
        keys.filter_map(|key| self.newest(key, at)).collect()
    }
}

/// The rows that a read found, whatever it asked for.
pub fn rows(what: &ReadSet, found: &Found) -> Vec<Row> {
    match (what, found) {
        (ReadSet::Keys(keys), Found::Values(values)) => {
            let row = |(key, value): (&Key, &Option<(Timestamp, Key)>)| {
                let (written, value) = value.clone()?;
                Some(Row { key: key.clone(), value, written })
            };
            keys.iter().zip(values).filter_map(row).collect()
        }
        (_, Found::Page(page)) => page.rows.clone(),
        _ => Vec::new(),
    }
}

/// `a=1 b=none`, `a..c has a=1 b=2`.
pub fn tell(spans: &[Span], rows: &[Row]) -> String {
    let text = |bytes: &Key| String::from_utf8_lossy(bytes).into_owned();
    let told = spans.iter().map(|span| match span {
        Span::Key(key) => {
            let row = rows.iter().find(|row| row.key == *key);
            format!("{}={}", text(key), row.map_or("none".into(), |row| text(&row.value)))
        }
        Span::Range(_) => {
            let inside = rows.iter().filter(|row| span.overlaps(&Span::Key(row.key.clone())));
            let inside: Vec<String> =
                inside.map(|row| format!("{}={}", text(&row.key), text(&row.value))).collect();
            let inside = if inside.is_empty() { "nothing".into() } else { inside.join(" ") };
            format!("{} has {inside}", notation::spans([span]))
        }
    });
    told.collect::<Vec<_>>().join(" ")
}

/// One read, as it was answered.
struct Seen {
    group: GroupId,
    spans: Vec<Span>,
    rows: Vec<Row>,
}

#[derive(Clone, Debug, Default)]
enum Fate {
    #[default]
    Open,
    Committed(Timestamp),
    /// A read-only transaction. `chosen`: its client asked for just this timestamp.
    Snapshot {
        at: Timestamp,
        chosen: bool,
    },
    Aborted(String),
}

/// What is known of one attempt. Moments are places in the script.
#[derive(Default)]
struct Deeds {
    began: usize,
    /// When its client heard that it has committed, or the last that it has read.
    answered: Option<usize>,
    seen: Vec<Seen>,
    wrote: Vec<(GroupId, Write)>,
    fate: Fate,
}

impl Deeds {
    /// Where it stands in the order, and whether its own timestamp is visible to it.
    fn place(&self) -> Option<(Timestamp, bool)> {
        match self.fate {
            Fate::Committed(at) => Some((at, false)),
            Fate::Snapshot { at, .. } => Some((at, true)),
            Fate::Open | Fate::Aborted(_) => None,
        }
    }
}

/// See the [module](self).
#[derive(Default)]
pub struct Story {
    moment: usize,
    deeds: BTreeMap<TxnId, Deeds>,
}

impl Story {
    /// The client of a transaction asks for something.
    pub fn asks(&mut self, txn: TxnId) {
        self.moment += 1;
        let began = self.moment;
        self.deeds.entry(txn).or_insert_with(|| Deeds { began, ..Deeds::default() });
    }

    /// At which timestamp a read-only transaction reads: as it began, and for all that it reads.
    pub fn snapshot(&mut self, txn: TxnId, wanted: Option<Timestamp>, now: Timestamp) -> Timestamp {
        self.asks(txn);
        let Some(deeds) = self.deeds.get_mut(&txn) else { return now };
        if let Fate::Snapshot { at, .. } = deeds.fate {
            return at;
        }
        let at = wanted.unwrap_or(now);
        deeds.fate = Fate::Snapshot { at, chosen: wanted.is_some() };
        at
    }

    pub fn sees(&mut self, txn: TxnId, group: GroupId, spans: Vec<Span>, rows: Vec<Row>) {
        self.moment += 1;
        let moment = self.moment;
        let Some(deeds) = self.deeds.get_mut(&txn) else { return };
        deeds.seen.push(Seen { group, spans, rows });
        if matches!(deeds.fate, Fate::Snapshot { .. }) {
            deeds.answered = Some(moment);
        }
    }

    /// A group has applied its outcome, with these writes.
    pub fn ends(&mut self, txn: TxnId, group: GroupId, outcome: Outcome, writes: Vec<Write>) {
        let deeds = self.deeds.entry(txn).or_default();
        deeds.wrote.extend(writes.into_iter().map(|write| (group, write)));
        match outcome {
            Outcome::Committed(at) => deeds.fate = Fate::Committed(at),
            Outcome::Aborted => self.loses(txn, "its coordinator said so"),
        }
    }

    /// The client hears that it has committed. One that only read may be answered without an entry
    /// in any log: it is a snapshot that took locks.
    pub fn hears(&mut self, txn: TxnId, at: Timestamp) {
        self.moment += 1;
        let moment = self.moment;
        let Some(deeds) = self.deeds.get_mut(&txn) else { return };
        deeds.answered.get_or_insert(moment);
        if matches!(deeds.fate, Fate::Open) {
            deeds.fate = Fate::Snapshot { at, chosen: false };
        }
    }

    /// The client hears that it has not.
    pub fn loses(&mut self, txn: TxnId, why: &str) {
        if let Some(deeds) = self.deeds.get_mut(&txn).filter(|d| matches!(d.fate, Fate::Open)) {
            deeds.fate = Fate::Aborted(why.to_owned());
        }
    }

    /// What each has read, written and come to; then whether an order explains it. An error says
    /// what no order explains.
    pub fn verdict(&self, tablets: &BTreeMap<GroupId, &Tablet>) -> Result<String, String> {
        let mut told = String::new();
        for (txn, deeds) in &self.deeds {
            let _ = writeln!(told, "{txn} {}", tell_deeds(deeds));
        }
        let mut order: Vec<(TxnId, &Deeds, (Timestamp, bool))> = self
            .deeds
            .iter()
            .filter_map(|(txn, deeds)| Some((*txn, deeds, deeds.place()?)))
            .collect();
        order.sort_by_key(|(_, _, place)| *place);
        for (txn, deeds, (at, visible)) in &order {
            let until = if *visible { *at } else { at.prev() };
            for seen in &deeds.seen {
                let truth = tablets.get(&seen.group).map_or_else(Vec::new, |tablet| {
                    let mut rows: Vec<Row> =
                        seen.spans.iter().flat_map(|span| tablet.rows(span, until)).collect();
                    rows.dedup();
                    rows
                });
                if truth != seen.rows {
                    return Err(format!(
                        "{told}happened: {txn} saw {}, but at {} there is {}",
                        tell(&seen.spans, &seen.rows),
                        notation::time(*at),
                        tell(&seen.spans, &truth)
                    ));
                }
            }
        }
        for (place, (later, deeds, _)) in order.iter().enumerate() {
            let chosen = matches!(deeds.fate, Fate::Snapshot { chosen: true, .. });
            let after = order[place + 1..].iter();
            let mut wrong = after.filter(|(_, other, _)| {
                !chosen && other.answered.is_some_and(|answered| answered < deeds.began)
            });
            if let Some((first, ..)) = wrong.next() {
                return Err(format!(
                    "{told}happened: {first} was answered before {later} began, but comes after it"
                ));
            }
        }
        let order: Vec<String> = order.iter().map(|(txn, ..)| txn.to_string()).collect();
        let _ = write!(
            told,
            "prevented: one after the other, {} would have seen the same, and so did their clients",
            order.join(", ")
        );
        Ok(told)
    }
}

fn tell_deeds(deeds: &Deeds) -> String {
    let mut told: Vec<String> = Vec::new();
    let seen = deeds.seen.iter().map(|seen| tell(&seen.spans, &seen.rows));
    let seen: Vec<String> = seen.collect();
    if !seen.is_empty() {
        told.push(format!("saw {}", seen.join(", then ")));
    }
    if matches!(deeds.fate, Fate::Committed(_)) && !deeds.wrote.is_empty() {
        let text = |bytes: &Key| String::from_utf8_lossy(bytes).into_owned();
        let wrote = deeds.wrote.iter().map(|(_, write)| {
            let value = write.value.as_ref().map_or("none".into(), text);
            format!("{}={value}", text(&write.key))
        });
        told.push(format!("wrote {}", wrote.collect::<Vec<_>>().join(" ")));
    }
    told.push(match &deeds.fate {
        Fate::Open => "has not ended".into(),
        Fate::Committed(at) => format!("committed at {}", notation::time(*at)),
        Fate::Snapshot { at, .. } => format!("read as of {}", notation::time(*at)),
        Fate::Aborted(why) => format!("aborted: {why}"),
    });
    told.join(", ")
}

/// The verdict tells a story that no order explains: it must have been able to fail.
#[cfg(test)]
mod tests {
    use super::*;

    const G1: GroupId = GroupId(1);
    const G2: GroupId = GroupId(2);

    fn id(client: u64) -> TxnId {
        TxnId { client, seq: 1 }
    }

    fn at(ms: u64) -> Timestamp {
        Timestamp::from_micros(ms * 1_000)
    }

    fn key(name: &'static str) -> Key {
        Key::from_static(name.as_bytes())
    }

    #[derive(Default)]
    struct World {
        story: Story,
        tablets: BTreeMap<GroupId, Tablet>,
    }

    impl World {
        fn sees(
            &mut self,
            txn: u64,
            group: GroupId,
            name: &'static str,
            row: Option<(u64, &'static str)>,
        ) {
            self.story.asks(id(txn));
            let row =
                row.map(|(ms, value)| Row { key: key(name), value: key(value), written: at(ms) });
            self.story.sees(id(txn), group, vec![Span::Key(key(name))], row.into_iter().collect());
        }

        fn commits(
            &mut self,
            txn: u64,
            group: GroupId,
            ms: u64,
            name: &'static str,
            value: &'static str,
        ) {
            self.story.asks(id(txn));
            let write = Write { key: key(name), value: Some(key(value)) };
            self.tablets.entry(group).or_default().write(write.clone(), at(ms));
            self.story.ends(id(txn), group, Outcome::Committed(at(ms)), vec![write]);
        }

        fn verdict(&self) -> Result<String, String> {
            self.story.verdict(&self.tablets.iter().map(|(g, t)| (*g, t)).collect())
        }
    }

    #[test]
    fn a_lost_update_is_told() {
        let mut world = World::default();
        world.commits(1, G1, 10, "a", "1");
        world.sees(2, G1, "a", Some((10, "1")));
        world.sees(3, G1, "a", Some((10, "1")));
        world.commits(2, G1, 20, "a", "2");
        assert!(world.verdict().is_ok());
        world.commits(3, G1, 30, "a", "3");
        let told = world.verdict().expect_err("t3 has not seen what t2 wrote");
        assert!(told.ends_with("happened: t3.1 saw a=1, but at 30.000 there is a=2"), "{told}");
    }

    #[test]
    fn write_skew_is_told() {
        let mut world = World::default();
        for txn in [1, 2] {
            world.sees(txn, G1, "a", None);
            world.sees(txn, G2, "b", None);
        }
        world.commits(1, G1, 20, "a", "1");
        assert!(world.verdict().is_ok());
        world.commits(2, G2, 30, "b", "2");
        let told = world.verdict().expect_err("both have seen neither");
        assert!(told.contains("happened: t2.1 saw a=none"), "{told}");
    }

    #[test]
    fn an_order_against_the_clients_is_told() {
        let mut world = World::default();
        world.commits(1, G1, 30, "a", "1");
        world.story.hears(id(1), at(30));
        world.commits(2, G2, 20, "b", "2");
        let told = world.verdict().expect_err("t2 began later and is earlier");
        assert!(
            told.ends_with("t1.1 was answered before t2.1 began, but comes after it"),
            "{told}"
        );
    }
}
