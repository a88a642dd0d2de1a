//! The demo as a user runs it: the script, the schema, the data, the guided tour.

mod support;

use std::process::Command;
use support::{Universe, binary, repository, run};

#[test]
fn the_demo_loads_and_the_tour_runs_twice() {
    let folder = Universe::new(3);
    let mut demo = Command::new("bash");
    demo.arg(repository().join("scripts/demo.sh")).arg(binary()).env("DEMO_DATA", folder.data());
    let first = run(&mut demo).ok();
    for wanted in [
        "airlines   |        16",
        "flights    |     12208",
        "JetBlue Airways",
        // American gave 250 of its 1000 points to United, and had them before.
        "American Airlines Inc. |    750",
        "United Air Lines Inc.  |   1250",
        "American Airlines Inc. |   1000",
        "That was the tour.",
    ] {
        assert!(first.contains(wanted), "no '{wanted}' in:\n{first}");
    }
    // The second time the universe is there; only what is about time differs.
    let second = run(&mut demo).ok();
    let is_about_time = |line: &&str| line.starts_with("imported") || line.trim().ends_with('Z');
    let lasting = |text: &str| {
        text.lines().filter(|line| !is_about_time(line)).collect::<Vec<_>>().join("\n")
    };
    assert_eq!(lasting(&first), lasting(&second));
}
