//! A scope's timeline, and the only ways it can move.
//!
//! The fields are private to this file: coverage grows by [`Timeline::advance`], which wants [`Evidence`], and that is
//! made from a record only; or by [`Timeline::audit`], which a note asks for. Everything else takes away or waits. So
//! nobody moves the frontier without bytes or a ledger row.

use super::index::Indexed;
use crate::catalog::ScopeRow;
use crate::model::{IntervalSet, RecordKind, UnixMicros, Via};

/// Proof that a source was being delivered, taken from a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Evidence(UnixMicros);

impl Evidence {
    /// What a record proves: an envelope off a live connection, an opened connection, or a note of life.
    pub(super) fn of(record: &Indexed<'_>) -> Option<Self> {
        let live = matches!(record.via, Via::Ws | Via::Sse | Via::Lines | Via::Webhook);
        let proves = match record.kind {
            RecordKind::Frame => live,
            RecordKind::Open => true,
            RecordKind::Note => record.fact.is_some_and(|fact| fact.starts_with(r#"{"note":"alive""#)),
            RecordKind::Close | RecordKind::Sent | RecordKind::Http => false,
        };
        proves.then_some(Self(record.at))
    }

    /// What a catalog remembers of records it was made from.
    pub(super) fn remembered(at_us: i64) -> Self {
        Self(UnixMicros(at_us))
    }

    pub(super) fn at(self) -> UnixMicros {
        self.0
    }
}

/// What moved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Moved {
    /// Nothing.
    Not,
    /// The end of the last interval.
    End,
    /// Anything.
    All,
}

/// A scope as it stands.
#[derive(Clone, Debug)]
pub(super) struct Timeline {
    pub(super) row: ScopeRow,
    /// Covered by the live connection.
    live: IntervalSet,
    /// Asked for again later, and whole.
    audited: IntervalSet,
    /// Where the running interval began, or begins.
    resume: UnixMicros,
    /// The frontier that evidence has reached; it only moves on from here.
    reached: UnixMicros,
    /// Bounded gaps that lie, in part, beyond that frontier.
    cuts: Vec<(UnixMicros, UnixMicros)>,
    /// The gap that is still growing.
    pub(super) open_gap: Option<u64>,
}

impl Timeline {
    /// One that promises from the row's beginning on.
    pub(super) fn new(row: ScopeRow) -> Self {
        Self {
            live: IntervalSet::new(),
            audited: IntervalSet::new(),
            resume: UnixMicros(row.since_us),
            reached: UnixMicros(i64::MIN),
            cuts: Vec::new(),
            open_gap: None,
            row,
        }
    }

    /// Takes back what a catalog holds of it.
    pub(super) fn remember(&mut self, class: &str, from: UnixMicros, to: UnixMicros) {
        if class == super::coverage::AUDITED {
            self.audited.insert(from, to);
        } else {
            self.live.insert(from, to);
            self.reached = to;
        }
    }

    /// Takes gaps in that were there before: of one that reaches beyond the frontier the rest is still to be left out.
    pub(super) fn remember_gaps(&mut self, bounded: impl Iterator<Item = (UnixMicros, UnixMicros)>) {
        self.cuts = bounded.filter(|(_, to)| *to > self.reached).collect();
    }

    /// A version of the scope begins, changes or ends. What follows an ended one begins anew; else the timeline goes on.
    pub(super) fn promise(&mut self, row: ScopeRow) {
        if self.row.until_us.is_some() && row.until_us.is_none() {
            self.resume = self.resume.max(UnixMicros(row.since_us));
        }
        self.row = row;
    }

    /// A gap takes a stretch away; `grows` is its number while it has no end.
    pub(super) fn lose(&mut self, from: UnixMicros, to: Option<UnixMicros>, grows: Option<u64>) {
        let end = to.unwrap_or(UnixMicros(i64::MAX));
        self.live.remove(from, end);
        self.audited.remove(from, end);
        if let Some(to) = to.filter(|to| *to > self.reached) {
            self.cuts.push((from, to));
        }
        self.open_gap = grows.or(self.open_gap);
    }

    /// A gap got its end: coverage begins there again.
    pub(super) fn resume(&mut self, gap: u64, to: UnixMicros, is_mine: bool) {
        if is_mine {
            self.resume = self.resume.max(to);
        }
        if self.open_gap == Some(gap) {
            self.open_gap = None;
        }
    }

    /// Lets evidence move the frontier.
    pub(super) fn advance(&mut self, evidence: Evidence) -> Moved {
        if self.open_gap.is_some() || self.row.until_us.is_some() {
            return Moved::Not;
        }
        let frontier = UnixMicros(evidence.0.0.saturating_sub(self.row.horizon_us));
        let start = self.resume.max(self.reached);
        if frontier <= start {
            return Moved::Not;
        }
        self.live.insert(start, frontier);
        self.reached = frontier;
        if self.cuts.is_empty() {
            return Moved::End;
        }
        for &(from, to) in &self.cuts {
            self.live.remove(from, to);
        }
        self.cuts.retain(|(_, to)| *to > frontier);
        Moved::All
    }

    /// History has nothing of a stretch that is not on the tape: what is covered of it is audited.
    pub(super) fn audit(&mut self, from: UnixMicros, to: UnixMicros) {
        for (a, b) in self.live.iter() {
            self.audited.insert(a.max(from), b.min(to));
        }
    }

    /// Where a gap would begin: one horizon before the last evidence, never before the promise.
    pub(super) fn frontier(&self, evidence: Option<Evidence>) -> UnixMicros {
        let covered = self.live.iter().last().map_or(self.resume, |(_, to)| to);
        let by_evidence = evidence.map_or(covered, |at| UnixMicros(at.0.0.saturating_sub(self.row.horizon_us)));
        covered.min(by_evidence).max(UnixMicros(self.row.since_us))
    }

    pub(super) fn live(&self) -> &IntervalSet {
        &self.live
    }

    pub(super) fn audited(&self) -> &IntervalSet {
        &self.audited
    }
}
