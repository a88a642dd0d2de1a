//! `meridian timemaster` as a process: what it prints, answers and ends with.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::net::{SocketAddr, UdpSocket};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;
use truetime::daemon::MasterKind;
use truetime::key::Key;
use truetime::providers::{HostTime, read_key_file};
use truetime::wire::{Answer, Content, Request};

const PATIENCE: Duration = Duration::from_secs(30);

fn meridian(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_meridian"));
    command.arg("timemaster").args(arguments);
    command
}

fn ends(arguments: &[&str]) -> (Option<i32>, String) {
    let Output { status, stderr, .. } = meridian(arguments).output().unwrap();
    (status.code(), String::from_utf8(stderr).unwrap())
}

/// A master that runs; killed when the test ends otherwise.
struct Running {
    process: Child,
    address: SocketAddr,
}

impl Running {
    fn start(arguments: &[&str]) -> Running {
        let mut command = meridian(arguments);
        let mut process = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(process.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        let address = line.trim_end().strip_prefix("listening on ").expect("the first line");
        let address = address.parse().unwrap();
        Running { process, address }
    }

    fn ask(&self, key: &Key) -> Option<Answer> {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.connect(self.address).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket.send(&Request { id: 77 }.encode(key)).unwrap();
        let mut buffer = [0; 128];
        let length = socket.recv(&mut buffer).ok()?;
        Some(Answer::decode(&buffer[..length], key).unwrap())
    }

    /// Sends a signal: the exit code, and what it said.
    fn end(mut self, signal: &str) -> (Option<i32>, String) {
        let kill = format!("kill -{signal} {}", self.process.id());
        assert!(Command::new("sh").args(["-c", &kill]).status().unwrap().success());
        let mut said = String::new();
        self.process.stderr.as_mut().unwrap().read_to_string(&mut said).unwrap();
        (self.process.wait().unwrap().code(), said)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Fails when it has ended already.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[test]
fn answers_until_it_is_told_to_end_and_then_says_what_it_did() {
    for signal in ["INT", "TERM"] {
        let master = Running::start(&["--kind", "atomic", "--lie-offset-us", "-2000000"]);
        assert!(master.address.ip().is_loopback());
        let answer = master.ask(&Key::PUBLIC).expect("an answer");
        assert_eq!(answer.kind, MasterKind::Atomic);
        let Content::Time { latest_ns, .. } = answer.content else { panic!("{answer:?}") };
        let behind_ns = HostTime::new().now_ns() - latest_ns;
        assert!((1_900_000_000..60_000_000_000).contains(&behind_ns), "{behind_ns}");
        let (code, said) = master.end(signal);
        assert_eq!(code, Some(0), "SIG{signal}: {said}");
        assert!(said.contains("no --key-file: anybody on this host"), "{said}");
        assert!(said.contains("1 answered, 0 refused, 0 malformed, 0 forged"), "{said}");
    }
}

#[test]
fn a_key_file_is_written_once_and_makes_a_master_for_the_world() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("masters.key");
    let file = path.to_str().unwrap();
    let (code, said) = ends(&["--new-key", file]);
    assert_eq!(code, Some(0), "{said}");
    let text = fs::read_to_string(&path).unwrap();
    assert!(!said.contains(text.trim()), "a key is not printed");
    let (code, said) = ends(&["--new-key", file]);
    assert_eq!(code, Some(1), "{said}");
    assert_eq!(fs::read_to_string(&path).unwrap(), text);

    let listen = ["--kind", "gps", "--listen", "0.0.0.0:0", "--key-file", file];
    let mut master = Running::start(&listen);
    assert!(master.address.ip().is_unspecified());
    master.address.set_ip([127, 0, 0, 1].into());
    let key = read_key_file(&path).unwrap();
    assert_eq!(master.ask(&key).expect("an answer").kind, MasterKind::Gps);
    let (code, said) = master.end("TERM");
    assert_eq!((code, said.contains("anybody")), (Some(0), false), "{said}");
}

#[test]
fn what_cannot_be_is_said_with_a_hint() {
    let (code, said) = ends(&["--kind", "gps", "--listen", "0.0.0.0:0"]);
    assert_eq!(code, Some(2), "{said}");
    assert!(said.contains("--new-key FILE"), "{said}");
    for wrong in [
        &[][..],
        &["--kind", "quartz"],
        &["--kind", "gps", "--drift-ppm", "NaN"],
        &["--kind", "gps", "--listen", "localhost"],
        &["--kind", "gps", "--new-key", "x"],
    ] {
        let (code, said) = ends(wrong);
        assert_eq!(code, Some(2), "{wrong:?}: {said}");
    }
    let taken = UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let (code, said) = ends(&["--kind", "gps", "--listen", &address]);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains(&address), "{said}");
    let (code, said) = ends(&["--kind", "gps", "--key-file", "does-not-exist"]);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("key file does-not-exist"), "{said}");
}
