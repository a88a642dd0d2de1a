//! `meridian check history` on made-up histories: each is called by the name in its file's name.

mod support;

use std::path::PathBuf;
use support::{Universe, meridian, repository, run};

fn histories() -> Vec<(String, PathBuf)> {
    let folder = repository().join("history/tests/histories");
    let entries = std::fs::read_dir(&folder).expect("the folder of made-up histories");
    let mut files: Vec<_> = entries.map(|entry| entry.expect("it can be listed").path()).collect();
    files.sort();
    let name = |file: &PathBuf| file.file_stem().expect("a name").to_string_lossy().into_owned();
    files.iter().map(|file| (name(file), file.clone())).collect()
}

#[test]
fn every_made_up_history_is_called_by_its_name() {
    let histories = histories();
    assert!(histories.len() > 20, "{histories:?}");
    for (name, file) in histories {
        let judged = run(meridian().args(["check", "history"]).arg(&file));
        if name == "good" {
            assert!(judged.ok().ends_with("transactions, no violation\n"));
            continue;
        }
        assert_eq!(judged.code, Some(1), "{name}: {}", judged.stderr);
        let found = judged.stdout.lines().find_map(|line| line.strip_prefix("at fault "));
        let found = found.expect("it says who is at fault").trim().replace(' ', "-");
        let (anomaly, count) = found.rsplit_once('-').expect("a name and a count");
        assert!(name.starts_with(anomaly), "{name}: {}", judged.stdout);
        assert!(count == "1" || count == "2", "{name}: {}", judged.stdout);
        assert!(judged.stdout.contains("\n  T1 t"), "{name}: {}", judged.stdout);
        assert!(judged.stderr.contains("a promise was broken"), "{name}: {}", judged.stderr);
    }
}

#[test]
fn programs_get_one_object() {
    let (_, file) =
        histories().into_iter().find(|(name, _)| name == "long-fork").expect("it is there");
    let judged = run(meridian().args(["check", "history", "--json"]).arg(file));
    assert_eq!(judged.code, Some(1), "{}", judged.stderr);
    for words in
        ["\"broken\": true", "\"long fork\": 1", "\"txn\": \"t3.1\"", "\"why\": \"T3 saw y"]
    {
        assert!(judged.stdout.contains(words), "no '{words}' in: {}", judged.stdout);
    }
}

#[test]
fn a_line_that_is_none_is_named() {
    let universe = Universe::new(1);
    let head = "{\"format\":\"meridian-history\",\"version\":2}\n";
    let file = universe.file("cut.jsonl", &format!("{head}{{\"client\":1,\"txn\":\"t1.1\""));
    run(meridian().args(["check", "history"]).arg(file)).fails(&["cut.jsonl:2:", "EOF"]);
    let file = universe.file("old.jsonl", &head.replace('2', "1"));
    let words = ["old.jsonl:1:", "version 1 of the format", "record the history again"];
    run(meridian().args(["check", "history"]).arg(file)).fails(&words);
}
