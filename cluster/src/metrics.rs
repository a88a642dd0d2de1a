//! What a node counts, for Prometheus.
//!
//! Everything is read when somebody asks, from the report that `admin` shows as well; a request of a
//! client costs nothing for it. Names are `meridian_` and what is measured, the unit last: seconds
//! and bytes, never their parts; counters end in `_total`. What is not known is left out, not
//! reported as nought: without a bound (T5) there is no ε.
//!
//! There is no row per group: a node has thousands, and a time series for each would cost whoever
//! keeps them more than the node. The worst of all is here; `meridian admin groups` has them one by
//! one.

use crate::http::Health;
use metrics::{Label, counter, describe_counter, describe_gauge, gauge, with_local_recorder};
use metrics_exporter_prometheus::PrometheusBuilder;
use proto::control::{NodeReport, PeerReport};
use proto::request::GroupStatus;
use truetime::Interval;

/// The page, in Prometheus' text format.
///
/// `now` is the node's clock at about the time of the others; `None` without a bound (T5).
pub fn render(
    report: &NodeReport,
    groups: &[GroupStatus],
    health: &Health,
    now: Option<Interval>,
) -> String {
    // A recorder for each page: a peer that is gone leaves nothing behind.
    let recorder = PrometheusBuilder::new().build_recorder();
    with_local_recorder(&recorder, || {
        process(report, health);
        clock(report);
        replicas(report, groups);
        if let Some(now) = now {
            ages(groups, now);
        }
        for (peer, link) in &report.peers {
            links(vec![Label::new("peer", peer.to_string())], link);
        }
    });
    recorder.handle().render()
}

fn process(report: &NodeReport, health: &Health) {
    let labels = vec![
        Label::new("version", report.program.clone()),
        Label::new("node", report.node.to_string()),
        Label::new("zone", report.zone.clone()),
    ];
    describe_gauge!("meridian_build_info", "Always 1; version, node and zone are its labels.");
    gauge!("meridian_build_info", labels).set(1.0);
    number("meridian_ready", "1 while the node should be sent work.", flag(health.ready));
    number("meridian_uptime_seconds", "Since the process started.", report.up_ms as f64 / 1e3);
    known("meridian_memory_bytes", "Resident memory of the process.", report.memory_bytes);
    let help = "Bytes that the storage takes on disk.";
    number("meridian_storage_bytes", help, report.disk_bytes as f64);
    let help = "Bytes free on the disk of the storage.";
    known("meridian_storage_free_bytes", help, report.disk_free_bytes);
    let help = "Syncs of the log; one covers what all groups have ready.";
    count("meridian_log_syncs_total", help, vec![], report.syncs);
    let help = "Requests of clients that are worked on.";
    number("meridian_requests_in_flight", help, report.in_flight as f64);
}

fn clock(report: &NodeReport) {
    let help = "1 while the clock has a bound; without one the node leads and serves nothing.";
    number("meridian_clock_has_bound", help, flag(report.epsilon_us.is_some()));
    if let Some(epsilon_us) = report.epsilon_us {
        let help = "Half the width of the clock's interval; a commit waits for about two of them.";
        number("meridian_clock_epsilon_seconds", help, epsilon_us as f64 / 1e6);
    }
}

fn replicas(report: &NodeReport, groups: &[GroupStatus]) {
    let total = |of: fn(&GroupStatus) -> u64| groups.iter().map(of).sum::<u64>() as f64;
    number("meridian_replicas", "Replicas of groups on this node.", f64::from(report.replicas));
    let help = "Groups that this node leads under a valid lease.";
    number("meridian_groups_led", help, f64::from(report.leads));
    let help = "Replicas here that vote and know no leader.";
    number("meridian_groups_without_leader", help, total(|group| u64::from(is_lost(group))));
    let help = "Groups led here whose members are being changed.";
    number("meridian_groups_changing", help, total(|group| u64::from(group.changing)));
    let help = "Replicas here to which a lost part of their log is being sent again.";
    number("meridian_replicas_repairing", help, total(|group| u64::from(group.repairing)));
    let help = "Replicas here of groups in which nothing happens.";
    number("meridian_replicas_asleep", help, total(|group| u64::from(group.asleep)));
    let help = "Transactions that are prepared here and wait for their outcome.";
    number("meridian_transactions_prepared", help, total(|group| group.prepared));
    let help = "Transactions that hold locks here.";
    number("meridian_lock_holders", help, total(|group| group.lock_holders));
    let behind = groups.iter().map(|group| group.chosen.0.saturating_sub(group.applied.0)).max();
    let help = "Entries known chosen and not applied yet, at the replica where they are most.";
    number("meridian_applied_lag_entries_max", help, behind.unwrap_or(0) as f64);
}

/// What is measured against the clock.
fn ages(groups: &[GroupStatus], now: Interval) {
    let awake = groups.iter().filter(|group| !group.asleep && !group.removed);
    let oldest = awake.map(|group| now.latest().since(group.safe_time)).max();
    let help = "Age of the newest write applied, in the group that is awake where it is oldest; a \
                group to which nobody writes grows old in good health.";
    number("meridian_safe_time_age_seconds_max", help, oldest.unwrap_or_default().as_secs_f64());
    // Reckoned as whoever relies on a lease does: it is over once its end may have passed (L2).
    // That of a group which sleeps is kept by the beats of its server, and stands elsewhere.
    let held = groups.iter().filter(|group| !group.asleep);
    let ends = held.filter_map(|group| group.lease_end);
    if let Some(least) = ends.map(|end| end.since(now.latest())).min() {
        let help = "What is left of the lease that ends first, of those this node holds in groups that \
                    are awake.";
        number("meridian_lease_left_seconds_min", help, least.as_secs_f64());
    }
}

fn links(peer: Vec<Label>, link: &PeerReport) {
    describe_gauge!("meridian_peer_connected", "1 while there is a link to the other node.");
    gauge!("meridian_peer_connected", peer.clone()).set(flag(link.connected));
    let help = "Messages of all groups sent to the other node.";
    count("meridian_peer_messages_sent_total", help, peer.clone(), link.sent);
    let help = "Messages of all groups received from the other node.";
    count("meridian_peer_messages_received_total", help, peer.clone(), link.received);
    let help = "Messages that found no link or no room; the protocol sends anew what matters.";
    count("meridian_peer_messages_dropped_total", help, peer.clone(), link.dropped);
    let help = "How often a link to the other node was made.";
    count("meridian_peer_links_total", help, peer, link.connects);
}

/// A replica that should know a leader, and does not.
fn is_lost(group: &GroupStatus) -> bool {
    group.leader.is_none() && !group.removed && group.members.voters.contains(&group.node)
}

fn flag(is: bool) -> f64 {
    if is { 1.0 } else { 0.0 }
}

fn number(name: &'static str, help: &'static str, value: f64) {
    describe_gauge!(name, help);
    gauge!(name).set(value);
}

/// A number of which 0 says that it is not known.
fn known(name: &'static str, help: &'static str, value: u64) {
    if value != 0 {
        number(name, help, value as f64);
    }
}

fn count(name: &'static str, help: &'static str, labels: Vec<Label>, value: u64) {
    describe_counter!(name, help);
    counter!(name, labels).absolute(value);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proto::ids::{GroupId, NodeId, Slot};
    use std::collections::BTreeSet;
    use truetime::Timestamp;

    fn report() -> NodeReport {
        let peer = PeerReport { connected: true, sent: 7, received: 8, ..PeerReport::default() };
        NodeReport {
            node: NodeId(2),
            zone: "b".to_owned(),
            program: "0.1.0".to_owned(),
            up_ms: 2_500,
            epsilon_us: Some(50),
            replicas: 5,
            leads: 2,
            syncs: 41,
            peers: [(NodeId(1), peer), (NodeId(3), PeerReport::default())].into(),
            ..NodeReport::default()
        }
    }

    fn group(number: u32, leader: Option<u32>) -> GroupStatus {
        GroupStatus {
            group: GroupId(number),
            node: NodeId(2),
            leader: leader.map(NodeId),
            ballot: Default::default(),
            lease_end: None,
            last: Slot(9),
            chosen: Slot(9),
            applied: Slot(6),
            first: Slot(1),
            safe_time: Timestamp::from_micros(1_000_000),
            prepared: 1,
            lock_holders: 2,
            members: proto::request::Members {
                voters: BTreeSet::from([NodeId(1), NodeId(2)]),
                ..Default::default()
            },
            joint: false,
            changing: false,
            repairing: false,
            generation: 0,
            asleep: false,
            removed: false,
        }
    }

    #[track_caller]
    fn has(page: &str, line: &str) {
        assert!(page.lines().any(|other| other == line), "no line {line:?} in\n{page}");
    }

    #[test]
    fn a_page_has_what_the_report_says() {
        let now =
            Interval::new(Timestamp::from_micros(3_000_000), Timestamp::from_micros(3_000_100));
        let led =
            GroupStatus { lease_end: Some(Timestamp::from_micros(4_000_100)), ..group(1, Some(2)) };
        let health = Health { live: true, ready: true, reasons: Vec::new() };
        let asleep = GroupStatus {
            lease_end: Some(Timestamp::from_micros(1_000_000)),
            safe_time: Timestamp::from_micros(1),
            asleep: true,
            lock_holders: 0,
            prepared: 0,
            ..group(3, Some(2))
        };
        let page = render(&report(), &[led, group(2, None), asleep], &health, Some(now));
        has(&page, "meridian_build_info{version=\"0.1.0\",node=\"n2\",zone=\"b\"} 1");
        has(&page, "meridian_ready 1");
        has(&page, "meridian_uptime_seconds 2.5");
        has(&page, "meridian_clock_epsilon_seconds 0.00005");
        has(&page, "# TYPE meridian_log_syncs_total counter");
        has(&page, "meridian_log_syncs_total 41");
        has(&page, "meridian_groups_without_leader 1");
        has(&page, "meridian_applied_lag_entries_max 3");
        has(&page, "meridian_transactions_prepared 2");
        has(&page, "meridian_lock_holders 4");
        has(&page, "meridian_safe_time_age_seconds_max 2.0001");
        has(&page, "meridian_lease_left_seconds_min 1");
        has(&page, "meridian_peer_connected{peer=\"n1\"} 1");
        has(&page, "meridian_peer_connected{peer=\"n3\"} 0");
        has(&page, "meridian_peer_messages_received_total{peer=\"n1\"} 8");
    }

    #[test]
    fn what_is_not_known_is_left_out() {
        let report = NodeReport { epsilon_us: None, ..report() };
        let page = render(&report, &[group(1, Some(1))], &Health::default(), None);
        has(&page, "meridian_clock_has_bound 0");
        has(&page, "meridian_ready 0");
        let unknown =
            ["epsilon", "memory_bytes", "storage_free_bytes", "safe_time_age", "lease_left"];
        for name in unknown {
            assert!(!page.contains(name), "{name} in\n{page}");
        }
    }

    #[test]
    fn every_number_is_explained() {
        let now = Some(Interval::new(
            Timestamp::from_micros(3_000_000),
            Timestamp::from_micros(3_000_100),
        ));
        let report = NodeReport { memory_bytes: 1, disk_free_bytes: 1, ..report() };
        let page = render(&report, &[group(1, None)], &Health::default(), now);
        let mut numbers = 0;
        for line in page.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
            let name = line.split(['{', ' ']).next().unwrap();
            assert!(page.contains(&format!("# HELP {name} ")), "{name} has no help in\n{page}");
            numbers += 1;
        }
        assert!(numbers > 25, "{numbers} in\n{page}");
    }
}
