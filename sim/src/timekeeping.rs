//! Clocks that are kept: by the time daemon that runs in production, from masters that are simulated.
//!
//! ```text
//!   master ─ drift, lies, silence ─┐
//!   master ───── delay, each way ──┼──► Daemon::step ──► Bound ──► Steered ──► TrueTime
//!   master ────────────────────────┘         ▲                        ▲
//!                                       Oscillator: absolute time and its drift
//! ```
//!
//! The daemon, the bound and the clock are the crate's; absolute time, the masters and the way to
//! them are the world's. A process that starts again has a daemon that knows nothing.

use crate::node::Action;
use crate::world::World;
use proto::NodeId;
use std::sync::Arc;
use truetime::daemon::{Answer, Ask, Daemon, DaemonConfig, MasterKind};
use truetime::providers::{Absolute, Drift, Oscillator, Steered};
use truetime::{Bound, Clock, ClockError, Reading, Sources, TrueTime};

/// What clocks that are kept are called.
const PROVIDER: &str = "masters";

/// A simulated time master.
#[derive(Clone, Copy, Debug)]
pub struct Master {
    /// What it says it stands on.
    pub kind: MasterKind,
    /// What it is off by; honest while that is within its uncertainty.
    pub drift: Drift,
    /// Half the width that it says its time has, in nanoseconds.
    pub uncertainty_ns: u64,
    /// It says this time, whatever the time is.
    pub frozen_ns: Option<u64>,
    /// It does not answer.
    pub silent: bool,
}

impl Master {
    /// One that is right.
    pub fn honest() -> Master {
        Master {
            kind: MasterKind::Gps,
            drift: Drift::Constant { offset_ns: 0 },
            uncertainty_ns: 0,
            frozen_ns: None,
            silent: false,
        }
    }

    /// One that is off by so much, and does not know.
    pub fn lying(offset_ns: i64) -> Master {
        Master { drift: Drift::Constant { offset_ns }, ..Master::honest() }
    }

    /// What it says at an absolute time.
    fn says(&self, absolute_ns: u64) -> (u64, u64) {
        let off_ns = self.drift.offset_ns(absolute_ns);
        let middle_ns = self.frozen_ns.unwrap_or(absolute_ns.saturating_add_signed(off_ns));
        (middle_ns.saturating_sub(self.uncertainty_ns), middle_ns + self.uncertainty_ns)
    }
}

/// How the clocks of a world are kept.
#[derive(Clone, Debug)]
pub struct Timekeeping {
    /// What every daemon is told; another seed for each node, and as many masters as there are.
    pub daemon: DaemonConfig,
    /// From a node to a master, and back, in nanoseconds.
    pub delay_ns: u64,
    /// What each node's oscillator is off by, in the order of the nodes.
    pub oscillators: Vec<Drift>,
}

/// What keeps one node's clock.
pub(crate) struct Keeper {
    config: DaemonConfig,
    delay_ns: u64,
    daemon: Daemon,
    steered: Steered,
    /// When it is stepped next: absolute time.
    wake_ns: u64,
}

impl Keeper {
    /// The clock that it keeps, as a process reads it that has just started.
    pub fn clock(&self) -> TrueTime {
        TrueTime::new(self.steered.clone())
    }

    /// The process ends, and another one will begin.
    pub fn restart(&mut self) {
        self.daemon = Daemon::new(self.config.clone());
        self.steered.publish(Bound::none("nothing has been heard from its masters yet"));
    }
}

impl World {
    /// From now on the clocks of all nodes are kept by time daemons. Call it before the world runs.
    pub fn keep_time(&mut self, masters: Vec<Master>, how: &Timekeeping) {
        self.masters = masters;
        for (node, drift) in self.node_ids().into_iter().zip(&how.oscillators) {
            let absolute = Absolute::World(self.absolute());
            let drift = Arc::new(Arc::new(*drift).into());
            let steered = Steered::new(PROVIDER, Oscillator::Simulated { absolute, drift });
            let seed = how.daemon.seed ^ (u64::from(node.0) << 48);
            let config = DaemonConfig { seed, ..how.daemon.clone() };
            let daemon = Daemon::new(config.clone());
            let keeper = Keeper { config, delay_ns: how.delay_ns, daemon, steered, wake_ns: 0 };
            let this = self.node(node);
            this.clock = keeper.clock();
            this.keeper = Some(keeper);
            self.schedule(0, Action::Keep { node });
        }
    }

    /// The masters, to be changed at will.
    pub fn masters(&mut self) -> &mut [Master] {
        &mut self.masters
    }

    /// Changes the rate of a node's oscillator, in microseconds gained with each second; what it
    /// shows now stays.
    pub fn set_oscillator(&mut self, node: NodeId, rate_ppm: f64) {
        let since_ns = self.now_ns();
        let Some(keeper) = &self.nodes[&node].keeper else { return };
        if let Oscillator::Simulated { drift, .. } = keeper.steered.oscillator() {
            let offset_ns = drift.load().offset_ns(since_ns);
            drift.store(Arc::new(Drift::Linear { offset_ns, rate_ppm, since_ns }));
        }
        self.note(|| format!("{node} has an oscillator that gains {rate_ppm} µs/s"));
    }

    /// A node's clock, read as its process would.
    ///
    /// # Errors
    /// [`ClockError`]: it has no bound.
    pub fn reading(&self, node: NodeId) -> Result<Reading, ClockError> {
        self.nodes[&node].clock.read()
    }

    /// What a node's time daemon knows about its masters.
    pub fn sources(&self, node: NodeId) -> Sources {
        self.nodes[&node].keeper.as_ref().map(|keeper| keeper.steered.sources()).unwrap_or_default()
    }

    /// Steps a node's time daemon.
    pub(crate) fn keep(&mut self, node: NodeId, answer: Option<(Ask, MasterKind, (u64, u64))>) {
        let now_ns = self.now_ns();
        let Some(keeper) = &mut self.node(node).keeper else { return };
        let local_ns = keeper.steered.oscillator().now_ns();
        let answers = answer.map(|(Ask { master, id }, kind, content)| Answer {
            master,
            id,
            received_ns: local_ns,
            kind,
            content: Some(content),
        });
        let out = keeper.daemon.step(local_ns, answers.into_iter().collect());
        let news =
            out.bound.as_ref().map(|bound| format!("{node} keeps time by {:?}", bound.known));
        if let Some(bound) = out.bound {
            keeper.steered.publish(bound);
        }
        keeper.steered.tell(keeper.daemon.sources(local_ns));
        let delay_ns = keeper.delay_ns;
        // By the oscillator; should that be slow it is woken once more.
        let wait_ns = out.wake_at_ns.saturating_sub(local_ns).max(1_000);
        let wake = keeper.wake_ns <= now_ns || keeper.wake_ns > now_ns + wait_ns;
        if wake {
            keeper.wake_ns = now_ns + wait_ns;
            self.schedule(wait_ns, Action::Keep { node });
        }
        if let Some(news) = news {
            self.note(|| news);
        }
        for ask in out.ask {
            self.schedule(delay_ns, Action::AskMaster { node, ask });
        }
    }

    /// A question has come to a master.
    pub(crate) fn ask_master(&mut self, node: NodeId, ask: Ask) {
        let Some(master) = self.masters.get(ask.master).filter(|master| !master.silent) else {
            return;
        };
        let (kind, content) = (master.kind, master.says(self.now_ns()));
        let delay_ns = self.node(node).keeper.as_ref().map_or(0, |keeper| keeper.delay_ns);
        self.schedule(delay_ns, Action::HearMaster { node, ask, kind, content });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::Options;
    use truetime::Status;

    const S: u64 = 1_000_000;

    fn world(masters: Vec<Master>, rate_ppm: f64) -> World {
        let names = (1..=masters.len()).map(|n| format!("m{n}")).collect();
        let since_ns = 0;
        let how = Timekeeping {
            daemon: DaemonConfig::new(names, 7),
            delay_ns: 1_000_000,
            oscillators: vec![Drift::Linear { offset_ns: 0, rate_ppm, since_ns }; 3],
        };
        let mut world = World::new(7, Options::quiet(), false);
        world.keep_time(masters, &how);
        world
    }

    #[test]
    fn servers_work_by_clocks_that_are_kept() {
        let mut world = world(vec![Master::honest(); 3], 100.0);
        assert!(world.reading(NodeId(1)).is_err(), "nothing was heard yet");
        world.run_for(200 * S).unwrap(); // ends at the first interval without absolute time (T1)
        assert!(world.leader(proto::GroupId(1)).is_some());
        let reading = world.reading(NodeId(1)).unwrap();
        assert_eq!(reading.status, Status::Synchronized);
        assert!((1_000..=7_100).contains(&reading.interval.epsilon_us()), "{reading:?}");
        assert_eq!(world.sources(NodeId(1)).masters.len(), 3);
        world.crash(NodeId(1));
        assert!(world.reading(NodeId(1)).is_err(), "a process that starts has asked nobody");
        world.run_for(10 * S).unwrap();
        assert!(world.reading(NodeId(1)).is_ok());
    }

    #[test]
    fn clocks_that_run_wrongly_from_the_start_are_found_out_before_they_are_wrong() {
        let mut world = world(vec![Master::honest(); 3], 2_000.0);
        world.run_for(200 * S).unwrap(); // ends at the first interval without absolute time (T1)
        assert_eq!(world.reading(NodeId(2)).unwrap_err().status, Status::Broken);
        let serves = |node: &NodeId| world.serves(*node, proto::GroupId(1));
        assert!(!world.nodes().iter().any(serves));
        world.set_oscillator(NodeId(2), 0.0);
        world.run_for(400 * S).unwrap();
        assert!(world.reading(NodeId(2)).is_ok(), "it runs well for long enough");
    }
}
