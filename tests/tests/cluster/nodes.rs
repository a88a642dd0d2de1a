//! The processes of a cluster: started, signalled, brought back on the same port, wiped, and ended with
//! all they have left when the test is over, however it ends.

use crate::support::{binary, meridian};
use rpc::security::Security;
use rpc::{Connections, Faults};
use std::collections::BTreeMap;
use std::fs::File;
use std::net::TcpListener;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// What takes longer is broken.
pub const PATIENCE: Duration = Duration::from_secs(60);
pub const LOOK_EVERY: Duration = Duration::from_millis(20);
/// Lines of each log that are shown when a test fails.
const LINES_SHOWN: usize = 25;

/// Two clusters at once would only measure each other.
static ONE: Mutex<()> = Mutex::new(());

/// How a cluster is founded.
#[derive(Clone)]
pub struct Plan {
    pub nodes: u32,
    pub replicas: u32,
    pub groups: u32,
    pub clock: &'static str,
}

impl Default for Plan {
    fn default() -> Plan {
        Plan { nodes: 3, replicas: 3, groups: 4, clock: "local" }
    }
}

/// One server: what it is started with, and the process while it runs.
pub struct Member {
    pub address: String,
    pub data: PathBuf,
    /// Its process is started by this command and its arguments: that of another network, say.
    pub within: Vec<String>,
    pub clock: String,
    child: Option<Child>,
}

pub struct Cluster {
    pub plan: Plan,
    pub members: BTreeMap<u32, Member>,
    pub connections: Connections,
    pub runtime: tokio::runtime::Runtime,
    folder: tempfile::TempDir,
    _one: MutexGuard<'static, ()>,
}

impl Cluster {
    /// A cluster that serves: every group has its replicas and a leader.
    pub fn start(plan: Plan) -> Cluster {
        let mut cluster = Cluster::of(plan);
        for node in 1..=cluster.plan.nodes {
            cluster.add(node, None);
        }
        cluster.found();
        cluster
    }

    /// One without servers yet.
    pub fn of(plan: Plan) -> Cluster {
        let one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
        binary(); // before anybody waits for it
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("a runtime");
        let faults = Arc::new(Faults::new(1));
        Cluster {
            plan,
            members: BTreeMap::new(),
            connections: Connections::new(Security::Plaintext, faults, 1),
            runtime,
            folder: tempfile::tempdir().expect("a temporary folder"),
            _one: one,
        }
    }

    /// A server that does not run yet, on loopback if no other place is named.
    pub fn add(&mut self, node: u32, address: Option<String>) {
        let address = address.unwrap_or_else(|| format!("127.0.0.1:{}", free_port()));
        let data = self.path(&format!("n{node}"));
        let clock = self.plan.clock.to_owned();
        self.members.insert(node, Member { address, data, within: Vec::new(), clock, child: None });
    }

    /// Starts all of them, the first as the founder, and waits until they serve.
    pub fn found(&mut self) {
        let begun = Instant::now();
        let all: Vec<u32> = self.members.keys().copied().collect();
        for node in &all {
            self.run(*node);
        }
        self.settled(&all);
        println!("{} servers serve after {} ms", all.len(), begun.elapsed().as_millis());
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Every address, for `--connect`.
    pub fn addresses(&self) -> String {
        let all: Vec<&str> = self.members.values().map(|member| member.address.as_str()).collect();
        all.join(",")
    }

    /// Starts a server, and does not wait for it.
    pub fn run(&mut self, node: u32) {
        let mut command = self.server(node);
        let out = self.log(node, "out");
        // It ends when this process does: its standard input is closed then.
        let command = command.stdin(Stdio::piped()).stdout(out).stderr(self.log(node, "log"));
        let child = command.process_group(0).spawn().expect("the binary runs");
        self.member(node).child = Some(child);
    }

    fn server(&self, node: u32) -> Command {
        let member = &self.members[&node];
        let mut command = match member.within.split_first() {
            None => meridian(),
            Some((first, rest)) => {
                let mut command = Command::new(first);
                command.args(rest).arg(binary());
                command
            }
        };
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("MERIDIAN_") {
                command.env_remove(name);
            }
        }
        command.args(["server", "--until-stdin-closes", "--allow-faults", "--http", "off"]);
        command.args(["--node", &node.to_string(), "--zone", &format!("z{node}")]);
        command.args(["--listen", &member.address, "--clock", &member.clock]);
        command.arg("--data").arg(&member.data);
        if !member.address.starts_with("127.") {
            command.arg("--insecure");
        }
        match node {
            1 => {
                let (groups, replicas) =
                    (self.plan.groups.to_string(), self.plan.replicas.to_string());
                command.args(["--init", "--groups", &groups, "--replicas", &replicas]);
            }
            _ => {
                command.args(["--join", &self.members[&1].address]);
            }
        }
        command
    }

    fn log(&self, node: u32, kind: &str) -> File {
        let name = self.path(&format!("n{node}.{kind}"));
        File::options().create(true).append(true).open(name).expect("a log")
    }

    pub fn logged(&self, node: u32) -> String {
        std::fs::read_to_string(self.path(&format!("n{node}.log"))).unwrap_or_default()
    }

    pub fn member(&mut self, node: u32) -> &mut Member {
        self.members.get_mut(&node).expect("there is such a server")
    }

    pub fn runs(&self, node: u32) -> bool {
        self.members[&node].child.is_some()
    }

    pub fn running(&self) -> Vec<u32> {
        self.members.keys().copied().filter(|node| self.runs(*node)).collect()
    }

    pub fn pid(&self, node: u32) -> u32 {
        self.members[&node].child.as_ref().expect("it runs").id()
    }

    pub fn kill(&mut self, node: u32) {
        let mut child = self.member(node).child.take().expect("it runs");
        child.kill().expect("it can be killed");
        child.wait().expect("it is ours to wait for");
    }

    pub fn signal(&self, node: u32, signal: &str) {
        signal_to(self.pid(node), signal);
    }

    pub fn goes_on(&mut self, node: u32) -> bool {
        let child = self.member(node).child.as_mut().expect("it runs");
        child.try_wait().expect("it is ours to wait for").is_none()
    }

    /// Waits until a server has ended by itself.
    #[track_caller]
    pub fn ended(&mut self, node: u32) -> ExitStatus {
        let begun = Instant::now();
        loop {
            let child = self.member(node).child.as_mut().expect("it runs");
            if let Some(status) = child.try_wait().expect("it is ours to wait for") {
                self.member(node).child = None;
                return status;
            }
            assert!(begun.elapsed() < PATIENCE, "n{node} goes on");
            sleep(LOOK_EVERY);
        }
    }

    /// A server that has ended loses its disk.
    pub fn wipe(&mut self, node: u32) {
        assert!(!self.runs(node));
        std::fs::remove_dir_all(&self.members[&node].data).expect("its folder");
    }

    /// Ends all of them at once, as a power cut does.
    pub fn stop(&mut self) {
        for node in self.running() {
            self.kill(node);
        }
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.stop();
        if std::thread::panicking() {
            for node in self.members.keys() {
                let log = self.logged(*node);
                let lines: Vec<&str> = log.lines().collect();
                let last = &lines[lines.len().saturating_sub(LINES_SHOWN)..];
                println!("---- the end of the log of n{node}\n{}", last.join("\n"));
            }
        }
    }
}

pub fn signal_to(pid: u32, signal: &str) {
    let sent = Command::new("kill").args([signal, &pid.to_string()]).status();
    assert!(sent.is_ok_and(|status| status.success()), "process {pid} can be signalled");
}

/// A port that is nobody's, below those that connections going out are given: a server that is away
/// finds its own free when it comes back.
fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let seed = (std::process::id() % 10_000) as u16;
    for _ in 0..1_000 {
        let port = 20_000 + (seed + NEXT.fetch_add(1, Ordering::Relaxed)) % 10_000;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
    panic!("no free port");
}
