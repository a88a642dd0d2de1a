//! What can be chosen in an experiment, and what was.

/// Something that can be chosen. Invariants, asserted where a [`Setup`] is made of it:
///
/// 1. `min ≤ default ≤ max`, all finite;
/// 2. when [`whole`](Parameter::whole), all three are whole and not negative;
/// 3. its name is unique within an experiment.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Parameter {
    /// What it is called on the command line: words joined by `_`, without a unit.
    pub name: &'static str,
    /// The unit of its value (`ms`, `µs/s`, `s`), or nothing for a plain number.
    pub unit: &'static str,
    /// Its value when nothing is chosen.
    pub default: f64,
    /// The least value that makes sense.
    pub min: f64,
    /// The greatest value that makes sense, or that is still quick enough.
    pub max: f64,
    /// Whether only whole numbers make sense: something is counted.
    pub whole: bool,
    /// What it is, in a few words.
    pub what: &'static str,
}

impl Parameter {
    /// A measure, which may be a fraction.
    pub const fn measure(
        name: &'static str,
        unit: &'static str,
        default: f64,
        (min, max): (f64, f64),
        what: &'static str,
    ) -> Parameter {
        Parameter { name, unit, default, min, max, whole: false, what }
    }

    /// A count of something; its unit is what is counted.
    pub const fn count(
        name: &'static str,
        unit: &'static str,
        default: u32,
        (min, max): (u32, u32),
        what: &'static str,
    ) -> Parameter {
        let (default, min, max) = (default as f64, min as f64, max as f64);
        Parameter { name, unit, default, min, max, whole: true, what }
    }

    fn check(&self) {
        let Parameter { name, default, min, max, whole, .. } = *self;
        let finite = [default, min, max].iter().all(|value| value.is_finite());
        assert!(finite && min <= default && default <= max, "{name} breaks its own range");
        let counts = [default, min, max].iter().all(|value| value.fract() == 0.0 && *value >= 0.0);
        assert!(!whole || counts, "{name} counts in fractions");
    }
}

/// What a run depends on: a seed, and a value for each parameter of its experiment.
#[derive(Clone, Debug, PartialEq)]
pub struct Setup {
    seed: u64,
    /// In the order of the experiment.
    values: Vec<(Parameter, f64)>,
}

/// A choice that cannot be.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum SetupError {
    /// There is no such parameter.
    #[error("no parameter is called '{key}'{}; there are: {}", did_you_mean(nearest), known.join(", "))]
    Unknown {
        /// What was asked for.
        key: String,
        /// The parameter with the most similar name, if one is similar at all.
        nearest: Option<&'static str>,
        /// What there is.
        known: Vec<&'static str>,
    },
    /// There is nothing to choose in this experiment.
    #[error("'{key}' cannot be set: this experiment has no parameters")]
    NoParameters {
        /// What was asked for.
        key: String,
    },
    /// The text is no number, or not a whole one where something is counted.
    #[error("{name}={text}: expected {}, like {name}={example}",
            if *whole { "a whole number" } else { "a number" })]
    NotANumber {
        /// The parameter.
        name: &'static str,
        /// What was given.
        text: String,
        /// Whether it must be whole.
        whole: bool,
        /// A value that would do.
        example: f64,
    },
    /// The number is out of range.
    #[error("{name}={text}: out of range, which is {}", range(*min, *max, unit))]
    OutOfRange {
        /// The parameter.
        name: &'static str,
        /// What was given.
        text: String,
        /// The least that may be.
        min: f64,
        /// The most that may be.
        max: f64,
        /// The unit of both.
        unit: &'static str,
    },
    /// One parameter was chosen more than once.
    #[error("{name} is set twice")]
    Twice {
        /// The parameter.
        name: &'static str,
    },
}

impl Setup {
    /// The defaults of `parameters`, but for what `overrides` says: pairs of a name and a number.
    /// A number may have `_` between its digits.
    ///
    /// # Errors
    /// When a name is not known, or a number is not one, or out of range, or given twice.
    ///
    /// # Panics
    /// When the parameters break their invariants.
    pub fn new(
        parameters: &[Parameter],
        seed: u64,
        overrides: &[(String, String)],
    ) -> Result<Setup, SetupError> {
        let mut values: Vec<(Parameter, f64)> = Vec::with_capacity(parameters.len());
        for parameter in parameters {
            parameter.check();
            let is_new = values.iter().all(|(known, _)| known.name != parameter.name);
            assert!(is_new, "{} is there twice", parameter.name);
            values.push((*parameter, parameter.default));
        }
        let mut chosen: Vec<&'static str> = Vec::new();
        for (key, text) in overrides {
            let found = values.iter_mut().find(|(parameter, _)| parameter.name == key);
            let Some((parameter, value)) = found else {
                return Err(unknown(key, parameters));
            };
            if chosen.contains(&parameter.name) {
                return Err(SetupError::Twice { name: parameter.name });
            }
            chosen.push(parameter.name);
            *value = parse(parameter, text)?;
        }
        Ok(Setup { seed, values })
    }

    /// What all random choices of the run come from.
    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// The value of a parameter, in its unit.
    ///
    /// # Panics
    /// When the experiment has no such parameter.
    pub fn get(&self, name: &str) -> f64 {
        self.find(name).1
    }

    /// The value of a parameter that counts something.
    ///
    /// # Panics
    /// When the experiment has no such parameter, or it does not count.
    pub fn count(&self, name: &str) -> u64 {
        let (parameter, value) = self.find(name);
        assert!(parameter.whole, "{name} is not a count");
        // Checked to be whole, not negative and in range.
        value as u64
    }

    /// Every parameter and its value, in the order of the experiment.
    pub fn values(&self) -> impl Iterator<Item = (&Parameter, f64)> {
        self.values.iter().map(|(parameter, value)| (parameter, *value))
    }

    fn find(&self, name: &str) -> (&Parameter, f64) {
        let found = self.values().find(|(parameter, _)| parameter.name == name);
        found.unwrap_or_else(|| panic!("the experiment has no parameter {name}"))
    }
}

fn parse(parameter: &Parameter, text: &str) -> Result<f64, SetupError> {
    let Parameter { name, unit, default, min, max, whole, .. } = *parameter;
    let number = text.trim().replace('_', "").parse::<f64>().ok();
    let number = number.filter(|number| number.is_finite() && !(whole && number.fract() != 0.0));
    let Some(number) = number else {
        return Err(SetupError::NotANumber { name, text: text.into(), whole, example: default });
    };
    if !(min..=max).contains(&number) {
        return Err(SetupError::OutOfRange { name, text: text.into(), min, max, unit });
    }
    Ok(number)
}

fn unknown(key: &str, parameters: &[Parameter]) -> SetupError {
    let key = key.to_string();
    if parameters.is_empty() {
        return SetupError::NoParameters { key };
    }
    let known: Vec<&'static str> = parameters.iter().map(|parameter| parameter.name).collect();
    SetupError::Unknown { nearest: nearest(&key, &known), key, known }
}

/// The name most like `word`, if less than half of it would have to change.
pub fn nearest<'n>(word: &str, names: &[&'n str]) -> Option<&'n str> {
    let distances = names.iter().map(|name| (edits(word, name), *name));
    let (distance, name) = distances.min_by_key(|(distance, _)| *distance)?;
    (2 * distance < word.chars().count().max(name.chars().count())).then_some(name)
}

/// How many letters must be put in, taken out or replaced to make one word of the other.
fn edits(from: &str, to: &str) -> usize {
    let to: Vec<char> = to.chars().collect();
    // row[n]: edits from what of `from` was seen to the first n letters of `to`.
    let mut row: Vec<usize> = (0..=to.len()).collect();
    for (seen, letter) in from.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = seen + 1;
        for place in 0..to.len() {
            let replaced = diagonal + usize::from(letter != to[place]);
            diagonal = row[place + 1];
            row[place + 1] = replaced.min(diagonal + 1).min(row[place] + 1);
        }
    }
    row[to.len()]
}

fn did_you_mean(nearest: &Option<&'static str>) -> String {
    nearest.map(|name| format!(" (did you mean '{name}'?)")).unwrap_or_default()
}

/// A range in words, with its unit.
pub(crate) fn range(min: f64, max: f64, unit: &str) -> String {
    let blank = if unit.is_empty() { "" } else { " " };
    format!("{min} to {max}{blank}{unit}")
}

#[cfg(test)]
mod tests {
    use super::*;

    const PARAMETERS: &[Parameter] = &[
        Parameter::measure("poll", "s", 30.0, (1.0, 600.0), "time between polls"),
        Parameter::measure("applied_drift", "µs/s", 200.0, (0.0, 10_000.0), "assumed drift"),
        Parameter::count("transactions", "", 10_000, (100, 1_000_000), "how many are run"),
    ];

    fn setup(overrides: &[(&str, &str)]) -> Result<Setup, SetupError> {
        let owned = |(key, text): &(&str, &str)| (key.to_string(), text.to_string());
        Setup::new(PARAMETERS, 7, &overrides.iter().map(owned).collect::<Vec<_>>())
    }

    #[test]
    fn defaults_and_choices() {
        let setup = setup(&[("poll", " 2.5 "), ("transactions", "20_000")]).unwrap();
        assert_eq!(setup.seed(), 7);
        assert_eq!((setup.get("poll"), setup.get("applied_drift")), (2.5, 200.0));
        assert_eq!(setup.count("transactions"), 20_000);
        let names: Vec<_> = setup.values().map(|(parameter, _)| parameter.name).collect();
        assert_eq!(names, ["poll", "applied_drift", "transactions"]);
    }

    #[test]
    fn wrong_choices_are_named() {
        let says = |key, text| setup(&[(key, text)]).unwrap_err().to_string();
        let known = "there are: poll, applied_drift, transactions";
        assert_eq!(
            says("pol", "1"),
            format!("no parameter is called 'pol' (did you mean 'poll'?); {known}")
        );
        assert_eq!(says("xyzzy", "1"), format!("no parameter is called 'xyzzy'; {known}"));
        assert_eq!(says("poll", "soon"), "poll=soon: expected a number, like poll=30");
        assert_eq!(
            says("transactions", "1e3.5"),
            "transactions=1e3.5: expected a whole number, like transactions=10000"
        );
        assert_eq!(
            says("transactions", "100.5"),
            "transactions=100.5: expected a whole number, like transactions=10000"
        );
        assert_eq!(says("poll", "0"), "poll=0: out of range, which is 1 to 600 s");
        assert_eq!(
            says("transactions", "1"),
            "transactions=1: out of range, which is 100 to 1000000"
        );
        for never in ["NaN", "inf", "-inf", "", "1e999"] {
            let refused = setup(&[("poll", never)]);
            assert!(matches!(refused, Err(SetupError::NotANumber { .. })), "{never}");
        }
        let twice = setup(&[("poll", "2"), ("poll", "3")]).unwrap_err();
        assert_eq!(twice.to_string(), "poll is set twice");
        let none = Setup::new(&[], 0, &[("a".into(), "1".into())]).unwrap_err();
        assert_eq!(none.to_string(), "'a' cannot be set: this experiment has no parameters");
    }

    #[test]
    fn the_nearest_name_is_found() {
        assert_eq!(edits("kitten", "sitting"), 3);
        assert_eq!(edits("", "abc"), 3);
        assert_eq!(nearest("comit-wait", &["sawtooth", "commit-wait"]), Some("commit-wait"));
        assert_eq!(nearest("qqqqqq", &["sawtooth", "commit-wait"]), None);
        assert_eq!(nearest("a", &[]), None);
    }

    #[test]
    #[should_panic(expected = "no parameter epsilon")]
    fn a_name_that_is_not_there_is_a_bug() {
        setup(&[]).unwrap().get("epsilon");
    }

    #[test]
    #[should_panic(expected = "poll is not a count")]
    fn a_measure_is_no_count() {
        setup(&[]).unwrap().count("poll");
    }

    #[test]
    #[should_panic(expected = "breaks its own range")]
    fn parameters_keep_their_range() {
        let wrong = [Parameter::measure("p", "s", 3.0, (4.0, 5.0), "wrong")];
        let _ = Setup::new(&wrong, 0, &[]);
    }
}
