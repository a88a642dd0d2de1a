//! The processes of a demo.
//!
//! Each holds the end of a pipe as its standard input, and ends when the other end, here, is closed
//! (`--until-stdin-closes`). So none outlives this process, however that ends. Each is a process
//! group of its own: Ctrl-C on the terminal is heard here alone, and passed on in order.

use super::plan::{Folder, Node, Plan};
use crate::exit::Exit;
use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// A process that has not ended by then is killed.
const ENDS_WITHIN: Duration = Duration::from_secs(5);
const LOOK_EVERY: Duration = Duration::from_millis(10);
/// Of a log, so many lines of its end are shown.
const TAIL_LINES: usize = 12;
/// And so many bytes of it are looked at.
const TAIL_BYTES: u64 = 16 << 10;
/// A server says that it serves within the first bytes of its log.
const HEAD_BYTES: u64 = 256 << 10;

/// All of them. What is left of them is killed when this is dropped.
#[derive(Debug, Default)]
pub struct Children(Vec<Server>);

/// One node.
#[derive(Debug)]
pub struct Server {
    number: u32,
    child: Child,
    log: PathBuf,
    ended: Option<ExitStatus>,
    /// How long its log was when it was started: one that stays has earlier ones.
    log_begin: u64,
}

impl Server {
    /// Its number as a process.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Whether it has ended, and how.
    fn look(&mut self) -> Option<ExitStatus> {
        if self.ended.is_none() {
            // Nothing else can fail than waiting for somebody else's child.
            self.ended = self.child.try_wait().ok().flatten();
        }
        self.ended
    }

    /// How it ended, and the end of its log.
    fn obituary(&self, status: ExitStatus) -> String {
        let how = match (status.code(), status.signal()) {
            (Some(code), _) => format!("exit code {code}"),
            (None, Some(signal)) => format!("signal {signal}"),
            (None, None) => "nobody knows how".to_owned(),
        };
        format!("n{} has ended ({how}){}", self.number, self.tail())
    }

    /// The end of its log, indented, if there is one.
    fn tail(&self) -> String {
        let length = fs::metadata(&self.log).map_or(0, |log| log.len());
        let begin = self.log_begin.max(length.saturating_sub(TAIL_BYTES));
        let text = read(&self.log, begin, TAIL_BYTES).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        let last = &lines[lines.len().saturating_sub(TAIL_LINES)..];
        if last.is_empty() {
            return "; its log is empty".to_owned();
        }
        format!("; the end of {}:\n  {}", self.log.display(), last.join("\n  "))
    }

    /// Whether it has said that it serves: a line on its standard output.
    fn is_ready(&self) -> bool {
        let text = read(&self.log, self.log_begin, HEAD_BYTES).unwrap_or_default();
        text.lines().any(|line| line.starts_with("ready: "))
    }
}

impl Children {
    /// Starts all of them.
    ///
    /// # Errors
    /// One cannot be started.
    pub fn start(&mut self, plan: &Plan, folder: &Folder) -> Result<(), Exit> {
        let binary = std::env::current_exe()
            .map_err(|error| Exit::failed(format!("where is this program? {error}")))?;
        for node in &plan.nodes {
            let number = node.number;
            let started = start(&binary, plan, node, folder);
            let cannot = |error| Exit::failed(format!("cannot start n{number}: {error}"));
            self.0.push(started.map_err(cannot)?);
        }
        Ok(())
    }

    /// Everyone, in the order of the plan.
    pub fn all(&self) -> impl Iterator<Item = &Server> {
        self.0.iter()
    }

    /// How many say that they serve.
    pub fn ready(&self) -> usize {
        self.0.iter().filter(|server| server.is_ready()).count()
    }

    /// Whether one has ended that should not have, and why.
    pub fn any_ended(&mut self) -> Option<Exit> {
        let ended = self.newly_ended();
        (!ended.is_empty()).then(|| Exit::failed(ended.join("\n")))
    }

    /// Those that have ended since the last look.
    pub fn newly_ended(&mut self) -> Vec<String> {
        let alive = self.0.iter_mut().filter(|server| server.ended.is_none());
        alive.filter_map(|server| server.look().map(|how| server.obituary(how))).collect()
    }

    /// Whether none is left.
    pub fn all_ended(&mut self) -> bool {
        self.0.iter_mut().all(|server| server.look().is_some())
    }

    /// What they say when the cluster does not come to serve.
    pub fn not_serving(&self, within: Duration) -> Exit {
        let mut text = format!("the cluster does not serve after {} s", within.as_secs());
        for server in &self.0 {
            text.push_str(&format!("\nn{}{}", server.number, server.tail()));
        }
        Exit::failed(text)
    }

    /// Has them end by themselves, and kills those that do not in time.
    pub async fn stop(&mut self) {
        for server in &mut self.0 {
            drop(server.child.stdin.take());
        }
        let began = Instant::now();
        while !self.all_ended() && began.elapsed() < ENDS_WITHIN {
            tokio::time::sleep(LOOK_EVERY).await;
        }
        self.kill();
    }

    /// Kills what is left.
    pub fn kill(&mut self) {
        for server in &mut self.0 {
            if server.look().is_none() {
                // Both fail only where it has ended by itself meanwhile.
                let _ = server.child.kill();
                server.ended = server.child.wait().ok();
            }
        }
    }
}

impl Drop for Children {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Starts one node. What the environment tells servers is not meant for these.
fn start(binary: &Path, plan: &Plan, node: &Node, folder: &Folder) -> io::Result<Server> {
    let log = folder.log(node.number);
    let out = File::options().create(true).append(true).open(&log)?;
    let log_begin = out.metadata()?.len();
    let mut command = Command::new(binary);
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("MERIDIAN_") {
            command.env_remove(name);
        }
    }
    command.args(flags(plan, node, folder));
    command.stdin(Stdio::piped()).stderr(out.try_clone()?).stdout(out).process_group(0);
    let child = command.spawn()?;
    Ok(Server { number: node.number, child, log, ended: None, log_begin })
}

/// What a node is told. Nobody is left to lead when all are stopped at once, so nobody drains.
fn flags(plan: &Plan, node: &Node, folder: &Folder) -> Vec<String> {
    let (number, data) = (node.number.to_string(), folder.data(node.number));
    let (address, data) = (node.address(), data.display().to_string());
    let mut all = vec!["server", "--until-stdin-closes"];
    all.extend(["--node", &number, "--listen", &address, "--data", &data, "--zone", &node.zone]);
    all.extend(["--clock", "local", "--http", "127.0.0.1:0", "--drain-seconds", "0"]);
    let others = plan.nodes.iter().filter(|other| other.number != node.number);
    let others = others.map(Node::address).collect::<Vec<_>>().join(",");
    if !others.is_empty() {
        all.extend(["--join", &others]);
    }
    let (groups, replicas) = (plan.groups.to_string(), plan.replicas.to_string());
    if node.number == 1 {
        all.extend(["--init", "--groups", &groups, "--replicas", &replicas]);
    }
    all.into_iter().map(str::to_owned).collect()
}

/// At most so many bytes of a log, from `begin` on.
fn read(path: &Path, begin: u64, bytes_max: u64) -> io::Result<String> {
    let mut file = File::open(path)?;
    file.seek(SeekFrom::Start(begin))?;
    let mut bytes = Vec::new();
    file.take(bytes_max).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server(log: &Path, script: &str) -> Server {
        let mut command = Command::new("sh");
        command.args(["-c", script]).stdin(Stdio::piped()).process_group(0);
        let child = command.spawn().expect("there is a shell");
        Server { number: 2, child, log: log.to_owned(), ended: None, log_begin: 4 }
    }

    #[tokio::test]
    async fn children_end_when_their_standard_input_does() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("n2.log");
        let mut children = Children(vec![server(&log, "read line; exit 3")]);
        assert!(children.any_ended().is_none());
        children.stop().await;
        assert!(children.all_ended());
        assert_eq!(children.0[0].ended.and_then(|status| status.code()), Some(3));
    }

    #[test]
    fn whoever_does_not_end_is_killed() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("n2.log");
        let mut children = Children(vec![server(&log, "exec sleep 1000")]);
        children.kill();
        assert_eq!(children.0[0].ended.and_then(|status| status.signal()), Some(9));
    }

    #[tokio::test]
    async fn an_end_is_told_once_with_the_end_of_this_log() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("n2.log");
        fs::write(&log, "old\nready: n2\nit fell\n").unwrap();
        let mut children = Children(vec![server(&log, "read line; exit 74")]);
        assert_eq!(children.ready(), 1);
        drop(children.0[0].child.stdin.take());
        while children.0[0].child.try_wait().unwrap().is_none() {
            tokio::time::sleep(LOOK_EVERY).await;
        }
        let told = children.newly_ended();
        assert_eq!(told.len(), 1);
        assert!(told[0].starts_with("n2 has ended (exit code 74); the end of "), "{told:?}");
        assert!(told[0].ends_with(":\n  ready: n2\n  it fell"), "{told:?}");
        assert!(children.newly_ended().is_empty());
    }
}
