//! The time daemon and real time masters, over loopback (T3–T5).

use std::net::UdpSocket;
use std::sync::Arc;
use std::time::{Duration, Instant};
use truetime::daemon::{DaemonConfig, MasterKind};
use truetime::key::Key;
use truetime::providers::{
    Absolute, Drift, HostTime, Master, MasterConfig, Masters, MastersConfig, Oscillator, rest,
};
use truetime::wire::{Answer, Content, Request};
use truetime::{Clock, Status, TrueTime, Verdict};

const PATIENCE: Duration = Duration::from_secs(60);
const MS: u64 = 1_000_000;

fn start(change: impl FnOnce(&mut MasterConfig)) -> Master {
    let mut config = MasterConfig::new(MasterKind::Gps);
    change(&mut config);
    Master::start(config).unwrap()
}

fn config(addresses: Vec<String>, poll_ms: u64) -> MastersConfig {
    let daemon = DaemonConfig {
        poll_ns: poll_ms * MS,
        answer_within_ns: 100 * MS,
        ..DaemonConfig::new(addresses, 7)
    };
    MastersConfig::new(daemon, Key::PUBLIC)
}

fn names(masters: &[Master]) -> Vec<String> {
    masters.iter().map(|master| master.address().to_string()).collect()
}

fn wait_until(what: &str, clock: &Masters, condition: impl Fn() -> bool) {
    let since = Instant::now();
    while !condition() {
        let now = clock.read();
        assert!(since.elapsed() < PATIENCE, "{what}: {now:?}, {:#?}", clock.sources());
        rest(Duration::from_millis(1));
    }
}

fn wait_for_bound(clock: &Masters) {
    wait_until("a bound", clock, || clock.read().is_ok());
}

/// Each verdict, in the order of the masters.
fn verdicts(clock: &Masters) -> Vec<Verdict> {
    clock.sources().masters.iter().map(|master| master.verdict).collect()
}

/// What the clock says contains the host's time, by which the masters go.
fn assert_contains_truth(clock: &Masters, host: &HostTime) {
    let (before_ns, now, after_ns) = (host.now_ns(), clock.read().unwrap(), host.now_ns());
    // The masters and `host` read the wall clock at different times, each with its error.
    let error_us = 1_000 + host.error_ns() / 1_000;
    let (earliest, latest) = (now.interval.earliest().micros(), now.interval.latest().micros());
    assert!(earliest <= after_ns / 1_000 + error_us, "{now:?} ahead of {after_ns}");
    assert!(latest + error_us >= before_ns / 1_000, "{now:?} behind {before_ns}");
}

/// T3: half the round trip and the master's uncertainty after a poll, and the drift since.
#[test]
fn epsilon_is_half_the_way_and_the_uncertainty_and_grows_by_the_drift() {
    let masters = [(); 3]
        .map(|()| start(|config| (config.faults.delay_us, config.uncertainty_us) = (4_000, 500)));
    let host = HostTime::new();
    let clock = Masters::start(config(names(&masters), 400)).unwrap();
    wait_for_bound(&clock);
    // One look: ε, when that was, when the last synchronisation was, and the worst that the
    // oscillator may do. `None`: the clock was synchronised meanwhile, or the machine was busy.
    let look = || {
        let at = Instant::now();
        let before = clock.sources();
        let epsilon_us = clock.read().unwrap().interval.epsilon_us();
        let after = clock.sources();
        let (low, high) = after.drift_measured_ppm.expect("a bound needs a rate");
        let ago = before.synchronized_ago.expect("a bound needs a synchronisation");
        let calm = at.elapsed() < Duration::from_millis(5)
            && after.synchronized_ago.is_some_and(|later| later >= ago)
            && before.drift_measured_ppm == after.drift_measured_ppm;
        calm.then(|| (epsilon_us, at, at - ago, low.abs().max(high.abs()).max(200.0)))
    };
    let (mut least_us, mut steps, mut last, began) = (u64::MAX, 0, None, Instant::now());
    while steps < 50 {
        assert!(began.elapsed() < PATIENCE, "{steps} steps in a minute");
        assert_contains_truth(&clock, &host);
        let now = look();
        least_us = now.map_or(least_us, |(epsilon_us, ..)| least_us.min(epsilon_us));
        if let (Some((then_us, then, synchronized_then, _)), Some((now_us, at, synchronized, ppm))) =
            (last, now)
            && synchronized.duration_since(synchronized_then) < Duration::from_millis(5)
        {
            let grown_us = now_us as f64 - then_us as f64;
            let passed_s = at.duration_since(then).as_secs_f64();
            let (least_s, most_s) = (passed_s - 0.005, passed_s + 0.005);
            let expected = least_s * 200.0 - 2.0..=most_s * ppm * 1.01 + 2.0;
            assert!(expected.contains(&grown_us), "{grown_us} µs in {passed_s} s, {ppm} µs/s");
            steps += 1;
        }
        last = now;
        rest(Duration::from_millis(20));
    }
    // Half of 4 ms and 0.5 ms; a busy machine takes longer.
    assert!((2_500..40_000).contains(&least_us), "{least_us} µs");
    let seen = &clock.sources().masters[0];
    assert_eq!(seen.kind.as_deref(), Some("gps"));
    assert!(seen.delay_ns.is_some_and(|ns| ns >= 4 * MS), "{seen:?}");
    assert!(seen.uncertainty_ns.is_some_and(|ns| (500_000..20 * MS).contains(&ns)), "{seen:?}");
    wait_until("all agree", &clock, || verdicts(&clock) == [Verdict::Accepted; 3]);
}

/// T4.
#[test]
fn a_liar_is_rejected_and_named() {
    let masters = [0, 0, 1_000_000].map(|lie_us| start(|c| c.faults.lie_offset_us = lie_us));
    let (names, host) = (names(&masters), HostTime::new());
    let clock = Masters::start(config(names.clone(), 50)).unwrap();
    wait_for_bound(&clock);
    assert_contains_truth(&clock, &host);
    wait_until("the liar is named", &clock, || {
        let measured = clock.sources().masters[2].offset_ns.is_some();
        let liar_last = [Verdict::Accepted, Verdict::Accepted, Verdict::Rejected];
        measured && verdicts(&clock) == liar_last
    });
    let liar = &clock.sources().masters[2];
    assert_eq!(liar.name, names[2]);
    let off_ns = liar.offset_ns.expect("an offset");
    assert!((900_000_000..1_100_000_000).contains(&off_ns), "{liar:?}");
    assert_contains_truth(&clock, &host);
}

#[test]
fn two_liars_of_three_who_do_not_agree_make_no_majority() {
    let masters = [0, 1_000_000, -1_000_000].map(|us| start(|c| c.faults.lie_offset_us = us));
    let clock = Masters::start(config(names(&masters), 50)).unwrap();
    wait_until("all have answered", &clock, || verdicts(&clock) == [Verdict::NoMajority; 3]);
    assert_eq!(clock.read().unwrap_err().status, Status::Unsynchronized);
}

/// T3, T5: the bound of a node that hears nothing more grows, is said to be old, and ends.
#[test]
fn without_masters_the_bound_grows_old_and_ends() {
    let masters = [(); 3].map(|()| start(|_| ()));
    let mut config = config(names(&masters), 50);
    config.daemon.drift_ppm = 20_000;
    config.daemon.epsilon_max_ns = 60 * MS;
    let clock = Masters::start(config).unwrap();
    wait_for_bound(&clock);
    drop(masters);
    wait_until("holdover", &clock, || {
        clock.read().is_ok_and(|reading| reading.status == Status::Holdover)
    });
    let then_us = clock.read().unwrap().interval.epsilon_us();
    wait_until("it grows", &clock, || {
        clock.read().is_ok_and(|reading| reading.interval.epsilon_us() > then_us + 500)
    });
    wait_until("all are silent", &clock, || verdicts(&clock) == [Verdict::Silent; 3]);
    wait_until("it ends", &clock, || {
        clock.read().is_err_and(|error| error.status == Status::Unsynchronized)
    });
}

#[test]
fn masters_that_come_back_bring_the_bound_back() {
    let mut masters = vec![start(|_| ()), start(|_| ()), start(|_| ())];
    let addresses: Vec<_> = masters.iter().map(Master::address).collect();
    let mut config = config(names(&masters), 50);
    config.daemon.epsilon_max_ns = 20 * MS;
    config.daemon.drift_ppm = 10_000;
    let clock = Masters::start(config).unwrap();
    wait_for_bound(&clock);
    masters.clear();
    wait_until("it ends", &clock, || clock.read().is_err());
    for listen in addresses {
        masters.push(start(|config| config.listen = listen));
    }
    wait_until("it is back", &clock, || {
        clock.read().is_ok_and(|reading| reading.status == Status::Synchronized)
    });
}

#[test]
fn who_has_another_key_is_no_master() {
    let key = Key::from_hex(&"17".repeat(32)).unwrap();
    let masters = [true, true, false]
        .map(|knows| start(|config| config.key = if knows { key.clone() } else { Key::PUBLIC }));
    let mut config = config(names(&masters), 50);
    config.key = key;
    let clock = Masters::start(config).unwrap();
    wait_for_bound(&clock);
    wait_until("two agree", &clock, || {
        verdicts(&clock) == [Verdict::Accepted, Verdict::Accepted, Verdict::Silent]
    });
    assert!(masters[2].counts().forged > 0);
}

/// Even one that has the key, and knows what was asked.
#[test]
fn an_answer_counts_only_from_where_it_was_asked_for() {
    let masters = [(); 2].map(|()| start(|_| ()));
    let (asked, elsewhere) =
        (UdpSocket::bind("127.0.0.1:0").unwrap(), UdpSocket::bind("127.0.0.1:0").unwrap());
    asked.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut names = names(&masters);
    names.push(asked.local_addr().unwrap().to_string());
    let clock = Masters::start(config(names, 50)).unwrap();
    let (host, mut buffer) = (HostTime::new(), [0; 128]);
    let mut serve = |by: &UdpSocket, rounds: u32| {
        for _ in 0..rounds {
            let (length, from) = asked.recv_from(&mut buffer).unwrap();
            let id = Request::decode(&buffer[..length], &Key::PUBLIC).unwrap().id;
            let (earliest_ns, latest_ns) = (host.now_ns() - MS, host.now_ns() + MS);
            let content = Content::Time { earliest_ns, latest_ns };
            let answer = Answer { id, kind: MasterKind::Atomic, content };
            by.send_to(&answer.encode(&Key::PUBLIC), from).unwrap();
        }
    };
    serve(&elsewhere, 6);
    wait_for_bound(&clock);
    wait_until("two agree", &clock, || {
        verdicts(&clock) == [Verdict::Accepted, Verdict::Accepted, Verdict::Silent]
    });
    assert_eq!(clock.sources().masters[2].kind, None, "it never answered");
    // The control: the same answer from the right place.
    serve(&asked, 6);
    wait_until("it counts", &clock, || verdicts(&clock)[2] == Verdict::Accepted);
    assert_eq!(clock.sources().masters[2].kind.as_deref(), Some("atomic"));
}

/// T5, with an oscillator that goes wrong while everything else is real.
#[test]
fn a_node_whose_oscillator_runs_wild_evicts_itself_and_comes_back() {
    let masters = [(); 3].map(|()| start(|_| ()));
    let host = HostTime::new();
    let drift = Arc::new(arc_swap::ArcSwap::from_pointee(Drift::Constant { offset_ns: 0 }));
    let oscillator = Oscillator::Simulated { absolute: Absolute::Host(host), drift: drift.clone() };
    let clock =
        Masters::start(MastersConfig { oscillator, ..config(names(&masters), 50) }).unwrap();
    wait_for_bound(&clock);
    let since_ns = host.now_ns();
    let rate_ppm = 300_000.0;
    drift.store(Arc::new(Drift::Linear { offset_ns: 0, rate_ppm, since_ns }));
    wait_until("broken", &clock, || {
        clock.read().is_err_and(|error| error.status == Status::Broken)
    });
    let stays_ns = drift.load().offset_ns(host.now_ns());
    drift.store(Arc::new(Drift::Constant { offset_ns: stays_ns }));
    wait_until("believed again", &clock, || clock.read().is_ok());
    assert_contains_truth(&clock, &host);
}

#[test]
fn refuses_what_cannot_be_or_must_not() {
    let refused = |names: &[&str]| {
        let names = names.iter().map(|name| (*name).to_owned()).collect();
        Masters::start(config(names, 50)).unwrap_err().kind()
    };
    use std::io::ErrorKind;
    assert_eq!(refused(&[]), ErrorKind::InvalidInput);
    assert_eq!(refused(&["127.0.0.1"]), ErrorKind::InvalidInput);
    assert_eq!(refused(&[":123"]), ErrorKind::InvalidInput);
    assert_eq!(refused(&["127.0.0.1:9", "192.0.2.1:9"]), ErrorKind::PermissionDenied);
}

/// Names, and both families at once where the machine has them.
#[test]
fn masters_may_be_named() {
    let mut masters = vec![start(|_| ()), start(|_| ())];
    let mut names = names(&masters);
    names[0] = format!("localhost:{}", masters[0].address().port());
    if UdpSocket::bind("[::1]:0").is_ok() {
        masters.push(start(|config| config.listen = "[::1]:0".parse().unwrap()));
        names.push(masters[2].address().to_string());
    }
    let clock = Masters::start(config(names.clone(), 50)).unwrap();
    let tt_names: Vec<String> =
        clock.sources().masters.into_iter().map(|master| master.name).collect();
    assert_eq!(tt_names, names);
    wait_for_bound(&clock);
    // `localhost` may mean the sixth family, where its master does not listen.
    wait_until("the others agree", &clock, || {
        verdicts(&clock)[1..].iter().all(|verdict| *verdict == Verdict::Accepted)
    });
    assert!(TrueTime::new(clock).now().is_ok());
}
