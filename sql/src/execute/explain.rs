//! `EXPLAIN`: the plan, the key ranges, the groups.

use super::Params;
use super::engine::Engine;
use super::point::{Action, Point};
use super::result::{ResultSet, Tag};
use crate::catalog::{Catalog, Table};
use crate::error::Result;
use crate::scan::Reader;
use crate::value::Value;
use datafusion::physical_plan::display::DisplayableExecutionPlan;
use proto::KeyRange;
use proto::keys::key_after;
use sqlparser::ast::Query;

/// The plan of a query; with `analyze`, run, with the rows and the time of each step.
pub(crate) async fn explain(
    engine: &Engine,
    catalog: &Catalog,
    reader: &Reader,
    query: &Query,
    analyze: bool,
    params: &Params,
) -> Result<ResultSet> {
    let mut lines = Vec::new();
    let statement = crate::parse::Statement::Query(Box::new(query.clone()));
    if !analyze && let Some(point) = Point::compile(&statement, catalog) {
        lines.push(point_line(&point, reader, params)?);
    } else {
        let planned = engine.plan(catalog, reader, query, params).await?;
        let plan = planned.plan.clone();
        let text = if analyze {
            let mut result =
                ResultSet::rows(Tag::Select, planned.columns.clone(), planned.stream()?);
            while result.next_batch().await?.is_some() {}
            DisplayableExecutionPlan::with_metrics(&*plan).indent(false).to_string()
        } else {
            DisplayableExecutionPlan::new(&*plan).indent(false).to_string()
        };
        lines.extend(text.lines().map(str::to_owned));
    }
    let rows = lines.into_iter().map(|line| vec![Value::from(line)]).collect();
    Ok(ResultSet::texts(Tag::Explain, &["plan"], rows))
}

fn point_line(point: &Point, reader: &Reader, params: &Params) -> Result<String> {
    let Action::Select { key, .. } = &point.action else { unreachable!("a query is a SELECT") };
    let Some((key, values)) = point.key(key, params)? else {
        return Ok("Empty: a key column equals NULL".into());
    };
    let range = KeyRange { end: key_after(&key), start: key };
    let groups: Vec<String> = reader.groups_of(&range).iter().map(ToString::to_string).collect();
    Ok(format!(
        "PointRead: table={}, key={}, groups=[{}]",
        point.table.name(),
        point.table.key_text(&values),
        groups.join(", ")
    ))
}

/// A key, or a bound between keys, as a person reads it: the parts that are whole.
pub(crate) fn key_text(table: &Table, bytes: &[u8]) -> String {
    let parts = table.layout().whole_parts(bytes);
    match parts.is_empty() {
        true if bytes.is_empty() => "∞".into(),
        true => "…".into(),
        false => table.key_text(&parts),
    }
}
