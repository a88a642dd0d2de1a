//! The two workloads, each a process: a bank whose sum must not change, and lists to which is appended.

use crate::figures::{Figures, Moment};
use crate::nodes::{Cluster, LOOK_EVERY, PATIENCE};
use crate::support::{Ended, meridian};
use std::fs::File;
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// Clients of each workload.
const CLIENTS: &str = "4";
/// A history that is so long is that of a workload in full swing.
const SWING_BYTES: u64 = 16 << 10;

/// A workload under way.
struct Work {
    name: &'static str,
    child: Option<Child>,
    history: PathBuf,
}

/// Both workloads, from before a fault until after it.
pub struct Load {
    works: Vec<Work>,
    certificates: PathBuf,
    begun: Instant,
    lasts: Duration,
}

/// A workload that has ended.
pub struct Worked {
    pub name: &'static str,
    pub history: PathBuf,
    pub ended: Ended,
}

impl Load {
    /// Starts both, for so long, and waits until they are in full swing.
    pub fn start(cluster: &Cluster, lasts: Duration) -> Load {
        let certificates = cluster.path("certificates.jsonl");
        let seconds = lasts.as_secs().to_string();
        let mut works = Vec::new();
        for name in ["transfer", "append"] {
            let history = cluster.path(&format!("{name}.jsonl"));
            let _ = std::fs::remove_file(&history); // of an earlier load
            let mut command = meridian();
            command.args(["bench", name, "--connect", &cluster.addresses()]);
            command.args(["--clients", CLIENTS, "--seconds", &seconds, "--history"]).arg(&history);
            if name == "transfer" {
                command.arg("--certificates").arg(&certificates);
            }
            let file = |kind: &str| {
                let path = cluster.path(&format!("{name}.{kind}"));
                File::create(path).expect("a file for its output")
            };
            let command = command.stdin(Stdio::null()).stdout(file("out")).stderr(file("err"));
            let child = Some(command.spawn().expect("the binary runs"));
            works.push(Work { name, child, history });
        }
        let mut load = Load { works, certificates, begun: Instant::now(), lasts };
        load.swings(cluster);
        load
    }

    fn swings(&mut self, cluster: &Cluster) {
        for work in &mut self.works {
            let begun = Instant::now();
            let written =
                |work: &Work| std::fs::metadata(&work.history).map_or(0, |file| file.len());
            while written(work) < SWING_BYTES {
                let child = work.child.as_mut().expect("it runs");
                let early = child.try_wait().expect("it is ours to wait for");
                if early.is_some() || begun.elapsed() > PATIENCE {
                    let said = output(cluster, work.name);
                    panic!("{} does not get going: {early:?} {said:?}", work.name);
                }
                sleep(LOOK_EVERY);
            }
        }
    }

    /// How much longer it lasts.
    pub fn left(&self) -> Duration {
        self.lasts.saturating_sub(self.begun.elapsed())
    }

    /// Waits for the end of both.
    pub fn end(mut self, cluster: &Cluster) -> (Vec<Worked>, PathBuf) {
        let until = Instant::now() + self.left() + PATIENCE;
        let mut worked = Vec::new();
        for mut work in std::mem::take(&mut self.works) {
            let child = work.child.as_mut().expect("it runs");
            let status = loop {
                if let Some(status) = child.try_wait().expect("it is ours to wait for") {
                    break status;
                }
                if Instant::now() > until {
                    let said = output(cluster, work.name);
                    panic!("{} does not end: {said:?}", work.name);
                }
                sleep(LOOK_EVERY);
            };
            let (stdout, stderr) = output(cluster, work.name);
            let ended = Ended { code: status.code(), stdout, stderr };
            worked.push(Worked { name: work.name, history: work.history.clone(), ended });
        }
        (worked, self.certificates.clone())
    }
}

impl Drop for Work {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            // It may have ended by itself.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

impl Worked {
    pub fn figures(&self, from: Moment, over: Moment) -> Figures {
        Figures::read(&self.history, from, over)
    }
}

fn output(cluster: &Cluster, name: &str) -> (String, String) {
    let read = |kind: &str| {
        std::fs::read_to_string(cluster.path(&format!("{name}.{kind}"))).unwrap_or_default()
    };
    (read("out"), read("err"))
}
