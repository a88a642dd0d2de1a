//! What one run is like, drawn from its seed.

use crate::crash_points::Point;
use crate::scenario::Scenario;
use crate::workloads::Kind as Work;
use paxos::Limits;
use rand::Rng;
use rand::rngs::SmallRng;
use std::fmt;

/// What stays broken in the liveness phase.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lasting {
    /// Nothing.
    Nothing,
    /// A minority is down for good.
    Crashed,
    /// A minority is cut off from all others for good.
    CutOff,
    /// Every node talks to its neighbours in a chain only (P8).
    Chain,
}

/// The options of a run. Probabilities are per message or occasion, times in microseconds; where
/// something happens "every" so often, that is a mean, and 0 means never.
#[derive(Clone, Debug)]
pub struct Options {
    /// The scenario.
    pub scenario: Scenario,
    /// Servers.
    pub nodes: u32,
    /// How many of them the groups are founded with; the others are blank.
    pub founders: u32,
    /// Groups with data.
    pub groups: u32,
    /// Half-width that all clocks claim, and keep to.
    pub epsilon_us: u64,
    /// Length of a lease; heartbeats and election jitter follow from it.
    pub lease_ms: u64,
    /// Bounds of the replicas: small ones make windows, probes and snapshots common.
    pub limits: Limits,
    /// Shortest and typical longest time of a message on its way between servers.
    pub latency_us: (u64, u64),
    /// The same between clients and servers.
    pub client_latency_us: (u64, u64),
    /// Probability that a message takes up to twenty times as long, and so is overtaken.
    pub straggler: f64,
    /// Probability that a message is lost.
    pub loss: f64,
    /// Probability that a message comes twice.
    pub duplication: f64,
    /// How much later the second copy may come.
    pub echo_us: u64,
    /// Shortest and longest time of a disk sync.
    pub sync_us: (u64, u64),
    /// Crashes of a random node, or of several.
    pub crash_every_us: u64,
    /// Whether some crashes take all nodes at once, or all but one (a power cut).
    pub power_cuts: bool,
    /// Cuts: one way, all around a node, chains.
    pub cut_every_us: u64,
    /// Longest time a crashed node stays down, or a cut lasts.
    pub outage_us: u64,
    /// Pauses of a process, of up to three leases.
    pub pause_every_us: u64,
    /// Times in which a disk takes up to 300 ms for a sync.
    pub slow_disk_every_us: u64,
    /// Steps of a clock within its bound.
    pub clock_step_every_us: u64,
    /// Times in which a clock has no bound.
    pub clock_loss_every_us: u64,
    /// Probability that a crashed node finds an entry of its log damaged.
    pub rot: f64,
    /// Probability that a leader comes into trouble as soon as it is elected, or has changed the
    /// members.
    pub ambush: f64,
    /// Whether ambushes follow a plot: every leader is cut off at once, with just too few others.
    pub plot: bool,
    /// Leadership is handed over by request.
    pub transfer_every_us: u64,
    /// The members are changed by request.
    pub change_every_us: u64,
    /// Probability that the operator's turn begins with a disk that is lost or damaged.
    pub damage: f64,
    /// Whether the operator asks all nodes at once, again and again, for its change.
    pub eager: bool,
    /// What stays broken in the liveness phase.
    pub lasting: Lasting,
    /// After how long a silent client loses its locks (X4).
    pub txn_timeout_ms: u64,
    /// Probability that a client forgets a transaction half-way, as if it had died.
    pub forgetful: f64,
    /// Probability that a client dies in the middle of an attempt, after any message.
    pub mortality: f64,
    /// The point of a commit over several groups at which leaders are struck.
    pub crash_point: Option<Point>,
    /// Whether locks end when a commit is chosen, and not when it takes effect.
    pub early_release: bool,
    /// What clients do.
    pub workload: Work,
    /// Clients at work, and what each does.
    pub clients: u32,
    /// Transactions of each client.
    pub operations: u32,
    /// How many of ten transactions add all accounts up, in the bank.
    pub audits: u32,
    /// Longest pause of a client between two of them.
    pub think_us: u64,
    /// Keys; fewer make more conflicts.
    pub keys: u32,
    /// How long the safety phase lasts at most.
    pub safety_us: u64,
}

fn pick<T: Copy>(rng: &mut SmallRng, of: &[T]) -> T {
    of[rng.random_range(0..of.len())]
}

impl Options {
    /// The options of a seed.
    pub fn draw(scenario: Scenario, rng: &mut SmallRng) -> Options {
        let mut options = Options::bank(rng);
        options.scenario = scenario;
        if scenario != Scenario::Bank {
            options.trouble(rng);
        }
        if scenario == Scenario::Membership {
            options.members(rng);
        } else if scenario.has_many_groups() {
            options.spread(rng);
        }
        options.outlast_a_round();
        // Last, so that it shuffles nothing that is drawn above.
        options.clock_loss_every_us = pick(rng, &[0, 0, 0, 500_000]);
        options
    }

    fn bank(rng: &mut SmallRng) -> Options {
        let fast = pick(rng, &[50, 200, 1_000]);
        let mut options = Options {
            scenario: Scenario::Bank,
            nodes: 3,
            founders: 3,
            groups: 4,
            epsilon_us: pick(rng, &[50, 500, 2_000, 7_000]),
            lease_ms: 500,
            latency_us: (fast, fast * pick(rng, &[2, 5, 20])),
            straggler: pick(rng, &[0.0, 0.01, 0.05]),
            loss: pick(rng, &[0.0, 0.005, 0.05]),
            duplication: pick(rng, &[0.0, 0.01, 0.1]),
            echo_us: 0,
            client_latency_us: (0, 0),
            sync_us: (50, pick(rng, &[100, 2_000, 20_000])),
            crash_every_us: pick(rng, &[0, 800_000, 2_000_000]),
            power_cuts: rng.random_bool(0.5),
            cut_every_us: pick(rng, &[0, 1_000_000, 3_000_000]),
            outage_us: pick(rng, &[300_000, 1_500_000, 4_000_000]),
            txn_timeout_ms: pick(rng, &[400, 1_500, 10_000]),
            forgetful: pick(rng, &[0.0, 0.05]),
            clients: rng.random_range(2..=6),
            operations: rng.random_range(6..=20),
            keys: pick(rng, &[4, 8, 24]),
            mortality: 0.0,
            crash_point: None,
            early_release: true,
            workload: Work::Bank,
            limits: limits(rng),
            pause_every_us: pick(rng, &[0, 0, 1_000_000]),
            slow_disk_every_us: pick(rng, &[0, 0, 2_000_000]),
            clock_step_every_us: pick(rng, &[0, 0, 500_000]),
            clock_loss_every_us: 0,
            rot: 0.0,
            ambush: 0.0,
            plot: false,
            transfer_every_us: 0,
            change_every_us: 0,
            damage: 0.0,
            eager: false,
            lasting: Lasting::Nothing,
            audits: 2,
            think_us: 0,
            safety_us: 8_000_000,
        };
        options.client_latency_us = options.latency_us;
        options
    }

    /// A world in which nothing goes wrong, and what takes time takes always the same: three
    /// servers, one group. Where experiments begin.
    pub fn quiet() -> Options {
        Options {
            scenario: Scenario::Bank,
            nodes: 3,
            founders: 3,
            groups: 1,
            epsilon_us: 0,
            lease_ms: 1_000,
            limits: Limits::default(),
            latency_us: (200, 200),
            client_latency_us: (200, 200),
            straggler: 0.0,
            loss: 0.0,
            duplication: 0.0,
            echo_us: 0,
            sync_us: (100, 100),
            crash_every_us: 0,
            power_cuts: false,
            cut_every_us: 0,
            outage_us: 1_000_000,
            pause_every_us: 0,
            slow_disk_every_us: 0,
            clock_step_every_us: 0,
            clock_loss_every_us: 0,
            rot: 0.0,
            ambush: 0.0,
            plot: false,
            transfer_every_us: 0,
            change_every_us: 0,
            damage: 0.0,
            eager: false,
            lasting: Lasting::Nothing,
            txn_timeout_ms: 10_000,
            forgetful: 0.0,
            mortality: 0.0,
            crash_point: None,
            early_release: true,
            workload: Work::Bank,
            clients: 0,
            operations: 0,
            audits: 0,
            think_us: 0,
            keys: 0,
            safety_us: 0,
        }
    }

    /// Short leases, all faults, few clients: many leaders within a few seconds.
    fn trouble(&mut self, rng: &mut SmallRng) {
        self.nodes = pick(rng, &[3, 3, 5]);
        self.founders = self.nodes;
        self.groups = pick(rng, &[1, 1, 2]);
        self.lease_ms = pick(rng, &[60, 120, 250]);
        self.crash_every_us = pick(rng, &[0, 150_000, 400_000]);
        self.cut_every_us = pick(rng, &[0, 200_000, 600_000]);
        self.outage_us = pick(rng, &[20_000, 150_000, 700_000]);
        self.pause_every_us = pick(rng, &[0, 300_000, 1_000_000]);
        self.slow_disk_every_us = pick(rng, &[0, 500_000]);
        self.rot = pick(rng, &[0.0, 0.0, 0.4]);
        self.ambush = pick(rng, &[0.0, 0.3, 0.8]);
        if self.ambush > 0.0 && rng.random_bool(0.75) {
            self.follow_plot(rng);
        }
        self.echo_us = pick(rng, &[0, 200_000]);
        if self.echo_us > 0 {
            self.duplication = 0.2;
        }
        self.epsilon_us = pick(rng, &[50, 2_000, 7_000, 7_000]);
        self.audits = pick(rng, &[2, 7]);
        self.transfer_every_us = pick(rng, &[0, 40_000, 150_000]);
        self.lasting =
            pick(rng, &[Lasting::Nothing, Lasting::Crashed, Lasting::CutOff, Lasting::Chain]);
        self.txn_timeout_ms = pick(rng, &[300, 800]);
        self.clients = rng.random_range(2..=4);
        self.operations = rng.random_range(8..=24);
        self.think_us = pick(rng, &[20_000, 150_000, 700_000]);
        self.keys = pick(rng, &[2, 4, 8]);
        self.safety_us = 3_000_000;
        let fit = 2 * self.safety_us / self.think_us;
        self.operations = self.operations.min(fit as u32 + 2);
        if self.groups > 1 && self.lasting == Lasting::Chain {
            // Two leaders that cannot talk to each other commit nothing together.
            self.lasting = Lasting::CutOff;
        }
    }

    fn follow_plot(&mut self, rng: &mut SmallRng) {
        self.plot = true;
        self.ambush = 0.6;
        self.crash_every_us = pick(rng, &[0, 300_000]);
        self.cut_every_us = 0;
        self.pause_every_us = 0;
        if rng.random_bool(0.7) {
            self.limits.message_slots = 1;
        }
    }

    fn members(&mut self, rng: &mut SmallRng) {
        if !self.plot && rng.random_bool(0.4) {
            self.follow_plot(rng);
        }
        self.nodes = 5;
        self.founders = pick(rng, if self.plot { &[3, 4, 4] } else { &[3, 4] });
        self.groups = 1;
        self.rot = 0.0; // the operator sees to that, when the group can bear it
        self.change_every_us = pick(rng, &[20_000, 100_000, 300_000]);
        self.transfer_every_us = pick(rng, &[0, 0, 300_000]);
        self.damage = pick(rng, &[0.0, 0.2, 0.3]);
        self.eager = self.plot || rng.random_bool(0.5);
        if self.plot {
            self.lease_ms = pick(rng, &[60, 120]);
            self.change_every_us = 20_000;
            self.damage = pick(rng, &[0.0, 0.0, 0.1]);
        }
        if self.lasting == Lasting::Chain {
            // No node need see a quorum of such voters as these.
            self.lasting = Lasting::Nothing;
        }
    }

    /// A lease begins as a quorum has answered, and ends a lease after it was asked (L2): one that is
    /// no longer than such a round with its syncs never begins, and one that is hardly longer serves
    /// hardly anybody. Nobody would run such a cluster, and no bound could be stated for it.
    fn outlast_a_round(&mut self) {
        let round_us = 2 * self.latency_us.1 + self.sync_us.1 + 2 * self.epsilon_us;
        for lease_ms in [120, 250, 500] {
            if 1_000 * self.lease_ms < 2 * round_us {
                self.lease_ms = self.lease_ms.max(lease_ms);
            }
        }
    }

    /// Several groups, with all that can go wrong where the disks stay well; the members change too.
    fn spread(&mut self, rng: &mut SmallRng) {
        self.groups = pick(rng, &[2, 3, 4]);
        self.nodes = pick(rng, &[3, 3, 4, 5]);
        self.founders = if self.nodes > 3 && rng.random_bool(0.5) { 3 } else { self.nodes };
        self.change_every_us = pick(rng, &[0, 0, 150_000, 500_000]);
        self.transfer_every_us = pick(rng, &[0, 60_000, 200_000]);
        self.eager = self.change_every_us > 0 && rng.random_bool(0.3);
        self.clients = rng.random_range(3..=6);
        self.operations = rng.random_range(10..=24);
        self.think_us = pick(rng, &[5_000, 50_000, 250_000]);
        self.keys = pick(rng, &[2, 4, 6, 12]);
        self.workload = self.scenario.workload();
        self.early_release = pick(rng, &[true, true, false]);
        if self.change_every_us > 0 {
            self.rot = 0.0; // who is still to be sent what it lost may be one too many
        } else {
            self.founders = self.nodes; // nobody else would ever belong
        }
        if self.sync_us.1 > 2_000 {
            // The groups of a node share its disk, and each renews its votes on it.
            self.groups = 2;
            self.lease_ms = 250;
        }
        if self.lasting == Lasting::Chain {
            // Two leaders that cannot talk to each other commit nothing together.
            self.lasting = Lasting::CutOff;
        }
        match self.scenario {
            Scenario::CoordinatorCrash | Scenario::ParticipantCrash => self.crash_points(rng),
            Scenario::ClientCrash => {
                self.workload = pick(rng, &[Work::Bank, Work::ListAppend, Work::ListAppend]);
                self.mortality = pick(rng, &[0.3, 0.6]);
            }
            _ => {}
        }
    }

    /// Leaders are struck at one point of the commit, and less often at random.
    fn crash_points(&mut self, rng: &mut SmallRng) {
        let points = match self.scenario {
            Scenario::CoordinatorCrash => &Point::COORDINATOR[..],
            _ => &Point::PARTICIPANT[..],
        };
        self.crash_point = Some(pick(rng, points));
        if self.crash_point == Some(Point::BeforeNotify) {
            self.early_release = false; // else the participants hear before the client
        }
        self.workload = pick(rng, &[Work::Bank, Work::ListAppend, Work::ListAppend]);
        self.crash_every_us *= 2;
        self.cut_every_us *= 2;
        self.ambush = 0.0;
        self.plot = false;
        self.loss = self.loss.min(0.005);
    }

    /// How often a leader says that it is there.
    pub fn heartbeat_ms(&self) -> u64 {
        self.lease_ms / 5
    }

    /// Random part of an election time-out.
    pub fn election_jitter_ms(&self) -> u64 {
        self.lease_ms * 3 / 10
    }
}

fn limits(rng: &mut SmallRng) -> Limits {
    let normal = Limits::default();
    if rng.random_bool(0.25) {
        return normal;
    }
    Limits {
        message_slots: pick(rng, &[1, 1, 4]),
        ahead_slots: pick(rng, &[2, 16]),
        log_slots: pick(rng, &[0, 0, 1, 4]),
        chunk_us: pick(rng, &[0, 2_000]),
        ..normal
    }
}

impl fmt::Display for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} nodes, {} founders, {} groups, ε {} µs, lease {} ms, latency {}..{} µs, stragglers \
             {}, loss {}, duplication {} echo {} µs, sync {} µs, messages of {} slots, logs of {}",
            self.nodes,
            self.founders,
            self.groups,
            self.epsilon_us,
            self.lease_ms,
            self.latency_us.0,
            self.latency_us.1,
            self.straggler,
            self.loss,
            self.duplication,
            self.echo_us,
            self.sync_us.1,
            self.limits.message_slots,
            self.limits.log_slots,
        )?;
        let every = [
            ("crash", self.crash_every_us),
            ("cut", self.cut_every_us),
            ("pause", self.pause_every_us),
            ("slow disk", self.slow_disk_every_us),
            ("clock step", self.clock_step_every_us),
            ("clock lost", self.clock_loss_every_us),
            ("transfer", self.transfer_every_us),
            ("change of members", self.change_every_us),
        ];
        for (what, every_us) in every.into_iter().filter(|(_, every_us)| *every_us > 0) {
            write!(f, ", {what} every {} ms", every_us / 1_000)?;
        }
        if self.power_cuts {
            f.write_str(", power cuts")?;
        }
        if self.plot {
            f.write_str(", by a plot")?;
        }
        if self.eager {
            f.write_str(", eager operator")?;
        }
        if !self.early_release {
            f.write_str(", late release")?;
        }
        if let Some(point) = self.crash_point {
            write!(f, ", crashes {point}")?;
        }
        let chances = [
            ("rot", self.rot),
            ("ambush", self.ambush),
            ("damage", self.damage),
            ("mortality", self.mortality),
        ];
        for (what, p) in chances {
            if p > 0.0 {
                write!(f, ", {what} {p}")?;
            }
        }
        write!(
            f,
            ", outages to {} ms, lasting: {:?}, silence {} ms, forgetful {}, {} clients × {} on {} \
             keys, {}",
            self.outage_us / 1_000,
            self.lasting,
            self.txn_timeout_ms,
            self.forgetful,
            self.clients,
            self.operations,
            self.keys,
            self.workload,
        )
    }
}
