//! `--data DIR` or `--connect HOST:PORT,…`: the universe a command works on, opened in this process or
//! served by others. Commands see an [`Opened`], and need not know which it is.

use crate::clock::{Clocks, show};
use crate::data::{check_exists, refused};
use crate::exit::Exit;
use clap::{ArgGroup, Args};
use client::{
    Builder, Cluster, ConnectOptions, ControlReply, ControlRequest, Database, GroupStatus,
    NodeReport, Security, Universe,
};
use futures::future::join_all;
use proto::NodeId;
use std::path::PathBuf;
use std::sync::Arc;

/// Which universe.
#[derive(Debug, Args)]
#[command(group(ArgGroup::new("universe").required(true)))]
pub struct Target {
    /// The folder of a universe, which this process opens.
    #[arg(long, value_name = "DIR", group = "universe")]
    data: Option<PathBuf>,
    /// Servers of a universe; one that answers is enough, it leads to the others.
    #[arg(long, value_name = "HOST:PORT,…", value_delimiter = ',', group = "universe")]
    connect: Vec<String>,
    #[command(flatten)]
    tls: Tls,
    /// Replicas of every group, all in this process: 1 or 3. Chosen when a universe is created (1
    /// if left out); an error when an existing one has another number.
    #[arg(long, value_name = "N", conflicts_with = "connect")]
    replicas: Option<u32>,
    #[command(flatten)]
    pub clocks: Clocks,
}

/// TLS, with a certificate of one's own.
#[derive(Clone, Debug, Default, Args)]
pub struct Tls {
    /// A certificate to be known by to the servers, PEM.
    #[arg(long, value_name = "FILE")]
    tls_cert: Option<PathBuf>,
    /// Its key, PEM.
    #[arg(long, value_name = "FILE")]
    tls_key: Option<PathBuf>,
    /// The authority that servers have their certificates from, PEM.
    #[arg(long, value_name = "FILE")]
    tls_ca: Option<PathBuf>,
}

impl Tls {
    /// A universe in this process has nobody to show a certificate to.
    ///
    /// # Errors
    /// There is one nevertheless.
    pub fn refuse(&self) -> Result<(), Exit> {
        let Tls { tls_cert, tls_key, tls_ca } = self;
        if tls_cert.is_some() || tls_key.is_some() || tls_ca.is_some() {
            let message = "--tls-cert, --tls-key and --tls-ca are for connections: add --connect";
            return Err(Exit::Usage(message.into()));
        }
        Ok(())
    }

    /// How connections are protected.
    ///
    /// # Errors
    /// A file is missing or makes no sense.
    pub fn security(&self) -> Result<Security, Exit> {
        let Tls { tls_cert, tls_key, tls_ca } = self.clone();
        Security::from_files(tls_cert, tls_key, tls_ca).map_err(Exit::failed)
    }
}

impl Target {
    /// Opens the folder, which is created when it is new or empty; or connects.
    ///
    /// # Errors
    /// The reason, and what to do about it.
    pub async fn open(&self) -> Result<Opened, Exit> {
        self.open_with(Universe::builder()).await
    }

    /// As [`open`](Self::open), with more that was asked for of a universe in this process.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub async fn open_with(&self, builder: Builder) -> Result<Opened, Exit> {
        let Some(folder) = &self.data else {
            return connect(&self.connect, &self.tls, &self.clocks).await;
        };
        self.tls.refuse()?;
        let mut builder = self.clocks.apply(builder)?;
        if let Some(replicas) = self.replicas {
            if replicas != 1 && replicas != 3 {
                return Err(Exit::Usage(format!("--replicas {replicas}: choose 1 or 3")));
            }
            builder = builder.replicas(replicas);
        }
        Ok(Opened::Folder(Box::new(builder.open(folder).await.map_err(refused)?)))
    }

    /// As [`open`](Self::open), but a folder where there is no universe is left as it is.
    ///
    /// # Errors
    /// As [`open`](Self::open), and when there is none.
    pub async fn open_existing(&self) -> Result<Opened, Exit> {
        if let Some(folder) = &self.data {
            check_exists(folder)?;
        }
        self.open().await
    }

    /// Whether it is servers elsewhere.
    pub fn is_remote(&self) -> bool {
        self.data.is_none()
    }
}

/// Connects to servers.
///
/// # Errors
/// The reason, and what to do about it.
pub async fn connect(addresses: &[String], tls: &Tls, clocks: &Clocks) -> Result<Opened, Exit> {
    let specs = clocks.specs()?;
    if let Some(node) = specs.nodes.keys().next() {
        return Err(Exit::Usage(format!(
            "--clock n{node}=…: a server has the clock it was started with; with --connect, choose \
             that of this client alone: --clock SPEC"
        )));
    }
    let clock = clocks.is_given().then(|| specs.of_client().clone());
    let options = ConnectOptions { security: tls.security()?, clock };
    match Cluster::connect(addresses, options).await {
        Ok(cluster) => Ok(Opened::Servers(Arc::new(cluster))),
        Err(error) => {
            let hint = error.hint().map_or(String::new(), |hint| format!("\nHint: {hint}"));
            Err(Exit::failed(format!("{error}{hint}")))
        }
    }
}

/// A universe that can be worked with.
pub enum Opened {
    /// In this process.
    Folder(Box<Universe>),
    /// Elsewhere.
    Servers(Arc<Cluster>),
}

/// What can be counted of either kind; see [`client::UniverseStats`].
#[derive(Clone, Copy, Debug, Default)]
pub struct Counts {
    /// Replicas each group has, or is to have.
    pub replicas: u32,
    /// Groups, the root group included.
    pub groups: u32,
    /// Disk syncs of all logs since the servers' start; `None`: not all servers have told.
    pub syncs: Option<u64>,
    /// Bytes that storage wrote to the disks since then; `None`: servers elsewhere do not tell.
    pub bytes_written: Option<u64>,
}

impl Opened {
    /// The database.
    pub fn database(&self) -> Arc<Database> {
        match self {
            Opened::Folder(universe) => universe.database(),
            Opened::Servers(cluster) => cluster.database(),
        }
    }

    /// The universe's identity.
    pub fn id(&self) -> String {
        match self {
            Opened::Folder(universe) => universe.id().to_owned(),
            Opened::Servers(cluster) => cluster.id(),
        }
    }

    /// Tells the key that seals certificates from others (X13); empty: clients of servers are not
    /// told.
    pub fn key_fingerprint(&self) -> String {
        match self {
            Opened::Folder(universe) => universe.key_fingerprint().to_owned(),
            Opened::Servers(_) => String::new(),
        }
    }

    /// Each group at each replica; those that do not answer are left out.
    pub async fn status(&self) -> Vec<GroupStatus> {
        match self {
            Opened::Folder(universe) => universe.status().await,
            Opened::Servers(cluster) => cluster.status().await,
        }
    }

    /// Counters.
    pub async fn counts(&self) -> Counts {
        match self {
            Opened::Folder(universe) => {
                let stats = universe.stats();
                let (replicas, groups) = (stats.replicas, stats.groups);
                let bytes_written = Some(stats.bytes_written);
                Counts { replicas, groups, syncs: Some(stats.syncs), bytes_written }
            }
            Opened::Servers(cluster) => {
                let reports = reports(cluster).await;
                let syncs = reports.iter().map(|(_, report)| report.as_ref().ok().map(|r| r.syncs));
                let map = cluster.map();
                let (replicas, groups) = (map.founding.replicas, map.groups.len() as u32);
                Counts { replicas, groups, syncs: syncs.sum(), bytes_written: None }
            }
        }
    }

    /// What all clocks say, a line each and more for where they have it from.
    pub async fn clock_lines(&self) -> Vec<String> {
        match self {
            Opened::Folder(universe) => show::lines(&universe.clocks()),
            Opened::Servers(cluster) => {
                let reports = reports(cluster).await;
                let (reading, sources) = (cluster.clock(), cluster.clock_sources());
                show::remote_lines(&reports, &reading, &sources)
            }
        }
    }

    /// Stops the servers of this process, or leaves those of others.
    pub fn close(self) {
        if let Opened::Folder(universe) = self {
            universe.close();
        }
    }
}

/// What each server says of itself, or why it does not.
pub async fn reports(cluster: &Cluster) -> Vec<(NodeId, Result<NodeReport, String>)> {
    let ask = |node: NodeId| async move {
        let report = match cluster.control(node, ControlRequest::Node).await {
            Ok(ControlReply::Node(report)) => Ok(*report),
            Ok(other) => Err(format!("it answers {other:?}")),
            Err(error) => Err(error.to_string()),
        };
        (node, report)
    };
    join_all(cluster.nodes().into_iter().map(ask)).await
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        target: Target,
    }

    fn parse(line: &str) -> Result<Target, clap::Error> {
        let words = std::iter::once("test").chain(line.split_whitespace());
        Line::try_parse_from(words).map(|line| line.target)
    }

    #[test]
    fn a_folder_or_servers_and_not_both() {
        assert!(!parse("--data u --replicas 3").unwrap().is_remote());
        let servers = parse("--connect a:1,b:2 --connect c:3 --tls-ca x").unwrap();
        assert!(servers.is_remote());
        assert_eq!(servers.connect, ["a:1", "b:2", "c:3"]);
        for (wrong, words) in [
            ("", "--data <DIR>|--connect <HOST:PORT,…>"),
            ("--data u --connect a:1", "cannot be used with"),
            ("--connect a:1 --replicas 3", "cannot be used with"),
        ] {
            let error = parse(wrong).expect_err(wrong);
            assert_eq!(error.exit_code(), 2);
            assert!(error.to_string().contains(words), "{wrong}: {error}");
        }
    }

    #[tokio::test]
    async fn what_cannot_be_is_said_before_anybody_is_asked() {
        let refused = parse("--connect 127.0.0.1:1 --clock n2=local").unwrap().open().await;
        let Err(Exit::Usage(message)) = refused else { panic!("opened") };
        assert!(message.contains("n2") && message.contains("--clock SPEC"), "{message}");
        let incomplete = parse("--connect 127.0.0.1:1 --tls-cert c.pem").unwrap().open().await;
        let Err(Exit::Failed(message)) = incomplete else { panic!("opened") };
        assert!(message.contains("--tls-key"), "{message}");
        let nowhere = parse("--data does-not-exist --tls-ca x").unwrap().open().await;
        let Err(Exit::Usage(message)) = nowhere else { panic!("opened") };
        assert!(message.contains("add --connect"), "{message}");
        let nobody = parse("--connect 127.0.0.1:1").unwrap().open().await;
        let Err(Exit::Failed(message)) = nobody else { panic!("opened") };
        assert!(message.contains("127.0.0.1:1: ") && message.contains("Hint: "), "{message}");
    }
}
