//! The table `coverage`: what is known of every stretch of published time, so that an analyst can see the holes.

use super::part::Rows;
use super::sheet::Cells;
use super::{ExportError, Options};
use crate::archive::{ALL, Certificate, Classes, GapRow, ScopeCoverage, Tape};
use crate::model::{GapState, IntervalSet, UnixMicros};

/// The file's name.
pub(super) const FILE: &str = "coverage/coverage.parquet";

/// The end of time, where a stretch has none.
const NEVER: UnixMicros = UnixMicros(i64::MAX);

struct Stretch<'a> {
    source: &'a str,
    scope: &'a ScopeCoverage,
    kind: Option<&'a str>,
    class: &'static str,
    from: UnixMicros,
    to: UnixMicros,
    gap: Option<&'a GapRow>,
}

/// What a file of the table says of itself.
pub(super) type Facts = Vec<(String, String)>;

/// Makes the table's rows.
pub(super) fn fill(rows: &mut Rows<'_>, tape: &Tape, sources: &[String], options: &Options) -> Result<Facts, ExportError> {
    let mut facts = vec![("birdtape.tape".to_owned(), tape.info().tape.clone())];
    let (from, to) = (options.from.unwrap_or(UnixMicros(i64::MIN)), options.to.unwrap_or(NEVER));
    for source in sources {
        let gaps = tape.catalog().gaps(Some(source)).map_err(crate::archive::ArchiveError::from)?;
        let scopes = tape.coverage(source)?;
        for scope in &scopes {
            let all = [(None, &scope.classes), (Some(ALL), &scope.every_kind)];
            let kinds = scope.kinds.iter().map(|(kind, classes)| (Some(kind.as_str()), classes));
            for (kind, classes) in all.into_iter().chain(kinds) {
                let of = Stretch { source, scope, kind, class: "", from, to, gap: None };
                stretches(&of, classes, &gaps, |stretch| rows.row(|cells| row(cells, stretch)))?;
            }
        }
        let since = scopes.iter().map(|scope| scope.since).min();
        let frontier = scopes.iter().filter_map(|scope| scope.frontier).max();
        if let Some((since, frontier)) = since.zip(frontier) {
            let certificate = Certificate::of(tape, source, since.max(from), frontier.min(to))?;
            facts.push((format!("birdtape.certificate.{source}"), certificate.digest().to_owned()));
        }
    }
    Ok(facts)
}

/// Cuts the classes of one kind into stretches that lie in one gap, or in none.
fn stretches(
    of: &Stretch<'_>,
    classes: &Classes,
    gaps: &[GapRow],
    mut each: impl FnMut(&Stretch<'_>) -> Result<(), ExportError>,
) -> Result<(), ExportError> {
    let within = classes.within(of.from, of.to);
    for (class, set) in within.named() {
        let is_of_gaps = matches!(class, "backfilled" | "missing" | "unverifiable");
        let mut rest = set.clone();
        let mut found: Vec<(UnixMicros, UnixMicros, Option<&GapRow>)> = Vec::new();
        // Where gaps overlap, a stretch is told of one whose state makes it what it is, and of those the one opened first.
        let mine = gaps.iter().filter(|gap| is_of_gaps && (gap.scope == of.scope.scope || gap.scope == ALL));
        let (fitting, others): (Vec<_>, Vec<_>) = mine.partition(|gap| makes(gap, class));
        for gap in fitting.into_iter().chain(others) {
            let (from, to) = (UnixMicros(gap.from_us), gap.to_us.map_or(NEVER, UnixMicros));
            found.extend(rest.within(from, to).iter().map(|(from, to)| (from, to, Some(gap))));
            rest.subtract(&IntervalSet::one(from, to));
        }
        found.extend(rest.iter().map(|(from, to)| (from, to, None)));
        found.sort_unstable_by_key(|(from, ..)| *from);
        for (from, to, gap) in found {
            each(&Stretch { class, from, to, gap, ..*of })?;
        }
    }
    Ok(())
}

/// Whether a gap in that state makes stretches of that class.
fn makes(gap: &GapRow, class: &str) -> bool {
    let state: Option<GapState> = gap.state.parse().ok();
    match class {
        "missing" => state.is_some_and(GapState::is_open),
        "backfilled" => matches!(state, Some(GapState::Filled | GapState::Partial | GapState::Audited | GapState::Restored)),
        _ => !state.is_some_and(GapState::is_open),
    }
}

fn row(cells: &mut Cells<'_>, stretch: &Stretch<'_>) {
    let gap = stretch.gap;
    cells.text("source", Some(stretch.source));
    cells.text("scope", Some(&stretch.scope.scope));
    cells.int("version", Some(u64::from(stretch.scope.version)));
    cells.text("kind", stretch.kind);
    cells.text("class", Some(stretch.class));
    cells.time("starts_at", Some(stretch.from));
    cells.time("ends_at", Some(stretch.to).filter(|to| *to != NEVER));
    cells.text("gap_id", gap.map(|gap| format!("{}-{}", gap.source, gap.n)));
    cells.text("cause", gap.map(|gap| &gap.cause));
    cells.text("gap_state", gap.map(|gap| &gap.state));
    cells.text("scope_text", stretch.scope.text.as_ref());
}
