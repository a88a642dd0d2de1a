//! Drives [`Server`](crate::Server) with threads: what production has instead of the simulator.
//!
//! ```text
//!   requests, messages ──► shard thread ──► step ──► apply (no sync), send, reply
//!                             ▲   │ persist                │ read
//!                   Persisted │   ▼                        ▼
//!                          log writer: one batch, one   readers: a small pool; short reads of
//!                          sync for all shards (P5)     keys run on the shard itself
//! ```
//!
//! A group belongs to one shard for good (group number modulo shards). Queues between the threads
//! of a node are unbounded channels whose content is bounded by what is admitted: at most
//! [`REQUESTS_MAX`] requests of clients at a time, and the flow control of Paxos.
//!
//! A disk error ends the process (P1).
mod in_process;
mod log_writer;
mod node;
mod reader;
mod shard;

pub use in_process::{InProcess, TokioClock};
pub use node::{Node, NodeConfig, NodeStats};
pub use reader::{PAGE_BYTES_MAX, execute};

use crate::server::Message;
use crate::storage::StorageError;
use proto::request::Reply;
use proto::{Error, NodeId};
use std::thread::{self, JoinHandle};
use tokio::sync::oneshot;

/// Requests of clients that one node works on at a time; one more is told to come back.
pub const REQUESTS_MAX: usize = 10_000;
/// Events that may wait for one shard before messages of other nodes are lost there.
pub const INBOX_MAX: usize = 65_536;
/// Groups of which one shard makes a replica because somebody invites it.
pub const GROUPS_MAX: usize = 100_000;
/// The exit code after a disk error (`EX_IOERR`).
pub const EXIT_DISK: i32 = 74;

/// Carries messages to other nodes.
pub trait Outbound: Send + Sync {
    /// Sends a message on its way. Never waits: what cannot be carried now is lost, and one to a
    /// node that is gone is too.
    fn send(&self, to: NodeId, message: Message);
}

/// Where the answer to a request goes.
pub(crate) type Responder = oneshot::Sender<Result<Reply, Error>>;

/// Starts a thread of a server.
fn spawn(name: String, body: impl FnOnce() + Send + 'static) -> JoinHandle<()> {
    let guarded = move || {
        let _end = EndOnPanic;
        body();
    };
    thread::Builder::new().name(name).spawn(guarded).expect("the system starts threads")
}

/// A thread of a server that panics takes the process with it: an assertion of the protocol has
/// failed, and a server without one of its threads would be half alive.
struct EndOnPanic;

impl Drop for EndOnPanic {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("fatal: an invariant of the protocol is broken; see above");
            std::process::abort();
        }
    }
}

/// P1: whoever cannot write must not answer any more. Nothing is retried, nothing cleaned up: the
/// next start recovers from what the disk holds.
fn fatal(what: &str, error: &StorageError) -> ! {
    eprintln!("fatal: {what}: {error}");
    eprintln!("hint: nothing that was acknowledged is lost; free the disk and start again");
    std::process::exit(EXIT_DISK);
}
