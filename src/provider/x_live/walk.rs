//! What X itself still knows of a hole: the totals of posts as of now, and conversations backwards.
//!
//! Owns what is asked and what it proves; `page.rs` reads the answers. The steps of a counter and the typing in a
//! conversation are in no history. Conversations are asked for only where direct messages are switched on.
//! Source: d60/twikit 2.3.3 and mautrix-twitter, all public; X documents none of this.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::json;
use xxhash_rust::xxh3::xxh3_64;

use super::client::session_headers;
use super::{NOT_AUTHENTICATED, page};
use crate::model::{Endpoint, EventId, EventKind, Request, Response, Secret, TweetId, UnixMicros};
use crate::provider::history::{Known, Next, Page, Price, Proof, Trouble, Verdict, Wanted, limit_ends_at};
use crate::provider::{Settings, percent_encode};

/// Host of X's own interface. Documented: twikit.
const HOST: &str = "x.com";

/// Names the query in its address; it changes with X's releases. Documented: twikit 2.3.3.
const TWEET_RESULTS_BY_REST_IDS: &str = "PTN9HhBAlpoCTHfspDgqLA";

/// What the web client of that release switched on for the query: X refuses a query that leaves one out.
const FEATURES: [&str; 8] = [
    "creator_subscriptions_tweet_preview_api_enabled",
    "freedom_of_speech_not_reach_fetch_enabled",
    "longform_notetweets_consumption_enabled",
    "responsive_web_edit_tweet_api_enabled",
    "responsive_web_graphql_exclude_directive_enabled",
    "responsive_web_graphql_timeline_navigation_enabled",
    "standardized_nudges_misinfo",
    "view_counts_everywhere_api_enabled",
];

/// Posts of one request at most. Ours.
const POSTS_MAX: usize = 100;

/// Version of the cursor.
const VERSION: u8 = 1;

/// Times that a page without any use is asked for again. Ours.
const TRIES_MAX: u8 = 3;

/// Passes through a conversation whose first page changes. Ours.
const PASSES_MAX: u8 = 3;

/// Span of every limit. Documented: twikit's `ratelimits.md`.
const LIMIT_WINDOW: Duration = Duration::from_secs(15 * 60);

/// Wait after 429 without a word about when. Ours.
const LIMITED_WAIT: Duration = Duration::from_secs(60);

/// Code "Rate limit exceeded", in an answer that may be HTTP 200. Documented: X's page on response codes.
const RATE_LIMITED: i64 = 88;

/// How far behind the end a conversation is entered: an entry there proves that nothing of the end is missing. Ours; a
/// gap's end is a horizon later than its outage already, and a longer way would cost pages.
const ENTRY: Duration = Duration::from_secs(10);

/// A walk.
#[derive(Debug)]
pub struct Walk {
    settings: Settings,
    wanted: Wanted,
    posts: Vec<TweetId>,
    conversations: Vec<String>,
    has_typing: bool,
    has_unknown: bool,
    state: State,
}

/// All that must outlive the process. Conversations stand here by position: their ids name their members.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct State {
    version: u8,
    /// Hash of what is wanted.
    wanted: u64,
    n_posts_asked: usize,
    n_posts_found: u64,
    courses: Vec<Course>,
    n_requests: u64,
    n_rows: u64,
}

/// The way back through one conversation.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Course {
    is_done: bool,
    /// The oldest id there is; `None` before the first page.
    max_id: Option<u64>,
    /// Hash of the ids of the first page.
    first_page: Option<u64>,
    /// Whether the first page is looked at again.
    is_looking: bool,
    /// Whether the last page was the end, by its word or its rows, and what lies below the stretch's oldest row is asked for
    /// again.
    #[serde(default)]
    is_confirming: bool,
    /// The oldest entry of the page that was called the end.
    #[serde(default)]
    end_at: Option<u64>,
    n_passes: u8,
    n_tries: u8,
    /// Whether any page had to be asked for again.
    #[serde(default)]
    is_caught: bool,

    /// Entries of the longest page.
    page_size: usize,
    is_high_edge_seen: bool,
    /// Why everything before `max_id` is open.
    why: Option<String>,
}

impl Walk {
    pub(crate) fn new(settings: &Settings, wanted: Wanted, cursor: Option<&str>) -> Self {
        let mut topics: Vec<&str> = match wanted.scope.as_str() {
            "*" => wanted
                .selectors
                .iter()
                .map(|selector| selector.id.as_str())
                .chain(settings.topics.iter().map(String::as_str))
                .collect(),
            one => vec![one],
        };
        topics.sort_unstable();
        topics.dedup();
        let mut posts: Vec<_> =
            topics.iter().filter_map(|topic| TweetId::parse(topic.strip_prefix("/tweet_engagement/")?)).collect();
        posts.dedup();
        let conversations = topics.iter().filter_map(|topic| topic.strip_prefix("/dm_update/"));
        let conversations: Vec<_> = conversations.filter(|id| !id.is_empty()).map(str::to_owned).collect();
        let has_typing = topics.iter().any(|topic| topic.starts_with("/dm_typing/"));
        let has_unknown = wanted.scope != "*" && posts.is_empty() && conversations.is_empty() && !has_typing;
        let (from, to, margin) = (wanted.from.0, wanted.to.0, wanted.margin.as_micros());
        let of = xxh3_64(format!("{} {from} {to} {margin} {topics:?} {}", wanted.scope, settings.direct_messages).as_bytes());
        let state = cursor.and_then(|text| serde_json::from_str(text).ok());
        let n_talks = conversations.len();
        let is_same = |state: &State| (state.version, state.wanted, state.courses.len()) == (VERSION, of, n_talks);
        let state = state.filter(is_same).unwrap_or_else(|| State {
            version: VERSION,
            wanted: of,
            n_posts_asked: 0,
            n_posts_found: 0,
            courses: vec![Course { n_passes: 1, ..Course::default() }; n_talks],
            n_requests: 0,
            n_rows: 0,
        });
        Self { settings: settings.clone(), wanted, posts, conversations, has_typing, has_unknown, state }
    }

    pub(crate) fn price(&self) -> Price {
        let talks = if self.settings.direct_messages { self.conversations.len() } else { 0 };
        Price { requests: (self.posts.len().div_ceil(POSTS_MAX) + talks) as u64, ..Price::default() }
    }

    /// Whether the next answer has totals, which are as of now and so always new.
    pub(crate) fn asks_totals(&self) -> bool {
        !self.batch().is_empty()
    }

    /// Whether a conversation was caught at something.
    pub(crate) fn is_caught(&self) -> bool {
        self.state.courses.iter().any(|course| course.is_caught)
    }

    pub(crate) fn next(&mut self) -> Next {
        if self.wanted.from >= self.wanted.to {
            return Next::Done(self.verdict());
        }
        let batch = self.batch();
        if !batch.is_empty() {
            return Next::Ask(self.ask_totals(batch));
        }
        match self.current() {
            Some(at) => Next::Ask(self.ask_talk(at)),
            None => Next::Done(self.verdict()),
        }
    }

    pub(crate) fn answered(&mut self, response: &Response, known: &mut dyn Known) -> Result<Page, Trouble> {
        let n_batch = self.batch().len();
        trouble(response)?;
        let page = page::read(&response.body).ok_or_else(|| again(None, "X's answer is no JSON (cut off?)"))?;
        let (is_right, complaint) = (if n_batch > 0 { page.posts.is_some() } else { page.talk.is_some() }, page.complaint);
        if !is_right {
            return Err(match complaint {
                Some(RATE_LIMITED) => again(Some(limit_wait(response)), "X asks to slow down"),
                Some(NOT_AUTHENTICATED) => not_authenticated(),
                Some(code) => again(None, &format!("X complains instead of answering (code {code})")),
                None => again(None, "X's answer is not what was asked for (changed?)"),
            });
        }
        let mut told = Page::default();
        if n_batch > 0 {
            let found = page.posts.unwrap_or_default();
            let batch = self.batch();
            told.rows = found.len() as u64;
            // A snapshot is always new: it is the state as of now.
            told.new = found.iter().filter(|id| batch.contains(id)).count() as u64;
            self.state.n_posts_found += told.new;
            self.state.n_posts_asked += n_batch;
        } else if let (Some(at), Some(talk)) = (self.current(), page.talk) {
            told = self.talk(at, &talk, known);
        }
        self.state.n_requests += 1;
        self.state.n_rows += told.rows;
        Ok(told)
    }

    pub(crate) fn cursor(&self) -> String {
        // Numbers, texts and lists always have a JSON form.
        serde_json::to_string(&self.state).unwrap_or_default()
    }

    /// Posts that are next.
    fn batch(&self) -> &[TweetId] {
        let rest = self.posts.get(self.state.n_posts_asked..).unwrap_or(&[]);
        &rest[..rest.len().min(POSTS_MAX)]
    }

    /// The conversation that is next.
    fn current(&self) -> Option<usize> {
        let is_open = |course: &Course| self.settings.direct_messages && !course.is_done;
        self.state.courses.iter().position(is_open)
    }

    /// Where a conversation is entered: an id made of the end, since ids of messages are snowflakes like those of posts.
    fn entrance(&self) -> u64 {
        TweetId::first_at(self.wanted.to.plus(ENTRY).plus(Duration::from_millis(1))).0
    }

    fn ask_totals(&self, batch: &[TweetId]) -> Request {
        let ids: Vec<_> = batch.iter().map(TweetId::to_string).collect();
        let variables = json!({
            "tweetIds": ids,
            "includePromotedContent": false,
            "withBirdwatchNotes": false,
            "withVoice": false,
            "withCommunity": false,
        });
        let features: serde_json::Map<_, _> = FEATURES.iter().map(|name| ((*name).to_owned(), json!(true))).collect();
        let features = serde_json::Value::Object(features).to_string();
        let path = format!("/i/api/graphql/{TWEET_RESULTS_BY_REST_IDS}/TweetResultsByRestIds");
        let query = format!("?variables={}&features={}", percent_encode(&variables.to_string()), percent_encode(&features));
        self.request(&format!("{path}{query}"), &format!("{path} of {} posts", ids.len()))
    }

    fn ask_talk(&self, at: usize) -> Request {
        let max_id = self.state.courses[at].max_id.unwrap_or_else(|| self.entrance());
        let of = |id: &str| {
            let query = "context=FETCH_DM_CONVERSATION_HISTORY&include_conversation_info=true";
            format!("/i/api/1.1/dm/conversation/{id}.json?{query}&max_id={max_id}")
        };
        // A conversation's id names its members: it is not shown.
        self.request(&of(&percent_encode(&self.conversations[at])), &of("***"))
    }

    fn request(&self, target: &str, shown: &str) -> Request {
        let base = self.settings.base.as_ref();
        let own = || Endpoint { tls: true, host: HOST.to_owned(), port: 443 };
        let endpoint = base.map_or_else(own, |base| base.endpoint.clone());
        let prefix = base.map_or("", |base| base.prefix.as_str());
        let mut headers = session_headers(&self.settings);
        headers.push(("accept", "application/json".to_owned()));
        Request {
            method: "GET",
            shown: format!("{}://{}{prefix}{shown}", if endpoint.tls { "https" } else { "http" }, endpoint.authority()),
            endpoint,
            target: Secret::new(format!("{prefix}{target}")).expect("a path of ours is never empty"),
            headers: headers.into_iter().filter_map(|(name, value)| Some((name, Secret::new(value)?))).collect(),
            body: String::new(),
        }
    }

    /// Goes on from a page of a conversation.
    fn talk(&mut self, at: usize, talk: &page::Talk, known: &mut dyn Known) -> Page {
        let (from, to) = (self.wanted.from, self.wanted.to);
        let (entrance, low) = (self.entrance(), from);
        let course = &mut self.state.courses[at];
        let asked = course.max_id.unwrap_or(entrance);
        // Entries of other conversations are no part of this one's order.
        let own = self.conversations[at].as_str();
        let is_own = |entry: &page::Entry| entry.conversation.is_empty() || entry.conversation == own;
        let mut ids: Vec<u64> = talk.entries.iter().filter(|entry| is_own(entry)).filter_map(|entry| Some(entry.id?.0)).collect();
        ids.sort_unstable();
        ids.dedup();
        let mut told = Page { rows: talk.entries.len() as u64, ..Page::default() };
        for entry in &talk.entries {
            let Some(id) = entry.id else { continue };
            let sent_at = entry.sent_at.or(id.published_at());
            let is_inside = sent_at.is_some_and(|at| from <= at && at < to);
            told.new += u64::from(is_inside && !known.holds(EventKind::DmUpdate, &EventId::Text(id.to_string())));
        }
        // Whether the end is inside is not said, so the entry at the end may be there again.
        let n_strange = ids.iter().filter(|id| **id > asked).count();
        let is_useless = n_strange * 2 > ids.len() || (ids.is_empty() && !talk.is_at_end);
        let is_short = ids.len() < course.page_size && !talk.is_at_end;
        let is_torn = talk.named.iter().flatten().any(|named| ids.binary_search(named).is_err());
        let is_doubtful = is_useless || is_short || is_torn;
        let tries = if is_useless { TRIES_MAX } else { 1 };
        course.is_caught |= is_doubtful;
        if is_doubtful && course.n_tries < tries {
            course.n_tries += 1;
            return told;
        }
        course.n_tries = 0;
        if is_useless {
            course.why = Some("the conversation claims more and gives nothing, or gives what was not asked for".to_owned());
            course.max_id = Some(asked);
            course.is_done = true;
            return told;
        }
        // Shorter than a later one, an earlier page was short; that it was the last is not so.
        course.is_caught |= (1..ids.len()).contains(&course.page_size);
        course.page_size = course.page_size.max(ids.len());
        let of_ids = xxh3_64(format!("{ids:?}").as_bytes());
        if course.is_looking {
            course.is_looking = false;
            if course.first_page == Some(of_ids) {
                course.is_done = true;
                return told;
            }
            course.n_passes += 1;
            course.first_page = None;
            course.is_confirming = false;
        }
        course.first_page = course.first_page.or(Some(of_ids));
        let at = |id: u64| TweetId(id).published_at();
        // An entry above what was asked for is no proof of anything.
        ids.retain(|id| *id <= asked);
        course.is_high_edge_seen |= ids.last().is_some_and(|id| at(*id).is_some_and(|at| at >= to));
        let oldest = ids.first().copied().unwrap_or(asked);
        let is_over = talk.is_at_end || at(oldest).is_none_or(|at| at < low);
        let is_below = |id: &u64| course.is_confirming || *id < asked;
        let oldest_inside = ids.iter().copied().find(|id| at(*id).is_some_and(|at| at >= low)).filter(is_below);
        // What was called the end was none.
        let is_beyond = course.end_at.is_some_and(|end| oldest < end);
        course.is_caught |= course.is_confirming && (is_beyond || oldest_inside.is_some());
        if is_over && (oldest_inside.is_some() || !course.is_confirming) {
            // An end is told twice, the second time below everything that was found: a page that comes again would fit otherwise.
            (course.is_confirming, course.max_id) = (true, Some(oldest_inside.map_or(asked, |id| id.saturating_sub(1))));
            course.end_at = talk.is_at_end.then_some(oldest);
            return told;
        }
        if !is_over && oldest < asked {
            course.max_id = Some(oldest);
        } else if !is_over {
            course.why = Some("the conversation does not go further back".to_owned());
            course.is_done = true;
        } else if course.is_high_edge_seen {
            course.is_done = true;
        } else if course.n_passes > PASSES_MAX {
            course.why = Some("the conversation is another one each time it is asked for".to_owned());
            (course.max_id, course.is_done) = (Some(entrance), true);
        } else {
            (course.is_looking, course.is_confirming, course.max_id) = (true, false, None);
        }
        told
    }

    fn verdict(&self) -> Verdict {
        let mut kinds = Vec::new();
        let n_posts = self.posts.len();
        let is_all = self.wanted.scope == "*";
        if n_posts > 0 || is_all || self.has_unknown {
            let found = self.state.n_posts_found;
            let why = format!(
                "no history has the steps of a counter; the totals of {found} of {n_posts} posts were taken as they are now"
            );
            kinds.push((EventKind::Engagement, Proof::Unfillable { why }));
        }
        if !self.conversations.is_empty() || self.has_unknown {
            kinds.push((EventKind::DmUpdate, self.talks()));
        }
        if self.has_typing || self.has_unknown {
            kinds.push((EventKind::DmTyping, Proof::Unfillable { why: "no history has who was typing".to_owned() }));
        }
        let State { n_requests, n_rows, .. } = self.state;
        let n_talks = self.conversations.len();
        let evidence = format!(
            "{n_rows} rows in {n_requests} requests: totals of {n_posts} posts, {n_talks} conversations back beyond the stretch; encrypted conversations are not among them"
        );
        Verdict { kinds, evidence }
    }

    fn talks(&self) -> Proof {
        let (from, to) = (self.wanted.from, self.wanted.to);
        let whole = |why: &str| Proof::Partial { rest: vec![(from, to)], why: why.to_owned() };
        if self.has_unknown {
            return Proof::Unfillable { why: "nothing is known of such a topic".to_owned() };
        }
        if !self.settings.direct_messages {
            return whole("direct messages are private and must be switched on for this source");
        }
        let open = |course: &Course| Some((course.max_id?, course.why.clone()?));
        let open: Vec<_> = self.state.courses.iter().filter_map(open).collect();
        // What is open begins at the oldest message that came and goes back: the stretch up to the latest of those.
        let end = open.iter().filter_map(|(id, _)| TweetId(*id).published_at()).max().map(|at| at.plus(Duration::from_millis(1)));
        match (open.first(), end) {
            (Some((_, why)), end) => {
                let end = end.unwrap_or(to).min(to);
                if end <= from { Proof::Filled } else { Proof::Partial { rest: vec![(from, end)], why: why.clone() } }
            }
            (None, _) => Proof::Filled,
        }
    }
}

fn again(after: Option<Duration>, why: &str) -> Trouble {
    Trouble::Again { after, why: why.to_owned() }
}

fn not_authenticated() -> Trouble {
    let why = "X does not accept the cookies: copy auth_token and ct0 of a logged-in browser session again";
    Trouble::Stop { why: why.to_owned() }
}

/// Until when the limit holds by X's own clock, which stands in the same answer.
fn limit_wait(response: &Response) -> Duration {
    if let Some(wait) = response.retry_after() {
        return wait;
    }
    let Some(ends_at) = limit_ends_at(response) else { return LIMITED_WAIT };
    let parser = jiff::fmt::rfc2822::DateTimeParser::new();
    let date = response.header("date").and_then(|date| parser.parse_timestamp(date).ok());
    // Without its clock the whole span is waited for.
    let Some(date) = date else { return LIMIT_WINDOW };
    let wait = ends_at.since(UnixMicros(date.as_microsecond()));
    Duration::from_micros(u64::try_from(wait).unwrap_or(0)).clamp(Duration::from_secs(1), LIMIT_WINDOW)
}

/// Whether an answer is a page, and if not, what to do.
fn trouble(response: &Response) -> Result<(), Trouble> {
    let stop = |why: &str| Err(Trouble::Stop { why: format!("{why} (HTTP {})", response.status) });
    match response.status {
        200..=299 => Ok(()),
        401 => Err(not_authenticated()),
        402 | 403 => stop("X does not let this account in: look at it in a browser, it may be locked"),
        404 => stop("X knows no such query any more: its id changes with X's releases, update birdtape"),
        429 => Err(again(Some(limit_wait(response)), "X asks to slow down (HTTP 429)")),
        408 | 500..=599 => Err(again(response.retry_after(), &format!("X has a fault (HTTP {})", response.status))),
        _ => stop("X refuses the request: check the address, or update birdtape"),
    }
}

#[cfg(test)]
mod tests;
