//! Clocks that break while a universe of three replicas is at work (T5): who has no time leads
//! nothing and answers nothing, nothing that was acknowledged is lost, and all comes back by itself.

use client::{ClockChange, GroupStatus, SqlError, Universe, Value, Whose};
use proto::request::{Body, ReplyBody};
use proto::{Error, GroupId, NodeId};
use std::collections::BTreeSet;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use truetime::Status;

const CLOCK: &str = "simulated:epsilon=2ms,check=20";
const GROUP: GroupId = GroupId(1);
const PATIENCE: Duration = Duration::from_secs(60);

async fn open(path: &Path) -> Universe {
    let builder = Universe::builder().replicas(3).allow_clock_faults(true);
    let universe = builder.clock(CLOCK.parse().unwrap()).open(path).await.expect("it opens");
    run(&universe, "CREATE TABLE written (id INT64 NOT NULL) PRIMARY KEY (id)").await.unwrap();
    universe
}

async fn run(universe: &Universe, sql: &str) -> Result<Vec<Vec<Value>>, SqlError> {
    universe.database().session().execute(sql).await?.collect().await
}

async fn write(universe: &Universe, id: i64) -> Result<(), SqlError> {
    run(universe, &format!("INSERT INTO written (id) VALUES ({id})")).await.map(|_| ())
}

async fn written(universe: &Universe) -> BTreeSet<i64> {
    let rows = run(universe, "SELECT id FROM written").await.expect("the rows are there");
    let id = |row: &Vec<Value>| match row[0] {
        Value::Int64(id) => id,
        ref other => panic!("{other:?} is no id"),
    };
    rows.iter().map(id).collect()
}

async fn leaders(universe: &Universe) -> Vec<GroupStatus> {
    let mut all = universe.status().await;
    all.retain(|status| status.lease_end.is_some());
    all
}

/// Waits for something to become true.
macro_rules! wait_until {
    ($what:expr, $condition:expr) => {{
        let began = Instant::now();
        while !$condition {
            assert!(began.elapsed() < PATIENCE, "waited in vain: {}", $what);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }};
}

fn set(universe: &Universe, whose: Whose, change: &ClockChange) {
    universe.set_clock(whose, change).expect("simulated clocks may be changed here");
}

fn status_of(universe: &Universe, whose: Whose) -> Status {
    let clocks = universe.clocks();
    let clock = clocks.iter().find(|clock| clock.whose == whose).expect("everybody has a clock");
    match &clock.reading {
        Ok(reading) => reading.status,
        Err(error) => error.status,
    }
}

const NODES: [Whose; 3] = [Whose::Node(NodeId(1)), Whose::Node(NodeId(2)), Whose::Node(NodeId(3))];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn others_take_over_from_a_leader_whose_clock_breaks_and_it_comes_back() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let universe = open(folder.path()).await;
    for id in 0..20 {
        write(&universe, id).await.expect("all is well");
    }
    let of_group = |status: &GroupStatus| status.group == GROUP;
    let leader = leaders(&universe).await.into_iter().find(of_group).expect("a leader").node;

    set(&universe, Whose::Node(leader), &ClockChange::drift(2_000));
    wait_until!("it is broken", status_of(&universe, Whose::Node(leader)) == Status::Broken);
    let clocks = universe.clocks();
    let reason = clocks.iter().find_map(|clock| clock.reading.as_ref().err()).expect("it says why");
    // Between two looks it ran well for a while.
    let names_it =
        reason.reason.contains("it drifts at") && reason.reason.contains("allowed are 200");
    assert!(names_it, "{reason}");
    let asked = universe.client().router().ask_node(leader, GROUP, Body::Status).await;
    let Err(Error::ClockUnavailable { reason }) = asked else { panic!("{asked:?}") };
    assert!(reason.contains("broken"), "{reason}");
    for id in 20..60 {
        write(&universe, id).await.unwrap_or_else(|error| panic!("row {id}: {error}"));
    }
    let groups = universe.stats().groups as usize;
    let others_lead = |now: &[GroupStatus]| {
        now.iter().map(|status| status.group).collect::<BTreeSet<_>>().len() == groups
            && now.iter().all(|status| status.node != leader)
    };
    wait_until!("others lead all groups", others_lead(&leaders(&universe).await));

    set(&universe, Whose::Node(leader), &ClockChange::honest());
    wait_until!("it has time", status_of(&universe, Whose::Node(leader)) == Status::Synchronized);
    let router = universe.client();
    wait_until!("it leads again", {
        // Refused as long as it has not caught up.
        let _ = router.router().ask(GROUP, Body::Transfer { to: leader }).await;
        leaders(&universe).await.iter().any(|status| of_group(status) && status.node == leader)
    });
    for id in 60..80 {
        write(&universe, id).await.unwrap_or_else(|error| panic!("row {id}: {error}"));
    }
    assert_eq!(written(&universe).await, (0..80).collect());
    universe.close();
}

/// What writers were told.
#[derive(Default)]
struct Told {
    acknowledged: BTreeSet<i64>,
    /// Rows that may be there or not.
    unknown: BTreeSet<i64>,
    refused: u64,
}

async fn keep_writing(
    universe: Arc<Universe>,
    next: Arc<AtomicI64>,
    told: Arc<Mutex<Told>>,
    is_over: Arc<AtomicBool>,
) {
    while !is_over.load(Ordering::Relaxed) {
        let id = next.fetch_add(1, Ordering::Relaxed);
        let ended = write(&universe, id).await;
        {
            let mut told = told.lock().unwrap();
            match ended {
                Ok(()) => {
                    told.acknowledged.insert(id);
                }
                Err(error) if error.kind == sql::ErrorKind::OutcomeUnknown => {
                    told.unknown.insert(id);
                }
                Err(error) => {
                    assert!(error.message.contains("clock unavailable"), "{error}");
                    told.refused += 1;
                }
            }
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_any_time_every_statement_is_refused_and_nothing_is_lost() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let universe = Arc::new(open(folder.path()).await);
    let (next, told): (Arc<AtomicI64>, Arc<Mutex<Told>>) = Default::default();
    let is_over = Arc::new(AtomicBool::new(false));
    let writers: Vec<_> = (0..4)
        .map(|_| {
            let parts = (universe.clone(), next.clone(), told.clone(), is_over.clone());
            tokio::spawn(keep_writing(parts.0, parts.1, parts.2, parts.3))
        })
        .collect();
    let acknowledged = || told.lock().unwrap().acknowledged.len();
    wait_until!("rows are written", acknowledged() >= 20);

    // The nodes alone: clients find nobody, and say why after an operation's time.
    for whose in NODES {
        set(&universe, whose, &ClockChange::drift(2_000));
    }
    wait_until!("the nodes have no time", {
        NODES.iter().all(|whose| status_of(&universe, *whose) == Status::Broken)
    });
    let refused = run(&universe, "SELECT COUNT(*) AS n FROM written").await.expect_err("no time");
    assert!(refused.message.contains("3 of 3 nodes have no time"), "{refused}");
    assert!(refused.message.contains("clock unavailable"), "{refused}");

    // The clients too: every statement is refused at once.
    set(&universe, Whose::Client, &ClockChange::drift(2_000));
    wait_until!("nobody has time", status_of(&universe, Whose::Client) == Status::Broken);
    let began = Instant::now();
    for sql in ["SELECT COUNT(*) AS n FROM written", "INSERT INTO written (id) VALUES (-1)"] {
        let refused = run(&universe, sql).await.expect_err(sql);
        assert_eq!(refused.kind, sql::ErrorKind::Unavailable, "{refused}");
        assert!(
            refused.message.contains("clock unavailable: simulated clock is broken"),
            "{refused}"
        );
    }
    assert!(began.elapsed() < Duration::from_secs(5), "it is not tried where there is no time");
    wait_until!("writers are refused", told.lock().unwrap().refused >= 1);

    for whose in NODES.into_iter().chain([Whose::Client]) {
        set(&universe, whose, &ClockChange::honest());
    }
    let before = acknowledged();
    wait_until!("rows are written again", acknowledged() >= before + 20);
    is_over.store(true, Ordering::Relaxed);
    for writer in writers {
        writer.await.expect("a writer ends well");
    }
    let found = written(&universe).await;
    let told = told.lock().unwrap();
    let lost: Vec<_> = told.acknowledged.difference(&found).collect();
    assert!(lost.is_empty(), "acknowledged and lost: {lost:?}");
    let allowed: BTreeSet<i64> = told.acknowledged.union(&told.unknown).copied().collect();
    let more: Vec<_> = found.difference(&allowed).collect();
    assert!(more.is_empty(), "refused and yet written: {more:?}");
}

#[tokio::test]
async fn a_status_of_a_node_with_time_is_answered() {
    // So that the refusals above are the clock's doing.
    let folder = tempfile::tempdir().expect("a temporary folder");
    let universe = open(folder.path()).await;
    let asked = universe.client().router().ask_node(NodeId(2), GROUP, Body::Status).await;
    assert!(matches!(asked.map(|reply| reply.body), Ok(ReplyBody::Status(_))));
    let refused = Universe::builder().clock(CLOCK.parse().unwrap());
    drop(universe);
    let strict = refused.open(folder.path()).await.expect("it opens again");
    let change = strict.set_clock(Whose::Client, &ClockChange::drift(1));
    assert_eq!(change, Err(client::ClockChangeError::NotAllowed));
    strict.close();
}
