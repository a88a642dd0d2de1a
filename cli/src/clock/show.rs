//! What clocks say, as tables, objects and lines.

use crate::output::{Format, Heading, Printer};
use client::{NodeClock, NodeReport, Whose};
use proto::NodeId;
use serde_json::json;
use sql::{Row, Type, timestamp_text};
use std::io::{self, Write};
use std::time::Duration;
use truetime::{ClockError, MasterSeen, Reading, Sources, Status, Verdict};

/// Prints what clocks say, `at` this long after the first look.
///
/// # Errors
/// When nobody takes the output.
pub fn print(
    out: &mut (dyn Write + Send),
    format: Format,
    at: Duration,
    clocks: &[NodeClock],
) -> io::Result<()> {
    match format {
        Format::Json => {
            clocks.iter().try_for_each(|clock| writeln!(out, "{}", object(at, clock)))?;
            out.flush()
        }
        Format::Csv => clocks.iter().try_for_each(|clock| csv_rows(out, at, clock)),
        Format::Table => tables(out, clocks),
    }
}

/// One table of the clocks, one of their masters.
fn tables(out: &mut (dyn Write + Send), clocks: &[NodeClock]) -> io::Result<()> {
    let text = Type::String(None);
    let columns = [
        "node",
        "status",
        "earliest",
        "latest",
        "ε",
        "provider",
        "drift applied",
        "measured",
        "synchronized",
        "remark",
    ];
    let headings = columns.into_iter().map(|name| Heading::new(name, text)).collect();
    let mut printer = Printer::new(out, Format::Table, headings)?;
    for clock in clocks {
        let end = |end: fn(&truetime::Interval) -> truetime::Timestamp| {
            let interval = clock.reading.as_ref().ok().map(|reading| &reading.interval);
            interval.map_or_else(|| "-".into(), |interval| timestamp_text(end(interval)).into())
        };
        printer.row(vec![
            clock.whose.to_string().into(),
            status(clock).to_string().into(),
            end(truetime::Interval::earliest),
            end(truetime::Interval::latest),
            epsilon_us(clock).map_or_else(|| "-".to_owned(), |us| unsigned(us * 1_000)).into(),
            clock.spec.provider().into(),
            applied(clock).into(),
            measured(clock).into(),
            clock.sources.synchronized_ago.map_or_else(|| "-".to_owned(), ago).into(),
            remark(clock).into(),
        ])?;
    }
    printer.end()?;
    if clocks.iter().all(|clock| clock.sources.masters.is_empty()) {
        return Ok(());
    }
    writeln!(out)?;
    let columns =
        ["node", "master", "kind", "offset", "delay", "uncertainty", "answered", "verdict"];
    let headings = columns.into_iter().map(|name| Heading::new(name, text)).collect();
    let mut printer = Printer::new(out, Format::Table, headings)?;
    for clock in clocks {
        for master in &clock.sources.masters {
            printer.row(master_row(clock.whose, master))?;
        }
    }
    printer.end().map(|_| ())
}

fn master_row(whose: Whose, master: &MasterSeen) -> Row {
    let dash = || "-".to_owned();
    let uncertainty = master.uncertainty_ns.map(|ns| format!("±{}", unsigned(ns)));
    vec![
        whose.to_string().into(),
        master.name.clone().into(),
        master.kind.clone().unwrap_or_else(dash).into(),
        master.offset_ns.map_or_else(dash, signed).into(),
        master.delay_ns.map_or_else(dash, unsigned).into(),
        uncertainty.unwrap_or_else(dash).into(),
        master.answered_ago.map_or_else(dash, ago).into(),
        master.verdict.to_string().into(),
    ]
}

/// Names of the columns of CSV: a line for each clock and master, or for a clock without any.
pub const CSV_HEADER: &str = "at_ms,node,status,earliest_us,latest_us,epsilon_us,provider,\
    drift_applied_ppm,drift_measured_low_ppm,drift_measured_high_ppm,synchronized_ago_ms,remark,\
    master,kind,offset_ns,delay_ns,uncertainty_ns,answered_ago_ms,verdict";

fn csv_rows(out: &mut (dyn Write + Send), at: Duration, clock: &NodeClock) -> io::Result<()> {
    let masters = clock.sources.masters.iter().map(Some);
    let none = clock.sources.masters.is_empty().then_some(None);
    for master in masters.chain(none) {
        let interval = clock.reading.as_ref().ok().map(|reading| reading.interval);
        let measured = clock.sources.drift_measured_ppm;
        let cells = [
            at.as_millis().to_string(),
            clock.whose.to_string(),
            status(clock).to_string(),
            cell(interval.map(|interval| interval.earliest().micros())),
            cell(interval.map(|interval| interval.latest().micros())),
            cell(epsilon_us(clock)),
            clock.spec.provider().to_owned(),
            cell(clock.sources.drift_applied_ppm),
            cell(measured.map(|(low, _)| low)),
            cell(measured.map(|(_, high)| high)),
            cell(clock.sources.synchronized_ago.map(|ago| ago.as_millis())),
            quoted(&remark(clock)),
            master.map_or(String::new(), |master| quoted(&master.name)),
            cell(master.and_then(|master| master.kind.clone())),
            cell(master.and_then(|master| master.offset_ns)),
            cell(master.and_then(|master| master.delay_ns)),
            cell(master.and_then(|master| master.uncertainty_ns)),
            cell(master.and_then(|master| master.answered_ago).map(|ago| ago.as_millis())),
            master.map_or(String::new(), |master| word(master.verdict).to_owned()),
        ];
        writeln!(out, "{}", cells.join(","))?;
    }
    out.flush()
}

fn cell(value: Option<impl ToString>) -> String {
    value.map_or(String::new(), |value| value.to_string())
}

fn quoted(text: &str) -> String {
    let plain = !text.contains([',', '"', '\n']);
    if plain { text.to_owned() } else { format!("\"{}\"", text.replace('"', "\"\"")) }
}

/// One clock; all numbers as numbers, in the units of their names.
fn object(at: Duration, clock: &NodeClock) -> serde_json::Value {
    let interval = clock.reading.as_ref().ok().map(|reading| reading.interval);
    let ms = |duration: Duration| duration.as_secs_f64() * 1e3;
    let masters = clock.sources.masters.iter().map(|master| {
        json!({
            "name": master.name,
            "kind": master.kind,
            "offset_ns": master.offset_ns,
            "delay_ns": master.delay_ns,
            "uncertainty_ns": master.uncertainty_ns,
            "answered_ago_ms": master.answered_ago.map(ms),
            "verdict": word(master.verdict),
            "why": master.verdict.to_string(),
        })
    });
    let skew = clock.skew.map(|skew| {
        json!({
            "off_ns": clock.off_ns,
            "epsilon_ns": skew.epsilon_ns,
            "lie_ns": skew.lie_ns,
            "hasty": skew.hasty,
        })
    });
    json!({
        "at_ms": ms(at),
        "node": clock.whose.to_string(),
        "spec": clock.spec.to_string(),
        "provider": clock.spec.provider(),
        "status": status(clock).to_string(),
        "earliest_us": interval.map(|interval| interval.earliest().micros()),
        "latest_us": interval.map(|interval| interval.latest().micros()),
        "epsilon_us": epsilon_us(clock),
        "reason": clock.reading.as_ref().err().map(|error| &error.reason),
        "drift_applied_ppm": clock.sources.drift_applied_ppm,
        "drift_measured_ppm": clock.sources.drift_measured_ppm,
        "synchronized_ago_ms": clock.sources.synchronized_ago.map(ms),
        "skew": skew,
        "masters": masters.collect::<Vec<_>>(),
    })
}

/// The same for servers elsewhere, as they report it, and for this client's own clock.
pub fn remote_lines(
    servers: &[(NodeId, Result<NodeReport, String>)],
    client: &Result<Reading, ClockError>,
    sources: &Sources,
) -> Vec<String> {
    let width = |epsilon_us: Option<u64>| match epsilon_us {
        Some(us) => format!("±{}", unsigned(us * 1_000)),
        None => "no bound".to_owned(),
    };
    let mut lines = Vec::new();
    for (node, report) in servers {
        let node = node.to_string();
        lines.push(match report {
            Ok(report) => format!("{node:<7} {:<10} {}", width(report.epsilon_us), report.clock),
            Err(reason) => format!("{node:<7} {:<10} {reason}", "unknown"),
        });
    }
    let from = sources.masters.first().map_or(String::new(), |seen| {
        let delay = seen.delay_ns.map_or(String::new(), |ns| format!(", delay {}", unsigned(ns)));
        format!(", from {}{delay}", seen.name)
    });
    lines.push(match client {
        Ok(reading) => {
            let width = width(Some(reading.interval.epsilon_us()));
            format!("client  {width:<10} {} {}{from}", reading.provider, reading.status)
        }
        Err(error) => format!(
            "client  {:<10} {} {}: {}",
            "no bound", error.provider, error.status, error.reason
        ),
    });
    lines
}

/// A line for each clock, and one below it for each of its masters.
pub fn lines(clocks: &[NodeClock]) -> Vec<String> {
    let mut lines = Vec::new();
    for clock in clocks {
        let width = match epsilon_us(clock) {
            Some(us) => format!("±{}", unsigned(us * 1_000)),
            None => "no bound".to_owned(),
        };
        let (whose, status) = (clock.whose.to_string(), status(clock));
        let provider = clock.spec.provider();
        let head = format!("{whose:<7} {width:<10} {status:<14} {provider:<10} ");
        lines.push(format!("{head}{}", remark(clock)).trim_end().to_owned());
        for master in &clock.sources.masters {
            let what =
                master.offset_ns.zip(master.delay_ns).map_or(String::new(), |(off, delay)| {
                    format!(", offset {}, delay {}", signed(off), unsigned(delay))
                });
            let kind = master.kind.as_deref().unwrap_or("?");
            lines.push(format!("        {} ({kind}): {}{what}", master.name, master.verdict));
        }
    }
    lines
}

/// Why there is no bound, and what is wrong with a simulated clock.
fn remark(clock: &NodeClock) -> String {
    let reason = clock.reading.as_ref().err().map(|error| error.reason.clone());
    let skew = clock.skew.map(|skew| {
        let mut words = Vec::new();
        match clock.off_ns.unwrap_or(0) {
            0 => words.push("not off".to_owned()),
            off @ 1.. => words.push(format!("ahead by {}", unsigned(off.unsigned_abs()))),
            off => words.push(format!("behind by {}", unsigned(off.unsigned_abs()))),
        }
        if let truetime::providers::Drift::Linear { rate_ppm, .. } = skew.drift
            && rate_ppm != 0.0
        {
            words.push(format!("drifts {rate_ppm:+} µs/s"));
        }
        if skew.lie_ns > 0 {
            words.push(format!("lies by {}", unsigned(skew.lie_ns)));
        }
        if skew.hasty {
            words.push("hasty".to_owned());
        }
        words.join(", ")
    });
    [reason, skew].into_iter().flatten().collect::<Vec<_>>().join("; ")
}

fn status(clock: &NodeClock) -> Status {
    match &clock.reading {
        Ok(reading) => reading.status,
        Err(error) => error.status,
    }
}

fn epsilon_us(clock: &NodeClock) -> Option<u64> {
    clock.reading.as_ref().ok().map(|reading| reading.interval.epsilon_us())
}

fn applied(clock: &NodeClock) -> String {
    clock.sources.drift_applied_ppm.map_or_else(|| "-".into(), |ppm| format!("{ppm} µs/s"))
}

fn measured(clock: &NodeClock) -> String {
    match clock.sources.drift_measured_ppm {
        None => "-".into(),
        Some((low, high)) if (high - low).abs() < 0.5 => format!("{low:.0} µs/s"),
        Some((low, high)) => format!("{low:.0} to {high:.0} µs/s"),
    }
}

/// One word for a verdict.
fn word(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Accepted => "accepted",
        Verdict::Rejected => "rejected",
        Verdict::NoMajority => "no_majority",
        Verdict::Unsynchronized => "unsynchronized",
        Verdict::Silent => "silent",
        Verdict::Unknown => "unknown",
    }
}

fn signed(ns: i64) -> String {
    let sign = if ns < 0 { '-' } else { '+' };
    format!("{sign}{}", unsigned(ns.unsigned_abs()))
}

/// In the unit that gives a short number.
fn unsigned(ns: u64) -> String {
    match ns {
        0..1_000 => format!("{ns} ns"),
        1_000..1_000_000 => format!("{} µs", round(ns as f64 / 1e3)),
        1_000_000..1_000_000_000 => format!("{} ms", round(ns as f64 / 1e6)),
        _ => format!("{} s", round(ns as f64 / 1e9)),
    }
}

/// Three digits that count, without zeros at the end.
fn round(number: f64) -> String {
    let text = match number {
        ..10.0 => format!("{number:.2}"),
        ..100.0 => format!("{number:.1}"),
        _ => format!("{number:.0}."),
    };
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

fn ago(duration: Duration) -> String {
    format!("{:.1} s ago", duration.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;
    use client::Clocks;
    use truetime::spec::ClockSpecs;
    use truetime::{ClockError, Sources};

    fn seen() -> Vec<NodeClock> {
        let specs =
            ClockSpecs::parse(&["simulated:offset=-3ms,epsilon=5ms,lie=1ms,hasty,evict=off"]);
        let mut all = Clocks::open(&specs.unwrap(), 1, false).unwrap().all();
        let error = ClockError {
            status: Status::Broken,
            reason: "it, \"fell\"".into(),
            provider: "masters",
        };
        all[1].reading = Err(error);
        all[1].skew = None;
        let master = |name: &str, offset_ns, verdict| MasterSeen {
            name: name.into(),
            kind: Some("gps".into()),
            offset_ns: Some(offset_ns),
            delay_ns: Some(85_400),
            uncertainty_ns: Some(100_000),
            answered_ago: Some(Duration::from_millis(1_234)),
            verdict,
        };
        all[1].sources = Sources {
            drift_applied_ppm: Some(200.0),
            drift_measured_ppm: Some((-3.2, 11.9)),
            synchronized_ago: Some(Duration::from_millis(1_500)),
            masters: vec![
                master("a:1", 1_500, Verdict::Accepted),
                master("b:2", 50_000_000, Verdict::Rejected),
            ],
        };
        all
    }

    fn printed(format: Format) -> String {
        let mut out = Vec::new();
        print(&mut out, format, Duration::from_secs(2), &seen()).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn tables_name_the_liar_and_the_reason() {
        let text = printed(Format::Table);
        for words in [
            "n1     | synchronized",
            "behind by 3 ms, lies by 1 ms, hasty",
            "200 µs/s",
            "-3 to 12 µs/s",
            "1.5 s ago",
            "it, \"fell\"",
            "client | b:2    | gps  | +50 ms  | 85.4 µs | ±100 µs     | 1.2 s ago | rejected: outside",
        ] {
            assert!(text.contains(words), "no '{words}' in:\n{text}");
        }
    }

    #[test]
    fn csv_has_a_line_for_each_master_and_as_many_cells_as_its_header() {
        let text = printed(Format::Csv);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 3, "{text}");
        assert!(lines[2].ends_with(
            "200,-3.2,11.9,1500,\"it, \"\"fell\"\"\",b:2,gps,50000000,85400,100000,1234,rejected"
        ));
        let commas = |line: &str| line.matches(',').count();
        assert_eq!(commas(lines[0]), commas(CSV_HEADER) + 2, "two in the remark: {text}");
    }

    #[test]
    fn objects_have_numbers_and_lines_are_short() {
        let text = printed(Format::Json);
        let objects: Vec<serde_json::Value> =
            text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(objects[0]["skew"]["off_ns"], -3_000_000);
        assert_eq!(objects[1]["status"], "broken");
        assert_eq!(objects[1]["masters"][1]["verdict"], "rejected");
        let lines = lines(&seen());
        assert!(lines[0].starts_with("n1      ±"), "{lines:?}");
        assert!(lines[1].starts_with("client  no bound   broken"), "{lines:?}");
        assert!(
            lines[2].contains("a:1 (gps): accepted, offset +1.5 µs, delay 85.4 µs"),
            "{lines:?}"
        );
    }

    #[test]
    fn numbers_are_short() {
        let short: Vec<String> =
            [7, 1_000, 1_250, 99_960, 5_000_000, 1_234_000_000].map(unsigned).to_vec();
        assert_eq!(short, ["7 ns", "1 µs", "1.25 µs", "100 µs", "5 ms", "1.23 s"]);
        assert_eq!(signed(-100_000), "-100 µs");
    }
}
