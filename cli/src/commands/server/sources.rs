//! Who says what: flags before environment before file before defaults.

use super::fields::{CONFIG, FIELDS, Field, Kind, PREFIX, find, meant};
use crate::exit::Exit;
use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// Who said something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// The command line.
    Flag,
    /// The environment.
    Variable,
    /// The configuration file.
    File {
        /// Which.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
    },
    /// Nobody.
    Default,
}

/// What was said, as text; the texts of a list have commas between them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Said {
    /// What.
    pub text: String,
    /// By whom.
    pub by: Source,
}

impl Said {
    /// Where to look when what was said about `field` is wrong.
    pub fn place(&self, field: &Field) -> String {
        match &self.by {
            Source::Flag | Source::Default => format!("--{}", field.name),
            Source::Variable => field.variable(),
            Source::File { path, line } => format!("{}:{line}: {}", path.display(), field.name),
        }
    }
}

/// By whom, for a comment behind what was said.
impl fmt::Display for Said {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.by {
            Source::Flag => f.write_str("flag"),
            Source::Variable => f.write_str("environment"),
            Source::File { path, line } => write!(f, "{}:{line}", path.display()),
            Source::Default => f.write_str("default"),
        }
    }
}

/// What counts, for every field about which somebody says something.
pub type Effective = BTreeMap<&'static str, Said>;

/// The environment, as far as it is ours.
pub type Environment = BTreeMap<String, String>;

/// Our variables of this process. Empty ones count as not set, as everywhere.
///
/// # Errors
/// A value that is not Unicode.
pub fn environment() -> Result<Environment, Exit> {
    let ours =
        |name: &std::ffi::OsString| name.to_str().is_some_and(|name| name.starts_with(PREFIX));
    let mut environment = Environment::new();
    for (name, value) in std::env::vars_os().filter(|(name, _)| ours(name)) {
        let name = name.to_string_lossy().into_owned();
        let value = value
            .into_string()
            .map_err(|value| Exit::Usage(format!("{name}: {value:?} is not Unicode")))?;
        environment.insert(name, value);
    }
    environment.retain(|_, value| !value.is_empty());
    Ok(environment)
}

/// The file that flag or environment name, if any.
pub fn file(flag: Option<&Path>, environment: &Environment) -> Option<PathBuf> {
    let variable = environment.get(&format!("{PREFIX}{}", CONFIG.to_uppercase()));
    flag.map(Path::to_path_buf).or_else(|| variable.map(PathBuf::from))
}

/// What counts.
///
/// # Errors
/// What is wrong with the file, and in which line.
pub fn gather(
    flags: &BTreeMap<&'static str, String>,
    environment: &Environment,
    file: Option<(&Path, &str)>,
) -> Result<Effective, Exit> {
    let mut effective = Effective::new();
    for field in FIELDS {
        if let Some(default) = field.default {
            effective.insert(field.name, Said { text: default.to_owned(), by: Source::Default });
        }
    }
    if let Some((path, text)) = file {
        effective.extend(read(path, text)?);
    }
    for field in FIELDS {
        if let Some(text) = environment.get(&field.variable()) {
            effective.insert(field.name, Said { text: text.clone(), by: Source::Variable });
        }
        if let Some(text) = flags.get(field.name) {
            effective.insert(field.name, Said { text: text.clone(), by: Source::Flag });
        }
    }
    Ok(effective)
}

/// Variables that look as if they were meant for us and are not heard: others may have variables of
/// their own with our prefix (a service named `meridian` in Kubernetes does), so they are no errors.
pub fn unheard(environment: &Environment) -> Vec<String> {
    let known: Vec<String> = FIELDS.iter().map(Field::variable).collect();
    let names: Vec<&str> = known.iter().map(|name| &name[PREFIX.len()..]).collect();
    let config = CONFIG.to_uppercase();
    let unknown = environment.keys().filter_map(|name| name.strip_prefix(PREFIX));
    unknown
        .filter(|name| !names.contains(name) && **name != config)
        .filter_map(|name| {
            let near = sim::lab::nearest(name, &names)?;
            Some(format!("{PREFIX}{name} is not heard: did you mean {PREFIX}{near}?"))
        })
        .collect()
}

fn read(path: &Path, text: &str) -> Result<Effective, Exit> {
    let line_of = |at: usize| 1 + text[..at.min(text.len())].matches('\n').count();
    let wrong = |at: usize, what: String| {
        Err(Exit::Usage(format!("{}:{}: {what}", path.display(), line_of(at))))
    };
    let table = match DeTable::parse(text) {
        Ok(table) => table,
        Err(error) => {
            return wrong(error.span().map_or(0, |span| span.start), error.message().into());
        }
    };
    let names: Vec<&str> = FIELDS.iter().map(|field| field.name).collect();
    let mut said = Effective::new();
    for (key, value) in table.get_ref() {
        let at = key.span().start;
        let Some(field) = find(key.get_ref()) else {
            let hint = meant(key.get_ref(), &names)
                .unwrap_or_else(|| format!("there are: {}", names.join(", ")));
            return wrong(at, format!("nothing is called {}\nHint: {hint}", key.get_ref()));
        };
        match written(field, value) {
            Ok(text) => {
                let by = Source::File { path: path.to_path_buf(), line: line_of(at) };
                said.insert(field.name, Said { text, by });
            }
            Err(hint) => {
                return wrong(at, format!("{} is written otherwise\nHint: {hint}", field.name));
            }
        }
    }
    Ok(said)
}

/// A value as text; or how it is to be written.
fn written(field: &Field, value: &Spanned<DeValue<'_>>) -> Result<String, String> {
    let name = field.name;
    match (field.kind, value.get_ref()) {
        (Kind::Text, DeValue::String(text)) => Ok(text.to_string()),
        (Kind::Text, _) => Err(format!("{name} = \"{}\"", field.placeholder)),
        (Kind::Number, DeValue::Integer(number)) => Ok(number.to_string()),
        (Kind::Number, _) => Err(format!("{name} = {}", field.default.unwrap_or("1"))),
        (Kind::Switch, DeValue::Boolean(is)) => Ok(is.to_string()),
        (Kind::Switch, _) => Err(format!("{name} = true, or {name} = false")),
        (Kind::List, DeValue::Array(items)) => {
            let text = |item: &Spanned<DeValue<'_>>| item.get_ref().as_str().map(str::to_owned);
            let texts: Option<Vec<String>> = items.iter().map(text).collect();
            texts.map(|texts| texts.join(",")).ok_or_else(|| list_form(name))
        }
        (Kind::List, DeValue::String(text)) => Ok(text.to_string()),
        (Kind::List, _) => Err(list_form(name)),
    }
}

fn list_form(name: &str) -> String {
    format!("{name} = [\"HOST:PORT\", \"HOST:PORT\"]")
}
