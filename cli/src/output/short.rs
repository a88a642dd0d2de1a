//! Numbers for people: few digits, and the unit that makes them few.

use std::time::Duration;

/// Bytes, in powers of 1,024: `17 B`, `1.5 GiB`.
pub fn bytes(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
    if bytes < 1_024 {
        return format!("{bytes} B");
    }
    let mut number = bytes as f64 / 1_024.0;
    let mut unit = 0;
    while number >= 1_023.5 && unit + 1 < UNITS.len() {
        number /= 1_024.0;
        unit += 1;
    }
    format!("{} {}", digits(number), UNITS[unit])
}

/// How long: `250 µs`, `1.5 s`, `12 min`, `3 h`, `9 d`.
pub fn time(duration: Duration) -> String {
    let seconds = duration.as_secs_f64();
    match seconds {
        ..1e-3 => format!("{:.0} µs", seconds * 1e6),
        ..1.0 => format!("{} ms", digits(seconds * 1e3)),
        ..120.0 => format!("{} s", digits(seconds)),
        ..7_200.0 => format!("{:.0} min", (seconds / 60.0).floor()),
        ..172_800.0 => format!("{:.0} h", (seconds / 3_600.0).floor()),
        _ => format!("{:.0} d", (seconds / 86_400.0).floor()),
    }
}

/// A number with a comma between thousands.
pub fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// One digit behind the point for small numbers, unless it is a zero.
fn digits(number: f64) -> String {
    let text = if number < 9.95 { format!("{number:.1}") } else { format!("{number:.0}") };
    text.strip_suffix(".0").map_or_else(|| text.clone(), str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_have_two_digits_or_three() {
        let kib = 1_024;
        let all = [0, 1_023, kib, 1_536, 10 * kib, 1_023 * kib + 1_000, 3 * kib * kib * kib];
        let short: Vec<String> = all.map(bytes).to_vec();
        assert_eq!(short, ["0 B", "1023 B", "1 KiB", "1.5 KiB", "10 KiB", "1 MiB", "3 GiB"]);
        assert_eq!(bytes(u64::MAX), "16384 PiB");
    }

    #[test]
    fn times_name_their_unit() {
        let all = [0, 50, 1_500, 999_000, 1_000_000, 42_400_000, 119_000_000];
        let short: Vec<String> = all.map(|us| time(Duration::from_micros(us))).to_vec();
        assert_eq!(short, ["0 µs", "50 µs", "1.5 ms", "999 ms", "1 s", "42 s", "119 s"]);
        let long: Vec<String> =
            [179, 7_200, 200_000].map(|s| time(Duration::from_secs(s))).to_vec();
        assert_eq!(long, ["2 min", "2 h", "2 d"]);
    }

    #[test]
    fn counts_have_commas() {
        assert_eq!([7, 999, 1_000, 1_234_567].map(count), ["7", "999", "1,000", "1,234,567"]);
    }
}
