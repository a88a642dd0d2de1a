//! `--data DIR` and `--replicas N`: the universe a command works on.

use crate::exit::Exit;
use clap::Args;
use client::Universe;
use std::path::PathBuf;

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
}

impl Data {
    /// Opens the universe, or creates it when the folder is new or empty.
    ///
    /// # Errors
    /// The reason, and what to do about it.
    pub async fn open(&self) -> Result<Universe, Exit> {
        let mut builder = Universe::builder();
        if let Some(replicas) = self.replicas {
            if replicas != 1 && replicas != 3 {
                return Err(Exit::Usage(format!("--replicas {replicas}: choose 1 or 3")));
            }
            builder = builder.replicas(replicas);
        }
        builder.open(&self.data).await.map_err(|error| {
            let hint = error.hint().map_or(String::new(), |hint| format!("\nHint: {hint}"));
            Exit::failed(format!("{error}{hint}"))
        })
    }

    /// Opens the universe; one that is not there is not created.
    ///
    /// # Errors
    /// As [`open`](Self::open), and when there is none.
    pub async fn open_existing(&self) -> Result<Universe, Exit> {
        let is_blank = match self.data.read_dir() {
            Ok(mut entries) => entries.next().is_none(),
            Err(error) => error.kind() == std::io::ErrorKind::NotFound,
        };
        if is_blank {
            let folder = self.data.display();
            return Err(Exit::failed(format!(
                "there is no universe in {folder}\nHint: create one, with a schema: meridian sql \
                 --data {folder} -f schema.sql"
            )));
        }
        self.open().await
    }
}
