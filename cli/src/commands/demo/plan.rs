//! Which nodes a demo has, and where everything is.

use super::Arguments;
use crate::exit::Exit;
use serde::{Deserialize, Serialize};
use std::fs;
use std::io;
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

/// The first port, if it is free.
const PORT: u16 = 7_101;
const NODES: u32 = 3;
/// Remembers the plan in a folder that stays: nodes know one another by their addresses.
const FILE: &str = "demo.toml";

/// Which nodes there are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Plan {
    /// Replicas of each group.
    pub replicas: u32,
    /// Groups, besides the root group.
    pub groups: u32,
    /// The nodes; the first founds the cluster.
    pub nodes: Vec<Node>,
}

/// A node to be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Node {
    /// Its number.
    pub number: u32,
    /// Where it listens, on the loopback.
    pub port: u16,
    /// Where it pretends to stand.
    pub zone: String,
}

impl Node {
    /// Where it is reached.
    pub fn address(&self) -> String {
        format!("{}:{}", Ipv4Addr::LOCALHOST, self.port)
    }
}

impl Plan {
    /// What was asked for, or what the folder remembers.
    ///
    /// # Errors
    /// It remembers something else; there are no ports.
    pub fn make(folder: &Folder, arguments: &Arguments) -> Result<Plan, Exit> {
        let path = folder.path().join(FILE);
        let failed =
            |error: &dyn std::fmt::Display| Exit::failed(format!("{}: {error}", path.display()));
        let known = match fs::read_to_string(&path) {
            Ok(text) => Some(toml::from_str(&text).map_err(|error| failed(&error))?),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(failed(&error)),
        };
        let plan = match known {
            Some(known) => Plan::again(known, arguments)?,
            None => Plan::new(arguments)?,
        };
        if folder.stays() {
            let text = toml::to_string(&plan).map_err(|error| failed(&error))?;
            fs::write(&path, text).map_err(|error| failed(&error))?;
        }
        Ok(plan)
    }

    fn new(arguments: &Arguments) -> Result<Plan, Exit> {
        let count = arguments.nodes.unwrap_or(NODES);
        let ports = ports(count, arguments.base_port)?;
        let node = |(number, port)| Node { number, port, zone: zone(&arguments.zones, number) };
        let nodes = (1..).zip(ports).map(node).collect();
        let replicas = if count < 3 { 1 } else { 3 };
        Ok(Plan { replicas, groups: arguments.groups, nodes })
    }

    /// The same nodes at the same places.
    fn again(known: Plan, arguments: &Arguments) -> Result<Plan, Exit> {
        let refuse = |flag: &str, there: String| {
            Err(Exit::Usage(format!(
                "{flag}: the folder has a cluster of {there}\nHint: leave {flag} out, or take \
                 another folder"
            )))
        };
        let count = known.nodes.len();
        if arguments.nodes.is_some_and(|nodes| nodes as usize != count) {
            return refuse("--nodes", format!("{count} nodes"));
        }
        let first = known.nodes.first().map_or(0, |node| node.port);
        if arguments.base_port.is_some_and(|port| port != first) {
            return refuse(
                "--base-port",
                format!("nodes that know one another by port {first} on"),
            );
        }
        let zones: Vec<&str> = known.nodes.iter().map(|node| node.zone.as_str()).collect();
        let differs = |node: &Node| node.zone != zone(&arguments.zones, node.number);
        if !arguments.zones.is_empty() && known.nodes.iter().any(differs) {
            return refuse("--zones", format!("nodes in {}", zones.join(",")));
        }
        Ok(known)
    }
}

/// A node's zone: the zones start over when there are fewer than nodes.
fn zone(zones: &[String], number: u32) -> String {
    let place = number as usize - 1;
    match zones.len() {
        0 => char::from(b'a' + (place % 26) as u8).to_string(),
        count => zones[place % count].clone(),
    }
}

/// Ports one after the other from `base` on; without one, from the usual one on, or any that are
/// free. Somebody may take them before the nodes do: a node that cannot listen says so.
fn ports(count: u32, base: Option<u16>) -> Result<Vec<u16>, Exit> {
    let row = (0..count).map(|more| base.unwrap_or(PORT).checked_add(more as u16));
    let Some(row) = row.collect::<Option<Vec<u16>>>() else {
        return Err(Exit::Usage(format!(
            "--base-port: {count} ports from there on end beyond 65535"
        )));
    };
    let taken = row.iter().find(|port| listener(**port).is_err());
    match (taken, base) {
        (None, _) => Ok(row),
        (Some(taken), Some(_)) => Err(Exit::failed(format!(
            "port {taken} is taken\nHint: choose another --base-port, or none: free ones are found"
        ))),
        (Some(_), None) => {
            // All are held until the last is found, so that no two are the same.
            let held: io::Result<Vec<TcpListener>> = (0..count).map(|_| listener(0)).collect();
            let ports = held.and_then(|held| {
                held.iter().map(|one| one.local_addr().map(|address| address.port())).collect()
            });
            ports.map_err(|error| Exit::failed(format!("no free ports: {error}")))
        }
    }
}

fn listener(port: u16) -> io::Result<TcpListener> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port))
}

/// Where nodes have their data and their logs.
#[derive(Debug)]
pub struct Folder {
    path: PathBuf,
    stays: bool,
}

impl Folder {
    /// The one that was named, or a temporary one, which is removed when this is dropped.
    ///
    /// # Errors
    /// It cannot be made.
    pub fn make(named: Option<&Path>) -> Result<Folder, Exit> {
        let cannot = |path: &Path, error: io::Error| {
            Exit::failed(format!("cannot make {}: {error}", path.display()))
        };
        if let Some(path) = named {
            fs::create_dir_all(path).map_err(|error| cannot(path, error))?;
            let path = path.canonicalize().map_err(|error| cannot(path, error))?;
            return Ok(Folder { path, stays: true });
        }
        let process = std::process::id();
        let mut attempt = 0;
        loop {
            let path = std::env::temp_dir().join(format!("meridian-demo-{process}-{attempt}"));
            match fs::DirBuilder::new().mode(0o700).create(&path) {
                Ok(()) => return Ok(Folder { path, stays: false }),
                // Of a process with the same number that was killed.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => attempt += 1,
                Err(error) => return Err(cannot(&path, error)),
            }
        }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether it is kept.
    pub fn stays(&self) -> bool {
        self.stays
    }

    /// A node's data folder.
    pub fn data(&self, number: u32) -> PathBuf {
        self.path.join(format!("n{number}"))
    }

    /// A node's log.
    pub fn log(&self, number: u32) -> PathBuf {
        self.path.join(format!("n{number}.log"))
    }

    /// What has become of it, as the end of a sentence.
    pub fn leave(self) -> String {
        let path = self.path.display().to_string();
        if self.stays {
            return format!("; {path} is as they left it");
        }
        match self.remove() {
            Ok(()) => format!("; {path} is removed"),
            Err(error) => format!("; {path} cannot be removed: {error}"),
        }
    }

    fn remove(&self) -> io::Result<()> {
        match fs::remove_dir_all(&self.path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if !self.stays {
            // Said by `leave`, if somebody asks.
            let _ = self.remove();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    fn arguments(nodes: Option<u32>, zones: &[&str], base_port: Option<u16>) -> Arguments {
        let zones = zones.iter().map(|zone| (*zone).to_owned()).collect();
        Arguments { nodes, zones, data: None, base_port, groups: 4 }
    }

    fn zones(plan: &Plan) -> Vec<&str> {
        plan.nodes.iter().map(|node| node.zone.as_str()).collect()
    }

    #[test]
    fn zones_start_over() {
        let plan = Plan::new(&arguments(Some(4), &["x", "y"], None)).unwrap();
        assert_eq!(zones(&plan), ["x", "y", "x", "y"]);
        let plan = Plan::new(&arguments(None, &[], None)).unwrap();
        assert_eq!((zones(&plan), plan.replicas), (vec!["a", "b", "c"], 3));
        assert_eq!(Plan::new(&arguments(Some(2), &[], None)).unwrap().replicas, 1);
    }

    #[test]
    fn a_port_that_is_taken_is_said_and_passed_over() {
        let held = listener(0).unwrap();
        let port = held.local_addr().unwrap().port();
        let refused = ports(1, Some(port)).unwrap_err();
        let words = format!("port {port} is taken");
        assert!(matches!(refused, Exit::Failed(text) if text.contains(&words)));
        let free = ports(3, None).unwrap();
        assert!(!free.contains(&port));
        assert_eq!(free.iter().collect::<BTreeSet<_>>().len(), 3);
        assert!(matches!(ports(3, Some(65_534)), Err(Exit::Usage(_))));
    }

    #[test]
    fn a_folder_that_stays_remembers_its_nodes() {
        let base = tempfile::tempdir().unwrap();
        let folder = Folder::make(Some(&base.path().join("new"))).unwrap();
        let first = Plan::make(&folder, &arguments(Some(3), &["x", "y", "z"], None)).unwrap();
        assert_eq!(Plan::make(&folder, &arguments(None, &[], None)).unwrap(), first);
        let port = first.nodes[0].port;
        let same = arguments(Some(3), &["x", "y", "z"], Some(port));
        assert_eq!(Plan::make(&folder, &same).unwrap(), first);
        for other in [
            arguments(Some(4), &[], None),
            arguments(None, &["x"], None),
            arguments(None, &[], Some(port ^ 1)),
        ] {
            assert!(matches!(Plan::make(&folder, &other), Err(Exit::Usage(_))), "{other:?}");
        }
        assert!(folder.leave().contains("is as they left it"));
        assert!(base.path().join("new").join(FILE).exists());
    }

    #[test]
    fn a_temporary_folder_goes() {
        let folder = Folder::make(None).unwrap();
        let path = folder.path().to_owned();
        fs::write(folder.log(1), "x").unwrap();
        assert!(path.is_dir() && !folder.stays());
        assert!(folder.leave().contains("is removed") && !path.exists());
        let folder = Folder::make(None).unwrap();
        let path = folder.path().to_owned();
        drop(folder);
        assert!(!path.exists(), "nobody has to say so");
    }
}
