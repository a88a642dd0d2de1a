//! What a server was told, understood and checked.

use super::fields::{FIELDS, Field, find};
use super::sources::{Effective, Said, Source};
use crate::exit::Exit;
use cluster::config::{Config, Init};
use rpc::security::{Security, SecurityError};
use std::path::PathBuf;
use std::time::Duration;
use tracing_subscriber::EnvFilter;
use truetime::spec::{ClockSpec, parse_duration};

/// How the log is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogForm {
    /// For people.
    Text,
    /// For programs: one JSON object a line.
    Json,
}

/// What a server was told.
#[derive(Debug)]
pub struct Settings {
    /// See [`FIELDS`] for each.
    pub node: u32,
    pub listen: String,
    pub advertise: Option<String>,
    pub data: PathBuf,
    pub join: Vec<String>,
    pub zone: String,
    pub clock: ClockSpec,
    pub tls_cert: Option<PathBuf>,
    pub tls_key: Option<PathBuf>,
    pub tls_ca: Option<PathBuf>,
    pub insecure: bool,
    pub allow_faults: bool,
    pub init: Option<Init>,
    pub http: Option<String>,
    pub log: LogForm,
    pub log_level: String,
    pub drain: Duration,
}

/// How far back the past may be kept, in seconds.
const RETENTION_S: std::ops::RangeInclusive<u64> = 1..=7 * 86_400;
/// Longer names of zones are mistakes.
const ZONE_LETTERS_MAX: usize = 64;

impl Settings {
    /// Understands what was said, and checks what can be checked without a look at the world.
    ///
    /// # Errors
    /// Which flag, variable or line of the file is wrong, and what to write instead.
    pub fn new(effective: &Effective) -> Result<Settings, Exit> {
        let told = Told(effective);
        let listen = told.needed("listen", address)?;
        let settings = Settings {
            node: told.needed("node", node)?,
            advertise: told.perhaps("advertise", reachable)?,
            data: told.needed("data", path)?,
            join: told.perhaps("join", addresses)?.unwrap_or_default(),
            zone: told.needed("zone", zone)?,
            clock: told.needed("clock", clock)?,
            tls_cert: told.perhaps("tls-cert", path)?,
            tls_key: told.perhaps("tls-key", path)?,
            tls_ca: told.perhaps("tls-ca", path)?,
            insecure: told.needed("insecure", switch)?,
            allow_faults: told.needed("allow-faults", switch)?,
            init: told.init()?,
            http: told.http(&listen)?,
            log: told.needed("log", log_form)?,
            log_level: told.needed("log-level", filter)?,
            drain: Duration::from_secs(
                told.needed("drain-seconds", |text| number(text, 0..=3_600))?,
            ),
            listen,
        };
        settings.check()?;
        Ok(settings)
    }

    /// What must fit together.
    fn check(&self) -> Result<(), Exit> {
        let (host, _) = split(&self.listen);
        let is_everywhere = ["0.0.0.0", "[::]"].contains(&host);
        if is_everywhere && self.advertise.is_none() {
            return Err(Exit::Usage(format!(
                "--listen {}: others cannot reach it under this address\nHint: say where they can: \
                 --advertise HOST:PORT",
                self.listen
            )));
        }
        let files = [&self.tls_cert, &self.tls_key, &self.tls_ca];
        if files.iter().all(|file| file.is_some()) && self.insecure {
            return Err(Exit::Usage(
                "--insecure contradicts --tls-cert, --tls-key and --tls-ca\nHint: leave it out: with \
                 TLS there is nothing to allow"
                    .to_owned(),
            ));
        }
        Ok(())
    }

    /// What the node is started with.
    ///
    /// # Errors
    /// Certificates that cannot be used.
    pub fn config(self) -> Result<Config, Exit> {
        let security = Security::from_files(self.tls_cert, self.tls_key, self.tls_ca);
        let security = security.map_err(|error| match error {
            SecurityError::Incomplete { .. } => Exit::Usage(error.to_string()),
            _ => Exit::failed(error),
        })?;
        Ok(Config {
            node: self.node,
            listen: self.listen,
            advertise: self.advertise,
            data: self.data,
            join: self.join,
            zone: self.zone,
            clock: self.clock,
            security,
            http: self.http,
            init: self.init,
            allow_faults: self.allow_faults,
            insecure: self.insecure,
        })
    }
}

/// Where metrics and health are when nobody says: the port of `listen` and so much more.
const HTTP_PORT_AHEAD: u16 = 1_000;

/// The value of `http` when nobody says: this host only, for the pages have no secrets and no locks
/// either.
pub fn http_default(listen: &str) -> String {
    let (_, port) = split(listen);
    let ahead = if port == 0 { None } else { port.checked_add(HTTP_PORT_AHEAD) };
    // Port 0 takes a free one.
    format!("127.0.0.1:{}", ahead.unwrap_or(0))
}

struct Told<'t>(&'t Effective);

impl Told<'_> {
    fn perhaps<T>(
        &self,
        name: &str,
        understand: impl FnOnce(&str) -> Result<T, String>,
    ) -> Result<Option<T>, Exit> {
        let Some((field, said)) = find(name).zip(self.0.get(name)) else { return Ok(None) };
        understand(&said.text).map(Some).map_err(|wrong| misunderstood(field, said, &wrong))
    }

    fn needed<T>(
        &self,
        name: &str,
        understand: impl FnOnce(&str) -> Result<T, String>,
    ) -> Result<T, Exit> {
        self.perhaps(name, understand)?.ok_or_else(|| missing(name))
    }

    fn init(&self) -> Result<Option<Init>, Exit> {
        let groups = self.needed("groups", |text| number(text, 1..=10_000))?;
        let replicas = self.needed("replicas", |text| match text {
            "1" | "3" | "5" | "7" => Ok(text.parse().unwrap_or(1)),
            _ => Err(format!("{text}: choose 1, 3, 5 or 7, so that one of two halves is larger")),
        })?;
        let retention = self.needed("retention", retention)?;
        let is_founder = self.needed("init", switch)?;
        let chosen = ["groups", "replicas", "retention"].into_iter().find_map(|name| {
            let said = self.0.get(name).filter(|said| said.by == Source::Flag)?;
            find(name).map(|field| said.place(field))
        });
        match chosen {
            // In a file that all nodes share it is in order.
            Some(flag) if !is_founder => Err(Exit::Usage(format!(
                "{flag} counts when a universe is founded, and never again\nHint: say --init as well \
                 on the node that founds it, or leave it out"
            ))),
            _ => Ok(is_founder.then_some(Init { groups: groups as u32, replicas, retention })),
        }
    }

    fn http(&self, listen: &str) -> Result<Option<String>, Exit> {
        let said = self.perhaps("http", |text| match text {
            "off" => Ok(None),
            text => address(text).map(Some).map_err(|wrong| format!("{wrong}, or off")),
        })?;
        Ok(said.unwrap_or_else(|| Some(http_default(listen))))
    }
}

fn misunderstood(field: &Field, said: &Said, wrong: &str) -> Exit {
    Exit::Usage(format!("{}: {wrong}", said.place(field)))
}

fn missing(name: &str) -> Exit {
    let field = FIELDS.iter().find(|field| field.name == name);
    let help = field.map_or("", |field| field.help);
    let variable = field.map(Field::variable).unwrap_or_default();
    Exit::Usage(format!(
        "--{name} is missing: {help}\nHint: it can also be {variable}, or stand in the file of \
         --config; examples are in `meridian server --help`"
    ))
}

fn node(text: &str) -> Result<u32, String> {
    let parsed = text.parse().ok().filter(|node| *node > 0);
    let digits = text.strip_prefix('n').filter(|digits| digits.parse::<u32>().is_ok());
    parsed.ok_or_else(|| match digits {
        Some(digits) => format!("{text}: the number alone: {digits}"),
        None => format!("{text} is no number of a node: 1 or more"),
    })
}

fn number(text: &str, range: std::ops::RangeInclusive<u64>) -> Result<u64, String> {
    let parsed = text.parse().ok().filter(|number| range.contains(number));
    parsed.ok_or_else(|| format!("{text}: a number from {} to {}", range.start(), range.end()))
}

fn switch(text: &str) -> Result<bool, String> {
    text.parse().map_err(|_| format!("{text}: true or false"))
}

fn path(text: &str) -> Result<PathBuf, String> {
    match text {
        "" => Err("an empty path".to_owned()),
        _ => Ok(PathBuf::from(text)),
    }
}

fn zone(text: &str) -> Result<String, String> {
    let is_name = |letter: char| letter.is_alphanumeric() || "-_.".contains(letter);
    if text.is_empty() || text.chars().count() > ZONE_LETTERS_MAX || !text.chars().all(is_name) {
        return Err(format!(
            "{text:?} is no name of a zone: 1 to {ZONE_LETTERS_MAX} letters, digits, - _ ."
        ));
    }
    Ok(text.to_owned())
}

fn clock(text: &str) -> Result<ClockSpec, String> {
    text.parse().map_err(|error: truetime::spec::SpecError| error.to_string())
}

fn retention(text: &str) -> Result<Duration, String> {
    let parsed = parse_duration(text).filter(|time| RETENTION_S.contains(&time.as_secs()));
    parsed.ok_or_else(|| {
        format!("{text}: a time from 1s to {}s, as 3600s or 90min", RETENTION_S.end())
    })
}

fn log_form(text: &str) -> Result<LogForm, String> {
    match text {
        "text" => Ok(LogForm::Text),
        "json" => Ok(LogForm::Json),
        _ => Err(format!("{text}: text or json\nHint: what is logged is chosen by --log-level")),
    }
}

fn filter(text: &str) -> Result<String, String> {
    match EnvFilter::builder().parse(text) {
        Ok(_) => Ok(text.to_owned()),
        Err(error) => Err(format!(
            "{text}: {error}\nHint: error, warn, info, debug or trace, or by part: info,rpc=debug"
        )),
    }
}

fn addresses(text: &str) -> Result<Vec<String>, String> {
    text.split(',').map(|item| reachable(item.trim())).collect()
}

/// An address to which one can connect.
fn reachable(text: &str) -> Result<String, String> {
    let text = address(text)?;
    match split(&text) {
        (_, 0) => Err(format!("{text}: nobody is reached at port 0")),
        _ => Ok(text),
    }
}

fn address(text: &str) -> Result<String, String> {
    let form = || format!("{text} is no address: HOST:PORT, as 10.0.0.1:7100 or [::1]:7100");
    let (host, port) = text.rsplit_once(':').ok_or_else(form)?;
    let is_bracketed = host.starts_with('[') && host.ends_with(']');
    let is_host = !host.is_empty() && (is_bracketed || !host.contains([':', '[', ']', '/', ' ']));
    match port.parse::<u16>() {
        Ok(_) if is_host => Ok(text.to_owned()),
        _ => Err(form()),
    }
}

/// Host and port of an address that was found to be one.
fn split(address: &str) -> (&str, u16) {
    let (host, port) = address.rsplit_once(':').unwrap_or((address, "0"));
    (host, port.parse().unwrap_or(0))
}
