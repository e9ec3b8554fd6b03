//! Reading segments: block by block, believing only what is proven.

use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use zstd::bulk::Decompressor;
use zstd::stream::raw::{DParameter, Decoder, Operation};
use zstd::zstd_safe::{InBuffer, OutBuffer, find_frame_compressed_size};

use super::line::Line;
use super::{BlockSpan, Chain, Disk, DiskRead, SegmentError};

/// Uncompressed bytes in one block that a reader accepts; a longer one is damage (or an attack).
pub const MAX_BLOCK_BYTES: usize = 64 << 20;

/// Bytes of the longest envelope that fits into such a block in any form.
pub const MAX_BODY_BYTES: usize = MAX_BLOCK_BYTES / 2;

const WINDOW_LOG_MAX: u32 = 27;
const MAGIC: [u8; 4] = [0x28, 0xB5, 0x2F, 0xFD];
/// How a seek table begins.
const SEEK_TABLE: [u8; 4] = [0x5E, 0x2A, 0x4D, 0x18];
const READ: usize = 128 << 10;
/// So many zeros at the end of a file were never written, and are no end of a packed block either.
const ZEROS_MIN: u64 = 16;
/// Room for a block as this program writes it by default: growing into it would copy it several times.
const USUAL_BLOCK_BYTES: usize = (4 << 20) + 4 * READ;

/// How a block ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BlockEnd {
    /// Complete, and its checksum holds.
    Whole,
    /// The file ends inside it: the last block of an open segment, or of one that was cut. Zeros up to the end of a file, as a
    /// power cut leaves them where the length was durable and the last bytes were not, count as its end.
    Torn,
    /// It does not decode, or its checksum does not hold; the data is what came before, unproven.
    Damaged(String),
}

/// One block, unpacked.
#[derive(Debug)]
pub struct Block {
    /// Offset in the file.
    pub offset: u64,
    /// Bytes in the file.
    pub bytes: u64,
    /// The lines.
    pub data: Vec<u8>,
    /// How it ended.
    pub end: BlockEnd,
}

/// Reads the blocks of a segment in order, finding its way again behind a damaged one.
pub struct Reader {
    path: PathBuf,
    file: Box<dyn DiskRead>,
    offset: u64,
    buffer: Vec<u8>,
    filled: usize,
    used: usize,
}

impl std::fmt::Debug for Reader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reader").field("path", &self.path).field("offset", &self.offset).finish_non_exhaustive()
    }
}

impl Reader {
    /// Stands at the start of a file.
    ///
    /// # Errors
    /// When it cannot be opened.
    pub fn open(disk: &dyn Disk, path: &Path) -> Result<Self, SegmentError> {
        let file = disk.open(path).map_err(|e| SegmentError::io("cannot open", path, e))?;
        Ok(Self { path: path.to_owned(), file, offset: 0, buffer: vec![0; READ], filled: 0, used: 0 })
    }

    /// Goes to the start of a block.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn seek(&mut self, offset: u64) -> Result<(), SegmentError> {
        self.file.seek(SeekFrom::Start(offset)).map_err(|e| self.io(e))?;
        (self.offset, self.filled, self.used) = (offset, 0, 0);
        Ok(())
    }

    /// The next block; `None` at the end of the file.
    ///
    /// # Errors
    /// Only when the system refuses to read: damage is an answer, not an error.
    pub fn next_block(&mut self) -> Result<Option<Block>, SegmentError> {
        self.block_into(Vec::new())
    }

    /// As [`next_block`](Self::next_block), reusing a buffer.
    ///
    /// # Errors
    /// As there.
    pub fn block_into(&mut self, mut data: Vec<u8>) -> Result<Option<Block>, SegmentError> {
        data.clear();
        loop {
            let head = self.peek(8)?;
            if head.is_empty() {
                return Ok(None);
            }
            if head.len() >= 4 && head[1..4] == [0x2A, 0x4D, 0x18] && head[0] & 0xF0 == 0x50 {
                let Some(length) = head.get(4..8).and_then(|b| b.try_into().ok()).map(u32::from_le_bytes) else {
                    return Ok(Some(self.torn_rest(data)?));
                };
                self.seek(self.offset + 8 + u64::from(length))?;
                continue;
            }
            if head.len() >= 4 && head[..4] != MAGIC {
                if head[..4] == [0; 4] && self.is_in_zeros()? {
                    return self.torn_rest(data).map(Some);
                }
                return self.damaged(data, "no zstd frame starts here".to_owned()).map(Some);
            }
            return self.frame(data).map(Some);
        }
    }

    fn frame(&mut self, mut data: Vec<u8>) -> Result<Block, SegmentError> {
        let offset = self.offset;
        data.reserve(USUAL_BLOCK_BYTES);
        let mut decoder = Decoder::new().map_err(|e| self.io(e))?;
        decoder.set_parameter(DParameter::WindowLogMax(WINDOW_LOG_MAX)).map_err(|e| self.io(e))?;
        loop {
            // At the end of the file the decoder may still hold what did not fit into the last output.
            let at_end = self.used == self.filled && !self.fill()?;
            data.reserve(READ);
            let pos = data.len();
            let mut input = InBuffer::around(&self.buffer[self.used..self.filled]);
            let mut output = OutBuffer::around_pos(&mut data, pos);
            let step = decoder.run(&mut input, &mut output);
            let taken = input.pos;
            self.used += taken;
            self.offset += taken as u64;
            match step {
                Ok(_) if data.len() > MAX_BLOCK_BYTES => {
                    self.seek(offset)?;
                    return self.damaged(data, format!("block unpacks to more than {MAX_BLOCK_BYTES} bytes"));
                }
                Ok(0) => return Ok(Block { offset, bytes: self.offset - offset, data, end: BlockEnd::Whole }),
                Ok(_) if at_end && data.len() == pos => return self.ran_out(offset, data),
                Ok(_) => {}
                Err(error) => {
                    let data = self.up_to_the_damage(offset, self.offset - taken as u64)?;
                    let is_torn = self.is_in_zeros()?;
                    self.seek(offset)?;
                    if is_torn {
                        return self.torn_rest(data);
                    }
                    return self.damaged(data, error.to_string());
                }
            }
        }
    }

    /// What a frame unpacks to before it breaks; the decoder gives nothing of the input in which it does, so of that, which
    /// begins at `sound`, it gets a byte at a time.
    fn up_to_the_damage(&mut self, offset: u64, sound: u64) -> Result<Vec<u8>, SegmentError> {
        self.seek(offset)?;
        let mut data = Vec::new();
        let mut decoder = Decoder::new().map_err(|e| self.io(e))?;
        decoder.set_parameter(DParameter::WindowLogMax(WINDOW_LOG_MAX)).map_err(|e| self.io(e))?;
        while data.len() <= MAX_BLOCK_BYTES && (self.used < self.filled || self.fill()?) {
            let left = usize::try_from(sound.saturating_sub(self.offset)).unwrap_or(usize::MAX);
            let upto = self.filled.min(self.used.saturating_add(left.max(1)));
            data.reserve(READ);
            let pos = data.len();
            let mut input = InBuffer::around(&self.buffer[self.used..upto]);
            let step = decoder.run(&mut input, &mut OutBuffer::around_pos(&mut data, pos));
            let taken = input.pos;
            self.used += taken;
            self.offset += taken as u64;
            if !matches!(step, Ok(1..)) || (taken == 0 && data.len() == pos) {
                break;
            }
        }
        Ok(data)
    }

    /// Whether here, or before, the zeros begin that the file ends in.
    fn is_in_zeros(&mut self) -> Result<bool, SegmentError> {
        let end = self.file.seek(SeekFrom::End(0)).map_err(|e| self.io(e))?;
        let (mut zeros_at, mut chunk) = (end, vec![0; READ]);
        loop {
            let from = zeros_at.saturating_sub(READ as u64);
            let part = &mut chunk[..(zeros_at - from) as usize];
            self.file.seek(SeekFrom::Start(from)).map_err(|e| self.io(e))?;
            let got = read_up_to(&mut self.file, part).map_err(|e| self.io(e))?;
            let last = part[..got].iter().rposition(|byte| *byte != 0);
            zeros_at = last.map_or(from, |last| from + last as u64 + 1);
            if last.is_some() || from == 0 {
                break;
            }
        }
        self.seek(self.offset)?;
        Ok(zeros_at <= self.offset && end - zeros_at >= ZEROS_MIN)
    }

    /// The block at a place, unpacked in one step, which needs no window to copy from; `None` when it is not as expected.
    fn at_once(&mut self, place: BlockPlace) -> Result<Option<Block>, SegmentError> {
        let BlockPlace { offset, bytes, raw_bytes } = place;
        let (Ok(length @ ..=MAX_BLOCK_BYTES), Ok(raw_length @ ..=MAX_BLOCK_BYTES)) = (bytes.try_into(), raw_bytes.try_into())
        else {
            return Ok(None);
        };
        let mut packed = vec![0; length];
        self.seek(offset)?;
        let got = read_up_to(&mut self.file, &mut packed).map_err(|e| self.io(e))?;
        if got < length || !packed.starts_with(&MAGIC) || find_frame_compressed_size(&packed) != Ok(length) {
            return Ok(None);
        }
        let mut data = Vec::with_capacity(raw_length);
        let unpacked = Decompressor::new().and_then(|mut zstd| zstd.decompress_to_buffer(&packed, &mut data));
        let is_it = unpacked.is_ok_and(|length| length == raw_length);
        Ok(is_it.then_some(Block { offset, bytes, data, end: BlockEnd::Whole }))
    }

    /// The file ended inside the frame at `offset`: a torn tail, unless another block begins behind its start.
    /// Then a flipped bit made the frame look longer than it is.
    fn ran_out(&mut self, offset: u64, data: Vec<u8>) -> Result<Block, SegmentError> {
        let end = self.offset;
        if self.find_block(offset + 1)? < end {
            self.seek(offset)?;
            return self.damaged(data, "the block runs over the start of the next one".to_owned());
        }
        self.seek(end)?;
        Ok(Block { offset, bytes: end - offset, data, end: BlockEnd::Torn })
    }

    /// Stands at the start of something broken: finds the next block that begins like one of ours.
    fn damaged(&mut self, data: Vec<u8>, why: String) -> Result<Block, SegmentError> {
        let start = self.offset;
        let end = self.find_block(start + 1)?;
        self.seek(end)?;
        Ok(Block { offset: start, bytes: end - start, data, end: BlockEnd::Damaged(why) })
    }

    fn torn_rest(&mut self, data: Vec<u8>) -> Result<Block, SegmentError> {
        let offset = self.offset;
        let end = self.file.seek(SeekFrom::End(0)).map_err(|e| self.io(e))?;
        self.seek(end)?;
        Ok(Block { offset, bytes: end - offset, data, end: BlockEnd::Torn })
    }

    /// First offset at or after `from` where a zstd frame begins that unpacks to our lines, or a seek table that ends with
    /// the file; else the end of the file.
    fn find_block(&mut self, from: u64) -> Result<u64, SegmentError> {
        let mut base = from;
        let mut window = vec![0u8; READ + 4];
        loop {
            self.file.seek(SeekFrom::Start(base)).map_err(|e| self.io(e))?;
            let got = read_up_to(&mut self.file, &mut window).map_err(|e| self.io(e))?;
            for at in memchr::memmem::find_iter(&window[..got], &MAGIC).collect::<Vec<_>>() {
                let candidate = base + at as u64;
                if self.begins_with_a_line(candidate)? {
                    return Ok(candidate);
                }
            }
            for at in memchr::memmem::find_iter(&window[..got], &SEEK_TABLE).collect::<Vec<_>>() {
                let candidate = base + at as u64;
                if self.ends_with_the_file(candidate)? {
                    return Ok(candidate);
                }
            }
            if got < window.len() {
                return Ok(base + got as u64);
            }
            base += READ as u64;
        }
    }

    /// Whether the skippable frame at `offset` is the last thing there is, as a seek table. Four bytes alone may stand in any
    /// packed block by chance, and believing them would cost it.
    fn ends_with_the_file(&mut self, offset: u64) -> Result<bool, SegmentError> {
        let mut length = [0; 4];
        self.file.seek(SeekFrom::Start(offset + 4)).map_err(|e| self.io(e))?;
        let got = read_up_to(&mut self.file, &mut length).map_err(|e| self.io(e))?;
        let end = self.file.seek(SeekFrom::End(0)).map_err(|e| self.io(e))?;
        Ok(got == length.len() && offset + 8 + u64::from(u32::from_le_bytes(length)) == end)
    }

    fn begins_with_a_line(&mut self, offset: u64) -> Result<bool, SegmentError> {
        self.file.seek(SeekFrom::Start(offset)).map_err(|e| self.io(e))?;
        let mut input = vec![0u8; READ];
        let got = read_up_to(&mut self.file, &mut input).map_err(|e| self.io(e))?;
        let mut decoder = Decoder::new().map_err(|e| self.io(e))?;
        let mut data = Vec::with_capacity(1 << 10);
        let mut source = InBuffer::around(&input[..got]);
        let mut output = OutBuffer::around(&mut data);
        Ok(decoder.run(&mut source, &mut output).is_ok() && data.starts_with(b"{\"n\":"))
    }

    fn peek(&mut self, wanted: usize) -> Result<&[u8], SegmentError> {
        if self.filled - self.used < wanted {
            self.buffer.copy_within(self.used..self.filled, 0);
            self.filled -= self.used;
            self.used = 0;
            while self.filled < wanted {
                let got = self
                    .file
                    .read(&mut self.buffer[self.filled..])
                    .map_err(|e| SegmentError::io("cannot read", &self.path, e))?;
                if got == 0 {
                    break;
                }
                self.filled += got;
            }
        }
        Ok(&self.buffer[self.used..self.filled.min(self.used + wanted)])
    }

    fn fill(&mut self) -> Result<bool, SegmentError> {
        (self.used, self.filled) = (0, 0);
        self.filled = self.file.read(&mut self.buffer).map_err(|e| SegmentError::io("cannot read", &self.path, e))?;
        Ok(self.filled > 0)
    }

    /// Copies bytes of the file as they are.
    ///
    /// # Errors
    /// When the file cannot be read or is shorter.
    pub(super) fn copy(&mut self, offset: u64, bytes: u64) -> Result<Vec<u8>, SegmentError> {
        self.file.seek(SeekFrom::Start(offset)).map_err(|e| self.io(e))?;
        let mut out = vec![0u8; bytes as usize];
        self.file.read_exact(&mut out).map_err(|e| self.io(e))?;
        let back = self.offset;
        self.seek(back)?;
        Ok(out)
    }

    fn io(&self, source: std::io::Error) -> SegmentError {
        SegmentError::io("cannot read", &self.path, source)
    }
}

fn read_up_to(file: &mut dyn DiskRead, buffer: &mut [u8]) -> std::io::Result<usize> {
    let mut got = 0;
    while got < buffer.len() {
        match file.read(&mut buffer[got..])? {
            0 => break,
            more => got += more,
        }
    }
    Ok(got)
}

/// Where a block lies and how large it is, as an index says; the file may know better.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockPlace {
    /// Offset in the file.
    pub offset: u64,
    /// Bytes in the file.
    pub bytes: u64,
    /// Bytes unpacked.
    pub raw_bytes: u64,
}

/// Reads the one block that begins at an offset; its size is only what to expect.
///
/// # Errors
/// When the file cannot be read, or no whole block lies there.
pub fn block_at(disk: &dyn Disk, path: &Path, place: BlockPlace) -> Result<Block, SegmentError> {
    let mut reader = Reader::open(disk, path)?;
    if let Some(block) = reader.at_once(place)? {
        return Ok(block);
    }
    let offset = place.offset;
    reader.seek(offset)?;
    match reader.next_block()? {
        Some(block) if block.end == BlockEnd::Whole && block.offset == offset => Ok(block),
        Some(block) => {
            let why = if let BlockEnd::Damaged(why) = block.end { why } else { "the block is not whole".to_owned() };
            Err(SegmentError::Damaged { path: path.to_owned(), offset, why })
        }
        None => Err(SegmentError::Damaged { path: path.to_owned(), offset, why: "the file ends before it".to_owned() }),
    }
}

/// What a walk believes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trust {
    /// Whole blocks, by their checksum; torn ones up to the last commit line that holds.
    Checksum,
    /// As before, and every commit line's hash is computed again.
    Chain,
    /// As before, and of a damaged block what the chain vouches for: the lines before the damage, up to the last commit.
    Prefix,
}

/// Whose segment is read, as its header says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owner {
    /// Id of the tape.
    pub tape: String,
    /// Name of the source.
    pub source: String,
}

/// Follows the chain of commit hashes through the blocks of a segment and says how much of each is proven.
#[derive(Debug)]
pub struct Walk {
    trust: Trust,
    owner: Option<Owner>,
    chain: Option<Chain>,
    /// The whole block that was not taken just now, as it does not stand where it was written.
    stray: Option<Stray>,
    /// How the chain goes on behind a stray block, once its own place is known.
    behind_stray: Option<Chain>,
    raw_at: u64,
    /// Hash of the last commit line that held.
    pub last_hash: u64,
}

#[derive(Debug)]
struct Stray {
    /// The chain where it stands.
    here: Chain,
    /// Its first commit, and the bytes before it.
    head: Vec<u8>,
    first: u64,
    /// The chain at its end.
    end: Chain,
}

/// How much of a block is proven.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proven {
    /// Bytes at the start that may be believed; they end behind a commit line, or with a whole block.
    pub bytes: usize,
    /// What does not hold, when something that should is not.
    pub damage: Option<String>,
    /// What the believed bytes hold (`offset` and `bytes` are the block's).
    pub span: BlockSpan,
}

impl Walk {
    /// Stands at the start of a segment.
    pub fn new(trust: Trust) -> Self {
        let chain = Some(Chain::default());
        Self { trust, owner: None, chain, stray: None, behind_stray: None, raw_at: 0, last_hash: 0 }
    }

    /// Believes no block that begins with the header of another's segment: its own chain would hold.
    #[must_use]
    pub fn of(mut self, owner: Owner) -> Self {
        self.owner = Some(owner);
        self
    }

    /// Stands at the start of some block: what its first commit line vouches for is believed without it.
    pub fn behind(trust: Trust) -> Self {
        Self { chain: None, ..Self::new(trust) }
    }

    /// Judges the next block and calls `each` for every proven line, in order, with its bytes (line end included).
    ///
    /// # Errors
    /// Only what `each` gives.
    pub fn block<E>(&mut self, block: &Block, mut each: impl FnMut(&Line<'_>, &[u8]) -> Result<(), E>) -> Result<Proven, E> {
        let mut span = BlockSpan { offset: block.offset, bytes: block.bytes, raw_offset: self.raw_at, ..BlockSpan::default() };
        let by_checksum = block.end == BlockEnd::Whole && self.trust == Trust::Checksum;
        let (good, mut damage) = if by_checksum { (block.data.len(), None) } else { self.prove(block) };
        for line in lines(&block.data[..good]) {
            let Some(parsed) = Line::parse(&line[..line.len() - 1]) else {
                damage.get_or_insert_with(|| "a line is not in the form of this format".to_owned());
                continue;
            };
            match &parsed {
                Line::Record(record) => span.note(record.n, record.at),
                Line::Commit(commit) => {
                    span.commits += 1;
                    self.last_hash = commit.hash;
                }
                Line::Header(_) => {}
            }
            each(&parsed, line)?;
        }
        span.raw_bytes = good as u64;
        self.raw_at += good as u64;
        Ok(Proven { bytes: good, damage, span })
    }

    /// Follows the chain through the next block; gives the proven length, and what does not hold.
    pub fn prove(&mut self, block: &Block) -> (usize, Option<String>) {
        let broken = if let BlockEnd::Damaged(why) = &block.end { Some(why.clone()) } else { None };
        if broken.is_some() && (self.trust != Trust::Prefix || self.chain.is_none()) {
            self.chain = None;
            return (0, broken);
        }
        if let Some(why) = self.owner.as_ref().and_then(|owner| of_another(&block.data, owner)) {
            self.chain = None;
            return (0, broken.or(Some(why)));
        }
        let (before, stray, behind_stray) = (self.chain.clone(), self.stray.take(), self.behind_stray.take());
        let (mut good, mut at, mut is_in_place) = (0, 0, false);
        let mut damage = None;
        for line in lines(&block.data) {
            if let Some(commit) = commit_of(line) {
                let (is_first, head) = (good == 0, &block.data[..at]);
                let goes_on = |chain: &Chain| is_first && is_vouched_for(chain, head, commit.hash);
                match &self.chain {
                    Some(chain) if chain.hash() != commit.hash && !behind_stray.as_ref().is_some_and(goes_on) => {
                        damage = Some(format!("the commit after record {} does not vouch for the bytes before it", commit.n));
                        // A whole block's own checksum holds, so what was written was already wrong: believe nothing more.
                        let is_whole = block.end == BlockEnd::Whole;
                        self.chain = None;
                        let here = before.filter(|_| is_whole && is_first);
                        self.stray = here.map(|here| Stray::new(here, head, commit.hash, &block.data));
                        return (good, broken.or(damage.filter(|_| is_whole)));
                    }
                    Some(_) => {}
                    None => is_in_place |= stray.as_ref().is_some_and(|stray| goes_on(&stray.here)),
                }
                self.chain = Some(Chain::after(commit.hash));
                good = at + line.len();
            }
            if let Some(chain) = &mut self.chain {
                chain.update(line);
            }
            at += line.len();
        }
        if block.end == BlockEnd::Whole && good < block.data.len() {
            damage = Some("the block does not end with a commit line".to_owned());
        }
        // The block before this one belongs behind it, if it fits there: two that are in each other's place.
        if is_in_place && let (Some(stray), Some(chain)) = (stray, &self.chain) {
            self.behind_stray = is_vouched_for(chain, &stray.head, stray.first).then_some(stray.end);
        }
        if broken.is_some() {
            self.chain = None;
        }
        (good, broken.or(damage))
    }
}

impl Stray {
    fn new(here: Chain, head: &[u8], first: u64, data: &[u8]) -> Self {
        let mut end = Chain::default();
        for line in lines(&data[head.len()..]) {
            if let Some(commit) = commit_of(line) {
                end = Chain::after(commit.hash);
            }
            end.update(line);
        }
        Self { here, head: head.to_vec(), first, end }
    }
}

/// Whether the commit with that hash, behind these bytes, goes on from there.
fn is_vouched_for(chain: &Chain, head: &[u8], hash: u64) -> bool {
    let mut chain = chain.clone();
    chain.update(head);
    chain.hash() == hash
}

/// Whose a block is that begins with the header of another's segment, in words.
fn of_another(data: &[u8], owner: &Owner) -> Option<String> {
    let line = lines(data).next()?;
    memchr::memmem::find(&line[..line.len().min(90)], b"\"kind\":\"segment\"")?;
    match Line::parse(&line[..line.len() - 1]) {
        Some(Line::Header(header)) => header.of_another(&owner.tape, &owner.source),
        _ => None,
    }
}

fn commit_of(line: &[u8]) -> Option<super::Commit> {
    // `{"n":` + up to 20 digits + `,"at":"` + 27 + `","kind":"commit"`: look only where it can be.
    let head = &line[..line.len().min(90)];
    memchr::memmem::find(head, b"\"kind\":\"commit\",\"bytes\":")?;
    match Line::parse(&line[..line.len() - 1]) {
        Some(Line::Commit(commit)) => Some(commit),
        _ => None,
    }
}

/// Whole lines, each with its line end.
fn lines(data: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = data;
    std::iter::from_fn(move || {
        let end = memchr::memchr(b'\n', rest)? + 1;
        let (line, after) = rest.split_at(end);
        rest = after;
        Some(line)
    })
}

/// Calls `each` for every line of a block that needs no further proof, in order.
///
/// # Errors
/// Only what `each` gives.
pub fn walk_lines<E>(data: &[u8], mut each: impl FnMut(&[u8]) -> Result<(), E>) -> Result<(), E> {
    lines(data).try_for_each(|line| each(&line[..line.len() - 1]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::UnixMicros;
    use crate::segment::MemDisk;
    use crate::segment::tests::{spans, write};

    /// An index that is right spares a window; one that is wrong costs it, and never an answer.
    #[test]
    fn a_block_is_unpacked_at_once_only_where_it_is_as_expected() {
        let (disk, path) = (MemDisk::default(), Path::new("1.jsonl.zst.open"));
        write(&disk, path, 100, 4_096).finish(UnixMicros(9)).unwrap();
        let block = spans(&disk, path)[1];
        let right = BlockPlace { offset: block.offset, bytes: block.bytes, raw_bytes: block.raw_bytes };
        let at_once = |place| Reader::open(&disk, path).unwrap().at_once(place).unwrap();
        let wanted = block_at(&disk, path, right).unwrap();
        assert_eq!(at_once(right).unwrap().data, wanted.data);
        for (bytes, raw_bytes) in [(-1, 0), (1, 0), (1 << 40, 0), (0, -1), (0, 1), (0, 1 << 40)] {
            let bytes = block.bytes.checked_add_signed(bytes).unwrap();
            let raw_bytes = block.raw_bytes.checked_add_signed(raw_bytes).unwrap();
            let wrong = BlockPlace { bytes, raw_bytes, ..right };
            assert!(at_once(wrong).is_none(), "{wrong:?}");
            assert_eq!(block_at(&disk, path, wrong).unwrap().data, wanted.data, "{wrong:?}");
        }
        for offset in [block.offset - 1, block.offset + 1, 1 << 40] {
            let wrong = BlockPlace { offset, ..right };
            assert!(at_once(wrong).is_none(), "{wrong:?}");
            assert!(matches!(block_at(&disk, path, wrong), Err(SegmentError::Damaged { .. })), "{wrong:?}");
        }
        // A whole block with more behind it is none of that length.
        let two = BlockPlace { bytes: block.bytes + 12, ..right };
        let whole = disk.files()[0].1.clone();
        let end = (block.offset + block.bytes) as usize;
        let skippable = [&[0x50, 0x2A, 0x4D, 0x18, 4, 0, 0, 0][..], b"four"].concat();
        disk.overwrite(path, [&whole[..end], &skippable, &whole[end..]].concat());
        assert!(at_once(two).is_none());
    }
}
