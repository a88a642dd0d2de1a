//! The clock laboratory from the command line: what is listed, what a run leaves, what is refused.

mod support;

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};
use support::{Ended, Process, meridian, run};

/// The experiments, in the order of the list.
const NAMES: [&str; 9] = [
    "sawtooth",
    "masters",
    "commit-wait",
    "hot-row",
    "participants",
    "no-wait",
    "lying-clock",
    "lease-overlap",
    "failover",
];

/// One that takes less than a second.
const QUICK: [&str; 7] = ["lab", "run", "commit-wait", "--set", "points=4", "--set", "commits=5"];

fn lab(arguments: &[&str]) -> Ended {
    run(meridian().arg("lab").args(arguments))
}

fn quick(out: &Path, more: &[&str]) -> Ended {
    run(meridian().args(QUICK).arg("--out").arg(out).args(more))
}

fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).expect("the folder is there");
    let name = |entry: fs::DirEntry| entry.file_name().to_string_lossy().into_owned();
    let mut names: Vec<String> = entries.map(|entry| name(entry.expect("an entry"))).collect();
    names.sort();
    names
}

/// Waits until something is there that a process makes.
fn wait_for(path: &Path) {
    let began = Instant::now();
    while !path.exists() {
        assert!(began.elapsed() < Duration::from_secs(60), "{} is not there", path.display());
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn experiments_are_listed_with_their_questions_and_parameters() {
    let list = lab(&["list"]).ok();
    let listed: Vec<&str> =
        list.lines().skip(2).filter_map(|line| line.split_whitespace().next()).collect();
    assert_eq!(listed, NAMES);
    assert_eq!(list.lines().skip(2).filter(|line| line.ends_with('?')).count(), NAMES.len());
    let all = lab(&["list", "-v"]).ok();
    for name in NAMES {
        let shown = lab(&["show", name]).ok();
        assert!(all.contains(&shown), "{name}");
        assert!(shown.contains("default") && shown.contains(" to "), "{shown}");
    }
}

#[test]
fn a_run_says_what_it_found_and_leaves_its_files() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let said = quick(folder.path(), &["--seed", "7"]).ok();
    let inside = folder.path().join("commit-wait");
    assert_eq!(names(&inside), ["data.csv", "parameters.json", "report.html", "tables.csv"]);
    for name in names(&inside) {
        assert!(said.contains(&inside.join(&name).display().to_string()), "{name}: {said}");
    }
    let again = "meridian lab run commit-wait --seed 7 --set points=4 --set commits=5";
    assert!(said.contains("✓ yes") && !said.contains('✗') && said.contains(again), "{said}");
    let read = |name: &str| fs::read_to_string(inside.join(name)).expect("it was written");
    let page = read("report.html");
    assert!(page.contains("role=\"img\"") && page.ends_with("</html>\n") && page.contains(again));
    assert!(read("data.csv").starts_with("chart,series,x,x_unit,y,y_unit\n"));
    let parameters = read("parameters.json");
    assert!(parameters.contains("\"seed\": 7") && parameters.contains(again), "{parameters}");
}

#[test]
fn the_same_seed_gives_the_same_report_and_json_says_what_the_table_says() {
    let folders = [(); 2].map(|()| tempfile::tempdir().expect("a temporary folder"));
    for folder in &folders {
        let said = quick(folder.path(), &["--seed", "3", "--json"]).ok();
        assert_eq!(said.lines().count(), 1);
        assert!(said.starts_with('{') && said.ends_with("}\n"), "{said}");
        assert!(said.contains("\"holds\":true") && said.contains("\"seed\":3"), "{said}");
    }
    for name in ["report.html", "data.csv", "tables.csv", "parameters.json"] {
        let [a, b] = [&folders[0], &folders[1]].map(|folder| {
            fs::read_to_string(folder.path().join("commit-wait").join(name)).expect("a file")
        });
        assert_eq!(a, b, "{name}");
    }
}

#[test]
fn what_cannot_be_chosen_is_refused_before_anything_is_done() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let out = folder.path().join("out");
    let table: &[(&[&str], &[&str])] = &[
        (&["run", "comit-wait"], &["did you mean 'commit-wait'", "sawtooth", "failover"]),
        (&["show", "xyzzy"], &["no experiment is called 'xyzzy'", "sawtooth"]),
        (&["run", "commit-wait", "--set", "point=4"], &["'point'", "did you mean 'points'"]),
        (&["run", "commit-wait", "--set", "points=many"], &["points=many", "a whole number"]),
        (&["run", "commit-wait", "--set", "points=4.5"], &["points=4.5", "a whole number"]),
        (&["run", "commit-wait", "--set", "points=-4"], &["out of range", "4 to"]),
        (&["run", "commit-wait", "--set", "points"], &["a name and a number"]),
        (&["run", "commit-wait", "--seed", "x"], &["--seed"]),
        (&["run", "commit-wait", "--set", "points=4", "--set", "points=5"], &["set twice"]),
        (&["run"], &["NAME"]),
        (&["run-all", "--threads", "0"], &["--threads"]),
    ];
    for (arguments, words) in table {
        let mut command = meridian();
        command.arg("lab").args(*arguments);
        if arguments[0] != "show" {
            command.arg("--out").arg(&out);
        }
        let ended = run(&mut command);
        assert_eq!(ended.code, Some(2), "{arguments:?}: {}", ended.stderr);
        for word in *words {
            assert!(ended.stderr.contains(word), "{arguments:?}: no '{word}': {}", ended.stderr);
        }
    }
    assert!(!out.exists());
}

#[test]
fn a_folder_that_cannot_be_made_is_named() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = folder.path().join("file");
    fs::write(&file, "mine").expect("a temporary file");
    quick(&file, &[]).fails(&["cannot make", &file.display().to_string()]);
    assert_eq!(fs::read_to_string(&file).expect("it is there"), "mine");
}

#[test]
fn ctrl_c_ends_a_run_and_leaves_no_half_file() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut command: Command = meridian();
    command.args(["lab", "run", "no-wait", "--set", "transactions=20000", "--out"]);
    command.arg(folder.path());
    let process = Process::start(&mut command);
    // Made once Ctrl-C is heard.
    wait_for(&folder.path().join("no-wait"));
    let (lines, code) = process.interrupt();
    assert_eq!(code, Some(130), "{lines:?}");
    assert_eq!(names(&folder.path().join("no-wait")), [""; 0]);
}

#[test]
fn ctrl_c_ends_all_runs_and_keeps_what_is_whole() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut command: Command = meridian();
    command.args(["lab", "run-all", "--threads", "2", "--out"]).arg(folder.path());
    let process = Process::start(&mut command);
    wait_for(&folder.path().join("commit-wait/report.html"));
    let (lines, code) = process.interrupt();
    assert_eq!(code, Some(130), "{lines:?}");
    for name in names(folder.path()) {
        let inside = folder.path().join(name);
        let page = fs::read_to_string(inside.join("report.html")).expect("every folder is whole");
        assert!(page.ends_with("</html>\n"));
        assert!(names(&inside).iter().all(|name| !name.starts_with('.')));
    }
}
