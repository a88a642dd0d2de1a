//! Positive controls: a checker counts only after it has caught a planted fault.
//!
//! Run with `cargo test -p sim --features plants`. One test, for the choice of a fault is one for
//! the whole process.

use proto::plant::{Plant, plant};

#[test]
fn every_planted_fault_is_caught() {
    for (fault, within, checker) in
        [(Plant::CommitWaitOff, 50, "visibility"), (Plant::LogUnsynced, 400, "durability")]
    {
        plant(Some(fault));
        let summary = sim::run::bank(0..within, 2, 5, &|_| true);
        plant(None);
        let caught: Vec<&str> = summary.violations.values().map(|v| v.checker).collect();
        assert!(caught.contains(&checker), "{} within {within} seeds: {caught:?}", fault.name());
    }
    let summary = sim::run::bank(0..50, 2, 1, &|_| true);
    assert!(summary.violations.is_empty(), "without a fault: {:?}", summary.violations);
}
