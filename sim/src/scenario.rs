//! One run of a scenario: a safety phase with faults, a liveness phase without, the judgement.

use crate::checkers::progress::Bounds;
use crate::checkers::{conservation, external_consistency, snapshot};
use crate::clients::{self, History, OPENING_BALANCE, teller};
use crate::executor::ClientPort;
use crate::history::{Ending, Operation, Violation};
use crate::operator::{Desk, Done, Operator, Orders};
use crate::options::{Lasting, Options};
use crate::tally::Tally;
use crate::world::{World, stream};
use futures::FutureExt;
use parking_lot::Mutex;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;
use txn::client::ClientClock;

/// What is simulated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scenario {
    /// Transactions across four groups on three servers.
    Bank,
    /// One or two groups on three or five servers with short leases, all faults but lost disks, and
    /// leaders that are asked to hand over.
    Paxos,
    /// One group on five servers, three or four of which founded it, whose members change all the
    /// time, and whose disks may be lost.
    Membership,
}

impl Scenario {
    /// All of them.
    pub const ALL: [Scenario; 3] = [Scenario::Bank, Scenario::Paxos, Scenario::Membership];

    /// As the command line spells it.
    pub fn name(self) -> &'static str {
        match self {
            Scenario::Bank => "bank",
            Scenario::Paxos => "paxos",
            Scenario::Membership => "membership",
        }
    }

    fn bounds(self, options: &Options) -> Bounds {
        let level_us = 2_000 * options.txn_timeout_ms + 20_000_000;
        match self {
            Scenario::Bank => Bounds { finish_us: 120_000_000, level_us },
            Scenario::Paxos | Scenario::Membership => Bounds { finish_us: 60_000_000, level_us },
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
    let history: History = Arc::new(Mutex::new(Vec::new()));
    let mut tellers: Vec<_> =
        (0..=options.clients).map(|number| teller(seed, number, &mut world, &history)).collect();
    let settler = tellers.remove(0);
    let settle_client = settler.client.clone();

    // The bank opens its accounts while things break already; nobody else begins before that.
    if scenario == Scenario::Bank {
        world.begin_faults();
    }
    world.spawn(clients::open_accounts(settler).boxed());
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
    for teller in tellers {
        world.spawn(teller.work().boxed());
    }
    let finished = world.run(options.safety_us)?;
    calm_down(&mut world, &desk, &options)?;
    if !finished {
        let done = world.run(bounds.finish_us)?;
        bounds.finished(done, "to finish after the faults had ended")?;
    }
    let last = teller(seed, options.clients + 1, &mut world, &history);
    world.spawn(clients::settle(settle_client, last, history.clone()).boxed());
    let settled = world.run(bounds.finish_us)?;
    bounds.finished(settled, "to settle unknown outcomes and read the final state")?;
    rest_until_level(&mut world, bounds)?;

    let history = history.lock();
    judge(&history, &options)?;
    let operator = *done.lock();
    Ok(report(&world, options, operator, &history))
}

/// The faults end, but for what is to last. What the operator has begun comes to an end first: who
/// is lost while a change is under way may be one too many.
fn calm_down(world: &mut World, desk: &Desk, options: &Options) -> Result<(), Violation> {
    *desk.lock() = Orders::Stop;
    world.heal()?;
    let mut lasting = options.lasting;
    if options.scenario == Scenario::Membership {
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

fn judge(history: &[Operation], options: &Options) -> Result<(), Violation> {
    let total = OPENING_BALANCE * i64::from(options.accounts);
    snapshot::check(history)?;
    conservation::check(history, options.accounts as usize, total)?;
    external_consistency::check(history)
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
