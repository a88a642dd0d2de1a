//! What must be true after every fault, and the row of the table.

use crate::figures::{Figures, Moment, fault_lasts};
use crate::nodes::Cluster;
use crate::support::{feed, meridian, run};
use crate::work::{Load, Worked};
use std::io::Write;
use std::time::Duration;

/// The sum of all accounts.
const TOTAL: &str = "16000";
/// How long service may be away besides the time that a fault lasts. What it is on a machine
/// that does nothing else is in the table; this is for one that is busy with other tests.
const BACK_WITHIN: Duration = Duration::from_secs(20);

/// A fault that was made, and when.
pub struct Fault {
    /// What it is called in the table.
    pub name: &'static str,
    /// How it was made.
    pub how: String,
    pub from: Moment,
    /// When it was over: at once, for one that servers must survive as it is.
    pub over: Moment,
    /// Service cannot be there before the fault is over.
    pub is_outage: bool,
}

impl Fault {
    /// One that lasts from now on.
    pub fn begins(name: &'static str, how: impl Into<String>) -> Fault {
        let now = Moment::now();
        Fault { name, how: how.into(), from: now, over: now, is_outage: false }
    }

    /// It is over; nobody could be served meanwhile.
    pub fn was_outage(&mut self) {
        self.over = Moment::now();
        self.is_outage = true;
    }

    /// It is over; others were to serve meanwhile.
    pub fn is_over(&mut self) {
        self.over = Moment::now();
    }
}

/// Waits for the end of the workloads, and judges everything. All servers are stopped then.
#[track_caller]
pub fn judge(cluster: &mut Cluster, load: Load, fault: &Fault) -> Vec<Figures> {
    let early = load.left().is_zero();
    let (worked, certificates) = load.end(cluster);
    assert!(!early, "{}: the workloads had ended before the fault was over", fault.name);
    let mut all = Vec::new();
    for work in &worked {
        let figures = work.figures(fault.from, fault.over);
        row(fault, work, &figures);
        assert_eq!(work.ended.code, Some(0), "{}: {:?}", work.name, work.ended);
        print!("{}", run(meridian().args(["check", "history"]).arg(&work.history)).ok());
        assert!(figures.commits_after > 0, "{}: no commit after the fault", work.name);
        let away = if fault.is_outage { figures.after } else { figures.back };
        assert!(
            away < BACK_WITHIN + fault_lasts(),
            "{}: {} was away for {away:?}",
            work.name,
            fault.name
        );
        all.push(figures);
    }
    let key = cluster.members[&1].data.join("certificate.key");
    let key = if key.exists() { key } else { cluster.members[&2].data.join("certificate.key") };
    let mut check = meridian();
    check.args(["check", "certificates"]).arg(certificates).arg("--key").arg(key);
    run(&mut check).ok();
    let mut sql = meridian();
    sql.args(["sql", "--format", "csv", "--connect", &cluster.addresses()]);
    let sum = feed(&mut sql, "SELECT SUM(balance) AS total FROM bench_recorded;").ok();
    assert_eq!(sum.lines().last(), Some(TOTAL), "{sum}");
    no_lock_is_left(cluster);
    same_on_disk(cluster);
    all
}

fn no_lock_is_left(cluster: &Cluster) {
    cluster.until("nobody holds a lock", |cluster| {
        let leaders = cluster.leaders();
        if leaders.len() < cluster.plan.groups as usize + 1 {
            return Err(format!("{} groups are led", leaders.len()));
        }
        match leaders.values().find(|group| group.lock_holders + group.prepared > 0) {
            None => Ok(()),
            Some(group) => Err(format!("{group:?}")),
        }
    });
}

/// Stops all servers at once, and compares what they have on disk.
fn same_on_disk(cluster: &mut Cluster) {
    cluster.stop();
    let mut check = meridian();
    check.args(["check", "replicas"]);
    for member in cluster.members.values().filter(|member| member.data.join("node.toml").exists()) {
        check.arg("--data").arg(&member.data);
    }
    run(&mut check).ok();
}

/// A row of the table: to standard output, and to a file if one is wanted.
fn row(fault: &Fault, work: &Worked, figures: &Figures) {
    let seconds = |time: Duration| format!("{:.2}", time.as_secs_f64());
    let after = if fault.is_outage { seconds(figures.after) } else { "–".to_owned() };
    let failures = work.ended.stdout.lines().find_map(|line| line.strip_prefix("failures"));
    let failures = failures.unwrap_or_default().trim();
    let verdict = if work.ended.code == Some(0) { "nothing lost" } else { "FAILED" };
    let row = format!(
        "| {} | {} | {} | {} | {} | {} | {} | {} | {failures} | {verdict} |",
        fault.name,
        fault.how,
        work.name,
        figures.commits,
        figures.unknown,
        seconds(figures.stall),
        seconds(figures.back),
        after,
    );
    println!("{row}");
    if let Some(file) = std::env::var_os("MERIDIAN_FAULT_TABLE") {
        let file = std::fs::File::options().create(true).append(true).open(file);
        writeln!(file.expect("the table's file"), "{row}").expect("the table is written");
    }
}

/// A fault that cannot be made here.
pub fn cannot(name: &str, why: &str) {
    println!("not run: {name}: {why}");
    if let Some(file) = std::env::var_os("MERIDIAN_FAULT_TABLE") {
        let file = std::fs::File::options().create(true).append(true).open(file);
        writeln!(file.expect("the table's file"), "| {name} | not run: {why} |")
            .expect("the table is written");
    }
}
