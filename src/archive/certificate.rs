//! A statement of completeness: what a tape holds of a window, by class, and what it lacks.
//!
//! It is made of the catalog alone, which is made of the segments alone, so the same tape gives the same bytes; the
//! digests of the sealed segments stand in it, so that everybody can see which bytes it speaks of. `sha256` is that of the
//! file, `content` that of what it unpacks to (`zstd -dc FILE | sha256sum`): compacting changes the first and never the
//! second. Segments that were removed on purpose stand there too, with the digests they had.
//!
//! Classes are those of [`coverage`](super::coverage); beside them `pending` is what no evidence reaches yet.

use std::collections::BTreeMap;

use serde::Serialize;
use sha2::{Digest, Sha256};

use super::coverage::{Classes, ScopeCoverage};
use super::{ArchiveError, Result, Tape};
use crate::catalog::GapRow;
use crate::model::{IntervalSet, UnixMicros};

/// Version of the statement's form.
const FORM: u32 = 3;

/// The statement; serialised it is one line of JSON with its keys in this order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Certificate {
    certificate: u32,
    birdtape: &'static str,
    tape: String,
    source: String,
    provider: String,
    from: String,
    to: String,
    scopes: Vec<ScopeStatement>,
    gaps: Vec<GapStatement>,
    segments: Vec<SegmentStatement>,
    #[serde(skip_serializing_if = "String::is_empty")]
    digest: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct ScopeStatement {
    scope: String,
    version: u32,
    since: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    until: Option<String>,
    horizon_us: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<String>,
    #[serde(flatten)]
    classes: ClassStatement,
    /// Where kinds of events are known to differ.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    kinds: BTreeMap<String, ClassStatement>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct ClassStatement {
    live: Intervals,
    backfilled: Intervals,
    audited: Intervals,
    missing: Intervals,
    unverifiable: Intervals,
    pending: Intervals,
    #[serde(skip_serializing_if = "Intervals::is_empty")]
    pruned: Intervals,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
struct Intervals {
    us: i64,
    intervals: Vec<(String, String)>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct GapStatement {
    gap: String,
    scope: String,
    cause: String,
    state: String,
    from: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    to: Option<String>,
    detail: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct SegmentStatement {
    first_n: u64,
    last_n: u64,
    state: String,
    bytes: u64,
    sha256: String,
    content: String,
}

impl Intervals {
    fn is_empty(&self) -> bool {
        self.intervals.is_empty()
    }
}

impl From<&IntervalSet> for Intervals {
    fn from(set: &IntervalSet) -> Self {
        Self { us: set.len_us(), intervals: set.iter().map(|(from, to)| (from.to_string(), to.to_string())).collect() }
    }
}

impl Certificate {
    /// States what a tape holds of a source in `[from, to)`.
    ///
    /// # Errors
    /// When there is no such source, or the catalog cannot be read.
    pub fn of(tape: &Tape, source: &str, from: UnixMicros, to: UnixMicros) -> Result<Self> {
        let row = tape.source(source)?;
        let catalog = tape.catalog();
        let touches = |gap: &GapRow| gap.from_us < to.0 && gap.to_us.is_none_or(|end| end > from.0);
        let mut gaps = catalog.gaps(Some(source)).map_err(ArchiveError::from)?;
        gaps.retain(touches);
        let scopes = tape.coverage(source)?.iter().filter_map(|scope| ScopeStatement::of(scope, from, to)).collect();
        let pruned = catalog.pruned(source).map_err(ArchiveError::from)?;
        let segments = catalog.segments(source).map_err(ArchiveError::from)?;
        let segments = pruned.into_iter().chain(segments).map(|segment| SegmentStatement {
            first_n: segment.first_n,
            last_n: segment.last_n,
            state: segment.state,
            bytes: segment.bytes,
            sha256: segment.sha256,
            content: segment.content,
        });
        let statement = |gap: GapRow| GapStatement {
            gap: format!("{}-{}", gap.source, gap.n),
            scope: gap.scope,
            cause: gap.cause,
            state: gap.state,
            from: UnixMicros(gap.from_us).to_string(),
            to: gap.to_us.map(|to| UnixMicros(to).to_string()),
            detail: gap.detail,
        };
        let mut certificate = Self {
            certificate: FORM,
            birdtape: env!("CARGO_PKG_VERSION"),
            tape: tape.info().tape.clone(),
            source: source.to_owned(),
            provider: row.provider,
            from: from.to_string(),
            to: to.to_string(),
            scopes,
            gaps: gaps.into_iter().map(statement).collect(),
            segments: segments.collect(),
            digest: String::new(),
        };
        let digest = Sha256::digest(certificate.to_json().as_bytes());
        certificate.digest = digest.iter().map(|byte| format!("{byte:02x}")).collect();
        Ok(certificate)
    }

    /// One line of JSON; `digest` is the SHA-256 of the same line without it.
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).expect("a statement is made of strings and numbers only")
    }

    /// SHA-256 of the statement without it, in hex.
    pub fn digest(&self) -> &str {
        &self.digest
    }

    /// Whether every instant of every scope is covered, live or from history.
    pub fn is_whole(&self) -> bool {
        !self.scopes.is_empty() && self.scopes.iter().all(|scope| scope.classes.open_us() == 0)
    }

    /// One sentence: what it comes to.
    pub fn in_words(&self) -> String {
        let seconds = |us: i64| format!("{:.1} s", us as f64 / 1e6);
        let sum =
            |of: fn(&ClassStatement) -> i64| self.scopes.iter().fold(0i64, |sum, scope| sum.saturating_add(of(&scope.classes)));
        let all = sum(|of| of.covered_us().saturating_add(of.open_us()));
        let parts = [
            ("live", sum(|of| of.live.us)),
            ("backfilled", sum(|of| of.backfilled.us)),
            ("audited", sum(|of| of.audited.us)),
            ("missing", sum(|of| of.missing.us)),
            ("unverifiable", sum(|of| of.unverifiable.us)),
            ("pending", sum(|of| of.pending.us)),
            ("pruned", sum(|of| of.pruned.us)),
        ];
        let parts: Vec<_> = parts.iter().filter(|(_, us)| *us > 0).map(|(name, us)| format!("{} {name}", seconds(*us))).collect();
        let verdict = if self.is_whole() { "whole" } else { "not whole" };
        format!("{verdict}: {} of {} scope(s): {}", seconds(all), self.scopes.len(), parts.join(", "))
    }

    /// Name and version, covered and whole length of each version of a scope, in microseconds.
    pub fn shares(&self) -> Vec<(String, u32, i64, i64)> {
        let of = |scope: &ScopeStatement| {
            let covered = scope.classes.covered_us();
            (scope.scope.clone(), scope.version, covered, covered.saturating_add(scope.classes.open_us()))
        };
        self.scopes.iter().map(of).collect()
    }
}

impl ClassStatement {
    fn of(classes: &Classes, from: UnixMicros, to: UnixMicros) -> Self {
        let within = classes.within(from, to);
        Self {
            live: Intervals::from(&within.live),
            backfilled: Intervals::from(&within.backfilled),
            audited: Intervals::from(&within.audited),
            missing: Intervals::from(&within.missing),
            unverifiable: Intervals::from(&within.unverifiable),
            pending: Intervals::from(&within.rest(from, to)),
            pruned: Intervals::from(&within.pruned),
        }
    }

    fn covered_us(&self) -> i64 {
        [&self.live, &self.backfilled, &self.audited].iter().fold(0, |sum, part| part.us.saturating_add(sum))
    }

    fn open_us(&self) -> i64 {
        let parts = [&self.missing, &self.unverifiable, &self.pending, &self.pruned];
        parts.iter().fold(0, |sum, part| part.us.saturating_add(sum))
    }
}

impl ScopeStatement {
    /// `None` when the scope promises nothing of the window.
    fn of(scope: &ScopeCoverage, from: UnixMicros, to: UnixMicros) -> Option<Self> {
        let (from, to) = (from.max(scope.since), to.min(scope.until.unwrap_or(UnixMicros(i64::MAX))));
        (from < to).then(|| Self {
            scope: scope.scope.clone(),
            version: scope.version,
            since: scope.since.to_string(),
            until: scope.until.map(|until| until.to_string()),
            horizon_us: scope.horizon_us,
            text: scope.text.clone(),
            classes: ClassStatement::of(&scope.classes, from, to),
            kinds: scope.kinds.iter().map(|(kind, classes)| (kind.clone(), ClassStatement::of(classes, from, to))).collect(),
        })
    }
}
