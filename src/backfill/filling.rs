//! One gap from its plan to its verdict.

use std::future::Future;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde_json::json;
use tokio::time::{sleep, sleep_until, timeout};

use super::audit::Tally;
use super::known::Held;
use super::pace::{Paces, Rate};
use super::purse::{Purse, Reached, Ticket};
use super::{BackfillError, Event, Filled, Halt, Options, Planned, Source};
use crate::archive::{ArchiveError, Disk, KindResult, Leaf, Pen, PenError, Spent, Stretch, Tape};
use crate::model::{Body, ConnId, Decoded, Draft, GapState, Provider, RecordKind, Request, Response, Via};
use crate::net::{self, Clock, Limits, TELLING_HEADERS};
use crate::provider::history::{Known, Next, Price, Proof, Reading, Trouble, Verdict, Walk, limit_ends_at, pace_of, read_page};

/// Attempts at one page before the gap is left as it is.
const TRIES: u32 = 8;

/// First wait after an answer that was no page and did not say how long; it doubles from there.
const FIRST_WAIT: Duration = Duration::from_secs(1);

/// Longest wait in the middle of a gap; where a provider asks for more, the gap is left until then.
const LONGEST_WAIT: Duration = Duration::from_secs(15 * 60);

/// What was asked for is paid for: its answer is waited for that long when filling is to end.
const LAST_ANSWER: Duration = Duration::from_secs(2);

type Shutdown<'a> = Pin<&'a mut (dyn Future<Output = ()> + Send)>;

/// What all who fill gaps of one tape at one time share.
#[derive(Debug)]
pub(super) struct Shared {
    purse: Mutex<Purse>,
    pub(super) paces: Paces,
    /// Held during a request where a budget is shared.
    in_turn: tokio::sync::Mutex<()>,
}

impl Shared {
    pub(super) fn new(purse: Purse) -> Self {
        Self { purse: Mutex::new(purse), paces: Paces::default(), in_turn: tokio::sync::Mutex::default() }
    }

    fn purse(&self) -> MutexGuard<'_, Purse> {
        self.purse.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Fills gaps of one tape, one after the other.
pub(super) struct Filler {
    pub(super) pen: Box<dyn Pen>,
    pub(super) shared: Arc<Shared>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) rate: Rate,
    pub(super) dir: PathBuf,
    pub(super) disk: Arc<dyn Disk>,
    pub(super) limits: Limits,
    /// An answer, and what was spent, that go onto the tape with the next step.
    pub(super) page: Option<(Draft, Decoded)>,
    pub(super) unsaid: Spent,
    /// What is to be written while the next request is under way: an answer that cost nothing, with its step.
    late: Option<(Leaf, Event)>,
    /// Posts of the window that is audited.
    pub(super) tally: Tally,
}

/// Of one gap.
#[derive(Clone, Copy, Debug, Default)]
struct Sum {
    spent: Spent,
    new: u64,
}

/// How the asking for one gap ended.
enum Asked {
    Verdict(Verdict),
    /// Leave it in that state, for that reason.
    Leave(GapState, String, Halt),
    Shutdown,
}

/// What came of one request.
enum Came {
    /// And what was read of it.
    Answer(Response, Box<Reading>),
    Failure(String),
    /// Nothing, before the end.
    Nothing,
}

impl Filler {
    /// One that has a run for itself.
    pub(super) fn alone(
        pen: Box<dyn Pen>,
        options: &Options,
        clock: &Arc<dyn Clock>,
        disk: &Arc<dyn Disk>,
    ) -> Result<Self, BackfillError> {
        let purse = Purse::of(&Tape::open(&options.tape, Arc::clone(disk))?, options.budgets, clock.wall())?;
        let place = (options.tape.clone(), Arc::clone(disk));
        Ok(Self::sharing(Arc::new(Shared::new(purse)), pen, place, clock))
    }

    /// One of several that share a purse, for the tape in that directory.
    pub(super) fn sharing(
        shared: Arc<Shared>,
        pen: Box<dyn Pen>,
        (dir, disk): (PathBuf, Arc<dyn Disk>),
        clock: &Arc<dyn Clock>,
    ) -> Self {
        Self {
            pen,
            shared,
            clock: Arc::clone(clock),
            rate: Rate::exactly(Duration::ZERO),
            dir,
            disk,
            limits: Limits::default(),
            page: None,
            unsaid: Spent::default(),
            late: None,
            tally: Tally::default(),
        }
    }

    /// Asks a source as often as its provider likes, or at the pace that was given.
    pub(super) fn keep_pace(&mut self, source: &Source, pace: Option<Duration>) {
        self.rate = pace.map_or_else(|| Rate::below(pace_of(&source.settings)), Rate::exactly);
    }

    /// Asks for a window that is no gap; what is proven of it, or why nothing is, and what was spent.
    pub(super) async fn audit(
        &mut self,
        planned: &Planned,
        tell: &mut (dyn FnMut(Event) + Send),
        shutdown: Shutdown<'_>,
    ) -> Result<(Result<Concluded, String>, Spent), BackfillError> {
        let mut walk = Walk::new(&planned.source.settings, planned.wanted.clone(), None);
        let mut held = self.held(planned).await?;
        let mut sum = Sum::default();
        let asked = self.ask(planned, planned.source.name.as_str(), &mut walk, &mut held, &mut sum, tell, shutdown).await?;
        self.catch_up(tell).await?;
        let concluded = match asked {
            Asked::Verdict(verdict) => Ok(conclude(&verdict)),
            Asked::Leave(_, why, _) => Err(why),
            Asked::Shutdown => Err("it was stopped".to_owned()),
        };
        Ok((concluded, sum.spent))
    }

    /// Fills one gap as far as it goes; `None` when `shutdown` came, and then the next run goes on from here.
    pub(super) async fn fill(
        &mut self,
        planned: Planned,
        tell: &mut (dyn FnMut(Event) + Send),
        mut shutdown: Shutdown<'_>,
    ) -> Result<Option<Filled>, BackfillError> {
        let gap = format!("{}-{}", planned.gap.source, planned.gap.n);
        let mut walk = Walk::new(&planned.source.settings, planned.wanted.clone(), planned.cursor.as_deref());
        if planned.source.look_twice {
            walk.doubt();
        }
        let mut sum = Sum::default();
        let reached = self.shared.purse().reached(&planned.source.name, least_of_next(&walk.price()), self.clock.wall());
        let asked = match reached {
            Some(reached) => leave_for_budget(reached),
            None => {
                let cursor = planned.cursor.clone();
                self.step(&planned, GapState::Planned, &words_of(&planned.price), cursor, Vec::new()).await?;
                tell(Event::Began { gap: gap.clone(), price: planned.price });
                let mut held = self.held(&planned).await?;
                let mut asked = self.ask(&planned, &gap, &mut walk, &mut held, &mut sum, tell, shutdown.as_mut()).await?;
                self.catch_up(tell).await?;
                if let Asked::Verdict(verdict) = &mut asked {
                    held.amend(verdict);
                }
                asked
            }
        };
        let (state, detail, kinds, halt) = match asked {
            Asked::Verdict(verdict) => {
                let (state, detail, kinds) = conclude(&verdict);
                (state, detail, kinds, None)
            }
            Asked::Leave(state, why, halt) => (state, why, Vec::new(), Some(halt)),
            Asked::Shutdown => return Ok(None),
        };
        // Being told the same again is no news for the ledger.
        if planned.last_words.as_ref() != Some(&detail) || sum.spent != Spent::default() {
            let cursor = state.is_open().then(|| walk.cursor()).filter(|_| state != GapState::Partial);
            self.step(&planned, state, &detail, cursor, kinds).await?;
        }
        let Sum { spent: Spent { requests, rows, micro_usd }, new } = sum;
        Ok(Some(Filled { gap, state, detail, requests, rows, new, micro_usd, halt }))
    }

    /// The index of the tape, around the window.
    async fn held(&self, planned: &Planned) -> Result<Held, BackfillError> {
        let around = planned.wanted.margin * 2 + Duration::from_secs(60);
        let (from, to) = (planned.wanted.from.minus(around), planned.wanted.to.plus(around));
        let (dir, disk, source) = (self.dir.clone(), Arc::clone(&self.disk), planned.source.clone());
        let (begun_n, is_gap) = (planned.begun_n, planned.number().is_some());
        let (inside, edge) = ((planned.wanted.from, planned.wanted.to), planned.wanted.margin);
        // Of all accounts, at once: what came live by a rule that is off by now is nobody's to give.
        let is_of_accounts = source.settings.provider == Provider::Tweetstream;
        let reaches = planned.wanted.scope == "*" && is_of_accounts;
        let read = move || {
            let (tape, provider) = (Tape::open(&dir, disk)?, source.settings.provider);
            let mut held = Held::of(&tape, source.name.as_str(), provider, from, to)?;
            held.hear(&tape, source.name.as_str(), from, to)?;
            if is_gap {
                held.look_for_bare(&tape, source.name.as_str(), inside.0, inside.1)?;
            }
            if is_gap && reaches {
                held.expect(inside.0, inside.1, edge);
            }
            begun_n.map_or(Ok(()), |n| held.recall(&tape, source.name.as_str(), provider, n))?;
            Ok::<_, ArchiveError>(held)
        };
        Ok(off_the_runtime(read).await?)
    }

    /// Asks until there is a verdict, or a reason to leave. The last answer may be left to [`catch_up`](Self::catch_up).
    #[allow(clippy::too_many_arguments, reason = "a struct of the same fields would only repeat them")]
    async fn ask(
        &mut self,
        planned: &Planned,
        gap: &str,
        walk: &mut Walk,
        held: &mut Held,
        sum: &mut Sum,
        tell: &mut (dyn FnMut(Event) + Send),
        mut shutdown: Shutdown<'_>,
    ) -> Result<Asked, BackfillError> {
        let mut tries = 0;
        loop {
            let request = match walk.next() {
                Next::Done(verdict) => return Ok(Asked::Verdict(verdict)),
                Next::Ask(request) => request,
            };
            if self.wait_for_turn(planned, tell, shutdown.as_mut()).await? {
                return Ok(Asked::Shutdown);
            }
            let shared = Arc::clone(&self.shared);
            let is_shared = shared.purse().is_shared();
            let in_turn = if is_shared { Some(shared.in_turn.lock().await) } else { None };
            let least = least_of_next(&walk.price());
            let taken = shared.purse().take(&planned.source.name, least, self.clock.wall());
            let ticket = match taken {
                Ok(ticket) => ticket,
                Err(reached) => return Ok(leave_for_budget(reached)),
            };
            let (came, is_last) = self.request(planned, &request, tell, shutdown.as_mut()).await?;
            let trouble = match came {
                Came::Answer(response, reading) => {
                    let decoded = walk.has_read(*reading);
                    let shown = walk.answered(&response, held);
                    let page = shown.as_ref().ok().cloned().unwrap_or_default();
                    self.spend(ticket, page.rows, page.micro_usd, sum);
                    self.hold(planned, &request, &response, decoded, held);
                    match shown {
                        Ok(page) => {
                            sum.new += page.new;
                            tries = 0;
                            let detail = format!("{} rows so far, {} of them new", sum.spent.rows, sum.new);
                            let leaf = self.leaf(planned, GapState::Filling, &detail, Some(walk.cursor()), Vec::new());
                            self.late = Some((leaf, Event::Page { gap: gap.to_owned(), rows: page.rows, new: page.new }));
                            // What is paid for is safe before another is bought.
                            if page.micro_usd > 0 {
                                self.catch_up(tell).await?;
                            }
                            None
                        }
                        Err(trouble) => Some(self.at_the_latest(trouble, &response)),
                    }
                }
                Came::Failure(why) => {
                    self.spend(ticket, 0, 0, sum);
                    Some(Trouble::Again { after: None, why })
                }
                Came::Nothing => {
                    self.spend(ticket, 0, 0, sum);
                    None
                }
            };
            drop(in_turn);
            if is_last {
                // What was spent is written down, whatever came of it.
                if self.unsaid != Spent::default() {
                    let (state, words) = match trouble {
                        Some(Trouble::Stop { why }) => (GapState::Open, why),
                        Some(Trouble::Again { why, .. }) => (GapState::Filling, why),
                        None => (GapState::Filling, "stopped before an answer came; it is asked for again".to_owned()),
                    };
                    self.step(planned, state, &words, Some(walk.cursor()), Vec::new()).await?;
                }
                return Ok(Asked::Shutdown);
            }
            if let Some(Trouble::Stop { why }) = trouble {
                return Ok(Asked::Leave(GapState::Open, why, Halt::Refused));
            }
            let Some(Trouble::Again { after, why }) = trouble else { continue };
            tries += 1;
            if tries >= TRIES {
                let why = format!("given up after {tries} attempts at one page: {why}");
                return Ok(Asked::Leave(GapState::Planned, why, Halt::Tries));
            }
            let lasts = after.unwrap_or(FIRST_WAIT * 2_u32.pow(tries - 1));
            if lasts > LONGEST_WAIT {
                let until = self.clock.wall().plus(lasts);
                let why = format!("the provider asks to wait until {until}: {why}");
                return Ok(Asked::Leave(GapState::Planned, why, Halt::Asked { until }));
            }
            let words = format!("asked again after {:.0} s: {why}", lasts.as_secs_f64().ceil());
            self.step(planned, GapState::Filling, &words, Some(walk.cursor()), Vec::new()).await?;
            tell(Event::Waits { gap: gap.to_owned(), lasts, why });
            self.shared.paces.hold(planned.source.settings.provider, net::now() + lasts);
            tokio::select! {
                () = sleep(lasts) => {}
                () = shutdown.as_mut() => return Ok(Asked::Shutdown),
            }
        }
    }

    /// Makes a request, while what came before is made durable. Whether `shutdown` came meanwhile, which must then not be
    /// asked again.
    async fn request(
        &mut self,
        planned: &Planned,
        request: &Request,
        tell: &mut (dyn FnMut(Event) + Send),
        shutdown: Shutdown<'_>,
    ) -> Result<(Came, bool), BackfillError> {
        let Self { pen, limits, late, .. } = self;
        let writing = write_late(&mut **pen, late, tell);
        let provider = planned.source.settings.provider;
        let asking = async {
            match net::request(&*planned.source.network, request, limits).await {
                Ok(response) => {
                    // Once, for the tape and for the walk.
                    let reading = read_page(provider, &response.body);
                    Came::Answer(response, Box::new(reading))
                }
                Err((_, detail)) => Came::Failure(detail),
            }
        };
        let asking = async {
            let mut asking = std::pin::pin!(asking);
            tokio::select! {
                came = &mut asking => (came, false),
                () = shutdown => (timeout(LAST_ANSWER, asking).await.unwrap_or(Came::Nothing), true),
            }
        };
        let (written, came) = tokio::join!(writing, asking);
        written?;
        Ok(came)
    }

    /// A limit that is told as an instant lasts until then, whatever else was said.
    fn at_the_latest(&self, trouble: Trouble, response: &Response) -> Trouble {
        let ends_at = limit_ends_at(response).filter(|_| response.status == 429);
        let left = ends_at.and_then(|at| u64::try_from(at.since(self.clock.wall())).ok()).map(Duration::from_micros);
        match trouble {
            Trouble::Again { after, why } => Trouble::Again { after: after.max(left), why },
            stop @ Trouble::Stop { .. } => stop,
        }
    }

    fn spend(&mut self, ticket: Ticket, rows: u64, micro_usd: u64, sum: &mut Sum) {
        self.shared.purse().settle(ticket, rows, micro_usd, self.clock.wall());
        for spent in [&mut sum.spent, &mut self.unsaid] {
            spent.requests += 1;
            spent.rows += rows;
            spent.micro_usd += micro_usd;
        }
    }

    /// Keeps the provider's pace. Whether `shutdown` came first.
    async fn wait_for_turn(
        &mut self,
        planned: &Planned,
        tell: &mut (dyn FnMut(Event) + Send),
        mut shutdown: Shutdown<'_>,
    ) -> Result<bool, BackfillError> {
        let provider = planned.source.settings.provider;
        let mut turn = self.shared.paces.turn(provider, self.rate, net::now());
        if turn > net::now() {
            self.catch_up(tell).await?;
        }
        loop {
            // A timer goes off at the next millisecond, even one whose time has come.
            let wait = async {
                if turn > net::now() {
                    sleep_until(turn).await;
                }
            };
            tokio::select! {
                biased;
                () = shutdown.as_mut() => return Ok(true),
                () = wait => {}
            }
            // Another source may have been asked for a pause meanwhile.
            match self.shared.paces.held_until(provider) {
                Some(held) if held > turn => turn = held,
                _ => return Ok(false),
            }
        }
    }

    /// Holds an answer ready for the step that follows: they are written together.
    fn hold(&mut self, planned: &Planned, request: &Request, response: &Response, decoded: Decoded, held: &mut Held) {
        for event in &decoded.events {
            self.tally.count(event, held.holds(event.kind, &event.id));
            held.note(event.kind, &event.id);
        }
        let headers = response.headers.iter().filter(|(name, _)| TELLING_HEADERS.contains(&name.as_str()));
        let headers: serde_json::Map<_, _> = headers.map(|(name, value)| (name.clone(), value.clone().into())).collect();
        let mut info = json!({
            "method": request.method, "url": request.shown, "status": response.status, "headers": headers,
        });
        match planned.number() {
            Some(gap) => info["gap"] = gap.into(),
            None => info["audit"] = true.into(),
        }
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
        self.page = Some((draft, decoded));
    }

    /// A step of the gap in the ledger, durable together with the answer it follows from.
    async fn step(
        &mut self,
        planned: &Planned,
        state: GapState,
        detail: &str,
        cursor: Option<String>,
        kinds: Vec<KindResult>,
    ) -> Result<(), BackfillError> {
        debug_assert!(self.late.is_none(), "steps stand in their order");
        let leaf = self.leaf(planned, state, detail, cursor, kinds);
        Ok(self.pen.write(leaf).await?)
    }

    /// Makes durable what was left to be written beside the next request, and tells of it.
    async fn catch_up(&mut self, tell: &mut (dyn FnMut(Event) + Send)) -> Result<(), BackfillError> {
        Ok(write_late(&mut *self.pen, &mut self.late, tell).await?)
    }

    fn leaf(&mut self, planned: &Planned, state: GapState, detail: &str, cursor: Option<String>, kinds: Vec<KindResult>) -> Leaf {
        Leaf {
            source: planned.source.name.clone(),
            gap: planned.number(),
            at: self.clock.wall(),
            page: self.page.take(),
            state,
            detail: detail.to_owned(),
            cursor,
            kinds,
            spent: std::mem::take(&mut self.unsaid),
        }
    }
}

async fn write_late(
    pen: &mut dyn Pen,
    late: &mut Option<(Leaf, Event)>,
    tell: &mut (dyn FnMut(Event) + Send),
) -> Result<(), PenError> {
    if let Some((leaf, event)) = late.take() {
        pen.write(leaf).await?;
        tell(event);
    }
    Ok(())
}

/// Runs what reads the disk where it holds nobody up.
pub(super) async fn off_the_runtime<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(cancelled) => panic!("the runtime ends in the middle of work: {cancelled}"),
        },
    }
}

/// What the next page costs at least: what is free comes first in every walk, and no page that costs is cheaper than a row.
fn least_of_next(price: &Price) -> u64 {
    let per_row = price.micro_usd_per_thousand / 1_000;
    let n_paid = price.micro_usd.checked_div(per_row).unwrap_or(0);
    if price.requests > n_paid { 0 } else { per_row }
}

fn leave_for_budget(reached: Reached) -> Asked {
    let Reached { words, until, in_all } = reached;
    Asked::Leave(GapState::Planned, words, Halt::Budget { until, in_all })
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

/// A state, the evidence in words, and what is proven of each kind.
pub(super) type Concluded = (GapState, String, Vec<KindResult>);

/// The state that follows from what is proven of each kind.
fn conclude(verdict: &Verdict) -> Concluded {
    let (mut words, mut kinds) = (Vec::new(), Vec::new());
    for (kind, proof) in &verdict.kinds {
        let name = kind.name();
        let (state, why, rest) = match proof {
            Proof::Filled => (GapState::Filled, "", &[][..]),
            Proof::Partial { rest, why } => (GapState::Partial, why.as_str(), &rest[..]),
            Proof::Unfillable { why } => (GapState::Unfillable, why.as_str(), &[][..]),
        };
        words.push(if why.is_empty() {
            format!("{name}: {}", state.name())
        } else {
            format!("{name}: {} ({why})", state.name())
        });
        kinds.push(KindResult {
            kind: name.to_owned(),
            state: state.name().to_owned(),
            why: why.to_owned(),
            rest: rest.iter().map(|(from, to)| Stretch { from: *from, to: *to }).collect(),
        });
    }
    let has = |state: GapState| kinds.iter().any(|kind| kind.state == state.name());
    let state = match (has(GapState::Partial), has(GapState::Filled)) {
        (true, _) => GapState::Partial,
        (false, true) => GapState::Filled,
        (false, false) => GapState::Unfillable,
    };
    (state, format!("{}; {}", verdict.evidence, words.join(", ")), kinds)
}
