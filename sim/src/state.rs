//! What the world knows of its groups as a whole: who belongs to them, whether all is quiet and
//! everyone has the same.

use crate::checkers::atomicity;
use crate::history::Violation;
use crate::world::World;
use paxos::{Configuration, Payload, Position, Replica};
use proto::{GroupId, NodeId, Seat, codec};
use spanserver::meta;
use spanserver::storage::{Engine, Pinned};
use std::collections::BTreeSet;
use std::sync::Arc;

fn missing(rule: &str, what: String) -> Violation {
    Violation::new("progress", rule, what)
}

impl World {
    fn replicas(&self, group: GroupId) -> impl Iterator<Item = (NodeId, &Replica)> {
        self.node_ids().into_iter().filter_map(move |node| Some((node, self.replica(node, group)?)))
    }

    /// The newest configuration that some running replica knows to be chosen, and all newer ones
    /// that are in some log.
    fn configurations(&self, group: GroupId) -> Vec<(Position, &Configuration)> {
        let known = |replica: &Replica| replica.configuration().0.slot <= replica.positions().2;
        let chosen = self.replicas(group).filter(|(_, replica)| known(replica));
        let newest = chosen.map(|(_, replica)| replica.configuration().0).max();
        let newest = newest.unwrap_or_default();
        let all = self.replicas(group).map(|(_, replica)| replica.configuration());
        all.filter(|(at, configuration)| *at >= newest && !configuration.members.is_empty())
            .collect()
    }

    /// Whether every group has a quorum, in every configuration that may count, without these
    /// nodes and without those that do not remember what they said.
    pub(crate) fn bearable(&self, without: &BTreeSet<NodeId>) -> bool {
        self.groups.iter().all(|group| {
            let good = |configuration: &Configuration, node: NodeId| {
                let replica = self.replica(node, *group).filter(|_| !without.contains(&node));
                replica.is_some_and(|r| configuration.has(node, r.seat()) && !r.is_in_repair())
            };
            let all = self.configurations(*group);
            all.iter().all(|(_, c)| {
                let full = c.voters.iter().any(|node| !c.is_witness(*node) && good(c, *node));
                full && c.is_quorum(|node| good(c, node))
            })
        })
    }

    /// Whether all processes run, and every member of every group has the same configuration, which
    /// is chosen, and is about to change nothing.
    pub(crate) fn all_agree_on_members(&self) -> bool {
        let running = self.servers().count() == self.node_ids().len();
        running
            && self.groups.iter().all(|group| {
                let newest = self.configurations(*group).into_iter().max_by_key(|(at, _)| *at);
                let Some((at, configuration)) = newest.filter(|(_, c)| !c.is_joint()) else {
                    return false;
                };
                configuration.members.keys().all(|node| {
                    self.replica(*node, *group).is_some_and(|replica| {
                        replica.configuration().0 == at
                            && replica.positions().2 >= at.slot
                            && !replica.changing()
                    })
                })
            })
    }

    /// Whether a group counts on this node under a seat that it no longer has.
    pub(crate) fn has_lost_seat(&self, node: NodeId) -> bool {
        self.groups.iter().any(|group| {
            let Some(replica) = self.replica(node, *group) else { return true };
            let all = self.configurations(*group);
            all.iter().any(|(_, c)| c.members.contains_key(&node) && !c.has(node, replica.seat()))
        })
    }

    /// Whether the newest configuration that knows this life of the node's replica has it as a
    /// witness. It may not know so itself yet.
    fn is_witness(&self, node: NodeId, seat: Seat, group: GroupId) -> bool {
        let all = self.replicas(group).map(|(_, replica)| replica.configuration());
        let newest = all.filter(|(_, c)| c.has(node, seat)).max_by_key(|(at, _)| *at);
        // Known to none: what it was sent, perhaps as a witness to be, counts for nobody.
        newest.is_none_or(|(_, c)| c.is_witness(node))
    }

    /// Compares what a node's tablets hold with what others held that had applied as much; only
    /// at every `step`th slot.
    pub(crate) fn compare_contents(&mut self, node: NodeId, step: u64) -> Result<(), Violation> {
        for group in self.groups.clone() {
            // A witness has no tablet, and who was removed gives it up.
            let Some(replica) = self.replica(node, group).filter(|r| !r.is_removed()) else {
                continue;
            };
            if self.is_witness(node, replica.seat(), group) {
                continue;
            }
            let engine: Arc<dyn Engine> = self.node(node).engine.clone();
            let applied = meta::applied(engine.as_ref(), group).expect("memory reads");
            let slot = applied.position.slot;
            if slot.0 == 0 || slot.0 % step != 0 {
                continue;
            }
            let view = engine.pin().expect("memory reads");
            let digest = digest(view.as_ref(), group);
            let alike = self.watch.agreement.contents(node, group, slot, digest);
            self.judge(alike)?;
        }
        Ok(())
    }

    /// What is missing until every group is led, nothing is locked or prepared, and every member
    /// that can talk to the leader has applied the same.
    ///
    /// # Errors
    /// What is missing.
    pub fn check_level(&mut self) -> Result<(), Violation> {
        for group in self.groups.clone() {
            let (leader, applied) = self.check_led(group)?;
            let leading = self.replica(leader, group).ok_or(missing("P8", "gone".into()))?;
            let configuration = leading.configuration().1.clone();
            for node in configuration.members.keys().copied() {
                let cut = self.faults.lasting.contains(&(leader, node))
                    || self.faults.lasting.contains(&(node, leader))
                    || self.faults.buried.contains(&node);
                let replica = self.replica(node, group).filter(|_| !cut);
                let Some(replica) = replica else { continue };
                let has = replica.positions().3;
                if has != applied || replica.is_in_repair() {
                    let what = format!("{group}: {node} has applied {has}, the leader {applied}");
                    return Err(missing("P6", what));
                }
            }
        }
        for node in self.node_ids() {
            self.compare_contents(node, 1)?;
        }
        Ok(())
    }

    /// X6, X9: whether all groups have decided alike, by their logs and by what they remember.
    ///
    /// # Errors
    /// The violation.
    pub fn check_atomicity(&self) -> Result<(), Violation> {
        let commands = self.watch.agreement.all().filter_map(|(group, slot, entry)| {
            let Payload::Command(bytes) = &entry.payload else { return None };
            Some((group, slot, codec::decode(bytes).expect("what was applied is a command")))
        });
        atomicity::check(&commands.collect::<Vec<_>>())?;
        let tables = self.servers().flat_map(|(_, server)| server.groups());
        atomicity::check_tables(tables.flat_map(|(id, group)| {
            let outcomes = group.manager().replicated().outcomes.iter();
            outcomes.map(move |(txn, record)| (id, *txn, record.outcome))
        }))
    }

    /// Who leads a group, when it is quiet; and that it remembers what clients were told.
    fn check_led(&self, group: GroupId) -> Result<(NodeId, proto::Slot), Violation> {
        let groups = self.servers().filter_map(|(node, server)| {
            Some((node, server.groups().find(|(id, _)| *id == group)?.1))
        });
        // Somebody cut off may still believe to lead, under an older ballot.
        let led = groups.filter(|(_, g)| g.manager().serving().is_some());
        let Some((node, led)) = led.max_by_key(|(_, g)| g.manager().serving()) else {
            return Err(missing("P8", format!("nobody leads {group}")));
        };
        let replicated = led.manager().replicated();
        let left = replicated.prepared.len() + led.manager().lock_holders();
        if left > 0 {
            let what = format!("{group}: {left} transactions are left prepared or holding locks");
            return Err(Violation::new("locks", "X4/X10", what));
        }
        self.watch
            .durability
            .kept(group, |txn| replicated.outcomes.get(&txn).map(|record| record.outcome))?;
        Ok((node, led.replica().positions().3))
    }
}

/// A digest of what a tablet and its tables hold.
fn digest(view: &dyn Pinned, group: GroupId) -> u64 {
    let mut hash = Fnv(0xcbf2_9ce4_8422_2325);
    let page = view.read_versions(group, None, usize::MAX).expect("memory reads");
    for (key, at, value) in &page.versions {
        hash.add(&codec::encode(&(key, at, value)));
    }
    let tables = meta::replicated(view, group).expect("memory reads");
    hash.add(&codec::encode(&tables.applied_at));
    for record in tables.prepared.values() {
        hash.add(&codec::encode(record));
    }
    for (txn, record) in &tables.outcomes {
        hash.add(&codec::encode(&(txn, record)));
    }
    hash.0
}

struct Fnv(u64);

impl Fnv {
    fn add(&mut self, bytes: &[u8]) {
        for byte in bytes.iter().chain(&[0xff]) {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    }
}
