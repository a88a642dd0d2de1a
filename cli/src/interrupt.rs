//! Ctrl-C, heard even while every thread of the runtime computes.
//!
//! A query may keep all workers busy without a pause, and a busy runtime does not look at its
//! signals. A thread of its own waits for them here, and wakes whoever waits.

use crate::exit::Exit;
use std::sync::{OnceLock, mpsc};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

/// Counts how often it was pressed.
static PRESSED: OnceLock<watch::Sender<u64>> = OnceLock::new();

/// From now on Ctrl-C does not end the process by itself. Whoever changes the handler for a while,
/// as a line editor does, must begin after this: what it finds is what it puts back.
pub fn take_over() {
    PRESSED.get_or_init(listen);
}

/// Ends at the next Ctrl-C.
pub async fn ctrl_c() {
    let mut pressed = PRESSED.get_or_init(listen).subscribe();
    if pressed.changed().await.is_err() {
        // Nobody listens: then it never comes.
        std::future::pending::<()>().await;
    }
}

/// Does something, unless Ctrl-C comes first; then it is dropped where it is.
///
/// # Errors
/// Its own, or [`Exit::Interrupted`].
pub async fn or_stopped<T>(work: impl Future<Output = Result<T, Exit>>) -> Result<T, Exit> {
    tokio::select! {
        ended = work => ended,
        () = ctrl_c() => Err(Exit::Interrupted("stopped".into())),
    }
}

fn listen() -> watch::Sender<u64> {
    let (sender, _) = watch::channel(0);
    let count = sender.clone();
    let (ready, is_ready) = mpsc::channel::<()>();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        // Without a runtime Ctrl-C does what it does to every program.
        let Ok(runtime) = runtime else { return };
        runtime.block_on(async {
            let Ok(mut interrupts) = signal(SignalKind::interrupt()) else { return };
            drop(ready);
            while interrupts.recv().await.is_some() {
                count.send_modify(|times| *times += 1);
            }
        });
    });
    // Nothing is ever sent: the sender is dropped when the handler is in place, or cannot be.
    let _ = is_ready.recv();
    sender
}
