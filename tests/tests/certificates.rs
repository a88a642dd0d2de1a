//! Certificates of a real universe, verified without it (X13): what its clients were given is in
//! order, what was changed since is found, and so is a clock that is wrong and does not notice.

mod support;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use support::{Ended, Universe, meridian, run};

/// Moves money; the file of certificates.
fn certificates(universe: &Universe, seconds: u32, more: &[&str]) -> PathBuf {
    let file = universe.beside("certificates.jsonl");
    let mut command = meridian();
    command.args(["bench", "transfer", "--replicas", "3", "--clients", "8"]);
    command.args(["--seconds", &seconds.to_string(), "--data"]).arg(universe.data());
    let printed = run(command.arg("--certificates").arg(&file).args(more)).ok();
    assert!(printed.contains("certificates    "), "{printed}");
    file
}

fn check(file: &Path, more: &[&str]) -> Ended {
    run(meridian().args(["check", "certificates"]).arg(file).args(more))
}

fn key(universe: &Universe) -> String {
    universe.data().join("certificate.key").to_string_lossy().into_owned()
}

/// The universe's file with another text in it.
fn changed(universe: &Universe, file: &Path, change: impl FnOnce(&mut Vec<String>)) -> PathBuf {
    let text = fs::read_to_string(file).expect("it was written");
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    change(&mut lines);
    universe.file("changed.jsonl", &(lines.join("\n") + "\n"))
}

#[test]
fn what_clients_were_given_is_in_order_and_what_was_changed_is_found() {
    let universe = Universe::new(3);
    let file = certificates(&universe, 2, &[]);
    let key = key(&universe);
    let mode = fs::metadata(&key).expect("the universe has a key").permissions().mode();
    assert_eq!(mode & 0o777, 0o600, "for its owner alone");

    let with = check(&file, &["--key", &key]).ok();
    assert!(with.contains("verified with the key") && with.contains("nothing wrong"), "{with}");
    let without = check(&file, &[]).ok();
    assert!(without.contains("not verified: without --key"), "{without}");
    let commits = fs::read_to_string(&file).expect("it was written").lines().count() - 1;
    assert!(commits > 0 && with.contains(&format!("{commits} with a certificate")), "{with}");
    let json = check(&file, &["--key", &key, "--json"]).ok();
    assert!(json.contains("\"seals_verified\": true") && json.contains("\"good\": true"), "{json}");

    // A better clock than it had: only the key can tell.
    let forged = changed(&universe, &file, |lines| {
        lines[1] = lines[1].replace("\"provider\":\"local\"", "\"provider\":\"clock-bound\"");
    });
    assert!(check(&forged, &[]).ok().contains("nothing wrong"));
    let refused = check(&forged, &["--key", &key]);
    assert!(refused.stdout.contains("WRONG: forged seal (X13), line 2:"), "{}", refused.stdout);
    refused.fails(&["a certificate is wrong"]);

    // One that was written down twice contradicts itself, key or not.
    let twice = changed(&universe, &file, |lines| lines.push(lines[1].clone()));
    let refused = check(&twice, &[]);
    assert!(refused.stdout.contains("two certificates (X9)"), "{}", refused.stdout);
    refused.fails(&["a certificate is wrong"]);

    // The key of another universe.
    let other = Universe::with(1, "CREATE TABLE t (k INT64 NOT NULL) PRIMARY KEY (k)");
    let elsewhere = other.data().join("certificate.key").to_string_lossy().into_owned();
    check(&file, &["--key", &elsewhere]).fails(&["sealed with the key", "certificate.key"]);
    check(&file, &["--key", "/nowhere/key"]).fails(&["/nowhere/key", "No such file"]);
    let none = universe.file("none.jsonl", "{\"format\":\"meridian-history\",\"version\":2}\n");
    check(&none, &[]).fails(&["none.jsonl:1:", "not meridian-certificates"]);
}

#[test]
fn the_last_commit_is_proven_at_the_prompt() {
    let universe = Universe::with(3, "CREATE TABLE t (k INT64 NOT NULL) PRIMARY KEY (k)");
    let shown = universe.sql("INSERT INTO t (k) VALUES (1), (2), (3), (4);\n\\certificate\n").ok();
    for words in
        ["decided by g", "arrived  ", "committed at  ", "wait ended", "local of n", "ε ", "seal  "]
    {
        assert!(shown.contains(words), "no '{words}' in: {shown}");
    }
    universe.sql("\\certificate\n").fails(&["has not committed anything"]);
}

#[test]
fn a_clock_beyond_its_bound_is_found_by_comparing_certificates() {
    // ε is 5 ms; n2 gains 15 ms a second, and does not look.
    let drifting = "n2=simulated:epsilon=5ms,offset=4ms,drift=15000,evict=off";
    // It shows when n2 leads some groups and others lead others, and when somebody begins soon
    // enough after a commit of n2.
    for _ in 0..3 {
        let universe = Universe::new(3);
        // The history has the leaders spread over the nodes.
        let history = universe.beside("history.jsonl").to_string_lossy().into_owned();
        let clocks = ["--clock", "simulated:epsilon=5ms", "--clock", drifting];
        let more: Vec<&str> = clocks.into_iter().chain(["--history", history.as_str()]).collect();
        let file = certificates(&universe, 12, &more);
        let key = key(&universe);
        let judged = check(&file, &["--key", &key]);
        assert!(!judged.stdout.contains("forged"), "each is what its server said");
        if judged.stdout.contains("WRONG: wrong order (X7/X8), lines") {
            judged.fails(&["a certificate is wrong"]);
            return;
        }
    }
    panic!("n2 was off by 180 ms, and nobody noticed");
}
