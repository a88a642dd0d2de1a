//! What an experiment found out.
//!
//! A [`Report`] is data: an experiment fills it, and everything a person or a program sees is made
//! from it: the table on the terminal, and the files.
//!
//! - [`html`]: the page, with charts as SVG (`chart`, in the colours of `palette` and the shapes of
//!   `marker`, of points that `downsample` leaves).
//! - [`csv`]: the points of the charts and the cells of the tables. [`json`]: the parameters and
//!   the findings.
//! - [`files`]: all of these in a folder, each whole or not at all.

mod chart;
pub mod csv;
mod downsample;
pub mod files;
pub mod html;
pub mod json;
mod marker;
mod palette;

use super::{Experiment, Setup};

/// The answer to an experiment's question, with what it rests on.
#[derive(Clone, Debug, PartialEq)]
pub struct Report {
    /// The experiment, as on the command line.
    pub name: &'static str,
    /// What the report is about, in a few words.
    pub title: String,
    /// What was asked.
    pub question: &'static str,
    /// The answer, in one or two sentences with the numbers that matter.
    pub summary: String,
    /// What all random choices came from.
    pub seed: u64,
    /// What was chosen, in the order of the experiment.
    pub parameters: Vec<Chosen>,
    /// What was measured beside what was expected.
    pub findings: Vec<Finding>,
    /// Drawings of it.
    pub charts: Vec<Chart>,
    /// Numbers of it.
    pub tables: Vec<Table>,
    /// What a reader must know to read all this, a paragraph each.
    pub notes: Vec<String>,
    /// What happened, told as a sequence, when one case says more than numbers.
    pub history: Option<History>,
    /// The command that repeats the run exactly.
    pub command: String,
}

/// A parameter, and the value it had.
#[derive(Clone, Debug, PartialEq)]
pub struct Chosen {
    /// The name of the parameter.
    pub name: &'static str,
    /// Its value, in `unit`.
    pub value: f64,
    /// The unit, or nothing for a plain number.
    pub unit: &'static str,
    /// What it is.
    pub what: &'static str,
}

/// A sentence that can be wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// What is measured: "mean ε between polls".
    pub what: String,
    /// What it was, with its unit.
    pub measured: String,
    /// What it must be: "4 ms, within 5 %", "none", "at least one".
    pub expected: String,
    /// Whether it is.
    pub holds: bool,
}

/// A drawing of series over one pair of axes.
#[derive(Clone, Debug, PartialEq)]
pub struct Chart {
    /// What is drawn, unique within a report.
    pub title: String,
    /// What to look at; may be empty.
    pub caption: String,
    /// To the right.
    pub x: Axis,
    /// Upwards.
    pub y: Axis,
    /// What is drawn, in the order of drawing.
    pub series: Vec<Series>,
    /// Moments worth a line of their own.
    pub marks: Vec<Mark>,
}

/// A direction of a chart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Axis {
    /// What is measured.
    pub label: String,
    /// In which unit; may be empty.
    pub unit: String,
}

/// Points of one kind.
#[derive(Clone, Debug, PartialEq)]
pub struct Series {
    /// What they are, unique within a chart.
    pub name: String,
    /// How they are drawn.
    pub style: Style,
    /// Where they are. For all styles but [`Style::Points`] with `x` ascending. Points that are
    /// not finite are gaps.
    pub points: Vec<(f64, f64)>,
}

/// How a series is drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    /// Joined by straight lines: what was measured.
    Line,
    /// The same, dashed: what was predicted.
    Dashed,
    /// Not joined.
    Points,
    /// Joined, and filled down to zero.
    Area,
    /// Each value lasts until the next.
    Step,
}

/// A moment, or a threshold, on the x axis.
#[derive(Clone, Debug, PartialEq)]
pub struct Mark {
    /// Where.
    pub x: f64,
    /// What: a word or three.
    pub label: String,
}

/// Numbers in rows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Table {
    /// What the table holds, unique within a report.
    pub title: String,
    /// Headings, with units.
    pub columns: Vec<String>,
    /// Rows with as many cells as there are columns.
    pub rows: Vec<Vec<String>>,
}

/// A sequence of events: the first violation, who did what at which absolute time and interval.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct History {
    /// What happened.
    pub title: String,
    /// How, line by line, aligned with blanks.
    pub lines: Vec<String>,
}

impl Report {
    /// An empty report of a run of `experiment` with `setup`: it knows how to repeat it.
    pub fn new(experiment: &dyn Experiment, title: impl Into<String>, setup: &Setup) -> Report {
        let chosen = |(parameter, value): (&super::Parameter, f64)| Chosen {
            name: parameter.name,
            value,
            unit: parameter.unit,
            what: parameter.what,
        };
        Report {
            name: experiment.name(),
            title: title.into(),
            question: experiment.question(),
            summary: String::new(),
            seed: setup.seed(),
            parameters: setup.values().map(chosen).collect(),
            findings: Vec::new(),
            charts: Vec::new(),
            tables: Vec::new(),
            notes: Vec::new(),
            history: None,
            command: command(experiment.name(), setup),
        }
    }

    /// Says the answer in one or two sentences.
    pub fn summarize(&mut self, text: impl Into<String>) {
        self.summary = text.into();
    }

    /// Adds a finding.
    pub fn find(
        &mut self,
        what: impl Into<String>,
        measured: impl Into<String>,
        expected: impl Into<String>,
        holds: bool,
    ) {
        let (what, measured, expected) = (what.into(), measured.into(), expected.into());
        self.findings.push(Finding { what, measured, expected, holds });
    }

    /// Adds a chart.
    ///
    /// # Panics
    /// When a chart of that title is there, or two of its series have one name.
    pub fn draw(&mut self, chart: Chart) {
        let title = &chart.title;
        assert!(self.charts.iter().all(|other| other.title != *title), "two charts: {title}");
        for (place, series) in chart.series.iter().enumerate() {
            let is_new = chart.series[..place].iter().all(|other| other.name != series.name);
            assert!(is_new, "{title}: two series are called {}", series.name);
        }
        self.charts.push(chart);
    }

    /// Adds a table.
    ///
    /// # Panics
    /// When a table of that title is there.
    pub fn tabulate(&mut self, table: Table) {
        let title = &table.title;
        assert!(self.tables.iter().all(|other| other.title != *title), "two tables: {title}");
        self.tables.push(table);
    }

    /// Adds a paragraph for the reader.
    pub fn note(&mut self, text: impl Into<String>) {
        self.notes.push(text.into());
    }

    /// Tells what happened, line by line.
    pub fn tell(&mut self, title: impl Into<String>, lines: Vec<String>) {
        self.history = Some(History { title: title.into(), lines });
    }

    /// Whether every finding holds. A report that found nothing holds nothing.
    pub fn holds(&self) -> bool {
        !self.findings.is_empty() && self.findings.iter().all(|finding| finding.holds)
    }
}

impl Axis {
    /// An axis. The unit may be empty.
    pub fn new(label: impl Into<String>, unit: impl Into<String>) -> Axis {
        Axis { label: label.into(), unit: unit.into() }
    }
}

impl Chart {
    /// A chart without series.
    pub fn new(title: impl Into<String>, x: Axis, y: Axis) -> Chart {
        let title = title.into();
        Chart { title, caption: String::new(), x, y, series: Vec::new(), marks: Vec::new() }
    }

    /// The same, saying what to look at.
    pub fn caption(mut self, text: impl Into<String>) -> Chart {
        self.caption = text.into();
        self
    }

    /// The same with one more series.
    pub fn series(
        mut self,
        name: impl Into<String>,
        style: Style,
        points: Vec<(f64, f64)>,
    ) -> Chart {
        self.series.push(Series { name: name.into(), style, points });
        self
    }

    /// The same with one more mark.
    pub fn mark(mut self, x: f64, label: impl Into<String>) -> Chart {
        self.marks.push(Mark { x, label: label.into() });
        self
    }
}

impl Table {
    /// A table without rows.
    pub fn new(title: impl Into<String>, columns: &[&str]) -> Table {
        let columns = columns.iter().map(|column| column.to_string()).collect();
        Table { title: title.into(), columns, rows: Vec::new() }
    }

    /// Adds a row.
    ///
    /// # Panics
    /// When it has not as many cells as there are columns.
    pub fn row(&mut self, cells: Vec<String>) {
        assert_eq!(cells.len(), self.columns.len(), "a cell for each column of {}", self.title);
        self.rows.push(cells);
    }
}

/// What to type to get the same report again: what differs from the defaults is said.
fn command(name: &str, setup: &Setup) -> String {
    let mut command = format!("meridian lab run {name} --seed {}", setup.seed());
    for (parameter, value) in
        setup.values().filter(|(parameter, value)| *value != parameter.default)
    {
        command.push_str(&format!(" --set {}={value}", parameter.name));
    }
    command
}

/// A number as people write it, with so many decimals: `12,500`, `0.25`. For findings, tables and
/// sentences; axes use it too.
pub fn number(value: f64, decimals: usize) -> String {
    let text = format!("{value:.decimals$}");
    let (sign, digits) = text.strip_prefix('-').map_or(("", text.as_str()), |rest| ("-", rest));
    let (whole, fraction) = digits.split_at(digits.find('.').unwrap_or(digits.len()));
    let mut grouped = String::new();
    for (place, digit) in whole.chars().enumerate() {
        if place > 0 && (whole.len() - place) % 3 == 0 {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    let is_zero = text.chars().all(|c| !c.is_ascii_digit() || c == '0');
    format!("{}{grouped}{fraction}", if is_zero { "" } else { sign })
}

/// A report with some of everything.
#[cfg(test)]
fn sample() -> Report {
    use super::{LabError, Parameter, Progress};

    struct Sample;

    impl Experiment for Sample {
        fn name(&self) -> &'static str {
            "sample"
        }

        fn question(&self) -> &'static str {
            "How uncertain is a clock between two polls?"
        }

        fn parameters(&self) -> &'static [Parameter] {
            const PARAMETERS: &[Parameter] = &[
                Parameter::measure("poll", "s", 30.0, (1.0, 600.0), "time between two polls"),
                Parameter::count("transactions", "", 100, (1, 1_000), "how many are run"),
            ];
            PARAMETERS
        }

        fn run(&self, setup: &Setup, _: &dyn Progress) -> Result<Report, LabError> {
            let mut report = Report::new(self, "ε between polls", setup);
            report.summarize("ε rises from 1 ms to 7 ms between polls; its mean is 4.0 ms.");
            report.find("mean ε", "4.0 ms", "4 ms, within 5 %", true);
            let (time, epsilon) = (Axis::new("time", "s"), Axis::new("ε", "ms"));
            let saw = |n: u32| (f64::from(n) / 10.0, 1.0 + 0.02 * f64::from(n % 300));
            let chart = Chart::new("ε over time", time, epsilon)
                .caption("Each poll brings it down to half the round trip.")
                .series("measured", Style::Line, (0..1_500).map(saw).collect())
                .series("predicted", Style::Dashed, vec![(0.0, 4.0), (150.0, 4.0)])
                .mark(90.0, "masters lost");
            report.draw(chart);
            let mut table = Table::new("ε by quarter", &["quarter", "mean ε (ms)"]);
            table.row(vec!["first".into(), "3.98".into()]);
            report.tabulate(table);
            report.note("A bound grows by 200 µs in each second.");
            report.tell("What happened", vec!["  1.000 s  n1 writes".into()]);
            Ok(report)
        }
    }

    let overrides = [("poll".into(), "2.5".into())];
    let setup = Setup::new(Sample.parameters(), 7, &overrides).expect("poll is a parameter");
    super::run(&Sample, &setup, &super::Silent).expect("a report")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_knows_how_to_repeat_it() {
        let report = sample();
        assert_eq!(report.command, "meridian lab run sample --seed 7 --set poll=2.5");
        assert_eq!((report.parameters[0].value, report.parameters[1].value), (2.5, 100.0));
    }

    #[test]
    fn a_report_holds_when_all_findings_do() {
        let mut report = sample();
        assert!(report.holds());
        report.find("violations", "0", "at least 1", false);
        assert!(!report.holds());
        report.findings.clear();
        assert!(!report.holds(), "nothing found is nothing shown");
    }

    #[test]
    fn numbers_as_people_write_them() {
        assert_eq!(number(12_500.0, 0), "12,500");
        assert_eq!(number(1_234_567.5, 1), "1,234,567.5");
        assert_eq!(number(500.0, 0), "500");
        assert_eq!(number(-0.25, 2), "-0.25");
        assert_eq!(number(-0.0, 1), "0.0");
    }

    #[test]
    #[should_panic(expected = "two charts")]
    fn charts_are_told_apart() {
        let mut report = sample();
        let again = report.charts[0].clone();
        report.draw(again);
    }

    #[test]
    #[should_panic(expected = "a cell for each column")]
    fn rows_fit_their_table() {
        Table::new("t", &["a", "b"]).row(vec!["1".into()]);
    }
}
