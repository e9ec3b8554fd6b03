//! The backfiller: asks providers' history for what the stream did not bring, and proves what it filled.
//!
//! Owns the order of things (page on the tape, then the cursor, then the next request), budgets, patience and the
//! verdict in the ledger. How a provider is asked and what its pages prove is the affair of
//! [`provider::history`](crate::provider::history); sockets are `net`'s.
//!
//! A page is kept as an `http` record, byte for byte, in the same commit as the step that says how far the walk has
//! come: a kill at any instant costs at most one page again. What is on the tape already is known by the ids of its
//! index, so a page's rows that came live are counted as known and nothing is kept twice.
//!
//! | file | holds |
//! | --- | --- |
//! | `mod.rs` | [`Options`], [`plan`], [`run`] |
//! | `filling.rs` | one gap from its plan to its verdict |
//! | `known.rs` | what is on the tape already |
//! | `peer/` | another recorder's tape as history; two tapes become one |
//!
//! Memory: one page, and the ids of the posts that were published in the window of one gap (8 bytes each).

mod filling;
mod known;
pub mod peer;

use std::collections::BTreeMap;
use std::future::Future;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use self::filling::Filler;
use crate::archive::{self, Archive, ArchiveError, Disk, GapRow, Span, Tape};
use crate::model::{GapState, Provider, SourceName, UnixMicros};
use crate::net::{Clock, Network};
use crate::provider::Settings;
use crate::provider::decode_record;
use crate::provider::history::{Price, Walk, Wanted};

/// A source whose gaps may be filled.
#[derive(Clone)]
pub struct Source {
    /// Its name on the tape.
    pub name: SourceName,
    /// How its provider is asked.
    pub settings: Settings,
    /// The way to it.
    pub network: Arc<dyn Network>,
}

impl std::fmt::Debug for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Source").field("name", &self.name).finish_non_exhaustive()
    }
}

/// What may be spent in one run; nothing set is no bound.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Budget {
    /// Requests.
    pub requests: Option<u64>,
    /// Rows that come back.
    pub rows: Option<u64>,
    /// Millionths of a US dollar.
    pub micro_usd: Option<u64>,
}

/// What is to be filled, and how.
#[derive(Clone, Debug)]
pub struct Options {
    /// Directory of the tape.
    pub tape: PathBuf,
    /// How it is written.
    pub archive: archive::Options,
    /// Sources that may be asked.
    pub sources: Vec<Source>,
    /// Only these gaps, as source and number; none is all that are open.
    pub gaps: Vec<(SourceName, u64)>,
    /// What may be spent.
    pub budget: Budget,
    /// Shortest time between two requests to one source; without it the provider's documented pace.
    pub pace: Option<Duration>,
    /// What another writer is told about us.
    pub holder: String,
}

/// Why nothing can be filled.
#[derive(Debug, thiserror::Error)]
pub enum BackfillError {
    /// The tape.
    #[error(transparent)]
    Archive(#[from] ArchiveError),
    /// A gap that is not in the ledger.
    #[error("there is no gap {gap}")]
    NoGap {
        /// Its id.
        gap: String,
    },
    /// A gap that is settled.
    #[error("gap {gap} is {state}: there is nothing to fill")]
    Settled {
        /// Its id.
        gap: String,
        /// Its state.
        state: String,
    },
    /// A gap that still grows.
    #[error("gap {gap} still grows: its end is known when its source is recorded again")]
    Growing {
        /// Its id.
        gap: String,
    },
    /// A window that is not over.
    #[error("gap {gap} ends at {to}, which is in the future of this machine's clock ({now})")]
    Future {
        /// Its id.
        gap: String,
        /// Its end.
        to: UnixMicros,
        /// Our clock.
        now: UnixMicros,
    },
    /// A source that nobody said how to ask.
    #[error("gap {gap} belongs to source {source_name}, and that is not configured")]
    NotConfigured {
        /// Its id.
        gap: String,
        /// The source.
        source_name: String,
    },
    /// A source of another provider than the tape's.
    #[error("source {source_name} is of {on_tape} on the tape, and the configuration says {configured}")]
    OtherProvider {
        /// The source.
        source_name: String,
        /// As recorded.
        on_tape: String,
        /// As configured.
        configured: Provider,
    },
    /// A budget with which nothing can be asked.
    #[error("a budget of 0 {unit} fills nothing")]
    NoBudget {
        /// Of what.
        unit: &'static str,
    },
}

impl BackfillError {
    /// What the person can do about it.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Archive(error) => error.hint(),
            Self::NoGap { .. } | Self::Settled { .. } => Some("`birdtape gaps --open` lists what can be filled"),
            Self::Growing { .. } => Some("run `birdtape record` until the source is live again, then fill"),
            Self::Future { .. } => Some("set the clock right, or wait until the window is over"),
            Self::NotConfigured { .. } => Some("add the source to the configuration, or name its provider with --provider"),
            Self::OtherProvider { .. } => Some("use the configuration the tape was recorded with"),
            Self::NoBudget { .. } => Some("leave the budget out for none, or give more than 0; --dry-run shows the price"),
        }
    }
}

/// What happens, for whoever watches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A gap is begun.
    Began {
        /// Its id.
        gap: String,
        /// The least it costs.
        price: Price,
    },
    /// A page is on the tape.
    Page {
        /// The gap.
        gap: String,
        /// Rows on it.
        rows: u64,
        /// Of them new.
        new: u64,
    },
    /// It has to wait.
    Waits {
        /// The gap.
        gap: String,
        /// For so long.
        lasts: Duration,
        /// Why.
        why: String,
    },
    /// A gap is left.
    Ended(Filled),
}

/// What became of a gap.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Filled {
    /// Its id, as alpha-17.
    pub gap: String,
    /// Its state now.
    pub state: GapState,
    /// In words: the evidence, or why not.
    pub detail: String,
    /// Requests made.
    pub requests: u64,
    /// Rows that came back.
    pub rows: u64,
    /// Of them new.
    pub new: u64,
    /// Cost, in millionths of a US dollar.
    pub micro_usd: u64,
}

/// How a run ended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// One for each gap that was begun.
    pub gaps: Vec<Filled>,
    /// Gaps that were left out, and why.
    pub left: Vec<(String, String)>,
    /// Whether it was stopped before the end.
    pub stopped: bool,
    /// Gaps of the asked sources through which loss is still possible.
    pub still_open: u64,
}

/// A gap with the least it costs to fill.
#[derive(Clone, Debug)]
pub struct Planned {
    /// The gap.
    pub gap: GapRow,
    /// Whose it is.
    pub source: Source,
    /// What is asked for.
    pub wanted: Wanted,
    /// Where an earlier run stopped.
    pub cursor: Option<String>,
    /// The least it costs.
    pub price: Price,
}

/// Gaps that would be filled, and those that are left out with the reason.
pub type Plan = (Vec<Planned>, Vec<(String, String)>);

/// Which gaps would be filled, at which price; and which are left out, and why. Asks nobody.
///
/// # Errors
/// When the tape cannot be read, or a gap that was asked for cannot be filled at all.
pub fn plan(options: &Options, disk: Arc<dyn Disk>, now: UnixMicros) -> Result<Plan, BackfillError> {
    let budget = [(options.budget.requests, "requests"), (options.budget.rows, "rows"), (options.budget.micro_usd, "dollars")];
    if let Some((_, unit)) = budget.into_iter().find(|(bound, _)| *bound == Some(0)) {
        return Err(BackfillError::NoBudget { unit });
    }
    let tape = Tape::open(&options.tape, disk)?;
    let gaps = tape.catalog().gaps(None).map_err(ArchiveError::from)?;
    let wanted = |gap: &GapRow| options.gaps.iter().any(|(source, n)| source.as_str() == gap.source && *n == gap.n);
    for (source, n) in &options.gaps {
        if !gaps.iter().any(|gap| gap.source == source.as_str() && gap.n == *n) {
            return Err(BackfillError::NoGap { gap: format!("{source}-{n}") });
        }
    }
    let (mut planned, mut left) = (Vec::new(), Vec::new());
    let mut selectors = BTreeMap::new();
    for gap in gaps.into_iter().filter(|gap| options.gaps.is_empty() || wanted(gap)) {
        match possible(&tape, options, &gap, now) {
            Ok(source) => {
                let known = match selectors.get(&gap.source) {
                    Some(known) => Vec::clone(known),
                    None => {
                        let found = selectors_of(&tape, &gap.source)?;
                        selectors.insert(gap.source.clone(), found.clone());
                        found
                    }
                };
                planned.push(price(&tape, gap, source, known)?);
            }
            Err(error) if options.gaps.is_empty() => {
                // Nobody asked for this one; what is settled needs no word.
                if !matches!(error, BackfillError::Settled { .. }) {
                    left.push((format!("{}-{}", gap.source, gap.n), error.to_string()));
                }
            }
            Err(error) => return Err(error),
        }
    }
    Ok((planned, left))
}

/// Whether a gap can be filled at all, and by whom.
fn possible(tape: &Tape, options: &Options, gap: &GapRow, now: UnixMicros) -> Result<Source, BackfillError> {
    let id = || format!("{}-{}", gap.source, gap.n);
    if !gap.state.parse().is_ok_and(GapState::is_open) {
        return Err(BackfillError::Settled { gap: id(), state: gap.state.clone() });
    }
    let Some(to) = gap.to_us.map(UnixMicros) else { return Err(BackfillError::Growing { gap: id() }) };
    if to > now {
        return Err(BackfillError::Future { gap: id(), to, now });
    }
    let source = options.sources.iter().find(|source| source.name.as_str() == gap.source);
    let source = source.ok_or_else(|| BackfillError::NotConfigured { gap: id(), source_name: gap.source.clone() })?;
    let on_tape = tape.source(&gap.source)?.provider;
    if on_tape != source.settings.provider.name() {
        let (source_name, configured) = (gap.source.clone(), source.settings.provider);
        return Err(BackfillError::OtherProvider { source_name, on_tape, configured });
    }
    Ok(source.clone())
}

/// Rules, monitors and topics a source has brought, each with an envelope that names it.
fn selectors_of(tape: &Tape, source: &str) -> Result<Vec<(String, bytes::Bytes)>, BackfillError> {
    let mut found = BTreeMap::new();
    for seen in tape.catalog().last_seen(source).map_err(ArchiveError::from)? {
        if seen.scope == archive::ALL || found.contains_key(&seen.scope) {
            continue;
        }
        let span = Span { from_n: Some(crate::model::Seq(seen.n)), ..Span::default() };
        if let Some(record) = tape.records(source, span)?.next()? {
            found.insert(seen.scope, bytes::Bytes::copy_from_slice(&record.body));
        }
    }
    Ok(found.into_iter().collect())
}

fn price(tape: &Tape, gap: GapRow, source: Source, selectors: Vec<(String, bytes::Bytes)>) -> Result<Planned, BackfillError> {
    let scopes = tape.catalog().scopes(&gap.source).map_err(ArchiveError::from)?;
    let scope = scopes.iter().rev().find(|scope| scope.scope == gap.scope).or_else(|| scopes.first());
    let margin = scope.map_or(60_000_000, |scope| scope.horizon_us.max(0) as u64);
    let to = UnixMicros(gap.to_us.unwrap_or(gap.from_us));
    let (scope, from) = (gap.scope.clone(), UnixMicros(gap.from_us));
    let wanted = Wanted { scope, from, to, margin: Duration::from_micros(margin), selectors };
    let steps = tape.catalog().gap_steps(&gap.source, gap.n).map_err(ArchiveError::from)?;
    let cursor = steps.into_iter().rev().find_map(|step| step.cursor);
    let price = Walk::new(&source.settings, wanted.clone(), cursor.as_deref()).price();
    Ok(Planned { gap, source, wanted, cursor, price })
}

/// Fills gaps one after the other, until all are done, the budget is used up, or `shutdown` is ready.
///
/// # Errors
/// When the tape cannot be written, or a gap that was asked for cannot be filled at all.
pub async fn run(
    options: Options,
    clock: Arc<dyn Clock>,
    disk: Arc<dyn Disk>,
    tell: &mut (dyn FnMut(Event) + Send),
    shutdown: impl Future<Output = ()> + Send,
) -> Result<Outcome, BackfillError> {
    let (planned, left) = plan(&options, Arc::clone(&disk), clock.wall())?;
    let (dir, archive) = (&options.tape, options.archive.clone());
    let archive = Archive::open(dir, Arc::clone(&disk), archive, decode_record, &options.holder, clock.wall())?;
    let mut filler = Filler::new(archive, (dir.clone(), disk), clock, &options);
    let mut outcome = Outcome { left, ..Outcome::default() };
    {
        let mut shutdown = std::pin::pin!(shutdown);
        for planned in planned {
            let filled = filler.fill(planned, tell, shutdown.as_mut()).await?;
            let Some(filled) = filled else {
                outcome.stopped = true;
                break;
            };
            tell(Event::Ended(filled.clone()));
            outcome.gaps.push(filled);
            if filler.is_stopped() {
                outcome.stopped = true;
                break;
            }
        }
    }
    outcome.still_open = filler.still_open(options.sources.iter().map(|source| &source.name));
    filler.close()?;
    Ok(outcome)
}
