//! The walk through ScrapeBadger's history: what it delivered by its own logs, then what it may have missed.
//!
//! | step | request | why |
//! | --- | --- | --- |
//! | lists | `/v1/twitter/stream/monitors`, `/filter-rules` | names, accounts and queries, where the tape does not know them |
//! | logs | `/v1/twitter/stream/logs`, `/filter-rules/{id}/logs` | ids of what monitors, and rules without a text, delivered |
//! | posts | `/v1/twitter/tweets/?tweets=` | those the tape has not, 100 at a time |
//! | searches | `/v1/twitter/tweets/advanced_search` | rules by their text; accounts, where the log proves nothing (`sweep.rs`) |
//!
//! Whether deliveries are logged while nobody is connected is not published. A log that meets known posts on both sides of
//! the stretch, and has rows in it that never came, shows that they are: then it is all that the stream would have brought,
//! and the accounts, of which a search takes a few at a time, are not searched for, unless told to doubt. It has nothing of
//! a monitor that was deleted: the accounts of one that the tape names and the log does not are searched for.
//!
//! Logs have numbered pages, newest row first, and rows move to later pages while new ones come: a row may be met twice
//! but is not skipped. A page far from the window is found by doubling and halving. `total` says how many rows a page
//! must have; one with fewer is asked again. Log rows name posts and hold none, so they are no events.
//!
//! Where a rule's query is not known and a monitor has no accounts, the logs are all there is, and they must overlap
//! what the tape has on both sides. How long the provider keeps log rows is not published.
//!
//! Documented: 100 rows a page, 100 posts a search, one credit for a call and one for each item, `X-Credits-Used`
//! counts (docs.scrapebadger.com, "Streams", "Credits"); 0.0001 US dollars a credit at list. The number of ids in a call
//! is not published; 100 is assumed.

use std::collections::HashSet;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::lists::{MONITORS, RULES, accounts_of};
use crate::model::json::{Bad, Json};
use crate::model::{Decoded, EventKind, Response, TweetId, UnixMicros, parse_legacy_date};
use crate::provider::Settings;
use crate::provider::history::{Known, LastRead, Next, Page, Price, Proof, Selector, Trouble, Verdict, Wanted};
use crate::provider::sweep::{
    ERRORS_MAX, Met, Refusal, Row, Stretch, Sweep, broken, decoded, get, groups, is_handle, judge, merged, was_known,
};
use crate::provider::twins::{Pages, Recent, Twin, face};

/// Host of the REST interface. Documented: docs.scrapebadger.com.
pub(super) const HOST: &str = "scrapebadger.com";

const LOGS: &str = "/v1/twitter/stream/logs";
const POSTS: &str = "/v1/twitter/tweets/";
const SEARCH: &str = "/v1/twitter/tweets/advanced_search";

/// Rows of a page, posts of a search, ids of a call.
pub(crate) const PAGE: usize = 100;

/// How often a log page that is too short, or brings nothing, is asked again.
const RETRIES_MAX: u8 = 2;

/// Pages of a log that are looked at, about, until one lies in the stretch.
const PAGES_TO_FIND: u64 = 8;

/// A credit in millionths of a US dollar.
const MICRO_USD: u64 = 100;

/// Wait after a 429 without `Retry-After`: requests are counted over a minute.
const TOO_FAST_WAIT: Duration = Duration::from_secs(60);

const CURES: [&str; 3] = [
    "the API key is missing or wrong; set the right one and start again",
    "the credits are used up; recharge the account, then go on",
    "the API key is disabled or not allowed to do this; check it and start again",
];

/// Version of the stored form.
const VERSION: u32 = 4;

/// What is being asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Ask {
    Monitors(u64),
    Rules(u64),
    Log,
    Posts(Vec<u64>),
    Search,
    Nothing,
}

/// All progress; this is the cursor.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct State {
    version: u32,
    stretch: Stretch,
    ask: Ask,
    /// Log and search of everything that selects.
    logs: Vec<Log>,
    sweeps: Vec<Sweep>,
    handles: Vec<String>,
    /// Monitors that the tape names, with their accounts, as long as no row of the log does.
    unshown: Vec<(String, Vec<String>)>,
    /// Names of what cannot be searched for.
    unsearchable: Vec<String>,
    /// Tape's selectors that the provider's lists have named.
    listed: Vec<String>,
    /// Ids to ask for; then those that were asked for and not given; then those that were not given twice.
    pending: Vec<u64>,
    missed: Vec<u64>,
    gone: Vec<u64>,
    errors: u8,
    holes: Vec<String>,
    doubt: bool,
    /// Whether a log or the posts by id were.
    #[serde(default)]
    is_caught: bool,
    /// The page before, by its rows.
    face: u64,
    /// Pages of posts by their rows, and cursors.
    faces: Pages,
    cursors: Recent<u64>,
    n_pages: u64,
    n_rows: u64,
}

/// One delivery log.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Log {
    path: String,
    monitor: Option<String>,
    /// The last page known to be newer than the window, and the first known not to be.
    below: u64,
    above: Option<u64>,
    /// When the newest row was detected, in microseconds.
    newest: Option<i64>,
    /// Pages from the first one not newer than the window on are read one by one.
    reading: bool,
    page: u64,
    /// Pages seen on the way; they are not asked again unless the log grew meanwhile and rows moved.
    visited: Vec<u64>,
    total: u64,
    /// The first page seen to be older than the window.
    end: Option<u64>,
    /// How often this page was asked again.
    retries: u8,
    done: bool,
    left: bool,
    right: bool,
    failed: Option<String>,
    /// Rows of the stretch that never came.
    n_lost: u64,
    #[serde(skip)]
    ids: HashSet<String>,
}

impl Log {
    fn new(path: String, monitor: Option<String>) -> Self {
        Self {
            path,
            monitor,
            below: 0,
            above: None,
            newest: None,
            reading: false,
            page: 1,
            visited: Vec::new(),
            total: 0,
            end: None,
            retries: 0,
            done: false,
            left: false,
            right: false,
            failed: None,
            n_lost: 0,
            ids: HashSet::new(),
        }
    }

    /// Whether it is the log of a rule, and not of this one.
    fn is_of_another(&self, rule: &str) -> bool {
        let own = self.path.strip_prefix(RULES).and_then(|rest| rest.strip_prefix('/')?.strip_suffix("/logs"));
        own.is_some_and(|own| own != rule)
    }

    fn is_whole(&self) -> bool {
        self.left && self.right && self.failed.is_none()
    }

    /// A page came, whole or as whole as it gets: which one is next.
    fn step(&mut self, rows: &[LogRow], total: u64, lo: UnixMicros, hi: UnixMicros) {
        self.retries = 0;
        let n_pages = total.div_ceil(PAGE as u64).max(1);
        let newer = !rows.is_empty() && rows.iter().all(|row| row.detected_at >= hi);
        let older = rows.iter().all(|row| row.detected_at < lo);
        if total != self.total {
            self.total = total;
            self.end = None;
            // Pages that are asked again bring the same rows, and may.
            self.visited.clear();
            self.ids = rows.iter().map(|row| row.id.clone()).collect();
        }
        if older {
            self.end = Some(self.end.map_or(self.page, |end| end.min(self.page)));
        }
        if self.reading {
            return self.read_on(n_pages);
        }
        self.visited.push(self.page);
        if rows.iter().any(|row| row.detected_at >= hi) && !newer {
            // The window begins on this page.
            self.below = self.below.max(self.page - 1);
        }
        if newer {
            self.below = self.below.max(self.page);
        } else {
            self.above = Some(self.above.map_or(self.page, |above| above.min(self.page)));
        }
        self.page = match self.above {
            Some(above) if above > self.below + 1 => self.below + (above - self.below) / 2,
            Some(above) => {
                self.reading = true;
                self.page = above;
                return self.read_on(n_pages);
            }
            None if self.below >= n_pages => {
                self.done = true;
                self.below
            }
            None => self.guess(rows, hi).clamp(self.below + 1, n_pages),
        };
    }

    /// The page on which the window may begin, if rows go on as they came on the way here.
    fn guess(&mut self, rows: &[LogRow], hi: UnixMicros) -> u64 {
        let (first, last) = (rows.first().map_or(hi, |row| row.detected_at), rows.last().map_or(hi, |row| row.detected_at));
        let newest = *self.newest.get_or_insert(first.0);
        let so_far = u64::try_from(newest.saturating_sub(last.0)).unwrap_or(0).max(1);
        let wanted = u64::try_from(newest.saturating_sub(hi.0)).unwrap_or(0);
        let pages = u128::from(self.page) * u128::from(wanted) / u128::from(so_far);
        // Never further than a few times what is known: rows may have come in bursts.
        u64::try_from(pages).unwrap_or(u64::MAX).saturating_add(1).min(self.page.saturating_mul(8))
    }

    /// To the next page that was not seen, or the end.
    fn read_on(&mut self, n_pages: u64) {
        let last = self.end.map_or(n_pages, |end| end.min(n_pages));
        self.done = self.page >= last;
        self.page += 1;
        while !self.done && self.visited.contains(&self.page) {
            self.done = self.page >= last;
            self.page += 1;
        }
    }
}

/// A walk.
#[derive(Debug)]
pub struct Walk {
    settings: Settings,
    /// What the tape names, as far as it is wanted.
    on_tape: Vec<Named>,
    state: State,
    met: Met,
    pub(crate) last_read: LastRead<Option<Answer>>,
}

impl Walk {
    pub(crate) fn new(settings: &Settings, wanted: Wanted, cursor: Option<&str>) -> Self {
        let stretch = Stretch::of(&wanted);
        let on_tape: Vec<_> = wanted.selectors.iter().filter(|selector| stretch.wants(&selector.id)).map(Named::of).collect();
        let stored = cursor.and_then(|cursor| serde_json::from_str::<State>(cursor).ok());
        let stored = stored.filter(|state| state.version == VERSION && state.stretch == stretch);
        let is_new = stored.is_none();
        let state = stored.unwrap_or_else(|| State {
            version: VERSION,
            // A rule stands in one of the lists only.
            ask: if stretch.scope != "*" && on_tape.iter().any(|named| named.is_rule) { Ask::Rules(1) } else { Ask::Monitors(1) },
            stretch,
            logs: Vec::new(),
            sweeps: Vec::new(),
            handles: Vec::new(),
            unshown: Vec::new(),
            unsearchable: Vec::new(),
            listed: Vec::new(),
            pending: Vec::new(),
            missed: Vec::new(),
            gone: Vec::new(),
            errors: 0,
            holes: Vec::new(),
            doubt: false,
            is_caught: false,
            face: 0,
            faces: Pages::default(),
            cursors: Recent::default(),
            n_pages: 0,
            n_rows: 0,
        });
        let mut walk = Self { settings: settings.clone(), on_tape, state, met: Met::new(), last_read: LastRead::default() };
        if is_new && wanted.is_listed && !walk.on_tape.is_empty() {
            for named in walk.on_tape.clone() {
                walk.select(&named);
            }
            walk.state.ask = walk.begin();
            walk.advance();
        }
        walk
    }

    /// Whether the history was caught at something.
    pub(crate) fn is_caught(&self) -> bool {
        let State { sweeps, gone, is_caught, .. } = &self.state;
        *is_caught || sweeps.iter().any(|sweep| sweep.doubt) || !gone.is_empty()
    }

    /// Every last page of a search is asked twice.
    pub(crate) fn doubt(&mut self) {
        self.state.doubt = true;
    }

    pub(crate) fn price(&self) -> Price {
        let State { ask, logs, sweeps, stretch, .. } = &self.state;
        let n_rules = self.on_tape.iter().filter(|named| named.is_rule).count() as u64;
        let n_logs = n_rules + u64::from(self.on_tape.len() as u64 > n_rules || n_rules == 0);
        let left = |lists: u64| (lists + n_logs, n_rules);
        let (free, searches) = match ask {
            Ask::Monitors(_) => left(2),
            Ask::Rules(_) => left(1),
            _ => {
                let n_logs = logs.iter().filter(|log| !log.done).count() as u64;
                (n_logs, sweeps.iter().filter(|sweep| sweep.ask().is_some()).count() as u64)
            }
        };
        let searches = if stretch.from < stretch.to { searches } else { 0 };
        Price { requests: free + searches, micro_usd: searches * MICRO_USD, micro_usd_per_thousand: 1_000 * MICRO_USD }
    }

    /// Requests that are not in the price: pages of logs on the way to the stretch, and the searches for accounts, which are
    /// made where the log proves nothing.
    pub(crate) fn more_requests(&self) -> u64 {
        let n_logs = self.state.logs.iter().filter(|log| !log.done).count() as u64;
        n_logs * PAGES_TO_FIND + groups(&self.state.handles).len() as u64
    }

    pub(crate) fn next(&mut self) -> Next {
        let get = |path: &str, params: &[(&str, &str)]| Next::Ask(get(&self.settings, HOST, path, params));
        let size = PAGE.to_string();
        match &self.state.ask {
            Ask::Monitors(page) => get(MONITORS, &[("page", &page.to_string()), ("page_size", &size)]),
            Ask::Rules(page) => get(RULES, &[("page", &page.to_string()), ("page_size", &size)]),
            Ask::Log => match self.state.logs.iter().find(|log| !log.done) {
                Some(log) => {
                    let page = log.page.to_string();
                    let mut params = vec![("sort", "desc"), ("page", page.as_str()), ("page_size", size.as_str())];
                    params.extend(log.monitor.as_deref().map(|monitor| ("monitor_id", monitor)));
                    get(&log.path, &params)
                }
                None => Next::Done(self.verdict()),
            },
            Ask::Posts(ids) => {
                let ids: Vec<_> = ids.iter().map(u64::to_string).collect();
                get(POSTS, &[("tweets", &ids.join(","))])
            }
            Ask::Search => match self.state.sweeps.iter().find_map(Sweep::ask) {
                Some((query, cursor)) => {
                    // Documented: `Top` is the default, `Latest` is by time.
                    let mut params = vec![("query", query.as_str()), ("query_type", "Latest"), ("count", size.as_str())];
                    params.extend(cursor.map(|cursor| ("cursor", cursor)));
                    get(SEARCH, &params)
                }
                None => Next::Done(self.verdict()),
            },
            Ask::Nothing => Next::Done(self.verdict()),
        }
    }

    pub(crate) fn answered(&mut self, response: &Response, known: &mut dyn Known) -> Result<Page, Trouble> {
        match judge(&self.settings, response, TOO_FAST_WAIT, CURES) {
            Ok(()) => {}
            Err(Refusal::Trouble(trouble)) => return Err(trouble),
            Err(Refusal::Refused { words }) => {
                self.refused(words);
                return Ok(Page::default());
            }
        }
        let text = std::str::from_utf8(&response.body).map_err(|_| broken("not UTF-8"))?;
        let read = self.last_read.take(&response.body).unwrap_or_else(|| Answer::read(text));
        let read = read.ok_or_else(|| broken("not whole JSON"))?;
        let fits = match &self.state.ask {
            Ask::Monitors(_) | Ask::Rules(_) | Ask::Nothing => !read.failed,
            Ask::Log => !read.failed && read.has_logs,
            Ask::Posts(_) | Ask::Search => !read.failed && read.has_posts,
        };
        if !fits {
            if self.state.errors < ERRORS_MAX {
                self.state.errors += 1;
                return Err(Trouble::Again { after: None, why: "the provider answers with an error and status 200".to_owned() });
            }
            self.refused("an error with status 200".to_owned());
            return Ok(Page::default());
        }
        // Rows of a log and posts are told apart by what comes before them.
        let sort = u64::from(read.has_logs);
        let ids = read.posts.iter().map(|(id, _)| id.0).chain(read.logs.iter().map(|row| row.tweet_id));
        let face = match ids.clone().next() {
            Some(_) => face(ids.chain([sort])),
            None => 0,
        };
        let is_twin = face != 0 && std::mem::replace(&mut self.state.face, face) == face;
        let (n_rows, new) = match self.state.ask.clone() {
            Ask::Monitors(page) => self.take_monitors(text, page)?,
            Ask::Rules(page) => self.take_rules(text, page)?,
            Ask::Log => self.take_log(&read, is_twin, known),
            Ask::Posts(ids) => self.take_posts(&ids, &read, known),
            Ask::Search => self.take_search(&read, known),
            Ask::Nothing => (0, 0),
        };
        let is_free = matches!(self.state.ask, Ask::Monitors(_) | Ask::Rules(_) | Ask::Log);
        let credits = response.header("x-credits-used").and_then(|credits| credits.trim().parse::<u64>().ok());
        let credits = credits.unwrap_or(if is_free { 0 } else { 1 + n_rows });
        self.state.errors = 0;
        self.state.n_pages += 1;
        self.state.n_rows += n_rows;
        self.advance();
        Ok(Page { rows: n_rows, new, micro_usd: credits.saturating_mul(MICRO_USD) })
    }

    pub(crate) fn cursor(&self) -> String {
        serde_json::to_string(&self.state).unwrap_or_default()
    }

    fn take_monitors(&mut self, text: &str, page: u64) -> Result<(u64, u64), Trouble> {
        let (rows, has_more) = listed(text, "monitors", page)?;
        for monitor in &rows {
            let Some(id) = monitor["id"].as_str().filter(|id| self.state.stretch.wants(id)) else { continue };
            let accounts = monitor["usernames"].as_array().map(Vec::as_slice).unwrap_or_default();
            let handles: Vec<_> = accounts.iter().filter_map(Value::as_str).collect();
            self.monitor(id, handles.into_iter());
        }
        let is_done = !has_more && self.state.stretch.scope != "*" && !self.state.listed.is_empty();
        self.state.ask = match has_more {
            true => Ask::Monitors(page + 1),
            false if is_done => self.begin(),
            false => Ask::Rules(1),
        };
        Ok((0, 0))
    }

    fn take_rules(&mut self, text: &str, page: u64) -> Result<(u64, u64), Trouble> {
        let (rows, has_more) = listed(text, "rules", page)?;
        for rule in &rows {
            let Some(id) = rule["id"].as_str().filter(|id| self.state.stretch.wants(id)) else { continue };
            let is_on_tape = self.on_tape.iter().any(|named| named.id == id);
            if rule["status"].as_str().is_some_and(|status| status != "active") && !is_on_tape {
                continue;
            }
            let query = rule["query"].as_str().map(str::trim).filter(|query| !query.is_empty());
            self.rule(id, query.into_iter());
        }
        self.state.ask = if has_more { Ask::Rules(page + 1) } else { self.begin() };
        Ok((0, 0))
    }

    /// Something that the tape knows to have selected.
    fn select(&mut self, named: &Named) {
        let texts = || named.texts.iter().map(String::as_str);
        if named.is_rule {
            self.rule(&named.id, texts());
        } else {
            let accounts: Vec<_> = texts().filter_map(accounts_of).flatten().collect();
            self.monitor(&named.id, accounts.iter().copied());
            self.state.unshown.push((named.id.clone(), accounts.into_iter().map(str::to_owned).collect()));
        }
    }

    fn monitor<'a>(&mut self, id: &str, handles: impl Iterator<Item = &'a str>) {
        self.state.listed.push(id.to_owned());
        let (mut n, mut n_good) = (0, 0);
        for handle in handles.map(|handle| handle.trim_start_matches('@')) {
            n += 1;
            if is_handle(handle) {
                n_good += 1;
                if !self.state.handles.iter().any(|other| other.eq_ignore_ascii_case(handle)) {
                    self.state.handles.push(handle.to_owned());
                }
            }
        }
        if n_good < n || n == 0 {
            self.state.unsearchable.push(format!("monitor {id}"));
        }
    }

    fn rule<'a>(&mut self, id: &str, texts: impl Iterator<Item = &'a str>) {
        self.state.listed.push(id.to_owned());
        let mut has_text = false;
        for text in texts {
            has_text = true;
            self.add_sweep(format!("rule {id}"), text.to_owned());
        }
        if has_text {
            return;
        }
        self.state.unsearchable.push(format!("rule {id}"));
        // The id goes into a path.
        if id.is_empty() || !id.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_') {
            self.state.holes.push(format!("rule {id:.40?} has an id that cannot be asked for"));
            return;
        }
        self.state.logs.push(Log::new(format!("{RULES}/{id}/logs"), None));
    }

    fn add_sweep(&mut self, name: String, text: String) {
        if !self.state.sweeps.iter().any(|sweep| sweep.text() == text) {
            self.state.sweeps.push(Sweep::new(name, text, PAGE, &self.state.stretch));
        }
    }

    /// The lists are read: what is to be asked is known.
    fn begin(&mut self) -> Ask {
        let State { listed, unsearchable, sweeps, logs, stretch, holes, handles, .. } = &mut self.state;
        let is_monitored = !handles.is_empty() || unsearchable.iter().any(|name| name.starts_with("monitor "));
        if is_monitored {
            let monitor = Some(stretch.scope.clone()).filter(|scope| scope != "*");
            logs.insert(0, Log::new(LOGS.to_owned(), monitor));
        }
        let lost: Vec<_> = self.on_tape.iter().filter(|named| !listed.contains(&named.id)).collect();
        if !lost.is_empty() && lost.len() == self.on_tape.len() {
            let n = lost.len();
            holes.push(format!(
                "none of the {n} monitors and rules on the tape is among the provider's: the API key belongs to another account, \
                 or all of them were deleted; set the key of the account that was recorded"
            ));
            logs.clear();
            sweeps.clear();
            handles.clear();
            return Ask::Log;
        }
        for Named { id, is_rule, .. } in lost {
            let sort = if *is_rule { "rule" } else { "monitor" };
            holes.push(format!("{sort} {id} is on the tape, but the provider does not have it any more"));
        }
        Ask::Log
    }

    fn take_log(&mut self, read: &Answer, is_twin: bool, known: &mut dyn Known) -> (u64, u64) {
        let Some(log) = self.state.logs.iter_mut().find(|log| !log.done) else { return (0, 0) };
        // Rows of another rule: this is the page of its log.
        if read.logs.iter().any(|row| row.rule.as_deref().is_some_and(|rule| log.is_of_another(rule))) {
            if log.retries < RETRIES_MAX {
                log.retries += 1;
                self.state.is_caught = true;
            } else {
                log.failed = Some("its delivery log was answered with another rule's".to_owned());
                log.done = true;
            }
            return (read.logs.len() as u64, 0);
        }
        let stretch = &self.state.stretch;
        let (mut is_fresh, mut is_moved) = (read.logs.is_empty(), false);
        for row in &read.logs {
            let is_first = log.ids.insert(row.id.clone());
            (is_fresh, is_moved) = (is_fresh | is_first, is_moved | !is_first);
            self.state.unshown.retain(|(monitor, _)| row.monitor.as_ref() != Some(monitor));
            let was_known = was_known(row.tweet_id, &mut self.met, known);
            let is_inside = (stretch.from..stretch.to).contains(&row.published_at.0);
            if was_known {
                let (left, right) = stretch.edges(row.published_at.0);
                log.left |= left;
                log.right |= right;
            } else if is_inside {
                log.n_lost += 1;
                let waits = |ids: &[u64]| ids.contains(&row.tweet_id);
                // What was asked for before is marked in `met` once it came.
                if !waits(&self.state.pending) && !waits(&self.state.missed) && !waits(&self.state.gone) {
                    self.state.pending.push(row.tweet_id);
                }
            }
        }
        // Rows move when the log grows, and that is said: else some may have moved past where it was asked.
        self.state.is_caught |= is_moved && read.total == Some(log.total);
        let before = (log.page - 1).saturating_mul(PAGE as u64);
        let expected = read.total.unwrap_or(0).saturating_sub(before).min(PAGE as u64);
        if (read.logs.len() as u64) < expected || !is_fresh || (is_twin && log.retries == 0) {
            log.ids.clear();
            if log.retries < RETRIES_MAX {
                log.retries += 1;
                self.state.is_caught = true;
                return (read.logs.len() as u64, 0);
            }
            log.failed = Some("a page of its delivery log stayed incomplete".to_owned());
        }
        // What is detected was published a little before; what was detected later than the stretch came live.
        let (lo, hi) = (UnixMicros(stretch.from), UnixMicros(stretch.to));
        let total = read.total.unwrap_or(before + read.logs.len() as u64);
        log.step(&read.logs, total, lo, hi);
        (read.logs.len() as u64, 0)
    }

    fn take_posts(&mut self, ids: &[u64], read: &Answer, known: &mut dyn Known) -> (u64, u64) {
        // Posts by id are no search's, but a search may be answered with them.
        self.state.faces.twin(&self.state.stretch.face(&rows_of(read)), usize::MAX);
        let given: HashSet<u64> = read.posts.iter().map(|(id, _)| id.0).collect();
        let mut new = 0;
        for id in ids {
            let waits = self.state.missed.iter().position(|missed| missed == id);
            match (given.contains(id), waits) {
                (true, waits) => {
                    new += u64::from(!was_known(*id, &mut self.met, known));
                    // It is on the tape now, and must not be asked for again.
                    self.met.insert(*id, true);
                    waits.map(|at| self.state.missed.swap_remove(at));
                }
                (false, None) => {
                    self.state.is_caught = true;
                    self.state.missed.push(*id);
                }
                (false, Some(at)) => {
                    self.state.gone.push(self.state.missed.swap_remove(at));
                }
            }
        }
        self.state.pending.retain(|id| !ids.contains(id));
        (read.posts.len() as u64, new)
    }

    fn take_search(&mut self, read: &Answer, known: &mut dyn Known) -> (u64, u64) {
        let rows = rows_of(read);
        let Some(at) = self.state.sweeps.iter().position(|sweep| sweep.ask().is_some()) else { return (0, 0) };
        let next = read.next.as_deref().filter(|next| !next.is_empty());
        let face = self.state.stretch.face(&rows);
        let twin = self.state.faces.twin(&face, at);
        let onward = self.state.cursors.onward(next, at);
        let new = self.state.sweeps[at].page(&rows, onward, twin, &mut self.met, known);
        if self.state.sweeps[at].is_odd {
            self.state.faces.odd.note(face);
        }
        if let Twin::Of(other) = twin
            && let Some(other) = self.state.sweeps.get_mut(other)
        {
            other.is_doubled(&rows);
        }
        // The logs named it, ids did not give it, the search does.
        self.state.gone.retain(|id| !rows.iter().any(|row| row.id == *id));
        (rows.len() as u64, new)
    }

    /// The provider does not want to answer this one.
    fn refused(&mut self, words: String) {
        self.state.errors = 0;
        match self.state.ask.clone() {
            Ask::Monitors(_) => {
                self.state.holes.push(format!("the monitors cannot be listed: {words}"));
                self.state.ask = Ask::Rules(1);
            }
            Ask::Rules(_) => {
                self.state.holes.push(format!("the filter rules cannot be listed: {words}"));
                self.state.ask = self.begin();
            }
            Ask::Log => {
                if let Some(log) = self.state.logs.iter_mut().find(|log| !log.done) {
                    log.failed = Some(format!("its delivery log is refused: {words}"));
                    log.done = true;
                }
            }
            Ask::Posts(ids) => {
                self.state.pending.retain(|id| !ids.contains(id));
                self.state.missed.retain(|id| !ids.contains(id));
                self.state.gone.extend(ids);
            }
            Ask::Search => {
                if let Some(sweep) = self.state.sweeps.iter_mut().find(|sweep| sweep.ask().is_some()) {
                    sweep.refuse(words);
                }
            }
            Ask::Nothing => {}
        }
        self.advance();
    }

    /// Logs first, posts as soon as a call is full, then what was not given once more, then the searches.
    fn advance(&mut self) {
        if matches!(self.state.ask, Ask::Monitors(_) | Ask::Rules(_)) {
            return;
        }
        let is_over = self.state.logs.iter().all(|log| log.done) && self.state.pending.is_empty() && self.state.missed.is_empty();
        if is_over {
            let (mut handles, unshown) = (std::mem::take(&mut self.state.handles), std::mem::take(&mut self.state.unshown));
            let is_proven = |log: &Log| log.path == LOGS && log.is_whole() && log.n_lost > 0;
            if !self.state.doubt && self.state.logs.iter().any(is_proven) && self.state.gone.is_empty() {
                handles.retain(|handle| unshown.iter().any(|(_, of)| of.iter().any(|other| other.eq_ignore_ascii_case(handle))));
            }
            for text in groups(&handles) {
                self.add_sweep("monitored accounts".to_owned(), text);
            }
            for (monitor, _) in unshown.iter().filter(|(_, accounts)| accounts.is_empty()) {
                let hole = "is on the tape, but its accounts are not, and no row of the delivery log names it: it may be deleted";
                self.state.holes.push(format!("monitor {monitor} {hole}"));
            }
        }
        let State { logs, pending, missed, sweeps, doubt, .. } = &mut self.state;
        let logs_left = logs.iter().any(|log| !log.done);
        self.state.ask = if pending.len() >= PAGE || (!logs_left && !pending.is_empty()) {
            Ask::Posts(pending.iter().take(PAGE).copied().collect())
        } else if logs_left {
            Ask::Log
        } else if !missed.is_empty() {
            Ask::Posts(missed.iter().take(PAGE).copied().collect())
        } else {
            if sweeps.iter().all(|sweep| sweep.ask().is_none()) {
                let is_alone = logs.is_empty() && sweeps.len() == 1 && sweeps.iter().all(|sweep| !sweep.was_doubted());
                *doubt |= is_alone || sweeps.iter().any(|sweep| sweep.doubt);
                if *doubt {
                    sweeps.iter_mut().for_each(Sweep::confirm);
                }
            }
            match sweeps.iter().any(|sweep| sweep.ask().is_some()) {
                true => Ask::Search,
                false => Ask::Nothing,
            }
        };
    }

    fn verdict(&self) -> Verdict {
        let State { stretch, logs, sweeps, unsearchable, gone, holes, n_pages, n_rows, .. } = &self.state;
        let n_whole = logs.iter().filter(|log| log.is_whole()).count();
        let n_overlapped = sweeps.iter().filter(|sweep| sweep.overlapped()).count();
        let evidence = format!(
            "{} delivery logs, {n_whole} of them with known posts on both sides, and {} searches, {n_overlapped} of them \
             with known posts on both sides and the others asked twice where nothing came: {n_rows} rows on {n_pages} pages",
            logs.len(),
            sweeps.len()
        );
        let mut whys = holes.clone();
        whys.extend(logs.iter().filter_map(|log| log.failed.clone()));
        if !unsearchable.is_empty() && !logs.iter().all(Log::is_whole) {
            whys.push(format!(
                "{} cannot be searched for, and the logs do not meet known posts on both sides",
                unsearchable.join(", ")
            ));
        }
        if logs.is_empty() && sweeps.is_empty() && whys.is_empty() {
            whys.push(format!("neither the provider nor the tape names a rule or a monitor for scope {}", stretch.scope));
        }
        let mut rest: Vec<_> = Vec::new();
        if !whys.is_empty() {
            rest.push((UnixMicros(stretch.from), UnixMicros(stretch.to)));
        }
        if !gone.is_empty() {
            whys.push(format!("{} posts that were delivered are not given out any more", gone.len()));
            // An id says its millisecond; one that does not leaves the whole stretch open.
            rest.extend(gone.iter().map(|id| match TweetId(*id).published_at() {
                Some(at) => (at, UnixMicros(at.0.saturating_add(1_000).min(stretch.to))),
                None => (UnixMicros(stretch.from), UnixMicros(stretch.to)),
            }));
        }
        for sweep in sweeps {
            rest.extend(sweep.unproven());
            match &sweep.refused {
                Some(words) => whys.push(format!("the search of {} is refused: {words}", sweep.name)),
                None if sweep.unproven().next().is_some() => {
                    whys.push(format!("the search of {} could not be asked to its end", sweep.name));
                }
                None => {}
            }
        }
        let rest = merged(rest);
        let proof = if rest.is_empty() { Proof::Filled } else { Proof::Partial { rest, why: whys.join("; ") } };
        Verdict { kinds: vec![(EventKind::Tweet, proof)], evidence }
    }
}
/// The posts of an answer as a search takes them.
fn rows_of(read: &Answer) -> Vec<Row> {
    read.posts.iter().map(|(id, at)| Row { id: id.0, at: at.unwrap_or(UnixMicros(0)) }).collect()
}

/// Rows of a list, and whether there are more behind this page.
fn listed(text: &str, name: &str, page: u64) -> Result<(Vec<Value>, bool), Trouble> {
    let mut value: Value = serde_json::from_str(text).map_err(|_| broken("not whole JSON"))?;
    let total = value["total"].as_u64().unwrap_or(0);
    let Value::Array(rows) = value[name].take() else { return Err(broken("not the list that was asked for")) };
    let has_more = !rows.is_empty() && page.saturating_mul(PAGE as u64) < total;
    Ok((rows, has_more))
}

/// What the tape knows of a monitor or a rule.
#[derive(Clone, Debug)]
struct Named {
    id: String,
    is_rule: bool,
    texts: Vec<String>,
}

impl Named {
    fn of(selector: &Selector) -> Self {
        let Selector { id, texts, sample } = selector;
        let by_text = texts.first().map(|text| accounts_of(text).is_none());
        let is_rule = by_text.or_else(|| is_rule(id, sample.as_deref()?)).unwrap_or(false);
        Self { id: id.clone(), is_rule, texts: texts.clone() }
    }
}

/// Whether an envelope names that id as its rule; `None` when it names it not at all.
fn is_rule(id: &str, envelope: &[u8]) -> Option<bool> {
    let mut found = None;
    let mut json = Json::new(std::str::from_utf8(envelope).ok()?.trim());
    json.object(|key, json| {
        if matches!(key, "rule_id" | "monitor_id") && json.text()?.as_deref() == Some(id) {
            found = Some(found == Some(true) || key == "rule_id");
        }
        Ok(())
    })
    .ok()?;
    found
}

/// Reads a page of posts: of a search, a timeline, or posts by id. Delivery logs and anything else have no events.
///
/// A page does not say which rule or monitor it was asked for, so its events have no selector.
pub fn decode_page(body: &[u8]) -> Decoded {
    read_page(body).0
}

/// The events of an answer, and the answer, if it is a JSON object.
pub(crate) fn read_page(body: &[u8]) -> (Decoded, Option<Answer>) {
    let read = std::str::from_utf8(body).ok().and_then(Answer::read);
    let said = decoded(read.as_ref().map(|read| (read.is_exact, read.has_posts.then_some(&read.posts[..]))));
    (said, read)
}

/// A row of a delivery log.
#[derive(Clone, Debug)]
struct LogRow {
    id: String,
    tweet_id: u64,
    published_at: UnixMicros,
    detected_at: UnixMicros,
    monitor: Option<String>,
    rule: Option<String>,
}

/// What an answer says, read in one pass.
#[derive(Debug, Default)]
pub(crate) struct Answer {
    is_exact: bool,
    has_posts: bool,
    posts: Vec<(TweetId, Option<UnixMicros>)>,
    next: Option<String>,
    has_logs: bool,
    logs: Vec<LogRow>,
    total: Option<u64>,
    /// Observed: a filled `error`, and `status` "error", are failures whatever the status (PyPI package 0.65.1).
    failed: bool,
}

impl Answer {
    fn read(text: &str) -> Option<Self> {
        let inner = text.trim_matches([' ', '\t', '\r', '\n']);
        if !inner.starts_with('{') {
            return None;
        }
        let mut json = Json::new(inner);
        let mut read = Self::default();
        json.object(|key, json| read.take(inner, key, json)).ok()?;
        json.finish().ok()?;
        read.is_exact = inner.len() == text.len() && !json.is_multi_line();
        Some(read)
    }

    fn take(&mut self, whole: &str, key: &str, json: &mut Json<'_>) -> Result<(), Bad> {
        let starts = |json: &Json<'_>| whole.as_bytes().get(json.position()).copied();
        match key {
            "data" => {
                // Documented: `null` is no post at all.
                self.has_posts = matches!(starts(json), Some(b'[' | b'n'));
                json.array(|json| self.take_post(json))?;
            }
            "logs" => {
                self.has_logs = starts(json) == Some(b'[');
                json.array(|json| self.take_row(json))?;
            }
            "next_cursor" => self.next = json.text()?.map(|text| text.into_owned()),
            "total" => self.total = json.integer()?.and_then(|total| u64::try_from(total).ok()),
            "error" => self.failed |= json.text()?.is_some_and(|error| !error.is_empty()),
            "status" => self.failed |= json.text()?.as_deref() == Some("error"),
            _ => {}
        }
        Ok(())
    }

    /// Other lists stand in `data`, too; only what has a text is a post. Observed: ids also come as numbers.
    fn take_post(&mut self, json: &mut Json<'_>) -> Result<(), Bad> {
        let (mut id, mut created_at, mut has_text) = (None, None, false);
        json.object(|key, json| {
            match key {
                "id" => id = json.id()?.map(TweetId),
                "created_at" => created_at = json.text()?,
                "text" | "full_text" => has_text |= json.text()?.is_some(),
                _ => {}
            }
            Ok(())
        })?;
        if let Some(id) = id.filter(|_| has_text) {
            let published_at = id.published_at().or_else(|| created_at.as_deref().and_then(parse_legacy_date));
            self.posts.push((id, published_at));
        }
        Ok(())
    }

    fn take_row(&mut self, json: &mut Json<'_>) -> Result<(), Bad> {
        let (mut id, mut tweet_id, mut published, mut detected) = (None, None, None, None);
        let (mut monitor, mut rule) = (None, None);
        json.object(|key, json| {
            match key {
                "id" => id = json.text()?.map(|text| text.into_owned()),
                "tweet_id" => tweet_id = json.id()?,
                "monitor_id" => monitor = json.text()?.map(|text| text.into_owned()),
                "rule_id" => rule = json.text()?.map(|text| text.into_owned()),
                "tweet_published_at" => published = json.text()?.as_deref().and_then(UnixMicros::parse_rfc3339),
                "detected_at" => detected = json.text()?.as_deref().and_then(UnixMicros::parse_rfc3339),
                _ => {}
            }
            Ok(())
        })?;
        let published = tweet_id.and_then(|id| TweetId(id).published_at()).or(published);
        if let (Some(tweet_id), Some(published_at)) = (tweet_id, published) {
            let id = id.unwrap_or_else(|| tweet_id.to_string());
            self.logs.push(LogRow { id, tweet_id, published_at, detected_at: detected.unwrap_or(published_at), monitor, rule });
        }
        Ok(())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;
    use crate::model::Provider;
    use crate::provider::history::Walk as AnyWalk;
    use crate::provider::sweep::peer::{Peer, Ran, Tape, lies, ms, run};
    use crate::provider::synthetic::{Dialect, Options, World};
    use crate::provider::tamper;

    fn peer(seed: u64, rate: f64, dialect: Dialect) -> Peer {
        let mix = [0.0, 0.0, 1.0, 0.0];
        let options = Options { seed, start: ms(0), rate, mix, dialect, authors: 10, ..Options::default() };
        let all = World::new(options).take_while(|one| one.at < ms(300_000));
        let all = all.map(|one| (one.at, String::from_utf8(one.bytes.to_vec()).unwrap())).collect();
        Peer::new(Provider::Scrapebadger, all, ms(120_000), ms(180_000))
    }

    fn honest(peer: &mut Peer, walk: AnyWalk) -> Ran {
        run(peer, walk, false, |_, _, _, honest| honest)
    }

    /// Pages that everything on them needs; lists have one each.
    fn least(ran: &Ran) -> usize {
        ran.rows.values().map(|rows| rows.len().div_ceil(PAGE).max(1)).sum()
    }

    #[test]
    fn brings_back_a_hole_with_one_request_too_many_at_most() {
        for (seed, rate, dialect) in [(1, 20.0, Dialect::B), (2, 10.0, Dialect::C), (3, 40.0, Dialect::B), (4, 20.0, Dialect::A)]
        {
            let mut peer = peer(seed, rate, dialect);
            let walk = peer.walk();
            let price = walk.price();
            let ran = honest(&mut peer, walk);
            ran.check(&peer, "honest");
            println!(
                "{} lost, {} requests, {} at the least: {}",
                peer.lost.len(),
                ran.asked.len(),
                least(&ran),
                ran.verdict.evidence
            );
            assert!(ran.is_filled(), "{:?}", ran.verdict);
            assert!(ran.new as usize >= peer.lost.len() && peer.lost.len() > 50);
            assert!(ran.asked.len() <= least(&ran) + 1, "{:#?}", ran.asked);
            assert!(price.requests as usize <= ran.asked.len() && price.micro_usd <= ran.micro_usd);
        }
    }

    /// Rows of its log say whose they are.
    #[test]
    fn a_log_that_is_another_rules_proves_nothing() {
        let told = |rule: Option<&str>| {
            let mut n_logs = 0;
            let mut peer = peer(7, 6.0, Dialect::B);
            let walk = peer.walk();
            let ran = run(&mut peer, walk, false, |_, target, _, honest| {
                let mut page: serde_json::Value = serde_json::from_slice(&honest.body).unwrap();
                if let Some(rules) = page.get_mut("rules").and_then(|rules| rules.as_array_mut()) {
                    // Whose text is not told is asked for by its log.
                    rules.iter_mut().for_each(|rule| rule["query"] = "".into());
                } else if let Some((_, own)) = target.split_once("/filter-rules/") {
                    n_logs += 1;
                    let own = own.split('/').next().unwrap();
                    page["logs"].as_array_mut().unwrap().iter_mut().for_each(|row| row["rule_id"] = rule.unwrap_or(own).into());
                }
                Response { body: serde_json::to_vec(&page).unwrap().into(), ..honest }
            });
            assert!(n_logs > 0, "{:#?}", ran.asked);
            (ran.is_filled(), format!("{:?}", ran.verdict).contains("another rule's"))
        };
        assert!(!told(None).1);
        assert_eq!(told(Some("of-another")), (false, true));
    }

    #[test]
    fn no_lie_loses_anything_in_silence() {
        for (seed, dialect, step) in [(5, Dialect::C, 3), (6, Dialect::B, 6)] {
            let wrong = lies(&mut peer(seed, 6.0, dialect), step);
            assert!(wrong.is_empty(), "{}", wrong.join("\n"));
        }
    }

    #[test]
    fn goes_on_after_every_page() {
        let mut peer = peer(7, 15.0, Dialect::B);
        let walk = peer.walk();
        let without = honest(&mut peer, walk);
        let walk = peer.walk();
        let with = run(&mut peer, walk, true, |_, _, _, honest| honest);
        assert_eq!((with.asked, with.new, with.verdict), (without.asked, without.new, without.verdict));
    }

    #[test]
    fn a_window_far_from_the_end_of_the_log_is_found() {
        let mut peer = peer(8, 60.0, Dialect::C);
        peer.wanted.from = ms(20_000);
        peer.wanted.to = ms(25_000);
        peer.wanted.margin = Duration::from_secs(5);
        peer.lost.clear();
        let walk = peer.walk();
        let ran = honest(&mut peer, walk);
        assert!(ran.is_filled(), "{:?}", ran.verdict);
        let n_logs = ran.asked.iter().filter(|target| target.contains("/logs")).count();
        assert!(n_logs < 30, "{n_logs} of at least 150 pages");
    }

    #[test]
    fn an_empty_window_and_what_is_gone() {
        let mut peer = peer(9, 5.0, Dialect::C);
        peer.lost.clear();
        (peer.wanted.from, peer.wanted.to) = (ms(-7_200_000), ms(-7_100_000));
        let walk = peer.walk();
        let ran = honest(&mut peer, walk);
        assert!(ran.is_filled(), "searched twice: {:?}", ran.verdict);
        assert_eq!(ran.new, 0);

        // A rule that the tape has and the provider has not: nobody can tell what it would have delivered.
        let mut peer = self::peer(9, 20.0, Dialect::B);
        let rule = peer.wanted.selectors.iter().map(Named::of).find(|named| named.is_rule).unwrap().id;
        assert_eq!(peer.ask("DELETE", &format!("{RULES}/{rule}"), "").status, 204);
        let walk = peer.walk();
        let ran = honest(&mut peer, walk);
        ran.check(&peer, "gone");
        assert_eq!(ran.rest(), [(peer.wanted.from, peer.wanted.to)]);

        // A post that the log names and nobody gives out.
        let mut peer = self::peer(10, 20.0, Dialect::C);
        let (id, at) = peer.lost.iter().next().map(|(id, at)| (id.to_string(), *at)).unwrap();
        let walk = peer.walk();
        let ran = run(&mut peer, walk, false, |_, _, _, honest| {
            let mut page: Value = serde_json::from_slice(&honest.body).unwrap();
            if let Some(rows) = page["data"].as_array_mut() {
                rows.retain(|row| row["id"] != id.as_str());
            }
            Response { body: page.to_string().into(), ..honest }
        });
        ran.check(&peer, "gone");
        assert_eq!(ran.rest(), [(at, UnixMicros(at.0 + 1_000))]);
    }

    #[test]
    fn the_accounts_of_a_monitor_that_was_deleted_are_searched_for() {
        let mut peer = peer(12, 20.0, Dialect::C);
        let listed = |peer: &mut Peer| serde_json::from_slice::<Value>(&peer.ask("GET", MONITORS, "").body).unwrap();
        let monitors = listed(&mut peer)["monitors"].as_array().unwrap().clone();
        peer.wanted.is_listed = true;
        for selector in &mut peer.wanted.selectors {
            let of = monitors.iter().find(|monitor| monitor["id"] == selector.id.as_str());
            let of = of.into_iter().flat_map(|monitor| monitor["usernames"].as_array().unwrap());
            let of: Vec<_> = of.filter_map(Value::as_str).collect();
            selector.texts.extend((!of.is_empty()).then(|| format!("accounts: {}", of.join(" "))));
        }
        let searches = |ran: &Ran| ran.asked.iter().filter(|target| target.contains("advanced_search")).count();
        let walk = peer.walk();
        let ran = honest(&mut peer, walk);
        ran.check(&peer, "all are there");
        assert_eq!((ran.is_filled(), searches(&ran)), (true, 0), "{:?}", ran.verdict);

        let deleted = monitors.first().unwrap()["id"].as_str().unwrap();
        assert_eq!(peer.ask("DELETE", &format!("{MONITORS}/{deleted}"), "").status, 204);
        let walk = peer.walk();
        let ran = honest(&mut peer, walk);
        ran.check(&peer, "one was deleted");
        assert!(ran.is_filled() && searches(&ran) > 0, "{:?}", ran.verdict);
        // Where its accounts are not known either, nothing is proven.
        peer.wanted.selectors.iter_mut().find(|selector| selector.id == deleted).unwrap().texts.clear();
        let walk = peer.walk();
        let ran = honest(&mut peer, walk);
        assert_eq!(ran.rest(), [(peer.wanted.from, peer.wanted.to)]);
    }

    #[test]
    fn refusals_say_what_to_do() {
        let peer = peer(11, 5.0, Dialect::C);
        let said = |response: Response| {
            let mut walk = peer.walk();
            walk.next();
            walk.answered(&response, &mut Tape(HashSet::new()))
        };
        for status in [401, 402, 403] {
            let refusal = tamper::refusal(Provider::Scrapebadger, status, None, None);
            assert!(matches!(said(refusal), Err(Trouble::Stop { why }) if why.contains(';')));
        }
        let slow = |wait| tamper::refusal(Provider::Scrapebadger, 429, wait, None);
        let wait = Duration::from_secs(17);
        assert!(matches!(said(slow(Some(wait))), Err(Trouble::Again { after: Some(after), .. }) if after == wait));
        assert!(matches!(said(slow(None)), Err(Trouble::Again { after: Some(TOO_FAST_WAIT), .. })));
        assert!(matches!(said(Response::json(200, "{")), Err(Trouble::Again { .. })));
        let mut settings = peer.settings();
        settings.auth = crate::provider::Auth::Query;
        let mut walk = AnyWalk::new(&settings, peer.wanted.clone(), None);
        let Next::Ask(request) = walk.next() else { panic!() };
        assert!(request.target.expose().ends_with("&api_key=sb_live_hunter2") && request.shown.ends_with("&api_key=***"));
    }

    #[test]
    fn reads_pages_strictly() {
        let ids = |body: &str| -> Vec<String> {
            let decoded = decode_page(body.as_bytes());
            decoded.events.iter().map(|event| format!("{:?}", event.id)).collect()
        };
        for id in [r#""1990000000000000001""#, "1990000000000000001"] {
            let body = format!(r#"{{"data":[{{"id":{id},"full_text":"x"}}],"next_cursor":null}}"#);
            assert_eq!(ids(&body), ["Tweet(TweetId(1990000000000000001))"], "{body}");
        }
        for body in [
            "",
            "[]",
            "{",
            "not json",
            r#"{"data":null,"next_cursor":null}"#,
            r#"{"data":[{"id":"1990000000000000001","username":"somebody"}]}"#,
            r#"{"data":[{"id":1.99e18,"text":"x"},{"id":"x","text":"x"},{}]}"#,
            r#"{"logs":[{"id":"r","tweet_id":"1990000000000000001","tweet_text":"x"}],"total":1}"#,
            r#"{"type":"tweet","tweet_id":"1990000000000000001","tweet":{"id":"1990000000000000001","text":"x"}}"#,
            r#"{"data":[{"id":"1990000000000000001","text":"x"}]"#,
        ] {
            assert_eq!(ids(body), [""; 0], "{body}");
        }
    }
}
