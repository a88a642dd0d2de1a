//! Which clock a node goes by, as people write it: what stands after `--clock`.
//!
//! ```text
//! local[:epsilon=µs]
//! simulated[:offset=µs,drift=µs/s,epsilon=µs,lie=µs,hasty,evict=on|off,applied=µs/s,check=ms]
//! masters:HOST:PORT,HOST:PORT,…[,poll=s,drift=µs/s,key-file=PATH,evict=on|off]
//! system
//! clockbound[:path=PATH]
//! ```
//!
//! A plain number is in the unit above; `250us`, `5ms`, `30s`, `2min` name their own. `n2=SPEC` is
//! the clock of node 2 alone, `client=SPEC` that of the clients; without a name it is everybody's
//! who has none of their own ([`ClockSpecs`]). A clock of a running universe is changed in the same
//! words ([`ClockChange`]).
//!
//! What each setting of a simulated clock does to the truth is told at [`SimulatedSpec`].

mod parse;
#[cfg(test)]
mod tests;

use crate::providers::{Drift, Local, Skew};
use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;
use thiserror::Error;

/// Which clock, and its settings. Parses from what [`Display`](fmt::Display) writes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClockSpec {
    /// The host's clock with a constant ε: [`providers::Local`](crate::providers::Local).
    Local {
        /// Half-width, in microseconds.
        epsilon_us: u64,
    },
    /// A clock that is wrong as it is told.
    Simulated(SimulatedSpec),
    /// Time masters, polled by a daemon in this process.
    Masters(MastersSpec),
    /// What the kernel says about its own clock (`adjtimex`).
    System,
    /// The AWS ClockBound daemon of this host.
    ClockBound {
        /// Its shared memory file; `None`: where it is by default. Without commas.
        path: Option<String>,
    },
}

impl ClockSpec {
    /// The providers, as `--clock` spells them.
    pub const PROVIDERS: [&str; 5] = ["local", "simulated", "masters", "system", "clockbound"];

    /// The provider's name.
    pub fn provider(&self) -> &'static str {
        match self {
            ClockSpec::Local { .. } => "local",
            ClockSpec::Simulated(_) => "simulated",
            ClockSpec::Masters(_) => "masters",
            ClockSpec::System => "system",
            ClockSpec::ClockBound { .. } => "clockbound",
        }
    }

    /// By how much ε grows from its least to its most while all goes well, in microseconds: the
    /// height of the sawtooth (T3).
    pub fn growth_us(&self) -> u64 {
        match self {
            // A round of polls may be jittered, and its answers take their time.
            ClockSpec::Masters(spec) => {
                (spec.poll_ms * 5 / 4 * u64::from(spec.drift_ppm)).div_ceil(1_000)
            }
            _ => 0,
        }
    }
}

impl Default for ClockSpec {
    fn default() -> ClockSpec {
        ClockSpec::Local { epsilon_us: Local::EPSILON_US_DEFAULT }
    }
}

/// A clock with chosen errors: absolute time is that of the host, and this is what the node sees
/// of it. Honest while `|offset + drift · time| ≤ epsilon − lie` and it is not hasty; beyond, a node
/// with this clock breaks what it promised others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SimulatedSpec {
    /// What it is ahead of absolute time by at the start (negative: behind), in microseconds.
    pub offset_us: i64,
    /// What it gains with each second (negative: loses), in microseconds.
    pub drift_ppm: i64,
    /// Half the width of its intervals, in microseconds.
    pub epsilon_us: u64,
    /// By how much it claims less than that.
    pub lie_us: u64,
    /// It gives its latest time as its earliest too, so that nobody waits for a timestamp to pass:
    /// commit wait off.
    pub hasty: bool,
    /// It looks now and then whether it keeps its promise, and is broken when it does not (T5).
    /// Without that, the node goes on with a wrong clock.
    pub evict: bool,
    /// The drift that it allows for: more is broken. In microseconds per second.
    pub applied_ppm: u32,
    /// How often it looks, in milliseconds.
    pub check_ms: u64,
}

impl Default for SimulatedSpec {
    fn default() -> SimulatedSpec {
        SimulatedSpec {
            offset_us: 0,
            drift_ppm: 0,
            epsilon_us: 1_000,
            lie_us: 0,
            hasty: false,
            evict: true,
            applied_ppm: 200,
            check_ms: 250,
        }
    }
}

impl SimulatedSpec {
    /// What is wrong with the clock when it starts at this absolute time.
    pub fn skew(&self, absolute_ns: u64) -> Skew {
        let offset_ns = self.offset_us.saturating_mul(1_000);
        let drift = Drift::Constant { offset_ns };
        let mut skew = Skew::new(drift, self.epsilon_us.saturating_mul(1_000));
        if self.drift_ppm != 0 {
            skew.set_rate(absolute_ns, self.drift_ppm as f64);
        }
        skew.lie_ns = self.lie_us.saturating_mul(1_000);
        skew.hasty = self.hasty;
        skew
    }

    /// Whether it keeps its promise for as long as nobody changes it.
    pub fn is_honest(&self) -> bool {
        let claims_us = self.epsilon_us.saturating_sub(self.lie_us);
        self.drift_ppm == 0 && self.offset_us.unsigned_abs() <= claims_us && !self.hasty
    }
}

/// Time masters and how they are asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MastersSpec {
    /// `HOST:PORT` of each; not empty.
    pub addresses: Vec<String>,
    /// From one round of polls to the next, in milliseconds.
    pub poll_ms: u64,
    /// The applied drift rate: how much the local oscillator may be off, in microseconds per
    /// second (T3).
    pub drift_ppm: u32,
    /// The file with the key that proves that a master is one; `None`: anybody on this host may say
    /// that it is, and masters beyond it are refused. Without commas.
    pub key_file: Option<String>,
    /// Whether a clock that breaks the applied rate is broken (T5), or goes on.
    pub evict: bool,
}

impl MastersSpec {
    /// These masters, asked as usual.
    pub fn new(addresses: Vec<String>) -> MastersSpec {
        MastersSpec { addresses, poll_ms: 30_000, drift_ppm: 200, key_file: None, evict: true }
    }
}

/// The clocks of all nodes and of the clients.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClockSpecs {
    /// Of everybody who has none of their own.
    pub all: ClockSpec,
    /// Of single nodes, by number.
    pub nodes: BTreeMap<u32, ClockSpec>,
    /// Of the clients, and of everything in the process that is not a node.
    pub client: Option<ClockSpec>,
}

impl ClockSpecs {
    /// From what was written, one text for each `--clock`.
    ///
    /// # Errors
    /// What is wrong with which text, and where.
    pub fn parse<T: AsRef<str>>(texts: &[T]) -> Result<ClockSpecs, SpecError> {
        parse::specs(texts.iter().map(AsRef::as_ref))
    }

    /// The clock of a node.
    pub fn of_node(&self, node: u32) -> &ClockSpec {
        self.nodes.get(&node).unwrap_or(&self.all)
    }

    /// The clock of the clients.
    pub fn of_client(&self) -> &ClockSpec {
        self.client.as_ref().unwrap_or(&self.all)
    }
}

/// A change of a simulated clock that runs: `drift=2000 offset=-3ms epsilon=5ms lie=2ms hasty=on`,
/// or `honest`. What is not named stays.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClockChange {
    /// First of all: no offset, no drift, no lie, not hasty. ε stays.
    pub honest: bool,
    /// See [`SimulatedSpec::offset_us`]; as of the change.
    pub offset_us: Option<i64>,
    /// See [`SimulatedSpec::drift_ppm`]; what it is off by already, it stays.
    pub drift_ppm: Option<i64>,
    /// See [`SimulatedSpec::epsilon_us`].
    pub epsilon_us: Option<u64>,
    /// See [`SimulatedSpec::lie_us`].
    pub lie_us: Option<u64>,
    /// See [`SimulatedSpec::hasty`].
    pub hasty: Option<bool>,
}

impl ClockChange {
    /// A clock that was wrong is put right.
    pub fn honest() -> ClockChange {
        ClockChange { honest: true, ..ClockChange::default() }
    }

    /// Another rate from now on, in microseconds gained per second.
    pub fn drift(drift_ppm: i64) -> ClockChange {
        ClockChange { drift_ppm: Some(drift_ppm), ..ClockChange::default() }
    }

    /// Changes a skew at this absolute time.
    pub fn apply(&self, absolute_ns: u64, skew: &mut Skew) {
        if self.honest {
            *skew = Skew::new(Drift::Constant { offset_ns: 0 }, skew.epsilon_ns);
        }
        if let Some(offset_us) = self.offset_us {
            skew.set_offset(absolute_ns, offset_us.saturating_mul(1_000));
        }
        if let Some(drift_ppm) = self.drift_ppm {
            skew.set_rate(absolute_ns, drift_ppm as f64);
        }
        if let Some(epsilon_us) = self.epsilon_us {
            skew.epsilon_ns = epsilon_us.saturating_mul(1_000);
        }
        if let Some(lie_us) = self.lie_us {
            skew.lie_ns = lie_us.saturating_mul(1_000);
        }
        skew.hasty = self.hasty.unwrap_or(skew.hasty);
    }
}

/// Why a text names no clock.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{}", self.render())]
pub struct SpecError {
    /// What is wrong.
    pub message: String,
    /// What was written.
    pub text: String,
    /// Where in it, in characters from 0.
    pub at: usize,
    /// What may have been meant.
    pub hint: Option<String>,
}

impl SpecError {
    /// The message, the text with a caret below the place, and the hint.
    fn render(&self) -> String {
        let caret = " ".repeat(self.at);
        let hint = self.hint.as_ref().map_or(String::new(), |hint| format!("\nHint: {hint}"));
        format!("{}\n  {}\n  {caret}^{hint}", self.message, self.text)
    }
}

/// A length of time as it is written in these texts; a plain number is in seconds. `None`: it is none.
pub fn parse_duration(text: &str) -> Option<Duration> {
    parse::nanoseconds(text).map(Duration::from_nanos)
}

impl FromStr for ClockSpec {
    type Err = SpecError;

    fn from_str(text: &str) -> Result<ClockSpec, SpecError> {
        parse::spec(text, 0)
    }
}

impl FromStr for ClockChange {
    type Err = SpecError;

    fn from_str(text: &str) -> Result<ClockChange, SpecError> {
        parse::change(text)
    }
}

impl fmt::Display for ClockSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ClockSpec::Local { epsilon_us } => write!(f, "local:epsilon={epsilon_us}"),
            ClockSpec::Simulated(spec) => spec.fmt(f),
            ClockSpec::Masters(spec) => spec.fmt(f),
            ClockSpec::System => f.write_str("system"),
            ClockSpec::ClockBound { path: None } => f.write_str("clockbound"),
            ClockSpec::ClockBound { path: Some(path) } => write!(f, "clockbound:path={path}"),
        }
    }
}

impl fmt::Display for SimulatedSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let usual = SimulatedSpec::default();
        write!(f, "simulated:epsilon={}", self.epsilon_us)?;
        if self.offset_us != usual.offset_us {
            write!(f, ",offset={}", self.offset_us)?;
        }
        if self.drift_ppm != usual.drift_ppm {
            write!(f, ",drift={}", self.drift_ppm)?;
        }
        if self.lie_us != usual.lie_us {
            write!(f, ",lie={}", self.lie_us)?;
        }
        if self.hasty {
            f.write_str(",hasty")?;
        }
        if self.evict != usual.evict {
            f.write_str(",evict=off")?;
        }
        if self.applied_ppm != usual.applied_ppm {
            write!(f, ",applied={}", self.applied_ppm)?;
        }
        if self.check_ms != usual.check_ms {
            write!(f, ",check={}", self.check_ms)?;
        }
        Ok(())
    }
}

impl fmt::Display for MastersSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let usual = MastersSpec::new(Vec::new());
        write!(f, "masters:{}", self.addresses.join(","))?;
        if self.poll_ms != usual.poll_ms {
            write!(f, ",poll={}ms", self.poll_ms)?;
        }
        if self.drift_ppm != usual.drift_ppm {
            write!(f, ",drift={}", self.drift_ppm)?;
        }
        if let Some(path) = &self.key_file {
            write!(f, ",key-file={path}")?;
        }
        if self.evict != usual.evict {
            f.write_str(",evict=off")?;
        }
        Ok(())
    }
}
