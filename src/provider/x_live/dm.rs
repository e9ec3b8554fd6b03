//! Conversations, as far as a tape has them.
//!
//! The live pipeline says that something happened in a conversation, and nothing else. So each `dm_update` that was
//! received is one message: its id is a snowflake made of that time and of the envelope's number, its sender is the
//! event's `user_id`, its text is empty.

use std::collections::VecDeque;
use std::ops::{ControlFlow, Range};

use serde_json::{Map, Value, json};

use super::rest::Refusal;
use crate::model::{EventId, EventKind, TweetId, UnixMicros};
use crate::provider::Asked;
use crate::provider::past::{Item, Past, Unreadable};

/// Messages of one answer to `user_updates`. Ours.
const UPDATES_MAX: usize = 200;

/// The bits of a snowflake below its time.
const SUFFIX: u64 = (1 << 22) - 1;

/// One message.
#[derive(Debug)]
struct Message {
    id: TweetId,
    sent_at: UnixMicros,
    conversation: String,
    sender: String,
}

impl Message {
    fn of(number: u64, item: &Item) -> Option<Self> {
        let EventId::Text(conversation) = &item.id else { return None };
        let envelope: Option<Value> = serde_json::from_slice(&item.envelope).ok();
        let sender = envelope.as_ref().and_then(|envelope| envelope.pointer("/payload/dm_update/user_id"));
        let sender = sender.and_then(Value::as_str).unwrap_or_default().to_owned();
        let id = TweetId(TweetId::first_at(item.received_at).0 | (number & SUFFIX));
        Some(Self { id, sent_at: item.received_at, conversation: conversation.clone(), sender })
    }

    /// Documented: the shape twikit and mautrix-twitter read; the time is milliseconds in a text.
    fn entry(&self) -> Value {
        let (id, time) = (self.id.to_string(), self.sent_at.millis().to_string());
        let mut data = json!({ "id": id, "time": time, "sender_id": self.sender, "text": "" });
        if let (Some(recipient), Some(data)) = (self.recipient(), data.as_object_mut()) {
            data.insert("recipient_id".to_owned(), recipient.into());
        }
        json!({ "message": { "id": id, "time": time, "conversation_id": self.conversation, "message_data": data } })
    }

    /// The other one of two; a group has no recipient.
    fn recipient(&self) -> Option<&str> {
        let (a, b) = self.conversation.split_once('-')?;
        Some(if a == self.sender { b } else { a })
    }
}

/// `dm/conversation/<id>.json`: a page, newest first. Documented: `entries` is not there when it would be empty, and
/// `max_id` is the oldest message one has.
pub(super) fn conversation(id: &str, asked: &Asked<'_>, past: &mut Past<'_>, page: usize) -> Result<Value, Refusal> {
    let (max_id, min_id) = (message_id(asked, "max_id")?, message_id(asked, "min_id")?);
    let ids = min_id.map_or(0, |id| id.0.saturating_add(1))..max_id.map_or(u64::MAX, |id| id.0);
    let (messages, has_more) = newest(past, Some(id), ids, page)?;
    let mut timeline = Map::new();
    timeline.insert("status".to_owned(), status(has_more).into());
    if let (Some(newest), Some(oldest)) = (messages.first(), messages.last()) {
        timeline.insert("min_entry_id".to_owned(), oldest.id.to_string().into());
        timeline.insert("max_entry_id".to_owned(), newest.id.to_string().into());
        timeline.insert("entries".to_owned(), messages.iter().map(Message::entry).collect());
    }
    let with_info = asked.query_value("include_conversation_info").is_some_and(|value| value.eq_ignore_ascii_case("true"));
    timeline.insert("users".to_owned(), json!({}));
    timeline.insert("conversations".to_owned(), if with_info { conversations(&messages) } else { json!({}) });
    Ok(json!({ "conversation_timeline": timeline }))
}

/// `dm/user_updates.json`: what came after a cursor, in the order it came; without one, from the start.
///
/// Documented: the wrapper and the cursor. The order, and that more than 200 come in parts, are ours.
pub(super) fn user_updates(asked: &Asked<'_>, past: &mut Past<'_>) -> Result<Value, Refusal> {
    let after = message_id(asked, "cursor")?.map_or(0, |id| id.0.saturating_add(1));
    let mut messages: VecDeque<Message> = VecDeque::new();
    visit(past, after..u64::MAX, |message| {
        messages.push_front(message);
        messages.truncate(UPDATES_MAX);
        ControlFlow::Continue(())
    })?;
    let cursor = messages.back().map_or(after.saturating_sub(1), |message| message.id.0);
    let messages: Vec<_> = messages.into();
    let mut events = events(&messages, cursor);
    if messages.is_empty() {
        events.remove("entries");
    }
    Ok(json!({ "user_events": events }))
}

/// `dm/inbox_initial_state.json`: the newest messages, and where `user_updates` goes on from.
pub(super) fn inbox(past: &mut Past<'_>, page: usize) -> Result<Value, Refusal> {
    let (messages, has_more) = newest(past, None, 0..u64::MAX, page)?;
    let cursor = messages.first().map_or(0, |message| message.id.0);
    let mut state = events(&messages, cursor);
    let mut trusted = json!({ "status": status(has_more) });
    if let (Some(oldest), Some(trusted)) = (messages.last(), trusted.as_object_mut()) {
        trusted.insert("min_entry_id".to_owned(), oldest.id.to_string().into());
    }
    let rest = json!({ "status": "AT_END" });
    state.insert("inbox_timelines".to_owned(), json!({ "trusted": trusted, "untrusted": rest }));
    Ok(json!({ "inbox_initial_state": state }))
}

fn events(messages: &[Message], cursor: u64) -> Map<String, Value> {
    let mut events = Map::new();
    events.insert("cursor".to_owned(), cursor.to_string().into());
    events.insert("entries".to_owned(), messages.iter().map(Message::entry).collect());
    events.insert("users".to_owned(), json!({}));
    events.insert("conversations".to_owned(), conversations(messages));
    events
}

/// What is known of the conversations of these messages: their kind and their two members.
fn conversations(messages: &[Message]) -> Value {
    let mut all = Map::new();
    for Message { conversation: id, .. } in messages {
        let (kind, members) = match id.split_once('-') {
            Some((a, b)) => ("ONE_TO_ONE", json!([{ "user_id": a }, { "user_id": b }])),
            None => ("GROUP_DM", json!([])),
        };
        let about = || json!({ "conversation_id": id, "type": kind, "name": "", "participants": members });
        all.entry(id.clone()).or_insert_with(about);
    }
    Value::Object(all)
}

fn status(has_more: bool) -> &'static str {
    if has_more { "HAS_MORE" } else { "AT_END" }
}

fn message_id(asked: &Asked<'_>, name: &'static str) -> Result<Option<TweetId>, Refusal> {
    let value = asked.query_value(name).filter(|value| !value.is_empty());
    value.map(|digits| TweetId::parse(&digits).ok_or(Refusal::Invalid(name))).transpose()
}

/// The newest messages, of one conversation or of all, and whether there are older ones within the ids.
fn newest(
    past: &mut Past<'_>,
    conversation: Option<&str>,
    ids: Range<u64>,
    page: usize,
) -> Result<(Vec<Message>, bool), Unreadable> {
    let mut found = Vec::new();
    visit(past, ids, |message| {
        if conversation.is_none_or(|wanted| wanted == message.conversation) {
            found.push(message);
        }
        if found.len() <= page { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    })?;
    let has_more = found.len() > page;
    found.truncate(page);
    Ok((found, has_more))
}

/// All messages of those ids that were sent by now, newest first.
fn visit(past: &mut Past<'_>, ids: Range<u64>, mut each: impl FnMut(Message) -> ControlFlow<()>) -> Result<(), Unreadable> {
    // An id is made of the millisecond of receipt, so ids bound the time.
    let at = |id: u64| TweetId(id).published_at();
    let start = at(ids.start).unwrap_or(UnixMicros(i64::MIN));
    let end = if ids.end == u64::MAX { None } else { at(ids.end).map(|at| UnixMicros(at.0.saturating_add(1_000))) };
    past.deliveries(&[EventKind::DmUpdate], start..end.unwrap_or(UnixMicros(i64::MAX)), |number, item| {
        match Message::of(number, item).filter(|message| ids.contains(&message.id.0)) {
            Some(message) => each(message),
            None => ControlFlow::Continue(()),
        }
    })
}
