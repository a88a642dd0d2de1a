//! Processes that die, stand still and come back.

use crate::figures::{Moment, fault_lasts};
use crate::nodes::{Cluster, Plan};
use crate::verdict::{Fault, judge};
use crate::work::Load;
use proto::GroupId;
use std::thread::sleep;
use std::time::Duration;

/// What a load goes on for before and after what lasts.
pub const AROUND: Duration = Duration::from_secs(7);
/// Twice over in each direction, a restart included.
const RESTART_WITHIN: Duration = Duration::from_secs(4);

#[test]
fn the_leader_is_killed() {
    let mut cluster = Cluster::start(Plan::default());
    let load = Load::start(&cluster, fault_lasts() + AROUND);
    let leader = cluster.busiest();
    let fault = Fault::begins("leader killed", "kill -9 of the server that leads most groups");
    cluster.kill(leader);
    sleep(fault_lasts());
    cluster.run(leader);
    judge(&mut cluster, load, &fault);
}

#[test]
fn a_follower_is_killed() {
    let mut cluster = Cluster::start(Plan::default());
    let follower = cluster.others(cluster.leader(GroupId::ROOT))[0];
    cluster.drain(follower, true);
    let load = Load::start(&cluster, fault_lasts() + AROUND);
    let fault = Fault::begins("follower killed", "kill -9 of a server that leads nothing");
    cluster.kill(follower);
    sleep(fault_lasts());
    cluster.run(follower);
    judge(&mut cluster, load, &fault);
}

#[test]
fn servers_are_killed_again_and_again() {
    let mut cluster = Cluster::start(Plan::default());
    let rounds = 1 + fault_lasts().as_secs() as u32 / 10;
    let load = Load::start(&cluster, AROUND + rounds * 3 * RESTART_WITHIN);
    let how = format!("kill -9 of each in turn, {rounds} times");
    let fault = Fault::begins("restart loop", how);
    for node in (1..=3).cycle().take(3 * rounds as usize) {
        cluster.kill(node);
        cluster.run(node);
        // Two of three have to know everything before the next one goes.
        cluster.settled(&[1, 2, 3]);
    }
    judge(&mut cluster, load, &fault);
}

#[test]
fn the_leader_stands_still_for_longer_than_its_lease() {
    let mut cluster = Cluster::start(Plan::default());
    let load = Load::start(&cluster, fault_lasts() + AROUND);
    let leader = cluster.busiest();
    let fault =
        Fault::begins("leader stopped", "SIGSTOP of the server that leads most, then SIGCONT");
    cluster.signal(leader, "-STOP");
    sleep(fault_lasts());
    cluster.signal(leader, "-CONT");
    judge(&mut cluster, load, &fault);
}

#[test]
fn all_are_killed_and_come_back() {
    let mut cluster = Cluster::start(Plan::default());
    let load = Load::start(&cluster, fault_lasts() + AROUND);
    let mut fault = Fault::begins("all killed", "kill -9 of all, then all started");
    cluster.stop();
    sleep(fault_lasts());
    fault.was_outage();
    for node in 1..=3 {
        cluster.run(node);
    }
    judge(&mut cluster, load, &fault);
}

#[test]
fn a_majority_is_lost_and_comes_back() {
    let mut cluster = Cluster::start(Plan::default());
    let load = Load::start(&cluster, fault_lasts() + AROUND);
    let mut fault = Fault::begins("majority lost", "kill -9 of two of three, then started");
    let lost = cluster.others(cluster.busiest());
    for node in &lost {
        cluster.kill(*node);
    }
    sleep(fault_lasts());
    fault.was_outage();
    for node in &lost {
        cluster.run(*node);
    }
    judge(&mut cluster, load, &fault);
}

/// One after the other, as for an upgrade: each hands its leaderships on, and the next one waits until
/// it is back.
#[test]
fn all_are_restarted_one_after_the_other() {
    let mut cluster = Cluster::start(Plan::default());
    let load = Load::start(&cluster, AROUND + 3 * RESTART_WITHIN);
    let mut fault =
        Fault::begins("rolling restart", "SIGTERM, start, and the next when it is back");
    for node in 1..=3 {
        let begun = Moment::now();
        cluster.signal(node, "-TERM");
        let status = cluster.ended(node);
        assert_eq!(status.code(), Some(0), "n{node}");
        let took = begun.elapsed();
        cluster.run(node);
        cluster.settled(&[1, 2, 3]);
        println!("n{node} stopped within {took:?}, and was back after {:?}", begun.elapsed());
    }
    fault.is_over();
    judge(&mut cluster, load, &fault);
}
