//! What must hold after every step, whatever the schedule.

use paxos::{Entry, Replica};
use proto::{Ballot, NodeId, Slot};
use std::collections::BTreeMap;
use truetime::{Interval, Timestamp};

/// When a leader may have handed out timestamps.
#[derive(Clone, Copy, Debug)]
struct Held {
    start: Timestamp,
    end: Timestamp,
    given_up: bool,
}

#[derive(Debug, Default)]
pub struct Checks {
    /// What was applied anywhere, and by whom first.
    pub applied: BTreeMap<Slot, (NodeId, Entry)>,
    leases: BTreeMap<Ballot, Held>,
    pub violations: Vec<String>,
}

impl Checks {
    /// P2: what is applied in a slot is applied everywhere.
    pub fn applied(&mut self, node: NodeId, slot: Slot, entry: &Entry) -> Option<String> {
        let (first, chosen) = self.applied.entry(slot).or_insert_with(|| (node, entry.clone()));
        (chosen != entry).then(|| {
            let [a, b] = [chosen, entry].map(|e| super::notation::entry(slot, e));
            format!("P2: {first} applied {a}, {node} applied {b}")
        })
    }

    /// P10: no timestamp of this leader lies beyond now.
    pub fn lease_given_up(&mut self, leading: Option<Ballot>, now: Interval) {
        if let Some(held) = leading.and_then(|ballot| self.leases.get_mut(&ballot)) {
            held.end = held.end.min(now.earliest().prev());
            held.given_up = true;
        }
    }

    pub fn after_step(&mut self, node: NodeId, replica: &Replica, now: Interval) -> Vec<String> {
        let mut complaints = Vec::new();
        let (first, last, chosen, applied) = replica.positions();
        if !(first.prev() <= applied && applied <= chosen && chosen <= last) {
            let order = format!("{} ≤ {applied} ≤ {chosen} ≤ {last}", first.prev());
            complaints.push(format!("P2: positions of {node} out of order: {order}"));
        }
        let lease = replica.leading().zip(replica.lease_start().zip(replica.lease_end()));
        if let Some((ballot, (start, end))) = lease {
            complaints.extend(self.lease_of(ballot, start, end, now));
        }
        complaints
    }

    /// L3: the intervals in which two leaders may hand out timestamps are disjoint.
    fn lease_of(
        &mut self,
        ballot: Ballot,
        start: Timestamp,
        end: Timestamp,
        now: Interval,
    ) -> Option<String> {
        let held = self.leases.entry(ballot).or_insert(Held { start, end, given_up: false });
        if held.given_up {
            return Some(format!("L5: {ballot} leads after it gave its lease up, at {now}"));
        }
        held.end = held.end.max(end);
        let held = *held;
        let overlap = |(_, other): &(&Ballot, &Held)| {
            other.start <= other.end
                && held.start <= held.end
                && other.start <= held.end
                && held.start <= other.end
        };
        let others = self.leases.iter().filter(|(other, _)| **other != ballot);
        let (other, found) = others.into_iter().find(overlap)?;
        let [a, b] = [held, *found].map(|h| {
            format!("{}..{}", super::notation::time(h.start), super::notation::time(h.end))
        });
        Some(format!("L3: leases overlap: {ballot} {a}, {other} {b}"))
    }
}
