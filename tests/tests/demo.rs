//! `meridian demo`: a cluster of processes that is there, does what clients and operators want, and
//! leaves nothing behind, however it ends.

mod support;

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use support::{Process, meridian, run};

/// One after the other: demos take ports that are free when they look.
fn alone_here() -> MutexGuard<'static, ()> {
    static ONE: Mutex<()> = Mutex::new(());
    ONE.lock().unwrap_or_else(PoisonError::into_inner)
}

const PATIENCE: Duration = Duration::from_secs(60);

/// The binary, deaf to variables that whoever runs the tests has set, with temporary files in a
/// folder of the test's own.
fn alone(temporary: &Path) -> Command {
    let mut command = meridian();
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("MERIDIAN_") {
            command.env_remove(name);
        }
    }
    command.env("TMPDIR", temporary);
    command
}

/// A node, as the demo prints it.
#[derive(Debug)]
struct Node {
    address: String,
    process: PathBuf,
}

impl Node {
    fn of(line: &str) -> Option<Node> {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words.as_slice() {
            [name, address, "zone", _, "pid", pid] if name.starts_with('n') => {
                Some(Node { address: (*address).to_owned(), process: Path::new("/proc").join(pid) })
            }
            _ => None,
        }
    }

    /// Whether it runs: one that has ended may wait for somebody to ask how.
    fn runs(&self) -> bool {
        let state = std::fs::read_to_string(self.process.join("stat")).unwrap_or_default();
        let after_name = state.rsplit_once(')').map_or("", |(_, rest)| rest);
        !matches!(after_name.split_whitespace().next(), None | Some("Z" | "X"))
    }
}

/// A demo that serves, and its nodes.
struct Demo {
    process: Process,
    nodes: Vec<Node>,
    temporary: tempfile::TempDir,
}

impl Demo {
    fn start(more: &[&str]) -> Demo {
        let temporary = tempfile::tempdir().expect("a temporary folder");
        let mut command = alone(temporary.path());
        let mut process = Process::start(command.arg("demo").args(more));
        let mut nodes = Vec::new();
        loop {
            let line = process.line().expect("it serves before it ends");
            match Node::of(&line) {
                Some(node) => nodes.push(node),
                None if line.starts_with("Ctrl-C") => break,
                None => {}
            }
        }
        Demo { process, nodes, temporary }
    }

    /// A command that talks to one of its nodes, and what it printed.
    #[track_caller]
    fn ask(&self, node: usize, words: &[&str]) -> String {
        let mut command = alone(self.temporary.path());
        run(command.args(words).args(["--connect", &self.nodes[node].address])).ok()
    }

    #[track_caller]
    fn json(&self, node: usize, words: &[&str]) -> Vec<serde_json::Value> {
        let text = self.ask(node, &[words, &["--json"]].concat());
        text.lines().map(|line| serde_json::from_str(line).expect("it is JSON")).collect()
    }

    /// Whether a command succeeds.
    fn says(&self, node: usize, words: &[&str]) -> bool {
        let mut command = alone(self.temporary.path());
        run(command.args(words).args(["--connect", &self.nodes[node].address])).code == Some(0)
    }

    fn folders(&self) -> Vec<PathBuf> {
        let entries = self.temporary.path().read_dir().expect("the test's own");
        entries.map(|entry| entry.expect("it can be read").path()).collect()
    }
}

#[track_caller]
fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let began = Instant::now();
    while !is_so() {
        assert!(began.elapsed() < PATIENCE, "not within {PATIENCE:?}: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn three_nodes_serve_and_leave_nothing() {
    let _one = alone_here();
    let demo = Demo::start(&["--nodes", "3", "--zones", "x,y,z"]);
    assert_eq!(demo.nodes.len(), 3);
    assert!(demo.nodes.iter().all(Node::runs), "{:?}", demo.nodes);
    assert_eq!(demo.folders().len(), 1);

    // Any node will do, for clients …
    let table = "CREATE TABLE t (id INT64 NOT NULL, v STRING(10)) PRIMARY KEY (id);
                 INSERT INTO t (id, v) VALUES (1, 'one'), (2, 'two');";
    demo.ask(0, &["sql", "-e", table]);
    let rows = demo.ask(2, &["sql", "--format", "csv", "-e", "SELECT v FROM t ORDER BY id"]);
    assert_eq!(rows, "v\none\ntwo\n");

    // … and for operators.
    until("it is healthy", || demo.says(1, &["admin", "status", "--check"]));
    let status = &demo.json(1, &["admin", "status"])[0];
    assert_eq!(status["groups"]["total"], 5);
    let zones: Vec<&str> = demo_zones(status);
    assert_eq!(zones, ["x", "y", "z"]);
    assert_eq!(demo.json(2, &["admin", "nodes"]).len(), 3);
    let groups = demo.json(2, &["admin", "groups"]);
    assert!(
        groups.iter().all(|group| group["voters"] == serde_json::json!([1, 2, 3])),
        "{groups:?}"
    );
    let clocks = demo.json(0, &["admin", "clock"]);
    assert!(clocks.iter().all(|clock| clock["epsilon_us"].is_u64()), "{clocks:?}");
    let group = &demo.json(0, &["admin", "group", "g1"])[0];
    assert_eq!(group["replicas"].as_array().map(Vec::len), Some(3), "{group}");
    let tables = demo.ask(1, &["admin", "status"]) + &demo.ask(1, &["admin", "group", "1"]);
    assert!(tables.contains("3, all answer") && tables.contains("voters n1, n2, n3"), "{tables}");
    until("somebody leads g1", || demo.says(1, &["admin", "group", "1", "--locks"]));

    // Ctrl-C: every process ends, and what they wrote goes.
    let Demo { process, nodes, temporary } = demo;
    let (_, code) = process.interrupt();
    assert_eq!(code, Some(0));
    assert!(!nodes.iter().any(Node::runs), "a node outlives the demo");
    assert_eq!(temporary.path().read_dir().expect("the test's own").count(), 0);
}

fn demo_zones(status: &serde_json::Value) -> Vec<&str> {
    let nodes = status["nodes"].as_array().expect("a list");
    nodes.iter().filter_map(|node| node["zone"].as_str()).collect()
}

#[test]
fn leaders_go_where_they_are_told() {
    let _one = alone_here();
    let demo = Demo::start(&[]);
    // Wherever it is: two of these move it. It may be moved again to spread the work.
    for node in 1..=3 {
        let moved = &demo.json(0, &["admin", "move-leader", "2", &format!("n{node}")])[0];
        assert_eq!((&moved["done"], &moved["leader"]), (&true.into(), &node.into()), "{moved}");
    }
    let drained = &demo.json(0, &["admin", "drain", "2"])[0];
    assert_eq!((&drained["done"], &drained["draining"]), (&true.into(), &true.into()));
    // Work that is being spread shows as a group without a leader for a moment.
    until("others lead everything", || {
        let groups = demo.json(0, &["admin", "groups"]);
        groups.iter().all(|group| group["leader"].is_u64() && group["leader"] != 2)
    });
    let text = demo.ask(0, &["admin", "status"]);
    assert!(text.contains("note: n2 is draining"), "{text}");
    demo.ask(0, &["admin", "drain", "2", "--off"]);
    let nodes = demo.json(0, &["admin", "nodes"]);
    assert_eq!(nodes[1]["state"], "active");

    let refused = |words: &[&str]| {
        let mut command = alone(demo.temporary.path());
        run(command.arg("admin").args(words).args(["--connect", &demo.nodes[0].address]))
    };
    refused(&["move-leader", "77", "1"]).fails(&["no group g77", "g4"]);
    refused(&["drain", "9"]).fails(&["no node n9", "n1 (zone a)"]);
    refused(&["replace-node", "3"]).fails(&["n3 answers", "--force"]);
}

#[test]
fn nodes_do_not_outlive_a_demo_that_is_killed() {
    let _one = alone_here();
    let Demo { process, nodes, temporary: _temporary } = Demo::start(&[]);
    process.kill();
    until("all nodes end", || !nodes.iter().any(Node::runs));
}

#[test]
fn a_folder_that_is_named_stays_and_comes_back() {
    let _one = alone_here();
    let own = tempfile::tempdir().expect("a temporary folder");
    let data = own.path().join("data");
    let data = data.to_str().expect("it has a plain name");
    let demo = Demo::start(&["--data", data]);
    let table =
        "CREATE TABLE t (id INT64 NOT NULL) PRIMARY KEY (id); INSERT INTO t (id) VALUES (7);";
    demo.ask(0, &["sql", "-e", table]);
    assert!(demo.folders().is_empty(), "nothing is temporary");
    let (_, code) = demo.process.interrupt();
    assert_eq!(code, Some(0));
    let demo = Demo::start(&["--data", data]);
    let rows = demo.ask(1, &["sql", "--format", "csv", "-e", "SELECT id FROM t"]);
    assert_eq!(rows, "id\n7\n");
}

#[test]
fn a_node_that_does_not_start_is_named_and_the_others_end() {
    let _one = alone_here();
    let temporary = tempfile::tempdir().expect("a temporary folder");
    let data = temporary.path().join("data");
    std::fs::create_dir(&data).expect("a folder");
    std::fs::write(data.join("n2"), "not a folder").expect("a file");
    let mut command = alone(temporary.path());
    run(command.arg("demo").arg("--data").arg(&data))
        .fails(&["n2 has ended (exit code 1)", "n2.log"]);

    let taken = TcpListener::bind("127.0.0.1:0").expect("there is a port");
    let port = taken.local_addr().expect("it is bound").port().to_string();
    let mut command = alone(temporary.path());
    let ended = run(command.args(["demo", "--nodes", "1", "--base-port", &port]));
    ended.fails(&[&format!("port {port} is taken")]);
}
