//! A page of TweetStream's history, read once: for the events on it and for the walk that asked for it.
//!
//! Source of the shapes: tweetstream.io docs, "History API" and "Tracked account management", and the SDKs' types 1.1.

use std::borrow::Cow;

use super::watchlist::normalized;
use crate::model::json::{Bad, Json, Kind};
use crate::model::{Decoded, Event, EventId, EventKind, Message, TweetId, UnixMicros};
use crate::provider::history::one_value;

/// A page.
#[derive(Debug, Default)]
pub(crate) struct Page {
    pub(super) rows: Vec<Row>,
    /// What the provider counted.
    pub(super) count: Option<u64>,
}

/// A row; what it does not have or has in an unknown form is `None`.
#[derive(Debug, Default)]
pub(crate) struct Row {
    /// The post, the changed profile or the follow.
    pub(super) event: Option<Event>,
    /// What was found out about the post, if the row has it.
    pub(super) meta: Option<Event>,
    pub(super) time: Option<UnixMicros>,
    pub(super) received_time: Option<UnixMicros>,
    /// Normalised.
    pub(super) handle: Option<String>,
}

/// Reads a page of history, or the answer of management, for the events on it; whatever else it is has none.
///
/// Keys are those of the live envelopes: a post of Truth Social is kept apart, what was found out about it is not, because
/// the live envelope does not name its platform.
pub fn decode_page(body: &[u8]) -> Decoded {
    read_page(body).0
}

/// The events of a page, and the page, if it is one.
pub(crate) fn read_page(body: &[u8]) -> (Decoded, Option<Page>) {
    let (json, message, page) = match read_exactly(body) {
        Some((page, is_exact)) => (is_exact, Message::Data, Some(page)),
        None => match one_value(body) {
            Some(is_exact) => (is_exact, Message::Other, None),
            None => return (Decoded { message: Message::Unknown, ..Decoded::default() }, None),
        },
    };
    let rows = page.iter().flat_map(|page| &page.rows);
    let events = rows.flat_map(|row| [&row.event, &row.meta]).flatten().cloned().collect();
    (Decoded { json, message, provider_at: None, events }, page)
}

/// Reads a page; `None` if it is none: no valid JSON, or without its two parts.
pub(super) fn read(body: &[u8]) -> Option<Page> {
    read_exactly(body).map(|(page, _)| page)
}

/// Reads a page, and whether nothing is around it and it stands on one line.
fn read_exactly(body: &[u8]) -> Option<(Page, bool)> {
    let text = std::str::from_utf8(body).ok()?;
    let inner = text.trim_matches([' ', '\t', '\r', '\n']);
    let mut json = Json::new(inner);
    let mut page = Page::default();
    let (mut has_data, mut has_metadata) = (false, false);
    json.object(|key, json| {
        match key {
            "data" => {
                has_data = json.kind() == Kind::Array;
                page.rows.clear();
                json.array(|json| {
                    page.rows.push(Raw::read(json)?.row());
                    Ok(())
                })?;
            }
            "metadata" => {
                has_metadata = json.kind() == Kind::Object;
                json.object(|key, json| {
                    if key == "count" {
                        page.count = json.id()?;
                    }
                    Ok(())
                })?;
            }
            _ => {}
        }
        Ok(())
    })
    .ok()?;
    json.finish().ok()?;
    let is_exact = !json.is_multi_line() && inner.len() == body.len();
    (has_data && has_metadata).then_some((page, is_exact))
}

/// The tracked accounts that `/api/me` names, normalised and in order; `None` if it is no such answer.
///
/// What the account is paid with, which stands there too, is not looked at.
pub(super) fn read_watchlist(body: &[u8]) -> Option<Vec<String>> {
    let text = std::str::from_utf8(body).ok()?;
    let mut json = Json::new(text.trim_matches([' ', '\t', '\r', '\n']));
    let mut handles = None;
    json.object(|key, json| {
        if key == "trackedAccounts" {
            json.object(|key, json| {
                if key == "handles" && json.kind() == Kind::Array {
                    let mut all = Vec::new();
                    json.array(|json| {
                        all.extend(json.text()?.map(|handle| normalized(&handle)).filter(|handle| !handle.is_empty()));
                        Ok(())
                    })?;
                    handles = Some(all);
                }
                Ok(())
            })?;
        }
        Ok(())
    })
    .ok()?;
    json.finish().ok()?;
    let mut handles = handles?;
    handles.sort_unstable();
    handles.dedup();
    Some(handles)
}

/// The fields of a row, before it is known what it is.
#[derive(Default)]
pub(super) struct Raw<'a> {
    pub(super) kind: Option<EventKind>,
    pub(super) row_id: Option<Cow<'a, str>>,
    pub(super) tweet_id: Option<u64>,
    pub(super) event_id: Option<Cow<'a, str>>,
    pub(super) at: Option<i64>,
    pub(super) truth_social: bool,
    pub(super) has_meta: bool,
    pub(super) handle: Option<Cow<'a, str>>,
    pub(super) author: Option<Cow<'a, str>>,
    pub(super) time: Option<Cow<'a, str>>,
    pub(super) received_time: Option<Cow<'a, str>>,
}

impl<'a> Raw<'a> {
    fn read(json: &mut Json<'a>) -> Result<Self, Bad> {
        let mut raw = Self::default();
        json.object(|key, json| {
            match key {
                "tweetId" if json.kind() == Kind::Number => raw.row_id = json.id()?.map(|id| id.to_string().into()),
                "tweetId" => raw.row_id = json.text()?,
                "twitterHandle" => raw.handle = json.text()?,
                "time" => raw.time = json.text()?,
                "receivedTime" => raw.received_time = json.text()?,
                "messageType" => raw.kind = json.text()?.and_then(|name| kind(&name)),
                "content" => json.object(|key, json| raw.content(key, json))?,
                "meta" => raw.has_meta = json.kind() == Kind::Object,
                _ => {}
            }
            Ok(())
        })?;
        Ok(raw)
    }

    fn content(&mut self, key: &str, json: &mut Json<'a>) -> Result<(), Bad> {
        match key {
            "tweetId" => self.tweet_id = json.id()?,
            "eventId" => self.event_id = json.text()?,
            "createdAt" | "observedAt" => self.at = json.integer()?.or(self.at),
            "author" | "actor" => json.object(|key, json| {
                match key {
                    "platform" => self.truth_social = json.text()?.is_some_and(|platform| platform == "truth_social"),
                    "handle" => self.author = json.text()?,
                    _ => {}
                }
                Ok(())
            })?,
            _ => {}
        }
        Ok(())
    }

    pub(super) fn row(self) -> Row {
        let instant = |text: &Option<Cow<'_, str>>| text.as_deref().and_then(UnixMicros::parse_rfc3339);
        let (time, received_time) = (instant(&self.time), instant(&self.received_time));
        let written_at = self.at.map(UnixMicros::from_millis).or(time);
        let handle = self.handle.as_deref().or(self.author.as_deref()).map(normalized).filter(|handle| !handle.is_empty());
        let (event, meta) = match self.kind {
            None => (None, None),
            Some(EventKind::Tweet) => self.post(written_at),
            Some(kind) => {
                let id = self.event_id.or(self.row_id).filter(|id| !id.is_empty());
                (id.map(|id| event(kind, EventId::Text(id.into_owned()), written_at)), None)
            }
        };
        Row { event, meta, time, received_time, handle }
    }

    fn post(&self, written_at: Option<UnixMicros>) -> (Option<Event>, Option<Event>) {
        let id = self.tweet_id.map(TweetId).or_else(|| TweetId::parse(self.row_id.as_deref()?));
        let Some(id) = id else { return (None, None) };
        let (key, published_at) = match self.truth_social {
            true => (EventId::Text(format!("truth_social:{id}")), written_at),
            false => (EventId::Tweet(id), id.published_at().or(written_at)),
        };
        let meta = self.has_meta.then(|| event(EventKind::Meta, EventId::Tweet(id), published_at));
        (Some(event(EventKind::Tweet, key, published_at)), meta)
    }
}

fn event(kind: EventKind, id: EventId, published_at: Option<UnixMicros>) -> Event {
    Event { kind, id, published_at, selector: String::new() }
}

/// Documented in upper case; in the middle of the docs' life it was in lower case.
pub(super) fn kind(name: &str) -> Option<EventKind> {
    let all = [("TWEET", EventKind::Tweet), ("PROFILE", EventKind::Profile), ("FOLLOW", EventKind::Follow)];
    all.into_iter().find(|(word, _)| word.eq_ignore_ascii_case(name)).map(|(_, kind)| kind)
}
