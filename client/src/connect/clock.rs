//! The time, as a client of a cluster has it (T1, T4–T6).

use super::map::{MapCache, present};
use super::wire::Wire;
use futures::future::{BoxFuture, FutureExt};
use proto::Error;
use proto::control::{ControlReply, ControlRequest};
use rpc::{CallError, Target};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use truetime::providers::Nodes;
use truetime::{Interval, TrueTime};
use txn::client::ClientClock;

/// How often the nodes are asked while somebody needs the time.
const ASK_EVERY: Duration = Duration::from_secs(1);
/// And while nobody does: in so many seconds ε does not grow past its bound.
const TURNS_IDLE: u32 = 10;
/// How long one node may take to say what time it is; a longer round trip would tell little.
const ASK_WITHIN: Duration = Duration::from_millis(400);
/// The same at the start, when connections have yet to be made.
const FIRST_WITHIN: Duration = Duration::from_secs(3);
/// Questions at the start: the shortest round trip counts the most.
const FIRST_QUESTIONS: u32 = 4;

/// What the transaction layer goes by.
pub(super) struct ClusterClock {
    clock: TrueTime,
    used: Arc<AtomicBool>,
}

impl ClusterClock {
    /// `used` is set whenever somebody looks.
    pub fn new(clock: TrueTime, used: Arc<AtomicBool>) -> ClusterClock {
        ClusterClock { clock, used }
    }
}

impl ClientClock for ClusterClock {
    fn now(&self) -> Result<Interval, Error> {
        if !self.used.load(Ordering::Relaxed) {
            self.used.store(true, Ordering::Relaxed);
        }
        let now = self.clock.now();
        now.map_err(|error| Error::ClockUnavailable { reason: error.to_string() })
    }

    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()> {
        tokio::time::sleep(duration).boxed()
    }
}

/// Asks nodes what time it is, for whoever has no bound of their own. The same node as long as it
/// answers, then the next one.
pub(super) struct Keeper {
    wire: Arc<dyn Wire>,
    map: Arc<MapCache>,
    clock: Nodes,
    used: Arc<AtomicBool>,
    turn: usize,
}

impl Keeper {
    /// Feeds `clock`.
    pub fn new(
        wire: Arc<dyn Wire>,
        map: Arc<MapCache>,
        clock: Nodes,
        used: Arc<AtomicBool>,
    ) -> Keeper {
        Keeper { wire, map, clock, used, turn: 0 }
    }

    /// The first answers.
    ///
    /// # Errors
    /// Nobody knows the time: what each said, in words.
    pub async fn begin(&mut self) -> Result<(), String> {
        self.ask_around(FIRST_WITHIN).await?;
        for _ in 1..FIRST_QUESTIONS {
            // One answer is enough; others, over a connection that is there, make ε smaller.
            let _ = self.ask_around(ASK_WITHIN).await;
        }
        Ok(())
    }

    /// Until it is aborted.
    pub async fn run(mut self) {
        let mut idle = 0;
        loop {
            tokio::time::sleep(ASK_EVERY).await;
            idle = if self.used.swap(false, Ordering::Relaxed) { 0 } else { idle + 1 };
            if idle % TURNS_IDLE == 0 {
                // Without an answer ε grows, and the clock says so itself (T3, T5).
                let _ = self.ask_around(ASK_WITHIN).await;
            }
        }
    }

    /// Asks until a node answers; each at most once.
    async fn ask_around(&mut self, within: Duration) -> Result<(), String> {
        let map = self.map.get();
        let nodes: Vec<_> =
            present(&map).map(|info| Target::node(info.node, &info.address)).collect();
        let mut said = Vec::new();
        for _ in 0..nodes.len() {
            let to = nodes[self.turn % nodes.len()].clone();
            match self.ask(&to, within).await {
                Ok(()) => return Ok(()),
                Err(reason) => said.push(format!("{to}: {reason}")),
            }
            self.turn = self.turn.wrapping_add(1);
        }
        Err(said.join("; "))
    }

    async fn ask(&self, to: &Target, within: Duration) -> Result<(), String> {
        let name = to.node.map_or_else(|| to.address.clone(), |node| node.to_string());
        let asked = self.clock.ask();
        match self.wire.control(to.clone(), ControlRequest::Now, within).await {
            Ok(ControlReply::Now(interval)) => {
                self.clock.take(asked, &name, interval);
                Ok(())
            }
            Ok(_) => Err("it answered something else".into()),
            Err(CallError::Refused(error)) => Err(error.to_string()),
            Err(CallError::Unreachable { reason, .. } | CallError::Lost { reason, .. }) => {
                Err(reason)
            }
        }
    }
}
