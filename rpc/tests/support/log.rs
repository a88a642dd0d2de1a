//! What the code under test writes to the log.

use parking_lot::Mutex;
use std::io::{self, Write};
use std::sync::{Arc, Once};
use tracing::Level;

static LINES: Mutex<String> = Mutex::new(String::new());
static BEGIN: Once = Once::new();

struct Writer;

impl Write for Writer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        LINES.lock().push_str(&String::from_utf8_lossy(bytes));
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Keeps what is logged from now on, of all tests of this process.
pub fn keep() {
    BEGIN.call_once(|| {
        let writer = Arc::new(|| Writer);
        tracing_subscriber::fmt()
            .with_max_level(Level::INFO)
            .with_ansi(false)
            .with_writer(move || writer())
            .init();
    });
}

/// Whether one line at this level has all these words.
pub fn has(level: Level, words: &[&str]) -> bool {
    let lines = LINES.lock();
    let level = format!(" {level} ");
    lines.lines().any(|line| line.contains(&level) && words.iter().all(|word| line.contains(word)))
}

/// The lines that have a word.
pub fn lines(word: &str) -> Vec<String> {
    LINES.lock().lines().filter(|line| line.contains(word)).map(str::to_owned).collect()
}
