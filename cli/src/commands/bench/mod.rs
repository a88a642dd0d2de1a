//! `meridian bench`: a universe at work, measured and checked.

mod append;
mod disk;
mod endure;
mod recorded;
mod recording;
mod tally;
mod transfer;
mod write;

use crate::exit::Exit;
use client::{Database, SqlError};
use std::sync::Arc;
use std::time::Duration;

/// What is measured.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Clients move single units between the accounts of two airlines, while an auditor adds all
    /// accounts up again and again: the sum must never change.
    #[command(after_help = transfer::AFTER_HELP)]
    Transfer(transfer::Arguments),
    /// Clients append themselves to lists that several of them want, and read others: what is read of a
    /// list names all who wrote it, so a checker sees every order that is wrong.
    #[command(after_help = append::AFTER_HELP)]
    Append(append::Arguments),
    /// Writers commit single rows as fast as they can, and what a commit costs the disk is counted.
    #[command(after_help = write::AFTER_HELP)]
    Write(write::Arguments),
    /// Clients are at work until somebody kills the process, again and again: nothing that was
    /// acknowledged may be lost.
    #[command(after_help = endure::AFTER_HELP)]
    Endure(endure::Arguments),
}

/// Runs the command.
///
/// # Errors
/// When the universe fails, or does not hold what it should.
pub async fn run(command: Command) -> Result<(), Exit> {
    match command {
        Command::Transfer(arguments) => transfer::run(arguments).await,
        Command::Append(arguments) => append::run(arguments).await,
        Command::Write(arguments) => write::run(arguments).await,
        Command::Endure(arguments) => endure::run(arguments).await,
    }
}

fn failed(error: SqlError) -> Exit {
    let hint = error.hint.as_ref().map_or(String::new(), |hint| format!("\nHint: {hint}"));
    Exit::failed(format!("{error}{hint}"))
}

/// Creates a table where it is missing. Another client may do the same at the same time.
async fn create(database: &Arc<Database>, table: &str, schema: &str) -> Result<(), SqlError> {
    let is_there = async || database.catalog().await.table(table).is_ok();
    if is_there().await {
        return Ok(());
    }
    match database.session().execute(schema).await {
        Err(_) if is_there().await => Ok(()),
        created => created.map(drop),
    }
}

/// Numbers of which nothing depends on how random they are (splitmix).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, below: usize) -> usize {
        ((self.next() >> 32) as usize) % below
    }

    fn bytes(&mut self, count: usize) -> Vec<u8> {
        let words = (0..count.div_ceil(8)).flat_map(|_| self.next().to_le_bytes());
        words.take(count).collect()
    }
}

/// The smallest of `sorted` that is not exceeded by a share of them.
fn percentile(sorted: &[Duration], share: f64) -> Duration {
    let place = (sorted.len() as f64 * share).ceil() as usize;
    sorted.get(place.saturating_sub(1)).copied().unwrap_or_default()
}

fn millis(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_values_that_occurred() {
        let sorted: Vec<Duration> = (1..=100).map(Duration::from_millis).collect();
        assert_eq!(percentile(&sorted, 0.5), Duration::from_millis(50));
        assert_eq!(percentile(&sorted, 0.99), Duration::from_millis(99));
        assert_eq!(percentile(&sorted[..1], 0.5), Duration::from_millis(1));
        assert_eq!(percentile(&[], 0.5), Duration::ZERO);
    }

    #[test]
    fn random_bytes_are_as_many_as_asked_for() {
        let mut random = Random(1);
        for count in [0, 1, 8, 100] {
            assert_eq!(random.bytes(count).len(), count);
        }
        assert_ne!(random.bytes(8), random.bytes(8));
    }
}
