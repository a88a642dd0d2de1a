//! What a majority of time masters agree on (T4; K. Marzullo, *Maintaining the time in a distributed
//! system*, 1984; D. Mills, RFC 5905 §11.2.1).
//!
//! ```text
//!   a      ├──────────┤
//!   b          ├────────────┤
//!   c            ├──────┤
//!   d                                ├────┤     a liar
//!              ┌────────┐
//!   agreed     └────────┘      at least three of four intervals cover it
//! ```
//!
//! Masters that do not lie give intervals that all contain absolute time. Two things follow while
//! more than half of *all* masters, the silent included, do not lie:
//!
//! - Where no more than half agree on any instant, somebody lies or is cut off, and nobody can say
//!   who: no agreement.
//! - Of those that answered, all but a minority of all masters are honest. So absolute time is
//!   covered by that many intervals, and lies within the smallest interval around *everything* that
//!   is covered as often. With five answers of five masters that is three; with two of three, one
//!   silent, it is one: the other may be the liar.
//!
//! Marzullo's original answer, the part that is covered *most* often, is narrower and not safe: two
//! liars that both touch the intervals of two honest masters out of three are covered four times,
//! and the truth three times.

use crate::bound::Synchronization;

/// What a majority agree on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Agreement {
    /// Contains absolute time if a majority do not lie.
    pub time: Synchronization,
    /// For each master, whether what it says is compatible with some majority. Of one that is not,
    /// it is certain that it lies, if a majority do not.
    pub accepted: Vec<bool>,
}

/// What `masters` agree on; those that have said nothing are `None`. All are of one instant of the
/// local clock. `None`: no majority of all of them agree on anything.
pub fn agree(masters: &[Option<Synchronization>]) -> Option<Agreement> {
    let local_ns = masters.iter().flatten().next()?.local_ns;
    let majority = covered(masters, masters.len() / 2 + 1);
    majority.first()?;
    let liars_most = (masters.len() - 1) / 2;
    let honest_least = masters.iter().flatten().count() - liars_most;
    let parts = covered(masters, honest_least);
    let (earliest_ns, latest_ns) = (parts.first()?.0, parts.last()?.1);
    let touches = |of: &Synchronization| {
        majority.iter().any(|(from, to)| of.earliest_ns <= *to && *from <= of.latest_ns)
    };
    let accepted = masters.iter().map(|master| master.as_ref().is_some_and(touches)).collect();
    Some(Agreement { time: Synchronization::new(local_ns, earliest_ns, latest_ns), accepted })
}

/// The parts that at least `quorum` of the intervals cover, ends included, in order.
fn covered(masters: &[Option<Synchronization>], quorum: usize) -> Vec<(u64, u64)> {
    const BEGINS: u8 = 0; // before an end at the same place: intervals that touch overlap
    const ENDS: u8 = 1;
    let mut edges: Vec<(u64, u8)> = masters
        .iter()
        .flatten()
        .flat_map(|of| [(of.earliest_ns, BEGINS), (of.latest_ns, ENDS)])
        .collect();
    edges.sort_unstable();
    let mut parts = Vec::new();
    let (mut depth, mut since) = (0, 0);
    for (at, edge) in edges {
        if edge == BEGINS {
            depth += 1;
            if depth == quorum {
                since = at;
            }
        } else {
            if depth == quorum {
                parts.push((since, at));
            }
            depth -= 1;
        }
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn says(earliest_ns: u64, latest_ns: u64) -> Option<Synchronization> {
        Some(Synchronization::new(7, earliest_ns, latest_ns))
    }

    fn agreed(masters: &[Option<Synchronization>]) -> Option<(u64, u64, Vec<bool>)> {
        let agreement = agree(masters)?;
        Some((agreement.time.earliest_ns, agreement.time.latest_ns, agreement.accepted))
    }

    #[test]
    fn the_picture() {
        let masters = [says(10, 21), says(14, 27), says(16, 23), says(36, 41)];
        assert_eq!(agreed(&masters), Some((16, 21, vec![true, true, true, false])));
    }

    #[test]
    fn intervals_that_touch_agree() {
        assert_eq!(agreed(&[says(1, 5), says(5, 9)]), Some((5, 5, vec![true, true])));
        assert_eq!(agreed(&[says(1, 5), says(6, 9)]), None);
    }

    #[test]
    fn the_silent_count_against_a_majority() {
        assert_eq!(agreed(&[says(1, 5), None]), None);
        assert_eq!(agreed(&[says(1, 5), says(2, 6), None]), Some((1, 6, vec![true, true, false])));
        assert_eq!(agreed(&[says(1, 5)]), Some((1, 5, vec![true])));
        assert_eq!(agreed(&[None, None]), None);
        assert_eq!(agreed(&[]), None);
    }

    #[test]
    fn a_silent_honest_master_does_not_lend_its_vote_to_a_liar() {
        // The truth is 20. The second is honest; the third too, but silent.
        let (earliest, latest, _) = agreed(&[says(5, 15), says(10, 20), None]).unwrap();
        assert!(earliest <= 20 && 20 <= latest);
    }

    #[test]
    fn one_liar_of_three_and_two_of_five_are_rejected_two_of_three_are_not() {
        let lie = says(50, 60);
        let masters = [says(1, 5), lie, says(2, 6)];
        assert_eq!(agreed(&masters).unwrap().2, [true, false, true]);
        let masters = [says(1, 5), lie, says(2, 6), says(70, 71), says(3, 9)];
        assert_eq!(agreed(&masters), Some((3, 5, vec![true, false, true, false, true])));
        assert_eq!(agreed(&[says(1, 5), lie, says(70, 71)]), None, "liars that differ");
        assert_eq!(agreed(&[says(1, 5), lie, lie]), Some((50, 60, vec![false, true, true])));
    }

    #[test]
    fn what_is_covered_most_often_need_not_be_the_truth() {
        // The truth is 10; the last two lie, and meet the first two at 5.
        let masters = [says(4, 10), says(5, 11), says(10, 12), says(1, 5), says(5, 5)];
        let (earliest, latest, _) = agreed(&masters).unwrap();
        assert!(earliest <= 10 && 10 <= latest);
    }

    fn any_masters() -> impl Strategy<Value = Vec<Option<Synchronization>>> {
        let one = (0u64..60, 0u64..12).prop_map(|(from, width)| says(from, from + width));
        proptest::collection::vec(prop_oneof![5 => one, 1 => Just(None)], 0..9)
    }

    proptest! {
        /// Agrees with a twin that asks of every instant how many cover it.
        #[test]
        fn agrees_with_its_naive_twin(masters in any_masters()) {
            let covers = |t: u64| {
                let all = masters.iter().flatten();
                all.filter(|of| of.earliest_ns <= t && t <= of.latest_ns).count()
            };
            let silent = masters.iter().filter(|master| master.is_none()).count();
            let majority: Vec<u64> = (0..80).filter(|t| 2 * covers(*t) > masters.len()).collect();
            // As many as are honest at least, if the silent all are.
            let honest: Vec<u64> =
                (0..80).filter(|t| 2 * (covers(*t) + silent) > masters.len()).collect();
            let ends = majority.first().and(honest.first().copied().zip(honest.last().copied()));
            let agreement = agreed(&masters);
            prop_assert_eq!(agreement.as_ref().map(|(from, to, _)| (*from, *to)), ends);
            if let Some((_, _, accepted)) = agreement {
                for (master, accepted) in masters.iter().zip(accepted) {
                    let covers = |t: &u64| master.is_some_and(|of| {
                        of.earliest_ns <= *t && *t <= of.latest_ns
                    });
                    prop_assert_eq!(accepted, majority.iter().any(covers));
                }
            }
        }

        /// T1: while more than half of the masters are honest, absolute time is not excluded,
        /// whatever the others say and whoever is silent; and no honest one is rejected while all
        /// of them answer.
        #[test]
        fn never_excludes_the_truth_while_a_majority_is_honest(
            truth in 100u64..200,
            honest in proptest::collection::vec((0u64..50, 0u64..50, 0u8..4), 1..6),
            lies in proptest::collection::vec((0u64..400, 0u64..100, any::<bool>()), 0..5),
            place in any::<proptest::sample::Index>(),
        ) {
            let lies = &lies[..lies.len().min(honest.len() - 1)];
            let mut masters: Vec<_> = honest
                .iter()
                .map(|(before, after, silent)| {
                    says(truth - before, truth + after).filter(|_| *silent > 0)
                })
                .collect();
            let answered = masters.iter().flatten().count();
            let split = place.index(masters.len() + 1);
            for (from, width, silent) in lies {
                let lie = says(*from, from + width).filter(|_| !silent);
                masters.insert(split, lie);
            }
            let agreement = agree(&masters);
            prop_assert!(agreement.is_some() || 2 * answered <= masters.len());
            let Some(Agreement { time, accepted }) = agreement else { return Ok(()) };
            prop_assert!(time.earliest_ns <= truth && truth <= time.latest_ns);
            for (place, accepted) in accepted.iter().enumerate() {
                let honest = place < split || place >= split + lies.len();
                prop_assert!(!honest || *accepted || answered < masters.len() - lies.len());
            }
        }
    }
}
