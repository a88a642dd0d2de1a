//! Tidy: the rules of the repository that no compiler checks, each one a test.
//!
//! | rule | why |
//! |---|---|
//! | [`crates_name_only_those_below_them`] | the dependency table of the architecture is the design |
//! | [`cores_are_pure`] | a core that reads a clock or a hash map's order cannot be simulated |
//! | [`cores_switch_on_their_lints`] | the same, from the compiler's side, with types resolved |
//! | [`crates_open_with_a_chapter`] | the first lines of a crate say what it is for |
//! | [`files_are_short`] | a file holds one role |
//! | [`links_lead_somewhere`] | documents follow the code when it moves |
//! | [`no_path_of_a_machine`] | what is written works on every machine |
//! | [`every_dependency_has_a_reason`] | a crate is easier to add than to remove |
//! | [`one_feature_set`] | otherwise DataFusion is compiled once per selection of crates |
//!
//! Every scanning function takes text and returns findings, so that each is also tested on a
//! violation made up for it: a rule that never fires is no rule.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

use anyhow::{Context, Result, ensure};

/// Which workspace crates a crate may name, from the bottom up: reading the rows downwards is
/// reading the paper, upwards is reading a request.
const MAY_NAME: &[(&str, &[&str])] = &[
    ("truetime", &[]),
    ("proto", &["truetime"]),
    ("paxos", &["truetime", "proto"]),
    ("txn", &["truetime", "proto"]),
    ("placement", &["proto"]),
    ("spanserver", &["truetime", "proto", "paxos", "txn"]),
    ("sql", &["truetime", "proto", "txn"]),
    ("rpc", &["truetime", "proto"]),
    ("client", &["truetime", "proto", "txn", "sql", "spanserver", "rpc"]),
    ("cluster", &["truetime", "proto", "txn", "placement", "spanserver", "sql", "rpc"]),
    ("gateway", &["truetime", "proto", "sql", "client"]),
    ("history", &["truetime", "proto"]),
    ("sim", &["truetime", "proto", "paxos", "txn", "sql", "spanserver", "client", "history"]),
    ("cli", ALL),
    ("tests", ALL),
];

const ALL: &[&str] = &[
    "truetime",
    "proto",
    "paxos",
    "txn",
    "placement",
    "spanserver",
    "sql",
    "rpc",
    "client",
    "cluster",
    "gateway",
    "history",
    "sim",
    "cli",
];

/// What the tests of a crate may name beyond the table: crate, dependency, reason.
const MAY_NAME_IN_TESTS: &[(&str, &str, &str)] = &[];

/// Crates that build in seconds and touch nothing of the outside world, and what they must not
/// depend on for that to stay true.
const CORES: &[&str] = &["truetime", "proto", "paxos", "txn", "placement"];
const HEAVY: &[&str] = &["tokio", "rocksdb", "datafusion", "sqlparser", "crossbeam"];

/// Where purity is asked for: a crate's `src`, less the folders or files that are its shell.
const PURE: &[(&str, &[&str])] = &[
    ("truetime", &["providers"]),
    ("proto", &[]),
    ("paxos", &[]),
    ("txn", &[]),
    ("placement", &[]),
    ("spanserver", &["runtime", "storage"]),
];

/// Names a core may not use, and what it does instead.
const IMPURE: &[(&str, &str)] = &[
    ("Instant", "the time is an argument"),
    ("SystemTime", "the time is an argument"),
    ("thread::spawn", "the driver owns the threads"),
    ("std::thread", "the driver owns the threads"),
    ("std::net", "messages are returned"),
    ("std::fs", "what to persist is returned"),
    ("tokio", "the driver owns the runtime"),
    ("rand::rng", "the seed is in the Config"),
    ("thread_rng", "the seed is in the Config"),
    ("HashMap", "its order is random: BTreeMap"),
    ("HashSet", "its order is random: BTreeSet"),
];

const LINES_PER_FILE_MAX: usize = 700;
const LINES_OF_CHAPTER_MIN: usize = 5;

// ---------------------------------------------------------------------------------------- rules

#[test]
fn crates_name_only_those_below_them() -> Result<()> {
    let mut findings = Vec::new();
    for name in members()? {
        findings.extend(check_manifest(&name, &read(&format!("{name}/Cargo.toml"))?)?);
    }
    report(findings)
}

#[test]
fn cores_are_pure() -> Result<()> {
    let mut findings = Vec::new();
    for (name, shell) in PURE {
        for path in sources(&format!("{name}/src"))? {
            if !is_shell(&path, name, shell) && !is_test_module(&path) {
                findings.extend(check_purity(&path, &read(&path)?));
            }
        }
    }
    report(findings)
}

#[test]
fn cores_switch_on_their_lints() -> Result<()> {
    let mut findings = Vec::new();
    for (name, _) in PURE {
        let path = format!("{name}/src/lib.rs");
        findings.extend(check_lints(&path, &read(&path)?));
    }
    report(findings)
}

#[test]
fn crates_open_with_a_chapter() -> Result<()> {
    let mut findings = Vec::new();
    for name in members()? {
        let (library, binary) = (format!("{name}/src/lib.rs"), format!("{name}/src/main.rs"));
        let path = if root().join(&library).exists() { library } else { binary };
        findings.extend(check_chapter(&path, &read(&path)?));
    }
    report(findings)
}

#[test]
fn files_are_short() -> Result<()> {
    let mut findings = Vec::new();
    for name in members()? {
        for path in sources(&name)? {
            findings.extend(check_length(&path, &read(&path)?));
        }
    }
    report(findings)
}

#[test]
fn links_lead_somewhere() -> Result<()> {
    let mut findings = Vec::new();
    for path in files("")?.iter().filter(|path| path.ends_with(".md")) {
        let folder = root().join(path).parent().context("a file has a folder")?.to_path_buf();
        findings.extend(check_links(path, &read(path)?, |link| folder.join(link).exists()));
    }
    report(findings)
}

#[test]
fn no_path_of_a_machine() -> Result<()> {
    let mut findings = Vec::new();
    for path in files("")? {
        // Files that are not text (compressed data) cannot mislead a reader.
        if let Ok(text) = fs::read_to_string(root().join(&path)) {
            findings.extend(check_machine_paths(&path, &text));
        }
    }
    report(findings)
}

#[test]
fn every_dependency_has_a_reason() -> Result<()> {
    report(check_dependency_rows(&read("Cargo.toml")?, &read("docs/dependencies.md")?)?)
}

/// Cargo unites the features of the crates selected, so a selection with other features compiles
/// what they touch, and all above it, anew. Whoever builds `cli`, tests `sql` or tests everything
/// must therefore ask for the same features of everything that `sql` stands on.
#[test]
fn one_feature_set() -> Result<()> {
    let everything = feature_set(&["--workspace", "--edges", "normal,dev"])?;
    let mut findings = Vec::new();
    for name in ["cli", "client", "sql"] {
        for edges in ["normal", "normal,dev"] {
            let selected = feature_set(&["--package", name, "--edges", edges])?;
            findings.extend(check_features(name, &selected, &everything));
        }
    }
    report(findings)
}

// ------------------------------------------------------------------------------------- scanning

/// Workspace crates that a manifest names against the table, and heavy ones a core names.
fn check_manifest(name: &str, manifest: &str) -> Result<Vec<String>> {
    let may_name = MAY_NAME.iter().find(|(row, _)| *row == name);
    let (_, allowed) = may_name.with_context(|| format!("{name} is not in tidy's crate table"))?;
    let manifest: toml::Table = manifest.parse()?;
    let mut findings = Vec::new();
    for section in ["dependencies", "build-dependencies", "dev-dependencies"] {
        let in_tests = section == "dev-dependencies";
        let Some(toml::Value::Table(table)) = manifest.get(section) else { continue };
        for dependency in table.keys().map(String::as_str) {
            let excepted = in_tests
                && MAY_NAME_IN_TESTS.iter().any(|row| (row.0, row.1) == (name, dependency));
            let itself = in_tests && dependency == name;
            if ALL.contains(&dependency) && !allowed.contains(&dependency) && !excepted && !itself {
                findings.push(format!("{name}/Cargo.toml: {section} must not name {dependency}"));
            }
            if CORES.contains(&name) && HEAVY.contains(&dependency) && !in_tests {
                findings.push(format!("{name}/Cargo.toml: a core must not name {dependency}"));
            }
        }
    }
    Ok(findings)
}

/// Uses of what a core must not touch, up to the test module that ends the file.
fn check_purity(path: &str, text: &str) -> Vec<String> {
    let lines: Vec<&str> = text.lines().collect();
    let mut findings = Vec::new();
    for (index, line) in lines.iter().enumerate() {
        let opens_tests = line.trim() == "#[cfg(test)]"
            && lines[index + 1..]
                .iter()
                .find(|next| !next.trim_start().starts_with("#["))
                .is_some_and(|next| next.contains("mod ") && next.contains('{'));
        if opens_tests {
            break;
        }
        let code = code_of(line);
        for (name, instead) in IMPURE {
            if names(&code, name) {
                findings.push(format!("{path}:{}: {name}: {instead}", index + 1));
            }
        }
        if code.trim_start().starts_with("use std::{") {
            for name in ["fs", "net", "thread"].iter().filter(|name| names(&code, name)) {
                findings.push(format!("{path}:{}: std::{name} in a core", index + 1));
            }
        }
    }
    findings
}

fn check_lints(path: &str, text: &str) -> Vec<String> {
    let compact: String = text.chars().filter(|c| !c.is_whitespace()).collect();
    let denied = compact.split("#![deny(").skip(1).filter_map(|rest| rest.split(")]").next());
    let denied: BTreeSet<&str> = denied.flat_map(|list| list.split(',')).collect();
    ["clippy::disallowed_types", "clippy::disallowed_methods"]
        .iter()
        .filter(|lint| !denied.contains(**lint))
        .map(|lint| format!("{path}: lacks #![deny({lint})] (a shell module may allow it again)"))
        .collect()
}

fn check_chapter(path: &str, text: &str) -> Vec<String> {
    let chapter = text.lines().take_while(|line| line.starts_with("//!")).count();
    if chapter >= LINES_OF_CHAPTER_MIN {
        return Vec::new();
    }
    vec![format!("{path}: opens with {chapter} lines of //!, {LINES_OF_CHAPTER_MIN} are the least")]
}

fn check_length(path: &str, text: &str) -> Vec<String> {
    let lines = text.lines().count();
    if lines <= LINES_PER_FILE_MAX {
        return Vec::new();
    }
    vec![format!("{path}: {lines} lines, more than {LINES_PER_FILE_MAX}: split it by role")]
}

/// Links of a Markdown text to files that `exists` denies. Fenced code holds no links.
fn check_links(path: &str, text: &str, exists: impl Fn(&str) -> bool) -> Vec<String> {
    let mut findings = Vec::new();
    let mut fenced = false;
    for (index, line) in text.lines().enumerate() {
        if line.trim_start().starts_with("```") {
            fenced = !fenced;
        }
        if fenced {
            continue;
        }
        for rest in line.split("](").skip(1) {
            let link = rest.split([')', ' ', '#']).next().unwrap_or_default();
            if !link.is_empty() && !link.contains("://") && !exists(link) {
                findings.push(format!("{path}:{}: {link} does not exist", index + 1));
            }
        }
    }
    findings
}

/// Absolute paths of somebody's machine, where the text cannot mean anything to anybody else.
fn check_machine_paths(path: &str, text: &str) -> Vec<String> {
    // Spelt in halves, so that this file passes its own rule.
    let words = [
        concat!("/wo", "rk/"),
        concat!("shared/", "design"),
        concat!("/ho", "me/"),
        concat!("/ro", "ot/"),
        concat!("/Us", "ers/"),
    ];
    let mut findings = Vec::new();
    for (index, line) in text.lines().enumerate() {
        for word in words.iter().filter(|word| line.contains(**word)) {
            findings.push(format!("{path}:{}: mentions {word}", index + 1));
        }
    }
    findings
}

/// Dependencies of the root manifest without a row (`` | `name` | … ``) and rows without one.
fn check_dependency_rows(manifest: &str, document: &str) -> Result<Vec<String>> {
    let manifest: toml::Table = manifest.parse()?;
    let table = manifest["workspace"].get("dependencies").and_then(toml::Value::as_table);
    let table = table.context("no [workspace.dependencies]")?;
    let named: BTreeSet<&str> = table
        .iter()
        .filter(|(_, value)| value.get("path").is_none())
        .map(|(name, _)| name.as_str())
        .collect();
    let rows: BTreeSet<&str> =
        document.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next()).collect();
    let without_row = named.difference(&rows).map(|name| format!("{name} has no row"));
    let without_dependency = rows.difference(&named).map(|name| format!("{name} is not in use"));
    let findings = without_row.chain(without_dependency);
    Ok(findings.map(|text| format!("docs/dependencies.md: {text}")).collect())
}

/// Packages of a selection whose features differ from those in the whole workspace.
fn check_features(name: &str, selected: &BTreeSet<String>, all: &BTreeSet<String>) -> Vec<String> {
    selected
        .difference(all)
        .map(|line| format!("{name} alone has {line}: unite it in the root Cargo.toml"))
        .collect()
}

// ---------------------------------------------------------------------------------------- tools

/// A line without its comment and without the contents of its string literals.
fn code_of(line: &str) -> String {
    let mut code = String::new();
    let mut characters = line.chars().peekable();
    let mut quoted = false;
    while let Some(character) = characters.next() {
        match character {
            '\\' if quoted => drop(characters.next()),
            '\'' if !quoted && characters.peek() == Some(&'"') => drop(characters.next()),
            '"' => quoted = !quoted,
            '/' if !quoted && characters.peek() == Some(&'/') => break,
            _ if quoted => {}
            _ => code.push(character),
        }
    }
    code
}

/// Whether `name` occurs in `code` as a word or path of its own, not as a part of a longer one.
fn names(code: &str, name: &str) -> bool {
    let part = |c: char| c.is_alphanumeric() || c == '_';
    code.match_indices(name)
        .any(|(at, _)| !code[..at].ends_with(part) && !code[at + name.len()..].starts_with(part))
}

/// `name/src/shell.rs` and everything in `name/src/shell/`.
fn is_shell(path: &str, name: &str, shell: &[&str]) -> bool {
    shell.iter().any(|module| {
        path == format!("{name}/src/{module}.rs")
            || path.starts_with(&format!("{name}/src/{module}/"))
    })
}

/// Files that their parent declares with `#[cfg(test)] mod tests;`.
fn is_test_module(path: &str) -> bool {
    path.ends_with("/tests.rs") || path.ends_with("_tests.rs") || path.contains("/tests/")
}

fn feature_set(selection: &[&str]) -> Result<BTreeSet<String>> {
    let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .current_dir(root())
        .args(["tree", "--locked", "--offline", "--prefix", "none"])
        .args(["--format", "{p} [{f}]"])
        .args(selection)
        .output()?;
    ensure!(output.status.success(), "cargo tree: {}", String::from_utf8_lossy(&output.stderr));
    let lines = String::from_utf8(output.stdout)?;
    // Our own crates, named with their folder, are left out; `(*)` marks a repetition.
    let lines = lines.lines().filter(|line| !line.contains("(/"));
    Ok(lines.map(|line| line.trim_end_matches(" (*)").to_owned()).collect())
}

fn report(findings: Vec<String>) -> Result<()> {
    ensure!(findings.is_empty(), "\n  {}\n", findings.join("\n  "));
    Ok(())
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests/ is in the workspace").into()
}

fn read(path: &str) -> Result<String> {
    fs::read_to_string(root().join(path)).with_context(|| format!("reading {path}"))
}

fn members() -> Result<Vec<String>> {
    let manifest: toml::Table = read("Cargo.toml")?.parse()?;
    let members = manifest["workspace"].get("members").and_then(toml::Value::as_array);
    let members = members.context("no workspace members")?;
    Ok(members.iter().filter_map(|member| member.as_str().map(str::to_owned)).collect())
}

/// The files of a folder of the repository, by their paths from its root, in order.
fn files(folder: &str) -> Result<Vec<String>> {
    // What tools and the database write is not ours.
    const SKIPPED: &[&str] = &["target", ".git", "meridian-data"];
    let mut found = Vec::new();
    let mut folders = vec![PathBuf::from(folder)];
    while let Some(folder) = folders.pop() {
        let full = root().join(&folder);
        let entries = fs::read_dir(&full).with_context(|| format!("listing {}", full.display()))?;
        for entry in entries {
            let entry = entry?;
            let path = folder.join(entry.file_name());
            let kind = entry.file_type()?;
            if kind.is_dir() && !SKIPPED.contains(&entry.file_name().to_string_lossy().as_ref()) {
                folders.push(path);
            } else if kind.is_file() {
                found.push(path.to_string_lossy().into_owned());
            }
        }
    }
    found.sort();
    Ok(found)
}

fn sources(folder: &str) -> Result<Vec<String>> {
    let mut found = files(folder)?;
    found.retain(|path| path.ends_with(".rs"));
    Ok(found)
}

// --------------------------------------------------------------- each rule fires when it should

#[test]
fn manifest_rule_fires() -> Result<()> {
    let found = check_manifest("paxos", "[dependencies]\ntxn.workspace = true\ntokio = '1'")?;
    assert_eq!(found.len(), 2, "{found:?}");
    assert_eq!(check_manifest("sql", "[dev-dependencies]\nspanserver.workspace = true")?.len(), 1);
    assert_eq!(
        check_manifest("sql", "[dependencies]\ntxn.workspace = true\ntokio = '1'")?.len(),
        0
    );
    assert!(check_manifest("unheard", "").is_err(), "a new crate needs a row");
    Ok(())
}

#[test]
fn purity_rule_fires() {
    let impure = [
        "use std::time::{Duration, Instant};",
        "let t = SystemTime::now();",
        "use std::{fmt, fs};",
        "thread::spawn(|| {});",
        "std::net::TcpStream::connect(a)",
        "use std::fs;",
        "tokio::select! {}",
        "let x = rand::rng().random();",
        "rand::thread_rng()",
        "let m: HashMap<u8, u8>;",
        "use std::collections::HashSet;",
        "f(\"a // b\"); tokio::spawn(g)",
    ];
    for line in impure {
        assert!(!check_purity("f.rs", line).is_empty(), "{line}");
    }
    let found = check_purity("f.rs", "\n\nuse std::fs;");
    assert_eq!(found, ["f.rs:3: std::fs: what to persist is returned"]);
    let pure = [
        "// a HashMap would do",
        "/// not [`std::time::Instant`]",
        "let s = \"tokio\";",
        "struct InstantReply;",
        "use std::{fmt, ops};",
        "x /* a HashSet */ ",
        "let q = '\"'; // tokio",
        "#[cfg(test)]\nmod tests {\n    use std::fs;\n}",
        "#[cfg(test)]\n#[allow(unused)]\nmod tests {\n    use std::fs;\n}",
    ];
    for line in pure {
        if !line.contains("/*") {
            assert_eq!(check_purity("f.rs", line), [""; 0], "{line}");
        }
    }
    let declared = "#[cfg(test)]\nmod tests;\nuse std::fs;";
    assert_eq!(check_purity("f.rs", declared).len(), 1, "a declaration does not end the file");
}

#[test]
fn shells_and_test_modules_are_exempt() {
    assert!(is_shell("spanserver/src/runtime/shard.rs", "spanserver", &["runtime", "storage"]));
    assert!(is_shell("spanserver/src/storage.rs", "spanserver", &["runtime", "storage"]));
    assert!(!is_shell("spanserver/src/storage_plan.rs", "spanserver", &["runtime", "storage"]));
    assert!(
        is_test_module("paxos/src/ballot/tests.rs") && !is_test_module("paxos/src/contests.rs")
    );
}

#[test]
fn lint_rule_fires() {
    let both = "#![deny(\n    clippy::disallowed_types,\n    clippy::disallowed_methods\n)]";
    assert_eq!(check_lints("lib.rs", both), [""; 0]);
    assert_eq!(check_lints("lib.rs", "#![deny(clippy::disallowed_types)]").len(), 1);
    assert_eq!(check_lints("lib.rs", "//! A crate.").len(), 2);
}

#[test]
fn chapter_rule_fires() {
    assert_eq!(check_chapter("lib.rs", "//! One.\n//! Two.\nmod a;\n").len(), 1);
    assert_eq!(check_chapter("lib.rs", &"//! Line.\n".repeat(LINES_OF_CHAPTER_MIN)), [""; 0]);
}

#[test]
fn length_rule_fires() {
    assert_eq!(check_length("f.rs", &"x\n".repeat(LINES_PER_FILE_MAX + 1)).len(), 1);
    assert_eq!(check_length("f.rs", &"x\n".repeat(LINES_PER_FILE_MAX)), [""; 0]);
}

#[test]
fn link_rule_fires() {
    let text = "[a](here.md), [b](gone.md#part)\n[c](https://example.org) [d](#part)\n\
                ```\n[e](gone.md)\n```\n[f](gone.md)";
    let found = check_links("R.md", text, |link| link == "here.md");
    assert_eq!(found, ["R.md:1: gone.md does not exist", "R.md:6: gone.md does not exist"]);
}

#[test]
fn machine_path_rule_fires() {
    for path in [concat!("/wo", "rk/x"), concat!("/ho", "me/me/x"), concat!("/ro", "ot/.cargo")] {
        assert_eq!(check_machine_paths("f", &format!("see {path}")).len(), 1, "{path}");
    }
    assert_eq!(check_machine_paths("f", "the network/ folder, ~/.cache"), [""; 0]);
}

#[test]
fn dependency_rule_fires() -> Result<()> {
    let manifest =
        "[workspace.dependencies]\nproto = { path = 'proto' }\nserde = '1'\nrand = '0.9'";
    let document = "| crate | why |\n|---|---|\n| `serde` | data |\n| `libgone` | once |\n";
    let found = check_dependency_rows(manifest, document)?;
    assert_eq!(found.len(), 2, "{found:?}");
    assert!(found[0].contains("rand has no row") && found[1].contains("libgone is not in use"));
    Ok(())
}

#[test]
fn feature_rule_fires() {
    let set = |lines: &[&str]| lines.iter().map(|line| (*line).to_owned()).collect();
    let (all, alone) = (set(&["libc v1 [std]", "mio v1 []"]), set(&["libc v1 []", "mio v1 []"]));
    assert_eq!(check_features("sql", &alone, &all).len(), 1);
    assert_eq!(check_features("sql", &all, &all), [""; 0]);
}

/// The table is a drawing of layers: no crate is reachable from itself.
#[test]
fn crate_table_has_no_cycle() {
    let table: BTreeMap<&str, &[&str]> = MAY_NAME.iter().copied().collect();
    fn depth(table: &BTreeMap<&str, &[&str]>, name: &str, above: usize) -> usize {
        assert!(above <= table.len(), "{name} is in a cycle");
        let below = table[name].iter().filter(|below| **below != name);
        below.map(|below| depth(table, below, above + 1)).max().unwrap_or(above)
    }
    for (name, _) in MAY_NAME {
        depth(&table, name, 0);
    }
}
