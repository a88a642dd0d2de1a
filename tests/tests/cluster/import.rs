//! Flights are imported through the network, while a server dies and comes back. Two weeks of them, or
//! those in the folder that `MERIDIAN_FLIGHTS` names: a year has 336,776.

use crate::nodes::{Cluster, LOOK_EVERY, PATIENCE, Plan};
use crate::support::{feed, flights, meridian, run};
use proto::GroupId;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::Instant;

/// Entries of logs by which an import is under way.
const ENTRIES: u64 = 5;
/// Parents before children: a flight needs its airline.
const TABLES: [&str; 5] = ["airlines", "airports", "planes", "weather", "flights"];

#[test]
fn flights_are_imported_while_a_server_dies_and_comes_back() {
    let mut cluster = Cluster::start(Plan::default());
    let mut schema = connected(&cluster, "sql");
    run(schema.arg("-f").arg(flights("schema.sql"))).ok();
    for table in TABLES {
        let file = data(table);
        let begun = Instant::now();
        let mut import = connected(&cluster, "import");
        import.args(["--table", table, "--null", "NA"]).arg(&file);
        match table {
            "flights" => killed_meanwhile(&mut cluster, &mut import),
            _ => drop(run(&mut import).ok()),
        }
        let count = format!("SELECT COUNT(*) AS n FROM {table};");
        let mut sql = connected(&cluster, "sql");
        let counted = feed(sql.args(["--format", "csv"]), &count).ok();
        let rows = rows_of(&file);
        assert_eq!(counted.lines().last(), Some(rows.to_string().as_str()), "{table}");
        let seconds = begun.elapsed().as_secs_f64();
        println!("{table}: {rows} rows in {seconds:.1} s ({:.0} a second)", rows as f64 / seconds);
    }
}

/// The file of a table, compressed or not.
fn data(table: &str) -> PathBuf {
    let folder = std::env::var_os("MERIDIAN_FLIGHTS").map(PathBuf::from);
    let file = |name: String| folder.as_ref().map_or_else(|| flights(&name), |at| at.join(&name));
    let compressed = file(format!("{table}.csv.gz"));
    if compressed.exists() { compressed } else { file(format!("{table}.csv")) }
}

fn connected(cluster: &Cluster, command: &str) -> Command {
    let mut all = meridian();
    all.args([command, "--connect", &cluster.addresses()]);
    all
}

/// A server that does not lead the root group dies in the middle of it, and comes back.
fn killed_meanwhile(cluster: &mut Cluster, import: &mut Command) {
    let last =
        |cluster: &Cluster| -> u64 { cluster.leaders().values().map(|group| group.last.0).sum() };
    let before = last(cluster);
    let quiet = import.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let mut import = quiet.spawn().expect("the binary runs");
    cluster.until("the import is under way", |cluster| match last(cluster) {
        now if now >= before + ENTRIES => Ok(()),
        now => Err(format!("{before} and {now} entries")),
    });
    let victim = cluster.others(cluster.leader(GroupId::ROOT))[0];
    cluster.kill(victim);
    assert!(goes_on(&mut import), "it was over before the kill");
    cluster.run(victim);
    let begun = Instant::now();
    while goes_on(&mut import) {
        assert!(begun.elapsed() < PATIENCE * 3, "the import does not end");
        sleep(LOOK_EVERY);
    }
    let status = import.wait().expect("it is ours to wait for");
    assert_eq!(status.code(), Some(0));
}

fn goes_on(child: &mut Child) -> bool {
    child.try_wait().expect("it is ours to wait for").is_none()
}

/// Lines of a file, less its heading, counted by others.
fn rows_of(file: &Path) -> usize {
    let mut cat = match file.extension().and_then(|extension| extension.to_str()) {
        Some("gz") => Command::new("gzip"),
        _ => Command::new("cat"),
    };
    if file.extension().is_some_and(|extension| extension == "gz") {
        cat.arg("-dc");
    }
    run(cat.arg(file)).ok().lines().count() - 1
}
