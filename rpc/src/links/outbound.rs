//! What waits to be sent on one link.
//!
//! ```text
//!   Links::send ──push──► queue ◄──poll── Frames ──► HTTP/2, when the other end has room
//!                  │
//!                  └─ full, or too old: dropped and counted
//! ```
//!
//! HTTP/2 pulls: a frame is made of the queue when there is room for it at the receiver, out of
//! everything that has come together in the meantime. So what waits, waits here, where its bytes and
//! its age are bounded, and a busy link sends few large frames instead of many small ones.

use crate::frame::frame;
use crate::wire::Frame;
use bytes::Bytes;
use futures::Stream;
use parking_lot::Mutex;
use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};
use tokio::sync::watch;
use tonic::Status;

/// Bounds of what waits on a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueueLimits {
    /// Messages.
    pub count_max: usize,
    /// Their bytes together. One message may be larger, if it is alone.
    pub bytes_max: usize,
    /// How long one may wait: a message that comes this late says nothing new.
    pub age_max: Duration,
    /// Bytes of messages in one frame. One message may be larger, if it is alone.
    pub frame_bytes_max: usize,
}

impl Default for QueueLimits {
    fn default() -> QueueLimits {
        QueueLimits {
            count_max: 65_536,
            bytes_max: 64 << 20,
            age_max: Duration::from_secs(10),
            frame_bytes_max: 1 << 20,
        }
    }
}

/// What is counted over all links to one node.
#[derive(Debug, Default)]
pub(super) struct Counters {
    pub sent: AtomicU64,
    pub received: AtomicU64,
    pub dropped: AtomicU64,
    pub connects: AtomicU64,
}

/// One link's queue.
///
/// # Invariants
/// - `bytes` is the sum of the lengths of the messages in `messages`, oldest first.
/// - Every message pushed is sent or counted as dropped, once.
/// - Once closed, the queue is empty, and stays so.
#[derive(Debug)]
pub(super) struct Outbound {
    limits: QueueLimits,
    counters: Arc<Counters>,
    queue: Mutex<Queue>,
    /// Why the link ended; `None`: it has not.
    ended: watch::Sender<Option<String>>,
}

#[derive(Debug, Default)]
struct Queue {
    /// Goes before everything: the Hello.
    first: Option<Frame>,
    messages: VecDeque<(Instant, Bytes)>,
    bytes: usize,
    closed: bool,
    waker: Option<Waker>,
}

impl Outbound {
    /// The queue of a link that begins with a frame.
    pub fn new(limits: QueueLimits, counters: Arc<Counters>, first: Frame) -> Arc<Outbound> {
        let queue = Mutex::new(Queue { first: Some(first), ..Queue::default() });
        Arc::new(Outbound { limits, counters, queue, ended: watch::Sender::new(None) })
    }

    /// Queues a message; `false`: it was dropped.
    pub fn push(&self, message: Bytes, now: Instant) -> bool {
        let mut queue = self.queue.lock();
        let expired = queue.expire(now, self.limits.age_max);
        let taken = queue.takes(message.len(), &self.limits);
        self.count_dropped(expired + u64::from(!taken));
        if taken {
            queue.bytes += message.len();
            queue.messages.push_back((now, message));
            let waker = queue.waker.take();
            drop(queue);
            waker.into_iter().for_each(Waker::wake);
        }
        taken
    }

    /// Ends the link. The first reason stays.
    pub fn close(&self, reason: impl Into<String>) {
        let mut queue = self.queue.lock();
        queue.closed = true;
        queue.first = None;
        self.count_dropped(queue.messages.len() as u64);
        queue.messages = VecDeque::new();
        queue.bytes = 0;
        let waker = queue.waker.take();
        drop(queue);
        waker.into_iter().for_each(Waker::wake);
        self.ended.send_if_modified(|ended| {
            let first = ended.is_none();
            if first {
                *ended = Some(reason.into());
            }
            first
        });
    }

    /// Waits for the link to end, and tells why it did.
    pub async fn ended(&self) -> String {
        let mut ended = self.ended.subscribe();
        // The sender is ours: it is there.
        let reason = ended.wait_for(Option::is_some).await.ok().and_then(|reason| reason.clone());
        reason.unwrap_or_default()
    }

    /// Bytes that wait.
    #[cfg(test)]
    fn bytes(&self) -> usize {
        self.queue.lock().bytes
    }

    fn count_dropped(&self, count: u64) {
        self.counters.dropped.fetch_add(count, Ordering::Relaxed);
    }

    fn poll_frame(&self, cx: &mut Context<'_>) -> Poll<Option<Frame>> {
        let mut queue = self.queue.lock();
        if queue.closed {
            return Poll::Ready(None);
        }
        if let Some(first) = queue.first.take() {
            return Poll::Ready(Some(first));
        }
        if !queue.messages.is_empty() {
            self.count_dropped(queue.expire(Instant::now(), self.limits.age_max));
        }
        let messages = queue.take(self.limits.frame_bytes_max);
        if messages.is_empty() {
            queue.waker = Some(cx.waker().clone());
            return Poll::Pending;
        }
        drop(queue);
        self.counters.sent.fetch_add(messages.len() as u64, Ordering::Relaxed);
        Poll::Ready(Some(frame(messages)))
    }
}

impl Queue {
    /// Drops what has waited too long, and counts it.
    fn expire(&mut self, now: Instant, age_max: Duration) -> u64 {
        let mut count = 0;
        while let Some((since, message)) = self.messages.front()
            && now.saturating_duration_since(*since) > age_max
        {
            self.bytes -= message.len();
            self.messages.pop_front();
            count += 1;
        }
        count
    }

    fn takes(&self, length: usize, limits: &QueueLimits) -> bool {
        let room =
            self.messages.len() < limits.count_max && self.bytes + length <= limits.bytes_max;
        !self.closed && (room || self.messages.is_empty())
    }

    /// The oldest messages that fit into a frame, at least one if there is one.
    fn take(&mut self, frame_bytes_max: usize) -> Vec<Bytes> {
        let (mut taken, mut bytes) = (Vec::new(), 0);
        while let Some((_, message)) = self.messages.front() {
            if !taken.is_empty() && bytes + message.len() > frame_bytes_max {
                break;
            }
            bytes += message.len();
            taken.extend(self.messages.pop_front().map(|(_, message)| message));
        }
        self.bytes -= bytes;
        taken
    }
}

/// The frames of one side of a link, as HTTP/2 wants them. Dropped with the stream, it ends the link.
pub struct Frames(pub(super) Arc<Outbound>);

/// The frames as the dialling side wants them: without the errors that it cannot send.
pub(super) struct DialledFrames(pub(super) Arc<Outbound>);

impl Stream for Frames {
    type Item = Result<Frame, Status>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.poll_frame(cx).map(|frame| frame.map(Ok))
    }
}

impl Stream for DialledFrames {
    type Item = Frame;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.poll_frame(cx)
    }
}

impl Drop for Frames {
    fn drop(&mut self) {
        self.0.close("the other end closed it");
    }
}

impl Drop for DialledFrames {
    fn drop(&mut self) {
        self.0.close("the other end closed it");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::executor::block_on_stream;
    use futures::task::noop_waker;

    const LIMITS: QueueLimits = QueueLimits {
        count_max: 4,
        bytes_max: 100,
        age_max: Duration::from_secs(10),
        frame_bytes_max: 50,
    };

    fn outbound() -> Arc<Outbound> {
        let outbound = Outbound::new(LIMITS, Arc::default(), Frame::default());
        assert_eq!(next(&outbound), Some(vec![]), "the first frame goes first");
        outbound
    }

    fn message(length: usize) -> Bytes {
        vec![length as u8; length].into()
    }

    /// The lengths of the messages of the next frame; `None`: nothing to send.
    fn next(outbound: &Outbound) -> Option<Vec<usize>> {
        match outbound.poll_frame(&mut Context::from_waker(&noop_waker())) {
            Poll::Ready(Some(frame)) => Some(frame.messages.iter().map(Bytes::len).collect()),
            _ => None,
        }
    }

    fn dropped(outbound: &Outbound) -> u64 {
        outbound.counters.dropped.load(Ordering::Relaxed)
    }

    #[test]
    fn frames_are_bounded_and_in_order() {
        let (outbound, now) = (outbound(), Instant::now());
        for length in [10, 39, 2, 49] {
            assert!(outbound.push(message(length), now));
        }
        assert_eq!(next(&outbound), Some(vec![10, 39]));
        assert_eq!(next(&outbound), Some(vec![2]), "51 bytes are too many");
        assert_eq!(next(&outbound), Some(vec![49]));
        assert_eq!(next(&outbound), None);
        assert_eq!((outbound.bytes(), dropped(&outbound)), (0, 0));
        assert!(outbound.push(message(500), now), "one that is too large goes alone");
        assert!(!outbound.push(message(1), now));
        assert_eq!(next(&outbound), Some(vec![500]));
    }

    #[test]
    fn what_finds_no_room_is_counted() {
        let (outbound, now) = (outbound(), Instant::now());
        assert!((0..4).all(|_| outbound.push(message(1), now)));
        assert!(!outbound.push(message(1), now), "five are too many");
        assert_eq!((dropped(&outbound), outbound.bytes()), (1, 4));
        assert_eq!(next(&outbound), Some(vec![1; 4]));
        assert!(outbound.push(message(60), now));
        assert!(!outbound.push(message(41), now), "101 bytes are too many");
        assert!(outbound.push(message(40), now));
        assert_eq!((dropped(&outbound), outbound.bytes()), (2, 100));
    }

    #[test]
    fn what_is_too_old_makes_room() {
        let (outbound, long_ago) = (outbound(), Instant::now());
        assert!((0..4).all(|_| outbound.push(message(1), long_ago)));
        let now = long_ago + LIMITS.age_max;
        assert!(!outbound.push(message(2), now));
        assert!(outbound.push(message(3), now + Duration::from_millis(1)));
        assert_eq!((dropped(&outbound), outbound.bytes()), (5, 3));
        assert_eq!(next(&outbound), Some(vec![3]));
    }

    #[test]
    fn a_closed_queue_counts_what_it_had() {
        let (outbound, now) = (outbound(), Instant::now());
        assert!(outbound.push(message(1), now));
        assert!(outbound.push(message(2), now));
        outbound.close("first");
        outbound.close("second");
        assert!(!outbound.push(message(3), now));
        assert_eq!((dropped(&outbound), outbound.bytes()), (3, 0));
        assert_eq!(outbound.ended.borrow().as_deref(), Some("first"));
        assert_eq!(block_on_stream(Frames(outbound)).count(), 0);
    }
}
