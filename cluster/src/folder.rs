//! A server's data folder.
//!
//! ```text
//! node.toml         whose it is, of which universe; made before anything else
//! certificate.key   seals certificates; the same in every node of a universe
//! map               the last copy of the universe's map, to find the others after a restart
//! meridian.lock     held (flock) by the process that serves from the folder
//! db/               RocksDB
//! ```
//!
//! `instance` is drawn when the folder is made. It tells this disk from another one that comes under
//! the same number: what votes and promises a lost disk has given nobody knows, so such a node is
//! refused and has to take a new number (P9).

use crate::error::StartError;
use proto::universe::{Founding, UniverseMap};
use proto::{NodeId, codec};
use serde::{Deserialize, Serialize};
use spanserver::storage::folder::{LockError, take_lock, write_whole};
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use truetime::key::Key;
use truetime::providers::{KeyFileError, read_key_file};

const FORMAT: u32 = 1;
const NODE: &str = "node.toml";
const LOCK: &str = "meridian.lock";
const KEY: &str = "certificate.key";
const MAP: &str = "map";
const DATABASE: &str = "db";

/// What stands in `node.toml`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Identity {
    format: u32,
    /// Its number.
    pub node: u32,
    /// Of this folder.
    pub instance: String,
    /// Founded the universe: its disk is that of the first voter of every group.
    pub founder: bool,
    /// Of which universe it is; `None` until it is of one.
    pub founding: Option<Founding>,
}

/// A data folder, locked for this process until it is dropped.
pub(crate) struct Folder {
    path: PathBuf,
    pub identity: Identity,
    _lock: File,
}

impl Folder {
    /// Takes the folder for this process, and makes it if it is not there.
    pub fn take(path: &Path, node: NodeId) -> Result<Folder, StartError> {
        let creating = || format!("creating {}", path.display());
        fs::create_dir_all(path).map_err(|e| StartError::io(creating())(e))?;
        if !path.join(NODE).exists() && !is_blank(path)? {
            return Err(StartError::NotOurs { folder: path.to_owned() });
        }
        let lock = take_lock(path, LOCK).map_err(|error| match error {
            LockError::InUse(holder) => StartError::InUse { folder: path.to_owned(), holder },
            LockError::Io(error) => StartError::io(format!("locking {}", path.display()))(error),
        })?;
        let identity = match read(path, NODE)? {
            Some(bytes) => {
                let text = String::from_utf8_lossy(&bytes);
                toml::from_str(&text).map_err(|e| damaged(path, format!("{NODE}: {e}")))?
            }
            None => {
                let instance = format!("{:016x}", rand::random::<u64>());
                Identity { format: FORMAT, node: node.0, instance, founder: false, founding: None }
            }
        };
        if identity.format != FORMAT {
            let what =
                format!("{NODE} has format {}, this version reads {FORMAT}", identity.format);
            return Err(damaged(path, what));
        }
        if identity.node != node.0 {
            let (folder, owner) = (path.to_owned(), NodeId(identity.node));
            return Err(StartError::OtherNode { folder, owner, asked: node });
        }
        let folder = Folder { path: path.to_owned(), identity, _lock: lock };
        folder.write_identity()?;
        Ok(folder)
    }

    /// From here on the folder is of this universe.
    pub fn belong(&mut self, founding: &Founding, founder: bool) -> Result<(), StartError> {
        self.identity.founding = Some(founding.clone());
        self.identity.founder = founder;
        self.write_identity()
    }

    fn write_identity(&self) -> Result<(), StartError> {
        let text =
            toml::to_string(&self.identity).map_err(|e| StartError::Invalid(e.to_string()))?;
        self.write(NODE, text.as_bytes())
    }

    /// Where RocksDB is.
    pub fn database(&self) -> PathBuf {
        self.path.join(DATABASE)
    }

    /// Where the folder is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The key that seals certificates; `None`: none yet.
    pub fn key(&self) -> Result<Option<Key>, StartError> {
        let file = self.path.join(KEY);
        match read_key_file(&file) {
            Ok(key) => Ok(Some(key)),
            Err(KeyFileError::Io(e)) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(KeyFileError::Io(e)) => {
                Err(StartError::io(format!("reading {}", file.display()))(e))
            }
            Err(error) => Err(damaged(&self.path, format!("{KEY}: {error}"))),
        }
    }

    /// Keeps the key, readable by its owner alone.
    pub fn keep_key(&self, key: &Key) -> Result<(), StartError> {
        use std::io::Write;
        use std::os::unix::fs::OpenOptionsExt;
        let draft = self.path.join(format!("{KEY}.new"));
        let write = || {
            match fs::remove_file(&draft) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
            let mut options = fs::OpenOptions::new();
            let mut out = options.write(true).create_new(true).mode(0o600).open(&draft)?;
            writeln!(out, "{}", key.to_hex())?;
            out.sync_all()?;
            fs::rename(&draft, self.path.join(KEY))?;
            File::open(&self.path)?.sync_all()
        };
        write().map_err(StartError::io(format!("writing {KEY}")))
    }

    /// The last copy of the map that was kept; a damaged one is as good as none.
    pub fn map(&self) -> Option<UniverseMap> {
        codec::decode(&read(&self.path, MAP).ok()??).ok()
    }
}

impl Folder {
    fn write(&self, name: &str, content: &[u8]) -> Result<(), StartError> {
        let what = format!("writing {}", self.path.join(name).display());
        write_whole(&self.path, name, content).map_err(StartError::io(what))
    }
}

/// Keeps a copy of the map in a data folder.
///
/// # Errors
/// What the operating system says.
pub(crate) fn keep_map(folder: &Path, map: &UniverseMap) -> io::Result<()> {
    write_whole(folder, MAP, &codec::encode(map))
}

fn read(path: &Path, name: &str) -> Result<Option<Vec<u8>>, StartError> {
    match fs::read(path.join(name)) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(StartError::io(format!("reading {}", path.join(name).display()))(error)),
    }
}

fn damaged(path: &Path, what: String) -> StartError {
    StartError::Damaged { folder: path.to_owned(), what }
}

/// Whether nothing is in a folder but what an interrupted first start leaves.
fn is_blank(path: &Path) -> Result<bool, StartError> {
    let reading = || format!("reading {}", path.display());
    let entries = fs::read_dir(path).map_err(|e| StartError::io(reading())(e))?;
    for entry in entries {
        let name = entry.map_err(|e| StartError::io(reading())(e))?.file_name();
        if !matches!(name.to_string_lossy().as_ref(), LOCK | "node.toml.new" | "lost+found") {
            return Ok(false);
        }
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn take(path: &Path, node: u32) -> Result<Folder, StartError> {
        Folder::take(path, NodeId(node))
    }

    #[test]
    fn a_folder_is_one_node_s_for_good() {
        let dir = tempfile::tempdir().unwrap();
        let folder = take(dir.path(), 2).unwrap();
        assert!(matches!(take(dir.path(), 2), Err(StartError::InUse { .. })));
        let instance = folder.identity.instance.clone();
        drop(folder);
        assert!(matches!(take(dir.path(), 3), Err(StartError::OtherNode { .. })));
        let mut folder = take(dir.path(), 2).unwrap();
        assert_eq!(folder.identity.instance, instance);
        assert_eq!(folder.identity.founding, None);
        let founding = Founding { cluster: "c".into(), ..Founding::default() };
        folder.belong(&founding, true).unwrap();
        drop(folder);
        let folder = take(dir.path(), 2).unwrap();
        assert_eq!(
            (folder.identity.founding.clone(), folder.identity.founder),
            (Some(founding), true)
        );
    }

    #[test]
    fn what_is_not_ours_stays_as_it_is() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("thesis.tex"), "").unwrap();
        assert!(matches!(take(dir.path(), 1), Err(StartError::NotOurs { .. })));
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
        fs::write(dir.path().join(NODE), "format = \"x\"").unwrap();
        assert!(matches!(take(dir.path(), 1), Err(StartError::Damaged { .. })));
    }

    #[test]
    fn the_key_is_for_its_owner_and_the_map_comes_back() {
        let dir = tempfile::tempdir().unwrap();
        let folder = take(dir.path(), 1).unwrap();
        assert!(folder.key().unwrap().is_none() && folder.map().is_none());
        let key = Key::from_hex(&"5a".repeat(32)).unwrap();
        folder.keep_key(&key).unwrap();
        folder.keep_key(&key).unwrap();
        assert_eq!(folder.key().unwrap().unwrap().to_hex(), key.to_hex());
        let mode = fs::metadata(dir.path().join(KEY)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let map = UniverseMap::default();
        keep_map(dir.path(), &map).unwrap();
        assert_eq!(folder.map(), Some(map));
        fs::write(dir.path().join(MAP), "damaged").unwrap();
        assert_eq!(folder.map(), None);
    }
}
