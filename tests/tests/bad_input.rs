//! What a user can do wrong: a message that says what, a failing exit code, and nothing changed.

mod support;

use std::path::Path;
use std::process::{Command, Stdio};
use support::{Process, Universe, feed, meridian, run};

const SCHEMA: &str = "CREATE TABLE airlines (
  carrier STRING(2) NOT NULL,
  name    STRING(20),
) PRIMARY KEY (carrier);
CREATE TABLE flights (
  carrier STRING(2) NOT NULL,
  flight  INT64 NOT NULL,
  dest    STRING(3) NOT NULL,
) PRIMARY KEY (carrier, flight), INTERLEAVE IN PARENT airlines ON DELETE NO ACTION;
INSERT INTO airlines (carrier, name) VALUES ('AA', 'American'), ('UA', 'United');
INSERT INTO flights (carrier, flight, dest) VALUES ('AA', 1, 'LAX');
";

/// Everything that is in the universe of [`SCHEMA`].
const ALL: &str = "SELECT 'airline' AS kind, carrier, name AS rest FROM airlines
UNION ALL SELECT 'flight', carrier, dest FROM flights ORDER BY kind, carrier, rest";

#[test]
fn statements_that_fail_say_why_and_change_nothing() {
    let universe = Universe::with(1, SCHEMA);
    let before = universe.query(ALL);
    assert_eq!(before.len(), 3);
    let table: &[(&str, &[&str])] = &[
        ("SELECT carrier FORM airlines", &["^"]),
        ("SELEC 1", &["SELEC", "^"]),
        ("SELECT 'open", &["standard input:1"]),
        ("SELECT * FROM airline", &["airline", "^", "Hint: did you mean", "airlines"]),
        ("SELECT nam FROM airlines", &["nam", "^"]),
        ("INSERT INTO airlines (carrier, nam) VALUES ('X', 'x')", &["nam", "Hint: did you mean"]),
        ("INSERT INTO flights (carrier, flight, dest) VALUES ('AA', 'two', 'LAX')", &["INT64"]),
        ("INSERT INTO airlines (carrier) VALUES ('TOOLONG')", &["STRING(2)"]),
        ("INSERT INTO airlines (carrier, name) VALUES ('AA', 'Again')", &["AA", "exists"]),
        ("INSERT INTO airlines (carrier, name) VALUES ('B6', 'Blue'), ('AA', 'x')", &["exists"]),
        ("INSERT INTO airlines (carrier, name) VALUES (NULL, 'x')", &["NULL", "carrier"]),
        ("INSERT INTO flights (carrier, flight, dest) VALUES ('ZZ', 1, 'LAX')", &["airlines"]),
        ("INSERT INTO flights (carrier, flight) VALUES ('AA', 2)", &["dest"]),
        ("UPDATE airlines SET carrier = 'BB' WHERE carrier = 'AA'", &["key"]),
        ("UPDATE flights SET dest = NULL WHERE true", &["NULL", "dest"]),
        ("DELETE FROM airlines WHERE carrier = 'AA'", &["flights"]),
        ("SELECT 1 / 0 AS x", &["zero"]),
        ("CREATE TABLE airlines (a INT64 NOT NULL) PRIMARY KEY (a)", &["exists"]),
        ("CREATE TABLE t (a INT64)", &["PRIMARY KEY"]),
        ("COMMIT", &["no transaction"]),
    ];
    for (statement, words) in table {
        let message = universe.sql(&format!("{statement};")).fails(words);
        assert_eq!(universe.query(ALL), before, "{statement}: {message}");
    }
}

#[test]
fn the_place_of_an_error_is_shown() {
    let universe = Universe::new(1);
    let message = universe.sql("SELECT 1;\n\nSELECT 2\n  FROM nowhere;\n").fails(&[]);
    assert!(message.contains("standard input:4: "), "{message}");
    assert!(message.contains("\n    FROM nowhere\n         ^"), "{message}");
}

#[test]
fn files_that_do_not_fit_the_table_are_refused_before_anything_is_written() {
    let universe = Universe::with(1, SCHEMA);
    let before = universe.query(ALL);
    let table: &[(&str, &str, &[&str])] = &[
        ("flights", "carrier,flight\nAA,2\n", &["bad.csv", "lacks", "dest"]),
        ("flights", "carrier,flight,dst\nAA,2,LAX\n", &["bad.csv", "dst", "carrier, flight, dest"]),
        (
            "flights",
            "carrier,flight,dest\nAA,2,LAX\nAA,x3,LAX\n",
            &["line 3", "flight", "'x3'", "INT64"],
        ),
        ("flights", "carrier,flight,dest\nAA,2\n", &["line 2", "cells"]),
        ("flights", "carrier,flight,dest\nAA,2,NA\n", &["line 2", "dest", "NOT NULL"]),
        ("flights", "carrier,flight,dest\nAA,2,LAX\nZZ,2,LAX\n", &["rows 1 to 2", "airlines"]),
        ("flights", "", &["bad.csv", "empty"]),
        ("flight", "carrier\nAA\n", &["flight", "did you mean"]),
    ];
    for (name, csv, words) in table {
        let file = universe.file("bad.csv", csv);
        universe.import(name, &file).fails(words);
        assert_eq!(universe.query(ALL), before, "{csv}");
    }
    universe.import("flights", Path::new("no/such/file.csv")).fails(&["no/such/file.csv"]);
}

#[test]
fn a_bad_row_stops_an_import_at_its_batch() {
    let universe = Universe::with(1, SCHEMA);
    let mut csv = String::from("carrier,flight,dest\n");
    for flight in 1..=95 {
        csv.push_str(&format!("UA,{flight},LAX\n"));
    }
    csv.push_str("UA,ninety-six,LAX\n");
    let file = universe.file("flights.csv", &csv);
    let mut command = universe.command("import");
    command.args(["--table", "flights", "--batch", "10"]).arg(file);
    run(&mut command).fails(&["line 97", "flight", "'ninety-six'", "90 rows were committed"]);
    assert_eq!(universe.number("SELECT COUNT(*) AS n FROM flights WHERE carrier = 'UA'"), 90);
}

#[test]
fn a_folder_is_used_by_one_process_at_a_time() {
    let universe = Universe::with(1, SCHEMA);
    let mut command = universe.command("sql");
    let mut first = Process::start(command.args(["--format", "csv"]).stdin(Stdio::piped()));
    let mut stdin = first.stdin().expect("it is piped");
    use std::io::Write;
    stdin.write_all(b"SELECT 1 AS one;\n").expect("it reads");
    assert_eq!(first.line().as_deref(), Some("one"));
    universe.sql("DELETE FROM flights WHERE true;").fails(&["in use", "Hint"]);
    drop(stdin);
    while first.line().is_some() {}
    drop(first);
    assert_eq!(universe.query(ALL).len(), 3);
}

#[test]
fn folders_that_are_not_ours_are_left_alone() {
    let universe = Universe::new(1);
    let folder = universe.data();
    std::fs::create_dir(&folder).expect("a folder");
    std::fs::write(folder.join("thesis.txt"), "all my work").expect("a file");
    universe.sql("SELECT 1;").fails(&["not a Meridian universe", "Hint"]);
    let left: Vec<_> = std::fs::read_dir(&folder).expect("it is there").collect();
    assert_eq!(left.len(), 1, "{left:?}");

    let nowhere = universe.beside("nowhere");
    let mut command = meridian();
    command.args(["admin", "groups", "--data"]).arg(&nowhere);
    run(&mut command).fails(&["no universe", "Hint"]);
    assert!(!nowhere.exists());
}

#[test]
fn the_number_of_replicas_stays() {
    let universe = Universe::with(3, SCHEMA);
    let mut command = meridian();
    command.args(["sql", "--replicas", "1", "--data"]).arg(universe.data());
    feed(&mut command, "SELECT 1;").fails(&["3 replicas", "1 were asked for", "Hint"]);
    let mut command = meridian();
    command.args(["sql", "--format", "csv", "--data"]).arg(universe.data());
    assert_eq!(feed(&mut command, "SELECT 1 AS one;").ok(), "one\n1\n");
}

#[test]
fn wrong_command_lines_end_with_2() {
    let universe = Universe::new(1);
    let mut two = meridian();
    two.args(["sql", "--replicas", "2", "--data"]).arg(universe.data());
    let mut plant = meridian();
    plant.args(["sim", "bank", "--seed", "1", "--plant", "commit-wait-off"]);
    let mut unknown = meridian();
    unknown.arg("sqll");
    let mut seeds = meridian();
    seeds.args(["sim", "bank", "--seeds", "9..2"]);
    for command in [&mut two, &mut plant, &mut unknown, &mut seeds] {
        let ended = run(command);
        assert_eq!(ended.code, Some(2), "{command:?}: {ended:?}");
        assert!(!ended.stderr.is_empty());
    }
    assert!(!universe.data().exists());
}

/// A small file system of its own, unmounted in the end.
struct SmallDisk<'p>(&'p Path);

impl<'p> SmallDisk<'p> {
    fn mount(at: &'p Path, size: &str) -> Option<SmallDisk<'p>> {
        std::fs::create_dir_all(at).expect("a folder");
        let options = format!("size={size}");
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &options, "meridian-test"]).arg(at);
        let mounted = mount.stderr(Stdio::null()).status().is_ok_and(|status| status.success());
        mounted.then_some(SmallDisk(at))
    }
}

impl Drop for SmallDisk<'_> {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(self.0).status();
    }
}

#[test]
fn a_full_disk_ends_an_import_and_loses_nothing_acknowledged() {
    let universe = Universe::new(1);
    let folder = universe.data();
    let Some(disk) = SmallDisk::mount(&folder, "64m") else {
        println!("skipped: a small file system cannot be mounted here");
        return;
    };
    universe.sql("CREATE TABLE t (id INT64 NOT NULL, pad STRING(MAX)) PRIMARY KEY (id);").ok();
    // Text that does not compress: a hundred megabytes of hexadecimal digits of a running hash.
    let mut hash = 7_u64;
    let mut csv = String::from("id,pad\n");
    for id in 0..50_000 {
        csv.push_str(&format!("{id},"));
        for _ in 0..100 {
            hash = hash.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(id * 2 + 1);
            csv.push_str(&format!("{:016x}", hash ^ (hash >> 29)));
        }
        csv.push('\n');
    }
    let file = universe.file("pad.csv", &csv);
    let mut command = universe.command("import");
    command.args(["--table", "t", "--batch", "200", "--report-batches"]).arg(&file);
    let ended = run(&mut command);
    assert!(matches!(ended.code, Some(1 | 74)), "{:?}\n{}", ended.code, ended.stderr);
    assert!(!ended.stderr.is_empty());
    let last = ended.stdout.lines().last().and_then(|line| line.strip_prefix("committed "));
    let committed: u64 = last.expect("some batches fit").parse().expect("a number");

    // With room again, what was acknowledged is there.
    let mut more = Command::new("mount");
    more.args(["-o", "remount,size=512m"]).arg(&folder);
    assert!(more.status().is_ok_and(|status| status.success()), "the file system can grow");
    let there = universe.number(&format!("SELECT COUNT(*) AS n FROM t WHERE id < {committed}"));
    assert_eq!(there, committed);
    drop(disk);
}
