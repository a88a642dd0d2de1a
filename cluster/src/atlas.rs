//! A node's copy of the universe's map (the paper's location proxy): what it answers with, what it
//! finds its peers by, and what outlives a restart in its data folder.

use crate::folder::keep_map;
use parking_lot::Mutex;
use proto::NodeId;
use proto::universe::{NodeState, UniverseMap};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use tokio::sync::watch;

/// See the [module](self).
pub(crate) struct Atlas {
    me: NodeId,
    folder: PathBuf,
    map: watch::Sender<Arc<UniverseMap>>,
    /// Where nodes were heard from themselves, which is newer than the map.
    heard: Mutex<BTreeMap<NodeId, String>>,
    /// Held by whoever takes a map.
    taking: Mutex<()>,
}

impl Atlas {
    pub fn new(me: NodeId, folder: PathBuf, map: UniverseMap) -> Atlas {
        let (map, _) = watch::channel(Arc::new(map));
        Atlas { me, folder, map, heard: Mutex::default(), taking: Mutex::default() }
    }

    /// The copy.
    pub fn map(&self) -> Arc<UniverseMap> {
        self.map.borrow().clone()
    }

    /// Changes come here.
    pub fn subscribe(&self) -> watch::Receiver<Arc<UniverseMap>> {
        self.map.subscribe()
    }

    /// A map was heard of; it counts if it is newer.
    pub fn offer(&self, map: UniverseMap) {
        let _one_at_a_time = self.taking.lock();
        if map.version <= self.map().version {
            return;
        }
        let before = self.map();
        let moved = |node: &NodeId| {
            let address = |map: &UniverseMap| map.nodes.get(node).map(|info| info.address.clone());
            address(&before) != address(&map)
        };
        // Whoever has moved since it was heard of is where the map says.
        self.heard.lock().retain(|node, _| !moved(node));
        let map = Arc::new(map);
        self.map.send_if_modified(|mine| {
            let newer = map.version > mine.version;
            if newer {
                *mine = map.clone();
            }
            newer
        });
    }

    /// Keeps the newest copy in the data folder, for as long as the node runs.
    pub async fn keep(self: Arc<Self>) {
        let mut changes = self.subscribe();
        let mut kept = self.map().version;
        while changes.changed().await.is_ok() {
            let (map, folder) = (self.map(), self.folder.clone());
            if map.version <= kept {
                continue;
            }
            kept = map.version;
            let written = tokio::task::spawn_blocking(move || keep_map(&folder, &map)).await;
            // Without it the others are found over `--join` after a restart: no reason to stop.
            if let Ok(Err(error)) = written {
                tracing::warn!(%error, "the map of the universe is not kept");
            }
        }
    }

    /// A node says itself where it is reached.
    pub fn heard(&self, node: NodeId, address: &str) {
        let before = self.heard.lock().insert(node, address.to_owned());
        if before.as_deref() != Some(address) {
            self.map.send_modify(|_| {}); // whoever keeps addresses looks again
        }
    }

    /// Where a node is reached.
    pub fn address(&self, node: NodeId) -> Option<String> {
        let heard = self.heard.lock().get(&node).cloned();
        heard.or_else(|| self.map().nodes.get(&node).map(|info| info.address.clone()))
    }

    /// Where the other nodes are reached that were not given up.
    pub fn peers(&self) -> BTreeMap<NodeId, String> {
        let map = self.map();
        let there = map.nodes.values().filter(|info| info.state != NodeState::Removed);
        let others = there.map(|info| info.node).filter(|node| *node != self.me);
        others.filter_map(|node| Some((node, self.address(node)?))).collect()
    }

    /// What is meant to become of this node.
    pub fn my_state(&self) -> NodeState {
        self.map().nodes.get(&self.me).map(|info| info.state).unwrap_or_default()
    }
}
