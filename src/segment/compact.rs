//! Compacting: a sealed segment again, in larger blocks and packed harder. What it unpacks to stays, byte for byte.

use std::num::NonZeroUsize;
use std::ops::ControlFlow;
use std::path::Path;

use zstd::stream::raw::{CParameter, Encoder};

use super::reader::{Block, BlockEnd, Reader, Trust, Walk};
use super::seal::{Content, Output, check_pack, hex, pack, read_back};
use super::writer::encoder;
use super::{BlockSpan, Disk, MAX_BLOCK_BYTES, Sealed, SegmentError};

/// How hard a segment is packed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packing {
    /// zstd level.
    pub level: i32,
    /// Uncompressed bytes in a block, about: whole blocks of before are joined up to this. Not above [`Packing::BLOCK_BYTES_MAX`].
    pub block_bytes: u64,
    /// Blocks that are packed side by side.
    pub threads: NonZeroUsize,
}

impl Packing {
    /// Largest [`block_bytes`](Self::block_bytes): whoever reads a block holds all of it in memory.
    pub const BLOCK_BYTES_MAX: u64 = MAX_BLOCK_BYTES as u64 / 2;

    /// Narrowest window of a compacted block. It is wider than what the levels up to 19 take by themselves, and so its mark.
    const WINDOW_LOG_MIN: u32 = 24;

    fn encoder(self) -> std::io::Result<Encoder<'static>> {
        let mut encoder = encoder(self.level)?;
        let whole_block = self.block_bytes.clamp(1, Self::BLOCK_BYTES_MAX).next_power_of_two().ilog2();
        encoder.set_parameter(CParameter::WindowLog(whole_block.max(Self::WINDOW_LOG_MIN)))?;
        encoder.set_parameter(CParameter::EnableLongDistanceMatching(true))?;
        Ok(encoder)
    }
}

/// Whether a sealed segment was compacted before, by its first block's window.
///
/// # Errors
/// When the file cannot be read.
pub fn is_compact(disk: &dyn Disk, path: &Path) -> Result<bool, SegmentError> {
    let mut head = [0u8; 6];
    let read = disk.open(path).and_then(|mut file| std::io::Read::read_exact(&mut file, &mut head));
    match read {
        Ok(()) => {}
        Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => return Ok(false),
        Err(error) => return Err(SegmentError::io("cannot read", path, error)),
    }
    // RFC 8878, 3.1.1.1: behind the magic number a descriptor; unless its bit 5 is set, the window's size follows.
    let (descriptor, window) = (head[4], head[5]);
    Ok(descriptor & 0x20 == 0 && 10 + u32::from(window >> 3) >= Packing::WINDOW_LOG_MIN)
}

/// Writes the sealed segment at `from` again at `partial`, proven and durable; renaming it is the caller's.
///
/// `None` when `go_on`, which is told of packed bytes read and may stop the work, said so; the file is gone then.
///
/// # Errors
/// [`SegmentError::Damaged`] when not every byte of it holds: a damaged segment is to be repaired, not compacted.
pub fn compact(
    disk: &dyn Disk,
    from: &Path,
    partial: &Path,
    packing: Packing,
    go_on: &mut dyn FnMut(u64) -> ControlFlow<()>,
) -> Result<Option<Sealed>, SegmentError> {
    let io = |what, path: &Path, source| SegmentError::io(what, path, source);
    remove_if_there(disk, partial)?;
    let file = disk.create(partial).map_err(|e| io("cannot create", partial, e))?;
    let mut out = Output::new(partial, file);
    let mut joined =
        Joined { reader: Reader::open(disk, from)?, walk: Walk::new(Trust::Chain), ahead: None, limit: packing.block_bytes };
    let mut content = Content::default();
    loop {
        let mut group = Vec::new();
        while group.len() < packing.threads.get()
            && let Some(next) = joined.next(from)?
        {
            group.push(next);
        }
        if group.is_empty() {
            break;
        }
        let packed = pack_all(packing, &group).map_err(|e| io("cannot compress into", partial, e))?;
        for ((data, span), packed) in group.iter().zip(packed) {
            check_pack(&packed, data, partial, out.written)?;
            content.update(data);
            out.block(&packed, *span)?;
        }
        let read = group.iter().map(|(_, span)| span.bytes).sum();
        if go_on(read).is_break() {
            drop(out);
            remove_if_there(disk, partial)?;
            return Ok(None);
        }
    }
    out.finish()?;
    disk.reached("compacted written, not verified").map_err(|e| io("cannot compact", from, e))?;
    let raw_bytes = out.blocks.iter().map(|b| b.raw_bytes).sum();
    let (sha256, content) = (hex(&sha2::Digest::finalize(out.digest)), content.hex());
    read_back(disk, partial, &sha256)?;
    unpacks_to(disk, partial, &content, joined.walk.last_hash)?;
    disk.reached("compacted verified, not in place").map_err(|e| io("cannot compact", from, e))?;
    let (blocks, bytes, hash) = (out.blocks, out.written, joined.walk.last_hash);
    Ok(Some(Sealed { blocks, bytes, raw_bytes, sha256, content, hash, torn_bytes: 0 }))
}

fn remove_if_there(disk: &dyn Disk, path: &Path) -> Result<(), SegmentError> {
    match disk.len(path).map_err(|e| SegmentError::io("cannot look at", path, e))? {
        Some(_) => disk.remove(path).map_err(|e| SegmentError::io("cannot remove", path, e)),
        None => Ok(()),
    }
}

/// Blocks of before, joined.
struct Joined {
    reader: Reader,
    walk: Walk,
    ahead: Option<(Block, BlockSpan)>,
    limit: u64,
}

impl Joined {
    /// The next bytes that become one block, with a span whose `bytes` are those of the file they came from.
    fn next(&mut self, path: &Path) -> Result<Option<(Vec<u8>, BlockSpan)>, SegmentError> {
        let Some((first, mut span)) = self.take(path)? else { return Ok(None) };
        let mut data = first.data;
        while let Some((block, more)) = self.take(path)? {
            if span.raw_bytes + more.raw_bytes > self.limit {
                self.ahead = Some((block, more));
                break;
            }
            data.extend_from_slice(&block.data);
            join(&mut span, &more);
        }
        Ok(Some((data, span)))
    }

    fn take(&mut self, path: &Path) -> Result<Option<(Block, BlockSpan)>, SegmentError> {
        if let Some(ahead) = self.ahead.take() {
            return Ok(Some(ahead));
        }
        let Some(block) = self.reader.next_block()? else { return Ok(None) };
        let proven = self.walk.block(&block, |_, _| Ok::<_, SegmentError>(()))?;
        let torn = (block.end != BlockEnd::Whole).then(|| "the block is not whole".to_owned());
        match proven.damage.or(torn) {
            Some(why) => Err(SegmentError::Damaged { path: path.to_owned(), offset: block.offset, why }),
            None => Ok(Some((block, proven.span))),
        }
    }
}

fn join(span: &mut BlockSpan, more: &BlockSpan) {
    span.bytes += more.bytes;
    span.raw_bytes += more.raw_bytes;
    span.commits += more.commits;
    if more.records == 0 {
        return;
    }
    if span.records == 0 {
        (span.first_n, span.first_at, span.last_at) = (more.first_n, more.first_at, more.last_at);
    }
    span.last_n = more.last_n;
    span.first_at = span.first_at.min(more.first_at);
    span.last_at = span.last_at.max(more.last_at);
    span.records += more.records;
}

/// Packs blocks side by side.
fn pack_all(packing: Packing, group: &[(Vec<u8>, BlockSpan)]) -> std::io::Result<Vec<Vec<u8>>> {
    let one = |data: &[u8]| pack(&mut packing.encoder()?, data);
    std::thread::scope(|scope| {
        let work: Vec<_> = group.iter().map(|(data, _)| scope.spawn(|| one(data))).collect();
        let panicked = |_| Err(std::io::Error::other("the compressor panicked"));
        work.into_iter().map(|handle| handle.join().unwrap_or_else(panicked)).collect()
    })
}

/// Reads a file as any reader will, and compares what it unpacks to.
fn unpacks_to(disk: &dyn Disk, path: &Path, content: &str, hash: u64) -> Result<(), SegmentError> {
    let (mut reader, mut walk, mut found) = (Reader::open(disk, path)?, Walk::new(Trust::Chain), Content::default());
    let mut buffer = Vec::new();
    while let Some(block) = reader.block_into(buffer)? {
        let proven = walk.block(&block, |_, _| Ok::<_, SegmentError>(()))?;
        if let Some(why) = proven.damage {
            return Err(SegmentError::Damaged { path: path.to_owned(), offset: block.offset, why });
        }
        found.update(&block.data[..proven.bytes]);
        buffer = block.data;
    }
    let found = found.hex();
    if found == content && walk.last_hash == hash {
        return Ok(());
    }
    let why = format!("read back after compacting: it unpacks to {found} instead of {content}");
    Err(SegmentError::Damaged { path: path.to_owned(), offset: 0, why })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::UnixMicros;
    use crate::segment::MemDisk;
    use crate::segment::tests::write;

    #[test]
    fn a_file_that_unpacks_to_something_else_is_refused() {
        let disk = MemDisk::default();
        let [open, partial, sealed] = ["1.open", "1.partial", "1"].map(Path::new);
        write(&disk, open, 50, 4_096).finish(UnixMicros(9)).unwrap();
        let found = crate::segment::seal(&disk, open, partial, sealed, 3).unwrap();
        unpacks_to(&disk, sealed, &found.content, found.hash).unwrap();
        let is_refused =
            |content: &str, hash| matches!(unpacks_to(&disk, sealed, content, hash), Err(SegmentError::Damaged { .. }));
        assert!(is_refused("0", found.hash) && is_refused(&found.content, found.hash ^ 1));
    }
}
