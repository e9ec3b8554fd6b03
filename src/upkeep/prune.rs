//! The oldest segments removed, by age or by size.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::{open, sealed};
use crate::archive::{self, Archive, ArchiveError, Disk, Layout, Pruned, SegmentRow, Tape};
use crate::model::{GapState, Seq, SourceName, UnixMicros};
use crate::net::Clock;
use crate::provider::decode_record;

/// What is to go.
#[derive(Clone, Debug)]
pub struct PruneOptions {
    /// Directory of the tape.
    pub tape: PathBuf,
    /// How it is written.
    pub archive: archive::Options,
    /// Only these sources; none is all.
    pub sources: Vec<String>,
    /// Segments of which everything was received longer ago than that.
    pub older_than: Option<Duration>,
    /// The oldest segments until the files of these sources have no more bytes than that; the newest of each stays.
    pub max_bytes: Option<u64>,
    /// The rules in the person's words, for the ledger.
    pub why: String,
    /// What another writer is told about us.
    pub holder: String,
}

/// What of a source goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Doomed {
    /// The source.
    pub source: SourceName,
    /// Its oldest segments.
    pub segments: Vec<SegmentRow>,
    /// Gaps that are open and lie wholly before what is left.
    pub open_gaps: u64,
}

impl Doomed {
    /// Bytes of the files.
    pub fn bytes(&self) -> u64 {
        self.segments.iter().map(|row| row.bytes).sum()
    }

    /// Records in them.
    pub fn records(&self) -> u64 {
        self.segments.iter().map(|row| row.records).sum()
    }

    /// When the last of them was received.
    pub fn until(&self) -> UnixMicros {
        UnixMicros(self.segments.iter().map(|row| row.last_us).max().unwrap_or_default())
    }
}

/// What would go, and what would be left.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PrunePlan {
    /// By source; those of which nothing goes are left out.
    pub doomed: Vec<Doomed>,
    /// Bytes of sealed segments that would be left, of these sources.
    pub left_bytes: u64,
}

/// What happens, for whoever watches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PruneEvent {
    /// So many bytes were read since the last time; nothing is removed unread.
    Read(u64),
    /// A source is done.
    Pruned(Pruned),
}

/// What would go. Writes nothing.
///
/// # Errors
/// When the tape cannot be read.
pub fn plan_prune(options: &PruneOptions, disk: &Arc<dyn Disk>, now: UnixMicros) -> Result<PrunePlan, ArchiveError> {
    chosen(&open(&options.tape, disk)?, options, now)
}

fn chosen(tape: &Tape, options: &PruneOptions, now: UnixMicros) -> Result<PrunePlan, ArchiveError> {
    let rows = sealed(tape, &options.sources)?;
    let mut by_source: Vec<Vec<SegmentRow>> = rows.chunk_by(|a, b| a.source == b.source).map(<[_]>::to_vec).collect();
    let mut left_bytes: u64 = rows.iter().map(|row| row.bytes).sum();
    let mut gone = vec![0; by_source.len()];
    if let Some(age) = options.older_than {
        let before = now.minus(age);
        for (of_source, gone) in by_source.iter().zip(&mut gone) {
            *gone = of_source.iter().take_while(|row| row.last_us < before.0).count();
            left_bytes -= of_source[..*gone].iter().map(|row| row.bytes).sum::<u64>();
        }
    }
    while let Some(max) = options.max_bytes.filter(|max| left_bytes > *max) {
        let fronts = by_source.iter().zip(&gone).enumerate();
        // The newest of a source stays, however little room there is: a mistyped size costs history, not everything.
        let fronts = fronts.filter(|(_, (rows, gone))| **gone + 1 < rows.len());
        let Some((at, _)) = fronts.min_by_key(|(_, (rows, gone))| rows[**gone].last_us) else {
            tracing::debug!(left_bytes, max, "only the newest segments are left");
            break;
        };
        left_bytes -= by_source[at][gone[at]].bytes;
        gone[at] += 1;
    }
    let mut plan = PrunePlan { doomed: Vec::new(), left_bytes };
    for (of_source, gone) in by_source.iter_mut().zip(gone).filter(|(_, gone)| *gone > 0) {
        of_source.truncate(gone);
        let Ok(source) = SourceName::new(&of_source[0].source) else { continue };
        let until = of_source.iter().map(|row| row.last_us).max().unwrap_or_default();
        let gaps = tape.catalog().gaps(Some(source.as_str())).map_err(ArchiveError::from)?;
        let is_open = |state: &str| state.parse().is_ok_and(GapState::is_open);
        let open_gaps = gaps.iter().filter(|gap| is_open(&gap.state) && gap.to_us.is_some_and(|to| to <= until)).count() as u64;
        plan.doomed.push(Doomed { source, segments: std::mem::take(of_source), open_gaps });
    }
    Ok(plan)
}

/// Removes what the plan says, source by source.
///
/// # Errors
/// When somebody else writes to the tape, or the disk refuses.
pub fn prune(
    options: &PruneOptions,
    clock: &dyn Clock,
    disk: &Arc<dyn Disk>,
    tell: &mut dyn FnMut(PruneEvent),
) -> Result<Vec<Pruned>, ArchiveError> {
    Layout::new(&options.tape).require_info(&**disk)?;
    let (archive_options, holder) = (options.archive.clone(), &options.holder);
    let mut archive = Archive::open(&options.tape, Arc::clone(disk), archive_options, decode_record, holder, clock.wall())?;
    let plan = chosen(&open(&options.tape, disk)?, options, clock.wall())?;
    let mut outcome = Vec::new();
    for Doomed { source, segments, .. } in plan.doomed {
        let Some(last_n) = segments.last().map(|row| Seq(row.last_n)) else { continue };
        let mut progress = |bytes| tell(PruneEvent::Read(bytes));
        let pruned = archive.prune(&source, last_n, &options.why, decode_record, clock.wall(), &mut progress)?;
        if let Some(pruned) = pruned {
            tell(PruneEvent::Pruned(pruned.clone()));
            outcome.push(pruned);
        }
    }
    archive.close(clock.wall())?;
    Ok(outcome)
}
