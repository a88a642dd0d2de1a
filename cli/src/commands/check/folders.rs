//! The disks whose replicas are compared: in the folder of a universe that one process runs, or in
//! those of the servers of one.

use crate::exit::Exit;
use proto::NodeId;
use spanserver::storage::Rocks;
use spanserver::storage::folder::{LockError, take_lock};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

/// Every folder has it, and whoever has the folder open holds it.
const LOCK: &str = "meridian.lock";
/// The folder of a universe has the one, that of a server the other.
const UNIVERSE: &str = "universe.toml";
const SERVER: &str = "node.toml";

/// Disks, which nobody else opens for as long as this exists.
pub struct Disks {
    pub engines: BTreeMap<NodeId, Rocks>,
    _locks: Vec<File>,
}

/// Opens the disks in these folders.
///
/// # Errors
/// A folder that is none, is in use or damaged, and folders that do not belong together.
pub fn take(folders: &[PathBuf]) -> Result<Disks, Exit> {
    let mut disks = Disks { engines: BTreeMap::new(), _locks: Vec::new() };
    let mut first: Option<(String, &Path)> = None;
    for folder in folders {
        let name = folder.display();
        if folder.join(SERVER).is_file() {
            disks._locks.push(lock(folder)?);
            let (node, cluster) = owner(folder)?;
            match &first {
                Some((other, at)) if *other != cluster => {
                    return Err(Exit::failed(format!(
                        "{name} is of the universe {cluster}, {} of {other}",
                        at.display()
                    )));
                }
                Some(_) => {}
                None => first = Some((cluster, folder)),
            }
            let engine = open(node, &folder.join("db"))?;
            if disks.engines.insert(node, engine).is_some() {
                return Err(Exit::failed(format!("two folders are of {node}, one is {name}")));
            }
        } else if !folder.join(UNIVERSE).is_file() {
            return Err(Exit::failed(format!("there is no universe in {name}")));
        } else if folders.len() > 1 {
            return Err(Exit::failed(format!(
                "{name} has all the replicas of its universe\nHint: --data may be repeated for the \
                 folders of servers"
            )));
        } else {
            disks._locks.push(lock(folder)?);
            let folders = (1..).map(|node| (NodeId(node), folder.join(format!("n{node}"))));
            for (node, folder) in folders.take_while(|(_, folder)| folder.is_dir()) {
                disks.engines.insert(node, open(node, &folder)?);
            }
        }
    }
    Ok(disks)
}

/// Holds the lock of a folder, as a process that has it open does.
fn lock(folder: &Path) -> Result<File, Exit> {
    take_lock(folder, LOCK).map_err(|error| match error {
        LockError::InUse(holder) => Exit::failed(format!(
            "the universe in {} is open in another process{holder}\nHint: check it when that process \
             has ended",
            folder.display()
        )),
        LockError::Io(error) => {
            Exit::failed(format!("locking {}: {error}", folder.join(LOCK).display()))
        }
    })
}

/// Whose folder it is, and of which universe.
fn owner(folder: &Path) -> Result<(NodeId, String), Exit> {
    let file = folder.join(SERVER);
    let failed = |what: String| Exit::failed(format!("{}: {what}", file.display()));
    let text = fs::read_to_string(&file).map_err(|error| failed(error.to_string()))?;
    let table: toml::Table = text.parse().map_err(|error| failed(format!("{error}")))?;
    let node = table.get("node").and_then(toml::Value::as_integer);
    let node = node.and_then(|node| u32::try_from(node).ok());
    let founding = table.get("founding").and_then(toml::Value::as_table);
    let cluster = founding.and_then(|founding| founding.get("cluster")?.as_str());
    match (node, cluster) {
        (Some(node), Some(cluster)) => Ok((NodeId(node), cluster.to_owned())),
        (None, _) => Err(failed("it names no node".into())),
        (_, None) => Err(failed("the server has not been let into a universe yet".into())),
    }
}

fn open(node: NodeId, folder: &Path) -> Result<Rocks, Exit> {
    Rocks::open(folder).map_err(|error| Exit::failed(format!("the folder of {node}: {error}")))
}
