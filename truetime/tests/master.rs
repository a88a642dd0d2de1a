//! A time master over loopback, asked with nothing but a socket.

use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, Instant};
use truetime::daemon::MasterKind;
use truetime::key::Key;
use truetime::limiter::LimiterConfig;
use truetime::providers::{HostTime, Master, MasterConfig, MasterFaults};
use truetime::wire::{Answer, Content, Request};

/// Longer than any answer takes, even on a busy machine.
const PATIENCE: Duration = Duration::from_secs(20);
/// In which an answer that is not expected would come.
const SILENCE: Duration = Duration::from_millis(200);

struct Caller {
    socket: UdpSocket,
    key: Key,
}

impl Caller {
    fn new(master: SocketAddr, key: Key) -> Caller {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.connect(master).unwrap();
        Caller { socket, key }
    }

    fn send(&self, bytes: &[u8]) {
        self.socket.send(bytes).unwrap();
    }

    fn hear(&self, within: Duration) -> Option<Answer> {
        let mut buffer = [0; 128];
        self.socket.set_read_timeout(Some(within)).unwrap();
        let length = self.socket.recv(&mut buffer).ok()?;
        Some(Answer::decode(&buffer[..length], &self.key).unwrap())
    }

    /// What the master says, and how long it took.
    fn ask(&self, id: u64) -> (Answer, Duration) {
        let asked = Instant::now();
        self.send(&Request { id }.encode(&self.key));
        let answer = self.hear(PATIENCE).expect("an answer");
        assert_eq!(answer.id, id);
        (answer, asked.elapsed())
    }
}

fn start(change: impl FnOnce(&mut MasterConfig)) -> Master {
    let mut config = MasterConfig::new(MasterKind::Gps);
    change(&mut config);
    Master::start(config).unwrap()
}

fn interval(answer: Answer) -> (u64, u64) {
    match answer.content {
        Content::Time { earliest_ns, latest_ns } => (earliest_ns, latest_ns),
        other => panic!("{other:?}"),
    }
}

fn wait_until(what: &str, condition: impl Fn() -> bool) {
    let since = Instant::now();
    while !condition() {
        assert!(since.elapsed() < PATIENCE, "{what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn says_what_time_it_was_between_request_and_answer() {
    let master = start(|config| config.kind = MasterKind::Atomic);
    let caller = Caller::new(master.address(), Key::PUBLIC);
    let host = HostTime::new();
    // Each of the two clocks was read together with the wall clock, as well as that can be done.
    let off_ns = 2 * host.error_ns() + 1_000_000;
    for id in 0..50 {
        let before_ns = host.now_ns();
        let (answer, _) = caller.ask(id);
        let after_ns = host.now_ns();
        let (earliest_ns, latest_ns) = interval(answer);
        assert_eq!(answer.kind, MasterKind::Atomic);
        assert!(before_ns <= latest_ns + off_ns && earliest_ns <= after_ns + off_ns);
    }
    wait_until("all are counted", || master.counts().answered == 50);
}

#[test]
fn a_liar_lies_and_a_frozen_clock_stands() {
    let day_us = 86_400_000_000;
    let liar = start(|config| config.faults.lie_offset_us = day_us);
    let (earliest_ns, _) = interval(Caller::new(liar.address(), Key::PUBLIC).ask(1).0);
    assert!(earliest_ns > HostTime::new().now_ns() + 86_000_000_000_000);

    let frozen = start(|config| config.faults = MasterFaults { freeze: true, ..config.faults });
    let caller = Caller::new(frozen.address(), Key::PUBLIC);
    let first = interval(caller.ask(1).0);
    std::thread::sleep(Duration::from_millis(2));
    assert_eq!(interval(caller.ask(2).0), first);
}

/// Many at once do not wait for one another.
#[test]
fn a_far_master_answers_late_and_looks_at_its_clock_in_the_middle() {
    const DELAY: Duration = Duration::from_millis(300);
    let master = start(|config| config.faults.delay_us = 300_000);
    let host = HostTime::new();
    let callers: Vec<Caller> =
        (0..10).map(|_| Caller::new(master.address(), Key::PUBLIC)).collect();
    let (asked, asked_ns) = (Instant::now(), host.now_ns());
    for caller in &callers {
        caller.send(&Request { id: 1 }.encode(&Key::PUBLIC));
    }
    for caller in &callers {
        let (earliest_ns, _) = interval(caller.hear(PATIENCE).expect("an answer"));
        assert!(asked.elapsed() >= DELAY);
        assert!(earliest_ns >= asked_ns + 140_000_000, "not before half the delay");
        assert!(earliest_ns <= host.now_ns() - 140_000_000, "not in the last half of it");
    }
    assert!(asked.elapsed() < 5 * DELAY);
}

#[test]
fn strangers_and_noise_are_counted_and_not_answered() {
    let secret = Key::from_hex(&"c5".repeat(32)).unwrap();
    let master = start(|config| config.key = secret.clone());
    let stranger = Caller::new(master.address(), Key::PUBLIC);
    stranger.send(&Request { id: 1 }.encode(&Key::PUBLIC));
    stranger.send(b"");
    stranger.send(b"what time is it?");
    let good = Request { id: 2 }.encode(&secret);
    stranger.send(&[good.as_slice(), &[0]].concat());
    let mut damaged = good;
    damaged[9] ^= 1;
    stranger.send(&damaged);
    // Its own words do not answer a master either.
    let content = Content::Time { earliest_ns: 1, latest_ns: 2 };
    stranger.send(&Answer { id: 3, kind: MasterKind::Gps, content }.encode(&secret));
    wait_until("all are counted", || {
        let counts = master.counts();
        (counts.forged, counts.malformed) == (1, 5)
    });
    assert_eq!(stranger.hear(SILENCE), None);
    assert!(matches!(Caller::new(master.address(), secret).ask(4).0.content, Content::Time { .. }));
    wait_until("it is counted", || master.counts().answered == 1);
}

#[test]
fn who_asks_too_often_is_told_once() {
    let master = start(|config| {
        config.limits = LimiterConfig { per_second: 1, burst: 3, sources_max: 4 };
    });
    let caller = Caller::new(master.address(), Key::PUBLIC);
    for id in 0..20 {
        caller.send(&Request { id }.encode(&Key::PUBLIC));
    }
    wait_until("all are counted", || {
        let counts = master.counts();
        counts.answered + counts.refused == 20
    });
    let mut heard = Vec::new();
    while let Some(answer) = caller.hear(SILENCE) {
        heard.push(answer.content);
    }
    let refusals = heard.iter().filter(|content| **content == Content::Refused).count();
    let times = heard.len() - refusals;
    // A token may have come back while this ran, and then another refusal.
    assert!(times >= 3, "{heard:?}");
    assert!((1..=1 + times - 3).contains(&refusals), "{heard:?}");
}

#[test]
fn stops_and_gives_its_address_back() {
    let master = start(|config| config.faults.delay_us = 1_000);
    let address = master.address();
    drop(master);
    wait_until("the address is free again", || UdpSocket::bind(address).is_ok());
}
