//! Every scenario holds every promise, for its first seeds; what can go wrong in it does, in some of
//! them, and every point of a commit is met by a leader that is struck there.

use sim::crash_points::Point;
use sim::run::{self, Summary};
use sim::scenario::Scenario;
use sim::tally::Fault;

const SEEDS: u64 = 200;

/// What a scenario never has.
fn never(scenario: Scenario) -> &'static [Fault] {
    use Fault::{Ambush, ClientDied, Rot, Wipe};
    match scenario {
        Scenario::Bank => &[Ambush, Rot, Wipe, ClientDied],
        Scenario::Membership => &[ClientDied],
        Scenario::CoordinatorCrash | Scenario::ParticipantCrash => &[Ambush, Wipe, ClientDied],
        Scenario::ClientCrash => &[Wipe],
        _ => &[Wipe, ClientDied],
    }
}

fn holds(scenario: Scenario) -> Summary {
    let threads = std::thread::available_parallelism().map_or(2, |cores| cores.get());
    let summary = run::many(scenario, 0..SEEDS, threads, 1, &|_, _| true);
    if let Some((seed, violation)) = summary.violations.first_key_value() {
        panic!("meridian sim {scenario} --seed {seed} --trace\n{violation}");
    }
    assert!(summary.committed > SEEDS && summary.snapshots > SEEDS, "{scenario}: idle");
    for (fault, name) in Fault::ALL {
        let injected = summary.faults().of(fault) > 0;
        assert_eq!(injected, !never(scenario).contains(&fault), "{scenario}: {name}");
    }
    summary
}

#[test]
fn every_scenario_holds_all_promises() {
    for scenario in Scenario::ALL {
        let summary = holds(scenario);
        let points = match scenario {
            Scenario::CoordinatorCrash => &Point::COORDINATOR[..],
            Scenario::ParticipantCrash => &Point::PARTICIPANT[..],
            _ => &[],
        };
        for point in points {
            assert!(summary.tally.points.of(*point) > 0, "{scenario}: nobody was struck {point}");
        }
        if scenario == Scenario::FollowerReads {
            assert!(summary.tally.follower_reads > 0, "only leaders were asked");
        }
    }
}
