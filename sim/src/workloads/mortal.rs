//! Clients that die: after so many messages sent or heard, whatever they were doing.

use crate::executor::ClientPort;
use futures::channel::oneshot;
use futures::future::{Either, select};
use std::future::Future;

/// How a client ends half-way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Death {
    /// It says nothing any more: the servers have to find out (X4, X9).
    OfTheProcess,
    /// The future of what it did is dropped, and says what such a future says last.
    OfTheTask,
}

/// Whether the process behind a port lives.
#[derive(Debug, Default)]
pub struct Life {
    /// So many messages more; `None`: any number.
    left: Option<u32>,
    dead: bool,
    /// Rings when it dies.
    bell: Option<oneshot::Sender<()>>,
}

impl Life {
    /// Whether one more message may be sent or heard.
    pub fn goes_on(&mut self) -> bool {
        match &mut self.left {
            Some(0) => {
                self.dead = true;
                if let Some(bell) = self.bell.take() {
                    let _ = bell.send(());
                }
            }
            Some(left) => *left -= 1,
            None => {}
        }
        !self.dead
    }
}

impl ClientPort {
    /// Works until it is done, or until the message after so many: then `None`, and what was done is
    /// dropped. A process that died [lives](ClientPort::live) again only when it is told to.
    pub(crate) async fn until_death<T>(
        &self,
        messages: u32,
        death: Death,
        work: impl Future<Output = T>,
    ) -> Option<T> {
        let (sender, bell) = oneshot::channel();
        *self.life.lock() = Life { left: Some(messages), dead: false, bell: Some(sender) };
        match select(Box::pin(work), bell).await {
            Either::Left((done, _)) => {
                self.live();
                Some(done)
            }
            Either::Right((_, work)) => {
                self.wishes.lock().deaths += 1;
                if death == Death::OfTheTask {
                    self.live();
                }
                drop(work);
                None
            }
        }
    }

    /// The process behind this port lives.
    pub(crate) fn live(&self) {
        *self.life.lock() = Life::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn so_many_messages_and_no_more() {
        let (sender, mut bell) = oneshot::channel();
        let mut life = Life { left: Some(2), dead: false, bell: Some(sender) };
        assert!(life.goes_on() && life.goes_on());
        assert_eq!(bell.try_recv(), Ok(None));
        assert!(!life.goes_on() && !life.goes_on());
        assert_eq!(bell.try_recv(), Ok(Some(())));
        assert!(Life::default().goes_on());
    }
}
