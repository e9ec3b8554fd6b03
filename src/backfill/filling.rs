//! One gap from its plan to its verdict.

use std::future::Future;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use tokio::time::{Instant, sleep, sleep_until};

use super::known::Held;
use super::{BackfillError, Budget, Event, Filled, Options, Planned};
use crate::archive::{Archive, ArchiveError, Disk, Filling, Stretch, Tape};
use crate::model::{
    Body, ConnId, Decoded, Draft, GapState, IntervalSet, RecordKind, Request, Response, SourceName, UnixMicros, Via,
};
use crate::net::{self, Clock, Limits, TELLING_HEADERS};
use crate::provider::history::{Next, Page, Price, Proof, Trouble, Verdict, Walk, decode_page, pace_of};

/// Attempts at one page before the gap is left as it is.
const TRIES: u32 = 8;

/// First wait after an answer that was no page and did not say how long; it doubles from there.
const FIRST_WAIT: Duration = Duration::from_secs(1);

/// Longest wait between two attempts, whatever a provider asks for.
const LONGEST_WAIT: Duration = Duration::from_secs(15 * 60);

type Shutdown<'a> = Pin<&'a mut (dyn Future<Output = ()> + Send)>;

/// Fills gaps of one tape.
pub(super) struct Filler {
    archive: Archive,
    clock: Arc<dyn Clock>,
    limits: Limits,
    budget: Budget,
    pace: Option<Duration>,
    dir: PathBuf,
    disk: Arc<dyn Disk>,
    spent: Spent,
    /// Sources whose provider will not answer this key any more, and why.
    given_up: Vec<(SourceName, String)>,
    last_request: Option<Instant>,
    is_stopped: bool,
}

#[derive(Clone, Copy, Debug, Default)]
struct Spent {
    requests: u64,
    rows: u64,
    new: u64,
    micro_usd: u64,
}

impl Spent {
    fn add(&mut self, page: &Page) {
        self.rows += page.rows;
        self.new += page.new;
        self.micro_usd += page.micro_usd;
    }

    /// What of the budget is used up, in words.
    fn over(&self, budget: &Budget) -> Option<String> {
        let is_over = |spent: u64, bound: Option<u64>| bound.filter(|bound| spent >= *bound);
        is_over(self.requests, budget.requests)
            .map(|bound| format!("{bound} requests"))
            .or_else(|| is_over(self.rows, budget.rows).map(|bound| format!("{bound} rows")))
            .or_else(|| is_over(self.micro_usd, budget.micro_usd).map(|bound| format!("{:.4} USD", bound as f64 / 1e6)))
    }
}

/// How the asking for one gap ended.
enum Asked {
    Verdict(Verdict),
    /// Leave it in that state, for that reason.
    Leave(GapState, String),
    Shutdown,
}

impl Filler {
    /// Of an archive that is open for writing, in `dir`.
    pub(super) fn new(archive: Archive, (dir, disk): (PathBuf, Arc<dyn Disk>), clock: Arc<dyn Clock>, options: &Options) -> Self {
        Self {
            archive,
            clock,
            limits: Limits::default(),
            budget: options.budget,
            pace: options.pace,
            dir,
            disk,
            spent: Spent::default(),
            given_up: Vec::new(),
            last_request: None,
            is_stopped: false,
        }
    }

    /// Whether the budget is used up.
    pub(super) fn is_stopped(&self) -> bool {
        self.is_stopped
    }

    pub(super) fn still_open<'a>(&self, sources: impl Iterator<Item = &'a SourceName>) -> u64 {
        sources.map(|source| self.archive.open_gaps(source).len() as u64).sum()
    }

    pub(super) fn close(self) -> Result<(), ArchiveError> {
        self.archive.close(self.clock.wall()).map(drop)
    }

    /// Fills one gap as far as it goes; `None` when `shutdown` came, and then the next run goes on from here.
    pub(super) async fn fill(
        &mut self,
        planned: Planned,
        tell: &mut (dyn FnMut(Event) + Send),
        mut shutdown: Shutdown<'_>,
    ) -> Result<Option<Filled>, BackfillError> {
        let gap = format!("{}-{}", planned.gap.source, planned.gap.n);
        let source = planned.source.name.clone();
        if let Some((_, why)) = self.given_up.iter().find(|(name, _)| *name == source) {
            let (state, detail) = (GapState::Open, why.clone());
            return Ok(Some(Filled { gap, state, detail, requests: 0, rows: 0, new: 0, micro_usd: 0 }));
        }
        let before = self.spent;
        let mut walk = Walk::new(&planned.source.settings, planned.wanted.clone(), planned.cursor.as_deref());
        // A row that a provider leaves out once leaves no other trace, and filled means proven.
        walk.doubt();
        let cursor = planned.cursor.clone();
        self.step(&planned, GapState::Planned, &words_of(&planned.price), cursor.as_deref(), &[])?;
        tell(Event::Began { gap: gap.clone(), price: planned.price });
        let mut held = self.held(&planned)?;
        let asked = self.ask(&planned, &gap, &mut walk, &mut held, tell, shutdown.as_mut()).await?;
        let (state, detail, filled) = match asked {
            Asked::Verdict(verdict) => conclude(&planned, &verdict),
            Asked::Leave(state, why) => (state, why, Vec::new()),
            Asked::Shutdown => return Ok(None),
        };
        let cursor = matches!(state, GapState::Planned | GapState::Filling).then(|| walk.cursor());
        self.step(&planned, state, &detail, cursor.as_deref(), &filled)?;
        let spent = |of: fn(&Spent) -> u64| of(&self.spent) - of(&before);
        Ok(Some(Filled {
            gap,
            state,
            detail,
            requests: spent(|s| s.requests),
            rows: spent(|s| s.rows),
            new: spent(|s| s.new),
            micro_usd: spent(|s| s.micro_usd),
        }))
    }

    /// The index of the tape, around the window.
    fn held(&self, planned: &Planned) -> Result<Held, BackfillError> {
        let around = planned.wanted.margin * 2 + Duration::from_secs(60);
        let (from, to) = (planned.wanted.from.minus(around), planned.wanted.to.plus(around));
        let tape = Tape::open(&self.dir, Arc::clone(&self.disk))?;
        Ok(Held::of(&tape, planned.source.name.as_str(), from, to)?)
    }

    async fn ask(
        &mut self,
        planned: &Planned,
        gap: &str,
        walk: &mut Walk,
        held: &mut Held,
        tell: &mut (dyn FnMut(Event) + Send),
        mut shutdown: Shutdown<'_>,
    ) -> Result<Asked, BackfillError> {
        let mut tries = 0;
        loop {
            let request = match walk.next() {
                Next::Done(verdict) => return Ok(Asked::Verdict(verdict)),
                Next::Ask(request) => request,
            };
            if let Some(used) = self.spent.over(&self.budget) {
                self.is_stopped = true;
                let why = format!("the budget of {used} is used up; the next run goes on from here");
                return Ok(Asked::Leave(GapState::Planned, why));
            }
            if self.wait_for_turn(planned, shutdown.as_mut()).await {
                return Ok(Asked::Shutdown);
            }
            self.spent.requests += 1;
            let answer = tokio::select! {
                answer = net::request(&*planned.source.network, &request, &self.limits) => answer,
                () = shutdown.as_mut() => return Ok(Asked::Shutdown),
            };
            let trouble = match answer {
                Ok(response) => {
                    let decoded = self.keep(planned, &request, &response)?;
                    match walk.answered(&response, held) {
                        Ok(page) => {
                            decoded.events.iter().for_each(|event| held.note(event.kind, &event.id));
                            self.spent.add(&page);
                            tries = 0;
                            let detail = format!("{} rows so far, {} of them new", self.spent.rows, self.spent.new);
                            self.step(planned, GapState::Filling, &detail, Some(&walk.cursor()), &[])?;
                            tell(Event::Page { gap: gap.to_owned(), rows: page.rows, new: page.new });
                            continue;
                        }
                        Err(trouble) => trouble,
                    }
                }
                Err((_, detail)) => Trouble::Again { after: None, why: detail },
            };
            let (after, why) = match trouble {
                Trouble::Again { after, why } => (after, why),
                Trouble::Stop { why } => {
                    self.given_up.push((planned.source.name.clone(), why.clone()));
                    return Ok(Asked::Leave(GapState::Open, why));
                }
            };
            tries += 1;
            if tries >= TRIES {
                let why = format!("given up after {tries} attempts at one page: {why}");
                return Ok(Asked::Leave(GapState::Planned, why));
            }
            let lasts = after.unwrap_or(FIRST_WAIT * 2_u32.pow(tries - 1)).min(LONGEST_WAIT);
            tell(Event::Waits { gap: gap.to_owned(), lasts, why });
            tokio::select! {
                () = sleep(lasts) => {}
                () = shutdown.as_mut() => return Ok(Asked::Shutdown),
            }
        }
    }

    /// Keeps the provider's pace. Whether `shutdown` came first.
    async fn wait_for_turn(&mut self, planned: &Planned, shutdown: Shutdown<'_>) -> bool {
        let pace = self.pace.unwrap_or_else(|| pace_of(&planned.source.settings));
        let now = net::now();
        let turn = self.last_request.map_or(now, |last| last + pace).max(now);
        self.last_request = Some(turn);
        tokio::select! {
            biased;
            () = shutdown => true,
            () = sleep_until(turn) => false,
        }
    }

    /// Puts an answer on the tape; it is durable with the step that follows.
    fn keep(&mut self, planned: &Planned, request: &Request, response: &Response) -> Result<Decoded, BackfillError> {
        let provider = planned.source.settings.provider;
        // Whatever the status: a rebuild has the bytes alone, and must come to the same.
        let decoded = decode_page(provider, &response.body);
        let headers = response.headers.iter().filter(|(name, _)| TELLING_HEADERS.contains(&name.as_str()));
        let headers: serde_json::Map<_, _> = headers.map(|(name, value)| (name.clone(), value.clone().into())).collect();
        let mut info = json!({
            "method": request.method, "url": request.shown, "status": response.status, "headers": headers, "gap": planned.gap.n,
        });
        if !request.body.is_empty() {
            info["request"] = request.body.clone().into();
        }
        let draft = Draft {
            received_at: self.clock.wall(),
            kind: RecordKind::Http,
            via: Via::History,
            conn: ConnId(0),
            info: Some(info.to_string()),
            body: Body::Bytes(response.body.clone()),
        };
        self.archive.append(&planned.source.name, &draft, Some(&decoded))?;
        Ok(decoded)
    }

    /// A step of the gap in the ledger, durable with everything before it.
    fn step(
        &mut self,
        planned: &Planned,
        state: GapState,
        detail: &str,
        cursor: Option<&str>,
        filled: &[Stretch],
    ) -> Result<(), BackfillError> {
        let at = self.clock.wall();
        self.archive.fill(&planned.source.name, at, planned.gap.n, Filling { state, detail, cursor, filled })?;
        self.archive.commit(at)?;
        Ok(())
    }
}

fn words_of(price: &Price) -> String {
    let usd = |micro: u64| format!("{:.4} USD", micro as f64 / 1e6);
    match (price.micro_usd, price.micro_usd_per_thousand) {
        (0, 0) => format!("at least {} requests", price.requests),
        (least, rows) => {
            format!("at least {} requests, {}, and {} for every thousand rows", price.requests, usd(least), usd(rows))
        }
    }
}

/// The state that follows from what is proven of each kind, in words, and the stretches that are whole.
fn conclude(planned: &Planned, verdict: &Verdict) -> (GapState, String, Vec<Stretch>) {
    let (from, to) = (planned.wanted.from, planned.wanted.to);
    let mut whole = IntervalSet::new();
    let (mut n_filled, mut n_partial) = (0_u32, 0_u32);
    let mut words = Vec::new();
    let mut missing: Vec<(UnixMicros, UnixMicros)> = Vec::new();
    for (kind, proof) in &verdict.kinds {
        let name = kind.name();
        words.push(match proof {
            Proof::Filled => {
                n_filled += 1;
                format!("{name}: filled")
            }
            Proof::Partial { rest, why } => {
                n_partial += 1;
                missing.extend(rest);
                format!("{name}: partial ({why})")
            }
            Proof::Unfillable { why } => format!("{name}: unfillable ({why})"),
        });
    }
    if n_filled + n_partial > 0 {
        whole.insert(from, to);
        missing.iter().for_each(|(from, to)| whole.remove(*from, *to));
    }
    let state = match (n_partial, n_filled) {
        (1.., _) => GapState::Partial,
        (0, 1..) => GapState::Filled,
        (0, 0) => GapState::Unfillable,
    };
    let filled = whole.iter().map(|(from, to)| Stretch { from, to }).collect();
    (state, format!("{}; {}", verdict.evidence, words.join(", ")), filled)
}
