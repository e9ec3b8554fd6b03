//! `birdtape gaps`: the ledger of what may be missing.

use std::io::IsTerminal as _;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use super::args::{self, Common, When};
use super::backfill::{spent_json, spent_words};
use super::exit::{Exit, Outcome, failed, usage};
use super::out::{self, Out, length, stamp, table};
use super::timeline;
use crate::archive::{self, Archive, Classes, Layout, ScopeCoverage, Spent, Tape};
use crate::backfill::{self, Due};
use crate::catalog::{GapKindRow, GapRow, GapStepRow};
use crate::model::{GapState, IntervalSet, SourceName, UnixMicros};
use crate::provider;
use crate::segment::RealDisk;

/// List, show or ignore gaps
///
/// A gap is a stretch of published time in which something may be missing. Its id is its source's name and a number.
#[derive(Debug, clap::Args)]
#[command(
    args_conflicts_with_subcommands = true,
    after_help = "\
Examples:
  birdtape gaps                                       every gap
  birdtape gaps --open --source alpha                 what is still to be filled
  birdtape gaps timeline --from -1d                   a line for each source, a character for each stretch
  birdtape gaps show alpha-17                         one gap's history
  birdtape gaps ignore alpha-17 --reason 'test key'   decide to live with it"
)]
pub(super) struct Args {
    #[command(subcommand)]
    command: Option<What>,
    #[command(flatten)]
    list: List,
}

#[derive(Debug, clap::Subcommand)]
enum What {
    /// List gaps, as without a subcommand
    #[command(after_help = "Examples:\n  birdtape gaps list --open --json")]
    List(List),
    /// Draw what is covered and what is missing, one line a source
    ///
    /// Each character stands for a stretch of published time and shows the worst that lies in it. On a terminal `birdtape gaps`
    /// draws it below the list.
    #[command(after_help = "Examples:\n  birdtape gaps timeline\n  birdtape gaps timeline --source alpha --from -6h --to -1h")]
    Timeline(List),
    /// Show a gap with everything that happened to it
    #[command(after_help = "Examples:\n  birdtape gaps show alpha-17\n  birdtape gaps show alpha-17 --all")]
    Show {
        /// The gap's id, as alpha-17
        id: String,
        /// Every step; else of many alike in a row only the first and the last
        #[arg(long)]
        all: bool,
    },
    /// Decide to live with a gap
    ///
    /// The decision is written into the tape, so nobody may be recording at the moment.
    #[command(after_help = "Examples:\n  birdtape gaps ignore alpha-17 --reason 'recorder was tested'")]
    Ignore {
        /// The gap's id, as alpha-17
        id: String,
        /// Why, for whoever reads the ledger later
        #[arg(long)]
        reason: String,
    },
}

#[derive(Debug, clap::Args)]
struct List {
    /// Only this source (repeatable) [default: all]
    #[arg(long, value_name = "NAME")]
    source: Vec<String>,
    /// Only gaps through which something may still be missing
    #[arg(long)]
    open: bool,
    /// Only what touches published time from here on [default: the beginning]
    #[arg(long, value_name = "TIME", value_parser = args::when, allow_hyphen_values = true)]
    from: Option<When>,
    /// And before this [default: the last record]
    #[arg(long, value_name = "TIME", value_parser = args::when, allow_hyphen_values = true)]
    to: Option<When>,
}

pub(super) fn run(common: &Common, args: &Args) -> Outcome {
    match &args.command {
        None => list(common, &args.list),
        Some(What::List(args)) => list(common, args),
        Some(What::Timeline(args)) => timeline(common, args),
        Some(What::Show { id, all }) => show(common, id, *all),
        Some(What::Ignore { id, reason }) => ignore(common, id, reason),
    }
}

fn list(common: &Common, args: &List) -> Outcome {
    let tape = common.open_tape()?;
    let sources = args::sources(&tape, &args.source)?;
    let mut gaps = tape.catalog().gaps(None)?;
    let (from, to) = args.window()?;
    let touches =
        |gap: &GapRow| to.is_none_or(|to| gap.from_us < to.0) && gap.to_us.is_none_or(|end| from.is_none_or(|from| end > from.0));
    gaps.retain(|gap| sources.contains(&gap.source) && touches(gap) && (!args.open || is_open(&gap.state)));
    let mut out = Out::new();
    if common.json {
        gaps.iter().try_for_each(|gap| out.json(&to_json(gap)))?;
    } else if gaps.is_empty() {
        out.line(if args.open { "no open gaps" } else { "no gaps" })?;
    } else {
        let head = ["gap", "cause", "state", "scope", "from", "to", "length", "detail"];
        let rows = gaps.iter().map(|gap| row(&tape, gap)).collect::<Result<Vec<_>>>()?;
        out.lines(&table(&head, rows))?;
    }
    if !common.json && std::io::stdout().is_terminal() {
        out.line("")?;
        draw(&mut out, &tape, &sources, (from, to))?;
    }
    out.flush()?;
    Ok(Exit::Done)
}

fn timeline(common: &Common, args: &List) -> Outcome {
    let tape = common.open_tape()?;
    let sources = args::sources(&tape, &args.source)?;
    let mut out = Out::new();
    if common.json {
        let (from, to) = args.window()?;
        for (name, scopes) in coverage(&tape, &sources)? {
            scopes.iter().try_for_each(|scope| out.json(&coverage_json(&name, scope, from, to)))?;
        }
    } else {
        draw(&mut out, &tape, &sources, args.window()?)?;
    }
    out.flush()?;
    Ok(Exit::Done)
}

type Window = (Option<UnixMicros>, Option<UnixMicros>);

impl List {
    fn window(&self) -> Result<Window> {
        let now = args::now();
        let [from, to] = [self.from, self.to].map(|when| when.map(|when| when.instant(now)));
        match (from, to) {
            (Some(from), Some(to)) if from >= to => {
                Err(usage(format!("the window from {from} to {to} is empty"), "--from must lie before --to"))
            }
            window => Ok(window),
        }
    }
}

type Coverage = Vec<(String, Vec<ScopeCoverage>)>;

fn coverage(tape: &Tape, sources: &[String]) -> Result<Coverage> {
    sources.iter().map(|name| Ok((name.clone(), tape.coverage(name)?))).collect()
}

/// Draws the timeline of sources into what is printed.
pub(super) fn draw(out: &mut Out, tape: &Tape, sources: &[String], (from, to): Window) -> Result<()> {
    let coverage = coverage(tape, sources)?;
    let since = coverage.iter().flat_map(|(_, scopes)| scopes).map(|scope| scope.since).min();
    // Where evidence or a gap ends; of a gap that still grows, what was recorded last.
    let mut last = coverage.iter().flat_map(|(_, scopes)| scopes).filter_map(|scope| scope.frontier).max();
    for gap in sources.iter().map(|name| tape.catalog().gaps(Some(name))).collect::<Result<Vec<_>, _>>()?.into_iter().flatten() {
        last = last.max(Some(UnixMicros(gap.to_us.unwrap_or(tape.source(&gap.source)?.last_us))));
    }
    let (Some(from), Some(to)) = (from.or(since), to.or(last)) else { return out.line("nothing was recorded live yet") };
    if from >= to {
        return out.line("nothing is covered yet");
    }
    let terminal = console::Term::stdout();
    let columns = terminal.size_checked().map_or(80, |(_, columns)| columns as usize);
    out.styled(&timeline::draw(&coverage, (from, to), columns, console::colors_enabled()))
}

fn coverage_json(source: &str, scope: &ScopeCoverage, from: Option<UnixMicros>, to: Option<UnixMicros>) -> Value {
    let (from, to) = (from.unwrap_or(scope.since), to.unwrap_or(UnixMicros(i64::MAX)));
    let instant = |at: UnixMicros| (at.0 != i64::MAX).then(|| at.to_string());
    let intervals = |set: &IntervalSet| set.iter().map(|(from, to)| json!([from.to_string(), instant(to)])).collect::<Value>();
    let classes = |classes: &Classes| -> Value {
        let within = classes.within(from, to);
        within.named().into_iter().map(|(name, set)| (name.to_owned(), intervals(set))).collect::<serde_json::Map<_, _>>().into()
    };
    let kinds: serde_json::Map<_, _> = scope.kinds.iter().map(|(kind, of)| (kind.clone(), classes(of))).collect();
    json!({
        "source": source,
        "scope": scope.scope,
        "version": scope.version,
        "since": scope.since.to_string(),
        "until": scope.until.map(|until| until.to_string()),
        "coverage": classes(&scope.classes),
        "kinds": kinds,
    })
}

fn row(tape: &Tape, gap: &GapRow) -> Result<Vec<String>> {
    let to = gap.to_us.map_or("still growing".to_owned(), |to| stamp(UnixMicros(to)));
    let long = gap.to_us.map_or(String::new(), |to| length(to - gap.from_us));
    // What the gap is about was said when it was opened; the newest words are those of its last step.
    let steps = tape.catalog().gap_steps(&gap.source, gap.n)?;
    let detail = steps.into_iter().next().map_or_else(|| gap.detail.clone(), |step| step.detail);
    let (cause, state, scope) = (gap.cause.clone(), gap.state.clone(), gap.scope.clone());
    Ok(vec![id(gap), cause, state, scope, stamp(UnixMicros(gap.from_us)), to, long, detail])
}

fn show(common: &Common, id: &str, all: bool) -> Outcome {
    let tape = common.open_tape()?;
    let gap = find(&tape, id)?;
    let steps = tape.catalog().gap_steps(&gap.source, gap.n)?;
    let again = tried_again(&tape, &gap, common.index_delay()?)?;
    let mut out = Out::new();
    if common.json {
        let mut value = to_json(&gap);
        value["spent"] = spent_json(&spent(&steps));
        value["tried_again_at"] = again.map(|at| at.to_string()).into();
        value["steps"] = steps.iter().map(step_to_json).collect();
        let kinds = tape.catalog().gap_kinds(&gap.source)?.into_iter().filter(|kind| kind.gap_n == gap.n);
        value["kinds"] = kinds
            .map(|kind| (kind.kind, json!({ "state": kind.state, "why": kind.why })))
            .collect::<serde_json::Map<_, _>>()
            .into();
        out.json(&value)?;
    } else {
        let kinds = tape.catalog().gap_kinds(&gap.source)?;
        let kinds: Vec<_> = kinds.into_iter().filter(|kind| kind.gap_n == gap.n).collect();
        print(&mut out, &gap, (&steps, all), &kinds, again)?;
    }
    out.flush()?;
    Ok(Exit::Done)
}

fn print(
    out: &mut Out,
    gap: &GapRow,
    (steps, all): (&[GapStepRow], bool),
    kinds: &[GapKindRow],
    again: Option<UnixMicros>,
) -> Result<()> {
    let to =
        gap.to_us.map_or("still growing".to_owned(), |to| format!("{} ({})", stamp(UnixMicros(to)), length(to - gap.from_us)));
    out.line(&format!("gap {}: {}, {}", id(gap), gap.cause, gap.state))?;
    out.line(&format!("scope:  {}", gap.scope))?;
    out.line(&format!("window: {} to {to}, published time", stamp(UnixMicros(gap.from_us))))?;
    out.line(&format!("noted:  {}", stamp(UnixMicros(gap.opened_us))))?;
    told(steps, all).iter().try_for_each(|line| out.line(&format!("        {line}")))?;
    for kind in kinds {
        let why = if kind.why.is_empty() { String::new() } else { format!(", {}", kind.why) };
        out.line(&format!("{:7} {}{why}", format!("{}:", kind.kind), kind.state))?;
    }
    let spent = spent(steps);
    if spent != Spent::default() {
        out.line(&format!("spent:  {}", spent_words(&spent)))?;
    }
    if is_open(&gap.state) && gap.to_us.is_some() {
        let again = again.map_or("tried often enough; `birdtape backfill` tries once more".to_owned(), |at| {
            format!("a recorder fills it from {} on, within its budget", stamp(at))
        });
        out.line(&format!("next:   {again}"))?;
    }
    Ok(())
}

/// Steps in words; of many in a row in the same state only the first and the last, unless all are wanted.
fn told(steps: &[GapStepRow], all: bool) -> Vec<String> {
    let line = |step: &GapStepRow| {
        let to = step.to_us.map(|to| format!(", ends {}", stamp(UnixMicros(to)))).unwrap_or_default();
        format!("{}, {} ({}){to}: {}", stamp(UnixMicros(step.at_us)), step.state, step.cause, step.detail)
    };
    let mut lines = Vec::new();
    for alike in steps.chunk_by(|a, b| a.state == b.state) {
        match alike {
            [first, between @ .., last] if !all && between.len() > 1 => {
                let between = format!("… {} more, {}: --all shows them", between.len(), first.state);
                lines.extend([line(first), between, line(last)]);
            }
            few => lines.extend(few.iter().map(line)),
        }
    }
    lines
}

/// What was spent on a gap so far.
fn spent(steps: &[GapStepRow]) -> Spent {
    steps.iter().fold(Spent::default(), |sum, step| Spent {
        requests: sum.requests + step.requests,
        rows: sum.rows + step.rows,
        micro_usd: sum.micro_usd + step.micro_usd,
    })
}

/// When a recorder that gives history so long fills a gap by itself, if ever.
pub(super) fn tried_again(tape: &Tape, gap: &GapRow, index_delay: Duration) -> Result<Option<UnixMicros>> {
    if !is_open(&gap.state) {
        return Ok(None);
    }
    let steps = tape.catalog().gap_steps(&gap.source, gap.n)?;
    let scopes = tape.catalog().scopes(&gap.source)?;
    let horizon = backfill::horizon_of(&scopes, &gap.scope);
    Ok(match backfill::due(gap, &steps, horizon, index_delay) {
        Due::At(at) => Some(at),
        Due::Growing | Due::Never => None,
    })
}

fn ignore(common: &Common, id: &str, reason: &str) -> Outcome {
    let (source, n) = args::gap_id(id)?;
    if reason.trim().is_empty() {
        return Err(usage("--reason is empty", "say why, for whoever reads the ledger later"));
    }
    let dir = common.tape_dir()?;
    // Looked up before the tape is opened for writing: a mistaken id changes nothing.
    Layout::new(&dir).require_info(&RealDisk)?;
    find(&common.open_tape()?, id)?;
    let at = args::now();
    let (disk, options) = (Arc::new(RealDisk), archive::Options::default());
    let mut archive = Archive::open(&dir, disk, options, provider::decode_record, &args::holder("gaps ignore"), at)?;
    archive.gap(&source, n).with_context(|| format!("gap {id} is gone"))?;
    let to = archive.gap(&source, n).and_then(|gap| gap.to_us).map(UnixMicros);
    archive.step(&source, at, n, GapState::Ignored, None, to, reason)?;
    archive.close(at)?;
    out::say(&format!("gap {id} is ignored from now on: {reason}"));
    Ok(Exit::Done)
}

fn find(tape: &Tape, text: &str) -> Result<GapRow> {
    let (source, n): (SourceName, u64) = args::gap_id(text)?;
    let source = tape.source(source.as_str())?;
    let gap = tape.catalog().gaps(Some(&source.name))?.into_iter().find(|gap| gap.n == n);
    gap.ok_or_else(|| failed(format!("there is no gap {text}"), "`birdtape gaps` lists them"))
}

/// Whether something may still be missing through a gap of that state.
pub(super) fn is_open(state: &str) -> bool {
    state.parse().is_ok_and(GapState::is_open)
}

fn id(gap: &GapRow) -> String {
    format!("{}-{}", gap.source, gap.n)
}

pub(super) fn to_json(gap: &GapRow) -> Value {
    json!({
        "id": id(gap),
        "source": gap.source,
        "n": gap.n,
        "scope": gap.scope,
        "cause": gap.cause,
        "state": gap.state,
        "open": is_open(&gap.state),
        "from": UnixMicros(gap.from_us).to_string(),
        "to": gap.to_us.map(|to| UnixMicros(to).to_string()),
        "length_ms": gap.to_us.map(|to| (to - gap.from_us) / 1_000),
        "opened_at": UnixMicros(gap.opened_us).to_string(),
        "detail": gap.detail,
    })
}

fn step_to_json(step: &GapStepRow) -> Value {
    json!({
        "n": step.n,
        "at": UnixMicros(step.at_us).to_string(),
        "state": step.state,
        "cause": step.cause,
        "to": step.to_us.map(|to| UnixMicros(to).to_string()),
        "detail": step.detail,
        "spent": spent_json(&spent(std::slice::from_ref(step))),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_steps_alike_are_told_by_the_first_and_the_last() {
        let step = |at: i64, state: &str| GapStepRow {
            at_us: 1_767_614_400_000_000 + at * 1_000_000,
            state: state.to_owned(),
            cause: "stopped".to_owned(),
            detail: format!("step {at}"),
            ..GapStepRow::default()
        };
        let states = ["open", "filling", "filling", "filling", "filling", "planned", "filling", "filling", "filled"];
        let steps: Vec<_> = states.iter().zip(0..).map(|(state, at)| step(at, state)).collect();
        let said = told(&steps, false);
        let ends: Vec<_> = said.iter().map(|line| line.rsplit(": ").next().unwrap()).collect();
        assert_eq!(ends, ["step 0", "step 1", "--all shows them", "step 4", "step 5", "step 6", "step 7", "step 8"], "{said:?}");
        assert!(said[2].starts_with("… 2 more, filling"), "{said:?}");
        assert_eq!(told(&steps, true).len(), steps.len());
    }
}
