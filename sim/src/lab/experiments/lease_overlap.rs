//! What a leader's clock has to do for two leaders to serve at the same time.

use super::support::stage::{Stage, key_in, steady};
use super::support::sweep::{failed, seed_of, sweep};
use super::support::{ms_ns, ms_us};
use crate::executor::ClientPort;
use crate::history::Violation;
use crate::lab::report::{Axis, Chart, Report, Style, Table, number};
use crate::lab::{Experiment, LabError, Parameter, Progress, Setup};
use crate::options::Options;
use crate::run::guarded;
use bytes::Bytes;
use futures::FutureExt;
use parking_lot::Mutex;
use proto::{GroupId, Key, NodeId};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use truetime::Timestamp;
use truetime::providers::{Drift, Skew};
use txn::client::{Client, ClientClock, ClientConfig, HashPlacement, TimestampBound};

/// How far off the leader's clock is in turn: of ε,
const STEPS: [f64; 4] = [0.0, 0.5, 1.0, 2.0];

/// and of a lease.
const FAR_STEPS: [f64; 6] = [0.1, 0.2, 0.4, 0.6, 0.8, 0.96];

/// Readers at the same time.
const READERS: u32 = 6;

/// How often it is looked who serves, in microseconds.
const LOOK_US: u64 = 500;

/// The leader that is to be wrong.
const OLD: NodeId = NodeId(1);
const GROUP: GroupId = GroupId(1);

const PARAMETERS: &[Parameter] = &[
    Parameter::measure("epsilon", "ms", 5.0, (0.5, 10.0), "the half-width that every clock claims"),
    Parameter::measure("lease", "ms", 500.0, (200.0, 5_000.0), "length of a lease"),
    Parameter::count("trials", "", 4, (1, 100), "runs at each error, with other elections"),
];

/// See the [module](self).
pub struct LeaseOverlap;

/// How a leader's clock can be wrong by D.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Error {
    /// D ahead while its lease is counted; from then on so slow that it is right a lease later.
    AheadThenSlow,
    /// D ahead while its lease is counted, then set right at once.
    SetBack,
    /// D ahead, always.
    Ahead,
    /// Right while its lease is counted; from then on so slow that it is D behind a lease later, and
    /// stays so.
    Slow,
}

impl Error {
    const ALL: [Error; 4] = [Error::AheadThenSlow, Error::SetBack, Error::Ahead, Error::Slow];

    fn name(self) -> &'static str {
        match self {
            Error::AheadThenSlow => "ahead, then slow",
            Error::SetBack => "ahead, then set back",
            Error::Ahead => "ahead all the time",
            Error::Slow => "running slow",
        }
    }
}

/// One world; times in milliseconds.
#[derive(Clone, Copy, Debug)]
pub struct Point {
    /// What is wrong.
    pub error: Error,
    /// By how much: D.
    pub off_ms: f64,
    /// What every clock claims.
    pub epsilon_ms: f64,
    /// Length of a lease.
    pub lease_ms: f64,
    /// Of the world.
    pub seed: u64,
}

impl Point {
    /// Whether a node notices for certain that its clock is set back by so much: by more than has
    /// passed since it last looked, and it looks at every heartbeat.
    fn is_noticed(&self) -> bool {
        self.off_ms > self.lease_ms / 5.0 + 2.0 * self.epsilon_ms
    }
}

/// What came of it.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// How long two leaders would have served at the same time, in milliseconds.
    pub overlap_ms: f64,
    /// Strong reads, and those that missed a write acknowledged before they began.
    pub reads: u64,
    /// See `reads`.
    pub stale: u64,
    /// How often the checker of leases has objected.
    pub objections: u64,
    /// The first stale read, told.
    pub story: Option<Vec<String>>,
}

/// What writer and readers did, in absolute time.
#[derive(Default)]
struct Seen {
    /// Number written, began, acknowledged, timestamp.
    writes: Vec<(u64, u64, u64, Timestamp)>,
    /// Number read, began, ended, timestamp.
    reads: Vec<(u64, u64, u64, Timestamp)>,
}

/// Cuts a leader off whose clock is wrong, while clients still reach it, and lets others elect one
/// of theirs.
///
/// # Errors
/// What a checker saw with a clock within its bound, or that there was no leader.
pub fn measure(point: Point) -> Result<Outcome, Violation> {
    let (epsilon_ns, off_ns) = (ms_ns(point.epsilon_ms), ms_ns(point.off_ms) as i64);
    let options = Options {
        epsilon_us: ms_us(point.epsilon_ms),
        lease_ms: point.lease_ms as u64,
        ..Options::quiet()
    };
    let right = steady(0, epsilon_ns);
    let at_first = if point.error == Error::Slow { right } else { steady(off_ns, epsilon_ns) };
    let mut stage = Stage::open(point.seed, options, &[right, right, right], &[OLD])?;
    if point.off_ms > point.epsilon_ms {
        stage.world.collect_violations();
    }
    stage.world.skew(OLD).set(|skew| *skew = at_first);
    let seen = Arc::new(Mutex::new(Seen::default()));
    let row = key_in(GROUP, 1, "row");
    start_clients(&mut stage, &row, 0, &seen);
    // Until all leases rest on the clock as it is now, and what it has dated ahead is past.
    stage.world.run_for(2 * ms_us(point.lease_ms) + 2 * ms_us(point.off_ms))?;
    if stage.world.leader(GROUP) != Some(OLD) {
        return Err(Violation::new("progress", "P8", format!("{OLD} does not lead")));
    }
    let cut_ns = stage.world.absolute_ns();
    // A group that sleeps learns of the beats that renewed its lease when it wakes.
    let mut lease_end = Timestamp::MIN;
    stage.world.cut_off(OLD);
    // How long a slow clock is slow. None runs backwards.
    let slow_ms = point.lease_ms.max(1.25 * point.off_ms);
    let slow = |offset_ns| {
        let rate_ppm = -point.off_ms / slow_ms * 1e6;
        Skew::new(Drift::Linear { offset_ns, rate_ppm, since_ns: cut_ns }, epsilon_ns)
    };
    let (then, in_the_end) = match point.error {
        Error::AheadThenSlow => (slow(off_ns), right),
        Error::SetBack => (right, right),
        Error::Ahead => (at_first, at_first),
        Error::Slow => (slow(0), steady(-off_ns, epsilon_ns)),
    };
    stage.world.skew(OLD).set(|skew| *skew = then);
    start_clients(&mut stage, &row, READERS, &seen);
    let mut outcome = Outcome::default();
    let mut elected_ns = None;
    let end_ns = cut_ns + ms_ns(2.5 * point.lease_ms + point.off_ms);
    while stage.world.absolute_ns() < end_ns {
        stage.world.run_for(LOOK_US)?;
        if stage.world.absolute_ns() >= cut_ns + ms_ns(slow_ms) {
            stage.world.skew(OLD).set(|skew| *skew = in_the_end);
        }
        lease_end = lease_end.max(stage.world.lease_end(OLD, GROUP).unwrap_or_default());
        let new = stage.world.nodes().into_iter().skip(1).find(|n| stage.world.serves(*n, GROUP));
        if new.is_some() {
            elected_ns.get_or_insert(stage.world.absolute_ns());
            let both = stage.world.serves(OLD, GROUP);
            outcome.overlap_ms += if both { LOOK_US as f64 / 1e3 } else { 0.0 };
        }
    }
    let Some(elected_ns) = elected_ns else {
        return Err(Violation::new("progress", "P8", "nobody else was elected"));
    };
    let seen = seen.lock();
    let read = seen.reads.iter().filter(|(_, began_ns, ..)| *began_ns >= elected_ns);
    outcome.reads = read.clone().count() as u64;
    let mut stale = read.filter_map(|read| Some((read, missed(&seen, read)?)));
    let first = stale.next();
    outcome.stale = u64::from(first.is_some()) + stale.count() as u64;
    outcome.objections = stage.world.verdicts().count("lease_disjoint");
    outcome.story =
        first.map(|(read, write)| tell(point, (cut_ns, elected_ns), lease_end, write, *read));
    Ok(outcome)
}

/// The newest write that had been acknowledged when a read began, if the read missed it.
fn missed(
    seen: &Seen,
    (number, began_ns, ..): &(u64, u64, u64, Timestamp),
) -> Option<(u64, u64, u64, Timestamp)> {
    let before = seen.writes.iter().filter(|(_, _, acknowledged_ns, _)| acknowledged_ns < began_ns);
    before.max_by_key(|(written, ..)| *written).filter(|(written, ..)| written > number).copied()
}

/// Without readers: writes the row once, through whoever leads. With them: goes on writing through
/// whoever of the others leads, while readers begin with the old leader each time.
fn start_clients(stage: &mut Stage, row: &Key, readers: u32, seen: &Arc<Mutex<Seen>>) {
    let config = ClientConfig { attempt_ms: 20, operation_ms: 15_000, ..ClientConfig::default() };
    let absolute = stage.world.absolute();
    let mut nodes = stage.world.nodes();
    for _ in 0..readers {
        let (_, port) = stage.client_of(nodes.clone(), config.clone());
        let work = read(port, config.clone(), row.clone(), absolute.clone(), seen.clone());
        stage.world.spawn(work.boxed());
    }
    if readers > 0 {
        // A write that the old leader takes and cannot replicate would hold up its reads (R1).
        nodes.retain(|node| *node != OLD);
    }
    let (writer, port) = stage.client_of(nodes, config);
    let (row, seen) = (row.clone(), seen.clone());
    let work = async move {
        let mut numbers = if readers > 0 { 1..u64::MAX } else { 0..1 };
        let mut next = numbers.next();
        while let Some(number) = next {
            let began_ns = absolute.load(Ordering::Relaxed);
            if let Ok(txn) = writer.begin() {
                txn.put(row.clone(), Bytes::from(number.to_string()));
                if let Ok(receipt) = txn.commit().await {
                    let acknowledged_ns = absolute.load(Ordering::Relaxed);
                    let write = (number, began_ns, acknowledged_ns, receipt.timestamp);
                    seen.lock().writes.push(write);
                    next = numbers.next();
                }
            }
            port.sleep(Duration::from_millis(5)).await;
        }
    };
    stage.world.spawn(work.boxed());
}

/// Strong reads, each by a client that knows no better than that the old leader leads.
async fn read(
    port: Arc<ClientPort>,
    config: ClientConfig,
    row: Key,
    absolute: Arc<AtomicU64>,
    seen: Arc<Mutex<Seen>>,
) {
    let placement =
        HashPlacement { groups: 1, root_prefix: Key::new(), directory: |key| Some(key) };
    let placement = Arc::new(placement);
    loop {
        let client = Client::new(port.clone(), port.clone(), placement.clone(), config.clone());
        let began_ns = absolute.load(Ordering::Relaxed);
        if let Ok(snapshot) = client.snapshot(TimestampBound::Strong)
            && let Ok(Some(value)) = snapshot.get(&row).await
            && let Some(number) =
                std::str::from_utf8(&value).ok().and_then(|text| text.parse().ok())
        {
            let ended_ns = absolute.load(Ordering::Relaxed);
            seen.lock().reads.push((number, began_ns, ended_ns, snapshot.timestamp()));
        }
        port.sleep(Duration::from_millis(1)).await;
    }
}

/// The story of a stale read; times in milliseconds since the old leader was cut off.
fn tell(
    point: Point,
    (cut_ns, elected_ns): (u64, u64),
    lease_end: Timestamp,
    (number, began_ns, acknowledged_ns, at): (u64, u64, u64, Timestamp),
    (found, read_ns, heard_ns, read_at): (u64, u64, u64, Timestamp),
) -> Vec<String> {
    let since = |at_ns: u64| (at_ns as f64 - cut_ns as f64) / 1e6;
    let stamp = |at: Timestamp| format!("{:.3} ms", since(at.micros() * 1_000));
    let is = match point.error {
        Error::AheadThenSlow => {
            format!("{:.1} ms ahead so far, will be right a lease later", point.off_ms)
        }
        Error::SetBack => format!("{:.1} ms ahead so far, is set right", point.off_ms),
        Error::Ahead => format!("{:.1} ms ahead, stays so", point.off_ms),
        Error::Slow => format!("right so far, will be {:.1} ms behind a lease later", point.off_ms),
    };
    let lease = stamp(lease_end);
    let mut lines = [
        (cut_ns, "n1", format!("leads, is cut off from n2 and n3; its clock, {is}")),
        (cut_ns, "n1", format!("holds a lease until {lease} by its own clock")),
        (elected_ns, "n2, n3", "have a leader of their own, for their votes are over".into()),
        (began_ns, "writer", format!("begins to write {number}")),
        (acknowledged_ns, "writer", format!("hears that {number} is committed at {}", stamp(at))),
        (read_ns, "reader", format!("asks n1 for a strong read, at {}", stamp(read_at))),
        (heard_ns, "reader", format!("is given {found}")),
    ];
    lines.sort_by_key(|(at_ns, ..)| *at_ns);
    let mut told = vec![format!("{:>13}  {:<6} what", "absolute time", "who")];
    let line = |(at_ns, who, what)| format!("{:>10.3} ms  {who:<6} {what}", since(at_ns));
    told.extend(lines.map(line));
    told.push(format!("n1 served it, for by its clock {lease} had not come: it misses {number}."));
    told
}

impl Experiment for LeaseOverlap {
    fn name(&self) -> &'static str {
        "lease-overlap"
    }

    fn question(&self) -> &'static str {
        "How wrong must a leader's clock be for two leaders to serve at once, and a read to be stale?"
    }

    fn parameters(&self) -> &'static [Parameter] {
        PARAMETERS
    }

    fn run(&self, setup: &Setup, progress: &dyn Progress) -> Result<Report, LabError> {
        let mut points = Vec::new();
        for error in Error::ALL {
            let near = STEPS.map(|part| part * setup.get("epsilon"));
            let far = FAR_STEPS.map(|part| part * setup.get("lease"));
            for off_ms in near.into_iter().chain(far) {
                for _ in 0..setup.count("trials") {
                    points.push(Point {
                        error,
                        off_ms,
                        epsilon_ms: setup.get("epsilon"),
                        lease_ms: setup.get("lease"),
                        seed: seed_of(setup.seed(), points.len() as u64),
                    });
                }
            }
        }
        progress.begin(points.len() as u64);
        let outcomes =
            sweep(&points, progress, |point| guarded(|| measure(*point)).map_err(failed))?;
        let trials = setup.count("trials") as usize;
        let measured: Vec<(Point, Outcome)> = points
            .chunks(trials)
            .zip(outcomes.chunks(trials))
            .map(|(points, outcomes)| (points[0], sum(outcomes)))
            .collect();
        Ok(self.report(setup, &measured))
    }
}

/// All trials of one error: the longest overlap, and what was read in all of them.
fn sum(outcomes: &[Outcome]) -> Outcome {
    let mut sum = Outcome::default();
    for outcome in outcomes {
        sum.overlap_ms = sum.overlap_ms.max(outcome.overlap_ms);
        sum.reads += outcome.reads;
        sum.stale += outcome.stale;
        sum.objections += outcome.objections;
        sum.story = sum.story.or(outcome.story.clone());
    }
    sum
}

impl LeaseOverlap {
    fn report(&self, setup: &Setup, measured: &[(Point, Outcome)]) -> Report {
        let mut report = Report::new(self, "Leases, and clocks beyond their bound", setup);
        let of = |error| measured.iter().filter(move |(point, _)| point.error == error);
        let off = || Axis::new("how far the leader's clock is off", "ms");
        let mut stale = Chart::new("Stale strong reads", off(), Axis::new("stale reads", ""))
            .caption("Reads that missed a write which the new leader had acknowledged before.")
            .mark(setup.get("epsilon"), "ε");
        let both = Axis::new("longest time with two leaders", "ms");
        let mut overlap = Chart::new("Two leaders at once", off(), both)
            .caption("How long both would have served a request, by their own clocks.")
            .mark(setup.get("epsilon"), "ε");
        let columns =
            ["the clock is", "by (ms)", "in ε", "two leaders (ms)", "reads", "stale", "objections"];
        let mut table = Table::new("What each error leads to", &columns);
        for error in Error::ALL {
            let points =
                |y: fn(&Outcome) -> f64| of(error).map(|at| (at.0.off_ms, y(&at.1))).collect();
            stale = stale.series(error.name(), Style::Line, points(|o| o.stale as f64));
            overlap = overlap.series(error.name(), Style::Line, points(|o| o.overlap_ms));
            for (point, outcome) in of(error) {
                table.row(vec![
                    error.name().into(),
                    format!("{:.1}", point.off_ms),
                    format!("{:.1}", point.off_ms / point.epsilon_ms),
                    format!("{:.1}", outcome.overlap_ms),
                    outcome.reads.to_string(),
                    outcome.stale.to_string(),
                    outcome.objections.to_string(),
                ]);
            }
        }
        report.draw(stale);
        report.draw(overlap);
        report.tabulate(table);
        let within = |point: &Point| point.off_ms <= point.epsilon_ms;
        let inside: Vec<_> = measured.iter().filter(|(point, _)| within(point)).collect();
        let (reads, bad) =
            inside.iter().fold((0, 0), |(all, bad), (_, o)| (all + o.reads, bad + o.stale));
        let longest = inside.iter().map(|(_, o)| o.overlap_ms).fold(0.0, f64::max);
        let stale_of = |error| of(error).map(|(_, o)| o.stale).sum::<u64>();
        let back = stale_of(Error::AheadThenSlow);
        let first =
            of(Error::AheadThenSlow).find(|(_, o)| o.stale > 0).map(|(point, _)| point.off_ms);
        report.summarize(match first {
            Some(off_ms) => format!(
                "Within its bound a leader's clock never lets it serve beside another. One that was \
                 {off_ms:.0} ms ahead while its lease was counted, {:.0} times its bound, and is \
                 right afterwards, gives out stale reads.",
                off_ms / setup.get("epsilon")
            ),
            None => "No error that was tried leads to a stale read.".into(),
        });
        report.find(
            "stale reads while the clock is within its bound",
            format!("{bad} of {}", number(reads as f64, 0)),
            "none",
            bad == 0 && reads > 0,
        );
        report.find(
            "two leaders at once while the clock is within its bound",
            format!("{longest:.1} ms"),
            "never",
            longest == 0.0,
        );
        report.find(
            "stale reads of a leader whose clock was ahead and then slow",
            number(back as f64, 0),
            "some, far enough beyond the bound",
            back > 0,
        );
        let noticed = of(Error::SetBack).filter(|(point, _)| point.is_noticed());
        let jumps: u64 = noticed.map(|(_, outcome)| outcome.stale).sum();
        report.find(
            "stale reads of a leader whose clock was ahead and is set back at once, by more than a \
             heartbeat",
            jumps.to_string(),
            "none: it contradicts what it said before, and the node gives its leases up (T5)",
            jumps == 0,
        );
        let others = stale_of(Error::Ahead) + stale_of(Error::Slow);
        report.find(
            "stale reads of a leader whose clock is ahead, or slow",
            others.to_string(),
            "none: reads have timestamps, and these must lie inside the lease by value (L4)",
            others == 0,
        );
        let slow = of(Error::Slow).map(|(_, o)| o.overlap_ms).fold(0.0, f64::max);
        report.find(
            "two leaders at once when the clock is slow",
            format!("{slow:.1} ms"),
            "some, far enough beyond the bound",
            slow > 0.0,
        );
        report.note(
            "A leader is cut off from the other two, clients still reach it. Its lease ends, by its \
             own clock, a lease after the earliest that its clock said before it asked for it (L2); \
             the others' votes are bound until a lease after the latest that theirs said (L1).",
        );
        report.note(
            "A clock that is off by the same all the time does nothing to a lease: begin and end are \
             read from it. A slow one stretches the lease in absolute time, and two nodes believe \
             that they lead; but a strong read has the reader's time as its timestamp, and where \
             that is not below the lease's end, whatever the leader's clock says now, it is not \
             served (L4). So it takes a clock that was ahead when the lease was counted, and is not \
             any more, by more than the time until the others have elected somebody.",
        );
        report.note(
            "A clock set back by more than twice ε contradicts what it said before: a node notices \
             that by itself, answers nobody until time has caught up, and has given its leases up \
             then. But it must have looked before: a leader with nothing to do looks at its clock at \
             every heartbeat, a fifth of a lease apart, and does not notice a smaller step since. One \
             that slows down until time has caught up contradicts nothing.",
        );
        if let Some(lines) = of(Error::AheadThenSlow).find_map(|(_, outcome)| outcome.story.clone())
        {
            report.tell("The first stale read", lines);
        }
        report
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lab::Silent;

    #[test]
    fn reads_are_stale_only_beyond_the_bound() {
        let setup = Setup::new(PARAMETERS, 1, &[("trials".into(), "2".into())]).unwrap();
        let report = LeaseOverlap.run(&setup, &Silent).unwrap();
        assert!(report.holds(), "{:#?}", report.findings);
        assert!(report.history.is_some());
        let stale = |error: Error, in_epsilon: &str| {
            let rows = report.tables[0].rows.iter();
            let mut rows = rows.filter(|row| row[0] == error.name() && row[2] == in_epsilon);
            rows.next().unwrap()[5].parse::<u64>().unwrap()
        };
        for error in Error::ALL {
            assert_eq!((stale(error, "0.5"), stale(error, "1.0")), (0, 0));
        }
        assert!(stale(Error::AheadThenSlow, "60.0") > 0);
        assert_eq!(stale(Error::SetBack, "60.0"), 0);
    }
}
