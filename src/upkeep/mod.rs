//! Job: keeping a tape sound and small: looking for damage, bringing records back, packing harder, removing the oldest.
//!
//! Owns which segments are next and how fast, and says what comes of each. What happens to one segment, and in which durable
//! order, is the archive's. Prints nothing, and reaches for no network: what a damaged block lost is a gap, and gaps are
//! filled by others.
//!
//! | file | holds |
//! | --- | --- |
//! | `mod.rs` | what the parts share |
//! | `compact.rs` | [`compact`]: sealed segments packed anew |
//! | `prune.rs` | [`prune`]: the oldest segments removed, by age or by size |
//! | `scrub.rs` | [`follow`] and [`scrub`]: every sealed byte read again, slowly, from where it was left |
//! | `pace.rs` | [`Paced`], a disk that reads no faster than it may |
//! | `repair.rs` | [`repair`]: what is damaged, and records back from a copy of the tape |

mod compact;
mod pace;
mod prune;
mod repair;
mod scrub;
#[cfg(test)]
mod tests;

use std::path::Path;
use std::sync::Arc;

pub use self::compact::{CompactEvent, CompactOptions, CompactOutcome, PACKING, compact, plan_compact};
pub use self::pace::Paced;
pub use self::prune::{Doomed, PruneEvent, PruneOptions, PrunePlan, plan_prune, prune};
pub use self::repair::{Became, Hurt, RepairEvent, RepairOptions, RepairOutcome, repair};
pub use self::scrub::{Passed, ScrubEvent, ScrubOptions, Scrubbing, Sink, follow, scrub};
use crate::archive::{ArchiveError, Disk, SegmentRow, Tape};

/// Sealed segments of the wanted sources (all when none is named), by source and number.
fn sealed(tape: &Tape, sources: &[String]) -> Result<Vec<SegmentRow>, ArchiveError> {
    for name in sources {
        tape.source(name)?;
    }
    let mut rows = Vec::new();
    for source in tape.sources()?.into_iter().filter(|source| sources.is_empty() || sources.contains(&source.name)) {
        rows.extend(tape.catalog().segments(&source.name).map_err(ArchiveError::from)?);
    }
    rows.retain(|row| row.state == "sealed");
    Ok(rows)
}

fn open(dir: &Path, disk: &Arc<dyn Disk>) -> Result<Tape, ArchiveError> {
    Tape::open(dir, Arc::clone(disk))
}

/// Runs what blocks on a thread for it.
async fn off_the_runtime<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(cancelled) => panic!("the runtime ends in the middle of work: {cancelled}"),
        },
    }
}
