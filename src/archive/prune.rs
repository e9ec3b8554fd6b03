//! Removing the oldest segments on purpose, so that the tape knows it.
//!
//! The order: what the doomed segments come to is written beside the days ([`Remains`]); from that rename on they count as
//! removed. Then the ledger and the catalog learn of it, in one commit, and only then do files go. Whoever opens the tape after
//! a kill finishes what was begun.

use super::coverage::pruned_until;
use super::layout::Found;
use super::recover;
use super::remains::Remains;
use super::{Archive, ArchiveError, Decode, Fact, Result};
use crate::catalog::SegmentRow;
use crate::model::{GapState, Seq, SourceName, UnixMicros};

/// What was removed of a source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pruned {
    /// The source.
    pub source: SourceName,
    /// First record that is gone.
    pub first_n: Seq,
    /// Last record that is gone.
    pub last_n: Seq,
    /// How many segments.
    pub segments: u64,
    /// How many records could be read in them.
    pub records: u64,
    /// Envelopes among those.
    pub envelopes: u64,
    /// Bytes of the files.
    pub bytes: u64,
}

impl Archive {
    /// Removes the sealed segments of a source up to the one whose last record is `last_n`. What they come to (scopes, gaps,
    /// coverage, digests) is kept, and the ledger says by which rule they went. `progress` is told of bytes read.
    ///
    /// `None` when there is no such segment.
    ///
    /// # Errors
    /// When the disk refuses; the archive is then poisoned and must be opened again.
    pub fn prune(
        &mut self,
        source: &SourceName,
        last_n: Seq,
        why: &str,
        decode: Decode,
        at: UnixMicros,
        progress: &mut dyn FnMut(u64),
    ) -> Result<Option<Pruned>> {
        self.check()?;
        let pruned = self.try_prune(source, last_n, why, decode, at, progress);
        self.guard(pruned)
    }

    fn try_prune(
        &mut self,
        source: &SourceName,
        last_n: Seq,
        why: &str,
        decode: Decode,
        at: UnixMicros,
        progress: &mut dyn FnMut(u64),
    ) -> Result<Option<Pruned>> {
        self.commit(at)?;
        let name = source.as_str();
        let (doomed, rest): (Vec<SegmentRow>, Vec<SegmentRow>) =
            self.catalog.segments(name)?.into_iter().partition(|row| row.state == "sealed" && row.last_n <= last_n.0);
        let (Some(first), Some(index)) = (doomed.first(), self.index.get(source)) else { return Ok(None) };
        // Numbers between them that no segment has are lost, and go with them.
        let last_n = rest.iter().map(|row| Seq(row.first_n).before()).min().unwrap_or(index.last_n());
        let (first_n, provider) = (Seq(first.first_n), index.provider().to_owned());
        let before = Remains::read(&*self.disk, &self.layout, &self.tape, name)?;
        let (mut catalog, mut index, envelopes) = recover::fold(
            &self.layout,
            &*self.disk,
            decode,
            (&self.tape, source, &provider),
            before.as_ref(),
            &doomed,
            progress,
        )?;
        let mut changes = Vec::new();
        if index.last_n() < last_n {
            index.skip_to(last_n);
        }
        index.take_changes(&mut changes);
        catalog.apply(&changes)?;
        let sum = |of: fn(&SegmentRow) -> u64| doomed.iter().map(of).sum::<u64>();
        let (records, bytes, raw_bytes) = (sum(|row| row.records), sum(|row| row.bytes), sum(|row| row.raw_bytes));
        let fact = Fact::Pruned {
            first_n: first_n.0,
            last_n: last_n.0,
            from: UnixMicros(doomed.iter().map(|row| row.first_us).min().unwrap_or_default()),
            to: UnixMicros(doomed.iter().map(|row| row.last_us).max().unwrap_or_default()),
            segments: doomed.len() as u64,
            records,
            envelopes,
            bytes,
            raw_bytes,
            why: why.to_owned(),
        };
        let row = catalog.sources()?.into_iter().find(|row| row.name == name);
        let row = row.expect("an index that was folded has told its source");
        let remains = Remains::of(&catalog, row, last_n, fact)?;
        remains.write(&*self.disk, &self.layout, &self.tape, &self.options, at)?;
        self.reached("remains in place, ledger behind")?;

        self.remark(source, at, &remains.fact)?;
        self.changes.extend(remains.removed());
        // Gaps are settled by what the catalog says.
        self.commit(at)?;
        self.settle_pruned(at)?;
        self.commit(at)?;
        self.reached("pruned in the ledger, files still there")?;
        let found: Vec<Found> =
            doomed.iter().map(|row| Found { first_n: Seq(row.first_n), day: row.day.clone(), open: false }).collect();
        recover::remove_pruned(&*self.disk, &self.layout, name, &found, last_n)?;
        let segments = doomed.len() as u64;
        Ok(Some(Pruned { source: source.clone(), first_n, last_n, segments, records, envelopes, bytes }))
    }

    /// Settles open gaps of which everything around was removed: nobody is to fill them any more. Gives whether there were any.
    pub(super) fn settle_pruned(&mut self, at: UnixMicros) -> Result<bool> {
        let mut settled = false;
        let sources: Vec<SourceName> = self.index.keys().cloned().collect();
        for source in sources {
            let Some((_, last_us)) = self.catalog.pruned_until(source.as_str()).map_err(ArchiveError::from)? else { continue };
            let until = pruned_until(UnixMicros(last_us), self.horizon(&source).as_micros() as i64);
            let index = &self.index[&source];
            let gone: Vec<(u64, Option<i64>)> =
                index.open_gaps().filter(|gap| gap.to_us.is_some_and(|to| to <= until.0)).map(|gap| (gap.n, gap.to_us)).collect();
            for (gap, to) in gone {
                let detail = "what was received around it was removed from the tape on purpose";
                self.step(&source, at, gap, GapState::Pruned, None, to.map(UnixMicros), detail)?;
                settled = true;
            }
        }
        Ok(settled)
    }
}
