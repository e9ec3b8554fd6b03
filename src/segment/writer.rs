//! An open segment: lines in, blocks out, a commit now and then.

use std::path::{Path, PathBuf};

use zstd::stream::raw::{CParameter, Encoder, Operation};
use zstd::zstd_safe::{InBuffer, OutBuffer};

use super::line::{Commit, Header, encode_commit, encode_header, encode_record};
use super::{Chain, Disk, DiskFile, MAX_BLOCK_BYTES, SegmentError};
use crate::model::{Draft, Seq, UnixMicros};

/// Uncompressed bytes gathered before the compressor is called.
const GATHER: usize = 64 << 10;
/// An empty raw block (RFC 8878, 3.1.1.2), put behind each flush.
///
/// The `zstd` program drops what its decoder still holds (up to 128 KiB) when the input ends while its output buffer
/// is full. With one more block to read it asks again, and everything up to the flush comes out.
const EMPTY_BLOCK: [u8; 3] = [0; 3];
/// Compressed bytes gathered before the file is written.
const SPILL: usize = 256 << 10;
/// What a block may hold when a commit line is still to come.
const FULL: u64 = MAX_BLOCK_BYTES as u64 - 1_024;

/// Where a block lies and what it holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BlockSpan {
    /// Offset in the file.
    pub offset: u64,
    /// Bytes in the file.
    pub bytes: u64,
    /// Offset in the uncompressed segment.
    pub raw_offset: u64,
    /// Uncompressed bytes.
    pub raw_bytes: u64,
    /// First record, 0 when there is none.
    pub first_n: Seq,
    /// Last record, 0 when there is none.
    pub last_n: Seq,
    /// Time of the first record.
    pub first_at: UnixMicros,
    /// Time of the last record.
    pub last_at: UnixMicros,
    /// Records.
    pub records: u64,
    /// Commit lines, each of which was a flush.
    pub commits: u64,
}

impl BlockSpan {
    /// Counts a record in.
    pub fn note(&mut self, n: Seq, at: UnixMicros) {
        if self.records == 0 {
            (self.first_n, self.first_at, self.last_at) = (n, at, at);
        }
        self.last_n = n;
        self.first_at = self.first_at.min(at);
        self.last_at = self.last_at.max(at);
        self.records += 1;
    }
}

/// Writes one open segment. After any failed write it refuses everything: what the disk holds is unknown.
pub struct Writer {
    path: PathBuf,
    file: Box<dyn DiskFile>,
    encoder: Encoder<'static>,
    gathered: Vec<u8>,
    out: Vec<u8>,
    chain: Chain,
    raw_at: u64,
    file_at: u64,
    block: BlockSpan,
    block_limit: u64,
    last_n: Seq,
    last_at: UnixMicros,
    poisoned: bool,
    ended: Option<BlockSpan>,
}

impl std::fmt::Debug for Writer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Writer").field("path", &self.path).field("last_n", &self.last_n).finish_non_exhaustive()
    }
}

/// A compressor set as every block wants it.
pub(super) fn encoder(level: i32) -> std::io::Result<Encoder<'static>> {
    let mut encoder = Encoder::new(level)?;
    encoder.set_parameter(CParameter::ChecksumFlag(true))?;
    Ok(encoder)
}

impl Writer {
    /// Begins a segment with its header line, durable with its name.
    ///
    /// # Errors
    /// When the disk refuses; nothing is left to be used then.
    pub fn create(disk: &dyn Disk, path: &Path, header: &Header<'_>, level: i32, block_limit: u64) -> Result<Self, SegmentError> {
        let io = |what, source| SegmentError::io(what, path, source);
        let file = disk.create(path).map_err(|e| io("cannot create", e))?;
        let encoder = encoder(level).map_err(|e| io("cannot start zstd for", e))?;
        let mut writer = Self {
            path: path.to_owned(),
            file,
            encoder,
            gathered: Vec::with_capacity(2 * GATHER),
            out: Vec::with_capacity(SPILL + GATHER),
            chain: Chain::default(),
            raw_at: 0,
            file_at: 0,
            block: BlockSpan::default(),
            block_limit,
            last_n: header.n,
            last_at: header.at,
            poisoned: false,
            ended: None,
        };
        let mut line = Vec::new();
        encode_header(&mut line, header);
        writer.put(&line)?;
        writer.commit(header.at)?;
        disk.reached("segment created, name not durable").map_err(|e| io("cannot create", e))?;
        if let Some(dir) = path.parent() {
            disk.sync_dir(dir).map_err(|e| io("cannot make durable the name of", e))?;
        }
        Ok(writer)
    }

    /// Last record's number (or the header's, when there is none yet).
    pub fn last_n(&self) -> Seq {
        self.last_n
    }

    /// Uncompressed bytes so far.
    pub fn raw_bytes(&self) -> u64 {
        self.raw_at
    }

    /// Compressed bytes handed to the disk so far.
    pub fn bytes(&self) -> u64 {
        self.file_at
    }

    /// Appends a record; it is durable after the next [`commit`](Self::commit).
    ///
    /// Gives the span of the block when this record ended one.
    ///
    /// # Errors
    /// When the disk refuses, now or before.
    pub fn append(&mut self, n: Seq, draft: &Draft, json: bool) -> Result<Option<BlockSpan>, SegmentError> {
        self.check()?;
        let start = self.gathered.len();
        encode_record(&mut self.gathered, n, draft, json);
        let added = (self.gathered.len() - start) as u64;
        if self.is_too_much(added) {
            let line = self.gathered.split_off(start);
            self.end_block(self.last_at)?;
            self.gathered.extend_from_slice(&line);
        }
        let start = self.gathered.len() - added as usize;
        self.chain.update(&self.gathered[start..]);
        self.appended(n, draft.received_at, added)
    }

    /// Appends a record's line as it stands in another segment.
    ///
    /// # Errors
    /// When the disk refuses, now or before.
    pub fn append_line(&mut self, n: Seq, at: UnixMicros, line: &[u8]) -> Result<Option<BlockSpan>, SegmentError> {
        self.check()?;
        if self.is_too_much(line.len() as u64) {
            self.end_block(self.last_at)?;
        }
        self.gathered.extend_from_slice(line);
        self.chain.update(line);
        self.appended(n, at, line.len() as u64)
    }

    /// Whether a block with so much more would be larger than a reader takes.
    fn is_too_much(&self, added: u64) -> bool {
        self.block.records > 0 && self.block.raw_bytes + added > FULL
    }

    fn appended(&mut self, n: Seq, at: UnixMicros, added: u64) -> Result<Option<BlockSpan>, SegmentError> {
        self.raw_at += added;
        self.block.raw_bytes += added;
        self.block.note(n, at);
        (self.last_n, self.last_at) = (n, at);
        self.spill()?;
        // A block that had to end before this record is told first; this one ends with the next record then.
        if self.block.raw_bytes >= self.block_limit && self.ended.is_none() {
            self.end_block(self.last_at)?;
        }
        Ok(self.ended.take())
    }

    /// Writes a commit line, flushes the compressor and the file, and syncs; gives the line's content.
    ///
    /// # Errors
    /// When the disk refuses; the writer is then poisoned, since a second sync may lie.
    pub fn commit(&mut self, at: UnixMicros) -> Result<Commit, SegmentError> {
        self.check()?;
        let commit = self.proof(at)?;
        self.compress()?;
        loop {
            let left = self.run(|encoder, out| encoder.flush(out))?;
            if left == 0 {
                break;
            }
        }
        self.out.extend_from_slice(&EMPTY_BLOCK);
        self.write_out()?;
        let synced = self.file.sync();
        self.guard("cannot sync", synced)?;
        Ok(commit)
    }

    /// Ends the last block and syncs; the segment can then be sealed. Gives the span of that block, if there was one.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn finish(mut self, at: UnixMicros) -> Result<Option<BlockSpan>, SegmentError> {
        self.check()?;
        if self.block.raw_bytes > 0 {
            self.end_block(at)?;
        }
        self.write_out()?;
        let synced = self.file.sync();
        self.guard("cannot sync", synced)?;
        Ok(self.ended.take())
    }

    fn proof(&mut self, at: UnixMicros) -> Result<Commit, SegmentError> {
        let commit = Commit { n: self.last_n, at, bytes: self.raw_at, hash: self.chain.hash() };
        let mut line = Vec::with_capacity(128);
        encode_commit(&mut line, &commit);
        self.chain = Chain::after(commit.hash);
        self.put(&line)?;
        self.block.commits += 1;
        Ok(commit)
    }

    fn put(&mut self, line: &[u8]) -> Result<(), SegmentError> {
        self.gathered.extend_from_slice(line);
        self.chain.update(line);
        self.raw_at += line.len() as u64;
        self.block.raw_bytes += line.len() as u64;
        self.spill()
    }

    fn end_block(&mut self, at: UnixMicros) -> Result<(), SegmentError> {
        self.proof(at)?;
        self.compress()?;
        loop {
            let left = self.run(|encoder, out| encoder.finish(out, true))?;
            if left == 0 {
                break;
            }
        }
        let again = self.encoder.reinit();
        self.guard("cannot restart zstd for", again)?;
        let end = self.file_at + self.out.len() as u64;
        let next = BlockSpan { offset: end, raw_offset: self.raw_at, ..BlockSpan::default() };
        let mut done = std::mem::replace(&mut self.block, next);
        done.bytes = end - done.offset;
        self.ended = Some(done);
        if self.out.len() >= SPILL { self.write_out() } else { Ok(()) }
    }

    fn spill(&mut self) -> Result<(), SegmentError> {
        if self.gathered.len() >= GATHER { self.compress() } else { Ok(()) }
    }

    fn compress(&mut self) -> Result<(), SegmentError> {
        let gathered = std::mem::take(&mut self.gathered);
        let mut input = InBuffer::around(&gathered);
        while input.pos < gathered.len() {
            self.run(|encoder, out| encoder.run(&mut input, out))?;
        }
        self.gathered = gathered;
        self.gathered.clear();
        if self.out.len() >= SPILL { self.write_out() } else { Ok(()) }
    }

    fn run(
        &mut self,
        step: impl FnOnce(&mut Encoder<'static>, &mut OutBuffer<'_, Vec<u8>>) -> std::io::Result<usize>,
    ) -> Result<usize, SegmentError> {
        self.out.reserve(GATHER);
        let pos = self.out.len();
        let mut out = OutBuffer::around_pos(&mut self.out, pos);
        let left = step(&mut self.encoder, &mut out);
        self.guard("cannot compress into", left)
    }

    fn write_out(&mut self) -> Result<(), SegmentError> {
        if self.out.is_empty() {
            return Ok(());
        }
        let written = self.file.append(&self.out);
        self.guard("cannot write", written)?;
        self.file_at += self.out.len() as u64;
        self.out.clear();
        Ok(())
    }

    fn check(&self) -> Result<(), SegmentError> {
        if self.poisoned { Err(SegmentError::Poisoned { path: self.path.clone() }) } else { Ok(()) }
    }

    fn guard<T>(&mut self, what: &'static str, result: std::io::Result<T>) -> Result<T, SegmentError> {
        result.map_err(|source| {
            self.poisoned = true;
            SegmentError::io(what, &self.path, source)
        })
    }
}
