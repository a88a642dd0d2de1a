//! `--data DIR`, `--replicas N` and `--clock SPEC`: the universe a command works on.

use crate::clock::Clocks;
use crate::exit::Exit;
use clap::Args;
use client::{Builder, OpenError, Universe};
use std::path::{Path, PathBuf};

/// Which universe.
#[derive(Debug, Args)]
pub struct Data {
    /// The folder of the universe.
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
    /// Replicas of every group, all in this process: 1 or 3. Chosen when a universe is created (1
    /// if left out); an error when an existing one has another number.
    #[arg(long, value_name = "N")]
    replicas: Option<u32>,
    #[command(flatten)]
    pub clocks: Clocks,
}

impl Data {
    /// Opens the universe, or creates it when the folder is new or empty.
    ///
    /// # Errors
    /// The reason, and what to do about it.
    pub async fn open(&self) -> Result<Universe, Exit> {
        self.open_with(Universe::builder()).await
    }

    /// As [`open`](Self::open), with more that was asked for.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub async fn open_with(&self, builder: Builder) -> Result<Universe, Exit> {
        let mut builder = self.clocks.apply(builder)?;
        if let Some(replicas) = self.replicas {
            if replicas != 1 && replicas != 3 {
                return Err(Exit::Usage(format!("--replicas {replicas}: choose 1 or 3")));
            }
            builder = builder.replicas(replicas);
        }
        builder.open(&self.data).await.map_err(refused)
    }
}

/// Whether there may be a universe in a folder.
///
/// # Errors
/// When there is none.
pub fn check_exists(folder: &Path) -> Result<(), Exit> {
    let is_blank = match folder.read_dir() {
        Ok(mut entries) => entries.next().is_none(),
        Err(error) => error.kind() == std::io::ErrorKind::NotFound,
    };
    if !is_blank {
        return Ok(());
    }
    let folder = folder.display();
    Err(Exit::failed(format!(
        "there is no universe in {folder}\nHint: create one, with a schema: meridian sql --data \
         {folder} -f schema.sql"
    )))
}

/// Why a universe did not open, and what to do about it.
pub fn refused(error: OpenError) -> Exit {
    let hint = error.hint().map_or(String::new(), |hint| format!("\nHint: {hint}"));
    Exit::failed(format!("{error}{hint}"))
}
