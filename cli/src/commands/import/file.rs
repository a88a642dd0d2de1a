//! The file an import reads: plain or gzipped CSV, turned into rows of a table.

use crate::exit::Exit;
use flate2::bufread::MultiGzDecoder;
use sql::{Row, Type, Value};
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// A column of the table an import writes to.
#[derive(Clone, Debug)]
pub struct Target {
    /// As declared.
    pub name: String,
    /// Its type.
    pub data_type: Type,
    /// Whether the file must have it.
    pub required: bool,
    /// Whether every row must have a value for it.
    pub not_null: bool,
}

/// A CSV file whose columns are known to fit.
pub struct CsvFile {
    path: PathBuf,
    reader: csv::Reader<Box<dyn Read + Send>>,
    /// For each column of the file, the column of the table.
    columns: Vec<Target>,
    null: String,
    record: csv::StringRecord,
}

/// Bytes read of a file so far, and all it has.
#[derive(Clone, Debug)]
pub struct Progress {
    read: Arc<AtomicU64>,
    /// Size of the file.
    pub total: u64,
}

impl Progress {
    /// Bytes read so far.
    pub fn read(&self) -> u64 {
        self.read.load(Ordering::Relaxed)
    }
}

impl CsvFile {
    /// Opens a file and compares its header with the columns of the table.
    ///
    /// # Errors
    /// When it cannot be read, names a column that the table does not have, names one twice, or
    /// lacks one that is required.
    pub fn open(
        path: &Path,
        table: &str,
        targets: &[Target],
        null: String,
    ) -> Result<(CsvFile, Progress), Exit> {
        let shown = path.display();
        let unreadable = |error: &dyn std::fmt::Display| Exit::failed(format!("{shown}: {error}"));
        let file = File::open(path).map_err(|error| unreadable(&error))?;
        let metadata = file.metadata().map_err(|error| unreadable(&error))?;
        if metadata.is_dir() {
            return Err(unreadable(&"is a folder, not a file"));
        }
        let progress = Progress { read: Arc::default(), total: metadata.len() };
        let counted = Counted { file, read: progress.read.clone() };
        let mut buffered = BufReader::with_capacity(1 << 16, counted);
        let magic = buffered.fill_buf().map_err(|error| unreadable(&error))?;
        let gzipped = magic.starts_with(&[0x1f, 0x8b]);
        let source: Box<dyn Read + Send> =
            if gzipped { Box::new(MultiGzDecoder::new(buffered)) } else { Box::new(buffered) };
        let mut reader = csv::ReaderBuilder::new().from_reader(source);
        let header = reader.headers().map_err(|error| unreadable(&error))?.clone();
        if header.is_empty() {
            return Err(unreadable(&"is empty; its first line must name the columns"));
        }
        let columns = fit(&header, table, targets).map_err(|message| unreadable(&message))?;
        let record = csv::StringRecord::new();
        Ok((CsvFile { path: path.into(), reader, columns, null, record }, progress))
    }

    /// The columns of the file, as the table spells them.
    pub fn columns(&self) -> Vec<String> {
        self.columns.iter().map(|column| column.name.clone()).collect()
    }

    /// The next row; `None` at the end of the file.
    ///
    /// # Errors
    /// A message with the line and the column of the cell that does not fit.
    pub fn row(&mut self) -> Result<Option<Row>, String> {
        let shown = self.path.display().to_string();
        match self.reader.read_record(&mut self.record) {
            Ok(true) => {}
            Ok(false) => return Ok(None),
            Err(error) => return Err(describe(&shown, &error)),
        }
        let line = self.record.position().map_or(0, |position| position.line());
        let mut row = Vec::with_capacity(self.columns.len());
        for (cell, column) in self.record.iter().zip(&self.columns) {
            let value = self.cell(cell, column);
            row.push(
                value.map_err(|why| {
                    format!("{shown}, line {line}, column {}: {why}", column.name)
                })?,
            );
        }
        Ok(Some(row))
    }

    fn cell(&self, cell: &str, column: &Target) -> Result<Value, String> {
        if cell != self.null {
            return Value::parse(cell, &column.data_type).map_err(|error| error.message);
        }
        if column.not_null {
            return Err(match cell {
                "" => "is empty, which stands for NULL, and the column is NOT NULL".into(),
                text => format!("'{text}' stands for NULL, and the column is NOT NULL"),
            });
        }
        Ok(Value::Null)
    }
}

/// The table's column for each of the file's.
fn fit(header: &csv::StringRecord, table: &str, targets: &[Target]) -> Result<Vec<Target>, String> {
    let mut columns: Vec<Target> = Vec::new();
    let mut unknown = Vec::new();
    for name in header {
        // Spreadsheets put a byte order mark before the first name.
        let name = name.trim_start_matches('\u{feff}').trim();
        let same = |target: &&Target| target.name.to_lowercase() == name.to_lowercase();
        match targets.iter().find(same) {
            None => unknown.push(name.to_owned()),
            Some(target) if columns.iter().any(|column| column.name == target.name) => {
                return Err(format!("the header names column {name} twice"));
            }
            Some(target) => columns.push(target.clone()),
        }
    }
    if !unknown.is_empty() {
        let all: Vec<&str> = targets.iter().map(|target| &target.name[..]).collect();
        return Err(format!(
            "the header names {} that table {table} does not have: {}; it has {}",
            if unknown.len() == 1 { "a column" } else { "columns" },
            unknown.join(", "),
            all.join(", ")
        ));
    }
    let is_missing = |target: &&Target| {
        target.required && !columns.iter().any(|column| column.name == target.name)
    };
    let missing: Vec<&str> =
        targets.iter().filter(is_missing).map(|target| &target.name[..]).collect();
    match missing[..] {
        [] => Ok(columns),
        _ => Err(format!(
            "the header lacks {} of table {table} that every row needs: {}",
            if missing.len() == 1 { "a column" } else { "columns" },
            missing.join(", ")
        )),
    }
}

/// A record that is not one, in the words of this file.
fn describe(shown: &str, error: &csv::Error) -> String {
    let line = error.position().map_or(String::new(), |at| format!(", line {}", at.line()));
    match error.kind() {
        csv::ErrorKind::UnequalLengths { expected_len, len, .. } => {
            format!("{shown}{line}: {len} cells where the header names {expected_len}")
        }
        csv::ErrorKind::Utf8 { .. } => format!("{shown}{line}: the text is not UTF-8"),
        csv::ErrorKind::Io(error) => format!("{shown}: {error}"),
        _ => format!("{shown}{line}: {error}"),
    }
}

/// Counts what is read of the file itself, before it is unpacked.
struct Counted {
    file: File,
    read: Arc<AtomicU64>,
}

impl Read for Counted {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let bytes = self.file.read(buffer)?;
        self.read.fetch_add(bytes as u64, Ordering::Relaxed);
        Ok(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn targets() -> Vec<Target> {
        let column = |name: &str, data_type, required| Target {
            name: name.into(),
            data_type,
            required,
            not_null: required,
        };
        vec![
            column("Id", Type::Int64, true),
            column("name", Type::String(Some(3)), false),
            column("born", Type::Date, false),
        ]
    }

    fn header(line: &str) -> Result<Vec<String>, String> {
        let record = csv::StringRecord::from(line.split(',').collect::<Vec<_>>());
        let columns = fit(&record, "t", &targets())?;
        Ok(columns.into_iter().map(|column| column.name).collect())
    }

    #[test]
    fn headers_are_compared_with_the_table() {
        assert_eq!(header("NAME,\u{feff}id"), Ok(vec!["name".into(), "Id".into()]));
        assert!(
            header("id,nam").unwrap_err().contains("does not have: nam; it has Id, name, born")
        );
        assert!(header("name,born").unwrap_err().contains("every row needs: Id"));
        assert!(header("id,ID").unwrap_err().contains("twice"));
    }
}
