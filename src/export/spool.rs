//! The spool: sightings of all tables, sorted by table, date and what they are about, within a bound of memory.
//!
//! Every worker has a [`Spool`] of its own. When it is full its entries are sorted and written to a temporary file, a run;
//! runs lie in frames of zstd that never cross a partition, so a partition is read ([`Merge`]) without touching the others,
//! and several are read at once. Keys are total: how memory and threads cut the runs leaves no trace in what comes out.

use std::cmp::Reverse;
use std::collections::binary_heap::PeekMut;
use std::collections::{BTreeMap, BinaryHeap};
use std::fs::File;
use std::io::{self, BufWriter, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::schema::Table;
use crate::model::UnixMicros;

/// Uncompressed bytes after which a frame ends.
const FRAME: usize = 128 << 10;
/// Very fast; a run lives for minutes.
const LEVEL: i32 = -3;
/// What an open run takes while a partition is merged: a frame, packed and not.
pub(super) const CURSOR_BYTES: usize = FRAME + FRAME / 2;
/// The first size that glibc gives back without drawing conclusions: after a smaller piece of that kind is freed, each thread's
/// heap keeps twice as much for later, which is memory of no use to anybody here.
const BEYOND_THRESHOLDS: usize = (32 << 20) + 1;
/// What an entry takes beside its bytes.
const ENTRY: usize = size_of::<Entry>();

/// A table's rows of one date: one file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Part {
    pub(super) table: Table,
    /// Days since 1970; [`NO_DAY`](Self::NO_DAY) where nothing tells.
    pub(super) day: i64,
}

impl Part {
    /// Posts whose id does not tell when they were published.
    pub(super) const NO_DAY: i64 = i64::MAX;

    /// The day of an instant. A date has four digits: absurd instants lie under the first or the last.
    pub(super) fn day_of(at: UnixMicros) -> i64 {
        at.day().clamp(-719_528, 2_932_896)
    }
}

/// Where a sighting belongs. The last three fields name it, so no two are equal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Key {
    pub(super) part: Part,
    /// Rows are sorted by this instant, in microseconds.
    pub(super) at: i64,
    /// What it is about: sightings with equal `at` and `id` make one row.
    pub(super) id: u128,
    /// Its source, by the order of names.
    pub(super) source: u32,
    /// Number of the record.
    pub(super) n: u64,
    /// Place in the record.
    pub(super) index: u32,
}

impl Key {
    const BYTES: usize = 8 + 16 + 4 + 8 + 4;

    /// Whether both belong to one row.
    pub(super) fn is_of(&self, other: &Self) -> bool {
        (self.part, self.at, self.id) == (other.part, other.at, other.id)
    }

    fn put(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.at.to_le_bytes());
        out.extend_from_slice(&self.id.to_le_bytes());
        out.extend_from_slice(&self.source.to_le_bytes());
        out.extend_from_slice(&self.n.to_le_bytes());
        out.extend_from_slice(&self.index.to_le_bytes());
    }

    fn get(part: Part, from: &mut &[u8]) -> Option<Self> {
        fn take<const N: usize>(from: &mut &[u8]) -> Option<[u8; N]> {
            let (bytes, rest) = from.split_first_chunk()?;
            *from = rest;
            Some(*bytes)
        }
        Some(Self {
            part,
            at: i64::from_le_bytes(take(from)?),
            id: u128::from_le_bytes(take(from)?),
            source: u32::from_le_bytes(take(from)?),
            n: u64::from_le_bytes(take(from)?),
            index: u32::from_le_bytes(take(from)?),
        })
    }
}

#[derive(Debug)]
struct Entry {
    key: Key,
    start: usize,
    bytes: usize,
}

/// One partition's stretch of a run.
#[derive(Clone, Debug)]
struct Slice {
    path: Arc<Path>,
    offset: u64,
    frames: u64,
}

/// What all workers have put on disk.
pub(super) struct Runs {
    dir: PathBuf,
    next: AtomicU64,
    slices: Mutex<BTreeMap<Part, Vec<Slice>>>,
    bytes: AtomicU64,
}

impl Runs {
    /// Runs will lie in that directory, which is there.
    pub(super) fn new(dir: PathBuf) -> Self {
        Self { dir, next: AtomicU64::new(0), slices: Mutex::default(), bytes: AtomicU64::new(0) }
    }

    /// Where runs lie.
    pub(super) fn place(&self) -> String {
        self.dir.display().to_string()
    }

    /// The partitions that have something.
    pub(super) fn parts(&self) -> Vec<Part> {
        self.slices.lock().unwrap_or_else(PoisonError::into_inner).keys().copied().collect()
    }

    /// Bytes that were written to disk.
    pub(super) fn spilled_bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Everything of a partition, in order. At most `fan_in` runs are open at once.
    pub(super) fn merge(&self, part: Part, fan_in: usize) -> io::Result<Merge> {
        let of_part = self.slices.lock().unwrap_or_else(PoisonError::into_inner).remove(&part);
        let mut slices = of_part.unwrap_or_default();
        while slices.len() > fan_in {
            // No more than need be: each is read and written once more.
            let rest = slices.split_off(fan_in.min(slices.len() - fan_in + 1));
            let mut merge = Merge::open(part, &slices)?;
            let mut run = RunWriter::create(self.path())?;
            while let Some((key, payload)) = merge.next()? {
                run.entry(&key, payload)?;
            }
            let (written, bytes) = run.finish()?;
            self.bytes.fetch_add(bytes, Ordering::Relaxed);
            slices = rest;
            slices.extend(written.into_iter().map(|(_, slice)| slice));
        }
        Merge::open(part, &slices)
    }

    fn path(&self) -> PathBuf {
        self.dir.join(format!("run-{}", self.next.fetch_add(1, Ordering::Relaxed)))
    }

    fn write(&self, entries: &mut [Entry], arena: &[u8]) -> io::Result<()> {
        entries.sort_unstable_by_key(|entry| entry.key);
        let mut run = RunWriter::create(self.path())?;
        for entry in entries.iter() {
            run.entry(&entry.key, &arena[entry.start..][..entry.bytes])?;
        }
        let (written, bytes) = run.finish()?;
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        let mut slices = self.slices.lock().unwrap_or_else(PoisonError::into_inner);
        for (part, slice) in written {
            slices.entry(part).or_default().push(slice);
        }
        Ok(())
    }
}

/// Takes sightings in any order.
pub(super) struct Spool<'a> {
    runs: &'a Runs,
    bound: usize,
    arena: Vec<u8>,
    entries: Vec<Entry>,
}

impl<'a> Spool<'a> {
    /// Holds up to so many bytes before it writes a run.
    pub(super) fn new(runs: &'a Runs, bound: usize) -> Self {
        // Reserved at once: growing would hold both the old and the new. What is not used costs nothing.
        let room = bound.min(1 << 30);
        let arena = Vec::with_capacity(room.max(BEYOND_THRESHOLDS));
        Self { runs, bound, arena, entries: Vec::with_capacity(room / ENTRY / 8) }
    }

    /// Takes one; `write` appends its bytes.
    pub(super) fn push(&mut self, key: Key, write: impl FnOnce(&mut Vec<u8>)) -> io::Result<()> {
        let start = self.arena.len();
        write(&mut self.arena);
        self.entries.push(Entry { key, start, bytes: self.arena.len() - start });
        if self.arena.len() + self.entries.len() * ENTRY >= self.bound { self.flush() } else { Ok(()) }
    }

    /// Writes what is left.
    pub(super) fn flush(&mut self) -> io::Result<()> {
        if self.entries.is_empty() {
            return Ok(());
        }
        self.runs.write(&mut self.entries, &self.arena)?;
        self.entries.clear();
        self.arena.clear();
        Ok(())
    }
}

struct RunWriter {
    path: Arc<Path>,
    file: BufWriter<File>,
    offset: u64,
    raw: Vec<u8>,
    packed: Vec<u8>,
    zstd: zstd::bulk::Compressor<'static>,
    slices: Vec<(Part, Slice)>,
}

impl RunWriter {
    fn create(path: PathBuf) -> io::Result<Self> {
        let file = BufWriter::new(File::create_new(&path)?);
        let zstd = zstd::bulk::Compressor::new(LEVEL)?;
        Ok(Self { path: path.into(), file, offset: 0, raw: Vec::new(), packed: Vec::new(), zstd, slices: Vec::new() })
    }

    fn entry(&mut self, key: &Key, payload: &[u8]) -> io::Result<()> {
        if self.slices.last().is_none_or(|(part, _)| *part != key.part) {
            self.frame()?;
            let slice = Slice { path: Arc::clone(&self.path), offset: self.offset, frames: 0 };
            self.slices.push((key.part, slice));
        }
        key.put(&mut self.raw);
        self.raw.extend_from_slice(&(payload.len() as u64).to_le_bytes());
        self.raw.extend_from_slice(payload);
        if self.raw.len() >= FRAME { self.frame() } else { Ok(()) }
    }

    fn frame(&mut self) -> io::Result<()> {
        if self.raw.is_empty() {
            return Ok(());
        }
        self.packed.clear();
        self.packed.reserve(zstd::zstd_safe::compress_bound(self.raw.len()));
        self.zstd.compress_to_buffer(&self.raw, &mut self.packed)?;
        self.file.write_all(&(self.packed.len() as u64).to_le_bytes())?;
        self.file.write_all(&(self.raw.len() as u64).to_le_bytes())?;
        self.file.write_all(&self.packed)?;
        self.offset += 16 + self.packed.len() as u64;
        self.raw.clear();
        if let Some((_, slice)) = self.slices.last_mut() {
            slice.frames += 1;
        }
        Ok(())
    }

    fn finish(mut self) -> io::Result<(Vec<(Part, Slice)>, u64)> {
        self.frame()?;
        self.file.flush()?;
        Ok((self.slices, self.offset))
    }
}

type Unpacker = zstd::bulk::Decompressor<'static>;

/// Reads a slice, one entry at a time.
struct Cursor {
    part: Part,
    file: File,
    frames: u64,
    packed: Vec<u8>,
    raw: Vec<u8>,
    at: usize,
    /// Bytes of the current entry.
    payload: std::ops::Range<usize>,
}

impl Cursor {
    fn open(part: Part, slice: &Slice) -> io::Result<Self> {
        let mut file = File::open(&slice.path)?;
        file.seek(SeekFrom::Start(slice.offset))?;
        Ok(Self { part, file, frames: slice.frames, packed: Vec::new(), raw: Vec::new(), at: 0, payload: 0..0 })
    }

    fn next(&mut self, zstd: &mut Unpacker) -> io::Result<Option<Key>> {
        if self.at == self.raw.len() {
            if self.frames == 0 {
                return Ok(None);
            }
            self.frame(zstd)?;
        }
        let bent = || io::Error::new(io::ErrorKind::InvalidData, "a temporary file does not hold what was written into it");
        let mut rest = &self.raw[self.at..];
        let key = Key::get(self.part, &mut rest).ok_or_else(bent)?;
        let (length, rest) = rest.split_first_chunk().ok_or_else(bent)?;
        let length = u64::from_le_bytes(*length) as usize;
        if length > rest.len() {
            return Err(bent());
        }
        let start = self.at + Key::BYTES + 8;
        self.payload = start..start + length;
        self.at = start + length;
        Ok(Some(key))
    }

    fn frame(&mut self, zstd: &mut Unpacker) -> io::Result<()> {
        let mut head = [0; 16];
        self.file.read_exact(&mut head)?;
        let number = |at: usize| {
            let mut bytes = [0; 8];
            bytes.copy_from_slice(&head[at..at + 8]);
            u64::from_le_bytes(bytes)
        };
        self.packed.resize(number(0) as usize, 0);
        self.file.read_exact(&mut self.packed)?;
        self.raw.clear();
        self.raw.reserve(number(8) as usize);
        zstd.decompress_to_buffer(&self.packed, &mut self.raw)?;
        (self.frames, self.at) = (self.frames - 1, 0);
        Ok(())
    }
}

/// A partition's entries from several runs, in the order of their keys.
pub(super) struct Merge {
    cursors: Vec<Cursor>,
    zstd: Unpacker,
    heads: BinaryHeap<Reverse<(Key, usize)>>,
    /// Whether the first of the heads was handed out.
    is_used: bool,
}

impl Merge {
    fn open(part: Part, slices: &[Slice]) -> io::Result<Self> {
        let cursors = slices.iter().map(|slice| Cursor::open(part, slice)).collect::<io::Result<Vec<_>>>()?;
        let mut merge = Self { cursors, zstd: Unpacker::new()?, heads: BinaryHeap::new(), is_used: false };
        for at in 0..merge.cursors.len() {
            if let Some(key) = merge.cursors[at].next(&mut merge.zstd)? {
                merge.heads.push(Reverse((key, at)));
            }
        }
        Ok(merge)
    }

    /// The key of the next entry.
    pub(super) fn peek(&mut self) -> io::Result<Option<Key>> {
        if std::mem::take(&mut self.is_used)
            && let Some(mut head) = self.heads.peek_mut()
        {
            let at = head.0.1;
            match self.cursors[at].next(&mut self.zstd)? {
                Some(key) => *head = Reverse((key, at)),
                None => drop(PeekMut::pop(head)),
            }
        }
        Ok(self.heads.peek().map(|Reverse((key, _))| *key))
    }

    /// The next entry; its bytes are good until the call after.
    pub(super) fn next(&mut self) -> io::Result<Option<(Key, &[u8])>> {
        self.peek()?;
        let Some(Reverse((key, at))) = self.heads.peek() else { return Ok(None) };
        self.is_used = true;
        let cursor = &self.cursors[*at];
        Ok(Some((*key, &cursor.raw[cursor.payload.clone()])))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn key(seed: u64) -> Key {
        let mixed = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15);
        let table = if mixed & 1 == 0 { Table::Tweets } else { Table::Events };
        let part = Part { table, day: (mixed >> 8 & 3) as i64 };
        Key { part, at: (mixed >> 16 & 15) as i64 - 7, id: u128::from(mixed >> 24 & 7), source: 0, n: seed, index: 0 }
    }

    fn all(bound: usize, fan_in: usize) -> Vec<(Key, Vec<u8>)> {
        let dir = tempfile::tempdir().unwrap();
        let runs = Runs::new(dir.path().to_owned());
        let mut spools = [Spool::new(&runs, bound), Spool::new(&runs, bound / 2)];
        for n in 0..3_000u64 {
            let bytes = vec![n as u8; n as usize % 300];
            spools[n as usize % 2].push(key(n), |out| out.extend_from_slice(&bytes)).unwrap();
        }
        for spool in &mut spools {
            spool.flush().unwrap();
        }
        let mut out = Vec::new();
        for part in runs.parts() {
            let mut merge = runs.merge(part, fan_in).unwrap();
            while let Some((key, payload)) = merge.next().unwrap() {
                out.push((key, payload.to_vec()));
            }
        }
        out
    }

    #[test]
    fn memory_and_runs_leave_no_trace() {
        let whole = all(usize::MAX, 64);
        assert_eq!(whole.len(), 3_000);
        assert!(whole.is_sorted_by(|a, b| a.0 < b.0));
        assert!(whole.iter().all(|(key, bytes)| bytes.len() == key.n as usize % 300));
        for (bound, fan_in) in [(100, 2), (10_000, 3), (100_000, 64)] {
            assert!(all(bound, fan_in) == whole, "{bound} bytes, {fan_in} runs at once");
        }
    }
}
