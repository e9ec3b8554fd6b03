//! A partition: sightings in order in, rows out; and its Parquet file.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use arrow_array::RecordBatch;
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_writer::ArrowRowGroupWriterFactory;
use parquet::basic::{Compression, Encoding, ZstdLevel};
use parquet::errors::ParquetError;
use parquet::file::metadata::{KeyValue, SortingColumn};
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::types::ColumnPath;
use sha2::{Digest as _, Sha256};

use super::ExportError;
use super::code::Code;
use super::columns::Encoders;
use super::post::{self, COUNTS, MOST_VERSIONS, Merging, counts};
use super::schema::{Kind, SCHEMA, Table};
use super::sheet::{BATCH_BYTES, BATCH_ROWS, Cells, Sheet};
use super::sight::{Came, DmSight, EngagementSight, EnvelopeSight, EventSight, FollowSight, ProfileSight};
use super::spool::{Key, Merge, Part};
use crate::model::UnixMicros;

/// Rows of a row group, at most. These bounds are constants, so that a file looks the same whoever wrote it.
const GROUP_ROWS: usize = 128 << 10;
/// A row group ends when so much of it was encoded before the last batch.
const GROUP_BYTES: usize = 12 << 20;
/// What the open runs of one partition take of memory at most.
pub(super) const MERGE_BYTES: usize = 8 << 20;

/// What writing a partition takes of memory at most. Every column of a file has a compressor of its own (half a megabyte)
/// and its pages of the row group at hand.
pub(super) const fn memory_of(table: Table) -> usize {
    let columns = match table {
        Table::Tweets => 84 << 20,
        _ => 32 << 20,
    };
    columns + GROUP_BYTES + MERGE_BYTES
}

/// A segment, for its name in the files made from it.
#[derive(Clone, Debug)]
pub(super) struct Segment {
    pub(super) first_n: u64,
    pub(super) last_n: u64,
    /// Of a sealed one.
    pub(super) sha256: Option<String>,
}

/// What all files of an export share.
#[derive(Debug)]
pub(super) struct Common {
    pub(super) tape: String,
    /// Names of sources, in the order of their numbers.
    pub(super) sources: Vec<String>,
    pub(super) segments: Vec<Vec<Segment>>,
    pub(super) stop: Arc<AtomicBool>,
}

impl Common {
    pub(super) fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// Not when somebody asked to stop.
    pub(super) fn go_on(&self) -> Result<(), ExportError> {
        if self.is_stopped() { Err(ExportError::Stopped) } else { Ok(()) }
    }
}

/// What became of sightings.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Tally {
    pub(super) rows: u64,
    /// Those that joined another's row.
    pub(super) merged: u64,
}

impl Tally {
    pub(super) fn add(&mut self, more: Self) {
        self.rows += more.rows;
        self.merged += more.merged;
    }
}

/// A file that was written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Written {
    pub(super) tally: Tally,
    pub(super) bytes: u64,
    pub(super) sha256: String,
}

/// Writes through, and takes the digest on the way.
struct Digested {
    file: File,
    digest: Sha256,
    bytes: u64,
}

impl Write for Digested {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let n = self.file.write(bytes)?;
        self.digest.update(&bytes[..n]);
        self.bytes += n as u64;
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// Takes a table's rows, a batch at a time.
pub(super) trait Batches {
    fn batch(&mut self, batch: &RecordBatch) -> Result<(), ExportError>;
}

/// Rows of a table on their way into what keeps them, made one by one.
pub(super) struct Rows<'a> {
    sheet: Sheet,
    into: &'a mut dyn Batches,
    n: u64,
}

impl<'a> Rows<'a> {
    pub(super) fn new(table: Table, into: &'a mut dyn Batches) -> Self {
        Self { sheet: Sheet::new(table, BATCH_ROWS / 4), into, n: 0 }
    }

    pub(super) fn row<T>(&mut self, fill: impl FnOnce(&mut Cells<'_>) -> T) -> Result<T, ExportError> {
        let done = self.sheet.row(fill);
        self.n += 1;
        if self.sheet.is_full() {
            self.batch()?;
        }
        Ok(done)
    }

    fn batch(&mut self) -> Result<(), ExportError> {
        if let Some(batch) = self.sheet.take().map_err(ParquetError::from)? {
            self.into.batch(&batch)?;
        }
        Ok(())
    }

    /// Hands on what is left, and says how many there were.
    pub(super) fn finish(mut self) -> Result<u64, ExportError> {
        self.batch()?;
        Ok(self.n)
    }
}

/// A Parquet file of a table that is being written.
pub(super) struct ParquetFile {
    path: PathBuf,
    table: Table,
    writer: SerializedFileWriter<Digested>,
    groups: ArrowRowGroupWriterFactory,
    encoders: Encoders<Result<(RecordBatch, Tally), ExportError>>,
    /// Of the row group at hand.
    n_rows: usize,
}

impl Batches for ParquetFile {
    fn batch(&mut self, batch: &RecordBatch) -> Result<(), ExportError> {
        self.write(batch).map_err(|error| told(&self.path, error))
    }
}

impl ParquetFile {
    /// `sorted_by` is what its rows will be sorted by; `n_helpers` threads encode columns beside the caller's.
    pub(super) fn create(path: &Path, table: Table, sorted_by: &[&str], n_helpers: usize) -> Result<Self, ExportError> {
        let file = File::create(path).map_err(|source| cannot_write(path, source))?;
        let file = Digested { file, digest: Sha256::new(), bytes: 0 };
        let writer = ArrowWriter::try_new(file, table.schema(), Some(properties(table, sorted_by)));
        let (writer, groups) = writer.and_then(ArrowWriter::into_serialized_writer).map_err(|error| told(path, error))?;
        Ok(Self { path: path.to_owned(), table, writer, groups, encoders: Encoders::new(n_helpers), n_rows: 0 })
    }

    fn write(&mut self, batch: &RecordBatch) -> parquet::errors::Result<()> {
        if self.encoders.is_idle() {
            self.encoders.begin(self.groups.create_column_writers(self.writer.flushed_row_groups().len())?);
        }
        let encoded = self.encoders.write(batch)?;
        self.n_rows += batch.num_rows();
        if self.n_rows + BATCH_ROWS > GROUP_ROWS || encoded >= GROUP_BYTES {
            self.end_group()?;
        }
        Ok(())
    }

    fn end_group(&mut self) -> parquet::errors::Result<()> {
        self.n_rows = 0;
        let mut group = self.writer.next_row_group()?;
        for column in self.encoders.end()? {
            column.append_to_row_group(&mut group)?;
        }
        group.close()?;
        Ok(())
    }

    fn end(&mut self) -> parquet::errors::Result<()> {
        if !self.encoders.is_idle() {
            self.end_group()?;
        }
        self.writer.finish()?;
        Ok(())
    }

    /// Ends the file, with facts about what is in it.
    pub(super) fn finish(mut self, tally: Tally, facts: Vec<(String, String)>) -> Result<Written, ExportError> {
        let own = [("birdtape.schema", SCHEMA.to_string()), ("birdtape.table", self.table.name().to_owned())];
        let own = own.into_iter().map(|(key, value)| (key.to_owned(), value));
        for (key, value) in own.chain(facts) {
            self.writer.append_key_value_metadata(KeyValue::new(key, value));
        }
        self.end().map_err(|error| told(&self.path, error))?;
        let file = self.writer.inner();
        let sha256 = file.digest.clone().finalize().iter().map(|byte| format!("{byte:02x}")).collect();
        Ok(Written { tally, bytes: file.bytes, sha256 })
    }
}

/// What the disk answered, where it was the disk.
fn told(path: &Path, error: ParquetError) -> ExportError {
    match error {
        ParquetError::External(inner) => match inner.downcast::<io::Error>() {
            Ok(source) => cannot_write(path, *source),
            Err(inner) => ParquetError::External(inner).into(),
        },
        error => error.into(),
    }
}

pub(super) fn cannot_write(path: &Path, source: io::Error) -> ExportError {
    ExportError::Io { what: "cannot write", path: path.display().to_string(), source }
}

/// How columns are encoded: words and accounts by dictionary, other ids and instants by their differences, all packed with zstd.
fn properties(table: Table, sorted_by: &[&str]) -> WriterProperties {
    let mut properties = WriterProperties::builder()
        .set_created_by(format!("birdtape {}", env!("CARGO_PKG_VERSION")))
        .set_compression(Compression::ZSTD(ZstdLevel::default()));
    for column in table.columns() {
        column.leaves(&[], &mut |path, kind| {
            let path = ColumnPath::new(path);
            let mut set = |encoding: Option<Encoding>, statistics: bool| {
                let mut now = std::mem::take(&mut properties).set_column_dictionary_enabled(path.clone(), encoding.is_none());
                if let Some(encoding) = encoding {
                    now = now.set_column_encoding(path.clone(), encoding);
                }
                if !statistics {
                    now = now.set_column_statistics_enabled(path.clone(), EnabledStatistics::None);
                }
                properties = now;
            };
            match kind {
                Kind::Id | Kind::Number | Kind::Time => set(Some(Encoding::DELTA_BINARY_PACKED), true),
                Kind::Text | Kind::Json | Kind::Bytes => set(Some(Encoding::PLAIN), false),
                _ => set(None, true),
            }
        });
    }
    if table == Table::Tweets {
        let path = ColumnPath::from("tweet_id");
        properties =
            properties.set_column_bloom_filter_fpp(path.clone(), 0.01).set_column_bloom_filter_max_ndv(path, GROUP_ROWS as u64);
    }
    let leaf_of = |name: &str| {
        let mut leaves = Vec::new();
        table.columns().iter().for_each(|column| column.leaves(&[], &mut |path, _| leaves.push(path.join("."))));
        leaves.iter().position(|leaf| leaf == name)
    };
    let sorted = sorted_by.iter().filter_map(|name| leaf_of(name));
    let sorted = sorted.map(|at| SortingColumn { column_idx: at as i32, descending: false, nulls_first: false }).collect();
    properties.set_sorting_columns(Some(sorted)).build()
}

/// Which segments a file's rows came from.
#[derive(Default)]
pub(super) struct Sources {
    seen: BTreeSet<(u32, usize)>,
    last: Option<(u32, std::ops::RangeInclusive<u64>)>,
}

impl Sources {
    fn add(&mut self, common: &Common, key: &Key) {
        if self.last.as_ref().is_some_and(|(source, range)| *source == key.source && range.contains(&key.n)) {
            return;
        }
        let Some(segments) = common.segments.get(key.source as usize) else { return };
        let at = segments.partition_point(|segment| segment.last_n < key.n);
        if let Some(segment) = segments.get(at) {
            self.last = Some((key.source, segment.first_n..=segment.last_n));
            self.seen.insert((key.source, at));
        }
    }

    fn to_json(&self, common: &Common) -> String {
        let of = |&(source, at): &(u32, usize)| {
            let segment = &common.segments[source as usize][at];
            let source = &common.sources[source as usize];
            serde_json::json!({ "source": source, "first_n": segment.first_n, "sha256": segment.sha256 })
        };
        serde_json::Value::from(self.seen.iter().map(of).collect::<Vec<_>>()).to_string()
    }
}

/// Writes a partition into a file, with the help of so many threads.
pub(super) fn write(
    path: &Path,
    part: Part,
    merge: Merge,
    common: &Arc<Common>,
    n_helpers: usize,
) -> Result<Written, ExportError> {
    // Posts without a date of their own come by their ids, which say nothing of when.
    let sorted_by = if part.day == Part::NO_DAY { &["tweet_id"] } else { part.table.sorted_by() };
    let mut file = ParquetFile::create(path, part.table, sorted_by, n_helpers)?;
    let mut chunks = Chunks::new(part.table, merge, common);
    let mut tally = Tally::default();
    loop {
        let chunk = chunks.next()?;
        let is_end = chunk.is_none();
        if let Some(chunk) = chunk {
            let common = Arc::clone(common);
            file.encoders.make(move || chunk.into_batch(&common));
        }
        while let Some(made) = file.encoders.made(is_end).map_err(|error| told(path, error))? {
            let (batch, of_batch) = made?;
            tally.add(of_batch);
            file.batch(&batch)?;
        }
        if is_end {
            break;
        }
    }
    let segments = chunks.sources.to_json(common);
    file.finish(tally, vec![("birdtape.tape".to_owned(), common.tape.clone()), ("birdtape.segments".to_owned(), segments)])
}

/// Makes a partition's rows, on this thread.
pub(super) fn fill(into: &mut dyn Batches, table: Table, merge: Merge, common: &Common) -> Result<Tally, ExportError> {
    let mut tally = Tally::default();
    let mut chunks = Chunks::new(table, merge, common);
    while let Some(chunk) = chunks.next()? {
        let (batch, of_batch) = chunk.into_batch(common)?;
        tally.add(of_batch);
        into.batch(&batch)?;
    }
    Ok(tally)
}

/// Sightings that make one batch: all of each of its rows. Where it ends is told by what it holds, so that it does not
/// depend on threads.
struct Chunk {
    table: Table,
    bytes: Vec<u8>,
    sightings: Vec<(Key, Range<usize>)>,
    n_rows: usize,
    /// The last row, when it has too many sightings to hold them all.
    many: Option<Joined>,
}

/// A partition cut into chunks.
struct Chunks<'a> {
    table: Table,
    merge: Merge,
    common: &'a Common,
    sources: Sources,
    /// Sightings of the last chunk, by which the next one is made large enough.
    room: (usize, usize),
}

impl<'a> Chunks<'a> {
    fn new(table: Table, merge: Merge, common: &'a Common) -> Self {
        Self { table, merge, common, sources: Sources::default(), room: (0, 0) }
    }

    fn next(&mut self) -> Result<Option<Chunk>, ExportError> {
        self.common.go_on()?;
        let (sightings, bytes) = (Vec::with_capacity(self.room.0), Vec::with_capacity(self.room.1));
        let mut chunk = Chunk { table: self.table, bytes, sightings, n_rows: 0, many: None };
        // Sightings of the row at hand.
        let mut n = 0;
        while let Some(key) = self.merge.peek().map_err(ExportError::Spool)? {
            if !chunk.is_of_last(&key) {
                if chunk.is_full() {
                    break;
                }
                n = 0;
                chunk.n_rows += 1;
            }
            n += 1;
            self.sources.add(self.common, &key);
            let Some((key, bytes)) = self.merge.next().map_err(ExportError::Spool)? else { break };
            match &mut chunk.many {
                Some(many) => many.add(key, bytes)?,
                None => chunk.add(key, bytes, n)?,
            }
        }
        self.room = (chunk.sightings.len(), chunk.bytes.len());
        Ok(Some(chunk).filter(|chunk| chunk.n_rows > 0))
    }
}

impl Chunk {
    fn is_full(&self) -> bool {
        self.n_rows >= BATCH_ROWS || self.bytes.len() >= BATCH_BYTES || self.many.is_some()
    }

    /// Whether a sighting belongs to the row that was begun last.
    fn is_of_last(&self, key: &Key) -> bool {
        match (&self.many, self.sightings.last()) {
            (Some(many), _) => many.is_of(key),
            (None, Some((last, _))) => self.table.is_merged() && last.is_of(key),
            (None, None) => false,
        }
    }

    /// Takes a sighting, the row's `n`th.
    fn add(&mut self, key: Key, bytes: &[u8], n: usize) -> Result<(), ExportError> {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(bytes);
        self.sightings.push((key, start..self.bytes.len()));
        if n == MOST_VERSIONS {
            let mut many = Joined::default();
            for (key, range) in self.sightings.drain(self.sightings.len() - n..) {
                many.add(key, &self.bytes[range])?;
            }
            self.many = Some(many);
        }
        Ok(())
    }

    /// Merges sightings into rows.
    fn into_batch(self, common: &Common) -> Result<(RecordBatch, Tally), ExportError> {
        let mut sheet = Sheet::new(self.table, self.n_rows);
        let mut merged = 0;
        let mut text = String::new();
        let is_same = |one: &(Key, Range<usize>), next: &(Key, Range<usize>)| self.table.is_merged() && one.0.is_of(&next.0);
        for row in self.sightings.chunk_by(is_same) {
            let [(key, range), ..] = row else { continue };
            let bytes = &self.bytes[range.clone()];
            match self.table {
                Table::Tweets => {
                    let n = sheet.row(|cells| post::row(cells, &common.sources, row, &self.bytes)).ok_or(ExportError::Bent)?;
                    merged += n - 1;
                }
                Table::ProfileChanges | Table::Follows => {
                    let mut joined = Joined::default();
                    row.iter().try_for_each(|(key, range)| joined.add(*key, &self.bytes[range.clone()]))?;
                    merged += joined.row(&mut sheet, common)? - 1;
                }
                Table::Events => event(&mut sheet, common, key, bytes, &mut text)?,
                Table::Envelopes => envelope(&mut sheet, common, key, bytes)?,
                Table::Engagement => engagement(&mut sheet, common, key, bytes)?,
                Table::DmActivity => dm(&mut sheet, common, key, bytes)?,
                Table::Coverage => return Err(ExportError::Bent),
            }
        }
        if let Some(many) = self.many {
            merged += many.row(&mut sheet, common)? - 1;
        }
        let rows = sheet.n_rows() as u64;
        let batch = sheet.take().map_err(ParquetError::from)?.ok_or(ExportError::Bent)?;
        Ok((batch, Tally { rows, merged }))
    }
}

/// A row that many sightings make, or one of a table whose sightings need not be held.
#[derive(Default)]
struct Joined {
    post: Merging,
    /// Of the other tables: key and bytes of the first by time, and what is summed up.
    other: Option<Other>,
}

struct Other {
    key: Key,
    first: (UnixMicros, Key),
    bytes: Vec<u8>,
    count: u64,
    sources: Vec<u32>,
    via: Vec<crate::model::Via>,
}

impl Joined {
    fn is_of(&self, key: &Key) -> bool {
        self.post.is_of(key) && self.other.as_ref().is_none_or(|other| other.key.is_of(key))
    }

    fn add(&mut self, key: Key, bytes: &[u8]) -> Result<(), ExportError> {
        if key.part.table == Table::Tweets {
            return self.post.add(key, bytes).ok_or(ExportError::Bent);
        }
        let came = Came::get(&mut &*bytes).ok_or(ExportError::Bent)?;
        let first = (came.received_at, key);
        let other = self.other.get_or_insert_with(|| Other {
            key,
            first,
            bytes: bytes.to_vec(),
            count: 0,
            sources: Vec::new(),
            via: Vec::new(),
        });
        if first < other.first {
            other.first = first;
            other.bytes.clear();
            other.bytes.extend_from_slice(bytes);
        }
        other.count += 1;
        if !other.sources.contains(&key.source) {
            other.sources.push(key.source);
        }
        if !other.via.contains(&came.via) {
            other.via.push(came.via);
        }
        Ok(())
    }

    /// Writes the row; gives how many sightings made it.
    fn row(self, sheet: &mut Sheet, common: &Common) -> Result<u64, ExportError> {
        let Some(mut other) = self.other else {
            return sheet.row(|cells| self.post.row(cells, &common.sources)).ok_or(ExportError::Bent);
        };
        other.sources.sort_unstable();
        other.via.sort_unstable();
        match other.key.part.table {
            Table::Follows => follow(sheet, common, &other)?,
            _ => profile(sheet, common, &other)?,
        }
        Ok(other.count)
    }
}

fn gap_id(common: &Common, source: u32, came: &Came) -> Option<String> {
    came.gap.map(|gap| format!("{}-{gap}", common.sources[source as usize]))
}

fn source_of<'a>(common: &'a Common, key: &Key) -> Option<&'a str> {
    common.sources.get(key.source as usize).map(String::as_str)
}

fn extra(text: &str) -> Option<&str> {
    Some(text).filter(|text| !text.is_empty())
}

fn event(sheet: &mut Sheet, common: &Common, key: &Key, mut bytes: &[u8], text: &mut String) -> Result<(), ExportError> {
    use std::fmt::Write as _;
    let sight = EventSight::get(&mut bytes).ok_or(ExportError::Bent)?;
    text.clear();
    match (&sight.id, sight.tweet_id) {
        (Some(id), _) => text.push_str(id),
        (None, Some(id)) => write!(text, "{id}").unwrap_or_default(),
        (None, None) => {}
    }
    sheet.row(|cells| {
        cells.text("source", source_of(common, key));
        cells.int("n", Some(key.n));
        cells.int("index", Some(u64::from(key.index)));
        cells.text("provider", Some(sight.came.provider.name()));
        cells.text("kind", Some(sight.kind.name()));
        cells.text("id", Some(&*text));
        cells.int("tweet_id", sight.tweet_id);
        cells.text("selector", Some(&sight.selector).filter(|selector| !selector.is_empty()));
        cells.text("selector_name", sight.selector_name.as_ref());
        cells.time("published_at", sight.published_at);
        cells.time("provider_at", sight.provider_at);
        cells.time("received_at", Some(sight.came.received_at));
        cells.text("via", Some(sight.came.via.name()));
        cells.text("gap_id", gap_id(common, key.source, &sight.came));
        cells.text("extra", extra(&sight.extra.0));
    });
    Ok(())
}

fn envelope(sheet: &mut Sheet, common: &Common, key: &Key, mut bytes: &[u8]) -> Result<(), ExportError> {
    let sight = EnvelopeSight::get(&mut bytes).ok_or(ExportError::Bent)?;
    let text = std::str::from_utf8(sight.body).ok();
    sheet.row(|cells| {
        cells.text("source", source_of(common, key));
        cells.int("n", Some(key.n));
        cells.text("provider", Some(sight.came.provider.name()));
        cells.text("kind", Some(if sight.is_page { "http" } else { "frame" }));
        cells.int("conn", Some(sight.conn));
        cells.text("via", Some(sight.came.via.name()));
        cells.time("received_at", Some(sight.came.received_at));
        cells.text("gap_id", gap_id(common, key.source, &sight.came));
        cells.int("bytes", Some(sight.body.len() as u64));
        cells.bool("is_json", Some(sight.is_json));
        cells.int("events", Some(sight.events));
        cells.text("problem", sight.problem.as_ref());
        cells.text("raw", text);
        cells.bytes("raw_bytes", text.is_none().then_some(sight.body));
    });
    Ok(())
}

fn engagement(sheet: &mut Sheet, common: &Common, key: &Key, mut bytes: &[u8]) -> Result<(), ExportError> {
    let sight = EngagementSight::get(&mut bytes).ok_or(ExportError::Bent)?;
    sheet.row(|cells| {
        cells.int("tweet_id", sight.tweet_id);
        cells.time("published_at", sight.published_at);
        cells.time("received_at", Some(sight.came.received_at));
        counts(cells, COUNTS, &sight.engagement.counts);
        cells.text("view_state", sight.engagement.view_state.as_ref());
        cells.text("source", source_of(common, key));
        cells.int("n", Some(key.n));
        cells.int("index", Some(u64::from(key.index)));
        cells.text("via", Some(sight.came.via.name()));
        cells.text("gap_id", gap_id(common, key.source, &sight.came));
        cells.text("extra", extra(&sight.engagement.extra.0));
    });
    Ok(())
}

fn dm(sheet: &mut Sheet, common: &Common, key: &Key, mut bytes: &[u8]) -> Result<(), ExportError> {
    let sight = DmSight::get(&mut bytes).ok_or(ExportError::Bent)?;
    sheet.row(|cells| {
        cells.text("conversation_id", Some(&sight.dm.conversation_id));
        cells.text("kind", Some(sight.kind.name()));
        cells.int("user_id", sight.dm.user_id);
        cells.int("message_id", sight.dm.message_id);
        cells.text("text", sight.dm.text.as_ref());
        cells.time("published_at", sight.published_at);
        cells.time("received_at", Some(sight.came.received_at));
        cells.text("source", source_of(common, key));
        cells.int("n", Some(key.n));
        cells.int("index", Some(u64::from(key.index)));
        cells.text("via", Some(sight.came.via.name()));
        cells.text("gap_id", gap_id(common, key.source, &sight.came));
        cells.text("extra", extra(&sight.dm.extra.0));
    });
    Ok(())
}

impl Other {
    /// The columns that all merged tables end with.
    fn seen(&self, cells: &mut Cells<'_>, common: &Common) {
        cells.time("first_received_at", Some(self.first.0));
        cells.int("seen_count", Some(self.count));
        cells.words("sources", self.sources.iter().map(|source| common.sources[*source as usize].as_str()));
        cells.words("via", self.via.iter().map(|via| via.name()));
    }

    fn origin(&self, cells: &mut Cells<'_>, common: &Common) {
        cells.text("envelope_source", source_of(common, &self.first.1));
        cells.int("envelope_n", Some(self.first.1.n));
    }
}

fn profile(sheet: &mut Sheet, common: &Common, other: &Other) -> Result<(), ExportError> {
    let sight = ProfileSight::get(&mut other.bytes.as_slice()).ok_or(ExportError::Bent)?;
    let (change, account) = (&sight.change, &sight.change.account);
    sheet.row(|cells| {
        cells.text("event_id", Some(&sight.id));
        cells.text("platform", change.platform.map(|platform| platform.name()));
        cells.time("observed_at", change.observed_at);
        cells.int("account_id", account.id);
        cells.text("handle", account.handle.as_ref());
        cells.text("name", account.name.as_ref());
        cells.text("bio", account.bio.as_ref());
        cells.text("location", account.location.as_ref());
        cells.text("picture_url", account.picture_url.as_ref());
        cells.int("followers", account.followers);
        cells.int("following", account.following);
        cells.list("changes", &change.changes, |cells, change| {
            cells.text("field", Some(&change.field));
            cells.text("before", change.before.as_ref());
            cells.text("after", change.after.as_ref());
        });
        other.seen(cells, common);
        cells.text("gap_id", gap_id(common, other.first.1.source, &sight.came));
        cells.text("extra", extra(&change.extra.0));
        other.origin(cells, common);
    });
    Ok(())
}

fn follow(sheet: &mut Sheet, common: &Common, other: &Other) -> Result<(), ExportError> {
    let sight = FollowSight::get(&mut other.bytes.as_slice()).ok_or(ExportError::Bent)?;
    let (actor, target) = (&sight.follow.actor, &sight.follow.target);
    sheet.row(|cells| {
        cells.text("event_id", Some(&sight.id));
        cells.text("kind", Some(sight.kind.name()));
        cells.text("platform", sight.follow.platform.map(|platform| platform.name()));
        cells.time("observed_at", sight.follow.observed_at);
        cells.int("actor_id", actor.id);
        cells.text("actor_handle", actor.handle.as_ref());
        cells.text("actor_name", actor.name.as_ref());
        cells.int("actor_followers", actor.followers);
        cells.int("target_id", target.id);
        cells.text("target_handle", target.handle.as_ref());
        cells.text("target_name", target.name.as_ref());
        cells.text("target_bio", target.bio.as_ref());
        cells.int("target_followers", target.followers);
        other.seen(cells, common);
        cells.text("gap_id", gap_id(common, other.first.1.source, &sight.came));
        cells.text("extra", extra(&sight.follow.extra.0));
        other.origin(cells, common);
    });
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use arrow_array::cast::AsArray as _;
    use arrow_array::types::Int64Type;

    use super::*;
    use crate::export::sight::{PostSight, name_post, published_at};
    use crate::export::spool::{Runs, Spool};
    use crate::model::{EventKind, Platform, Post, Provider, Via};

    /// Posts that were seen so often, on their way.
    fn merge(seen: &[u64]) -> (tempfile::TempDir, Part, Merge) {
        let dir = tempfile::tempdir().unwrap();
        let runs = Runs::new(dir.path().to_owned());
        let first = 2_064_689_031_777_615_872;
        let at = published_at(Platform::X, first).unwrap();
        let part = Part { table: Table::Tweets, day: Part::day_of(at) };
        let mut spool = Spool::new(&runs, 100_000);
        for (id, times) in (first..).zip(seen) {
            for n in 0..*times {
                let came = Came { received_at: UnixMicros(n as i64), via: Via::Ws, provider: Provider::TwitterapiIo, gap: None };
                let post = Post { text: Some(format!("{id} for the {n}th time").into()), ..Post::default() };
                let sight = PostSight {
                    came,
                    kind: EventKind::Tweet,
                    published_at: None,
                    selector: "".into(),
                    selector_name: None,
                    post,
                };
                let key = Key { part, at: at.0, id: name_post(Platform::X, id), source: 0, n, index: 0 };
                spool.push(key, |out| sight.put(out)).unwrap();
            }
        }
        spool.flush().unwrap();
        let merge = runs.merge(part, 4).unwrap();
        (dir, part, merge)
    }

    fn common() -> Arc<Common> {
        let sources = vec!["a".to_owned()];
        Arc::new(Common { tape: "t".to_owned(), sources, segments: vec![Vec::new()], stop: Arc::default() })
    }

    /// How often the rows of each batch were seen.
    struct Seen(Vec<Vec<i64>>);

    impl Batches for Seen {
        fn batch(&mut self, batch: &RecordBatch) -> Result<(), ExportError> {
            let counts = batch.column_by_name("seen_count").unwrap().as_primitive::<Int64Type>();
            self.0.push(counts.values().to_vec());
            Ok(())
        }
    }

    #[test]
    fn a_batch_holds_whole_rows_and_ends_with_one_that_has_too_many_sightings() {
        let most = MOST_VERSIONS as u64;
        let (_dir, part, merge) = merge(&[1, 3, 3 * most, 2, most + 1, most, most - 1, 1]);
        let mut seen = Seen(Vec::new());
        let tally = fill(&mut seen, part.table, merge, &common()).unwrap();
        let most = most as i64;
        assert_eq!(seen.0, [vec![1, 3, 3 * most], vec![2, most + 1], vec![most], vec![most - 1, 1]]);
        assert_eq!((tally.rows, tally.merged), (8, 6 * most as u64 - 1));
    }

    #[test]
    fn a_file_does_not_depend_on_threads() {
        let write = |n_helpers: usize| {
            let (dir, part, merge) = merge(&vec![2; 3 * BATCH_ROWS]);
            write(&dir.path().join("file"), part, merge, &common(), n_helpers).unwrap()
        };
        let alone = write(0);
        let rows = 3 * BATCH_ROWS as u64;
        assert_eq!(alone.tally, Tally { rows, merged: rows });
        for n_helpers in [1, 3] {
            assert_eq!(write(n_helpers), alone);
        }
    }
}
