//! Sealing: an open segment becomes a file of large independent blocks with a seek table, proven by reading back.

use std::io::{Read, SeekFrom};
use std::path::Path;

use sha2::{Digest, Sha256};
use zeekstd::SeekTable;
use zstd::stream::raw::{Encoder, Operation};
use zstd::zstd_safe::{InBuffer, OutBuffer};

use super::reader::{BlockEnd, Reader, Trust, Walk};
use super::writer::encoder;
use super::{BlockSpan, Disk, DiskFile, DiskRead, SegmentError};
use crate::model::Seq;

/// A block with more flushes than one per this many uncompressed bytes is packed anew: flushes cost size.
const FLUSH_SPACING: u64 = 256 << 10;

/// The end of a seek table: the number of blocks, a byte of flags, and this.
const TABLE_END: u64 = 9;
const SEEKABLE_MAGIC: [u8; 4] = 0x8f92_eab1_u32.to_le_bytes();
/// Least that a block takes up in it.
const TABLE_ENTRY: u64 = 8;

/// What became of a segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sealed {
    /// Its blocks.
    pub blocks: Vec<BlockSpan>,
    /// Bytes in the file, seek table included.
    pub bytes: u64,
    /// Uncompressed bytes.
    pub raw_bytes: u64,
    /// SHA-256 of the file, lower-case hex.
    pub sha256: String,
    /// SHA-256 of the uncompressed bytes, lower-case hex: what `zstd -dc FILE | sha256sum` says.
    pub content: String,
    /// Last commit's hash.
    pub hash: u64,
    /// Bytes of the open file behind the last good commit; they were never announced.
    pub torn_bytes: u64,
}

impl Sealed {
    /// Last record, 0 when there is none.
    pub fn last_n(&self) -> Seq {
        self.blocks.iter().rev().find(|b| b.records > 0).map_or(Seq(0), |b| b.last_n)
    }

    /// Number of records.
    pub fn records(&self) -> u64 {
        self.blocks.iter().map(|b| b.records).sum()
    }
}

/// Writes the proven part of the open segment at `open` as a sealed one at `sealed`, by way of `partial`.
///
/// The uncompressed bytes stay what they are. A block that is whole and was rarely flushed is copied, the others
/// are packed anew. The result is read back and compared with the chain of commit hashes before it gets its name;
/// only then does the open file go.
///
/// # Errors
/// [`SegmentError::Damaged`] when a whole block in the middle does not hold (the caller salvages what follows);
/// I/O errors otherwise. The open file is untouched until the sealed one is durable.
pub fn seal(disk: &dyn Disk, open: &Path, partial: &Path, sealed: &Path, level: i32) -> Result<Sealed, SegmentError> {
    let io = |what, path: &Path, source| SegmentError::io(what, path, source);
    if disk.len(partial).map_err(|e| io("cannot look at", partial, e))?.is_some() {
        disk.remove(partial).map_err(|e| io("cannot remove", partial, e))?;
    }
    let file = disk.create(partial).map_err(|e| io("cannot create", partial, e))?;
    let (mut out, mut content) = (Output::new(partial, file), Content::default());
    let mut reader = Reader::open(disk, open)?;
    let mut walk = Walk::new(Trust::Chain);
    let mut packer = encoder(level).map_err(|e| io("cannot start zstd for", partial, e))?;
    let mut torn_bytes = 0;
    let mut buffer = Vec::new();
    while let Some(block) = reader.block_into(buffer)? {
        let proven = walk.block(&block, |_, _| Ok::<_, SegmentError>(()))?;
        if let Some(why) = proven.damage {
            return Err(SegmentError::Damaged { path: open.to_owned(), offset: block.offset, why });
        }
        if block.end == BlockEnd::Torn {
            torn_bytes = (block.data.len() - proven.bytes) as u64;
        }
        if proven.bytes > 0 {
            let flushed_rarely = proven.span.commits <= 1 + proven.span.raw_bytes / FLUSH_SPACING;
            let packed = if block.end == BlockEnd::Whole && flushed_rarely {
                reader.copy(block.offset, block.bytes)?
            } else {
                let packed =
                    pack(&mut packer, &block.data[..proven.bytes]).map_err(|e| io("cannot compress into", partial, e))?;
                check_pack(&packed, &block.data[..proven.bytes], partial, out.written)?;
                packed
            };
            content.update(&block.data[..proven.bytes]);
            out.block(&packed, proven.span)?;
        }
        buffer = block.data;
    }
    out.finish()?;
    disk.reached("sealed written, not verified").map_err(|e| io("cannot seal", open, e))?;
    let sha256 = hex(&out.digest.finalize());
    read_back(disk, partial, &sha256)?;
    disk.reached("sealed verified, not renamed").map_err(|e| io("cannot seal", open, e))?;
    disk.rename(partial, sealed).map_err(|e| io("cannot rename", partial, e))?;
    disk.reached("sealed renamed, name not durable").map_err(|e| io("cannot seal", open, e))?;
    let dir = sealed.parent().unwrap_or(Path::new("."));
    disk.sync_dir(dir).map_err(|e| io("cannot make durable", dir, e))?;
    disk.reached("sealed durable, open file still there").map_err(|e| io("cannot seal", open, e))?;
    disk.remove(open).map_err(|e| io("cannot remove", open, e))?;
    let raw_bytes = out.blocks.iter().map(|b| b.raw_bytes).sum();
    let (blocks, bytes, content, hash) = (out.blocks, out.written, content.hex(), walk.last_hash);
    Ok(Sealed { blocks, bytes, raw_bytes, sha256, content, hash, torn_bytes })
}

/// The digest of uncompressed bytes.
#[derive(Clone, Debug, Default)]
pub struct Content(Sha256);

impl Content {
    /// Takes bytes in.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// SHA-256, lower-case hex.
    pub fn hex(self) -> String {
        hex(&self.0.finalize())
    }
}

/// A sealed file that is being written.
pub(super) struct Output<'a> {
    path: &'a Path,
    file: Box<dyn DiskFile>,
    pub(super) digest: Sha256,
    pub(super) written: u64,
    pub(super) blocks: Vec<BlockSpan>,
}

impl<'a> Output<'a> {
    pub(super) fn new(path: &'a Path, file: Box<dyn DiskFile>) -> Self {
        Self { path, file, digest: Sha256::new(), written: 0, blocks: Vec::new() }
    }

    /// Writes the seek table and makes everything durable.
    pub(super) fn finish(&mut self) -> Result<(), SegmentError> {
        let io = |what, source| SegmentError::io(what, self.path, source);
        let table = table_of(&self.blocks).map_err(|e| io("cannot make the seek table of", e))?;
        self.put(&table)?;
        self.file.sync().map_err(|e| SegmentError::io("cannot sync", self.path, e))
    }

    fn put(&mut self, bytes: &[u8]) -> Result<(), SegmentError> {
        self.file.append(bytes).map_err(|e| SegmentError::io("cannot write", self.path, e))?;
        self.digest.update(bytes);
        self.written += bytes.len() as u64;
        Ok(())
    }

    pub(super) fn block(&mut self, packed: &[u8], span: BlockSpan) -> Result<(), SegmentError> {
        let span = BlockSpan { offset: self.written, bytes: packed.len() as u64, ..span };
        self.put(packed)?;
        self.blocks.push(span);
        Ok(())
    }
}

pub(super) fn pack(packer: &mut Encoder<'static>, data: &[u8]) -> std::io::Result<Vec<u8>> {
    packer.reinit()?;
    let mut packed = Vec::with_capacity(data.len() / 4 + 1_024);
    let mut input = InBuffer::around(data);
    while input.pos < data.len() {
        packed.reserve(128 << 10);
        let pos = packed.len();
        packer.run(&mut input, &mut OutBuffer::around_pos(&mut packed, pos))?;
    }
    loop {
        packed.reserve(128 << 10);
        let pos = packed.len();
        if packer.finish(&mut OutBuffer::around_pos(&mut packed, pos), true)? == 0 {
            return Ok(packed);
        }
    }
}

fn table_of(blocks: &[BlockSpan]) -> std::io::Result<Vec<u8>> {
    let too_large = |_| std::io::Error::other("a block is too large for a seek table");
    let mut table = SeekTable::new();
    for block in blocks {
        let (packed, raw) = (u32::try_from(block.bytes).map_err(too_large)?, u32::try_from(block.raw_bytes).map_err(too_large)?);
        table.log_frame(packed, raw).map_err(std::io::Error::other)?;
    }
    let mut bytes = Vec::new();
    table.into_serializer().read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// A block packed anew must unpack to what was proven, before anything relies on it.
pub(super) fn check_pack(packed: &[u8], data: &[u8], path: &Path, offset: u64) -> Result<(), SegmentError> {
    let unpacked = zstd::bulk::decompress(packed, data.len()).map_err(|e| SegmentError::io("cannot unpack", path, e))?;
    if unpacked == data {
        return Ok(());
    }
    Err(SegmentError::Damaged { path: path.to_owned(), offset, why: "packing a block changed it".to_owned() })
}

/// The file must hold what was written: its blocks were proven, copied or checked, on their way into it.
pub(super) fn read_back(disk: &dyn Disk, path: &Path, sha256: &str) -> Result<(), SegmentError> {
    let found = sha256_of(disk, path)?;
    if found == sha256 {
        return Ok(());
    }
    let why = format!("read back after sealing: SHA-256 {found} instead of {sha256}");
    Err(SegmentError::Damaged { path: path.to_owned(), offset: 0, why })
}

/// Reads the seek table of a sealed segment: (compressed, uncompressed) bytes of each block.
///
/// # Errors
/// When the file cannot be read or has no such table.
pub fn seek_table(disk: &dyn Disk, path: &Path) -> Result<Vec<(u64, u64)>, SegmentError> {
    let mut file = disk.open(path).map_err(|e| SegmentError::io("cannot open", path, e))?;
    let (n_blocks, length) = table_end(&mut *file).map_err(|e| SegmentError::io("cannot read", path, e))?;
    // Memory for the table is taken before it is read.
    if n_blocks.saturating_mul(TABLE_ENTRY) > length {
        let why = format!("its seek table has {n_blocks} blocks, more than {length} bytes hold");
        return Err(SegmentError::NotASegment { path: path.to_owned(), why });
    }
    let table = SeekTable::from_seekable(&mut file).map_err(|e| SegmentError::NotASegment {
        path: path.to_owned(),
        why: format!("it has no seek table at its end ({e})"),
    })?;
    let mut sizes = Vec::new();
    for index in 0..table.num_frames() {
        let size = |value: Result<u64, zeekstd::Error>| {
            value.map_err(|e| SegmentError::NotASegment { path: path.to_owned(), why: format!("its seek table is broken ({e})") })
        };
        sizes.push((size(table.frame_size_comp(index))?, size(table.frame_size_decomp(index))?));
    }
    Ok(sizes)
}

/// How many blocks a file's last bytes speak of, if they are the end of a seek table, and how long it is.
/// Source: zstd, contrib/seekable_format.
fn table_end(file: &mut dyn DiskRead) -> std::io::Result<(u64, u64)> {
    let length = file.seek(SeekFrom::End(0))?;
    let Some(at) = length.checked_sub(TABLE_END) else { return Ok((0, length)) };
    let mut end = [0; TABLE_END as usize];
    file.seek(SeekFrom::Start(at))?;
    file.read_exact(&mut end)?;
    file.seek(SeekFrom::Start(0))?;
    let [count @ .., _, _, _, _, _] = end;
    Ok((if end.ends_with(&SEEKABLE_MAGIC) { u64::from(u32::from_le_bytes(count)) } else { 0 }, length))
}

/// Lower-case hex.
pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, b| {
        text.push_str(&format!("{b:02x}"));
        text
    })
}

/// SHA-256 of a file, lower-case hex.
///
/// # Errors
/// When it cannot be read.
pub fn sha256_of(disk: &dyn Disk, path: &Path) -> Result<String, SegmentError> {
    let io = |e| SegmentError::io("cannot read", path, e);
    let mut file = disk.open(path).map_err(io)?;
    let mut digest = Sha256::new();
    let mut buffer = vec![0u8; 256 << 10];
    loop {
        match file.read(&mut buffer).map_err(io)? {
            0 => return Ok(hex(&digest.finalize())),
            got => digest.update(&buffer[..got]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Body, Draft, Seq, UnixMicros};
    use crate::segment::MemDisk;
    use crate::segment::tests::{begin, draft, write};

    #[test]
    fn what_is_not_what_was_written_is_refused() {
        let path = Path::new("1");
        let packed = pack(&mut encoder(3).unwrap(), b"one").unwrap();
        check_pack(&packed, b"one", path, 0).unwrap();
        assert!(matches!(check_pack(&packed, b"two", path, 7), Err(SegmentError::Damaged { offset: 7, .. })));
        let disk = MemDisk::default();
        disk.create(path).unwrap().append(b"one").unwrap();
        read_back(&disk, path, &sha256_of(&disk, path).unwrap()).unwrap();
        assert!(matches!(read_back(&disk, path, "0"), Err(SegmentError::Damaged { .. })));
    }

    /// Flushes cost room: a block with many is packed anew, one with few goes over as it is; of a torn one what no commit
    /// vouches for stays behind, and its bytes are told.
    #[test]
    fn only_what_was_flushed_often_is_packed_anew() {
        let [open, partial, sealed] = ["1.open", "1.partial", "1"].map(Path::new);
        let first_of = |disk: &MemDisk, path| {
            let mut reader = Reader::open(disk, path).unwrap();
            let block = reader.next_block().unwrap().unwrap();
            (block.data, disk.files().iter().find(|(name, _)| name == path).unwrap().1[..block.bytes as usize].to_vec())
        };
        // Three flushes are few in so many bytes; the header's and the last one count.
        for (commits, is_copied) in [(1, true), (2, false)] {
            let disk = MemDisk::default();
            let mut writer = begin(&disk, open, 4 << 20);
            let mut n = 0;
            while writer.raw_bytes() < 2 * FLUSH_SPACING + 1_000 {
                n += 1;
                writer.append(Seq(n), &draft(n), true).unwrap();
                if n <= commits {
                    writer.commit(UnixMicros(1)).unwrap();
                }
            }
            writer.finish(UnixMicros(9)).unwrap();
            let (data, packed) = first_of(&disk, open);
            assert_eq!(seal(&disk, open, partial, sealed, 3).unwrap().torn_bytes, 0);
            let (data_after, packed_after) = first_of(&disk, sealed);
            assert!(data == data_after && (packed == packed_after) == is_copied, "{commits} commits");
        }
        let disk = MemDisk::default();
        let mut writer = write(&disk, open, 10, 64 << 20);
        let mut seed = 1u64;
        let noise = std::iter::repeat_with(|| {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (seed >> 33) as u8
        });
        let noise = Draft { body: Body::Bytes(noise.take(4 << 20).collect()), ..draft(11) };
        writer.append(Seq(11), &noise, false).unwrap();
        drop(writer);
        let (data, _) = first_of(&disk, open);
        let n_proven = data.windows(2).rposition(|pair| pair == b"}\n").unwrap() + 2;
        let result = seal(&disk, open, partial, sealed, 3).unwrap();
        assert!(result.torn_bytes > 0, "some of what nobody committed was written");
        assert_eq!((result.records(), result.torn_bytes), (10, (data.len() - n_proven) as u64));
    }
}
