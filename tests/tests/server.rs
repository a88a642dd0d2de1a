//! Real server processes on loopback: founded, joined, asked how they are, stopped, brought back, and
//! refused where they do not belong.

mod support;

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};
use support::{Ended, meridian, repository, run};

const PATIENCE: Duration = Duration::from_secs(60);

/// A folder for the folders of servers.
struct Yard(tempfile::TempDir);

impl Yard {
    fn new() -> Yard {
        Yard(tempfile::tempdir().expect("a temporary folder"))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// A server with this number, on a free port.
    fn server(&self, node: u32, more: &[&str]) -> Server {
        Server::start(self.command(node, more), self.path(&format!("n{node}.log")))
    }

    fn command(&self, node: u32, more: &[&str]) -> Command {
        let mut command = alone();
        command.args(["server", "--node", &node.to_string(), "--listen", "127.0.0.1:0"]);
        command.args(["--http", "127.0.0.1:0", "--zone", &format!("z{node}")]);
        command.arg("--data").arg(self.path(&format!("n{node}"))).args(more);
        command
    }

    /// Three servers that have found each other, and every group on all of them.
    fn three(&self, more: &[&str]) -> [Server; 3] {
        let n1 = self.server(1, &[&["--init"], more].concat());
        let join = ["--join", &n1.address];
        let n2 = self.server(2, &[&join, more].concat());
        let n3 = self.server(3, &[&join, more].concat());
        let all = [n1, n2, n3];
        for server in &all {
            server.until("it has a replica of every group", |metrics| {
                number(metrics, "meridian_replicas") == 5.0
            });
        }
        all
    }
}

/// The binary, deaf to variables that whoever runs the tests has set.
fn alone() -> Command {
    let mut command = meridian();
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("MERIDIAN_") {
            command.env_remove(name);
        }
    }
    command
}

/// A running server; killed when dropped.
struct Server {
    child: Child,
    log: PathBuf,
    address: String,
    http: String,
}

impl Server {
    /// Starts it, and waits until it says that it serves.
    #[track_caller]
    fn start(mut command: Command, log: PathBuf) -> Server {
        let written = File::options().create(true).append(true).open(&log).expect("a log");
        let command = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(written);
        let mut child = command.spawn().expect("the binary runs");
        let out = child.stdout.take().expect("it is piped");
        let (tell, told) = mpsc::channel();
        std::thread::spawn(move || {
            let mut line = String::new();
            let _ = BufReader::new(out).read_line(&mut line);
            let _ = tell.send(line);
        });
        let line = told.recv_timeout(PATIENCE).unwrap_or_default();
        // `ready: n1 at 127.0.0.1:7101, http 127.0.0.1:8101`
        let places =
            line.trim_end().split_once(" at ").and_then(|(_, at)| at.split_once(", http "));
        let Some((address, http)) = places.filter(|_| line.starts_with("ready: n")) else {
            let _ = child.kill();
            let _ = child.wait();
            panic!("{line:?} instead of readiness; it said\n{}", read(&log));
        };
        Server { address: address.to_owned(), http: http.to_owned(), child, log }
    }

    /// Status and body of a page.
    fn page(&self, path: &str) -> (u16, String) {
        let ask = || {
            let mut stream = TcpStream::connect(&self.http)?;
            stream.set_read_timeout(Some(PATIENCE))?;
            let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
            stream.write_all(request.as_bytes())?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer)?;
            std::io::Result::Ok(answer)
        };
        let answer = ask().unwrap_or_default();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_default();
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
        (status.unwrap_or(0), body.to_owned())
    }

    /// Waits until the metrics are as they should be.
    #[track_caller]
    fn until(&self, what: &str, is_so: impl Fn(&str) -> bool) {
        let began = Instant::now();
        loop {
            let (_, metrics) = self.page("/metrics");
            if is_so(&metrics) {
                return;
            }
            assert!(began.elapsed() < PATIENCE, "not so: {what}\n{metrics}\n{}", read(&self.log));
        }
    }

    fn signal(&self, signal: &str) {
        let id = self.child.id().to_string();
        let sent = Command::new("kill").args([signal, &id]).status();
        assert!(sent.is_ok_and(|status| status.success()), "it can be signalled");
    }

    #[track_caller]
    fn ended(&mut self) -> ExitStatus {
        let began = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().expect("it is ours to wait for") {
                return status;
            }
            assert!(began.elapsed() < PATIENCE, "it goes on\n{}", read(&self.log));
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Waits until its log has all of this in one line.
    #[track_caller]
    fn says(&self, words: &[&str]) {
        let began = Instant::now();
        loop {
            let log = read(&self.log);
            if log.lines().any(|line| words.iter().all(|word| line.contains(word))) {
                return;
            }
            assert!(began.elapsed() < PATIENCE, "no line with {words:?} in\n{log}");
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_default()
}

/// A number without labels; NaN when the page has none.
fn number(metrics: &str, name: &str) -> f64 {
    let lines = metrics.lines().filter_map(|line| line.strip_prefix(name));
    let mut values = lines.filter_map(|rest| rest.strip_prefix(' ')?.parse().ok());
    values.next().unwrap_or(f64::NAN)
}

fn usage(ended: Ended, words: &[&str]) {
    assert_eq!(ended.code, Some(2), "{ended:?}");
    for word in words {
        assert!(ended.stderr.contains(word), "no '{word}' in: {}", ended.stderr);
    }
}

#[test]
fn three_servers_stop_one_by_one_and_come_back() {
    let yard = Yard::new();
    let mut all = yard.three(&[]);
    for server in &all {
        assert_eq!(server.page("/healthz").0, 200);
        server.until("it is ready", |metrics| number(metrics, "meridian_ready") == 1.0);
        assert_eq!(server.page("/readyz").0, 200);
        let (_, metrics) = server.page("/metrics");
        assert!(number(&metrics, "meridian_clock_epsilon_seconds") > 0.0, "{metrics}");
        assert!(number(&metrics, "meridian_memory_bytes") > 1e6, "{metrics}");
        assert!(metrics.contains("meridian_peer_connected{peer=\"n"), "{metrics}");
    }
    for index in 0..3 {
        let node = index as u32 + 1;
        all[index].signal("-TERM");
        assert_eq!(all[index].ended().code(), Some(0));
        all[index].says(&["INFO", &format!("n{node}"), "stopped"]);
        // The others lead everything, and are ready without it.
        for server in all.iter().filter(|server| server.address != all[index].address) {
            server.until("it is ready", |metrics| number(metrics, "meridian_ready") == 1.0);
        }
        // Its folder says where it belongs; its port is another one.
        all[index] = yard.server(node, &[]);
        all[index]
            .until("its replicas are back", |metrics| number(metrics, "meridian_replicas") == 5.0);
    }
}

#[test]
fn a_second_signal_ends_it_at_once() {
    let yard = Yard::new();
    let mut all = yard.three(&["--drain-seconds", "60"]);
    let led = |server: &Server| number(&server.page("/metrics").1, "meridian_groups_led");
    let busiest = (0..3).max_by(|a, b| led(&all[*a]).total_cmp(&led(&all[*b]))).unwrap();
    // Nobody takes its leaderships over, and its leases have not run out yet.
    for server in all.iter().filter(|server| server.address != all[busiest].address) {
        server.signal("-STOP");
    }
    all[busiest].signal("-TERM");
    all[busiest].says(&["hands leaderships over"]);
    all[busiest].signal("-INT");
    assert_eq!(all[busiest].ended().code(), Some(130));
}

#[test]
fn who_started_it_may_be_its_lifeline() {
    let yard = Yard::new();
    let mut command = yard.command(1, &["--init", "--until-stdin-closes"]);
    let command = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = command.spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert!(line.starts_with("ready: n1 at 127.0.0.1:"), "{line}");
    drop(child.stdin.take());
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

#[test]
fn a_server_is_refused_where_it_does_not_belong() {
    let yard = Yard::new();
    let n1 = yard.server(1, &["--init"]);
    run(&mut yard.command(1, &[])).fails(&["in use by another process"]);
    drop(n1);
    // A folder that is another node's.
    let mut other = alone();
    other.args(["server", "--node=2", "--listen=127.0.0.1:0", "--http=off", "--data"]);
    usage(run(other.arg(yard.path("n1"))), &["belongs to n1, this is n2", "Hint: "]);
    // Nowhere to go.
    usage(run(&mut yard.command(3, &[])), &["--init founds a universe", "--join HOST:PORT"]);
    // Where others could reach it, without TLS.
    let mut exposed = alone();
    exposed.args(["server", "--node=4", "--listen=0.0.0.0:0", "--advertise=x:1", "--init"]);
    exposed.args(["--http=off", "--data"]).arg(yard.path("n4"));
    usage(run(&mut exposed), &["can be reached from other hosts", "--insecure"]);
}

#[test]
fn flags_environment_and_file_are_one_configuration() {
    let yard = Yard::new();
    let file = yard.path("m.toml");
    std::fs::write(&file, "node = 7\nzone = \"from-file\"\njoin = [\"a:1\", \"b:2\"]\n").unwrap();
    let print = |flags: &[&str]| {
        let mut command = alone();
        command.args(["server", "--print-config"]).args(flags);
        command.env("MERIDIAN_ZONE", "from-environment").env("MERIDIAN_CONFIG", &file);
        run(&mut command)
    };
    let printed = print(&["--listen", "127.0.0.1:7200"]).ok();
    let has = |line: &str| {
        let found =
            printed.lines().any(|printed| printed.split_whitespace().eq(line.split_whitespace()));
        assert!(found, "no {line:?} in\n{printed}");
    };
    has(&format!("node = 7 # {}:1", file.display()));
    has("zone = \"from-environment\" # MERIDIAN_ZONE");
    has("listen = \"127.0.0.1:7200\" # --listen");
    has("http = \"127.0.0.1:8200\" # default: the port of listen, plus 1000");
    usage(print(&["--replicas", "2", "--init"]), &["--replicas: 2: choose 1, 3, 5 or 7"]);
    std::fs::write(&file, "node = 7\nzones = \"a\"\n").unwrap();
    usage(print(&[]), &["m.toml:2: nothing is called zones", "Hint: did you mean zone?"]);
}

/// `scripts/certificates.sh` makes what servers take: three of them trust each other, and nobody who
/// has only a client's certificate.
#[test]
fn certificates_of_the_script_make_nodes_and_no_others() {
    let yard = Yard::new();
    let folder = yard.path("certificates");
    let script = repository().join("scripts/certificates.sh");
    let make = |arguments: &[&str]| {
        let mut command = Command::new(&script);
        // It needs openssl, as setting up a cluster does.
        run(command.arg(&folder).args(arguments)).ok();
    };
    make(&["ca"]);
    for node in ["1", "2", "3"] {
        make(&["node", node, "127.0.0.1", "localhost"]);
    }
    make(&["client", "app"]);
    let file = |name: &str| folder.join(name).display().to_string();
    let tls = |name: &str| {
        let [cert, key] = ["crt", "key"].map(|kind| file(&format!("{name}.{kind}")));
        [
            format!("--tls-cert={cert}"),
            format!("--tls-key={key}"),
            format!("--tls-ca={}", file("ca.crt")),
        ]
    };
    let with = |node: u32, name: &str, more: &[&str]| {
        let mut command = yard.command(node, more);
        command.args(tls(name));
        Server::start(command, yard.path(&format!("n{node}.log")))
    };
    let n1 = with(1, "n1", &["--init"]);
    let join = ["--join", &n1.address];
    let n2 = with(2, "n2", &join);
    for server in [&n1, &n2] {
        server.until("they are linked", |metrics| {
            metrics
                .lines()
                .any(|line| line.starts_with("meridian_peer_connected{") && line.ends_with(" 1"))
        });
    }
    // n3 with the certificate of a client, then with its own.
    let mut impostor = yard.command(3, &join);
    impostor.args(tls("app")).stdin(Stdio::null()).stdout(Stdio::null());
    impostor.stderr(File::create(yard.path("n3.log")).unwrap());
    let mut impostor = Server {
        child: impostor.spawn().unwrap(),
        log: yard.path("n3.log"),
        address: String::new(),
        http: String::new(),
    };
    impostor.says(&["n3", "n3.node.meridian"]);
    impostor.signal("-TERM");
    impostor.ended();
    let n3 = with(3, "n3", &join);
    assert_eq!(n3.page("/healthz").0, 200);
}
