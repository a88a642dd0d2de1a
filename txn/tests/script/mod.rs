//! Golden scripts of the lock table, of whole groups, and of replicas that do not lead.

mod groups;
mod notation;
mod replicas;
mod story;
mod table;

use std::path::{Path, PathBuf};

/// Where the scripts of one kind are.
pub fn folder(kind: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/scripts/txn").join(kind)
}

/// Runs one script of one kind.
pub fn run(kind: &str, name: &str) {
    let path = folder(kind).join(format!("{name}.script"));
    let done = match kind {
        "locks" => goldenscript::run(&mut table::Runner::default(), &path),
        "safe_time" => goldenscript::run(&mut replicas::Runner::default(), &path),
        _ => goldenscript::run(&mut groups::Runner::default(), &path),
    };
    if let Err(error) = done {
        panic!("{}: {error}", path.display());
    }
}
