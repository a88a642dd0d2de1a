//! From what people write after `--clock` to a clock that runs.

use super::host::HostTime;
use super::{Absolute, Guard, Local, Simulated};
use crate::TrueTime;
use crate::spec::ClockSpec;
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
    let lacks =
        |reason: &str| Err(OpenClockError { provider: spec.provider(), reason: reason.to_owned() });
    match spec {
        ClockSpec::Local { epsilon_us } => {
            let clock = TrueTime::new(Local::with(host, *epsilon_us));
            Ok(Opened { clock, simulated: None })
        }
        ClockSpec::Simulated(simulated) => {
            let guard =
                Guard::new(f64::from(simulated.applied_ppm), simulated.check_ms * 1_000_000);
            let guard = simulated.evict.then_some(guard);
            let skew = simulated.skew(host.now_ns());
            let simulated = Simulated::with(Absolute::Host(host), skew, guard);
            Ok(Opened { clock: TrueTime::new(simulated.clone()), simulated: Some(simulated) })
        }
        ClockSpec::Masters(_) => lacks("masters cannot be asked yet"),
        ClockSpec::System => lacks("the kernel cannot be asked yet"),
        ClockSpec::ClockBound { .. } => lacks("ClockBound cannot be asked yet"),
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
}
