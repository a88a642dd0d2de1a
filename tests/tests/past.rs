//! Reads at a chosen timestamp.

mod support;

use support::Universe;

const ROW: &str = "CREATE TABLE t (id INT64 NOT NULL, v STRING(9)) PRIMARY KEY (id);
INSERT INTO t (id, v) VALUES (1, 'old');
";

#[test]
fn a_read_before_a_commit_sees_the_old_state() {
    for replicas in [1, 3] {
        let universe = Universe::with(replicas, ROW);
        let seen = universe
            .sql(
                "UPDATE t SET v = 'older' WHERE id = 1;
                 SHOW VARIABLE COMMIT_TIMESTAMP;
                 \\set before
                 UPDATE t SET v = 'new' WHERE id = 1;
                 SET READ_ONLY_STALENESS = 'READ_TIMESTAMP :{before}';
                 SELECT v FROM t WHERE id = 1;
                 SELECT COUNT(*) AS n FROM t WHERE v = 'older';
                 SET READ_ONLY_STALENESS = 'STRONG';
                 SELECT v FROM t WHERE id = 1;",
            )
            .ok();
        let lines: Vec<&str> = seen.lines().skip(2).collect();
        assert_eq!(lines, ["v", "older", "n", "1", "v", "new"]);

        // Another process sees the same past.
        let at = seen.lines().nth(1).expect("the timestamp").to_owned();
        let again = universe.sql(&format!(
            "SET READ_ONLY_STALENESS = 'READ_TIMESTAMP {at}'; SELECT v FROM t WHERE id = 1;"
        ));
        assert_eq!(again.ok(), "v\nolder\n");
    }
}

#[test]
fn too_old_and_future_timestamps_are_refused() {
    let universe = Universe::with(1, ROW);
    let read_at = |at: &str| {
        universe.sql(&format!("SET READ_ONLY_STALENESS = 'READ_TIMESTAMP {at}'; SELECT v FROM t;"))
    };
    read_at("2013-01-01T00:00:00Z").fails(&["older"]);
    read_at("2999-01-01T00:00:00Z").fails(&["future"]);
    read_at("yesterday").fails(&["cannot read 'yesterday' as a timestamp", "^"]);
}
