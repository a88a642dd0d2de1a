//! Safe time: up to which timestamp can be read here (R1, R2).
//!
//! A replica serves a read at `t` once nothing that it has not applied can become visible at or
//! below `t` in what is read. Two things could:
//!
//! ```text
//!   log     … │ 7: 90 │ 8: prepare 95 │ 9: 104 │        no entry behind slot 9
//!   applied ──────────────────────────┘        │        has a timestamp up to 120
//!                                              └─ MinNext { slot: 9, at: 120 }
//!   t_paxos = 95; 120 once slot 9 is applied            t_tm = 94 for what slot 8 writes
//! ```
//!
//! *An entry that is not applied here* (`t_paxos`). The timestamps a group gives to its entries grow
//! with the slots, so none behind the last applied one is at or below `Replicated::applied_at`. To
//! go beyond that, the leader has to give its word ([`MinNext`]): every entry behind a slot has a
//! timestamp above `at`. Who has applied that slot may read up to `at`.
//!
//! *A prepared transaction* (`t_tm`), which will become visible at a timestamp that another group
//! chooses, at or above the one it is prepared with. It is in the replicated state, and hinders only
//! reads of what it writes (the paper's §4.2.4).
//!
//! ## Why the word holds, whoever leads later
//! The claim is about the log, as it will be for ever: *every entry chosen in a slot behind `n` that
//! has a timestamp of this group's has one above `T`.* Let a leader say so under ballot b, with its
//! ballot open, its lease valid, and T inside the lease. An entry behind n was proposed
//! 1. by this leader, before it said so: n is the last of its slots with a timestamp up to T, for
//!    timestamps grow with the slots;
//! 2. by this leader, later: it has raised `s_max` to T (L4);
//! 3. by a leader of a higher ballot: its timestamps lie above the start of its lease, that lies
//!    behind the end of this one's (L3), or behind the instant at which this one gave the lease up,
//!    for which it waited until `s_max` had passed (L5): in either case above T;
//! 4. by a leader of a lower ballot: then it stands before the no-op that opened b, as all that
//!    lower ballots may have had chosen does (P3); that no-op is applied here, thus chosen, thus in
//!    its slot for ever. All of that is in slots up to n.
//!
//! Nothing was said of what stands *in* the slots up to n: if this leader is deposed, others may
//! put theirs there. Who has applied n has applied whatever it is. So a word stays true for ever,
//! whoever hears it, whenever, under whichever ballot, before or after a restart; it needs neither
//! a lease nor a ballot at the one who relies on it, and none when the answer leaves.
//!
//! Decisions (`Command::Decide`) carry other groups' timestamps. One behind n may be at or below T;
//! but then its prepare, which is not above it, is in a slot up to n: it is `t_tm`'s business.

use super::reads::spans;
use super::{Effects, Manager};
use proto::keys::Span;
use proto::plant::{Plant, planted};
use proto::request::ReadSet;
use proto::{Command, Slot};
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;
use truetime::{Interval, Timestamp};

/// Words about slots that are not applied yet, kept at a time: the oldest, for they will hold first,
/// and the newest.
const AHEAD_MAX: usize = 8;

/// A leader's word (R2): every entry of the group's log behind `slot` has a timestamp above `at`.
/// True for ever, whoever leads: the proof is at the top of the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MinNext {
    /// Who has applied this slot
    pub slot: Slot,
    /// may read up to this timestamp.
    pub at: Timestamp,
}

/// What leaders have given their word for, as far as it was heard here.
#[derive(Debug, Default)]
pub(super) struct Words {
    /// The slot is applied here: nothing can be written up to this any more.
    reached: Timestamp,
    /// The slot is not applied here yet; both grow.
    ahead: VecDeque<MinNext>,
}

impl Words {
    fn hear(&mut self, word: MinNext, applied: Slot) {
        let last = self.ahead.back();
        if word.slot <= applied {
            self.reached = self.reached.max(word.at);
        } else if last.is_none_or(|last| last.at < word.at) {
            while self.ahead.back().is_some_and(|last| last.slot >= word.slot) {
                self.ahead.pop_back(); // it says less, later
            }
            if self.ahead.len() == AHEAD_MAX {
                self.ahead.pop_back();
            }
            self.ahead.push_back(word);
        }
    }

    fn level(&mut self, applied: Slot) {
        while self.ahead.front().is_some_and(|word| word.slot <= applied) {
            let Some(word) = self.ahead.pop_front() else { return };
            self.reached = self.reached.max(word.at);
        }
    }

    /// Up to where reads need only wait for slots to be applied.
    fn told(&self) -> Timestamp {
        self.ahead.back().map_or(self.reached, |word| word.at.max(self.reached))
    }
}

/// The latest timestamp that a leader gives its word for: what a clock as good as its own can show
/// just now. A timestamp further ahead, which some reader has made up, has to come nearer first, or it
/// would make every commit of the group wait as long (R5).
pub(super) fn ahead_max(now: Interval) -> Timestamp {
    now.latest().plus_micros(width_us(now))
}

fn width_us(now: Interval) -> u64 {
    now.latest().micros().saturating_sub(now.earliest().micros())
}

impl MinNext {
    /// As much of a promise about timestamps as is believed here: one that lies further ahead than
    /// any right clock could have made it comes from a wrong one (T5). To believe less is always
    /// right.
    pub fn believed(now: Interval, at: Timestamp) -> Timestamp {
        at.min(ahead_max(now))
    }

    /// Once `after` this, a leader may give its word for `at`. `None`: it is near enough.
    pub fn near_after(now: Interval, at: Timestamp) -> Option<Timestamp> {
        (at > ahead_max(now)).then(|| at.minus_micros(2 * width_us(now) + 1))
    }
}

impl Manager {
    /// A command was put in this slot by this leader.
    pub fn proposed(&mut self, slot: Slot, command: &Command) {
        // A decision has another group's timestamp.
        let own = !matches!(command, Command::Decide { .. });
        let at = command.timestamp().filter(|_| own);
        if let (Some(leading), Some(at)) = (&mut self.leading, at) {
            leading.proposed.push_back(MinNext { slot, at });
        }
    }

    /// A leader has given its word (R2); `applied`: the last slot applied here.
    pub fn hear(&mut self, word: MinNext, applied: Slot) {
        self.reads.words.hear(word, applied);
    }

    /// Everything up to this slot is applied here. Reads that waited for it begin.
    pub fn level(&mut self, now: Interval, applied: Slot, out: &mut Effects) {
        self.reads.words.level(applied);
        if let Some(leading) = &mut self.leading {
            while leading.proposed.front().is_some_and(|entry| entry.slot <= applied) {
                leading.proposed.pop_front();
            }
        }
        self.serve_reads(now, out);
    }

    /// While the leadership is handed on, no more promises are made: the timestamps given out have
    /// to pass first (L5).
    pub fn retiring(&mut self, retiring: bool) {
        self.reads.retiring = retiring;
    }

    /// This leader's word, for others to rely on (R2): for `wanted` at least, or for whatever costs
    /// nothing. It names a slot that is chosen already, so who is told so learns that, too.
    /// `None`: not now. What it would take is under way, or this replica cannot say.
    ///
    /// `applied` and `chosen` are this replica's last slots of that kind.
    pub fn min_next(
        &mut self,
        now: Interval,
        wanted: Option<Timestamp>,
        (applied, chosen): (Slot, Slot),
    ) -> Option<MinNext> {
        let max = self.vow_max(now)?;
        let wanted = wanted.unwrap_or(Timestamp::MIN);
        if wanted > max {
            return None;
        }
        // The timestamps of commits to come are above `earliest` anyway.
        let vowed = wanted.max(now.earliest().min(max));
        self.vow(vowed);
        let leading = self.leading.as_ref()?;
        let unchosen = leading.proposed.iter().find(|entry| entry.slot > chosen);
        let at = unchosen.map_or(vowed, |entry| entry.at.prev().min(vowed));
        let last = leading.proposed.iter().rev().find(|entry| entry.at <= at);
        let slot = last.map_or(applied, |entry| entry.slot);
        (at >= wanted).then_some(MinNext { slot, at })
    }

    /// How far this leader may give its word just now: inside its lease (L4), and not far ahead.
    pub(super) fn vow_max(&self, now: Interval) -> Option<Timestamp> {
        let lease_end = self.leading.as_ref()?.lease_end;
        let may = now.before(lease_end) && !self.reads.retiring;
        may.then(|| ahead_max(now).min(lease_end.prev()))
    }

    /// Nothing is to be written up to `at` any more, by this leader (L4) or the next, for which this
    /// one's lease has to last, or its end to wait (L5).
    pub fn vow(&mut self, at: Timestamp) {
        if let Some(leading) = self.leading.as_mut()
            && !planted(Plant::MinNextTsForgotten)
        {
            leading.s_max = leading.s_max.max(at);
        }
    }

    /// Up to where no entry that is not applied here can be written any more (R1). A leader makes
    /// sure of it up to `wanted`, at most `vow_max`.
    pub(super) fn t_paxos(&mut self, wanted: Option<Timestamp>) -> Timestamp {
        let known = self.replicated.applied_at.max(self.reads.words.reached);
        let Some(wanted) = wanted.filter(|at| *at > known && self.leading.is_some()) else {
            return known;
        };
        self.vow(wanted);
        let in_flight = self.leading.as_ref().and_then(|leading| leading.in_flight.front());
        known.max(in_flight.map_or(wanted, |first| first.prev().min(wanted)))
    }

    /// The lowest timestamp of a transaction that is prepared here, writes what would be read, and
    /// may commit at that timestamp or above: `t_tm` lies before it (R1).
    pub(super) fn prepared_in(&self, what: &ReadSet) -> Option<Timestamp> {
        if planted(Plant::TmIgnored) || self.replicated.prepared.is_empty() {
            return None;
        }
        let spans = spans(what);
        let conflicts = self.replicated.prepared.values().filter(|record| {
            let mut writes = record.writes.iter().map(|write| Span::Key(write.key.clone()));
            writes.any(|key| spans.iter().any(|span| span.overlaps(&key)))
        });
        conflicts.map(|record| record.timestamp).min()
    }

    /// The newest timestamp at which such a read need not wait here (R1).
    pub(super) fn safe_time(&mut self, now: Interval, what: &ReadSet) -> Timestamp {
        let t_paxos = self.t_paxos(self.vow_max(now).map(|max| max.min(now.earliest())));
        self.prepared_in(what).map_or(t_paxos, |prepared| prepared.prev().min(t_paxos))
    }

    /// As a follower: which word of the leader's would let reads go on that wait for nothing that
    /// is on its way here. One for all of them, if their time is near.
    pub fn wants_word(&self, now: Interval) -> Option<Timestamp> {
        if self.leading.is_some() {
            return None;
        }
        let told = self.replicated.applied_at.max(self.reads.words.told());
        let max = ahead_max(now);
        let wanted = self.reads.pending.iter().map(|read| read.at);
        wanted.filter(|at| *at > told && *at <= max).max()
    }
}
