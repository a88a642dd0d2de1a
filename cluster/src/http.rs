//! Pages for machines: is the process alive, may it be sent work, and what it counts.
//!
//! | page | answers |
//! |---|---|
//! | `/healthz` | 200 while the threads that own groups answer within [`ANSWER_MAX`], 503 otherwise: restart it |
//! | `/readyz` | 200 while it should be sent work, 503 with the reasons otherwise: send it none |
//! | `/metrics` | everything in [`metrics`], in Prometheus' text format |
//! | `/` | which pages there are |
//!
//! Readiness is by lease health: a node is ready while it belongs to a universe, has a bound on its
//! clock (T5), knows a leader of each group in which it votes, and holds valid leases where it leads
//! itself. It says nothing about other nodes: a load balancer that took a whole cluster out because
//! one node is gone would make a small fault a large one. Liveness says still less: a node without a
//! bound, or without a majority, is alive, and a restart would not help it.
//!
//! The pages are plaintext, have no secrets, change nothing, and are nobody's way into the database:
//! by default only this host reaches them. Whoever does reach them may not cost more than a little:
//! [`CONNECTIONS_MAX`] connections, each closed when it has been silent for [`SILENCE_MAX`], and
//! [`LOOKS_MAX`] looks at a time, for a look asks every thread that owns groups.

mod limits;
#[cfg(test)]
mod tests;

use crate::metrics;
use axum::Router;
use axum::extract::State;
use axum::http::{HeaderName, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use futures::future::BoxFuture;
use limits::Limited;
use proto::control::NodeReport;
use proto::request::GroupStatus;
use serde::Serialize;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};
use tokio::time::timeout;
use truetime::Interval;

/// Connections at a time; more wait to be accepted.
pub const CONNECTIONS_MAX: usize = 64;
/// A connection on which nothing moves for so long is closed. More than the time between two looks
/// of whoever keeps connections.
pub const SILENCE_MAX: Duration = Duration::from_secs(90);
/// Looks at a time; more are refused.
pub const LOOKS_MAX: usize = 4;
/// Threads that own groups answer within this, or are taken for stuck.
pub const ANSWER_MAX: Duration = Duration::from_secs(2);
/// How long pages under way may take once the server is to end.
const FAREWELL: Duration = Duration::from_secs(1);

/// Whether a node is well, in its own judgement.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Health {
    /// The process works. A restart might help one that does not.
    pub live: bool,
    /// It should be sent work.
    pub ready: bool,
    /// Why it is not ready, in words; empty when it is.
    pub reasons: Vec<String>,
}

/// What the pages are made of.
pub trait Observed: Send + Sync + 'static {
    /// Whether the node is well. Answers at once.
    fn health(&self) -> Health;

    /// How the node is.
    fn report(&self) -> BoxFuture<'_, NodeReport>;

    /// Its replicas of groups. Asks every thread that owns some: the answer says that they work.
    fn groups(&self) -> BoxFuture<'_, Vec<GroupStatus>>;

    /// The node's clock (T1); `None` without a bound (T5).
    fn now(&self) -> Option<Interval>;
}

/// Serves the pages until `stop` ends, and then what is under way, for a moment.
///
/// # Errors
/// When the listener is of no use any more.
pub async fn serve(
    listener: TcpListener,
    observed: Arc<dyn Observed>,
    stop: impl Future<Output = ()> + Send + 'static,
) -> io::Result<()> {
    let (tell, told) = watch::channel(false);
    let serving = axum::serve(Limited::new(listener), router(observed))
        .with_graceful_shutdown(is_told(told))
        .into_future();
    let farewell = async {
        stop.await;
        tell.send_replace(true);
        // Whoever keeps a connection without asking does not keep the process.
        tokio::time::sleep(FAREWELL).await;
    };
    tokio::select! {
        ended = serving => ended,
        () = farewell => Ok(()),
    }
}

async fn is_told(mut told: watch::Receiver<bool>) {
    // An error says that nobody will tell any more: that is the end as well.
    let _ = told.wait_for(|told| *told).await;
}

struct Pages {
    observed: Arc<dyn Observed>,
    looks: Semaphore,
}

fn router(observed: Arc<dyn Observed>) -> Router {
    let pages = Pages { observed, looks: Semaphore::new(LOOKS_MAX) };
    Router::new()
        .route("/", get(index))
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .route("/metrics", get(scrape))
        .fallback(nothing)
        .with_state(Arc::new(pages))
}

const INDEX: &str = "\
meridian: pages for machines
  /healthz  200 while the process works, 503 otherwise
  /readyz   200 while it should be sent work, 503 with the reasons otherwise
  /metrics  what it counts, for Prometheus
";

async fn index() -> &'static str {
    INDEX
}

async fn nothing() -> (StatusCode, &'static str) {
    (StatusCode::NOT_FOUND, INDEX)
}

async fn healthz(State(pages): State<Arc<Pages>>) -> Response {
    let Ok(_look) = pages.looks.try_acquire() else { return busy() };
    let mut health = pages.observed.health();
    if timeout(ANSWER_MAX, pages.observed.groups()).await.is_err() {
        health.live = false;
        health.reasons = vec![format!(
            "a thread that owns groups has not answered for {} s",
            ANSWER_MAX.as_secs()
        )];
    } else if health.live {
        // Why it is not ready is not asked here.
        health.reasons.clear();
    }
    told(health.live, &health)
}

async fn readyz(State(pages): State<Arc<Pages>>) -> Response {
    let health = pages.observed.health();
    told(health.live && health.ready, &health)
}

fn told(well: bool, health: &Health) -> Response {
    let status = if well { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let mut text = serde_json::to_string(health).unwrap_or_default();
    text.push('\n');
    fresh(status, "application/json", text)
}

async fn scrape(State(pages): State<Arc<Pages>>) -> Response {
    let Ok(_look) = pages.looks.try_acquire() else { return busy() };
    let observed = &pages.observed;
    let looked = timeout(ANSWER_MAX, async { (observed.report().await, observed.groups().await) });
    let Ok((report, groups)) = looked.await else {
        let text = "the threads that own groups do not answer\n".to_owned();
        return fresh(StatusCode::SERVICE_UNAVAILABLE, "text/plain", text);
    };
    let text = metrics::render(&report, &groups, &observed.health(), observed.now());
    fresh(StatusCode::OK, "text/plain; version=0.0.4; charset=utf-8", text)
}

fn busy() -> Response {
    let text = "too many are looking at once; ask again\n";
    (StatusCode::SERVICE_UNAVAILABLE, [(header::RETRY_AFTER, "1")], text).into_response()
}

fn fresh(status: StatusCode, kind: &'static str, text: String) -> Response {
    let headers: [(HeaderName, &str); 2] =
        [(header::CONTENT_TYPE, kind), (header::CACHE_CONTROL, "no-store")];
    (status, headers, text).into_response()
}
