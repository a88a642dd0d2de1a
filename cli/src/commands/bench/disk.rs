//! The disk by itself: what the figures of a benchmark are to be compared with.

use super::{millis, percentile};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// A folder that is gone, with all that is in it, when this is dropped.
pub struct TemporaryFolder {
    path: PathBuf,
}

impl TemporaryFolder {
    /// A new folder of this process inside another one.
    ///
    /// # Errors
    /// When it cannot be created, or was left behind by a process of the same number.
    pub fn inside(parent: &Path) -> io::Result<TemporaryFolder> {
        let path = parent.join(format!("meridian-bench-{}", std::process::id()));
        fs::create_dir(&path)?;
        Ok(TemporaryFolder { path })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for TemporaryFolder {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.path) {
            eprintln!("meridian: {} stays behind: {error}", self.path.display());
        }
    }
}

const APPENDED_BYTES: usize = 4_096;
const MEASURED_FOR: Duration = Duration::from_secs(1);

/// How long the disk takes for an append of 4 KiB and its `fdatasync`, sorted.
pub struct Syncs(Vec<Duration>);

impl Syncs {
    /// Measures for a second, with so many files appended to at once; blocks meanwhile.
    ///
    /// # Errors
    /// What the disk says.
    pub fn measure(folder: &Path, files: u32) -> io::Result<Syncs> {
        let paths: Vec<PathBuf> = (0..files).map(|n| folder.join(format!("sync-{n}"))).collect();
        let measured: io::Result<Vec<Vec<Duration>>> = std::thread::scope(|scope| {
            let threads: Vec<_> =
                paths.iter().map(|path| scope.spawn(|| append_to(path))).collect();
            let join = |thread: std::thread::ScopedJoinHandle<'_, _>| {
                thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
            };
            threads.into_iter().map(join).collect()
        });
        for path in &paths {
            fs::remove_file(path)?;
        }
        let mut all = measured?.concat();
        all.sort_unstable();
        Ok(Syncs(all))
    }

    /// `p50 0.52 ms, p99 1.10 ms, 1830 per second`
    pub fn describe(&self) -> String {
        format!(
            "p50 {:.2} ms, p99 {:.2} ms, {:.0} per second",
            millis(percentile(&self.0, 0.50)),
            millis(percentile(&self.0, 0.99)),
            self.0.len() as f64 / MEASURED_FOR.as_secs_f64()
        )
    }
}

fn append_to(path: &Path) -> io::Result<Vec<Duration>> {
    let mut file: File = OpenOptions::new().append(true).create_new(true).open(path)?;
    let content = [0xa5; APPENDED_BYTES];
    let until = Instant::now() + MEASURED_FOR;
    let mut took = Vec::new();
    while Instant::now() < until {
        let began = Instant::now();
        file.write_all(&content)?;
        file.sync_data()?;
        took.push(began.elapsed());
    }
    Ok(took)
}
