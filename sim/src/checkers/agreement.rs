//! P2: one value per slot; replicas that applied the same slot hold the same bytes.

use crate::history::Violation;
use bytes::Bytes;
use proto::{GroupId, NodeId, Slot};
use std::collections::BTreeMap;

/// The values chosen so far, as the first replica that applied them held them.
#[derive(Debug, Default)]
pub struct Agreement {
    chosen: BTreeMap<(GroupId, Slot), (NodeId, Bytes)>,
}

impl Agreement {
    /// Judges a value that a node has applied.
    ///
    /// # Errors
    /// The violation.
    pub fn check(
        &mut self,
        node: NodeId,
        group: GroupId,
        slot: Slot,
        payload: &Bytes,
    ) -> Result<(), Violation> {
        let first = self.chosen.entry((group, slot)).or_insert_with(|| (node, payload.clone()));
        if first.1 == *payload {
            return Ok(());
        }
        let what = format!("{group} {slot}: {node} holds another value than {} did", first.0);
        Err(Violation::new("agreement", "P2", what))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn catches_two_values_of_one_slot() {
        let mut agreement = Agreement::default();
        let (a, b) = (Bytes::from_static(b"a"), Bytes::from_static(b"b"));
        assert!(agreement.check(NodeId(1), GroupId(1), Slot(1), &a).is_ok());
        assert!(agreement.check(NodeId(2), GroupId(1), Slot(2), &b).is_ok());
        assert!(agreement.check(NodeId(2), GroupId(1), Slot(1), &b).is_err());
    }
}
