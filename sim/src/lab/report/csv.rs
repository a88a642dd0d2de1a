//! Points and cells as CSV, in long form: one line each, so that any tool can filter them.

use super::Report;
use ::csv::Writer;

/// Columns of [`points`].
pub const POINT_COLUMNS: [&str; 6] = ["chart", "series", "x", "x_unit", "y", "y_unit"];

/// Columns of [`cells`].
pub const CELL_COLUMNS: [&str; 4] = ["table", "row", "column", "value"];

/// Every point of every chart, none left out. A gap is a line with an empty `y`. Numbers are the
/// shortest that are read back as the same.
pub fn points(report: &Report) -> String {
    let lines = report.charts.iter().flat_map(|chart| {
        chart.series.iter().flat_map(move |series| {
            series.points.iter().map(move |(x, y)| {
                let (title, name) = (chart.title.clone(), series.name.clone());
                let (x, y) = (number(*x), number(*y));
                [title, name, x, chart.x.unit.clone(), y, chart.y.unit.clone()]
            })
        })
    });
    write(POINT_COLUMNS, lines)
}

/// Every cell of every table; rows count from 1.
pub fn cells(report: &Report) -> String {
    let lines = report.tables.iter().flat_map(|table| {
        table.rows.iter().enumerate().flat_map(move |(row, cells)| {
            table.columns.iter().zip(cells).map(move |(column, cell)| {
                [table.title.clone(), (row + 1).to_string(), column.clone(), cell.clone()]
            })
        })
    });
    write(CELL_COLUMNS, lines)
}

fn number(value: f64) -> String {
    if value.is_finite() { value.to_string() } else { String::new() }
}

fn write<const N: usize>(header: [&str; N], lines: impl Iterator<Item = [String; N]>) -> String {
    let mut writer = Writer::from_writer(Vec::new());
    // Memory takes everything, and every line has N fields.
    writer.write_record(header).expect("a line in memory");
    for line in lines {
        writer.write_record(&line).expect("a line in memory");
    }
    let bytes = writer.into_inner().expect("lines in memory");
    String::from_utf8(bytes).expect("texts are UTF-8")
}

#[cfg(test)]
mod tests {
    use super::super::{Axis, Chart, Style, Table, sample};
    use super::*;
    use ::csv::Reader;

    fn read(text: &str) -> Vec<Vec<String>> {
        let mut reader = Reader::from_reader(text.as_bytes());
        let line = |line: Result<::csv::StringRecord, _>| {
            line.unwrap().iter().map(str::to_string).collect()
        };
        reader.records().map(line).collect()
    }

    #[test]
    fn points_are_read_back_as_they_were() {
        let mut report = sample();
        report.charts.clear();
        let measured = vec![(0.1 + 0.2, 1e-9), (1.0, f64::NAN), (2.0, -4.0e15), (3.0, 1.0 / 3.0)];
        let axes = (Axis::new("time", "s"), Axis::new("ε", "ms"));
        let chart = Chart::new("a, \"b\"\nc", axes.0, axes.1);
        report.draw(chart.series("x,y", Style::Line, measured.clone()));
        let text = points(&report);
        assert!(text.starts_with("chart,series,x,x_unit,y,y_unit\n"));
        let lines = read(&text);
        assert_eq!(lines.len(), measured.len());
        for (line, (x, y)) in lines.iter().zip(&measured) {
            assert_eq!((line[0].as_str(), line[1].as_str()), ("a, \"b\"\nc", "x,y"));
            assert_eq!((line[3].as_str(), line[5].as_str()), ("s", "ms"));
            assert_eq!(line[2].parse::<f64>().unwrap(), *x);
            if y.is_nan() {
                assert_eq!(line[4], "");
            } else {
                assert_eq!(line[4].parse::<f64>().unwrap(), *y);
            }
        }
    }

    #[test]
    fn cells_name_their_row_and_column() {
        let mut report = sample();
        report.tables.clear();
        let mut table = Table::new("t", &["ε (ms)", "n"]);
        table.row(vec!["1".into(), "many, many".into()]);
        table.row(vec!["2".into(), "".into()]);
        report.tabulate(table);
        let lines = read(&cells(&report));
        assert_eq!(lines.len(), 4);
        assert_eq!(lines[1], ["t", "1", "n", "many, many"]);
        assert_eq!(lines[2], ["t", "2", "ε (ms)", "2"]);
    }
}
