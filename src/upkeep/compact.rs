//! Sealed segments packed anew.

use std::num::NonZeroUsize;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::{open, sealed};
use crate::archive::{self, Archive, ArchiveError, Compacted, Disk, Packing, SegmentError, SegmentRow, Tape};
use crate::model::{SourceName, UnixMicros};
use crate::net::Clock;
use crate::provider::decode_record;

/// How segments are packed where nobody says otherwise: most of the gain is in the larger blocks, and beyond this level the
/// last tenth costs twenty times the work.
pub const PACKING: Packing = Packing { level: 12, block_bytes: 16 << 20, threads: NonZeroUsize::MIN };

/// Uncompressed bytes below which a segment is not worth a note on the tape.
const TOO_SMALL: u64 = if cfg!(test) { 1 } else { 64 << 10 };

/// What is to be packed, and how.
#[derive(Clone, Debug)]
pub struct CompactOptions {
    /// Directory of the tape.
    pub tape: PathBuf,
    /// How it is written.
    pub archive: archive::Options,
    /// Only these sources; none is all.
    pub sources: Vec<String>,
    /// Only segments whose last record was received so long ago.
    pub older_than: Option<Duration>,
    /// Also those that were compacted before.
    pub again: bool,
    /// How hard.
    pub packing: Packing,
    /// What another writer is told about us.
    pub holder: String,
}

/// What happens, for whoever watches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CompactEvent {
    /// So many bytes of files were read since the last time.
    Read(u64),
    /// A segment is smaller now.
    Smaller {
        /// As it was.
        segment: SegmentRow,
        /// Bytes of the file now.
        after: u64,
    },
    /// A segment is as it was, because it would not be smaller.
    AsBefore(SegmentRow),
    /// A segment is as it was, because it is damaged.
    Damaged {
        /// The segment.
        segment: SegmentRow,
        /// What does not hold.
        why: String,
    },
}

/// What it came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CompactOutcome {
    /// Segments that are smaller now.
    pub smaller: u64,
    /// Segments that are as they were.
    pub as_before: u64,
    /// Segments that are damaged.
    pub damaged: u64,
    /// Bytes of all those before.
    pub bytes_before: u64,
    /// Bytes of all those now.
    pub bytes_after: u64,
    /// Uncompressed bytes of all those.
    pub raw_bytes: u64,
    /// Whether it was stopped before its end.
    pub is_stopped: bool,
}

/// Which segments would be packed anew. Writes nothing.
///
/// # Errors
/// When the tape cannot be read.
pub fn plan_compact(options: &CompactOptions, disk: &Arc<dyn Disk>, now: UnixMicros) -> Result<Vec<SegmentRow>, ArchiveError> {
    chosen(&open(&options.tape, disk)?, options, now)
}

fn chosen(tape: &Tape, options: &CompactOptions, now: UnixMicros) -> Result<Vec<SegmentRow>, ArchiveError> {
    let before = options.older_than.map_or(UnixMicros(i64::MAX), |age| now.minus(age));
    let mut rows = sealed(tape, &options.sources)?;
    rows.retain(|row| row.raw_bytes >= TOO_SMALL && row.last_us < before.0);
    let mut chosen = Vec::new();
    for row in rows {
        if options.again || !tape.is_compact(&row)? {
            chosen.push(row);
        }
    }
    Ok(chosen)
}

/// Packs segments anew, one after the other, until all are done or `stop` says so. What is done stays.
///
/// # Errors
/// When somebody else writes to the tape, or the disk refuses.
pub fn compact(
    options: &CompactOptions,
    clock: &dyn Clock,
    disk: &Arc<dyn Disk>,
    tell: &mut dyn FnMut(CompactEvent),
    stop: &dyn Fn() -> bool,
) -> Result<CompactOutcome, ArchiveError> {
    archive::Layout::new(&options.tape).require_info(&**disk)?;
    let (archive_options, holder) = (options.archive.clone(), &options.holder);
    let mut archive = Archive::open(&options.tape, Arc::clone(disk), archive_options, decode_record, holder, clock.wall())?;
    let mut outcome = CompactOutcome::default();
    for segment in chosen(&open(&options.tape, disk)?, options, clock.wall())? {
        if stop() {
            outcome.is_stopped = true;
            break;
        }
        let Ok(source) = SourceName::new(&segment.source) else { continue };
        let mut go_on = |bytes| {
            tell(CompactEvent::Read(bytes));
            if stop() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        };
        let (mut after, raw_bytes) = (segment.bytes, segment.raw_bytes);
        match archive.compact(&source, &segment, options.packing, clock.wall(), &mut go_on) {
            Ok(Compacted::Smaller { after: now, .. }) => {
                outcome.smaller += 1;
                after = now;
                tell(CompactEvent::Smaller { segment: segment.clone(), after });
            }
            Ok(Compacted::AsBefore) => {
                outcome.as_before += 1;
                tell(CompactEvent::AsBefore(segment.clone()));
            }
            Ok(Compacted::Stopped) => {
                outcome.is_stopped = true;
                break;
            }
            Err(ArchiveError::Segment(SegmentError::Damaged { offset, why, .. })) => {
                outcome.damaged += 1;
                tell(CompactEvent::Damaged { segment: segment.clone(), why: format!("block at byte {offset}: {why}") });
            }
            Err(error) => return Err(error),
        }
        outcome.bytes_before += segment.bytes;
        outcome.bytes_after += after;
        outcome.raw_bytes += raw_bytes;
    }
    archive.close(clock.wall())?;
    Ok(outcome)
}
