//! L3 to L6: no two leaders' leases of one group overlap in absolute time, their timestamps do not
//! either, and nothing that rests on a lease leaves the process after it.

use crate::history::Violation;
use proto::{Ballot, GroupId, NodeId};
use std::collections::BTreeMap;
use truetime::{Interval, Timestamp};

/// What a leader believes.
#[derive(Clone, Copy, Debug)]
pub struct Lease {
    /// Under which ballot.
    pub ballot: Ballot,
    /// Since when; all its timestamps lie above.
    pub start: Timestamp,
    /// Until when.
    pub end: Timestamp,
    /// The highest timestamp handed out under it so far, once it serves.
    pub s_max: Option<Timestamp>,
}

/// The lease last seen in force, of each group, and the timestamps under each ballot.
#[derive(Debug, Default)]
pub struct Leases {
    in_force: BTreeMap<GroupId, (Ballot, Timestamp)>,
    handed_out: BTreeMap<GroupId, BTreeMap<Ballot, (Timestamp, Timestamp)>>,
}

fn broken(rule: &str, what: String) -> Result<(), Violation> {
    Err(Violation::new("lease_disjoint", rule, what))
}

impl Leases {
    /// Judges a leader's lease as its node believes in it at `now`.
    ///
    /// # Errors
    /// The violation: another leader's lease may still be in force (L3), or has seen timestamps
    /// beyond the beginning of this one (L4, L5).
    pub fn check(
        &mut self,
        absolute_ns: u64,
        now: Interval,
        group: GroupId,
        lease: Lease,
    ) -> Result<(), Violation> {
        let Lease { ballot, end, .. } = lease;
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
            return broken("L3", what);
        }
        self.in_force.insert(group, (ballot, end));
        self.check_timestamps(group, lease)
    }

    fn check_timestamps(&mut self, group: GroupId, lease: Lease) -> Result<(), Violation> {
        let Lease { ballot, start, s_max, .. } = lease;
        let ballots = self.handed_out.entry(group).or_default();
        let s_max = s_max.unwrap_or(start);
        if ballots.insert(ballot, (start, s_max)) == Some((start, s_max)) {
            return Ok(());
        }
        for (other, (other_start, other_s_max)) in ballots.iter() {
            let overlap = (*other < ballot && *other_s_max > start)
                || (*other > ballot && s_max > *other_start);
            if overlap {
                let what = format!(
                    "{group}: {ballot} hands out timestamps in {start}..{s_max}, {other} in \
                     {other_start}..{other_s_max}"
                );
                return broken("L4/L5", what);
            }
        }
        Ok(())
    }

    /// A node has stopped leading, by its own knowledge (P10 lets it do so early): the lease it
    /// had is over. `leading`: the ballot under which it leads now.
    pub fn gone(&mut self, group: GroupId, node: NodeId, leading: Option<Ballot>) {
        if self
            .in_force
            .get(&group)
            .is_some_and(|(held, _)| held.node == node && Some(*held) != leading)
        {
            self.in_force.remove(&group);
        }
    }
}

/// Judges a good answer as it leaves the process at `absolute_ns`, given under a lease (L6).
///
/// # Errors
/// The violation.
pub fn leaves(absolute_ns: u64, node: NodeId, lease_end: Timestamp) -> Result<(), Violation> {
    if absolute_ns / 1_000 < lease_end.micros() {
        return Ok(());
    }
    let now_us = absolute_ns / 1_000;
    broken("L6", format!("{node} answers at {now_us} µs under a lease that ended at {lease_end}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn t(us: u64) -> Timestamp {
        Timestamp::from_micros(us)
    }

    fn lease(round: u64, start: u64, end: u64, s_max: u64) -> Lease {
        let ballot = Ballot { round, node: NodeId(1) };
        Lease { ballot, start: t(start), end: t(end), s_max: Some(t(s_max)) }
    }

    fn at(leases: &mut Leases, us: u64, group: u32, lease: Lease) -> Result<(), Violation> {
        leases.check(us * 1_000, Interval::new(t(us - 1), t(us + 1)), GroupId(group), lease)
    }

    #[test]
    fn catches_two_leaders() {
        let mut leases = Leases::default();
        assert!(at(&mut leases, 10, 1, lease(1, 5, 50, 5)).is_ok());
        assert!(at(&mut leases, 20, 2, lease(2, 5, 90, 5)).is_ok());
        assert_eq!(at(&mut leases, 30, 1, lease(2, 29, 90, 29)).unwrap_err().rule, "L3");
        assert!(at(&mut leases, 60, 1, lease(2, 55, 90, 55)).is_ok());
        leases.gone(GroupId(1), NodeId(1), None);
        assert!(at(&mut leases, 70, 1, lease(3, 65, 95, 65)).is_ok());
    }

    #[test]
    fn catches_timestamps_that_overlap() {
        let mut leases = Leases::default();
        assert!(at(&mut leases, 10, 1, lease(1, 5, 50, 40)).is_ok());
        assert!(at(&mut leases, 60, 1, lease(2, 41, 90, 50)).is_ok());
        assert!(at(&mut leases, 95, 1, lease(3, 49, 99, 90)).is_err());
        let mut leases = Leases::default();
        assert!(at(&mut leases, 60, 1, lease(2, 41, 90, 50)).is_ok());
        leases.gone(GroupId(1), NodeId(1), None);
        assert!(at(&mut leases, 61, 1, lease(1, 20, 70, 42)).is_err());
    }

    #[test]
    fn catches_an_answer_after_the_lease() {
        assert!(leaves(49_000, NodeId(1), t(50)).is_ok());
        assert_eq!(leaves(50_000, NodeId(1), t(50)).unwrap_err().rule, "L6");
    }
}
