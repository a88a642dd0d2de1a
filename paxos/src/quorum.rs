//! Majority arithmetic.
//!
//! ```text
//!   values      7   9   4        sorted, descending:  9  7  4
//!   majority of 3 = 2                                    ^ the 2nd: held by a majority
//! ```

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

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The naive twin: try every value, count who has reached it.
    fn naive(values: &[u8]) -> u8 {
        let reached_by = |x: u8| values.iter().filter(|v| **v >= x).count();
        (0..=u8::MAX).rev().find(|x| reached_by(*x) >= majority(values.len())).unwrap()
    }

    proptest! {
        #[test]
        fn agrees_with_its_naive_twin(values in proptest::collection::vec(any::<u8>(), 1..8)) {
            prop_assert_eq!(reached(values.iter().copied()), naive(&values));
        }
    }

    #[test]
    fn two_majorities_share_a_voter() {
        for n in 1..10 {
            assert!(2 * majority(n) > n);
        }
    }
}
