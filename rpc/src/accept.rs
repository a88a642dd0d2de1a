//! Connections that come in: the handshake, and one clear line in the log for each that is refused.
//!
//! TLS is done here and not by tonic, which says nothing of a handshake that fails. The handshakes
//! under way are bounded, and so is the time of each: whoever connects and says nothing costs a
//! place for a few seconds, and no more.

use crate::security::{Caller, Security, explain};
use crate::stream::{Stream, TLS_HANDSHAKE};
use futures::FutureExt;
use futures::future::BoxFuture;
use rustls::pki_types::CertificateDer;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tonic::transport::server::Connected;

/// The first byte of HTTP/2: of `PRI * HTTP/2.0`.
const HTTP2: u8 = b'P';
/// Time from a connection to the end of its handshake.
const HANDSHAKE: Duration = Duration::from_secs(5);
/// Handshakes under way; others wait in the system's queue.
const HANDSHAKES_MAX: usize = 256;
/// How long a refused peer may take to read why.
const LINGER: Duration = Duration::from_millis(500);
/// Pause when the system gives no connections: it has no file descriptors left, or no memory.
const PAUSE: Duration = Duration::from_millis(100);
/// Accepted connections that HTTP/2 has not taken over yet.
const READY_MAX: usize = 64;

/// A connection whose other end is known.
pub(crate) struct Accepted {
    stream: Stream,
    caller: Caller,
    /// Ends when the server stops waiting for its connections.
    cut: BoxFuture<'static, ()>,
}

/// Accepts connections until the receiver is dropped; when the task has ended, the listener is
/// closed. With `true` in `cut`, connections that are still there break.
pub(crate) fn accept(
    listener: TcpListener,
    security: Security,
    cut: watch::Receiver<bool>,
) -> (mpsc::Receiver<io::Result<Accepted>>, JoinHandle<()>) {
    let (ready, accepted) = mpsc::channel(READY_MAX);
    let accepting = tokio::spawn(async move {
        let places = Arc::new(Semaphore::new(HANDSHAKES_MAX));
        loop {
            let connection = async {
                let place = places.clone().acquire_owned().await.map_err(io::Error::other)?;
                Ok::<_, io::Error>((place, listener.accept().await?))
            };
            let connection = tokio::select! {
                connection = connection => connection,
                () = ready.closed() => return,
            };
            let (place, (tcp, address)) = match connection {
                Ok(connection) => connection,
                Err(error) => {
                    tracing::warn!(%error, "no connection can be accepted");
                    sleep(PAUSE).await;
                    continue;
                }
            };
            let (security, cut, ready) = (security.clone(), cut.clone(), ready.clone());
            tokio::spawn(async move {
                let _place = place;
                let (stream, caller) = match handshake(tcp, address, &security).await {
                    Ok(known) => known,
                    Err(Refusal::Silent) => {
                        tracing::debug!(peer = %address, "a connection was closed before it said anything");
                        return;
                    }
                    Err(Refusal::Because(reason)) => {
                        tracing::warn!(peer = %address, "connection refused: {reason}");
                        return;
                    }
                };
                let accepted = Accepted { stream, caller, cut: until_cut(cut).boxed() };
                let _ = ready.send(Ok(accepted)).await; // fails when the server stops
            });
        }
    });
    (accepted, accepting)
}

async fn until_cut(mut cut: watch::Receiver<bool>) {
    if cut.wait_for(|cut| *cut).await.is_err() {
        // The server is gone without a word: its connections end when their peers do.
        std::future::pending().await
    }
}

/// Why a connection is refused.
enum Refusal {
    /// A probe that looks whether somebody listens: nothing to tell anybody.
    Silent,
    Because(String),
}

async fn handshake(
    tcp: TcpStream,
    address: SocketAddr,
    security: &Security,
) -> Result<(Stream, Caller), Refusal> {
    let within = format!("no handshake within {} s", HANDSHAKE.as_secs());
    let greeted = timeout(HANDSHAKE, greet(tcp, address, security)).await;
    greeted.unwrap_or(Err(Refusal::Because(within)))
}

async fn greet(
    tcp: TcpStream,
    address: SocketAddr,
    security: &Security,
) -> Result<(Stream, Caller), Refusal> {
    let failed = |error: io::Error| Refusal::Because(explain(&error));
    tcp.set_nodelay(true).map_err(failed)?;
    let mut first = [0];
    match tcp.peek(&mut first).await {
        Ok(0) | Err(_) => return Err(Refusal::Silent),
        Ok(_) => {}
    }
    let speaks_tls = first[0] == TLS_HANDSHAKE;
    let tls = match security {
        Security::Plaintext if speaks_tls => {
            let reason = "it speaks TLS, and this server was started without certificates";
            return Err(Refusal::Because(reason.into()));
        }
        Security::Plaintext if first[0] != HTTP2 => {
            return Err(Refusal::Because(
                "it does not speak gRPC, which is what this port is for".into(),
            ));
        }
        Security::Plaintext => return Ok((Stream::Plain(tcp), Caller::unchecked(address))),
        Security::Tls(tls) => tls,
    };
    // One that does not speak TLS is told so by the handshake, with an alert.
    let handshake = TlsAcceptor::from(tls.server()).accept(tcp).into_fallible().await;
    let stream = match handshake {
        Ok(stream) => stream,
        Err((error, tcp)) => {
            tokio::spawn(linger(tcp));
            let reason = match speaks_tls {
                true => explain(&error),
                false => "it speaks plaintext on a TLS port".into(),
            };
            return Err(Refusal::Because(reason));
        }
    };
    let certificate = stream.get_ref().1.peer_certificates().and_then(<[_]>::first);
    // The verifier insists on one; without it there is nobody to answer.
    let certificate: CertificateDer<'static> =
        certificate.ok_or_else(|| Refusal::Because("it shows no certificate".into()))?.clone();
    Ok((Stream::Tls(Box::new(stream.into())), Caller::checked(address, certificate)))
}

/// Reads what a refused peer still says: closing with unread bytes would reset the connection, and
/// the alert that says why with it.
async fn linger(mut tcp: TcpStream) {
    let mut waste = [0; 1024];
    let drain = async { while let Ok(1..) = tcp.read(&mut waste).await {} };
    let _ = timeout(LINGER, drain).await;
}

impl Connected for Accepted {
    type ConnectInfo = Caller;

    fn connect_info(&self) -> Caller {
        self.caller.clone()
    }
}

impl AsyncRead for Accepted {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.cut.poll_unpin(cx).is_ready() {
            self.cut = std::future::ready(()).boxed(); // it may be asked again
            return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
        }
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Accepted {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
