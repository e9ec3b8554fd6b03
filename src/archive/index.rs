//! What the records of a source add up to: the one computation behind the catalog, live and rebuilt.
//!
//! The live writer and the rebuild feed the same records in the same order into the same code, so their catalogs
//! are equal by construction; a test compares them all the same.
//!
//! Coverage is written only from evidence: a record that came off a live connection, or a note that proves life.
//! The frontier of a scope is `last evidence - lateness horizon`. A gap takes everything from its start away, and
//! coverage resumes where the gap ends; so each instant of a scope's timeline is covered or in a gap, up to the frontier.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::fact::{Closed, Fact, Opened};
use crate::catalog::{
    BlockRow, Catalog, CatalogError, Change, ConnectionRow, CoverageRow, GapRow, GapStepRow, IdSet, LastSeenRow, ScopeRow,
    SourceRow,
};
use crate::model::{Event, EventId, EventKind, IntervalSet, RecordKind, Seq, UnixMicros, Via};
use crate::segment::BlockSpan;

/// Class of coverage that came by the live connection.
const LIVE: &str = "live";
/// Class of coverage that came from history.
pub(super) const BACKFILLED: &str = "backfilled";

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

/// A scope as it stands.
#[derive(Clone, Debug)]
pub(super) struct ScopeIndex {
    pub(super) row: ScopeRow,
    /// Covered intervals.
    live: IntervalSet,
    /// Intervals of gaps that history was proven to have filled.
    backfilled: IntervalSet,
    /// Where the running interval began, or begins.
    resume: UnixMicros,
    /// The frontier that evidence has reached; it only moves on from here.
    reached: UnixMicros,
    /// Bounded gaps that lie, in part, beyond that frontier.
    cuts: Vec<(UnixMicros, UnixMicros)>,
    /// The gap that is still growing.
    pub(super) open_gap: Option<u64>,
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
    pub(super) evidence: Option<UnixMicros>,
    pending_evidence: Option<UnixMicros>,
    pub(super) scopes: BTreeMap<String, ScopeIndex>,
    connections: BTreeMap<u64, ConnectionRow>,
    last_seen: HashMap<EventKind, HashMap<String, LastSeen>>,
    gaps: BTreeMap<u64, GapRow>,
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

impl ScopeIndex {
    fn new(row: ScopeRow, resume: UnixMicros) -> Self {
        Self {
            row,
            live: IntervalSet::new(),
            backfilled: IntervalSet::new(),
            resume,
            reached: UnixMicros(i64::MIN),
            cuts: Vec::new(),
            open_gap: None,
        }
    }
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
            evidence: None,
            pending_evidence: None,
            scopes: BTreeMap::new(),
            connections: BTreeMap::new(),
            last_seen: HashMap::new(),
            gaps: BTreeMap::new(),
            block_ids: Vec::new(),
            dirty: Dirty { source: true, ..Dirty::default() },
        }
    }

    /// Reads the state back that a catalog holds.
    pub(super) fn load(catalog: &Catalog, row: &SourceRow) -> Result<Self, CatalogError> {
        let mut index = Self::new(&row.name, &row.provider);
        index.dirty = Dirty::default();
        (index.last_n, index.last_at, index.running) = (Seq(row.last_n), UnixMicros(row.last_us), row.running);
        for gap in catalog.gaps(Some(&row.name))? {
            index.gaps.insert(gap.n, gap);
        }
        for scope in catalog.scopes(&row.name)? {
            let name = scope.scope.clone();
            let open_gap =
                index.gaps.values().rev().find(|g| g.scope == name && g.to_us.is_none() && is_open(&g.state)).map(|g| g.n);
            let resume = UnixMicros(scope.since_us);
            let fresh = ScopeIndex::new(scope, resume);
            index.scopes.insert(name, ScopeIndex { open_gap, ..fresh });
        }
        for interval in catalog.coverage(&row.name)? {
            let Some(scope) = index.scopes.get_mut(&interval.scope) else { continue };
            if interval.class == BACKFILLED {
                scope.backfilled.insert(UnixMicros(interval.from_us), UnixMicros(interval.to_us));
            } else {
                scope.live.insert(UnixMicros(interval.from_us), UnixMicros(interval.to_us));
                scope.reached = UnixMicros(interval.to_us);
            }
        }
        for (name, scope) in &mut index.scopes {
            // Of a gap that reaches beyond the last coverage the rest is still to be left out.
            let mine = index.gaps.values().filter(|gap| gap.scope == ALL || gap.scope == *name);
            let bounded = mine.filter_map(|gap| Some((UnixMicros(gap.from_us), UnixMicros(gap.to_us?))));
            scope.cuts = bounded.filter(|(_, to)| *to > scope.reached).collect();
        }
        for conn in catalog.connections(&row.name)? {
            index.next_conn = index.next_conn.max(conn.conn + 1);
            index.evidence = index.evidence.max(Some(UnixMicros(conn.evidence_us)));
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

    pub(super) fn open_gaps(&self) -> impl Iterator<Item = &GapRow> {
        self.gaps.values().filter(|gap| is_open(&gap.state))
    }

    /// Where a gap of this scope begins: one horizon before the last evidence, never before the promise.
    ///
    /// It may reach into a gap that ended after that evidence: each row tells all of its own loss.
    pub(super) fn frontier(&mut self, scope: &str) -> Option<UnixMicros> {
        self.settle();
        let scope = self.scopes.get(scope)?;
        let since = UnixMicros(scope.row.since_us);
        let covered = scope.live.iter().last().map_or(scope.resume, |(_, to)| to);
        let by_evidence = self.evidence.map_or(covered, |at| UnixMicros(at.0 - scope.row.horizon_us));
        Some(covered.min(by_evidence).max(since))
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
        let live = matches!(record.via, Via::Ws | Via::Sse | Via::Lines | Via::Webhook);
        match record.kind {
            RecordKind::Frame if live => self.life(record.conn, record.at, true),
            RecordKind::Open => self.opened(&record),
            RecordKind::Close => self.closed(&record),
            RecordKind::Note => self.noted(&record),
            RecordKind::Frame | RecordKind::Sent | RecordKind::Http => {}
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

    fn life(&mut self, conn: u64, at: UnixMicros, frame: bool) {
        self.started = true;
        self.evidence = self.evidence.max(Some(at));
        self.pending_evidence = self.pending_evidence.max(Some(at));
        if let Some(row) = self.connections.get_mut(&conn) {
            row.frames += u64::from(frame);
            row.evidence_us = row.evidence_us.max(at.0);
            self.dirty.connections.insert(conn);
        }
    }

    fn opened(&mut self, record: &Indexed<'_>) {
        let facts: Opened = record.fact.and_then(|f| serde_json::from_str(f).ok()).unwrap_or_default();
        self.next_conn = self.next_conn.max(record.conn + 1);
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
        self.life(record.conn, record.at, false);
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
            Fact::Alive { .. } => self.life(record.conn, record.at, false),
            Fact::Scope { scope, version, since, until, horizon_us, detail } => {
                self.settle();
                let row = ScopeRow {
                    source: self.name.clone(),
                    scope: scope.clone(),
                    version,
                    since_us: since.0,
                    until_us: until.map(|u| u.0),
                    horizon_us: horizon_us as i64,
                    detail,
                    n: record.n.0,
                };
                self.dirty.rows.push(Change::Scope(row.clone()));
                let fresh = || ScopeIndex::new(row.clone(), since);
                let entry = self.scopes.entry(scope).or_insert_with(fresh);
                entry.resume = entry.resume.max(since);
                entry.row = row;
            }
            Fact::Gap { scope, cause, from, to, detail, lost_n: _ } => self.gap_opened(record, scope, cause, from, to, detail),
            Fact::GapStep { gap, state, cause, to, detail, cursor, filled } => {
                let filled = filled.into_iter().map(|stretch| (stretch.from, stretch.to)).collect();
                self.gap_stepped(record, Stepped { gap, state, cause, to, detail, cursor, filled });
            }
            Fact::Clock { .. } | Fact::Dropped { .. } | Fact::Recovered { .. } => {}
        }
    }

    fn gap_opened(
        &mut self,
        record: &Indexed<'_>,
        scope: String,
        cause: String,
        from: UnixMicros,
        to: Option<UnixMicros>,
        detail: String,
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
        };
        for (name, scope) in &mut self.scopes {
            if row.scope != ALL && &row.scope != name {
                continue;
            }
            scope.live.remove(from, to.unwrap_or(UnixMicros(i64::MAX)));
            match to {
                Some(to) if to > scope.reached => scope.cuts.push((from, to)),
                Some(_) => {}
                None if &row.scope == name => scope.open_gap = Some(row.n),
                None => {}
            }
            self.dirty.coverage_all.insert(name.clone());
        }
        self.step_row(record, &row, row.detail.clone(), None);
        self.dirty.rows.push(Change::Gap(row.clone()));
        self.gaps.insert(row.n, row);
    }

    fn gap_stepped(&mut self, record: &Indexed<'_>, stepped: Stepped) {
        let Stepped { gap, state, cause, to, detail, cursor, filled } = stepped;
        self.settle();
        let Some(mut row) = self.gaps.get(&gap).cloned() else { return };
        (row.state, row.cause) = (state, cause);
        // The evidence that ends a gap belongs to the step; the gap goes on telling what happened.
        if to.is_none() {
            row.detail.clone_from(&detail);
        }
        if let Some(to) = to {
            row.to_us = Some(to.0);
            for (name, scope) in &mut self.scopes {
                if row.scope == ALL || &row.scope == name {
                    scope.resume = scope.resume.max(to);
                }
                if scope.open_gap == Some(gap) {
                    scope.open_gap = None;
                }
            }
        }
        for (from, to) in filled {
            if let Some(scope) = self.scopes.get_mut(&row.scope) {
                scope.backfilled.insert(from, to);
                self.dirty.coverage_all.insert(row.scope.clone());
            }
        }
        self.step_row(record, &row, detail, cursor);
        self.dirty.rows.push(Change::Gap(row.clone()));
        self.gaps.insert(gap, row);
    }

    fn step_row(&mut self, record: &Indexed<'_>, gap: &GapRow, detail: String, cursor: Option<String>) {
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
        }));
    }

    /// Lets the evidence gathered since the last call move the frontiers.
    fn settle(&mut self) {
        let Some(evidence) = self.pending_evidence.take() else { return };
        let all_is_lost = self.scopes.get(ALL).is_some_and(|scope| scope.open_gap.is_some());
        for (name, scope) in &mut self.scopes {
            if scope.open_gap.is_some() || all_is_lost || scope.row.until_us.is_some() {
                continue;
            }
            let frontier = UnixMicros(evidence.0 - scope.row.horizon_us);
            let start = scope.resume.max(scope.reached);
            if frontier <= start {
                continue;
            }
            scope.live.insert(start, frontier);
            scope.reached = frontier;
            if scope.cuts.is_empty() {
                self.dirty.coverage_ends.insert(name.clone());
                continue;
            }
            for &(from, to) in &scope.cuts {
                scope.live.remove(from, to);
            }
            scope.cuts.retain(|(_, to)| *to > frontier);
            self.dirty.coverage_all.insert(name.clone());
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
        let row = |scope: &str, class: &str, (from, to): (UnixMicros, UnixMicros)| CoverageRow {
            source: self.name.clone(),
            scope: scope.to_owned(),
            class: class.to_owned(),
            from_us: from.0,
            to_us: to.0,
        };
        for name in &dirty.coverage_all {
            out.push(Change::ForgetCoverage { source: self.name.clone(), scope: name.clone() });
            let Some(scope) = self.scopes.get(name) else { continue };
            out.extend(scope.live.iter().map(|interval| Change::Coverage(row(name, LIVE, interval))));
            out.extend(scope.backfilled.iter().map(|interval| Change::Coverage(row(name, BACKFILLED, interval))));
        }
        for name in dirty.coverage_ends.difference(&dirty.coverage_all) {
            let last = self.scopes.get(name).and_then(|scope| scope.live.iter().last());
            out.extend(last.map(|interval| Change::Coverage(row(name, LIVE, interval))));
        }
    }
}

/// A block's row.
fn block_row(source: &str, segment_n: u64, span: &BlockSpan, ids: IdSet) -> BlockRow {
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
    filled: Vec<(UnixMicros, UnixMicros)>,
}

fn is_open(state: &str) -> bool {
    state.parse().is_ok_and(crate::model::GapState::is_open)
}
