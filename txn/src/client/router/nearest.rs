//! Reads that any replica may serve (R1, R4): asked of the nearest, and of another one when it is
//! slow.
//!
//! ```text
//!   nearest ──► slow: the next one is asked too ──► the first answer counts
//!      │
//!      └─► does not serve the group, is behind, has no time ──► the next one … ──► the leader
//! ```

use super::{Limits, Router};
use futures::FutureExt;
use futures::future::{self, BoxFuture, Either};
use proto::request::{Body, Reply, Request};
use proto::{Error, GroupId, NodeId};
use std::collections::VecDeque;
use std::time::Duration;
use truetime::Timestamp;

/// How many nodes may be asked besides the one that is slow, for one read.
const HEDGES_MAX: u32 = 2;

/// Who has been asked and has not answered.
struct Asked {
    node: NodeId,
    since: Timestamp,
}

/// An answer, by the place in the list of who was asked; `None`: none came in time.
type Answer = (NodeId, Option<Result<Reply, Error>>);

/// One read on its way.
struct Hunt<'a> {
    router: &'a Router,
    group: GroupId,
    body: Body,
    give_up: Timestamp,
    /// Who may still be asked, the nearest first.
    rest: VecDeque<NodeId>,
    asked: Vec<Asked>,
    calls: Vec<BoxFuture<'a, Answer>>,
    hedges: u32,
}

impl Router {
    /// Asks whoever serves the group: the nearest replica, then others. Only for what any replica
    /// may answer, and what may be asked twice.
    ///
    /// # Errors
    /// As [`ask`](Router::ask), with which it ends when nobody else has answered.
    pub(crate) async fn ask_nearest(
        &self,
        group: GroupId,
        body: Body,
        limits: Limits,
    ) -> Result<Reply, Error> {
        let now = self.clock.now()?;
        let give_up = limits.give_up_at(now)?;
        let nodes = self.replicas(group);
        let rest = {
            let mut distances = self.distances.lock();
            distances.earn();
            distances.order(group, nodes, self.transport.local(), now.latest())
        };
        let hunt = Hunt {
            router: self,
            group,
            body,
            give_up,
            rest: rest.into(),
            asked: Vec::new(),
            calls: Vec::new(),
            hedges: 0,
        };
        match hunt.run().await? {
            Ok(reply) => Ok(reply),
            Err(body) => self.ask_within(group, body, None, limits).await,
        }
    }
}

impl<'a> Hunt<'a> {
    /// The first good answer, or an error that every replica would give; otherwise the question
    /// comes back, for the leader.
    async fn run(mut self) -> Result<Result<Reply, Body>, Error> {
        self.ask_next()?;
        while !self.calls.is_empty() {
            let patience = self.patience();
            let sleep = self.router.clock.sleep(patience.unwrap_or(self.router.attempt));
            let answers = future::select_all(std::mem::take(&mut self.calls));
            let (node, answer) = match future::select(answers, sleep).await {
                Either::Left(((answer, _, calls), _)) => {
                    self.calls = calls;
                    answer
                }
                Either::Right((_, answers)) => {
                    self.calls = answers.into_inner();
                    if patience.is_some() && self.router.distances.lock().spend() {
                        self.hedges += 1;
                        self.ask_next()?;
                    } else {
                        self.hedges = HEDGES_MAX; // not now, and so not for this one
                    }
                    continue;
                }
            };
            match answer {
                Some(Ok(reply)) => {
                    // The answer is good, whatever this clock can say.
                    let _ = self.learn(node);
                    return Ok(Ok(reply));
                }
                Some(Err(Error::StaleRoute { descriptor: Some(descriptor) })) => {
                    // Whoever can be asked is another: begin anew with that, at the leader.
                    self.router.reroute(*descriptor);
                    return Ok(Err(self.body));
                }
                Some(Err(error)) if is_elsewhere(&error) => {
                    let now = self.router.clock.now()?.latest();
                    self.router.distances.lock().refused(self.group, node, now);
                }
                Some(Err(error)) => return Err(error),
                None => {}
            }
            self.asked.retain(|asked| asked.node != node);
            self.ask_next()?;
        }
        Ok(Err(self.body))
    }

    /// How long to wait before another node is asked too; `None`: there is none, or no more may be.
    fn patience(&self) -> Option<Duration> {
        let last = self.asked.last()?.node;
        let more = self.hedges < HEDGES_MAX && !self.rest.is_empty();
        more.then(|| self.router.distances.lock().patience(last))
    }

    fn ask_next(&mut self) -> Result<(), Error> {
        let Some(node) = self.rest.pop_front() else { return Ok(()) };
        let router = self.router;
        let since = router.clock.now()?.latest();
        if since >= self.give_up {
            self.rest.clear();
            return Ok(());
        }
        let deadline = self.give_up.min(since.plus_micros(super::micros(router.attempt)));
        let (generation, body) = (router.generation(self.group), self.body.clone());
        let request = Request { group: self.group, generation, ballot: None, deadline, body };
        let call = router.attempt(node, request, deadline.since(since));
        self.calls.push(call.map(move |answer| (node, answer)).boxed());
        self.asked.push(Asked { node, since });
        Ok(())
    }

    /// Somebody has answered: how far they are, and how far at least those who have not.
    fn learn(&self, answered: NodeId) -> Result<(), Error> {
        let now = self.router.clock.now()?.latest();
        let mut distances = self.router.distances.lock();
        for Asked { node, since } in &self.asked {
            match *node == answered {
                true => distances.answered(self.group, *node, now.since(*since), now),
                false => distances.slow(*node, now.since(*since), now),
            }
        }
        Ok(())
    }
}

/// Whether another replica may do better.
fn is_elsewhere(error: &Error) -> bool {
    matches!(
        error,
        Error::NotLeader { .. }
            | Error::StaleBallot { .. }
            | Error::StaleRoute { .. }
            | Error::ClockUnavailable { .. }
            | Error::ResourceExhausted(_)
            | Error::DeadlineExceeded(_)
            | Error::FailedPrecondition(_)
    )
}
