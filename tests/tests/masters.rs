//! Real time masters on loopback, and a universe that goes by them (T3–T5).

mod support;

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use support::{Process, Universe, meridian, run};

const POLL_MS: f64 = 1_000.0;
/// What ε grows by, in microseconds for each millisecond: 200 µs/s.
const GROWTH: f64 = 0.2;
const PATIENCE: Duration = Duration::from_secs(60);

/// Masters, and the clock that asks them.
fn masters(faults: &[&[&str]]) -> (Vec<Process>, Vec<String>, String) {
    let mut running = Vec::new();
    let mut addresses = Vec::new();
    for fault in faults {
        let mut command = meridian();
        command.args(["timemaster", "--kind", "gps", "--listen", "127.0.0.1:0"]).args(*fault);
        let mut process = Process::start(&mut command);
        let line = process.line().expect("it tells its address");
        let address = line.strip_prefix("listening on ").expect("that is the first line");
        addresses.push(address.to_owned());
        running.push(process);
    }
    let clock = format!("masters:{},poll=1s", addresses.join(","));
    (running, addresses, clock)
}

/// A clock at one instant, from a line of JSON.
#[derive(Debug)]
struct Seen {
    at_ms: f64,
    node: String,
    status: String,
    epsilon_us: f64,
    /// How much the oscillator may be off for all that has been measured, in µs/s.
    worst_ppm: f64,
    ago_ms: f64,
}

impl Seen {
    fn parse(line: &str) -> Seen {
        let field = |name: &str| {
            let rest =
                line.split(&format!("\"{name}\":")).nth(1).unwrap_or_else(|| panic!("{line}"));
            rest.trim_start_matches(['[', '"'])
                .split([',', '"', ']', '}'])
                .next()
                .unwrap_or_default()
        };
        let number = |name: &str| field(name).parse().unwrap_or(f64::NAN);
        let measured = line.split("\"drift_measured_ppm\":[").nth(1);
        let measured = measured.and_then(|rest| rest.split(']').next()).unwrap_or("");
        let worst = measured.split(',').filter_map(|n| n.parse::<f64>().ok()).map(f64::abs);
        Seen {
            at_ms: number("at_ms"),
            node: field("node").to_owned(),
            status: field("status").to_owned(),
            epsilon_us: number("epsilon_us"),
            worst_ppm: worst.fold(f64::NAN, f64::max),
            ago_ms: number("synchronized_ago_ms"),
        }
    }
}

/// Looks at the clocks of a universe, until told otherwise.
fn look(universe: &Universe, clock: &str) -> Process {
    let mut command: Command = meridian();
    command.args(["admin", "clock", "--format", "json", "--for", "120s", "--every", "50ms"]);
    command.arg("--data").arg(universe.data()).args(["--clock", clock]).stdin(Stdio::null());
    Process::start(&mut command)
}

/// What is seen of one node, one look after the other.
fn next(process: &mut Process, node: &str) -> Seen {
    loop {
        let seen = Seen::parse(&process.line().expect("it goes on"));
        if seen.node == node {
            return seen;
        }
    }
}

#[test]
fn epsilon_is_a_sawtooth_and_grows_when_the_masters_are_gone() {
    let (running, _, clock) = masters(&[&[], &[], &[]]);
    let universe = Universe::new(3);
    universe.sql("SELECT 1 AS one").ok();
    let mut looking = look(&universe, &clock);
    let began = Instant::now();

    // First the clock measures its own rate, and allows for more than 200 µs/s meanwhile.
    while next(&mut looking, "n2").worst_ppm.is_nan() || next(&mut looking, "n2").worst_ppm > 150.0
    {
        assert!(began.elapsed() < PATIENCE, "its rate is never known");
    }
    let (mut teeth, mut rises) = (0, 0);
    let mut last = next(&mut looking, "n2");
    while teeth < 4 {
        assert!(began.elapsed() < PATIENCE, "{teeth} teeth, then {last:?}");
        let seen = next(&mut looking, "n2");
        let passed_ms = seen.ago_ms - last.ago_ms;
        // A bound and its age are not read at one instant, nor are all looks in time.
        let same_tooth = (seen.at_ms - last.at_ms - passed_ms).abs() < 20.0;
        if seen.ago_ms < last.ago_ms || seen.epsilon_us < last.epsilon_us {
            teeth += 1;
        } else if seen.status == "synchronized" && same_tooth {
            // What a synchronisation was good to, and 200 µs for each second since.
            let floor_us = seen.epsilon_us - seen.ago_ms * GROWTH;
            assert!((0.0..5_000.0).contains(&floor_us), "{seen:?}");
            let grew_us = seen.epsilon_us - last.epsilon_us;
            assert!((grew_us - passed_ms * GROWTH).abs() < 10.0, "{last:?}, then {seen:?}");
            rises += 1;
        }
        last = seen;
    }
    assert!(rises > teeth, "ε rises between synchronisations");

    drop(running);
    let gone = Instant::now();
    let old = loop {
        let seen = next(&mut looking, "n2");
        assert!(gone.elapsed() < PATIENCE, "{seen:?}");
        if seen.status == "holdover" {
            break seen;
        }
    };
    assert!(old.ago_ms > POLL_MS, "{old:?}");
    let older = loop {
        let seen = next(&mut looking, "n2");
        if seen.at_ms > old.at_ms + 2_000.0 {
            break seen;
        }
    };
    assert_eq!(older.status, "holdover");
    let grew_us = older.epsilon_us - old.epsilon_us;
    assert!((400.0..600.0).contains(&grew_us), "in two seconds: {old:?}, then {older:?}");
}

#[test]
fn a_liar_is_rejected_and_named_and_statements_run() {
    let (_running, addresses, clock) = masters(&[&[], &[], &["--lie-offset-us", "50000"]]);
    let universe = Universe::new(3);
    let one = run(universe.command("sql").args(["--clock", &clock, "-e", "SELECT 1 AS one"])).ok();
    assert!(one.contains('1'), "{one}");
    let looks = [vec![], vec!["--data".into(), universe.data().display().to_string()]];
    for look in looks {
        let mut command = meridian();
        let shown = run(command.args(["admin", "clock", "--clock", &clock]).args(&look)).ok();
        let verdict = |address: &str| {
            let lines: Vec<&str> = shown.lines().filter(|line| line.contains(address)).collect();
            assert_eq!(lines.len(), if look.is_empty() { 1 } else { 4 }, "{shown}");
            lines
        };
        assert!(verdict(&addresses[0]).iter().all(|line| line.contains("accepted")), "{shown}");
        assert!(verdict(&addresses[1]).iter().all(|line| line.contains("accepted")), "{shown}");
        assert!(verdict(&addresses[2]).iter().all(|line| line.contains("rejected")), "{shown}");
    }
}

#[test]
fn without_masters_a_universe_does_not_open_and_says_why() {
    // A port where nobody listens.
    let silent = "masters:127.0.0.1:9,127.0.0.1:10,127.0.0.1:11,poll=1s";
    let universe = Universe::new(3);
    let ended = run(universe.command("sql").args(["--clock", silent, "-e", "SELECT 1"]));
    let said = ended.fails(&["waiting for the time", "there is no time after 15 s", "admin clock"]);
    assert!(said.contains("masters clock is unsynchronized"), "{said}");
    let shown = run(meridian().args(["admin", "clock", "--clock", silent]));
    assert_eq!(shown.stdout.matches("silent").count(), 3, "{}", shown.stdout);
    shown.fails(&["the clock of client has no bound"]);
}
