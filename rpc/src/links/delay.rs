//! Messages that are held back on purpose, until they are due.

use super::Inner;
use bytes::Bytes;
use parking_lot::Mutex;
use proto::NodeId;
use std::collections::BTreeMap;
use std::sync::{Arc, Weak};
use std::time::Instant;
use tokio::sync::Notify;
use tokio::time::sleep_until;

/// Messages and bytes held back; what is more is dropped, as it would be by a router.
const COUNT_MAX: usize = 65_536;
const BYTES_MAX: usize = 64 << 20;

/// Messages by when they are due, then by when they came.
#[derive(Default)]
pub(super) struct Delayed {
    held: Mutex<Held>,
    /// There is something that is due earlier than before, or nothing will come any more.
    changed: Notify,
}

#[derive(Default)]
struct Held {
    messages: BTreeMap<(Instant, u64), (NodeId, Bytes)>,
    bytes: usize,
    count: u64,
    closed: bool,
}

impl Delayed {
    /// Holds a message back; `false`: there are too many.
    pub fn hold(&self, due: Instant, to: NodeId, message: Bytes) -> bool {
        let mut held = self.held.lock();
        let full = held.messages.len() >= COUNT_MAX || held.bytes + message.len() > BYTES_MAX;
        if full || held.closed {
            return false;
        }
        held.count += 1;
        held.bytes += message.len();
        let place = (due, held.count);
        held.messages.insert(place, (to, message));
        let first = held.messages.first_key_value().is_some_and(|(key, _)| *key == place);
        drop(held);
        if first {
            self.changed.notify_one();
        }
        true
    }

    /// Lets everything go.
    pub fn close(&self) {
        let mut held = self.held.lock();
        *held = Held { closed: true, ..Held::default() };
        drop(held);
        self.changed.notify_one();
    }

    /// What is due, and when the next one is; `None`: nothing is held.
    fn due(&self, now: Instant) -> (Vec<(NodeId, Bytes)>, Option<Instant>, bool) {
        let mut held = self.held.lock();
        let later = held.messages.split_off(&(now, u64::MAX));
        let due: Vec<_> = std::mem::replace(&mut held.messages, later).into_values().collect();
        held.bytes -= due.iter().map(|(_, message)| message.len()).sum::<usize>();
        let next = held.messages.first_key_value().map(|((due, _), _)| *due);
        (due, next, held.closed)
    }
}

/// Sends what is due. Without faults on purpose it sleeps all the time.
pub(super) async fn release(inner: Weak<Inner>, delayed: Arc<Delayed>) {
    loop {
        let now = Instant::now();
        let (due, next, closed) = delayed.due(now);
        if closed {
            return;
        }
        if !due.is_empty() {
            let Some(inner) = inner.upgrade() else { return };
            for (to, message) in due {
                inner.push(to, message, now);
            }
        }
        match next {
            Some(next) => tokio::select! {
                () = sleep_until(next.into()) => {}
                () = delayed.changed.notified() => {}
            },
            None => delayed.changed.notified().await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn what_is_due_comes_out_in_order() {
        let (delayed, now) = (Delayed::default(), Instant::now());
        let at = |ms| now + Duration::from_millis(ms);
        let bytes = |text: &'static str| Bytes::from_static(text.as_bytes());
        for (ms, text) in [(20, "late"), (10, "first"), (10, "second"), (30, "last")] {
            assert!(delayed.hold(at(ms), NodeId(1), bytes(text)));
        }
        let (due, next, closed) = delayed.due(at(20));
        let texts: Vec<_> = due.into_iter().map(|(_, message)| message).collect();
        assert_eq!(texts, ["first", "second", "late"].map(bytes));
        assert_eq!((next, closed), (Some(at(30)), false));
        assert_eq!(delayed.held.lock().bytes, 4);
        delayed.close();
        assert!(!delayed.hold(at(1), NodeId(1), bytes("x")));
    }
}
