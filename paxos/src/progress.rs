//! How far a member is, as its leader knows it, and what may be sent to it (P6).
//!
//! ```text
//!             accepted            gap
//!      Probe ─────────▶ Replicate ───▶ Probe        one message at a time / a window of them
//!        │ log gone        ▲
//!        ▼                 │ installed
//!     Snapshot ────────────┘                         parts of a snapshot, one at a time
//! ```

use crate::message::SnapshotId;
use proto::Slot;
use std::collections::VecDeque;
use truetime::{Interval, Timestamp};

/// How a member is served.
#[derive(Clone, Debug)]
pub(crate) enum Mode {
    /// Where its log agrees with the leader's is being found out: nothing more is sent until it
    /// answers, or this has passed.
    Probe { again_after: Timestamp },
    /// Everything before `next` was sent and presumably arrives.
    Replicate,
    /// It lacks what the leader's log has forgotten.
    Snapshot(Sending),
}

/// A snapshot on its way to a member.
#[derive(Clone, Debug)]
pub(crate) struct Sending {
    pub id: SnapshotId,
    /// The part that is wanted next.
    pub index: u64,
    /// What the snapshot holds, once the first part was read.
    pub covers: Option<Slot>,
    /// The part is not asked for again before: its answer is awaited, or the rate is kept.
    pub again_after: Timestamp,
}

/// See the [module](self).
///
/// Invariant: `accepted < next`, `in_flight` covers the slots between them in order.
#[derive(Clone, Debug)]
pub(crate) struct Progress {
    pub mode: Mode,
    /// Everything up to here is in its log, as in the leader's.
    pub accepted: Slot,
    /// What it has applied.
    pub applied: Slot,
    /// The next slot to send.
    pub next: Slot,
    /// It has been asked to sleep, and does.
    pub asleep: bool,
    /// When it was heard last; until it has answered, when it became a peer.
    pub heard: Timestamp,
    /// Whether it has answered.
    pub answered: bool,
    /// Messages without an answer: last slot and bytes.
    in_flight: VecDeque<(Slot, usize)>,
    in_flight_bytes: usize,
}

impl Progress {
    /// A member of which nothing is known yet.
    pub fn new(next: Slot, now: Timestamp) -> Progress {
        Progress {
            mode: Mode::Probe { again_after: Timestamp::MIN },
            accepted: Slot::ZERO,
            applied: Slot::ZERO,
            next,
            asleep: false,
            heard: now,
            answered: false,
            in_flight: VecDeque::new(),
            in_flight_bytes: 0,
        }
    }

    /// It has said something.
    pub fn hear(&mut self, now: Interval) {
        self.heard = now.latest();
        self.answered = true;
    }

    /// Whether entries may be sent: the window of slots and bytes is not full.
    pub fn has_room(&self, slots_max: u64, bytes_max: usize) -> bool {
        let slots = self.next.0 - self.accepted.0.min(self.next.0);
        matches!(self.mode, Mode::Replicate)
            && (self.in_flight.is_empty()
                || (slots < slots_max && self.in_flight_bytes < bytes_max))
    }

    /// Entries up to `last` were sent.
    pub fn sent(&mut self, last: Slot, bytes: usize) {
        self.next = last.next();
        self.in_flight.push_back((last, bytes));
        self.in_flight_bytes += bytes;
    }

    /// Its log equals the leader's up to here.
    pub fn accepted(&mut self, upto: Slot) {
        self.accepted = self.accepted.max(upto);
        self.next = self.next.max(self.accepted.next());
        while self.in_flight.front().is_some_and(|(last, _)| *last <= upto) {
            if let Some((_, bytes)) = self.in_flight.pop_front() {
                self.in_flight_bytes -= bytes;
            }
        }
    }

    /// Goes back to looking for where the logs agree.
    pub fn probe(&mut self, next: Slot) {
        self.mode = Mode::Probe { again_after: Timestamp::MIN };
        self.next = next;
        // What it once had may be lost with its disk: only what it says now counts.
        self.accepted = self.accepted.min(next.prev());
        self.in_flight.clear();
        self.in_flight_bytes = 0;
    }

    /// Goes over to sending whatever there is.
    pub fn replicate(&mut self) {
        self.mode = Mode::Replicate;
        self.next = self.accepted.next();
        self.in_flight.clear();
        self.in_flight_bytes = 0;
    }

    /// The snapshot under way to it.
    pub fn sending(&mut self) -> Option<&mut Sending> {
        match &mut self.mode {
            Mode::Snapshot(sending) => Some(sending),
            _ => None,
        }
    }
}
