//! What clients did, all together: commits, failures by kind, and the longest time without a commit.
//!
//! Servers may die, pause and come back while a benchmark runs. What its clients are told then asks
//! for another try (X11): that is counted and gone on from. Anything else ends the run.

use super::{millis, percentile};
use serde_json::json;
use sql::{ErrorKind, SqlError};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Before the next try of a client whose transaction failed.
const PAUSE: Duration = Duration::from_millis(20);
/// How long preparations and audits wait for servers to come back.
const PATIENCE: Duration = Duration::from_secs(60);

/// Counts; shared by all clients of a run.
pub struct Tally {
    began: Instant,
    /// The last commit, in nanoseconds since the beginning.
    last_ns: AtomicU64,
    attempts: AtomicU64,
    seen: Mutex<Seen>,
}

#[derive(Default)]
struct Seen {
    latencies: Vec<Duration>,
    stall: Stall,
    failures: BTreeMap<&'static str, u64>,
}

/// A time in which no client committed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stall {
    /// How long.
    pub length: Duration,
    /// When it began, since the beginning.
    pub at: Duration,
}

impl Tally {
    /// Begins now.
    pub fn begin() -> Tally {
        Tally {
            began: Instant::now(),
            last_ns: AtomicU64::new(0),
            attempts: AtomicU64::new(0),
            seen: Mutex::default(),
        }
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Since the beginning.
    pub fn elapsed(&self) -> Duration {
        self.began.elapsed()
    }

    /// Of all clients, aborted ones too.
    pub fn attempts(&self) -> &AtomicU64 {
        &self.attempts
    }

    /// A transaction is committed, so long after its first attempt began.
    pub fn committed(&self, latency: Duration) {
        self.note(self.began.elapsed(), Some(latency));
    }

    fn note(&self, now: Duration, latency: Option<Duration>) {
        let now_ns = u64::try_from(now.as_nanos()).unwrap_or(u64::MAX);
        let before_ns = self.last_ns.fetch_max(now_ns, Ordering::Relaxed);
        let (at, length) = (
            Duration::from_nanos(before_ns),
            Duration::from_nanos(now_ns.saturating_sub(before_ns)),
        );
        let mut seen = self.seen();
        seen.latencies.extend(latency);
        if length > seen.stall.length {
            seen.stall = Stall { length, at };
        }
    }

    /// A transaction failed; after a moment its client goes on.
    ///
    /// # Errors
    /// The same, where no other try will do.
    pub async fn failed(&self, error: SqlError) -> Result<(), SqlError> {
        if let Some(kind) = passing(error.kind) {
            *self.seen().failures.entry(kind).or_default() += 1;
        }
        passed(error).await
    }

    /// What there is to tell, when no client works any more.
    pub fn end(self) -> Totals {
        let took = self.began.elapsed();
        self.note(took, None);
        let Seen { mut latencies, stall, failures } =
            self.seen.into_inner().unwrap_or_else(PoisonError::into_inner);
        latencies.sort_unstable();
        Totals { took, latencies, stall, failures, attempts: self.attempts.into_inner() }
    }
}

/// How a failure that passes is called; `None`: it is one that does not.
fn passing(kind: ErrorKind) -> Option<&'static str> {
    match kind {
        ErrorKind::OutcomeUnknown => Some("outcome_unknown"),
        ErrorKind::Aborted => Some("aborted"),
        ErrorKind::Unavailable => Some("unavailable"),
        ErrorKind::DeadlineExceeded => Some("deadline_exceeded"),
        _ => None,
    }
}

/// Waits for a moment after a failure that passes.
///
/// # Errors
/// The same, if it does not.
pub async fn passed(error: SqlError) -> Result<(), SqlError> {
    if passing(error.kind).is_none() {
        return Err(error);
    }
    tokio::time::sleep(PAUSE).await;
    Ok(())
}

/// Does something that may be done twice, again and again while servers come back.
///
/// # Errors
/// Its own, if that does not pass, or not in a minute.
pub async fn patiently<T>(work: impl AsyncFn() -> Result<T, SqlError>) -> Result<T, SqlError> {
    let began = Instant::now();
    loop {
        match work().await {
            Err(error) if passing(error.kind).is_some() && began.elapsed() < PATIENCE => {
                tokio::time::sleep(PAUSE).await;
            }
            ended => return ended,
        }
    }
}

/// A run's end.
pub struct Totals {
    took: Duration,
    /// Of committed transactions, in order.
    latencies: Vec<Duration>,
    stall: Stall,
    failures: BTreeMap<&'static str, u64>,
    attempts: u64,
}

impl Totals {
    /// Committed transactions.
    pub fn commits(&self) -> u64 {
        self.latencies.len() as u64
    }

    /// Attempts that were aborted and made again within a transaction.
    fn retries(&self) -> u64 {
        self.attempts.saturating_sub(self.commits() + self.failures.values().sum::<u64>())
    }

    fn per_second(&self) -> f64 {
        self.commits() as f64 / self.took.as_secs_f64().max(1e-9)
    }

    /// For people.
    pub fn lines(&self) -> Vec<String> {
        let at = |share: f64| millis(percentile(&self.latencies, share));
        let commits = self.commits().max(1) as f64;
        let seconds = self.took.as_secs_f64();
        let failures = match self.failures.is_empty() {
            true => "none".to_owned(),
            false => {
                let each = self.failures.iter();
                let each = each.map(|(kind, count)| format!("{count} {}", kind.replace('_', " ")));
                each.collect::<Vec<_>>().join(", ")
            }
        };
        vec![
            format!(
                "committed       {} in {seconds:.1} s ({:.0} per second)",
                self.commits(),
                self.per_second()
            ),
            format!(
                "latency         p50 {:.2} ms, p95 {:.2} ms, p99 {:.2} ms",
                at(0.50),
                at(0.95),
                at(0.99)
            ),
            format!(
                "retries         {} attempts aborted ({:.2} per commit)",
                self.retries(),
                self.retries() as f64 / commits
            ),
            format!("failures        {failures}"),
            format!(
                "longest stall   {:.3} s without a commit, from {:.1} s on",
                self.stall.length.as_secs_f64(),
                self.stall.at.as_secs_f64()
            ),
        ]
    }

    /// For programs.
    pub fn object(&self) -> serde_json::Map<String, serde_json::Value> {
        let at = |share: f64| millis(percentile(&self.latencies, share));
        let object = json!({
            "seconds": self.took.as_secs_f64(),
            "commits": self.commits(),
            "commits_per_second": self.per_second(),
            "latency_ms": { "p50": at(0.50), "p95": at(0.95), "p99": at(0.99), "max": at(1.0) },
            "attempts_aborted": self.retries(),
            "failures": self.failures,
            "longest_stall_ms": millis(self.stall.length),
            "longest_stall_at_ms": millis(self.stall.at),
        });
        match object {
            serde_json::Value::Object(fields) => fields,
            _ => serde_json::Map::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn the_longest_time_without_a_commit_counts_also_at_the_ends() {
        let tally = Tally::begin();
        for at in [30, 31, 131, 140] {
            tally.note(at * MS, Some(MS));
        }
        let stall = tally.seen().stall;
        assert_eq!(stall, Stall { length: 100 * MS, at: 31 * MS });
        tally.note(900 * MS, None);
        let totals = tally.end();
        assert_eq!(totals.stall, Stall { length: 760 * MS, at: 140 * MS });
        assert_eq!(totals.commits(), 4);
        let tally = Tally::begin();
        tally.note(50 * MS, Some(MS));
        assert_eq!(tally.end().stall.at, Duration::ZERO, "before the first one, too");
    }

    #[tokio::test]
    async fn failures_that_pass_are_counted_and_others_are_not() {
        let tally = Tally::begin();
        let error = |kind| SqlError::new(kind, "it failed");
        for kind in [ErrorKind::OutcomeUnknown, ErrorKind::Unavailable, ErrorKind::Unavailable] {
            tally.failed(error(kind)).await.expect("it passes");
        }
        assert!(tally.failed(error(ErrorKind::NotFound)).await.is_err());
        tally.attempts().store(10, Ordering::Relaxed);
        tally.committed(MS);
        let totals = tally.end();
        assert_eq!(totals.retries(), 6);
        let object = totals.object();
        assert_eq!(object["failures"], json!({ "outcome_unknown": 1, "unavailable": 2 }));
        let lines = totals.lines();
        assert!(lines[3].ends_with("1 outcome unknown, 2 unavailable"), "{lines:?}");
    }

    #[tokio::test]
    async fn patience_ends_with_the_first_good_answer_or_a_failure_that_stays() {
        let tries = AtomicU64::new(0);
        let answer = patiently(async || match tries.fetch_add(1, Ordering::Relaxed) {
            0 => Err(SqlError::new(ErrorKind::Unavailable, "not yet")),
            _ => Ok(7),
        });
        assert_eq!(answer.await, Ok(7));
        let wrong = patiently(async || Err::<(), _>(SqlError::new(ErrorKind::Syntax, "never")));
        assert_eq!(wrong.await.map_err(|error| error.kind), Err(ErrorKind::Syntax));
    }
}
