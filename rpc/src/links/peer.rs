//! Another node, as the links know it.

use super::outbound::{Counters, Outbound};
use parking_lot::Mutex;
use proto::NodeId;
use proto::control::PeerReport;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use tokio::sync::watch;
use tokio::task::AbortHandle;

/// One other node. It stays while the process runs, its links come and go.
#[derive(Debug)]
pub(super) struct Peer {
    pub node: NodeId,
    pub counters: Arc<Counters>,
    /// Where to dial it; `None`: not known, or it dials us.
    pub address: watch::Sender<Option<String>>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// The link there is.
    link: Option<Arc<Outbound>>,
    /// Of its data folder, once it has said Hello.
    instance: Option<String>,
    /// Why there is no link.
    error: String,
    /// Who dials it.
    dialler: Option<AbortHandle>,
}

impl Peer {
    pub fn new(node: NodeId) -> Arc<Peer> {
        let address = watch::Sender::new(None);
        Arc::new(Peer { node, counters: Arc::default(), address, state: Mutex::default() })
    }

    /// The link there is.
    pub fn link(&self) -> Option<Arc<Outbound>> {
        self.state.lock().link.clone()
    }

    /// Takes a new link; one that is still there ends.
    ///
    /// # Errors
    /// It came with another data folder than before (P9).
    pub fn take(&self, instance: &str, link: Arc<Outbound>) -> Result<(), String> {
        let mut state = self.state.lock();
        match &state.instance {
            Some(known) if known != instance => {
                return Err(format!(
                    "{} came with another data folder: {instance}, and {known} before; a node that \
                     has lost its disk comes back under a new number",
                    self.node
                ));
            }
            _ => state.instance = Some(instance.to_owned()),
        }
        let older = state.link.replace(link);
        state.error.clear();
        drop(state);
        if let Some(older) = older {
            older.close("a newer link took its place");
        }
        self.counters.connects.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    /// A link has ended; it may have been replaced before.
    pub fn leave(&self, link: &Arc<Outbound>, reason: &str) {
        let mut state = self.state.lock();
        if state.link.as_ref().is_some_and(|held| Arc::ptr_eq(held, link)) {
            state.link = None;
            state.error = reason.to_owned();
        }
    }

    /// Nobody dials it any more, and the link there is ends.
    pub fn hang_up(&self, reason: &str) {
        self.set_dialler(None);
        if let Some(link) = self.link() {
            link.close(reason);
            self.leave(&link, reason); // who would have said so may be the dialler
        }
    }

    /// No link could be made; `true`: for a reason that is new.
    pub fn failed(&self, reason: &str) -> bool {
        let mut state = self.state.lock();
        let new = state.error != reason;
        state.error = reason.to_owned();
        new
    }

    /// Whether it is dialled from here.
    pub fn has_dialler(&self) -> bool {
        self.state.lock().dialler.is_some()
    }

    /// Sets who dials it; whoever did stops.
    pub fn set_dialler(&self, dialler: Option<AbortHandle>) {
        let older = std::mem::replace(&mut self.state.lock().dialler, dialler);
        older.into_iter().for_each(|older| older.abort());
    }

    pub fn report(&self) -> PeerReport {
        let (state, counters) = (self.state.lock(), &self.counters);
        PeerReport {
            connected: state.link.is_some(),
            sent: counters.sent.load(Ordering::Relaxed),
            received: counters.received.load(Ordering::Relaxed),
            dropped: counters.dropped.load(Ordering::Relaxed),
            connects: counters.connects.load(Ordering::Relaxed),
            error: state.error.clone(),
        }
    }
}
