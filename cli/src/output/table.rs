//! Results as aligned tables.

use super::Heading;
use comfy_table::{
    CellAlignment, ColumnConstraint, ContentArrangement, ContentLineStyle, LineStyle, Table,
    TableStyle, Width,
};
use sql::Value;
use std::borrow::Cow;
use std::io::{self, Write};

/// No borders: a line below the header, a bar between columns.
const STYLE: TableStyle = TableStyle::new()
    .header_lines(ContentLineStyle::none().junction('|'))
    .header_separator(LineStyle::none().fill('-').junction('+'))
    .content_lines(ContentLineStyle::none().junction('|'));

/// Prints rows; the header too when these are the first. `widths` are those of earlier pages, and
/// grow.
pub fn write_page(
    out: &mut dyn Write,
    headings: &[Heading],
    rows: &[Vec<Value>],
    widths: &mut Vec<u16>,
) -> io::Result<()> {
    if headings.is_empty() {
        return Ok(());
    }
    let is_first = widths.is_empty();
    let mut table = Table::new();
    table.load_style(STYLE).set_content_arrangement(ContentArrangement::Disabled);
    if is_first {
        table.set_header(headings.iter().map(|heading| escape(&heading.name).into_owned()));
        widths.resize(headings.len(), 0);
    }
    for row in rows {
        table.add_row(row.iter().map(|value| escape(&value.to_string()).into_owned()));
    }
    let contents = table.column_max_content_widths();
    for (place, heading) in headings.iter().enumerate() {
        widths[place] = widths[place].max(contents.get(place).copied().unwrap_or(0));
        let Some(column) = table.column_mut(place) else { continue };
        if heading.is_number {
            column.set_cell_alignment(CellAlignment::Right);
        }
        // The two blanks around a cell count as its width here.
        let width = Width::Fixed(widths[place].saturating_add(2));
        column.set_constraint(ColumnConstraint::LowerBoundary(width));
    }
    for line in table.lines() {
        writeln!(out, "{}", line.trim_end())?;
    }
    Ok(())
}

/// One line per row, and nothing that a terminal would obey.
fn escape(text: &str) -> Cow<'_, str> {
    if !text.contains(char::is_control) {
        return Cow::Borrowed(text);
    }
    let escaped = text.chars().flat_map(|c| -> Box<dyn Iterator<Item = char>> {
        if c.is_control() { Box::new(c.escape_default()) } else { Box::new(std::iter::once(c)) }
    });
    Cow::Owned(escaped.collect())
}
