//! What a server needs of its host: the time, and how much room there is.

use crate::error::StartError;
use spanserver::Settings;
use std::path::Path;
use std::time::{Duration, Instant};
use truetime::providers::{HostTime, Opened, SharedHostTime, open};
use truetime::spec::ClockSpec;

/// How long a start waits for the clock; without a bound it goes on, and serves when there is one.
const CLOCK_WAIT: Duration = Duration::from_secs(10);
const CLOCK_LOOK: Duration = Duration::from_millis(20);

/// Servers of one host share what its clock showed when the first of them started (T6).
pub(crate) fn open_clock(spec: &ClockSpec) -> Result<(Option<SharedHostTime>, Opened), StartError> {
    let shared = match spec {
        ClockSpec::Local { .. } | ClockSpec::Simulated(_) => {
            let joined = SharedHostTime::join();
            Some(joined.map_err(StartError::io("sharing the host's time"))?)
        }
        _ => None,
    };
    let host = shared.as_ref().map_or_else(HostTime::new, SharedHostTime::host);
    Ok((shared, open(spec, host)?))
}

/// Waits a while for a bound, which then has to fit the leases (L7).
pub(crate) async fn wait_for_time(clock: &Opened, spec: &ClockSpec) -> Result<(), StartError> {
    let begun = Instant::now();
    loop {
        match clock.clock.now() {
            Ok(now) => {
                let worst_us = now.epsilon_us() + spec.growth_us();
                return Settings::default().validate(worst_us).map_err(StartError::Invalid);
            }
            Err(error) if begun.elapsed() >= CLOCK_WAIT => {
                tracing::warn!(%error, "the clock has no bound: this node serves when it has one");
                return Ok(());
            }
            Err(_) => tokio::time::sleep(CLOCK_LOOK).await,
        }
    }
}

pub(crate) fn disk_free(folder: &Path) -> u64 {
    rustix::fs::statvfs(folder).map_or(0, |stat| stat.f_bavail.saturating_mul(stat.f_frsize))
}

/// Resident memory of this process.
pub(crate) fn memory() -> u64 {
    let text = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<u64>().ok());
    kib.unwrap_or(0).saturating_mul(1_024)
}
