//! Rows on their way into columns: one builder a column, filled in the order of the schema.

use std::any::Any;
use std::sync::Arc;

use arrow_array::builder::{
    ArrayBuilder, BinaryBuilder, BooleanBuilder, Float64Builder, Int64Builder, ListBuilder, NullBufferBuilder, StringBuilder,
    TimestampMicrosecondBuilder,
};
use arrow_array::{ArrayRef, RecordBatch, StructArray};
use arrow_schema::{DataType, Field, Fields};

use super::schema::{Column, Table};
use crate::model::UnixMicros;

/// Rows in a batch. A constant, as all bounds here: what a file looks like must not depend on the machine.
pub(super) const BATCH_ROWS: usize = 2_048;
/// Bytes of text after which a batch ends early.
pub(super) const BATCH_BYTES: usize = 1 << 20;

/// Bytes that most texts of a column take, for a beginning.
const USUAL_TEXT: usize = 16;

/// Rows of a table that are not yet a batch.
pub(super) struct Sheet {
    table: Table,
    builders: Vec<Builder>,
    rows: usize,
    bytes: usize,
}

impl Sheet {
    /// With room for so many rows, and for more.
    pub(super) fn new(table: Table, n_rows: usize) -> Self {
        Self { table, builders: builders(table.schema().fields(), n_rows), rows: 0, bytes: 0 }
    }

    pub(super) fn n_rows(&self) -> usize {
        self.rows
    }

    /// Adds a row; the closure fills every column, in order.
    pub(super) fn row<T>(&mut self, fill: impl FnOnce(&mut Cells<'_>) -> T) -> T {
        let mut cells = Cells { builders: &mut self.builders, columns: self.table.columns(), at: 0, bytes: 0 };
        let done = fill(&mut cells);
        self.bytes += cells.bytes;
        self.rows += 1;
        done
    }

    /// Whether it is time to take a batch.
    pub(super) fn is_full(&self) -> bool {
        self.rows >= BATCH_ROWS || self.bytes >= BATCH_BYTES
    }

    /// Takes the rows; `None` when there are none.
    pub(super) fn take(&mut self) -> Result<Option<RecordBatch>, arrow_schema::ArrowError> {
        if self.rows == 0 {
            return Ok(None);
        }
        (self.rows, self.bytes) = (0, 0);
        let columns: Vec<ArrayRef> = self.builders.iter_mut().map(|builder| builder.any_mut().finish()).collect();
        RecordBatch::try_new(self.table.schema(), columns).map(Some)
    }
}

/// Grows a column of one kind.
#[derive(Debug)]
enum Builder {
    Bool(BooleanBuilder),
    Int(Int64Builder),
    Real(Float64Builder),
    Time(TimestampMicrosecondBuilder),
    Text(StringBuilder),
    Bytes(BinaryBuilder),
    Words(ListBuilder<StringBuilder>),
    Struct(Structs),
    List(ListBuilder<Structs>),
}

/// Grows a column of structs.
#[derive(Debug)]
struct Structs {
    fields: Fields,
    builders: Vec<Builder>,
    nulls: NullBufferBuilder,
}

fn builders(fields: &Fields, n_rows: usize) -> Vec<Builder> {
    fields.iter().map(|field| Builder::new(field.data_type(), n_rows)).collect()
}

impl Builder {
    fn new(of: &DataType, n_rows: usize) -> Self {
        let list = |element: &Arc<Field>| match element.data_type() {
            DataType::Struct(fields) => {
                Self::List(ListBuilder::with_capacity(Structs::new(fields, 0), n_rows).with_field(Arc::clone(element)))
            }
            _ => Self::Words(ListBuilder::with_capacity(StringBuilder::new(), n_rows).with_field(Arc::clone(element))),
        };
        match of {
            DataType::Boolean => Self::Bool(BooleanBuilder::with_capacity(n_rows)),
            DataType::Int64 => Self::Int(Int64Builder::with_capacity(n_rows)),
            DataType::Float64 => Self::Real(Float64Builder::with_capacity(n_rows)),
            DataType::Timestamp(..) => Self::Time(TimestampMicrosecondBuilder::with_capacity(n_rows).with_data_type(of.clone())),
            DataType::Utf8 => Self::Text(StringBuilder::with_capacity(n_rows, n_rows * USUAL_TEXT)),
            DataType::Binary => Self::Bytes(BinaryBuilder::with_capacity(n_rows, 0)),
            DataType::Struct(fields) => Self::Struct(Structs::new(fields, n_rows)),
            DataType::List(element) => list(element),
            other => unreachable!("no column is {other}"),
        }
    }

    fn any(&self) -> &dyn ArrayBuilder {
        match self {
            Self::Bool(builder) => builder,
            Self::Int(builder) => builder,
            Self::Real(builder) => builder,
            Self::Time(builder) => builder,
            Self::Text(builder) => builder,
            Self::Bytes(builder) => builder,
            Self::Words(builder) => builder,
            Self::Struct(builder) => builder,
            Self::List(builder) => builder,
        }
    }

    fn any_mut(&mut self) -> &mut dyn ArrayBuilder {
        match self {
            Self::Bool(builder) => builder,
            Self::Int(builder) => builder,
            Self::Real(builder) => builder,
            Self::Time(builder) => builder,
            Self::Text(builder) => builder,
            Self::Bytes(builder) => builder,
            Self::Words(builder) => builder,
            Self::Struct(builder) => builder,
            Self::List(builder) => builder,
        }
    }
}

impl Structs {
    fn new(fields: &Fields, n_rows: usize) -> Self {
        Self { fields: fields.clone(), builders: builders(fields, n_rows), nulls: NullBufferBuilder::new(n_rows) }
    }

    /// Adds a struct, or null, whose fields the closure fills; gives the bytes of text in them.
    fn append(&mut self, is_some: bool, columns: &'static [Column], fill: impl FnOnce(&mut Cells<'_>)) -> usize {
        let mut cells = Cells { builders: &mut self.builders, columns, at: 0, bytes: 0 };
        fill(&mut cells);
        debug_assert_eq!(cells.at, columns.len());
        self.nulls.append(is_some);
        cells.bytes
    }
}

impl ArrayBuilder for Structs {
    fn len(&self) -> usize {
        self.nulls.len()
    }

    fn finish(&mut self) -> ArrayRef {
        let columns = self.builders.iter_mut().map(|builder| builder.any_mut().finish()).collect();
        let nulls = self.nulls.finish();
        Arc::new(StructArray::new(self.fields.clone(), columns, nulls))
    }

    fn finish_cloned(&self) -> ArrayRef {
        let columns = self.builders.iter().map(|builder| builder.any().finish_cloned()).collect();
        Arc::new(StructArray::new(self.fields.clone(), columns, self.nulls.finish_cloned()))
    }

    fn as_any(&self) -> &dyn Any {
        self
    }

    fn as_any_mut(&mut self) -> &mut dyn Any {
        self
    }

    fn into_box_any(self: Box<Self>) -> Box<dyn Any> {
        self
    }
}

/// The cells of one row, or of one struct in it, filled from left to right. Each call names its column, which a debug
/// build compares.
pub(super) struct Cells<'a> {
    builders: &'a mut [Builder],
    columns: &'static [Column],
    at: usize,
    bytes: usize,
}

/// The builder of the next column, which is of that kind.
macro_rules! next {
    ($cells:ident, $name:ident, $kind:ident) => {{
        debug_assert_eq!($cells.columns[$cells.at].name, $name);
        let Builder::$kind(builder) = &mut $cells.builders[$cells.at] else { unreachable!("{} is of another kind", $name) };
        $cells.at += 1;
        builder
    }};
}

impl Cells<'_> {
    #[inline]
    pub(super) fn bool(&mut self, name: &str, value: Option<bool>) {
        next!(self, name, Bool).append_option(value);
    }

    /// A number; one beyond 63 bits cannot be written and is null.
    #[inline]
    pub(super) fn int(&mut self, name: &str, value: Option<u64>) {
        self.signed(name, value.and_then(|value| i64::try_from(value).ok()));
    }

    #[inline]
    pub(super) fn signed(&mut self, name: &str, value: Option<i64>) {
        next!(self, name, Int).append_option(value);
    }

    pub(super) fn real(&mut self, name: &str, value: Option<f64>) {
        next!(self, name, Real).append_option(value);
    }

    #[inline]
    pub(super) fn time(&mut self, name: &str, value: Option<UnixMicros>) {
        next!(self, name, Time).append_option(value.map(|at| at.0));
    }

    #[inline]
    pub(super) fn text<T: AsRef<str>>(&mut self, name: &str, value: Option<T>) {
        let value = value.as_ref().map(AsRef::as_ref);
        self.bytes += value.map_or(0, str::len);
        next!(self, name, Text).append_option(value);
    }

    pub(super) fn bytes(&mut self, name: &str, value: Option<&[u8]>) {
        self.bytes += value.map_or(0, <[u8]>::len);
        next!(self, name, Bytes).append_option(value);
    }

    pub(super) fn words<T: AsRef<str>>(&mut self, name: &str, values: impl IntoIterator<Item = T>) {
        let list = next!(self, name, Words);
        values.into_iter().for_each(|word| list.values().append_value(word));
        list.append(true);
    }

    /// A struct, or null.
    pub(super) fn nested<T>(&mut self, name: &str, value: Option<T>, fill: impl FnOnce(&mut Cells<'_>, Option<&T>)) {
        let columns = self.columns[self.at].fields();
        let structs = next!(self, name, Struct);
        self.bytes += structs.append(value.is_some(), columns, |cells| fill(cells, value.as_ref()));
    }

    /// A list of structs.
    pub(super) fn list<T>(&mut self, name: &str, values: impl IntoIterator<Item = T>, mut fill: impl FnMut(&mut Cells<'_>, T)) {
        let columns = self.columns[self.at].fields();
        let list = next!(self, name, List);
        for value in values {
            self.bytes += list.values().append(true, columns, |cells| fill(cells, value));
        }
        list.append(true);
    }
}
