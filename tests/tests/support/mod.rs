//! The real binary, run on folders of its own.
//!
//! The binary is built once per test process with the profile of the tests, so that none is ever
//! older than the sources. Folders are removed and processes ended when their owner is dropped.
#![allow(dead_code, reason = "every test binary uses another part of it")]

use std::env;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Output, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// How a run of the binary ended.
#[derive(Debug)]
pub struct Ended {
    /// The exit code; `None`: a signal.
    pub code: Option<i32>,
    /// What it printed.
    pub stdout: String,
    /// What it complained about.
    pub stderr: String,
}

impl From<Output> for Ended {
    fn from(output: Output) -> Ended {
        Ended {
            code: output.status.code(),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}

impl Ended {
    /// Its output, which has to be that of a success.
    #[track_caller]
    pub fn ok(self) -> String {
        assert_eq!(self.code, Some(0), "stdout: {}\nstderr: {}", self.stdout, self.stderr);
        self.stdout
    }

    /// Its complaints, which have to be those of a failure and name all of `words`.
    #[track_caller]
    pub fn fails(self, words: &[&str]) -> String {
        assert_eq!(self.code, Some(1), "stdout: {}\nstderr: {}", self.stdout, self.stderr);
        for word in words {
            assert!(self.stderr.contains(word), "no '{word}' in: {}", self.stderr);
        }
        assert!(!self.stderr.contains("panicked"), "{}", self.stderr);
        self.stderr
    }
}

/// A folder with a universe in it, removed in the end.
pub struct Universe {
    folder: tempfile::TempDir,
    replicas: u32,
}

impl Universe {
    /// A folder; the first statement creates the universe.
    pub fn new(replicas: u32) -> Universe {
        let folder = tempfile::tempdir().expect("a temporary folder");
        Universe { folder, replicas }
    }

    /// One with these tables.
    pub fn with(replicas: u32, schema: &str) -> Universe {
        let universe = Universe::new(replicas);
        universe.sql(schema).ok();
        universe
    }

    /// The universe's folder.
    pub fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// A folder beside it, for files.
    pub fn beside(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A file beside it.
    pub fn file(&self, name: &str, contents: &str) -> PathBuf {
        let path = self.beside(name);
        std::fs::write(&path, contents).expect("a temporary file");
        path
    }

    /// The binary with a command that works on this universe.
    pub fn command(&self, command: &str) -> Command {
        let mut all = meridian();
        all.arg(command).arg("--data").arg(self.data());
        all.arg("--replicas").arg(self.replicas.to_string());
        all
    }

    /// Runs statements from standard input; results are CSV.
    pub fn sql(&self, script: &str) -> Ended {
        feed(self.command("sql").args(["--format", "csv"]), script)
    }

    /// The rows of one query, without the header.
    #[track_caller]
    pub fn query(&self, query: &str) -> Vec<String> {
        let text = self.sql(query).ok();
        text.lines().skip(1).map(str::to_owned).collect()
    }

    /// The only number of a query.
    #[track_caller]
    pub fn number(&self, query: &str) -> u64 {
        let rows = self.query(query);
        match rows.as_slice() {
            [row] => row.parse().unwrap_or_else(|_| panic!("{row} is no number")),
            _ => panic!("not one row: {rows:?}"),
        }
    }

    /// As [`number`](Self::number), after a crash: clients that died in the middle of two-phase
    /// commit may hold rows until their transactions are given up. Says how long that took.
    #[track_caller]
    pub fn number_after_crash(&self, query: &str) -> u64 {
        let began = Instant::now();
        while self.sql(query).code != Some(0) {
            assert!(began.elapsed() < Duration::from_secs(60), "it does not serve any more");
        }
        println!("{} replicas: answered {:?} after a kill -9", self.replicas, began.elapsed());
        self.number(query)
    }

    /// Imports a file.
    pub fn import(&self, table: &str, file: &Path) -> Ended {
        run(self.command("import").args(["--table", table, "--null", "NA"]).arg(file))
    }
}

/// Runs a command without input.
pub fn run(command: &mut Command) -> Ended {
    command.stdin(Stdio::null()).output().expect("the binary runs").into()
}

/// Runs a command with this input.
pub fn feed(command: &mut Command, input: &str) -> Ended {
    let command = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("the binary runs");
    let mut stdin = child.stdin.take().expect("it is piped");
    let input = input.to_owned();
    let writer = std::thread::spawn(move || {
        // It may end without reading everything.
        let _ = stdin.write_all(input.as_bytes());
    });
    let output = child.wait_with_output().expect("its output is read");
    writer.join().expect("the writer does not panic");
    output.into()
}

/// A process whose lines are read one by one; killed when dropped.
pub struct Process {
    child: Child,
    lines: std::io::Lines<BufReader<ChildStdout>>,
}

impl Process {
    /// Starts it.
    pub fn start(command: &mut Command) -> Process {
        let command = command.stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().expect("the binary runs");
        let stdout = child.stdout.take().expect("it is piped");
        Process { child, lines: BufReader::new(stdout).lines() }
    }

    /// The next line; `None` when it has closed its output.
    pub fn line(&mut self) -> Option<String> {
        self.lines.next().map(|line| line.expect("its output is text"))
    }

    /// Its standard input, if that was piped.
    pub fn stdin(&mut self) -> Option<std::process::ChildStdin> {
        self.child.stdin.take()
    }

    /// Ctrl-C, then what it still prints and the code it ends with.
    pub fn interrupt(mut self) -> (Vec<String>, Option<i32>) {
        let id = self.child.id().to_string();
        let sent = Command::new("kill").args(["-INT", &id]).status();
        assert!(sent.is_ok_and(|status| status.success()), "it can be signalled");
        let lines: Vec<String> = self.lines.by_ref().map_while(Result::ok).collect();
        let status = self.child.wait().expect("it is ours to wait for");
        (lines, status.code())
    }

    /// `kill -9`, and what it had still printed.
    pub fn kill(mut self) -> Vec<String> {
        self.child.kill().expect("it can be killed");
        self.child.wait().expect("it is ours to wait for");
        let lines: Vec<String> = self.lines.by_ref().map_while(Result::ok).collect();
        lines
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The root of the repository.
pub fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests/ is in the workspace")
}

/// A file of the flights.
pub fn flights(name: &str) -> PathBuf {
    repository().join("examples/flights").join(name)
}

/// The binary.
pub fn meridian() -> Command {
    Command::new(binary())
}

/// Where the binary is, after building it once; `MERIDIAN_BINARY` names one of another profile.
pub fn binary() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| {
        if let Some(given) = env::var_os("MERIDIAN_BINARY") {
            return given.into();
        }
        // target/PROFILE/deps/this-test
        let test = env::current_exe().expect("a test has a path");
        let folder = test.ancestors().nth(2).expect("tests are in target/PROFILE/deps");
        let target = folder.parent().expect("a profile's folder is in the target folder");
        let profile = match folder.file_name().and_then(|name| name.to_str()) {
            Some("debug") => "dev",
            Some(name) => name,
            None => panic!("{} names no profile", folder.display()),
        };
        let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let status = Command::new(cargo)
            .current_dir(repository())
            .args(["build", "--quiet", "--locked", "-p", "cli", "--profile", profile])
            .arg("--target-dir")
            .arg(target)
            .status()
            .expect("cargo runs");
        assert!(status.success(), "the binary does not build");
        folder.join("meridian")
    })
}
