//! Runs reads against the engine, beside the shards, so that a long scan holds up no commit.

use super::node::Shared;
use super::shard::ShardEvent;
use super::{fatal, spawn};
use crate::Event;
use crate::storage::{Engine, StorageError};
use crossbeam::channel::Receiver;
use proto::request::{Found, ReadSet};
use proto::{GroupId, Key, KeyRange};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::thread::JoinHandle;
use txn::server::{ReadJob, Unapplied};

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
            let newer: BTreeMap<&Key, &Unapplied> =
                job.unapplied.iter().map(|newer| (&newer.write.key, newer)).collect();
            let value = |key: &Key| match newer.get(key) {
                Some(newer) => Ok(newer.write.value.clone().map(|value| (newer.at, value))),
                None => engine.get(group, key, job.tag.at),
            };
            Ok(Found::Values(keys.iter().map(value).collect::<Result<_, _>>()?))
        }
        ReadSet::Range { range, max_rows } => {
            let rows = *max_rows as usize;
            let page = engine.scan(group, range, job.tag.at, rows, PAGE_BYTES_MAX)?;
            let end = page.resume.clone().unwrap_or_else(|| range.end.clone());
            let covered = KeyRange { start: range.start.clone(), end };
            let newer = job.unapplied.iter().filter(|newer| covered.contains(&newer.write.key));
            let writes = newer.map(|newer| (&newer.write.key, &newer.write.value, newer.at));
            Ok(Found::Page(page.overlaid(writes)))
        }
    }
}
