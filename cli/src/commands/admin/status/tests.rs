//! Tables and objects of made-up clusters.

use super::super::made_up::{self, lose, without_bound};
use super::super::{groups, nodes};
use super::*;

fn text(print: impl FnOnce(&mut (dyn Write + Send)) -> io::Result<()>) -> String {
    let mut out = Vec::new();
    print(&mut out).expect("a vector takes everything");
    String::from_utf8(out).expect("tables are text")
}

/// Lines without the blanks at their ends, as they are written below.
#[track_caller]
fn assert_lines(text: &str, wanted: &[&str]) {
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines, wanted, "\n{text}");
}

#[test]
fn a_healthy_cluster_needs_no_words() {
    let seen = made_up::healthy();
    assert_lines(
        &text(|out| print(out, &seen)),
        &[
            "cluster  00c0ffee00c0ffee, healthy",
            "nodes    3, all answer",
            "groups   3, all led, 3 replicas each, 1 asleep",
            "root     led by n1",
            "lag      2 entries: g1 at n3, newest write 250 ms old",
            "",
            " node | zone | address  | state  | clock              | ε     | leads | replicas | disk   | free    | links | up",
            "------+------+----------+--------+--------------------+-------+-------+----------+--------+---------+-------+-------",
            " n1   | a    | db1:7101 | active | local synchronized | 50 µs |     1 |        3 | 12 MiB | 100 GiB | 2/2   | 5 min",
            " n2   | b    | db2:7101 | active | local synchronized | 50 µs |     1 |        3 | 12 MiB | 100 GiB | 2/2   | 5 min",
            " n3   | c    | db3:7101 | active | local synchronized | 50 µs |     1 |        3 | 12 MiB | 100 GiB | 2/2   | 5 min",
        ],
    );
    let object = object(&seen);
    assert_eq!(object["healthy"], true);
    assert_eq!(object["warnings"].as_array().map(Vec::len), Some(0));
    assert_eq!(object["root_leader"], 1);
    assert_eq!(object["groups"]["with_leader"], 3);
    assert_eq!(object["lag"]["entries"], 2);
    assert_eq!(object["nodes"][1]["epsilon_us"], 50);
}

#[test]
fn what_is_lost_comes_first_with_what_to_do() {
    let mut seen = made_up::healthy();
    lose(&mut seen, 3, "connection refused");
    let first = text(|out| print(out, &seen));
    assert_lines(
        &first.lines().take(6).collect::<Vec<_>>().join("\n"),
        &[
            "critical: g2 has no leader",
            "  Hint: look again: an election takes some seconds",
            "warning: n3 (zone c, db3:7101) does not answer: connection refused",
            "  Hint: start it again with its data folder; where that is lost for good, start a new \
             node and `meridian admin replace-node n3`",
            "",
            "cluster  00c0ffee00c0ffee, see above",
        ],
    );
    assert!(first.contains("n3   | c    | db3:7101 | silent | -  "), "{first}");
    lose(&mut seen, 2, "connection refused");
    let object = object(&seen);
    assert_eq!((&object["healthy"], &object["serving"]), (&false.into(), &false.into()));
    let worst = object["warnings"][0]["what"].as_str().unwrap_or_default();
    assert!(worst.starts_with("each of g0, g1, g2 cannot be served"), "{worst}");
    assert_eq!(object["warnings"][0]["hint"], "start n2, n3 again");
    assert_eq!(object["nodes"][2]["error"], "connection refused");
    assert_eq!(object["nodes"][2]["leads"], serde_json::Value::Null);
}

#[test]
fn a_clock_without_bound_leads_nothing() {
    let mut seen = made_up::healthy();
    without_bound(&mut seen, 1);
    let text = text(|out| print(out, &seen));
    for words in [
        "critical: g0 has no leader",
        "warning: n1 has no bound on its clock: the clock of local is broken",
    ] {
        assert!(text.contains(words), "no '{words}' in:\n{text}");
    }
    assert!(text.contains("the clock of local is broken | no bound |"), "{text}");
}

#[test]
fn few_replicas_are_told_with_what_is_missing() {
    let mut seen = made_up::healthy();
    for descriptor in seen.map.groups.values_mut() {
        descriptor.members.voters.remove(&proto::NodeId(3));
    }
    for answer in seen.answers.values_mut().flatten() {
        answer.groups.iter_mut().for_each(|group| {
            group.members.voters.remove(&proto::NodeId(3));
        });
    }
    seen.map.nodes.remove(&proto::NodeId(3));
    seen.answers.remove(&proto::NodeId(3));
    let warnings = crate::commands::admin::warnings::of(&seen);
    let few = warnings.iter().find(|warning| warning.what.contains("fewer replicas than 3"));
    assert_eq!(
        few.map(|few| few.hint.as_str()),
        Some("one more node is needed: start it with --join")
    );
}

#[test]
fn groups_have_a_line_each() {
    let mut seen = made_up::healthy();
    assert_lines(
        &text(|out| groups::print(out, &seen)),
        &[
            " group | leader | lease  | ballot | last | applied | replicas          | remarks",
            "-------+--------+--------+--------+------+---------+-------------------+---------",
            " g0    | n1     | 4 s    | b2.n1  |   40 |      40 | n1(a) n2(b) n3(c) |",
            " g1    | n2     | 4 s    | b2.n2  |   42 |      40 | n1(a) n2(b) n3(c) |",
            " g2    | n3     | asleep | b2.n3  |    7 |       7 | n1(a) n2(b) n3(c) |",
        ],
    );
    lose(&mut seen, 3, "gone");
    let text = text(|out| groups::print(out, &seen));
    assert!(text.contains("n1(a) n2(b) n3(c)?"), "{text}");
    let two = seen.groups()[1].clone();
    let object = groups::object(&seen, &two);
    assert_eq!((&object["leader"], &object["applied_everywhere"]), (&2.into(), &42.into()));
    assert_eq!(object["voters"].to_string(), "[1,2,3]");
    assert_eq!(object["replicas"][2]["answers"], false);
}

#[test]
fn one_group_has_a_line_for_each_replica() {
    let seen = made_up::healthy();
    let group = &seen.groups()[1];
    let safe = [(proto::NodeId(2), made_up::now().earliest())].into();
    let lines = text(|out| groups::print_one(out, &seen, group, &safe));
    assert_lines(
        &lines,
        &[
            "group    g1, led by n2",
            "members  voters n1, n2, n3; generation 5",
            "lease    until 2026-01-01T00:00:04.000050Z",
            "",
            " replica | zone | role  | ballot | first | last | chosen | applied | lag | lease | newest write | safe time  | prepared | locks | remarks",
            "---------+------+-------+--------+-------+------+--------+---------+-----+-------+--------------+------------+----------+-------+---------",
            " n1      | a    | voter | b2.n2  |     1 |   42 |     42 |      42 |   0 | -     | 200 ms ago   | -          |        0 |     0 |",
            " n2      | b    | voter | b2.n2  |     1 |   42 |     42 |      42 |   0 | 4 s   | 200 ms ago   | 100 µs ago |        1 |     2 |",
            " n3      | c    | voter | b2.n2  |     1 |   42 |     41 |      40 |   2 | -     | 250 ms ago   | -          |        0 |     0 |",
        ],
    );
    let object = groups::object_one(&seen, group, &safe);
    assert_eq!(object["replicas"][1]["safe_time_age_ms"], 0.1);
    assert_eq!(object["replicas"][0]["safe_time_age_ms"], serde_json::Value::Null);
}

#[test]
fn drained_and_removed_nodes_are_named_so() {
    let mut seen = made_up::healthy();
    let state = |seen: &mut Seen, node, state| {
        seen.map.nodes.get_mut(&proto::NodeId(node)).expect("it is there").state = state;
    };
    state(&mut seen, 2, proto::universe::NodeState::Draining);
    state(&mut seen, 3, proto::universe::NodeState::Removed);
    seen.answers.remove(&proto::NodeId(3));
    let states: Vec<String> =
        nodes::objects(&seen).iter().map(|node| node["state"].to_string()).collect();
    assert_eq!(states, ["\"active\"", "\"draining\"", "\"removed\""]);
    let text = text(|out| print(out, &seen));
    assert!(text.contains("note: n2 is draining"), "{text}");
}
