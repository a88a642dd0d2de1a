//! Runs reads against the engine, beside the shards, so that a long scan holds up no commit.

use super::node::Shared;
use super::shard::ShardEvent;
use super::{fatal, spawn};
use crate::Event;
use crate::storage::{Engine, StorageError};
use crossbeam::channel::Receiver;
use proto::GroupId;
use proto::request::{Found, ReadSet};
use std::sync::Arc;
use std::thread::JoinHandle;
use txn::server::ReadJob;

/// Bytes of rows in one page: bounds what a reader and a client hold at a time.
pub const PAGE_BYTES_MAX: usize = 1 << 20;

/// What comes to a reader.
pub(super) enum Job {
    Read { group: GroupId, job: ReadJob },
    Stop,
}

pub(super) fn start(
    shared: Arc<Shared>,
    engine: Arc<dyn Engine>,
    jobs: Receiver<Job>,
) -> JoinHandle<()> {
    let name = format!("{}-reader", shared.node);
    spawn(name, move || {
        while let Ok(Job::Read { group, job }) = jobs.recv() {
            let done = run(engine.as_ref(), group, job);
            let _ = shared.inbox(group).send(ShardEvent::Core(done));
        }
    })
}

/// Runs a read; an engine that cannot read ends the process like one that cannot write.
pub(super) fn run(engine: &dyn Engine, group: GroupId, job: ReadJob) -> Event {
    let tag = job.tag;
    match execute(engine, group, &job) {
        Ok(found) => Event::ReadDone { group, tag, found },
        Err(error) => fatal("reading versions", &error),
    }
}

/// The read itself; the simulator runs the same.
///
/// # Errors
/// I/O and corruption.
pub fn execute(engine: &dyn Engine, group: GroupId, job: &ReadJob) -> Result<Found, StorageError> {
    match &job.what {
        ReadSet::Keys(keys) => {
            let values = keys.iter().map(|key| engine.get(group, key, job.tag.at)).collect();
            let values: Result<Vec<_>, _> = values;
            Ok(Found::Values(values?))
        }
        ReadSet::Range { range, max_rows } => {
            let rows = *max_rows as usize;
            engine.scan(group, range, job.tag.at, rows, PAGE_BYTES_MAX).map(Found::Page)
        }
    }
}
