//! Phase 2: a leader's accepts, a voter's answers, and the lease that comes with them.

use crate::message::{Message, Output, Write};
use crate::quorum::reached;
use crate::replica::{Replica, Role};
use bytes::Bytes;
use proto::{Ballot, NodeId, Slot};
use std::collections::BTreeMap;
use truetime::{Interval, Timestamp};

/// Bytes of values in one message, and slots sent ahead of an answer, to one peer.
const MESSAGE_BYTES_MAX: usize = 4 << 20;
const AHEAD_SLOTS_MAX: u64 = 4_096;

/// How far a peer is.
#[derive(Debug)]
struct Progress {
    /// Everything up to here is accepted there under the ballot, or chosen.
    accepted: Slot,
    /// The next slot to send; all before were sent and presumably arrive.
    next: Slot,
    /// Sending runs at most `AHEAD_SLOTS_MAX` beyond this, the last position it told us.
    told: Slot,
    applied: Slot,
}

/// What a replica has while it leads.
#[derive(Debug)]
pub(crate) struct Leading {
    pub ballot: Ballot,
    /// L2: the lease, and so every timestamp of this leader, begins after this instant.
    pub lease_start: Timestamp,
    /// The no-op that opens the ballot (P3).
    pub opening: Slot,
    peers: BTreeMap<NodeId, Progress>,
    own_accepted: Slot,
    /// For each voter, the instant before the newest request it answered (L2).
    counted: BTreeMap<NodeId, Timestamp>,
    truncated: Slot,
    pub heartbeat_at: Timestamp,
}

impl Leading {
    pub fn new(
        ballot: Ballot,
        lease_start: Timestamp,
        opening: Slot,
        peers: BTreeMap<NodeId, Slot>,
        counted: BTreeMap<NodeId, Timestamp>,
        truncated: Slot,
    ) -> Leading {
        let peers = peers.into_iter().map(|(peer, next)| {
            (peer, Progress { accepted: Slot::ZERO, next, told: next.prev(), applied: Slot::ZERO })
        });
        Leading {
            ballot,
            lease_start,
            opening,
            peers: peers.collect(),
            own_accepted: Slot::ZERO,
            counted,
            truncated,
            heartbeat_at: Timestamp::MIN,
        }
    }

    /// Whether a majority, or the own disk, has not answered for more than a lease beyond the
    /// lease. Then this leader serves nobody, and its heartbeats would only keep the followers'
    /// votes from a better one (P8).
    pub fn is_forsaken(&self, now: Interval, me: NodeId, voters: &[NodeId], lease_us: u64) -> bool {
        let own = self.counted.get(&me).copied().unwrap_or_default().plus_micros(lease_us);
        now.after(self.lease_end(voters, lease_us).min(own).plus_micros(lease_us))
    }

    /// The end of the lease: `lease_us` after the instant that a majority's answers go back to.
    pub fn lease_end(&self, voters: &[NodeId], lease_us: u64) -> Timestamp {
        let counted = voters.iter().map(|v| self.counted.get(v).copied().unwrap_or_default());
        match reached(counted) {
            Timestamp::MIN => Timestamp::MIN,
            instant => instant.plus_micros(lease_us),
        }
    }
}

impl Replica {
    /// Proposes a value; it goes out with the next [`flush`](Self::flush). `None`: not leading.
    pub fn propose(&mut self, payload: Bytes, out: &mut Output) -> Option<Slot> {
        let Role::Leader(leading) = &self.role else { return None };
        let slot = self.acceptor.held.next();
        let positions = (self.chosen, leading.opening);
        self.acceptor.accept(slot, vec![payload], positions, out);
        self.unflushed = true;
        Some(slot)
    }

    /// Sends what was proposed since the last flush: one message to each peer, however many
    /// values (P5).
    pub fn flush(&mut self, now: Interval, out: &mut Output) {
        if std::mem::take(&mut self.unflushed) {
            self.own_accepted(now, out);
            self.send_accepts(now, out);
        }
    }

    /// The leader's own vote and copy count when its own disk has answered (P4): it tells itself.
    pub(crate) fn own_accepted(&mut self, now: Interval, out: &mut Output) {
        let Role::Leader(leading) = &self.role else { return };
        let (ballot, sent) = (leading.ballot, now.earliest());
        self.acceptor.grant(now, out);
        let (upto, applied) = (self.acceptor.held, self.applied);
        let node = self.config.node;
        out.send_after.push((node, Message::Accepted { ballot, upto, applied, sent }));
        self.announce_durable(out);
    }

    pub(crate) fn announce_durable(&self, out: &mut Output) {
        let message =
            Message::Durable { rewrites: self.acceptor.rewrites, last: self.acceptor.log.last() };
        out.send_after.push((self.config.node, message));
    }

    /// Sends every peer what it has not been sent, or a heartbeat.
    pub(crate) fn send_accepts(&mut self, now: Interval, out: &mut Output) {
        let Role::Leader(leading) = &mut self.role else { return };
        leading.heartbeat_at = now.latest().plus_micros(self.config.heartbeat_ms * 1_000);
        let peers: Vec<NodeId> = leading.peers.keys().copied().collect();
        for peer in peers {
            self.send_accept(now, peer, out);
        }
    }

    fn send_accept(&mut self, now: Interval, to: NodeId, out: &mut Output) {
        let Role::Leader(leading) = &mut self.role else { return };
        let Some(peer) = leading.peers.get_mut(&to) else { return };
        let first = peer.next;
        let mut payloads: Vec<Bytes> = Vec::new();
        let mut bytes = 0;
        for (slot, entry) in self.acceptor.log.from(first) {
            // P3: what was recovered goes out whole; only what is chosen may be cut up.
            let whole = slot > self.chosen && slot <= leading.opening;
            let too_far = slot.0 > peer.told.0 + AHEAD_SLOTS_MAX;
            let too_large = !payloads.is_empty() && bytes + entry.payload.len() > MESSAGE_BYTES_MAX;
            if slot > self.acceptor.held || (!whole && (too_far || too_large)) {
                break;
            }
            bytes += entry.payload.len();
            payloads.push(entry.payload.clone());
            peer.next = slot.next();
        }
        let message = Message::Accept {
            ballot: leading.ballot,
            first,
            payloads,
            chosen: self.chosen,
            opening: leading.opening,
            truncate: leading.truncated,
            sent: now.earliest(),
        };
        out.send.push((to, message));
    }

    pub(crate) fn on_accept(
        &mut self,
        now: Interval,
        from: NodeId,
        (ballot, sent): (Ballot, Timestamp),
        (first, payloads): (Slot, Vec<Bytes>),
        (chosen, opening, truncate): (Slot, Slot, Slot),
        out: &mut Output,
    ) {
        let promised = self.acceptor.hard.promised;
        if ballot < promised {
            out.send.push((from, Message::Reject { ballot, promised }));
            return;
        }
        if ballot > promised {
            self.acceptor.promise(ballot, self.chosen, out);
        }
        self.acceptor.grant(now, out);
        self.follow(now, Some(from));
        self.applied_before(truncate);
        if first > self.acceptor.held.next() {
            let expect = self.acceptor.held.next();
            out.send_after.push((from, Message::Gap { ballot, expect }));
            return;
        }
        let wrote = !payloads.is_empty();
        self.acceptor.accept(first, payloads, (chosen, opening), out);
        self.chosen = self.chosen.max(chosen.min(self.acceptor.held));
        self.truncate(truncate, out);
        let (upto, applied) = (self.acceptor.held, self.applied);
        out.send_after.push((from, Message::Accepted { ballot, upto, applied, sent }));
        if wrote {
            self.announce_durable(out);
        }
        self.check();
    }

    pub(crate) fn on_accepted(
        &mut self,
        now: Interval,
        from: NodeId,
        (ballot, sent): (Ballot, Timestamp),
        (upto, applied): (Slot, Slot),
        out: &mut Output,
    ) {
        let held = self.acceptor.held;
        let Role::Leader(leading) = &mut self.role else { return };
        if leading.ballot != ballot {
            return;
        }
        assert!(upto <= held, "{from} accepted {upto} beyond what was proposed, {held}");
        let counted = leading.counted.entry(from).or_default();
        *counted = sent.max(*counted);
        let mut more = false;
        if from == self.config.node {
            leading.own_accepted = upto.max(leading.own_accepted);
        } else if let Some(peer) = leading.peers.get_mut(&from) {
            peer.accepted = upto.max(peer.accepted);
            peer.told = upto.max(peer.told);
            peer.applied = applied.max(peer.applied);
            peer.next = peer.next.max(upto.next());
            more = peer.next <= held;
        }
        let copies = leading.peers.values().map(|p| p.accepted).chain([leading.own_accepted]);
        let chosen = reached(copies);
        // P3: all of this ballot's slots carry this ballot, so counting them chooses them.
        self.chosen = self.chosen.max(chosen);
        if more {
            self.send_accept(now, from, out);
        }
        self.check();
    }

    pub(crate) fn on_gap(
        &mut self,
        now: Interval,
        from: NodeId,
        ballot: Ballot,
        expect: Slot,
        out: &mut Output,
    ) {
        let first = self.acceptor.log.first();
        let Role::Leader(leading) = &mut self.role else { return };
        let Some(peer) = leading.peers.get_mut(&from) else { return };
        if leading.ballot != ballot || expect > peer.next {
            return;
        }
        // Below `first` it holds everything: it will see so by `Accept::truncate`. It may ask for
        // what it once had: a restart forgets which slots were known chosen.
        peer.next = expect.max(first);
        peer.told = peer.next.prev();
        self.send_accept(now, from, out);
    }

    /// Every replica has applied up to `truncated`, this one too, perhaps in an earlier life whose
    /// unsynced end is lost. It applied from its own durable log, so the values there are the
    /// chosen ones.
    fn applied_before(&mut self, truncated: Slot) {
        if truncated > self.chosen {
            let last = self.acceptor.log.last();
            assert!(truncated <= last, "P1: {truncated} was applied here, the log ends at {last}");
            self.chosen = truncated;
            self.acceptor.held = self.acceptor.held.max(truncated);
        }
    }

    /// What every replica has applied may leave the log. Call it now and then.
    pub fn advance_truncation(&mut self, out: &mut Output) {
        let Role::Leader(leading) = &mut self.role else { return };
        let everywhere = leading
            .peers
            .values()
            .map(|p| p.applied)
            .chain([self.applied])
            .min()
            .unwrap_or_default();
        leading.truncated = everywhere.max(leading.truncated);
        let upto = leading.truncated;
        self.truncate(upto, out);
    }

    fn truncate(&mut self, upto: Slot, out: &mut Output) {
        let upto = upto.min(self.applied);
        if self.acceptor.log.truncate(upto) {
            out.writes.push(Write::Truncate { upto });
        }
    }
}
