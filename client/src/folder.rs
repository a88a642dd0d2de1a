//! A universe's folder: whose it is, and what was chosen when it was made.
//!
//! ```text
//! universe.toml     format, id, replicas, groups, retention; written last, so that a folder that
//!                   has it is complete
//! meridian.lock     held (flock) by the process that has the universe open
//! n1/ n2/ n3/       one RocksDB for each server
//! ```

use crate::error::{OpenError, io};
use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};
use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, Write};
use std::path::{Path, PathBuf};

const FORMAT: u32 = 2;
const DESCRIPTION: &str = "universe.toml";
const LOCK: &str = "meridian.lock";

/// What was chosen when a universe was made; never changes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Description {
    pub format: u32,
    /// Tells universes apart.
    pub id: String,
    /// Servers, each with a replica of every group.
    pub replicas: u32,
    /// Data groups, besides the root group.
    pub groups: u32,
    /// How far back versions are kept.
    pub retention_s: u64,
}

/// A universe's folder, locked for this process until it is dropped.
pub(crate) struct Folder {
    path: PathBuf,
    /// Holds the lock.
    _lock: File,
}

impl Folder {
    /// Takes a folder for this process. A folder that is not there is made, one that is neither
    /// empty nor a universe is left alone.
    pub fn take(path: &Path) -> Result<Folder, OpenError> {
        io(|| format!("creating {}", path.display()), fs::create_dir_all(path))?;
        let described = path.join(DESCRIPTION).exists();
        if !described && !is_blank(path)? {
            return Err(OpenError::NotOurs { folder: path.to_owned() });
        }
        let lock = take_lock(path)?;
        Ok(Folder { path: path.to_owned(), _lock: lock })
    }

    /// What was chosen when the universe was made; `None`: it is not made yet.
    pub fn description(&self) -> Result<Option<Description>, OpenError> {
        let file = self.path.join(DESCRIPTION);
        if !file.exists() {
            return Ok(None);
        }
        let text = io(|| format!("reading {}", file.display()), fs::read_to_string(&file))?;
        let damaged = |what: String| OpenError::Damaged { folder: self.path.clone(), what };
        let description: Description =
            toml::from_str(&text).map_err(|e| damaged(format!("{DESCRIPTION}: {e}")))?;
        if description.format != FORMAT {
            let (found, known) = (description.format, FORMAT);
            return Err(OpenError::Format { folder: self.path.clone(), found, known });
        }
        for node in 1..=description.replicas {
            if !self.node(node).is_dir() {
                return Err(damaged(format!("the folder n{node} of a server is missing")));
            }
        }
        Ok(Some(description))
    }

    /// Completes the making of a universe: from here on the folder is one.
    pub fn describe(&self, description: &Description) -> Result<(), OpenError> {
        let text = toml::to_string(description).map_err(|e| OpenError::Invalid(e.to_string()))?;
        let file = self.path.join(DESCRIPTION);
        let draft = self.path.join("universe.toml.new");
        let write = || {
            let mut out = File::create(&draft)?;
            out.write_all(text.as_bytes())?;
            out.sync_all()?;
            fs::rename(&draft, &file)?;
            File::open(&self.path)?.sync_all()
        };
        io(|| format!("writing {}", file.display()), write())
    }

    /// The folder of one server.
    pub fn node(&self, node: u32) -> PathBuf {
        self.path.join(format!("n{node}"))
    }
}

impl Description {
    pub fn new(id: u64, replicas: u32, groups: u32, retention_s: u64) -> Description {
        Description { format: FORMAT, id: format!("{id:016x}"), replicas, groups, retention_s }
    }
}

/// Whether nothing is in a folder but what an interrupted making of a universe leaves.
fn is_blank(path: &Path) -> Result<bool, OpenError> {
    let what = || format!("reading {}", path.display());
    let mut locked = false;
    let mut others = Vec::new();
    for entry in io(what, fs::read_dir(path))? {
        let name = io(what, entry)?.file_name().to_string_lossy().into_owned();
        match name.as_str() {
            LOCK => locked = true,
            "lost+found" => {}
            _ => others.push(name),
        }
    }
    let ours = |name: &String| matches!(name.as_str(), "n1" | "n2" | "n3" | "universe.toml.new");
    Ok(others.is_empty() || (locked && others.iter().all(ours)))
}

fn take_lock(path: &Path) -> Result<File, OpenError> {
    let name = path.join(LOCK);
    let what = || format!("opening {}", name.display());
    let opened = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&name);
    let mut file = io(what, opened)?;
    if flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
        let mut holder = String::new();
        let _ = file.read_to_string(&mut holder); // only makes the message better
        let holder = match holder.trim() {
            "" => String::new(),
            pid => format!(" (process {pid})"),
        };
        return Err(OpenError::InUse { folder: path.to_owned(), holder });
    }
    let note = |file: &mut File| {
        file.set_len(0)?;
        file.rewind()?;
        write!(file, "{}", std::process::id())
    };
    io(what, note(&mut file))?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_taken_once_and_only_when_it_is_ours() {
        let dir = tempfile::tempdir().unwrap();
        let folder = Folder::take(dir.path()).unwrap();
        assert!(matches!(Folder::take(dir.path()), Err(OpenError::InUse { .. })));
        assert_eq!(folder.description().unwrap(), None);
        let description = Description::new(7, 1, 4, 3_600);
        fs::create_dir(folder.node(1)).unwrap();
        folder.describe(&description).unwrap();
        assert_eq!(folder.description().unwrap(), Some(description));
        fs::remove_dir(folder.node(1)).unwrap();
        assert!(matches!(folder.description(), Err(OpenError::Damaged { .. })));
        drop(folder);

        let other = tempfile::tempdir().unwrap();
        fs::write(other.path().join("thesis.tex"), "").unwrap();
        assert!(matches!(Folder::take(other.path()), Err(OpenError::NotOurs { .. })));
        let left: Vec<_> = fs::read_dir(other.path()).unwrap().collect();
        assert_eq!(left.len(), 1, "a folder that is not ours stays as it is");
    }
}
