//! P1, P3: what anybody was told, or has applied, is never missing again.
//!
//! Five statements, each exact:
//! 1. A promise that left a process is on its disk when it starts again, under the same seat.
//! 2. So is the log up to every position it said it had accepted (or something newer stands there),
//!    unless the disk has damaged it and the replica knows.
//! 3. While a process runs, the applied slot of a replica does not fall.
//! 4. Whoever is elected has every slot that was applied anywhere under an earlier ballot: with the
//!    same entry, or behind the beginning of its log.
//! 5. A commit that a client was told of is in the outcome table of the group in the end.

use super::agreement::Agreement;
use crate::history::Violation;
use paxos::Position;
use proto::request::Outcome;
use proto::{Ballot, GroupId, NodeId, Seat, Slot, TxnId};
use std::collections::BTreeMap;
use truetime::Timestamp;

/// What one life of a replica has said.
#[derive(Clone, Copy, Debug, Default)]
struct Said {
    promised: Ballot,
    accepted: Position,
}

/// See the [module](self).
#[derive(Debug, Default)]
pub struct Durability {
    said: BTreeMap<(NodeId, GroupId, Seat), Said>,
    running: BTreeMap<(NodeId, GroupId), (Seat, Slot)>,
    /// The highest slot that was applied by somebody whose promise was this, of each group.
    applied: BTreeMap<GroupId, BTreeMap<Ballot, Slot>>,
    acknowledged: BTreeMap<(GroupId, TxnId), Timestamp>,
}

fn broken(rule: &str, what: String) -> Violation {
    Violation::new("durability", rule, what)
}

impl Durability {
    /// A promise leaves a process.
    pub fn promised(&mut self, node: NodeId, group: GroupId, seat: Seat, ballot: Ballot) {
        let said = self.said.entry((node, group, seat)).or_default();
        said.promised = said.promised.max(ballot);
    }

    /// "Accepted up to here" leaves a process.
    pub fn accepted(&mut self, node: NodeId, group: GroupId, seat: Seat, position: Position) {
        let said = self.said.entry((node, group, seat)).or_default();
        said.accepted = said.accepted.max(position);
    }

    /// A running replica's log ends at `last`: a snapshot may have taken the place of entries that
    /// its leader knows were never chosen, and with them of what was said about them.
    pub fn replaced(&mut self, who: (NodeId, GroupId, Seat), last: Position) {
        if let Some(said) = self.said.get_mut(&who) {
            said.accepted = said.accepted.min(last);
        }
    }

    /// A process has started again: judges what its disk remembers. `last` is `None` while the
    /// replica knows that its log is damaged.
    ///
    /// # Errors
    /// The violation.
    pub fn restarted(
        &mut self,
        (node, group, seat): (NodeId, GroupId, Seat),
        promised: Ballot,
        last: Option<Position>,
    ) -> Result<(), Violation> {
        self.running.remove(&(node, group));
        let said = self.said.get(&(node, group, seat)).copied().unwrap_or_default();
        if promised < said.promised {
            let what = format!("{group}: {node} promised {} and forgot it", said.promised);
            return Err(broken("P1", what));
        }
        if let Some(last) = last.filter(|last| *last < said.accepted) {
            let what = format!(
                "{group}: {node} accepted up to {}, after a restart its log ends with {last}",
                said.accepted
            );
            return Err(broken("P1", what));
        }
        Ok(())
    }

    /// Judges how far a running replica has applied; `promised` is what it has promised by now,
    /// so no leader of a later ballot may lack the slot.
    ///
    /// # Errors
    /// The violation.
    pub fn applied(
        &mut self,
        (node, group, seat): (NodeId, GroupId, Seat),
        promised: Ballot,
        slot: Slot,
    ) -> Result<(), Violation> {
        let before = self.running.insert((node, group), (seat, slot));
        if let Some((_, was)) = before.filter(|(held, was)| *held == seat && *was > slot) {
            let what = format!("{group}: {node} had applied {was}, now only {slot}");
            return Err(broken("P6", what));
        }
        let applied = self.applied.entry(group).or_default();
        if applied.range(..=promised).next_back().is_none_or(|(_, known)| *known < slot) {
            applied.insert(promised, slot);
            // Later ones that say no more are left out.
            let mut after = applied.split_off(&promised);
            after.retain(|ballot, known| *ballot == promised || *known > slot);
            applied.extend(after);
        }
        Ok(())
    }

    /// Somebody is elected under `ballot`, with a log that begins behind `base` and ends with
    /// `last`; `entry` tells the ballot of what it has between them.
    ///
    /// # Errors
    /// The violation.
    pub fn elected(
        &self,
        (group, ballot): (GroupId, Ballot),
        (base, last): (Slot, Slot),
        entry: impl Fn(Slot) -> Option<Ballot>,
        agreement: &Agreement,
    ) -> Result<(), Violation> {
        let applied = self.applied.get(&group).and_then(|a| a.range(..=ballot).next_back());
        let Some((under, applied)) = applied else { return Ok(()) };
        if last < *applied {
            let what = format!(
                "{group}: {ballot} is elected with a log that ends at {last}, but {applied} was \
                 applied under {under}"
            );
            return Err(broken("P3", what));
        }
        for slot in (base.next().0..=applied.0).map(Slot) {
            let Some(chosen) = agreement.chosen(group, slot) else { continue };
            if entry(slot) != Some(chosen.ballot) {
                let what = format!(
                    "{group} {slot}: {ballot} is elected with another entry than the one of {} \
                     that was applied",
                    chosen.ballot
                );
                return Err(broken("P3", what));
            }
        }
        Ok(())
    }

    /// A client is told of a commit.
    pub fn acknowledged(&mut self, group: GroupId, txn: TxnId, at: Timestamp) {
        self.acknowledged.insert((group, txn), at);
    }

    /// Judges, at the end, the outcome table of a group.
    ///
    /// # Errors
    /// The violation.
    pub fn kept(
        &self,
        group: GroupId,
        outcome: impl Fn(TxnId) -> Option<Outcome>,
    ) -> Result<(), Violation> {
        for ((of, txn), at) in &self.acknowledged {
            if *of == group && outcome(*txn) != Some(Outcome::Committed(*at)) {
                let what = format!("{group}: {txn} was acknowledged at {at} and is not there");
                return Err(broken("P1/X9", what));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use paxos::{Entry, Payload};

    const WHO: (NodeId, GroupId, Seat) = (NodeId(1), GroupId(1), Seat(1));
    const AFTER: (NodeId, GroupId, Seat) = (NodeId(1), GroupId(1), Seat(9));

    fn ballot(round: u64) -> Ballot {
        Ballot { round, node: NodeId(1) }
    }

    fn position(round: u64, slot: u64) -> Position {
        Position { ballot: ballot(round), slot: Slot(slot) }
    }

    #[test]
    fn catches_a_promise_that_is_forgotten() {
        let mut durability = Durability::default();
        durability.promised(WHO.0, WHO.1, WHO.2, ballot(3));
        assert!(durability.restarted(WHO, ballot(3), None).is_ok());
        assert!(durability.restarted(AFTER, ballot(0), None).is_ok());
        assert!(durability.restarted(WHO, ballot(2), None).is_err());
    }

    #[test]
    fn catches_a_log_that_is_shorter_than_what_was_said() {
        let mut durability = Durability::default();
        durability.accepted(WHO.0, WHO.1, WHO.2, position(2, 7));
        for good in [Some(position(2, 7)), Some(position(3, 5)), None] {
            assert!(durability.restarted(WHO, ballot(3), good).is_ok());
        }
        assert!(durability.restarted(WHO, ballot(3), Some(position(2, 6))).is_err());
    }

    #[test]
    fn catches_a_tablet_that_goes_back() {
        let mut durability = Durability::default();
        assert!(durability.applied(WHO, ballot(1), Slot(7)).is_ok());
        assert!(durability.applied(AFTER, ballot(1), Slot(2)).is_ok());
        durability.restarted(AFTER, ballot(1), None).unwrap();
        assert!(durability.applied(AFTER, ballot(1), Slot(1)).is_ok());
        assert!(durability.applied(AFTER, ballot(1), Slot(3)).is_ok());
        assert!(durability.applied(AFTER, ballot(1), Slot(2)).is_err());
    }

    #[test]
    fn catches_a_leader_that_lacks_what_was_applied() {
        let mut durability = Durability::default();
        let mut agreement = Agreement::default();
        let entry = Entry { ballot: ballot(2), payload: Payload::Noop };
        agreement.check(NodeId(1), GroupId(1), Slot(4), &entry).unwrap();
        durability.applied(WHO, ballot(2), Slot(4)).unwrap();
        durability.applied(WHO, ballot(5), Slot(4)).unwrap();
        let elected = |round, last, of: u64| {
            let has = move |_| Some(ballot(of));
            let log = (Slot(3), Slot(last));
            durability.elected((GroupId(1), ballot(round)), log, has, &agreement)
        };
        assert!(elected(1, 2, 1).is_ok(), "an earlier ballot may lack it");
        assert!(elected(3, 4, 2).is_ok());
        assert!(elected(3, 3, 2).is_err());
        assert!(elected(3, 4, 3).is_err());
    }

    #[test]
    fn catches_a_commit_that_is_gone() {
        let mut durability = Durability::default();
        let txn = TxnId { client: 1, seq: 1 };
        let at = Timestamp::from_micros(5);
        durability.acknowledged(GroupId(1), txn, at);
        assert!(durability.kept(GroupId(2), |_| None).is_ok());
        assert!(durability.kept(GroupId(1), |_| Some(Outcome::Committed(at))).is_ok());
        assert!(durability.kept(GroupId(1), |_| None).is_err());
        assert!(durability.kept(GroupId(1), |_| Some(Outcome::Aborted)).is_err());
    }
}
