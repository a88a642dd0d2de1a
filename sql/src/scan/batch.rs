//! From rows as stored to Arrow record batches, decoding only the columns wanted.

use super::convert::arrow_type;
use crate::catalog::Table;
use crate::error::{Result, SqlError};
use crate::keys::decode_part;
use crate::row::{Cell, Cells};
use crate::value::{Type, Value};
use datafusion::arrow::array::{
    ArrayRef, BinaryBuilder, BooleanBuilder, Date32Builder, Float64Builder, Int64Builder,
    RecordBatch, RecordBatchOptions, StringBuilder, TimestampMicrosecondBuilder,
};
use datafusion::arrow::datatypes::{Field, Schema, SchemaRef};
use std::sync::Arc;

/// The Arrow schema of a table; names are lower case, as unquoted names in queries are.
pub fn schema_of(table: &Table) -> SchemaRef {
    let fields: Vec<Field> = table
        .columns()
        .iter()
        .map(|c| Field::new(c.name.to_lowercase(), arrow_type(&c.data_type), !c.not_null))
        .collect();
    Arc::new(Schema::new(fields))
}

/// Which columns of a table a scan produces, and where each comes from.
#[derive(Debug)]
pub struct Projection {
    table: Arc<Table>,
    schema: SchemaRef,
    /// The outputs that are parts of the key: place in the key, output.
    key: Vec<(usize, usize)>,
    /// The outputs packed in the row, in ascending order of column ids: id, output.
    packed: Vec<(u32, usize)>,
    types: Vec<Type>,
}

impl Projection {
    /// These columns of the table, in this order; `schema` is their Arrow schema.
    pub fn new(table: Arc<Table>, columns: &[usize], schema: SchemaRef) -> Projection {
        let (mut key, mut packed) = (Vec::new(), Vec::new());
        for (output, column) in columns.iter().enumerate() {
            match table.key_places()[*column] {
                Some(place) => key.push((place, output)),
                None => packed.push((table.columns()[*column].id, output)),
            }
        }
        packed.sort_unstable();
        let types = columns.iter().map(|column| table.columns()[*column].data_type).collect();
        Projection { table, schema, key, packed, types }
    }

    /// The schema of what is produced.
    pub fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// The batch of these rows; rows of other tables are left out.
    ///
    /// # Errors
    /// `Internal` for damaged rows.
    pub fn batch<'r>(
        &self,
        rows: impl ExactSizeIterator<Item = (&'r [u8], &'r [u8])>,
    ) -> Result<RecordBatch> {
        let mut builders: Vec<Builder> =
            self.types.iter().map(|t| Builder::new(t, rows.len())).collect();
        let mut parts = Vec::with_capacity(self.table.layout().parts());
        let mut count = 0;
        for (key, value) in rows {
            if self.table.layout().split(key, &mut parts).is_none() {
                continue; // an interleaved relative
            }
            count += 1;
            for (place, output) in &self.key {
                let value = decode_part(parts[*place])
                    .ok_or_else(|| SqlError::internal("a key is damaged: a part is no value"))?;
                builders[*output].append_value(&value)?;
            }
            self.append_packed(value, &mut builders)?;
        }
        let columns: Vec<ArrayRef> = builders.into_iter().map(Builder::finish).collect();
        let options = RecordBatchOptions::new().with_row_count(Some(count));
        RecordBatch::try_new_with_options(self.schema.clone(), columns, &options)
            .map_err(|error| SqlError::internal(format!("a row breaks its schema: {error}")))
    }

    fn append_packed(&self, row: &[u8], builders: &mut [Builder]) -> Result<()> {
        let mut wanted = self.packed.iter().peekable();
        if wanted.peek().is_some() {
            for cell in Cells::new(row)? {
                let (id, cell) = cell?;
                while let Some((_, output)) = wanted.next_if(|(column, _)| *column < id) {
                    builders[*output].append_null();
                }
                if let Some((_, output)) = wanted.next_if(|(column, _)| *column == id) {
                    builders[*output].append(cell)?;
                }
                if wanted.peek().is_none() {
                    return Ok(());
                }
            }
        }
        for (_, output) in wanted {
            builders[*output].append_null();
        }
        Ok(())
    }
}

enum Builder {
    Bool(BooleanBuilder),
    Int64(Int64Builder),
    Float64(Float64Builder),
    String(StringBuilder),
    Bytes(BinaryBuilder),
    Date(Date32Builder),
    Timestamp(TimestampMicrosecondBuilder),
}

impl Builder {
    fn new(data_type: &Type, rows: usize) -> Builder {
        match data_type {
            Type::Bool => Builder::Bool(BooleanBuilder::with_capacity(rows)),
            Type::Int64 => Builder::Int64(Int64Builder::with_capacity(rows)),
            Type::Float64 => Builder::Float64(Float64Builder::with_capacity(rows)),
            Type::String(_) => Builder::String(StringBuilder::with_capacity(rows, rows * 16)),
            Type::Bytes(_) => Builder::Bytes(BinaryBuilder::with_capacity(rows, rows * 16)),
            Type::Date => Builder::Date(Date32Builder::with_capacity(rows)),
            Type::Timestamp => Builder::Timestamp(
                TimestampMicrosecondBuilder::with_capacity(rows).with_timezone("UTC"),
            ),
        }
    }

    fn append(&mut self, cell: Cell<'_>) -> Result<()> {
        match (self, cell) {
            (Builder::Bool(builder), Cell::Bool(value)) => builder.append_value(value),
            (Builder::Int64(builder), Cell::Int64(value)) => builder.append_value(value),
            (Builder::Float64(builder), Cell::Float64(value)) => builder.append_value(value),
            (Builder::String(builder), Cell::String(text)) => builder.append_value(text),
            (Builder::Bytes(builder), Cell::Bytes(bytes)) => builder.append_value(bytes),
            (Builder::Date(builder), Cell::Date(days)) => builder.append_value(days),
            (Builder::Timestamp(builder), Cell::Timestamp(micros)) => builder.append_value(micros),
            _ => return Err(SqlError::internal("a stored value is not of its column's type")),
        }
        Ok(())
    }

    fn append_value(&mut self, value: &Value) -> Result<()> {
        self.append(match value {
            Value::Null => {
                self.append_null();
                return Ok(());
            }
            Value::Bool(value) => Cell::Bool(*value),
            Value::Int64(value) => Cell::Int64(*value),
            Value::Float64(value) => Cell::Float64(*value),
            Value::String(text) => Cell::String(text),
            Value::Bytes(bytes) => Cell::Bytes(bytes),
            Value::Date(days) => Cell::Date(*days),
            Value::Timestamp(micros) => Cell::Timestamp(*micros),
        })
    }

    fn append_null(&mut self) {
        match self {
            Builder::Bool(builder) => builder.append_null(),
            Builder::Int64(builder) => builder.append_null(),
            Builder::Float64(builder) => builder.append_null(),
            Builder::String(builder) => builder.append_null(),
            Builder::Bytes(builder) => builder.append_null(),
            Builder::Date(builder) => builder.append_null(),
            Builder::Timestamp(builder) => builder.append_null(),
        }
    }

    fn finish(self) -> ArrayRef {
        match self {
            Builder::Bool(mut builder) => Arc::new(builder.finish()),
            Builder::Int64(mut builder) => Arc::new(builder.finish()),
            Builder::Float64(mut builder) => Arc::new(builder.finish()),
            Builder::String(mut builder) => Arc::new(builder.finish()),
            Builder::Bytes(mut builder) => Arc::new(builder.finish()),
            Builder::Date(mut builder) => Arc::new(builder.finish()),
            Builder::Timestamp(mut builder) => Arc::new(builder.finish()),
        }
    }
}
