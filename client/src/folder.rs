//! A universe's folder: whose it is, and what was chosen when it was made.
//!
//! ```text
//! universe.toml     format, id, replicas, groups, retention; written last, so that a folder that
//!                   has it is complete
//! certificate.key   seals certificates; for its owner's eyes only
//! meridian.lock     held (flock) by the process that has the universe open
//! n1/ n2/ n3/       one RocksDB for each server
//! ```

use crate::error::{OpenError, io};
use serde::{Deserialize, Serialize};
use spanserver::storage::folder::{LockError, take_lock, write_whole};
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use truetime::key::Key;
use truetime::providers::{KeyFileError, new_key_file, read_key_file};

const FORMAT: u32 = 2;
const DESCRIPTION: &str = "universe.toml";
const LOCK: &str = "meridian.lock";
const KEY: &str = "certificate.key";
const KEY_DRAFT: &str = "certificate.key.new";

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
        let lock = take_lock(path, LOCK).map_err(|error| match error {
            LockError::InUse(holder) => OpenError::InUse { folder: path.to_owned(), holder },
            LockError::Io(source) => {
                OpenError::Io { what: format!("opening {}", path.join(LOCK).display()), source }
            }
        })?;
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
        let written = write_whole(&self.path, DESCRIPTION, text.as_bytes());
        io(|| format!("writing {}", file.display()), written)
    }

    /// The key that seals certificates (X13). A universe that has none yet gets one; one that is
    /// lost is replaced, and what the lost one sealed cannot be verified any more.
    pub fn certificate_key(&self) -> Result<Key, OpenError> {
        let file = self.path.join(KEY);
        let what = || format!("reading {}", file.display());
        match read_key_file(&file) {
            Ok(key) => Ok(key),
            Err(KeyFileError::Io(error)) if error.kind() == io::ErrorKind::NotFound => {
                io(|| format!("writing {}", file.display()), self.make_key(&file))
            }
            Err(KeyFileError::Io(error)) => io(what, Err(error)),
            Err(error) => {
                let what = format!("{KEY}: {error}");
                Err(OpenError::Damaged { folder: self.path.clone(), what })
            }
        }
    }

    /// Whole or not at all: a file of half a key would be taken for damage.
    fn make_key(&self, file: &Path) -> io::Result<Key> {
        let draft = self.path.join(KEY_DRAFT);
        match fs::remove_file(&draft) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let key = new_key_file(&draft)?;
        fs::rename(&draft, file)?;
        File::open(&self.path)?.sync_all()?;
        Ok(key)
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
    let ours = |name: &String| {
        matches!(name.as_str(), "n1" | "n2" | "n3" | "universe.toml.new" | KEY | KEY_DRAFT)
    };
    Ok(others.is_empty() || (locked && others.iter().all(ours)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

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

    #[test]
    fn a_universe_keeps_its_key_for_its_owner_alone() {
        let dir = tempfile::tempdir().unwrap();
        let folder = Folder::take(dir.path()).unwrap();
        fs::write(dir.path().join(KEY_DRAFT), "half of a k").unwrap();
        let key = folder.certificate_key().unwrap();
        assert_eq!(folder.certificate_key().unwrap().to_hex(), key.to_hex());
        let file = dir.path().join(KEY);
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        drop(folder);
        let folder = Folder::take(dir.path()).expect("an interrupted making can be repeated");
        fs::write(&file, "1234").unwrap();
        let damaged = folder.certificate_key();
        assert!(matches!(damaged, Err(OpenError::Damaged { .. })), "a key is never made up anew");
    }
}
