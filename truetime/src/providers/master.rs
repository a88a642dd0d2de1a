//! A time master: answers over UDP what time it is, as far as it knows (T4).
//!
//! It stands on the wall clock of its host and plays the part of a machine with a satellite
//! receiver or an atomic clock; what it says is as good as its host's clock. It can also be told to
//! be wrong, each way in which masters are: by an offset, by its rate, by standing still, or by
//! being far away.

use super::host::{self, HostTime};
use crate::daemon::MasterKind;
use crate::key::Key;
use crate::limiter::{Admission, Limiter, LimiterConfig};
use crate::wire::{Answer, Content, DATAGRAM_BYTES, Datagram, DecodeError, Request};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::io::{self, ErrorKind};
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{self, SyncSender};
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// By how much the uncertainty of an atomic clock grows, in nanoseconds per second: 86 µs a day,
/// which is a hundred times what a rubidium clock is off by.
pub const ATOMIC_DRIFT_NS_PER_S: u64 = 1;

/// How many answers a far master holds back at once; what comes then is lost, as on a real way.
const HELD_MAX: usize = 1_024;

/// How soon a master notices that it is to stop.
const NOTICE: Duration = Duration::from_millis(50);

/// What a master is told when it is started.
#[derive(Clone, Debug)]
pub struct MasterConfig {
    /// Where it listens; port 0: where there is room.
    pub listen: SocketAddr,
    /// Of those who may ask, and proves to them who answers. [`Key::PUBLIC`] on loopback addresses
    /// only.
    pub key: Key,
    /// What it says it stands on.
    pub kind: MasterKind,
    /// By how much it may be off, in microseconds: what it claims. For an atomic clock, at first.
    pub uncertainty_us: u64,
    /// What is wrong with it.
    pub faults: MasterFaults,
    /// How often one address may ask.
    pub limits: LimiterConfig,
}

impl MasterConfig {
    /// By how much a master may be off by default, in microseconds: a good satellite receiver, and
    /// what it takes to read it.
    pub const UNCERTAINTY_US_DEFAULT: u64 = 1;

    /// A master with nothing wrong, on a free port of this host.
    pub fn new(kind: MasterKind) -> MasterConfig {
        MasterConfig {
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            key: Key::PUBLIC,
            kind,
            uncertainty_us: MasterConfig::UNCERTAINTY_US_DEFAULT,
            faults: MasterFaults::default(),
            limits: LimiterConfig::default(),
        }
    }
}

/// What is wrong with a master. It claims the uncertainty that it would have without.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct MasterFaults {
    /// It is ahead by this (negative: behind), in microseconds: it lies.
    pub lie_offset_us: i64,
    /// It gains this (negative: loses) from its start on, in microseconds per second.
    pub drift_ppm: f64,
    /// Its time stands still from its start on.
    pub freeze: bool,
    /// Its answers take this longer than the way to it, half before it looks at its clock and half
    /// after, in microseconds: a master far away. Not wrong, and not claimed.
    pub delay_us: u64,
}

/// What a master has done so far, in datagrams.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MasterCounts {
    /// Answered with a time.
    pub answered: u64,
    /// Asked too often: told so, or passed over in silence.
    pub refused: u64,
    /// No requests: of another length, form or version, or damaged.
    pub malformed: u64,
    /// Made with another key.
    pub forged: u64,
    /// Answers that could not be sent, or held back any longer.
    pub lost: u64,
}

impl fmt::Display for MasterCounts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let MasterCounts { answered, refused, malformed, forged, lost } = self;
        write!(
            f,
            "{answered} answered, {refused} refused, {malformed} malformed, {forged} forged, \
             {lost} lost"
        )
    }
}

/// A master that runs: two threads more if it is far away. It stops when this is dropped.
#[derive(Debug)]
pub struct Master {
    address: SocketAddr,
    counts: Arc<Counters>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Master {
    /// Starts one.
    ///
    /// # Errors
    /// The address cannot be had, or there is no thread for it. [`ErrorKind::PermissionDenied`]:
    /// without a secret key it would answer to others than this host.
    pub fn start(config: MasterConfig) -> io::Result<Master> {
        if config.key.is_public() && !config.listen.ip().is_loopback() {
            let reason = "a master without a secret key listens on loopback addresses only";
            return Err(io::Error::new(ErrorKind::PermissionDenied, reason));
        }
        let socket = UdpSocket::bind(config.listen)?;
        socket.set_read_timeout(Some(NOTICE))?;
        let address = socket.local_addr()?;
        let (counts, stop) = (Arc::new(Counters::default()), Arc::new(AtomicBool::new(false)));
        let desk = Desk {
            face: Face::new(&config, HostTime::new()),
            key: config.key,
            socket: Arc::new(socket),
            counts: counts.clone(),
        };
        let held = match config.faults.delay_us {
            0 => None,
            us => Some(hold(desk.clone(), Duration::from_micros(us))?),
        };
        let (limiter, stopped) = (Limiter::new(config.limits), stop.clone());
        let thread = spawn("time-master", move || {
            desk.listen(limiter, &stopped, |caller| match &held {
                None => desk.answer(&caller),
                Some(held) if held.try_send(caller).is_ok() => {}
                Some(_) => desk.counts.add(&desk.counts.lost),
            });
        })?;
        Ok(Master { address, counts, stop, thread: Some(thread) })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What it has done so far.
    pub fn counts(&self) -> MasterCounts {
        self.counts.read()
    }
}

impl Drop for Master {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // It panicked: that has been printed.
            let _ = thread.join();
        }
    }
}

fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> io::Result<JoinHandle<()>> {
    thread::Builder::new().name(name.to_owned()).spawn(work)
}

/// Somebody who asked and shall be answered, and when he came by `CLOCK_BOOTTIME`.
#[derive(Clone, Copy, Debug)]
struct Caller {
    from: SocketAddr,
    id: u64,
    admission: Admission,
    came_ns: u64,
}

/// Where requests are answered.
#[derive(Clone)]
struct Desk {
    face: Face,
    key: Key,
    socket: Arc<UdpSocket>,
    counts: Arc<Counters>,
}

impl Desk {
    /// Receives until it is told to stop.
    fn listen(&self, mut limiter: Limiter, stop: &AtomicBool, serve: impl Fn(Caller)) {
        // One byte more than there should be: what is too long shall not look as if it were not.
        let mut buffer = [0; DATAGRAM_BYTES + 1];
        while !stop.load(Ordering::Relaxed) {
            let (length, from) = match self.socket.recv_from(&mut buffer) {
                Ok(received) => received,
                Err(error) => {
                    if !matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) {
                        // Whatever it is (a signal, no memory), it shall not keep a core busy.
                        host::rest(Duration::from_millis(1));
                    }
                    continue;
                }
            };
            let came_ns = host::boot_ns();
            let id = match Request::decode(&buffer[..length], &self.key) {
                Ok(Request { id }) => id,
                Err(DecodeError::Forged) => {
                    self.counts.add(&self.counts.forged);
                    continue;
                }
                Err(_) => {
                    self.counts.add(&self.counts.malformed);
                    continue;
                }
            };
            // After the key: a stranger with a borrowed address uses up nobody's share.
            let admission = limiter.admit(from.ip(), came_ns);
            if admission != Admission::Admitted {
                self.counts.add(&self.counts.refused);
            }
            if admission != Admission::Ignored {
                serve(Caller { from, id, admission, came_ns });
            }
        }
    }

    fn answer(&self, caller: &Caller) {
        self.send(caller, &self.written(caller));
    }

    /// Looks at the clock.
    fn written(&self, caller: &Caller) -> Datagram {
        let content = match caller.admission {
            Admission::Admitted => self.face.content(),
            Admission::Refused | Admission::Ignored => Content::Refused,
        };
        Answer { id: caller.id, kind: self.face.kind, content }.encode(&self.key)
    }

    fn send(&self, caller: &Caller, datagram: &Datagram) {
        let sent = self.socket.send_to(datagram, caller.from).is_ok();
        if !sent {
            self.counts.add(&self.counts.lost);
        } else if caller.admission == Admission::Admitted {
            self.counts.add(&self.counts.answered);
        }
    }
}

/// Answers as late as a master far away: one thread looks at the clock when a request has arrived
/// there, another sends when the answer has arrived here. All are held back alike, so each thread
/// takes them in order. They end when the sender is dropped.
fn hold(desk: Desk, delay: Duration) -> io::Result<SyncSender<Caller>> {
    let delay_ns = u64::try_from(delay.as_nanos()).unwrap_or(u64::MAX);
    let (ask, asked) = mpsc::sync_channel::<Caller>(HELD_MAX);
    let (write, written) = mpsc::sync_channel::<(Caller, Datagram)>(HELD_MAX);
    let until = |at_ns: u64| {
        let left_ns = at_ns.saturating_sub(host::boot_ns());
        if left_ns > 0 {
            host::rest(Duration::from_nanos(left_ns));
        }
    };
    let sender = desk.clone();
    spawn("far-master-sends", move || {
        for (caller, datagram) in written {
            until(caller.came_ns.saturating_add(delay_ns));
            sender.send(&caller, &datagram);
        }
    })?;
    spawn("far-master-looks", move || {
        for caller in asked {
            until(caller.came_ns.saturating_add(delay_ns / 2));
            if write.try_send((caller, desk.written(&caller))).is_err() {
                desk.counts.add(&desk.counts.lost);
            }
        }
    })?;
    Ok(ask)
}

/// The master's clock, right or wrong.
#[derive(Clone, Copy, Debug)]
struct Face {
    host: HostTime,
    started_ns: u64,
    kind: MasterKind,
    uncertainty_ns: u64,
    faults: MasterFaults,
}

impl Face {
    fn new(config: &MasterConfig, host: HostTime) -> Face {
        Face {
            host,
            started_ns: host.now_ns(),
            kind: config.kind,
            uncertainty_ns: config
                .uncertainty_us
                .saturating_mul(1_000)
                .saturating_add(host.error_ns()),
            faults: config.faults,
        }
    }

    fn content(&self) -> Content {
        self.at(self.host.now_ns())
    }

    /// What it says when the host's clock shows `host_ns`. [`Content::NoTime`]: what it would say
    /// is before the epoch or after all time.
    fn at(&self, host_ns: u64) -> Content {
        let MasterFaults { lie_offset_us, drift_ppm, freeze, .. } = self.faults;
        let passed_ns = host_ns.saturating_sub(self.started_ns);
        let gained_ns = (passed_ns as f64 * drift_ppm / 1e6) as i64;
        let shown_ns =
            if freeze { Some(self.started_ns) } else { host_ns.checked_add_signed(gained_ns) };
        let lie_ns = lie_offset_us.saturating_mul(1_000);
        let shown_ns = shown_ns.and_then(|ns| ns.checked_add_signed(lie_ns));
        let grown_ns = match self.kind {
            MasterKind::Gps => 0,
            MasterKind::Atomic => (passed_ns / 1_000_000_000).saturating_mul(ATOMIC_DRIFT_NS_PER_S),
        };
        let epsilon_ns = self.uncertainty_ns.saturating_add(grown_ns);
        let earliest_ns = shown_ns.and_then(|ns| ns.checked_sub(epsilon_ns));
        let latest_ns = shown_ns.and_then(|ns| ns.checked_add(epsilon_ns));
        match earliest_ns.zip(latest_ns) {
            Some((earliest_ns, latest_ns)) => Content::Time { earliest_ns, latest_ns },
            None => Content::NoTime,
        }
    }
}

#[derive(Debug, Default)]
struct Counters {
    answered: AtomicU64,
    refused: AtomicU64,
    malformed: AtomicU64,
    forged: AtomicU64,
    lost: AtomicU64,
}

impl Counters {
    fn add(&self, counter: &AtomicU64) {
        counter.fetch_add(1, Ordering::Relaxed);
    }

    fn read(&self) -> MasterCounts {
        let of = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        MasterCounts {
            answered: of(&self.answered),
            refused: of(&self.refused),
            malformed: of(&self.malformed),
            forged: of(&self.forged),
            lost: of(&self.lost),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: u64 = 1_000_000_000;

    fn face(kind: MasterKind, faults: MasterFaults) -> Face {
        let config = MasterConfig { faults, uncertainty_us: 10, ..MasterConfig::new(kind) };
        let host = HostTime::new();
        Face { started_ns: 1_000 * S, uncertainty_ns: 10_000, ..Face::new(&config, host) }
    }

    /// The middle and the half-width of what it says, in nanoseconds.
    fn says(face: &Face, host_ns: u64) -> (u64, u64) {
        match face.at(host_ns) {
            Content::Time { earliest_ns, latest_ns } => {
                (earliest_ns.midpoint(latest_ns), (latest_ns - earliest_ns) / 2)
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn satellite_time_is_as_certain_as_it_was_and_atomic_time_slowly_is_not() {
        let gps = face(MasterKind::Gps, MasterFaults::default());
        assert_eq!(says(&gps, 1_000 * S), (1_000 * S, 10_000));
        assert_eq!(says(&gps, 87_400 * S), (87_400 * S, 10_000));
        let atomic = face(MasterKind::Atomic, MasterFaults::default());
        assert_eq!(says(&atomic, 1_000 * S), (1_000 * S, 10_000));
        assert_eq!(says(&atomic, 87_400 * S), (87_400 * S, 96_400));
    }

    #[test]
    fn it_can_be_wrong_each_way() {
        let with = |faults| says(&face(MasterKind::Gps, faults), 1_010 * S).0;
        let none = MasterFaults::default();
        assert_eq!(with(MasterFaults { lie_offset_us: -3, ..none }), 1_010 * S - 3_000);
        assert_eq!(with(MasterFaults { drift_ppm: 200.0, ..none }), 1_010 * S + 2_000_000);
        assert_eq!(with(MasterFaults { drift_ppm: -200.0, ..none }), 1_010 * S - 2_000_000);
        assert_eq!(with(MasterFaults { freeze: true, ..none }), 1_000 * S);
        let all = MasterFaults { lie_offset_us: 5, freeze: true, drift_ppm: 9.0, delay_us: 7 };
        assert_eq!(with(all), 1_000 * S + 5_000);
    }

    #[test]
    fn before_the_epoch_there_is_no_time() {
        let faults = MasterFaults { lie_offset_us: i64::MIN, ..MasterFaults::default() };
        assert_eq!(face(MasterKind::Gps, faults).at(1_000 * S), Content::NoTime);
        let faults = MasterFaults { drift_ppm: -2e6, ..MasterFaults::default() };
        assert_eq!(face(MasterKind::Gps, faults).at(4_000 * S), Content::NoTime);
    }

    #[test]
    fn without_a_secret_it_does_not_listen_to_the_world() {
        let listen = SocketAddr::from(([0, 0, 0, 0], 0));
        let config = MasterConfig { listen, ..MasterConfig::new(MasterKind::Gps) };
        let refused = Master::start(config.clone()).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::PermissionDenied);
        let key = Key::from_hex(&"5a".repeat(32)).unwrap();
        assert!(Master::start(MasterConfig { key, ..config }).is_ok());
    }
}
