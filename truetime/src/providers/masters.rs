//! The time daemon, with a thread and a socket.

use super::host;
use super::steered::{Oscillator, Steered};
use super::worker::Worker;
use crate::daemon::{Answer, Ask, Daemon, DaemonConfig};
use crate::key::Key;
use crate::wire::{self, Content, DATAGRAM_BYTES, Request};
use crate::{Clock, ClockError, Reading, Sources};
use arc_swap::ArcSwap;
use std::collections::VecDeque;
use std::io::{self, ErrorKind};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs, UdpSocket};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

const NAME: &str = "masters";

/// How soon the thread notices that it is to stop.
const NOTICE: Duration = Duration::from_millis(50);

/// How often names are looked up again: a master may move.
const LOOK_UP_EVERY: Duration = Duration::from_secs(30);

/// See [`Masters::start`].
#[derive(Clone, Debug)]
pub struct MastersConfig {
    /// How to poll them. The names of its masters are their addresses, `HOST:PORT`.
    pub daemon: DaemonConfig,
    /// That the masters have too. [`Key::PUBLIC`] with masters on loopback addresses only.
    pub key: Key,
    /// What counts the time between polls.
    pub oscillator: Oscillator,
}

impl MastersConfig {
    /// The host's oscillator.
    pub fn new(daemon: DaemonConfig, key: Key) -> MastersConfig {
        MastersConfig { daemon, key, oscillator: Oscillator::Boot }
    }
}

/// A clock kept by time masters: the [time daemon](crate::daemon) with a thread and a socket.
///
/// The thread asks and listens; readers see the bound that it published last, and take no lock.
/// An answer counts only if it comes from the address that was asked, repeats the request's id, and
/// was made with the key.
#[derive(Debug)]
pub struct Masters {
    steered: Steered,
    daemon: Arc<Mutex<Daemon>>,
    _worker: Worker,
    _names: Option<Worker>,
}

impl Masters {
    /// Starts to ask. Until a majority has answered there is no bound.
    ///
    /// # Errors
    /// No masters, an address without a port ([`ErrorKind::InvalidInput`]), one beyond this host
    /// without a secret key ([`ErrorKind::PermissionDenied`]), no socket, no thread. A name that
    /// cannot be looked up is no error: that is tried again.
    pub fn start(config: MastersConfig) -> io::Result<Masters> {
        let MastersConfig { daemon, key, oscillator } = config;
        let names = daemon.masters.clone();
        if names.is_empty() {
            return Err(io::Error::new(ErrorKind::InvalidInput, "no time masters to ask"));
        }
        if let Some(name) = names.iter().find(|name| !has_port(name)) {
            let reason = format!("{name}: a time master is HOST:PORT");
            return Err(io::Error::new(ErrorKind::InvalidInput, reason));
        }
        let found = look_up(&names);
        let (lonely, beyond) = (key.is_public(), |at: &SocketAddr| !at.ip().is_loopback());
        if lonely && let Some(at) = found.iter().flatten().find(|at| beyond(at)) {
            let reason = format!(
                "{at} is not on this host: without a secret key (a key file) anybody could answer \
                 in its name"
            );
            return Err(io::Error::new(ErrorKind::PermissionDenied, reason));
        }
        let socket = open_socket(&found, lonely)?;
        let addresses = Arc::new(ArcSwap::from_pointee(found));
        let by_name = names.iter().any(|name| name.parse::<SocketAddr>().is_err());
        let renewed = addresses.clone();
        let look_up_again = move || {
            // Nobody but this host is asked without a key, whatever a name has come to mean.
            let local = |at: &SocketAddr| !lonely || at.ip().is_loopback();
            let found: Vec<_> = look_up(&names).into_iter().map(|at| at.filter(local)).collect();
            renewed.store(Arc::new(found));
            LOOK_UP_EVERY
        };
        let steered = Steered::new(NAME, oscillator);
        let daemon = Arc::new(Mutex::new(Daemon::new(daemon)));
        let mut poller = Poller {
            steered: steered.clone(),
            daemon: daemon.clone(),
            socket,
            key,
            addresses,
            asked: VecDeque::new(),
            answers: Vec::new(),
            wake_at_ns: 0,
        };
        Ok(Masters {
            steered,
            daemon,
            _worker: Worker::start("time-daemon", move || poller.turn())?,
            _names: match by_name {
                true => Some(Worker::start("time-master-names", look_up_again)?),
                false => None,
            },
        })
    }
}

impl Clock for Masters {
    fn read(&self) -> Result<Reading, ClockError> {
        self.steered.read()
    }

    fn rest(&self, duration: Duration) {
        host::rest(duration);
    }

    fn sources(&self) -> Sources {
        lock(&self.daemon).sources(self.steered.oscillator().now_ns())
    }
}

/// What the thread has.
struct Poller {
    steered: Steered,
    /// Locked for a step; for people, by [`Masters::sources`].
    daemon: Arc<Mutex<Daemon>>,
    socket: UdpSocket,
    key: Key,
    /// Of the masters, in their order; `None`: its name is not known.
    addresses: Arc<ArcSwap<Vec<Option<SocketAddr>>>>,
    /// The latest questions, and who was asked.
    asked: VecDeque<(Ask, SocketAddr)>,
    answers: Vec<Answer>,
    wake_at_ns: u64,
}

impl Poller {
    /// Does what is due, then listens for a while. How long to pause: not at all.
    fn turn(&mut self) -> Duration {
        let local_ns = self.steered.oscillator().now_ns();
        if !self.answers.is_empty() || local_ns >= self.wake_at_ns {
            let answers = std::mem::take(&mut self.answers);
            let out = lock(&self.daemon).step(local_ns, answers);
            self.wake_at_ns = out.wake_at_ns;
            self.ask(&out.ask);
            if let Some(bound) = out.bound {
                self.steered.publish(bound);
            }
        }
        let local_ns = self.steered.oscillator().now_ns();
        let left = Duration::from_nanos(self.wake_at_ns.saturating_sub(local_ns));
        if !left.is_zero() {
            self.listen(left.min(NOTICE));
        }
        Duration::ZERO
    }

    fn ask(&mut self, asks: &[Ask]) {
        let addresses = self.addresses.load();
        for ask in asks {
            let Some(to) = addresses.get(ask.master).copied().flatten() else { continue };
            let datagram = Request { id: ask.id }.encode(&self.key);
            // One that is not sent is one that is not answered: the daemon asks again.
            let _ = self.socket.send_to(&datagram, reachable(&self.socket, to));
            self.asked.push_back((*ask, to));
        }
        // A round asks nobody more than twice, and after it nobody waits for its answers.
        while self.asked.len() > 2 * addresses.len() {
            self.asked.pop_front();
        }
    }

    fn listen(&mut self, within: Duration) {
        // Not zero: that would be for ever.
        let within = within.max(Duration::from_micros(1));
        // One byte more than there should be: what is too long shall not look as if it were not.
        let mut buffer = [0; DATAGRAM_BYTES + 1];
        let received = self
            .socket
            .set_read_timeout(Some(within))
            .and_then(|()| self.socket.recv_from(&mut buffer));
        let received_ns = self.steered.oscillator().now_ns();
        match received {
            Ok((length, from)) => {
                self.answers.extend(self.understood(&buffer[..length], from, received_ns));
            }
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
            // Whatever it is (a signal, no memory), it shall not keep a core busy.
            Err(_) => host::rest(Duration::from_millis(1)),
        }
    }

    fn understood(&self, bytes: &[u8], from: SocketAddr, received_ns: u64) -> Option<Answer> {
        let wire::Answer { id, kind, content } = wire::Answer::decode(bytes, &self.key).ok()?;
        let from = SocketAddr::new(from.ip().to_canonical(), from.port());
        let question = self.asked.iter().find(|(ask, to)| (ask.id, *to) == (id, from));
        let content = match content {
            Content::Time { earliest_ns, latest_ns } => Some((earliest_ns, latest_ns)),
            Content::NoTime => None,
            // It may have time, and says none: as if it were silent.
            Content::Refused => return None,
        };
        question.map(|(ask, _)| Answer { master: ask.master, id, received_ns, kind, content })
    }
}

/// A thread that panicked in the middle of a step leaves what people may still look at.
fn lock(daemon: &Mutex<Daemon>) -> MutexGuard<'_, Daemon> {
    daemon.lock().unwrap_or_else(PoisonError::into_inner)
}

fn has_port(name: &str) -> bool {
    name.rsplit_once(':')
        .is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok())
}

/// The first address of each name.
fn look_up(names: &[String]) -> Vec<Option<SocketAddr>> {
    let first = |name: &String| name.to_socket_addrs().ok().and_then(|mut found| found.next());
    let canonical = |at: SocketAddr| SocketAddr::new(at.ip().to_canonical(), at.port());
    names.iter().map(|name| first(name).map(canonical)).collect()
}

/// One socket for all: of the sixth version if there is such a master (it reaches those of the
/// fourth as well), and heard on this host only if all are on it.
fn open_socket(addresses: &[Option<SocketAddr>], lonely: bool) -> io::Result<UdpSocket> {
    let six = addresses.iter().flatten().any(SocketAddr::is_ipv6);
    let four = addresses.iter().flatten().any(SocketAddr::is_ipv4);
    let ip: IpAddr = match (six, lonely) {
        (true, true) if !four => Ipv6Addr::LOCALHOST.into(),
        (true, _) => Ipv6Addr::UNSPECIFIED.into(),
        (false, true) => Ipv4Addr::LOCALHOST.into(),
        (false, false) => Ipv4Addr::UNSPECIFIED.into(),
    };
    UdpSocket::bind((ip, 0))
}

/// The address as this socket has to be told it.
fn reachable(socket: &UdpSocket, to: SocketAddr) -> SocketAddr {
    match (socket.local_addr(), to.ip()) {
        (Ok(SocketAddr::V6(_)), IpAddr::V4(ip)) => {
            SocketAddr::new(ip.to_ipv6_mapped().into(), to.port())
        }
        _ => to,
    }
}
