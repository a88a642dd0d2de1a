//! Where groups are, as this client has heard: from its transport, which has a copy of the map, and
//! from servers that knew better (X12). Never asked for on the way of a transaction.

use crate::client::Transport;
use proto::universe::Descriptor;
use proto::{GroupId, NodeId};
use std::collections::BTreeMap;

/// See the [module](self).
#[derive(Debug, Default)]
pub(super) struct Routes {
    /// What servers have said, where that is newer than the transport's copy.
    corrected: BTreeMap<GroupId, Descriptor>,
}

impl Routes {
    /// Who has a replica; nobody: unknown.
    pub fn nodes(&mut self, group: GroupId, transport: &dyn Transport) -> Vec<NodeId> {
        self.newest(group, transport).map(|descriptor| descriptor.nodes()).unwrap_or_default()
    }

    /// Which descriptor that is from; 0: unknown, or that of the founding.
    pub fn generation(&mut self, group: GroupId, transport: &dyn Transport) -> u64 {
        self.newest(group, transport).map_or(0, |descriptor| descriptor.generation)
    }

    /// Takes a server's word. `false`: it is no news.
    pub fn learn(&mut self, descriptor: Descriptor, transport: &dyn Transport) -> bool {
        let group = descriptor.group;
        let news = descriptor.generation > self.generation(group, transport);
        if news {
            self.corrected.insert(group, descriptor);
        }
        news
    }

    /// What counts; corrections that the transport has caught up with go.
    fn newest(&mut self, group: GroupId, transport: &dyn Transport) -> Option<Descriptor> {
        let copy = transport.locate(group);
        let corrected = self.corrected.get(&group);
        let caught_up = |corrected: &Descriptor| {
            copy.as_ref().is_some_and(|copy| copy.generation >= corrected.generation)
        };
        if corrected.is_some_and(caught_up) {
            self.corrected.remove(&group);
        }
        self.corrected.get(&group).cloned().or(copy)
    }
}
