//! Reads issued together travel together: what one task asks of one group before it next waits, say
//! through `join_all`, goes in one message.
//!
//! ```text
//!   get(a) ─┐ join, and let the others of this turn join ─┐
//!   get(b) ─┼─────────────────────────────────────────────┼─► one ReadSet::Keys ─► one answer
//!   get(c) ─┘                                             ┘      for all three
//! ```
//!
//! Nobody owns a batch. Whoever comes back first sends it, all wait for the same answer, and one
//! that is dropped takes nothing from the others; when all are dropped, so is the batch.

use futures::FutureExt;
use futures::future::{BoxFuture, Shared, poll_fn};
use parking_lot::Mutex;
use proto::request::Versioned;
use proto::{Error, Key};
use std::collections::BTreeMap;
use std::future::Future;
use std::sync::{Arc, Weak};
use std::task::Poll;

/// Most keys in one message, and most bytes of them.
pub(super) const KEYS_MAX: usize = 1_024;
const BYTES_MAX: usize = 256 << 10;

/// What was found for some keys, in their order.
pub(super) type Values = Vec<Option<Versioned>>;

/// The batches that can still be joined, by where they go.
pub(super) struct Batches<To>(Mutex<BTreeMap<To, Weak<Batch>>>);

/// Keys until they are sent; then `None`.
type Gathered = Arc<Mutex<Option<Vec<Key>>>>;

struct Batch {
    keys: Gathered,
    answer: Shared<BoxFuture<'static, Result<Arc<Values>, Error>>>,
}

impl<To> Default for Batches<To> {
    fn default() -> Batches<To> {
        Batches(Mutex::new(BTreeMap::new()))
    }
}

impl<To: Ord> Batches<To> {
    /// The values of keys. `send` asks for those of the whole batch, if this is its first member.
    ///
    /// # Errors
    /// What `send` says, to every member.
    pub async fn read<F, Fut>(&self, to: To, keys: Vec<Key>, send: F) -> Result<Values, Error>
    where
        F: FnOnce(Vec<Key>) -> Fut + Send + 'static,
        Fut: Future<Output = Result<Values, Error>> + Send + 'static,
    {
        let count = keys.len();
        let (batch, first) = self.join(to, keys, send);
        turn().await;
        let values = batch.answer.clone().await?;
        Ok(values[first..first + count].to_vec())
    }

    /// The batch that the keys belong to, and the place of the first of them.
    fn join<F, Fut>(&self, to: To, keys: Vec<Key>, send: F) -> (Arc<Batch>, usize)
    where
        F: FnOnce(Vec<Key>) -> Fut + Send + 'static,
        Fut: Future<Output = Result<Values, Error>> + Send + 'static,
    {
        let mut open = self.0.lock();
        if let Some(batch) = open.get(&to).and_then(Weak::upgrade)
            && let Some(gathered) = batch.keys.lock().as_mut()
            && fits(gathered, &keys)
        {
            let first = gathered.len();
            gathered.extend(keys);
            return (batch.clone(), first);
        }
        let keys = Arc::new(Mutex::new(Some(keys)));
        let answer = answer(keys.clone(), send).boxed().shared();
        let batch = Arc::new(Batch { keys, answer });
        open.insert(to, Arc::downgrade(&batch));
        (batch, 0)
    }
}

fn fits(gathered: &[Key], more: &[Key]) -> bool {
    let bytes: usize = gathered.iter().chain(more).map(Key::len).sum();
    gathered.len() + more.len() <= KEYS_MAX && bytes <= BYTES_MAX
}

async fn answer<F, Fut>(keys: Gathered, send: F) -> Result<Arc<Values>, Error>
where
    F: FnOnce(Vec<Key>) -> Fut,
    Fut: Future<Output = Result<Values, Error>>,
{
    let keys = keys.lock().take().unwrap_or_default();
    let count = keys.len();
    let values = send(keys).await?;
    if values.len() != count {
        let answered = values.len();
        let what = format!("the server answered {answered} values for {count} keys");
        return Err(Error::FailedPrecondition(what));
    }
    Ok(Arc::new(values))
}

/// Comes back when the task is polled again, which it asks for at once: everything else that the
/// task does in this turn comes first.
async fn turn() {
    let mut waited = false;
    poll_fn(|context| match std::mem::replace(&mut waited, true) {
        true => Poll::Ready(()),
        false => {
            context.waker().wake_by_ref();
            Poll::Pending
        }
    })
    .await;
}
