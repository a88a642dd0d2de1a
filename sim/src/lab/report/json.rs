//! Parameters and findings as JSON, for programs.

use super::Report;
use serde_json::{Value, json};

/// What a run depends on, and how to repeat it: the content of `parameters.json`.
pub fn setup(report: &Report) -> Value {
    let parameter = |chosen: &super::Chosen| {
        let value =
            json!({ "value": number(chosen.value), "unit": chosen.unit, "what": chosen.what });
        (chosen.name.to_string(), value)
    };
    json!({
        "experiment": report.name,
        "version": env!("CARGO_PKG_VERSION"),
        "seed": report.seed,
        "parameters": report.parameters.iter().map(parameter).collect::<serde_json::Map<_, _>>(),
        "command": report.command,
    })
}

/// What was found, with what it depends on.
pub fn outcome(report: &Report) -> Value {
    let finding = |finding: &super::Finding| {
        json!({
            "what": finding.what,
            "measured": finding.measured,
            "expected": finding.expected,
            "holds": finding.holds,
        })
    };
    let mut outcome = setup(report);
    outcome["title"] = report.title.clone().into();
    outcome["question"] = report.question.into();
    outcome["summary"] = report.summary.clone().into();
    outcome["holds"] = report.holds().into();
    outcome["findings"] = report.findings.iter().map(finding).collect();
    outcome["history"] = match &report.history {
        Some(history) => json!({ "title": history.title, "lines": history.lines }),
        None => Value::Null,
    };
    outcome
}

/// Whole numbers without a point: 30 and not 30.0.
fn number(value: f64) -> Value {
    // Every whole number up to 2^53 is exact.
    let is_whole = value.fract() == 0.0 && value.abs() < (1u64 << 53) as f64;
    if is_whole { Value::from(value as i64) } else { Value::from(value) }
}

#[cfg(test)]
mod tests {
    use super::super::sample;
    use super::*;

    #[test]
    fn a_run_can_be_repeated_from_it() {
        let value: Value = serde_json::from_str(&setup(&sample()).to_string()).unwrap();
        assert_eq!(value["experiment"], "sample");
        assert_eq!(value["seed"], 7);
        assert_eq!(value["parameters"]["poll"]["value"], 2.5);
        assert_eq!(value["parameters"]["transactions"]["value"], 100);
        assert_eq!(value["command"], sample().command);
    }

    #[test]
    fn findings_are_told() {
        let mut report = sample();
        let value = outcome(&report);
        assert_eq!(value["holds"], true);
        assert_eq!(value["findings"][0]["measured"], "4.0 ms");
        assert!(value["history"]["lines"].is_array());
        report.findings[0].holds = false;
        report.history = None;
        let value = outcome(&report);
        assert_eq!(
            (&value["holds"], &value["findings"][0]["holds"]),
            (&false.into(), &false.into())
        );
        assert!(value["history"].is_null());
    }
}
