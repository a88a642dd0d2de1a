//! Dials one node for as long as it is wanted.

use super::outbound::{DialledFrames, Outbound};
use super::peer::Peer;
use super::{HELLO_WITHIN, Inner, LinksConfig, hello_of};
use crate::dial::{Dialled, Target, dial};
use crate::wire::Frame;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::time::{sleep, timeout};
use tonic::Streaming;

/// A link that lasted this long was one: the next attempt after it is made soon.
const LIVED: Duration = Duration::from_secs(1);

/// Makes links to a node, one after the other. Ends by being aborted.
pub(super) async fn keep_dialling(inner: Arc<Inner>, peer: Arc<Peer>) {
    let mut address = peer.address.subscribe();
    let mut pauses = Pauses::new(&inner.config, peer.node.0);
    loop {
        let Some(at) = address.borrow_and_update().clone() else {
            if address.changed().await.is_err() {
                return;
            }
            continue;
        };
        let began = Instant::now();
        let to = Target::node(peer.node, at);
        match inner.open(&peer, &to).await {
            Ok((dialled, link, frames)) => {
                tracing::info!(peer = %to, "link made");
                let reason = inner.read(&peer, &link.0, frames).await;
                let reason = dialled.line.broken().unwrap_or(reason);
                tracing::info!(peer = %to, "link ended: {reason}");
                if began.elapsed() >= LIVED {
                    pauses.reset();
                }
            }
            Err(reason) => {
                // Once per reason: a node that is down is no news every two seconds.
                if peer.failed(&reason) {
                    tracing::warn!(peer = %to, "no link: {reason}");
                }
            }
        }
        tokio::select! {
            () = sleep(pauses.next()) => {}
            changed = address.changed() => {
                if changed.is_err() {
                    return;
                }
                pauses.reset();
            }
        }
    }
}

/// A link that ends with whoever dialled it. HTTP/2 keeps a stream for as long as one side has
/// something to say, so one that is only forgotten would stay.
struct Held(Arc<Outbound>);

impl Drop for Held {
    fn drop(&mut self) {
        self.0.close("it was given up");
    }
}

impl Inner {
    /// Makes one link, up to both Hellos.
    async fn open(
        &self,
        peer: &Arc<Peer>,
        to: &Target,
    ) -> Result<(Dialled, Held, Streaming<Frame>), String> {
        let mut dialled = dial(to, &self.security, self.config.dial_within).await?;
        let link = Held(self.outbound(peer));
        let greeted = timeout(HELLO_WITHIN, self.greet(&mut dialled, peer, &link.0)).await;
        let frames = greeted.unwrap_or_else(|_| Err("no Hello in time".into()))?;
        Ok((dialled, link, frames))
    }

    async fn greet(
        &self,
        dialled: &mut Dialled,
        peer: &Peer,
        link: &Arc<Outbound>,
    ) -> Result<Streaming<Frame>, String> {
        let opened = dialled.client.link(DialledFrames(link.clone())).await;
        let refused = |status: tonic::Status| {
            dialled.line.broken().unwrap_or_else(|| format!("it refused: {}", status.message()))
        };
        let mut frames = opened.map_err(refused)?.into_inner();
        let first = frames.message().await.map_err(refused)?;
        let hello = hello_of(first)?;
        if hello.node != peer.node {
            return Err(format!("{} is there instead of {}", hello.node, peer.node));
        }
        self.meet(&hello)?;
        self.take(peer, &hello, link)?;
        Ok(frames)
    }
}

/// Pauses between attempts: growing, with jitter, so that nodes that were cut off together do not
/// come back together.
struct Pauses {
    min: Duration,
    max: Duration,
    next: Duration,
    rng: SmallRng,
}

impl Pauses {
    fn new(config: &LinksConfig, peer: u32) -> Pauses {
        let (min, max) = (config.pause_min, config.pause_max.max(config.pause_min));
        let rng = SmallRng::seed_from_u64(config.seed ^ u64::from(peer));
        Pauses { min, max, next: min, rng }
    }

    fn reset(&mut self) {
        self.next = self.min;
    }

    /// Between half of it and all of it.
    fn next(&mut self) -> Duration {
        let ceiling = self.next;
        self.next = (ceiling * 2).min(self.max);
        ceiling.mul_f64(self.rng.random_range(0.5..=1.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_their_bound_and_start_over() {
        let config = LinksConfig { seed: 3, ..LinksConfig::default() };
        let mut pauses = Pauses::new(&config, 1);
        let mut ceiling = config.pause_min;
        for _ in 0..12 {
            let pause = pauses.next();
            assert!(pause >= ceiling / 2 && pause <= ceiling, "{pause:?} of {ceiling:?}");
            ceiling = (ceiling * 2).min(config.pause_max);
        }
        assert_eq!(ceiling, config.pause_max);
        pauses.reset();
        assert!(pauses.next() <= config.pause_min);
    }
}
