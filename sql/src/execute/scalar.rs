//! The small expressions of the fast path: literals, parameters, columns, `+ - * /`.
//!
//! What is not one of these is left to DataFusion, which gives the same results.

use super::Params;
use crate::catalog::Table;
use crate::error::{ErrorKind, Result, SqlError};
use crate::value::{Type, Value, kind_name, unescape_bytes};
use sqlparser::ast::{BinaryOperator, DataType, Expr, UnaryOperator, Value as Literal};

/// An expression over one row.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Scalar {
    Literal(Value),
    /// A parameter by its name, lower case, without the `@`.
    Param(String),
    /// A column by its place in the table.
    Column(usize),
    Negate(Box<Scalar>),
    Binary(Operation, Box<Scalar>, Box<Scalar>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Operation {
    Add,
    Subtract,
    Multiply,
    Divide,
}

impl Scalar {
    /// An expression over a row of the table, called `alias`. `None`: not one of ours.
    pub(crate) fn over(expr: &Expr, table: &Table, alias: Option<&str>) -> Option<Scalar> {
        compile(expr, Some((table, alias)))
    }

    /// An expression without columns. `None`: not one of ours.
    pub(crate) fn constant(expr: &Expr) -> Option<Scalar> {
        compile(expr, None)
    }

    /// Its value for a row.
    pub(crate) fn value(&self, row: &[Value], params: &Params) -> Result<Value> {
        match self {
            Scalar::Literal(value) => Ok(value.clone()),
            Scalar::Param(name) => param(name, params).cloned(),
            Scalar::Column(place) => Ok(row[*place].clone()),
            Scalar::Negate(operand) => match operand.value(row, params)? {
                Value::Null => Ok(Value::Null),
                Value::Int64(int) => int.checked_neg().map(Value::Int64).ok_or_else(overflow),
                Value::Float64(float) => Ok(Value::Float64(-float)),
                other => Err(mismatch("negate", &other, &other)),
            },
            Scalar::Binary(operation, left, right) => {
                operation.apply(left.value(row, params)?, right.value(row, params)?)
            }
        }
    }
}

/// The value of a parameter.
pub(crate) fn param<'p>(name: &str, params: &'p Params) -> Result<&'p Value> {
    params.get(name).ok_or_else(|| {
        SqlError::new(ErrorKind::Parameter, format!("the parameter @{name} has no value"))
    })
}

fn overflow() -> SqlError {
    SqlError::new(ErrorKind::OutOfRange, "INT64 overflow")
}

fn mismatch(verb: &str, left: &Value, right: &Value) -> SqlError {
    let name = |value: &Value| value.type_of().map_or("NULL".into(), |t| kind_name(&t));
    SqlError::type_error(format!("cannot {verb} {} and {}", name(left), name(right)))
}

impl Operation {
    fn of(operator: &BinaryOperator) -> Option<Operation> {
        Some(match operator {
            BinaryOperator::Plus => Operation::Add,
            BinaryOperator::Minus => Operation::Subtract,
            BinaryOperator::Multiply => Operation::Multiply,
            BinaryOperator::Divide => Operation::Divide,
            _ => return None,
        })
    }

    fn apply(self, left: Value, right: Value) -> Result<Value> {
        if left.is_null() || right.is_null() {
            return Ok(Value::Null);
        }
        if let (Value::Int64(a), Value::Int64(b)) = (&left, &right)
            && self != Operation::Divide
        {
            let result = match self {
                Operation::Add => a.checked_add(*b),
                Operation::Subtract => a.checked_sub(*b),
                Operation::Multiply | Operation::Divide => a.checked_mul(*b),
            };
            return result.map(Value::Int64).ok_or_else(overflow);
        }
        let float = |value: &Value| match value {
            Value::Int64(int) => Some(*int as f64),
            Value::Float64(float) => Some(*float),
            _ => None,
        };
        let (Some(a), Some(b)) = (float(&left), float(&right)) else {
            let verb = match self {
                Operation::Add => "add",
                Operation::Subtract => "subtract",
                Operation::Multiply => "multiply",
                Operation::Divide => "divide",
            };
            return Err(mismatch(verb, &left, &right));
        };
        Ok(Value::Float64(match self {
            Operation::Add => a + b,
            Operation::Subtract => a - b,
            Operation::Multiply => a * b,
            Operation::Divide if b == 0.0 => {
                return Err(SqlError::new(ErrorKind::OutOfRange, "division by zero"));
            }
            Operation::Divide => a / b,
        }))
    }
}

fn compile(expr: &Expr, over: Option<(&Table, Option<&str>)>) -> Option<Scalar> {
    match expr {
        Expr::Nested(inner) => compile(inner, over),
        Expr::Value(literal) => match &literal.value {
            Literal::Placeholder(name) => Some(Scalar::Param(param_name(name)?)),
            literal => literal_value(literal).map(Scalar::Literal),
        },
        Expr::TypedString(typed) => {
            let Literal::SingleQuotedString(text) = &typed.value.value else { return None };
            let wanted = match typed.data_type {
                DataType::Date => Type::Date,
                DataType::Timestamp(..) => Type::Timestamp,
                _ => return None,
            };
            Value::parse(text, &wanted).ok().map(Scalar::Literal)
        }
        Expr::Identifier(_) | Expr::CompoundIdentifier(_) => {
            let (table, alias) = over?;
            column(expr, table, alias).map(Scalar::Column)
        }
        Expr::UnaryOp { op: UnaryOperator::Plus, expr } => compile(expr, over),
        Expr::UnaryOp { op: UnaryOperator::Minus, expr } => {
            // The smallest INT64 has no positive twin.
            if let Expr::Value(literal) = &**expr
                && let Literal::Number(digits, _) = &literal.value
                && let Ok(int) = format!("-{digits}").parse()
            {
                return Some(Scalar::Literal(Value::Int64(int)));
            }
            Some(Scalar::Negate(Box::new(compile(expr, over)?)))
        }
        Expr::BinaryOp { left, op, right } => Some(Scalar::Binary(
            Operation::of(op)?,
            Box::new(compile(left, over)?),
            Box::new(compile(right, over)?),
        )),
        _ => None,
    }
}

/// The place of the column that an expression names. `None`: it is none, or of another table.
pub(crate) fn column(expr: &Expr, table: &Table, alias: Option<&str>) -> Option<usize> {
    let name = match expr {
        Expr::Identifier(name) => name,
        Expr::CompoundIdentifier(names) => {
            let [qualifier, name] = &names[..] else { return None };
            if !qualifier.value.eq_ignore_ascii_case(alias.unwrap_or(table.name())) {
                return None;
            }
            name
        }
        Expr::Nested(inner) => return column(inner, table, alias),
        _ => return None,
    };
    table.column(&name.value).ok()
}

/// The name of a parameter as [`Params`] spell it.
pub(crate) fn param_name(placeholder: &str) -> Option<String> {
    placeholder.strip_prefix('@').map(str::to_lowercase)
}

fn literal_value(literal: &Literal) -> Option<Value> {
    Some(match literal {
        Literal::Number(digits, _) => match digits.parse() {
            Ok(int) => Value::Int64(int),
            Err(_) => Value::Float64(digits.parse().ok().filter(|_| !is_integer(digits))?),
        },
        Literal::SingleQuotedString(text) => Value::String(text.clone()),
        Literal::HexStringLiteral(hex) => Value::Bytes(hex_bytes(hex)?),
        Literal::Boolean(value) => Value::Bool(*value),
        Literal::Null => Value::Null,
        _ => return None,
    })
}

fn is_integer(digits: &str) -> bool {
    digits.bytes().all(|byte| byte.is_ascii_digit())
}

fn hex_bytes(hex: &str) -> Option<Vec<u8>> {
    let escaped: String = hex
        .as_bytes()
        .chunks(2)
        .map(|pair| format!("\\x{}", String::from_utf8_lossy(pair)))
        .collect();
    unescape_bytes(&escaped)
}
