//! The backfiller: asks providers' history for what the stream did not bring, and proves what it filled.
//!
//! Owns the order of things (a cursor is never on the tape before its page), budgets, patience and the verdict in the
//! ledger. How a provider is asked and what its pages prove is the affair of
//! [`provider::history`](crate::provider::history); sockets are `net`'s.
//!
//! A page is kept as an `http` record, byte for byte, in the same commit as the step that says how far the walk has
//! come: a kill at any instant costs at most one page again. While a page that cost nothing is made durable the next one
//! is on its way already; one that is paid for is safe before another is bought. What is on the tape already is known by
//! the ids of its index, so a page's rows that came live are counted as known and nothing is kept twice.
//!
//! | file | holds |
//! | --- | --- |
//! | `mod.rs` | [`Options`], [`plan`], [`run`] |
//! | `filling.rs` | one gap from its plan to its verdict |
//! | `audit.rs` | [`audit`](fn@audit): asking for what looked whole |
//! | `sample.rs` | which windows, and what their answers allow to say |
//! | `follow.rs` | [`follow`]: filling beside a recorder, without being asked |
//! | `known.rs` | what is on the tape already |
//! | `peer/` | another recorder's tape as history; two tapes become one |
//! | `purse.rs` | [`Budgets`], and what was spent of them |
//! | `pace.rs` | how fast a provider is asked |
//! | `estimate.rs` | how much there may be in a gap |
//! | `selectors.rs` | what selected events: rules, monitors and accounts with their texts |
//!
//! Who writes the tape is handed in as a [`Pen`]: [`run`] has the archive for itself, [`follow`] writes through a
//! recorder. Memory: one page, and the ids of the posts that were published in the window of one gap (8 bytes each).

mod audit;
mod estimate;
mod filling;
mod follow;
mod known;
mod pace;
pub mod peer;
mod purse;
mod sample;
mod selectors;

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

pub use self::audit::{
    AuditEstimate, AuditEvent, AuditOptions, AuditPlan, Audited, AuditedWindow, CONFIDENCE, audit, estimate_audit, plan_audit,
};
pub use self::estimate::items;
use self::filling::{Filler, off_the_runtime};
pub use self::follow::{Due, Following, INDEX_DELAY, Sink, due, follow};
pub use self::purse::{AUTOMATIC_DAY, Budget, Budgets, spent_on_day};
pub use self::sample::Window;
use self::selectors::Selectors;
use crate::archive::{self, Archive, ArchiveError, Disk, GapRow, Hole, Leaf, Pen, PenError, ScopeRow, Tape, Writing};
use crate::model::{GapState, Provider, Seq, SourceName, UnixMicros};
use crate::net::{Clock, Network};
use crate::provider::Settings;
use crate::provider::decode_record;
use crate::provider::history::{Price, Walk, Wanted};

/// The newest record may be so far in the future of our clock, which is set now and then.
const CLOCK_APART: Duration = Duration::from_secs(60);

/// Of a scope whose row nobody knows.
const USUAL_HORIZON: Duration = Duration::from_secs(60);

/// A source whose gaps may be filled.
#[derive(Clone)]
pub struct Source {
    /// Its name on the tape.
    pub name: SourceName,
    /// How its provider is asked.
    pub settings: Settings,
    /// The way to it.
    pub network: Arc<dyn Network>,
    /// Whether everything is asked a second time: a row that a history leaves out of a last page leaves no other trace.
    pub look_twice: bool,
}

impl std::fmt::Debug for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Source").field("name", &self.name).finish_non_exhaustive()
    }
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
    pub budgets: Budgets,
    /// Shortest time between two requests to one source; without it the provider's documented pace.
    pub pace: Option<Duration>,
    /// What another writer is told about us.
    pub holder: String,
}

impl Options {
    /// Refuses a budget with which nothing can be asked.
    fn check_budgets(&self) -> Result<(), BackfillError> {
        let budgets = [self.budgets.run, self.budgets.day, self.budgets.day_in_all];
        budgets.iter().find_map(Budget::nothing_of).map_or(Ok(()), |unit| Err(BackfillError::NoBudget { unit }))
    }
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
    #[error("gap {gap} belongs to source {source_name}, which is not among those that are asked")]
    NotAsked {
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
    /// A clock that was set back, or never set.
    #[error("this machine's clock says {now}, and source {source_name} was last recorded at {newest}: one of them is wrong")]
    ClockBehind {
        /// The source.
        source_name: String,
        /// Its newest record.
        newest: UnixMicros,
        /// Our clock.
        now: UnixMicros,
    },
    /// Whoever writes the tape.
    #[error(transparent)]
    Pen(#[from] PenError),
    /// A budget with which nothing can be asked.
    #[error("a budget of 0 {unit} fills nothing")]
    NoBudget {
        /// Of what.
        unit: &'static str,
    },
}

impl BackfillError {
    /// Whether nothing more can be written.
    fn is_final(&self) -> bool {
        matches!(self, Self::Pen(PenError::Gone | PenError::Archive(_)))
    }

    /// Whether something was asked for that makes no sense.
    pub fn is_usage(&self) -> bool {
        match self {
            Self::Archive(error) => error.is_usage(),
            Self::NoBudget { .. } => true,
            _ => false,
        }
    }

    /// What the person can do about it.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Archive(ArchiveError::Locked { .. }) => Some(
                "wait until it is done; a recorder fills gaps by itself, unless it was given --no-backfill: `birdtape status` tells how far it is",
            ),
            Self::Archive(error) | Self::Pen(PenError::Archive(error)) => error.hint(),
            Self::Pen(_) => None,
            Self::ClockBehind { .. } => Some("set the clock right: gaps and budgets of a day are counted by it"),
            Self::NoGap { .. } | Self::Settled { .. } => Some("`birdtape gaps --open` lists what can be filled"),
            Self::Growing { .. } => Some("run `birdtape record` until the source is live again, then fill"),
            Self::Future { .. } => Some("set the clock right, or wait until the window is over"),
            Self::NotAsked { .. } => {
                Some("name it with --source or its provider with --provider, or add it to the configuration")
            }
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
    /// Nothing is asked for a while: of one source, or of all.
    Rests {
        /// The source.
        source: Option<SourceName>,
        /// Until when; without it not in this run.
        until: Option<UnixMicros>,
        /// Why.
        why: String,
    },
}

/// Why a gap was left before its verdict.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Halt {
    /// A budget is used up.
    Budget {
        /// When there is a new one; never, for a run's.
        until: Option<UnixMicros>,
        /// Whether it is all sources' budget.
        in_all: bool,
    },
    /// The provider does not answer this key.
    Refused,
    /// The provider asks for a long pause.
    Asked {
        /// Until then.
        until: UnixMicros,
    },
    /// A page could not be had.
    Tries,
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
    /// Why it was left before its verdict.
    pub halt: Option<Halt>,
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
    /// The first record of the walk that is gone on with.
    begun_n: Option<Seq>,
    /// What the ledger's last step says.
    last_words: Option<String>,
}

impl Planned {
    /// Number of the gap; a window that is audited has none, and no record has number 0.
    fn number(&self) -> Option<u64> {
        (self.gap.n > 0).then_some(self.gap.n)
    }
}

/// Gaps that would be filled, and those that are left out with the reason.
pub type Plan = (Vec<Planned>, Vec<(String, String)>);

/// Which gaps would be filled, at which price; and which are left out, and why. Asks nobody.
///
/// # Errors
/// When the tape cannot be read, or a gap that was asked for cannot be filled at all.
pub fn plan(options: &Options, disk: Arc<dyn Disk>, now: UnixMicros) -> Result<Plan, BackfillError> {
    options.check_budgets()?;
    let tape = Tape::open(&options.tape, disk)?;
    check_clock(&tape, now)?;
    let mut gaps = tape.catalog().gaps(None).map_err(ArchiveError::from)?;
    let wanted = |gap: &GapRow| options.gaps.iter().any(|(source, n)| source.as_str() == gap.source && *n == gap.n);
    for (source, n) in &options.gaps {
        if !gaps.iter().any(|gap| gap.source == source.as_str() && gap.n == *n) {
            return Err(BackfillError::NoGap { gap: format!("{source}-{n}") });
        }
    }
    let (mut out, mut left) = (Vec::new(), Vec::new());
    let mut of_others: BTreeMap<String, u64> = BTreeMap::new();
    let mut selectors = BTreeMap::new();
    // What concerns all of a source first.
    gaps.sort_by_key(|gap| gap.scope != archive::ALL);
    for gap in gaps.into_iter().filter(|gap| options.gaps.is_empty() || wanted(gap)) {
        match possible(&tape, options, &gap, now) {
            Ok(source) => {
                let known = match selectors.get(&gap.source) {
                    Some(known) => Selectors::clone(known),
                    None => {
                        let found = Selectors::of(&tape, &gap.source, source.settings.provider)?;
                        selectors.insert(gap.source.clone(), found.clone());
                        found
                    }
                };
                out.push(planned(&tape, gap, source, &known)?);
            }
            // Nobody asked for this one; what is settled needs no word, and of other sources one is enough.
            Err(BackfillError::Settled { .. }) if options.gaps.is_empty() => {}
            Err(BackfillError::NotAsked { source_name, .. }) if options.gaps.is_empty() => {
                *of_others.entry(source_name).or_default() += 1;
            }
            Err(error) if options.gaps.is_empty() => left.push((format!("{}-{}", gap.source, gap.n), error.to_string())),
            Err(error) => return Err(error),
        }
    }
    left.extend(of_others.into_iter().map(|(source, n)| {
        let gaps = if n == 1 { "1 gap".to_owned() } else { format!("{n} gaps") };
        (format!("{gaps} of {source}"), "that source is not among those that are asked".to_owned())
    }));
    Ok((out, left))
}

/// Whether a gap can be filled at all, and by whom.
fn possible(tape: &Tape, options: &Options, gap: &GapRow, now: UnixMicros) -> Result<Source, BackfillError> {
    let id = || format!("{}-{}", gap.source, gap.n);
    if !gap.state.parse().is_ok_and(GapState::is_open) {
        return Err(BackfillError::Settled { gap: id(), state: gap.state.clone() });
    }
    let source = options.sources.iter().find(|source| source.name.as_str() == gap.source);
    let source = source.ok_or_else(|| BackfillError::NotAsked { gap: id(), source_name: gap.source.clone() })?;
    let Some(to) = gap.to_us.map(UnixMicros) else { return Err(BackfillError::Growing { gap: id() }) };
    if to > now {
        return Err(BackfillError::Future { gap: id(), to, now });
    }
    check_provider(tape, source)?;
    Ok(source.clone())
}

/// Refuses a source that is of another provider on the tape.
fn check_provider(tape: &Tape, source: &Source) -> Result<(), BackfillError> {
    let on_tape = tape.source(source.name.as_str())?.provider;
    if on_tape != source.settings.provider.name() {
        let (source_name, configured) = (source.name.to_string(), source.settings.provider);
        return Err(BackfillError::OtherProvider { source_name, on_tape, configured });
    }
    Ok(())
}

/// How late the events of a scope may come.
pub fn horizon_of(scopes: &[ScopeRow], scope: &str) -> Duration {
    let row = scopes.iter().rev().find(|row| row.scope == scope).or_else(|| scopes.first());
    row.map_or(USUAL_HORIZON, |row| Duration::from_micros(row.horizon_us.max(0) as u64))
}

fn planned(tape: &Tape, gap: GapRow, source: Source, selectors: &Selectors) -> Result<Planned, BackfillError> {
    let scopes = tape.catalog().scopes(&gap.source).map_err(ArchiveError::from)?;
    let margin = horizon_of(&scopes, &gap.scope);
    let (from, to) = still_wanted(tape, &gap)?;
    let (selectors, is_listed) = selectors.within(tape, from, to)?;
    let wanted = Wanted { scope: gap.scope.clone(), from, to, margin, selectors, is_listed };
    let steps = tape.catalog().gap_steps(&gap.source, gap.n).map_err(ArchiveError::from)?;
    let last_words = steps.last().map(|step| step.detail.clone());
    // A walk that came to its end is not gone on with; the next one begins anew.
    let running = steps.into_iter().rev().take_while(|step| step.state != GapState::Partial.name());
    let mut stands: Vec<(u64, String)> = running.filter_map(|step| Some((step.n, step.cursor?))).collect();
    let begun_n = stands.last().map(|(n, _)| Seq(n.saturating_sub(1)));
    let cursor = if stands.is_empty() { None } else { Some(stands.swap_remove(0).1) };
    let price = Walk::new(&source.settings, wanted.clone(), cursor.as_deref()).price();
    Ok(Planned { gap, source, wanted, cursor, price, begun_n, last_words })
}

/// The window of a gap; where parts of it are proven, what encloses the rest.
fn still_wanted(tape: &Tape, gap: &GapRow) -> Result<(UnixMicros, UnixMicros), BackfillError> {
    let whole = (UnixMicros(gap.from_us), UnixMicros(gap.to_us.unwrap_or(gap.from_us)));
    let kinds = tape.catalog().gap_kinds(&gap.source).map_err(ArchiveError::from)?;
    let partial = kinds.into_iter().filter(|kind| kind.gap_n == gap.n && kind.state == GapState::Partial.name());
    let rests = partial.map(|kind| serde_json::from_str::<Vec<(i64, i64)>>(&kind.rest).unwrap_or_default());
    let mut rests = rests.collect::<Vec<_>>();
    // A kind without a rest says nothing about where: then all of it is wanted.
    if rests.is_empty() || rests.iter().any(Vec::is_empty) {
        return Ok(whole);
    }
    let rest = rests.drain(..).flatten().reduce(|(from, to), (a, b)| (from.min(a), to.max(b)));
    Ok(rest.map_or(whole, |(from, to)| (UnixMicros(from).max(whole.0), UnixMicros(to).min(whole.1))))
}

/// Refuses a clock that is behind what was recorded: windows and days would be counted wrongly.
fn check_clock(tape: &Tape, now: UnixMicros) -> Result<(), BackfillError> {
    let newest = tape.sources()?.into_iter().max_by_key(|source| source.last_us);
    match newest.map(|source| (UnixMicros(source.last_us), source.name)) {
        Some((newest, source_name)) if newest > now.plus(CLOCK_APART) => {
            Err(BackfillError::ClockBehind { source_name, newest, now })
        }
        _ => Ok(()),
    }
}

/// What the sources of a tape have spent today, by name.
///
/// # Errors
/// When the tape cannot be read.
pub fn spent_today(tape: &Tape, now: UnixMicros) -> Result<BTreeMap<String, archive::Spent>, BackfillError> {
    let each = tape.sources()?.into_iter().map(|source| {
        let spent = spent_on_day(tape, &source.name, now)?;
        Ok((source.name, spent))
    });
    each.collect()
}

/// The archive of a job that has it for itself.
#[derive(Clone)]
struct Hand(Arc<tokio::sync::Mutex<Option<Archive>>>);

impl Hand {
    fn of(archive: Archive) -> Self {
        Self(Arc::new(tokio::sync::Mutex::new(Some(archive))))
    }

    /// Does something with the archive where that holds nobody up.
    async fn with<T, E>(&self, work: impl FnOnce(&mut Archive) -> Result<T, E> + Send + 'static) -> Result<T, PenError>
    where
        T: Send + 'static,
        E: Send + 'static,
        PenError: From<E>,
    {
        let mut place = self.0.lock().await;
        let Some(mut archive) = place.take() else { return Err(PenError::Gone) };
        let (archive, done) = off_the_runtime(move || {
            let done = work(&mut archive);
            (archive, done)
        })
        .await;
        *place = Some(archive);
        Ok(done?)
    }

    async fn close(self, at: UnixMicros) -> Result<(), BackfillError> {
        let archive = self.0.lock().await.take().ok_or(PenError::Gone)?;
        off_the_runtime(move || archive.close(at)).await?;
        Ok(())
    }
}

impl Pen for Hand {
    fn write(&mut self, leaf: Leaf) -> Writing<'_> {
        Box::pin(self.with(move |archive| {
            archive.keep(&leaf)?;
            archive.commit(leaf.at)?;
            Ok::<_, PenError>(())
        }))
    }

    fn lose(&mut self, hole: Hole, at: UnixMicros) -> Writing<'_> {
        Box::pin(self.with(move |archive| {
            archive.note_loss(&hole, at)?;
            archive.commit(at)?;
            Ok::<_, PenError>(())
        }))
    }
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
    // What cannot be filled at all opens nothing for writing.
    plan(&options, Arc::clone(&disk), clock.wall())?;
    let dir = &options.tape;
    let archive = Archive::open(dir, Arc::clone(&disk), options.archive.clone(), decode_record, &options.holder, clock.wall())?;
    let hand = Hand::of(archive);
    // After a death the catalog may have been behind: only now is known how far each walk has come.
    let (plan, left) = match plan(&options, Arc::clone(&disk), clock.wall()) {
        Ok(plan) => plan,
        Err(error) => {
            hand.close(clock.wall()).await?;
            return Err(error);
        }
    };
    let mut filler = Filler::alone(Box::new(hand.clone()), &options, &clock, &disk)?;
    let mut outcome = Outcome { left, ..Outcome::default() };
    {
        let mut shutdown = std::pin::pin!(shutdown);
        // Sources of which nothing more is asked in this run.
        let mut rest = BTreeSet::new();
        for planned in plan {
            let source = planned.source.name.clone();
            if rest.contains(&source) {
                continue;
            }
            filler.keep_pace(&planned.source, options.pace);
            let filled = filler.fill(planned, tell, shutdown.as_mut()).await?;
            let Some(filled) = filled else {
                outcome.stopped = true;
                break;
            };
            tell(Event::Ended(filled.clone()));
            let halt = filled.halt.clone();
            outcome.gaps.push(filled);
            match halt {
                Some(Halt::Budget { in_all: true, .. }) => {
                    outcome.stopped = true;
                    break;
                }
                Some(Halt::Budget { .. } | Halt::Asked { .. }) => {
                    outcome.stopped = true;
                    rest.insert(source);
                }
                Some(Halt::Refused) => drop(rest.insert(source)),
                Some(Halt::Tries) | None => {}
            }
        }
    }
    let sources = options.sources;
    let count = move |archive: &mut Archive| {
        Ok::<_, ArchiveError>(sources.iter().map(|source| archive.open_gaps(&source.name).len() as u64).sum())
    };
    outcome.still_open = hand.with(count).await?;
    hand.close(clock.wall()).await?;
    Ok(outcome)
}
