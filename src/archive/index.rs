//! What the records of a source add up to: the one computation behind the catalog, live and rebuilt.
//!
//! The live writer and the rebuild feed the same records in the same order into the same code, so their catalogs
//! are equal by construction; a test compares them all the same.
//!
//! Coverage is written only from evidence (see `frontier.rs`): the frontier of a scope is `last evidence - lateness
//! horizon`. A gap takes everything from its start away, and coverage resumes where the gap ends; so each instant of a
//! scope's timeline is covered or in a gap, up to the frontier.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::coverage::{AUDITED, LIVE};
use super::fact::{Closed, Fact, KindResult, Opened, Spent};
use super::frontier::{Evidence, Moved, Timeline};
use crate::catalog::{
    AuditRow, BlockRow, Catalog, CatalogError, Change, ConnectionRow, CoverageRow, GapKindRow, GapRow, GapStepRow, IdSet,
    LastSeenRow, ScopeRow, SourceRow,
};
use crate::model::{Event, EventId, EventKind, GapState, IntervalSet, RecordKind, Seq, UnixMicros, Via};
use crate::segment::BlockSpan;

/// The scope that stands for everything a source delivers.
pub const ALL: &str = "*";

/// Whether a record's body is the provider's own words about events: an envelope, or a page of its history.
pub(super) fn speaks(kind: RecordKind, via: Via) -> bool {
    kind == RecordKind::Frame || (kind == RecordKind::Http && matches!(via, Via::History | Via::Snapshot))
}

/// A record as the index sees it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Indexed<'a> {
    pub(super) n: Seq,
    pub(super) at: UnixMicros,
    pub(super) kind: RecordKind,
    pub(super) via: Via,
    pub(super) conn: u64,
    /// JSON of a fact of ours.
    pub(super) fact: Option<&'a str>,
    pub(super) events: &'a [Event],
}

/// Everything the catalog knows about one source.
#[derive(Debug)]
pub(super) struct SourceIndex {
    name: String,
    provider: String,
    last_n: Seq,
    last_at: UnixMicros,
    pub(super) next_conn: u64,
    /// Whether anything was ever recorded live.
    pub(super) started: bool,
    /// Whether a recorder began and never took leave: it is at work, or it died.
    pub(super) running: bool,
    /// When what selects its events was last read.
    pub(super) listed: Option<UnixMicros>,
    evidence: Option<Evidence>,
    pending_evidence: Option<Evidence>,
    pub(super) scopes: BTreeMap<String, Timeline>,
    connections: BTreeMap<u64, ConnectionRow>,
    last_seen: HashMap<EventKind, HashMap<String, LastSeen>>,
    gaps: BTreeMap<u64, GapRow>,
    /// By gap and kind.
    gap_kinds: BTreeMap<(u64, String), GapKindRow>,
    block_ids: Vec<u64>,
    dirty: Dirty,
}

#[derive(Debug, Default)]
struct Dirty {
    source: bool,
    connections: BTreeSet<u64>,
    last_seen: BTreeSet<(EventKind, String)>,
    coverage_ends: BTreeSet<String>,
    coverage_all: BTreeSet<String>,
    rows: Vec<Change>,
}

#[derive(Clone, Debug)]
struct LastSeen {
    id: String,
    tweet: u64,
    published: Option<UnixMicros>,
    received: UnixMicros,
    n: Seq,
    events: u64,
    dirty: bool,
}

impl SourceIndex {
    pub(super) fn new(name: &str, provider: &str) -> Self {
        Self {
            name: name.to_owned(),
            provider: provider.to_owned(),
            last_n: Seq(0),
            last_at: UnixMicros(0),
            next_conn: 1,
            started: false,
            running: false,
            listed: None,
            evidence: None,
            pending_evidence: None,
            scopes: BTreeMap::new(),
            connections: BTreeMap::new(),
            last_seen: HashMap::new(),
            gaps: BTreeMap::new(),
            gap_kinds: BTreeMap::new(),
            block_ids: Vec::new(),
            dirty: Dirty { source: true, ..Dirty::default() },
        }
    }

    /// Reads the state back that a catalog holds.
    pub(super) fn load(catalog: &Catalog, row: &SourceRow) -> Result<Self, CatalogError> {
        let mut index = Self::new(&row.name, &row.provider);
        index.dirty = Dirty::default();
        (index.last_n, index.last_at, index.running) = (Seq(row.last_n), UnixMicros(row.last_us), row.running);
        index.listed = row.listed_us.map(UnixMicros);
        for gap in catalog.gaps(Some(&row.name))? {
            index.gaps.insert(gap.n, gap);
        }
        for row in catalog.gap_kinds(&row.name)? {
            index.gap_kinds.insert((row.gap_n, row.kind.clone()), row);
        }
        for scope in catalog.scopes(&row.name)? {
            let name = scope.scope.clone();
            let open_gap =
                index.gaps.values().rev().find(|g| g.scope == name && g.to_us.is_none() && is_open(&g.state)).map(|g| g.n);
            match index.scopes.get_mut(&name) {
                Some(timeline) => timeline.promise(scope),
                None => drop(index.scopes.insert(name.clone(), Timeline::new(scope))),
            }
            if let Some(timeline) = index.scopes.get_mut(&name) {
                timeline.open_gap = open_gap;
            }
        }
        for interval in catalog.coverage(&row.name)? {
            let Some(scope) = index.scopes.get_mut(&interval.scope) else { continue };
            scope.remember(&interval.class, UnixMicros(interval.from_us), UnixMicros(interval.to_us));
        }
        for (name, scope) in &mut index.scopes {
            scope.take_up(bounded(&index.gaps, name));
        }
        for conn in catalog.connections(&row.name)? {
            index.next_conn = index.next_conn.max(conn.conn.saturating_add(1));
            index.evidence = index.evidence.max(Some(Evidence::remembered(conn.evidence_us)));
            if conn.closed_n.is_none() {
                index.connections.insert(conn.conn, conn);
            }
        }
        index.started = !index.scopes.is_empty() || index.next_conn > 1;
        for seen in catalog.last_seen(&row.name)? {
            let Some(kind) = EventKind::ALL.into_iter().find(|k| k.name() == seen.kind) else { continue };
            let value = LastSeen {
                tweet: seen.id.parse().unwrap_or(0),
                id: seen.id,
                published: seen.published_us.map(UnixMicros),
                received: UnixMicros(seen.received_us),
                n: Seq(seen.n),
                events: seen.events,
                dirty: false,
            };
            let selector = if seen.scope == ALL { String::new() } else { seen.scope };
            index.last_seen.entry(kind).or_default().insert(selector, value);
        }
        Ok(index)
    }

    pub(super) fn last_n(&self) -> Seq {
        self.last_n
    }

    pub(super) fn last_at(&self) -> UnixMicros {
        self.last_at
    }

    /// Passes over numbers whose records are lost.
    pub(super) fn skip_to(&mut self, n: Seq) {
        (self.last_n, self.dirty.source) = (n, true);
    }

    pub(super) fn provider(&self) -> &str {
        &self.provider
    }

    /// Connections that were opened and never closed: their recorder ended without a farewell, or they are alive.
    pub(super) fn unclosed(&self) -> Vec<u64> {
        self.connections.keys().copied().collect()
    }

    pub(super) fn gap(&self, n: u64) -> Option<&GapRow> {
        self.gaps.get(&n)
    }

    /// Whether the ledger says already that these records are lost.
    pub(super) fn is_told_lost(&self, first_n: Seq, last_n: Seq) -> bool {
        let mut told = self.gaps.values().filter(|gap| gap.state != GapState::Restored.name());
        told.any(|gap| {
            gap.lost_first_n.is_some_and(|first| first <= first_n.0) && gap.lost_last_n.is_some_and(|last| last_n.0 <= last)
        })
    }

    /// Gaps of any state, by number.
    pub(super) fn gaps(&self) -> impl Iterator<Item = &GapRow> {
        self.gaps.values()
    }

    pub(super) fn open_gaps(&self) -> impl Iterator<Item = &GapRow> {
        self.gaps.values().filter(|gap| is_open(&gap.state))
    }

    /// Where a gap of this scope begins.
    ///
    /// It may reach into a gap that ended after that evidence: each row tells all of its own loss.
    pub(super) fn frontier(&mut self, scope: &str) -> Option<UnixMicros> {
        self.settle();
        let own = self.scopes.get(scope)?.frontier(self.evidence);
        // A gap of everything takes in what evidence has not yet reached of any scope. One that began while the wall clock
        // was put back is behind the others.
        let is_taken = |other: &&Timeline| scope == ALL && other.open_gap.is_none() && other.row.until_us.is_none();
        Some(self.scopes.values().filter(is_taken).map(|other| other.frontier(self.evidence)).fold(own, UnixMicros::min))
    }

    /// What of scopes that have ended lies behind that instant and is neither covered nor in a gap. There is such only where the
    /// wall clock was put back: a gap of everything that grew took their coverage, and ended before they had.
    pub(super) fn untold_behind(&self, at: UnixMicros) -> Vec<(String, UnixMicros, UnixMicros)> {
        let mut untold = Vec::new();
        for (name, scope) in &self.scopes {
            let Some(until) = scope.row.until_us else { continue };
            let mut rest = IntervalSet::one(at.max(UnixMicros(scope.row.since_us)), UnixMicros(until));
            rest.subtract(scope.live());
            bounded(&self.gaps, name).for_each(|(from, to)| rest.remove(from, to));
            untold.extend(rest.iter().map(|(from, to)| (name.clone(), from, to)));
        }
        untold
    }

    /// Takes the next record in. Records up to the last one known only fill the block's id set.
    pub(super) fn record(&mut self, record: Indexed<'_>) {
        for event in record.events {
            if let (true, EventId::Tweet(id)) = (event.kind.names_a_tweet(), &event.id) {
                self.block_ids.push(id.0);
            }
        }
        if record.n <= self.last_n {
            return;
        }
        (self.last_n, self.last_at, self.dirty.source) = (record.n, record.at, true);
        // What history brings late is not what was last seen.
        for event in record.events.iter().filter(|_| record.kind == RecordKind::Frame) {
            self.saw(event, record.n, record.at);
        }
        match record.kind {
            RecordKind::Open => self.opened(&record),
            RecordKind::Close => self.closed(&record),
            RecordKind::Note => self.noted(&record),
            RecordKind::Frame | RecordKind::Sent | RecordKind::Http => {}
        }
        if let Some(evidence) = Evidence::of(&record) {
            self.life(record.conn, evidence, record.kind == RecordKind::Frame);
        }
    }

    fn saw(&mut self, event: &Event, n: Seq, at: UnixMicros) {
        let by_selector = self.last_seen.entry(event.kind).or_default();
        if !by_selector.contains_key(&event.selector) {
            let fresh = LastSeen { id: String::new(), tweet: 0, published: None, received: at, n, events: 0, dirty: false };
            by_selector.insert(event.selector.clone(), fresh);
        }
        let Some(seen) = by_selector.get_mut(&event.selector) else { return };
        let newest = match &event.id {
            EventId::Tweet(id) if id.0 >= seen.tweet => {
                seen.tweet = id.0;
                // The text is made when the row is written: this runs for every post.
                seen.id.clear();
                true
            }
            EventId::Tweet(_) => false,
            EventId::Text(text) => {
                seen.id.clone_from(text);
                true
            }
        };
        if newest {
            seen.published = event.published_at;
        }
        (seen.received, seen.n, seen.events) = (at, n, seen.events + 1);
        if !seen.dirty {
            seen.dirty = true;
            self.dirty.last_seen.insert((event.kind, event.selector.clone()));
        }
    }

    fn life(&mut self, conn: u64, evidence: Evidence, frame: bool) {
        self.started = true;
        self.evidence = self.evidence.max(Some(evidence));
        self.pending_evidence = self.pending_evidence.max(Some(evidence));
        if let Some(row) = self.connections.get_mut(&conn) {
            row.frames += u64::from(frame);
            row.evidence_us = row.evidence_us.max(evidence.at().0);
            self.dirty.connections.insert(conn);
        }
    }

    fn opened(&mut self, record: &Indexed<'_>) {
        let facts: Opened = record.fact.and_then(|f| serde_json::from_str(f).ok()).unwrap_or_default();
        self.next_conn = self.next_conn.max(record.conn.saturating_add(1));
        let row = ConnectionRow {
            source: self.name.clone(),
            conn: record.conn,
            opened_us: record.at.0,
            opened_n: record.n.0,
            url: facts.url,
            subprotocol: facts.subprotocol,
            evidence_us: record.at.0,
            ..ConnectionRow::default()
        };
        self.connections.insert(record.conn, row);
    }

    fn closed(&mut self, record: &Indexed<'_>) {
        let facts: Closed = record.fact.and_then(|f| serde_json::from_str(f).ok()).unwrap_or_default();
        let Some(mut row) = self.connections.remove(&record.conn) else { return };
        (row.closed_us, row.closed_n) = (Some(record.at.0), Some(record.n.0));
        (row.code, row.reason, row.closed_by) = (facts.code, Some(facts.reason), Some(facts.by));
        self.dirty.connections.remove(&record.conn);
        self.dirty.rows.push(Change::Connection(row));
    }

    fn noted(&mut self, record: &Indexed<'_>) {
        // A note this version does not know is kept on the tape and changes nothing here.
        let Some(Ok(fact)) = record.fact.map(serde_json::from_str::<Fact>) else { return };
        match fact {
            Fact::Start { .. } => (self.started, self.running) = (true, true),
            Fact::Stop { .. } => self.running = false,
            Fact::Listed { .. } => self.listed = Some(record.at),
            Fact::Scope { scope, version, since, until, horizon_us, detail, text } => {
                self.settle();
                let row = ScopeRow {
                    source: self.name.clone(),
                    scope: scope.clone(),
                    version,
                    since_us: since.0,
                    until_us: until.map(|u| u.0),
                    horizon_us: horizon_us as i64,
                    detail,
                    text,
                    n: record.n.0,
                };
                self.dirty.rows.push(Change::Scope(row.clone()));
                let bounded: Vec<_> = bounded(&self.gaps, &scope).collect();
                let timeline = match self.scopes.entry(scope) {
                    Entry::Occupied(there) => {
                        let timeline = there.into_mut();
                        timeline.promise(row);
                        timeline
                    }
                    Entry::Vacant(place) => place.insert(Timeline::new(row)),
                };
                // A gap of everything may reach beyond the beginning of what is new.
                timeline.remember_gaps(bounded.into_iter());
            }
            Fact::Gap { scope, cause, from, to, detail, lost_n } => {
                self.gap_opened(record, scope, cause, (from, to), detail, lost_n);
            }
            Fact::GapStep { gap, state, cause, to, detail, cursor, kinds, spent } => {
                self.gap_stepped(record, Stepped { gap, state, cause, to, detail, cursor, kinds, spent });
            }
            Fact::Audit { scope, from, to, asked, missed } => {
                self.settle();
                self.dirty.rows.push(Change::Audit(AuditRow {
                    source: self.name.clone(),
                    n: record.n.0,
                    scope: scope.clone(),
                    at_us: record.at.0,
                    from_us: from.0,
                    to_us: to.0,
                    asked,
                    missed,
                }));
                if let Some(timeline) = self.scopes.get_mut(&scope).filter(|_| missed == 0) {
                    timeline.audit(from, to);
                    self.dirty.coverage_all.insert(scope);
                }
            }
            Fact::Alive { .. }
            | Fact::Clock { .. }
            | Fact::Dropped { .. }
            | Fact::Compacted { .. }
            | Fact::Pruned { .. }
            | Fact::Recovered { .. } => {}
        }
    }

    fn gap_opened(
        &mut self,
        record: &Indexed<'_>,
        scope: String,
        cause: String,
        (from, to): (UnixMicros, Option<UnixMicros>),
        detail: String,
        lost_n: Option<(u64, u64)>,
    ) {
        self.settle();
        let row = GapRow {
            source: self.name.clone(),
            n: record.n.0,
            scope,
            cause,
            state: "open".to_owned(),
            from_us: from.0,
            to_us: to.map(|t| t.0),
            opened_us: record.at.0,
            detail,
            lost_first_n: lost_n.map(|(first, _)| first),
            lost_last_n: lost_n.map(|(_, last)| last),
        };
        for (name, scope) in &mut self.scopes {
            if !is_of(&row, name) {
                continue;
            }
            scope.lose(from, to, (to.is_none() && &row.scope == name).then_some(row.n));
            self.dirty.coverage_all.insert(name.clone());
        }
        self.step_row(record, &row, row.detail.clone(), None, Spent::default());
        self.dirty.rows.push(Change::Gap(row.clone()));
        self.gaps.insert(row.n, row);
    }

    fn gap_stepped(&mut self, record: &Indexed<'_>, stepped: Stepped) {
        let Stepped { gap, state, cause, to, detail, cursor, kinds, spent } = stepped;
        self.settle();
        let Some(mut row) = self.gaps.get(&gap).cloned() else { return };
        (row.state, row.cause) = (state, cause);
        // The evidence that ends a gap belongs to the step; the gap goes on telling what happened.
        if to.is_none() {
            row.detail.clone_from(&detail);
        }
        // One that had its end already was cut out when it was opened: coverage does not begin anew behind it.
        let ends = row.to_us.is_none() && to.is_some();
        row.to_us = to.map(|to| to.0).or(row.to_us);
        self.gaps.insert(gap, row.clone());
        for (name, scope) in self.scopes.iter_mut().filter(|(name, _)| ends && is_of(&row, name)) {
            scope.resume(gap, bounded(&self.gaps, name));
        }
        for KindResult { kind, state, why, rest } in kinds {
            let rest: Vec<_> = rest.iter().map(|stretch| (stretch.from.0, stretch.to.0)).collect();
            let rest = serde_json::to_string(&rest).expect("pairs of numbers are always JSON");
            let row = GapKindRow { source: self.name.clone(), gap_n: gap, kind, state, why, rest };
            self.gap_kinds.insert((gap, row.kind.clone()), row.clone());
            self.dirty.rows.push(Change::GapKind(row));
        }
        self.step_row(record, &row, detail, cursor, spent);
        self.dirty.rows.push(Change::Gap(row));
    }

    fn step_row(&mut self, record: &Indexed<'_>, gap: &GapRow, detail: String, cursor: Option<String>, spent: Spent) {
        self.dirty.rows.push(Change::GapStep(GapStepRow {
            source: gap.source.clone(),
            n: record.n.0,
            gap_n: gap.n,
            at_us: record.at.0,
            state: gap.state.clone(),
            cause: gap.cause.clone(),
            to_us: gap.to_us,
            detail,
            cursor,
            requests: spent.requests,
            rows: spent.rows,
            micro_usd: spent.micro_usd,
        }));
    }

    /// Lets the evidence gathered since the last call move the frontiers.
    fn settle(&mut self) {
        let Some(evidence) = self.pending_evidence.take() else { return };
        let all_is_lost = self.scopes.get(ALL).is_some_and(|scope| scope.open_gap.is_some());
        for (name, scope) in &mut self.scopes {
            match if all_is_lost { Moved::Not } else { scope.advance(evidence) } {
                Moved::Not => {}
                Moved::End => drop(self.dirty.coverage_ends.insert(name.clone())),
                Moved::All => drop(self.dirty.coverage_all.insert(name.clone())),
            }
        }
    }

    /// Each scope's timeline is whole, up to its frontier: covered or in a gap.
    #[cfg(debug_assertions)]
    fn assert_no_silent_hole(&self) {
        let gaps: Vec<_> = self.gaps.values().cloned().collect();
        let kinds: Vec<_> = self.gap_kinds.values().cloned().collect();
        for (name, scope) in &self.scopes {
            let rows = |class, set: &crate::model::IntervalSet| {
                set.iter().map(|of| row(&self.name, name, class, of)).collect::<Vec<_>>()
            };
            let evidence = [rows(LIVE, scope.live()), rows(AUDITED, scope.audited())].concat();
            for of in super::coverage::of(std::slice::from_ref(&scope.row), &gaps, &kinds, &evidence, None) {
                assert_eq!(of.silent_hole(), None, "source {}, scope {name}", self.name);
            }
        }
    }

    /// Whether a scope promises all of `[from, to)` and no gap tells of any of it yet.
    pub(super) fn is_unsuspected(&self, scope: &str, from: UnixMicros, to: UnixMicros) -> bool {
        let promised =
            self.scopes.get(scope).is_some_and(|s| s.row.since_us <= from.0 && s.row.until_us.is_none_or(|until| to.0 <= until));
        let mut told = self.gaps.values().filter(|gap| gap.scope == scope || gap.scope == ALL);
        promised && !told.any(|gap| gap.from_us < to.0 && gap.to_us.is_none_or(|end| from.0 < end))
    }

    /// Ends a block: its row, with the ids gathered since the last one. A block of nothing but proofs has no row.
    pub(super) fn end_block(&mut self, segment_n: u64, span: &BlockSpan) -> Option<BlockRow> {
        let ids = IdSet::pack(&mut self.block_ids);
        self.block_ids.clear();
        (span.records > 0).then(|| block_row(&self.name, segment_n, span, ids))
    }

    /// Everything that changed since the last call.
    pub(super) fn take_changes(&mut self, out: &mut Vec<Change>) {
        self.settle();
        let dirty = std::mem::take(&mut self.dirty);
        out.extend(dirty.rows);
        if dirty.source {
            let (name, provider) = (self.name.clone(), self.provider.clone());
            out.push(Change::Source(SourceRow {
                name,
                provider,
                last_n: self.last_n.0,
                last_us: self.last_at.0,
                running: self.running,
                listed_us: self.listed.map(|at| at.0),
            }));
        }
        out.extend(dirty.connections.iter().filter_map(|conn| self.connections.get(conn)).cloned().map(Change::Connection));
        for (kind, selector) in dirty.last_seen {
            let Some(seen) = self.last_seen.get_mut(&kind).and_then(|m| m.get_mut(&selector)) else { continue };
            seen.dirty = false;
            if seen.id.is_empty() {
                seen.id = seen.tweet.to_string();
            }
            out.push(Change::LastSeen(LastSeenRow {
                source: self.name.clone(),
                scope: if selector.is_empty() { ALL.to_owned() } else { selector },
                kind: kind.name().to_owned(),
                id: seen.id.clone(),
                published_us: seen.published.map(|p| p.0),
                received_us: seen.received.0,
                n: seen.n.0,
                events: seen.events,
            }));
        }
        #[cfg(debug_assertions)]
        if !dirty.coverage_all.is_empty() {
            self.assert_no_silent_hole();
        }
        for name in &dirty.coverage_all {
            out.push(Change::ForgetCoverage { source: self.name.clone(), scope: name.clone() });
            let Some(scope) = self.scopes.get(name) else { continue };
            for (class, set) in [(LIVE, scope.live()), (AUDITED, scope.audited())] {
                out.extend(set.iter().map(|interval| Change::Coverage(row(&self.name, name, class, interval))));
            }
        }
        for name in dirty.coverage_ends.difference(&dirty.coverage_all) {
            let last = self.scopes.get(name).and_then(|scope| scope.live().iter().last());
            out.extend(last.map(|interval| Change::Coverage(row(&self.name, name, LIVE, interval))));
        }
    }
}

fn row(source: &str, scope: &str, class: &str, (from, to): (UnixMicros, UnixMicros)) -> CoverageRow {
    let (source, scope, class) = (source.to_owned(), scope.to_owned(), class.to_owned());
    CoverageRow { source, scope, class, from_us: from.0, to_us: to.0 }
}

/// A block's row.
pub(super) fn block_row(source: &str, segment_n: u64, span: &BlockSpan, ids: IdSet) -> BlockRow {
    BlockRow {
        source: source.to_owned(),
        segment_n,
        raw_offset: span.raw_offset,
        raw_bytes: span.raw_bytes,
        offset: span.offset,
        bytes: span.bytes,
        first_n: span.first_n.0,
        last_n: span.last_n.0,
        first_us: span.first_at.0,
        last_us: span.last_at.0,
        records: span.records,
        ids,
    }
}

/// What a step of a gap says.
struct Stepped {
    gap: u64,
    state: String,
    cause: String,
    to: Option<UnixMicros>,
    detail: String,
    cursor: Option<String>,
    kinds: Vec<KindResult>,
    spent: Spent,
}

/// Whether a gap takes something away from a scope.
fn is_of(gap: &GapRow, scope: &str) -> bool {
    gap.scope == ALL || gap.scope == scope
}

/// Gaps of a scope that have both ends.
fn bounded<'a>(
    gaps: &'a BTreeMap<u64, GapRow>,
    scope: &'a str,
) -> impl Iterator<Item = (UnixMicros, UnixMicros)> + Clone + use<'a> {
    let mine = gaps.values().filter(move |gap| is_of(gap, scope));
    mine.filter_map(|gap| Some((UnixMicros(gap.from_us), UnixMicros(gap.to_us?))))
}

fn is_open(state: &str) -> bool {
    state.parse().is_ok_and(crate::model::GapState::is_open)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::ScopeRow;

    fn index(gaps: &[GapRow]) -> SourceIndex {
        let mut index = SourceIndex::new("alpha", "tweetstream");
        for scope in [ALL, "owl", "elk"] {
            let row = ScopeRow {
                scope: scope.to_owned(),
                since_us: 100,
                until_us: (scope == "elk").then_some(300),
                ..ScopeRow::default()
            };
            index.scopes.insert(scope.to_owned(), Timeline::new(row));
        }
        index.gaps = gaps.iter().map(|gap| (gap.n, gap.clone())).collect();
        index
    }

    fn gap(scope: &str, from_us: i64, to_us: Option<i64>) -> GapRow {
        GapRow { n: 1, scope: scope.to_owned(), from_us, to_us, ..GapRow::default() }
    }

    #[test]
    fn a_stretch_is_unsuspected_while_it_is_promised_and_no_gap_of_it_is_known() {
        // (gap, scope, from, to, whether it is unsuspected)
        let cases = [
            (None, ALL, 100, 200, true),
            (None, ALL, 99, 200, false),
            (None, "nobody", 100, 200, false),
            (None, "elk", 200, 300, true),
            (None, "elk", 200, 301, false),
            (Some(gap(ALL, 150, Some(160))), ALL, 100, 150, true),
            (Some(gap(ALL, 150, Some(160))), ALL, 100, 151, false),
            (Some(gap(ALL, 150, Some(160))), "owl", 155, 156, false),
            (Some(gap(ALL, 150, Some(160))), ALL, 160, 170, true),
            (Some(gap(ALL, 150, Some(160))), ALL, 159, 170, false),
            (Some(gap(ALL, 150, None)), ALL, 900, 901, false),
            (Some(gap("owl", 150, Some(160))), "owl", 150, 160, false),
            (Some(gap("owl", 150, Some(160))), ALL, 150, 160, true),
            (Some(gap("owl", 150, Some(160))), "elk", 150, 160, true),
        ];
        for (gap, scope, from, to, is_unsuspected) in cases {
            let index = index(gap.as_slice());
            assert_eq!(
                index.is_unsuspected(scope, UnixMicros(from), UnixMicros(to)),
                is_unsuspected,
                "{gap:?} {scope} {from} {to}"
            );
        }
    }

    #[test]
    fn lost_records_are_told_by_a_gap_that_names_all_of_them() {
        let told = GapRow { lost_first_n: Some(5), lost_last_n: Some(9), state: "open".to_owned(), ..gap(ALL, 0, None) };
        let of = |gap: &GapRow, first, last| index(std::slice::from_ref(gap)).is_told_lost(Seq(first), Seq(last));
        assert!(of(&told, 5, 9) && of(&told, 6, 8));
        assert!(!of(&told, 4, 9) && !of(&told, 5, 10) && !of(&told, 1, 20));
        assert!(!of(&GapRow { state: GapState::Restored.name().to_owned(), ..told }, 5, 9));
        assert!(!of(&gap(ALL, 0, None), 5, 9));
    }

    #[test]
    fn frames_and_pages_of_history_speak_and_other_answers_do_not() {
        for (kind, via, is_so) in [
            (RecordKind::Frame, Via::Ws, true),
            (RecordKind::Http, Via::History, true),
            (RecordKind::Http, Via::Snapshot, true),
            (RecordKind::Http, Via::Ws, false),
            (RecordKind::Note, Via::History, false),
            (RecordKind::Open, Via::Ws, false),
        ] {
            assert_eq!(speaks(kind, via), is_so, "{kind:?} {via:?}");
        }
    }
}
