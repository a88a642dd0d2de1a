//! The thread that owns the disk's attention: whatever the shards produced since the last answer
//! becomes one batch and one sync (group commit over all groups, P5).

use super::node::Shared;
use super::shard::ShardEvent;
use super::{fatal, spawn};
use crate::storage::{Durability, Engine, WriteOp};
use crate::{Event, Persist};
use crossbeam::channel::{Receiver, RecvTimeoutError};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How often the engine is told what history may go; also the slack kept beyond the retention.
const COLLECT_EVERY: Duration = Duration::from_secs(60);

/// What comes to the log writer.
pub(super) enum Job {
    Write { shard: usize, persist: Persist },
    Stop,
}

pub(super) fn start(
    shared: Arc<Shared>,
    engine: Arc<dyn Engine>,
    retention: Duration,
    jobs: Receiver<Job>,
) -> JoinHandle<()> {
    let name = format!("{}-log", shared.node);
    spawn(name, move || run(&shared, engine.as_ref(), retention, &jobs))
}

fn run(shared: &Shared, engine: &dyn Engine, retention: Duration, jobs: &Receiver<Job>) {
    let mut collected = Instant::now();
    loop {
        if collected.elapsed() >= COLLECT_EVERY {
            collect(shared, engine, retention);
            collected = Instant::now();
        }
        let first = match jobs.recv_timeout(COLLECT_EVERY) {
            Ok(job) => job,
            Err(RecvTimeoutError::Timeout) => continue,
            Err(RecvTimeoutError::Disconnected) => return,
        };
        let mut ops: Vec<WriteOp> = Vec::new();
        let mut answers = Vec::new();
        for job in std::iter::once(first).chain(jobs.try_iter()) {
            match job {
                Job::Write { shard, persist } => {
                    ops.extend(persist.ops);
                    answers.push((shard, persist.batch));
                }
                Job::Stop => return,
            }
        }
        if let Err(error) = engine.write(&ops, Durability::Synced) {
            fatal("writing the log", &error);
        }
        for (shard, batch) in answers {
            let _ = shared.inboxes[shard].send(ShardEvent::Core(Event::Persisted { batch }));
        }
    }
}

/// R5: history below the horizon may go. Servers refuse reads below the retention already, so
/// nothing that could still be asked for is collected.
fn collect(shared: &Shared, engine: &dyn Engine, retention: Duration) {
    if let Ok(now) = shared.clock.now() {
        let horizon = now.earliest().minus(retention + COLLECT_EVERY);
        if let Err(error) = engine.keep_history_from(horizon) {
            fatal("collecting old versions", &error);
        }
    }
}
