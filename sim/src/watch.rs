//! The checkers that look at a server after every step, and what they tell the world about.

use crate::checkers::agreement::Agreement;
use crate::checkers::durability::Durability;
use crate::checkers::lease_disjoint::{Lease, Leases};
use crate::checkers::locks;
use crate::history::Violation;
use crate::verdicts::Verdicts;
use paxos::{Payload, Position};
use proto::{Ballot, Command, GroupId, NodeId, Slot, TxnId, codec};
use spanserver::Server;
use spanserver::group::Group;
use std::collections::{BTreeMap, BTreeSet};
use truetime::Interval;

/// Something worth an ambush.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sighting {
    /// The node has just been elected in the group.
    Elected(NodeId, GroupId),
    /// The node has just learned, for the first time under its ballot, that something is chosen.
    Opened(NodeId, GroupId),
    /// The node, which leads the group, has just appended a configuration.
    Configured(NodeId, GroupId),
}

/// See the [module](self).
#[derive(Debug, Default)]
pub(crate) struct Watch {
    pub verdicts: Verdicts,
    leases: Leases,
    pub agreement: Agreement,
    pub durability: Durability,
    /// The last slot of each replica whose entry was compared.
    compared: BTreeMap<(NodeId, GroupId), Slot>,
    configured: BTreeMap<(NodeId, GroupId), Position>,
    led: BTreeSet<(GroupId, Ballot)>,
    /// What the last one elected knew to be chosen then, until it learns of more.
    chosen: BTreeMap<GroupId, (Ballot, Slot)>,
    last_leader: BTreeMap<GroupId, NodeId>,
    pub elections: u64,
    pub leader_changes: u64,
}

/// Keys and ranges that are looked at in one lock table.
const SPANS_MAX: usize = 256;

/// Whose decision is chosen and has not taken effect.
fn decided(replica: &paxos::Replica) -> Vec<TxnId> {
    let (_, _, chosen, applied) = replica.positions();
    let slots = (applied.0 + 1..=chosen.0).map(Slot);
    let commands = slots.filter_map(|slot| match &replica.entry(slot)?.payload {
        Payload::Command(bytes) => codec::decode(bytes).ok(),
        _ => None,
    });
    let decisions = commands.filter_map(|command| match command {
        Command::Decide { txn, .. } => Some(txn),
        _ => None,
    });
    decisions.collect()
}

impl Watch {
    /// Looks at all groups of a server.
    pub fn look(
        &mut self,
        absolute_ns: u64,
        now: Interval,
        node: NodeId,
        server: &Server,
    ) -> Result<Vec<Sighting>, Violation> {
        let mut sightings = Vec::new();
        for (id, group) in server.groups() {
            let replica = group.replica();
            let leading = replica.leading();
            self.leases.gone(id, node, leading);
            let who = (node, id, replica.seat());
            let (first, last, chosen, applied) = replica.positions();
            self.compare(absolute_ns, node, id, replica)?;
            let kept = self.durability.applied(who, replica.promised(), applied);
            self.verdicts.take(absolute_ns, kept)?;
            if !replica.is_in_repair() {
                self.durability.replaced(who, replica.last());
            }
            let Some(ballot) = leading else { continue };
            if self.led.insert((id, ballot)) {
                self.elections += 1;
                let changed = self.last_leader.insert(id, node) != Some(node);
                self.leader_changes += u64::from(changed);
                let has = |slot| replica.ballot_at(slot);
                let log = (first.prev(), last);
                let complete = self.durability.elected((id, ballot), log, has, &self.agreement);
                self.verdicts.take(absolute_ns, complete)?;
                sightings.push(Sighting::Elected(node, id));
                self.chosen.insert(id, (ballot, chosen));
            }
            if self.chosen.get(&id).is_some_and(|(b, before)| *b == ballot && chosen > *before) {
                self.chosen.remove(&id);
                sightings.push(Sighting::Opened(node, id));
            }
            if let (Some(start), Some(end)) = (replica.lease_start(), replica.lease_end()) {
                let s_max = group.manager().s_max();
                let lease = Lease { ballot, start, end, s_max };
                let disjoint = self.leases.check(absolute_ns, now, id, lease);
                self.verdicts.take(absolute_ns, disjoint)?;
            }
            self.look_at_locks(absolute_ns, group)?;
            let at = replica.configuration().0;
            let before = self.configured.insert((node, id), at);
            if before.is_some_and(|before| before != at) && at.ballot == ballot {
                sightings.push(Sighting::Configured(node, id));
            }
        }
        Ok(sightings)
    }

    fn look_at_locks(&mut self, absolute_ns: u64, group: &Group) -> Result<(), Violation> {
        let manager = group.manager();
        if manager.serving().is_none() || manager.lock_holders() == 0 {
            return Ok(());
        }
        let prepared = &manager.replicated().prepared;
        // Locks end as a decision is chosen, and it takes effect later.
        let decided = if prepared.is_empty() { Vec::new() } else { decided(group.replica()) };
        let undecided = prepared.values().filter(|record| !decided.contains(&record.txn));
        let held = locks::check(&manager.lock_report(SPANS_MAX), undecided);
        self.verdicts.take(absolute_ns, held)
    }

    fn compare(
        &mut self,
        absolute_ns: u64,
        node: NodeId,
        group: GroupId,
        replica: &paxos::Replica,
    ) -> Result<(), Violation> {
        let (first, _, _, applied) = replica.positions();
        let compared = self.compared.entry((node, group)).or_default();
        let mut slot = compared.next().max(first);
        while slot <= applied {
            if let Some(entry) = replica.entry(slot) {
                let agreed = self.agreement.check(node, group, slot, entry);
                self.verdicts.take(absolute_ns, agreed)?;
            }
            slot = slot.next();
        }
        *compared = applied;
        Ok(())
    }

    /// A server has started from its disk.
    pub fn restarted(
        &mut self,
        absolute_ns: u64,
        node: NodeId,
        server: &Server,
    ) -> Result<(), Violation> {
        for (id, group) in server.groups() {
            self.compared.remove(&(node, id));
            let replica = group.replica();
            let last = Some(replica.last()).filter(|_| !replica.is_in_repair());
            let who = (node, id, replica.seat());
            let kept = self.durability.restarted(who, replica.promised(), last);
            self.verdicts.take(absolute_ns, kept)?;
        }
        Ok(())
    }
}
