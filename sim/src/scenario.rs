//! One run of a scenario: a safety phase with faults, a liveness phase without, the judgement.

use crate::checkers::progress::Bounds;
use crate::checkers::{external_consistency, snapshot};
use crate::executor::ClientPort;
use crate::history::{self, Ending, Operation, Violation};
use crate::operator::{Desk, Done, Operator, Orders};
use crate::options::{Lasting, Options};
use crate::plants;
use crate::tally::Tally;
use crate::workloads::{self, History, Kind, Worker, Workload, settling};
use crate::world::{World, stream};
use futures::FutureExt;
use parking_lot::Mutex;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;
use txn::client::ClientClock;

/// What is simulated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Scenario {
    /// Transactions across four groups on three servers.
    Bank,
    /// One or two groups on three or five servers with short leases, all faults but lost disks, and
    /// leaders that are asked to hand over.
    Paxos,
    /// One group on five servers, three or four of which founded it, whose members change all the
    /// time, and whose disks may be lost.
    Membership,
    /// Several groups with short leases, all faults but lost disks, leaders that hand over, members
    /// that change: lists to which transactions append themselves.
    ListAppend,
    /// As that: writers of single keys, readers of many.
    LongFork,
    /// As that: who writes has heard of the write before.
    CausalReverse,
    /// As that: pairs of keys that may not fall below zero together.
    WriteSkew,
    /// As that: reads of all kinds, at any replica.
    FollowerReads,
    /// As that: everyone increments one row.
    HotRow,
    /// As that: leaders that coordinate are struck at one of nine points of the commit.
    CoordinatorCrash,
    /// As that: leaders that take part are struck at one of seven points of the commit.
    ParticipantCrash,
    /// As that: clients die after any message of a transaction.
    ClientCrash,
}

impl Scenario {
    /// All of them.
    pub const ALL: [Scenario; 12] = [
        Scenario::Bank,
        Scenario::Paxos,
        Scenario::Membership,
        Scenario::ListAppend,
        Scenario::LongFork,
        Scenario::CausalReverse,
        Scenario::WriteSkew,
        Scenario::FollowerReads,
        Scenario::HotRow,
        Scenario::CoordinatorCrash,
        Scenario::ParticipantCrash,
        Scenario::ClientCrash,
    ];

    /// As the command line spells it.
    pub fn name(self) -> &'static str {
        match self {
            Scenario::Bank => "bank",
            Scenario::Paxos => "paxos",
            Scenario::Membership => "membership",
            Scenario::ListAppend => "list-append",
            Scenario::LongFork => "long-fork",
            Scenario::CausalReverse => "causal-reverse",
            Scenario::WriteSkew => "write-skew",
            Scenario::FollowerReads => "follower-reads",
            Scenario::HotRow => "hot-row",
            Scenario::CoordinatorCrash => "coordinator-crash",
            Scenario::ParticipantCrash => "participant-crash",
            Scenario::ClientCrash => "client-crash",
        }
    }

    /// What its clients do, where that is not drawn.
    pub(crate) fn workload(self) -> Kind {
        match self {
            Scenario::LongFork => Kind::LongFork,
            Scenario::CausalReverse => Kind::CausalReverse,
            Scenario::WriteSkew => Kind::WriteSkew,
            Scenario::FollowerReads => Kind::FollowerReads,
            Scenario::HotRow => Kind::HotRow,
            Scenario::ListAppend => Kind::ListAppend,
            Scenario::Bank | Scenario::Paxos | Scenario::Membership => Kind::Bank,
            Scenario::CoordinatorCrash | Scenario::ParticipantCrash | Scenario::ClientCrash => {
                Kind::ListAppend
            }
        }
    }

    /// Whether it has several groups whose leaders and members change.
    pub(crate) fn has_many_groups(self) -> bool {
        !matches!(self, Scenario::Bank | Scenario::Paxos | Scenario::Membership)
    }

    fn bounds(self, options: &Options) -> Bounds {
        let level_us = 2_000 * options.txn_timeout_ms + 20_000_000;
        match self {
            Scenario::Paxos | Scenario::Membership => Bounds { finish_us: 60_000_000, level_us },
            _ => Bounds { finish_us: 120_000_000, level_us },
        }
    }
}

impl fmt::Display for Scenario {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What one run did.
#[derive(Clone, Debug)]
pub struct Report {
    /// The options drawn from the seed.
    pub options: Options,
    /// Equal for equal runs.
    pub trace_hash: u64,
    /// What happened in the world.
    pub tally: Tally,
    /// What the operator did.
    pub operator: Done,
    /// Transactions committed, snapshots read, attempts with an unknown ending.
    pub committed: usize,
    /// See `committed`.
    pub snapshots: usize,
    /// See `committed`.
    pub unknown: usize,
}

/// The options of a seed, drawn as [`run`] itself draws them.
pub fn options(scenario: Scenario, seed: u64) -> Options {
    Options::draw(scenario, &mut stream(seed, 1))
}

/// Runs one seed.
///
/// # Errors
/// The first promise that was broken.
pub fn run(scenario: Scenario, seed: u64, trace: bool) -> Result<Report, Violation> {
    let options = options(scenario, seed);
    if trace {
        println!("seed {seed}: {options}");
    }
    let bounds = scenario.bounds(&options);
    let mut world = World::new(seed, options.clone(), trace);
    world.listen_to(plants::only(scenario));
    let workload = workloads::of(&options);
    let history: History = Arc::new(Mutex::new(Vec::new()));
    let mut workers: Vec<_> = (0..=options.clients)
        .map(|number| Worker::new(seed, number, &mut world, &history))
        .collect();

    // The bank opens its accounts while things break already; nobody else begins before that.
    if scenario == Scenario::Bank {
        world.begin_faults();
    }
    let opening = settling::open(workers.remove(0), workload.clone(), world.asked());
    world.spawn(opening.boxed());
    if !world.run(options.safety_us)? {
        world.heal()?;
        bounds.finished(world.run(bounds.finish_us)?, "to open the accounts")?;
    }
    if scenario != Scenario::Bank {
        world.begin_faults();
    }
    let desk = Desk::default();
    let done = Arc::new(Mutex::new(Done::default()));
    if scenario != Scenario::Bank {
        let operator = Operator::new(&mut world, seed, desk.clone(), done.clone());
        world.spawn(operator.work().boxed());
    }
    for worker in workers {
        world.spawn(worker.work(workload.clone()).boxed());
    }
    let finished = world.run(options.safety_us)?;
    calm_down(&mut world, &desk, &options)?;
    if !finished {
        let done = world.run(bounds.finish_us)?;
        bounds.finished(done, "to finish after the faults had ended")?;
    }
    if options.mortality > 0.0 {
        // X4, X9, X10: nobody asks for what the dead have left, and it is settled all the same.
        rest_until_level(&mut world, bounds)?;
    }
    let last = Worker::new(seed, options.clients + 1, &mut world, &history);
    let settling = settling::settle(last, workload.clone(), world.asked(), history.clone());
    world.spawn(settling.boxed());
    let settled = world.run(bounds.finish_us)?;
    bounds.finished(settled, "to settle unknown outcomes and read the final state")?;
    rest_until_level(&mut world, bounds)?;

    let history = history.lock();
    judge(&mut world, &history, workload.as_ref())?;
    let operator = *done.lock();
    Ok(report(&world, options, operator, &history))
}

/// The faults end, but for what is to last. What the operator has begun comes to an end first: who
/// is lost while a change is under way may be one too many.
fn calm_down(world: &mut World, desk: &Desk, options: &Options) -> Result<(), Violation> {
    *desk.lock() = Orders::Stop;
    world.heal()?;
    let mut lasting = options.lasting;
    if options.change_every_us > 0 {
        let mut quiet_ms = 0;
        for _ in 0..300 {
            world.run(50_000)?;
            let quiet = *desk.lock() == Orders::Stopped && world.all_agree_on_members();
            quiet_ms = if quiet { quiet_ms + 50 } else { 0 };
            if quiet_ms >= 700 {
                break; // later than any request of it can arrive
            }
        }
        if quiet_ms == 0 {
            lasting = Lasting::Nothing;
        }
    }
    *desk.lock() = Orders::PutInOrder(world.leave_out(lasting));
    Ok(())
}

/// Waits until silent clients have lost their locks and everyone has the same.
fn rest_until_level(world: &mut World, bounds: Bounds) -> Result<(), Violation> {
    let rester = Arc::new(world.client_port());
    let began_us = world.elapsed_us();
    loop {
        let missing = world.check_level();
        if bounds.level(world.elapsed_us() - began_us, missing)? {
            return Ok(());
        }
        world.spawn(rest(rester.clone(), Duration::from_millis(100)).boxed());
        world.run(bounds.finish_us)?;
    }
}

async fn rest(clock: Arc<ClientPort>, duration: Duration) {
    clock.sleep(duration).await;
}

/// All that is asked of a history and of what is left in the end.
fn judge(
    world: &mut World,
    history: &[Operation],
    workload: &dyn Workload,
) -> Result<(), Violation> {
    let atomic = world.check_atomicity();
    let verdicts = [
        atomic,
        snapshot::check(history),
        workload.judge(history),
        external_consistency::check(history),
        history::check(history),
    ];
    verdicts.into_iter().try_for_each(|verdict| world.judge(verdict))
}

fn report(world: &World, options: Options, operator: Done, history: &[Operation]) -> Report {
    let committed = |op: &&Operation| matches!(op.ending, Ending::At(_)) && !op.read_only();
    Report {
        options,
        trace_hash: world.trace_hash(),
        tally: world.tally(),
        operator,
        committed: history.iter().filter(committed).count(),
        snapshots: history.iter().filter(|op| op.read_only()).count(),
        unknown: history.iter().filter(|op| op.ended_ns == u64::MAX).count(),
    }
}
