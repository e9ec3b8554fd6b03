//! How much there may be in a gap, by what came around it.

use std::time::Duration;

use super::known::Held;
use super::{BackfillError, Planned};
use crate::archive::{ALL, Tape};
use crate::model::{IntervalSet, UnixMicros};

/// The shortest and the longest stretch before and behind a gap that is looked at.
const AROUND: [Duration; 2] = [Duration::from_secs(600), Duration::from_secs(6 * 3_600)];

/// Posts that a gap may miss: its length at the rate of the posts that came on either side of it, while the source was
/// known to be alive. Nothing where nothing is known.
///
/// # Errors
/// When the tape cannot be read.
pub fn items(tape: &Tape, planned: &Planned) -> Result<Option<u64>, BackfillError> {
    let (from, to) = (planned.wanted.from, planned.wanted.to);
    let long = Duration::from_micros(to.since(from).max(0) as u64);
    let around = long.clamp(AROUND[0], AROUND[1]);
    let source = planned.source.name.as_str();
    let coverage = tape.catalog().coverage(source).map_err(crate::archive::ArchiveError::from)?;
    let mut covered = IntervalSet::new();
    for row in coverage.iter().filter(|row| row.scope == ALL) {
        covered.insert(UnixMicros(row.from_us), UnixMicros(row.to_us));
    }
    let (mut posts, mut us) = (0_u64, 0_i64);
    for (start, end) in [(from.minus(around), from), (to, to.plus(around))] {
        for (a, b) in covered.iter().map(|(a, b)| (a.max(start), b.min(end))).filter(|(a, b)| a < b) {
            posts += Held::of(tape, source, planned.source.settings.provider, a, b)?.len();
            us += b.since(a);
        }
    }
    Ok((us > 0).then(|| (posts as f64 * long.as_micros() as f64 / us as f64).round() as u64))
}
