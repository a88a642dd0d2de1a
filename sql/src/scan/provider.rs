//! A table as DataFusion sees it, and the node of a plan that scans it.

use super::Reader;
use super::batch::{Projection, schema_of};
use super::ranges::{KeySet, is_useful, key_set};
use super::stream::{Part, batches};
use crate::catalog::Table;
use crate::value::Type;
use async_trait::async_trait;
use datafusion::arrow::compute::SortOptions;
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::logical_expr::{Expr, TableProviderFilterPushDown, TableType};
use datafusion::physical_expr::{EquivalenceProperties, PhysicalExpr, PhysicalSortExpr};
use datafusion::physical_plan::execution_plan::{Boundedness, EmissionType};
use datafusion::physical_plan::expressions::Column;
use datafusion::physical_plan::metrics::{BaselineMetrics, ExecutionPlanMetricsSet, MetricsSet};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{
    DisplayAs, DisplayFormatType, ExecutionPlan, Partitioning, PlanProperties,
    ReplaceChildrenOptions,
};
use futures::StreamExt;
use proto::{GroupId, KeyRange};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

/// A table, read by one reader.
#[derive(Debug)]
pub struct TableScan {
    table: Arc<Table>,
    schema: SchemaRef,
    reader: Reader,
}

impl TableScan {
    /// The table as the reader sees it.
    pub fn new(table: Arc<Table>, reader: Reader) -> TableScan {
        let schema = schema_of(&table);
        TableScan { table, schema, reader }
    }

    fn parts(&self, filters: &[Expr]) -> Vec<Part> {
        let ranges = match key_set(&self.table, filters) {
            KeySet::Points(points) => return vec![Part::Points(points)],
            KeySet::Ranges(ranges) => ranges,
        };
        let mut by_group: BTreeMap<GroupId, Vec<KeyRange>> = BTreeMap::new();
        for range in ranges {
            for group in self.reader.groups_of(&range) {
                by_group.entry(group).or_default().push(range.clone());
            }
        }
        by_group.into_iter().map(|(group, ranges)| Part::Ranges(group, ranges)).collect()
    }
}

#[async_trait]
impl TableProvider for TableScan {
    fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    fn supports_filters_pushdown(
        &self,
        filters: &[&Expr],
    ) -> Result<Vec<TableProviderFilterPushDown>> {
        let support = |filter: &&Expr| match is_useful(&self.table, filter) {
            true => TableProviderFilterPushDown::Inexact,
            false => TableProviderFilterPushDown::Unsupported,
        };
        Ok(filters.iter().map(support).collect())
    }

    async fn scan(
        &self,
        _state: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let all: Vec<usize> = (0..self.table.columns().len()).collect();
        let columns = projection.unwrap_or(&all);
        let schema = Arc::new(self.schema.project(columns)?);
        let projection = Projection::new(self.table.clone(), columns, schema.clone());
        let parts = self.parts(filters);
        let orderings = key_order(&self.table, columns, &schema);
        let properties = PlanProperties::new(
            EquivalenceProperties::new_with_orderings(schema, orderings),
            Partitioning::UnknownPartitioning(parts.len().max(1)),
            EmissionType::Incremental,
            Boundedness::Bounded,
        );
        Ok(Arc::new(TabletScan {
            table: self.table.clone(),
            reader: self.reader.clone(),
            projection: Arc::new(projection),
            parts,
            limit,
            properties: Arc::new(properties),
            metrics: ExecutionPlanMetricsSet::new(),
        }))
    }
}

/// The order in which each partition produces its rows: the key's, as far as its columns are
/// produced. A FLOAT64 ends it: Arrow sorts NaN last, keys sort it first.
fn key_order(table: &Table, columns: &[usize], schema: &SchemaRef) -> Vec<Vec<PhysicalSortExpr>> {
    let mut order = Vec::new();
    for part in table.key() {
        let output = columns.iter().position(|column| *column == part.column);
        let is_float = table.columns()[part.column].data_type == Type::Float64;
        let Some(output) = output.filter(|_| !is_float) else { break };
        let column: Arc<dyn PhysicalExpr> =
            Arc::new(Column::new(schema.field(output).name(), output));
        let options = SortOptions { descending: part.desc, nulls_first: !part.desc };
        order.push(PhysicalSortExpr::new(column, options));
    }
    if order.is_empty() { Vec::new() } else { vec![order] }
}

/// A scan of tablets: one partition for each group.
#[derive(Debug)]
pub struct TabletScan {
    table: Arc<Table>,
    reader: Reader,
    projection: Arc<Projection>,
    parts: Vec<Part>,
    limit: Option<usize>,
    properties: Arc<PlanProperties>,
    metrics: ExecutionPlanMetricsSet,
}

impl DisplayAs for TabletScan {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TabletScan: table={}, ", self.table.name())?;
        let columns: Vec<&str> =
            self.projection.schema().fields().iter().map(|field| &field.name()[..]).collect();
        write!(f, "columns=[{}], ", columns.join(", "))?;
        let key = |bytes: &[u8]| crate::execute::explain::key_text(&self.table, bytes);
        let mut groups: Vec<String> = Vec::new();
        let mut keys: Vec<String> = Vec::new();
        for part in &self.parts {
            match part {
                Part::Points(points) => {
                    keys.extend(points.iter().map(|point| key(point)));
                    let ranges = points.iter().map(|point| KeyRange {
                        start: point.clone(),
                        end: proto::keys::key_after(point),
                    });
                    let found: BTreeSet<GroupId> =
                        ranges.flat_map(|range| self.reader.groups_of(&range)).collect();
                    groups.extend(found.iter().map(ToString::to_string));
                }
                Part::Ranges(group, ranges) => {
                    groups.push(group.to_string());
                    for range in ranges {
                        let text = match *range == self.table.range() {
                            true => "whole table".to_owned(),
                            false => format!("[{}, {})", key(&range.start), key(&range.end)),
                        };
                        if !keys.contains(&text) {
                            keys.push(text);
                        }
                    }
                }
            }
        }
        let more = keys.len().saturating_sub(8);
        keys.truncate(8);
        write!(f, "keys={}", keys.join(" "))?;
        if more > 0 {
            write!(f, " and {more} more")?;
        }
        if !groups.is_empty() {
            write!(f, ", groups=[{}]", groups.join(", "))?;
        }
        match self.limit {
            Some(limit) => write!(f, ", limit={limit}"),
            None => Ok(()),
        }
    }
}

impl ExecutionPlan for TabletScan {
    fn name(&self) -> &str {
        "TabletScan"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        Vec::new()
    }

    fn apply_expressions(
        &self,
        _: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn replace_children(
        self: Arc<Self>,
        _: Vec<Arc<dyn ExecutionPlan>>,
        _: ReplaceChildrenOptions,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        Ok(self)
    }

    fn with_new_children(
        self: Arc<Self>,
        _: Vec<Arc<dyn ExecutionPlan>>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        Ok(self)
    }

    fn execute(&self, partition: usize, _: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let schema = self.projection.schema().clone();
        let part = self.parts.get(partition).cloned().unwrap_or(Part::Points(Vec::new()));
        let metrics = BaselineMetrics::new(&self.metrics, partition);
        let stream = batches(self.reader.clone(), self.projection.clone(), part, self.limit);
        let stream = stream.map(move |batch| match batch {
            Ok(batch) => {
                metrics.record_output(batch.num_rows());
                Ok(batch)
            }
            Err(error) => Err(DataFusionError::External(Box::new(error))),
        });
        Ok(Box::pin(RecordBatchStreamAdapter::new(schema, stream)))
    }

    fn metrics(&self) -> Option<MetricsSet> {
        Some(self.metrics.clone_inner())
    }
}
