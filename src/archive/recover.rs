//! What opening a tape does: clear leftovers, seal what a crash left open, let the catalog catch up or make it again.
//!
//! Each step may itself be killed; the next opening does it again and ends in the same state.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::index::{Indexed, SourceIndex, speaks};
use super::layout::{Found, Layout};
use super::remains::{PRUNED, Remains};
use super::writer::segment_row;
use super::{Archive, ArchiveError, Decode, Fact, Options, Result};
use crate::catalog::{Catalog, Change, SegmentRow};
use crate::model::{Decoded, Provider, RecordKind, Seq, SourceName, UnixMicros};
use crate::segment::{
    self, BlockEnd, Content, Disk, FORMAT, Header, Line, Owner, Reader, Sealed, SegmentError, Trust, Walk, Writer,
};

/// What opening had to mend.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recovery {
    /// Segments that were still open and are sealed now.
    pub sealed: Vec<SealedTail>,
    /// Records that are lost for good.
    pub holes: Vec<Hole>,
    /// Why the catalog was made again from the segments, if it was.
    pub rebuilt: Option<String>,
    /// Segments the catalog did not know.
    pub caught_up: u64,
    /// What the last writer could still say when the disk stopped it.
    pub farewell: Option<String>,
    /// Compacting and pruning that was done and not yet written down.
    pub settled: Vec<(SourceName, Fact)>,
    /// Ranges of lost records that a note already tells of.
    told: Vec<(SourceName, u64, u64)>,
}

/// A segment that was found open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SealedTail {
    /// Its source.
    pub source: SourceName,
    /// Its first number.
    pub first_n: Seq,
    /// Last record that was kept.
    pub last_n: Seq,
    /// Uncompressed bytes behind the last good commit.
    pub torn_bytes: u64,
}

/// Records that are lost.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hole {
    /// The source.
    pub source: SourceName,
    /// First lost record.
    pub first_n: Seq,
    /// Last lost record.
    pub last_n: Seq,
    /// Time of the last record before.
    pub after: UnixMicros,
    /// Time of the first record behind.
    pub before: UnixMicros,
    /// What happened to them.
    pub why: String,
}

pub(super) struct Recovered {
    pub(super) catalog: Catalog,
    pub(super) index: BTreeMap<SourceName, SourceIndex>,
    pub(super) recovery: Recovery,
}

/// Whether the catalog that is there may be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Index {
    /// If it is sound; it catches up with the segments.
    Keep,
    /// No: it is made again.
    Renew,
}

/// Mends a tape whose lock is held.
pub(super) fn recover(
    layout: &Layout,
    disk: &dyn Disk,
    options: &Options,
    decode: Decode,
    tape: &str,
    keep: Index,
    at: UnixMicros,
) -> Result<Recovered> {
    let mut recovery = Recovery { farewell: read_farewell(layout, disk), ..Recovery::default() };
    for name in layout.sources(disk)? {
        mend_source(layout, disk, options, tape, &name, at, &mut recovery)?;
    }
    let (there, why) = match open_catalog(&layout.catalog(), tape) {
        Ok(catalog) => (Some(catalog), None),
        Err(Refused::Broken(why)) => (None, Some(why)),
        Err(Refused::Other(error)) => return Err(error),
    };
    // What it knows to be durable is known even when it is made again: records that are gone are a loss, not nothing.
    let known = there.as_ref().and_then(|catalog| catalog.sources().ok()).unwrap_or_default();
    let salvaged = !recovery.holes.is_empty();
    let caught_up = match there {
        Some(mut catalog) if keep == Index::Keep && !salvaged => {
            match catch_up(layout, disk, decode, tape, &mut catalog, &mut recovery) {
                Ok(index) => Ok((catalog, index)),
                Err(CatchUp::StartAgain(reason)) => Err(Some(reason)),
                Err(CatchUp::Failed(error)) => return Err(error),
            }
        }
        Some(_) if salvaged => Err(Some("it knew records that are lost".to_owned())),
        Some(_) => Err(None),
        None => Err(why),
    };
    let (catalog, mut index) = match caught_up {
        Ok(both) => both,
        Err(reason) => {
            recovery.holes.retain(|_| salvaged);
            let both = renew(layout, disk, decode, tape, &mut recovery)?;
            // A new tape has no catalog either; that is no news.
            recovery.rebuilt = reason.filter(|_| both.1.values().any(|i| i.last_n() > Seq(0)) || !known.is_empty());
            both
        }
    };
    for row in known {
        let Ok(source) = SourceName::new(&row.name) else { continue };
        let entry = index.entry(source.clone()).or_insert_with(|| SourceIndex::new(&row.name, &row.provider));
        let last = entry.last_n();
        if row.last_n > last.0 {
            let after = if last > Seq(0) { entry.last_at() } else { UnixMicros(row.last_us) };
            let (first_n, last_n) = (last.next(), Seq(row.last_n));
            let why = "they were durable, and their segment is gone or cut".to_owned();
            recovery.holes.push(Hole { source, first_n, last_n, after, before: at, why });
            // Numbers that were announced are never given again.
            entry.skip_to(last_n);
        }
    }
    let told = std::mem::take(&mut recovery.told);
    let is_told =
        |h: &Hole| told.iter().any(|(name, first, last)| *name == h.source && *first <= h.first_n.0 && h.last_n.0 <= *last);
    recovery.holes.retain(|hole| !is_told(hole));
    recovery.holes.sort_by(|a, b| (&a.source, a.first_n).cmp(&(&b.source, b.first_n)));
    recovery.holes.dedup_by(|a, b| (&a.source, a.first_n, a.last_n) == (&b.source, b.first_n, b.last_n));
    Ok(Recovered { catalog, index, recovery })
}

/// Makes the catalog again from the segments, beside the old one, and puts it in its place when it is whole.
fn renew(
    layout: &Layout,
    disk: &dyn Disk,
    decode: Decode,
    tape: &str,
    recovery: &mut Recovery,
) -> Result<(Catalog, BTreeMap<SourceName, SourceIndex>)> {
    let path = layout.catalog();
    let aside = with_suffix(&path, ".new");
    clear(&aside)?;
    let mut catalog = Catalog::open(&aside)?;
    catalog.apply(&[Change::Tape(tape.to_owned())])?;
    let index = catch_up(layout, disk, decode, tape, &mut catalog, recovery).map_err(CatchUp::into_error)?;
    // Closing it writes its log back; from then on it is one file.
    drop(catalog);
    clear(&path)?;
    std::fs::rename(&aside, &path).map_err(io("cannot rename", &aside))?;
    Ok((Catalog::open(&path)?, index))
}

/// Makes the catalog again from the segments alone. Gives what was found, and the number of records indexed.
///
/// # Errors
/// When the tape is locked, no tape, or the disk refuses.
pub fn rebuild(
    dir: &Path,
    disk: Arc<dyn Disk>,
    options: Options,
    decode: Decode,
    holder: &str,
    at: UnixMicros,
) -> Result<(Recovery, u64)> {
    Layout::new(dir).require_info(&*disk)?;
    let archive = Archive::open_with(dir, disk, options, decode, holder, Index::Renew, at)?;
    let (recovery, records) = (archive.recovery().clone(), archive.records());
    archive.close(at)?;
    Ok((recovery, records))
}

fn read_farewell(layout: &Layout, disk: &dyn Disk) -> Option<String> {
    let mut text = String::new();
    disk.open(&layout.farewell()).ok()?.take(64 << 10).read_to_string(&mut text).ok()?;
    let value: serde_json::Value = serde_json::from_str(&text).ok()?;
    Some(value.get("detail").and_then(|d| d.as_str()).unwrap_or("the disk refused").to_owned())
}

// Segments.

fn mend_source(
    layout: &Layout,
    disk: &dyn Disk,
    options: &Options,
    tape: &str,
    name: &str,
    at: UnixMicros,
    recovery: &mut Recovery,
) -> Result<()> {
    let (mut found, mut partial) = layout.found(disk, name)?;
    for path in layout.remains_aside(name) {
        partial.extend(disk.len(&path).map_err(io("cannot look at", &path))?.map(|_| path));
    }
    for path in partial {
        remove(disk, &path)?;
    }
    if let Some(last_n) = Remains::last_n(disk, layout, name)?
        && found.iter().any(|f| f.first_n <= last_n)
        // Only what is proven to be told is removed.
        && let (Ok(Some(remains)), Ok(source)) = (Remains::read(disk, layout, tape, name), SourceName::new(name))
    {
        remove_pruned(disk, layout, name, &found, last_n)?;
        found.retain(|f| f.first_n > last_n);
        recovery.settled.push((source, remains.fact));
    }
    let sealed: Vec<&Found> = found.iter().filter(|f| !f.open).collect();
    for open in found.iter().filter(|f| f.open) {
        let path = layout.open(name, &open.day, open.first_n);
        // Sealing ended in a rename; only the removal of the open file was left to do.
        if sealed.iter().any(|s| s.first_n == open.first_n && s.day == open.day) {
            remove(disk, &path)?;
            continue;
        }
        let Ok(source) = SourceName::new(name) else { continue };
        match seal_open(layout, disk, options, name, open) {
            Ok(done) => {
                let last_n = done.last_n();
                if last_n > Seq(0) {
                    recovery.sealed.push(SealedTail { source, first_n: open.first_n, last_n, torn_bytes: done.torn_bytes });
                }
            }
            Err(ArchiveError::Segment(SegmentError::Damaged { why, .. })) => {
                salvage(layout, disk, options, tape, &source, open, &why, at, recovery)?;
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Removes the files of segments that are told as pruned, oldest first.
pub(super) fn remove_pruned(disk: &dyn Disk, layout: &Layout, name: &str, found: &[Found], last_n: Seq) -> Result<()> {
    let pruned: Vec<_> = found.iter().filter(|f| f.first_n <= last_n).collect();
    for of_day in pruned.chunk_by(|a, b| a.day == b.day) {
        let dir = layout.day(name, &of_day[0].day);
        for one in of_day {
            let path =
                if one.open { layout.open(name, &one.day, one.first_n) } else { layout.sealed(name, &one.day, one.first_n) };
            remove(disk, &path)?;
            disk.reached("a pruned file removed").map_err(io("cannot remove", &path))?;
        }
        disk.sync_dir(&dir).map_err(io("cannot make durable", &dir))?;
        if disk.list(&dir).map_err(io("cannot read", &dir))?.is_empty() {
            disk.remove_empty_dir(&dir).map_err(io("cannot remove", &dir))?;
        }
    }
    Ok(())
}

fn seal_open(layout: &Layout, disk: &dyn Disk, options: &Options, name: &str, open: &Found) -> Result<Sealed> {
    let (from, partial, to) = (
        layout.open(name, &open.day, open.first_n),
        layout.partial(name, &open.day, open.first_n),
        layout.sealed(name, &open.day, open.first_n),
    );
    let sealed = segment::seal(disk, &from, &partial, &to, options.level)?;
    if sealed.records() == 0 {
        // A header and nothing else: the recorder ended before its first commit.
        remove(disk, &to)?;
    }
    Ok(sealed)
}

/// An open segment with damage in the middle: each unbroken run of proven records becomes a segment of its own; the
/// damaged file stays beside them, out of the way, under another name.
#[allow(clippy::too_many_arguments, reason = "a straight walk over one file")]
fn salvage(
    layout: &Layout,
    disk: &dyn Disk,
    options: &Options,
    tape: &str,
    source: &SourceName,
    open: &Found,
    why: &str,
    at: UnixMicros,
    recovery: &mut Recovery,
) -> Result<()> {
    let damaged = layout.open(source.as_str(), &open.day, open.first_n);
    // The runs are written under other numbers' names first, and the first run last: as long as the damaged file has
    // its name, a killed salvage is simply done again.
    let owner = Owner { tape: tape.to_owned(), source: source.to_string() };
    let runs = runs_of(disk, &damaged, &owner)?;
    let provider = match provider_of(disk, &damaged)? {
        Some(provider) => provider,
        // The header is gone with its block; the catalog may know what it said.
        None if runs.is_empty() => String::new(),
        None => provider_by_catalog(layout, source).ok_or_else(|| SegmentError::NotASegment {
            path: damaged.clone(),
            why: "its first line cannot be read; move the file away to go on".to_owned(),
        })?,
    };
    for window in runs.windows(2) {
        let (before, behind) = (&window[0], &window[1]);
        recovery.holes.push(Hole {
            source: source.clone(),
            first_n: before.last_n.next(),
            last_n: behind.first_n.before(),
            after: before.last_at,
            before: behind.first_at,
            why: why.to_owned(),
        });
    }
    for run in runs.iter().rev() {
        let mut found = Found { first_n: run.first_n, day: open.day.clone(), open: true };
        let aside = run.first_n == open.first_n;
        let path = layout.open(source.as_str(), &open.day, run.first_n);
        let target = if aside { with_suffix(&path, ".salvage") } else { path.clone() };
        if disk.len(&layout.sealed(source.as_str(), &open.day, run.first_n)).map_err(io("cannot look at", &path))?.is_some() {
            continue;
        }
        if disk.len(&target).map_err(io("cannot look at", &target))?.is_some() {
            remove(disk, &target)?;
        }
        let header = Header {
            n: run.first_n.before(),
            at,
            format: FORMAT,
            tape: tape.into(),
            source: source.as_str().into(),
            provider: provider.as_str().into(),
        };
        copy_run(disk, &damaged, &owner, &target, &header, run, options)?;
        if aside {
            let kept = with_suffix(&damaged, ".damaged");
            disk.rename(&damaged, &kept).map_err(io("cannot rename", &damaged))?;
            disk.rename(&target, &path).map_err(io("cannot rename", &target))?;
            found.first_n = open.first_n;
        }
        let sealed = seal_open(layout, disk, options, source.as_str(), &found)?;
        recovery.sealed.push(SealedTail {
            source: source.clone(),
            first_n: run.first_n,
            last_n: sealed.last_n(),
            torn_bytes: sealed.torn_bytes,
        });
    }
    if runs.is_empty() || runs[0].first_n != open.first_n {
        disk.rename(&damaged, &with_suffix(&damaged, ".damaged")).map_err(io("cannot rename", &damaged))?;
    }
    let dir = layout.day(source.as_str(), &open.day);
    disk.sync_dir(&dir).map_err(io("cannot make durable", &dir))
}

struct Run {
    first_n: Seq,
    last_n: Seq,
    first_at: UnixMicros,
    last_at: UnixMicros,
}

fn runs_of(disk: &dyn Disk, path: &Path, owner: &Owner) -> Result<Vec<Run>> {
    let mut runs: Vec<Run> = Vec::new();
    each_proven(disk, path, owner, |line, _| {
        if let Line::Record(record) = line {
            match runs.last_mut().filter(|run| run.last_n.next() == record.n) {
                Some(run) => (run.last_n, run.last_at) = (record.n, record.at),
                None => runs.push(Run { first_n: record.n, last_n: record.n, first_at: record.at, last_at: record.at }),
            }
        }
        Ok(())
    })?;
    Ok(runs)
}

fn copy_run(
    disk: &dyn Disk,
    from: &Path,
    owner: &Owner,
    to: &Path,
    header: &Header<'_>,
    run: &Run,
    options: &Options,
) -> Result<()> {
    let mut writer = Writer::create(disk, to, header, options.level, options.block_bytes)?;
    each_proven(disk, from, owner, |line, bytes| {
        if let Line::Record(record) = line
            && (run.first_n..=run.last_n).contains(&record.n)
        {
            writer.append_line(record.n, record.at, bytes)?;
        }
        Ok(())
    })?;
    writer.finish(header.at)?;
    Ok(())
}

fn each_proven(disk: &dyn Disk, path: &Path, owner: &Owner, mut each: impl FnMut(&Line<'_>, &[u8]) -> Result<()>) -> Result<()> {
    let mut reader = Reader::open(disk, path)?;
    // Of a block that is broken, what was committed before the damage is there.
    let mut walk = Walk::new(Trust::Prefix).of(owner.clone());
    while let Some(block) = reader.next_block()? {
        walk.block(&block, &mut each)?;
    }
    Ok(())
}

fn provider_of(disk: &dyn Disk, path: &Path) -> Result<Option<String>> {
    let mut provider = None;
    let mut reader = Reader::open(disk, path)?;
    if let Some(block) = reader.next_block()? {
        let first = block.data.split(|b| *b == b'\n').next().unwrap_or_default();
        if let Some(Line::Header(header)) = Line::parse(first) {
            provider = Some(header.provider.into_owned());
        }
    }
    Ok(provider)
}

fn provider_by_catalog(layout: &Layout, source: &SourceName) -> Option<String> {
    let sources = Catalog::open_read_only(&layout.catalog()).ok()?.sources().ok()?;
    sources.into_iter().find(|row| row.name == source.as_str()).map(|row| row.provider)
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

/// Whether a file is a segment without records: a header, a commit, nothing broken.
fn whole_header(disk: &dyn Disk, path: &Path) -> Result<bool> {
    let block = Reader::open(disk, path)?.next_block()?;
    Ok(block.is_some_and(|block| block.end == BlockEnd::Whole && block.data.starts_with(b"{\"n\":")))
}

/// Takes a file that cannot be read out of the way, without destroying it.
fn set_aside(disk: &dyn Disk, path: &Path) -> Result<()> {
    let kept = with_suffix(path, ".damaged");
    disk.rename(path, &kept).map_err(io("cannot rename", path))?;
    let dir = path.parent().unwrap_or(Path::new("."));
    disk.sync_dir(dir).map_err(io("cannot make durable", dir))
}

fn remove(disk: &dyn Disk, path: &Path) -> Result<()> {
    disk.remove(path).map_err(io("cannot remove", path))
}

fn io(what: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> ArchiveError {
    let path = path.to_owned();
    move |source| ArchiveError::Io { what, path, source }
}

// The catalog.

enum Refused {
    Broken(String),
    Other(ArchiveError),
}

fn open_catalog(path: &Path, tape: &str) -> std::result::Result<Catalog, Refused> {
    // In a tape of somebody else's making it may lead to a database of ours.
    if path.is_symlink() {
        return Err(Refused::Broken("it was a symbolic link".to_owned()));
    }
    if !path.exists() {
        return Err(Refused::Broken("it was missing".to_owned()));
    }
    let catalog = match Catalog::open(path) {
        Ok(catalog) => catalog,
        Err(error) if error.is_broken() => return Err(Refused::Broken(format!("it was broken ({})", chain(&error)))),
        Err(error) => return Err(Refused::Other(error.into())),
    };
    match catalog.tape() {
        Ok(Some(found)) if found == tape => match catalog.fault() {
            Ok(None) => Ok(catalog),
            Ok(Some(words)) => Err(Refused::Broken(format!("it was broken ({words})"))),
            Err(error) => Err(Refused::Broken(format!("it was broken ({})", chain(&error)))),
        },
        Ok(Some(_)) => Err(Refused::Broken("it belonged to another tape".to_owned())),
        Ok(None) => Err(Refused::Broken("it belonged to no tape".to_owned())),
        Err(error) => Err(Refused::Broken(format!("it was broken ({})", chain(&error)))),
    }
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

/// Removes a database with its log: left behind, the log would be played into the next one.
fn clear(path: &Path) -> Result<()> {
    for suffix in ["-wal", "-shm", ""] {
        let old = with_suffix(path, suffix);
        // A directory in its place is somebody's; it goes aside.
        let gone = if old.is_dir() { std::fs::rename(&old, with_suffix(path, ".old")) } else { std::fs::remove_file(&old) };
        match gone {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(io("cannot remove", &old)(error)),
            _ => {}
        }
    }
    Ok(())
}

enum CatchUp {
    /// The catalog says things the segments do not bear out.
    StartAgain(String),
    Failed(ArchiveError),
}

impl CatchUp {
    fn into_error(self) -> ArchiveError {
        match self {
            Self::Failed(error) => error,
            Self::StartAgain(why) => ArchiveError::NotATape { path: PathBuf::new(), why },
        }
    }
}

impl<E: Into<ArchiveError>> From<E> for CatchUp {
    fn from(error: E) -> Self {
        let error = error.into();
        match &error {
            ArchiveError::Catalog(inner) if inner.is_broken() => Self::StartAgain(format!("it was broken ({})", chain(inner))),
            _ => Self::Failed(error),
        }
    }
}

fn catch_up(
    layout: &Layout,
    disk: &dyn Disk,
    decode: Decode,
    tape: &str,
    catalog: &mut Catalog,
    recovery: &mut Recovery,
) -> std::result::Result<BTreeMap<SourceName, SourceIndex>, CatchUp> {
    let mut index = BTreeMap::new();
    for row in catalog.sources()? {
        if let Ok(name) = SourceName::new(&row.name) {
            index.insert(name, SourceIndex::load(catalog, &row)?);
        }
    }
    let on_disk = layout.sources(disk)?;
    if let Some(gone) = index.iter().find(|(name, i)| i.last_n() > Seq(0) && !on_disk.iter().any(|d| d == name.as_str())) {
        return Err(CatchUp::StartAgain(format!("it knew a source {} that has no segments", gone.0)));
    }
    for name in on_disk {
        let Ok(source) = SourceName::new(&name) else { continue };
        take_remains(layout, disk, tape, &source, catalog, &mut index)?;
        let known: BTreeMap<u64, SegmentRow> = catalog.segments(&name)?.into_iter().map(|row| (row.first_n, row)).collect();
        let (found, _) = layout.found(disk, &name)?;
        let headers: Vec<_> = found.iter().map(|segment| layout.sealed(&name, &segment.day, segment.first_n)).collect();
        if let Some(gone) = known.keys().find(|n| !found.iter().any(|f| f.first_n.0 == **n)) {
            return Err(CatchUp::StartAgain(format!("it knew a segment {gone} of {name} that is not there")));
        }
        for segment in found {
            let path = layout.sealed(&name, &segment.day, segment.first_n);
            let length = disk.len(&path).map_err(io("cannot look at", &path))?.unwrap_or(0);
            let as_known = |row: &SegmentRow| row.state == "sealed" && row.bytes == length && row.day == segment.day;
            match known.get(&segment.first_n.0) {
                Some(row) if as_known(row) => continue,
                Some(row) if row.state == "sealed" => {
                    let Some(fact) = compacted(disk, &path, row)? else {
                        return Err(CatchUp::StartAgain(format!("segment {} of {name} is not what it was", segment.first_n)));
                    };
                    recovery.settled.push((source.clone(), fact));
                }
                _ => {}
            }
            let mut changes = Vec::new();
            if known.contains_key(&segment.first_n.0) {
                changes.push(Change::ForgetSegment { source: name.clone(), first_n: segment.first_n.0 });
            }
            let indexed = match index.remove(&source) {
                Some(indexed) => Some(indexed),
                None => {
                    // Where its header is gone with its block, what is behind it is read all the same, if anybody knows what it said.
                    let mut by_header =
                        std::iter::once(&path).chain(&headers).filter_map(|file| provider_of(disk, file).transpose());
                    let provider = by_header.next().transpose()?.or_else(|| provider_by_catalog(layout, &source));
                    provider.map(|provider| SourceIndex::new(&name, &provider))
                }
            };
            let Some(indexed) = indexed else {
                set_aside(disk, &path)?;
                continue;
            };
            let scan = scan(disk, &path, &segment, (tape, &source), decode, indexed, &mut changes, recovery)?;
            let (scanned, records, _, last_n) = scan;
            // A segment behind it hides that from whoever looks at the last number only.
            if known.get(&segment.first_n.0).is_some_and(|row| row.last_n > last_n.0) {
                return Err(CatchUp::StartAgain(format!(
                    "it knew records of segment {} of {name} that are lost",
                    segment.first_n
                )));
            }
            index.insert(source.clone(), scanned);
            if records == 0 {
                // A header alone is what a recorder leaves that ended before its first commit; anything else is evidence.
                let moved = if whole_header(disk, &path)? { remove(disk, &path) } else { set_aside(disk, &path) };
                moved?;
                continue;
            }
            recovery.caught_up += 1;
            catalog.apply(&changes)?;
        }
    }
    for (name, source) in &mut index {
        let known = catalog.segments(name.as_str())?;
        let pruned = catalog.pruned_until(name.as_str())?.map(|(last_n, _)| last_n);
        let newest = known.iter().map(|row| row.last_n).max().max(pruned).unwrap_or(0);
        if source.last_n().0 > newest {
            return Err(CatchUp::StartAgain(format!("it was ahead of the segments of {name}")));
        }
        let mut changes = Vec::new();
        source.take_changes(&mut changes);
        catalog.apply(&changes)?;
    }
    Ok(index)
}

/// Lets a catalog know what is told of pruned segments, where it does not yet.
fn take_remains(
    layout: &Layout,
    disk: &dyn Disk,
    tape: &str,
    source: &SourceName,
    catalog: &mut Catalog,
    index: &mut BTreeMap<SourceName, SourceIndex>,
) -> std::result::Result<(), CatchUp> {
    let name = source.as_str();
    let known = catalog.pruned_until(name)?.map(|(last_n, _)| last_n);
    let path = layout.remains(name);
    match (disk.len(&path).map_err(io("cannot look at", &path))?, known) {
        (None, None) => return Ok(()),
        (None, Some(_)) => {
            return Err(CatchUp::StartAgain(format!("it knew of pruned segments of {name}, and the tape does not")));
        }
        (Some(_), _) => {}
    }
    let told = Remains::last_n(disk, layout, name)?;
    if told.is_none() || told.map(|n| n.0) == known {
        return Ok(());
    }
    let remains = match Remains::read(disk, layout, tape, name) {
        Ok(Some(remains)) => remains,
        // What cannot be proven is not believed; the catalog knows it still, or the records are lost and will be told so.
        Ok(None) | Err(ArchiveError::Segment(SegmentError::Damaged { .. })) => return Ok(()),
        Err(error) => return Err(error.into()),
    };
    match index.get(source) {
        Some(there) if there.last_n() < remains.last_n || known > Some(remains.last_n.0) => {
            return Err(CatchUp::StartAgain(format!("it did not fit what was pruned of {name}")));
        }
        Some(_) => catalog.apply(&remains.removed())?,
        None => {
            catalog.apply(&remains.changes())?;
            index.insert(source.clone(), SourceIndex::load(catalog, &remains.source)?);
        }
    }
    Ok(())
}

/// What to write down of a sealed file that is not the one the catalog knows but unpacks to the same: it was compacted by
/// somebody who did not come to say so.
fn compacted(disk: &dyn Disk, path: &Path, row: &SegmentRow) -> Result<Option<Fact>> {
    let Some(content) = super::scrub::content_of(disk, path)?.filter(|content| *content == row.content) else { return Ok(None) };
    let bytes = disk.len(path).map_err(io("cannot look at", path))?.unwrap_or(0);
    let sha256 = segment::sha256_of(disk, path)?;
    let (segment, bytes_before, sha256_before) = (row.first_n, row.bytes, row.sha256.clone());
    Ok(Some(Fact::Compacted { segment, bytes_before, sha256_before, bytes, sha256, content }))
}

/// Reads a segment whose file was replaced: what the catalog has to learn of it.
pub(super) fn read_again(
    layout: &Layout,
    disk: &dyn Disk,
    decode: Decode,
    (tape, source): (&str, &SourceName),
    row: &SegmentRow,
    index: &mut BTreeMap<SourceName, SourceIndex>,
) -> Result<Vec<Change>> {
    let path = layout.sealed(source.as_str(), &row.day, Seq(row.first_n));
    let found = Found { first_n: Seq(row.first_n), day: row.day.clone(), open: false };
    let mut changes = vec![Change::ForgetSegment { source: source.to_string(), first_n: row.first_n }];
    if let Some(known) = index.remove(source) {
        let scanned = scan(disk, &path, &found, (tape, source), decode, known, &mut changes, &mut Recovery::default());
        index.insert(source.clone(), scanned.map_err(CatchUp::into_error)?.0);
    }
    Ok(changes)
}

/// What removing segments comes to: reads them once more, on top of what was told before, and gives what the catalog would
/// know if the source had ended with them.
pub(super) fn fold(
    layout: &Layout,
    disk: &dyn Disk,
    decode: Decode,
    (tape, source, provider): (&str, &SourceName, &str),
    before: Option<&Remains>,
    doomed: &[SegmentRow],
    progress: &mut dyn FnMut(u64),
) -> Result<(Catalog, SourceIndex, u64)> {
    let name = source.as_str();
    let mut catalog = Catalog::in_memory()?;
    let mut index = match before {
        Some(remains) => {
            catalog.apply(&remains.changes())?;
            SourceIndex::load(&catalog, &remains.source)?
        }
        None => SourceIndex::new(name, provider),
    };
    let mut n_envelopes = 0;
    for row in doomed {
        let path = layout.sealed(name, &row.day, Seq(row.first_n));
        let found = Found { first_n: Seq(row.first_n), day: row.day.clone(), open: false };
        let (mut changes, mut recovery) = (Vec::new(), Recovery::default());
        let scanned = scan(disk, &path, &found, (tape, source), decode, index, &mut changes, &mut recovery);
        let scanned = scanned.map_err(CatchUp::into_error)?;
        index = scanned.0;
        n_envelopes += scanned.2;
        // Of its blocks nothing is left; of a damaged file what it was counts.
        changes.retain(|change| !matches!(change, Change::Block(_) | Change::Segment(_)));
        changes.push(Change::Segment(SegmentRow { state: PRUNED.to_owned(), ..row.clone() }));
        catalog.apply(&changes)?;
        progress(row.bytes);
    }
    Ok((catalog, index, n_envelopes))
}

/// Reads a sealed segment into the index; gives it with the number of records, of envelopes among them, and the last of
/// the records.
#[allow(clippy::too_many_arguments, reason = "a straight walk over one file")]
fn scan(
    disk: &dyn Disk,
    path: &Path,
    segment: &Found,
    (tape, source): (&str, &SourceName),
    decode: Decode,
    mut index: SourceIndex,
    changes: &mut Vec<Change>,
    recovery: &mut Recovery,
) -> std::result::Result<(SourceIndex, u64, u64, Seq), CatchUp> {
    let known: Option<Provider> = index.provider().parse().ok();
    let mut sealed = Sealed {
        blocks: Vec::new(),
        bytes: disk.len(path).map_err(io("cannot look at", path))?.unwrap_or(0),
        raw_bytes: 0,
        sha256: segment::sha256_of(disk, path)?,
        content: String::new(),
        hash: 0,
        torn_bytes: 0,
    };
    let mut reader = Reader::open(disk, path)?;
    let owner = Owner { tape: tape.to_owned(), source: source.to_string() };
    let (mut walk, mut content, mut n_envelopes) = (Walk::new(Trust::Chain).of(owner), Content::default(), 0);
    let begins_anew = segment.first_n > index.last_n();
    let (mut last, mut why) = (begins_anew.then(|| (index.last_n(), index.last_at())), None);
    let mut buffer = Vec::new();
    while let Some(block) = reader.block_into(buffer)? {
        let proven = walk.block(&block, |line, _| {
            if let Line::Record(record) = line {
                if let Some((n, at)) = last
                    && record.n > n.next()
                {
                    let (first_n, last_n) = (n.next(), record.n.before());
                    let why = why.take().unwrap_or_else(|| "they are not in the segment".to_owned());
                    // A hole in what the catalog knows was told when that became known.
                    if first_n > index.last_n() {
                        let at = if n == Seq(0) { record.at } else { at };
                        recovery.holes.push(Hole { source: source.clone(), first_n, last_n, after: at, before: record.at, why });
                    }
                }
                last = Some((record.n, record.at));
                n_envelopes += u64::from(record.kind == RecordKind::Frame);
                if let Some(Fact::Gap { lost_n: Some((first, last)), .. }) =
                    record.fact().and_then(|f| serde_json::from_str(f).ok())
                {
                    recovery.told.push((source.clone(), first, last));
                }
                let decoded = match known.filter(|_| speaks(record.kind, record.via)) {
                    Some(provider) => record.bytes().map(|bytes| decode(provider, record.via, &bytes)),
                    None => None,
                }
                .unwrap_or_else(Decoded::default);
                index.record(Indexed {
                    n: record.n,
                    at: record.at,
                    kind: record.kind,
                    via: record.via,
                    conn: record.conn.0,
                    fact: record.fact(),
                    events: &decoded.events,
                });
            }
            Ok::<_, ArchiveError>(())
        })?;
        why = why.or(proven.damage).or((block.end == BlockEnd::Torn).then(|| "the file ends in the middle".to_owned()));
        changes.extend(index.end_block(segment.first_n.0, &proven.span).map(Change::Block));
        content.update(&block.data[..proven.bytes]);
        sealed.raw_bytes += proven.bytes as u64;
        sealed.blocks.push(proven.span);
        buffer = block.data;
    }
    sealed.content = content.hex();
    let records = sealed.records();
    changes.push(Change::Segment(segment_row(source.as_str(), segment.first_n, &segment.day, &sealed)));
    index.take_changes(changes);
    Ok((index, records, n_envelopes, sealed.last_n()))
}
