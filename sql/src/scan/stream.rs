//! The pages of one partition as a stream of record batches: one page is in memory at a time.

use super::Reader;
use super::batch::Projection;
use crate::error::Result;
use datafusion::arrow::array::RecordBatch;
use futures::stream::{Stream, try_unfold};
use proto::{GroupId, Key, KeyRange};
use std::collections::VecDeque;
use std::sync::Arc;

/// Rows of one page, and keys of one read of points.
pub const PAGE_ROWS: u32 = 4_096;

/// What one partition of a scan reads, in key order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Part {
    /// These keys, wherever they are.
    Points(Vec<Key>),
    /// What one group holds of these ranges.
    Ranges(GroupId, Vec<KeyRange>),
}

struct Position {
    reader: Reader,
    projection: Arc<Projection>,
    group: GroupId,
    points: VecDeque<Key>,
    ranges: VecDeque<KeyRange>,
    /// How many more rows are wanted at most.
    rows_left: Option<usize>,
}

/// The rows of a part; `limit`: no more of them than this are of use.
pub fn batches(
    reader: Reader,
    projection: Arc<Projection>,
    part: Part,
    limit: Option<usize>,
) -> impl Stream<Item = Result<RecordBatch>> + Send {
    let (group, points, ranges) = match part {
        Part::Points(points) => (GroupId::ROOT, points.into(), VecDeque::new()),
        Part::Ranges(group, ranges) => (group, VecDeque::new(), ranges.into()),
    };
    let start = Position { reader, projection, group, points, ranges, rows_left: limit };
    try_unfold(start, next)
}

async fn next(mut at: Position) -> Result<Option<(RecordBatch, Position)>> {
    if at.rows_left == Some(0) {
        return Ok(None);
    }
    let batch = if !at.points.is_empty() {
        let count = at.points.len().min(PAGE_ROWS as usize);
        let keys: Vec<Key> = at.points.drain(..count).collect();
        let values = at.reader.get_many(&keys).await?;
        let found: Vec<(&[u8], &[u8])> = keys
            .iter()
            .zip(&values)
            .filter_map(|(key, value)| Some((&key[..], &value.as_ref()?[..])))
            .collect();
        at.projection.batch(found.into_iter())?
    } else if let Some(range) = at.ranges.pop_front() {
        let wanted = at.rows_left.and_then(|rows| u32::try_from(rows).ok()).unwrap_or(PAGE_ROWS);
        let page = at.reader.scan_page(at.group, &range, wanted.min(PAGE_ROWS)).await?;
        if let Some(start) = page.resume {
            at.ranges.push_front(KeyRange { start, end: range.end });
        }
        at.projection.batch(page.rows.iter().map(|row| (&row.key[..], &row.value[..])))?
    } else {
        return Ok(None);
    };
    at.rows_left = at.rows_left.map(|rows| rows.saturating_sub(batch.num_rows()));
    Ok(Some((batch, at)))
}
