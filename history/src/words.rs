//! What happened in one sentence, and why it cannot be in another.

use crate::name::{How, Named, Why};
use crate::real_time::timestamp;
use crate::story::Teller;
use crate::table::{Known, NONE};

/// What the rows of a story are called: `T1`, or their ids.
type Name<'n> = &'n dyn Fn(u32) -> String;

impl Teller<'_> {
    /// The headline, and the reason.
    pub fn say(&self, named: &Named, name: Name<'_>) -> (String, String) {
        let id = |row: u32| self.id(row);
        match named.how {
            How::Dirty { reader, writer, key } => self.say_dirty(reader, writer, key, name),
            How::Foretold { reader, writer, key } => {
                let (r, w, key) = (name(reader), name(writer), self.key(key));
                (
                    format!("{} read from {}, which had not begun", id(reader), id(writer)),
                    format!(
                        "{r} had ended when {w} began, and yet it saw what {w} wrote to {key}."
                    ),
                )
            }
            How::Overwrote { first, second, from, key } => {
                let (one, two, key) = (name(first), name(second), self.key(key));
                let from = self.after(from, name);
                (
                    format!(
                        "{} wrote over {key} of {}, which it had not seen",
                        id(second),
                        id(first)
                    ),
                    format!(
                        "{two} read {key} as it was {from} and wrote it anew, though {one} wrote it in \
                         between: what {one} did to {key} is lost."
                    ),
                )
            }
            How::Skew { one, two, three, key, other_key } => {
                let keys = (self.key(key), self.key(other_key));
                self.say_skew((one, two, three), keys, name)
            }
            How::Fork { .. } => self.say_fork(named, name),
            How::Missed { .. } => self.say_missed(named, name),
            How::Late { .. } => self.say_late(named, name),
            How::Future { reader, writer, key } => {
                let (r, w, key) = (name(reader), name(writer), self.key(key));
                (
                    format!(
                        "{} read from {}, whose timestamp is not lower",
                        id(reader),
                        id(writer)
                    ),
                    format!(
                        "{r} saw what {w} wrote to {key}, so it comes after {w}; by its timestamp it \
                         does not."
                    ),
                )
            }
            How::Tie { one, two, key } => {
                let key = self.key(key);
                (
                    format!("{} and {} wrote {key} at the same timestamp", id(one), id(two)),
                    format!("Nobody can say which of the two values {key} has from then on."),
                )
            }
            How::List { writer, before, key } => self.say_list(writer, before, key, name),
        }
    }

    fn after(&self, from: u32, name: Name<'_>) -> String {
        match from {
            NONE => "before anybody wrote it".into(),
            from => format!("after {}", name(from)),
        }
    }

    fn say_dirty(&self, reader: u32, writer: u32, key: u32, name: Name<'_>) -> (String, String) {
        let (who, key) = (self.attempt(writer), self.key(key));
        let headline = |what: &str| format!("{} read {key} of {who}, {what}", self.id(reader));
        let author = self.table.author(writer);
        if author == NONE {
            let why = format!("{who} wrote nothing in this history.");
            return (headline("which nobody wrote"), why);
        }
        let (reader, writer) = (name(reader), name(author));
        match self.table.rows[author as usize].ending {
            Known::Aborted => (
                headline("which was rolled back"),
                format!("{writer} was rolled back, and yet {reader} saw what it wrote to {key}."),
            ),
            _ => (
                headline("which is not what that one left there"),
                format!(
                    "What {reader} saw in {key} is not what {writer} had there when it committed: at \
                     no instant was it there for anybody but {writer}."
                ),
            ),
        }
    }

    fn say_skew(
        &self,
        (one, two, three): (u32, u32, Option<u32>),
        (key, other_key): (String, String),
        name: Name<'_>,
    ) -> (String, String) {
        let (id, a, b) = (|row| self.id(row), name(one), name(two));
        match three {
            None => (
                format!("{} and {} each read what the other one wrote anew", id(one), id(two)),
                format!(
                    "{b} read {key} as it was before {a} wrote it, and {a} read {other_key} as it was \
                     before {b} wrote it: whichever came first, the other one would have seen it."
                ),
            ),
            Some(three) => {
                let c = name(three);
                (
                    format!(
                        "{}, {} and {} each read what the next one wrote anew",
                        id(one),
                        id(two),
                        id(three)
                    ),
                    format!(
                        "{b} read {key} as it was before {a} wrote it, {a} read what {c} then wrote, \
                         and {c} read {other_key} as it was before {b} wrote it: whichever came \
                         first, another one would have seen it."
                    ),
                )
            }
        }
    }

    fn say_fork(&self, named: &Named, name: Name<'_>) -> (String, String) {
        let How::Fork { reader, older, older_key, newer, newer_key, witness } = named.how else {
            return Default::default();
        };
        let (old_key, new_key) = (self.key(older_key), self.key(newer_key));
        let (r, o, n) = (name(reader), name(older), name(newer));
        if older == newer {
            return (
                format!("{} saw half of what {} wrote", self.id(reader), self.id(newer)),
                format!("{r} saw what {n} wrote to {new_key}, and not what it wrote to {old_key}."),
            );
        }
        let headline = format!(
            "{} saw {} and not {}, which came before",
            self.id(reader),
            self.id(newer),
            self.id(older)
        );
        let (first, second) = (&self.table.rows[older as usize], &self.table.rows[newer as usize]);
        let saw = format!("{r} saw {new_key} of {n} and not {old_key} of {o}");
        let why = match witness {
            _ if first.ended_ns < second.began_ns => {
                let ms = (second.began_ns - first.ended_ns) as f64 / 1e6;
                format!("{n} began {ms:.3} ms after {o} had been acknowledged, and yet {saw}.")
            }
            _ if self.table.reads(newer).iter().any(|r| self.table.author(r.writer) == older) => {
                format!("{n} had read from {o}, and yet {saw}.")
            }
            Some(witness) => {
                format!("{saw}; {} saw it the other way round.", name(witness))
            }
            None => format!("{saw}: at no instant was one there and the other one not."),
        };
        (headline, why)
    }

    fn say_missed(&self, named: &Named, name: Name<'_>) -> (String, String) {
        let How::Missed { reader, missed, key, witness, why } = named.how else {
            return Default::default();
        };
        let (key, r, m, w) = (self.key(key), name(reader), name(missed), name(witness));
        let (missing, reading) =
            (&self.table.rows[missed as usize], &self.table.rows[reader as usize]);
        let ms = |from: u64, to: u64| to.saturating_sub(from) as f64 / 1e6;
        let headline =
            format!("{} did not see what {} wrote to {key}", self.id(reader), self.id(missed));
        let seen = &self.table.rows[witness as usize];
        let what = match (why, witness == missed) {
            (Why::RealTime, true) => format!(
                "{m} had been acknowledged for {:.3} ms when {r} began, and {r} saw an older version \
                 of {key}",
                ms(missing.ended_ns, reading.began_ns)
            ),
            (Why::RealTime, false) => format!(
                "{w} had seen {key} of {m}, and had ended {:.3} ms before {r} began; {r} saw an older \
                 version",
                ms(seen.ended_ns, reading.began_ns)
            ),
            (Why::Session, true) => format!(
                "{m} is of the same client and had been acknowledged when {r} began, and {r} saw an \
                 older version of {key}"
            ),
            (Why::Session, false) => format!(
                "{w}, of the same client, had seen {key} of {m} and had ended when {r} began; {r} saw \
                 an older version"
            ),
            (Why::Timestamp, true) => {
                format!(
                    "By its timestamp {r} comes after {m}, and it saw an older version of {key}"
                )
            }
            (Why::Timestamp, false) if seen.time == reading.time => format!(
                "{r} and {w} read {key} at the same timestamp, and only {w} saw what {m} had written \
                 by then"
            ),
            (Why::Timestamp, false) => format!(
                "By its timestamp {r} comes after {m}, and it saw an older version of {key}; {w} saw \
                 that of {m}"
            ),
        };
        let end = match named.anomaly {
            crate::Anomaly::LostWrite => " Nobody ever saw it.",
            _ => "",
        };
        (headline, format!("{what}.{end}"))
    }

    fn say_late(&self, named: &Named, name: Name<'_>) -> (String, String) {
        let How::Late { earlier, earlier_time, later, witness } = named.how else {
            return Default::default();
        };
        let (first, second) =
            (&self.table.rows[earlier as usize], &self.table.rows[later as usize]);
        let headline = format!(
            "{} ended at {} ns with {}; {} began at {} ns and got {}",
            self.id(earlier),
            first.ended_ns,
            timestamp(earlier_time),
            self.id(later),
            second.began_ns,
            timestamp(second.time)
        );
        let (e, l) = (name(earlier), name(later));
        let ms = second.began_ns.saturating_sub(first.ended_ns) as f64 / 1e6;
        let below = timestamp(earlier_time).since(timestamp(second.time));
        let its = match self.table.read_only(earlier) {
            true => format!("what {e} saw"),
            false => format!("{e}'s"),
        };
        let gap = format!(
            "{l} began {ms:.3} ms after {e} had ended, and its timestamp is {below:?} below {its}"
        );
        let why = match witness {
            Some(witness) => {
                format!("{gap}: {} read between the two, and saw {l} and not {e}.", name(witness))
            }
            None => gap,
        };
        (headline, why)
    }

    fn say_list(
        &self,
        writer: u32,
        before: Option<u32>,
        key: u32,
        name: Name<'_>,
    ) -> (String, String) {
        let (key, w) = (self.key(key), name(writer));
        let headline = format!(
            "the list that {} wrote to {key} is not the one before and itself",
            self.id(writer)
        );
        let why = match before.map(name) {
            Some(b) => format!(
                "By their timestamps {w} appended right after {b}: its list should be that of {b} \
                 with {w} at the end. Something was lost, or came in twice."
            ),
            None => {
                format!("By its timestamp {w} was the first, and its list is not of one element.")
            }
        };
        (headline, why)
    }
}
