//! Rows on their way into columns: one builder a column, filled in the order of the schema.

use arrow_array::builder::{
    ArrayBuilder, BinaryBuilder, BooleanBuilder, Float64Builder, Int64Builder, ListBuilder, StringBuilder, StructBuilder,
    TimestampMicrosecondBuilder, make_builder,
};
use arrow_array::{ArrayRef, RecordBatch};

use super::schema::{Column, Kind, Table};
use crate::model::UnixMicros;

/// Rows in a batch. A constant, as all bounds here: what a file looks like must not depend on the machine.
pub(super) const BATCH_ROWS: usize = 2_048;
/// Bytes of text after which a batch ends early.
pub(super) const BATCH_BYTES: usize = 2 << 20;

type Builders = [Box<dyn ArrayBuilder>];

/// Rows of a table that are not yet a batch.
pub(super) struct Sheet {
    table: Table,
    builders: Vec<Box<dyn ArrayBuilder>>,
    rows: usize,
    bytes: usize,
}

impl Sheet {
    /// With room for so many rows, and for more.
    pub(super) fn new(table: Table, n_rows: usize) -> Self {
        let builders = table.schema().fields().iter().map(|field| make_builder(field.data_type(), n_rows)).collect();
        Self { table, builders, rows: 0, bytes: 0 }
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
        let columns: Vec<ArrayRef> = self.builders.iter_mut().map(|builder| builder.finish()).collect();
        RecordBatch::try_new(self.table.schema(), columns).map(Some)
    }
}

/// The cells of one row, or of one struct in it, filled from left to right. Each call names its column, which a debug
/// build compares.
pub(super) struct Cells<'a> {
    builders: &'a mut Builders,
    columns: &'static [Column],
    at: usize,
    bytes: usize,
}

impl Cells<'_> {
    fn next<T: ArrayBuilder>(&mut self, name: &str) -> &mut T {
        debug_assert_eq!(self.columns[self.at].name, name);
        let builder = self.builders[self.at].as_any_mut().downcast_mut();
        self.at += 1;
        builder.expect("the builder was made for the column's kind")
    }

    pub(super) fn bool(&mut self, name: &str, value: Option<bool>) {
        self.next::<BooleanBuilder>(name).append_option(value);
    }

    /// A number; one beyond 63 bits cannot be written and is null.
    pub(super) fn int(&mut self, name: &str, value: Option<u64>) {
        self.signed(name, value.and_then(|value| i64::try_from(value).ok()));
    }

    pub(super) fn signed(&mut self, name: &str, value: Option<i64>) {
        self.next::<Int64Builder>(name).append_option(value);
    }

    pub(super) fn real(&mut self, name: &str, value: Option<f64>) {
        self.next::<Float64Builder>(name).append_option(value);
    }

    pub(super) fn time(&mut self, name: &str, value: Option<UnixMicros>) {
        self.next::<TimestampMicrosecondBuilder>(name).append_option(value.map(|at| at.0));
    }

    pub(super) fn text<T: AsRef<str>>(&mut self, name: &str, value: Option<T>) {
        let value = value.as_ref().map(AsRef::as_ref);
        self.bytes += value.map_or(0, str::len);
        self.next::<StringBuilder>(name).append_option(value);
    }

    pub(super) fn bytes(&mut self, name: &str, value: Option<&[u8]>) {
        self.bytes += value.map_or(0, <[u8]>::len);
        self.next::<BinaryBuilder>(name).append_option(value);
    }

    pub(super) fn words<T: AsRef<str>>(&mut self, name: &str, values: impl IntoIterator<Item = T>) {
        let list = self.next::<ListBuilder<Box<dyn ArrayBuilder>>>(name);
        let words = list.values().as_any_mut().downcast_mut::<StringBuilder>().expect("a list of words holds words");
        values.into_iter().for_each(|word| words.append_value(word));
        list.append(true);
    }

    /// A struct, or null.
    pub(super) fn nested<T>(&mut self, name: &str, value: Option<T>, fill: impl FnOnce(&mut Cells<'_>, Option<&T>)) {
        let Kind::Struct(columns) = self.columns[self.at].kind else { unreachable!("{name} is a struct") };
        let builder = self.next::<StructBuilder>(name);
        let bytes = inside(builder, columns, |cells| fill(cells, value.as_ref()));
        builder.append(value.is_some());
        self.bytes += bytes;
    }

    /// A list of structs.
    pub(super) fn list<T>(&mut self, name: &str, values: impl IntoIterator<Item = T>, mut fill: impl FnMut(&mut Cells<'_>, T)) {
        let Kind::List(_, columns) = self.columns[self.at].kind else { unreachable!("{name} is a list") };
        let list = self.next::<ListBuilder<Box<dyn ArrayBuilder>>>(name);
        let mut bytes = 0;
        for value in values {
            let builder = list.values().as_any_mut().downcast_mut::<StructBuilder>().expect("a list of structs holds structs");
            bytes += inside(builder, columns, |cells| fill(cells, value));
            builder.append(true);
        }
        list.append(true);
        self.bytes += bytes;
    }
}

/// Fills the fields of one struct; gives the bytes of text in them.
fn inside(builder: &mut StructBuilder, columns: &'static [Column], fill: impl FnOnce(&mut Cells<'_>)) -> usize {
    let mut cells = Cells { builders: builder.field_builders_mut(), columns, at: 0, bytes: 0 };
    fill(&mut cells);
    debug_assert_eq!(cells.at, columns.len());
    cells.bytes
}
