//! Statements from standard input, from the command line and from files, against real folders.

mod support;

use support::{Universe, feed, run};

const SCHEMA: &str = "CREATE TABLE singers (
  id   INT64 NOT NULL,
  name STRING(20),
) PRIMARY KEY (id);
CREATE TABLE albums (
  id    INT64 NOT NULL,
  album INT64 NOT NULL,
  title STRING(MAX) NOT NULL,
) PRIMARY KEY (id, album), INTERLEAVE IN PARENT singers ON DELETE CASCADE;
";

fn a_life_of_rows(replicas: u32) {
    let universe = Universe::with(replicas, SCHEMA);
    universe
        .sql("INSERT INTO singers (id, name) VALUES (1, 'Ada'), (2, NULL), (3, 'Cy, \"C\"')")
        .ok();
    // Another process each time: what is acknowledged is on disk.
    let all = "SELECT id, name FROM singers ORDER BY id";
    assert_eq!(universe.query(all), ["1,Ada", "2,", "3,\"Cy, \"\"C\"\"\""]);
    universe
        .sql("UPDATE singers SET name = 'Bo' WHERE id = 2; DELETE FROM singers WHERE id = 3;")
        .ok();
    assert_eq!(universe.query(all), ["1,Ada", "2,Bo"]);

    // A transaction over two directories: both or neither.
    universe
        .sql(
            "BEGIN;
             UPDATE singers SET name = 'Ida' WHERE id = 1;
             INSERT INTO singers (id, name) VALUES (4, 'Di');
             SELECT name FROM singers WHERE id = 1;
             ROLLBACK;",
        )
        .ok();
    assert_eq!(universe.query(all), ["1,Ada", "2,Bo"]);
    let seen = universe
        .sql(
            "BEGIN;
             UPDATE singers SET name = 'Ida' WHERE id = 1;
             INSERT INTO albums (id, album, title) VALUES (1, 1, 'one'), (2, 1, 'two');
             SELECT name FROM singers WHERE id = 1;
             COMMIT;",
        )
        .ok();
    assert_eq!(seen, "name\nIda\n", "a transaction reads its own writes");
    let joined =
        "SELECT s.name, a.title FROM singers AS s JOIN albums AS a ON a.id = s.id ORDER BY s.id";
    assert_eq!(universe.query(joined), ["Ida,one", "Bo,two"]);
    universe.sql("DELETE FROM singers WHERE id = 1").ok();
    assert_eq!(universe.query(joined), ["Bo,two"], "children go with their parent");
}

#[test]
fn a_life_of_rows_on_one_replica() {
    a_life_of_rows(1);
}

#[test]
fn a_life_of_rows_on_three_replicas() {
    a_life_of_rows(3);
}

#[test]
fn texts_and_files_run_in_the_order_given() {
    let universe = Universe::new(1);
    let schema = universe.file("schema.sql", SCHEMA);
    let select = universe.file("select.sql", "-- a comment; first\nSELECT name FROM singers;\n");
    let mut command = universe.command("sql");
    command.arg("-f").arg(schema);
    command.args([
        "-e",
        "INSERT INTO singers (id, name) VALUES (7, 'Gus')",
        "--format",
        "json",
        "-f",
    ]);
    command.arg(select).args(["-e", "DELETE FROM singers WHERE true", "-e"]);
    command.arg("SELECT COUNT(*) AS n FROM singers");
    assert_eq!(run(&mut command).ok(), "{\"name\":\"Gus\"}\n{\"n\":0}\n");
}

#[test]
fn tables_are_aligned_and_changes_counted() {
    let universe = Universe::with(1, SCHEMA);
    let script = "INSERT INTO singers (id, name) VALUES (1, 'Ada'), (10, NULL);
                  SELECT id, name FROM singers ORDER BY id;";
    let wanted = "2 rows affected\n id | name\n----+------\n  1 | Ada\n 10 | NULL\n\n";
    assert_eq!(feed(&mut universe.command("sql"), script).ok(), wanted);
}

#[test]
fn the_first_cell_of_a_result_can_be_kept() {
    let universe = Universe::with(1, SCHEMA);
    let seen = universe
        .sql(
            "SELECT 'Ada' AS name, 1 AS other;
             \\set name
             INSERT INTO singers (id, name) VALUES (1, ':{name}');
             SELECT name FROM singers;",
        )
        .ok();
    assert_eq!(seen, "name,other\nAda,1\nname\nAda\n");
    universe.sql("SELECT ':{missing}';").fails(&["standard input:1", "missing is not set"]);
}

#[test]
fn a_script_stops_at_its_first_error_and_an_open_transaction_is_rolled_back() {
    let universe = Universe::with(1, SCHEMA);
    let script =
        "INSERT INTO singers (id) VALUES (1);\n\nSELEC 1;\nINSERT INTO singers (id) VALUES (2);";
    universe.sql(script).fails(&["standard input:3"]);
    assert_eq!(universe.query("SELECT id FROM singers"), ["1"]);
    universe.sql("BEGIN; INSERT INTO singers (id) VALUES (3);").fails(&["rolled back"]);
    assert_eq!(universe.query("SELECT id FROM singers"), ["1"]);
}

#[test]
fn many_rows_stream() {
    let universe = Universe::with(1, SCHEMA);
    let csv: String = (0..5_000).map(|id| format!("{id},singer {id}\n")).collect();
    let file = universe.file("singers.csv", &format!("ID,Name\n{csv}"));
    universe.import("singers", &file).ok();
    assert_eq!(universe.number("SELECT COUNT(*) AS n FROM singers"), 5_000);
    let text = feed(&mut universe.command("sql"), "SELECT id, name FROM singers ORDER BY id;").ok();
    assert_eq!(text.lines().count(), 5_000 + 3);
    assert!(text.contains("\n 4999 | singer 4999\n"));
}

#[test]
fn groups_can_be_looked_at() {
    let universe = Universe::with(3, SCHEMA);
    let mut command = support::meridian();
    command.args(["admin", "groups", "--json", "--data"]).arg(universe.data());
    let text = run(&mut command).ok();
    for replica in 1..=3 {
        let word = format!("\"replica\":{replica}");
        assert!(text.lines().filter(|line| line.contains(&word)).count() >= 2, "{text}");
    }
}
