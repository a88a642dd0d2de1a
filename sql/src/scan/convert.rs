//! Between our values and Arrow's.

use crate::error::{Result, SqlError};
use crate::value::{Row, Type, Value};
use datafusion::arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use datafusion::arrow::compute::cast;
use datafusion::arrow::datatypes::{
    DataType, Date32Type, Float64Type, Int64Type, TimeUnit, TimestampMicrosecondType,
};
use datafusion::common::ScalarValue;
use std::sync::Arc;

/// The Arrow type of a column.
pub fn arrow_type(data_type: &Type) -> DataType {
    match data_type {
        Type::Bool => DataType::Boolean,
        Type::Int64 => DataType::Int64,
        Type::Float64 => DataType::Float64,
        Type::String(_) => DataType::Utf8,
        Type::Bytes(_) => DataType::Binary,
        Type::Date => DataType::Date32,
        Type::Timestamp => DataType::Timestamp(TimeUnit::Microsecond, Some(Arc::from("UTC"))),
    }
}

/// The type that a result of an Arrow type is shown as. What has no type of ours is a text.
pub fn result_type(data_type: &DataType) -> Type {
    match data_type {
        DataType::Boolean => Type::Bool,
        DataType::Int8
        | DataType::Int16
        | DataType::Int32
        | DataType::Int64
        | DataType::UInt8
        | DataType::UInt16
        | DataType::UInt32
        | DataType::UInt64
        | DataType::Null => Type::Int64,
        DataType::Float16
        | DataType::Float32
        | DataType::Float64
        | DataType::Decimal32(_, _)
        | DataType::Decimal64(_, _)
        | DataType::Decimal128(_, _)
        | DataType::Decimal256(_, _) => Type::Float64,
        DataType::Binary
        | DataType::LargeBinary
        | DataType::BinaryView
        | DataType::FixedSizeBinary(_) => Type::Bytes(None),
        DataType::Date32 | DataType::Date64 => Type::Date,
        DataType::Timestamp(_, _) => Type::Timestamp,
        DataType::Dictionary(_, value) => result_type(value),
        _ => Type::String(None),
    }
}

/// The rows of a batch.
///
/// # Errors
/// `OutOfRange` for a number that no type of ours holds.
pub fn rows(batch: &RecordBatch) -> Result<Vec<Row>> {
    let mut rows = vec![Vec::with_capacity(batch.num_columns()); batch.num_rows()];
    for column in batch.columns() {
        append(column, &mut rows)?;
    }
    Ok(rows)
}

/// Appends one column to the rows.
fn append(column: &ArrayRef, rows: &mut [Row]) -> Result<()> {
    let wanted = result_type(column.data_type());
    let column = to_own_type(column, &arrow_type(&wanted))?;
    macro_rules! each {
        ($array:expr, $place:ident, $value:expr) => {{
            let array = $array;
            for ($place, row) in rows.iter_mut().enumerate() {
                row.push(if array.is_null($place) { Value::Null } else { $value(&array, $place) });
            }
        }};
    }
    macro_rules! primitive {
        ($arrow:ty, $variant:ident) => {
            each!(column.as_primitive::<$arrow>(), place, |array: &&_, at| {
                let array: &datafusion::arrow::array::PrimitiveArray<$arrow> = array;
                Value::$variant(array.value(at))
            })
        };
    }
    match wanted {
        Type::Bool => {
            each!(column.as_boolean(), place, |array: &&datafusion::arrow::array::BooleanArray,
                                               at| {
                Value::Bool(array.value(at))
            })
        }
        Type::Int64 => primitive!(Int64Type, Int64),
        Type::Float64 => primitive!(Float64Type, Float64),
        Type::Date => primitive!(Date32Type, Date),
        Type::Timestamp => primitive!(TimestampMicrosecondType, Timestamp),
        Type::String(_) => each!(
            column.as_string::<i32>(),
            place,
            |array: &&datafusion::arrow::array::StringArray, at| Value::String(
                array.value(at).to_owned()
            )
        ),
        Type::Bytes(_) => each!(
            column.as_binary::<i32>(),
            place,
            |array: &&datafusion::arrow::array::BinaryArray, at| Value::Bytes(
                array.value(at).to_vec()
            )
        ),
    }
    Ok(())
}

fn to_own_type(column: &ArrayRef, wanted: &DataType) -> Result<ArrayRef> {
    if column.data_type() == wanted {
        return Ok(column.clone());
    }
    let converted = cast(column, wanted).map_err(|error| {
        SqlError::type_error(format!(
            "a result of type {} cannot be shown: {error}",
            column.data_type()
        ))
    })?;
    // `cast` turns what does not fit into NULL; only a number above INT64 can do that here.
    if converted.null_count() > column.logical_null_count() {
        return Err(SqlError::new(
            crate::ErrorKind::OutOfRange,
            "a number of the result is out of the range of INT64",
        ));
    }
    Ok(converted)
}

/// A value of ours, when the scalar is one. NULL is not.
pub fn scalar(literal: &ScalarValue) -> Option<Value> {
    Some(match literal {
        ScalarValue::Boolean(Some(value)) => Value::Bool(*value),
        ScalarValue::Int64(Some(value)) => Value::Int64(*value),
        ScalarValue::Float64(Some(value)) => Value::Float64(*value),
        ScalarValue::Utf8(Some(text))
        | ScalarValue::LargeUtf8(Some(text))
        | ScalarValue::Utf8View(Some(text)) => Value::String(text.clone()),
        ScalarValue::Binary(Some(bytes))
        | ScalarValue::LargeBinary(Some(bytes))
        | ScalarValue::BinaryView(Some(bytes)) => Value::Bytes(bytes.clone()),
        ScalarValue::Date32(Some(days)) => Value::Date(*days),
        ScalarValue::TimestampMicrosecond(Some(micros), _) => Value::Timestamp(*micros),
        _ => return None,
    })
}
