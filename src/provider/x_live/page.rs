//! Pages of X's own history, read once: totals of posts, and messages of a conversation.
//!
//! Source of the shapes: d60/twikit 2.3.3 and mautrix-twitter, as the fake beside it has them.

use std::borrow::Cow;

use crate::model::json::{Bad, Json, Kind};
use crate::model::{Decoded, Event, EventId, EventKind, Message, TweetId, UnixMicros};
use crate::provider::history::one_value;

/// What stands on a page.
#[derive(Debug, Default)]
pub(super) struct Page {
    /// Posts with their totals; `Some` if it is an answer about posts.
    pub(super) posts: Option<Vec<TweetId>>,
    /// `Some` if it is a page of a conversation.
    pub(super) talk: Option<Talk>,
    /// Code of the first complaint.
    pub(super) complaint: Option<i64>,
}

/// A page of a conversation.
#[derive(Debug, Default)]
pub(super) struct Talk {
    pub(super) is_at_end: bool,
    pub(super) entries: Vec<Entry>,
    /// The oldest and the newest entry, by X's own word.
    pub(super) named: [Option<u64>; 2],
}

/// Something in a conversation.
#[derive(Debug, Default)]
pub(super) struct Entry {
    pub(super) id: Option<TweetId>,
    pub(super) sent_at: Option<UnixMicros>,
    pub(super) conversation: String,
    pub(super) is_message: bool,
}

impl Entry {
    pub(super) fn event(self) -> Option<Event> {
        let id = self.id.filter(|_| self.is_message)?;
        let selector = if self.conversation.is_empty() { String::new() } else { format!("/dm_update/{}", self.conversation) };
        let published_at = self.sent_at.or(id.published_at());
        Some(Event { kind: EventKind::DmUpdate, id: EventId::Text(id.to_string()), published_at, selector })
    }
}

/// Reads an answer for the events in it; whatever else it is has none.
///
/// A total has no time of its own, like the live envelopes. A message has its own id: the live envelope names only the
/// conversation, so the two never meet.
pub fn decode_page(body: &[u8]) -> Decoded {
    let Some(json) = one_value(body) else { return Decoded { message: Message::Unknown, ..Decoded::default() } };
    let page = read(body).unwrap_or_default();
    let message = if page.posts.is_some() || page.talk.is_some() { Message::Data } else { Message::Other };
    let totals = page.posts.unwrap_or_default().into_iter().map(|id| Event {
        kind: EventKind::Engagement,
        id: EventId::Tweet(id),
        published_at: None,
        selector: format!("/tweet_engagement/{id}"),
    });
    let entries = page.talk.map(|talk| talk.entries).unwrap_or_default();
    let events = totals.chain(entries.into_iter().filter_map(Entry::event)).collect();
    Decoded { json, message, provider_at: None, events }
}

/// Reads an answer; `None` if it is no JSON object.
pub(super) fn read(body: &[u8]) -> Option<Page> {
    let text = std::str::from_utf8(body).ok()?;
    let mut json = Json::new(text.trim_matches([' ', '\t', '\r', '\n']));
    if json.kind() != Kind::Object {
        return None;
    }
    let mut page = Page::default();
    json.object(|key, json| {
        match key {
            "data" => json.object(|key, json| if key == "tweetResult" { results(json, &mut page.posts) } else { Ok(()) })?,
            "conversation_timeline" if json.kind() == Kind::Object => page.talk = Some(talk(json)?),
            "errors" => json.array(|json| {
                json.object(|key, json| {
                    if key == "code" {
                        page.complaint = page.complaint.or(json.integer()?);
                    }
                    Ok(())
                })
            })?,
            _ => {}
        }
        Ok(())
    })
    .ok()?;
    json.finish().ok()?;
    Some(page)
}

/// `{"result": …}`, or a list of those.
fn results(json: &mut Json<'_>, posts: &mut Option<Vec<TweetId>>) -> Result<(), Bad> {
    let mut found = Vec::new();
    match json.kind() {
        Kind::Array => json.array(|json| wrapped(json, "result", &mut found))?,
        Kind::Object => wrapped(json, "result", &mut found)?,
        _ => return Ok(()),
    }
    *posts = Some(found);
    Ok(())
}

fn wrapped(json: &mut Json<'_>, wrapper: &str, found: &mut Vec<TweetId>) -> Result<(), Bad> {
    json.object(|key, json| if key == wrapper { post(json, found) } else { Ok(()) })
}

/// A post counts if it has its id and its totals. Documented: a post that not everybody may see is wrapped once more.
fn post(json: &mut Json<'_>, found: &mut Vec<TweetId>) -> Result<(), Bad> {
    let (mut id, mut has_totals) = (None, false);
    json.object(|key, json| {
        match key {
            "rest_id" => id = json.id()?.map(TweetId),
            "legacy" => has_totals = json.kind() == Kind::Object,
            "tweet" => post(json, found)?,
            _ => {}
        }
        Ok(())
    })?;
    found.extend(id.filter(|_| has_totals));
    Ok(())
}

fn talk(json: &mut Json<'_>) -> Result<Talk, Bad> {
    let mut talk = Talk::default();
    json.object(|key, json| {
        match key {
            "status" => talk.is_at_end = json.text()?.is_some_and(|status| status == "AT_END"),
            "min_entry_id" => talk.named[0] = json.id()?,
            "max_entry_id" => talk.named[1] = json.id()?,
            "entries" => json.array(|json| {
                json.object(|kind, json| {
                    let is_message = kind == "message";
                    talk.entries.push(entry(is_message, json)?);
                    Ok(())
                })
            })?,
            _ => {}
        }
        Ok(())
    })?;
    Ok(talk)
}

fn entry(is_message: bool, json: &mut Json<'_>) -> Result<Entry, Bad> {
    let mut entry = Entry { is_message, ..Entry::default() };
    json.object(|key, json| {
        match key {
            "id" => entry.id = json.id()?.map(TweetId),
            "time" => entry.sent_at = json.integer()?.map(UnixMicros::from_millis),
            "conversation_id" => entry.conversation = json.text()?.map(Cow::into_owned).unwrap_or_default(),
            _ => {}
        }
        Ok(())
    })?;
    Ok(entry)
}
