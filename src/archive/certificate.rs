//! A statement of completeness: what a tape holds of a window, by class, and what it lacks.
//!
//! It is made of the catalog alone, which is made of the segments alone, so the same tape gives the same bytes; the
//! digests of the sealed segments stand in it, so that everybody can see which bytes it speaks of.
//!
//! | class | instants |
//! | --- | --- |
//! | `live` | the stream was proven alive, up to the lateness horizon |
//! | `backfilled` | inside a gap, and proven whole by history |
//! | `audited` | checked again later (nothing is, yet) |
//! | `missing` | inside a gap through which loss is possible |
//! | `unverifiable` | everything else: gaps nobody can fill, and what no evidence reaches yet |

use serde::Serialize;
use sha2::{Digest, Sha256};

use super::index::{ALL, BACKFILLED};
use super::{ArchiveError, Result, Tape};
use crate::catalog::{CoverageRow, GapRow, ScopeRow};
use crate::model::{GapState, IntervalSet, UnixMicros};

/// Version of the statement's form.
const FORM: u32 = 1;

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
    live: Intervals,
    backfilled: Intervals,
    audited: Intervals,
    missing: Intervals,
    unverifiable: Intervals,
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
        let coverage = catalog.coverage(source).map_err(ArchiveError::from)?;
        let mut scopes = Vec::new();
        // A later version stands for the scope.
        let rows = catalog.scopes(source).map_err(ArchiveError::from)?;
        for row in rows.iter().filter(|row| !rows.iter().any(|other| other.scope == row.scope && other.version > row.version)) {
            scopes.extend(ScopeStatement::of(row, &gaps, &coverage, from, to));
        }
        let segments = catalog.segments(source).map_err(ArchiveError::from)?.into_iter().map(|segment| SegmentStatement {
            first_n: segment.first_n,
            last_n: segment.last_n,
            state: segment.state,
            bytes: segment.bytes,
            sha256: segment.sha256,
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

    /// Whether every instant of every scope is covered, live or from history.
    pub fn is_whole(&self) -> bool {
        !self.scopes.is_empty() && self.scopes.iter().all(|scope| scope.missing.us == 0 && scope.unverifiable.us == 0)
    }

    /// Name, covered and whole length of each scope, in microseconds.
    pub fn shares(&self) -> Vec<(String, i64, i64)> {
        let of = |scope: &ScopeStatement| {
            let covered = scope.live.us + scope.backfilled.us + scope.audited.us;
            (scope.scope.clone(), covered, covered + scope.missing.us + scope.unverifiable.us)
        };
        self.scopes.iter().map(of).collect()
    }
}

impl ScopeStatement {
    /// `None` when the scope promises nothing of the window.
    fn of(row: &ScopeRow, gaps: &[GapRow], coverage: &[CoverageRow], from: UnixMicros, to: UnixMicros) -> Option<Self> {
        let (first, end) = (from.0.max(row.since_us), to.0.min(row.until_us.unwrap_or(i64::MAX)));
        let mut rest = IntervalSet::new();
        rest.insert(UnixMicros(first), UnixMicros(end));
        if rest.is_empty() {
            return None;
        }
        // Each class takes out of what the classes before it left, so that together they are the whole, once.
        let mut take = |intervals: &mut dyn Iterator<Item = (i64, i64)>| {
            let mut class = IntervalSet::new();
            for (from, to) in intervals {
                for (a, b) in rest.iter() {
                    class.insert(a.max(UnixMicros(from)), b.min(UnixMicros(to)));
                }
            }
            for (from, to) in class.iter() {
                rest.remove(from, to);
            }
            Intervals::from(&class)
        };
        let mine = |class: &'static str| {
            let rows = coverage.iter().filter(move |interval| interval.scope == row.scope && interval.class == class);
            rows.map(|interval| (interval.from_us, interval.to_us))
        };
        let (backfilled, live) = (take(&mut mine(BACKFILLED)), take(&mut mine("live")));
        let open = gaps.iter().filter(|gap| gap.scope == row.scope || gap.scope == ALL);
        let open = open.filter(|gap| gap.state.parse().is_ok_and(GapState::is_open));
        let missing = take(&mut open.map(|gap| (gap.from_us, gap.to_us.unwrap_or(i64::MAX))));
        let unverifiable = Intervals::from(&rest);
        Some(Self {
            scope: row.scope.clone(),
            version: row.version,
            since: UnixMicros(row.since_us).to_string(),
            until: row.until_us.map(|until| UnixMicros(until).to_string()),
            horizon_us: row.horizon_us,
            live,
            backfilled,
            audited: Intervals::default(),
            missing,
            unverifiable,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_share_the_window_without_a_hole_and_without_overlap() {
        let row = ScopeRow { scope: ALL.to_owned(), since_us: 100, horizon_us: 5, version: 1, ..ScopeRow::default() };
        let cover = |class: &str, from_us, to_us| CoverageRow {
            scope: ALL.to_owned(),
            class: class.to_owned(),
            from_us,
            to_us,
            ..CoverageRow::default()
        };
        let gap = |state: &str, from_us, to_us| GapRow {
            scope: ALL.to_owned(),
            state: state.to_owned(),
            from_us,
            to_us,
            ..GapRow::default()
        };
        let coverage = [cover("live", 100, 200), cover("live", 300, 400), cover(BACKFILLED, 200, 250)];
        let gaps = [gap("partial", 200, Some(270)), gap("unfillable", 270, Some(300)), gap("open", 420, None)];
        let of = |from, to| ScopeStatement::of(&row, &gaps, &coverage, UnixMicros(from), UnixMicros(to));
        let us = |scope: &ScopeStatement| {
            [scope.live.us, scope.backfilled.us, scope.audited.us, scope.missing.us, scope.unverifiable.us]
        };
        // Unverifiable: 30 that nobody can fill, and 20 between the frontier and the gap that still grows.
        assert_eq!(us(&of(0, 500).unwrap()), [200, 50, 0, 20 + 80, 30 + 20]);
        assert_eq!(us(&of(150, 260).unwrap()), [50, 50, 0, 10, 0]);
        assert!(of(0, 100).is_none(), "before the promise");
        for (from, to) in [(0, 500), (120, 330), (199, 201), (260, 280), (390, 1_000)] {
            let scope = of(from, to).unwrap();
            assert_eq!(us(&scope).iter().sum::<i64>(), to - from.max(100), "{from} to {to}");
        }
    }
}
