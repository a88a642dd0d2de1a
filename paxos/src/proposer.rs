//! Phase 2: a leader's accepts, its members' answers, and what becomes chosen.

use crate::ballot::Position;
use crate::lease::Lease;
use crate::membership::Change;
use crate::message::{Entry, Message, Output, Payload, Write};
use crate::progress::{Mode, Progress};
use crate::replica::{Replica, Role};
use crate::transfer::Transfer;
use bytes::Bytes;
use proto::plant::{Plant, planted};
use proto::{Ballot, NodeId, Slot};
use std::collections::BTreeMap;
use truetime::{Interval, Timestamp};

/// Bytes of entries sent along while it is not known where the logs agree.
const PROBE_BYTES_MAX: usize = 64 << 10;

/// What a replica has while it leads.
#[derive(Clone, Debug)]
pub(crate) struct Leading {
    pub ballot: Ballot,
    pub lease: Lease,
    /// The no-op that opens the ballot (P3).
    pub opening: Slot,
    /// Every other member.
    pub peers: BTreeMap<NodeId, Progress>,
    /// What the own disk holds (P4).
    own_accepted: Slot,
    /// Slots up to this one may leave every log.
    truncate: Slot,
    pub heartbeat_at: Timestamp,
    pub change: Option<Change>,
    pub transfer: Option<Transfer>,
    /// Snapshots begun.
    pub snapshots: u64,
    /// Heartbeats since anything happened.
    pub quiet: u32,
}

impl Leading {
    pub fn new(ballot: Ballot, lease: Lease, opening: Slot, truncate: Slot) -> Leading {
        Leading {
            ballot,
            lease,
            opening,
            peers: BTreeMap::new(),
            own_accepted: Slot::ZERO,
            truncate,
            heartbeat_at: Timestamp::MIN,
            change: None,
            transfer: None,
            snapshots: 0,
            quiet: 0,
        }
    }
}

impl Replica {
    /// Proposes a command; it goes out with the next [`flush`](Self::flush). `None`: not leading.
    ///
    /// Whoever takes requests from clients asks [`admits`](Self::admits) first; what those in
    /// progress still need is always taken.
    pub fn propose(&mut self, command: Bytes, out: &mut Output) -> Option<Slot> {
        self.leading()?;
        Some(self.append(Payload::Command(command), out))
    }

    /// Whether new requests may be taken on: leading, not handing over (P10), and not too much
    /// waiting to be chosen.
    pub fn admits(&self) -> bool {
        let limits = &self.config.limits;
        let waiting = self.acceptor.log.last_slot().0 - self.chosen.0;
        let leads = matches!(&self.role, Role::Leader(leading) if leading.transfer.is_none());
        leads && waiting < limits.unchosen_slots && self.unchosen_bytes() < limits.unchosen_bytes
    }

    fn unchosen_bytes(&self) -> usize {
        // Counted exactly only when it could matter.
        if self.acceptor.log.bytes() < self.config.limits.unchosen_bytes {
            return 0;
        }
        self.acceptor.log.from(self.chosen.next()).map(|(_, entry)| entry.payload.len()).sum()
    }

    /// Appends an entry under the own ballot.
    pub(crate) fn append(&mut self, payload: Payload, out: &mut Output) -> Slot {
        self.unflushed = true;
        if let Role::Leader(leading) = &mut self.role {
            leading.quiet = 0;
        }
        self.acceptor.propose(payload, out)
    }

    /// Sends what was proposed since the last flush: one message to each member, however many
    /// values (P5).
    pub fn flush(&mut self, now: Interval, out: &mut Output) {
        if std::mem::take(&mut self.unflushed) {
            self.own_accepted(now, out);
            self.send_accepts(now, false, out);
        }
    }

    /// The leader's own vote and copy count when its own disk has answered (P4): it tells itself.
    pub(crate) fn own_accepted(&mut self, now: Interval, out: &mut Output) {
        let Role::Leader(leading) = &self.role else { return };
        let (ballot, sent) = (leading.ballot, now.earliest());
        self.acceptor.grant(now, out);
        let (upto, applied) = (self.acceptor.held, self.applied);
        let accepted = Message::Accepted { ballot, upto, applied, asleep: false, sent };
        let node = self.config.node;
        if planted(Plant::OwnCopyUnsynced) {
            out.send.push((node, accepted));
            out.send.push((node, self.durable_message()));
            return;
        }
        out.send_after.push((node, accepted));
        out.send_after.push((node, self.durable_message()));
    }

    pub(crate) fn durable_message(&self) -> Message {
        Message::Durable { cuts: self.acceptor.cuts, last: self.acceptor.log.last_slot() }
    }

    /// Sends every member what it has not been sent; with `heartbeat`, at least an empty accept.
    pub(crate) fn send_accepts(&mut self, now: Interval, heartbeat: bool, out: &mut Output) {
        let Role::Leader(leading) = &mut self.role else { return };
        if heartbeat {
            // Whatever is sent besides: a heartbeat also finds out who has not answered.
            leading.heartbeat_at = now.latest().plus_micros(self.config.heartbeat_ms * 1_000);
        }
        let peers: Vec<NodeId> = leading.peers.keys().copied().collect();
        let sleep = heartbeat && self.time_to_sleep();
        for peer in peers {
            self.send_accept(now, peer, (heartbeat, sleep), out);
        }
    }

    /// Sends one member as much as its window takes.
    pub(crate) fn send_accept(
        &mut self,
        now: Interval,
        to: NodeId,
        (mut heartbeat, sleep): (bool, bool),
        out: &mut Output,
    ) {
        loop {
            self.snapshot_if_needed(now, to, out);
            let Some((prev, entries)) = self.next_message(now, to, heartbeat) else { return };
            let Role::Leader(leading) = &mut self.role else { return };
            let more = !entries.is_empty();
            if let Some(peer) = leading.peers.get_mut(&to).filter(|_| !sleep) {
                peer.asleep = false;
            }
            let message = Message::Accept {
                ballot: leading.ballot,
                prev,
                entries,
                chosen: self.chosen,
                truncate: leading.truncate,
                sleep,
                sent: now.earliest(),
            };
            out.send.push((to, message));
            if !more {
                return;
            }
            heartbeat = false;
        }
    }

    /// What to send a member next; `None`: nothing now.
    fn next_message(
        &mut self,
        now: Interval,
        to: NodeId,
        heartbeat: bool,
    ) -> Option<(Position, Vec<Entry>)> {
        let Role::Leader(leading) = &mut self.role else { return None };
        let peer = leading.peers.get_mut(&to)?;
        let limits = &self.config.limits;
        let log = &self.acceptor.log;
        let room = match &mut peer.mode {
            Mode::Replicate => peer.has_room(limits.ahead_slots, limits.ahead_bytes),
            Mode::Probe { again_after } => {
                let again = heartbeat || now.after(*again_after);
                *again_after = match again {
                    true => now.latest().plus_micros(self.config.heartbeat_ms * 1_000),
                    false => return None,
                };
                true
            }
            Mode::Snapshot(_) => false,
        };
        // A member that waits for a snapshot is only kept from campaigning; should it have the
        // whole log after all, it says so.
        let before = match peer.mode {
            Mode::Snapshot(_) => log.last_slot(),
            _ => peer.next.prev(),
        };
        let Some(ballot) = log.ballot_at(before) else {
            return heartbeat.then(|| (log.last(), Vec::new())); // its turn for a snapshot will come
        };
        let prev = Position { ballot, slot: before };
        let probing = matches!(peer.mode, Mode::Probe { .. });
        let bytes_max = if probing { PROBE_BYTES_MAX } else { limits.message_bytes };
        let mut entries = Vec::new();
        let mut bytes = 0;
        if room {
            for (_, entry) in log.from(peer.next) {
                let size = entry.payload.len();
                let full = bytes + size > bytes_max || entries.len() >= limits.message_slots;
                if full && !entries.is_empty() {
                    break;
                }
                bytes += size;
                entries.push(entry.clone());
            }
        }
        if entries.is_empty() {
            return (heartbeat || probing).then_some((prev, entries));
        }
        if !probing {
            peer.sent(Slot(before.0 + entries.len() as u64), bytes);
        }
        Some((prev, entries))
    }

    pub(crate) fn on_accept(
        &mut self,
        now: Interval,
        from: NodeId,
        (ballot, sent): (Ballot, Timestamp),
        (prev, entries): (Position, Vec<Entry>),
        (chosen, truncate, sleep): (Slot, Slot, bool),
        out: &mut Output,
    ) {
        if !self.heed(now, from, ballot, out) {
            return;
        }
        let wrote = !entries.is_empty();
        match self.acceptor.accept(prev, entries, self.chosen, out) {
            Err(hint) => {
                let prev = prev.slot;
                out.send_after.push((from, Message::Gap { ballot, prev, hint, sent }));
            }
            Ok(()) => {
                self.chosen = self.chosen.max(chosen.min(self.acceptor.held));
                self.truncate(truncate, out);
                let (upto, applied) = (self.acceptor.held, self.applied);
                let asleep = sleep && self.fall_asleep();
                let accepted = Message::Accepted { ballot, upto, applied, asleep, sent };
                out.send_after.push((from, accepted));
                if wrote {
                    out.send_after.push((self.config.node, self.durable_message()));
                }
                self.check();
            }
        }
    }

    /// A leader speaks: refuses an old one, follows a new one, grants the timed vote (L1).
    pub(crate) fn heed(
        &mut self,
        now: Interval,
        from: NodeId,
        ballot: Ballot,
        out: &mut Output,
    ) -> bool {
        let promised = self.acceptor.hard.promised;
        if ballot < promised || self.removed {
            out.send.push((from, Message::Reject { ballot, promised }));
            return false;
        }
        if ballot > promised {
            self.acceptor.promise(ballot, self.chosen, out);
        }
        self.acceptor.grant(now, out);
        self.asleep = false;
        self.follow(now, Some(from), out);
        true
    }

    pub(crate) fn on_accepted(
        &mut self,
        now: Interval,
        from: NodeId,
        (ballot, sent): (Ballot, Timestamp),
        (upto, applied, asleep): (Slot, Slot, bool),
        out: &mut Output,
    ) {
        let held = self.acceptor.held;
        let me = self.config.node;
        let Role::Leader(leading) = &mut self.role else { return };
        if leading.ballot != ballot {
            return;
        }
        assert!(upto <= held, "P2: {from} accepted {upto} beyond what was proposed, {held}");
        leading.lease.count(from, sent);
        if from == me {
            leading.own_accepted = upto.max(leading.own_accepted);
        } else if let Some(peer) = leading.peers.get_mut(&from) {
            peer.hear(now);
            peer.applied = applied.max(peer.applied);
            // Only as the answer to the last request, which has asked for it.
            peer.asleep |= asleep && upto == held && leading.quiet > 0;
            peer.accepted(upto);
            let base = self.acceptor.log.base().slot;
            match &peer.mode {
                Mode::Replicate => {}
                Mode::Probe { .. } => peer.replicate(),
                Mode::Snapshot(sending) if upto >= base => {
                    // Whatever the log still has needs no snapshot.
                    out.forget.push(sending.id);
                    peer.replicate();
                }
                Mode::Snapshot(sending) if sending.covers.is_some_and(|slot| slot <= upto) => {
                    // It has all of the snapshot, and the log has moved on meanwhile: another one.
                    out.forget.push(sending.id);
                    peer.probe(upto.next());
                }
                Mode::Snapshot(_) => {}
            }
        }
        self.choose();
        if from != me {
            self.send_accept(now, from, (false, false), out);
        }
        self.drive_change(now, out);
        self.check();
    }

    /// What a quorum holds of the own ballot is chosen, and everything before it.
    fn choose(&mut self) {
        let configuration = &self.acceptor.log.configuration().1;
        let Role::Leader(leading) = &self.role else { return };
        let me = self.config.node;
        let holds = |node| match leading.peers.get(&node) {
            _ if node == me => leading.own_accepted,
            Some(peer) => peer.accepted,
            None => Slot::ZERO,
        };
        let reached = configuration.reached(holds);
        // P3: copies of an older ballot's entry choose nothing; a later leader may not see them.
        if reached >= leading.opening || planted(Plant::OwnBallotOff) {
            self.chosen = self.chosen.max(reached);
        }
    }

    /// What every member has applied may leave the logs, and what only stragglers have not, once
    /// the log has grown too long: they will get a snapshot. Call it now and then.
    pub fn advance_truncation(&mut self, now: Interval, out: &mut Output) {
        let limits = &self.config.limits;
        let log = &self.acceptor.log;
        let length = log.last_slot().0 - log.base().slot.0;
        let times =
            |n: usize| log.bytes() > n * limits.log_bytes || length > n as u64 * limits.log_slots;
        let Role::Leader(leading) = &mut self.role else { return };
        let silent_us = 4 * self.config.lease_ms * 1_000;
        let upto = if times(4) {
            self.applied
        } else {
            let needed = leading.peers.values_mut().map(|peer| {
                let silent = now.after(peer.heard.plus_micros(silent_us));
                match peer.sending() {
                    // What follows the snapshot under way, or it would have been in vain.
                    Some(sending) => sending.covers.unwrap_or(Slot::ZERO),
                    None if times(1) && silent => Slot(u64::MAX),
                    None => peer.applied,
                }
            });
            needed.min().unwrap_or(self.applied).min(self.applied)
        };
        leading.truncate = upto.max(leading.truncate);
        let upto = leading.truncate;
        self.truncate(upto, out);
    }

    fn truncate(&mut self, mut upto: Slot, out: &mut Output) {
        let (at, configuration) = self.acceptor.log.configuration();
        if self.leading().is_some() && !configuration.members.contains_key(&self.config.node) {
            upto = upto.min(at.slot.prev()); // what it was is in the configuration before
        }
        if let Some(base) = self.acceptor.log.truncate(upto.min(self.applied)) {
            out.writes.push(Write::Truncate(base));
        }
    }
}
