//! Coverage: for each version of a scope and each kind of event, five sets of instants that share its timeline.
//!
//! | class | instants |
//! | --- | --- |
//! | `live` | the stream was proven alive, up to the lateness horizon |
//! | `backfilled` | inside a gap, and proven whole by history or by another tape |
//! | `audited` | live, and history was asked later and had nothing that is not on the tape |
//! | `missing` | inside a gap through which loss is possible |
//! | `unverifiable` | inside a gap that nobody can fill, or that somebody decided to live with |
//! | `pruned` | was one of the others, and what was received of it was removed from the tape on purpose |
//!
//! Live and audited come from evidence and are rows of the catalog; pruned reaches up to a horizon behind the last record that
//! was removed; the other three follow from the gaps and from what history proved of each kind. Where gaps overlap, the worst of them counts: missing before unverifiable before
//! backfilled. No instant is in two classes; an instant in none, up to the last that is in one, is a silent hole.
//!
//! The first entry of a scope, without a kind, is what it comes to: whole is what is proven of every kind that history
//! has. The others are kinds of which some history was asked: posts may be whole where deletes are beyond proof.

use std::collections::BTreeSet;

use super::index::ALL;
use super::{ArchiveError, Result};
use crate::catalog::{Catalog, CoverageRow, GapKindRow, GapRow, ScopeRow};
use crate::model::{GapState, IntervalSet, UnixMicros};

/// Class of coverage that came by the live connection.
pub(super) const LIVE: &str = "live";
/// Class of coverage that was asked for again.
pub(super) const AUDITED: &str = "audited";

/// Disjoint sets of instants of one timeline.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Classes {
    /// By the live connection.
    pub live: IntervalSet,
    /// By history, or another tape.
    pub backfilled: IntervalSet,
    /// Live, and asked for again later.
    pub audited: IntervalSet,
    /// Loss is possible.
    pub missing: IntervalSet,
    /// Nobody can tell.
    pub unverifiable: IntervalSet,
    /// Removed on purpose.
    pub pruned: IntervalSet,
}

impl Classes {
    /// Each class with its name, in the order of the table.
    pub fn named(&self) -> [(&'static str, &IntervalSet); 6] {
        [
            ("live", &self.live),
            ("backfilled", &self.backfilled),
            ("audited", &self.audited),
            ("missing", &self.missing),
            ("unverifiable", &self.unverifiable),
            ("pruned", &self.pruned),
        ]
    }

    /// Only what lies in `[from, to)`.
    #[must_use]
    pub fn within(&self, from: UnixMicros, to: UnixMicros) -> Self {
        let cut = |set: &IntervalSet| set.within(from, to);
        Self {
            live: cut(&self.live),
            backfilled: cut(&self.backfilled),
            audited: cut(&self.audited),
            missing: cut(&self.missing),
            unverifiable: cut(&self.unverifiable),
            pruned: cut(&self.pruned),
        }
    }

    /// Everything that is whole: live, filled or audited.
    pub fn covered(&self) -> IntervalSet {
        let mut covered = self.live.clone();
        covered.add(&self.backfilled);
        covered.add(&self.audited);
        covered
    }

    /// Everything before that instant is not on the tape any more.
    fn prune(&mut self, until: UnixMicros) {
        let mut pruned = IntervalSet::new();
        self.named().iter().for_each(|(_, set)| pruned.add(&set.within(UnixMicros(i64::MIN), until)));
        for set in [&mut self.live, &mut self.backfilled, &mut self.audited, &mut self.missing, &mut self.unverifiable] {
            set.subtract(&pruned);
        }
        self.pruned = pruned;
    }

    /// What of `[from, to)` is in no class.
    pub fn rest(&self, from: UnixMicros, to: UnixMicros) -> IntervalSet {
        let mut rest = IntervalSet::one(from, to);
        self.named().iter().for_each(|(_, set)| rest.subtract(set));
        rest
    }
}

/// What is known of a version of a scope.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScopeCoverage {
    /// `*`, a topic or a selector.
    pub scope: String,
    /// Counts up from 1.
    pub version: u32,
    /// First instant it promises.
    pub since: UnixMicros,
    /// First instant it does not promise any more: its end, or the beginning of the next version.
    pub until: Option<UnixMicros>,
    /// How late its events may come, in microseconds.
    pub horizon_us: i64,
    /// What selects its events, where the tape knows it.
    pub text: Option<String>,
    /// What it comes to.
    pub classes: Classes,
    /// The same for kinds of which no history was ever asked: what is proven of every kind there is.
    pub every_kind: Classes,
    /// The same for each kind of event that history was asked for, by name.
    pub kinds: Vec<(String, Classes)>,
    /// How far evidence reaches, in whichever version.
    pub frontier: Option<UnixMicros>,
}

impl ScopeCoverage {
    /// The first instants before the frontier that are neither covered nor in a gap: there must be none.
    pub fn silent_hole(&self) -> Option<(UnixMicros, UnixMicros)> {
        let frontier = self.frontier?.min(self.until.unwrap_or(UnixMicros(i64::MAX)));
        let all = std::iter::once(&self.classes).chain(self.kinds.iter().map(|(_, classes)| classes));
        all.filter_map(|classes| classes.rest(self.since, frontier).iter().next()).min()
    }
}

/// Coverage of a source as its catalog has it, by scope and version; versions that promise nothing are left out.
pub(super) fn of_source(catalog: &Catalog, source: &str) -> Result<Vec<ScopeCoverage>> {
    let gaps = catalog.gaps(Some(source)).map_err(ArchiveError::from)?;
    let kinds = catalog.gap_kinds(source).map_err(ArchiveError::from)?;
    let evidence = catalog.coverage(source).map_err(ArchiveError::from)?;
    let scopes = catalog.scopes(source).map_err(ArchiveError::from)?;
    let pruned = catalog.pruned_until(source).map_err(ArchiveError::from)?.map(|(_, last_us)| UnixMicros(last_us));
    Ok(of(&scopes, &gaps, &kinds, &evidence, pruned))
}

/// Up to where nothing is promised any more, when the last record that was removed was received at `last`: what it speaks of
/// may be a little later than that, by another clock.
pub(super) fn pruned_until(last: UnixMicros, horizon_us: i64) -> UnixMicros {
    UnixMicros(last.0.saturating_add(horizon_us.max(0)))
}

/// Coverage as it follows from rows: scopes by name and version, the rest in any order; and from when the last record was
/// received that was removed on purpose.
pub(super) fn of(
    scopes: &[ScopeRow],
    gaps: &[GapRow],
    kinds: &[GapKindRow],
    evidence: &[CoverageRow],
    pruned: Option<UnixMicros>,
) -> Vec<ScopeCoverage> {
    let mut out = Vec::new();
    for (at, row) in scopes.iter().enumerate() {
        let next = scopes.get(at + 1).filter(|next| next.scope == row.scope).map(|next| next.since_us);
        let until = row.until_us.into_iter().chain(next).min();
        if until.is_some_and(|until| until <= row.since_us) {
            continue;
        }
        let mine: Vec<_> = gaps.iter().filter(|gap| gap.scope == row.scope || gap.scope == ALL).collect();
        let results = |gap: &GapRow| kinds.iter().filter(|kind| kind.gap_n == gap.n).collect::<Vec<_>>();
        let mine: Vec<_> = mine.into_iter().map(|gap| (gap, results(gap))).collect();
        let mut live = (IntervalSet::new(), IntervalSet::new());
        for row in evidence.iter().filter(|interval| interval.scope == row.scope) {
            let set = if row.class == AUDITED { &mut live.1 } else { &mut live.0 };
            set.insert(UnixMicros(row.from_us), UnixMicros(row.to_us));
        }
        let (since, end) = (UnixMicros(row.since_us), UnixMicros(until.unwrap_or(i64::MAX)));
        let classes = |kind: Option<&str>| {
            let mut classes = classes(&mine, &live, kind).within(since, end);
            if let Some(last) = pruned {
                classes.prune(pruned_until(last, row.horizon_us));
            }
            classes
        };
        let named: BTreeSet<_> = mine.iter().flat_map(|(_, kinds)| kinds).map(|kind| kind.kind.as_str()).collect();
        let named = named.into_iter().filter(|kind| *kind != ALL);
        out.push(ScopeCoverage {
            scope: row.scope.clone(),
            version: row.version,
            since,
            until: until.map(UnixMicros),
            horizon_us: row.horizon_us,
            text: row.text.clone(),
            classes: classes(None),
            every_kind: classes(Some(ALL)),
            kinds: named.map(|kind| (kind.to_owned(), classes(Some(kind)))).collect(),
            frontier: live.0.iter().chain(live.1.iter()).map(|(_, to)| to).max(),
        });
    }
    out
}

type Results<'a> = (&'a GapRow, Vec<&'a GapKindRow>);

/// The classes of one kind, or of what it all comes to.
fn classes(gaps: &[Results<'_>], (live, audited): &(IntervalSet, IntervalSet), kind: Option<&str>) -> Classes {
    let mut of = Classes { live: live.clone(), audited: audited.clone(), ..Classes::default() };
    for (gap, results) in gaps {
        let (from, to) = (UnixMicros(gap.from_us), UnixMicros(gap.to_us.unwrap_or(i64::MAX)));
        let state: Option<GapState> = gap.state.parse().ok();
        let is_open = state.is_some_and(GapState::is_open);
        let (whole, rest) = proven(from, to, results, kind);
        of.backfilled.add(&whole);
        match rest {
            // No history was asked yet: what is not settled may still come.
            Rest::Unasked(rest) | Rest::Unproven(rest) if is_open => of.missing.add(&rest),
            Rest::Unasked(rest) | Rest::Unproven(rest) | Rest::Beyond(rest) => of.unverifiable.add(&rest),
        }
    }
    of.unverifiable.subtract(&of.missing);
    for worse in [&of.missing, &of.unverifiable] {
        of.backfilled.subtract(worse);
    }
    for gap in [&of.missing, &of.unverifiable, &of.backfilled] {
        of.audited.subtract(gap);
        of.live.subtract(gap);
    }
    of.live.subtract(&of.audited);
    of
}

/// What of a gap is not whole.
enum Rest {
    Unasked(IntervalSet),
    Unproven(IntervalSet),
    /// No history has it.
    Beyond(IntervalSet),
}

/// What is whole of a gap's window for one kind (or for all that history has), and what is not.
///
/// What another tape proved of every kind and what history proved of single ones add up: an instant is whole when either says
/// so.
fn proven(from: UnixMicros, to: UnixMicros, results: &[&GapKindRow], kind: Option<&str>) -> (IntervalSet, Rest) {
    let is_unfillable = |result: &GapKindRow| result.state == GapState::Unfillable.name();
    let every = results.iter().find(|result| result.kind == ALL);
    let named = results.iter().filter(|result| result.kind != ALL && kind.is_none_or(|kind| result.kind == kind));
    let named: Vec<_> = named.collect();
    let window = || IntervalSet::one(from, to);
    if every.is_none() && named.is_empty() {
        return (IntervalSet::new(), Rest::Unasked(window()));
    }
    let mut whole = window();
    match every {
        Some(result) => whole.subtract(&rest_of(result, from, to)),
        None => whole = IntervalSet::new(),
    }
    let mut with_history = named.iter().filter(|result| !is_unfillable(result)).peekable();
    let has_history = with_history.peek().is_some();
    if has_history {
        let mut by_history = window();
        with_history.for_each(|result| by_history.subtract(&rest_of(result, from, to)));
        whole.add(&by_history);
    }
    let mut rest = window();
    rest.subtract(&whole);
    let is_beyond = !has_history && (!named.is_empty() || every.is_some_and(|result| is_unfillable(result)));
    (whole, if is_beyond { Rest::Beyond(rest) } else { Rest::Unproven(rest) })
}

/// What a result leaves of its gap's window.
fn rest_of(result: &GapKindRow, from: UnixMicros, to: UnixMicros) -> IntervalSet {
    let mut rest = IntervalSet::new();
    if result.state == GapState::Unfillable.name() {
        rest.insert(from, to);
    } else if result.state == GapState::Partial.name() {
        let stretches: Vec<(i64, i64)> = serde_json::from_str(&result.rest).unwrap_or_else(|_| vec![(from.0, to.0)]);
        stretches.into_iter().for_each(|(a, b)| rest.insert(from.max(UnixMicros(a)), to.min(UnixMicros(b))));
    }
    rest
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scope(scope: &str, version: u32, since_us: i64, until_us: Option<i64>) -> ScopeRow {
        ScopeRow { scope: scope.to_owned(), version, since_us, until_us, horizon_us: 5, ..ScopeRow::default() }
    }

    fn gap(n: u64, state: GapState, from_us: i64, to_us: impl Into<Option<i64>>) -> GapRow {
        let (scope, state) = (ALL.to_owned(), state.name().to_owned());
        GapRow { n, scope, state, from_us, to_us: to_us.into(), ..GapRow::default() }
    }

    fn kind(gap_n: u64, kind: &str, state: GapState, rest: &str) -> GapKindRow {
        let (kind, state, rest) = (kind.to_owned(), state.name().to_owned(), rest.to_owned());
        GapKindRow { gap_n, kind, state, rest, ..GapKindRow::default() }
    }

    fn live(scope: &str, from_us: i64, to_us: i64) -> CoverageRow {
        CoverageRow { scope: scope.to_owned(), class: LIVE.to_owned(), from_us, to_us, ..CoverageRow::default() }
    }

    fn audited(from_us: i64, to_us: i64) -> CoverageRow {
        CoverageRow { class: AUDITED.to_owned(), ..live(ALL, from_us, to_us) }
    }

    /// All classes but the last.
    fn us(classes: &Classes) -> [i64; 5] {
        let [all @ .., pruned] = classes.named().map(|(_, set)| set.len_us());
        assert_eq!(pruned, 0);
        all
    }

    #[test]
    fn classes_share_the_timeline() {
        use GapState::{Filled, Ignored, Open, Partial, Unfillable};
        let gaps = [
            gap(1, Partial, 200, 300),
            gap(2, Unfillable, 300, 320),
            gap(3, Ignored, 320, 330),
            gap(4, Filled, 330, 350),
            gap(5, Open, 420, None),
        ];
        let kinds = [
            kind(1, "tweet", Partial, "[[250,270],[290,400]]"),
            kind(1, "delete", Unfillable, "[]"),
            kind(2, "tweet", Unfillable, "[]"),
            kind(4, ALL, Filled, "[]"),
        ];
        let evidence = [live(ALL, 100, 200), live(ALL, 350, 420), audited(120, 150)];
        let found = of(&[scope(ALL, 1, 100, None)], &gaps, &kinds, &evidence, None);
        let [of_all] = &found[..] else { panic!("{found:?}") };
        let upto = |classes: &Classes| us(&classes.within(UnixMicros(0), UnixMicros(500)));
        assert_eq!(upto(&of_all.classes), [70 + 70, 70 + 20, 30, 30 + 80, 30]);
        let by_kind = |name: &str| upto(&of_all.kinds.iter().find(|(kind, _)| kind == name).unwrap().1);
        assert_eq!(by_kind("tweet"), [140, 90, 30, 110, 30]);
        // Of deletes gap 1 says that no history has them, and gap 2 says nothing, now or ever.
        assert_eq!(by_kind("delete"), [140, 20, 30, 80, 100 + 30]);
        assert_eq!(of_all.silent_hole(), None);
    }

    #[test]
    fn another_tape_and_history_add_up() {
        use GapState::{Partial, Unfillable};
        let gaps = [gap(1, Partial, 100, 200), gap(2, Unfillable, 300, 400)];
        let kinds = [
            kind(1, ALL, Partial, "[[150,200]]"),
            kind(1, "tweet", Partial, "[[120,170]]"),
            kind(2, ALL, Partial, "[[320,400]]"),
            kind(2, "dm_typing", Unfillable, "[]"),
        ];
        let found = of(&[scope(ALL, 1, 100, None)], &gaps, &kinds, &[], None);
        let [of_all] = &found[..] else { panic!("{found:?}") };
        assert_eq!(us(&of_all.classes), [0, 50 + 30 + 20, 0, 20, 80], "posts of 170 to 200 came from history");
        assert_eq!(us(&of_all.every_kind), [0, 50 + 20, 0, 50, 80]);
    }

    #[test]
    fn the_worst_of_two_gaps_counts() {
        use GapState::{Filled, Open, Unfillable};
        let gaps = [gap(1, Filled, 100, 200), gap(2, Open, 150, 180), gap(3, Unfillable, 170, 190)];
        let kinds = [kind(1, "tweet", Filled, ""), kind(3, "tweet", Unfillable, "")];
        let found = of(&[scope(ALL, 1, 100, None)], &gaps, &kinds, &[], None);
        assert_eq!(us(&found[0].classes), [0, 60, 0, 30, 10]);
    }

    #[test]
    fn versions_end_where_the_next_begins() {
        let scopes =
            [scope("r", 1, 100, None), scope("r", 2, 200, Some(300)), scope("r", 3, 400, None), scope("r", 4, 400, None)];
        let found = of(&scopes, &[], &[], &[live("r", 100, 300), live("r", 400, 450)], None);
        let found: Vec<_> =
            found.iter().map(|of| (of.version, of.since.0, of.until.map(|at| at.0), us(&of.classes)[0])).collect();
        assert_eq!(found, [(1, 100, Some(200), 100), (2, 200, Some(300), 100), (4, 400, None, 50)]);
    }

    #[test]
    fn a_silent_hole_is_found() {
        let evidence = [live(ALL, 100, 200), live(ALL, 250, 300)];
        let found = of(&[scope(ALL, 1, 100, None)], &[gap(1, GapState::Open, 200, 240)], &[], &evidence, None);
        assert_eq!(found[0].silent_hole(), Some((UnixMicros(240), UnixMicros(250))));
    }

    #[test]
    fn what_was_pruned_is_nothing_else() {
        use GapState::{Filled, Open};
        let gaps = [gap(1, Filled, 150, 200), gap(2, Open, 220, 260)];
        let evidence = [live(ALL, 100, 150), live(ALL, 200, 220), live(ALL, 260, 400)];
        let found = of(&[scope(ALL, 1, 100, None)], &gaps, &[kind(1, ALL, Filled, "[]")], &evidence, Some(UnixMicros(235)));
        let named = found[0].classes.named().map(|(name, set)| (name, set.len_us()));
        // The horizon of five comes on top.
        let want = [("live", 140), ("backfilled", 0), ("audited", 0), ("missing", 20), ("unverifiable", 0), ("pruned", 140)];
        assert_eq!(named, want);
        assert_eq!(found[0].silent_hole(), None);
    }
}
