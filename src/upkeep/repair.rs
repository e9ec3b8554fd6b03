//! What is damaged, and records back from a copy of the tape.

use std::path::PathBuf;
use std::sync::Arc;

use super::{open, sealed};
use crate::archive::{self, Archive, ArchiveError, Disk, Hole, Layout, Refused, Restored, SegmentRow, Tape};
use crate::model::{GapState, SourceName};
use crate::net::Clock;
use crate::provider::decode_record;

/// What is to be repaired, and from what.
#[derive(Clone, Debug)]
pub struct RepairOptions {
    /// Directory of the tape.
    pub tape: PathBuf,
    /// How it is written.
    pub archive: archive::Options,
    /// Only these sources; none is all.
    pub sources: Vec<String>,
    /// Directory of a copy of the tape; without it damage is only found and told.
    pub from: Option<PathBuf>,
    /// Whether damaged files stay under another name.
    pub keep: bool,
    /// What another writer is told about us.
    pub holder: String,
}

/// What happens, for whoever watches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RepairEvent {
    /// So many bytes of files were read since the last time.
    Read(u64),
}

/// A damaged segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hurt {
    /// Its row.
    pub segment: SegmentRow,
    /// The file.
    pub path: PathBuf,
    /// What does not hold.
    pub flaws: Vec<String>,
    /// Records that are lost.
    pub lost: Vec<Hole>,
    /// Numbers of the gaps that tell of them.
    pub gaps: Vec<u64>,
    /// What became of it.
    pub became: Became,
}

/// What became of a damaged segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Became {
    /// Nothing was there to bring it back from.
    Found,
    /// It is whole again.
    Restored(Restored),
    /// The copy is of no use for it.
    Refused(Refused),
}

/// What it came to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RepairOutcome {
    /// Damaged segments, by source and number.
    pub hurt: Vec<Hurt>,
    /// The other tape is no copy, but another recorder's: gaps can be filled from it.
    pub is_other_recorders: bool,
    /// Whether the catalog was made again.
    pub is_rebuilt: bool,
}

impl RepairOutcome {
    /// Gaps of damaged blocks through which loss is still possible.
    pub fn open_gaps(&self, tape: &Tape) -> Result<Vec<(SourceName, u64)>, ArchiveError> {
        let mut open = Vec::new();
        for hurt in &self.hurt {
            let Ok(source) = SourceName::new(&hurt.segment.source) else { continue };
            let gaps = tape.catalog().gaps(Some(source.as_str())).map_err(ArchiveError::from)?;
            let is_open = |gap: &&archive::GapRow| gap.state.parse().is_ok_and(GapState::is_open);
            let mine = gaps.iter().filter(is_open).filter(|gap| hurt.gaps.contains(&gap.n));
            open.extend(mine.map(|gap| (source.clone(), gap.n)));
        }
        Ok(open)
    }
}

/// Reads every sealed segment, writes what is lost into the ledger, and brings back what a copy of the tape has.
///
/// # Errors
/// When somebody else writes to the tape, the other one is no tape, or a disk refuses.
pub fn repair(
    options: &RepairOptions,
    clock: &dyn Clock,
    disk: &Arc<dyn Disk>,
    tell: &mut dyn FnMut(RepairEvent),
) -> Result<RepairOutcome, ArchiveError> {
    let info = Layout::new(&options.tape).require_info(&**disk)?;
    let copy = options.from.as_ref().map(|from| open(from, disk)).transpose()?;
    let (archive_options, holder) = (options.archive.clone(), &options.holder);
    let mut archive =
        Archive::open(&options.tape, Arc::clone(disk), archive_options.clone(), decode_record, holder, clock.wall())?;
    let mut outcome = RepairOutcome::default();
    let tape = open(&options.tape, disk)?;
    for segment in sealed(&tape, &options.sources)? {
        let looked = tape.look_at(&**disk, &segment)?;
        tell(RepairEvent::Read(segment.bytes));
        let Some(looked) = looked.filter(|looked| !looked.is_whole()) else { continue };
        for hole in &looked.lost {
            archive.note_loss(hole, clock.wall())?;
        }
        let (path, flaws, lost) = (looked.path, looked.flaws, looked.lost);
        outcome.hurt.push(Hurt { segment, path, flaws, lost, gaps: Vec::new(), became: Became::Found });
    }
    archive.commit(clock.wall())?;
    outcome.is_other_recorders = copy.as_ref().is_some_and(|copy| copy.info().tape != info.tape);
    for hurt in &mut outcome.hurt {
        let Ok(source) = SourceName::new(&hurt.segment.source) else { continue };
        hurt.gaps = archive.gaps_of(&source, &hurt.segment);
        let Some(copy) = copy.as_ref().filter(|copy| copy.info().tape == info.tape) else { continue };
        hurt.became = match archive.restore(&source, &hurt.segment, copy, options.keep, decode_record, clock.wall())? {
            Ok(restored) => {
                outcome.is_rebuilt |= !restored.is_known;
                Became::Restored(restored)
            }
            Err(refused) => Became::Refused(refused),
        };
    }
    archive.close(clock.wall())?;
    if outcome.is_rebuilt {
        archive::rebuild(&options.tape, Arc::clone(disk), archive_options, decode_record, holder, clock.wall())?;
    }
    Ok(outcome)
}
