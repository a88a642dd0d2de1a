//! When groups want to be ticked, in order of time: a server with a thousand idle groups must not look
//! at each of them whenever something happens to one.

use proto::GroupId;
use std::collections::{BTreeMap, BTreeSet};
use truetime::{Interval, Timestamp};

/// Invariant: `order` has exactly the pairs of `at`.
#[derive(Debug, Default)]
pub(crate) struct Wakes {
    at: BTreeMap<GroupId, Timestamp>,
    order: BTreeSet<(Timestamp, GroupId)>,
}

impl Wakes {
    /// The group wants to be ticked after this, and not as it wanted before.
    pub fn set(&mut self, id: GroupId, at: Timestamp) {
        if let Some(before) = self.at.insert(id, at) {
            self.order.remove(&(before, id));
        }
        self.order.insert((at, id));
    }

    /// Whose time has come, in order of their numbers.
    pub fn due(&self, now: Interval) -> Vec<GroupId> {
        let due = self.order.iter().take_while(|(at, _)| now.after(*at));
        let mut due: Vec<GroupId> = due.map(|(_, id)| *id).collect();
        due.sort_unstable();
        due
    }

    /// The next is due after this.
    pub fn first(&self) -> Timestamp {
        self.order.first().map_or(Timestamp::MAX, |(at, _)| *at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_wish_of_each_counts() {
        let at = Timestamp::from_micros;
        let mut wakes = Wakes::default();
        assert_eq!(wakes.first(), Timestamp::MAX);
        for (id, us) in [(3, 50), (1, 70), (2, 60), (3, 90)] {
            wakes.set(GroupId(id), at(us));
        }
        assert_eq!(wakes.first(), at(60));
        let now = |us| Interval::new(at(us), at(us));
        assert_eq!(wakes.due(now(60)), [], "not before it has certainly passed");
        assert_eq!(wakes.due(now(80)), [GroupId(1), GroupId(2)]);
        assert_eq!(wakes.due(now(99)), [GroupId(1), GroupId(2), GroupId(3)]);
    }
}
