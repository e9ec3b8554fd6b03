//! What the writer has made safe so far, for whoever cannot wait for its end.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use super::SourceOutcome;
use super::writer::Written;

#[derive(Debug, Default)]
pub(super) struct Board(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// As of the last commit.
    sources: Vec<SourceOutcome>,
    /// Envelopes, and their bytes, that are durable or counted as dropped, by source.
    settled: Vec<(u64, u64)>,
    written: Option<Written>,
    stop_by: Option<Instant>,
}

impl Board {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A source is recorded from now on.
    pub(super) fn add(&self, outcome: &SourceOutcome) {
        let mut state = self.state();
        state.sources.push(outcome.clone());
        state.settled.push((0, 0));
    }

    /// How a source stands now; so many envelopes more are durable, or lost and counted.
    pub(super) fn settle(&self, nth: usize, outcome: &SourceOutcome, (envelopes, bytes): (u64, u64)) {
        let mut state = self.state();
        state.sources[nth].clone_from(outcome);
        let settled = &mut state.settled[nth];
        *settled = (settled.0 + envelopes, settled.1 + bytes);
    }

    /// How a source stood at the last commit.
    pub(super) fn durable(&self, nth: usize) -> SourceOutcome {
        self.state().sources[nth].clone()
    }

    /// All is durable, the farewell too; only sealing is left to do.
    pub(super) fn write_down(&self, written: Written) {
        self.state().written = Some(written);
    }

    /// What was to be said at the end, if all is durable.
    pub(super) fn written(&self) -> Option<Written> {
        self.state().written.clone()
    }

    /// Whoever asked for the end waits no longer than this.
    pub(super) fn stop_by(&self, instant: Instant) {
        self.state().stop_by = Some(instant);
    }

    /// Until when the end must have come, if somebody waits for it.
    pub(super) fn must_stop_by(&self) -> Option<Instant> {
        self.state().stop_by
    }

    /// The sources as of the last commit. Of `taken` envelopes (and bytes) of each, those that are not durable are lost.
    pub(super) fn cut_off(&self, taken: impl Fn(usize) -> (u64, u64)) -> Vec<SourceOutcome> {
        let state = self.state();
        let each = state.sources.iter().zip(&state.settled).enumerate();
        each.map(|(nth, (source, settled))| {
            let (envelopes, bytes) = taken(nth);
            let mut source = source.clone();
            source.dropped += envelopes.saturating_sub(settled.0);
            source.dropped_bytes += bytes.saturating_sub(settled.1);
            source
        })
        .collect()
    }
}
