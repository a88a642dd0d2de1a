//! `CAST` as GoogleSQL defines it, where DataFusion's differs: FLOAT64 to INT64 rounds (halves
//! away from zero) and fails out of range; numbers and times become the texts GoogleSQL writes.

use crate::error::{ErrorKind, SqlError};
use crate::value::Value;
use datafusion::arrow::array::{Array, ArrayRef, AsArray, Int64Array, StringArray};
use datafusion::arrow::compute::cast;
use datafusion::arrow::datatypes::{DataType, Float64Type, TimeUnit, TimestampMicrosecondType};
use datafusion::error::{DataFusionError, Result};
use datafusion::logical_expr::{
    ColumnarValue, Expr, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};
use std::sync::{Arc, LazyLock};

/// The function behind `CAST(x AS INT64)`.
pub(crate) const TO_INT64: &str = "$to_int64";
/// The function behind `CAST(x AS STRING)`.
pub(crate) const TO_STRING: &str = "$to_string";

/// One of the functions above.
pub(crate) fn function(name: &str) -> Option<Arc<ScalarUDF>> {
    match name {
        TO_INT64 => Some(INT64.clone()),
        TO_STRING => Some(STRING.clone()),
        _ => None,
    }
}

static INT64: LazyLock<Arc<ScalarUDF>> = LazyLock::new(|| GoogleCast::to(DataType::Int64));
static STRING: LazyLock<Arc<ScalarUDF>> = LazyLock::new(|| GoogleCast::to(DataType::Utf8));

#[derive(Debug, PartialEq, Eq, Hash)]
struct GoogleCast {
    to: DataType,
    signature: Signature,
}

impl GoogleCast {
    fn to(to: DataType) -> Arc<ScalarUDF> {
        let signature = Signature::any(1, Volatility::Immutable);
        Arc::new(ScalarUDF::new_from_impl(GoogleCast { to, signature }))
    }
}

impl ScalarUDFImpl for GoogleCast {
    fn name(&self) -> &str {
        if self.to == DataType::Int64 { TO_INT64 } else { TO_STRING }
    }

    fn display_name(&self, args: &[Expr]) -> Result<String> {
        let to = if self.to == DataType::Int64 { "INT64" } else { "STRING" };
        let of: Vec<String> = args.iter().map(ToString::to_string).collect();
        Ok(format!("CAST({} AS {to})", of.join(", ")))
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(self.to.clone())
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let [argument] = &args.args[..] else {
            return Err(DataFusionError::Internal("one argument was planned".into()));
        };
        let is_scalar = matches!(argument, ColumnarValue::Scalar(_));
        let array = argument.to_array(if is_scalar { 1 } else { args.number_rows })?;
        let converted = match (&self.to, array.data_type()) {
            (DataType::Int64, DataType::Float32 | DataType::Float64) => rounded(&array)?,
            (DataType::Utf8, DataType::Float32 | DataType::Float64) => float_text(&array)?,
            (DataType::Utf8, DataType::Timestamp(_, _)) => time_text(&array)?,
            (to, _) => strict_cast(&array, to)?,
        };
        if is_scalar {
            let scalar = datafusion::common::ScalarValue::try_from_array(&converted, 0)?;
            return Ok(ColumnarValue::Scalar(scalar));
        }
        Ok(ColumnarValue::Array(converted))
    }
}

/// What cannot be converted is an error, not a NULL.
fn strict_cast(array: &ArrayRef, to: &DataType) -> Result<ArrayRef> {
    let options = datafusion::arrow::compute::CastOptions { safe: false, ..Default::default() };
    Ok(datafusion::arrow::compute::cast_with_options(array, to, &options)?)
}

fn rounded(array: &ArrayRef) -> Result<ArrayRef> {
    let floats = cast(array, &DataType::Float64)?;
    let round = |float: f64| {
        let rounded = float.round();
        // 2^63 is a FLOAT64, and the first that no INT64 equals.
        let fits = (-9_223_372_036_854_775_808.0..9_223_372_036_854_775_808.0).contains(&rounded);
        fits.then_some(rounded as i64).ok_or_else(|| {
            let message = format!("{} is out of the range of INT64", Value::Float64(float));
            DataFusionError::External(Box::new(SqlError::new(ErrorKind::OutOfRange, message)))
        })
    };
    let ints: Int64Array = floats
        .as_primitive::<Float64Type>()
        .iter()
        .map(|float| float.map(round).transpose())
        .collect::<Result<_>>()?;
    Ok(Arc::new(ints))
}

fn float_text(array: &ArrayRef) -> Result<ArrayRef> {
    let floats = cast(array, &DataType::Float64)?;
    let texts: StringArray = floats
        .as_primitive::<Float64Type>()
        .iter()
        .map(|float| float.map(|float| Value::Float64(float).to_string()))
        .collect();
    Ok(Arc::new(texts))
}

/// `2013-01-01 10:00:00+00`, with as many digits of the second as are needed.
fn time_text(array: &ArrayRef) -> Result<ArrayRef> {
    let micros = cast(array, &DataType::Timestamp(TimeUnit::Microsecond, None))?;
    let texts: StringArray = micros
        .as_primitive::<TimestampMicrosecondType>()
        .iter()
        .map(|micros| {
            micros.map(|micros| {
                let text = Value::Timestamp(micros).to_string().replace('T', " ");
                let text = text.trim_end_matches('Z').trim_end_matches('0').trim_end_matches('.');
                format!("{text}+00")
            })
        })
        .collect();
    Ok(Arc::new(texts))
}

/// Before a sum: whole numbers become numbers of 38 digits, others stay.
pub(crate) static WIDEN: LazyLock<Arc<ScalarUDF>> = LazyLock::new(|| Width::function("$widen"));
/// After a sum: numbers of 38 digits become INT64 or fail, others stay.
pub(crate) static NARROW: LazyLock<Arc<ScalarUDF>> = LazyLock::new(|| Width::function("$narrow"));

const WIDE: DataType = DataType::Decimal128(38, 0);

#[derive(Debug, PartialEq, Eq, Hash)]
struct Width {
    name: &'static str,
    signature: Signature,
}

impl Width {
    fn function(name: &'static str) -> Arc<ScalarUDF> {
        let signature = Signature::any(1, Volatility::Immutable);
        Arc::new(ScalarUDF::new_from_impl(Width { name, signature }))
    }

    fn result(&self, of: &DataType) -> DataType {
        match self.name {
            "$widen" if of.is_integer() || *of == DataType::Null => WIDE,
            "$narrow" if *of == WIDE => DataType::Int64,
            _ => of.clone(),
        }
    }
}

impl ScalarUDFImpl for Width {
    fn name(&self) -> &str {
        self.name
    }

    fn display_name(&self, args: &[Expr]) -> Result<String> {
        Ok(args.iter().map(ToString::to_string).collect())
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, of: &[DataType]) -> Result<DataType> {
        Ok(of.first().map_or(DataType::Null, |of| self.result(of)))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let [argument] = &args.args[..] else {
            return Err(DataFusionError::Internal("one argument was planned".into()));
        };
        let to = self.result(&argument.data_type());
        if to == argument.data_type() {
            return Ok(argument.clone());
        }
        let is_scalar = matches!(argument, ColumnarValue::Scalar(_));
        let array = argument.to_array(if is_scalar { 1 } else { args.number_rows })?;
        let converted = strict_cast(&array, &to).map_err(|_| {
            let error = SqlError::new(ErrorKind::OutOfRange, "INT64 overflow in SUM");
            DataFusionError::External(Box::new(error))
        })?;
        Ok(match is_scalar {
            true => ColumnarValue::Scalar(datafusion::common::ScalarValue::try_from_array(
                &converted, 0,
            )?),
            false => ColumnarValue::Array(converted),
        })
    }
}
