//! A server from its start to its end.

use super::settings::Settings;
use crate::exit::Exit;
use crate::interrupt;
use cluster::{Server, StartError};
use rpc::security::SecurityError;
use std::future::pending;
use std::io::{self, Read, Write};
use std::process;
use std::time::Duration;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::{Instant, sleep};
use tracing::{info, warn};

/// Under what name the log has what is said here.
const LOG: &str = "server";
/// How often it is asked whether it serves.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// How often it is said what a server waits for.
const TELL_EVERY: Duration = Duration::from_secs(5);

/// Runs a server until somebody wants it to end.
///
/// With `until_stdin_closes` it ends as well, at once, when standard input does: who started it is
/// gone.
///
/// # Errors
/// When it cannot start.
pub async fn live(settings: Settings, until_stdin_closes: bool) -> Result<(), Exit> {
    interrupt::take_over();
    let mut ends = Ends::listen(until_stdin_closes)?;
    let (node, drain) = (settings.node, settings.drain);
    let config = settings.config()?;
    if config.insecure {
        let listen = &config.listen;
        warn!(target: LOG, "--insecure: no TLS: whoever reaches {listen} may do everything");
    }
    let faults = config.allow_faults;
    let server = tokio::select! {
        started = Server::start(config) => started.map_err(refused)?,
        end = ends.next() => {
            info!(target: LOG, "{end}: stopped before it had started");
            return Ok(());
        }
    };
    info!(target: LOG, "listening on {}", server.address());
    if faults {
        warn!(target: LOG, "--allow-faults: whoever may speak to this node may make it fail");
    }
    let serving = async {
        serve(node, &server).await;
        pending::<End>().await
    };
    let end = tokio::select! {
        end = serving => end,
        end = ends.next() => end,
        reason = server.expelled() => {
            server.stop().await;
            return Err(Exit::failed(format!("the universe has given this node up: {reason}")));
        }
    };
    info!(target: LOG, "{end}: stopping");
    if end != End::Orphaned {
        tokio::spawn(end_at_once(ends));
        hand_over(&server, drain).await;
    }
    server.stop().await;
    info!(target: LOG, "stopped");
    Ok(())
}

fn refused(error: StartError) -> Exit {
    let hint = error.hint().map_or(String::new(), |hint| format!("\nHint: {hint}"));
    let text = format!("{error}{hint}");
    match error {
        // What was asked for can never be: no reason to try again.
        StartError::Invalid(_)
        | StartError::Nowhere { .. }
        | StartError::OtherNode { .. }
        | StartError::Security(SecurityError::Exposed { .. }) => Exit::Usage(text),
        _ => Exit::Failed(text),
    }
}

/// Waits until the server serves, and says so on standard output, once.
async fn serve(node: u32, server: &Server) {
    let mut told = Instant::now();
    loop {
        let health = server.ready();
        if health.ready {
            break;
        }
        if told.elapsed() >= TELL_EVERY {
            told = Instant::now();
            info!(target: LOG, "does not serve yet: {}", health.reasons.join("; "));
        }
        sleep(LOOK_EVERY).await;
    }
    let http = server.http_address().map_or("off".to_owned(), |address| address.to_string());
    let line = format!("ready: n{node} at {}, http {http}", server.address());
    info!(target: LOG, "{line}");
    // Nobody has to read it: then the log has it.
    let mut out = io::stdout();
    let _ = writeln!(out, "{line}").and_then(|()| out.flush());
}

/// Gives the leaderships away, as far as others take them in time.
async fn hand_over(server: &Server, limit: Duration) {
    if limit.is_zero() {
        return;
    }
    let drained =
        server.drain(limit, |left| info!(target: LOG, "hands leaderships over: {left} left"));
    if !drained.await {
        let limit_s = limit.as_secs();
        warn!(target: LOG, "not all leaderships were taken within {limit_s} s: their groups elect");
    }
}

/// Why a server is to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Interrupted,
    Terminated,
    Orphaned,
}

impl std::fmt::Display for End {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            End::Interrupted => "Ctrl-C",
            End::Terminated => "SIGTERM",
            End::Orphaned => "standard input has ended",
        })
    }
}

/// Everything by which somebody says that a server is to end.
struct Ends {
    terminations: Signal,
    orphaned: Option<tokio::sync::oneshot::Receiver<()>>,
}

impl Ends {
    fn listen(until_stdin_closes: bool) -> Result<Ends, Exit> {
        let terminations = signal(SignalKind::terminate())
            .map_err(|error| Exit::failed(format!("cannot listen to signals: {error}")))?;
        Ok(Ends { terminations, orphaned: until_stdin_closes.then(lifeline) })
    }

    async fn next(&mut self) -> End {
        let orphaned = async {
            match &mut self.orphaned {
                Some(orphaned) => {
                    let _ = orphaned.await;
                }
                None => pending().await,
            }
        };
        tokio::select! {
            () = interrupt::ctrl_c() => End::Interrupted,
            _ = self.terminations.recv() => End::Terminated,
            () = orphaned => End::Orphaned,
        }
    }
}

/// Ends when standard input does. A thread of its own waits: reading it cannot be given up.
fn lifeline() -> tokio::sync::oneshot::Receiver<()> {
    let (end, ended) = tokio::sync::oneshot::channel();
    std::thread::spawn(move || {
        let mut ignored = [0; 64];
        while io::stdin().lock().read(&mut ignored).is_ok_and(|read| read > 0) {}
        let _ = end.send(());
    });
    ended
}

/// Whoever asks a second time does not want to wait. Nothing is lost: what was acknowledged is on
/// the disks of a majority (P1).
async fn end_at_once(mut ends: Ends) {
    let end = ends.next().await;
    warn!(target: LOG, "{end} once more: ending at once");
    process::exit(130);
}
