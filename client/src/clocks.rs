//! The clocks of a universe: one for each node, one for the clients (T6).
//!
//! Nodes of one process could share a clock. They do not: each has its own, of its own provider or
//! of its own settings, so that one can be wrong while the others are right, and so that what runs
//! here in one process runs there in many.

use crate::error::OpenError;
use proto::NodeId;
use spanserver::Settings;
use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::{Duration, Instant};
use thiserror::Error;
use truetime::providers::{HostTime, Opened, Skew, open};
use truetime::spec::{ClockChange, ClockSpec, ClockSpecs};
use truetime::{ClockError, Reading, Sources, TrueTime};

/// How often a clock without a bound is asked again.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// Waiting for less is not worth a word.
const TELL_AFTER: Duration = Duration::from_millis(500);

/// Who goes by a clock. `n2`, or `client`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Whose {
    /// A node.
    Node(NodeId),
    /// The clients, and everything in the process that is not a node.
    Client,
}

impl fmt::Display for Whose {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Whose::Node(node) => node.fmt(f),
            Whose::Client => f.pad("client"),
        }
    }
}

impl FromStr for Whose {
    type Err = ClockChangeError;

    fn from_str(text: &str) -> Result<Whose, ClockChangeError> {
        let number = text.strip_prefix('n').and_then(|digits| digits.parse().ok());
        match (text, number) {
            ("client", _) => Ok(Whose::Client),
            (_, Some(number)) => Ok(Whose::Node(NodeId(number))),
            _ => Err(ClockChangeError::Unknown(text.to_owned())),
        }
    }
}

/// Why a clock was not changed.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ClockChangeError {
    /// The universe was opened without that permission.
    #[error("clocks of this universe may not be made wrong")]
    NotAllowed,
    /// Only simulated clocks are changed.
    #[error("the clock of {whose} is no simulated one, but {provider}")]
    NotSimulated {
        /// Whose it is.
        whose: Whose,
        /// What it is.
        provider: &'static str,
    },
    /// Nobody here is called that.
    #[error("nobody here is called `{0}`")]
    Unknown(String),
    /// The bound would be too wide for the leases (L7).
    #[error("{0}")]
    TooWide(String),
}

impl ClockChangeError {
    /// What to do about it.
    pub fn hint(&self) -> &'static str {
        match self {
            ClockChangeError::NotAllowed => "open it with --allow-clock-faults",
            ClockChangeError::NotSimulated { .. } => {
                "open it with --clock simulated:epsilon=5ms, or another such clock"
            }
            ClockChangeError::Unknown(_) => "n1, n2, n3, or client",
            ClockChangeError::TooWide(_) => "choose a smaller ε",
        }
    }
}

/// One clock, and what it says now.
#[derive(Clone, Debug)]
pub struct NodeClock {
    /// Whose it is.
    pub whose: Whose,
    /// How it was opened.
    pub spec: ClockSpec,
    /// The interval that is now, or why there is none (T5).
    pub reading: Result<Reading, ClockError>,
    /// Where the time comes from.
    pub sources: Sources,
    /// Of a simulated clock: what is wrong with it.
    pub skew: Option<Skew>,
    /// Of a simulated clock: by how much it is ahead of absolute time now, in nanoseconds.
    pub off_ns: Option<i64>,
}

struct One {
    spec: ClockSpec,
    opened: Opened,
}

/// All clocks of a universe; clones are the same ones.
#[derive(Clone)]
pub struct Clocks {
    inner: Arc<Inner>,
}

struct Inner {
    clocks: BTreeMap<Whose, One>,
    faults_allowed: bool,
    /// What ε has to fit (L7).
    settings: Settings,
}

impl Clocks {
    /// Opens one for each of the nodes 1 to `replicas`, and one for the clients. They need not have
    /// bounds yet.
    ///
    /// # Errors
    /// A provider that cannot be opened; a clock for a node that there is not.
    pub fn open(
        specs: &ClockSpecs,
        replicas: u32,
        faults_allowed: bool,
    ) -> Result<Self, OpenError> {
        if let Some(node) = specs.nodes.keys().find(|node| !(1..=replicas).contains(*node)) {
            return Err(OpenError::Invalid(format!(
                "a clock is chosen for n{node}, but the nodes are {}",
                if replicas == 1 { "n1 alone".to_owned() } else { format!("n1 to n{replicas}") }
            )));
        }
        let host = HostTime::new();
        let nodes = (1..=replicas).map(|n| (Whose::Node(NodeId(n)), specs.of_node(n)));
        let mut clocks = BTreeMap::new();
        for (whose, spec) in nodes.chain([(Whose::Client, specs.of_client())]) {
            let opened = open(spec, host).map_err(|source| OpenError::Clock { whose, source })?;
            clocks.insert(whose, One { spec: spec.clone(), opened });
        }
        let settings = Settings::default();
        Ok(Clocks { inner: Arc::new(Inner { clocks, faults_allowed, settings }) })
    }

    /// What they all say now: the nodes in order, the clients last.
    pub fn all(&self) -> Vec<NodeClock> {
        let seen = |(whose, one): (&Whose, &One)| {
            let simulated = one.opened.simulated.as_ref();
            let skew = simulated.map(|simulated| simulated.skew());
            let off = |skew: Skew| {
                simulated.map(|simulated| skew.drift.offset_ns(simulated.absolute_ns()))
            };
            NodeClock {
                whose: *whose,
                spec: one.spec.clone(),
                reading: one.opened.clock.read(),
                sources: one.opened.clock.sources(),
                skew,
                off_ns: skew.and_then(off),
            }
        };
        self.inner.clocks.iter().map(seen).collect()
    }

    /// Changes what is wrong with a simulated clock, from its next reading on.
    ///
    /// # Errors
    /// Why that may not be; then nothing is changed.
    pub fn set(&self, whose: Whose, change: &ClockChange) -> Result<(), ClockChangeError> {
        let unknown = || ClockChangeError::Unknown(whose.to_string());
        let one = self.inner.clocks.get(&whose).ok_or_else(unknown)?;
        if !self.inner.faults_allowed {
            return Err(ClockChangeError::NotAllowed);
        }
        let Some(simulated) = &one.opened.simulated else {
            let provider = one.spec.provider();
            return Err(ClockChangeError::NotSimulated { whose, provider });
        };
        if let Some(epsilon_us) = change.epsilon_us {
            self.inner.settings.validate(epsilon_us).map_err(ClockChangeError::TooWide)?;
        }
        simulated.set(|skew| change.apply(simulated.absolute_ns(), skew));
        Ok(())
    }

    pub(crate) fn of(&self, whose: Whose) -> TrueTime {
        self.inner.clocks[&whose].opened.clock.clone()
    }

    /// Waits until the clients and a majority of the nodes have a bound: with fewer, no group has a
    /// leader. A node that comes later joins in by itself (T5).
    ///
    /// # Errors
    /// `NoTime` at the limit; `Invalid` for bounds that are too wide for the leases (L7).
    pub(crate) async fn wait(
        &self,
        limit: Duration,
        tell: Option<fn(&str)>,
    ) -> Result<(), OpenError> {
        let began = Instant::now();
        let mut told = false;
        loop {
            let all = self.all();
            let with_bound = |clock: &&NodeClock| clock.reading.is_ok();
            let nodes = || all.iter().filter(|clock| clock.whose != Whose::Client);
            let majority = nodes().count() / 2 + 1;
            let client = all.iter().find(|clock| clock.whose == Whose::Client);
            let serves = nodes().filter(with_bound).count() >= majority;
            if serves && client.as_ref().is_some_and(with_bound) {
                return self.fits_leases(&all);
            }
            let without = all.iter().find_map(|clock| {
                clock.reading.as_ref().err().map(|error| format!("{}: {error}", clock.whose))
            });
            let reason = without.unwrap_or_default();
            if began.elapsed() >= limit {
                return Err(OpenError::NoTime { waited: limit, reason });
            }
            if let Some(tell) = tell.filter(|_| !told && began.elapsed() >= TELL_AFTER) {
                tell(&format!("waiting for the time, up to {} s ({reason})", limit.as_secs()));
                told = true;
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// L7, with what ε is now and what it will grow to.
    fn fits_leases(&self, all: &[NodeClock]) -> Result<(), OpenError> {
        let worst_us = |clock: &NodeClock| {
            let now_us = clock.reading.as_ref().map_or(0, |reading| reading.interval.epsilon_us());
            now_us + clock.spec.growth_us()
        };
        let worst_us = all.iter().map(worst_us).max().unwrap_or(0);
        self.inner.settings.validate(worst_us).map_err(OpenError::Invalid)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn clocks(texts: &[&str], faults_allowed: bool) -> Result<Clocks, OpenError> {
        Clocks::open(&ClockSpecs::parse(texts).expect("clocks"), 3, faults_allowed)
    }

    #[test]
    fn everybody_has_a_clock_of_their_own() {
        let clocks =
            clocks(&["n2=simulated:offset=4ms,epsilon=5ms", "client=local"], true).unwrap();
        let all = clocks.all();
        let names: Vec<String> = all.iter().map(|clock| clock.whose.to_string()).collect();
        assert_eq!(names, ["n1", "n2", "n3", "client"]);
        assert_eq!(all[1].off_ns, Some(4_000_000));
        assert_eq!(all[0].off_ns, None);
        assert_eq!(all[1].reading.as_ref().unwrap().provider, "simulated");
    }

    #[test]
    fn only_simulated_clocks_are_changed_and_only_where_that_is_allowed() {
        let change: ClockChange = "offset=3ms".parse().unwrap();
        let node = |n| Whose::Node(NodeId(n));
        let strict = clocks(&["simulated"], false).unwrap();
        assert_eq!(strict.set(node(2), &change), Err(ClockChangeError::NotAllowed));
        let free = clocks(&["simulated", "n1=local"], true).unwrap();
        let error = ClockChangeError::NotSimulated { whose: node(1), provider: "local" };
        assert_eq!(free.set(node(1), &change), Err(error));
        assert_eq!(free.set(node(4), &change), Err(ClockChangeError::Unknown("n4".into())));
        let wide: ClockChange = "epsilon=251ms".parse().unwrap();
        let refused = free.set(node(2), &wide);
        assert!(matches!(refused, Err(ClockChangeError::TooWide(_))), "L7: {refused:?}");
        assert_eq!(free.set(node(2), &change), Ok(()));
        let offsets: Vec<_> = free.all().iter().map(|clock| clock.off_ns).collect();
        assert_eq!(offsets, [None, Some(3_000_000), Some(0), Some(0)]);
    }

    #[test]
    fn a_clock_for_a_node_that_is_not_there_is_refused() {
        let refused = clocks(&["n4=local"], false).err().map(|error| error.to_string());
        assert!(refused.is_some_and(|text| text.contains("n4") && text.contains("n1 to n3")));
    }

    #[tokio::test]
    async fn no_bound_at_the_start_is_waited_for_and_then_named() {
        let limit = Duration::from_millis(100);
        let broken = "simulated:offset=6ms,epsilon=5ms";
        let minority = format!("n2={broken}");
        assert!(clocks(&[&minority], false).unwrap().wait(limit, None).await.is_ok());
        for texts in [vec![broken, "client=local"], vec![&format!("client={broken}")]] {
            let refused = clocks(&texts, false).unwrap().wait(limit, None).await;
            let Err(OpenError::NoTime { reason, .. }) = refused else { panic!("{refused:?}") };
            assert!(reason.contains("off by 6000 µs"), "{reason}");
        }
        let wide = clocks(&["n3=simulated:epsilon=250ms"], false).unwrap();
        let refused = wide.wait(limit, None).await;
        assert!(matches!(&refused, Err(OpenError::Invalid(_))), "L7: {refused:?}");
    }
}
