//! Exactly-once commits over a network that loses, repeats and reorders (X9, X11, X12). What is
//! promised, and who judges it, is [`ledger`](super::ledger).

use super::ledger::{Tally, judge};

#[test]
fn commits_happen_exactly_once() {
    let mut all = Tally::default();
    for seed in 0..300 {
        let tally = judge(seed, false).unwrap_or_else(|wrong| panic!("{wrong}"));
        all.committed += tally.committed;
        all.aborted += tally.aborted;
        all.asked += tally.asked;
        all.messages += tally.messages;
    }
    let Tally { committed, aborted, asked, messages } = all;
    assert!(committed > 4_000 && asked > 300, "{committed} committed, {asked} had to be asked for");
    println!("{committed} committed, {aborted} aborted, {asked} asked for, {messages} messages");
}

/// The judge is no good unless it notices groups that do not keep outcomes (X9).
#[test]
fn groups_that_forget_outcomes_are_noticed() {
    let noticed = (0..300).find_map(|seed| judge(seed, true).err());
    assert!(noticed.is_some(), "300 seeds, and nobody has noticed");
}
