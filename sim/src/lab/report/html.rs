//! A report as a page, and a page that lists reports.
//!
//! A page is one file: no scripts, no fonts, no pictures from elsewhere, and a policy inside it that
//! forbids the browser to fetch any. It is read from top to bottom: what was asked, the answer,
//! whether it is as expected, charts, the story of the first violation, numbers, how to repeat it.
//! Tags are written as XML has them, so that a test can see that every one is closed.

use super::chart::{self, Frame, SCALE, described};
use super::marker::{self, Shape};
use super::palette;
use super::{Chart, Finding, History, Report, Series, Style, Table};
use std::borrow::Cow;

/// The style sheet, but for the colours of charts.
pub(super) const STYLE: &str = include_str!("page.css");

/// The page of a report.
pub fn page(report: &Report) -> String {
    let mut body = String::new();
    body += &format!("<header>\n<p class=\"name\">meridian lab · {}</p>\n", escape(report.name));
    body += &format!("<h1>{}</h1>\n", escape(&report.title));
    body += &format!("<p class=\"question\">{}</p>\n", escape(report.question));
    body += &format!("{}</header>\n<main>\n", answer(report));
    body += &findings(report);
    body += &section("Charts", report.charts.iter().map(figure));
    body += &report.history.as_ref().map(story).unwrap_or_default();
    body += &section("Numbers", report.tables.iter().map(table));
    let paragraph = |note: &String| format!("<p>{}</p>\n", escape(note));
    body += &section("How to read this", report.notes.iter().map(paragraph));
    body += &repeat(report);
    body += "</main>\n";
    document(&report.title, &body)
}

/// A page that lists reports, each in the folder of its name beside it, and experiments that have
/// none: their names and why.
pub fn index(reports: &[&Report], failed: &[(&str, String)]) -> String {
    let holding = reports.iter().filter(|report| report.holds()).count();
    let all = reports.len() + failed.len();
    let mut body = String::from("<header>\n<p class=\"name\">meridian lab</p>\n");
    body += "<h1>The clock laboratory</h1>\n";
    body += "<p class=\"question\">What does a bound on a clock’s error buy, and what breaks \
             without it?</p>\n";
    body += &format!(
        "<p class=\"answer\">{holding} of {all} experiments found what was expected.</p>\n\
         </header>\n<main>\n"
    );
    for report in reports {
        body += &format!(
            "<section>\n<h2><a href=\"{0}/report.html\">{1}</a></h2>\n\
             <p class=\"question\">{2}</p>\n{3}{4}</section>\n",
            escape(report.name),
            escape(&report.title),
            escape(report.question),
            answer(report),
            findings_table(&report.findings),
        );
    }
    for (name, why) in failed {
        body += &format!(
            "<section>\n<h2>{}</h2>\n<p class=\"verdict fails\">✗ did not run to its end: {}</p>\n\
             </section>\n",
            escape(name),
            escape(why)
        );
    }
    body += "</main>\n";
    document("The clock laboratory", &body)
}

fn document(title: &str, body: &str) -> String {
    format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\"/>\n\
         <meta http-equiv=\"Content-Security-Policy\" \
         content=\"default-src 'none'; style-src 'unsafe-inline'; img-src data:\"/>\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"/>\n\
         <meta name=\"color-scheme\" content=\"light dark\"/>\n\
         <link rel=\"icon\" href=\"data:,\"/>\n\
         <title>{} – meridian lab</title>\n<style>\n{STYLE}{}</style>\n</head>\n<body>\n{body}\
         </body>\n</html>\n",
        escape(title),
        palette::style_rules(SCALE)
    )
}

/// The answer; where a finding does not hold, with a word of caution.
fn answer(report: &Report) -> String {
    let caution = "<p class=\"fails\">✗ Not every finding is as expected. If they were, the answer \
                   would be:</p>\n";
    let caution = if report.holds() { "" } else { caution };
    format!("{caution}<p class=\"answer\">{}</p>\n", escape(&report.summary))
}

fn section(title: &str, parts: impl Iterator<Item = String>) -> String {
    let inside: String = parts.collect();
    if inside.is_empty() {
        return inside;
    }
    format!("<section>\n<h2>{title}</h2>\n{inside}</section>\n")
}

fn findings(report: &Report) -> String {
    let broken = report.findings.iter().filter(|finding| !finding.holds).count();
    let (class, verdict) = match (report.findings.len(), broken) {
        (0, _) => ("fails", "✗ Nothing was measured.".to_string()),
        (1, 0) => ("holds", "✓ What was measured is what was expected.".to_string()),
        (all, 0) => ("holds", format!("✓ All {all} findings are as expected.")),
        (all, broken) => ("fails", format!("✗ {broken} of {all} findings are not as expected.")),
    };
    let table = findings_table(&report.findings);
    format!(
        "<section>\n<h2>Findings</h2>\n<p class=\"verdict {class}\">{verdict}</p>\n{table}\
         </section>\n"
    )
}

fn findings_table(findings: &[Finding]) -> String {
    let mut rows = String::new();
    for Finding { what, measured, expected, holds } in findings {
        let (class, sign, word) =
            if *holds { ("holds", "✓", "holds") } else { ("fails", "✗", "does not hold") };
        rows += &format!(
            "<tr><th scope=\"row\">{}</th><td data-label=\"measured\">{}</td>\
             <td data-label=\"expected\">{}</td>\
             <td data-label=\"\" class=\"{class}\">{sign} {word}</td></tr>\n",
            escape(what),
            escape(measured),
            escape(expected)
        );
    }
    format!(
        "<table class=\"findings\">\n<thead><tr><th scope=\"col\">what</th>\
         <th scope=\"col\">measured</th><th scope=\"col\">expected</th>\
         <th scope=\"col\">holds?</th></tr></thead>\n<tbody>\n{rows}</tbody>\n</table>\n"
    )
}

fn figure(chart: &Chart) -> String {
    let label = label(chart);
    let drawings: String =
        Frame::ALL.iter().map(|frame| chart::svg(chart, *frame, &label)).collect();
    let mut caption = format!("<strong>{}</strong>", escape(&chart.title));
    if !chart.caption.is_empty() {
        caption += &format!(" {}", escape(&chart.caption));
    }
    let colours = palette::colours(&chart.series).into_iter().map(palette::hex);
    let looks = colours.zip(marker::shapes(&chart.series));
    let entry = |(series, (colour, shape)): (&Series, (String, Option<Shape>))| {
        let swatch = swatch(&colour, series.style, shape);
        format!("<li>{swatch}{}</li>\n", escape(&series.name))
    };
    let legend: String = chart.series.iter().zip(looks).map(entry).collect();
    let legend =
        if legend.is_empty() { legend } else { format!("<ul class=\"legend\">\n{legend}</ul>\n") };
    format!(
        "<figure>\n<figcaption>{caption}</figcaption>\n{legend}<div class=\"chart\">{drawings}\
         </div>\n</figure>\n"
    )
}

/// A chart in words: what it shows, and between which values.
fn label(chart: &Chart) -> String {
    let series: Vec<String> = chart.series.iter().map(range_of).collect();
    let mut words = format!(
        "Chart: {}. {} over {}. {}.",
        chart.title,
        described(&chart.y),
        described(&chart.x),
        series.join("; ")
    );
    let marks: Vec<String> =
        chart.marks.iter().map(|mark| format!("{} at {:.3}", mark.label, mark.x)).collect();
    if !marks.is_empty() {
        words += &format!(" Marked: {}.", marks.join(", "));
    }
    words
}

fn range_of(series: &Series) -> String {
    let heights = series.points.iter().map(|point| point.1).filter(|y| y.is_finite());
    let (low, high) = heights.fold((f64::MAX, f64::MIN), |(l, h), y| (l.min(y), h.max(y)));
    if low > high {
        return format!("{}: nothing", series.name);
    }
    format!("{}: between {low:.3} and {high:.3}", series.name)
}

/// A small drawing of how a series is drawn; as large as the charts, so that dashes are as long.
fn swatch(colour: &str, style: Style, shape: Option<Shape>) -> String {
    let stroke = format!("stroke=\"{colour}\" stroke-width=\"8\" fill=\"none\"");
    let line = match style {
        Style::Points => String::new(),
        Style::Line | Style::Dashed => format!("<polyline points=\"4,30 108,30\" {stroke}/>"),
        Style::Step => format!("<polyline points=\"4,48 56,48 56,30 56,12 108,12\" {stroke}/>"),
        Style::Area => format!(
            "<rect x=\"4\" y=\"30\" width=\"104\" height=\"26\" fill=\"{colour}\" \
             opacity=\"0.3\"/><polyline points=\"4,30 108,30\" {stroke}/>"
        ),
    };
    let corners = shape.map_or(&[][..], Shape::corners);
    let corners: Vec<String> =
        corners.iter().map(|(x, y)| format!("{},{}", 56.0 + 16.0 * x, 30.0 + 16.0 * y)).collect();
    let mark = match (shape, corners.as_slice()) {
        (None, _) => String::new(),
        (Some(Shape::Cross), [a, b, c, d]) => {
            format!("<path d=\"M{a} L{b} M{c} L{d}\" {stroke}/>")
        }
        (_, []) => format!("<circle cx=\"56\" cy=\"30\" r=\"16\" fill=\"{colour}\"/>"),
        (_, corners) => {
            format!("<polygon points=\"{}\" fill=\"{colour}\"/>", corners.join(" "))
        }
    };
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" class=\"swatch\" aria-hidden=\"true\" \
         viewBox=\"0 0 112 60\">{line}{mark}</svg>"
    )
}

fn story(History { title, lines }: &History) -> String {
    // Each line is a block: what is too long for the page goes on below, indented.
    let block = |line: &String| format!("<span class=\"line\">{}\n</span>", escape(line));
    format!(
        "<section>\n<h2>{}</h2>\n<pre tabindex=\"0\">{}</pre>\n</section>\n",
        escape(title),
        lines.iter().map(block).collect::<String>()
    )
}

fn table(Table { title, columns, rows }: &Table) -> String {
    // A column is one of numbers when every cell that says something is a number.
    let says_number =
        |row: &Vec<String>, place: usize| !says(&row[place]) || is_number(&row[place]);
    let is_numeric = |place: usize| {
        rows.iter().any(|row| says(&row[place])) && rows.iter().all(|row| says_number(row, place))
    };
    let classes: Vec<&str> = (0..columns.len())
        .map(|place| {
            let is_long = rows.iter().any(|row| row[place].chars().count() > LONG);
            match (is_numeric(place), is_long) {
                (_, true) => " class=\"long\"",
                (true, false) => " class=\"number\"",
                (false, false) => "",
            }
        })
        .collect();
    let heading = |(column, class): (&String, &&str)| {
        format!("<th scope=\"col\"{class}>{}</th>", escape(column))
    };
    let headings: String = columns.iter().zip(&classes).map(heading).collect();
    let cell = |(text, class): (&String, &&str)| format!("<td{class}>{}</td>", escape(text));
    let row = |row: &Vec<String>| {
        format!("<tr>{}</tr>\n", row.iter().zip(&classes).map(cell).collect::<String>())
    };
    let rows: String = rows.iter().map(row).collect();
    format!(
        "<div class=\"scroll\" tabindex=\"0\" role=\"region\" aria-label=\"{0}\">\n\
         <table>\n<caption>{0}</caption>\n<thead><tr>{headings}</tr></thead>\n\
         <tbody>\n{rows}</tbody>\n</table>\n</div>\n",
        escape(title)
    )
}

/// Letters from which on a cell may take several lines.
const LONG: usize = 28;

/// Whether a cell holds more than a sign for nothing.
fn says(text: &str) -> bool {
    text.chars().any(char::is_alphanumeric)
}

/// Whether a cell is a number, with a unit perhaps.
fn is_number(text: &str) -> bool {
    let digits = text.trim_start_matches(['-', '+', '−', '±', '<', '≥', '≤', ' ']);
    digits.starts_with(|c: char| c.is_ascii_digit()) && text.split_whitespace().count() <= 2
}

fn repeat(report: &Report) -> String {
    let mut rows = format!(
        "<tr><th scope=\"row\"><code>--seed</code></th><td class=\"number\">{}</td><td></td>\
         <td class=\"long\">what all random choices come from</td></tr>\n",
        report.seed
    );
    for chosen in &report.parameters {
        rows += &format!(
            "<tr><th scope=\"row\"><code>{}</code></th><td class=\"number\">{}</td><td>{}</td>\
             <td class=\"long\">{}</td></tr>\n",
            escape(chosen.name),
            chosen.value,
            escape(chosen.unit),
            escape(chosen.what)
        );
    }
    format!(
        "<section>\n<h2>Repeat it</h2>\n\
         <p>The same command gives the same report, number for number. The points of the charts \
         are in <a href=\"data.csv\">data.csv</a>, the parameters in \
         <a href=\"parameters.json\">parameters.json</a>.</p>\n<pre tabindex=\"0\">{}</pre>\n\
         <div class=\"scroll\" tabindex=\"0\" role=\"region\" aria-label=\"Parameters\">\n\
         <table>\n<thead><tr><th scope=\"col\">parameter</th><th scope=\"col\" class=\"number\">value</th>\
         <th scope=\"col\">unit</th><th scope=\"col\">what it is</th></tr></thead>\n<tbody>\n{rows}\
         </tbody>\n</table>\n</div>\n</section>\n",
        escape(&report.command)
    )
}

/// Text as HTML and SVG have it, in and between tags. What a browser would not take is replaced.
pub fn escape(text: &str) -> Cow<'_, str> {
    let is_special = |c: char| matches!(c, '&' | '<' | '>' | '"' | '\'') || is_forbidden(c);
    if !text.contains(is_special) {
        return Cow::Borrowed(text);
    }
    let mut escaped = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            c if is_forbidden(c) => escaped.push('\u{FFFD}'),
            c => escaped.push(c),
        }
    }
    Cow::Owned(escaped)
}

/// Text that is escaped elsewhere: only what a browser would not take is replaced, and lines become
/// one.
pub fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{FFFD}' } else { c }).collect()
}

fn is_forbidden(c: char) -> bool {
    c.is_control() && !matches!(c, '\n' | '\t')
}

#[cfg(test)]
pub(super) mod check;
#[cfg(test)]
mod tests;
