//! Keys in files.

use crate::key::{Key, KeyError};
use rand::SeedableRng;
use rand::rngs::StdRng;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;
use thiserror::Error;

/// No file that holds a key is longer than this.
const BYTES_MAX: u64 = 1_024;

/// Why a file gives no key.
#[derive(Debug, Error)]
pub enum KeyFileError {
    /// It cannot be read.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// Others than its owner and his group may read it: then it is no secret.
    #[error("everybody on this host may read it (mode {mode:o}); chmod 600 makes it a secret")]
    Open {
        /// Its permissions.
        mode: u32,
    },
    /// What it holds is no key.
    #[error("{0}")]
    Key(#[from] KeyError),
}

/// Reads a key: 64 hexadecimal digits.
///
/// # Errors
/// [`KeyFileError`].
pub fn read_key_file(path: &Path) -> Result<Key, KeyFileError> {
    let file = File::open(path)?;
    let mode = file.metadata()?.permissions().mode() & 0o777;
    if mode & 0o007 != 0 {
        return Err(KeyFileError::Open { mode });
    }
    let mut text = String::new();
    file.take(BYTES_MAX).read_to_string(&mut text)?;
    Ok(Key::from_hex(&text)?)
}

/// Draws a key and writes it to a new file that only its owner can read.
///
/// # Errors
/// The file exists already ([`io::ErrorKind::AlreadyExists`]), or cannot be written.
pub fn new_key_file(path: &Path) -> io::Result<Key> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    let key = Key::draw(&mut StdRng::from_os_rng());
    file.write_all(format!("{}\n", key.to_hex()).as_bytes())?;
    file.sync_all()?;
    Ok(key)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::{self, Permissions};

    #[test]
    fn a_new_file_holds_a_key_of_its_own_for_its_owner_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        let key = new_key_file(&path("a")).unwrap();
        assert_eq!(fs::metadata(path("a")).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(read_key_file(&path("a")).unwrap().to_hex(), key.to_hex());
        assert_ne!(new_key_file(&path("b")).unwrap().to_hex(), key.to_hex());
    }

    #[test]
    fn a_file_that_exists_stays_what_it_is() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        fs::write(&path, "precious").unwrap();
        assert_eq!(new_key_file(&path).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(fs::read_to_string(&path).unwrap(), "precious");
    }

    #[test]
    fn what_is_no_secret_or_no_key_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        assert!(matches!(read_key_file(&path), Err(KeyFileError::Io(_))));
        new_key_file(&path).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
        assert!(matches!(read_key_file(&path), Err(KeyFileError::Open { mode: 0o644 })));
        fs::set_permissions(&path, Permissions::from_mode(0o640)).unwrap();
        assert!(read_key_file(&path).is_ok());
        fs::write(&path, "12345").unwrap();
        assert!(matches!(read_key_file(&path), Err(KeyFileError::Key(KeyError::Length(5)))));
    }
}
