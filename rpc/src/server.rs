//! The service, on one port: for nodes, for clients, for whoever operates the universe.

use crate::accept::accept;
use crate::dial::{CONNECTION_WINDOW_BYTES, PING_ANSWER, PING_EVERY, STREAM_WINDOW_BYTES};
use crate::envelope::{ENVELOPE_BYTES, MESSAGE_BYTES_MAX, open, seal};
use crate::hello::Hello;
use crate::links::{Frames, Links};
use crate::security::{Caller, Security};
use crate::wire::meridian_server::{Meridian, MeridianServer};
use crate::wire::{Envelope, Frame};
use bytes::Bytes;
use proto::control::{ControlReply, ControlRequest};
use proto::request::{Reply, Request};
use proto::{Error, NodeId};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_stream::wrappers::ReceiverStream;
use tonic::metadata::MetadataMap;
use tonic::{Response, Status, Streaming, async_trait};

/// Calls under way on one connection; more wait at the caller's. As many may be given up before the
/// server has looked at them: callers that hedge or run out of time are no attack.
const CALLS_MAX: u32 = 10_000;
/// How long broken connections may take to notice it.
const CUT_WITHIN: Duration = Duration::from_secs(1);

/// What a process does with what it is told and asked.
#[async_trait]
pub trait Handler: Send + Sync + 'static {
    /// Answers a request to a group. `within`: how long the caller waits, if it said so; the future
    /// is dropped then, and when the caller gives up earlier.
    async fn ask(&self, request: Request, within: Option<Duration>) -> Result<Reply, Error>;

    /// Answers about the universe. Who says `Join` or `Heartbeat` as a node is that node: the
    /// server has checked it.
    async fn control(&self, caller: Caller, request: ControlRequest)
    -> Result<ControlReply, Error>;

    /// Takes messages from another node, in the order in which they were sent. While it does not
    /// end, nothing more is read from that node's link: that is the back-pressure.
    async fn deliver(&self, from: NodeId, messages: Vec<Bytes>);

    /// Of which universe this process is; empty: of none yet. Whatever is asked of another one is
    /// answered with `NotLeader`, unseen: an address may have been somebody else's before.
    fn cluster(&self) -> String {
        String::new()
    }

    /// May this node have a link? Asked after everything else about it was found right.
    ///
    /// # Errors
    /// Why not, for people at both ends.
    fn hello(&self, hello: &Hello) -> Result<(), String> {
        let _ = hello;
        Ok(())
    }
}

/// A server at work. Dropped without [`shutdown`](Self::shutdown), it stops accepting, and its
/// connections break.
pub struct Server {
    address: SocketAddr,
    /// Ends the accepting.
    stop: watch::Sender<bool>,
    /// Breaks what is left.
    cut: watch::Sender<bool>,
    accepting: JoinHandle<()>,
    serving: JoinHandle<()>,
}

impl Server {
    /// Serves on a listener, on the runtime that this is called from. Links that come in belong to
    /// `links`, everything else to `handler`.
    ///
    /// # Errors
    /// The listener has no address.
    pub fn start(
        listener: TcpListener,
        security: Security,
        handler: Arc<dyn Handler>,
        links: Links,
    ) -> io::Result<Server> {
        let address = listener.local_addr()?;
        let (stop, cut) = (watch::Sender::new(false), watch::Sender::new(false));
        let (accepted, accepting) = accept(listener, security, cut.subscribe());
        let size = MESSAGE_BYTES_MAX + ENVELOPE_BYTES;
        let service = MeridianServer::new(Service { handler, links })
            .max_decoding_message_size(size)
            .max_encoding_message_size(size);
        let mut stopped = stop.subscribe();
        let serving = tonic::transport::Server::builder()
            .http2_keepalive_interval(Some(PING_EVERY))
            .http2_keepalive_timeout(Some(PING_ANSWER))
            .initial_stream_window_size(STREAM_WINDOW_BYTES)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
            .max_concurrent_streams(CALLS_MAX)
            .http2_max_pending_accept_reset_streams(Some(CALLS_MAX as usize))
            .add_service(service)
            .serve_with_incoming_shutdown(ReceiverStream::new(accepted), async move {
                let _ = stopped.wait_for(|stop| *stop).await; // or the sender is gone
            });
        let task = tokio::spawn(async move {
            if let Err(error) = serving.await {
                tracing::error!(%error, "the gRPC server ended");
            }
        });
        Ok(Server { address, stop, cut, accepting, serving: task })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Stops accepting, lets the calls under way end for so long, then breaks what is left. Links
    /// are not waited for; [`Links::close`] ends them.
    pub async fn shutdown(mut self, within: Duration) {
        self.stop.send_replace(true);
        // A task that panicked has ended too.
        let _ = (&mut self.accepting).await;
        if timeout(within, &mut self.serving).await.is_err() {
            self.cut.send_replace(true);
            if timeout(CUT_WITHIN, &mut self.serving).await.is_err() {
                tracing::warn!("connections were left open at the end");
            }
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.send_replace(true);
        self.cut.send_replace(true);
    }
}

/// The three procedures.
struct Service {
    handler: Arc<dyn Handler>,
    links: Links,
}

#[async_trait]
impl Meridian for Service {
    type LinkStream = Frames;

    async fn link(
        &self,
        request: tonic::Request<Streaming<Frame>>,
    ) -> Result<Response<Frames>, Status> {
        let caller = caller(&request)?;
        let frames = self.links.accept(&caller, request.into_inner()).await;
        frames.map(Response::new).map_err(|reason| {
            tracing::warn!(peer = %caller.address(), "link refused: {reason}");
            Status::failed_precondition(reason)
        })
    }

    async fn ask(&self, request: tonic::Request<Envelope>) -> Result<Response<Envelope>, Status> {
        let within = deadline(request.metadata());
        let envelope = request.into_inner();
        let words: Request = open(&envelope)?;
        if self.is_foreign(&envelope) {
            return Ok(Response::new(elsewhere::<Reply>()));
        }
        Ok(Response::new(answer_of(&self.handler.ask(words, within).await)))
    }

    async fn control(
        &self,
        request: tonic::Request<Envelope>,
    ) -> Result<Response<Envelope>, Status> {
        let caller = caller(&request)?;
        let envelope = request.into_inner();
        let words: ControlRequest = open(&envelope)?;
        if self.is_foreign(&envelope) {
            return Ok(Response::new(elsewhere::<ControlReply>()));
        }
        if let Err(reason) = check_speaker(&caller, &words) {
            tracing::warn!(peer = %caller.address(), "order refused: {reason}");
            return Ok(Response::new(answer_of::<ControlReply>(&Err(Error::FailedPrecondition(
                reason,
            )))));
        }
        Ok(Response::new(answer_of(&self.handler.control(caller, words).await)))
    }
}

impl Service {
    fn is_foreign(&self, envelope: &Envelope) -> bool {
        let (theirs, ours) = (&envelope.cluster, self.handler.cluster());
        !theirs.is_empty() && !ours.is_empty() && *theirs != ours
    }
}

/// Nothing happened here, and nothing will: ask another one.
fn elsewhere<T: serde::Serialize>() -> Envelope {
    answer_of::<T>(&Err(Error::NotLeader { hint: None }))
}

/// What only a node may say of itself, and only with its certificate.
fn check_speaker(caller: &Caller, words: &ControlRequest) -> Result<(), String> {
    match words {
        ControlRequest::Join(join) => caller.may_speak_as(join.info.node),
        ControlRequest::Heartbeat(heartbeat) => caller.may_speak_as(heartbeat.node),
        _ => Ok(()),
    }
}

fn caller<T>(request: &tonic::Request<T>) -> Result<Caller, Status> {
    let caller = request.extensions().get::<Caller>().cloned();
    caller.ok_or_else(|| Status::internal("a connection without a caller"))
}

/// An answer that does not fit is one too.
fn answer_of<T: serde::Serialize>(answer: &Result<T, Error>) -> Envelope {
    seal(answer).unwrap_or_else(|length| {
        let reason = format!(
            "the answer has {length} bytes, one may have {MESSAGE_BYTES_MAX}: ask for less"
        );
        seal(&Err::<T, Error>(Error::FailedPrecondition(reason))).expect("a refusal is small")
    })
}

/// How long the caller waits: `grpc-timeout`, at most eight digits and a unit.
fn deadline(metadata: &MetadataMap) -> Option<Duration> {
    let text = metadata.get("grpc-timeout")?.to_str().ok()?;
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let number: u64 = digits.parse().ok().filter(|_| digits.len() <= 8)?;
    Some(match unit {
        "H" => Duration::from_secs(number * 3_600),
        "M" => Duration::from_secs(number * 60),
        "S" => Duration::from_secs(number),
        "m" => Duration::from_millis(number),
        "u" => Duration::from_micros(number),
        "n" => Duration::from_nanos(number),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deadlines_are_read_in_every_unit() {
        let read = |text: &str| {
            let mut metadata = MetadataMap::new();
            metadata.insert("grpc-timeout", text.parse().expect("ASCII"));
            deadline(&metadata)
        };
        assert_eq!(read("2S"), Some(Duration::from_secs(2)));
        assert_eq!(read("1H"), Some(Duration::from_secs(3_600)));
        assert_eq!(read("3M"), Some(Duration::from_secs(180)));
        assert_eq!(read("99999999n"), Some(Duration::from_nanos(99_999_999)));
        assert_eq!(read("1500000u"), Some(Duration::from_millis(1_500)));
        for text in ["", "S", "2", "2x", "999999999S", "-2S"] {
            assert_eq!(read(text), None, "{text:?}");
        }
        assert_eq!(deadline(&MetadataMap::new()), None);
    }

    #[test]
    fn an_answer_that_is_too_large_becomes_a_refusal() {
        let answer = Ok(ControlReply::Locks("x".repeat(MESSAGE_BYTES_MAX)));
        let answer: Result<ControlReply, Error> = open(&answer_of(&answer)).expect("sealed");
        assert!(
            matches!(answer, Err(Error::FailedPrecondition(reason)) if reason.contains("bytes"))
        );
    }
}
