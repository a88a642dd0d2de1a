//! What one run is like, drawn from its seed.

use rand::Rng;
use rand::rngs::SmallRng;
use std::fmt;

/// The options of a run. Probabilities are per message, times in microseconds.
#[derive(Clone, Debug)]
pub struct Options {
    /// Half-width that all clocks claim, and keep to.
    pub epsilon_us: u64,
    /// Shortest and typical longest time of a message on its way.
    pub latency_us: (u64, u64),
    /// Probability that a message takes up to twenty times as long, and so is overtaken.
    pub straggler: f64,
    /// Probability that a message is lost.
    pub loss: f64,
    /// Probability that a message comes twice.
    pub duplication: f64,
    /// Longest time of a disk sync.
    pub sync_us: u64,
    /// Mean time between crashes of a random node; 0: none.
    pub crash_every_us: u64,
    /// Whether some crashes take all nodes at once (a power cut).
    pub power_cuts: bool,
    /// Mean time between one-way cuts of a random link; 0: none.
    pub cut_every_us: u64,
    /// Longest time a crashed node stays down, or a cut lasts.
    pub outage_us: u64,
    /// After how long a silent client loses its locks (X4).
    pub txn_timeout_ms: u64,
    /// Probability that a client forgets a transaction half-way, as if it had died.
    pub forgetful: f64,
    /// Clients at work, and what each does.
    pub clients: u32,
    /// Transactions of each client.
    pub operations: u32,
    /// Accounts; fewer make more conflicts.
    pub accounts: u32,
    /// How long the safety phase lasts at most.
    pub safety_us: u64,
}

impl Options {
    /// The options of a seed.
    pub fn draw(rng: &mut SmallRng) -> Options {
        let pick = |rng: &mut SmallRng, of: &[u64]| of[rng.random_range(0..of.len())];
        let fast = pick(rng, &[50, 200, 1_000]);
        Options {
            epsilon_us: pick(rng, &[50, 500, 2_000, 7_000]),
            latency_us: (fast, fast * pick(rng, &[2, 5, 20])),
            straggler: [0.0, 0.01, 0.05][rng.random_range(0..3)],
            loss: [0.0, 0.005, 0.05][rng.random_range(0..3)],
            duplication: [0.0, 0.01, 0.1][rng.random_range(0..3)],
            sync_us: pick(rng, &[100, 2_000, 20_000]),
            crash_every_us: pick(rng, &[0, 800_000, 2_000_000]),
            power_cuts: rng.random_bool(0.5),
            cut_every_us: pick(rng, &[0, 1_000_000, 3_000_000]),
            outage_us: pick(rng, &[300_000, 1_500_000, 4_000_000]),
            txn_timeout_ms: pick(rng, &[400, 1_500, 10_000]),
            forgetful: [0.0, 0.05][rng.random_range(0..2)],
            clients: rng.random_range(2..=6),
            operations: rng.random_range(6..=20),
            accounts: pick(rng, &[4, 8, 24]) as u32,
            safety_us: 8_000_000,
        }
    }
}

impl fmt::Display for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "ε {} µs, latency {}..{} µs, stragglers {}, loss {}, duplication {}, sync {} µs, crash \
             every {} ms{}, cut every {} ms, outages to {} ms, silence {} ms, forgetful {}, {} clients × {} on {} accounts",
            self.epsilon_us,
            self.latency_us.0,
            self.latency_us.1,
            self.straggler,
            self.loss,
            self.duplication,
            self.sync_us,
            self.crash_every_us / 1_000,
            if self.power_cuts { " (power cuts)" } else { "" },
            self.cut_every_us / 1_000,
            self.outage_us / 1_000,
            self.txn_timeout_ms,
            self.forgetful,
            self.clients,
            self.operations,
            self.accounts,
        )
    }
}
