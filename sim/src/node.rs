//! One simulated machine: a server, its disk, its clock.

use crate::crash_points::Point;
use crate::effects::Effect;
use crate::strikes::Strike;
use crate::timekeeping::Keeper;
use proto::request::{Reply, Request};
use proto::{Error, GroupId, NodeId};
use spanserver::storage::{Durability, Engine, Memory, WriteOp};
use spanserver::{Event, Message, Pins, Server};
use std::collections::VecDeque;
use std::sync::Arc;
use truetime::TrueTime;
use truetime::daemon::{Ask, MasterKind};
use truetime::providers::Simulated;
use txn::server::{ReadJob, RequestId};

use crate::faults::Kind;
use futures::channel::oneshot;

/// What can happen in the world.
pub(crate) enum Action {
    Deliver {
        to: NodeId,
        from: NodeId,
        message: Message,
    },
    Request {
        to: NodeId,
        id: RequestId,
        request: Request,
    },
    Reply {
        id: RequestId,
        answer: Result<Reply, Error>,
    },
    DiskDone {
        node: NodeId,
        life: u32,
        batch: u64,
    },
    Read {
        node: NodeId,
        life: u32,
        group: GroupId,
        job: ReadJob,
    },
    Come {
        node: NodeId,
        life: u32,
        event: Event,
    },
    Wake {
        node: NodeId,
        life: u32,
    },
    /// A pause ends; what the step under way still has to do.
    Resume {
        node: NodeId,
        life: u32,
        effects: VecDeque<Effect>,
    },
    Timer(oneshot::Sender<()>),
    Restart {
        node: NodeId,
    },
    Mend {
        from: NodeId,
        to: NodeId,
    },
    Part {
        side: Vec<NodeId>,
        for_ns: u64,
    },
    Join {
        partition: u64,
    },
    /// A time daemon is stepped.
    Keep {
        node: NodeId,
    },
    AskMaster {
        node: NodeId,
        ask: Ask,
    },
    HearMaster {
        node: NodeId,
        ask: Ask,
        kind: MasterKind,
        content: (u64, u64),
    },
    /// A clock has a bound again.
    ClockBack {
        node: NodeId,
    },
    Fault(Kind),
}

impl Action {
    /// The process that has to run for this.
    pub fn process(&self) -> Option<NodeId> {
        match self {
            Action::Deliver { to, .. } | Action::Request { to, .. } => Some(*to),
            Action::DiskDone { node, .. }
            | Action::Read { node, .. }
            | Action::Come { node, .. }
            | Action::Wake { node, .. } => Some(*node),
            _ => None,
        }
    }
}

/// What happens to a process after so many more of its effects.
pub(crate) struct Trap {
    pub effects: u32,
    pub strike: Strike,
    /// The point of a commit at which it was laid.
    pub point: Option<Point>,
}

/// See the [module](self).
pub(crate) struct SimNode {
    pub engine: Arc<Memory>,
    /// What is wrong with its clock.
    pub skew: Simulated,
    /// Keeps its clock, in place of `skew`.
    pub keeper: Option<Keeper>,
    /// Its clock, as its process reads it.
    pub clock: TrueTime,
    /// `None`: down.
    pub server: Option<Server>,
    pub pins: Pins,
    /// Counts restarts, so that what belonged to an earlier life comes to nothing.
    pub life: u32,
    /// Batches on their way to the disk, oldest first.
    pub writing: VecDeque<(u64, Vec<WriteOp>)>,
    /// When they are there.
    pub syncs: Syncs,
    /// Until then syncs are slow.
    pub slow_until_ns: u64,
    pub wake_ns: u64,
    /// What the disk and the readers said while the clock had no bound (T5), in order.
    pub deferred: Vec<Event>,
    /// The clock has been found wrong since the last step.
    pub clock_was_wrong: bool,
    /// The process is paused: what came meanwhile.
    pub stalled: Option<Vec<Action>>,
    pub trap: Option<Trap>,
}

impl SimNode {
    pub fn new(engine: Arc<Memory>, skew: Simulated) -> SimNode {
        SimNode {
            engine,
            clock: TrueTime::new(skew.clone()),
            keeper: None,
            skew,
            server: None,
            pins: Pins::default(),
            life: 0,
            writing: VecDeque::new(),
            syncs: Syncs::default(),
            slow_until_ns: 0,
            wake_ns: u64::MAX,
            deferred: Vec::new(),
            clock_was_wrong: false,
            stalled: None,
            trap: None,
        }
    }

    /// The disk has taken this batch and all before it.
    pub fn disk_done(&mut self, batch: u64) {
        while self.writing.front().is_some_and(|(b, _)| *b <= batch) {
            let Some((_, ops)) = self.writing.pop_front() else { break };
            self.engine.write(&ops, Durability::Synced).expect("memory writes");
        }
    }

    /// The process is gone, and with it what it had in memory.
    pub fn stop(&mut self) {
        self.server = None;
        self.clock = match &mut self.keeper {
            Some(keeper) => {
                keeper.restart();
                keeper.clock()
            }
            None => TrueTime::new(self.skew.clone()),
        };
        self.pins = Pins::default();
        self.life += 1;
        self.writing.clear();
        self.syncs = Syncs::default();
        self.wake_ns = u64::MAX;
        self.deferred.clear();
        self.clock_was_wrong = false;
        self.stalled = None;
        self.trap = None;
    }

    /// Whether the next effect is one too many, and what comes instead of it.
    pub fn spring_trap(&mut self) -> Option<Trap> {
        match &mut self.trap {
            Some(trap) if trap.effects > 0 => {
                trap.effects -= 1;
                None
            }
            _ => self.trap.take(),
        }
    }
}

/// One sync at a time, and the next one takes whatever has come meanwhile, as the log writer does
/// (P5).
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Syncs {
    /// When the one under way ends, or the last one did.
    ends_ns: u64,
    /// When the next one ends, for which batches wait already.
    next_ns: Option<u64>,
}

impl Syncs {
    /// When a batch that comes now is on disk; `sync_ns` is how long a sync takes that begins with
    /// it.
    pub fn take(&mut self, now_ns: u64, sync_ns: u64) -> u64 {
        if now_ns >= self.ends_ns
            && let Some(next_ns) = self.next_ns.take()
        {
            self.ends_ns = next_ns;
        }
        if now_ns >= self.ends_ns {
            self.ends_ns = now_ns + sync_ns;
            return self.ends_ns;
        }
        let ends_ns = self.ends_ns;
        *self.next_ns.get_or_insert(ends_ns + sync_ns)
    }
}
