//! Asking history for what looked whole: windows are drawn, asked for, and compared with the tape.
//!
//! Every answer is kept on the tape. A window of which history has nothing that the tape lacks becomes `audited`; a miss
//! opens a gap of cause `provider_dropped` over its window, and the same answers then settle it. What is missing where the
//! tape knows a gap of a scope (an account, a rule) is no miss.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use super::filling::{Filler, off_the_runtime};
use super::known::Held;
use super::sample::{Field, Window, upper_bound};
use super::selectors::Selectors;
use super::{BackfillError, Event, Hand, Options, Planned, Source, horizon_of};
use crate::archive::{ALL, Archive, ArchiveError, Disk, Fact, GapRow, Hole, KindResult, Leaf, Lost, Pen, Spent, Tape, Writing};
use crate::model::{Cause, EventKind, GapState, IntervalSet, Provider, SourceName, UnixMicros};
use crate::net::Clock;
use crate::provider::decode_record;
use crate::provider::history::{Price, Walk, Wanted};

/// Confidence of the bound.
pub const CONFIDENCE: f64 = 0.95;

/// Misses that are named.
const NAMED: usize = 5;

/// What is to be audited.
#[derive(Clone, Debug)]
pub struct AuditOptions {
    /// Tape, sources, budgets and pace; its gaps are not looked at.
    pub fill: Options,
    /// Published time to draw from; by default all that is covered.
    pub span: (Option<UnixMicros>, Option<UnixMicros>),
    /// Length of a window.
    pub window: Duration,
    /// Windows to draw, for each source.
    pub sample: usize,
    /// Seed of the draw.
    pub seed: u64,
    /// How long history may take to know a post.
    pub index_delay: Duration,
    /// Whether nothing is written: for a tape that somebody records on.
    pub report_only: bool,
}

/// The windows of a source, and the least it costs to ask for them.
#[derive(Clone, Debug)]
pub struct AuditPlan {
    /// The source.
    pub source: Source,
    /// What is asked for, ascending.
    pub windows: Vec<Window>,
    /// The least it costs.
    pub price: Price,
    /// Why nothing is asked, where that is so.
    pub left: Option<String>,
    /// What selected the source's events.
    selectors: Selectors,
}

/// A window, asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditedWindow {
    /// The window.
    pub window: Window,
    /// Posts that history has there.
    pub asked: u64,
    /// Ids of those that were not on the tape.
    pub missed: Vec<u64>,
    /// Posts that were not on the tape either, and lie where the tape knows a gap of a scope: neither asked nor missed.
    pub in_gaps: u64,
    /// Whether history answered for all of it.
    pub proven: bool,
    /// The gap that was opened, and its state now.
    pub gap: Option<(String, GapState)>,
    /// In words.
    pub detail: String,
}

/// What an audit of a source found.
#[derive(Clone, Debug)]
pub struct Audited {
    /// The source.
    pub source: SourceName,
    /// Its windows, ascending.
    pub windows: Vec<AuditedWindow>,
    /// Windows that were drawn and not asked for: the budget was used up, or history refused.
    pub unasked: usize,
    /// What was spent.
    pub spent: Spent,
    /// Why.
    pub left: Option<String>,
}

impl Audited {
    /// Posts that history has in the windows.
    pub fn asked(&self) -> u64 {
        self.windows.iter().map(|window| window.asked).sum()
    }

    /// Of them not on the tape.
    pub fn missed(&self) -> u64 {
        self.windows.iter().map(|window| window.missed.len() as u64).sum()
    }

    /// Windows of which history did not answer for all.
    pub fn unproven(&self) -> usize {
        self.windows.iter().filter(|window| !window.proven).count()
    }

    /// The largest share of misses that is not excluded, at [`CONFIDENCE`].
    pub fn bound(&self) -> f64 {
        upper_bound(self.missed(), self.asked(), CONFIDENCE)
    }
}

/// What happens, for whoever watches.
#[derive(Clone, Debug)]
pub enum AuditEvent {
    /// A page came, or something has to be waited for.
    Asking(Event),
    /// A window is done.
    Window(SourceName, AuditedWindow),
}

/// Draws the windows; asks nobody.
///
/// # Errors
/// When the tape cannot be read, or a source is not on it or of another provider.
pub fn plan_audit(options: &AuditOptions, disk: Arc<dyn Disk>, now: UnixMicros) -> Result<Vec<AuditPlan>, BackfillError> {
    options.fill.check_budgets()?;
    let tape = Tape::open(&options.fill.tape, disk)?;
    super::check_clock(&tape, now)?;
    let mut plans = Vec::new();
    for source in &options.fill.sources {
        super::check_provider(&tape, source)?;
        let selectors = Selectors::of(&tape, source.name.as_str(), source.settings.provider)?;
        if source.settings.provider == Provider::XLive {
            let left = "X has no history of what its live pipeline brings, so there is nothing to compare with".to_owned();
            let (source, windows, price) = (source.clone(), Vec::new(), Price::default());
            plans.push(AuditPlan { source, windows, price, left: Some(left), selectors });
            continue;
        }
        let field = field(&tape, source.name.as_str(), options, now)?;
        let length = i64::try_from(options.window.as_micros()).unwrap_or(i64::MAX);
        let windows = field.draw(length, options.sample, options.seed);
        let left = windows.is_empty().then(|| {
            let words = humantime::format_duration(options.window);
            format!("no stretch of {words} is covered live, old enough for history, and not audited yet")
        });
        let mut price = Price::default();
        for window in &windows {
            let of = planned(&tape, source, &selectors, *window)?.price;
            price.requests += of.requests;
            price.micro_usd += of.micro_usd;
            price.micro_usd_per_thousand = of.micro_usd_per_thousand;
        }
        plans.push(AuditPlan { source: source.clone(), windows, price, left, selectors });
    }
    Ok(plans)
}

/// What the windows of a plan cost by experience.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AuditEstimate {
    /// Requests.
    pub requests: u64,
    /// Millionths of a US dollar.
    pub micro_usd: u64,
    /// Windows of which the tape does not know all that selected: the provider's lists are read then, and what else stands
    /// there is searched for, which nobody can count before.
    pub n_unlisted: usize,
}

/// Estimates what the windows of a plan cost: as many rows come back as posts are on the tape there. No bound: a history
/// that is caught at something is asked again.
///
/// # Errors
/// When the tape cannot be read.
pub fn estimate_audit(options: &AuditOptions, plan: &AuditPlan, disk: Arc<dyn Disk>) -> Result<AuditEstimate, BackfillError> {
    let tape = Tape::open(&options.fill.tape, disk)?;
    let mut about = AuditEstimate::default();
    for window in &plan.windows {
        let (source, provider) = (&plan.source, plan.source.settings.provider);
        let rows = Held::of(&tape, source.name.as_str(), provider, window.from, window.to)?.len();
        let wanted = planned(&tape, source, &plan.selectors, *window)?.wanted;
        // One search is for all accounts there.
        let is_one_search = provider == Provider::Tweetstream;
        about.n_unlisted += usize::from(!wanted.is_listed && !is_one_search);
        let of = Walk::new(&source.settings, wanted, None).price_about(rows);
        about.requests += of.requests;
        about.micro_usd += of.micro_usd;
    }
    Ok(about)
}

/// What there is to draw from.
fn field(tape: &Tape, source: &str, options: &AuditOptions, now: UnixMicros) -> Result<Field, BackfillError> {
    let (from, to) = (options.span.0.unwrap_or(UnixMicros(i64::MIN)), options.span.1.unwrap_or(UnixMicros(i64::MAX)));
    let mut field = Field::default();
    for scope in tape.coverage(source)?.into_iter().filter(|scope| scope.scope == ALL) {
        let delay = options.index_delay + Duration::from_micros(scope.horizon_us.max(0) as u64);
        for (a, b) in scope.classes.within(from, to.min(now.minus(delay))).live.iter() {
            field.covered.insert(a, b);
        }
    }
    let catalog = tape.catalog();
    for gap in catalog.gaps(Some(source)).map_err(ArchiveError::from)? {
        field.seams.push(UnixMicros(gap.from_us));
        field.seams.extend(gap.to_us.map(UnixMicros));
    }
    for conn in catalog.connections(source).map_err(ArchiveError::from)? {
        field.seams.push(UnixMicros(conn.opened_us));
        field.seams.extend(conn.closed_us.map(UnixMicros));
    }
    for segment in catalog.segments(source).map_err(ArchiveError::from)? {
        for block in catalog.blocks(source, segment.first_n).map_err(ArchiveError::from)? {
            field.load.push((UnixMicros(block.first_us), UnixMicros(block.last_us), block.records));
        }
    }
    field.load.sort_unstable();
    Ok(field)
}

/// A window as the filler is told of it: as a gap without a number.
fn planned(tape: &Tape, source: &Source, selectors: &Selectors, window: Window) -> Result<Planned, BackfillError> {
    let scopes = tape.catalog().scopes(source.name.as_str()).map_err(ArchiveError::from)?;
    let margin = horizon_of(&scopes, ALL);
    let (selectors, is_listed) = selectors.within(tape, window.from, window.to)?;
    let wanted = Wanted { scope: ALL.to_owned(), from: window.from, to: window.to, margin, selectors, is_listed };
    let price = Walk::new(&source.settings, wanted.clone(), None).price();
    let gap = GapRow {
        source: source.name.to_string(),
        scope: ALL.to_owned(),
        from_us: window.from.0,
        to_us: Some(window.to.0),
        ..GapRow::default()
    };
    Ok(Planned { gap, source: source.clone(), wanted, cursor: None, price, begun_n: None, last_words: None })
}

/// Where in a window the tape does not promise all of some scope: it has a gap of its own there, or began or ended in the
/// window. A page does not say by which scope a post was selected, so nothing that is missing there is a miss.
fn gaps_of_scopes(tape: &Tape, source: &str, window: Window) -> Result<IntervalSet, BackfillError> {
    let Window { from, to } = window;
    let (mut promised, mut covered) = (BTreeMap::<String, IntervalSet>::new(), BTreeMap::<String, IntervalSet>::new());
    for scope in tape.coverage(source)?.into_iter().filter(|scope| scope.scope != ALL) {
        if scope.since < to && scope.until.is_none_or(|until| from < until) {
            promised.entry(scope.scope.clone()).or_default().insert(from, to);
        }
        covered.entry(scope.scope).or_default().add(&scope.classes.covered());
    }
    for gap in tape.catalog().gaps(Some(source)).map_err(ArchiveError::from)?.into_iter().filter(|gap| gap.scope != ALL) {
        let (a, b) = (UnixMicros(gap.from_us).max(from), gap.to_us.map_or(to, |end| UnixMicros(end).min(to)));
        if a < b {
            promised.entry(gap.scope).or_default().insert(a, b);
        }
    }
    let mut gaps = IntervalSet::new();
    for (scope, mut promised) in promised {
        covered.get(&scope).into_iter().for_each(|covered| promised.subtract(covered));
        gaps.add(&promised);
    }
    Ok(gaps)
}

/// Posts of a window as pages bring them.
#[derive(Debug, Default)]
pub(super) struct Tally {
    window: Option<Window>,
    /// Where scopes have gaps that the tape knows.
    gaps: IntervalSet,
    met: BTreeSet<u64>,
    missed: BTreeSet<u64>,
    in_gaps: BTreeSet<u64>,
    /// Posts that this audit brought first: pages reach a little beyond their windows.
    fresh: BTreeSet<u64>,
}

impl Tally {
    fn begin(&mut self, window: Window, gaps: IntervalSet) {
        let fresh = std::mem::take(&mut self.fresh);
        *self = Self { window: Some(window), gaps, fresh, ..Self::default() };
    }

    /// Counts a post of a page, which was or was not on the tape before.
    pub(super) fn count(&mut self, event: &crate::model::Event, was_held: bool) {
        let (EventKind::Tweet, crate::model::EventId::Tweet(id), Some(at), Some(window)) =
            (event.kind, &event.id, event.published_at, self.window)
        else {
            return;
        };
        if !was_held {
            self.fresh.insert(id.0);
        }
        let is_new = self.fresh.contains(&id.0);
        if !(window.from..window.to).contains(&at) {
            return;
        }
        if is_new && self.gaps.contains(at) {
            self.in_gaps.insert(id.0);
        } else if self.met.insert(id.0) && is_new {
            self.missed.insert(id.0);
        }
    }
}

/// Takes pages and keeps none: for an audit that only reports.
struct Nowhere;

impl Pen for Nowhere {
    fn write(&mut self, _: Leaf) -> Writing<'_> {
        Box::pin(async { Ok(()) })
    }

    fn lose(&mut self, _: Hole, _: UnixMicros) -> Writing<'_> {
        Box::pin(async { Ok(()) })
    }
}

/// Asks history for the drawn windows, one after the other, until all are done, the budget is used up, or `shutdown` is
/// ready. What is done stays.
///
/// # Errors
/// As [`plan_audit`]; when the tape cannot be written.
pub async fn audit(
    options: AuditOptions,
    clock: Arc<dyn Clock>,
    disk: Arc<dyn Disk>,
    tell: &mut (dyn FnMut(AuditEvent) + Send),
    shutdown: impl Future<Output = ()> + Send,
) -> Result<Vec<Audited>, BackfillError> {
    let plans = plan_audit(&options, Arc::clone(&disk), clock.wall())?;
    let (dir, fill) = (options.fill.tape.clone(), &options.fill);
    let hand = if options.report_only {
        None
    } else {
        let archive = Archive::open(&dir, Arc::clone(&disk), fill.archive.clone(), decode_record, &fill.holder, clock.wall())?;
        Some(Hand::of(archive))
    };
    let pen: Box<dyn Pen> = hand.clone().map_or_else(|| Box::new(Nowhere) as Box<dyn Pen>, |hand| Box::new(hand));
    let mut filler = Filler::alone(pen, fill, &clock, &disk)?;
    let mut shutdown = std::pin::pin!(shutdown);
    let mut found = Vec::new();
    for AuditPlan { source, windows, mut left, selectors, .. } in plans {
        let selectors = Arc::new(selectors);
        filler.keep_pace(&source, fill.pace);
        filler.tally = Tally::default();
        let (mut done, mut spent) = (Vec::new(), Spent::default());
        for window in &windows {
            let (tape_dir, tape_disk, of, window) = (dir.clone(), Arc::clone(&disk), source.clone(), *window);
            let selectors = Arc::clone(&selectors);
            let (plan, gaps) = off_the_runtime(move || {
                let tape = Tape::open(&tape_dir, tape_disk)?;
                let gaps = gaps_of_scopes(&tape, of.name.as_str(), window)?;
                Ok::<_, BackfillError>((planned(&tape, &of, &selectors, window)?, gaps))
            })
            .await?;
            filler.tally.begin(window, gaps.clone());
            let (asked, cost) = filler.audit(&plan, &mut |event| tell(AuditEvent::Asking(event)), shutdown.as_mut()).await?;
            spent += cost;
            let (state, detail, kinds) = match asked {
                Ok(concluded) => concluded,
                Err(why) => {
                    left = Some(why);
                    break;
                }
            };
            let mut whole = proven(window, &kinds);
            let mut asked = AuditedWindow {
                window,
                asked: filler.tally.met.len() as u64,
                missed: filler.tally.missed.iter().copied().collect(),
                in_gaps: filler.tally.in_gaps.len() as u64,
                proven: whole.len_us() == window.to.since(window.from),
                gap: None,
                detail,
            };
            // Where a scope has a gap, nothing is said of everything.
            whole.subtract(&gaps);
            if let Some(hand) = &hand {
                let note = Note { source: source.name.clone(), state, kinds, whole, at: clock.wall() };
                asked.gap = hand.with(note_of(note, asked.clone())).await?;
            }
            tell(AuditEvent::Window(source.name.clone(), asked.clone()));
            done.push(asked);
        }
        let unasked = windows.len() - done.len();
        found.push(Audited { source: source.name, windows: done, unasked, spent, left });
    }
    if let Some(hand) = hand {
        hand.close(clock.wall()).await?;
    }
    Ok(found)
}

/// What of a window history has answered for.
fn proven(window: Window, kinds: &[KindResult]) -> IntervalSet {
    let mut whole = IntervalSet::new();
    for posts in kinds.iter().filter(|kind| kind.kind == EventKind::Tweet.name()) {
        if posts.state != GapState::Unfillable.name() {
            whole.insert(window.from, window.to);
            posts.rest.iter().for_each(|rest| whole.remove(rest.from, rest.to));
        }
    }
    whole
}

/// What is to be written of a window.
struct Note {
    source: SourceName,
    state: GapState,
    kinds: Vec<KindResult>,
    whole: IntervalSet,
    at: UnixMicros,
}

type Noted = Result<Option<(String, GapState)>, ArchiveError>;

/// Writes into the ledger what a window came to: a gap where something was missed, settled by the answers that showed
/// it; and the audit itself.
fn note_of(note: Note, window: AuditedWindow) -> impl FnOnce(&mut Archive) -> Noted + Send + 'static {
    move |archive| {
        let Note { source, state, kinds, whole, at } = note;
        let AuditedWindow { window, asked, missed, .. } = window;
        let mut gap = None;
        if !missed.is_empty() {
            let named = missed.iter().take(NAMED).map(u64::to_string).collect::<Vec<_>>().join(", ");
            let more = if missed.len() > NAMED { ", …" } else { "" };
            let detail = format!("history has {} of {asked} posts that the stream never brought: {named}{more}", missed.len());
            let lost = Lost { scope: ALL, cause: Cause::ProviderDropped, detail: &detail };
            if let Some(n) = archive.suspect(&source, at, (window.from, window.to), lost)? {
                let detail = "settled by the answers that showed the loss";
                let filling = crate::archive::Filling { state, detail, cursor: None, kinds: &kinds, spent: Spent::default() };
                archive.fill(&source, at, n, filling)?;
                gap = Some((format!("{source}-{n}"), state));
            }
        }
        for (from, to) in whole.iter() {
            let missed = missed.len() as u64;
            archive.remark(&source, at, &Fact::Audit { scope: ALL.to_owned(), from, to, asked, missed })?;
        }
        archive.commit(at)?;
        Ok(gap)
    }
}
