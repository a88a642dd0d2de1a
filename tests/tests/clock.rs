//! Clocks of a running universe: what is broken when one of them is wrong and does not notice, and
//! what is not when it does (T5, X7, X8).

mod support;

use std::path::{Path, PathBuf};
use support::{Ended, Universe, feed, meridian, run};

/// Moves money, with what was seen written down; what was printed, and the file. The node whose
/// clock is to go wrong leads some groups at the start, and others lead others.
fn transfers(seconds: u32, clocks: &[&str]) -> (Universe, PathBuf, String) {
    for _ in 0..3 {
        let universe = Universe::new(3);
        let history = universe.beside("history.jsonl");
        let mut command = meridian();
        command.args(["bench", "transfer", "--replicas", "3", "--data"]).arg(universe.data());
        command.args(["--clients", "8", "--seconds", &seconds.to_string()]);
        command.arg("--history").arg(&history).args(["--clock", "simulated:epsilon=5ms"]);
        let printed = run(command.args(clocks)).ok();
        if shared_the_lead(&history, "n2") {
            return (universe, history, printed);
        }
    }
    panic!("n2 led nothing, or everything, three times");
}

fn check(history: &Path) -> Ended {
    run(meridian().args(["check", "history"]).arg(history))
}

/// The node's name in the history's first line: it led some groups, and others led others.
fn shared_the_lead(history: &Path, node: &str) -> bool {
    let text = std::fs::read_to_string(history).expect("the history is there");
    let header = text.lines().next().expect("it has a first line");
    let leaders = header.split("\"leaders\":").nth(1).expect("it names the leaders");
    let led = leaders.matches(node).count();
    led > 0 && led < leaders.matches(":\"n").count()
}

#[test]
fn a_clock_beyond_its_bound_is_named_by_the_checker_and_eviction_prevents_it() {
    // ε is 5 ms; n2 gains 2 ms a second, ten times what is allowed for.
    let drifting = "n2=simulated:epsilon=5ms,offset=4ms,drift=2000,evict=off";
    let (_universe, history, printed) = transfers(14, &["--clock", drifting]);
    assert!(printed.contains("drifts +2000 µs/s"), "{printed}");
    let judged = check(&history);
    assert_eq!(judged.code, Some(1), "{}\n{}", judged.stdout, judged.stderr);
    for words in [
        "VIOLATION of external_consistency (X7/X8): t",
        "transactions came out of order",
        "  T1 t",
        "  T2 t",
        "after T1 had ended, and its timestamp is",
        "VIOLATIONS",
    ] {
        assert!(judged.stdout.contains(words), "no '{words}' in: {}", judged.stdout);
    }

    // The same clock, in a node that looks: it leads, and then refuses to.
    let faults = ["--allow-clock-faults", "--fault", "1s n2 drift=2000"];
    let (_universe, history, printed) = transfers(8, &faults);
    let clock = printed.lines().find(|line| line.contains(" n2 ")).expect("its clock is shown");
    for words in ["no bound", "broken", "it drifts at", "allowed are 200"] {
        assert!(clock.contains(words), "no '{words}' in: {clock}");
    }
    let judged = check(&history).ok();
    assert!(judged.contains("transactions, no violation"), "{judged}");
}

#[test]
fn a_history_that_is_none_is_refused_with_its_line() {
    let universe = Universe::new(1);
    let file = universe.file("history.jsonl", "{\"format\":\"other\"}\n");
    check(&file).fails(&["history.jsonl:1:", "no recorded history"]);
    check(&universe.beside("missing")).fails(&["missing", "No such file"]);
}

#[test]
fn clocks_are_shown_and_made_wrong_at_the_prompt() {
    let universe = Universe::new(3);
    let sql =
        |arguments: &[&str], script: &str| feed(universe.command("sql").args(arguments), script);
    let simulated = ["--clock", "simulated:epsilon=5ms", "--allow-clock-faults"];
    let script = "\\clock\n\\clock n2 drift=150 offset=1ms lie=2ms hasty=on\nSELECT 1 AS one;\n\
                  \\clock n2 honest\n\\clock client";
    let shown = sql(&simulated, script).ok();
    let lines: Vec<&str> = shown.lines().filter(|line| line.contains("simulated")).collect();
    assert_eq!(lines.len(), 7, "{shown}");
    for (line, name) in lines.iter().zip(["n1", "n2", "n3", "client", "n2", "n2", "client"]) {
        assert!(line.starts_with(name) && line.contains("synchronized"), "{line}");
    }
    assert!(lines[4].contains("ahead by 1 ms, drifts +150 µs/s, lies by 2 ms, hasty"), "{shown}");
    assert!(lines[5].ends_with("not off"), "{shown}");

    // Without leave, with another clock, of somebody who is not there, and what is no change.
    sql(&simulated[..2], "\\clock n2 drift=1")
        .fails(&["may not be made wrong", "--allow-clock-faults"]);
    sql(&["--allow-clock-faults"], "\\clock n2 drift=1").fails(&["no simulated one, but local"]);
    sql(&simulated, "\\clock n4").fails(&["nobody here is called `n4`", "n1, n2, n3"]);
    sql(&simulated, "\\clock n2 drft=1").fails(&["no setting `drft`", "did you mean `drift`?"]);
    sql(&simulated, "\\clock n2 epsilon=400ms").fails(&["L7"]);
}

#[test]
fn clocks_that_cannot_be_had_are_refused_before_anything_is_made() {
    let universe = Universe::new(3);
    let refused =
        |clock: &str| run(universe.command("sql").args(["-e", "SELECT 1", "--clock", clock]));
    let usage = refused("simulated:ofset=3");
    assert_eq!(usage.code, Some(2), "{usage:?}");
    assert!(usage.stderr.contains("did you mean `offset`?"), "{}", usage.stderr);
    refused("n4=local").fails(&["n4", "n1 to n3"]);
    refused("masters:127.0.0.1:9,key-file=/nowhere/key").fails(&["/nowhere/key"]);
    refused("simulated:epsilon=300ms").fails(&["L7"]);
    assert!(!universe.data().join("universe.toml").exists());
}

#[test]
fn the_clock_of_the_host_is_shown_without_a_universe() {
    let table = run(meridian().args(["admin", "clock"])).ok();
    assert!(table.contains("client | synchronized") && table.contains("local"), "{table}");
    let twice = ["admin", "clock", "--for", "60ms", "--every", "50ms", "--format", "csv"];
    let csv = run(meridian().args(twice)).ok();
    assert_eq!(csv.lines().count(), 3, "{csv}");
    assert!(csv.starts_with("at_ms,node,status,"), "{csv}");
    // It gains too much, and finds out at its second look.
    let mut drifting = meridian();
    drifting.args(["admin", "clock", "--clock", "simulated:drift=2000,epsilon=5ms"]);
    let ended = run(drifting.args(["--for", "2s", "--every", "500ms", "--format", "json"]));
    assert!(ended.stdout.contains("\"status\":\"broken\""), "{ended:?}");
    ended.fails(&["the clock of client has no bound"]);
}
