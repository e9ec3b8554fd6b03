//! Verifying: every byte against its checksums, sequence numbers dense, the catalog equal to the segments, and each
//! scope's timeline made of coverage and gaps without a hole.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use super::coverage;
use super::index::{ALL, Indexed, SourceIndex, speaks};
use super::layout::{Found, Layout};
use super::remains::Remains;
use super::writer::segment_row;
use super::{ArchiveError, Decode, Fact, Hole, Result};
use crate::catalog::{Catalog, Change, SegmentRow};
use crate::model::{Decoded, Provider, RecordKind, Seq, SourceName, UnixMicros};
use crate::segment::{self, BlockEnd, Content, Disk, Line, Reader, Sealed, SegmentError, Trust, Walk};

/// Something that is not as it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    /// The source, if it is about one.
    pub source: Option<String>,
    /// The file (relative to the tape) or table.
    pub place: String,
    /// What does not hold.
    pub what: String,
    /// Whether the ledger already says so: loss that is known.
    pub known: bool,
    /// The records that are not there, when that is what it is.
    pub lost: Option<Hole>,
}

/// What was looked at in a source.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SourceReport {
    /// Its name.
    pub name: String,
    /// Its provider.
    pub provider: String,
    /// Segments, open ones included.
    pub segments: u64,
    /// Open segments among them.
    pub open_segments: u64,
    /// Records read.
    pub records: u64,
    /// Envelopes among them.
    pub envelopes: u64,
    /// Bytes of its files.
    pub bytes: u64,
    /// Uncompressed bytes.
    pub raw_bytes: u64,
    /// Last record.
    pub last_n: u64,
    /// What was removed on purpose.
    pub pruned: Option<PrunedReport>,
}

/// What is told of segments that were removed on purpose.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PrunedReport {
    /// How many.
    pub segments: u64,
    /// Their last record.
    pub last_n: u64,
    /// Their records.
    pub records: u64,
    /// Bytes of their files.
    pub bytes: u64,
    /// When the last of their records was received.
    pub until: UnixMicros,
}

/// Whether the catalog was compared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CatalogCheck {
    /// Row by row, with that many rows.
    Equal(usize),
    /// It differs; the damage list says where.
    Differs,
    /// Not compared, for the reason given.
    Skipped(String),
}

/// What verifying found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// Each source.
    pub sources: Vec<SourceReport>,
    /// Everything that is not as it should be.
    pub damage: Vec<Damage>,
    /// The catalog.
    pub catalog: CatalogCheck,
}

impl Report {
    /// Whether everything holds (known loss does not).
    pub fn is_whole(&self) -> bool {
        self.damage.is_empty()
    }
}

/// Verifies a tape without changing it. `progress` is told the bytes read so far.
///
/// # Errors
/// When it is no tape, of a newer format, or a file cannot be read at all.
pub fn verify(dir: &Path, disk: &dyn Disk, decode: Decode, mut progress: impl FnMut(u64)) -> Result<Report> {
    let layout = Layout::new(dir);
    let info = layout.require_info(disk)?;
    // With the lock nobody writes while we read; without it the newest commits may move under us.
    let lock = layout.lock(disk, "birdtape verify");
    let writing = matches!(lock, Err(ArchiveError::Locked { .. }));
    let mut report = Report { sources: Vec::new(), damage: Vec::new(), catalog: CatalogCheck::Differs };
    let mut again = Catalog::in_memory()?;
    again.apply(&[Change::Tape(info.tape.clone())])?;
    let (mut unsealed, mut hurt) = (BTreeMap::new(), BTreeSet::new());
    let mut read = 0;
    for name in layout.sources(disk)? {
        let Ok(source) = SourceName::new(&name) else {
            report.damage.push(Damage {
                source: None,
                place: format!("segments/{name}"),
                what: "this is no source name".into(),
                known: false,
                lost: None,
            });
            continue;
        };
        let mut check = Check {
            layout: &layout,
            disk,
            decode,
            tape: &info.tape,
            name: source.as_str(),
            source: source.clone(),
            out: SourceReport::default(),
            damage: Vec::new(),
            lost: Vec::new(),
            jumps: Vec::new(),
            hurt: Vec::new(),
            last_at: UnixMicros(0),
        };
        // What an interrupted sealing left beside them is no damage: nothing is lost by it.
        let (mut found, _) = layout.found(disk, &name)?;
        let mut changes = Vec::new();
        let mut index = check.remains(&mut again)?;
        // Neither are files that an interrupted pruning had still to remove: the next writer does.
        if let Some(pruned) = &check.out.pruned {
            found.retain(|segment| segment.first_n.0 > pruned.last_n);
        }
        for (at, segment) in found.iter().enumerate() {
            let twin = segment.open && at > 0 && found[at - 1].first_n == segment.first_n && found[at - 1].day == segment.day;
            if twin {
                continue;
            }
            check.segment(segment, &mut index, &mut changes)?;
            progress(read + check.out.bytes);
        }
        read += check.out.bytes;
        check.settle_jumps();
        if check.out.open_segments > 0 {
            unsealed.insert(name.clone(), check.out.last_n);
        }
        again.apply(&changes)?;
        hurt.extend(check.hurt.iter().map(|first_n| (name.clone(), first_n.to_string())));
        report.damage.extend(check.damage);
        report.sources.push(check.out);
    }
    report.catalog = if writing {
        CatalogCheck::Skipped("a recorder is writing".to_owned())
    } else {
        compare(&layout, &again, (&unsealed, &hurt), &info.tape, &mut report.damage)?
    };
    if !writing {
        partition(&again, &mut report.damage)?;
    }
    drop(lock);
    Ok(report)
}

struct Check<'a> {
    layout: &'a Layout,
    disk: &'a dyn Disk,
    decode: Decode,
    tape: &'a str,
    name: &'a str,
    source: SourceName,
    out: SourceReport,
    damage: Vec<Damage>,
    /// Ranges the ledger calls lost.
    lost: Vec<(u64, u64)>,
    /// Holes in the numbers, with their place.
    jumps: Vec<(Hole, String)>,
    /// First numbers of segments with blocks that cannot be read.
    hurt: Vec<u64>,
    last_at: UnixMicros,
}

impl Check<'_> {
    fn bad(&mut self, place: &str, what: impl Into<String>) {
        self.damage.push(Damage {
            source: Some(self.name.to_owned()),
            place: place.to_owned(),
            what: what.into(),
            known: false,
            lost: None,
        });
    }

    /// Begins with what is told of pruned segments.
    fn remains(&mut self, again: &mut Catalog) -> Result<Option<SourceIndex>> {
        let remains = match Remains::read(self.disk, self.layout, self.tape, self.name) {
            Ok(Some(remains)) => remains,
            Ok(None) => return Ok(None),
            Err(ArchiveError::Segment(SegmentError::Damaged { offset, why, .. })) => {
                let path = self.layout.remains(self.name);
                let place = path.strip_prefix(self.layout.dir()).unwrap_or(&path).display().to_string();
                self.bad(&place, format!("block at byte {offset}: {why}"));
                return Ok(None);
            }
            Err(error) => return Err(error),
        };
        again.apply(&remains.changes())?;
        let rows = again.pruned(self.name)?;
        self.out.provider.clone_from(&remains.source.provider);
        self.out.last_n = remains.last_n.0;
        self.last_at = UnixMicros(remains.source.last_us);
        self.out.pruned = Some(PrunedReport {
            segments: rows.len() as u64,
            last_n: remains.last_n.0,
            records: rows.iter().map(|row| row.records).sum(),
            bytes: rows.iter().map(|row| row.bytes).sum(),
            until: UnixMicros(rows.iter().map(|row| row.last_us).max().unwrap_or_default()),
        });
        Ok(Some(SourceIndex::load(again, &remains.source)?))
    }

    fn segment(&mut self, segment: &Found, index: &mut Option<SourceIndex>, changes: &mut Vec<Change>) -> Result<()> {
        let path = if segment.open {
            self.layout.open(self.name, &segment.day, segment.first_n)
        } else {
            self.layout.sealed(self.name, &segment.day, segment.first_n)
        };
        let place = path.strip_prefix(self.layout.dir()).unwrap_or(&path).display().to_string();
        let bytes =
            self.disk.len(&path).map_err(|source| ArchiveError::Io { what: "cannot look at", path: path.clone(), source })?;
        let Some(bytes) = bytes else { return Ok(()) };
        self.out.segments += 1;
        self.out.bytes += bytes;
        self.out.open_segments += u64::from(segment.open);
        let mut sealed = Sealed {
            blocks: Vec::new(),
            bytes,
            raw_bytes: 0,
            sha256: String::new(),
            content: String::new(),
            hash: 0,
            torn_bytes: 0,
        };
        let mut reader = Reader::open(self.disk, &path)?;
        let (mut walk, mut content) = (Walk::new(Trust::Chain), Content::default());
        let mut buffer = Vec::new();
        let (mut first, mut bad_lines, mut header_seen) = (None, Vec::new(), false);
        while let Some(block) = reader.block_into(buffer)? {
            let proven = walk.block(&block, |line, _| {
                match line {
                    Line::Header(header) => {
                        header_seen = true;
                        bad_lines.extend(header.of_another(self.tape, self.name));
                        index.get_or_insert_with(|| SourceIndex::new(self.name, &header.provider));
                        self.out.provider = header.provider.to_string();
                    }
                    Line::Record(record) => {
                        first.get_or_insert(record.n);
                        let expected = self.out.last_n.saturating_add(1);
                        if record.n.0 > expected {
                            let hole = Hole {
                                source: self.source.clone(),
                                first_n: Seq(expected),
                                last_n: record.n.before(),
                                after: if expected > 1 { self.last_at } else { record.at },
                                before: record.at,
                                why: "a block of a sealed segment cannot be read".to_owned(),
                            };
                            self.jumps.push((hole, place.clone()));
                        } else if record.n.0 < expected {
                            bad_lines.push(format!("record {} stands after record {}", record.n, expected - 1));
                        }
                        self.out.last_n = self.out.last_n.max(record.n.0);
                        self.last_at = record.at;
                        self.out.records += 1;
                        self.out.envelopes += u64::from(record.kind == RecordKind::Frame);
                        let bytes = record.bytes();
                        if bytes.is_none() {
                            bad_lines.push(format!("the body of record {} cannot be read", record.n));
                        }
                        if let Some(Fact::Gap { lost_n: Some(range), .. }) =
                            record.fact().and_then(|f| serde_json::from_str(f).ok())
                        {
                            self.lost.push(range);
                        }
                        if let Some(index) = index.as_mut() {
                            let provider: Option<Provider> = index.provider().parse().ok();
                            let decoded = match (provider.filter(|_| speaks(record.kind, record.via)), bytes) {
                                (Some(provider), Some(bytes)) => (self.decode)(provider, record.via, &bytes),
                                _ => Decoded::default(),
                            };
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
                    }
                    Line::Commit(_) => {}
                }
                Ok::<_, ArchiveError>(())
            })?;
            if let Some(why) = proven.damage {
                self.hurt.push(segment.first_n.0);
                self.bad(&place, format!("block at byte {}: {why}", block.offset));
            }
            if block.end == BlockEnd::Torn && !segment.open {
                self.hurt.push(segment.first_n.0);
                self.bad(&place, format!("the file ends in the middle of the block at byte {}", block.offset));
            }
            if let Some(index) = index.as_mut() {
                changes.extend(index.end_block(segment.first_n.0, &proven.span).map(Change::Block));
            }
            content.update(&block.data[..proven.bytes]);
            sealed.raw_bytes += proven.bytes as u64;
            sealed.blocks.push(proven.span);
            buffer = block.data;
        }
        self.out.raw_bytes += sealed.raw_bytes;
        for what in bad_lines {
            self.bad(&place, what);
        }
        if segment.open {
            return Ok(());
        }
        if !header_seen {
            self.bad(&place, "it does not begin with a segment header");
        }
        if first.is_some_and(|n| n != segment.first_n) {
            self.bad(&place, format!("its first record is {}, its name says {}", first.unwrap_or_default(), segment.first_n));
        }
        match segment::seek_table(self.disk, &path) {
            Ok(table) => {
                let walked: Vec<_> = sealed.blocks.iter().map(|b| (b.bytes, b.raw_bytes)).collect();
                if table != walked && !self.hurt.contains(&segment.first_n.0) {
                    self.bad(&place, "its seek table does not fit its blocks");
                }
            }
            Err(error) => self.bad(&place, error.to_string()),
        }
        sealed.sha256 = segment::sha256_of(self.disk, &path)?;
        sealed.content = content.hex();
        if let Some(index) = index.as_mut() {
            changes.push(Change::Segment(segment_row(self.name, segment.first_n, &segment.day, &sealed)));
            index.take_changes(changes);
        }
        Ok(())
    }

    /// A hole in the numbers is damage; it is known when a note in the tape calls it lost.
    fn settle_jumps(&mut self) {
        self.out.name = self.name.to_owned();
        for (hole, place) in std::mem::take(&mut self.jumps) {
            let known = self.lost.iter().any(|(a, b)| *a <= hole.first_n.0 && hole.last_n.0 <= *b);
            let what = format!("records {} to {} are not there", hole.first_n, hole.last_n);
            self.damage.push(Damage { source: Some(self.name.to_owned()), place, what, known, lost: Some(hole) });
        }
    }
}

/// Compares the tape's catalog with the one just made. Where a recorder was killed, the rows of its source may be a
/// few commits behind (or, for its open segment, say "open"): they are left out. So are the rows of segments and blocks that
/// cannot be read, and what was counted in them: that the catalog knows what they were is no damage of the catalog.
fn compare(
    layout: &Layout,
    again: &Catalog,
    (unsealed, hurt): (&BTreeMap<String, u64>, &BTreeSet<(String, String)>),
    tape: &str,
    damage: &mut Vec<Damage>,
) -> Result<CatalogCheck> {
    let path = layout.catalog();
    let mut bad =
        |what: String| damage.push(Damage { source: None, place: "catalog.sqlite".to_owned(), what, known: false, lost: None });
    let there = match Catalog::open_read_only(&path) {
        Ok(catalog) => catalog,
        Err(error) => {
            bad(format!("it cannot be read ({error}); `birdtape rebuild` makes it again"));
            return Ok(CatalogCheck::Differs);
        }
    };
    if there.tape().ok().flatten().as_deref() != Some(tape) {
        bad("it belongs to another tape; `birdtape rebuild` makes it again".to_owned());
        return Ok(CatalogCheck::Differs);
    }
    // A recorder that was killed leaves the catalog a step behind its segments: that is no damage, it catches up.
    let mut unsealed = unsealed.clone();
    let known = there.sources().unwrap_or_default();
    for source in again.sources()? {
        let rows = there.segments(&source.name).unwrap_or_default();
        let open = rows.iter().any(|row| row.state == "open");
        if open || !known.iter().any(|row| row.name == source.name) || is_a_step_behind(again, &there, &source.name)? {
            unsealed.entry(source.name).or_insert(source.last_n);
        }
    }
    let keep = |table: &str, first: &str, second: &str| {
        let is_hurt = match table {
            "segment" | "block" => hurt.contains(&(first.to_owned(), second.to_owned())),
            "last_seen" | "connection" => hurt.iter().any(|(source, _)| source == first),
            _ => false,
        };
        table == "meta" || !(unsealed.contains_key(first) || is_hurt)
    };
    let (ours, theirs) = (again.dump(keep)?, there.dump(keep));
    let theirs = match theirs {
        Ok(rows) => rows,
        Err(error) => {
            bad(format!("it cannot be read ({error}); `birdtape rebuild` makes it again"));
            return Ok(CatalogCheck::Differs);
        }
    };
    for source in there.sources()? {
        if let Some(last) = unsealed.get(&source.name).filter(|last| **last < source.last_n) {
            bad(format!("it knows record {} of {}, the segments end at {last}", source.last_n, source.name));
            return Ok(CatalogCheck::Differs);
        }
    }
    if ours != theirs {
        let short = |row: &String| row.chars().take(300).collect::<String>();
        let missing: Vec<_> = ours.iter().filter(|row| theirs.binary_search(row).is_err()).collect();
        let extra: Vec<_> = theirs.iter().filter(|row| ours.binary_search(row).is_err()).collect();
        for (sign, rows) in [("missing", &missing), ("not borne out by the segments", &extra)] {
            if let Some(row) = rows.first() {
                bad(format!("{} row(s) {sign}, the first: {}", rows.len(), short(row)));
            }
        }
        return Ok(CatalogCheck::Differs);
    }
    if !unsealed.is_empty() {
        let names = unsealed.keys().cloned().collect::<Vec<_>>().join(", ");
        return Ok(CatalogCheck::Skipped(format!("{names} was not closed in good order; `birdtape recover` does so")));
    }
    Ok(CatalogCheck::Equal(ours.len()))
}

/// Whether a catalog does not know yet what compacting or pruning, killed before they could say so, have done.
fn is_a_step_behind(again: &Catalog, there: &Catalog, source: &str) -> Result<bool> {
    if there.pruned_until(source).is_ok_and(|there| again.pruned_until(source).is_ok_and(|again| there < again)) {
        return Ok(true);
    }
    let known = there.segments(source).unwrap_or_default();
    let is_same_content = |row: &SegmentRow| {
        // A file of the same length was not compacted: a bit of it is another, be it one that the format does not use.
        let was_packed_anew = |known: &SegmentRow| known.content == row.content && known.bytes != row.bytes;
        known.iter().any(|known| known.first_n == row.first_n && was_packed_anew(known))
    };
    Ok(again.segments(source)?.iter().any(|row| row.state == "sealed" && is_same_content(row)))
}

/// What does not add up in a catalog's timelines, in words, for somebody who believes them without reading the segments.
pub(super) fn contradiction(catalog: &Catalog) -> Result<Option<String>> {
    let mut damage = Vec::new();
    partition(catalog, &mut damage)?;
    Ok(damage.into_iter().next().map(|damage| format!("source {}: {}", damage.source.unwrap_or_default(), damage.what)))
}

fn of_coverage(source: &str, what: String) -> Damage {
    Damage { source: Some(source.to_owned()), place: "coverage".to_owned(), what, known: false, lost: None }
}

/// Each scope's timeline, from its beginning to its frontier, is covered or in a gap; no instant is both.
fn partition(catalog: &Catalog, damage: &mut Vec<Damage>) -> Result<()> {
    for source in catalog.sources()? {
        let gaps = catalog.gaps(Some(&source.name))?;
        for row in catalog.coverage(&source.name)? {
            let mut both = gaps.iter().filter(|gap| gap.scope == row.scope || gap.scope == ALL);
            if both.any(|gap| gap.from_us < row.to_us && gap.to_us.is_none_or(|to| row.from_us < to)) {
                let what = format!("scope {} has instants that are covered and in a gap", row.scope);
                damage.push(of_coverage(&source.name, what));
            }
        }
        for scope in coverage::of_source(catalog, &source.name)? {
            if let Some((from, to)) = scope.silent_hole() {
                let what = format!("scope {}, version {}, has a silent hole from {from} to {to}", scope.scope, scope.version);
                damage.push(of_coverage(&source.name, what));
            }
        }
    }
    Ok(())
}
