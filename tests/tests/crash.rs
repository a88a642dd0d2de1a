//! `kill -9` in the middle of an import: what was reported is there, and no batch is there by half.

mod support;

use support::{Process, Universe, flights};

const BATCH: u64 = 100;

fn universe(replicas: u32) -> Universe {
    let schema = std::fs::read_to_string(flights("schema.sql")).expect("the schema");
    let universe = Universe::with(replicas, &schema);
    universe.import("airlines", &flights("airlines.csv")).ok();
    universe
}

/// Rows of the import that the last line of its report counts.
fn reported(lines: &[String]) -> u64 {
    let mut numbers = lines.iter().filter_map(|line| line.strip_prefix("committed "));
    numbers.next_back().map_or(0, |number| number.parse().expect("a number"))
}

/// An import, killed after so many reports; what it had reported in all.
fn import_and_kill(universe: &Universe, reports: u64) -> u64 {
    let mut command = universe.command("import");
    command.args(["--table", "flights", "--null", "NA", "--report-batches", "--batch"]);
    let mut import = Process::start(command.arg(BATCH.to_string()).arg(flights("flights.csv.gz")));
    let mut lines = Vec::new();
    for _ in 0..reports {
        lines.extend(import.line());
    }
    lines.extend(import.kill());
    assert!(!lines.iter().any(|line| line.starts_with("imported")), "killed too late: {lines:?}");
    reported(&lines)
}

fn kills_lose_nothing(replicas: u32, moments: &[u64]) {
    let universe = universe(replicas);
    let mut before = 0;
    for reports in moments {
        let acknowledged = import_and_kill(&universe, *reports);
        assert!(acknowledged >= reports * BATCH);
        let rows = universe.number_after_crash("SELECT COUNT(*) AS n FROM flights");
        // Every run writes the file from its beginning, over what is there.
        assert!(rows >= acknowledged.max(before), "{rows} rows, {acknowledged} were acknowledged");
        assert_eq!(rows % BATCH, 0, "a batch is there by half: {rows} rows");
        before = rows;
    }
    let done = universe.import("flights", &flights("flights.csv.gz")).ok();
    assert!(done.starts_with("imported 12208 rows into flights"), "{done}");
    assert_eq!(universe.number("SELECT COUNT(*) AS n FROM flights"), 12_208);
    let late = "SELECT COUNT(*) AS n FROM flights WHERE carrier = 'HA' AND dest = 'HNL'";
    assert_eq!(universe.number(late), 14);
}

#[test]
fn kills_lose_nothing_on_one_replica() {
    kills_lose_nothing(1, &[0, 1, 9, 40]);
}

#[test]
fn kills_lose_nothing_on_three_replicas() {
    kills_lose_nothing(3, &[1, 25]);
}

#[test]
fn a_transaction_killed_before_its_commit_left_nothing() {
    for replicas in [1, 3] {
        let universe = universe(replicas);
        let mut command = universe.command("sql");
        command.args(["--format", "csv"]).stdin(std::process::Stdio::piped());
        let mut session = Process::start(&mut command);
        let mut stdin = session.stdin().expect("it is piped");
        let script = "BEGIN;
            INSERT INTO loyalty (carrier, points) VALUES ('AA', 1), ('UA', 1);
            SELECT COUNT(*) AS n FROM loyalty;\n";
        use std::io::Write;
        stdin.write_all(script.as_bytes()).expect("it reads");
        assert_eq!(session.line().as_deref(), Some("n"));
        assert_eq!(session.line().as_deref(), Some("2"));
        session.kill();
        assert_eq!(universe.number_after_crash("SELECT COUNT(*) AS n FROM loyalty"), 0);
    }
}

#[test]
fn an_interrupted_import_stops_after_whole_batches() {
    let universe = universe(1);
    let mut command = universe.command("import");
    command.args(["--table", "flights", "--null", "NA", "--report-batches", "--batch", "20"]);
    let mut import = Process::start(command.arg(flights("flights.csv.gz")));
    assert_eq!(import.line().as_deref(), Some("committed 20"));
    let (lines, code) = import.interrupt();
    assert_eq!(code, Some(130));
    let committed = reported(&lines).max(20);
    assert_eq!(universe.number("SELECT COUNT(*) AS n FROM flights"), committed);
}
