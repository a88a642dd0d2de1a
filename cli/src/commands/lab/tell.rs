//! What is said on the terminal.

use super::Ended;
use crate::exit::Exit;
use crate::output::{Format, Heading, Printer};
use sim::lab::report::Table;
use sim::lab::{self, Experiment, Parameter, Report};
use sql::{Type, Value};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Tables longer than this are for the page.
const ROWS_MAX: usize = 16;

/// Lines of a history that are printed.
const LINES_MAX: usize = 60;

/// Letters in a line of running text.
const WIDTH: usize = 100;

type Out<'o> = &'o mut (dyn Write + Send);

/// Prints all experiments, with their parameters if wanted.
pub fn list(out: Out<'_>, verbose: bool) -> Result<(), Exit> {
    if verbose {
        for (place, known) in lab::experiments().iter().enumerate() {
            if place > 0 {
                writeln!(out)?;
            }
            experiment(out, *known)?;
        }
        return Ok(());
    }
    let row =
        |known: &&dyn Experiment| vec![known.name().to_string(), known.question().to_string()];
    table(out, &["experiment", "question"], lab::experiments().iter().map(row))?;
    Ok(())
}

/// Prints an experiment and its parameters.
pub fn experiment(out: Out<'_>, known: &dyn Experiment) -> Result<(), Exit> {
    writeln!(out, "{}: {}", known.name(), known.question())?;
    if known.parameters().is_empty() {
        writeln!(out, "It has no parameters but --seed.")?;
        return Ok(());
    }
    let row = |parameter: &Parameter| {
        vec![
            parameter.name.to_string(),
            parameter.default.to_string(),
            format!("{} to {}", parameter.min, parameter.max),
            parameter.unit.to_string(),
            parameter.what.to_string(),
        ]
    };
    let columns = ["parameter", "default", "range", "unit", "what it is"];
    table(out, &columns, known.parameters().iter().map(row))?;
    Ok(())
}

/// Prints what an experiment found.
pub fn report(
    out: Out<'_>,
    report: &Report,
    written: &[PathBuf],
    took: Duration,
) -> Result<(), Exit> {
    writeln!(out, "{}", report.title)?;
    wrapped(out, report.question)?;
    writeln!(out)?;
    if !report.holds() {
        wrapped(out, "✗ Not every finding is as expected. If they were, the answer would be:")?;
    }
    wrapped(out, &report.summary)?;
    writeln!(out)?;
    findings(out, report)?;
    for Table { title, columns, rows } in &report.tables {
        writeln!(out, "\n{title}")?;
        if rows.len() > ROWS_MAX {
            writeln!(out, "{} rows: see the report", rows.len())?;
            continue;
        }
        let columns: Vec<&str> = columns.iter().map(String::as_str).collect();
        table(out, &columns, rows.iter().cloned())?;
    }
    if let Some(history) = &report.history {
        writeln!(out, "\n{}", history.title)?;
        for line in history.lines.iter().take(LINES_MAX) {
            writeln!(out, "  {line}")?;
        }
        if history.lines.len() > LINES_MAX {
            writeln!(out, "  … {} more lines in the report", history.lines.len() - LINES_MAX)?;
        }
    }
    writeln!(out)?;
    for (place, path) in written.iter().enumerate() {
        writeln!(out, "{:9} {}", if place == 0 { "written" } else { "" }, path.display())?;
    }
    writeln!(out, "{:9} {:.1} s", "took", took.as_secs_f64())?;
    writeln!(out, "{:9} {}", "again", report.command)?;
    Ok(())
}

/// Prints how all experiments ended.
pub fn summary(out: Out<'_>, ended: &[Ended], index: &Path, took: Duration) -> Result<(), Exit> {
    let row = |ended: &Ended| {
        let (verdict, findings, answer) = match &ended.result {
            Ok((report, _)) => {
                let holding = report.findings.iter().filter(|finding| finding.holds).count();
                let findings = format!("{holding} of {}", report.findings.len());
                (verdict(report.holds()), findings, report.title.clone())
            }
            Err(why) => ("✗ did not end", "–".into(), why.clone()),
        };
        let seconds = format!("{:.1}", ended.took.as_secs_f64());
        vec![ended.name.to_string(), verdict.to_string(), findings, seconds, answer]
    };
    let columns = ["experiment", "as expected?", "findings that hold", "seconds", "about"];
    table(out, &columns, ended.iter().map(row))?;
    for Ended { name, result, .. } in ended {
        let Ok((report, _)) = result else { continue };
        for finding in report.findings.iter().filter(|finding| !finding.holds) {
            let (measured, expected) = (&finding.measured, &finding.expected);
            writeln!(out, "✗ {name}: {}: {measured}; expected {expected}", finding.what)?;
        }
    }
    writeln!(out, "\nwritten   {}", index.display())?;
    writeln!(out, "took      {:.1} s", took.as_secs_f64())?;
    Ok(())
}

/// What is wrong with a report that does not hold.
pub fn broken(report: &Report) -> String {
    let broken = report.findings.iter().filter(|finding| !finding.holds).count();
    match (report.findings.len(), broken) {
        (0, _) => "nothing was measured".into(),
        (_, 1) => "one finding is not as expected".into(),
        (_, broken) => format!("{broken} findings are not as expected"),
    }
}

fn findings(out: Out<'_>, report: &Report) -> io::Result<()> {
    let row = |finding: &lab::report::Finding| {
        let (what, measured) = (finding.what.clone(), finding.measured.clone());
        vec![what, measured, finding.expected.clone(), verdict(finding.holds).to_string()]
    };
    table(out, &["what", "measured", "expected", "holds?"], report.findings.iter().map(row))
}

fn verdict(holds: bool) -> &'static str {
    if holds { "✓ yes" } else { "✗ NO" }
}

fn table(
    out: Out<'_>,
    columns: &[&str],
    rows: impl Iterator<Item = Vec<String>>,
) -> io::Result<()> {
    let rows: Vec<Vec<String>> = rows.collect();
    let is_number = |place: usize| {
        let digits = |row: &Vec<String>| row[place].replace(',', "").parse::<f64>().is_ok();
        !rows.is_empty() && rows.iter().all(digits)
    };
    let heading = |(place, name): (usize, &&str)| {
        Heading::new(*name, if is_number(place) { Type::Float64 } else { Type::String(None) })
    };
    let headings = columns.iter().enumerate().map(heading).collect();
    let mut printer = Printer::new(out, Format::Table, headings)?;
    for row in rows {
        printer.row(row.into_iter().map(Value::from).collect())?;
    }
    printer.end()?;
    Ok(())
}

fn wrapped(out: Out<'_>, text: &str) -> io::Result<()> {
    let mut width = 0;
    for (place, word) in text.split_whitespace().enumerate() {
        let letters = word.chars().count();
        if place > 0 && width + 1 + letters > WIDTH {
            writeln!(out)?;
            width = 0;
        } else if place > 0 {
            write!(out, " ")?;
            width += 1;
        }
        write!(out, "{word}")?;
        width += letters;
    }
    writeln!(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn running_text_is_wrapped_between_words() {
        let text = "word ".repeat(60);
        let mut out = Vec::new();
        wrapped(&mut out, &text).unwrap();
        let lines = String::from_utf8(out).unwrap();
        assert!(lines.lines().all(|line| line.len() <= WIDTH && line == line.trim()), "{lines}");
        assert_eq!(lines.split_whitespace().count(), 60);
    }

    #[test]
    fn every_experiment_is_listed_with_its_parameters() {
        for verbose in [false, true] {
            let mut out = Vec::new();
            list(&mut out, verbose).unwrap();
            let text = String::from_utf8(out).unwrap();
            for known in lab::experiments() {
                assert!(text.contains(known.name()) && text.contains(known.question()));
                for parameter in known.parameters().iter().filter(|_| verbose) {
                    assert!(text.contains(parameter.name) && text.contains(parameter.what));
                }
            }
        }
    }
}
