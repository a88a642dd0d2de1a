//! Connections for calls: one to each address that is asked, made when it is needed.
//!
//! A node that is down costs one attempt of at most a second ([`DIAL_WITHIN`]), not one per call:
//! until it is due to be tried again, calls to it fail at once. While it is being tried, calls wait
//! for that one attempt.
//!
//! ## What a failure means
//! A caller has to know whether its request may have been carried out (X9, X11):
//!
//! | what happened | [`try_ask`](Connections::try_ask), [`control`](Connections::control) | [`ask`](Connections::ask) |
//! |---|---|---|
//! | no connection; it broke before the request was handed to it | [`CallError::Unreachable`]: nothing happened | `NotLeader { hint: None }`: ask another |
//! | the node answered with an error | [`CallError::Refused`] | that error |
//! | the node does not understand the request: its version, its size | [`CallError::Refused`]: nothing happened | `FailedPrecondition`, `InvalidArgument` |
//! | the connection broke after that; time is over; anything else | [`CallError::Lost`]: unknown | does not end |
//!
//! `ask` does what `txn::client::Transport` wants: a request or an answer that is lost shows as a
//! future that does not end, so that nobody takes "no answer" for "nothing happened". The router
//! above stops waiting by itself, and repeats what may be repeated.

use crate::dial::{Dialled, Gone, Target, dial};
use crate::envelope::{MESSAGE_BYTES_MAX, open, seal};
use crate::faults::Faults;
use crate::security::Security;
use crate::wire::Envelope;
use futures::FutureExt;
use futures::future::BoxFuture;
use parking_lot::Mutex;
use proto::Error;
use proto::control::{ControlReply, ControlRequest};
use proto::request::{Reply, Request};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use serde::de::DeserializeOwned;
use std::collections::BTreeMap;
use std::error::Error as _;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};
use thiserror::Error;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use tonic::{Code, Status};

/// How long one attempt to connect may take.
pub const DIAL_WITHIN: Duration = Duration::from_secs(1);
/// The shortest and the longest time for which a node that could not be reached is not tried again.
const PAUSE_MIN: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_secs(2);
/// Addresses remembered; when there are more, those without a connection are forgotten.
const TARGETS_MAX: usize = 1_000;

/// Why a call has no good answer.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum CallError {
    /// Nothing was asked, nothing happened.
    #[error("{to} cannot be reached: {reason}")]
    Unreachable {
        /// Whom.
        to: Target,
        /// Why, in words.
        reason: String,
    },
    /// It was asked, and no answer came: it may have happened.
    #[error("no answer from {to}: {reason}")]
    Lost {
        /// Whom.
        to: Target,
        /// Why, in words.
        reason: String,
    },
    /// The answer is an error.
    #[error(transparent)]
    Refused(#[from] Error),
}

impl From<CallError> for Error {
    /// As words of `proto`: where nothing happened `NotLeader` without a hint, where nobody knows
    /// `DeadlineExceeded`, as the router says it when no answer came.
    fn from(error: CallError) -> Error {
        match error {
            CallError::Unreachable { .. } => Error::NotLeader { hint: None },
            CallError::Lost { .. } => Error::DeadlineExceeded(error.to_string()),
            CallError::Refused(error) => error,
        }
    }
}

/// Connections to whoever is asked. Clones are the same connections; with the last one they close.
#[derive(Clone)]
pub struct Connections {
    inner: Arc<Inner>,
}

struct Inner {
    security: Security,
    /// Of which universe we are, once that is known.
    cluster: OnceLock<String>,
    faults: Arc<Faults>,
    targets: Mutex<BTreeMap<Target, Arc<Entry>>>,
    /// For the jitter of pauses.
    rng: Mutex<SmallRng>,
}

/// What is known of one target.
#[derive(Default)]
struct Entry {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    connection: Connection,
    /// Attempts that failed in a row.
    failures: u32,
}

#[derive(Default)]
enum Connection {
    #[default]
    None,
    /// Somebody is trying; the outcome comes here.
    Dialling(watch::Receiver<Option<Result<Dialled, String>>>),
    Up(Dialled),
    /// Not to be tried before that.
    Down {
        until: Instant,
        reason: String,
    },
}

impl Connections {
    /// No connection yet. Faults count for calls to nodes, not for those to addresses.
    pub fn new(security: Security, faults: Arc<Faults>, seed: u64) -> Connections {
        let (targets, rng) = (Mutex::default(), Mutex::new(SmallRng::seed_from_u64(seed)));
        let cluster = OnceLock::new();
        Connections { inner: Arc::new(Inner { security, cluster, faults, targets, rng }) }
    }

    /// From now on only servers of this universe answer. Only the first call counts.
    pub fn belong_to(&self, cluster: &str) {
        let _ = self.inner.cluster.set(cluster.to_owned());
    }

    /// Asks a group's replica at a node, as `txn::client::Transport` wants it: a lost request or
    /// answer is a future that does not end. `within` goes along, and a server stops working on the
    /// request then; dropping the future tells it to stop at once.
    pub fn ask(
        &self,
        to: &Target,
        request: &Request,
        within: Duration,
    ) -> BoxFuture<'static, Result<Reply, Error>> {
        let call = self.try_ask(to, request, within);
        async move {
            match call.await {
                Ok(reply) => Ok(reply),
                Err(CallError::Lost { to, reason }) => {
                    tracing::debug!(%to, "a request or its answer is lost: {reason}");
                    std::future::pending().await
                }
                Err(error) => Err(error.into()),
            }
        }
        .boxed()
    }

    /// Asks a group's replica at a node, as `txn::client::Transport::attempt` wants it: `None` as soon
    /// as it is known that no answer will come. The request may have been carried out (X9).
    pub fn attempt(
        &self,
        to: &Target,
        request: &Request,
        within: Duration,
    ) -> BoxFuture<'static, Option<Result<Reply, Error>>> {
        let call = self.try_ask(to, request, within);
        async move {
            match call.await {
                Ok(reply) => Some(Ok(reply)),
                Err(CallError::Lost { .. }) => None,
                Err(error) => Some(Err(error.into())),
            }
        }
        .boxed()
    }

    /// Asks a group's replica at a node, and tells what is known of a request without an answer.
    ///
    /// # Errors
    /// [`CallError`]; after `within` it is [`CallError::Lost`].
    pub fn try_ask(
        &self,
        to: &Target,
        request: &Request,
        within: Duration,
    ) -> BoxFuture<'static, Result<Reply, CallError>> {
        self.clone().call(Procedure::Ask, to.clone(), seal(request), within).boxed()
    }

    /// Asks, or orders, something about the universe.
    ///
    /// # Errors
    /// [`CallError`]; after `within` it is [`CallError::Lost`].
    pub fn control(
        &self,
        to: &Target,
        request: &ControlRequest,
        within: Duration,
    ) -> BoxFuture<'static, Result<ControlReply, CallError>> {
        self.clone().call(Procedure::Control, to.clone(), seal(request), within).boxed()
    }

    async fn call<T: DeserializeOwned>(
        self,
        procedure: Procedure,
        to: Target,
        sealed: Result<Envelope, usize>,
        within: Duration,
    ) -> Result<T, CallError> {
        let mut envelope = sealed.map_err(|length| {
            Error::InvalidArgument(format!(
                "the request has {length} bytes, one may have {MESSAGE_BYTES_MAX}: write less at once"
            ))
        })?;
        envelope.cluster = self.inner.cluster.get().cloned().unwrap_or_default();
        let until = Instant::now() + within;
        let call = async {
            match to.node.map_or(Some(Duration::ZERO), |node| self.inner.faults.call(node)) {
                Some(delay) if delay.is_zero() => {}
                Some(delay) => sleep(delay).await,
                None => std::future::pending().await,
            }
            self.deliver(procedure, &to, &envelope, until).await
        };
        let answer = timeout(within, call).await.unwrap_or_else(|_| {
            Err(CallError::Lost {
                to: to.clone(),
                reason: format!("{} ms are over", within.as_millis()),
            })
        })?;
        let answer: Result<T, Error> = open(&answer).map_err(|status| CallError::Lost {
            to,
            reason: format!("its answer makes no sense: {}", status.message()),
        })?;
        Ok(answer?)
    }

    /// Sends a request; a second time if the connection turned out to be gone before.
    async fn deliver(
        &self,
        procedure: Procedure,
        to: &Target,
        envelope: &Envelope,
        until: Instant,
    ) -> Result<Envelope, CallError> {
        let unreachable = |reason| CallError::Unreachable { to: to.clone(), reason };
        let entry = self.inner.entry(to);
        for _ in 0..2 {
            let mut dialled = self.inner.connected(&entry, to).await.map_err(unreachable)?;
            let mut request = tonic::Request::new(envelope.clone());
            request.set_timeout(until.saturating_duration_since(Instant::now()));
            let answer = match procedure {
                Procedure::Ask => dialled.client.ask(request).await,
                Procedure::Control => dialled.client.control(request).await,
            };
            match answer {
                Ok(answer) => return Ok(answer.into_inner()),
                Err(status) if never_left(&status) => entry.forget(&dialled),
                Err(status) => {
                    let reason = dialled.line.broken();
                    if reason.is_some() {
                        entry.forget(&dialled);
                    }
                    return Err(meaning(to, &status, reason));
                }
            }
        }
        Err(unreachable("the connection breaks again and again".into()))
    }
}

#[derive(Clone, Copy)]
enum Procedure {
    Ask,
    Control,
}

/// The request never left: there was no connection any more, or it closed while the request waited
/// for its turn, which is what HTTP/2's client calls canceled.
fn never_left(status: &Status) -> bool {
    let mut source = status.source();
    while let Some(error) = source {
        let canceled = error.downcast_ref::<hyper::Error>().is_some_and(hyper::Error::is_canceled);
        if canceled || error.is::<Gone>() {
            return true;
        }
        source = error.source();
    }
    false
}

/// What gRPC's own trouble means; see the [module](self).
fn meaning(to: &Target, status: &Status, broken: Option<String>) -> CallError {
    let message = status.message();
    match status.code() {
        // Said by the service itself before it looked at what was asked.
        Code::FailedPrecondition => Error::FailedPrecondition(format!("{to}: {message}")).into(),
        Code::InvalidArgument => Error::InvalidArgument(format!("{to}: {message}")).into(),
        Code::Unimplemented => {
            Error::FailedPrecondition(format!("{to} is no Meridian server: {message}")).into()
        }
        _ => {
            CallError::Lost { to: to.clone(), reason: broken.unwrap_or_else(|| message.to_owned()) }
        }
    }
}

impl Inner {
    fn entry(&self, to: &Target) -> Arc<Entry> {
        let mut targets = self.targets.lock();
        if targets.len() >= TARGETS_MAX && !targets.contains_key(to) {
            targets.retain(|_, entry| matches!(entry.state.lock().connection, Connection::Up(_)));
        }
        targets.entry(to.clone()).or_default().clone()
    }

    /// The connection to a target: the one there is, or the outcome of one attempt.
    async fn connected(
        self: &Arc<Self>,
        entry: &Arc<Entry>,
        to: &Target,
    ) -> Result<Dialled, String> {
        let mut attempt = {
            let mut state = entry.state.lock();
            match &state.connection {
                Connection::Up(dialled) if dialled.line.broken().is_none() => {
                    return Ok(dialled.clone());
                }
                Connection::Down { until, reason } if Instant::now() < *until => {
                    return Err(reason.clone());
                }
                Connection::Dialling(attempt) => attempt.clone(),
                _ => {
                    let attempt = self.dial(entry.clone(), to.clone());
                    state.connection = Connection::Dialling(attempt.clone());
                    attempt
                }
            }
        };
        let outcome = attempt.wait_for(Option::is_some).await;
        let outcome = outcome.ok().and_then(|outcome| outcome.clone());
        outcome.unwrap_or_else(|| Err("the attempt was given up".into()))
    }

    /// Makes one attempt, which goes on when those who wait for it have gone: they find its outcome
    /// when they come back.
    fn dial(
        self: &Arc<Self>,
        entry: Arc<Entry>,
        to: Target,
    ) -> watch::Receiver<Option<Result<Dialled, String>>> {
        let (done, outcome) = watch::channel(None);
        let inner = self.clone();
        tokio::spawn(async move {
            let dialled = dial(&to, &inner.security, DIAL_WITHIN).await;
            inner.settle(&entry, &dialled);
            done.send_replace(Some(dialled));
        });
        outcome
    }

    fn settle(&self, entry: &Entry, outcome: &Result<Dialled, String>) {
        let mut state = entry.state.lock();
        match outcome {
            Ok(dialled) => {
                *state = State { connection: Connection::Up(dialled.clone()), failures: 0 }
            }
            Err(reason) => {
                let ceiling = (PAUSE_MIN * 2_u32.pow(state.failures.min(10))).min(PAUSE_MAX);
                let pause = ceiling.mul_f64(self.rng.lock().random_range(0.5..=1.0));
                state.failures = state.failures.saturating_add(1);
                let until = Instant::now() + pause;
                state.connection = Connection::Down { until, reason: reason.clone() };
            }
        }
    }
}

impl Entry {
    /// A connection is of no use any more, unless another one is there already.
    fn forget(&self, dialled: &Dialled) {
        let mut state = self.state.lock();
        if matches!(&state.connection, Connection::Up(held) if held.line.is(&dialled.line)) {
            state.connection = Connection::None;
        }
    }
}
