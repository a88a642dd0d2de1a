//! `kill -9` at random moments under 32 clients with transactions over two groups: what they did and
//! saw, over all lives of the process, is a serial history (X13's order, R3), nothing acknowledged is
//! lost (P1, X9), nobody holds a lock in the end (X4, X10), and the replicas hold the same (P2).

mod support;

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use support::{Process, Universe, meridian, run};

/// How long there are kills, in seconds; set for a longer run.
const SECONDS: &str = "MERIDIAN_KILL_SECONDS";
const SECONDS_DEFAULT: u64 = 15;
/// Set to repeat the moments of a run.
const SEED: &str = "MERIDIAN_TEST_SEED";

fn set(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// Random moments; as simple as will do (xorshift).
struct Moments(u64);

impl Moments {
    fn drawn() -> Moments {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970");
        let seed = set(SEED).unwrap_or(since.as_micros() as u64);
        println!("{SEED}={seed}");
        Moments(seed.max(1))
    }

    fn below_ms(&mut self, end: u64) -> Duration {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        Duration::from_millis(self.0 % end)
    }
}

/// Clients at work on this universe, in a process with it.
fn endure(universe: &Universe, journal: &Path) -> Command {
    let mut command = meridian();
    command.args(["bench", "endure", "--replicas", "3", "--clients", "32", "--data"]);
    command.arg(universe.data()).arg(journal);
    command
}

#[test]
fn kills_under_clients_lose_nothing_and_leave_no_lock() {
    let mut moments = Moments::drawn();
    let universe = Universe::new(3);
    let (journal, history) = (universe.beside("journal"), universe.beside("history.jsonl"));
    let until = Instant::now() + Duration::from_secs(set(SECONDS).unwrap_or(SECONDS_DEFAULT));
    let (mut kills, mut early) = (0, 0);
    while kills == 0 || Instant::now() < until {
        let mut process = Process::start(&mut endure(&universe, &journal));
        // Every fifth while it is still recovering from the one before.
        if kills % 5 == 4 {
            early += 1;
        } else {
            assert_eq!(process.line().as_deref(), Some("ready"), "after {kills} kills");
        }
        std::thread::sleep(moments.below_ms(2_000));
        process.kill();
        kills += 1;
    }
    print!("{kills} kills, {early} of them maybe before clients were at work; ");
    let finished = run(endure(&universe, &journal).arg("--finish").arg(&history)).ok();
    print!("{finished}");
    assert!(finished.contains("no lock left after"), "{finished}");
    let judged = run(meridian().args(["check", "history"]).arg(&history)).ok();
    print!("{judged}");
    assert!(judged.contains("no violation") && !judged.contains("VIOLATION"), "{judged}");
    assert!(!judged.contains(" 0 committed"), "clients have done something: {judged}");
    print!("{}", run(meridian().args(["check", "replicas", "--data"]).arg(universe.data())).ok());
}

/// The same, with a loss: between two lives, the folder is what it was before them.
#[test]
fn a_universe_that_is_set_back_is_told_by_its_clients() {
    let universe = Universe::new(3);
    let (journal, history) = (universe.beside("journal"), universe.beside("history.jsonl"));
    let before = universe.beside("before");
    for life in 0..2 {
        let acknowledged = |text: &str| text.matches("\"ending\":{\"at_us\"").count();
        let read = || fs::read_to_string(&journal).unwrap_or_default();
        let wanted = acknowledged(&read()) + 100;
        let mut process = Process::start(&mut endure(&universe, &journal));
        assert_eq!(process.line().as_deref(), Some("ready"));
        let began = Instant::now();
        while acknowledged(&read()) < wanted {
            assert!(began.elapsed() < Duration::from_secs(60), "clients come to nothing");
            std::thread::sleep(Duration::from_millis(50));
        }
        process.kill();
        if life == 0 {
            let copied = Command::new("cp").arg("-a").arg(universe.data()).arg(&before).status();
            assert!(copied.is_ok_and(|status| status.success()), "the folder can be copied");
        }
    }
    fs::remove_dir_all(universe.data()).expect("it can be removed");
    fs::rename(&before, universe.data()).expect("it can be put back");
    run(endure(&universe, &journal).arg("--finish").arg(&history)).ok();
    let judged = run(meridian().args(["check", "history"]).arg(&history));
    // Which name fits depends on who came when; that something is missing must be told.
    let told = ["stale read", "lost write", "lost update", "causal reverse", "non-repeatable"];
    assert!(told.iter().any(|name| judged.stdout.contains(name)), "{}", judged.stdout);
    judged.fails(&["a promise was broken"]);
}
