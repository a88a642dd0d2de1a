//! Clients of real servers on loopback: any of them leads to all. (What happens when servers die and
//! come back is the matrix of faults' business.)

mod support;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};
use support::{Ended, Process, feed, flights, meridian, run};

const PATIENCE: Duration = Duration::from_secs(60);

/// Three servers, each with a folder and a place of its own.
struct Servers {
    folder: tempfile::TempDir,
    running: Vec<Process>,
    addresses: Vec<String>,
}

impl Servers {
    fn three() -> Servers {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let mut servers = Servers { folder, running: Vec::new(), addresses: Vec::new() };
        for node in 1..=3 {
            let (process, address) = servers.start(node, "127.0.0.1:0");
            servers.running.push(process);
            servers.addresses.push(address);
        }
        servers
    }

    /// Starts a server, and waits until it serves; where that is.
    #[track_caller]
    fn start(&self, node: u32, listen: &str) -> (Process, String) {
        let mut command = meridian();
        command.args(["server", "--node", &node.to_string(), "--listen", listen]);
        command.args(["--http", "off", "--zone", &format!("z{node}")]);
        command.arg("--data").arg(self.beside(&format!("n{node}")));
        match self.addresses.first() {
            None => command.arg("--init"),
            Some(first) => command.args(["--join", first]),
        };
        let mut process = Process::start(&mut command);
        let line = process.line().unwrap_or_default();
        // `ready: n1 at 127.0.0.1:7101`, and perhaps more.
        let place = line.strip_prefix(&format!("ready: n{node} at ")).unwrap_or_default();
        let address = place.split([',', ' ']).next().unwrap_or_default().to_owned();
        assert!(!address.is_empty(), "`{line}` instead of readiness");
        (process, address)
    }

    fn beside(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn all(&self) -> String {
        self.addresses.join(",")
    }

    fn command(&self, words: &[&str], connect: &str) -> Command {
        let mut command = meridian();
        command.args(words).args(["--connect", connect]);
        command
    }

    /// Statements at one server.
    fn sql(&self, node: usize, script: &str) -> Ended {
        let address = &self.addresses[node - 1];
        feed(self.command(&["sql", "--format", "csv"], address).args(["-f", "-"]), script)
    }

    #[track_caller]
    fn until(&self, what: &str, is_so: impl Fn() -> bool) {
        let began = Instant::now();
        while !is_so() {
            assert!(began.elapsed() < PATIENCE, "never: {what}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

#[track_caller]
fn judged(what: &str, file: &Path) -> String {
    run(meridian().args(["check", what]).arg(file)).ok()
}

#[test]
fn what_one_client_did_at_one_server_another_sees_at_another() {
    let servers = Servers::three();
    let schema = "CREATE TABLE t (k INT64 NOT NULL, v STRING(10)) PRIMARY KEY (k);";
    servers.sql(1, schema).ok();
    servers.sql(2, "INSERT INTO t (k, v) VALUES (1, 'one'), (2, 'two');").ok();
    assert_eq!(servers.sql(3, "SELECT k, v FROM t ORDER BY k;").ok(), "k,v\n1,one\n2,two\n");
    servers.sql(3, "UPDATE t SET v = 'zwei' WHERE k = 2;").ok();
    assert_eq!(servers.sql(1, "SELECT v FROM t WHERE k = 2;").ok(), "v\nzwei\n");

    let names = ["n1", "n2", "n3", "client"];
    let is_shown = |(line, name): (&str, &str)| line.starts_with(name) && line.contains('±');
    servers.until("n2 has heard of all servers, and their clocks are shown", || {
        let clocks = servers.sql(2, "\\clock\n").ok();
        clocks.lines().count() == names.len() && clocks.lines().zip(names).all(is_shown)
    });
    let refused = servers.sql(2, "\\clock n1 offset=5ms\n").fails(&["n1", "Hint: "]);
    assert!(refused.contains("--allow-faults"), "{refused}");

    servers.sql(1, "CREATE TABLE airlines (carrier STRING(2) NOT NULL, name STRING(100)) PRIMARY KEY (carrier);").ok();
    let mut import = servers.command(&["import", "--table", "airlines"], &servers.all());
    let imported = run(import.arg(flights("airlines.csv"))).ok();
    assert!(imported.starts_with("imported 16 rows into airlines"), "{imported}");
    assert_eq!(servers.sql(2, "SELECT COUNT(*) AS n FROM airlines;").ok(), "n\n16\n");
}

#[test]
fn workloads_at_servers_leave_histories_that_hold() {
    let servers = Servers::three();
    let (bank, lists) = (servers.beside("bank"), servers.beside("lists"));
    let certificates = servers.beside("certificates");
    let mut command = servers.command(&["bench", "transfer", "--json"], &servers.all());
    command.args(["--clients", "8", "--seconds", "3", "--history"]).arg(&bank);
    let mut transfers = Process::start(command.arg("--certificates").arg(&certificates));
    let mut command = servers.command(&["bench", "append", "--json"], &servers.all());
    command.args(["--clients", "4", "--seconds", "3", "--seed", "5", "--history"]).arg(&lists);
    let mut appends = Process::start(&mut command);
    for (process, workload) in [(&mut transfers, "transfer"), (&mut appends, "append")] {
        let told = process.line().expect("an object at the end");
        println!("{told}");
        assert!(told.contains(&format!("\"workload\":\"{workload}\"")), "{told}");
        assert!(told.contains("\"longest_stall_ms\":"), "{told}");
        assert!(!told.contains("\"commits\":0,"), "{told}");
    }
    assert!(judged("history", &bank).contains("no violation"));
    assert!(judged("history", &lists).contains("no violation"));
    assert!(judged("certificates", &certificates).contains("nothing wrong"));

    let mut write = servers.command(&["bench", "write", "--writers", "4"], &servers.all());
    let written = run(write.args(["--seconds", "1"])).ok();
    assert!(written.contains("rows intact     yes"), "{written}");

    // Ctrl-C: what was written down until then is complete.
    let stopped = servers.beside("stopped");
    let mut command = servers.command(&["bench", "append"], &servers.all());
    let appends = Process::start(command.args(["--seconds", "600", "--history"]).arg(&stopped));
    servers.until("it is at work", || std::fs::metadata(&stopped).is_ok_and(|f| f.len() > 0));
    let (_, code) = appends.interrupt();
    assert_eq!(code, Some(130));
    assert!(judged("history", &stopped).contains("no violation"));
}

#[test]
fn who_cannot_connect_hears_why() {
    let nobody = run(meridian().args(["sql", "--connect", "127.0.0.1:1", "-e", "SELECT 1"]));
    nobody.fails(&["no server answers", "127.0.0.1:1", "Hint: start the servers"]);
    let wrong = run(meridian().args(["sql", "--connect", "nowhere", "-e", "SELECT 1"]));
    wrong.fails(&["`nowhere` is no address", "HOST:PORT"]);
    for words in [
        &["sql", "--connect", "a:1", "--data", "u"][..],
        &["sql"],
        &["sql", "--connect", "a:1", "--clock", "n2=local"],
        &["sql", "--connect", "a:1", "--allow-clock-faults"],
        &["import", "--table", "t", "f.csv"],
        &["bench", "transfer", "--connect", "a:1", "--replicas", "3"],
        &["bench", "write", "--tls-ca", "ca.pem"],
    ] {
        let refused = run(meridian().args(words));
        assert_eq!(refused.code, Some(2), "{words:?}: {}", refused.stderr);
    }
}
