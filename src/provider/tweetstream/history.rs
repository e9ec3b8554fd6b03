//! `GET /api/history`: rows of what happened, newest first, without a cursor.
//!
//! A row's `content` and `meta` are the `d` of the live envelopes, byte for byte, unless a switch puts updates in. What
//! is live only (deletions, pins, follows that ended, call-outs) makes no rows.
//! Source: tweetstream.io docs, "History API", and the SDKs' types and fixture.

use std::collections::HashSet;
use std::ops::{ControlFlow, Range};

use serde::Serialize;
use serde_json::value::RawValue;

use super::LATENESS_HORIZON;
use super::fields::{Fields, handle_of, merge, payload, text_of, who};
use super::rest::Refusal;
use super::watchlist::{Watchlist, normalized};
use crate::model::{EventId, EventKind, Provider, Response, TweetId, UnixMicros};
use crate::provider::past::{Item, Past, Unreadable};
use crate::provider::{Asked, Switches, form_values};

/// Rows without being told. Documented.
const LIMIT_DEFAULT: usize = 100;

/// Most rows of an answer. Documented.
const LIMIT_MAX: usize = 1_000;

/// Updates put into one content at most: a bound on how long an answer takes.
const UPDATES_MAX: usize = 1_000;

/// The `type` of a request and its rows. Documented: one a request; written in either case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Family {
    Tweet,
    Profile,
    Follow,
}

impl Family {
    fn parse(name: &str) -> Option<Self> {
        let all = [Self::Tweet, Self::Profile, Self::Follow];
        all.into_iter().find(|family| family.name().eq_ignore_ascii_case(name))
    }

    const fn name(self) -> &'static str {
        match self {
            Self::Tweet => "TWEET",
            Self::Profile => "PROFILE",
            Self::Follow => "FOLLOW",
        }
    }

    const fn kind(self) -> EventKind {
        match self {
            Self::Tweet => EventKind::Tweet,
            Self::Profile => EventKind::Profile,
            Self::Follow => EventKind::Follow,
        }
    }
}

/// What is asked for.
#[derive(Debug)]
struct Query {
    /// Normalised; empty is everybody.
    handles: Vec<String>,
    start_date: Option<(String, UnixMicros)>,
    end_date: Option<(String, UnixMicros)>,
    limit: usize,
    family: Family,
}

#[derive(Serialize)]
struct Answer {
    data: Vec<Row>,
    metadata: Metadata,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Metadata {
    count: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    handle: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    handles: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    start_date: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    end_date: Option<String>,
    r#type: &'static str,
}

/// Documented: SDK types 1.1 and their test fixture, where the handle has its `@`.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Row {
    /// Inferred: the event's id where there is no post.
    tweet_id: String,
    twitter_id: String,
    twitter_handle: Option<String>,
    body: String,
    link: String,
    time: String,
    received_time: String,
    message_type: &'static str,
    content: Box<RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    meta: Option<Box<RawValue>>,
}

/// Answers; key, plan and pace are already looked at.
pub(super) fn answer(
    asked: &Asked<'_>,
    past: &mut Past<'_>,
    watchlist: &mut Watchlist,
    switches: &Switches,
) -> Result<Response, Refusal> {
    let query = Query::read(asked.query)?;
    if !query.handles.is_empty() {
        let tracked = watchlist.handles(past)?;
        // Documented: only accounts that are tracked now. That one other handle refuses the whole request is inferred.
        if let Some(other) = query.handles.iter().find(|handle| !tracked.contains(*handle)) {
            return Err(Refusal::Status(403, format!("@{other} is not a tracked account")));
        }
    }
    let word = |name| switches.word(Provider::Tweetstream, name);
    let search = Search { query: &query, bounds: query.bounds(word("history_edges") == "included"), watchlist };
    let hides_deleted = word("history_deleted") == "gone";
    let mut wanted = query.limit;
    let found = loop {
        let mut found = match word("history_bounds") {
            "received" => search.by_receipt_time(past, wanted)?,
            _ => search.by_event_time(past, wanted)?,
        };
        let may_be_more = found.len() >= wanted;
        found.retain(|item| !(hides_deleted && is_deleted(past, item)));
        if found.len() >= query.limit || !may_be_more {
            found.truncate(query.limit);
            break found;
        }
        // The deleted ones left the page short: look further back.
        wanted = wanted.saturating_mul(4);
    };
    let merged = word("history_updates") == "merged";
    let mut data = Vec::with_capacity(found.len());
    for item in &found {
        data.extend(row(past, item, query.family, merged)?);
    }
    let body = serde_json::to_string(&Answer { metadata: query.metadata(data.len()), data });
    Ok(Response::json(200, body.map_err(|error| Unreadable(error.to_string()))?))
}

impl Query {
    fn read(query: &str) -> Result<Self, Refusal> {
        let mut read =
            Self { handles: Vec::new(), start_date: None, end_date: None, limit: LIMIT_DEFAULT, family: Family::Tweet };
        for (name, value) in form_values(query) {
            let value = value.trim();
            match name.as_str() {
                "handle" | "handles" | "handle[]" | "handles[]" => {
                    read.handles.extend(value.split(',').map(normalized).filter(|handle| !handle.is_empty()));
                }
                "startDate" => read.start_date = Some((value.to_owned(), date(&name, value)?)),
                "endDate" => read.end_date = Some((value.to_owned(), date(&name, value)?)),
                "limit" => {
                    let limit: i64 = value.parse().map_err(|_| Refusal::bad("limit must be a whole number"))?;
                    read.limit = usize::try_from(limit).unwrap_or(0).clamp(1, LIMIT_MAX);
                }
                "type" => {
                    let family = Family::parse(value);
                    read.family = family.ok_or_else(|| Refusal::bad("type must be TWEET, PROFILE or FOLLOW"))?;
                }
                _ => {}
            }
        }
        read.handles.sort_unstable();
        read.handles.dedup();
        Ok(read)
    }

    /// Rows show milliseconds, so bounds are whole milliseconds, too. The end is not inside.
    fn bounds(&self, included: bool) -> Range<UnixMicros> {
        let step = i64::from(!included);
        let start = self.start_date.as_ref().map_or(UnixMicros(i64::MIN), |(_, at)| whole(at.millis().saturating_add(step)));
        let end = self.end_date.as_ref().map_or(UnixMicros(i64::MAX), |(_, at)| whole(at.millis().saturating_add(1 - step)));
        start..end
    }

    fn metadata(self, count: usize) -> Metadata {
        let (handle, handles) = match self.handles.len() {
            0 => (None, None),
            1 => (self.handles.into_iter().next(), None),
            _ => (None, Some(self.handles)),
        };
        let said = |bound: Option<(String, UnixMicros)>| bound.map(|(text, _)| text);
        let (start_date, end_date) = (said(self.start_date), said(self.end_date));
        Metadata { count, handle, handles, start_date, end_date, r#type: self.family.name() }
    }
}

fn whole(millis: i64) -> UnixMicros {
    UnixMicros::from_millis(millis)
}

fn date(name: &str, value: &str) -> Result<UnixMicros, Refusal> {
    UnixMicros::parse_rfc3339(value).ok_or_else(|| Refusal::bad(format!("{name} must be an ISO 8601 date and time")))
}

/// Whom and when is looked for.
struct Search<'a> {
    query: &'a Query,
    bounds: Range<UnixMicros>,
    watchlist: &'a Watchlist,
}

impl Search<'_> {
    /// Newest first by the time of the event, as many as wanted.
    fn by_event_time(&self, past: &mut Past<'_>, wanted: usize) -> Result<Vec<Item>, Unreadable> {
        let mut found = Vec::new();
        past.newest(&[self.query.family.kind()], self.bounds.clone(), |item| {
            if self.is_about(item) {
                found.push(item.clone());
            }
            if found.len() < wanted { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        })?;
        Ok(found)
    }

    /// Newest first by the provider's time of receipt, at least as many as wanted if there are. It is not indexed: our
    /// own time of receipt, which is taken to differ by less than an event can be late, narrows the search.
    fn by_receipt_time(&self, past: &mut Past<'_>, wanted: usize) -> Result<Vec<Item>, Unreadable> {
        let mut found: Vec<(UnixMicros, Item)> = Vec::new();
        let mut seen = HashSet::new();
        let span = self.bounds.start.minus(LATENESS_HORIZON)..self.bounds.end.plus(LATENESS_HORIZON);
        let mut last_at = UnixMicros(i64::MIN);
        past.deliveries(&[self.query.family.kind()], span, |_, item| {
            if item.received_at < last_at {
                return ControlFlow::Break(());
            }
            let at = received_time(item);
            if seen.insert(item.id.clone()) && self.bounds.contains(&at) && self.is_about(item) {
                found.push((at, item.clone()));
                if found.len() == wanted {
                    // One that is received earlier by us may still be later by the provider's clock.
                    last_at = item.received_at.minus(LATENESS_HORIZON.saturating_mul(2));
                }
            }
            ControlFlow::Continue(())
        })?;
        found.sort_by(|a, b| (b.0, &b.1.id).cmp(&(a.0, &a.1.id)));
        Ok(found.into_iter().map(|(_, item)| item).collect())
    }

    /// Whether an event belongs to who is asked for. One that names nobody is on no list, and nobody was removed.
    fn is_about(&self, item: &Item) -> bool {
        match handle_of(&item.envelope).map(|handle| normalized(&handle)) {
            Some(handle) if self.query.handles.is_empty() => !self.watchlist.is_removed(&handle),
            Some(handle) => self.query.handles.contains(&handle),
            None => self.query.handles.is_empty(),
        }
    }
}

/// When the provider received it: its own word, else when it sent it, else when we received it.
fn received_time(item: &Item) -> UnixMicros {
    let said = Fields::read(&item.envelope).and_then(|fields| {
        let content = Fields::parse(fields.get("d")?)?;
        content.get("receivedAt")?.parse::<i64>().ok()
    });
    said.map(UnixMicros::from_millis).or(item.provider_at).unwrap_or(item.received_at)
}

/// The number of a post on either platform: what is said of it later does not name the platform.
fn post_of(item: &Item) -> Option<EventId> {
    match &item.id {
        EventId::Tweet(_) => Some(item.id.clone()),
        EventId::Text(text) if item.kind == EventKind::Tweet => {
            text.rsplit(':').next().and_then(TweetId::parse).map(EventId::Tweet)
        }
        EventId::Text(_) => None,
    }
}

fn is_deleted(past: &Past<'_>, item: &Item) -> bool {
    post_of(item).is_some_and(|post| past.has(EventKind::Delete, &post))
}

fn row(past: &mut Past<'_>, item: &Item, family: Family, merged: bool) -> Result<Option<Row>, Unreadable> {
    let Some(mut content) = payload(&item.envelope) else { return Ok(None) };
    let post = post_of(item);
    let mut meta = None;
    if let Some(post) = &post {
        meta = past.get(EventKind::Meta, post)?.and_then(|item| payload(&item.envelope));
        if merged {
            for update in updates(past, post)?.iter().rev() {
                content = merge(content.get(), update.get()).unwrap_or(content);
            }
        }
    }
    let Some(fields) = Fields::parse(content.get()) else { return Ok(None) };
    let of = |name| fields.get(name).and_then(text_of);
    let author = who(content.get());
    let author_of = |name| author.as_ref().and_then(|author| author.get(name)).and_then(text_of);
    Ok(Some(Row {
        tweet_id: match post.as_ref().unwrap_or(&item.id) {
            EventId::Tweet(id) => id.to_string(),
            EventId::Text(text) => text.clone(),
        },
        twitter_id: author_of("id").unwrap_or_default(),
        twitter_handle: author_of("handle"),
        body: of("text").unwrap_or_default(),
        link: of("link").unwrap_or_default(),
        time: iso(item.published_at),
        received_time: iso(received_time(item)),
        message_type: family.name(),
        content,
        meta,
    }))
}

/// The updates of a post, newest first.
fn updates(past: &mut Past<'_>, post: &EventId) -> Result<Vec<Box<RawValue>>, Unreadable> {
    let mut updates = Vec::new();
    past.versions(EventKind::Update, post, |item| {
        updates.extend(payload(&item.envelope));
        if updates.len() < UPDATES_MAX { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    })?;
    Ok(updates)
}

/// Milliseconds, as the SDK's fixture has them.
fn iso(at: UnixMicros) -> String {
    let text = at.to_string();
    format!("{}Z", &text[..23])
}
