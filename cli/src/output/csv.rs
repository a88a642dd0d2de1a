//! Results as CSV.

use super::Heading;
use sql::Value;
use std::io::{self, Write};

/// The names of the columns.
pub fn write_header(out: &mut dyn Write, headings: &[Heading]) -> io::Result<()> {
    write_line(out, headings.iter().map(|heading| Some(heading.name.clone())))
}

/// A row.
pub fn write_row(out: &mut dyn Write, row: &[Value]) -> io::Result<()> {
    write_line(out, row.iter().map(|value| (!value.is_null()).then(|| value.to_string())))
}

/// Cells; `None` is NULL, which no quotes tell from an empty text.
fn write_line(out: &mut dyn Write, cells: impl Iterator<Item = Option<String>>) -> io::Result<()> {
    for (place, cell) in cells.enumerate() {
        if place > 0 {
            out.write_all(b",")?;
        }
        let Some(cell) = cell else { continue };
        if cell.is_empty() || cell.contains([',', '"', '\n', '\r']) {
            write!(out, "\"{}\"", cell.replace('"', "\"\""))?;
        } else {
            out.write_all(cell.as_bytes())?;
        }
    }
    out.write_all(b"\n")
}
