//! DataFusion, set up once for a database, with the tables of one catalog and one reader put
//! under each query.

use super::Params;
use super::casts;
use super::dialect::{self, GoogleTypes};
use super::expressions::{self, GoogleOperators};
use super::prepared::Prepared;
use super::result::{ResultColumn, RowStream};
use crate::catalog::Catalog;
use crate::error::{ErrorKind, Result, SqlError, nearest};
use crate::scan::provider::TableScan;
use crate::scan::{Reader, convert};
use datafusion::arrow::datatypes::DataType;
use datafusion::common::SchemaError;
use datafusion::common::TableReference;
use datafusion::common::config::ConfigOptions;
use datafusion::datasource::provider_as_source;
use datafusion::error::DataFusionError;
use datafusion::execution::disk_manager::{DiskManagerBuilder, DiskManagerMode};
use datafusion::execution::runtime_env::RuntimeEnvBuilder;
use datafusion::execution::{SessionState, SessionStateBuilder, TaskContext};
use datafusion::logical_expr::planner::{ExprPlanner, TypePlanner};
use datafusion::logical_expr::{
    AggregateUDF, HigherOrderUDF, LogicalPlan, ScalarUDF, TableSource, WindowUDF,
};
use datafusion::physical_plan::{ExecutionPlan, execute_stream};
use datafusion::prelude::SessionConfig;
use datafusion::sql::planner::{ContextProvider, NullOrdering, ParserOptions, SqlToRel};
use futures::{FutureExt, StreamExt};
use parking_lot::Mutex;
use sqlparser::ast;
use std::collections::BTreeMap;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

/// Memory that sorts, joins and aggregations of all queries may take together, in bytes.
const QUERY_BYTES_MAX: usize = 1 << 30;
/// How many statements are kept parsed, and up to which length.
const PREPARED_MAX: usize = 1_024;
const PREPARED_BYTES_MAX: usize = 4_096;

/// See the [module](self).
pub(crate) struct Engine {
    state: SessionState,
    types: Arc<dyn TypePlanner>,
    planners: Vec<Arc<dyn ExprPlanner>>,
    prepared: Mutex<BTreeMap<String, Arc<Prepared>>>,
}

/// A query, ready to run.
pub(crate) struct Planned {
    pub(crate) columns: Vec<ResultColumn>,
    pub(crate) plan: Arc<dyn ExecutionPlan>,
    context: Arc<TaskContext>,
}

impl Engine {
    pub(crate) fn new() -> Result<Engine> {
        let mut config = SessionConfig::new();
        config.options_mut().execution.time_zone = Some("UTC".into());
        // Scans are partitioned by group already; spreading single batches costs more than it gives.
        config.options_mut().optimizer.enable_round_robin_repartition = false;
        let disk = DiskManagerBuilder::default().with_mode(DiskManagerMode::Disabled);
        let runtime = RuntimeEnvBuilder::new()
            .with_memory_limit(QUERY_BYTES_MAX, 1.0)
            .with_disk_manager_builder(disk)
            .build_arc()
            .map_err(|error| from_datafusion(error, &[]))?;
        let state = SessionStateBuilder::new_with_default_features()
            .with_config(config)
            .with_runtime_env(runtime)
            .build();
        let mut planners: Vec<Arc<dyn ExprPlanner>> = vec![Arc::new(GoogleOperators)];
        planners.extend(state.expr_planners().iter().cloned());
        Ok(Engine {
            state,
            types: Arc::new(GoogleTypes),
            planners,
            prepared: Mutex::new(BTreeMap::new()),
        })
    }

    /// Reads a statement, or finds it read before.
    pub(crate) fn prepare(&self, sql: &str) -> Result<Arc<Prepared>> {
        if let Some(known) = self.prepared.lock().get(sql) {
            return Ok(known.clone());
        }
        let prepared = Arc::new(Prepared::new(sql)?);
        if sql.len() <= PREPARED_BYTES_MAX && prepared.is_repeatable() {
            let mut all = self.prepared.lock();
            if all.len() >= PREPARED_MAX {
                all.clear();
            }
            all.insert(sql.to_owned(), prepared.clone());
        }
        Ok(prepared)
    }

    /// Plans a query over the tables of a catalog as a reader sees them.
    pub(crate) async fn plan(
        &self,
        catalog: &Catalog,
        reader: &Reader,
        query: &ast::Query,
        params: &Params,
    ) -> Result<Planned> {
        let planned = AssertUnwindSafe(self.plan_inner(catalog, reader, query, params));
        match planned.catch_unwind().await {
            Ok(planned) => planned,
            Err(panic) => Err(from_panic(&*panic)),
        }
    }

    async fn plan_inner(
        &self,
        catalog: &Catalog,
        reader: &Reader,
        query: &ast::Query,
        params: &Params,
    ) -> Result<Planned> {
        let mut query = query.clone();
        let names = dialect::output_names(&query);
        dialect::rewrite(&mut query, params)?;
        let mut state = self.state.clone();
        state.mark_start_execution();
        let tables = Tables { engine: self, state: &state, catalog, reader };
        let options = ParserOptions {
            parse_float_as_decimal: false,
            enable_ident_normalization: true,
            support_varchar_with_length: true,
            enable_options_value_normalization: false,
            collect_spans: false,
            map_string_types_to_utf8view: false,
            // As GoogleSQL: NULLs first, or last under DESC.
            default_null_ordering: NullOrdering::NullsMin,
        };
        let error = |error| from_datafusion(error, &catalog_columns(catalog));
        let planner = SqlToRel::new_with_options(&tables, options);
        let plan = |query: &ast::Query| {
            planner.sql_statement_to_plan(ast::Statement::Query(Box::new(query.clone())))
        };
        let mut aliases = Vec::new();
        let logical = match plan(&query) {
            Err(DataFusionError::Plan(text)) if text.contains("unique expression names") => {
                // GoogleSQL lets columns share a name, DataFusion does not.
                aliases = dialect::alias_all(&mut query);
                plan(&query)
            }
            planned => planned,
        };
        let logical = logical.map_err(error)?;
        let columns = result_columns(&logical, names.as_deref(), &aliases, catalog);
        let plan = state.create_physical_plan(&logical).await.map_err(error)?;
        Ok(Planned { columns, plan, context: state.task_ctx() })
    }
}

impl Planned {
    /// Runs the plan; rows come as they are asked for.
    pub(crate) fn stream(self) -> Result<RowStream> {
        let stream =
            execute_stream(self.plan, self.context).map_err(|error| from_datafusion(error, &[]))?;
        let batches = AssertUnwindSafe(stream).catch_unwind().map(|batch| match batch {
            Ok(Ok(batch)) => convert::rows(&batch),
            Ok(Err(error)) => Err(from_datafusion(error, &[])),
            Err(panic) => Err(from_panic(&*panic)),
        });
        Ok(RowStream::Pages(batches.boxed()))
    }
}

fn catalog_columns(catalog: &Catalog) -> Vec<&str> {
    catalog.tables().flat_map(|table| table.columns()).map(|column| &column.name[..]).collect()
}

/// Names and types of a plan's output: as written, or as declared, or as DataFusion calls them.
fn result_columns(
    plan: &LogicalPlan,
    written: Option<&[String]>,
    aliases: &[String],
    catalog: &Catalog,
) -> Vec<ResultColumn> {
    let fields = plan.schema().fields();
    let written = written.filter(|names| names.len() == fields.len());
    let declared = |name: &str| {
        if let Some(place) = name.strip_prefix('$')
            && let Some(written) = place.parse().ok().and_then(|place: usize| aliases.get(place))
        {
            return written.clone();
        }
        let mut tables = catalog.tables();
        let found = tables.find_map(|t| t.column(name).ok().map(|place| &t.columns()[place]));
        found.map_or_else(|| name.to_owned(), |column| column.name.clone())
    };
    fields
        .iter()
        .enumerate()
        .map(|(place, field)| ResultColumn {
            name: match written {
                Some(names) => names[place].clone(),
                None => declared(field.name()),
            },
            data_type: convert::result_type(field.data_type()),
        })
        .collect()
}

/// What the planner asks about names.
struct Tables<'e> {
    engine: &'e Engine,
    state: &'e SessionState,
    catalog: &'e Catalog,
    reader: &'e Reader,
}

impl ContextProvider for Tables<'_> {
    fn get_table_source(
        &self,
        name: TableReference,
    ) -> datafusion::error::Result<Arc<dyn TableSource>> {
        let found = match &name {
            TableReference::Bare { table } => self.catalog.table(table),
            _ => Err(SqlError::unsupported("named schemas are not supported")
                .with_hint("SHOW TABLES and DESCRIBE show the schema")),
        };
        let table = found.map_err(|error| DataFusionError::External(Box::new(error)))?;
        Ok(provider_as_source(Arc::new(TableScan::new(table.clone(), self.reader.clone()))))
    }

    fn get_expr_planners(&self) -> &[Arc<dyn ExprPlanner>] {
        &self.engine.planners
    }

    fn get_type_planner(&self) -> Option<Arc<dyn TypePlanner>> {
        Some(self.engine.types.clone())
    }

    fn get_function_meta(&self, name: &str) -> Option<Arc<ScalarUDF>> {
        let own = expressions::function(name).or_else(|| casts::function(name));
        own.or_else(|| self.state.scalar_functions().get(name).cloned())
    }

    fn get_higher_order_meta(&self, name: &str) -> Option<Arc<HigherOrderUDF>> {
        self.state.higher_order_functions().get(name).cloned()
    }

    fn get_aggregate_meta(&self, name: &str) -> Option<Arc<AggregateUDF>> {
        self.state.aggregate_functions().get(name).cloned()
    }

    fn get_window_meta(&self, name: &str) -> Option<Arc<WindowUDF>> {
        self.state.window_functions().get(name).cloned()
    }

    fn get_variable_type(&self, _: &[String]) -> Option<DataType> {
        None
    }

    fn options(&self) -> &ConfigOptions {
        self.state.config_options()
    }

    fn udf_names(&self) -> Vec<String> {
        self.state.scalar_functions().keys().cloned().collect()
    }

    fn higher_order_function_names(&self) -> Vec<String> {
        self.state.higher_order_functions().keys().cloned().collect()
    }

    fn udaf_names(&self) -> Vec<String> {
        self.state.aggregate_functions().keys().cloned().collect()
    }

    fn udwf_names(&self) -> Vec<String> {
        self.state.window_functions().keys().cloned().collect()
    }
}

fn from_panic(panic: &(dyn std::any::Any + Send)) -> SqlError {
    let text = panic
        .downcast_ref::<&str>()
        .map(|text| (*text).to_owned())
        .or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_default();
    SqlError::internal(format!("the query engine failed: {text}"))
}

/// DataFusion's error in our words.
pub(crate) fn from_datafusion(error: DataFusionError, columns: &[&str]) -> SqlError {
    let root = error.find_root();
    match root {
        DataFusionError::External(inner) => match inner.downcast_ref::<SqlError>() {
            Some(own) => own.clone(),
            None => SqlError::internal(inner.to_string()),
        },
        DataFusionError::SchemaError(schema, _) => from_schema(schema, columns),
        DataFusionError::ArrowError(arrow, _) => from_arrow(arrow),
        DataFusionError::NotImplemented(text) => SqlError::unsupported(first_line(text)),
        DataFusionError::ResourcesExhausted(_) => {
            SqlError::new(ErrorKind::Limit, "the query needs more memory than one may take")
                .with_hint("sort, join or group fewer rows")
        }
        DataFusionError::Plan(text) => from_plan(text),
        DataFusionError::Execution(text) => SqlError::new(ErrorKind::OutOfRange, first_line(text)),
        DataFusionError::SQL(parser, _) => SqlError::syntax(parser.to_string()),
        DataFusionError::Collection(all) => {
            let first = all.first().map(ToString::to_string);
            SqlError::internal(first.unwrap_or_default())
        }
        other => SqlError::internal(first_line(&other.strip_backtrace())),
    }
}

fn from_plan(text: &str) -> SqlError {
    match text.strip_prefix("Invalid function '").and_then(|rest| rest.split_once('\'')) {
        Some((name, _)) => {
            SqlError::new(ErrorKind::UnknownFunction, format!("there is no function `{name}`"))
        }
        None => SqlError::type_error(first_line(text)),
    }
}

fn first_line(text: &str) -> String {
    text.lines().next().unwrap_or_default().trim_end_matches('.').to_owned()
}

fn from_schema(error: &SchemaError, columns: &[&str]) -> SqlError {
    match error {
        SchemaError::FieldNotFound { field, valid_fields } => {
            let name = field.name();
            let error =
                SqlError::new(ErrorKind::UnknownColumn, format!("there is no column `{name}`"));
            let known = valid_fields.iter().map(|column| &column.name[..]);
            match nearest(
                name,
                known.chain(columns.iter().copied().filter(|_| valid_fields.is_empty())),
            ) {
                Some(meant) => error.with_hint(format!("did you mean `{meant}`?")),
                None => error,
            }
        }
        SchemaError::AmbiguousReference { field } => SqlError::new(
            ErrorKind::UnknownColumn,
            format!("`{}` could be a column of several tables", field.name()),
        )
        .with_hint("write the table's name before it"),
        other => SqlError::new(ErrorKind::UnknownColumn, other.to_string()),
    }
}

fn from_arrow(error: &datafusion::arrow::error::ArrowError) -> SqlError {
    use datafusion::arrow::error::ArrowError as A;
    match error {
        A::DivideByZero => SqlError::new(ErrorKind::OutOfRange, "division by zero"),
        A::ArithmeticOverflow(_) => SqlError::new(ErrorKind::OutOfRange, "INT64 overflow"),
        A::CastError(text) | A::ParseError(text) => SqlError::type_error(first_line(text)),
        A::ExternalError(inner) => match inner.downcast_ref::<SqlError>() {
            Some(own) => own.clone(),
            None => SqlError::internal(inner.to_string()),
        },
        other => SqlError::type_error(first_line(&other.to_string())),
    }
}
