//! Connections that go out.
//!
//! A connection counts as made when the server's first HTTP/2 bytes are there. Not earlier: with TLS
//! 1.3 a client believes the handshake over before the server has looked at its certificate, and
//! what a server refuses it would hear with its first call. So whatever is wrong with a connection is
//! known before anything was asked, in words, and nothing has happened.

use crate::security::{Security, explain, node_name};
use crate::stream::{Stream, TLS_ALERT};
use crate::wire::meridian_client::MeridianClient;
use crate::{ENVELOPE_BYTES, MESSAGE_BYTES_MAX};
use hyper_util::rt::TokioIo;
use proto::NodeId;
use rustls::pki_types::ServerName;
use std::fmt;
use std::io::{self, ErrorKind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tonic::transport::{Channel, Endpoint};

/// HTTP/2 PINGs, and how long an answer may take: together, how soon a dead peer is noticed.
pub(crate) const PING_EVERY: Duration = Duration::from_secs(5);
pub(crate) const PING_ANSWER: Duration = Duration::from_secs(10);
/// How much one stream, and all of a connection, may send before the receiver has read it.
pub(crate) const STREAM_WINDOW_BYTES: u32 = 4 << 20;
pub(crate) const CONNECTION_WINDOW_BYTES: u32 = 16 << 20;

/// Whom to reach, and where.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Target {
    /// The node that must be there; `None`: whoever is, if the certificate is for the host.
    pub node: Option<NodeId>,
    /// `HOST:PORT`.
    pub address: String,
}

impl Target {
    /// A node, at an address: the one there must be that node.
    pub fn node(node: NodeId, address: impl Into<String>) -> Target {
        Target { node: Some(node), address: address.into() }
    }

    /// Whoever is at an address.
    pub fn address(address: impl Into<String>) -> Target {
        Target { node: None, address: address.into() }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.node {
            Some(node) => write!(f, "{node} at {}", self.address),
            None => write!(f, "{}", self.address),
        }
    }
}

/// A connection that was made.
#[derive(Clone)]
pub(crate) struct Dialled {
    pub client: MeridianClient<Channel>,
    pub line: Line,
}

/// Connects, once.
///
/// # Errors
/// Why not, in words. Nothing was asked.
pub(crate) async fn dial(
    to: &Target,
    security: &Security,
    within: Duration,
) -> Result<Dialled, String> {
    let dialled = timeout(within, connect(to, security)).await;
    dialled.unwrap_or_else(|_| Err(format!("no answer within {} ms", within.as_millis())))
}

async fn connect(to: &Target, security: &Security) -> Result<Dialled, String> {
    let reason = |error: io::Error| explain(&error);
    let tcp = TcpStream::connect(&to.address).await.map_err(reason)?;
    tcp.set_nodelay(true).map_err(reason)?;
    let (stream, plain) = match security {
        Security::Plaintext => (Stream::Plain(tcp), true),
        Security::Tls(tls) => {
            let connector = TlsConnector::from(tls.client());
            let stream = connector.connect(server_name(to)?, tcp).await;
            let stream = stream.map_err(|error| match error.kind() {
                // What a server without TLS does with a handshake.
                ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset => {
                    format!("{}; does it speak TLS?", explain(&error))
                }
                _ => explain(&error),
            })?;
            (Stream::Tls(Box::new(stream.into())), false)
        }
    };
    let line = Line::new();
    let mut watched = Some(TokioIo::new(Watched { stream, plain, line: line.clone() }));
    // Given away once: a connection that breaks is not made again behind our back.
    let connector = tower::service_fn(move |_| std::future::ready(watched.take().ok_or(Gone)));
    let channel = endpoint().connect_with_connector(connector).await;
    let channel = channel.map_err(|error| line.broken().unwrap_or_else(|| error.to_string()))?;
    line.opened().await?;
    let size = MESSAGE_BYTES_MAX + ENVELOPE_BYTES;
    let client = MeridianClient::new(channel)
        .max_decoding_message_size(size)
        .max_encoding_message_size(size);
    Ok(Dialled { client, line })
}

fn endpoint() -> Endpoint {
    // The name means nothing: the connection is there already, and TLS has its own.
    Endpoint::from_static("http://meridian")
        .http2_keep_alive_interval(PING_EVERY)
        .keep_alive_timeout(PING_ANSWER)
        .keep_alive_while_idle(true)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
}

/// The name that the other end's certificate must have.
fn server_name(to: &Target) -> Result<ServerName<'static>, String> {
    let name = match to.node {
        Some(node) => node_name(node),
        None => {
            let host = to.address.rsplit_once(':').map_or(&*to.address, |(host, _)| host);
            host.trim_start_matches('[').trim_end_matches(']').to_owned()
        }
    };
    ServerName::try_from(name.clone()).map_err(|error| format!("{name}: {error}"))
}

/// A connection that broke was to be made again. Whatever was to be sent was not.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("the connection is gone")]
pub(crate) struct Gone;

/// How a connection is, seen from below HTTP/2.
#[derive(Clone)]
pub(crate) struct Line(Arc<watch::Sender<State>>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum State {
    Opening,
    Open,
    Broken(String),
}

impl Line {
    fn new() -> Line {
        Line(Arc::new(watch::Sender::new(State::Opening)))
    }

    /// Whether both are of the same connection.
    pub fn is(&self, other: &Line) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// Why it broke, if it did.
    pub fn broken(&self) -> Option<String> {
        match &*self.0.borrow() {
            State::Broken(reason) => Some(reason.clone()),
            _ => None,
        }
    }

    /// Ends when the other end has said something.
    async fn opened(&self) -> Result<(), String> {
        let mut state = self.0.subscribe();
        // The sender is ours: it is there.
        let state = state.wait_for(|state| *state != State::Opening).await;
        match state.as_deref() {
            Ok(State::Broken(reason)) => Err(reason.clone()),
            _ => Ok(()),
        }
    }

    fn open(&self) {
        self.0.send_if_modified(|state| {
            let opening = *state == State::Opening;
            if opening {
                *state = State::Open;
            }
            opening
        });
    }

    /// The first reason is the right one.
    fn break_with(&self, reason: impl FnOnce() -> String) {
        self.0.send_if_modified(|state| {
            let whole = !matches!(state, State::Broken(_));
            if whole {
                *state = State::Broken(reason());
            }
            whole
        });
    }
}

/// A stream that tells its [`Line`] how it is.
struct Watched {
    stream: Stream,
    /// Without TLS, and nothing has been read yet.
    plain: bool,
    line: Line,
}

impl Watched {
    fn watch<T>(&self, result: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if let Poll::Ready(Err(error)) = &result {
            self.line.break_with(|| explain(error));
        }
        result
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        self.line.break_with(|| "the connection was closed".into());
    }
}

impl AsyncRead for Watched {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(cx, buf);
        if let Poll::Ready(Ok(())) = read {
            match buf.filled().get(before) {
                None => self.line.break_with(|| "it closed the connection".into()),
                Some(&TLS_ALERT) if self.plain => {
                    let reason = "it wants TLS: give --tls-cert, --tls-key and --tls-ca";
                    self.line.break_with(|| reason.into());
                    return Poll::Ready(Err(io::Error::other(reason)));
                }
                Some(_) => {
                    self.plain = false;
                    self.line.open();
                }
            }
        }
        self.watch(read)
    }
}

impl AsyncWrite for Watched {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.watch(written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, slices);
        self.watch(written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.stream).poll_flush(cx);
        self.watch(flushed)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
