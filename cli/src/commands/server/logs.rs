//! The log of a server: one line for each event, on standard error.
//!
//! ```text
//! 2026-11-21T23:41:07.123456Z  INFO n1 cluster::server: listening on 127.0.0.1:7101
//! {"time":"2026-11-21T23:41:07.123456Z","level":"INFO","node":1,"target":"rpc::links","message":"…"}
//! ```
//!
//! What else an event has stands behind the message, or in an object `fields`, so that it does not
//! get into the way of what every line has: an event about another node has a `node` too.
//!
//! Times are the host's, for people; the protocol goes by another clock (T1).

use super::settings::{LogForm, Settings};
use crate::exit::Exit;
use serde_json::{Map, Value, json};
use std::fmt;
use std::io::{self, IsTerminal};
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

/// From now on events are written.
///
/// # Errors
/// When the filter is none, or somebody else writes already.
pub fn start(settings: &Settings) -> Result<(), Exit> {
    let filter = EnvFilter::builder().parse(&settings.log_level).map_err(Exit::failed)?;
    let lines = Lines { node: settings.node, form: settings.log };
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        .with_ansi(settings.log == LogForm::Text && io::stderr().is_terminal())
        .event_format(lines)
        .try_init()
        .map_err(Exit::failed)
}

/// How an event becomes a line.
pub struct Lines {
    /// Of this node.
    pub node: u32,
    pub form: LogForm,
}

impl<S, N> FormatEvent<S, N> for Lines
where
    S: Subscriber + for<'s> LookupSpan<'s>,
    N: for<'w> FormatFields<'w> + 'static,
{
    fn format_event(
        &self,
        _: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        match self.form {
            LogForm::Text => self.text(&mut writer, event),
            LogForm::Json => self.json(&mut writer, event),
        }
    }
}

impl Lines {
    fn text(&self, writer: &mut Writer<'_>, event: &Event<'_>) -> fmt::Result {
        SystemTime.format_time(writer)?;
        let level = event.metadata().level();
        let colour = match *level {
            Level::ERROR => 31,
            Level::WARN => 33,
            Level::INFO => 32,
            _ => 2,
        };
        if writer.has_ansi_escapes() {
            write!(writer, " \x1b[{colour}m{level:>5}\x1b[0m")?;
        } else {
            write!(writer, " {level:>5}")?;
        }
        write!(writer, " n{} {}:", self.node, event.metadata().target())?;
        let mut fields = TextFields { writer: writer.by_ref(), result: Ok(()) };
        event.record(&mut fields);
        fields.result?;
        writeln!(writer)
    }

    fn json(&self, writer: &mut Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let mut time = String::new();
        SystemTime.format_time(&mut Writer::new(&mut time))?;
        let mut line = Map::new();
        line.insert("time".to_owned(), json!(time));
        line.insert("level".to_owned(), json!(event.metadata().level().as_str()));
        line.insert("node".to_owned(), json!(self.node));
        line.insert("target".to_owned(), json!(event.metadata().target()));
        let mut fields = Map::new();
        event.record(&mut JsonFields(&mut fields));
        line.extend(fields.remove_entry("message"));
        if !fields.is_empty() {
            line.insert("fields".to_owned(), Value::Object(fields));
        }
        writeln!(writer, "{}", Value::Object(line))
    }
}

/// The message, then the other fields with their names.
struct TextFields<'w> {
    writer: Writer<'w>,
    result: fmt::Result,
}

impl TextFields<'_> {
    /// A line stays a line, whatever somebody else has put into it.
    fn write(&mut self, field: &Field, text: &str) {
        let text = text.replace('\n', "; ").replace(|letter: char| letter.is_control(), " ");
        self.result = self.result.and_then(|()| match field.name() {
            "message" => write!(self.writer, " {text}"),
            name => write!(self.writer, " {name}={text}"),
        });
    }
}

impl Visit for TextFields<'_> {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.write(field, value);
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.write(field, &format!("{value:?}"));
    }
}

struct JsonFields<'m>(&'m mut Map<String, Value>);

impl Visit for JsonFields<'_> {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.0.insert(field.name().to_owned(), json!(value));
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.0.insert(field.name().to_owned(), json!(value));
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.0.insert(field.name().to_owned(), json!(value));
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.0.insert(field.name().to_owned(), json!(value));
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.0.insert(field.name().to_owned(), json!(value));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.0.insert(field.name().to_owned(), json!(format!("{value:?}")));
    }
}
