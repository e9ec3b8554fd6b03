//! The columns of a row group, encoded on several threads.
//!
//! Each column has its own writer, and takes its batches in their order; which thread does it is left to chance. Whoever
//! brings the rows works, too, whenever the columns are more than a batch behind. When a group is full is told from what
//! stood encoded one batch ago, on whatever thread: so the bytes of a file do not depend on threads.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use arrow_array::RecordBatch;
use parquet::arrow::arrow_writer::{ArrowColumnChunk, ArrowColumnWriter, ArrowLeafColumn, compute_leaves};
use parquet::errors::{ParquetError, Result};

/// Encodes the columns of one row group after the other.
pub(super) struct Encoders {
    desk: Arc<Desk>,
    helpers: Vec<JoinHandle<()>>,
    /// Batches of the group so far.
    n_batches: usize,
}

/// What the threads share.
#[derive(Default)]
struct Desk {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    columns: Vec<Column>,
    ended: bool,
    failed: Option<ParquetError>,
}

struct Column {
    /// Gone while somebody writes.
    writer: Option<Box<ArrowColumnWriter>>,
    batches: VecDeque<ArrowLeafColumn>,
    n_done: usize,
    /// Encoded bytes after the last two batches, by the parity of their numbers.
    sizes: [usize; 2],
    /// No more batches come.
    is_last: bool,
    chunk: Option<ArrowColumnChunk>,
}

impl Column {
    fn has_work(&self) -> bool {
        self.writer.is_some() && (self.is_last || !self.batches.is_empty())
    }
}

impl Encoders {
    /// With so many threads beside the caller's.
    pub(super) fn new(n_helpers: usize) -> Self {
        let desk = Arc::new(Desk::default());
        let helpers = (0..n_helpers).map(|_| {
            let desk = Arc::clone(&desk);
            std::thread::spawn(move || desk.help())
        });
        Self { helpers: helpers.collect(), desk, n_batches: 0 }
    }

    /// Whether a group has begun.
    pub(super) fn is_idle(&self) -> bool {
        self.n_batches == 0
    }

    /// Begins a group.
    pub(super) fn begin(&mut self, writers: Vec<ArrowColumnWriter>) {
        let column = |writer| Column {
            writer: Some(Box::new(writer)),
            batches: VecDeque::new(),
            n_done: 0,
            sizes: [0; 2],
            is_last: false,
            chunk: None,
        };
        self.desk.state().columns = writers.into_iter().map(column).collect();
        self.n_batches = 0;
    }

    /// Hands a batch out, and gives the encoded bytes of all batches before it.
    pub(super) fn write(&mut self, batch: &RecordBatch) -> Result<usize> {
        let mut leaves = Vec::new();
        for (field, array) in batch.schema().fields().iter().zip(batch.columns()) {
            leaves.extend(compute_leaves(field, array)?);
        }
        let mut state = self.desk.state();
        state.columns.iter_mut().zip(leaves).for_each(|(column, leaf)| column.batches.push_back(leaf));
        drop(state);
        self.desk.changed.notify_all();
        let before = self.n_batches;
        self.n_batches += 1;
        let state = self.desk.work_until(|column| column.n_done >= before)?;
        Ok(if before == 0 { 0 } else { state.columns.iter().map(|column| column.sizes[(before - 1) % 2]).sum() })
    }

    /// Ends the group and gives its columns.
    pub(super) fn end(&mut self) -> Result<Vec<ArrowColumnChunk>> {
        self.n_batches = 0;
        self.desk.state().columns.iter_mut().for_each(|column| column.is_last = true);
        self.desk.changed.notify_all();
        let mut state = self.desk.work_until(|column| column.chunk.is_some())?;
        Ok(std::mem::take(&mut state.columns).into_iter().filter_map(|column| column.chunk).collect())
    }
}

impl Drop for Encoders {
    fn drop(&mut self) {
        self.desk.state().ended = true;
        self.desk.changed.notify_all();
        for helper in self.helpers.drain(..) {
            // Its panic was told as a failure.
            drop(helper.join());
        }
    }
}

impl Desk {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'a>(&self, state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        self.changed.wait(state).unwrap_or_else(PoisonError::into_inner)
    }

    /// Works until there is no more to come.
    fn help(&self) {
        let mut state = self.state();
        while !state.ended {
            state = match state.most() {
                Some(at) => self.work(state, at),
                None => self.wait(state),
            };
        }
    }

    /// Works until all columns are so far.
    fn work_until(&self, is_far: impl Fn(&Column) -> bool) -> Result<MutexGuard<'_, State>> {
        let mut state = self.state();
        loop {
            if let Some(error) = state.failed.take() {
                return Err(error);
            }
            if state.columns.iter().all(&is_far) {
                return Ok(state);
            }
            state = match state.most() {
                Some(at) => self.work(state, at),
                None => self.wait(state),
            };
        }
    }

    /// One batch of one column, or its end.
    fn work<'a>(&'a self, mut state: MutexGuard<'a, State>, at: usize) -> MutexGuard<'a, State> {
        let column = &mut state.columns[at];
        let Some(mut writer) = column.writer.take() else { return state };
        let batch = column.batches.pop_front();
        drop(state);
        let mut fallen = Fallen { desk: self, is_well: false };
        let done = match batch {
            Some(batch) => writer.write(&batch).map(|()| Ok(writer)),
            None => writer.close().map(|chunk| Err(Box::new(chunk))),
        };
        fallen.is_well = true;
        let mut state = self.state();
        let column = &mut state.columns[at];
        match done {
            Ok(Ok(writer)) => {
                column.sizes[column.n_done % 2] = writer.get_estimated_total_bytes();
                column.n_done += 1;
                column.writer = Some(writer);
            }
            Ok(Err(chunk)) => column.chunk = Some(*chunk),
            Err(error) => state.failed = Some(error),
        }
        self.changed.notify_all();
        state
    }
}

impl State {
    /// The largest column that somebody can work on: it takes longest.
    fn most(&self) -> Option<usize> {
        let ready = self.columns.iter().enumerate().filter(|(_, column)| column.has_work());
        ready.max_by_key(|(_, column)| column.sizes[0]).map(|(at, _)| at)
    }
}

/// A panic on one thread ends the work of all.
struct Fallen<'a> {
    desk: &'a Desk,
    is_well: bool,
}

impl Drop for Fallen<'_> {
    fn drop(&mut self) {
        if !self.is_well {
            self.desk.state().failed = Some(ParquetError::General("a thread that encodes columns panicked".to_owned()));
            self.desk.changed.notify_all();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow_array::{Int64Array, StringArray};
    use arrow_schema::{DataType, Field, Schema};
    use parquet::arrow::ArrowWriter;

    use super::*;

    fn batch(of: i64, rows: i64) -> RecordBatch {
        let schema = Schema::new(vec![Field::new("a", DataType::Int64, false), Field::new("b", DataType::Utf8, false)]);
        let numbers = (0..rows).map(|row| of * rows + row);
        let words: Vec<String> =
            numbers.clone().map(|n| format!("{:x}", n.wrapping_mul(0x9e37_79b9_7f4a_7c15_u64 as i64))).collect();
        let columns: Vec<arrow_array::ArrayRef> =
            vec![Arc::new(Int64Array::from_iter_values(numbers)), Arc::new(StringArray::from(words))];
        RecordBatch::try_new(Arc::new(schema), columns).unwrap()
    }

    /// Encoded bytes as they were told, and those of the columns in the end.
    fn encode(n_helpers: usize) -> (Vec<usize>, Vec<u64>) {
        let (file, factory) =
            ArrowWriter::try_new(Vec::new(), batch(0, 1).schema(), None).unwrap().into_serialized_writer().unwrap();
        let mut encoders = Encoders::new(n_helpers);
        let (mut told, mut sizes) = (Vec::new(), Vec::new());
        for group in 0..3 {
            assert!(encoders.is_idle());
            encoders.begin(factory.create_column_writers(group).unwrap());
            told.extend((0..20).map(|of| encoders.write(&batch(of, 1_000)).unwrap()));
            let chunks = encoders.end().unwrap();
            assert_eq!(chunks.iter().map(|chunk| chunk.close().rows_written).collect::<Vec<_>>(), [20_000; 2]);
            sizes.extend(chunks.iter().map(|chunk| chunk.close().bytes_written));
        }
        drop(file);
        (told, sizes)
    }

    #[test]
    fn threads_change_nothing() {
        let alone = encode(0);
        assert_eq!(alone.0[0], 0, "nothing stood before the first");
        assert!(alone.0[1..20].windows(2).all(|two| two[0] < two[1]), "{:?}", alone.0);
        for n_helpers in [1, 2, 5] {
            assert_eq!(encode(n_helpers), alone);
        }
    }

    #[test]
    fn a_column_that_cannot_be_written_ends_the_work_of_all() {
        for n_helpers in [0, 3] {
            let (_file, factory) =
                ArrowWriter::try_new(Vec::new(), batch(0, 1).schema(), None).unwrap().into_serialized_writer().unwrap();
            let mut encoders = Encoders::new(n_helpers);
            encoders.begin(factory.create_column_writers(0).unwrap());
            // Writers panic when their column is another's, on whatever thread.
            let swapped = batch(0, 10).project(&[1, 0]).unwrap();
            let write = move || encoders.write(&swapped).and_then(|_| encoders.end()).map(|columns| columns.len());
            assert!(!matches!(std::panic::catch_unwind(std::panic::AssertUnwindSafe(write)), Ok(Ok(_))));
        }
    }
}
