//! A view of the database as of one moment: a snapshot of RocksDB.
//!
//! A snapshot of the crate borrows the database. To be passed around it would have to live beside
//! what it borrows; here it lives in the frame of a thread of its own, which answers questions
//! until the view is dropped. There are few views at a time: one per tablet being sent.

use super::keys::{TabletId, bounds, timestamp, versioned};
use super::tablets::Tablets;
use super::{Db, VERSIONS, beyond_repair, family, finish, read_meta};
use crate::storage::{MetaRecord, PageInProgress, Pinned, StorageError, VersionPage};
use proto::keys::prefix_end;
use proto::{GroupId, Key, Value};
use rocksdb::{ReadOptions, SnapshotWithThreadMode};
use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::thread::{self, JoinHandle};
use truetime::Timestamp;

/// What [`Engine::pin`](crate::storage::Engine::pin) of RocksDB returns.
pub struct View {
    questions: Option<mpsc::Sender<Question>>,
    thread: Option<JoinHandle<()>>,
    horizon: Timestamp,
}

type Question = Box<dyn FnOnce(&Frozen<'_>) + Send>;

/// Counts the views there are: history is not collected under them.
pub struct PinCount(Arc<AtomicUsize>);

impl PinCount {
    pub fn one_more(pins: &Arc<AtomicUsize>) -> PinCount {
        pins.fetch_add(1, Ordering::AcqRel);
        PinCount(Arc::clone(pins))
    }
}

impl Drop for PinCount {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

impl View {
    /// Takes the snapshot before it returns.
    pub fn of(db: Arc<Db>, horizon: Timestamp, pin: PinCount) -> Result<View, StorageError> {
        let (questions, asked) = mpsc::channel::<Question>();
        let (taken, is_taken) = mpsc::channel();
        let answer = move || {
            let _pin = pin;
            let frozen = Frozen { snapshot: db.snapshot(), db: &db, horizon };
            // The one who waits for this is gone only if it panicked.
            let _ = taken.send(());
            asked.into_iter().for_each(|question| question(&frozen));
        };
        let thread = thread::Builder::new()
            .name("pinned view".into())
            .spawn(answer)
            .map_err(|e| StorageError::Io(format!("a thread for a pinned view: {e}")))?;
        is_taken.recv().expect("the thread of a view takes its snapshot");
        Ok(View { questions: Some(questions), thread: Some(thread), horizon })
    }

    fn ask<T: Send + 'static>(
        &self,
        question: impl FnOnce(&Frozen<'_>) -> T + Send + 'static,
    ) -> T {
        let (reply, answer) = mpsc::channel();
        let question = move |frozen: &Frozen<'_>| {
            let _ = reply.send(question(frozen));
        };
        let questions = self.questions.as_ref().expect("open until dropped");
        questions.send(Box::new(question)).expect("the thread of a view waits for questions");
        answer.recv().expect("the thread of a view answers")
    }
}

impl Drop for View {
    fn drop(&mut self) {
        self.questions = None;
        // Waited for, so that the folder can be opened again as soon as engine and views are gone.
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Pinned for View {
    fn read_meta(&self, prefix: &[u8]) -> Result<Vec<MetaRecord>, StorageError> {
        let prefix = prefix.to_vec();
        self.ask(move |frozen| {
            read_meta(frozen.db, frozen.at(bounds(&prefix, &prefix_end(&prefix))), &prefix)
        })
    }

    fn read_versions(
        &self,
        group: GroupId,
        after: Option<&(Key, Timestamp)>,
        max_bytes: usize,
    ) -> Result<VersionPage, StorageError> {
        let after = after.cloned();
        self.ask(move |frozen| frozen.read_versions(group, after, max_bytes))
    }

    fn horizon(&self) -> Timestamp {
        self.horizon
    }
}

/// The database under a snapshot.
struct Frozen<'a> {
    db: &'a Db,
    snapshot: SnapshotWithThreadMode<'a, Db>,
    horizon: Timestamp,
}

impl Frozen<'_> {
    fn at(&self, mut options: ReadOptions) -> ReadOptions {
        options.set_snapshot(&self.snapshot);
        options
    }

    fn read_versions(
        &self,
        group: GroupId,
        after: Option<(Key, Timestamp)>,
        max_bytes: usize,
    ) -> Result<VersionPage, StorageError> {
        let tablet = Tablets::read(self.db, self.at(ReadOptions::default()))?.live(group);
        let start = after.as_ref().map_or(&[][..], |(key, _)| key);
        let mut options = self.at(bounds(&tablet.key(start), &prefix_end(&tablet.prefix())));
        options.set_total_order_seek(true);
        options.set_timestamp(timestamp(Timestamp::MAX));
        // All versions, not the newest only; the key of the cursor then is RocksDB's internal one.
        options.set_iter_start_ts(timestamp(Timestamp::MIN));
        let mut cursor = self.db.raw_iterator_cf_opt(family(self.db, VERSIONS), options);
        let mut page = PageInProgress::new(max_bytes);
        let mut history = History::default();
        cursor.seek_to_first();
        while let Some((stored, value)) = cursor.item() {
            let (key, at, value) = version(group, stored, value)?;
            if history.key != key {
                if !history.move_to(&mut page) {
                    return Ok(page.more());
                }
                history = History { key, ..History::default() };
            }
            let done = after.as_ref().filter(|(key, _)| *key == history.key);
            if done.is_none_or(|(_, done)| at > *done) {
                history.push_older(at, value, self.horizon, max_bytes);
            }
            cursor.next();
        }
        finish(&cursor, || format!("versions of {group}"))?;
        Ok(if history.move_to(&mut page) { page.end() } else { page.more() })
    }
}

/// The versions of one key, which RocksDB gives newest first.
#[derive(Default)]
struct History {
    key: Key,
    /// Newest first; when they are too many for a page, the newest are left out.
    versions: VecDeque<(Timestamp, Option<Value>)>,
    bytes: usize,
    left_out: bool,
    oldest: Option<Timestamp>,
    /// Whether a version at or below the horizon was there: older ones do not count.
    complete: bool,
}

impl History {
    fn push_older(
        &mut self,
        at: Timestamp,
        value: Option<Value>,
        horizon: Timestamp,
        max_bytes: usize,
    ) {
        // Not only newest first: RocksDB may also go back a few versions, over those that were
        // written since the snapshot.
        if self.complete || self.oldest.is_some_and(|oldest| at >= oldest) {
            return;
        }
        self.oldest = Some(at);
        self.complete = at <= horizon;
        if self.complete && value.is_none() {
            return;
        }
        self.bytes += value.as_ref().map_or(0, Value::len);
        self.versions.push_back((at, value));
        while self.bytes > max_bytes && self.versions.len() > 1 {
            let newest = self.versions.pop_front().expect("there are two");
            self.bytes -= newest.1.map_or(0, |value| value.len());
            self.left_out = true;
        }
    }

    /// Oldest first; false when the page could not take them all.
    fn move_to(&mut self, page: &mut PageInProgress) -> bool {
        let mut oldest_first = self.versions.drain(..).rev();
        oldest_first.all(|(at, value)| page.push(&self.key, at, value.as_ref())) && !self.left_out
    }
}

/// Takes RocksDB's internal key apart: tablet, key, timestamp (8 bytes), sequence number and kind
/// (8 bytes, the kind first).
fn version(
    group: GroupId,
    stored: &[u8],
    value: &[u8],
) -> Result<(Key, Timestamp, Option<Value>), StorageError> {
    /// `kTypeValue`; the other kinds in this family are deletions.
    const VALUE: u8 = 1;
    let parts = stored.split_last_chunk::<8>().and_then(|(rest, [kind, ..])| {
        let (rest, at) = rest.split_last_chunk::<8>()?;
        Some((rest.get(TabletId::PREFIX_BYTES..)?, u64::from_le_bytes(*at), *kind))
    });
    let Some((key, at, kind)) = parts else {
        let words = format!("a version of {group} with a key of {} bytes", stored.len());
        return Err(beyond_repair(words));
    };
    let key = Key::copy_from_slice(key);
    if kind != VALUE {
        return Ok((key, Timestamp::from_micros(at), None));
    }
    // Not the timestamp in the key: compaction may have set that to zero.
    let (written, value) = versioned(group, value)?;
    Ok((key, written, Some(value)))
}
