//! Positive controls: a checker counts only after it has caught a planted fault.
//!
//! Run with `cargo test -p sim --features plants`. One test, for the choice of a fault is one for
//! the whole process.

use proto::plant::plant;
use sim::plants::CONTROLS;
use sim::run;
use sim::scenario::Scenario;

#[test]
fn every_planted_fault_is_caught() {
    for control in CONTROLS {
        let name = control.plant.name();
        plant(Some(control.plant));
        // Stops at the first seed in which the checker that is named has noticed.
        let noticed = |violation: &sim::history::Violation| violation.checker == control.checker;
        let summary =
            run::many(control.scenario, 0..control.within, 2, usize::MAX, &|_, broken| {
                !broken.is_some_and(noticed)
            });
        plant(None);
        let caught = summary.violations.values().any(noticed);
        assert!(caught, "{name} within {} seeds: {:?}", control.within, summary.violations);
    }
    for scenario in Scenario::ALL {
        let summary = run::many(scenario, 0..50, 2, 1, &|_, _| true);
        assert!(summary.violations.is_empty(), "without a fault: {:?}", summary.violations);
    }
}
