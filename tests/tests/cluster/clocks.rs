//! Clocks that are off: within their bound, beyond it and noticed, and beyond it without anybody looking.
//! The last is the control: a checker that finds nothing there would find nothing anywhere.

use crate::crashes::AROUND;
use crate::figures::{Moment, fault_lasts};
use crate::nodes::{Cluster, Plan};
use crate::support::{meridian, run};
use crate::verdict::{Fault, judge};
use crate::work::Load;
use proto::NodeId;
use proto::control::{ControlReply, ControlRequest};
use std::thread::sleep;

const HONEST: &str = "simulated:epsilon=5ms";

fn with_clocks(clocks: [&str; 3]) -> Cluster {
    let mut cluster = Cluster::of(Plan { clock: HONEST, ..Plan::default() });
    for (node, clock) in (1..).zip(clocks) {
        cluster.add(node, None);
        cluster.member(node).clock = clock.to_owned();
    }
    cluster.found();
    cluster
}

#[test]
fn clocks_are_off_within_their_bound() {
    let ahead = "simulated:epsilon=5ms,offset=4900us";
    let behind = "simulated:epsilon=5ms,offset=-4900us";
    let mut cluster = with_clocks([ahead, HONEST, behind]);
    let load = Load::start(&cluster, fault_lasts() + AROUND);
    let mut fault = Fault::begins("clocks off inside ε", "±4.9 ms of 5 ms, from the start");
    sleep(fault_lasts());
    fault.is_over();
    judge(&mut cluster, load, &fault);
}

#[test]
fn a_clock_runs_away_and_its_server_leads_nothing() {
    let mut cluster = with_clocks([HONEST; 3]);
    let load = Load::start(&cluster, fault_lasts() + AROUND);
    let how = "gains 2 ms a second, looks at itself; then started again";
    let mut fault = Fault::begins("clock beyond ε, noticed", how);
    let drift = ControlRequest::Clock("drift=2000".into());
    assert_eq!(cluster.ask(2, drift), Ok(ControlReply::Done));
    cluster.until("n2 has no time, and others lead", |cluster| {
        let led = cluster.leaders();
        let others = led.values().filter(|group| group.node != NodeId(2)).count();
        match cluster.report(2)? {
            report if report.epsilon_us.is_none() && others == 5 => Ok(()),
            report => Err(format!("{others} groups are led by others: {report:?}")),
        }
    });
    println!("n2 leads nothing any more after {:?}", fault.from.elapsed());
    sleep(fault_lasts());
    cluster.kill(2);
    cluster.run(2);
    fault.is_over();
    judge(&mut cluster, load, &fault);
}

#[test]
fn a_clock_that_nobody_looks_at_is_found_by_the_checker() {
    let mut found = String::new();
    for offset_ms in [60, 120, 240] {
        let wrong = format!("simulated:epsilon=5ms,offset={offset_ms}ms,evict=off");
        let cluster = with_clocks([HONEST, &wrong, HONEST]);
        let load = Load::start(&cluster, fault_lasts() + AROUND);
        let (from, leaders) = (Moment::now(), cluster.leaders());
        let (worked, _) = load.end(&cluster);
        let led = leaders.values().filter(|group| group.node == NodeId(2)).count();
        println!("n2 is {offset_ms} ms ahead, and leads {led} of {} groups", leaders.len());
        let figures = worked[0].figures(from, from);
        println!("{} commits, {:?} without any", figures.commits, figures.stall);
        let judged = run(meridian().args(["check", "history"]).arg(&worked[0].history));
        assert_ne!(judged.code, Some(2), "{judged:?}");
        if judged.code == Some(1) {
            found = judged.stdout;
            break;
        }
    }
    assert!(found.contains("VIOLATION of external_consistency"), "{found}");
}
