//! Bringing a damaged segment back from a copy of this very tape.
//!
//! The copy is believed only where it proves itself: it has the tape's id, every byte of its segment holds, and it unpacks to
//! what the catalog says this segment was sealed with; where the catalog was made again after the damage, every record that can
//! still be read here must stand there, byte for byte. Only then does its file take the place of the damaged one, which stays
//! beside it under another name.

use std::collections::HashMap;
use std::io::Read;
use std::path::{Path, PathBuf};

use xxhash_rust::xxh3::xxh3_128;

use super::index::ALL;
use super::layout::Layout;
use super::{Archive, ArchiveError, Decode, Filling, KindResult, Result, Spent, Tape, recover};
use crate::catalog::SegmentRow;
use crate::model::{GapState, Seq, SourceName, UnixMicros};
use crate::segment::{Disk, Line, Reader, SegmentError, Trust, Walk};

/// End of the name under which a damaged file is kept.
const DAMAGED: &str = ".damaged";

/// Bytes copied at a time.
const COPY: usize = 256 << 10;

/// Why a copy is of no use for a segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refused {
    /// It is no copy of this tape, but a tape of its own.
    OtherTape,
    /// It does not have this segment.
    NoSegment,
    /// It is damaged as well.
    Damaged(String),
    /// It holds something else.
    Differs(String),
}

impl std::fmt::Display for Refused {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::OtherTape => f.write_str("it is no copy of this tape, but another recorder's"),
            Self::NoSegment => f.write_str("it does not have this segment"),
            Self::Damaged(why) => write!(f, "it is damaged there as well: {why}"),
            Self::Differs(why) => write!(f, "it holds something else: {why}"),
        }
    }
}

/// What was brought back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Restored {
    /// The segment's file.
    pub path: PathBuf,
    /// Where the damaged file is now; `None` when it was not kept or there was none.
    pub kept: Option<PathBuf>,
    /// SHA-256 of what it unpacks to.
    pub content: String,
    /// Whether that is what the catalog says it was sealed with. Otherwise the catalog was made after the damage, and has to
    /// be made again.
    pub is_known: bool,
    /// Numbers of the gaps that are settled by it.
    pub gaps: Vec<u64>,
}

impl Archive {
    /// Brings a sealed segment back from a copy of this tape; `keep` says whether the damaged file stays under another name.
    ///
    /// # Errors
    /// When a disk refuses. That the copy is of no use is an answer.
    pub fn restore(
        &mut self,
        source: &SourceName,
        segment: &SegmentRow,
        copy: &Tape,
        keep: bool,
        decode: Decode,
        at: UnixMicros,
    ) -> Result<std::result::Result<Restored, Refused>> {
        self.check()?;
        if copy.info().tape != self.tape {
            return Ok(Err(Refused::OtherTape));
        }
        let theirs = copy.catalog().segments(source.as_str())?;
        let theirs = theirs.into_iter().find(|row| row.first_n == segment.first_n && row.state == "sealed");
        let Some(theirs) = theirs else { return Ok(Err(Refused::NoSegment)) };
        let Some(looked) = copy.look_at(&**copy.disk(), &theirs)? else { return Ok(Err(Refused::NoSegment)) };
        if let Some(flaw) = looked.flaws.first() {
            return Ok(Err(Refused::Damaged(flaw.clone())));
        }
        let path = self.layout.sealed(source.as_str(), &segment.day, Seq(segment.first_n));
        let is_known = looked.content == segment.content;
        if !is_known && let Some(why) = self.contradicts(&path, segment, &theirs, copy, &looked.path)? {
            return Ok(Err(Refused::Differs(why)));
        }
        let partial = self.layout.partial(source.as_str(), &segment.day, Seq(segment.first_n));
        copy_file(&**copy.disk(), &looked.path, &*self.disk, &partial)?;
        let again = super::scrub::content_of(&*self.disk, &partial)?;
        if again != Some(looked.content.clone()) {
            let why = "what was copied does not read back".to_owned();
            return Err(SegmentError::Damaged { path: partial, offset: 0, why }.into());
        }
        let kept = if keep { self.keep_aside(&path)? } else { None };
        let in_place = self.put_in_place(&partial, &path);
        self.guard(in_place)?;
        let read_again = recover::read_again(&self.layout, &*self.disk, decode, (&self.tape, source), segment, &mut self.index);
        let changes = self.guard(read_again)?;
        self.changes.extend(changes);
        let gaps = self.settle_restored(source, (segment.first_n, theirs.last_n), at)?;
        Ok(Ok(Restored { path, kept, content: looked.content, is_known, gaps }))
    }

    /// Numbers of the gaps that tell of lost records of a segment and are not settled by having them back.
    pub fn gaps_of(&self, source: &SourceName, segment: &SegmentRow) -> Vec<u64> {
        self.gaps_within(source, (segment.first_n, segment.last_n))
    }

    fn gaps_within(&self, source: &SourceName, (first, last): (u64, u64)) -> Vec<u64> {
        let lies_in =
            |gap: &&super::GapRow| gap.lost_first_n.is_some_and(|n| n >= first) && gap.lost_last_n.is_some_and(|n| n <= last);
        let gaps = self.index.get(source).into_iter().flat_map(|index| index.gaps());
        gaps.filter(lies_in).filter(|gap| gap.state != GapState::Restored.name()).map(|gap| gap.n).collect()
    }

    /// What of the damaged file, as far as it can be read, is not the same in the copy.
    fn contradicts(
        &self,
        path: &Path,
        segment: &SegmentRow,
        theirs: &SegmentRow,
        copy: &Tape,
        their_path: &Path,
    ) -> Result<Option<String>> {
        let next = self.catalog.segments(&segment.source)?.into_iter().find(|row| row.first_n > segment.first_n);
        if theirs.last_n < segment.last_n || next.is_some_and(|next| next.first_n <= theirs.last_n) {
            return Ok(Some(format!("it ends with record {}, and this one with {}", theirs.last_n, segment.last_n)));
        }
        let mut ours = HashMap::new();
        let is_there =
            self.disk.len(path).map_err(|source| ArchiveError::Io { what: "cannot look at", path: path.to_owned(), source })?;
        if is_there.is_some() {
            each_record(&*self.disk, path, |n, line| {
                ours.insert(n, xxh3_128(line));
            })?;
        }
        let mut differs = None;
        each_record(&**copy.disk(), their_path, |n, line| {
            if ours.remove(&n).is_some_and(|hash| hash != xxh3_128(line)) {
                differs.get_or_insert(n);
            }
        })?;
        Ok(match (differs, ours.keys().min()) {
            (Some(n), _) => Some(format!("record {n} is another one there")),
            (None, Some(n)) => Some(format!("record {n} is not there")),
            (None, None) => None,
        })
    }

    /// Copies the damaged file under another name, so that at no moment there is none under its own.
    fn keep_aside(&self, path: &Path) -> Result<Option<PathBuf>> {
        let io = |source| ArchiveError::Io { what: "cannot look at", path: path.to_owned(), source };
        if self.disk.len(path).map_err(io)?.is_none() {
            return Ok(None);
        }
        let mut kept = None;
        for nth in 1u32.. {
            let suffix = if nth == 1 { DAMAGED.to_owned() } else { format!("{DAMAGED}.{nth}") };
            let mut name = path.as_os_str().to_owned();
            name.push(suffix);
            let name = PathBuf::from(name);
            if self.disk.len(&name).map_err(io)?.is_none() {
                kept = Some(name);
                break;
            }
        }
        if let Some(kept) = &kept {
            copy_file(&*self.disk, path, &*self.disk, kept)?;
        }
        Ok(kept)
    }

    fn settle_restored(&mut self, source: &SourceName, numbers: (u64, u64), at: UnixMicros) -> Result<Vec<u64>> {
        let gaps = self.gaps_within(source, numbers);
        let whole = [KindResult { kind: ALL.to_owned(), state: "filled".to_owned(), why: String::new(), rest: Vec::new() }];
        for gap in &gaps {
            let detail = "the lost records were brought back from a copy of this tape, byte for byte";
            let step = Filling { state: GapState::Restored, detail, cursor: None, kinds: &whole, spent: Spent::default() };
            self.fill(source, at, *gap, step)?;
        }
        self.commit(at)?;
        Ok(gaps)
    }
}

/// Damaged files that were kept, by name.
///
/// # Errors
/// When a directory cannot be read.
pub fn damaged_files(dir: &Path, disk: &dyn Disk) -> Result<Vec<PathBuf>> {
    let layout = Layout::new(dir);
    let list =
        |dir: &Path| disk.list(dir).map_err(|source| ArchiveError::Io { what: "cannot read", path: dir.to_owned(), source });
    let mut found = Vec::new();
    for source in layout.sources(disk)? {
        let dir = layout.segments().join(&source);
        for day in list(&dir)?.into_iter().filter(|name| name.starts_with(|c: char| c.is_ascii_digit())) {
            let names = list(&dir.join(&day))?.into_iter().filter(|name| name.contains(DAMAGED));
            found.extend(names.map(|name| dir.join(&day).join(name)));
        }
    }
    Ok(found)
}

fn each_record(disk: &dyn Disk, path: &Path, mut each: impl FnMut(u64, &[u8])) -> Result<()> {
    let (mut reader, mut walk) = (Reader::open(disk, path)?, Walk::new(Trust::Checksum));
    while let Some(block) = reader.next_block()? {
        walk.block(&block, |line, bytes| {
            if let Line::Record(record) = line {
                each(record.n.0, bytes);
            }
            Ok::<_, SegmentError>(())
        })?;
    }
    Ok(())
}

/// Copies a file, durable but for its name; a file of an earlier try is replaced.
fn copy_file(from_disk: &dyn Disk, from: &Path, to_disk: &dyn Disk, to: &Path) -> Result<()> {
    let io = |what, path: &Path| {
        let path = path.to_owned();
        move |source| ArchiveError::Io { what, path, source }
    };
    if to_disk.len(to).map_err(io("cannot look at", to))?.is_some() {
        to_disk.remove(to).map_err(io("cannot remove", to))?;
    }
    let mut reader = from_disk.open(from).map_err(io("cannot open", from))?;
    let mut writer = to_disk.create(to).map_err(io("cannot create", to))?;
    let mut buffer = vec![0u8; COPY];
    loop {
        match reader.read(&mut buffer).map_err(io("cannot read", from))? {
            0 => break,
            got => writer.append(&buffer[..got]).map_err(io("cannot write", to))?,
        }
    }
    writer.sync().map_err(io("cannot sync", to))
}
