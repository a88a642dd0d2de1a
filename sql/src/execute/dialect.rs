//! GoogleSQL's spellings put into those of DataFusion: parameters become literals, functions get
//! their names there, types their Arrow types.

use super::Params;
use super::casts;
use super::scalar::{param, param_name};
use crate::error::{Result, SqlError};
use crate::scan::convert::arrow_type;
use crate::value::{Type, Value};
use datafusion::arrow::datatypes::{DataType as ArrowType, Field, FieldRef};
use datafusion::logical_expr::planner::TypePlanner;
use sqlparser::ast::helpers::attached_token::AttachedToken;
use sqlparser::ast::{
    BinaryOperator, CaseWhen, CastKind, DataType, DateTimeField, Expr, ExtractSyntax, Function,
    FunctionArg, FunctionArgExpr, FunctionArgumentList, FunctionArguments, Ident, ObjectName,
    ObjectNamePart, Query, SelectItem, SetExpr, TableFactor, TimezoneInfo, TypedString,
    Value as Literal, VisitMut, VisitorMut,
};
use std::ops::ControlFlow;
use std::sync::Arc;

/// The Arrow types of `CAST(x AS INT64)`, `TIMESTAMP '…'` and the like.
#[derive(Debug)]
pub(crate) struct GoogleTypes;

impl TypePlanner for GoogleTypes {
    fn plan_type_field(&self, sql_type: &DataType) -> datafusion::error::Result<Option<FieldRef>> {
        let data_type = match sql_type {
            DataType::Bool | DataType::Boolean => Type::Bool,
            DataType::Int64 => Type::Int64,
            DataType::Float64 => Type::Float64,
            DataType::String(_) => Type::String(None),
            DataType::Bytes(_) => Type::Bytes(None),
            DataType::Date => Type::Date,
            DataType::Timestamp(None, _) => Type::Timestamp,
            // Between DATE and INT64, for DATE_DIFF; no table has it.
            DataType::Int32 => {
                return Ok(Some(Arc::new(Field::new("", ArrowType::Int32, true))));
            }
            _ => return Ok(None),
        };
        Ok(Some(Arc::new(Field::new("", arrow_type(&data_type), true))))
    }
}

/// The names of a query's columns as written: aliases, names, expressions. `None`: there is a
/// star, so only the plan knows.
pub(crate) fn output_names(query: &Query) -> Option<Vec<String>> {
    let mut body = &*query.body;
    while let SetExpr::SetOperation { left, .. } = body {
        body = left;
    }
    let select = match body {
        SetExpr::Select(select) => select,
        SetExpr::Query(inner) => return output_names(inner),
        _ => return None,
    };
    select.projection.iter().map(item_name).collect()
}

fn item_name(item: &SelectItem) -> Option<String> {
    match item {
        SelectItem::ExprWithAlias { alias, .. } => Some(alias.value.clone()),
        SelectItem::UnnamedExpr(Expr::Identifier(name)) => Some(name.value.clone()),
        SelectItem::UnnamedExpr(Expr::CompoundIdentifier(names)) => {
            names.last().map(|name| name.value.clone())
        }
        SelectItem::UnnamedExpr(expr) => Some(expr.to_string()),
        _ => None,
    }
}

/// Gives every column of the outermost `SELECT` that has no alias one of its own, `$0`, `$1` …;
/// the answer is what each would be called.
pub(crate) fn alias_all(query: &mut Query) -> Vec<String> {
    let SetExpr::Select(select) = &mut *query.body else { return Vec::new() };
    let names = select.projection.iter().map(|item| item_name(item).unwrap_or_default()).collect();
    for (place, item) in select.projection.iter_mut().enumerate() {
        if let SelectItem::UnnamedExpr(expr) = item {
            let alias = Ident::with_quote('`', format!("${place}"));
            *item = SelectItem::ExprWithAlias { expr: expr.clone(), alias };
        }
    }
    names
}

/// Rewrites a query for DataFusion.
pub(crate) fn rewrite(query: &mut Query, params: &Params) -> Result<()> {
    match query.visit(&mut Rewriter { params }) {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(error) => Err(error),
    }
}

struct Rewriter<'p> {
    params: &'p Params,
}

impl VisitorMut for Rewriter<'_> {
    type Break = SqlError;

    fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<SqlError> {
        match rewrite_expr(expr, self.params) {
            Ok(()) => ControlFlow::Continue(()),
            Err(error) => ControlFlow::Break(error),
        }
    }

    /// Refuses what would otherwise be passed over in silence.
    fn pre_visit_query(&mut self, query: &mut Query) -> ControlFlow<SqlError> {
        if query.locks.is_empty() {
            return ControlFlow::Continue(());
        }
        ControlFlow::Break(
            SqlError::unsupported("FOR UPDATE is not supported")
                .with_hint("reads inside a read-write transaction are locked already"),
        )
    }

    fn pre_visit_table_factor(&mut self, table: &mut TableFactor) -> ControlFlow<SqlError> {
        match table {
            TableFactor::Table { version: Some(_), .. } => ControlFlow::Break(
                SqlError::unsupported("FOR SYSTEM_TIME is not supported")
                    .with_hint("SET READ_ONLY_STALENESS = 'READ_TIMESTAMP …' reads the past"),
            ),
            TableFactor::Table { sample: Some(_), .. } => {
                ControlFlow::Break(SqlError::unsupported("TABLESAMPLE is not supported"))
            }
            _ => ControlFlow::Continue(()),
        }
    }
}

fn rewrite_expr(expr: &mut Expr, params: &Params) -> Result<()> {
    match expr {
        Expr::Value(literal) => {
            if let Literal::Placeholder(name) = &literal.value {
                let name = param_name(name).ok_or_else(|| {
                    SqlError::unsupported(format!("`{name}` is no parameter; write @name"))
                })?;
                *expr = literal_of(param(&name, params)?);
            }
        }
        Expr::Function(function) => {
            if let Some(rewritten) = rewrite_function(function)? {
                *expr = rewritten;
            }
        }
        Expr::Cast { kind: CastKind::Cast, expr: of, data_type, format: None, .. } => {
            let function = match data_type {
                DataType::Int64 => casts::TO_INT64,
                DataType::String(None) => casts::TO_STRING,
                _ => return Ok(()),
            };
            *expr = call(function, vec![(**of).clone()]);
        }
        Expr::Extract { field, expr: of, .. } => match field {
            DateTimeField::Date => *expr = cast((**of).clone(), DataType::Date),
            DateTimeField::DayOfYear => *field = DateTimeField::Doy,
            DateTimeField::DayOfWeek => {
                let dow = Expr::Extract {
                    field: DateTimeField::Dow,
                    syntax: ExtractSyntax::From,
                    expr: of.clone(),
                };
                // GoogleSQL counts from 1, Sunday.
                *expr = binary(dow, BinaryOperator::Plus, number("1"));
            }
            _ => {}
        },
        _ => {}
    }
    Ok(())
}

/// A value as an expression that DataFusion folds into the same value.
pub(crate) fn literal_of(value: &Value) -> Expr {
    match value {
        Value::Null => plain(Literal::Null),
        Value::Bool(value) => plain(Literal::Boolean(*value)),
        Value::Int64(int) if *int < 0 => {
            // The smallest INT64 has no positive twin to negate.
            cast(text(&int.to_string()), DataType::Int64)
        }
        Value::Int64(int) => number(&int.to_string()),
        Value::Float64(float) => cast(text(&float.to_string()), DataType::Float64),
        Value::String(string) => text(string),
        Value::Bytes(bytes) => {
            plain(Literal::HexStringLiteral(bytes.iter().map(|b| format!("{b:02x}")).collect()))
        }
        Value::Date(_) => typed(DataType::Date, value),
        Value::Timestamp(_) => typed(DataType::Timestamp(None, TimezoneInfo::None), value),
    }
}

fn typed(data_type: DataType, value: &Value) -> Expr {
    let value = Literal::SingleQuotedString(value.to_string()).into();
    Expr::TypedString(TypedString { data_type, value, uses_odbc_syntax: false })
}

fn plain(literal: Literal) -> Expr {
    Expr::Value(literal.into())
}

fn number(digits: &str) -> Expr {
    plain(Literal::Number(digits.to_owned(), false))
}

fn text(value: &str) -> Expr {
    plain(Literal::SingleQuotedString(value.to_owned()))
}

fn cast(expr: Expr, data_type: DataType) -> Expr {
    let expr = Box::new(expr);
    Expr::Cast { kind: CastKind::Cast, expr, data_type, array: false, format: None }
}

fn binary(left: Expr, op: BinaryOperator, right: Expr) -> Expr {
    Expr::Nested(Box::new(Expr::BinaryOp { left: Box::new(left), op, right: Box::new(right) }))
}

/// `CASE WHEN condition THEN then ELSE otherwise END`.
fn case(condition: Expr, then: Expr, otherwise: Option<Expr>) -> Expr {
    Expr::Case {
        case_token: AttachedToken::empty(),
        end_token: AttachedToken::empty(),
        operand: None,
        conditions: vec![CaseWhen { condition, result: then }],
        else_result: otherwise.map(Box::new),
    }
}

/// The same call under another name.
fn renamed(function: &Function, name: &str, arguments: Vec<Expr>) -> Expr {
    let args = arguments.into_iter().map(|a| FunctionArg::Unnamed(FunctionArgExpr::Expr(a)));
    let old = match &function.args {
        FunctionArguments::List(list) => list.clone(),
        _ => FunctionArgumentList { duplicate_treatment: None, args: vec![], clauses: vec![] },
    };
    Expr::Function(Function {
        name: ObjectName(vec![ObjectNamePart::Identifier(Ident::new(name))]),
        args: FunctionArguments::List(FunctionArgumentList { args: args.collect(), ..old }),
        ..function.clone()
    })
}

/// The arguments, when all are plain expressions.
fn arguments(function: &Function) -> Option<Vec<Expr>> {
    match &function.args {
        FunctionArguments::None => Some(Vec::new()),
        FunctionArguments::List(list) => list
            .args
            .iter()
            .map(|argument| match argument {
                FunctionArg::Unnamed(FunctionArgExpr::Expr(expr)) => Some(expr.clone()),
                _ => None,
            })
            .collect(),
        FunctionArguments::Subquery(_) => None,
    }
}

/// `None`: DataFusion knows the function by this name.
fn rewrite_function(function: &Function) -> Result<Option<Expr>> {
    let [ObjectNamePart::Identifier(name)] = &function.name.0[..] else { return Ok(None) };
    let name = name.value.to_uppercase();
    let Some(args) = arguments(function) else { return Ok(None) };
    let rename = |to: &str| Some(renamed(function, to, args.clone()));
    Ok(match (&name[..], &args[..]) {
        ("IF", [condition, then, otherwise]) => {
            Some(case(condition.clone(), then.clone(), Some(otherwise.clone())))
        }
        ("COUNTIF", [condition]) => {
            Some(renamed(function, "count", vec![case(condition.clone(), number("1"), None)]))
        }
        ("MOD", [left, right]) => Some(binary(left.clone(), BinaryOperator::Modulo, right.clone())),
        ("DATE", [of]) => Some(cast(of.clone(), DataType::Date)),
        ("TIMESTAMP", [of]) => {
            Some(cast(of.clone(), DataType::Timestamp(None, TimezoneInfo::None)))
        }
        ("STRING", [of]) => Some(cast(of.clone(), DataType::String(None))),
        ("CURRENT_TIMESTAMP", []) => {
            let now = renamed(function, "now", vec![]);
            Some(cast(now, DataType::Timestamp(None, TimezoneInfo::None)))
        }
        ("TIMESTAMP_TRUNC" | "DATE_TRUNC", [of, Expr::Identifier(unit)]) => {
            let unit = text(&unit.value.to_lowercase());
            let truncated = renamed(function, "date_trunc", vec![unit, of.clone()]);
            Some(match &name[..] {
                "DATE_TRUNC" => cast(truncated, DataType::Date),
                _ => truncated,
            })
        }
        ("TIMESTAMP_ADD" | "DATE_ADD", [of, interval @ Expr::Interval(_)]) => {
            let sum = binary(of.clone(), BinaryOperator::Plus, interval.clone());
            Some(if name == "DATE_ADD" { cast(sum, DataType::Date) } else { sum })
        }
        ("TIMESTAMP_SUB" | "DATE_SUB", [of, interval @ Expr::Interval(_)]) => {
            let difference = binary(of.clone(), BinaryOperator::Minus, interval.clone());
            Some(if name == "DATE_SUB" { cast(difference, DataType::Date) } else { difference })
        }
        ("DATE_DIFF", [left, right, Expr::Identifier(unit)])
            if unit.value.eq_ignore_ascii_case("DAY") =>
        {
            let days = |expr: &Expr| {
                let days = cast(cast(expr.clone(), DataType::Date), DataType::Int32);
                cast(days, DataType::Int64)
            };
            Some(binary(days(left), BinaryOperator::Minus, days(right)))
        }
        ("SIGN", _) => rename("signum"),
        ("TIMESTAMP_DIFF", [left, right, Expr::Identifier(unit)]) => {
            timestamp_diff(left, right, unit)
        }
        ("FORMAT_TIMESTAMP" | "FORMAT_DATE", [format, of]) => {
            Some(renamed(function, "to_char", vec![of.clone(), format.clone()]))
        }
        ("REGEXP_CONTAINS", _) => rename("regexp_like"),
        ("REGEXP_REPLACE", [of, pattern, by]) => {
            let all = vec![of.clone(), pattern.clone(), by.clone(), text("g")];
            Some(renamed(function, "regexp_replace", all))
        }
        ("IFNULL", _) => rename("coalesce"),
        ("ANY_VALUE", _) => rename("first_value"),
        ("LOGICAL_AND", _) => rename("bool_and"),
        ("LOGICAL_OR", _) => rename("bool_or"),
        ("APPROX_COUNT_DISTINCT", _) => rename("approx_distinct"),
        ("BYTE_LENGTH", _) => rename("octet_length"),
        ("GENERATE_UUID", []) => rename("uuid"),
        ("PENDING_COMMIT_TIMESTAMP", _) => {
            return Err(SqlError::unsupported("PENDING_COMMIT_TIMESTAMP() is not supported"));
        }
        _ => None,
    })
}

/// Whole units between two timestamps.
fn timestamp_diff(left: &Expr, right: &Expr, unit: &Ident) -> Option<Expr> {
    let micros = match &unit.value.to_uppercase()[..] {
        "MICROSECOND" => "1",
        "MILLISECOND" => "1000",
        "SECOND" => "1000000",
        "MINUTE" => "60000000",
        "HOUR" => "3600000000",
        "DAY" => "86400000000",
        _ => return None,
    };
    let as_int = |expr: &Expr| cast(expr.clone(), DataType::Int64);
    let difference = binary(as_int(left), BinaryOperator::Minus, as_int(right));
    Some(call("div", vec![difference, number(micros)]))
}

/// A call of a function.
fn call(name: &str, arguments: Vec<Expr>) -> Expr {
    let args = arguments.into_iter().map(|a| FunctionArg::Unnamed(FunctionArgExpr::Expr(a)));
    let list =
        FunctionArgumentList { duplicate_treatment: None, args: args.collect(), clauses: vec![] };
    Expr::Function(Function {
        name: ObjectName(vec![ObjectNamePart::Identifier(Ident::new(name))]),
        uses_odbc_syntax: false,
        parameters: FunctionArguments::None,
        args: FunctionArguments::List(list),
        filter: None,
        null_treatment: None,
        over: None,
        within_group: vec![],
    })
}
