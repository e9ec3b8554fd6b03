//! What the other tape's coverage proves of a gap.

use std::collections::BTreeSet;
use std::time::Duration;

use super::copy::Copied;
use super::{Pair, PeerError};
use crate::archive::{ALL, Classes, GapKindRow, GapRow, KindResult, ScopeCoverage, Stretch};
use crate::model::{GapState, IntervalSet, Seq, UnixMicros};
use crate::provider::default_lateness_horizon;

/// The other tape's source as it was before its records were read.
pub(super) struct Theirs {
    pub(super) scopes: Vec<ScopeCoverage>,
    /// Its last record then.
    pub(super) last_n: Seq,
    /// How late events may come: the longer of what it says and what is usual.
    pub(super) horizon: Duration,
    /// Rules, monitors and topics it brought.
    selectors: BTreeSet<String>,
}

/// What is written into the ledger.
pub(super) struct Verdict {
    pub(super) state: GapState,
    pub(super) kinds: Vec<KindResult>,
    pub(super) words: String,
}

impl Theirs {
    pub(super) fn read(pair: &Pair<'_>) -> Result<Self, PeerError> {
        let (tape, source) = (&pair.other.tape, pair.from.as_str());
        // Coverage first: it must not speak of records that came after the last one that is required.
        let scopes = tape.coverage(source).map_err(PeerError::Other)?;
        let last_n = Seq(tape.source(source).map_err(PeerError::Other)?.last_n);
        let seen = tape.catalog().last_seen(source).map_err(|error| PeerError::Other(error.into()))?;
        let said = scopes.iter().map(|scope| scope.horizon_us.max(0) as u64).max().unwrap_or(0);
        let horizon = Duration::from_micros(said).max(default_lateness_horizon(pair.provider));
        Ok(Self { scopes, last_n, horizon, selectors: seen.into_iter().map(|row| row.scope).collect() })
    }

    /// Why its stream is another than ours: something that came to us while it was live, and never to it.
    pub(super) fn lacks(&self, ours: &[(String, UnixMicros)]) -> Option<String> {
        let mut live = IntervalSet::new();
        for scope in self.scopes.iter().filter(|scope| scope.scope == ALL) {
            live.add(&scope.classes.live);
        }
        let lacking = |(selector, at): &&(String, UnixMicros)| {
            let is_inside = live.contains(at.minus(self.horizon)) && live.contains(at.plus(self.horizon));
            is_inside && !self.selectors.contains(selector)
        };
        let (selector, at) = ours.iter().find(lacking)?;
        Some(format!("it never brought anything of `{selector}`, which came to this tape at {at}"))
    }

    /// What of `[from, to)` it holds of a scope with the meaning of ours: of every kind, or of one.
    pub(super) fn holds(&self, ours: &ScopeCoverage, kind: Option<&str>, copied: &Copied) -> IntervalSet {
        let mut held = IntervalSet::new();
        for scope in self.scopes.iter().filter(|theirs| is_same(ours, theirs)) {
            let named = kind.and_then(|kind| scope.kinds.iter().find(|(name, _)| name == kind));
            let classes: &Classes = named.map_or(&scope.every_kind, |(_, classes)| classes);
            // What it filled itself may stand in the very records that are missing.
            let whole = if copied.holes.is_empty() {
                classes.covered()
            } else {
                Classes { backfilled: IntervalSet::new(), ..classes.clone() }.covered()
            };
            held.add(&whole);
        }
        held.subtract(&copied.holes);
        held
    }

    /// What it proves of a gap: what it holds of everything that this tape promised there. A topic that has a gap of its own
    /// at an instant is told by that one.
    fn proves(&self, gap: &GapRow, ours: &[ScopeCoverage], gaps: &[GapRow], kind: Option<&str>, copied: &Copied) -> IntervalSet {
        let (from, to) = window(gap);
        let mut proven = IntervalSet::one(from, to);
        let mut is_promised = IntervalSet::new();
        for scope in ours.iter().filter(|scope| gap.scope == ALL || gap.scope == scope.scope) {
            let mut promised = IntervalSet::one(scope.since, scope.until.unwrap_or(UnixMicros(i64::MAX))).within(from, to);
            for own in gaps.iter().filter(|own| own.scope == scope.scope && own.n != gap.n && gap.scope != own.scope) {
                promised.remove(UnixMicros(own.from_us), UnixMicros(own.to_us.unwrap_or(i64::MAX)));
            }
            is_promised.add(&promised);
            promised.subtract(&self.holds(scope, kind, copied));
            proven.subtract(&promised);
        }
        // A gap may be wider than any promise (the horizon before the beginning): of that nobody can say anything.
        let mut beyond = IntervalSet::one(from, to);
        beyond.subtract(&is_promised);
        beyond.subtract(&self.everything(copied));
        proven.subtract(&beyond);
        proven
    }

    /// What it holds of everything it delivers, whatever that is called.
    pub(super) fn everything(&self, copied: &Copied) -> IntervalSet {
        let mut held = IntervalSet::new();
        for scope in self.scopes.iter().filter(|scope| scope.scope == ALL) {
            held.add(&self.holds(scope, None, copied));
        }
        held
    }

    /// The verdict on a gap; `None` when nothing more is proven than was before.
    pub(super) fn verdict(
        &self,
        gap: &GapRow,
        ours: &[ScopeCoverage],
        gaps: &[GapRow],
        rows: &[GapKindRow],
        copied: &Copied,
    ) -> Option<Verdict> {
        let of_gap: Vec<_> = rows.iter().filter(|row| row.gap_n == gap.n).collect();
        let every = self.proves(gap, ours, gaps, None, copied);
        let (before, mut rest) = (rest_of(gap, &of_gap, ALL), rest_of(gap, &of_gap, ALL));
        rest.subtract(&every);
        let mut kinds = Vec::new();
        if rest != before {
            kinds.push(result(ALL, &rest));
        }
        // What history gave the other tape of single kinds, where it was not live.
        let named: BTreeSet<_> = self.scopes.iter().flat_map(|scope| &scope.kinds).map(|(kind, _)| kind.as_str()).collect();
        let mut by_history: Option<IntervalSet> = None;
        for row in of_gap.iter().filter(|row| row.kind != ALL && !named.contains(row.kind.as_str())) {
            join(&mut by_history, row, rest_of(gap, &of_gap, &row.kind));
        }
        for kind in named {
            let row = of_gap.iter().find(|row| row.kind == kind);
            let (before, mut rest_of_kind) = (rest_of(gap, &of_gap, kind), rest_of(gap, &of_gap, kind));
            let mut proven = self.proves(gap, ours, gaps, Some(kind), copied);
            proven.subtract(&every);
            rest_of_kind.subtract(&proven);
            if rest_of_kind != before {
                let mut full = rest_of_kind.clone();
                full.subtract(&every);
                kinds.push(result(kind, &full));
                by_history = Some(merged(by_history, &full));
            } else if let Some(row) = row {
                join(&mut by_history, row, before);
            }
        }
        if kinds.is_empty() {
            return None;
        }
        let (from, to) = window(gap);
        let mut left = rest.clone();
        if let Some(by_history) = &by_history {
            let mut proven = IntervalSet::one(from, to);
            proven.subtract(by_history);
            left.subtract(&proven);
        }
        let was: Option<GapState> = gap.state.parse().ok();
        let state = match was {
            _ if left.is_empty() => GapState::Filled,
            // No history has the rest: that stays so.
            Some(GapState::Unfillable) => GapState::Unfillable,
            _ => GapState::Partial,
        };
        let (whole, proven) = (to.since(from), every.len_us());
        let seconds = |us: i64| us as f64 / 1e6;
        let mut words = format!(
            "it was live for {:.1} of {:.1} s; {} records found, {} of them new",
            seconds(proven),
            seconds(whole),
            copied.found,
            copied.n_new(),
        );
        if !copied.holes.is_empty() {
            words.push_str("; it is damaged in places, which prove nothing");
        }
        Some(Verdict { state, kinds, words })
    }
}

/// A version of a scope means the same on two tapes: by what selects its events, or else by its name.
pub(super) fn is_same(ours: &ScopeCoverage, theirs: &ScopeCoverage) -> bool {
    match (&ours.text, &theirs.text) {
        (Some(ours_text), Some(text)) => ours_text == text && (ours.scope == ALL) == (theirs.scope == ALL),
        (None, None) => ours.scope == theirs.scope,
        _ => false,
    }
}

fn window(gap: &GapRow) -> (UnixMicros, UnixMicros) {
    (UnixMicros(gap.from_us), UnixMicros(gap.to_us.unwrap_or(gap.from_us)))
}

/// What of a gap is not proven of every kind there is.
pub(super) fn rest_of_every_kind(gap: &GapRow, rows: &[GapKindRow]) -> IntervalSet {
    let of_gap: Vec<_> = rows.iter().filter(|row| row.gap_n == gap.n).collect();
    rest_of(gap, &of_gap, ALL)
}

/// What of a gap is not proven of a kind by a result of that name alone.
fn rest_of(gap: &GapRow, rows: &[&GapKindRow], kind: &str) -> IntervalSet {
    let (from, to) = window(gap);
    match rows.iter().find(|row| row.kind == kind) {
        Some(row) if row.state == GapState::Filled.name() => IntervalSet::new(),
        Some(row) if row.state == GapState::Partial.name() => {
            let stretches: Vec<(i64, i64)> = serde_json::from_str(&row.rest).unwrap_or_else(|_| vec![(from.0, to.0)]);
            let mut rest = IntervalSet::new();
            stretches.into_iter().for_each(|(a, b)| rest.insert(from.max(UnixMicros(a)), to.min(UnixMicros(b))));
            rest
        }
        _ => IntervalSet::one(from, to),
    }
}

/// Counts a kind among those that history has, unless it has nothing of it.
fn join(by_history: &mut Option<IntervalSet>, row: &GapKindRow, rest: IntervalSet) {
    if row.state != GapState::Unfillable.name() {
        *by_history = Some(merged(by_history.take(), &rest));
    }
}

fn merged(set: Option<IntervalSet>, rest: &IntervalSet) -> IntervalSet {
    let mut set = set.unwrap_or_default();
    set.add(rest);
    set
}

fn result(kind: &str, rest: &IntervalSet) -> KindResult {
    let state = if rest.is_empty() { GapState::Filled } else { GapState::Partial };
    let why = if rest.is_empty() { "" } else { "the other recorder was not live then" };
    KindResult {
        kind: kind.to_owned(),
        state: state.name().to_owned(),
        why: why.to_owned(),
        rest: rest.iter().map(|(from, to)| Stretch { from, to }).collect(),
    }
}
