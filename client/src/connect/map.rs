//! The copy of the map that a client goes by (S4, X12).

use arc_swap::ArcSwap;
use proto::NodeId;
use proto::universe::{Descriptor, NodeInfo, NodeState, UniverseMap};
use std::sync::{Arc, Mutex, PoisonError};

/// The newest that is known. Reading it takes no lock.
#[derive(Debug)]
pub(super) struct MapCache {
    map: ArcSwap<UniverseMap>,
    /// One change at a time.
    change: Mutex<()>,
}

impl MapCache {
    /// A copy to begin with.
    pub fn new(map: UniverseMap) -> MapCache {
        MapCache { map: ArcSwap::from_pointee(map), change: Mutex::new(()) }
    }

    /// What is known.
    pub fn get(&self) -> Arc<UniverseMap> {
        self.map.load_full()
    }

    /// What a node has for a map; whether there was news in it. Of another universe nothing is
    /// taken.
    pub fn learn(&self, heard: UniverseMap) -> bool {
        let _one = self.change.lock().unwrap_or_else(PoisonError::into_inner);
        let merged = merge(&self.map.load(), heard);
        let news = merged.is_some();
        if let Some(map) = merged {
            self.map.store(Arc::new(map));
        }
        news
    }

    /// Where a node is, unless it is gone for good.
    pub fn address(&self, node: NodeId) -> Option<String> {
        let map = self.map.load();
        map.nodes.get(&node).filter(|info| is_there(info)).map(|info| info.address.clone())
    }

    /// The nodes that are not gone for good, in order.
    pub fn nodes(&self) -> Vec<NodeId> {
        present(&self.map.load()).map(|info| info.node).collect()
    }
}

/// The nodes that are not gone for good.
pub(super) fn present(map: &UniverseMap) -> impl Iterator<Item = &NodeInfo> {
    map.nodes.values().filter(|info| is_there(info))
}

fn is_there(info: &NodeInfo) -> bool {
    info.state != NodeState::Removed
}

/// The newer map, and of every group the newer place: copies come from different nodes, and one that
/// is newer as a whole may know less of a group than its own leader has told us. `None`: no news.
fn merge(known: &UniverseMap, heard: UniverseMap) -> Option<UniverseMap> {
    if heard.founding.cluster != known.founding.cluster {
        return None;
    }
    let newer = heard.version > known.version;
    let mut merged = if newer { heard.clone() } else { known.clone() };
    let older = if newer { &known.groups } else { &heard.groups };
    let mut news = newer;
    for (group, place) in older {
        let current = merged.groups.get(group);
        if current.is_none_or(|current: &Descriptor| current.generation < place.generation) {
            merged.groups.insert(*group, place.clone());
            news |= !newer;
        }
    }
    news.then_some(merged)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proto::GroupId;
    use proto::request::Members;
    use proto::universe::Founding;
    use truetime::Timestamp;

    fn map(version: u64, generations: [u64; 2]) -> UniverseMap {
        let founding = Founding { cluster: "00ff".into(), ..Founding::default() };
        let place = |(group, generation): (u32, u64)| {
            let voters = [NodeId(generation as u32 + 1)].into();
            let members = Members { voters, ..Members::default() };
            (GroupId(group), Descriptor { group: GroupId(group), generation, members })
        };
        let groups = (0..).zip(generations).map(place).collect();
        let version = Timestamp::from_micros(version);
        UniverseMap { version, founding, groups, ..UniverseMap::default() }
    }

    fn generations(cache: &MapCache) -> Vec<u64> {
        cache.get().groups.values().map(|place| place.generation).collect()
    }

    #[test]
    fn the_newest_map_counts_and_no_group_goes_back() {
        let cache = MapCache::new(map(5, [3, 3]));
        assert!(!cache.learn(map(5, [3, 3])) && !cache.learn(map(4, [3, 2])));
        assert!(cache.learn(map(4, [2, 7])), "an old map may know more of one group");
        assert_eq!((cache.get().version.micros(), generations(&cache)), (5, vec![3, 7]));
        assert!(cache.learn(map(9, [4, 6])), "and a new one less");
        assert_eq!((cache.get().version.micros(), generations(&cache)), (9, vec![4, 7]));
    }

    #[test]
    fn of_another_universe_nothing_is_taken() {
        let cache = MapCache::new(map(5, [3, 3]));
        let mut other = map(9, [9, 9]);
        other.founding.cluster = "beef".into();
        assert!(!cache.learn(other));
        assert_eq!(generations(&cache), [3, 3]);
    }

    #[test]
    fn who_is_gone_for_good_is_not_asked() {
        let mut of_three = map(5, [1, 1]);
        for number in 1..=3 {
            let state = if number == 2 { NodeState::Removed } else { NodeState::Draining };
            let info = NodeInfo {
                node: NodeId(number),
                instance: String::new(),
                address: format!("h{number}:1"),
                zone: "a".into(),
                host: "h".into(),
                clock: "local".into(),
                replaced_by: None,
                state,
            };
            of_three.nodes.insert(NodeId(number), info);
        }
        let cache = MapCache::new(of_three);
        assert_eq!(cache.nodes(), [NodeId(1), NodeId(3)]);
        assert_eq!(cache.address(NodeId(3)).as_deref(), Some("h3:1"));
        assert_eq!((cache.address(NodeId(2)), cache.address(NodeId(4))), (None, None));
    }
}
