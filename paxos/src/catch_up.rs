//! Members that lack something: where the logs agree (P6), and snapshots (P7).
//!
//! ```text
//!   leader                                    member
//!     │ Accept(prev b3#90) ──────────────────▶ │ ends with b2#70
//!     │ ◀────────────────── Gap(hint b2#70)    │
//!     │ Accept(prev b2#65, ...)  ────────────▶ │   one round trip for each ballot that differs
//!     │ ◀────────────────── Accepted           │
//! ```
//! When the leader's log begins behind the place where they agree, the member gets a snapshot: the
//! tablet as of one applied slot, in parts with checksums, one at a time and no faster than
//! configured. A part that is lost is sent again; a member that was away goes on where it was.

use crate::ballot::Position;
use crate::message::{Base, Chunk, ChunkWanted, Message, Output, SnapshotId, Write};
use crate::progress::{Mode, Sending};
use crate::replica::{Replica, Role};
use bytes::Bytes;
use proto::plant::{Plant, planted};
use proto::{Ballot, NodeId, Slot};
use truetime::{Interval, Timestamp};

/// Snapshots a leader sends at one time.
const SNAPSHOTS_MAX: usize = 2;
/// After so many leases of silence, what is kept for a snapshot is let go.
const PATIENCE_LEASES: u64 = 40;

/// A snapshot that is being received.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Receiving {
    id: SnapshotId,
    /// The part that is wanted next.
    next: u64,
}

impl Replica {
    pub(crate) fn on_gap(
        &mut self,
        now: Interval,
        from: NodeId,
        (ballot, sent): (Ballot, Timestamp),
        (prev, hint): (Slot, Position),
        out: &mut Output,
    ) {
        let Role::Leader(leading) = &mut self.role else { return };
        if leading.ballot != ballot {
            return;
        }
        leading.lease.count(from, sent);
        let Some(peer) = leading.peers.get_mut(&from) else { return };
        peer.hear(now);
        // An answer from before it had what it has now; or to an earlier probe, perhaps repeated on
        // its way: answering each would multiply them. Or the snapshot is on its way.
        let current = match &peer.mode {
            Mode::Replicate => prev >= peer.accepted,
            Mode::Probe { .. } => prev == peer.next.prev(),
            Mode::Snapshot(_) => false,
        };
        if !current {
            return;
        }
        let log = &self.acceptor.log;
        let next = match log.may_agree(hint.slot.min(prev.prev()), hint.ballot) {
            Some(position) => position.slot.next(),
            None => hint.slot.next().min(log.base().slot),
        };
        peer.probe(next);
        self.send_accept(now, from, (false, false), out);
    }

    /// A member whose next entry has left the log gets a snapshot, when it is its turn.
    pub(crate) fn snapshot_if_needed(&mut self, now: Interval, to: NodeId, out: &mut Output) {
        let base = self.acceptor.log.base().slot;
        let witness = self.acceptor.log.configuration().1.is_witness(to);
        // A witness has no tablet to send; it only leads until somebody else can. And it gets none:
        // but then what it gets must say that it is one, or it would serve from an empty tablet.
        let told = self.acceptor.log.configuration_at(self.applied).1.is_witness(to) == witness;
        let can = told && (!self.is_witness() || witness);
        let again_after = self.again_after(now);
        let Role::Leader(leading) = &mut self.role else { return };
        let under_way = leading.peers.values_mut().filter_map(|peer| peer.sending()).count();
        let Some(peer) = leading.peers.get_mut(&to) else { return };
        let there = !now.after(peer.heard.plus_micros(2 * self.config.lease_ms * 1_000));
        let lost = there && matches!(peer.mode, Mode::Probe { .. }) && peer.next <= base;
        if !lost || under_way >= SNAPSHOTS_MAX || !can {
            return;
        }
        leading.snapshots += 1;
        let id = SnapshotId { ballot: leading.ballot, number: leading.snapshots };
        peer.mode = Mode::Snapshot(Sending { id, index: 0, covers: None, again_after });
        out.read.push(ChunkWanted { id, index: 0, empty: witness });
    }

    fn again_after(&self, now: Interval) -> Timestamp {
        now.latest().plus_micros(self.config.lease_ms * 1_000)
    }

    /// The part of a snapshot that was wanted has been read.
    pub fn chunk_read(
        &mut self,
        now: Interval,
        (id, index): (SnapshotId, u64),
        base: Base,
        (data, last): (Bytes, bool),
        out: &mut Output,
    ) {
        let again_after = self.again_after(now);
        let Role::Leader(leading) = &mut self.role else { return out.forget.push(id) };
        let ballot = leading.ballot;
        let found = leading.peers.iter_mut().find_map(|(node, peer)| {
            let sending = peer.sending().filter(|sending| sending.id == id)?;
            Some((*node, sending))
        });
        let Some((to, sending)) = found else { return out.forget.push(id) };
        if sending.index != index {
            return;
        }
        sending.covers = Some(base.position.slot);
        sending.again_after = again_after;
        let checksum = crc32fast::hash(&data);
        let chunk = Chunk { id, index, base, data, checksum, last };
        out.send.push((to, Message::Chunk { ballot, chunk }));
    }

    pub(crate) fn on_chunk_taken(
        &mut self,
        now: Interval,
        from: NodeId,
        (ballot, id, next): (Ballot, SnapshotId, u64),
        out: &mut Output,
    ) {
        let pace_us = self.config.limits.chunk_us;
        let Role::Leader(leading) = &mut self.role else { return };
        let Some(peer) = leading.peers.get_mut(&from).filter(|_| leading.ballot == ballot) else {
            return;
        };
        peer.hear(now);
        let Some(sending) = peer.sending().filter(|sending| sending.id == id) else { return };
        if next == sending.index {
            return; // sent already; should it be lost, time brings it again
        }
        sending.index = next;
        sending.again_after = match pace_us {
            0 => Timestamp::MIN,
            _ => now.latest().plus_micros(pace_us),
        };
        self.send_chunks(now, out);
    }

    /// Asks for the parts whose time has come: the next ones, and those that got no answer. A
    /// member that is silent for long will begin with a new snapshot when it is back.
    pub(crate) fn send_chunks(&mut self, now: Interval, out: &mut Output) {
        let again_after = self.again_after(now);
        let patience_us = PATIENCE_LEASES * self.config.lease_ms * 1_000;
        let configuration = &self.acceptor.log.configuration().1;
        let Role::Leader(leading) = &mut self.role else { return };
        for (node, peer) in &mut leading.peers {
            let empty = configuration.is_witness(*node);
            let silent = now.after(peer.heard.plus_micros(patience_us));
            let next = peer.next;
            let Some(sending) = peer.sending().filter(|s| now.after(s.again_after)) else {
                continue;
            };
            if silent {
                out.forget.push(sending.id);
                peer.probe(next);
                continue;
            }
            sending.again_after = again_after;
            out.read.push(ChunkWanted { id: sending.id, index: sending.index, empty });
        }
    }

    /// When the next part is due.
    pub(crate) fn chunks_at(&self) -> Timestamp {
        let Role::Leader(leading) = &self.role else { return Timestamp::MAX };
        let due = leading.peers.values().filter_map(|peer| match &peer.mode {
            Mode::Snapshot(sending) => Some(sending.again_after),
            _ => None,
        });
        due.min().unwrap_or(Timestamp::MAX)
    }

    pub(crate) fn on_chunk(
        &mut self,
        now: Interval,
        from: NodeId,
        ballot: Ballot,
        chunk: Chunk,
        out: &mut Output,
    ) {
        if !self.heed(now, from, ballot, out) {
            return;
        }
        let Chunk { id, index, base, data, checksum, last } = chunk;
        // P6: an older snapshot never replaces newer state.
        let old = base.position.slot <= self.applied && !planted(Plant::OldSnapshotWins);
        if old {
            return self.say_what_is_held(from, ballot, out);
        }
        if index == 0 && self.receiving.is_none_or(|receiving| receiving.id != id) {
            self.receiving = Some(Receiving { id, next: 0 });
        }
        let receiving = match &mut self.receiving {
            Some(receiving) if receiving.id == id => receiving,
            _ => {
                out.send_after.push((from, Message::ChunkTaken { ballot, id, next: 0 }));
                return;
            }
        };
        if index != receiving.next || checksum != crc32fast::hash(&data) {
            let next = receiving.next;
            out.send_after.push((from, Message::ChunkTaken { ballot, id, next }));
            return;
        }
        receiving.next += 1;
        let next = receiving.next;
        let stage = if index == 0 { Write::StageFirst(data) } else { Write::StageMore(data) };
        out.writes.push(stage);
        if !last {
            out.send_after.push((from, Message::ChunkTaken { ballot, id, next }));
            return;
        }
        self.receiving = None;
        self.install(base, out);
        self.say_what_is_held(from, ballot, out);
    }

    /// P6: the snapshot takes the place of what was applied, and of the log before it; what the log
    /// has behind it, and what was chosen there, stays.
    fn install(&mut self, base: Base, out: &mut Output) {
        let slot = base.position.slot;
        self.acceptor.install(base, out);
        self.applied = slot;
        self.chosen = self.chosen.max(slot).min(self.acceptor.log.last_slot());
        out.send_after.push((self.config.node, self.durable_message()));
        self.check();
    }

    /// The leader may go on from what is chosen here.
    fn say_what_is_held(&mut self, to: NodeId, ballot: Ballot, out: &mut Output) {
        let (upto, applied) = (self.acceptor.held.max(self.chosen), self.applied);
        let sent = Timestamp::MIN; // proves nothing about when it was asked
        let asleep = false;
        out.send_after.push((to, Message::Accepted { ballot, upto, applied, asleep, sent }));
    }
}
