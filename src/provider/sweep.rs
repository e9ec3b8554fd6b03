//! Searching a window of time for all that is in it, with a provider whose paging is not trusted.
//!
//! Owns what the walks of TwitterAPI.io and ScrapeBadger have in common: the request, the troubles, the text of a
//! search that is limited in time, and [`Sweep`], which takes the pages of one search and says what to ask next.
//! Knows neither provider's JSON.
//!
//! | what a page does | what follows |
//! | --- | --- |
//! | says there is more, with another cursor | the cursor is followed |
//! | brings nothing new, is empty and claims more, or repeats a cursor | the window ends at the oldest row now, and cursors are not followed any more |
//! | the same within one second | `max_id` below the oldest row |
//! | is empty and claims more, again and again | what was asked for stays unproven |
//! | brings hardly anything new, three times in a row | as if it brought nothing new |
//! | has the rows of another search's page | each half of the window is asked for: who gives it again is not believed |
//! | has the rows of one that was not believed | it is not believed, either |
//! | is not in order where cursors are not followed | down to its oldest row nothing is proven |
//! | names a cursor that another search had | as if it repeated a cursor |
//! | has fewer rows of the window than fit, without those that are there twice or stood on a page before, and claims more | its stretch is asked a second time |
//! | has a few rows from before the window and no other, and claims more | as if it were empty |
//! | is a second look that lacks most of what another one brought | it is asked again, and in the end stays unproven |
//! | is the last one | when told to [`confirm`](Sweep::confirm), it is asked a second time |
//!
//! Observed: since 2026-02 searches of X can give the same rows under cursors that do not advance (public scraper's
//! issue list, twscrape 295). Documented for sibling calls of TwitterAPI.io: a lower end is inside, an upper end is
//! not (docs.twitterapi.io, "Get user mentions"). Assumed: `max_id` is inside, as in X's own search.

use std::collections::{HashMap, HashSet, VecDeque};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::history::{Known, Trouble, Wanted};
use super::twins::{Face, Onward, Twin};
use super::{Auth, Settings, percent_encode};
use crate::model::json::Json;
use crate::model::{
    Decoded, Endpoint, Event, EventId, EventKind, IntervalSet, Message, Request, Response, Secret, TweetId, UnixMicros,
};

/// How often a stretch is looked at again while each look brings something new.
const LOOKS_MAX: u8 = 3;

/// How often a window is asked for again that is answered with the page before.
const TRIES_MAX: u8 = 3;

/// Seconds without rows in which a window can be halved, where bounds may be rounded.
const HALF_MIN: i64 = 5;

/// How often an answer that says only "error" is asked for again.
pub(crate) const ERRORS_MAX: u8 = 2;

/// Documented: longest text of a rule (docs.twitterapi.io, "Add rule"); a search of accounts keeps to it.
const GROUP_CHARS: usize = 255;

/// Observed: searches with long lists of alternatives find far less (public measurement, 2026-09).
const GROUP_ACCOUNTS: usize = 5;

/// Rows of a search that are kept in mind to compare other looks with: some megabytes.
const SEEN_MAX: usize = 100_000;

/// Longest quotation of a provider's words.
const WORDS_MAX: usize = 200;

/// A post on a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Row {
    pub(crate) id: u64,
    pub(crate) at: UnixMicros,
}

/// Posts that the walk met, and whether the tape had each when it was first met.
pub(crate) type Met = HashMap<u64, bool>;

/// Whether the tape held a post before this walk brought it.
pub(crate) fn was_known(id: u64, met: &mut Met, known: &mut dyn Known) -> bool {
    *met.entry(id).or_insert_with(|| known.holds(EventKind::Tweet, &EventId::Tweet(TweetId(id))))
}

/// A post on a page and when it was published.
pub(crate) type Post = (TweetId, Option<UnixMicros>);

/// What an answer says: nothing is known of what is no JSON object; of one that is, whether its bytes are exactly that,
/// and its posts, if it is a page of posts. Such a page does not say what it was asked for, so its events have no selector.
pub(crate) fn decoded(answer: Option<(bool, Option<&[Post]>)>) -> Decoded {
    let Some((json, posts)) = answer else { return Decoded { message: Message::Unknown, ..Decoded::default() } };
    let message = if posts.is_some() { Message::Data } else { Message::Other };
    let event = |&(id, published_at): &Post| Event {
        kind: EventKind::Tweet,
        id: EventId::Tweet(id),
        published_at,
        selector: String::new(),
    };
    Decoded { json, message, provider_at: None, events: posts.unwrap_or_default().iter().map(event).collect() }
}

/// The stretch and its surroundings; instants in microseconds, since this is stored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Stretch {
    pub(crate) scope: String,
    pub(crate) from: i64,
    pub(crate) to: i64,
    pub(crate) margin: i64,
}

impl Stretch {
    pub(crate) fn of(wanted: &Wanted) -> Self {
        let margin = i64::try_from(wanted.margin.as_micros()).unwrap_or(i64::MAX);
        Self { scope: wanted.scope.clone(), from: wanted.from.0, to: wanted.to.0, margin }
    }

    /// First second that is asked for.
    pub(crate) fn lo(&self) -> i64 {
        self.from.div_euclid(1_000_000)
    }

    /// First second that is not.
    pub(crate) fn hi(&self) -> i64 {
        -(-self.to).div_euclid(1_000_000)
    }

    /// What the rows of a page are in it; strays from outside do not count.
    pub(crate) fn face(&self, rows: &[Row]) -> Face {
        let is_inside = |row: &&Row| (self.lo() - 1..=self.hi()).contains(&second(row.at));
        Face::of(rows.iter().filter(is_inside).map(|row| row.id))
    }

    /// Whether what was published then lies at the beginning of it, and whether at its end.
    ///
    /// A gap is a horizon wider than its outage on both sides, so posts that came live lie in it: a known one proves
    /// that the history reaches so far, without a page beyond the stretch.
    pub(crate) fn edges(&self, at: i64) -> (bool, bool) {
        let edge = self.margin.min(self.to.saturating_sub(self.from) / 2);
        (at < self.from.saturating_add(edge), at >= self.to.saturating_sub(edge))
    }

    pub(crate) fn wants(&self, scope: &str) -> bool {
        self.scope == "*" || self.scope == scope
    }

    /// The part of `[lo, hi)` (seconds) that lies in it.
    pub(crate) fn cut(&self, lo: i64, hi: i64) -> (UnixMicros, UnixMicros) {
        let at = |second: i64| UnixMicros(second.saturating_mul(1_000_000).clamp(self.from, self.to));
        (at(lo), at(hi))
    }
}

fn second(at: UnixMicros) -> i64 {
    at.0.div_euclid(1_000_000)
}

/// A window that is being asked for.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Window {
    /// Seconds; `lo` is inside, `hi` is not.
    lo: i64,
    hi: i64,
    max_id: Option<u64>,
    /// The upper ends it began with.
    whole: (i64, Option<u64>),
    /// 0 for the first look.
    look: u8,
    cursor: Option<String>,
    /// Second and id of the oldest row so far.
    oldest: Option<(i64, u64)>,
    /// Whether this look brought something the walk had not met.
    news: bool,
    /// How often its first page was asked again, because it was the page before.
    n_tries: u8,
    /// Pages in a row of which most rows were there before.
    #[serde(default)]
    stale: u8,
    /// The window that was answered with another search's page, and was halved.
    #[serde(default)]
    half_of: Option<(i64, i64)>,
    /// Whether ids do not bound it, since they were ignored.
    #[serde(default)]
    by_time: bool,
    /// The upper end of a page that had fewer rows than fit: what it lacks may lie as far down as the next page begins.
    #[serde(default)]
    short: Option<i64>,
    #[serde(skip)]
    ids: HashSet<u64>,
    #[serde(skip)]
    cursors: HashSet<String>,
    /// All that a second look brought; not known of one that was begun by another run.
    #[serde(skip)]
    told: Option<HashSet<u64>>,
}

impl Window {
    fn new(lo: i64, hi: i64, max_id: Option<u64>, look: u8) -> Self {
        Self {
            lo,
            hi,
            max_id,
            whole: (hi, max_id),
            look,
            cursor: None,
            oldest: None,
            news: false,
            n_tries: 0,
            stale: 0,
            half_of: None,
            by_time: false,
            short: None,
            ids: HashSet::new(),
            cursors: HashSet::new(),
            told: Some(HashSet::new()),
        }
    }

    /// Whether a row lies in it; bounds may be rounded.
    fn fits(&self, row: &Row) -> bool {
        (self.lo - 1..=self.hi).contains(&second(row.at))
    }
}

/// One search over one window of time, until it is proven or given up.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Sweep {
    /// The rule or the accounts, for words.
    pub(crate) name: String,
    text: String,
    /// Rows that fit on a page.
    page: usize,
    stretch: Stretch,
    windows: VecDeque<Window>,
    /// Whether rows known on the tape were met at the beginning and at the end of the stretch.
    left: bool,
    right: bool,
    settled: bool,
    confirmed: bool,
    /// Whether cursors are not followed any more.
    windowed: bool,
    /// Whether the paging was caught at something.
    pub(crate) doubt: bool,
    /// Whether the last page was another question's, as often as that was asked.
    #[serde(skip)]
    pub(crate) is_odd: bool,
    newest: Option<i64>,
    /// The oldest row above the last page.
    above_last: Option<u64>,
    /// Second of each row that was met, as far as one run knows.
    #[serde(skip)]
    seen: HashMap<u64, i64>,
    /// Stretches that could not be asked to the end, in microseconds.
    unproven: Vec<(i64, i64)>,
    pub(crate) refused: Option<String>,
}

impl Sweep {
    pub(crate) fn new(name: String, text: String, page: usize, stretch: &Stretch) -> Self {
        let mut windows = VecDeque::new();
        if stretch.from < stretch.to {
            windows.push_back(Window::new(stretch.lo(), stretch.hi(), None, 0));
        }
        Self {
            name,
            text,
            page,
            stretch: stretch.clone(),
            windows,
            left: false,
            right: false,
            settled: false,
            confirmed: false,
            windowed: false,
            doubt: false,
            is_odd: false,
            newest: None,
            above_last: None,
            seen: HashMap::new(),
            unproven: Vec::new(),
            refused: None,
        }
    }

    pub(crate) fn text(&self) -> &str {
        &self.text
    }

    /// Whether what is to be asked was not asked before.
    pub(crate) fn is_first_look(&self) -> bool {
        self.windows.front().is_some_and(|window| window.look == 0)
    }

    /// Whether anything was looked at a second time, or will be.
    pub(crate) fn was_doubted(&self) -> bool {
        self.confirmed || self.doubt || self.windows.iter().any(|window| window.look > 0) || (self.settled && !self.overlapped())
    }

    /// What to ask: the search and the cursor; `None` when nothing is left.
    pub(crate) fn ask(&self) -> Option<(String, Option<&str>)> {
        let window = self.windows.front()?;
        // Where a lower end is outside, its second would be missing.
        Some((limited(&self.text, window.lo - 1, window.hi, window.max_id), window.cursor.as_deref()))
    }

    /// A page came: its rows, the next one if it claims more, and whether the page before had the same rows.
    /// Gives the number of new rows.
    pub(crate) fn page(
        &mut self,
        rows: &[Row],
        onward: Option<Onward<'_>>,
        twin: Twin,
        met: &mut Met,
        known: &mut dyn Known,
    ) -> u64 {
        self.is_odd = false;
        let Some(window) = self.windows.front_mut() else { return 0 };
        let before = window.oldest;
        // A second look may bring what the first one did.
        let is_twin = matches!(twin, Twin::Of(_)) || (twin == Twin::Own && window.look == 0);
        if before.is_none() && self.is_of_another_question(rows, twin, is_twin) {
            return 0;
        }
        let Some(window) = self.windows.front_mut() else { return 0 };
        // A row that is there twice, was there before, or lies outside, takes the place of another.
        let is_told = |row: &&Row| (window.lo - 1..window.hi).contains(&second(row.at)) && !window.ids.contains(&row.id);
        let n_told = rows.iter().filter(is_told).map(|row| row.id).collect::<HashSet<_>>().len();
        let (mut new, mut n_fresh, mut past_until, mut past_id) = (0, 0, false, false);
        for row in rows {
            let at = second(row.at);
            past_until |= at >= window.hi;
            past_id |= window.max_id.is_some_and(|max| row.id > max);
            // A row from outside counts while pages go on downwards: a stray one comes with every page.
            let goes_on = (window.lo..window.hi).contains(&at) || before.is_none_or(|(_, id)| row.id < id);
            n_fresh += usize::from(window.ids.insert(row.id) && goes_on);
            if let Some(told) = window.told.as_mut().filter(|_| window.look > 0) {
                told.insert(row.id);
            }
            if self.seen.len() < SEEN_MAX {
                self.seen.insert(row.id, at);
            }
            // Strays from before the window are no way down in it.
            if at >= window.lo && window.oldest.is_none_or(|(_, id)| row.id < id) {
                window.oldest = Some((at, row.id));
            }
            self.newest = self.newest.max(Some(at));
            let is_first = !met.contains_key(&row.id);
            let was_known = was_known(row.id, met, known);
            if was_known {
                let (left, right) = self.stretch.edges(row.at.0);
                self.left |= left;
                self.right |= right;
            } else if is_first && (self.stretch.from..self.stretch.to).contains(&row.at.0) {
                new += 1;
                window.news = true;
            }
        }
        window.stale = if n_fresh * 2 <= rows.len() { window.stale.saturating_add(1) } else { 0 };
        if let Some(hi) = window.short.take() {
            let newest = rows.iter().map(|row| second(row.at)).max().unwrap_or(window.lo);
            let lo = before.map_or(newest, |(at, _)| newest.min(at)).max(window.lo);
            self.look_again(lo, hi);
        }
        let Some(window) = self.windows.front_mut() else { return new };
        let is_fresh = n_fresh > 0 && window.stale < LOOKS_MAX;
        if past_id && window.look > 0 && !window.by_time {
            // The id's limit is ignored: the second look goes by time alone.
            let whole = window.max_id.and_then(|id| TweetId(id).published_at()).map_or(window.whole.0, |at| second(at) + 1);
            let (lo, look) = (window.lo, window.look);
            *window = Window { news: window.news, by_time: true, ..Window::new(lo, whole.min(window.whole.0), None, look) };
            return new;
        }
        let is_below = !rows.is_empty() && rows.iter().all(|row| second(row.at) < window.lo);
        // The second before it was asked for, too; what lies before that shows that the lower end is ignored.
        let is_ignored = is_below && before.is_none() && rows.iter().all(|row| second(row.at) < window.lo - 1);
        // But then a page that claims more is full: a few strays stand for none.
        let is_empty = rows.is_empty() || (is_ignored && rows.len() < self.page && onward.is_some());
        let is_below = is_below && !is_empty;
        // The last page may be an earlier one again.
        let is_again = (is_twin && before.is_some()) || (!is_fresh && window.cursor.is_some() && !rows.is_empty());
        let onward = onward.filter(|_| !is_below);
        self.doubt |= is_ignored;
        if is_below || (onward.is_none() && !is_again) {
            // Without a cursor, the oldest row so far lies in what was asked: an answer without it is none.
            if rows.is_empty() && before.is_some() && window.cursor.is_none() && window.max_id.is_none() {
                self.doubt = true;
                let (lo, hi) = (window.lo, window.hi);
                self.look_again(lo, hi);
            }
            self.finish(before);
            return new;
        }
        if window.look == 0 && n_told < self.page && n_told > 0 && !is_again && onward.is_some() {
            window.short = Some(before.map_or(window.whole.0, |(at, _)| at + 1).min(window.hi));
        }
        let mut is_old = |cursor: &str| window.cursor.as_deref() == Some(cursor) || !window.cursors.insert(cursor.to_owned());
        let repeats = onward.is_none_or(|onward| is_old(onward.cursor) || onward.is_anothers);
        if is_empty || !is_fresh || is_again || repeats {
            self.doubt = true;
            self.windowed = true;
            if is_empty {
                self.empty_again();
            }
        }
        if self.windowed {
            // Below the oldest row is below all of them only where rows come in order: one that does not belong there may be it.
            let is_in_order = rows.windows(2).all(|pair| second(pair[1].at) <= second(pair[0].at) + 1);
            if let Some(window) = self.windows.front().filter(|_| !is_in_order) {
                let (lo, hi) = (window.oldest.map_or(window.lo, |(at, _)| at), window.hi);
                self.give_up(lo, hi);
            }
            self.shrink(before, past_until, past_id);
        } else if let Some(window) = self.windows.front_mut() {
            window.cursor = onward.map(|onward| onward.cursor.to_owned());
        }
        new
    }

    /// Another search was given the very rows that this one was: what they span is asked again.
    pub(crate) fn is_doubled(&mut self, rows: &[Row]) {
        let seconds = || rows.iter().map(|row| second(row.at)).filter(|at| (self.stretch.lo()..self.stretch.hi()).contains(at));
        if let (Some(lo), Some(hi)) = (seconds().min(), seconds().max()) {
            self.doubt = true;
            self.look_again(lo, hi + 1);
        }
    }

    /// Whether a window's first page is not to be used, since it was made for another question.
    ///
    /// That is a page that was another search's, with rows from outside the window; half of a window with rows from the other
    /// half; or a second look most of whose rows are later than the window: this one is asked again. Where all rows of the
    /// other page fit, two searches may find the same: then each half of the window has its part of them.
    fn is_of_another_question(&mut self, rows: &[Row], twin: Twin, is_twin: bool) -> bool {
        let Some(window) = self.windows.front_mut() else { return false };
        let all_fit = twin == Twin::Not || rows.iter().all(|row| window.fits(row));
        let n_later = rows.iter().filter(|row| second(row.at) > window.hi).count();
        let n_outside = rows.iter().filter(|row| !window.fits(row)).count();
        // A stray row in a half is not worth finding out whose it is.
        let is_elsewhere = match window.half_of {
            Some(_) => n_outside > 0,
            None => window.look > 0 && n_later * 2 > rows.len(),
        };
        let is_strange = !all_fit || is_elsewhere || twin == Twin::Odd;
        if !is_strange && !is_twin {
            return false;
        }
        self.doubt = true;
        if is_strange || twin == Twin::Own {
            let n_tries_max = if window.half_of.is_some() && !is_strange { 1 } else { TRIES_MAX };
            if window.n_tries < n_tries_max {
                window.n_tries += 1;
                return true;
            }
            if is_strange {
                self.is_odd = true;
                // What the other half was answered is worth no more.
                let (lo, hi) = window.half_of.unwrap_or((window.lo, window.whole.0));
                self.give_up(lo, hi);
                self.finish(None);
            }
            return is_strange;
        }
        let Some(at) = middle(rows, window.lo, window.hi).filter(|_| window.half_of.is_none()) else { return false };
        let Window { lo, hi, max_id, look, news, .. } = *window;
        let whole = (lo, hi);
        let half = |lo, hi, max_id| Window { news, half_of: Some(whole), ..Window::new(lo, hi, max_id, look) };
        let halves = (half(at, hi, max_id), half(lo, at, None));
        self.windows.pop_front();
        self.windows.push_front(halves.1);
        self.windows.push_front(halves.0);
        true
    }

    /// A page is empty and claims more: that is looked at again, and never taken for an end.
    fn empty_again(&mut self) {
        let Some(window) = self.windows.front() else { return };
        let below = window.max_id.and_then(|id| TweetId(id).published_at()).map(|at| second(at) + 1);
        let (lo, hi, look) = (window.lo, below.unwrap_or(window.hi).min(window.hi), window.look);
        match window.oldest {
            // There is a way below the oldest row still.
            Some((at, id)) if at + 1 < window.hi || window.max_id.is_none_or(|max| id.saturating_sub(1) < max) => {}
            _ if look < LOOKS_MAX => {
                self.confirmed |= look == 0;
                self.windows.push_back(Window::new(lo, hi, None, look + 1));
            }
            _ => self.give_up(lo, hi),
        }
    }

    /// The provider does not take a cursor any more, or refuses the search altogether.
    pub(crate) fn refuse(&mut self, words: String) {
        let cursor = self.windows.front_mut().and_then(|window| window.cursor.take());
        if cursor.is_some() {
            (self.doubt, self.windowed) = (true, true);
            let before = self.windows.front().and_then(|window| window.oldest);
            return self.shrink(before, false, false);
        }
        self.windows.clear();
        self.refused = Some(words);
        self.unproven.push((self.stretch.from, self.stretch.to));
    }

    /// Goes on below the oldest row without a cursor.
    fn shrink(&mut self, before: Option<(i64, u64)>, past_until: bool, past_id: bool) {
        let Some(window) = self.windows.front_mut() else { return };
        let Some((at, id)) = window.oldest else { return self.finish(before) };
        window.cursor = None;
        window.ids.clear();
        window.cursors.clear();
        let below = id.saturating_sub(1);
        if past_until {
            // Its limits of time are ignored, so there is no way on without a cursor.
            // What was told twice although it was another search's is not believed then, either.
            let (lo, hi) = (window.lo, if window.n_tries > 0 { window.whole.0 } else { at + 1 });
            self.give_up(lo, hi);
            self.finish(before);
        } else if past_id {
            window.hi = at;
            window.max_id = None;
            self.give_up(at, at + 1);
        } else if at + 1 < window.hi {
            window.hi = at + 1;
            window.max_id = None;
        } else if window.max_id.is_none_or(|max| below < max) {
            window.max_id = Some(below);
        } else {
            // The same was asked twice, and there was nothing below.
            return self.finish(before);
        }
        if self.windows.front().is_some_and(|window| window.lo >= window.hi) {
            self.finish(before);
        }
    }

    fn give_up(&mut self, lo: i64, hi: i64) {
        let (from, to) = self.stretch.cut(lo, hi);
        if from < to {
            self.unproven.push((from.0, to.0));
        }
    }

    /// Notes that a stretch is to be asked again, together with one it touches.
    fn look_again(&mut self, lo: i64, hi: i64) {
        // The one in front is being asked now and stays as it is.
        let waits = self.windows.len() > 1;
        match self.windows.back_mut().filter(|last| {
            waits && last.look > 0 && last.oldest.is_none() && last.max_id.is_none() && lo <= last.hi && last.lo <= hi
        }) {
            Some(last) => {
                last.lo = last.lo.min(lo);
                last.hi = last.hi.max(hi);
                last.whole.0 = last.hi;
            }
            None => self.windows.push_back(Window::new(lo, hi, None, 1)),
        }
    }

    /// The window in front is done.
    fn finish(&mut self, before: Option<(i64, u64)>) {
        let Some(window) = self.windows.pop_front() else { return };
        let (hi, max_id) = window.whole;
        let lacks_most = self.lacks_most(&window);
        if window.look == 0 {
            self.above_last = before.map(|(_, id)| id);
        } else if window.news || lacks_most {
            self.doubt = true;
            match window.look {
                look if look < LOOKS_MAX => self.windows.push_back(Window::new(window.lo, hi, max_id, look + 1)),
                _ => self.give_up(window.lo, hi),
            }
        }
        if self.windows.is_empty() && !self.settled {
            self.settle();
        }
    }

    /// Whether a look brought less than half of what others did there: it was not an answer to that question.
    fn lacks_most(&self, window: &Window) -> bool {
        let Some(told) = window.told.as_ref().filter(|_| window.look > 0) else { return false };
        let (hi, max_id) = window.whole;
        // Bounds may be rounded.
        let is_inside = |(id, at): &(&u64, &i64)| window.lo < **at && **at + 1 < hi && max_id.is_none_or(|max| **id < max);
        let (n_there, n_told) = self
            .seen
            .iter()
            .filter(is_inside)
            .fold((0, 0), |(n_there, n_told), (id, _)| (n_there + 1, n_told + usize::from(told.contains(id))));
        n_told * 2 < n_there
    }

    /// The first pass is over: an edge without a known row beyond it is looked at again.
    fn settle(&mut self) {
        self.settled = true;
        let (lo, hi) = (self.stretch.lo(), self.stretch.hi());
        if (!self.left || !self.right) && self.above_last.is_none() {
            // A window that was empty and claimed more was looked at again already.
            if !std::mem::replace(&mut self.confirmed, true) {
                self.windows.push_back(Window::new(lo, hi, None, 1));
            }
            return;
        }
        if !self.left {
            self.confirm();
        }
        if let Some(newest) = self.newest.filter(|newest| !self.right && *newest < hi) {
            self.windows.push_back(Window::new(newest.max(lo), hi, None, 1));
        }
    }

    /// Has the last page asked a second time, if that was not done.
    pub(crate) fn confirm(&mut self) {
        if self.settled && !self.confirmed && self.refused.is_none() {
            self.confirmed = true;
            let below = self.above_last.map(|id| id.saturating_sub(1));
            self.windows.push_back(Window::new(self.stretch.lo(), self.stretch.hi(), below, 1));
        }
    }

    /// What stayed open, in the stretch.
    pub(crate) fn unproven(&self) -> impl Iterator<Item = (UnixMicros, UnixMicros)> + '_ {
        self.unproven.iter().map(|(from, to)| (UnixMicros(*from), UnixMicros(*to)))
    }

    /// Whether rows of the tape were met on both sides.
    pub(crate) fn overlapped(&self) -> bool {
        self.left && self.right
    }
}

/// Where to halve a window of seconds: far from rows, if possible with rows on both sides.
fn middle(rows: &[Row], lo: i64, hi: i64) -> Option<i64> {
    let mut seconds: Vec<_> = rows.iter().map(|row| second(row.at)).collect();
    seconds.sort_unstable();
    let widest = |gaps: &[(i64, i64)]| {
        let (from, to) = gaps.iter().copied().max_by_key(|(from, to)| to - from)?;
        (to - from >= HALF_MIN).then_some(from + (to - from) / 2)
    };
    let between: Vec<_> = seconds.windows(2).map(|pair| (pair[0], pair[1])).collect();
    let (first, last) = (*seconds.first()?, *seconds.last()?);
    // Where they are dense, half of them are on each side.
    let median = || (last - first >= HALF_MIN - 1).then(|| seconds[seconds.len() / 2].clamp(first + 2, last - 1));
    widest(&between).or_else(|| widest(&[(lo, first), (last, hi)])).or_else(median)
}

/// Puts limits of time, and of ids, behind a search; a text with alternatives is kept together.
fn limited(text: &str, lo: i64, hi: i64, max_id: Option<u64>) -> String {
    let max_id = max_id.map(|id| format!(" max_id:{id}")).unwrap_or_default();
    let whole = if text.contains(" OR ") { format!("({text})") } else { text.to_owned() };
    let retweets = if says_retweets(text) { "" } else { " include:nativeretweets" };
    format!("{whole} since_time:{lo} until_time:{hi}{max_id}{retweets}")
}

/// Whether a search says itself if plain retweets belong to it.
///
/// Documented: a search leaves them out unless `include:nativeretweets` is there (twitterapi.io blog, monitoring
/// example); deliveries have them.
fn says_retweets(text: &str) -> bool {
    let words = ["include:nativeretweets", "filter:nativeretweets", "-filter:retweets", "is:retweet"];
    let text = text.to_ascii_lowercase();
    words.iter().any(|word| text.contains(word))
}

/// Searches for the posts of accounts, a few accounts each.
pub(crate) fn groups(handles: &[String]) -> Vec<String> {
    let mut groups: Vec<String> = Vec::new();
    let mut n_in_last = 0;
    for handle in handles {
        let one = format!("from:{handle}");
        match groups.last_mut() {
            Some(last) if n_in_last < GROUP_ACCOUNTS && last.len() + 4 + one.len() <= GROUP_CHARS => {
                last.push_str(" OR ");
                last.push_str(&one);
                n_in_last += 1;
            }
            _ => {
                groups.push(one);
                n_in_last = 1;
            }
        }
    }
    groups
}

/// X's own rule for handles: 15 letters, digits and underscores; anything else must not get into a search.
pub(crate) fn is_handle(text: &str) -> bool {
    (1..=15).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

/// A `GET` with the key where the settings want it: in `x-api-key`, or in the query as `api_key`.
pub(crate) fn get(settings: &Settings, host: &str, path: &str, params: &[(&str, &str)]) -> Request {
    let own = || Endpoint { tls: true, host: host.to_owned(), port: 443 };
    let (endpoint, prefix) = match &settings.base {
        Some(base) => (base.endpoint.clone(), base.prefix.as_str()),
        None => (own(), ""),
    };
    let mut target = format!("{prefix}{path}");
    for (at, (name, value)) in params.iter().enumerate() {
        let mark = if at == 0 { '?' } else { '&' };
        target.push_str(&format!("{mark}{name}={}", percent_encode(value)));
    }
    let scheme = if endpoint.tls { "https" } else { "http" };
    let mut shown = format!("{scheme}://{}{target}", endpoint.authority());
    let mut headers = Vec::new();
    match (settings.auth, settings.credentials.key.clone()) {
        (Auth::Query, Some(key)) => {
            let mark = if params.is_empty() { '?' } else { '&' };
            target.push_str(&format!("{mark}api_key={}", percent_encode(key.expose())));
            shown.push_str(&format!("{mark}api_key=***"));
        }
        (_, Some(key)) => headers.push(("x-api-key", key)),
        (_, None) => {}
    }
    let target = Secret::new(target).expect("a path begins with a slash and so is not empty");
    Request { method: "GET", endpoint, target, headers, body: String::new(), shown }
}

/// A `POST` of JSON, with the key as [`get`] has it.
pub(crate) fn post(settings: &Settings, host: &str, path: &str, body: String) -> Request {
    let request = get(settings, host, path, &[]);
    let kind = Secret::new("application/json").map(|kind| ("content-type", kind));
    Request { method: "POST", headers: request.headers.into_iter().chain(kind).collect(), body, ..request }
}

/// What an answer is besides a page.
pub(crate) enum Refusal {
    /// Ask again, or stop.
    Trouble(Trouble),
    /// The provider understood, and does not want to: 400, 404, 422.
    Refused {
        /// Its status and words.
        words: String,
    },
}

/// Reads the status of an answer; `wait` is for a 429 that names no time, `cures` are for 401, 402 and 403.
pub(crate) fn judge(settings: &Settings, response: &Response, wait: Duration, cures: [&str; 3]) -> Result<(), Refusal> {
    let status = response.status;
    let words = words_of(settings, response);
    let said = if words.is_empty() { format!("status {status}") } else { format!("status {status}, \"{words}\"") };
    let stop = |why: String| Err(Refusal::Trouble(Trouble::Stop { why }));
    match status {
        200..=299 => Ok(()),
        401 => stop(format!("{} ({said})", cures[0])),
        402 => stop(format!("{} ({said})", cures[1])),
        403 => stop(format!("{} ({said})", cures[2])),
        429 => again(Some(response.retry_after().unwrap_or(wait)), format!("too many requests ({said})")),
        408 | 425 | 500..=599 => again(response.retry_after(), format!("the provider has trouble ({said})")),
        400 | 404 | 422 => Err(Refusal::Refused { words: said }),
        _ => stop(format!("the provider's history is not where it should be ({said}); check the address of this source")),
    }
}

fn again(after: Option<Duration>, why: String) -> Result<(), Refusal> {
    Err(Refusal::Trouble(Trouble::Again { after, why }))
}

/// An answer that is not the JSON it should be.
pub(crate) fn broken(what: &str) -> Trouble {
    Trouble::Again { after: None, why: format!("the answer is {what}") }
}

/// The words of a refusal, fit for a log: no key, no control characters, not long.
pub(crate) fn words_of(settings: &Settings, response: &Response) -> String {
    let (mut name, mut words) = (None, None);
    let mut json = Json::new(std::str::from_utf8(&response.body).unwrap_or_default());
    let read = json.object(|key, json| {
        match key {
            "error" => name = json.text()?.or(name.take()),
            "message" | "msg" | "detail" => words = json.text()?.or(words.take()),
            _ => {}
        }
        Ok(())
    });
    if read.is_err() {
        return String::new();
    }
    let parts: Vec<_> = [name, words].into_iter().flatten().collect();
    let words = settings.credentials.hidden_in(&parts.join(": "));
    words.chars().map(|c| if c.is_control() { ' ' } else { c }).take(WORDS_MAX).collect()
}

/// Intervals as a verdict wants them.
pub(crate) fn merged(intervals: impl IntoIterator<Item = (UnixMicros, UnixMicros)>) -> Vec<(UnixMicros, UnixMicros)> {
    let mut set = IntervalSet::new();
    for (from, to) in intervals {
        set.insert(from, to);
    }
    set.iter().collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "a test may panic and look at the clock")]
pub(crate) mod peer {
    //! A fake history to walk through, with a hole in the tape, and what a walk did to it.

    use std::collections::{BTreeMap, HashSet};
    use std::time::Instant;

    use bytes::Bytes;
    use serde_json::Value;

    use super::*;
    use crate::model::{EventId, Provider};
    use crate::provider::history::{Next, Proof, Selector, Verdict, Walk, decode_page};
    use crate::provider::past::{Index, Past};
    use crate::provider::{Asked, Rest, RestSettings, decode, default_settings, form_values, tamper};

    pub(crate) const KEY: &str = "sb_live_hunter2";

    /// 2026-01-05T12:00:00Z and so many milliseconds.
    pub(crate) fn ms(ms: i64) -> UnixMicros {
        UnixMicros(1_767_614_400_000_000 + ms * 1_000)
    }

    pub(crate) struct Tape(pub(crate) HashSet<u64>);

    impl Known for Tape {
        fn holds(&mut self, kind: EventKind, id: &EventId) -> bool {
            kind == EventKind::Tweet && matches!(id, EventId::Tweet(id) if self.0.contains(&id.0))
        }
    }

    /// Everything that happened, and the part of it that was not received.
    pub(crate) struct Peer {
        pub(crate) provider: Provider,
        pub(crate) rest: Rest,
        index: Index,
        shelf: Vec<Bytes>,
        now: UnixMicros,
        start: Instant,
        pub(crate) wanted: Wanted,
        /// Ids that are missing, with their time.
        pub(crate) lost: BTreeMap<u64, UnixMicros>,
        received: HashSet<u64>,
    }

    impl Peer {
        /// Nothing was received in `[down, up)`; events come at most 10 s late.
        pub(crate) fn new(
            provider: Provider,
            mut envelopes: Vec<(UnixMicros, String)>,
            down: UnixMicros,
            up: UnixMicros,
        ) -> Self {
            envelopes.sort_by_key(|(at, _)| *at);
            let (mut index, mut shelf) = (Index::default(), Vec::new());
            let (mut lost, mut received, mut selectors) = (BTreeMap::new(), HashSet::new(), BTreeMap::new());
            for (at, text) in &envelopes {
                let decoded = decode(provider, text.as_bytes());
                index.note(*at, &decoded, shelf.len() as u64);
                shelf.push(Bytes::from(text.clone()));
                for event in &decoded.events {
                    let EventId::Tweet(id) = event.id else { continue };
                    if (down..up).contains(at) {
                        lost.insert(id.0, event.published_at.unwrap());
                    } else {
                        received.insert(id.0);
                        if !event.selector.is_empty() {
                            selectors.entry(event.selector.clone()).or_insert_with(|| Bytes::from(text.clone()));
                        }
                    }
                }
            }
            let from = down.minus(Duration::from_secs(10));
            lost.retain(|id, at| !received.contains(id) && (from..up).contains(at));
            let wanted = Wanted {
                scope: "*".to_owned(),
                from: down.minus(Duration::from_secs(10)),
                to: up,
                margin: Duration::from_secs(30),
                selectors: selectors
                    .into_iter()
                    .map(|(id, sample)| Selector { id, sample: Some(sample), ..Selector::default() })
                    .collect(),
                is_listed: false,
            };
            let settings = RestSettings { key: Secret::new(KEY), rate_limits: false, ..RestSettings::default() };
            let now = envelopes.last().map_or(up, |(at, _)| *at).plus(Duration::from_secs(60));
            let rest = Rest::new(provider, settings);
            Self { provider, rest, index, shelf, now, start: Instant::now(), wanted, lost, received }
        }

        pub(crate) fn settings(&self) -> Settings {
            let mut settings = default_settings(self.provider);
            settings.credentials.key = Secret::new(KEY);
            settings
        }

        pub(crate) fn walk(&self) -> Walk {
            Walk::new(&self.settings(), self.wanted.clone(), None)
        }

        pub(crate) fn ask(&mut self, method: &str, target: &str, body: &str) -> Response {
            let (path, query) = target.split_once('?').unwrap_or((target, ""));
            let headers = vec![("x-api-key".to_owned(), KEY.to_owned())];
            let asked = Asked { method, path, query, headers: &headers, body: body.as_bytes(), wants_upgrade: false };
            let mut past = Past::new(self.provider, &mut self.index, &mut self.shelf, self.now);
            self.rest.asked(&asked, &mut past, self.start)
        }
    }

    /// What a walk did.
    pub(crate) struct Ran {
        pub(crate) verdict: Verdict,
        /// Targets, in order.
        pub(crate) asked: Vec<String>,
        pub(crate) brought: HashSet<u64>,
        pub(crate) new: u64,
        pub(crate) micro_usd: u64,
        /// Rows that each search or log has in it.
        pub(crate) rows: BTreeMap<String, HashSet<String>>,
    }

    impl Ran {
        pub(crate) fn is_filled(&self) -> bool {
            self.verdict.kinds.iter().all(|(_, proof)| *proof == Proof::Filled)
        }

        pub(crate) fn rest(&self) -> Vec<(UnixMicros, UnixMicros)> {
            match &self.verdict.kinds[0].1 {
                Proof::Partial { rest, .. } => rest.clone(),
                _ => Vec::new(),
            }
        }

        /// What is lost in silence: neither brought nor left open by the verdict.
        pub(crate) fn silently_lost(&self, peer: &Peer) -> Vec<String> {
            let rest = self.rest();
            let open = |at: &UnixMicros| rest.iter().any(|(from, to)| from <= at && at < to);
            let lost = peer.lost.iter().filter(|(id, at)| !open(at) && !self.brought.contains(id));
            lost.map(|(id, at)| format!("{id} at {at}")).collect()
        }

        pub(crate) fn check(&self, peer: &Peer, what: &str) {
            assert_eq!(self.silently_lost(peer), [""; 0], "{what}: {:?}", self.verdict);
        }
    }

    /// Every lie at every answer, and some all the time; gives what went wrong.
    pub(crate) fn lies(peer: &mut Peer, step: usize) -> Vec<String> {
        let provider = peer.provider;
        let walk = peer.walk();
        let n_asked = run(peer, walk, false, |_, _, _, honest| honest).asked.len();
        let mut wrong = Vec::new();
        for how in TAMPERS {
            for at in (0..n_asked).step_by(step) {
                let mut walk = peer.walk();
                if how == "missing_row" {
                    walk.doubt();
                }
                let ran = run(peer, walk, at % 2 == 1, |n, target, before, honest| match n == at {
                    true => tampered(how, provider, target, before, honest, at as u64),
                    false => honest,
                });
                let lost = ran.silently_lost(peer);
                // One lie is seen through.
                if !lost.is_empty() || !ran.is_filled() || ran.asked.len() > 3 * n_asked + 12 {
                    wrong.push(format!(
                        "{how} at {at}: {} of {n_asked} requests, {:?}, lost {} ({:?})",
                        ran.asked.len(),
                        ran.verdict,
                        lost.len(),
                        lost.first()
                    ));
                }
            }
            // All the time: the walk ends, and what it cannot have it declares.
            if !matches!(how, "error" | "missing_row") {
                let walk = peer.walk();
                let ran = run(peer, walk, false, |n, target, before, honest| match n % 2 == 1 {
                    true => tampered(how, provider, target, before, honest, n as u64),
                    false => honest,
                });
                let lost = ran.silently_lost(peer);
                if !lost.is_empty() {
                    wrong.push(format!("{how} half the time: {} lost, {:?}", lost.len(), ran.verdict));
                }
            }
        }
        wrong
    }

    /// Walks to the end; `change` sees the number of the answer, the target, the answer before and the answer.
    pub(crate) fn run(
        peer: &mut Peer,
        mut walk: Walk,
        resume: bool,
        mut change: impl FnMut(usize, &str, Option<&Value>, Response) -> Response,
    ) -> Ran {
        let mut tape = Tape(peer.received.clone());
        let (mut asked, mut brought, mut rows) = (Vec::new(), HashSet::new(), BTreeMap::<String, HashSet<String>>::new());
        let (mut new, mut micro_usd, mut before) = (0, 0, None);
        for n in 0..2_000 {
            let request = match walk.next() {
                Next::Ask(request) => request,
                Next::Done(verdict) => return Ran { verdict, asked, brought, new, micro_usd, rows },
            };
            let target = request.target.expose().to_owned();
            assert!(matches!(walk.next(), Next::Ask(again) if again.target == request.target), "asking twice changes nothing");
            assert!(!request.shown.contains(KEY) && !format!("{request:?}").contains(KEY), "{}", request.shown);
            let honest = peer.ask(request.method, &target, &request.body);
            let response = change(n, &target, before.as_ref(), honest);
            // What was given out, lies and all: only that can come again.
            let page: Option<Value> = serde_json::from_slice(&response.body).ok().filter(|_| response.status == 200);
            if page.as_ref().is_some_and(|page| page.get("rules").is_none() && page.get("monitors").is_none()) {
                before = page;
            }
            let ids: Vec<u64> = match response.status {
                200 => decode_page(peer.provider, &response.body)
                    .events
                    .into_iter()
                    .map(|event| match event.id {
                        EventId::Tweet(id) => id.0,
                        EventId::Text(text) => panic!("{text}"),
                    })
                    .collect(),
                _ => Vec::new(),
            };
            rows.entry(list_of(&target)).or_default().extend(row_ids(&response, &ids));
            brought.extend(&ids);
            asked.push(target);
            match walk.answered(&response, &mut tape) {
                Ok(page) => {
                    new += page.new;
                    micro_usd += page.micro_usd;
                }
                Err(Trouble::Again { .. }) => {}
                Err(Trouble::Stop { why }) => panic!("{why}"),
            }
            tape.0.extend(ids);
            if resume {
                let cursor = walk.cursor();
                assert!(!cursor.contains(KEY) && !cursor.contains('\n'));
                walk = Walk::new(&peer.settings(), peer.wanted.clone(), Some(&cursor));
                assert_eq!(walk.cursor(), cursor);
            }
        }
        panic!("no end: {:?}", &asked[asked.len() - 6..]);
    }

    /// The list a request asks a page of.
    fn list_of(target: &str) -> String {
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let query = form_values(query).find(|(name, _)| name == "query").map(|(_, query)| query).unwrap_or_default();
        let query = query.split(" since_time:").next().unwrap_or_default().to_owned();
        if path.ends_with("/tweets/") { path.to_owned() } else { format!("{path} {query}") }
    }

    fn row_ids(response: &Response, ids: &[u64]) -> Vec<String> {
        let page: Value = serde_json::from_slice(&response.body).unwrap_or_default();
        match page["logs"].as_array() {
            Some(logs) => logs.iter().map(|row| row["id"].as_str().unwrap().to_owned()).collect(),
            None => ids.iter().map(u64::to_string).collect(),
        }
    }

    pub(crate) const TAMPERS: [&str; 10] = [
        "repeat_page",
        "cursor_loop",
        "missing_row",
        "lying_next",
        "shuffle",
        "duplicate_row",
        "429",
        "500",
        "truncated",
        "error",
    ];

    /// A wrong answer in place of a right one.
    pub(crate) fn tampered(
        how: &str,
        provider: Provider,
        target: &str,
        before: Option<&Value>,
        honest: Response,
        roll: u64,
    ) -> Response {
        match how {
            "429" => return tamper::refusal(provider, 429, Some(Duration::from_secs(2)), None),
            "500" => return tamper::refusal(provider, 500, None, None),
            "truncated" => return Response { body: honest.body.slice(..honest.body.len() / 2), ..honest },
            "error" => return Response::json(200, r#"{"status":"error","msg":"try later"}"#),
            _ => {}
        }
        let Ok(mut page) = serde_json::from_slice::<Value>(&honest.body) else { return honest };
        let asked = target.split_once('?').and_then(|(_, query)| tamper::cursor_asked(provider, query));
        let row = tamper::row(provider, &page, None, roll);
        let changed = match how {
            "repeat_page" => before.is_some_and(|before| tamper::repeat_page(provider, &mut page, before)),
            "cursor_loop" => tamper::cursor_loop(provider, &mut page, &asked.unwrap_or_else(|| "made-up".to_owned())),
            "missing_row" => row.is_some_and(|row| tamper::missing_row(provider, &mut page, row)),
            "lying_next" => tamper::lying_next(provider, &mut page),
            "shuffle" => tamper::shuffle(provider, &mut page, roll),
            _ => row.is_some_and(|row| tamper::duplicate_row(provider, &mut page, row)),
        };
        if changed { Response { body: page.to_string().into(), ..honest } } else { honest }
    }
}
