//! Groups in memory, for tests of this crate: one versioned map, no locks, no failures but those
//! asked for. What real groups do is tested end to end elsewhere.

#![allow(dead_code)] // each test file uses its part

use bytes::Bytes;
use futures::future::BoxFuture;
use parking_lot::Mutex;
use proto::keys::{Row, Write};
use proto::request::{Body, Found, ReadAt, ReadSet, Receipt, Reply, ReplyBody, Request};
use proto::{Ballot, Error, GroupId, Key, KeyRange, NodeId, Page, TxnId};
use sql::{Database, ResultSet, Session, SqlError};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use truetime::{Interval, Timestamp};
use txn::client::{Client, ClientClock, ClientConfig, HashPlacement, Placement, Transport};

/// Data groups of the double.
pub const GROUPS: u32 = 4;

/// A clock that moves ten microseconds at each look.
pub struct Clock(AtomicU64);

impl Clock {
    fn tick(&self) -> Timestamp {
        Timestamp::from_micros(self.0.fetch_add(10, Ordering::SeqCst))
    }
}

impl ClientClock for Clock {
    fn now(&self) -> Result<Interval, Error> {
        let now = self.tick();
        Ok(Interval::new(now, now))
    }

    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()> {
        Box::pin(tokio::time::sleep(duration))
    }
}

type Versions = BTreeMap<Timestamp, Option<Bytes>>;

#[derive(Default)]
struct State {
    rows: BTreeMap<Key, Versions>,
    prepared: BTreeMap<(TxnId, GroupId), Vec<Write>>,
    /// How many of the next commits are aborted.
    aborts: u32,
    /// How many more locking reads of ranges are answered before one is aborted.
    scans_left: Option<u32>,
    /// What can be read without waiting, where it does not follow the clock.
    safe: Option<Timestamp>,
    /// How many requests of each kind arrived.
    reads: u64,
    scans: u64,
    commits: u64,
}

/// See the [module](self).
pub struct Groups {
    state: Mutex<State>,
    clock: Arc<Clock>,
    placement: HashPlacement,
}

impl Groups {
    /// Aborts the next commits.
    pub fn abort_next(&self, commits: u32) {
        self.state.lock().aborts = commits;
    }

    /// Aborts a locking read of a range after so many more.
    pub fn abort_scan_after(&self, scans: u32) {
        self.state.lock().scans_left = Some(scans);
    }

    /// From now on only what is this old can be read without waiting.
    pub fn hold_safe_time(&self, at: Timestamp) {
        self.state.lock().safe = Some(at);
    }

    fn check_scan(&self, what: &ReadSet) -> Result<(), Error> {
        let mut state = self.state.lock();
        match (what, state.scans_left) {
            (ReadSet::Range { .. }, Some(0)) => {
                state.scans_left = None;
                Err(Error::aborted("wounded, says the test"))
            }
            (ReadSet::Range { .. }, Some(left)) => {
                state.scans_left = Some(left - 1);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// How many reads of keys, reads of ranges, and commits there were; counting starts again.
    pub fn counts(&self) -> (u64, u64, u64) {
        let mut state = self.state.lock();
        let counts = (state.reads, state.scans, state.commits);
        (state.reads, state.scans, state.commits) = (0, 0, 0);
        counts
    }

    /// How many keys hold a row now.
    pub fn rows(&self) -> usize {
        let state = self.state.lock();
        state.rows.values().filter(|v| v.values().next_back().is_some_and(Option::is_some)).count()
    }

    fn read(&self, group: GroupId, at: Timestamp, what: ReadSet) -> Found {
        let mut state = self.state.lock();
        let newest = |versions: &Versions| {
            let (written, value) = versions.range(..=at).next_back()?;
            Some((*written, value.clone()?))
        };
        match what {
            ReadSet::Keys(keys) => {
                state.reads += 1;
                let rows = &state.rows;
                Found::Values(keys.iter().map(|key| newest(rows.get(key)?)).collect())
            }
            ReadSet::Range { range, max_rows } => {
                state.scans += 1;
                Found::Page(self.page(&state.rows, group, &range, max_rows, newest))
            }
        }
    }

    fn page(
        &self,
        rows: &BTreeMap<Key, Versions>,
        group: GroupId,
        range: &KeyRange,
        max_rows: u32,
        newest: impl Fn(&Versions) -> Option<(Timestamp, Bytes)>,
    ) -> Page {
        let mut page = Page::default();
        for (key, versions) in rows.range(range.start.clone()..) {
            if !range.contains(key) {
                break;
            }
            if self.placement.group_of(key) != group {
                continue;
            }
            let Some((written, value)) = newest(versions) else { continue };
            // Small pages, so that going on is tested too.
            if page.rows.len() >= max_rows.min(7) as usize {
                page.resume = Some(key.clone());
                break;
            }
            page.rows.push(Row { key: key.clone(), value, written });
        }
        page
    }

    async fn commit(
        &self,
        group: GroupId,
        txn: TxnId,
        writes: Vec<Write>,
        participants: Vec<GroupId>,
    ) -> Result<ReplyBody, Error> {
        let missing =
            |state: &State| participants.iter().any(|p| !state.prepared.contains_key(&(txn, *p)));
        while missing(&self.state.lock()) {
            tokio::task::yield_now().await;
        }
        let mut state = self.state.lock();
        let prepared: Vec<Write> = participants
            .iter()
            .flat_map(|p| state.prepared.remove(&(txn, *p)).unwrap_or_default())
            .collect();
        if state.aborts > 0 {
            state.aborts -= 1;
            return Err(Error::aborted("the test asked for it"));
        }
        state.commits += 1;
        let timestamp = self.clock.tick();
        for write in writes.into_iter().chain(prepared) {
            state.rows.entry(write.key).or_default().insert(timestamp, write.value);
        }
        Ok(ReplyBody::Committed(Receipt::plain(timestamp, group)))
    }

    async fn answer(&self, group: GroupId, body: Body) -> Result<Reply, Error> {
        let body = match body {
            Body::Read { what, .. } => {
                self.check_scan(&what)?;
                let found = self.read(group, Timestamp::MAX, what);
                ReplyBody::Read { found, ahead: Timestamp::MIN }
            }
            Body::Snapshot { at, what } => {
                let at = match at {
                    ReadAt::Exactly(at) => at,
                    ReadAt::Newest { at_least } => at_least.max(self.clock.tick()),
                };
                ReplyBody::Snapshot { at, found: self.read(group, at, what) }
            }
            Body::SafeTime { .. } => {
                let held = self.state.lock().safe;
                ReplyBody::SafeTime(held.unwrap_or_else(|| self.clock.tick()))
            }
            Body::Prepare { txn, writes, .. } => {
                self.state.lock().prepared.insert((txn, group), writes);
                ReplyBody::Done
            }
            Body::Commit { txn, writes, participants, .. } => {
                self.commit(group, txn, writes, participants).await?
            }
            Body::Rollback { .. } | Body::KeepAlive { .. } => ReplyBody::Done,
            other => unreachable!("not asked by these tests: {other:?}"),
        };
        Ok(Reply { ballot: Ballot::default(), body })
    }
}

struct Wire(Arc<Groups>);

impl Transport for Wire {
    fn call(&self, _: NodeId, request: Request) -> BoxFuture<'static, Result<Reply, Error>> {
        let groups = self.0.clone();
        Box::pin(async move { groups.answer(request.group, request.body).await })
    }

    fn cast(&self, _: NodeId, _: Request) {}

    fn nodes(&self) -> Vec<NodeId> {
        vec![NodeId(1)]
    }
}

/// New groups, and a client of them.
pub fn groups() -> (Arc<Groups>, Client) {
    let clock = Arc::new(Clock(AtomicU64::new(1_700_000_000_000_000)));
    let placement = HashPlacement {
        groups: GROUPS,
        root_prefix: Bytes::from_static(&sql::CATALOG_PREFIX),
        directory: sql::directory_of,
    };
    let groups = Arc::new(Groups {
        state: Mutex::new(State::default()),
        clock: clock.clone(),
        placement: placement.clone(),
    });
    let config = ClientConfig { client: 1, ..ClientConfig::default() };
    let client = Client::new(Arc::new(Wire(groups.clone())), clock, Arc::new(placement), config);
    (groups, client)
}

/// An empty database.
pub async fn database() -> (Arc<Groups>, Arc<Database>) {
    let (groups, client) = groups();
    (groups, Database::open(client).await.expect("opens"))
}

/// The answer of a statement as lines: values between bars, `(n rows)` for changes, `OK`, or the
/// error with its caret and hint.
pub async fn say(session: &mut Session, sql: &str) -> String {
    let answer = match session.execute(sql).await {
        Ok(result) => text(result).await,
        Err(error) => Err(error),
    };
    answer.unwrap_or_else(|error| format!("{:?}: {}", error.kind, error.render(sql)))
}

/// The rows of a result, or what it did.
pub async fn text(result: ResultSet) -> Result<String, SqlError> {
    if let Some(count) = result.affected {
        return Ok(format!("({count} rows)"));
    }
    if result.columns.is_empty() {
        return Ok("OK".into());
    }
    let rows = result.collect().await?;
    let lines: Vec<String> = rows
        .iter()
        .map(|row| row.iter().map(ToString::to_string).collect::<Vec<_>>().join("|"))
        .collect();
    Ok(lines.join("\n"))
}

/// Runs statements that must succeed.
pub async fn all(session: &mut Session, script: &str) {
    for statement in sql::split(script) {
        if let Err(error) = session.execute(statement.sql).await {
            unreachable!("{}", error.render(statement.sql));
        }
    }
}

/// The lines of a text in order, for results without ORDER BY.
pub fn sorted(text: &str) -> String {
    text.lines().collect::<BTreeSet<_>>().into_iter().collect::<Vec<_>>().join("\n")
}
