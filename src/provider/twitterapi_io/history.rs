//! The fake TwitterAPI.io's history: searches, timelines and single posts, twenty on a page.
//!
//! Every list is made alike: the posts of the past are visited newest first, a test keeps some of them, and a cursor
//! names the place where the page ended. What comes in later stands before that place, so pages never shift. Posts
//! quoted or retweeted inside another are not found by themselves.
//!
//! Source of paths, parameters and shapes: docs.twitterapi.io, "API reference" (seen 2025-12), and the provider's own
//! agent skill (2026-04) where named.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::ops::{ControlFlow, Range, RangeInclusive};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Serialize;
use serde_json::Value;
use serde_json::value::RawValue;
use xxhash_rust::xxh3::xxh3_64;

use super::post::Post;
use super::rest::{Answered, Fields, Params, Refusal, body_of, price};
use super::rules::Rules;
use crate::model::{EventId, EventKind, Provider, TweetId, UnixMicros};
use crate::provider::past::Past;
use crate::provider::search::{Candidate, Query};
use crate::provider::{Asked, Switches, form_values};

/// Documented: at most 20 posts on a page.
const PAGE: usize = 20;

/// Documented in the provider's SDK: at most 100 ids in a request.
const IDS_MAX: usize = 100;

/// Searches in one bulk request; the provider's own bound is not known.
const BULK_MAX: usize = 50;

/// How many of the newest posts are ranked where the newest do not come first.
const RANKED_MAX: usize = 1_000;

/// Documented: what an account's profile costs (docs.twitterapi.io, "Pricing").
const PROFILE_CREDITS: u64 = 18;

const ALL_TIME: Range<UnixMicros> = UnixMicros(i64::MIN)..UnixMicros(i64::MAX);

/// The lists and what makes them.
#[derive(Clone, Copy, Debug)]
pub(super) enum Call {
    Search,
    BulkSearch,
    LastTweets,
    LastTweetsV2,
    Timeline,
    Mentions,
    Tweets,
    Replies,
    RepliesV2,
    Quotes,
}

/// Answers a request for posts.
pub(super) fn answer(
    call: Call,
    asked: &Asked<'_>,
    past: &mut Past<'_>,
    rules: &Rules,
    switches: &Switches,
) -> Result<Answered, Refusal> {
    let params = Params(asked);
    match call {
        Call::Search => search(&params, past, rules),
        Call::BulkSearch => bulk_search(&Fields::read(asked)?, past, rules),
        Call::LastTweets => {
            let dialect = switches.word(Provider::TwitterapiIo, "last_tweets");
            last_tweets(&params, past, Whose::by_id_or_name(&params)?, dialect)
        }
        Call::LastTweetsV2 | Call::Timeline => last_tweets(&params, past, Whose::by_id(&params)?, "data"),
        Call::Mentions => mentions(&params, past),
        Call::Tweets => tweets(&params, past),
        Call::Replies => replies(&params, past, Order::Newest, switches),
        Call::RepliesV2 => {
            let order = match params.text("queryType").as_deref() {
                Some("Latest") => Order::Newest,
                Some("Likes") => Order::Likes,
                None | Some("Relevance") => Order::Engagement,
                Some(_) => return Err(Refusal::Bad("queryType must be Relevance, Latest or Likes".to_owned())),
            };
            replies(&params, past, order, switches)
        }
        Call::Quotes => quotes(&params, past),
    }
}

/// A list without a word on how it went: that is how the search answers.
#[derive(Serialize)]
struct Listed<'a> {
    tweets: &'a [Box<RawValue>],
    has_next_page: bool,
    next_cursor: &'a str,
}

/// A list that also says how it went.
#[derive(Serialize)]
struct Said<'a, T> {
    #[serde(flatten)]
    list: T,
    status: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    msg: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<&'a str>,
}

const SUCCESS: &str = "success";

fn said<T: Serialize>(list: T) -> Result<String, Refusal> {
    body_of(&Said { list, status: SUCCESS, msg: Some(SUCCESS), message: None })
}

fn search(params: &Params<'_>, past: &mut Past<'_>, rules: &Rules) -> Result<Answered, Refusal> {
    let query = params.required("query")?;
    let cursor = params.text("cursor");
    let page = search_page(&query, params.text("queryType").as_deref(), cursor.as_deref(), past, rules)?;
    Ok(Answered { body: body_of(&page.listed())?, credits: price(page.tweets.len()) })
}

/// Time limits beside the query are ignored, as observed (public client, 2026-09): they belong into it.
fn search_page(
    query: &str,
    order: Option<&str>,
    cursor: Option<&str>,
    past: &mut Past<'_>,
    rules: &Rules,
) -> Result<Page, Refusal> {
    let order = match order {
        None | Some("Latest") => Order::Newest,
        Some("Top") => Order::Engagement,
        Some(_) => return Err(Refusal::Bad("queryType must be Latest or Top".to_owned())),
    };
    let parsed = Query::parse(query).map_err(|error| Refusal::Bad(error.to_string()))?;
    let name = xxh3_64(format!("{order:?} {query}").as_bytes());
    let list = List { span: narrowed(parsed.span(), &parsed.ids()), ids: parsed.ids(), order, name };
    let brought = rules.brought(query, &list.span, past);
    list.page(cursor, past, |post, seen| parsed.matches(seen) || brought.contains(&post.id.0))
}

/// The part of a span in which ids of that range were given out: an id says when its post was published, and `wire.rs`
/// takes that for the post's time. Ids of the years before say nothing.
fn narrowed(mut span: Range<UnixMicros>, ids: &RangeInclusive<u64>) -> Range<UnixMicros> {
    if let Some(first) = TweetId(*ids.start()).published_at() {
        span.start = span.start.max(first);
    }
    if let Some(last) = TweetId(*ids.end()).published_at() {
        span.end = span.end.min(UnixMicros(last.0 + 1));
    }
    span
}

fn bulk_search(fields: &Fields, past: &mut Past<'_>, rules: &Rules) -> Result<Answered, Refusal> {
    #[derive(Serialize)]
    struct Bulk {
        results: BTreeMap<String, Box<RawValue>>,
        status: &'static str,
        msg: &'static str,
    }
    #[derive(Serialize)]
    struct Failed<'a> {
        error: &'a str,
    }
    let Some(Value::Array(queries)) = fields.get("queries") else {
        return Err(Refusal::Bad("queries is required".to_owned()));
    };
    if queries.is_empty() || queries.len() > BULK_MAX {
        return Err(Refusal::Bad(format!("queries must be 1 to {BULK_MAX} searches")));
    }
    let mut credits = 0;
    let mut results = BTreeMap::new();
    for (n, one) in queries.iter().enumerate() {
        let text = |name: &str| one[name].as_str().map(str::trim).filter(|text| !text.is_empty());
        let found = match text("query") {
            Some(query) => search_page(query, text("queryType"), text("cursor"), past, rules),
            None => Err(Refusal::Bad("query is required".to_owned())),
        };
        let body = match found {
            Ok(page) => {
                credits += price(page.tweets.len());
                body_of(&page.listed())?
            }
            // Documented: a bad search gets an error of its own (agent skill).
            Err(Refusal::Bad(error)) => body_of(&Failed { error: &error })?,
            Err(other) => return Err(other),
        };
        let body = RawValue::from_string(body).map_err(|error| Refusal::Broken(error.to_string()))?;
        results.insert(format!("query_{n}"), body);
    }
    Ok(Answered { body: body_of(&Bulk { results, status: SUCCESS, msg: SUCCESS })?, credits })
}

/// The account a timeline belongs to.
enum Whose {
    Id(u64),
    Name(String),
}

impl Whose {
    /// Documented: the id wins when both are given.
    fn by_id_or_name(params: &Params<'_>) -> Result<Self, Refusal> {
        match (params.text("userId"), params.text("userName")) {
            (Some(_), _) => Self::by_id(params),
            (None, Some(name)) => Ok(Self::Name(name.trim_start_matches('@').to_owned())),
            (None, None) => Err(Refusal::Bad("userId or userName is required".to_owned())),
        }
    }

    fn by_id(params: &Params<'_>) -> Result<Self, Refusal> {
        let id = TweetId::parse(&params.required("userId")?);
        id.map(|id| Self::Id(id.0)).ok_or_else(|| Refusal::Bad("userId must be digits".to_owned()))
    }

    fn is_author(&self, post: &Post, seen: &Candidate<'_>) -> bool {
        match self {
            Self::Id(id) => post.author_id() == Some(*id),
            Self::Name(name) => seen.handle.eq_ignore_ascii_case(name),
        }
    }
}

/// A timeline in the shape that is asked for; retweets are in it, as the account's own posts.
fn last_tweets(params: &Params<'_>, past: &mut Past<'_>, whose: Whose, dialect: &str) -> Result<Answered, Refusal> {
    #[derive(Serialize)]
    struct Half<'a> {
        status: &'a str,
        code: u8,
        msg: &'a str,
        data: Data<'a>,
        has_next_page: bool,
        next_cursor: &'a str,
    }
    #[derive(Serialize)]
    struct Data<'a> {
        tweets: &'a [Box<RawValue>],
    }
    #[derive(Serialize)]
    struct Wrapped<'a> {
        status: &'a str,
        msg: &'a str,
        data: Listed<'a>,
    }
    let with_replies = params.flag("includeReplies", false)?;
    let with_parents = params.flag("includeParentTweet", false)?;
    let mut exists = false;
    let mut page = List::newest(params).page(params.text("cursor").as_deref(), past, |post, seen| {
        let own = whose.is_author(post, seen);
        exists |= own;
        own && (with_replies || !seen.is_reply)
    })?;
    if !exists && params.text("cursor").is_none() {
        // Documented: these words, with status 200 (docs.twitterapi.io, "Errors").
        return Err(Refusal::Nothing("user not found".to_owned()));
    }
    if with_parents {
        page.add_parents(past)?;
    }
    let (has_next_page, next_cursor) = (page.next.is_some(), page.next.as_deref().unwrap_or_default());
    let body = match dialect {
        "flat" => body_of(&Said { list: page.listed(), status: SUCCESS, msg: None, message: Some(SUCCESS) })?,
        "data" => body_of(&Wrapped { status: SUCCESS, msg: SUCCESS, data: page.listed() })?,
        _ => body_of(&Half {
            status: SUCCESS,
            code: 0,
            msg: SUCCESS,
            data: Data { tweets: &page.tweets },
            has_next_page,
            next_cursor,
        })?,
    };
    Ok(Answered { body, credits: price(page.tweets.len()) })
}

fn mentions(params: &Params<'_>, past: &mut Past<'_>) -> Result<Answered, Refusal> {
    let name = params.required("userName")?;
    let name = name.trim_start_matches('@');
    let bad_name = || Refusal::Bad("userName must be the name of an account".to_owned());
    if !name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_') {
        return Err(bad_name());
    }
    let query = Query::parse(&format!("@{name}")).map_err(|_| bad_name())?;
    let order = match params.text("queryType").as_deref() {
        None | Some("Latest") => Order::Newest,
        Some("Top") => Order::Engagement,
        Some(_) => return Err(Refusal::Bad("queryType must be Latest or Top".to_owned())),
    };
    let list = List { order, ..List::between(params)? };
    let page = list.page(params.text("cursor").as_deref(), past, |_, seen| query.matches(seen))?;
    Ok(Answered { body: said(page.listed())?, credits: price(page.tweets.len()) })
}

fn tweets(params: &Params<'_>, past: &mut Past<'_>) -> Result<Answered, Refusal> {
    #[derive(Serialize)]
    struct Found<'a> {
        tweets: &'a [Box<RawValue>],
    }
    let ids = params.required("tweet_ids")?;
    let ids: Option<Vec<_>> = ids.split(',').map(|id| TweetId::parse(id.trim())).collect();
    let mut ids = ids.ok_or_else(|| Refusal::Bad("tweet_ids must be ids with commas between them".to_owned()))?;
    if ids.len() > IDS_MAX {
        return Err(Refusal::Bad(format!("tweet_ids must be at most {IDS_MAX} ids")));
    }
    let mut known = std::collections::HashSet::new();
    ids.retain(|id| known.insert(*id));
    let mut tweets = Vec::new();
    for id in ids {
        tweets.extend(post_of(id, past)?.map(|post| post.raw));
    }
    Ok(Answered { body: said(Found { tweets: &tweets })?, credits: price(tweets.len()) })
}

fn post_of(id: TweetId, past: &mut Past<'_>) -> Result<Option<Post>, Refusal> {
    Ok(past.get(EventKind::Tweet, &EventId::Tweet(id))?.as_ref().and_then(Post::of))
}

/// Answers to a post, and answers to those.
fn replies(params: &Params<'_>, past: &mut Past<'_>, order: Order, switches: &Switches) -> Result<Answered, Refusal> {
    #[derive(Serialize)]
    struct Replies<'a> {
        replies: &'a [Box<RawValue>],
        has_next_page: bool,
        next_cursor: &'a str,
    }
    let id = tweet_id(params)?;
    let list = List { order, ..List::between(params)? };
    let page = list.page(params.text("cursor").as_deref(), past, |_, seen| {
        let answers = seen.in_reply_to_id == Some(id) || seen.conversation_id == Some(id);
        answers && seen.id != id && !seen.is_retweet
    })?;
    let body = match switches.word(Provider::TwitterapiIo, "replies_list") {
        "replies" => {
            let Listed { tweets: replies, has_next_page, next_cursor } = page.listed();
            said(Replies { replies, has_next_page, next_cursor })?
        }
        _ => said(page.listed())?,
    };
    Ok(Answered { body, credits: price(page.tweets.len()) })
}

fn quotes(params: &Params<'_>, past: &mut Past<'_>) -> Result<Answered, Refusal> {
    let id = tweet_id(params)?;
    let with_replies = params.flag("includeReplies", true)?;
    let page = List::between(params)?.page(params.text("cursor").as_deref(), past, |_, seen| {
        seen.quoted_id == Some(id) && !seen.is_retweet && (with_replies || !seen.is_reply)
    })?;
    Ok(Answered { body: said(page.listed())?, credits: price(page.tweets.len()) })
}

fn tweet_id(params: &Params<'_>) -> Result<TweetId, Refusal> {
    TweetId::parse(&params.required("tweetId")?).ok_or_else(|| Refusal::Bad("tweetId must be digits".to_owned()))
}

/// The author's object that was seen last.
pub(super) fn user_info(asked: &Asked<'_>, past: &mut Past<'_>) -> Result<Answered, Refusal> {
    #[derive(Serialize)]
    struct Info {
        status: &'static str,
        msg: &'static str,
        data: Value,
    }
    let name = Params(asked).required("userName")?;
    let author = author_of(name.trim_start_matches('@'), past)?;
    let data = author.ok_or_else(|| Refusal::Nothing("user not found".to_owned()))?;
    Ok(Answered { body: body_of(&Info { status: SUCCESS, msg: SUCCESS, data })?, credits: PROFILE_CREDITS })
}

/// The object of the author with that handle; the fast lane's few words only where nothing else is known.
pub(super) fn author_of(handle: &str, past: &mut Past<'_>) -> Result<Option<Value>, Refusal> {
    let mut found = None;
    past.newest(&[EventKind::Tweet], ALL_TIME, |item| {
        let post = Post::of(item).filter(|post| post.candidate().handle.eq_ignore_ascii_case(handle));
        match post {
            Some(post) if !post.is_fast => {
                found = Some(post.author().clone());
                ControlFlow::Break(())
            }
            Some(post) => {
                found.get_or_insert_with(|| post.author().clone());
                ControlFlow::Continue(())
            }
            None => ControlFlow::Continue(()),
        }
    })?;
    Ok(found)
}

// Pages.

/// In which order a list comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Order {
    Newest,
    Likes,
    /// How `Top` and `Relevance` rank is not known; the sum of likes, retweets and replies stands in for it.
    Engagement,
}

impl Order {
    fn rank(self, seen: &Candidate<'_>) -> u64 {
        match self {
            Self::Newest => 0,
            Self::Likes => seen.n_faves,
            Self::Engagement => seen.n_faves.saturating_add(seen.n_retweets).saturating_add(seen.n_replies),
        }
    }
}

/// A list of posts, whole.
struct List {
    span: Range<UnixMicros>,
    ids: RangeInclusive<u64>,
    order: Order,
    /// Names the list in its cursors.
    name: u64,
}

/// A part of a list.
#[derive(Debug)]
struct Page {
    tweets: Vec<Box<RawValue>>,
    /// Which posts they answer.
    parents: Vec<Option<TweetId>>,
    ids: Vec<TweetId>,
    next: Option<String>,
}

impl Page {
    fn listed(&self) -> Listed<'_> {
        let next_cursor = self.next.as_deref().unwrap_or_default();
        Listed { tweets: &self.tweets, has_next_page: self.next.is_some(), next_cursor }
    }

    /// Puts what is answered behind the answer, where the tape has it.
    fn add_parents(&mut self, past: &mut Past<'_>) -> Result<(), Refusal> {
        let mut known: std::collections::HashSet<_> = self.ids.iter().copied().collect();
        let mut all = Vec::new();
        for (tweet, parent) in std::mem::take(&mut self.tweets).into_iter().zip(&self.parents) {
            all.push(tweet);
            if let Some(parent) = parent.filter(|parent| known.insert(*parent)) {
                all.extend(post_of(parent, past)?.map(|post| post.raw));
            }
        }
        self.tweets = all;
        Ok(())
    }
}

impl List {
    /// Everything, newest first.
    fn newest(params: &Params<'_>) -> Self {
        Self { span: ALL_TIME, ids: 0..=u64::MAX, order: Order::Newest, name: name_of(params) }
    }

    /// Documented for mentions, replies and quotes: `sinceTime` is on or after, `untilTime` before, in unix seconds.
    fn between(params: &Params<'_>) -> Result<Self, Refusal> {
        let at = |seconds: i64| UnixMicros(seconds.saturating_mul(1_000_000));
        let from = params.number("sinceTime")?.map_or(ALL_TIME.start, at);
        let to = params.number("untilTime")?.map_or(ALL_TIME.end, at);
        Ok(Self { span: from..to, ..Self::newest(params) })
    }

    fn page(
        &self,
        cursor: Option<&str>,
        past: &mut Past<'_>,
        keeps: impl FnMut(&Post, &Candidate<'_>) -> bool,
    ) -> Result<Page, Refusal> {
        let cursor = match cursor {
            Some(text) => Some(Cursor::read(text, self.name).ok_or_else(|| Refusal::Bad("cursor is invalid".to_owned()))?),
            None => None,
        };
        match self.order {
            Order::Newest => self.newest_page(cursor, past, keeps),
            _ => self.ranked_page(cursor, past, keeps),
        }
    }

    fn newest_page(
        &self,
        cursor: Option<Cursor>,
        past: &mut Past<'_>,
        keeps: impl FnMut(&Post, &Candidate<'_>) -> bool,
    ) -> Result<Page, Refusal> {
        let mut posts = self.collect(cursor, PAGE + 1, past, keeps)?;
        let has_more = posts.len() > PAGE;
        posts.truncate(PAGE);
        let next = posts.last().filter(|_| has_more).map(|post| Cursor::behind(post, 0).write(self.name));
        Ok(page_of(posts, next))
    }

    /// The cursor of a ranked list names the newest post it began with, and how many were given.
    fn ranked_page(
        &self,
        cursor: Option<Cursor>,
        past: &mut Past<'_>,
        keeps: impl FnMut(&Post, &Candidate<'_>) -> bool,
    ) -> Result<Page, Refusal> {
        let given = cursor.map_or(0, |cursor| cursor.given as usize);
        let mut posts = self.collect(cursor, RANKED_MAX, past, keeps)?;
        let newest = posts.first().map(|post| Cursor::at(post, (given + PAGE) as u32));
        let n_posts = posts.len();
        posts.sort_by_cached_key(|post| Reverse(self.order.rank(&post.candidate())));
        let posts = posts.into_iter().skip(given).take(PAGE).collect();
        let next = newest.filter(|_| n_posts > given + PAGE).map(|cursor| cursor.write(self.name));
        Ok(page_of(posts, next))
    }

    /// At most so many posts, newest first, from where the cursor stands.
    fn collect(
        &self,
        cursor: Option<Cursor>,
        n_max: usize,
        past: &mut Past<'_>,
        mut keeps: impl FnMut(&Post, &Candidate<'_>) -> bool,
    ) -> Result<Vec<Post>, Refusal> {
        let mut span = self.span.clone();
        if let Some(cursor) = &cursor {
            span.end = span.end.min(UnixMicros(cursor.published_at.saturating_add(1)));
        }
        let mut posts = Vec::new();
        if span.start >= span.end {
            return Ok(posts);
        }
        past.newest(&[EventKind::Tweet], span, |item| {
            let EventId::Tweet(id) = item.id else { return ControlFlow::Continue(()) };
            let place = (item.published_at.0, id.0);
            let is_behind = cursor.is_none_or(|cursor| place < (cursor.published_at, cursor.before_id));
            if is_behind
                && self.ids.contains(&id.0)
                && let Some(post) = Post::of(item)
                && keeps(&post, &post.candidate())
            {
                posts.push(post);
            }
            if posts.len() < n_max { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        })?;
        Ok(posts)
    }
}

fn page_of(posts: Vec<Post>, next: Option<String>) -> Page {
    let parents = posts.iter().map(|post| post.candidate().in_reply_to_id).collect();
    let ids = posts.iter().map(|post| post.id).collect();
    Page { parents, ids, next, tweets: posts.into_iter().map(|post| post.raw).collect() }
}

/// A list is named by its path and parameters, in whatever order they were written.
fn name_of(params: &Params<'_>) -> u64 {
    let mut pairs: Vec<_> = form_values(params.0.query).filter(|(name, _)| name != "cursor").collect();
    pairs.sort();
    xxh3_64(format!("{} {pairs:?}", params.0.path).as_bytes())
}

/// Where a page ended: posts of an earlier time, or of that time with a smaller id, come next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Cursor {
    published_at: i64,
    before_id: u64,
    given: u32,
}

impl Cursor {
    /// Behind a post.
    fn behind(post: &Post, given: u32) -> Self {
        Self { published_at: post.published_at.0, before_id: post.id.0, given }
    }

    /// At a post, which comes first then.
    fn at(post: &Post, given: u32) -> Self {
        Self { before_id: post.id.0.saturating_add(1), ..Self::behind(post, given) }
    }

    fn write(self, list: u64) -> String {
        let mut bytes = Vec::with_capacity(28);
        bytes.extend(self.published_at.to_be_bytes());
        bytes.extend(self.before_id.to_be_bytes());
        bytes.extend(self.given.to_be_bytes());
        bytes.extend(seal(&bytes, list));
        URL_SAFE_NO_PAD.encode(bytes)
    }

    fn read(text: &str, list: u64) -> Option<Self> {
        let bytes = URL_SAFE_NO_PAD.decode(text).ok()?;
        let (place, rest) = bytes.split_first_chunk::<20>()?;
        if rest != seal(place, list) {
            return None;
        }
        let (published_at, rest) = place.split_first_chunk::<8>()?;
        let (before_id, given) = rest.split_first_chunk::<8>()?;
        Some(Self {
            published_at: i64::from_be_bytes(*published_at),
            before_id: u64::from_be_bytes(*before_id),
            given: u32::from_be_bytes(given.try_into().ok()?),
        })
    }
}

/// Ties a place to its list.
fn seal(place: &[u8], list: u64) -> [u8; 8] {
    (xxh3_64(place) ^ list).to_be_bytes()
}
