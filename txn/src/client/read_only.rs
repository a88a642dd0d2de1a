//! Read-only transactions: one timestamp over all groups (R3, R4, R6).

use super::Inner;
use futures::future::try_join_all;
use proto::keys::{Row, Value};
use proto::request::{Body, Found, ReadAt, ReadSet, ReplyBody};
use proto::{Error, GroupId, Key, KeyRange, Page};
use std::sync::Arc;
use std::time::Duration;
use truetime::Timestamp;

/// How fresh a read must be (R4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimestampBound {
    /// Sees everything that was acknowledged before the read began.
    Strong,
    /// At exactly this timestamp.
    ReadTimestamp(Timestamp),
    /// At exactly this long ago.
    ExactStaleness(Duration),
    /// At most this long ago, as fresh as is possible without waiting.
    MaxStaleness(Duration),
    /// At this timestamp or later, as fresh as is possible without waiting.
    MinReadTimestamp(Timestamp),
}

/// A read-only transaction; cheap to clone, needs no end.
#[derive(Clone)]
pub struct Snapshot {
    inner: Arc<Inner>,
    at: Timestamp,
}

impl Snapshot {
    pub(super) fn choose(inner: Arc<Inner>, bound: TimestampBound) -> Result<Snapshot, Error> {
        let now = inner.clock.now()?;
        let horizon = now.earliest().minus(inner.config.retention);
        let at = match bound {
            // R3: above every timestamp acknowledged before this instant, in every group.
            TimestampBound::Strong => now.latest(),
            TimestampBound::ReadTimestamp(at) => at,
            TimestampBound::ExactStaleness(age) => now.latest().minus(age),
            TimestampBound::MaxStaleness(age) => now.earliest().max(now.latest().minus(age)),
            TimestampBound::MinReadTimestamp(at) => now.earliest().max(at),
        };
        if at > now.latest() {
            return Err(Error::TimestampInFuture { at, now: now.latest() });
        }
        if at < horizon {
            return Err(Error::SnapshotTooOld { at, horizon });
        }
        Ok(Snapshot { inner, at })
    }

    /// The timestamp all reads of this transaction are at.
    pub fn timestamp(&self) -> Timestamp {
        self.at
    }

    /// The value of a key, `None` when there is no row.
    ///
    /// # Errors
    /// `SnapshotTooOld` when the horizon has passed the timestamp; transient ones after retries.
    pub async fn get(&self, key: &Key) -> Result<Option<Value>, Error> {
        let mut values = self.get_many(std::slice::from_ref(key)).await?;
        Ok(values.pop().flatten())
    }

    /// The values of keys, in their order; one message to each group.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub async fn get_many(&self, keys: &[Key]) -> Result<Vec<Option<Value>>, Error> {
        let by_group = self.inner.split_keys(keys.iter().enumerate());
        let calls = by_group.into_iter().map(|(group, (places, keys))| async move {
            let at = ReadAt::Exactly(self.at);
            let body = Body::Snapshot { at, what: ReadSet::Keys(keys) };
            let reply = self.inner.router.ask(group, body).await?;
            match reply.body {
                ReplyBody::Snapshot { found: Found::Values(values), .. } => Ok((places, values)),
                other => Err(unexpected(&other)),
            }
        });
        let mut found = vec![None; keys.len()];
        for (places, values) in try_join_all(calls).await? {
            for (place, value) in places.into_iter().zip(values) {
                found[place] = value.map(|(_, value)| value);
            }
        }
        Ok(found)
    }

    /// The groups whose pages together make up a range.
    pub fn groups_of(&self, range: &KeyRange) -> Vec<GroupId> {
        self.inner.placement.groups_of(range)
    }

    /// One page of a range at one group, in key order. Go on with `start = page.resume`.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub async fn scan_page(
        &self,
        group: GroupId,
        range: &KeyRange,
        max_rows: u32,
    ) -> Result<Page, Error> {
        let what = ReadSet::Range { range: range.clone(), max_rows };
        let at = ReadAt::Exactly(self.at);
        let reply = self.inner.router.ask(group, Body::Snapshot { at, what }).await?;
        match reply.body {
            ReplyBody::Snapshot { found: Found::Page(page), .. } => Ok(page),
            other => Err(unexpected(&other)),
        }
    }

    /// All rows of a range over all groups, in key order. For ranges known to be small.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub async fn scan_all(&self, range: &KeyRange) -> Result<Vec<Row>, Error> {
        let mut rows = Vec::new();
        for group in self.groups_of(range) {
            let mut rest = Some(range.clone());
            while let Some(part) = rest.take() {
                let page = self.scan_page(group, &part, u32::MAX).await?;
                rows.extend(page.rows);
                rest = page.resume.map(|start| KeyRange { start, end: range.end.clone() });
            }
        }
        rows.sort_by(|a, b| a.key.cmp(&b.key));
        Ok(rows)
    }
}

/// A server that answers something else than it was asked is broken; the caller only hears so.
pub(super) fn unexpected(body: &ReplyBody) -> Error {
    Error::FailedPrecondition(format!("unexpected answer from the server: {body:?}"))
}
