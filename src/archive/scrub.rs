//! Looking at one sealed segment: does every byte of it still hold, and if not, which records are lost?

use std::io::Read;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::{Archive, Hole, Layout, Result, Tape};
use crate::catalog::{BlockRow, Change, SegmentRow};
use crate::model::{Seq, SourceName, UnixMicros};
use crate::segment::{self, BlockEnd, Content, Disk, Line, Reader, SegmentError, Trust, Walk};

/// What a look at a segment found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Looked {
    /// The file.
    pub path: PathBuf,
    /// Bytes read.
    pub bytes: u64,
    /// What does not hold, in words; empty when all does.
    pub flaws: Vec<String>,
    /// Records that cannot be read.
    pub lost: Vec<Hole>,
    /// SHA-256 of what could be read of it.
    pub content: String,
}

impl Looked {
    /// Whether everything holds.
    pub fn is_whole(&self) -> bool {
        self.flaws.is_empty()
    }
}

impl Tape {
    /// Looks at every byte of a sealed segment, through a disk that may be slower than the tape's own. `None` when the file
    /// is not there any more, because it was pruned or compacted meanwhile: the catalog has news.
    ///
    /// # Errors
    /// When the file or the catalog cannot be read; damage is an answer, not an error.
    pub fn look_at(&self, disk: &dyn Disk, row: &SegmentRow) -> Result<Option<Looked>> {
        let source = SourceName::new(&row.source).ok();
        let path = self.layout().sealed(&row.source, &row.day, Seq(row.first_n));
        let blocks = self.catalog().blocks(&row.source, row.first_n)?;
        let looked = match look(disk, path, row, &blocks, source) {
            Err(super::ArchiveError::Segment(SegmentError::Io { source, .. }))
                if source.kind() == std::io::ErrorKind::NotFound =>
            {
                None
            }
            other => Some(other?),
        };
        let is_still_there =
            self.catalog().segments(&row.source)?.iter().any(|now| now.first_n == row.first_n && now.sha256 == row.sha256);
        match looked {
            Some(looked) if looked.is_whole() || is_still_there => Ok(Some(looked)),
            None if is_still_there => {
                let path = self.layout().sealed(&row.source, &row.day, Seq(row.first_n));
                let flaws = vec!["the file is not there".to_owned()];
                let lost =
                    SourceName::new(&row.source).ok().map(|source| hole(row, &blocks, source, Seq(row.first_n), Seq(row.last_n)));
                Ok(Some(Looked { path, bytes: 0, flaws, lost: lost.into_iter().collect(), content: String::new() }))
            }
            _ => Ok(None),
        }
    }
}

fn look(disk: &dyn Disk, path: PathBuf, row: &SegmentRow, blocks: &[BlockRow], source: Option<SourceName>) -> Result<Looked> {
    let (mut reader, mut walk, mut content) = (Reader::open(disk, &path)?, Walk::new(Trust::Chain), Content::default());
    let (mut flaws, mut missing, mut next) = (Vec::new(), Vec::new(), row.first_n);
    let (mut bytes, mut sizes, mut buffer) = (0, Vec::new(), Vec::new());
    while let Some(block) = reader.block_into(buffer)? {
        let proven = walk.block(&block, |line, _| {
            if let Line::Record(record) = line {
                if record.n.0 > next {
                    missing.push((next, record.n.before().0));
                }
                next = next.max(record.n.next().0);
            }
            Ok::<_, SegmentError>(())
        })?;
        let torn = (block.end == BlockEnd::Torn).then(|| "the file ends in the middle of it".to_owned());
        flaws.extend(proven.damage.or(torn).map(|why| format!("block at byte {}: {why}", block.offset)));
        content.update(&block.data[..proven.bytes]);
        bytes += block.bytes;
        sizes.push((block.bytes, proven.span.raw_bytes));
        buffer = block.data;
    }
    if next <= row.last_n {
        missing.push((next, row.last_n));
    }
    if flaws.is_empty() {
        match segment::seek_table(disk, &path) {
            Ok(table) if table == sizes => {}
            Ok(_) => flaws.push("its seek table does not fit its blocks".to_owned()),
            Err(error) => flaws.push(error.to_string()),
        }
    }
    let content = content.hex();
    if flaws.is_empty() && content != row.content && !row.content.is_empty() {
        flaws.push("it does not unpack to what it was sealed with".to_owned());
    }
    if flaws.is_empty() && !missing.is_empty() {
        flaws.push("records are missing in it".to_owned());
    }
    let lost = missing.into_iter().zip(std::iter::repeat(source));
    let lost = lost.filter_map(|((first, last), source)| Some(hole(row, blocks, source?, Seq(first), Seq(last)))).collect();
    Ok(Looked { path, bytes, flaws, lost, content })
}

/// SHA-256 of what a file unpacks to; `None` when not all of it holds.
pub(super) fn content_of(disk: &dyn Disk, path: &Path) -> Result<Option<String>> {
    let (mut reader, mut walk, mut content) = (Reader::open(disk, path)?, Walk::new(Trust::Chain), Content::default());
    let mut buffer = Vec::new();
    while let Some(block) = reader.block_into(buffer)? {
        let proven = walk.block(&block, |_, _| Ok::<_, SegmentError>(()))?;
        if block.end != BlockEnd::Whole || proven.damage.is_some() {
            return Ok(None);
        }
        content.update(&block.data);
        buffer = block.data;
    }
    Ok(Some(content.hex()))
}

/// Lost records with the time they were received in, by what the catalog knows of their blocks.
fn hole(row: &SegmentRow, blocks: &[BlockRow], source: SourceName, first_n: Seq, last_n: Seq) -> Hole {
    let touched = || blocks.iter().filter(|block| block.first_n <= last_n.0 && first_n.0 <= block.last_n);
    Hole {
        source,
        first_n,
        last_n,
        after: UnixMicros(touched().map(|block| block.first_us).min().unwrap_or(row.first_us)),
        before: UnixMicros(touched().map(|block| block.last_us).max().unwrap_or(row.last_us)),
        why: "a block of a sealed segment cannot be read".to_owned(),
    }
}

/// Where a way through the tape stands: `scrub.json`. It is worth nothing but time.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScrubPlace {
    begun: String,
    /// Whether it came to its end.
    pub is_done: bool,
    /// Source of the last segment that was looked at; empty at the beginning.
    pub source: String,
    /// First number of that segment.
    pub first_n: u64,
    /// Segments looked at.
    pub segments: u64,
    /// Bytes of their files.
    pub bytes: u64,
    /// Damaged ones among them.
    pub damaged: u64,
}

impl ScrubPlace {
    /// Stands at the beginning.
    pub fn begin(at: UnixMicros) -> Self {
        Self { begun: at.to_string(), ..Self::default() }
    }

    /// When it was begun.
    pub fn begun(&self) -> UnixMicros {
        UnixMicros::parse_rfc3339(&self.begun).unwrap_or_default()
    }

    /// Reads it from a tape; `None` when there is none, or none that can be read.
    pub fn read(dir: &Path, disk: &dyn Disk) -> Option<Self> {
        let mut text = String::new();
        disk.open(&Layout::new(dir).scrub()).ok()?.take(64 << 10).read_to_string(&mut text).ok()?;
        serde_json::from_str(&text).ok()
    }

    /// Writes it to a tape.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn write(&self, dir: &Path, disk: &dyn Disk) -> Result<()> {
        let layout = Layout::new(dir);
        let text = serde_json::to_string(self).expect("strings and numbers only") + "\n";
        layout.write_whole(disk, &layout.scrub(), text.as_bytes())
    }
}

impl Archive {
    /// Writes lost records into the ledger, unless it tells of them already. Gives the number of the new gap. What was in
    /// their blocks is known no more, so that history is asked for it.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn note_loss(&mut self, hole: &Hole, at: UnixMicros) -> Result<Option<u64>> {
        if self.index.get(&hole.source).is_none_or(|index| index.is_told_lost(hole.first_n, hole.last_n)) {
            return Ok(None);
        }
        self.note_hole(hole, at)?;
        let gap = self.last_n(&hole.source).0;
        let source = hole.source.as_str();
        for row in self.catalog.segments(source)? {
            if row.state != "sealed" || row.last_n < hole.first_n.0 || hole.last_n.0 < row.first_n {
                continue;
            }
            let blocks = self.catalog.blocks(source, row.first_n)?;
            let lost = blocks.iter().filter(|block| hole.first_n.0 <= block.first_n && block.last_n <= hole.last_n.0);
            self.changes.extend(lost.map(|block| Change::ForgetBlock {
                source: source.to_owned(),
                segment_n: row.first_n,
                raw_offset: block.raw_offset,
            }));
        }
        Ok(Some(gap))
    }
}
