//! Arithmetic as GoogleSQL defines it, where DataFusion's differs: INT64 never wraps around but
//! fails, in sums too, `/` always divides FLOAT64, and a division by zero fails.

use super::casts::{NARROW, WIDEN};
use crate::error::{ErrorKind, SqlError};
use datafusion::arrow::array::{Array, AsArray, Datum};
use datafusion::arrow::compute::kernels::numeric;
use datafusion::arrow::datatypes::{DataType, Float64Type};
use datafusion::arrow::error::ArrowError;
use datafusion::common::DFSchema;
use datafusion::error::{DataFusionError, Result};
use datafusion::logical_expr::expr::AggregateFunction;
use datafusion::logical_expr::planner::{
    ExprPlanner, PlannerResult, RawAggregateExpr, RawBinaryExpr,
};
use datafusion::logical_expr::{
    ColumnarValue, Expr, ExprSchemable, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature,
    Volatility, cast,
};
use datafusion::physical_expr_common::datum::apply;
use sqlparser::ast::BinaryOperator;
use std::sync::{Arc, LazyLock};

/// Plans `+ - * /` over numbers as the functions below.
#[derive(Debug)]
pub(crate) struct GoogleOperators;

impl ExprPlanner for GoogleOperators {
    fn plan_binary_op(
        &self,
        expr: RawBinaryExpr,
        schema: &DFSchema,
    ) -> Result<PlannerResult<RawBinaryExpr>> {
        let operator = match expr.op {
            BinaryOperator::Plus => &*ADD,
            BinaryOperator::Minus => &*SUBTRACT,
            BinaryOperator::Multiply => &*MULTIPLY,
            BinaryOperator::Divide => &*DIVIDE,
            _ => return Ok(PlannerResult::Original(expr)),
        };
        let divides = expr.op == BinaryOperator::Divide;
        let (left, right) = (expr.left.get_type(schema)?, expr.right.get_type(schema)?);
        let fits = |data_type: &DataType| match divides {
            true => data_type.is_numeric(),
            false => data_type.is_integer(),
        };
        // A NULL literal takes the type of the other side.
        let either = fits(&left) || fits(&right);
        let all = [&left, &right].into_iter().all(|t| fits(t) || *t == DataType::Null);
        if !either || !all {
            return Ok(PlannerResult::Original(expr));
        }
        let wanted = if divides { DataType::Float64 } else { DataType::Int64 };
        let argument = |operand: Expr, found: DataType| match found == wanted {
            true => operand,
            false => cast(operand, wanted.clone()),
        };
        let arguments = vec![argument(expr.left, left), argument(expr.right, right)];
        Ok(PlannerResult::Planned(operator.call(arguments)))
    }

    /// `SUM` of INT64 adds up numbers of 128 bits and fails when the result is no INT64.
    fn plan_aggregate(&self, expr: RawAggregateExpr) -> Result<PlannerResult<RawAggregateExpr>> {
        if expr.func.name() != "sum" || expr.args.len() != 1 {
            return Ok(PlannerResult::Original(expr));
        }
        let wide = expr.args.into_iter().map(|argument| WIDEN.call(vec![argument])).collect();
        let sum = AggregateFunction::new_udf(
            expr.func,
            wide,
            expr.distinct,
            expr.filter,
            expr.order_by,
            expr.null_treatment,
        );
        Ok(PlannerResult::Planned(NARROW.call(vec![Expr::AggregateFunction(sum)])))
    }
}

/// Functions of GoogleSQL that need one of our operators.
pub(crate) fn function(name: &str) -> Option<Arc<ScalarUDF>> {
    match name {
        "safe_divide" => Some(SAFE_DIVIDE.clone()),
        "div" => Some(INTEGER_DIVIDE.clone()),
        _ => None,
    }
}

static ADD: LazyLock<ScalarUDF> = LazyLock::new(|| Arithmetic::function("+", Kind::Add));
static SUBTRACT: LazyLock<ScalarUDF> = LazyLock::new(|| Arithmetic::function("-", Kind::Subtract));
static MULTIPLY: LazyLock<ScalarUDF> = LazyLock::new(|| Arithmetic::function("*", Kind::Multiply));
static DIVIDE: LazyLock<ScalarUDF> = LazyLock::new(|| Arithmetic::function("/", Kind::Divide));
static SAFE_DIVIDE: LazyLock<Arc<ScalarUDF>> =
    LazyLock::new(|| Arc::new(Arithmetic::function("safe_divide", Kind::SafeDivide)));
static INTEGER_DIVIDE: LazyLock<Arc<ScalarUDF>> =
    LazyLock::new(|| Arc::new(Arithmetic::function("div", Kind::IntegerDivide)));

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Kind {
    Add,
    Subtract,
    Multiply,
    Divide,
    SafeDivide,
    IntegerDivide,
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Arithmetic {
    name: &'static str,
    kind: Kind,
    result: DataType,
    signature: Signature,
}

impl Arithmetic {
    fn function(name: &'static str, kind: Kind) -> ScalarUDF {
        let result = match kind {
            Kind::Divide | Kind::SafeDivide => DataType::Float64,
            _ => DataType::Int64,
        };
        let signature =
            Signature::exact(vec![result.clone(), result.clone()], Volatility::Immutable);
        ScalarUDF::new_from_impl(Arithmetic { name, kind, result, signature })
    }
}

impl ScalarUDFImpl for Arithmetic {
    fn name(&self) -> &str {
        self.name
    }

    fn display_name(&self, args: &[Expr]) -> Result<String> {
        match (self.kind, args) {
            (Kind::SafeDivide | Kind::IntegerDivide, [left, right]) => {
                Ok(format!("{}({left}, {right})", self.name))
            }
            (_, [left, right]) => Ok(format!("({left} {} {right})", self.name)),
            _ => Ok(self.name.to_owned()),
        }
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(self.result.clone())
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let [left, right] = &args.args[..] else {
            return Err(DataFusionError::Internal("two arguments were planned".into()));
        };
        match self.kind {
            Kind::Add => apply(left, right, numeric::add),
            Kind::Subtract => apply(left, right, numeric::sub),
            Kind::Multiply => apply(left, right, numeric::mul),
            Kind::IntegerDivide => apply(left, right, numeric::div),
            Kind::Divide => apply(left, right, divide),
            Kind::SafeDivide => apply(left, right, safe_divide),
        }
    }
}

/// Which divisors are zero.
fn zeros(divisor: &dyn Array) -> impl Iterator<Item = bool> {
    divisor.as_primitive::<Float64Type>().iter().map(|value| value == Some(0.0))
}

type Divided = std::result::Result<Arc<dyn Array>, ArrowError>;

fn divide(left: &dyn Datum, right: &dyn Datum) -> Divided {
    let (dividend, _) = left.get();
    let (divisor, is_scalar) = right.get();
    let all_null = dividend.null_count() == dividend.len();
    let wrong = match is_scalar {
        true => !all_null && zeros(divisor).any(|zero| zero),
        false => zeros(divisor).enumerate().any(|(row, zero)| {
            zero && dividend.is_valid(if dividend.len() == 1 { 0 } else { row })
        }),
    };
    if wrong {
        let error = SqlError::new(ErrorKind::OutOfRange, "division by zero");
        return Err(ArrowError::ExternalError(Box::new(error)));
    }
    numeric::div(left, right)
}

/// NULL instead of a division by zero.
fn safe_divide(left: &dyn Datum, right: &dyn Datum) -> Divided {
    let (divisor, is_scalar) = right.get();
    let divisor: datafusion::arrow::array::Float64Array = divisor
        .as_primitive::<Float64Type>()
        .iter()
        .map(|value| value.filter(|value| *value != 0.0))
        .collect();
    match is_scalar {
        true => numeric::div(left, &datafusion::arrow::array::Scalar::new(divisor)),
        false => numeric::div(left, &divisor),
    }
}
