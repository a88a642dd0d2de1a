//! L3: no two leaders' leases of one group overlap in absolute time.

use crate::history::Violation;
use proto::{Ballot, GroupId};
use std::collections::BTreeMap;
use truetime::{Interval, Timestamp};

/// The lease last seen in force, of each group.
#[derive(Debug, Default)]
pub struct Leases {
    in_force: BTreeMap<GroupId, (Ballot, Timestamp)>,
}

impl Leases {
    /// Judges a leader's lease as its node believes in it at `now`.
    ///
    /// # Errors
    /// The violation: another leader's lease may still be in force.
    pub fn check(
        &mut self,
        absolute_ns: u64,
        now: Interval,
        group: GroupId,
        (ballot, end): (Ballot, Timestamp),
    ) -> Result<(), Violation> {
        if !now.before(end) {
            return Ok(());
        }
        if let Some((other, until)) = self.in_force.get(&group).copied()
            && other != ballot
            && absolute_ns / 1_000 < until.micros()
        {
            let what = format!(
                "{group}: {ballot} holds a lease at {} µs, that of {other} runs until {until}",
                absolute_ns / 1_000
            );
            return Err(Violation::new("lease_disjoint", "L3", what));
        }
        self.in_force.insert(group, (ballot, end));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proto::NodeId;

    #[test]
    fn catches_two_leaders() {
        let t = Timestamp::from_micros;
        let ballot = |round| Ballot { round, node: NodeId(1) };
        let now = |us: u64| Interval::new(t(us - 1), t(us + 1));
        let mut leases = Leases::default();
        assert!(leases.check(10_000, now(10), GroupId(1), (ballot(1), t(50))).is_ok());
        assert!(leases.check(20_000, now(20), GroupId(2), (ballot(2), t(90))).is_ok());
        assert!(leases.check(30_000, now(30), GroupId(1), (ballot(2), t(90))).is_err());
        assert!(leases.check(60_000, now(60), GroupId(1), (ballot(2), t(90))).is_ok());
    }
}
