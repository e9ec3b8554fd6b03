//! Compacting: a sealed segment packed anew, in its own place.

use std::ops::ControlFlow;

use super::index::block_row;
use super::writer::segment_row;
use super::{Archive, ArchiveError, Fact, Result, Tape};
use crate::catalog::{BlockRow, Change, IdSet, SegmentRow};
use crate::model::{Seq, SourceName, UnixMicros};
use crate::segment::{self, BlockSpan, Packing};

/// What compacting a segment came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Compacted {
    /// It is smaller now.
    Smaller {
        /// Bytes of the file before.
        before: u64,
        /// Bytes of the file now.
        after: u64,
    },
    /// It would not be smaller; it is as it was.
    AsBefore,
    /// The work was stopped; it is as it was.
    Stopped,
}

impl Tape {
    /// Whether a sealed segment was compacted before.
    ///
    /// # Errors
    /// When its file cannot be read.
    pub fn is_compact(&self, segment: &SegmentRow) -> Result<bool> {
        let path = self.layout().sealed(&segment.source, &segment.day, Seq(segment.first_n));
        Ok(segment::is_compact(&**self.disk(), &path)?)
    }
}

impl Archive {
    /// Packs a sealed segment anew and puts it in its own place. What it unpacks to is read back and compared first; a kill
    /// at any moment leaves the file of before or the new one. The tape gets a note with the digests of both.
    ///
    /// # Errors
    /// [`SegmentError::Damaged`](segment::SegmentError::Damaged) when the segment does not hold, which changes nothing; after
    /// anything else the archive must be opened again.
    pub fn compact(
        &mut self,
        source: &SourceName,
        segment: &SegmentRow,
        packing: Packing,
        at: UnixMicros,
        go_on: &mut dyn FnMut(u64) -> ControlFlow<()>,
    ) -> Result<Compacted> {
        self.check()?;
        let first_n = Seq(segment.first_n);
        let path = self.layout.sealed(source.as_str(), &segment.day, first_n);
        let partial = self.layout.partial(source.as_str(), &segment.day, first_n);
        let Some(sealed) = segment::compact(&*self.disk, &path, &partial, packing, go_on)? else { return Ok(Compacted::Stopped) };
        let known = self.catalog.blocks(source.as_str(), first_n.0)?;
        let is_the_same = sealed.content == segment.content && sealed.records() == segment.records;
        if !is_the_same || sealed.bytes >= segment.bytes {
            self.disk.remove(&partial).map_err(|source| ArchiveError::Io { what: "cannot remove", path: partial, source })?;
            if is_the_same {
                return Ok(Compacted::AsBefore);
            }
            let why = "it does not unpack to what the catalog says it was sealed with".to_owned();
            return Err(segment::SegmentError::Damaged { path, offset: 0, why }.into());
        }
        let in_place = self.put_in_place(&partial, &path);
        self.guard(in_place)?;
        self.changes.extend(Change::replace_segment(segment_row(source.as_str(), first_n, &segment.day, &sealed)));
        let joined = sealed.blocks.iter().filter(|span| span.records > 0);
        self.changes.extend(joined.map(|span| Change::Block(joined_row(source.as_str(), first_n, span, &known))));
        let fact = Fact::Compacted {
            segment: first_n.0,
            bytes_before: segment.bytes,
            sha256_before: segment.sha256.clone(),
            bytes: sealed.bytes,
            sha256: sealed.sha256,
            content: sealed.content,
        };
        self.remark(source, at, &fact)?;
        self.commit(at)?;
        Ok(Compacted::Smaller { before: segment.bytes, after: sealed.bytes })
    }

    /// Replaces a file by another one that is durable already.
    pub(super) fn put_in_place(&self, from: &std::path::Path, to: &std::path::Path) -> Result<()> {
        let io = |what, path: &std::path::Path| {
            let path = path.to_owned();
            move |source| ArchiveError::Io { what, path, source }
        };
        self.disk.rename(from, to).map_err(io("cannot rename", from))?;
        self.reached("in place, name not durable")?;
        let dir = to.parent().unwrap_or(to);
        self.disk.sync_dir(dir).map_err(io("cannot make durable", dir))?;
        self.reached("in place, catalog behind")
    }
}

/// The row of a block that was joined of others.
fn joined_row(source: &str, first_n: Seq, span: &BlockSpan, known: &[BlockRow]) -> BlockRow {
    let within = span.raw_offset..span.raw_offset + span.raw_bytes;
    let mut ids: Vec<u64> =
        known.iter().filter(|block| within.contains(&block.raw_offset)).flat_map(|block| block.ids.iter()).collect();
    block_row(source, first_n.0, span, IdSet::pack(&mut ids))
}
