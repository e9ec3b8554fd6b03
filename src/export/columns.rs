//! Batches made, and the columns of a row group encoded, on several threads.
//!
//! Whoever brings the rows hands out how a batch is made, and takes batches back in the order in which they were handed out.
//! Each column has its own writer, and takes its batches in their order; which thread does what is left to chance. The
//! bringer works, too, whenever enough batches are under way or the columns are more than a batch behind. When a group is
//! full is told from what stood encoded one batch ago, on whatever thread: so the bytes of a file do not depend on threads.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use arrow_array::RecordBatch;
use parquet::arrow::arrow_writer::{ArrowColumnChunk, ArrowColumnWriter, ArrowLeafColumn, compute_leaves};
use parquet::errors::{ParquetError, Result};

/// Batches that are being made at once, at most: each takes memory.
const MOST_UNDER_WAY: usize = 3;

/// Makes a batch, and what else is to be known of it.
type Make<T> = Box<dyn FnOnce() -> T + Send>;

/// Makes batches, and encodes the columns of one row group after the other.
pub(super) struct Encoders<T> {
    desk: Arc<Desk<T>>,
    helpers: Vec<JoinHandle<()>>,
    /// Batches of the group so far.
    n_batches: usize,
    /// Numbers of the batch that is taken back next, and of the one that is handed out next.
    taken: usize,
    handed: usize,
}

/// What the threads share.
struct Desk<T> {
    state: Mutex<State<T>>,
    changed: Condvar,
}

struct State<T> {
    columns: Vec<Column>,
    to_make: VecDeque<(usize, Make<T>)>,
    made: BTreeMap<usize, T>,
    ended: bool,
    failed: Option<ParquetError>,
}

/// Something to do.
enum Work<T> {
    Column(usize),
    Batch(usize, Make<T>),
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

impl<T: Send + 'static> Encoders<T> {
    /// With so many threads beside the caller's.
    pub(super) fn new(n_helpers: usize) -> Self {
        let (columns, to_make, made) = (Vec::new(), VecDeque::new(), BTreeMap::new());
        let state = State { columns, to_make, made, ended: false, failed: None };
        let desk = Arc::new(Desk { state: Mutex::new(state), changed: Condvar::new() });
        let helpers = (0..n_helpers).map(|_| {
            let desk = Arc::clone(&desk);
            std::thread::spawn(move || desk.help())
        });
        Self { helpers: helpers.collect(), desk, n_batches: 0, taken: 0, handed: 0 }
    }

    /// Hands out how a batch is made.
    pub(super) fn make(&mut self, make: impl FnOnce() -> T + Send + 'static) {
        self.desk.state().to_make.push_back((self.handed, Box::new(make)));
        self.handed += 1;
        self.desk.changed.notify_all();
    }

    /// The next batch, in the order in which they were handed out; `None` when more may be handed out first. At the end
    /// they all come.
    pub(super) fn made(&mut self, is_end: bool) -> Result<Option<T>> {
        let under_way = self.handed - self.taken;
        if under_way == 0 || !is_end && under_way < MOST_UNDER_WAY.min(self.helpers.len() + 2) {
            return Ok(None);
        }
        let taken = self.taken;
        let mut state = self.desk.work_until(|state| state.made.contains_key(&taken))?;
        self.taken += 1;
        Ok(state.made.remove(&taken))
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
        let state = self.desk.work_until(|state| state.columns.iter().all(|column| column.n_done >= before))?;
        Ok(if before == 0 { 0 } else { state.columns.iter().map(|column| column.sizes[(before - 1) % 2]).sum() })
    }

    /// Ends the group and gives its columns.
    pub(super) fn end(&mut self) -> Result<Vec<ArrowColumnChunk>> {
        self.n_batches = 0;
        self.desk.state().columns.iter_mut().for_each(|column| column.is_last = true);
        self.desk.changed.notify_all();
        let mut state = self.desk.work_until(|state| state.columns.iter().all(|column| column.chunk.is_some()))?;
        Ok(std::mem::take(&mut state.columns).into_iter().filter_map(|column| column.chunk).collect())
    }
}

impl<T> Drop for Encoders<T> {
    fn drop(&mut self) {
        self.desk.state().ended = true;
        self.desk.changed.notify_all();
        for helper in self.helpers.drain(..) {
            // Its panic was told as a failure.
            drop(helper.join());
        }
    }
}

impl<T> Desk<T> {
    fn state(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'a>(&self, state: MutexGuard<'a, State<T>>) -> MutexGuard<'a, State<T>> {
        self.changed.wait(state).unwrap_or_else(PoisonError::into_inner)
    }

    /// Works until there is no more to come.
    fn help(&self) {
        let mut state = self.state();
        while !state.ended {
            state = match state.work() {
                Some(work) => self.work(state, work),
                None => self.wait(state),
            };
        }
    }

    /// Works until it is so far.
    fn work_until(&self, is_far: impl Fn(&State<T>) -> bool) -> Result<MutexGuard<'_, State<T>>> {
        let mut state = self.state();
        loop {
            if let Some(error) = state.failed.take() {
                return Err(error);
            }
            if is_far(&state) {
                return Ok(state);
            }
            state = match state.work() {
                Some(work) => self.work(state, work),
                None => self.wait(state),
            };
        }
    }

    fn work<'a>(&'a self, state: MutexGuard<'a, State<T>>, work: Work<T>) -> MutexGuard<'a, State<T>> {
        let state = match work {
            Work::Column(at) => self.encode(state, at),
            Work::Batch(number, make) => {
                drop(state);
                let mut fallen = Fallen { desk: self, is_well: false };
                let made = make();
                fallen.is_well = true;
                let mut state = self.state();
                state.made.insert(number, made);
                state
            }
        };
        self.changed.notify_all();
        state
    }

    /// One batch of one column, or its end.
    fn encode<'a>(&'a self, mut state: MutexGuard<'a, State<T>>, at: usize) -> MutexGuard<'a, State<T>> {
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
        state
    }
}

impl<T> State<T> {
    /// The largest column that somebody can work on, as it takes longest; without one, a batch that is to be made.
    fn work(&mut self) -> Option<Work<T>> {
        let ready = self.columns.iter().enumerate().filter(|(_, column)| column.has_work());
        let most = ready.max_by_key(|(_, column)| column.sizes[0]).map(|(at, _)| Work::Column(at));
        most.or_else(|| self.to_make.pop_front().map(|(number, make)| Work::Batch(number, make)))
    }
}

/// A panic on one thread ends the work of all.
struct Fallen<'a, T> {
    desk: &'a Desk<T>,
    is_well: bool,
}

impl<T> Drop for Fallen<'_, T> {
    fn drop(&mut self) {
        if !self.is_well {
            self.desk.state().failed = Some(ParquetError::General("a thread that makes or encodes columns panicked".to_owned()));
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
            let mut of = 0;
            while told.len() < 20 * (group + 1) {
                if of < 20 {
                    encoders.make(move || batch(of, 1_000));
                    of += 1;
                }
                while let Some(made) = encoders.made(of == 20).unwrap() {
                    told.push(encoders.write(&made).unwrap());
                }
            }
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
            let mut encoders = Encoders::<()>::new(n_helpers);
            encoders.begin(factory.create_column_writers(0).unwrap());
            // Writers panic when their column is another's, on whatever thread.
            let swapped = batch(0, 10).project(&[1, 0]).unwrap();
            let write = move || encoders.write(&swapped).and_then(|_| encoders.end()).map(|columns| columns.len());
            assert!(!matches!(std::panic::catch_unwind(std::panic::AssertUnwindSafe(write)), Ok(Ok(_))));
        }
    }

    #[test]
    fn a_batch_that_cannot_be_made_ends_the_work_of_all() {
        for n_helpers in [0, 3] {
            let mut encoders = Encoders::<()>::new(n_helpers);
            encoders.make(|| panic!("on purpose"));
            let made = move || encoders.made(true);
            assert!(!matches!(std::panic::catch_unwind(std::panic::AssertUnwindSafe(made)), Ok(Ok(_))));
        }
    }
}
