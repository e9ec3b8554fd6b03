//! History: posts of the tape, page by page.
//!
//! Documented: `{data, next_cursor}` and nothing else, the end is `next_cursor: null` (docs.scrapebadger.com,
//! "Pagination"). A cursor here is the place after the last post of a page, so pages neither repeat nor skip a post
//! while new ones come in at the front.
//!
//! A page reads the tape until it is full; nothing is kept between pages. `Top` ranks the newest [`RANKED_MAX`] matches.

use std::cmp::Reverse;
use std::ops::{ControlFlow, Range};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use super::fields::Params;
use super::post::Post;
use super::{Failure, Outcome, Reply};
use crate::model::{EventId, EventKind, TweetId, UnixMicros};
use crate::provider::Asked;
use crate::provider::past::{Item, Past};
use crate::provider::search::Query;

/// Posts on a page, unless the client says otherwise. Documented: 20, at most 100.
const PAGE: usize = 20;
const PAGE_MAX: usize = 100;
/// Ids in one call; the provider's own number is not published.
const IDS_MAX: usize = 100;
/// Matches that `Top` puts in order.
const RANKED_MAX: usize = 1_000;
/// How long after its birth another version of a post is looked for: the hour X allows, and as much again.
const VERSIONS_WITHIN: Duration = Duration::from_secs(7_200);

const ALL_TIME: Range<UnixMicros> = UnixMicros(i64::MIN)..UnixMicros(i64::MAX);

/// The place after a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cursor {
    /// After that post, by time and id.
    After(UnixMicros, TweetId),
    /// So far in the ranking of what was published by then.
    Ranked(UnixMicros, usize),
}

impl Cursor {
    fn write(self) -> String {
        URL_SAFE_NO_PAD.encode(match self {
            Self::After(at, id) => format!("a.{}.{id}", at.0),
            Self::Ranked(at, n_given) => format!("r.{}.{n_given}", at.0),
        })
    }

    fn read(text: &str) -> Option<Self> {
        let text = String::from_utf8(URL_SAFE_NO_PAD.decode(text).ok()?).ok()?;
        let mut parts = text.splitn(3, '.');
        let (sort, at, number) = (parts.next()?, UnixMicros(parts.next()?.parse().ok()?), parts.next()?);
        match sort {
            "a" => Some(Self::After(at, TweetId::parse(number)?)),
            "r" => Some(Self::Ranked(at, number.parse().ok()?)),
            _ => None,
        }
    }
}

/// The cursor a client sends back; one that is not ours is a wrong parameter.
fn cursor(params: &mut Params) -> Option<Cursor> {
    let cursor = Cursor::read(params.text("cursor")?);
    if cursor.is_none() {
        params.complain("value_error", "cursor", "Invalid cursor");
    }
    cursor
}

/// `GET /twitter/tweets/advanced_search`
pub(super) fn search(asked: &Asked<'_>, past: &mut Past<'_>) -> Outcome {
    let mut params = Params::of(asked);
    let query = params.needed("query");
    let order = params.word("query_type", &["Top", "Latest", "Media"]);
    let count = params.number("count", PAGE, 1..=PAGE_MAX);
    let cursor = cursor(&mut params);
    let query = match Query::parse(&query) {
        Ok(query) => Some(query),
        Err(_) if query.is_empty() => None,
        Err(error) => {
            params.complain("value_error", "query", &error.to_string());
            None
        }
    };
    params.checked()?;
    let Some(query) = query else { return Ok(page(Vec::new(), None)) };
    let span = query.span();
    let wanted = |post: &Post| (order != "Media" || post.has_media()) && query.matches(&post.candidate());
    if order == "Top" { ranked(past, span, count, cursor, wanted) } else { newest(past, span, count, cursor, wanted) }
}

/// `GET /twitter/users/{username}/latest_tweets`
pub(super) fn timeline(name: &str, asked: &Asked<'_>, past: &mut Past<'_>) -> Outcome {
    let mut params = Params::of(asked);
    let cursor = cursor(&mut params);
    params.checked()?;
    newest(past, ALL_TIME, PAGE, cursor, |post| post.text_of("username").eq_ignore_ascii_case(name))
}

/// `GET /twitter/users/{username}/mentions`
pub(super) fn mentions(name: &str, asked: &Asked<'_>, past: &mut Past<'_>) -> Outcome {
    let mut params = Params::of(asked);
    let count = params.number("count", PAGE, 1..=PAGE_MAX);
    let cursor = cursor(&mut params);
    params.checked()?;
    newest(past, ALL_TIME, count, cursor, |post| post.mentions(name))
}

/// `GET /twitter/tweets/tweet/{id}/replies`
pub(super) fn replies(id: &str, asked: &Asked<'_>, past: &mut Past<'_>) -> Outcome {
    about(id, "in_reply_to_status_id", asked, past)
}

/// `GET /twitter/tweets/tweet/{id}/quotes`
pub(super) fn quotes(id: &str, asked: &Asked<'_>, past: &mut Past<'_>) -> Outcome {
    about(id, "quoted_status_id", asked, past)
}

/// Posts that name another one; the named one need not be on the tape.
fn about(id: &str, field: &str, asked: &Asked<'_>, past: &mut Past<'_>) -> Outcome {
    let mut params = Params::of(asked);
    let cursor = cursor(&mut params);
    params.checked()?;
    let id = tweet_id(id)?;
    let since = id.published_at().unwrap_or(ALL_TIME.start);
    let id = id.to_string();
    newest(past, since..ALL_TIME.end, PAGE, cursor, |post| post.text_of(field) == id)
}

/// `GET /twitter/tweets/?tweets=`: what is not there is left out.
pub(super) fn by_ids(asked: &Asked<'_>, past: &mut Past<'_>) -> Outcome {
    let mut params = Params::of(asked);
    let ids = params.needed("tweets");
    let ids: Vec<&str> = ids.split(',').map(str::trim).filter(|id| !id.is_empty()).collect();
    if ids.len() > IDS_MAX {
        params.complain("too_long", "tweets", &format!("at most {IDS_MAX} ids, not {}", ids.len()));
    }
    let parsed: Option<Vec<TweetId>> = ids.iter().map(|id| TweetId::parse(id)).collect();
    if parsed.is_none() {
        params.complain("value_error", "tweets", "ids are decimal digits with commas between");
    }
    params.checked()?;
    let mut posts = Vec::new();
    for id in parsed.unwrap_or_default() {
        posts.extend(one(id, past)?.map(Post::into_json));
    }
    Ok(page(posts, None))
}

/// `GET /twitter/tweets/tweet/{id}`: the bare post.
pub(super) fn by_id(id: &str, past: &mut Past<'_>) -> Outcome {
    match one(tweet_id(id)?, past)? {
        Some(post) => Ok(Reply::items(post.into_json(), 1)),
        None => Err(Failure::words(404, "Tweet not found")),
    }
}

/// `GET /twitter/tweets/tweet/{id}/edit_history`: every version the tape has, oldest first.
///
/// X gives each version an id of its own and lists them all; a snapshot that carries the list leads to the others.
/// Otherwise the versions are different texts under one id, as they were delivered.
pub(super) fn versions(id: &str, past: &mut Past<'_>) -> Outcome {
    let id = tweet_id(id)?;
    let Some(post) = one(id, past)? else { return Err(Failure::words(404, "Tweet not found")) };
    let listed = post.fields.get("edit_tweet_ids").and_then(Value::as_array).cloned().unwrap_or_default();
    let mut listed: Vec<TweetId> = listed.iter().filter_map(|id| TweetId::parse(id.as_str()?)).take(IDS_MAX).collect();
    listed.sort_unstable();
    listed.dedup();
    let mut found = Vec::new();
    if listed.len() > 1 {
        for id in listed {
            found.extend(one(id, past)?);
        }
    } else {
        let since = post.published_at;
        let mut look = |_: u64, item: &Item| {
            if item.id == EventId::Tweet(id) {
                found.push(Post::of(id, item));
            }
            ControlFlow::Continue(())
        };
        past.deliveries(&[EventKind::Tweet], since..since.plus(VERSIONS_WITHIN), &mut look)?;
        found.push(post);
        found.rotate_right(1);
        found.reverse();
        found.dedup_by(|later, earlier| later.text_of("full_text") == earlier.text_of("full_text"));
    }
    Ok(page(found.into_iter().map(Post::into_json).collect(), None))
}

fn tweet_id(text: &str) -> Result<TweetId, Failure> {
    TweetId::parse(text).ok_or_else(|| Failure::words(404, "Tweet not found"))
}

fn one(id: TweetId, past: &mut Past<'_>) -> Result<Option<Post>, Failure> {
    let item = past.get(EventKind::Tweet, &EventId::Tweet(id))?;
    Ok(item.map(|item| Post::of(id, &item)))
}

/// Posts that are wanted, newest first.
fn newest(
    past: &mut Past<'_>,
    span: Range<UnixMicros>,
    count: usize,
    cursor: Option<Cursor>,
    wanted: impl Fn(&Post) -> bool,
) -> Outcome {
    let mut span = span;
    let after = match cursor {
        Some(Cursor::After(at, id)) => Some((at, id)),
        // A place in a ranking is of no use here; its instant still is.
        Some(Cursor::Ranked(at, _)) => Some((at, TweetId(u64::MAX))),
        None => None,
    };
    if let Some((at, _)) = after {
        span.end = span.end.min(UnixMicros(at.0.saturating_add(1)));
    }
    let mut posts: Vec<Post> = Vec::new();
    let mut more = false;
    each(past, span, |id, item| {
        if after.is_some_and(|after| (item.published_at, id) >= after) {
            return ControlFlow::Continue(());
        }
        let post = Post::of(id, item);
        if wanted(&post) {
            more = posts.len() == count;
            if more {
                return ControlFlow::Break(());
            }
            posts.push(post);
        }
        ControlFlow::Continue(())
    })?;
    let next = posts.last().filter(|_| more).map(|post| Cursor::After(post.published_at, post.id));
    Ok(page(posts.into_iter().map(Post::into_json).collect(), next))
}

/// Posts that are wanted, the weightiest first; of equal weight the newest.
fn ranked(
    past: &mut Past<'_>,
    span: Range<UnixMicros>,
    count: usize,
    cursor: Option<Cursor>,
    wanted: impl Fn(&Post) -> bool,
) -> Outcome {
    let (until, n_given) = match cursor {
        Some(Cursor::Ranked(until, n_given)) => (until, n_given),
        Some(Cursor::After(until, _)) => (until, 0),
        None => (past.now(), 0),
    };
    let span = span.start..span.end.min(UnixMicros(until.0.saturating_add(1)));
    let mut posts: Vec<Post> = Vec::new();
    each(past, span, |id, item| {
        let post = Post::of(id, item);
        if wanted(&post) {
            posts.push(post);
        }
        if posts.len() == RANKED_MAX { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    })?;
    posts.sort_by_key(|post| Reverse(post.weight()));
    let end = n_given.saturating_add(count);
    let next = (end < posts.len()).then_some(Cursor::Ranked(until, end));
    let shown = posts.into_iter().skip(n_given).take(count);
    Ok(page(shown.map(Post::into_json).collect(), next))
}

fn each(
    past: &mut Past<'_>,
    span: Range<UnixMicros>,
    mut visit: impl FnMut(TweetId, &Item) -> ControlFlow<()>,
) -> Result<(), Failure> {
    past.newest(&[EventKind::Tweet], span, |item| match item.id {
        EventId::Tweet(id) => visit(id, item),
        EventId::Text(_) => ControlFlow::Continue(()),
    })?;
    Ok(())
}

fn page(posts: Vec<Value>, next: Option<Cursor>) -> Reply {
    let n_posts = posts.len();
    Reply::items(json!({"data": posts, "next_cursor": next.map(Cursor::write)}), n_posts)
}
