//! The walk through TweetStream's history: backwards page by page, for posts, profiles and follows.
//!
//! Owns what is asked and when a stretch counts as whole; `page.rs` reads the answers.
//!
//! | documented | what the walk makes of it |
//! | --- | --- |
//! | newest first, at most 1000 rows, no cursor | a full page is followed by one that ends just above its oldest row |
//! | `startDate`, `endDate` | asked for one millisecond wider: whether bounds are inside is not said |
//! | rows have `time` and `receivedTime` | the next end lies above both, until pages show which one counts |
//! | only accounts that are tracked now | `/api/me` first; known accounts that are not on it leave everything unproven |
//!
//! A page is not believed: the row that set its end must be on it, most of its rows must lie within its bounds (all of
//! them, where it was given for another question before), and a short page is the last one only when it reaches events
//! that are known from the stream. Where there are none, a second look must bring nothing. Once a page was caught lying,
//! or when told to [`doubt`](Walk::doubt), the whole family is walked again until a pass brings nothing new. A history
//! that leaves the same row out each time cannot be told from the truth.
//! Source: tweetstream.io docs, "History API"; the SDKs' types 1.1.

use std::collections::{BTreeSet, HashSet, VecDeque};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64;

use super::LATENESS_HORIZON;
use super::lists;
use super::page::{self, Row};
use super::watchlist::normalized;
use crate::model::{Event, EventId, EventKind, IntervalSet, Response, UnixMicros};
use crate::provider::history::{Known, LastRead, Next, Page, Price, Proof, Selector, Trouble, Verdict, Wanted};
use crate::provider::sweep::merged;
use crate::provider::twins::{Odd, face};
use crate::provider::{Settings, percent_encode};

/// Most rows of a page. Documented: the same page.
pub(crate) const PAGE_MAX: usize = 1_000;

/// Version of the cursor.
const VERSION: u8 = 1;

/// Passes over one family at most: the first, and those after a page was caught lying. Ours.
const PASSES_MAX: u8 = 4;

/// Second looks at most, one for each page that turned out not to be the last. Ours.
const LOOKS_MAX: u8 = 20;

/// Fewer rows than this are no provider's page size. Ours.
const CAP_MIN: usize = 10;

/// A page that lacks no more rows than this may be a full one of which some were left out. Ours.
const SLACK: usize = 10;

/// Times that a page without any use is asked for again. Ours.
const TRIES_MAX: u8 = 3;

/// Questions of which it is remembered what was given for them. Ours.
const GIVEN_KEPT: usize = 16;

/// Bounds may be rounded to whole seconds. Ours.
const ROUNDING_MS: i64 = 1_000;

/// Handles of one request at most, so that the address stays short. Ours.
const HANDLES_MAX: usize = 100;

/// A margin beyond this is no overlap. Ours.
const MARGIN_MAX: Duration = Duration::from_secs(366 * 86_400);

/// Wait after 429 without `Retry-After`. Ours: no rate is documented.
const LIMITED_WAIT: Duration = Duration::from_secs(60);

/// What can be asked for, in this order. Documented: one a request.
const FAMILIES: [(EventKind, &str); 3] =
    [(EventKind::Tweet, "TWEET"), (EventKind::Profile, "PROFILE"), (EventKind::Follow, "FOLLOW")];

/// What no history has. Documented for deletions and pins; the docs list neither unfollows nor call-outs.
const LIVE_ONLY: [(EventKind, &str); 6] = [
    (EventKind::Update, "the history may have updates put into a post, but not as they came"),
    (EventKind::Delete, "deletions are sent live only"),
    (EventKind::Pin, "pins are sent live only"),
    (EventKind::Unpin, "unpins are sent live only"),
    (EventKind::Unfollow, "the history lists no unfollows"),
    (EventKind::Callout, "the history lists no call-outs"),
];

/// A walk.
#[derive(Debug)]
pub struct Walk {
    settings: Settings,
    wanted: Wanted,
    state: State,
    /// Rows of earlier pages, by hash; after a resumption the tape knows them.
    seen: HashSet<u64>,
    pub(crate) last_read: LastRead<Option<page::Page>>,
}

/// All that must outlive the process.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct State {
    version: u8,
    scope: String,
    /// Wanted, in microseconds.
    from: i64,
    to: i64,
    margin_ms: i64,
    /// Tracked accounts; `None` before `/api/me` was asked.
    watchlist: Option<Vec<String>>,
    /// One for each of [`FAMILIES`].
    courses: Vec<Course>,
    /// Whether every family is walked twice, whatever it met.
    #[serde(default)]
    doubt: bool,
    /// The accounts were read by a run before the last one, so they are looked at again in the end; and were.
    #[serde(default)]
    was_resumed: bool,
    #[serde(default)]
    is_checked: bool,
    n_requests: u64,
    n_rows: u64,
}

/// The walk over one family.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Course {
    is_done: bool,
    /// To be asked; the last one first.
    windows: Vec<Window>,
    pass: u8,
    /// Whether the windows are a second look.
    is_looking: bool,
    n_looks: u8,
    /// The last look, or pass, brought nothing new.
    is_quiet: bool,
    /// So many in a row did.
    #[serde(default)]
    n_quiet: u8,
    /// A page of this pass was caught lying.
    has_lied: bool,
    /// One of any pass was.
    #[serde(default)]
    was_caught: bool,
    /// Pages that were given for another question.
    #[serde(default)]
    odd: Odd<u64>,
    /// What was given for the last questions: the pages' faces, and from when to when was asked.
    #[serde(default)]
    given: VecDeque<(u64, i64, i64)>,
    /// Rows that were new in this pass or look.
    n_found: u64,
    /// Events known from the stream were seen before the stretch, and after it.
    is_low_edge_seen: bool,
    is_high_edge_seen: bool,
    /// So many rows are as many as the provider gives at once.
    cap: usize,
    /// Rows of the last page that was not full, and of the longest of those.
    n_last: usize,
    #[serde(default)]
    n_longest: usize,
    /// What pages have not yet disproved: bounds compare with the time of the event, of receipt.
    may_be_time: bool,
    may_be_received: bool,
    /// Milliseconds that rows were seen to span.
    oldest: Option<i64>,
    newest: Option<i64>,
    /// The rows at those ends, as a [`Window::seam`].
    #[serde(default)]
    oldest_row: Option<(u64, i64)>,
    #[serde(default)]
    newest_row: Option<(u64, i64)>,
    /// A row between them: its hash, and the earlier and the later of its times.
    #[serde(default)]
    middle_row: Option<(u64, i64, i64)>,
    /// The oldest one of this pass, and the newest.
    reached: Option<i64>,
    risen: Option<i64>,
    /// What could not be had, in microseconds.
    rest: Vec<(i64, i64)>,
    why: Vec<String>,
}

/// A stretch of milliseconds to be asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Window {
    start: i64,
    end: i64,
    /// Positions in the watchlist, the end not inside; `None` is everybody.
    handles: Option<(usize, usize)>,
    /// The row that set the end: its hash, and the earlier of its times. It must be there again.
    seam: Option<(u64, i64)>,
    /// It set the start.
    #[serde(default)]
    rises: bool,
    n_tries: u8,
    /// The page before was all but full.
    after_short: bool,
    /// The end, or the start, lies so much further out than it must: the row that set it did not come.
    #[serde(default)]
    widened_ms: i64,
}

/// A row with both its times in milliseconds.
struct Placed<'a> {
    row: &'a Row,
    event: &'a Event,
    hash: u64,
    time: i64,
    received: i64,
}

impl Placed<'_> {
    /// The end of the next page: above this row whichever of its times counts.
    fn late(&self) -> i64 {
        self.time.max(self.received)
    }

    fn early(&self) -> i64 {
        self.time.min(self.received)
    }
}

impl Walk {
    pub(crate) fn new(settings: &Settings, wanted: Wanted, cursor: Option<&str>) -> Self {
        let margin = wanted.margin.clamp(LATENESS_HORIZON, MARGIN_MAX);
        let margin_ms = i64::try_from(margin.as_millis()).unwrap_or(i64::MAX);
        let (from, to) = (wanted.from.0, wanted.to.0);
        let is_same = |state: &State| {
            state.version == VERSION
                && (&state.scope, state.from, state.to, state.margin_ms) == (&wanted.scope, from, to, margin_ms)
                && state.courses.len() == FAMILIES.len()
                && state.courses.iter().flat_map(|course| &course.windows).all(|window| state.has(window))
        };
        let state = cursor.and_then(|text| serde_json::from_str(text).ok()).filter(is_same);
        let mut state = state.unwrap_or_else(|| State::new(&wanted, margin_ms));
        state.was_resumed |= state.watchlist.is_some();
        Self { settings: settings.clone(), wanted, state, seen: HashSet::new(), last_read: LastRead::default() }
    }

    /// Whether the history was caught at something.
    pub(crate) fn is_caught(&self) -> bool {
        self.state.courses.iter().any(|course| course.was_caught || course.has_lied)
    }

    /// Every family is walked twice.
    pub(crate) fn doubt(&mut self) {
        self.state.doubt = true;
    }

    pub(crate) fn price(&self) -> Price {
        // One page of each family, and the watchlist.
        Price { requests: 1 + FAMILIES.len() as u64, ..Price::default() }
    }

    pub(crate) fn next(&mut self) -> Next {
        if self.wanted.from >= self.wanted.to {
            return Next::Done(self.verdict());
        }
        if self.state.watchlist.is_none() {
            return Next::Ask(lists::ask(&self.settings));
        }
        match self.current() {
            Some((at, window)) => Next::Ask(lists::get(&self.settings, &self.question(at, &window))),
            None if self.state.must_check() => Next::Ask(lists::get(&self.settings, "/api/me")),
            None => Next::Done(self.verdict()),
        }
    }

    pub(crate) fn answered(&mut self, response: &Response, known: &mut dyn Known) -> Result<Page, Trouble> {
        if self.state.watchlist.is_none() {
            return self.watchlist_answered(response);
        }
        let Some((at, window)) = self.current() else {
            return if self.state.must_check() { self.watchlist_answered(response) } else { Ok(Page::default()) };
        };
        // Inferred: the status for an account that is not tracked is that of a plan without history.
        if response.status == 403 && (window.handles.is_some() || self.scope_is_untracked()) {
            self.state.n_requests += 1;
            self.untracked(at, &window);
            return Ok(Page::default());
        }
        trouble(response)?;
        let again = "the answer is no page of history (cut off or changed)";
        let page = self.last_read.take(&response.body).unwrap_or_else(|| page::read(&response.body));
        let page = page.ok_or_else(|| Trouble::Again { after: None, why: again.to_owned() })?;
        self.state.n_requests += 1;
        self.state.n_rows += page.rows.len() as u64;
        Ok(self.page(at, &window, &page, known))
    }

    pub(crate) fn cursor(&self) -> String {
        // Numbers, texts and lists always have a JSON form.
        serde_json::to_string(&self.state).unwrap_or_default()
    }

    fn watchlist_answered(&mut self, response: &Response) -> Result<Page, Trouble> {
        trouble(response)?;
        let again = "the answer does not name the tracked accounts (cut off or changed)";
        let handles =
            page::read_watchlist(&response.body).ok_or_else(|| Trouble::Again { after: None, why: again.to_owned() })?;
        if self.state.watchlist.as_ref() == Some(&handles) {
            self.state.is_checked = true;
            return Ok(Page::default());
        }
        if self.state.watchlist.is_some() {
            // What was asked for was the history of other accounts.
            let State { margin_ms, doubt, .. } = self.state;
            self.state = State { doubt, ..State::new(&self.wanted, margin_ms) };
        }
        self.state.n_requests += 1;
        self.state.watchlist = Some(handles);
        let main = self.state.main();
        for course in &mut self.state.courses {
            course.windows.push(main.clone());
        }
        Ok(Page::default())
    }

    /// The family and the window that are next; settles families that have no window left.
    fn current(&mut self) -> Option<(usize, Window)> {
        let main = self.state.main();
        let stretch = (UnixMicros(self.state.from), UnixMicros(self.state.to));
        let doubt = self.state.doubt;
        for (at, course) in self.state.courses.iter_mut().enumerate() {
            while course.windows.is_empty() && !course.is_done {
                course.turn(&main, stretch, doubt);
            }
            if let Some(window) = course.windows.last() {
                return Some((at, window.clone()));
            }
        }
        None
    }

    fn question(&self, at: usize, window: &Window) -> String {
        let date = |ms: i64| percent_encode(&iso(ms));
        let mut question = format!(
            "/api/history?type={}&startDate={}&endDate={}&limit={PAGE_MAX}",
            FAMILIES[at].1,
            date(window.start),
            date(window.end)
        );
        let handles = match window.handles {
            Some((first, end)) => self.state.watchlist.as_deref().and_then(|all| all.get(first..end)).unwrap_or(&[]).join(","),
            None => self.scope_handle().unwrap_or_default(),
        };
        if !handles.is_empty() {
            question += &format!("&handles={}", percent_encode(&handles));
        }
        question
    }

    /// The one account that is wanted, if it is not everybody.
    fn scope_handle(&self) -> Option<String> {
        let is_all = matches!(self.wanted.scope.as_str(), "*" | lists::WATCHLIST);
        (!is_all).then(|| normalized(&self.wanted.scope)).filter(|handle| !handle.is_empty())
    }

    fn scope_is_untracked(&self) -> bool {
        let is_tracked = |handle: String| self.state.watchlist.as_ref().is_some_and(|all| all.binary_search(&handle).is_ok());
        self.scope_handle().is_some_and(|handle| !is_tracked(handle))
    }

    /// An account of a group is no longer tracked: the others are asked for without it.
    fn untracked(&mut self, at: usize, window: &Window) {
        let watchlist = self.state.watchlist.as_deref().unwrap_or(&[]);
        let course = &mut self.state.courses[at];
        course.windows.pop();
        match window.handles {
            Some((first, end)) if end - first > 1 => course.split(window, first, end),
            one => {
                let name = one.and_then(|(first, _)| watchlist.get(first)).map_or(self.wanted.scope.as_str(), String::as_str);
                course.give_up(window.start, window.end, format!("@{} is not tracked any more", normalized(name)));
            }
        }
    }

    fn page(&mut self, at: usize, window: &Window, page: &page::Page, known: &mut dyn Known) -> Page {
        let kind = FAMILIES[at].0;
        let (from, to) = (UnixMicros(self.state.from), UnixMicros(self.state.to));
        let course = &mut self.state.courses[at];
        let placed: Vec<_> = page.rows.iter().filter_map(|row| place(row, kind)).collect();
        let hashes: HashSet<u64> = placed.iter().map(|row| row.hash).collect();
        let is_believed = course.believes(window, page, &placed, &hashes);
        let mut told = Page { rows: page.rows.len() as u64, new: 0, micro_usd: 0 };
        for row in &placed {
            let is_inside = row.event.published_at.is_some_and(|at| from <= at && at < to);
            let is_own = !self.seen.insert(row.hash);
            let is_known = known.holds(row.event.kind, &row.event.id);
            let is_new = !is_own && !is_known;
            told.new += u64::from(is_inside && is_new);
            // Beyond the newest one seen so far, new rows are only what happened meanwhile.
            let is_late = course.newest.is_some_and(|newest| row.early() < newest);
            // Below the oldest one even a known row shows that a look is not quiet.
            let is_below = course.is_looking && course.oldest.is_none_or(|oldest| row.late() < oldest);
            course.n_found += u64::from((is_new && (is_inside || is_late)) || is_below);
            // Only the first pass can prove an edge by the stream: later its own rows are on the tape.
            if is_believed && is_known && !is_own && course.pass == 1 {
                let published_at = row.event.published_at.unwrap_or(UnixMicros::from_millis(row.time));
                course.is_low_edge_seen |= published_at < from && row.received < from.millis();
                course.is_high_edge_seen |= published_at >= to;
            }
        }
        course.windows.pop();
        if is_believed {
            let n_handles = self.state.watchlist.as_ref().map_or(0, Vec::len);
            let in_group = |handle: &str, group: (usize, usize)| {
                let group = self.state.watchlist.as_deref().and_then(|all| all.get(group.0..group.1));
                group.is_some_and(|group| group.iter().any(|tracked| tracked == handle))
            };
            let can_split = self.wanted.scope == "*";
            course.step(window, page, &placed, if can_split { n_handles } else { 0 }, in_group);
        } else {
            course.again(window);
        }
        told
    }

    fn verdict(&self) -> Verdict {
        let mut kinds = Vec::new();
        let whole = (self.wanted.from, self.wanted.to);
        for ((kind, _), course) in FAMILIES.into_iter().zip(&self.state.courses) {
            let proof = self.gone().map_or_else(|| course.proof(whole), |why| Proof::Partial { rest: vec![whole], why });
            kinds.push((kind, proof.clone()));
            if kind == EventKind::Tweet {
                // A row has what was found out about its post, if anything was.
                kinds.push((EventKind::Meta, proof));
            }
        }
        kinds.extend(LIVE_ONLY.map(|(kind, why)| (kind, Proof::Unfillable { why: why.to_owned() })));
        let told = FAMILIES.iter().zip(&self.state.courses).map(|((kind, _), course)| {
            let edges = match (course.is_low_edge_seen, course.is_high_edge_seen) {
                (true, true) => "met what is known at both ends",
                (false, false) => "met nothing known",
                _ => "met what is known at one end",
            };
            let look = if course.n_looks > 0 || course.pass > 1 { " and was looked at again" } else { "" };
            format!("{} {edges}{look}", kind.name())
        });
        let told = told.collect::<Vec<_>>().join(", ");
        let (n_rows, n_requests) = (self.state.n_rows, self.state.n_requests);
        Verdict { kinds, evidence: format!("{n_rows} rows in {n_requests} requests: {told}") }
    }

    /// Known accounts that the history does not speak of any more, as far as that leaves the stretch open.
    fn gone(&self) -> Option<String> {
        let watchlist = self.state.watchlist.as_ref()?;
        let names = |selector: &Selector| -> Vec<String> {
            match selector.id.as_str() {
                lists::WATCHLIST => selector.texts.iter().flat_map(|text| text.split(' ')).map(str::to_owned).collect(),
                handle => vec![normalized(handle)],
            }
        };
        let of = |only_listed: bool| -> Vec<String> {
            let selectors = self.wanted.selectors.iter().filter(|selector| !only_listed || selector.id == lists::WATCHLIST);
            let known: BTreeSet<_> = selectors.flat_map(names).collect();
            known.into_iter().filter(|name| !name.is_empty() && name != "*").collect()
        };
        let known = of(false);
        let is_gone = |handle: &&String| watchlist.binary_search(handle).is_err();
        if !known.is_empty() && known.iter().all(|handle| is_gone(&handle)) {
            let n = known.len();
            return Some(format!(
                "none of the {n} accounts on the tape is tracked with this API key: it belongs to another customer, or all of \
                 them were removed, and the history has only accounts that are tracked; set the key that was recorded with"
            ));
        }
        let gone: Vec<_> = match self.scope_handle() {
            Some(handle) => vec![handle],
            // Names in envelopes may be old ones; those of the provider's own lists, or of an hour around, are not.
            None if self.wanted.is_listed => known,
            None => of(true),
        };
        let gone: Vec<_> = gone.iter().filter(is_gone).collect();
        let first = gone.first()?;
        let more = if gone.len() > 1 { format!(" and {} more are", gone.len() - 1) } else { " is".to_owned() };
        Some(format!("@{first}{more} not tracked any more, and the history has only accounts that are: add them again"))
    }
}

impl State {
    /// Nothing was asked yet.
    fn new(wanted: &Wanted, margin_ms: i64) -> Self {
        Self {
            version: VERSION,
            scope: wanted.scope.clone(),
            from: wanted.from.0,
            to: wanted.to.0,
            margin_ms,
            watchlist: None,
            courses: vec![Course::new(); FAMILIES.len()],
            doubt: false,
            was_resumed: false,
            is_checked: false,
            n_requests: 0,
            n_rows: 0,
        }
    }

    fn must_check(&self) -> bool {
        self.was_resumed && !self.is_checked
    }

    /// The whole stretch with its margins, a millisecond wider because the bounds may be outside.
    fn main(&self) -> Window {
        let start = UnixMicros(self.from).millis().saturating_sub(self.margin_ms).saturating_sub(1);
        let end = UnixMicros(self.to).millis().saturating_add(self.margin_ms).saturating_add(2);
        Window { start, end, ..Window::default() }
    }

    /// Whether the handles of a window are there.
    fn has(&self, window: &Window) -> bool {
        let n = self.watchlist.as_ref().map_or(0, Vec::len);
        window.handles.is_none_or(|(first, end)| first < end && end <= n)
    }
}

impl Course {
    fn new() -> Self {
        Self { pass: 1, cap: PAGE_MAX, may_be_time: true, may_be_received: true, ..Self::default() }
    }

    /// Whether a page can be what was asked for; notes what it shows of the bounds.
    fn believes(&mut self, window: &Window, page: &page::Page, placed: &[Placed<'_>], hashes: &HashSet<u64>) -> bool {
        let n = page.rows.len();
        let inside = |at: i64| window.start - 1 <= at && at <= window.end + 1;
        let n_strange = n - placed.iter().filter(|row| inside(row.time) || inside(row.received)).count();
        // What is no row of ours, twice there or not counted alike, is worth a second pass, but the rest is used.
        self.has_lied |= n_strange > 0 && placed.len() < n;
        self.has_lied |= hashes.len() < placed.len() || page.count.is_some_and(|count| count != n as u64);
        // Rows that are counted and not there are nowhere.
        let is_void = n == 0 && page.count.is_some_and(|count| count > 0);
        let of_page = face(hashes.iter().copied());
        let is_repeated = self.repeats(of_page, window);
        let is_strange = n_strange * 2 > n || is_void || self.odd.has(&of_page) || n_strange > 0 && is_repeated;
        let is_seam_torn = window.seam.is_some_and(|(hash, at)| {
            let goes_below = n < self.cap || placed.iter().any(|row| row.late() < at);
            goes_below && !hashes.contains(&hash)
        });
        if is_strange || is_seam_torn {
            self.has_lied = true;
            if is_strange && window.n_tries >= TRIES_MAX && !hashes.is_empty() {
                self.odd.note(of_page);
            }
            // A row may really be gone since: then the seam never comes again.
            return !is_strange && window.n_tries > 0;
        }
        let fits = |of: fn(&Placed<'_>) -> i64| placed.iter().all(|row| inside(of(row)));
        let (time, received) = (fits(|row| row.time), fits(|row| row.received));
        if time || received {
            self.may_be_time &= time;
            self.may_be_received &= received;
        }
        true
    }

    /// Whether a page was given for another question before; remembers it for this one.
    fn repeats(&mut self, of_page: u64, window: &Window) -> bool {
        let is_repeated = self
            .given
            .iter()
            .any(|(face, start, end)| *face == of_page && (*start, *end) != (window.start, window.end) && of_page != 0);
        if !is_repeated {
            self.given.push_front((of_page, window.start, window.end));
            self.given.truncate(GIVEN_KEPT);
        }
        is_repeated
    }

    /// Asks for the same again, a few times.
    fn again(&mut self, window: &Window) {
        if window.n_tries < TRIES_MAX {
            // Bounds may be rounded to seconds.
            let more_ms = if window.seam.is_some() && window.widened_ms == 0 { ROUNDING_MS } else { 0 };
            let widened_ms = window.widened_ms + more_ms;
            let (start, end) =
                if window.rises { (window.start - more_ms, window.end) } else { (window.start, window.end + more_ms) };
            self.windows.push(Window { n_tries: window.n_tries + 1, start, end, widened_ms, ..window.clone() });
        } else {
            self.give_up(window.start, window.end, "the history gives other rows than it is asked for".to_owned());
        }
    }

    /// Goes on from a page that is believed.
    fn step(
        &mut self,
        window: &Window,
        page: &page::Page,
        placed: &[Placed<'_>],
        n_handles: usize,
        in_group: impl Fn(&str, (usize, usize)) -> bool,
    ) {
        // Strays bound nothing.
        let inside = |at: i64| window.start - 1 <= at && at <= window.end + 1;
        let placed: Vec<_> = placed.iter().filter(|row| inside(row.time) || inside(row.received)).collect();
        let ends = (placed.iter().min_by_key(|row| row.late()), placed.iter().max_by_key(|row| row.early()));
        if let (Some(first), Some(last)) = ends {
            let (oldest, newest) = (first.late(), last.early());
            if self.oldest.is_none_or(|known| oldest < known) {
                (self.oldest, self.oldest_row) = (Some(oldest), Some((first.hash, first.early())));
            }
            if self.newest.is_none_or(|known| known < newest) {
                (self.newest, self.newest_row) = (Some(newest), Some((last.hash, last.early())));
            }
            let center = self.oldest.unwrap_or(oldest).midpoint(self.newest.unwrap_or(newest));
            let rows = placed.iter().map(|row| (row.hash, row.early(), row.late())).chain(self.middle_row);
            self.middle_row = rows.min_by_key(|(_, _, late)| late.abs_diff(center));
            self.reached = Some(self.reached.map_or(oldest, |known| known.min(oldest)));
            self.risen = Some(self.risen.map_or(newest, |known| known.max(newest)));
        }
        let n = page.rows.len().max(page.count.and_then(|count| usize::try_from(count).ok()).unwrap_or(0));
        // If there is more below a page that lacks a row or two, then it was full and they are missing.
        let is_below = |at: i64| placed.iter().any(|row| row.late() < at);
        self.has_lied |= window.after_short && window.seam.is_some_and(|(_, at)| is_below(at));
        // As many rows as ever, all of the instant that a look begins with: so many may be all it ever gives.
        if self.is_looking && n >= CAP_MIN.max(self.n_longest) && placed.iter().all(|row| row.late() + 1 >= window.end) {
            self.cap = self.cap.min(n);
        }
        let slack = if self.cap == PAGE_MAX { SLACK } else { 0 };
        if n + slack < self.cap {
            (self.n_last, self.n_longest) = (n, self.n_longest.max(n));
            // A page with the one row there is, where nothing lies below it, may be the last one again: asked without that row,
            // first by the later of its times, then by the earlier one.
            let is_alone = self.oldest_row == self.newest_row && self.oldest.is_some_and(|oldest| window.end <= oldest + 1);
            if let Some((_, early)) = self.oldest_row.filter(|_| self.is_looking && is_alone) {
                let end = if window.seam.is_some() { window.end - 3 } else { early - 3 };
                if (window.start + 1..window.end).contains(&end) && !placed.is_empty() {
                    self.windows.push(Window { end, seam: None, n_tries: 0, ..window.clone() });
                }
            }
            return;
        }
        let by_time = self.may_be_time && !self.may_be_received && placed.is_sorted_by(|a, b| a.time >= b.time);
        let last = if by_time {
            placed.iter().min_by_key(|row| row.time).map(|row| (row.time, row))
        } else {
            placed.iter().min_by_key(|row| row.late()).map(|row| (row.late(), row))
        };
        let Some((last, row)) = last else { return self.again(window) };
        let widened_ms = if window.rises { 0 } else { window.widened_ms };
        if last + 1 < window.end - widened_ms {
            let seam = Some((row.hash, row.early()));
            let next = Window {
                end: last + 1,
                seam,
                n_tries: 0,
                after_short: n < self.cap,
                widened_ms: 0,
                rises: false,
                ..window.clone()
            };
            return self.windows.push(next);
        }
        if n < self.cap {
            (self.n_last, self.n_longest) = (n, self.n_longest.max(n));
            return;
        }
        // More rows than fit on a page at one instant: these by account, what lies below for all.
        let low = placed.iter().map(|row| row.early()).min().unwrap_or(last);
        // Rows a millisecond beyond the window count, too.
        let below = (low - 1).min(window.end - 1);
        if below > window.start {
            self.windows.push(Window { end: below, seam: None, n_tries: 0, ..window.clone() });
        }
        let narrow = Window { start: window.start.max(low - 2), seam: None, n_tries: 0, ..window.clone() };
        let (first, end) = window.handles.unwrap_or((0, n_handles));
        if end - first < 2 {
            let why = "there are more rows at one instant than a page holds, of one account";
            return self.give_up(narrow.start, narrow.end, why.to_owned());
        }
        let is_of_group = |row: &&Placed<'_>| row.row.handle.as_deref().is_some_and(|handle| in_group(handle, (first, end)));
        if !placed.iter().all(is_of_group) {
            let why = "there are more rows at one instant than a page holds, and some are of no tracked account";
            self.give_up(narrow.start, narrow.end, why.to_owned());
        }
        self.split(&narrow, first, end);
    }

    /// Asks by smaller groups of accounts.
    fn split(&mut self, window: &Window, first: usize, end: usize) {
        let n = end - first;
        let n_parts = n.div_ceil(HANDLES_MAX).max(2);
        for part in (0..n_parts).rev() {
            let handles = Some((first + n * part / n_parts, first + n * (part + 1) / n_parts));
            self.windows.push(Window { handles, seam: None, n_tries: 0, ..window.clone() });
        }
    }

    /// What lies within these milliseconds was not to be had.
    fn give_up(&mut self, start: i64, end: i64, why: String) {
        // Where the time of receipt may be what counts, what was published before can be missing, too.
        let late = if self.may_be_received { LATENESS_HORIZON } else { Duration::ZERO };
        let from = UnixMicros::from_millis(start).minus(late);
        self.rest.push((from.0, UnixMicros::from_millis(end.saturating_add(1)).0));
        if !self.why.contains(&why) {
            self.why.push(why);
        }
    }

    /// No window is left: done, or another look, or another pass.
    fn turn(&mut self, main: &Window, stretch: (UnixMicros, UnixMicros), doubt: bool) {
        // A pass that does not reach as far as another one, at either end, is some other page again.
        self.was_caught |= self.has_lied;
        let is_below = self.oldest.is_none_or(|oldest| self.reached.is_some_and(|reached| reached <= oldest));
        let is_short = !self.is_looking && self.pass > 1 && !(is_below && self.risen >= self.newest);
        let is_second = self.is_looking || self.pass > 1;
        self.is_looking = false;
        if is_second && (self.n_found > 0 || is_short) {
            (self.has_lied, self.n_quiet) = (true, 0);
            // A page that was taken for the last one was not: so many rows may be all it ever gives.
            if self.n_last >= CAP_MIN {
                self.cap = self.cap.min(self.n_last);
            }
        } else if is_second {
            self.n_quiet += 1;
            // So many rows may be all it ever gives, and then what lies below them hangs on one answer.
            let hangs = self.pass == 1 && !doubt && !self.is_low_edge_seen && self.n_longest >= CAP_MIN;
            self.is_quiet = self.n_quiet >= if hangs { 2 } else { 1 };
            // Lies that were caught in a second pass were asked again; what counts is that nothing new came.
            self.has_lied &= self.pass == 1;
        }
        let is_proven = self.is_quiet || (self.is_low_edge_seen && self.is_high_edge_seen);
        if self.pass == 1 && !is_proven && self.n_looks < LOOKS_MAX {
            self.look(main);
        } else if !self.has_lied && is_proven && !(doubt && self.pass == 1 && self.oldest.is_some()) {
            self.is_done = true;
        } else if self.pass < PASSES_MAX {
            self.pass += 1;
            (self.has_lied, self.is_quiet, self.n_found) = (false, false, 0);
            (self.reached, self.risen) = (None, None);
            self.begin_again(main);
            // What was given up is tried again, and by itself: this pass may end above it. Once, however many pieces it was in.
            self.why.clear();
            let rest = std::mem::take(&mut self.rest);
            for (from, to) in merged(rest.into_iter().map(|(from, to)| (UnixMicros(from), UnixMicros(to)))) {
                let (start, end) = (from.millis(), to.millis().saturating_add(1));
                self.windows.push(Window { start, end, ..Window::default() });
            }
        } else {
            self.rest.push((stretch.0.0, stretch.1.0));
            self.why.push("the history gives other rows each time it is asked".to_owned());
            self.is_done = true;
        }
    }

    /// Another pass: in two halves, since a page that was given before would fit the same question. Both must have the row between.
    fn begin_again(&mut self, main: &Window) {
        let is_between = |(_, early, late): &(_, i64, i64)| self.oldest < Some(early - 1) && Some(late + 1) < self.newest;
        match self.middle_row.filter(is_between) {
            Some((hash, early, late)) => {
                let seam = Some((hash, early));
                self.windows.push(Window { end: late + 1, seam, ..main.clone() });
                self.windows.push(Window { start: early - 1, seam, rises: true, ..main.clone() });
            }
            None => self.windows.push(main.clone()),
        }
    }

    /// A second look at the ends that met nothing known.
    fn look(&mut self, main: &Window) {
        (self.is_looking, self.n_looks, self.n_found) = (true, self.n_looks + 1, 0);
        match (self.oldest, self.newest) {
            (Some(oldest), Some(newest)) => {
                // The row at the end must be there again.
                if !self.is_low_edge_seen {
                    let end = oldest.saturating_add(1).min(main.end);
                    self.windows.push(Window { end, seam: self.oldest_row, ..main.clone() });
                }
                if !self.is_high_edge_seen && self.n_quiet == 0 {
                    let start = newest.saturating_sub(1).max(main.start);
                    self.windows.push(Window { start, seam: self.newest_row, rises: true, ..main.clone() });
                }
            }
            _ => self.windows.push(main.clone()),
        }
    }

    fn proof(&self, (from, to): (UnixMicros, UnixMicros)) -> Proof {
        let mut rest = IntervalSet::new();
        if !self.is_done && from < to {
            rest.insert(from, to);
        }
        for (start, end) in &self.rest {
            rest.insert(UnixMicros(*start).max(from), UnixMicros(*end).min(to));
        }
        let rest: Vec<_> = rest.iter().collect();
        if rest.is_empty() { Proof::Filled } else { Proof::Partial { rest, why: self.why.join("; ") } }
    }
}

/// Places a row of the family that was asked for; one without a time cannot be placed.
fn place(row: &Row, kind: EventKind) -> Option<Placed<'_>> {
    let event = row.event.as_ref().filter(|event| event.kind == kind)?;
    let time = row.time.or(event.published_at).or(row.received_time)?.millis();
    let received = row.received_time.map_or(time, UnixMicros::millis);
    Some(Placed { row, event, hash: hash(event), time, received })
}

fn hash(event: &Event) -> u64 {
    let id = match &event.id {
        EventId::Tweet(id) => id.to_string(),
        EventId::Text(text) => text.clone(),
    };
    xxh3_64(format!("{}/{id}", event.kind.name()).as_bytes())
}

/// Milliseconds, as the SDK's fixture has them.
fn iso(ms: i64) -> String {
    let text = UnixMicros::from_millis(ms).to_string();
    format!("{}Z", &text[..23])
}

/// Whether an answer is a page, and if not, what to do.
///
/// Inferred: the docs list no statuses; 400, 401, 403 and 429 are what the SDKs know of.
fn trouble(response: &Response) -> Result<(), Trouble> {
    let stop = |why: &str| Err(Trouble::Stop { why: why.to_owned() });
    let again = |after, why: &str| Err(Trouble::Again { after, why: format!("{why} (HTTP {})", response.status) });
    match response.status {
        200..=299 => Ok(()),
        401 => stop("tweetstream.io does not accept the API key: check the key of this source"),
        402 => stop("tweetstream.io wants to be paid: look at the subscription of this key"),
        403 => stop("the plan of this key has no history: it belongs to the larger plans, with a running subscription"),
        429 => again(Some(response.retry_after().unwrap_or(LIMITED_WAIT)), "tweetstream.io asks to slow down"),
        408 | 500..=599 => again(response.retry_after(), "tweetstream.io has a fault"),
        300..=399 => stop("tweetstream.io redirects, and a key never follows: check the address of this source"),
        status => Err(Trouble::Stop { why: format!("tweetstream.io refuses the request (HTTP {status}): check the address") }),
    }
}

#[cfg(test)]
mod tests;
