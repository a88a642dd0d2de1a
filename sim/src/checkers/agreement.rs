//! P2: one value per slot; replicas that applied the same slot hold the same bytes, whether they
//! applied every slot or took a snapshot (P7).

use crate::history::Violation;
use paxos::Entry;
use proto::{GroupId, NodeId, Slot};
use std::collections::BTreeMap;

/// What is chosen, as the first replica that applied it held it.
#[derive(Debug, Default)]
pub struct Agreement {
    chosen: BTreeMap<GroupId, BTreeMap<Slot, (NodeId, Entry)>>,
    contents: BTreeMap<(GroupId, Slot), (NodeId, u64)>,
}

impl Agreement {
    /// Judges an entry that a node has applied: value and ballot, for whoever proposes an entry
    /// again keeps its ballot.
    ///
    /// # Errors
    /// The violation.
    pub fn check(
        &mut self,
        node: NodeId,
        group: GroupId,
        slot: Slot,
        entry: &Entry,
    ) -> Result<(), Violation> {
        let chosen = self.chosen.entry(group).or_default();
        let (first, value) = chosen.entry(slot).or_insert_with(|| (node, entry.clone()));
        if value == entry {
            return Ok(());
        }
        let what = format!(
            "{group} {slot}: {node} has applied another value (of {}) than {first} (of {})",
            entry.ballot, value.ballot
        );
        Err(Violation::new("agreement", "P2", what))
    }

    /// All that was applied anywhere, of each group in the order of its slots.
    pub fn all(&self) -> impl Iterator<Item = (GroupId, Slot, &Entry)> {
        self.chosen.iter().flat_map(|(group, slots)| {
            slots.iter().map(move |(slot, (_, entry))| (*group, *slot, entry))
        })
    }

    /// Judges what a node's tablet and tables hold when it has applied up to `slot`.
    ///
    /// # Errors
    /// The violation.
    pub fn contents(
        &mut self,
        node: NodeId,
        group: GroupId,
        slot: Slot,
        digest: u64,
    ) -> Result<(), Violation> {
        let first = *self.contents.entry((group, slot)).or_insert((node, digest));
        if first.1 == digest {
            return Ok(());
        }
        let what =
            format!("{group} applied up to {slot}: {node} holds other rows than {}", first.0);
        Err(Violation::new("agreement", "P2/P7", what))
    }

    /// The entry chosen in a slot, if anybody has applied it.
    pub fn chosen(&self, group: GroupId, slot: Slot) -> Option<&Entry> {
        self.chosen.get(&group)?.get(&slot).map(|(_, entry)| entry)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use paxos::Payload;
    use proto::Ballot;

    fn entry(round: u64, value: &'static str) -> Entry {
        let ballot = Ballot { round, node: NodeId(1) };
        Entry { ballot, payload: Payload::Command(Bytes::from_static(value.as_bytes())) }
    }

    #[test]
    fn catches_two_values_of_one_slot() {
        let mut agreement = Agreement::default();
        let (a, b) = (entry(1, "a"), entry(1, "b"));
        assert!(agreement.check(NodeId(1), GroupId(1), Slot(1), &a).is_ok());
        assert!(agreement.check(NodeId(2), GroupId(1), Slot(2), &b).is_ok());
        assert!(agreement.check(NodeId(2), GroupId(2), Slot(1), &b).is_ok());
        assert!(agreement.check(NodeId(2), GroupId(1), Slot(1), &b).is_err());
        assert!(agreement.check(NodeId(2), GroupId(1), Slot(1), &entry(2, "a")).is_err());
    }

    #[test]
    fn catches_tablets_that_differ() {
        let mut agreement = Agreement::default();
        assert!(agreement.contents(NodeId(1), GroupId(1), Slot(4), 7).is_ok());
        assert!(agreement.contents(NodeId(2), GroupId(1), Slot(4), 7).is_ok());
        assert!(agreement.contents(NodeId(3), GroupId(1), Slot(5), 8).is_ok());
        assert!(agreement.contents(NodeId(3), GroupId(1), Slot(4), 8).is_err());
    }
}
