//! Keep-alives (X4): a transaction that is open and quiet keeps its locks.
//!
//! There is no task in the background, for there may be no runtime that has any. Whoever waits for
//! something else meanwhile waits for [`ReadWrite::keep_alive_every`] too; [`Client::run`] does it
//! for its closure.
//!
//! [`Client::run`]: super::Client::run

use super::options::Limits;
use super::read_write::ReadWrite;
use futures::future::{self, Either, try_join_all};
use proto::Error;
use proto::request::Body;
use std::future::Future;
use std::pin::pin;
use std::time::Duration;

impl ReadWrite {
    /// Tells every group where locks are held that the client lives (X4). Call it every few
    /// seconds while a person thinks, or have it called:
    /// [`keep_alive_every`](Self::keep_alive_every).
    ///
    /// # Errors
    /// `Aborted` when some group has given the transaction up; `DeadlineExceeded` after its
    /// deadline.
    pub async fn keep_alive(&self) -> Result<(), Error> {
        self.keep_alive_within(self.shared.limits).await
    }

    async fn keep_alive_within(&self, limits: Limits) -> Result<(), Error> {
        let locked: Vec<_> = self.open_state()?.locked.iter().map(|(g, b)| (*g, *b)).collect();
        let router = &self.shared.inner.router;
        let txn = self.shared.txn;
        try_join_all(locked.into_iter().map(|(group, ballot)| {
            router.ask_within(group, Body::KeepAlive { txn }, Some(ballot), limits)
        }))
        .await?;
        Ok(())
    }

    /// Keeps the transaction alive until it is over, and says why it is: a group has given it up,
    /// its deadline has passed, or it was ended here. Wait for it beside what takes long; dropping
    /// it is all it takes to stop it. The period should be well below the servers' transaction
    /// time-out (10 s): a third of it survives two lost messages.
    pub async fn keep_alive_every(&self, period: Duration) -> Error {
        let limits = self.shared.limits.at_most(period);
        loop {
            self.shared.inner.clock.sleep(period).await;
            match self.keep_alive_within(limits).await {
                Err(error @ (Error::Aborted { .. } | Error::FailedPrecondition(_))) => {
                    return error;
                }
                Err(error @ Error::DeadlineExceeded(_)) if self.is_late() => return error,
                Ok(()) | Err(_) => {} // not heard this time, perhaps the next
            }
        }
    }

    /// Waits for something, and keeps the transaction alive meanwhile. The work goes on to its end
    /// even if the transaction is lost: its next read, or the commit, says so.
    pub async fn alive_while<T>(&self, work: impl Future<Output = T>) -> T {
        let period = Duration::from_millis(self.shared.inner.config.keep_alive_ms);
        match future::select(pin!(work), pin!(self.keep_alive_every(period))).await {
            Either::Left((done, _)) => done,
            Either::Right((_, work)) => work.await,
        }
    }

    /// Whether the transaction's own deadline has passed.
    pub(super) fn is_late(&self) -> bool {
        self.shared.inner.clock.now().is_ok_and(|now| self.shared.limits.is_over(now))
    }
}
