//! Disks that are slow, fail, and are full. Faults of calls to the kernel are made by `strace -e inject`,
//! a full disk is a small tmpfs. A server whose disk fails ends itself: what it would answer from then on
//! nobody could rely on (P1).

use crate::crashes::AROUND;
use crate::figures::fault_lasts;
use crate::nodes::{Cluster, LOOK_EVERY, PATIENCE, Plan, signal_to};
use crate::support::{meridian, run};
use crate::verdict::{Fault, cannot, judge};
use crate::work::Load;
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::Instant;

/// How a server ends whose disk does not do what it must.
const EXIT_DISK: i32 = 74;
/// For a replica of a few groups, and full within a second.
const SMALL_DISK: &str = "size=96m";

/// strace at work on a server; it lets go when dropped.
struct Injection {
    child: Child,
}

impl Injection {
    /// Has calls of a running server fail in this way. `None`: there is no strace, or it may not.
    fn begin(cluster: &Cluster, node: u32, how: &str) -> Option<Injection> {
        let log = cluster.path(&format!("n{node}.strace"));
        let mut command = Command::new("strace");
        command.args(["-f", "-e", &format!("trace={}", how.split(':').next()?)]);
        command.args(["-e", &format!("inject={how}"), "-p", &cluster.pid(node).to_string()]);
        let file = File::create(&log).expect("a log");
        let mut child =
            command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(file).spawn().ok()?;
        let begun = Instant::now();
        loop {
            let said = fs::read_to_string(&log).unwrap_or_default();
            if said.contains("attached") {
                return Some(Injection { child });
            }
            if child.try_wait().expect("it is ours to wait for").is_some() {
                return None;
            }
            assert!(begun.elapsed() < PATIENCE, "{said}");
            sleep(LOOK_EVERY);
        }
    }
}

impl Drop for Injection {
    fn drop(&mut self) {
        if self.child.try_wait().is_ok_and(|ended| ended.is_none()) {
            signal_to(self.child.id(), "-TERM");
        }
        // Whoever is killed while tracing takes the traced process along; this one lets it go.
        let _ = self.child.wait();
    }
}

#[test]
fn the_leaders_disk_is_slow() {
    let name = "slow disk";
    let mut cluster = Cluster::start(Plan::default());
    let load = Load::start(&cluster, fault_lasts() + AROUND);
    let leader = cluster.busiest();
    let mut fault = Fault::begins(name, "each sync of the leader's takes 100 ms more (strace)");
    let calls = "fsync,fdatasync:delay_enter=100000";
    let Some(injection) = Injection::begin(&cluster, leader, calls) else {
        return cannot(name, "there is no strace that may trace");
    };
    sleep(fault_lasts());
    drop(injection);
    fault.is_over();
    judge(&mut cluster, load, &fault);
}

#[test]
fn the_leaders_disk_fails() {
    let name = "failing disk";
    let mut cluster = Cluster::start(Plan::default());
    let load = Load::start(&cluster, fault_lasts() + AROUND);
    let leader = cluster.busiest();
    let fault =
        Fault::begins(name, "the leader's syncs fail with EIO (strace); started again later");
    let Some(injection) = Injection::begin(&cluster, leader, "fsync,fdatasync:error=EIO") else {
        return cannot(name, "there is no strace that may trace");
    };
    assert_eq!(cluster.ended(leader).code(), Some(EXIT_DISK));
    drop(injection);
    let log = cluster.logged(leader);
    assert!(log.contains("fatal: writing the log"), "{log}");
    sleep(fault_lasts());
    cluster.run(leader);
    judge(&mut cluster, load, &fault);
}

/// A file system of its own, taken away when dropped.
struct SmallDisk(PathBuf);

impl SmallDisk {
    fn mount(at: &Path) -> Option<SmallDisk> {
        fs::create_dir_all(at).expect("a folder");
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", SMALL_DISK, "tmpfs"]).arg(at);
        let mounted = mount.stdin(Stdio::null()).output().is_ok_and(|ended| ended.status.success());
        mounted.then(|| SmallDisk(at.to_owned()))
    }

    /// Takes all the room there is; the file to remove for it.
    fn fill(&self) -> PathBuf {
        let ballast = self.0.join("ballast");
        let mut file = File::create(&ballast).expect("a file");
        while file.write_all(&[1; 4 << 10]).is_ok() {}
        ballast
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        run(Command::new("umount").arg("-l").arg(&self.0));
    }
}

#[test]
fn a_disk_is_full() {
    let name = "full disk";
    let mut cluster = Cluster::of(Plan::default());
    for node in 1..=3 {
        cluster.add(node, None);
    }
    let Some(disk) = SmallDisk::mount(&cluster.path("small")) else {
        return cannot(name, "only root may mount a tmpfs");
    };
    // Its own folder, which must be empty, is below: the ballast is not the server's.
    cluster.member(3).data = cluster.path("small").join("n3");
    cluster.found();
    let load = Load::start(&cluster, fault_lasts() + AROUND);
    let fault = Fault::begins(name, "no room on a server's tmpfs; room again later");
    let ballast = disk.fill();
    // What RocksDB has reserved is filled by rows that are larger than those of the workloads.
    while cluster.goes_on(3) {
        let mut write = meridian();
        write.args(["bench", "write", "--connect", &cluster.addresses()]);
        run(write.args(["--writers", "4", "--seconds", "1", "--value-bytes", "100000"])).ok();
        assert!(fault.from.elapsed() < PATIENCE, "n3 still finds room");
    }
    assert_eq!(cluster.ended(3).code(), Some(EXIT_DISK));
    sleep(fault_lasts());
    fs::remove_file(ballast).expect("the ballast");
    cluster.run(3);
    judge(&mut cluster, load, &fault);
    drop(cluster);
    drop(disk);
}
