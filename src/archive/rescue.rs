//! What becomes of records when the disk refuses their file: they are written again, into a new one.
//!
//! A failed write or sync leaves a file in a state that nobody knows; it is never synced again. Up to its last good commit
//! it is read back and sealed, as after a crash, and what was appended behind that is still in memory: it goes into a new
//! segment under the same numbers. Nothing is lost, so there is no gap. A disk that refuses again soon is left alone, and
//! its tape takes nothing more.

use std::collections::BTreeMap;
use std::time::Duration;

use super::index::{SourceIndex, speaks};
use super::writer::in_full;
use super::{Archive, ArchiveError, Result};
use crate::model::{Body, Decoded, Draft, Provider, Seq, SourceName, UnixMicros};

/// Bytes of records that are kept until they are durable. Where more are waiting a refusal is the end.
const KEPT_BYTES: usize = 64 << 20;

/// A disk that refuses again so soon is not tried any more.
const APART: Duration = Duration::from_secs(60);

/// Records that are appended and not durable.
#[derive(Default)]
pub(super) struct Unannounced {
    by_source: BTreeMap<SourceName, Vec<Kept>>,
    bytes: usize,
    /// There were more than are kept.
    is_too_much: bool,
}

struct Kept {
    n: Seq,
    draft: Draft,
    json: bool,
}

impl Unannounced {
    pub(super) fn keep(&mut self, source: &SourceName, n: Seq, draft: &Draft, json: bool) {
        let in_body = match &draft.body {
            Body::Bytes(bytes) => bytes.len(),
            Body::Fact(fact) => fact.len(),
        };
        self.bytes += size_of::<Kept>() + in_body;
        if self.bytes > KEPT_BYTES {
            self.is_too_much = true;
            self.by_source.clear();
        }
        if self.is_too_much {
            return;
        }
        let kept = Kept { n, draft: draft.clone(), json };
        match self.by_source.get_mut(source) {
            Some(of_source) => of_source.push(kept),
            None => drop(self.by_source.insert(source.clone(), vec![kept])),
        }
    }

    /// Those of a source are durable.
    pub(super) fn forget(&mut self, source: &SourceName) {
        self.by_source.entry(source.clone()).and_modify(Vec::clear);
    }

    /// All are durable, or lost.
    pub(super) fn clear(&mut self) {
        self.by_source.values_mut().for_each(Vec::clear);
        (self.bytes, self.is_too_much) = (0, false);
    }
}

/// The last time that it was necessary.
#[derive(Default)]
pub(super) struct Rescue {
    last: Option<UnixMicros>,
    is_going_on: bool,
}

impl Archive {
    /// Takes what is not durable to a new file, after the disk refused one.
    ///
    /// # Errors
    /// What it was refused with, when that is not to be cured so.
    pub(super) fn rescue(&mut self, error: ArchiveError, at: UnixMicros) -> Result<()> {
        let is_soon = self.rescue.last.is_some_and(|last| at.since(last).unsigned_abs() < APART.as_micros() as u64);
        if self.rescue.is_going_on || is_soon || self.unannounced.is_too_much || !error.is_of_one_file() {
            return Err(error);
        }
        self.rescue = Rescue { last: Some(at), is_going_on: true };
        // What is taken along stays in one segment.
        let is_mid_leaf = std::mem::replace(&mut self.is_mid_leaf, true);
        let rescued = self.write_again(at);
        (self.rescue.is_going_on, self.is_mid_leaf) = (false, is_mid_leaf);
        match rescued {
            Ok(()) => {
                let why = in_full(&error);
                tracing::error!(
                    "the disk refused a file: {why}; what was not safe is written again to a new one, look after the disk"
                );
                Ok(())
            }
            Err(again) if again.is_full() => Err(again),
            // The first refusal says more than what came of it.
            Err(_) => Err(error),
        }
    }

    fn write_again(&mut self, at: UnixMicros) -> Result<()> {
        let kept = std::mem::take(&mut self.unannounced);
        let known: Vec<_> = self.index.iter().map(|(name, index)| (name.clone(), index.provider().to_owned())).collect();
        // What opening had to mend is still news.
        let recovery = self.recovery.clone();
        self.mend(at)?;
        for (name, provider) in known {
            let index = || SourceIndex::new(name.as_str(), &provider);
            self.index.entry(name.clone()).or_insert_with(index);
        }
        for (source, records) in kept.by_source {
            for Kept { n, draft, json } in records {
                let next = self.last_n(&source).next();
                // A commit that was refused may have reached the disk all the same.
                if n < next {
                    continue;
                }
                if n > next {
                    return Err(ArchiveError::Poisoned);
                }
                let decoded = self.decoded(&source, &draft, json);
                self.append(&source, &draft, decoded.as_ref())?;
            }
        }
        self.make_reserve();
        self.note_recovery(at)?;
        self.recovery = recovery;
        Ok(())
    }

    /// What a record says, as a rebuild would find it.
    fn decoded(&self, source: &SourceName, draft: &Draft, json: bool) -> Option<Decoded> {
        let Body::Bytes(bytes) = &draft.body else { return None };
        let provider: Option<Provider> = self.index[source].provider().parse().ok();
        match provider.filter(|_| speaks(draft.kind, draft.via)) {
            Some(provider) => Some((self.decode)(provider, draft.via, bytes)),
            None => Some(Decoded { json, ..Decoded::default() }),
        }
    }
}
