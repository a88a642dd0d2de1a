//! Majority arithmetic.
//!
//! ```text
//!   values      7   9   4        sorted, descending:  9  7  4
//!   majority of 3 = 2                                    ^ the 2nd: held by a majority
//! ```
//!
//! While a group changes its voters, a quorum is a majority of the old *and* of the new ones
//! (joint consensus, P9): what both have reached is the smaller of the two.

use proto::NodeId;
use std::collections::BTreeSet;

/// How many of `voters` make a majority.
pub fn majority(voters: usize) -> usize {
    voters / 2 + 1
}

/// The largest value that a majority has reached: each voter contributes one value.
///
/// # Panics
/// With no voters: a group without voters is a bug.
pub fn reached<T: Ord + Copy>(values: impl IntoIterator<Item = T>) -> T {
    let mut sorted: Vec<T> = values.into_iter().collect();
    sorted.sort_unstable_by(|a, b| b.cmp(a));
    assert!(!sorted.is_empty(), "a quorum of nobody");
    sorted[majority(sorted.len()) - 1]
}

/// The largest value that a majority of `voters`, and of `outgoing` unless that is empty, has
/// reached.
pub fn jointly_reached<T: Ord + Copy>(
    voters: &BTreeSet<NodeId>,
    outgoing: &BTreeSet<NodeId>,
    value: impl Fn(NodeId) -> T,
) -> T {
    let new = reached(voters.iter().map(|voter| value(*voter)));
    if outgoing.is_empty() {
        return new;
    }
    new.min(reached(outgoing.iter().map(|voter| value(*voter))))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The naive twin: try every value, count who has reached it.
    fn naive(values: &[u8]) -> u8 {
        let reached_by = |x: u8| values.iter().filter(|v| **v >= x).count();
        (0..=u8::MAX).rev().find(|x| reached_by(*x) >= majority(values.len())).unwrap()
    }

    /// The naive twin of joint quorums: try every set of nodes that could have reached a value.
    fn naive_joint(old: u8, new: u8, values: &[u8; 8]) -> u8 {
        let majority_of = |set: u8, part: u8| {
            set == 0 || (set & part).count_ones() as usize >= majority(set.count_ones() as usize)
        };
        let quorums =
            (0..=u8::MAX).filter(|part| majority_of(old, *part) && majority_of(new, *part));
        let least = |part: u8| (0..8).filter(|n| part >> n & 1 == 1).map(|n| values[n]).min();
        quorums.filter_map(least).max().unwrap()
    }

    fn nodes(bits: u8) -> BTreeSet<NodeId> {
        (0..8).filter(|n| bits >> n & 1 == 1).map(NodeId).collect()
    }

    proptest! {
        #[test]
        fn agrees_with_its_naive_twin(values in proptest::collection::vec(any::<u8>(), 1..8)) {
            prop_assert_eq!(reached(values.iter().copied()), naive(&values));
        }

        #[test]
        fn joint_quorums_agree_with_their_naive_twin(
            old in any::<u8>(), new in 1..=u8::MAX, values in any::<[u8; 8]>(),
        ) {
            let reached = jointly_reached(&nodes(new), &nodes(old), |n| values[n.0 as usize]);
            prop_assert_eq!(reached, naive_joint(old, new, &values));
        }
    }

    #[test]
    fn two_majorities_share_a_voter() {
        for n in 1..10 {
            assert!(2 * majority(n) > n);
        }
    }
}
