//! Against shared memory that the tests write themselves, byte by byte as the daemon would.

use super::*;
use crate::{Status, Verdict};
use std::fs;
use std::path::Path;
use std::time::Instant;

const S: i64 = 1_000_000_000;
const UNKNOWN: i32 = 0;
const SYNCHRONIZED: i32 = 1;
const FREE_RUNNING: i32 = 2;
const DISRUPTED: i32 = 3;

/// A segment of layout 3. It is as of a count of the processor's that is never reached, so that
/// no time has passed since, and the client answers with `as_of_ns` whenever it is asked.
#[derive(Clone, Copy)]
struct Written {
    version: u16,
    generation: u16,
    as_of_ns: i64,
    void_after_ns: i64,
    bound_ns: i64,
    disruption_support: bool,
    status: i32,
}

impl Written {
    fn new(status: i32) -> Written {
        Written {
            version: 0x0303,
            generation: 2,
            as_of_ns: 1_700_000_000 * S,
            void_after_ns: 1_700_001_000 * S,
            bound_ns: 40_000,
            disruption_support: false,
            status,
        }
    }

    fn bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut put = |field: &[u8]| bytes.extend_from_slice(field);
        // The header: magic, length of the whole, layouts that readers may speak, generation.
        put(&0x414d_5a4e_u32.to_ne_bytes());
        put(&0x4342_0200_u32.to_ne_bytes());
        put(&104_u32.to_ne_bytes());
        put(&self.version.to_ne_bytes());
        put(&self.generation.to_ne_bytes());
        // As of: the processor's count, then seconds and nanoseconds. Void after.
        put(&u64::MAX.to_ne_bytes());
        for ns in [self.as_of_ns, self.void_after_ns] {
            put(&(ns / S).to_ne_bytes());
            put(&(ns % S).to_ne_bytes());
        }
        // Period of the count, its error (scaled fractions), the bound, disruptions so far.
        put(&(u64::MAX / 2).to_ne_bytes());
        put(&0_u64.to_ne_bytes());
        put(&self.bound_ns.to_ne_bytes());
        put(&0_u64.to_ne_bytes());
        // Drift in billionths, status, whether disruptions are told, two scales, padding.
        put(&50_000_u32.to_ne_bytes());
        put(&self.status.to_ne_bytes());
        put(&[u8::from(self.disruption_support), 29, 0, 0, 0, 0, 0, 0]);
        bytes
    }

    /// As a daemon does that starts: a file of its own, in place of what was there.
    fn write(&self, path: &Path) {
        let new = path.with_extension("new");
        fs::write(&new, self.bytes()).unwrap();
        fs::rename(new, path).unwrap();
    }
}

fn start(path: &Path) -> ClockBound {
    ClockBound::start(ClockBoundConfig {
        path: path.to_str().unwrap().to_owned(),
        vmclock_path: path.with_extension("vmclock").to_str().unwrap().to_owned(),
        every_ms: 1,
        ..ClockBoundConfig::default()
    })
    .unwrap()
}

fn wait_until(what: &str, condition: impl Fn() -> bool) {
    let since = Instant::now();
    while !condition() {
        assert!(since.elapsed() < Duration::from_secs(20), "{what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn each_status_means_what_the_table_says() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("shm1");
    for (status, expected) in [
        (SYNCHRONIZED, Ok(Status::Synchronized)),
        (FREE_RUNNING, Ok(Status::Holdover)),
        (UNKNOWN, Err(Status::Unsynchronized)),
        (DISRUPTED, Err(Status::Unsynchronized)),
    ] {
        Written::new(status).write(&path);
        let clock = start(&path);
        let read = clock.read();
        let seen = read.as_ref().map(|reading| reading.status).map_err(|error| error.status);
        assert_eq!(seen, expected, "{status}");
        let verdict = clock.sources().masters[0].verdict;
        assert_eq!(verdict == Verdict::Accepted, expected.is_ok(), "{status}");
    }
}

#[test]
fn the_interval_is_the_daemons() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("shm1");
    Written::new(SYNCHRONIZED).write(&path);
    let mut segment = Segment {
        config: ClockBoundConfig {
            path: path.to_str().unwrap().to_owned(),
            ..ClockBoundConfig::default()
        },
        open: None,
    };
    let as_of_ns = 1_700_000_000_000_000_000;
    let expected =
        Window { earliest_ns: as_of_ns - 40_000, latest_ns: as_of_ns + 40_000, holdover: false };
    assert_eq!(segment.window(), Ok(expected));
    assert_eq!(segment.window(), Ok(expected), "from the memory that is mapped already");
    // Through the thread: not narrower, and wider by no more than it was held up.
    let now = start(&path).read().unwrap().interval;
    assert!(now.epsilon_us() >= 40 && now.epsilon_us() < 10_000, "{now}");
    assert!(now.earliest().micros() <= 1_700_000_000_000_000 + 10_000_000);
}

#[test]
fn what_is_too_old_has_no_bound() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("shm1");
    let written = Written::new(SYNCHRONIZED);
    Written { void_after_ns: written.as_of_ns - 1, ..written }.write(&path);
    assert_eq!(start(&path).read().unwrap_err().status, Status::Unsynchronized);
}

#[test]
fn a_file_that_vanishes_takes_the_bound_along_and_one_that_appears_brings_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("shm1");
    let clock = start(&path);
    let error = clock.read().unwrap_err();
    assert_eq!((error.status, error.provider), (Status::Unsynchronized, NAME));
    assert!(error.reason.contains("does clockbound run?"), "{error}");

    Written::new(SYNCHRONIZED).write(&path);
    wait_until("there is a bound", || clock.read().is_ok());
    fs::remove_file(&path).unwrap();
    wait_until("there is none", || clock.read().is_err());

    Written { bound_ns: 90_000, ..Written::new(FREE_RUNNING) }.write(&path);
    wait_until("there is another", || {
        clock.read().is_ok_and(|reading| reading.status == Status::Holdover)
    });
    // Another file under the same name, while the first is still mapped.
    Written::new(SYNCHRONIZED).write(&path);
    wait_until("it is read", || {
        clock.read().is_ok_and(|reading| reading.status == Status::Synchronized)
    });
    Written::new(DISRUPTED).write(&path);
    wait_until("it is read", || clock.read().is_err());
}

#[test]
fn what_is_no_segment_is_no_bound() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("shm1");
    let good = Written::new(SYNCHRONIZED);
    let bytes = good.bytes();
    let mut magic = bytes.clone();
    magic[0] ^= 1;
    let absurd = Written { bound_ns: i64::MAX, as_of_ns: i64::MAX - 1, ..good };
    for (what, bytes) in [
        ("nothing", Vec::new()),
        ("half a header", bytes[..10].to_vec()),
        ("another magic", magic),
        ("an older layout", Written { version: 0x0002, ..good }.bytes()),
        ("a newer layout", Written { version: 0x0404, ..good }.bytes()),
        ("not begun", Written { generation: 0, ..good }.bytes()),
        ("being written", Written { generation: 3, ..good }.bytes()),
        ("before the epoch", Written { as_of_ns: -5 * S, ..good }.bytes()),
        ("absurd numbers", absurd.bytes()),
        ("disruptions told by nobody", Written { disruption_support: true, ..good }.bytes()),
    ] {
        fs::write(&path, &bytes).unwrap();
        let read = start(&path).read();
        assert_eq!(read.map_err(|error| error.status), Err(Status::Unsynchronized), "{what}");
        fs::remove_file(&path).unwrap();
    }
    good.write(&path);
    assert!(start(&path).read().is_ok(), "the control");
}
