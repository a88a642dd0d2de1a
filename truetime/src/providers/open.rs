//! From what people write after `--clock` to a clock that runs.

use super::host::HostTime;
use super::{
    Absolute, ClockBound, ClockBoundConfig, Guard, Local, Masters, MastersConfig, Simulated,
    System, SystemConfig, read_key_file,
};
use crate::daemon::DaemonConfig;
use crate::key::Key;
use crate::spec::ClockSpec;
use crate::{Clock, TrueTime};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use std::fmt;
use std::path::Path;
use thiserror::Error;

/// A clock that runs.
#[derive(Clone, Debug)]
pub struct Opened {
    /// The clock of one node.
    pub clock: TrueTime,
    /// The same, where it is simulated: to change what is wrong with it.
    pub simulated: Option<Simulated>,
}

/// Why a clock cannot be opened. One that opens may still have no bound, or none yet.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{provider} clock: {reason}")]
pub struct OpenClockError {
    /// The provider's name, as `--clock` spells it.
    pub provider: &'static str,
    /// What is missing.
    pub reason: String,
}

/// Opens a clock of its own for one node. All nodes of a process are given the same `host`, so that
/// what is absolute time to their simulated clocks, and the time to their local ones, is one thing.
///
/// # Errors
/// What the provider lacks.
pub fn open(spec: &ClockSpec, host: HostTime) -> Result<Opened, OpenClockError> {
    let lacks = |reason: &dyn fmt::Display| OpenClockError {
        provider: spec.provider(),
        reason: reason.to_string(),
    };
    match spec {
        ClockSpec::Local { epsilon_us } => Ok(Opened::real(Local::with(host, *epsilon_us))),
        ClockSpec::Simulated(simulated) => {
            let guard =
                Guard::new(f64::from(simulated.applied_ppm), simulated.check_ms * 1_000_000);
            let guard = simulated.evict.then_some(guard);
            let skew = simulated.skew(host.now_ns());
            let simulated = Simulated::with(Absolute::Host(host), skew, guard);
            Ok(Opened { clock: TrueTime::new(simulated.clone()), simulated: Some(simulated) })
        }
        ClockSpec::Masters(masters) => {
            let key = match &masters.key_file {
                None => Key::PUBLIC,
                Some(path) => {
                    let key = read_key_file(Path::new(path));
                    key.map_err(|error| lacks(&format_args!("key file {path}: {error}")))?
                }
            };
            let seed = StdRng::from_os_rng().random();
            let daemon = DaemonConfig {
                poll_ns: masters.poll_ms.saturating_mul(1_000_000),
                drift_ppm: masters.drift_ppm,
                evict: masters.evict,
                ..DaemonConfig::new(masters.addresses.clone(), seed)
            };
            let masters = Masters::start(MastersConfig::new(daemon, key));
            Ok(Opened::real(masters.map_err(|error| lacks(&error))?))
        }
        ClockSpec::System => {
            let system = System::start(SystemConfig::default());
            Ok(Opened::real(system.map_err(|error| lacks(&error))?))
        }
        ClockSpec::ClockBound { path } => {
            let mut config = ClockBoundConfig::default();
            config.path = path.clone().unwrap_or(config.path);
            let clock_bound = ClockBound::start(config);
            Ok(Opened::real(clock_bound.map_err(|error| lacks(&error))?))
        }
    }
}

impl Opened {
    fn real(clock: impl Clock + 'static) -> Opened {
        Opened { clock: TrueTime::new(clock), simulated: None }
    }
}

#[cfg(test)]
mod tests {
    use super::super::host;
    use super::*;
    use crate::Status;
    use crate::spec::ClockChange;

    fn opened(text: &str, host: HostTime) -> Opened {
        open(&text.parse().unwrap(), host).unwrap()
    }

    #[test]
    fn clocks_of_one_host_agree_what_time_it_is() {
        let host = HostTime::new();
        let wide = opened("local:epsilon=7", host);
        let ahead = opened("simulated:offset=1s,epsilon=10,evict=off", host);
        for _ in 0..1_000 {
            let (before, then) = (wide.clock.now().unwrap(), ahead.clock.now().unwrap());
            let after = wide.clock.now().unwrap();
            assert!(then.earliest().micros() >= before.earliest().micros() + 1_000_000 - 10);
            assert!(then.latest().micros() <= after.latest().micros() + 1_000_000 + 10);
        }
    }

    #[test]
    fn a_simulated_clock_can_be_changed_while_it_runs_and_evicts_itself() {
        let host = HostTime::new();
        let Opened { clock, simulated } = opened("simulated:epsilon=5ms,check=1ms", host);
        let simulated = simulated.unwrap();
        assert!(clock.now().is_ok());
        let change = ClockChange::drift(100_000);
        simulated.set(|skew| change.apply(simulated.absolute_ns(), skew));
        let broken = || clock.read().is_err_and(|error| error.status == Status::Broken);
        while !broken() {
            host::rest(std::time::Duration::from_millis(1));
        }
        simulated.set(|skew| ClockChange::honest().apply(simulated.absolute_ns(), skew));
        while broken() {
            host::rest(std::time::Duration::from_millis(1));
        }
        assert!(simulated.skew().drift.offset_ns(simulated.absolute_ns()) == 0);
    }

    #[test]
    fn without_eviction_it_goes_on() {
        let opened = opened("simulated:offset=1s,epsilon=5ms,evict=off,check=1ms", HostTime::new());
        for _ in 0..5 {
            host::rest(std::time::Duration::from_millis(2));
            assert!(opened.clock.now().is_ok());
        }
    }

    #[test]
    fn masters_are_asked_with_the_key_of_the_file() {
        use crate::daemon::MasterKind;
        use crate::providers::{Master, MasterConfig, new_key_file};
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        let key = new_key_file(&path).unwrap();
        let config = MasterConfig { key, ..MasterConfig::new(MasterKind::Gps) };
        let master = Master::start(config).unwrap();
        let (at, path) = (master.address(), path.display());
        let with_key = opened(&format!("masters:{at},poll=1,key-file={path}"), HostTime::new());
        let without = opened(&format!("masters:{at},poll=1"), HostTime::new());
        while with_key.clock.read().is_err() {
            host::rest(std::time::Duration::from_millis(1));
        }
        assert_eq!(with_key.clock.read().unwrap().provider, "masters");
        while master.counts().forged == 0 {
            host::rest(std::time::Duration::from_millis(1));
        }
        assert_eq!(without.clock.read().unwrap_err().status, Status::Unsynchronized);
    }

    #[test]
    fn what_lacks_says_so() {
        let lacks = |text: &str| open(&text.parse().unwrap(), HostTime::new()).unwrap_err();
        let error = lacks("masters:127.0.0.1:9,key-file=does-not-exist");
        assert!(
            error.to_string().starts_with("masters clock: key file does-not-exist: "),
            "{error}"
        );
        let error = lacks("masters:192.0.2.1:9");
        assert!(error.to_string().contains("without a secret key"), "{error}");
    }

    #[test]
    fn the_kernel_and_clockbound_are_looked_at() {
        let system = opened("system", HostTime::new()).clock;
        assert_eq!(system.sources().masters[0].name, "kernel");
        let clock_bound = opened("clockbound:path=does-not-exist", HostTime::new()).clock;
        let error = clock_bound.read().unwrap_err();
        assert_eq!((error.status, error.provider), (Status::Unsynchronized, "clockbound"));
    }
}
