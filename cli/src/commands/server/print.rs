//! `--print-config`: what counts, and who said it, as a file that says the same.

use super::fields::{FIELDS, Field, Kind};
use super::settings::http_default;
use super::sources::{Effective, Source};
use std::fmt::Write;

const HEAD: &str = "\
# What counts for this server: flags before environment before file before defaults.
# As a file (--config FILE) it says the same again. What nobody has set is commented out.
";
/// The column of the comments, where values leave room.
const COMMENTS_AT: usize = 40;

/// The configuration as TOML.
pub fn render(effective: &Effective) -> String {
    let mut page = HEAD.to_owned();
    let mut heading = "";
    for field in FIELDS {
        if field.heading != heading {
            heading = field.heading;
            let _ = write!(page, "\n# {heading}\n");
        }
        let (line, comment) = entry(field, effective);
        let _ = writeln!(page, "{line:<COMMENTS_AT$} # {comment}");
    }
    page
}

fn entry(field: &Field, effective: &Effective) -> (String, String) {
    let name = field.name;
    if let Some(said) = effective.get(name) {
        let by = match said.by {
            Source::Flag => format!("--{name}"),
            Source::Variable => field.variable(),
            _ => said.to_string(),
        };
        return (format!("{name} = {}", value(field, &said.text)), by);
    }
    if name == "http"
        && let Some(listen) = effective.get("listen")
    {
        let http = value(field, &http_default(&listen.text));
        return (format!("{name} = {http}"), "default: the port of listen, plus 1000".to_owned());
    }
    (format!("# {name} ="), "not set".to_owned())
}

fn value(field: &Field, text: &str) -> String {
    let quoted = |text: &str| toml::Value::String(text.to_owned()).to_string();
    match field.kind {
        Kind::Text => quoted(text),
        // As a file spells it: without leading zeros or signs, which other sources may have.
        Kind::Number => text.parse::<u64>().map_or_else(|_| quoted(text), |n| n.to_string()),
        Kind::Switch => text.to_owned(),
        Kind::List => {
            let items: Vec<String> = text.split(',').map(|item| quoted(item.trim())).collect();
            format!("[{}]", items.join(", "))
        }
    }
}
