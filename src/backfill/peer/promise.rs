//! Time that only the other tape promised: before ours began, after it ended, and scopes ours does not have.

use std::collections::{BTreeMap, BTreeSet};

use super::copy::Copied;
use super::proof::{Theirs, is_same};
use super::{Pair, PeerError, Work, doubt, fillable};
use crate::archive::{ALL, ArchiveError, Fact, GapRow, ScopeCoverage, ScopeRow};
use crate::model::{Cause, GapState, IntervalSet, UnixMicros};

/// What is to be read of the other tape: everything this one does not know to be whole.
pub(super) fn uncovered(ours: &[ScopeCoverage], theirs: &[ScopeCoverage]) -> IntervalSet {
    let mut uncovered = IntervalSet::one(UnixMicros(i64::MIN), UnixMicros(i64::MAX));
    for scope in ours.iter().filter(|scope| scope.scope == ALL) {
        uncovered.subtract(&scope.every_kind.covered());
    }
    let is_here = |scope: &ScopeCoverage| ours.iter().any(|ours| ours.scope == scope.scope);
    for scope in theirs.iter().filter(|scope| !is_here(scope)) {
        uncovered.insert(scope.since, scope.until.unwrap_or(UnixMicros(i64::MAX)));
    }
    uncovered
}

/// Where what is known of versions of a scope ends; `None` when nothing ever was.
fn end_of<'s>(versions: impl Iterator<Item = &'s ScopeCoverage>) -> Option<UnixMicros> {
    versions.filter_map(|scope| scope.classes.covered().iter().last().map(|(_, to)| to)).max()
}

/// What is to be written for one scope.
#[derive(Default)]
struct Promise {
    /// Stretches that are gaps from now on.
    gaps: IntervalSet,
    /// A gap that was growing, and its end.
    ends: Option<(u64, UnixMicros)>,
    /// Versions that are told anew or for the first time, in order.
    versions: Vec<ScopeRow>,
}

impl Work<'_> {
    /// Promises what the other tape promised. Gives the number of notes that took.
    pub(super) fn promise(&mut self, pair: &Pair<'_>, theirs: &Theirs) -> Result<u64, PeerError> {
        let tape = self.ours()?;
        let ours = tape.coverage(pair.source.as_str())?;
        let rows = by_scope(tape.catalog().scopes(pair.source.as_str()).map_err(ArchiveError::from)?);
        let gaps = tape.catalog().gaps(Some(pair.source.as_str())).map_err(ArchiveError::from)?;
        let other = pair.other.tape.catalog().scopes(&pair.from).map_err(|error| PeerError::Other(error.into()))?;
        let mut other = by_scope(other);
        let Some(all_end) = end_of(theirs.scopes.iter().filter(|scope| scope.scope == ALL)) else { return Ok(0) };
        let names: BTreeSet<String> = rows.keys().chain(other.keys()).cloned().collect();
        let mut promises = Vec::new();
        for name in names {
            let of_theirs: Vec<_> = theirs.scopes.iter().filter(|scope| scope.scope == name).collect();
            let mut promise = match (rows.get(&name), other.remove(&name)) {
                (None, Some(rows)) => new_scope(&name, rows, &of_theirs),
                (Some(rows), _) => {
                    let mut promise = Promise { versions: rows.clone(), ..Promise::default() };
                    let before = promise.versions.clone();
                    self.earlier(&mut promise, &ours, &of_theirs);
                    let own = told_by(&gaps, &name);
                    begin_when_first_seen(&mut promise.versions, &ours, &of_theirs, &own);
                    self.later(pair, &mut promise, (&name, all_end), &of_theirs, &gaps);
                    if promise.versions == before {
                        promise.versions.clear();
                    }
                    promise
                }
                (None, None) => Promise::default(),
            };
            for own in gaps.iter().filter(|gap| gap.scope == name) {
                let to = own.to_us.map_or_else(|| promise.ends.map_or(UnixMicros(i64::MAX), |(_, to)| to), UnixMicros);
                promise.gaps.remove(UnixMicros(own.from_us), to);
            }
            promises.push((name, promise));
        }
        let mut notes = 0;
        // All gaps before all promises: should the disk end it in between, nothing is promised that no gap tells of.
        for (name, promise) in &promises {
            notes += self.note_gaps(pair, name, promise)?;
        }
        for row in promises.into_iter().flat_map(|(_, promise)| promise.versions) {
            self.archive.remark(&pair.source, self.clock.wall(), &fact_of(row))?;
            notes += 1;
        }
        self.archive.commit(self.clock.wall())?;
        Ok(notes)
    }

    /// Gives scopes gaps of their own where a gap of everything could be filled but for them: what the other tape holds of
    /// everything says nothing of a rule that it does not know. Gives the number of notes that took.
    pub(super) fn split(&mut self, pair: &Pair<'_>, theirs: &Theirs, copied: &Copied) -> Result<u64, PeerError> {
        let tape = self.ours()?;
        if doubt(&tape, pair, (theirs, copied))?.is_some() {
            return Ok(0);
        }
        let ours = tape.coverage(pair.source.as_str())?;
        let gaps = tape.catalog().gaps(Some(pair.source.as_str())).map_err(ArchiveError::from)?;
        let names: BTreeSet<_> = ours.iter().map(|scope| scope.scope.as_str()).filter(|name| *name != ALL).collect();
        let everything = theirs.everything(copied);
        let mut told: BTreeMap<&str, IntervalSet> = names.into_iter().map(|name| (name, told_by(&gaps, name))).collect();
        let mut notes = 0;
        for (gap, rest) in fillable(&tape, pair)?.into_iter().filter(|(gap, _)| gap.scope == ALL) {
            for scope in ours.iter().filter(|scope| scope.scope != ALL) {
                let mut lacking = IntervalSet::new();
                for (from, to) in rest.iter() {
                    lacking.add(&everything.within(from.max(scope.since), to.min(scope.until.unwrap_or(to))));
                }
                lacking.subtract(&theirs.holds(scope, None, copied));
                let Some(told) = told.get_mut(scope.scope.as_str()) else { continue };
                lacking.subtract(told);
                for (from, to) in lacking.iter() {
                    let (scope, cause) = (scope.scope.clone(), gap.cause.clone());
                    let detail = format!("{} was recorded then, without it", pair.in_words());
                    let fact = Fact::Gap { scope, cause, from, to: Some(to), detail, lost_n: None };
                    self.archive.remark(&pair.source, self.clock.wall(), &fact)?;
                    notes += 1;
                }
                told.add(&lacking);
            }
        }
        self.archive.commit(self.clock.wall())?;
        Ok(notes)
    }

    /// The first version begins earlier, if the other tape had one of its meaning then.
    fn earlier(&self, promise: &mut Promise, ours: &[ScopeCoverage], theirs: &[&ScopeCoverage]) {
        let Some(first) = promise.versions.iter_mut().find(|row| row.until_us.is_none_or(|until| until > row.since_us)) else {
            return;
        };
        let meant = ours.iter().find(|scope| scope.scope == first.scope && scope.version == first.version);
        let Some(meant) = meant else { return };
        let same: Vec<_> = theirs.iter().copied().filter(|theirs| is_same(meant, theirs)).collect();
        let covered = same.iter().flat_map(|scope| scope.classes.covered().iter().collect::<Vec<_>>());
        let Some(since) = covered.map(|(from, _)| from).min().filter(|since| since.0 < first.since_us) else { return };
        promise.gaps.insert(since, UnixMicros(first.since_us));
        first.since_us = since.0;
    }

    /// What this tape promises goes on where the other tape's knowledge ends.
    fn later(
        &mut self,
        pair: &Pair<'_>,
        promise: &mut Promise,
        (name, all_end): (&str, UnixMicros),
        theirs: &[&ScopeCoverage],
        gaps: &[GapRow],
    ) {
        let Some(last) = promise.versions.last().cloned() else { return };
        if let Some(until) = last.until_us.map(UnixMicros) {
            // It ended here and went on there.
            if let Some(end) = end_of(theirs.iter().copied()).filter(|end| *end > until) {
                promise.gaps.insert(until, end);
                promise.versions.pop();
                promise.versions.push(ScopeRow { until_us: Some(end.0), ..last });
            }
            return;
        }
        let Some(start) = self.archive.frontier(&pair.source, name).filter(|start| *start < all_end) else { return };
        let growing = gaps.iter().find(|gap| gap.scope == name && gap.to_us.is_none());
        let growing = growing.filter(|gap| gap.state.parse().is_ok_and(GapState::is_open));
        promise.ends = growing.map(|gap| (gap.n, all_end.max(UnixMicros(gap.from_us))));
        promise.gaps.insert(start, all_end);
        // A version in which nothing happened yet was begun by a merge before this one: it begins later.
        let is_empty = promise.versions.len() > 1 && last.since_us == start.0;
        let version = if is_empty { last.version } else { last.version + 1 };
        if is_empty {
            promise.versions.pop();
        }
        promise.versions.push(ScopeRow { version, since_us: all_end.0, ..last });
    }

    fn note_gaps(&mut self, pair: &Pair<'_>, scope: &str, promise: &Promise) -> Result<u64, PeerError> {
        let (source, at) = (&pair.source, self.clock.wall());
        let mut notes = 0;
        if let Some((gap, to)) = promise.ends {
            let detail = format!("what follows is told by {}", pair.in_words());
            self.archive.step(source, at, gap, GapState::Open, None, Some(to), &detail)?;
            notes += 1;
        }
        for (from, to) in promise.gaps.iter() {
            let (scope, cause) = (scope.to_owned(), Cause::Elsewhere.name().to_owned());
            let detail = format!("only {} was recorded then", pair.in_words());
            self.archive.remark(source, at, &Fact::Gap { scope, cause, from, to: Some(to), detail, lost_n: None })?;
            notes += 1;
        }
        Ok(notes)
    }
}

/// Where gaps of a scope itself lie.
fn told_by(gaps: &[GapRow], scope: &str) -> IntervalSet {
    let mut told = IntervalSet::new();
    for own in gaps.iter().filter(|gap| gap.scope == scope) {
        told.insert(UnixMicros(own.from_us), UnixMicros(own.to_us.unwrap_or(i64::MAX)));
    }
    told
}

/// A later version of a rule begins when the first of both recorders saw its text, as far back as a gap says that nobody here
/// knows.
fn begin_when_first_seen(versions: &mut [ScopeRow], ours: &[ScopeCoverage], theirs: &[&ScopeCoverage], told: &IntervalSet) {
    for at in 1..versions.len() {
        let (before, row) = (versions[at - 1].since_us, &mut versions[at]);
        let meant = ours.iter().find(|scope| scope.scope == row.scope && scope.version == row.version);
        let Some(meant) = meant.filter(|scope| scope.text.is_some()) else { continue };
        let seen = theirs.iter().filter(|theirs| is_same(meant, theirs)).map(|theirs| theirs.since);
        let is_unknown = |since: &UnixMicros| {
            let mut known = IntervalSet::one(*since, UnixMicros(row.since_us));
            known.subtract(told);
            known.is_empty()
        };
        let seen = seen.filter(|since| before < since.0 && since.0 < row.since_us).filter(is_unknown).min();
        row.since_us = seen.map_or(row.since_us, |since| since.0);
    }
}

fn by_scope(rows: Vec<ScopeRow>) -> BTreeMap<String, Vec<ScopeRow>> {
    let mut by_scope: BTreeMap<String, Vec<ScopeRow>> = BTreeMap::new();
    rows.into_iter().for_each(|row| by_scope.entry(row.scope.clone()).or_default().push(row));
    by_scope
}

/// A scope this tape does not have: its versions as they are, one gap over all that is known of them. `*` is promised beyond
/// that, as a recorder that starts here will want it; a topic ends where the other tape's knowledge of it does.
fn new_scope(name: &str, mut versions: Vec<ScopeRow>, theirs: &[&ScopeCoverage]) -> Promise {
    let (Some(since), Some(end)) = (theirs.iter().map(|scope| scope.since).min(), end_of(theirs.iter().copied())) else {
        return Promise::default();
    };
    // Versions of which nothing is known yet are not promised here either.
    versions.retain(|row| row.since_us < end.0);
    if let Some(last) = versions.last_mut() {
        if name == ALL {
            let next = ScopeRow { version: last.version + 1, since_us: end.0, until_us: None, ..last.clone() };
            versions.push(next);
        } else {
            last.until_us = Some(last.until_us.map_or(end.0, |until| until.min(end.0)));
        }
    }
    Promise { gaps: IntervalSet::one(since, end), ends: None, versions }
}

fn fact_of(row: ScopeRow) -> Fact {
    Fact::Scope {
        scope: row.scope,
        version: row.version,
        since: UnixMicros(row.since_us),
        until: row.until_us.map(UnixMicros),
        horizon_us: row.horizon_us.max(0) as u64,
        detail: row.detail,
        text: row.text,
    }
}
