//! Results as JSON lines.

use super::Heading;
use serde_json::Value as Json;
use sql::Value;
use std::io::{self, Write};

/// A row as one object, its columns in their order.
pub fn write_row(out: &mut dyn Write, headings: &[Heading], row: &[Value]) -> io::Result<()> {
    out.write_all(b"{")?;
    for (place, (heading, value)) in headings.iter().zip(row).enumerate() {
        if place > 0 {
            out.write_all(b",")?;
        }
        write!(out, "{}:{}", Json::from(heading.name.as_str()), json(value))?;
    }
    out.write_all(b"}\n")
}

/// A number that JSON has no word for (`NaN`, `inf`) is a text.
fn json(value: &Value) -> Json {
    match value {
        Value::Null => Json::Null,
        Value::Bool(bool) => Json::from(*bool),
        Value::Int64(int) => Json::from(*int),
        Value::Float64(float) if float.is_finite() => Json::from(*float),
        other => Json::from(other.to_string()),
    }
}
