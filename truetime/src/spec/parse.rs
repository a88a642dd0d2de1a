//! From texts to clocks, with the place of what is wrong.

use super::{ClockChange, ClockSpec, ClockSpecs, MastersSpec, SimulatedSpec, SpecError};
use crate::providers::Local;

/// Offsets and bounds beyond a day are typing errors, in microseconds.
const DAY_US: i64 = 86_400_000_000;
/// No clock that still counts as one gains or loses half a second each second, in microseconds.
const PPM_MAX: i64 = 500_000;

/// Names of units and their nanoseconds.
const UNITS: [(&str, u64); 6] = [
    ("ns", 1),
    ("us", 1_000),
    ("µs", 1_000),
    ("ms", 1_000_000),
    ("s", 1_000_000_000),
    ("min", 60_000_000_000),
];
const US: u64 = 1_000;
const MS: u64 = 1_000_000;
const S: u64 = 1_000_000_000;

/// The clocks of all, from several texts.
pub fn specs<'t>(texts: impl Iterator<Item = &'t str>) -> Result<ClockSpecs, SpecError> {
    let mut specs = ClockSpecs::default();
    let mut all = None;
    for text in texts {
        let name_end = text.find('=').filter(|at| !text[..*at].contains(':'));
        let Some(name_end) = name_end else {
            set(&mut all, spec(text, 0)?, text, "everybody")?;
            continue;
        };
        let name = &text[..name_end];
        let parsed = spec(text, name_end + 1)?;
        let number = name.strip_prefix('n').and_then(|digits| digits.parse().ok());
        match (name, number) {
            ("client", _) => set(&mut specs.client, parsed, text, "the clients")?,
            (_, Some(node)) if node > 0 => {
                let mut before = specs.nodes.remove(&node);
                set(&mut before, parsed, text, name)?;
                specs.nodes.extend(before.map(|spec| (node, spec)));
            }
            _ => {
                let message = format!("`{name}` is neither a node nor `client`");
                return Err(error(message, text, 0, Some("n1, n2, n3, or client".into())));
            }
        }
    }
    specs.all = all.unwrap_or_default();
    Ok(specs)
}

fn set(
    place: &mut Option<ClockSpec>,
    spec: ClockSpec,
    text: &str,
    whose: &str,
) -> Result<(), SpecError> {
    match place.replace(spec) {
        None => Ok(()),
        Some(_) => Err(error(format!("the clock of {whose} is given twice"), text, 0, None)),
    }
}

/// The clock that `text` names from byte `start` on.
pub fn spec(text: &str, start: usize) -> Result<ClockSpec, SpecError> {
    let provider_end = text[start..].find(':').map_or(text.len(), |at| start + at);
    let provider = &text[start..provider_end];
    let settings_at = (provider_end + 1).min(text.len());
    let settings = |keys| Settings::new(text, settings_at, ',', keys);
    match provider {
        "local" => {
            let mut settings = settings(&["epsilon"])?;
            let epsilon_us = settings.size("epsilon", US)?.unwrap_or(Local::EPSILON_US_DEFAULT);
            Ok(ClockSpec::Local { epsilon_us })
        }
        "simulated" => simulated(settings(&[
            "offset", "drift", "epsilon", "lie", "hasty", "evict", "applied", "check",
        ])?)
        .map(ClockSpec::Simulated),
        "masters" => masters(settings(&["poll", "drift", "key-file", "evict"])?, text, settings_at)
            .map(ClockSpec::Masters),
        "system" => {
            settings(&[])?;
            Ok(ClockSpec::System)
        }
        "clockbound" => {
            let mut settings = settings(&["path"])?;
            Ok(ClockSpec::ClockBound { path: settings.text("path")? })
        }
        _ => {
            let near = nearest(provider, &ClockSpec::PROVIDERS).map(|near| format!("`{near}`; "));
            let all = ClockSpec::PROVIDERS.join(", ");
            let hint = format!("{}the providers are {all}", near.unwrap_or_default());
            Err(error(format!("no clock is called `{provider}`"), text, start, Some(hint)))
        }
    }
}

fn simulated(mut settings: Settings<'_>) -> Result<SimulatedSpec, SpecError> {
    let usual = SimulatedSpec::default();
    Ok(SimulatedSpec {
        offset_us: settings.offset("offset")?.unwrap_or(usual.offset_us),
        drift_ppm: settings.number("drift", -PPM_MAX..=PPM_MAX)?.unwrap_or(usual.drift_ppm),
        epsilon_us: settings.size("epsilon", US)?.unwrap_or(usual.epsilon_us),
        lie_us: settings.size("lie", US)?.unwrap_or(usual.lie_us),
        hasty: settings.switch("hasty")?.unwrap_or(usual.hasty),
        evict: settings.switch("evict")?.unwrap_or(usual.evict),
        applied_ppm: settings.applied("applied")?.unwrap_or(usual.applied_ppm),
        check_ms: settings.within("check", MS, 1..=60_000)?.unwrap_or(usual.check_ms),
    })
}

fn masters(mut settings: Settings<'_>, text: &str, start: usize) -> Result<MastersSpec, SpecError> {
    let mut spec = MastersSpec::new(Vec::new());
    for (at, address) in std::mem::take(&mut settings.bare) {
        let port = address.rsplit_once(':').filter(|(host, _)| !host.is_empty());
        if port.and_then(|(_, port)| port.parse::<u16>().ok()).is_none_or(|port| port == 0) {
            let message = format!("`{address}` is no address of a master");
            return Err(error(message, text, at, Some("HOST:PORT, as 127.0.0.1:7123".into())));
        }
        if spec.addresses.iter().any(|other| other == address) {
            return Err(error(format!("`{address}` is named twice"), text, at, None));
        }
        spec.addresses.push(address.to_owned());
    }
    if spec.addresses.is_empty() {
        let hint = "masters:HOST:PORT,HOST:PORT,HOST:PORT; three, so that one may lie";
        return Err(error("no master is named".into(), text, start, Some(hint.into())));
    }
    let poll_ms = settings.scaled("poll", S, MS, 100..=3_600_000)?;
    spec.poll_ms = poll_ms.unwrap_or(spec.poll_ms);
    spec.drift_ppm = settings.applied("drift")?.unwrap_or(spec.drift_ppm);
    spec.key_file = settings.text("key-file")?;
    spec.evict = settings.switch("evict")?.unwrap_or(spec.evict);
    Ok(spec)
}

/// A change of a simulated clock: words between blanks.
pub fn change(text: &str) -> Result<ClockChange, SpecError> {
    let keys = ["honest", "offset", "drift", "epsilon", "lie", "hasty"];
    let mut settings = Settings::new(text, 0, ' ', &keys)?;
    let change = ClockChange {
        honest: settings.switch("honest")?.unwrap_or(false),
        offset_us: settings.offset("offset")?,
        drift_ppm: settings.number("drift", -PPM_MAX..=PPM_MAX)?,
        epsilon_us: settings.size("epsilon", US)?,
        lie_us: settings.size("lie", US)?,
        hasty: settings.switch("hasty")?,
    };
    if change == ClockChange::default() {
        let hint = "drift=2000 offset=-3ms epsilon=5ms lie=2ms hasty=on, or honest";
        return Err(error("nothing is to be changed".into(), text, 0, Some(hint.into())));
    }
    Ok(change)
}

/// `key=value` after `key=value`.
struct Settings<'t> {
    text: &'t str,
    /// Key, value and the byte where the value begins.
    found: Vec<(&'t str, &'t str, usize)>,
    /// Words without `=`, and where they begin; those that are switches are not among them.
    bare: Vec<(usize, &'t str)>,
}

/// Words that mean `=on`.
const SWITCHES: [&str; 2] = ["hasty", "honest"];

impl<'t> Settings<'t> {
    fn new(
        text: &'t str,
        start: usize,
        separator: char,
        keys: &[&str],
    ) -> Result<Settings<'t>, SpecError> {
        let mut settings = Settings { text, found: Vec::new(), bare: Vec::new() };
        let mut at = start;
        let takes_addresses = keys.contains(&"poll");
        for word in text[start..].split(separator) {
            let (word_at, key, value) = match word.split_once('=') {
                Some((key, value)) => (at, key, value),
                None => (at, word, ""),
            };
            at += word.len() + separator.len_utf8();
            if word.is_empty() && (separator == ' ' || text.len() == start) {
                continue;
            }
            let is_switch = !word.contains('=') && SWITCHES.contains(&key);
            if !word.contains('=') && takes_addresses {
                settings.bare.push((word_at, word));
                continue;
            }
            if !keys.contains(&key) {
                let message = format!("there is no setting `{key}` here");
                let near = nearest(key, keys).map(|near| format!("did you mean `{near}`?"));
                let all = || match keys {
                    [] => "this clock has no settings".to_owned(),
                    _ => format!("the settings are {}", keys.join(", ")),
                };
                return Err(error(message, text, word_at, Some(near.unwrap_or_else(all))));
            }
            if settings.found.iter().any(|(other, ..)| *other == key) {
                return Err(error(format!("`{key}` is given twice"), text, word_at, None));
            }
            if !word.contains('=') && !is_switch {
                let hint = Some(format!("{key}=…"));
                return Err(error(format!("`{key}` has no value"), text, word_at, hint));
            }
            let value = if is_switch { "on" } else { value };
            settings.found.push((key, value, word_at + key.len() + 1));
        }
        Ok(settings)
    }

    fn take(&mut self, key: &str) -> Option<(&'t str, usize)> {
        let found = self.found.iter().find(|(other, ..)| *other == key);
        found.map(|(_, value, at)| (*value, *at))
    }

    fn wrong(&self, key: &str, value: &str, at: usize, hint: String) -> SpecError {
        error(format!("`{value}` is no value of `{key}`"), self.text, at, Some(hint))
    }

    fn text(&mut self, key: &str) -> Result<Option<String>, SpecError> {
        match self.take(key) {
            Some(("", at)) => Err(self.wrong(key, "", at, "a path".into())),
            value => Ok(value.map(|(value, _)| value.to_owned())),
        }
    }

    fn switch(&mut self, key: &str) -> Result<Option<bool>, SpecError> {
        match self.take(key) {
            None => Ok(None),
            Some(("on", _)) => Ok(Some(true)),
            Some(("off", _)) => Ok(Some(false)),
            Some((value, at)) => Err(self.wrong(key, value, at, "on or off".into())),
        }
    }

    fn number(
        &mut self,
        key: &str,
        range: std::ops::RangeInclusive<i64>,
    ) -> Result<Option<i64>, SpecError> {
        let Some((value, at)) = self.take(key) else { return Ok(None) };
        let parsed = value.parse::<i64>().ok().filter(|number| range.contains(number));
        let hint = || format!("a whole number from {} to {}, in µs/s", range.start(), range.end());
        parsed.map(Some).ok_or_else(|| self.wrong(key, value, at, hint()))
    }

    fn applied(&mut self, key: &str) -> Result<Option<u32>, SpecError> {
        let number = self.number(key, 0..=PPM_MAX)?;
        Ok(number.and_then(|ppm| u32::try_from(ppm).ok()))
    }

    /// A signed time in microseconds.
    fn offset(&mut self, key: &str) -> Result<Option<i64>, SpecError> {
        let Some((value, at)) = self.take(key) else { return Ok(None) };
        let (sign, digits) = match value.strip_prefix('-') {
            Some(digits) => (-1, digits),
            None => (1, value),
        };
        let parsed = time(digits, US, US).and_then(|us| i64::try_from(us).ok());
        let hint = "microseconds, or with a unit as -3ms; at most a day".to_owned();
        let parsed = parsed.filter(|us| *us <= DAY_US).map(|us| sign * us);
        parsed.map(Some).ok_or_else(|| self.wrong(key, value, at, hint))
    }

    /// A time of up to a day, in this unit.
    fn size(&mut self, key: &str, unit: u64) -> Result<Option<u64>, SpecError> {
        self.within(key, unit, 0..=DAY_US.unsigned_abs() * US / unit)
    }

    fn within(
        &mut self,
        key: &str,
        unit: u64,
        range: std::ops::RangeInclusive<u64>,
    ) -> Result<Option<u64>, SpecError> {
        self.scaled(key, unit, unit, range)
    }

    /// A time in `unit` that is written in `plain` when it names no unit.
    fn scaled(
        &mut self,
        key: &str,
        plain: u64,
        unit: u64,
        range: std::ops::RangeInclusive<u64>,
    ) -> Result<Option<u64>, SpecError> {
        let Some((value, at)) = self.take(key) else { return Ok(None) };
        let name = |ns| UNITS.iter().find(|(_, of)| *of == ns).map_or("", |(name, _)| *name);
        let hint = || {
            let (low, high, unit) = (range.start(), range.end(), name(unit));
            let plain = name(plain);
            format!("a time from {low}{unit} to {high}{unit}; a plain number is in {plain}")
        };
        let parsed = time(value, plain, unit).filter(|time| range.contains(time));
        parsed.map(Some).ok_or_else(|| self.wrong(key, value, at, hint()))
    }
}

/// A time whose plain number is in seconds, in nanoseconds.
pub fn nanoseconds(text: &str) -> Option<u64> {
    time(text, S, 1)
}

/// `30s`, `1.5ms` or `7` as a whole number of `unit`s; without a name the number is in `plain`s.
fn time(text: &str, plain: u64, unit: u64) -> Option<u64> {
    let split = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, name) = text.split_at(split);
    let scale = match name {
        "" => plain,
        _ => UNITS.iter().find(|(other, _)| *other == name).map(|(_, ns)| *ns)?,
    };
    let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
    if fraction.len() > 9 || fraction.is_empty() {
        return None;
    }
    let power = 10u128.pow(fraction.len() as u32);
    let digits = whole.parse::<u128>().ok()?.checked_mul(power)?;
    let scaled = digits.checked_add(fraction.parse().ok()?)?.checked_mul(u128::from(scale))?;
    let per_unit = power * u128::from(unit);
    (scaled % per_unit == 0).then(|| u64::try_from(scaled / per_unit).ok()).flatten()
}

/// `at`: a byte of the text.
fn error(message: String, text: &str, at: usize, hint: Option<String>) -> SpecError {
    let at = text.get(..at).map_or(0, |before| before.chars().count());
    SpecError { message, text: text.to_owned(), at, hint }
}

/// The name that was probably meant.
fn nearest<'a>(written: &str, names: &[&'a str]) -> Option<&'a str> {
    let limit = 1 + written.chars().count() / 4;
    let near = names.iter().map(|name| (distance(written, name), *name));
    near.filter(|(distance, _)| *distance <= limit).min().map(|(_, name)| name)
}

/// How many letters have to be added, taken away or replaced (Levenshtein).
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.chars().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, to) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(from != *to);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}
