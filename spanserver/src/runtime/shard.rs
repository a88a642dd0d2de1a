//! A thread that steps a set of groups.

use super::in_process::unavailable;
use super::node::Shared;
use super::{GROUPS_MAX, Responder, fatal, log_writer, reader, spawn};
use crate::server::{Answer, Output};
use crate::storage::{Durability, Engine};
use crate::{Event, Pins, Places, Server, Settings};
use crossbeam::channel::{Receiver, RecvTimeoutError, Sender};
use proto::Error;
use proto::request::{ReadSet, Request};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::Duration;
use truetime::{ClockError, Interval, Status, Timestamp};
use txn::server::RequestId;

/// Events taken into one step.
const BATCH_MAX: usize = 512;
/// Longest sleep, so that a stopped clock is noticed.
const SLEEP_MAX: Duration = Duration::from_millis(100);
/// How often a clock without a bound is asked again (T5).
const CLOCK_RETRY: Duration = Duration::from_millis(5);
/// Reads of at most this many keys run here: a hand-over to a reader costs more than they do.
const INLINE_KEYS_MAX: usize = 16;

/// What comes to a shard.
pub(super) enum ShardEvent {
    Core(Event),
    Request {
        id: RequestId,
        request: Request,
        responder: Responder,
    },
    /// Groups are elsewhere than was known.
    Places(Arc<Places>),
    /// Somebody wants to see.
    Inspect(Box<dyn FnOnce(&Server) + Send>),
    Stop,
}

/// The ends of the queues a shard uses.
pub(super) struct Inbox {
    pub index: usize,
    pub queue: Receiver<ShardEvent>,
    pub log: Sender<log_writer::Job>,
    pub reads: Sender<reader::Job>,
}

pub(super) struct Shard {
    shared: Arc<Shared>,
    engine: Arc<dyn Engine>,
    server: Server,
    settings: Settings,
    inbox: Inbox,
    responders: BTreeMap<RequestId, Responder>,
    /// Views that snapshots are read from.
    pins: Pins,
    wake_after: Timestamp,
    /// What the disk and the readers said while the clock had no bound (T5), in order. Bounded by
    /// what this shard has asked them for.
    deferred: Vec<Event>,
    /// The clock has been found wrong since the last step.
    clock_was_wrong: bool,
}

impl Shard {
    pub fn start(
        shared: Arc<Shared>,
        engine: Arc<dyn Engine>,
        server: Server,
        settings: Settings,
        inbox: Inbox,
    ) -> JoinHandle<()> {
        let name = format!("{}-shard-{}", shared.node, inbox.index);
        let responders = BTreeMap::new();
        let mut shard = Shard {
            shared,
            engine,
            server,
            settings,
            inbox,
            responders,
            pins: Pins::default(),
            wake_after: Timestamp::MIN,
            deferred: Vec::new(),
            clock_was_wrong: false,
        };
        spawn(name, move || shard.run())
    }

    fn run(&mut self) {
        loop {
            let Some(events) = self.next_events() else { return };
            let Some((now, events)) = self.admit(events) else { continue };
            let mut out = self.server.step(now, events);
            // Short reads come back within the same turn.
            loop {
                self.wake_after = out.wake_after;
                let done = self.carry_out(out);
                if done.is_empty() {
                    break;
                }
                let Ok(now) = self.now() else {
                    self.deferred = done;
                    break;
                };
                out = self.server.step(now, done);
            }
        }
    }

    /// Waits for events or for the time to wake; `None`: stop.
    fn next_events(&mut self) -> Option<Vec<ShardEvent>> {
        let mut events = Vec::new();
        let sleep = self.sleep();
        match self.inbox.queue.recv_timeout(sleep) {
            Ok(event) => events.push(event),
            Err(RecvTimeoutError::Timeout) => return Some(events),
            Err(RecvTimeoutError::Disconnected) => return None,
        }
        events.extend(self.inbox.queue.try_iter().take(BATCH_MAX));
        let stop = events.iter().any(|event| matches!(event, ShardEvent::Stop));
        (!stop).then_some(events)
    }

    fn sleep(&mut self) -> Duration {
        match self.now() {
            Ok(_) if !self.deferred.is_empty() => Duration::ZERO, // the bound is back
            Ok(now) if now.after(self.wake_after) => Duration::ZERO,
            Ok(now) => self.wake_after.next().since(now.earliest()).min(SLEEP_MAX),
            Err(_) => CLOCK_RETRY,
        }
    }

    fn now(&mut self) -> Result<Interval, ClockError> {
        let read = self.shared.clock.read();
        self.clock_was_wrong |= read.as_ref().is_err_and(|e| e.status == Status::Broken);
        read.map(|reading| {
            self.server.clock_is(reading.provider, reading.status);
            reading.interval
        })
    }

    /// Reads the clock once for the whole batch (a decision uses one reading).
    ///
    /// Without a bound nothing is decided (T5): clients are refused, what peers say is as good as
    /// lost on the way, and what the disk and the readers say waits. The server is then like one
    /// that is paused: its lease runs out without it, and others lead. When the bound is back it
    /// goes on, and finds out. Should the clock have been wrong, not only without a bound, then what
    /// was reckoned by it goes first.
    fn admit(&mut self, events: Vec<ShardEvent>) -> Option<(Interval, Vec<Event>)> {
        let now = self.now();
        let mut admitted = std::mem::take(&mut self.deferred);
        for event in events {
            match event {
                ShardEvent::Core(Event::Message { .. }) if now.is_err() => {}
                ShardEvent::Core(event) => {
                    self.open_if_invited(&event);
                    admitted.push(event);
                }
                ShardEvent::Places(places) => self.server.set_places(places),
                ShardEvent::Inspect(look) => look(&self.server),
                ShardEvent::Request { id, request, responder } => {
                    self.responders.insert(id, responder);
                    match &now {
                        Ok(_) => admitted.push(Event::Request { id, request }),
                        Err(error) => self.answer(id, Err(unavailable(error))),
                    }
                }
                ShardEvent::Stop => {}
            }
        }
        match now {
            Ok(now) => {
                if std::mem::take(&mut self.clock_was_wrong) {
                    self.server.clock_mended();
                }
                Some((now, admitted))
            }
            Err(_) => {
                self.deferred = admitted;
                None
            }
        }
    }

    /// A node becomes a member of a group it has never heard of: its disk gets a seat there first
    /// (P9).
    fn open_if_invited(&mut self, event: &Event) {
        let Event::Message { message, .. } = event else { return };
        let id = message.group();
        if message.is_invitation()
            && !self.server.hosts(id)
            && self.server.groups().count() < GROUPS_MAX
            && let Err(error) = self.server.open(id, &self.settings, self.engine.as_ref())
        {
            fatal("opening a group", &error);
        }
    }

    /// Carries out an output in the order of its fields; what short reads found comes back.
    fn carry_out(&mut self, out: Output) -> Vec<Event> {
        if !out.apply.is_empty()
            && let Err(error) = self.engine.write(&out.apply, Durability::Buffered)
        {
            fatal("writing versions", &error);
        }
        if let Some(persist) = out.persist {
            let job = log_writer::Job::Write { shard: self.inbox.index, persist };
            let _ = self.inbox.log.send(job);
        }
        for (to, message) in out.send {
            self.shared.send(to, message);
        }
        let mut done = Vec::new();
        for (group, id) in out.forget {
            self.pins.forget(group, id);
        }
        for (group, wanted) in out.chunks {
            match self.pins.read(self.engine.as_ref(), group, wanted) {
                Ok(event) => done.push(event),
                Err(error) => fatal("reading a snapshot", &error),
            }
        }
        for (group, job) in out.read {
            let short = matches!(&job.what, ReadSet::Keys(keys) if keys.len() <= INLINE_KEYS_MAX);
            if short {
                done.push(reader::run(self.engine.as_ref(), group, job));
            } else {
                let _ = self.inbox.reads.send(reader::Job::Read { group, job });
            }
        }
        if !out.reply.is_empty() {
            self.reply(out.reply);
        }
        done
    }

    /// L6: an answer leaves by a clock read now, not by that of the step.
    fn reply(&mut self, answers: Vec<Answer>) {
        let now = self.now();
        for answer in answers {
            let (id, result) = match &now {
                Ok(now) => answer.leave(*now),
                Err(error) => (answer.id, Err(unavailable(error))),
            };
            self.answer(id, result);
        }
    }

    fn answer(&mut self, id: RequestId, answer: Result<proto::request::Reply, Error>) {
        if let Some(responder) = self.responders.remove(&id) {
            self.shared.in_flight.fetch_sub(1, Ordering::Relaxed);
            let _ = responder.send(answer); // a client that is gone needs no answer
        }
    }
}
