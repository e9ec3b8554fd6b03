//! Reading a tape: records in order, by place, by time, by post id; beside a writer if there is one.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;

use super::index::speaks;
use super::layout::{Layout, TapeInfo};
use super::{ArchiveError, Result, ScopeCoverage, coverage, verify};
use crate::catalog::{BlockRow, Catalog, SegmentRow, SourceRow};
use crate::model::{BodyRef, ConnId, RecordKind, Seq, UnixMicros, Via};
use crate::segment::{Block, BlockEnd, BlockPlace, Disk, Line, Owner, Reader, SegmentError, Trust, Walk, block_at, walk_lines};

/// A tape that is being read. What a writer has not committed is not seen.
pub struct Tape {
    layout: Layout,
    disk: Arc<dyn Disk>,
    catalog: Catalog,
    info: TapeInfo,
}

impl std::fmt::Debug for Tape {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tape").field("dir", &self.layout.dir()).finish_non_exhaustive()
    }
}

/// A record, with its bytes shared among all who hold it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Its whole line, without the line end.
    pub line: Bytes,
    /// Number in its source.
    pub n: Seq,
    /// received_at.
    pub at: UnixMicros,
    /// Sort.
    pub kind: RecordKind,
    /// Provenance.
    pub via: Via,
    /// Connection.
    pub conn: ConnId,
    /// Facts of ours about the body, a JSON object.
    pub info: Option<String>,
    /// The body's bytes as they came off the wire.
    pub body: Bytes,
    /// Whether the body stands in the line verbatim: one JSON object or array.
    pub verbatim: bool,
}

impl Record {
    /// Whether the body is the provider's own words about events: an envelope, or a page of its history.
    pub fn speaks(&self) -> bool {
        speaks(self.kind, self.via)
    }
}

/// Which records are wanted; everything by default.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Span {
    /// First record.
    pub from_n: Option<Seq>,
    /// Received at or after.
    pub from: Option<UnixMicros>,
    /// Received before.
    pub to: Option<UnixMicros>,
}

impl Tape {
    /// Opens a tape for reading.
    ///
    /// # Errors
    /// When it is no tape, of a newer format, or its catalog cannot be read.
    pub fn open(dir: &Path, disk: Arc<dyn Disk>) -> Result<Self> {
        let layout = Layout::new(dir);
        let info = layout.require_info(&*disk)?;
        let catalog = Catalog::open_read_only(&layout.catalog());
        let catalog = catalog.map_err(|source| ArchiveError::NoCatalog { path: dir.to_owned(), source })?;
        Ok(Self { layout, disk, catalog, info })
    }

    /// What `tape.json` says.
    pub fn info(&self) -> &TapeInfo {
        &self.info
    }

    /// Where its files lie.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// The disk it lies on.
    pub fn disk(&self) -> &Arc<dyn Disk> {
        &self.disk
    }

    /// Its catalog.
    pub fn catalog(&self) -> &Catalog {
        &self.catalog
    }

    /// Its sources, by name.
    ///
    /// # Errors
    /// When the catalog cannot be read.
    pub fn sources(&self) -> Result<Vec<SourceRow>> {
        Ok(self.catalog.sources()?)
    }

    /// The source of that name.
    ///
    /// # Errors
    /// When there is none; the error lists those there are.
    pub fn source(&self, name: &str) -> Result<SourceRow> {
        let sources = self.sources()?;
        let known = sources.iter().map(|s| s.name.as_str()).collect::<Vec<_>>().join(", ");
        sources.into_iter().find(|s| s.name == name).ok_or_else(|| ArchiveError::UnknownSource { name: name.to_owned(), known })
    }

    /// Coverage of a source, by scope, version and kind.
    ///
    /// # Errors
    /// When the catalog cannot be read.
    pub fn coverage(&self, source: &str) -> Result<Vec<ScopeCoverage>> {
        coverage::of_source(&self.catalog, source)
    }

    /// What does not add up between coverage, gaps and scopes, in words: a catalog that was damaged.
    ///
    /// # Errors
    /// When the catalog cannot be read.
    pub fn contradiction(&self) -> Result<Option<String>> {
        verify::contradiction(&self.catalog)
    }

    /// Number of the first record of a source whose block reaches `from`, or of what no block has yet.
    ///
    /// # Errors
    /// When the catalog cannot be read.
    pub fn first_n_from(&self, source: &str, from: UnixMicros) -> Result<Seq> {
        let mut behind = Seq(self.catalog.pruned_until(source)?.map_or(0, |(last_n, _)| last_n)).next();
        for segment in self.catalog.segments(source)? {
            for block in self.catalog.blocks(source, segment.first_n)? {
                if block.last_us >= from.0 {
                    return Ok(Seq(block.first_n));
                }
                behind = Seq(block.last_n).next();
            }
        }
        Ok(behind)
    }

    /// Records of a source, in order.
    ///
    /// # Errors
    /// When the catalog cannot be read.
    pub fn records(&self, source: &str, span: Span) -> Result<Records> {
        let committed = self.source(source)?.last_n;
        let segments: VecDeque<SegmentRow> = self.catalog.segments(source)?.into();
        let mut records = Records {
            layout: self.layout.clone(),
            disk: Arc::clone(&self.disk),
            segments,
            owner: self.owner(source),
            committed: Seq(committed),
            span,
            current: None,
            ready: VecDeque::new(),
            damage: Vec::new(),
        };
        records.skip_ahead(self)?;
        Ok(records)
    }

    /// All committed records of a source from a number on, in pieces that can be read side by side.
    ///
    /// # Errors
    /// When the catalog or an open segment cannot be read.
    pub fn pieces(&self, source: &str, from_n: Seq) -> Result<Pieces> {
        let committed = Seq(self.source(source)?.last_n);
        // What was removed on purpose is no hole.
        let pruned = self.catalog.pruned_until(source)?.map_or(0, |(last_n, _)| last_n);
        let (mut pieces, mut holes, mut next) = (Vec::new(), Vec::new(), from_n.max(Seq(pruned).next()));
        for row in self.catalog.segments(source)?.into_iter().filter(|row| row.last_n >= from_n.0 || row.state == "open") {
            let mut add = |first: u64, last: u64, bytes: u64, place: Place| {
                if first > next.0 {
                    holes.push((next, Seq(first).before()));
                }
                next = next.max(Seq(last).next());
                pieces.push(Piece { first_n: Seq(first), last_n: Seq(last), bytes, place });
            };
            if row.state == "open" {
                let span = Span { from_n: Some(from_n.max(Seq(row.first_n))), ..Span::default() };
                let mut records = self.records(source, span)?;
                records.segments.retain(|segment| segment.first_n == row.first_n);
                add(row.first_n, committed.0, row.bytes, Place::Open(Box::new(records)));
                continue;
            }
            let path: Arc<Path> = existing(&self.layout, &*self.disk, &row).into();
            for block in self.catalog.blocks(source, row.first_n)?.into_iter().filter(|block| block.last_n >= from_n.0) {
                let (disk, path) = (Arc::clone(&self.disk), Arc::clone(&path));
                add(block.first_n, block.last_n, block.bytes, Place::Block { disk, path, place: place_of(&block), committed });
            }
        }
        if next <= committed {
            holes.push((next, committed));
        }
        Ok(Pieces { pieces, holes })
    }

    /// Records of several sources, in the order they were received.
    ///
    /// # Errors
    /// When the catalog cannot be read.
    pub fn merged(&self, sources: &[String], span: Span) -> Result<Merged> {
        let mut merged = Merged { feeds: Vec::new(), heads: BinaryHeap::new() };
        for name in sources {
            merged.feeds.push(Feed { name: name.as_str().into(), records: self.records(name, span)?, head: None });
        }
        for feed in 0..merged.feeds.len() {
            merged.pull(feed)?;
        }
        Ok(merged)
    }

    /// Records that hold an event of that post id, as (source, record), by source and order. `holds` reads an
    /// envelope or a page of history and says whether it does; the catalog only knows which blocks may.
    ///
    /// # Errors
    /// When the catalog or a segment cannot be read.
    pub fn with_id(&self, id: u64, mut holds: impl FnMut(&SourceRow, &Record) -> bool) -> Result<Vec<(SourceRow, Record)>> {
        let mut found = Vec::new();
        for source in self.sources()? {
            let mut take = |data: Bytes, committed: Seq| {
                each_record(&data, |record| {
                    if record.n <= committed && holds(&source, &record) {
                        found.push((source.clone(), record));
                    }
                });
            };
            for block in self.catalog.blocks_with_id(id)?.into_iter().filter(|b| b.source == source.name) {
                let segments = self.catalog.segments(&source.name)?;
                let Some(row) = segments.iter().find(|s| s.first_n == block.segment_n) else { continue };
                let path = existing(&self.layout, &*self.disk, row);
                take(block_with(&*self.disk, &path, place_of(&block), Seq(block.first_n))?.data.into(), Seq(source.last_n));
            }
            self.each_unindexed(&source.name, |block| take(block, Seq(source.last_n)))?;
        }
        found.sort_by(|a, b| (&a.0.name, a.1.n).cmp(&(&b.0.name, b.1.n)));
        found.dedup_by(|a, b| a.0.name == b.0.name && a.1.n == b.1.n);
        Ok(found)
    }

    /// Records of the provider's words of which the index does not know what is in them: those a recorder is writing at
    /// the moment, in a block that is not ended yet.
    ///
    /// # Errors
    /// When the catalog or a segment cannot be read.
    pub fn unindexed(&self, source: &str, mut each: impl FnMut(Record)) -> Result<()> {
        let committed = Seq(self.source(source)?.last_n);
        self.each_unindexed(source, |block| {
            each_record(&block, |record| {
                if record.n <= committed && record.speaks() {
                    each(record);
                }
            });
        })
    }

    fn owner(&self, source: &str) -> Owner {
        Owner { tape: self.info.tape.clone(), source: source.to_owned() }
    }

    /// The block a recorder is writing has no row yet.
    fn each_unindexed(&self, source: &str, mut each: impl FnMut(Bytes)) -> Result<()> {
        for row in self.catalog.segments(source)?.into_iter().filter(|s| s.state == "open") {
            let last = self.catalog.blocks(source, row.first_n)?.into_iter().max_by_key(|block| block.offset);
            let mut reader = Reader::open(&*self.disk, &existing(&self.layout, &*self.disk, &row))?;
            let mut walk = Walk::new(Trust::Chain).of(self.owner(source));
            // The last block with a row says how the chain goes on.
            if let Some(last) = &last {
                reader.seek(last.offset)?;
                walk = Walk::behind(Trust::Chain);
            }
            while let Some(mut block) = reader.next_block()? {
                let (proven, _) = walk.prove(&block);
                if last.as_ref().is_none_or(|last| block.offset > last.offset) {
                    block.data.truncate(proven);
                    each(block.data.into());
                }
            }
        }
        Ok(())
    }
}

/// A source's records in pieces.
#[derive(Debug, Default)]
pub struct Pieces {
    /// In order.
    pub pieces: Vec<Piece>,
    /// First and last of numbers that no piece has: damage.
    pub holes: Vec<(Seq, Seq)>,
}

/// A stretch of a source's records that can be read by itself, on any thread: a sealed block, or an open segment.
pub struct Piece {
    /// Number of its first record.
    pub first_n: Seq,
    /// Number of its last record.
    pub last_n: Seq,
    /// Its bytes in the file.
    pub bytes: u64,
    place: Place,
}

enum Place {
    Block { disk: Arc<dyn Disk>, path: Arc<Path>, place: BlockPlace, committed: Seq },
    Open(Box<Records>),
}

impl std::fmt::Debug for Piece {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Piece").field("first_n", &self.first_n).field("last_n", &self.last_n).finish_non_exhaustive()
    }
}

impl Piece {
    /// Hands out its committed records in order, and says what had to be passed over.
    ///
    /// # Errors
    /// When the file cannot be read; damage is no error.
    pub fn read(self, mut each: impl FnMut(Record)) -> Result<Vec<String>> {
        match self.place {
            Place::Block { disk, path, place, committed } => match block_with(&*disk, &path, place, self.first_n) {
                Ok(block) => {
                    each_record(&block.data.into(), |record| {
                        if (self.first_n..=self.last_n.min(committed)).contains(&record.n) {
                            each(record);
                        }
                    });
                    Ok(Vec::new())
                }
                Err(SegmentError::Damaged { offset, why, .. }) => Ok(vec![format!("block at byte {offset}: {why}")]),
                Err(SegmentError::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {
                    Ok(vec![format!("segment {} is not there", path.display())])
                }
                Err(error) => Err(error.into()),
            },
            Place::Open(mut records) => {
                while let Some(record) = records.next()? {
                    each(record);
                }
                Ok(records.damage().to_vec())
            }
        }
    }
}

/// Where the catalog says that a block lies.
fn place_of(row: &BlockRow) -> BlockPlace {
    BlockPlace { offset: row.offset, bytes: row.bytes, raw_bytes: row.raw_bytes }
}

/// The block at a place that holds record `first_n`. Where the segment was compacted since its rows were read, the block
/// lies elsewhere, and is looked for.
fn block_with(disk: &dyn Disk, path: &Path, place: BlockPlace, first_n: Seq) -> std::result::Result<Block, SegmentError> {
    /// Goes on at records until it is told enough.
    fn any(block: &Block, mut is_it: impl FnMut(Seq) -> Option<bool>) -> bool {
        let found = walk_lines(&block.data, |line| match Line::parse(line) {
            Some(Line::Record(record)) => is_it(record.n).map_or(Ok(()), Err),
            _ => Ok(()),
        });
        found == Err(true)
    }
    let error = match block_at(disk, path, place) {
        Ok(block) if any(&block, |n| Some(n == first_n)) => return Ok(block),
        Err(error @ SegmentError::Io { .. }) => return Err(error),
        Ok(_) => None,
        Err(error) => Some(error),
    };
    let mut reader = Reader::open(disk, path)?;
    while let Some(block) = reader.next_block()? {
        if block.end == BlockEnd::Whole && any(&block, |n| (n == first_n).then_some(true)) {
            return Ok(block);
        }
    }
    let gone =
        || SegmentError::Damaged { path: path.to_owned(), offset: place.offset, why: format!("record {first_n} is not there") };
    Err(error.unwrap_or_else(gone))
}

/// A segment's file: an open one may have been sealed since its row was read.
fn existing(layout: &Layout, disk: &dyn Disk, row: &SegmentRow) -> PathBuf {
    let sealed = layout.sealed(&row.source, &row.day, Seq(row.first_n));
    let open = layout.open(&row.source, &row.day, Seq(row.first_n));
    if row.state == "open" && matches!(disk.len(&open), Ok(Some(_))) { open } else { sealed }
}

fn each_record(data: &Bytes, mut each: impl FnMut(Record)) {
    let done = walk_lines(data, |line| {
        if let Some(Line::Record(record)) = Line::parse(line) {
            let shared = data.slice_ref(line);
            let (verbatim, body) = match record.body {
                BodyRef::Raw(raw) => (true, data.slice_ref(raw)),
                BodyRef::Text(_) | BodyRef::B64(_) => (false, Bytes::from(record.bytes().unwrap_or_default().into_owned())),
            };
            each(Record {
                line: shared,
                n: record.n,
                at: record.at,
                kind: record.kind,
                via: record.via,
                conn: record.conn,
                info: record.info.map(str::to_owned),
                body,
                verbatim,
            });
        }
        Ok::<_, std::convert::Infallible>(())
    });
    match done {
        Ok(()) => {}
        Err(never) => match never {},
    }
}

/// Records of one source, block by block.
pub struct Records {
    layout: Layout,
    disk: Arc<dyn Disk>,
    segments: VecDeque<SegmentRow>,
    owner: Owner,
    committed: Seq,
    span: Span,
    current: Option<(Reader, Walk, bool)>,
    ready: VecDeque<Record>,
    /// What could not be read, in words.
    damage: Vec<String>,
}

impl std::fmt::Debug for Records {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Records").field("segments", &self.segments.len()).field("span", &self.span).finish_non_exhaustive()
    }
}

impl Records {
    /// Uses the index to begin near the first wanted record.
    fn skip_ahead(&mut self, tape: &Tape) -> Result<()> {
        let mut block = None;
        if let Some(from) = self.span.from
            && let Some(row) = self.segments.front()
        {
            block = tape.catalog.first_block_from(&row.source, from.0)?;
            match &block {
                Some(found) => self.segments.retain(|s| s.first_n >= found.segment_n),
                // Not in any block with a row: only an open segment can have it.
                None => self.segments.retain(|s| s.state == "open" && s.last_us >= from.0),
            }
        }
        if let Some(from_n) = self.span.from_n {
            self.segments.retain(|s| s.last_n >= from_n.0);
            if let Some(row) = self.segments.front() {
                let blocks = tape.catalog.blocks(&row.source, row.first_n)?;
                block = blocks.into_iter().find(|b| b.last_n >= from_n.0).or(block);
            }
        }
        if let (Some(block), Some(row)) = (block, self.segments.front())
            && row.state == "sealed"
            && row.first_n == block.segment_n
        {
            let row = self.segments.pop_front().expect("looked at above");
            let path = existing(&self.layout, &*self.disk, &row);
            let mut reader = Reader::open(&*self.disk, &path)?;
            // One that was compacted meanwhile is read from its beginning.
            let is_as_known = self.disk.len(&path).is_ok_and(|bytes| bytes == Some(row.bytes));
            let walk = if is_as_known {
                reader.seek(block.offset)?;
                Walk::behind(Trust::Chain)
            } else {
                Walk::new(Trust::Chain)
            };
            self.current = Some((reader, walk.of(self.owner.clone()), true));
        }
        Ok(())
    }

    /// The next record.
    ///
    /// # Errors
    /// When a file cannot be read. Damage is no error: it is passed over and told by [`damage`](Self::damage).
    #[allow(clippy::should_implement_trait, reason = "an iterator cannot give errors and be asked about damage as well")]
    pub fn next(&mut self) -> Result<Option<Record>> {
        loop {
            if let Some(record) = self.ready.pop_front() {
                return Ok(Some(record));
            }
            if !self.load_block()? {
                return Ok(None);
            }
        }
    }

    /// What had to be passed over so far.
    pub fn damage(&self) -> &[String] {
        &self.damage
    }

    fn load_block(&mut self) -> Result<bool> {
        if self.current.is_none() {
            let Some(row) = self.segments.pop_front() else { return Ok(false) };
            if self.span.to.is_some_and(|to| row.first_us >= to.0) {
                return Ok(true);
            }
            let path = existing(&self.layout, &*self.disk, &row);
            match Reader::open(&*self.disk, &path) {
                Ok(reader) => {
                    let sealed = row.state == "sealed" || path.extension().is_some_and(|e| e == "zst");
                    self.current = Some((reader, Walk::new(Trust::Chain).of(self.owner.clone()), sealed));
                }
                Err(SegmentError::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {
                    self.damage.push(format!("segment {} is not there", path.display()));
                }
                Err(error) => return Err(error.into()),
            }
            return Ok(true);
        }
        let Some((reader, walk, sealed)) = &mut self.current else { return Ok(true) };
        let Some(block) = reader.next_block()? else {
            self.current = None;
            return Ok(true);
        };
        // Its lines are looked at once, below. A checksum alone would take a block from elsewhere.
        let (proven, damage) = walk.prove(&block);
        let torn = *sealed && block.end == BlockEnd::Torn;
        if let Some(why) = damage.or(torn.then(|| "the file ends in the middle".to_owned())) {
            self.damage.push(format!("block at byte {}: {why}", block.offset));
        }
        let mut data = block.data;
        data.truncate(proven);
        let (span, committed) = (self.span, self.committed);
        let mut past_the_end = false;
        let ready = &mut self.ready;
        each_record(&Bytes::from(data), |record| {
            let after_start = span.from_n.is_none_or(|n| record.n >= n) && span.from.is_none_or(|at| record.at >= at);
            past_the_end |= record.n > committed;
            if after_start && span.to.is_none_or(|at| record.at < at) && record.n <= committed {
                ready.push_back(record);
            }
        });
        if past_the_end {
            self.current = None;
            self.segments.clear();
        }
        Ok(true)
    }
}

struct Feed {
    name: Arc<str>,
    records: Records,
    head: Option<Record>,
}

/// Records of several sources, merged by the time they were received.
pub struct Merged {
    feeds: Vec<Feed>,
    heads: BinaryHeap<Reverse<(UnixMicros, usize)>>,
}

impl std::fmt::Debug for Merged {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Merged").field("feeds", &self.feeds.len()).finish_non_exhaustive()
    }
}

impl Merged {
    /// The next record, with its source's name.
    ///
    /// # Errors
    /// When a file cannot be read.
    #[allow(clippy::should_implement_trait, reason = "an iterator cannot give errors and be asked about damage as well")]
    pub fn next(&mut self) -> Result<Option<(Arc<str>, Record)>> {
        let Some(Reverse((_, feed))) = self.heads.pop() else { return Ok(None) };
        let record = self.feeds[feed].head.take();
        let name = Arc::clone(&self.feeds[feed].name);
        self.pull(feed)?;
        Ok(record.map(|record| (name, record)))
    }

    /// What had to be passed over so far.
    pub fn damage(&self) -> impl Iterator<Item = (&str, &String)> {
        self.feeds.iter().flat_map(|feed| feed.records.damage().iter().map(|words| (&*feed.name, words)))
    }

    fn pull(&mut self, feed: usize) -> Result<()> {
        let slot = &mut self.feeds[feed];
        slot.head = slot.records.next()?;
        if let Some(record) = &slot.head {
            self.heads.push(Reverse((record.at, feed)));
        }
        Ok(())
    }
}
