//! What a data folder of any kind needs: one process at a time, and files that are whole or not there.

use rustix::fs::{FlockOperation, flock};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::path::Path;
use thiserror::Error;

/// Why a folder is not taken.
#[derive(Debug, Error)]
pub enum LockError {
    /// Another process has it.
    #[error("in use by another process{0}")]
    InUse(
        /// Who, where that is known: ` (process 123)`.
        String,
    ),
    /// The operating system refused.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// Takes a folder for this process, until the file is dropped. The lock is `name` in the folder, held
/// with flock; it tells the process's number.
///
/// # Errors
/// See [`LockError`].
pub fn take_lock(folder: &Path, name: &str) -> Result<File, LockError> {
    let path = folder.join(name);
    let mut file =
        OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)?;
    if flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
        let mut holder = String::new();
        let _ = file.read_to_string(&mut holder); // only makes the message better
        return Err(LockError::InUse(match holder.trim() {
            "" => String::new(),
            pid => format!(" (process {pid})"),
        }));
    }
    file.set_len(0)?;
    file.rewind()?;
    write!(file, "{}", std::process::id())?;
    Ok(file)
}

/// Writes a file that is whole, or as it was before, whatever happens; when this returns it is on
/// disk.
///
/// # Errors
/// What the operating system says.
pub fn write_whole(folder: &Path, name: &str, content: &[u8]) -> io::Result<()> {
    let draft = folder.join(format!("{name}.new"));
    let mut out = File::create(&draft)?;
    out.write_all(content)?;
    out.sync_all()?;
    fs::rename(&draft, folder.join(name))?;
    File::open(folder)?.sync_all()
}
