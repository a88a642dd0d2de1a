//! `kill -9` twenty times under a load of writes: every acknowledged write is there in the end, and
//! the replicas hold the same.

mod support;

use std::collections::BTreeSet;
use std::io::Write;
use std::process::Stdio;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use support::{Process, Universe, meridian, run};

const KILLS: u64 = 20;
/// Rows written by one process; more than it gets to before it is killed.
const ROWS: u64 = 10_000;
/// Set to repeat the moments of a run.
const SEED: &str = "MERIDIAN_TEST_SEED";

/// Random moments; as simple as will do (xorshift).
struct Moments(u64);

impl Moments {
    fn drawn() -> Moments {
        let seed =
            std::env::var(SEED).ok().and_then(|seed| seed.parse().ok()).unwrap_or_else(|| {
                let since = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970");
                since.as_micros() as u64
            });
        println!("{SEED}={seed}");
        Moments(seed.max(1))
    }

    fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % end
    }
}

/// A process that writes rows from `first` on, each acknowledged by its own number on a line. It is
/// killed after so many of them and a moment more. What it acknowledged.
fn write_and_kill(universe: &Universe, first: u64, rows: u64, moment: Duration) -> Vec<u64> {
    let mut command = universe.command("sql");
    command.args(["--format", "csv"]).stdin(Stdio::piped());
    let mut session = Process::start(&mut command);
    let mut stdin = session.stdin().expect("it is piped");
    let writer = std::thread::spawn(move || {
        for id in first..first + ROWS {
            let write = format!("INSERT INTO written (id) VALUES ({id}); SELECT {id} AS done;\n");
            // It is killed in the middle of this.
            if stdin.write_all(write.as_bytes()).is_err() {
                break;
            }
        }
    });
    let number = |line: String| line.parse::<u64>().ok();
    let mut acknowledged = Vec::new();
    while (acknowledged.len() as u64) < rows {
        acknowledged.extend(number(session.line().expect("it writes until it is killed")));
    }
    std::thread::sleep(moment);
    acknowledged.extend(session.kill().into_iter().filter_map(number));
    writer.join().expect("the writer does not panic");
    acknowledged
}

#[test]
fn twenty_kills_lose_nothing_and_leave_equal_replicas() {
    let mut moments = Moments::drawn();
    let universe = Universe::with(3, "CREATE TABLE written (id INT64 NOT NULL, PRIMARY KEY (id));");
    let mut acknowledged = BTreeSet::new();
    for kill in 0..KILLS {
        // Every third while it is still recovering from the one before.
        let (rows, moment) = match moments.below(3) {
            0 => (0, moments.below(500)),
            _ => (1 + moments.below(30), moments.below(20)),
        };
        let moment = Duration::from_millis(moment);
        acknowledged.extend(write_and_kill(&universe, kill * ROWS, rows, moment));
    }
    universe.number_after_crash("SELECT COUNT(*) AS n FROM written");
    let rows = universe.query("SELECT id FROM written");
    let found: BTreeSet<u64> = rows.iter().map(|row| row.parse().expect("a number")).collect();
    let lost: Vec<_> = acknowledged.difference(&found).collect();
    assert!(lost.is_empty(), "acknowledged and lost: {lost:?}");
    let others = found.len() - acknowledged.len();
    assert!(others as u64 <= KILLS, "{others} rows that nobody asked for");
    println!("{} rows acknowledged, {others} more were on their way", acknowledged.len());

    let check = run(meridian().args(["check", "replicas", "--data"]).arg(universe.data()));
    print!("{}", check.ok());
}
