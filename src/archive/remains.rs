//! What is kept of a source's segments that were removed on purpose: the file `pruned.jsonl.zst` beside its days.
//!
//! It is written as a segment is (lines, commits, blocks, checksums), so that stock tools read it and every bit of it is
//! proven, and holds notes only. Its header's `n` is the last record that was removed; all its lines carry that number. The
//! first tells what was removed last, as [`Fact::Pruned`]; each other one is a row of the catalog as it stood behind that
//! record: scopes, gaps with their steps, audits, connections, coverage by evidence, what was seen last, and each removed
//! segment with its digests. An index goes on from there as if it had read the segments: that is what makes a catalog the
//! same again.
//!
//! ```text
//! {"n":48212,"at":"…","kind":"segment","format":1,"tape":"…","source":"alpha","provider":"tweetstream"}
//! {"n":48212,"at":"…","kind":"note","via":"own","conn":0,"raw":{"rows":123,"pruned":{"note":"pruned","first_n":1,…}}}
//! {"n":48212,"at":"…","kind":"note","via":"own","conn":0,"raw":{"row":"gap",…}}
//! {"n":48212,"at":"…","kind":"commit",…}
//! ```

use serde::{Deserialize, Serialize};

use super::fact::{Fact, to_json};
use super::layout::Layout;
use super::{ArchiveError, Options, Result};
use crate::catalog::{
    AuditRow, Catalog, Change, ConnectionRow, CoverageRow, GapKindRow, GapRow, GapStepRow, LastSeenRow, ScopeRow, SegmentRow,
    SourceRow,
};
use crate::model::{ConnId, Draft, Seq, UnixMicros};
use crate::segment::{self, BlockEnd, Disk, FORMAT, Header, Line, Reader, SegmentError, Trust, Walk, Writer};

/// State of a segment's row when its file was removed on purpose.
pub(super) const PRUNED: &str = "pruned";

/// What is kept.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Remains {
    /// Last record that was removed.
    pub(super) last_n: Seq,
    /// What was removed last.
    pub(super) fact: Fact,
    /// The source as it stood behind that record.
    pub(super) source: SourceRow,
    /// Everything else that the catalog knew then.
    rows: Vec<Row>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "row", rename_all = "snake_case")]
enum Row {
    Source(SourceRow),
    Scope(ScopeRow),
    Connection(ConnectionRow),
    Segment(SegmentRow),
    LastSeen(LastSeenRow),
    Gap(GapRow),
    GapStep(GapStepRow),
    GapKind(GapKindRow),
    Audit(AuditRow),
    Coverage(CoverageRow),
}

/// The first line: what was removed last, and how many rows follow.
#[derive(Serialize, Deserialize)]
struct Head {
    rows: usize,
    pruned: Fact,
}

impl Remains {
    /// What a catalog knows of a source behind `last_n`.
    pub(super) fn of(catalog: &Catalog, source: SourceRow, last_n: Seq, fact: Fact) -> Result<Self> {
        let name = source.name.as_str();
        let mut rows = Vec::new();
        rows.extend(catalog.scopes(name)?.into_iter().map(Row::Scope));
        rows.extend(catalog.connections(name)?.into_iter().map(Row::Connection));
        rows.extend(catalog.pruned(name)?.into_iter().map(Row::Segment));
        rows.extend(catalog.last_seen(name)?.into_iter().map(Row::LastSeen));
        for gap in catalog.gaps(Some(name))? {
            rows.extend(catalog.gap_steps(name, gap.n)?.into_iter().map(Row::GapStep));
            rows.push(Row::Gap(gap));
        }
        rows.extend(catalog.gap_kinds(name)?.into_iter().map(Row::GapKind));
        rows.extend(catalog.audits(name)?.into_iter().map(Row::Audit));
        rows.extend(catalog.coverage(name)?.into_iter().map(Row::Coverage));
        Ok(Self { last_n, fact, source, rows })
    }

    /// How far a source was pruned, by the header alone; `None` where it never was, or where the header cannot be read.
    pub(super) fn last_n(disk: &dyn Disk, layout: &Layout, source: &str) -> Result<Option<Seq>> {
        let path = layout.remains(source);
        if disk.len(&path).map_err(|e| SegmentError::io("cannot look at", &path, e))?.is_none() {
            return Ok(None);
        }
        let block = Reader::open(disk, &path)?.next_block()?;
        let line = block.as_ref().and_then(|block| block.data.split(|b| *b == b'\n').next()).unwrap_or_default();
        Ok(match Line::parse(line) {
            Some(Line::Header(header)) => Some(header.n),
            _ => None,
        })
    }

    /// Reads and proves what is kept of a source; `None` where nothing was ever pruned.
    ///
    /// # Errors
    /// [`SegmentError::Damaged`] when not all of it holds.
    pub(super) fn read(disk: &dyn Disk, layout: &Layout, tape: &str, source: &str) -> Result<Option<Self>> {
        let path = layout.remains(source);
        if disk.len(&path).map_err(|e| SegmentError::io("cannot look at", &path, e))?.is_none() {
            return Ok(None);
        }
        let mut reader = Reader::open(disk, &path)?;
        let (mut walk, mut lines, mut bodies) = (Walk::new(Trust::Chain), None, Vec::new());
        let damaged = |offset: u64, why: String| ArchiveError::from(SegmentError::Damaged { path: path.clone(), offset, why });
        while let Some(block) = reader.next_block()? {
            let proven = walk.block(&block, |line, _| {
                match line {
                    Line::Header(header) if header.tape == tape && header.source == source => lines = Some(header.n),
                    Line::Header(_) | Line::Commit(_) => {}
                    Line::Record(record) => bodies.extend(record.fact().map(str::to_owned)),
                }
                Ok::<_, ArchiveError>(())
            })?;
            let torn = (block.end != BlockEnd::Whole).then(|| "the block is not whole".to_owned());
            if let Some(why) = proven.damage.or(torn) {
                return Err(damaged(block.offset, why));
            }
        }
        let last_n = lines.ok_or_else(|| damaged(0, "it does not begin with a header of this tape and source".to_owned()))?;
        let mut bodies = bodies.iter();
        let head: Option<Head> = bodies.next().and_then(|body| serde_json::from_str(body).ok());
        let head = head.ok_or_else(|| damaged(0, "its first line does not tell what was pruned".to_owned()))?;
        let mut rows = bodies.map(|body| serde_json::from_str(body)).collect::<std::result::Result<Vec<Row>, _>>();
        if let Ok(rows) = &rows
            && rows.len() != head.rows
        {
            return Err(damaged(0, format!("it has {} rows, and its first line tells of {}", rows.len(), head.rows)));
        }
        match rows.as_mut().map(|rows| (!rows.is_empty()).then(|| rows.remove(0))) {
            Ok(Some(Row::Source(source))) => {
                let rows = rows.unwrap_or_default();
                Ok(Some(Self { last_n, fact: head.pruned, source, rows }))
            }
            Ok(_) => Err(damaged(0, "it does not tell of its source".to_owned())),
            Err(error) => Err(damaged(0, format!("a line is not in the form of this format: {error}"))),
        }
    }

    /// Writes it in the place of what was there, whole or not at all; from then on what it tells of counts as removed.
    pub(super) fn write(&self, disk: &dyn Disk, layout: &Layout, tape: &str, options: &Options, at: UnixMicros) -> Result<()> {
        let name = self.source.name.as_str();
        let [open, partial] = layout.remains_aside(name);
        let header = Header {
            n: self.last_n,
            at,
            format: FORMAT,
            tape: tape.into(),
            source: name.into(),
            provider: self.source.provider.as_str().into(),
        };
        let mut writer = Writer::create(disk, &open, &header, options.level, options.block_bytes)?;
        let mut put = |fact: String| writer.append(self.last_n, &Draft::note(at, ConnId(0), fact), true).map(drop);
        put(to_json(&Head { rows: self.rows.len() + 1, pruned: self.fact.clone() }))?;
        put(to_json(&Row::Source(self.source.clone())))?;
        self.rows.iter().try_for_each(|row| put(to_json(row)))?;
        writer.finish(at)?;
        disk.reached("remains finished, not in place").map_err(|e| SegmentError::io("cannot write", &open, e))?;
        segment::seal(disk, &open, &partial, &layout.remains(name), options.level)?;
        Ok(())
    }

    /// Everything it tells, for a catalog that knows nothing of the source.
    pub(super) fn changes(&self) -> Vec<Change> {
        let of = |row: &Row| match row.clone() {
            Row::Source(row) => Change::Source(row),
            Row::Scope(row) => Change::Scope(row),
            Row::Connection(row) => Change::Connection(row),
            Row::Segment(row) => Change::Segment(row),
            Row::LastSeen(row) => Change::LastSeen(row),
            Row::Gap(row) => Change::Gap(row),
            Row::GapStep(row) => Change::GapStep(row),
            Row::GapKind(row) => Change::GapKind(row),
            Row::Audit(row) => Change::Audit(row),
            Row::Coverage(row) => Change::Coverage(row),
        };
        std::iter::once(Change::Source(self.source.clone())).chain(self.rows.iter().map(of)).collect()
    }

    /// Segments that were removed, for a catalog that knows the rest.
    pub(super) fn removed(&self) -> Vec<Change> {
        let removed = self.rows.iter().filter_map(|row| match row {
            Row::Segment(row) => Some(row.clone()),
            _ => None,
        });
        removed.flat_map(Change::replace_segment).collect()
    }
}
