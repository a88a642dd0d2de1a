//! Results, printed: aligned tables, CSV, JSON.
//!
//! | format | a row | NULL | the rest |
//! |---|---|---|---|
//! | `table` | a line, columns aligned | `NULL` | text as [`sql::Value`] prints it, control characters escaped |
//! | `csv` | a line, behind a header line | an empty cell | an empty text is `""` |
//! | `json` | a line: one object | `null` | numbers and booleans as such, all others as texts |
//!
//! Rows are printed as they come. Only a table needs to see some before it can align them: it
//! collects a page of [`PAGE_ROWS`], and later pages are at least as wide.

mod csv;
mod json;
pub mod short;
mod table;

use clap::ValueEnum;
use sql::{Row, Type};
use std::io::{self, Write};

/// How results are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// Aligned columns.
    Table,
    /// A header and a line for each row.
    Csv,
    /// One object for each row, each on its own line (JSON lines).
    Json,
}

/// A column of a result.
#[derive(Clone, Debug)]
pub struct Heading {
    /// Its name.
    pub name: String,
    /// Whether it is aligned to the right.
    pub is_number: bool,
}

impl Heading {
    /// A column of a type.
    pub fn new(name: impl Into<String>, data_type: Type) -> Heading {
        let is_number = matches!(data_type, Type::Int64 | Type::Float64);
        Heading { name: name.into(), is_number }
    }
}

/// Rows that a table aligns together.
pub const PAGE_ROWS: usize = 1_000;

/// Prints one result.
pub struct Printer<'w> {
    out: &'w mut (dyn Write + Send),
    format: Format,
    headings: Vec<Heading>,
    /// Rows of a table that are not aligned yet.
    page: Vec<Row>,
    /// Of the table so far.
    widths: Vec<u16>,
    rows: u64,
}

impl<'w> Printer<'w> {
    /// A printer of rows with these columns.
    ///
    /// # Errors
    /// When nobody takes the output.
    pub fn new(
        out: &'w mut (dyn Write + Send),
        format: Format,
        headings: Vec<Heading>,
    ) -> io::Result<Self> {
        if format == Format::Csv {
            csv::write_header(out, &headings)?;
        }
        Ok(Printer { out, format, headings, page: Vec::new(), widths: Vec::new(), rows: 0 })
    }

    /// Prints a row, or keeps it for the page.
    ///
    /// # Errors
    /// When nobody takes the output.
    pub fn row(&mut self, row: Row) -> io::Result<()> {
        self.rows += 1;
        match self.format {
            Format::Csv => csv::write_row(self.out, &row),
            Format::Json => json::write_row(self.out, &self.headings, &row),
            Format::Table => {
                self.page.push(row);
                if self.page.len() == PAGE_ROWS { self.write_page() } else { Ok(()) }
            }
        }
    }

    /// Prints what is left, and says how many rows there were.
    ///
    /// # Errors
    /// When nobody takes the output.
    pub fn end(mut self) -> io::Result<u64> {
        let nothing_printed = self.widths.is_empty();
        if self.format == Format::Table && (nothing_printed || !self.page.is_empty()) {
            self.write_page()?;
        }
        self.out.flush()?;
        Ok(self.rows)
    }

    fn write_page(&mut self) -> io::Result<()> {
        table::write_page(self.out, &self.headings, &self.page, &mut self.widths)?;
        self.page.clear();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sql::Value;

    fn print(format: Format, rows: Vec<Row>) -> String {
        let mut out = Vec::new();
        let headings =
            vec![Heading::new("name", Type::String(None)), Heading::new("n", Type::Int64)];
        let mut printer = Printer::new(&mut out, format, headings).unwrap();
        for row in rows {
            printer.row(row).unwrap();
        }
        printer.end().unwrap();
        String::from_utf8(out).unwrap()
    }

    fn rows() -> Vec<Row> {
        vec![
            vec!["a, \"b\"\n".into(), 7.into()],
            vec!["".into(), Value::Null],
            vec![Value::Null, 1_000.into()],
        ]
    }

    #[test]
    fn tables_are_aligned() {
        let wanted = [
            " name     |    n",
            "----------+------",
            " a, \"b\"\\n |    7",
            "          | NULL",
            " NULL     | 1000",
            "",
        ];
        assert_eq!(print(Format::Table, rows()), wanted.join("\n"));
        assert_eq!(print(Format::Table, vec![]), " name | n\n------+---\n");
    }

    #[test]
    fn long_tables_have_one_header() {
        let many: Vec<Row> = (0..2_500).map(|n| vec!["x".into(), i64::from(n).into()]).collect();
        let text = print(Format::Table, many);
        assert_eq!(text.lines().count(), 2_502);
        assert_eq!(text.matches("name").count(), 1);
    }

    #[test]
    fn csv_tells_null_from_an_empty_text() {
        assert_eq!(print(Format::Csv, rows()), "name,n\n\"a, \"\"b\"\"\n\",7\n\"\",\n,1000\n");
    }

    #[test]
    fn json_is_one_object_a_line() {
        let wanted = "{\"name\":\"a, \\\"b\\\"\\n\",\"n\":7}\n\
                      {\"name\":\"\",\"n\":null}\n\
                      {\"name\":null,\"n\":1000}\n";
        assert_eq!(print(Format::Json, rows()), wanted);
    }
}
